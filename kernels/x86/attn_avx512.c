/* Attention: 16 query rows in a vector, or 8 where there are no more. */
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

static inline void at_kv16(kern_kv_type t, const char *p, int left, float *dst) {
  __mmask16 m = left < 16 ? v512_mask(left) : (__mmask16)0xffff;
  if (t == KV_F32) {
    _mm512_storeu_ps(dst, _mm512_maskz_loadu_ps(m, p));
  } else {
    __m256i h = left < 16 ? _mm256_maskz_loadu_epi16(m, p) : _mm256_loadu_si256((const void *)p);
    _mm512_storeu_ps(dst, t == KV_F16 ? _mm512_cvtph_ps(h) : v512_from_bf16(h));
  }
}

static inline void at_f16_64(const char *p, float *dst) {
  MM_UNROLL for (int i = 0; i < 64; i += 16)
      _mm512_storeu_ps(dst + i, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p + 2 * i))));
}

static inline float at_f16(uint16_t h) {
  return _cvtsh_ss(h);
}

static inline void at_q8_32(const char *p, float d, float *dst) {
  MM_UNROLL for (int i = 0; i < 32; i += 16)
      _mm512_storeu_ps(dst + i, _mm512_mul_ps(_mm512_set1_ps(d),
                                              _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(p + i))))));
}

#define AT_PACK(x, n, out) kern_pack_q8b32_avx512(x, n, out)
#include "kernels/x86/attn_tile.inc"

#define AT_FN(name) at16_##name
#define AT_VEC __m512
#define AT_W 16
#define AT_ZERO() _mm512_setzero_ps()
#define AT_LOAD(p) _mm512_loadu_ps(p)
#define AT_STORE(p, v) _mm512_storeu_ps(p, v)
#define AT_SET1(f) _mm512_set1_ps(f)
#define AT_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define AT_MUL(a, b) _mm512_mul_ps(a, b)
#define AT_ADD(a, b) _mm512_add_ps(a, b)
#define AT_SUB(a, b) _mm512_sub_ps(a, b)
#define AT_MAX(a, b) _mm512_max_ps(a, b)
#define AT_EXP(v) v512_exp(v)
#define AT_HIDE(s, first, end, key) at16_hide(s, first, end, key)
#define AT_KEYS(v) ((v) == 1 ? 16 : 8)
#define AT_DIMS(v) ((v) == 1 ? 16 : 8)

static inline __m512 at16_hide(__m512 s, const int32_t *first, const int32_t *end, int key) {
  __m512i k = _mm512_set1_epi32(key);
  __mmask16 seen = _mm512_mask_cmpgt_epi32_mask(_mm512_cmpgt_epi32_mask(_mm512_loadu_si512(end), k),
                                                _mm512_add_epi32(k, _mm512_set1_epi32(1)), _mm512_loadu_si512(first));
  return _mm512_mask_blend_ps(seen, _mm512_set1_ps(-__builtin_inff()), s);
}

#include "kernels/x86/attn_rows.inc"

#undef AT_FN
#undef AT_VEC
#undef AT_W
#undef AT_ZERO
#undef AT_LOAD
#undef AT_STORE
#undef AT_SET1
#undef AT_FMA
#undef AT_MUL
#undef AT_ADD
#undef AT_SUB
#undef AT_MAX
#undef AT_EXP
#undef AT_HIDE

#define AT_FN(name) at8_##name
#define AT_VEC __m256
#define AT_W 8
#define AT_ZERO() _mm256_setzero_ps()
#define AT_LOAD(p) _mm256_loadu_ps(p)
#define AT_STORE(p, v) _mm256_storeu_ps(p, v)
#define AT_SET1(f) _mm256_set1_ps(f)
#define AT_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define AT_MUL(a, b) _mm256_mul_ps(a, b)
#define AT_ADD(a, b) _mm256_add_ps(a, b)
#define AT_SUB(a, b) _mm256_sub_ps(a, b)
#define AT_MAX(a, b) _mm256_max_ps(a, b)
#define AT_EXP(v) _mm512_castps512_ps256(v512_exp(_mm512_castps256_ps512(v)))
#define AT_HIDE(s, first, end, key) at8_hide(s, first, end, key)
#define AT_WEIGH(s, safe, sum, n) at8_weigh(s, safe, sum, n)

