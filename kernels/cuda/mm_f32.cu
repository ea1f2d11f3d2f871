/* mm_f32.cu: products with F32 in rows (routers): a warp a row, columns in lanes. 4 bytes a weight; limit: the memory's bandwidth, for a router's few
 * hundred rows latency of a launch. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

enum { ROW_WARPS = 4 };

template <int T> static __global__ __launch_bounds__(ROW_WARPS *WARP) void mm_rows_f32(hfc_mm a) {
  const int lane = (int)threadIdx.x % WARP, r = (int)blockIdx.x * ROW_WARPS + (int)threadIdx.x / WARP;
  const int n_tok = a.count && *a.count < a.n_tok ? *a.count : a.n_tok;
  if (r >= a.n_rows) return;
  const float *w = (const float *)a.w + (size_t)r * (size_t)a.n_cols;
  float sum[T] = {0};
  for (int c = lane; c < a.n_cols; c += WARP) {
    const float v = w[c];
#pragma unroll
    for (int t = 0; t < T; t++)
      sum[t] = fmaf(v, ((const float *)((const char *)a.x + (size_t)(t < n_tok ? t : 0) * a.x_bytes))[c], sum[t]);
  }
#pragma unroll
  for (int t = 0; t < T; t++) {
    float v = warp_sum(sum[t]);
    if (lane != 0 || t >= n_tok) continue;
    float *y = a.y + (size_t)t * a.y_stride + r;
    if (a.bias) v += a.bias[r];
    *y = a.add ? *y + v : v;
  }
}

extern "C" int hfc_mm_f32(const hfc_mm *a, void *stream) {
  if (a->n_rows <= 0 || a->n_cols <= 0 || a->n_tok < 1 || a->n_tok > HFC_MM_TOKENS) return HFC_UNSUPPORTED;
  const dim3 grid((unsigned)(a->n_rows + ROW_WARPS - 1) / ROW_WARPS), block(ROW_WARPS * WARP);
  return a->n_tok == 1 ? HFC_LAUNCH((mm_rows_f32<1>), grid, block, 0, stream, *a)
                       : HFC_LAUNCH((mm_rows_f32<HFC_MM_TOKENS>), grid, block, 0, stream, *a);
}
