/* mm_q8_0.cu: products with Q8_0: an f16 scale, 32 int8. 34 bytes for 32 weights; limit: the memory's bandwidth. */
#include "kernels/cuda/group.cuh"
#include "kernels/cuda/mm.cuh"

struct q8_0 {
  typedef act_q8 Act;
  static __device__ __forceinline__ size_t row_bytes(int n_cols) {
    return (size_t)(n_cols / 32) * 34;
  }
  static __device__ __forceinline__ int steps(int n_cols) {
    return n_cols / 32;
  }
  template <int T> static __device__ __forceinline__ void add(const mm_lane &at, int s, int, const act_q8 *x, float *sum) {
    const size_t from = (size_t)s * TILE * 34;
    const float scale = at.f16(from);
    int w[4];
#pragma unroll
    for (int i = 0; i < 4; i++) w[i] = (int)at.word(from + 32 + 64 * (size_t)(4 * at.half + i));
#pragma unroll
    for (int t = 0; t < T; t++) {
      int dot = 0;
#pragma unroll
      for (int i = 0; i < 4; i++) dot = __dp4a(w[i], x[t].four(32 * s + 16 * at.half + 4 * i), dot);
      sum[t] = fmaf((float)dot, scale * x[t].d[s], sum[t]);
    }
  }
};

extern "C" int hfc_mm_q8_0(const hfc_mm *a, void *stream) {
  return mm_launch<q8_0>(a, 32, stream);
}

extern "C" int hfc_group_q8_0(const hfc_group *a, void *stream) {
  return group_launch<q8_0>(a, 32, stream);
}
