/* Packing of activations and KV elements; bit for bit what the reference gives. VCVTPS2PH rounds to nearest even by its immediate
 * and cuts NaN payloads the same way; BF16 is rounded on the integer bits, because VCVTNEPS2BF16 flushes subnormals. */
#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/block_sums.h"
#include "kernels/x86/x86.h"

static inline __m256i to_f16(__m512 v) {
  return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline __m256i to_bf16(__m512 v) {
  __m512i u = _mm512_castps_si512(v);
  __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
  __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  rounded = _mm512_mask_or_epi32(rounded, nan, _mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
  return _mm512_cvtepi32_epi16(rounded);
}

/* n values to 2-byte elements at any address. */
static inline void store_halves(const float *x, int n, char *dst, bool f16) {
  int i = 0;
  for (; i + 16 <= n; i += 16) {
    __m512 v = _mm512_loadu_ps(x + i);
    _mm256_storeu_si256((void *)(dst + (size_t)i * 2), f16 ? to_f16(v) : to_bf16(v));
  }
  if (i < n) {
    __m512 v = _mm512_maskz_loadu_ps(v512_mask(n - i), x + i);
    _mm256_mask_storeu_epi16(dst + (size_t)i * 2, v512_mask(n - i), f16 ? to_f16(v) : to_bf16(v));
  }
}

static void zero_tail(void *out, size_t used, size_t all) {
  memset((char *)out + used, 0, all - used);
}

void kern_pack_f16_avx512(const float *x, int n, void *out) {
  store_halves(x, n, out, true);
  zero_tail(out, (size_t)n * 2, kern_act_bytes(KA_F16, n));
}

void kern_pack_bf16_avx512(const float *x, int n, void *out) {
  store_halves(x, n, out, false);
  zero_tail(out, (size_t)n * 2, kern_act_bytes(KA_BF16, n));
}

static inline __m128i quantise(__m512 x, __m512 d) {
  __m512 v = _mm512_div_ps(x, d);
  v = _mm512_max_ps(v, _mm512_set1_ps(-127.0f)); /* NaN gives the second operand */
  v = _mm512_min_ps(v, _mm512_set1_ps(127.0f));
  return _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(v));
}

/* Largest magnitude on the bits, as the reference does. */
static inline float block_scale(__m512 a, __m512 b) {
  const __m512i abs = _mm512_set1_epi32(0x7fffffff);
  __m512i m = _mm512_max_epi32(_mm512_and_si512(_mm512_castps_si512(a), abs), _mm512_and_si512(_mm512_castps_si512(b), abs));
  int bits = _mm512_reduce_max_epi32(m);
  float amax;
  memcpy(&amax, &bits, sizeof amax);
  return amax / 127.0f;
}

void kern_pack_q8b32_avx512(const float *x, int n, void *out) {
  int nb = q8b32_blocks(n);
  size_t scales = q8b32_scales_offset(n);
  float *d = (float *)(void *)((char *)out + scales);
  for (int b = 0; b < nb; b++) {
    int left = n - b * Q8_BLOCK;
    __mmask16 m0 = left >= 16 ? 0xffff : v512_mask(left);
    __mmask16 m1 = left >= 32 ? 0xffff : left > 16 ? v512_mask(left - 16) : 0;
    const float *p = x + (size_t)b * Q8_BLOCK;
    __m512 lo = _mm512_maskz_loadu_ps(m0, p), hi = _mm512_maskz_loadu_ps(m1, p + 16);
    d[b] = block_scale(lo, hi);
    __m128i *q = (__m128i *)(void *)((char *)out + (size_t)b * Q8_BLOCK);
    __m512 scale = _mm512_set1_ps(d[b]);
    bool zero = d[b] == 0.0f;
    _mm_store_si128(q, zero ? _mm_setzero_si128() : _mm_maskz_mov_epi8(m0, quantise(lo, scale)));
    _mm_store_si128(q + 1, zero ? _mm_setzero_si128() : _mm_maskz_mov_epi8(m1, quantise(hi, scale)));
  }
  zero_tail(out, (size_t)nb * Q8_BLOCK, scales);
  zero_tail(d, (size_t)nb * 4, q8b32_sums32_offset(n) - scales);
  block_sums_store(out, n);
}

void kern_kv_store_avx512(kern_kv_type t, const float *x, int n, void *dst) {
  if (t == KV_F32) memcpy(dst, x, (size_t)n * 4);
  else store_halves(x, n, dst, t == KV_F16);
}

void kern_kv_load_avx512(kern_kv_type t, const void *src, int n, float *x) {
  const char *p = src;
  if (t == KV_F32) {
    memcpy(x, src, (size_t)n * 4);
    return;
  }
  for (int i = 0; i < n; i += 16) {
    __mmask16 m = n - i >= 16 ? 0xffff : v512_mask(n - i);
    __m256i h = _mm256_maskz_loadu_epi16(m, p + (size_t)i * 2);
    _mm512_mask_storeu_ps(x + i, m, t == KV_F16 ? _mm512_cvtph_ps(h) : v512_from_bf16(h));
  }
}

void kern_kv_unpack_avx512(const int8_t *q, const void *scales, int n, float *x) {
  for (int i = 0; i < n; i += 16) {
    const __mmask16 m = n - i >= 16 ? 0xffff : v512_mask(n - i);
    const __m512 d = _mm512_cvtph_ps(_mm256_set1_epi16((short)half_load_u16((const char *)scales + i / 32 * 2)));
    _mm512_mask_storeu_ps(x + i, m, _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(m, q + i)))));
  }
}
