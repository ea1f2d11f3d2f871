/* pool.h: the CPU workers. pool_run() executes one function on all threads, the caller being thread 0. Workers are pinned, one to a
 * core when they take (nearly) all cores of the machine, else to the cores of their node where there are several nodes (never when the
 * topology is fake); they spin briefly (50 us) and then park; with more threads than cores they do not spin.
 * A worker that dies in fn, or all of them standing still for PATIENCE_LOOKS seconds, ends the process with one line (kernels/mem/patience.h).
 * HF_FAIL_WORKER=N in the environment lets worker 1 die at the N-th pool_run: a rehearsal, for tests.
 * One pool_run at a time (calls from several threads are serialised by the caller). Functions must not fail: they report through arg. */
#ifndef HF_KERNELS_POOL_H
#define HF_KERNELS_POOL_H
#include <stdatomic.h>
#include "kernels/mem/topology.h"
typedef struct pool pool;
typedef void pool_fn(void *arg, int thread, int n_threads);
/* n_threads 0 = all physical cores. */
HF_MUST hf_status pool_new(const topology *t, int n_threads, pool **out);
void pool_free(pool *p);
/* Another patience than PATIENCE_LOOKS, in seconds; before pool_run. */
void pool_set_patience(pool *p, int seconds);
/* Thread 0, in the middle of fn, begins or ends something of another kind that may wait (a network, a reader of what is written): the others' patience rests. */
void pool_outside(pool *p, bool begins);
int pool_threads(const pool *p);
int pool_node_of(const pool *p, int thread);
/* A cpu_set_t (sched.h) of the CPUs that no worker is pinned to, for a thread that works beside the pool; false when there are none. */
bool pool_spare_cpus(const pool *p, void *cpu_set, size_t bytes);
void pool_run(pool *p, pool_fn *fn, void *arg);
/* Memory for a matrix, from byte `at` of a block of mem_alloc (node -1) on, that nobody has touched yet: rows to the nodes of the threads to whom products
 * give them (tiles of 16 rows, an equal share to each thread in order), as far as huge pages allow. */
void pool_spread_rows(const pool *p, void *block, size_t block_bytes, size_t at, int n_rows, size_t row_bytes);
/* Inside fn only, by all threads the same number of times. Sense-reversing; spins, then sleeps. */
void pool_barrier(pool *p, int thread);
/* Until *counter, which others raise with release, is at least `value`: spins, then naps. p may be NULL when the value is there already. */
void pool_wait(pool *p, atomic_int *counter, int value);
/* One breath of a thread that polls: leaves the core to its sibling. */
static inline void pool_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}
/* Claims the next chunk of [0, n): returns the first index or -1. counter starts at 0. */
static inline int pool_claim(atomic_int *counter, int n, int chunk) {
  int i = atomic_fetch_add_explicit(counter, chunk, memory_order_relaxed);
  return i < n ? i : -1;
}
#endif
