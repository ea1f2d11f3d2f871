/* sim.c: the loop of a simulation: requests arrive, sched/ gives steps, machine.h or steps.h tells when they end, statistics follow. */
#include "planner/sim/sim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/sim/prices.h"
#include "planner/sim/random.h"
#include "planner/sim/sessions.h"
#include "planner/sim/sketch.h"
#include "planner/sim/steps.h"
#include "planner/sim/trace_read.h"
#include "planner/sim/workload.h"

enum { PAGES_MOST = 1 << 24, LONGEST_UNKNOWN = 131072, WINDOW_RUN = 64 };

/* A request that waits in the scheduler or runs; its place in the table is its id there. */
typedef struct {
  sim_request r;
  int produced;
  int next_free;
} live;

typedef struct {
  bool active, prefills;
  int counted; /* steps of a run whose tokens are in decode_tokens or are not to be */
  sched_step step;
  int64_t *attn;
  sim_layer_ns *row;
} micro_batch;

typedef struct {
  const sim_options *o;
  int max_seqs;
  sched *s;
  sim_source *feed, *count; /* the second only counts arrivals as time passes */
  sim_sessions *sessions;   /* NULL: requests have nothing to do with each other */
  sim_prices *prices;
  int64_t *attn_last; /* of the last step of a run */
  sim_layer_ns *row_last;
  sim_machine *machine; /* one of the two */
  sim_steps *stepper;
  int64_t now, steps, most_steps;
  micro_batch mb[SCHED_MAX_DEPTH];
  live *live;
  int n_live, first_free;
  sim_sketch *ttft, *tpot, *e2e, *wait;
  sim_result r;
  int full, decoding; /* requests between first and last token */
  int64_t decode_since, decode_ns, decode_tokens;
  int prefilling; /* steps under way that prefill */
  int64_t prefill_since, prefill_ns, prefill_tokens;
  int64_t first_prompts, last_first_ns;
  int64_t counted_to, n_in_system, n_running;
  double in_system_ns, waiting_ns;
  int64_t counted, good, good_tokens;
} sim;

/* ---- arrivals ---- */

/* What lasts no time counts in no mean and no maximum: a request that is admitted as it arrives never waited. */
static void pass(sim *s, int64_t to) {
  double dt = (double)(to - s->counted_to);
  if (dt <= 0) return;
  if (s->n_in_system > s->r.max_in_system) s->r.max_in_system = s->n_in_system;
  if (s->n_in_system - s->n_running > s->r.max_waiting) s->r.max_waiting = s->n_in_system - s->n_running;
  s->in_system_ns += (double)s->n_in_system * dt;
  s->waiting_ns += (double)(s->n_in_system - s->n_running) * dt;
  s->counted_to = to;
}

/* Counts what arrived up to now, each at its time. */
static hf_status count_arrivals(sim *s) {
  for (int64_t at; (at = sim_source_peek(s->count)) <= s->now;) {
    sim_demand d;
    HF_TRY(sim_source_pop(s->count, &d));
    pass(s, at > s->counted_to ? at : s->counted_to);
    s->n_in_system++;
  }
  pass(s, s->now);
  return HF_OK;
}

static hf_status new_live(sim *s, int *out) {
  if (s->first_free < 0) {
    int cap = s->n_live > 0 ? 2 * s->n_live : 2 * SCHED_MAX_SEQS;
    HF_TRY(hf_realloc(&s->live, (size_t)cap, sizeof *s->live, "simulated requests"));
    for (int i = cap; i-- > s->n_live;) {
      s->live[i].next_free = s->first_free;
      s->first_free = i;
    }
    s->n_live = cap;
  }
  *out = s->first_free;
  s->first_free = s->live[*out].next_free;
  return HF_OK;
}

static void free_live(sim *s, int64_t id) {
  s->live[id].next_free = s->first_free;
  s->first_free = (int)id;
}

static void user_goes_on(sim *s, int64_t number) {
  sim_source_ended(s->feed, number, s->now);
  sim_source_ended(s->count, number, s->now);
}

/* Too long ever to run. A user without think time and end would try again for ever: such a user leaves. */
static void refuse(sim *s, const sim_demand *d) {
  s->r.refused++;
  s->n_in_system--;
  if (s->o->requests_per_user > 0 || s->o->think_s > 0) user_goes_on(s, d->number);
}

