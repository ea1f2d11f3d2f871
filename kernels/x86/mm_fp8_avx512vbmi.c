/* Products of FP8 in tiles with VDPBF16PS: every E4M3 number is a BF16 number, whose two bytes VPERMI2B finds in tables of 128.
 * Rows lie in pair lanes as in tile/pairs.inc: 64 bytes of weights are four columns of 16 rows; interleaved with their upper bytes they are
 * two vectors of eight rows, the two lanes of a row each a pair of columns, which meet 64 bits of the activation. Units take turns with two
 * sums, so a row has four in all; a chunk's sum meets the scale in f32. Fixed order: batch invariance. */
#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/x86/vec_avx512.h"
#include "kernels/x86/x86.h"

/* Weights are fetched so far ahead into the first-level cache; 2 and 4 KB are about as good, 8 KB ahead into the second level gains nothing here. */
enum {
  PD_TOKENS = 6,
  PD_GROUPED = 11 /* most tokens of two groups: with more the first pass need not wait for memory */,
  UNIT_BYTES = 4 * TILE_ROWS,
  SCALE_BYTES = 4 * TILE_ROWS,
  AHEAD = 3072
};
#define PD_INLINE static inline __attribute__((always_inline))

typedef struct {
  __m512i lower[2], upper[2];
} tables;

static tables make_tables(void) {
  uint8_t lower[128], upper[128];
  for (int i = 0; i < 128; i++) {
    uint16_t h = (uint16_t)(half_bits_of(half_from_e4m3((uint8_t)i)) >> 16);
    lower[i] = (uint8_t)h;
    upper[i] = (uint8_t)(h >> 8);
  }
  return (tables){{_mm512_loadu_si512(lower), _mm512_loadu_si512(lower + 64)},
                  {_mm512_loadu_si512(upper), _mm512_loadu_si512(upper + 64)}};
}

/* Rows 0 1 4 5 8 9 12 13 and the others of the unit at p. */
PD_INLINE void weights(const tables *k, const uint8_t *p, __m512bh w[2]) {
  __m512i b = _mm512_loadu_si512(p);
  __m512i lower = _mm512_permutex2var_epi8(k->lower[0], b, k->lower[1]),
          upper = _mm512_permutex2var_epi8(k->upper[0], b, k->upper[1]);
  upper = _mm512_ternarylogic_epi32(upper, b, _mm512_set1_epi8((char)0x80), 0xf8); /* upper | (b & sign) */
  w[0] = (__m512bh)_mm512_unpacklo_epi8(lower, upper);
  w[1] = (__m512bh)_mm512_unpackhi_epi8(lower, upper);
}

PD_INLINE __m512bh four_of(const void *x, int c) {
  int64_t four;
  memcpy(&four, (const uint16_t *)x + c, sizeof four);
  return (__m512bh)_mm512_set1_epi64(four);
}

/* Scales of the rows of half h, each twice. */
PD_INLINE __m512 scales(const uint8_t *p, const int h) {
  const __m512i low = _mm512_setr_epi32(0, 0, 1, 1, 4, 4, 5, 5, 8, 8, 9, 9, 12, 12, 13, 13);
  return _mm512_permutexvar_ps(h ? _mm512_add_epi32(low, _mm512_set1_epi32(2)) : low,
                               _mm512_loadu_ps((const float *)(const void *)p));
}

/* Columns c0 to end, which share scales, for n_t tokens; n_lines of every two units' lines are fetched from q on. */
PD_INLINE void chunk(const int n_t, const tables *k, const uint8_t *p, int c0, int end, const void *const *x,
                     __m512 acc[2][PD_TOKENS], const uint8_t *q, const int n_lines) {
  const uint8_t *scale = p;
  __m512 s[2][2][PD_TOKENS];
  p += SCALE_BYTES;
  MM_UNROLL for (int t = 0; t < n_t; t++) s[0][0][t] = s[0][1][t] = s[1][0][t] = s[1][1][t] = _mm512_setzero_ps();
  for (int c = c0; c < end; c += 8, p += 2 * UNIT_BYTES, q += 64 * n_lines) {
    MM_UNROLL for (int u = 0; u < 2; u++) {
      __m512bh w[2];
      if (u && c + 4 >= end) break;
      if (u < n_lines) __builtin_prefetch(q + 64 * u, 0, 3);
      weights(k, p + u * UNIT_BYTES, w);
      MM_UNROLL for (int t = 0; t < n_t; t++) {
        __m512bh xv = four_of(x[t], c + 4 * u);
        s[u][0][t] = _mm512_dpbf16_ps(s[u][0][t], w[0], xv);
        s[u][1][t] = _mm512_dpbf16_ps(s[u][1][t], w[1], xv);
      }
    }
  }
  MM_UNROLL for (int h = 0; h < 2; h++) {
    __m512 d = scales(scale, h);
    MM_UNROLL for (int t = 0; t < n_t; t++) acc[h][t] = _mm512_fmadd_ps(_mm512_add_ps(s[0][h][t], s[1][h][t]), d, acc[h][t]);
  }
}

/* The next chunk. */
PD_INLINE const uint8_t *behind(const uint8_t *p, int c0, int end) {
  return p + SCALE_BYTES + (size_t)(end - c0) * TILE_ROWS;
}
PD_INLINE int end_of(int c0, int n_cols) {
  return n_cols - c0 < FP8_BLOCK ? n_cols : c0 + FP8_BLOCK;
}

