/* recommend_finish.c: from what the search kept to the answer: what is named is planned in full, ranked, and told why it failed. */
#include "planner/ask/recommend_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- ranking ---- */

/* Prices by class; what is left of the machine's price is the platform. */
static void price_classes(const cost_rows *r, regret_choice *c) {
  cost_figure total = {0}, f;
  double known_sum[3] = {0};
  memset(c->price, 0, sizeof c->price);
  for (int i = 0; i < r->n_device; i++) {
    const rec_device *d = &r->device[i];
    int k = strcmp(d->kind, "gpu") == 0 ? REGRET_GPU_PRICE : REGRET_CPU_PRICE;
    for (int part = 0; part < 2; part++) {
      if (!cost_find(r, d->device, part == 0 ? "price_usd" : "price_memory_usd", &f)) continue;
      double *p = c->price[part == 0 ? k : REGRET_MEMORY_PRICE];
      const double v[3] = {f.low, f.likely, f.high};
      for (int e = 0; e < 3; e++) {
        p[e] += v[e];
        known_sum[e] += v[e];
      }
    }
  }
  if (!cost_find(r, "", "price_usd", &total)) return;
  const double v[3] = {total.low, total.likely, total.high};
  for (int e = 0; e < 3; e++) c->price[REGRET_OTHER_PRICE][e] = fmax(0, v[e] - known_sum[e]);
  for (int e = 1; e < 3; e++)
    if (c->price[REGRET_OTHER_PRICE][e] < c->price[REGRET_OTHER_PRICE][e - 1])
      c->price[REGRET_OTHER_PRICE][e] = c->price[REGRET_OTHER_PRICE][e - 1];
}

static int by_price(const void *a, const void *b) {
  const recommend_entry *x = a, *y = b;
  if (x->c.price.likely != y->c.price.likely) return x->c.price.likely < y->c.price.likely ? -1 : 1;
  if (x->shortfall != y->shortfall) return x->shortfall < y->shortfall ? -1 : 1;
  return strcmp(x->parts.name, y->parts.name);
}

static void corner_text(const int *level, char out[200]) {
  size_t used = 0;
  out[0] = '\0';
  for (int f = 0; f < REGRET_N_FACTORS && used < 200; f++)
    if (level[f] != 1)
      used += (size_t)snprintf(out + used, 200 - used, "%s%s %s", used > 0 ? ", " : "", regret_factor_name(f),
                               f < COST_N_GROUPS ? (level[f] == 0 ? "slow" : "fast")
                               : level[f] == 0   ? "dear"
                                                 : "cheap");
}

/* Takes out what costs at least as much as a cheaper one at every end of its price, and is in nothing better: a second GPU that adds nothing. */
static void drop_no_better(recommend_result *o) {
  int kept = 0;
  for (int i = 0; i < o->n; i++) {
    const ask_case *c = &o->entry[i].c;
    bool useless = false;
    for (int k = 0; k < kept && !useless; k++) {
      const ask_case *b = &o->entry[k].c;
      useless = strcmp(c->format, b->format) == 0 && c->price.low >= b->price.low && c->price.likely >= b->price.likely &&
                c->price.high >= b->price.high && c->tok_per_s_wall <= 1.001 * b->tok_per_s_wall &&
                c->decode_tok_per_s.likely <= 1.001 * b->decode_tok_per_s.likely &&
                c->decode_tok_per_s.low <= 1.001 * b->decode_tok_per_s.low &&
                c->decode_tok_per_s.high <= 1.001 * b->decode_tok_per_s.high && c->tpot_s.p95 >= 0.999 * b->tpot_s.p95 &&
                c->ttft_s.p95 >= 0.999 * b->ttft_s.p95;
    }
    if (useless) continue;
    if (kept != i) o->entry[kept] = o->entry[i];
    kept++;
  }
  o->n = kept;
}

