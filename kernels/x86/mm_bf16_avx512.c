/* BF16 x BF16 without VDPBF16PS: even and odd columns are taken apart by shift and mask; every product is exact in f32. */
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

/* The halves of a 32-bit lane are neighbours in memory: even columns are its low half, odd ones its high half. */
static inline mm_wv split(__m512i v) {
  return (mm_wv){_mm512_castsi512_ps(_mm512_slli_epi32(v, 16)),
                 _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000u)))};
}

static inline mm_wv mm_w(const char *row, int c) {
  return split(_mm512_loadu_si512(row + MM_BYTES(c)));
}

static inline mm_wv mm_w_tail(const char *row, int c, int n) {
  return split(_mm512_maskz_loadu_epi16((1u << n) - 1u, row + MM_BYTES(c)));
}

static inline mm_xv mm_x(const void *x, int c, int n_cols) {
  (void)n_cols;
  return split(_mm512_load_si512((const char *)x + MM_BYTES(c)));
}

static inline __m512 mm_fma(__m512 acc, mm_wv w, mm_xv x) {
  return _mm512_fmadd_ps(w.hi, x.hi, _mm512_fmadd_ps(w.lo, x.lo, acc));
}

#include "kernels/x86/mm_tile.inc"

void kern_mm_bf16_avx512(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  mm_walk(w, row0, row1, n_tok, x, y);
}
