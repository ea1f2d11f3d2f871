/* sim.h: a discrete-event simulation of a plan: sched/ decides the steps, a stage table says how long they take.
 *
 * Clock: integer nanoseconds; one heap ordered by (time, order of creation). Equal options give equal results to the bit, on any machine
 * (random.h). What happens inside a step: machine.h. With one micro-batch a decode step lasts exactly what ilp_evaluate says, up to
 * rounding to ns.
 *
 * Two resolutions of the same walk through the layers. Layers: every stage of every layer is an event. Steps: what repeats itself is counted
 * (steps.h): a micro-batch alone takes the sum of its layers, and in company steady cycles of decode steps are jumped over; the rest walks
 * through its layers as ever. SIM_AUTO simulates layers and, when SIM_LAYER_STEPS steps are not enough, begins again with steps (not where
 * somebody listens: trace, on_request, sampled routing stay with layers unless told otherwise). Both agree within 1 % at any depth, alone,
 * queueing and in lockstep, in the mean of a few seeds and most cells far closer; one run of one to two thousand requests near
 * saturation may differ more, since one ns decides which micro-batch somebody comes to. Tested in tests/unit/planner_sim_steps.c. How much is saved
 * is sim_result.walked: much where contexts cost little, nothing of steps that prefill. Memory does not depend on the number of requests.
 *
 * Definitions: TTFT = first token - arrival; TPOT = (E2E - TTFT) / (n - 1); decode_tok_per_s = output tokens per second while every
 * user (or slot, where there are fewer) is decoding; tok_per_s_wall = all output tokens / wall time; goodput = share of requests that meet
 * both limits of the SLO. Percentiles by nearest rank, exact up to SIM_EXACT requests, beyond within SIM_SKETCH_ERROR.
 *
 * Every option is 0 where it is not wanted; the fields before `arrivals` are enough for a closed loop of users who start together. */
#ifndef HF_PLANNER_SIM_SIM_H
#define HF_PLANNER_SIM_SIM_H

#include "db/plan.h"
#include "planner/sim/machine.h"

enum { SIM_LAYER_STEPS = 100000, SIM_EXACT = 65536, SIM_MOST_USERS = 100000, SIM_MOST_CHUNK = 4096 };
#define SIM_SKETCH_ERROR 0.004

typedef enum {
  SIM_CLOSED,  /* users who send their next request think_s after the answer to the last */
  SIM_POISSON, /* rate_per_s */
  SIM_GAMMA,   /* gaps of mean 1 / rate_per_s and coefficient of variation cv */
  SIM_BURSTY,  /* Poisson within bursts of mean burst_on_s, silence of mean burst_off_s between them, rate_per_s over all */
  SIM_TRACE    /* trace_path (trace_read.h) */
} sim_arrivals;
typedef enum {
  SIM_LENGTHS_UNIFORM,    /* in [1-s, 1+s] times the mean, s = length_spread; 0: constant */
  SIM_LENGTHS_LOGNORMAL,  /* of that mean and coefficient of variation length_cv */
  SIM_LENGTHS_EXPONENTIAL /* of that mean, rounded up */
} sim_lengths;
typedef enum { SIM_AUTO, SIM_LAYERS, SIM_STEPS } sim_resolution;

/* A request that has ended. */
typedef struct {
  int64_t number, arrival_ns, start_ns, first_token_ns, end_ns; /* start: its first step began */
  int prompt, output, cached;
} sim_request;

typedef struct {
  double idle_w, active_w; /* active: while occupied, in place of idle */
} sim_power;

