/* section_roi.c: what tokens cost on a machine, against what, and what would turn the decision round. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "reports/answers.h"

enum { WAYS = 3, CURRENCY = 24, MONEY = FORMAT_MAX + CURRENCY, NOTE = 3 * FORMAT_MAX + 40, TORNADO_ROWS = 12, COLOURS = 8 };

static const struct { const char *key, *words; } ways[WAYS] = {{"own", "own machine"}, {"api", "API"}, {"rent", "rented GPUs"}};

static const char *way_words(const char *key) {
  for (int i = 0; i < WAYS; i++)
    if (strcmp(key, ways[i].key) == 0) return ways[i].words;
  return key;
}

static const json *option(const json *doc, const char *way) {
  const json *list = json_get(doc, "options");
  for (const json *o = json_type(list) == JSON_ARRAY ? json_first(list) : NULL; o != NULL; o = json_next(o))
    if (strcmp(answer_text(o, "way"), way) == 0) return o;
  return NULL;
}

static const json *list_of(const json *doc, const char *path) {
  const json *list = answer_at(doc, path);
  return json_type(list) == JSON_ARRAY ? json_first(list) : NULL;
}

/* Money as people write it: pennies below a hundred, none above. */
static void money(const json *doc, double v, char out[MONEY]) {
  char number[FORMAT_MAX];
  format_number(v, fabs(v) < 100 ? FMT_TOK_S : FMT_INT, number);
  snprintf(out, MONEY, "%s\xc2\xa0%.20s", number, answer_text(doc, "currency"));
}

static void spread_note(const json *doc, const char *path, char out[NOTE]) {
  char lo[FORMAT_MAX], hi[FORMAT_MAX], half[FORMAT_MAX], key[80];
  snprintf(key, sizeof key, "sample.%s.p10", path);
  format_number(answer_num(doc, key), FMT_TOK_S, lo);
  snprintf(key, sizeof key, "sample.%s.p90", path);
  format_number(answer_num(doc, key), FMT_TOK_S, hi);
  snprintf(key, sizeof key, "sample.%s.p50", path);
  format_number(answer_num(doc, key), FMT_TOK_S, half);
  snprintf(out, NOTE, "8 of 10 draws: %s to %s, half below %s", lo, hi, half);
}

static void payback_text(double months, char out[FORMAT_MAX]) {
  if (!isfinite(months)) snprintf(out, FORMAT_MAX, "never in 10 years");
  else if (months >= 24) snprintf(out, FORMAT_MAX, "%.1f\xc2\xa0years", months / 12);
  else snprintf(out, FORMAT_MAX, "%.1f\xc2\xa0months", months);
}

/* ---- head ---- */

static void tile_payback(page *p, const json *doc, const char *way) {
  const json *o = option(doc, way);
  char v[FORMAT_MAX], label[64], even[FORMAT_MAX];
  if (o == NULL) return;
  double break_even = answer_num(o, "break_even_tokens_per_month");
  payback_text(answer_num(o, "payback_months"), v);
  snprintf(label, sizeof label, "Payback against %s", strcmp(way, "api") == 0 ? "the API" : "renting");
  format_number(break_even / 1e6, FMT_TOK_S, even);
  if (isfinite(break_even) && break_even > 0) page_tile(p, label, v, "break-even at %s million tokens a month", even);
  else page_tile(p, label, v, "%s", isfinite(break_even) ? "cheaper at any volume" : "no volume breaks even");
}

/* Which way, or that the doubts leave it open. */
static void tile_ruling(page *p, const json *doc) {
  const char *way = answer_text(doc, "ruling.way"), *first = answer_text(doc, "ruling.first");
  char one[FORMAT_MAX], two[FORMAT_MAX];
  if (*way == '\0' || *first == '\0') return;
  format_number(answer_num(doc, "ruling.first_share"), FMT_SHARE, one);
  format_number(answer_num(doc, "ruling.second_share"), FMT_SHARE, two);
  page_tile(p, "Cheapest way", way_words(way), "cheapest in draws over all doubts: %s %s, %s %s", way_words(first), one,
            way_words(answer_text(doc, "ruling.second")), two);
}

