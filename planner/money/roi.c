/* roi.c: a decision about a machine, in words, as a document, as tables. */
#include "planner/money/roi_int.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/ask/command.h"

hf_status roi_compute(const money_scenario *s, const money_machine *m, const money_load *l, const char *model_name, roi *out) {
  double v[MONEY_N];
  *out = (roi){.scenario = s, .machine = m, .load = l, .model = model_name};
  HF_TRY(money_inputs(s, m, l, out->f));
  HF_TRY(money_api_prices(s, model_name, out->f, &out->api_from));
  money_likely(out->f, v);
  money_costs(v, &out->cost);
  money_decide(v, &out->decision);
  out->n_levers = money_tornado(out->f, out->lever);
  return money_sample(out->f, MONEY_DRAWS, ROI_SEED, &out->sample);
}

/* ---- document ---- */

static void add_fact(json *list, const char *name, const char *words, const char *unit, const money_fact *f) {
  json *o = json_add_object(list, NULL);
  json_add_str(o, "name", name);
  json_add_str(o, "words", words);
  json_add_str(o, "unit", unit);
  json_add_num(o, "low", f->low);
  json_add_num(o, "likely", f->likely);
  json_add_num(o, "high", f->high);
  json_add_str(o, "tag", db_tag_name(f->tag));
  json_add_str(o, "source", f->source);
}

static void add_inputs(const roi *r, json *doc) {
  json *list = json_add_array(doc, "inputs"), *parts = json_add_array(doc, "parts");
  money_fact part[MONEY_N_CLASSES];
  for (int i = 0; i < MONEY_N; i++)
    if (!isnan(r->f[i].likely))
      add_fact(list, money_input_name((money_input)i), money_input_words((money_input)i), money_input_unit((money_input)i),
               &r->f[i]);
  if (!money_parts(r->scenario, r->machine, part)) return;
  for (int k = 0; k < MONEY_N_CLASSES; k++)
    if (!isnan(part[k].likely)) add_fact(parts, money_class_name[k], money_class_name[k], "money", &part[k]);
}

static void add_spread(json *o, const char *key, money_spread s) {
  json *v = json_add_object(o, key);
  json_add_num(v, "p10", s.p10);
  json_add_num(v, "p50", s.p50);
  json_add_num(v, "p90", s.p90);
}

static void add_cost(const money_cost *c, json *doc) {
  json *o = json_add_object(doc, "cost");
  json_add_num(o, "per_million_tokens", c->per_million);
  json_add_num(o, "per_million_input", c->per_million_in);
  json_add_num(o, "per_million_output", c->per_million_out);
  json_add_num(o, "per_month", c->per_month);
  json_add_num(o, "per_year", c->per_year);
  json_add_num(o, "tokens_per_money", c->tokens_per_money);
  json_add_num(o, "tokens_per_month", c->tokens_per_month);
  json_add_num(o, "input_tokens_per_month", c->in_tokens_per_month);
  json_add_num(o, "output_tokens_per_month", c->out_tokens_per_month);
  json_add_num(o, "capacity_tokens_per_month", c->capacity_tokens_per_month);
  json_add_num(o, "kwh_per_year", c->kwh_per_year);
  json_add_num(o, "kwh_per_million_tokens", c->kwh_per_million);
  json_add_num(o, "co2_kg_per_year", c->co2_kg_per_year);
  json_add_num(o, "co2_kg_per_million_tokens", c->co2_kg_per_million);
  json_add_num(o, "users", c->users);
  json_add_num(o, "per_user_month", c->per_user_month);
  json_add_num(o, "named_users", c->named_users);
  json_add_num(o, "per_named_user_month", c->per_named_user_month);
  json *list = json_add_array(o, "breakdown");
  for (int i = 0; i < MONEY_N_PARTS; i++) {
    json *p = json_add_object(list, NULL);
    json_add_str(p, "part", money_part_name[i]);
    json_add_num(p, "per_year", c->part_per_year[i]);
    json_add_num(p, "per_million_tokens", c->part_per_million[i]);
    json_add_num(p, "share", c->per_year > 0 ? c->part_per_year[i] / c->per_year : NAN);
  }
}

