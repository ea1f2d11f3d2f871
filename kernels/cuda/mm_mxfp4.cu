/* mm_mxfp4.cu: products with MXFP4: a power of two, 32 nibbles that name a float of four bits. 17 bytes for 32 weights; limit: the memory's bandwidth. */
#include "kernels/cuda/group.cuh"
#include "kernels/cuda/mm_32.cuh"

struct mxfp4 {
  enum { BYTES = 17, WORDS = 16, SHIFT = 0, MIN = 0 };
  float scale, least;
  /* 2^(e - 128), as the table has doubles of the values. */
  __device__ __forceinline__ mxfp4(const mm_lane &at, size_t from) : least(0) {
    const int e = at.byte(from);
    scale = __uint_as_float(e < 2 ? 0x00200000u << e : (uint32_t)(e - 1) << 23);
  }
  __device__ __forceinline__ void take(uint32_t w, int, int *low, int *high) const {
    const uint32_t values[4] = {0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu}; /* 0 1 2 3, 4 6 8 12, and their negatives */
    look_up(w, values, low, high);
  }
};

extern "C" int hfc_mm_mxfp4(const hfc_mm *a, void *stream) {
  return mm_launch<blocks_32<mxfp4>>(a, 32, stream);
}

extern "C" int hfc_group_mxfp4(const hfc_group *a, void *stream) {
  return group_launch<blocks_32<mxfp4>>(a, 32, stream);
}
