/* Attention over a cache in Q8_0: 8 tokens, or dimensions, in a vector. VPMADDUBSW takes bytes without a sign times bytes with one: magnitudes of keys, and
 * their signs on the queries; both are at most 127, so that two products fit in 16 bits. */
#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/x86.h"

#include "kernels/x86/attn_base.inc"

#include "kernels/x86/attn_state.inc"

typedef struct {
  __m256i k, magnitude;
} aq_keys;

#define AQ_VEC __m256
#define AQ_INT __m256i
#define AQ_KEY aq_keys
#define AG_GROUP 4
#define AQ_SUMS 8
#define AQ_TOKENS(rows) ((rows) == 4 ? 1 : (rows) == 2 ? 2 : 4)
#define AQ_DIMS(rows) ((rows) == 4 ? 2 : 4)
#define AQ_PACK(x, n, out) kern_pack_q8b32_avx2(x, n, out)
#define AQ_KEYS(p) aq_load_keys(p)
#define AQ_BEGIN(less) ((void)(less), _mm256_setzero_si256())
#define AQ_DOT(sum, keys, q) aq_dot(sum, &(keys), q)
#define AQ_FLOAT(i) _mm256_cvtepi32_ps(i)
#define AQ_SCALES(p) _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p)))
#define AQ_VALUES(p) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(p))))

AT_INLINE aq_keys aq_load_keys(const char *p) {
  const __m256i k = _mm256_loadu_si256((const void *)p);
  return (aq_keys){k, _mm256_abs_epi8(k)};
}

AT_INLINE __m256i aq_dot(__m256i sum, const aq_keys *k, int32_t q) {
  const __m256i signs = _mm256_sign_epi8(_mm256_set1_epi32(q), k->k);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(k->magnitude, signs), _mm256_set1_epi16(1)));
}

#include "kernels/x86/attn_q8.inc"

void kern_attn_q8_avx2(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch) {
  aq_attend(a, g0, g1, r0, r1, s0, s1, part, scratch);
}

void kern_attn_q8_merge_avx2(const kern_attn *a, int g0, int g1, int r0, int r1, int n_seg, const float *part, void *scratch) {
  as_merge(a, g0, g1, r0, r1, n_seg, part, scratch);
}
