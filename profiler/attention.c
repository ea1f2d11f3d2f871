/* attention.c: one query token against a KV cache of growing length, all heads, split over the workers as the executor splits
 * them; and the norm of one vector.
 *
 * A point's ns is for all heads of one query token; act says how many heads ("h16"), format is the KV type. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "profiler/profile.h"

enum { PAGE_TOKENS = 64, QUICK_CONTEXT = 8192, FULL_CONTEXT = 32768, RING_LEAST = 128 << 20, L3_TIMES = 4 };
static const kern_kv_type kv_type = KV_F16; /* what plans use unless told otherwise */

typedef struct {
  pool *p;
  const prof_attn *a;
  kern_kv kv;
  int32_t *pages; /* [ring_pages]: a sequence is a window of it, the next one begins where it ends */
  int ring_pages, next, row_elems;
  float *q, *out;
  float scale;
} bench;

static void attend(void *arg, int thread, int n_threads) {
  bench *b = arg;
  const prof_attn *a = b->a;
  /* GQA: heads of one KV head stay together; MLA: two groups a worker */
  int group = a->mla ? (a->heads >= 2 * n_threads ? a->heads / (2 * n_threads) : 1) : a->heads / a->n_in;
  int groups = (a->heads + group - 1) / group;
  int lo = groups * thread / n_threads, hi = groups * (thread + 1) / n_threads;
  for (int g = lo; g < hi; g++) {
    int h0 = g * group, h1 = h0 + group < a->heads ? h0 + group : a->heads;
    if (a->mla) kern_get()->attn_mla(&b->kv, b->q, h0, h1, a->n_out, a->n_in, b->scale, b->out);
    else kern_get()->attn_gqa(&b->kv, b->q, h0, h1, a->heads, a->n_in, a->n_out, b->scale, 0, NULL, b->out);
  }
}

static double sample(void *user) {
  bench *b = user;
  int pages = (b->kv.n_ctx + PAGE_TOKENS - 1) / PAGE_TOKENS;
  if (b->next + pages > b->ring_pages) b->next = 0;
  b->kv.pages = b->pages + b->next;
  b->next += pages;
  int64_t t0 = hf_now_ns();
  pool_run(b->p, attend, b);
  return (double)(hf_now_ns() - t0);
}

static hf_status add_point(profile *p, const bench *b, const stats *ns) {
  const prof_attn *a = b->a;
  rec_kernel_point k = {.n_out = a->n_out,
                        .n_in = a->n_in,
                        .tokens = 1,
                        .context = b->kv.n_ctx,
                        .threads = pool_threads(b->p),
                        .bytes = (int64_t)b->kv.n_ctx * (int64_t)b->kv.row_bytes};
  snprintf(k.kernel, sizeof k.kernel, "%s", a->mla ? "attn_mla" : "attn_gqa");
  snprintf(k.candidate, sizeof k.candidate, "%s", kern_get()->isa_name);
  snprintf(k.format, sizeof k.format, "f16");
  snprintf(k.act, sizeof k.act, "h%d", a->heads);
  return prof_add_point(p, &k, ns);
}

static stats time_context(profile *p, bench *b, int context) {
  b->kv.n_ctx = context;
  b->next = 0;
  return prof_time(p, sample, b);
}

static stats again(profile *p, void *user, const rec_kernel_point *k) {
  return time_context(p, user, k->context);
}

