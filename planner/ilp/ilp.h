/* ilp.h: where each routed expert lives and how deep to pipeline, proven to a gap.
 *
 * What is minimised: the time of one decode step of all users. The running batch of C users goes in D micro-batches, as even as
 * they can be: B = ceil(C / D) tokens, some of them one less. With stage_layer_times() of sched/stages.h, the way of the
 * largest
 * micro-batch through a layer is
 *     way_l = attn + max(overlap(shared + dexp, hand + cexp), place_ns of each other place)         (dense: attn + shared)
 *     one_resource tables: attn + max(shared + cexp, place_ns of each other place), D = 1 only
 * overlap(a, b) = max(a, b) + (contend - 1) * min(a, b). Then
 *     D = 1   step = step_fixed + head(C) + sum over layers of way_l
 *     D > 1   step = max of  path:      step_fixed + head(B) + sum of way_l
 *                            devices:   overlap(A_d, P) for each device d, A_d = all its work of all micro-batches, heads
 *                            included
 *                            CPU:       P = cexp of all layers and micro-batches
 *                            machines:  the work of each other machine
 * since micro-batches sit in different layers: a resource is never asked for two things at once, and the busiest one or the
 * way of a
 * single micro-batch limits the step. Where a prompt's share is weighed in (ilp_prefill), objective = step + weight * chunk
 * with
 *     chunk = step_fixed + head(1) + sum of the cheaper of  way_l of the chunk  and, where experts can be uploaded,
 *                                                          max(attn + shared + dexp, upload, attn + place_ns)
 * Limits (ilp_limits) are rows: step <= step_ns, chunks * chunk <= ttft_ns.
 * ilp_evaluate() is the only definition of the objective; solver, baselines and tests all go through it.
 *
 * How it is solved.
 *  Depth 1, one device, nothing else (form M: one binary z[l,k] = "k experts of layer l are resident", not one per expert):
 *   1. The expected time of every expert on both sides is tabulated once.
 *   2. Two tables per layer over k. `upper`: the time of a concrete set of k experts (the best found). `lower`: a bound that
 *      holds for ALL sets of k experts, from the supporting lines of the points (device sum G, CPU sum X): for every m, the k
 *      smallest m*g - (1-m)*c bound m*G + (1-m)*X from below. A few m per layer fill the tables; columns that decide anything
 *      are refined: the hull edge that crosses "device time = CPU time" is found exactly and the set is improved by exchanges.
 *      Where few sets exist all are tried; layers with up to ILP_ENUMERATE_MAX free experts are exact in both tables.
 *   3. Lagrangian dual of the one capacity row over `lower`: the first certificate. The same over `upper`, then filling and
 *      exchanging between layers: the first placement.
 *   4. Columns whose reduced cost exceeds objective - bound cannot be part of anything better and are dropped; GLPK solves form
 *      M over the rest, started from the placement of step 3. If a gap remains GLPK solves the same problem over `lower`: the
 *      second certificate. Where GLPK drowns in ties (many layers alike) a dynamic program over the units of memory finishes,
 *      if its table is small.
 *  Everything else (form P, spread.h): one column per layer and set of places of its experts, with the load it puts on each
 *  resource,
 *  its way and the bytes it takes in each place; rows for resources, the path, bytes and, per layer, the parts of its way. GLPK
 *  solves the relaxation over the columns known; for its prices the best set of every layer is found exactly, expert by
 *  expert, and
 *  becomes a new column. The sum of those best prices is a bound that holds for ALL placements (Lagrange); the best one met is the
 * certificate. Its weak side is a layer whose columns mix: half of them use a place (the CPU, another machine) with its
 * hand-over, half do not, and the largest part of the mean is far below the mean of the largest parts. Such layers are split
 * into classes by the places in use, each with parts of its own; so are those that upload and those that do not. Limits are rows of
 * the relaxation with a price on what is over them, so that its value stays a bound for whatever keeps them; the search prices the
 * same, and where it does not come within them it starts anew from the placements that are best for the limited rows alone. If no
 * placement is found, the bounds on each row alone, and on both at the prices found, are the proof that there is none.
 *  Other machines that are alike are one place of relaxation and search (alike.h), whose experts are then dealt out; LP files have them as one place, too.
 * The placement is read off the shares of the columns and improved by exact evaluation of exchanges. Layers
 *  that are
 *  alike are one group of columns. Where there are few sets, all are columns and GLPK solves the integer program itself.
 *
 * Invariants of a result: bound_ns <= objective_ns; objective_ns == ilp_evaluate(placement, depth); the placement fits and
 * keeps
 * the pins; the same input gives the same result, bit for bit (ties by layer, then expert id; effort is limited by counts,
 * never
 * by the clock). Thread rule: no globals; GLPK keeps its environment per thread. Problems are read-only and may be shared. */
