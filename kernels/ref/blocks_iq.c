/* blocks_iq.c: blocks of 256 whose magnitudes are points of a codebook, named by an index, below small scales and one f16. */
#include <string.h>

#include "kernels/half.h"
#include "kernels/ref/blocks.h"

static float f16_at(const uint8_t *p) {
  return half_from_f16(half_load_u16(p));
}

static uint32_t word_at(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return v;
}

/* Bit i set: value i is negative. */
static void negate(int8_t *q, int signs) {
  for (int i = 0; i < 8; i++)
    if (signs >> i & 1) q[i] = (int8_t)-q[i];
}

/* Seven signs are stored; the eighth makes the number of minus signs even. */
static int even(int seven) {
  int parity = seven ^ seven >> 4;
  parity ^= parity >> 2;
  return seven | ((parity ^ parity >> 1) & 1) << 7;
}

/* Both products are exact: a nibble and a half have five bits, the unit is a power of two. */
static float scale_of(float d, int nibble, float unit) {
  return d * ((float)nibble + 0.5f) * unit;
}

/* d, then for each 32 weights four indices and a word: four times seven signs, a scale on top. */
void ref_iq2_xxs(const uint8_t *p, ref_block *b) {
  const int8_t *points = ref_codebook(BOOK_IQ2_XXS);
  float d = f16_at(p);
  for (int g = 0; g < 8; g++) {
    const uint8_t *at = p + 2 + 8 * g;
    uint32_t word = word_at(at + 4);
    b->scale[g] = scale_of(d, (int)(word >> 28), 0.25f);
    for (int k = 0; k < 4; k++) {
      int8_t *q = b->q + 32 * g + 8 * k;
      memcpy(q, points + 8 * at[k], 8);
      negate(q, even((int)(word >> 7 * k & 127)));
    }
  }
}

/* d, words of nine bits of index and seven signs [32], scales of 16 weights, two to a byte [8] */
void ref_iq2_xs(const uint8_t *p, ref_block *b) {
  const int8_t *points = ref_codebook(BOOK_IQ2_XS);
  float d = f16_at(p);
  for (int g = 0; g < 16; g++) b->scale[g] = scale_of(d, p[66 + g / 2] >> g % 2 * 4 & 15, 0.25f);
  for (int k = 0; k < 32; k++) {
    int word = half_load_u16(p + 2 + 2 * k);
    memcpy(b->q + 8 * k, points + 8 * (word & 511), 8);
    negate(b->q + 8 * k, even(word >> 9));
  }
}

/* d, low index bytes [32], signs [32], two upper bits of each index [8], scales of 16 weights [8] */
void ref_iq2_s(const uint8_t *p, ref_block *b) {
  const int8_t *points = ref_codebook(BOOK_IQ2_S);
  float d = f16_at(p);
  for (int g = 0; g < 16; g++) b->scale[g] = scale_of(d, p[74 + g / 2] >> g % 2 * 4 & 15, 0.25f);
  for (int k = 0; k < 32; k++) {
    int index = p[2 + k] | (p[66 + k / 4] >> k % 4 * 2 & 3) << 8;
    memcpy(b->q + 8 * k, points + 8 * index, 8);
    negate(b->q + 8 * k, p[34 + k]);
  }
}

/* d, indices of four weights [64], for each 32 weights a word as in IQ2_XXS [8] */
void ref_iq3_xxs(const uint8_t *p, ref_block *b) {
  const int8_t *points = ref_codebook(BOOK_IQ3_XXS);
  float d = f16_at(p);
  for (int i = 0; i < 64; i++) memcpy(b->q + 4 * i, points + 4 * p[2 + i], 4);
  for (int g = 0; g < 8; g++) {
    uint32_t word = word_at(p + 66 + 4 * g);
    b->scale[g] = scale_of(d, (int)(word >> 28), 0.5f);
    for (int k = 0; k < 4; k++) negate(b->q + 32 * g + 8 * k, even((int)(word >> 7 * k & 127)));
  }
}

/* d, low index bytes [64], ninth bits [8], signs [32], scales of 32 weights, two to a byte [4] */
void ref_iq3_s(const uint8_t *p, ref_block *b) {
  const int8_t *points = ref_codebook(BOOK_IQ3_S);
  float d = f16_at(p);
  for (int g = 0; g < 8; g++) b->scale[g] = d * (float)(2 * (p[106 + g / 2] >> g % 2 * 4 & 15) + 1);
  for (int i = 0; i < 64; i++) {
    int index = p[2 + i] | (p[66 + i / 8] >> i % 8 & 1) << 8;
    memcpy(b->q + 4 * i, points + 4 * index, 4);
  }
  for (int k = 0; k < 32; k++) negate(b->q + 8 * k, p[74 + k]);
}

/* A point of IQ1 in eighths, moved by one of them. */
static void moved(const int8_t *point, bool down, int8_t *q) {
  for (int i = 0; i < 8; i++) q[i] = (int8_t)(point[i] + (down ? -1 : 1));
}

/* d, low index bytes [32], for each 32 weights a word: four times three upper bits, a scale, which way [8] */
void ref_iq1_s(const uint8_t *p, ref_block *b) {
  const int8_t *points = ref_codebook(BOOK_IQ1);
  float d = f16_at(p);
  for (int g = 0; g < 8; g++) {
    int word = half_load_u16(p + 34 + 2 * g);
    b->scale[g] = d * (float)(2 * (word >> 12 & 7) + 1) * 0.125f;
    for (int k = 4 * g; k < 4 * g + 4; k++) {
      int index = p[2 + k] | (word >> k % 4 * 3 & 7) << 8;
      moved(points + 8 * index, word >> 15, b->q + 8 * k);
    }
  }
}

/* Low index bytes [32], nibbles of three upper bits and which way [16], words of four scales of 16 weights [4]; the nibbles on top of
 * those words are d, the lowest first. */
void ref_iq1_m(const uint8_t *p, ref_block *b) {
  const int8_t *points = ref_codebook(BOOK_IQ1);
  unsigned half = 0;
  for (int k = 0; k < 4; k++) half |= (unsigned)(half_load_u16(p + 48 + 2 * k) >> 12) << 4 * k;
  float d = half_from_f16((uint16_t)half);
  for (int g = 0; g < 16; g++) b->scale[g] = d * (float)(2 * (half_load_u16(p + 48 + g / 4 * 2) >> g % 4 * 3 & 7) + 1) * 0.125f;
  for (int k = 0; k < 32; k++) {
    int nibble = p[32 + k / 2] >> k % 2 * 4 & 15;
    moved(points + 8 * (p[k] | (nibble & 7) << 8), nibble >> 3, b->q + 8 * k);
  }
}
