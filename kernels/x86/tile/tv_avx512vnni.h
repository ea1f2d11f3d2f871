/* tv_avx512vnni.h: the vectors of tile/mm.inc. A number of a shift is a constant wherever these are called. */
#ifndef HF_KERNELS_X86_TILE_TV_AVX512VNNI_H
#define HF_KERNELS_X86_TILE_TV_AVX512VNNI_H

#include <string.h>

#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/ref/blocks.h"
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

typedef __m512i TV;
typedef __m512 TVF;
#define TV_VNNI
#ifndef TV_MM
#define TV_MM(format) kern_mm_tile_##format##_avx512vnni
#endif
#define TV_MOST 8
enum { TV_HALVES = 1, TV_TOKENS = TV_MOST, TV_SUMS = 16 /* registers for sums */ };
/* From so many tokens on the tile is fetched this far ahead: with fewer the second-level cache does better by itself, with more it is not kept busy. */
enum { TV_FETCH_FROM = 5, TV_AHEAD = 8192 };
enum { TV_FEW = 31 /* tokens for which a tile is read where it lies */, TV_BATCH = 96, TV_PANEL_COLS = 2048, TV_STRIP = 256 };
#define TV_UNROLL_GROUPS _Pragma("GCC unroll 16")
#define TV_INLINE static inline __attribute__((always_inline))

/* Of the rows in half h: four bytes, then numbers of a byte or two, at p for row 0 of the tile. */
TV_INLINE TV tv_load(const uint8_t *p, int h) {
  (void)h;
  return _mm512_loadu_si512(p);
}
/* What is used twice: one load, not one in each use, for whole vectors are loaded one a cycle only. */
TV_INLINE TV tv_load_once(const uint8_t *p, int h) {
  TV v = tv_load(p, h);
  __asm__("" : "+v"(v));
  return v;
}
TV_INLINE TVF tv_f16(const uint8_t *p, int h) {
  (void)h;
  return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}
TV_INLINE TVF tv_bf16(const uint8_t *p, int h) {
  (void)h;
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p)), 16));
}
TV_INLINE TV tv_u8(const uint8_t *p, int h) {
  (void)h;
  return _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
}
TV_INLINE TV tv_i8(const uint8_t *p, int h) {
  (void)h;
  return _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p));
}
TV_INLINE TV tv_u16(const uint8_t *p, int h) {
  (void)h;
  return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));
}

TV_INLINE void tv_load_again(void) {}

TV_INLINE TV tv_zero(void) {
  return _mm512_setzero_si512();
}
TV_INLINE TVF tv_zero_f32(void) {
  return _mm512_setzero_ps();
}
TV_INLINE TV tv_set32(int v) {
  return _mm512_set1_epi32(v);
}
TV_INLINE TV tv_and(TV a, TV b) {
  return _mm512_and_si512(a, b);
}
TV_INLINE TV tv_or(TV a, TV b) {
  return _mm512_or_si512(a, b);
}
TV_INLINE TV tv_sub32(TV a, TV b) {
  return _mm512_sub_epi32(a, b);
}
TV_INLINE TV tv_add32(TV a, TV b) {
  return _mm512_add_epi32(a, b);
}
TV_INLINE void tv_store(uint8_t *p, TV a) {
  _mm512_storeu_si512((void *)p, a);
}
TV_INLINE TVF tv_mul(TVF a, TVF b) {
  return _mm512_mul_ps(a, b);
}
TV_INLINE TVF tv_fma(TVF a, TVF b, TVF c) {
  return _mm512_fmadd_ps(a, b, c);
}
TV_INLINE TVF tv_to_f32(TV a) {
  return _mm512_cvtepi32_ps(a);
}
TV_INLINE TVF tv_negative(TVF a) {
  return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), _mm512_set1_epi32(INT32_MIN)));
}
TV_INLINE TVF tv_load_f32(const float *p) {
  return _mm512_loadu_ps(p);
}
TV_INLINE void tv_store_f32(float *p, TVF a) {
  _mm512_storeu_ps(p, a);
}
/* A float of the activation in all lanes. */
TV_INLINE TVF tv_set_f32(const char *p) {
  return _mm512_set1_ps(half_load_f32(p));
}
TV_INLINE TV tv_four(const char *p) {
  int32_t v;
  memcpy(&v, p, sizeof v);
  return _mm512_set1_epi32(v);
}
/* An integer of the activation times 2^shift in all lanes. */
TV_INLINE TV tv_start(const char *p, const int shift) {
  switch (shift) {
    case 2: return _mm512_slli_epi32(tv_four(p), 2);
    case 3: return _mm512_slli_epi32(tv_four(p), 3);
    case 4: return _mm512_slli_epi32(tv_four(p), 4);
    case 5: return _mm512_slli_epi32(tv_four(p), 5);
    case 6: return _mm512_slli_epi32(tv_four(p), 6);
    case 7: return _mm512_slli_epi32(tv_four(p), 7);
    default: return tv_four(p);
  }
}

