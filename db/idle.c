#include "db/idle.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Events of a micro-batch that are kept to look back at: more than a layer has stages; of experts that are sent, one by one, the last ones. */
enum { KEPT = 16, MICRO_BATCHES = 64, HEADROOM = 3 };

typedef struct {
  const rec_trace *event[KEPT]; /* ring */
  int n, step;
  int64_t step_start_ns; /* of the first event of `step` */
} history;

typedef struct {
  const rec_trace **by_start; /* [n] */
  int64_t n, cap_gaps;
  int64_t until_ns[IDLE_RESOURCES]; /* end of what was busy so far */
  history seen[MICRO_BATCHES];
  idle_account *out;
} reader;

static int by_start(const void *a, const void *b) {
  const rec_trace *x = *(const rec_trace *const *)a, *y = *(const rec_trace *const *)b;
  if (x->start_ns != y->start_ns) return x->start_ns < y->start_ns ? -1 : 1;
  return (x->end_ns > y->end_ns) - (x->end_ns < y->end_ns);
}

static hf_status resource_of(reader *r, const char *name, int *out) {
  idle_account *a = r->out;
  for (*out = 0; *out < a->n_resources; ++*out)
    if (!strcmp(a->resource[*out].name, name)) return HF_OK;
  if (a->n_resources == IDLE_RESOURCES) return hf_fail(HF_INPUT, "a trace of more than %d resources", IDLE_RESOURCES);
  snprintf(a->resource[a->n_resources].name, sizeof a->resource[0].name, "%s", name);
  r->until_ns[a->n_resources++] = a->start_ns;
  return HF_OK;
}

static void count(idle_resource *y, const idle_gap *g) {
  int i = 0;
  while (i < y->n_causes && (y->cause[i].kind != g->kind || strcmp(y->cause[i].stage, g->stage) != 0)) i++;
  if (i == IDLE_CAUSES) return; /* there are three kinds, and seven stages */
  idle_cause *c = &y->cause[i];
  if (i == y->n_causes) {
    c->kind = g->kind;
    memcpy(c->stage, g->stage, sizeof c->stage);
    y->n_causes++;
  }
  c->ns += g->end_ns - g->start_ns;
  c->gaps++;
}

static hf_status add(reader *r, idle_gap g) {
  idle_account *a = r->out;
  if (g.end_ns <= g.start_ns) return HF_OK;
  if (a->n_gaps == r->cap_gaps) {
    const int64_t cap = r->cap_gaps ? 2 * r->cap_gaps : 1024;
    HF_TRY(hf_realloc(&a->gap, (size_t)cap, sizeof *a->gap, "idle gaps"));
    r->cap_gaps = cap;
  }
  a->gap[a->n_gaps++] = g;
  count(&a->resource[g.resource], &g);
  return HF_OK;
}

static history *history_of(reader *r, const rec_trace *e) {
  return &r->seen[(unsigned)e->micro_batch % MICRO_BATCHES];
}

/* What an event continues on another resource, or NULL. */
static const rec_trace *awaited(const history *h, const rec_trace *e) {
  const rec_trace *best = NULL;
  for (int i = h->n - 1; i >= 0 && i >= h->n - KEPT; i--) {
    const rec_trace *b = h->event[i % KEPT];
    if (b->step != e->step || b->micro_batch != e->micro_batch) continue;
    const bool chooses = !strcmp(b->stage, "attn") && b->layer == e->layer;
    if (!strcmp(b->resource, e->resource) || (!strcmp(e->stage, "cexp") && !chooses)) continue;
    if (b->start_ns < e->start_ns && (!best || b->end_ns > best->end_ns) && b->end_ns <= e->end_ns) best = b;
  }
  return best;
}

