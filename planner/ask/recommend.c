/* recommend.c: the search. Combinations wait in a heap by price; a price is first a lower bound (all parts but the platform, which depends on the
 * GPUs), and exact once the machine was composed, which is done only for those that come to the top. */
#include "planner/ask/recommend_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

static const char *const rule_names[RULE_N] = {"contradictory", "unpriced", "memory", "budget", "roofline",
                                               "dominated",     "dearer",   "slow",   "slo",    "met"};

const char *recommend_rule_name(recommend_rule r) {
  return r >= 0 && r < RULE_N ? rule_names[r] : "";
}

/* ---- bounds ----
 *
 * Limits are of a sustained load (plan_sustained.h). Why the bound on bandwidth holds there, too:
 *   tokens/s  A step with k answers in it reads the dense weights and the experts that k tokens touch at least, and bytes per token fall with k.
 *             So no mixture of steps, with prompts in some of them, delivers more than steps of all users do.
 *   TPOT      A token takes a step. Either all users decode in it (or in the other micro-batches, which take turns at the same memory), or some
 *             prompt's chunk is under way: a chunk of more tokens than there are users touches no fewer experts and takes its turn, layer by
 *             layer, at the same resources. Only the last piece of a prompt may be smaller; it is one step of many. So tokens come no faster
 *             than when all decode: users / p95 TPOT is at most the bound. That is an argument, not a proof; the test holds it against every
 *             combination of several spaces.
 * What is given up before its sustained load has ended missed a limit for certain, and p95 is at least what is then known: `dominated` judges
 * by less than the true failure. */

double roofline_tok_per_s(const roofline *r) {
  double cpu = r->cpu_bytes_per_s > 0 ? fmax(0, r->expert_bytes_touched - r->gpu_mem_bytes) / r->cpu_bytes_per_s : 0;
  double all = (r->dense_bytes + r->expert_bytes_touched) / (r->cpu_bytes_per_s + r->gpu_bytes_per_s);
  return r->users / fmax(cpu, all);
}

double recommend_shortfall(const ask_case *c, const ask_slo *slo, double *fixed) {
  double need = 0, ttft = 0;
  if (!c->feasible) return 1e9;
  if (slo->tok_per_s > 0 && !c->given_up) need = slo->tok_per_s / fmax(c->tok_per_s_wall, 1e-9);
  if (slo->tpot_s > 0) need = fmax(need, c->tpot_s.p95 / slo->tpot_s);
  if (slo->ttft_s > 0) ttft = c->ttft_s.p95 / slo->ttft_s;
  if (fixed != NULL) *fixed = ttft;
  return fmax(need, ttft);
}

void search_plan_finished(void *user, int i) {
  search *s = user;
  (void)i;
  s->finished++;
  if (s->done != NULL) s->done(s->user, s->finished);
}

static void search_free(search *s) {
  free(s->host);
  free(s->heap);
  free(s->over);
  free(s->known);
  free(s->failed);
  free(s->later);
  free(s->tried);
  for (int i = 0; i < GROUP_SOCKETS; i++) free(s->order[i]);
}

/* ---- heap by (key, host, card, count, format) ---- */

bool search_before(const combo *a, const combo *b) {
  if (a->key != b->key) return a->key < b->key;
  if (a->host != b->host) return a->host < b->host;
  if (a->card != b->card) return a->card < b->card;
  if (a->count != b->count) return a->count < b->count;
  return a->format < b->format;
}

