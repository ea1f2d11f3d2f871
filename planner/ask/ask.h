/* ask.h: one machine, one model, one load, one answer: the case, of which whatif, sweep, recommend and roi are made.
 *
 * Needs no database: machines are composed in memory (ask/machine.h). Thread rule: ask_evaluate may be called from many threads at once, also
 * with one and the same ask_case_spec; results are the same bits whatever the number of threads. */
#ifndef HF_PLANNER_ASK_ASK_H
#define HF_PLANNER_ASK_ASK_H

#include "planner/ask/machine.h"
#include "planner/money/scenario.h"
#include "planner/plan_make.h"

enum { ASK_NAME = 96, ASK_MAX_POSSIBLE = PLAN_MAX_REMEDIES };

/* What a request has to meet; 0 = not asked for. */
typedef struct {
  double ttft_s, tpot_s; /* limits on the 95th percentile under sustained load (plan_sustained.h) */
  double tok_per_s;      /* delivered to all users together under that load, at least */
} ask_slo;

/* The question. Nothing is owned but through machine. */
typedef struct {
  char name[ASK_NAME];
  const ask_machine *machine; /* borrowed */
  plan_request req;           /* its machine and host_rows are not read */
  ask_slo slo;
  const money_scenario *scenario; /* for the cost per million tokens; NULL: none */
  bool count_users;               /* also find users_at_slo (further evaluations) */
  bool quick;                     /* the Lagrangian placement is enough when its gap is at most 0.5 % */
  bool search_fully;              /* with quick: see planned_options */
  bool no_chunks;                 /* see planned_options */
  bool one_depth;                 /* with quick: the depth of the best objective; else all are simulated */
  bool no_interval;               /* the range is the likely value only: for searches */
  /* For searches, see planned_options: a p95 over this many times its limit is only known to be at least what is said, and the decode rate is
   * the objective's; 0 = the whole answer. */
  double give_up;
} ask_case_spec;

/* The answer. Percentiles, tok_per_s_wall, goodput and busy are of a sustained load (plan_sustained.h), decode_tok_per_s of all users decoding at
 * once. When not feasible, the numbers below `possible` are 0 but for price and power. */
typedef struct {
  char name[ASK_NAME];
  char machine[128], cpu[ASK_NAME], memory[ASK_NAME], gpus[ASK_NAME]; /* parts; "" = unknown, gpus "none" */
  int sockets;
  int64_t memory_bytes;
  char model[256], format[32];
  int64_t users, context, prompt_tokens, output_tokens;
  bool feasible;
  char why_not[400];
  int n_possible;
  char possible[ASK_MAX_POSSIBLE][200];
  plan_range decode_tok_per_s;
  plan_percentiles ttft_s, tpot_s, e2e_s;
  double tok_per_s_wall, prefill_tok_per_s; /* delivered: prompts and waiting included; prompt tokens per second */
  double goodput;                           /* share of requests that meet ttft_s and tpot_s of the SLO; -1: none asked for */
  bool given_up;                            /* see give_up above: a limit is missed by at least so much */
  int64_t users_at_slo;                     /* most users whose p95 meets it; -1: not asked for, 0: not even one */
  int depth, chunk_tokens;
  char binding[32];
  double gap;
  double device_busy, cpu_busy;
  bool has_price, has_power, has_cost;
  plan_range price; /* of the hardware */
  double power_idle_w, power_active_w, power_mean_w;
  double joule_per_token; /* of output */
  plan_range cost;        /* per million tokens, blended, default scenario */
  char tag[16];
  /* For causes: what each resource is fed with, and how long a step waits for it. 0 = has none. */
  double dram_bytes_per_s, gpu_bytes_per_s, link_bytes_per_s;
  double step_ns, cpu_ns, device_ns;   /* objective; the CPU's and the busiest device's own sums over layers, all micro-batches */
  double log_effect[COST_N_GROUPS][2]; /* ln(step time / likely one) with one group of figures at its slow, at its fast end */
  int64_t experts_on_gpu;
} ask_case;

/* HF_OK also for an infeasible case (out->feasible false). Failures are those of inputs (unknown model, bad number). */
HF_MUST hf_status ask_evaluate(const ask_case_spec *s, ask_case *out);
/* Whether the likely figures meet the SLO; why (may be NULL) says which limit is missed, by how much. */
bool ask_meets(const ask_case *c, const ask_slo *slo, char why[160]);
/* Members of docs/answers.md, "A case", into an object. */
void ask_case_to_json(const ask_case *c, json *into);

/* Evaluates n cases on `threads` threads (0 = all cores), calling done(user, i) after each, one call at a time (NULL ok). The first failure, by
 * index, is returned. */
HF_MUST hf_status ask_evaluate_all(const ask_case_spec *s, int n, int threads, void (*done)(void *user, int i), void *user,
                                   ask_case *out);
/* How many threads it will use: asked, or all cores; at most n. */
int ask_threads(int asked, int n);
#endif
