/* pack.c: activations in the form that a weight format asks for. The bytes behind the last element are zero, so that
 * packed vectors compare with memcmp and kernels may read whole vectors. */
#include <math.h>

#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/ref/ref.h"

static void zero_tail(void *out, size_t used, size_t all) {
  memset((char *)out + used, 0, all - used);
}

void kern_pack_f32_ref(const float *x, int n, void *out) {
  memcpy(out, x, (size_t)n * 4);
  zero_tail(out, (size_t)n * 4, kern_act_bytes(KA_F32, n));
}

void kern_pack_f16_ref(const float *x, int n, void *out) {
  uint16_t *h = out;
  for (int i = 0; i < n; i++) h[i] = half_to_f16(x[i]);
  zero_tail(out, (size_t)n * 2, kern_act_bytes(KA_F16, n));
}

void kern_pack_bf16_ref(const float *x, int n, void *out) {
  uint16_t *h = out;
  for (int i = 0; i < n; i++) h[i] = half_to_bf16(x[i]);
  zero_tail(out, (size_t)n * 2, kern_act_bytes(KA_BF16, n));
}

/* The largest magnitude is found on the bits: NaN is above infinity there, so a NaN reaches the scale and the result shows it.
 * A scale so small that x/d leaves int8 (amax below 127 subnormal steps) is clamped; written so that NaN gives -127. */
static void pack_block(const float *x, int n, int8_t *q, float *d_out, int32_t *sum32, int32_t sum16[2]) {
  uint32_t amax = 0;
  for (int i = 0; i < n; i++) {
    uint32_t a = half_bits_of(x[i]) & 0x7fffffffu;
    amax = a > amax ? a : amax;
  }
  float d = half_float_of(amax) / 127.0f;
  *d_out = d;
  for (int i = 0; i < n; i++) {
    float v = d == 0.0f ? 0.0f : x[i] / d;
    v = v > -127.0f ? v : -127.0f;
    v = v < 127.0f ? v : 127.0f;
    q[i] = (int8_t)lrintf(v);
  }
  for (int i = n; i < Q8_BLOCK; i++) q[i] = 0;
  sum16[0] = sum16[1] = 0;
  for (int i = 0; i < Q8_BLOCK; i++) sum16[i / 16] -= q[i];
  *sum32 = sum16[0] + sum16[1];
}

void kern_pack_q8b32_ref(const float *x, int n, void *out) {
  int nb = q8b32_blocks(n);
  size_t scales = q8b32_scales_offset(n), sums32 = q8b32_sums32_offset(n), sums16 = q8b32_sums16_offset(n),
         less_at = q8b32_less_offset(n);
  float *d = (float *)((char *)out + scales), *less = (float *)((char *)out + less_at);
  int32_t *n32 = (int32_t *)((char *)out + sums32), *n16 = (int32_t *)((char *)out + sums16);
  for (int b = 0; b < nb; b++) {
    int left = n - b * Q8_BLOCK;
    pack_block(x + (size_t)b * Q8_BLOCK, left < Q8_BLOCK ? left : Q8_BLOCK, (int8_t *)out + (size_t)b * Q8_BLOCK, d + b, n32 + b,
               n16 + 2 * (size_t)b);
    less[b] = d[b] * (float)n32[b];
  }
  zero_tail(out, (size_t)nb * Q8_BLOCK, scales);
  zero_tail(d, (size_t)nb * 4, sums32 - scales);
  zero_tail(n32, (size_t)nb * 4, sums16 - sums32);
  zero_tail(n16, (size_t)nb * 8, less_at - sums16);
  zero_tail(less, (size_t)nb * 4, q8b32_bytes(n) - less_at);
}