typedef struct {
  const stage_table *table; /* borrowed, like all pointers */
  const popularity *pop;    /* prefill, where it has that: of steps with a prompt in them */
  const uint8_t *on_device; /* [n_layers * n_experts] place bytes or NULL */
  int users, depth;         /* users 1..SIM_MOST_USERS (SIM_CLOSED), depth 1..SCHED_MAX_DEPTH */
  int prompt_tokens, output_tokens;
  int requests_per_user; /* >= 1 unless duration_s says when to stop */
  double length_spread;  /* 0: all equal; s: lengths uniform in [1-s, 1+s] times the above, drawn by seed; s < 1 */
  uint64_t seed;
  int chunk_tokens, page_tokens;
  int n_pages;         /* 0 = enough for everybody */
  sim_trace_fn *trace; /* each stage as it ends, or NULL; with SIM_STEPS each step */
  void *trace_user;

  sim_arrivals arrivals;
  double rate_per_s, cv, burst_on_s, burst_off_s;
  const char *trace_path;
  double trace_stretch; /* arrivals of a trace times this; 0 = 1 */
  int64_t requests;     /* arrivals other than SIM_CLOSED: how many; 0 = until duration_s or the trace's end */
  double duration_s;    /* no request arrives later; 0 = none */
  double think_s;
  bool think_exponential; /* of mean think_s, else constant */
  sim_lengths lengths;
  double length_cv;
  int max_context; /* requests longer than this are refused; 0 = what the pages hold */
  double
      prefix_share; /* of each prompt that is in the cache already and not computed; its pages are reserved all the same. 0..1 */
  /* Conversations: in a closed loop each user's requests are turns of one, prompts of prompt_tokens coming behind all that was said; of a trace those lines that
   * name a session, where the first one does. After `turns` of them, or where the next would be longer than max_context (0: than the pages hold), a user
   * begins another one; 0 turns: only then. shared_tokens: with which all begin, before the first prompt. */
  bool sessions;
  int turns, shared_tokens;
  int standby_pages; /* of a KV mirror where conversations are parked; 0: there is none, and what lost its pages is computed again */
  double kv_token_ns; /* reading a token's KV back from it */
  int max_seqs;       /* running at once, 1..SCHED_MAX_SEQS; 0 = users, at most SCHED_MAX_SEQS */

  const uint8_t *prefill_upload; /* [n_layers]: layers whose CPU experts a big step has sent to the device; NULL = none */
  int upload_tokens;             /* a step of at least so many tokens is big */
  int upload_slots;              /* experts that a micro-batch can have under way; 0 = SCHED_UPLOAD_SLOTS */
  bool sample_routing; /* draw every token's experts by seed instead of pricing expected times; needs SIM_LAYERS or SIM_AUTO */
  sim_resolution resolution;

  int64_t warm_up;               /* the first requests that do not count in latencies and goodput */
  double slo_ttft_s, slo_tpot_s; /* 0 = no limit */
  sim_power power[SIM_N_RESOURCES];
  void (*on_request)(void *user, const sim_request *r); /* each request as it ends, or NULL */
  void *request_user;
  const bool *stop; /* looked at after every step: true ends the simulation there; on_request may set it; NULL = never */
} sim_options;

/* What became of KV beyond its requests (sessions.h); tokens of prompts, summed over requests. */
typedef struct {
  bool any;                               /* there were conversations */
  int64_t shared_tokens;                  /* found in pages, not computed */
  int64_t restored_tokens, resumed;       /* read back from the mirror; requests that had any */
  int64_t parked_tokens, mirrored_tokens; /* whose pages went to others while the mirror has them; written to it */
  int64_t left_out_pages;                 /* it had no slot for */
  double resume_s;                        /* reading back, all together */
  int slots;
  int pages_lost, slots_lost; /* neither free nor known to hold a text, at the end: 0 */
} sim_parking;

typedef struct {
  double decode_tok_per_s, decode_s; /* 0 when no moment had every user decoding */
  double tok_per_s_wall, prefill_tok_per_s, wall_s;
  plan_percentiles ttft_s, tpot_s, e2e_s, wait_s; /* wait: arrival to first step */
  double ttft_mean_s, tpot_mean_s, e2e_mean_s, wait_mean_s;
  int64_t requests, refused, steps, prompt_tokens, output_tokens; /* refused: can never run, too long */
  double device_busy, cpu_busy;                                   /* share of wall time; the first device's */
  double busy[SIM_N_RESOURCES]; /* SIM_CPU: and of each NUMA node that has a share of the experts (machine.h) */
  double energy_j, energy_of_j[SIM_N_RESOURCES];
  double in_system, waiting; /* mean number of requests waiting or running; waiting; integrated over time */
  int64_t max_in_system, max_waiting;
  double e2e_sum_s;
  double goodput, goodput_req_per_s, goodput_tok_per_s; /* share of counted requests; per second of wall time */
  sim_parking parking;                                  /* with sessions */
  bool by_steps;                                        /* resolution used */
  int64_t walked; /* of the steps, those simulated layer by layer: what a simulation costs */
} sim_result;

/* HF_INPUT: an option out of range, a bad trace, times so long that their sums would overflow. HF_NO: no request could run. */
HF_MUST hf_status sim_run(const sim_options *o, sim_result *out);
/* Slots, pages and depth as sim_run uses them (defaults filled in). */
int sim_max_seqs(const sim_options *o);
#endif
