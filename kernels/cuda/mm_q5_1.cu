/* mm_q5_1.cu: products with Q5_1: f16 scale and minimum, 32 fifth bits, 32 nibbles. 24 bytes for 32 weights; limit: the memory's bandwidth. */
#include "kernels/cuda/mm_32.cuh"

struct q5_1 {
  enum { BYTES = 24, WORDS = 128, SHIFT = 0, MIN = 1 };
  float scale, least;
  uint32_t planes;
  __device__ __forceinline__ q5_1(const mm_lane &at, size_t from)
      : scale(at.f16(from)), least(-at.f16(from + 32)), planes(at.word(from + 64)) {}
  /* Bit g of byte i of the planes is the fifth bit of weight 4 g + i. */
  __device__ __forceinline__ void take(uint32_t w, int k, int *low, int *high) const {
    *low = (int)((w & 0x0f0f0f0fu) | (planes >> k & 0x01010101u) << 4);
    *high = (int)((w >> 4 & 0x0f0f0f0fu) | (planes >> (4 + k) & 0x01010101u) << 4);
  }
};

extern "C" int hfc_mm_q5_1(const hfc_mm *a, void *stream) {
  return mm_launch<blocks_32<q5_1>>(a, 32, stream);
}
