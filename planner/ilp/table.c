/* table.c: form M: the time of every expert on both sides, and the tables upper and lower over k.
 *
 * For a layer with k residents the sides are u = alpha + G and v = gamma + X, G the device sum and X the CPU sum, and the
 * time is
 * attn + max(u, v) + kappa * min(u, v), kappa = contend - 1. The points (G, X) of all sets of k experts have a lower-left
 * hull; its vertices are the sets "k smallest m*g - (1-m)*c", m
 * in [0,1], and m*G + (1-m)*X >= r(m) holds for every set, r(m) being that vertex's value. Hence for each m a bound
 * (support_bound) and a concrete set. Only m from kappa/(1+kappa) to 1/(1+kappa) matter: at these two the time itself is the
 * functional, where the CPU or the device decides. */
#include "planner/ilp/ilp_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bounds are lowered by this share, far above the rounding of their sums, far below any gap that is reported. */
static const double ROUNDING = 1e-13;

/* fmax and fmin without their care for NaN, which costs a call each in the inner loops. */
static inline double max2(double a, double b) {
  return a > b ? a : b;
}
static inline double min2(double a, double b) {
  return a < b ? a : b;
}

typedef struct {
  double G, X;
  uint8_t *sel; /* [n_free] */
} point;

typedef struct {
  double attn, alpha, gamma, kappa; /* of the sides, attn not included */
  bool cpu;                         /* any expert on the CPU */
} pieces;

static pieces pieces_of(const ilp_depth *d, const ilp_lay *y, int k) {
  pieces f = {.attn = y->attn, .kappa = d->p->table->contend - 1};
  f.alpha = y->shared + (k > 0 ? y->dexp_fixed : 0);
  f.cpu = k < d->n_experts;
  f.gamma = f.cpu ? y->hand + y->cexp_fixed : 0;
  return f;
}

static inline double sides_ns(const pieces *f, double u, double v) {
  return u > v ? f->attn + u + f->kappa * v : f->attn + v + f->kappa * u;
}

static double least_m(const pieces *f) {
  return f->kappa / (1 + f->kappa);
}
static double most_m(const pieces *f) {
  return 1 / (1 + f->kappa);
}

/* Least time over all (G, X) with m*G + (1-m)*X >= r, m between least_m and most_m: the sides are equal there. */
static double support_bound(const pieces *f, double m, double r) {
  if (!f->cpu) return f->attn + f->alpha + (m > 0 ? r / m : 0);
  return f->attn + (1 + f->kappa) * (r + m * f->alpha + (1 - m) * f->gamma);
}

/* The exact time of a column, through the one definition. */
static double column_ns(const ilp_depth *d, const ilp_lay *y, int k, double G, double X) {
  bool cpu = k < d->n_experts;
  layer_times t = {.attn_ns = y->attn,
                   .shared_ns = y->shared,
                   .hand_ns = cpu ? y->hand : 0,
                   .dexp_ns = k > 0 ? G + y->dexp_fixed : 0,
                   .cexp_ns = cpu ? X + y->cexp_fixed : 0};
  d->count->table_evaluations++;
  return ilp_way_ns(d->p->table, y->layer, &t, NULL);
}

/* ---- hull vertices ---- */

static void set_scores(ilp_depth *d, const ilp_lay *y, double m) {
  for (int i = 0; i < y->n_free; i++) {
    d->score[i] = m * y->g[i] - (1 - m) * y->c[i];
    d->tie[i] = y->g[i] - y->c[i];
    d->order[i] = i;
  }
}

/* Total order: score, then the side the score leaves out, then expert id. */
static inline bool before(const ilp_depth *d, int a, int b) {
  if (d->score[a] != d->score[b]) return d->score[a] < d->score[b];
  if (d->tie[a] != d->tie[b]) return d->tie[a] < d->tie[b];
  return a < b;
}

