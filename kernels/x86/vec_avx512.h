/* vec_avx512.h: small pieces that the AVX-512 bodies share. */
#ifndef HF_KERNELS_X86_VEC_AVX512_H
#define HF_KERNELS_X86_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define MM_UNROLL _Pragma("GCC unroll 8")

static inline __mmask16 v512_mask(int n) {
  return (__mmask16)((1u << n) - 1u);
}

/* Sums of lanes, always in the same order: halves are added, 16 -> 8 -> 4 -> 2 -> 1. */
static inline float v256_sum(__m256 v) {
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

static inline float v512_sum(__m512 v) {
  return v256_sum(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}

static inline __m512 v512_from_bf16(__m256i h) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}

/* exp(x) to about 1 ulp: x = n ln 2 + r with |r| <= ln2 / 2, a polynomial of degree 6 for exp(r), then 2^n by VSCALEFPS, which
 * rounds once into subnormals, overflows to infinity and passes NaN. ln 2 is split so that n * hi is exact. */
static inline __m512 v512_exp(__m512 x) {
  x = _mm512_min_ps(_mm512_set1_ps(128.0f), _mm512_max_ps(_mm512_set1_ps(-128.0f), x)); /* operand order keeps NaN */
  __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p0f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e400p-1f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
  __m512 p = _mm512_set1_ps(0x1.6850e4p-10f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.123bccp-7f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.555b98p-5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.55548ep-3f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0x1.fffff8p-2f));
  p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r);
  return _mm512_scalef_ps(_mm512_add_ps(p, _mm512_set1_ps(1.0f)), n);
}

/* 2^x for x <= 0, to 1.5 ulp where that is a normal number; zero for minus infinity. */
static inline __m512 v512_exp2(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-160.0f), x); /* operand order keeps NaN */
  __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(0x1.5bba16p-10f);
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.3cea8ap-7f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.c6b752p-5f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.ebf9bcp-3f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0x1.62e42ap-1f));
  return _mm512_scalef_ps(_mm512_fmadd_ps(p, f, _mm512_set1_ps(1.0f)), n);
}

/* The vectors of attn_state.inc. */
#define AS_VEC __m512
#define AS_W 16
#define AS_LOAD(p) _mm512_loadu_ps(p)
#define AS_STORE(p, v) _mm512_storeu_ps(p, v)
#define AS_STORE_TAIL(p, n, v) _mm512_mask_storeu_ps(p, v512_mask(n), v)
#define AS_SET1(f) _mm512_set1_ps(f)
#define AS_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define AS_MUL(a, b) _mm512_mul_ps(a, b)
#define AS_FIRST(v) _mm512_cvtss_f32(v)
#define AS_EXP2(v) v512_exp2(v)
#define AS_LOAD_TAIL(p, n) _mm512_maskz_loadu_ps(v512_mask(n), p)
#define AS_ZERO() _mm512_setzero_ps()
#define AS_ADD(a, b) _mm512_add_ps(a, b)
#define AS_SUB(a, b) _mm512_sub_ps(a, b)
#define AS_MAX(a, b) _mm512_max_ps(a, b)
#define AS_ADD_PRODUCT(sum, a, b) __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b))
#define AS_SPREAD(p) as_spread(p)
#define AS_HIDE(v, i, lo, hi) as_hide(v, i, lo, hi)
#define AS_MOST(v, rows) as_most(v, rows)
#define AS_SUM(v, rows) as_sum(v, rows)

static inline __m512 as_spread(const float *p) {
  int32_t bits;
  memcpy(&bits, p, sizeof bits);
  __m512i v = _mm512_set1_epi32(bits);
  __asm__("" : "+v"(v));
  return _mm512_castsi512_ps(v);
}

static inline __m512 as_hide(__m512 v, int i, int lo, int hi) {
  const __m512i at =
      _mm512_add_epi32(_mm512_set1_epi32(i), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  const __mmask16 seen =
      _mm512_mask_cmpgt_epi32_mask(_mm512_cmpge_epi32_mask(at, _mm512_set1_epi32(lo)), _mm512_set1_epi32(hi), at);
  return _mm512_mask_blend_ps(seen, _mm512_set1_ps(-__builtin_inff()), v);
}

/* Eight vectors become one; what is there twice is computed once. */
#define V_OVER(name, op)                                                                                            \
  static inline __m512 name(const __m512 *v, const int rows) {                                                      \
    __m512 x[8];                                                                                                    \
    MM_UNROLL for (int i = 0; i < 4; i++) {                                                                         \
      const __m512 a = v[2 * i % rows], b = v[(2 * i + 1) % rows];                                                  \
      x[i] = op(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));                                \
    }                                                                                                               \
    MM_UNROLL for (int i = 0; i < 2; i++) x[i] =                                                                    \
        op(_mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0x88), _mm512_shuffle_f32x4(x[2 * i], x[2 * i + 1], 0xdd)); \
    x[0] = op(_mm512_shuffle_ps(x[0], x[1], 0x44), _mm512_shuffle_ps(x[0], x[1], 0xee));                            \
    x[0] = op(_mm512_shuffle_ps(x[0], x[0], 0x88), _mm512_shuffle_ps(x[0], x[0], 0xdd));                            \
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 4, 8, 12, 1, 5, 9, 13), x[0]);      \
  }
V_OVER(as_most, _mm512_max_ps)
V_OVER(as_sum, _mm512_add_ps)
#undef V_OVER

#endif
