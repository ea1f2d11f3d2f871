/* dram.c: read bandwidth of memory, by number of threads, for the machine; memory.c has the rest, nodes included. The loop is that of
 * kernels/mem/probe.h, so that what hf-run probes at its start is the same thing. */
#include <math.h>
#include <stdio.h>

#include "kernels/mem/probe.h"
#include "profiler/memory.h"

typedef struct {
  mem_probe *probe;
  const pool *p;
  const topology *t;
  double bytes;
  int threads;
} whole;

static double sample_whole(void *user) {
  whole *w = user;
  double of_node[TOPO_MAX_NODES];
  memory_parts(w->p, w->t, w->threads, w->bytes, of_node);
  return fmax(1e9 * w->bytes / mem_probe_pass(w->probe, w->threads), memory_pretended_ns(w->t, of_node));
}

static hf_status add(profile *p, const char *device, int threads, const stats *ns, double bytes) {
  char params[32];
  snprintf(params, sizeof params, "threads=%d", threads);
  stats rate = stats_rate(ns, 1e9 * bytes);
  bool pretended = memory_is_pretended(p->topo);
  HF_TRY(prof_add_figure(p, device, "dram_read_bytes_per_s", params, "B/s", &rate,
                         pretended ? "hf-profile: sequential 64-bit loads; nodes pretended by HF_TOPOLOGY"
                                   : "hf-profile: sequential 64-bit loads, 8 streams a thread"));
  if (pretended) p->figure[p->n_figure - 1].tag = TAG_ASSUMED;
  return HF_OK;
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
  if (!prof_unit_begin(p, "dram")) return HF_OK;
  size_t bytes = memory_bytes(p->topo);
  pool *all = p->pools[0];
  int most = pool_threads(all);
  whole w = {.p = all, .t = p->topo, .bytes = (double)bytes};
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
  HF_TRY(st);
  return prof_unit_end(p);
}
