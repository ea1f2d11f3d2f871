/* spread.h: form P: experts over any number of places, at any depth; shared by spread.c (the tables and exact values),
 * price.c (the
 * best set for given prices), master.c (relaxation, bound, integer program) and settle.c (from shares to a placement).
 *
 * A group is all MoE layers that are alike in every figure. A set says for each expert of one layer where it lives. Its values:
 *   load[q]  work it asks of place q, all micro-batches together (what the layer asks with no expert placed is in spread.load0)
 *   part[q]  parts of the way of the largest micro-batch: the way is the largest of them. Part of place q = attn + everything
 *   that
 *            must be done there; contention is already in the parts of the home device and the CPU
 *   chunk[q] the same for a prompt's chunk, CPU or upload, whichever the set says; upload: the link has the CPU's part
 *   bytes    count[q] experts of `bytes` bytes each
 *
 * A class is the sets of a group that use certain places and leave others empty, with or without upload. The largest part of
 * a mean of sets is less than the mean of their largest parts: most where one of them uses a place, with all its fixed part, and
 * the other does not. So parts are weighed class by class, and classes are split where that costs something.
 *
 * Multipliers (dual): limits over_step, over_chunk >= 0; rows of resources lam[], sum with lam_path = step_weight + over_step at
 * depth > 1 (at depth 1 lam_path alone); parts of the ways nu[class][place], sum lam_path in each class; parts of chunks
 * rho[class][place], sum chunk = prefill weight + over_chunk; bytes theta[place]. For any
 * such multipliers  sum over layers of min over sets (priced values) + constants  is a bound for all placements. */
#ifndef HF_PLANNER_ILP_SPREAD_H
#define HF_PLANNER_ILP_SPREAD_H

#include "planner/ilp/ilp_int.h"

enum { SPREAD_P = STAGE_MAX_PLACES, SPREAD_MAX_ROWS = 3 * STAGE_MAX_DEVICES + STAGE_MAX_REMOTES + 1, SPREAD_CLASSES = 64 };

typedef struct {
  bool upload;
  uint16_t must, never; /* bit q: place q holds an expert at least; holds none */
} spread_class;

/* One kind of step: parts[q] = lead[q] + base[q] + (used[q] ? fixed[q] : 0) + sum of t[e][q], before contention. */
typedef struct {
  double lead[SPREAD_P], base[SPREAD_P], fixed[SPREAD_P];
  const double *t;     /* [E * P]; NULL: no such step */
  const double *cross; /* [E]: what an expert of place 0 asks of the home device (upload); else NULL */
  double kappa;        /* contend - 1 between the home device and the CPU */
} spread_term;

typedef struct {
  int layer, n_same; /* the first of its layers; how many */
  int home;          /* place; 0 where there is no device */
  int64_t bytes;
  spread_term way, chunk, upload; /* chunk, upload: t NULL when not wanted */
  const double *work;             /* [E * P] expert times summed over micro-batches; NULL at depth 1 */
  double work_fixed[SPREAD_P];
  uint16_t *open; /* [E] bit q: may live there */
  bool alike;     /* experts differ in nothing: a set is its counts */
  /* The relaxation sees the way of a set as it is, not its parts one by one: */
  bool whole;    /* depth 1, experts all alike, nothing but ways counts: priced by counts with the true largest part */
  bool nested;   /* two places at depth > 1: for each choice of places in use the best weights of the parts are found */
  int n_classes; /* 1 of whole and nested groups */
  spread_class class[SPREAD_CLASSES];
} spread_group;

/* What limits a step at depth > 1: load[q] of one place; with contention also the home work of device q and the CPU. */
typedef enum { ROW_LOAD, ROW_DEVICE, ROW_CPU } spread_row_kind;
typedef struct {
  spread_row_kind kind;
  int place;
} spread_row;

typedef struct {
  const ilp_problem *p;
  hf_arena *mem;
  ilp_counters *count;
  int depth, n_places, n_experts, n_groups, n_rows;
  int cap_classes;     /* of a group at most */
  spread_group *group; /* [n_groups] */
  int *group_of;       /* [n_layers]; -1 = dense */
  spread_row row[SPREAD_MAX_ROWS];
  double row0[SPREAD_MAX_ROWS]; /* of the rows, no expert placed */
  double path0, chunk0, kappa;
  double step_weight, weight;     /* of step and chunk in the objective */
  double limit_step, limit_chunk; /* INFINITY = none */
  bool chunks;                    /* chunks count: they are weighed, or limited */
  int64_t room[SPREAD_P];         /* bytes; INT64_MAX = no limit */
} spread;

/* A set of places for the experts of one layer, with its values. */
typedef struct {
  int group, class;
  bool upload;
  const uint8_t *place; /* [n_experts] */
  int count[SPREAD_P];
  double load[SPREAD_P], part[SPREAD_P], chunk[SPREAD_P];
} spread_set;

