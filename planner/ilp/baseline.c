/* baseline.c: what people do without a solver, valued by the same tables. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/ilp/spread.h"

typedef struct {
  const ilp_problem *p;
  const spread *m;
  int *order;     /* [n_layers * n_experts] scratch */
  uint8_t *place; /* [n_layers * n_experts] */
  int64_t left[SPREAD_P];
  int n_devices;
} fill_state;

static size_t row_of(const ilp_problem *p, int layer) {
  return (size_t)layer * (size_t)p->table->n_experts;
}

/* Puts an expert of the CPU on its home device, else on the next ones; false when it may not or does not fit anywhere. */
static bool put(fill_state *s, int at) {
  const ilp_problem *p = s->p;
  int layer = at / p->table->n_experts, home = p->table->layer[layer].home;
  if (s->place[at] != 0 || (p->pin != NULL && p->pin[at] == ILP_PIN_CPU)) return false;
  for (int i = 0; i < s->n_devices; i++) {
    int q = 1 + (home + i) % s->n_devices;
    if (p->expert_bytes[layer] > s->left[q]) continue;
    s->left[q] -= p->expert_bytes[layer];
    s->place[at] = (uint8_t)q;
    return true;
  }
  return false;
}

static void start(fill_state *s) {
  const ilp_problem *p = s->p;
  memcpy(s->left, s->m->room, sizeof s->left);
  memset(s->place, 0, row_of(p, p->table->n_layers));
  for (int l = 0; p->pin != NULL && l < p->table->n_layers; l++)
    for (int e = 0; p->table->layer[l].moe && e < p->table->n_experts; e++)
      if (p->pin[row_of(p, l) + (size_t)e] == ILP_PIN_DEVICE) (void)put(s, (int)row_of(p, l) + e);
}

static int popular_cmp(const void *pa, const void *pb, void *ctx) {
  const double *pop = ctx;
  int a = *(const int *)pa, b = *(const int *)pb;
  if (pop[a] != pop[b]) return pop[a] > pop[b] ? -1 : 1;
  return a < b ? -1 : a > b;
}

static void greedy(fill_state *s) {
  const stage_table *t = s->p->table;
  int n = 0;
  for (int i = 0; i < t->n_layers * t->n_experts; i++)
    if (t->layer[i / t->n_experts].moe) s->order[n++] = i;
  qsort_r(s->order, (size_t)n, sizeof *s->order, popular_cmp, s->p->pop->p);
  for (int i = 0; i < n; i++) (void)put(s, s->order[i]);
}

/* All layers from the last on, as many as fit whole: the first ones keep their experts on the CPU. */
static void whole_layers(fill_state *s) {
  const stage_table *t = s->p->table;
  for (int l = t->n_layers - 1; l >= 0; l--) {
    if (!t->layer[l].moe) continue;
    int64_t need = 0, room = 0;
    for (int e = 0; e < t->n_experts; e++) need += s->place[row_of(s->p, l) + (size_t)e] ? 0 : s->p->expert_bytes[l];
    for (int q = 1; q <= s->n_devices; q++) room += s->left[q] - s->left[q] % s->p->expert_bytes[l];
    if (need > room) return;
    for (int e = 0; e < t->n_experts; e++) (void)put(s, (int)row_of(s->p, l) + e);
  }
}

static uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u; /* splitmix64 */
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* Rounds of one expert per layer, in each layer's own order: shuffled, or by popularity. */
static void even(fill_state *s, bool shuffled, uint64_t seed) {
  const stage_table *t = s->p->table;
  int E = t->n_experts;
  for (int l = 0; l < t->n_layers; l++) {
    int *o = s->order + row_of(s->p, l);
    for (int e = 0; e < E; e++) {
      int j = shuffled ? (int)(next_random(&seed) % (uint64_t)(e + 1)) : e;
      o[e] = o[j];
      o[j] = e;
    }
    if (!shuffled) qsort_r(o, (size_t)E, sizeof *o, popular_cmp, s->p->pop->p + row_of(s->p, l));
  }
  for (int e = 0; e < E; e++)
    for (int l = 0; l < t->n_layers; l++)
      if (t->layer[l].moe) (void)put(s, (int)row_of(s->p, l) + s->order[row_of(s->p, l) + (size_t)e]);
}

static double fill(fill_state *s, int baseline, uint64_t seed) {
  start(s);
  if (baseline == ILP_BASE_GREEDY) greedy(s);
  if (baseline == ILP_BASE_WHOLE_LAYERS) whole_layers(s);
  if (baseline == ILP_BASE_UNIFORM) even(s, false, 0);
  if (baseline == ILP_BASE_RANDOM) even(s, true, seed);
  return spread_evaluate(s->m, s->place);
}

static void value_all(fill_state *s, int depth, uint64_t seed, ilp_baseline *out) {
  for (int b = 0; b < ILP_N_BASELINES; b++) {
    double ns = fill(s, b, seed);
    if (ns < out[b].objective_ns) {
      out[b].objective_ns = ns;
      out[b].depth = depth;
    }
  }
}

static hf_status open_state(const ilp_problem *p, fill_state *s) {
  size_t cells = (size_t)p->table->n_layers * (size_t)p->table->n_experts;
  *s = (fill_state){.p = p, .n_devices = p->table->one_resource || p->n_devices == 0 ? 0 : p->table->n_devices};
  HF_TRY(hf_alloc(&s->order, cells + 1, sizeof *s->order, "baseline placements"));
  hf_status st = hf_alloc(&s->place, cells + 1, 1, "baseline placements");
  if (st != HF_OK) free(s->order);
  return st;
}

static void close_state(fill_state *s) {
  free(s->order);
  free(s->place);
}

hf_status spread_best_simple(const spread *m, uint8_t *placement, double *ns) {
  fill_state s;
  *ns = INFINITY;
  HF_TRY(open_state(m->p, &s));
  s.m = m;
  for (int b = ILP_BASE_GREEDY; b <= ILP_BASE_UNIFORM; b++) {
    double v = fill(&s, b, 0);
    if (!(v < *ns)) continue;
    *ns = v;
    memcpy(placement, s.place, row_of(m->p, m->p->table->n_layers));
  }
  close_state(&s);
  return HF_OK;
}

hf_status ilp_simple(const ilp_problem *p, int depth, ilp_counters *count, uint8_t *placement, double *ns) {
  spread *m = NULL;
  HF_TRY(spread_new(p, depth, &(spread_goal){1, p->prefill.weight}, count, &m));
  hf_status st = spread_best_simple(m, placement, ns);
  spread_free(m);
  return st;
}

hf_status ilp_baselines(const ilp_problem *p, uint32_t depths, uint64_t seed, ilp_counters *count, ilp_baseline *out) {
  static const char *const name[ILP_N_BASELINES] = {"greedy", "whole-layers", "uniform", "random", "all-cpu"};
  fill_state s;
  hf_status st = HF_OK;
  HF_TRY(open_state(p, &s));
  for (int b = 0; b < ILP_N_BASELINES; b++) out[b] = (ilp_baseline){.name = name[b], .objective_ns = INFINITY};
  for (int depth = 1; st == HF_OK && depth <= ILP_MAX_DEPTH; depth++) {
    spread *m = NULL;
    if (!(depths >> (depth - 1) & 1)) continue;
    if ((st = spread_new(p, depth, &(spread_goal){1, p->prefill.weight}, count, &m)) != HF_OK) break;
    s.m = m;
    value_all(&s, depth, seed, out);
    spread_free(m);
  }
  close_state(&s);
  return st;
}
