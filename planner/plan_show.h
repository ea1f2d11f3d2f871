/* plan_show.h: plans as text for people. */
#ifndef HF_PLANNER_PLAN_SHOW_H
#define HF_PLANNER_PLAN_SHOW_H
#include "base/mem.h"
#include "planner/plan_make.h"

HF_MUST hf_status plan_show(const plan *p, hf_buf *b);
HF_MUST hf_status plan_show_budget(const plan_budget *rows, int n, hf_buf *b);
#endif
