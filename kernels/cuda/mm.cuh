/* mm.cuh: the products of 1 to 8 tokens with weights in tiles of 16 rows; each format's file says how a lane takes its weights apart.
 *
 * A block computes one tile. Of a warp, lane l has row l % 16 and half l / 16 of the words of a step, so a load of 4 bytes a lane is two runs of 64
 * consecutive bytes; weights are read once, from memory to registers, and never stored. Steps go round the warps; each adds into f32
 * per row and token, then halves by one shuffle and warps in order through shared memory. A token's sums are the same operations however many
 * tokens there are.
 *
 * Bytes moved: the weights once, n_tok packed rows from the second cache per tile (read again by each of n_rows / 16 blocks), results. Limit: the
 * memory's bandwidth, for 8 tokens and weights of 4 bits the second cache's. */
#ifndef HF_KERNELS_CUDA_MM_CUH
#define HF_KERNELS_CUDA_MM_CUH

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ops.h"

enum { MM_WARPS = 4 };

/* A token's packed activations, Q8B32 (layouts.h). */
struct act_q8 {
  const char *q;
  const float *d, *less; /* scales; scale times minus the sum, per 32 */
  const int *n32, *n16;  /* minus the sums per 32 and per 16 */

  static __device__ __forceinline__ size_t up(size_t n, size_t to) {
    return (n + to - 1) / to * to;
  }
  static __device__ __forceinline__ act_q8 at(const void *x, int n_cols) {
    const size_t blocks = (size_t)(n_cols + 31) / 32, d = up(blocks * 32, 256), n32 = d + up(blocks * 4, 64),
                 n16 = n32 + up(blocks * 4, 64), less = n16 + up(blocks * 8, 64);
    const char *p = (const char *)x;
    return act_q8{p, (const float *)(p + d), (const float *)(p + less), (const int *)(p + n32), (const int *)(p + n16)};
  }
  /* Four of them, from column c on. */
  __device__ __forceinline__ int four(int c) const {
    return *(const int *)(q + c);
  }
};

/* Two numbers of 16 bits a word. */
struct act_pairs {
  const char *p;
  static __device__ __forceinline__ act_pairs at(const void *x, int) {
    return act_pairs{(const char *)x};
  }
  __device__ __forceinline__ uint32_t two(int c) const {
    return *(const uint32_t *)(p + 2 * (size_t)c);
  }
};

/* The lane's place in a tile: its row of 4-byte words and its half. */
struct mm_lane {
  const uint8_t *tile; /* of the tile's first byte */
  int row, half;
  __device__ __forceinline__ uint32_t word(size_t at) const { /* of 16 words from byte `at` on */
    return load_weights(tile + at + 4 * row);
  }
  __device__ __forceinline__ float f16(size_t at) const {
    return f32_of_f16(*(const uint16_t *)(tile + at + 2 * row));
  }
  __device__ __forceinline__ int byte(size_t at) const {
    return tile[at + row];
  }
};

/* F: Act, steps(n_cols), row_bytes(n_cols), and add<T>(lane, step, n_cols, x[T], sum[T]). */
template <class F, int T> static __global__ __launch_bounds__(MM_WARPS *WARP) void mm_tile(hfc_mm a) {
  __shared__ float part[MM_WARPS][T][TILE];
  const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP;
  const int n_tok = a.count && *a.count < a.n_tok ? *a.count : a.n_tok;
  const size_t row_bytes = F::row_bytes(a.n_cols);
  const mm_lane at = {(const uint8_t *)a.w + (size_t)blockIdx.x * TILE * row_bytes, lane % TILE, lane / TILE};
  typename F::Act x[T];
  float sum[T];
#pragma unroll
  for (int t = 0; t < T; t++) {
    x[t] = F::Act::at((const char *)a.x + (size_t)(t < n_tok ? t : 0) * a.x_bytes, a.n_cols);
    sum[t] = 0;
  }
  const int steps = F::steps(a.n_cols);
  for (int s = warp; s < steps; s += MM_WARPS) F::template add<T>(at, s, a.n_cols, x, sum);
#pragma unroll
  for (int t = 0; t < T; t++) {
    sum[t] += __shfl_xor_sync(ALL_LANES, sum[t], TILE);
    if (lane < TILE) part[warp][t][lane] = sum[t];
  }
  __syncthreads();
  for (int i = (int)threadIdx.x; i < T * TILE; i += MM_WARPS * WARP) {
    const int t = i / TILE, r = (int)blockIdx.x * TILE + i % TILE;
    if (t >= n_tok || r >= a.n_rows) continue;
    float v = part[0][t][i % TILE];
    for (int w = 1; w < MM_WARPS; w++) v += part[w][t][i % TILE];
    float *y = a.y + (size_t)t * a.y_stride + r;
    if (a.bias) v += a.bias[r];
    *y = a.add ? *y + v : v;
  }
}

/* The smallest of 1, 2, 4 and 8 tokens that serves them. */
template <class F> static int mm_launch(const hfc_mm *a, int col_multiple, void *stream) {
  if (a->n_rows <= 0 || a->n_cols <= 0 || a->n_cols % col_multiple || a->n_tok < 1 || a->n_tok > HFC_MM_TOKENS)
    return HFC_UNSUPPORTED;
  const dim3 grid((unsigned)(a->n_rows + TILE - 1) / TILE), block(MM_WARPS * WARP);
  if (a->n_tok == 1) return HFC_LAUNCH((mm_tile<F, 1>), grid, block, 0, stream, *a);
  if (a->n_tok == 2) return HFC_LAUNCH((mm_tile<F, 2>), grid, block, 0, stream, *a);
  if (a->n_tok <= 4) return HFC_LAUNCH((mm_tile<F, 4>), grid, block, 0, stream, *a);
  return HFC_LAUNCH((mm_tile<F, 8>), grid, block, 0, stream, *a);
}

/* Sixteen values by nibbles: byte i of low is value[nibble below in byte i of w], of high the one above. values: 16 int8, four words. */
static __device__ __forceinline__ void look_up(uint32_t w, const uint32_t values[4], int *low, int *high) {
  uint32_t two[2];
#pragma unroll
  for (int i = 0; i < 2; i++, w >>= 16) {
    const uint32_t a = __byte_perm(values[0], values[1], w & 0x7777u), b = __byte_perm(values[2], values[3], w & 0x7777u);
    two[i] = __byte_perm(a, b, 0x3210u | (w & 0x8888u) >> 1);
  }
  *low = (int)__byte_perm(two[0], two[1], 0x6420u);
  *high = (int)__byte_perm(two[0], two[1], 0x7531u);
}
#endif
