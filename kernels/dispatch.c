/* dispatch.c: one table, filled once: the reference first, then each instruction set in rising order overwrites what it has.
 * Matrix products are an ordered list of candidates instead, best first and the reference last, because shape may decide. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/isa.h"
#ifdef HF_HAVE_DNNL
#include "kernels/onednn/gemm.h"
#include "kernels/onednn/products.h"
#endif
#include "kernels/ref/ref.h"
#include "kernels/selfcheck.h"
#include "kernels/x86/x86.h"

enum {
  SCALAR = KERN_ISA_SCALAR,
  AVX2 = KERN_ISA_AVX2,
  AVX512 = KERN_ISA_AVX2 | KERN_ISA_AVX512,
  VNNI = AVX512 | KERN_ISA_AVX512_VNNI,
  BF16 = AVX512 | KERN_ISA_AVX512_BF16,
  VBMI = BF16 | KERN_ISA_AVX512_VBMI,
  /* the AMX kernels are compiled for all that every CPU with AMX has */
  AMX8 = VNNI | VBMI | KERN_ISA_AMX_INT8,
  AMX16 = VNNI | VBMI | KERN_ISA_AMX_BF16
};

/* Below so many tokens the tile registers are mostly empty. */
enum { AMX_LEAST = 5 };

/* The library's least number of tokens in one product; fewer would be filled up with zeros. */
enum { ONEDNN_LEAST = 16 };

#define BLOCKS_REF(f, name, block)                                                   \
  {name ".ref", SCALAR, f, KA_Q8B32, KL_ROWS, 0, block, kern_mm_blocks_q8b32_ref}, { \
    name ".exact.ref", SCALAR, f, KA_F32, KL_ROWS, 0, block, kern_mm_blocks_f32_ref  \
  }

#define PLAIN_REF(f, name, a, fn)                                              \
  {name ".ref", SCALAR, f, a, KL_ROWS, 0, 1, fn}, {                            \
    name ".exact.ref", SCALAR, f, KA_F32, KL_ROWS, 0, 1, kern_mm_plain_f32_ref \
  }

#define PLAIN_TILES_REF(f, name, a, fn, unit)                                            \
  {name ".tile.ref", SCALAR, f, a, KL_TILE16, 0, unit, fn}, {                            \
    name ".exact.tile.ref", SCALAR, f, KA_F32, KL_TILE16, 0, unit, kern_mm_plain_f32_ref \
  }

#define TILES_REF(f, name, block)                                                           \
  {name ".tile.ref", SCALAR, f, KA_Q8B32, KL_TILE16, 0, block, kern_mm_blocks_q8b32_ref}, { \
    name ".exact.tile.ref", SCALAR, f, KA_F32, KL_TILE16, 0, block, kern_mm_blocks_f32_ref  \
  }

/* The library's products are taken by name only. */
#define ONEDNN(f, name, isa, a, layout, unit, fn, rounded) \
  { name, isa, f, a, layout, 0, unit, fn, ONEDNN_LEAST, true, rounded }
#define ONEDNN_ROWS(f, name, unit) ONEDNN(f, name ".onednn", AVX2, KA_Q8B32, KL_ROWS, unit, kern_mm_any_onednn, false)
#define ONEDNN_TILES(f, name, a, unit)                                            \
  ONEDNN(f, name ".onednn", AVX2, a, KL_TILE16, unit, kern_mm_any_onednn, false), \
      ONEDNN(f, name ".rounded.onednn", BF16, a, KL_TILE16, (unit) < 32 ? 32 : (unit), kern_mm_rounded_onednn, true)

