/* format.c: the table of weight formats. */
#include "model/format.h"

#include <string.h>
#include <strings.h>

/* GGUF rows: block sizes as in ggml's block definitions; tests/golden/dequant/index.json lists the same figures.
 * FP8: one f32 scale per 128x128 block lies in a tensor of its own, 32/16384 bits a weight.
 * INT4_G32: compressed-tensors pack-quantized: eight nibbles in an I32 word and one BF16 scale per group of 32 in two
 * tensors; together 18 bytes per 32 weights. INT8 per channel: one f32 scale a row, not counted.
 * Mixtures have no block; their bits are those of published DeepSeek-R1 files over its 671.03e9 weights. Q4_K_M: 404 GB
 * (ollama.com/library/deepseek-r1:671b). Q2_K_XL: 211.03 GiB (tests/validation/published-cases.csv, row IK-001). */
static const fmt_info table[FMT_N] = {
    [FMT_F32] = {"f32", 1, 4, 32, 0, true},
    [FMT_F16] = {"f16", 1, 2, 16, 1, true},
    [FMT_BF16] = {"bf16", 1, 2, 16, 30, true},
    [FMT_Q8_0] = {"q8_0", 32, 34, 8.5, 8, true},
    [FMT_Q4_0] = {"q4_0", 32, 18, 4.5, 2, false},
    [FMT_Q4_1] = {"q4_1", 32, 20, 5, 3, false},
    [FMT_Q5_0] = {"q5_0", 32, 22, 5.5, 6, false},
    [FMT_Q5_1] = {"q5_1", 32, 24, 6, 7, false},
    [FMT_Q2_K] = {"q2_k", 256, 84, 2.625, 10, false},
    [FMT_Q3_K] = {"q3_k", 256, 110, 3.4375, 11, false},
    [FMT_Q4_K] = {"q4_k", 256, 144, 4.5, 12, false},
    [FMT_Q5_K] = {"q5_k", 256, 176, 5.5, 13, false},
    [FMT_Q6_K] = {"q6_k", 256, 210, 6.5625, 14, false},
    [FMT_IQ4_NL] = {"iq4_nl", 32, 18, 4.5, 20, false},
    [FMT_IQ4_XS] = {"iq4_xs", 256, 136, 4.25, 23, false},
    [FMT_MXFP4] = {"mxfp4", 32, 17, 4.25, 39, false},
    [FMT_FP8_E4M3] = {"fp8", 1, 1, 8.001953125, -1, false},
    [FMT_INT4_G32] = {"int4", 32, 18, 4.5, -1, false},
    [FMT_INT8] = {"int8", 1, 1, 8, -1, false},
    [FMT_IQ1_S] = {"iq1_s", 256, 50, 1.5625, 19, false},
    [FMT_IQ1_M] = {"iq1_m", 256, 56, 1.75, 29, false},
    [FMT_IQ2_XXS] = {"iq2_xxs", 256, 66, 2.0625, 16, false},
    [FMT_IQ2_XS] = {"iq2_xs", 256, 74, 2.3125, 17, false},
    [FMT_IQ2_S] = {"iq2_s", 256, 82, 2.5625, 22, false},
    [FMT_IQ3_XXS] = {"iq3_xxs", 256, 98, 3.0625, 18, false},
    [FMT_IQ3_S] = {"iq3_s", 256, 110, 3.4375, 21, false},
    [FMT_TQ1_0] = {"tq1_0", 256, 54, 1.6875, 34, false},
    [FMT_TQ2_0] = {"tq2_0", 256, 66, 2.0625, 35, false},
    [FMT_NVFP4] = {"nvfp4", 64, 36, 4.5, 40, false},
    [FMT_Q4_K_M] = {"q4_k_m", 1, 0, 4.82, -1, false},
    [FMT_Q2_K_XL] = {"q2_k_xl", 1, 0, 2.70, -1, false},
};

const fmt_info *fmt_get(fmt f) {
  return f >= 0 && f < FMT_N ? &table[f] : &table[FMT_F32];
}

hf_status fmt_parse(const char *name, fmt *out) {
  static const struct {
    const char *alias;
    fmt f;
  } aliases[] = {
      {"fp8_e4m3", FMT_FP8_E4M3}, {"int4_g32", FMT_INT4_G32}, {"float32", FMT_F32}, {"float16", FMT_F16}, {"bfloat16", FMT_BF16}};
  char known[512] = "";
  for (int f = 0; f < FMT_N; f++) {
    if (!strcasecmp(name, table[f].name)) {
      *out = (fmt)f;
      return HF_OK;
    }
    if (f) strncat(known, " ", sizeof known - strlen(known) - 1);
    strncat(known, table[f].name, sizeof known - strlen(known) - 1);
  }
  for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
    if (!strcasecmp(name, aliases[i].alias)) {
      *out = aliases[i].f;
      return HF_OK;
    }
  return hf_fail(HF_INPUT, "weight format '%.40s' is unknown; known: %s", name, known);
}

bool fmt_from_ggml(int ggml_type, fmt *out) {
  for (int f = 0; f < FMT_N; f++)
    if (table[f].ggml_type == ggml_type && ggml_type >= 0) {
      *out = (fmt)f;
      return true;
    }
  return false;
}

size_t fmt_row_bytes(fmt f, int64_t n) {
  const fmt_info *i = fmt_get(f);
  if (i->block_bytes == 0) return (size_t)((double)n * i->bits_per_weight / 8.0 + 0.5);
  return (size_t)(n / i->block) * (size_t)i->block_bytes;
}
