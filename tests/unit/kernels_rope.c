/* Rotary embedding: which elements rotate with which, in both layouts. A quarter turn (cos 0, sin 1) sends (a, b) to (-b, a). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

static void assert_floats(const float *got, const float *want, int n) {
  for (int i = 0; i < n; i++) assert_float_equal(got[i], want[i], 1e-6);
}

/* Pair 0 makes a quarter turn, pair 1 stays. */
static const float quarter_cos[] = {0, 1}, quarter_sin[] = {1, 0};

static void adjacent_pairs(void **state) {
  (void)state;
  float x[] = {1, 2, 3, 4};
  kern_rope(x, 1, 4, 0, 4, quarter_cos, quarter_sin, true);
  assert_floats(x, (float[]){-2, 1, 3, 4}, 4);
}

static void halves(void **state) {
  (void)state;
  float x[] = {1, 2, 3, 4};
  kern_rope(x, 1, 4, 0, 4, quarter_cos, quarter_sin, false);
  assert_floats(x, (float[]){-3, 2, 1, 4}, 4);
}

/* MLA's query: the rotated part comes behind the part without position, head after head. */
static void only_the_rotated_part_of_each_head(void **state) {
  (void)state;
  float x[] = {9, 9, 9, 1, 2, 3, 4, 7, 8, 8, 8, 5, 6, 7, 8, 6};
  kern_rope(x, 2, 8, 3, 4, quarter_cos, quarter_sin, true);
  assert_floats(x, (float[]){9, 9, 9, -2, 1, 3, 4, 7, 8, 8, 8, -6, 5, 7, 8, 6}, 16);
}

/* cos and sin may carry a factor (YaRN): the length grows by it. */
static void a_general_angle_with_a_factor(void **state) {
  (void)state;
  const float factor = 1.3f, angle = 0.7f, c = factor * cosf(angle), s = factor * sinf(angle);
  float x[] = {0.6f, -0.8f};
  kern_rope(x, 1, 2, 0, 2, &c, &s, true);
  assert_float_equal(x[0], factor * (0.6f * cosf(angle) + 0.8f * sinf(angle)), 1e-6);
  assert_float_equal(x[1], factor * (0.6f * sinf(angle) - 0.8f * cosf(angle)), 1e-6);
  assert_float_equal(x[0] * x[0] + x[1] * x[1], factor * factor, 1e-5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(adjacent_pairs),
      cmocka_unit_test(halves),
      cmocka_unit_test(only_the_rotated_part_of_each_head),
      cmocka_unit_test(a_general_angle_with_a_factor),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
