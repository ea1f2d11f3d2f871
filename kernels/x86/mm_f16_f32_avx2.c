/* F16 x F32, exact mode. */
#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/x86.h"

#define MM_VEC __m256
#define MM_ZERO() _mm256_setzero_ps()
#define MM_SUM(v) v256_sum(v)
#define MM_STEP 16
#define MM_BYTES(c) ((size_t)(c)*2)
#define MM_R1 8
#define MM_R 2
#define MM_T 4

typedef struct {
  __m256 lo, hi;
} mm_wv, mm_xv;

static inline __m256 widen(__m128i h) {
  return _mm256_cvtph_ps(h);
}

static inline mm_wv mm_w(const char *row, int c) {
  const __m128i *p = (const void *)(row + MM_BYTES(c));
  return (mm_wv){widen(_mm_loadu_si128(p)), widen(_mm_loadu_si128(p + 1))};
}

static inline mm_wv mm_w_tail(const char *row, int c, int n) {
  const char *p = row + MM_BYTES(c);
  return n < 8 ? (mm_wv){widen(v128_load_u16_tail(p, n)), _mm256_setzero_ps()}
               : (mm_wv){widen(_mm_loadu_si128((const void *)p)), widen(v128_load_u16_tail(p + 16, n - 8))};
}

static inline mm_xv mm_x(const void *x, int c, int n_cols) {
  (void)n_cols;
  const float *p = (const float *)x + c;
  return (mm_xv){_mm256_load_ps(p), _mm256_load_ps(p + 8)};
}

static inline __m256 mm_fma(__m256 acc, mm_wv w, mm_xv x) {
  return _mm256_fmadd_ps(w.hi, x.hi, _mm256_fmadd_ps(w.lo, x.lo, acc));
}

#include "kernels/x86/mm_tile.inc"

void kern_mm_f16_f32_avx2(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  mm_walk(w, row0, row1, n_tok, x, y);
}
