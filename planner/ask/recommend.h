/* recommend.h: the cheapest machines of the catalog that meet a demand.
 *
 * A combination is (CPU, sockets, kind of memory, bytes of a module, GPU, count, weight format). Each is counted once, under the first rule that
 * settles it:
 *   contradictory  no such machine: the CPU does not take the memory, the sockets or the GPUs, the memory is not sold in such modules, or GPU
 *                  modules not on boards of so many, or only for servers of a later PCIe generation
 *   unpriced       a part has no price
 *   memory         weights need more than its RAM and GPU memory together
 *   budget         dearer than the budget even without its platform, or with it
 *   roofline       even with its work spread perfectly over likely memory bandwidth and the GPUs' datasheet one too slow (roofline_tok_per_s):
 *                  the likely figures are what is judged, so none that meets the demand is lost
 *   dominated      one that failed by a factor f, with at least its GPU memory, a format no lighter, and no other figure of it is more than
 *                  f / 1.05 times as good: so it fails too; or no figure is better than those of one at most as dear that met the demand. The one
 *                  that failed may be imagined: with limits, once a machine has failed clearly, one that has the best of every figure among a
 *                  group of CPUs with the same GPUs is planned, and halves of the group where that does not fail
 *   dearer         over `dearer_factor` times the price of the cheapest that met it, or all places of the ranking are taken
 *   planned        = memory_planned + slow + slo + met: planned and simulated
 * Without any limit there is nothing to be the cheapest of but "runs at all", so the search also looks for two more of the same combinations: the
 * knee, of most delivered tokens/s per USD (below and above it a dollar brings less), and the fastest within the budget. Both are looked for from
 * the best bound downwards; `roofline` and `dominated` then say that a combination cannot be better than the one found by 1 %, the latter also
 * where it would have to reach more than 1.25 times as much of its bound as any of four like ones did (a guess that bounds the time), and `entry`
 * holds what no cheaper combination is as fast as.
 * Combinations are visited in order of price. Memory and budget are exact and the roofline of tokens/s is a bound; that of TPOT and `dominated`
 * (machines that are no better and no cheaper) rest on arguments that the code gives, not on proofs: tests/unit/planner_ask_recommend.c holds the
 * search against all combinations of a small space. The order of evaluation does not depend on the number of threads. */
#ifndef HF_PLANNER_ASK_RECOMMEND_H
#define HF_PLANNER_ASK_RECOMMEND_H

#include "db/catalog.h"
#include "planner/ask/command.h"
#include "model/recipe.h"
#include "planner/ask/regret.h"

enum {
  SPACE_MAX = 128,
  SPACE_NAME = 64,
  SPACE_COUNTS = 16,
  RECOMMEND_RANKED = 10,
  RECOMMEND_REJECTED = 12,
  RECOMMEND_VARIANTS = 8,
  RECOMMEND_MOST_PLANNED = 1500,
  RECOMMEND_MOST_CHOICES = 400 /* plans for the knee, and for the fastest */
};

typedef struct {
  int n_gpus, n_counts, n_cpus, n_sockets, n_memory, n_dimms,
      n_formats;                   /* n_memory 0: whatever a CPU takes; n_formats 0: the model's */
  char gpu[SPACE_MAX][SPACE_NAME]; /* "none" for no GPU */
  int count[SPACE_COUNTS];
  bool named_counts; /* by the asker; else boards of GPU modules are looked at as they are sold */
  char cpu[SPACE_MAX][SPACE_NAME];
  int sockets[2];
  char memory[SPACE_MAX][SPACE_NAME];
  int64_t dimm_bytes[16];
  char format[16][SPACE_NAME];
} recommend_space;

/* Everything of the catalog that can be bought new (no `sale`), runs CUDA programs (no `runs_on`) and is no module on a board (no `sold_in`): the
 * others only by name. Counts 1, 2, 4;
 * modules of 16 to 128 GiB that are sold in their kind of memory; boards of GPU modules as they are sold; also no GPU. */
HF_MUST hf_status recommend_space_default(recommend_space *s);
/* Members gpus, gpu_counts, cpus, sockets, memory, dimm_bytes, formats: arrays; those that are there replace the default. */
HF_MUST hf_status recommend_space_read(const json *doc, const char *where, recommend_space *s);
/* "a,b,c" replaces a list: which is one of the members above. Names are resolved to the catalog's; HF_NOT_FOUND suggests the nearest. */
HF_MUST hf_status recommend_space_list(const char *option, const char *which, const char *text, recommend_space *s);

