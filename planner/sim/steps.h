/* steps.h: micro-batches whose steps are single events. Alone, a step lasts the sum of its layers (with uploads: what machine.h says). In
 * company each micro-batch progresses at a share of that speed, which depends on who else is under way: the slowdown is measured
 * once per combination of sizes (tokens, share of attention) by letting such steps run over and over in machine.h, and kept.
 *
 * Runs: decode steps of a micro-batch that differ by their context alone are one event, each lasting the same time longer than the one before.
 * While a run is under way others may come and go (it goes on at another speed) and it may be cut: it then ends with the step it is in. */
#ifndef HF_PLANNER_SIM_STEPS_H
#define HF_PLANNER_SIM_STEPS_H

#include "planner/sim/machine.h"

typedef struct sim_steps sim_steps;
HF_MUST hf_status sim_steps_new(const stage_table *table, int depth, sim_trace_fn *trace, void *user, sim_steps **out);
void sim_steps_free(sim_steps *s);
/* As sim_machine_*. */
HF_MUST hf_status sim_steps_start(sim_steps *s, int mb, const sim_work *w);
/* A run from the step first to the step last, `more` (> 0) steps later. In company it ends before its speed would change notably (with the
 * share of attention); sim_steps_done tells how many steps it was. */
HF_MUST hf_status sim_steps_start_run(sim_steps *s, int mb, const sim_work *first, const sim_work *last, int more);
/* All runs end with the step under way. */
void sim_steps_cut(sim_steps *s);
/* How many steps of what micro-batch mb started last are over by now. */
int sim_steps_done(const sim_steps *s, int mb);
HF_MUST hf_status sim_steps_advance(sim_steps *s, int64_t until, int *ended, bool *any);
int64_t sim_steps_now(const sim_steps *s);
int64_t sim_steps_busy_ns(const sim_steps *s, int resource);
/* Time of a step alone on an idle machine; busy[r] += how long it occupies each resource (may be NULL). */
HF_MUST hf_status sim_step_alone_ns(const stage_table *t, const sim_work *w, int64_t *ns, int64_t busy[SIM_N_RESOURCES]);
#endif