static const kern_mm_candidate candidates[] = {
#ifdef HF_X86
    {"q8_0.tile.amx", AMX8, KF_Q8_0, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q8_0_amx, AMX_LEAST},
    {"q4_0.tile.amx", AMX8, KF_Q4_0, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q4_0_amx, AMX_LEAST},
    {"q4_1.tile.amx", AMX8, KF_Q4_1, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q4_1_amx, AMX_LEAST},
    {"q5_0.tile.amx", AMX8, KF_Q5_0, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q5_0_amx, AMX_LEAST},
    {"q5_1.tile.amx", AMX8, KF_Q5_1, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q5_1_amx, AMX_LEAST},
    {"iq4_nl.tile.amx", AMX8, KF_IQ4_NL, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_iq4_nl_amx, AMX_LEAST},
    {"int4.tile.amx", AMX8, KF_INT4, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_int4_amx, AMX_LEAST},
    {"mxfp4.tile.amx", AMX8, KF_MXFP4, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_mxfp4_amx, AMX_LEAST},
    {"q4_k.tile.amx", AMX8, KF_Q4_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q4_k_amx, AMX_LEAST},
    {"q5_k.tile.amx", AMX8, KF_Q5_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q5_k_amx, AMX_LEAST},
    {"q6_k.tile.amx", AMX8, KF_Q6_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q6_k_amx, AMX_LEAST},
    {"q3_k.tile.amx", AMX8, KF_Q3_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q3_k_amx, AMX_LEAST},
    {"q2_k.tile.amx", AMX8, KF_Q2_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q2_k_amx, AMX_LEAST},
    {"iq4_xs.tile.amx", AMX8, KF_IQ4_XS, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_iq4_xs_amx, AMX_LEAST},
    {"q8_0.tile.avx512vnni", VNNI, KF_Q8_0, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q8_0_avx512vnni},
    {"q4_0.tile.avx512vnni", VNNI, KF_Q4_0, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q4_0_avx512vnni},
    {"q4_1.tile.avx512vnni", VNNI, KF_Q4_1, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q4_1_avx512vnni},
    {"q5_0.tile.avx512vnni", VNNI, KF_Q5_0, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q5_0_avx512vnni},
    {"q5_1.tile.avx512vnni", VNNI, KF_Q5_1, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q5_1_avx512vnni},
    {"iq4_nl.tile.avx512vnni", VNNI, KF_IQ4_NL, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_iq4_nl_avx512vnni},
    {"int4.tile.avx512vnni", VNNI, KF_INT4, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_int4_avx512vnni},
    {"mxfp4.tile.avx512vnni", VNNI, KF_MXFP4, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_mxfp4_avx512vnni},
    {"q4_k.tile.avx512vnni", VNNI, KF_Q4_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q4_k_avx512vnni},
    {"q5_k.tile.avx512vnni", VNNI, KF_Q5_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q5_k_avx512vnni},
    {"q6_k.tile.avx512vnni", VNNI, KF_Q6_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q6_k_avx512vnni},
    {"q3_k.tile.avx512vnni", VNNI, KF_Q3_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q3_k_avx512vnni},
    {"q2_k.tile.avx512vnni", VNNI, KF_Q2_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q2_k_avx512vnni},
    {"iq4_xs.tile.avx512vnni", VNNI, KF_IQ4_XS, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_iq4_xs_avx512vnni},
    {"q8_0.tile.avx2", AVX2, KF_Q8_0, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q8_0_avx2},
    {"q4_0.tile.avx2", AVX2, KF_Q4_0, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q4_0_avx2},
    {"q4_1.tile.avx2", AVX2, KF_Q4_1, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q4_1_avx2},
    {"q5_0.tile.avx2", AVX2, KF_Q5_0, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q5_0_avx2},
    {"q5_1.tile.avx2", AVX2, KF_Q5_1, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_q5_1_avx2},
    {"iq4_nl.tile.avx2", AVX2, KF_IQ4_NL, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_iq4_nl_avx2},
    {"int4.tile.avx2", AVX2, KF_INT4, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_int4_avx2},
    {"mxfp4.tile.avx2", AVX2, KF_MXFP4, KA_Q8B32, KL_TILE16, 0, 32, kern_mm_tile_mxfp4_avx2},
    {"q4_k.tile.avx2", AVX2, KF_Q4_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q4_k_avx2},
    {"q5_k.tile.avx2", AVX2, KF_Q5_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q5_k_avx2},
    {"q6_k.tile.avx2", AVX2, KF_Q6_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q6_k_avx2},
    {"q3_k.tile.avx2", AVX2, KF_Q3_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q3_k_avx2},
    {"q2_k.tile.avx2", AVX2, KF_Q2_K, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_q2_k_avx2},
    {"iq4_xs.tile.avx2", AVX2, KF_IQ4_XS, KA_Q8B32, KL_TILE16, 0, 256, kern_mm_tile_iq4_xs_avx2},
    {"bf16.tile.avx512bf16", BF16, KF_BF16, KA_BF16, KL_TILE16, 0, 2, kern_mm_tile_bf16_avx512bf16},
    {"bf16.tile.avx512", AVX512, KF_BF16, KA_BF16, KL_TILE16, 0, 2, kern_mm_tile_bf16_avx512},
    {"f16.tile.avx512", AVX512, KF_F16, KA_F16, KL_TILE16, 0, 2, kern_mm_tile_f16_avx512},
    {"fp8.tile.avx512vbmi", VBMI, KF_FP8, KA_BF16, KL_TILE16, 0, 4, kern_mm_tile_fp8_avx512vbmi},
    {"fp8.tile.avx512", AVX512, KF_FP8, KA_BF16, KL_TILE16, 0, 4, kern_mm_tile_fp8_avx512},
    {"bf16.tile.avx2", AVX2, KF_BF16, KA_BF16, KL_TILE16, 0, 2, kern_mm_tile_bf16_avx2},
    {"f16.tile.avx2", AVX2, KF_F16, KA_F16, KL_TILE16, 0, 2, kern_mm_tile_f16_avx2},
    {"fp8.tile.avx2", AVX2, KF_FP8, KA_BF16, KL_TILE16, 0, 4, kern_mm_tile_fp8_avx2},
    /* Their sums are in another order than those of the products above, which serve few tokens: by itself the executor takes them for no number of
     * tokens, so that bits do not depend on how many share a step. */
    {"bf16.tile.amx", AMX16, KF_BF16, KA_BF16, KL_TILE16, 0, 32, kern_mm_tile_bf16_amx},
    {"fp8.tile.amx", AMX16, KF_FP8, KA_BF16, KL_TILE16, 0, 32, kern_mm_tile_fp8_amx},
    {"q8_0.avx512vnni", VNNI, KF_Q8_0, KA_Q8B32, KL_ROWS, 0, 32, kern_mm_q8_0_avx512vnni},
    {"bf16.avx512bf16", BF16, KF_BF16, KA_BF16, KL_ROWS, 0, 1, kern_mm_bf16_avx512bf16},
    {"f32.avx512", AVX512, KF_F32, KA_F32, KL_ROWS, 0, 1, kern_mm_f32_avx512},
    {"f16.avx512", AVX512, KF_F16, KA_F16, KL_ROWS, 0, 1, kern_mm_f16_avx512},
    {"f16.exact.avx512", AVX512, KF_F16, KA_F32, KL_ROWS, 0, 1, kern_mm_f16_f32_avx512},
    {"bf16.avx512", AVX512, KF_BF16, KA_BF16, KL_ROWS, 0, 1, kern_mm_bf16_avx512},
    {"bf16.exact.avx512", AVX512, KF_BF16, KA_F32, KL_ROWS, 0, 1, kern_mm_bf16_f32_avx512},
    {"q8_0.exact.avx512", AVX512, KF_Q8_0, KA_F32, KL_ROWS, 0, 32, kern_mm_q8_0_f32_avx512},
    {"f32.avx2", AVX2, KF_F32, KA_F32, KL_ROWS, 0, 1, kern_mm_f32_avx2},
    {"f16.avx2", AVX2, KF_F16, KA_F16, KL_ROWS, 0, 1, kern_mm_f16_avx2},
    {"f16.exact.avx2", AVX2, KF_F16, KA_F32, KL_ROWS, 0, 1, kern_mm_f16_f32_avx2},
    {"bf16.avx2", AVX2, KF_BF16, KA_BF16, KL_ROWS, 0, 1, kern_mm_bf16_avx2},
    {"bf16.exact.avx2", AVX2, KF_BF16, KA_F32, KL_ROWS, 0, 1, kern_mm_bf16_f32_avx2},
    {"q8_0.avx2", AVX2, KF_Q8_0, KA_Q8B32, KL_ROWS, 0, 32, kern_mm_q8_0_avx2},
    {"q8_0.exact.avx2", AVX2, KF_Q8_0, KA_F32, KL_ROWS, 0, 32, kern_mm_q8_0_f32_avx2},
#endif
#if defined(HF_X86) && defined(HF_HAVE_DNNL)
    ONEDNN(KF_BF16, "bf16.onednn", BF16, KA_BF16, KL_TILE16, 32, kern_mm_bf16_onednn, false),
    ONEDNN(KF_F32, "f32.onednn", AVX2, KA_F32, KL_ROWS, 1, kern_mm_f32_onednn, false),
    ONEDNN(KF_F16, "f16.onednn", AVX2, KA_F16, KL_TILE16, 2, kern_mm_any_onednn, false),
    ONEDNN_TILES(KF_FP8, "fp8", KA_BF16, 4),
    ONEDNN_TILES(KF_Q8_0, "q8_0", KA_Q8B32, 32),
    ONEDNN_TILES(KF_Q4_0, "q4_0", KA_Q8B32, 32),
    ONEDNN_TILES(KF_Q4_1, "q4_1", KA_Q8B32, 32),
    ONEDNN_TILES(KF_Q5_0, "q5_0", KA_Q8B32, 32),
    ONEDNN_TILES(KF_Q5_1, "q5_1", KA_Q8B32, 32),
    ONEDNN_TILES(KF_IQ4_NL, "iq4_nl", KA_Q8B32, 32),
    ONEDNN_TILES(KF_INT4, "int4", KA_Q8B32, 32),
    ONEDNN_TILES(KF_MXFP4, "mxfp4", KA_Q8B32, 32),
    ONEDNN_TILES(KF_Q4_K, "q4_k", KA_Q8B32, 256),
    ONEDNN_TILES(KF_Q5_K, "q5_k", KA_Q8B32, 256),
    ONEDNN_TILES(KF_Q6_K, "q6_k", KA_Q8B32, 256),
    ONEDNN_TILES(KF_Q3_K, "q3_k", KA_Q8B32, 256),
    ONEDNN_TILES(KF_Q2_K, "q2_k", KA_Q8B32, 256),
    ONEDNN_TILES(KF_IQ4_XS, "iq4_xs", KA_Q8B32, 256),
    ONEDNN_ROWS(KF_NVFP4, "nvfp4", 64),
    ONEDNN_ROWS(KF_TQ1_0, "tq1_0", 256),
    ONEDNN_ROWS(KF_TQ2_0, "tq2_0", 256),
    ONEDNN_ROWS(KF_IQ1_S, "iq1_s", 256),
    ONEDNN_ROWS(KF_IQ1_M, "iq1_m", 256),
    ONEDNN_ROWS(KF_IQ2_XXS, "iq2_xxs", 256),
    ONEDNN_ROWS(KF_IQ2_XS, "iq2_xs", 256),
    ONEDNN_ROWS(KF_IQ2_S, "iq2_s", 256),
    ONEDNN_ROWS(KF_IQ3_XXS, "iq3_xxs", 256),
    ONEDNN_ROWS(KF_IQ3_S, "iq3_s", 256),
#endif
    TILES_REF(KF_Q8_0, "q8_0", 32),
    TILES_REF(KF_Q4_0, "q4_0", 32),
    TILES_REF(KF_Q4_1, "q4_1", 32),
    TILES_REF(KF_Q5_0, "q5_0", 32),
    TILES_REF(KF_Q5_1, "q5_1", 32),
    TILES_REF(KF_IQ4_NL, "iq4_nl", 32),
    TILES_REF(KF_INT4, "int4", 32),
    TILES_REF(KF_MXFP4, "mxfp4", 32),
    TILES_REF(KF_Q4_K, "q4_k", 256),
    TILES_REF(KF_Q5_K, "q5_k", 256),
    TILES_REF(KF_Q6_K, "q6_k", 256),
    TILES_REF(KF_Q3_K, "q3_k", 256),
    TILES_REF(KF_Q2_K, "q2_k", 256),
    TILES_REF(KF_IQ4_XS, "iq4_xs", 256),
    PLAIN_TILES_REF(KF_F16, "f16", KA_F16, kern_mm_plain_f16_ref, 2),
    PLAIN_TILES_REF(KF_BF16, "bf16", KA_BF16, kern_mm_plain_bf16_ref, 2),
    PLAIN_TILES_REF(KF_FP8, "fp8", KA_BF16, kern_mm_plain_bf16_ref, 4),
    {"f32.ref", SCALAR, KF_F32, KA_F32, KL_ROWS, 0, 1, kern_mm_plain_f32_ref},
    PLAIN_REF(KF_F16, "f16", KA_F16, kern_mm_plain_f16_ref),
    PLAIN_REF(KF_BF16, "bf16", KA_BF16, kern_mm_plain_bf16_ref),
    PLAIN_REF(KF_FP8, "fp8", KA_BF16, kern_mm_plain_bf16_ref),
    BLOCKS_REF(KF_Q8_0, "q8_0", 32),
    BLOCKS_REF(KF_Q4_0, "q4_0", 32),
    BLOCKS_REF(KF_Q4_1, "q4_1", 32),
    BLOCKS_REF(KF_Q5_0, "q5_0", 32),
    BLOCKS_REF(KF_Q5_1, "q5_1", 32),
    BLOCKS_REF(KF_Q2_K, "q2_k", 256),
    BLOCKS_REF(KF_Q3_K, "q3_k", 256),
    BLOCKS_REF(KF_Q4_K, "q4_k", 256),
    BLOCKS_REF(KF_Q5_K, "q5_k", 256),
    BLOCKS_REF(KF_Q6_K, "q6_k", 256),
    BLOCKS_REF(KF_IQ4_NL, "iq4_nl", 32),
    BLOCKS_REF(KF_IQ4_XS, "iq4_xs", 256),
    BLOCKS_REF(KF_MXFP4, "mxfp4", 32),
    BLOCKS_REF(KF_NVFP4, "nvfp4", 64),
    BLOCKS_REF(KF_INT4, "int4", 32),
    BLOCKS_REF(KF_TQ1_0, "tq1_0", 256),
    BLOCKS_REF(KF_TQ2_0, "tq2_0", 256),
    BLOCKS_REF(KF_IQ1_S, "iq1_s", 256),
    BLOCKS_REF(KF_IQ1_M, "iq1_m", 256),
    BLOCKS_REF(KF_IQ2_XXS, "iq2_xxs", 256),
    BLOCKS_REF(KF_IQ2_XS, "iq2_xs", 256),
    BLOCKS_REF(KF_IQ2_S, "iq2_s", 256),
    BLOCKS_REF(KF_IQ3_XXS, "iq3_xxs", 256),
    BLOCKS_REF(KF_IQ3_S, "iq3_s", 256),
};
enum { N_CANDIDATES = sizeof candidates / sizeof candidates[0] };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool ready;
static kern_table global;

