/* The routed experts of a layer: against a plain loop in double, and bit for bit the same whatever the number of threads and whoever else
 * is in the batch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/mem.h"
#include "kernels/moe.h"

enum { MAX_TOK = 70, MAX_EXPERTS = 24, MAX_K = 8, PAD = 5, MAX_WIDTH = 1024 };
static const float GUARD = 12345.0f;

static topology topo;
static bool by_rows; /* matrices as files have them, to be cut later */
static int least_ff; /* blocks of the intermediate dimension */
static uint64_t rng = 88172645463325252ULL;

static uint32_t next_random(void) {
  rng ^= rng << 13;
  rng ^= rng >> 7;
  rng ^= rng << 17;
  return (uint32_t)(rng >> 32);
}
static int between(int lo, int hi) {
  return lo + (int)(next_random() % (uint32_t)(hi - lo + 1));
}
static float real(void) {
  return (float)((double)next_random() / 4294967296.0 * 2 - 1);
}

typedef struct {
  moe_shape shape;
  kern_format up_format, down_format;
  moe_expert expert[MAX_EXPERTS];
  int n_tok, x_stride, y_stride;
  float *x, *weights;
  int32_t *ids;
} layer;

/* The same experts in parts: [n][n_experts] slices. */
typedef struct {
  moe_parts parts;
  topology *nodes;
  moe_expert expert[4 * MAX_EXPERTS];
  void *owned[12 * MAX_EXPERTS];
  int n_owned;
} sliced;

static void *get(size_t n, size_t bytes) {
  void *p = calloc(n ? n : 1, bytes);
  assert_non_null(p);
  return p;
}

static kern_mat random_mat(kern_format f, int rows, int cols) {
  kern_mat w = {.format = f, .layout = KL_ROWS, .n_rows = rows, .n_cols = cols, .row_bytes = kern_row_bytes(f, cols)};
  char *data = get((size_t)rows, w.row_bytes);
  for (int r = 0; r < rows; r++) kern_random_row(f, next_random(), 0.25f, cols, data + (size_t)r * w.row_bytes);
  w.data = data;
  if (!by_rows && next_random() % 2 && kern_mm_pick(f, KA_F32, KL_TILE16, cols, 1, NULL)) { /* as weights are loaded */
    char *tiles = get(1, kern_mat_bytes(KL_TILE16, f, rows, cols));
    kern_tile_pack(&w, 0, rows, tiles);
    free(data);
    w.data = tiles;
    w.layout = KL_TILE16;
  }
  return w;
}

static float *random_vec(int n) {
  float *v = get((size_t)n, sizeof *v);
  for (int i = 0; i < n; i++) v[i] = real();
  return v;
}

static int random_width(kern_format f, int most) {
  int block = kern_block(f);
  return block * between(1, most / block);
}

/* Distinct experts in rising order, as a router gives them. */
static void random_choice(int n_experts, int top_k, int32_t *ids) {
  bool taken[MAX_EXPERTS] = {false};
  for (int k = 0; k < top_k;) {
    int e = between(0, n_experts - 1);
    k += !taken[e];
    taken[e] = true;
  }
  for (int e = 0; e < n_experts; e++)
    if (taken[e]) *ids++ = e;
}

