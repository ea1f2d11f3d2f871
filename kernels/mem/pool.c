/* pool.c: the CPU workers.
 *
 * Invariants
 *  1. `epoch` counts pool_run calls. A worker runs fn exactly once per epoch, after it has seen that epoch.
 *  2. fn and arg are written before epoch is raised and not touched until `left` is zero again.
 *  3. `left` is the number of workers that have not finished the current epoch; pool_run returns only at zero.
 *
 * Waiting, on both sides: spin for spin_ns, then park under the mutex. The parking side raises its counter (`parked`,
 * `caller_parked`) and looks at the awaited value again, the waking side changes the value and then looks at the counter; all
 * four accesses are sequentially consistent, so at least one of the two sees the other and no wake-up is lost. */
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "kernels/mem/internal.h"
#include "kernels/mem/patience.h"
#include "kernels/mem/pool.h"

enum {
  SPIN_NS = 50000,
  BARRIER_SPIN_NS = 200000,
  NAP_NS = 20000,
  LONG_NAP_NS = 50000000,
  CHECKS_PER_CLOCK = 64,
  LINE_BYTES = 64,
  MAX_THREADS = TOPO_MAX_CPUS
};

typedef struct {
  pool *p;
  pthread_t handle;
  int index, node, cpu;                   /* cpu -1: no core of its own */
  _Alignas(LINE_BYTES) int barrier_sense; /* read and written by the thread itself alone */
} worker;

struct pool {
  int n_threads, n_started;
  int64_t spin_ns;
  bool pin;
  cpu_set_t *node_cpus; /* [n_nodes] */
  int n_nodes;
  pthread_mutex_t lock;
  pthread_cond_t work, done, opened;
  pool_fn *fn;
  void *arg;
  patience patience;
  unsigned fail_at; /* for tests: the pool_run at which worker 1 dies; 0: never */
  _Alignas(LINE_BYTES) atomic_uint epoch;
  atomic_bool stop;
  _Alignas(LINE_BYTES) atomic_int left;
  _Alignas(LINE_BYTES) atomic_int parked;
  atomic_bool caller_parked;
  _Alignas(LINE_BYTES) atomic_int barrier_left;
  _Alignas(LINE_BYTES) atomic_int barrier_sense;
  atomic_int barrier_asleep;
  _Alignas(LINE_BYTES) worker w[]; /* [n_threads]; w[0] is the caller */
};

/* Spins until happened(p, seen) or the time is over; true when it happened. */
static bool spin_for(pool *p, int64_t spin_ns, bool (*happened)(pool *, unsigned), unsigned seen) {
  if (happened(p, seen)) return true;
  if (spin_ns == 0) return false;
  int64_t until = hf_now_ns() + spin_ns;
  do {
    for (int i = 0; i < CHECKS_PER_CLOCK; i++) {
      if (happened(p, seen)) return true;
      pool_relax();
    }
  } while (hf_now_ns() < until);
  return false;
}

static bool epoch_moved(pool *p, unsigned seen) {
  return atomic_load(&p->epoch) != seen;
}

static bool all_done(pool *p, unsigned unused) {
  (void)unused;
  return atomic_load(&p->left) == 0;
}

static void wait_for_work(pool *p, unsigned seen) {
  if (spin_for(p, p->spin_ns, epoch_moved, seen)) return;
  pthread_mutex_lock(&p->lock);
  atomic_fetch_add(&p->parked, 1);
  while (!epoch_moved(p, seen)) pthread_cond_wait(&p->work, &p->lock); /* ends: idle until the next work, or pool_free */
  atomic_fetch_sub(&p->parked, 1);
  pthread_mutex_unlock(&p->lock);
}

static void wait_for_workers(pool *p) {
  patience_wait w = {0};
  if (spin_for(p, p->spin_ns, all_done, 0)) return;
  pthread_mutex_lock(&p->lock);
  atomic_store(&p->caller_parked, true);
  while (!all_done(p, 0)) patience_cond_wait(&p->patience, &w, &p->done, &p->lock);
  atomic_store(&p->caller_parked, false);
  pthread_mutex_unlock(&p->lock);
}

