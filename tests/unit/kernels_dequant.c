/* Rows to f32 bit for bit as the reference data has them, and back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "kernels/kernels.h"

enum { VALUES = 2048 };

static char *read_golden(const char *type, const char *ending, size_t *n) {
  char path[512];
  char *data = NULL;
  snprintf(path, sizeof path, "%s/tests/golden/dequant/%s.%s", HF_SOURCE_DIR, type, ending);
  assert_int_equal(hf_read_file(path, 1 << 20, &data, n), HF_OK);
  return data;
}

static void golden_rows_are_bit_exact(void **state) {
  (void)state;
  static const struct {
    const char *type;
    kern_format format;
  } types[] = {{"F32", KF_F32}, {"F16", KF_F16}, {"BF16", KF_BF16}, {"Q8_0", KF_Q8_0}};
  for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
    size_t n_raw, n_want;
    char *raw = read_golden(types[i].type, "bin", &n_raw), *want = read_golden(types[i].type, "f32", &n_want);
    float got[VALUES];
    assert_int_equal(n_want, sizeof got);
    assert_int_equal(n_raw, kern_row_bytes(types[i].format, VALUES));
    kern_dequant_row(types[i].format, raw, VALUES, got);
    assert_memory_equal(got, want, sizeof got);
    free(raw);
    free(want);
  }
}

/* d = 127/127 = 1: values are their own quants; halves go away from zero. The second block is all zero. */
static void q8_0_of_known_values(void **state) {
  (void)state;
  float x[64] = {127, -127, 1, -1, 2.5f, -2.5f, 0.4f, -0.4f}, back[64];
  const float want[8] = {127, -127, 1, -1, 3, -3, 0, 0};
  char row[68];
  kern_quant_row(KF_Q8_0, x, 64, row);
  kern_dequant_row(KF_Q8_0, row, 64, back);
  for (int i = 0; i < 8; i++) assert_float_equal(back[i], want[i], 0);
  for (int i = 8; i < 64; i++) assert_float_equal(back[i], 0, 0);
}

static void small_numbers_survive_the_quantiser(void **state) {
  (void)state;
  float x[32], back[32];
  char row[34];
  for (int i = 0; i < 32; i++) x[i] = (float)(i - 16) * 0x1p-149f;
  kern_quant_row(KF_Q8_0, x, 32, row);
  kern_dequant_row(KF_Q8_0, row, 32, back);
  for (int i = 0; i < 32; i++) assert_float_equal(back[i], 0, 1e-30);
}

static void halves_round_to_nearest_even(void **state) {
  (void)state;
  static const struct {
    kern_format f;
    float x, want;
  } cases[] = {
      {KF_F16, 2049, 2048},         {KF_F16, 2051, 2052},  {KF_F16, 65519.0f, 65504},      {KF_F16, 65520.0f, INFINITY},
      {KF_F16, 0x1p-24f, 0x1p-24f}, {KF_F16, 0x1p-25f, 0}, {KF_F16, 0x1.8p-24f, 0x1p-23f}, {KF_F16, -0x1.1p-25f, -0x1p-24f},
      {KF_BF16, 257, 256},          {KF_BF16, 259, 260},   {KF_BF16, 3.4e38f, INFINITY},   {KF_BF16, 0x1p-133f, 0x1p-133f},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    float got;
    char h[4];
    kern_quant_row(cases[i].f, &cases[i].x, 1, h);
    kern_dequant_row(cases[i].f, h, 1, &got);
    assert_true(got == cases[i].want);
  }
}

static void every_half_goes_there_and_back(void **state) {
  (void)state;
  for (int f = KF_F16; f <= KF_BF16; f++) {
    for (int i = 0; i < 65536; i++) {
      uint16_t h = (uint16_t)i, back;
      float v;
      kern_dequant_row((kern_format)f, &h, 1, &v);
      kern_quant_row((kern_format)f, &v, 1, &back);
      if (isnan(v)) {
        float again;
        kern_dequant_row((kern_format)f, &back, 1, &again);
        assert_true(isnan(again));
      } else {
        assert_int_equal(back, h);
      }
    }
  }
}

static void names_and_sizes(void **state) {
  (void)state;
  for (int f = 0; f < KF_N; f++) {
    kern_format back;
    assert_true(kern_format_parse(kern_format_name((kern_format)f), &back));
    assert_int_equal(back, f);
    assert_int_equal(kern_act_of((kern_format)f, true), KA_F32);
  }
  kern_format none;
  assert_false(kern_format_parse("q9_9", &none));
  assert_int_equal(kern_row_bytes(KF_Q8_0, 96), 102);
  assert_int_equal(kern_block(KF_Q8_0), 32);
  assert_int_equal(kern_act_of(KF_Q8_0, false), KA_Q8B32);
  for (int a = 0; a < KA_N; a++) {
    for (int n = 1; n < 300; n++) assert_int_equal(kern_act_bytes((kern_act)a, n) % 64, 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(golden_rows_are_bit_exact),           cmocka_unit_test(q8_0_of_known_values),
      cmocka_unit_test(small_numbers_survive_the_quantiser), cmocka_unit_test(halves_round_to_nearest_even),
      cmocka_unit_test(every_half_goes_there_and_back),      cmocka_unit_test(names_and_sizes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
