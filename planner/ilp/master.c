/* master.c: form P as a relaxation that grows by columns, its bound, and the integer program over the columns.
 *
 * Times in GLPK are shares of the first placement's objective in thousandths, bytes are in units of the largest expert.
 * Prices are taken halfway
 * between GLPK's multipliers and those of the best bound so far: alone GLPK's jump about while columns are few. */
#include "planner/ilp/spread.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ROUNDS = 150, SMALL = 2000, START_STEPS = 24, SETTLE_ROUNDS = 12, QUICK_ROUNDS = 4, MAX_DIVE = 40, MAX_SPLITS = 6 };
static const double CONVERGED = 1e-6;
/* Of each ns over a limit in the relaxation: any price keeps its value a bound, a high one harms accuracy. */
static const double OVER = 1e3;
/* What is left of a gap as small as this is mostly in the bound: no further search. In small models it can be a few experts. */
static const double GOOD_GAP = 8e-4, GOOD_GAP_SMALL = 1e-6;

typedef struct {
  spread_solution *s;
  spread *m;
  ilp_counters *count;
  double unit_ns, unit_bytes, good; /* good: a gap that is small enough */
  ilp_lp *lp;
  int *column;                        /* [sets] in the relaxation */
  int path_row, step_row, prompt_row; /* -1: none; the last two: limits */
  int room_row[SPREAD_P], pick_row;   /* first rows of their kind; -1: none */
  int *part_row,
      *chunk_row;   /* [groups * cap_classes] first of P (or the only one); -1: none. Classes get rows with their first set */
  double *nu, *rho; /* weights of classes without rows, of 1; as in spread_dual */
  double *pick;     /* [groups] GLPK's price of a layer: a set below it improves the relaxation */
  int n_rows, first_set; /* first_set: not yet columns from here on */
  double *lo, *hi;       /* of rows */
  spread_dual now, mixed;
  uint8_t *best_place, *trial; /* [groups * experts], [experts] */
} master;

void spread_solution_free(spread_solution *s) {
  if (s == NULL) return;
  for (int i = 0; i < s->n_sets; i++) free((void *)s->set[i].place);
  free(s->set);
  free(s->best.nu);
  free(s->best.rho);
  free(s->whole_price);
  free(s->placement);
  spread_free(s->m);
  free(s);
}

/* The sets of a placement, each layer's. */
static hf_status add_placement(master *x, const uint8_t *placement) {
  spread *m = x->m;
  for (int l = 0; l < m->p->table->n_layers; l++) {
    if (m->group_of[l] < 0) continue;
    const spread_group *g = &m->group[m->group_of[l]];
    spread_set s = {.group = m->group_of[l], .place = placement + (size_t)l * (size_t)m->n_experts};
    bool is_new;
    spread_value(m, &s);
    double cpu = spread_chunk(m, &s);
    if (g->upload.t != NULL) {
      s.upload = true;
      spread_value(m, &s);
      s.upload = spread_chunk(m, &s) < cpu;
    }
    HF_TRY(spread_add_set(x->s, s.group, s.place, s.upload, &is_new));
  }
  return HF_OK;
}

/* ---- the relaxation ---- */

static bool one_row(const spread_group *g) {
  return g->whole || g->nested;
}

static void limit_row(master *x, int row, double most_ns) {
  if (row < 0) return;
  x->lo[row] = -INFINITY;
  x->hi[row] = most_ns / x->unit_ns;
}

static hf_status lay_out(master *x) {
  const spread *m = x->m;
  int n = m->n_rows, G = m->n_groups, P = m->n_places;
  x->path_row = m->depth > 1 ? n++ : -1;
  x->step_row = isfinite(m->limit_step) ? n++ : -1;
  x->prompt_row = isfinite(m->limit_chunk) ? n++ : -1;
  for (int q = 0; q < P; q++) x->room_row[q] = m->room[q] < INT64_MAX ? n++ : -1;
  x->pick_row = n;
  x->n_rows = n + G;
  size_t classes = (size_t)G * (size_t)m->cap_classes, rows = (size_t)x->n_rows;
  HF_TRY(hf_alloc(&x->part_row, classes + 1, sizeof *x->part_row, "placement program"));
  HF_TRY(hf_alloc(&x->chunk_row, classes + 1, sizeof *x->chunk_row, "placement program"));
  HF_TRY(hf_alloc(&x->pick, (size_t)G + 1, sizeof *x->pick, "placement program"));
  HF_TRY(hf_alloc(&x->nu, spread_at(m, G, 0) + 1, sizeof *x->nu, "placement program"));
  HF_TRY(hf_alloc(&x->rho, spread_at(m, G, 0) + 1, sizeof *x->rho, "placement program"));
  HF_TRY(hf_alloc(&x->lo, rows + 1, sizeof *x->lo, "placement program"));
  HF_TRY(hf_alloc(&x->hi, rows + 1, sizeof *x->hi, "placement program"));
  for (int g = 0; g < G; g++)
    for (int k = 0; k < m->cap_classes; k++) x->nu[spread_at(m, g, k)] = x->rho[spread_at(m, g, k)] = 1;
  for (size_t i = 0; i < rows; i++) {
    x->lo[i] = 0;
    x->hi[i] = INFINITY;
  }
  for (int r = 0; r < m->n_rows; r++) x->lo[r] = m->row0[r] / x->unit_ns;
  if (x->path_row >= 0) x->lo[x->path_row] = m->path0 / x->unit_ns;
  limit_row(x, x->step_row, m->limit_step - (m->depth > 1 ? 0 : m->path0));
  limit_row(x, x->prompt_row, m->limit_chunk - m->chunk0);
  for (int q = 0; q < P; q++)
    if (x->room_row[q] >= 0) {
      x->lo[x->room_row[q]] = -INFINITY;
      x->hi[x->room_row[q]] = fmax(0, (double)m->room[q]) / x->unit_bytes;
    }
  for (int g = 0; g < G; g++) x->lo[x->pick_row + g] = x->hi[x->pick_row + g] = m->group[g].n_same;
  return HF_OK;
}