static int order_cmp(const void *pa, const void *pb, void *ctx) {
  int a = *(const int *)pa, b = *(const int *)pb;
  return a == b ? 0 : before(ctx, a, b) ? -1 : 1;
}

/* Puts the j smallest of order[0..n-1] first (quickselect, median of three). */
static void select_smallest(ilp_depth *d, int n, int j) {
  int *o = d->order, lo = 0, hi = n - 1;
  while (lo < hi) {
    int mid = lo + (hi - lo) / 2, a = o[lo], b = o[mid], c = o[hi];
    int pivot = before(d, a, b) ? (before(d, b, c)   ? b
                                   : before(d, a, c) ? c
                                                     : a)
                                : (before(d, a, c)   ? a
                                   : before(d, b, c) ? c
                                                     : b);
    int i = lo, e = hi;
    while (i <= e) {
      while (before(d, o[i], pivot)) i++;
      while (before(d, pivot, o[e])) e--;
      if (i <= e) {
        int t = o[i];
        o[i++] = o[e];
        o[e--] = t;
      }
    }
    if (j - 1 <= e) hi = e;
    else if (j - 1 >= i) lo = i;
    else return;
  }
}

/* Sums in the order of ids, so that a set has one value however it was found. */
static void sum_point(const ilp_lay *y, point *v) {
  v->G = y->pin_g;
  v->X = y->pin_c;
  for (int i = 0; i < y->n_free; i++) {
    if (v->sel[i]) v->G += y->g[i];
    else v->X += y->c[i];
  }
}

static void vertex(ilp_depth *d, const ilp_lay *y, int j, double m, point *out) {
  set_scores(d, y, m);
  if (j > 0 && j < y->n_free) select_smallest(d, y->n_free, j);
  memset(out->sel, 0, (size_t)y->n_free);
  for (int i = 0; i < j; i++) out->sel[d->order[i]] = 1;
  sum_point(y, out);
}

/* ---- refinement ---- */

/* Best single exchange of a resident and a CPU expert; false when none helps. Experts that weigh more on the device mostly
 * weigh
 * more on the CPU: along rising g the device side rises and the CPU side falls, so for each resident the best partner is at the
 * crossing. */
static bool best_swap(ilp_depth *d, const ilp_lay *y, const pieces *f, point *v) {
  double best = sides_ns(f, f->alpha + v->G, f->gamma + v->X) * (1 - 1e-12);
  int out = -1, in = -1, n = 0, *list = d->order;
  for (int i = 0; i < y->n_free; i++)
    if (!v->sel[y->by_g[i]]) list[n++] = y->by_g[i];
  for (int i = 0; i < y->n_free; i++) {
    if (!v->sel[i]) continue;
    double g = f->alpha + v->G - y->g[i], x = f->gamma + v->X + y->c[i];
    int lo = 0, hi = n;
    while (lo < hi) {
      int mid = (lo + hi) / 2;
      if (g + y->g[list[mid]] < x - y->c[list[mid]]) lo = mid + 1;
      else hi = mid;
    }
    for (int at = lo > 0 ? lo - 1 : 0; at <= lo && at < n; at++) {
      double t = sides_ns(f, g + y->g[list[at]], x - y->c[list[at]]);
      if (t < best) {
        best = t;
        out = i;
        in = list[at];
      }
    }
  }
  if (out < 0) return false;
  v->sel[out] = 0;
  v->sel[in] = 1;
  sum_point(y, v);
  return true;
}

static void polish(ilp_depth *d, const ilp_lay *y, int k, const pieces *f, double floor_ns, point *v) {
  for (int step = 0; step < 16; step++) {
    if (column_ns(d, y, k, v->G, v->X) <= floor_ns * (1 + 1e-10)) return;
    if (!best_swap(d, y, f, v)) return;
  }
}

