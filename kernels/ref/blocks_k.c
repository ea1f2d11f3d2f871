/* blocks_k.c: blocks of 256 with a small integer scale per 16 or 32 weights below one or two f16. */
#include "kernels/half.h"
#include "kernels/ref/blocks.h"

static float f16_at(const uint8_t *p) {
  return half_from_f16(half_load_u16(p));
}

/* Two bits of weight i: the weights of a half (128) lie four to a byte, 32 apart. */
static int two_bits(const uint8_t *qs, int i) {
  return qs[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
}

/* scales[16], qs[64], d, dmin. A scale byte: factor of d below, factor of dmin above. */
void ref_q2_k(const uint8_t *p, ref_block *b) {
  float d = f16_at(p + 80), dmin = f16_at(p + 82);
  for (int g = 0; g < 16; g++) {
    b->scale[g] = d * (float)(p[g] & 15);
    b->min[g] = dmin * (float)(p[g] >> 4);
  }
  for (int i = 0; i < 256; i++) b->q[i] = (int8_t)two_bits(p + 16, i);
}

/* high[32], qs[64], scales[12], d. Scale g has six bits: four in byte g % 8, two in byte 8 + g % 4. A set high bit means plus 0, a clear one
 * minus 4. */
void ref_q3_k(const uint8_t *p, ref_block *b) {
  const uint8_t *s = p + 96;
  float d = f16_at(p + 108);
  for (int g = 0; g < 16; g++) {
    int six = (s[g % 8] >> (g / 8 * 4) & 15) | (s[8 + g % 4] >> (g / 4 * 2) & 3) << 4;
    b->scale[g] = d * (float)(six - 32);
  }
  for (int i = 0; i < 256; i++) b->q[i] = (int8_t)(two_bits(p + 32, i) - (p[i % 32] >> (i / 32) & 1 ? 0 : 4));
}

/* Eight scales and eight minima of six bits in twelve bytes: the first four whole, the others' upper two bits on top of those. */
static void six_bit_pairs(const uint8_t *p, ref_block *b) {
  const uint8_t *s = p + 4;
  float d = f16_at(p), dmin = f16_at(p + 2);
  for (int g = 0; g < 8; g++) {
    int scale = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
    int min = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
    b->scale[g] = d * (float)scale;
    b->min[g] = dmin * (float)min;
  }
}

/* Four bits of weight i: 64 weights lie in 32 bytes, the first 32 below. */
static int four_bits(const uint8_t *qs, int i) {
  return qs[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
}

/* d, dmin, scales[12], qs[128] */
void ref_q4_k(const uint8_t *p, ref_block *b) {
  six_bit_pairs(p, b);
  for (int i = 0; i < 256; i++) b->q[i] = (int8_t)four_bits(p + 16, i);
}

/* d, dmin, scales[12], high[32], qs[128] */
void ref_q5_k(const uint8_t *p, ref_block *b) {
  six_bit_pairs(p, b);
  for (int i = 0; i < 256; i++) b->q[i] = (int8_t)(four_bits(p + 48, i) + ((p[16 + i % 32] >> (i / 32) & 1) << 4));
}

/* low[128], high[64], scales[16], d: in a half (128 weights) 64 bytes of low nibbles, 32 bytes of two high bits. */
void ref_q6_k(const uint8_t *p, ref_block *b) {
  float d = f16_at(p + 208);
  for (int g = 0; g < 16; g++) b->scale[g] = d * (float)(int8_t)p[192 + g];
  for (int i = 0; i < 256; i++) {
    int low = p[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15;
    b->q[i] = (int8_t)((low | two_bits(p + 128, i) << 4) - 32);
  }
}

/* d, upper two bits of the scales, lower four bits [4], qs[128] */
void ref_iq4_xs(const uint8_t *p, ref_block *b) {
  float d = f16_at(p);
  int high = half_load_u16(p + 2);
  for (int g = 0; g < 8; g++) {
    int six = (p[4 + g / 2] >> (g % 2 * 4) & 15) | (high >> 2 * g & 3) << 4;
    b->scale[g] = d * (float)(six - 32);
    for (int j = 0; j < 16; j++) {
      b->q[32 * g + j] = ref_iq4_values[p[8 + 16 * g + j] & 15];
      b->q[32 * g + j + 16] = ref_iq4_values[p[8 + 16 * g + j] >> 4];
    }
  }
}
