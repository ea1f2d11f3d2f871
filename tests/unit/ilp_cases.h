/* ilp_cases.h: placement problems for the tests and the benchmark of planner/ilp. Hardware figures are round assumptions
 * (effective rates of a 24 GB card, an 80 GB card and eight of them; two sockets of a server CPU): what is tested is the
 * optimiser, not a prediction. */
#ifndef HF_TESTS_ILP_CASES_H
#define HF_TESTS_ILP_CASES_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/ilp/ilp.h"

typedef struct {
  stage_table *t;
  popularity *pop;
  int64_t *bytes;
  uint8_t *pin;
  ilp_problem p;
} ilp_case;

static inline uint64_t case_u64(uint64_t *s) {
  uint64_t z = *s += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}
static inline double case_uniform(uint64_t *s, double lo, double hi) {
  return lo + (hi - lo) * (double)(case_u64(s) >> 11) * 0x1p-53;
}
static inline double case_normal(uint64_t *s) {
  return sqrt(-2 * log(case_uniform(s, 1e-12, 1))) * cos(6.283185307179586 * case_uniform(s, 0, 1));
}

/* Scales w[n] to probabilities that sum to top_k, none above 1. */
static inline void case_scale(double *w, int n, int top_k) {
  for (int round = 0; round < 100; round++) {
    double sum = 0, fixed = 0;
    for (int e = 0; e < n; e++) {
      if (w[e] >= 1) fixed += 1;
      else sum += w[e];
    }
    double f = sum > 0 ? (top_k - fixed) / sum : 1;
    bool over = false;
    for (int e = 0; e < n; e++) {
      if (w[e] >= 1) continue;
      w[e] *= f;
      if (w[e] > 1) w[e] = 1, over = true;
    }
    if (!over) return;
  }
}

enum { SKEW_MIXED = -1, SKEW_LOGNORMAL = -2 };

/* Prompts choose other experts: the layers' popularity, turned round. */
static inline bool case_prompts(popularity *pop) {
  size_t n = (size_t)pop->n_experts;
  pop->prefill = calloc((size_t)pop->n_layers * n, sizeof *pop->prefill);
  for (size_t i = 0; pop->prefill != NULL && i < (size_t)pop->n_layers * n; i++)
    pop->prefill[i] = pop->p[i / n * n + (n - 1 - i % n)];
  return pop->prefill != NULL;
}

static inline void case_popularity(popularity *pop, int layer, int top_k, double skew, uint64_t *seed) {
  int n = pop->n_experts;
  double *w = pop->p + (size_t)layer * (size_t)n, s = skew == SKEW_MIXED ? case_uniform(seed, 0, 1.4) : skew;
  for (int e = 0; e < n; e++)
    w[e] = skew == SKEW_LOGNORMAL ? exp(case_normal(seed)) : pow(e + 1, -s) * (skew == 0 ? 1 : exp(0.1 * case_normal(seed)));
  for (int e = n - 1; e > 0; e--) {
    int j = (int)(case_u64(seed) % (uint64_t)(e + 1));
    double x = w[e];
    w[e] = w[j];
    w[j] = x;
  }
  double sum = 0;
  for (int e = 0; e < n; e++) sum += w[e];
  for (int e = 0; e < n; e++) w[e] *= 0.5 / sum; /* below 1 before scaling */
  case_scale(w, n, top_k);
}

static inline void case_free(ilp_case *c) {
  stage_table_free(c->t);
  popularity_free(c->pop);
  free(c->bytes);
  free(c->pin);
  memset(c, 0, sizeof *c);
}

static inline bool case_alloc(ilp_case *c, int n_layers, int n_experts, int top_k) {
  memset(c, 0, sizeof *c);
  if (stage_table_new(n_layers, &c->t) != HF_OK || popularity_new(n_layers, n_experts, &c->pop) != HF_OK) return false;
  c->t->n_experts = n_experts;
  c->t->top_k = top_k;
  c->bytes = calloc((size_t)n_layers, sizeof *c->bytes);
  c->p = (ilp_problem){.table = c->t, .pop = c->pop, .expert_bytes = c->bytes, .n_devices = 1, .users = 1, .depths = 0xf};
  c->p.device[0].name = "test device";
  return c->bytes != NULL;
}