typedef struct {
  double lam[SPREAD_MAX_ROWS], lam_path, theta[SPREAD_P];
  double over_step, over_chunk, chunk; /* chunk: weight + over_chunk */
  double *nu, *rho;                    /* [n_groups * cap_classes * n_places]; spread_at */
} spread_dual;

/* What to minimise instead of the problem's own, without its limits. */
typedef struct {
  double step, chunk;
} spread_goal;
HF_MUST hf_status spread_new(const ilp_problem *p, int depth, const spread_goal *goal, ilp_counters *count, spread **out);
void spread_free(spread *m); /* NULL ok */
/* Where the multipliers of a class begin. */
size_t spread_at(const spread *m, int group, int class);
/* The class of a set whose values are known. */
int spread_class_of(const spread *m, const spread_set *s);
/* Values of a set and its class: group, upload and place must be set. */
void spread_value(const spread *m, spread_set *s);
double spread_way(const spread *m, const spread_set *s);
double spread_chunk(const spread *m, const spread_set *s);
/* How much load on place q counts in row r for a layer of that group. */
double spread_coef(const spread *m, const spread_row *r, const spread_group *g, int q);
/* Objective from the rows (load[n_rows], without row0), the ways and the chunks of all layers; what is over a limit is added, times a
 * lot. */
double spread_total(const spread *m, const double *row, double way, double chunk);
/* Objective of any placement from the tabulated times; INFINITY when a place has too little room. */
double spread_evaluate(const spread *m, const uint8_t *placement);
/* The same without limits. */
double spread_plain(const spread *m, const uint8_t *placement);

/* price.c: the set of a class with the least priced value; place receives it. Exact but for places that the class must use and
 * the set does not: they are paid for. */
double spread_price_class(const spread *m, const spread_dual *d, int group, int class, uint8_t *place);
/* The least of all classes; *class receives which. */
double spread_price(const spread *m, const spread_dual *d, int group, uint8_t *place, int *class);
/* What it is the least of: cost of each expert in each place, of using a place, and a constant; modes are classes, of nested
 * groups: both places, the CPU, the device. The table is the thread's own and is overwritten by the next call. */
typedef struct {
  int E, P;
  unsigned use, must; /* places that may be used; must hold an expert: paid for in `constant`, as are both of nested groups */
  const uint16_t *open;
  double cost[ILP_MAX_EXPERTS * SPREAD_P]; /* [E * P] */
  double fixed[SPREAD_P], constant;
} spread_prices;
int spread_modes(const spread *m, int group); /* 0 for whole groups */
const spread_prices *spread_prices_of(const spread *m, const spread_dual *d, int group, int mode);
/* The part of the bound that no set has. */
double spread_constant(const spread *m, const spread_dual *d);

/* settle.c: improves a placement [n_layers * n_experts] until it fits and no exchange helps; effort in rounds. At an
 * objective of `enough`
 * only single moves and exchanges are tried: emptying layers for a fixed part gains next to nothing then, and uneven layers
 * make micro-batches
 * wait. *objective: INFINITY when it could not be made to fit. d: multipliers that guide it. */
HF_MUST hf_status spread_settle(const spread *m, const spread_dual *d, int rounds, double enough, uint8_t *placement,
                                double *objective);

/* baseline.c: the best of greedy, whole layers and uniform into placement [n_layers * n_experts]; *ns: INFINITY when none of them fits. */
HF_MUST hf_status spread_best_simple(const spread *m, uint8_t *placement, double *ns);

/* master.c */
typedef struct spread_solution {
  spread *m;
  spread_set *set; /* [n_sets] */
  int n_sets, cap_sets;
  spread_dual best;              /* of the bound */
  double *whole_price;           /* [n_groups] priced least of groups that are priced by counts */
  uint8_t *placement;            /* [n_layers * n_experts] */
  double objective_ns, bound_ns; /* what is over a limit in the first */
  bool milp;                     /* all sets are columns, and the integer program over them was solved: bound_ns is its optimum */
  bool exact;                    /* no other combination of the columns is better */
} spread_solution;
/* sets.c: adds a set unless it is there already. */
HF_MUST hf_status spread_add_set(spread_solution *s, int group, const uint8_t *place, bool upload, bool *is_new);
/* Whether all sets of all groups may be columns; adds those that none of the others beats in everything. */
bool spread_few_sets(const spread *m);
HF_MUST hf_status spread_all_sets(spread_solution *s);
/* gap: good enough. stop_bound: give up when the bound reaches it (a better depth is known). quick: no integer program. */
HF_MUST hf_status spread_solve(const ilp_problem *p, int depth, const spread_goal *goal, double gap, double stop_bound,
                               bool quick, ilp_counters *count, spread_solution **out);
void spread_solution_free(spread_solution *s);

#endif
