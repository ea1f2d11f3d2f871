/* probe.c: plain 64-bit loads in eight independent streams a thread: DRAM-bound on every machine seen, and no instruction set is assumed. */
#include "kernels/mem/probe.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

struct mem_probe {
  pool *p;
  uint64_t *data;
  size_t bytes;
  int n_threads;
  uint64_t *sink; /* [pool threads * 8]: keeps the loads alive */
};

static void range(const mem_probe *m, int thread, size_t *lo, size_t *hi) {
  size_t lines = m->bytes / 64;
  *lo = lines * (size_t)thread / (size_t)m->n_threads * 8;
  *hi = lines * ((size_t)thread + 1) / (size_t)m->n_threads * 8;
}

static void touch(void *arg, int thread, int n_threads) {
  mem_probe *m = arg;
  (void)n_threads;
  size_t lo, hi;
  range(m, thread, &lo, &hi);
  memset(m->data + lo, 1, (hi - lo) * sizeof *m->data);
}

static void pass(void *arg, int thread, int n_threads) {
  mem_probe *m = arg;
  (void)n_threads;
  if (thread >= m->n_threads) return;
  size_t lo, hi;
  range(m, thread, &lo, &hi);
  const uint64_t *p = m->data;
  uint64_t s[8] = {0};
  for (size_t i = lo; i < hi; i += 8)
    for (int k = 0; k < 8; k++) s[k] += p[i + (size_t)k];
  m->sink[thread * 8] = s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
}

hf_status mem_probe_new(pool *p, size_t bytes, mem_probe **out) {
  mem_probe *m = NULL;
  HF_TRY(hf_alloc(&m, 1, sizeof *m, "bandwidth probe"));
  m->p = p;
  m->bytes = bytes & ~(size_t)63;
  m->n_threads = pool_threads(p);
  void *data = NULL;
  hf_status st = hf_alloc(&m->sink, (size_t)m->n_threads * 8, sizeof *m->sink, "bandwidth probe");
  if (st == HF_OK) st = mem_alloc(m->bytes, -1, "bandwidth probe", &data);
  m->data = data;
  if (st != HF_OK) {
    mem_probe_free(m);
    return st;
  }
  pool_run(p, touch, m);
  *out = m;
  return HF_OK;
}

void mem_probe_free(mem_probe *m) {
  if (!m) return;
  if (m->data) mem_free(m->data, m->bytes, -1);
  free(m->sink);
  free(m);
}

double mem_probe_pass(mem_probe *m, int n_threads) {
  m->n_threads = n_threads;
  int64_t t0 = hf_now_ns();
  pool_run(m->p, pass, m);
  return (double)m->bytes / ((double)(hf_now_ns() - t0) / 1e9);
}
