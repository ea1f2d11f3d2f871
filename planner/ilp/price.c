/* price.c: for given multipliers the best set of a group, exactly: every expert goes where it is cheapest among the places in
 * use; which
 * places are in use is tried out, since each costs something fixed.
 *
 * A place whose closing would cost more than its fixed part while all others are open stays open in a best solution, since
 * closing
 * others only makes it dearer; the rest is tried in all combinations. */
#include "planner/ilp/spread.h"

#include <math.h>
#include <string.h>

/* Weight of the sums behind the parts: contention couples the home device's with the CPU's. */
static void weights_of(const spread *m, const spread_group *g, const spread_term *t, const double *nu, double *w) {
  for (int q = 0; q < m->n_places; q++) w[q] = nu[q];
  if (t->kappa > 0 && g->home > 0) {
    w[0] = nu[0] + t->kappa * nu[g->home];
    w[g->home] = nu[g->home] + t->kappa * nu[0];
  }
}

/* spared: bit q: the fixed part of place q is left out. */
static void add_term(const spread *m, const spread_group *g, const spread_term *t, const double *nu, unsigned spared,
                     spread_prices *x) {
  double w[SPREAD_P];
  int P = m->n_places;
  bool any = false;
  weights_of(m, g, t, nu, w);
  for (int q = 0; q < P; q++) {
    x->constant += nu[q] * t->lead[q] + w[q] * t->base[q];
    if (!(spared >> q & 1)) x->fixed[q] += w[q] * t->fixed[q];
    any = any || w[q] > 0;
  }
  for (int i = 0; any && i < m->n_experts; i++)
    for (int q = 0; q < P; q++) x->cost[i * P + q] += w[q] * t->t[i * P + q];
  for (int i = 0; t->cross != NULL && i < m->n_experts; i++) x->cost[i * P] += w[g->home] * t->cross[i];
}

static void add_rows(const spread *m, const spread_dual *d, const spread_group *g, spread_prices *x) {
  int P = m->n_places;
  for (int q = 0; q < P; q++) {
    double w = 0;
    for (int r = 0; r < m->n_rows; r++) w += d->lam[r] * spread_coef(m, &m->row[r], g, q);
    if (!(w > 0)) continue;
    x->fixed[q] += w * g->work_fixed[q];
    for (int e = 0; e < m->n_experts; e++) x->cost[e * P + q] += w * g->work[e * P + q];
  }
}

/* The cheapest way to get an expert into the empty place q: from one that can spare its own, perhaps over others that pass one
 * on. Of all assignments with these places filled what results is the cheapest (successive shortest paths). */
static double fill_place(const spread_prices *x, unsigned use, int q, int *count, uint8_t *place) {
  double w[SPREAD_P][SPREAD_P] = {0}, far[SPREAD_P] = {0};
  int who[SPREAD_P][SPREAD_P] = {0}, from[SPREAD_P] = {0};
  for (int p = 0; p < x->P; p++) {
    far[p] = count[p] > (int)(x->must >> p & 1) ? 0 : INFINITY;
    from[p] = -1;
    for (int r = 0; r < x->P; r++) w[p][r] = INFINITY;
  }
  for (int e = 0; e < x->E; e++) {
    const double *c = x->cost + (size_t)e * (size_t)x->P;
    int p = place[e];
    for (int r = 0; r < x->P; r++) {
      if (r == p || !((use & x->open[e]) >> r & 1) || !(c[r] - c[p] < w[p][r])) continue;
      w[p][r] = c[r] - c[p];
      who[p][r] = e;
    }
  }
  for (int round = 0; round < x->P; round++)
    for (int p = 0; p < x->P; p++)
      for (int r = 0; r < x->P; r++) {
        if (r == p || !(far[p] + w[p][r] < far[r])) continue;
        far[r] = far[p] + w[p][r];
        from[r] = p;
      }
  if (!isfinite(far[q])) return INFINITY;
  int r = q;
  for (int step = 0; from[r] >= 0 && step < x->P; step++) {
    place[who[from[r]][r]] = (uint8_t)r;
    r = from[r];
  }
  count[q]++;
  count[r]--;
  return far[q];
}

static double fill_places(const spread_prices *x, unsigned use, unsigned empty, uint8_t *place) {
  int count[SPREAD_P] = {0};
  double sum = 0;
  for (int e = 0; e < x->E; e++) count[place[e]]++;
  for (int q = 0; q < x->P; q++)
    if (empty >> q & 1 && isfinite(sum)) sum += fill_place(x, use, q, count, place);
  return sum;
}

