/* mm_q5_k.cu: products with Q5_K: Q4_K and a fifth bit. 176 bytes for 256 weights; limit: the memory's bandwidth. Of the fifth bits a byte has those
 * of 8 weights 32 apart; their 8 words lie in turn with the first 8 of nibbles, the other 24 follow, so a step reads its words of fifth bits again,
 * from the second cache: 8 words beside the block's 44. */
#include "kernels/cuda/mm_six_bits.cuh"

struct q5_k {
  enum { BYTES = 176 };
  static __device__ __forceinline__ void load(const mm_lane &at, size_t from, int quarter, int k, int *low, int *high) {
    const size_t words = from + 256;
    const uint32_t fifth = at.word(words + 128 * (size_t)k);
    const uint32_t w = at.word(quarter == 0 ? words + 128 * (size_t)k + 64 : words + 64 * (size_t)(16 + 8 * (quarter - 1) + k));
    *low = (int)((w & 0x0f0f0f0fu) | (fifth >> 2 * quarter & 0x01010101u) << 4);
    *high = (int)((w >> 4 & 0x0f0f0f0fu) | (fifth >> (2 * quarter + 1) & 0x01010101u) << 4);
  }
};

extern "C" int hfc_mm_q5_k(const hfc_mm *a, void *stream) {
  return mm_launch<six_bits<q5_k>>(a, 256, stream);
}
