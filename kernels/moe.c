/* moe.c: see moe.h. The pair table is rebuilt for each call by a counting sort over experts: top_k is small, so the pairs of
 * one expert stay in token order and the active experts in ascending order, which is what makes sums deterministic. */
#include "kernels/moe.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { UP_ROWS = 64, DOWN_ROWS = 64 };

struct moe {
  moe_shape shape;
  int n_threads;
  int max_pairs;
  /* pairs, sorted by expert */
  int n_active, n_pairs;
  int *active;   /* [n_experts] expert id */
  int *first;    /* [n_experts + 1] first pair of the i-th active expert */
  int *pair_tok; /* [max_pairs] */
  float *pair_w; /* [max_pairs] */
  int *count;    /* [n_experts] */
  /* activations */
  char *xp; /* [max_tok][xp_bytes] packed inputs */
  size_t xp_bytes;
  float *h; /* [max_pairs][d_ff] */
  char *hp; /* [max_pairs][hp_bytes] packed hidden */
  size_t hp_bytes;
  kern_act up_act; /* of the packed inputs of this run */
  /* per thread */
  float *tmp;        /* [n_threads][max_tok][DOWN_ROWS] twice */
  const void **xptr; /* [n_threads][max_tok] */
  float **yptr;      /* [n_threads][max_tok] */
  atomic_int next_up, next_pack, next_down;
};

static size_t round64(size_t n) {
  return (n + 63) & ~(size_t)63;
}

static hf_status alloc64(void *out, size_t bytes, const char *what) {
  void *p = NULL;
  HF_TRY(mem_alloc(round64(bytes), -1, what, &p));
  *(void **)out = p;
  return HF_OK;
}

int64_t moe_scratch_bytes(const moe_shape *s, int n_threads) {
  int64_t pairs = (int64_t)s->max_tok * s->top_k, slots = (int64_t)n_threads * s->max_tok;
  return (int64_t)s->max_tok * (int64_t)kern_act_bytes_any(s->d_model) +
         pairs * (4LL * s->d_ff + (int64_t)kern_act_bytes_any(s->d_ff) + 8) + slots * (2 * DOWN_ROWS * 4 + 16) +
         12LL * s->n_experts;
}

hf_status moe_new(const moe_shape *s, int n_threads, moe **out) {
  hf_status st = HF_OK;
  moe *m = NULL;
  HF_TRY(hf_alloc(&m, 1, sizeof *m, "expert scratch"));
  m->shape = *s;
  m->n_threads = n_threads;
  m->max_pairs = s->max_tok * s->top_k;
  m->xp_bytes = kern_act_bytes_any(s->d_model);
  m->hp_bytes = kern_act_bytes_any(s->d_ff);
  size_t per_thread = (size_t)n_threads * (size_t)s->max_tok;
  HF_GO(fail, hf_alloc(&m->active, (size_t)s->n_experts, sizeof *m->active, "expert scratch"));
  HF_GO(fail, hf_alloc(&m->first, (size_t)s->n_experts + 1, sizeof *m->first, "expert scratch"));
  HF_GO(fail, hf_alloc(&m->count, (size_t)s->n_experts, sizeof *m->count, "expert scratch"));
  HF_GO(fail, hf_alloc(&m->pair_tok, (size_t)m->max_pairs, sizeof *m->pair_tok, "expert scratch"));
  HF_GO(fail, hf_alloc(&m->pair_w, (size_t)m->max_pairs, sizeof *m->pair_w, "expert scratch"));
  HF_GO(fail, hf_alloc(&m->xptr, per_thread, sizeof *m->xptr, "expert scratch"));
  HF_GO(fail, hf_alloc(&m->yptr, per_thread, sizeof *m->yptr, "expert scratch"));
  HF_GO(fail, alloc64(&m->xp, (size_t)s->max_tok * m->xp_bytes, "expert inputs"));
  HF_GO(fail, alloc64(&m->h, (size_t)m->max_pairs * (size_t)s->d_ff * sizeof(float), "expert hidden activations"));
  HF_GO(fail, alloc64(&m->hp, (size_t)m->max_pairs * m->hp_bytes, "packed expert hidden activations"));
  HF_GO(fail, alloc64(&m->tmp, per_thread * 2 * DOWN_ROWS * sizeof(float), "expert row blocks"));
  *out = m;
  return HF_OK;
fail:
  moe_free(m);
  return st;
}

