/* attn_tile.h: attention over a paged KV cache, shared by the x86 bodies. Included once by each attn_ISA.c, after it has defined
 *
 *   AT_VEC, AT_LANES, AT_ZERO(), AT_SET1(f), AT_FMA(a, b, c), AT_MUL(a, b), AT_SUM(v)
 *   at_load(p), at_load_tail(p, n)           floats
 *   at_store(p, v), at_store_tail(p, n, v)
 *   at_kv(type, p), at_kv_tail(type, p, n)   KV elements widened; tails read nothing behind n elements, the rest is zero
 *   at_exp(p, n)                             exp of n floats in place
 *
 * Context rows go in blocks of AT_ROWS: scores of a group of heads first (each key row is loaded and widened once for the whole
 * group), then one rescaling of the running sums per block, then the weighted values. Every head has its own accumulators in an
 * order that does not depend on its group, so a result does not depend on how heads are split over threads. */
#include <math.h>

#include "kernels/kernels.h"

#define AT_INLINE static inline __attribute__((always_inline))
enum { AT_ROWS = 16, AT_HEADS = 4 };

/* The heads of one group and their running state. Keys are elements k0 .. k0+dk of a row, values v0 .. v0+dv. */
typedef struct {
  const float *q[AT_HEADS];
  float *out[AT_HEADS];
  float max[AT_HEADS], sum[AT_HEADS];
  int k0, dk, v0, dv;
  float scale;
} at_group;

static const char *at_row(const kern_kv *kv, int i) {
  unsigned token = (unsigned)i, per_page = (unsigned)kv->page_tokens; /* a power of two */
  unsigned page = token >> __builtin_ctz(per_page);
  return kv->base + (size_t)kv->pages[page] * kv->page_bytes + (size_t)(token & (per_page - 1)) * kv->row_bytes;
}

AT_INLINE void at_scores(const at_group *g, const int n_h, const kern_kv_type type, const char *const *rows, int n,
                         float p[AT_HEADS][AT_ROWS]) {
  const size_t elem = type == KV_F32 ? 4 : 2;
  for (int i = 0; i < n; i++) {
    const char *k = rows[i] + (size_t)g->k0 * elem;
    AT_VEC s[AT_HEADS];
    int j = 0;
    MM_UNROLL for (int h = 0; h < n_h; h++) s[h] = AT_ZERO();
    for (; j + AT_LANES <= g->dk; j += AT_LANES) {
      AT_VEC v = at_kv(type, k + (size_t)j * elem);
      MM_UNROLL for (int h = 0; h < n_h; h++) s[h] = AT_FMA(v, at_load(g->q[h] + j), s[h]);
    }
    if (j < g->dk) {
      AT_VEC v = at_kv_tail(type, k + (size_t)j * elem, g->dk - j);
      MM_UNROLL for (int h = 0; h < n_h; h++) s[h] = AT_FMA(v, at_load_tail(g->q[h] + j, g->dk - j), s[h]);
    }
    MM_UNROLL for (int h = 0; h < n_h; h++) p[h][i] = g->scale * AT_SUM(s[h]);
  }
}

/* Turns the scores of n rows into weights exp(s - max) and returns by how much what was summed before must shrink. */
static float at_soften(at_group *g, int h, int n, float p[AT_ROWS]) {
  float max = g->max[h], sum = 0.0f;
  for (int i = 0; i < n; i++) max = p[i] > max ? p[i] : max;
  float shrink = expf(g->max[h] - max);
  for (int i = 0; i < n; i++) p[i] -= max;
  at_exp(p, n);
  for (int i = 0; i < n; i++) sum += p[i];
  g->sum[h] = g->sum[h] * shrink + sum;
  g->max[h] = max;
  return shrink;
}

AT_INLINE void at_values(const at_group *g, const int n_h, const kern_kv_type type, const char *const *rows, int n,
                         float p[AT_HEADS][AT_ROWS], const float shrink[AT_HEADS]) {
  const size_t elem = type == KV_F32 ? 4 : 2;
  int j = 0;
  for (; j + AT_LANES <= g->dv; j += AT_LANES) {
    AT_VEC o[AT_HEADS];
    MM_UNROLL for (int h = 0; h < n_h; h++) o[h] = AT_MUL(at_load(g->out[h] + j), AT_SET1(shrink[h]));
    for (int i = 0; i < n; i++) {
      AT_VEC v = at_kv(type, rows[i] + (size_t)(g->v0 + j) * elem);
      MM_UNROLL for (int h = 0; h < n_h; h++) o[h] = AT_FMA(v, AT_SET1(p[h][i]), o[h]);
    }
    MM_UNROLL for (int h = 0; h < n_h; h++) at_store(g->out[h] + j, o[h]);
  }
  if (j < g->dv) {
    const int left = g->dv - j;
    MM_UNROLL for (int h = 0; h < n_h; h++) {
      AT_VEC o = AT_MUL(at_load_tail(g->out[h] + j, left), AT_SET1(shrink[h]));
      for (int i = 0; i < n; i++) {
        o = AT_FMA(at_kv_tail(type, rows[i] + (size_t)(g->v0 + j) * elem, left), AT_SET1(p[h][i]), o);
      }
      at_store_tail(g->out[h] + j, left, o);
    }
  }
}

