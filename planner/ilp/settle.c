/* settle.c: makes a placement fit, fills what is left, and improves it by moves and exchanges of experts. Multipliers say
 * where to look, exact
 * values decide. */
#include "planner/ilp/spread.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double LEAST = 1e-10; /* share of the objective that a move must gain */
enum { EXCHANGES = 6, PER_PASS = 64, MOST_SWAPPED = 512, VACATED = 24, MOST_MOVES = 6000000 };

/* Sums over the experts in each place, fixed parts not in them. */
typedef struct {
  const spread_group *g;
  int group;
  uint8_t *place; /* [E] */
  int count[SPREAD_P];
  double way[SPREAD_P], chunk[SPREAD_P], up[SPREAD_P], work[SPREAD_P];
  double way_ns, chunk_ns, load[SPREAD_P];
} layer_state;

typedef struct {
  int layer, expert, to;
  double value;
} move;

typedef struct {
  const spread *m;
  layer_state *lay; /* [n] MoE layers */
  int n;
  move *
      best; /* [n][P][P] best move from a place to another; estimates depend on their layer alone, so they hold until it changes */
  bool *known; /* [n][P][P] of those: looked for since then */
  move *out;   /* [n] while a place is emptied: the cheapest way out of each layer */
  bool *sure;  /* [n] of those */
  int64_t used[SPREAD_P];
  double row[SPREAD_MAX_ROWS], way, chunk, objective;
  double *regret;  /* [groups * E * P] priced without bytes */
  double *opening; /* [groups * P] priced fixed part of using a place */
  uint8_t *saved;  /* [n * E] */
  uint8_t *placement;
  const spread_dual *d;
  int64_t last_move; /* of the counter: the effort of one call is limited */
} settling;

/* ---- values ---- */

static double term_ns(const spread *m, const layer_state *y, const spread_term *t, const double *sum) {
  double raw[SPREAD_P], most = 0;
  int home = y->g->home;
  bool home_used = y->count[home] > 0 || (t->cross != NULL && y->count[0] > 0);
  for (int q = 0; q < m->n_places; q++)
    raw[q] = t->base[q] + sum[q] + ((q == home ? home_used : y->count[q] > 0) ? t->fixed[q] : 0);
  for (int q = 0; q < m->n_places; q++) {
    double other = t->kappa > 0 && home > 0 ? (q == 0 ? t->kappa * raw[home] : q == home ? t->kappa * raw[0] : 0) : 0;
    double v = t->lead[q] + raw[q] + other;
    most = v > most ? v : most;
  }
  return most;
}

static void value_layer(const spread *m, layer_state *y) {
  y->way_ns = term_ns(m, y, &y->g->way, y->way);
  if (m->chunks) {
    y->chunk_ns = term_ns(m, y, &y->g->chunk, y->chunk);
    if (y->g->upload.t != NULL) y->chunk_ns = fmin(y->chunk_ns, term_ns(m, y, &y->g->upload, y->up));
  }
  for (int q = 0; q < m->n_places && m->depth > 1; q++) y->load[q] = y->work[q] + (y->count[q] > 0 ? y->g->work_fixed[q] : 0);
}

/* Expert e goes from its place to q: sums and value of the layer alone. */
static void change(const spread *m, layer_state *y, int e, int q) {
  int p = y->place[e], P = m->n_places;
  const spread_group *g = y->g;
  const double *w = g->way.t + (size_t)e * (size_t)P;
  y->way[p] -= w[p];
  y->way[q] += w[q];
  if (m->depth > 1) {
    const double *x = g->work + (size_t)e * (size_t)P;
    y->work[p] -= x[p];
    y->work[q] += x[q];
  }
  if (m->chunks) {
    const double *x = g->chunk.t + (size_t)e * (size_t)P;
    y->chunk[p] -= x[p];
    y->chunk[q] += x[q];
    if (g->upload.t != NULL) {
      const double *u = g->upload.t + (size_t)e * (size_t)P;
      y->up[p] -= u[p];
      y->up[q] += u[q];
      if (p == 0) y->up[g->home] -= g->upload.cross[e];
      if (q == 0) y->up[g->home] += g->upload.cross[e];
    }
  }
  y->count[p]--;
  y->count[q]++;
}

