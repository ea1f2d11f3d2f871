/* blocks.c: which decoder belongs to which format. */
#include "kernels/ref/blocks.h"

const ref_blocks *ref_blocks_of(kern_format f) {
  static const ref_blocks
      none = {NULL, 1, false},
      all[KF_N] = {
          [KF_Q8_0] = {ref_q8_0, 32, false},   [KF_Q4_0] = {ref_q4_0, 32, false},       [KF_Q4_1] = {ref_q4_1, 32, true},
          [KF_Q5_0] = {ref_q5_0, 32, false},   [KF_Q5_1] = {ref_q5_1, 32, true},        [KF_Q2_K] = {ref_q2_k, 16, true},
          [KF_Q3_K] = {ref_q3_k, 16, false},   [KF_Q4_K] = {ref_q4_k, 32, true},        [KF_Q5_K] = {ref_q5_k, 32, true},
          [KF_Q6_K] = {ref_q6_k, 16, false},   [KF_IQ4_NL] = {ref_iq4_nl, 32, false},   [KF_IQ4_XS] = {ref_iq4_xs, 32, false},
          [KF_MXFP4] = {ref_mxfp4, 32, false}, [KF_NVFP4] = {ref_nvfp4, 16, false},     [KF_INT4] = {ref_int4, 32, false},
          [KF_TQ1_0] = {ref_tq1_0, 32, false}, [KF_TQ2_0] = {ref_tq2_0, 32, false},     [KF_IQ1_S] = {ref_iq1_s, 32, false},
          [KF_IQ1_M] = {ref_iq1_m, 16, false}, [KF_IQ2_XXS] = {ref_iq2_xxs, 32, false}, [KF_IQ2_XS] = {ref_iq2_xs, 16, false},
          [KF_IQ2_S] = {ref_iq2_s, 16, false}, [KF_IQ3_XXS] = {ref_iq3_xxs, 32, false}, [KF_IQ3_S] = {ref_iq3_s, 32, false},
      };
  return (unsigned)f < KF_N ? &all[f] : &none;
}
