#include "planner/sim/steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/sim/random.h"

/* KEPT: combinations, direct mapped (16 MB when all are there). ROUNDS: steps of the slowest micro-batch per measurement, PHASES measurements each. SHARES: of attention
 * in a step, told apart. */
enum { KEPT = 1 << 18, ROUNDS = 12, PHASES = 4, SHARES = 64 };
/* Ends of steps are whole ns: what is that little short of an end has reached it. */
static const double NS_SLACK = 0.5;

/* What the slowdown of others depends on; 0 = idle. */
typedef uint32_t kind;

typedef struct {
  kind key[SCHED_MAX_DEPTH]; /* falling */
  float slow[SCHED_MAX_DEPTH];
} combination;

typedef struct {
  double first, rise; /* ns of the first step of a run, and by how much each exceeds the one before */
} evenly;

typedef struct {
  bool active;
  kind kind;
  int n;             /* steps, 1 + more of a run */
  double left, slow; /* ns of work left, alone; real time over that */
  int64_t start, since, end, order, number;
  int64_t alone; /* of one step; in a run of the middle one */
  evenly ns, busy[SIM_N_RESOURCES];
  int tokens;
  sim_work w;    /* for measurements */
  int64_t *attn; /* [n_layers] of a run's middle step */
} batch;

struct sim_steps {
  const stage_table *t;
  int depth;
  sim_trace_fn *trace;
  void *user;
  int64_t now, order, busy[SIM_N_RESOURCES];
  batch mb[SCHED_MAX_DEPTH];
  combination *kept;
};

/* ---- a step alone ---- */

static int64_t overlap(const stage_table *t, int64_t a, int64_t b, int64_t *both) {
  int64_t less = a < b ? a : b;
  *both = sim_round((t->contend - 1) * (double)less);
  return (a < b ? b : a) + *both;
}

static int64_t layer_alone(const stage_table *t, int l, const sim_work *w, int64_t busy[]) {
  const sim_layer_ns *r = &w->routed[l];
  int64_t attn = w->attn[l], side = r->shared + r->dexp, both = 0;
  if (t->one_resource) {
    busy[SIM_CPU] += attn + r->shared + r->cexp;
    return attn + r->shared + r->dexp + r->cexp;
  }
  int64_t longest = r->cexp > 0 ? overlap(t, side, r->hand + r->cexp, &both) : side;
  busy[t->layer[l].home] += attn + side + both;
  if (r->cexp > 0) busy[SIM_CPU] += r->cexp + (both < r->cexp ? both : r->cexp);
  for (int p = 1; r->elsewhere && p < STAGE_MAX_PLACES; p++) {
    if (r->place[p] == 0) continue;
    busy[p <= t->n_devices ? p - 1 : SIM_REMOTE + p - 1 - t->n_devices] += r->place[p];
    if (r->place[p] > longest) longest = r->place[p];
  }
  return attn + longest;
}

hf_status sim_step_alone_ns(const stage_table *t, const sim_work *w, int64_t *ns, int64_t busy[SIM_N_RESOURCES]) {
  int64_t unread[SIM_N_RESOURCES] = {0};
  if (busy == NULL) busy = unread;
  bool upload = false;
  for (int l = 0; l < t->n_layers && !upload; l++) upload = w->routed[l].upload > 0;
  if (upload) {
    sim_machine *m = NULL;
    int ended = 0;
    HF_TRY(sim_machine_new(t, NULL, NULL, &m));
    sim_machine_start(m, 0, w);
    if (!sim_machine_advance(m, INT64_MAX, &ended)) ended = -1;
    *ns = sim_machine_now(m);
    for (int r = 0; r < SIM_N_RESOURCES; r++) busy[r] += sim_machine_busy_ns(m, r);
    sim_machine_free(m);
    return ended == 0 ? HF_OK : hf_fail(HF_MACHINE, "simulation: a step without an end");
  }
  int64_t sum = w->fixed + w->head;
  busy[t->one_resource ? (int)SIM_CPU : t->layer[t->n_layers - 1].home] += w->head;
  for (int l = 0; l < t->n_layers; l++) sum += layer_alone(t, l, w, busy);
  *ns = sum;
  return HF_OK;
}

