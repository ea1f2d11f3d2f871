/* attn_mla.cu: decode attention over latents, with absorbed weights: every head reads the same latents, a block has 8 heads; see attn.cuh. Without
 * tensor cores: 128 heads of 512 + 64 numbers are 280 kFLOP a token of context, so it is the multiply-adds that limit it. */
#include "kernels/cuda/attn.cuh"

extern "C" int hfc_attn_mla(const hfc_attn *a, void *stream) {
  const int bad = attn_check(a, ATTN_DIMS * ATTN_THREADS);
  if (bad) return bad;
  if (!a->mla || a->n_kv_heads != 1) return HFC_INVALID;
  if (a->kv.type == KV_AS_F32) return attn_launch<kv_number<KV_AS_F32>, true, 8, ATTN_DIMS>(a, stream);
  if (a->kv.type == KV_AS_F16) return attn_launch<kv_number<KV_AS_F16>, true, 8, ATTN_DIMS>(a, stream);
  return attn_launch<kv_number<KV_AS_BF16>, true, 8, ATTN_DIMS>(a, stream);
}