/* Shifts of 32-bit numbers. */
TV_INLINE TV tv_right32(TV a, const int n) {
  return _mm512_srl_epi32(a, _mm_cvtsi32_si128(n));
}
TV_INLINE TV tv_left32(TV a, const int n) {
  return _mm512_sll_epi32(a, _mm_cvtsi32_si128(n));
}
/* Bits 6 and 7 of every byte as bits 4 and 5. */
TV_INLINE TV tv_high_two(TV a) {
  return tv_and(_mm512_srli_epi32(a, 2), _mm512_set1_epi8(0x30));
}

/* In every byte: the lower or upper nibble; bits 2n and 2n+1; bit n moved to bit `to`; a shift left by four of a number below 16. */
TV_INLINE TV tv_nibble(TV a, const int upper) {
  return tv_and(upper ? _mm512_srli_epi16(a, 4) : a, _mm512_set1_epi8(15));
}
TV_INLINE TV tv_two_bits(TV a, const int n) {
  TV v = n == 0 ? a : n == 1 ? _mm512_srli_epi16(a, 2) : n == 2 ? _mm512_srli_epi16(a, 4) : _mm512_srli_epi16(a, 6);
  return tv_and(v, _mm512_set1_epi8(3));
}
/* The bits of mask, which lie `to` up, moved there from `from` up. */
TV_INLINE TV tv_bits_to(TV a, const int from, const int to, const int mask) {
  TV v = a;
  switch (from - to) {
    case -4: v = _mm512_slli_epi16(a, 4); break;
    case -3: v = _mm512_slli_epi16(a, 3); break;
    case -2: v = _mm512_slli_epi16(a, 2); break;
    case -1: v = _mm512_slli_epi16(a, 1); break;
    case 1: v = _mm512_srli_epi16(a, 1); break;
    case 2: v = _mm512_srli_epi16(a, 2); break;
    case 3: v = _mm512_srli_epi16(a, 3); break;
    case 4: v = _mm512_srli_epi16(a, 4); break;
    case 5: v = _mm512_srli_epi16(a, 5); break;
    case 6: v = _mm512_srli_epi16(a, 6); break;
    default: break;
  }
  return tv_and(v, _mm512_set1_epi8((char)mask));
}
TV_INLINE TV tv_bit(TV a, const int n, const int to) {
  return tv_bits_to(a, n, to, 1 << to);
}

TV_INLINE TV tv_bytes(char v) {
  return _mm512_set1_epi8(v);
}
/* A small number of 32 bits times the one at p. */
TV_INLINE TV tv_times_whole(TV small, const char *p) {
  return _mm512_mullo_epi32(small, tv_four(p));
}
/* The eight six-bit scales and minima of Q4_K and Q5_K (see ref/blocks_k.c), whose byte b of all rows lies at p + 16 b, a byte each. */
TV_INLINE void tv_six_bits(const uint8_t *p, uint8_t *to) {
  const TV a = tv_load(p, 0), b = tv_load(p + 64, 0), c = tv_load(p + 128, 0), six = tv_bytes(63);
  tv_store(to, tv_and(a, six));
  tv_store(to + 64, tv_or(tv_nibble(c, 0), tv_high_two(a)));
  tv_store(to + 128, tv_and(b, six));
  tv_store(to + 192, tv_or(tv_nibble(c, 1), tv_high_two(b)));
}

