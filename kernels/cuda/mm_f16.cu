/* mm_f16.cu: products with F16. 2 bytes a weight; limit: the memory's bandwidth. */
#include "kernels/cuda/mm_pairs.cuh"

struct f16 {
  static __device__ __forceinline__ float low(uint32_t w) {
    return f32_of_f16((uint16_t)w);
  }
  static __device__ __forceinline__ float high(uint32_t w) {
    return f32_of_f16((uint16_t)(w >> 16));
  }
};

extern "C" int hfc_mm_f16(const hfc_mm *a, void *stream) {
  return mm_launch<pairs<f16>>(a, 2, stream);
}
