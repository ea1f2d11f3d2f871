/* group.cuh: products of many experts in one launch: block (tile of 16 rows, i-th active expert) computes that tile for all the expert's tokens, T
 * at a time; the lists of hfc_experts_lists say which. Gated: gate and up products of a token together and their SwiGLU, so hidden
 * activations are written once; else the down product of a pair (token, expert).
 *
 * Bytes moved: weights of each expert that a token chose once (again for each further T tokens of it), packed rows from the second cache. Limit: the
 * memory's bandwidth. */
#ifndef HF_KERNELS_CUDA_GROUP_CUH
#define HF_KERNELS_CUDA_GROUP_CUH

#include "kernels/cuda/mm.cuh"

struct group_lists {
  const int32_t *n_active, *active, *first, *pair_tok;
  static __device__ __forceinline__ group_lists at(const int32_t *lists, int n_experts) {
    return group_lists{lists, lists + 2, lists + 2 + n_experts, lists + 3 + 2 * (size_t)n_experts};
  }
};

/* Plain, or gpt-oss's with a limit (kern_table.swiglu_clamped). */
static __device__ __forceinline__ float group_swiglu(float g, float u, float limit) {
  if (!(limit > 0)) return g / (1.0f + expf(-g)) * u;
  g = g > limit ? limit : g;
  u = u > limit ? limit : u < -limit ? -limit : u;
  return (u + 1.0f) * (g / (1.0f + expf(-1.702f * g)));
}

/* Sums of one tile for T activations, those of the block's warps in part. */
template <class F, int T>
static __device__ __forceinline__ void group_sums(const void *w, int n_cols, const typename F::Act *x, float (*part)[T][TILE]) {
  const int lane = (int)threadIdx.x % WARP, warp = (int)threadIdx.x / WARP, steps = F::steps(n_cols);
  const mm_lane at = {(const uint8_t *)w + (size_t)blockIdx.x * TILE * F::row_bytes(n_cols), lane % TILE, lane / TILE};
  float sum[T] = {0};
  for (int s = warp; s < steps; s += MM_WARPS) F::template add<T>(at, s, n_cols, x, sum);
#pragma unroll
  for (int t = 0; t < T; t++) {
    sum[t] += __shfl_xor_sync(ALL_LANES, sum[t], TILE);
    if (lane < TILE) part[warp][t][lane] = sum[t];
  }
}

template <int T> static __device__ __forceinline__ float group_total(const float (*part)[T][TILE], int t, int r) {
  float v = part[0][t][r];
  for (int w = 1; w < MM_WARPS; w++) v += part[w][t][r];
  return v;
}

template <class F, int T, bool GATED> static __global__ __launch_bounds__(MM_WARPS *WARP, 4) void mm_group(hfc_group a) {
  __shared__ float part[GATED ? 2 : 1][MM_WARPS][T][TILE];
  const group_lists l = group_lists::at(a.lists, a.n_experts);
  if ((int)blockIdx.y >= *l.n_active) return;
  const hfc_expert *e = a.experts + l.active[blockIdx.y];
  const int end = l.first[blockIdx.y + 1];
  for (int p0 = l.first[blockIdx.y]; p0 < end; p0 += T) {
    typename F::Act x[T];
#pragma unroll
    for (int t = 0; t < T; t++) {
      const int p = p0 + t < end ? p0 + t : p0;
      x[t] = F::Act::at((const char *)a.x + (size_t)(GATED ? l.pair_tok[p] : p) * a.x_bytes, a.n_cols);
    }
    group_sums<F, T>(GATED ? e->gate : e->down, a.n_cols, x, part[0]);
    if (GATED) group_sums<F, T>(e->up, a.n_cols, x, part[GATED ? 1 : 0]);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < T * TILE; i += MM_WARPS * WARP) {
      const int t = i / TILE, r = (int)blockIdx.x * TILE + i % TILE;
      if (p0 + t >= end || r >= a.n_rows) continue;
      float v = group_total<T>(part[0], t, i % TILE);
      const float *bias = GATED ? e->gate_bias : e->down_bias;
      if (bias) v += bias[r];
      if (GATED) {
        float u = group_total<T>(part[GATED ? 1 : 0], t, i % TILE);
        if (e->up_bias) u += e->up_bias[r];
        v = group_swiglu(v, u, a.limit);
      }
      a.y[(size_t)(p0 + t) * a.y_stride + (size_t)r] = v;
    }
    __syncthreads();
  }
}

template <class F> static int group_launch(const hfc_group *a, int col_multiple, void *stream) {
  if (a->n_rows <= 0 || a->n_cols <= 0 || a->n_cols % col_multiple || a->n_tok < 1) return HFC_UNSUPPORTED;
  const int most = a->n_tok * a->top_k < a->n_experts ? a->n_tok * a->top_k : a->n_experts;
  const dim3 grid((unsigned)(a->n_rows + TILE - 1) / TILE, (unsigned)most), block(MM_WARPS * WARP);
  if (a->n_tok == 1)
    return a->gated ? HFC_LAUNCH((mm_group<F, 1, true>), grid, block, 0, stream, *a)
                    : HFC_LAUNCH((mm_group<F, 1, false>), grid, block, 0, stream, *a);
  return a->gated ? HFC_LAUNCH((mm_group<F, 4, true>), grid, block, 0, stream, *a)
                  : HFC_LAUNCH((mm_group<F, 4, false>), grid, block, 0, stream, *a);
}
#endif
