/* check_products.c: every candidate of every (format, activation) pair against sums in double of the same rounded values; and
 * batch invariance: a result is the same bits for any number of tokens and any range of rows. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/blocks.h"
#include "check.h"

enum { MAX_TOK = 130 /* more than the products for many tokens take at a time */, MAX_CANDIDATES = 24 };

typedef struct {
  kern_mat w;
  size_t w_bytes, tile_bytes;
  char *w_data, *tiles;  /* rows as stored; the same in tiles, or NULL */
  float *w_f32;          /* [n_rows][n_cols] */
  double *scale_of;      /* [n_rows][n_cols] magnitude that rounding is relative to */
  void *x[MAX_TOK];      /* packed, each ends at a forbidden page */
  float *x_f32[MAX_TOK]; /* what the packed activation stands for */
  kern_act act;
  double *want, *magnitude; /* [MAX_TOK][n_rows]: sum, sum of absolute values */
  double *flushed;          /* what flushing subnormal factors to zero may lose */
  float *y[MAX_TOK];
} product;

static const kern_table *ref_table(void) {
  static kern_table t;
  static bool filled;
  if (!filled && kern_table_for(KERN_ISA_SCALAR, &t) != HF_OK) {
    fprintf(stderr, "check_kernels: %s\n", hf_error_line());
    exit(3);
  }
  filled = true;
  return &t;
}

/* Raw blocks: every bit pattern of the quants, also those that a quantiser never writes but a file may hold. */
static void random_blocks(kern_format f, data_kind k, int n_cols, char *row) {
  size_t bytes = kern_row_bytes(f, n_cols);
  for (size_t i = 0; i < bytes; i++) {
    uint32_t r = rnd();
    row[i] = (char)(k == DATA_LARGEST           ? (r & 1   ? 0x7f
                                                   : r & 2 ? 0x80
                                                   : r & 4 ? 0xff
                                                           : 0)
                    : k == DATA_ZERO && (r & 1) ? 0
                                                : r >> 8);
  }
  float half = k == DATA_EXTREME ? (rnd() & 1 ? 100.0f : 1e-4f) : k == DATA_SUBNORMAL ? 1e-4f : 1.0f;
  expect(hf_block_scales(kern_format_name(f), (uint8_t *)row, n_cols, half), "%s: random blocks", kern_format_name(f));
}

/* Any number of E4M3 in place of those that were drawn, the scales as they are. */
static void random_codes(char *row, int n_cols) {
  for (int c = 0; c < n_cols; c++) {
    char code = (char)(rnd() >> 8);
    row[kern_row_bytes(KF_FP8, c + 1) - 1] = (code & 0x7f) == 0x7f ? 0 : code;
  }
}

/* The integers and the minimum of a group may be larger than the weights that they make: what rounding is measured by. */
static double rounding_weight(const product *p, const float *w, int c) {
  static const kern_format with_min[] = {KF_Q4_1, KF_Q5_1, KF_Q2_K, KF_Q4_K, KF_Q5_K};
  for (size_t i = 0; i < sizeof with_min / sizeof with_min[0]; i++) {
    if (p->w.format != with_min[i]) continue;
    int block = kern_block(p->w.format), first = c / block * block;
    double most = 0;
    for (int j = first; j < first + block; j++) most = fmax(most, fabs((double)w[j]));
    return 3 * most;
  }
  return fabs((double)w[c]);
}

static void unpack(kern_act a, const void *packed, int n, float *out) {
  switch (a) {
    case KA_F32: memcpy(out, packed, (size_t)n * 4); return;
    case KA_F16: kern_dequant_row(KF_F16, packed, n, out); return;
    case KA_BF16: kern_dequant_row(KF_BF16, packed, n, out); return;
    default: {
      size_t q_bytes = ((size_t)(n + 31) / 32 * 32 + 255) / 256 * 256;
      const float *d = (const float *)(const void *)((const char *)packed + q_bytes);
      for (int i = 0; i < n; i++) out[i] = d[i / 32] * (float)((const int8_t *)packed)[i];
    }
  }
}

