/* attention.c: one query token against a KV cache of growing length, and pieces of a prompt, all heads, split over the workers as the executor
 * splits them; and the norm of one vector.
 *
 * A point's ns is for all heads of all its query tokens; act says how many heads ("h16"), format is the KV type. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/attn.h"
#include "profiler/profile.h"

enum { PROMPT = 128, PAGE_TOKENS = 64, QUICK_CONTEXT = 8192, FULL_CONTEXT = 32768, RING_LEAST = 128 << 20, L3_TIMES = 4 };
static const kern_kv_type kv_types[] = {KV_F16, KV_Q8_0}; /* that plans are made for */

typedef struct {
  pool *p;
  const prof_attn *a;
  attn_step step;
  int32_t pos[PROMPT], seq[PROMPT]; /* of the step's tokens, which follow each other in one sequence */
  int32_t *pages;                   /* [ring_pages]: a sequence is a window of it, the next one begins where it ends */
  kern_kv_type kv_type;
  int ring_pages, next;
  size_t part_floats;
} bench;

static size_t scratch_bytes(const prof_attn *a) {
  return (kern_attn_scratch_bytes(a->n_out + (a->mla ? a->n_in : 0), a->n_out) + 63) / 64 * 64;
}

static void attend(void *arg, int thread, int n_threads) {
  bench *b = arg;
  if (!attn_step_run(&b->step, thread, n_threads)) return;
  pool_barrier(b->p, thread);
  attn_step_merge(&b->step, thread, n_threads);
}

static double sample(void *user) {
  bench *b = user;
  int pages = b->pos[b->step.n_tok - 1] / PAGE_TOKENS + 1;
  if (b->next + pages > b->ring_pages) b->next = 0;
  b->step.page_table = b->pages + b->next;
  b->next += pages;
  int64_t t0 = hf_now_ns();
  pool_run(b->p, attend, b);
  return (double)(hf_now_ns() - t0);
}

static hf_status add_point(profile *p, const bench *b, const stats *ns) {
  const prof_attn *a = b->a;
  rec_kernel_point k = {.n_out = a->n_out,
                        .n_in = a->n_in,
                        .tokens = b->step.n_tok,
                        .context = b->pos[b->step.n_tok - 1] + 1,
                        .threads = pool_threads(b->p),
                        .bytes = (int64_t)(b->pos[b->step.n_tok - 1] + 1) * (int64_t)b->step.a.kv.row_bytes};
  snprintf(k.kernel, sizeof k.kernel, "%s_%s", b->step.n_tok > 1 ? "prompt" : "attn", a->mla ? "mla" : "gqa");
  snprintf(k.candidate, sizeof k.candidate, "%s", kern_get()->isa_name);
  snprintf(k.format, sizeof k.format, "%s", kern_kv_name(b->kv_type));
  snprintf(k.act, sizeof k.act, "h%d", a->heads);
  return prof_add_point(p, &k, ns);
}

/* Queries of all heads; q, out: one after another in one block. */
static void describe(bench *b, void *kv, size_t row_bytes, float *q, char *scratch, float *part) {
  const prof_attn *a = b->a;
  const int dk = a->n_out + (a->mla ? a->n_in : 0);
  b->step = (attn_step){.a = {.kv = {.base = kv,
                                     .page_bytes = row_bytes * PAGE_TOKENS,
                                     .row_bytes = row_bytes,
                                     .page_tokens = PAGE_TOKENS,
                                     .type = b->kv_type},
                              .mla = a->mla,
                              .n_heads = a->heads,
                              .n_kv_heads = a->mla ? 1 : a->n_in,
                              .dk = dk,
                              .dv = a->n_out,
                              .scale = 0.05f},
                        .pos = b->pos,
                        .seq = b->seq,
                        .q = q,
                        .q_stride = (size_t)a->heads * (size_t)dk,
                        .out = q + PROMPT * (size_t)a->heads * (size_t)dk,
                        .out_stride = (size_t)a->heads * (size_t)a->n_out,
                        .scratch = scratch,
                        .scratch_bytes = scratch_bytes(a),
                        .part = part,
                        .part_floats = b->part_floats};
}

static kern_kv_shape token_of(const prof_attn *a) {
  return a->mla ? (kern_kv_shape){.k = a->n_out, .v = a->n_in}
                : (kern_kv_shape){.n_heads = a->n_in, .k = a->n_out, .v = a->n_out};
}

