/* mm_pairs.cuh: BF16 and F16: words of two columns; a step is 32 columns, half h of the lanes has words 8h to 8h + 7. */
#ifndef HF_KERNELS_CUDA_MM_PAIRS_CUH
#define HF_KERNELS_CUDA_MM_PAIRS_CUH

#include "kernels/cuda/mm.cuh"

/* N: low(word), high(word): the two numbers as f32. */
template <class N> struct pairs {
  typedef act_pairs Act;
  static __device__ __forceinline__ size_t row_bytes(int n_cols) {
    return (size_t)n_cols * 2;
  }
  static __device__ __forceinline__ int steps(int n_cols) {
    return (n_cols + 31) / 32;
  }
  template <int T>
  static __device__ __forceinline__ void add(const mm_lane &at, int s, int n_cols, const act_pairs *x, float *sum) {
    const int c = 32 * s + 16 * at.half, n = n_cols - c >= 16 ? 8 : n_cols > c ? (n_cols - c) / 2 : 0;
    uint32_t w[8];
#pragma unroll
    for (int i = 0; i < 8; i++) w[i] = i < n ? at.word((size_t)(c + 2 * i) * 2 * TILE) : 0;
#pragma unroll
    for (int t = 0; t < T; t++) {
#pragma unroll
      for (int i = 0; i < 8; i++) {
        if (i >= n) continue;
        const uint32_t v = x[t].two(c + 2 * i);
        sum[t] = fmaf(N::low(w[i]), N::low(v), sum[t]);
        sum[t] = fmaf(N::high(w[i]), N::high(v), sum[t]);
      }
    }
  }
};
#endif