static hf_status measure(profile *p, const prof_attn *a) {
  int most = p->o.quick ? QUICK_CONTEXT : FULL_CONTEXT;
  bench b = {.a = a, .row_elems = a->mla ? a->n_out + a->n_in : 2 * a->n_in * a->n_out, .scale = 0.05f};
  size_t row_bytes = (size_t)b.row_elems * kern_kv_elem_bytes(kv_type), page_bytes = row_bytes * PAGE_TOKENS;
  int64_t ring = L3_TIMES * p->topo->l3_bytes > RING_LEAST ? L3_TIMES * p->topo->l3_bytes : RING_LEAST;
  b.ring_pages = (int)(ring / (int64_t)page_bytes);
  if (b.ring_pages < most / PAGE_TOKENS || p->o.quick) b.ring_pages = most / PAGE_TOKENS;
  size_t bytes = (size_t)b.ring_pages * page_bytes, q_floats = (size_t)a->heads * (size_t)(a->n_out + (a->mla ? a->n_in : 0));
  void *kv = NULL;
  float *row = NULL;
  hf_status st;
  HF_GO(out, mem_alloc(bytes, -1, "KV cache", &kv));
  HF_GO(out, hf_alloc(&b.pages, (size_t)b.ring_pages, sizeof *b.pages, "page table"));
  HF_GO(out, hf_alloc(&b.q, q_floats + (size_t)a->heads * (size_t)a->n_out, sizeof *b.q, "query"));
  HF_GO(out, hf_alloc(&row, (size_t)b.row_elems, sizeof *row, "KV row"));
  b.out = b.q + q_floats;
  prof_random(b.q, (int)q_floats, 21);
  for (int i = 0; i < b.ring_pages; i++) b.pages[i] = i;
  for (size_t r = 0; r < (size_t)b.ring_pages * PAGE_TOKENS; r++) {
    if (r < 32) prof_random(row, b.row_elems, r + 31);
    if (r < 32) kern_get()->kv_store(kv_type, row, b.row_elems, (char *)kv + r * row_bytes);
    else memcpy((char *)kv + r * row_bytes, (char *)kv + r % 32 * row_bytes, row_bytes);
  }
  b.kv = (kern_kv){.base = kv, .page_bytes = page_bytes, .row_bytes = row_bytes, .page_tokens = PAGE_TOKENS, .type = kv_type};
  for (int i = 0; i < p->n_pools && st == HF_OK; i++) {
    int from = p->n_point;
    b.p = p->pools[i];
    for (int context = 128; context <= most && st == HF_OK; context *= p->o.quick ? 8 : prof_late(p) ? 4 : 2) {
      stats s = time_context(p, &b, context);
      st = add_point(p, &b, &s);
    }
    if (st == HF_OK) prof_in_order(p, from, again, &b);
  }
out:
  mem_free(kv, bytes, -1);
  free(b.pages);
  free(b.q);
  free(row);
  return st;
}

hf_status prof_attention(profile *p) {
  for (int i = 0; i < p->shapes.n_attn; i++) {
    const prof_attn *a = &p->shapes.attn[i];
    if (!prof_unit_begin(p, "attention/%s/%dx%dx%d", a->mla ? "mla" : "gqa", a->heads, a->n_out, a->n_in)) continue;
    HF_TRY(measure(p, a));
    HF_TRY(prof_unit_end(p));
  }
  return HF_OK;
}

/* --- norm ------------------------------------------------------------------------------------------------------------ */

typedef struct {
  float *x, *w, *y;
  int n;
} norm;

enum { NORMS = 32 };

static double sample_norm(void *user) {
  norm *b = user;
  int64_t t0 = hf_now_ns();
  for (int i = 0; i < NORMS; i++) kern_get()->rmsnorm(b->x, b->w, 1e-6f, b->n, b->y);
  return (double)(hf_now_ns() - t0);
}

static hf_status measure_norm(profile *p, int n) {
  norm b = {.n = n};
  HF_TRY(hf_alloc(&b.x, 3 * (size_t)n, sizeof *b.x, "vectors"));
  b.w = b.x + n;
  b.y = b.w + n;
  prof_random(b.x, 2 * n, 41);
  stats s = prof_time(p, sample_norm, &b);
  free(b.x);
  stats each = stats_share(&s, 0, NORMS, 0);
  rec_kernel_point k = {.n_out = n, .n_in = n, .tokens = 1, .threads = 1, .bytes = (int64_t)n * 4};
  snprintf(k.kernel, sizeof k.kernel, "rmsnorm");
  snprintf(k.candidate, sizeof k.candidate, "%s", kern_get()->isa_name);
  snprintf(k.format, sizeof k.format, "f32");
  snprintf(k.act, sizeof k.act, "f32");
  return prof_add_point(p, &k, &each);
}

hf_status prof_norm(profile *p) {
  for (int i = 0; i < p->shapes.n_norm; i++) HF_TRY(measure_norm(p, p->shapes.norm[i]));
  return HF_OK;
}