static int64_t earlier(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* First until the event's step began, then until what the event continues had ended, then what is left. */
static hf_status account_gap(reader *r, int resource, const rec_trace *e) {
  const history *h = history_of(r, e);
  const bool first = h->n == 0 || h->step != e->step;
  idle_gap g = {.resource = resource,
                .kind = IDLE_STEP,
                .step = e->step,
                .layer = e->layer,
                .micro_batch = e->micro_batch,
                .start_ns = r->until_ns[resource]};
  if (e->start_ns <= g.start_ns) return HF_OK;
  g.end_ns = first ? e->start_ns : earlier(e->start_ns, h->step_start_ns);
  HF_TRY(add(r, g));
  if (g.end_ns > g.start_ns) g.start_ns = g.end_ns;
  const rec_trace *p = first ? NULL : awaited(h, e);
  if (p && p->end_ns > g.start_ns) {
    idle_gap w = g;
    w.kind = IDLE_STAGE;
    w.layer = p->layer;
    snprintf(w.stage, sizeof w.stage, "%s", p->stage);
    w.end_ns = g.start_ns = earlier(p->end_ns, e->start_ns);
    HF_TRY(add(r, w));
  }
  g.kind = IDLE_HAND;
  g.end_ns = e->start_ns;
  return add(r, g);
}

static hf_status read_event(reader *r, const rec_trace *e) {
  int k;
  history *h = history_of(r, e);
  HF_TRY(resource_of(r, e->resource, &k));
  HF_TRY(account_gap(r, k, e));
  const int64_t from = e->start_ns > r->until_ns[k] ? e->start_ns : r->until_ns[k];
  if (e->end_ns > from) {
    r->out->resource[k].busy_ns += e->end_ns - from;
    r->until_ns[k] = e->end_ns;
  }
  if (h->n == 0 || h->step != e->step) {
    h->step = e->step;
    h->step_start_ns = e->start_ns;
  }
  h->event[h->n++ % KEPT] = e;
  if (h->n >= HEADROOM * KEPT) h->n -= KEPT; /* stays a position in the ring */
  return HF_OK;
}

static hf_status read_all(reader *r) {
  idle_account *a = r->out;
  int64_t end = a->start_ns;
  for (int64_t i = 0; i < r->n; i++) {
    HF_TRY(read_event(r, r->by_start[i]));
    if (r->by_start[i]->end_ns > end) end = r->by_start[i]->end_ns;
  }
  a->span_ns = end - a->start_ns;
  for (int k = 0; k < a->n_resources; k++)
    HF_TRY(add(r, (idle_gap){.resource = k,
                             .kind = IDLE_STEP,
                             .step = -1,
                             .layer = -1,
                             .micro_batch = -1,
                             .start_ns = r->until_ns[k],
                             .end_ns = end}));
  return HF_OK;
}

static int by_length(const void *a, const void *b) {
  const idle_cause *x = a, *y = b;
  return (x->ns < y->ns) - (x->ns > y->ns);
}

static int by_resource(const void *a, const void *b) {
  const idle_gap *x = a, *y = b;
  if (x->resource != y->resource) return x->resource - y->resource;
  return (x->start_ns > y->start_ns) - (x->start_ns < y->start_ns);
}

static int by_step(const void *a, const void *b) {
  const rec_trace *x = *(const rec_trace *const *)a, *y = *(const rec_trace *const *)b;
  return x->step != y->step ? (x->step > y->step) - (x->step < y->step) : by_start(a, b);
}

typedef struct {
  int64_t start_ns, end_ns;
} stretch;

static int by_beginning(const void *a, const void *b) {
  const stretch *x = a, *y = b;
  return (x->start_ns > y->start_ns) - (x->start_ns < y->start_ns);
}

/* From first to last event of each step that uploads; returns how many. Sorts ev by step. */
static int64_t uploading_steps(const rec_trace **ev, int64_t n, stretch *out) {
  int64_t found = 0;
  qsort(ev, (size_t)n, sizeof *ev, by_step);
  for (int64_t i = 0, k; i < n; i = k) {
    stretch s = {.start_ns = ev[i]->start_ns, .end_ns = ev[i]->end_ns};
    bool uploads = false;
    for (k = i; k < n && ev[k]->step == ev[i]->step; k++) {
      uploads = uploads || !strcmp(ev[k]->stage, "upload");
      if (ev[k]->end_ns > s.end_ns) s.end_ns = ev[k]->end_ns;
    }
    if (uploads) out[found++] = s;
  }
  qsort(out, (size_t)found, sizeof *out, by_beginning);
  return found;
}

/* Sorts by_start by step. */
static hf_status find_steady(reader *r) {
  idle_account *a = r->out;
  stretch *s = NULL;
  HF_TRY(hf_alloc(&s, (size_t)r->n, sizeof *s, "idle time"));
  const int64_t n = uploading_steps(r->by_start, r->n, s), end = a->start_ns + a->span_ns;
  int64_t from = a->start_ns;
  a->steady_ns = a->until_ns = from;
  for (int64_t i = 0; i <= n; i++) {
    const int64_t to = i < n ? s[i].start_ns : end;
    if (to - from > a->until_ns - a->steady_ns) a->steady_ns = from, a->until_ns = to;
    if (i < n && s[i].end_ns > from) from = s[i].end_ns;
  }
  free(s);
  return HF_OK;
}

hf_status idle_account_of(const rec_trace *ev, int64_t n, idle_account *out) {
  reader *r = NULL;
  *out = (idle_account){0};
  if (n <= 0) return HF_OK;
  HF_TRY(hf_alloc(&r, 1, sizeof *r, "idle time"));
  *r = (reader){.n = n, .out = out};
  hf_status st = hf_alloc(&r->by_start, (size_t)n, sizeof *r->by_start, "idle time");
  for (int64_t i = 0; st == HF_OK && i < n; i++) r->by_start[i] = &ev[i];
  if (st == HF_OK) qsort(r->by_start, (size_t)n, sizeof *r->by_start, by_start);
  if (st == HF_OK) out->start_ns = r->by_start[0]->start_ns;
  if (st == HF_OK) st = read_all(r);
  if (st == HF_OK) st = find_steady(r);
  for (int k = 0; k < out->n_resources; k++)
    qsort(out->resource[k].cause, (size_t)out->resource[k].n_causes, sizeof(idle_cause), by_length);
  if (out->gap) qsort(out->gap, (size_t)out->n_gaps, sizeof *out->gap, by_resource);
  free(r->by_start);
  free(r);
  if (st != HF_OK) idle_account_free(out);
  return st;
}

void idle_account_free(idle_account *a) {
  free(a->gap);
  *a = (idle_account){0};
}

/* What of a gap lies within [from, to). */
static int64_t within(const idle_gap *g, int64_t from, int64_t to) {
  const int64_t a = g->start_ns > from ? g->start_ns : from, b = earlier(g->end_ns, to);
  return b > a ? b - a : 0;
}

/* Time in which neither had a step to work at: where gaps of both of that kind lie over each other. */
static int64_t both_without_step(const idle_account *a, int x, int y) {
  int64_t sum = 0;
  for (int64_t i = 0, k = 0; i < a->n_gaps; i++) {
    const idle_gap *g = &a->gap[i];
    if (g->resource != x || g->kind != IDLE_STEP) continue;
    while (k < a->n_gaps && (a->gap[k].resource != y || a->gap[k].kind != IDLE_STEP || a->gap[k].end_ns <= g->start_ns)) {
      if (a->gap[k].resource > y) return sum;
      k++;
    }
    for (int64_t m = k; m < a->n_gaps && a->gap[m].resource == y && a->gap[m].start_ns < g->end_ns; m++) {
      if (a->gap[m].kind != IDLE_STEP) continue;
      const int64_t from = g->start_ns > a->steady_ns ? g->start_ns : a->steady_ns;
      sum += within(&a->gap[m], from, earlier(g->end_ns, a->until_ns));
    }
  }
  return sum;
}

static void busy_while_steady(const idle_account *a, int64_t *busy) {
  for (int k = 0; k < a->n_resources; k++) busy[k] = a->until_ns - a->steady_ns;
  for (int64_t i = 0; i < a->n_gaps; i++) busy[a->gap[i].resource] -= within(&a->gap[i], a->steady_ns, a->until_ns);
}

void idle_busiest(const idle_account *a, int *first, int *second) {
  int x = -1, y = -1;
  int64_t busy[IDLE_RESOURCES];
  busy_while_steady(a, busy);
  for (int k = 0; k < a->n_resources; k++) {
    if (x < 0 || busy[k] > busy[x]) y = x, x = k;
    else if (y < 0 || busy[k] > busy[y]) y = k;
  }
  *first = x;
  *second = y;
}

double idle_overlap(const idle_account *a) {
  int x, y;
  int64_t busy[IDLE_RESOURCES];
  idle_busiest(a, &x, &y);
  busy_while_steady(a, busy);
  if (y < 0 || busy[y] <= 0) return NAN;
  const int64_t span = a->until_ns - a->steady_ns - both_without_step(a, x < y ? x : y, x < y ? y : x);
  return fmax(0, (double)(busy[x] + busy[y] - span) / (double)busy[y]);
}

const char *idle_stage_words(const char *stage) {
  static const struct {
    const char *stage, *words;
  } w[] = {{"attn", "attention"},
           {"shared", "shared expert, dense layers"},
           {"dexp", "experts on the device"},
           {"hand", "hand-over"},
           {"cexp", "experts on the CPU"},
           {"head", "output head"},
           {"upload", "uploads of experts"}};
  for (size_t i = 0; i < sizeof w / sizeof *w; i++)
    if (!strcmp(w[i].stage, stage)) return w[i].words;
  return stage;
}

void idle_words(const idle_gap *g, char *out, size_t n) {
  if (g->kind == IDLE_STAGE)
    snprintf(out, n, "%s of layer %d, micro-batch %d", idle_stage_words(g->stage), g->layer, g->micro_batch);
  else if (g->kind == IDLE_HAND) snprintf(out, n, "the hand-over to layer %d, micro-batch %d", g->layer, g->micro_batch);
  else if (g->micro_batch >= 0) snprintf(out, n, "the next step of micro-batch %d", g->micro_batch);
  else snprintf(out, n, "nothing: the run ends");
}

void idle_cause_words(const idle_cause *c, char *out, size_t n) {
  snprintf(out, n, "%s",
           c->kind == IDLE_STAGE  ? idle_stage_words(c->stage)
           : c->kind == IDLE_HAND ? "hand-over"
                                  : "the next step");
}