static void random_layer(layer *l, kern_format up, kern_format down, bool exact, int n_tok) {
  moe_shape *s = &l->shape;
  *l = (layer){.up_format = up, .down_format = down, .n_tok = n_tok};
  s->n_experts = between(1, MAX_EXPERTS);
  s->top_k = between(1, s->n_experts < MAX_K ? s->n_experts : MAX_K);
  s->d_model = random_width(up, kern_block(up) > 192 ? kern_block(up) : 192);
  s->d_ff = random_width(down, kern_block(down) > 160 ? kern_block(down) : 160);
  if (least_ff)
    s->d_ff = kern_block(down) > 32 ? kern_block(down) * between(1, 3)
                                    : 32 * between(1, 9) - (kern_block(down) == 1 ? 2 * between(0, 9) : 0);
  s->max_tok = n_tok + between(0, 3);
  s->exact = exact;
  bool like_gpt_oss = between(0, 1); /* biases, and a limit that many values reach */
  s->swiglu_limit = like_gpt_oss ? 0.5f : 0;
  for (int e = 0; e < s->n_experts; e++) {
    if (between(0, 5) == 0 && s->n_experts > 1) continue; /* this expert is somewhere else */
    l->expert[e] = (moe_expert){random_mat(up, s->d_ff, s->d_model), random_mat(up, s->d_ff, s->d_model),
                                random_mat(down, s->d_model, s->d_ff)};
    if (!like_gpt_oss) continue;
    l->expert[e].gate_bias = random_vec(s->d_ff);
    l->expert[e].up_bias = random_vec(s->d_ff);
    l->expert[e].down_bias = random_vec(s->d_model);
  }
  l->x_stride = s->d_model + PAD;
  l->y_stride = s->d_model + PAD;
  l->x = get((size_t)n_tok * (size_t)l->x_stride, sizeof(float));
  l->ids = get((size_t)n_tok * (size_t)s->top_k, sizeof *l->ids);
  l->weights = get((size_t)n_tok * (size_t)s->top_k, sizeof(float));
  for (int i = 0; i < n_tok * l->x_stride; i++) l->x[i] = real();
  for (int t = 0; t < n_tok; t++) random_choice(s->n_experts, s->top_k, l->ids + t * s->top_k);
  for (int i = 0; i < n_tok * s->top_k; i++) l->weights[i] = real();
}

static void free_layer(layer *l) {
  for (int e = 0; e < l->shape.n_experts; e++) {
    free((void *)(uintptr_t)l->expert[e].gate.data);
    free((void *)(uintptr_t)l->expert[e].up.data);
    free((void *)(uintptr_t)l->expert[e].down.data);
    free((void *)(uintptr_t)l->expert[e].gate_bias);
    free((void *)(uintptr_t)l->expert[e].up_bias);
    free((void *)(uintptr_t)l->expert[e].down_bias);
  }
  free(l->x);
  free(l->ids);
  free(l->weights);
}

static double product(const kern_mat *w, int row, const double *x) {
  float *v = get((size_t)w->n_cols, sizeof *v);
  double sum = 0;
  kern_mat_row(w, row, v);
  for (int c = 0; c < w->n_cols; c++) sum += (double)v[c] * x[c];
  free(v);
  return sum;
}

/* y of one token, added to what is there; nothing is rounded. */
static void plain(const layer *l, int t, double *y) {
  const moe_shape *s = &l->shape;
  double x[256], h[MAX_WIDTH];
  for (int i = 0; i < s->d_model; i++) x[i] = l->x[t * l->x_stride + i];
  for (int k = 0; k < s->top_k; k++) {
    const moe_expert *e = &l->expert[l->ids[t * s->top_k + k]];
    if (!e->gate.data) continue;
    for (int i = 0; i < s->d_ff; i++) {
      double g = product(&e->gate, i, x) + (e->gate_bias ? e->gate_bias[i] : 0);
      double u = product(&e->up, i, x) + (e->up_bias ? e->up_bias[i] : 0), limit = s->swiglu_limit;
      h[i] = limit > 0 ? (fmax(fmin(u, limit), -limit) + 1) * fmin(g, limit) / (1 + exp(-1.702 * fmin(g, limit)))
                       : g / (1 + exp(-g)) * u;
    }
    for (int i = 0; i < s->d_model; i++)
      y[i] += (double)l->weights[t * s->top_k + k] * (product(&e->down, i, h) + (e->down_bias ? e->down_bias[i] : 0));
  }
}

typedef struct {
  moe *m;
  moe_job job;
  pool *p;
} call;

static void in_pool(void *arg, int thread, int n_threads) {
  call *c = arg;
  moe_run(c->m, &c->job, c->p, thread, n_threads);
}

