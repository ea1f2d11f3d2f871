/* products.c: see products.h. Rows are taken 64 (at the end 32) at a time, tokens 128, 64, 32 or 16 at a time, whatever a call asks for: gemm.h sees to
 * it that none of that shows in the bits. */
#include "kernels/onednn/products.h"

#include <string.h>

#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/onednn/gemm.h"

enum { WIDE = 64, NARROW = 32, LEAST = GEMM_LEAST_M, MOST = 128, ACTIVATION_BYTES = 4 << 20 };

/* One call. */
typedef struct {
  const kern_mat *w;
  gemm_kind kind;
  bool as_stored; /* activations are what the library takes */
  kern_act act;
  size_t elem;
  gemm_thread *t;
  const void *const *x;
  float *const *y;
  size_t row;    /* bytes of a token or a row of weights in that type */
  const char *a; /* tokens of this pass */
  int n_tok;
  const char *rest;     /* the last few of them, when n_tok is cut into sixteens, and zeros behind them */
  const void *b;        /* weights of this block of rows */
  int first, n, lo, hi; /* the block has n rows from `first` on; wanted are [lo, hi) */
} call;

/* ---- activations ---- */

static void floats_of(kern_act act, const void *x, int n, float *out) {
  switch (act) {
    case KA_F32: memcpy(out, x, (size_t)n * sizeof *out); return;
    case KA_F16: kern_dequant_row(KF_F16, x, n, out); return;
    case KA_BF16: kern_dequant_row(KF_BF16, x, n, out); return;
    default: break;
  }
  const int8_t *q = x;
  const float *d = (const float *)(const void *)((const char *)x + q8b32_scales_offset(n));
  for (int i = 0; i < n; i += Q8_BLOCK)
    for (int j = i; j < n && j < i + Q8_BLOCK; j++) out[j] = d[i / Q8_BLOCK] * (float)q[j];
}

/* In pieces, so that what lies between is in the nearest cache. */
static void bf16_of(kern_act act, const void *x, int n, uint16_t *out) {
  enum { PIECE = 1024 };
  _Alignas(64) float piece[PIECE];
  if (act == KA_BF16) {
    memcpy(out, x, (size_t)n * sizeof *out);
    return;
  }
  const int8_t *q = x;
  const float *d = (const float *)(const void *)((const char *)x + q8b32_scales_offset(n));
  for (int at = 0; at < n; at += PIECE) {
    const int m = n - at < PIECE ? n - at : PIECE;
    for (int i = 0; i < m; i += Q8_BLOCK)
      for (int j = i; j < i + Q8_BLOCK; j++) piece[j] = d[(at + i) / Q8_BLOCK] * (float)q[at + j];
    kern_get()->pack[KA_BF16](piece, m, out + at);
  }
}

static void put_token(const call *c, int t, char *to) {
  const size_t n = (size_t)c->w->n_cols;
  if (c->as_stored) memcpy(to, c->x[t], n * c->elem);
  else if (c->kind == GEMM_F32) floats_of(c->act, c->x[t], c->w->n_cols, (float *)(void *)to);
  else bf16_of(c->act, c->x[t], c->w->n_cols, (uint16_t *)(void *)to);
}

/* Where tokens already lie one after another they are read there. */
static bool in_place(const call *c, int first, int n) {
  if (!c->as_stored || n < LEAST) return false;
  for (int t = first + 1; t < first + n; t++)
    if ((const char *)c->x[t] - (const char *)c->x[t - 1] != (ptrdiff_t)c->row) return false;
  return true;
}

/* As many tokens as fit the room, a multiple of MOST where they are many. */
static int tokens_a_pass(const call *c) {
  const size_t fit = ACTIVATION_BYTES / c->row;
  return fit < MOST ? MOST : fit > 4 * MOST ? 4 * MOST : (int)(fit / MOST * MOST);
}

static bool activations(call *c, int first, int n) {
  const bool there = in_place(c, first, n);
  const int kept = there ? 0 : n, over = n % LEAST;
  char *own = gemm_buffer(c->t, GEMM_A, (size_t)(kept + LEAST) * c->row);
  if (!own) return false;
  for (int t = 0; t < kept; t++) put_token(c, first + t, own + (size_t)t * c->row);
  char *rest = own + (size_t)(there ? 0 : n - over) * c->row;
  for (int t = 0; there && t < over; t++) put_token(c, first + n - over + t, rest + (size_t)t * c->row);
  if (over) memset(rest + (size_t)over * c->row, 0, (size_t)(LEAST - over) * c->row);
  c->n_tok = n;
  c->a = there ? c->x[first] : own;
  c->rest = rest;
  return true;
}

/* ---- weights ---- */

/* Tiles of 16 rows side by side: a pair of columns of a tile is one line of the wider one. */
static void widen(const call *c, char *to) {
  const int pairs = c->w->n_cols / 2, tiles = c->n / TILE_ROWS, all = (c->w->n_rows + TILE_ROWS - 1) / TILE_ROWS;
  for (int j = 0; j < tiles; j++) {
    const int tile = c->first / TILE_ROWS + j;
    const char *from = (const char *)c->w->data + (size_t)tile * TILE_ROWS * c->w->row_bytes;
    for (int p = 0; p < pairs; p++) {
      char *line = to + ((size_t)p * (size_t)tiles + (size_t)j) * 64;
      if (tile < all) memcpy(line, from + (size_t)p * 64, 64);
      else memset(line, 0, 64);
    }
  }
}

