#include "profiler/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"

enum { LEAST_BYTES = 256 << 20, L3_TIMES = 4, LINE = 64, HOPS = 20000, ARRAYS = 3 };

size_t memory_bytes(const topology *t) {
  int64_t bytes = L3_TIMES * t->l3_bytes, memory = 0;
  for (int i = 0; i < t->n_nodes; i++) memory += t->node[i].mem_bytes;
  if (bytes < LEAST_BYTES) bytes = LEAST_BYTES;
  if (memory > 0 && bytes > memory / 4) bytes = memory / 4;
  return (size_t)bytes & ~(size_t)4095;
}

/* ---- pretended nodes ---- */

bool memory_is_pretended(const topology *t) {
  for (int i = 0; t->fake && i < t->n_nodes; i++)
    if (t->node[i].dram_bytes_per_s > 0) return true;
  return false;
}

double memory_pretended_ns(const topology *t, const double *bytes) {
  double ns = 0;
  for (int i = 0; t->fake && i < t->n_nodes; i++)
    if (t->node[i].dram_bytes_per_s > 0) ns = fmax(ns, 1e9 * bytes[i] / t->node[i].dram_bytes_per_s);
  return ns;
}

void memory_parts(const pool *p, const topology *t, int n_threads, double bytes, double *of_node) {
  for (int i = 0; i < t->n_nodes; i++) of_node[i] = 0;
  for (int i = 0; i < n_threads; i++) of_node[pool_node_of(p, i)] += bytes / n_threads;
}

/* ---- streams ---- */

typedef enum { READ, COPY, TRIAD } stream_kind;

/* Threads of one node at work on memory of one node. */
typedef struct {
  const topology *t;
  pool *p;
  stream_kind kind;
  int node, memory, workers;
  int rank[TOPO_MAX_CPUS]; /* of a thread among the node's workers, -1: elsewhere */
  int all_ranked;
  void *array[ARRAYS];
  size_t bytes; /* of one array */
  uint64_t sink[TOPO_MAX_CPUS];
} stream;

static uint64_t sum_words(const uint64_t *p, size_t n) {
  uint64_t s[8] = {0};
  for (size_t i = 0; i < n; i += 8)
    for (size_t k = 0; k < 8; k++) s[k] += p[i + k];
  return s[0] ^ s[1] ^ s[2] ^ s[3] ^ s[4] ^ s[5] ^ s[6] ^ s[7];
}

static void triad(double *restrict a, const double *restrict b, const double *restrict c, size_t n) {
  for (size_t i = 0; i < n; i++) a[i] = b[i] + 3.0 * c[i];
}

static void part_of(const stream *s, int rank, size_t *from, size_t *bytes) {
  size_t lines = s->bytes / LINE, lo = lines * (size_t)rank / (size_t)s->workers,
         hi = lines * ((size_t)rank + 1) / (size_t)s->workers;
  *from = lo * LINE;
  *bytes = (hi - lo) * LINE;
}

static void stream_pass(void *arg, int thread, int n_threads) {
  stream *s = arg;
  size_t from, bytes;
  (void)n_threads;
  int rank = s->rank[thread];
  if (rank < 0 || rank >= s->workers) return;
  part_of(s, rank, &from, &bytes);
  char *a = (char *)s->array[0] + from, *b = (char *)s->array[1] + from, *c = (char *)s->array[2] + from;
  if (s->kind == READ) s->sink[thread] += sum_words((const uint64_t *)(void *)a, bytes / sizeof(uint64_t));
  else if (s->kind == COPY) memcpy(a, b, bytes);
  else triad((double *)(void *)a, (const double *)(void *)b, (const double *)(void *)c, bytes / sizeof(double));
}

static void stream_touch(void *arg, int thread, int n_threads) {
  stream *s = arg;
  size_t from, bytes;
  (void)n_threads;
  if (s->rank[thread] < 0) return;
  part_of(s, s->rank[thread], &from, &bytes);
  for (int i = 0; i < ARRAYS; i++)
    if (s->array[i]) memset((char *)s->array[i] + from, i, bytes);
}

static double moved(const stream *s) {
  return (double)s->bytes * (s->kind == READ ? 1 : s->kind == COPY ? 2 : 3);
}

static double sample_stream(void *user) {
  stream *s = user;
  double of_node[TOPO_MAX_NODES] = {0};
  of_node[s->memory] = moved(s);
  int64_t t0 = hf_now_ns();
  pool_run(s->p, stream_pass, s);
  return fmax((double)(hf_now_ns() - t0), memory_pretended_ns(s->t, of_node));
}

static void stream_close(stream *s) {
  for (int i = 0; i < ARRAYS; i++) {
    mem_free(s->array[i], s->bytes, s->memory);
    s->array[i] = NULL;
  }
}

