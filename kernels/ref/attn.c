/* attn.c: the definition of attention over a paged KV cache: segments of the context one after another, in each one pass with the softmax
 * kept online (running maximum m, running sum of exp(s - m), running weighted sum), one context row at a time.
 *
 * A partial result is, row by row: dv sums, m, sum. */
#include <math.h>

#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/ref/ref.h"

static float element(const kern_kv *kv, const char *row, int i) {
  switch (kv->type) {
    case KV_F16: return half_from_f16(half_load_u16(row + (size_t)i * 2));
    case KV_BF16: return half_from_bf16(half_load_u16(row + (size_t)i * 2));
    default: return half_load_f32(row + (size_t)i * 4);
  }
}

/* Token i of KV head g in a cache of numbers: its key, whose elements lie `step` apart, and its value. */
typedef struct {
  const char *k, *v;
  int step;
} token_at;

static token_at token_of(const kern_attn *a, int g, int i) {
  const size_t bytes = a->kv.type == KV_F32 ? 4 : 2;
  const char *row = kern_kv_row(&a->kv, i);
  if (a->mla) return (token_at){row, row, 1};
  if (a->many || !kv_in_groups(&a->kv))
    return (token_at){row + (size_t)(g * a->dk) * bytes, row + (size_t)(a->n_kv_heads * a->dk + g * a->dv) * bytes, 1};
  const kv_head h = kv_head_of(a->kv.type, a->dk, a->dv);
  const char *head = kv_group(&a->kv, i) + (size_t)g * h.bytes;
  const int t = i % KERN_KV_GROUP;
  return (token_at){head + (size_t)t * bytes, head + h.values + (size_t)(t * a->dv) * bytes, KERN_KV_GROUP};
}

/* Token i of KV head g in a cache of Q8_0: where its numbers and scales are. */
typedef struct {
  const char *k, *k_scale, *v, *v_scale;
  bool rows; /* MLA: numbers and scales of a row side by side */
} q8_token;

static q8_token q8_of(const kern_attn *a, int g, int i) {
  const int t = i % KERN_KV_GROUP;
  if (a->mla) {
    const char *row = kern_kv_row(&a->kv, i), *scales = row + (size_t)q8b32_blocks(a->dk) * Q8_BLOCK;
    return (q8_token){.k = row, .k_scale = scales, .v = row, .v_scale = scales, .rows = true};
  }
  const kv_q8_head h = kv_q8_head_of(a->dk, a->dv);
  const char *head = kv_group(&a->kv, i) + (size_t)g * h.bytes;
  return (q8_token){.k = head + 4 * t,
                    .k_scale = head + h.k_scales + 2 * t,
                    .v = head + h.values + (size_t)t * (size_t)h.v_blocks * Q8_BLOCK,
                    .v_scale = head + h.v_scales + 2 * t};
}

static float q8_scale(const q8_token *x, const char *scales, int block) {
  return half_from_f16(half_load_u16(scales + (size_t)block * (x->rows ? 2 : KV_Q8_SCALES_BYTES)));
}

static float q8_value(const q8_token *x, int j) {
  return q8_scale(x, x->v_scale, j / Q8_BLOCK) * (float)*(const int8_t *)(x->v + j);
}

/* q: the query as Q8B32. */
static float q8_score(const kern_attn *a, const q8_token *x, const char *q) {
  const float *d = (const float *)(const void *)(q + q8b32_scales_offset(a->dk));
  float sum = 0;
  for (int b = 0; b < q8b32_blocks(a->dk); b++) {
    int32_t dot = 0;
    for (int j = b * Q8_BLOCK; j < (b + 1) * Q8_BLOCK; j++)
      dot += *(const int8_t *)(x->k + (x->rows ? j : j / 4 * 4 * KERN_KV_GROUP + j % 4)) * *(const int8_t *)(q + j);
    sum += q8_scale(x, x->k_scale, b) * d[b] * (float)dot;
  }
  return sum;
}

typedef struct {
  float *sum, max, weight; /* sum: dv weighted values */
} state;

/* A row's query; rounded: as Q8B32, for a cache of Q8_0. */
typedef struct {
  const float *q;
  const char *rounded;
} query;

static void forget(state *s, int dv) {
  s->max = -INFINITY, s->weight = 0;
  for (int j = 0; j < dv; j++) s->sum[j] = 0;
}

