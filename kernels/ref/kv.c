/* kv.c: the definition of the KV element conversions. */
#include "kernels/half.h"
#include "kernels/ref/ref.h"

void kern_kv_store_ref(kern_kv_type t, const float *x, int n, void *dst) {
  char *p = dst;
  for (int i = 0; i < n; i++) {
    uint16_t h = t == KV_F16 ? half_to_f16(x[i]) : half_to_bf16(x[i]);
    if (t == KV_F32) memcpy(p + (size_t)i * 4, &x[i], 4);
    else memcpy(p + (size_t)i * 2, &h, 2);
  }
}

void kern_kv_load_ref(kern_kv_type t, const void *src, int n, float *x) {
  const char *p = src;
  for (int i = 0; i < n; i++) {
    if (t == KV_F32) x[i] = half_load_f32(p + (size_t)i * 4);
    else x[i] = t == KV_F16 ? half_from_f16(half_load_u16(p + (size_t)i * 2)) : half_from_bf16(half_load_u16(p + (size_t)i * 2));
  }
}

void kern_kv_unpack_ref(const int8_t *q, const void *scales, int n, float *x) {
  for (int i = 0; i < n; i++) x[i] = half_from_f16(half_load_u16((const char *)scales + i / 32 * 2)) * (float)q[i];
}