/* What the API asks today, beside what it will have asked over the years. */
static void tile_api(page *p, const json *doc) {
  static const struct {
    const char *from, *words;
  } whose[] = {{"scenario", "price of the scenario"},
               {"catalog", "list price of this model"},
               {"assumed", "an assumption: this model has no known list price"}};
  const json *o = option(doc, "api");
  const char *from = answer_text(doc, "api_price.from"), *words = "price of the scenario";
  char today[MONEY], later[FORMAT_MAX];
  if (o == NULL) return;
  for (size_t i = 0; i < sizeof whose / sizeof *whose; i++)
    if (strcmp(from, whose[i].from) == 0) words = whose[i].words;
  money(doc, answer_num(o, "per_million_tokens"), today);
  format_number(answer_num(o, "levelised_per_million_tokens"), FMT_TOK_S, later);
  page_tile(p, "API today, a million tokens in and out", today, "%s levelised; %s", later, words);
}

static void tiles(page *p, const json *doc) {
  char v[MONEY], w[NOTE], x[FORMAT_MAX];
  page_tiles(p);
  tile_ruling(p, doc);
  money(doc, answer_num(doc, "cost.per_million_tokens"), v);
  spread_note(doc, "per_million_tokens", w);
  page_tile(p, "Own, a million tokens in and out", v, "%s", w);
  tile_api(p, doc);
  money(doc, answer_num(doc, "cost.per_month"), v);
  format_number(answer_num(doc, "cost.tokens_per_month") / 1e6, FMT_TOK_S, x);
  page_tile(p, "Own, a month, levelised", v, "for %s million tokens, in and out", x);
  money(doc, answer_num(doc, "cost.per_user_month"), v);
  format_number(answer_num(doc, "cost.users"), FMT_INT, x);
  page_tile(p, "Own, a user at once, a month", v, "%s served at once", x);
  money(doc, answer_num(doc, "cost.per_named_user_month"), v);
  format_number(answer_num(doc, "cost.named_users"), FMT_INT, x);
  page_tile(p, "Own, a person, a month", v, "%s people share them", x);
  tile_payback(p, doc, "api");
  tile_payback(p, doc, "rent");
  format_number(answer_num(doc, "cost.kwh_per_million_tokens"), FMT_TOK_S, x);
  snprintf(v, sizeof v, "%s\xc2\xa0kWh", x);
  format_number(answer_num(doc, "cost.co2_kg_per_million_tokens"), FMT_TOK_S, x);
  page_tile(p, "Energy, a million tokens in and out", v, "%s kg of CO2", x);
  page_tiles_end(p);
}

/* A bar of parts with its legend; what stands behind it is a table. */
static void share_bar(page *p, const json *first, const char *label_key, const char *share_key, const char *caption) {
  page_raw(p, "<figure class=\"budget\"><figcaption>");
  page_escaped(p, "%s", caption);
  page_raw(p, "</figcaption><div class=\"bar\" aria-hidden=\"true\">");
  int k = 0;
  for (const json *o = first; o != NULL; o = json_next(o), k++) {
    double share = answer_num(o, share_key);
    if (share > 0 && share <= 1) page_raw(p, "<span class=\"s%d\" style=\"width:%.3f%%\"></span>", k % COLOURS, 100 * share);
  }
  page_raw(p, "</div><ul class=\"legend\">");
  k = 0;
  for (const json *o = first; o != NULL; o = json_next(o), k++) {
    double share = answer_num(o, share_key);
    char text[FORMAT_MAX];
    if (!(share > 0)) continue;
    format_number(share, FMT_SHARE, text);
    page_raw(p, "<li><span class=\"key s%d\"></span>", k % COLOURS);
    page_escaped(p, "%s: %s", answer_text(o, label_key), text);
    page_raw(p, "</li>");
  }
  page_raw(p, "</ul></figure>\n");
}

static void table_breakdown(page *p, const json *doc) {
  static const rep_col cols[] = {{"part", "Part", FMT_TEXT},
                                 {"per_million_tokens", "A million tokens in and out", FMT_NUM},
                                 {"per_year", "A year", FMT_INT},
                                 {"share", "Share", FMT_SHARE}};
  share_bar(p, list_of(doc, "cost.breakdown"), "part", "share", "What the cost is made of");
  rep_table *t = PAGE_TABLE(p, "roi-breakdown", cols, "What the cost is made of, in %.20s", answer_text(doc, "currency"));
  for (const json *o = list_of(doc, "cost.breakdown"); o != NULL; o = json_next(o)) {
    table_text(p, t, answer_text(o, "part"));
    table_num(p, t, answer_num(o, "per_million_tokens"));
    table_num(p, t, answer_num(o, "per_year"));
    table_num(p, t, answer_num(o, "share"));
  }
  page_table_end(p, t, false);
}