void moe_free(moe *m) {
  if (!m) return;
  const moe_shape *s = &m->shape;
  mem_free(m->xp, round64((size_t)s->max_tok * m->xp_bytes), -1);
  mem_free(m->h, round64((size_t)m->max_pairs * (size_t)s->d_ff * sizeof(float)), -1);
  mem_free(m->hp, round64((size_t)m->max_pairs * m->hp_bytes), -1);
  mem_free(m->tmp, round64((size_t)m->n_threads * (size_t)s->max_tok * 2 * DOWN_ROWS * sizeof(float)), -1);
  free(m->active);
  free(m->first);
  free(m->count);
  free(m->pair_tok);
  free(m->pair_w);
  free(m->xptr);
  free(m->yptr);
  free(m);
}

int moe_last_distinct(const moe *m) {
  return m->n_active;
}
int moe_last_pairs(const moe *m) {
  return m->n_pairs;
}
int moe_last_expert_tokens(const moe *m, int i) {
  return m->first[i + 1] - m->first[i];
}

/* Pairs of the experts that are here, sorted by expert, tokens ascending within one. */
static void sort_pairs(moe *m, const moe_job *job) {
  const moe_shape *s = &m->shape;
  memset(m->count, 0, (size_t)s->n_experts * sizeof *m->count);
  for (int i = 0; i < job->n_tok * s->top_k; i++) m->count[job->ids[i]]++;
  m->n_active = 0;
  m->n_pairs = 0;
  for (int e = 0; e < s->n_experts; e++) {
    int n = job->experts[e].gate.data ? m->count[e] : 0;
    m->count[e] = n ? m->n_pairs : -1; /* from here on: where the expert's next pair goes */
    if (!n) continue;
    m->active[m->n_active] = e;
    m->first[m->n_active++] = m->n_pairs;
    m->n_pairs += n;
  }
  m->first[m->n_active] = m->n_pairs;
  for (int t = 0; t < job->n_tok; t++) {
    for (int k = 0; k < s->top_k; k++) {
      int e = job->ids[t * s->top_k + k];
      if (m->count[e] < 0) continue;
      m->pair_tok[m->count[e]] = t;
      m->pair_w[m->count[e]++] = job->weights[t * s->top_k + k];
    }
  }
  atomic_store_explicit(&m->next_up, 0, memory_order_relaxed);
  atomic_store_explicit(&m->next_pack, 0, memory_order_relaxed);
  atomic_store_explicit(&m->next_down, 0, memory_order_relaxed);
}

/* The act type that gate and up of this layer want; the first expert that is here decides (one format per layer's gate/up). */
static kern_act layer_up_act(const moe *m, const moe_job *job) {
  for (int e = 0; e < m->shape.n_experts; e++)
    if (job->experts[e].gate.data) return kern_act_of(job->experts[e].gate.format, m->shape.exact);
  return KA_F32;
}

static int blocks(int n, int size) {
  return (n + size - 1) / size;
}

static const kern_mm_candidate *pick(const kern_mat *w, kern_act act, int n_tok) {
  return kern_mm_pick(w->format, act, w->layout, w->n_cols, n_tok, kern_preferred(KERN_USE_EXPERTS, w->format, n_tok));
}

static void up_block(moe *m, const moe_job *job, int item, int blocks_per_expert, int thread) {
  int i = item / blocks_per_expert, row0 = item % blocks_per_expert * UP_ROWS;
  const moe_expert *e = &job->experts[m->active[i]];
  int d_ff = m->shape.d_ff, n = m->first[i + 1] - m->first[i];
  int row1 = row0 + UP_ROWS < d_ff ? row0 + UP_ROWS : d_ff;
  const void **x = m->xptr + (size_t)thread * (size_t)m->shape.max_tok;
  float **y = m->yptr + (size_t)thread * (size_t)m->shape.max_tok;
  float *up = m->tmp + (size_t)thread * (size_t)m->shape.max_tok * 2 * DOWN_ROWS;
  for (int j = 0; j < n; j++) {
    x[j] = m->xp + (size_t)m->pair_tok[m->first[i] + j] * m->xp_bytes;
    y[j] = m->h + (size_t)(m->first[i] + j) * (size_t)d_ff;
  }
  pick(&e->gate, m->up_act, n)->fn(&e->gate, row0, row1, n, x, y);
  for (int j = 0; j < n; j++) y[j] = up + (ptrdiff_t)j * UP_ROWS - row0;
  pick(&e->up, m->up_act, n)->fn(&e->up, row0, row1, n, x, y);
  for (int j = 0; j < n; j++) {
    float *h = m->h + (size_t)(m->first[i] + j) * (size_t)d_ff + row0;
    kern_get()->swiglu(h, up + (ptrdiff_t)j * UP_ROWS, row1 - row0, h);
  }
}

