/* format.c: the table of weight formats. */
#include "model/format.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"

/* GGUF rows: block sizes as in ggml's block definitions; tests/golden/dequant/index.json lists the same figures.
 * FP8: one f32 scale per 128x128 block lies in a tensor of its own, 32/16384 bits a weight.
 * INT4_G32: compressed-tensors pack-quantized: eight nibbles in an I32 word and one BF16 scale per group of 32 in two
 * tensors; together 18 bytes per 32 weights. INT8 per channel: one f32 scale a row, not counted.
 * ik_llama.cpp's types: ggml-common.h and ggml.c of that project (commit 8337e4c); some have a scale per row beside the blocks.
 * Mixtures have no block; their bits are those of the routed experts of DeepSeek-R1, after recipe.c. */
static const fmt_info table[FMT_N] = {
    [FMT_F32] = {"f32", 1, 4, 32, 0, true, 0},
    [FMT_F16] = {"f16", 1, 2, 16, 1, true, 0},
    [FMT_BF16] = {"bf16", 1, 2, 16, 30, true, 0},
    [FMT_Q8_0] = {"q8_0", 32, 34, 8.5, 8, true, 0},
    [FMT_Q4_0] = {"q4_0", 32, 18, 4.5, 2, true, 0},
    [FMT_Q4_1] = {"q4_1", 32, 20, 5, 3, true, 0},
    [FMT_Q5_0] = {"q5_0", 32, 22, 5.5, 6, true, 0},
    [FMT_Q5_1] = {"q5_1", 32, 24, 6, 7, true, 0},
    [FMT_Q2_K] = {"q2_k", 256, 84, 2.625, 10, true, 0},
    [FMT_Q3_K] = {"q3_k", 256, 110, 3.4375, 11, true, 0},
    [FMT_Q4_K] = {"q4_k", 256, 144, 4.5, 12, true, 0},
    [FMT_Q5_K] = {"q5_k", 256, 176, 5.5, 13, true, 0},
    [FMT_Q6_K] = {"q6_k", 256, 210, 6.5625, 14, true, 0},
    [FMT_IQ4_NL] = {"iq4_nl", 32, 18, 4.5, 20, true, 0},
    [FMT_IQ4_XS] = {"iq4_xs", 256, 136, 4.25, 23, true, 0},
    [FMT_MXFP4] = {"mxfp4", 32, 17, 4.25, 39, true, 0},
    [FMT_FP8_E4M3] = {"fp8", 1, 1, 8.001953125, -1, true, 0},
    [FMT_INT4_G32] = {"int4", 32, 18, 4.5, -1, true, 0},
    [FMT_INT8] = {"int8", 1, 1, 8, -1, false, 0},
    [FMT_IQ1_S] = {"iq1_s", 256, 50, 1.5625, 19, true, 0, true},
    [FMT_IQ1_M] = {"iq1_m", 256, 56, 1.75, 29, true, 0, true},
    [FMT_IQ2_XXS] = {"iq2_xxs", 256, 66, 2.0625, 16, true, 0, true},
    [FMT_IQ2_XS] = {"iq2_xs", 256, 74, 2.3125, 17, true, 0, true},
    [FMT_IQ2_S] = {"iq2_s", 256, 82, 2.5625, 22, true, 0, true},
    [FMT_IQ3_XXS] = {"iq3_xxs", 256, 98, 3.0625, 18, true, 0, true},
    [FMT_IQ3_S] = {"iq3_s", 256, 110, 3.4375, 21, true, 0, true},
    [FMT_TQ1_0] = {"tq1_0", 256, 54, 1.6875, 34, true, 0, true},
    [FMT_TQ2_0] = {"tq2_0", 256, 66, 2.0625, 35, true, 0, true},
    [FMT_NVFP4] = {"nvfp4", 64, 36, 4.5, 40, true, 0, true},
    [FMT_Q6_0] = {"q6_0", 32, 26, 6.5, 133, false, 0},
    [FMT_IQ2_K] = {"iq2_k", 256, 76, 2.375, 137, false, 0},
    [FMT_IQ3_K] = {"iq3_k", 256, 110, 3.4375, 138, false, 0},
    [FMT_IQ4_K] = {"iq4_k", 256, 144, 4.5, 139, false, 0},
    [FMT_IQ5_K] = {"iq5_k", 256, 176, 5.5, 140, false, 0},
    [FMT_IQ6_K] = {"iq6_k", 256, 212, 6.625, 141, false, 0},
    [FMT_IQ2_KS] = {"iq2_ks", 256, 70, 2.1875, 145, false, 2},
    [FMT_IQ3_KS] = {"iq3_ks", 256, 102, 3.1875, 156, false, 2},
    [FMT_IQ4_KS] = {"iq4_ks", 256, 136, 4.25, 144, false, 4},
    [FMT_IQ5_KS] = {"iq5_ks", 256, 168, 5.25, 152, false, 4},
    [FMT_IQ4_KSS] = {"iq4_kss", 256, 128, 4, 146, false, 4},
    [FMT_IQ2_KL] = {"iq2_kl", 256, 86, 2.6875, 157, false, 2},
    [FMT_IQ1_KT] = {"iq1_kt", 256, 56, 1.75, 158, false, 4},
    [FMT_IQ2_KT] = {"iq2_kt", 256, 68, 2.125, 153, false, 4},
    [FMT_IQ3_KT] = {"iq3_kt", 256, 100, 3.125, 154, false, 4},
    [FMT_IQ4_KT] = {"iq4_kt", 256, 128, 4, 155, false, 4},
    [FMT_IQ1_S_R4] = {"iq1_s_r4", 32, 6, 1.5, 219, false, 2},
    [FMT_IQ1_M_R4] = {"iq1_m_r4", 32, 7, 1.75, 229, false, 2},
    [FMT_Q4_K_M] = {"q4_k_m", 1, 0, 4.82, -1, false, 0},
    [FMT_Q2_K_XL] = {"ud-q2_k_xl", 1, 0, 2.64, -1, false, 0},
    [FMT_Q2_K_S] = {"q2_k_s", 1, 0, 2.69, -1, false, 0},
    [FMT_Q3_K_S] = {"q3_k_s", 1, 0, 3.4375, -1, false, 0},
    [FMT_Q3_K_M] = {"q3_k_m", 1, 0, 3.79, -1, false, 0},
    [FMT_Q3_K_L] = {"q3_k_l", 1, 0, 4.125, -1, false, 0},
    [FMT_Q4_K_S] = {"q4_k_s", 1, 0, 4.53, -1, false, 0},
    [FMT_Q5_K_S] = {"q5_k_s", 1, 0, 5.5, -1, false, 0},
    [FMT_Q5_K_M] = {"q5_k_m", 1, 0, 5.66, -1, false, 0},
    [FMT_Q4_K_M_V2] = {"q4_k_m-v2", 1, 0, 4.82, -1, false, 0},
    [FMT_Q4_K_XL] = {"ud-q4_k_xl", 1, 0, 4.56, -1, false, 0},
    [FMT_Q2_K_R4] = {"q2_k_r4", 1, 0, 2.896, -1, false, 0},
    [FMT_DQ4_K] = {"dq4_k_r4", 1, 0, 5.1875, -1, false, 0},
    [FMT_MIX_IQ3_K] = {"mix-iq3_k", 1, 0, 3.79, -1, false, 0},
};