/* max(read the weights, compute) over tokens, with a fixed part. */
static inline stage_curve case_curve(double fixed_ns, double bytes, double bytes_per_s, double flops, double flops_per_s) {
  static const double tok[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512};
  stage_curve c = {.n = 10};
  for (int i = 0; i < c.n; i++) {
    c.tok[i] = tok[i];
    c.ns[i] = fixed_ns + 1e9 * fmax(bytes / bytes_per_s, tok[i] * flops / flops_per_s);
  }
  return c;
}

typedef struct {
  const char *name;
  double gpu_bytes_per_s, gpu_flops_per_s, gpu_bytes, launch_ns;
  double cpu_bytes_per_s, cpu_flops_per_s;
  double expert_bytes;
} case_machine;

static const case_machine case_machines[] = {
    {"24GB card", 850e9, 120e12, 7e9, 2000, 440e9, 32e12, 24.8e6},
    {"80GB card", 2800e9, 500e12, 60e9, 2000, 440e9, 32e12, 24.8e6},
    {"8x80GB fp8", 18e12, 3200e12, 560e9, 250, 440e9, 32e12, 44.04e6},
    {"slow card", 450e9, 40e12, 300e9, 3000, 440e9, 32e12, 24.8e6}, /* device-bound in most layers */
};

/* n_layers of n_experts on one of the machines above; the first `dense` layers are dense. mixed_sizes: three expert sizes in
 * turn. */
static inline bool case_large(ilp_case *c, int n_layers, int dense, int n_experts, const case_machine *m, int users, double skew,
                              bool mixed_sizes, uint64_t seed) {
  if (!case_alloc(c, n_layers, n_experts, 8)) return false;
  double flops = 0.088e9, dense_bytes = 130e6;
  for (int l = 0; l < n_layers; l++) {
    stage_layer *y = &c->t->layer[l];
    double size = m->expert_bytes * (mixed_sizes ? 1 + 0.25 * (l % 3) : 1);
    y->moe = l >= dense;
    y->attn = case_curve(20e3, dense_bytes, m->gpu_bytes_per_s, 2 * dense_bytes, m->gpu_flops_per_s);
    y->attn_seq_ctx_ns = 1152 / m->gpu_bytes_per_s * 1e9;
    y->shared = case_curve(2000, m->expert_bytes, m->gpu_bytes_per_s, flops, m->gpu_flops_per_s);
    y->dexp = case_curve(m->launch_ns, size, m->gpu_bytes_per_s, flops, m->gpu_flops_per_s);
    y->cexp = case_curve(500, size, m->cpu_bytes_per_s, flops, m->cpu_flops_per_s);
    y->cexp_fixed_ns = 15e3;
    y->dexp_fixed_ns = 4e3;
    y->hand_ns = 30e3;
    y->hand_tok_ns = 2 * 7168 * 2 / 25e9 * 1e9;
    c->bytes[l] = (int64_t)size;
    case_popularity(c->pop, l, 8, skew, &seed);
  }
  c->t->head = case_curve(50e3, 1e9, m->gpu_bytes_per_s, 2e9, m->gpu_flops_per_s);
  c->t->step_fixed_ns = 100e3;
  c->p.users = users;
  c->p.context = 4096;
  for (int d = 0; d < ILP_MAX_DEPTH; d++) c->p.device[0].expert_bytes_free[d] = (int64_t)(m->gpu_bytes - 64e6 * d);
  return true;
}

/* CPUs of other machines over a link of 100 Gbit/s, from place `first` on: half and a third as fast as this one's. */
static inline void case_machines_from(ilp_case *c, int first) {
  stage_table *t = c->t;
  for (int l = 0; l < t->n_layers; l++)
    for (int r = 0; r < t->n_remotes; r++) {
      stage_place *p = stage_place_of(t, l, first + r);
      p->exp = case_curve(500, (double)c->bytes[l], 440e9 / (2 + r), 0.088e9, 32e12 / (2 + r));
      p->fixed_ns = 15e3;
      p->hand_ns = 60e3 + 40e3 * r;
      p->hand_tok_ns = 2 * 7168 * 2 / 12.5;
    }
}