static void add_variant(recommend_entry *e, const ask_case *c) {
  if (e->n_variants == RECOMMEND_VARIANTS) return;
  recommend_variant *v = &e->variant[e->n_variants++];
  *v = (recommend_variant){.tok_per_s_wall = c->tok_per_s_wall, .ttft_p95_s = c->ttft_s.p95, .tpot_p95_s = c->tpot_s.p95};
  snprintf(v->format, sizeof v->format, "%s", c->format);
}

/* One machine is one choice: of the formats that meet the demand on it the fastest stands for it, the others beside it. */
static void merge_formats(recommend_result *o) {
  int kept = 0;
  for (int i = 0; i < o->n; i++) {
    int at = 0;
    while (at < kept && !search_same_machine(&o->entry[at], &o->entry[i])) at++;
    if (at == kept) {
      if (kept != i) o->entry[kept] = o->entry[i];
      kept++;
      continue;
    }
    recommend_entry *e = &o->entry[at];
    if (o->entry[i].c.tok_per_s_wall > e->c.tok_per_s_wall) {
      recommend_entry faster = o->entry[i];
      faster.n_variants = e->n_variants;
      memcpy(faster.variant, e->variant, sizeof e->variant);
      add_variant(&faster, &e->c);
      *e = faster;
    } else {
      add_variant(e, &o->entry[i].c);
    }
  }
  o->n = kept;
}

/* A case of an entry in full, at the depth at which it was judged. */
static ask_case_spec entry_spec(const search *s, const recommend_entry *e, const ask_machine *machine) {
  ask_case_spec spec = {.machine = machine, .req = *s->req, .slo = s->q->slo, .scenario = s->scenario, .quick = true};
  if (e->format[0] != '\0') spec.req.format = e->format;
  if (ask_machine_facts_of(machine)->n_gpus == 0) spec.req.gpu = "none";
  snprintf(spec.name, sizeof spec.name, "%.95s", e->parts.name);
  return spec;
}

/* The search stops at placements that are nearly the best; planned in full one may turn out just over a limit. */
static void drop_missed(recommend_result *o) {
  int kept = 0;
  for (int i = 0; i < o->n; i++) {
    if (o->entry[i].shortfall <= 1) o->entry[kept++] = o->entry[i];
    else {
      o->counts[RULE_MET]--;
      o->counts[RULE_SLO]++;
    }
  }
  o->n = kept;
}

/* The knee and the fastest of what was planned in full. What is held against the others is what serving as much as the knee does costs. */
static void name_choices(recommend_result *o) {
  o->knee = o->quickest = 0;
  for (int i = 1; i < o->n; i++) {
    if (search_value_of(&o->entry[i]) > search_value_of(&o->entry[o->knee])) o->knee = i;
    if (o->entry[i].c.tok_per_s_wall > o->entry[o->quickest].c.tok_per_s_wall) o->quickest = i;
  }
  for (int i = 0; i < o->n; i++) o->entry[i].choice.need = o->entry[o->knee].c.tok_per_s_wall / o->entry[i].c.tok_per_s_wall;
}

int recommend_lead_at(const recommend_result *r) {
  return r->choices ? r->knee : 0;
}

const recommend_entry *recommend_lead(const recommend_result *r) {
  return &r->entry[recommend_lead_at(r)];
}

/* Pairs of which one is at most as dear in every part at every end of its price, and as fast at every end of its rate and in the limits. */
static void note_no_worse(recommend_result *o) {
  for (int i = 0; i < o->n; i++) {
    const recommend_entry *a = &o->entry[i];
    o->entry[i].choice.no_worse_than = 0;
    for (int k = 0; k < o->n; k++) {
      const recommend_entry *b = &o->entry[k];
      bool so = k != i && a->c.tok_per_s_wall >= b->c.tok_per_s_wall && a->choice.need <= b->choice.need &&
                a->choice.fixed_need <= fmax(1, b->choice.fixed_need) && a->c.decode_tok_per_s.low >= b->c.decode_tok_per_s.low &&
                a->c.decode_tok_per_s.likely >= b->c.decode_tok_per_s.likely &&
                a->c.decode_tok_per_s.high >= b->c.decode_tok_per_s.high;
      for (int p = 0; p < REGRET_N_PRICES && so; p++)
        for (int e = 0; e < 3; e++) so = so && a->choice.price[p][e] <= b->choice.price[p][e];
      if (so) o->entry[i].choice.no_worse_than |= (uint32_t)1 << k;
    }
  }
}

