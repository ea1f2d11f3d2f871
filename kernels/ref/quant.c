/* quant.c: whole rows to and from f32, exactly as the file formats define them. */
#include <math.h>

#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/ref/blocks.h"

static void dequant_blocks(const ref_blocks *how, kern_format f, const uint8_t *p, int n_cols, float *out) {
  const int block = kern_block(f), group = how->group;
  const size_t bytes = kern_row_bytes(f, block);
  ref_block b;
  for (int c = 0; c < n_cols; c += block, p += bytes) {
    how->decode(p, &b);
    for (int i = 0; i < block; i++) {
      float v = b.scale[i / group] * (float)b.q[i];
      out[c + i] = how->has_min ? v - b.min[i / group] : v;
    }
  }
}

void kern_dequant_row(kern_format f, const void *row, int n_cols, float *out) {
  const uint8_t *p = row;
  const ref_blocks *how = ref_blocks_of(f);
  if (how->decode) {
    dequant_blocks(how, f, p, n_cols, out);
    return;
  }
  const kern_mat one = {f, KL_ROWS, 1, n_cols, 0, row};
  for (int c = 0; c < n_cols; c += PLAIN_CHUNK)
    plain_columns(&one, 0, c, n_cols - c < PLAIN_CHUNK ? n_cols - c : PLAIN_CHUNK, out + c);
}

static void quant_fp8(const float *x, int n, char *block) {
  float amax = 0.0f;
  for (int i = 0; i < n; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
  float scale = amax / 448.0f;
  memcpy(block, &scale, sizeof scale);
  for (int i = 0; i < n; i++) block[4 + i] = (char)half_to_e4m3(scale != 0.0f ? x[i] / scale : 0.0f);
}

/* q = round(x * (1/d)) with halves away from zero, d kept in f32 until it is stored: ggml's reference quantiser, bit for bit. */
static void quant_block(const float *x, char *block) {
  float amax = 0.0f;
  for (int i = 0; i < Q8_BLOCK; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
  float d = amax / 127.0f, inv = d != 0.0f ? 1.0f / d : 0.0f;
  uint16_t h = half_to_f16(d);
  memcpy(block, &h, sizeof h);
  for (int i = 0; i < Q8_BLOCK; i++) {
    float v = roundf(x[i] * inv);
    v = v > -127.0f ? v : -127.0f; /* 1/d overflows for a subnormal d */
    v = v < 127.0f ? v : 127.0f;
    ((int8_t *)block)[2 + i] = (int8_t)v;
  }
}

void kern_quant_row(kern_format f, const float *x, int n_cols, void *row) {
  char *p = row;
  switch (f) {
    case KF_F32: memcpy(row, x, (size_t)n_cols * 4); return;
    case KF_F16:
    case KF_BF16:
      for (int i = 0; i < n_cols; i++) {
        uint16_t h = f == KF_F16 ? half_to_f16(x[i]) : half_to_bf16(x[i]);
        memcpy(p + (size_t)i * 2, &h, 2);
      }
      return;
    case KF_Q8_0:
      for (int b = 0; b < n_cols / Q8_BLOCK; b++) quant_block(x + (size_t)b * Q8_BLOCK, p + (size_t)b * Q8_BLOCK_BYTES);
      return;
    case KF_FP8:
      for (int c = 0; c < n_cols; c += FP8_BLOCK)
        quant_fp8(x + c, n_cols - c < FP8_BLOCK ? n_cols - c : FP8_BLOCK, p + kern_row_bytes(f, c));
      return;
    default: return;
  }
}
