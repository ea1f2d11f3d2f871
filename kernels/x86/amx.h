/* amx.h: the tile instructions that the kernels use. Tile numbers are macros of one digit. Where HF_AMX_MODEL is
 * defined others have given them: tests/kernels/amx_instructions.h, a model in C, with which the same kernels are checked on any machine.
 *
 * Eight registers of up to 16 rows of up to 64 bytes. amx_configure gives each its rows and bytes a row; products want
 *   c: M rows of N floats or int32    a: M rows of K groups of 4 bytes    b: K rows of N groups of 4 bytes
 * and add to c[m][n] the products of group k of row m of a with group n of row k of b: four int8 with four int8 (dot_ss) or four uint8 (dot_su),
 * or two BF16 with two BF16. So a row of b holds what 16 rows of weights have in four (two) neighbouring columns: a 64-byte unit of KL_TILE16. */
#ifndef HF_KERNELS_X86_AMX_H
#define HF_KERNELS_X86_AMX_H

#include <stddef.h>
#include <stdint.h>

enum { AMX_TILES = 8, AMX_ROWS = 16, AMX_ROW_BYTES = 64 };

/* What LDTILECFG reads. */
typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} amx_config;

#ifndef HF_AMX_MODEL
#include <immintrin.h>

/* gcc's intrinsics do not say that they read memory. */
#define AMX_MEMORY() __asm__ volatile("" ::: "memory")
#define amx_configure(config) \
  do {                        \
    AMX_MEMORY();             \
    _tile_loadconfig(config); \
  } while (0)
#define amx_release() _tile_release()
#define amx_zero(t) _tile_zero(t)
#define amx_load(t, base, stride) \
  do {                            \
    AMX_MEMORY();                 \
    _tile_loadd(t, base, stride); \
  } while (0)
#define amx_store(t, base, stride) _tile_stored(t, base, stride)
#define amx_dot_ss(c, a, b) _tile_dpbssd(c, a, b)
#define amx_dot_su(c, a, b) _tile_dpbsud(c, a, b)
#define amx_dot_bf16(c, a, b) _tile_dpbf16ps(c, a, b)
#endif

#endif
