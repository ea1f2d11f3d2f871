/* Threads that die or stand still end the process with one line; threads that work for long, and a process that was stopped, do not. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/end.h"
#include "base/status.h"
#include "kernels/mem/pool.h"
#include "tests/unit/in_process.h"

enum { PATIENCE_S = 2 };

static topology *topo;
static pool *the_pool;
static atomic_int counter;

static void nap(double s) {
  struct timespec t = {(time_t)s, (long)((s - (double)(time_t)s) * 1e9)};
  while (nanosleep(&t, &t)) {}
}

static void with_pool(pool_fn *fn, int n_threads) {
  hf_end_program("hf-test");
  alarm(60); /* a hang fails the test */
  if (pool_new(topo, n_threads, &the_pool) != HF_OK) _exit(78);
  pool_set_patience(the_pool, PATIENCE_S);
  pool_run(the_pool, fn, NULL);
  pool_free(the_pool);
}

static void dies(void *arg, int thread, int n_threads) {
  (void)arg, (void)n_threads;
  if (thread == 1) pthread_exit(NULL);
}

static void dies_before_a_barrier(void *arg, int thread, int n_threads) {
  (void)arg, (void)n_threads;
  if (thread == 2) pthread_exit(NULL);
  pool_barrier(the_pool, thread);
}

static void dies_while_counted_on(void *arg, int thread, int n_threads) {
  (void)arg, (void)n_threads;
  if (thread == 1) pthread_exit(NULL);
  pool_wait(the_pool, &counter, 1);
}

static void stands_still(void *arg, int thread, int n_threads) {
  (void)arg, (void)n_threads;
  if (thread == 1) nap(50);
}

static void counts_on_one_that_stands_still(void *arg, int thread, int n_threads) {
  (void)arg, (void)n_threads;
  if (thread == 1) nap(50);
  else pool_wait(the_pool, &counter, 1);
}

static void works_for_long(void *arg, int thread, int n_threads) {
  (void)arg, (void)n_threads;
  for (int64_t until = hf_now_ns() + (PATIENCE_S + 2) * INT64_C(1000000000); thread == 1 && hf_now_ns() < until;) {}
  pool_barrier(the_pool, thread);
}

static void waits_outside(void *arg, int thread, int n_threads) {
  (void)arg, (void)n_threads;
  if (thread == 0) {
    pool_outside(the_pool, true);
    nap(PATIENCE_S + 2);
    pool_outside(the_pool, false);
  }
  pool_barrier(the_pool, thread);
}

static void is_stopped(void *arg, int thread, int n_threads) {
  (void)arg, (void)n_threads;
  if (thread == 1) nap(1.5); /* the process is stopped for longer than its patience meanwhile */
}

static void run_dies(void) {
  with_pool(dies, 2);
}
static void run_barrier(void) {
  with_pool(dies_before_a_barrier, 4);
}
static void run_counted(void) {
  with_pool(dies_while_counted_on, 2);
}
static void run_still(void) {
  with_pool(stands_still, 2);
}
static void run_counted_still(void) {
  with_pool(counts_on_one_that_stands_still, 3);
}
static void run_outside(void) {
  with_pool(waits_outside, 2);
}
static void run_long(void) {
  with_pool(works_for_long, 2);
}
static void run_stopped(void) {
  const pid_t self = getpid();
  if (fork() == 0) {
    nap(0.3);
    kill(self, SIGSTOP);
    nap(PATIENCE_S + 2);
    kill(self, SIGCONT);
    _exit(0);
  }
  with_pool(is_stopped, 2);
}

static void ends_with(void (*job)(void), const char *line) {
  char text[512];
  const int status = in_process(job, text, sizeof text);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != hf_exit_status(HF_MACHINE))
    fail_msg("wait status %x: %s", (unsigned)status, text);
  assert_string_equal(text, line);
}

static void goes_on(void (*job)(void)) {
  char text[512];
  const int status = in_process(job, text, sizeof text);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 77) fail_msg("wait status %x: %s", (unsigned)status, text);
  assert_string_equal(text, "");
}

static void a_dead_worker_is_named(void **state) {
  (void)state;
  ends_with(run_dies, "hf-test: CPU workers: thread 1 of 2 has died, and its work cannot be finished; start again\n");
  ends_with(run_barrier, "hf-test: CPU workers: thread 2 of 4 has died, and its work cannot be finished; start again\n");
  ends_with(run_counted, "hf-test: CPU workers: thread 1 of 2 has died, and its work cannot be finished; start again\n");
}

static void standing_still_has_an_end(void **state) {
  (void)state;
  ends_with(run_counted_still,
            "hf-test: CPU workers: nothing has moved for 2 s (does the disk of the weights still answer?); start again\n");
  ends_with(run_still,
            "hf-test: CPU workers: nothing has moved for 2 s (does the disk of the weights still answer?); start again\n");
}

static void long_work_has_none(void **state) {
  (void)state;
  goes_on(run_long);
  goes_on(run_outside);
  goes_on(run_stopped);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_dead_worker_is_named),
      cmocka_unit_test(standing_still_has_an_end),
      cmocka_unit_test(long_work_has_none),
  };
  topo = calloc(1, sizeof *topo);
  if (!topo || topo_get(topo) != HF_OK) return 1;
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  free(topo);
  return failed;
}
