/* kv_write.cu: a step's keys and values, or latents, into the paged cache. 4 bytes read and 2 or 4 written a number; limit: latency of a launch. */
#include "kernels/cuda/kv.cuh"

static __device__ __forceinline__ void put(int type, char *p, size_t i, float v) {
  if (type == KV_AS_F32) ((float *)p)[i] = v;
  else ((uint16_t *)p)[i] = type == KV_AS_F16 ? f16_of_f32(v) : bf16_of_f32(v);
}

static __global__ __launch_bounds__(256) void kv_write_rows(hfc_kv_write a) {
  const int t = (int)blockIdx.x;
  if (a.count && t >= *a.count) return;
  const int seq = a.kv.seq[t], pos = a.kv.pos[t], heads = a.heads > 0 ? a.heads : 1;
  const size_t bytes = a.kv.type == KV_AS_F32 ? 4 : 2;
  const float *keys = a.keys + (size_t)t * a.keys_stride, *values = a.values + (size_t)t * a.values_stride;
  for (int i = (int)threadIdx.x; i < heads * (a.k + a.v); i += 256) {
    const int g = i / (a.k + a.v), j = i % (a.k + a.v);
    const float v = j < a.k ? keys[g * a.k + j] : values[g * a.v + j - a.k];
    if (a.heads == 0) {
      put(a.kv.type, kv_row(&a.kv, seq, pos), (size_t)j, v);
    } else {
      const kv_place at = kv_place_of(&a.kv, seq, pos, g, heads, a.k, a.v, bytes);
      if (j < a.k) put(a.kv.type, at.key, (size_t)(j * at.step), v);
      else put(a.kv.type, at.value, (size_t)(j - a.k), v);
    }
  }
}

extern "C" int hfc_kv_write_rows(const hfc_kv_write *a, void *stream) {
  if (a->kv.type < KV_AS_F32 || a->kv.type > KV_AS_BF16) return HFC_UNSUPPORTED;
  if (a->n_tok < 1 || a->heads < 0 || a->k < 1 || a->v < 0) return HFC_INVALID;
  return HFC_LAUNCH(kv_write_rows, dim3((unsigned)a->n_tok), dim3(256), 0, stream, *a);
}
