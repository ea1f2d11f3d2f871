/* Q8_0 x Q8B32 with VPDPBUSD, two bodies with the same bits.
 *
 * A block's integer sum is exact however it is computed, so only the f32 order is binding: y[t][r] is eight chains, chain j adds
 * float(sum_b) * (dw_b * dx_b) by FMA over the blocks b = j, j + 8, j + 16 ... in rising order, and the chains are added in the
 * fixed order of v256_sum.
 *
 * VPDPBUSD multiplies unsigned by signed bytes. The activation is made unsigned by adding 128 (xor 0x80); the surplus
 * 128 * sum(w) depends on the weights alone and goes in as the negative start of the integer sum.
 *
 *  rows body    few tokens: eight blocks of a row at a time, their sums brought into the eight lanes of a vector = the chains.
 *  lanes body   many tokens: sixteen tokens lie in the lanes, weights are broadcast four bytes at a time, so no sum across lanes
 *               is needed. Activations are transposed once per strip of columns that stays in the first-level cache, for up to
 *               LANE_ROWS rows; the chains of those rows wait in memory between strips. */
#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

enum { GROUP = 8, GROUP_BYTES = GROUP * Q8_BLOCK_BYTES, LANES = 16, STRIP_BLOCKS = 32, LANE_ROWS = 64 };
/* From here on the lanes body wins, measured on Zen 4. */
enum { LANES_FROM_TOKENS = 9, LANES_FROM_ROWS = 16 };

#define INLINE static inline __attribute__((always_inline))

typedef struct {
  __m512i q[4]; /* blocks 2i and 2i+1 */
  __m512i start[4];
  __m256 d;
} row_group;

static const char *row_at(const kern_mat *w, int r) {
  return (const char *)w->data + (size_t)r * w->row_bytes;
}

/* Minus 128 times the sums of four neighbours, as VPDPBUSD lays them out. */
INLINE __m512i surplus(__m512i q) {
  __m512i s = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8((char)0x80), q);
  return _mm512_sub_epi32(_mm512_setzero_si512(), s);
}

INLINE __m256i quants(const char *block) {
  return _mm256_loadu_si256((const void *)(block + 2));
}

/* n blocks from p, GROUP when all are there; in place of the missing ones the last is repeated: callers mask them off. */
INLINE row_group load_group(const char *p, const int n) {
  row_group g;
  uint16_t d[GROUP];
  const char *block[GROUP];
  MM_UNROLL for (int i = 0; i < GROUP; i++) {
    block[i] = p + (i < n ? i : n - 1) * Q8_BLOCK_BYTES;
    d[i] = half_load_u16(block[i]);
  }
  MM_UNROLL for (int i = 0; i < 4; i++) {
    g.q[i] = _mm512_inserti64x4(_mm512_castsi256_si512(quants(block[2 * i])), quants(block[2 * i + 1]), 1);
    g.start[i] = surplus(g.q[i]);
  }
  g.d = _mm256_cvtph_ps(
      _mm_setr_epi16((short)d[0], (short)d[1], (short)d[2], (short)d[3], (short)d[4], (short)d[5], (short)d[6], (short)d[7]));
  return g;
}

