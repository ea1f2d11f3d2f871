/* mm_bf16.cu: products with BF16. 2 bytes a weight; limit: the memory's bandwidth. */
#include "kernels/cuda/group.cuh"
#include "kernels/cuda/mm_pairs.cuh"

struct bf16 {
  static __device__ __forceinline__ float low(uint32_t w) {
    return f32_of_bf16_low(w);
  }
  static __device__ __forceinline__ float high(uint32_t w) {
    return f32_of_bf16_high(w);
  }
};

extern "C" int hfc_mm_bf16(const hfc_mm *a, void *stream) {
  return mm_launch<pairs<bf16>>(a, 2, stream);
}

extern "C" int hfc_group_bf16(const hfc_group *a, void *stream) {
  return group_launch<pairs<bf16>>(a, 2, stream);
}