static void add_options(const roi *r, json *doc) {
  json *list = json_add_array(doc, "options"), *cash = json_add_array(doc, "cash");
  for (int w = 0; w < MONEY_N_WAYS; w++) {
    const money_option *x = &r->decision.way[w];
    if (isnan(x->per_month)) continue;
    json *o = json_add_object(list, NULL);
    json_add_str(o, "way", money_way_name[w]);
    json_add_bool(o, "cheapest", w == (int)r->decision.cheapest);
    json_add_num(o, "per_month", x->per_month);
    json_add_num(o, "levelised_per_month", x->levelised_per_month);
    json_add_num(o, "per_million_tokens", x->per_million);
    json_add_num(o, "levelised_per_million_tokens", x->levelised_per_million);
    json_add_num(o, "tco_3_years", x->tco_3);
    json_add_num(o, "tco_5_years", x->tco_5);
    json_add_num(o, "payback_months", x->payback_months);
    json_add_num(o, "npv", x->npv);
    json_add_num(o, "break_even_tokens_per_month", x->break_even_tokens_per_month);
    json_add_num(o, "break_even_utilisation", x->break_even_utilisation);
    json_add_num(o, "cheapest_share_of_draws", r->sample.cheapest[w]);
  }
  for (int m = 0; m <= MONEY_CASH_MONTHS; m++) {
    json *o = json_add_object(cash, NULL);
    json_add_int(o, "month", m);
    for (int w = 0; w < MONEY_N_WAYS; w++)
      if (!isnan(r->decision.way[w].per_month)) json_add_num(o, money_way_name[w], r->decision.way[w].cash[m]);
  }
}

static void add_doubt(const roi *r, json *doc) {
  const money_sample_result *s = &r->sample;
  json *o = json_add_object(doc, "sample");
  json_add_int(o, "draws", s->n);
  json_add_int(o, "seed", ROI_SEED);
  add_spread(o, "per_million_tokens", s->per_million);
  add_spread(o, "per_million_input", s->per_million_in);
  add_spread(o, "per_million_output", s->per_million_out);
  add_spread(o, "per_month", s->per_month);
  add_spread(o, "per_user_month", s->per_user_month);
  add_spread(o, "kwh_per_million_tokens", s->kwh_per_million);
  add_spread(o, "npv_against_api", s->api_npv);
  add_spread(o, "payback_months_against_api", s->api_payback_months);
  add_spread(o, "break_even_tokens_against_api", s->api_break_even_tokens);
  add_spread(o, "npv_against_rent", s->rent_npv);
  add_spread(o, "break_even_tokens_against_rent", s->rent_break_even_tokens);
  json *c = json_add_object(o, "cheapest");
  for (int w = 0; w < MONEY_N_WAYS; w++) json_add_num(c, money_way_name[w], s->cheapest[w]);
  json *list = json_add_array(doc, "levers");
  for (int i = 0; i < r->n_levers; i++) {
    const money_lever *l = &r->lever[i];
    json *v = json_add_object(list, NULL);
    json_add_str(v, "name", money_input_name(l->input));
    json_add_str(v, "words", money_input_words(l->input));
    json_add_str(v, "unit", money_input_unit(l->input));
    json_add_num(v, "low", l->low);
    json_add_num(v, "likely", r->f[l->input].likely);
    json_add_num(v, "high", l->high);
    json_add_num(v, "per_million_at_low", l->per_million_low);
    json_add_num(v, "per_million_at_high", l->per_million_high);
    json_add_str(v, "cheapest_at_low", money_way_name[l->cheapest_low]);
    json_add_str(v, "cheapest_at_high", money_way_name[l->cheapest_high]);
    json_add_bool(v, "flips", l->flips);
    json_add_num(v, "flips_at", l->flips_at);
    if (isnan(l->flips_at)) json_add_null(v, "flips_to");
    else json_add_str(v, "flips_to", money_way_name[l->flips_to]);
  }
}

