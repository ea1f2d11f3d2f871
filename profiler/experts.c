/* experts.c: routed experts as the executor computes them: kernels/moe.h, every worker, one barrier between the phases.
 *
 * ACTIVE different experts with M tokens each run in one call; a ring of experts larger than the last-level cache makes sure
 * that their weights come from memory (or a small ring, that they come from cache: small models). The time of a call without
 * any active expert is the fixed cost of a layer, which is stored apart (layer_fixed_ns): it is taken off, and the rest
 * divided by the number of active experts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "kernels/moe.h"
#include "profiler/experts.h"
#include "profiler/nodes.h"
#include "profiler/profile.h"
#include "profiler/rings.h"

/* Beyond FEW_TOKENS an expert is bound by arithmetic: two active ones tell as much as eight and take a quarter of the time. */
enum { MOST_TOKENS = 512, FEW_TOKENS = 64, MOST_ACTIVE = 8, FEW_ACTIVE = 2, MOST_CANDIDATES = 16 };
/* Above DECODE_TOKENS an expert has a prompt's: then each token chooses APART of the active experts only, and there are as many more tokens, whose
 * rows no longer fit the caches nearest to a core. */
enum { DECODE_TOKENS = 8, APART = 2 };

/* Token counts of a run. Products take four or eight tokens at a time: one more than that starts another pass, and lines between the points
 * must know of it. Prompts give an expert any number of tokens: 17 and 20 say what a pass costs that has one or four. */
typedef struct {
  int n, at[12];
} token_counts;
static const token_counts full_counts = {11, {1, 2, 4, 5, 8, 9, 16, 17, 20, 32, 64}}, many_counts = {3, {128, 256, 512}},
                          quick_counts = {9, {1, 4, 5, 8, 9, 16, 17, 20, 64}}, coarse_counts = {4, {1, 4, 16, 64}},
                          library_counts = {4, {16, 64, 256, 512}}, library_quick = {2, {16, 64}}, two_counts = {2, {1, 16}};

typedef struct {
  pool *p;
  moe *m, *apart; /* of tokens that choose all active experts, and APART of them */
  moe_job job;
  int top_k;
  moe_expert *experts; /* ring: [parts.n][n_experts] */
  moe_expert *none;    /* as many, all elsewhere */
  moe_parts parts;
  const char *load;
  double empty_ns; /* a run without active experts, the least seen */
  int n_experts, active, next;
  int32_t *ids; /* [n_tok][top_k] */
  int order[PROF_MOST_EXPERTS];
} bench;

static void run_job(void *arg, int thread, int n_threads) {
  bench *b = arg;
  moe_run(b->top_k < b->active ? b->apart : b->m, &b->job, b->p, thread, n_threads);
}

/* The next `active` experts of the ring in a scattered order, top_k of them for each token in turn, ids ascending. A router jumps from
 * expert to expert too, and what was read one after another is prefetched too well; each comes once a round, so that none is
 * still in cache when it comes again. */
static void choose(bench *b) {
  int32_t chosen[MOST_ACTIVE];
  for (int k = 0; k < b->active; k++) {
    int32_t id = b->order[(b->next + k) % b->n_experts];
    int at = k;
    for (; at > 0 && chosen[at - 1] > id; at--) chosen[at] = chosen[at - 1];
    chosen[at] = id;
  }
  b->next = (b->next + b->active) % b->n_experts;
  for (int i = 0; i < b->job.n_tok * b->top_k; i++) b->ids[i] = chosen[i % b->active];
}

static void scatter(bench *b) {
  uint64_t z = 88172645463325252u;
  for (int e = 0; e < b->n_experts; e++) b->order[e] = e;
  for (int e = b->n_experts - 1; e > 0; e--) {
    z ^= z << 13;
    z ^= z >> 7;
    z ^= z << 17;
    int with = (int)(z % (uint64_t)(e + 1)), held = b->order[e];
    b->order[e] = b->order[with];
    b->order[with] = held;
  }
}

static double sample(void *user) {
  bench *b = user;
  choose(b);
  int64_t t0 = hf_now_ns();
  pool_run(b->p, run_job, b);
  return (double)(hf_now_ns() - t0);
}

/* A layer none of whose experts is here: waking, sorting, packing, barriers. */
static double sample_empty(void *user) {
  bench *b = user;
  const moe_expert *experts = b->job.experts;
  choose(b);
  b->job.experts = b->none;
  int64_t t0 = hf_now_ns();
  pool_run(b->p, run_job, b);
  double ns = (double)(hf_now_ns() - t0);
  b->job.experts = experts;
  return ns;
}

static kern_mat matrix(kern_format f, int rows, int cols, char **at) {
  kern_mat m = {f, KL_ROWS, rows, cols, kern_row_bytes(f, cols), *at};
  *at += ring_matrix_bytes(f, rows, cols);
  return m;
}

