/* plan_drift.h: what a run teaches: how far each stage was off, and what the plan that was run looked like. */
#ifndef HF_PLANNER_PLAN_DRIFT_H
#define HF_PLANNER_PLAN_DRIFT_H

#include "db/db.h"
#include "planner/plan_inputs.h"

enum { DRIFT_ATTN, DRIFT_SHARED, DRIFT_DEXP, DRIFT_CEXP, DRIFT_HAND, DRIFT_HEAD, DRIFT_N };
extern const char *const drift_name[DRIFT_N];

/* What part of a decode step is measured decides the tag of the corrected table. A step's work is the sum of all stages of all layers, head,
 * hand-over and fixed cost, each with its factor; of it the rows of the run count as measured (a stage measured in one layer counts for that layer,
 * though its factor goes for all), and hand-over and fixed cost where the whole step was measured and explained by them. From DRIFT_MEASURED on
 * the table is measured; from DRIFT_SCALED on at least scaled, since what was measured stands for the rest; below it keeps the tag it had. A tag
 * never gets worse by what a run adds. */
#define DRIFT_MEASURED 0.9
#define DRIFT_SCALED 0.5

typedef struct {
  rec_run run;
  plan *old;              /* the plan of that run, or NULL */
  uint8_t *old_placement; /* [n_layers * n_experts], or NULL */
  bool used[DRIFT_N];     /* measured in that run */
  double factor[DRIFT_N]; /* measured / predicted; 1 where not measured */
  double
      fixed_factor; /* on what no stage shows, hand-over and fixed cost of a step: the whole step then comes out right; 1 = not known */
  double step_extra_ns;                         /* and what even a thousand times those would not explain */
  double measured_share;                        /* of a decode step's work, 0..1: see above */
  double distinct_measured, distinct_predicted; /* experts touched per step and layer, decode; 0 = not recorded */
  double *
      distinct_ratio; /* [n_layers] measured over predicted of each layer; 1 where fewer than four steps were; NULL = not recorded */
} plan_drift;

/* Reads the run and compares it, stage by stage, with the table (which is not corrected yet) for the run's own placement. The factors
 * stay 1 when the run was on another kind of device. HF_INPUT when the run is of another model. */
HF_MUST hf_status plan_drift_of_run(const plan_inputs *in, const stage_table *t, plan_drift **out);
void plan_drift_free(plan_drift *d);
void plan_drift_apply(const plan_drift *d, stage_table *t);

/* Pure parts, for tests: measured over predicted per stage from a run's rows; placement may be NULL (all on the CPU). */
void drift_compare(const stage_table *t, const popularity *pop, const uint8_t *placement, double context, const rec_stage *rows,
                   int n, plan_drift *d);
HF_MUST hf_status drift_distinct(const popularity *pop, const stage_table *t, const rec_distinct *rows, int n, plan_drift *d);
#endif