#ifndef HF_PLANNER_ILP_ILP_H
#define HF_PLANNER_ILP_ILP_H

#include "sched/stages.h"

enum {
  ILP_MAX_DEPTH = 8,
  ILP_MAX_DEVICES = STAGE_MAX_DEVICES,
  ILP_ENUMERATE_MAX = 12, /* form M: layers with at most this many free experts get exact tables */
  ILP_MAX_EXPERTS = 1024,
  ILP_MAX_LAYERS = 4096,
};

/* Where an expert may live: anywhere, on any device, or on this machine's CPU only. */
typedef enum { ILP_FREE = 0, ILP_PIN_DEVICE = 1, ILP_PIN_CPU = 2 } ilp_pin;

typedef struct {
  const char *name;                         /* for messages; NULL = "device" */
  int64_t expert_bytes_free[ILP_MAX_DEPTH]; /* [depth-1] bytes left for routed experts; negative: does not fit */
} ilp_device;

/* Prompts beside decode. */
typedef struct {
  double weight;   /* chunks per decode step; 0 = decode alone counts */
  stage_load load; /* of one chunk: tokens and contexts */
  bool upload;     /* experts of the CPU may be sent to the home device for a chunk, layer by layer */
} ilp_prefill;

/* Service levels as rows of the program; 0 = none. A placement outside them is no answer, however fast.
 *   TPOT  step <= step_ns                   the decode step of all users, as the objective has it
 *   TTFT  chunks * chunk <= ttft_ns         the chunks of a prompt one after another, no other work between; prefill.load says what a chunk is
 * What percentiles come of it is the simulator's to say: these rows leave out waiting, and so are what must hold at least. */
typedef struct {
  double step_ns, ttft_ns;
  double chunks; /* of a prompt; > 0 where ttft_ns is */
} ilp_limits;

/* All pointers are borrowed and must outlive the call; a result does not refer to them. */
typedef struct {
  const stage_table *table; /* its places are those that experts are placed in */
  const popularity *pop; /* same layers and experts as table; rows of dense layers are not read; a chunk goes by its `prefill` */
  int users;             /* C >= 1 */
  double context;        /* mean tokens of context per sequence, >= 0 */
  uint32_t depths;       /* bit d-1: try depth d; depths above users are left out (one would be empty) */
  const int64_t *expert_bytes; /* [n_layers] bytes of one routed expert; > 0 for MoE layers */
  int n_devices;               /* 0 (no expert on any) or as in the table */
  ilp_device device[ILP_MAX_DEVICES];
  int64_t cpu_bytes;                       /* bytes for experts in this machine's memory; 0 = no limit */
  int64_t remote_bytes[STAGE_MAX_REMOTES]; /* the same of other machines; 0 = no limit, negative: none go there */
  int alike[STAGE_MAX_REMOTES];            /* so many machines are behind this place; 0: one. Set by the solver alone (alike.h) */
  const uint8_t *pin;                      /* [n_layers * n_experts] of ilp_pin, or NULL = all free */
  ilp_prefill prefill;
  ilp_limits limit;
} ilp_problem;

/* Why no placement keeps the limits. Each least is a bound: no placement at any depth tried is below it. */
typedef struct {
  bool limits;                         /* the answer was HF_NO because of them */
  bool proven;                         /* no placement keeps them; false: none was found */
  bool together;                       /* each could be kept alone; both at once cannot (proven) */
  double step_least_ns, ttft_least_ns; /* 0 where that limit was not asked for */
} ilp_refusal;

typedef struct {
  double gap_target; /* stop when objective <= bound * (1 + gap_target); 0 = 1e-9 */
  int max_nodes;     /* branch-and-bound nodes per GLPK solve; 0 = 300 */
  int max_refine;    /* columns whose lower value is made exact, per depth; 0 = 4000 */
  uint64_t seed;     /* of the random baseline */
  bool quick;        /* no integer programs where the Lagrangian gap is within gap_target, no baselines (their names stay NULL) */
  ilp_refusal *refusal; /* written when limits cannot be kept; NULL ok */
} ilp_options;

/* What a layer waits for. ILP_BIND_GPU: a device; CPU: the CPU; PATH: the way of one micro-batch through both; REMOTE:
 * another machine. */
