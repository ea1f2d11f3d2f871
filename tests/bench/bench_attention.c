/* bench_attention: attention on all cores against its roofline, max(bytes / bandwidth, operations / peak).
 *
 *   bench_attention [--rounds N] [--cached | --near] [--kv TYPE] [WORD ...]   cases whose name contains all words (decode, prefill, mla, gqa, 16K, ...)
 *
 * In every round the DRAM read bandwidth, the peak of multiply-adds in registers and the case are measured one after another on the same threads; the
 * share is the roofline of the round over the time of the round. Printed are medians, and "best": the least time against the best bandwidth and the
 * best peak of all rounds, which neighbours on the machine disturb least. The peak is that of f32 whatever TYPE (f16) is: over q8_0, whose scores are
 * products of bytes, more than all of it can be had. KV caches lie in a
 * ring larger than the last-level cache, every run takes the next sequence;
 * --cached: all runs take the same one; --near: its pages are four in turn, which second-level caches hold. HF_ISA chooses the instruction set. Nothing here passes or fails. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "kernels/attn.h"
#include "kernels/mem/pool.h"
#include "kernels/mem/probe.h"

enum { PAGE = 64, MOST_ROUNDS = 1000, CHAINS = 12 };
#define PROBE_BYTES ((size_t)128 << 20)

typedef struct {
  const char *name;
  bool mla;
  int heads, kv_heads, dk, dv, window;
  bool sinks;
} shape;

static const shape shapes[] = {{"mla-16 (DeepSeek-V2-Lite)", true, 16, 1, 576, 512, 0, false},
                               {"mla-128 (DeepSeek-R1)", true, 128, 1, 576, 512, 0, false},
                               {"gqa-32/4x128 (Qwen3-MoE)", false, 32, 4, 128, 128, 0, false},
                               {"gqa-64/8x64 (gpt-oss)", false, 64, 8, 64, 64, 0, true},
                               {"gqa-64/8x64 window 128 (gpt-oss)", false, 64, 8, 64, 64, 128, true},
                               {"gqa-32/8x128 (Mixtral)", false, 32, 8, 128, 128, 0, false},
                               {"gqa-16/16x128 (OLMoE)", false, 16, 16, 128, 128, 0, false}};

typedef struct {
  pool *p;
  mem_probe *probe;
  attn_step step;
  int32_t *pages, *pos, *seq;
  int ring_pages, next;
  bool cached, near;
  kern_kv_type type;
} bench;

/* --- peak -------------------------------------------------------------------------------------------------------------- */

/* a*b + c contracts to one instruction (tests/bench/CMakeLists.txt). */
#if defined(__x86_64__)
typedef float v16 __attribute__((vector_size(64)));
typedef float v8 __attribute__((vector_size(32)));
#define PEAK(name, vec, isa)                                                                \
  __attribute__((target(isa), noinline)) static float name(int n) {                         \
    vec acc[CHAINS], a = {0}, b = {0};                                                      \
    a += 0.999f, b += 1e-3f;                                                                \
    _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) acc[i] = (vec){0} + (float)i; \
    for (int k = 0; k < n; k++) {                                                           \
      _Pragma("GCC unroll 12") for (int i = 0; i < CHAINS; i++) {                           \
        acc[i] = acc[i] * a + b;                                                            \
        __asm__("" : "+v"(acc[i]));                                                         \
      }                                                                                     \
    }                                                                                       \
    _Pragma("GCC unroll 12") for (int i = 1; i < CHAINS; i++) acc[0] += acc[i];             \
    return acc[0][0];                                                                       \
  }
PEAK(peak_avx512, v16, "avx512f")
PEAK(peak_avx2, v8, "avx2,fma")
#endif

static float peak_scalar(int n) {
  float acc[CHAINS] = {0};
  for (int k = 0; k < n; k++)
    for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * 0.999f + 1e-3f;
  return acc[0] + acc[CHAINS - 1];
}

static _Atomic float sink;

static void peak_job(void *arg, int thread, int n_threads) {
  int n = *(const int *)arg;
  (void)thread, (void)n_threads;
#if defined(__x86_64__)
  unsigned isa = kern_get()->isa;
  if (isa & KERN_ISA_AVX512) sink = peak_avx512(n);
  else if (isa & KERN_ISA_AVX2) sink = peak_avx2(n);
  else sink = peak_scalar(n);
#else
  sink = peak_scalar(n);
#endif
}

/* Operations per second of all threads. */
static double measure_peak(pool *p) {
  const unsigned isa = kern_get()->isa;
  const int lanes = isa & KERN_ISA_AVX512 ? 16 : isa & KERN_ISA_AVX2 ? 8 : 1;
  int n = 400000;
  int64_t t0 = hf_now_ns();
  pool_run(p, peak_job, &n);
  return 2.0 * n * CHAINS * lanes * pool_threads(p) / ((double)(hf_now_ns() - t0) * 1e-9);
}