/* Tokens first .. first + n_tok - 1 of the layer on n_threads; y gets the guards that the kernel must leave alone. */
static float *run_in(const layer *l, const sliced *in, int first, int n_tok, int n_threads, bool add, moe **out) {
  const moe_shape *s = &l->shape;
  size_t n = (size_t)n_tok * (size_t)l->y_stride;
  float *y = get(n, sizeof *y);
  call c = {0};
  for (size_t i = 0; i < n; i++) y[i] = GUARD;
  if (in || n_threads > 1) assert_int_equal(pool_new(in ? in->nodes : &topo, n_threads, &c.p), HF_OK);
  assert_int_equal(in ? moe_new_parts(s, &in->parts, c.p, &c.m) : moe_new(s, n_threads, &c.m), HF_OK);
  c.job = (moe_job){.experts = in ? in->expert : l->expert,
                    .n_tok = n_tok,
                    .x = l->x + first * l->x_stride,
                    .x_stride = l->x_stride,
                    .ids = l->ids + first * s->top_k,
                    .weights = l->weights + first * s->top_k,
                    .y = y,
                    .y_stride = l->y_stride,
                    .add = add};
  if (c.p) pool_run(c.p, in_pool, &c);
  else moe_run(c.m, &c.job, NULL, 0, 1);
  pool_free(c.p);
  for (int t = 0; t < n_tok; t++)
    for (int i = s->d_model; i < l->y_stride; i++) assert_true(y[t * l->y_stride + i] == GUARD);
  if (out) *out = c.m;
  else moe_free(c.m);
  return y;
}

static float *run(const layer *l, int first, int n_tok, int n_threads, bool add, moe **out) {
  return run_in(l, NULL, first, n_tok, n_threads, add, out);
}

/* Relative RMS that rounding activations to the format costs, with room to spare: 8 bits of a block's range, 8 and 11 bits of mantissa. */
static double tolerance(kern_format up, kern_format down, bool exact) {
  if (exact) return 1e-5;
  double of[KF_N] = {[KF_F32] = 1e-5, [KF_F16] = 3e-3, [KF_BF16] = 2e-2};
  double a = of[up] > 0 ? of[up] : 5e-2, b = of[down] > 0 ? of[down] : 5e-2; /* blocks */
  return a > b ? a : b;
}

static void check_against_plain(const layer *l, const sliced *in, int n_threads) {
  const moe_shape *s = &l->shape;
  moe *m;
  float *y = run_in(l, in, 0, l->n_tok, n_threads, false, &m);
  double err = 0, ref = 0;
  int pairs = 0, distinct = 0, used[MAX_EXPERTS] = {0};
  for (int t = 0; t < l->n_tok; t++) {
    double want[256] = {0};
    plain(l, t, want);
    for (int i = 0; i < s->d_model; i++) {
      double d = y[t * l->y_stride + i] - want[i];
      err += d * d;
      ref += want[i] * want[i];
    }
    for (int k = 0; k < s->top_k; k++) {
      int e = l->ids[t * s->top_k + k];
      if (!l->expert[e].gate.data) continue;
      pairs++;
      distinct += !used[e]++;
    }
  }
  if (!(sqrt(err / (ref > 0 ? ref : 1)) <= tolerance(l->up_format, l->down_format, s->exact)))
    fail_msg("%s/%s exact %d, %d experts top %d, %d x %d, %d tokens, %d parts: relative RMS %g", kern_format_name(l->up_format),
             kern_format_name(l->down_format), s->exact, s->n_experts, s->top_k, s->d_model, s->d_ff, l->n_tok,
             in ? in->parts.n : 1, sqrt(err / ref));
  assert_int_equal(moe_last_pairs(m), pairs);
  assert_int_equal(moe_last_distinct(m), distinct);
  int i = 0;
  for (int e = 0; e < s->n_experts; e++)
    if (used[e]) assert_int_equal(moe_last_expert_tokens(m, i++), used[e]);
  moe_free(m);
  free(y);
}

static const kern_format mixes[][2] = {{KF_F32, KF_F32},      {KF_F16, KF_F16},   {KF_BF16, KF_BF16}, {KF_Q8_0, KF_Q8_0},
                                       {KF_Q8_0, KF_F16},     {KF_BF16, KF_F32},  {KF_Q4_0, KF_Q5_1}, {KF_Q4_K, KF_Q6_K},
                                       {KF_MXFP4, KF_IQ4_NL}, {KF_Q2_K, KF_Q3_K}, {KF_Q5_K, KF_Q8_0}, {KF_INT4, KF_INT4}};
