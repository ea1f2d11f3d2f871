/* mm_q4_1.cu: products with Q4_1: f16 scale and minimum, 32 nibbles. 20 bytes for 32 weights; limit: the memory's bandwidth. */
#include "kernels/cuda/mm_32.cuh"

struct q4_1 {
  enum { BYTES = 20, WORDS = 64, SHIFT = 0, MIN = 1 };
  float scale, least;
  __device__ __forceinline__ q4_1(const mm_lane &at, size_t from) : scale(at.f16(from)), least(-at.f16(from + 32)) {}
  __device__ __forceinline__ void take(uint32_t w, int, int *low, int *high) const {
    *low = (int)(w & 0x0f0f0f0fu);
    *high = (int)(w >> 4 & 0x0f0f0f0fu);
  }
};

extern "C" int hfc_mm_q4_1(const hfc_mm *a, void *stream) {
  return mm_launch<blocks_32<q4_1>>(a, 32, stream);
}
