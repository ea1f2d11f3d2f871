/* Attention, MLA and GQA. */
#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/x86.h"

#define AT_VEC __m256
#define AT_LANES 8
#define AT_ZERO() _mm256_setzero_ps()
#define AT_SET1(f) _mm256_set1_ps(f)
#define AT_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define AT_MUL(a, b) _mm256_mul_ps(a, b)
#define AT_SUM(v) v256_sum(v)

static inline __m256 at_load(const float *p) {
  return _mm256_loadu_ps(p);
}

static inline __m256 at_load_tail(const float *p, int n) {
  return v256_load_tail(p, n);
}

static inline void at_store(float *p, __m256 v) {
  _mm256_storeu_ps(p, v);
}

static inline void at_store_tail(float *p, int n, __m256 v) {
  _mm256_maskstore_ps(p, v256_mask(n), v);
}

static inline __m256 at_kv(kern_kv_type t, const char *p) {
  if (t == KV_F32) return _mm256_loadu_ps((const float *)(const void *)p);
  __m128i h = _mm_loadu_si128((const void *)p);
  return t == KV_F16 ? _mm256_cvtph_ps(h) : v256_from_bf16(h);
}

static inline __m256 at_kv_tail(kern_kv_type t, const char *p, int n) {
  if (t == KV_F32) return v256_load_tail((const float *)(const void *)p, n);
  __m128i h = v128_load_u16_tail(p, n);
  return t == KV_F16 ? _mm256_cvtph_ps(h) : v256_from_bf16(h);
}

static inline void at_exp(float *p, int n) {
  for (int i = 0; i < n; i += 8) {
    __m256i m = v256_mask(n - i);
    _mm256_maskstore_ps(p + i, m, v256_exp(_mm256_maskload_ps(p + i, m)));
  }
}

#include "kernels/x86/attn_tile.inc"

void kern_attn_mla_avx2(const kern_kv *kv, const float *q, int h0, int h1, int lora, int rope, float scale, float *out) {
  at_mla(kv, q, h0, h1, lora, rope, scale, out);
}

void kern_attn_gqa_avx2(const kern_kv *kv, const float *q, int h0, int h1, int n_heads, int n_kv_heads, int hd, float scale,
                        int window, const float *sinks, float *out) {
  at_gqa(kv, q, h0, h1, n_heads, n_kv_heads, hd, scale, window, sinks, out);
}
