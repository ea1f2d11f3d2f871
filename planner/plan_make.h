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
  ilp_depth_result by_depth[ILP_MAX_DEPTH]; /* of the search over all depths */
  double depth_tok_per_s[ILP_MAX_DEPTH];    /* simulated; 0 = not simulated */
  double seconds;                           /* all searches together */
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

/* Users who start together, under the plan's table, with any placement and depth. stretch: how much slower the mean decode step is than
 * the simulated ones, where answers are too long to simulate whole. */
HF_MUST hf_status plan_simulate(const plan_inputs *in, const planned *p, const uint8_t *placement, int depth, sim_result *out,
                                double *stretch);

/* extra.changes: which experts moved against the plan of the run, why, and the gain expected under the new table. */
HF_MUST hf_status plan_changes(const plan_inputs *in, const planned *p, json *extra);
/* extra.baselines, by_depth, advice, fallback, definitions. */
HF_MUST hf_status plan_extras(const plan_inputs *in, const planned *p, json *extra);
#endif
