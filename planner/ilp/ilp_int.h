/* ilp_int.h: what the files of planner/ilp share. Not for other rooms; the method is explained in ilp.h. */
#ifndef HF_PLANNER_ILP_INT_H
#define HF_PLANNER_ILP_INT_H

#include "base/mem.h"
#include "planner/ilp/ilp.h"

/* How good a column is: bounds from the grid; lower exact (the hull's edge); upper improved too, or equal to lower. */
typedef enum { ILP_GRID, ILP_HULL, ILP_POLISHED } ilp_level;

/* One MoE layer at one depth. Sums G (device) and X (CPU) are over routed experts, pinned ones included, fixed costs not. k
 * counts resident experts, pinned ones included: k_lo (pinned to the device) .. k_hi (also limited by what fits at all). */
typedef struct {
  int layer; /* index in the model */
  int n_free, k_lo, k_hi;
  int64_t units;       /* of one expert, in ilp_depth.unit_bytes */
  const int *id;       /* [n_free] expert ids, rising */
  int *by_g;           /* [n_free] indices by rising g; set for layers that are not enumerated */
  const double *g, *c; /* [n_free] expected ns on the device, on the CPU */
  double pin_g, pin_c; /* sums over pinned experts */
  double attn, shared, hand, dexp_fixed, cexp_fixed;
  double *upper, *lower; /* [n_experts + 1] by k; valid for k_lo..k_hi */
  uint8_t *refined;      /* [n_experts + 1] of ilp_level */
} ilp_lay;

typedef struct {
  const ilp_problem *p;
  hf_arena *mem;
  int depth, tokens;
  int n_experts, n; /* n: MoE layers */
  ilp_lay *lay;     /* [n] */
  double base_ns;   /* step_fixed + head + dense layers */
  int64_t unit_bytes, cap_units, cap_bytes;
  double *score, *tie;           /* [n_experts] scratch of table.c */
  int *order;                    /* [n_experts] scratch */
  uint8_t *sel[4];               /* [n_experts] scratch */
  double *enum_g, *enum_c;       /* [2^ILP_ENUMERATE_MAX] scratch, NULL when no layer is small */
  double bound_ns, theta;        /* Lagrangian certificate over lower: value, ns per unit */
  int *order_k, *k_fit, *k_over; /* [n] scratch of the multiplier search */
  int *rise_to;                  /* [n] scratch of ilp_fill: a layer's best rise; -1: not looked for; its own k: there is none */
  double *rise_rate;
  int *k_best;    /* [n] best placement found, k per layer */
  double best_ns; /* its objective (upper table) */
  bool exact;     /* best_ns is the optimum over upper */
  bool milp;      /* bound_ns comes from the integer problem over lower */
  int refine_left;
  ilp_counters *count;
} ilp_depth;

struct spread_solution;
struct ilp_alike;
struct ilp_tables {
  struct ilp_alike *alike;                       /* NULL: no two machines are alike; else form P's tables are of its problem */
  uint8_t *dealt[ILP_MAX_DEPTH];                 /* and these are the placements of the problem asked */
  ilp_depth *depth[ILP_MAX_DEPTH];               /* form M; NULL: not tried so, or infeasible */
  struct spread_solution *spread[ILP_MAX_DEPTH]; /* form P, likewise */
  uint8_t *settled;                              /* form M: a placement better than that of the tables, or NULL */
};

HF_MUST hf_status ilp_check_problem(const ilp_problem *p);
/* ns that a chunk may take; 0 = no limit. */
double ilp_chunk_limit(const ilp_problem *p);
/* Of a chunk, with the CPU's experts computed there or uploaded; times from stage_layer_times_load of that kind. */
double ilp_chunk_ns(const stage_table *t, int layer, const layer_times *times, bool upload);

/* table.c */
/* depth 1 and one device only */
HF_MUST hf_status ilp_depth_new(const ilp_problem *p, int depth, int max_refine, ilp_counters *count, ilp_depth **out);
void ilp_depth_free(ilp_depth *d);
/* Bytes of the experts pinned to the device. */
int64_t ilp_pinned_bytes(const ilp_problem *p);
/* Brings column (y, k) to that level; sel [n_free] receives the set behind `upper` when not NULL (level ILP_POLISHED then).
 * Idempotent. Returns the m of the hull edge, -1 when nothing was to do. */
double ilp_refine(ilp_depth *d, ilp_lay *y, int k, ilp_level level, uint8_t *sel);
/* Writes the placement of k[] (per MoE layer) to on_device [n_layers * n_experts]. */
void ilp_depth_placement(ilp_depth *d, const int *k, uint8_t *on_device);

