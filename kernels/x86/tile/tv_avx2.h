/* tv_avx2.h: the vectors of tile/mm.inc. A number of a shift is a constant wherever these are called. */
#ifndef HF_KERNELS_X86_TILE_TV_AVX2_H
#define HF_KERNELS_X86_TILE_TV_AVX2_H

#include <string.h>

#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/ref/blocks.h"
#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/x86.h"

typedef __m256i TV;
typedef __m256 TVF;

#ifndef TV_MM
#define TV_MM(format) kern_mm_tile_##format##_avx2
#endif
#define TV_MOST 4
enum { TV_HALVES = 2, TV_TOKENS = TV_MOST, TV_SUMS = 4 /* registers for sums */ };
/* From so many tokens on the tile is fetched this far ahead: with fewer the second-level cache does better by itself, with more it is not kept busy. */
enum { TV_FETCH_FROM = 5, TV_AHEAD = 8192 };
enum { TV_FEW = 7 /* tokens for which a tile is read where it lies */, TV_BATCH = 96, TV_PANEL_COLS = 2048, TV_STRIP = 256 };
#define TV_UNROLL_GROUPS _Pragma("GCC unroll 16")
#define TV_INLINE static inline __attribute__((always_inline))

/* Of the rows in half h: four bytes, then numbers of a byte or two, at p for row 0 of the tile. */
TV_INLINE TV tv_load(const uint8_t *p, int h) {
  return _mm256_loadu_si256((const void *)(p + 32 * h));
}
TV_INLINE TVF tv_f16(const uint8_t *p, int h) {
  return _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 16 * h)));
}
TV_INLINE TVF tv_bf16(const uint8_t *p, int h) {
  return v256_from_bf16(_mm_loadu_si128((const void *)(p + 16 * h)));
}
TV_INLINE TV tv_u8(const uint8_t *p, int h) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(p + 8 * h)));
}
TV_INLINE TV tv_i8(const uint8_t *p, int h) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(p + 8 * h)));
}
TV_INLINE TV tv_u16(const uint8_t *p, int h) {
  return _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p + 16 * h)));
}

/* What was loaded is loaded again where it is needed again: kept for long it would go through the stack. */
TV_INLINE void tv_load_again(void) {
  __asm__ volatile("" ::: "memory");
}

TV_INLINE TV tv_zero(void) {
  return _mm256_setzero_si256();
}
TV_INLINE TVF tv_zero_f32(void) {
  return _mm256_setzero_ps();
}
TV_INLINE TV tv_set32(int v) {
  return _mm256_set1_epi32(v);
}
TV_INLINE TV tv_and(TV a, TV b) {
  return _mm256_and_si256(a, b);
}
TV_INLINE TV tv_or(TV a, TV b) {
  return _mm256_or_si256(a, b);
}
TV_INLINE TV tv_sub32(TV a, TV b) {
  return _mm256_sub_epi32(a, b);
}
TV_INLINE TV tv_add32(TV a, TV b) {
  return _mm256_add_epi32(a, b);
}
TV_INLINE void tv_store(uint8_t *p, TV a) {
  _mm256_storeu_si256((void *)p, a);
}
TV_INLINE TVF tv_mul(TVF a, TVF b) {
  return _mm256_mul_ps(a, b);
}
TV_INLINE TVF tv_fma(TVF a, TVF b, TVF c) {
  return _mm256_fmadd_ps(a, b, c);
}
TV_INLINE TVF tv_to_f32(TV a) {
  return _mm256_cvtepi32_ps(a);
}
TV_INLINE TVF tv_negative(TVF a) {
  return _mm256_castsi256_ps(_mm256_xor_si256(_mm256_castps_si256(a), _mm256_set1_epi32(INT32_MIN)));
}
TV_INLINE TVF tv_load_f32(const float *p) {
  return _mm256_loadu_ps(p);
}
TV_INLINE void tv_store_f32(float *p, TVF a) {
  _mm256_storeu_ps(p, a);
}
/* A float of the activation in all lanes. */
TV_INLINE TVF tv_set_f32(const char *p) {
  return _mm256_set1_ps(half_load_f32(p));
}
TV_INLINE TV tv_four(const char *p) {
  int32_t v;
  memcpy(&v, p, sizeof v);
  return _mm256_set1_epi32(v);
}
/* An integer of the activation times 2^shift in all lanes. */
TV_INLINE TV tv_start(const char *p, const int shift) {
  switch (shift) {
    case 2: return _mm256_slli_epi32(tv_four(p), 2);
    case 3: return _mm256_slli_epi32(tv_four(p), 3);
    case 4: return _mm256_slli_epi32(tv_four(p), 4);
    case 5: return _mm256_slli_epi32(tv_four(p), 5);
    case 7: return _mm256_slli_epi32(tv_four(p), 7);
    default: return tv_four(p);
  }
}

