/* The library that nvcc built links, and every operation declines a job with nothing in it before it asks for a GPU: runs where there is none. */
#include <stdio.h>

#include "kernels/cuda/ops.h"

static int failed;

static void declined(int rc, const char *what) {
  if (rc == HFC_INVALID || rc == HFC_UNSUPPORTED) return;
  printf("%s of nothing: %d\n", what, rc);
  failed = 1;
}
#define NOTHING(fn, type) declined(fn(&(type){0}, NULL), #fn)

int main(void) {
  NOTHING(hfc_mm_f32, hfc_mm);
  NOTHING(hfc_mm_q8_0, hfc_mm);
  NOTHING(hfc_mm_q4_0, hfc_mm);
  NOTHING(hfc_mm_q4_1, hfc_mm);
  NOTHING(hfc_mm_q5_0, hfc_mm);
  NOTHING(hfc_mm_q5_1, hfc_mm);
  NOTHING(hfc_mm_q4_k, hfc_mm);
  NOTHING(hfc_mm_q5_k, hfc_mm);
  NOTHING(hfc_mm_q6_k, hfc_mm);
  NOTHING(hfc_mm_iq4_nl, hfc_mm);
  NOTHING(hfc_mm_mxfp4, hfc_mm);
  NOTHING(hfc_mm_int4, hfc_mm);
  NOTHING(hfc_mm_bf16, hfc_mm);
  NOTHING(hfc_mm_f16, hfc_mm);
  NOTHING(hfc_mm_fp8, hfc_mm);
  NOTHING(hfc_group_q8_0, hfc_group);
  NOTHING(hfc_group_q4_0, hfc_group);
  NOTHING(hfc_group_q4_k, hfc_group);
  NOTHING(hfc_group_q6_k, hfc_group);
  NOTHING(hfc_group_bf16, hfc_group);
  NOTHING(hfc_group_fp8, hfc_group);
  NOTHING(hfc_group_mxfp4, hfc_group);
  NOTHING(hfc_group_int4, hfc_group);
  NOTHING(hfc_pack_rows, hfc_pack);
  NOTHING(hfc_rmsnorm_rows, hfc_rmsnorm);
  NOTHING(hfc_rope_rows, hfc_rope);
  NOTHING(hfc_route_rows, hfc_route);
  NOTHING(hfc_argmax_rows, hfc_argmax);
  NOTHING(hfc_kv_write_rows, hfc_kv_write);
  NOTHING(hfc_attn_gqa, hfc_attn);
  NOTHING(hfc_attn_mla, hfc_attn);
  NOTHING(hfc_experts_sort, hfc_experts_lists);
  NOTHING(hfc_experts_sum, hfc_experts_sum_of);
  NOTHING(hfc_embed_rows, hfc_embed);
  NOTHING(hfc_copy_rows, hfc_copy);
  NOTHING(hfc_combine_rows, hfc_combine);
  NOTHING(hfc_signal_host, hfc_signal);
  NOTHING(hfc_wait_host, hfc_wait);
  return failed;
}