typedef struct {
  int n, row[100];
  double value[100];
} entries;

static void put(entries *e, int row, double value) {
  if (value == 0) return;
  e->row[e->n] = row;
  e->value[e->n++] = value;
}

/* The step (the first column at depth > 1), and what is over the limits: then no placement need keep them for the relaxation to have
 * a solution, and its value stays a bound for those that do. */
static hf_status add_step(const master *x, ilp_lp *lp, bool hard) {
  const spread *m = x->m;
  static const double minus = -1;
  entries e = {0};
  for (int r = 0; r < m->n_rows; r++) put(&e, r, 1);
  if (x->path_row >= 0) put(&e, x->path_row, 1);
  if (x->step_row >= 0) put(&e, x->step_row, 1);
  if (m->depth > 1) HF_TRY(ilp_lp_column(lp, m->step_weight, 0, INFINITY, false, e.n, e.row, e.value, NULL));
  double most = hard ? 0 : INFINITY;
  if (x->step_row >= 0) HF_TRY(ilp_lp_column(lp, OVER, 0, most, false, 1, &x->step_row, &minus, NULL));
  if (x->prompt_row >= 0) HF_TRY(ilp_lp_column(lp, OVER, 0, most, false, 1, &x->prompt_row, &minus, NULL));
  return HF_OK;
}

/* The step; classes follow with their first set. */
static hf_status add_variables(master *x) {
  for (int i = 0; i < x->m->n_groups * x->m->cap_classes; i++) x->part_row[i] = x->chunk_row[i] = -1;
  return add_step(x, x->lp, false);
}

/* Rows and variables of a class: its way, its chunk. */
static hf_status add_class(master *x, const spread_group *g, int i) {
  static const double lo[SPREAD_P];
  const spread *m = x->m;
  int P = m->n_places, n = one_row(g) ? 1 : P;
  double hi[SPREAD_P];
  entries e = {0};
  for (int q = 0; q < P; q++) hi[q] = INFINITY;
  if (x->part_row[i] >= 0) return HF_OK;
  HF_TRY(ilp_lp_rows(x->lp, n, lo, hi, &x->part_row[i]));
  if (x->path_row >= 0) put(&e, x->path_row, -1);
  else if (x->step_row >= 0) put(&e, x->step_row, 1);
  for (int q = 0; q < n; q++) put(&e, x->part_row[i] + q, 1);
  HF_TRY(ilp_lp_column(x->lp, m->depth > 1 ? 0 : m->step_weight, 0, INFINITY, false, e.n, e.row, e.value, NULL));
  if (!m->chunks) return HF_OK;
  HF_TRY(ilp_lp_rows(x->lp, P, lo, hi, &x->chunk_row[i]));
  e.n = 0;
  if (x->prompt_row >= 0) put(&e, x->prompt_row, 1);
  for (int q = 0; q < P; q++) put(&e, x->chunk_row[i] + q, 1);
  return ilp_lp_column(x->lp, m->weight, 0, INFINITY, false, e.n, e.row, e.value, NULL);
}

static hf_status add_columns(master *x) {
  const spread *m = x->m;
  spread_solution *s = x->s;
  HF_TRY(hf_realloc(&x->column, (size_t)s->cap_sets, sizeof *x->column, "placement columns"));
  for (; x->first_set < s->n_sets; x->first_set++) {
    const spread_set *c = &s->set[x->first_set];
    const spread_group *g = &m->group[c->group];
    entries e = {0};
    for (int r = 0; r < m->n_rows; r++) {
      double v = 0;
      for (int q = 0; q < m->n_places; q++) v += spread_coef(m, &m->row[r], g, q) * c->load[q];
      put(&e, r, -v / x->unit_ns);
    }
    for (int q = 0; q < m->n_places; q++)
      if (x->room_row[q] >= 0) put(&e, x->room_row[q], (double)c->count[q] * (double)g->bytes / x->unit_bytes);
    put(&e, x->pick_row + c->group, 1);
    int at = c->group * m->cap_classes + c->class;
    HF_TRY(add_class(x, g, at));
    if (one_row(g)) put(&e, x->part_row[at], -spread_way(m, c) / x->unit_ns);
    for (int q = 0; q < m->n_places && !one_row(g); q++) put(&e, x->part_row[at] + q, -c->part[q] / x->unit_ns);
    for (int q = 0; q < m->n_places && x->chunk_row[at] >= 0; q++) put(&e, x->chunk_row[at] + q, -c->chunk[q] / x->unit_ns);
    HF_TRY(ilp_lp_column(x->lp, 0, 0, INFINITY, false, e.n, e.row, e.value, &x->column[x->first_set]));
  }
  return HF_OK;
}

/* ---- multipliers ---- */

static hf_status dual_alloc(const spread *m, spread_dual *d) {
  size_t n = spread_at(m, m->n_groups, 0) + 1;
  HF_TRY(hf_alloc(&d->nu, n, sizeof *d->nu, "placement multipliers"));
  return hf_alloc(&d->rho, n, sizeof *d->rho, "placement multipliers");
}

static void dual_free(spread_dual *d) {
  free(d->nu);
  free(d->rho);
}

static void dual_mix(const spread *m, const spread_dual *a, const spread_dual *b, double share, spread_dual *out) {
  for (int r = 0; r < m->n_rows; r++) out->lam[r] = share * a->lam[r] + (1 - share) * b->lam[r];
  out->lam_path = share * a->lam_path + (1 - share) * b->lam_path;
  out->over_step = share * a->over_step + (1 - share) * b->over_step;
  out->over_chunk = share * a->over_chunk + (1 - share) * b->over_chunk;
  out->chunk = m->weight + out->over_chunk;
  for (int q = 0; q < m->n_places; q++) out->theta[q] = share * a->theta[q] + (1 - share) * b->theta[q];
  for (size_t i = 0; i < spread_at(m, m->n_groups, 0); i++) {
    out->nu[i] = share * a->nu[i] + (1 - share) * b->nu[i];
    out->rho[i] = share * a->rho[i] + (1 - share) * b->rho[i];
  }
}