/* s[i] holds eight partial sums of block 2i, then of block 2i+1: to one sum per block, in block order. */
INLINE __m256i block_sums(const __m512i s[4]) {
  __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(s[0], s[1]), _mm512_unpackhi_epi32(s[0], s[1]));
  __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(s[2], s[3]), _mm512_unpackhi_epi32(s[2], s[3]));
  /* each 128-bit lane now holds parts of blocks 0 2 4 6 (lanes 0, 1) or 1 3 5 7 (lanes 2, 3) */
  __m512i c = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  __m256i lo = _mm512_castsi512_si256(c), hi = _mm512_extracti64x4_epi64(c, 1);
  __m256i even_odd = _mm256_add_epi32(_mm256_permute2x128_si256(lo, hi, 0x20), _mm256_permute2x128_si256(lo, hi, 0x31));
  return _mm256_permutevar8x32_epi32(even_odd, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

INLINE __m256i dot_group(const row_group *g, const char *xq) {
  __m512i s[4];
  MM_UNROLL for (int i = 0; i < 4; i++) {
    __m512i x = _mm512_xor_si512(_mm512_load_si512(xq + 64 * i), _mm512_set1_epi8((char)0x80));
    s[i] = _mm512_dpbusd_epi32(g->start[i], x, g->q[i]);
  }
  return block_sums(s);
}

INLINE void rows_tile(const int n_r, const int n_t, const kern_mat *w, int r0, const void *const *x, float *const *y,
                      const bool ahead) {
  const int nb = w->n_cols / Q8_BLOCK, tail = nb % GROUP;
  const size_t scales = q8b32_scales_offset(w->n_cols), next = (size_t)n_r * w->row_bytes;
  __m256 acc[4][4];
  int b = 0;
  MM_UNROLL for (int r = 0; r < n_r; r++) {
    MM_UNROLL for (int t = 0; t < n_t; t++) acc[r][t] = _mm256_setzero_ps();
  }
  for (; b + GROUP <= nb; b += GROUP) {
    MM_UNROLL for (int r = 0; r < n_r; r++) {
      const char *p = row_at(w, r0 + r) + (size_t)b * Q8_BLOCK_BYTES;
      if (ahead) {
        MM_UNROLL for (int i = 0; i < 5; i++) __builtin_prefetch(p + next + 64 * i, 0, 2);
      }
      row_group g = load_group(p, GROUP);
      MM_UNROLL for (int t = 0; t < n_t; t++) {
        const char *xt = x[t];
        __m256 d = _mm256_load_ps((const float *)(const void *)(xt + scales) + b);
        __m256 sum = _mm256_cvtepi32_ps(dot_group(&g, xt + (size_t)b * Q8_BLOCK));
        acc[r][t] = _mm256_fmadd_ps(sum, _mm256_mul_ps(g.d, d), acc[r][t]);
      }
    }
  }
  if (tail) {
    MM_UNROLL for (int r = 0; r < n_r; r++) {
      row_group g = load_group(row_at(w, r0 + r) + (size_t)b * Q8_BLOCK_BYTES, tail);
      MM_UNROLL for (int t = 0; t < n_t; t++) {
        const char *xt = x[t];
        __m256 d = _mm256_load_ps((const float *)(const void *)(xt + scales) + b);
        __m256 sum = _mm256_cvtepi32_ps(dot_group(&g, xt + (size_t)b * Q8_BLOCK));
        acc[r][t] = _mm256_mask3_fmadd_ps(sum, _mm256_mul_ps(g.d, d), acc[r][t], (__mmask8)((1u << tail) - 1u));
      }
    }
  }
  MM_UNROLL for (int r = 0; r < n_r; r++) {
    MM_UNROLL for (int t = 0; t < n_t; t++) y[t][r0 + r] = v256_sum(acc[r][t]);
  }
}

INLINE void rows_strip(const int n_r, const kern_mat *w, int r, int n_tok, const void *const *x, float *const *y, bool more) {
  int t = 0;
  for (; t + 4 <= n_tok; t += 4) rows_tile(n_r, 4, w, r, x + t, y + t, t == 0 && more);
  for (; t + 2 <= n_tok; t += 2) rows_tile(n_r, 2, w, r, x + t, y + t, t == 0 && more);
  if (t < n_tok) rows_tile(n_r, 1, w, r, x + t, y + t, t == 0 && more);
}

static void rows_body(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  int r = row0;
  if (n_tok == 1) {
    for (; r + 4 <= row1; r += 4) rows_tile(4, 1, w, r, x, y, r + 8 <= row1);
  } else {
    for (; r + 2 <= row1; r += 2) rows_strip(2, w, r, n_tok, x, y, r + 4 <= row1);
  }
  for (; r < row1; r++) rows_strip(1, w, r, n_tok, x, y, false);
}

/* One strip of columns of up to LANES tokens, tokens in lanes. q[b][k] holds bytes 4k..4k+3 of block b of each token, +128. */
typedef struct {
  __m512i q[STRIP_BLOCKS][8];
  __m512 d[STRIP_BLOCKS];
} lane_strip;

/* 16 rows of 16 dwords, in place: dword j of row i goes to dword i of row j. */
INLINE void transpose_16(__m512i r[16]) {
  __m512i t[16];
  MM_UNROLL for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
  MM_UNROLL for (int i = 0; i < 4; i++) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  MM_UNROLL for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  MM_UNROLL for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

/* Reads whole pairs and whole sixteens of blocks, which the padding of the packed activation allows. */
static void lanes_load(lane_strip *s, const void *const *x, int n_tok, int n_cols, int b0, int n_blocks) {
  const size_t scales = q8b32_scales_offset(n_cols);
  __m512i m[16];
  for (int b = 0; b < n_blocks; b += 2) {
    for (int t = 0; t < LANES; t++) {
      m[t] = t < n_tok ? _mm512_load_si512((const char *)x[t] + (size_t)(b0 + b) * Q8_BLOCK) : _mm512_setzero_si512();
      m[t] = _mm512_xor_si512(m[t], _mm512_set1_epi8((char)0x80));
    }
    transpose_16(m);
    for (int k = 0; k < 16; k++) s->q[b + k / 8][k % 8] = m[k];
  }
  for (int b = 0; b < n_blocks; b += 16) {
    for (int t = 0; t < LANES; t++) {
      const char *d = t < n_tok ? (const char *)x[t] + scales + (size_t)(b0 + b) * 4 : NULL;
      m[t] = d ? _mm512_load_si512(d) : _mm512_setzero_si512();
    }
    transpose_16(m);
    for (int k = 0; k < 16; k++) s->d[b + k] = _mm512_castsi512_ps(m[k]);
  }
}

/* What the lanes body needs of a row besides the quants. A pass of its own, so that the values come from memory as broadcasts
 * instead of through shuffles. */
typedef struct {
  float d[STRIP_BLOCKS];
  int32_t start[STRIP_BLOCKS];
} row_constants;

static __attribute__((noinline)) void constants_load(row_constants *k, const char *p, int n_blocks) {
  int b = 0;
  for (; b + GROUP <= n_blocks; b += GROUP, p += GROUP_BYTES) {
    row_group g = load_group(p, GROUP);
    _mm256_storeu_ps(k->d + b, g.d);
    _mm256_storeu_si256((void *)(k->start + b), block_sums(g.start));
  }
  if (b == n_blocks) return;
  row_group g = load_group(p, n_blocks - b);
  _mm256_storeu_ps(k->d + b, g.d);
  _mm256_storeu_si256((void *)(k->start + b), block_sums(g.start));
}

INLINE __m512i four_weights(const char *p, int j, int k) {
  int32_t four;
  memcpy(&four, p + j * Q8_BLOCK_BYTES + 2 + 4 * k, sizeof four);
  return _mm512_set1_epi32(four);
}

/* n blocks (GROUP or fewer) of two rows for sixteen tokens. */
INLINE void lanes_group(const lane_strip *s, int b, const int n, const char *const p[2], const row_constants k[2],
                        __m512 acc[2][GROUP]) {
  MM_UNROLL for (int j = 0; j < GROUP; j++) {
    if (j >= n) break;
    __m512i sum[2] = {_mm512_set1_epi32(k[0].start[b + j]), _mm512_set1_epi32(k[1].start[b + j])};
    MM_UNROLL for (int i = 0; i < 8; i++) {
      sum[0] = _mm512_dpbusd_epi32(sum[0], s->q[b + j][i], four_weights(p[0], j, i));
      sum[1] = _mm512_dpbusd_epi32(sum[1], s->q[b + j][i], four_weights(p[1], j, i));
    }
    MM_UNROLL for (int r = 0; r < 2; r++) {
      __m512 scale = _mm512_mul_ps(_mm512_set1_ps(k[r].d[b + j]), s->d[b + j]);
      acc[r][j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r]), scale, acc[r][j]);
    }
  }
}