static bool allowed(unsigned needed, unsigned mask) {
  return (needed & ~mask) == 0;
}

static void fill_ref(kern_table *t) {
  t->pack[KA_F32] = kern_pack_f32_ref;
  t->pack[KA_F16] = kern_pack_f16_ref;
  t->pack[KA_BF16] = kern_pack_bf16_ref;
  t->pack[KA_Q8B32] = kern_pack_q8b32_ref;
  t->encode = kern_encode_ref;
  t->rmsnorm = kern_rmsnorm_ref;
  t->swiglu = kern_swiglu_ref;
  t->swiglu_clamped = kern_swiglu_clamped_ref;
  t->axpy = kern_axpy_ref;
  t->dot = kern_dot_ref;
  t->attn = kern_attn_ref;
  t->attn_merge = kern_attn_merge_ref;
  t->attn_fold = kern_attn_fold_ref;
  t->kv_store = kern_kv_store_ref;
  t->kv_load = kern_kv_load_ref;
  t->kv_unpack = kern_kv_unpack_ref;
}

#ifdef HF_X86
/* Packing to F32 is a copy: the reference's is as good as any. */
#define FILL(isa)                                  \
  do {                                             \
    t->pack[KA_F16] = kern_pack_f16_##isa;         \
    t->pack[KA_BF16] = kern_pack_bf16_##isa;       \
    t->pack[KA_Q8B32] = kern_pack_q8b32_##isa;     \
    t->rmsnorm = kern_rmsnorm_##isa;               \
    t->swiglu = kern_swiglu_##isa;                 \
    t->swiglu_clamped = kern_swiglu_clamped_##isa; \
    t->axpy = kern_axpy_##isa;                     \
    t->dot = kern_dot_##isa;                       \
    t->attn = kern_attn_##isa;                     \
    t->attn_merge = kern_attn_merge_##isa;         \
    t->attn_fold = kern_attn_fold_##isa;           \
    t->kv_store = kern_kv_store_##isa;             \
    t->kv_load = kern_kv_load_##isa;               \
    t->kv_unpack = kern_kv_unpack_##isa;           \
  } while (0)