static void push(combo *heap, int *n, combo c) {
  int i = (*n)++;
  for (; i > 0 && search_before(&c, &heap[(i - 1) / 2]); i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
  heap[i] = c;
}

static combo pop(combo *heap, int *n) {
  combo top = heap[0], last = heap[--*n];
  int i = 0;
  for (int child; (child = 2 * i + 1) < *n; i = child) {
    if (child + 1 < *n && search_before(&heap[child + 1], &heap[child])) child++;
    if (!search_before(&heap[child], &last)) break;
    heap[i] = heap[child];
  }
  heap[i] = last;
  return top;
}

/* ---- pruning ---- */

static void combo_name(const search *s, const combo *c, char out[160]) {
  const host *h = &s->host[c->host];
  char gpu[80] = "no GPU", format[24];
  double dimms = h->parts.dimm_bytes > 0 ? h->ram / (double)h->parts.dimm_bytes : 0;
  if (c->card >= 0) snprintf(gpu, sizeof gpu, "%d x %.60s", c->count, s->card[c->card].name);
  snprintf(format, sizeof format, "%.20s", s->format[c->format].label);
  snprintf(out, 160, "%.60s, %d x %.30s, %d x %dG %.20s, %s", gpu, h->parts.sockets, h->parts.cpu, (int)dimms % 10000,
           (int)(h->parts.dimm_bytes >> 30) % 10000, h->parts.memory, format);
}

/* Remembers the nearest miss of a rule: the one of least `miss`. */
static bool is_nearer(const search *s, int slot, double miss) {
  return s->near_name[slot][0] == '\0' || miss < s->near[slot];
}

static void remember(search *s, int slot, const combo *c, double miss, const char *text) {
  if (!is_nearer(s, slot, miss)) return;
  s->near[slot] = miss;
  s->near_combo[slot] = *c;
  combo_name(s, c, s->near_name[slot]);
  snprintf(s->near_text[slot], sizeof s->near_text[0], "%s", text);
}

static void settle(search *s, recommend_rule rule) {
  s->out->counts[rule]++;
}

double search_parts_price(const search *s, const combo *c) {
  return s->host[c->host].price + (c->card >= 0 ? s->card[c->card].price * c->count : 0);
}

roofline search_bandwidths(const search *s, const combo *c) {
  const card *g = c->card >= 0 ? &s->card[c->card] : NULL;
  return (roofline){.dense_bytes = s->format[c->format].dense,
                    .expert_bytes_touched = s->format[c->format].touched,
                    .cpu_bytes_per_s = s->host[c->host].figure[1],
                    .gpu_bytes_per_s = g != NULL ? g->bw * c->count : 0,
                    .gpu_mem_bytes = g != NULL ? g->mem * c->count : 0,
                    .users = (double)s->req->users};
}

/* What the budget buys and what is beyond it are told apart, by the whole price. */
static hf_status remember_slow(search *s, const combo *c, double most) {
  char text[160];
  double miss = s->demand / most;
  bool beyond = s->q->budget > 0 && c->key > s->q->budget;
  if (!is_nearer(s, beyond ? NEAR_BEYOND : RULE_ROOFLINE, miss)) return HF_OK;
  if (!beyond && s->q->budget > 0) {
    HF_TRY(search_price(s, c));
    if (!s->priced.ok || !s->priced.has_price) return HF_OK;
    beyond = s->priced.price > s->q->budget;
  }
  snprintf(text, sizeof text, "its bandwidth allows at most %.4g tokens/s of %.4g, even with its work spread perfectly", most,
           s->demand);
  remember(s, beyond ? NEAR_BEYOND : RULE_ROOFLINE, c, miss, text);
  return HF_OK;
}

static hf_status first_look(search *s, combo c) {
  const host *h = &s->host[c.host];
  const card *g = c.card >= 0 ? &s->card[c.card] : NULL;
  const weights *w = &s->format[c.format];
  double vram = g != NULL ? g->mem * c.count : 0;
  char text[160];
  s->out->considered++;
  if (g != NULL && g->n_boards > 0 && (!search_is_sold(g, c.count) || h->pcie_gen < g->pcie_gen)) {
    settle(s, RULE_CONTRADICTORY);
    return HF_OK;
  }
  if (h->price < 0 || (g != NULL && g->price < 0)) {
    settle(s, RULE_UNPRICED);
    return HF_OK;
  }
  c.key = search_parts_price(s, &c);
  roofline r = search_bandwidths(s, &c);
  double most = roofline_tok_per_s(&r);
  if (s->q->prune && w->weights > h->ram + vram) {
    settle(s, RULE_MEMORY);
    snprintf(text, sizeof text, "the weights need %.0f GiB, it has %.0f GiB of RAM and %.0f GiB on GPUs", w->weights / 0x1p30,
             h->ram / 0x1p30, vram / 0x1p30);
    remember(s, RULE_MEMORY, &c, w->weights / (h->ram + vram), text);
  } else if (s->q->prune && most < s->demand) {
    settle(s, RULE_ROOFLINE);
    return remember_slow(s, &c, most);
  } else if (s->q->budget > 0 && c.key > s->q->budget) {
    settle(s, RULE_BUDGET);
    remember(s, RULE_BUDGET, &c, c.key, "");
    push(s->over, &s->n_over, c);
  } else {
    push(s->heap, &s->n_heap, c);
  }
  return HF_OK;
}

static hf_status combine(search *s) {
  size_t n = (size_t)s->n_hosts * (size_t)search_combos_per_host(s);
  HF_TRY(hf_alloc(&s->heap, n + 1, sizeof *s->heap, "combinations"));
  HF_TRY(hf_alloc(&s->over, n + 1, sizeof *s->over, "combinations"));
  HF_TRY(hf_alloc(&s->later, n + 1, sizeof *s->later, "combinations"));
  for (int h = 0; h < s->n_hosts; h++)
    for (int f = 0; f < s->n_formats; f++) {
      if (s->without_gpu) HF_TRY(first_look(s, (combo){.host = h, .card = -1, .format = (int16_t)f}));
      for (int g = 0; g < s->n_cards; g++)
        for (int k = 0; k < s->card[g].n_counts; k++)
          HF_TRY(
              first_look(s, (combo){.host = h, .card = (int16_t)g, .count = (int16_t)s->card[g].count[k], .format = (int16_t)f}));
    }
  return HF_OK;
}

/* ---- dominance ---- */

/* A lane of each generation carries twice what one of the generation before does; the older end decides. */
static double link_figure(const host *h, const card *g) {
  return g->pcie_lanes * exp2(fmin(h->pcie_gen, g->pcie_gen));
}

known search_figures(const search *s, const combo *c) {
  const host *h = &s->host[c->host];
  known k = {.ram = h->ram,
             .sockets = h->parts.sockets,
             .count = c->card >= 0 ? c->count : 0,
             .format = c->format,
             .slack = 1,
             .fits = true,
             .host = c->host,
             .card = c->card};
  memcpy(k.f, h->figure, sizeof h->figure);
  if (c->card < 0) return k;
  k.f[LINK] = link_figure(h, &s->card[c->card]);
  k.f[GPU_MEMORY] = s->card[c->card].mem;
  memcpy(&k.f[GPU_MEMORY + 1], s->card[c->card].figure, sizeof s->card[0].figure);
  return k;
}

/* The same format, or one that reads more and computes alike: it fails where a lighter one does (what a lighter one meets is no reason to pass
 * over the better quality). */
static bool no_lighter(const search *s, const known *a, const known *b) {
  const weights *x = &s->format[a->format], *y = &s->format[b->format];
  if (a->format == b->format) return true;
  return !b->met && x->blocks && y->blocks && x->weights >= y->weights && x->dense >= y->dense && x->touched >= y->touched;
}

/* Bytes of a module change neither speed nor placement of what fits, and slower memory makes nothing faster. */
static bool same_but_modules(const search *s, const known *a, const known *b) {
  return a->card == b->card && a->ram >= b->ram && strcmp(s->host[a->host].parts.cpu, s->host[b->host].parts.cpu) == 0;
}

/* Times are amounts of work over figures: with no figure more than `slack` times as good nothing lasts less than 1 / slack of what it did. GPU
 * memory is no rate but moves work, so more of it is never passed over. */
bool search_no_better(const search *s, const known *a, const known *b, double slack) {
  if (b->twins && !same_but_modules(s, a, b)) return false;
  if (a->sockets != b->sockets || a->count != b->count || !no_lighter(s, a, b)) return false;
  if (!b->fits && a->ram > b->ram) return false; /* more memory could make it fit */
  for (int i = 0; i < N_FIGURES; i++)
    if (a->f[i] > (i == GPU_MEMORY ? 1 : slack) * b->f[i]) return false;
  return true;
}

bool search_dominated(const search *s, const combo *c) {
  known k = search_figures(s, c);
  for (int i = 0; i < s->n_known; i++)
    if (search_no_better(s, &k, &s->known[i], s->known[i].slack)) return true;
  return false;
}

reached *search_reached(search *s, const combo *c) {
  double mem = c->card >= 0 ? s->card[c->card].mem * c->count : 0, kept = mem / s->format[c->format].weights;
  return &s->reach[c->card >= 0 ? c->count : 0][kept >= 1 ? KEPT_ALL : kept >= 1.0 / 3 ? KEPT_MUCH : KEPT_SOME];
}

static hf_status learn(search *s, const combo *c, const ask_case *answer, double slack, bool met, bool twins) {
  HF_TRY(hf_realloc(&s->known, (size_t)s->n_known + 1, sizeof *s->known, "results"));
  s->known[s->n_known] = search_figures(s, c);
  s->known[s->n_known].slack = slack;
  s->known[s->n_known].twins = twins;
  s->known[s->n_known].met = met;
  s->known[s->n_known].rate = answer->feasible ? answer->tok_per_s_wall : 0;
  s->known[s->n_known++].fits = answer->feasible;
  if (!answer->feasible || answer->given_up) return HF_OK;
  roofline bound = search_bandwidths(s, c);
  reached *like = search_reached(s, c);
  like->n++;
  like->most = fmax(like->most, answer->tok_per_s_wall / roofline_tok_per_s(&bound));
  return HF_OK;
}

/* ---- planning ---- */

/* The machine of a combination; *ok false: contradictory. */
hf_status search_build(const search *s, const combo *c, catalog_parts *parts, ask_machine **m, bool *ok) {
  char gpus[96];
  hf_status st = HF_OK;
  *parts = s->host[c->host].parts;
  *ok = true;
  if (c->card >= 0) {
    snprintf(gpus, sizeof gpus, "%.60s*%d", s->card[c->card].name, c->count);
    st = catalog_parts_set(parts, "gpu", gpus);
    parts->note[0] = '\0';
  }
  if (st == HF_OK) {
    char name[160];
    combo_name(s, c, name);
    snprintf(parts->name, sizeof parts->name, "%.127s", name);
    st = ask_machine_from_parts(parts, m);
  }
  if (st != HF_INPUT && st != HF_NOT_FOUND && st != HF_UNSUPPORTED) return st;
  hf_clear_error();
  *ok = false;
  return HF_OK;
}

recommend_rule search_judge(const recommend_question *q, const ask_case *c, char why[160]) {
  if (ask_meets(c, &q->slo, why)) return RULE_MET;
  ask_slo rate = {.tok_per_s = q->slo.tok_per_s};
  return !c->feasible || !ask_meets(c, &rate, NULL) ? RULE_SLOW : RULE_SLO;
}

void search_fill_entry(const search *s, const candidate *y, recommend_entry *e) {
  memset(e, 0, sizeof *e);
  e->c = y->answer;
  e->parts = y->parts;
  if (s->format[y->c.format].name != NULL) snprintf(e->format, sizeof e->format, "%s", s->format[y->c.format].name);
  e->program = s->format[y->c.format].program;
  e->gguf = s->format[y->c.format].gguf;
  e->rule = search_judge(s->q, &y->answer, e->why);
  e->shortfall = recommend_shortfall(&y->answer, &s->q->slo, NULL);
  if (e->rule == RULE_MET) e->why[0] = '\0';
}

void search_reject(search *s, const candidate *y) {
  recommend_result *o = s->out;
  recommend_entry e;
  search_fill_entry(s, y, &e);
  int at = -1;
  for (int i = 0; i < o->n_rejected; i++)
    if (o->rejected[i].rule == e.rule && strcmp(o->rejected[i].c.gpus, e.c.gpus) == 0) at = i;
  if (at >= 0 && o->rejected[at].shortfall <= e.shortfall) return;
  if (at < 0 && o->n_rejected < RECOMMEND_REJECTED) at = o->n_rejected++;
  for (int i = 0; at < 0 && i < o->n_rejected; i++)
    if (o->rejected[i].shortfall > e.shortfall && (at < 0 || o->rejected[i].shortfall > o->rejected[at].shortfall)) at = i;
  if (at >= 0) o->rejected[at] = e;
}

/* Takes entry i out. */
void search_drop_entry(recommend_result *o, int i) {
  memmove(&o->entry[i], &o->entry[i + 1], (size_t)(o->n - 1 - i) * sizeof *o->entry);
  o->n--;
}

double search_value_of(const recommend_entry *e) {
  return e->c.tok_per_s_wall / e->c.price.likely;
}

/* Of entries by price the one that is missed least: not the first, the fastest or that of the best value. */
int search_least_missed(const recommend_result *o) {
  int fastest = 0, best = 0, at = -1;
  double least = INFINITY;
  for (int i = 1; i < o->n; i++) {
    if (o->entry[i].c.tok_per_s_wall > o->entry[fastest].c.tok_per_s_wall) fastest = i;
    if (search_value_of(&o->entry[i]) > search_value_of(&o->entry[best])) best = i;
  }
  for (int i = 1; i < o->n; i++) {
    double gain = o->entry[i].c.tok_per_s_wall / o->entry[i - 1].c.tok_per_s_wall;
    if (i == fastest || i == best || gain >= least) continue;
    least = gain;
    at = i;
  }
  return at;
}

/* Keeps, by price, what nothing is as fast as for no more money. */
static void keep_choice(search *s, const candidate *y) {
  recommend_result *o = s->out;
  double price = y->answer.price.likely, rate = y->answer.tok_per_s_wall;
  s->best_rate = fmax(s->best_rate, rate);
  s->best_value = fmax(s->best_value, rate / price);
  int at = 0;
  for (int i = 0; i < o->n; i++) {
    if (o->entry[i].c.price.likely > price) break;
    if (o->entry[i].c.tok_per_s_wall >= rate) return;
    at = i + 1;
  }
  while (at < o->n && o->entry[at].c.tok_per_s_wall <= rate) search_drop_entry(o, at);
  if (at > 0 && o->entry[at - 1].c.price.likely == price) search_drop_entry(o, --at);
  if (o->n == REGRET_MAX_CHOICES) {
    int out = search_least_missed(o);
    search_drop_entry(o, out);
    at -= out < at;
  }
  memmove(&o->entry[at + 1], &o->entry[at], (size_t)(o->n - at) * sizeof *o->entry);
  search_fill_entry(s, y, &o->entry[at]);
  o->n++;
}

hf_status search_add_failure(search *s, const combo *c, double miss, bool of_group) {
  HF_TRY(hf_realloc(&s->failed, (size_t)s->n_failed + 1, sizeof *s->failed, "machines that failed"));
  s->failed[s->n_failed++] = (failure){*c, miss, of_group};
  return HF_OK;
}

static hf_status result_of(search *s, const candidate *y, bool over_budget) {
  recommend_result *o = s->out;
  char why[160];
  recommend_rule rule = search_judge(s->q, &y->answer, why);
  double short_by = recommend_shortfall(&y->answer, &s->q->slo, NULL);
  if (over_budget) o->planned_over++;
  else o->planned++;
  if (rule == RULE_MET && over_budget) {
    if (!o->has_over_budget) search_fill_entry(s, y, &o->over_budget);
    o->has_over_budget = true;
    return HF_OK;
  }
  if (!over_budget) settle(s, rule);
  if (rule == RULE_MET && o->choices) keep_choice(s, y);
  else if (rule == RULE_MET && o->n < REGRET_MAX_CHOICES) search_fill_entry(s, y, &o->entry[o->n++]);
  if (rule != RULE_MET && over_budget && (!o->has_fastest_any || short_by < o->fastest_any.shortfall)) {
    search_fill_entry(s, y, &o->fastest_any);
    o->has_fastest_any = true;
  }
  if (rule != RULE_MET && !over_budget) {
    search_reject(s, y);
    if (y->answer.feasible) HF_TRY(search_add_failure(s, &y->c, short_by, false));
  }
  bool fits = y->answer.feasible;
  if (s->q->prune)
    return learn(s, &y->c, &y->answer, rule == RULE_MET || !fits ? 1 : fmax(1, y->least_miss / CLEARLY),
                 rule == RULE_MET && !o->choices, rule != RULE_MET && y->least_miss <= CLEARLY);
  return HF_OK;
}

/* What misses the demand by little is planned once more with all depths simulated, one of which may meet it. */
static hf_status look_again(search *s, const ask_case_spec *spec, int n, candidate *batch) {
  ask_case_spec again[BATCH] = {0};
  ask_case better[BATCH] = {0};
  int at[BATCH], k = 0;
  for (int i = 0; i < n; i++) {
    double miss = batch[i].least_miss = recommend_shortfall(&batch[i].answer, &s->q->slo, NULL);
    if (miss <= (batch[i].is_group ? CLEARLY : 1) || miss > NEARLY) continue;
    again[k] = spec[i];
    again[k].one_depth = false;
    again[k].give_up = spec[i].slo.ttft_s > 0 || spec[i].slo.tpot_s > 0 ? 1 : 0; /* a rate is told only by the whole answer */
    at[k++] = i;
  }
  HF_TRY(ask_evaluate_all(again, k, s->threads, search_plan_finished, s, better));
  for (int i = 0; i < k; i++) {
    candidate *c = &batch[at[i]];
    double miss = recommend_shortfall(&better[i], &s->q->slo, NULL);
    if (miss < c->least_miss) c->least_miss = miss;
    if (miss <= 1) c->answer = better[i];
  }
  return HF_OK;
}

ask_case_spec search_first_look_spec(const search *s, const candidate *y) {
  ask_case_spec spec = {.machine = y->machine, .req = *s->req, .slo = s->q->slo, .quick = true, .no_interval = true};
  /* Without limits nothing is looked at again: what is delivered ranks at once. */
  spec.one_depth = s->q->slo.ttft_s > 0 || s->q->slo.tpot_s > 0;
  spec.no_chunks = !spec.one_depth && !(s->q->slo.tok_per_s > 0);
  if (s->format[y->c.format].name != NULL) spec.req.format = s->format[y->c.format].name;
  if (y->c.card < 0) spec.req.gpu = "none";
  return spec;
}

hf_status search_plan_batch(search *s, candidate *batch, int n, bool over_budget) {
  ask_case_spec spec[BATCH] = {0};
  ask_case answer[BATCH] = {0};
  for (int i = 0; i < n; i++) {
    spec[i] = search_first_look_spec(s, &batch[i]);
    spec[i].give_up = NEARLY;
    snprintf(spec[i].name, sizeof spec[i].name, "%.95s", batch[i].parts.name);
  }
  hf_status st = ask_evaluate_all(spec, n, s->threads, search_plan_finished, s, answer);
  for (int i = 0; i < n; i++) batch[i].answer = answer[i];
  if (st == HF_OK) st = look_again(s, spec, n, batch);
  for (int i = 0; i < n; i++) {
    if (st == HF_OK) st = batch[i].is_group ? search_learn_group(s, &batch[i]) : result_of(s, &batch[i], over_budget);
    ask_machine_free(batch[i].machine);
    batch[i].machine = NULL;
  }
  return st;
}

/* Whether a combination is no better than one of the batch, whose result may settle it. */
bool search_waits_for(const search *s, const combo *c, const candidate *batch, int have) {
  known k = search_figures(s, c);
  for (int i = 0; i < have; i++) {
    const known *b = &batch[i].figures;
    if (search_no_better(s, &k, b, b->slack)) return true;
  }
  return false;
}

/* The exact price of a combination's machine, in s->priced. Formats of one machine come one after the other (their parts cost the same). */
hf_status search_price(search *s, const combo *c) {
  machine_price *p = &s->priced;
  if (p->known && p->host == c->host && p->card == c->card && p->count == c->count) return HF_OK;
  catalog_parts parts;
  ask_machine *m = NULL;
  *p = (machine_price){.known = true, .host = c->host, .card = c->card, .count = c->count};
  HF_TRY(search_build(s, c, &parts, &m, &p->ok));
  const ask_machine_facts *f = p->ok ? ask_machine_facts_of(m) : NULL;
  p->has_price = f != NULL && f->has_price;
  p->price = p->has_price ? f->price[1] : 0;
  ask_machine_free(m);
  return HF_OK;
}

bool search_same_machine(const recommend_entry *a, const recommend_entry *b) {
  const catalog_parts *x = &a->parts, *y = &b->parts;
  return x->sockets == y->sockets && x->dimm_bytes == y->dimm_bytes && x->n_gpu_kinds == y->n_gpu_kinds &&
         (x->n_gpu_kinds == 0 || (x->gpu[0].count == y->gpu[0].count && strcmp(x->gpu[0].gpu, y->gpu[0].gpu) == 0)) &&
         strcmp(x->cpu, y->cpu) == 0 && strcmp(x->memory, y->memory) == 0;
}

/* Formats of one machine take one place of the ranking. */
static bool enough(const recommend_result *o) {
  int machines = 0;
  for (int i = 0; i < o->n; i++) {
    bool again = false;
    for (int k = 0; k < i && !again; k++) again = search_same_machine(&o->entry[k], &o->entry[i]);
    machines += !again;
  }
  return machines >= ENOUGH || o->n == REGRET_MAX_CHOICES;
}

/* The next combination that has to be planned, cheapest first; *found false: none is left, or what is left is too dear. */
static hf_status next_candidate(search *s, combo *heap, int *n, bool over_budget, candidate *batch, int have, bool *found) {
  recommend_result *o = s->out;
  candidate *out = &batch[have];
  *found = false;
  while (*n > 0 && !*found) {
    combo c = pop(heap, n);
    bool ok = true;
    if (!c.exact) {
      if (s->q->prune && search_dominated(s, &c)) { /* before its machine is put together, which takes longest */
        if (!over_budget) settle(s, RULE_DOMINATED);
        continue;
      }
      HF_TRY(search_price(s, &c));
      if (!s->priced.ok || !s->priced.has_price) {
        if (!over_budget) settle(s, s->priced.ok ? RULE_UNPRICED : RULE_CONTRADICTORY);
        continue;
      }
      c.key = s->priced.price;
      c.exact = true;
      if (!over_budget && s->q->budget > 0 && c.key > s->q->budget) {
        settle(s, RULE_BUDGET);
        remember(s, RULE_BUDGET, &c, c.key, "");
        push(s->over, &s->n_over, c);
      } else {
        push(heap, n, c);
      }
      continue;
    }
    double dearest = o->choices && s->q->prune ? 1 : s->q->dearer_factor;
    bool dear = o->n > 0 && (c.key > dearest * o->entry[0].c.price.likely || (!o->choices && enough(o)));
    if (!over_budget && (dear || o->planned >= RECOMMEND_MOST_PLANNED)) {
      o->stopped = o->stopped || !dear;
      settle(s, RULE_DEARER);
      o->counts[RULE_DEARER] += *n;
      *n = 0;
      return HF_OK;
    }
    if (s->q->prune && search_dominated(s, &c)) {
      if (!over_budget) settle(s, RULE_DOMINATED);
      continue;
    }
    if (s->q->prune && search_waits_for(s, &c, batch, have)) {
      s->later[s->n_later++] = c;
      continue;
    }
    *out = (candidate){.c = c, .figures = search_figures(s, &c)};
    if (s->q->prune && !o->choices && !over_budget) {
      double most = o->n > 0 ? dearest * o->entry[0].c.price.likely : s->q->budget > 0 ? s->q->budget : INFINITY;
      HF_TRY(search_try_group(s, &c, most, out, found));
      if (*found) {
        s->later[s->n_later++] = c;
        continue;
      }
    }
    HF_TRY(search_build(s, &c, &out->parts, &out->machine, &ok));
    *found = ok;
  }
  return HF_OK;
}

hf_status search_visit(search *s, combo *heap, int *n, bool over_budget) {
  candidate *batch = NULL;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&batch, BATCH, sizeof *batch, "candidates"));
  for (bool more = true; more && st == HF_OK;) {
    int have = 0;
    while (have < BATCH && more && st == HF_OK) {
      st = next_candidate(s, heap, n, over_budget, batch, have, &more);
      have += st == HF_OK && more;
    }
    if (st == HF_OK && have > 0) st = search_plan_batch(s, batch, have, over_budget);
    else
      for (int i = 0; i < have; i++) ask_machine_free(batch[i].machine);
    more = more || s->n_later > 0;
    while (s->n_later > 0) push(heap, n, s->later[--s->n_later]);
    if (over_budget && more && s->out->planned_over >= MOST_OVER_BUDGET) s->out->over_stopped = !s->out->has_over_budget;
    more = more && !(over_budget && (s->out->has_over_budget || s->out->over_stopped));
  }
  free(batch);
  return st;
}