static void start_epoch(pool *p) {
  atomic_fetch_add(&p->epoch, 1);
  if (atomic_load(&p->parked) == 0) return;
  pthread_mutex_lock(&p->lock);
  pthread_cond_broadcast(&p->work);
  pthread_mutex_unlock(&p->lock);
}

static void finish_epoch(pool *p) {
  if (atomic_fetch_sub(&p->left, 1) != 1 || !atomic_load(&p->caller_parked)) return;
  pthread_mutex_lock(&p->lock);
  pthread_cond_signal(&p->done);
  pthread_mutex_unlock(&p->lock);
}

/* One core each: left to itself the scheduler may keep two workers on one CPU for seconds, and then each barrier takes as long as the
 * other spins. A thread without a core of its own may run on all of its node. */
static void pin_worker(const pool *p, int i) {
  cpu_set_t own;
  const cpu_set_t *set = &p->node_cpus[p->w[i].node];
  if (!p->pin) return;
  if (p->w[i].cpu >= 0) {
    CPU_ZERO(&own);
    CPU_SET(p->w[i].cpu, &own);
    set = &own;
  }
  (void)pthread_setaffinity_np(pthread_self(), sizeof *set, set);
}

/* The thread that calls pool_run is worker 0 and is pinned by its first call; pool_free gives it back what it was allowed before. */
static _Thread_local const pool *pinned_by;
static _Thread_local cpu_set_t unpinned;

static void pin_caller(const pool *p) {
  if (!p->pin || pinned_by == p) return;
  if (!pinned_by && pthread_getaffinity_np(pthread_self(), sizeof unpinned, &unpinned)) return;
  pin_worker(p, 0);
  pinned_by = p;
}

static void unpin_caller(const pool *p) {
  if (pinned_by != p) return;
  (void)pthread_setaffinity_np(pthread_self(), sizeof unpinned, &unpinned);
  pinned_by = NULL;
}

bool pool_spare_cpus(const pool *p, void *cpu_set, size_t bytes) {
  cpu_set_t spare;
  CPU_ZERO(&spare);
  for (int n = 0; n < p->n_nodes; n++) CPU_OR(&spare, &spare, &p->node_cpus[n]);
  for (int i = 0; i < p->n_threads; i++) {
    if (p->w[i].cpu >= 0) CPU_CLR(p->w[i].cpu, &spare);
  }
  if (!p->pin || bytes != sizeof spare || CPU_COUNT(&spare) == 0) return false;
  memcpy(cpu_set, &spare, sizeof spare);
  return true;
}

/* A thread's key is destroyed when it ends, however it does; one that ends as it should has emptied it. */
static pthread_key_t at_work;
static pthread_once_t at_work_once = PTHREAD_ONCE_INIT;
static bool at_work_made;

static void on_death(void *arg) {
  const worker *w = arg;
  atomic_store(&w->p->patience.died, w->index);
}

static void make_at_work(void) {
  at_work_made = pthread_key_create(&at_work, on_death) == 0; /* without it a dead worker is found by its silence */
}

static void work_until_stopped(worker *w) {
  pool *p = w->p;
  for (unsigned seen = 0;;) {
    wait_for_work(p, seen);
    if (atomic_load(&p->stop)) return;
    seen++;
    if (seen == p->fail_at && w->index == 1) pthread_exit(NULL);
    p->fn(p->arg, w->index, p->n_threads);
    finish_epoch(p);
  }
}

static void *worker_main(void *arg) {
  worker *w = arg;
  pin_worker(w->p, w->index);
  pthread_once(&at_work_once, make_at_work);
  if (at_work_made) pthread_setspecific(at_work, w);
  work_until_stopped(w);
  if (at_work_made) pthread_setspecific(at_work, NULL);
  return NULL;
}

/* Threads go over the nodes in proportion to their cores: the middle of thread i's share of all cores lies in its node. */
static int node_for(const topology *t, int total_cores, int i, int n_threads) {
  double at = (i + 0.5) * total_cores / n_threads;
  int last = 0;
  for (int n = 0; n < t->n_nodes; n++) {
    if (t->node[n].n_cores == 0) continue; /* memory without CPUs */
    last = n;
    if (at < t->node[n].n_cores) return n;
    at -= t->node[n].n_cores;
  }
  return last;
}