/* ---- runs ---- */

/* Time of the first n of them. */
static double sum_of(const evenly *e, int n) {
  return n * e->first + e->rise * (0.5 * n * (n - 1));
}

/* Work that is done of what micro-batch b does, alone. */
static double work_done(const sim_steps *s, const batch *b) {
  return sum_of(&b->ns, b->n) - (b->left - (double)(s->now - b->since) / b->slow);
}

/* The fewest steps, at least 1 and at most all, that are that much work. */
static int steps_of(const batch *b, double work) {
  int lo = 1, hi = b->n;
  while (lo < hi) {
    int mid = lo + (hi - lo) / 2;
    if (sum_of(&b->ns, mid) >= work - NS_SLACK) hi = mid;
    else lo = mid + 1;
  }
  return lo;
}

/* ---- in company ---- */

static double attn_share(const sim_work *w, int n_layers, int64_t alone) {
  int64_t attn = 0;
  for (int l = 0; l < n_layers; l++) attn += w->attn[l];
  return alone > 0 ? (double)attn / (double)alone : 0;
}

/* Shares of attention told apart: fewer where more micro-batches make more combinations. */
static int shares(const sim_steps *s) {
  return s->depth <= 2 ? SHARES : SHARES / 2;
}

/* Tokens exactly up to 64, beyond in steps of a sixteenth of a power of two; with it the share of attention in the step. */
static kind kind_of(const sim_steps *s, const sim_work *w, double attn) {
  int64_t up = 0;
  for (int l = 0; l < s->t->n_layers; l++) up += w->routed[l].upload;
  uint32_t tokens = (uint32_t)w->tokens;
  if (tokens > 64) {
    int shift = 31 - __builtin_clz(tokens) - 4;
    tokens = tokens >> shift << shift;
  }
  uint32_t share = (uint32_t)(attn * shares(s) + 0.5);
  return 1 + (tokens << 10 | share << 2 | (w->head > 0 ? 2u : 0u) | (up > 0 ? 1u : 0u));
}

static uint32_t hash(const kind key[SCHED_MAX_DEPTH]) {
  uint64_t h = 0xcbf29ce484222325u;
  for (int i = 0; i < SCHED_MAX_DEPTH; i++) h = (h ^ key[i]) * 0x100000001b3u;
  return (uint32_t)(h >> 20) % KEPT;
}

/* The n micro-batches of who repeat their steps until the slowest has done ROUNDS more than one; mean period over time alone. The j-th starts
 * the share (j * phase mod PHASES) / PHASES of the first one's step later. */
static hf_status measure_phase(const sim_steps *s, const int who[], int n, int phase, double slow[SCHED_MAX_DEPTH]) {
  sim_machine *m = NULL;
  int64_t first[SCHED_MAX_DEPTH] = {0}, last[SCHED_MAX_DEPTH] = {0}, spread = s->mb[who[0]].alone;
  int done[SCHED_MAX_DEPTH] = {0}, behind = n, j = 0;
  HF_TRY(sim_machine_new(s->t, NULL, NULL, &m));
  for (int share = 0, k = 0; behind > 0;) {
    while (share < PHASES && (k == n || k * phase % PHASES != share)) {
      share += k == n;
      k = k == n ? 0 : k + 1;
    }
    if (sim_machine_advance(m, share < PHASES ? share * spread / PHASES : INT64_MAX, &j)) {
      last[j] = sim_machine_now(m);
      if (done[j] == 0) first[j] = last[j];
      if (++done[j] == ROUNDS + 1) behind--;
      sim_machine_start(m, j, &s->mb[who[j]].w);
    } else if (share < PHASES) {
      sim_machine_start(m, k, &s->mb[who[k]].w);
      k++;
    }
  }
  for (int i = 0; i < n; i++) {
    int64_t alone = s->mb[who[i]].alone;
    double period = (double)(last[i] - first[i]) / (done[i] - 1);
    slow[i] += alone > 0 ? period / (double)alone / PHASES : 1.0 / PHASES;
  }
  sim_machine_free(m);
  return HF_OK;
}