static void table_costs(page *p, const json *doc) {
  static const rep_col cols[] = {{"what", "What", FMT_TEXT}, {"value", "Value", FMT_NUM}};
  static const struct {
    const char *key, *words;
    rep_format format;
  } rows[] = {{"per_million_tokens", "a million tokens in and out", FMT_NUM},
              {"per_million_input", "a million input tokens alone", FMT_NUM},
              {"per_million_output", "a million output tokens alone", FMT_NUM},
              {"tokens_per_money", "tokens for one unit of money", FMT_INT},
              {"input_tokens_per_month", "input tokens a month", FMT_INT},
              {"output_tokens_per_month", "output tokens a month", FMT_INT},
              {"capacity_tokens_per_month", "tokens a month if it never rested", FMT_INT},
              {"per_year", "a year", FMT_INT},
              {"kwh_per_year", "kWh a year, with cooling", FMT_INT},
              {"co2_kg_per_year", "kg of CO2 a year", FMT_INT}};
  rep_table *t =
      PAGE_TABLE(p, "roi-costs", cols, "Costs and quantities at the likely values, money in %.20s", answer_text(doc, "currency"));
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    char path[64];
    snprintf(path, sizeof path, "cost.%s", rows[i].key);
    table_shown(p, t, rows[i].key, "%s", rows[i].words);
    table_as(p, t, answer_num(doc, path), rows[i].format);
  }
  page_table_end(p, t, true);
}

/* ---- ways ---- */

static void chart_payback(page *p, const json *doc) {
  char title[64];
  bool others = option(doc, "api") != NULL || option(doc, "rent") != NULL;
  if (!others || list_of(doc, "cash") == NULL) return;
  snprintf(title, sizeof title, "%.20s", answer_text(doc, "currency"));
  json *chart =
      page_chart(p, "roi-payback", "line", "Paid in all, month by month", "months", title, CHART_MONTHS,
                 "Where the line of the own machine crosses another, the machine has paid back against it. Own machine: "
                 "its price at the start, then electricity, hosting and staff. The table of payments has the numbers.");
  for (int w = 0; w < WAYS; w++) {
    if (option(doc, ways[w].key) == NULL) continue;
    json *line = chart_series(chart, ways[w].words, "");
    int m = 0;
    for (const json *c = list_of(doc, "cash"); c != NULL; c = json_next(c), m++) {
      double y = answer_num(c, ways[w].key);
      if (m % 3 == 0 && isfinite(y)) chart_point(line, answer_num(c, "month"), y);
    }
  }
}

static void table_ways(page *p, const json *doc) {
  static const rep_col cols[] = {{"way", "Way", FMT_TEXT},
                                 {"per_million_tokens", "A million in and out, today", FMT_NUM},
                                 {"levelised_per_million_tokens", "A million in and out, levelised", FMT_NUM},
                                 {"per_month", "A month, today", FMT_INT},
                                 {"levelised_per_month", "A month, levelised", FMT_INT},
                                 {"tco_3_years", "Paid in 3 years", FMT_INT},
                                 {"tco_5_years", "Paid in 5 years", FMT_INT},
                                 {"cheapest_share_of_draws", "Cheapest in draws", FMT_SHARE},
                                 {"payback_months", "Owning pays back, months", FMT_TOK_S},
                                 {"npv", "NPV of owning", FMT_INT},
                                 {"break_even_tokens_per_month", NULL, FMT_INT},
                                 {"break_even_utilisation", NULL, FMT_SHARE}};
  rep_table *t = PAGE_TABLE(p, "roi-ways", cols, "The same tokens in other ways, in %.20s", answer_text(doc, "currency"));
  for (const json *o = list_of(doc, "options"); o != NULL; o = json_next(o)) {
    const char *key = answer_text(o, "way");
    bool cheapest = strcmp(key, answer_text(doc, "cheapest")) == 0,
         open = strcmp(answer_text(doc, "ruling.way"), "undecided") == 0;
    table_shown(p, t, key, "%s%s", way_words(key), !cheapest ? "" : open ? " (cheapest as assumed)" : " (cheapest)");
    for (size_t i = 1; i < sizeof cols / sizeof cols[0]; i++) table_num(p, t, answer_num(o, cols[i].key));
  }
  page_table_end(p, t, false);
}

