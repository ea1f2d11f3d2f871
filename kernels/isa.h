/* isa.h: names of instruction sets; private to kernels. */
#ifndef HF_KERNELS_ISA_H
#define HF_KERNELS_ISA_H

#include "kernels/kernels.h"

/* "avx512+vnni+bf16" into out; kern_isa_parse() reads it back. */
void isa_name(unsigned mask, char *out, size_t cap);

#endif
