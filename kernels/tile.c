/* tile.c: from rows to tiles and back; layouts.h says what a tile is. */
#include <math.h>
#include <string.h>

#include "kernels/half.h"
#include "kernels/layouts.h"

const tile_part *tile_parts(kern_format f) {
  static const tile_part parts[KF_N][TILE_MAX_PARTS + 1] = {
      [KF_Q8_0] = {{1, 2, 1, {0}, false}, {8, 4, 1, {2}, false}},
      [KF_Q4_0] = {{1, 2, 1, {0}, false}, {4, 4, 1, {2}, false}},
      [KF_Q4_1] = {{1, 2, 1, {0}, false}, {1, 2, 1, {2}, false}, {4, 4, 1, {4}, false}},
      [KF_Q5_0] = {{1, 2, 1, {0}, false}, {1, 4, 1, {2}, true}, {4, 4, 1, {6}, false}},
      [KF_Q5_1] = {{1, 2, 1, {0}, false}, {1, 2, 1, {2}, false}, {1, 4, 1, {4}, true}, {4, 4, 1, {8}, false}},
      [KF_Q2_K] = {{1, 2, 1, {80}, false}, {1, 2, 1, {82}, false}, {16, 1, 1, {0}, false}, {16, 4, 1, {16}, false}},
      [KF_Q3_K] = {{1, 2, 1, {108}, false}, {12, 1, 1, {96}, false}, {8, 4, 2, {0, 32}, false}, {8, 4, 1, {64}, false}},
      [KF_Q4_K] = {{1, 2, 1, {0}, false}, {1, 2, 1, {2}, false}, {12, 1, 1, {4}, false}, {32, 4, 1, {16}, false}},
      [KF_Q5_K] = {{1, 2, 1, {0}, false},
                   {1, 2, 1, {2}, false},
                   {12, 1, 1, {4}, false},
                   {8, 4, 2, {16, 48}, false},
                   {24, 4, 1, {80}, false}},
      [KF_Q6_K] = {{1, 2, 1, {208}, false},
                   {16, 1, 1, {192}, false},
                   {8, 4, 3, {0, 32, 128}, false},
                   {8, 4, 3, {64, 96, 160}, false}},
      [KF_IQ4_NL] = {{1, 2, 1, {0}, false}, {4, 4, 1, {2}, false}},
      [KF_IQ4_XS] = {{1, 2, 1, {0}, false}, {1, 2, 1, {2}, false}, {4, 1, 1, {4}, false}, {32, 4, 1, {8}, false}},
      [KF_MXFP4] = {{1, 1, 1, {0}, false}, {4, 4, 1, {1}, false}},
      [KF_INT4] = {{1, 2, 1, {0}, false}, {4, 4, 1, {2}, false}},
  };
  return (unsigned)f < KF_N && parts[f][0].count > 0 ? parts[f] : NULL;
}

size_t kern_mat_bytes(kern_layout l, kern_format f, int n_rows, int n_cols) {
  size_t rows = l == KL_TILE16 ? lay_round_up((size_t)n_rows, TILE_ROWS) : (size_t)n_rows;
  return rows * kern_row_bytes(f, n_cols);
}

/* Four bits of a nibble to the lowest bits of four bytes. */
static uint32_t spread(uint32_t nibble) {
  return nibble * 0x00204081u & 0x01010101u;
}

static uint32_t to_planes(uint32_t bits) {
  uint32_t out = 0;
  for (int g = 0; g < 8; g++) out |= spread(bits >> 4 * g & 15) << g;
  return out;
}

static uint32_t from_planes(uint32_t planes) {
  uint32_t out = 0;
  for (int i = 0; i < 32; i++) out |= (planes >> (i % 4 * 8 + i / 4) & 1) << i;
  return out;
}