/* Four unlike devices (24, 32 and 80 GB cards and a slow one) instead of one, homes in runs of layers. */
static inline bool case_unlike(ilp_case *c, int n_remotes) {
  static const double bytes_per_s[4] = {850e9, 1600e9, 2800e9, 430e9}, flops_per_s[4] = {120e12, 200e12, 500e12, 60e12};
  static const int64_t room[4] = {7000000000, 15000000000, 60000000000, 9000000000};
  stage_table *t = c->t;
  if (stage_table_places(t, 4, n_remotes) != HF_OK) return false;
  for (int l = 0; l < t->n_layers; l++) {
    stage_layer *y = &t->layer[l];
    y->home = l * 4 / t->n_layers;
    y->attn = case_curve(20e3, 130e6, bytes_per_s[y->home], 260e6, flops_per_s[y->home]);
    for (int q = 1; q <= 4; q++) {
      stage_place *p = stage_place_of(t, l, q);
      p->exp = case_curve(2000, (double)c->bytes[l], bytes_per_s[q - 1], 0.088e9, flops_per_s[q - 1]);
      p->fixed_ns = 4e3;
      p->hand_ns = 35e3;
      p->hand_tok_ns = 1500;
      if (q == 1 + y->home) y->dexp = p->exp;
    }
  }
  case_machines_from(c, 5);
  c->p.n_devices = 4;
  for (int d = 0; d < 4; d++) {
    c->p.device[d].name = "test device";
    for (int i = 0; i < ILP_MAX_DEPTH; i++) c->p.device[d].expert_bytes_free[i] = room[d] - 64000000 * i;
  }
  return true;
}

/* Gives a one-device problem further devices and other machines: each slower or faster than the first, with its own room;
 * homes in runs of
 * layers. */
static inline bool case_more_places(ilp_case *c, int n_devices, int n_remotes, uint64_t *s) {
  stage_table *t = c->t;
  if (stage_table_places(t, n_devices, n_remotes) != HF_OK) return false;
  double speed[STAGE_MAX_PLACES];
  int64_t room[ILP_MAX_DEPTH];
  memcpy(room, c->p.device[0].expert_bytes_free, sizeof room);
  for (int q = 1; q <= n_devices + n_remotes; q++)
    speed[q] = q <= n_devices ? case_uniform(s, 0.5, 2) : case_uniform(s, 0.3, 1.2);
  for (int l = 0; l < t->n_layers; l++) {
    stage_layer *y = &t->layer[l];
    y->home = l * n_devices / t->n_layers;
    stage_curve base = y->dexp;
    for (int q = 1; q <= n_devices + n_remotes; q++) {
      stage_place *p = stage_place_of(t, l, q);
      p->exp = q <= n_devices ? base : y->cexp;
      for (int i = 0; i < p->exp.n; i++) p->exp.ns[i] /= speed[q];
      p->fixed_ns = y->dexp_fixed_ns;
      p->hand_ns = 1.5 * y->hand_ns;
      p->hand_tok_ns = y->hand_tok_ns;
      if (q == 1 + y->home) y->dexp = p->exp;
    }
    for (int i = 0; i < y->attn.n; i++) y->attn.ns[i] /= speed[1 + y->home];
  }
  c->p.n_devices = n_devices;
  for (int d = 0; d < n_devices; d++) {
    c->p.device[d].name = "test device";
    for (int i = 0; i < ILP_MAX_DEPTH; i++)
      c->p.device[d].expert_bytes_free[i] = (int64_t)((double)room[i] * case_uniform(s, 0.5, 1.2));
  }
  for (int r = 0; r < n_remotes; r++) c->p.remote_bytes[r] = 1 + (int64_t)((double)room[0] * case_uniform(s, 0.2, 2));
  return true;
}

