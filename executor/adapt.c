/* adapt.c: see adapt.h. */
#include "executor/adapt.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "executor/adapt_ask.h"
#include "executor/residency.h"

/* Steady decode so far. */
typedef struct {
  double tokens, s;
} mark;

struct adapt {
  adapt_options o;
  adapt_question q;
  enum { WAITING, ASKING, MOVING, WATCHING, GOING_BACK, OFF } state;
  int64_t start_ns, next_ns;   /* of serving; when there is something to do, in WAITING and WATCHING */
  int64_t hold_ns;             /* nothing is asked before */
  int backs;                   /* one after another */
  serve_stats last;            /* counts at the last look */
  bool halve;                  /* those of the window, at the next look */
  mark at[2];                  /* at the last look and the one before */
  mark begun;                  /* of watching */
  plan *before;                /* what the change at work replaces */
  uint8_t *residency, *target; /* [cells] before; ordered */
  int looks, asked, failed, declined;
  adapt_change change[ADAPT_MOST_CHANGES];
  int n_changes;
};

const char *adapt_outcome_name(adapt_outcome o) {
  static const char *const name[] = {"moving", "watched", "kept", "not judged", "taken back", "cut short"};
  return name[o];
}

static size_t cells(const adapt *a) {
  return (size_t)a->o.p->n_layers * (size_t)a->o.p->n_experts;
}

static size_t stages(const adapt *a) {
  return 2 * ((size_t)a->o.p->n_layers + 1) * DEV_STAGE_N;
}

static hf_status counts_new(const adapt *a, serve_stats *s) {
  s->n_layers = a->o.p->n_layers;
  s->n_experts = a->o.p->n_experts;
  s->max_tok = -1; /* hf-plan counts distinct experts from stage times where there are some */
  HF_TRY(hf_alloc(&s->routing, 2 * cells(a) + 1, sizeof *s->routing, "routing counts"));
  return hf_alloc(&s->stage, stages(a), sizeof *s->stage, "stage times");
}

static hf_status copy_plan(const plan *p, plan **out) {
  json *doc = NULL;
  HF_TRY(plan_to_json(p, &doc));
  hf_status st = plan_read_json(doc, "plan", out);
  json_free(doc);
  return st;
}

hf_status adapt_new(const adapt_options *o, adapt **out) {
  adapt *a = NULL;
  hf_status st;
  HF_TRY(hf_alloc(&a, 1, sizeof *a, "adapting"));
  a->o = *o;
  a->q.db_path = a->o.db_path;
  a->q.run = o->run;
  snprintf(a->q.run.status, sizeof a->q.run.status, "running");
  a->q.users = o->users;
  a->q.context = o->context;
  a->q.chunk_tokens = o->chunk_tokens;
  a->q.cpus = o->cpus;
  HF_GO(fail, counts_new(a, &a->q.counts));
  HF_GO(fail, counts_new(a, &a->last));
  HF_GO(fail, hf_alloc(&a->residency, cells(a), 1, "adapting"));
  HF_GO(fail, hf_alloc(&a->target, cells(a), 1, "adapting"));
  HF_GO(fail, copy_plan(o->p, &a->q.now));
  *out = a;
  return HF_OK;
fail:
  adapt_free(a);
  return st;
}

void adapt_free(adapt *a) {
  if (!a) return;
  ask_give_up(&a->q);
  plan_free(a->q.answer);
  plan_free(a->q.now);
  plan_free(a->before);
  serve_stats_free(&a->q.counts);
  serve_stats_free(&a->last);
  free(a->residency);
  free(a->target);
  free(a);
}

static double seconds_of(const adapt *a, int64_t ns) {
  return (double)(ns - a->start_ns) * 1e-9;
}

static mark mark_now(const adapt *a) {
  return (mark){a->o.live->decode_tokens, a->o.live->decode_s};
}

/* Too little steady decode says nothing: 0. */
static double rate_since(const adapt *a, const mark *from) {
  static const double LEAST_PART = 0.2;
  const mark now = mark_now(a);
  return now.s - from->s >= LEAST_PART * a->o.every_s ? (now.tokens - from->tokens) / (now.s - from->s) : 0;
}

static void wait_on(adapt *a, int64_t now) {
  a->state = WAITING;
  a->next_ns = now + (int64_t)(a->o.every_s * 1e9);
  if (a->next_ns < a->hold_ns) a->next_ns = a->hold_ns;
}

