/* solve.c: from the tables of all depths to one placement and its certificate. The steps are numbered as in ilp.h. */
#include "base/clock.h"
#include "planner/ilp/alike.h"
#include "planner/ilp/spread.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double OPTIMAL_GAP = 1e-6, SETTLED_GAP = 1e-5, NEAR_GAP = 2e-3, SIMPLE_GAP = 5e-3, PROVEN_GAP = 0.01,
                    LEAST_PRICE = 0.01;
enum { SETTLE_ROUNDS = 12 };

typedef struct {
  const ilp_problem *p, *form_p; /* asked; the same with one place for machines that are alike */
  const ilp_alike *alike;
  double gap_target;
  int max_nodes, max_refine;
  double max_work;
  bool quick;
  bool down;      /* the deepest first */
  double best_ns; /* of all depths so far */
  ilp_counters *count;
} search;

/* The columns left for GLPK: one group per layer. */
typedef struct {
  int *first; /* [n + 1] */
  int *k;     /* per column */
  double *lower, *upper;
  int64_t *units;
  int *start, *choice; /* [n] */
} columns;

static void columns_free(columns *c) {
  free(c->first);
  free(c->k);
  free(c->lower);
  free(c->upper);
  free(c->units);
  free(c->start);
  free(c->choice);
}

/* ---- step 3: duals and first placements ---- */

/* Maximises the dual over lower, refining the columns that carry it until all of them are exact; stops early when the bound
 * reaches `enough`: nothing at this depth can beat that. */
static void certify(ilp_depth *d, double enough) {
  for (int round = 0; round < 100; round++) {
    ilp_dual dual = ilp_dual_solve(d, true);
    d->bound_ns = fmin(dual.value, d->best_ns);
    d->theta = dual.theta;
    if (dual.value >= enough) return;
    bool changed = false;
    for (int i = 0; i < d->n && d->refine_left > 0; i++) {
      int k[2] = {d->k_fit[i], d->k_over[i]};
      for (int s = 0; s < 2; s++) {
        if (d->lay[i].refined[k[s]] >= ILP_HULL) continue;
        (void)ilp_refine(d, &d->lay[i], k[s], ILP_HULL, NULL);
        d->refine_left--;
        changed = true;
      }
    }
    if (!changed) break;
  }
}

/* A placement from k[]: fill, refine what was chosen, until the choice rests on refined columns. */
static void improve(ilp_depth *d, int *k) {
  for (int round = 0; round < 8; round++) {
    double ns = ilp_fill(d, k);
    bool changed = false;
    for (int i = 0; i < d->n; i++) {
      if (d->lay[i].refined[k[i]] == ILP_POLISHED) continue;
      (void)ilp_refine(d, &d->lay[i], k[i], ILP_POLISHED, NULL);
      changed = true;
    }
    if (changed) ns = ilp_upper_value(d, k);
    if (ns < d->best_ns) {
      d->best_ns = ns;
      memcpy(d->k_best, k, (size_t)d->n * sizeof *k);
    }
    if (!changed) break;
  }
}

static void first_pass(search *s, ilp_depth *d) {
  certify(d, s->best_ns);
  improve(d, d->k_fit);
  if (d->bound_ns < s->best_ns) {
    (void)ilp_dual_solve(d, false);
    improve(d, d->k_fit);
    s->best_ns = fmin(s->best_ns, d->best_ns);
    certify(d, s->best_ns);
  }
  s->best_ns = fmin(s->best_ns, d->best_ns);
}

/* ---- step 4: what is left, and GLPK ---- */

/* Marks the columns that may be part of a placement faster than best_ns: dual value + reduced cost below it. Refines them. */
static int survivors(const search *s, ilp_depth *d, uint8_t *alive) {
  int n = 0;
  size_t row = (size_t)d->n_experts + 1;
  for (int i = 0; i < d->n; i++) {
    ilp_lay *y = &d->lay[i];
    double price = d->theta * (double)y->units, least = INFINITY;
    for (int k = y->k_lo; k <= y->k_hi; k++) least = fmin(least, y->lower[k] + price * k);
    double room = s->best_ns - d->bound_ns + 1e-11 * s->best_ns;
    for (int k = y->k_lo; k <= y->k_hi; k++) {
      bool in = y->lower[k] + price * k - least <= room;
      if (in && y->refined[k] < ILP_HULL && d->refine_left > 0) {
        (void)ilp_refine(d, y, k, ILP_HULL, NULL);
        d->refine_left--;
        in = y->lower[k] + price * k - least <= room;
      }
      in = in || k == d->k_best[i];
      alive[(size_t)i * row + (size_t)k] = in;
      n += in;
    }
  }
  return n;
}

/* Improves the sets behind the most promising columns of each layer, then the placement by them: `lower` was refined where it
 * decides, and without this `upper` would be good only where the multiplier happened to lead. */
static void polish_promising(search *s, ilp_depth *d, const uint8_t *alive) {
  enum { PER_LAYER = 10 };
  size_t row = (size_t)d->n_experts + 1;
  for (int i = 0; i < d->n; i++) {
    ilp_lay *y = &d->lay[i];
    double price = d->theta * (double)y->units;
    for (int step = 0; step < PER_LAYER; step++) {
      int at = -1;
      for (int k = y->k_lo; k <= y->k_hi; k++)
        if (alive[(size_t)i * row + (size_t)k] && y->refined[k] < ILP_POLISHED &&
            (at < 0 || y->lower[k] + price * k < y->lower[at] + price * at))
          at = k;
      if (at < 0) break;
      (void)ilp_refine(d, y, at, ILP_POLISHED, NULL);
    }
  }
  memcpy(d->k_fit, d->k_best, (size_t)d->n * sizeof *d->k_fit);
  improve(d, d->k_fit);
  s->best_ns = fmin(s->best_ns, d->best_ns);
}

