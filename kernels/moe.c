/* moe.c: see moe.h. The pair table is rebuilt for each call by a counting sort over experts: top_k is small, so the pairs of
 * one expert stay in token order and the active experts in ascending order, which is what makes sums deterministic. */
#include "kernels/moe.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Rows of a matrix that one claim takes are multiples of a block of packed activations, so that each claim packs its own hidden activations. */
enum { LEAST_ROWS = 32, SMALL_PER_THREAD = 1 };
/* Up to so many tokens every thread sorts and packs for itself, which is quicker than to wait for each other. */
enum { OWN_TOKENS = 8 };
/* What a product will read next is fetched this far ahead while the one before it runs. */
enum { HEAD_BYTES = 2048 };
enum { LINE_INTS = 64 / sizeof(int) };

/* The pairs (token, expert) of a run, sorted by expert, and the packed inputs. */
typedef struct {
  int n_active, n_pairs;
  int *active;   /* [n_experts] expert id */
  int *first;    /* [n_experts + 1] first pair of the i-th active expert */
  int *count;    /* [n_experts] */
  int *pair_tok; /* [pairs] */
  float *pair_w; /* [pairs] */
  char *xp;      /* [tokens][xp_bytes] */
  kern_act act;  /* of xp */
} batch;

struct moe {
  moe_shape shape;
  int n_threads;
  int max_pairs;
  batch all;  /* for any number of tokens, filled by all threads */
  batch *own; /* [n_threads] for up to OWN_TOKENS */
  const batch *last;
  size_t xp_bytes, hp_bytes;
  char *hp; /* [max_pairs][hp_bytes] packed hidden activations */
  /* per thread */
  size_t tmp_floats;
  float *tmp;        /* [n_threads][2][tmp_floats] rows of the tokens of one expert */
  const void **xptr; /* [n_threads][max_tok] */
  float **yptr;      /* [n_threads][max_tok] */
  unsigned *turn;    /* [n_threads][LINE_INTS] runs that a thread has begun */
  atomic_int *list
      [2]; /* counters of the list of claims: the next claim, on a line of its own, and, per active expert, its finished claims.
                          Runs take turns: one is at work while thread 0 clears the other */
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

/* Room for one packed vector. An odd number of lines: at a distance of a power of two the tokens of an expert would share few sets of the caches. */
static size_t vector_bytes(int n) {
  return (kern_act_bytes_any(n) / 64 | 1) * 64;
}

static int own_tokens(const moe_shape *s) {
  return s->max_tok < OWN_TOKENS ? s->max_tok : OWN_TOKENS;
}

static size_t tmp_floats(const moe_shape *s) {
  return (size_t)(s->max_tok > 64 ? s->max_tok : 64) * 64;
}

static int64_t batch_bytes(const moe_shape *s, int tokens) {
  return (int64_t)tokens * ((int64_t)vector_bytes(s->d_model) + 8LL * s->top_k) + 12LL * s->n_experts + 4;
}

static size_t list_bytes(const moe_shape *s) {
  return (LINE_INTS + (size_t)s->n_experts) * sizeof(atomic_int);
}

int64_t moe_scratch_bytes(const moe_shape *s, int n_threads) {
  int64_t pairs = (int64_t)s->max_tok * s->top_k;
  return batch_bytes(s, s->max_tok) + pairs * (int64_t)vector_bytes(s->d_ff) + 2 * (int64_t)list_bytes(s) +
         n_threads * (batch_bytes(s, own_tokens(s)) + 8 * (int64_t)tmp_floats(s) + 16LL * s->max_tok);
}

static hf_status batch_new(const moe_shape *s, int tokens, batch *b) {
  size_t n = (size_t)s->n_experts, pairs = (size_t)tokens * (size_t)s->top_k;
  HF_TRY(hf_alloc(&b->active, n, sizeof *b->active, "expert scratch"));
  HF_TRY(hf_alloc(&b->first, n + 1, sizeof *b->first, "expert scratch"));
  HF_TRY(hf_alloc(&b->count, n, sizeof *b->count, "expert scratch"));
  HF_TRY(hf_alloc(&b->pair_tok, pairs, sizeof *b->pair_tok, "expert scratch"));
  HF_TRY(hf_alloc(&b->pair_w, pairs, sizeof *b->pair_w, "expert scratch"));
  return alloc64(&b->xp, (size_t)tokens * vector_bytes(s->d_model), "expert inputs");
}

static void batch_free(const moe_shape *s, int tokens, batch *b) {
  mem_free(b->xp, round64((size_t)tokens * vector_bytes(s->d_model)), -1);
  free(b->active);
  free(b->first);
  free(b->count);
  free(b->pair_tok);
  free(b->pair_w);
}

hf_status moe_new(const moe_shape *s, int n_threads, moe **out) {
  hf_status st = HF_OK;
  moe *m = NULL;
  HF_TRY(hf_alloc(&m, 1, sizeof *m, "expert scratch"));
  m->shape = *s;
  m->n_threads = n_threads;
  m->max_pairs = s->max_tok * s->top_k;
  m->xp_bytes = vector_bytes(s->d_model);
  m->hp_bytes = vector_bytes(s->d_ff);
  m->tmp_floats = tmp_floats(s);
  m->last = &m->all;
  size_t per_thread = (size_t)n_threads * (size_t)s->max_tok;
  HF_GO(fail, hf_alloc(&m->own, (size_t)n_threads, sizeof *m->own, "expert scratch"));
  HF_GO(fail, batch_new(s, s->max_tok, &m->all));
  for (int i = 0; i < n_threads; i++) HF_GO(fail, batch_new(s, own_tokens(s), &m->own[i]));
  HF_GO(fail, hf_alloc(&m->xptr, per_thread, sizeof *m->xptr, "expert scratch"));
  HF_GO(fail, hf_alloc(&m->yptr, per_thread, sizeof *m->yptr, "expert scratch"));
  HF_GO(fail, hf_alloc(&m->turn, (size_t)n_threads * LINE_INTS, sizeof *m->turn, "expert scratch"));
  for (int i = 0; i < 2; i++) HF_GO(fail, alloc64(&m->list[i], list_bytes(s), "expert scratch"));
  HF_GO(fail, alloc64(&m->hp, (size_t)m->max_pairs * m->hp_bytes, "packed expert hidden activations"));
  HF_GO(fail, alloc64(&m->tmp, (size_t)n_threads * 2 * m->tmp_floats * sizeof(float), "expert row blocks"));
  *out = m;
  return HF_OK;
fail:
  moe_free(m);
  return st;
}

void moe_free(moe *m) {
  if (!m) return;
  const moe_shape *s = &m->shape;
  batch_free(s, s->max_tok, &m->all);
  for (int i = 0; m->own && i < m->n_threads; i++) batch_free(s, own_tokens(s), &m->own[i]);
  mem_free(m->hp, round64((size_t)m->max_pairs * m->hp_bytes), -1);
  mem_free(m->tmp, round64((size_t)m->n_threads * 2 * m->tmp_floats * sizeof(float)), -1);
  free(m->own);
  free(m->xptr);
  free(m->yptr);
  free(m->turn);
  for (int i = 0; i < 2; i++) mem_free(m->list[i], round64(list_bytes(s)), -1);
  free(m);
}

int moe_last_distinct(const moe *m) {
  return m->last->n_active;
}
int moe_last_pairs(const moe *m) {
  return m->last->n_pairs;
}
int moe_last_expert_tokens(const moe *m, int i) {
  return m->last->first[i + 1] - m->last->first[i];
}

/* Pairs of the experts that are here, sorted by expert, tokens ascending within one; the act type that gate and up want, which the first expert
 * that is here decides (one format per layer's gate/up). */
static void sort_pairs(const moe_shape *s, const moe_job *job, batch *b) {
  memset(b->count, 0, (size_t)s->n_experts * sizeof *b->count);
  for (int i = 0; i < job->n_tok * s->top_k; i++) b->count[job->ids[i]]++;
  b->n_active = 0;
  b->n_pairs = 0;
  for (int e = 0; e < s->n_experts; e++) {
    int n = job->experts[e].gate.data ? b->count[e] : 0;
    b->count[e] = n ? b->n_pairs : -1; /* from here on: where the expert's next pair goes */
    if (!n) continue;
    b->active[b->n_active] = e;
    b->first[b->n_active++] = b->n_pairs;
    b->n_pairs += n;
  }
  b->first[b->n_active] = b->n_pairs;
  for (int t = 0; t < job->n_tok; t++) {
    for (int k = 0; k < s->top_k; k++) {
      int e = job->ids[t * s->top_k + k];
      if (b->count[e] < 0) continue;
      b->pair_tok[b->count[e]] = t;
      b->pair_w[b->count[e]++] = job->weights[t * s->top_k + k];
    }
  }
}

static kern_act up_act(const moe_shape *s, const moe_job *job) {
  for (int e = 0; e < s->n_experts; e++)
    if (job->experts[e].gate.data) return kern_act_of(job->experts[e].gate.format, s->exact);
  return KA_F32;
}

static void pack_inputs(const moe *m, const moe_job *job, batch *b, kern_act act, int first, int step) {
  if (first == 0) b->act = act; /* of a batch that all threads share, one writes it */
  for (int t = first; t < job->n_tok; t += step)
    kern_get()->pack[act](job->x + (size_t)t * (size_t)job->x_stride, m->shape.d_model, b->xp + (size_t)t * m->xp_bytes);
}

static int blocks(int n, int size) {
  return (n + size - 1) / size;
}

/* How the rows of one matrix are cut into claims: n_large of `large` rows, then small ones. */
typedef struct {
  int n_rows, large, n_large, small;
} cut;

static int cut_claims(const cut *c) {
  return c->n_large + blocks(c->n_rows - c->n_large * c->large, c->small);
}

static void cut_range(const cut *c, int i, int *row0, int *n_rows) {
  *row0 = i < c->n_large ? i * c->large : c->n_large * c->large + (i - c->n_large) * c->small;
  *n_rows = i < c->n_large ? c->large : c->small;
}

static int whole(int rows) {
  return rows > LEAST_ROWS ? rows / LEAST_ROWS * LEAST_ROWS : LEAST_ROWS;
}

/* Rows for which the products of all tokens of an expert fit the scratch. */
static int rows_that_fit(const moe *m, const batch *b) {
  int most = 1;
  for (int i = 0; i < b->n_active; i++) most = b->first[i + 1] - b->first[i] > most ? b->first[i + 1] - b->first[i] : most;
  return whole((int)(m->tmp_floats / (size_t)most));
}

/* Of n_matrices with n_rows each: the largest claims with which the threads end within a sixteenth of each other, for memory has to warm up at the
 * start of each (measured: 200 KB at a time reach 0.86 of what long streams do, 800 KB 0.97). */
static cut cut_even(int n_rows, int n_matrices, int fits, int n_threads) {
  const int n_blocks = blocks(n_rows, LEAST_ROWS);
  int64_t best = INT64_MAX;
  int rows = LEAST_ROWS;
  for (int n = blocks(n_rows, fits); n <= n_blocks; n++) {
    const int each = blocks(n_blocks, n), claims = n_matrices * blocks(n_blocks, each);
    const int64_t ends = (int64_t)blocks(claims, n_threads) * each * n_threads, all = (int64_t)n_blocks * n_matrices;
    if (ends >= best) continue;
    best = ends;
    rows = each * LEAST_ROWS;
    if (ends <= all + all / 16) break;
  }
  return (cut){n_rows, rows, n_rows / rows, rows};
}

/* Of the last matrices, after which all wait for each other: large claims first, small ones for the rest. */
static cut cut_guided(int n_rows, int fits, int n_threads) {
  if (n_threads == 1) return cut_even(n_rows, 1, fits, 1);
  int large = whole(n_rows / 4 * 3 / n_threads);
  large = large < fits ? large : fits;
  const int n_large = n_rows / 4 * 3 / large / n_threads * n_threads, rest = n_rows - n_large * large;
  const int small = whole(rest / (SMALL_PER_THREAD * n_threads));
  return (cut){n_rows, large, n_large, small < fits ? small : fits};
}

static const kern_mm_candidate *pick(const kern_mat *w, kern_act act, int n_tok) {
  return kern_mm_pick(w->format, act, w->layout, w->n_cols, n_tok, kern_preferred(KERN_USE_EXPERTS, w->format, n_tok));
}

/* The first bytes of a stream, so that they are there when it begins. */
static void fetch_head(const kern_mat *w, int row) {
  const char *p = (const char *)w->data + (size_t)row * w->row_bytes;
  for (int i = 0; i < HEAD_BYTES; i += 64) __builtin_prefetch(p + i, 0, 2);
}

/* What a thread works with. */
typedef struct {
  moe *m;
  const moe_job *job;
  const batch *b;
  pool *p;
  atomic_int *up_done;
  int per_expert; /* claims of gate and up */
  const void **x;
  float **y, *tmp, *tmp2;
} worker;

static worker worker_of(moe *m, const moe_job *job, const batch *b, pool *p, atomic_int *up_done, int per_expert, int thread) {
  size_t slot = (size_t)thread * (size_t)m->shape.max_tok;
  float *tmp = m->tmp + (size_t)thread * 2 * m->tmp_floats;
  return (worker){m, job, b, p, up_done, per_expert, m->xptr + slot, m->yptr + slot, tmp, tmp + m->tmp_floats};
}

/* Rows [row0, row0 + n_rows) of the i-th active expert: gate, up, SwiGLU, and its part of the packed hidden activations. */
static void up_block(const worker *k, int i, int row0, int n_rows) {
  moe *m = k->m;
  const batch *b = k->b;
  const moe_expert *e = &k->job->experts[b->active[i]];
  int d_ff = m->shape.d_ff, n = b->first[i + 1] - b->first[i], row1 = row0 + n_rows < d_ff ? row0 + n_rows : d_ff;
  kern_act act = kern_act_of(e->down.format, m->shape.exact);
  fetch_head(&e->up, row0);
  for (int j = 0; j < n; j++) {
    k->x[j] = b->xp + (size_t)b->pair_tok[b->first[i] + j] * m->xp_bytes;
    k->y[j] = k->tmp + (ptrdiff_t)j * n_rows - row0;
  }
  pick(&e->gate, b->act, n)->fn(&e->gate, row0, row1, n, k->x, k->y);
  for (int j = 0; j < n; j++) k->y[j] = k->tmp2 + (ptrdiff_t)j * n_rows - row0;
  pick(&e->up, b->act, n)->fn(&e->up, row0, row1, n, k->x, k->y);
  for (int j = 0; j < n; j++) {
    float *h = k->tmp + (size_t)j * (size_t)n_rows, *u = k->tmp2 + (size_t)j * (size_t)n_rows;
    if (e->gate_bias) kern_get()->axpy(1.0f, e->gate_bias + row0, row1 - row0, h);
    if (e->up_bias) kern_get()->axpy(1.0f, e->up_bias + row0, row1 - row0, u);
    if (m->shape.swiglu_limit > 0) kern_get()->swiglu_clamped(h, u, m->shape.swiglu_limit, row1 - row0, h);
    else kern_get()->swiglu(h, u, row1 - row0, h);
    kern_pack_part(act, h, row0, row1, d_ff, m->hp + (size_t)(b->first[i] + j) * m->hp_bytes);
  }
}

static void down_block(const worker *k, int row0, int n_rows) {
  moe *m = k->m;
  const moe_job *job = k->job;
  const batch *b = k->b;
  int d_model = m->shape.d_model, row1 = row0 + n_rows < d_model ? row0 + n_rows : d_model;
  if (!job->add)
    for (int t = 0; t < job->n_tok; t++)
      memset(job->y + (size_t)t * (size_t)job->y_stride + row0, 0, (size_t)(row1 - row0) * sizeof(float));
  for (int i = 0; i < b->n_active; i++) {
    const moe_expert *e = &job->experts[b->active[i]];
    int n = b->first[i + 1] - b->first[i];
    if (i + 1 < b->n_active) fetch_head(&job->experts[b->active[i + 1]].down, row0);
    pool_wait(k->p, &k->up_done[i], k->per_expert);
    for (int j = 0; j < n; j++) {
      k->x[j] = m->hp + (size_t)(b->first[i] + j) * m->hp_bytes;
      k->y[j] = k->tmp + (ptrdiff_t)j * n_rows - row0;
    }
    pick(&e->down, kern_act_of(e->down.format, m->shape.exact), n)->fn(&e->down, row0, row1, n, k->x, k->y);
    for (int j = 0; j < n; j++) {
      int p = b->first[i] + j;
      float *d = k->tmp + (ptrdiff_t)j * n_rows;
      if (e->down_bias) kern_get()->axpy(1.0f, e->down_bias + row0, row1 - row0, d);
      kern_get()->axpy(b->pair_w[p], d, row1 - row0, job->y + (size_t)b->pair_tok[p] * (size_t)job->y_stride + row0);
    }
  }
}

static void wait_all(pool *p, int thread, int n_threads) {
  if (n_threads > 1) pool_barrier(p, thread);
}

/* The claims of this run, the same for all its threads; the other ones, which every thread has left since the last barrier, are cleared. */
static atomic_int *claims_of(moe *m, int thread) {
  const unsigned turn = m->turn[thread * LINE_INTS]++;
  for (int i = 0; thread == 0 && i < LINE_INTS + m->shape.n_experts; i++)
    atomic_store_explicit(&m->list[(turn + 1) % 2][i], 0, memory_order_relaxed);
  return m->list[turn % 2];
}

void moe_run(moe *m, const moe_job *job, pool *p, int thread, int n_threads) {
  const moe_shape *s = &m->shape;
  const bool alone = job->n_tok <= OWN_TOKENS;
  batch *b = alone ? &m->own[thread] : &m->all;
  atomic_int *next = claims_of(m, thread), *up_done = next + LINE_INTS;
  if (alone || thread == 0) sort_pairs(s, job, b);
  pack_inputs(m, job, b, up_act(s, job), alone ? 0 : thread, alone ? 1 : n_threads);
  if (thread == 0) m->last = b;
  if (!alone) wait_all(p, thread, n_threads);

  const int fits = rows_that_fit(m, b);
  const cut up = cut_even(s->d_ff, b->n_active, fits, n_threads), down = cut_guided(s->d_model, fits, n_threads);
  const int per_expert = cut_claims(&up), n_up = b->n_active * per_expert;
  worker k = worker_of(m, job, b, p, up_done, per_expert, thread);
  for (int item, row0, n_rows; (item = pool_claim(next, n_up + cut_claims(&down), 1)) >= 0;) {
    if (item < n_up) {
      cut_range(&up, item % per_expert, &row0, &n_rows);
      up_block(&k, item / per_expert, row0, n_rows);
      atomic_fetch_add_explicit(&up_done[item / per_expert], 1, memory_order_release);
    } else {
      cut_range(&down, item - n_up, &row0, &n_rows);
      down_block(&k, row0, n_rows);
    }
  }
  wait_all(p, thread, n_threads);
}
