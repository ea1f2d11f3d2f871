/* Attention, MLA and GQA. */
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

#define AT_VEC __m512
#define AT_LANES 16
#define AT_ZERO() _mm512_setzero_ps()
#define AT_SET1(f) _mm512_set1_ps(f)
#define AT_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define AT_MUL(a, b) _mm512_mul_ps(a, b)
#define AT_SUM(v) v512_sum(v)

static inline __m512 at_load(const float *p) {
  return _mm512_loadu_ps(p);
}

static inline __m512 at_load_tail(const float *p, int n) {
  return _mm512_maskz_loadu_ps(v512_mask(n), p);
}

static inline void at_store(float *p, __m512 v) {
  _mm512_storeu_ps(p, v);
}

static inline void at_store_tail(float *p, int n, __m512 v) {
  _mm512_mask_storeu_ps(p, v512_mask(n), v);
}

static inline __m512 at_kv(kern_kv_type t, const char *p) {
  if (t == KV_F32) return _mm512_loadu_ps(p);
  __m256i h = _mm256_loadu_si256((const void *)p);
  return t == KV_F16 ? _mm512_cvtph_ps(h) : v512_from_bf16(h);
}

static inline __m512 at_kv_tail(kern_kv_type t, const char *p, int n) {
  if (t == KV_F32) return _mm512_maskz_loadu_ps(v512_mask(n), p);
  __m256i h = _mm256_maskz_loadu_epi16(v512_mask(n), p);
  return t == KV_F16 ? _mm512_cvtph_ps(h) : v512_from_bf16(h);
}

static inline void at_exp(float *p, int n) {
  _mm512_mask_storeu_ps(p, v512_mask(n), v512_exp(_mm512_maskz_loadu_ps(v512_mask(n), p)));
}

#include "kernels/x86/attn_tile.inc"

void kern_attn_mla_avx512(const kern_kv *kv, const float *q, int h0, int h1, int lora, int rope, float scale, float *out) {
  at_mla(kv, q, h0, h1, lora, rope, scale, out);
}

void kern_attn_gqa_avx512(const kern_kv *kv, const float *q, int h0, int h1, int n_heads, int n_kv_heads, int hd, float scale,
                          int window, const float *sinks, float *out) {
  at_gqa(kv, q, h0, h1, n_heads, n_kv_heads, hd, scale, window, sinks, out);
}