/* What the API asks today, and whose price that is. */
static void add_api_price(const roi *r, json *doc) {
  json *o = json_add_object(doc, "api_price");
  json_add_str(o, "from", money_api_origin_name[r->api_from]);
  json_add_str(o, "model", r->model);
  json_add_num(o, "per_million_input", r->f[MONEY_API_IN].likely);
  json_add_num(o, "per_million_output", r->f[MONEY_API_OUT].likely);
  json_add_num(o, "per_million_cached_input", r->f[MONEY_API_CACHED].likely);
}

static void add_rented(const roi *r, json *doc) {
  roi_rent x;
  char words[ROI_RENT];
  if (!roi_rent_of(r, &x)) {
    json_add_null(doc, "rented");
    return;
  }
  roi_rent_words(r, words);
  json *o = json_add_object(doc, "rented");
  if (r->load->rented_gpu[0] != '\0') json_add_str(o, "gpu", r->load->rented_gpu);
  json_add_num(o, "gpus", x.gpus);
  json_add_num(o, "price_per_hour", x.per_hour);
  json_add_num(o, "up_share", x.up_share);
  json_add_num(o, "demand_tok_per_s", x.demand_tok_per_s);
  if (x.tok_per_s > 0) {
    json_add_num(o, "decode_tok_per_s_least", x.tok_per_s);
    json_add_num(o, "use", x.use);
  }
  json_add_str(o, "text", words);
}

static void add_ruling(const roi *r, json *doc) {
  roi_ruling x;
  char average[ROI_LEVELISED];
  roi_rule(r, &x);
  json *o = json_add_object(doc, "ruling");
  json_add_str(o, "way", x.decided ? money_way_name[x.first] : "undecided");
  if (!x.alone) {
    json_add_str(o, "first", money_way_name[x.first]);
    json_add_num(o, "first_share", x.share_first);
    json_add_str(o, "second", money_way_name[x.second]);
    json_add_num(o, "second_share", x.share_second);
    json_add_num(o, "share_needed", ROI_SURE);
  }
  if (x.lever == NULL) {
    json_add_null(o, "turns_on");
  } else {
    json *l = json_add_object(o, "turns_on");
    json_add_str(l, "name", money_input_name(x.lever->input));
    json_add_str(l, "words", money_input_words(x.lever->input));
    json_add_num(l, "likely", r->f[x.lever->input].likely);
    json_add_num(l, "flips_at", x.lever->flips_at);
    json_add_str(l, "flips_to", money_way_name[x.lever->flips_to]);
  }
  roi_levelised_words(r, average);
  json_add_str(doc, "levelised", average);
}

void roi_to_json(const roi *r, json *doc) {
  char doubt[MONEY_MAX_DOUBTS][MONEY_NOTE];
  int n_doubts = money_doubts(r->scenario, r->f, doubt);
  json *warnings = json_add_array(doc, "warnings");
  for (int i = 0; i < n_doubts; i++) json_add_str(warnings, NULL, doubt[i]);
  json_add_str(doc, "currency", r->scenario->currency);
  json *s = json_add_object(doc, "scenario");
  json_add_str(s, "name", r->scenario->name);
  json_add_str(s, "title", r->scenario->title);
  json *notes = json_add_array(s, "notes");
  for (int i = 0; i < r->scenario->n_notes; i++) json_add_str(notes, NULL, r->scenario->note[i]);
  json_add_str(doc, "cheapest", money_way_name[r->decision.cheapest]);
  add_ruling(r, doc);
  add_api_price(r, doc);
  add_rented(r, doc);
  add_cost(&r->cost, doc);
  add_options(r, doc);
  add_doubt(r, doc);
  add_inputs(r, doc);
  json *prices = isnan(r->scenario->tariff[0]) ? NULL : json_add_array(doc, "energy_price_by_hour");
  for (int h = 0; prices != NULL && h < MONEY_HOURS; h++) json_add_num(prices, NULL, r->scenario->tariff[h]);
  if (isnan(r->scenario->by_hour[0])) return;
  json *hours = json_add_array(doc, "utilisation_by_hour");
  for (int h = 0; h < MONEY_HOURS; h++) json_add_num(hours, NULL, r->scenario->by_hour[h]);
}

/* ---- text ---- */

