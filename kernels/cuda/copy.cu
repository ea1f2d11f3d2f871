/* copy.cu: rows from one place to another, chosen by index or added. 8 bytes a number, 12 where added; rows of the host go over the link, whose
 * bandwidth limits them; else latency of a launch. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

static __global__ __launch_bounds__(256) void copy_rows(hfc_copy a) {
  const int t = (int)blockIdx.y, i = (int)(blockIdx.x * 256 + threadIdx.x);
  if (i >= a.n || (a.count && t >= *a.count)) return;
  const float v = a.x[(size_t)(a.from ? a.from[t] : t) * a.x_stride + (size_t)i];
  float *y = a.y + (size_t)t * a.y_stride + i;
  *y = a.add ? *y + v : v;
}

extern "C" int hfc_copy_rows(const hfc_copy *a, void *stream) {
  if (a->n_tok < 1 || a->n < 1) return HFC_INVALID;
  return HFC_LAUNCH(copy_rows, dim3((unsigned)(a->n + 255) / 256, (unsigned)a->n_tok), dim3(256), 0, stream, *a);
}