static void record(ilp_lay *y, int k, ilp_level level, double lower, double upper) {
  y->upper[k] = min2(y->upper[k], upper);
  y->lower[k] = min2(max2(y->lower[k], lower * (1 - ROUNDING)), y->upper[k]);
  bool exact = y->upper[k] <= y->lower[k] * (1 + 1e-12);
  if (y->refined[k] < level || exact) y->refined[k] = exact ? ILP_POLISHED : level;
}

/* Sets of j of n while there are few of them: all are tried. */
enum { FEW_SETS = 5000 };

static bool few_sets(int n, int j) {
  double sets = 1;
  if (j > n - j) j = n - j;
  for (int i = 0; i < j && sets <= FEW_SETS; i++) sets = sets * (n - i) / (i + 1);
  return sets <= FEW_SETS;
}

/* Walks the q-subsets in lexicographic order; they are the residents, or (remove) the free experts left on the CPU. */
static void try_all_sets(ilp_depth *d, const ilp_lay *y, int k, int q, bool remove, point *best) {
  int n = y->n_free, *pick = d->order, at = 0;
  double *G = d->score, *X = d->tie, least = INFINITY, sign = remove ? -1 : 1; /* G[i], X[i]: sums with the first i picks */
  memset(best->sel, remove, (size_t)n);
  sum_point(y, best);
  G[0] = best->G;
  X[0] = best->X;
  pick[0] = -1;
  while (at >= 0) {
    int i = ++pick[at];
    if (i > n - (q - at)) {
      at--;
      continue;
    }
    G[at + 1] = G[at] + sign * y->g[i];
    X[at + 1] = X[at] - sign * y->c[i];
    if (at + 1 < q) {
      pick[at + 1] = i;
      at++;
      continue;
    }
    double t = column_ns(d, y, k, G[q], X[q]);
    if (t >= least) continue;
    least = t;
    memset(best->sel, remove, (size_t)n);
    for (int x = 0; x < q; x++) best->sel[pick[x]] = !remove;
  }
  sum_point(y, best);
}

static void swap_points(point *a, point *b) {
  point t = *a;
  *a = *b;
  *b = t;
}

/* a and b are the ends of the hull edge; where experts tie on it they differ in many. Walks from a towards b, one exchange at a
 * time along the edge, to the two neighbours that cross the diagonal. */
static void narrow(ilp_depth *d, const ilp_lay *y, const pieces *f, point *a, point *b) {
  int *from = d->order, *to = d->order + y->n_free, n_from = 0, n_to = 0;
  for (int x = 0; x < y->n_free; x++) {
    int i = y->by_g[x];
    if (a->sel[i] && !b->sel[i]) from[n_from++] = i;
    if (b->sel[i] && !a->sel[i]) *--to = i, n_to++;
  }
  /* from: rising g; to[0..]: falling g, so that each exchange is between the extremes that are left and steps stay even. */
  if (n_from != n_to || n_from < 2) return;
  double G = a->G, X = a->X;
  for (int i = 0; i < n_from; i++) {
    int out = from[n_from - 1 - i], in = to[n_to - 1 - i];
    double g = G - y->g[out] + y->g[in], x = X + y->c[out] - y->c[in];
    if (f->alpha + g <= f->gamma + x) {
      memcpy(b->sel, a->sel, (size_t)y->n_free);
      b->sel[out] = 0;
      b->sel[in] = 1;
      break;
    }
    a->sel[out] = 0;
    a->sel[in] = 1;
    G = g;
    X = x;
  }
  sum_point(y, a);
  sum_point(y, b);
}

