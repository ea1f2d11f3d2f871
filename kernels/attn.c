/* attn.c: see attn.h. */
#include "kernels/attn.h"

enum { LEAST_ROWS = 8, UNITS_A_THREAD = 4, MOST_PART_BYTES = 64 << 20 };

/* A unit at work and, from one to the next, where in the step we are. */
typedef struct {
  const attn_step *s;
  int rows, heads;    /* most rows of a unit, most KV heads */
  int t, n_q;         /* the run of tokens */
  int g0, g1, r0, r1; /* KV heads and rows */
  int seg0, seg1;     /* segments that they see */
  size_t part_at;     /* floats before this unit's partial results */
} walk;

static int per_kv(const attn_step *s) {
  return s->a.n_heads / s->a.n_kv_heads;
}

int attn_run_of(const int32_t *pos, const int32_t *seq, const uint8_t *mark, int n_tok, int t) {
  int n = 1;
  while (t + n < n_tok && seq[t + n] == seq[t] && pos[t + n] == pos[t] + n && (!mark || !mark[t + n] == !mark[t])) n++;
  return n;
}

/* The run at t or, where that is somebody else's, the next one that is not; n_q 0: there is none. */
static void find_run(walk *w) {
  const attn_step *s = w->s;
  for (w->n_q = 0; w->t < s->n_tok; w->t += w->n_q) {
    w->n_q = attn_run_of(s->pos, s->seq, s->skip, s->n_tok, w->t);
    if (!s->skip || !s->skip[w->t]) return;
  }
  w->n_q = 0;
}

/* Rows from r0 on, of heads from g0 on. */
static void set_rows(walk *w, int g0, int r0) {
  const attn_step *s = w->s;
  const int per = per_kv(s), all = w->n_q * per;
  w->r0 = r0;
  w->r1 = r0 + w->rows < all ? r0 + w->rows : all;
  int heads = KERN_ATTN_ROWS / (w->r1 - r0);
  heads = heads < w->heads ? heads : w->heads;
  w->g0 = g0;
  w->g1 = g0 + heads < s->a.n_kv_heads ? g0 + heads : s->a.n_kv_heads;
  int first = s->pos[w->t] + r0 / per + 1, end = s->pos[w->t] + (w->r1 - 1) / per + 1;
  first = s->a.window > 0 && first > s->a.window ? first - s->a.window : 0;
  w->seg0 = first / KERN_ATTN_SEGMENT;
  w->seg1 = (end - 1) / KERN_ATTN_SEGMENT + 1;
}

static bool begin(walk *w, const attn_step *s, int rows, int heads) {
  *w = (walk){.s = s, .rows = rows, .heads = heads};
  find_run(w);
  if (w->n_q) set_rows(w, 0, 0);
  return w->n_q > 0;
}

static size_t unit_floats(const walk *w) {
  return (size_t)((w->seg1 - w->seg0) * (w->g1 - w->g0)) * kern_attn_part_floats(w->r1 - w->r0, w->s->a.dv);
}

static bool next(walk *w) {
  const attn_step *s = w->s;
  w->part_at += unit_floats(w);
  if (w->g1 < s->a.n_kv_heads) {
    set_rows(w, w->g1, w->r0);
  } else if (w->r1 < w->n_q * per_kv(s)) {
    set_rows(w, 0, w->r1);
  } else {
    w->t += w->n_q;
    find_run(w);
    if (!w->n_q) return false;
    set_rows(w, 0, 0);
  }
  return true;
}

/* Cost of segment `seg` of a unit: context rows times query rows, in vectors. */
static int64_t cost(const walk *w, int seg) {
  const attn_step *s = w->s;
  const int end = s->pos[w->t] + (w->r1 - 1) / per_kv(s) + 1;
  int first = s->pos[w->t] + w->r0 / per_kv(s) + 1, lo = seg * KERN_ATTN_SEGMENT, hi = lo + KERN_ATTN_SEGMENT;
  first = s->a.window > 0 && first > s->a.window ? first - s->a.window : 0;
  lo = lo > first ? lo : first;
  hi = hi < end ? hi : end;
  return (int64_t)(hi - lo) * (w->g1 - w->g0) * ((w->r1 - w->r0 + 7) / 8);
}

typedef struct {
  int rows, heads;
  bool cut;
  int64_t cost;
} division;