/* Shifts of 32-bit numbers. */
TV_INLINE TV tv_right32(TV a, const int n) {
  return _mm256_srl_epi32(a, _mm_cvtsi32_si128(n));
}
TV_INLINE TV tv_left32(TV a, const int n) {
  return _mm256_sll_epi32(a, _mm_cvtsi32_si128(n));
}
/* Bits 6 and 7 of every byte as bits 4 and 5. */
TV_INLINE TV tv_high_two(TV a) {
  return tv_and(_mm256_srli_epi32(a, 2), _mm256_set1_epi8(0x30));
}

/* In every byte: the lower or upper nibble; bits 2n and 2n+1; bit n moved to bit `to`; a shift left by four of a number below 16. */
TV_INLINE TV tv_nibble(TV a, const int upper) {
  return tv_and(upper ? _mm256_srli_epi16(a, 4) : a, _mm256_set1_epi8(15));
}
TV_INLINE TV tv_two_bits(TV a, const int n) {
  TV v = n == 0 ? a : n == 1 ? _mm256_srli_epi16(a, 2) : n == 2 ? _mm256_srli_epi16(a, 4) : _mm256_srli_epi16(a, 6);
  return tv_and(v, _mm256_set1_epi8(3));
}
/* The bits of mask, which lie `to` up, moved there from `from` up. */
TV_INLINE TV tv_bits_to(TV a, const int from, const int to, const int mask) {
  TV v = a;
  switch (from - to) {
    case -4: v = _mm256_slli_epi16(a, 4); break;
    case -3: v = _mm256_slli_epi16(a, 3); break;
    case -2: v = _mm256_slli_epi16(a, 2); break;
    case -1: v = _mm256_slli_epi16(a, 1); break;
    case 1: v = _mm256_srli_epi16(a, 1); break;
    case 2: v = _mm256_srli_epi16(a, 2); break;
    case 3: v = _mm256_srli_epi16(a, 3); break;
    case 4: v = _mm256_srli_epi16(a, 4); break;
    case 5: v = _mm256_srli_epi16(a, 5); break;
    case 6: v = _mm256_srli_epi16(a, 6); break;
    default: break;
  }
  return tv_and(v, _mm256_set1_epi8((char)mask));
}
TV_INLINE TV tv_bit(TV a, const int n, const int to) {
  return tv_bits_to(a, n, to, 1 << to);
}

/* Sixteen values, chosen by the number in each byte. */
TV_INLINE TV tv_iq4_values(void) {
  return _mm256_broadcastsi128_si256(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
}
TV_INLINE TV tv_fp4_values(void) {
  return _mm256_broadcastsi128_si256(_mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4));
}
TV_INLINE TV tv_choose(TV values, TV number) {
  return _mm256_shuffle_epi8(values, number);
}
/* 2^(e - 128) of a byte e: a normal number, but for 0 and 1. */
TV_INLINE TVF tv_half_e8m0(TV e) {
  TV normal = _mm256_slli_epi32(tv_sub32(e, tv_set32(1)), 23);
  TV tiny = _mm256_sllv_epi32(tv_set32(0x00200000), e);
  return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, tiny, _mm256_cmpgt_epi32(tv_set32(2), e)));
}

/* What is used twice; AVX-512 needs help. */
TV_INLINE TV tv_load_once(const uint8_t *p, int h) {
  return tv_load(p, h);
}