static void dual_copy(const spread *m, const spread_dual *from, spread_dual *to) {
  dual_mix(m, from, from, 1, to);
}

/* Makes v[0..n-1] sum to `sum`, none negative; all at `where` when there is nothing to scale. */
static void normalise(double *v, int n, double sum, int where) {
  double s = 0;
  for (int i = 0; i < n; i++) {
    if (!(v[i] > 0)) v[i] = 0;
    s += v[i];
  }
  for (int i = 0; i < n; i++) v[i] = s > 1e-12 * sum ? v[i] * (sum / s) : i == where ? sum : 0;
}

/* GLPK's multipliers of a class may sum to less where none of its sets is used: the rest goes by the weights it came with, so
 * that no set of the class gets cheaper. */
static void complete(double *v, const double *weights, int n, double sum) {
  double s = 0, w = 0;
  for (int i = 0; i < n; i++) {
    if (!(v[i] > 0)) v[i] = 0;
    s += v[i];
    w += weights[i];
  }
  for (int i = 0; i < n && s < sum; i++) v[i] += (sum - s) * weights[i] / w;
  normalise(v, n, sum, 0);
}

static void read_dual(master *x, spread_dual *d) {
  const spread *m = x->m;
  double all[SPREAD_MAX_ROWS + 1];
  d->over_step = x->step_row >= 0 ? fmax(0, -ilp_lp_dual(x->lp, x->step_row)) : 0;
  d->over_chunk = x->prompt_row >= 0 ? fmax(0, -ilp_lp_dual(x->lp, x->prompt_row)) : 0;
  d->chunk = m->weight + d->over_chunk;
  d->lam_path = m->step_weight + d->over_step;
  if (m->depth > 1) {
    for (int r = 0; r < m->n_rows; r++) all[r] = ilp_lp_dual(x->lp, r);
    all[m->n_rows] = ilp_lp_dual(x->lp, x->path_row);
    normalise(all, m->n_rows + 1, d->lam_path, 0);
    memcpy(d->lam, all, sizeof d->lam);
    d->lam_path = all[m->n_rows];
  }
  for (int q = 0; q < m->n_places; q++)
    d->theta[q] = x->room_row[q] >= 0 ? fmax(0, -ilp_lp_dual(x->lp, x->room_row[q])) * x->unit_ns / x->unit_bytes : 0;
  for (int g = 0; g < m->n_groups; g++) x->pick[g] = ilp_lp_dual(x->lp, x->pick_row + g) * x->unit_ns;
  for (int g = 0; g < m->n_groups; g++)
    for (int k = 0; k < m->group[g].n_classes; k++) {
      int i = g * m->cap_classes + k;
      size_t at = spread_at(m, g, k);
      double *nu = d->nu + at, *rho = d->rho + at;
      bool known = x->part_row[i] >= 0;
      for (int q = 0; q < m->n_places; q++) {
        nu[q] = one_row(&m->group[g]) || !known ? 0 : ilp_lp_dual(x->lp, x->part_row[i] + q);
        rho[q] = m->chunks && known ? ilp_lp_dual(x->lp, x->chunk_row[i] + q) : 0;
      }
      complete(nu, x->nu + at, m->n_places, d->lam_path);
      complete(rho, x->rho + at, m->n_places, d->chunk);
    }
}

static double priced(const spread *m, const spread_dual *d, const spread_set *s) {
  const spread_group *g = &m->group[s->group];
  const double *nu = d->nu + spread_at(m, s->group, s->class), *rho = d->rho + spread_at(m, s->group, s->class);
  double v = one_row(g) ? d->lam_path * spread_way(m, s) : 0;
  for (int q = 0; q < m->n_places; q++) {
    if (!one_row(g)) v += nu[q] * s->part[q];
    v += rho[q] * s->chunk[q] + d->theta[q] * (double)g->bytes * s->count[q];
    for (int r = 0; r < m->n_rows; r++) v += d->lam[r] * spread_coef(m, &m->row[r], g, q) * s->load[q];
  }
  return v;
}

/* The bound at d. The best set of each group becomes a column, and the best of every class that the relaxation would take. */
static hf_status price(master *x, const spread_dual *d, double *bound, int *n_new) {
  spread *m = x->m;
  double sum = spread_constant(m, d);
  *n_new = 0;
  for (int g = 0; g < m->n_groups; g++) {
    double least = INFINITY;
    int from = x->s->n_sets, best = 0;
    uint8_t *keep = x->best_place + (size_t)g * (size_t)m->n_experts;
    for (int k = 0; k < m->group[g].n_classes; k++) {
      bool is_new, up = m->group[g].class[k].upload;
      double v = spread_price_class(m, d, g, k, x->trial);
      if (v < least) {
        least = v;
        best = k;
        memcpy(keep, x->trial, (size_t)m->n_experts);
      } else if (isfinite(v)) {
        spread_set s = {.group = g, .upload = up, .place = x->trial};
        spread_value(m, &s);
        if (priced(m, &x->now, &s) < x->pick[g] * (1 - 1e-9)) HF_TRY(spread_add_set(x->s, g, x->trial, up, &is_new));
      }
    }
    bool is_new;
    HF_TRY(spread_add_set(x->s, g, keep, m->group[g].class[best].upload, &is_new));
    *n_new += x->s->n_sets - from;
    sum += m->group[g].n_same * least;
  }
  *bound = sum * (1 - 1e-12);
  if (*bound > x->s->bound_ns) {
    x->s->bound_ns = *bound;
    dual_copy(m, d, &x->s->best);
  }
  return HF_OK;
}

/* First columns: the CPU is taken for what binds, and one price of bytes for all devices is searched at which they are just
 * full. */
