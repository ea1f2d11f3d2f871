/* Numbers to blocks: bits of the reference quantisers, errors, the same bits on every instruction set, and values that are hard. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

enum { ROWS = 8, COLS = 1024, VALUES = ROWS * COLS };

static const struct {
  kern_format f;
  uint64_t
      hash; /* of the bytes that the Python package gguf 0.x gives (its numpy quantisers; ggml's C code gives the same); 0: none there */
  double error; /* root mean square, relative: ggml's without an importance matrix for the K formats */
} formats[] = {{KF_Q8_0, 0x5b45ff689bce131fu, 0.006}, {KF_Q4_0, 0xe60eabb8c00af963u, 0.1},  {KF_Q4_1, 0xed1ad49d013b24c8u, 0.1},
               {KF_Q5_0, 0xcf13625355271879u, 0.05},  {KF_Q5_1, 0x12c933ad623b7dcau, 0.05}, {KF_Q4_K, 0, 0.06897136746818408},
               {KF_Q5_K, 0, 0.03484248567530253},     {KF_Q6_K, 0, 0.01721630129379134},    {KF_Q2_K, 0, 0.2842014319210569},
               {KF_Q3_K, 0, 0.1456984633327201},      {KF_IQ4_NL, 0, 0.07358579497533067}};
enum { N_FORMATS = sizeof formats / sizeof *formats };

/* Sums of four draws: nearly normal, exact in f32. */
static void fill(float *x) {
  uint32_t s = 1;
  for (int i = 0; i < VALUES; i++) {
    int a = 0;
    for (int k = 0; k < 4; k++) {
      s = s * 1664525u + 1013904223u;
      a += (int)(s >> 16) - 32768;
    }
    x[i] = (float)a * 0x1p-20f;
  }
}

static uint64_t hash_of(const uint8_t *p, size_t n) {
  uint64_t h = 1469598103934665603u;
  for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 1099511628211u;
  return h;
}

static void bits_and_errors(void **state) {
  (void)state;
  static float x[VALUES], y[COLS];
  static uint8_t out[VALUES * 4];
  fill(x);
  for (int i = 0; i < N_FORMATS; i++) {
    kern_format f = formats[i].f;
    size_t row = kern_row_bytes(f, COLS);
    double diff = 0, sum = 0;
    assert_true(kern_can_encode(f));
    for (int r = 0; r < ROWS; r++) {
      kern_encode_row(f, x + r * COLS, COLS, out + (size_t)r * row);
      kern_dequant_row(f, out + (size_t)r * row, COLS, y);
      for (int c = 0; c < COLS; c++) {
        double v = (double)x[r * COLS + c], d = (double)y[c] - v;
        diff += d * d;
        sum += v * v;
      }
    }
    double error = sqrt(diff / sum);
    if (formats[i].hash && hash_of(out, ROWS * row) != formats[i].hash)
      fail_msg("%s: other bits than the reference", kern_format_name(f));
    if (error > formats[i].error * 1.02)
      fail_msg("%s: error %g, at most %g", kern_format_name(f), error, formats[i].error * 1.02);
    if (error < formats[i].error * 0.5) fail_msg("%s: error %g is too good to be true", kern_format_name(f), error);
  }
}

static void same_bits_everywhere(void **state) {
  (void)state;
  static float x[VALUES];
  kern_table scalar, best;
  fill(x);
  assert_int_equal(kern_table_for(KERN_ISA_SCALAR, &scalar), HF_OK);
  assert_int_equal(kern_table_for(kern_isa_detected(), &best), HF_OK);
  for (int i = 0; i < N_FORMATS; i++)
    for (int r = 0; r < ROWS; r++) {
      uint8_t a[COLS * 4], b[COLS * 4];
      scalar.encode(formats[i].f, x + r * COLS, COLS, a);
      best.encode(formats[i].f, x + r * COLS, COLS, b);
      assert_memory_equal(a, b, kern_row_bytes(formats[i].f, COLS));
    }
}

/* Zeros, one value, ends of the range, subnormals, one outlier: numbers come back, within a step of the largest. */
static void hard_values(void **state) {
  (void)state;
  static const float kinds[][3] = {{0, 0, 0},
                                   {1, 1, 1},
                                   {-1, -1, -1},
                                   {-0.0f, 0, -0.0f},
                                   {60000, -60000, 1},
                                   {1e-40f, -1e-40f, 0},
                                   {1e-7f, -1e-7f, 1e-8f},
                                   {1000, 1e-3f, -1e-3f},
                                   {5, 6, 7},
                                   {-5, -6, -7},
                                   {3.4e4f, 3.4e4f, -1},
                                   {1e-30f, 1, 1e-30f}};
  for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
    float x[256], y[256], top = 0;
    for (int i = 0; i < 256; i++) x[i] = kinds[k][i % 3];
    for (int i = 0; i < 3; i++) top = fmaxf(top, fabsf(kinds[k][i]));
    for (int i = 0; i < N_FORMATS; i++) {
      uint8_t out[1024];
      const float steps = formats[i].f == KF_Q2_K ? 0.4f : formats[i].f == KF_Q3_K ? 0.27f : 0.16f;
      kern_encode_row(formats[i].f, x, 256, out);
      kern_dequant_row(formats[i].f, out, 256, y);
      for (int c = 0; c < 256; c++)
        if (!(fabsf(y[c] - x[c]) <= top * steps + 1e-6f))
          fail_msg("%s, kind %zu: %g became %g", kern_format_name(formats[i].f), k, (double)x[c], (double)y[c]);
    }
  }
}

/* Q8_0 by adding the float below a half and cutting is roundf of the reference, also at halves and around them. */
static void rounding_of_q8_0(void **state) {
  (void)state;
  uint32_t s = 7;
  for (int t = 0; t < 20000; t++) {
    float x[32];
    uint8_t a[34], b[34];
    for (int i = 0; i < 32; i++) {
      s = s * 1664525u + 1013904223u;
      float step = (float)((int)(s >> 24) - 128);
      x[i] = t % 2 ? step * 0.5f : nextafterf(step * 0.5f, s & 1 ? 1e9f : -1e9f);
    }
    x[0] = 127;
    kern_encode_row(KF_Q8_0, x, 32, a);
    kern_quant_row(KF_Q8_0, x, 32, b);
    assert_memory_equal(a, b, sizeof a);
  }
}

static void refused(void **state) {
  (void)state;
  int n = 0;
  for (int f = 0; f < KF_N; f++) n += kern_can_encode((kern_format)f);
  assert_int_equal(n, N_FORMATS + 3); /* and the three without blocks */
  assert_false(kern_can_encode(KF_MXFP4));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(bits_and_errors), cmocka_unit_test(same_bits_everywhere),
                                     cmocka_unit_test(hard_values), cmocka_unit_test(rounding_of_q8_0),
                                     cmocka_unit_test(refused)};
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
