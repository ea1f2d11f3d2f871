/* plan_sustained.h: the load that limits are judged by: users who never pause.
 *
 * A closed loop: every user sends the next request as soon as the last one is answered, so prompts of some are computed while others decode,
 * as on any day but the first minute. Lengths of prompts and answers are drawn evenly within SUSTAINED_SPREAD of those asked for (a sequence may
 * so be a quarter longer than the context asked for), which keeps users out of step. The first requests to end, SUSTAINED_WARM per user, do not
 * count: they are of users who all began at once. Then the next `requests` to end do; nobody stops before, so the last ones see the same load
 * as the first. Lengths are drawn from one seed and effort is a number of requests: the same answer on every machine. */
#ifndef HF_PLANNER_PLAN_SUSTAINED_H
#define HF_PLANNER_PLAN_SUSTAINED_H

#include "planner/plan_inputs.h"
#include "planner/sim/sim.h"

#define SUSTAINED_SPREAD 0.25
/* For texts: what percentiles are of. */
#define SUSTAINED_WORDS                                                                                                        \
  "sustained load: every user sends the next request at once, prompts and answers within a quarter of the lengths asked for, " \
  "the first two requests of each not counted"
enum { SUSTAINED_WARM = 2, SUSTAINED_LEAST = 40, SUSTAINED_MOST = 100, SUSTAINED_PER_USER = 20 };

typedef struct {
  int64_t
      requests; /* counted: SUSTAINED_PER_USER per user between LEAST and MOST, and at least two per user; less when given_up */
  plan_percentiles ttft_s, tpot_s, e2e_s; /* nearest rank; tpot_s 0 where answers have one token */
  double tok_per_s;                       /* output tokens of the counted requests over the time in which they ended: delivered */
  double goodput;                         /* share within slo_ttft_s and slo_tpot_s of the options */
  double device_busy, cpu_busy, busy[SIM_N_RESOURCES]; /* as of sim_result: of the whole time, the warm-up included */
  bool
      given_up; /* p95 of TTFT or TPOT is certainly over what was to be given up at: p95 is then the least it could have become, the rest is
                  * of what was seen */
} sustained_result;

/* o: table, placement, users (at most SCHED_MAX_SEQS), depth, mean lengths, chunk, uploads, slo; its arrivals, pages and spread of lengths are
 * set here, SIM_AUTO means steps. Its on_request hears of every request, counted or not. give_up_*: 0 = never. */
HF_MUST hf_status sustained_run(const sim_options *o, double give_up_ttft_s, double give_up_tpot_s, sustained_result *out);
/* The same load to its end, and with it what else the simulator tells: *whole is of the requests that count, but for busy shares and queues. */
HF_MUST hf_status sustained_simulate(const sim_options *o, sustained_result *out, sim_result *whole);
/* How many requests count with so many users, and how many before them do not. */
int sustained_requests(int users);
int sustained_warm_up(int users);
#endif