static hf_status collect(ilp_depth *d, const uint8_t *alive, int n_columns, columns *c) {
  size_t row = (size_t)d->n_experts + 1, n = (size_t)n_columns + 1;
  HF_TRY(hf_alloc(&c->first, (size_t)d->n + 2, sizeof *c->first, "placement columns"));
  HF_TRY(hf_alloc(&c->start, (size_t)d->n + 1, sizeof *c->start, "placement columns"));
  HF_TRY(hf_alloc(&c->choice, (size_t)d->n + 1, sizeof *c->choice, "placement columns"));
  HF_TRY(hf_alloc(&c->k, n, sizeof *c->k, "placement columns"));
  HF_TRY(hf_alloc(&c->lower, n, sizeof *c->lower, "placement columns"));
  HF_TRY(hf_alloc(&c->upper, n, sizeof *c->upper, "placement columns"));
  HF_TRY(hf_alloc(&c->units, n, sizeof *c->units, "placement columns"));
  int j = 0;
  for (int i = 0; i < d->n; i++) {
    const ilp_lay *y = &d->lay[i];
    c->first[i] = j;
    for (int k = y->k_lo; k <= y->k_hi; k++) {
      if (!alive[(size_t)i * row + (size_t)k]) continue;
      if (k == d->k_best[i]) c->start[i] = j;
      c->k[j] = k;
      c->lower[j] = y->lower[k];
      c->upper[j] = y->upper[k];
      c->units[j++] = y->units * k;
    }
  }
  c->first[d->n] = j;
  return HF_OK;
}

static bool closed(const search *s, const ilp_depth *d) {
  return s->best_ns <= d->bound_ns * (1 + s->gap_target);
}

/* GLPK first; where it fails or does not finish, the dynamic program if that is small enough. False: neither has a result. */
static bool solve_columns(search *s, const ilp_mckp *m, ilp_mckp_result *r) {
  bool have = ilp_mckp_solve(m, s->count, r) == HF_OK;
  if (!have || !r->finished) have = ilp_mckp_dynamic(m, r) == HF_OK || have;
  hf_clear_error();
  return have;
}

/* Form M over the columns left, then the same over lower. */
static void integer_passes(search *s, ilp_depth *d, const columns *c) {
  ilp_mckp m = {.n_groups = d->n,
                .first = c->first,
                .cost = c->upper,
                .units = c->units,
                .cap = d->cap_units,
                .theta = d->theta,
                .start = c->start,
                .stop_value = d->bound_ns * (1 + s->gap_target) - d->base_ns,
                .stop_bound = INFINITY,
                .max_nodes = s->max_nodes,
                .max_work = s->max_work};
  ilp_mckp_result r = {.choice = c->choice};
  if (!solve_columns(s, &m, &r)) return;
  d->exact = r.finished;
  double optimum = r.value + d->base_ns;
  if (optimum < d->best_ns) {
    int *k = d->order_k;
    for (int i = 0; i < d->n; i++) k[i] = c->k[c->choice[i]];
    improve(d, k);
    s->best_ns = fmin(s->best_ns, d->best_ns);
    /* Better sets found on the way: form M has changed and another combination may be its optimum now. */
    d->exact = d->exact && d->best_ns >= optimum * (1 - 1e-10);
  }
  if (closed(s, d)) return;
  m.cost = c->lower;
  m.stop_value = -INFINITY;
  m.stop_bound = s->best_ns - d->base_ns;
  if (!solve_columns(s, &m, &r) || !r.finished) return;
  double bound = fmin(s->best_ns, (r.bound + d->base_ns) * (1 - 1e-12));
  if (bound > d->bound_ns) {
    d->bound_ns = bound;
    d->milp = true;
  }
}

static hf_status second_pass(search *s, ilp_depth *d) {
  if (closed(s, d) || d->n == 0 || (s->quick && d->best_ns <= d->bound_ns * (1 + s->gap_target))) {
    d->exact = d->best_ns <= d->bound_ns * (1 + s->gap_target);
    return HF_OK;
  }
  uint8_t *alive;
  columns c = {0};
  HF_TRY(hf_alloc(&alive, (size_t)d->n * ((size_t)d->n_experts + 1) + 1, 1, "placement columns"));
  (void)survivors(s, d, alive);
  polish_promising(s, d, alive);
  certify(d, s->best_ns); /* refinement may have raised the bound: fewer columns are left */
  hf_status st = collect(d, alive, survivors(s, d, alive), &c);
  if (st == HF_OK) integer_passes(s, d, &c);
  if (!d->milp) certify(d, s->best_ns);
  columns_free(&c);
  free(alive);
  return st;
}

/* ---- the whole ---- */