/* A small random problem: every figure drawn, GPU-bound and CPU-bound alike, unequal sizes on request. */
static inline bool case_small(ilp_case *c, int n_layers, int n_experts, bool unequal, uint64_t seed) {
  uint64_t s = seed * 7919 + 17;
  if (!case_alloc(c, n_layers, n_experts, n_experts > 2 ? 2 : 1)) return false;
  double speed = exp(case_uniform(&s, log(0.3), log(12))); /* device faster than the CPU by this factor */
  bool linear = seed % 3 == 0;                             /* times proportional to tokens: where micro-batches pay */
  int64_t total = 0;
  for (int l = 0; l < n_layers; l++) {
    stage_layer *y = &c->t->layer[l];
    y->moe = n_layers < 3 || l != 1; /* a dense layer in between */
    double e = case_uniform(&s, 50e3, 150e3);
    y->attn = case_curve(case_uniform(&s, 0, linear ? 1e3 : 60e3), 1e6, 1e12, linear ? case_uniform(&s, 2e4, 1e5) : 1e3, 1e9);
    y->attn_seq_ctx_ns = case_uniform(&s, 0, 2);
    y->shared = case_curve(case_uniform(&s, 0, 50e3), 1e5, 1e12, 1e6, 1e12);
    y->cexp = case_curve(case_uniform(&s, 0, 5e3), e, 1e9, e * (linear ? 1.2 : case_uniform(&s, 0.05, 0.6)), 1e9);
    y->dexp = case_curve(case_uniform(&s, 0, 5e3), e / speed, 1e9, e * case_uniform(&s, 0.01, 0.3) / speed, 1e9);
    y->cexp_fixed_ns = case_u64(&s) % 2 ? case_uniform(&s, 0, 30e3) : 0;
    y->dexp_fixed_ns = case_u64(&s) % 2 ? case_uniform(&s, 0, 30e3) : 0;
    y->hand_ns = case_u64(&s) % 2 ? case_uniform(&s, 0, linear ? 8e3 : 80e3) : 0;
    y->hand_tok_ns = case_uniform(&s, 0, 2e3);
    c->bytes[l] = unequal ? 600 * (2 + (int64_t)(case_u64(&s) % 4)) : 1000;
    if (y->moe) total += c->bytes[l] * n_experts;
    case_popularity(c->pop, l, c->t->top_k, case_u64(&s) % 4 == 0 ? 0 : case_uniform(&s, 0.2, 1.6), &s);
  }
  c->t->head = case_curve(10e3, 1e6, 1e12, 1e6, 1e12);
  c->t->step_fixed_ns = case_uniform(&s, 0, 50e3);
  c->p.users = 1 + (int)(case_u64(&s) % 9);
  c->p.context = 100;
  double share = case_uniform(&s, 0, 1.1);
  for (int d = 0; d < ILP_MAX_DEPTH; d++)
    c->p.device[0].expert_bytes_free[d] =
        (int64_t)(share * (double)total) - 700 * d > 0 ? (int64_t)(share * (double)total) - 700 * d : 0;
  return true;
}

/* Effort is counted, not timed, so that a slow or busy machine changes nothing. */
static inline void case_add_work(ilp_counters *sum, const ilp_counters *c) {
  sum->table_evaluations += c->table_evaluations;
  sum->refined += c->refined;
  sum->lp_iterations += c->lp_iterations;
  sum->nodes += c->nodes;
  sum->moves += c->moves;
  sum->priced += c->priced;
  sum->expert_times += c->expert_times;
  sum->glpk_solves += c->glpk_solves;
}

/* The first counter that is over what is recorded by more than half; NULL: none. Another version of GLPK may take another way, twice the work
 * is no other way. */
static inline const char *case_more_work(const ilp_counters *spent, const ilp_counters *recorded) {
  const struct {
    const char *name;
    int64_t now, then;
  } of[] = {{"table evaluations", spent->table_evaluations, recorded->table_evaluations},
            {"columns refined", spent->refined, recorded->refined},
            {"simplex iterations", spent->lp_iterations, recorded->lp_iterations},
            {"nodes", spent->nodes, recorded->nodes},
            {"exchanges valued", spent->moves, recorded->moves},
            {"sets priced", spent->priced, recorded->priced},
            {"times of experts", spent->expert_times, recorded->expert_times},
            {"solves", spent->glpk_solves, recorded->glpk_solves}};
  for (size_t i = 0; i < sizeof of / sizeof *of; i++)
    if (2 * of[i].now > 3 * of[i].then) return of[i].name;
  return NULL;
}

#endif