/* Products of bytes, neighbours added, as int16: of unsigned or int8 quants with the four int8 at q. */
TV_INLINE TV tv_pairs(TV w, const char *q) {
  return _mm256_maddubs_epi16(w, tv_four(q));
}
TV_INLINE TV tv_pairs_signed(TV w, const char *q) {
  return _mm256_maddubs_epi16(_mm256_sign_epi8(w, w), _mm256_sign_epi8(tv_four(q), w));
}
/* One after the other: compilers make a tree of the sums, for whose branches there are no registers. */
TV_INLINE TV tv_add16(TV a, TV b) {
  TV v = _mm256_add_epi16(a, b);
  __asm__("" : "+x"(v));
  return v;
}
/* Sums of 16 bits times the row's small scale, a number of 16 bits twice. */
TV_INLINE TV tv_widen_add(TV sum, TV pairs, TV scale) {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, scale));
}
TV_INLINE TV tv_ones(void) {
  return _mm256_set1_epi16(1);
}
/* The eight six-bit scales and minima of Q4_K and Q5_K (see ref/blocks_k.c), whose byte b of all rows lies at p + 16 b, a byte each. */
TV_INLINE void tv_six_bits(const uint8_t *p, uint8_t *to) {
  const TV six = _mm256_set1_epi8(63);
  MM_UNROLL for (int h = 0; h < 2; h++, to += 32) {
    const TV a = tv_load(p, h), b = tv_load(p + 64, h), c = tv_load(p + 128, h);
    tv_store(to, tv_and(a, six));
    tv_store(to + 64, tv_or(tv_nibble(c, 0), tv_high_two(a)));
    tv_store(to + 128, tv_and(b, six));
    tv_store(to + 192, tv_or(tv_nibble(c, 1), tv_high_two(b)));
  }
}
/* Numbers of the rows of half h as a byte each. */
TV_INLINE void tv_store_i8(uint8_t *p, int h, TV a) {
  const TV bytes = _mm256_shuffle_epi8(
      a, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1)));
  _mm_storel_epi64((void *)(p + 8 * h), _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)));
}
/* The sixteen scales of Q3_K: lower nibbles of 8 bytes, then their upper ones, two bits above them in the four parts of 4 bytes, less 32. */
TV_INLINE void tv_three_parts(const uint8_t *p, uint8_t *to) {
  MM_UNROLL for (int h = 0; h < 2; h++, to += 32) {
    const TV high = tv_load(p + 128, h), two = _mm256_set1_epi8(0x30), less = _mm256_set1_epi8(32);
    MM_UNROLL for (int i = 0; i < 4; i++) {
      TV low = tv_nibble(tv_load(p + 64 * (i % 2), h), i / 2);
      TV up = i == 0   ? _mm256_slli_epi16(high, 4)
              : i == 1 ? _mm256_slli_epi16(high, 2)
              : i == 2 ? high
                       : _mm256_srli_epi16(high, 2);
      tv_store(to + 64 * i, _mm256_sub_epi8(tv_or(low, tv_and(up, two)), less));
    }
  }
}
/* The lower nibbles of sixteen bytes of all rows, then the upper ones. */
TV_INLINE void tv_nibbles_apart(const uint8_t *p, uint8_t *to) {
  MM_UNROLL for (int i = 0; i < 8; i++, p += 32, to += 32) {
    const TV a = tv_load(p, 0);
    tv_store(to, tv_nibble(a, 0));
    tv_store(to + 256, tv_nibble(a, 1));
  }
}
/* Small scales of the rows of half h, a byte each from p on. */
TV_INLINE TV tv_small(const uint8_t *p, int h) {
  __m128i b = _mm_loadl_epi64((const void *)(p + 8 * h));
  return _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(b, b));
}
/* A small number of 32 bits, not negative, times the one at p, below 2^15. */
TV_INLINE TV tv_times_whole(TV small, const char *p) {
  return _mm256_madd_epi16(small, tv_four(p));
}
/* Whole sums times small scales. */
TV_INLINE TV tv_times(TV sum, TV scale) {
  return _mm256_mullo_epi32(sum, _mm256_srai_epi32(scale, 16));
}
TV_INLINE TV tv_lower(TV sum, const int n) {
  (void)n;
  return sum;
}
/* The integer at p, below 2^11, times 2^shift as two halves. */
TV_INLINE int32_t tv_start_word(int32_t v, const int shift) {
  return (int32_t)((uint32_t)(uint16_t)(v * (1 << (shift - 1))) * 0x00010001u);
}
TV_INLINE TV tv_start_pairs(const char *p, const int shift) {
  int16_t v;
  memcpy(&v, p, sizeof v);
  TV all = _mm256_set1_epi16(v);
  return shift == 5 ? _mm256_slli_epi16(all, 4) : shift == 2 ? _mm256_slli_epi16(all, 1) : all;
}

/* 32 bytes of each of four tokens: four of each token beside each other, then the next four. */
TV_INLINE void tv_side_by_side(const char *const *x, int32_t *to) {
  __m256i v[4];
  MM_UNROLL for (int t = 0; t < 4; t++) v[t] = _mm256_loadu_si256((const void *)x[t]);
  __m256i a = _mm256_unpacklo_epi32(v[0], v[1]), b = _mm256_unpackhi_epi32(v[0], v[1]), c = _mm256_unpacklo_epi32(v[2], v[3]),
          d = _mm256_unpackhi_epi32(v[2], v[3]);
  const __m256i word[4] = {_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c), _mm256_unpacklo_epi64(b, d),
                           _mm256_unpackhi_epi64(b, d)};
  MM_UNROLL for (int k = 0; k < 4; k++) { /* word k of all tokens, and word 4 + k */
    _mm_storeu_si128((void *)(to + 4 * k), _mm256_castsi256_si128(word[k]));
    _mm_storeu_si128((void *)(to + 4 * k + 16), _mm256_extracti128_si256(word[k], 1));
  }
}

#endif