AT_INLINE void at_run(at_group *g, const int n_h, const kern_kv_type type, const kern_kv *kv, int first) {
  float p[AT_HEADS][AT_ROWS], shrink[AT_HEADS];
  for (int h = 0; h < n_h; h++) {
    g->max[h] = -INFINITY;
    g->sum[h] = 0.0f;
    for (int j = 0; j < g->dv; j++) g->out[h][j] = 0.0f;
  }
  for (int i = first; i < kv->n_ctx; i += AT_ROWS) {
    const char *rows[AT_ROWS];
    int n = kv->n_ctx - i < AT_ROWS ? kv->n_ctx - i : AT_ROWS;
    for (int k = 0; k < n; k++) rows[k] = at_row(kv, i + k);
    at_scores(g, n_h, type, rows, n, p);
    for (int h = 0; h < n_h; h++) shrink[h] = at_soften(g, h, n, p[h]);
    at_values(g, n_h, type, rows, n, p, shrink);
  }
}

AT_INLINE void at_run_heads(at_group *g, const int n_h, const kern_kv *kv, int first) {
  switch (kv->type) {
    case KV_F16: at_run(g, n_h, KV_F16, kv, first); break;
    case KV_BF16: at_run(g, n_h, KV_BF16, kv, first); break;
    default: at_run(g, n_h, KV_F32, kv, first); break;
  }
}

/* All four heads of a group, or the first one alone. sinks: of these heads, or NULL. */
static void at_attend(at_group *g, int n_h, const kern_kv *kv, int first, const float *sinks) {
  if (n_h == AT_HEADS) at_run_heads(g, AT_HEADS, kv, first);
  else at_run_heads(g, 1, kv, first);
  for (int h = 0; h < n_h; h++) {
    float max = g->max[h], shrink = 1.0f, sum = g->sum[h];
    if (sinks) {
      float top = sinks[h] > max ? sinks[h] : max;
      shrink = expf(max - top);
      sum = sum * shrink + expf(sinks[h] - top);
    }
    for (int j = 0; j < g->dv; j++) g->out[h][j] = g->out[h][j] * shrink / sum;
  }
}

static void at_mla(const kern_kv *kv, const float *q, int h0, int h1, int lora, int rope, float scale, float *out) {
  for (int h = h0; h < h1;) {
    int n = h1 - h >= AT_HEADS ? AT_HEADS : 1;
    at_group g = {.k0 = 0, .dk = lora + rope, .v0 = 0, .dv = lora, .scale = scale};
    for (int i = 0; i < n; i++) {
      g.q[i] = q + (size_t)(h + i) * (size_t)(lora + rope);
      g.out[i] = out + (size_t)(h + i) * (size_t)lora;
    }
    at_attend(&g, n, kv, 0, NULL);
    h += n;
  }
}

static void at_gqa(const kern_kv *kv, const float *q, int h0, int h1, int n_heads, int n_kv_heads, int hd, float scale,
                   int window, const float *sinks, float *out) {
  const int per_kv = n_heads / n_kv_heads, first = window > 0 && kv->n_ctx > window ? kv->n_ctx - window : 0;
  for (int h = h0; h < h1;) {
    int kv_head = h / per_kv, end = (kv_head + 1) * per_kv < h1 ? (kv_head + 1) * per_kv : h1;
    int n = end - h >= AT_HEADS ? AT_HEADS : 1;
    at_group g = {.k0 = kv_head * hd, .dk = hd, .v0 = (n_kv_heads + kv_head) * hd, .dv = hd, .scale = scale};
    for (int i = 0; i < n; i++) {
      g.q[i] = q + (size_t)(h + i) * (size_t)hd;
      g.out[i] = out + (size_t)(h + i) * (size_t)hd;
    }
    at_attend(&g, n, kv, first, sinks ? sinks + h : NULL);
    h += n;
  }
}
