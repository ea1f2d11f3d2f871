/* Attention over a cache in Q8_0: 16 tokens, or dimensions, in a vector. VPDPBUSD takes bytes without a sign times bytes with one: keys get 128 added by
 * turning their sign bit over, and sums begin at what that adds. */
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

#include "kernels/x86/attn_base.inc"

#include "kernels/x86/attn_state.inc"

#define AQ_VEC __m512
#define AQ_INT __m512i
#define AQ_KEY __m512i
#define AG_GROUP 8
#define AQ_SUMS 16
#define AQ_TOKENS(rows) ((rows) == 8 ? 1 : (rows) == 4 ? 2 : 4)
#define AQ_DIMS(rows) ((rows) == 8 ? 2 : (rows) == 4 ? 4 : 8)
#define AQ_PACK(x, n, out) kern_pack_q8b32_avx512(x, n, out)
#define AQ_KEYS(p) _mm512_xor_si512(_mm512_loadu_si512(p), _mm512_set1_epi8((char)-128))
#define AQ_BEGIN(less) _mm512_set1_epi32(less)
#define AQ_DOT(sum, keys, q) _mm512_dpbusd_epi32(sum, keys, _mm512_set1_epi32(q))
#define AQ_FLOAT(i) _mm512_cvtepi32_ps(i)
#define AQ_SCALES(p) _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p)))
#define AQ_VALUES(p) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(p))))

#include "kernels/x86/attn_q8.inc"

void kern_attn_avx512vnni(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch) {
  if (kern_attn_is_q8(a)) aq_attend(a, g0, g1, r0, r1, s0, s1, part, scratch);
  else kern_attn_avx512(a, g0, g1, r0, r1, s0, s1, part, scratch);
}

void kern_attn_merge_avx512vnni(const kern_attn *a, int g0, int g1, int r0, int r1, int n_seg, const float *part, void *scratch) {
  if (kern_attn_is_q8(a)) as_merge(a, g0, g1, r0, r1, n_seg, part, scratch);
  else kern_attn_merge_avx512(a, g0, g1, r0, r1, n_seg, part, scratch);
}