typedef enum { ILP_BIND_CPU, ILP_BIND_GPU, ILP_BIND_PATH, ILP_BIND_REMOTE } ilp_binding;
const char *ilp_binding_name(ilp_binding b); /* "cpu", "gpu", "path", "remote" */

typedef struct {
  layer_times times; /* of the largest micro-batch */
  double ns;    /* its part in the step, so that step_fixed, head and all parts add up: depth 1 its way, else what it asks of the
                      * binding resource */
  int resident; /* experts on devices */
  ilp_binding binding;
  bool upload; /* a chunk is faster with the CPU's experts uploaded */
} ilp_layer;

typedef struct {
  double objective_ns, tok_per_s;    /* tok_per_s: of the decode step alone */
  double step_ns, chunk_ns;          /* chunk_ns 0 where prompts are neither weighed nor limited */
  double ttft_ns;                    /* of the limit's row; 0 without */
  double step_over_ns, ttft_over_ns; /* by how much each row is missed; 0 = kept, or no limit */
  bool keeps_limits;
  double path_ns,
      place_ns[STAGE_MAX_PLACES]; /* what limits the step: way of one micro-batch; work of each place, all micro-batches */
  ilp_binding binding;
  int binding_place;                     /* of ILP_BIND_GPU and ILP_BIND_REMOTE */
  int64_t place_bytes[STAGE_MAX_PLACES]; /* experts in each place */
  int64_t bytes_used, bytes_limit;       /* of all devices */
  int over_place;                        /* the first place with more bytes than it has; -1: it fits */
  bool fits;
  int pins_broken; /* experts that are not where pin demands */
} ilp_evaluation;

/* The way of one micro-batch through a layer. binding may be NULL. Ties: home device, then CPU, then other places. */
double ilp_way_ns(const stage_table *t, int layer, const layer_times *times, ilp_binding *binding);

/* The exact objective of any placement at any depth 1..ILP_MAX_DEPTH, whether it fits or not.
 *   on_device [n_layers * n_experts], a place each, or NULL = all on the CPU; entries of dense layers are ignored
 *   layers    [n_layers] receives the parts, or NULL
 * HF_INPUT: a bad problem or depth (field named), or a place that the table does not have. */
HF_MUST hf_status ilp_evaluate(const ilp_problem *p, const uint8_t *on_device, int depth, ilp_layer *layers, ilp_evaluation *out);
/* What so many steps of a layer ask of each place is added to work (uploads apart: they are the link's). */
void ilp_add_work(const stage_table *t, int layer, const layer_times *y, double times, double work[STAGE_MAX_PLACES]);
/* The fewest tokens of a prompt's step from which on sending the CPU's experts of the layers marked in upload pays, all of them together; they
 * are marked because it does for prefill.load, whose contexts go down with its tokens. place: as for ilp_evaluate. */
int ilp_upload_tokens(const ilp_problem *p, const uint8_t *place, const uint8_t *upload);
/* Bytes that a place has for experts at a depth; INT64_MAX = no limit, negative: nothing fits. */
int64_t ilp_place_room(const ilp_problem *p, int place, int depth);
int ilp_n_places(const stage_table *t);

/* LIMITED: no placement that keeps the limits was found; its objective is INFINITY. */
typedef enum { ILP_DEPTH_NOT_TRIED, ILP_DEPTH_INFEASIBLE, ILP_DEPTH_LIMITED, ILP_DEPTH_PRUNED, ILP_DEPTH_SOLVED } ilp_depth_state;
typedef struct {
  ilp_depth_state state;
  double objective_ns;      /* best placement found at this depth (pruned depths: a first one only) */
  double bound_ns;          /* no placement at this depth is faster */
  double theta_ns_per_byte; /* Lagrange multiplier of the first device's bytes: what one more byte is worth per step */
  double place_theta[STAGE_MAX_PLACES]; /* of every place; ns per byte */
  double step_price,
      ttft_price;         /* multipliers of the limits: ns of the objective per ns that a limit is wider; 0 = it does not bind */
  int64_t capacity_bytes; /* of all devices */
} ilp_depth_result;

enum { ILP_BASE_GREEDY, ILP_BASE_WHOLE_LAYERS, ILP_BASE_UNIFORM, ILP_BASE_RANDOM, ILP_BASE_ALL_CPU, ILP_N_BASELINES };
/* "greedy": most popular experts of all layers until full. "whole-layers": all experts of the last layers, as many layers as
 * fit (what --n-cpu-moe does). "uniform": the same number in every layer, its most popular ones. "random": the same numbers,
 * seeded.
 * "all-cpu". Each expert goes to its layer's home device while that has room, then to the other devices in turn; other
 * machines are
 * not used. Pins are kept, limits are not looked at. Each at its own best depth tried; INFINITY where it does not fit (RAM). */
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
  int64_t expert_times;      /* expected times of experts computed */
  int64_t priced;            /* sets priced (form P), one per group and round */
  int64_t moves;             /* exchanges valued (form P) */
} ilp_counters;