static void table_cash(page *p, const json *doc) {
  static const rep_col cols[] = {
      {"month", "Month", FMT_INT}, {"own", "Own machine", FMT_INT}, {"api", "API", FMT_INT}, {"rent", "Rented GPUs", FMT_INT}};
  rep_table *t = PAGE_TABLE(p, "roi-cash", cols, "Paid in all, in %.20s", answer_text(doc, "currency"));
  for (const json *c = list_of(doc, "cash"); c != NULL; c = json_next(c))
    for (size_t i = 0; i < sizeof cols / sizeof cols[0]; i++) table_num(p, t, answer_num(c, cols[i].key));
  page_table_end(p, t, true);
}

/* How often each way is the cheapest when all doubts are drawn at once. */
static void say_draws(page *p, const json *doc) {
  char text[400] = "", share[FORMAT_MAX], draws[FORMAT_MAX];
  for (int w = 0; w < WAYS; w++) {
    char path[64];
    if (option(doc, ways[w].key) == NULL) continue;
    snprintf(path, sizeof path, "sample.cheapest.%s", ways[w].key);
    format_number(answer_num(doc, path), FMT_SHARE, share);
    size_t used = strlen(text);
    snprintf(text + used, sizeof text - used, "%s%s in %s", used > 0 ? ", " : "", ways[w].words, share);
  }
  format_number(answer_num(doc, "sample.draws"), FMT_INT, draws);
  page_text(p, "All doubts drawn at once, %s times, the cheapest is: %s of the draws.", draws, text);
}

static void section_ways(page *p, const json *doc) {
  page_section(p, "ways", "Own it, pay an API, or rent");
  if (json_len(json_get(doc, "options")) < 2) {
    page_text(p, "The scenario names neither an API nor rented GPUs to compare with.");
    table_ways(p, doc);
    return;
  }
  chart_payback(p, doc);
  table_ways(p, doc);
  if (*answer_text(doc, "rented.text") != '\0') page_text(p, "Rented: %s.", answer_text(doc, "rented.text"));
  say_draws(p, doc);
  if (answer_text(doc, "levelised")[0] != '\0')
    page_note(p,
              "Levelised: %s. A month of the own machine spreads its price over the years of use with interest; 'paid in 3 "
              "years' adds what is "
              "paid by then without interest, and takes off what the machine is then still worth on the books.",
              answer_text(doc, "levelised"));
  page_note(p, "A dash where owning should pay back means never within 10 years.");
  table_cash(p, doc);
}

/* ---- levers ---- */

typedef struct {
  double least, most, base;
} span;

static double at(const span *s, double v) {
  return s->most > s->least ? 100 * (v - s->least) / (s->most - s->least) : 0;
}

static void tornado_bar(page *p, const span *s, double to, const char *class) {
  if (!isfinite(to)) return;
  double a = at(s, to < s->base ? to : s->base), b = at(s, to < s->base ? s->base : to);
  page_raw(p, "<span class=\"%s\" style=\"left:%.2f%%;width:%.2f%%\"></span>", class, a, b - a);
}

static void tornado_row(page *p, const span *s, const json *l) {
  char lo[FORMAT_MAX], hi[FORMAT_MAX], a[FORMAT_MAX], b[FORMAT_MAX];
  double low = answer_num(l, "per_million_at_low"), high = answer_num(l, "per_million_at_high");
  format_number(answer_num(l, "low"), FMT_TOK_S, lo);
  format_number(answer_num(l, "high"), FMT_TOK_S, hi);
  format_number(low, FMT_TOK_S, a);
  format_number(high, FMT_TOK_S, b);
  page_raw(p, "<div class=\"lever\"><p>");
  page_escaped(p, "%s", answer_text(l, "words"));
  page_raw(p, "<span class=\"note\">");
  page_escaped(p, "at %s: %s; at %s: %s", lo, a, hi, b);
  page_raw(p, "</span></p><div class=\"track\">");
  tornado_bar(p, s, low, "at-low");
  tornado_bar(p, s, high, "at-high");
  page_raw(p, "<span class=\"base\" style=\"left:%.2f%%\"></span></div></div>\n", at(s, s->base));
}

