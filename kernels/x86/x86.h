/* x86.h: the AVX2 and AVX-512 variants; private to kernels. Plain C: the bodies alone include immintrin.h. */
#ifndef HF_KERNELS_X86_H
#define HF_KERNELS_X86_H

#include <string.h>

#include "kernels/kernels.h"

kern_mm_fn kern_mm_f32_avx2, kern_mm_f16_avx2, kern_mm_f16_f32_avx2, kern_mm_bf16_avx2, kern_mm_bf16_f32_avx2, kern_mm_q8_0_avx2,
    kern_mm_q8_0_f32_avx2;
kern_mm_fn kern_mm_f32_avx512, kern_mm_f16_avx512, kern_mm_f16_f32_avx512, kern_mm_bf16_avx512, kern_mm_bf16_f32_avx512,
    kern_mm_q8_0_f32_avx512;
kern_mm_fn kern_mm_bf16_avx512bf16, kern_mm_q8_0_avx512vnni;

/* Formats of plain numbers in tiles, mm_pairs_ISA.c. */
kern_mm_fn kern_mm_tile_bf16_avx2, kern_mm_tile_f16_avx2, kern_mm_tile_bf16_avx512, kern_mm_tile_f16_avx512,
    kern_mm_tile_bf16_avx512bf16, kern_mm_tile_fp8_avx2, kern_mm_tile_fp8_avx512, kern_mm_tile_fp8_avx512vbmi,
    kern_mm_tile_bf16_amx, kern_mm_tile_fp8_amx;

/* Formats in tiles, mm_tile_ISA.c. */
#define HF_X86_TILES(isa)                                                                                        \
  kern_mm_fn kern_mm_tile_q8_0_##isa, kern_mm_tile_q4_0_##isa, kern_mm_tile_q4_1_##isa, kern_mm_tile_q5_0_##isa, \
      kern_mm_tile_q5_1_##isa, kern_mm_tile_iq4_nl_##isa, kern_mm_tile_int4_##isa, kern_mm_tile_mxfp4_##isa,     \
      kern_mm_tile_q4_k_##isa, kern_mm_tile_q5_k_##isa, kern_mm_tile_q6_k_##isa, kern_mm_tile_q3_k_##isa,        \
      kern_mm_tile_q2_k_##isa, kern_mm_tile_iq4_xs_##isa;
HF_X86_TILES(avx2)
HF_X86_TILES(avx512vnni)
HF_X86_TILES(amx)
#undef HF_X86_TILES

#define HF_X86_TABLE(isa)                                                                                                      \
  kern_pack_fn kern_pack_f16_##isa, kern_pack_bf16_##isa, kern_pack_q8b32_##isa;                                               \
  void kern_rmsnorm_##isa(const float *x, const float *w, float eps, int n, float *y);                                         \
  void kern_swiglu_##isa(const float *gate, const float *up, int n, float *out);                                               \
  void kern_swiglu_clamped_##isa(const float *gate, const float *up, float limit, int n, float *out);                          \
  void kern_axpy_##isa(float a, const float *x, int n, float *y);                                                              \
  float kern_dot_##isa(const float *a, const float *b, int n);                                                                 \
  void kern_attn_##isa(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch);        \
  void kern_attn_merge_##isa(const kern_attn *a, int g0, int g1, int r0, int r1, int n_seg, const float *part, void *scratch); \
  void kern_attn_fold_##isa(const kern_attn *a, int r0, int r1, float *to, const float *from, void *scratch);                  \
  void kern_kv_store_##isa(kern_kv_type t, const float *x, int n, void *dst);                                                  \
  void kern_kv_load_##isa(kern_kv_type t, const void *src, int n, float *x);                                                   \
  void kern_kv_unpack_##isa(const int8_t *q, const void *scales, int n, float *x);

HF_X86_TABLE(avx2)
HF_X86_TABLE(avx512)
void kern_encode_avx2(kern_format f, const float *x, int n_cols, void *row);
#undef HF_X86_TABLE

/* Heads over a cache in Q8_0, attn_q8_ISA.c; with VNNI all others, too, by what there is for AVX-512. */
void kern_attn_q8_avx2(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch);
void kern_attn_q8_merge_avx2(const kern_attn *a, int g0, int g1, int r0, int r1, int n_seg, const float *part, void *scratch);
void kern_attn_avx512vnni(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch);
void kern_attn_merge_avx512vnni(const kern_attn *a, int g0, int g1, int r0, int r1, int n_seg, const float *part, void *scratch);
static inline bool kern_attn_is_q8(const kern_attn *a) {
  return a->kv.type == KV_Q8_0 && !a->mla;
}

#endif