enum { N_MIXES = sizeof mixes / sizeof mixes[0] };

static void computes_what_a_plain_loop_computes(void **state) {
  (void)state;
  for (int i = 0; i < 6 * N_MIXES; i++) {
    layer l;
    random_layer(&l, mixes[i % N_MIXES][0], mixes[i % N_MIXES][1], i / N_MIXES % 2,
                 i < 2 * N_MIXES ? between(1, 3) : between(1, MAX_TOK));
    check_against_plain(&l, NULL, 1);
    free_layer(&l);
  }
}

static void same_bits(const layer *l, const float *a, const float *b, int n_tok, const char *what) {
  for (int t = 0; t < n_tok; t++)
    if (memcmp(a + t * l->y_stride, b + t * l->y_stride, (size_t)l->shape.d_model * sizeof *a))
      fail_msg("%s: token %d of %d differs (%s, %d experts)", what, t, n_tok, kern_format_name(l->up_format), l->shape.n_experts);
}

static void threads_change_no_bit(void **state) {
  (void)state;
  for (int i = 0; i < 2 * N_MIXES; i++) {
    layer l;
    random_layer(&l, mixes[i % N_MIXES][0], mixes[i % N_MIXES][1], i < N_MIXES, between(1, MAX_TOK));
    float *one = run(&l, 0, l.n_tok, 1, true, NULL);
    for (int n = 2; n <= 4; n++) {
      float *many = run(&l, 0, l.n_tok, n, true, NULL);
      same_bits(&l, one, many, l.n_tok, "threads");
      free(many);
    }
    free(one);
    free_layer(&l);
  }
}

typedef struct {
  moe *m;
  pool *p;
  const layer *l;
  const moe_expert *experts;
  float *y;
} many_runs;

/* 1, 2, … tokens of the layer, and back, without a pause between the runs. */
static void all_lengths(void *arg, int thread, int n_threads) {
  many_runs *a = arg;
  const layer *l = a->l;
  for (int i = 0; i < 2 * l->n_tok; i++) {
    const int n_tok = i < l->n_tok ? i + 1 : 2 * l->n_tok - i;
    float *y = a->y + (size_t)i * (size_t)l->n_tok * (size_t)l->y_stride; /* of its own: others may be in the next run */
    moe_job job = {a->experts, n_tok, l->x, l->x_stride, l->ids, l->weights, y, l->y_stride, false};
    moe_run(a->m, &job, a->p, thread, n_threads);
  }
}

/* One object for runs of all lengths, one right after the other: what one run leaves behind must not reach the next. */
static void runs_follow_each_other(void **state) {
  (void)state;
  for (int i = 0; i < N_MIXES; i++) {
    layer l;
    random_layer(&l, mixes[i][0], mixes[i][1], false, between(9, 14));
    float *one = run(&l, 0, l.n_tok, 1, false, NULL);
    for (int n_threads = 1; n_threads <= 3; n_threads++) {
      many_runs a = {
          .l = &l, .experts = l.expert, .y = get(2 * (size_t)l.n_tok * (size_t)l.n_tok * (size_t)l.y_stride, sizeof(float))};
      assert_int_equal(moe_new(&l.shape, n_threads, &a.m), HF_OK);
      assert_int_equal(pool_new(&topo, n_threads, &a.p), HF_OK);
      for (int k = 0; k < 2; k++) pool_run(a.p, all_lengths, &a);
      for (int k = 0; k < 2 * l.n_tok; k++)
        same_bits(&l, one, a.y + (size_t)k * (size_t)l.n_tok * (size_t)l.y_stride, k < l.n_tok ? k + 1 : 2 * l.n_tok - k, "runs");
      pool_free(a.p);
      moe_free(a.m);
      free(a.y);
    }
    free(one);
    free_layer(&l);
  }
}