static void down_block(moe *m, const moe_job *job, int row0, int thread) {
  int d_model = m->shape.d_model;
  int row1 = row0 + DOWN_ROWS < d_model ? row0 + DOWN_ROWS : d_model;
  const void **x = m->xptr + (size_t)thread * (size_t)m->shape.max_tok;
  float **y = m->yptr + (size_t)thread * (size_t)m->shape.max_tok;
  float *tmp = m->tmp + (size_t)thread * (size_t)m->shape.max_tok * 2 * DOWN_ROWS;
  if (!job->add)
    for (int t = 0; t < job->n_tok; t++)
      memset(job->y + (size_t)t * (size_t)job->y_stride + row0, 0, (size_t)(row1 - row0) * sizeof(float));
  for (int i = 0; i < m->n_active; i++) {
    const moe_expert *e = &job->experts[m->active[i]];
    int n = m->first[i + 1] - m->first[i];
    for (int j = 0; j < n; j++) {
      x[j] = m->hp + (size_t)(m->first[i] + j) * m->hp_bytes;
      y[j] = tmp + (ptrdiff_t)j * DOWN_ROWS - row0;
    }
    pick(&e->down, kern_act_of(e->down.format, m->shape.exact), n)->fn(&e->down, row0, row1, n, x, y);
    for (int j = 0; j < n; j++) {
      int p = m->first[i] + j;
      kern_get()->axpy(m->pair_w[p], tmp + (ptrdiff_t)j * DOWN_ROWS, row1 - row0,
                       job->y + (size_t)m->pair_tok[p] * (size_t)job->y_stride + row0);
    }
  }
}

static void pack_pair(moe *m, const moe_job *job, int p) {
  int i = 0, hi = m->n_active - 1;
  while (i < hi) { /* the active expert that owns pair p */
    int mid = (i + hi + 1) / 2;
    if (m->first[mid] <= p) i = mid;
    else hi = mid - 1;
  }
  kern_act act = kern_act_of(job->experts[m->active[i]].down.format, m->shape.exact);
  kern_get()->pack[act](m->h + (size_t)p * (size_t)m->shape.d_ff, m->shape.d_ff, m->hp + (size_t)p * m->hp_bytes);
}

static void wait_all(pool *p, int thread, int n_threads) {
  if (n_threads > 1) pool_barrier(p, thread);
}

void moe_run(moe *m, const moe_job *job, pool *p, int thread, int n_threads) {
  const moe_shape *s = &m->shape;
  if (thread == 0) {
    sort_pairs(m, job);
    m->up_act = layer_up_act(m, job);
  }
  kern_act act = layer_up_act(m, job);
  for (int t = thread; t < job->n_tok; t += n_threads)
    kern_get()->pack[act](job->x + (size_t)t * (size_t)job->x_stride, s->d_model, m->xp + (size_t)t * m->xp_bytes);
  wait_all(p, thread, n_threads);

  int per_expert = blocks(s->d_ff, UP_ROWS), item;
  while ((item = pool_claim(&m->next_up, m->n_active * per_expert, 1)) >= 0) up_block(m, job, item, per_expert, thread);
  wait_all(p, thread, n_threads);

  while ((item = pool_claim(&m->next_pack, m->n_pairs, 1)) >= 0) pack_pair(m, job, item);
  wait_all(p, thread, n_threads);

  while ((item = pool_claim(&m->next_down, blocks(s->d_model, DOWN_ROWS), 1)) >= 0) down_block(m, job, item * DOWN_ROWS, thread);
  wait_all(p, thread, n_threads);
}