typedef struct ilp_tables ilp_tables; /* the tables behind the result, for ilp_write_* */

typedef struct {
  int n_layers, n_experts;
  uint8_t *on_device; /* [n_layers * n_experts], owned: the placement, a place each */
  ilp_layer *layer;   /* [n_layers], owned */
  int depth;          /* chosen */
  int bound_depth;    /* the depth whose bound is bound_ns */
  double objective_ns;
  double bound_ns; /* holds for all placements and all depths tried */
  double gap;      /* objective / bound - 1 */
  const char *
      status; /* "optimal": gap <= 1e-6; "proven": <= 1 %; "bounded": certified, but with a wider gap; "feasible": no certificate */
  bool lp_exact;            /* the program of the chosen depth (ilp_write_lp) was solved to its optimum */
  const char *certificate;  /* of bound_depth: "lagrangian" (an LP), "milp", "exact" (one placement only), "none" */
  double tok_per_s;         /* users / objective */
  double seconds;           /* wall time of ilp_solve; the only field that may differ between runs */
  double theta_ns_per_byte; /* of the chosen depth */
  int64_t bytes_used, bytes_limit;
  ilp_evaluation evaluation; /* of the placement */
  ilp_depth_result by_depth[ILP_MAX_DEPTH];
  ilp_baseline baseline[ILP_N_BASELINES];
  ilp_counters counters;
  char failure[160];  /* of GLPK, where it ended the search; else empty */
  ilp_tables *tables; /* owned */
} ilp_result;

/* HF_INPUT: a bad problem, field named. HF_NO: no depth fits (device bytes negative, or pinned experts larger than them), or no
 * placement keeps the limits (options->refusal has the certificate, the message its figures).
 * HF_MACHINE: out of memory. A failure inside GLPK is no error: the answer is then the Lagrangian one, with its own certificate (form M), or the
 * best simple placement (greedy, whole layers, uniform) with status "feasible", certificate "none", why in `failure`, and a bound that leaves all
 * routed experts out; ilp_write_* have nothing to write then (HF_NO). options may be NULL. *out is set only on success; free with
 * ilp_result_free
 * (NULL ok). */
HF_MUST hf_status ilp_solve(const ilp_problem *p, const ilp_options *options, ilp_result **out);
void ilp_result_free(ilp_result *r);
/* r with the placement of `other`, found for the same problem at the same depth: bound, certificate, baselines, multipliers and LP files stay
 * those of r; objective and gap are of the new placement, and r is no longer lp_exact. HF_INPUT: other depth, or layers or experts differ. */
HF_MUST hf_status ilp_result_take(ilp_result *r, const ilp_result *other);

/* CPLEX LP text, minimise, ns, constants on the fixed column `one`. The first: form M of the chosen depth with every column of
 * `upper`, or form P with every column known, limits as rows; its optimum is objective_ns when lp_exact, else it may be up to `gap` less.
 * Form P at full size cannot hold all columns: a layer of 256 experts and 2 places has 2^256 sets. Nor is a compact model (one binary per
 * expert and place, the way of each layer as a variable above its parts) of use: its relaxation lets every expert be in two places
 * and pays fixed parts by shares, so that solvers end with a gap (design notes: 26 layers x 64, 1.1 % after 10 s) far above what is proven
 * here. What the file misses is what the bound rules out: by the second file no set left out makes anything better by more than `gap`.
 * The second, for bound_depth: form M over `lower`, with binaries only where the certificate is "milp"; form P with all sets when
 * they are few, else the whole model, every expert and place and class of layers in it, whose rows for resources, path, limits, bytes and
 * parts of ways are priced at the multipliers found. Its optimum is bound_ns. HF_MACHINE when path cannot be written. */
HF_MUST hf_status ilp_write_lp(const ilp_result *r, const char *path);
HF_MUST hf_status ilp_write_bound_lp(const ilp_result *r, const char *path);

/* For a thread that has called ilp_solve, before it ends: gives back what GLPK keeps per thread. No result that this thread
 * made may be
 * freed afterwards by it; harmless where nothing was solved. */
void ilp_thread_end(void);

#endif
