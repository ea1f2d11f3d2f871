/* pool.h: the CPU workers. pool_run() executes one function on all threads, the caller being thread 0. Workers are pinned to the
 * cores of their node (unless fake), spin briefly (default 50 us) and then park; with more threads than cores they do not spin.
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
int pool_threads(const pool *p);
int pool_node_of(const pool *p, int thread);
void pool_run(pool *p, pool_fn *fn, void *arg);
/* Inside fn only, by all threads the same number of times. Sense-reversing; spins, then yields. */
void pool_barrier(pool *p, int thread);
/* Claims the next chunk of [0, n): returns the first index or -1. counter starts at 0. */
static inline int pool_claim(atomic_int *counter, int n, int chunk) {
  int i = atomic_fetch_add_explicit(counter, chunk, memory_order_relaxed);
  return i < n ? i : -1;
}
#endif