static hf_status add(sim *s, const sim_demand *d) {
  bool enters = true;
  if (s->o->max_context > 0 && (int64_t)d->prompt + d->output > s->o->max_context) {
    refuse(s, d);
    return HF_OK;
  }
  int id = 0;
  HF_TRY(new_live(s, &id));
  if (s->sessions != NULL) HF_TRY(sim_sessions_enter(s->sessions, id, d, &enters));
  if (!enters) {
    free_live(s, id);
    return HF_OK;
  }
  hf_status st = sched_add_cached(s->s, id, d->prompt, d->output, d->cached);
  if (st != HF_OK && s->sessions != NULL) sim_sessions_leave(s->sessions, id);
  if (st != HF_OK) free_live(s, id);
  if (st == HF_NO) {
    hf_clear_error();
    refuse(s, d);
    return HF_OK;
  }
  HF_TRY(st);
  s->live[id] = (live){.r = {.number = d->number,
                             .arrival_ns = d->arrival_ns,
                             .start_ns = -1,
                             .prompt = d->prompt,
                             .output = d->output,
                             .cached = d->cached}};
  return HF_OK;
}

/* Turns that came before the one before them had ended. */
static hf_status add_late(sim *s) {
  sim_demand d;
  while (s->sessions != NULL && sim_sessions_next(s->sessions, &d)) {
    d.arrival_ns = s->now;
    HF_TRY(add(s, &d));
  }
  return HF_OK;
}

/* The scheduler admits first come first served, so it need not know more waiting requests than it could admit at once: a long queue stays
 * in the source. */
static hf_status feed(sim *s) {
  HF_TRY(count_arrivals(s));
  HF_TRY(add_late(s));
  while (sched_waiting(s->s) < s->max_seqs && sim_source_peek(s->feed) <= s->now) {
    sim_demand d;
    HF_TRY(sim_source_pop(s->feed, &d));
    HF_TRY(add(s, &d));
    HF_TRY(count_arrivals(s)); /* a refused user's next request */
  }
  return HF_OK;
}

/* ---- steps ---- */

/* Steps until the context of a piece is where the price of a token of it changes (stage_table.near_tokens), at most so many. */
static int to_the_bend(const sim *s, const sched_step *st, int more) {
  const double bend = s->o->table->near_more != 0 ? s->o->table->near_tokens : 0;
  for (int i = 0; i < st->n_pieces; i++) {
    const double left = floor(bend) - (st->piece[i].start_pos + 1); /* a token sees itself */
    if (left >= 1 && left < more) more = (int)left;
  }
  return more;
}

/* Decode steps of one micro-batch differ only by their context, and each lasts longer than the one before by the same (but for a window, so
 * those are taken in short runs, and where the price of context changes): until one of its requests ends they are one event, cut short when somebody
 * is admitted. */
static hf_status start_run(sim *s, int m, const sim_work *w) {
  micro_batch *b = &s->mb[m];
  int more = s->o->trace == NULL ? sched_repeats(s->s, m) : 0;
  if (s->o->table->window > 0 && more > WINDOW_RUN) more = WINDOW_RUN;
  more = to_the_bend(s, &b->step, more);
  if (more == 0) {
    sim_steps_start(s->stepper, m, w);
    return HF_OK;
  }
  sched_step last = b->step;
  for (int i = 0; i < last.n_pieces; i++) last.piece[i].start_pos += more;
  sim_step_load load;
  sim_work w_last;
  sim_step_load_of(s->o, &last, &load);
  HF_TRY(sim_prices_step(s->prices, &load, w->number, s->attn_last, s->row_last, &w_last));
  sim_steps_start_run(s->stepper, m, w, &w_last, more);
  return HF_OK;
}

