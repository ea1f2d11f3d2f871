/* vec_avx2.h: small pieces that the AVX2 bodies share. */
#ifndef HF_KERNELS_X86_VEC_AVX2_H
#define HF_KERNELS_X86_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define MM_UNROLL _Pragma("GCC unroll 8")

/* Sum of 8 lanes, always in the same order. */
static inline float v256_sum(__m256 v) {
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

static inline __m256 v256_from_bf16(__m128i h) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

/* Lanes below n are set. */
static inline __m256i v256_mask(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline __m256 v256_load_tail(const float *p, int n) {
  return _mm256_maskload_ps(p, v256_mask(n));
}

/* n < 8 halves, the rest zero; reads nothing behind them. */
static inline __m128i v128_load_u16_tail(const void *p, int n) {
  uint16_t h[8] = {0};
  memcpy(h, p, (size_t)n * 2);
  return _mm_loadu_si128((const __m128i *)h);
}

/* exp(x) to about 1 ulp for normal results: see v512_exp. 2^n is applied in two halves, so that results reach infinity and
 * subnormals as they should. */
static inline __m256 v256_exp(__m256 x) {
  x = _mm256_min_ps(_mm256_set1_ps(128.0f), _mm256_max_ps(_mm256_set1_ps(-128.0f), x)); /* operand order keeps NaN */
  __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p0f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e400p-1f), x);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
  __m256 p = _mm256_set1_ps(0x1.6850e4p-10f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.123bccp-7f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.555b98p-5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.55548ep-3f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0x1.fffff8p-2f));
  p = _mm256_add_ps(_mm256_fmadd_ps(_mm256_mul_ps(p, r), r, r), _mm256_set1_ps(1.0f));
  __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(whole, half), bias), 23));
  return _mm256_mul_ps(_mm256_mul_ps(p, a), b);
}

/* 2^x for x <= 0, to 1.5 ulp; below 2^-125 it is zero, so that n goes straight into the exponent. */
static inline __m256 v256_exp2(__m256 x) {
  const __m256 least = _mm256_set1_ps(-125.0f), small = _mm256_cmp_ps(x, least, _CMP_LT_OQ);
  x = _mm256_max_ps(least, x); /* operand order keeps NaN */
  __m256 n = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm256_sub_ps(x, n);
  __m256 p = _mm256_set1_ps(0x1.5bba16p-10f);
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.3cea8ap-7f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.c6b752p-5f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.ebf9bcp-3f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(0x1.62e42ap-1f));
  p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(1.0f));
  __m256i scaled = _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23));
  return _mm256_andnot_ps(small, _mm256_castsi256_ps(scaled));
}

/* The vectors of attn_state.inc. */
#define AS_VEC __m256
#define AS_W 8
#define AS_LOAD(p) _mm256_loadu_ps(p)
#define AS_STORE(p, v) _mm256_storeu_ps(p, v)
#define AS_STORE_TAIL(p, n, v) _mm256_maskstore_ps(p, v256_mask(n), v)
#define AS_SET1(f) _mm256_set1_ps(f)
#define AS_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define AS_MUL(a, b) _mm256_mul_ps(a, b)
#define AS_FIRST(v) _mm256_cvtss_f32(v)
#define AS_EXP2(v) v256_exp2(v)
#define AS_LOAD_TAIL(p, n) v256_load_tail(p, n)
#define AS_ZERO() _mm256_setzero_ps()
#define AS_ADD(a, b) _mm256_add_ps(a, b)
#define AS_SUB(a, b) _mm256_sub_ps(a, b)
#define AS_MAX(a, b) _mm256_max_ps(a, b)
#define AS_ADD_PRODUCT(sum, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b))
#define AS_SPREAD(p) as_spread(p)
#define AS_HIDE(v, i, lo, hi) as_hide(v, i, lo, hi)
#define AS_MOST(v, rows) as_most(v, rows)
#define AS_SUM(v, rows) as_sum(v, rows)

static inline __m256 as_spread(const float *p) {
  int32_t bits;
  memcpy(&bits, p, sizeof bits);
  __m256i v = _mm256_set1_epi32(bits);
  __asm__("" : "+x"(v));
  return _mm256_castsi256_ps(v);
}

static inline __m256 as_hide(__m256 v, int i, int lo, int hi) {
  const __m256i at = _mm256_add_epi32(_mm256_set1_epi32(i), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  const __m256i late = _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), at), early = _mm256_cmpgt_epi32(_mm256_set1_epi32(lo), at);
  return _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), v, _mm256_castsi256_ps(_mm256_andnot_si256(early, late)));
}

/* Four vectors become one; what is there twice is computed once. */
#define V_OVER(name, op)                                                                 \
  static inline __m256 name(const __m256 *v, const int rows) {                           \
    __m256 x[2];                                                                         \
    MM_UNROLL for (int i = 0; i < 2; i++) {                                              \
      const __m256 a = v[2 * i % rows], b = v[(2 * i + 1) % rows];                       \
      x[i] = op(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31)); \
    }                                                                                    \
    x[0] = op(_mm256_shuffle_ps(x[0], x[1], 0x44), _mm256_shuffle_ps(x[0], x[1], 0xee)); \
    x[0] = op(_mm256_shuffle_ps(x[0], x[0], 0x88), _mm256_shuffle_ps(x[0], x[0], 0xdd)); \
    return _mm256_permutevar8x32_ps(x[0], _mm256_setr_epi32(0, 4, 1, 5, 0, 4, 1, 5));    \
  }
V_OVER(as_most, _mm256_max_ps)
V_OVER(as_sum, _mm256_add_ps)
#undef V_OVER

#endif