/* Form M is for one device alone at depth 1; all else is form P's. */
static bool is_form_m(const ilp_problem *p, int depth) {
  const stage_table *t = p->table;
  int64_t all = 0;
  if (depth != 1 || t->one_resource || ilp_n_places(t) != 2 || p->prefill.weight > 0 || p->limit.ttft_ns > 0) return false;
  for (int l = 0; l < t->n_layers; l++) all += t->layer[l].moe ? p->expert_bytes[l] * t->n_experts : 0;
  return all <= ilp_place_room(p, 0, depth);
}

static bool has_pinned(const ilp_problem *p, int layer) {
  const uint8_t *pin = p->pin + (size_t)layer * (size_t)p->table->n_experts;
  for (int e = 0; e < p->table->n_experts; e++)
    if (pin[e] == ILP_PIN_DEVICE) return true;
  return false;
}

/* By how much the largest pinned expert is larger than any device has room: what is free on all of them together does not help it. */
static int64_t pinned_too_large(const ilp_problem *p, int depth) {
  const stage_table *t = p->table;
  int64_t most = 0, large = 0;
  for (int q = 1; !t->one_resource && q <= t->n_devices; q++) {
    int64_t room = ilp_place_room(p, q, depth);
    if (room > most) most = room;
  }
  for (int l = 0; p->pin != NULL && l < t->n_layers; l++)
    if (t->layer[l].moe && p->expert_bytes[l] > large && has_pinned(p, l)) large = p->expert_bytes[l];
  return large > most ? large - most : 0;
}

/* Bytes that are wanting at a depth whatever is placed: pinned experts and the sum of all; *what tells which. 0: nothing. */
static int64_t short_of(const ilp_problem *p, int depth, const char **what) {
  const stage_table *t = p->table;
  int devices = t->one_resource ? 0 : t->n_devices;
  int64_t device_room = 0, room = 0, all = 0, pinned = ilp_pinned_bytes(p);
  bool endless = false;
  for (int l = 0; l < t->n_layers; l++)
    if (t->layer[l].moe) all += p->expert_bytes[l] * t->n_experts;
  for (int q = 0; q < ilp_n_places(t); q++) {
    int64_t r = ilp_place_room(p, q, depth);
    bool device = q > 0 && q <= devices;
    *what = device && p->device[q - 1].name != NULL ? p->device[q - 1].name : "device";
    if (device && r < 0) return -r;
    if (r == INT64_MAX) endless = true;
    else room += r;
    if (device) device_room += r;
  }
  *what = "pinned";
  if (pinned > device_room) return pinned - device_room;
  *what = "pinned expert";
  int64_t too_large = pinned_too_large(p, depth);
  if (too_large > 0) return too_large;
  *what = "experts";
  return endless || all <= room ? 0 : all - room;
}

static hf_status refuse(const ilp_problem *p, int depth) {
  const char *what = "";
  int64_t wanting = short_of(p, depth, &what);
  if (strcmp(what, "pinned") == 0)
    return hf_fail(HF_NO, "%s: pinned experts need %lld bytes, %lld are free; pin fewer",
                   p->n_devices == 1 && p->device[0].name != NULL ? p->device[0].name : "devices", (long long)ilp_pinned_bytes(p),
                   (long long)(ilp_pinned_bytes(p) - wanting));
  if (strcmp(what, "pinned expert") == 0)
    return hf_fail(HF_NO, "devices: a pinned expert is %lld bytes larger than what any of them has free; pin fewer",
                   (long long)wanting);
  if (strcmp(what, "experts") == 0)
    return hf_fail(HF_NO, "routed experts: %lld bytes short in all places together; use a smaller format or more memory",
                   (long long)wanting);
  return hf_fail(HF_NO, "%s: %lld bytes short before any expert is placed; use fewer users, less context or a larger device",
                 what, (long long)wanting);
}

static hf_status open_depths(const ilp_problem *p, ilp_result *r, uint32_t *open) {
  int first = 0;
  *open = 0;
  for (int depth = 1; depth <= ILP_MAX_DEPTH; depth++) {
    const char *what;
    if (!(p->depths >> (depth - 1) & 1) || depth > p->users || (p->table->one_resource && depth > 1)) continue;
    if (first == 0) first = depth;
    ilp_depth_result *by = &r->by_depth[depth - 1];
    *by = (ilp_depth_result){.state = ILP_DEPTH_INFEASIBLE};
    for (int q = 1; !p->table->one_resource && q <= p->table->n_devices; q++) by->capacity_bytes += ilp_place_room(p, q, depth);
    if (short_of(p, depth, &what) == 0) *open |= 1u << (depth - 1);
  }
  if (*open != 0) return HF_OK;
  if (first == 0)
    return hf_fail(HF_INPUT, "depths: none of the depths asked for can be tried with %d users%s", p->users,
                   p->table->one_resource ? " and no device (depth 1 only)" : "");
  return refuse(p, first);
}

/* Exchanges valued exactly, from the placement of the tables: these hold one set for each number of experts, and where the two sides of
 * layers balance another one may be better. What is found goes into the tables, so that form M knows it. */
