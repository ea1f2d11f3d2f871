/* Products of BF16, F16 and FP8 in tiles with AVX-512: see tile/pairs.inc. */
#include <stdbool.h>

#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

typedef __m512 PV;
#define PV_MOST 8
enum { PV_N = 2, PV_LANES = 16, PV_TOKENS = PV_MOST, PV_WHOLE = PV_MOST, PV_PART = 2, PV_BATCH = 16, PV_TILES = 4 };
#define PV_INLINE static inline __attribute__((always_inline))

PV_INLINE PV pv_zero(void) {
  return _mm512_setzero_ps();
}
PV_INLINE PV pv_load(const float *p) {
  return _mm512_load_ps(p);
}
PV_INLINE void pv_store(float *p, PV a) {
  _mm512_store_ps(p, a);
}
PV_INLINE PV pv_set(float f) {
  return _mm512_set1_ps(f);
}
PV_INLINE PV pv_mul(PV a, PV b) {
  return _mm512_mul_ps(a, b);
}
PV_INLINE PV pv_fma(PV a, PV b, PV c) {
  return _mm512_fmadd_ps(a, b, c);
}
PV_INLINE PV pv_pair(const float *p) {
  double two;
  memcpy(&two, p, sizeof two);
  return _mm512_castpd_ps(_mm512_set1_pd(two));
}
/* Scales of the rows of vector v, each twice. */
PV_INLINE PV pv_scales(const uint8_t *p, const int v) {
  __m256 eight = _mm256_loadu_ps((const float *)(const void *)(p + 32 * v));
  return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), _mm512_castps256_ps512(eight));
}
PV_INLINE void pv_rows(const float *sum, float *out) {
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  __m512 a = pv_load(sum), b = pv_load(sum + 16);
  __m512 odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
  _mm512_store_ps(out, _mm512_add_ps(_mm512_permutex2var_ps(a, even, b), odd));
}
/* 9 to 15 are two groups of like size. */
PV_INLINE int pv_tokens(int left) {
  return left >= 16 ? 8 : left > 8 ? (left + 1) / 2 : left;
}

PV_INLINE PV pv_bf16(const void *p) {
  return v512_from_bf16(_mm256_loadu_si256(p));
}
PV_INLINE PV pv_f16(const void *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}
PV_INLINE PV pv_swap_inner(PV a) {
  return _mm512_permute_ps(a, 0xd8);
}
/* A byte in the upper half of a word, moved right by one place under its sign, is an F16 that is 2^-8 of it, small numbers included. */
PV_INLINE PV pv_fp8(const uint8_t *p, const int pair, const int v) {
  __m512i bytes = _mm512_loadu_si512(p);
  if (pair == 0) bytes = _mm512_slli_epi16(bytes, 8);
  bytes = _mm512_and_si512(_mm512_srai_epi16(bytes, 1), _mm512_set1_epi16((short)0xbf80));
  return _mm512_cvtph_ps(v == 0 ? _mm512_castsi512_si256(bytes) : _mm512_extracti64x4_epi64(bytes, 1));
}

#define PV_MM(format) kern_mm_tile_##format##_avx512
#include "kernels/x86/tile/pairs_formats.inc"
