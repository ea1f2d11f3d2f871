/* layouts.h: how blocks lie in memory; private to kernels.
 *
 * Q8_0 row: blocks of 34 bytes, f16 scale then 32 int8 (ggml's layout).
 * Q8B32 activation of n elements, nb = ceil(n/32) blocks: int8 q[nb*32] padded with zeros to a multiple of 256 bytes, then
 * f32 d[nb] padded with zeros to a multiple of 64 bytes; so kernels may read whole groups of eight blocks. */
#ifndef HF_KERNELS_LAYOUTS_H
#define HF_KERNELS_LAYOUTS_H

#include <stddef.h>

enum { Q8_BLOCK = 32, Q8_BLOCK_BYTES = 34 };

static inline size_t lay_round_up(size_t n, size_t to) {
  return (n + to - 1) / to * to;
}

static inline int q8b32_blocks(int n) {
  return (n + Q8_BLOCK - 1) / Q8_BLOCK;
}

static inline size_t q8b32_scales_offset(int n) {
  return lay_round_up((size_t)q8b32_blocks(n) * Q8_BLOCK, 256);
}

static inline size_t q8b32_bytes(int n) {
  return q8b32_scales_offset(n) + lay_round_up((size_t)q8b32_blocks(n) * sizeof(float), 64);
}

#endif