static void turn(const call *c, int rows, char *to) {
  for (int r = 0; r < c->n; r++) {
    char *row = to + (size_t)r * c->row;
    if (r >= rows) memset(row, 0, c->row);
    else if (c->kind == GEMM_F32) kern_mat_row(c->w, c->first + r, (float *)(void *)row);
    else {
      float *wide = (float *)(void *)(to + (size_t)c->n * c->row); /* one row behind the block */
      kern_mat_row(c->w, c->first + r, wide);
      kern_get()->pack[KA_BF16](wide, c->w->n_cols, row);
    }
  }
}

static bool weights(call *c) {
  const kern_mat *w = c->w;
  const int rows = w->n_rows - c->first < c->n ? w->n_rows - c->first : c->n;
  if (w->format == KF_F32 && w->layout == KL_ROWS && w->row_bytes == c->row && rows == c->n) {
    c->b = (const char *)w->data + (size_t)c->first * w->row_bytes;
    return true;
  }
  char *to = gemm_buffer(c->t, GEMM_B, (size_t)WIDE * c->row + (size_t)w->n_cols * sizeof(float));
  if (!to) return false;
  if (c->kind == GEMM_BF16_LANES) widen(c, to);
  else turn(c, rows, to);
  c->b = to;
  return true;
}

/* ---- the product ---- */

/* The largest of the sizes that is not above n; the smallest one may be. */
static const gemm *of_size(const call *c, int n, int *m) {
  for (*m = MOST; *m >= LEAST; *m /= 2) {
    const gemm_shape s = {c->kind, *m, c->n, c->w->n_cols};
    const gemm *g = *m <= n || *m == LEAST ? gemm_find(&s, c->t) : NULL;
    if (g) return g;
  }
  return NULL;
}

static bool block(call *c, int first_token) {
  float *out = gemm_buffer(c->t, GEMM_C, sizeof(float) * MOST * WIDE);
  if (!out || !weights(c)) return false;
  for (int done = 0, m; done < c->n_tok; done += m) {
    const int left = c->n_tok - done;
    const bool rest = left < LEAST;
    const gemm *g = of_size(c, left, &m);
    if (!g || !gemm_run(g, c->t, rest ? c->rest : c->a + (size_t)done * c->row, c->b, out)) return false;
    for (int t = 0; t < m && t < left; t++)
      memcpy(c->y[first_token + done + t] + c->lo, out + (size_t)t * (size_t)c->n + (size_t)(c->lo - c->first),
             (size_t)(c->hi - c->lo) * sizeof(float));
  }
  return true;
}

/* Every call ends in the smallest shapes sooner or later. Without them none may be computed here, or bits would depend on how many tokens a call has
 * and on what was called before. One after the other in a fixed order: the first one sets the bits. */
static bool smallest(const call *c) {
  const gemm_shape narrow = {c->kind, LEAST, NARROW, c->w->n_cols}, wide = {c->kind, LEAST, WIDE, c->w->n_cols};
  return gemm_find(&narrow, c->t) && gemm_find(&wide, c->t);
}

static bool product(call *c, int row0, int row1, int n_tok) {
  const int k = c->w->n_cols;
  if (!gemm_offers(c->kind, k, kern_get()->isa) || !(c->t = gemm_this_thread(kern_get()->isa)) || !smallest(c)) return false;
  c->row = (size_t)k * c->elem;
  for (int t = 0, n; t < n_tok; t += n) {
    n = n_tok - t < tokens_a_pass(c) ? n_tok - t : tokens_a_pass(c);
    if (!activations(c, t, n)) return false;
    for (c->first = row0 / TILE_ROWS * TILE_ROWS; c->first < row1; c->first += c->n) {
      c->n = row1 - c->first > NARROW ? WIDE : NARROW;
      c->lo = c->first > row0 ? c->first : row0;
      c->hi = c->first + c->n < row1 ? c->first + c->n : row1;
      if (!block(c, t)) return false;
    }
  }
  return true;
}

static void run(gemm_kind kind, const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  const kern_act act = kern_act_of(w->format, false);
  call c = {.w = w, .kind = kind, .act = act, .x = x, .y = y, .elem = kind == GEMM_F32 ? 4 : 2};
  c.as_stored = act == (kind == GEMM_F32 ? KA_F32 : KA_BF16);
  if (row0 >= row1 || n_tok <= 0 || product(&c, row0, row1, n_tok)) return;
  kern_mm_pick(w->format, act, w->layout, w->n_cols, n_tok, NULL)->fn(w, row0, row1, n_tok, x, y);
}

void kern_mm_f32_onednn(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  run(GEMM_F32, w, row0, row1, n_tok, x, y);
}

void kern_mm_bf16_onednn(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  run(GEMM_BF16_LANES, w, row0, row1, n_tok, x, y);
}

void kern_mm_any_onednn(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  run(GEMM_F32, w, row0, row1, n_tok, x, y);
}

void kern_mm_rounded_onednn(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  run(GEMM_BF16, w, row0, row1, n_tok, x, y);
}

bool kern_onednn_accepts(kern_mm_fn *fn, int n_cols) {
  const gemm_kind kind = fn == kern_mm_bf16_onednn ? GEMM_BF16_LANES : fn == kern_mm_rounded_onednn ? GEMM_BF16 : GEMM_F32;
  return gemm_offers(kind, n_cols, kern_get()->isa);
}