static hf_status start(master *x) {
  spread *m = x->m;
  spread_dual *d = &x->now;
  double high = 0, low = 0;
  int64_t room = 0;
  d->lam_path = m->depth > 1 ? 0 : m->step_weight;
  d->chunk = m->weight;
  if (m->depth > 1) d->lam[0] = m->step_weight;
  for (int g = 0; g < m->n_groups; g++) {
    for (int k = 0; k < m->group[g].n_classes; k++) {
      d->nu[spread_at(m, g, k)] = d->lam_path;
      d->rho[spread_at(m, g, k)] = d->chunk;
    }
    const spread_group *y = &m->group[g];
    for (int e = 0; e < m->n_experts; e++) {
      double ns = m->depth > 1 ? y->work[e * m->n_places] : y->way.t[e * m->n_places];
      if (m->weight > 0) ns += m->weight * y->chunk.t[e * m->n_places];
      high = fmax(high, 2 * ns / (double)y->bytes);
    }
  }
  for (int q = 1; q < m->n_places; q++)
    if (m->room[q] < INT64_MAX) room += m->room[q] > 0 ? m->room[q] : 0;
  for (int step = 0; step < START_STEPS; step++) {
    double theta = step == 0 ? 0 : 0.5 * (low + high), bound;
    int n_new;
    int64_t used = 0;
    for (int q = 1; q < m->n_places; q++) d->theta[q] = m->room[q] < INT64_MAX ? theta : 0;
    HF_TRY(price(x, d, &bound, &n_new));
    for (int g = 0; g < m->n_groups; g++)
      for (int e = 0; e < m->n_experts; e++) {
        int q = x->best_place[g * m->n_experts + e];
        if (q > 0 && m->room[q] < INT64_MAX) used += m->group[g].n_same * m->group[g].bytes;
      }
    if (step == 0 && used <= room) return HF_OK;
    if (used > room) low = theta;
    else high = theta;
  }
  return HF_OK;
}

/* Columns until prices call for no more. */
static hf_status generate(master *x, double gap, double stop_bound) {
  spread *m = x->m;
  ilp_lp_free(x->lp);
  x->lp = NULL;
  x->first_set = 0;
  HF_TRY(ilp_lp_new(x->n_rows, x->lo, x->hi, &x->lp));
  HF_TRY(add_variables(x));
  double share = 0.5;
  for (int round = 0; round < MAX_ROUNDS; round++) {
    HF_TRY(add_columns(x));
    HF_TRY(ilp_lp_solve(x->lp, x->count));
    double value = ilp_lp_value(x->lp) * x->unit_ns + (m->depth > 1 ? 0 : m->step_weight * m->path0) + m->weight * m->chunk0,
           bound, before = x->s->bound_ns;
    int n_new, n_more = 0;
    read_dual(x, &x->now);
    if (value - before <= fmin(CONVERGED, 0.02 * gap) * value || before >= stop_bound) return HF_OK;
    dual_mix(m, &x->now, &x->s->best, share, &x->mixed);
    HF_TRY(price(x, &x->mixed, &bound, &n_new));
    bool better = bound > before;
    if (n_new == 0 || !better) HF_TRY(price(x, &x->now, &bound, &n_more));
    if (n_new + n_more == 0 && share >= 0.999) return HF_OK;
    if (n_new + n_more == 0) share = 1;
    else share = better ? fmax(0.3, share * 0.9) : fmin(0.9, share * 1.2);
  }
  return HF_OK;
}

/* ---- splitting classes ---- */

/* What the columns of a class come to in the relaxation. */
typedef struct {
  double layers, way, chunk, part[SPREAD_P], chunk_part[SPREAD_P], used[SPREAD_P];
} mixture;

static hf_status mixtures(const master *x, mixture **out) {
  const spread *m = x->m;
  mixture *mix;
  HF_TRY(hf_alloc(&mix, (size_t)m->n_groups * (size_t)m->cap_classes + 1, sizeof *mix, "placement classes"));
  for (int i = 0; i < x->first_set; i++) {
    const spread_set *c = &x->s->set[i];
    mixture *y = &mix[c->group * m->cap_classes + c->class];
    double z = ilp_lp_share(x->lp, x->column[i]);
    if (!(z > 0)) continue;
    y->layers += z;
    y->way += z * spread_way(m, c);
    y->chunk += z * spread_chunk(m, c);
    for (int q = 0; q < m->n_places; q++) {
      y->part[q] += z * c->part[q];
      y->chunk_part[q] += z * c->chunk[q];
      y->used[q] += c->count[q] > 0 ? z : 0;
    }
  }
  *out = mix;
  return HF_OK;
}

/* What ways and chunks count. */
typedef struct {
  double way, chunk;
} worth;

/* By how much the largest part of the mean lies below the mean of the largest parts. */
static double mixture_loss(const master *x, const mixture *y, worth w) {
  double way = 0, chunk = 0;
  for (int q = 0; q < x->m->n_places; q++) {
    way = fmax(way, y->part[q]);
    chunk = fmax(chunk, y->chunk_part[q]);
  }
  return w.way * (y->way - way) + w.chunk * (y->chunk - chunk);
}

/* At depth > 1 ways count where, as they truly are, they come to more than the step of the relaxation; so do chunks that come to more
 * than their limit. */
static worth worth_of(const master *x, const mixture *mix) {
  const spread *m = x->m;
  double way = m->path0, chunk = m->chunk0;
  worth w = {.way = x->now.lam_path, .chunk = x->now.chunk};
  for (int i = 0; i < m->n_groups * m->cap_classes; i++) {
    way += mix[i].way;
    chunk += mix[i].chunk;
  }
  if (m->depth > 1) w.way = way > ilp_lp_share(x->lp, 0) * x->unit_ns ? fmax(m->step_weight, w.way) : 0;
  if (chunk > m->limit_chunk) w.chunk = fmax(1, w.chunk);
  return w;
}