/* Cheapest assignment to the places of `use`; INFINITY when an expert may live in none. Stops when it exceeds enough. */
static double assign(const spread_prices *x, unsigned use, double enough, uint8_t *to) {
  static _Thread_local uint8_t place[ILP_MAX_EXPERTS];
  double sum = 0;
  unsigned used = 0;
  for (int q = 0; q < x->P; q++)
    if (use >> q & 1) sum += x->fixed[q];
  for (int e = 0; e < x->E; e++) {
    unsigned may = use & x->open[e];
    const double *c = x->cost + (size_t)e * (size_t)x->P;
    double least = INFINITY;
    int at = 0;
    for (int q = 0; q < x->P; q++) {
      if (!(may >> q & 1) || !(c[q] < least)) continue;
      least = c[q];
      at = q;
    }
    place[e] = (uint8_t)at;
    used |= 1u << at;
    sum += least;
    if (sum > enough) return INFINITY;
  }
  if ((x->must & ~used) != 0 && isfinite(sum)) sum += fill_places(x, use, x->must & ~used, place);
  if (to != NULL) memcpy(to, place, (size_t)x->E);
  return sum;
}

/* Places without which everything gets dearer by more than their fixed part. */
static unsigned needed(const spread_prices *x) {
  double loss[SPREAD_P] = {0};
  for (int e = 0; e < x->E; e++) {
    const double *c = x->cost + (size_t)e * (size_t)x->P;
    double least = INFINITY, second = INFINITY;
    int at = 0;
    for (int q = 0; q < x->P; q++) {
      if (!((x->open[e] & x->use) >> q & 1)) continue;
      if (c[q] < least) {
        second = least;
        least = c[q];
        at = q;
      } else if (c[q] < second) {
        second = c[q];
      }
    }
    loss[at] += second - least;
  }
  unsigned use = 0;
  for (int q = 0; q < x->P; q++)
    if (loss[q] >= x->fixed[q]) use |= 1u << q;
  return use & x->use;
}

static double best_assignment(const spread_prices *x, uint8_t *place) {
  unsigned all = x->use, base = needed(x), rest = all & ~base, best_use = all;
  double best = assign(x, all, INFINITY, NULL);
  for (unsigned sub = rest;; sub = (sub - 1) & rest) { /* all subsets of the rest */
    unsigned use = base | sub;
    double v = use == 0 ? INFINITY : assign(x, use, best, NULL);
    if (v < best) {
      best = v;
      best_use = use;
    }
    if (sub == 0) break;
  }
  (void)assign(x, best_use, INFINITY, place);
  return best;
}

/* ---- layers whose experts are all alike ---- */

/* Counts decide: for every value that the largest part may take, each place holds so many experts at most, and the cheapest
 * are filled
 * first. Exact for the true largest part instead of its weighted mean, which for few and slow experts is worth a lot. */
typedef struct {
  int E, P;
  double path;                                          /* what the way counts */
  double part0[SPREAD_P], fixed[SPREAD_P], t[SPREAD_P]; /* of the way */
  double price[SPREAD_P];                               /* of an expert's bytes */
  int order[SPREAD_P];                                  /* places by price */
} counts;

/* Least cost with every part at most v; n receives the counts. */
static double fill_counts(const counts *c, double v, int *n) {
  double sum = c->path * v;
  int left = c->E;
  for (int i = 0; i < c->P; i++) {
    int q = c->order[i];
    double room = v * (1 + 1e-15) - c->part0[q] - c->fixed[q];
    int fit = c->t[q] > 0 ? (room >= 0 ? (int)fmin(c->E, floor(room / c->t[q] + 1e-9)) : 0) : room >= 0 ? c->E : 0;
    n[q] = fit < left ? fit : left;
    left -= n[q];
    sum += n[q] * c->price[q];
  }
  return left > 0 ? INFINITY : sum;
}

static void counts_of(const spread *m, const spread_dual *d, const spread_group *g, counts *c) {
  int n = 0;
  *c = (counts){.E = m->n_experts, .P = m->n_places, .path = d->lam_path};
  for (int q = 0; q < c->P; q++) {
    c->part0[q] = g->way.lead[q] + g->way.base[q];
    c->fixed[q] = g->way.fixed[q];
    c->t[q] = g->open[0] >> q & 1 ? g->way.t[q] : INFINITY;
    c->price[q] = d->theta[q] * (double)g->bytes;
    int at = n++;
    while (at > 0 && c->price[c->order[at - 1]] > c->price[q]) {
      c->order[at] = c->order[at - 1];
      at--;
    }
    c->order[at] = q;
  }
}

