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

#define AD_VEC __m512
#define AD_W 16
#define AD_GROUP 8
#define AD_CTX 2
#define AD_SUMS 16
#define AD_VECS(rows) ((rows) == 1 ? 8 : 16 / (rows))
#define AD_ZERO() _mm512_setzero_ps()
#define AD_LOAD(p) _mm512_loadu_ps(p)
#define AD_LOAD_TAIL(p, n) _mm512_maskz_loadu_ps(v512_mask(n), p)
#define AD_STORE(p, v) _mm512_storeu_ps(p, v)
#define AD_STORE_TAIL(p, n, v) _mm512_mask_storeu_ps(p, v512_mask(n), v)
#define AD_SET1(f) _mm512_set1_ps(f)
#define AD_FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define AD_MUL(a, b) _mm512_mul_ps(a, b)
#define AD_ADD(a, b) _mm512_add_ps(a, b)
#define AD_SUB(a, b) _mm512_sub_ps(a, b)
#define AD_MAX(a, b) _mm512_max_ps(a, b)
#define AD_KV(type, p) ad_kv(type, p)
#define AD_KV_TAIL(type, p, n) ad_kv_tail(type, p, n)
#define AD_KEYS(type, row, rows, v, at, n) \
  ad_keys(type, (row)[ad_context(rows, v, 0)] + (at), (row)[ad_context(rows, v, 1)] + (at), n)
#define AD_FOLD(sum, rows, x) ad_halve(sum, rows, x)
#define AD_SCORES(x, rows, scale, s, max) ad_reduce(x, rows, scale, s, max)
#define AD_SPREAD(p) ad_spread(p)
#define AD_REPEAT(p, rows) ad_repeat(p, rows)
#define AD_SWAP(v, d) ad_swap(v, d)
#define AD_HIDE(v, lo, hi, i) at16_hide(v, lo, hi, i)

static inline __m512 ad_kv(kern_kv_type t, const char *p) {
  if (t == KV_F32) return _mm512_loadu_ps(p);
  __m256i h = _mm256_loadu_si256((const void *)p);
  return t == KV_F16 ? _mm512_cvtph_ps(h) : v512_from_bf16(h);
}

static inline __m512 ad_kv_tail(kern_kv_type t, const char *p, int n) {
  if (t == KV_F32) return _mm512_maskz_loadu_ps(v512_mask(n), p);
  __m256i h = _mm256_maskz_loadu_epi16(v512_mask(n), p);
  return t == KV_F16 ? _mm512_cvtph_ps(h) : v512_from_bf16(h);
}

/* Which context row of the tile is in half h of vector v: as ad_reduce() leaves them in ascending order. */
AT_INLINE int ad_context(const int rows, const int v, const int h) {
  const int m = v / 2, quarter = 2 * (v % 2) + h;
  return rows >= 4 ? 4 * m + quarter : rows == 2 ? 8 * (m / 2) + 2 * quarter + m % 2 : 4 * quarter + m;
}

AT_INLINE __m512 ad_keys(kern_kv_type t, const char *a, const char *b, const int n) {
  const __mmask8 m = (__mmask8)((1u << n) - 1u);
  if (t == KV_F32) {
    __m256 x = n < 8 ? _mm256_maskz_loadu_ps(m, a) : _mm256_loadu_ps((const float *)(const void *)a);
    __m256 y = n < 8 ? _mm256_maskz_loadu_ps(m, b) : _mm256_loadu_ps((const float *)(const void *)b);
    return _mm512_insertf32x8(_mm512_castps256_ps512(x), y, 1);
  }
  __m128i x = n < 8 ? _mm_maskz_loadu_epi16(m, a) : _mm_loadu_si128((const void *)a);
  __m128i y = n < 8 ? _mm_maskz_loadu_epi16(m, b) : _mm_loadu_si128((const void *)b);
  __m256i h = _mm256_inserti128_si256(_mm256_castsi128_si256(x), y, 1);
  return t == KV_F16 ? _mm512_cvtph_ps(h) : v512_from_bf16(h);
}