const fmt_info *fmt_get(fmt f) {
  return f >= 0 && f < FMT_N ? &table[f] : &table[FMT_F32];
}

bool fmt_is_mixture(fmt f) {
  return fmt_get(f)->block_bytes == 0;
}

/* Lower case, - as _. false: too long for any name. */
static bool plain_name(const char *name, char out[32]) {
  size_t n = strlen(name);
  if (n >= 32) return false;
  for (size_t i = 0; i <= n; i++) out[i] = name[i] == '-' ? '_' : (char)tolower((unsigned char)name[i]);
  return true;
}

static bool find_name(const char *plain, fmt *out) {
  static const struct {
    const char *alias;
    fmt f;
  } aliases[] = {{"fp8_e4m3", FMT_FP8_E4M3}, {"int4_g32", FMT_INT4_G32}, {"float32", FMT_F32},        {"float16", FMT_F16},
                 {"bfloat16", FMT_BF16},     {"w8a8", FMT_INT8},         {"int8_w8a8", FMT_INT8},     {"q2_k_xl", FMT_Q2_K_XL},
                 {"q4_k_xl", FMT_Q4_K_XL},   {"dq4_k", FMT_DQ4_K},       {"q4_k_m_v2", FMT_Q4_K_M_V2}};
  for (int f = 0; f < FMT_N; f++) {
    char known[32];
    if (plain_name(table[f].name, known) && strcmp(plain, known) == 0) {
      *out = (fmt)f;
      return true;
    }
  }
  for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
    if (strcmp(plain, aliases[i].alias) == 0) {
      *out = aliases[i].f;
      return true;
    }
  return false;
}