static void make_expected(product *p, int n_tok) {
  const int n = p->w.n_cols, rows = p->w.n_rows;
  for (int t = 0; t < n_tok; t++) {
    for (int r = 0; r < rows; r++) {
      double sum = 0, mag = 0, lost = 0;
      const float *w = p->w_f32 + (size_t)r * (size_t)n, *x = p->x_f32[t];
      for (int c = 0; c < n; c++) {
        double v = (double)w[c] * x[c];
        sum += v;
        mag += p->scale_of[(size_t)r * (size_t)n + (size_t)c] * fabs((double)x[c]);
        lost += FLT_MIN + (fabsf(w[c]) < FLT_MIN || fabsf(x[c]) < FLT_MIN ? fabs(v) : 0.0);
      }
      p->want[t * rows + r] = sum;
      p->magnitude[t * rows + r] = mag;
      p->flushed[t * rows + r] = lost;
    }
  }
}

/* Rows lie row_pad bytes further apart than they need to, which also leaves them unaligned. */
static void product_make(product *p, kern_format f, kern_act a, int rows, int cols, int row_pad, int n_tok, data_kind k) {
  size_t used = kern_row_bytes(f, cols), stride = used + (size_t)row_pad;
  float *values = canary_new(cols);
  memset(p, 0, sizeof *p);
  p->w_bytes = stride * (size_t)(rows - 1) + used;
  p->w_data = guarded(p->w_bytes);
  p->w = (kern_mat){f, KL_ROWS, rows, cols, stride, p->w_data};
  p->act = a;
  p->w_f32 = canary_new(rows * cols);
  p->scale_of = calloc((size_t)(rows * cols), sizeof(double));
  for (int r = 0; r < rows; r++) {
    char *row = p->w_data + (size_t)r * stride;
    for (int c = 0; c < cols; c++) values[c] = rnd_value(k);
    float *w = p->w_f32 + (size_t)r * (size_t)cols;
    if (kern_block(f) > 1) random_blocks(f, k, cols, row);
    else kern_quant_row(f, values, cols, row);
    if (f == KF_FP8 && r % 2) random_codes(row, cols);
    kern_dequant_row(f, row, cols, w);
    for (int c = 0; c < cols; c++) p->scale_of[(size_t)r * (size_t)cols + (size_t)c] = rounding_weight(p, w, c);
  }
  for (int t = 0; t < n_tok; t++) {
    for (int c = 0; c < cols; c++) values[c] = rnd_value(k);
    p->x[t] = guarded(kern_act_bytes(a, cols));
    p->x_f32[t] = canary_new(cols);
    p->y[t] = canary_new(rows);
    ref_table()->pack[a](values, cols, p->x[t]);
    unpack(a, p->x[t], cols, p->x_f32[t]);
  }
  p->want = calloc((size_t)(n_tok * rows), sizeof(double));
  p->magnitude = calloc((size_t)(n_tok * rows), sizeof(double));
  p->flushed = calloc((size_t)(n_tok * rows), sizeof(double));
  make_expected(p, n_tok);
  canary_free(values);
}

/* From here on w is in this layout; the rows read back must be the same. Repacked in two pieces, as threads would. */
static void product_layout(product *p, kern_layout l) {
  if (l == KL_ROWS) return;
  const int rows = p->w.n_rows, half = rows / 2 / 16 * 16, cols = p->w.n_cols;
  float *back = canary_new(cols);
  p->tile_bytes = kern_mat_bytes(l, p->w.format, rows, cols);
  p->tiles = guarded(p->tile_bytes);
  kern_tile_pack(&p->w, 0, half, p->tiles);
  kern_tile_pack(&p->w, half, rows, p->tiles);
  p->w.layout = l;
  p->w.data = p->tiles;
  p->w.row_bytes = kern_row_bytes(p->w.format, cols);
  for (int r = 0; r < rows; r++) {
    kern_mat_row(&p->w, r, back);
    kern_dequant_row(p->w.format, p->w_data + (size_t)r * ((p->w_bytes - p->w.row_bytes) / (size_t)(rows > 1 ? rows - 1 : 1)),
                     cols, p->w_f32 + (size_t)r * (size_t)cols);
    if (!expect(memcmp(back, p->w_f32 + (size_t)r * (size_t)cols, (size_t)cols * 4) == 0, "%s: row %d of %d changes in tiles",
                kern_format_name(p->w.format), r, rows))
      break;
  }
  canary_free(back);
}