static hf_status add_point(profile *p, const bench *b, const prof_shape *s, kern_format f, int tokens, const stats *ns,
                           int64_t bytes) {
  rec_kernel_point k = {.n_out = s->rows, .n_in = s->cols, .tokens = tokens, .threads = pool_threads(b->p), .bytes = bytes};
  kern_act act = kern_act_of(f, false);
  snprintf(k.kernel, sizeof k.kernel, "expert_ffn");
  snprintf(k.candidate, sizeof k.candidate, "%s",
           kern_mm_pick(f, act, kern_best_layout(f, act, s->cols), s->cols, tokens, kern_preferred(KERN_USE_EXPERTS, f, tokens))
               ->name);
  snprintf(k.load, sizeof k.load, "%s", b->load);
  snprintf(k.format, sizeof k.format, "%s", kern_format_name(f));
  snprintf(k.act, sizeof k.act, "%s", kern_act_name(act));
  return prof_add_point(p, &k, ns);
}

static int choices(int tokens, int active) {
  return tokens > DECODE_TOKENS && active % APART == 0 ? APART : active;
}

/* One active expert with so many tokens. */
static stats time_tokens(profile *p, bench *b, int tokens) {
  b->top_k = choices(tokens, b->active);
  b->job.n_tok = tokens * b->active / b->top_k;
  stats t = prof_time(p, sample, b);
  /* the fixed part is never more than nine tenths of what was measured; its least value, so that a bad moment hides no work */
  return stats_share(&t, b->empty_ns, b->active, 0.1);
}

static stats again(profile *p, void *user, const rec_kernel_point *k) {
  return time_tokens(p, user, k->tokens);
}

static hf_status measure(profile *p, bench *b, const prof_shape *s, kern_format f, int64_t expert_bytes,
                         const token_counts *counts) {
  int from = p->n_point;
  b->job.n_tok = 1;
  b->top_k = b->active;
  b->empty_ns = prof_time(p, sample_empty, b).least;
  for (int i = 0; i < counts->n; i++) {
    int tokens = counts->at[i];
    if (prof_over_budget(p) && p->o.quick && (tokens > 16 || tokens == 8 || tokens == 9)) continue;
    stats each = time_tokens(p, b, tokens);
    HF_TRY(add_point(p, b, s, f, tokens, &each, expert_bytes));
  }
  prof_in_order(p, from, again, b);
  return HF_OK;
}

typedef struct {
  float *x, *y, *w;
} vectors;

/* So many active experts of the ring on the pool of b, over these token counts. */
static hf_status with_pool(profile *p, bench *b, const prof_shape *s, kern_format f, int64_t expert_bytes, const vectors *v,
                           const token_counts *counts) {
  int most = counts->at[counts->n - 1], active = most > FEW_TOKENS ? FEW_ACTIVE : MOST_ACTIVE;
  b->active = b->n_experts < active ? b->n_experts : active;
  moe_shape all = {b->n_experts, b->active, s->cols, s->rows, most, false, 0}, some = all;
  some.top_k = choices(most, b->active);
  some.max_tok = most * b->active / some.top_k;
  HF_TRY(prof_moe_new(&all, &b->parts, b->p, &b->m));
  hf_status st = prof_moe_new(&some, &b->parts, b->p, &b->apart);
  b->job = (moe_job){
      .experts = b->experts, .x = v->x, .x_stride = s->cols, .ids = b->ids, .weights = v->w, .y = v->y, .y_stride = s->cols};
  if (st == HF_OK) st = measure(p, b, s, f, expert_bytes, counts);
  moe_free(b->m);
  moe_free(b->apart);
  b->m = b->apart = NULL;
  return st;
}

/* Times of several threads below one thread's over their number: the fixed part that was taken off had a bad moment. Caches of several cores
 * hold more than one's, so some of that is possible. True: measure again; in the last round the high end becomes what is possible. */
static bool repair(profile *p, int from, bool last) {
  static const double POSSIBLE = 1.5;
  for (int i = from; i < p->n_point; i++) {
    rec_kernel_point *k = &p->point[i];
    for (int j = from; j < p->n_point && k->threads > 1; j++) {
      const rec_kernel_point *one = &p->point[j];
      if (one->threads != 1 || one->tokens != k->tokens || one->ns <= POSSIBLE * k->threads * k->ns) continue;
      if (!last) return true;
      k->ns_high = fmax(k->ns_high, one->ns / k->threads);
      k->spread = (k->ns_high - k->ns_low) / k->ns;
    }
  }
  return false;
}

/* ---- a ring of experts ---- */

typedef struct {
  bench b;
  vectors v;
  void *ring[TOPO_MAX_NODES]; /* of each part */
  size_t ring_bytes[TOPO_MAX_NODES];
  prof_nodes nodes;
  int64_t expert_bytes;
  float *floats;
} ring;