hf_status recommend_search(const recommend_question *q, const plan_request *req, const money_scenario *scenario, int threads,
                           void (*done)(void *user, int64_t planned), void *user, recommend_result *out) {
  int64_t start = hf_now_ns();
  plan_request r = *req;
  search *s = NULL;
  hf_status st = HF_OK;
  memset(out, 0, sizeof *out);
  HF_TRY(hf_alloc(&s, 1, sizeof *s, "search"));
  if (r.users == 0) r.users = 1;
  *s = (search){.q = q, .req = &r, .scenario = scenario, .threads = threads, .out = out, .done = done, .user = user};
  s->demand = fmax(q->slo.tok_per_s, q->slo.tpot_s > 0 ? (double)r.users / q->slo.tpot_s : 0);
  HF_GO(done, search_add_cards(s));
  HF_GO(done, search_add_formats(s));
  HF_GO(done, search_add_hosts(s));
  HF_GO(done, search_order_hosts(s));
  HF_GO(done, combine(s));
  out->choices = !(q->slo.ttft_s > 0) && !(q->slo.tpot_s > 0) && !(q->slo.tok_per_s > 0);
  if (out->choices) HF_GO(done, search_visit_choices(s));
  else HF_GO(done, search_visit(s, s->heap, &s->n_heap, false));
  if (out->n == 0 && q->budget > 0) HF_GO(done, search_visit(s, s->over, &s->n_over, true));
  HF_GO(done, search_finish_entries(s));
  HF_GO(done, search_add_own_format(s));
  HF_GO(done, search_plan_nearer(s));
  HF_GO(done, search_finish_failures(s));
  HF_GO(done, search_find_nearest(s));
  HF_GO(done, search_add_near_misses(s));
  out->threads = ask_threads(threads, BATCH);
  out->seconds = 1e-9 * (double)(hf_now_ns() - start);
done:
  search_free(s);
  free(s);
  return st;
}
