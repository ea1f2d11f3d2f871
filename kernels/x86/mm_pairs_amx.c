/* Products of BF16 and FP8 in tiles with AMX, for many tokens. 32 columns of 16 rows are 1 KB of BF16 as they lie, one b register; FP8 is turned into
 * the same, 128 columns at a time. Two tiles of rows meet two groups of 16 tokens, so that each register loaded is used twice. Tokens that do not
 * lie at equal distances are copied together, a chunk of columns for a block of tiles.
 *
 * A row's sum for a token meets its columns in rising order, 32 at a time, whatever stands in the other rows of the registers: that is batch
 * invariance. */
#include <stdbool.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/x86/amx.h"
#include "kernels/x86/x86.h"
#ifdef __AVX512VBMI__
#include <immintrin.h>
#endif

#ifndef PA_MM
#define PA_MM(format) kern_mm_tile_##format##_amx
#endif

enum { PA_GROUP = 16, PA_BATCH = 2 * PA_GROUP, PA_TILES = 8, PA_CHUNK = 512, PA_STEP = 32, STEP_BYTES = PA_STEP * 2 * TILE_ROWS };

/* c registers of (group, tile), a of a group, b of a tile */
#define PA_C00 0
#define PA_C01 1
#define PA_C10 2
#define PA_C11 3
#define PA_A0 4
#define PA_A1 5
#define PA_B0 6
#define PA_B1 7

static void configure(int n_tok) {
  const int n0 = n_tok < PA_GROUP ? n_tok : PA_GROUP, n1 = n_tok - n0;
  amx_config k = {.palette = 1};
  k.rows[PA_C00] = k.rows[PA_C01] = k.rows[PA_A0] = (uint8_t)n0;
  k.rows[PA_C10] = k.rows[PA_C11] = k.rows[PA_A1] = (uint8_t)n1;
  k.rows[PA_B0] = k.rows[PA_B1] = PA_STEP / 2;
  for (int i = 0; i < AMX_TILES; i++) k.row_bytes[i] = k.rows[i] ? AMX_ROW_BYTES : 0;
  amx_configure(&k);
}

/* Where a chunk of the tokens' columns lies. */
typedef struct {
  const char *p;
  size_t stride;
} tokens;

typedef float sums[PA_BATCH][TILE_ROWS];

/* `steps` times 32 columns of one or two tiles for one or two groups of tokens, added to c. */
static inline __attribute__((always_inline)) void panel(const bool two_groups, const bool two_tiles, tokens a, const uint8_t *b0,
                                                        const uint8_t *b1, int steps, sums *c0, sums *c1) {
  amx_load(PA_C00, (*c0)[0], AMX_ROW_BYTES);
  if (two_tiles) amx_load(PA_C01, (*c1)[0], AMX_ROW_BYTES);
  if (two_groups) amx_load(PA_C10, (*c0)[PA_GROUP], AMX_ROW_BYTES);
  if (two_groups && two_tiles) amx_load(PA_C11, (*c1)[PA_GROUP], AMX_ROW_BYTES);
  for (int s = 0; s < steps; s++, a.p += AMX_ROW_BYTES, b0 += STEP_BYTES, b1 += STEP_BYTES) {
    amx_load(PA_A0, a.p, a.stride);
    amx_load(PA_B0, b0, AMX_ROW_BYTES);
    amx_dot_bf16(PA_C00, PA_A0, PA_B0);
    if (two_tiles) {
      amx_load(PA_B1, b1, AMX_ROW_BYTES);
      amx_dot_bf16(PA_C01, PA_A0, PA_B1);
    }
    if (two_groups) {
      amx_load(PA_A1, a.p + PA_GROUP * a.stride, a.stride);
      amx_dot_bf16(PA_C10, PA_A1, PA_B0);
      if (two_tiles) amx_dot_bf16(PA_C11, PA_A1, PA_B1);
    }
  }
  amx_store(PA_C00, (*c0)[0], AMX_ROW_BYTES);
  if (two_tiles) amx_store(PA_C01, (*c1)[0], AMX_ROW_BYTES);
  if (two_groups) amx_store(PA_C10, (*c0)[PA_GROUP], AMX_ROW_BYTES);
  if (two_groups && two_tiles) amx_store(PA_C11, (*c1)[PA_GROUP], AMX_ROW_BYTES);
}

