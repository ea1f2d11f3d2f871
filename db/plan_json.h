/* plan_json.h: what plan.c, plan_read.c and plan_write.c share. Private to db. */
#ifndef HF_DB_PLAN_JSON_H
#define HF_DB_PLAN_JSON_H
#include "db/plan.h"

/* Is this a member of plan.json with a place in the struct? All others live in `extra`. */
bool plan_is_member(const char *key);
/* The rules of plan.h without the budget's. */
HF_MUST hf_status plan_check_numbers(const plan *p, const char *where);

/* The six times of a layer under their names, so that reading, writing and checking are one loop. */
enum { PLAN_LAYER_TIMES = 6 };
typedef struct {
  const char *name;
  size_t offset;
} plan_time_field;
extern const plan_time_field plan_layer_time[PLAN_LAYER_TIMES];
#endif