/* lagrange.c */
typedef struct {
  double theta, value; /* multiplier (ns per unit) and dual value, base_ns included */
} ilp_dual;
/* Also sets d->k_fit, the minimisers at theta that fit, and d->k_over, those on the other side of the kink (they may not
 * fit). */
ilp_dual ilp_dual_solve(ilp_depth *d, bool lower);
/* Fills the space left by k[] and exchanges between layers while that helps (upper table); returns the objective. */
double ilp_fill(const ilp_depth *d, int *k);
double ilp_upper_value(const ilp_depth *d, const int *k);
int64_t ilp_units_used(const ilp_depth *d, const int *k);

/* glpk.c: multiple-choice knapsack, minimise sum of cost of one column per group, sum of units <= cap. */
typedef struct {
  int n_groups;
  const int *first; /* [n_groups + 1] columns of group i: first[i] .. first[i+1]-1 */
  const double *cost;
  const int64_t *units;
  int64_t cap;
  double theta;      /* >= 0, a good multiplier of cap: decides accuracy and speed, not the answer */
  const int *start;  /* [n_groups] a feasible choice (column indices), injected */
  double stop_value; /* stop when a solution is at or below it (-INFINITY: never) */
  double stop_bound; /* stop when the bound reaches it (INFINITY: never) */
  int max_nodes;
  double max_work; /* simplex iterations * columns */
} ilp_mckp;
typedef struct {
  bool finished;       /* solved to optimality, or stopped by stop_value or stop_bound; not by max_* */
  double value, bound; /* of choice; proven */
  int *choice;         /* [n_groups], caller's; start when nothing better was found */
} ilp_mckp_result;
/* Any failure of GLPK (its aborts included) is HF_MACHINE; out->choice may then be undefined. */
HF_MUST hf_status ilp_mckp_solve(const ilp_mckp *m, ilp_counters *count, ilp_mckp_result *out);

/* A linear or integer program in GLPK that grows by columns. Rows are lo <= row <= hi; +-INFINITY = none. An abort of GLPK is
 * HF_MACHINE, and the program is dead then. One thread. */
typedef struct ilp_lp ilp_lp;
HF_MUST hf_status ilp_lp_new(int n_rows, const double *lo, const double *hi, ilp_lp **out);
/* Further rows, empty so far: lo <= 0 <= hi. The index of the first (from 0) goes to *first. */
HF_MUST hf_status ilp_lp_rows(ilp_lp *lp, int n, const double *lo, const double *hi, int *first);
/* Column with cost, bounds and n entries; the index (from 0) goes to *index when not NULL. */
HF_MUST hf_status ilp_lp_column(ilp_lp *lp, double cost, double lo, double hi, bool integer, int n, const int *row,
                                const double *value, int *index);
HF_MUST hf_status ilp_lp_bounds(ilp_lp *lp, int column, double lo, double hi);
/* Solves the relaxation from the last basis; HF_MACHINE also when it has no solution. */
HF_MUST hf_status ilp_lp_solve(ilp_lp *lp, ilp_counters *count);
/* For tests: the so-many-th relaxation that this thread solves makes GLPK abort; 0 = none. */
void ilp_lp_abort_in(int solves);
/* Branch and bound after ilp_lp_solve. *finished: proven optimal. stop: give up when the bound reaches it. */
HF_MUST hf_status ilp_lp_integer(ilp_lp *lp, const double *start, double stop, int max_nodes, double max_work,
                                 ilp_counters *count, bool *finished, bool *found, double *bound);
double ilp_lp_value(const ilp_lp *lp);
double ilp_lp_dual(const ilp_lp *lp, int row);
double ilp_lp_share(const ilp_lp *lp, int column);  /* primal, of the relaxation */
double ilp_lp_chosen(const ilp_lp *lp, int column); /* primal, of the integer program */
void ilp_lp_free(ilp_lp *lp);                       /* NULL ok */

/* dynamic.c: the same problem solved exactly over a table of units; stop_* and max_* are not used. HF_UNSUPPORTED when it would
 * be too large. */
HF_MUST hf_status ilp_mckp_dynamic(const ilp_mckp *m, ilp_mckp_result *out);

/* baseline.c: the best of greedy, whole layers and uniform at a depth, without a solver. *ns INFINITY: none fits. */
HF_MUST hf_status ilp_simple(const ilp_problem *p, int depth, ilp_counters *count, uint8_t *placement, double *ns);
/* baseline.c: of all depths in the mask, by tables of form P. */
HF_MUST hf_status ilp_baselines(const ilp_problem *p, uint32_t depths, uint64_t seed, ilp_counters *count, ilp_baseline *out);

#endif