static void neighbours_change_no_bit(void **state) {
  (void)state;
  for (int i = 0; i < 2 * N_MIXES; i++) {
    layer l;
    random_layer(&l, mixes[i % N_MIXES][0], mixes[i % N_MIXES][1], i < N_MIXES, between(20, MAX_TOK));
    float *all = run(&l, 0, l.n_tok, 1, false, NULL);
    for (int first = 0, n; first < l.n_tok; first += n) { /* groups of 1, 2, 3, … tokens, and the rest */
      n = first % 7 + 1 < l.n_tok - first ? first % 7 + 1 : l.n_tok - first;
      float *part = run(&l, first, n, 1, false, NULL);
      same_bits(&l, all + first * l.y_stride, part, n, "neighbours");
      free(part);
    }
    free(all);
    free_layer(&l);
  }
}

/* Experts here and experts elsewhere add up to all experts: what makes a placement exact. */
static void parts_add_up_to_the_whole(void **state) {
  (void)state;
  layer l, half;
  random_layer(&l, KF_BF16, KF_BF16, true, 33);
  for (int e = 0; e < l.shape.n_experts; e++) {
    if (l.expert[e].gate.data) continue;
    l.expert[e] =
        (moe_expert){random_mat(KF_BF16, l.shape.d_ff, l.shape.d_model), random_mat(KF_BF16, l.shape.d_ff, l.shape.d_model),
                     random_mat(KF_BF16, l.shape.d_model, l.shape.d_ff)};
  }
  float *whole = run(&l, 0, l.n_tok, 1, false, NULL), *sum = get((size_t)l.n_tok * (size_t)l.y_stride, sizeof *sum);
  for (int part = 0; part < 2; part++) {
    half = l;
    for (int e = part; e < l.shape.n_experts; e += 2) half.expert[e].gate.data = NULL;
    float *y = run(&half, 0, l.n_tok, 2, false, NULL);
    for (int i = 0; i < l.n_tok * l.y_stride; i++) sum[i] += y[i];
    free(y);
  }
  for (int t = 0; t < l.n_tok; t++)
    for (int i = 0; i < l.shape.d_model; i++)
      assert_true(fabsf(sum[t * l.y_stride + i] - whole[t * l.y_stride + i]) <= 1e-4f * (1 + fabsf(whole[t * l.y_stride + i])));
  free(sum);
  free(whole);
  free_layer(&l);
}

static void no_expert_here_is_zero_or_nothing(void **state) {
  (void)state;
  layer l;
  random_layer(&l, KF_F32, KF_F32, true, 3);
  layer none = l;
  for (int e = 0; e < MAX_EXPERTS; e++) none.expert[e].gate.data = NULL;
  moe *m;
  float *set = run(&none, 0, 3, 2, false, &m), *added = run(&none, 0, 3, 2, true, NULL);
  for (int t = 0; t < 3; t++)
    for (int i = 0; i < l.shape.d_model; i++) {
      assert_true(set[t * l.y_stride + i] == 0);
      assert_true(added[t * l.y_stride + i] == GUARD);
    }
  assert_int_equal(moe_last_distinct(m), 0);
  assert_int_equal(moe_last_pairs(m), 0);
  moe_free(m);
  free(set);
  free(added);
  free_layer(&l);
}

/* ---- experts cut over NUMA nodes ---- */

/* n nodes of 1 to 3 cores each; nothing is bound. */
static topology *fake_nodes(int n) {
  topology *t = get(1, sizeof *t);
  t->fake = true;
  t->n_nodes = n;
  for (int i = 0; i < n; i++) t->node[i].n_cores = t->node[i].n_cpus = between(1, 3);
  return t;
}

static kern_mat slice_of(sliced *o, const kern_mat *w, int row0, int row1, int col0, int col1) {
  kern_mat c = *w;
  c.data = (const char *)w->data + (size_t)row0 * w->row_bytes + kern_row_bytes(w->format, col0);
  c.n_rows = row1 - row0;
  c.n_cols = col1 - col0;
  if (o->parts.n == 1 || next_random() % 2 == 0 || !kern_mm_pick(w->format, KA_F32, KL_TILE16, c.n_cols, 1, NULL)) return c;
  void *tiles = o->owned[o->n_owned++] = get(1, kern_mat_bytes(KL_TILE16, w->format, c.n_rows, c.n_cols));
  kern_tile_pack(&c, 0, c.n_rows, tiles);
  c.row_bytes = kern_row_bytes(w->format, c.n_cols);
  c.layout = KL_TILE16;
  c.data = tiles;
  return c;
}

