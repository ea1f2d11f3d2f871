/* mm_fp8.cu: products with FP8 (E4M3) in blocks of 128 with an f32 scale. 132 bytes for 128 weights; limit: the memory's bandwidth. A step is 32
 * columns of a block, half h of the lanes has words 4h to 4h + 3 of 8. A block with a NaN has a NaN for its scale (layouts.h). */
#include "kernels/cuda/group.cuh"
#include "kernels/cuda/mm.cuh"

struct fp8 {
  typedef act_pairs Act;
  static __device__ __forceinline__ size_t row_bytes(int n_cols) {
    return (size_t)n_cols + (size_t)((n_cols + 127) / 128) * 4;
  }
  static __device__ __forceinline__ int steps(int n_cols) {
    return (n_cols + 31) / 32;
  }
  template <int T>
  static __device__ __forceinline__ void add(const mm_lane &at, int s, int n_cols, const act_pairs *x, float *sum) {
    const int c = 32 * s + 16 * at.half, n = n_cols - c >= 16 ? 4 : n_cols > c ? (n_cols - c) / 4 : 0;
    const size_t from = (size_t)(s / 4) * TILE * 132, words = from + 4 * TILE + (size_t)(c % 128) * TILE;
    const float scale = __uint_as_float(at.word(from));
    uint32_t w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = i < n ? at.word(words + 64 * (size_t)i) : 0;
#pragma unroll
    for (int t = 0; t < T; t++) {
      float dot = 0;
#pragma unroll
      for (int i = 0; i < 4; i++) {
        if (i >= n) continue;
        const uint32_t a = x[t].two(c + 4 * i), b = x[t].two(c + 4 * i + 2);
        dot = fmaf(f32_of_e4m3(w[i]), f32_of_bf16_low(a), dot);
        dot = fmaf(f32_of_e4m3(w[i] >> 8), f32_of_bf16_high(a), dot);
        dot = fmaf(f32_of_e4m3(w[i] >> 16), f32_of_bf16_low(b), dot);
        dot = fmaf(f32_of_e4m3(w[i] >> 24), f32_of_bf16_high(b), dot);
      }
      sum[t] = fmaf(dot, scale, sum[t]);
    }
  }
};

extern "C" int hfc_mm_fp8(const hfc_mm *a, void *stream) {
  return mm_launch<fp8>(a, 4, stream);
}

extern "C" int hfc_group_fp8(const hfc_group *a, void *stream) {
  return group_launch<fp8>(a, 4, stream);
}
