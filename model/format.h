/* format.h: weight formats, as stored. One table for the whole suite: planner, loader and kernels agree on bytes through it.
 * Block layouts follow ggml's block definitions (ggml-common.h) for GGUF types; FP8/INT4 follow the safetensors
 * conventions of DeepSeek-V3 and compressed-tensors. */
#ifndef HF_MODEL_FORMAT_H
#define HF_MODEL_FORMAT_H
#include "base/status.h"

/* Aliases of the database, command line and catalog: the lower-case names. Numbers are ours, not ggml's. */
typedef enum {
  FMT_F32,
  FMT_F16,
  FMT_BF16,
  FMT_Q8_0,
  FMT_Q4_0,
  FMT_Q4_1,
  FMT_Q5_0,
  FMT_Q5_1,
  FMT_Q2_K,
  FMT_Q3_K,
  FMT_Q4_K,
  FMT_Q5_K,
  FMT_Q6_K,
  FMT_IQ4_NL,
  FMT_IQ4_XS,
  FMT_MXFP4,
  FMT_FP8_E4M3 /* 128x128 f32 block scales apart */,
  FMT_INT4_G32 /* group 32, bf16 scale */,
  FMT_INT8 /* per channel, planning */,
  FMT_IQ1_S,
  FMT_IQ1_M,
  FMT_IQ2_XXS,
  FMT_IQ2_XS,
  FMT_IQ2_S,
  FMT_IQ3_XXS,
  FMT_IQ3_S,
  FMT_TQ1_0,
  FMT_TQ2_0,
  FMT_NVFP4,
  /* Mixtures, for planning: names of published files. What they hold part by part is in recipe.h. */
  FMT_Q4_K_M,
  FMT_Q2_K_XL /* ud-q2_k_xl */,
  FMT_Q6_0, /* from here on: types of ik_llama.cpp */
  FMT_IQ2_K,
  FMT_IQ3_K,
  FMT_IQ4_K,
  FMT_IQ5_K,
  FMT_IQ6_K,
  FMT_IQ2_KS,
  FMT_IQ3_KS,
  FMT_IQ4_KS,
  FMT_IQ5_KS,
  FMT_IQ4_KSS,
  FMT_IQ2_KL,
  FMT_IQ1_KT,
  FMT_IQ2_KT,
  FMT_IQ3_KT,
  FMT_IQ4_KT,
  FMT_IQ1_S_R4,
  FMT_IQ1_M_R4,
  FMT_Q2_K_S, /* mixtures again */
  FMT_Q3_K_S,
  FMT_Q3_K_M,
  FMT_Q3_K_L,
  FMT_Q4_K_S,
  FMT_Q5_K_S,
  FMT_Q5_K_M,
  FMT_Q4_K_M_V2,
  FMT_Q4_K_XL /* ud-q4_k_xl */,
  FMT_Q2_K_R4,
  FMT_DQ4_K,
  FMT_MIX_IQ3_K,
  FMT_N,
  FMT_DEFAULT = -1
} fmt;

typedef struct {
  const char *name;       /* "q8_0" */
  int block;              /* elements per block along a row; 1 for plain floats */
  int block_bytes;        /* 0 for planning-only mixtures */
  double bits_per_weight; /* mixtures: of the routed experts of a large model, nearly */
  int ggml_type;          /* -1 = not a GGUF type */
  bool executable;        /* the kernels can compute with it now */
  int row_bytes;          /* beside the blocks, once per row: a scale */
  bool slow;              /* executable in plain C only: right, but many times slower than memory could be read */
} fmt_info;

const fmt_info *fmt_get(fmt f);
/* Case does not matter; - is as good as _; _r4 or _r8 at the end (the same bits in another order) may be left out or added. HF_INPUT names the
 * nearest ones. */
HF_MUST hf_status fmt_parse(const char *name, fmt *out);
bool fmt_is_mixture(fmt f);
bool fmt_from_ggml(int ggml_type, fmt *out);
/* Bytes of a row of n elements; n must be a multiple of block (HF functions that open files check that). */
size_t fmt_row_bytes(fmt f, int64_t n);
/* Of a row as model_tensor_read gives it: the same, but FP8 gets an f32 scale before every 128 elements. */
size_t fmt_loaded_row_bytes(fmt f, int64_t n);
/* Do the kernels have tiles of FMT_TILE_ROWS rows for it? Where they use them, matrices of n columns take whole tiles of memory. */
enum { FMT_TILE_ROWS = 16 };
bool fmt_has_tiles(fmt f, int64_t n);
#endif
