/* mm_tile.h: the walk shared by the x86 matrix products. Included once by each mm_FORMAT_ISA.c, after it has defined how one
 * step of a row meets one step of an activation:
 *
 *   MM_VEC, MM_ZERO(), MM_SUM(v)      the accumulator: one vector per (row, token), and its sum in a fixed order
 *   MM_STEP                           columns per step
 *   MM_BYTES(c)                       byte offset of column c (a multiple of MM_STEP) in a row
 *   mm_wv, mm_w(row, c)               one step of weights in registers; mm_w_tail(row, c, n): n < MM_STEP columns, rest zero
 *   mm_xv, mm_x(x, c, n_cols)         one step of the packed activation (its padding is zero)
 *   mm_fma(acc, w, x)
 *   MM_UNROLL                         from vec_ISA.h
 *   MM_R1, MM_R, MM_T                 rows of a tile for one token; rows and tokens of a tile for several
 *
 * A (row, token) pair always owns one accumulator that meets the steps in rising order, so a result does not depend on the tile
 * that it was computed in: that is batch invariance. A strip of MM_R rows is used for all tokens while it is in the cache;
 * during the first token tile the next strip is prefetched, so that memory works while later tiles compute. The prefetch goes to
 * the second-level cache: a strip is as large as the first level, which it would only flush (measured: a third slower). */
#include <stdbool.h>

#include "kernels/kernels.h"

enum { MM_MAX_R = MM_R1 > MM_R ? MM_R1 : MM_R };

static inline __attribute__((always_inline)) void mm_tile(const int n_r, const int n_t, const kern_mat *w, int r0,
                                                          const void *const *x, float *const *y, const bool ahead) {
  const char *row[MM_MAX_R];
  MM_VEC acc[MM_MAX_R][MM_T];
  mm_wv wv[MM_MAX_R];
  const int n_cols = w->n_cols;
  const size_t next = (size_t)n_r * w->row_bytes;
  int c = 0;
  MM_UNROLL for (int r = 0; r < n_r; r++) {
    row[r] = (const char *)w->data + (size_t)(r0 + r) * w->row_bytes;
    MM_UNROLL for (int t = 0; t < n_t; t++) acc[r][t] = MM_ZERO();
  }
  for (; c + MM_STEP <= n_cols; c += MM_STEP) {
    MM_UNROLL for (int r = 0; r < n_r; r++) {
      wv[r] = mm_w(row[r], c);
      if (ahead) __builtin_prefetch(row[r] + next + MM_BYTES(c), 0, 2);
    }
    MM_UNROLL for (int t = 0; t < n_t; t++) {
      mm_xv xv = mm_x(x[t], c, n_cols);
      MM_UNROLL for (int r = 0; r < n_r; r++) acc[r][t] = mm_fma(acc[r][t], wv[r], xv);
    }
  }
  if (c < n_cols) {
    MM_UNROLL for (int r = 0; r < n_r; r++) wv[r] = mm_w_tail(row[r], c, n_cols - c);
    MM_UNROLL for (int t = 0; t < n_t; t++) {
      mm_xv xv = mm_x(x[t], c, n_cols);
      MM_UNROLL for (int r = 0; r < n_r; r++) acc[r][t] = mm_fma(acc[r][t], wv[r], xv);
    }
  }
  MM_UNROLL for (int t = 0; t < n_t; t++) {
    MM_UNROLL for (int r = 0; r < n_r; r++) y[t][r0 + r] = MM_SUM(acc[r][t]);
  }
}

/* One strip of n_r rows for all tokens. */
static inline __attribute__((always_inline)) void mm_strip(const int n_r, const kern_mat *w, int r, int n_tok,
                                                           const void *const *x, float *const *y, bool more) {
  int t = 0;
  if (n_tok >= MM_T) {
    if (more) mm_tile(n_r, MM_T, w, r, x, y, true);
    else mm_tile(n_r, MM_T, w, r, x, y, false);
    for (t = MM_T; t + MM_T <= n_tok; t += MM_T) mm_tile(n_r, MM_T, w, r, x + t, y + t, false);
  }
  for (; t + 2 <= n_tok; t += 2) mm_tile(n_r, 2, w, r, x + t, y + t, t == 0 && more);
  for (; t < n_tok; t++) mm_tile(n_r, 1, w, r, x + t, y + t, t == 0 && more);
}

static void mm_walk(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  int r = row0;
  if (n_tok == 1) {
    for (; r + 2 * MM_R1 <= row1; r += MM_R1) mm_tile(MM_R1, 1, w, r, x, y, true);
    for (; r + MM_R1 <= row1; r += MM_R1) mm_tile(MM_R1, 1, w, r, x, y, false);
  } else {
    for (; r + MM_R <= row1; r += MM_R) mm_strip(MM_R, w, r, n_tok, x, y, r + 2 * MM_R <= row1);
  }
  for (; r < row1; r++) mm_strip(1, w, r, n_tok, x, y, false);
}
