/* format.c: names and sizes of weight formats, packed activations and KV elements. */
#include <string.h>

#include "kernels/kernels.h"
#include "kernels/layouts.h"

static const struct {
  const char *name;
  int block, block_bytes;
  kern_act act;
} formats[KF_N] = {
    [KF_F32] = {"f32", 1, 4, KA_F32},
    [KF_F16] = {"f16", 1, 2, KA_F16},
    [KF_BF16] = {"bf16", 1, 2, KA_BF16},
    [KF_Q8_0] = {"q8_0", 32, 34, KA_Q8B32},
    [KF_Q4_0] = {"q4_0", 32, 18, KA_Q8B32},
    [KF_Q4_1] = {"q4_1", 32, 20, KA_Q8B32},
    [KF_Q5_0] = {"q5_0", 32, 22, KA_Q8B32},
    [KF_Q5_1] = {"q5_1", 32, 24, KA_Q8B32},
    [KF_Q2_K] = {"q2_k", 256, 84, KA_Q8B32},
    [KF_Q3_K] = {"q3_k", 256, 110, KA_Q8B32},
    [KF_Q4_K] = {"q4_k", 256, 144, KA_Q8B32},
    [KF_Q5_K] = {"q5_k", 256, 176, KA_Q8B32},
    [KF_Q6_K] = {"q6_k", 256, 210, KA_Q8B32},
    [KF_IQ4_NL] = {"iq4_nl", 32, 18, KA_Q8B32},
    [KF_IQ4_XS] = {"iq4_xs", 256, 136, KA_Q8B32},
    [KF_MXFP4] = {"mxfp4", 32, 17, KA_Q8B32},
    [KF_NVFP4] = {"nvfp4", 64, 36, KA_Q8B32},
    [KF_INT4] = {"int4", 32, 18, KA_Q8B32},
    [KF_FP8] = {"fp8", 1, 1, KA_BF16}, /* and the scales: kern_row_bytes */
    [KF_TQ1_0] = {"tq1_0", 256, 54, KA_Q8B32},
    [KF_TQ2_0] = {"tq2_0", 256, 66, KA_Q8B32},
    [KF_IQ1_S] = {"iq1_s", 256, 50, KA_Q8B32},
    [KF_IQ1_M] = {"iq1_m", 256, 56, KA_Q8B32},
    [KF_IQ2_XXS] = {"iq2_xxs", 256, 66, KA_Q8B32},
    [KF_IQ2_XS] = {"iq2_xs", 256, 74, KA_Q8B32},
    [KF_IQ2_S] = {"iq2_s", 256, 82, KA_Q8B32},
    [KF_IQ3_XXS] = {"iq3_xxs", 256, 98, KA_Q8B32},
    [KF_IQ3_S] = {"iq3_s", 256, 110, KA_Q8B32},
};

size_t kern_row_bytes(kern_format f, int n_cols) {
  size_t scales = f == KF_FP8 ? (size_t)(n_cols + FP8_BLOCK - 1) / FP8_BLOCK * sizeof(float) : 0;
  return (size_t)(n_cols / formats[f].block) * (size_t)formats[f].block_bytes + scales;
}

int kern_block(kern_format f) {
  return formats[f].block;
}

const char *kern_format_name(kern_format f) {
  return (unsigned)f < KF_N ? formats[f].name : "?";
}

bool kern_format_parse(const char *name, kern_format *out) {
  for (int f = 0; f < KF_N; f++) {
    if (strcmp(name, formats[f].name) == 0) {
      *out = (kern_format)f;
      return true;
    }
  }
  return false;
}

kern_act kern_act_of(kern_format f, bool exact) {
  return exact ? KA_F32 : formats[f].act;
}

const char *kern_act_name(kern_act a) {
  static const char *const names[KA_N] = {"f32", "f16", "bf16", "q8b32"};
  return (unsigned)a < KA_N ? names[a] : "?";
}

size_t kern_act_bytes(kern_act a, int n) {
  if (a == KA_Q8B32) return q8b32_bytes(n);
  return lay_round_up((size_t)n * (a == KA_F32 ? 4 : 2), 64);
}

/* Rows fill whole vectors; each has dv sums (and what a tile may write behind them), a maximum and a weight. */
size_t kern_attn_part_floats(int n_rows, int dv) {
  return lay_round_up((size_t)n_rows, n_rows <= 8 ? 8 : 16) * (lay_round_up((size_t)dv, 16) + 18);
}

/* Two blocks of keys and one of values, in rows of the wider of both, two states of the rows (most with many heads of few rows), the queries, one block of scores. */
size_t kern_attn_scratch_bytes(int dk, int dv) {
  size_t ld = lay_round_up((size_t)(dk > dv ? dk : dv), 16) + 16;
  ld = ld < 592 ? 592 : ld;
  size_t floats = 3 * (KERN_ATTN_BLOCK + 16) * ld + 2 * KERN_ATTN_HEADS * kern_attn_part_floats(8, dv) +
                  KERN_ATTN_ROWS * (ld + 2) + (KERN_ATTN_BLOCK + 16) * 32 + 8 * 16;
  return floats * sizeof(float);
}