/* Where units of 32, or of a block, end: anywhere, each expert in its own way; a part may get all of one, or nothing. */
static void cut_expert(sliced *o, const layer *l, int e) {
  const moe_expert *w = &l->expert[e];
  const int block = l->down_format == KF_FP8 ? 128 : kern_block(l->down_format), unit = block > 32 ? block : 32,
            d_ff = l->shape.d_ff;
  bool first = true;
  for (int p = 0, at = 0; p < o->parts.n; p++) {
    const int end = p + 1 == o->parts.n ? d_ff : at + unit * between(0, (d_ff - at + unit - 1) / unit),
              to = end < d_ff ? end : d_ff;
    if (to == at) continue;
    o->expert[p * l->shape.n_experts + e] = (moe_expert){.gate = slice_of(o, &w->gate, at, to, 0, w->gate.n_cols),
                                                         .up = slice_of(o, &w->up, at, to, 0, w->up.n_cols),
                                                         .down = slice_of(o, &w->down, 0, w->down.n_rows, at, to),
                                                         .gate_bias = w->gate_bias ? w->gate_bias + at : NULL,
                                                         .up_bias = w->up_bias ? w->up_bias + at : NULL,
                                                         .down_bias = first ? w->down_bias : NULL};
    if (to - at > o->parts.d_ff[p]) o->parts.d_ff[p] = to - at;
    first = false;
    at = to;
  }
}

static void cut_layer(const layer *l, int n_parts, sliced *o) {
  *o = (sliced){.parts = {.n = n_parts}, .nodes = fake_nodes(n_parts)};
  for (int p = 0; p < n_parts; p++) {
    o->parts.node[p] = p;
    o->parts.d_ff[p] = 1;
  }
  for (int e = 0; e < l->shape.n_experts; e++)
    if (l->expert[e].gate.data) cut_expert(o, l, e);
}

static void free_sliced(sliced *o) {
  for (int i = 0; i < o->n_owned; i++) free(o->owned[i]);
  free(o->nodes);
}

static const kern_format cuts[][2] = {{KF_F32, KF_F32},   {KF_BF16, KF_BF16},  {KF_F16, KF_F16},
                                      {KF_Q8_0, KF_Q8_0}, {KF_FP8, KF_FP8},    {KF_Q4_K, KF_Q6_K},
                                      {KF_Q8_0, KF_Q4_K}, {KF_MXFP4, KF_INT4}, {KF_NVFP4, KF_NVFP4}};
enum { N_CUTS = sizeof cuts / sizeof cuts[0] };

/* Parts of 1, 2 and 4 nodes, fewer threads than nodes and more: what a plain loop computes, equal bits for any threads and neighbours, and one part
 * gives the bits of an expert that was not cut. */
static void nodes_add_up(void **state) {
  (void)state;
  by_rows = true;
  least_ff = 1;
  for (int i = 0; i < 6 * N_CUTS; i++) {
    static sliced in;
    layer l;
    const int n_parts = 1 << i / N_CUTS % 3;
    random_layer(&l, cuts[i % N_CUTS][0], cuts[i % N_CUTS][1], i / N_CUTS % 2,
                 i < 3 * N_CUTS ? between(1, 9) : between(9, MAX_TOK));
    cut_layer(&l, n_parts, &in);
    float *one = run_in(&l, &in, 0, l.n_tok, 1, true, NULL);
    if (n_parts == 1) {
      float *uncut = run(&l, 0, l.n_tok, 1, true, NULL);
      same_bits(&l, one, uncut, l.n_tok, "one part");
      free(uncut);
    }
    check_against_plain(&l, &in, 3);
    for (int threads = 1; threads <= 5; threads += 1 + threads / 3) {
      float *many = run_in(&l, &in, 0, l.n_tok, threads, true, NULL);
      same_bits(&l, one, many, l.n_tok, "threads of nodes");
      free(many);
    }
    for (int first = 0, n; first < l.n_tok; first += n) {
      n = first % 11 + 1 < l.n_tok - first ? first % 11 + 1 : l.n_tok - first;
      float *some = run_in(&l, &in, first, n, 3, true, NULL);
      same_bits(&l, one + first * l.y_stride, some, n, "neighbours on nodes");
      free(some);
    }
    free(one);
    free_sliced(&in);
    free_layer(&l);
  }
  by_rows = false;
  least_ff = 0;
}

