/* block_sums.h: negative sums of a packed activation's quants (layouts.h), with AVX2. Private to the packing variants. */
#ifndef HF_KERNELS_X86_BLOCK_SUMS_H
#define HF_KERNELS_X86_BLOCK_SUMS_H

#include <immintrin.h>
#include <string.h>

#include "kernels/layouts.h"

/* Minus the sums of eight groups of four bytes. */
static inline __m256i sums_of_four(const void *q) {
  __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_load_si256(q));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(-1));
}

/* `packed` has its quants and scales, zeros behind them included; four blocks a step, which the padding allows. */
static inline void block_sums_store(void *packed, int n) {
  int nb = q8b32_blocks(n);
  char *q = packed, *d = q + q8b32_scales_offset(n), *n32 = q + q8b32_sums32_offset(n), *n16 = q + q8b32_sums16_offset(n),
       *less = q + q8b32_less_offset(n);
  for (int b = 0; b < nb; b += 4, q += 4 * Q8_BLOCK) {
    __m256i lo = _mm256_hadd_epi32(sums_of_four(q), sums_of_four(q + 32));
    __m256i hi = _mm256_hadd_epi32(sums_of_four(q + 64), sums_of_four(q + 96));
    __m256i s = _mm256_hadd_epi32(lo, hi); /* first halves of the four blocks, then their second halves */
    __m128i first = _mm256_castsi256_si128(s), second = _mm256_extracti128_si256(s, 1);
    __m128i whole = _mm_add_epi32(first, second);
    _mm_store_si128((void *)(n32 + 4 * (size_t)b), whole);
    _mm_store_ps((void *)(less + 4 * (size_t)b), _mm_mul_ps(_mm_load_ps((void *)(d + 4 * (size_t)b)), _mm_cvtepi32_ps(whole)));
    _mm_store_si128((void *)(n16 + 8 * (size_t)b), _mm_unpacklo_epi32(first, second));
    _mm_store_si128((void *)(n16 + 8 * (size_t)b + 16), _mm_unpackhi_epi32(first, second));
  }
  size_t done = lay_round_up((size_t)nb, 4) * 4;
  memset(n32 + done, 0, q8b32_sums16_offset(n) - q8b32_sums32_offset(n) - done);
  memset(n16 + 2 * done, 0, q8b32_less_offset(n) - q8b32_sums16_offset(n) - 2 * done);
  memset(less + done, 0, q8b32_bytes(n) - q8b32_less_offset(n) - done);
}

#endif
