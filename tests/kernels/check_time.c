/* check_time.c: how fast each product is. The matrix is larger than the last-level cache, so that one token measures DRAM; the
 * read bandwidth beside it is measured alternately by the same threads. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "check.h"
#include "kernels/mem/pool.h"

enum { MAX_TOK = 64, CHUNK_ROWS = 64, COLS = 7168, MIN_NS = 300000000 };
static const size_t matrix_bytes = (size_t)192 << 20;

typedef struct {
  const char *data;
  size_t bytes;
  atomic_int next;
  _Atomic uint64_t sum;
} read_job;

/* Sixteen independent sums: enough loads in flight without any intrinsics. */
static void read_chunks(void *arg, int thread, int n_threads) {
  enum { CHUNK = 1 << 20 };
  read_job *j = arg;
  uint64_t s[16] = {0};
  (void)thread, (void)n_threads;
  for (int i; (i = pool_claim(&j->next, (int)(j->bytes / CHUNK), 1)) >= 0;) {
    const uint64_t *p = (const uint64_t *)(const void *)(j->data + (size_t)i * CHUNK);
    for (size_t k = 0; k < CHUNK / 8; k += 16) {
      for (int l = 0; l < 16; l++) s[l] += p[k + (size_t)l];
    }
  }
  for (int l = 1; l < 16; l++) s[0] += s[l];
  atomic_fetch_add(&j->sum, s[0]);
}

typedef struct {
  const kern_mm_candidate *c;
  const kern_mat *w;
  int n_tok;
  const void *const *x;
  float *const *y;
  atomic_int next;
} mm_job;

static void mm_chunks(void *arg, int thread, int n_threads) {
  mm_job *j = arg;
  (void)thread, (void)n_threads;
  for (int r; (r = pool_claim(&j->next, j->w->n_rows, CHUNK_ROWS)) >= 0;) {
    int end = r + CHUNK_ROWS < j->w->n_rows ? r + CHUNK_ROWS : j->w->n_rows;
    j->c->fn(j->w, r, end, j->n_tok, j->x, j->y);
  }
}

static double run_once(pool *p, pool_fn *fn, void *job, atomic_int *next) {
  atomic_store(next, 0);
  int64_t t0 = hf_now_ns();
  pool_run(p, fn, job);
  return (double)(hf_now_ns() - t0) * 1e-9;
}

/* Best of as many runs as fit into MIN_NS, at least three: other work on the machine only ever adds time. Plain reads alternate
 * with the product, so that both meet the same minute: *read_s is their best. */
static double best_seconds(pool *p, mm_job *mm, read_job *read, double *read_s) {
  double best = 1e9;
  int64_t start = hf_now_ns();
  *read_s = 1e9;
  for (int i = 0; i < 3 || hf_now_ns() - start < MIN_NS; i++) {
    double r = run_once(p, read_chunks, read, &read->next), s = run_once(p, mm_chunks, mm, &mm->next);
    *read_s = r < *read_s ? r : *read_s;
    best = s < best ? s : best;
  }
  return best;
}

static void *must_alloc(size_t bytes) {
  void *p = NULL;
  if (mem_alloc(bytes, -1, "check_kernels --time", &p) != HF_OK) {
    fprintf(stderr, "check_kernels: %s\n", hf_error_line());
    exit(3);
  }
  return p;
}

static void time_candidate(pool *p, const kern_mm_candidate *c, char *data) {
  static const int tokens[] = {1, 2, 4, 8, 16, 64};
  static char *x[MAX_TOK];
  static float *y[MAX_TOK];
  size_t row = kern_row_bytes(c->format, COLS);
  kern_mat w = {c->format, KL_ROWS, (int)(matrix_bytes / row), COLS, row, data};
  kern_table ref;
  float values[COLS];
  if (kern_table_for(KERN_ISA_SCALAR, &ref) != HF_OK) return;
  for (int i = 0; i < COLS; i++) values[i] = rnd_value(DATA_RANDOM);
  for (int r = 0; r < w.n_rows; r++) {
    if (r == 0) kern_random_row(c->format, 1, 1.0f, COLS, data);
    else memcpy(data + (size_t)r * row, data, row);
  }
  char *tiles = NULL;
  if (c->layout == KL_TILE16) { /* into place, 16 rows at a time */
    tiles = must_alloc(16 * row);
    w.n_rows -= w.n_rows % 16;
    for (int r = 0; r < w.n_rows; r += 16) {
      kern_mat some = {c->format, KL_ROWS, 16, COLS, row, data + (size_t)r * row};
      kern_tile_pack(&some, 0, 16, tiles);
      memcpy(data + (size_t)r * row, tiles, 16 * row);
    }
    w.layout = KL_TILE16;
    mem_free(tiles, 16 * row, -1);
  }
  for (int t = 0; t < MAX_TOK; t++) {
    x[t] = must_alloc(kern_act_bytes(c->act, COLS));
    y[t] = must_alloc((size_t)w.n_rows * 4);
    ref.pack[c->act](values, COLS, x[t]);
  }
  for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
    mm_job j = {.c = c, .w = &w, .n_tok = tokens[i], .x = (const void *const *)x, .y = y};
    read_job plain = {.data = data, .bytes = matrix_bytes};
    double read_s, s = 0;
    if (c->isa == KERN_ISA_SCALAR && tokens[i] > 1) break;
    s = best_seconds(p, &j, &plain, &read_s);
    double bytes = (double)row * w.n_rows / s, flops = 2.0 * w.n_rows * COLS * tokens[i] / s,
           dram = (double)matrix_bytes / read_s;
    printf("%-26s %6dx%d %3d tok %7.2f GB/s of %6.2f (%3.0f %%) %8.1f GFLOP/s\n", c->name, w.n_rows, COLS, tokens[i],
           bytes * 1e-9, dram * 1e-9, 100.0 * bytes / dram, flops * 1e-9);
  }
  for (int t = 0; t < MAX_TOK; t++) {
    mem_free(x[t], kern_act_bytes(c->act, COLS), -1);
    mem_free(y[t], (size_t)w.n_rows * 4, -1);
  }
}