hf_status search_finish_entries(search *s) {
  recommend_result *o = s->out;
  ask_case_spec *spec = NULL;
  ask_case *answer = NULL;
  ask_machine *machine[REGRET_MAX_CHOICES] = {NULL};
  regret_choice choice[REGRET_MAX_CHOICES];
  hf_status st = HF_OK;
  HF_GO(done, hf_alloc(&spec, REGRET_MAX_CHOICES, sizeof *spec, "ranking"));
  HF_GO(done, hf_alloc(&answer, REGRET_MAX_CHOICES, sizeof *answer, "ranking"));
  qsort(o->entry, (size_t)o->n, sizeof *o->entry, by_price);
  while (o->choices && o->n > RECOMMEND_RANKED) search_drop_entry(o, search_least_missed(o));
  for (int i = 0; i < o->n; i++) {
    HF_GO(done, ask_machine_from_parts(&o->entry[i].parts, &machine[i]));
    spec[i] = entry_spec(s, &o->entry[i], machine[i]);
  }
  HF_GO(done, ask_evaluate_all(spec, o->n, s->threads, search_plan_finished, s, answer));
  for (int i = 0; i < o->n; i++) {
    recommend_entry *e = &o->entry[i];
    e->c = answer[i];
    double fixed = 0, need = recommend_shortfall(&e->c, &s->q->slo, &fixed), likely = e->c.decode_tok_per_s.likely;
    ask_slo moving = {.tpot_s = s->q->slo.tpot_s, .tok_per_s = s->q->slo.tok_per_s};
    e->shortfall = need;
    e->choice.need = recommend_shortfall(&e->c, &moving, NULL);
    e->choice.fixed_need = fixed;
    memcpy(e->choice.log_effect, e->c.log_effect, sizeof e->choice.log_effect);
    price_classes(ask_machine_rows(machine[i]), &e->choice);
    e->meets_low = fmax(e->choice.need * likely / e->c.decode_tok_per_s.low, fixed) <= 1;
    e->meets_high = fmax(e->choice.need * likely / e->c.decode_tok_per_s.high, fixed) <= 1;
  }
  drop_missed(o);
  drop_no_better(o);
  merge_formats(o);
  if (o->n == 0) goto done;
  if (o->choices) name_choices(o);
  note_no_worse(o);
  for (int i = 0; i < o->n; i++) choice[i] = o->entry[i].choice;
  regret_of(choice, o->n, &o->regret);
  for (int i = 0; i < o->n; i++) {
    o->entry[i].worst_regret = o->regret.worst[i];
    corner_text(o->regret.worst_at[i], o->entry[i].worst_when);
    o->entry[i].rank_by_regret = 1;
    for (int k = 0; k < o->n; k++)
      o->entry[i].rank_by_regret +=
          o->regret.worst[k] < o->regret.worst[i] || (o->regret.worst[k] == o->regret.worst[i] && k < i);
  }
done:
  for (int i = 0; i < REGRET_MAX_CHOICES; i++) ask_machine_free(machine[i]);
  free(spec);
  free(answer);
  return st;
}

