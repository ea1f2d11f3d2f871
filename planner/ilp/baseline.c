/* baseline.c: what people do without a solver, valued by the same evaluator. */
#include "planner/ilp/ilp_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
  const ilp_problem *p;
  ilp_depth *d;
  int *order;     /* [n_layers * n_experts] scratch */
  uint8_t *place; /* [n_layers * n_experts] */
  int64_t left;   /* bytes */
} fill_state;

static size_t row_of(const ilp_problem *p, int layer) {
  return (size_t)layer * (size_t)p->table->n_experts;
}

static void start(fill_state *s) {
  const ilp_problem *p = s->p;
  s->left = s->d->cap_bytes - ilp_pinned_bytes(p);
  for (int l = 0; l < p->table->n_layers; l++)
    for (int e = 0; e < p->table->n_experts; e++)
      s->place[row_of(p, l) + (size_t)e] =
          p->table->layer[l].moe && p->pin != NULL && p->pin[row_of(p, l) + (size_t)e] == ILP_PIN_DEVICE;
}

static bool put(fill_state *s, int at) {
  int layer = at / s->p->table->n_experts;
  if (s->place[at] || (s->p->pin != NULL && s->p->pin[at] == ILP_PIN_CPU) || s->p->expert_bytes[layer] > s->left) return false;
  s->left -= s->p->expert_bytes[layer];
  s->place[at] = 1;
  return true;
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
    int64_t need = 0;
    for (int e = 0; e < t->n_experts; e++) need += s->place[row_of(s->p, l) + (size_t)e] ? 0 : s->p->expert_bytes[l];
    if (need > s->left) return;
    for (int e = 0; e < t->n_experts; e++) (void)put(s, (int)row_of(s->p, l) + e);
  }
}

static uint64_t next_random(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u; /* splitmix64 */
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

/* Each layer has its own shuffled order; rounds of one expert per layer keep the numbers even. */
static void random_even(fill_state *s, uint64_t seed) {
  const stage_table *t = s->p->table;
  int E = t->n_experts;
  for (int l = 0; l < t->n_layers; l++) {
    int *o = s->order + row_of(s->p, l);
    for (int e = 0; e < E; e++) {
      int j = (int)(next_random(&seed) % (uint64_t)(e + 1));
      o[e] = o[j];
      o[j] = e;
    }
  }
  for (int e = 0; e < E; e++)
    for (int l = 0; l < t->n_layers; l++)
      if (t->layer[l].moe) (void)put(s, (int)row_of(s->p, l) + s->order[row_of(s->p, l) + (size_t)e]);
}

hf_status ilp_baselines(const ilp_problem *p, ilp_depth *const *depth, uint64_t seed, ilp_baseline *out) {
  static const char *const name[ILP_N_BASELINES] = {"greedy", "whole-layers", "random", "all-cpu"};
  size_t cells = (size_t)p->table->n_layers * (size_t)p->table->n_experts;
  fill_state s = {.p = p};
  HF_TRY(hf_alloc(&s.order, cells + 1, sizeof *s.order, "baseline placements"));
  hf_status st = hf_alloc(&s.place, cells + 1, 1, "baseline placements");
  if (st != HF_OK) {
    free(s.order);
    return st;
  }
  for (int b = 0; b < ILP_N_BASELINES; b++) {
    out[b] = (ilp_baseline){.name = name[b], .objective_ns = INFINITY};
    for (int i = 0; i < ILP_MAX_DEPTH; i++) {
      if ((s.d = depth[i]) == NULL) continue;
      start(&s);
      if (b == ILP_BASE_GREEDY) greedy(&s);
      if (b == ILP_BASE_WHOLE_LAYERS) whole_layers(&s);
      if (b == ILP_BASE_RANDOM) random_even(&s, seed);
      double ns = ilp_depth_evaluate(s.d, s.place);
      if (ns < out[b].objective_ns) {
        out[b].objective_ns = ns;
        out[b].depth = i + 1;
      }
    }
  }
  free(s.order);
  free(s.place);
  return HF_OK;
}
