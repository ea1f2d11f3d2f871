/* walk.h: what machine.h does, for steps that nobody traces, that upload nothing, on a table without contention: then a job's end is known
 * when it begins, and a layer is two events (it asks for its home device, it asks for the CPU; one more for each other place) instead of four.
 * The same ends to the ns, but where two micro-batches ask for one resource in the same ns. */
#ifndef HF_PLANNER_SIM_WALK_H
#define HF_PLANNER_SIM_WALK_H

#include "planner/sim/machine.h"

typedef struct sim_walk sim_walk;
/* table is borrowed. */
HF_MUST hf_status sim_walk_new(const stage_table *table, sim_walk **out);
void sim_walk_free(sim_walk *k);
bool sim_walk_can(const stage_table *table);
/* As sim_machine_*; busy time counts when a job begins. */
void sim_walk_start(sim_walk *k, int mb, const sim_work *w);
bool sim_walk_advance(sim_walk *k, int64_t until, int *ended);
int64_t sim_walk_now(const sim_walk *k);
void sim_walk_skip(sim_walk *k, int64_t ns);
int64_t sim_walk_busy_ns(const sim_walk *k, int resource);
#endif