/* Arrays in `memory`, read by the threads of `node`, who touch them first. small: without huge pages. */
static hf_status stream_open(stream *s, profile *p, int node, int memory, int n_arrays, size_t bytes, bool small) {
  memset(s, 0, sizeof *s);
  s->t = p->topo;
  s->p = p->pools[0];
  s->node = node;
  s->memory = memory;
  s->bytes = bytes & ~(size_t)4095;
  for (int i = 0; i < pool_threads(s->p); i++) s->rank[i] = pool_node_of(s->p, i) == node ? s->workers++ : -1;
  s->all_ranked = s->workers;
  if (s->workers == 0) return HF_OK;
  for (int i = 0; i < n_arrays; i++) {
    hf_status st = mem_alloc(s->bytes, memory, "memory to measure", &s->array[i]);
    if (st != HF_OK) {
      stream_close(s);
      return st;
    }
    if (small) (void)madvise(s->array[i], s->bytes, MADV_NOHUGEPAGE);
  }
  pool_run(s->p, stream_touch, s);
  return HF_OK;
}

static void pretended_tag(const topology *t, rec_figure *f) {
  if (!memory_is_pretended(t)) return;
  f->tag = TAG_ASSUMED;
  size_t used = strlen(f->source);
  snprintf(f->source + used, sizeof f->source - used, "; node pretended by HF_TOPOLOGY");
}

static hf_status add_rate(profile *p, const stream *s, const char *what, const char *device, const char *more,
                          const char *source) {
  char params[64];
  stats ns = prof_time(p, sample_stream, (void *)(uintptr_t)s), rate = stats_rate(&ns, 1e9 * moved(s));
  snprintf(params, sizeof params, "threads=%d%s", s->workers, more);
  HF_TRY(prof_add_figure(p, device, what, params, "B/s", &rate, source));
  pretended_tag(p->topo, &p->figure[p->n_figure - 1]);
  return HF_OK;
}

static const char *const stream_what[] = {"dram_read_bytes_per_s", "dram_copy_bytes_per_s", "dram_triad_bytes_per_s"};
static const char *const stream_source[] = {"hf-profile: sequential 64-bit loads, 8 streams a thread",
                                            "hf-profile: memcpy, bytes read and bytes written",
                                            "hf-profile: a = b + s * c on doubles, three words an element"};

/* One, two, four ... all threads; in quick mode all. */
static hf_status stream_threads(profile *p, stream *s, const char *device) {
  for (int n = p->o.quick ? s->all_ranked : 1; n <= s->all_ranked;
       n = n * 2 < s->all_ranked || n == s->all_ranked ? n * 2 : s->all_ranked) {
    s->workers = n;
    HF_TRY(add_rate(p, s, stream_what[s->kind], device, "", stream_source[s->kind]));
  }
  s->workers = s->all_ranked;
  return HF_OK;
}

/* What a node's threads do with its own memory. On one node dram.c has measured reading already, and its rows are those of "cpu" too. */
static hf_status measure_node(profile *p, int node, size_t bytes) {
  static stream s; /* large */
  char device[16];
  bool one = p->topo->n_nodes == 1;
  snprintf(device, sizeof device, one ? "cpu" : "cpu%d", node);
  HF_TRY(stream_open(&s, p, node, node, ARRAYS, bytes, false));
  hf_status st = HF_OK;
  for (int k = one ? COPY : READ; k <= TRIAD && s.workers > 0 && st == HF_OK; k++) {
    s.kind = (stream_kind)k;
    st = stream_threads(p, &s, device);
  }
  stream_close(&s);
  return st;
}

static hf_status measure_small_pages(profile *p, size_t bytes) {
  static stream s;
  HF_TRY(stream_open(&s, p, 0, 0, 1, bytes, true));
  hf_status st = HF_OK;
  if (s.workers > 0)
    st = add_rate(p, &s, "dram_read_small_pages_bytes_per_s", p->topo->n_nodes == 1 ? "cpu" : "cpu0", "",
                  "hf-profile: sequential 64-bit loads, pages of 4 KiB");
  stream_close(&s);
  return st;
}

/* ---- every node's memory from every node ---- */

static hf_status measure_pair(profile *p, int node, int memory, size_t bytes, double *rate) {
  static stream s;
  char device[16], more[32];
  snprintf(device, sizeof device, "cpu%d", node);
  snprintf(more, sizeof more, ",memory=cpu%d", memory);
  *rate = 0;
  HF_TRY(stream_open(&s, p, node, memory, 1, bytes, false));
  hf_status st = HF_OK;
  if (s.workers > 0) {
    st = add_rate(p, &s, "dram_node_read_bytes_per_s", device, more, stream_source[READ]);
    if (st == HF_OK) *rate = p->figure[p->n_figure - 1].likely;
  }
  stream_close(&s);
  return st;
}