/* Finds the hull edge that crosses the diagonal; returns its m. Leaves the best set in *a. */
static double refine_hull(ilp_depth *d, ilp_lay *y, int k, ilp_level level, point *a, point *b, point *v) {
  int j = k - y->k_lo;
  pieces f = pieces_of(d, y, k);
  vertex(d, y, j, least_m(&f), a);
  if (j == 0 || j == y->n_free || f.alpha + a->G <= f.gamma + a->X) {
    double t = column_ns(d, y, k, a->G, a->X); /* X decides, and nothing is less on the line where it does */
    record(y, k, level, t, t);
    return least_m(&f);
  }
  vertex(d, y, j, most_m(&f), b);
  if (f.alpha + b->G >= f.gamma + b->X) {
    double t = column_ns(d, y, k, b->G, b->X); /* likewise G */
    record(y, k, level, t, t);
    swap_points(a, b);
    return most_m(&f);
  }
  if (few_sets(y->n_free, j)) {
    try_all_sets(d, y, k, j <= y->n_free - j ? j : y->n_free - j, j > y->n_free - j, a);
    double t = column_ns(d, y, k, a->G, a->X);
    record(y, k, level, t, t);
    return -1;
  }
  double lower = 0, m = 0;
  for (int step = 0; step < 64; step++) {
    double dg = a->G - b->G, dx = b->X - a->X;
    if (!(dg > 0 && dx > 0)) break;
    m = dx / (dg + dx);
    double edge = m * a->G + (1 - m) * a->X;
    vertex(d, y, j, m, v);
    double r = m * v->G + (1 - m) * v->X;
    lower = max2(lower, support_bound(&f, m, min2(r, edge)));
    d->count->table_evaluations++;
    if (r >= edge - 1e-13 * edge) break;
    swap_points(v, f.alpha + v->G > f.gamma + v->X ? a : b);
  }
  narrow(d, y, &f, a, b);
  if (level == ILP_POLISHED) {
    polish(d, y, k, &f, lower, a);
    polish(d, y, k, &f, lower, b);
  }
  double ta = column_ns(d, y, k, a->G, a->X), tb = column_ns(d, y, k, b->G, b->X);
  if (tb < ta) swap_points(a, b);
  record(y, k, level, lower, min2(ta, tb));
  return m;
}

/* ---- small layers: all sets ---- */

static void enumerate(ilp_depth *d, ilp_lay *y, int only_k, uint8_t *sel) {
  unsigned full = (1u << y->n_free) - 1;
  d->enum_g[0] = d->enum_c[0] = 0;
  for (unsigned mask = 1; mask <= full; mask++) {
    int top = 31 - __builtin_clz(mask);
    d->enum_g[mask] = d->enum_g[mask ^ (1u << top)] + y->g[top];
    d->enum_c[mask] = d->enum_c[mask ^ (1u << top)] + y->c[top];
  }
  double best = INFINITY;
  for (unsigned mask = 0; mask <= full; mask++) {
    int k = y->k_lo + __builtin_popcount(mask);
    if (k > y->k_hi || (only_k >= 0 && k != only_k)) continue;
    double t = column_ns(d, y, k, y->pin_g + d->enum_g[mask], y->pin_c + d->enum_c[full ^ mask]);
    if (only_k < 0) {
      y->upper[k] = min2(y->upper[k], t);
      y->lower[k] = y->upper[k];
      y->refined[k] = ILP_POLISHED;
    } else if (t < best) {
      best = t;
      for (int i = 0; i < y->n_free; i++) sel[i] = mask >> i & 1;
    }
  }
}

double ilp_refine(ilp_depth *d, ilp_lay *y, int k, ilp_level level, uint8_t *sel) {
  if (sel == NULL && y->refined[k] >= level) return -1;
  if (y->n_free <= ILP_ENUMERATE_MAX) {
    enumerate(d, y, k, sel);
    return -1;
  }
  point a = {.sel = d->sel[0]}, b = {.sel = d->sel[1]}, v = {.sel = d->sel[2]};
  double m = refine_hull(d, y, k, level, &a, &b, &v);
  d->count->refined++;
  if (sel != NULL) memcpy(sel, a.sel, (size_t)y->n_free);
  return m;
}

/* ---- the grid ---- */

