/* blocks_ternary.c: weights -1, 0, 1 with one scale per 256. */
#include "kernels/half.h"
#include "kernels/ref/blocks.h"

static void one_scale(const uint8_t *p, ref_block *b) {
  float d = half_from_f16(half_load_u16(p));
  for (int g = 0; g < 8; g++) b->scale[g] = d;
}

/* A byte is a fraction of 256 whose base-3 digits are five weights: times three, the digit is what is carried out. */
static int8_t digit(uint8_t byte, int n) {
  static const uint8_t power[5] = {1, 3, 9, 27, 81};
  return (int8_t)(((uint8_t)(byte * power[n]) * 3 >> 8) - 1);
}

/* Five digits of 32 bytes, five digits of 16 bytes, four digits of 4 bytes; d. Digit n of all bytes of a run before digit n + 1. */
void ref_tq1_0(const uint8_t *p, ref_block *b) {
  static const struct { int at, bytes, digits; } runs[] = {{0, 32, 5}, {32, 16, 5}, {48, 4, 4}};
  int8_t *q = b->q;
  one_scale(p + 52, b);
  for (int r = 0; r < 3; r++) {
    for (int n = 0; n < runs[r].digits; n++) {
      for (int i = 0; i < runs[r].bytes; i++) *q++ = digit(p[runs[r].at + i], n);
    }
  }
}

/* Two bits a weight in the order of the K formats; d. */
void ref_tq2_0(const uint8_t *p, ref_block *b) {
  one_scale(p + 64, b);
  for (int i = 0; i < 256; i++) b->q[i] = (int8_t)((p[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) - 1);
}
