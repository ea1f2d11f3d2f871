/* layouts.h: how blocks lie in memory; private to kernels.
 *
 * Rows: blocks one after another as the file format has them (ggml's block definitions).
 *
 * Q8B32 activation of n elements, nb = ceil(n/32) blocks: int8 q[nb*32] padded with zeros to a multiple of 256 bytes, then
 * f32 d[nb], int32 minus the sum of q of each block [nb] and of each half block [2 nb], f32 d times the former [nb], which minima are
 * multiplied by, each padded with zeros to a multiple of 64 bytes; so kernels may read whole groups of eight blocks.
 *
 * Tile (KL_TILE16): 16 rows in the lanes of a vector. Tile t holds rows 16t..16t+15 in 16 * row_bytes bytes; rows that do not exist are zero.
 * A tile is a run of superblocks, one per block of columns, of 16 * block_bytes each. In a superblock the parts of the block follow each
 * other (tile_parts), each cut into units that are interleaved over the 16 rows: unit 0 of rows 0..15, unit 1 of rows 0..15 and so on. Quants
 * have units of 4 bytes, so that a vector of 16 x 4 bytes meets four activations in a dot product of bytes. Only the order of bytes differs
 * from rows, except the fifth bits of Q5_0 and Q5_1: bit 4g + i of a row's word becomes bit g of byte i.
 *
 * Tiles of formats without blocks: BF16 and F16 have units of two columns, so that 64 bytes are a pair of columns of 16 rows: what VDPBF16PS takes,
 * and a row of a tile register of AMX. FP8: per 128 columns 16 scales, then units of four columns. A row in which a block of FP8 holds a NaN has a NaN for that scale in its tile,
 * so that products need not look for it. */
#ifndef HF_KERNELS_LAYOUTS_H
#define HF_KERNELS_LAYOUTS_H

#include "kernels/kernels.h"

enum { Q8_BLOCK = 32, Q8_BLOCK_BYTES = 34, FP8_BLOCK = 128 };

static inline size_t lay_round_up(size_t n, size_t to) {
  return (n + to - 1) / to * to;
}

static inline int q8b32_blocks(int n) {
  return (n + Q8_BLOCK - 1) / Q8_BLOCK;
}

static inline size_t q8b32_scales_offset(int n) {
  return lay_round_up((size_t)q8b32_blocks(n) * Q8_BLOCK, 256);
}

/* Of the negative sums, of whole and of half blocks. */
static inline size_t q8b32_sums32_offset(int n) {
  return q8b32_scales_offset(n) + lay_round_up((size_t)q8b32_blocks(n) * sizeof(float), 64);
}

static inline size_t q8b32_sums16_offset(int n) {
  return q8b32_sums32_offset(n) + lay_round_up((size_t)q8b32_blocks(n) * sizeof(int32_t), 64);
}

static inline size_t q8b32_less_offset(int n) {
  return q8b32_sums16_offset(n) + lay_round_up((size_t)q8b32_blocks(n) * 2 * sizeof(int32_t), 64);
}

static inline size_t q8b32_bytes(int n) {
  return q8b32_less_offset(n) + lay_round_up((size_t)q8b32_blocks(n) * sizeof(float), 64);
}

/* q8b32_bytes(256), for buffers of a piece at a time; a test holds it to that. */
enum { Q8B32_BYTES_OF_256 = 512 };

enum { TILE_ROWS = 16 };

/* A KV head in a group of the cache in Q8_0 (kernels.h): where its parts begin, and how long it is. */
typedef struct {
  int k_blocks, v_blocks;
  size_t k_scales, values, v_scales, bytes;
} kv_q8_head;
enum { KV_Q8_BLOCK_BYTES = KERN_KV_GROUP * Q8_BLOCK_BYTES, KV_Q8_SCALES_BYTES = KERN_KV_GROUP * 2 /* of a block */ };

static inline kv_q8_head kv_q8_head_of(int k, int v) {
  kv_q8_head h = {.k_blocks = q8b32_blocks(k), .v_blocks = q8b32_blocks(v)};
  h.k_scales = (size_t)h.k_blocks * Q8_BLOCK * KERN_KV_GROUP;
  h.values = (size_t)h.k_blocks * KV_Q8_BLOCK_BYTES;
  h.v_scales = h.values + (size_t)h.v_blocks * Q8_BLOCK * KERN_KV_GROUP;
  h.bytes = h.values + (size_t)h.v_blocks * KV_Q8_BLOCK_BYTES;
  return h;
}

/* The group that holds token i. */
static inline const char *kv_group(const kern_kv *kv, int i) {
  return kern_kv_row(kv, i / KERN_KV_GROUP * KERN_KV_GROUP);
}

/* Whether heads lie in groups. */
static inline bool kv_in_groups(const kern_kv *kv) {
  return kern_kv_grain(true, kv->page_tokens) > 1;
}

/* A head's part of a group in F32, F16 or BF16: keys, then values from this byte on. */
typedef struct {
  size_t values, bytes;
} kv_head;
static inline kv_head kv_head_of(kern_kv_type t, int k, int v) {
  const size_t elem = t == KV_F32 ? 4 : 2, values = (size_t)k * KERN_KV_GROUP * elem;
  return (kv_head){values, values + (size_t)v * KERN_KV_GROUP * elem};
}

/* Part of a block: `count` units of 1, 2 or 4 bytes from byte at[0] of a row's block on; with at[1] and at[2] the units of two or three places
 * take turns, so that a product which needs them together reads memory in rising order: two or three streams in one page defeat the
 * prefetcher (measured on Zen 4: a third of the bandwidth). */
typedef struct {
  uint8_t count, unit;
  uint8_t n_at, at[3];
  bool planes; /* the fifth bits, see above */
} tile_part;

enum { TILE_MAX_PARTS = 5 };
/* Parts in the order in which they lie in a superblock; a part of 0 units ends them. NULL: the format has no tiles. */
const tile_part *tile_parts(kern_format f);
/* Block b of row r of a tiled matrix, as a row has it. */
void tile_block(const kern_mat *w, int r, int b, uint8_t *block);

enum { PLAIN_CHUNK = FP8_BLOCK };
/* Columns [c, c + n) of row r of a matrix without blocks, in any layout, as f32; c a multiple of PLAIN_CHUNK, n <= PLAIN_CHUNK. */
void plain_columns(const kern_mat *w, int r, int c, int n, float *out);

#endif
