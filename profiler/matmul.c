/* matmul.c: matrix products of every candidate the dispatch table offers for a format's own activation type, and from the best
 * one's point at 64 tokens the arithmetic rates of the machine.
 *
 * One sample is several products on matrices that follow each other in a ring, rows split over the workers as the executor
 * splits them, no barrier between the products; the time of waking the workers for nothing is taken off: the least that was seen,
 * and little of a sample. What waking takes while other programs have a CPU is a turn of the scheduler, longer than the whole
 * sample, and taking that off made products look ten times as fast as they are. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "profiler/profile.h"
#include "profiler/rings.h"

/* Rates are those of RATE_TOKENS tokens; quick mode measures no more than that. */
enum {
  MOST_TOKENS = 512,
  RATE_TOKENS = 64,
  MOST_MATRICES = 512,
  MOST_CANDIDATES = 16,
  SAMPLE_NS = 200000,
  WAKE_MOST_NS = SAMPLE_NS / 10
};

typedef struct {
  pool *p;
  const kern_mm_candidate *c;
  kern_mat *w;
  int n_matrices, next, per_sample, n_tok, most_tok;
  double wake_ns; /* of the pool, the least seen */
  const void *x[MOST_TOKENS];
  float *y[MOST_TOKENS];
} bench;

/* The output head is asked for users' last tokens, never for a prompt's. */
static int most_tokens(const profile *p, int rows) {
  enum { HEAD_ROWS = 32768 };
  return p->o.quick || prof_late(p) || rows > HEAD_ROWS ? RATE_TOKENS : MOST_TOKENS;
}

static void products(void *arg, int thread, int n_threads) {
  bench *b = arg;
  int blocks = (b->w[0].n_rows + 15) / 16; /* sixteen rows lie in one cache line of the result */
  int lo = (int)((int64_t)blocks * thread / n_threads) * 16, hi = (int)((int64_t)blocks * (thread + 1) / n_threads) * 16;
  if (hi > b->w[0].n_rows) hi = b->w[0].n_rows;
  for (int i = 0; i < b->per_sample && lo < hi; i++) b->c->fn(&b->w[(b->next + i) % b->n_matrices], lo, hi, b->n_tok, b->x, b->y);
}

static double sample(void *user) {
  bench *b = user;
  int64_t t0 = hf_now_ns();
  pool_run(b->p, products, b);
  double ns = (double)(hf_now_ns() - t0);
  b->next = (b->next + b->per_sample) % b->n_matrices;
  return ns;
}

static void nothing(void *arg, int thread, int n_threads) {
  (void)arg, (void)thread, (void)n_threads;
}

static double sample_wake(void *user) {
  bench *b = user;
  int64_t t0 = hf_now_ns();
  pool_run(b->p, nothing, b);
  return (double)(hf_now_ns() - t0);
}

static hf_status add_point(profile *p, const bench *b, const stats *each) {
  const kern_mat *w = &b->w[0];
  rec_kernel_point k = {.n_out = w->n_rows,
                        .n_in = w->n_cols,
                        .tokens = b->n_tok,
                        .threads = pool_threads(b->p),
                        .bytes = (int64_t)ring_matrix_bytes(w->format, w->n_rows, w->n_cols)};
  snprintf(k.kernel, sizeof k.kernel, "matmul");
  snprintf(k.candidate, sizeof k.candidate, "%s", b->c->name);
  snprintf(k.format, sizeof k.format, "%s", kern_format_name(w->format));
  snprintf(k.act, sizeof k.act, "%s", kern_act_name(b->c->act));
  return prof_add_point(p, &k, each);
}

static stats time_tokens(profile *p, bench *b, int tokens) {
  b->n_tok = tokens;
  b->per_sample = 1;
  double once = sample(b);
  for (int k = 0; k < 4; k++) once = fmin(once, sample(b));
  once = fmax(once - fmin(b->wake_ns, 0.5 * once), 1);
  b->per_sample = once < SAMPLE_NS ? (int)(SAMPLE_NS / once) : 1;
  stats s = prof_time(p, sample, b);
  return stats_share(&s, fmin(b->wake_ns, WAKE_MOST_NS), b->per_sample, 0.5);
}

static stats again(profile *p, void *user, const rec_kernel_point *k) {
  return time_tokens(p, user, k->tokens);
}

/* Products take four or eight tokens at a time: one more than that starts another pass. */
static const int token_counts[] = {1, 2, 4, 5, 8, 9, 16, 32, 64, 128, 256, 512};
enum { N_TOKEN_COUNTS = sizeof token_counts / sizeof *token_counts };

/* Beside the ends, the points that a plan can do without first. Of a library's products, which are for many tokens, quick takes the one that
 * rates are of. */
static bool left_out(const profile *p, const kern_mm_candidate *c, int tokens) {
  if (!p->o.quick) return false;
  if (c->library) return tokens != RATE_TOKENS;
  return tokens == 2 || tokens == 32 || (prof_over_budget(p) && (tokens == 4 || tokens == 8 || tokens == 9));
}