/* Places that some columns use and others do not, by the fixed parts at stake; how many. */
static int mixed_places(const master *x, const spread_group *g, const mixture *y, worth w, int *place) {
  const spread *m = x->m;
  double stake[SPREAD_P];
  int n = 0;
  for (int q = 0; q < m->n_places; q++) {
    double fixed = w.way * g->way.fixed[q] + (m->chunks ? w.chunk * g->chunk.fixed[q] : 0);
    for (int r = 0; r < m->n_rows; r++) fixed += x->now.lam[r] * spread_coef(m, &m->row[r], g, q) * g->work_fixed[q];
    double v = fmin(y->used[q], y->layers - y->used[q]) * fixed;
    if (!(v > 1e-6 * x->unit_ns)) continue;
    int at = n++;
    for (; at > 0 && stake[at - 1] < v; at--) {
      stake[at] = stake[at - 1];
      place[at] = place[at - 1];
    }
    stake[at] = v;
    place[at] = q;
  }
  return n;
}

/* Weights of a class, from those of the one it was split from: as they were in the places it may use. */
static void inherit(const master *x, int group, int class, const double *from, double *to) {
  const spread *m = x->m;
  double sum = 0;
  for (int q = 0; q < m->n_places; q++) {
    to[q] = m->group[group].class[class].never >> q & 1 ? 0 : fmax(0, from[q]);
    sum += to[q];
  }
  for (int q = 0; q < m->n_places && !(sum > 0); q++) to[q] = m->group[group].class[class].never >> q & 1 ? 0 : 1;
}

static void weights_of_class(master *x, int group, int class, int from) {
  const spread *m = x->m;
  spread_dual *dual[] = {&x->now, &x->mixed, &x->s->best};
  size_t at = spread_at(m, group, class), old = spread_at(m, group, from), bytes = (size_t)m->n_places * sizeof(double);
  inherit(x, group, class, x->s->best.nu + old, x->nu + at);
  inherit(x, group, class, x->s->best.rho + old, x->rho + at);
  for (size_t i = 0; i < sizeof dual / sizeof dual[0]; i++) {
    memcpy(dual[i]->nu + at, x->nu + at, bytes);
    memcpy(dual[i]->rho + at, x->rho + at, bytes);
    normalise(dual[i]->nu + at, m->n_places, dual[i]->lam_path, 0);
    normalise(dual[i]->rho + at, m->n_places, dual[i]->chunk, 0);
  }
}

/* Each place in turn doubles the classes that came of this one; whether any did. */
static bool split_class(master *x, int group, int class, const mixture *y, worth w) {
  spread *m = x->m;
  spread_group *g = &m->group[group];
  int place[SPREAD_P], n = mixed_places(x, g, y, w, place), first = g->n_classes;
  uint16_t all = (uint16_t)((1u << m->n_places) - 1);
  for (int i = 0; i < n; i++) {
    uint16_t bit = (uint16_t)(1u << place[i]);
    int last = g->n_classes, more = 1 + last - first;
    if (last + more > m->cap_classes) break;
    for (int j = 0; j < more; j++) {
      int k = j == 0 ? class : first + j - 1;
      spread_class other = g->class[k];
      other.never |= bit;
      g->class[k].must |= bit;
      if (other.never != all) g->class[g->n_classes++] = other;
    }
  }
  if (g->n_classes == first) return false;
  for (int k = first; k < g->n_classes; k++) weights_of_class(x, group, k, class);
  weights_of_class(x, group, class, class);
  return true;
}

/* Forgets all sets but those that make up the relaxation. */
static void keep_used(master *x) {
  spread_solution *s = x->s;
  int n = 0;
  for (int i = 0; i < s->n_sets; i++) {
    bool used = i < x->first_set && ilp_lp_share(x->lp, x->column[i]) > 0;
    if (used) s->set[n++] = s->set[i];
    else free((void *)s->set[i].place);
  }
  s->n_sets = n;
}

/* Splits every class whose mixture counts; whether any was. */
static hf_status split(master *x, bool *any) {
  spread *m = x->m;
  mixture *mix;
  double all = 0, enough = 0.25 * x->good * x->s->bound_ns;
  int n = 0;
  *any = false;
  HF_TRY(mixtures(x, &mix));
  worth w = worth_of(x, mix);
  for (int i = 0; i < m->n_groups * m->cap_classes; i++) {
    double loss = mixture_loss(x, &mix[i], w);
    all += loss;
    n += loss > 0;
  }
  for (int i = 0; i < m->n_groups * m->cap_classes && all > 2 * enough; i++) {
    if (one_row(&m->group[i / m->cap_classes]) || mixture_loss(x, &mix[i], w) * n < enough) continue;
    *any = split_class(x, i / m->cap_classes, i % m->cap_classes, &mix[i], w) || *any;
  }
  free(mix);
  if (!*any) return HF_OK;
  keep_used(x);
  for (int i = 0; i < x->s->n_sets; i++) x->s->set[i].class = spread_class_of(m, &x->s->set[i]);
  return add_placement(x, x->s->placement);
}

/* Columns and classes. The bound is that of the classes as they are in the end. */
static hf_status relax(master *x, double gap, double stop_bound) {
  /* Rows of many layers bind only when most of these are split. */
  bool patient = x->m->depth > 1 || x->step_row >= 0 || x->prompt_row >= 0;
  int idle = 0;
  HF_TRY(generate(x, gap, stop_bound));
  for (int pass = 0; pass < MAX_SPLITS && x->s->bound_ns < stop_bound; pass++) {
    bool any;
    double bound, before = x->s->bound_ns;
    int n_new;
    HF_TRY(split(x, &any));
    if (!any) break;
    x->s->bound_ns = 0;
    dual_copy(x->m, &x->s->best, &x->mixed);
    HF_TRY(price(x, &x->mixed, &bound, &n_new));
    HF_TRY(generate(x, gap, stop_bound));
    idle = x->s->bound_ns < before * (1 + (patient ? CONVERGED : 0.1 * x->good)) ? idle + 1 : 0;
    if (idle > (patient ? 1 : 0)) break;
  }
  return HF_OK;
}