static double price_counts(const counts *c, uint8_t *place) {
  double best = INFINITY, empty = 0;
  int n[SPREAD_P], keep[SPREAD_P] = {0};
  for (int q = 0; q < c->P; q++) empty = fmax(empty, c->part0[q]);
  for (int q = 0; q < c->P; q++)
    for (int k = 0; k <= c->E && isfinite(c->t[q]); k++) {
      double v = fmax(empty, c->part0[q] + (k > 0 ? c->fixed[q] + k * c->t[q] : 0));
      double sum = fill_counts(c, v, n);
      if (!(sum < best)) continue;
      best = sum;
      memcpy(keep, n, sizeof keep);
    }
  int e = 0;
  for (int q = 0; q < c->P; q++)
    for (int i = 0; i < keep[q]; i++) place[e++] = (uint8_t)q;
  return best;
}

/* ---- both ---- */

static void clear_prices(const spread *m, const spread_dual *d, const spread_group *g, spread_prices *x) {
  x->E = m->n_experts;
  x->P = m->n_places;
  x->use = (1u << x->P) - 1;
  x->must = 0;
  x->open = g->open;
  x->constant = 0;
  memset(x->fixed, 0, sizeof x->fixed);
  for (int e = 0; e < x->E; e++)
    for (int q = 0; q < x->P; q++) x->cost[e * x->P + q] = d->theta[q] * (double)g->bytes;
}

/* Upload: an expert of the CPU uses the home device too, so that either may have paid that part. */
static void fill_prices(const spread *m, const spread_dual *d, int group, int class, spread_prices *x) {
  const spread_group *g = &m->group[group];
  const spread_class *k = &g->class[class];
  const double *nu = d->nu + spread_at(m, group, class), *rho = d->rho + spread_at(m, group, class);
  unsigned home = 1u << g->home;
  clear_prices(m, d, g, x);
  x->use &= ~(unsigned)k->never;
  x->must = k->must;
  add_term(m, g, &g->way, nu, 0, x);
  if (m->chunks) add_term(m, g, k->upload ? &g->upload : &g->chunk, rho, k->upload ? home : 0, x);
  if (m->chunks && k->upload && (k->must & (home | 1)) != 0) x->constant += rho[g->home] * g->upload.fixed[g->home];
  if (m->n_rows > 0) add_rows(m, d, g, x);
  for (int q = 0; q < x->P; q++) {
    if (!(k->must >> q & 1)) continue;
    x->constant += x->fixed[q];
    x->fixed[q] = 0;
  }
}

/* ---- two places: the best weights of the two parts, for a choice of places in use ---- */

static const unsigned nested_use[3] = {3, 1, 2};

typedef struct {
  double nu, value, part[2], way_cost; /* at weight nu of part 0: least value, the parts of its set; its true cost */
  uint8_t place[ILP_MAX_EXPERTS];
} probe;

static void probe_at(const spread *m, const spread_dual *d, int group, unsigned use, double nu, spread_prices *x, probe *r) {
  const spread_group *g = &m->group[group];
  double w[SPREAD_P] = {nu, d->lam_path - nu};
  clear_prices(m, d, g, x);
  add_term(m, g, &g->way, w, 0, x);
  add_rows(m, d, g, x);
  for (int q = 0; q < 2; q++)
    if (use >> q & 1) x->constant += x->fixed[q];
  memset(x->fixed, 0, sizeof x->fixed);
  x->use = use;
  r->nu = nu;
  r->value = x->constant + assign(x, use, INFINITY, r->place);
  if (!isfinite(r->value)) return;
  spread_set s = {.group = group, .place = r->place};
  spread_value(m, &s);
  for (int q = 0; q < 2; q++) r->part[q] = s.part[q];
  r->way_cost = r->value - nu * s.part[0] - (d->lam_path - nu) * s.part[1] + d->lam_path * fmax(s.part[0], s.part[1]);
}

/* Between the sets of two neighbouring weights, expert by expert: where many tie neither end may be any good. */
static void walk_between(const spread *m, const spread_dual *d, int group, const spread_prices *x, double nu, const probe *from,
                         const probe *to, probe *best) {
  const spread_group *g = &m->group[group];
  double w[SPREAD_P], split[SPREAD_P] = {nu, d->lam_path - nu}, kappa = g->way.kappa;
  static _Thread_local probe r;
  r = *from;
  weights_of(m, g, &g->way, split, w);
  double linear = from->way_cost - d->lam_path * fmax(from->part[0], from->part[1]); /* rows and bytes */
  for (int e = 0; e < m->n_experts; e++) {
    int p = r.place[e], q = to->place[e];
    if (p == q) continue;
    const double *t = g->way.t + 2 * e, *c = x->cost + 2 * e;
    r.place[e] = (uint8_t)q;
    linear += (c[q] - w[q] * t[q]) - (c[p] - w[p] * t[p]);
    r.part[q] += t[q] - kappa * t[p];
    r.part[p] += kappa * t[q] - t[p];
    r.way_cost = linear + d->lam_path * fmax(r.part[0], r.part[1]);
    if (r.way_cost < best->way_cost * (1 - 1e-12)) *best = r;
  }
}