static void fill_x86(kern_table *t) {
  if (!allowed(AVX2, t->isa)) return;
  FILL(avx2);
  t->encode = kern_encode_avx2; /* wider registers gain nothing: see encode.inc */
  if (!allowed(AVX512, t->isa)) return;
  FILL(avx512);
  if (!allowed(VNNI, t->isa)) return;
  t->attn = kern_attn_avx512vnni;
  t->attn_merge = kern_attn_merge_avx512vnni;
}
#else
static void fill_x86(kern_table *t) {
  (void)t;
}
#endif

/* isa_name outlives the table: one string per combination of the bits that a name shows. */
static const char *name_of(unsigned mask) {
  static char text[64][32];
  char *out = text[mask & 63u];
  isa_name(mask, out, sizeof text[0]);
  return out;
}

static hf_status table_for_locked(unsigned mask, kern_table *out) {
  if (!allowed(mask, kern_isa_detected())) {
    char wanted[32], have[32];
    isa_name(mask, wanted, sizeof wanted);
    isa_name(kern_isa_detected(), have, sizeof have);
    return hf_fail(HF_UNSUPPORTED, "instruction set %s: this machine has %s only; leave HF_ISA unset", wanted, have);
  }
  memset(out, 0, sizeof *out);
  out->isa = mask;
  out->isa_name = name_of(mask);
  fill_ref(out);
  fill_x86(out);
  return HF_OK;
}