static hf_status settle_form_m(search *s, ilp_depth *d, ilp_result *r) {
  spread *m = NULL;
  spread_dual dual = {.lam_path = 1};
  double ns = INFINITY;
  uint8_t *place = NULL;
  hf_status st = HF_OK;
  HF_TRY(spread_new(s->p, 1, &(spread_goal){1, 0}, s->count, &m));
  HF_GO(done, hf_alloc(&dual.nu, spread_at(m, m->n_groups, 0) + 1, sizeof *dual.nu, "placement"));
  HF_GO(done, hf_alloc(&dual.rho, spread_at(m, m->n_groups, 0) + 1, sizeof *dual.rho, "placement"));
  HF_GO(done, hf_alloc(&place, (size_t)r->n_layers * (size_t)r->n_experts + 1, 1, "placement"));
  for (int g = 0; g < m->n_groups; g++) dual.nu[spread_at(m, g, 0)] = 1;
  dual.theta[1] = d->theta / (double)d->unit_bytes;
  ilp_depth_placement(d, d->k_best, place);
  HF_GO(done, spread_settle(m, &dual, SETTLE_ROUNDS, 0, place, &ns));
  if (!(ns < d->best_ns * (1 - 1e-10))) goto done;
  d->best_ns = ns;
  d->exact = false;
  for (int i = 0; i < d->n; i++) {
    ilp_lay *y = &d->lay[i];
    spread_set x = {.group = m->group_of[y->layer], .place = place + (size_t)y->layer * (size_t)r->n_experts};
    spread_value(m, &x);
    d->k_best[i] = x.count[1];
    y->upper[x.count[1]] = fmin(y->upper[x.count[1]], spread_way(m, &x));
  }
  r->tables->settled = place;
  place = NULL;
done:
  free(place);
  free(dual.nu);
  free(dual.rho);
  spread_free(m);
  return st;
}

/* Depth 1 on one device. */
static hf_status solve_form_m(search *s, ilp_result *r) {
  ilp_depth *d;
  HF_TRY(ilp_depth_new(s->p, 1, s->max_refine, s->count, &r->tables->depth[0]));
  d = r->tables->depth[0];
  d->best_ns = INFINITY;
  d->bound_ns = ilp_dual_solve(d, true).value;
  first_pass(s, d);
  HF_TRY(second_pass(s, d));
  if (d->n > 0 && d->best_ns > d->bound_ns * (1 + fmax(s->gap_target, SETTLED_GAP))) HF_TRY(settle_form_m(s, d, r));
  if (!d->milp) { /* the value of the tables as they are now: what ilp_write_bound_lp writes */
    ilp_dual dual = ilp_dual_solve(d, true);
    d->bound_ns = fmin(dual.value, d->best_ns);
    d->theta = dual.theta;
  }
  ilp_depth_result *by = &r->by_depth[0];
  bool keeps = !(s->p->limit.step_ns > 0) || d->best_ns <= s->p->limit.step_ns;
  by->state = keeps ? ILP_DEPTH_SOLVED : ILP_DEPTH_LIMITED;
  by->objective_ns = keeps ? d->best_ns : INFINITY;
  if (!keeps) s->best_ns = INFINITY;
  by->bound_ns = d->bound_ns;
  by->place_theta[1] = by->theta_ns_per_byte = d->theta / (double)d->unit_bytes;
  return HF_OK;
}

/* Where the search did not come within the limits, or not near the bound: from the placements that are best at their prices and at
 * higher ones; then, until one leads within, for the limited rows alone. */
static hf_status come_within(search *s, int depth, spread_solution *x) {
  static const double times[] = {1, 2, 8};
  const ilp_limits *l = &s->form_p->limit;
  double chunk = ilp_chunk_limit(s->form_p), step_price = x->best.over_step, chunk_price = x->best.over_chunk;
  /* Limits that cost the relaxation nothing lead nowhere better; on one device the other starts are cheap and worth it all the same. */
  bool free_of_limits = s->form_p->table->n_devices > 1 && step_price == 0 && chunk_price == 0;
  /* Where a limit costs the relaxation nothing a small price still leads to placements within it. */
  if (l->step_ns > 0) step_price = fmax(step_price, LEAST_PRICE);
  if (chunk > 0) chunk_price = fmax(chunk_price, LEAST_PRICE * x->bound_ns / chunk);
  spread_goal goal[6] = {[3] = {0, 1}, [4] = {1, 0}, [5] = {1, chunk > 0 ? l->step_ns / chunk : 0}};
  bool wanted[6] = {[3] = chunk > 0, [4] = l->step_ns > 0, [5] = chunk > 0 && l->step_ns > 0};
  for (int i = 0; i < 3; i++) {
    goal[i] = (spread_goal){1 + times[i] * step_price, s->form_p->prefill.weight + times[i] * chunk_price};
    wanted[i] = true;
  }
  for (int i = 0; i < 6 && isfinite(x->objective_ns); i++) {
    spread_solution *y = NULL;
    ilp_evaluation e;
    double ns;
    HF_TRY(ilp_evaluate(s->form_p, x->placement, depth, NULL, &e));
    if (e.keeps_limits && (i >= 3 || free_of_limits || x->objective_ns <= x->bound_ns * (1 + NEAR_GAP))) return HF_OK;
    if (!wanted[i]) continue;
    HF_TRY(spread_solve(s->form_p, depth, &goal[i], s->gap_target, INFINITY, s->quick, s->count, &y));
    hf_status st = spread_settle(x->m, &x->best, SETTLE_ROUNDS, 0, y->placement, &ns);
    if (st == HF_OK && ns < x->objective_ns) {
      x->objective_ns = ns;
      x->exact = false;
      memcpy(x->placement, y->placement, (size_t)x->m->p->table->n_layers * (size_t)x->m->n_experts);
    }
    spread_solution_free(y);
    HF_TRY(st);
  }
  return HF_OK;
}