static bool has_range(const json *l) {
  return isfinite(answer_num(l, "per_million_at_low")) && isfinite(answer_num(l, "per_million_at_high")) &&
         answer_num(l, "per_million_at_low") != answer_num(l, "per_million_at_high");
}

static void draw_tornado(page *p, const json *doc) {
  span s = {.base = answer_num(doc, "cost.per_million_tokens")};
  int n = 0;
  if (!isfinite(s.base)) return;
  s.least = s.most = s.base;
  for (const json *l = list_of(doc, "levers"); l != NULL && n < TORNADO_ROWS; l = json_next(l)) {
    if (!has_range(l)) continue;
    n++;
    s.least = fmin(s.least, fmin(answer_num(l, "per_million_at_low"), answer_num(l, "per_million_at_high")));
    s.most = fmax(s.most, fmax(answer_num(l, "per_million_at_low"), answer_num(l, "per_million_at_high")));
  }
  if (n == 0) return;
  page_raw(p, "<figure class=\"tornado\"><figcaption>");
  page_escaped(p, "Own cost of a million tokens in and out, each doubt alone at its low and high end, in %.20s",
               answer_text(doc, "currency"));
  page_raw(p, "</figcaption><ul class=\"legend\"><li><span class=\"key at-low\"></span>at the low end</li><li><span class=\"key "
              "at-high\"></span>at the high end (striped)</li></ul><div class=\"levers\" aria-hidden=\"true\">\n");
  n = 0;
  for (const json *l = list_of(doc, "levers"); l != NULL && n < TORNADO_ROWS; l = json_next(l)) {
    if (!has_range(l)) continue;
    n++;
    tornado_row(p, &s, l);
  }
  page_raw(p, "</div></figure>\n");
}

static bool flips_within(const json *l) {
  bool yes = false;
  if (json_opt_bool(l, "lever", "flips", &yes) != HF_OK) hf_clear_error();
  return yes;
}

/* First what can turn the decision round by itself, whatever it does to the own cost; the tornado knows only the latter. */
static void table_flips(page *p, const json *doc) {
  static const rep_col cols[] = {{"name", "Assumption", FMT_TEXT},    {"likely", "Assumed", FMT_TOK_S},
                                 {"low", "Low", FMT_TOK_S},           {"high", "High", FMT_TOK_S},
                                 {"flips_at", "Turns at", FMT_TOK_S}, {"flips_to", "Cheapest beyond", FMT_TEXT}};
  int n = 0;
  for (const json *l = list_of(doc, "levers"); l != NULL; l = json_next(l)) n += flips_within(l);
  if (json_len(json_get(doc, "options")) < 2) return;
  if (n == 0) {
    page_text(p, "No single assumption, within its own doubt, makes another way the cheapest.");
    return;
  }
  rep_table *t = PAGE_TABLE(p, "roi-flips", cols, "Each of these alone, within its own doubt, makes another way the cheapest");
  for (const json *l = list_of(doc, "levers"); l != NULL; l = json_next(l)) {
    if (!flips_within(l)) continue;
    table_shown(p, t, answer_text(l, "name"), "%s", answer_text(l, "words"));
    for (size_t i = 1; i < 5; i++) table_num(p, t, answer_num(l, cols[i].key));
    table_shown(p, t, answer_text(l, "flips_to"), "%s", way_words(answer_text(l, "flips_to")));
  }
  page_table_end(p, t, false);
}

