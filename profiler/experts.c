/* experts.c: routed experts as the executor computes them: kernels/moe.h, every worker, one barrier between the phases.
 *
 * ACTIVE different experts with M tokens each run in one call; a ring of experts larger than the last-level cache makes sure
 * that their weights come from memory (or a small ring, that they come from cache: small models). The time of a call without
 * any active expert is the fixed cost of a layer, which is stored apart (layer_fixed_ns): it is taken off, and the rest
 * divided by the number of active experts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/moe.h"
#include "profiler/profile.h"
#include "profiler/rings.h"

enum { MOST_TOKENS = 64, MOST_ACTIVE = 8, MOST_EXPERTS = 256 };

typedef struct {
  pool *p;
  moe *m;
  moe_job job;
  moe_expert *experts; /* ring */
  int n_experts, active, next;
  int32_t *ids; /* [MOST_TOKENS][active] */
  int order[MOST_EXPERTS];
} bench;

static void run_job(void *arg, int thread, int n_threads) {
  bench *b = arg;
  moe_run(b->m, &b->job, b->p, thread, n_threads);
}

/* The next `active` experts of the ring in a scattered order, the same ones for every token, ids ascending. A router jumps from
 * expert to expert too, and what was read one after another is prefetched too well; each comes once a round, so that none is
 * still in cache when it comes again. */
static void choose(bench *b) {
  for (int k = 0; k < b->active; k++) {
    int32_t id = b->order[(b->next + k) % b->n_experts];
    int at = k;
    for (; at > 0 && b->ids[at - 1] > id; at--) b->ids[at] = b->ids[at - 1];
    b->ids[at] = id;
  }
  b->next = (b->next + b->active) % b->n_experts;
  for (int t = 1; t < b->job.n_tok; t++) {
    memcpy(b->ids + (size_t)t * (size_t)b->active, b->ids, (size_t)b->active * sizeof *b->ids);
  }
}

static void scatter(bench *b) {
  uint64_t z = 88172645463325252u;
  for (int e = 0; e < b->n_experts; e++) b->order[e] = e;
  for (int e = b->n_experts - 1; e > 0; e--) {
    z ^= z << 13;
    z ^= z >> 7;
    z ^= z << 17;
    int with = (int)(z % (uint64_t)(e + 1)), held = b->order[e];
    b->order[e] = b->order[with];
    b->order[with] = held;
  }
}

static double sample(void *user) {
  bench *b = user;
  choose(b);
  int64_t t0 = hf_now_ns();
  pool_run(b->p, run_job, b);
  return (double)(hf_now_ns() - t0);
}

/* A layer none of whose experts is here: waking, sorting, packing, barriers. */
static double sample_empty(void *user) {
  bench *b = user;
  const moe_expert *experts = b->job.experts;
  static const moe_expert none[MOST_EXPERTS];
  choose(b);
  b->job.experts = none;
  int64_t t0 = hf_now_ns();
  pool_run(b->p, run_job, b);
  double ns = (double)(hf_now_ns() - t0);
  b->job.experts = experts;
  return ns;
}

static kern_mat matrix(kern_format f, int rows, int cols, char **at) {
  kern_mat m = {f, KL_ROWS, rows, cols, kern_row_bytes(f, cols), *at};
  *at += ring_matrix_bytes(f, rows, cols);
  return m;
}

static hf_status add_point(profile *p, const bench *b, const prof_shape *s, kern_format f, int tokens, const stats *ns,
                           int64_t bytes) {
  rec_kernel_point k = {.n_out = s->rows, .n_in = s->cols, .tokens = tokens, .threads = pool_threads(b->p), .bytes = bytes};
  kern_act act = kern_act_of(f, false);
  snprintf(k.kernel, sizeof k.kernel, "expert_ffn");
  snprintf(k.candidate, sizeof k.candidate, "%s", kern_mm_pick(f, act, kern_best_layout(f, act), s->cols, tokens, NULL)->name);
  snprintf(k.format, sizeof k.format, "%s", kern_format_name(f));
  snprintf(k.act, sizeof k.act, "%s", kern_act_name(act));
  return prof_add_point(p, &k, ns);
}

static hf_status measure(profile *p, bench *b, const prof_shape *s, kern_format f, int64_t expert_bytes) {
  b->job.n_tok = 1;
  stats empty = prof_time(p, sample_empty, b);
  for (int tokens = 1; tokens <= MOST_TOKENS; tokens *= 2) {
    if (p->o.quick && (tokens == 2 || tokens == 32)) continue;
    if (prof_over_budget(p) && p->o.quick && tokens > 16) break;
    b->job.n_tok = tokens;
    stats t = prof_time(p, sample, b);
    /* the fixed part is never more than nine tenths of what was measured; its least value, so that a bad moment hides no work */
    stats each = stats_share(&t, empty.least, b->active, 0.1);
    HF_TRY(add_point(p, b, s, f, tokens, &each, expert_bytes));
  }
  return HF_OK;
}