static void grid_order(ilp_depth *d, ilp_lay *y, double m) {
  set_scores(d, y, m);
  qsort_r(d->order, (size_t)y->n_free, sizeof *d->order, order_cmp, d);
  double G = y->pin_g, X = y->pin_c;
  for (int i = 0; i < y->n_free; i++) X += y->c[i];
  for (int j = 0; y->k_lo + j <= y->k_hi; j++) {
    int k = y->k_lo + j;
    if (j > 0) {
      G += y->g[d->order[j - 1]];
      X -= y->c[d->order[j - 1]];
    }
    pieces f = pieces_of(d, y, k);
    y->upper[k] = min2(y->upper[k], column_ns(d, y, k, G, X > 0 ? X : 0));
    if (m >= least_m(&f) && m <= most_m(&f)) y->lower[k] = max2(y->lower[k], support_bound(&f, m, m * G + (1 - m) * X));
  }
}

/* Columns whose bound is not exact yet: *n of them, the first at *from. */
static void open_columns(const ilp_lay *y, int *from, int *n) {
  *n = 0;
  for (int k = y->k_hi; k >= y->k_lo; k--) {
    if (y->upper[k] <= y->lower[k] * (1 + 1e-12)) continue;
    *from = k;
    ++*n;
  }
}

/* The least and the most m settle the columns where one side decides; in between the slopes of the hull edges at a few k
 * serve all of
 * their neighbours. */
static void fill_tables(ilp_depth *d, ilp_lay *y) {
  enum { SLOPES = 8 };
  for (int k = 0; k <= d->n_experts; k++) {
    y->upper[k] = INFINITY;
    y->lower[k] = 0;
  }
  if (y->n_free <= ILP_ENUMERATE_MAX) {
    enumerate(d, y, -1, NULL);
    return;
  }
  double kappa = d->p->table->contend - 1;
  grid_order(d, y, 1); /* for by_g; also a bound where contention makes it a weak one */
  memcpy(y->by_g, d->order, (size_t)y->n_free * sizeof *d->order);
  if (kappa > 0) grid_order(d, y, 1 / (1 + kappa));
  grid_order(d, y, kappa / (1 + kappa));
  int from = 0, n = 0;
  open_columns(y, &from, &n);
  double last = -1;
  for (int i = 0; i < SLOPES && n > 0; i++) {
    int k = from + (int)((2 * i + 1) * (int64_t)n / (2 * SLOPES));
    double m = ilp_refine(d, y, k, ILP_HULL, NULL);
    if (m > 0 && m < 1 && m != last) grid_order(d, y, m);
    last = m;
  }
  for (int k = y->k_lo; k <= y->k_hi; k++) {
    y->lower[k] = min2(y->lower[k] * (1 - ROUNDING), y->upper[k]);
    if (y->upper[k] <= y->lower[k] * (1 + 1e-12)) y->refined[k] = ILP_POLISHED;
  }
}

/* ---- building a depth ---- */

static int64_t gcd(int64_t a, int64_t b) {
  while (b != 0) {
    int64_t r = a % b;
    a = b;
    b = r;
  }
  return a;
}

static int pin_of(const ilp_problem *p, int layer, int e) {
  return p->pin == NULL ? ILP_FREE : p->pin[(size_t)layer * (size_t)p->table->n_experts + (size_t)e];
}

int64_t ilp_pinned_bytes(const ilp_problem *p) {
  int64_t sum = 0;
  for (int l = 0; l < p->table->n_layers; l++)
    for (int e = 0; p->table->layer[l].moe && e < p->table->n_experts; e++)
      if (pin_of(p, l, e) == ILP_PIN_DEVICE) sum += p->expert_bytes[l];
  return sum;
}

/* attn, shared and hand do not depend on which experts are where: asked for with the sums over experts cut to one. */
static layer_times fixed_times(const ilp_problem *p, int layer, int tokens) {
  static double none[ILP_MAX_LAYERS]; /* never written: popularity 0 for everything */
  popularity one = {.n_layers = p->table->n_layers, .n_experts = 1, .p = none};
  return stage_layer_times(p->table, &one, layer, tokens, p->context, NULL);
}

