/* plan_standby.h: what a KV mirror in host memory costs (hf-run --standby ram): memory of users at once and parked ones at full context, and the link. */
#ifndef HF_PLANNER_PLAN_STANDBY_H
#define HF_PLANNER_PLAN_STANDBY_H
#include "planner/plan_make.h"

/* HF_INPUT when the request's standby is none of none and ram, or names parked users without one. */
HF_MUST hf_status plan_standby_check(const plan_request *r);
/* Of host memory; kv: pages of all users at once. */
int64_t plan_standby_bytes(const plan_request *r, int64_t kv);
/* Member "standby" of a plan that has one. */
void plan_standby_json(const plan_inputs *in, const planned *p, json *extra);
/* Its line for people, nothing where it has none. */
HF_MUST hf_status plan_show_standby(const plan *p, hf_buf *b);
#endif