/* The fraction of a pair: the memory read from elsewhere over the same memory read by its own node. */
static hf_status measure_matrix(profile *p, size_t bytes) {
  static double rate[TOPO_MAX_NODES][TOPO_MAX_NODES], fraction[TOPO_MAX_NODES * TOPO_MAX_NODES];
  int n_pairs = 0, n = p->topo->n_nodes;
  double sum = 0;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) HF_TRY(measure_pair(p, i, j, bytes, &rate[i][j]));
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) {
      if (i == j || !(rate[i][j] > 0) || !(rate[j][j] > 0)) continue;
      fraction[n_pairs++] = rate[i][j] / rate[j][j];
      sum += fraction[n_pairs - 1];
    }
  if (n_pairs == 0) return HF_OK;
  stats s = stats_of(fraction, n_pairs < STATS_MAX ? n_pairs : STATS_MAX);
  s.median = fmin(s.high, fmax(s.low, sum / n_pairs));
  HF_TRY(prof_add_figure(p, "cpu", "dram_remote_fraction", "", "1", &s,
                         "hf-profile: memory read by another node over the same by its own, all threads of a node"));
  pretended_tag(p->topo, &p->figure[p->n_figure - 1]);
  return HF_OK;
}

/* ---- latency ---- */

/* A cycle through all lines in no order: line i leads to line (a i + c) mod n, n a power of two, which visits every line once a round and is
 * written from front to back, where a random permutation would take a second to make. Only one thread hops. */
typedef struct {
  pool *p;
  char *data;
  uint32_t lines;
  uint64_t at;
  int thread; /* who hops */
} chase;

static void hop(void *arg, int thread, int n_threads) {
  chase *c = arg;
  (void)n_threads;
  if (thread != c->thread) return;
  uint64_t at = c->at;
  for (int i = 0; i < HOPS; i++) at = *(const volatile uint64_t *)(const void *)(c->data + at);
  c->at = at;
}

static double sample_chase(void *user) {
  chase *c = user;
  int64_t t0 = hf_now_ns();
  pool_run(c->p, hop, c);
  return (double)(hf_now_ns() - t0) / HOPS;
}

static void lay_cycle(chase *c) {
  enum { STEP = 1664525, PLUS = 1013904223 };
  for (uint64_t i = 0; i < c->lines; i++) {
    uint64_t next = (i * STEP + PLUS) & (c->lines - 1);
    *(uint64_t *)(void *)(c->data + i * LINE) = next * LINE;
  }
}

static hf_status measure_latency(profile *p, int node, int memory, size_t most_bytes, bool small) {
  chase c = {.p = p->pools[0], .lines = 1 << 20, .thread = -1};
  void *data = NULL;
  char device[16], params[32];
  for (int i = pool_threads(c.p) - 1; i >= 0; i--)
    if (pool_node_of(c.p, i) == node) c.thread = i;
  if (c.thread < 0) return HF_OK;
  while ((size_t)c.lines * 2 * LINE <= most_bytes && c.lines < 1u << 30) c.lines *= 2;
  size_t bytes = (size_t)c.lines * LINE;
  HF_TRY(mem_alloc(bytes, memory, "memory to measure", &data));
  if (small) (void)madvise(data, bytes, MADV_NOHUGEPAGE);
  c.data = data;
  lay_cycle(&c);
  stats s = prof_time(p, sample_chase, &c);
  mem_free(data, bytes, memory);
  snprintf(device, sizeof device, "cpu%d", node);
  snprintf(params, sizeof params, "memory=cpu%d", memory);
  return prof_add_figure(p, device, small ? "mem_latency_small_pages_ns" : "mem_latency_ns", params, "ns", &s,
                         small ? "hf-profile: chase of pointers, pages of 4 KiB" : "hf-profile: chase of pointers, huge pages");
}

static hf_status measure_latencies(profile *p, size_t bytes) {
  int n = p->topo->n_nodes;
  for (int i = 0; i < n; i++)
    for (int j = 0; j < n; j++) HF_TRY(measure_latency(p, i, j, bytes, false));
  return measure_latency(p, 0, 0, bytes, true);
}

hf_status prof_memory(profile *p) {
  int n = p->topo->n_nodes;
  if (!prof_unit_begin(p, "memory")) return HF_OK;
  size_t bytes = memory_bytes(p->topo), each = bytes / (size_t)n;
  int64_t memory = 0;
  for (int i = 0; i < n; i++) memory += p->topo->node[i].mem_bytes;
  if (memory > 0 && each > (size_t)memory / 8) each = (size_t)memory / 8 & ~(size_t)4095; /* three arrays at once */
  for (int i = 0; i < n; i++) HF_TRY(measure_node(p, i, each));
  if (n > 1) HF_TRY(measure_matrix(p, each));
  HF_TRY(measure_small_pages(p, each));
  HF_TRY(measure_latencies(p, each));
  return prof_unit_end(p);
}