static hf_status launch(sim *s, int m) {
  micro_batch *b = &s->mb[m];
  sim_step_load load;
  sim_work w;
  b->active = true;
  sim_step_load_of(s->o, &b->step, &load);
  HF_TRY(sim_prices_step(s->prices, &load, s->steps++, b->attn, b->row, &w));
  if (s->sessions != NULL) w.fixed += sim_sessions_waited(s->sessions); /* the host reads back before it launches */
  b->prefills = b->step.n_decode < b->step.n_tokens;
  if (b->prefills && s->prefilling++ == 0) s->prefill_since = s->now;
  for (int i = 0; i < b->step.n_pieces; i++) {
    live *q = &s->live[b->step.piece[i].request];
    if (q->r.start_ns >= 0) continue;
    q->r.start_ns = s->now;
    if (s->sessions != NULL) q->r.cached = sim_sessions_known(s->sessions, b->step.piece[i].request);
  }
  b->counted = 0;
  if (s->stepper != NULL) return start_run(s, m, &w);
  sim_machine_start(s->machine, m, &w);
  return HF_OK;
}

static hf_status start_idle(sim *s) {
  for (int m = 0; m < s->o->depth; m++) {
    if (s->mb[m].active) continue;
    HF_TRY(feed(s)); /* the step before may have admitted what waited */
    bool any = sched_next(s->s, m, &s->mb[m].step);
    if (s->stepper != NULL && sched_running(s->s) > s->n_running) sim_steps_cut(s->stepper); /* whoever came may be another's */
    s->n_running = sched_running(s->s);
    if (any) HF_TRY(launch(s, m));
  }
  return HF_OK;
}

/* Tokens that came out of runs under way while everybody decoded, or did not. */
static void count_runs(sim *s) {
  for (int m = 0; s->stepper != NULL && m < s->o->depth; m++) {
    micro_batch *b = &s->mb[m];
    if (!b->active || b->prefills) continue;
    int done = sim_steps_done(s->stepper, m);
    if (s->decoding == s->full) s->decode_tokens += (int64_t)(done - b->counted) * b->step.n_pieces;
    b->counted = done;
  }
}

static void set_decoding(sim *s, int delta) {
  count_runs(s);
  if (s->decoding == s->full) s->decode_ns += s->now - s->decode_since;
  s->decoding += delta;
  s->decode_since = s->now;
}

/* n tokens came out for request q, of which count_runs has counted some; more than one only when it was decoding before. */
static void tokens_out(sim *s, live *q, int n, int counted) {
  if (s->decoding == s->full && q->produced > 0) s->decode_tokens += n - counted;
  q->produced += n;
  if (q->produced > n) return;
  q->r.first_token_ns = s->now;
  set_decoding(s, 1);
  if (s->o->arrivals == SIM_CLOSED && q->r.number < s->o->users) {
    s->first_prompts += q->r.prompt - q->r.cached;
    s->last_first_ns = s->now;
  }
}

static void count_latencies(sim *s, const live *q) {
  const sim_options *o = s->o;
  const sim_request *r = &q->r;
  double ttft = 1e-9 * (double)(r->first_token_ns - r->arrival_ns), e2e = 1e-9 * (double)(r->end_ns - r->arrival_ns);
  double tpot = q->produced > 1 ? (e2e - ttft) / (q->produced - 1) : 0;
  s->r.e2e_sum_s += e2e;
  if (r->number < o->warm_up) return;
  sim_sketch_add(s->ttft, ttft);
  sim_sketch_add(s->e2e, e2e);
  sim_sketch_add(s->wait, 1e-9 * (double)(r->start_ns - r->arrival_ns));
  if (q->produced > 1) sim_sketch_add(s->tpot, tpot);
  s->counted++;
  if ((o->slo_ttft_s > 0 && ttft > o->slo_ttft_s) || (o->slo_tpot_s > 0 && tpot > o->slo_tpot_s)) return;
  s->good++;
  s->good_tokens += q->produced;
}

static void end_request(sim *s, int64_t id) {
  live *q = &s->live[id];
  q->r.end_ns = s->now;
  s->n_in_system--;
  s->r.requests++;
  s->r.prompt_tokens += q->r.prompt;
  s->r.output_tokens += q->produced;
  set_decoding(s, -1);
  count_latencies(s, q);
  if (s->o->on_request != NULL) s->o->on_request(s->o->request_user, &q->r);
  user_goes_on(s, q->r.number);
  free_live(s, id);
}

