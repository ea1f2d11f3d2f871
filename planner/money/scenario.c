/* scenario.c: reads scenarios and joins them with a machine and a load. */
#include "planner/money/scenario.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/text.h"
#include "db/catalog.h"

enum { MAX_BASES = 4, MAX_FILE_BYTES = 1 << 20 };

const char *const money_class_name[MONEY_N_CLASSES] = {"cpu", "memory", "gpu", "platform", "extra"};
static const char *const other_members[] = {
    "name",   "title", "base", "source", "date", "currency", "part_prices", "utilisation_by_hour", "notes", "currency_per_usd",
    "aliases"};

static money_fact unknown(void) {
  return (money_fact){.low = NAN, .likely = NAN, .high = NAN, .tag = TAG_ASSUMED};
}

static bool of_simulation(int i) {
  return i <= MONEY_USERS;
}

static bool is_money(const char *unit) {
  return strncmp(unit, "money", 5) == 0;
}

static void scale(money_fact *f, const money_fact *by) {
  f->low *= by->low;
  f->likely *= by->likely;
  f->high *= by->high;
  if (by->tag > f->tag) f->tag = by->tag;
}

/* ---- one fact ---- */

static hf_status read_tag(const json *v, const char *where, db_tag *tag) {
  const char *text = json_string(v);
  if (v == NULL) return HF_OK;
  for (int t = 0; text != NULL && t < TAG_N; t++) {
    if (strcmp(text, db_tag_name((db_tag)t)) != 0) continue;
    *tag = (db_tag)t;
    return HF_OK;
  }
  return hf_fail(HF_INPUT, "%s: tag is none of measured, scaled, spec, assumed", where);
}

static hf_status read_members(const json *o, const char *where, double lo, double hi, money_fact *f) {
  static const char *const known[] = {"low", "likely", "high", "value", "tag", "source", "date", "unit", "note"};
  const char *source = NULL, *date = NULL;
  for (const json *m = json_first(o); m != NULL; m = json_next(m)) {
    size_t k = 0;
    while (k < sizeof known / sizeof *known && strcmp(known[k], json_key(m)) != 0) k++;
    if (k == sizeof known / sizeof *known)
      return hf_fail(HF_INPUT, "%s: unknown member '%.60s'; known are low, likely, high, tag, source, date", where, json_key(m));
  }
  HF_TRY(json_get_num(o, where, json_get(o, "likely") != NULL ? "likely" : "value", lo, hi, &f->likely));
  f->low = f->high = f->likely;
  HF_TRY(json_opt_num(o, where, "low", lo, hi, &f->low));
  HF_TRY(json_opt_num(o, where, "high", lo, hi, &f->high));
  HF_TRY(json_opt_str(o, where, "source", &source));
  HF_TRY(json_opt_str(o, where, "date", &date));
  HF_TRY(read_tag(json_get(o, "tag"), where, &f->tag));
  if (f->low > f->likely || f->likely > f->high)
    return hf_fail(HF_INPUT, "%s: low %g, likely %g, high %g do not rise", where, f->low, f->likely, f->high);
  bool dated = date != NULL && source != NULL;
  snprintf(f->source, sizeof f->source, "%.240s%s%.20s%s", source != NULL ? source : where, dated ? " (" : "", dated ? date : "",
           dated ? ")" : "");
  hf_printable(f->source);
  return HF_OK;
}

static hf_status read_fact(const json *v, const char *where, double lo, double hi, const char *remedy, money_fact *f) {
  *f = unknown();
  if (json_type(v) == JSON_OBJECT) return read_members(v, where, lo, hi, f);
  if (json_type(v) != JSON_NUMBER)
    return hf_fail(HF_INPUT, "%s: neither a number nor an object with low, likely and high", where);
  double x = json_number(v, NAN);
  if (!(x >= lo && x <= hi))
    return hf_fail(HF_INPUT, "%s: %g is outside %g to %g%s%s", where, x, lo, hi, remedy != NULL ? ": " : "",
                   remedy != NULL ? remedy : "");
  f->low = f->likely = f->high = x;
  snprintf(f->source, sizeof f->source, "%.190s", where);
  return HF_OK;
}

