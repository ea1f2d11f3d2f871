/* Q8_0 x F32, exact mode: d * q has at most 18 significant bits, so the dequantised weight is exact. A step is a block. */
#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/x86.h"
#include "kernels/half.h"
#include "kernels/layouts.h"

#define MM_VEC __m256
#define MM_ZERO() _mm256_setzero_ps()
#define MM_SUM(v) v256_sum(v)
#define MM_STEP 32
#define MM_BYTES(c) ((size_t)((c) / Q8_BLOCK) * Q8_BLOCK_BYTES)
#define MM_R1 4
#define MM_R 1
#define MM_T 4

typedef struct {
  __m256 v[4];
} mm_wv, mm_xv;

static inline mm_wv mm_w(const char *row, int c) {
  const char *block = row + MM_BYTES(c);
  __m256 d = _mm256_set1_ps(_cvtsh_ss(half_load_u16(block)));
  mm_wv w;
  MM_UNROLL for (int i = 0; i < 4; i++) {
    __m256i q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(block + 2 + 8 * i)));
    w.v[i] = _mm256_mul_ps(d, _mm256_cvtepi32_ps(q));
  }
  return w;
}

/* Columns are a multiple of the block: there is no tail. */
static inline mm_wv mm_w_tail(const char *row, int c, int n) {
  (void)n;
  return mm_w(row, c);
}

static inline mm_xv mm_x(const void *x, int c, int n_cols) {
  (void)n_cols;
  mm_xv v;
  MM_UNROLL for (int i = 0; i < 4; i++) v.v[i] = _mm256_load_ps((const float *)x + c + 8 * i);
  return v;
}

static inline __m256 mm_fma(__m256 acc, mm_wv w, mm_xv x) {
  MM_UNROLL for (int i = 0; i < 4; i++) acc = _mm256_fmadd_ps(w.v[i], x.v[i], acc);
  return acc;
}

#include "kernels/x86/mm_tile.inc"

void kern_mm_q8_0_f32_avx2(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  mm_walk(w, row0, row1, n_tok, x, y);
}