/* Where the search ended far from its bound, what anyone would try first may be better, and better still once settled. */
static hf_status from_simple(const spread_solution *x, uint8_t *place, double *ns) {
  double settled = INFINITY;
  size_t n = (size_t)x->m->p->table->n_layers * (size_t)x->m->n_experts;
  HF_TRY(spread_best_simple(x->m, place, ns));
  if (!(*ns < x->objective_ns)) return HF_OK;
  memcpy(x->placement, place, n);
  HF_TRY(spread_settle(x->m, &x->best, SETTLE_ROUNDS, 0, place, &settled));
  if (settled < *ns) memcpy(x->placement, place, n);
  *ns = fmin(*ns, settled);
  return HF_OK;
}

static hf_status no_worse_than_simple(spread_solution *x) {
  uint8_t *place;
  double ns;
  if (x->objective_ns <= x->bound_ns * (1 + SIMPLE_GAP)) return HF_OK;
  HF_TRY(hf_alloc(&place, (size_t)x->m->p->table->n_layers * (size_t)x->m->n_experts + 1, 1, "placement"));
  hf_status st = from_simple(x, place, &ns);
  if (st == HF_OK && ns < x->objective_ns) {
    x->objective_ns = ns;
    x->exact = false;
  }
  free(place);
  return st;
}

/* Multipliers of the problem with one place for machines that are alike, for that with a place for each. */
static hf_status multipliers_of_all(const search *s, const spread_solution *x, const spread *m, spread_dual *d) {
  const int P = m->n_places, merged = x->m->n_places;
  int many[SPREAD_P] = {0};
  const size_t n = spread_at(m, m->n_groups, 0);
  *d = (spread_dual){
      .lam_path = x->best.lam_path, .over_step = x->best.over_step, .over_chunk = x->best.over_chunk, .chunk = x->best.chunk};
  HF_TRY(hf_alloc(&d->nu, n + 1, sizeof *d->nu, "placement"));
  HF_TRY(hf_alloc(&d->rho, n + 1, sizeof *d->rho, "placement"));
  for (int q = 0; q < P; q++) many[ilp_alike_place(s->alike, q)]++;
  for (int q = 0; q < P; q++) {
    const int to = ilp_alike_place(s->alike, q);
    d->theta[q] = x->best.theta[to];
    if (m->n_rows > 0) d->lam[q] = x->best.lam[to] / many[to];
    for (int g = 0; g < m->n_groups && g < x->m->n_groups; g++) {
      d->nu[spread_at(m, g, 0) + (size_t)q] = x->best.nu[spread_at(x->m, g, 0) + (size_t)to] / many[to];
      d->rho[spread_at(m, g, 0) + (size_t)q] = x->best.rho[spread_at(x->m, g, 0) + (size_t)to] / many[to];
    }
  }
  for (int r = P; r < m->n_rows; r++) d->lam[r] = x->best.lam[r - P + merged]; /* of devices */
  return HF_OK;
}

enum { DEALT_ROUNDS = 3 };

/* The placement found, on machines each for itself: dealt out, and improved by exchanges where that is not as good. */
static hf_status deal_out(const search *s, int depth, const spread_solution *x, ilp_result *r, double *ns) {
  spread *m = NULL;
  spread_dual d = {0};
  uint8_t **to = &r->tables->dealt[depth - 1];
  HF_TRY(hf_alloc(to, (size_t)r->n_layers * (size_t)r->n_experts + 1, 1, "placement"));
  HF_TRY(spread_new(s->p, depth, NULL, s->count, &m));
  hf_status st = HF_OK;
  int best = s->p->table->n_remotes;
  *ns = INFINITY;
  for (int most = best; most > 0; most--) {
    HF_GO(done, ilp_alike_deal(s->alike, depth, most, x->placement, *to));
    const double now = spread_evaluate(m, *to);
    if (now < *ns) best = most, *ns = now;
  }
  HF_GO(done, ilp_alike_deal(s->alike, depth, best, x->placement, *to));
  if (*ns <= x->bound_ns * (1 + fmax(s->gap_target, NEAR_GAP))) goto done;
  HF_GO(done, multipliers_of_all(s, x, m, &d));
  HF_GO(done, spread_settle(m, &d, DEALT_ROUNDS, x->bound_ns * (1 + NEAR_GAP), *to, ns));
done:
  free(d.nu);
  free(d.rho);
  spread_free(m);
  return st;
}