/* ---- from shares to a placement ---- */

/* Experts of one layer by how much of them the columns put in a place, then by what leaving it would cost. */
typedef struct {
  double share;
  int expert;
} wish;

static int wish_cmp(const void *pa, const void *pb) {
  const wish *a = pa, *b = pb;
  if (a->share != b->share) return a->share > b->share ? -1 : 1;
  return a->expert < b->expert ? -1 : a->expert > b->expert;
}

/* The i-th layer of a group: as many experts in each place as the shares say, rounded so that the group's sums come out. */
static void round_layer(const spread *m, const double *share, int i, wish *list, uint8_t *place) {
  int E = m->n_experts, P = m->n_places, rest = 0, count[SPREAD_P];
  double mean[SPREAD_P] = {0};
  for (int e = 0; e < E; e++)
    for (int q = 0; q < P; q++) mean[q] += share[e * P + q];
  for (int q = 1; q < P; q++)
    if (mean[q] > mean[rest]) rest = q;
  for (int q = 0; q < P; q++) count[q] = (int)(floor((i + 1) * mean[q] + 1e-7) - floor(i * mean[q] + 1e-7));
  memset(place, rest, (size_t)E);
  for (int q = 0; q < P; q++) {
    int n = 0;
    if (q == rest) continue;
    for (int e = 0; e < E; e++)
      if (place[e] == rest && share[e * P + q] > 0) list[n++] = (wish){share[e * P + q], e};
    qsort(list, (size_t)n, sizeof *list, wish_cmp);
    for (int j = 0; j < n && j < count[q]; j++) place[list[j].expert] = (uint8_t)q;
  }
}

static hf_status round_shares(const master *x, uint8_t *placement) {
  const spread *m = x->m;
  const spread_solution *s = x->s;
  size_t cells = (size_t)m->n_experts * (size_t)m->n_places;
  double *share = NULL;
  wish *list = NULL;
  int *seen = NULL;
  hf_status st = HF_OK;
  HF_GO(done, hf_alloc(&share, (size_t)m->n_groups * cells + 1, sizeof *share, "placement shares"));
  HF_GO(done, hf_alloc(&list, (size_t)m->n_experts + 1, sizeof *list, "placement shares"));
  HF_GO(done, hf_alloc(&seen, (size_t)m->n_groups + 1, sizeof *seen, "placement shares"));
  for (int i = 0; i < x->first_set; i++) {
    double z = ilp_lp_share(x->lp, x->column[i]) / m->group[s->set[i].group].n_same;
    double *to = share + (size_t)s->set[i].group * cells;
    for (int e = 0; z > 0 && e < m->n_experts; e++) to[e * m->n_places + s->set[i].place[e]] += z;
  }
  for (int l = 0; l < m->p->table->n_layers; l++) {
    int g = m->group_of[l];
    if (g < 0) continue;
    round_layer(m, share + (size_t)g * cells, seen[g]++, list, placement + (size_t)l * (size_t)m->n_experts);
  }
done:
  free(share);
  free(list);
  free(seen);
  return st;
}

/* Whatever fits, place after place from the last on, the CPU taking the rest. */
static void first_fit(const spread *m, uint8_t *placement) {
  int64_t left[SPREAD_P];
  memcpy(left, m->room, sizeof left);
  for (int l = 0; l < m->p->table->n_layers; l++) {
    if (m->group_of[l] < 0) continue;
    const spread_group *g = &m->group[m->group_of[l]];
    for (int e = 0; e < m->n_experts; e++) {
      int at = 0;
      bool pinned = !(g->open[e] & 1), tight = m->room[0] < INT64_MAX;
      for (int q = 1; q < m->n_places && at == 0 && (pinned || tight); q++)
        if ((g->open[e] >> q & 1) && left[q] >= g->bytes) at = q;
      if (left[at] < INT64_MAX) left[at] -= g->bytes;
      placement[(size_t)l * (size_t)m->n_experts + (size_t)e] = (uint8_t)at;
    }
  }
}

/* ---- the integer program over sets ---- */

/* Sets that may be part of something better than the placement: priced by no more than the gap above their group's best. */
static hf_status survivors(master *x, uint8_t *alive) {
  spread *m = x->m;
  double room = x->s->objective_ns - x->s->bound_ns + 1e-10 * x->s->objective_ns;
  memset(alive, 1, (size_t)x->s->n_sets);
  if (!(x->s->bound_ns > 0)) return HF_OK;
  for (int g = 0; g < m->n_groups; g++) {
    int class;
    double least = spread_price(m, &x->s->best, g, x->best_place, &class);
    for (int i = 0; i < x->s->n_sets; i++)
      if (x->s->set[i].group == g && priced(m, &x->s->best, &x->s->set[i]) > least + room) alive[i] = 0;
  }
  return HF_OK;
}

static hf_status build_integer(master *x, const uint8_t *alive, ilp_lp **out) {
  const spread *m = x->m;
  const spread_solution *s = x->s;
  int n = x->pick_row + m->n_groups; /* resources, path, rooms, one pick per group */
  entries e = {0};
  HF_TRY(ilp_lp_new(n, x->lo, x->hi, out));
  HF_TRY(add_step(x, *out, true));
  for (int i = 0; i < s->n_sets; i++) {
    const spread_set *c = &s->set[i];
    const spread_group *g = &m->group[c->group];
    double cost = m->weight * spread_chunk(m, c) / x->unit_ns, way = spread_way(m, c) / x->unit_ns;
    x->column[i] = -1;
    if (!alive[i]) continue;
    e.n = 0;
    for (int r = 0; r < m->n_rows; r++) {
      double v = 0;
      for (int q = 0; q < m->n_places; q++) v += spread_coef(m, &m->row[r], g, q) * c->load[q];
      put(&e, r, -v / x->unit_ns);
    }
    if (x->path_row >= 0) put(&e, x->path_row, -way);
    else cost += m->step_weight * way;
    if (x->path_row < 0 && x->step_row >= 0) put(&e, x->step_row, way);
    if (x->prompt_row >= 0) put(&e, x->prompt_row, spread_chunk(m, c) / x->unit_ns);
    for (int q = 0; q < m->n_places; q++)
      if (x->room_row[q] >= 0) put(&e, x->room_row[q], (double)c->count[q] * (double)g->bytes / x->unit_bytes);
    put(&e, x->pick_row + c->group, 1);
    HF_TRY(ilp_lp_column(*out, cost, 0, g->n_same, true, e.n, e.row, e.value, &x->column[i]));
  }
  return HF_OK;
}