/* One page of numbers, again and again. */
static void fill_ring(const bench *b, char *kv, size_t row_bytes, float *row) {
  static const int32_t first = 0;
  const kern_kv_shape token = token_of(b->a);
  const int heads = token.n_heads ? token.n_heads : 1;
  const kern_kv page = {kv, row_bytes * PAGE_TOKENS, row_bytes, &first, PAGE_TOKENS, b->kv_type};
  for (int i = 0; i < PAGE_TOKENS; i++) {
    prof_random(row, heads * (token.k + token.v), (uint64_t)i + 31);
    kern_kv_write(&page, &token, i, row, row + heads * token.k);
  }
  for (int i = 1; i < b->ring_pages; i++) memcpy(kv + (size_t)i * page.page_bytes, kv, page.page_bytes);
}

/* The last `tokens` of `context`. */
static stats time_context(profile *p, bench *b, int tokens, int context) {
  b->step.n_tok = tokens;
  for (int i = 0; i < tokens; i++) b->pos[i] = context - tokens + i;
  b->next = 0;
  return prof_time(p, sample, b);
}

static stats again(profile *p, void *user, const rec_kernel_point *k) {
  return time_context(p, user, k->tokens, k->context);
}

static hf_status all_points(profile *p, bench *b, int most) {
  static const int prompt_at[] = {
      PROMPT, 8 * PROMPT}; /* what a query takes beside its pairs, and pairs where rows of the cache serve many */
  for (int i = 0; i < p->n_pools; i++) {
    int from = p->n_point;
    b->p = p->pools[i];
    for (int context = 128; context <= most; context *= p->o.quick ? 8 : prof_late(p) ? 4 : 2) {
      stats s = time_context(p, b, 1, context);
      HF_TRY(add_point(p, b, &s));
    }
    prof_in_order(p, from, again, b);
    for (size_t k = 0; k < sizeof prompt_at / sizeof *prompt_at; k++) {
      stats s = time_context(p, b, PROMPT, prompt_at[k]);
      HF_TRY(add_point(p, b, &s));
    }
  }
  return HF_OK;
}

static hf_status measure(profile *p, const prof_attn *a, kern_kv_type kv_type) {
  int most = p->o.quick ? QUICK_CONTEXT : FULL_CONTEXT;
  bench b = {.a = a, .kv_type = kv_type};
  const kern_kv_shape token = token_of(a);
  const int threads = pool_threads(p->pools[0]);
  size_t row_bytes = kern_kv_row_bytes(kv_type, &token), page_bytes = row_bytes * PAGE_TOKENS;
  int64_t ring = L3_TIMES * p->topo->l3_bytes > RING_LEAST ? L3_TIMES * p->topo->l3_bytes : RING_LEAST;
  b.ring_pages = (int)(ring / (int64_t)page_bytes);
  if (b.ring_pages < most / PAGE_TOKENS) b.ring_pages = most / PAGE_TOKENS;
  size_t bytes = (size_t)b.ring_pages * page_bytes, q_floats = (size_t)a->heads * (size_t)(a->n_out + (a->mla ? a->n_in : 0));
  const size_t scratch = (size_t)threads * scratch_bytes(a);
  b.part_floats = attn_part_floats(a->heads, a->mla ? 1 : a->n_in, a->n_out, most, threads);
  void *kv = NULL, *room = NULL, *part = NULL;
  float *row = NULL, *q = NULL;
  hf_status st;
  HF_GO(out, mem_alloc(bytes, -1, "KV cache", &kv));
  HF_GO(out, mem_alloc(scratch, -1, "scratch of the attention", &room));
  if (b.part_floats > 0) HF_GO(out, mem_alloc(b.part_floats * sizeof(float), -1, "scratch of the attention", &part));
  HF_GO(out, hf_alloc(&b.pages, (size_t)b.ring_pages, sizeof *b.pages, "page table"));
  HF_GO(out, hf_alloc(&q, PROMPT * (q_floats + (size_t)a->heads * (size_t)a->n_out), sizeof *q, "query"));
  HF_GO(out, hf_alloc(&row, (size_t)(token.n_heads ? token.n_heads : 1) * (size_t)(token.k + token.v), sizeof *row, "KV row"));
  prof_random(q, (int)(PROMPT * q_floats), 21);
  for (int i = 0; i < b.ring_pages; i++) b.pages[i] = i;
  fill_ring(&b, kv, row_bytes, row);
  describe(&b, kv, row_bytes, q, room, part);
  st = all_points(p, &b, most);
out:
  mem_free(kv, bytes, -1);
  mem_free(room, scratch, -1);
  mem_free(part, b.part_floats * sizeof(float), -1);
  free(b.pages);
  free(q);
  free(row);
  return st;
}