static hf_status solve_form_p(search *s, int depth, ilp_result *r) {
  spread_solution *x = NULL;
  ilp_evaluation e;
  double best = s->best_ns;
  double stop = isfinite(best) ? best * (s->down ? 1 + 1e-9 : 1 - 1e-9) : INFINITY; /* of equals the simpler one is kept */
  HF_TRY(spread_solve(s->form_p, depth, NULL, s->gap_target, stop, s->quick, s->count, &x));
  r->tables->spread[depth - 1] = x;
  bool limits = s->p->limit.step_ns > 0 || s->p->limit.ttft_ns > 0;
  if (limits && x->bound_ns < stop && !x->milp) HF_TRY(come_within(s, depth, x));
  if (x->bound_ns < stop) HF_TRY(no_worse_than_simple(x));
  double found = x->objective_ns;
  if (s->alike) {
    x->exact = false;
    if (isfinite(found)) HF_TRY(deal_out(s, depth, x, r, &found));
  }
  HF_TRY(ilp_evaluate(s->p, s->alike ? r->tables->dealt[depth - 1] : x->placement, depth, NULL, &e));
  /* what is over a limit by rounding alone is in x's objective, times a lot */
  double ns = !isfinite(found) || !e.keeps_limits ? INFINITY : s->alike ? e.objective_ns : fmin(found, e.objective_ns);
  ilp_depth_result *by = &r->by_depth[depth - 1];
  by->state = x->bound_ns >= stop && ns > best   ? ILP_DEPTH_PRUNED
              : isfinite(ns) || !isfinite(found) ? ILP_DEPTH_SOLVED
                                                 : ILP_DEPTH_LIMITED;
  by->objective_ns = ns;
  by->bound_ns = x->bound_ns;
  for (int q = 0; q < ilp_n_places(s->p->table); q++)
    by->place_theta[q] = x->best.theta[s->alike ? ilp_alike_place(s->alike, q) : q];
  by->theta_ns_per_byte = x->best.theta[1];
  by->step_price = x->best.over_step;
  by->ttft_price = s->p->limit.ttft_ns > 0 ? x->best.over_chunk / s->p->limit.chunks : 0;
  s->best_ns = fmin(s->best_ns, ns);
  return HF_OK;
}

/* ---- limits ---- */

static void text_of_limits(const ilp_problem *p, const ilp_refusal *x, char *to, size_t n) {
  const ilp_limits *l = &p->limit;
  int at = 0;
  *to = 0;
  if (l->step_ns > 0)
    at += snprintf(to, n, "decode step: at least %.6g s in any placement, limit %.6g s", 1e-9 * x->step_least_ns,
                   1e-9 * l->step_ns);
  if (l->ttft_ns > 0 && (size_t)at < n)
    snprintf(to + at, n - (size_t)at, "%schunks of a prompt: at least %.6g s in any placement, limit %.6g s", at > 0 ? "; " : "",
             1e-9 * x->ttft_least_ns, 1e-9 * l->ttft_ns);
}

/* A bound on step * a + chunk * b over all placements of a depth. */
static hf_status least_of(search *s, int depth, double a, double b, double *bound) {
  spread_solution *x = NULL;
  HF_TRY(spread_solve(s->form_p, depth, &(spread_goal){a, b}, s->gap_target, INFINITY, s->quick, s->count, &x));
  *bound = x->bound_ns;
  spread_solution_free(x);
  return HF_OK;
}

/* Whether no placement of a depth keeps the limits; *x keeps the least of all depths. */
static hf_status prove_depth(search *s, const ilp_result *r, int depth, ilp_refusal *x, bool *alone, bool *both) {
  const ilp_limits *l = &s->p->limit;
  double step = 0, chunk = 0, most = ilp_chunk_limit(s->p);
  *alone = *both = false;
  if (l->step_ns > 0) HF_TRY(least_of(s, depth, 1, 0, &step));
  if (most > 0) HF_TRY(least_of(s, depth, 0, 1, &chunk));
  x->step_least_ns = fmin(x->step_least_ns, step);
  x->ttft_least_ns = fmin(x->ttft_least_ns, chunk * l->chunks);
  *alone = (l->step_ns > 0 && step > l->step_ns) || (most > 0 && chunk > most);
  if (*alone || !(l->step_ns > 0) || !(most > 0)) return HF_OK;
  /* Both at once: weighed as the relaxation weighed them, else alike. */
  const ilp_depth_result *by = &r->by_depth[depth - 1];
  double price = by->ttft_price * l->chunks, sum,
         b = by->step_price > 0 && price > 0 ? price / by->step_price : l->step_ns / most;
  HF_TRY(least_of(s, depth, 1, b, &sum));
  *both = sum > l->step_ns + b * most;
  return HF_OK;
}

/* HF_NO, with what proves it. */
static hf_status refuse_limits(search *s, const ilp_result *r, ilp_refusal *out) {
  ilp_refusal x = {.limits = true, .proven = true, .step_least_ns = INFINITY, .ttft_least_ns = INFINITY};
  char text[240];
  for (int depth = 1; depth <= ILP_MAX_DEPTH; depth++) {
    bool alone, both;
    /* no placement was found that fits: proves nothing of those that there may be */
    if (r->by_depth[depth - 1].state > ILP_DEPTH_LIMITED) x.proven = false;
    if (r->by_depth[depth - 1].state != ILP_DEPTH_LIMITED) continue;
    HF_TRY(prove_depth(s, r, depth, &x, &alone, &both));
    x.proven = x.proven && (alone || both);
    x.together = x.together || both;
  }
  if (out != NULL) *out = x;
  text_of_limits(s->p, &x, text, sizeof text);
  return hf_fail(HF_NO, "limits: %s: %s; use wider limits, fewer users or faster parts",
                 !x.proven    ? "no placement was found that keeps them"
                 : x.together ? "no placement keeps both at once"
                              : "no placement keeps them",
                 text);
}

static const char *status_of(bool certified, double gap) {
  return !certified ? "feasible" : gap <= OPTIMAL_GAP ? "optimal" : gap <= PROVEN_GAP ? "proven" : "bounded";
}

