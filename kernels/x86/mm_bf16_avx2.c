/* BF16 x BF16: even and odd columns are taken apart by shift and mask; every product is exact in f32. */
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

/* The halves of a 32-bit lane are neighbours in memory: even columns are its low half, odd ones its high half. */
static inline mm_wv split(__m256i v) {
  return (mm_wv){_mm256_castsi256_ps(_mm256_slli_epi32(v, 16)),
                 _mm256_castsi256_ps(_mm256_and_si256(v, _mm256_set1_epi32((int)0xffff0000u)))};
}

static inline mm_wv mm_w(const char *row, int c) {
  return split(_mm256_loadu_si256((const void *)(row + MM_BYTES(c))));
}

static inline mm_wv mm_w_tail(const char *row, int c, int n) {
  uint16_t h[16] = {0};
  memcpy(h, row + MM_BYTES(c), (size_t)n * 2);
  return split(_mm256_loadu_si256((const void *)h));
}

static inline mm_xv mm_x(const void *x, int c, int n_cols) {
  (void)n_cols;
  return split(_mm256_load_si256((const void *)((const char *)x + MM_BYTES(c))));
}

static inline __m256 mm_fma(__m256 acc, mm_wv w, mm_xv x) {
  return _mm256_fmadd_ps(w.hi, x.hi, _mm256_fmadd_ps(w.lo, x.lo, acc));
}

#include "kernels/x86/mm_tile.inc"

void kern_mm_bf16_avx2(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  mm_walk(w, row0, row1, n_tok, x, y);
}
