/* kv.cuh: where a token's numbers lie in the paged cache (kernels.h, layouts.h) and what type they are. */
#ifndef HF_KERNELS_CUDA_KV_CUH
#define HF_KERNELS_CUDA_KV_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

enum { KV_AS_F32, KV_AS_F16, KV_AS_BF16, KV_GROUP = 16 };

template <int TYPE> struct kv_number {
  static const size_t BYTES = TYPE == KV_AS_F32 ? 4 : 2;
  static __device__ __forceinline__ float get(const char *p, size_t i) {
    if (TYPE == KV_AS_F32) return ((const float *)p)[i];
    const uint16_t h = ((const uint16_t *)p)[i];
    return TYPE == KV_AS_F16 ? f32_of_f16(h) : f32_of_bf16(h);
  }
};

static __device__ __forceinline__ char *kv_row(const hfc_kv *kv, int seq, int token) {
  const int page = kv->page_table[(size_t)seq * (size_t)kv->pages_per_seq + (size_t)(token / kv->page_tokens)];
  return kv->base + (size_t)page * kv->page_bytes + (size_t)(token % kv->page_tokens) * kv->row_bytes;
}

/* Key and value of KV head g: numbers from `key` on lie `step` apart, those of the value side by side. */
struct kv_place {
  char *key, *value;
  int step;
};
static __device__ __forceinline__ kv_place kv_place_of(const hfc_kv *kv, int seq, int token, int g, int heads, int k, int v,
                                                       size_t bytes) {
  if (kv->page_tokens >= KV_GROUP) {
    char *head = kv_row(kv, seq, token / KV_GROUP * KV_GROUP) + (size_t)g * (size_t)(k + v) * KV_GROUP * bytes;
    const size_t t = (size_t)(token % KV_GROUP);
    return kv_place{head + t * bytes, head + ((size_t)k * KV_GROUP + t * (size_t)v) * bytes, KV_GROUP};
  }
  char *row = kv_row(kv, seq, token);
  return kv_place{row + (size_t)(g * k) * bytes, row + (size_t)(heads * k + g * v) * bytes, 1};
}
#endif
