/* Q8_0 x F32, exact mode: d * q has at most 18 significant bits, so the dequantised weight is exact. */
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"
#include "kernels/half.h"
#include "kernels/layouts.h"

#define MM_VEC __m512
#define MM_ZERO() _mm512_setzero_ps()
#define MM_SUM(v) v512_sum(v)
#define MM_STEP 32
#define MM_BYTES(c) ((size_t)((c) / Q8_BLOCK) * Q8_BLOCK_BYTES)
#define MM_R1 8
#define MM_R 4
#define MM_T 4

typedef struct {
  __m512 lo, hi;
} mm_wv, mm_xv;

static inline mm_wv mm_w(const char *row, int c) {
  const char *block = row + MM_BYTES(c);
  __m512 d = _mm512_set1_ps(_cvtsh_ss(half_load_u16(block)));
  __m512i lo = _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(block + 2)));
  __m512i hi = _mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(block + 18)));
  return (mm_wv){_mm512_mul_ps(d, _mm512_cvtepi32_ps(lo)), _mm512_mul_ps(d, _mm512_cvtepi32_ps(hi))};
}

/* Columns are a multiple of the block: there is no tail. */
static inline mm_wv mm_w_tail(const char *row, int c, int n) {
  (void)n;
  return mm_w(row, c);
}

static inline mm_xv mm_x(const void *x, int c, int n_cols) {
  (void)n_cols;
  const float *p = (const float *)x + c;
  return (mm_xv){_mm512_load_ps(p), _mm512_load_ps(p + 16)};
}

static inline __m512 mm_fma(__m512 acc, mm_wv w, mm_xv x) {
  return _mm512_fmadd_ps(w.hi, x.hi, _mm512_fmadd_ps(w.lo, x.lo, acc));
}

#include "kernels/x86/mm_tile.inc"

void kern_mm_q8_0_f32_avx512(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  mm_walk(w, row0, row1, n_tok, x, y);
}
