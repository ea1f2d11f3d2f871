/* The shim that kernels run on: right kernels give right results in either order of threads, wrong ones are found and named. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/host/host.h"
#include "shim_kernels.h"

static void *numbers(size_t bytes, const void *from, const char *name) {
  void *p = hfc_host_alloc(bytes, name);
  assert_non_null(p);
  if (from) memcpy(p, from, bytes);
  return p;
}

static void reduces(void **state) {
  enum { N = 1000 };
  (void)state;
  float x[N], sum[4] = {0};
  for (int i = 0; i < N; i++) x[i] = (float)(i % 37), sum[i / 256] += x[i];
  float *in = numbers(sizeof x, x, "x"), *out = numbers(sizeof sum, NULL, "out");
  for (int order = 0; order < 2; order++) {
    hfc_host_backwards(order);
    memset(out, 0, sizeof sum);
    if (shim_reduce(in, N, out)) fail_msg("%s", hfc_host_fault());
    assert_memory_equal(out, sum, sizeof sum);
  }
  hfc_host_backwards(false);
  hfc_host_free(in);
  hfc_host_free(out);
}

static void scans_and_votes(void **state) {
  (void)state;
  int x[32], sums[32], zero = 0;
  unsigned yes = 0;
  for (int i = 0; i < 32; i++) {
    x[i] = i * 7 % 13 - 5;
    sums[i] = (i ? sums[i - 1] : 0) + x[i];
    yes |= (unsigned)(x[i] > 0) << i;
  }
  int *in = numbers(sizeof x, x, "x"), *out = numbers(sizeof x, NULL, "out"), *count = numbers(sizeof zero, &zero, "count");
  unsigned *ballot = numbers(sizeof yes, NULL, "ballot");
  assert_int_equal(shim_scan(in, out), 0);
  assert_memory_equal(out, sums, sizeof sums);
  assert_int_equal(shim_vote(in, ballot, count), 0);
  assert_int_equal(*ballot, yes);
  assert_int_equal(*count, __builtin_popcount(yes));
  assert_int_equal(shim_reverse(in, 32, out), 0);
  for (int i = 0; i < 32; i++) assert_int_equal(out[i], x[31 - i]);
  hfc_host_free(in);
  hfc_host_free(out);
  hfc_host_free(count);
  hfc_host_free(ballot);
}

/* What each mistake must be reported with; all of them, and nothing about the right kernel. */
static void mistakes_are_found(void **state) {
  static const struct {
    const char *who, *what;
    int of_memory;
  } want[SHIM_N] = {
      [SHIM_READ_PAST] = {"kernel wrong_memory, block (1, 0, 0), thread (63, 0, 0)",
                          "reads 4 bytes from byte 512 on of x, which has 512", 1},
      [SHIM_WRITE_BEFORE] = {"block (0, 0, 0), thread (0, 0, 0)", "writes 4 bytes outside of all memory", 1},
      [SHIM_WRITE_CONSTANT] = {"block (0, 0, 0), thread (0, 0, 0)", "writes to x, which is constant", 1},
      [SHIM_MISALIGNED] = {"thread (0, 0, 0)", "reads 4 bytes at an address that is no multiple", 1},
      [SHIM_SHARED_PAST] = {"thread (63, 0, 0)", "reads 4 bytes from byte 256 on of room, which has 256", 1},
      [SHIM_DYNAMIC_PAST] = {"thread (63, 0, 0)", "reads 4 bytes from byte 256 on of (dynamic), which has 256", 1},
      [SHIM_TABLE_PAST] = {"thread (4, 0, 0)", "reads 4 bytes from byte 16 on of table, which has 16", 1},
      [SHIM_WILD] = {"thread (0, 0, 0)", "reads 4 bytes outside of all memory", 1},
      [SHIM_DIVERGENT] = {"kernel wrong_order, block (0, 0, 0), thread (0, 0, 0)", "divergent barrier: waits at a barrier", 0},
      [SHIM_TWO_BARRIERS] = {"thread (0, 0, 0)", "thread 32 waits at a barrier at line", 0},
      [SHIM_MISSING_LANE] = {"thread (0, 0, 0)", "thread 5 of the block has ended", 0},
      [SHIM_FOREIGN_LANE] = {"thread (8, 0, 0)", "a shuffle from lane 16, which takes no part", 0},
      [SHIM_RACE] = {"thread (32, 0, 0)", "race: writes byte 128 of shared memory room, which thread 0 read", 1},
      [SHIM_RACE_IN_WARP] = {"thread (1, 0, 0)", "race: writes byte 4 of shared memory room, which thread 0 read", 1},
  };
  (void)state;
  float x[128];
  for (int i = 0; i < 128; i++) x[i] = (float)i;
  float *in = numbers(sizeof x, x, "x"), *out = numbers(sizeof x, NULL, "out");
  hfc_host_constant(in);
  assert_int_equal(shim_wrong(SHIM_GOOD, in, out), 0);
  assert_memory_equal(out, x, sizeof x);
  assert_string_equal(hfc_host_fault(), "");
  for (int m = 0; m < SHIM_N; m++) {
    if (!want[m].who || (want[m].of_memory && !hfc_host_checked())) continue;
    if (shim_wrong((shim_mistake)m, in, out) != HFC_FAULT) fail_msg("mistake %d was not found", m);
    if (!strstr(hfc_host_fault(), want[m].who) || !strstr(hfc_host_fault(), want[m].what))
      fail_msg("mistake %d: \"%s\", wanted \"%s ... %s\"", m, hfc_host_fault(), want[m].who, want[m].what);
    hfc_host_clear();
  }
  if (hfc_host_checked()) {
    assert_int_equal(shim_wrong(SHIM_UNWRITTEN, in, out), 0);
    for (int i = 0; i < 128; i++) assert_true(i % 2 ? out[i] == x[i] : isnan(out[i]) != 0);
  }
  assert_int_equal(shim_wrong(SHIM_GOOD, in, out), 0); /* what was found before leaves nothing behind */
  hfc_host_free(in);
  hfc_host_free(out);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(reduces),
      cmocka_unit_test(scans_and_votes),
      cmocka_unit_test(mistakes_are_found),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