/* The model's own format on the proposed machine, where it is searched and keeps to the limits. */
hf_status search_add_own_format(search *s) {
  recommend_entry *e = &s->out->entry[recommend_lead_at(s->out)];
  ask_machine *machine = NULL;
  ask_case answer;
  bool told = s->out->n == 0 || strcmp(e->c.format, s->q->own_format) == 0, searched = false;
  for (int i = 0; i < s->n_formats; i++) searched = searched || strcmp(s->format[i].label, s->q->own_format) == 0;
  for (int i = 0; !told && i < e->n_variants; i++) told = strcmp(e->variant[i].format, s->q->own_format) == 0;
  if (told || !searched) return HF_OK;
  HF_TRY(ask_machine_from_parts(&e->parts, &machine));
  ask_case_spec spec = entry_spec(s, e, machine);
  spec.req.format = s->q->own_format;
  spec.no_interval = spec.one_depth = true;
  spec.scenario = NULL;
  hf_status st = ask_evaluate(&spec, &answer);
  ask_machine_free(machine);
  if (st == HF_OK && ask_meets(&answer, &s->q->slo, NULL)) add_variant(e, &answer);
  return st;
}

static int by_shortfall(const void *a, const void *b) {
  const recommend_entry *x = a, *y = b;
  if (x->shortfall != y->shortfall) return x->shortfall < y->shortfall ? -1 : 1;
  return strcmp(x->parts.name, y->parts.name);
}

/* What is named is planned in full: in the search what failed clearly was given up early. */
hf_status search_finish_failures(search *s) {
  enum { MOST = RECOMMEND_REJECTED + 2 };
  recommend_result *o = s->out;
  recommend_entry *e[MOST];
  ask_case_spec spec[MOST] = {0};
  ask_machine *machine[MOST] = {NULL};
  ask_case *answer = NULL;
  int n = 0;
  hf_status st = HF_OK;
  for (int i = 0; i < o->n_rejected; i++)
    if (o->rejected[i].c.feasible) e[n++] = &o->rejected[i];
  if (o->n == 0 && o->has_fastest_any && o->fastest_any.c.feasible) e[n++] = &o->fastest_any;
  if (o->n == 0 && o->has_over_budget) e[n++] = &o->over_budget;
  HF_GO(done, hf_alloc(&answer, MOST, sizeof *answer, "machines that failed"));
  for (int i = 0; i < n; i++) {
    HF_GO(done, ask_machine_from_parts(&e[i]->parts, &machine[i]));
    spec[i] = entry_spec(s, e[i], machine[i]);
    spec[i].no_interval = true;
    spec[i].scenario = NULL;
  }
  HF_GO(done, ask_evaluate_all(spec, n, s->threads, search_plan_finished, s, answer));
  for (int i = 0; i < n; i++) {
    e[i]->c = answer[i];
    e[i]->rule = search_judge(s->q, &answer[i], e[i]->why);
    e[i]->shortfall = recommend_shortfall(&answer[i], &s->q->slo, NULL);
  }
done:
  for (int i = 0; i < MOST; i++) ask_machine_free(machine[i]);
  free(answer);
  return st;
}

static int by_miss(const void *a, const void *b) {
  const failure *x = a, *y = b;
  if (x->miss != y->miss) return x->miss < y->miss ? -1 : 1;
  return search_before(&x->c, &y->c) ? -1 : search_before(&y->c, &x->c);
}

/* Plans up to BATCH failures in full, for the nearest of all or of their kind. */
static hf_status plan_failures(search *s, const failure *f, int n, bool of_kind) {
  recommend_result *o = s->out;
  candidate *batch = NULL;
  ask_case_spec spec[BATCH] = {0};
  ask_case answer[BATCH] = {0};
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&batch, BATCH, sizeof *batch, "machines that failed"));
  for (int i = 0; i < n; i++) {
    bool ok = true;
    batch[i].c = f[i].c;
    HF_GO(done, search_build(s, &f[i].c, &batch[i].parts, &batch[i].machine, &ok));
    spec[i] = search_first_look_spec(s, &batch[i]);
  }
  HF_GO(done, ask_evaluate_all(spec, n, s->threads, search_plan_finished, s, answer));
  for (int i = 0; i < n; i++) {
    batch[i].answer = answer[i];
    double miss = recommend_shortfall(&answer[i], &s->q->slo, NULL);
    if (of_kind && miss > 1) search_reject(s, &batch[i]);
    if (of_kind || (o->has_fastest && miss >= o->fastest.shortfall)) continue;
    search_fill_entry(s, &batch[i], &o->fastest);
    o->has_fastest = true;
  }
