/* attn.c: the definition of attention over a paged KV cache: segments of the context one after another, in each one pass with the softmax
 * kept online (running maximum m, running sum of exp(s - m), running weighted sum), one context row at a time.
 *
 * A partial result is, row by row: dv sums, m, sum. */
#include <math.h>

#include "kernels/half.h"
#include "kernels/ref/ref.h"

static float element(const kern_kv *kv, const char *row, int i) {
  switch (kv->type) {
    case KV_F16: return half_from_f16(half_load_u16(row + (size_t)i * 2));
    case KV_BF16: return half_from_bf16(half_load_u16(row + (size_t)i * 2));
    default: return half_load_f32(row + (size_t)i * 4);
  }
}

typedef struct {
  float *sum, max, weight; /* sum: dv weighted values */
} state;

static void forget(state *s, int dv) {
  s->max = -INFINITY, s->weight = 0;
  for (int j = 0; j < dv; j++) s->sum[j] = 0;
}

static void attend(const kern_attn *a, int g, int r, int lo, int hi, state *st) {
  const float *q = kern_attn_query(a, g, r);
  const int k0 = a->mla ? 0 : g * a->dk, v0 = a->mla ? 0 : (a->n_kv_heads + g) * a->dk;
  for (int i = lo; i < hi; i++) {
    const char *row = kern_kv_row(&a->kv, i);
    float s[8] = {0};
    for (int j = 0; j < a->dk; j++) s[j % 8] += q[j] * element(&a->kv, row, k0 + j);
    float score = a->scale * (((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7])));
    if (score > st->max) {
      float shrink = expf(st->max - score);
      for (int j = 0; j < a->dv; j++) st->sum[j] *= shrink;
      st->weight *= shrink;
      st->max = score;
    }
    float p = expf(score - st->max);
    st->weight += p;
    for (int j = 0; j < a->dv; j++) st->sum[j] += p * element(&a->kv, row, v0 + j);
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
static void segment(const kern_attn *a, int g, int r, int s, state *st) {
  int lo = s * KERN_ATTN_SEGMENT, hi = lo + KERN_ATTN_SEGMENT;
  int first = kern_attn_first(a, r), end = kern_attn_end(a, r);
  forget(st, a->dv);
  attend(a, g, r, lo > first ? lo : first, hi < end ? hi : end, st);
}

void kern_attn_ref(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch) {
  const size_t row_floats = (size_t)a->dv + 2, head_floats = kern_attn_part_floats(r1 - r0, a->dv);
  state all = {.sum = scratch}, one = {.sum = all.sum + a->dv};
  for (int i = 0; i < (g1 - g0) * (r1 - r0); i++) {
    const int g = g0 + i / (r1 - r0), r = r0 + i % (r1 - r0);
    forget(&all, a->dv);
    for (int s = s0; s < s1; s++) {
      float *to = part ? part + (size_t)((s - s0) * (g1 - g0) + g - g0) * head_floats + (size_t)(r - r0) * row_floats : NULL;
      if (part) one.sum = to;
      segment(a, g, r, s, &one);
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