/* ---- members ---- */

static hf_status unknown_member(const char *where, const char *key) {
  const char *best = NULL;
  int least = (int)strlen(key) / 2 + 1;
  for (int i = 0; i < MONEY_N; i++) {
    int d = hf_edit_distance(key, strlen(key), money_input_name((money_input)i));
    if (of_simulation(i) || d > least) continue;
    least = d;
    best = money_input_name((money_input)i);
  }
  for (size_t i = 0; i < sizeof other_members / sizeof *other_members; i++) {
    int d = hf_edit_distance(key, strlen(key), other_members[i]);
    if (d > least) continue;
    least = d;
    best = other_members[i];
  }
  if (best == NULL) return hf_fail(HF_INPUT, "%s: unknown member '%.60s'; hf-plan roi --help lists them", where, key);
  return hf_fail(HF_INPUT, "%s: unknown member '%.60s'; did you mean '%s'?", where, key, best);
}

static hf_status read_hours(const json *v, const char *where, money_scenario *s) {
  double sum = 0;
  int h = 0;
  if (json_type(v) != JSON_ARRAY || json_len(v) != MONEY_HOURS)
    return hf_fail(HF_INPUT, "%s: utilisation_by_hour: not an array of %d shares", where, MONEY_HOURS);
  for (const json *e = json_first(v); e != NULL; e = json_next(e), h++) {
    double x = json_number(e, NAN);
    if (!(x >= 0 && x <= 1)) return hf_fail(HF_INPUT, "%s: utilisation_by_hour[%d]: not a share between 0 and 1", where, h);
    s->by_hour[h] = x;
    sum += x;
  }
  if (!(sum > 0)) return hf_fail(HF_INPUT, "%s: utilisation_by_hour: all hours are 0: nothing would ever be computed", where);
  return HF_OK;
}

