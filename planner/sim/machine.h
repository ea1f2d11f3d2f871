/* machine.h: the resources of a machine and the walk of micro-batches through the layers of their steps: the simulator's events.
 *
 * Clock: integer ns. Events in order of (time, creation). A layer of a micro-batch:
 *
 *     home device | attn | shared, dexp |
 *     CPU's side         | hand | cexp (queues for the pool) |
 *     other places       | their experts, hand-over included (queue for that device or machine) |     next layer when all are through
 *
 * The home device is kept from attention to its last expert. Each resource serves one job at a time, first come first served; hand-over
 * occupies none. While the home device's side (devices at a home job) and the CPU's side (a hand-over or the pool) are
 * both at work, each progresses at 1/contend: jobs a and b that start together last max(a, b) + (contend - 1) * min(a, b). The link and
 * the CPU's side likewise by contend_dma; the CPU slowed from both sides goes at the slower of the two rates.
 * Upload: the link sends the experts of a layer one by one through a few slots: as many as there are slots before the layer's routing is known (`ahead`),
 * from when those of the layer before are sent; the others from then on. dexp goes on beside that; when all else of it is through it
 * waits for the last expert (`tail`), and gives the device away meanwhile. A one_resource table runs attn, shared and cexp on the CPU in line.
 * The CPU is one pool: each expert is split over the workers of its NUMA nodes, in the shares in which they finish together as far as whole
 * blocks allow (cost_numa_split), so nodes work in step and have no queues of their own; a node that would not help has no share and idles.
 * Other machines and other devices have a queue each.
 * step_fixed delays a step and occupies nothing: the host samples and launches for one micro-batch while the others go on (stages.h).
 * The head runs on the last layer's home device. */
#ifndef HF_PLANNER_SIM_MACHINE_H
#define HF_PLANNER_SIM_MACHINE_H

#include "db/records.h"
#include "sched/sched.h"
#include "sched/stages.h"

#define SIM_MOST_NOW (INT64_C(1) << 61) /* 73 years of ns: where a simulation ends, so that no sum of times overflows */
enum {
  SIM_CPU = STAGE_MAX_DEVICES, /* resources: devices 0.., the CPU pool, the link, other machines */
  SIM_LINK,
  SIM_REMOTE,
  SIM_N_RESOURCES = SIM_REMOTE + STAGE_MAX_REMOTES
};

/* What does not depend on context, of one layer. */
typedef struct {
  int64_t shared, dexp, hand, cexp, upload;
  int64_t ahead, tail; /* of upload: what may go before the routing is known; of dexp: what is left when the last expert comes */
  int64_t place[STAGE_MAX_PLACES];
  bool elsewhere; /* any of place is above 0 */
} sim_layer_ns;

/* A step as work; what it points to must stay until the step has ended. */
typedef struct {
  int64_t number, fixed, head;
  const int64_t *attn;        /* [n_layers] */
  const sim_layer_ns *routed; /* [n_layers] */
  int tokens;
} sim_work;

typedef struct sim_machine sim_machine;
typedef void sim_trace_fn(void *user, const rec_trace *r);
/* table is borrowed; trace may be NULL. */
HF_MUST hf_status sim_machine_new(const stage_table *table, sim_trace_fn *trace, void *user, sim_machine **out);
void sim_machine_free(sim_machine *m);
/* Micro-batch mb, which is idle, starts a step now. */
void sim_machine_start(sim_machine *m, int mb, const sim_work *w);
/* Runs until a step ends (true; *ended is its micro-batch and the clock stands there), at most until `until` (false; the clock stands there,
 * or where it stood when nothing is under way and until is INT64_MAX). */
bool sim_machine_advance(sim_machine *m, int64_t until, int *ended);
int64_t sim_machine_now(const sim_machine *m);
/* The clock and all that is under way move on by so much, as if time had stood still; nobody counts it as occupied. */
void sim_machine_skip(sim_machine *m, int64_t ns);
/* Time a resource was occupied so far. */
int64_t sim_machine_busy_ns(const sim_machine *m, int resource);
/* Where experts of a place other than this CPU (1..) work. */
int sim_place_resource(const stage_table *t, int place);
const char *sim_resource_name(int resource); /* gpu0.. cpu link host1.. */
#endif
