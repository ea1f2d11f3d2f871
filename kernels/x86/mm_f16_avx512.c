/* F16 x F16: both are widened in registers, products and sums in f32. */
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

typedef struct {
  __m512 lo, hi;
} mm_wv, mm_xv;

static inline __m512 half16(const void *p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(p));
}

static inline mm_wv mm_w(const char *row, int c) {
  return (mm_wv){half16(row + MM_BYTES(c)), half16(row + MM_BYTES(c) + 32)};
}

static inline mm_wv mm_w_tail(const char *row, int c, int n) {
  __mmask32 m = (1u << n) - 1u;
  __m512i h = _mm512_maskz_loadu_epi16(m, row + MM_BYTES(c));
  return (mm_wv){_mm512_cvtph_ps(_mm512_castsi512_si256(h)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1))};
}

static inline mm_xv mm_x(const void *x, int c, int n_cols) {
  (void)n_cols;
  const char *p = (const char *)x + MM_BYTES(c);
  return (mm_xv){half16(p), half16(p + 32)};
}

static inline __m512 mm_fma(__m512 acc, mm_wv w, mm_xv x) {
  return _mm512_fmadd_ps(w.hi, x.hi, _mm512_fmadd_ps(w.lo, x.lo, acc));
}

#include "kernels/x86/mm_tile.inc"

void kern_mm_f16_avx512(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  mm_walk(w, row0, row1, n_tok, x, y);
}
