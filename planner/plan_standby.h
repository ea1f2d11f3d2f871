/* plan_standby.h: what a KV mirror costs (hf-run --standby): memory or a file for users at once and parked ones at full context, and the link. */
#ifndef HF_PLANNER_PLAN_STANDBY_H
#define HF_PLANNER_PLAN_STANDBY_H
#include "planner/plan_make.h"

/* HF_INPUT when the request's standby is none of none, ram and file:PATH, or names parked users without one. */
HF_MUST hf_status plan_standby_check(const plan_request *r);
/* Of a page of all layers. */
int64_t plan_kv_page_bytes(const plan_inputs *in);
/* Of host memory, where a page of all layers has so many; what hf-run counts, too (sched/footprint.h). */
int64_t plan_standby_bytes(const plan_request *r, int64_t page);
/* Reading a token's KV back into its page, ns: over the link that experts are sent over; where there is none, or its rate is not known, memory is read and written. */
double plan_kv_token_ns(const plan *p, const plan_eval *v);
/* Pages of the mirror that a plan says, 0: it says none. */
int64_t plan_standby_pages(const plan *p);
/* Member "standby" of a plan that has one. */
void plan_standby_json(const plan_inputs *in, const planned *p, json *extra);
/* Its line for people, nothing where it has none. */
HF_MUST hf_status plan_show_standby(const plan *p, hf_buf *b);
#endif