hf_status kern_table_for(unsigned isa_mask, kern_table *out) {
  pthread_mutex_lock(&lock);
  hf_status st = table_for_locked(isa_mask, out);
  pthread_mutex_unlock(&lock);
  return st;
}

hf_status kern_init(const char *mask_name) {
  const char *name = mask_name ? mask_name : getenv("HF_ISA");
  hf_status st = HF_OK;
  pthread_mutex_lock(&lock);
  if (!ready) {
    unsigned mask = kern_isa_detected();
    if (name && *name) st = kern_isa_parse(name, &mask);
    if (st == HF_OK) st = table_for_locked(mask, &global);
    ready = st == HF_OK;
  }
  pthread_mutex_unlock(&lock);
  return st;
}

const kern_table *kern_get(void) {
  return &global;
}

int kern_mm_candidates(unsigned isa_mask, kern_format f, kern_act a, const kern_mm_candidate **out, int max) {
  int n = 0;
  for (int i = 0; i < N_CANDIDATES; i++) {
    const kern_mm_candidate *c = &candidates[i];
    if (c->format != f || c->act != a || !allowed(c->isa, isa_mask)) continue;
    if (n < max) out[n] = c;
    n++;
  }
  return n;
}

static bool accepts(const kern_mm_candidate *c, kern_layout l, int n_cols, int n_tok) {
  return c->layout == l && n_cols % c->col_multiple == 0 && (c->max_tok == 0 || n_tok <= c->max_tok) && n_tok >= c->min_tok;
}