/* Objective with y in the place of layer i. */
static double with_layer(settling *s, int i, const layer_state *y, double *row) {
  const spread *m = s->m;
  const layer_state *old = &s->lay[i];
  for (int r = 0; r < m->n_rows; r++) {
    row[r] = s->row[r];
    for (int q = 0; q < m->n_places; q++)
      if (y->load[q] != old->load[q]) row[r] += spread_coef(m, &m->row[r], y->g, q) * (y->load[q] - old->load[q]);
  }
  return spread_total(m, row, s->way + y->way_ns - old->way_ns, s->chunk + y->chunk_ns - old->chunk_ns);
}

static bool has_room(const settling *s, int i, int q) {
  const spread *m = s->m;
  return m->room[q] == INT64_MAX || s->used[q] + s->lay[i].g->bytes <= m->room[q];
}

static double try_move(settling *s, int i, int e, int q) {
  layer_state y = s->lay[i];
  double row[SPREAD_MAX_ROWS];
  change(s->m, &y, e, q);
  value_layer(s->m, &y);
  s->m->count->moves++;
  return with_layer(s, i, &y, row);
}

static void forget_moves(settling *s, int i) {
  size_t n = (size_t)s->m->n_places * (size_t)s->m->n_places;
  memset(s->known + (size_t)i * n, 0, n * sizeof *s->known);
}

static void do_move(settling *s, int i, int e, int q) {
  layer_state *y = &s->lay[i], old = *y;
  int p = y->place[e];
  change(s->m, y, e, q);
  value_layer(s->m, y);
  y->place[e] = (uint8_t)q;
  for (int r = 0; r < s->m->n_rows; r++)
    for (int x = 0; x < s->m->n_places; x++) s->row[r] += spread_coef(s->m, &s->m->row[r], y->g, x) * (y->load[x] - old.load[x]);
  s->way += y->way_ns - old.way_ns;
  s->chunk += y->chunk_ns - old.chunk_ns;
  s->used[p] -= y->g->bytes;
  s->used[q] += y->g->bytes;
  s->objective = spread_total(s->m, s->row, s->way, s->chunk);
  forget_moves(s, i);
}

/* ---- start ---- */

/* At the weights of the cheapest class. `saved` is scratch here. */
static void price_experts(settling *s) {
  const spread *m = s->m;
  int P = m->n_places;
  for (int g = 0; g < m->n_groups; g++) {
    const spread_group *y = &m->group[g];
    int class = 0;
    if (y->n_classes > 1) (void)spread_price(m, s->d, g, s->saved, &class);
    const double *nu = s->d->nu + spread_at(m, g, class), *rho = s->d->rho + spread_at(m, g, class);
    double *to = s->regret + (size_t)g * (size_t)(m->n_experts * P), *open = s->opening + (size_t)g * (size_t)P,
           w[SPREAD_P] = {0};
    for (int q = 0; q < P; q++)
      for (int r = 0; r < m->n_rows; r++) w[q] += s->d->lam[r] * spread_coef(m, &m->row[r], y, q);
    for (int x = 0; x < m->n_experts * P; x++) {
      to[x] = (y->whole ? 1.0 / P : nu[x % P]) * y->way.t[x];
      if (m->chunks) to[x] += rho[x % P] * y->chunk.t[x];
      if (m->n_rows > 0) to[x] += w[x % P] * y->work[x];
    }
    for (int q = 0; q < P; q++) {
      open[q] = (y->whole ? 1.0 / P : nu[q]) * y->way.fixed[q] + w[q] * y->work_fixed[q];
      if (m->chunks) open[q] += rho[q] * y->chunk.fixed[q];
    }
  }
}

static hf_status get_memory(settling *s, uint8_t *placement) {
  const spread *m = s->m;
  size_t L = (size_t)m->p->table->n_layers, E = (size_t)m->n_experts, P = (size_t)m->n_places, G = (size_t)m->n_groups;
  s->placement = placement;
  HF_TRY(hf_alloc(&s->lay, L + 1, sizeof *s->lay, "placement"));
  HF_TRY(hf_alloc(&s->regret, G * E * P + 1, sizeof *s->regret, "placement"));
  HF_TRY(hf_alloc(&s->opening, G * P + 1, sizeof *s->opening, "placement"));
  HF_TRY(hf_alloc(&s->best, L * P * P + 1, sizeof *s->best, "placement"));
  HF_TRY(hf_alloc(&s->known, L * P * P + 1, sizeof *s->known, "placement"));
  HF_TRY(hf_alloc(&s->out, L + 1, sizeof *s->out, "placement"));
  HF_TRY(hf_alloc(&s->sure, L + 1, sizeof *s->sure, "placement"));
  return hf_alloc(&s->saved, L * E + 1, 1, "placement");
}

