/* solve.c: from the tables of all depths to one placement and its certificate. The steps are numbered as in ilp.h. */
#include "base/clock.h"
#include "planner/ilp/ilp_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const ilp_problem *p;
  double gap_target;
  int max_nodes;
  double max_work;
  ilp_depth **depth; /* [ILP_MAX_DEPTH] */
  double best_ns;    /* of all depths so far */
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
  if (closed(s, d) || d->n == 0) {
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

static hf_status open_depths(const ilp_problem *p, const ilp_options *o, ilp_result *r) {
  int64_t pinned = ilp_pinned_bytes(p), most = INT64_MIN;
  bool any = false;
  for (int i = 0; i < ILP_MAX_DEPTH; i++) {
    int depth = i + 1;
    if (!(p->depths >> i & 1) || depth > p->users || (p->table->one_resource && depth > 1)) continue;
    int64_t cap = ilp_capacity_bytes(p, depth);
    if (cap > most) most = cap;
    r->by_depth[i] = (ilp_depth_result){.state = ILP_DEPTH_INFEASIBLE, .capacity_bytes = cap};
    if (cap < pinned) continue;
    HF_TRY(ilp_depth_new(p, depth, o->max_refine, &r->counters, &r->tables->depth[i]));
    any = true;
  }
  const char *name = p->n_devices > 0 && p->device[0].name != NULL ? p->device[0].name : "device";
  if (any) return HF_OK;
  if (most == INT64_MIN)
    return hf_fail(HF_INPUT, "depths: none of the depths asked for can be tried with %d users%s", p->users,
                   p->table->one_resource ? " and no device (depth 1 only)" : "");
  if (most < 0)
    return hf_fail(HF_NO, "%s: %lld bytes short before any expert is placed; use fewer users, less context or a larger device",
                   name, (long long)-most);
  return hf_fail(HF_NO, "%s: pinned experts need %lld bytes, %lld are free; pin fewer", name, (long long)pinned, (long long)most);
}

/* The depth with the least bound that still needs work: the likeliest to win and to prune the rest. */
static int next_depth(const search *s, const int *passes) {
  int at = -1;
  for (int i = 0; i < ILP_MAX_DEPTH; i++)
    if (s->depth[i] != NULL && passes[i] < 2 && (at < 0 || s->depth[i]->bound_ns < s->depth[at]->bound_ns)) at = i;
  return at;
}

static hf_status solve_depths(ilp_result *r, search *s) {
  int passes[ILP_MAX_DEPTH] = {0};
  for (int i = 0; i < ILP_MAX_DEPTH; i++) {
    if (s->depth[i] == NULL) continue;
    s->depth[i]->best_ns = INFINITY;
    s->depth[i]->bound_ns = ilp_dual_solve(s->depth[i], true).value;
  }
  for (int i; (i = next_depth(s, passes)) >= 0; passes[i]++) {
    ilp_depth *d = s->depth[i];
    if (passes[i] == 0) {
      first_pass(s, d);
      r->by_depth[i].state = ILP_DEPTH_SOLVED;
    } else if (d->best_ns > s->best_ns && d->bound_ns >= s->best_ns * (1 - s->gap_target)) {
      r->by_depth[i].state = ILP_DEPTH_PRUNED;
    } else {
      HF_TRY(second_pass(s, d));
    }
  }
  return HF_OK;
}

static hf_status report(const ilp_problem *p, const search *s, ilp_result *r) {
  r->objective_ns = r->bound_ns = INFINITY;
  for (int i = 0; i < ILP_MAX_DEPTH; i++) {
    ilp_depth *d = s->depth[i];
    if (d == NULL) continue;
    if (!d->milp) { /* the value of the tables as they are now: what ilp_write_bound_lp writes */
      ilp_dual dual = ilp_dual_solve(d, true);
      d->bound_ns = fmin(dual.value, d->best_ns);
      d->theta = dual.theta;
    }
    ilp_depth_result *by = &r->by_depth[i];
    by->objective_ns = d->best_ns;
    by->bound_ns = d->bound_ns;
    by->theta_ns_per_byte = d->theta / (double)d->unit_bytes;
    if (d->best_ns < r->objective_ns) {
      r->objective_ns = d->best_ns;
      r->depth = i + 1;
    }
    if (d->bound_ns < r->bound_ns) {
      r->bound_ns = d->bound_ns;
      r->bound_depth = i + 1;
    }
  }
  ilp_depth *d = s->depth[r->depth - 1];
  ilp_evaluation e;
  ilp_depth_placement(d, d->k_best, r->on_device);
  HF_TRY(ilp_evaluate(p, r->on_device, r->depth, r->layer, &e));
  r->by_depth[r->depth - 1].objective_ns = r->objective_ns = e.objective_ns;
  r->bound_ns = fmin(r->bound_ns, e.objective_ns);
  r->gap = r->bound_ns > 0 ? r->objective_ns / r->bound_ns - 1 : 0;
  bool certified = r->bound_ns > 0 || r->objective_ns <= 0;
  r->status = !certified ? "feasible" : r->gap <= 1e-9 ? "optimal" : "proven";
  r->certificate = p->table->one_resource ? "exact" : s->depth[r->bound_depth - 1]->milp ? "milp" : "lagrangian";
  r->lp_exact = d->exact;
  r->tok_per_s = e.tok_per_s;
  r->theta_ns_per_byte = r->by_depth[r->depth - 1].theta_ns_per_byte;
  r->bytes_used = e.bytes_used;
  r->bytes_limit = e.bytes_limit;
  return HF_OK;
}

hf_status ilp_solve(const ilp_problem *p, const ilp_options *options, ilp_result **out) {
  int64_t t0 = hf_now_ns();
  HF_TRY(ilp_check_problem(p));
  ilp_options o = options != NULL ? *options : (ilp_options){0};
  if (!(o.gap_target > 0)) o.gap_target = 1e-9;
  if (o.max_nodes <= 0) o.max_nodes = 300;
  if (o.max_refine <= 0) o.max_refine = 4000;
  ilp_result *r;
  HF_TRY(hf_alloc(&r, 1, sizeof *r, "placement result"));
  r->n_layers = p->table->n_layers;
  r->n_experts = p->table->n_experts;
  hf_status st;
  HF_GO(fail, hf_alloc(&r->tables, 1, sizeof *r->tables, "placement result"));
  HF_GO(fail, hf_alloc(&r->on_device, (size_t)r->n_layers * (size_t)r->n_experts + 1, 1, "placement"));
  HF_GO(fail, hf_alloc(&r->layer, (size_t)r->n_layers, sizeof *r->layer, "placement"));
  HF_GO(fail, open_depths(p, &o, r));
  search s = {.p = p,
              .gap_target = o.gap_target,
              .max_nodes = o.max_nodes,
              .max_work = 2e6,
              .depth = r->tables->depth,
              .best_ns = INFINITY,
              .count = &r->counters};
  HF_GO(fail, solve_depths(r, &s));
  HF_GO(fail, report(p, &s, r));
  if (!o.quick) HF_GO(fail, ilp_baselines(p, r->tables->depth, o.seed, r->baseline));
  r->seconds = (double)(hf_now_ns() - t0) * 1e-9;
  *out = r;
  return HF_OK;
fail:
  ilp_result_free(r);
  return st;
}

void ilp_result_free(ilp_result *r) {
  if (r == NULL) return;
  for (int i = 0; r->tables != NULL && i < ILP_MAX_DEPTH; i++) ilp_depth_free(r->tables->depth[i]);
  free(r->tables);
  free(r->on_device);
  free(r->layer);
  free(r);
}
