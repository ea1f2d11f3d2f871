/* argmax.cu: the most likely token of each row of logits. 4 bytes a logit; limit: the memory's bandwidth for many rows, one block's loads for one
 * (128K logits: 0.5 MB). */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

enum { ARGMAX_THREADS = 512, ARGMAX_WARPS = ARGMAX_THREADS / WARP };

/* Larger, or as large and lower. */
static __device__ __forceinline__ void better(float v, int i, float *best, int *at) {
  if (v > *best || (v == *best && i < *at)) *best = v, *at = i;
}

static __global__ __launch_bounds__(ARGMAX_THREADS) void argmax_rows(hfc_argmax a) {
  __shared__ float most[ARGMAX_WARPS];
  __shared__ int where[ARGMAX_WARPS];
  const int t = (int)blockIdx.x;
  if (a.count && t >= *a.count) return;
  const float *x = a.logits + (size_t)t * a.stride;
  float best = -INFINITY;
  int at = a.n;
  for (int i = (int)threadIdx.x; i < a.n; i += ARGMAX_THREADS) better(x[i], i, &best, &at);
  for (int by = WARP / 2; by > 0; by /= 2) {
    const float v = __shfl_xor_sync(ALL_LANES, best, by);
    const int i = __shfl_xor_sync(ALL_LANES, at, by);
    better(v, i, &best, &at);
  }
  if (threadIdx.x % WARP == 0) most[threadIdx.x / WARP] = best, where[threadIdx.x / WARP] = at;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < ARGMAX_WARPS; w++) better(most[w], where[w], &best, &at);
  a.ids[t] = at < a.n ? at : 0;
}

extern "C" int hfc_argmax_rows(const hfc_argmax *a, void *stream) {
  if (a->n_tok < 1 || a->n < 1) return HFC_INVALID;
  return HFC_LAUNCH(argmax_rows, dim3((unsigned)a->n_tok), dim3(ARGMAX_THREADS), 0, stream, *a);
}