static hf_status fill(pool *p, const topology *t, int total_cores) {
  HF_TRY(hf_alloc(&p->node_cpus, (size_t)t->n_nodes, sizeof *p->node_cpus, "pool"));
  p->n_nodes = t->n_nodes;
  /* A pool that is to have the machine gets a core per worker; a smaller one stays movable, or two programs would share its cores. */
  bool own_cores = p->n_threads >= 2 && p->n_threads + 1 >= total_cores && p->n_threads <= topo_usable_cpus();
  p->pin = !t->fake && (own_cores || t->n_nodes > 1);
  p->spin_ns = p->n_threads > topo_usable_cpus() ? 0 : SPIN_NS;
  for (int n = 0; n < t->n_nodes; n++) {
    for (int c = 0; c < t->node[n].n_cpus; c++) {
      if (t->node[n].cpus[c] < CPU_SETSIZE) CPU_SET(t->node[n].cpus[c], &p->node_cpus[n]);
    }
  }
  for (int i = 0; i < p->n_threads; i++) {
    p->w[i].p = p;
    p->w[i].index = i;
    p->w[i].node = node_for(t, total_cores, i, p->n_threads);
    int k = 0; /* how many threads before this one are in its node */
    for (int j = 0; j < i; j++) k += p->w[j].node == p->w[i].node;
    const topo_node *node = &t->node[p->w[i].node];
    p->w[i].cpu = own_cores && k < node->n_cpus && node->cpus[k] < CPU_SETSIZE ? node->cpus[k] : -1;
  }
  atomic_store(&p->barrier_left, p->n_threads);
  p->patience.what = "CPU workers";
  p->patience.n_threads = p->n_threads;
  p->patience.max_looks = PATIENCE_LOOKS;
  const char *fail_at = getenv("HF_FAIL_WORKER");
  p->fail_at = fail_at ? (unsigned)strtoul(fail_at, NULL, 10) : 0;
  return HF_OK;
}

static hf_status start_threads(pool *p) {
  for (p->n_started = 1; p->n_started < p->n_threads; p->n_started++) {
    worker *w = &p->w[p->n_started];
    if (pthread_create(&w->handle, NULL, worker_main, w) != 0) {
      return hf_fail(HF_MACHINE, "worker %d of %d cannot be started: out of threads or memory; use fewer threads", p->n_started,
                     p->n_threads);
    }
  }
  return HF_OK;
}

