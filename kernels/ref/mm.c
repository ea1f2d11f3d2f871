/* mm.c: the definition of the matrix products. Every (format, act) pair differs only in how one weight and one activation
 * become f32, so each product is a row function; the walk over rows and tokens is shared.
 *
 * Sums go into eight interleaved partial sums: closer to the exact sum than one long chain, and fixed for every shape. */
#include "kernels/half.h"
#include "kernels/layouts.h"
#include "kernels/ref/ref.h"

typedef float row_fn(const char *row, const void *x, int n);

enum { LANES = 8 };

static float lanes_sum(const float *s) {
  return ((s[0] + s[4]) + (s[1] + s[5])) + ((s[2] + s[6]) + (s[3] + s[7]));
}

static inline void walk(row_fn *row_of, const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  for (int r = row0; r < row1; r++) {
    const char *row = (const char *)w->data + (size_t)r * w->row_bytes;
    for (int t = 0; t < n_tok; t++) y[t][r] = row_of(row, x[t], w->n_cols);
  }
}

static float row_f32_f32(const char *row, const void *x, int n) {
  const float *a = x;
  float s[LANES] = {0};
  for (int c = 0; c < n; c++) s[c % LANES] += half_load_f32(row + (size_t)c * 4) * a[c];
  return lanes_sum(s);
}

static float row_f16_f16(const char *row, const void *x, int n) {
  const uint16_t *a = x;
  float s[LANES] = {0};
  for (int c = 0; c < n; c++) s[c % LANES] += half_from_f16(half_load_u16(row + (size_t)c * 2)) * half_from_f16(a[c]);
  return lanes_sum(s);
}

static float row_f16_f32(const char *row, const void *x, int n) {
  const float *a = x;
  float s[LANES] = {0};
  for (int c = 0; c < n; c++) s[c % LANES] += half_from_f16(half_load_u16(row + (size_t)c * 2)) * a[c];
  return lanes_sum(s);
}

static float row_bf16_bf16(const char *row, const void *x, int n) {
  const uint16_t *a = x;
  float s[LANES] = {0};
  for (int c = 0; c < n; c++) s[c % LANES] += half_from_bf16(half_load_u16(row + (size_t)c * 2)) * half_from_bf16(a[c]);
  return lanes_sum(s);
}

static float row_bf16_f32(const char *row, const void *x, int n) {
  const float *a = x;
  float s[LANES] = {0};
  for (int c = 0; c < n; c++) s[c % LANES] += half_from_bf16(half_load_u16(row + (size_t)c * 2)) * a[c];
  return lanes_sum(s);
}

static float row_q8_0_q8b32(const char *row, const void *x, int n) {
  const int8_t *q = x;
  const float *d = (const float *)((const char *)x + q8b32_scales_offset(n));
  float s[LANES] = {0};
  for (int b = 0; b < n / Q8_BLOCK; b++) {
    const char *block = row + (size_t)b * Q8_BLOCK_BYTES;
    const int8_t *wq = (const int8_t *)block + 2;
    int sum = 0;
    for (int i = 0; i < Q8_BLOCK; i++) sum += wq[i] * q[b * Q8_BLOCK + i];
    s[b % LANES] += (float)sum * (half_from_f16(half_load_u16(block)) * d[b]);
  }
  return lanes_sum(s);
}

static float row_q8_0_f32(const char *row, const void *x, int n) {
  const float *a = x;
  float s[LANES] = {0};
  for (int b = 0; b < n / Q8_BLOCK; b++) {
    const char *block = row + (size_t)b * Q8_BLOCK_BYTES;
    const int8_t *wq = (const int8_t *)block + 2;
    float dw = half_from_f16(half_load_u16(block));
    for (int i = 0; i < Q8_BLOCK; i++) s[i % LANES] += (dw * wq[i]) * a[b * Q8_BLOCK + i];
  }
  return lanes_sum(s);
}

void kern_mm_f32_f32_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk(row_f32_f32, w, row0, row1, n_tok, x, y);
}

void kern_mm_f16_f16_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk(row_f16_f16, w, row0, row1, n_tok, x, y);
}

void kern_mm_f16_f32_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk(row_f16_f32, w, row0, row1, n_tok, x, y);
}

void kern_mm_bf16_bf16_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk(row_bf16_bf16, w, row0, row1, n_tok, x, y);
}

void kern_mm_bf16_f32_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk(row_bf16_f32, w, row0, row1, n_tok, x, y);
}

void kern_mm_q8_0_q8b32_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk(row_q8_0_q8b32, w, row0, row1, n_tok, x, y);
}

void kern_mm_q8_0_f32_ref(const kern_mat *w, int row0, int row1, int n_tok, const void *const *x, float *const *y) {
  walk(row_q8_0_f32, w, row0, row1, n_tok, x, y);
}