/* Concave in the weight: lines of the two ends are cut until nothing lies above. The last table stays in x. */
static double probe_use(const spread *m, const spread_dual *d, int group, unsigned use, spread_prices *x, probe *best) {
  enum { CUTS = 24 };
  static _Thread_local probe a, b, c;
  probe_at(m, d, group, use, 0, x, &a);
  *best = a;
  if (!isfinite(a.value) || a.part[0] <= a.part[1]) return a.value;
  probe_at(m, d, group, use, d->lam_path, x, &b);
  *best = b;
  if (b.part[0] >= b.part[1]) return b.value;
  double value = fmax(a.value, b.value), at = a.value > b.value ? a.nu : b.nu, x_nu = b.nu;
  *best = a.way_cost < b.way_cost ? a : b;
  for (int i = 0; i < CUTS; i++) {
    double sa = a.part[0] - a.part[1], sb = b.part[0] - b.part[1]; /* slopes, > 0 and < 0 */
    double nu = (b.value - a.value + sa * a.nu - sb * b.nu) / (sa - sb);
    if (!(nu > a.nu && nu < b.nu)) break;
    probe_at(m, d, group, use, nu, x, &c);
    x_nu = nu;
    if (c.way_cost < best->way_cost) *best = c;
    double top = a.value + sa * (nu - a.nu);
    if (c.value > value) {
      value = c.value;
      at = nu;
    }
    if (c.value >= top * (1 - 1e-12)) break;
    if (c.part[0] > c.part[1]) a = c;
    else b = c;
  }
  if (at != x_nu) probe_at(m, d, group, use, at, x, &c);
  walk_between(m, d, group, x, at, &a, &b, best);
  return value;
}

static double price_nested(const spread *m, const spread_dual *d, int group, spread_prices *x, uint8_t *place) {
  static _Thread_local probe p;
  double least = INFINITY, cost = INFINITY;
  for (int i = 0; i < 3; i++) {
    double v = probe_use(m, d, group, nested_use[i], x, &p);
    if (v < least) least = v;
    if (!isfinite(v) || !(p.way_cost < cost)) continue;
    cost = p.way_cost;
    memcpy(place, p.place, (size_t)m->n_experts);
  }
  return least;
}

/* ---- all kinds ---- */

int spread_modes(const spread *m, int group) {
  const spread_group *g = &m->group[group];
  return g->whole ? 0 : g->nested ? 3 : g->n_classes;
}

static spread_prices *table_of_thread(void) {
  static _Thread_local spread_prices x;
  return &x;
}

const spread_prices *spread_prices_of(const spread *m, const spread_dual *d, int group, int mode) {
  static _Thread_local probe p;
  const spread_group *g = &m->group[group];
  spread_prices *x = table_of_thread();
  if (g->nested) (void)probe_use(m, d, group, nested_use[mode], x, &p);
  else fill_prices(m, d, group, mode, x);
  return x;
}

double spread_price_class(const spread *m, const spread_dual *d, int group, int class, uint8_t *place) {
  const spread_group *g = &m->group[group];
  m->count->priced++;
  if (g->whole) {
    counts c;
    counts_of(m, d, g, &c);
    return price_counts(&c, place);
  }
  if (g->nested) return price_nested(m, d, group, table_of_thread(), place);
  spread_prices *x = table_of_thread();
  fill_prices(m, d, group, class, x);
  return x->constant + best_assignment(x, place);
}

double spread_price(const spread *m, const spread_dual *d, int group, uint8_t *place, int *class) {
  static _Thread_local uint8_t trial[ILP_MAX_EXPERTS];
  double best = spread_price_class(m, d, group, 0, place);
  *class = 0;
  for (int k = 1; k < m->group[group].n_classes; k++) {
    double v = spread_price_class(m, d, group, k, trial);
    if (!(v < best)) continue;
    best = v;
    *class = k;
    memcpy(place, trial, (size_t)m->n_experts);
  }
  return best;
}

double spread_constant(const spread *m, const spread_dual *d) {
  double sum = d->lam_path * m->path0 + d->chunk * m->chunk0;
  if (isfinite(m->limit_step)) sum -= d->over_step * m->limit_step;
  if (isfinite(m->limit_chunk)) sum -= d->over_chunk * m->limit_chunk;
  for (int r = 0; r < m->n_rows; r++) sum += d->lam[r] * m->row0[r];
  for (int q = 0; q < m->n_places; q++)
    if (m->room[q] < INT64_MAX) sum -= d->theta[q] * (double)m->room[q];
  return sum;
}
