/* dram.c: read bandwidth of memory, by number of threads, per NUMA node and for the machine. The loop is that of
 * kernels/mem/probe.h, so that what hf-run probes at its start is the same thing. */
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/mem/probe.h"
#include "profiler/profile.h"

enum { LEAST_BYTES = 256 << 20, L3_TIMES = 4 };

/* At least four times the last-level cache, at most a quarter of the memory. */
static size_t buffer_bytes(const topology *t) {
  int64_t bytes = L3_TIMES * t->l3_bytes, memory = 0;
  for (int i = 0; i < t->n_nodes; i++) memory += t->node[i].mem_bytes;
  if (bytes < LEAST_BYTES) bytes = LEAST_BYTES;
  if (memory > 0 && bytes > memory / 4) bytes = memory / 4;
  return (size_t)bytes & ~(size_t)4095;
}

typedef struct {
  mem_probe *probe;
  double bytes;
  int threads;
} whole;

static double sample_whole(void *user) {
  whole *w = user;
  return 1e9 * w->bytes / mem_probe_pass(w->probe, w->threads);
}

/* One node: its own workers read a buffer that lies there. */
typedef struct {
  pool *p;
  int node, workers; /* of that node */
  const uint64_t *data;
  size_t words;
  uint64_t sink[TOPO_MAX_CPUS];
  int rank[TOPO_MAX_CPUS]; /* of a thread among the node's workers, -1 = elsewhere */
} one_node;

static void read_node(void *arg, int thread, int n_threads) {
  one_node *o = arg;
  (void)n_threads;
  int rank = o->rank[thread];
  if (rank < 0) return;
  size_t lines = o->words / 8, lo = lines * (size_t)rank / (size_t)o->workers * 8,
         hi = lines * ((size_t)rank + 1) / (size_t)o->workers * 8;
  uint64_t s[8] = {0};
  for (size_t i = lo; i < hi; i += 8)
    for (int k = 0; k < 8; k++) s[k] += o->data[i + (size_t)k];
  o->sink[thread] = s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
}

static double sample_node(void *user) {
  one_node *o = user;
  int64_t t0 = hf_now_ns();
  pool_run(o->p, read_node, o);
  return (double)(hf_now_ns() - t0);
}

static hf_status add(profile *p, const char *device, int threads, const stats *ns, double bytes) {
  char params[32];
  snprintf(params, sizeof params, "threads=%d", threads);
  stats rate = stats_rate(ns, 1e9 * bytes);
  return prof_add_figure(p, device, "dram_read_bytes_per_s", params, "B/s", &rate,
                         "hf-profile: sequential 64-bit loads, 8 streams a thread");
}

static hf_status measure_node(profile *p, int node, size_t bytes) {
  static one_node o; /* large */
  memset(&o, 0, sizeof o);
  o.p = p->pools[0];
  o.node = node;
  for (int i = 0; i < pool_threads(o.p); i++) o.rank[i] = pool_node_of(o.p, i) == node ? o.workers++ : -1;
  if (o.workers == 0) return HF_OK;
  void *data = NULL;
  HF_TRY(mem_alloc(bytes, node, "bandwidth probe", &data));
  memset(data, 1, bytes);
  o.data = data;
  o.words = bytes / 8;
  stats s = prof_time(p, sample_node, &o);
  mem_free(data, bytes, node);
  char device[16];
  snprintf(device, sizeof device, "cpu%d", node);
  return add(p, device, o.workers, &s, (double)bytes);
}

static hf_status measure_whole(profile *p, whole *w, int most) {
  for (int threads = 1; threads <= most; threads = threads * 2 < most || threads == most ? threads * 2 : most) {
    w->threads = threads;
    stats s = prof_time(p, sample_whole, w);
    HF_TRY(add(p, "cpu", threads, &s, w->bytes));
    if (p->topo->n_nodes == 1) HF_TRY(add(p, "cpu0", threads, &s, w->bytes));
  }
  return HF_OK;
}

hf_status prof_dram(profile *p) {
  size_t bytes = buffer_bytes(p->topo);
  pool *all = p->pools[0];
  int most = pool_threads(all);
  whole w = {.bytes = (double)bytes};
  HF_TRY(mem_probe_new(all, bytes, &w.probe));
  hf_status st = HF_OK;
  int from = p->n_figure;
  for (int tries = 1; st == HF_OK; tries++) {
    st = measure_whole(p, &w, most);
    if (st != HF_OK || !prof_impossible(p, from) || tries == PROF_TRIES) break;
    p->n_figure = from;
    prof_more_time(p);
  }
  if (st == HF_OK) prof_mark_doubtful(p, from);
  mem_probe_free(w.probe);
  for (int i = 0; i < p->topo->n_nodes && p->topo->n_nodes > 1 && st == HF_OK; i++) {
    st = measure_node(p, i, bytes / (size_t)p->topo->n_nodes);
  }
  return st;
}
