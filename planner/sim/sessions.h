/* sessions.h: conversations in a simulation: whose KV is in pages, whose is parked in a mirror, whose has to be computed again.
 *
 * The same tree of texts (sched/prefix.h) and the same scheduler as hf-run's; a text is known by its conversation alone, and the first tokens of all may be
 * alike (sim_options.shared_tokens). A request finds what is in pages; behind that it gets what the mirror has, which takes the link's time and holds its step up;
 * the rest it computes. When it ends all of it is parked, as far as the mirror has room. Pages go to others when these need them, longest unused first.
 * Unlike hf-run a page gets its slot of the mirror when its request ends, not step by step: what is written is counted, and delays nobody. */
#ifndef HF_PLANNER_SIM_SESSIONS_H
#define HF_PLANNER_SIM_SESSIONS_H

#include "planner/sim/workload.h"

typedef struct sim_sessions sim_sessions;
/* s: that of the simulation, with so many pages; both outlive it. */
HF_MUST hf_status sim_sessions_new(const sim_options *o, sched *s, int n_pages, sim_sessions **out);
void sim_sessions_free(sim_sessions *x);

/* False: an earlier turn of its conversation has not ended; the demand is kept until then. Else it is request `id` from now on. */
HF_MUST hf_status sim_sessions_enter(sim_sessions *x, int64_t id, const sim_demand *d, bool *enters);
/* It was refused. */
void sim_sessions_leave(sim_sessions *x, int64_t id);
/* Before sched_done of its step: tokens up to `done` are in its pages, now of sequence seq. */
void sim_sessions_step(sim_sessions *x, const sched_piece *p, int done);
/* Before sched_done of its last step. */
void sim_sessions_end(sim_sessions *x, const sched_piece *p, int done);
/* A turn that waited and may enter, its conversation's turn before having ended. */
bool sim_sessions_next(sim_sessions *x, sim_demand *out);
/* Tokens of its prompt that were there when it was admitted. */
int sim_sessions_known(const sim_sessions *x, int64_t id);
/* Time that reading back has taken since this was asked last, ns. */
int64_t sim_sessions_waited(sim_sessions *x);
/* Everything counted, and at the end pages and slots that nobody accounts for. */
void sim_sessions_result(const sim_sessions *x, sim_parking *out);
#endif
