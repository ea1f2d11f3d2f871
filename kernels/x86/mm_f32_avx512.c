/* F32 x F32. */
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

#define MM_VEC __m512
#define MM_ZERO() _mm512_setzero_ps()
#define MM_SUM(v) v512_sum(v)
#define MM_STEP 16
#define MM_BYTES(c) ((size_t)(c)*4)
#define MM_R1 8
#define MM_R 4
#define MM_T 4

typedef __m512 mm_wv, mm_xv;

static inline mm_wv mm_w(const char *row, int c) {
  return _mm512_loadu_ps(row + MM_BYTES(c));
}

static inline mm_wv mm_w_tail(const char *row, int c, int n) {
  return _mm512_maskz_loadu_ps(v512_mask(n), row + MM_BYTES(c));
}

static inline mm_xv mm_x(const void *x, int c, int n_cols) {
  (void)n_cols;
  return _mm512_load_ps((const float *)x + c);
}

static inline __m512 mm_fma(__m512 acc, mm_wv w, mm_xv x) {
  return _mm512_fmadd_ps(w, x, acc);
}

#include "kernels/x86/mm_tile.inc"

void kern_mm_f32_avx512(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  mm_walk(w, row0, row1, n_tok, x, y);
}