done:
  for (int i = 0; i < n; i++) ask_machine_free(batch[i].machine);
  free(batch);
  return st;
}

static bool same_kind(const combo *a, const combo *b) {
  return a->card == b->card && a->count == b->count;
}

/* Machines that were settled together may be nearer than those that were planned: of each kind of GPU the likeliest one is planned, too. */
hf_status search_plan_nearer(search *s) {
  failure pick[BATCH];
  int n = 0;
  qsort(s->failed, (size_t)s->n_failed, sizeof *s->failed, by_miss);
  for (int i = 0; i < s->n_failed && n < BATCH; i++) {
    bool have = !s->failed[i].of_group;
    for (int k = 0; k < n && !have; k++) have = same_kind(&pick[k].c, &s->failed[i].c);
    if (!have) pick[n++] = s->failed[i];
  }
  return plan_failures(s, pick, n, true);
}

/* What failed clearly was given up early, so its miss is known from below only: in the order of that bound, until none can be nearer. */
hf_status search_find_nearest(search *s) {
  recommend_result *o = s->out;
  if (o->n > 0 || s->n_failed == 0) return HF_OK;
  qsort(s->failed, (size_t)s->n_failed, sizeof *s->failed, by_miss);
  for (int i = 0; i < s->n_failed && i < MOST_FAILURES && !(o->has_fastest && s->failed[i].miss >= o->fastest.shortfall);
       i += BATCH)
    HF_TRY(plan_failures(s, &s->failed[i], s->n_failed - i < BATCH ? s->n_failed - i : BATCH, false));
  for (int i = 0; i < o->n_rejected; i++) /* planned in full, too */
    if (o->rejected[i].c.feasible && o->has_fastest && o->rejected[i].shortfall < o->fastest.shortfall)
      o->fastest = o->rejected[i];
  return HF_OK;
}

/* Rules without plans tell their nearest miss too. */
hf_status search_add_near_misses(search *s) {
  static const int slots[] = {RULE_ROOFLINE, RULE_BUDGET, NEAR_BEYOND, RULE_MEMORY};
  enum { SLOTS = sizeof slots / sizeof slots[0] };
  recommend_result *o = s->out;
  char money[24];
  qsort(o->rejected, (size_t)o->n_rejected, sizeof *o->rejected, by_shortfall);
  if (o->n_rejected > RECOMMEND_REJECTED - SLOTS) o->n_rejected = RECOMMEND_REJECTED - SLOTS;
  for (int i = 0; i < SLOTS; i++) {
    int slot = slots[i];
    bool settled = slot == RULE_BUDGET && o->has_over_budget; /* then it is the cheapest that meets it */
    if (!settled && s->near_name[slot][0] == '\0') continue;
    recommend_entry *e = &o->rejected[o->n_rejected];
    memset(e, 0, sizeof *e);
    e->rule = slot == NEAR_BEYOND ? RULE_ROOFLINE : (recommend_rule)slot;
    e->beyond = slot == NEAR_BEYOND || slot == RULE_BUDGET;
    snprintf(e->parts.name, sizeof e->parts.name, "%.127s", settled ? o->over_budget.parts.name : s->near_name[slot]);
    snprintf(e->why, sizeof e->why, "%s", s->near_text[slot]);
    if (settled) s->priced = (machine_price){.ok = true, .has_price = true, .price = o->over_budget.c.price.likely};
    else HF_TRY(search_price(s, &s->near_combo[slot]));
    e->c.has_price = s->priced.ok && s->priced.has_price;
    e->c.price.likely = s->priced.price;
    if (slot == RULE_BUDGET) {
      if (!e->c.has_price) continue;
      ask_money(e->c.price.likely - s->q->budget, money);
      snprintf(e->why, sizeof e->why, "USD %.20s over the budget", money);
    }
    o->n_rejected++;
  }
  return HF_OK;
}
