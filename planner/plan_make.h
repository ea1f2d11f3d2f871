/* plan_make.h: from inputs to a plan: table, placement, prediction, budget. */
#ifndef HF_PLANNER_PLAN_MAKE_H
#define HF_PLANNER_PLAN_MAKE_H

#include "planner/ilp/ilp.h"
#include "planner/plan_drift.h"
#include "planner/plan_eval.h"
#include "planner/plan_inputs.h"
#include "planner/sim/sim.h"

typedef struct {
  plan *p;         /* not stored yet */
  ilp_result *ilp; /* for the LP files */
  plan_eval *eval;
  plan_drift *drift; /* with --from-run, else NULL */
  sim_result sim;
  /* Set when the answer is HF_NO: what needs how much, and what would help. */
  int n_budget, n_remedies;
  plan_budget budget[PLAN_MAX_BUDGET];
  char remedy[PLAN_MAX_REMEDIES][200];
} planned;

/* HF_NO when nothing fits: out->budget and out->remedy tell. Other failures leave nothing of use in out. In both cases free with
 * planned_free. */
HF_MUST hf_status plan_make(plan_inputs *in, planned *out);
void planned_free(planned *p);

/* Decode step of a placement with the table of another case of the figures: for intervals and tests. */
HF_MUST hf_status plan_step_ns(const plan_inputs *in, const planned *p, cost_case c, double *ns);

/* extra.changes: which experts moved against the plan of the run, why, and the gain expected under the new table. */
HF_MUST hf_status plan_changes(const plan_inputs *in, const planned *p, json *extra);
/* extra.baselines, by_depth, advice, fallback, definitions. */
HF_MUST hf_status plan_extras(const plan_inputs *in, const planned *p, json *extra);
#endif
