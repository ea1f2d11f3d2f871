/* Packing of activations and KV elements; bit for bit what the reference gives. VCVTPS2PH rounds to nearest even by its immediate
 * and cuts NaN payloads the same way; BF16 is rounded on the integer bits. */
#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/x86/vec_avx2.h"
#include "kernels/x86/block_sums.h"
#include "kernels/x86/x86.h"

static inline __m128i to_f16(__m256 v) {
  return _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline __m128i to_bf16(__m256 v) {
  __m256i u = _mm256_castps_si256(v), high = _mm256_srli_epi32(u, 16);
  __m256i odd = _mm256_and_si256(high, _mm256_set1_epi32(1));
  __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  rounded = _mm256_blendv_epi8(rounded, _mm256_or_si256(high, _mm256_set1_epi32(0x40)), nan);
  return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}

/* n values to 2-byte elements at any address. */
static inline void store_halves(const float *x, int n, char *dst, bool f16) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    __m256 v = _mm256_loadu_ps(x + i);
    _mm_storeu_si128((void *)(dst + (size_t)i * 2), f16 ? to_f16(v) : to_bf16(v));
  }
  if (i < n) {
    __m256 v = v256_load_tail(x + i, n - i);
    __m128i h = f16 ? to_f16(v) : to_bf16(v);
    memcpy(dst + (size_t)i * 2, &h, (size_t)(n - i) * 2);
  }
}

static void zero_tail(void *out, size_t used, size_t all) {
  memset((char *)out + used, 0, all - used);
}

void kern_pack_f16_avx2(const float *x, int n, void *out) {
  store_halves(x, n, out, true);
  zero_tail(out, (size_t)n * 2, kern_act_bytes(KA_F16, n));
}

void kern_pack_bf16_avx2(const float *x, int n, void *out) {
  store_halves(x, n, out, false);
  zero_tail(out, (size_t)n * 2, kern_act_bytes(KA_BF16, n));
}

static inline __m256i quantise(__m256 x, __m256 d) {
  __m256 v = _mm256_div_ps(x, d);
  v = _mm256_max_ps(v, _mm256_set1_ps(-127.0f)); /* NaN gives the second operand */
  v = _mm256_min_ps(v, _mm256_set1_ps(127.0f));
  return _mm256_cvtps_epi32(v);
}

/* Largest magnitude on the bits, as the reference does. */
static inline float block_scale(const __m256 v[4]) {
  __m256i m = _mm256_setzero_si256();
  MM_UNROLL for (int i = 0; i < 4; i++) {
    m = _mm256_max_epi32(m, _mm256_and_si256(_mm256_castps_si256(v[i]), _mm256_set1_epi32(0x7fffffff)));
  }
  __m128i h = _mm_max_epi32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
  h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0x4e));
  h = _mm_max_epi32(h, _mm_shuffle_epi32(h, 0xb1));
  int bits = _mm_cvtsi128_si32(h);
  float amax;
  memcpy(&amax, &bits, sizeof amax);
  return amax / 127.0f;
}

static inline void pack_block(const __m256 v[4], char *q, float *d_out) {
  float d = block_scale(v);
  __m256 scale = _mm256_set1_ps(d);
  *d_out = d;
  if (d == 0.0f) {
    _mm256_store_si256((void *)q, _mm256_setzero_si256());
    return;
  }
  __m256i a = _mm256_packs_epi32(quantise(v[0], scale), quantise(v[1], scale));
  __m256i b = _mm256_packs_epi32(quantise(v[2], scale), quantise(v[3], scale));
  /* the packs work inside 128-bit lanes: dwords come out as 0 2 4 6 1 3 5 7 */
  __m256i bytes = _mm256_packs_epi16(a, b);
  _mm256_store_si256((void *)q, _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7)));
}

void kern_pack_q8b32_avx2(const float *x, int n, void *out) {
  int nb = q8b32_blocks(n), left = n % Q8_BLOCK;
  size_t scales = q8b32_scales_offset(n);
  float *d = (float *)(void *)((char *)out + scales);
  for (int b = 0; b < nb; b++) {
    bool whole = b < n / Q8_BLOCK;
    const float *p = x + (size_t)b * Q8_BLOCK;
    char *q = (char *)out + (size_t)b * Q8_BLOCK;
    __m256 v[4];
    for (int i = 0; i < 4; i++) v[i] = whole ? _mm256_loadu_ps(p + 8 * i) : v256_load_tail(p + 8 * i, left - 8 * i);
    pack_block(v, q, d + b);
    if (!whole) memset(q + left, 0, (size_t)(Q8_BLOCK - left)); /* 0/NaN would have left -127 there */
  }
  zero_tail(out, (size_t)nb * Q8_BLOCK, scales);
  zero_tail(d, (size_t)nb * 4, q8b32_sums32_offset(n) - scales);
  block_sums_store(out, n);
}

void kern_kv_store_avx2(kern_kv_type t, const float *x, int n, void *dst) {
  if (t == KV_F32) memcpy(dst, x, (size_t)n * 4);
  else store_halves(x, n, dst, t == KV_F16);
}

void kern_kv_load_avx2(kern_kv_type t, const void *src, int n, float *x) {
  const char *p = src;
  int i = 0;
  if (t == KV_F32) {
    memcpy(x, src, (size_t)n * 4);
    return;
  }
  for (; i + 8 <= n; i += 8) {
    __m128i h = _mm_loadu_si128((const void *)(p + (size_t)i * 2));
    _mm256_storeu_ps(x + i, t == KV_F16 ? _mm256_cvtph_ps(h) : v256_from_bf16(h));
  }
  if (i < n) {
    __m128i h = v128_load_u16_tail(p + (size_t)i * 2, n - i);
    _mm256_maskstore_ps(x + i, v256_mask(n - i), t == KV_F16 ? _mm256_cvtph_ps(h) : v256_from_bf16(h));
  }
}

void kern_kv_unpack_avx2(const int8_t *q, const void *scales, int n, float *x) {
  int i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m256 d = _mm256_cvtph_ps(_mm_set1_epi16((short)half_load_u16((const char *)scales + i / 32 * 2)));
    _mm256_storeu_ps(x + i, _mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(q + i))))));
  }
  for (; i < n; i++) x[i] = half_from_f16(half_load_u16((const char *)scales + i / 32 * 2)) * (float)q[i];
}