static hf_status fill_layer(ilp_depth *d, int i, int layer) {
  const ilp_problem *p = d->p;
  const stage_layer *s = &p->table->layer[layer];
  ilp_lay *y = &d->lay[i];
  size_t E = (size_t)d->n_experts;
  int *id, *by_g;
  double *g, *c;
  HF_TRY(hf_arena_get(d->mem, &by_g, E + 1, sizeof *by_g));
  HF_TRY(hf_arena_get(d->mem, &id, E + 1, sizeof *id));
  HF_TRY(hf_arena_get(d->mem, &g, E + 1, sizeof *g));
  HF_TRY(hf_arena_get(d->mem, &c, E + 1, sizeof *c));
  HF_TRY(hf_arena_get(d->mem, &y->upper, E + 1, sizeof *y->upper));
  HF_TRY(hf_arena_get(d->mem, &y->lower, E + 1, sizeof *y->lower));
  HF_TRY(hf_arena_get(d->mem, &y->refined, E + 1, sizeof *y->refined));
  layer_times t = fixed_times(p, layer, d->tokens);
  *y = (ilp_lay){.layer = layer,
                 .id = id,
                 .by_g = by_g,
                 .g = g,
                 .c = c,
                 .upper = y->upper,
                 .lower = y->lower,
                 .refined = y->refined,
                 .attn = t.attn_ns,
                 .shared = t.shared_ns,
                 .hand = t.hand_ns,
                 .dexp_fixed = s->dexp_fixed_ns,
                 .cexp_fixed = s->cexp_fixed_ns,
                 .units = p->expert_bytes[layer] / d->unit_bytes};
  int pin_cpu = 0;
  double last = -1, ge = 0, ce = 0;
  for (int e = 0; e < d->n_experts; e++) {
    double pop = p->pop->p[(size_t)layer * E + (size_t)e];
    if (pop != last) {
      last = pop;
      ge = expert_time_ns(&s->dexp, pop, d->tokens);
      ce = expert_time_ns(&s->cexp, pop, d->tokens);
      d->count->expert_times += 2;
    }
    int pin = pin_of(p, layer, e);
    if (pin == ILP_FREE) {
      id[y->n_free] = e;
      g[y->n_free] = ge;
      c[y->n_free++] = ce;
    } else if (pin == ILP_PIN_DEVICE) {
      y->pin_g += ge;
      y->k_lo++;
    } else {
      y->pin_c += ce;
      pin_cpu++;
    }
  }
  y->k_hi = d->n_experts - pin_cpu;
  return HF_OK;
}

static hf_status get_scratch(ilp_depth *d) {
  size_t E = (size_t)d->n_experts + 1, n = (size_t)d->n + 1;
  HF_TRY(hf_arena_get(d->mem, &d->lay, n, sizeof *d->lay));
  HF_TRY(hf_arena_get(d->mem, &d->k_best, n, sizeof *d->k_best));
  HF_TRY(hf_arena_get(d->mem, &d->order_k, n, sizeof *d->order_k));
  HF_TRY(hf_arena_get(d->mem, &d->k_fit, n, sizeof *d->k_fit));
  HF_TRY(hf_arena_get(d->mem, &d->k_over, n, sizeof *d->k_over));
  HF_TRY(hf_arena_get(d->mem, &d->rise_to, n, sizeof *d->rise_to));
  HF_TRY(hf_arena_get(d->mem, &d->rise_rate, n, sizeof *d->rise_rate));
  HF_TRY(hf_arena_get(d->mem, &d->score, E, sizeof *d->score));
  HF_TRY(hf_arena_get(d->mem, &d->tie, E, sizeof *d->tie));
  HF_TRY(hf_arena_get(d->mem, &d->order, E, sizeof *d->order));
  for (int i = 0; i < 4; i++) HF_TRY(hf_arena_get(d->mem, &d->sel[i], E, 1));
  HF_TRY(hf_arena_get(d->mem, &d->enum_g, (size_t)1 << ILP_ENUMERATE_MAX, sizeof *d->enum_g));
  return hf_arena_get(d->mem, &d->enum_c, (size_t)1 << ILP_ENUMERATE_MAX, sizeof *d->enum_c);
}