hf_status prof_attention(profile *p) {
  p->from_cache = false;
  for (int i = 0; i < p->shapes.n_attn; i++) {
    const prof_attn *a = &p->shapes.attn[i];
    for (size_t k = 0; k < sizeof kv_types / sizeof *kv_types; k++) {
      if (!prof_unit_begin(p, "attention/%s/%s/%dx%dx%d", kern_kv_name(kv_types[k]), a->mla ? "mla" : "gqa", a->heads, a->n_out,
                           a->n_in))
        continue;
      HF_TRY(measure(p, a, kv_types[k]));
      if (a->mla && kv_types[k] == KV_F16) HF_TRY(prof_latent(p, a));
      HF_TRY(prof_unit_end(p));
    }
  }
  return HF_OK;
}

/* --- norm ------------------------------------------------------------------------------------------------------------ */

typedef struct {
  pool *p;
  void *room;
  float *x, *w, *y;
  int n;
  kern_act pack; /* KA_N: the norm, else packing as that */
  int64_t t0, t1;
} norm;

/* A step works on the rows of its tokens one operation after another, so each operation finds them in a cache further out than the first; and a
 * product before it has left the columns of a row to all workers. */
enum { NORM_BYTES = 512 << 10 };

static int norm_rows(int n) {
  return NORM_BYTES / (int)sizeof(float) / n + 1;
}

/* Packed rows were read by all workers in the product before: who writes them again has to take them back. */
static void read_all(const void *from, size_t bytes) {
  uint8_t sum = 0;
  for (size_t i = 0; i < bytes; i += 64) sum ^= ((const uint8_t *)from)[i];
  __asm__ volatile("" : : "r"(sum));
}

static void norms(void *arg, int thread, int n_threads) {
  norm *b = arg;
  const int rows = norm_rows(b->n), c0 = b->n * thread / n_threads, c1 = b->n * (thread + 1) / n_threads;
  for (int r = 0; r < rows; r++)
    for (int i = c0; i < c1; i++) b->x[(size_t)r * (size_t)b->n + (size_t)i] += 1e-6f;
  if (b->pack != KA_N) read_all(b->y, (size_t)rows * kern_act_bytes_any(b->n));
  pool_barrier(b->p, thread);
  if (thread == 0) b->t0 = hf_now_ns();
  for (int r = thread; r < rows; r += n_threads) {
    const size_t at = (size_t)r * (size_t)b->n;
    if (b->pack == KA_N) kern_get()->rmsnorm(b->x + at, b->w, 1e-6f, b->n, b->y + at);
    else kern_get()->pack[b->pack](b->x + at, b->n, (char *)b->y + (size_t)r * kern_act_bytes_any(b->n));
  }
  pool_barrier(b->p, thread);
  if (thread == 0) b->t1 = hf_now_ns();
}

static double sample_norm(void *user) {
  norm *b = user;
  pool_run(b->p, norms, b);
  return (double)(b->t1 - b->t0);
}

static hf_status measure_norm(profile *p, pool *of, int n, kern_act pack) {
  norm b = {.p = of, .n = n, .pack = pack};
  const size_t all = (size_t)norm_rows(n) * (size_t)n, packed = (size_t)norm_rows(n) * kern_act_bytes_any(n);
  HF_TRY(mem_alloc(4 * (all + (size_t)n) + packed, -1, "vectors", &b.room));
  b.y = b.room;
  b.x = (float *)(void *)((char *)b.room + packed);
  b.w = b.x + all;
  prof_random(b.x, (int)all, 41);
  prof_random(b.w, n, 42);
  stats s = prof_time(p, sample_norm, &b);
  mem_free(b.room, 4 * (all + (size_t)n) + packed, -1);
  stats each = stats_share(&s, 0, (double)norm_rows(n) / pool_threads(of), 0);
  rec_kernel_point k = {.n_out = n, .n_in = n, .tokens = 1, .threads = pool_threads(of), .bytes = (int64_t)n * 4};
  snprintf(k.kernel, sizeof k.kernel, "%s", pack == KA_N ? "rmsnorm" : "pack");
  snprintf(k.candidate, sizeof k.candidate, "%s", kern_get()->isa_name);
  snprintf(k.format, sizeof k.format, "f32");
  snprintf(k.act, sizeof k.act, "%s", pack == KA_N ? "f32" : kern_act_name(pack));
  p->from_cache = true;
  return prof_add_point(p, &k, &each);
}

/* --- results of products ------------------------------------------------------------------------------------------------- */

