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

/* Two threads at a seventeenth of one: measured again, and where it stays, what one thread did lies in the interval. */
static void slower_than_one(void **state) {
  (void)state;
  profile p = {.n_figure = 0};
  add(&p, "cpu", "cpu_flops_fp16", "threads=1", "FLOP/s", 93e9);
  add(&p, "cpu", "cpu_flops_fp16", "threads=2", "FLOP/s", 5.4e9);
  add(&p, "cpu", "dram_read_bytes_per_s", "threads=1", "B/s", 30e9); /* a little slower together: memory is like that */
  add(&p, "cpu", "dram_read_bytes_per_s", "threads=2", "B/s", 25e9);
  assert_true(prof_impossible(&p, 0));
  assert_false(prof_impossible(&p, 2));
  prof_mark_doubtful(&p, 0);
  assert_float_equal(p.figure[1].high, 93e9, 1);
  assert_true(p.figure[1].low <= p.figure[1].likely && p.figure[1].likely == 5.4e9);
  assert_non_null(strstr(p.figure[1].source, "doubtful"));
  assert_null(strstr(p.figure[3].source, "doubtful"));
  free(p.figure);
}

/* A curve that met another program at 4 tokens: that point is measured again, no other, and only what is quicker is taken. */
typedef struct {
  int calls;
  double ns[3]; /* what the calls give */
} replay;

static stats again(profile *p, void *user, const rec_kernel_point *k) {
  replay *r = user;
  (void)p;
  assert_int_equal(k->tokens, 4);
  double ns = r->ns[r->calls++];
  return (stats){.median = ns, .low = ns, .high = ns, .n = 2};
}

static void curve(profile *p, double at4) {
  static const int tokens[] = {1, 2, 4, 8};
  double ns[] = {100, 110, at4, 180};
  p->n_point = 0;
  for (int i = 0; i < 4; i++) {
    rec_kernel_point k = {.tokens = tokens[i]};
    stats s = {.median = ns[i], .low = ns[i], .high = ns[i], .n = 3};
    assert_int_equal(prof_add_point(p, &k, &s), HF_OK);
  }
}

static void rising_curves(void **state) {
  (void)state;
  profile p = {.n_figure = 0};
  replay r = {0, {130, 0, 0}};
  curve(&p, 3000);
  prof_in_order(&p, 0, again, &r);
  assert_int_equal(r.calls, 1);
  assert_true(p.point[2].ns == 130 && p.point[2].n == 5 && p.point[3].ns == 180);
  curve(&p, 3000); /* again in vain, and not for ever */
  r = (replay){0, {4000, 3500, 3500}};
  prof_in_order(&p, 0, again, &r);
  assert_int_equal(r.calls, PROF_TRIES - 1);
  assert_true(p.point[2].ns == 3000);
  curve(&p, 200); /* within noise */
  r.calls = 0;
  prof_in_order(&p, 0, again, &r);
  assert_int_equal(r.calls, 0);
  free(p.point);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(over_linear), cmocka_unit_test(possible), cmocka_unit_test(slower_than_one),
                                     cmocka_unit_test(rising_curves)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
