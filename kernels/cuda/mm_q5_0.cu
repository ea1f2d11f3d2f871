/* mm_q5_0.cu: products with Q5_0: an f16 scale, 32 fifth bits, 32 nibbles, less 16. 22 bytes for 32 weights; limit: the memory's bandwidth. */
#include "kernels/cuda/mm_32.cuh"

struct q5_0 {
  enum { BYTES = 22, WORDS = 96, SHIFT = 16, MIN = 0 };
  float scale, least;
  uint32_t planes;
  __device__ __forceinline__ q5_0(const mm_lane &at, size_t from) : scale(at.f16(from)), least(0), planes(at.word(from + 32)) {}
  /* Bit g of byte i of the planes is the fifth bit of weight 4 g + i. */
  __device__ __forceinline__ void take(uint32_t w, int k, int *low, int *high) const {
    *low = (int)((w & 0x0f0f0f0fu) | (planes >> k & 0x01010101u) << 4);
    *high = (int)((w >> 4 & 0x0f0f0f0fu) | (planes >> (4 + k) & 0x01010101u) << 4);
  }
};

extern "C" int hfc_mm_q5_0(const hfc_mm *a, void *stream) {
  return mm_launch<blocks_32<q5_0>>(a, 32, stream);
}