static hf_status build(ilp_depth *d) {
  const stage_table *t = d->p->table;
  int64_t total = 0, pinned = 0;
  d->unit_bytes = 0;
  for (int l = 0; l < t->n_layers; l++) {
    if (!t->layer[l].moe) continue;
    d->n++;
    d->unit_bytes = gcd(d->unit_bytes, d->p->expert_bytes[l]);
  }
  if (d->unit_bytes == 0) d->unit_bytes = 1;
  HF_TRY(get_scratch(d));
  d->base_ns = t->step_fixed_ns + stage_curve_at(&t->head, d->p->users);
  for (int l = 0, i = 0; l < t->n_layers; l++) {
    if (t->layer[l].moe) {
      HF_TRY(fill_layer(d, i++, l));
    } else {
      layer_times times = fixed_times(d->p, l, d->tokens);
      d->base_ns += times.attn_ns + times.shared_ns;
    }
  }
  for (int i = 0; i < d->n; i++) {
    total += d->lay[i].units * d->n_experts;
    pinned += d->lay[i].units * d->lay[i].k_lo;
  }
  d->cap_bytes = ilp_place_room(d->p, 1, d->depth);
  d->cap_units = d->cap_bytes / d->unit_bytes;
  if (d->cap_units > total) d->cap_units = total;
  for (int i = 0; i < d->n; i++) {
    ilp_lay *y = &d->lay[i];
    int64_t fit = y->k_lo + (d->cap_units - pinned) / y->units;
    if (fit < y->k_hi) y->k_hi = (int)fit;
    fill_tables(d, y);
  }
  return HF_OK;
}

hf_status ilp_depth_new(const ilp_problem *p, int depth, int max_refine, ilp_counters *count, ilp_depth **out) {
  hf_arena *mem;
  ilp_depth *d;
  size_t cells = ((size_t)p->table->n_layers + 2) * ((size_t)p->table->n_experts + 16);
  HF_TRY(hf_arena_new(&mem, cells * 96 + ((size_t)4 << 20), "placement tables"));
  hf_status st = hf_arena_get(mem, &d, 1, sizeof *d);
  if (st == HF_OK) {
    *d = (ilp_depth){.p = p,
                     .mem = mem,
                     .depth = depth,
                     .tokens = (p->users + depth - 1) / depth,
                     .n_experts = p->table->n_experts,
                     .refine_left = max_refine,
                     .count = count};
    st = build(d);
  }
  if (st != HF_OK) {
    hf_arena_free(mem);
    return st;
  }
  *out = d;
  return HF_OK;
}

void ilp_depth_free(ilp_depth *d) {
  if (d != NULL) hf_arena_free(d->mem);
}

/* ---- placements ---- */

void ilp_depth_placement(ilp_depth *d, const int *k, uint8_t *on_device) {
  size_t E = (size_t)d->n_experts;
  uint8_t *sel = d->sel[3];
  memset(on_device, 0, (size_t)d->p->table->n_layers * E);
  for (int i = 0; i < d->n; i++) {
    ilp_lay *y = &d->lay[i];
    uint8_t *row = on_device + (size_t)y->layer * E;
    (void)ilp_refine(d, y, k[i], ILP_POLISHED, sel);
    for (int e = 0; e < d->n_experts; e++) row[e] = pin_of(d->p, y->layer, e) == ILP_PIN_DEVICE;
    for (int j = 0; j < y->n_free; j++)
      if (sel[j]) row[y->id[j]] = 1;
  }
}
