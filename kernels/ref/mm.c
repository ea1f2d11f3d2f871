/* mm.c: the definition of the matrix products. Every (format, act) pair differs only in how one weight and one activation
 * become f32, so each product is a row function; the walk over rows and tokens is shared.
 *
 * Sums go into eight interleaved partial sums: closer to the exact sum than one long chain, and fixed for every shape. */
#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/ref/blocks.h"
#include "kernels/ref/ref.h"

enum { LANES = 8 };

static float lanes_sum(const float *s) {
  return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

enum { TOKENS = 8 };

static float element(kern_act a, const void *x, int c) {
  if (a == KA_F32) return ((const float *)x)[c];
  return a == KA_F16 ? half_from_f16(((const uint16_t *)x)[c]) : half_from_bf16(((const uint16_t *)x)[c]);
}

/* Weights without blocks, widened a chunk at a time, for up to TOKENS tokens; how many there are changes no sum. */
static inline __attribute__((always_inline)) void walk_plain(const kern_act a, const kern_mat *w, int row0, int row1, int n_tok,
                                                             const void *const *x, float *const *y) {
  float wide[PLAIN_CHUNK];
  for (int r = row0; r < row1; r++) {
    for (int t0 = 0; t0 < n_tok; t0 += TOKENS) {
      float s[TOKENS][LANES] = {{0}};
      int n = n_tok - t0 < TOKENS ? n_tok - t0 : TOKENS;
      for (int c = 0; c < w->n_cols; c += PLAIN_CHUNK) {
        int m = w->n_cols - c < PLAIN_CHUNK ? w->n_cols - c : PLAIN_CHUNK;
        plain_columns(w, r, c, m, wide);
        for (int t = 0; t < n; t++)
          for (int i = 0; i < m; i++) s[t][i % LANES] += wide[i] * element(a, x[t0 + t], c + i);
      }
      for (int t = 0; t < n; t++) y[t0 + t][r] = lanes_sum(s[t]);
    }
  }
}

void kern_mm_plain_f32_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk_plain(KA_F32, w, row0, row1, n_tok, x, y);
}

void kern_mm_plain_f16_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk_plain(KA_F16, w, row0, row1, n_tok, x, y);
}

void kern_mm_plain_bf16_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk_plain(KA_BF16, w, row0, row1, n_tok, x, y);
}

/* Blocks: one is taken apart once for up to TOKENS tokens; how many there are changes no sum. */
typedef void block_fn(const ref_block *b, const ref_blocks *how, int block, const void *x, int n_cols, int c, float *s);

static inline void walk_blocks(block_fn *add, const kern_mat *w, int row0, int row1, int n_tok, const void *const *x,
                               float *const *y) {
  const ref_blocks *how = ref_blocks_of(w->format);
  const int block = kern_block(w->format);
  const size_t bytes = kern_row_bytes(w->format, block);
  ref_block b;
  uint8_t gathered[REF_BLOCK_MAX];
  for (int r = row0; r < row1; r++) {
    for (int t0 = 0; t0 < n_tok; t0 += TOKENS) {
      const uint8_t *p = (const uint8_t *)w->data + (size_t)r * w->row_bytes;
      float s[TOKENS][LANES] = {{0}};
      int n = n_tok - t0 < TOKENS ? n_tok - t0 : TOKENS;
      for (int c = 0; c < w->n_cols; c += block, p += bytes) {
        if (w->layout == KL_TILE16) tile_block(w, r, c / block, gathered);
        how->decode(w->layout == KL_TILE16 ? gathered : p, &b);
        for (int t = 0; t < n; t++) add(&b, how, block, x[t0 + t], w->n_cols, c, s[t]);
      }
      for (int t = 0; t < n; t++) y[t0 + t][r] = lanes_sum(s[t]);
    }
  }
}

/* One group after the other into the lane of its number in the row. */
static void block_q8b32(const ref_block *b, const ref_blocks *how, int block, const void *x, int n_cols, int c, float *s) {
  const int8_t *q = (const int8_t *)x + c;
  const float *d = (const float *)(const void *)((const char *)x + q8b32_scales_offset(n_cols)) + c / Q8_BLOCK;
  for (int g = 0; g < block / how->group; g++) {
    int dot = 0, sum = 0, first = g * how->group;
    for (int i = first; i < first + how->group; i++) {
      dot += b->q[i] * q[i];
      sum += q[i];
    }
    float *lane = &s[(c / how->group + g) % LANES], dx = d[first / Q8_BLOCK];
    *lane += (float)dot * (b->scale[g] * dx);
    if (how->has_min) *lane -= b->min[g] * (dx * (float)sum);
  }
}

static void block_f32(const ref_block *b, const ref_blocks *how, int block, const void *x, int n_cols, int c, float *s) {
  const float *a = (const float *)x + c;
  (void)n_cols;
  for (int i = 0; i < block; i++) {
    float v = b->scale[i / how->group] * (float)b->q[i];
    if (how->has_min) v -= b->min[i / how->group];
    s[i % LANES] += v * a[i];
  }
}

void kern_mm_blocks_q8b32_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk_blocks(block_q8b32, w, row0, row1, n_tok, x, y);
}

void kern_mm_blocks_f32_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk_blocks(block_f32, w, row0, row1, n_tok, x, y);
}