static void pack_planes(const uint8_t *const row[TILE_ROWS], int at, uint8_t *to) {
  for (int r = 0; r < TILE_ROWS; r++) {
    uint32_t bits;
    memcpy(&bits, row[r] + at, 4);
    bits = to_planes(bits);
    memcpy(to + 4 * r, &bits, 4);
  }
}

/* One part of 16 rows' blocks; `unit` is a constant wherever this is called. */
static inline __attribute__((always_inline)) uint8_t *pack_part(const uint8_t *const row[TILE_ROWS], const tile_part *part,
                                                                const int unit, uint8_t *to) {
  for (int k = 0; k < part->count; k++) {
    for (int i = 0; i < part->n_at; i++) {
      const int at = part->at[i] + k * unit;
      for (int r = 0; r < TILE_ROWS; r++, to += unit) memcpy(to, row[r] + at, (size_t)unit);
    }
  }
  return to;
}

static uint8_t *pack_superblock(const tile_part *part, const uint8_t *const row[TILE_ROWS], uint8_t *to) {
  for (; part->count > 0; part++) {
    if (part->planes) {
      pack_planes(row, part->at[0], to);
      to += 4 * TILE_ROWS;
    } else if (part->unit == 4) to = pack_part(row, part, 4, to);
    else if (part->unit == 2) to = pack_part(row, part, 2, to);
    else to = pack_part(row, part, 1, to);
  }
  return to;
}

/* Pairs of columns of BF16 or F16. */
static uint8_t *pack_pairs(const uint8_t *const row[TILE_ROWS], int n, uint8_t *to) {
  for (int c = 0; c < n; c += 2) {
    for (int r = 0; r < TILE_ROWS; r++, to += 4) memcpy(to, row[r] + 2 * c, 4);
  }
  return to;
}

static uint8_t *pack_fp8(const uint8_t *const row[TILE_ROWS], int n, uint8_t *to) {
  for (int r = 0; r < TILE_ROWS; r++, to += 4) {
    const float none = NAN;
    int bad = 0;
    for (int c = 0; c < n; c++) bad |= (row[r][4 + c] & 0x7f) == 0x7f;
    memcpy(to, bad ? (const void *)&none : row[r], 4);
  }
  for (int c = 4; c < n + 4; c += 4) {
    for (int r = 0; r < TILE_ROWS; r++, to += 4) memcpy(to, row[r] + c, 4);
  }
  return to;
}

static void pack_plain(const kern_mat *rows, int row0, int row1, uint8_t *tiles) {
  static const uint8_t zeros[PLAIN_CHUNK * 2 + 4];
  const bool fp8 = rows->format == KF_FP8;
  for (int r0 = row0; r0 < row1; r0 += TILE_ROWS) {
    uint8_t *to = tiles + (size_t)r0 * kern_row_bytes(rows->format, rows->n_cols);
    for (int c = 0; c < rows->n_cols; c += PLAIN_CHUNK) {
      const int n = rows->n_cols - c < PLAIN_CHUNK ? rows->n_cols - c : PLAIN_CHUNK;
      const uint8_t *row[TILE_ROWS];
      for (int r = 0; r < TILE_ROWS; r++)
        row[r] = r0 + r < rows->n_rows
                     ? (const uint8_t *)rows->data + (size_t)(r0 + r) * rows->row_bytes + kern_row_bytes(rows->format, c)
                     : zeros;
      to = fp8 ? pack_fp8(row, n, to) : pack_pairs(row, n, to);
    }
  }
}

static void plain_dequant(kern_format f, const uint8_t *p, int n, float *out) {
  for (int i = 0; i < n; i++) {
    if (f == KF_F32) out[i] = half_load_f32(p + (size_t)i * 4);
    else if (f == KF_F16) out[i] = half_from_f16(half_load_u16(p + (size_t)i * 2));
    else if (f == KF_BF16) out[i] = half_from_bf16(half_load_u16(p + (size_t)i * 2));
    else out[i] = half_from_e4m3(p[4 + i]) * half_load_f32(p);
  }
}