/* Numbers of the rows of half h as a byte each. */
TV_INLINE void tv_store_i8(uint8_t *p, int h, TV a) {
  (void)h;
  _mm_store_si128((void *)p, _mm512_cvtepi32_epi8(a));
}
/* The sixteen scales of Q3_K: lower nibbles of 8 bytes, then their upper ones, two bits above them in the four parts of 4 bytes, less 32. */
TV_INLINE void tv_three_parts(const uint8_t *p, uint8_t *to) {
  const TV high = tv_load(p + 128, 0), two = _mm512_set1_epi8(0x30), less = _mm512_set1_epi8(32);
  MM_UNROLL for (int i = 0; i < 4; i++) {
    TV low = tv_nibble(tv_load(p + 64 * (i % 2), 0), i / 2);
    TV up = i == 0   ? _mm512_slli_epi16(high, 4)
            : i == 1 ? _mm512_slli_epi16(high, 2)
            : i == 2 ? high
                     : _mm512_srli_epi16(high, 2);
    tv_store(to + 64 * i, _mm512_sub_epi8(tv_or(low, tv_and(up, two)), less));
  }
}
/* The lower nibbles of sixteen bytes of all rows, then the upper ones. */
TV_INLINE void tv_nibbles_apart(const uint8_t *p, uint8_t *to) {
  MM_UNROLL for (int i = 0; i < 4; i++, p += 64, to += 64) {
    const TV a = tv_load(p, 0);
    tv_store(to, tv_nibble(a, 0));
    tv_store(to + 256, tv_nibble(a, 1));
  }
}
/* Small scales of the rows of half h, a byte each from p on, and sums times them; sums that came times 2^n without it. */
TV_INLINE TV tv_small(const uint8_t *p, int h) {
  return tv_i8(p, h);
}
TV_INLINE TV tv_ones(void) {
  return tv_zero(); /* unused */
}
TV_INLINE TV tv_times(TV sum, TV scale) {
  return _mm512_mullo_epi32(sum, scale);
}
TV_INLINE TV tv_lower(TV sum, const int n) {
  return n == 0 ? sum : n == 2 ? _mm512_srai_epi32(sum, 2) : n == 4 ? _mm512_srai_epi32(sum, 4) : _mm512_srai_epi32(sum, 6);
}

/* Sixteen values, chosen by the number in each byte. */
TV_INLINE TV tv_iq4_values(void) {
  return _mm512_broadcast_i32x4(_mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113));
}
TV_INLINE TV tv_fp4_values(void) {
  return _mm512_broadcast_i32x4(_mm_setr_epi8(16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4));
}
TV_INLINE TV tv_choose(TV values, TV number) {
  return _mm512_shuffle_epi8(values, number);
}
/* 2^(e - 128) of a byte e: a normal number, but for 0 and 1. */
TV_INLINE TVF tv_half_e8m0(TV e) {
  TV normal = _mm512_slli_epi32(tv_sub32(e, tv_set32(1)), 23);
  TV tiny = _mm512_sllv_epi32(tv_set32(0x00200000), e);
  return _mm512_castsi512_ps(_mm512_mask_mov_epi32(normal, _mm512_cmplt_epi32_mask(e, tv_set32(2)), tiny));
}

TV_INLINE TV tv_flip(TV a) {
  return _mm512_xor_si512(a, _mm512_set1_epi8((char)0x80));
}
/* sum += unsigned bytes of w times the four signed bytes at q */
TV_INLINE TV tv_dot(TV sum, TV w, const char *q) {
  return _mm512_dpbusd_epi32(sum, w, tv_four(q));
}

/* 32 bytes of each of eight tokens: four of each token beside each other, then the next four. */
TV_INLINE void tv_side_by_side(const char *const *x, int32_t *to) {
  __m256i a[8], b[8];
  MM_UNROLL for (int t = 0; t < 4; t++) {
    __m256i v = _mm256_loadu_si256((const void *)x[2 * t]), w = _mm256_loadu_si256((const void *)x[2 * t + 1]);
    a[2 * t] = _mm256_unpacklo_epi32(v, w);
    a[2 * t + 1] = _mm256_unpackhi_epi32(v, w);
  }
  MM_UNROLL for (int i = 0; i < 2; i++) { /* words 0 and 4, 1 and 5, 2 and 6, 3 and 7 of four tokens */
    MM_UNROLL for (int k = 0; k < 2; k++) {
      b[4 * i + 2 * k] = _mm256_unpacklo_epi64(a[4 * i + k], a[4 * i + 2 + k]);
      b[4 * i + 2 * k + 1] = _mm256_unpackhi_epi64(a[4 * i + k], a[4 * i + 2 + k]);
    }
  }
  MM_UNROLL for (int k = 0; k < 4; k++) {
    _mm256_storeu_si256((void *)(to + 8 * k), _mm256_permute2x128_si256(b[k], b[4 + k], 0x20));
    _mm256_storeu_si256((void *)(to + 8 * k + 32), _mm256_permute2x128_si256(b[k], b[4 + k], 0x31));
  }
}

#endif
