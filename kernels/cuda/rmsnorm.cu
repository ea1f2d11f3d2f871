/* rmsnorm.cu: RMS norm of rows or of heads, and the rounding of what comes out for the products that follow, in one pass over registers and caches.
 * 4 bytes read, 4 written, 1.3 of packed ones; limit: latency of a launch at decode. A block has one vector; its sum is in a fixed order. */
#include "kernels/cuda/pack.cuh"

enum { NORM_THREADS = 256 };

static __global__ __launch_bounds__(NORM_THREADS) void rmsnorm_rows(hfc_rmsnorm a) {
  __shared__ float room[NORM_THREADS / WARP + 1];
  const int t = (int)blockIdx.x, h = (int)blockIdx.y;
  if (a.count && t >= *a.count) return;
  const float *x = a.x + (size_t)t * a.x_stride + (size_t)h * a.head_stride, *w = a.w;
  float sum = 0;
  for (int i = (int)threadIdx.x; i < a.n; i += NORM_THREADS) sum = fmaf(x[i], x[i], sum);
  sum = block_sum(sum, room, NORM_THREADS / WARP);
  const float by = 1.0f / sqrtf(sum / (float)a.n + a.eps);
  if (a.packed) pack_row(a.act, a.n, (char *)a.packed + (size_t)t * a.packed_bytes, [=](int i) { return x[i] * by * w[i]; });
  if (!a.y) return;
  __syncthreads(); /* y may be x */
  float *y = a.y + (size_t)t * a.y_stride + (size_t)h * a.head_stride;
  for (int i = (int)threadIdx.x; i < a.n; i += NORM_THREADS) y[i] = x[i] * by * w[i];
}

extern "C" int hfc_rmsnorm_rows(const hfc_rmsnorm *a, void *stream) {
  if (a->n_tok < 1 || a->n < 1 || a->heads < 1 || (a->packed && (a->heads != 1 || a->act < HFC_F32 || a->act > HFC_Q8B32)))
    return HFC_INVALID;
  return HFC_LAUNCH(rmsnorm_rows, dim3((unsigned)a->n_tok, (unsigned)a->heads), dim3(NORM_THREADS), 0, stream, *a);
}