/* All sums anew from the placement. */
static void open_layers(settling *s) {
  const spread *m = s->m;
  s->n = 0;
  s->way = s->chunk = 0;
  memset(s->used, 0, sizeof s->used);
  memset(s->row, 0, sizeof s->row);
  for (int l = 0; l < m->p->table->n_layers; l++) {
    if (m->group_of[l] < 0) continue;
    layer_state *y = &s->lay[s->n++];
    *y = (layer_state){
        .g = &m->group[m->group_of[l]], .group = m->group_of[l], .place = s->placement + (size_t)l * (size_t)m->n_experts};
    for (int e = 0; e < m->n_experts; e++) {
      int q = y->place[e];
      size_t at = (size_t)e * (size_t)m->n_places + (size_t)q;
      y->count[q]++;
      y->way[q] += y->g->way.t[at];
      if (m->depth > 1) y->work[q] += y->g->work[at];
      if (m->chunks) y->chunk[q] += y->g->chunk.t[at];
      if (y->g->upload.t != NULL) {
        y->up[q] += y->g->upload.t[at];
        if (q == 0) y->up[y->g->home] += y->g->upload.cross[e];
      }
      s->used[q] += y->g->bytes;
    }
    value_layer(m, y);
    forget_moves(s, s->n - 1);
    s->way += y->way_ns;
    s->chunk += y->chunk_ns;
    for (int r = 0; r < m->n_rows; r++)
      for (int q = 0; q < m->n_places; q++) s->row[r] += spread_coef(m, &m->row[r], y->g, q) * y->load[q];
  }
  s->objective = spread_total(m, s->row, s->way, s->chunk);
}

/* ---- making it fit ---- */

/* The cheapest way out of place p in layer i, by price per byte; its layer is -1 where there is none. */
static move way_out(const settling *s, int i, int p) {
  const spread *m = s->m;
  const layer_state *y = &s->lay[i];
  const double *price = s->regret + (size_t)y->group * (size_t)(m->n_experts * m->n_places);
  const double *opening = s->opening + (size_t)y->group * (size_t)m->n_places;
  move best = {.layer = -1, .value = INFINITY};
  for (int e = 0; y->count[p] > 0 && e < m->n_experts; e++) {
    if (y->place[e] != p) continue;
    for (int q = 0; q < m->n_places; q++) {
      if (q == p || !(y->g->open[e] >> q & 1) || !has_room(s, i, q)) continue;
      double more = price[e * m->n_places + q] - price[e * m->n_places + p] + (y->count[q] == 0 ? opening[q] : 0);
      double v = more / (double)y->g->bytes + s->d->theta[q];
      if (v < best.value) best = (move){i, e, q, v};
    }
  }
  return best;
}

/* Empties place p until it holds no more than it has room for; layer `except` is left alone. Other places only fill up meanwhile, so the way out of
 * a layer stays the cheapest until the layer changes or the place it leads to is full. */
static bool empty_place(settling *s, int p, int except) {
  memset(s->sure, 0, (size_t)s->n * sizeof *s->sure);
  while (s->used[p] > s->m->room[p]) {
    int at = -1;
    for (int i = 0; i < s->n; i++) {
      if (i == except) continue;
      if (!s->sure[i] || (s->out[i].layer >= 0 && !has_room(s, i, s->out[i].to))) s->out[i] = way_out(s, i, p);
      s->sure[i] = true;
      if (s->out[i].layer >= 0 && (at < 0 || s->out[i].value < s->out[at].value)) at = i;
    }
    if (at < 0) return false;
    s->sure[at] = false;
    do_move(s, at, s->out[at].expert, s->out[at].to);
  }
  return true;
}

static bool fit(settling *s, int except) {
  for (int p = 0; p < s->m->n_places; p++)
    if (s->m->room[p] < INT64_MAX && !empty_place(s, p, except)) return false;
  return true;
}

/* ---- making it better ---- */

static bool tired(const settling *s) {
  return s->m->count->moves > s->last_move;
}

/* Every expert alone, wherever there is room. */
static bool move_pass(settling *s) {
  const spread *m = s->m;
  double before = s->objective;
  for (int i = 0; i < s->n && !tired(s); i++)
    for (int e = 0; e < m->n_experts; e++) {
      const layer_state *y = &s->lay[i];
      double least = s->objective * (1 - LEAST);
      int to = -1;
      for (int q = 0; q < m->n_places; q++) {
        if (q == y->place[e] || !(y->g->open[e] >> q & 1) || !has_room(s, i, q)) continue;
        double v = try_move(s, i, e, q);
        if (v < least) {
          least = v;
          to = q;
        }
      }
      if (to >= 0) do_move(s, i, e, to);
    }
  return s->objective < before * (1 - LEAST);
}