/* Products write columns of all rows, 16 of a row at a time; whoever treated the rows before has their lines. */
static void columns(void *arg, int thread, int n_threads) {
  enum { SIDE_BY_SIDE = 16 };
  norm *b = arg;
  const int rows = norm_rows(b->n), blocks = b->n / SIDE_BY_SIDE;
  for (int r = thread; r < rows; r += n_threads)
    for (int i = 0; i < b->n; i++) b->x[(size_t)r * (size_t)b->n + (size_t)i] += 1e-6f;
  pool_barrier(b->p, thread);
  if (thread == 0) b->t0 = hf_now_ns();
  for (int k = blocks * thread / n_threads; k < blocks * (thread + 1) / n_threads; k++)
    for (int r = 0; r < rows; r++) {
      /* a store as wide as those of products */
      kern_get()->kv_load(KV_F16, b->w, SIDE_BY_SIDE, b->x + (size_t)r * (size_t)b->n + (size_t)k * SIDE_BY_SIDE);
    }
  pool_barrier(b->p, thread);
  if (thread == 0) b->t1 = hf_now_ns();
}

static double sample_columns(void *user) {
  norm *b = user;
  pool_run(b->p, columns, b);
  return (double)(b->t1 - b->t0);
}

static hf_status measure_columns(profile *p, pool *of, int n) {
  norm b = {.p = of, .n = n};
  const size_t all = (size_t)norm_rows(n) * (size_t)n, bytes = 4 * (all + (size_t)n);
  HF_TRY(mem_alloc(bytes, -1, "vectors", &b.room));
  b.x = b.room;
  b.w = b.x + all;
  prof_random(b.x, (int)all, 44);
  for (int i = 0; i < n; i++) b.w[i] = 0;
  stats s = prof_time(p, sample_columns, &b);
  mem_free(b.room, bytes, -1);
  stats each = stats_share(&s, 0, (double)norm_rows(n) / pool_threads(of), 0);
  rec_kernel_point k = {.n_out = n, .n_in = n, .tokens = 1, .threads = pool_threads(of), .bytes = (int64_t)n * 4};
  snprintf(k.kernel, sizeof k.kernel, "results");
  snprintf(k.candidate, sizeof k.candidate, "%s", kern_get()->isa_name);
  snprintf(k.format, sizeof k.format, "f32");
  snprintf(k.act, sizeof k.act, "f32");
  p->from_cache = true;
  return prof_add_point(p, &k, &each);
}

/* --- choosing ---------------------------------------------------------------------------------------------------------- */

/* Experts of a token: a softmax over 64 logits, the 8 largest; logits of several tokens, as a choice costs more where it is not foreseen. */
enum { ROUTED = 64, ROUTE_TOP = 8, ROUTE_TOKENS = 256 };

static double sample_route(void *user) {
  static const kern_router r = {.n_experts = ROUTED, .top_k = ROUTE_TOP, .norm = true, .scale = 1};
  const float *logits = user;
  int32_t ids[ROUTE_TOP];
  float weights[ROUTE_TOP];
  int64_t t0 = hf_now_ns();
  for (int t = 0; t < ROUTE_TOKENS; t++) kern_route(&r, logits + (size_t)t * ROUTED, ids, weights);
  return (double)(hf_now_ns() - t0);
}

static hf_status measure_route(profile *p) {
  float *logits;
  HF_TRY(hf_alloc(&logits, (size_t)ROUTE_TOKENS * ROUTED, sizeof *logits, "logits"));
  prof_random(logits, ROUTE_TOKENS * ROUTED, 43);
  stats s = prof_time(p, sample_route, logits);
  free(logits);
  stats each = stats_share(&s, 0, ROUTE_TOKENS, 0);
  rec_kernel_point k = {.n_out = ROUTED, .n_in = ROUTE_TOP, .tokens = 1, .threads = 1, .bytes = ROUTED * 4};
  snprintf(k.kernel, sizeof k.kernel, "route");
  snprintf(k.candidate, sizeof k.candidate, "%s", kern_get()->isa_name);
  snprintf(k.format, sizeof k.format, "f32");
  snprintf(k.act, sizeof k.act, "f32");
  return prof_add_point(p, &k, &each);
}

hf_status prof_norm(profile *p) {
  for (int i = 0; i < p->shapes.n_norm; i++)
    for (int k = 0; k < p->n_pools; k++) {
      HF_TRY(measure_norm(p, p->pools[k], p->shapes.norm[i], KA_N));
      for (kern_act a = KA_BF16; a <= KA_Q8B32; a++) HF_TRY(measure_norm(p, p->pools[k], p->shapes.norm[i], a));
      HF_TRY(measure_columns(p, p->pools[k], p->shapes.norm[i]));
    }
  return measure_route(p);
}