AT_INLINE __m512 ad_fold4(__m512 a, __m512 b, __m512 c, __m512 d) {
  __m512 x = _mm512_add_ps(_mm512_shuffle_ps(a, b, 0x44), _mm512_shuffle_ps(a, b, 0xee));
  __m512 y = _mm512_add_ps(_mm512_shuffle_ps(c, d, 0x44), _mm512_shuffle_ps(c, d, 0xee));
  return _mm512_add_ps(_mm512_shuffle_ps(x, y, 0x88), _mm512_shuffle_ps(x, y, 0xdd));
}

/* Lanes l and l + 4 of a chunk are added; x: [row][pair of vectors], four context rows in a vector. */
AT_INLINE void ad_halve(const __m512 *sum, const int rows, __m512 *x) {
  const int n = rows * AD_VECS(rows) / 2;
  AT_UNROLL for (int i = 0; i < n; i++) x[i] = _mm512_add_ps(_mm512_shuffle_f32x4(sum[2 * i], sum[2 * i + 1], 0x88),
                                                             _mm512_shuffle_f32x4(sum[2 * i], sum[2 * i + 1], 0xdd));
}

/* Then lanes l and l + 2, then l and l + 1. */
AT_INLINE void ad_reduce(const __m512 *x, const int rows, __m512 scale, float *s, __m512 *max) {
  __m512 z[2];
  const int out = rows == 1 ? 1 : 2, each = AD_VECS(rows) / 2;
  AT_UNROLL for (int o = 0; o < out; o++) {
    const int at = rows == 8 ? 4 * o : rows == 4 ? o : 2 * o; /* lanes: four rows, two rows of two vectors, or one of four */
    const int step = rows == 2 ? each : rows == 1 ? 1 : each, next = rows == 2 ? 1 : 2 * step;
    z[o] = _mm512_mul_ps(ad_fold4(x[at], x[at + step], x[at + next], x[at + next + step]), scale);
  }
  if (rows == 8) { /* both have four context rows of four query rows */
    __m512 lo = _mm512_shuffle_f32x4(z[0], z[1], 0x44), hi = _mm512_shuffle_f32x4(z[0], z[1], 0xee);
    z[0] = _mm512_shuffle_f32x4(lo, lo, 0xd8), z[1] = _mm512_shuffle_f32x4(hi, hi, 0xd8);
  }
  AT_UNROLL for (int o = 0; o < out; o++) {
    _mm512_storeu_ps(s + 16 * o, z[o]);
    *max = _mm512_max_ps(z[o], *max);
  }
}

AT_INLINE __m512 ad_spread(const float *p) {
  int32_t bits;
  memcpy(&bits, p, sizeof bits);
  __m512i v = _mm512_set1_epi32(bits);
  __asm__("" : "+v"(v));
  return _mm512_castsi512_ps(v);
}

AT_INLINE __m512 ad_repeat(const float *p, const int rows) {
  const __m512i lane =
      _mm512_and_si512(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(rows - 1));
  return _mm512_permutexvar_ps(lane, _mm512_maskz_loadu_ps(v512_mask(rows), p));
}

AT_INLINE __m512 ad_swap(__m512 v, const int d) {
  return d == 8   ? _mm512_shuffle_f32x4(v, v, 0x4e)
         : d == 4 ? _mm512_shuffle_f32x4(v, v, 0xb1)
         : d == 2 ? _mm512_permute_ps(v, 0x4e)
                  : _mm512_permute_ps(v, 0xb1);
}

#include "kernels/x86/attn_dims.inc"

void kern_attn_avx512(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch) {
  if (kern_attn_is_q8(a)) {
    kern_attn_q8_avx2(a, g0, g1, r0, r1, s0, s1, part, scratch);
    return;
  }
  if (ad_takes(a)) {
    ad_attend(a, g0, g1, r0, r1, s0, s1, part, scratch);
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
  if (ad_takes(a)) {
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