/* b1, c1 NULL: one tile. */
static void product(int n_tok, tokens a, const uint8_t *b0, const uint8_t *b1, int steps, sums *c0, sums *c1) {
  if (n_tok > PA_GROUP && c1) panel(true, true, a, b0, b1, steps, c0, c1);
  else if (n_tok > PA_GROUP) panel(true, false, a, b0, b0, steps, c0, c0);
  else if (c1) panel(false, true, a, b0, b1, steps, c0, c1);
  else panel(false, false, a, b0, b0, steps, c0, c0);
}

/* Columns [c, c + n) of n_tok tokens: where they lie when their distances are equal, else copied to `room`. */
static tokens gather(int n_tok, const void *const *x, int c, int n, uint16_t (*room)[PA_CHUNK]) {
  const char *p = x[0];
  const ptrdiff_t apart = n_tok > 1 ? (const char *)x[1] - p : AMX_ROW_BYTES;
  bool equal = apart > 0;
  for (int t = 2; t < n_tok; t++) equal = equal && (const char *)x[t] - (const char *)x[t - 1] == apart;
  if (equal) return (tokens){p + (size_t)c * 2, (size_t)apart};
  for (int t = 0; t < n_tok; t++) memcpy(room[t], (const uint16_t *)x[t] + c, (size_t)n * 2);
  return (tokens){(const char *)room[0], sizeof room[0]};
}

static void put(const sums *c, int n_tiles, int r0, int row0, int row1, int n_tok, float *const *y) {
  for (int i = 0; i < n_tiles; i++) {
    const int first = r0 + i * TILE_ROWS, lo = first < row0 ? row0 : first,
              hi = first + TILE_ROWS < row1 ? first + TILE_ROWS : row1;
    for (int t = 0; t < n_tok; t++) memcpy(y[t] + lo, c[i][t] + (lo - first), (size_t)(hi - lo) * sizeof(float));
  }
}

/* A block of tiles at p for a batch of tokens. */
static void bf16_block(const kern_mat *w, const uint8_t *p, int n_tiles, int n_tok, const void *const *x, sums *c) {
  _Alignas(64) uint16_t room[PA_BATCH][PA_CHUNK];
  const size_t tile_bytes = TILE_ROWS * w->row_bytes;
  for (int col = 0; col < w->n_cols; col += PA_CHUNK) {
    const int n = w->n_cols - col < PA_CHUNK ? w->n_cols - col : PA_CHUNK;
    const tokens a = gather(n_tok, x, col, n, room);
    const uint8_t *b = p + (size_t)col * 2 * TILE_ROWS;
    for (int i = 0; i < n_tiles; i += 2) {
      const bool two = i + 1 < n_tiles;
      product(n_tok, a, b + (size_t)i * tile_bytes, b + (size_t)(i + 1) * tile_bytes, n / PA_STEP, &c[i], two ? &c[i + 1] : NULL);
    }
  }
}

/* ---- FP8 ---- */

typedef struct {
#ifdef __AVX512VBMI__
  __m512i lower[2], upper[2];
#endif
  uint16_t bf16[256];
} fp8_tables;

static void make_tables(fp8_tables *k) {
  uint8_t lower[128], upper[128];
  for (int i = 0; i < 256; i++) {
    k->bf16[i] = (uint16_t)(half_bits_of(half_from_e4m3((uint8_t)i)) >> 16);
    lower[i % 128] = (uint8_t)k->bf16[i];
    upper[i % 128] = (uint8_t)(k->bf16[i] >> 8 & 0x7f);
  }
#ifdef __AVX512VBMI__
  for (int i = 0; i < 2; i++) {
    k->lower[i] = _mm512_loadu_si512(lower + 64 * i);
    k->upper[i] = _mm512_loadu_si512(upper + 64 * i);
  }
#else
  (void)lower, (void)upper;
#endif
}