/* Gives each layer of a group one of the sets chosen. */
static void read_integer(const master *x, const ilp_lp *lp, uint8_t *placement) {
  const spread *m = x->m;
  const spread_solution *s = x->s;
  for (int g = 0; g < m->n_groups; g++) {
    int l = 0;
    for (int i = 0; i < s->n_sets; i++) {
      if (s->set[i].group != g || x->column[i] < 0) continue;
      for (int n = (int)lround(ilp_lp_chosen(lp, x->column[i])); n > 0; n--, l++) {
        while (l < m->p->table->n_layers && m->group_of[l] != g) l++;
        if (l == m->p->table->n_layers) break;
        memcpy(placement + (size_t)l * (size_t)m->n_experts, s->set[i].place, (size_t)m->n_experts);
      }
    }
  }
}

/* One column after another is made whole, the nearest first, and the relaxation solved again: ways and fixed parts of whole
 * sets, where the mean
 * of two sets would pay the fixed parts of both. What cannot be made whole is left as shares. */
static hf_status dive(master *x) {
  const spread *m = x->m;
  const spread_solution *s = x->s;
  uint8_t *fixed = NULL;
  HF_TRY(hf_alloc(&fixed, (size_t)x->first_set + 1, 1, "placement columns"));
  hf_status st = HF_OK;
  for (int step = 0; step < MAX_DIVE && st == HF_OK; step++) {
    int at = -1;
    double best = INFINITY;
    for (int i = 0; i < x->first_set; i++) {
      double z = ilp_lp_share(x->lp, x->column[i]), up = ceil(z - 1e-6) - z;
      if (z < 1e-6 || up < 1e-6 || fixed[i] || !(up < best)) continue;
      best = up;
      at = i;
    }
    if (at < 0) break;
    fixed[at] = 1;
    double z = ilp_lp_share(x->lp, x->column[at]);
    st = ilp_lp_bounds(x->lp, x->column[at], ceil(z - 1e-6), m->group[s->set[at].group].n_same);
    if (st == HF_OK && ilp_lp_solve(x->lp, x->count) != HF_OK) { /* not with all that was made whole before: down instead */
      hf_clear_error();
      st = ilp_lp_bounds(x->lp, x->column[at], 0, floor(z + 1e-6));
      if (st == HF_OK) st = ilp_lp_solve(x->lp, x->count);
    }
  }
  free(fixed);
  return st;
}

/* The best combination of the sets known; whether it is proven the best. */
static hf_status integer_pass(master *x, int max_nodes, double max_work, uint8_t *placement, bool *finished, double *bound) {
  spread_solution *s = x->s;
  uint8_t *alive = NULL;
  ilp_lp *lp = NULL;
  bool found = false;
  hf_status st = HF_OK;
  *finished = false;
  ilp_lp_free(x->lp);
  x->lp = NULL;
  HF_GO(done, hf_alloc(&alive, (size_t)s->n_sets + 1, 1, "placement columns"));
  HF_GO(done, hf_realloc(&x->column, (size_t)s->cap_sets, sizeof *x->column, "placement columns"));
  HF_GO(done, survivors(x, alive));
  HF_GO(done, build_integer(x, alive, &lp));
  HF_GO(done, ilp_lp_solve(lp, x->count));
  HF_GO(done, ilp_lp_integer(lp, NULL, INFINITY, max_nodes, max_work, x->count, finished, &found, bound));
  *bound = *bound * x->unit_ns + (x->m->depth > 1 ? 0 : x->m->step_weight * x->m->path0) + x->m->weight * x->m->chunk0;
  if (found) {
    memcpy(placement, s->placement, (size_t)x->m->p->table->n_layers * (size_t)x->m->n_experts);
    read_integer(x, lp, placement);
  }
done:
  free(alive);
  ilp_lp_free(lp);
  return st;
}

/* ---- the whole ---- */

static hf_status take(master *x, const uint8_t *placement) {
  spread_solution *s = x->s;
  double ns = spread_evaluate(x->m, placement);
  if (!(ns < s->objective_ns)) return HF_OK;
  s->objective_ns = ns;
  memcpy(s->placement, placement, (size_t)x->m->p->table->n_layers * (size_t)x->m->n_experts);
  return HF_OK;
}

/* The integer program has no multipliers: those of its relaxation tell what wider limits are worth. */
static hf_status price_limits(master *x) {
  if (x->step_row < 0 && x->prompt_row < 0) return HF_OK;
  x->first_set = 0;
  HF_TRY(ilp_lp_new(x->n_rows, x->lo, x->hi, &x->lp));
  HF_TRY(add_variables(x));
  HF_TRY(add_columns(x));
  HF_TRY(ilp_lp_solve(x->lp, x->count));
  read_dual(x, &x->now);
  x->s->best.over_step = x->now.over_step;
  x->s->best.over_chunk = x->now.over_chunk;
  return HF_OK;
}

