/* ilp.h: which experts live on the device and how deep to pipeline, proven to a gap.
 *
 * What is minimised: the time of one decode step of all users. For depth D the running batch of C users is split into D
 * micro-batches of B = ceil(C / D) tokens; with stage_layer_times() of sched/stages.h for B tokens a layer takes
 *   D = 1   attn + max(shared + dexp, hand + cexp)
 *   D > 1   max(D * (attn + shared + dexp), D * cexp, attn + max(shared + dexp, hand + cexp))
 *   dense   D * (attn + shared)
 *   one_resource tables: attn + shared + cexp, D = 1 only, every expert on the CPU
 * and objective = step_fixed + head(C) + sum over layers, in ns. ilp_evaluate() is the only definition of it; solver, baselines,
 * simulator and tests all go through it (or through ilp_layer_ns, its inner part).
 *
 * How it is solved (form M: one binary z[l,k] = "k experts of layer l are resident", not one per expert):
 *   1. For each depth the expected time of every expert on both sides is tabulated once.
 *   2. Two tables per layer over k. `upper`: the time of a concrete set of k experts (the best found). `lower`: a bound that
 *      holds for ALL sets of k experts, from the supporting lines of the points (device sum G, CPU sum X): for every m, the k
 *      smallest m*g - (1-m)*c bound m*G + (1-m)*X from below. A few m per layer fill the tables; columns that decide anything
 *      are refined: the hull edge that crosses "device time = CPU time" is found exactly and the set is improved by exchanges.
 *      Where few sets exist all are tried; layers with up to ILP_ENUMERATE_MAX free experts are exact in both tables.
 *   3. Lagrangian dual of the one capacity row over `lower`: the first certificate. The same over `upper`, then filling and
 *      exchanging between layers: the first placement. A depth whose bound reaches the best placement is pruned.
 *   4. Columns whose reduced cost exceeds objective - bound cannot be part of anything better and are dropped; GLPK solves form
 *      M over the rest, started from the placement of step 3. If a gap remains GLPK solves the same problem over `lower`: the
 *      second certificate. Where GLPK drowns in ties (many layers alike) a dynamic program over the units of memory finishes,
 *      if its table is small.
 * The LP relaxation of the model with one variable per expert ("pooled LP") is not solved: `lower` holds that LP's value of each
 * layer at every whole k that matters, and the dual over whole k is never below the one over real k. tests/unit/planner_ilp_lp.c
 * shows it with CBC.
 *
 * Invariants of a result: bound_ns <= objective_ns; objective_ns == ilp_evaluate(placement, depth); the placement fits and keeps
 * the pins; the same input gives the same result, bit for bit (ties by layer, then expert id; effort is limited by counts, never
 * by the clock). Thread rule: no globals; GLPK keeps its environment per thread. Problems are read-only and may be shared. */
#ifndef HF_PLANNER_ILP_ILP_H
#define HF_PLANNER_ILP_ILP_H

#include "sched/stages.h"

enum {
  ILP_MAX_DEPTH = 8,
  ILP_MAX_DEVICES = 1,    /* one device now; the arrays are ready for more */
  ILP_ENUMERATE_MAX = 12, /* layers with at most this many free experts get exact tables */
  ILP_MAX_EXPERTS = 1024,
  ILP_MAX_LAYERS = 4096,
};

typedef enum { ILP_FREE = 0, ILP_PIN_DEVICE = 1, ILP_PIN_CPU = 2 } ilp_pin;

typedef struct {
  const char *name;                         /* for messages; NULL = "device" */
  int64_t expert_bytes_free[ILP_MAX_DEPTH]; /* [depth-1] bytes left for routed experts; negative: does not fit */
} ilp_device;

/* All pointers are borrowed and must outlive the call; a result does not refer to them. */
typedef struct {
  const stage_table *table;
  const popularity *pop;       /* same layers and experts as table; rows of dense layers are not read */
  int users;                   /* C >= 1 */
  double context;              /* mean tokens of context per sequence, >= 0 */
  uint32_t depths;             /* bit d-1: try depth d; depths above users are left out (one would be empty) */
  const int64_t *expert_bytes; /* [n_layers] bytes of one routed expert; > 0 for MoE layers */
  int n_devices;               /* 0 (everything on the CPU) or 1 */
  ilp_device device[ILP_MAX_DEVICES];
  const uint8_t *pin; /* [n_layers * n_experts] of ilp_pin, or NULL = all free */
} ilp_problem;

typedef struct {
  double gap_target; /* stop when objective <= bound * (1 + gap_target); 0 = 1e-9 */
  int max_nodes;     /* branch-and-bound nodes per GLPK solve; 0 = 300 */
  int max_refine;    /* columns whose lower value is made exact, per depth; 0 = 4000 */
  uint64_t seed;     /* of the random baseline */
  bool quick;        /* no integer programs where the Lagrangian gap is within gap_target, no baselines (their names stay NULL) */
} ilp_options;

/* What a layer waits for. ILP_BIND_GPU: the device; CPU: the CPU; PATH: the way of one micro-batch through both. */
typedef enum { ILP_BIND_CPU, ILP_BIND_GPU, ILP_BIND_PATH } ilp_binding;
const char *ilp_binding_name(ilp_binding b); /* "cpu", "gpu", "path" */