/* Of two names without the signs between their parts first, then of the names as they are: q4km is q4_k_m rather than q4_0. */
static int name_distance(const char *a, const char *b) {
  char bare[2][32];
  const char *text[2] = {a, b};
  for (int i = 0; i < 2; i++) {
    size_t n = 0;
    for (const char *c = text[i]; *c != '\0' && n < sizeof bare[0] - 1; c++)
      if (strchr("_-. ", *c) == NULL) bare[i][n++] = *c;
    bare[i][n] = '\0';
  }
  return 4 * hf_edit_distance(bare[0], strlen(bare[0]), bare[1]) + hf_edit_distance(a, strlen(a), b);
}

/* The three known names nearest to `name`. */
static void nearest_names(const char *name, char *to, size_t size) {
  bool said[FMT_N] = {false};
  size_t len = 0;
  for (int k = 0; k < 3; k++) {
    int best = -1, least = 5 * HF_EDIT_FAR;
    for (int f = 0; f < FMT_N; f++) {
      int d = said[f] ? 5 * HF_EDIT_FAR : name_distance(name, table[f].name);
      if (d < least) best = f, least = d;
    }
    if (best < 0) return;
    said[best] = true;
    len += (size_t)snprintf(to + len, size - len, "%s%s", k ? ", " : "", table[best].name);
  }
}

hf_status fmt_parse(const char *name, fmt *out) {
  char plain[32], near[128] = "q4_k_m, q8_0, fp8";
  if (plain_name(name, plain)) {
    if (find_name(plain, out)) return HF_OK;
    size_t n = strlen(plain);
    bool repacked = n > 3 && (strcmp(plain + n - 3, "_r4") == 0 || strcmp(plain + n - 3, "_r8") == 0);
    if (repacked) plain[n - 3] = '\0';
    if (repacked && find_name(plain, out)) return HF_OK;
  }
  nearest_names(name, near, sizeof near);
  return hf_fail(HF_INPUT, "weight format '%.40s' is unknown; the nearest names are %s; hf-plan formats --list tells all", name,
                 near);
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
  return (size_t)(n / i->block) * (size_t)i->block_bytes + (size_t)i->row_bytes;
}

bool fmt_has_tiles(fmt f, int64_t n) {
  int unit = f == FMT_F16 || f == FMT_BF16 ? 2 : f == FMT_FP8_E4M3 ? 4 : fmt_get(f)->block;
  return f != FMT_F32 && fmt_get(f)->executable && !fmt_get(f)->slow && n % unit == 0;
}

size_t fmt_loaded_row_bytes(fmt f, int64_t n) {
  return fmt_row_bytes(f, n) + (f == FMT_FP8_E4M3 ? (size_t)((n + 127) / 128) * sizeof(float) : 0);
}