hf_status pool_new(const topology *t, int n_threads, pool **out) {
  int total_cores = 0;
  pool *p = NULL;
  for (int n = 0; n < t->n_nodes; n++) total_cores += t->node[n].n_cores;
  if (n_threads == 0) n_threads = total_cores < MAX_THREADS ? total_cores : MAX_THREADS;
  if (n_threads < 1 || n_threads > MAX_THREADS) {
    return hf_fail(HF_INPUT, "threads: %d is not between 1 and %d", n_threads, MAX_THREADS);
  }
  size_t bytes = (sizeof *p + (size_t)n_threads * sizeof(worker) + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
  HF_TRY(mem_alloc(bytes, -1, "pool", (void **)&p));
  p->n_threads = n_threads;
  pthread_mutex_init(&p->lock, NULL);
  pthread_cond_init(&p->work, NULL);
  pthread_cond_init(&p->done, NULL);
  pthread_cond_init(&p->opened, NULL);
  hf_status st = fill(p, t, total_cores);
  if (st == HF_OK) st = start_threads(p);
  if (st != HF_OK) {
    pool_free(p);
    return st;
  }
  *out = p;
  return HF_OK;
}

void pool_free(pool *p) {
  if (!p) return;
  unpin_caller(p);
  atomic_store(&p->stop, true);
  start_epoch(p);
  for (int i = 1; i < p->n_started; i++) pthread_join(p->w[i].handle, NULL); /* ends: they are idle, as no pool_run is at work */
  pthread_cond_destroy(&p->opened);
  pthread_cond_destroy(&p->done);
  pthread_cond_destroy(&p->work);
  pthread_mutex_destroy(&p->lock);
  free(p->node_cpus);
  size_t bytes = (sizeof *p + (size_t)p->n_threads * sizeof(worker) + LINE_BYTES - 1) / LINE_BYTES * LINE_BYTES;
  mem_free(p, bytes, -1);
}

void pool_set_patience(pool *p, int seconds) {
  p->patience.max_looks = seconds;
}

void pool_outside(pool *p, bool begins) {
  atomic_store(&p->patience.outside, begins);
}

int pool_threads(const pool *p) {
  return p->n_threads;
}

int pool_node_of(const pool *p, int thread) {
  return p->w[thread].node;
}

void pool_spread_rows(const pool *p, void *block, size_t block_bytes, size_t at, int n_rows, size_t row_bytes) {
  enum { TILE_ROWS = 16 };
  const int64_t tiles = (n_rows + TILE_ROWS - 1) / TILE_ROWS;
  for (int t = 0, n; t < p->n_threads; t += n) {
    for (n = 1; t + n < p->n_threads && p->w[t + n].node == p->w[t].node;) n++;
    size_t from = at + (size_t)(tiles * t / p->n_threads) * TILE_ROWS * row_bytes;
    size_t to = at + (size_t)(tiles * (t + n) / p->n_threads) * TILE_ROWS * row_bytes;
    if (n == p->n_threads) return; /* all on one node: anywhere */
    if (to > block_bytes) to = block_bytes;
    if (from < to) mem_prefer(block, block_bytes, from, to - from, p->w[t].node);
  }
}

void pool_run(pool *p, pool_fn *fn, void *arg) {
  pin_caller(p);
  p->fn = fn;
  p->arg = arg;
  atomic_store(&p->left, p->n_threads - 1);
  if (p->n_threads > 1) start_epoch(p);
  fn(arg, 0, p->n_threads);
  if (p->n_threads > 1) wait_for_workers(p);
}

static bool barrier_open(pool *p, unsigned sense) {
  return atomic_load(&p->barrier_sense) == (int)sense;
}

/* Waiting threads spin for a while, since a wake-up costs tens of microseconds, and then sleep: with other programs on the machine the
 * thread they wait for may have lost its core, and gets one back only when a waiting one gives its own away (measured with one busy
 * neighbour on two cores: a step of the example model took thirty times as long while waiting threads only yielded). */
void pool_barrier(pool *p, int thread) {
  worker *w = &p->w[thread];
  patience_wait wait = {0};
  int sense = w->barrier_sense = !w->barrier_sense;
  if (atomic_fetch_sub(&p->barrier_left, 1) == 1) {
    atomic_store_explicit(&p->barrier_left, p->n_threads, memory_order_relaxed);
    atomic_store(&p->barrier_sense, sense);
    if (atomic_load(&p->barrier_asleep) == 0) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->opened);
    pthread_mutex_unlock(&p->lock);
    return;
  }
  if (spin_for(p, p->spin_ns ? BARRIER_SPIN_NS : 0, barrier_open, (unsigned)sense)) return;
  pthread_mutex_lock(&p->lock);
  atomic_fetch_add(&p->barrier_asleep, 1);
  while (!barrier_open(p, (unsigned)sense)) patience_cond_wait(&p->patience, &wait, &p->opened, &p->lock);
  atomic_fetch_sub(&p->barrier_asleep, 1);
  pthread_mutex_unlock(&p->lock);
}

/* Whoever raises the counter has no one to wake, so the waiting thread naps instead of sleeping: rare, since claims come in an order in which what is
 * waited for was begun long before. */
void pool_wait(pool *p, atomic_int *counter, int value) {
  patience_wait w = {0};
  if (atomic_load_explicit(counter, memory_order_acquire) >= value) return;
  for (int64_t until = hf_now_ns() + (p->spin_ns ? BARRIER_SPIN_NS : 0);;) {
    for (int i = 0; i < CHECKS_PER_CLOCK; i++) {
      if (atomic_load_explicit(counter, memory_order_acquire) >= value) return;
      pool_relax();
    }
    if (hf_now_ns() < until) continue;
    patience_poll(&p->patience, &w);
    nanosleep(&(struct timespec){.tv_nsec = w.cpu_ns > 0 ? LONG_NAP_NS : NAP_NS}, NULL); /* naps must not look like work */
  }
}