#if defined(HF_X86) && defined(HF_HAVE_DNNL)
const char *kern_library_state(void) {
  return gemm_state(global.isa);
}

static bool library_accepts(const kern_mm_candidate *c, int n_cols) {
  return kern_onednn_accepts(c->fn, n_cols);
}
#else
const char *kern_library_state(void) {
  return "oneDNN not found when this was built (Debian: libdnnl-dev)";
}

static bool library_accepts(const kern_mm_candidate *c, int n_cols) {
  (void)c, (void)n_cols;
  return false;
}
#endif

const kern_mm_candidate *kern_mm_pick(kern_format f, kern_act a, kern_layout l, int n_cols, int n_tok, const char *preferred) {
  const kern_mm_candidate *first = NULL;
  for (int i = 0; i < N_CANDIDATES; i++) {
    const kern_mm_candidate *c = &candidates[i];
    if (c->format != f || c->act != a || !allowed(c->isa, global.isa) || !accepts(c, l, n_cols, n_tok)) continue;
    if (c->library && (!preferred || strcmp(c->name, preferred) || !library_accepts(c, n_cols))) continue;
    if (!preferred) return c;
    if (strcmp(c->name, preferred) == 0) return c;
    if (!first) first = c;
  }
  return first;
}

kern_layout kern_best_layout(kern_format f, kern_act a, int n_cols) {
  for (int i = 0; i < N_CANDIDATES; i++) {
    const kern_mm_candidate *c = &candidates[i];
    if (c->format == f && c->act == a && !c->library && allowed(c->isa, global.isa) && n_cols % c->col_multiple == 0)
      return c->isa == SCALAR ? KL_ROWS : c->layout;
  }
  return KL_ROWS;
}

