/* recommend_choices.c: without limits there is more than the cheapest to look for: the knee and the fastest. */
#include "planner/ask/recommend_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- without limits: the knee and the fastest ---- */

typedef enum { FOR_VALUE, FOR_RATE } aim;

typedef struct {
  combo c;
  double most;         /* tokens/s that its bandwidth allows */
  recommend_rule rule; /* RULE_N: not settled */
  bool outdone;        /* in this round */
} spot;

static double bound_of(const spot *p, aim a) {
  return a == FOR_RATE ? p->most : p->most / p->c.key;
}

static int by_bound(const spot *x, const spot *y, aim a) {
  double d = bound_of(y, a) - bound_of(x, a);
  if (d != 0) return d < 0 ? -1 : 1;
  return search_before(&x->c, &y->c) ? -1 : 1;
}
static int by_value(const void *a, const void *b) {
  return by_bound(a, b, FOR_VALUE);
}
static int by_rate(const void *a, const void *b) {
  return by_bound(a, b, FOR_RATE);
}

/* Whether the bound, what like machines reached of theirs, or a machine that was planned and is as good in every part, says that it gives no more
 * than what was found. */
static bool outdone(search *s, const spot *p, aim a) {
  double need = WORTH * (a == FOR_RATE ? s->best_rate : s->best_value * p->c.key);
  const reached *like = search_reached(s, &p->c);
  if (p->most <= need || (like->n >= LIKE_ONES && p->most * like->most * SPREAD <= need)) return true;
  known k = search_figures(s, &p->c);
  for (int i = 0; i < s->n_known; i++) {
    const known *b = &s->known[i];
    double times = b->fits ? need / b->rate : 1;
    if (times >= 1 && search_no_better(s, &k, b, fmax(1, times / CLEARLY))) return true;
  }
  return false;
}

/* Puts the machine of a combination together; *taken false: it is settled, or outdone once its whole price is known. */
static hf_status take_spot(search *s, spot *p, aim a, candidate *out, bool *taken) {
  bool ok = true;
  *taken = false;
  HF_TRY(search_price(s, &p->c));
  if (!s->priced.ok || !s->priced.has_price) {
    p->rule = s->priced.ok ? RULE_UNPRICED : RULE_CONTRADICTORY;
    return HF_OK;
  }
  p->c.key = s->priced.price;
  if (s->q->budget > 0 && p->c.key > s->q->budget) {
    p->rule = RULE_BUDGET;
    return HF_OK;
  }
  p->outdone = outdone(s, p, a);
  if (p->outdone) return HF_OK;
  *out = (candidate){.c = p->c, .figures = search_figures(s, &p->c)};
  HF_TRY(search_build(s, &p->c, &out->parts, &out->machine, &ok));
  *taken = ok;
  if (!ok) p->rule = RULE_CONTRADICTORY;
  return HF_OK;
}

/* Up to BATCH combinations, best bound first, none of which another of them may settle. *first: where the next look begins. */
static hf_status gather(search *s, spot *v, int n, aim a, int *first, candidate *batch, spot **of, int *have) {
  bool behind = false; /* something before i waits */
  *have = 0;
  for (int i = *first; i < n && *have < BATCH; i++) {
    spot *p = &v[i];
    bool taken = false;
    if (p->rule == RULE_N && !p->outdone) p->outdone = outdone(s, p, a);
    if (p->rule == RULE_N && !p->outdone && search_waits_for(s, &p->c, batch, *have)) {
      behind = true;
      continue;
    }
    if (p->rule == RULE_N && !p->outdone) HF_TRY(take_spot(s, p, a, &batch[*have], &taken));
    if (taken) of[(*have)++] = p;
    if (!behind) *first = i + 1;
  }
  return HF_OK;
}

static hf_status improve(search *s, spot *v, int n, aim a) {
  int64_t limit = s->out->planned + RECOMMEND_MOST_CHOICES;
  candidate *batch = NULL;
  spot *of[BATCH];
  int first = 0, have = 1;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&batch, BATCH, sizeof *batch, "candidates"));
  for (int i = 0; i < n; i++) v[i].outdone = false;
  qsort(v, (size_t)n, sizeof *v, a == FOR_RATE ? by_rate : by_value);
  while (have > 0 && st == HF_OK && s->out->planned < limit) {
    st = gather(s, v, n, a, &first, batch, of, &have);
    if (st == HF_OK && have > 0) st = search_plan_batch(s, batch, have, false);
    else
      for (int i = 0; i < have; i++) ask_machine_free(batch[i].machine);
    for (int i = 0; i < have && st == HF_OK; i++) of[i]->rule = batch[i].answer.feasible ? RULE_MET : RULE_SLOW;
  }
  s->out->stopped = s->out->stopped || s->out->planned >= limit;
  free(batch);
  return st;
}

/* RULE_N: not yet. */
static recommend_rule planned_as(const search *s, const combo *c) {
  for (int i = 0; i < s->n_known; i++) {
    const known *k = &s->known[i];
    if (k->host == c->host && k->card == c->card && k->count == (c->card >= 0 ? c->count : 0) && k->format == c->format)
      return k->fits ? RULE_MET : RULE_SLOW;
  }
  return RULE_N;
}

/* counts: of what was settled before. */
static hf_status find_choices(search *s, spot *v, int n, const int64_t counts[RULE_N]) {
  recommend_result *o = s->out;
  for (int i = 0; i < n; i++) v[i].rule = planned_as(s, &v[i].c);
  HF_TRY(improve(s, v, n, FOR_VALUE));
  HF_TRY(improve(s, v, n, FOR_RATE));
  memcpy(o->counts, counts, RULE_N * sizeof *counts); /* each is counted once */
  for (int i = 0; i < n; i++) {
    recommend_rule rule = v[i].rule;
    if (rule == RULE_N)
      rule = v[i].most <= WORTH * s->best_rate ? RULE_ROOFLINE : v[i].outdone || !o->stopped ? RULE_DOMINATED : RULE_DEARER;
    o->counts[rule]++;
  }
  return HF_OK;
}

/* The cheapest first, as with limits; then what more money brings. */
hf_status search_visit_choices(search *s) {
  recommend_result *o = s->out;
  int64_t counts[RULE_N];
  int n = s->n_heap;
  spot *v = NULL;
  memcpy(counts, o->counts, sizeof counts);
  HF_TRY(hf_alloc(&v, (size_t)n + 1, sizeof *v, "combinations"));
  for (int i = 0; i < n; i++) {
    roofline r = search_bandwidths(s, &s->heap[i]);
    v[i] = (spot){.c = s->heap[i], .most = roofline_tok_per_s(&r), .rule = RULE_N};
  }
  hf_status st = search_visit(s, s->heap, &s->n_heap, false);
  if (st == HF_OK && o->n > 0 && s->q->prune) st = find_choices(s, v, n, counts);
  free(v);
  return st;
}
