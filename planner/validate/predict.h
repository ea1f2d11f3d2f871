/* predict.h: what the planner's cost model says of a published row, with the facts of the engine that it was measured with. The same stage table,
 * step and interval as for plans (planner/cost, planner/plan_make.h), at depth 1, in the placement that the row states. */
#ifndef HF_PLANNER_VALIDATE_PREDICT_H
#define HF_PLANNER_VALIDATE_PREDICT_H
#include "planner/validate/resolve.h"
#include "sched/stages.h"

/* A resolved row with its model opened and its machine composed. */
typedef struct {
  resolved_case r;
  model *m;
  popularity *pop;
  cost_rows *rows;
} prepared_case;

/* A machine that cannot be composed makes the row declined, with the reason; other failures are errors. */
HF_MUST hf_status prepare_case(const resolved_case *r, prepared_case *out);
void prepared_case_free(prepared_case *p);

typedef struct {
  double decode, prefill; /* tokens per second; prefill 0 when its length is unknown */
} predicted_rates;
/* e is the engine of the row, or one like it with other facts. */
HF_MUST hf_status predict_case(prepared_case *p, const engine *e, cost_case c, predicted_rates *out);

typedef struct {
  double low, likely, high;
} predicted_range;
HF_MUST hf_status predict_interval(prepared_case *p, const engine *e, predicted_range *decode, predicted_range *prefill);
#endif
