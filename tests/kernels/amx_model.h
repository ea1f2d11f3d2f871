/* amx_model.h: the AMX kernels compiled with the model of the tile instructions (amx_instructions.h) in their place: once with AVX2 around it
 * and once with AVX-512, so that they are checked on any machine. */
#ifndef HF_TESTS_KERNELS_AMX_MODEL_H
#define HF_TESTS_KERNELS_AMX_MODEL_H

#include "check.h"

#define AMX_MODEL_PRODUCTS(isa)                                                                                            \
  kern_mm_fn amx_model_q8_0_##isa, amx_model_q4_0_##isa, amx_model_q4_1_##isa, amx_model_q5_0_##isa, amx_model_q5_1_##isa, \
      amx_model_iq4_nl_##isa, amx_model_int4_##isa, amx_model_mxfp4_##isa, amx_model_q4_k_##isa, amx_model_q5_k_##isa,     \
      amx_model_q6_k_##isa, amx_model_q3_k_##isa, amx_model_q2_k_##isa, amx_model_iq4_xs_##isa, amx_model_bf16_##isa,      \
      amx_model_fp8_##isa;
AMX_MODEL_PRODUCTS(avx2)
AMX_MODEL_PRODUCTS(avx512)
#undef AMX_MODEL_PRODUCTS

#endif