/* --- cases ------------------------------------------------------------------------------------------------------------- */

static void attend(void *arg, int thread, int n_threads) {
  bench *b = arg;
  if (!attn_step_run(&b->step, thread, n_threads)) return;
  pool_barrier(b->p, thread);
  attn_step_merge(&b->step, thread, n_threads);
}

static double run_once(bench *b, int context) {
  const int pages = (context + PAGE - 1) / PAGE;
  if (b->cached || b->next + pages > b->ring_pages) b->next = 0;
  b->step.page_table = b->pages + b->next;
  b->next += pages;
  int64_t t0 = hf_now_ns();
  pool_run(b->p, attend, b);
  return (double)(hf_now_ns() - t0) * 1e-9;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}
static double median(double *x, int n) {
  qsort(x, (size_t)n, sizeof *x, by_value);
  return x[n / 2];
}

static void measure(bench *b, const shape *s, int before, int n_q, int rounds) {
  static double share[MOST_ROUNDS], time_s[MOST_ROUNDS], bandwidth[MOST_ROUNDS], peak[MOST_ROUNDS];
  const int context = before + n_q;
  double seen = 0, ops, bytes;
  for (int i = 0; i < n_q; i++) seen += s->window && before + i + 1 > s->window ? s->window : before + i + 1;
  ops = 2.0 * s->heads * (s->dk + s->dv) * seen;
  const int rows = s->window && context > s->window + n_q - 1 ? s->window + n_q - 1 : context;
  bytes = (double)rows * (double)b->step.a.kv.row_bytes;
  for (int i = 0; i < n_q; i++) b->pos[i] = before + i;
  b->step.n_tok = n_q;
  for (int i = 0; i < 3; i++) run_once(b, context);
  for (int r = 0; r < rounds; r++) {
    int runs = 0;
    double s_sum = 0;
    bandwidth[r] = mem_probe_pass(b->probe, pool_threads(b->p));
    peak[r] = measure_peak(b->p);
    while (s_sum < 4e-3) s_sum += run_once(b, context), runs++;
    time_s[r] = s_sum / runs;
    double limit = bytes / bandwidth[r] > ops / peak[r] ? bytes / bandwidth[r] : ops / peak[r];
    share[r] = limit / time_s[r];
  }
  const double t = median(time_s, rounds), bw = median(bandwidth, rounds), pk = median(peak, rounds);
  /* of everything the best: arrays are sorted now */
  const double best_bw = bandwidth[rounds - 1], best_pk = peak[rounds - 1];
  const double quiet = (bytes / best_bw > ops / best_pk ? bytes / best_bw : ops / best_pk) / time_s[0];
  printf("%-34s %-7s %6d + %-4d %9.3f ms  %6.1f GB/s of %5.1f  %7.1f GFLOP/s of %6.1f  %-10s %5.1f %%  best %5.1f %%\n", s->name,
         n_q == 1 ? "decode" : "prefill", before, n_q, t * 1e3, bytes / t * 1e-9, bw * 1e-9, ops / t * 1e-9, pk * 1e-9,
         bytes / bw > ops / pk ? "memory" : "arithmetic", 100 * median(share, rounds), 100 * quiet);
  fflush(stdout);
}

