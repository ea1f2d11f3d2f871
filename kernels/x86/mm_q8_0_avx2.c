/* Q8_0 x Q8B32 without VNNI. VPMADDUBSW wants one unsigned side: |w| and x with w's sign. |w| <= 128 and |x| <= 127, so the
 * sum of two products stays below 2^15 and nothing saturates. The eight partial sums of a block are scaled and added as f32: each
 * is an exact integer. A step is a block. */
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
#define MM_R 2
#define MM_T 4

typedef struct {
  __m256i magnitude, q;
  __m256 d;
} mm_wv;

typedef struct {
  __m256i q;
  __m256 d;
} mm_xv;

static inline mm_wv mm_w(const char *row, int c) {
  const char *block = row + MM_BYTES(c);
  __m256i q = _mm256_loadu_si256((const void *)(block + 2));
  return (mm_wv){_mm256_sign_epi8(q, q), q, _mm256_set1_ps(_cvtsh_ss(half_load_u16(block)))};
}

/* Columns are a multiple of the block: there is no tail. */
static inline mm_wv mm_w_tail(const char *row, int c, int n) {
  (void)n;
  return mm_w(row, c);
}

static inline mm_xv mm_x(const void *x, int c, int n_cols) {
  const float *d = (const float *)((const char *)x + q8b32_scales_offset(n_cols));
  return (mm_xv){_mm256_load_si256((const void *)((const char *)x + c)), _mm256_broadcast_ss(d + c / Q8_BLOCK)};
}

static inline __m256 mm_fma(__m256 acc, mm_wv w, mm_xv x) {
  __m256i pairs = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(x.q, w.q));
  __m256i sums = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
  return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), _mm256_mul_ps(w.d, x.d), acc);
}

#include "kernels/x86/mm_tile.inc"

void kern_mm_q8_0_avx2(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  mm_walk(w, row0, row1, n_tok, x, y);
}
