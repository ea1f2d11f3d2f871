/* Products of BF16, F16 and FP8 in tiles with AVX2: see tile/pairs.inc. */
#include <stdbool.h>

#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/x86.h"

typedef __m256 PV;
#define PV_MOST 6
enum { PV_N = 4, PV_LANES = 8, PV_TOKENS = PV_MOST, PV_WHOLE = 2, PV_PART = 2, PV_BATCH = 16, PV_TILES = 4 };
#define PV_INLINE static inline __attribute__((always_inline))

PV_INLINE PV pv_zero(void) {
  return _mm256_setzero_ps();
}
PV_INLINE PV pv_load(const float *p) {
  return _mm256_load_ps(p);
}
PV_INLINE void pv_store(float *p, PV a) {
  _mm256_store_ps(p, a);
}
PV_INLINE PV pv_set(float f) {
  return _mm256_set1_ps(f);
}
PV_INLINE PV pv_mul(PV a, PV b) {
  return _mm256_mul_ps(a, b);
}
PV_INLINE PV pv_fma(PV a, PV b, PV c) {
  return _mm256_fmadd_ps(a, b, c);
}
PV_INLINE PV pv_pair(const float *p) {
  double two;
  memcpy(&two, p, sizeof two);
  return _mm256_castpd_ps(_mm256_set1_pd(two));
}
/* Scales of the rows of vector v, each twice. */
PV_INLINE PV pv_scales(const uint8_t *p, const int v) {
  __m128 four = _mm_loadu_ps((const float *)(const void *)(p + 16 * v));
  return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(four), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}
PV_INLINE void pv_rows(const float *sum, float *out) {
  for (int i = 0; i < 2; i++) {
    __m256 four = _mm256_hadd_ps(pv_load(sum + 16 * i), pv_load(sum + 16 * i + 8)); /* rows 0 1 4 5 2 3 6 7 */
    _mm256_store_ps(out + 8 * i, _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(four), 0xd8)));
  }
}
/* Groups of like size, but 8 as 6 + 2: four tokens keep too few sums going to hide the latency of adding. */
PV_INLINE int pv_tokens(int left) {
  if (left >= 3 * PV_MOST || left == PV_MOST + 2) return PV_MOST;
  return left > 2 * PV_MOST ? (left + 2) / 3 : left > PV_MOST ? (left + 1) / 2 : left;
}

PV_INLINE PV pv_bf16(const void *p) {
  return v256_from_bf16(_mm_loadu_si128(p));
}
PV_INLINE PV pv_f16(const void *p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(p));
}
PV_INLINE PV pv_swap_inner(PV a) {
  return _mm256_permute_ps(a, 0xd8);
}
/* A byte in the upper half of a word, moved right by one place under its sign, is an F16 that is 2^-8 of it, small numbers included. */
PV_INLINE PV pv_fp8(const uint8_t *p, const int pair, const int v) {
  __m256i bytes = _mm256_loadu_si256((const void *)(p + 32 * (v / 2)));
  if (pair == 0) bytes = _mm256_slli_epi16(bytes, 8);
  bytes = _mm256_and_si256(_mm256_srai_epi16(bytes, 1), _mm256_set1_epi16((short)0xbf80));
  return _mm256_cvtph_ps(v % 2 == 0 ? _mm256_castsi256_si128(bytes) : _mm256_extracti128_si256(bytes, 1));
}

#define PV_MM(format) kern_mm_tile_##format##_avx2
#include "kernels/x86/tile/pairs_formats.inc"