/* Before the scheduler lets pages of the ended go. */
static void step_of_sessions(sim *s, const micro_batch *b, int steps) {
  for (int i = 0; s->sessions != NULL && i < b->step.n_pieces; i++) {
    const sched_piece *p = &b->step.piece[i];
    const live *q = &s->live[p->request];
    const int done = p->start_pos + p->n_tokens + steps - 1;
    sim_sessions_step(s->sessions, p, done);
    if (q->produced >= q->r.output) sim_sessions_end(s->sessions, p, done);
  }
}

static hf_status end_step(sim *s, int m) {
  micro_batch *b = &s->mb[m];
  int64_t ended[SCHED_MAX_SEQS];
  int n = 0, steps = s->stepper != NULL ? sim_steps_done(s->stepper, m) : 1;
  HF_TRY(count_arrivals(s));
  count_runs(s);
  for (int i = 0; i < b->step.n_pieces; i++)
    if (b->step.piece[i].wants_logits) tokens_out(s, &s->live[b->step.piece[i].request], steps, b->counted);
  if (b->prefills && --s->prefilling == 0) s->prefill_ns += s->now - s->prefill_since;
  s->prefill_tokens += b->step.n_tokens - b->step.n_decode;
  step_of_sessions(s, b, steps);
  sched_repeat(s->s, m, steps - 1);
  s->steps += steps - 1;
  sched_done(s->s, m, NULL, ended, &n);
  s->n_running = sched_running(s->s);
  b->active = false;
  for (int i = 0; i < n; i++) end_request(s, ended[i]);
  return HF_OK;
}

/* ---- the loop ---- */

/* Until a step ends (*m) or a request arrives that could be admitted before (*m = -1): by an idle micro-batch, or when the step that a run
 * is in ends; *any false when there is nothing left. */
static hf_status advance(sim *s, int *m, bool *any) {
  bool idle = false, busy = false, ended = false;
  for (int i = 0; i < s->o->depth; i++) {
    idle = idle || !s->mb[i].active;
    busy = busy || s->mb[i].active;
  }
  bool cuts = s->stepper != NULL && sched_waiting(s->s) == 0 && s->n_running < s->max_seqs;
  int64_t until = idle || cuts ? sim_source_peek(s->feed) : INT64_MAX;
  *m = -1;
  *any = busy || until < INT64_MAX;
  if (!*any) return HF_OK;
  if (until <= s->now) until = INT64_MAX; /* it has arrived and has to wait for pages or a slot */
  if (!busy && until == INT64_MAX) {      /* nothing under way could make room */
    *any = false;
    return HF_OK;
  }
  if (s->stepper != NULL) {
    ended = sim_steps_advance(s->stepper, until, m);
    s->now = sim_steps_now(s->stepper);
  } else {
    ended = sim_machine_advance(s->machine, until, m);
    s->now = sim_machine_now(s->machine);
  }
  if (!ended) *m = -1;
  if (!ended && cuts) sim_steps_cut(s->stepper);
  return HF_OK;
}

static hf_status loop(sim *s) {
  for (;;) {
    int m = -1;
    bool any = false;
    HF_TRY(start_idle(s));
    if (s->steps >= s->most_steps) return HF_OK;
    HF_TRY(advance(s, &m, &any));
    if (!any) return count_arrivals(s);
    if (s->now > SIM_MOST_NOW)
      return hf_fail(HF_INPUT,
                     "simulation: the load takes more than 73 years; fewer or shorter requests, or another stage table");
    if (m >= 0) HF_TRY(end_step(s, m));
    if (s->o->stop != NULL && *s->o->stop) return count_arrivals(s);
  }
}

/* ---- set-up and results ---- */

int sim_max_seqs(const sim_options *o) {
  if (o->max_seqs > 0) return o->max_seqs;
  return o->arrivals == SIM_CLOSED && o->users < SCHED_MAX_SEQS ? o->users : SCHED_MAX_SEQS;
}

static int pages_of(const sim_options *o) {
  if (o->n_pages > 0) return o->n_pages;
  double longest = LONGEST_UNKNOWN;
  if (o->max_context > 0) longest = o->max_context;
  else if (o->arrivals != SIM_TRACE && o->lengths == SIM_LENGTHS_UNIFORM)
    longest = ceil((1 + o->length_spread) * o->prompt_tokens) + ceil((1 + o->length_spread) * o->output_tokens);
  double pages = ceil(longest / o->page_tokens) * sim_max_seqs(o);
  return pages < PAGES_MOST ? (int)pages : (int)PAGES_MOST;
}

