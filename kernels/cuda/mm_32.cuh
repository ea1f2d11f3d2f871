/* mm_32.cuh: formats in blocks of 32: one step is a block. Of 16 bytes of nibbles, byte j holds weight j below and weight 16 + j above; half h of
 * the lanes has words 2h and 2h + 1. F32 sums get scale * d_x * (exact integer of the lane's 16 weights), the same as the contract's group sum but
 * for the rounding of one addition. */
#ifndef HF_KERNELS_CUDA_MM_32_CUH
#define HF_KERNELS_CUDA_MM_32_CUH

#include "kernels/cuda/mm.cuh"

/* B: BYTES of a block, WORDS: where its words begin in a block of 16 rows; load(): what a lane needs once a block; take(): four weights below and
 * above of word k; correct(): what is added to the exact sum, of half 0 alone. */
template <class B> struct blocks_32 {
  typedef act_q8 Act;
  static __device__ __forceinline__ size_t row_bytes(int n_cols) {
    return (size_t)(n_cols / 32) * B::BYTES;
  }
  static __device__ __forceinline__ int steps(int n_cols) {
    return n_cols / 32;
  }
  template <int T> static __device__ __forceinline__ void add(const mm_lane &at, int s, int, const act_q8 *x, float *sum) {
    const size_t from = (size_t)s * TILE * B::BYTES;
    const B b(at, from);
    int low[2], high[2];
#pragma unroll
    for (int i = 0; i < 2; i++)
      b.take(at.word(from + B::WORDS + 64 * (size_t)(2 * at.half + i)), 2 * at.half + i, &low[i], &high[i]);
#pragma unroll
    for (int t = 0; t < T; t++) {
      const int c = 32 * s + 8 * at.half;
      int dot = at.half ? 0 : B::SHIFT * x[t].n32[s];
#pragma unroll
      for (int i = 0; i < 2; i++) dot = __dp4a(high[i], x[t].four(c + 16 + 4 * i), __dp4a(low[i], x[t].four(c + 4 * i), dot));
      sum[t] = fmaf((float)dot, b.scale * x[t].d[s], sum[t]);
      if (B::MIN && at.half == 0)
        sum[t] = fmaf(b.least, x[t].less[s], sum[t]); /* least: minus the number that is added to each weight */
    }
  }
};
#endif
