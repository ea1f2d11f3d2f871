/* blocks_fp4.c: four-bit floats with one sign, two exponent and one mantissa bit. Their doubles are integers, so the scale is taken half. */
#include "kernels/half.h"
#include "kernels/ref/blocks.h"

static const int8_t doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Scale: a power of two, 2^(e - 127); 255 is taken as the format's users do, as a large power and not as NaN. */
void ref_mxfp4(const uint8_t *p, ref_block *b) {
  b->scale[0] = half_float_of(p[0] < 2 ? 0x00200000u << p[0] : (uint32_t)(p[0] - 1) << 23);
  for (int j = 0; j < 16; j++) {
    b->q[j] = doubled[p[1 + j] & 15];
    b->q[j + 16] = doubled[p[1 + j] >> 4];
  }
}

/* Unsigned float of four exponent bits (bias 7) and three mantissa bits, halved; all ones stand for nothing. */
static float half_of_ue4m3(uint8_t v) {
  int e = v >> 3 & 15, m = v & 7;
  if ((v & 0x7f) == 0x7f) return 0.0f;
  if (e == 0) return (float)m * 0x1p-10f;
  return half_float_of((uint32_t)(e - 7 - 1 + 127) << 23) * (1.0f + (float)m * 0.125f);
}

void ref_nvfp4(const uint8_t *p, ref_block *b) {
  for (int s = 0; s < 4; s++) {
    b->scale[s] = half_of_ue4m3(p[s]);
    for (int j = 0; j < 8; j++) {
      uint8_t two = p[4 + 8 * s + j];
      b->q[16 * s + j] = doubled[two & 15];
      b->q[16 * s + j + 8] = doubled[two >> 4];
    }
  }
}
