/* moe.c: see moe.h. The pair table is rebuilt for each call by a counting sort over experts: top_k is small, so the pairs of
 * one expert stay in token order and the active experts in ascending order, which is what makes sums deterministic. */
#include "kernels/moe.h"

#include <limits.h>
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

/* The pairs (token, expert) of a run whose experts are in one part, sorted by expert. */
typedef struct {
  int n_active, n_pairs;
  int *active;   /* [n_experts] expert id */
  int *first;    /* [n_experts + 1] first pair of the i-th active expert */
  int *count;    /* [n_experts] */
  int *pair_tok; /* [pairs] */
  float *pair_w; /* [pairs] */
} batch;

/* Packed activations, of use to all parts. */
typedef struct {
  char *xp; /* [tokens][xp_bytes] */
  kern_act act;
} inputs;

typedef struct {
  int node, d_ff;
  int workers_of; /* whose threads compute it: its own, or those of another part where it has none */
  int n_threads;  /* of them; the first is */
  int leader;
  batch all; /* for any number of tokens */
  const batch *last;
  size_t hp_bytes;
  char *hp;   /* [max_pairs][hp_bytes] packed hidden activations */
  float *sum; /* [max_tok][d_model] what this part adds; NULL: the first part, which adds to y itself */
  atomic_int *list
      [2]; /* counters of the list of claims: the next claim, on a line of its own, and, per active expert, its finished claims.
                          Runs take turns: one is at work while the leader clears the other */
} part;

/* Of a thread, on its node. */
typedef struct {
  _Alignas(64) int part; /* whose worker it is */
  unsigned turn;         /* runs begun */
  inputs own;            /* of up to OWN_TOKENS */
  batch *batch;          /* [n_parts] of up to OWN_TOKENS, of the parts that it computes */
  float *tmp;            /* [2][tmp_floats] rows of the tokens of one expert */
  const void **xptr;     /* [max_tok] */
  float **yptr;          /* [max_tok] */
} scratch;

struct moe {
  moe_shape shape;
  int n_threads, n_parts;
  int max_pairs;
  size_t xp_bytes, tmp_floats;
  inputs all; /* of any number of tokens, packed by all threads */
  part *part; /* [n_parts] */
  scratch *scratch;
  atomic_int *ended[2]; /* several parts: per LEAST_ROWS rows of d_model, parts that are there; in turns like list */
};

static size_t round64(size_t n) {
  return (n + 63) & ~(size_t)63;
}

