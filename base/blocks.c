/* blocks.c: where each block format keeps its scales and what they should be. A second scale (minimum) is chosen so that the mean is zero
 * when quants and the small scales inside a block are uniform. */
#include "base/blocks.h"

#include <string.h>

typedef enum {
  SCALE_F16,
  SCALE_BF16,
  SCALE_E8M0,
  SCALE_UE4M3,
  SCALE_F16_NIBBLES /* the upper four bits of four words */
} scale_kind;

static const struct {
  const char *name;
  int block, bytes;
  scale_kind kind;
  int at, n;         /* first scale; how many of this kind lie there */
  float per_half;    /* scale of weights of half-width 1 */
  int min_at;        /* of the second scale, or -1 */
  float min_by_main; /* second scale over the first */
} layouts[] = {
    {"q8_0", 32, 34, SCALE_F16, 0, 1, 1 / 127.0f, -1, 0},
    {"q4_0", 32, 18, SCALE_F16, 0, 1, 1 / 8.0f, -1, 0},
    {"q4_1", 32, 20, SCALE_F16, 0, 1, 2 / 15.0f, 2, -7.5f},
    {"q5_0", 32, 22, SCALE_F16, 0, 1, 1 / 16.0f, -1, 0},
    {"q5_1", 32, 24, SCALE_F16, 0, 1, 2 / 31.0f, 2, -15.5f},
    {"q2_k", 256, 84, SCALE_F16, 80, 1, 1 / 25.0f, 82, 1.5f},
    {"q3_k", 256, 110, SCALE_F16, 108, 1, 1 / 64.0f, -1, 0},
    {"q4_k", 256, 144, SCALE_F16, 0, 1, 1 / 400.0f, 2, 7.5f},
    {"q5_k", 256, 176, SCALE_F16, 0, 1, 1 / 800.0f, 2, 15.5f},
    {"q6_k", 256, 210, SCALE_F16, 208, 1, 1 / 1800.0f, -1, 0},
    {"iq4_nl", 32, 18, SCALE_F16, 0, 1, 1 / 113.0f, -1, 0},
    {"iq4_xs", 256, 136, SCALE_F16, 0, 1, 1 / 1800.0f, -1, 0},
    {"int4", 32, 18, SCALE_BF16, 0, 1, 1 / 8.0f, -1, 0},
    {"mxfp4", 32, 17, SCALE_E8M0, 0, 1, 1 / 6.0f, -1, 0},
    {"nvfp4", 64, 36, SCALE_UE4M3, 0, 4, 1 / 6.0f, -1, 0},
    {"tq1_0", 256, 54, SCALE_F16, 52, 1, 1, -1, 0},
    {"tq2_0", 256, 66, SCALE_F16, 64, 1, 1, -1, 0},
    {"iq1_s", 256, 50, SCALE_F16, 0, 1, 1 / 16.0f, -1, 0},
    {"iq1_m", 256, 56, SCALE_F16_NIBBLES, 48, 1, 1 / 16.0f, -1, 0},
    {"iq2_xxs", 256, 66, SCALE_F16, 0, 1, 1 / 160.0f, -1, 0},
    {"iq2_xs", 256, 74, SCALE_F16, 0, 1, 1 / 160.0f, -1, 0},
    {"iq2_s", 256, 82, SCALE_F16, 0, 1, 1 / 160.0f, -1, 0},
    {"iq3_xxs", 256, 98, SCALE_F16, 0, 1, 1 / 480.0f, -1, 0},
    {"iq3_s", 256, 110, SCALE_F16, 0, 1, 1 / 460.0f, -1, 0},
};

static int step_of(scale_kind k) {
  return k == SCALE_E8M0 || k == SCALE_UE4M3 ? 1 : 2;
}

/* The lowest nibble lies on top of the first word. */
static void put_nibbles(uint8_t *p, uint16_t h) {
  for (int i = 0; i < 4; i++) p[2 * i + 1] = (uint8_t)((p[2 * i + 1] & 15) | (h >> 4 * i & 15) << 4);
}

static uint16_t get_nibbles(const uint8_t *p) {
  unsigned h = 0;
  for (int i = 0; i < 4; i++) h |= (unsigned)(p[2 * i + 1] >> 4) << 4 * i;
  return (uint16_t)h;
}

/* Cut, not rounded: any scale near the wanted one will do. Values are normal numbers of each kind. */
static void put(uint8_t *p, scale_kind k, float v) {
  uint32_t u;
  uint16_t h;
  memcpy(&u, &v, sizeof u);
  int exponent = (int)(u >> 23 & 255);
  switch (k) {
    case SCALE_F16:
    case SCALE_F16_NIBBLES:
      h = exponent > 112 ? (uint16_t)(((u & 0x7fffffff) - 0x38000000) >> 13) : (uint16_t)((v < 0 ? -v : v) * 0x1p24f);
      h = (uint16_t)(h | (u >> 16 & 0x8000));
      if (k == SCALE_F16) memcpy(p, &h, 2);
      else put_nibbles(p, h);
      return;
    case SCALE_BF16:
      h = (uint16_t)(u >> 16);
      memcpy(p, &h, 2);
      return;
    case SCALE_E8M0: *p = (uint8_t)exponent; return;
    case SCALE_UE4M3: *p = (uint8_t)((exponent > 120 ? exponent - 120 : 0) << 3 | (u >> 20 & 7)); return;
  }
}

bool hf_block_scales(const char *name, uint8_t *row, int64_t n_cols, float half) {
  for (unsigned i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
    if (strcmp(name, layouts[i].name) != 0) continue;
    int step = step_of(layouts[i].kind);
    for (int64_t b = 0; b < n_cols / layouts[i].block; b++, row += layouts[i].bytes) {
      for (int k = 0; k < layouts[i].n; k++) {
        uint8_t *p = row + layouts[i].at + k * step;
        float v = half * layouts[i].per_half * (0.7f + 0.04f * (float)(*p & 15));
        put(p, layouts[i].kind, v);
        if (layouts[i].min_at >= 0) put(row + layouts[i].min_at, layouts[i].kind, v * layouts[i].min_by_main);
      }
    }
    return true;
  }
  return false;
}

static bool is_finite(const uint8_t *p, scale_kind k) {
  uint16_t h;
  switch (k) {
    case SCALE_F16: memcpy(&h, p, 2); return (h & 0x7c00) != 0x7c00;
    case SCALE_F16_NIBBLES: return (get_nibbles(p) & 0x7c00) != 0x7c00;
    case SCALE_BF16: memcpy(&h, p, 2); return (h & 0x7f80) != 0x7f80;
    case SCALE_E8M0: return *p != 255;
    case SCALE_UE4M3: return *p != 127 && *p != 255;
  }
  return true;
}

int64_t hf_block_bad(const char *name, const uint8_t *row, int64_t n_cols, bool *known) {
  *known = false;
  for (unsigned i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
    if (strcmp(name, layouts[i].name) != 0) continue;
    *known = true;
    int step = step_of(layouts[i].kind);
    for (int64_t b = 0; b < n_cols / layouts[i].block; b++, row += layouts[i].bytes) {
      for (int k = 0; k < layouts[i].n; k++)
        if (!is_finite(row + layouts[i].at + k * step, layouts[i].kind)) return b;
      if (layouts[i].min_at >= 0 && !is_finite(row + layouts[i].min_at, layouts[i].kind)) return b;
    }
    return -1;
  }
  return -1;
}
