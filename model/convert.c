/* convert.c: element conversions for the formats that hold vectors and embedding rows. */
#include <string.h>

#include "model/internal.h"

float f16_to_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023, u;
  if (e == 31) u = sign | 0x7f800000 | m << 13;
  else if (e > 0) u = sign | (e + 112) << 23 | m << 13;
  else if (m == 0) u = sign;
  else { /* subnormal: normalise */ int shift = __builtin_clz(m) - 21;
    u = sign | (uint32_t)(113 - shift) << 23 | (m << shift & 1023) << 13;
  }
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

uint16_t f32_to_f16(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  uint16_t sign = (uint16_t)(u >> 16 & 0x8000);
  uint32_t a = u & 0x7fffffff;
  if (a >= 0x7f800000) return (uint16_t)(sign | 0x7c00 | (a > 0x7f800000 ? 0x200 : 0));
  if (a >= 0x477ff000) return sign | 0x7c00; /* rounds to infinity */
  if (a < 0x33000000) return sign;           /* below half the least subnormal */
  int shift = 13;
  uint32_t m = a - 0x38000000; /* rebias 127 -> 15 */
  if (a < 0x38800000) {        /* subnormal result */
    shift = 126 - (int)(a >> 23);
    m = (a & 0x7fffff) | 0x800000;
  }
  uint32_t half = 1u << (shift - 1), rest = m & ((1u << shift) - 1);
  m >>= shift;
  if (rest > half || (rest == half && (m & 1))) m++;
  return (uint16_t)(sign | m);
}

static void dequant_q8_0(const uint8_t *p, int64_t n, float *out) {
  for (int64_t b = 0; b < n / 32; b++, p += 34) {
    uint16_t h;
    memcpy(&h, p, 2);
    float d = f16_to_f32(h);
    for (int i = 0; i < 32; i++) out[b * 32 + i] = d * (int8_t)p[2 + i];
  }
}

hf_status dequant_row(fmt f, const void *row, int64_t n, float *out) {
  const uint8_t *p = row;
  uint16_t h;
  switch (f) {
    case FMT_F32: memcpy(out, row, (size_t)n * 4); return HF_OK;
    case FMT_F16:
      for (int64_t i = 0; i < n; i++) {
        memcpy(&h, p + 2 * i, 2);
        out[i] = f16_to_f32(h);
      }
      return HF_OK;
    case FMT_BF16:
      for (int64_t i = 0; i < n; i++) {
        memcpy(&h, p + 2 * i, 2);
        out[i] = bf16_to_f32(h);
      }
      return HF_OK;
    case FMT_Q8_0: dequant_q8_0(p, n, out); return HF_OK;
    default:
      return hf_fail(HF_UNSUPPORTED, "weight format %s cannot be read as numbers here; known: f32, f16, bf16, q8_0",
                     fmt_get(f)->name);
  }
}