static hf_status read_parts(const json *v, const char *where, money_scenario *s) {
  if (json_type(v) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: part_prices: not an object", where);
  for (const json *m = json_first(v); m != NULL; m = json_next(m)) {
    char inner[400];
    int k = 0;
    while (k < MONEY_N_CLASSES && strcmp(money_class_name[k], json_key(m)) != 0) k++;
    if (k == MONEY_N_CLASSES)
      return hf_fail(HF_INPUT, "%s: part_prices: unknown part '%.60s'; known are cpu, memory, gpu, platform, extra", where,
                     json_key(m));
    snprintf(inner, sizeof inner, "%.300s: part_prices.%s", where, money_class_name[k]);
    HF_TRY(read_fact(m, inner, 0, 1e12, NULL, &s->part[k]));
  }
  return HF_OK;
}

static hf_status read_notes(const json *v, const char *where, money_scenario *s) {
  if (json_type(v) != JSON_ARRAY) return hf_fail(HF_INPUT, "%s: notes: not an array of sentences", where);
  for (const json *e = json_first(v); e != NULL && s->n_notes < MONEY_MAX_NOTES; e = json_next(e)) {
    if (json_string(e) == NULL) return hf_fail(HF_INPUT, "%s: notes: not an array of sentences", where);
    snprintf(s->note[s->n_notes], MONEY_NOTE, "%s", json_string(e));
    hf_printable(s->note[s->n_notes++]);
  }
  return HF_OK;
}

/* A tariff by hour of the day. Which price counts depends on when the machine works: money_inputs weighs them; the mean stands here. */
static hf_status read_tariff(const json *v, const char *where, double lo, double hi, money_scenario *s) {
  double sum = 0;
  int h = 0;
  if (json_len(v) != MONEY_HOURS)
    return hf_fail(HF_INPUT, "%s: an array of %d prices, one for each hour of the day, or one price", where, MONEY_HOURS);
  for (const json *e = json_first(v); e != NULL; e = json_next(e), h++) {
    double x = json_number(e, NAN);
    if (!(x >= lo && x <= hi)) return hf_fail(HF_INPUT, "%s[%d]: not a price of %g to %g", where, h, lo, hi);
    s->tariff[h] = x;
    sum += x;
  }
  money_fact f = {.low = sum / MONEY_HOURS, .likely = sum / MONEY_HOURS, .high = sum / MONEY_HOURS, .tag = TAG_ASSUMED};
  snprintf(f.source, sizeof f.source, "%.150s: mean of the 24 hours", where);
  s->f[MONEY_PER_KWH] = f;
  return HF_OK;
}

static hf_status read_input(const json *m, int i, const char *where, money_scenario *s) {
  char inner[400];
  double lo, hi;
  if (of_simulation(i))
    return hf_fail(HF_INPUT, "%s: member %s: comes from the simulation of the plan and cannot be stated", where, json_key(m));
  snprintf(inner, sizeof inner, "%.300s: %s", where, money_input_name((money_input)i));
  money_input_limits((money_input)i, &lo, &hi);
  s->stated[i] = true;
  if (i == MONEY_PER_KWH && json_type(m) == JSON_ARRAY) return read_tariff(m, inner, lo, hi, s);
  if (i == MONEY_PER_KWH) s->tariff[0] = NAN; /* one price replaces the tariff of the base */
  if (json_type(m) != JSON_NULL) return read_fact(m, inner, lo, hi, money_remedy((money_input)i), &s->f[i]);
  bool optional =
      (i >= MONEY_API_IN && i <= MONEY_RENT_UP) || i == MONEY_PRICE || i == MONEY_IDLE_W || i == MONEY_ACTIVE_W || i == MONEY_MIX;
  if (!optional) return hf_fail(HF_INPUT, "%s: null, but this cannot be left open", inner);
  s->f[i] = unknown();
  return HF_OK;
}

static hf_status read_text(const json *doc, const char *where, const char *key, char *out, size_t n) {
  const char *text = NULL;
  HF_TRY(json_opt_str(doc, where, key, &text));
  if (text == NULL) return HF_OK;
  if (text[0] == '\0' || strlen(text) >= n) return hf_fail(HF_INPUT, "%s: %s: empty or longer than %zu bytes", where, key, n - 1);
  snprintf(out, n, "%s", text);
  hf_printable(out);
  return HF_OK;
}

/* Money taken over from the base becomes money of this file's currency, before the file's own sums are read. */
static hf_status change_currency(const json *doc, const char *where, money_scenario *s) {
  char before[sizeof s->currency], inner[400];
  money_fact was = s->per_usd;
  snprintf(before, sizeof before, "%s", s->currency);
  HF_TRY(read_text(doc, where, "currency", s->currency, sizeof s->currency));
  const json *rate = json_get(doc, "currency_per_usd");
  snprintf(inner, sizeof inner, "%.300s: currency_per_usd", where);
  if (rate != NULL) HF_TRY(read_fact(rate, inner, 1e-6, 1e9, NULL, &s->per_usd));
  if (before[0] == '\0' || strcmp(before, s->currency) == 0) return HF_OK;
  if (rate == NULL)
    return hf_fail(HF_INPUT, "%s: currency '%s' is not its base's '%s': state currency_per_usd, too", where, s->currency, before);
  money_fact by = s->per_usd;
  by.low /= was.high;
  by.likely /= was.likely;
  by.high /= was.low;
  for (int i = 0; i < MONEY_N; i++)
    if (is_money(money_input_unit((money_input)i)) && !isnan(s->f[i].likely)) scale(&s->f[i], &by);
  for (int k = 0; k < MONEY_N_CLASSES; k++)
    if (!isnan(s->part[k].likely)) scale(&s->part[k], &by);
  for (int h = 0; h < MONEY_HOURS; h++) s->tariff[h] *= by.likely;
  return HF_OK;
}

/* A profile sets the likely utilisation; the interval is the file's own or shrinks to it. */
static hf_status settle_utilisation(const json *doc, const char *where, money_scenario *s) {
  const json *hours = json_get(doc, "utilisation_by_hour"), *number = json_get(doc, "utilisation");
  money_fact *u = &s->f[MONEY_UTILISATION];
  double sum = 0;
  if (hours == NULL && number != NULL) s->by_hour[0] = NAN; /* one number replaces the profile of the base */
  if (hours == NULL) return HF_OK;
  for (int h = 0; h < MONEY_HOURS; h++) sum += s->by_hour[h];
  double mean = sum / MONEY_HOURS;
  if (number == NULL) {
    *u = (money_fact){.low = mean, .likely = mean, .high = mean, .tag = TAG_ASSUMED};
    snprintf(u->source, sizeof u->source, "%.160s: mean of utilisation_by_hour", where);
    return HF_OK;
  }
  if (fabs(u->likely - mean) > 0.005)
    return hf_fail(HF_INPUT, "%s: utilisation: likely %g is not the mean of utilisation_by_hour, %g", where, u->likely, mean);
  return HF_OK;
}

static hf_status overlay(const json *doc, const char *where, money_scenario *s) {
  HF_TRY(change_currency(doc, where, s));
  HF_TRY(read_text(doc, where, "name", s->name, sizeof s->name));
  HF_TRY(read_text(doc, where, "title", s->title, sizeof s->title));
  for (const json *m = json_first(doc); m != NULL; m = json_next(m)) {
    int i = money_input_find(json_key(m));
    size_t k = 0;
    while (k < sizeof other_members / sizeof *other_members && strcmp(other_members[k], json_key(m)) != 0) k++;
    if (i >= 0) HF_TRY(read_input(m, i, where, s));
    else if (k == sizeof other_members / sizeof *other_members) return unknown_member(where, json_key(m));
    else if (strcmp(json_key(m), "utilisation_by_hour") == 0) HF_TRY(read_hours(m, where, s));
    else if (strcmp(json_key(m), "part_prices") == 0) HF_TRY(read_parts(m, where, s));
    else if (strcmp(json_key(m), "notes") == 0) HF_TRY(read_notes(m, where, s));
  }
  return settle_utilisation(doc, where, s);
}

/* ---- scenarios ---- */

static void empty_scenario(money_scenario *s) {
  *s = (money_scenario){0};
  for (int i = 0; i < MONEY_N; i++) s->f[i] = unknown();
  for (int k = 0; k < MONEY_N_CLASSES; k++) s->part[k] = unknown();
  s->per_usd = (money_fact){1, 1, 1, TAG_SPEC, "the currency is the US dollar"};
  s->by_hour[0] = s->tariff[0] = NAN;
}

static hf_status apply(const json *doc, const char *where, int depth, money_scenario *s);

static hf_status apply_named(const char *name, int depth, money_scenario *s) {
  json *doc = NULL;
  char where[160];
  if (depth > MAX_BASES) return hf_fail(HF_INPUT, "scenario %.90s: more than %d bases upon each other", name, MAX_BASES);
  HF_TRY(catalog_get("scenarios", name, &doc));
  snprintf(where, sizeof where, "scenario %.90s", name);
  hf_status st = apply(doc, where, depth, s);
  json_free(doc);
  return st;
}

static hf_status apply(const json *doc, const char *where, int depth, money_scenario *s) {
  const char *base = "default", *name = json_string(json_get(doc, "name"));
  if (json_type(doc) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: not a JSON object", where);
  HF_TRY(json_opt_str(doc, where, "base", &base));
  if (depth > 0 && name != NULL && strcmp(name, "default") == 0) { /* the one without a base */
    HF_TRY(overlay(doc, where, s));
    memset(s->stated, 0, sizeof s->stated);
    return HF_OK;
  }
  HF_TRY(apply_named(base, depth + 1, s));
  s->n_notes = 0; /* a base's notes speak of the base */
  return overlay(doc, where, s);
}

static bool is_path(const char *name) {
  size_t n = strlen(name);
  return strchr(name, '/') != NULL || (n > 5 && strcmp(name + n - 5, ".json") == 0);
}

static void name_after_file(const char *path, const json *doc, money_scenario *s) {
  const char *slash = strrchr(path, '/');
  if (json_get(doc, "name") == NULL) snprintf(s->name, sizeof s->name, "%.90s", slash != NULL ? slash + 1 : path);
  if (json_get(doc, "title") == NULL) snprintf(s->title, sizeof s->title, "%.90s", s->name);
  hf_printable(s->name);
  hf_printable(s->title);
}

hf_status money_scenario_read(const char *name, money_scenario *out) {
  empty_scenario(out);
  if (name == NULL || !is_path(name)) return hf_note(apply_named(name != NULL ? name : "default", 1, out), "option --scenario");
  json *doc = NULL;
  HF_TRY(json_read_file(name, MAX_FILE_BYTES, &doc));
  hf_status st = apply(doc, name, 0, out);
  if (st == HF_OK) name_after_file(name, doc, out);
  json_free(doc);
  return st;
}

hf_status money_scenario_parse(const char *text, size_t n, const char *where, money_scenario *out) {
  json *doc = NULL;
  empty_scenario(out);
  HF_TRY(json_parse(text, n, where, &doc));
  hf_status st = apply(doc, where, 0, out);
  if (st == HF_OK) name_after_file(where, doc, out);
  json_free(doc);
  return st;
}

/* ---- machine ---- */

static void add_figure(money_fact *sum, const rec_figure *r) {
  if (isnan(sum->likely)) {
    *sum = (money_fact){.low = r->low, .likely = r->likely, .high = r->high, .tag = r->tag};
    snprintf(sum->source, sizeof sum->source, "%s", r->source);
    return;
  }
  sum->low += r->low;
  sum->likely += r->likely;
  sum->high += r->high;
  if (r->tag > sum->tag) sum->tag = r->tag;
  if (strncmp(sum->source, r->source, strlen(r->source)) != 0 &&
      strlen(sum->source) + strlen(r->source) + 3 < sizeof sum->source) {
    size_t used = strlen(sum->source);
    snprintf(sum->source + used, sizeof sum->source - used, "; %s", r->source);
  }
}

void money_machine_of(const cost_rows *rows, money_machine *out) {
  *out = (money_machine){.price = unknown(), .idle_w = unknown(), .active_w = unknown()};
  for (int k = 0; k < MONEY_N_CLASSES; k++) out->part[k] = unknown();
  snprintf(out->name, sizeof out->name, "%s", rows->machine.name);
  for (int i = 0; i < rows->n_figure; i++) {
    const rec_figure *r = &rows->figure[i];
    bool whole = r->device[0] == '\0', price = strcmp(r->what, "price_usd") == 0;
    if (whole && price) add_figure(&out->price, r);
    else if (whole && strcmp(r->what, "power_idle_w") == 0) add_figure(&out->idle_w, r);
    else if (whole && strcmp(r->what, "power_active_w") == 0) add_figure(&out->active_w, r);
    else if (!whole && strcmp(r->what, "price_memory_usd") == 0) add_figure(&out->part[1], r);
    else if (!whole && price && strncmp(r->device, "cpu", 3) == 0) add_figure(&out->part[0], r);
    else if (!whole && price && strncmp(r->device, "gpu", 3) == 0) add_figure(&out->part[2], r);
  }
  for (int i = 0; i < rows->n_device; i++) {
    cost_figure f;
    const rec_device *d = &rows->device[i];
    int k = strcmp(d->kind, "gpu") == 0 ? 2 : 0;
    out->unpriced[k] = out->unpriced[k] || !cost_find(rows, d->device, "price_usd", &f);
  }
  double low = 0, likely = 0, high = 0;
  for (int k = 0; k < 3; k++) {
    if (isnan(out->part[k].likely)) continue;
    low += out->part[k].low;
    likely += out->part[k].likely;
    high += out->part[k].high;
  }
  /* what the parts leave of the whole */
  if (likely > 0 && out->price.likely - likely > 0.5)
    out->part[3] = (money_fact){.low = fmax(0, out->price.low - low),
                                .likely = out->price.likely - likely,
                                .high = fmax(out->price.likely - likely, out->price.high - high),
                                .tag = out->price.tag,
                                .source = "catalog: the machine's price without CPU, memory and GPU"};
  if (out->part[3].low > out->part[3].likely) out->part[3].low = out->part[3].likely;
}

static double busy_power(const cost_rows *rows, const char *device, double busy) {
  cost_figure idle, active;
  if (!cost_find(rows, device, "power_idle_w", &idle) || !cost_find(rows, device, "power_active_w", &active)) return 0;
  return idle.likely + fmax(0, active.likely - idle.likely) * busy;
}

void money_machine_busy(const cost_rows *rows, double cpu_busy, double gpu_busy, money_machine *m) {
  if (isnan(m->idle_w.likely) || isnan(m->active_w.likely)) return;
  double idle = 0, active = 0, watts = 0, most = fmin(1, fmax(cpu_busy, gpu_busy));
  for (int i = 0; i < rows->n_device; i++) {
    const rec_device *d = &rows->device[i];
    watts += busy_power(rows, d->device, fmin(1, strcmp(d->kind, "gpu") == 0 ? gpu_busy : cpu_busy));
    idle += busy_power(rows, d->device, 0);
    active += busy_power(rows, d->device, 1);
  }
  double rest_idle = fmax(0, m->idle_w.likely - idle), rest_active = fmax(rest_idle, m->active_w.likely - active);
  watts += rest_idle + (rest_active - rest_idle) * most;
  if (!(watts > 0) || watts > m->active_w.high) return;
  m->active_w.low = fmin(watts, m->active_w.low);
  m->active_w.likely = watts;
  if (m->active_w.tag < TAG_SPEC) m->active_w.tag = TAG_SPEC;
  snprintf(m->active_w.source, sizeof m->active_w.source,
           "idle and busy power of each part by its busy time in the simulation; high: all busy");
}

bool money_parts(const money_scenario *s, const money_machine *m, money_fact part[MONEY_N_CLASSES]) {
  for (int k = 0; k < MONEY_N_CLASSES; k++) {
    part[k] = m->part[k];
    if (!isnan(part[k].likely)) scale(&part[k], &s->per_usd);
    if (!isnan(s->part[k].likely)) part[k] = s->part[k];
  }
  return isnan(s->f[MONEY_PRICE].likely);
}

static hf_status price_of(const money_scenario *s, const money_machine *m, money_fact *out) {
  money_fact part[MONEY_N_CLASSES], sum = {.tag = TAG_MEASURED};
  bool any = false;
  if (!money_parts(s, m, part)) {
    *out = s->f[MONEY_PRICE];
    return HF_OK;
  }
  for (int k = 0; k < MONEY_N_CLASSES; k++) {
    if (isnan(part[k].likely)) continue;
    any = any || k < 4;
    sum.low += part[k].low;
    sum.likely += part[k].likely;
    sum.high += part[k].high;
    if (part[k].tag > sum.tag) sum.tag = part[k].tag;
  }
  snprintf(sum.source, sizeof sum.source, "sum of the parts");
  if (isnan(m->price.likely) && !any)
    return hf_fail(
        HF_INPUT,
        "machine %.90s: nobody says what it costs; state hardware_price (or part_prices) in a scenario: --scenario FILE",
        m->name);
  /* A whole without parts (a machine file that states one price): parts of the scenario come on top. */
  if (isnan(m->part[0].likely) && isnan(m->part[2].likely) && !isnan(m->price.likely)) {
    money_fact whole = m->price;
    scale(&whole, &s->per_usd);
    whole.low += sum.low;
    whole.likely += sum.likely;
    whole.high += sum.high;
    *out = whole;
    return HF_OK;
  }
  for (int k = 0; k < MONEY_N_CLASSES && isnan(m->price.likely); k++)
    if (isnan(s->part[k].likely) && (m->unpriced[k] || (k == 0 && isnan(m->part[k].likely))))
      return hf_fail(HF_INPUT,
                     "machine %.90s: the price of its %s is not known; state part_prices.%s or hardware_price in a scenario",
                     m->name, k == 0 ? "CPUs" : "GPUs", money_class_name[k]);
  *out = sum;
  return HF_OK;
}

static hf_status power_of_machine(const money_scenario *s, const money_machine *m, money_fact f[MONEY_N]) {
  f[MONEY_IDLE_W] = isnan(s->f[MONEY_IDLE_W].likely) ? m->idle_w : s->f[MONEY_IDLE_W];
  f[MONEY_ACTIVE_W] = isnan(s->f[MONEY_ACTIVE_W].likely) ? m->active_w : s->f[MONEY_ACTIVE_W];
  if (!isnan(f[MONEY_IDLE_W].likely) && !isnan(f[MONEY_ACTIVE_W].likely)) return HF_OK;
  return hf_fail(HF_INPUT,
                 "machine %.90s: nobody says what it draws; state power_idle_w and power_active_w in a scenario: --scenario FILE",
                 m->name);
}

/* The tariff's price of the kWh that the machine draws: each hour weighs what is drawn in it, by the profile of the day. */
static void weigh_tariff(const money_scenario *s, money_fact f[MONEY_N]) {
  double kwh = 0, paid = 0, idle = f[MONEY_IDLE_W].likely, active = f[MONEY_ACTIVE_W].likely;
  bool profile = !isnan(s->by_hour[0]);
  money_fact *x = &f[MONEY_PER_KWH];
  if (isnan(s->tariff[0])) return;
  for (int h = 0; h < MONEY_HOURS; h++) {
    double u = profile ? s->by_hour[h] : f[MONEY_UTILISATION].likely, watts = u * active + (1 - u) * idle;
    kwh += watts;
    paid += watts * s->tariff[h];
  }
  if (!(kwh > 0)) return;
  x->low = x->likely = x->high = paid / kwh;
  snprintf(x->source, sizeof x->source,
           "tariff of the scenario by hour of the day, weighted by what the machine draws in each hour%s",
           profile ? "" : " (no profile of use: every hour alike)");
}

static money_fact simulated(const money_load *l, double low, double likely, double high) {
  money_fact f = {.low = low, .likely = likely, .high = high, .tag = l->tag};
  snprintf(f.source, sizeof f.source, "%s", l->source);
  return f;
}

hf_status money_inputs(const money_scenario *s, const money_machine *m, const money_load *l, money_fact f[MONEY_N]) {
  memcpy(f, s->f, MONEY_N * sizeof *f);
  HF_TRY(price_of(s, m, &f[MONEY_PRICE]));
  HF_TRY(power_of_machine(s, m, f));
  weigh_tariff(s, f);
  f[MONEY_TOK_PER_S] = simulated(l, l->tok_per_s.low, l->tok_per_s.likely, l->tok_per_s.high);
  f[MONEY_PREFILL_SHARE] = simulated(l, l->prefill_share, l->prefill_share, l->prefill_share);
  f[MONEY_SIM_MIX] = simulated(l, l->input_per_output, l->input_per_output, l->input_per_output);
  f[MONEY_USERS] = simulated(l, l->users, l->users, l->users);
  if (isnan(f[MONEY_MIX].likely)) f[MONEY_MIX] = f[MONEY_SIM_MIX];
  if (f[MONEY_SIM_MIX].likely == 0 && f[MONEY_MIX].high > 0)
    return hf_fail(HF_INPUT, "input_per_output: the plan simulated no prompts, so that input has no price");
  if (isnan(f[MONEY_RENT_GPUS].likely) && !isnan(f[MONEY_RENT_HOUR].likely) && l->rented_gpus > 0) {
    f[MONEY_RENT_GPUS] = simulated(l, l->rented_gpus, l->rented_gpus, l->rented_gpus);
    f[MONEY_RENT_GPUS].tag = TAG_ASSUMED;
    snprintf(f[MONEY_RENT_GPUS].source, sizeof f[MONEY_RENT_GPUS].source,
             "as many GPUs of 80 GB as weights and KV cache need with a tenth to spare");
  }
  return money_check(f);
}

/* ---- prices of hosted models ---- */

const char *const money_api_origin_name[] = {"none", "scenario", "catalog", "assumed"};

static const struct {
  money_input input;
  const char *member;
} api_member[] = {
    {MONEY_API_IN, "input_per_million"}, {MONEY_API_OUT, "output_per_million"}, {MONEY_API_CACHED, "cached_per_million"}};
enum { N_API_MEMBERS = sizeof api_member / sizeof *api_member };

static hf_status listed_prices(const money_scenario *s, const json *prices, const char *where, money_fact f[MONEY_N]) {
  for (int k = 0; k < N_API_MEMBERS; k++) {
    char inner[400];
    double lo, hi;
    money_input i = api_member[k].input;
    const json *v = json_get(prices, api_member[k].member);
    if (s->stated[i]) continue;
    f[i] = unknown();
    if (v == NULL) continue;
    snprintf(inner, sizeof inner, "%.200s: api_prices.%s", where, api_member[k].member);
    money_input_limits(i, &lo, &hi);
    HF_TRY(read_fact(v, inner, lo, hi, NULL, &f[i]));
    if (json_get(v, "tag") == NULL) f[i].tag = TAG_SPEC;
    scale(&f[i], &s->per_usd);
  }
  return HF_OK;
}

static void assumed_prices(const money_scenario *s, money_fact f[MONEY_N]) {
  for (int k = 0; k < N_API_MEMBERS; k++) {
    money_fact *x = &f[api_member[k].input];
    char source[sizeof x->source];
    if (s->stated[api_member[k].input] || isnan(x->likely)) continue;
    x->tag = TAG_ASSUMED;
    snprintf(source, sizeof source, "no list price of this model is known; assumed as: %.220s", x->source);
    memcpy(x->source, source, sizeof source);
  }
}

hf_status money_api_prices(const money_scenario *s, const char *model, money_fact f[MONEY_N], money_api_origin *from) {
  json *doc = NULL;
  char where[160];
  hf_status st = HF_OK;
  *from = MONEY_API_NONE;
  bool none =
      (s->stated[MONEY_API_IN] && isnan(f[MONEY_API_IN].likely)) || (s->stated[MONEY_API_OUT] && isnan(f[MONEY_API_OUT].likely));
  if (none) return HF_OK;
  *from = MONEY_API_STATED;
  if (s->stated[MONEY_API_IN] && s->stated[MONEY_API_OUT]) return HF_OK;
  if (catalog_get("models", model, &doc) != HF_OK) hf_clear_error(); /* no model of the catalog: nobody lists its price */
  const json *prices = json_get(doc, "api_prices");
  snprintf(where, sizeof where, "catalog model %.100s", model);
  *from = MONEY_API_LISTED;
  if (json_type(prices) == JSON_OBJECT) {
    st = listed_prices(s, prices, where, f);
  } else {
    assumed_prices(s, f);
    *from = MONEY_API_ASSUMED;
  }
  if (isnan(f[MONEY_API_IN].likely) || isnan(f[MONEY_API_OUT].likely)) *from = MONEY_API_NONE;
  json_free(doc);
  return st;
}
