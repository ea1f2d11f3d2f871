/* steps.h: micro-batches whose steps are single events. Alone, a step lasts the sum of its layers (with uploads: what machine.h says). In
 * company each micro-batch progresses at a share of that speed, which depends on who else is under way: the slowdown is measured
 * once per combination of sizes (tokens, share of attention) by letting such steps run over and over in machine.h, and kept. */
#ifndef HF_PLANNER_SIM_STEPS_H
#define HF_PLANNER_SIM_STEPS_H

#include "planner/sim/machine.h"

typedef struct sim_steps sim_steps;
HF_MUST hf_status sim_steps_new(const stage_table *table, int depth, sim_trace_fn *trace, void *user, sim_steps **out);
void sim_steps_free(sim_steps *s);
/* As sim_machine_*. */
HF_MUST hf_status sim_steps_start(sim_steps *s, int mb, const sim_work *w);
/* Depth 1: the micro-batch is busy for ns with whatever it is, and occupies resources for so long. */
void sim_steps_occupy(sim_steps *s, const sim_work *w, int64_t ns, const int64_t busy[SIM_N_RESOURCES]);
HF_MUST hf_status sim_steps_advance(sim_steps *s, int64_t until, int *ended, bool *any);
int64_t sim_steps_now(const sim_steps *s);
int64_t sim_steps_busy_ns(const sim_steps *s, int resource);
/* Time of a step alone on an idle machine; busy[r] += how long it occupies each resource (may be NULL). */
HF_MUST hf_status sim_step_alone_ns(const stage_table *t, const sim_work *w, int64_t *ns, int64_t busy[SIM_N_RESOURCES]);
#endif
