/* mm_six_bits.cuh: Q4_K and Q5_K: f16 scale and minimum of a block of 256, 8 pairs of six bits that they are multiplied with, in 12 bytes. A step
 * is a quarter of a block: two groups of 32, which share 8 words of nibbles, of which half h of the lanes has words 4h to 4h + 3. The minimum of
 * the first group is half 0's, of the second half 1's. */
#ifndef HF_KERNELS_CUDA_MM_SIX_BITS_CUH
#define HF_KERNELS_CUDA_MM_SIX_BITS_CUH

#include "kernels/cuda/mm.cuh"

/* B: BYTES; load(at, from, quarter, k, low, high): words k as weights of both groups. */
template <class B> struct six_bits {
  typedef act_q8 Act;
  static __device__ __forceinline__ size_t row_bytes(int n_cols) {
    return (size_t)(n_cols / 256) * B::BYTES;
  }
  static __device__ __forceinline__ int steps(int n_cols) {
    return n_cols / 64;
  }
  static __device__ __forceinline__ void pair(const mm_lane &at, size_t from, int g, int *scale, int *least) {
    if (g < 4) {
      *scale = at.byte(from + TILE * (size_t)g) & 63;
      *least = at.byte(from + TILE * (size_t)(g + 4)) & 63;
    } else {
      const int both = at.byte(from + TILE * (size_t)(g + 4));
      *scale = (both & 15) | at.byte(from + TILE * (size_t)(g - 4)) >> 6 << 4;
      *least = both >> 4 | at.byte(from + TILE * (size_t)g) >> 6 << 4;
    }
  }
  template <int T> static __device__ __forceinline__ void add(const mm_lane &at, int s, int, const act_q8 *x, float *sum) {
    const int quarter = s % 4;
    const size_t from = (size_t)(s / 4) * TILE * B::BYTES;
    int low[4], high[4], scale[2], least[2];
#pragma unroll
    for (int i = 0; i < 4; i++) B::load(at, from, quarter, 4 * at.half + i, &low[i], &high[i]);
    pair(at, from + 64, 2 * quarter, &scale[0], &least[0]);
    pair(at, from + 64, 2 * quarter + 1, &scale[1], &least[1]);
    const float d = at.f16(from), first = d * (float)scale[0], second = d * (float)scale[1],
                min = at.f16(from + 32) * (float)least[at.half];
#pragma unroll
    for (int t = 0; t < T; t++) {
      const int c = 64 * s + 16 * at.half, b = 2 * s;
      int a = 0, o = 0;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        a = __dp4a(low[i], x[t].four(c + 4 * i), a);
        o = __dp4a(high[i], x[t].four(c + 32 + 4 * i), o);
      }
      sum[t] = fmaf((float)a, first * x[t].d[b], sum[t]);
      sum[t] = fmaf((float)o, second * x[t].d[b + 1], sum[t]);
      sum[t] = fmaf(min, x[t].less[b + at.half], sum[t]);
    }
  }
};
#endif