/* Micro-batches keep their distance for long, and it matters (heads and fixed costs meet or do not); it comes as requests do, so all
 * distances count alike. Those of one kind go at one speed: which of them is first at a resource is chance. */
static hf_status measure(const sim_steps *s, const int who[], int n, float slow[SCHED_MAX_DEPTH]) {
  double sum[SCHED_MAX_DEPTH] = {0};
  for (int phase = 0; phase < PHASES; phase++) HF_TRY(measure_phase(s, who, n, phase, sum));
  for (int i = 0, k; i < n; i = k) {
    double all = 0;
    for (k = i; k < n && s->mb[who[k]].kind == s->mb[who[i]].kind; k++) all += sum[k];
    for (int j = i; j < k; j++) slow[j] = (float)(all / (k - i));
  }
  return HF_OK;
}

/* The set of active micro-batches has changed: everybody goes on at a new speed. */
static hf_status set_speeds(sim_steps *s) {
  kind key[SCHED_MAX_DEPTH] = {0};
  int who[SCHED_MAX_DEPTH] = {0}, n = 0;
  for (int i = 0; i < s->depth; i++) {
    batch *b = &s->mb[i];
    if (!b->active) continue;
    int at = n++;
    for (; at > 0 && s->mb[who[at - 1]].kind < b->kind; at--) who[at] = who[at - 1];
    who[at] = i;
    b->left -= (double)(s->now - b->since) / b->slow;
    if (b->left < 0) b->left = 0;
    b->since = s->now;
    b->slow = 1;
  }
  for (int i = 0; i < n; i++) key[i] = s->mb[who[i]].kind;
  combination *c = &s->kept[hash(key)];
  if (n > 1 && memcmp(c->key, key, sizeof key) != 0) {
    HF_TRY(measure(s, who, n, c->slow));
    memcpy(c->key, key, sizeof key);
  }
  for (int i = 0; i < n; i++) {
    batch *b = &s->mb[who[i]];
    if (n > 1) b->slow = c->slow[i];
    b->end = s->now + sim_round(b->left * b->slow);
  }
  return HF_OK;
}

/* ---- interface ---- */

hf_status sim_steps_new(const stage_table *table, int depth, sim_trace_fn *trace, void *user, sim_steps **out) {
  sim_steps *s = NULL;
  HF_TRY(hf_alloc(&s, 1, sizeof *s, "simulated steps"));
  s->t = table;
  s->depth = depth;
  s->trace = trace;
  s->user = user;
  hf_status st = hf_alloc(&s->kept, KEPT, sizeof *s->kept, "simulated steps");
  for (int i = 0; i < depth && st == HF_OK; i++)
    st = hf_alloc(&s->mb[i].attn, (size_t)table->n_layers, sizeof *s->mb[i].attn, "simulated steps");
  if (st != HF_OK) sim_steps_free(s);
  else *out = s;
  return st;
}

void sim_steps_free(sim_steps *s) {
  if (s == NULL) return;
  for (int i = 0; i < s->depth; i++) free(s->mb[i].attn);
  free(s->kept);
  free(s);
}

static hf_status start(sim_steps *s, int mb, const sim_work *w, int n, double attn) {
  batch *b = &s->mb[mb];
  b->active = true;
  b->n = n;
  b->left = sum_of(&b->ns, n);
  b->slow = 1;
  b->start = b->since = s->now;
  b->order = s->order++;
  b->number = w->number;
  b->tokens = w->tokens;
  b->w = *w;
  b->kind = s->depth > 1 ? kind_of(s, w, attn) : 1;
  return set_speeds(s);
}

hf_status sim_steps_start(sim_steps *s, int mb, const sim_work *w) {
  batch *b = &s->mb[mb];
  int64_t busy[SIM_N_RESOURCES] = {0};
  HF_TRY(sim_step_alone_ns(s->t, w, &b->alone, busy));
  b->ns = (evenly){.first = (double)b->alone};
  for (int r = 0; r < SIM_N_RESOURCES; r++) b->busy[r] = (evenly){.first = (double)busy[r]};
  return start(s, mb, w, 1, attn_share(w, s->t->n_layers, b->alone));
}

