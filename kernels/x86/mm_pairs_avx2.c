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

static void widen_bf16(const void *x, int c, int n, float *to) {
  const uint16_t *from = (const uint16_t *)x + c;
  for (int i = 0; i < n; i += 8) _mm256_store_ps(to + i, v256_from_bf16(_mm_load_si128((const void *)(from + i))));
}

static void widen_f16(const void *x, int c, int n, float *to) {
  const uint16_t *from = (const uint16_t *)x + c;
  for (int i = 0; i < n; i += 8) _mm256_store_ps(to + i, _mm256_cvtph_ps(_mm_load_si128((const void *)(from + i))));
}

#define TP(x) bf16_##x
#define TP_WIDEN widen_bf16
#define TP_MM kern_mm_tile_bf16_avx2
#define TP_UNIT 2
#define TP_BYTES 2
#define TP_CHUNK 128
#define TP_SCALED 0
PV_INLINE PV bf16_weights(const uint8_t *p, const int pair, const int v) {
  (void)pair;
  return v256_from_bf16(_mm_loadu_si128((const void *)(p + 16 * v)));
}
#include "kernels/x86/tile/pairs.inc"

#define TP(x) f16_##x
#define TP_WIDEN widen_f16
#define TP_MM kern_mm_tile_f16_avx2
#define TP_UNIT 2
#define TP_BYTES 2
#define TP_CHUNK 128
#define TP_SCALED 0
PV_INLINE PV f16_weights(const uint8_t *p, const int pair, const int v) {
  (void)pair;
  return _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 16 * v)));
}
#include "kernels/x86/tile/pairs.inc"

/* Columns of a unit in the order 0 2 1 3: the lower bytes of its words, then the upper ones. */
static void widen_fp8(const void *x, int c, int n, float *to) {
  widen_bf16(x, c, n, to);
  for (int i = 0; i < n; i += 8) _mm256_store_ps(to + i, _mm256_permute_ps(_mm256_load_ps(to + i), 0xd8));
}

#define TP(x) fp8_##x
#define TP_WIDEN widen_fp8
#define TP_MM kern_mm_tile_fp8_avx2
#define TP_UNIT 4
#define TP_BYTES 1
#define TP_CHUNK FP8_BLOCK
#define TP_SCALED 256
/* A byte in the upper half of a word, moved right by one place under its sign, is an F16 that is 2^-8 of it, small numbers included. */
PV_INLINE PV fp8_weights(const uint8_t *p, const int pair, const int v) {
  __m256i bytes = _mm256_loadu_si256((const void *)(p + 32 * (v / 2)));
  if (pair == 0) bytes = _mm256_slli_epi16(bytes, 8);
  bytes = _mm256_and_si256(_mm256_srai_epi16(bytes, 1), _mm256_set1_epi16((short)0xbf80));
  return _mm256_cvtph_ps(v % 2 == 0 ? _mm256_castsi256_si128(bytes) : _mm256_extracti128_si256(bytes, 1));
}
#include "kernels/x86/tile/pairs.inc"