static void product_drop(product *p, int n_tok) {
  for (int t = 0; t < n_tok; t++) {
    guarded_free(p->x[t], kern_act_bytes(p->act, p->w.n_cols));
    canary_free(p->x_f32[t]);
    canary_free(p->y[t]);
  }
  guarded_free(p->w_data, p->w_bytes);
  if (p->tiles) guarded_free(p->tiles, p->tile_bytes);
  canary_free(p->w_f32);
  free(p->scale_of);
  free(p->want);
  free(p->magnitude);
  free(p->flushed);
}

/* Only VDPBF16PS takes subnormal numbers as zero. */
static bool near(const kern_mm_candidate *c, const product *p, int t, int r, float got) {
  int i = t * p->w.n_rows + r;
  double flushed = c->isa & KERN_ISA_AVX512_BF16 ? p->flushed[i] : 0.0;
  double rounding = (p->w.n_cols / 4.0 + 16.0) * (FLT_EPSILON / 2) * p->magnitude[i];
  if (c->rounded) rounding += 0x1.02p-7 * p->magnitude[i]; /* weight and activation, by half a unit of BF16's last place each */
  return fabs(got - p->want[i]) <= rounding + flushed + p->w.n_cols * 0x1p-149;
}

/* All rows, n_tok tokens in one call: near the exact sums, nothing written outside. */
static void check_values(const kern_mm_candidate *c, product *p, int n_tok, data_kind k) {
  const int rows = p->w.n_rows;
  c->fn(&p->w, 0, rows, n_tok, (const void *const *)p->x, p->y);
  for (int t = 0; t < n_tok; t++) {
    for (int r = 0; r < rows; r++) {
      int i = t * rows + r;
      if (!expect(near(c, p, t, r, p->y[t][r]), "%s %dx%d, %d tokens, %s: y[%d][%d] = %.9g, exact %.9g", c->name, rows,
                  p->w.n_cols, n_tok, data_name(k), t, r, (double)p->y[t][r], p->want[i]))
        return;
    }
    if (!expect(!canary_broken(p->y[t], rows), "%s %dx%d, %d tokens: writes outside y[%d]", c->name, rows, p->w.n_cols, n_tok, t))
      return;
  }
}

/* Random range of rows and n_tok tokens from token t0 on: same bits as `whole`, other rows untouched. */
static void check_piece(const kern_mm_candidate *c, product *p, int t0, int n_tok, const float *whole) {
  const int rows = p->w.n_rows, r0 = rnd_between(0, rows - 1), r1 = rnd_between(r0 + 1, rows);
  const float mark = -1.25e-30f;
  for (int t = t0; t < t0 + n_tok; t++) {
    for (int r = 0; r < rows; r++) p->y[t][r] = mark;
  }
  c->fn(&p->w, r0, r1, n_tok, (const void *const *)p->x + t0, p->y + t0);
  for (int t = t0; t < t0 + n_tok; t++) {
    for (int r = 0; r < rows; r++) {
      float want = r >= r0 && r < r1 ? whole[t * rows + r] : mark;
      if (!expect(memcmp(&want, &p->y[t][r], 4) == 0, "%s %dx%d: rows %d..%d of tokens %d..%d: y[%d][%d] = %.9g, alone %.9g",
                  c->name, rows, p->w.n_cols, r0, r1, t0, t0 + n_tok, t, r, (double)p->y[t][r], (double)want))
        return;
    }
  }
}

