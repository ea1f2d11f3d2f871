/* mm_int4.cu: products with INT4: a BF16 scale, 32 nibbles, less 8. 18 bytes for 32 weights; limit: the memory's bandwidth. */
#include "kernels/cuda/group.cuh"
#include "kernels/cuda/mm_32.cuh"

struct int4_ { /* CUDA has an int4 */
  enum { BYTES = 18, WORDS = 32, SHIFT = 8, MIN = 0 };
  float scale, least;
  __device__ __forceinline__ int4_(const mm_lane &at, size_t from)
      : scale(f32_of_bf16(*(const uint16_t *)(at.tile + from + 2 * at.row))), least(0) {}
  __device__ __forceinline__ void take(uint32_t w, int, int *low, int *high) const {
    *low = (int)(w & 0x0f0f0f0fu);
    *high = (int)(w >> 4 & 0x0f0f0f0fu);
  }
};

extern "C" int hfc_mm_int4(const hfc_mm *a, void *stream) {
  return mm_launch<blocks_32<int4_>>(a, 32, stream);
}

extern "C" int hfc_group_int4(const hfc_group *a, void *stream) {
  return group_launch<blocks_32<int4_>>(a, 32, stream);
}