/* Linear estimate of a move, for ranking: exact in one layer's way, priced in the rows. */
static double estimate(settling *s, int i, int e, int q) {
  const spread *m = s->m;
  layer_state y = s->lay[i];
  double v = 0;
  change(m, &y, e, q);
  value_layer(m, &y);
  v += s->d->lam_path * (y.way_ns - s->lay[i].way_ns) + s->d->chunk * (y.chunk_ns - s->lay[i].chunk_ns);
  for (int r = 0; r < m->n_rows; r++)
    for (int x = 0; x < m->n_places; x++)
      if (s->d->lam[r] > 0) v += s->d->lam[r] * spread_coef(m, &m->row[r], y.g, x) * (y.load[x] - s->lay[i].load[x]);
  m->count->moves++;
  return v;
}

static void keep_best(move *list, int *n, move x) {
  if (*n == EXCHANGES && !(x.value < list[EXCHANGES - 1].value)) return;
  int at = *n < EXCHANGES ? (*n)++ : EXCHANGES - 1;
  while (at > 0 && list[at - 1].value > x.value) {
    list[at] = list[at - 1];
    at--;
  }
  list[at] = x;
}

/* The best move p -> q of layer i; its layer is -1 where there is none. */
static move best_move(settling *s, int i, int p, int q) {
  const spread *m = s->m;
  const layer_state *y = &s->lay[i];
  size_t at = ((size_t)i * (size_t)m->n_places + (size_t)p) * (size_t)m->n_places + (size_t)q;
  if (s->known[at]) return s->best[at];
  move best = {.layer = -1, .value = INFINITY};
  for (int e = 0; y->count[p] > 0 && e < m->n_experts; e++) {
    if (y->place[e] != p || !(y->g->open[e] >> q & 1)) continue;
    double v = estimate(s, i, e, q);
    if (v < best.value) best = (move){i, e, q, v};
  }
  s->known[at] = true;
  return s->best[at] = best;
}

/* The best moves p -> q, at most one for each layer and both directions alike for all layers. */
static int best_moves(settling *s, int p, int q, move *list) {
  int n = 0;
  for (int i = 0; i < s->n; i++) {
    move best = best_move(s, i, p, q);
    if (best.layer >= 0) keep_best(list, &n, best);
  }
  return n;
}

static bool exchange(settling *s, const move *a, const move *b) {
  int p = s->lay[a->layer].place[a->expert];
  double before = s->objective;
  if (a->layer == b->layer && a->expert == b->expert) return false;
  do_move(s, a->layer, a->expert, a->to);
  do_move(s, b->layer, b->expert, b->to);
  bool fits = true;
  for (int q = 0; q < s->m->n_places; q++) fits = fits && (s->m->room[q] == INT64_MAX || s->used[q] <= s->m->room[q]);
  if (fits && s->objective < before * (1 - LEAST)) return true;
  do_move(s, b->layer, b->expert, a->to); /* b came from where a went */
  do_move(s, a->layer, a->expert, p);
  return false;
}

/* Exchanges between layers for every pair of places, until none helps. */
static bool exchange_pass(settling *s, int most) {
  const spread *m = s->m;
  bool any = false;
  for (int p = 0; p < m->n_places; p++)
    for (int q = p + 1; q < m->n_places; q++)
      for (int step = 0; step < most && !tired(s); step++) {
        move out[EXCHANGES], in[EXCHANGES];
        int n = best_moves(s, p, q, out), k = best_moves(s, q, p, in);
        bool done = false;
        for (int i = 0; i < n && !done; i++)
          for (int j = 0; j < k && !done; j++)
            if (out[i].value + in[j].value < 0) done = exchange(s, &out[i], &in[j]);
        any = any || done;
        if (!done) break;
      }
  return any;
}

