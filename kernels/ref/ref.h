/* ref.h: the scalar reference of every operation, the definition that all variants are checked against; private to kernels.
 * Contracts are in kernels.h. */
#ifndef HF_KERNELS_REF_H
#define HF_KERNELS_REF_H

#include "kernels/kernels.h"

kern_mm_fn kern_mm_plain_f32_ref, kern_mm_plain_f16_ref, kern_mm_plain_bf16_ref /* every format without blocks */,
    kern_mm_blocks_q8b32_ref /* every format in blocks */, kern_mm_blocks_f32_ref;
kern_pack_fn kern_pack_f32_ref, kern_pack_f16_ref, kern_pack_bf16_ref, kern_pack_q8b32_ref;
void kern_encode_ref(kern_format f, const float *x, int n_cols, void *row);
void kern_rmsnorm_ref(const float *x, const float *w, float eps, int n, float *y);
void kern_swiglu_ref(const float *gate, const float *up, int n, float *out);
void kern_swiglu_clamped_ref(const float *gate, const float *up, float limit, int n, float *out);
void kern_axpy_ref(float a, const float *x, int n, float *y);
float kern_dot_ref(const float *a, const float *b, int n);
void kern_attn_ref(const kern_attn *a, int g0, int g1, int r0, int r1, int s0, int s1, float *part, void *scratch);
void kern_attn_merge_ref(const kern_attn *a, int g0, int g1, int r0, int r1, int n_seg, const float *part, void *scratch);
void kern_attn_fold_ref(const kern_attn *a, int r0, int r1, float *to, const float *from, void *scratch);
void kern_kv_store_ref(kern_kv_type t, const float *x, int n, void *dst);
void kern_kv_load_ref(kern_kv_type t, const void *src, int n, float *x);
void kern_kv_unpack_ref(const int8_t *q, const void *scales, int n, float *x);

#endif