/* All lengths through one object, on nodes: counters of a run must be clear for the next. */
static void runs_on_nodes_follow_each_other(void **state) {
  (void)state;
  by_rows = true;
  least_ff = 1;
  for (int i = 0; i < N_CUTS; i++) {
    static sliced in;
    layer l;
    random_layer(&l, cuts[i][0], cuts[i][1], false, between(9, 14));
    cut_layer(&l, i % 2 ? 2 : 4, &in);
    float *one = run_in(&l, &in, 0, l.n_tok, 1, false, NULL);
    for (int n_threads = 1; n_threads <= 5; n_threads += 2) {
      many_runs a = {
          .l = &l, .experts = in.expert, .y = get(2 * (size_t)l.n_tok * (size_t)l.n_tok * (size_t)l.y_stride, sizeof(float))};
      assert_int_equal(pool_new(in.nodes, n_threads, &a.p), HF_OK);
      assert_int_equal(moe_new_parts(&l.shape, &in.parts, a.p, &a.m), HF_OK);
      for (int k = 0; k < 2; k++) pool_run(a.p, all_lengths, &a);
      for (int k = 0; k < 2 * l.n_tok; k++)
        same_bits(&l, one, a.y + (size_t)k * (size_t)l.n_tok * (size_t)l.y_stride, k < l.n_tok ? k + 1 : 2 * l.n_tok - k, "runs");
      moe_free(a.m);
      pool_free(a.p);
      free(a.y);
    }
    free(one);
    free_sliced(&in);
    free_layer(&l);
  }
  by_rows = false;
  least_ff = 0;
}

static void lack_of_memory_is_an_error(void **state) {
  (void)state;
  moe_shape s = {.n_experts = 4, .top_k = 2, .d_model = 64, .d_ff = 64, .max_tok = 4};
  const moe_parts parts = {.n = 2, .node = {0, 1}, .d_ff = {32, 32}};
  topology *nodes = fake_nodes(2);
  for (int on_nodes = 0; on_nodes < 2; on_nodes++) {
    pool *p = NULL;
    int failed = 0;
    assert_int_equal(pool_new(nodes, 2, &p), HF_OK);
    for (int n = 1;; n++) {
      moe *m = NULL;
      hf_fail_alloc_at(n);
      hf_status st = on_nodes ? moe_new_parts(&s, &parts, p, &m) : moe_new(&s, 2, &m);
      hf_fail_alloc_at(0);
      if (st == HF_OK) {
        moe_free(m);
        break;
      }
      assert_int_equal(st, HF_MACHINE);
      assert_null(m);
      failed++;
    }
    assert_true(failed >= 5);
    pool_free(p);
  }
  free(nodes);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(computes_what_a_plain_loop_computes),
      cmocka_unit_test(threads_change_no_bit),
      cmocka_unit_test(runs_follow_each_other),
      cmocka_unit_test(neighbours_change_no_bit),
      cmocka_unit_test(parts_add_up_to_the_whole),
      cmocka_unit_test(no_expert_here_is_zero_or_nothing),
      cmocka_unit_test(nodes_add_up),
      cmocka_unit_test(runs_on_nodes_follow_each_other),
      cmocka_unit_test(lack_of_memory_is_an_error),
  };
  if (kern_init(NULL) != HF_OK || topo_get(&topo) != HF_OK) {
    fprintf(stderr, "%s\n", hf_error_line());
    return 1;
  }
  return cmocka_run_group_tests(tests, NULL, NULL);
}