enum { MAX_PREFERENCES = 64 };
static struct {
  kern_use use;
  kern_format format;
  int tokens_lo, tokens_hi;
  const char *name;
} preference[MAX_PREFERENCES];
static int n_preferences;

hf_status kern_prefer(kern_use use, kern_format f, int tokens_lo, int tokens_hi, const char *candidate) {
  for (int i = 0; i < N_CANDIDATES; i++) {
    const kern_mm_candidate *c = &candidates[i];
    if (c->format != f || !allowed(c->isa, global.isa) || strcmp(c->name, candidate)) continue;
    if (c->library) HF_TRY(selfcheck_candidate(c));
    if (n_preferences == MAX_PREFERENCES) return hf_fail(HF_INPUT, "more than %d choices of kernels", (int)MAX_PREFERENCES);
    preference[n_preferences].use = use;
    preference[n_preferences].format = f;
    preference[n_preferences].tokens_lo = tokens_lo;
    preference[n_preferences].tokens_hi = tokens_hi;
    preference[n_preferences++].name = c->name;
    return HF_OK;
  }
  return hf_fail(HF_NOT_FOUND, "this machine has no kernel '%.40s' for %s", candidate, kern_format_name(f));
}

void kern_forget(void) {
  n_preferences = 0;
}

const char *kern_preferred(kern_use use, kern_format f, int n_tok) {
  for (int i = 0; i < n_preferences; i++)
    if (preference[i].use == use && preference[i].format == f && n_tok >= preference[i].tokens_lo &&
        n_tok <= preference[i].tokens_hi)
      return preference[i].name;
  return NULL;
}