void plain_columns(const kern_mat *w, int r, int c, int n, float *out) {
  const size_t at = kern_row_bytes(w->format, c);
  if (w->layout == KL_ROWS) {
    plain_dequant(w->format, (const uint8_t *)w->data + (size_t)r * w->row_bytes + at, n, out);
    return;
  }
  uint8_t some[PLAIN_CHUNK * 2 + 4];
  const int row = r % TILE_ROWS;
  const uint8_t *from = (const uint8_t *)w->data + (size_t)(r - row) * w->row_bytes + TILE_ROWS * at + 4 * row;
  if (w->format == KF_FP8) {
    memcpy(some, from, 4);
    from += 4 * TILE_ROWS;
    for (int i = 0; i < n; i += 4, from += 4 * TILE_ROWS) memcpy(some + 4 + i, from, 4);
  } else {
    for (int i = 0; i < n; i += 2, from += 4 * TILE_ROWS) memcpy(some + 2 * i, from, 4);
  }
  plain_dequant(w->format, some, n, out);
}

void kern_tile_pack(const kern_mat *rows, int row0, int row1, void *tiles) {
  static const uint8_t zeros[256]; /* a block is never larger */
  if (kern_block(rows->format) == 1) {
    pack_plain(rows, row0, row1, tiles);
    return;
  }
  const tile_part *part = tile_parts(rows->format);
  const int block = kern_block(rows->format);
  const size_t bytes = kern_row_bytes(rows->format, block), row_bytes = kern_row_bytes(rows->format, rows->n_cols);
  for (int r0 = row0; r0 < row1; r0 += TILE_ROWS) {
    uint8_t *to = (uint8_t *)tiles + (size_t)r0 * row_bytes;
    const uint8_t *row[TILE_ROWS];
    bool here[TILE_ROWS];
    for (int r = 0; r < TILE_ROWS; r++) {
      here[r] = r0 + r < rows->n_rows;
      row[r] = here[r] ? (const uint8_t *)rows->data + (size_t)(r0 + r) * rows->row_bytes : zeros;
    }
    for (int c = 0; c < rows->n_cols; c += block) {
      to = pack_superblock(part, row, to);
      for (int r = 0; r < TILE_ROWS; r++) row[r] += here[r] ? bytes : 0;
    }
  }
}

void tile_block(const kern_mat *w, int r, int b, uint8_t *block) {
  const size_t bytes = kern_row_bytes(w->format, kern_block(w->format));
  const uint8_t *from = (const uint8_t *)w->data + (size_t)(r - r % TILE_ROWS) * w->row_bytes + (size_t)b * TILE_ROWS * bytes;
  for (const tile_part *part = tile_parts(w->format); part->count > 0; part++) {
    for (int k = 0; k < part->count; k++) {
      for (int i = 0; i < part->n_at; i++, from += TILE_ROWS * part->unit)
        memcpy(block + part->at[i] + k * part->unit, from + r % TILE_ROWS * part->unit, part->unit);
    }
    if (part->planes) {
      uint32_t bits;
      memcpy(&bits, block + part->at[0], 4);
      bits = from_planes(bits);
      memcpy(block + part->at[0], &bits, 4);
    }
  }
}

void kern_mat_row(const kern_mat *w, int r, float *out) {
  const int block = kern_block(w->format);
  uint8_t one[256];
  if (w->layout == KL_ROWS) {
    kern_dequant_row(w->format, (const char *)w->data + (size_t)r * w->row_bytes, w->n_cols, out);
    return;
  }
  for (int c = 0; block == 1 && c < w->n_cols; c += PLAIN_CHUNK)
    plain_columns(w, r, c, w->n_cols - c < PLAIN_CHUNK ? w->n_cols - c : PLAIN_CHUNK, out + c);
  for (int c = 0; block > 1 && c < w->n_cols; c += block) {
    tile_block(w, r, c / block, one);
    kern_dequant_row(w->format, one, block, out + c);
  }
}
