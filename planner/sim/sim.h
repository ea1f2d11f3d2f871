/* sim.h: a discrete-event simulation of a plan: sched/ decides the steps, a stage table says how long they take.
 *
 * Clock: integer nanoseconds; one heap ordered by (time, order of creation), so that equal seeds give equal results to the bit.
 * Resources: the device (one job at a time, first come first served; attention runs on into shared and resident experts of the same
 * micro-batch) and the CPU pool (likewise). A layer of a micro-batch:
 *
 *     device  | attn      | shared + dexp |
 *     link                | hand |
 *     cpu                        | cexp (queues for the pool) |      next layer when both are through
 *
 * A one_resource table runs attn, shared and cexp on the CPU in line. `step_fixed` delays a step and occupies nothing; `head` runs on
 * the device. With one micro-batch a decode step lasts exactly what ilp_evaluate says, up to rounding to ns.
 *
 * Users are a closed loop: each sends its next request when the last one has ended. Definitions: TTFT = first token - arrival; TPOT = (E2E - TTFT) /
 * (n - 1); decode_tok_per_s = output tokens per second while every user is decoding; tok_per_s_wall = all output tokens / wall time. */
#ifndef HF_PLANNER_SIM_SIM_H
#define HF_PLANNER_SIM_SIM_H

#include "db/plan.h"
#include "db/records.h"
#include "sched/sched.h"
#include "sched/stages.h"

typedef struct {
  const stage_table *table; /* borrowed */
  const popularity *pop;    /* borrowed; routing is priced by expected times */
  const uint8_t *on_device; /* [n_layers * n_experts] or NULL */
  int users, depth;         /* 1..SCHED_MAX_SEQS, 1..SCHED_MAX_DEPTH */
  int prompt_tokens, output_tokens;
  int requests_per_user; /* >= 1 */
  double length_spread;  /* 0: all equal; s: lengths uniform in [1-s, 1+s] times the above, drawn by seed; s < 1 */
  uint64_t seed;
  int chunk_tokens, page_tokens;
  int n_pages;                                   /* 0 = enough for everybody */
  void (*trace)(void *user, const rec_trace *r); /* each stage as it ends, or NULL */
  void *trace_user;
} sim_options;

typedef struct {
  double decode_tok_per_s, decode_s; /* 0 when no moment had every user decoding */
  double tok_per_s_wall, prefill_tok_per_s, wall_s;
  plan_percentiles ttft_s, tpot_s, e2e_s;
  int64_t requests, steps, prompt_tokens, output_tokens;
  double device_busy, cpu_busy; /* share of wall time */
  double in_system;             /* mean number of requests waiting or running, integrated over time */
  double e2e_sum_s;
} sim_result;

HF_MUST hf_status sim_run(const sim_options *o, sim_result *out);
#endif