static void check_invariance(const kern_mm_candidate *c, product *p) {
  const int rows = p->w.n_rows;
  float *whole = calloc((size_t)(MAX_TOK * rows), sizeof *whole);
  for (int t = 0; t < MAX_TOK; t++) {
    c->fn(&p->w, 0, rows, 1, (const void *const *)p->x + t, p->y + t);
    memcpy(whole + t * rows, p->y[t], (size_t)rows * sizeof *whole);
  }
  for (int n_tok = 1; n_tok <= 17; n_tok++) check_piece(c, p, rnd_between(0, MAX_TOK - n_tok), n_tok, whole);
  check_piece(c, p, 0, MAX_TOK, whole);
  c->fn(&p->w, 0, rows, MAX_TOK, (const void *const *)p->x, p->y);
  for (int t = 0; t < MAX_TOK; t++) {
    if (!expect(memcmp(p->y[t], whole + t * rows, (size_t)rows * 4) == 0, "%s %dx%d: %d tokens at once differ from one by one",
                c->name, rows, p->w.n_cols, (int)MAX_TOK))
      break;
  }
  free(whole);
}

/* Puts a NaN into a row: where a block keeps its scale is found by trying. false: the format has no NaN. */
static bool put_nan(kern_format f, char *row, int n_cols) {
  float *w = calloc((size_t)n_cols, sizeof *w);
  bool found = false;
  size_t n = f == KF_F32 ? 4 : f == KF_IQ1_M ? 3 /* both of the exponent's nibbles */ : 2;
  for (size_t at = 0; at + n <= kern_row_bytes(f, kern_block(f) > 1 ? kern_block(f) : 2) && !found; at += 1) {
    char keep[4];
    memcpy(keep, row + at, n);
    memset(row + at, 0xff, n);
    kern_dequant_row(f, row, n_cols, w);
    for (int c = 0; c < n_cols; c++) found = found || isnan(w[c]);
    if (!found) memcpy(row + at, keep, n);
  }
  free(w);
  return found;
}

/* One NaN in a row shows in that row and in no other. */
static void check_not_finite(const kern_mm_candidate *c, kern_format f, kern_act a) {
  enum { ROWS = 18, TOKENS = 9, BAD = 5 };
  const int block = kern_block(f), cols = (96 + block - 1) / block * block;
  product p;
  product_make(&p, f, a, ROWS, cols, 0, TOKENS, DATA_RANDOM);
  bool has_nan = put_nan(f, p.w_data + (size_t)BAD * p.w.row_bytes, cols);
  product_layout(&p, c->layout);
  expect(has_nan || f == KF_MXFP4 || f == KF_NVFP4, "%s: no NaN found", c->name);
  c->fn(&p.w, 0, ROWS, TOKENS, (const void *const *)p.x, p.y);
  for (int t = 0; t < TOKENS; t++) {
    for (int r = 0; r < ROWS; r++) {
      expect(isnan(p.y[t][r]) == (has_nan && r == BAD), "%s: a NaN weight in row %d, y[%d][%d] = %g", c->name, BAD, t, r,
             (double)p.y[t][r]);
    }
  }
  product_drop(&p, TOKENS);
}

/* A number of FP8 that is none shows in its row, whatever the layout. */
static void check_fp8_nan(const kern_mm_candidate *c) {
  enum { ROWS = 18, COLS = 260, BAD = 7, TOKENS = 7 };
  product p;
  product_make(&p, KF_FP8, c->act, ROWS, COLS, 0, TOKENS, DATA_RANDOM);
  char *at = p.w_data + (size_t)BAD * p.w.row_bytes + kern_row_bytes(KF_FP8, 201) - 1, keep = *at;
  product_layout(&p, c->layout);
  *at = (char)(keep | 0x7f);
  if (p.tiles) kern_tile_pack(&(kern_mat){KF_FP8, KL_ROWS, ROWS, COLS, p.w.row_bytes, p.w_data}, 0, ROWS, p.tiles);
  c->fn(&p.w, 0, ROWS, TOKENS, (const void *const *)p.x, p.y);
  for (int t = 0; t < TOKENS; t++) {
    for (int r = 0; r < ROWS; r++)
      expect(isnan(p.y[t][r]) == (r == BAD), "%s: NaN for a weight of row %d, y[%d][%d] = %g", c->name, BAD, t, r,
             (double)p.y[t][r]);
  }
  product_drop(&p, TOKENS);
}