static void ring_close(ring *r) {
  for (int p = 0; p < r->b.parts.n; p++) mem_free(r->ring[p], r->ring_bytes[p], r->b.parts.node[p]);
  free(r->b.experts);
  free(r->b.none);
  free(r->b.ids);
  free(r->floats);
}

static size_t slice_bytes(const prof_shape *s, kern_format f, int rows) {
  return 2 * ring_matrix_bytes(f, rows, s->cols) + ring_matrix_bytes(f, s->cols, rows);
}

static int slice_rows(const ring *r, int part, int e) {
  const int *at = r->nodes.begin + e * (r->b.parts.n + 1) + part;
  return at[1] - at[0];
}

/* The slices of one part. */
static hf_status fill(ring *r, int part, const prof_shape *s, kern_format f) {
  char *at = r->ring[part];
  kern_act act = kern_act_of(f, false);
  kern_layout in = kern_best_layout(f, act, s->cols); /* as they are loaded */
  for (int e = 0; e < r->b.n_experts; e++) {
    moe_expert *x = &r->b.experts[part * r->b.n_experts + e];
    const int rows = slice_rows(r, part, e);
    if (rows == 0) continue;
    x->gate = matrix(f, rows, s->cols, &at);
    x->up = matrix(f, rows, s->cols, &at);
    x->down = matrix(f, s->cols, rows, &at);
    HF_TRY(ring_fill(in, &x->gate));
    HF_TRY(ring_fill(in, &x->up));
    HF_TRY(ring_fill(kern_best_layout(f, act, rows), &x->down));
  }
  return HF_OK;
}

static hf_status ring_open(profile *p, const prof_shape *s, kern_format f, int most_tokens, ring *r) {
  *r = (ring){.expert_bytes = (int64_t)slice_bytes(s, f, s->rows)};
  p->from_cache = s->resident;
  r->b.n_experts = ring_items(p, s, r->expert_bytes, PROF_MOST_EXPERTS);
  prof_nodes_of(p->topo, f, s->rows, r->b.n_experts, &r->nodes);
  r->b.parts = r->nodes.parts;
  r->b.load = "";
  scatter(&r->b);
  const size_t rows = most_tokens > FEW_TOKENS * MOST_ACTIVE / APART ? (size_t)most_tokens : FEW_TOKENS * MOST_ACTIVE / APART;
  const size_t xy = rows * (size_t)s->cols, weights = (size_t)most_tokens * MOST_ACTIVE;
  const size_t slices = (size_t)r->b.n_experts * (size_t)r->b.parts.n;
  hf_status st;
  HF_GO(fail, hf_alloc(&r->b.experts, slices, sizeof *r->b.experts, "experts"));
  HF_GO(fail, hf_alloc(&r->b.none, slices, sizeof *r->b.none, "experts"));
  HF_GO(fail, hf_alloc(&r->b.ids, weights, sizeof *r->b.ids, "expert ids"));
  HF_GO(fail, hf_alloc(&r->floats, 2 * xy + weights, sizeof *r->floats, "activations"));
  r->v = (vectors){r->floats, r->floats + xy, r->floats + 2 * xy};
  prof_random(r->v.x, (int)xy, 3);
  prof_random(r->v.w, (int)weights, 5);
  for (int part = 0; part < r->b.parts.n; part++) {
    for (int e = 0; e < r->b.n_experts; e++)
      if (slice_rows(r, part, e) > 0) r->ring_bytes[part] += slice_bytes(s, f, slice_rows(r, part, e));
    HF_GO(fail, mem_alloc(r->ring_bytes[part], r->b.parts.node[part], "expert weights", &r->ring[part]));
    HF_GO(fail, fill(r, part, s, f));
  }
  return HF_OK;
fail:
  ring_close(r);
  return st;
}

static bool fits_blocks(const prof_shape *s, kern_format f) {
  return s->cols % kern_block(f) == 0 && s->rows % kern_block(f) == 0;
}

/* The kernels that the executor takes by itself, on every pool. */
static hf_status measure_picked(profile *p, ring *r, const prof_shape *s, kern_format f) {
  for (int from = p->n_point, tries = 1;; tries++) {
    for (int i = 0; i < p->n_pools; i++) {
      r->b.p = p->pools[i];
      HF_TRY(with_pool(p, &r->b, s, f, r->expert_bytes, &r->v, p->o.quick ? &quick_counts : &full_counts));
      if (!p->o.quick && i == 0 && !prof_late(p)) HF_TRY(with_pool(p, &r->b, s, f, r->expert_bytes, &r->v, &many_counts));
    }
    if (!repair(p, from, tries == PROF_TRIES)) return HF_OK;
    p->n_point = from;
    prof_more_time(p);
  }
}