static hf_status show_costs(const roi *r, hf_buf *b) {
  const money_cost *c = &r->cost;
  const char *cur = r->scenario->currency;
  char a[MONEY_TEXT], x[MONEY_TEXT], y[MONEY_TEXT], z[MONEY_TEXT];
  money_text(c->per_million, a);
  money_text(c->per_million_in, x);
  money_text(c->per_million_out, y);
  HF_TRY(hf_buf_printf(b, "  per million    %s %s, input and output together; %s of input alone, %s of output alone\n", a, cur, x,
                       y));
  money_text(c->per_month, a);
  money_text(c->per_user_month, x);
  money_text(c->per_named_user_month, y);
  HF_TRY(hf_buf_printf(b, "  per month      %s %s; %s for each of %.0f users at once, %s for each of %.0f people\n", a, cur, x,
                       c->users, y, c->named_users));
  roi_millions_text(c->tokens_per_month, a);
  roi_millions_text(c->capacity_tokens_per_month, x);
  money_text(c->tokens_per_money, y);
  HF_TRY(hf_buf_printf(b, "  tokens         %s a month of %s it could do; %s for one %s\n", a, x, y, cur));
  money_text(c->kwh_per_year, a);
  money_text(c->kwh_per_million, x);
  money_text(c->co2_kg_per_year, y);
  money_text(c->co2_kg_per_million, z);
  HF_TRY(hf_buf_printf(
      b, "  energy         %s kWh a year, %s for a million tokens in and out; CO2 %s kg a year, %s for a million\n", a, x, y, z));
  HF_TRY(hf_buf_printf(b, "  made of        "));
  bool first = true;
  for (int i = 0; i < MONEY_N_PARTS; i++) {
    if (!(c->part_per_year[i] > 0)) continue;
    HF_TRY(hf_buf_printf(b, "%s%s %.0f %%", first ? "" : ", ", money_part_name[i], 100 * c->part_per_year[i] / c->per_year));
    first = false;
  }
  return hf_buf_printf(b, "\n");
}

static hf_status show_rented(const roi *r, hf_buf *b) {
  char words[ROI_RENT];
  roi_rent_words(r, words);
  return words[0] != '\0' ? hf_buf_printf(b, "  rented         %s\n", words) : HF_OK;
}

/* What the API asks, input and output apart, and who says so. */
static hf_status show_api(const roi *r, hf_buf *b) {
  static const char *const whose[] = {"", "as the scenario states", "list prices of this model", "an assumption"};
  char in[MONEY_TEXT], out[MONEY_TEXT], cached[MONEY_TEXT + 40] = "";
  const money_fact *c = &r->f[MONEY_API_CACHED];
  if (isnan(r->decision.way[MONEY_API].per_month)) return HF_OK;
  money_text(r->f[MONEY_API_IN].likely, in);
  money_text(r->f[MONEY_API_OUT].likely, out);
  if (!isnan(c->likely)) {
    money_text(c->likely, cached);
    snprintf(cached + strlen(cached), sizeof cached - strlen(cached), " of cached input, ");
  }
  HF_TRY(hf_buf_printf(b, "  API today      a million tokens: %s %s of input, %s%s of output; %s\n", in, r->scenario->currency,
                       cached, out, whose[r->api_from]));
  return hf_buf_printf(b, "                 %s\n", r->f[MONEY_API_OUT].source);
}

static hf_status show_option(const roi *r, money_way w, hf_buf *b) {
  const money_option *o = &r->decision.way[w];
  char text[6][MONEY_TEXT], back[MONEY_TEXT], npv[MONEY_TEXT];
  const double v[6] = {o->per_million, o->levelised_per_million, o->per_month, o->levelised_per_month, o->tco_3, o->tco_5};
  for (int i = 0; i < 6; i++) money_text(v[i], text[i]);
  HF_TRY(hf_buf_printf(b, "  %-4s %10s %10s %11s %10s %11s %11s %5.0f %%", money_way_name[w], text[0], text[1], text[2], text[3],
                       text[4], text[5], 100 * r->sample.cheapest[w]));
  if (w != MONEY_OWN) {
    roi_months_text(o->payback_months, back);
    money_text(o->npv, npv);
    HF_TRY(hf_buf_printf(b, "  %s; %s", back, npv));
  }
  return hf_buf_printf(b, "\n");
}

