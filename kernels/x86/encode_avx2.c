/* encode_avx2.c: from numbers to blocks with AVX2: see encode.inc. */
#include "kernels/ref/encode.inc"
#include "kernels/x86/x86.h"

void kern_encode_avx2(kern_format f, const float *x, int n_cols, void *row) {
  encode_row(f, x, n_cols, row);
}
