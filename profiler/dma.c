#include "profiler/dma.h"

#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "kernels/mem/probe.h"
#include "profiler/experts.h"
#include "profiler/memory.h"

enum { PIECE_BYTES = 256 << 10, IDLE_NS = 200000, SETTLE_NS = 2000000 };

struct dma_load {
  pthread_t thread;
  bool started;
  char *data, *cache;
  size_t bytes;
  atomic_bool stop;
  _Atomic double wanted; /* bytes per second */
  atomic_llong since_ns, moved;
};

pool *dma_pool(const profile *p) {
  int all = pool_threads(p->pools[0]);
  for (int i = 0; i < p->n_pools; i++)
    if (pool_threads(p->pools[i]) == all - 1) return p->pools[i];
  return NULL;
}

static void *upload(void *arg) {
  dma_load *d = arg;
  size_t at = 0;
  int64_t due = 0, since = 0;
  while (!atomic_load_explicit(&d->stop, memory_order_relaxed)) {
    double wanted = atomic_load_explicit(&d->wanted, memory_order_relaxed);
    if (!(wanted > 0)) {
      struct timespec t = {0, IDLE_NS};
      nanosleep(&t, NULL);
      continue;
    }
    if (since != atomic_load(&d->since_ns)) due = since = atomic_load(&d->since_ns);
    memcpy(d->cache, d->data + at, PIECE_BYTES);
    at = at + 2 * PIECE_BYTES <= d->bytes ? at + PIECE_BYTES : 0;
    atomic_fetch_add_explicit(&d->moved, PIECE_BYTES, memory_order_relaxed);
    if (!isfinite(wanted)) continue;
    due += (int64_t)(1e9 * PIECE_BYTES / wanted);
    int64_t now = hf_now_ns();
    if (now > due + SETTLE_NS) due = now; /* it cannot keep up: no arrears */
    while (hf_now_ns() < due) pool_relax();
  }
  return NULL;
}

/* The CPUs that no worker of the pool has; where the pool is not pinned, those that the calling thread has not. */
static void own_core(const profile *p, pthread_attr_t *attr) {
  cpu_set_t own, others;
  pool *beside = dma_pool(p);
  if (p->topo->fake) return;
  if (!beside || !pool_spare_cpus(beside, &others, sizeof others)) {
    if (pthread_getaffinity_np(pthread_self(), sizeof own, &own) != 0 || CPU_COUNT(&own) != 1) return;
    CPU_ZERO(&others);
    for (int n = 0; n < p->topo->n_nodes; n++)
      for (int i = 0; i < p->topo->node[n].n_cpus; i++) {
        int cpu = p->topo->node[n].cpus[i];
        if (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &own)) CPU_SET(cpu, &others);
      }
    if (CPU_COUNT(&others) == 0) return;
  }
  (void)pthread_attr_setaffinity_np(attr, sizeof others, &others);
}

hf_status dma_start(const profile *p, dma_load **out) {
  dma_load *d = NULL;
  void *data = NULL;
  hf_status st;
  HF_TRY(hf_alloc(&d, 1, sizeof *d, "uploads"));
  d->bytes = memory_bytes(p->topo);
  HF_GO(fail, mem_alloc(d->bytes, -1, "uploads", &data));
  d->data = data;
  memset(data, 1, d->bytes);
  HF_GO(fail, hf_alloc(&d->cache, PIECE_BYTES, 1, "uploads"));
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  own_core(p, &attr);
  d->started = pthread_create(&d->thread, &attr, upload, d) == 0;
  pthread_attr_destroy(&attr);
  if (!d->started) st = hf_fail(HF_MACHINE, "no thread can be started that stands in for a device");
  if (st != HF_OK) goto fail;
  *out = d;
  return HF_OK;
fail:
  dma_stop(d);
  return st;
}

void dma_set(dma_load *d, double bytes_per_s) {
  struct timespec t = {0, SETTLE_NS};
  atomic_store(&d->wanted, bytes_per_s);
  nanosleep(&t, NULL);
  atomic_store(&d->moved, 0);
  atomic_store(&d->since_ns, hf_now_ns());
}

double dma_reached(const dma_load *d) {
  double ns = (double)(hf_now_ns() - atomic_load(&d->since_ns));
  return ns > 0 ? 1e9 * (double)atomic_load(&d->moved) / ns : 0;
}

