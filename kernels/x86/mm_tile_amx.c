/* Products of all formats in tiles with AMX, for many tokens: tile/mm_amx.inc. */
#define TV_AMX
#define TV_MM(format) kern_mm_tile_##format##_amx
#include <stdbool.h>

#include "kernels/x86/amx.h"
#include "kernels/x86/tile/tv_avx512vnni.h"

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
