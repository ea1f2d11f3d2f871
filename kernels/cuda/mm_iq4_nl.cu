/* mm_iq4_nl.cu: products with IQ4_NL: an f16 scale, 32 nibbles that name one of 16 values. 18 bytes for 32 weights; limit: the memory's bandwidth. */
#include "kernels/cuda/mm_32.cuh"

struct iq4_nl {
  enum { BYTES = 18, WORDS = 32, SHIFT = 0, MIN = 0 };
  float scale, least;
  __device__ __forceinline__ iq4_nl(const mm_lane &at, size_t from) : scale(at.f16(from)), least(0) {}
  __device__ __forceinline__ void take(uint32_t w, int, int *low, int *high) const {
    const uint32_t values[4] = {0xbfad9881u, 0xf6eaddcfu, 0x26190d01u,
                                0x71594535u}; /* -127 -104 -83 -65, -49 -35 -22 -10, 1 13 25 38, 53 69 89 113 */
    look_up(w, values, low, high);
  }
};

extern "C" int hfc_mm_iq4_nl(const hfc_mm *a, void *stream) {
  return mm_launch<blocks_32<iq4_nl>>(a, 32, stream);
}