static void tell_failed(adapt *a, const char *why) {
  a->failed++;
  hf_log(HF_LOG_INFO, "adapting: no other plan: %s", why);
}

/* ---- the window ---- */

static void add_count(int64_t *sum, int64_t *last, int64_t now, bool halve) {
  *sum = (halve ? *sum / 2 : *sum) + now - *last;
  *last = now;
}

static void add_time(double *sum, double *last, double now, bool halve) {
  *sum = (halve ? *sum / 2 : *sum) + now - *last;
  *last = now;
}

static void add_stage(struct serve_stage *sum, struct serve_stage *last, const struct serve_stage *now, bool halve) {
  add_count(&sum->steps, &last->steps, now->steps, halve);
  add_count(&sum->tokens, &last->tokens, now->tokens, halve);
  add_count(&sum->distinct, &last->distinct, now->distinct, halve);
  add_time(&sum->ns, &last->ns, now->ns, halve);
  add_time(&sum->ns_sq, &last->ns_sq, now->ns_sq, halve);
}

/* What was counted since the last look joins the window. */
static void look(adapt *a) {
  serve_stats *w = &a->q.counts, *last = &a->last;
  const serve_stats *now = a->o.live;
  for (size_t i = 0; i < 2 * cells(a); i++) add_count(&w->routing[i], &last->routing[i], now->routing[i], a->halve);
  for (size_t i = 0; i < stages(a); i++) add_stage(&w->stage[i], &last->stage[i], &now->stage[i], a->halve);
  for (int ph = 0; ph < 2; ph++) {
    add_count(&w->step_n[ph], &last->step_n[ph], now->step_n[ph], a->halve);
    add_time(&w->step_ns_sum[ph], &last->step_ns_sum[ph], now->step_ns_sum[ph], a->halve);
    add_time(&w->step_ns_sq[ph], &last->step_ns_sq[ph], now->step_ns_sq[ph], a->halve);
  }
  a->halve = false;
  a->looks++;
  a->at[1] = a->at[0];
  a->at[0] = mark_now(a);
}

/* Stage times of another placement are of no use. */
static void forget_times(adapt *a) {
  serve_stats *w = &a->q.counts;
  look(a);
  memset(w->stage, 0, stages(a) * sizeof *w->stage);
  for (int ph = 0; ph < 2; ph++) w->step_n[ph] = 0, w->step_ns_sum[ph] = w->step_ns_sq[ph] = 0;
}

static bool enough(const adapt *a) {
  const plan *p = a->o.p;
  for (int l = 0; l < p->n_layers; l++) {
    int64_t sum = 0;
    if (!p->layer[l].moe) continue;
    for (int x = 0; x < p->n_experts; x++) sum += a->q.counts.routing[cells(a) + (size_t)l * (size_t)p->n_experts + (size_t)x];
    return sum >= (int64_t)ADAPT_LEAST_CHOICES * p->n_experts;
  }
  return false;
}

static void begin_asking(adapt *a, int64_t now) {
  look(a);
  if (!enough(a)) {
    wait_on(a, now);
    return;
  }
  a->halve = true;
  a->asked++;
  a->state = ASKING;
  if (ask_begin(&a->q) == HF_OK) return;
  tell_failed(a, hf_error_line());
  hf_clear_error();
  wait_on(a, now);
}

/* ---- changes ---- */

/* The plan that describes the placement as it is. */
static void describe_residency(const adapt *a, plan *p) {
  for (int l = 0; l < p->n_layers; l++) {
    const uint8_t *r = engine_residency(a->o.e, l);
    for (int x = 0; p->layer[l].device && x < p->n_experts; x++) p->layer[l].device[x] = r[x] ? 0 : -1;
  }
}

static adapt_change *newest(adapt *a) {
  return &a->change[a->n_changes - 1];
}

/* Worth it: see adapt.h. */
static bool pays(const adapt *a, const residency_order *order) {
  const double rate = (double)engine_opts(a->o.e)->move_bytes_per_s, s = rate > 0 ? (double)order->bytes / rate : 0;
  return order->pairs > 0 && a->q.gain >= ADAPT_LEAST_GAIN && a->q.gain * ADAPT_PAYBACK_S >= s;
}

static void keep_residency(adapt *a) {
  for (int l = 0; l < a->o.p->n_layers; l++)
    memcpy(a->residency + (size_t)l * (size_t)a->o.p->n_experts, engine_residency(a->o.e, l), (size_t)a->o.p->n_experts);
}