static void table_levers(page *p, const json *doc) {
  static const rep_col cols[] = {{"name", "Assumption", FMT_TEXT},
                                 {"unit", "Unit", FMT_TEXT},
                                 {"low", "Low", FMT_NUM},
                                 {"likely", "Likely", FMT_NUM},
                                 {"high", "High", FMT_NUM},
                                 {"per_million_at_low", "Cost at low", FMT_NUM},
                                 {"per_million_at_high", "Cost at high", FMT_NUM},
                                 {"cheapest_at_low", NULL, FMT_TEXT},
                                 {"cheapest_at_high", NULL, FMT_TEXT},
                                 {"flips", "Flips within its doubt", FMT_TEXT},
                                 {"flips_at", "Flips at", FMT_NUM},
                                 {"flips_to", "to", FMT_TEXT}};
  rep_table *t =
      PAGE_TABLE(p, "roi-levers", cols, "What each assumption does alone; own cost of a million tokens in and out, in %.20s",
                 answer_text(doc, "currency"));
  for (const json *l = list_of(doc, "levers"); l != NULL; l = json_next(l)) {
    const char *to = answer_text(l, "flips_to");
    table_shown(p, t, answer_text(l, "name"), "%s", answer_text(l, "words"));
    table_text(p, t, answer_text(l, "unit"));
    for (int i = 2; i < 7; i++) table_num(p, t, answer_num(l, cols[i].key));
    table_text(p, t, answer_text(l, "cheapest_at_low"));
    table_text(p, t, answer_text(l, "cheapest_at_high"));
    table_text(p, t, flips_within(l) ? "yes" : "no");
    table_num(p, t, answer_num(l, "flips_at"));
    table_shown(p, t, to, "%s", *to ? way_words(to) : "–");
  }
  page_table_end(p, t, true);
}

static void section_levers(page *p, const json *doc) {
  page_section(p, "levers", "What would change the decision");
  table_flips(p, doc);
  draw_tornado(p, doc);
  table_levers(p, doc);
  page_note(
      p, "'Flips at' is the value nearest to the likely one at which another way becomes the cheapest, all else as assumed; it "
         "may lie outside what the assumption is thought to be.");
}

/* ---- load ---- */

static void chart_users(page *p, const json *doc, const char *id, const char *title, const char *y_title, const char *key,
                        double scale) {
  json *chart = page_chart(p, id, "line", title, "users", y_title, CHART_LOG_X,
                           "%s over the number of users at once; the table below has the numbers.", title);
  json *line = chart_series(chart, title, "predicted");
  for (const json *o = list_of(doc, "by_users"); o != NULL; o = json_next(o)) {
    double x = answer_num(o, "users"), y = answer_num(o, key);
    if (x > 0 && isfinite(y)) chart_point(line, x, scale * y);
  }
}

static void table_users(page *p, const json *doc) {
  static const rep_col cols[] = {{"users", "Users at once", FMT_INT},
                                 {"decode_tok_per_s", "Tokens/s while all decode", FMT_TOK_S},
                                 {"tok_per_s_wall", "with prompts and waiting", FMT_TOK_S},
                                 {"ttft_p95_s", "TTFT p95", FMT_SECONDS},
                                 {"tpot_p95_s", "TPOT p95", FMT_SECONDS},
                                 {"per_million_tokens", "Own cost of a million tokens in and out", FMT_NUM}};
  rep_table *t =
      PAGE_TABLE(p, "roi-users", cols, "Other numbers of users on this machine, money in %.20s", answer_text(doc, "currency"));
  for (const json *o = list_of(doc, "by_users"); o != NULL; o = json_next(o))
    for (size_t i = 0; i < sizeof cols / sizeof cols[0]; i++) table_num(p, t, answer_num(o, cols[i].key));
  page_table_end(p, t, false);
}

static void chart_hours(page *p, const json *doc) {
  if (json_len(json_get(doc, "utilisation_by_hour")) != 24) return;
  json *chart = page_chart(p, "roi-hours", "bar", "Share of each hour of the day at work", "hour", "%", 0,
                           "24 bars, one for each hour of the day; their mean is the utilisation that the costs assume.");
  json *bars = chart_series(chart, "share", "predicted");
  int h = 0;
  for (const json *v = list_of(doc, "utilisation_by_hour"); v != NULL; v = json_next(v), h++)
    chart_point(bars, h, 100 * json_number(v, NAN));
}

static void section_load(page *p, const json *doc) {
  page_section(p, "load", "The speed behind the money");
  page_text(
      p, "Tokens per second come from the simulated plan of this machine under this load; nobody typed them in. One row for the "
         "load that is priced:");
  json *one = json_new_array();
  const json *c = json_get(doc, "case");
  if (c != NULL) json_add_copy(one, NULL, c);
  table_cases(p, "roi-case", one, "The load that is priced");
  json_free(one);
  page_charts(p);
  if (json_len(json_get(doc, "by_users")) > 1) {
    chart_users(p, doc, "users-rate", "Tokens per second of all users", "tokens/s", "decode_tok_per_s", 1);
    chart_users(p, doc, "users-tpot", "Time per output token, p95", "ms", "tpot_p95_s", 1e3);
    chart_users(p, doc, "users-cost", "Own cost of a million tokens in and out", answer_text(doc, "currency"),
                "per_million_tokens", 1);
  }
  chart_hours(p, doc);
  page_charts_end(p);
  if (json_len(json_get(doc, "by_users")) > 1) table_users(p, doc);
}