static float score_of(const kern_attn *a, const query *x, const token_at *at) {
  float s[8] = {0};
  for (int j = 0; j < a->dk; j++) s[j % 8] += x->q[j] * element(&a->kv, at->k, j * at->step);
  return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

static void attend(const kern_attn *a, int g, const query *x, int lo, int hi, state *st) {
  const bool q8 = a->kv.type == KV_Q8_0;
  for (int i = lo; i < hi; i++) {
    const token_at at = token_of(a, g, i);
    q8_token token = {0};
    if (q8) token = q8_of(a, g, i);
    float score = a->scale * (q8 ? q8_score(a, &token, x->rounded) : score_of(a, x, &at));
    if (score > st->max) {
      float shrink = expf(st->max - score);
      for (int j = 0; j < a->dv; j++) st->sum[j] *= shrink;
      st->weight *= shrink;
      st->max = score;
    }
    float p = expf(score - st->max);
    st->weight += p;
    for (int j = 0; j < a->dv; j++) st->sum[j] += p * (q8 ? q8_value(&token, j) : element(&a->kv, at.v, j));
  }
}

static void fold(state *to, const state *from, int dv) {
  if (from->max == -INFINITY) return;
  float max = to->max > from->max ? to->max : from->max, mine = expf(to->max - max), other = expf(from->max - max);
  for (int j = 0; j < dv; j++) to->sum[j] = to->sum[j] * mine + from->sum[j] * other;
  to->weight = to->weight * mine + from->weight * other;
  to->max = max;
}

static void finish(const kern_attn *a, int g, int r, state *s) {
  float *out = kern_attn_out(a, g, r), shrink = 1, sum = s->weight;
  if (a->sinks) {
    float sink = a->sinks[g * (a->n_heads / a->n_kv_heads) + r % (a->n_heads / a->n_kv_heads)];
    float top = sink > s->max ? sink : s->max;
    shrink = expf(s->max - top);
    sum = sum * shrink + expf(sink - top);
  }
  for (int j = 0; j < a->dv; j++) out[j] = s->sum[j] * shrink / sum;
}

/* The part of segment s that row r sees. */
static void segment(const kern_attn *a, int g, int r, int s, const query *x, state *st) {
  int lo = s * KERN_ATTN_SEGMENT, hi = lo + KERN_ATTN_SEGMENT;
  int first = kern_attn_first(a, r), end = kern_attn_end(a, r);
  forget(st, a->dv);
  attend(a, g, x, lo > first ? lo : first, hi < end ? hi : end, st);
}

void kern_attn_ref(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch) {
  const size_t row_floats = (size_t)a->dv + 2, head_floats = kern_attn_part_floats(r1 - r0, a->dv);
  char *rounded = scratch;
  state all = {.sum = (float *)(void *)(rounded + kern_act_bytes(KA_Q8B32, a->dk))}, one = {.sum = all.sum + a->dv};
  for (int i = 0; i < (g1 - g0) * (r1 - r0); i++) {
    const int g = g0 + i / (r1 - r0), r = r0 + i % (r1 - r0);
    const query x = {kern_attn_query(a, g, r), rounded};
    if (a->kv.type == KV_Q8_0) kern_pack_q8b32_ref(x.q, a->dk, rounded);
    forget(&all, a->dv);
    for (int s = s0; s < s1; s++) {
      float *to = part ? part + (size_t)((s - s0) * (g1 - g0) + g - g0) * head_floats + (size_t)(r - r0) * row_floats : NULL;
      if (part) one.sum = to;
      segment(a, g, r, s, &x, &one);
      if (part) to[a->dv] = one.max, to[a->dv + 1] = one.weight;
      else fold(&all, &one, a->dv);
    }
    if (!part) finish(a, g, r, &all);
  }
}

void kern_attn_fold_ref(const kern_attn *a, int r0, int r1, float *to, const float *from, void *scratch) {
  const size_t row_floats = (size_t)a->dv + 2;
  (void)scratch;
  for (int r = 0; r < r1 - r0; r++) {
    float *t = to + (size_t)r * row_floats;
    const float *f = from + (size_t)r * row_floats;
    state all = {t, t[a->dv], t[a->dv + 1]}, one = {(float *)(uintptr_t)f, f[a->dv], f[a->dv + 1]};
    fold(&all, &one, a->dv);
    t[a->dv] = all.max, t[a->dv + 1] = all.weight;
  }
}

void kern_attn_merge_ref(const kern_attn *a, int g0, int g1, int r0, int r1, int n_seg, const float *part, void *scratch) {
  const size_t row_floats = (size_t)a->dv + 2, head_floats = kern_attn_part_floats(r1 - r0, a->dv);
  state all = {.sum = scratch};
  for (int i = 0; i < (g1 - g0) * (r1 - r0); i++) {
    const int g = g0 + i / (r1 - r0), r = r0 + i % (r1 - r0);
    forget(&all, a->dv);
    for (int s = 0; s < n_seg; s++) {
      const float *from = part + (size_t)(s * (g1 - g0) + g - g0) * head_floats + (size_t)(r - r0) * row_floats;
      state one = {(float *)(uintptr_t)from, from[a->dv], from[a->dv + 1]};
      fold(&all, &one, a->dv);
    }
    finish(a, g, r, &all);
  }
}
