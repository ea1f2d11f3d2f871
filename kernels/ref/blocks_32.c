/* blocks_32.c: formats with one scale per 32 weights. Nibbles: byte j holds weight j below and weight j + 16 above. */
#include "kernels/half.h"
#include "kernels/ref/blocks.h"

const int8_t ref_iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

static float f16_at(const uint8_t *p) {
  return half_from_f16(half_load_u16(p));
}

static void nibbles(const uint8_t *p, int less, int8_t *q) {
  for (int j = 0; j < 16; j++) {
    q[j] = (int8_t)((p[j] & 15) - less);
    q[j + 16] = (int8_t)((p[j] >> 4) - less);
  }
}

/* Bit i of the four bytes at `high` is the fifth bit of weight i. */
static void fifth_bits(const uint8_t *high, int8_t *q) {
  for (int i = 0; i < 32; i++) q[i] = (int8_t)(q[i] + ((high[i / 8] >> i % 8 & 1) << 4));
}

void ref_q8_0(const uint8_t *p, ref_block *b) {
  b->scale[0] = f16_at(p);
  memcpy(b->q, p + 2, 32);
}

void ref_q4_0(const uint8_t *p, ref_block *b) {
  b->scale[0] = f16_at(p);
  nibbles(p + 2, 8, b->q);
}

/* Q4_1 and Q5_1 add their minimum, which is the same bits as to subtract the negative. */
void ref_q4_1(const uint8_t *p, ref_block *b) {
  b->scale[0] = f16_at(p);
  b->min[0] = -f16_at(p + 2);
  nibbles(p + 4, 0, b->q);
}

void ref_q5_0(const uint8_t *p, ref_block *b) {
  b->scale[0] = f16_at(p);
  nibbles(p + 6, 16, b->q);
  fifth_bits(p + 2, b->q);
}

void ref_q5_1(const uint8_t *p, ref_block *b) {
  b->scale[0] = f16_at(p);
  b->min[0] = -f16_at(p + 2);
  nibbles(p + 8, 0, b->q);
  fifth_bits(p + 4, b->q);
}

void ref_iq4_nl(const uint8_t *p, ref_block *b) {
  b->scale[0] = f16_at(p);
  nibbles(p + 2, 0, b->q);
  for (int i = 0; i < 32; i++) b->q[i] = ref_iq4_values[b->q[i]];
}

void ref_int4(const uint8_t *p, ref_block *b) {
  b->scale[0] = half_from_bf16(half_load_u16(p));
  nibbles(p + 2, 8, b->q);
}
