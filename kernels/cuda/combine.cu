/* combine.cu: two rows to one: SwiGLU of gate and up, or a row by the sigmoid of one number. 12 or 8 bytes a number; limit: latency of a launch. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

static __global__ __launch_bounds__(256) void combine_rows(hfc_combine a) {
  const int t = (int)blockIdx.y, i = (int)(blockIdx.x * 256 + threadIdx.x);
  if (i >= a.n || (a.count && t >= *a.count)) return;
  const float *x2 = a.x2 + (size_t)t * a.x2_stride;
  const float x = a.x[(size_t)t * a.x_stride + (size_t)i];
  a.y[(size_t)t * a.y_stride + (size_t)i] = a.gate ? x * (1.0f / (1.0f + expf(-x2[0]))) : x / (1.0f + expf(-x)) * x2[i];
}

extern "C" int hfc_combine_rows(const hfc_combine *a, void *stream) {
  if (a->n_tok < 1 || a->n < 1) return HFC_INVALID;
  return HFC_LAUNCH(combine_rows, dim3((unsigned)(a->n + 255) / 256, (unsigned)a->n_tok), dim3(256), 0, stream, *a);
}