static hf_status check_load(const sim_options *o) {
  if (o->arrivals == SIM_CLOSED) {
    if (o->users < 1 || o->users > SIM_MOST_USERS)
      return hf_fail(HF_INPUT, "simulation: %d users is not between 1 and %d", o->users, (int)SIM_MOST_USERS);
    if (o->requests_per_user < 0 || (o->requests_per_user < 1 && !(o->duration_s > 0)))
      return hf_fail(HF_INPUT, "simulation: requests per user must be at least 1, or a duration be given");
  } else if (o->arrivals == SIM_TRACE) {
    if (o->trace_path == NULL) return hf_fail(HF_INPUT, "simulation: no trace is named");
    if (!(o->trace_stretch >= 0 && o->trace_stretch <= 1e6))
      return hf_fail(HF_INPUT, "simulation: trace stretch %g is not between 0 and 1e6", o->trace_stretch);
  } else {
    if (!(o->rate_per_s > 1e-9 && o->rate_per_s <= 1e6))
      return hf_fail(HF_INPUT, "simulation: %g requests per second is not between 1e-9 and 1e6", o->rate_per_s);
    if (o->requests < 1 && !(o->duration_s > 0))
      return hf_fail(HF_INPUT, "simulation: open arrivals need a number of requests or a duration");
    if (o->arrivals == SIM_GAMMA && !(o->cv >= 0 && o->cv <= 20))
      return hf_fail(HF_INPUT, "simulation: coefficient of variation %g is not between 0 and 20", o->cv);
    if (o->arrivals == SIM_BURSTY && !(o->burst_on_s > 0 && o->burst_on_s <= 1e6 && o->burst_off_s >= 0 && o->burst_off_s <= 1e6))
      return hf_fail(HF_INPUT, "simulation: bursts of %g s with %g s between are out of range", o->burst_on_s, o->burst_off_s);
  }
  if (!(o->duration_s >= 0 && o->duration_s <= 1e9) || !(o->think_s >= 0 && o->think_s <= 1e9))
    return hf_fail(HF_INPUT, "simulation: duration %g s or think time %g s is not between 0 and 1e9", o->duration_s, o->think_s);
  return HF_OK;
}

static hf_status check_lengths(const sim_options *o) {
  if (o->arrivals != SIM_TRACE && (o->prompt_tokens < 1 || o->output_tokens < 1))
    return hf_fail(HF_INPUT, "simulation: prompt and output must be at least 1 token");
  if (!(o->length_spread >= 0 && o->length_spread < 1))
    return hf_fail(HF_INPUT, "simulation: length spread %g is not between 0 and 1", o->length_spread);
  if (o->lengths == SIM_LENGTHS_LOGNORMAL && !(o->length_cv >= 0 && o->length_cv <= 20))
    return hf_fail(HF_INPUT, "simulation: coefficient of variation of lengths %g is not between 0 and 20", o->length_cv);
  if (!(o->prefix_share >= 0 && o->prefix_share <= 1))
    return hf_fail(HF_INPUT, "simulation: prefix share %g is not between 0 and 1", o->prefix_share);
  if (o->sessions && (o->arrivals != SIM_CLOSED || o->prefix_share > 0))
    return hf_fail(HF_INPUT,
                   "simulation: conversations are of users in a closed loop or of a trace's lines, and know what they share");
  if (o->sessions && o->max_context < 1 && o->n_pages < 1)
    return hf_fail(HF_INPUT, "simulation: how long a conversation can become is not said: neither a context nor pages");
  if (o->turns < 0 || o->shared_tokens < 0 || o->shared_tokens > SIM_MOST_TOKENS || o->standby_pages < 0 ||
      o->standby_pages > PAGES_MOST || !(o->kv_token_ns >= 0 && o->kv_token_ns <= 1e12))
    return hf_fail(HF_INPUT, "simulation: turns, shared tokens, pages or price of the KV mirror out of range");
  if (o->chunk_tokens < 1 || o->chunk_tokens > SIM_MOST_CHUNK)
    return hf_fail(HF_INPUT, "simulation: chunk of %d tokens is not between 1 and %d", o->chunk_tokens, (int)SIM_MOST_CHUNK);
  if (o->page_tokens < 1) return hf_fail(HF_INPUT, "simulation: pages of %d tokens", o->page_tokens);
  return HF_OK;
}