/* A unit of four columns of 16 rows to two pairs of columns of 16 rows. */
static void unit_to_bf16(const fp8_tables *k, const uint8_t *p, uint8_t *to) {
#ifdef __AVX512VBMI__
  const __m512i first = _mm512_setr_epi32(0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30);
  __m512i b = _mm512_loadu_si512(p);
  __m512i lower = _mm512_permutex2var_epi8(k->lower[0], b, k->lower[1]),
          upper = _mm512_permutex2var_epi8(k->upper[0], b, k->upper[1]);
  upper = _mm512_ternarylogic_epi32(upper, b, _mm512_set1_epi8((char)0x80), 0xf8); /* upper | (b & sign) */
  __m512i even = _mm512_unpacklo_epi8(lower, upper),
          odd = _mm512_unpackhi_epi8(lower, upper); /* rows 0 1 4 5 ..., rows 2 3 6 7 ... */
  _mm512_storeu_si512(to, _mm512_permutex2var_epi32(even, first, odd));
  _mm512_storeu_si512(to + 64, _mm512_permutex2var_epi32(even, _mm512_add_epi32(first, _mm512_set1_epi32(1)), odd));
#else
  for (int i = 0; i < 64; i++) memcpy(to + i / 2 % 2 * 64 + i / 4 * 4 + i % 2 * 2, &k->bf16[p[i]], 2);
#endif
}

/* n columns of a tile's chunk at p, its scales left out. */
static void chunk_to_bf16(const fp8_tables *k, const uint8_t *p, int n, uint8_t *to) {
  for (int c = 0; c < n; c += 4, to += 128) unit_to_bf16(k, p + TILE_ROWS * (4 + c), to);
}

static void add_scaled(const uint8_t *scales, const sums *from, int n_tok, sums *to) {
  float s[TILE_ROWS];
  memcpy(s, scales, sizeof s);
  for (int t = 0; t < n_tok; t++)
    for (int r = 0; r < TILE_ROWS; r++) (*to)[t][r] += s[r] * (*from)[t][r];
}

static void fp8_block(const kern_mat *w, const uint8_t *p, int n_tiles, int n_tok, const void *const *x, sums *c) {
  fp8_tables k;
  _Alignas(64) uint16_t room[PA_BATCH][PA_CHUNK];
  _Alignas(64) uint8_t wide[2][FP8_BLOCK * 2 * TILE_ROWS];
  _Alignas(64) sums part[2];
  const size_t tile_bytes = TILE_ROWS * w->row_bytes;
  make_tables(&k);
  for (int col = 0; col < w->n_cols; col += FP8_BLOCK) {
    const int n = w->n_cols - col < FP8_BLOCK ? w->n_cols - col : FP8_BLOCK;
    const tokens a = gather(n_tok, x, col, n, room);
    for (int i = 0; i < n_tiles; i += 2) {
      const int some = i + 1 < n_tiles ? 2 : 1;
      const uint8_t *b = p + (size_t)i * tile_bytes;
      for (int j = 0; j < some; j++) chunk_to_bf16(&k, b + (size_t)j * tile_bytes, n, wide[j]);
      memset(part, 0, sizeof part);
      product(n_tok, a, wide[0], wide[1], n / PA_STEP, &part[0], some > 1 ? &part[1] : NULL);
      for (int j = 0; j < some; j++) add_scaled(b + (size_t)j * tile_bytes, &part[j], n_tok, &c[i + j]);
    }
    p += TILE_ROWS * ((size_t)n + sizeof(float));
  }
}

typedef void block_fn(const kern_mat *w, const uint8_t *p, int n_tiles, int n_tok, const void *const *x, sums *c);

static inline void walk(block_fn *block, const kern_mat *w, int row0, int row1, int n_tok, const void *const *x,
                        float *const *y) {
  _Alignas(64) sums c[PA_TILES];
  for (int t = 0, n; t < n_tok; t += n) {
    n = n_tok - t < PA_BATCH ? n_tok - t : PA_BATCH;
    configure(n);
    for (int r0 = row0 / TILE_ROWS * TILE_ROWS, n_tiles; r0 < row1; r0 += n_tiles * TILE_ROWS) {
      n_tiles = (row1 - r0 + TILE_ROWS - 1) / TILE_ROWS;
      n_tiles = n_tiles < PA_TILES ? n_tiles : PA_TILES;
      memset(c, 0, (size_t)n_tiles * sizeof c[0]);
      block(w, (const uint8_t *)w->data + (size_t)r0 * w->row_bytes, n_tiles, n, x + t, c);
      put((const sums *)c, n_tiles, r0, row0, row1, n, y + t);
    }
  }
  amx_release();
}

void PA_MM(bf16)(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk(bf16_block, w, row0, row1, n_tok, x, y);
}

void PA_MM(fp8)(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk(fp8_block, w, row0, row1, n_tok, x, y);
}