static hf_status solve_all(master *x) {
  spread_solution *s = x->s;
  bool finished;
  double bound;
  uint8_t *placement;
  HF_TRY(spread_all_sets(s));
  HF_TRY(hf_alloc(&placement, (size_t)x->m->p->table->n_layers * (size_t)x->m->n_experts + 1, 1, "placement"));
  hf_status st = integer_pass(x, 20000, 1e8, placement, &finished, &bound);
  if (st == HF_OK) st = take(x, placement);
  if (st == HF_OK && finished) {
    s->milp = s->exact = true;
    s->bound_ns = fmin(s->objective_ns, bound * (1 - 1e-9));
  }
  free(placement);
  return st;
}

static hf_status settle_and_take(master *x, const spread_dual *d, int rounds, uint8_t *placement) {
  double ns;
  HF_TRY(spread_settle(x->m, d, rounds, x->s->bound_ns * (1 + x->good), placement, &ns));
  return take(x, placement);
}

static hf_status improve(master *x, double gap, bool quick, uint8_t *placement) {
  spread_solution *s = x->s;
  HF_TRY(round_shares(x, placement));
  HF_TRY(settle_and_take(x, &s->best, quick ? QUICK_ROUNDS : SETTLE_ROUNDS, placement));
  double enough = s->bound_ns * (1 + fmax(gap, x->good));
  if (s->objective_ns > enough) {
    if (dive(x) == HF_OK) {
      HF_TRY(round_shares(x, placement));
      HF_TRY(settle_and_take(x, &s->best, quick ? QUICK_ROUNDS : SETTLE_ROUNDS, placement));
    }
    hf_clear_error();
  }
  for (int pass = 0; pass < 2 && !quick && (pass == 0 || s->objective_ns > enough); pass++) {
    double before = s->objective_ns, bound;
    bool finished;
    HF_TRY(add_placement(x, s->placement));
    if (integer_pass(x, 200, 2e7, placement, &finished, &bound) != HF_OK) {
      hf_clear_error(); /* the placement at hand stands */
      return HF_OK;
    }
    HF_TRY(settle_and_take(x, &s->best, SETTLE_ROUNDS, placement));
    s->exact = finished && s->objective_ns >= before * (1 - 1e-9);
    if (s->objective_ns >= before * (1 - 1e-6)) break;
  }
  return HF_OK;
}

static hf_status run(master *x, double gap, double stop_bound, bool quick) {
  spread *m = x->m;
  spread_solution *s = x->s;
  size_t cells = (size_t)m->p->table->n_layers * (size_t)m->n_experts;
  double largest = 1;
  for (int g = 0; g < m->n_groups; g++) largest = fmax(largest, (double)m->group[g].bytes);
  x->unit_bytes = largest;
  x->good = m->p->table->n_layers * m->n_experts <= SMALL ? GOOD_GAP_SMALL : GOOD_GAP;
  if (quick) x->good = fmax(x->good, gap);
  HF_TRY(hf_alloc(&s->placement, cells + 1, 1, "placement"));
  HF_TRY(hf_alloc(&x->best_place, (size_t)m->n_groups * (size_t)m->n_experts + (size_t)m->n_experts + 1, 1, "placement"));
  HF_TRY(hf_alloc(&x->trial, (size_t)m->n_experts + 1, 1, "placement"));
  HF_TRY(hf_alloc(&s->whole_price, (size_t)m->n_groups + 1, sizeof *s->whole_price, "placement"));
  HF_TRY(dual_alloc(m, &s->best));
  HF_TRY(dual_alloc(m, &x->now));
  HF_TRY(dual_alloc(m, &x->mixed));
  uint8_t *placement;
  hf_status st = hf_alloc(&placement, cells + 1, 1, "placement");
  if (st != HF_OK) return st;
  first_fit(m, placement);
  s->objective_ns = spread_evaluate(m, placement);
  memcpy(s->placement, placement, cells);
  double plain = spread_plain(m, placement);
  x->unit_ns = isfinite(plain) && plain > 0 ? plain / 1000 : 1e6;
  HF_GO(done, lay_out(x));
  if (m->n_groups == 0 || m->n_places == 1) { /* one placement only */
    s->bound_ns = s->objective_ns;
    s->milp = s->exact = true;
    goto done;
  }
  if (!quick && spread_few_sets(m)) {
    if (solve_all(x) == HF_OK && s->milp) {
      if (price_limits(x) != HF_OK) hf_clear_error(); /* the answer is proven without */
      goto done;
    }
    hf_clear_error();
  }
  HF_GO(done, add_placement(x, placement));
  HF_GO(done, start(x));
  HF_GO(done, relax(x, gap, stop_bound));
  if (s->bound_ns >= stop_bound) {
    HF_GO(done, round_shares(x, placement));
    HF_GO(done, settle_and_take(x, &s->best, 1, placement));
  } else {
    HF_GO(done, improve(x, gap, quick, placement));
  }
  HF_GO(done, add_placement(x, s->placement));
  for (int g = 0; g < m->n_groups; g++) {
    int class;
    if (m->group[g].whole) s->whole_price[g] = spread_price(m, &s->best, g, x->best_place, &class);
  }
done:
  s->bound_ns = fmin(s->bound_ns, s->objective_ns);
  free(placement);
  return st;
}

hf_status spread_solve(const ilp_problem *p, int depth, const spread_goal *goal, double gap, double stop_bound, bool quick,
                       ilp_counters *count, spread_solution **out) {
  spread_solution *s;
  HF_TRY(hf_alloc(&s, 1, sizeof *s, "placement"));
  s->objective_ns = INFINITY;
  master x = {.s = s, .count = count};
  hf_status st = spread_new(p, depth, goal, count, &s->m);
  x.m = s->m;
  if (st == HF_OK) st = run(&x, gap, stop_bound, quick);
  ilp_lp_free(x.lp);
  free(x.column);
  free(x.part_row);
  free(x.chunk_row);
  free(x.lo);
  free(x.hi);
  free(x.best_place);
  free(x.trial);
  free(x.pick);
  free(x.nu);
  free(x.rho);
  dual_free(&x.now);
  dual_free(&x.mixed);
  if (st != HF_OK) spread_solution_free(s);
  else *out = s;
  return st;
}