static hf_status check(const sim_options *o) {
  const stage_table *t = o->table;
  HF_TRY(check_load(o));
  HF_TRY(check_lengths(o));
  if (o->sample_routing && o->resolution == SIM_STEPS)
    return hf_fail(HF_INPUT, "simulation: routing can be sampled in layers only, not in whole steps");
  if (t->one_resource || o->on_device == NULL) return HF_OK;
  for (int i = 0; i < t->n_layers * t->n_experts; i++)
    if (o->on_device[i] > t->n_devices + t->n_remotes)
      return hf_fail(HF_INPUT, "simulation: layer %d expert %d: place %d; there are %d devices and %d other machines",
                     i / t->n_experts, i % t->n_experts, o->on_device[i], t->n_devices, t->n_remotes);
  return HF_OK;
}

static hf_status set_up(sim *s, bool by_steps) {
  const sim_options *o = s->o;
  size_t n = (size_t)o->table->n_layers;
  s->first_free = -1;
  s->max_seqs = sim_max_seqs(o);
  s->full = o->arrivals == SIM_CLOSED && o->users < s->max_seqs ? o->users : s->max_seqs;
  sched_options so = {.depth = o->depth,
                      .max_seqs = s->max_seqs,
                      .chunk_tokens = o->chunk_tokens,
                      .page_tokens = o->page_tokens,
                      .n_pages = pages_of(o)};
  HF_TRY(sched_new(&so, &s->s));
  HF_TRY(sim_source_new(o, &s->feed));
  HF_TRY(sim_source_new(o, &s->count));
  if (sim_source_sessions(s->feed)) HF_TRY(sim_sessions_new(o, s->s, so.n_pages, &s->sessions));
  HF_TRY(sim_prices_new(o, &s->prices));
  if (by_steps) HF_TRY(sim_steps_new(o->table, o->depth, o->prefill_upload != NULL, o->trace, o->trace_user, &s->stepper));
  else HF_TRY(sim_machine_new(o->table, o->trace, o->trace_user, &s->machine));
  for (int m = 0; m < o->depth; m++) {
    HF_TRY(hf_alloc(&s->mb[m].attn, n, sizeof *s->mb[m].attn, "simulated layer times"));
    HF_TRY(hf_alloc(&s->mb[m].row, n, sizeof *s->mb[m].row, "simulated layer times"));
  }
  HF_TRY(hf_alloc(&s->attn_last, n, sizeof *s->attn_last, "simulated layer times"));
  HF_TRY(hf_alloc(&s->row_last, n, sizeof *s->row_last, "simulated layer times"));
  HF_TRY(sim_sketch_new(&s->ttft));
  HF_TRY(sim_sketch_new(&s->tpot));
  HF_TRY(sim_sketch_new(&s->e2e));
  return sim_sketch_new(&s->wait);
}

static void tear_down(sim *s) {
  for (int m = 0; m < SCHED_MAX_DEPTH; m++) {
    free(s->mb[m].attn);
    free(s->mb[m].row);
  }
  free(s->attn_last);
  free(s->row_last);
  sim_sketch_free(s->ttft);
  sim_sketch_free(s->tpot);
  sim_sketch_free(s->e2e);
  sim_sketch_free(s->wait);
  sim_machine_free(s->machine);
  sim_steps_free(s->stepper);
  sim_prices_free(s->prices);
  sim_source_free(s->feed);
  sim_source_free(s->count);
  sim_sessions_free(s->sessions);
  sched_free(s->s);
  free(s->live);
  free(s);
}