/* One query over 4096 tokens of context, DeepSeek's and Qwen3's shapes, on one thread. */
static void time_attention(const kern_table *t) {
  enum { CTX = 4096, PAGE = 64, HEADS = 16, LORA = 512, ROPE = 64, HD = 128, KV_HEADS = 4, ROW = 2 * KV_HEADS * HD };
  static int32_t pages[CTX / PAGE];
  char *cache = must_alloc((size_t)CTX * ROW * 2), *scratch = must_alloc(kern_attn_scratch_bytes(LORA + ROPE, LORA));
  float *q = must_alloc(HEADS * (LORA + ROPE) * 4), *out = must_alloc(HEADS * LORA * 4);
  for (int i = 0; i < CTX / PAGE; i++) pages[i] = i;
  kern_attn mla = {{cache, (size_t)PAGE * (LORA + ROPE) * 2, (LORA + ROPE) * 2, pages, PAGE, KV_BF16},
                   .mla = true,
                   .n_heads = HEADS,
                   .n_kv_heads = 1,
                   .dk = LORA + ROPE,
                   .dv = LORA,
                   .scale = 0.1f,
                   .n_q = 1,
                   .pos0 = CTX - 1,
                   .q = q,
                   .out = out};
  kern_attn gqa = mla;
  gqa.mla = false, gqa.n_kv_heads = KV_HEADS, gqa.dk = gqa.dv = HD;
  gqa.kv.page_bytes = (size_t)PAGE * ROW * 2, gqa.kv.row_bytes = ROW * 2;
  int64_t best[2] = {INT64_MAX, INT64_MAX};
  for (int i = 0; i < 10; i++) {
    int64_t t0 = hf_now_ns();
    t->attn(&mla, 0, 1, 0, HEADS, 0, CTX / KERN_ATTN_SEGMENT, NULL, scratch);
    int64_t t1 = hf_now_ns();
    t->attn(&gqa, 0, KV_HEADS, 0, HEADS / KV_HEADS, 0, CTX / KERN_ATTN_SEGMENT, NULL, scratch);
    int64_t t2 = hf_now_ns();
    best[0] = t1 - t0 < best[0] ? t1 - t0 : best[0];
    best[1] = t2 - t1 < best[1] ? t2 - t1 : best[1];
  }
  printf("%-20s MLA 16 heads %.2f ms (%.1f GFLOP/s), GQA 16/4 heads %.2f ms (%.1f GFLOP/s), 4096 tokens, bf16, one thread\n",
         t->isa_name, (double)best[0] * 1e-6, 2.0 * CTX * HEADS * (LORA + ROPE + LORA) / (double)best[0], (double)best[1] * 1e-6,
         2.0 * CTX * HEADS * HD * 2 / (double)best[1]);
  mem_free(cache, (size_t)CTX * ROW * 2, -1);
  mem_free(scratch, kern_attn_scratch_bytes(LORA + ROPE, LORA), -1);
  mem_free(q, HEADS * (LORA + ROPE) * 4, -1);
  mem_free(out, HEADS * LORA * 4, -1);
}

static void time_products(pool *p, char *data, const char *only) {
  for (int f = 0; f < KF_N; f++) {
    for (int exact = 0; exact < 2; exact++) {
      const kern_mm_candidate *all[16];
      int n = kern_mm_candidates(kern_isa_detected(), (kern_format)f, kern_act_of((kern_format)f, exact), all, 16);
      for (int i = 0; i < n && i < 16; i++) {
        if (exact && f == KF_F32) continue;
        if (!only || strstr(all[i]->name, only)) time_candidate(p, all[i], data);
      }
    }
  }
}

void time_everything(const char *only) {
  static const unsigned masks[] = {KERN_ISA_SCALAR, KERN_ISA_AVX2, KERN_ISA_AVX2 | KERN_ISA_AVX512};
  topology *t = must_alloc(sizeof *t);
  char *data = must_alloc(matrix_bytes);
  pool *p = NULL;
  if (topo_get(t) != HF_OK || pool_new(t, 0, &p) != HF_OK) {
    fprintf(stderr, "check_kernels: %s\n", hf_error_line());
    exit(3);
  }
  memset(data, 1, matrix_bytes);
  printf("%s, %d threads; \"of\" is what plain reads reach in the same moment\n", t->cpu_name, pool_threads(p));
  time_products(p, data, only);
  for (size_t i = 0; i < sizeof masks / sizeof masks[0] && !only; i++) {
    kern_table k;
    if (kern_table_for(masks[i], &k) == HF_OK) time_attention(&k);
  }
  pool_free(p);
  mem_free(data, matrix_bytes, -1);
  mem_free(t, sizeof *t, -1);
}
