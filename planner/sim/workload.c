#include "planner/sim/workload.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/sim/random.h"
#include "planner/sim/trace_read.h"

typedef struct {
  int64_t at;
  int user;
} turn;

/* What a user of a closed loop has said and read so far. */
typedef struct {
  int64_t tokens;
  int turns;
} talk;

struct sim_source {
  const sim_options *o;
  sim_rng rng; /* of arrivals */
  sim_demand next;
  bool any; /* next is one */
  int64_t count, last_ns, stop_ns;
  int64_t burst_left_ns;
  turn *heap; /* closed loop: whose turn is when, by (at, user) */
  int64_t *sent;
  talk *talk;      /* with sessions */
  int64_t longest; /* conversation */
  bool sessions;
  int n_heap;
  sim_trace *trace;
};

static const double NS = 1e9;

/* ---- closed loop: a heap of users ---- */

static bool earlier(const turn *a, const turn *b) {
  return a->at != b->at ? a->at < b->at : a->user < b->user;
}

static void turn_push(sim_source *s, turn t) {
  int i = s->n_heap++;
  for (; i > 0 && earlier(&t, &s->heap[(i - 1) / 2]); i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
  s->heap[i] = t;
}

static turn turn_pop(sim_source *s) {
  turn top = s->heap[0], last = s->heap[--s->n_heap];
  int i = 0;
  for (int c; (c = 2 * i + 1) < s->n_heap; i = c) {
    if (c + 1 < s->n_heap && earlier(&s->heap[c + 1], &s->heap[c])) c++;
    if (!earlier(&s->heap[c], &last)) break;
    s->heap[i] = s->heap[c];
  }
  s->heap[i] = last;
  return top;
}

/* ---- lengths ---- */

static int clip(double n, int most) {
  if (!(n >= 1)) return 1;
  return n >= most ? most : (int)n;
}

static int length_of(const sim_options *o, sim_rng *r, int mean) {
  double f = 1;
  switch (o->lengths) {
    case SIM_LENGTHS_UNIFORM: f = 1 + o->length_spread * (2 * sim_uniform(r) - 1); break;
    case SIM_LENGTHS_LOGNORMAL: {
      double variance = sim_log(1 + o->length_cv * o->length_cv);
      f = sim_exp(__builtin_sqrt(variance) * sim_normal(r) - 0.5 * variance);
      break;
    }
    case SIM_LENGTHS_EXPONENTIAL:
      /* The least whole number above a draw with this mean is geometric; its mean is `mean`. */
      if (mean < 2) return 1;
      return clip(1 + (double)(int64_t)(sim_exponential(r) / -sim_log(1 - 1.0 / mean)), SIM_MOST_TOKENS);
  }
  return clip((double)sim_round(mean * f), SIM_MOST_TOKENS);
}

static void draw(const sim_source *s, sim_demand *d) {
  sim_rng r = sim_rng_of(s->o->seed, (uint64_t)d->number + 1);
  d->prompt = length_of(s->o, &r, s->o->prompt_tokens);
  d->output = length_of(s->o, &r, s->o->output_tokens);
}

/* The turn comes behind what there is, or begins anew where it would become too long. */
static void go_on(sim_source *s, int user, sim_demand *d) {
  const sim_options *o = s->o;
  talk *t = &s->talk[user];
  if ((o->turns > 0 && t->turns >= o->turns) || t->tokens + d->prompt + d->output > s->longest) *t = (talk){0};
  d->begins = t->turns == 0;
  int64_t prompt = (t->turns == 0 ? o->shared_tokens : t->tokens) + d->prompt;
  if (prompt > SIM_MOST_TOKENS) prompt = SIM_MOST_TOKENS;
  d->prompt = (int)prompt;
  d->session = (uint64_t)user + 1;
  t->tokens = prompt + d->output;
  t->turns++;
}

static void share_prefix(const sim_options *o, sim_demand *d) {
  int64_t cached = (int64_t)(o->prefix_share * d->prompt);
  if (cached > d->cached) d->cached = (int)cached;
  if (d->cached >= d->prompt) d->cached = d->prompt - 1;
}

/* ---- open arrivals ---- */

static int64_t gap_ns(sim_source *s) {
  const sim_options *o = s->o;
  if (o->arrivals == SIM_POISSON) return sim_round(sim_exponential(&s->rng) / o->rate_per_s * NS);
  if (o->arrivals == SIM_GAMMA) {
    if (o->cv == 0) return sim_round(NS / o->rate_per_s);
    return sim_round(sim_gamma(&s->rng, 1 / (o->cv * o->cv)) / o->rate_per_s * NS);
  }
  double within = o->rate_per_s * (o->burst_on_s + o->burst_off_s) / o->burst_on_s;
  int64_t left = sim_round(sim_exponential(&s->rng) / within * NS), gap = 0;
  while (left > s->burst_left_ns) {
    left -= s->burst_left_ns;
    gap += s->burst_left_ns + sim_round(sim_exponential(&s->rng) * o->burst_off_s * NS);
    s->burst_left_ns = sim_round(sim_exponential(&s->rng) * o->burst_on_s * NS);
  }
  s->burst_left_ns -= left;
  return gap + left;
}

static hf_status fetch(sim_source *s) {
  const sim_options *o = s->o;
  s->any = false;
  if (o->arrivals == SIM_CLOSED) return HF_OK;
  if (o->requests > 0 && s->count >= o->requests) return HF_OK;
  sim_demand d = {.number = s->count};
  if (o->arrivals == SIM_TRACE) {
    sim_trace_line line;
    bool any = false;
    HF_TRY(sim_trace_next(s->trace, &line, &any));
    if (!any) return HF_OK;
    double stretch = o->trace_stretch > 0 ? o->trace_stretch : 1;
    d.arrival_ns = stretch == 1 ? line.arrival_ns : sim_round((double)line.arrival_ns * stretch);
    d.prompt = line.prompt;
    d.output = line.output;
    d.cached = line.cached;
    d.session = line.session;
  } else {
    int64_t gap = gap_ns(s);
    if (gap > INT64_MAX / 4 - s->last_ns) return HF_OK;
    d.arrival_ns = s->last_ns + gap;
    draw(s, &d);
  }
  if (d.arrival_ns > s->stop_ns) return HF_OK;
  share_prefix(o, &d);
  s->last_ns = d.arrival_ns;
  s->next = d;
  s->any = true;
  s->count++;
  return HF_OK;
}

/* ---- interface ---- */

static hf_status start(sim_source *s) {
  const sim_options *o = s->o;
  s->rng = sim_rng_of(o->seed, 0);
  s->stop_ns = o->duration_s > 0 ? sim_round(o->duration_s * NS) : INT64_MAX / 4;
  if (o->arrivals == SIM_CLOSED) {
    HF_TRY(hf_alloc(&s->heap, (size_t)o->users, sizeof *s->heap, "simulated users"));
    HF_TRY(hf_alloc(&s->sent, (size_t)o->users, sizeof *s->sent, "simulated users"));
    for (int u = 0; u < o->users; u++) turn_push(s, (turn){0, u});
    s->sessions = o->sessions;
    if (o->sessions) HF_TRY(hf_alloc(&s->talk, (size_t)o->users, sizeof *s->talk, "simulated users"));
    s->longest = o->max_context > 0 ? o->max_context : (int64_t)o->n_pages * o->page_tokens;
  }
  if (o->arrivals == SIM_TRACE) HF_TRY(sim_trace_open(o->trace_path, &s->trace));
  if (o->arrivals == SIM_BURSTY) s->burst_left_ns = sim_round(sim_exponential(&s->rng) * o->burst_on_s * NS);
  HF_TRY(fetch(s));
  if (o->arrivals == SIM_TRACE) s->sessions = s->any && s->next.session != 0;
  return HF_OK;
}

bool sim_source_sessions(const sim_source *s) {
  return s->sessions;
}

hf_status sim_source_new(const sim_options *o, sim_source **out) {
  sim_source *s = NULL;
  HF_TRY(hf_alloc(&s, 1, sizeof *s, "simulated requests"));
  s->o = o;
  hf_status st = start(s);
  if (st != HF_OK) sim_source_free(s);
  else *out = s;
  return st;
}

void sim_source_free(sim_source *s) {
  if (s == NULL) return;
  sim_trace_close(s->trace);
  free(s->heap);
  free(s->sent);
  free(s->talk);
  free(s);
}

int64_t sim_source_peek(const sim_source *s) {
  if (s->o->arrivals == SIM_CLOSED) return s->n_heap > 0 ? s->heap[0].at : INT64_MAX;
  return s->any ? s->next.arrival_ns : INT64_MAX;
}

hf_status sim_source_pop(sim_source *s, sim_demand *out) {
  if (s->o->arrivals != SIM_CLOSED) {
    *out = s->next;
    return fetch(s);
  }
  turn t = turn_pop(s);
  *out = (sim_demand){.number = t.user + s->sent[t.user] * s->o->users, .arrival_ns = t.at};
  s->sent[t.user]++;
  draw(s, out);
  if (s->talk != NULL) go_on(s, t.user, out);
  share_prefix(s->o, out);
  return HF_OK;
}

void sim_source_ended(sim_source *s, int64_t number, int64_t now_ns) {
  const sim_options *o = s->o;
  if (o->arrivals != SIM_CLOSED) return;
  int user = (int)(number % o->users);
  if (o->requests_per_user > 0 && s->sent[user] >= o->requests_per_user) return;
  double think = o->think_s;
  if (think > 0 && o->think_exponential) {
    sim_rng r = sim_rng_of(~o->seed, (uint64_t)number + 1);
    think *= sim_exponential(&r);
  }
  int64_t at = now_ns + sim_round(think * NS);
  if (at <= s->stop_ns) turn_push(s, (turn){at, user});
}