static bool takes(const profile *p, const bench *b, int tokens) {
  if (tokens > b->most_tok || tokens > most_tokens(p, b->w[0].n_rows)) return false;
  if (tokens < b->c->min_tok || left_out(p, b->c, tokens)) return false;
  return !prof_late(p) || tokens == 1 || tokens == 16 || tokens == RATE_TOKENS;
}

static void reverse(rec_kernel_point *k, int n) {
  for (int i = 0; i < n / 2; i++) {
    const rec_kernel_point held = k[i];
    k[i] = k[n - 1 - i];
    k[n - 1 - i] = held;
  }
}

/* One candidate over tokens; best[i] is the fastest of the candidates so far at token_counts[i]. A library's begins where it is at its best, with
 * the most tokens. */
static hf_status measure_candidate(profile *p, bench *b, double best[N_TOKEN_COUNTS]) {
  int from = p->n_point;
  for (int step = 0; step < N_TOKEN_COUNTS; step++) {
    const int i = b->c->library ? N_TOKEN_COUNTS - 1 - step : step, tokens = token_counts[i];
    if (!takes(p, b, tokens)) continue;
    stats each = time_tokens(p, b, tokens);
    HF_TRY(add_point(p, b, &each));
    /* a candidate that is far behind where it should be good does not catch up, and would take most of the time */
    if (best[i] > 0 && each.median > (b->c->library ? 1.5 : 3) * best[i]) break;
    if (!(best[i] > 0) || each.median < best[i]) best[i] = each.median;
  }
  if (b->c->library) reverse(p->point + from, p->n_point - from);
  prof_in_order(p, from, again, b);
  return HF_OK;
}

static hf_status lay_out(bench *b, kern_layout l) {
  for (int i = 0; i < b->n_matrices; i++)
    if (b->w[i].layout != l) HF_TRY(ring_fill(l, &b->w[i]));
  return HF_OK;
}

/* Turning weights into what a library takes only pays where the own product is plain C: quick does not look whether it does elsewhere. */
static bool skipped(const profile *p, const bench *b) {
  const kern_mm_candidate *c = b->c;
  if (b->w[0].n_cols % c->col_multiple) return true;
  if (!p->o.quick || !c->library || c->format == KF_F32 || c->format == KF_BF16) return false;
  return c->rounded || kern_mm_pick(c->format, c->act, c->layout, b->w[0].n_cols, RATE_TOKENS, NULL)->isa != KERN_ISA_SCALAR;
}

static hf_status all_candidates(profile *p, bench *b, kern_format f, const char *packed, size_t packed_bytes, float *y) {
  const kern_mm_candidate *list[MOST_CANDIDATES];
  const kern_mat *w = &b->w[0];
  kern_act act = kern_act_of(f, false);
  int n = kern_mm_candidates(kern_get()->isa, f, act, list, MOST_CANDIDATES);
  if (n > MOST_CANDIDATES) n = MOST_CANDIDATES;
  for (int t = 0; t < b->most_tok; t++) {
    b->x[t] = packed + (size_t)t * packed_bytes;
    b->y[t] = y + (size_t)t * (size_t)w->n_rows;
  }
  for (int i = 0; i < p->n_pools; i++) {
    double best[N_TOKEN_COUNTS] = {0};
    b->p = p->pools[i];
    b->next = 0;
    b->wake_ns = prof_time(p, sample_wake, b).least;
    /* own ones first, the best of them in any case; the scalar reference behind others, and a library's, only when there is time */
    for (int c = 0, done = 0; c < 2 * n; c++) {
      b->c = list[c % n];
      if (b->c->library != (c >= n) || skipped(p, b)) continue;
      if (done > 0 && (prof_late(p) || (p->o.quick && (prof_over_budget(p) || b->c->isa == KERN_ISA_SCALAR)))) continue;
      HF_TRY(lay_out(b, b->c->layout));
      HF_TRY(measure_candidate(p, b, best));
      done++;
    }
  }
  return HF_OK;
}

