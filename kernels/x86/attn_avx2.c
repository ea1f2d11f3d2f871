/* Attention: 8 query rows in a vector. */
#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/x86.h"

static inline void at_kv16(kern_kv_type t, const char *p, int left, float *dst) {
  for (int i = 0; i < 16; i += 8, left -= 8, dst += 8, p += t == KV_F32 ? 32 : 16) {
    if (left <= 0) {
      _mm256_storeu_ps(dst, _mm256_setzero_ps());
    } else if (t == KV_F32) {
      _mm256_storeu_ps(dst, left < 8 ? v256_load_tail((const float *)(const void *)p, left)
                                     : _mm256_loadu_ps((const float *)(const void *)p));
    } else {
      __m128i h = left < 8 ? v128_load_u16_tail(p, left) : _mm_loadu_si128((const void *)p);
      _mm256_storeu_ps(dst, t == KV_F16 ? _mm256_cvtph_ps(h) : v256_from_bf16(h));
    }
  }
}

static inline void at_f16_64(const char *p, float *dst) {
  MM_UNROLL for (int i = 0; i < 64; i += 8)
      _mm256_storeu_ps(dst + i, _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p + 2 * i))));
}

static inline float at_f16(uint16_t h) {
  return _cvtsh_ss(h);
}

static inline void at_q8_32(const char *p, float d, float *dst) {
  MM_UNROLL for (int i = 0; i < 32; i += 8)
      _mm256_storeu_ps(dst + i, _mm256_mul_ps(_mm256_set1_ps(d),
                                              _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(p + i))))));
}

#define AT_PACK(x, n, out) kern_pack_q8b32_avx2(x, n, out)
#include "kernels/x86/attn_tile.inc"

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
#define AT_EXP(v) v256_exp(v)
#define AT_HIDE(s, first, end, key) at8_hide(s, first, end, key)
#define AT_KEYS(v) ((v) == 1 ? 8 : 6)
#define AT_DIMS(v) ((v) == 1 ? 8 : 6)

static inline __m256 at8_hide(__m256 s, const int32_t *first, const int32_t *end, int key) {
  __m256i k = _mm256_set1_epi32(key);
  __m256i before_end = _mm256_cmpgt_epi32(_mm256_loadu_si256((const void *)end), k),
          early = _mm256_cmpgt_epi32(_mm256_loadu_si256((const void *)first), k);
  return _mm256_blendv_ps(_mm256_set1_ps(-__builtin_inff()), s, _mm256_castsi256_ps(_mm256_andnot_si256(early, before_end)));
}

#include "kernels/x86/attn_rows.inc"

#include "kernels/x86/attn_state.inc"

#define AG_GROUP 4
#define AH_SUMS 8
#define AH_TOKENS(rows) ((rows) == 4 ? 2 : (rows) == 2 ? 4 : 8)
#define AH_DIMS(rows) ((rows) == 4 ? 2 : (rows) == 2 ? 4 : 8)
#define AH_KV(type, p) ah_kv(type, p)
#define AH_KV_TAIL(type, p, n) ah_kv_tail(type, p, n)

static inline __m256 ah_kv(kern_kv_type t, const char *p) {
  if (t == KV_F32) return _mm256_loadu_ps((const float *)(const void *)p);
  __m128i h = _mm_loadu_si128((const void *)p);
  return t == KV_F16 ? _mm256_cvtph_ps(h) : v256_from_bf16(h);
}

static inline __m256 ah_kv_tail(kern_kv_type t, const char *p, int n) {
  if (t == KV_F32) return v256_load_tail((const float *)(const void *)p, n);
  __m128i h = v128_load_u16_tail(p, n);
  return t == KV_F16 ? _mm256_cvtph_ps(h) : v256_from_bf16(h);
}

#include "kernels/x86/attn_heads.inc"

void kern_attn_avx2(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch) {
  if (kern_attn_is_q8(a)) {
    kern_attn_q8_avx2(a, g0, g1, r0, r1, s0, s1, part, scratch);
    return;
  }
  if (ah_takes(a)) {
    ah_attend(a, g0, g1, r0, r1, s0, s1, part, scratch);
    return;
  }
  const size_t head = kern_attn_part_floats(r1 - r0, a->dv);
  for (int g = g0; g < g1; g++) {
    at_unit u;
    at_open(&u, a, g, r0, r1, scratch);
    at8_attend(&u, s0, s1, part ? part + (size_t)(g - g0) * head : NULL, head * (size_t)(g1 - g0));
  }
}

void kern_attn_merge_avx2(const kern_attn *a, int g0, int g1, int r0, int r1, int n_seg, const float *part, void *scratch) {
  if (kern_attn_is_q8(a)) {
    kern_attn_q8_merge_avx2(a, g0, g1, r0, r1, n_seg, part, scratch);
    return;
  }
  if (ah_takes(a)) {
    as_merge(a, g0, g1, r0, r1, n_seg, part, scratch);
    return;
  }
  const size_t head = kern_attn_part_floats(r1 - r0, a->dv);
  for (int g = g0; g < g1; g++) {
    at_unit u;
    at_open(&u, a, g, r0, r1, scratch);
    at8_merge(&u, n_seg, part + (size_t)(g - g0) * head, head * (size_t)(g1 - g0));
  }
}

void kern_attn_fold_avx2(const kern_attn *a, int r0, int r1, float *to, const float *from, void *scratch) {
  at_unit u;
  at_open(&u, a, 0, r0, r1, scratch);
  at8_add(&u, to, from);
}