static hf_status show_options(const roi *r, hf_buf *b) {
  char average[ROI_LEVELISED];
  double interest = 100 * r->f[MONEY_DISCOUNT].likely;
  HF_TRY(show_api(r, b));
  HF_TRY(show_rented(r, b));
  HF_TRY(hf_buf_printf(b, "\n  %-4s %21s %22s %11s %11s %7s\n", "way", "a million, in and out", "a month", "in 3 years",
                       "in 5 years", "draws"));
  HF_TRY(hf_buf_printf(b, "  %-4s %10s %10s %11s %10s %11s %11s %7s  %s\n", "", "today", "levelised", "today", "levelised", "",
                       "", "won", "owning pays back; NPV"));
  for (int w = 0; w < MONEY_N_WAYS; w++)
    if (!isnan(r->decision.way[w].per_month)) HF_TRY(show_option(r, (money_way)w, b));
  roi_levelised_words(r, average);
  HF_TRY(hf_buf_printf(b, "  levelised:     %s\n", average));
  HF_TRY(hf_buf_printf(b, "  in 3, 5 years: all that is paid by then, no interest counted; of the machine's price less what it "
                          "is then still worth\n"));
  if (interest > 0)
    HF_TRY(hf_buf_printf(b,
                         "  own, a month:  its price spread over %.3g years of use at %.3g %% interest, so 36 such months are "
                         "not the sum of 3 years\n",
                         r->f[MONEY_YEARS].likely, interest));
  return HF_OK;
}

static hf_status show_levers(const roi *r, hf_buf *b) {
  enum { SHOWN = 8 };
  HF_TRY(hf_buf_printf(b, "\n  What moves it (each alone)%*s%22s %24s  flips\n", 21, "", "from .. to", "a million, in and out"));
  for (int i = 0, n = 0; i < r->n_levers; i++) {
    const money_lever *l = &r->lever[i];
    char lo[MONEY_TEXT], hi[MONEY_TEXT], a[MONEY_TEXT], z[MONEY_TEXT], at[MONEY_TEXT], range[90], cost[90];
    if (n >= SHOWN && !l->flips) continue;
    if (!(l->low < l->high)) continue;
    n++;
    money_text(l->low, lo);
    money_text(l->high, hi);
    money_text(l->per_million_low, a);
    money_text(l->per_million_high, z);
    snprintf(range, sizeof range, "%s .. %s", lo, hi);
    snprintf(cost, sizeof cost, "%s .. %s", a, z);
    HF_TRY(hf_buf_printf(b, "  %-47.47s%22s %24s", money_input_words(l->input), range, cost));
    if (!isnan(l->flips_at)) {
      money_text(l->flips_at, at);
      HF_TRY(hf_buf_printf(b, "  to %s at %s%s", money_way_name[l->flips_to], at, l->flips ? "" : " (outside)"));
    }
    HF_TRY(hf_buf_printf(b, "\n"));
  }
  return HF_OK;
}

hf_status roi_show(const roi *r, hf_buf *b) {
  char doubt[MONEY_MAX_DOUBTS][MONEY_NOTE];
  int n = money_doubts(r->scenario, r->f, doubt);
  for (int i = 0; i < n; i++) HF_TRY(hf_buf_printf(b, "  check          %s\n", doubt[i]));
  HF_TRY(show_costs(r, b));
  HF_TRY(show_options(r, b));
  HF_TRY(show_levers(r, b));
  HF_TRY(hf_buf_printf(b, "\n  scenario       %s: %s, in %s\n", r->scenario->name, r->scenario->title, r->scenario->currency));
  for (int i = 0; i < r->scenario->n_notes; i++) HF_TRY(hf_buf_printf(b, "  note           %s\n", r->scenario->note[i]));
  return HF_OK;
}

/* ---- CSV ---- */

