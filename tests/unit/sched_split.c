/* Experts cut over nodes: whole units, every row once, every node its share over a layer, and what unevenness costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>
#include <math.h>

#include "sched/split.h"

enum { EXPERTS = 64 };

static void same(const int *begin, int n, const int *want) {
  for (int i = 0; i <= n; i++) assert_int_equal(begin[i], want[i]);
}

static void by_hand(void **state) {
  (void)state;
  int b[EXPERTS * 5];
  split_layer(&(split_rule){2, {1, 1}, 2048, 256}, 2, NULL, b);
  same(b, 2, (int[]){0, 1024, 2048});
  same(b + 3, 2, (int[]){0, 1024, 2048});
  split_layer(&(split_rule){2, {1, 1}, 768, 256}, 3, NULL, b); /* the odd block goes here, then there */
  same(b, 2, (int[]){0, 512, 768});
  same(b + 3, 2, (int[]){0, 256, 768});
  same(b + 6, 2, (int[]){0, 512, 768});
  split_layer(&(split_rule){2, {1, 1}, 768, 256}, 4, (unsigned char[]){0, 1, 0, 1}, b); /* every second expert is elsewhere */
  same(b, 2, (int[]){0, 512, 768});
  same(b + 6, 2, (int[]){0, 256, 768});
  same(b + 3, 2, (int[]){0, 512, 768}); /* and even when it comes back */
  same(b + 9, 2, (int[]){0, 256, 768});
  split_layer(&(split_rule){4, {1, 1, 1, 1}, 256, 256}, 4, NULL, b); /* experts take turns */
  same(b, 4, (int[]){0, 256, 256, 256, 256});
  same(b + 5, 4, (int[]){0, 0, 256, 256, 256});
  same(b + 15, 4, (int[]){0, 0, 0, 0, 256});
  split_layer(&(split_rule){2, {3, 1}, 1024, 128}, 1, NULL, b);
  same(b, 2, (int[]){0, 768, 1024});
  split_layer(&(split_rule){2, {1, 1}, 50, 32}, 1, NULL, b); /* the last unit is short */
  same(b, 2, (int[]){0, 32, 50});
  split_layer(&(split_rule){3, {1, 0, 1}, 128, 32}, 1, NULL, b); /* a node that gets nothing */
  same(b, 3, (int[]){0, 64, 64, 128});
}

static void every_row_once_and_shares_kept(void **state) {
  (void)state;
  unsigned rng = 7;
  for (int i = 0; i < 2000; i++) {
    split_rule r = {0};
    double all = 0, rows[SPLIT_MAX_NODES] = {0};
    static int b[EXPERTS * (SPLIT_MAX_NODES + 1)];
    rng = rng * 1664525u + 1013904223u;
    r.n_nodes = 1 + (int)((rng >> 8) % 8);
    for (int n = 0; n < r.n_nodes; n++) all += r.rate[n] = 1 + (rng = rng * 1664525u + 1013904223u) % 1000;
    r.unit = 32 << (rng >> 8) % 4;
    r.width = 1 + (int)((rng >> 12) % 4000);
    split_layer(&r, EXPERTS, NULL, b);
    for (int e = 0; e < EXPERTS; e++) {
      const int *at = b + e * (r.n_nodes + 1);
      assert_int_equal(at[0], 0);
      assert_int_equal(at[r.n_nodes], r.width);
      for (int n = 0; n < r.n_nodes; n++) {
        assert_true(at[n + 1] >= at[n]);
        assert_true(at[n + 1] % r.unit == 0 || at[n + 1] == r.width);
        rows[n] += at[n + 1] - at[n];
        /* never more than a few units from its share, however many experts came before */
        assert_true(fabs(rows[n] - (e + 1) * (double)r.width * r.rate[n] / all) < r.n_nodes * r.unit);
      }
    }
  }
}

static void stretch(void **state) {
  (void)state;
  const split_rule even = {2, {1, 1}, 2048, 256}, odd = {2, {1, 1}, 768, 256}, whole = {2, {1, 1}, 256, 256};
  assert_true(fabs(split_stretch(&even, 128, 8) - 1) < 1e-12);
  assert_true(fabs(split_stretch(&odd, 1, 1) - 4.0 / 3) < 1e-12);
  assert_true(fabs(split_stretch(&odd, 128, 1) - 4.0 / 3) < 1e-12); /* this expert or that */
  assert_true(fabs(split_stretch(&whole, 128, 1) - 2) < 1e-12);     /* one node works, the other waits */
  /* of 8 random ones, the larger of k and 8 - k: 5.09 of 4 on the mean, less a little as none is drawn twice */
  const double eight = split_stretch(&whole, 128, 8), thirds = split_stretch(&odd, 128, 8);
  assert_true(eight > 1.15 && eight < 1.37);
  assert_true(fabs((thirds - 1) - (eight - 1) / 3) < 0.03);
  assert_true(split_stretch(&whole, 128, 64) < eight);
  assert_true(fabs(split_stretch(&whole, 128, 128) - 1) < 1e-12); /* all of them */
}

static void units(void **state) {
  (void)state;
  assert_int_equal(split_unit(1), 32);
  assert_int_equal(split_unit(32), 32);
  assert_int_equal(split_unit(64), 64);
  assert_int_equal(split_unit(128), 128);
  assert_int_equal(split_unit(256), 256);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(by_hand),
      cmocka_unit_test(every_row_once_and_shares_kept),
      cmocka_unit_test(stretch),
      cmocka_unit_test(units),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