static double gap_of(const ilp_result *r) {
  return r->bound_ns > 0 ? r->objective_ns / r->bound_ns - 1 : 0;
}

static void told_by_evaluation(ilp_result *r) {
  r->tok_per_s = r->evaluation.tok_per_s;
  r->bytes_used = r->evaluation.bytes_used;
  r->bytes_limit = r->evaluation.bytes_limit;
}

static hf_status report(const ilp_problem *p, ilp_result *r) {
  r->objective_ns = r->bound_ns = INFINITY;
  for (int i = 0; i < ILP_MAX_DEPTH; i++) {
    const ilp_depth_result *by = &r->by_depth[i];
    if (by->state < ILP_DEPTH_LIMITED) continue;
    if (by->objective_ns < r->objective_ns) {
      r->objective_ns = by->objective_ns;
      r->depth = i + 1;
    }
    if (by->bound_ns < r->bound_ns) {
      r->bound_ns = by->bound_ns;
      r->bound_depth = i + 1;
    }
  }
  if (r->depth == 0)
    return hf_fail(HF_NO, "routed experts: no placement found that fits all places; use more memory or a smaller format");
  ilp_depth *d = r->tables->depth[r->depth - 1], *b = r->tables->depth[r->bound_depth - 1];
  const spread_solution *x = r->tables->spread[r->depth - 1], *y = r->tables->spread[r->bound_depth - 1];
  if (d != NULL && r->tables->settled == NULL) ilp_depth_placement(d, d->k_best, r->on_device);
  else if (d != NULL) memcpy(r->on_device, r->tables->settled, (size_t)r->n_layers * (size_t)r->n_experts);
  else
    memcpy(r->on_device, r->tables->dealt[r->depth - 1] ? r->tables->dealt[r->depth - 1] : x->placement,
           (size_t)r->n_layers * (size_t)r->n_experts);
  ilp_evaluation *e = &r->evaluation;
  HF_TRY(ilp_evaluate(p, r->on_device, r->depth, r->layer, e));
  r->by_depth[r->depth - 1].objective_ns = r->objective_ns = e->objective_ns;
  r->bound_ns = fmin(r->bound_ns, e->objective_ns);
  r->by_depth[r->depth - 1].bound_ns = fmin(r->by_depth[r->depth - 1].bound_ns, e->objective_ns);
  r->gap = gap_of(r);
  bool certified = r->bound_ns > 0 || r->objective_ns <= 0;
  r->status = status_of(certified, r->gap);
  r->certificate = !certified                                              ? "none"
                   : p->table->one_resource && ilp_n_places(p->table) == 1 ? "exact"
                   : (b != NULL ? b->milp : y->milp)                       ? "milp"
                                                                           : "lagrangian";
  r->lp_exact = d != NULL ? d->exact : x->exact;
  told_by_evaluation(r);
  r->theta_ns_per_byte = r->by_depth[r->depth - 1].theta_ns_per_byte;
  return HF_OK;
}

static hf_status solve_depths(search *s, uint32_t open, ilp_refusal *refusal, ilp_result *r) {
  /* With several devices the most micro-batches mostly win: first, they spare the other depths most of their search. */
  s->down = s->quick && s->p->table->n_devices > 1;
  for (int i = 0; i < ILP_MAX_DEPTH; i++) {
    int depth = s->down ? ILP_MAX_DEPTH - i : 1 + i;
    if (!(open >> (depth - 1) & 1)) continue;
    HF_TRY(is_form_m(s->p, depth) ? solve_form_m(s, r) : solve_form_p(s, depth, r));
  }
  bool limited = false, found = false;
  for (int i = 0; i < ILP_MAX_DEPTH; i++) {
    limited = limited || r->by_depth[i].state == ILP_DEPTH_LIMITED;
    found = found || (r->by_depth[i].state > ILP_DEPTH_LIMITED && isfinite(r->by_depth[i].objective_ns));
  }
  return limited && !found ? refuse_limits(s, r, refusal) : report(s->p, r);
}

hf_status ilp_result_take(ilp_result *r, const ilp_result *other) {
  size_t n = (size_t)r->n_layers * (size_t)r->n_experts;
  if (r->depth != other->depth || r->n_layers != other->n_layers || r->n_experts != other->n_experts)
    return hf_fail(HF_INPUT, "placement of %d layers at depth %d for one of %d at depth %d", other->n_layers, other->depth,
                   r->n_layers, r->depth);
  bool certified = strcmp(r->status, "feasible") != 0;
  memcpy(r->on_device, other->on_device, n);
  memcpy(r->layer, other->layer, (size_t)r->n_layers * sizeof *r->layer);
  r->objective_ns = r->by_depth[r->depth - 1].objective_ns = other->objective_ns;
  r->gap = gap_of(r);
  r->status = status_of(certified, r->gap);
  r->lp_exact = false;
  r->tok_per_s = other->tok_per_s;
  r->bytes_used = other->bytes_used;
  r->evaluation = other->evaluation;
  return HF_OK;
}

static void drop_tables(ilp_result *r) {
  for (int i = 0; i < ILP_MAX_DEPTH; i++) {
    ilp_depth_free(r->tables->depth[i]);
    spread_solution_free(r->tables->spread[i]);
    r->tables->depth[i] = NULL;
    r->tables->spread[i] = NULL;
    free(r->tables->dealt[i]);
    r->tables->dealt[i] = NULL;
  }
}

