#include "planner/plan_worth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "db/catalog.h"

enum { N_ENDS = 3, LOW = 0, LIKELY = 1, HIGH = 2 };

struct plan_worth {
  const plan_inputs *in;
  const money_scenario *s; /* NULL: nothing is priced */
  money_api_origin from;   /* of the API's prices */
  bool priced;
  money_fact f[MONEY_N]; /* what went in */
  double v[N_ENDS][MONEY_N];
  money_decision now[N_ENDS];
  double out_s, in_s; /* seconds of work per output token: decoding it, and reading its share of the prompt */
  bool has_parts;
  catalog_parts parts;
};

/* What the worth rests on. less: -1 where the low end of the input makes it less, +1 where its high end does. */
static const struct {
  money_input input;
  int less;
} levers[] = {{MONEY_API_OUT, -1},     {MONEY_API_IN, -1},     {MONEY_API_CACHED, -1}, {MONEY_CACHED_SHARE, 1}, {MONEY_MIX, 0},
              {MONEY_UTILISATION, -1}, {MONEY_API_CHANGE, -1}, {MONEY_YEARS, -1},      {MONEY_DISCOUNT, 1}};
enum { N_LEVERS = sizeof levers / sizeof *levers };

static bool of_catalog(const plan_inputs *in) {
  json *doc = NULL;
  const char *name = in->req.model;
  if (strncmp(name, "synth:", 6) == 0 || access(name, F_OK) == 0) return false;
  if (catalog_get("models", name, &doc) != HF_OK) {
    hf_clear_error();
    return false;
  }
  json_free(doc);
  return true;
}

static money_fact simulated(double v) {
  money_fact f = {.low = v, .likely = v, .high = v, .tag = TAG_ASSUMED};
  snprintf(f.source, sizeof f.source, "the plan's own load");
  return f;
}

/* Speeds of the plan in money's terms, as hf-plan roi has them. */
static void fill_speeds(plan_worth *w, const planned *p) {
  const plan_request *r = &w->in->req;
  double wall = p->sustained.tok_per_s, mix = (double)r->prompt_tokens / (double)r->output_tokens;
  double share = p->sim.prefill_tok_per_s > 0 ? fmin(0.99, wall * mix / p->sim.prefill_tok_per_s) : 0;
  w->f[MONEY_TOK_PER_S] = simulated(wall);
  w->f[MONEY_PREFILL_SHARE] = simulated(share);
  w->f[MONEY_SIM_MIX] = simulated(mix);
  w->f[MONEY_USERS] = simulated((double)r->users);
  if (isnan(w->f[MONEY_MIX].likely)) w->f[MONEY_MIX] = w->f[MONEY_SIM_MIX];
  w->out_s = (1 - share) / wall;
  w->in_s = share / wall;
}

/* What owning costs is the same at either speed (hours of work are those of the scenario) and cancels in the difference. */
static void leave_out_own_costs(plan_worth *w) {
  static const money_input own[] = {MONEY_PRICE,   MONEY_SETUP,   MONEY_IDLE_W,   MONEY_ACTIVE_W,
                                    MONEY_HOSTING, MONEY_SUPPORT, MONEY_SOFTWARE, MONEY_STAFF};
  for (size_t i = 0; i < sizeof own / sizeof *own; i++) w->f[own[i]] = (money_fact){.tag = TAG_MEASURED};
  w->f[MONEY_RENT_HOUR] = w->f[MONEY_RENT_GPUS] = (money_fact){.low = NAN, .likely = NAN, .high = NAN};
}

static void fill_ends(plan_worth *w) {
  for (int e = 0; e < N_ENDS; e++) {
    money_likely(w->f, w->v[e]);
    for (int i = 0; i < N_LEVERS && e != LIKELY; i++) {
      const money_fact *f = &w->f[levers[i].input];
      int side = e == LOW ? levers[i].less : -levers[i].less;
      if (side != 0) w->v[e][levers[i].input] = side < 0 ? f->low : f->high;
    }
    money_decide(w->v[e], &w->now[e]);
  }
}

static void find_parts(plan_worth *w) {
  const cost_rows *r = w->in->paced != NULL ? w->in->paced : w->in->host;
  const char *asked = w->in->paced != NULL ? w->in->gpu.machine : w->in->req.machine, *own = r->machine.name;
  if (r->machine.kind == MACHINE_MEASURED) return;
  const char *names[] = {asked, own};
  for (int i = 0; i < 2 && !w->has_parts; i++) {
    if (names[i] == NULL) continue;
    hf_status st =
        catalog_parts_is_text(names[i]) ? catalog_parts_parse(names[i], &w->parts) : catalog_parts_of(names[i], &w->parts);
    w->has_parts = st == HF_OK;
    if (st != HF_OK) hf_clear_error(); /* stated rows: no parts, no prices */
  }
}

