/* mm_q6_k.cu: products with Q6_K: an f16 scale, 16 int8 scales, nibbles and pairs of high bits. 210 bytes for 256 weights; limit: the memory's
 * bandwidth. A step is half a block: eight times two words of nibbles and one of high bits, which make four runs of 32 weights; half h of the lanes
 * has 16 weights of each, a group with a scale of its own. */
#include "kernels/cuda/group.cuh"
#include "kernels/cuda/mm.cuh"

struct q6_k {
  typedef act_q8 Act;
  static __device__ __forceinline__ size_t row_bytes(int n_cols) {
    return (size_t)(n_cols / 256) * 210;
  }
  static __device__ __forceinline__ int steps(int n_cols) {
    return n_cols / 128;
  }
  template <int T> static __device__ __forceinline__ void add(const mm_lane &at, int s, int, const act_q8 *x, float *sum) {
    const size_t from = (size_t)(s / 2) * TILE * 210, words = from + 288 + 192 * (size_t)(s % 2 * 8 + 4 * at.half);
    const float d = at.f16(from);
    uint32_t low[2][4], high[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      low[0][i] = at.word(words + 192 * (size_t)i);
      low[1][i] = at.word(words + 192 * (size_t)i + 64);
      high[i] = at.word(words + 192 * (size_t)i + 128);
    }
#pragma unroll
    for (int q = 0; q < 4; q++) {
      const float scale = d * (float)(int8_t)at.byte(from + 32 + TILE * (size_t)(s % 2 * 8 + 2 * q + at.half));
      int w[4];
#pragma unroll
      for (int i = 0; i < 4; i++)
        w[i] = (int)((low[q % 2][i] >> 4 * (q / 2) & 0x0f0f0f0fu) | (high[i] >> 2 * q & 0x03030303u) << 4);
#pragma unroll
      for (int t = 0; t < T; t++) {
        const int b = 4 * s + q; /* block of 32 columns */
        int dot = 32 * x[t].n16[2 * b + at.half];
#pragma unroll
        for (int i = 0; i < 4; i++) dot = __dp4a(w[i], x[t].four(32 * b + 16 * at.half + 4 * i), dot);
        sum[t] = fmaf((float)dot, scale * x[t].d[b], sum[t]);
      }
    }
  }
};

extern "C" int hfc_mm_q6_k(const hfc_mm *a, void *stream) {
  return mm_launch<q6_k>(a, 256, stream);
}

extern "C" int hfc_group_q6_k(const hfc_group *a, void *stream) {
  return group_launch<q6_k>(a, 256, stream);
}
