/* mm_q4_k.cu: products with Q4_K: two f16, 12 bytes of scales and minima, 256 nibbles. 144 bytes for 256 weights; limit: the memory's bandwidth. */
#include "kernels/cuda/group.cuh"
#include "kernels/cuda/mm_six_bits.cuh"

struct q4_k {
  enum { BYTES = 144 };
  static __device__ __forceinline__ void load(const mm_lane &at, size_t from, int quarter, int k, int *low, int *high) {
    const uint32_t w = at.word(from + 256 + 64 * (size_t)(8 * quarter + k));
    *low = (int)(w & 0x0f0f0f0fu);
    *high = (int)(w >> 4 & 0x0f0f0f0fu);
  }
};

extern "C" int hfc_mm_q4_k(const hfc_mm *a, void *stream) {
  return mm_launch<six_bits<q4_k>>(a, 256, stream);
}

extern "C" int hfc_group_q4_k(const hfc_group *a, void *stream) {
  return group_launch<six_bits<q4_k>>(a, 256, stream);
}