static hf_status csv_row(hf_buf *b, const char *table, const char *name, const char *unit, const double v[3], const char *tag,
                         const char *source) {
  HF_TRY(ask_csv_text(b, table, false));
  HF_TRY(ask_csv_text(b, name, false));
  HF_TRY(ask_csv_text(b, unit, false));
  for (int i = 0; i < 3; i++) HF_TRY(ask_csv_number(b, v[i], false));
  HF_TRY(ask_csv_text(b, tag, false));
  return ask_csv_text(b, source, true);
}

static hf_status csv_fact(hf_buf *b, const char *table, const char *name, const char *unit, const money_fact *f) {
  const double v[3] = {f->low, f->likely, f->high};
  return csv_row(b, table, name, unit, v, db_tag_name(f->tag), f->source);
}

static hf_status csv_result(hf_buf *b, const char *table, const char *name, const char *unit, double likely,
                            const money_spread *s) {
  const double v[3] = {s != NULL ? s->p10 : NAN, likely, s != NULL ? s->p90 : NAN};
  return csv_row(b, table, name, unit, v, "", "low and high: 10th and 90th percentile of the draws");
}

static hf_status csv_option(const roi *r, money_way w, hf_buf *b) {
  const money_option *o = &r->decision.way[w];
  const struct {
    const char *name, *unit;
    double v;
  } rows[] = {{"per_month", "money", o->per_month},
              {"levelised_per_month", "money", o->levelised_per_month},
              {"per_million_tokens", "money/M input and output", o->per_million},
              {"levelised_per_million_tokens", "money/M input and output", o->levelised_per_million},
              {"tco_3_years", "money", o->tco_3},
              {"tco_5_years", "money", o->tco_5},
              {"payback_months", "months", o->payback_months},
              {"npv", "money", o->npv},
              {"break_even_tokens_per_month", "1", o->break_even_tokens_per_month},
              {"break_even_utilisation", "share", o->break_even_utilisation},
              {"cheapest_share_of_draws", "share", r->sample.cheapest[w]}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows && !isnan(o->per_month); i++)
    HF_TRY(csv_result(b, money_way_name[w], rows[i].name, rows[i].unit, rows[i].v, NULL));
  return HF_OK;
}

hf_status roi_csv(const roi *r, hf_buf *b) {
  const money_sample_result *s = &r->sample;
  money_fact part[MONEY_N_CLASSES];
  HF_TRY(hf_buf_printf(b, "table,name,unit,low,likely,high,tag,source\r\n"));
  for (int i = 0; i < MONEY_N; i++)
    if (!isnan(r->f[i].likely))
      HF_TRY(csv_fact(b, "input", money_input_name((money_input)i), money_input_unit((money_input)i), &r->f[i]));
  bool parts = money_parts(r->scenario, r->machine, part);
  for (int k = 0; parts && k < MONEY_N_CLASSES; k++)
    if (!isnan(part[k].likely)) HF_TRY(csv_fact(b, "part", money_class_name[k], "money", &part[k]));
  HF_TRY(csv_result(b, "cost", "per_million_tokens", "money/M input and output", r->cost.per_million, &s->per_million));
  HF_TRY(csv_result(b, "cost", "per_million_input", "money/M input", r->cost.per_million_in, &s->per_million_in));
  HF_TRY(csv_result(b, "cost", "per_million_output", "money/M output", r->cost.per_million_out, &s->per_million_out));
  HF_TRY(csv_result(b, "cost", "per_month", "money", r->cost.per_month, &s->per_month));
  HF_TRY(csv_result(b, "cost", "per_user_month", "money", r->cost.per_user_month, &s->per_user_month));
  HF_TRY(csv_result(b, "cost", "kwh_per_million_tokens", "kWh", r->cost.kwh_per_million, &s->kwh_per_million));
  HF_TRY(csv_result(b, "cost", "co2_kg_per_million_tokens", "kg", r->cost.co2_kg_per_million, NULL));
  for (int i = 0; i < MONEY_N_PARTS; i++)
    HF_TRY(csv_result(b, "breakdown", money_part_name[i], "money/year", r->cost.part_per_year[i], NULL));
  for (int w = 0; w < MONEY_N_WAYS; w++) HF_TRY(csv_option(r, (money_way)w, b));
  return HF_OK;
}