static hf_status run_shape(bench *b, const shape *s, int rounds, char **words, int n_words, int threads) {
  static const struct {
    int before, n_q;
    const char *name;
  } load[] = {{1023, 1, "decode 1K"}, {4095, 1, "decode 4K"},    {16383, 1, "decode 16K"},   {32767, 1, "decode 32K"},
              {0, 512, "prefill 0K"}, {4096, 512, "prefill 4K"}, {16384, 512, "prefill 16K"}};
  enum { LOADS = sizeof load / sizeof *load, MOST = 32768, QUERIES = 512 };
  const kern_kv_shape token = {
      .n_heads = s->mla ? 0 : s->kv_heads, .k = s->mla ? s->dv : s->dk, .v = s->mla ? s->dk - s->dv : s->dv};
  const size_t row = kern_kv_row_bytes(b->type, &token), page_bytes = row * PAGE;
  const size_t q_floats = (size_t)s->heads * (size_t)s->dk, out_floats = (size_t)s->heads * (size_t)s->dv;
  const size_t scratch = (kern_attn_scratch_bytes(s->dk, s->dv) + 63) / 64 * 64;
  size_t part = attn_part_floats(s->heads, s->kv_heads, s->dv, MOST, threads);
  bool any = false;
  bool wanted[LOADS];
  for (int i = 0; i < LOADS; i++) {
    char name[128];
    wanted[i] = true;
    snprintf(name, sizeof name, "%s %s", s->name, load[i].name);
    for (int k = 0; k < n_words; k++) wanted[i] = wanted[i] && strstr(name, words[k]);
    any = any || wanted[i];
  }
  if (!any) return HF_OK;
  b->ring_pages = MOST / PAGE > (int)(PROBE_BYTES / page_bytes) ? MOST / PAGE : (int)(PROBE_BYTES / page_bytes);
  const size_t bytes = (size_t)b->ring_pages * page_bytes;
  void *kv, *room, *parts = NULL;
  float *q, *sinks;
  HF_TRY(mem_alloc(bytes, -1, "KV cache", &kv));
  HF_TRY(mem_alloc(scratch * (size_t)threads, -1, "scratch", &room));
  if (part) HF_TRY(mem_alloc(part * sizeof(float), -1, "scratch", &parts));
  HF_TRY(hf_alloc(&q, QUERIES * (q_floats + out_floats), sizeof *q, "queries"));
  HF_TRY(hf_alloc(&sinks, (size_t)s->heads, sizeof *sinks, "sinks"));
  HF_TRY(hf_alloc(&b->pages, (size_t)b->ring_pages + 2 * QUERIES, sizeof(int32_t), "page table"));
  b->pos = b->pages + b->ring_pages;
  b->seq = b->pos + QUERIES;
  for (int i = 0; i < b->ring_pages; i++) b->pages[i] = b->near ? i % 4 : i;
  for (size_t i = 0; i < QUERIES * q_floats; i++) q[i] = (float)(rand() % 2001 - 1000) * 1e-3f;
  for (int i = 0; i < PAGE; i++) { /* one page, which the others are copies of */
    static float x[16384];
    const kern_kv cache = {kv, page_bytes, row, (const int32_t[]){0}, PAGE, b->type};
    for (size_t j = 0; j < sizeof x / sizeof *x; j++) x[j] = (float)(rand() % 2001 - 1000) * 1e-3f;
    kern_kv_write(&cache, &token, i, x, x + 8192);
  }
  for (size_t done = page_bytes; done < bytes; done += page_bytes) memcpy((char *)kv + done, kv, page_bytes);
  b->next = 0;
  b->step =
      (attn_step){.a = {.kv = {.base = kv, .page_bytes = page_bytes, .row_bytes = row, .page_tokens = PAGE, .type = b->type},
                        .mla = s->mla,
                        .n_heads = s->heads,
                        .n_kv_heads = s->kv_heads,
                        .dk = s->dk,
                        .dv = s->dv,
                        .scale = 0.05f,
                        .window = s->window,
                        .sinks = s->sinks ? sinks : NULL},
                  .pos = b->pos,
                  .seq = b->seq,
                  .q = q,
                  .out = q + QUERIES * q_floats,
                  .q_stride = q_floats,
                  .out_stride = out_floats,
                  .scratch = room,
                  .scratch_bytes = scratch,
                  .part = parts,
                  .part_floats = part};
  for (int i = 0; i < LOADS; i++)
    if (wanted[i]) measure(b, s, load[i].before, load[i].n_q, rounds);
  mem_free(kv, bytes, -1);
  mem_free(room, scratch * (size_t)threads, -1);
  mem_free(parts, part * sizeof(float), -1);
  free(q);
  free(sinks);
  free(b->pages);
  return HF_OK;
}

int main(int argc, char **argv) {
  int rounds = 15, first = 1;
  bench b = {.type = KV_F16};
  for (; first < argc && !strncmp(argv[first], "--", 2); first++) {
    if (!strcmp(argv[first], "--cached")) b.cached = true;
    if (!strcmp(argv[first], "--near")) b.near = true;
    if (!strcmp(argv[first], "--kv") && first + 1 < argc && !kern_kv_parse(argv[++first], &b.type)) return 2;
    if (!strcmp(argv[first], "--rounds") && first + 1 < argc) rounds = atoi(argv[++first]);
  }
  if (rounds < 1 || rounds > MOST_ROUNDS) rounds = 15;
  static topology topo;
  hf_status st = kern_init(NULL);
  if (st == HF_OK) st = topo_get(&topo);
  if (st == HF_OK) st = pool_new(&topo, 0, &b.p);
  if (st == HF_OK) st = mem_probe_new(b.p, PROBE_BYTES, &b.probe);
  if (st == HF_OK)
    printf("%s, %d threads, %s, KV cache %s\n", topo.cpu_name, pool_threads(b.p), kern_get()->isa_name, kern_kv_name(b.type));
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes && st == HF_OK; i++)
    st = run_shape(&b, &shapes[i], rounds, argv + first, argc - first, pool_threads(b.p));
  if (st != HF_OK) fprintf(stderr, "bench_attention: %s\n", hf_error_line());
  mem_probe_free(b.probe);
  if (b.p) pool_free(b.p);
  return st == HF_OK ? 0 : hf_exit_status(st);
}