typedef enum {
  RULE_CONTRADICTORY,
  RULE_UNPRICED,
  RULE_MEMORY,
  RULE_BUDGET,
  RULE_ROOFLINE,
  RULE_DOMINATED,
  RULE_DEARER,
  RULE_SLOW, /* planned: tokens/s, or does not fit by the plan's own budget */
  RULE_SLO,
  RULE_MET,
  RULE_N
} recommend_rule;
const char *recommend_rule_name(recommend_rule r);

typedef struct {
  ask_slo slo;
  double budget;        /* 0 = none */
  double dearer_factor; /* of the cheapest price that meets it, up to which alternatives are looked at; 1.35 */
  bool prune;           /* false: everything that can be composed is planned (tests) */
  char own_format
      [SPACE_NAME]; /* what the model was published in, "" = unknown; told of the machine that is proposed, where it is searched */
  recommend_space space;
} recommend_question;

/* Another weight format on the same machine, which meets the demand, too. */
typedef struct {
  char format[32];
  double tok_per_s_wall, ttft_p95_s, tpot_p95_s;
} recommend_variant;

typedef struct {
  ask_case c;
  catalog_parts parts;
  char format[SPACE_NAME]; /* "" = as stored */
  recommend_rule rule;
  char why[160];
  double shortfall; /* how far the worst limit is missed, as a factor; <= 1: met */
  regret_choice choice;
  double worst_regret;
  char worst_when[200];
  int rank_by_regret;
  recipe_program program; /* the first that runs its weight format today */
  bool gguf;              /* llama.cpp runs it, too */
  bool meets_low, meets_high;
  bool beyond; /* dearer than the budget */
  int n_variants;
  recommend_variant variant[RECOMMEND_VARIANTS];
} recommend_entry;

typedef struct {
  int64_t considered, counts[RULE_N], planned;
  int64_t
      imagined; /* plans of machines as good as the best of a group in every figure, of which none is sold; not in `planned` */
  int64_t planned_over; /* beyond the budget, to say what more money buys; not in `planned` and counts */
  bool choices;         /* no limit was asked for: entry[0] is the cheapest that runs at all, and */
  int knee, quickest;   /* index of that of most delivered tokens/s per USD, of the fastest; 0 with limits */
  int n;                /* that meet it, by likely price */
  recommend_entry entry[REGRET_MAX_CHOICES];
  int n_rejected;
  recommend_entry rejected[RECOMMEND_REJECTED];
  bool has_over_budget;
  recommend_entry over_budget; /* cheapest that meets it for more than the budget; looked for only when none meets it within */
  bool over_stopped;           /* that search gave up */
  bool has_fastest, has_fastest_any;
  recommend_entry fastest;     /* within the budget, of least shortfall of all planned; when none meets it */
  recommend_entry fastest_any; /* beyond the budget, likewise of those looked at */
  regret_result regret;
  bool stopped; /* RECOMMEND_MOST_PLANNED or RECOMMEND_MOST_CHOICES reached */
  double seconds;
  int threads;
} recommend_result;

/* Tokens per second of all users that no placement can exceed: a step reads the dense weights and the experts touched, each once at least; experts
 * beyond the GPUs' memory by the CPU; everything at the sum of all bandwidths at best. */
typedef struct {
  double dense_bytes, expert_bytes_touched; /* per decode step */
  double cpu_bytes_per_s, gpu_bytes_per_s;  /* of all GPUs */
  double gpu_mem_bytes;                     /* of all GPUs */
  double users;
} roofline;
double roofline_tok_per_s(const roofline *r);

/* The entry that is proposed, where n > 0: the cheapest that keeps to the limits, or the knee. */
int recommend_lead_at(const recommend_result *r); /* its place in entry */
const recommend_entry *recommend_lead(const recommend_result *r);

/* req: model, load and format; its machine is not read. done(user, plans so far): after each, one call at a time. */
HF_MUST hf_status recommend_search(const recommend_question *q, const plan_request *req, const money_scenario *scenario,
                                   int threads, void (*done)(void *user, int64_t planned), void *user, recommend_result *out);
/* 1 when the limits are just met: the largest of demand / rate, p95 / limit. 1e9 when it does not fit. fixed: of the limit on TTFT alone. */
double recommend_shortfall(const ask_case *c, const ask_slo *slo, double *fixed);
#endif
