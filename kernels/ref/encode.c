/* encode.c: from numbers to blocks in plain C: see encode.inc. */
#include "kernels/ref/encode.inc"
#include "kernels/ref/ref.h"

bool kern_can_encode(kern_format f) {
  switch (f) {
    case KF_F32:
    case KF_F16:
    case KF_BF16:
    case KF_Q8_0:
    case KF_Q4_0:
    case KF_Q4_1:
    case KF_Q5_0:
    case KF_Q5_1:
    case KF_IQ4_NL:
    case KF_Q2_K:
    case KF_Q3_K:
    case KF_Q4_K:
    case KF_Q5_K:
    case KF_Q6_K: return true;
    default: return false;
  }
}

void kern_encode_row(kern_format f, const float *x, int n_cols, void *row) {
  kern_get()->encode(f, x, n_cols, row);
}

void kern_encode_ref(kern_format f, const float *x, int n_cols, void *row) {
  encode_row(f, x, n_cols, row);
}
