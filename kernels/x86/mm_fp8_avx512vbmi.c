/* Products of FP8 in tiles with VDPBF16PS: every E4M3 number is a BF16 number, whose two bytes VPERMI2B finds in tables of 128.
 * Rows lie in pair lanes as in tile/pairs.inc: 64 bytes of weights are four columns of 16 rows; interleaved with their upper bytes they are
 * two vectors of eight rows, the two lanes of a row each a pair of columns, which meet 64 bits of the activation. Units take turns with two
 * sums, so a row has four in all; a chunk's sum meets the scale in f32. Fixed order: batch invariance. */
#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

/* From two tokens on weights are fetched so far ahead into the first-level cache: 2 tokens 21 to 26 GB/s a core, 4 11 to 20; 8 KB ahead into the second level
 * gains nothing here. */
enum { PD_TOKENS = 6, UNIT_BYTES = 4 * TILE_ROWS, AHEAD = 2048 };
#define PD_INLINE static inline __attribute__((always_inline))

typedef struct {
  __m512i lower[2], upper[2];
} tables;

static tables make_tables(void) {
  uint8_t lower[128], upper[128];
  for (int i = 0; i < 128; i++) {
    uint16_t h = (uint16_t)(half_bits_of(half_from_e4m3((uint8_t)i)) >> 16);
    lower[i] = (uint8_t)h;
    upper[i] = (uint8_t)(h >> 8);
  }
  return (tables){{_mm512_loadu_si512(lower), _mm512_loadu_si512(lower + 64)},
                  {_mm512_loadu_si512(upper), _mm512_loadu_si512(upper + 64)}};
}

/* Rows 0 1 4 5 8 9 12 13 and the others of the unit at p. */
PD_INLINE void weights(const tables *k, const uint8_t *p, __m512bh w[2]) {
  __m512i b = _mm512_loadu_si512(p);
  __m512i lower = _mm512_permutex2var_epi8(k->lower[0], b, k->lower[1]),
          upper = _mm512_permutex2var_epi8(k->upper[0], b, k->upper[1]);
  upper = _mm512_ternarylogic_epi32(upper, b, _mm512_set1_epi8((char)0x80), 0xf8); /* upper | (b & sign) */
  w[0] = (__m512bh)_mm512_unpacklo_epi8(lower, upper);
  w[1] = (__m512bh)_mm512_unpackhi_epi8(lower, upper);
}

PD_INLINE __m512bh four_of(const void *x, int c) {
  int64_t four;
  memcpy(&four, (const uint16_t *)x + c, sizeof four);
  return (__m512bh)_mm512_set1_epi64(four);
}

/* Scales of the rows of half h, each twice. */
PD_INLINE __m512 scales(const uint8_t *p, const int h) {
  const __m512i low = _mm512_setr_epi32(0, 0, 1, 1, 4, 4, 5, 5, 8, 8, 9, 9, 12, 12, 13, 13);
  return _mm512_permutexvar_ps(h ? _mm512_add_epi32(low, _mm512_set1_epi32(2)) : low,
                               _mm512_loadu_ps((const float *)(const void *)p));
}

/* All columns of one tile. */
PD_INLINE void run(const int n_t, const tables *k, const uint8_t *p, int n_cols, const void *const *x, float (*out)[TILE_ROWS],
                   size_t ahead) {
  __m512 acc[2][PD_TOKENS];
  MM_UNROLL for (int t = 0; t < n_t; t++) acc[0][t] = acc[1][t] = _mm512_setzero_ps();
  for (int c0 = 0; c0 < n_cols; c0 += FP8_BLOCK) {
    const int end = n_cols - c0 < FP8_BLOCK ? n_cols : c0 + FP8_BLOCK;
    const uint8_t *scale = p;
    __m512 s[2][2][PD_TOKENS];
    p += TILE_ROWS * sizeof(float);
    MM_UNROLL for (int t = 0; t < n_t; t++) s[0][0][t] = s[0][1][t] = s[1][0][t] = s[1][1][t] = _mm512_setzero_ps();
    for (int c = c0; c < end; c += 8, p += 2 * UNIT_BYTES) {
      MM_UNROLL for (int u = 0; u < 2; u++) {
        __m512bh w[2];
        if (u && c + 4 >= end) break;
        if (n_t >= 2) __builtin_prefetch(p + u * UNIT_BYTES + ahead, 0, 3);
        weights(k, p + u * UNIT_BYTES, w);
        MM_UNROLL for (int t = 0; t < n_t; t++) {
          __m512bh xv = four_of(x[t], c + 4 * u);
          s[u][0][t] = _mm512_dpbf16_ps(s[u][0][t], w[0], xv);
          s[u][1][t] = _mm512_dpbf16_ps(s[u][1][t], w[1], xv);
        }
      }
    }
    if ((end - c0) % 8) p -= UNIT_BYTES;
    MM_UNROLL for (int h = 0; h < 2; h++) {
      __m512 d = scales(scale, h);
      MM_UNROLL for (int t = 0; t < n_t; t++) acc[h][t] = _mm512_fmadd_ps(_mm512_add_ps(s[0][h][t], s[1][h][t]), d, acc[h][t]);
    }
  }
  const __m512i even = _mm512_setr_epi32(0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30);
  MM_UNROLL for (int t = 0; t < n_t; t++) {
    __m512 odd = _mm512_permutex2var_ps(acc[0][t], _mm512_add_epi32(even, _mm512_set1_epi32(1)), acc[1][t]);
    _mm512_storeu_ps(out[t], _mm512_add_ps(_mm512_permutex2var_ps(acc[0][t], even, acc[1][t]), odd));
  }
}

typedef void run_fn(const tables *, const uint8_t *, int, const void *const *, float (*)[TILE_ROWS], size_t);
#define PD_RUN(number, name)                                                                                      \
  static __attribute__((noinline)) void name(const tables *k, const uint8_t *p, int n_cols, const void *const *x, \
                                             float(*out)[TILE_ROWS], size_t ahead) {                              \
    run(number, k, p, n_cols, x, out, ahead);                                                                     \
  }
PD_RUN(1, one)
PD_RUN(2, two)
PD_RUN(3, three)
PD_RUN(4, four)
PD_RUN(5, five)
PD_RUN(6, six)

void kern_mm_tile_fp8_avx512vbmi(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  static run_fn *const fn[PD_TOKENS] = {one, two, three, four, five, six};
  const tables k = make_tables();
  float out[PD_TOKENS][TILE_ROWS];
  for (int r0 = row0 / TILE_ROWS * TILE_ROWS; r0 < row1; r0 += TILE_ROWS) {
    const uint8_t *tile = (const uint8_t *)w->data + (size_t)r0 * w->row_bytes;
    const int lo = r0 < row0 ? row0 : r0, hi = r0 + TILE_ROWS < row1 ? r0 + TILE_ROWS : row1;
    size_t ahead = AHEAD;
    for (int t = 0, n; t < n_tok; t += n, ahead = 0) {
      const int left = n_tok - t;
      n = left >= 2 * PD_TOKENS ? PD_TOKENS : left > PD_TOKENS ? (left + 1) / 2 : left;
      fn[n - 1](&k, tile, w->n_cols, x + t, out, ahead);
      for (int i = 0; i < n; i++) memcpy(y[t + i] + lo, out[i] + (lo - r0), (size_t)(hi - lo) * sizeof(float));
    }
  }
}