static division divide(const attn_step *s, int n_threads) {
  division d = {.rows = KERN_ATTN_ROWS, .heads = KERN_ATTN_HEADS};
  walk w;
  for (;;) {
    int units = 0, items = 0, most = 0;
    d.cost = 0;
    for (bool more = begin(&w, s, d.rows, d.heads); more; more = next(&w)) {
      int n = w.seg1 - w.seg0;
      units++, items += n;
      most = n > most ? n : most;
      for (int i = w.seg0; i < w.seg1; i++) d.cost += cost(&w, i);
    }
    d.cut = n_threads > 1 && most > 1 && units < UNITS_A_THREAD * n_threads && w.part_at <= s->part_floats;
    if (n_threads == 1 || (d.cut ? items : units) >= 2 * n_threads) return d;
    if (d.heads > 1) d.heads /= 2;
    else if (d.rows / 2 >= LEAST_ROWS) d.rows /= 2;
    else return d;
  }
}

static kern_attn of_run(const walk *w) {
  const attn_step *s = w->s;
  kern_attn a = s->a;
  a.kv.pages = s->page_table + (size_t)s->seq[w->t] * (size_t)s->pages_per_seq;
  a.n_q = w->n_q;
  a.pos0 = s->pos[w->t];
  a.q = s->q + (size_t)w->t * s->q_stride;
  a.out = s->out + (size_t)w->t * s->out_stride;
  a.q_stride = s->q_stride;
  a.out_stride = s->out_stride;
  return a;
}

/* Shares are cut where the work done so far passes this thread's part of it; a piece belongs to whom its beginning belongs. */
bool attn_step_run(const attn_step *s, int thread, int n_threads) {
  const division d = divide(s, n_threads);
  const int64_t lo = d.cost * thread / n_threads, hi = d.cost * (thread + 1) / n_threads;
  void *scratch = s->scratch + (size_t)thread * s->scratch_bytes;
  int64_t at = 0;
  walk w;
  for (bool more = begin(&w, s, d.rows, d.heads); more && at < hi; more = next(&w)) {
    int s0 = w.seg1, s1 = w.seg1; /* this thread's */
    const int64_t unit_at = at;
    for (int i = w.seg0; i < w.seg1; at += cost(&w, i), i++) {
      int64_t piece_at = d.cut ? at : unit_at;
      if (piece_at < lo || piece_at >= hi) continue;
      s0 = i < s0 ? i : s0;
      s1 = i + 1;
    }
    if (s0 == w.seg1) continue;
    kern_attn a = of_run(&w);
    float *part =
        d.cut ? s->part + w.part_at + (size_t)((s0 - w.seg0) * (w.g1 - w.g0)) * kern_attn_part_floats(w.r1 - w.r0, s->a.dv)
              : NULL;
    kern_get()->attn(&a, w.g0, w.g1, w.r0, w.r1, s0, s1, part, scratch);
  }
  return d.cut;
}

void attn_step_merge(const attn_step *s, int thread, int n_threads) {
  const division d = divide(s, n_threads);
  walk w;
  int u = 0;
  for (bool more = begin(&w, s, d.rows, d.heads); more; more = next(&w), u++) {
    if (u % n_threads != thread) continue;
    kern_attn a = of_run(&w);
    kern_get()->attn_merge(&a, w.g0, w.g1, w.r0, w.r1, w.seg1 - w.seg0, s->part + w.part_at,
                           s->scratch + (size_t)thread * s->scratch_bytes);
  }
}

/* Contexts are cut when there are fewer than UNITS_A_THREAD units a thread; a unit is a vector of rows at least. */
size_t attn_part_floats(int n_heads, int n_kv_heads, int dv, int64_t context, int threads) {
  if (threads <= 1) return 0;
  const int per = n_heads / n_kv_heads, rows = per < KERN_ATTN_ROWS ? per : KERN_ATTN_ROWS;
  int heads = KERN_ATTN_ROWS / rows < KERN_ATTN_HEADS ? KERN_ATTN_ROWS / rows : KERN_ATTN_HEADS;
  heads = heads < n_kv_heads ? heads : n_kv_heads;
  const size_t segments = (size_t)((context + KERN_ATTN_SEGMENT - 1) / KERN_ATTN_SEGMENT) + 1;
  const size_t units = (size_t)UNITS_A_THREAD * (size_t)threads, most = MOST_PART_BYTES / sizeof(float);
  const size_t floats = units * segments * (size_t)heads * kern_attn_part_floats(rows, dv);
  return floats < most ? floats : most;
}
