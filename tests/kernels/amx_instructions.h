/* amx_instructions.h: the tile instructions in C, as Intel's manual (Software Developer's Manual, volume 2, LDTILECFG to TILEZERO) defines them: for tests.
 * What would be a fault on hardware (a wrong palette, shapes that do not fit, a register that was not configured) ends the process with a line
 * that names it. One set of registers per thread. */
#ifndef HF_TESTS_KERNELS_AMX_INSTRUCTIONS_H
#define HF_TESTS_KERNELS_AMX_INSTRUCTIONS_H

#define HF_AMX_MODEL
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/x86/amx.h"

/* Not in line: kernels unroll, the model is large. */
#define AMX_FUNCTION static __attribute__((noinline, unused))

typedef struct {
  bool configured;
  struct {
    int rows, row_bytes;
    uint8_t byte[AMX_ROWS][AMX_ROW_BYTES];
  } t[AMX_TILES];
} amx_state;

AMX_FUNCTION amx_state *amx_registers(void) {
  static _Thread_local amx_state s;
  return &s;
}

AMX_FUNCTION void amx_demand(bool ok, const char *what) {
  if (ok) return;
  fprintf(stderr, "AMX model: %s\n", what);
  abort();
}

AMX_FUNCTION void amx_configure(const amx_config *c) {
  amx_state *s = amx_registers();
  amx_demand(c->palette == 1 && c->start_row == 0, "LDTILECFG: palette 1 from row 0 is all there is");
  for (int i = 0; i < 14; i++) amx_demand(c->reserved[i] == 0, "LDTILECFG: a reserved byte is not zero");
  memset(s, 0, sizeof *s);
  s->configured = true;
  for (int i = 0; i < 16; i++) {
    amx_demand(i < AMX_TILES || (c->rows[i] == 0 && c->row_bytes[i] == 0), "LDTILECFG: there are eight tiles");
    amx_demand(c->rows[i] <= AMX_ROWS && c->row_bytes[i] <= AMX_ROW_BYTES, "LDTILECFG: a tile is too large");
    amx_demand((c->rows[i] == 0) == (c->row_bytes[i] == 0), "LDTILECFG: a tile with rows and no bytes, or the other way round");
    if (i >= AMX_TILES) continue;
    s->t[i].rows = c->rows[i];
    s->t[i].row_bytes = c->row_bytes[i];
  }
}

AMX_FUNCTION void amx_release(void) {
  memset(amx_registers(), 0, sizeof(amx_state));
}

AMX_FUNCTION void amx_there(int t) {
  amx_demand(amx_registers()->configured && amx_registers()->t[t].rows > 0, "a tile that is not configured");
}

AMX_FUNCTION void amx_zero(int t) {
  amx_there(t);
  memset(amx_registers()->t[t].byte, 0, sizeof amx_registers()->t[t].byte);
}

AMX_FUNCTION void amx_load(int t, const void *base, size_t stride) {
  amx_zero(t);
  for (int r = 0; r < amx_registers()->t[t].rows; r++)
    memcpy(amx_registers()->t[t].byte[r], (const char *)base + (size_t)r * stride, (size_t)amx_registers()->t[t].row_bytes);
}

AMX_FUNCTION void amx_store(int t, void *base, size_t stride) {
  amx_there(t);
  for (int r = 0; r < amx_registers()->t[t].rows; r++)
    memcpy((char *)base + (size_t)r * stride, amx_registers()->t[t].byte[r], (size_t)amx_registers()->t[t].row_bytes);
}

/* c of M x N, a of M x K, b of K x N groups of four bytes. */
AMX_FUNCTION void amx_check(int c, int a, int b) {
  const amx_state *s = amx_registers();
  amx_there(c), amx_there(a), amx_there(b);
  amx_demand(c != a && c != b && a != b, "a product needs three tiles");
  amx_demand(s->t[c].row_bytes % 4 == 0 && s->t[a].row_bytes % 4 == 0 && s->t[b].row_bytes % 4 == 0,
             "a product of broken groups");
  amx_demand(s->t[c].rows == s->t[a].rows && s->t[c].row_bytes == s->t[b].row_bytes && s->t[a].row_bytes == 4 * s->t[b].rows,
             "a product of shapes that do not fit");
}

AMX_FUNCTION void amx_dot_bytes(int c, int a, int b, bool b_signed) {
  amx_state *s = amx_registers();
  amx_check(c, a, b);
  for (int m = 0; m < s->t[c].rows; m++) {
    for (int n = 0; n < s->t[c].row_bytes / 4; n++) {
      uint32_t sum;
      memcpy(&sum, s->t[c].byte[m] + 4 * n, 4);
      for (int k = 0; k < s->t[b].rows; k++) {
        for (int i = 0; i < 4; i++) {
          int x = (int8_t)s->t[a].byte[m][4 * k + i], y = s->t[b].byte[k][4 * n + i];
          sum += (uint32_t)(x * (b_signed ? (int8_t)y : y));
        }
      }
      memcpy(s->t[c].byte[m] + 4 * n, &sum, 4);
    }
  }
}

AMX_FUNCTION void amx_dot_ss(int c, int a, int b) {
  amx_dot_bytes(c, a, b, true);
}
AMX_FUNCTION void amx_dot_su(int c, int a, int b) {
  amx_dot_bytes(c, a, b, false);
}

/* Subnormal numbers are zero, going in and coming out. */
AMX_FUNCTION float amx_flush(float f) {
  return fabsf(f) < 0x1p-126f ? copysignf(0.0f, f) : f;
}

/* First and second numbers of the groups have chains of their own from zero; their sum is added to c. */
AMX_FUNCTION void amx_dot_bf16(int c, int a, int b) {
  amx_state *s = amx_registers();
  amx_check(c, a, b);
  for (int m = 0; m < s->t[c].rows; m++) {
    for (int n = 0; n < s->t[c].row_bytes / 4; n++) {
      float sum[2] = {0, 0}, old;
      for (int k = 0; k < s->t[b].rows; k++) {
        for (int i = 0; i < 2; i++) {
          float x = amx_flush(half_from_bf16(half_load_u16(s->t[a].byte[m] + 4 * k + 2 * i)));
          float y = amx_flush(half_from_bf16(half_load_u16(s->t[b].byte[k] + 4 * n + 2 * i)));
          sum[i] = amx_flush(fmaf(x, y, sum[i]));
        }
      }
      memcpy(&old, s->t[c].byte[m] + 4 * n, 4);
      old = amx_flush(amx_flush(old) + amx_flush(sum[0] + sum[1]));
      memcpy(s->t[c].byte[m] + 4 * n, &old, 4);
    }
  }
}

#endif