/* What a step takes at least at a depth, wherever its experts are: attention, dense and shared parts of one micro-batch. */
static double step_without_experts_ns(const ilp_problem *p, int depth) {
  const stage_table *t = p->table;
  int tokens = p->users / depth > 0 ? p->users / depth : 1; /* of the smallest micro-batch */
  double ns = t->step_fixed_ns + stage_curve_at(&t->head, tokens);
  for (int l = 0; l < t->n_layers; l++) {
    layer_times y = stage_layer_times(t, p->pop, l, tokens, p->context, NULL);
    ns += y.attn_ns + y.shared_ns;
  }
  return ns;
}

/* GLPK ended the search: the best placement that needs none, said to be no more than that. */
static hf_status without_solver(const ilp_problem *p, uint32_t open, ilp_result *r) {
  uint8_t *place = NULL;
  size_t cells = (size_t)r->n_layers * (size_t)r->n_experts;
  hf_status st = HF_OK;
  snprintf(r->failure, sizeof r->failure, "%.159s", hf_error_line());
  hf_clear_error();
  drop_tables(r);
  memset(r->by_depth, 0, sizeof r->by_depth);
  r->depth = 0;
  r->objective_ns = r->bound_ns = INFINITY;
  HF_TRY(hf_alloc(&place, cells + 1, 1, "placement"));
  for (int depth = 1; depth <= ILP_MAX_DEPTH; depth++) {
    ilp_depth_result *by = &r->by_depth[depth - 1];
    ilp_evaluation e;
    double ns;
    if (!(open >> (depth - 1) & 1)) continue;
    HF_GO(done, ilp_simple(p, depth, &r->counters, place, &ns));
    if (isinf(ns)) continue;
    HF_GO(done, ilp_evaluate(p, place, depth, NULL, &e));
    if (!e.fits || !e.keeps_limits) continue;
    by->state = ILP_DEPTH_SOLVED;
    by->objective_ns = e.objective_ns;
    by->bound_ns = fmin(e.objective_ns, step_without_experts_ns(p, depth));
    r->bound_ns = fmin(r->bound_ns, by->bound_ns);
    if (!(e.objective_ns < r->objective_ns)) continue;
    r->objective_ns = e.objective_ns;
    r->depth = r->bound_depth = depth;
    memcpy(r->on_device, place, cells);
  }
  if (r->depth == 0) {
    st = hf_fail(HF_MACHINE, "%s; and no simple placement fits", r->failure);
    goto done;
  }
  HF_GO(done, ilp_evaluate(p, r->on_device, r->depth, r->layer, &r->evaluation));
  r->gap = gap_of(r);
  r->status = status_of(false, r->gap);
  r->certificate = "none";
  told_by_evaluation(r);
done:
  free(place);
  return st;
}

hf_status ilp_solve(const ilp_problem *p, const ilp_options *options, ilp_result **out) {
  int64_t t0 = hf_now_ns();
  HF_TRY(ilp_check_problem(p));
  ilp_options o = options != NULL ? *options : (ilp_options){0};
  if (!(o.gap_target > 0)) o.gap_target = 1e-9;
  if (o.max_nodes <= 0) o.max_nodes = 300;
  if (o.max_refine <= 0) o.max_refine = 4000;
  ilp_result *r;
  uint32_t open = 0;
  HF_TRY(hf_alloc(&r, 1, sizeof *r, "placement result"));
  r->n_layers = p->table->n_layers;
  r->n_experts = p->table->n_experts;
  hf_status st;
  HF_GO(fail, hf_alloc(&r->tables, 1, sizeof *r->tables, "placement result"));
  HF_GO(fail, hf_alloc(&r->on_device, (size_t)r->n_layers * (size_t)r->n_experts + 1, 1, "placement"));
  HF_GO(fail, hf_alloc(&r->layer, (size_t)r->n_layers, sizeof *r->layer, "placement"));
  HF_GO(fail, open_depths(p, r, &open));
  HF_GO(fail, ilp_alike_new(p, &r->tables->alike));
  search s = {.p = p,
              .form_p = r->tables->alike ? ilp_alike_problem(r->tables->alike) : p,
              .alike = r->tables->alike,
              .gap_target = o.gap_target,
              .max_nodes = o.max_nodes,
              .max_refine = o.max_refine,
              .max_work = 2e6,
              .quick = o.quick,
              .best_ns = INFINITY,
              .count = &r->counters};
  if (o.refusal != NULL) *o.refusal = (ilp_refusal){0};
  st = solve_depths(&s, open, o.refusal, r);
  if (st == HF_MACHINE && strncmp(hf_error_line(), "GLPK", 4) == 0) st = without_solver(p, open, r);
  HF_GO(fail, st);
  if (!o.quick) HF_GO(fail, ilp_baselines(p, open, o.seed, &r->counters, r->baseline));
  r->seconds = (double)(hf_now_ns() - t0) * 1e-9;
  *out = r;
  return HF_OK;
fail:
  ilp_result_free(r);
  return st;
}

void ilp_result_free(ilp_result *r) {
  if (r == NULL) return;
  if (r->tables != NULL) drop_tables(r);
  if (r->tables != NULL) free(r->tables->settled);
  if (r->tables != NULL) ilp_alike_free(r->tables->alike);
  free(r->tables);
  free(r->on_device);
  free(r->layer);
  free(r);
}