static hf_status measure_format(profile *p, const prof_shape *s, kern_format f) {
  if (s->cols % kern_block(f)) return HF_OK;
  p->from_cache = s->resident;
  size_t each = ring_matrix_bytes(f, s->rows, s->cols), packed_bytes = kern_act_bytes(kern_act_of(f, false), s->cols);
  bench b = {.n_matrices = ring_items(p, s, (int64_t)each, MOST_MATRICES), .most_tok = most_tokens(p, s->rows)};
  size_t tokens = (size_t)b.most_tok;
  size_t ring_bytes = each * (size_t)b.n_matrices;
  void *ring = NULL, *packed = NULL, *y = NULL;
  float *x = NULL;
  hf_status st;
  HF_GO(out, mem_alloc(ring_bytes, -1, "weights", &ring));
  HF_GO(out, mem_alloc(tokens * packed_bytes, -1, "packed activations", &packed));
  HF_GO(out, mem_alloc(tokens * (size_t)s->rows * sizeof(float), -1, "results", &y));
  HF_GO(out, hf_alloc(&b.w, (size_t)b.n_matrices, sizeof *b.w, "matrices"));
  HF_GO(out, hf_alloc(&x, (size_t)s->cols, sizeof *x, "activations"));
  for (int i = 0; i < b.n_matrices; i++) {
    b.w[i] = (kern_mat){f, KL_ROWS, s->rows, s->cols, kern_row_bytes(f, s->cols), (char *)ring + (size_t)i * each};
    pool_spread_rows(p->pools[0], ring, ring_bytes, (size_t)i * each, s->rows, b.w[i].row_bytes);
    HF_GO(out, ring_fill(KL_ROWS, &b.w[i]));
  }
  for (int t = 0; t < b.most_tok; t++) {
    prof_random(x, s->cols, (uint64_t)t + 11);
    kern_get()->pack[kern_act_of(f, false)](x, s->cols, (char *)packed + (size_t)t * packed_bytes);
  }
  st = all_candidates(p, &b, f, packed, packed_bytes, y);
out:
  mem_free(ring, ring_bytes, -1);
  mem_free(packed, tokens * packed_bytes, -1);
  mem_free(y, tokens * (size_t)s->rows * sizeof(float), -1);
  free(b.w);
  free(x);
  return st;
}

/* Rates: the most that any product of the format reached with that many threads at 64 tokens. */
static hf_status add_flops(profile *p, kern_format f, const char *what, const char *unit) {
  for (int i = 0; i < p->n_pools; i++) {
    int threads = pool_threads(p->pools[i]);
    stats best = {0};
    for (int k = 0; k < p->n_point; k++) {
      const rec_kernel_point *r = &p->point[k];
      if (strcmp(r->kernel, "matmul") != 0 || r->tokens != RATE_TOKENS || r->threads != threads || !(r->ns > 0)) continue;
      if (strcmp(r->format, kern_format_name(f)) != 0) continue;
      stats ns = {.median = r->ns, .low = r->ns_low, .high = r->ns_high, .spread = r->spread, .n = r->n};
      stats rate = stats_rate(&ns, 1e9 * 2 * RATE_TOKENS * (double)r->n_out * r->n_in);
      if (rate.median > best.median) best = rate;
    }
    if (!(best.median > 0)) continue;
    char params[32];
    snprintf(params, sizeof params, "threads=%d", threads);
    HF_TRY(prof_add_figure(p, "cpu", what, params, unit, &best, "hf-profile: the fastest product at 64 tokens"));
  }
  return HF_OK;
}

static hf_status measure_shapes(profile *p, int i) {
  for (int k = 0; k < p->shapes.n_matmul; k++) {
    const prof_shape *s = &p->shapes.matmul[k];
    if (!ring_wanted(p, s, i)) continue;
    HF_TRY(measure_format(p, s, ring_formats[i]));
  }
  return HF_OK;
}

static void drop_points(profile *p, kern_format f) {
  int kept = 0;
  for (int i = 0; i < p->n_point; i++) {
    const rec_kernel_point *k = &p->point[i];
    if (strcmp(k->kernel, "matmul") != 0 || strcmp(k->format, kern_format_name(f)) != 0) p->point[kept++] = *k;
  }
  p->n_point = kept;
}

/* Products of a format, and the rate that follows, until one of several threads is possible beside that of one. */
static hf_status measure_rate(profile *p, kern_format f, const char *what, const char *unit) {
  int from = p->n_figure;
  for (int tries = 1;; tries++) {
    HF_TRY(add_flops(p, f, what, unit));
    if (!prof_impossible(p, from) || tries == PROF_TRIES) break;
    p->n_figure = from;
    drop_points(p, f);
    prof_more_time(p);
    for (int i = 0; i < KF_N; i++)
      if (ring_formats[i] == f) HF_TRY(measure_shapes(p, i));
  }
  prof_mark_doubtful(p, from);
  return HF_OK;
}

hf_status prof_matmul(profile *p) {
  for (int i = 0; i < KF_N; i++) {
    if (!prof_unit_begin(p, "matmul/%s", kern_format_name(ring_formats[i]))) continue;
    HF_TRY(measure_shapes(p, i));
    HF_TRY(prof_unit_end(p));
  }
  HF_TRY(measure_rate(p, KF_Q8_0, "cpu_flops_int8", "OP/s"));
  HF_TRY(measure_rate(p, KF_BF16, "cpu_flops_bf16", "FLOP/s"));
  HF_TRY(measure_rate(p, KF_F16, "cpu_flops_fp16", "FLOP/s"));
  return measure_rate(p, KF_F32, "cpu_flops_f32", "FLOP/s");
}
