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

#define AD_VEC __m256
#define AD_W 8
#define AD_GROUP 4
#define AD_CTX 1
#define AD_SUMS 8
#define AD_VECS(rows) (8 / (rows))
#define AD_ZERO() _mm256_setzero_ps()
#define AD_LOAD(p) _mm256_loadu_ps(p)
#define AD_LOAD_TAIL(p, n) v256_load_tail(p, n)
#define AD_STORE(p, v) _mm256_storeu_ps(p, v)
#define AD_STORE_TAIL(p, n, v) _mm256_maskstore_ps(p, v256_mask(n), v)
#define AD_SET1(f) _mm256_set1_ps(f)
#define AD_FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define AD_MUL(a, b) _mm256_mul_ps(a, b)
#define AD_ADD(a, b) _mm256_add_ps(a, b)
#define AD_SUB(a, b) _mm256_sub_ps(a, b)
#define AD_MAX(a, b) _mm256_max_ps(a, b)
#define AD_KV(type, p) ad_kv(type, p)
#define AD_KV_TAIL(type, p, n) ad_kv_tail(type, p, n)
#define AD_KEYS(type, row, rows, v, at, n) ((n) < 8 ? ad_kv_tail(type, (row)[v] + (at), n) : ad_kv(type, (row)[v] + (at)))
#define AD_FOLD(sum, rows, x) ad_halve(sum, rows, x)
#define AD_SCORES(x, rows, scale, s, max) ad_reduce(x, scale, s, max)
#define AD_SPREAD(p) ad_spread(p)
#define AD_REPEAT(p, rows) ad_repeat(p, rows)
#define AD_SWAP(v, d) ad_swap(v, d)
#define AD_HIDE(v, lo, hi, i) at8_hide(v, lo, hi, i)

static inline __m256 ad_kv(kern_kv_type t, const char *p) {
  if (t == KV_F32) return _mm256_loadu_ps((const float *)(const void *)p);
  __m128i h = _mm_loadu_si128((const void *)p);
  return t == KV_F16 ? _mm256_cvtph_ps(h) : v256_from_bf16(h);
}

static inline __m256 ad_kv_tail(kern_kv_type t, const char *p, int n) {
  if (t == KV_F32) return v256_load_tail((const float *)(const void *)p, n);
  __m128i h = v128_load_u16_tail(p, n);
  return t == KV_F16 ? _mm256_cvtph_ps(h) : v256_from_bf16(h);
}

/* Lanes l and l + 4 are added, two vectors becoming one; x: in an order that leaves [context row][row]. */
AT_INLINE void ad_halve(const __m256 *sum, const int rows, __m256 *x) {
  __m256 v[8];
  AT_UNROLL for (int i = 0; i < 8; i++) v[i] = sum[i % rows * (8 / rows) + i / rows];
  AT_UNROLL for (int i = 0; i < 4; i++) x[i] =
      _mm256_add_ps(_mm256_permute2f128_ps(v[i], v[i + 4], 0x20), _mm256_permute2f128_ps(v[i], v[i + 4], 0x31));
}

/* Then lanes l and l + 2, then l and l + 1. */
AT_INLINE void ad_reduce(const __m256 *x, __m256 scale, float *s, __m256 *max) {
  __m256 y[2];
  AT_UNROLL for (int i = 0; i < 2; i++) y[i] =
      _mm256_add_ps(_mm256_shuffle_ps(x[2 * i], x[2 * i + 1], 0x44), _mm256_shuffle_ps(x[2 * i], x[2 * i + 1], 0xee));
  y[0] = _mm256_mul_ps(_mm256_add_ps(_mm256_shuffle_ps(y[0], y[1], 0x88), _mm256_shuffle_ps(y[0], y[1], 0xdd)), scale);
  _mm256_storeu_ps(s, y[0]);
  *max = _mm256_max_ps(y[0], *max);
}

AT_INLINE __m256 ad_spread(const float *p) {
  int32_t bits;
  memcpy(&bits, p, sizeof bits);
  __m256i v = _mm256_set1_epi32(bits);
  __asm__("" : "+x"(v));
  return _mm256_castsi256_ps(v);
}

AT_INLINE __m256 ad_repeat(const float *p, const int rows) {
  const __m256i lane = _mm256_and_si256(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(rows - 1));
  return _mm256_permutevar8x32_ps(v256_load_tail(p, rows), lane);
}

AT_INLINE __m256 ad_swap(__m256 v, const int d) {
  return d == 4 ? _mm256_permute2f128_ps(v, v, 1) : d == 2 ? _mm256_permute_ps(v, 0x4e) : _mm256_permute_ps(v, 0xb1);
}

#include "kernels/x86/attn_dims.inc"

void kern_attn_avx2(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch) {
  if (kern_attn_is_q8(a)) {
    kern_attn_q8_avx2(a, g0, g1, r0, r1, s0, s1, part, scratch);
    return;
  }
  if (ad_takes(a)) {
    ad_attend(a, g0, g1, r0, r1, s0, s1, part, scratch);
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
  if (ad_takes(a)) {
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
