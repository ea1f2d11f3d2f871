/* The worker pool: every thread runs every call exactly once, barriers hold, claims cover the range, with fewer and with many
 * more threads than cores. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "kernels/mem/pool.h"

enum { MAX_THREADS = 16, ROUNDS = 300 };

static topology *topo;

static pool *open_pool(int n_threads) {
  pool *p = NULL;
  assert_int_equal(pool_new(topo, n_threads, &p), HF_OK);
  assert_int_equal(pool_threads(p), n_threads);
  return p;
}

typedef struct {
  pool *p;
  int runs[MAX_THREADS]; /* written by its own thread alone: the pool must order them */
  int shared;
  int wrong;
  atomic_int claimed, arrived;
  unsigned char seen[1000];
} job;

static void count_run(void *arg, int thread, int n_threads) {
  job *j = arg;
  if (thread < 0 || thread >= n_threads) abort();
  j->runs[thread]++;
}

static void every_thread_runs_once_per_call(void **state) {
  (void)state;
  static const int counts[] = {1, 2, 3, MAX_THREADS};
  for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
    job j = {0};
    pool *p = open_pool(counts[c]);
    for (int i = 0; i < ROUNDS; i++) {
      pool_run(p, count_run, &j);
      for (int t = 0; t < counts[c]; t++) assert_int_equal(j.runs[t], i + 1);
    }
    for (int t = counts[c]; t < MAX_THREADS; t++) assert_int_equal(j.runs[t], 0);
    pool_free(p);
  }
}

static void wakes_parked_workers(void **state) {
  (void)state;
  job j = {0};
  pool *p = open_pool(2);
  for (int i = 0; i < 20; i++) {
    struct timespec longer_than_the_spin = {0, 500000};
    nanosleep(&longer_than_the_spin, NULL);
    pool_run(p, count_run, &j);
  }
  assert_int_equal(j.runs[0], 20);
  assert_int_equal(j.runs[1], 20);
  pool_free(p);
}

/* Between two barriers exactly one thread writes `shared` without a lock; all the others read it after the second. */
static void pass_barriers(void *arg, int thread, int n_threads) {
  job *j = arg;
  for (int i = 0; i < 50; i++) {
    atomic_fetch_add(&j->arrived, 1);
    pool_barrier(j->p, thread);
    if (atomic_load(&j->arrived) != n_threads * (i + 1)) abort();
    if (thread == i % n_threads) j->shared++;
    pool_barrier(j->p, thread);
    if (j->shared != i + 1) abort();
    pool_barrier(j->p, thread);
  }
}

static void barriers_separate_phases(void **state) {
  (void)state;
  static const int counts[] = {1, 2, 4, MAX_THREADS};
  for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
    pool *p = open_pool(counts[c]);
    for (int i = 0; i < 3; i++) {
      job j = {.p = p};
      pool_run(p, pass_barriers, &j);
      assert_int_equal(j.shared, 50);
    }
    pool_free(p);
  }
}

static void claim_all(void *arg, int thread, int n_threads) {
  job *j = arg;
  (void)thread, (void)n_threads;
  for (int i; (i = pool_claim(&j->claimed, 1000, 7)) >= 0;) {
    for (int k = i; k < i + 7 && k < 1000; k++) j->seen[k]++;
  }
}

static void claims_cover_the_range_once(void **state) {
  (void)state;
  job j = {0};
  pool *p = open_pool(4);
  pool_run(p, claim_all, &j);
  for (int i = 0; i < 1000; i++) assert_int_equal(j.seen[i], 1);
  pool_free(p);
}

static void threads_follow_the_cores_of_the_nodes(void **state) {
  (void)state;
  topology *t = calloc(1, sizeof *t);
  assert_non_null(t);
  t->fake = true;
  t->n_nodes = 3; /* the middle one has memory and no CPUs */
  t->node[0].n_cores = t->node[0].n_cpus = 6;
  t->node[2].n_cores = t->node[2].n_cpus = 2;
  pool *p = NULL;
  assert_int_equal(pool_new(t, 0, &p), HF_OK);
  assert_int_equal(pool_threads(p), 8);
  for (int i = 0; i < 8; i++) assert_int_equal(pool_node_of(p, i), i < 6 ? 0 : 2);
  pool_free(p);
  assert_int_equal(pool_new(t, 4, &p), HF_OK);
  for (int i = 0; i < 4; i++) assert_int_equal(pool_node_of(p, i), i < 3 ? 0 : 2);
  pool_free(p);
  free(t);
}

static void refuses_a_bad_number(void **state) {
  (void)state;
  pool *p = NULL;
  assert_int_equal(pool_new(topo, -1, &p), HF_INPUT);
  assert_int_equal(pool_new(topo, 100000, &p), HF_INPUT);
  assert_null(p);
  assert_non_null(strstr(hf_error_line(), "100000"));
  pool_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_thread_runs_once_per_call),
      cmocka_unit_test(wakes_parked_workers),
      cmocka_unit_test(barriers_separate_phases),
      cmocka_unit_test(claims_cover_the_range_once),
      cmocka_unit_test(threads_follow_the_cores_of_the_nodes),
      cmocka_unit_test(refuses_a_bad_number),
  };
  topo = calloc(1, sizeof *topo);
  if (!topo || topo_get(topo) != HF_OK) return 1;
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  free(topo);
  return failed;
}
