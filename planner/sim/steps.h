/* steps.h: the machine for long loads: the same walk through the layers, but what repeats itself is counted instead of simulated.
 *
 * Runs: decode steps of a micro-batch that differ by their context alone are one event for whoever asks; a run may be cut, it then ends with
 * the step it is in.
 * Alone: a micro-batch that nobody disturbs from the beginning of a step on takes the sum of its layers, each step of a run longer than the
 * one before by the same.
 * In company: all walk through their layers (walk.h, or machine.h where that does not do). While everybody is in a run, ends of steps are
 * watched: when each micro-batch has ended a whole number of steps in the time in which the first active one has ended so many, they are in
 * a cycle, distances and all, and as many cycles are jumped over as fit before a run ends or somebody comes; each lasts longer than the one
 * before by what two cycles seen differ by. A jump is short enough for contexts to matter little; then a cycle is simulated again.
 * A step that prefills, and who settles into a cycle yet, is never jumped over. */
#ifndef HF_PLANNER_SIM_STEPS_H
#define HF_PLANNER_SIM_STEPS_H

#include "planner/sim/machine.h"

typedef struct sim_steps sim_steps;
/* uploads: whether steps may have any. The trace gets whole steps. */
HF_MUST hf_status sim_steps_new(const stage_table *table, int depth, bool uploads, sim_trace_fn *trace, void *user,
                                sim_steps **out);
void sim_steps_free(sim_steps *s);
/* As sim_machine_*. */
void sim_steps_start(sim_steps *s, int mb, const sim_work *w);
/* A run from the step first to the step last, `more` (> 0) steps later; what first points to must stay, last is read at once. Attention of
 * the steps between lies on the line between. */
void sim_steps_start_run(sim_steps *s, int mb, const sim_work *first, const sim_work *last, int more);
/* All runs end with the step under way. */
void sim_steps_cut(sim_steps *s);
/* How many steps of what micro-batch mb started last are over by now. */
int sim_steps_done(const sim_steps *s, int mb);
/* A step that ends exactly at `until` ends its run. */
bool sim_steps_advance(sim_steps *s, int64_t until, int *ended);
int64_t sim_steps_now(const sim_steps *s);
int64_t sim_steps_busy_ns(const sim_steps *s, int resource);
/* Steps that were simulated layer by layer. */
int64_t sim_steps_walked(const sim_steps *s);
#endif