/* In one layer: an expert of the place that decides its way against one elsewhere. */
static bool swap_in_layer(settling *s, int i) {
  const spread *m = s->m;
  layer_state *y = &s->lay[i];
  double best = s->objective * (1 - LEAST);
  int P = m->n_places, one = -1, two = -1;
  for (int a = 0; a < m->n_experts; a++) {
    int p = y->place[a];
    const double *ta = y->g->way.t + (size_t)a * (size_t)P;
    for (int b = a + 1; b < m->n_experts; b++) {
      int q = y->place[b];
      const double *tb = y->g->way.t + (size_t)b * (size_t)P;
      if (p == q || !(y->g->open[a] >> q & 1) || !(y->g->open[b] >> p & 1) || (ta[p] == tb[p] && ta[q] == tb[q])) continue;
      double dp = tb[p] - ta[p], dq = ta[q] - tb[q];
      if (dp > 0 && dq > 0) continue; /* both sides would grow */
      layer_state z = *y;
      double row[SPREAD_MAX_ROWS];
      change(m, &z, a, q);
      change(m, &z, b, p);
      value_layer(m, &z);
      m->count->moves++;
      double v = with_layer(s, i, &z, row);
      if (!(v < best)) continue;
      best = v;
      one = a;
      two = b;
    }
  }
  if (one < 0) return false;
  int p = y->place[one], q = y->place[two];
  do_move(s, i, one, q);
  do_move(s, i, two, p);
  return true;
}

static bool swap_pass(settling *s) {
  bool any = false;
  for (int i = 0; i < s->n; i++)
    if (!s->lay[i].g->whole)
      for (int step = 0; step < 3 && !tired(s) && swap_in_layer(s, i); step++) any = true;
  return any;
}

/* The cheapest other place of each expert, whatever room it has. */
static void leave(settling *s, int i, int p) {
  const spread *m = s->m;
  const layer_state *y = &s->lay[i];
  const double *price = s->regret + (size_t)y->group * (size_t)(m->n_experts * m->n_places);
  for (int e = 0; e < m->n_experts; e++) {
    int to = -1;
    if (y->place[e] != p) continue;
    for (int q = 0; q < m->n_places; q++) {
      if (q == p || !(y->g->open[e] >> q & 1)) continue;
      double v = price[e * m->n_places + q] + (y->count[q] == 0 ? y->g->bytes * s->d->theta[q] : 0);
      if (to < 0 || v < price[e * m->n_places + to]) to = q;
    }
    if (to >= 0) do_move(s, i, e, to);
  }
}

/* Empties a place in one layer, so that its fixed part is saved; others make room. Undone when that does not help. */
static bool vacate(settling *s, int i, int p) {
  const spread *m = s->m;
  size_t bytes = (size_t)m->p->table->n_layers * (size_t)m->n_experts;
  double before = s->objective;
  memcpy(s->saved, s->placement, bytes);
  leave(s, i, p);
  if (s->lay[i].count[p] == 0 && fit(s, i) && s->objective < before * (1 - LEAST)) return true;
  memcpy(s->placement, s->saved, bytes);
  open_layers(s);
  return false;
}

/* The layers with the fewest experts in a place first. */
static bool vacate_pass(settling *s) {
  const spread *m = s->m;
  bool any = false;
  for (int p = 0; p < m->n_places; p++) {
    int last = 0, tries = 0;
    while (tries < VACATED && !tired(s)) {
      int at = -1;
      for (int i = 0; i < s->n; i++) {
        const layer_state *y = &s->lay[i];
        if (y->count[p] <= last || y->count[p] > m->n_experts / 2 || !(s->opening[y->group * m->n_places + p] > 0)) continue;
        if (at < 0 || y->count[p] < s->lay[at].count[p]) at = i;
      }
      if (at < 0) break;
      int count = s->lay[at].count[p];
      tries++;
      if (vacate(s, at, p)) any = true;
      else last = count;
    }
  }
  return any;
}

static void improve(settling *s, int rounds, double enough) {
  s->last_move = s->m->count->moves + MOST_MOVES;
  for (int round = 0; round < rounds && !tired(s); round++) {
    double before = s->objective;
    (void)move_pass(s);
    (void)exchange_pass(s, PER_PASS);
    if (s->objective <= before * (1 - 1e-7)) continue;
    if (s->objective <= enough) break;
    bool more = vacate_pass(s);
    if (s->m->n_experts <= MOST_SWAPPED) more = swap_pass(s) || more;
    if (!more) break;
  }
}

hf_status spread_settle(const spread *m, const spread_dual *d, int rounds, double enough, uint8_t *placement, double *objective) {
  settling s = {.m = m, .d = d};
  *objective = INFINITY;
  hf_status st = get_memory(&s, placement);
  if (st == HF_OK) {
    price_experts(&s);
    open_layers(&s);
    if (fit(&s, -1)) {
      improve(&s, rounds, enough);
      *objective = spread_evaluate(m, placement);
    }
  }
  free(s.lay);
  free(s.regret);
  free(s.opening);
  free(s.best);
  free(s.known);
  free(s.out);
  free(s.sure);
  free(s.saved);
  return st;
}
