/* Whether others had the CPU: by hand, and beside a process that takes one. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "executor/beside.h"

static void by_hand(void **state) {
  (void)state;
  beside_mark a = beside_read("cpu  100 0 50 800 50 0 0 0 0 0\n", 100),
              b = beside_read("cpu  300 100 100 1100 50 10 20 70 99 0\n", 100);
  assert_true(a.known && b.known);
  assert_float_equal(a.all_s, 10, 1e-12);
  assert_float_equal(a.busy_s, 1.5, 1e-12);
  assert_float_equal(b.all_s, 17.5, 1e-12); /* guests are counted in user already */
  assert_float_equal(b.busy_s, 6, 1e-12);
  assert_true(beside_share(&a, &b) == -1); /* in no time */
  b.at_s = 0.6;
  b.own_s = 2;
  assert_float_equal(beside_share(&a, &b), 2.5 / 7.5, 1e-12);
  b.own_s = 5; /* a tick late: nobody has less than nothing */
  assert_true(beside_share(&a, &b) == 0);
  b.at_s = 0.4;
  assert_true(beside_share(&a, &b) == -1);
  b.at_s = 0.6;
  beside_mark none = beside_read("intr 1 2 3", 100);
  assert_false(none.known);
  assert_true(beside_share(&none, &b) == -1 && beside_share(&a, &none) == -1);
  assert_false(beside_read("cpu 1 2 3", 100).known);
}

/* Our own work is not the others'. */
static void own_and_others(void **state) {
  (void)state;
  beside_mark from = beside_now(), to;
  if (!from.known) skip();
  pid_t child = fork();
  if (child == 0)
    for (;;) continue;
  assert_true(child > 0);
  do {
    usleep(100000);
    to = beside_now();
  } while (to.at_s - from.at_s < 0.8);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  double share = beside_share(&from, &to), cores = (double)sysconf(_SC_NPROCESSORS_ONLN);
  assert_true(share > 0.4 / cores && share <= 1); /* it may have to share its CPU */
  from = beside_now();
  for (volatile long i = 0; to.own_s - from.own_s < 0.5; i++)
    if (i % 100000 == 0) to = beside_now();
  assert_true(to.own_s - from.own_s >= 0.5 && to.busy_s - from.busy_s > 0.3);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(by_hand), cmocka_unit_test(own_and_others)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