hf_status plan_worth_new(const plan_inputs *in, const planned *p, plan_worth **out) {
  plan_worth *w = NULL;
  HF_TRY(hf_alloc(&w, 1, sizeof *w, "worth of changes"));
  *out = w;
  w->in = in;
  w->s = p->scenario;
  if (w->s == NULL) return HF_OK;
  find_parts(w);
  memcpy(w->f, w->s->f, sizeof w->f);
  leave_out_own_costs(w);
  money_api_origin from;
  HF_TRY(money_api_prices(w->s, in->req.model, w->f, &from));
  bool known = p->scenario_named || of_catalog(in);
  if (!known || !(p->sustained.tok_per_s > 0) || in->req.output_tokens < 1) return HF_OK;
  fill_speeds(w, p);
  if (isnan(w->f[MONEY_API_IN].likely) || isnan(w->f[MONEY_API_OUT].likely)) return HF_OK;
  if (money_check(w->f) != HF_OK) { /* a speed or load that money cannot count */
    hf_clear_error();
    return HF_OK;
  }
  bool weak = !p->scenario_named && from == MONEY_API_ASSUMED;
  for (int i = MONEY_API_IN; i <= MONEY_API_CHANGE && weak; i++) cost_weaken(&w->f[i].tag, TAG_ASSUMED);
  w->from = from;
  fill_ends(w);
  w->priced = true;
  return HF_OK;
}

void plan_worth_free(plan_worth *w) {
  free(w);
}

/* ---- worth ---- */

static void add_ends(json *o, const char *key, const double v[N_ENDS]) {
  json *r = json_add_object(o, key);
  json_add_num(r, "low", v[LOW]);
  json_add_num(r, "likely", v[LIKELY]);
  json_add_num(r, "high", v[HIGH]);
}

void plan_worth_add(const plan_worth *w, double rate_ratio, double chunk_ratio, json *line) {
  double out_s = w->out_s / rate_ratio, in_s = w->in_s * chunk_ratio, month[N_ENDS], years[N_ENDS], tokens = 0;
  if (!w->priced || !(rate_ratio > 0) || !(chunk_ratio > 0)) {
    json_add_null(line, "worth");
    return;
  }
  for (int e = 0; e < N_ENDS; e++) {
    double v[MONEY_N];
    money_cost before, after;
    money_decision then;
    memcpy(v, w->v[e], sizeof v);
    v[MONEY_TOK_PER_S] = 1 / (out_s + in_s);
    v[MONEY_PREFILL_SHARE] = in_s / (out_s + in_s);
    money_decide(v, &then);
    month[e] = then.way[MONEY_API].per_month - w->now[e].way[MONEY_API].per_month;
    years[e] = then.way[MONEY_API].npv - w->now[e].way[MONEY_API].npv;
    if (e != LIKELY) continue;
    money_costs(w->v[e], &before);
    money_costs(v, &after);
    tokens = after.out_tokens_per_month - before.out_tokens_per_month;
  }
  json *o = json_add_object(line, "worth");
  json_add_num(o, "output_tok_per_s", 1 / (out_s + in_s) - 1 / (w->out_s + w->in_s));
  json_add_num(o, "output_tokens_per_month", tokens);
  json_add_str(o, "currency", w->s->currency);
  add_ends(o, "per_month", month);
  add_ends(o, "over_depreciation", years);
  json_add_num(o, "years", w->v[LIKELY][MONEY_YEARS]);
}

void plan_worth_assumptions(const plan_worth *w, json *advice) {
  json *list = json_add_array(advice, "assumptions");
  if (!w->priced) return;
  for (int i = 0; i < N_LEVERS; i++) {
    const money_fact *f = &w->f[levers[i].input];
    if (isnan(f->likely)) continue;
    json *o = json_add_object(list, NULL);
    json_add_str(o, "name", money_input_name(levers[i].input));
    json_add_str(o, "words", money_input_words(levers[i].input));
    json_add_str(o, "unit", money_input_unit(levers[i].input));
    json_add_num(o, "low", f->low);
    json_add_num(o, "likely", f->likely);
    json_add_num(o, "high", f->high);
    json_add_str(o, "tag", db_tag_name(f->tag));
    json_add_str(o, "source", f->source);
  }
  char note[400];
  snprintf(note, sizeof note,
           "the most a change can be worth: all tokens it adds are wanted, at %s of scenario %.80s; what the part draws and what "
           "it does to other loads is not in it",
           w->from == MONEY_API_LISTED ? "the model's listed API prices and the rest" : "the API's prices", w->s->name);
  json_add_str(advice, "worth_note", note);
}