static void begin_moving(adapt *a, int64_t now) {
  const plan *p = a->q.answer;
  residency_order order;
  for (int l = 0; l < p->n_layers; l++)
    for (int x = 0; x < p->n_experts; x++)
      a->target[(size_t)l * (size_t)p->n_experts + (size_t)x] = p->layer[l].moe && p->layer[l].device[x] >= 0;
  keep_residency(a);
  hf_status st = engine_move_look(a->o.e, a->target, &order);
  const bool worth = st == HF_OK && a->n_changes < ADAPT_MOST_CHANGES && pays(a, &order);
  if (worth) engine_move_begin(a->o.e);
  if (st != HF_OK) {
    tell_failed(a, hf_error_line());
    hf_clear_error();
  }
  if (st != HF_OK || !worth) {
    a->declined += st == HF_OK;
    if (st == HF_OK)
      hf_log(HF_LOG_DEBUG, "adapting: %d pairs of experts would give %+.1f %%: left as they are", order.pairs, 100 * a->q.gain);
    wait_on(a, now);
    return;
  }
  const double recent = rate_since(a, &a->at[0]);
  a->change[a->n_changes++] = (adapt_change){.at_s = seconds_of(a, now),
                                             .pairs = order.pairs,
                                             .left_out = order.left_out,
                                             .bytes = order.bytes,
                                             .gain = a->q.gain,
                                             .before_tok_per_s = recent > 0 ? recent : rate_since(a, &a->at[1]),
                                             .outcome = ADAPT_MOVING};
  a->state = MOVING;
  hf_log(HF_LOG_INFO, "adapting: %d pairs of experts change places (%.1f MB), %+.1f %% tokens/s expected", order.pairs,
         (double)order.bytes * 1e-6, 100 * a->q.gain);
}

static void begin_watching(adapt *a, int64_t now) {
  newest(a)->moved_s = seconds_of(a, now);
  newest(a)->outcome = ADAPT_WATCHED;
  plan_free(a->before);
  a->before = a->q.now;
  a->q.now = a->q.answer;
  a->q.answer = NULL;
  a->q.now->id = 0; /* no row yet */
  describe_residency(a, a->q.now);
  forget_times(a);
  a->begun = mark_now(a);
  a->state = WATCHING;
  a->next_ns = now + (int64_t)(a->o.every_s * 1e9);
}

static void begin_going_back(adapt *a, int64_t now) {
  residency_order order;
  const int doubled = a->backs < 10 ? a->backs : 10;
  a->backs++;
  a->hold_ns = now + (int64_t)(a->o.every_s * 1e9 * (double)((int64_t)ADAPT_HOLD << doubled));
  a->state = GOING_BACK;
  if (engine_move_to(a->o.e, a->residency, &order) == HF_OK) return;
  tell_failed(a, hf_error_line()); /* nothing moves: what is there stays */
  hf_clear_error();
}

static void judge(adapt *a, int64_t now) {
  enum { LONGEST = 4 };
  adapt_change *c = newest(a);
  c->after_tok_per_s = rate_since(a, &a->begun);
  const bool late = now >= a->next_ns + (int64_t)((LONGEST - 1) * a->o.every_s * 1e9);
  if (!(c->after_tok_per_s > 0) && !late) return;
  const bool known = c->after_tok_per_s > 0 && c->before_tok_per_s > 0;
  c->measured = known ? c->after_tok_per_s / c->before_tok_per_s - 1 : 0;
  c->outcome = !known ? ADAPT_NOT_JUDGED : c->measured < -ADAPT_NOISE ? ADAPT_BACK : ADAPT_KEPT;
  hf_log(HF_LOG_INFO, "adapting: %.1f tokens/s after, %.1f before (%+.1f %%, %+.1f %% expected): %s", c->after_tok_per_s,
         c->before_tok_per_s, 100 * c->measured, 100 * c->gain, adapt_outcome_name(c->outcome));
  if (c->outcome == ADAPT_BACK) {
    begin_going_back(a, now);
    return;
  }
  if (known) a->backs = 0;
  wait_on(a, now);
}

/* Where the way back has ended. */
static void be_back(adapt *a, int64_t now) {
  plan *p = a->q.now;
  bool all = true;
  for (int l = 0; l < a->o.p->n_layers && all; l++)
    all = !memcmp(a->residency + (size_t)l * (size_t)a->o.p->n_experts, engine_residency(a->o.e, l), (size_t)a->o.p->n_experts);
  if (all) {
    a->q.now = a->before;
    a->before = p;
  } else {
    newest(a)->outcome = ADAPT_CUT_SHORT;
    p->id = 0;
    describe_residency(a, p);
  }
  forget_times(a);
  wait_on(a, now);
}

