/* Rates of several threads that cannot be: found, widened, told apart from those that can. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "profiler/profile.h"

static void add(profile *p, const char *device, const char *what, const char *params, const char *unit, double v) {
  stats s = {.median = v, .low = 0.95 * v, .high = 1.05 * v, .spread = 0.1, .n = 9};
  assert_int_equal(prof_add_figure(p, device, what, params, unit, &s, "a test"), HF_OK);
}

static void over_linear(void **state) {
  (void)state;
  profile p = {.n_figure = 0};
  add(&p, "cpu", "cpu_flops_f32", "threads=1", "FLOP/s", 82e9);
  add(&p, "cpu", "cpu_flops_f32", "threads=2", "FLOP/s", 1.59e12);
  add(&p, "cpu", "cpu_flops_int8", "threads=2", "OP/s", 1e15);        /* one thread alone was not measured */
  add(&p, "cpu0", "dram_read_bytes_per_s", "threads=1", "B/s", 10e9); /* another device's */
  add(&p, "cpu", "dram_read_bytes_per_s", "threads=4", "B/s", 400e9);
  add(&p, "cpu", "barrier_ns", "threads=1", "ns", 10);
  add(&p, "cpu", "barrier_ns", "threads=2", "ns", 900); /* times grow with threads */
  int threads = 0;
  assert_float_equal(rec_figure_over_linear(p.figure, p.n_figure, 1, &threads), 1.59e12 / 164e9, 1e-9);
  assert_int_equal(threads, 2);
  for (int i = 0; i < p.n_figure; i++)
    if (i != 1) assert_true(rec_figure_over_linear(p.figure, p.n_figure, i, NULL) == 0);
  assert_true(prof_impossible(&p, 0));
  assert_false(prof_impossible(&p, 2));
  prof_mark_doubtful(&p, 0);
  assert_float_equal(p.figure[1].low, 164e9, 1); /* what is possible lies in the interval */
  assert_true(p.figure[1].likely == 1.59e12 && p.figure[1].spread > 0.9);
  assert_non_null(strstr(p.figure[1].source, "a test; doubtful: 19.4 times one thread's"));
  assert_null(strstr(p.figure[0].source, "doubtful"));
  assert_true(p.figure[4].low == 0.95 * 400e9);
  free(p.figure);
}

/* Noise is no doubt. */
static void possible(void **state) {
  (void)state;
  profile p = {.n_figure = 0};
  add(&p, "cpu", "cpu_flops_bf16", "threads=1", "FLOP/s", 100e9);
  add(&p, "cpu", "cpu_flops_bf16", "threads=2", "FLOP/s", 225e9);
  assert_false(prof_impossible(&p, 0));
  prof_mark_doubtful(&p, 0);
  assert_true(p.figure[1].low == 0.95 * 225e9);
  free(p.figure);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(over_linear), cmocka_unit_test(possible)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
