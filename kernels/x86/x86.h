/* x86.h: the AVX2 and AVX-512 variants; private to kernels. Plain C: the bodies alone include immintrin.h. */
#ifndef HF_KERNELS_X86_H
#define HF_KERNELS_X86_H

#include "kernels/kernels.h"

#endif