/* Both sums of a row's lanes become one. */
PD_INLINE void store_rows(__m512 a, __m512 b, float *out) {
  const __m512i even = _mm512_setr_epi32(0, 2, 16, 18, 4, 6, 20, 22, 8, 10, 24, 26, 12, 14, 28, 30);
  __m512 odd = _mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
  _mm512_storeu_ps(out, _mm512_add_ps(_mm512_permutex2var_ps(a, even, b), odd));
}

/* All columns of one tile. */
PD_INLINE void run(const int n_t, const tables *k, const uint8_t *p, int n_cols, const void *const *x, float (*out)[TILE_ROWS]) {
  __m512 acc[2][PD_TOKENS];
  MM_UNROLL for (int t = 0; t < n_t; t++) acc[0][t] = acc[1][t] = _mm512_setzero_ps();
  for (int c0 = 0, end; c0 < n_cols; c0 = end) {
    end = end_of(c0, n_cols);
    chunk(n_t, k, p, c0, end, x, acc, p + SCALE_BYTES + AHEAD, 2);
    p = behind(p, c0, end);
  }
  MM_UNROLL for (int t = 0; t < n_t; t++) store_rows(acc[0][t], acc[1][t], out[t]);
}

/* One chunk into sums kept in memory. */
PD_INLINE void part(const int n_t, const tables *k, const uint8_t *p, int c0, int end, const void *const *x, __m512 (*sum)[2],
                    const uint8_t *q) {
  __m512 acc[2][PD_TOKENS];
  MM_UNROLL for (int t = 0; t < n_t; t++) acc[0][t] = sum[t][0], acc[1][t] = sum[t][1];
  chunk(n_t, k, p, c0, end, x, acc, q, 1);
  MM_UNROLL for (int t = 0; t < n_t; t++) sum[t][0] = acc[0][t], sum[t][1] = acc[1][t];
}

typedef void run_fn(const tables *, const uint8_t *, int, const void *const *, float (*)[TILE_ROWS]);
typedef void part_fn(const tables *, const uint8_t *, int, int, const void *const *, __m512 (*)[2], const uint8_t *);
#define PD_RUN(number, name)                                                                                      \
  static __attribute__((noinline)) void name(const tables *k, const uint8_t *p, int n_cols, const void *const *x, \
                                             float(*out)[TILE_ROWS]) {                                            \
    run(number, k, p, n_cols, x, out);                                                                            \
  }
#define PD_PART(number, name)                                                                                          \
  static __attribute__((noinline)) void name(const tables *k, const uint8_t *p, int c0, int end, const void *const *x, \
                                             __m512(*sum)[2], const uint8_t *q) {                                      \
    part(number, k, p, c0, end, x, sum, q);                                                                            \
  }
PD_RUN(1, one)
PD_RUN(2, two)
PD_RUN(3, three)
PD_RUN(4, four)
PD_RUN(5, five)
PD_RUN(6, six)
PD_PART(3, part_three)
PD_PART(4, part_four)
PD_PART(5, part_five)
PD_PART(6, part_six)

/* More tokens than there are registers for: two groups meet a chunk one after the other, so that memory is asked all the time; each fetches half of what lies
 * ahead. */
static void two_groups(const tables *k, const uint8_t *p, int n_cols, int n_tok, const void *const *x, float (*out)[TILE_ROWS]) {
  static part_fn *const fn[] = {part_three, part_four, part_five, part_six};
  const int n = (n_tok + 1) / 2;
  __m512 sum[PD_GROUPED][2];
  for (int t = 0; t < n_tok; t++) sum[t][0] = sum[t][1] = _mm512_setzero_ps();
  for (int c0 = 0, end; c0 < n_cols; c0 = end) {
    const uint8_t *q = p + SCALE_BYTES + AHEAD;
    end = end_of(c0, n_cols);
    fn[n - 3](k, p, c0, end, x, sum, q);
    fn[n_tok - n - 3](k, p, c0, end, x + n, sum + n, q + FP8_BLOCK * TILE_ROWS / 2);
    p = behind(p, c0, end);
  }
  for (int t = 0; t < n_tok; t++) store_rows(sum[t][0], sum[t][1], out[t]);
}

void kern_mm_tile_fp8_avx512vbmi(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  static run_fn *const fn[PD_TOKENS] = {one, two, three, four, five, six};
  const tables k = make_tables();
  float out[PD_GROUPED][TILE_ROWS];
  for (int r0 = row0 / TILE_ROWS * TILE_ROWS; r0 < row1; r0 += TILE_ROWS) {
    const uint8_t *tile = (const uint8_t *)w->data + (size_t)r0 * w->row_bytes;
    const int lo = r0 < row0 ? row0 : r0, hi = r0 + TILE_ROWS < row1 ? r0 + TILE_ROWS : row1;
    for (int t = 0, n; t < n_tok; t += n) {
      const int left = n_tok - t;
      n = n_tok <= PD_GROUPED ? n_tok : left >= 2 * PD_TOKENS ? PD_TOKENS : left > PD_TOKENS ? (left + 1) / 2 : left;
      if (n > PD_TOKENS) two_groups(&k, tile, w->n_cols, n, x, out);
      else fn[n - 1](&k, tile, w->n_cols, x + t, out);
      for (int i = 0; i < n; i++) memcpy(y[t + i] + lo, out[i] + (lo - r0), (size_t)(hi - lo) * sizeof(float));
    }
  }
}
