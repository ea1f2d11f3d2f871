/* Products of BF16 in tiles with VDPBF16PS, which takes a pair of columns of 16 rows at once; x86/mm_bf16_avx512bf16.c says how it rounds.
 * A row has two sums, of even and of odd pairs, each meeting its pairs in rising order: that is batch invariance, and two chains of
 * additions hide the latency of one token. */
#include "kernels/layouts.h"
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

enum { PD_TOKENS = 8, PAIR_BYTES = 4 * TILE_ROWS };
#define PD_INLINE static inline __attribute__((always_inline))

PD_INLINE __m512bh pair_of(const void *x, int c) {
  int32_t two;
  memcpy(&two, (const uint16_t *)x + c, sizeof two);
  return (__m512bh)_mm512_set1_epi32(two);
}

/* All columns of one tile. */
PD_INLINE void bf16_run(const int n_t, const uint8_t *p, int n_cols, const void *const *x, float (*out)[TILE_ROWS],
                        size_t ahead) {
  __m512 even[PD_TOKENS], odd[PD_TOKENS];
  MM_UNROLL for (int t = 0; t < n_t; t++) even[t] = odd[t] = _mm512_setzero_ps();
  int c = 0;
  for (; c + 4 <= n_cols; c += 4, p += 2 * PAIR_BYTES) {
    __m512bh w0 = (__m512bh)_mm512_loadu_si512(p), w1 = (__m512bh)_mm512_loadu_si512(p + PAIR_BYTES);
    if (n_t >= 3) {
      __builtin_prefetch(p + ahead, 0, 2);
      __builtin_prefetch(p + PAIR_BYTES + ahead, 0, 2);
    }
    MM_UNROLL for (int t = 0; t < n_t; t++) {
      even[t] = _mm512_dpbf16_ps(even[t], w0, pair_of(x[t], c));
      odd[t] = _mm512_dpbf16_ps(odd[t], w1, pair_of(x[t], c + 2));
    }
  }
  if (c < n_cols) {
    __m512bh w0 = (__m512bh)_mm512_loadu_si512(p);
    MM_UNROLL for (int t = 0; t < n_t; t++) even[t] = _mm512_dpbf16_ps(even[t], w0, pair_of(x[t], c));
  }
  MM_UNROLL for (int t = 0; t < n_t; t++) _mm512_storeu_ps(out[t], _mm512_add_ps(even[t], odd[t]));
}

#define PD_RUN(number, name)                                                                                             \
  static __attribute__((noinline)) void name(const uint8_t *p, int n_cols, const void *const *x, float(*out)[TILE_ROWS], \
                                             size_t ahead) {                                                             \
    bf16_run(number, p, n_cols, x, out, ahead);                                                                          \
  }
PD_RUN(1, one)
PD_RUN(2, two)
PD_RUN(3, three)
PD_RUN(4, four)
PD_RUN(5, five)
PD_RUN(6, six)
PD_RUN(7, seven)
PD_RUN(8, eight)

void kern_mm_tile_bf16_avx512bf16(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  typedef void run_fn(const uint8_t *, int, const void *const *, float(*)[TILE_ROWS], size_t);
  static run_fn *const run[PD_TOKENS] = {one, two, three, four, five, six, seven, eight};
  float out[PD_TOKENS][TILE_ROWS];
  for (int r0 = row0 / TILE_ROWS * TILE_ROWS; r0 < row1; r0 += TILE_ROWS) {
    const uint8_t *tile = (const uint8_t *)w->data + (size_t)r0 * w->row_bytes;
    const int lo = r0 < row0 ? row0 : r0, hi = r0 + TILE_ROWS < row1 ? r0 + TILE_ROWS : row1;
    size_t ahead = 8192;
    for (int t = 0, n; t < n_tok; t += n, ahead = 0) {
      const int left = n_tok - t;
      n = left >= 2 * PD_TOKENS ? PD_TOKENS : left > PD_TOKENS ? (left + 1) / 2 : left;
      run[n - 1](tile, w->n_cols, x + t, out, ahead);
      for (int i = 0; i < n; i++) memcpy(y[t + i] + lo, out[i] + (lo - r0), (size_t)(hi - lo) * sizeof(float));
    }
  }
}