static void lanes_rows(const lane_strip *s, int n_blocks, const char *const row[2], __m512 chains[2][GROUP]) {
  __m512 acc[2][GROUP];
  row_constants k[2];
  int b = 0;
  constants_load(&k[0], row[0], n_blocks);
  constants_load(&k[1], row[1], n_blocks);
  MM_UNROLL for (int j = 0; j < GROUP; j++) {
    acc[0][j] = chains[0][j];
    acc[1][j] = chains[1][j];
  }
  for (; b + GROUP <= n_blocks; b += GROUP) {
    const char *p[2] = {row[0] + (size_t)b * Q8_BLOCK_BYTES, row[1] + (size_t)b * Q8_BLOCK_BYTES};
    lanes_group(s, b, GROUP, p, k, acc);
  }
  if (b < n_blocks) {
    const char *p[2] = {row[0] + (size_t)b * Q8_BLOCK_BYTES, row[1] + (size_t)b * Q8_BLOCK_BYTES};
    lanes_group(s, b, n_blocks - b, p, k, acc);
  }
  MM_UNROLL for (int j = 0; j < GROUP; j++) {
    chains[0][j] = acc[0][j];
    chains[1][j] = acc[1][j];
  }
}

/* Up to LANE_ROWS rows, an even number, and up to LANES tokens. */
static void lanes_block(const kern_mat *w, int r0, int n_rows, int n_tok, const void *const *x, float *const *y) {
  lane_strip strip;
  __m512 chains[LANE_ROWS][GROUP];
  const int nb = w->n_cols / Q8_BLOCK;
  for (int r = 0; r < n_rows; r++) {
    for (int j = 0; j < GROUP; j++) chains[r][j] = _mm512_setzero_ps();
  }
  for (int b0 = 0; b0 < nb; b0 += STRIP_BLOCKS) {
    int n = nb - b0 < STRIP_BLOCKS ? nb - b0 : STRIP_BLOCKS;
    lanes_load(&strip, x, n_tok, w->n_cols, b0, n);
    for (int r = 0; r < n_rows; r += 2) {
      const char *p = row_at(w, r0 + r) + (size_t)b0 * Q8_BLOCK_BYTES;
      const char *const row[2] = {p, p + w->row_bytes};
      lanes_rows(&strip, n, row, &chains[r]);
    }
  }
  for (int r = 0; r < n_rows; r++) {
    float out[LANES];
    const __m512 *c = chains[r];
    __m512 q[4];
    for (int j = 0; j < 4; j++) q[j] = _mm512_add_ps(c[j], c[j + 4]);
    _mm512_storeu_ps(out, _mm512_add_ps(_mm512_add_ps(q[0], q[2]), _mm512_add_ps(q[1], q[3])));
    for (int t = 0; t < n_tok; t++) y[t][r0 + r] = out[t];
  }
}

void kern_mm_q8_0_avx512vnni(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  int even = row0 + (row1 - row0) / 2 * 2, t = 0;
  if (row1 - row0 >= LANES_FROM_ROWS) {
    for (; n_tok - t >= LANES_FROM_TOKENS; t += LANES) {
      int n = n_tok - t < LANES ? n_tok - t : LANES;
      for (int r = row0; r < even; r += LANE_ROWS) {
        lanes_block(w, r, even - r < LANE_ROWS ? even - r : LANE_ROWS, n, x + t, y + t);
      }
      if (even < row1) rows_body(w, even, row1, n, x + t, y + t);
      if (n < LANES) return;
    }
  }
  if (t < n_tok) rows_body(w, row0, row1, n_tok - t, x + t, y + t);
}
