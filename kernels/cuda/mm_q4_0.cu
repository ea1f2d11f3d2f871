/* mm_q4_0.cu: products with Q4_0: an f16 scale, 32 nibbles, less 8. 18 bytes for 32 weights; limit: the memory's bandwidth. */
#include "kernels/cuda/group.cuh"
#include "kernels/cuda/mm_32.cuh"

struct q4_0 {
  enum { BYTES = 18, WORDS = 32, SHIFT = 8, MIN = 0 };
  float scale, least;
  __device__ __forceinline__ q4_0(const mm_lane &at, size_t from) : scale(at.f16(from)), least(0) {}
  __device__ __forceinline__ void take(uint32_t w, int, int *low, int *high) const {
    *low = (int)(w & 0x0f0f0f0fu);
    *high = (int)(w >> 4 & 0x0f0f0f0fu);
  }
};

extern "C" int hfc_mm_q4_0(const hfc_mm *a, void *stream) {
  return mm_launch<blocks_32<q4_0>>(a, 32, stream);
}

extern "C" int hfc_group_q4_0(const hfc_group *a, void *stream) {
  return group_launch<blocks_32<q4_0>>(a, 32, stream);
}
