#include "planner/sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/stats.h"

/* ---- events: a binary heap over (time, order) ---- */

typedef enum { EV_START, EV_HAND_OVER, EV_DEVICE, EV_HAND, EV_CPU } event_kind;
typedef struct {
  int64_t at, order;
  event_kind kind;
  int mb;
} event;

/* A micro-batch never has more than three events ahead of it. */
enum { MAX_EVENTS = 4 * SCHED_MAX_DEPTH, CACHE_TOKENS = 4096 };
typedef struct {
  event e[MAX_EVENTS];
  int n;
  int64_t order;
} heap;

static bool before(const event *a, const event *b) {
  return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void heap_push(heap *h, int64_t at, event_kind kind, int mb) {
  event e = {at, h->order++, kind, mb};
  int i = h->n++;
  while (i > 0 && before(&e, &h->e[(i - 1) / 2])) {
    h->e[i] = h->e[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  h->e[i] = e;
}

static event heap_pop(heap *h) {
  event top = h->e[0], last = h->e[--h->n];
  int i = 0;
  for (int c; (c = 2 * i + 1) < h->n; i = c) {
    if (c + 1 < h->n && before(&h->e[c + 1], &h->e[c])) c++;
    if (!before(&h->e[c], &last)) break;
    h->e[i] = h->e[c];
  }
  h->e[i] = last;
  return top;
}

/* ---- state ---- */

typedef struct {
  int64_t attn, shared, dexp, hand, cexp; /* of the layer in progress, ns */
} stage_ns;

typedef struct {
  bool active, head;
  sched_step step;
  stage_load load;
  int logits, layer, parts; /* parts of the layer still running */
  stage_ns ns;
  int64_t device_start, cpu_start, number;
} micro_batch;

typedef struct {
  bool busy;
  int queue[SCHED_MAX_DEPTH], n;
  int64_t busy_ns;
} resource;

typedef struct {
  int64_t arrival, first_token, end;
  int prompt, output, produced;
} request;

typedef struct {
  const sim_options *o;
  sched *s;
  heap h;
  int64_t now;
  micro_batch mb[SCHED_MAX_DEPTH];
  resource device, cpu;
  request *req; /* [users * requests_per_user]; user u's i-th is u + i * users */
  int64_t n_ended, n_added, steps;
  layer_times *cache; /* [CACHE_TOKENS + 1][n_layers], by tokens of the step */
  uint8_t *cached;    /* [CACHE_TOKENS + 1] */
  int decoding;       /* requests between first and last token */
  int64_t decode_since, decode_ns, decode_tokens, in_system_ns, counted_to;
  int64_t n_in_system;
  uint64_t rng;
} sim;

/* ---- stage times ---- */

static int64_t ns_of(double t) {
  return (int64_t)llround(t);
}

/* Times of the routed part depend on the number of tokens only: computed once per number. */
static const layer_times *routed_times(sim *s, int tokens) {
  int n = s->o->table->n_layers;
  layer_times *row = s->cache + (size_t)tokens * (size_t)n;
  if (s->cached[tokens]) return row;
  stage_load load = {.tokens = tokens};
  for (int l = 0; l < n; l++) {
    const uint8_t *dev = s->o->on_device != NULL ? s->o->on_device + (size_t)l * (size_t)s->o->table->n_experts : NULL;
    row[l] = stage_layer_times_load(s->o->table, s->o->pop, l, &load, dev);
  }
  s->cached[tokens] = 1;
  return row;
}

static void load_of_step(const stage_table *t, const sched_step *st, stage_load *load, int *logits) {
  *load = (stage_load){0};
  *logits = 0;
  for (int i = 0; i < st->n_pieces; i++) {
    const sched_piece *p = &st->piece[i];
    stage_load_add(load, t, p->start_pos, p->n_tokens);
    *logits += p->wants_logits;
  }
}

static void emit(const sim *s, int m, const char *stage, const char *where, int64_t start, int64_t end) {
  if (s->o->trace == NULL || end == start) return;
  const micro_batch *b = &s->mb[m];
  rec_trace r = {.step = (int)b->number, .micro_batch = m, .layer = b->head ? -1 : b->layer, .start_ns = start, .end_ns = end};
  memcpy(r.source, "sim", 4);
  strncpy(r.stage, stage, sizeof r.stage - 1);
  strncpy(r.resource, where, sizeof r.resource - 1);
  r.tokens = b->load.tokens;
  s->o->trace(s->o->trace_user, &r);
}

/* ---- resources ---- */

static bool inline_cpu(const sim *s) {
  return s->o->table->one_resource;
}

/* Starts the job of micro-batch m on the device; the CPU takes its place when there is none. */
static void device_start(sim *s, int m) {
  micro_batch *b = &s->mb[m];
  resource *r = inline_cpu(s) ? &s->cpu : &s->device;
  int64_t extra = b->ns.shared + b->ns.dexp + (inline_cpu(s) ? b->ns.cexp : 0);
  r->busy = true;
  r->busy_ns += b->ns.attn + extra;
  b->device_start = s->now;
  if (!inline_cpu(s) && b->parts == 2) heap_push(&s->h, s->now + b->ns.attn, EV_HAND_OVER, m);
  heap_push(&s->h, s->now + b->ns.attn + extra, EV_DEVICE, m);
}

static void cpu_start(sim *s, int m) {
  s->cpu.busy = true;
  s->cpu.busy_ns += s->mb[m].ns.cexp;
  s->mb[m].cpu_start = s->now;
  heap_push(&s->h, s->now + s->mb[m].ns.cexp, EV_CPU, m);
}

static void take(sim *s, resource *r, int m, void (*start)(sim *, int)) {
  if (r->busy) r->queue[r->n++] = m;
  else start(s, m);
}

static void release(sim *s, resource *r, void (*start)(sim *, int)) {
  r->busy = false;
  if (r->n == 0) return;
  int m = r->queue[0];
  memmove(r->queue, r->queue + 1, (size_t)--r->n * sizeof r->queue[0]);
  start(s, m);
}

/* ---- the walk of a micro-batch through its step ---- */

static void enter_layer(sim *s, int m) {
  micro_batch *b = &s->mb[m];
  const stage_table *t = s->o->table;
  if (b->layer == t->n_layers) {
    b->head = true;
    b->ns = (stage_ns){.attn = ns_of(b->logits > 0 ? stage_curve_at(&t->head, b->logits) : 0)};
    b->parts = 1;
  } else {
    const layer_times *r = &routed_times(s, b->load.tokens)[b->layer];
    b->ns = (stage_ns){ns_of(stage_attn_ns(t, b->layer, &b->load)), ns_of(r->shared_ns), ns_of(r->dexp_ns), ns_of(r->hand_ns),
                       ns_of(r->cexp_ns)};
    b->parts = !t->one_resource && b->ns.cexp > 0 ? 2 : 1;
  }
  take(s, inline_cpu(s) ? &s->cpu : &s->device, m, device_start);
}

static void count_system(sim *s) {
  s->in_system_ns += s->n_in_system * (s->now - s->counted_to);
  s->counted_to = s->now;
}

static hf_status add_request(sim *s, int64_t id) {
  request *q = &s->req[id];
  q->arrival = s->now;
  count_system(s);
  s->n_in_system++;
  s->n_added++;
  return sched_add(s->s, id, q->prompt, q->output);
}

static void set_decoding(sim *s, int delta) {
  if (s->decoding == s->o->users) s->decode_ns += s->now - s->decode_since;
  s->decoding += delta;
  s->decode_since = s->now;
}

/* A token came out for request id. */
static void token_out(sim *s, int64_t id) {
  request *q = &s->req[id];
  if (s->decoding == s->o->users && q->produced > 0) s->decode_tokens++;
  if (q->produced++ == 0) {
    q->first_token = s->now;
    set_decoding(s, 1);
  }
}

static void start_idle(sim *s) {
  for (int m = 0; m < s->o->depth; m++) {
    micro_batch *b = &s->mb[m];
    if (b->active || !sched_next(s->s, m, &b->step)) continue;
    b->active = true;
    b->head = false;
    b->layer = 0;
    b->number = s->steps++;
    load_of_step(s->o->table, &b->step, &b->load, &b->logits);
    heap_push(&s->h, s->now + ns_of(s->o->table->step_fixed_ns), EV_START, m);
  }
}

static hf_status end_step(sim *s, int m) {
  micro_batch *b = &s->mb[m];
  int64_t ended[SCHED_MAX_SEQS];
  int n = 0;
  for (int i = 0; i < b->step.n_pieces; i++)
    if (b->step.piece[i].wants_logits) token_out(s, b->step.piece[i].request);
  sched_done(s->s, m, NULL, ended, &n);
  b->active = false;
  for (int i = 0; i < n; i++) {
    count_system(s);
    s->n_in_system--;
    s->n_ended++;
    s->req[ended[i]].end = s->now;
    set_decoding(s, -1);
  }
  for (int i = 0; i < n; i++) {
    int64_t next = ended[i] + s->o->users;
    if (next < (int64_t)s->o->users * s->o->requests_per_user) HF_TRY(add_request(s, next));
  }
  start_idle(s);
  return HF_OK;
}

static hf_status end_part(sim *s, int m) {
  micro_batch *b = &s->mb[m];
  if (--b->parts > 0) return HF_OK;
  if (b->head) return end_step(s, m);
  b->layer++;
  enter_layer(s, m);
  return HF_OK;
}

static void trace_device(const sim *s, int m) {
  const micro_batch *b = &s->mb[m];
  const char *where = inline_cpu(s) ? "cpu" : "gpu0";
  int64_t t = b->device_start;
  emit(s, m, b->head ? "head" : "attn", where, t, t + b->ns.attn);
  t += b->ns.attn;
  emit(s, m, "shared", where, t, t + b->ns.shared);
  t += b->ns.shared;
  emit(s, m, "dexp", where, t, t + b->ns.dexp);
  t += b->ns.dexp;
  if (inline_cpu(s)) emit(s, m, "cexp", where, t, t + b->ns.cexp);
}

static hf_status handle(sim *s, const event *e) {
  micro_batch *b = &s->mb[e->mb];
  switch (e->kind) {
    case EV_START: enter_layer(s, e->mb); return HF_OK;
    case EV_HAND_OVER: heap_push(&s->h, s->now + b->ns.hand, EV_HAND, e->mb); return HF_OK;
    case EV_HAND:
      emit(s, e->mb, "hand", "link", s->now - b->ns.hand, s->now);
      take(s, &s->cpu, e->mb, cpu_start);
      return HF_OK;
    case EV_DEVICE:
      trace_device(s, e->mb);
      release(s, inline_cpu(s) ? &s->cpu : &s->device, device_start);
      return end_part(s, e->mb);
    case EV_CPU:
      emit(s, e->mb, "cexp", "cpu", b->cpu_start, s->now);
      release(s, &s->cpu, cpu_start);
      return end_part(s, e->mb);
  }
  return HF_OK;
}

/* ---- set-up and results ---- */

static double uniform(uint64_t *s) { /* splitmix64 */
  uint64_t z = *s += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static int length_of(sim *s, int mean) {
  double f = 1 + s->o->length_spread * (2 * uniform(&s->rng) - 1);
  int n = (int)lround(mean * f);
  return n < 1 ? 1 : n;
}

static hf_status check(const sim_options *o) {
  if (o->users < 1 || o->users > SCHED_MAX_SEQS)
    return hf_fail(HF_INPUT, "simulation: %d users is not between 1 and %d", o->users, (int)SCHED_MAX_SEQS);
  if (o->prompt_tokens < 1 || o->output_tokens < 1 || o->requests_per_user < 1)
    return hf_fail(HF_INPUT, "simulation: prompt, output and requests per user must be at least 1");
  if (!(o->length_spread >= 0 && o->length_spread < 1))
    return hf_fail(HF_INPUT, "simulation: length spread %g is not between 0 and 1", o->length_spread);
  if (o->chunk_tokens + SCHED_MAX_SEQS > CACHE_TOKENS)
    return hf_fail(HF_INPUT, "simulation: chunk of %d tokens is above %d", o->chunk_tokens,
                   (int)CACHE_TOKENS - (int)SCHED_MAX_SEQS);
  return HF_OK;
}

static hf_status set_up(sim *s) {
  const sim_options *o = s->o;
  size_t n = (size_t)o->users * (size_t)o->requests_per_user, rows = (size_t)(o->chunk_tokens + SCHED_MAX_SEQS + 1);
  HF_TRY(hf_alloc(&s->req, n, sizeof *s->req, "simulated requests"));
  HF_TRY(hf_alloc(&s->cache, rows * (size_t)o->table->n_layers, sizeof *s->cache, "simulated layer times"));
  HF_TRY(hf_alloc(&s->cached, rows, 1, "simulated layer times"));
  s->rng = o->seed;
  int64_t longest = 0;
  for (size_t i = 0; i < n; i++) {
    s->req[i].prompt = length_of(s, o->prompt_tokens);
    s->req[i].output = length_of(s, o->output_tokens);
    int64_t pages = (s->req[i].prompt + s->req[i].output + o->page_tokens - 1) / (o->page_tokens > 0 ? o->page_tokens : 1);
    if (pages > longest) longest = pages;
  }
  sched_options so = {.depth = o->depth,
                      .max_seqs = o->users,
                      .chunk_tokens = o->chunk_tokens,
                      .page_tokens = o->page_tokens,
                      .n_pages = o->n_pages > 0 ? o->n_pages : (int)(longest * o->users)};
  HF_TRY(sched_new(&so, &s->s));
  for (int u = 0; u < o->users; u++) HF_TRY(add_request(s, u));
  return HF_OK;
}

static plan_percentiles percentiles(double *v, int64_t n) {
  hf_percentiles p = hf_percentiles_of(v, (size_t)n);
  return (plan_percentiles){p.p50, p.p90, p.p99, p.p95};
}

static hf_status summarise(sim *s, sim_result *r) {
  const sim_options *o = s->o;
  int64_t n = (int64_t)o->users * o->requests_per_user, n_tpot = 0;
  double *ttft = NULL, *tpot, *e2e, last_first = 0;
  HF_TRY(hf_alloc(&ttft, 3 * (size_t)n, sizeof *ttft, "simulated latencies"));
  tpot = ttft + n;
  e2e = tpot + n;
  for (int64_t i = 0; i < n; i++) {
    const request *q = &s->req[i];
    ttft[i] = 1e-9 * (double)(q->first_token - q->arrival);
    e2e[i] = 1e-9 * (double)(q->end - q->arrival);
    if (q->produced > 1) tpot[n_tpot++] = (e2e[i] - ttft[i]) / (q->produced - 1);
    r->prompt_tokens += q->prompt;
    r->output_tokens += q->produced;
    r->e2e_sum_s += e2e[i];
    if (i < o->users) last_first = fmax(last_first, 1e-9 * (double)q->first_token);
  }
  int64_t first_prompts = 0;
  for (int u = 0; u < o->users; u++) first_prompts += s->req[u].prompt;
  r->requests = n;
  r->steps = s->steps;
  r->wall_s = 1e-9 * (double)s->now;
  r->decode_s = 1e-9 * (double)s->decode_ns;
  r->decode_tok_per_s = s->decode_ns > 0 ? (double)s->decode_tokens / r->decode_s : 0;
  r->tok_per_s_wall = r->wall_s > 0 ? (double)r->output_tokens / r->wall_s : 0;
  r->prefill_tok_per_s = last_first > 0 ? (double)first_prompts / last_first : 0;
  r->ttft_s = percentiles(ttft, n);
  r->tpot_s = percentiles(tpot, n_tpot);
  r->e2e_s = percentiles(e2e, n);
  if (s->now > 0) {
    r->device_busy = (double)s->device.busy_ns / (double)s->now;
    r->cpu_busy = (double)s->cpu.busy_ns / (double)s->now;
    r->in_system = (double)s->in_system_ns / (double)s->now;
  }
  free(ttft);
  return HF_OK;
}

hf_status sim_run(const sim_options *o, sim_result *out) {
  sim *s = NULL;
  sim_result r = {0};
  HF_TRY(check(o));
  HF_TRY(hf_alloc(&s, 1, sizeof *s, "simulation"));
  s->o = o;
  hf_status st = HF_OK;
  HF_GO(done, set_up(s));
  start_idle(s);
  while (s->h.n > 0) {
    event e = heap_pop(&s->h);
    s->now = e.at;
    HF_GO(done, handle(s, &e));
  }
  if (s->n_ended != (int64_t)o->users * o->requests_per_user) {
    st = hf_fail(HF_NO, "simulation: the KV pages are too few for the requests to run");
    goto done;
  }
  HF_GO(done, summarise(s, &r));
  *out = r;
done:
  sched_free(s->s);
  free(s->req);
  free(s->cache);
  free(s->cached);
  free(s);
  return st;
}