/* The other candidates for the layout that experts have, on all threads: a plan may prefer one for some token counts. What is taken by itself at the
 * most tokens is measured already (with AMX what is taken at few tokens is not, beyond those). */
static hf_status measure_others(profile *p, ring *r, const prof_shape *s, kern_format f) {
  const kern_mm_candidate *list[MOST_CANDIDATES];
  kern_act act = kern_act_of(f, false);
  kern_layout layout = kern_best_layout(f, act, s->cols);
  int n = kern_mm_candidates(kern_get()->isa, f, act, list, MOST_CANDIDATES);
  const char *own = kern_mm_pick(f, act, layout, s->cols, MOST_TOKENS, NULL)->name;
  r->b.p = p->pools[0];
  for (int i = 0; i < n && i < MOST_CANDIDATES; i++) {
    const kern_mm_candidate *c = list[i];
    if (c->layout != layout || c->isa == KERN_ISA_SCALAR || strcmp(c->name, own) == 0) continue;
    if (s->cols % c->col_multiple || s->rows % c->col_multiple || c->max_tok) continue;
    if (c->library && prof_over_budget(p)) continue;
    hf_status st = kern_prefer(KERN_USE_EXPERTS, f, 1, MOST_TOKENS, c->name);
    if (st != HF_OK && c->library) { /* it differs from the reference here: others are worth measuring */
      hf_log(HF_LOG_INFO, "%s is left out: %s", c->name, hf_error_line());
      hf_clear_error();
      continue;
    }
    HF_TRY(st);
    st = with_pool(p, &r->b, s, f, r->expert_bytes, &r->v,
                   !c->library  ? &coarse_counts
                   : p->o.quick ? &library_quick
                                : &library_counts);
    kern_forget();
    HF_TRY(st);
  }
  return HF_OK;
}

/* Quick looks where there is much to gain: at formats whose own product is plain C. */
static bool others_wanted(const profile *p, const prof_shape *s, kern_format f) {
  const kern_act act = kern_act_of(f, false);
  if (prof_over_budget(p)) return false;
  return !p->o.quick ||
         kern_mm_pick(f, act, kern_best_layout(f, act, s->cols), s->cols, FEW_TOKENS, NULL)->isa == KERN_ISA_SCALAR;
}

static hf_status measure_format(profile *p, const prof_shape *s, kern_format f) {
  ring r;
  if (!fits_blocks(s, f) || !prof_unit_begin(p, "experts/%dx%d/%s", s->rows, s->cols, kern_format_name(f))) return HF_OK;
  HF_TRY(ring_open(p, s, f, p->o.quick ? FEW_TOKENS : MOST_TOKENS, &r));
  hf_status st = measure_picked(p, &r, s, f);
  if (st == HF_OK && others_wanted(p, s, f)) st = measure_others(p, &r, s, f);
  ring_close(&r);
  HF_TRY(st);
  return prof_unit_end(p);
}

hf_status prof_experts(profile *p) {
  for (int i = 0; i < KF_N; i++) {
    for (int k = 0; k < p->shapes.n_expert; k++) {
      const prof_shape *s = &p->shapes.expert[k];
      if (!ring_wanted(p, s, i)) continue;
      HF_TRY(measure_format(p, s, ring_formats[i]));
    }
  }
  return HF_OK;
}

/* ---- beside a load ---- */

static bool has_alone(const profile *p, const prof_shape *s, kern_format f, int threads) {
  for (int i = 0; i < p->n_point; i++) {
    const rec_kernel_point *k = &p->point[i];
    if (strcmp(k->kernel, "expert_ffn") == 0 && strcmp(k->format, kern_format_name(f)) == 0 && k->n_out == s->rows &&
        k->n_in == s->cols && k->threads == threads && k->load[0] == '\0')
      return true;
  }
  return false;
}

hf_status experts_beside(profile *p, pool *pl, const char *load) {
  enum { QUICK_FORMATS = 3 };
  int done = 0;
  for (int i = 0; i < KF_N; i++)
    for (int k = 0; k < p->shapes.n_expert; k++) {
      const prof_shape *s = &p->shapes.expert[k];
      kern_format f = ring_formats[i];
      ring r;
      if (s->resident || !ring_wanted(p, s, i) || !fits_blocks(s, f) || !has_alone(p, s, f, pool_threads(pl))) continue;
      if ((p->o.quick && done == QUICK_FORMATS) || (done > 0 && prof_over_budget(p))) return HF_OK;
      HF_TRY(ring_open(p, s, f, FEW_TOKENS, &r));
      r.b.p = pl;
      r.b.load = load;
      hf_status st = with_pool(p, &r.b, s, f, r.expert_bytes, &r.v, p->o.quick ? &two_counts : &coarse_counts);
      ring_close(&r);
      HF_TRY(st);
      done++;
    }
  return HF_OK;
}