/* ---- inputs ---- */

static void table_facts_of(page *p, const json *doc, const char *member, const char *id, const char *caption) {
  static const rep_col cols[] = {{"name", "What", FMT_TEXT},    {"unit", "Unit", FMT_TEXT}, {"low", "Low", FMT_NUM},
                                 {"likely", "Likely", FMT_NUM}, {"high", "High", FMT_NUM},  {"tag", "Tag", FMT_TEXT},
                                 {"source", NULL, FMT_TEXT}};
  rep_table *t = PAGE_TABLE(p, id, cols, "%s, money in %.20s", caption, answer_text(doc, "currency"));
  for (const json *f = list_of(doc, member); f != NULL; f = json_next(f)) {
    table_shown(p, t, answer_text(f, "name"), "%s", answer_text(f, "words"));
    table_text(p, t, answer_text(f, "unit"));
    for (int i = 2; i < 5; i++) table_num(p, t, answer_num(f, cols[i].key));
    table_text(p, t, answer_text(f, "tag"));
    table_text(p, t, answer_text(f, "source"));
  }
  page_table_end(p, t, false);
}

static void section_inputs(page *p, const json *doc) {
  page_section(p, "inputs", "What was assumed");
  page_text(p, "Scenario '%.90s': %.190s. Money is in %.20s. The source of each value is in the last table of this page.",
            answer_text(doc, "scenario.name"), answer_text(doc, "scenario.title"), answer_text(doc, "currency"));
  if (list_of(doc, "scenario.notes") != NULL) {
    page_raw(p, "<ul>\n");
    for (const json *n = list_of(doc, "scenario.notes"); n != NULL; n = json_next(n)) {
      page_raw(p, "<li>");
      page_escaped(p, "%s", json_string(n) != NULL ? json_string(n) : "");
      page_raw(p, "</li>\n");
    }
    page_raw(p, "</ul>\n");
  }
  table_facts_of(p, doc, "inputs", "roi-inputs", "Everything that went in");
  if (json_len(json_get(doc, "parts")) > 0) table_facts_of(p, doc, "parts", "roi-parts", "The price of the hardware by part");
}

static void section_terms(page *p) {
  static const struct {
    const char *term, *meaning;
  } list[] = {
      {"a million tokens in and out", "input and output together, in the mix of the load."},
      {"input and output", "the cost is split by the time that the simulation spends on prompts and on answers."},
      {"levelised, today",
       "today: what the first month costs. Levelised: "
       "the same sum each month that has the same present value as what is really paid: price at the start, resale at the "
       "end, prices that change."},
      {"utilisation", "share of all hours of the year in which the machine works at the simulated speed."},
      {"payback", "months until what the other way would have cost, less the running costs here, has returned the price; not "
                  "discounted."},
      {"NPV",
       "net present value: savings against the other way less the price, discounted. Above zero: owning is the cheaper way."},
      {"break-even", "tokens a month at which both ways cost the same."},
      {"3 years, 5 years", "all that is paid in that time; for the own machine less what it is then still worth."},
      {"draws", "all inputs at random within their intervals (triangular, independent, the same seed each time)."},
  };
  page_section(p, "money-terms", "Words about money");
  page_raw(p, "<dl class=\"terms\">\n");
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) page_raw(p, "<dt>%s</dt><dd>%s</dd>\n", list[i].term, list[i].meaning);
  page_raw(p, "</dl>\n");
}

void section_roi(page *p, const json *doc) {
  page_section(p, "roi", "What it costs");
  tiles(p, doc);
  note_engine(p, doc);
  for (const json *w = json_first(json_get(doc, "warnings")); w != NULL; w = json_next(w))
    page_text(p, "Check this value: %s.", json_string(w) != NULL ? json_string(w) : "");
  table_breakdown(p, doc);
  table_costs(p, doc);
  section_ways(p, doc);
  section_levers(p, doc);
  section_load(p, doc);
  section_inputs(p, doc);
  section_terms(p);
}