/* ---- parts ---- */

typedef struct {
  money_fact price; /* more than now */
  const char *unit;
  double amount; /* what it brings more */
  char part[64], instead_of[64];
} next_part;

/* In the scenario's currency. */
static void add_cost(const plan_worth *w, const next_part *n, double change, json *line) {
  json *o = json_add_object(line, "cost");
  const money_fact *x = &w->s->per_usd;
  double v[N_ENDS] = {n->price.low * x->likely, n->price.likely * x->likely, n->price.high * x->likely};
  db_tag tag = n->price.tag;
  if (x->likely != 1) cost_weaken(&tag, x->tag);
  json_add_str(o, "part", n->part);
  json_add_str(o, "instead_of", n->instead_of);
  json_add_str(o, "currency", w->s->currency);
  add_ends(o, "price", v);
  json_add_str(o, "tag", db_tag_name(tag));
  json_add_num(o, "amount", n->amount);
  json_add_str(o, "unit", n->unit);
  json_add_num(o, "per_change", v[LIKELY] * change / n->amount);
}

static bool fact_of(const char *kind, const char *name, const char *key, catalog_value *out) {
  if (catalog_fact(kind, name, key, out) == HF_OK) return true;
  hf_clear_error();
  return false;
}

/* Both at the same end: one market moves them. */
static money_fact difference(const catalog_value *next, const catalog_value *now) {
  double low = next->low - now->low, likely = next->likely - now->likely, high = next->high - now->high;
  money_fact d = {
      .low = fmin(low, fmin(likely, high)), .likely = likely, .high = fmax(low, fmax(likely, high)), .tag = next->tag};
  cost_weaken(&d.tag, now->tag);
  return d;
}

/* Which kind of card the parts have at gpuN; -1: none. */
static int kind_at(const catalog_parts *p, int index) {
  for (int k = 0; k < p->n_gpu_kinds; k++) {
    if (index < p->gpu[k].count) return k;
    index -= p->gpu[k].count;
  }
  return -1;
}

/* Can the machine be built with this card in place of one of that kind? */
static bool can_have(const catalog_parts *parts, int kind, const char *card) {
  catalog_parts p = *parts;
  catalog_machine m;
  char text[600];
  size_t n = 0;
  for (int k = 0; k < p.n_gpu_kinds; k++)
    if (p.gpu[k].count > (k == kind))
      n += (size_t)snprintf(text + n, sizeof text - n, "%s*%d+", p.gpu[k].gpu, p.gpu[k].count - (k == kind));
  snprintf(text + n, sizeof text - n, "%s", card);
  hf_status st = catalog_parts_set(&p, "gpu", text);
  if (st == HF_OK) st = catalog_compose(&p, &m);
  if (st == HF_OK) catalog_machine_free(&m);
  else hf_clear_error();
  return st == HF_OK;
}

static bool same_text(const json *a, const json *b, const char *key) {
  const char *x = json_string(json_get(a, key)), *y = json_string(json_get(b, key));
  return x == NULL || y == NULL ? x == y : strcmp(x, y) == 0;
}

/* Of one form, and for the same programs (runs_on; absent: CUDA); and the first can be bought new. */
static bool can_replace(const char *a, const char *b) {
  json *x = NULL, *y = NULL;
  bool same = catalog_get("gpus", a, &x) == HF_OK && catalog_get("gpus", b, &y) == HF_OK;
  same = same && json_get(x, "sale") == NULL && same_text(x, y, "form") && same_text(x, y, "runs_on");
  json_free(x);
  json_free(y);
  hf_clear_error();
  return same;
}

/* More memory, and nothing less. */
static bool better_card(const char *card, const char *now) {
  static const char *const no_less[] = {"mem_bytes_per_s", "flops_bf16", "pcie_gen", "pcie_lanes"};
  catalog_value a, b;
  if (!fact_of("gpus", card, "mem_bytes", &a) || !fact_of("gpus", now, "mem_bytes", &b) || a.likely <= b.likely) return false;
  for (size_t i = 0; i < sizeof no_less / sizeof *no_less; i++)
    if (!fact_of("gpus", card, no_less[i], &a) || !fact_of("gpus", now, no_less[i], &b) || a.likely < b.likely) return false;
  return can_replace(card, now);
}