static inline __m256 at8_hide(__m256 s, const int32_t *first, const int32_t *end, int key) {
  __m256i k = _mm256_set1_epi32(key);
  __mmask8 seen =
      _mm256_mask_cmpgt_epi32_mask(_mm256_cmpgt_epi32_mask(_mm256_loadu_si256((const void *)end), k),
                                   _mm256_add_epi32(k, _mm256_set1_epi32(1)), _mm256_loadu_si256((const void *)first));
  return _mm256_mask_blend_ps(seen, _mm256_set1_ps(-__builtin_inff()), s);
}

/* Two context rows at a time; the second of the last pair may be none, its weight is not summed. */
static inline __m256 at8_weigh(float *s, __m256 safe, __m256 sum, int n) {
  __m512 twice = _mm512_insertf32x8(_mm512_castps256_ps512(safe), safe, 1);
  for (int i = 0; i < n; i += 2) {
    __m512 p = v512_exp(_mm512_sub_ps(_mm512_loadu_ps(s + i * 8), twice));
    _mm512_storeu_ps(s + i * 8, p);
    sum = _mm256_add_ps(sum, _mm512_castps512_ps256(p));
    if (i + 1 < n) sum = _mm256_add_ps(sum, _mm512_extractf32x8_ps(p, 1));
  }
  return sum;
}

#include "kernels/x86/attn_rows.inc"

#include "kernels/x86/attn_state.inc"

#define AG_GROUP 8
#define AH_SUMS 16
#define AH_TOKENS(rows) ((rows) == 8 ? 2 : 4)
#define AH_DIMS(rows) ((rows) == 8 ? 2 : (rows) == 4 ? 4 : 8)
#define AH_KV(type, p) ah_kv(type, p)
#define AH_KV_TAIL(type, p, n) ah_kv_tail(type, p, n)

static inline __m512 ah_kv(kern_kv_type t, const char *p) {
  if (t == KV_F32) return _mm512_loadu_ps(p);
  __m256i h = _mm256_loadu_si256((const void *)p);
  return t == KV_F16 ? _mm512_cvtph_ps(h) : v512_from_bf16(h);
}

static inline __m512 ah_kv_tail(kern_kv_type t, const char *p, int n) {
  if (t == KV_F32) return _mm512_maskz_loadu_ps(v512_mask(n), p);
  __m256i h = _mm256_maskz_loadu_epi16(v512_mask(n), p);
  return t == KV_F16 ? _mm512_cvtph_ps(h) : v512_from_bf16(h);
}

#include "kernels/x86/attn_heads.inc"

void kern_attn_avx512(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch) {
  if (kern_attn_is_q8(a)) {
    kern_attn_q8_avx2(a, g0, g1, r0, r1, s0, s1, part, scratch);
    return;
  }
  if (ah_takes(a)) {
    ah_attend(a, g0, g1, r0, r1, s0, s1, part, scratch);
    return;
  }
  const size_t head = kern_attn_part_floats(r1 - r0, a->dv), segment = head * (size_t)(g1 - g0);
  for (int g = g0; g < g1; g++) {
    at_unit u;
    float *at = part ? part + (size_t)(g - g0) * head : NULL;
    at_open(&u, a, g, r0, r1, scratch);
    if (r1 - r0 > 8) at16_attend(&u, s0, s1, at, segment);
    else at8_attend(&u, s0, s1, at, segment);
  }
}

void kern_attn_merge_avx512(const kern_attn *a, int g0, int g1, int r0, int r1, int n_seg, const float *part, void *scratch) {
  if (kern_attn_is_q8(a)) {
    kern_attn_q8_merge_avx2(a, g0, g1, r0, r1, n_seg, part, scratch);
    return;
  }
  if (ah_takes(a)) {
    as_merge(a, g0, g1, r0, r1, n_seg, part, scratch);
    return;
  }
  const size_t head = kern_attn_part_floats(r1 - r0, a->dv), segment = head * (size_t)(g1 - g0);
  for (int g = g0; g < g1; g++) {
    at_unit u;
    at_open(&u, a, g, r0, r1, scratch);
    if (r1 - r0 > 8) at16_merge(&u, n_seg, part + (size_t)(g - g0) * head, segment);
    else at8_merge(&u, n_seg, part + (size_t)(g - g0) * head, segment);
  }
}

void kern_attn_fold_avx512(const kern_attn *a, int r0, int r1, float *to, const float *from, void *scratch) {
  at_unit u;
  at_open(&u, a, 0, r0, r1, scratch);
  if (r1 - r0 > 8) at16_add(&u, to, from);
  else at8_add(&u, to, from);
}