hf_status sim_steps_start_run(sim_steps *s, int mb, const sim_work *first, const sim_work *last, int more) {
  batch *b = &s->mb[mb];
  int64_t ns[2], busy[2][SIM_N_RESOURCES] = {{0}};
  HF_TRY(sim_step_alone_ns(s->t, first, &ns[0], busy[0]));
  HF_TRY(sim_step_alone_ns(s->t, last, &ns[1], busy[1]));
  b->ns = (evenly){(double)ns[0], (double)(ns[1] - ns[0]) / more};
  for (int r = 0; r < SIM_N_RESOURCES; r++) b->busy[r] = (evenly){(double)busy[0][r], (double)(busy[1][r] - busy[0][r]) / more};
  double a = attn_share(first, s->t->n_layers, ns[0]), z = attn_share(last, s->t->n_layers, ns[1]), change = shares(s) * (z - a);
  int n = s->depth > 1 && change > 1 ? (int)(more / change) : more;
  for (int l = 0; s->depth > 1 && l < s->t->n_layers; l++)
    b->attn[l] = first->attn[l] + sim_round((double)(last->attn[l] - first->attn[l]) * n / (2.0 * more));
  b->alone = sim_round(b->ns.first + 0.5 * n * b->ns.rise);
  sim_work middle = *first;
  if (s->depth > 1) middle.attn = b->attn;
  return start(s, mb, &middle, 1 + n, a + (z - a) * n / (2.0 * more));
}

void sim_steps_cut(sim_steps *s) {
  for (int i = 0; i < s->depth; i++) {
    batch *b = &s->mb[i];
    if (!b->active || b->n == 1) continue;
    double done = work_done(s, b);
    b->n = steps_of(b, done);
    b->left = sum_of(&b->ns, b->n) - done;
    if (b->left < 0) b->left = 0;
    b->since = s->now;
    b->end = s->now + sim_round(b->left * b->slow);
  }
}

int sim_steps_done(const sim_steps *s, int mb) {
  const batch *b = &s->mb[mb];
  if (!b->active) return b->n;
  double done = work_done(s, b);
  int n = steps_of(b, done);
  return sum_of(&b->ns, n) > done + NS_SLACK ? n - 1 : n;
}

static void emit(const sim_steps *s, int mb) {
  if (s->trace == NULL) return;
  const batch *b = &s->mb[mb];
  rec_trace r = {
      .step = (int)b->number, .micro_batch = mb, .layer = -1, .start_ns = b->start, .end_ns = s->now, .tokens = b->tokens};
  memcpy(r.source, "sim", 4);
  memcpy(r.stage, "step", 5);
  memcpy(r.resource, "all", 4);
  s->trace(s->user, &r);
}

hf_status sim_steps_advance(sim_steps *s, int64_t until, int *ended, bool *any) {
  int best = -1;
  *any = false;
  for (int i = 0; i < s->depth; i++) {
    const batch *b = &s->mb[i];
    if (!b->active) continue;
    if (best < 0 || b->end < s->mb[best].end || (b->end == s->mb[best].end && b->order < s->mb[best].order)) best = i;
  }
  if (best < 0 || s->mb[best].end > until) {
    if (until < INT64_MAX && until > s->now) s->now = until;
    return HF_OK;
  }
  batch *b = &s->mb[best];
  s->now = b->end;
  emit(s, best);
  b->active = false;
  for (int r = 0; r < SIM_N_RESOURCES; r++) s->busy[r] += sim_round(sum_of(&b->busy[r], b->n));
  *ended = best;
  *any = true;
  return set_speeds(s);
}

int64_t sim_steps_now(const sim_steps *s) {
  return s->now;
}

int64_t sim_steps_busy_ns(const sim_steps *s, int which) {
  return s->busy[which];
}