typedef struct {
  layer_times times; /* of one micro-batch */
  double ns;         /* of the whole step: T_l */
  int resident;      /* experts on the device */
  ilp_binding binding;
} ilp_layer;

typedef struct {
  double objective_ns, tok_per_s;
  int64_t bytes_used, bytes_limit; /* on the device at this depth */
  bool fits;                       /* bytes_used <= bytes_limit */
  int pins_broken;                 /* experts that are not where pin demands */
} ilp_evaluation;

/* T_l of one layer from its stage times. binding may be NULL. Ties: gpu, then cpu, then path. */
double ilp_layer_ns(const stage_table *t, const layer_times *times, bool moe, int depth, ilp_binding *binding);

/* The exact objective of any placement at any depth 1..ILP_MAX_DEPTH, whether it fits or not.
 *   on_device [n_layers * n_experts], 1 = resident, or NULL = all on the CPU; entries of dense layers are ignored
 *   layers    [n_layers] receives the parts, or NULL
 * HF_INPUT: a bad problem or depth (field named), or a resident expert with a one_resource table. */
HF_MUST hf_status ilp_evaluate(const ilp_problem *p, const uint8_t *on_device, int depth, ilp_layer *layers, ilp_evaluation *out);

typedef enum { ILP_DEPTH_NOT_TRIED, ILP_DEPTH_INFEASIBLE, ILP_DEPTH_PRUNED, ILP_DEPTH_SOLVED } ilp_depth_state;
typedef struct {
  ilp_depth_state state;
  double objective_ns;      /* best placement found at this depth (pruned depths: a first one only) */
  double bound_ns;          /* no placement at this depth is faster */
  double theta_ns_per_byte; /* Lagrange multiplier of the device's bytes: what one more byte is worth per step */
  int64_t capacity_bytes;
} ilp_depth_result;

enum { ILP_BASE_GREEDY, ILP_BASE_WHOLE_LAYERS, ILP_BASE_RANDOM, ILP_BASE_ALL_CPU, ILP_N_BASELINES };
/* "greedy": most popular experts of all layers until full. "whole-layers": all experts of the last layers, as many layers as
 * fit (what --n-cpu-moe does). "random": seeded, the same number in every layer. "all-cpu". Pins are kept. Each at its own best
 * depth tried. */
typedef struct {
  const char *name;
  double objective_ns;
  int depth;
} ilp_baseline;

typedef struct {
  int64_t lp_iterations; /* simplex iterations of GLPK */
  int64_t nodes;         /* branch-and-bound nodes */
  int64_t glpk_solves;
  int64_t table_evaluations; /* layer times computed for the tables, grid and refinement */
  int64_t refined;           /* columns refined */
  int64_t expert_times;      /* calls of expert_time_ns */
} ilp_counters;

typedef struct ilp_tables ilp_tables; /* the tables behind the result, for ilp_write_* */

typedef struct {
  int n_layers, n_experts;
  uint8_t *on_device; /* [n_layers * n_experts], owned: the placement */
  ilp_layer *layer;   /* [n_layers], owned */
  int depth;          /* chosen */
  int bound_depth;    /* the depth whose bound is bound_ns */
  double objective_ns;
  double bound_ns;          /* holds for all placements and all depths tried */
  double gap;               /* objective / bound - 1 */
  const char *status;       /* "optimal": gap <= 1e-9; "proven": certified with that gap; "feasible": no certificate */
  bool lp_exact;            /* form M of the chosen depth was solved to its optimum */
  const char *certificate;  /* of bound_depth: "lagrangian" (an LP), "milp", "exact" (one_resource: one placement only) */
  double tok_per_s;         /* users / objective */
  double seconds;           /* wall time of ilp_solve; the only field that may differ between runs */
  double theta_ns_per_byte; /* of the chosen depth */
  int64_t bytes_used, bytes_limit;
  ilp_depth_result by_depth[ILP_MAX_DEPTH];
  ilp_baseline baseline[ILP_N_BASELINES];
  ilp_counters counters;
  ilp_tables *tables; /* owned */
} ilp_result;

/* HF_INPUT: a bad problem, field named. HF_NO: no depth fits (device bytes negative, or pinned experts larger than them).
 * HF_UNSUPPORTED: more devices than ILP_MAX_DEVICES. HF_MACHINE: out of memory. A failure inside GLPK is no error: the answer is
 * then the Lagrangian one, with its own certificate. options may be NULL. *out is set only on success; free with ilp_result_free
 * (NULL ok). */
HF_MUST hf_status ilp_solve(const ilp_problem *p, const ilp_options *options, ilp_result **out);
void ilp_result_free(ilp_result *r);

/* CPLEX LP text, minimise, ns, constants on the fixed column `one`. The first: form M of the chosen depth with every column of
 * `upper`; its optimum is objective_ns when lp_exact, else it may be up to `gap` less. The second: the problem over `lower` of
 * bound_depth, with binaries only where the certificate is "milp"; its optimum is bound_ns. HF_MACHINE when path cannot be
 * written. */
HF_MUST hf_status ilp_write_lp(const ilp_result *r, const char *path);
HF_MUST hf_status ilp_write_bound_lp(const ilp_result *r, const char *path);

#endif
