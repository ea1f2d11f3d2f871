/* half.h: F16 and BF16 conversions in plain C, the definition that every vector conversion matches bit for bit.
 * Round to nearest even; NaN payloads are cut and made quiet, as VCVTPS2PH and VCVTPH2PS do. */
#ifndef HF_KERNELS_HALF_H
#define HF_KERNELS_HALF_H

#include <stdint.h>
#include <string.h>

static inline uint32_t half_bits_of(float f) {
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  return u;
}

static inline float half_float_of(uint32_t u) {
  float f;
  memcpy(&f, &u, sizeof f);
  return f;
}

static inline float half_from_f16(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000u) << 16, mag = h & 0x7fffu;
  if (mag < 0x0400u) { /* zero or subnormal: an integer number of 2^-24 */
    return half_float_of(half_bits_of((float)mag * 0x1p-24f) | sign);
  }
  if (mag < 0x7c00u) return half_float_of(sign | ((mag << 13) + (112u << 23)));
  return half_float_of(sign | 0x7f800000u | (mag & 0x3ffu) << 13 | (mag > 0x7c00u ? 0x00400000u : 0u));
}

static inline uint16_t half_to_f16(float f) {
  uint32_t u = half_bits_of(f), sign = u >> 16 & 0x8000u, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | (a >> 13 & 0x3ffu));
  if (a >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
  if (a < 0x38800000u) { /* subnormal: adding 0.5, whose last place is 2^-24, lets the FPU round */
    return (uint16_t)(sign | (half_bits_of(half_float_of(a) + 0.5f) - 0x3f000000u));
  }
  return (uint16_t)(sign | ((a + 0xfffu + (a >> 13 & 1u) - (112u << 23)) >> 13));
}

static inline float half_from_bf16(uint16_t h) {
  return half_float_of((uint32_t)h << 16);
}

static inline uint16_t half_to_bf16(float f) {
  uint32_t u = half_bits_of(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(u >> 16 | 0x40u);
  return (uint16_t)((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
}

/* E4M3: sign, four bits of exponent with bias 7, three of mantissa; no infinities, all ones is no number. */
static inline float half_from_e4m3(uint8_t b) {
  uint32_t sign = (uint32_t)(b & 0x80u) << 24, mag = b & 0x7fu;
  if (mag == 0x7fu) return half_float_of(sign | 0x7fc00000u);
  if (mag < 8) return half_float_of(half_bits_of((float)mag * 0x1p-9f) | sign);
  return half_float_of(sign | ((mag << 20) + (120u << 23)));
}

/* Beyond 448, the largest number, it is 448. */
static inline uint8_t half_to_e4m3(float f) {
  uint32_t u = half_bits_of(f), sign = u >> 24 & 0x80u, a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return (uint8_t)(sign | 0x7fu);
  if (a >= 0x43e00000u) return (uint8_t)(sign | 0x7eu);
  if (a < 0x3c800000u) { /* subnormal: adding 2^14, whose last place is 2^-9, lets the FPU round */
    return (uint8_t)(sign | (half_bits_of(half_float_of(a) + 0x1p14f) - 0x46800000u));
  }
  return (uint8_t)(sign | ((a + 0x7ffffu + (a >> 20 & 1u) - (120u << 23)) >> 20));
}

/* Loads from places that are not aligned. */
static inline uint16_t half_load_u16(const void *p) {
  uint16_t v;
  memcpy(&v, p, sizeof v);
  return v;
}

static inline float half_load_f32(const void *p) {
  float v;
  memcpy(&v, p, sizeof v);
  return v;
}

#endif
