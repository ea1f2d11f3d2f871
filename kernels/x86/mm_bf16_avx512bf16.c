/* BF16 x BF16 with VDPBF16PS. The instruction adds a pair of exact products to the f32 accumulator, rounds to nearest even
 * whatever MXCSR says, and takes subnormal inputs and results as zero. So it differs from the reference by rounding order, which
 * every candidate may, and where a factor is below 2^-126: there it loses that product. No trained weight is that small. */
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

#define MM_VEC __m512
#define MM_ZERO() _mm512_setzero_ps()
#define MM_SUM(v) v512_sum(v)
#define MM_STEP 32
#define MM_BYTES(c) ((size_t)(c)*2)
#define MM_R1 8
#define MM_R 4
#define MM_T 4

typedef __m512bh mm_wv, mm_xv;

static inline mm_wv mm_w(const char *row, int c) {
  return (__m512bh)_mm512_loadu_si512(row + MM_BYTES(c));
}

static inline mm_wv mm_w_tail(const char *row, int c, int n) {
  return (__m512bh)_mm512_maskz_loadu_epi16((1u << n) - 1u, row + MM_BYTES(c));
}

static inline mm_xv mm_x(const void *x, int c, int n_cols) {
  (void)n_cols;
  return (__m512bh)_mm512_load_si512((const char *)x + MM_BYTES(c));
}

static inline __m512 mm_fma(__m512 acc, mm_wv w, mm_xv x) {
  return _mm512_dpbf16_ps(acc, w, x);
}

#include "kernels/x86/mm_tile.inc"

void kern_mm_bf16_avx512bf16(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  mm_walk(w, row0, row1, n_tok, x, y);
}
