/* What timings are boiled down to. */
#include "profiler/stats.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void near(double a, double b) {
  if (fabs(a - b) > 1e-9 * (1 + fabs(b))) fail_msg("%.17g is not %.17g", a, b);
}

static void empty_and_single(void **state) {
  (void)state;
  stats s = stats_of(NULL, 0);
  assert_int_equal(s.n, 0);
  near(s.median, 0);
  double one[] = {7};
  s = stats_of(one, 1);
  near(s.median, 7);
  near(s.low, 7);
  near(s.high, 7);
  near(s.spread, 0);
}

static void percentiles(void **state) {
  (void)state;
  double v[] = {11, 1, 10, 2, 9, 3, 8, 4, 7, 5, 6};
  stats s = stats_of(v, 11);
  near(s.median, 6);
  near(s.low, 2);
  near(s.high, 10);
  near(s.least, 1);
  near(s.spread, 8.0 / 6);
  assert_int_equal(s.n, 11);
  double even[] = {4, 1, 2, 3};
  near(stats_of(even, 4).median, 2.5);
}

/* One interrupted sample among many moves neither the median nor the 90th percentile far. */
static void outlier(void **state) {
  (void)state;
  double v[21];
  for (int i = 0; i < 21; i++) v[i] = 100;
  v[4] = 1e9;
  stats s = stats_of(v, 21);
  near(s.median, 100);
  near(s.high, 100);
  assert_false(stats_noisy(&s));
  for (int i = 0; i < 8; i++) v[i] = 200;
  s = stats_of(v, 21);
  assert_true(stats_noisy(&s));
}

static void the_quieter_one(void **state) {
  (void)state;
  stats a = {.median = 10, .spread = 0.5, .n = 7}, b = {.median = 9, .spread = 0.1, .n = 9};
  stats s = stats_better(&a, &b);
  near(s.median, 9);
  assert_int_equal(s.n, 16);
  s = stats_better(&b, &a);
  near(s.median, 9);
}

static void rates(void **state) {
  (void)state;
  stats ns = {.median = 2, .low = 1, .high = 4, .spread = 1.5, .n = 5};
  stats r = stats_rate(&ns, 8);
  near(r.median, 4);
  near(r.low, 2);
  near(r.high, 8);
  near(r.spread, 1.5);
  assert_int_equal(r.n, 5);
  stats zero = {.n = 3};
  near(stats_rate(&zero, 8).median, 0);
}

static void shares(void **state) {
  (void)state;
  stats s = {.median = 100, .low = 90, .high = 140, .n = 5};
  stats r = stats_share(&s, 20, 4, 0.1);
  near(r.median, 20);
  near(r.low, 17.5);
  near(r.high, 30);
  near(r.spread, 12.5 / 20);
  r = stats_share(&s, 99, 4, 0.1); /* never more than nine tenths are taken off */
  near(r.median, 2.5);
  near(r.low, 2.25);
  assert_true(r.low <= r.median && r.median <= r.high);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(empty_and_single), cmocka_unit_test(percentiles), cmocka_unit_test(outlier),
      cmocka_unit_test(the_quieter_one),  cmocka_unit_test(rates),       cmocka_unit_test(shares),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
