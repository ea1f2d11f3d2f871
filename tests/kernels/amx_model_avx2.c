/* The AMX kernels with the model of the tile instructions and AVX2 around it. */
#define TV_AMX
#define TV_MM(format) amx_model_##format##_avx2
#define PA_MM(format) amx_model_##format##_avx2
#include <stdbool.h>

#include "amx_instructions.h"
#include "amx_model.h"
#include "kernels/x86/tile/tv_avx2.h"

#include "kernels/x86/tile/q8_0.inc"
#include "kernels/x86/tile/q4_0.inc"
#include "kernels/x86/tile/q4_1.inc"
#include "kernels/x86/tile/q5_0.inc"
#include "kernels/x86/tile/q5_1.inc"
#include "kernels/x86/tile/iq4_nl.inc"
#include "kernels/x86/tile/int4.inc"
#include "kernels/x86/tile/mxfp4.inc"
#include "kernels/x86/tile/q4_k.inc"
#include "kernels/x86/tile/q5_k.inc"
#include "kernels/x86/tile/q6_k.inc"
#include "kernels/x86/tile/q3_k.inc"
#include "kernels/x86/tile/q2_k.inc"
#include "kernels/x86/tile/iq4_xs.inc"
#include "kernels/x86/mm_pairs_amx.c"