static hf_status alloc64(void *out, size_t bytes, int node, const char *what) {
  void *p = NULL;
  HF_TRY(mem_alloc(round64(bytes), node, what, &p));
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

static int blocks(int n, int size) {
  return (n + size - 1) / size;
}

static size_t ended_bytes(const moe_shape *s) {
  return (size_t)blocks(s->d_model, LEAST_ROWS) * sizeof(atomic_int);
}

static size_t list_bytes(const moe_shape *s) {
  return (LINE_INTS + (size_t)s->n_experts) * sizeof(atomic_int);
}

static size_t sum_bytes(const moe_shape *s) {
  return (size_t)s->max_tok * (size_t)s->d_model * sizeof(float);
}

static int64_t batch_bytes(const moe_shape *s, int tokens) {
  return (int64_t)tokens * 8LL * s->top_k + 12LL * s->n_experts + 4;
}

/* A thread computes one part, or several where there are fewer threads than parts. */
int64_t moe_scratch_bytes(const moe_shape *s, const moe_parts *parts, int n_threads) {
  const int n_parts = parts ? parts->n : 1, own = own_tokens(s), lists = n_threads + n_parts - 1;
  const int64_t pairs = (int64_t)s->max_tok * s->top_k, xp = (int64_t)vector_bytes(s->d_model);
  int64_t sum = s->max_tok * xp + n_threads * (own * xp + 8 * (int64_t)tmp_floats(s) + 16LL * s->max_tok) +
                lists * batch_bytes(s, own) + n_parts * (batch_bytes(s, s->max_tok) + 2 * (int64_t)list_bytes(s));
  for (int i = 0; i < n_parts; i++) sum += pairs * (int64_t)vector_bytes(parts ? parts->d_ff[i] : s->d_ff);
  return sum + (n_parts > 1 ? (n_parts - 1) * (int64_t)sum_bytes(s) + 2 * (int64_t)ended_bytes(s) : 0);
}

static hf_status batch_new(const moe_shape *s, int tokens, batch *b) {
  size_t n = (size_t)s->n_experts, pairs = (size_t)tokens * (size_t)s->top_k;
  HF_TRY(hf_alloc(&b->active, n, sizeof *b->active, "expert scratch"));
  HF_TRY(hf_alloc(&b->first, n + 1, sizeof *b->first, "expert scratch"));
  HF_TRY(hf_alloc(&b->count, n, sizeof *b->count, "expert scratch"));
  HF_TRY(hf_alloc(&b->pair_tok, pairs, sizeof *b->pair_tok, "expert scratch"));
  return hf_alloc(&b->pair_w, pairs, sizeof *b->pair_w, "expert scratch");
}

static void batch_free(batch *b) {
  free(b->active);
  free(b->first);
  free(b->count);
  free(b->pair_tok);
  free(b->pair_w);
}

static hf_status part_new(moe *m, part *t, bool first) {
  const moe_shape *s = &m->shape;
  t->hp_bytes = vector_bytes(t->d_ff);
  t->last = &t->all;
  HF_TRY(batch_new(s, s->max_tok, &t->all));
  for (int i = 0; i < 2; i++) HF_TRY(alloc64(&t->list[i], list_bytes(s), t->node, "expert scratch"));
  if (!first) HF_TRY(alloc64(&t->sum, sum_bytes(s), t->node, "sums of a node's experts"));
  return alloc64(&t->hp, (size_t)m->max_pairs * t->hp_bytes, t->node, "packed expert hidden activations");
}

static void part_free(moe *m, part *t) {
  const moe_shape *s = &m->shape;
  batch_free(&t->all);
  for (int i = 0; i < 2; i++) mem_free(t->list[i], round64(list_bytes(s)), t->node);
  mem_free(t->sum, round64(sum_bytes(s)), t->node);
  mem_free(t->hp, round64((size_t)m->max_pairs * t->hp_bytes), t->node);
}

static hf_status scratch_new(moe *m, scratch *w) {
  const moe_shape *s = &m->shape;
  const int node = m->part[w->part].node;
  HF_TRY(hf_alloc(&w->batch, (size_t)m->n_parts, sizeof *w->batch, "expert scratch"));
  for (int i = 0; i < m->n_parts; i++)
    if (m->part[i].workers_of == w->part) HF_TRY(batch_new(s, own_tokens(s), &w->batch[i]));
  HF_TRY(hf_alloc(&w->xptr, (size_t)s->max_tok, sizeof *w->xptr, "expert scratch"));
  HF_TRY(hf_alloc(&w->yptr, (size_t)s->max_tok, sizeof *w->yptr, "expert scratch"));
  HF_TRY(alloc64(&w->own.xp, (size_t)own_tokens(s) * m->xp_bytes, node, "expert inputs"));
  return alloc64(&w->tmp, 2 * m->tmp_floats * sizeof(float), node, "expert row blocks");
}

static void scratch_free(moe *m, scratch *w) {
  const int node = m->part[w->part].node;
  for (int i = 0; w->batch && i < m->n_parts; i++) batch_free(&w->batch[i]);
  mem_free(w->own.xp, round64((size_t)own_tokens(&m->shape) * m->xp_bytes), node);
  mem_free(w->tmp, round64(2 * m->tmp_floats * sizeof(float)), node);
  free(w->batch);
  free(w->xptr);
  free(w->yptr);
}

/* Threads to parts by their nodes; a part without workers is given to those of the next part that has some. */
static void share_threads(moe *m, const pool *p) {
  for (int i = 0; i < m->n_threads; i++) {
    int home = 0;
    for (int k = 0; k < m->n_parts; k++)
      if (p && pool_node_of(p, i) == m->part[k].node) home = k;
    m->scratch[i].part = home;
    if (m->part[home].n_threads++ == 0) m->part[home].leader = i;
  }
  for (int k = 0; k < m->n_parts; k++) {
    int of = k;
    while (m->part[of].n_threads == 0) of = (of + 1) % m->n_parts;
    m->part[k].workers_of = of;
  }
  for (int k = 0; k < m->n_parts; k++) {
    m->part[k].n_threads = m->part[m->part[k].workers_of].n_threads;
    m->part[k].leader = m->part[m->part[k].workers_of].leader;
  }
}

static hf_status new_moe(const moe_shape *s, const moe_parts *parts, int n_threads, const pool *p, moe **out) {
  hf_status st = HF_OK;
  moe *m = NULL;
  HF_TRY(hf_alloc(&m, 1, sizeof *m, "expert scratch"));
  m->shape = *s;
  m->n_threads = n_threads;
  m->n_parts = parts->n;
  m->max_pairs = s->max_tok * s->top_k;
  m->xp_bytes = vector_bytes(s->d_model);
  m->tmp_floats = tmp_floats(s);
  HF_GO(fail, hf_alloc(&m->part, (size_t)m->n_parts, sizeof *m->part, "expert scratch"));
  HF_GO(fail, alloc64(&m->scratch, (size_t)n_threads * sizeof *m->scratch, -1, "expert scratch"));
  for (int i = 0; i < m->n_parts; i++) {
    m->part[i].node = parts->node[i];
    m->part[i].d_ff = parts->d_ff[i];
  }
  share_threads(m, p);
  for (int i = 0; i < m->n_parts; i++) HF_GO(fail, part_new(m, &m->part[i], i == 0));
  for (int i = 0; i < n_threads; i++) HF_GO(fail, scratch_new(m, &m->scratch[i]));
  HF_GO(fail, alloc64(&m->all.xp, (size_t)s->max_tok * m->xp_bytes, -1, "expert inputs"));
  for (int i = 0; m->n_parts > 1 && i < 2; i++) HF_GO(fail, alloc64(&m->ended[i], ended_bytes(s), -1, "expert scratch"));
  *out = m;
  return HF_OK;
fail:
  moe_free(m);
  return st;
}

hf_status moe_new(const moe_shape *s, int n_threads, moe **out) {
  return new_moe(s, &(moe_parts){.n = 1, .node = {-1}, .d_ff = {s->d_ff}}, n_threads, NULL, out);
}

hf_status moe_new_parts(const moe_shape *s, const moe_parts *parts, const pool *p, moe **out) {
  return new_moe(s, parts, pool_threads(p), p, out);
}

void moe_free(moe *m) {
  if (!m) return;
  const moe_shape *s = &m->shape;
  for (int i = 0; m->scratch && i < m->n_threads; i++) scratch_free(m, &m->scratch[i]);
  for (int i = 0; m->part && i < m->n_parts; i++) part_free(m, &m->part[i]);
  for (int i = 0; i < 2; i++) mem_free(m->ended[i], round64(ended_bytes(s)), -1);
  mem_free(m->all.xp, round64((size_t)s->max_tok * m->xp_bytes), -1);
  mem_free(m->scratch, round64((size_t)m->n_threads * sizeof *m->scratch), -1);
  free(m->part);
  free(m);
}

/* The next distinct expert of all parts in ascending order, from where `at` points in each. */
static bool next_distinct(const moe *m, int at[TOPO_MAX_NODES], int *tokens) {
  int id = INT_MAX;
  for (int t = 0; t < m->n_parts; t++) {
    const batch *b = m->part[t].last;
    if (at[t] < b->n_active && b->active[at[t]] < id) id = b->active[at[t]];
  }
  for (int t = 0; t < m->n_parts; t++) {
    const batch *b = m->part[t].last;
    if (at[t] == b->n_active || b->active[at[t]] != id) continue;
    *tokens = b->first[at[t] + 1] - b->first[at[t]];
    at[t]++;
  }
  return id < INT_MAX;
}

int moe_last_distinct(const moe *m) {
  int at[TOPO_MAX_NODES] = {0}, n = 0, tokens;
  if (m->n_parts == 1) return m->part[0].last->n_active;
  while (next_distinct(m, at, &tokens)) n++;
  return n;
}

int moe_last_pairs(const moe *m) {
  int at[TOPO_MAX_NODES] = {0}, n = 0, tokens;
  while (next_distinct(m, at, &tokens)) n += tokens;
  return n;
}

int moe_last_expert_tokens(const moe *m, int i) {
  int at[TOPO_MAX_NODES] = {0}, tokens = 0;
  for (int k = 0; k <= i; k++)
    if (!next_distinct(m, at, &tokens)) return 0;
  return tokens;
}

/* Pairs of the experts that are here, sorted by expert, tokens ascending within one; the act type that gate and up want, which the first expert
 * that is here decides (one format per layer's gate/up). */
static void sort_pairs(const moe_shape *s, const moe_expert *experts, const moe_job *job, batch *b) {
  memset(b->count, 0, (size_t)s->n_experts * sizeof *b->count);
  for (int i = 0; i < job->n_tok * s->top_k; i++) b->count[job->ids[i]]++;
  b->n_active = 0;
  b->n_pairs = 0;
  for (int e = 0; e < s->n_experts; e++) {
    int n = experts[e].gate.data ? b->count[e] : 0;
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

static kern_act up_act(const moe *m, const moe_job *job) {
  for (int e = 0; e < m->n_parts * m->shape.n_experts; e++)
    if (job->experts[e].gate.data) return kern_act_of(job->experts[e].gate.format, m->shape.exact);
  return KA_F32;
}

static void pack_inputs(const moe *m, const moe_job *job, inputs *in, kern_act act, int first, int step) {
  if (first == 0) in->act = act; /* of inputs that all threads share, one writes it */
  for (int t = first; t < job->n_tok; t += step)
    kern_get()->pack[act](job->x + (size_t)t * (size_t)job->x_stride, m->shape.d_model, in->xp + (size_t)t * m->xp_bytes);
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
  const moe_expert *experts; /* of the part */
  const part *t;
  const batch *b;
  const inputs *in;
  pool *p;
  atomic_int *up_done, *ended;
  int per_expert; /* claims of gate and up */
  const void **x;
  float **y, *tmp, *tmp2;
  void (*breathe)(void *user); /* moe_job's, on thread 0 */
} worker;

/* Rows [row0, row0 + n_rows) of the i-th active expert, as far as it has them: gate, up, SwiGLU, and its part of the packed hidden activations. */
static void up_block(const worker *k, int i, int row0, int n_rows) {
  moe *m = k->m;
  const batch *b = k->b;
  const moe_expert *e = &k->experts[b->active[i]];
  int d_ff = e->gate.n_rows, n = b->first[i + 1] - b->first[i], row1 = row0 + n_rows < d_ff ? row0 + n_rows : d_ff;
  kern_act act = kern_act_of(e->down.format, m->shape.exact);
  if (row0 >= d_ff) return;
  fetch_head(&e->up, row0);
  for (int j = 0; j < n; j++) {
    k->x[j] = k->in->xp + (size_t)b->pair_tok[b->first[i] + j] * m->xp_bytes;
    k->y[j] = k->tmp + (ptrdiff_t)j * n_rows - row0;
  }
  pick(&e->gate, k->in->act, n)->fn(&e->gate, row0, row1, n, k->x, k->y);
  for (int j = 0; j < n; j++) k->y[j] = k->tmp2 + (ptrdiff_t)j * n_rows - row0;
  pick(&e->up, k->in->act, n)->fn(&e->up, row0, row1, n, k->x, k->y);
  for (int j = 0; j < n; j++) {
    float *h = k->tmp + (size_t)j * (size_t)n_rows, *u = k->tmp2 + (size_t)j * (size_t)n_rows;
    if (e->gate_bias) kern_get()->axpy(1.0f, e->gate_bias + row0, row1 - row0, h);
    if (e->up_bias) kern_get()->axpy(1.0f, e->up_bias + row0, row1 - row0, u);
    if (m->shape.swiglu_limit > 0) kern_get()->swiglu_clamped(h, u, m->shape.swiglu_limit, row1 - row0, h);
    else kern_get()->swiglu(h, u, row1 - row0, h);
    kern_pack_part(act, h, row0, row1, d_ff, k->t->hp + (size_t)(b->first[i] + j) * k->t->hp_bytes);
  }
}

/* Whoever ends the last part of some rows adds all parts up: in their order, whoever that is. */
static void add_parts(const worker *k, int row0, int row1) {
  const moe *m = k->m;
  const moe_job *job = k->job;
  for (int r = row0; r < row1; r += LEAST_ROWS) {
    const int n = r + LEAST_ROWS < row1 ? LEAST_ROWS : row1 - r;
    if (atomic_fetch_add_explicit(&k->ended[r / LEAST_ROWS], 1, memory_order_acq_rel) + 1 < m->n_parts) continue;
    for (int t = 0; t < job->n_tok; t++)
      for (int i = 1; i < m->n_parts; i++)
        kern_get()->axpy(1.0f, m->part[i].sum + (size_t)t * (size_t)m->shape.d_model + r, n,
                         job->y + (size_t)t * (size_t)job->y_stride + r);
  }
}

static void down_block(const worker *k, int row0, int n_rows) {
  moe *m = k->m;
  const moe_job *job = k->job;
  const batch *b = k->b;
  const part *t = k->t;
  int d_model = m->shape.d_model, row1 = row0 + n_rows < d_model ? row0 + n_rows : d_model;
  float *y = t->sum ? t->sum : job->y;
  const size_t stride = (size_t)(t->sum ? d_model : job->y_stride);
  if (t->sum || !job->add)
    for (int i = 0; i < job->n_tok; i++) memset(y + (size_t)i * stride + row0, 0, (size_t)(row1 - row0) * sizeof(float));
  for (int i = 0; i < b->n_active; i++) {
    const moe_expert *e = &k->experts[b->active[i]];
    int n = b->first[i + 1] - b->first[i];
    if (i + 1 < b->n_active) fetch_head(&k->experts[b->active[i + 1]].down, row0);
    pool_wait(k->p, &k->up_done[i], k->per_expert);
    for (int j = 0; j < n; j++) {
      k->x[j] = t->hp + (size_t)(b->first[i] + j) * t->hp_bytes;
      k->y[j] = k->tmp + (ptrdiff_t)j * n_rows - row0;
    }
    pick(&e->down, kern_act_of(e->down.format, m->shape.exact), n)->fn(&e->down, row0, row1, n, k->x, k->y);
    for (int j = 0; j < n; j++) {
      int p = b->first[i] + j;
      float *d = k->tmp + (ptrdiff_t)j * n_rows;
      if (e->down_bias) kern_get()->axpy(1.0f, e->down_bias + row0, row1 - row0, d);
      kern_get()->axpy(b->pair_w[p], d, row1 - row0, y + (size_t)b->pair_tok[p] * stride + row0);
    }
  }
  if (m->n_parts > 1) add_parts(k, row0, row1);
}

static void wait_all(pool *p, int thread, int n_threads) {
  if (n_threads > 1) pool_barrier(p, thread);
}

/* Counters of the run before, which every thread has left since the last barrier, for the run after this one. */
static void clear(atomic_int *counters, int n) {
  for (int i = 0; i < n; i++) atomic_store_explicit(&counters[i], 0, memory_order_relaxed);
}

/* This thread's share of the i-th part. */
static void run_part(const scratch *w, worker *k, int i, unsigned turn) {
  const part *t = k->t = &k->m->part[i];
  const moe_shape *s = &k->m->shape;
  const batch *b = k->b;
  atomic_int *next = t->list[turn];
  const int fits = rows_that_fit(k->m, b);
  const cut up = cut_even(t->d_ff, b->n_active, fits, t->n_threads), down = cut_guided(s->d_model, fits, t->n_threads);
  const int n_up = b->n_active * cut_claims(&up);
  k->experts = k->job->experts + (size_t)i * (size_t)s->n_experts;
  k->up_done = next + LINE_INTS;
  k->per_expert = cut_claims(&up);
  k->x = w->xptr;
  k->y = w->yptr;
  k->tmp = w->tmp;
  k->tmp2 = w->tmp + k->m->tmp_floats;
  for (int item, row0, n_rows; (item = pool_claim(next, n_up + cut_claims(&down), 1)) >= 0;) {
    if (item < n_up) {
      cut_range(&up, item % k->per_expert, &row0, &n_rows);
      up_block(k, item / k->per_expert, row0, n_rows);
      atomic_fetch_add_explicit(&k->up_done[item / k->per_expert], 1, memory_order_release);
    } else {
      cut_range(&down, item - n_up, &row0, &n_rows);
      down_block(k, row0, n_rows);
    }
    if (k->breathe) k->breathe(k->job->user);
  }
}

/* Sorts what this thread is to sort, for itself or, as the part's leader, for all its workers. */
static void sort_parts(moe *m, const moe_job *job, const scratch *w, bool alone, unsigned turn, int thread) {
  const moe_shape *s = &m->shape;
  for (int i = 0; i < m->n_parts; i++) {
    part *t = &m->part[i];
    if (t->workers_of != w->part) continue;
    batch *b = alone ? &w->batch[i] : &t->all;
    if (alone || thread == t->leader) sort_pairs(s, job->experts + (size_t)i * (size_t)s->n_experts, job, b);
    if (thread != t->leader) continue;
    t->last = b;
    clear(t->list[1 - turn], LINE_INTS + s->n_experts);
  }
  if (thread == 0 && m->n_parts > 1) clear(m->ended[1 - turn], blocks(s->d_model, LEAST_ROWS));
}

void moe_run(moe *m, const moe_job *job, pool *p, int thread, int n_threads) {
  const bool alone = job->n_tok <= OWN_TOKENS;
  scratch *w = &m->scratch[thread];
  inputs *in = alone ? &w->own : &m->all;
  const unsigned turn = w->turn++ % 2;
  sort_parts(m, job, w, alone, turn, thread);
  if (!job->same_x) pack_inputs(m, job, in, up_act(m, job), alone ? 0 : thread, alone ? 1 : n_threads);
  if (!alone) wait_all(p, thread, n_threads);
  for (int i = 0; i < m->n_parts; i++) {
    if (m->part[i].workers_of != w->part) continue;
    worker k = {.m = m, .job = job, .b = alone ? &w->batch[i] : &m->part[i].all, .in = in, .p = p, .ended = m->ended[turn]};
    if (thread == 0) k.breathe = job->breathe;
    run_part(w, &k, i, turn);
  }
  wait_all(p, thread, n_threads);
}
