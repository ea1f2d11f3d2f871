/* workload.h: requests of a simulation in order of arrival, drawn as they are wanted. Two sources of the same options give the same
 * requests: one feeds the scheduler when it has room, the other counts arrivals as they happen. */
#ifndef HF_PLANNER_SIM_WORKLOAD_H
#define HF_PLANNER_SIM_WORKLOAD_H

#include "planner/sim/sim.h"

typedef struct {
  int64_t number, arrival_ns; /* number: of the request; closed loop: user + i * users for a user's i-th */
  int prompt, output, cached;
  uint64_t session; /* of the conversation that it is a turn of, 0: of none */
  bool begins;      /* it does not go on from the turns before */
} sim_demand;

typedef struct sim_source sim_source;
HF_MUST hf_status sim_source_new(const sim_options *o, sim_source **out);
void sim_source_free(sim_source *s);
/* Arrival of the next request known, INT64_MAX when there is none (a closed loop has more after sim_source_ended). */
int64_t sim_source_peek(const sim_source *s);
HF_MUST hf_status sim_source_pop(sim_source *s, sim_demand *out);
/* Whether requests are turns of conversations: sim_options.sessions, or the first line of the trace names one. */
bool sim_source_sessions(const sim_source *s);
/* Closed loop: the user of this request got the answer now. */
void sim_source_ended(sim_source *s, int64_t number, int64_t now_ns);
#endif