hf_status plan_worth_next_card(const plan_worth *w, int device, double change, json *line) {
  char **names = NULL;
  int n = 0, best = -1;
  double least = INFINITY;
  catalog_value price, now, next_price = {0}, mem, now_mem;
  int at = w->has_parts ? atoi(w->in->gpus.g[device].device + 3) : -1, kind = at >= 0 ? kind_at(&w->parts, at) : -1;
  if (w->s == NULL || kind < 0 || !fact_of("gpus", w->parts.gpu[kind].gpu, "price_usd", &now)) {
    json_add_null(line, "cost");
    return HF_OK;
  }
  const char *card = w->parts.gpu[kind].gpu;
  HF_TRY(catalog_names("gpus", &names, &n));
  for (int i = 0; i < n; i++) {
    if (!fact_of("gpus", names[i], "price_usd", &price) || price.likely >= least || !better_card(names[i], card)) continue;
    if (!can_have(&w->parts, kind, names[i])) continue;
    best = i;
    least = price.likely;
    next_price = price;
  }
  if (best >= 0 && fact_of("gpus", names[best], "mem_bytes", &mem) && fact_of("gpus", card, "mem_bytes", &now_mem)) {
    next_part next = {.price = difference(&next_price, &now), .unit = "B", .amount = mem.likely - now_mem.likely};
    snprintf(next.part, sizeof next.part, "%.60s", names[best]);
    snprintf(next.instead_of, sizeof next.instead_of, "%.60s", card);
    add_cost(w, &next, change, line);
  } else {
    json_add_null(line, "cost");
  }
  free(names);
  return HF_OK;
}

/* A composed machine's memory: what it costs, what it reads. */
static bool memory_of(const catalog_parts *p, catalog_value *price, double *bytes_per_s) {
  catalog_machine m;
  *price = (catalog_value){.tag = TAG_MEASURED};
  *bytes_per_s = 0;
  if (catalog_compose(p, &m) != HF_OK) {
    hf_clear_error();
    return false;
  }
  for (int i = 0; i < m.n_figure; i++) {
    const rec_figure *f = &m.figure[i];
    if (strcmp(f->device, "cpu") == 0 && strcmp(f->what, "dram_read_bytes_per_s") == 0) *bytes_per_s = f->likely;
    if (strncmp(f->device, "cpu", 3) != 0 || strcmp(f->what, "price_memory_usd") != 0) continue;
    price->low += f->low;
    price->likely += f->likely;
    price->high += f->high;
    cost_weaken(&price->tag, f->tag);
  }
  catalog_machine_free(&m);
  return price->likely > 0 && *bytes_per_s > 0;
}

static bool with_module(const catalog_parts *now, const char *name, catalog_parts *next) {
  catalog_machine m;
  *next = *now;
  next->transfers_per_s = 0;
  next->read_bytes_per_s = 0; /* both sides are compared by what the catalog says of modules */
  hf_status st = catalog_parts_set(next, "memory", name);
  if (st == HF_OK) st = catalog_compose(next, &m);
  if (st == HF_OK) catalog_machine_free(&m);
  else hf_clear_error();
  return st == HF_OK;
}

/* The next faster module that is sold and with which the machine can be built; of equally fast ones the slowest by itself, as the list has them. */
static bool faster_module(const catalog_parts *now, const catalog_memory_option *list, int n, double speed, catalog_parts *next) {
  for (double above = speed * 1.001;;) {
    double at = INFINITY;
    for (int i = 0; i < n; i++)
      if (list[i].on_sale && list[i].transfers_per_s > above) at = fmin(at, list[i].transfers_per_s);
    if (isinf(at)) return false;
    for (int i = 0; i < n; i++)
      if (list[i].on_sale && list[i].transfers_per_s == at && with_module(now, list[i].name, next)) return true;
    above = at;
  }
}

hf_status plan_worth_next_memory(const plan_worth *w, double change, json *line) {
  catalog_memory_option *list = NULL;
  catalog_parts next, now = w->parts;
  catalog_value price, now_price;
  double rate, now_rate, speed = now.transfers_per_s;
  int n = 0;
  bool found = false;
  if (w->s != NULL && w->has_parts) {
    HF_TRY(catalog_memory_options(now.cpu, now.dimms_per_channel, &list, &n));
    for (int i = 0; i < n && speed == 0; i++)
      if (strcmp(list[i].name, now.memory) == 0) speed = list[i].transfers_per_s;
    found = speed > 0 && faster_module(&now, list, n, speed, &next);
    now.read_bytes_per_s = 0;
    found = found && memory_of(&now, &now_price, &now_rate) && memory_of(&next, &price, &rate) && rate > now_rate;
  }
  free(list);
  if (!found) {
    json_add_null(line, "cost");
    return HF_OK;
  }
  next_part part = {.price = difference(&price, &now_price), .unit = "B/s", .amount = rate - now_rate};
  snprintf(part.part, sizeof part.part, "%.60s", next.memory);
  snprintf(part.instead_of, sizeof part.instead_of, "%.60s", now.memory);
  add_cost(w, &part, change, line);
  return HF_OK;
}
