/* Order statistics: ranks worked out by hand, and the definition itself at every size. */
#include "base/stats.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

static void sorted_in_place(void **state) {
  (void)state;
  double v[] = {3, -1, 2, 2, 0};
  hf_sort(v, 5);
  for (int i = 1; i < 5; i++) assert_true(v[i - 1] <= v[i]);
  assert_true(v[0] == -1 && v[4] == 3);
  hf_sort(NULL, 0);
}

static void percentiles_by_nearest_rank(void **state) {
  (void)state;
  hf_percentiles p = hf_percentiles_of(NULL, 0);
  assert_true(p.p50 == 0 && p.p90 == 0 && p.p99 == 0);
  double one[] = {7};
  p = hf_percentiles_of(one, 1);
  assert_true(p.p50 == 7 && p.p90 == 7 && p.p99 == 7);
  double two[] = {9, 4};
  p = hf_percentiles_of(two, 2);
  assert_true(p.p50 == 4 && p.p90 == 9 && p.p99 == 9);
  double ten[] = {10, 9, 8, 7, 6, 5, 4, 3, 2, 1};
  p = hf_percentiles_of(ten, 10);
  assert_true(p.p50 == 5 && p.p90 == 9 && p.p99 == 10);
  double hundred[100], many[1000];
  for (int i = 0; i < 100; i++) hundred[(i * 37) % 100] = i + 1;
  p = hf_percentiles_of(hundred, 100);
  assert_true(p.p50 == 50 && p.p90 == 90 && p.p99 == 99);
  for (int i = 0; i < 1000; i++) many[(i * 7) % 1000] = i + 1;
  p = hf_percentiles_of(many, 1000);
  assert_true(p.p50 == 500 && p.p90 == 900 && p.p99 == 990);
  /* the rank is counted in whole numbers: 0.9 * n may come out above one */
  for (int n = 1; n <= 1000; n++) {
    for (int i = 0; i < n; i++) many[i] = n - i;
    p = hf_percentiles_of(many, (size_t)n);
    assert_true(10 * p.p90 >= 9 * n && 10 * (p.p90 - 1) < 9 * n);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sorted_in_place),
      cmocka_unit_test(percentiles_by_nearest_rank),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