static void resources_used(sim *s) {
  sim_result *r = &s->r;
  for (int i = 0; i < SIM_N_RESOURCES; i++) {
    int64_t busy = s->stepper != NULL ? sim_steps_busy_ns(s->stepper, i) : sim_machine_busy_ns(s->machine, i);
    if (i == SIM_LINK && !s->o->table->one_resource) { /* beside uploads of experts */
      busy += sim_round(1e9 * r->parking.resume_s + s->o->kv_token_ns * (double)r->parking.mirrored_tokens);
      if (busy > s->now) busy = s->now;
    }
    double seconds = 1e-9 * (double)busy;
    const sim_power *w = &s->o->power[i];
    r->busy[i] = s->now > 0 ? (double)busy / (double)s->now : 0;
    r->energy_of_j[i] = w->idle_w * r->wall_s + (w->active_w - w->idle_w) * seconds;
    r->energy_j += r->energy_of_j[i];
  }
  r->device_busy = r->busy[0];
  r->cpu_busy = r->busy[SIM_CPU];
}

static void summarise(sim *s) {
  sim_result *r = &s->r;
  if (s->sessions != NULL) sim_sessions_result(s->sessions, &r->parking);
  r->by_steps = s->stepper != NULL;
  r->steps = s->steps;
  r->walked = s->stepper != NULL ? sim_steps_walked(s->stepper) : s->steps;
  r->wall_s = 1e-9 * (double)s->now;
  r->decode_s = 1e-9 * (double)s->decode_ns;
  r->decode_tok_per_s = s->decode_ns > 0 ? (double)s->decode_tokens / r->decode_s : 0;
  r->tok_per_s_wall = r->wall_s > 0 ? (double)r->output_tokens / r->wall_s : 0;
  double tokens = (double)s->prefill_tokens, seconds = 1e-9 * (double)s->prefill_ns;
  if (s->o->arrivals == SIM_CLOSED &&
      s->last_first_ns > 0) { /* the start of all users together says it without decoding between */
    tokens = (double)s->first_prompts;
    seconds = 1e-9 * (double)s->last_first_ns;
  }
  r->prefill_tok_per_s = seconds > 0 ? tokens / seconds : 0;
  r->ttft_s = sim_sketch_percentiles(s->ttft);
  r->tpot_s = sim_sketch_percentiles(s->tpot);
  r->e2e_s = sim_sketch_percentiles(s->e2e);
  r->wait_s = sim_sketch_percentiles(s->wait);
  r->ttft_mean_s = sim_sketch_mean(s->ttft);
  r->tpot_mean_s = sim_sketch_mean(s->tpot);
  r->e2e_mean_s = sim_sketch_mean(s->e2e);
  r->wait_mean_s = sim_sketch_mean(s->wait);
  r->goodput = s->counted > 0 ? (double)s->good / (double)s->counted : 0;
  resources_used(s);
  if (s->now == 0) return;
  r->in_system = s->in_system_ns / (double)s->now;
  r->waiting = s->waiting_ns / (double)s->now;
  r->goodput_req_per_s = (double)s->good / r->wall_s;
  r->goodput_tok_per_s = (double)s->good_tokens / r->wall_s;
}

/* *out_of_steps: most_steps were not enough, *out is not set. */
static hf_status run(const sim_options *o, bool by_steps, int64_t most_steps, sim_result *out, bool *out_of_steps) {
  sim *s = NULL;
  *out_of_steps = false;
  HF_TRY(hf_alloc(&s, 1, sizeof *s, "simulation"));
  s->o = o;
  s->most_steps = most_steps;
  hf_status st = set_up(s, by_steps);
  if (st == HF_OK) st = loop(s);
  if (st == HF_OK && s->steps >= most_steps) *out_of_steps = true;
  else if (st == HF_OK && s->r.requests == 0)
    st = s->r.refused > 0 ? hf_fail(HF_NO, "simulation: the KV pages are too few for the requests to run")
                          : hf_fail(HF_NO, "simulation: no request arrived in the time given");
  if (st == HF_OK && !*out_of_steps) {
    summarise(s);
    *out = s->r;
  }
  tear_down(s);
  return st;
}

hf_status sim_run(const sim_options *o, sim_result *out) {
  bool more = false;
  HF_TRY(check(o));
  bool layers = o->resolution == SIM_LAYERS || o->sample_routing || o->trace != NULL || o->on_request != NULL;
  if (o->resolution == SIM_STEPS) return run(o, true, INT64_MAX, out, &more);
  if (layers) return run(o, false, INT64_MAX, out, &more);
  HF_TRY(run(o, false, SIM_LAYER_STEPS, out, &more));
  return more ? run(o, true, INT64_MAX, out, &more) : HF_OK;
}
