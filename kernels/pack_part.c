/* pack_part.c: a piece of a packed activation. */
#include <string.h>

#include "kernels/layouts.h"

/* Whole blocks from the packing of a piece; at the end of the vector the zeros behind them, too. */
static void put(char *to, size_t at, const char *from, size_t bytes, bool last, size_t end) {
  memcpy(to + at, from, bytes);
  if (last) memset(to + at + bytes, 0, end - at - bytes);
}

void kern_pack_part(kern_act a, const float *x, int lo, int hi, int n, void *out) {
  enum { PIECE = 512 };
  _Alignas(64) char packed[PIECE * 4];
  for (int c = lo; c < hi; c += PIECE) {
    int m = hi - c < PIECE ? hi - c : PIECE, nb = q8b32_blocks(m);
    bool last = c + m == n;
    size_t block = (size_t)c / Q8_BLOCK, elem = a == KA_F32 ? 4 : 2;
    kern_get()->pack[a](x + (c - lo), m, packed);
    if (a != KA_Q8B32) {
      put(out, (size_t)c * elem, packed, (size_t)m * elem, last, kern_act_bytes(a, n));
      continue;
    }
    put(out, (size_t)c, packed, (size_t)nb * Q8_BLOCK, last, q8b32_scales_offset(n));
    put(out, q8b32_scales_offset(n) + block * 4, packed + q8b32_scales_offset(m), (size_t)nb * 4, last, q8b32_sums32_offset(n));
    put(out, q8b32_sums32_offset(n) + block * 4, packed + q8b32_sums32_offset(m), (size_t)nb * 4, last, q8b32_sums16_offset(n));
    put(out, q8b32_sums16_offset(n) + block * 8, packed + q8b32_sums16_offset(m), (size_t)nb * 8, last, q8b32_less_offset(n));
    put(out, q8b32_less_offset(n) + block * 4, packed + q8b32_less_offset(m), (size_t)nb * 4, last, q8b32_bytes(n));
  }
}