void dma_stop(dma_load *d) {
  if (!d) return;
  atomic_store(&d->stop, true);
  if (d->started) pthread_join(d->thread, NULL); /* ends: it looks at stop after each piece */
  mem_free(d->data, d->bytes, -1);
  free(d->cache);
  free(d);
}

/* ---- the curve ---- */

typedef struct {
  mem_probe *probe;
  dma_load *d;
  double bytes, reached[STATS_MAX];
  int threads, n;
} beside;

static double sample(void *user) {
  beside *b = user;
  int64_t from = atomic_load(&b->d->moved), t0 = hf_now_ns();
  double ns = 1e9 * b->bytes / mem_probe_pass(b->probe, b->threads);
  double moved = (double)(atomic_load(&b->d->moved) - from), took = (double)(hf_now_ns() - t0);
  b->reached[b->n++ % STATS_MAX] = 1e9 * moved / took;
  return ns;
}

static hf_status add_point(profile *p, beside *b, double wanted) {
  char params[64], text[24];
  if (wanted > 0 && isfinite(wanted)) snprintf(text, sizeof text, "%.0fGB/s", wanted / 1e9);
  else snprintf(text, sizeof text, "%s", wanted > 0 ? "most" : "0");
  snprintf(params, sizeof params, "threads=%d,dma=%s", b->threads, text);
  dma_set(b->d, wanted);
  b->n = 0;
  stats ns = prof_time(p, sample, b), rate = stats_rate(&ns, 1e9 * b->bytes);
  HF_TRY(prof_add_figure(p, "cpu", "dram_read_beside_dma_bytes_per_s", params, "B/s", &rate,
                         "hf-profile: sequential loads beside a thread that reads at this rate into its cache"));
  if (!(wanted > 0)) return HF_OK;
  stats reached = stats_of(b->reached, b->n < STATS_MAX ? b->n : STATS_MAX);
  return prof_add_figure(p, "cpu", "dma_beside_read_bytes_per_s", params, "B/s", &reached,
                         "hf-profile: what that thread reached");
}

static hf_status curve(profile *p, dma_load *d, pool *pl) {
  static const double full[] = {0, 2e9, 4e9, 8e9, 16e9, 32e9, 64e9, INFINITY}, quick[] = {0, 8e9, INFINITY};
  const double *rates = p->o.quick ? quick : full;
  int n = p->o.quick ? 3 : 8;
  beside b = {.d = d, .bytes = (double)memory_bytes(p->topo), .threads = pool_threads(pl)};
  HF_TRY(mem_probe_new(pl, (size_t)b.bytes, &b.probe));
  dma_set(d, INFINITY);
  double most = 0;
  for (int i = 0; i < 3; i++) { /* alone: what the stand-in can do at all */
    struct timespec t = {0, 5 * SETTLE_NS};
    nanosleep(&t, NULL);
    most = fmax(most, dma_reached(d));
  }
  hf_status st = HF_OK;
  for (int i = 0; i < n && st == HF_OK; i++)
    if (!isfinite(rates[i]) || rates[i] < 0.9 * most) st = add_point(p, &b, rates[i]);
  dma_set(d, 0);
  mem_probe_free(b.probe);
  return st;
}

/* Experts beside the most that the stand-in uploads: rows from which the planner takes what uploads cost (planner/cost, contend_dma). */
static hf_status kernels_beside(profile *p, dma_load *d, pool *pl) {
  char params[32];
  double reached = 0;
  int from = p->n_point;
  dma_set(d, INFINITY);
  hf_status st = experts_beside(p, pl, "dma");
  reached = dma_reached(d);
  dma_set(d, 0);
  if (st != HF_OK || p->n_point == from || !(reached > 0)) return st;
  snprintf(params, sizeof params, "threads=%d", pool_threads(pl));
  stats s = {.median = reached, .low = reached, .high = reached, .n = 1};
  return prof_add_figure(p, "cpu", "dma_load_bytes_per_s", params, "B/s", &s,
                         "hf-profile: uploads beside the kernels with load dma, mean");
}

hf_status prof_dma(profile *p) {
  pool *pl = dma_pool(p);
  dma_load *d = NULL;
  if (!pl || !prof_unit_begin(p, "dma")) return HF_OK; /* one core: nothing can run beside it */
  HF_TRY(dma_start(p, &d));
  hf_status st = curve(p, d, pl);
  if (st == HF_OK) st = kernels_beside(p, d, pl);
  dma_stop(d);
  HF_TRY(st);
  return prof_unit_end(p);
}