void check_candidate(const kern_mm_candidate *c) {
  static const int shapes[][3] = {{1, 1, 0},    {2, 7, 2},    {3, 16, 0},   {5, 31, 6},   {9, 33, 2},
                                  {17, 100, 0}, {13, 255, 2}, {8, 512, 64}, {21, 1000, 0}};
  const int block = c->col_multiple > kern_block(c->format) ? c->col_multiple : kern_block(c->format);
  for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
    int cols = block == 1 ? shapes[s][1] : (shapes[s][1] + block - 1) / block * block;
    for (int k = 0; k < DATA_N; k++) {
      product p;
      product_make(&p, c->format, c->act, shapes[s][0], cols, shapes[s][2], 17, (data_kind)k);
      product_layout(&p, c->layout);
      for (int n_tok = 1; n_tok <= 17; n_tok += s < 4 ? 1 : 4) check_values(c, &p, n_tok, (data_kind)k);
      product_drop(&p, 17);
    }
  }
  static const int big[][2] = {{69, 37 * 32}, {35, 11 * 32}, {21, 68 * 32}}; /* the last: more columns than a panel has */
  for (size_t s = 0; s < sizeof big / sizeof big[0]; s++) {
    product p;
    int cols = block == 1 ? big[s][1] + 5 : (big[s][1] + block - 1) / block * block;
    product_make(&p, c->format, c->act, big[s][0], cols, 2, MAX_TOK, s == 1 ? DATA_EXTREME : DATA_RANDOM);
    product_layout(&p, c->layout);
    check_values(c, &p, MAX_TOK, DATA_RANDOM);
    check_invariance(c, &p);
    product_drop(&p, MAX_TOK);
  }
  check_not_finite(c, c->format, c->act);
  if (c->format == KF_FP8) check_fp8_nan(c);
}

void check_same_bits(const kern_mm_candidate *a, const kern_mm_candidate *b) {
  enum { ROWS = 69, TOKENS = 37 };
  const int cols = 5 * 256;
  product p;
  product_make(&p, a->format, a->act, ROWS, cols, 0, TOKENS, DATA_RANDOM);
  product_layout(&p, a->layout);
  float *other = calloc((size_t)(TOKENS * ROWS), sizeof *other), *y[TOKENS];
  for (int t = 0; t < TOKENS; t++) y[t] = other + t * ROWS;
  a->fn(&p.w, 0, ROWS, TOKENS, (const void *const *)p.x, p.y);
  b->fn(&p.w, 0, ROWS, TOKENS, (const void *const *)p.x, y);
  for (int t = 0; t < TOKENS; t++)
    if (!expect(memcmp(p.y[t], y[t], ROWS * sizeof(float)) == 0, "%s and %s differ, token %d", a->name, b->name, t)) break;
  free(other);
  product_drop(&p, TOKENS);
}

void check_products(unsigned mask, const char *only) {
  for (int f = 0; f < KF_N; f++) {
    for (int exact = 0; exact < 2; exact++) {
      const kern_mm_candidate *all[MAX_CANDIDATES];
      kern_act a = kern_act_of((kern_format)f, exact);
      if (exact && f == KF_F32) continue;
      int n = kern_mm_candidates(mask, (kern_format)f, a, all, MAX_CANDIDATES);
      expect(n >= 1 && n <= MAX_CANDIDATES && all[n - 1]->isa == KERN_ISA_SCALAR, "%s x %s: the list must end in the reference",
             kern_format_name((kern_format)f), kern_act_name(a));
      for (int i = 0; i < n && i < MAX_CANDIDATES; i++) {
        int before = checks_failed();
        expect((all[i]->isa & ~mask) == 0, "%s offered without its instruction set", all[i]->name);
        if (only && !strstr(all[i]->name, only)) continue;
        check_candidate(all[i]);
        printf("  %-26s %s\n", all[i]->name, checks_failed() == before ? "ok" : "DIFFERS");
      }
    }
  }
}