static void take_answer(adapt *a, int64_t now) {
  if (a->q.st == HF_OK) {
    begin_moving(a, now);
    return;
  }
  tell_failed(a, a->q.why);
  wait_on(a, now);
}

static void turn_off(adapt *a) {
  if (a->state == MOVING || a->state == WATCHING || a->state == GOING_BACK) newest(a)->outcome = ADAPT_CUT_SHORT;
  a->state = OFF;
}

void adapt_step(adapt *a) {
  const int64_t now = hf_now_ns();
  if (a->state == OFF) return;
  if (!engine_opts(a->o.e)->movable) { /* the device is lost, or moves have been given up */
    ask_stop(&a->q);                   /* nobody waits for it here: adapt_end does */
    turn_off(a);
    return;
  }
  if (a->start_ns == 0) {
    a->start_ns = now;
    wait_on(a, now);
  }
  if (a->state == WAITING && now >= a->next_ns) begin_asking(a, now);
  else if (a->state == ASKING && ask_ended(&a->q)) take_answer(a, now);
  else if (a->state == MOVING && !engine_moving(a->o.e)) begin_watching(a, now);
  else if (a->state == WATCHING && now >= a->next_ns) judge(a, now);
  else if (a->state == GOING_BACK && !engine_moving(a->o.e)) be_back(a, now);
}

void adapt_end(adapt *a) {
  ask_give_up(&a->q);
  turn_off(a);
}

/* ---- what is told ---- */

int adapt_changes(const adapt *a) {
  return a->n_changes;
}

const adapt_change *adapt_get(const adapt *a, int i) {
  return &a->change[i];
}

static void change_json(const adapt_change *c, json *list) {
  json *o = json_add_object(list, NULL);
  json_add_num(o, "at_s", c->at_s);
  if (c->moved_s > 0) json_add_num(o, "moved_s", c->moved_s);
  json_add_int(o, "pairs", c->pairs);
  json_add_int(o, "left_out", c->left_out);
  json_add_int(o, "bytes", c->bytes);
  json_add_num(o, "gain_expected", c->gain);
  if (c->outcome == ADAPT_KEPT || c->outcome == ADAPT_BACK) json_add_num(o, "gain_measured", c->measured);
  else json_add_null(o, "gain_measured");
  json_add_num(o, "before_tok_per_s", c->before_tok_per_s);
  json_add_num(o, "after_tok_per_s", c->after_tok_per_s);
  json_add_str(o, "outcome", adapt_outcome_name(c->outcome));
}

void adapt_json(const adapt *a, json *into) {
  json *o = json_add_object(into, "adapt");
  json_add_int(o, "looks", a->looks);
  json_add_int(o, "asked", a->asked);
  json_add_int(o, "failed", a->failed);
  json_add_int(o, "declined", a->declined);
  json *list = json_add_array(o, "changes");
  for (int i = 0; i < a->n_changes; i++) change_json(&a->change[i], list);
}

static void words(const adapt_change *c, char *out, size_t n) {
  char measured[48] = "";
  if (c->outcome == ADAPT_KEPT || c->outcome == ADAPT_BACK)
    snprintf(measured, sizeof measured, ", %+.1f %% measured", 100 * c->measured);
  snprintf(out, n, "%d pairs of experts changed places (%.1f MB), %+.1f %% tokens/s expected%s: %s", c->pairs,
           (double)c->bytes * 1e-6, 100 * c->gain, measured, adapt_outcome_name(c->outcome));
}

void adapt_print(const adapt *a) {
  char text[256];
  printf("  adapting: hf-plan was asked %d times, experts changed places %d times\n", a->asked, a->n_changes);
  for (int i = 0; i < a->n_changes; i++) {
    words(&a->change[i], text, sizeof text);
    printf("    after %.3g s %s\n", a->change[i].at_s, text);
  }
}

hf_status adapt_record(const adapt *a, db *d, int64_t run_id) {
  for (int i = 0; i < a->n_changes; i++) {
    rec_event r = {.run_id = run_id, .at_ns = (int64_t)(a->change[i].at_s * 1e9), .kind = "replan"};
    words(&a->change[i], r.detail, sizeof r.detail);
    HF_TRY(db_event_put(d, &r));
  }
  return HF_OK;
}
