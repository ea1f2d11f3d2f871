/* attn_gqa.cu: decode attention of grouped heads over the paged cache: sinks, sliding window, up to 256 dimensions of a value; see attn.cuh. */
#include "kernels/cuda/attn.cuh"

template <class N> static int by_rows(const hfc_attn *a, void *stream) {
  const int per = a->n_heads / a->n_kv_heads;
  if (per == 1) return attn_launch<N, false, 1, 2>(a, stream);
  if (per <= 4) return attn_launch<N, false, 4, 2>(a, stream);
  return attn_launch<N, false, 8, 2>(a, stream);
}

extern "C" size_t hfc_attn_part_floats(int n_tok, int n_heads, int dv, int max_context) {
  return (size_t)n_tok * (size_t)n_heads * (size_t)((max_context + HFC_SEGMENT - 1) / HFC_SEGMENT) * (size_t)(dv + 2);
}

extern "C" int hfc_attn_gqa(const hfc_attn *a, void *stream) {
  const int bad = attn_check(a, 2 * ATTN_THREADS);
  if (bad) return bad;
  if (a->mla) return HFC_INVALID;
  if (a->kv.type == KV_AS_F32) return by_rows<kv_number<KV_AS_F32>>(a, stream);
  if (a->kv.type == KV_AS_F16) return by_rows<kv_number<KV_AS_F16>>(a, stream);
  return by_rows<kv_number<KV_AS_BF16>>(a, stream);
}