static hf_status with_pool(profile *p, bench *b, const prof_shape *s, kern_format f, int64_t expert_bytes, float *x, float *y,
                           float *w) {
  moe_shape shape = {b->n_experts, b->active, s->cols, s->rows, MOST_TOKENS, false};
  HF_TRY(moe_new(&shape, pool_threads(b->p), &b->m));
  b->job =
      (moe_job){.experts = b->experts, .x = x, .x_stride = s->cols, .ids = b->ids, .weights = w, .y = y, .y_stride = s->cols};
  hf_status st = measure(p, b, s, f, expert_bytes);
  moe_free(b->m);
  b->m = NULL;
  return st;
}

/* Times of several threads below one thread's over their number: the fixed part that was taken off had a bad moment. Caches of several cores
 * hold more than one's, so some of that is possible. True: measure again; in the last round the high end becomes what is possible. */
static bool repair(profile *p, int from, bool last) {
  static const double POSSIBLE = 1.5;
  for (int i = from; i < p->n_point; i++) {
    rec_kernel_point *k = &p->point[i];
    for (int j = from; j < p->n_point && k->threads > 1; j++) {
      const rec_kernel_point *one = &p->point[j];
      if (one->threads != 1 || one->tokens != k->tokens || one->ns <= POSSIBLE * k->threads * k->ns) continue;
      if (!last) return true;
      k->ns_high = fmax(k->ns_high, one->ns / k->threads);
      k->spread = (k->ns_high - k->ns_low) / k->ns;
    }
  }
  return false;
}

static hf_status measure_format(profile *p, const prof_shape *s, kern_format f) {
  if (s->cols % kern_block(f) || s->rows % kern_block(f)) return HF_OK;
  int64_t matrix_bytes = (int64_t)(2 * ring_matrix_bytes(f, s->rows, s->cols) + ring_matrix_bytes(f, s->cols, s->rows));
  bench b = {.n_experts = ring_items(p, s, matrix_bytes, MOST_EXPERTS)};
  b.active = b.n_experts < MOST_ACTIVE ? b.n_experts : MOST_ACTIVE;
  scatter(&b);
  size_t ring_bytes = (size_t)(matrix_bytes * b.n_experts), xy = (size_t)MOST_TOKENS * (size_t)s->cols;
  void *ring = NULL;
  float *x = NULL;
  hf_status st;
  HF_GO(out, mem_alloc(ring_bytes, -1, "expert weights", &ring));
  HF_GO(out, hf_alloc(&b.experts, (size_t)b.n_experts, sizeof *b.experts, "experts"));
  HF_GO(out, hf_alloc(&b.ids, (size_t)MOST_TOKENS * (size_t)b.active, sizeof *b.ids, "expert ids"));
  HF_GO(out, hf_alloc(&x, 2 * xy + (size_t)MOST_TOKENS * (size_t)b.active, sizeof *x, "activations"));
  prof_random(x, (int)xy, 3);
  prof_random(x + 2 * xy, MOST_TOKENS * b.active, 5);
  char *at = ring;
  kern_layout layout = kern_best_layout(f, kern_act_of(f, false)); /* as they are loaded */
  for (int e = 0; e < b.n_experts; e++) {
    b.experts[e].gate = matrix(f, s->rows, s->cols, &at);
    b.experts[e].up = matrix(f, s->rows, s->cols, &at);
    b.experts[e].down = matrix(f, s->cols, s->rows, &at);
    HF_GO(out, ring_fill(layout, &b.experts[e].gate));
    HF_GO(out, ring_fill(layout, &b.experts[e].up));
    HF_GO(out, ring_fill(layout, &b.experts[e].down));
  }
  for (int from = p->n_point, tries = 1; st == HF_OK; tries++) {
    for (int i = 0; i < p->n_pools && st == HF_OK; i++) {
      b.p = p->pools[i];
      st = with_pool(p, &b, s, f, matrix_bytes, x, x + xy, x + 2 * xy);
    }
    if (st != HF_OK || !repair(p, from, tries == PROF_TRIES)) break;
    p->n_point = from;
    prof_more_time(p);
  }
out:
  mem_free(ring, ring_bytes, -1);
  free(b.experts);
  free(b.ids);
  free(x);
  return st;
}

hf_status prof_experts(profile *p) {
  for (int i = 0; i < KF_N; i++) {
    for (int k = 0; k < p->shapes.n_expert; k++) {
      const prof_shape *s = &p->shapes.expert[k];
      if (!ring_wanted(p, s, i)) continue;
      HF_TRY(measure_format(p, s, ring_formats[i]));
    }
  }
  return HF_OK;
}
