/* random.c: weights for checks and measurements, where values matter only in being ordinary. */
#include <string.h>

#include "base/blocks.h"
#include "kernels/layouts.h"

static uint64_t next(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

void kern_random_row(kern_format f, uint64_t seed, float half, int n_cols, void *row) {
  uint8_t *p = row;
  size_t bytes = kern_row_bytes(f, n_cols);
  if (kern_block(f) == 1) {
    float v[PLAIN_CHUNK];
    for (int c = 0; c < n_cols; c += PLAIN_CHUNK) {
      int n = n_cols - c < PLAIN_CHUNK ? n_cols - c : PLAIN_CHUNK;
      for (int i = 0; i < n; i++) v[i] = half * (float)(int32_t)(next(&seed) >> 32) * 0x1p-31f;
      kern_quant_row(f, v, n, p + kern_row_bytes(f, c));
    }
    return;
  }
  for (size_t i = 0; i < bytes; i++) p[i] = (uint8_t)(next(&seed) >> 56);
  if (!hf_block_scales(kern_format_name(f), p, n_cols, half)) memset(p, 0, bytes); /* no entry there: tests see it */
}
