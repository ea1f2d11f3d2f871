/* experts_sum.cu: what the experts of a token gave, weighted, in ascending order of experts. top_k * 4 bytes a number read; limit: latency of a
 * launch. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

static __global__ __launch_bounds__(256) void experts_sum(hfc_experts_sum_of a) {
  const int t = (int)blockIdx.y, j = (int)(blockIdx.x * 256 + threadIdx.x);
  if (j >= a.n || (a.count && t >= *a.count)) return;
  const int32_t *pair_of =
      a.lists + 3 + 2 * (size_t)a.n_experts + (size_t)a.n_tok * (size_t)a.top_k + (size_t)t * (size_t)a.top_k;
  float *out = a.out + (size_t)t * a.out_stride + j, sum = a.add ? *out : 0;
  for (int k = 0; k < a.top_k; k++)
    if (pair_of[k] >= 0) sum = fmaf(a.weights[t * a.top_k + k], a.part[(size_t)pair_of[k] * a.part_stride + (size_t)j], sum);
  *out = sum;
}

extern "C" int hfc_experts_sum(const hfc_experts_sum_of *a, void *stream) {
  if (a->n_tok < 1 || a->n < 1 || a->top_k < 1) return HFC_INVALID;
  return HFC_LAUNCH(experts_sum, dim3((unsigned)(a->n + 255) / 256, (unsigned)a->n_tok), dim3(256), 0, stream, *a);
}
