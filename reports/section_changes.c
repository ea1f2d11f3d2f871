/* section_changes.c: an answer of hf-plan whatif: a machine and changes of it side by side, each with its causes. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "reports/answers.h"

static const json *first_of(const json *o, const char *path) {
  const json *list = answer_at(o, path);
  return json_type(list) == JSON_ARRAY ? json_first(list) : NULL;
}

/* "base" first, then the changes; the caller's to free. */
static json *all_cases(const json *doc) {
  json *list = json_new_array();
  const json *base = json_get(doc, "base");
  if (json_type(base) == JSON_OBJECT) json_add_copy(list, NULL, base);
  for (const json *c = first_of(doc, "cases"); c != NULL; c = json_next(c)) json_add_copy(list, NULL, c);
  return list;
}

static void tiles(page *p, const json *doc) {
  const json *base = json_get(doc, "base");
  char v[FORMAT_MAX], w[FORMAT_MAX];
  page_tiles(p);
  tiles_speed(p, base, "The base delivers");
  format_number(answer_num(base, "users"), FMT_INT, v);
  format_number(answer_num(base, "context"), FMT_INT, w);
  page_tile(p, "Users at once", v, "context %s tokens", w);
  page_tile(p, "What binds", *answer_text(base, "binding") ? answer_text(base, "binding") : "–", "%s", "in the decode step");
  page_tiles_end(p);
}

/* ---- intervals on one axis ---- */

static void draw_intervals(page *p, const json *cases) {
  double most = 0;
  for (const json *c = json_first(cases); c != NULL; c = json_next(c)) most = fmax(most, answer_num(c, "decode_tok_per_s.high"));
  if (!(most > 0)) return;
  page_raw(p, "<figure class=\"tornado\"><figcaption>");
  page_escaped(p, "Decode tokens per second of all users: likely (line) and interval, on one axis from 0");
  page_raw(p, "</figcaption><div class=\"levers\" aria-hidden=\"true\">\n");
  for (const json *c = json_first(cases); c != NULL; c = json_next(c)) {
    double low = answer_num(c, "decode_tok_per_s.low"), likely = answer_num(c, "decode_tok_per_s.likely"),
           high = answer_num(c, "decode_tok_per_s.high");
    char a[FORMAT_MAX], b[FORMAT_MAX], d[FORMAT_MAX];
    page_raw(p, "<div class=\"lever\"><p>");
    page_escaped(p, "%s", answer_text(c, "name"));
    page_raw(p, "<span class=\"note\">");
    if (!isfinite(likely)) {
      page_escaped(p, "does not fit");
      page_raw(p, "</span></p><div class=\"track\"></div></div>\n");
      continue;
    }
    format_number(low, FMT_TOK_S, a);
    format_number(likely, FMT_TOK_S, b);
    format_number(high, FMT_TOK_S, d);
    page_escaped(p, "%s (%s to %s)", b, a, d);
    page_raw(p, "</span></p><div class=\"track\"><span class=\"reach\" style=\"left:%.2f%%;width:%.2f%%\"></span>",
             100 * low / most, 100 * (high - low) / most);
    page_raw(p, "<span class=\"base\" style=\"left:%.2f%%\"></span></div></div>\n", 100 * likely / most);
  }
  page_raw(p, "</div></figure>\n");
}

/* ---- tables ---- */

static const rep_col change_cols[] = {{"name", "Case", FMT_TEXT},
                                      {"users", "Users", FMT_INT},
                                      {"tok_per_s_wall", "Delivered tokens/s", FMT_TOK_S},
                                      {"tok_per_s_wall_change", "Change", FMT_SIGNED},
                                      {"ttft_p95_s", "TTFT p95", FMT_SECONDS},
                                      {"ttft_p95_change", "Change", FMT_SIGNED},
                                      {"tpot_p95_s", "TPOT p95", FMT_SECONDS},
                                      {"tpot_p95_change", "Change", FMT_SIGNED},
                                      {"decode_tok_per_s", "Decode tokens/s", FMT_TOK_S},
                                      {"decode_tok_per_s_change", "Change", FMT_SIGNED},
                                      {"joule_per_token", "J a token", FMT_NUM},
                                      {"cost_per_million_tokens", "Cost per million, in + out", FMT_NUM},
                                      {"cost_change", "Change", FMT_SIGNED},
                                      {"price_change", "Price, more", FMT_INT},
                                      {"users_at_slo", "Users in limits", FMT_INT},
                                      {"binding", "Binds", FMT_TEXT}};

static void table_changes(page *p, const json *cases) {
  rep_table *t = PAGE_TABLE(p, "changes", change_cols, "Each case, and its change against the base");
  for (const json *c = json_first(cases); c != NULL; c = json_next(c)) {
    bool fit = isfinite(answer_num(c, "decode_tok_per_s.likely"));
    table_text(p, t, answer_text(c, "name"));
    table_num(p, t, answer_num(c, "users"));
    table_num(p, t, answer_num(c, "tok_per_s_wall"));
    table_num(p, t, answer_num(c, "change.tok_per_s_wall"));
    table_num(p, t, answer_num(c, "ttft_s.p95"));
    table_num(p, t, answer_num(c, "change.ttft_p95"));
    table_num(p, t, answer_num(c, "tpot_s.p95"));
    table_num(p, t, answer_num(c, "change.tpot_p95"));
    table_num(p, t, answer_num(c, "decode_tok_per_s.likely"));
    table_num(p, t, answer_num(c, "change.decode_tok_per_s"));
    table_num(p, t, answer_num(c, "joule_per_token"));
    table_num(p, t, answer_num(c, "cost_per_million_tokens.likely"));
    table_num(p, t, answer_num(c, "change.cost_per_million_tokens"));
    table_num(p, t, answer_num(c, "change.price"));
    table_num(p, t, answer_num(c, "users_at_slo"));
    table_text(p, t, fit ? answer_text(c, "binding") : "does not fit");
  }
  page_table_end(p, t, false);
}

static void table_causes(page *p, const json *doc) {
  static const rep_col cols[] = {{"name", "Case", FMT_TEXT}, {"text", "Cause", FMT_TEXT}, {"what", NULL, FMT_TEXT},
                                 {"from", NULL, FMT_NUM},    {"to", NULL, FMT_NUM},       {"unit", NULL, FMT_TEXT}};
  int n = 0;
  for (const json *c = first_of(doc, "cases"); c != NULL; c = json_next(c)) n += json_len(json_get(c, "causes"));
  if (n == 0) return;
  page_heading(p, "Why");
  rep_table *t = PAGE_TABLE(p, "causes", cols, "What moved in each case, the one that moves the result most first");
  for (const json *c = first_of(doc, "cases"); c != NULL; c = json_next(c)) {
    for (const json *k = first_of(c, "causes"); k != NULL; k = json_next(k)) {
      table_text(p, t, answer_text(c, "name"));
      table_text(p, t, answer_text(k, "text"));
      table_text(p, t, answer_text(k, "what"));
      table_num(p, t, answer_num(k, "from"));
      table_num(p, t, answer_num(k, "to"));
      table_text(p, t, answer_text(k, "unit"));
    }
  }
  page_table_end(p, t, false);
}

static void chart_of(page *p, const json *cases, const char *id, const char *title, const char *y_title, const char *path,
                     double factor) {
  int n = 0;
  double least = INFINITY, most = -INFINITY;
  for (const json *c = json_first(cases); c != NULL; c = json_next(c)) {
    double y = answer_num(c, path);
    if (!isfinite(y)) continue;
    n++;
    least = fmin(least, y);
    most = fmax(most, y);
  }
  if (n < 2 || most - least <= 1e-9 * fabs(most)) return; /* bars of one height tell nothing */
  json *chart =
      page_chart(p, id, "bar", title, "case", y_title, 0, "One bar for each of %d cases; the table has the numbers.", n);
  json *bars = chart_series(chart, title, "predicted");
  for (const json *c = json_first(cases); c != NULL; c = json_next(c)) {
    double y = answer_num(c, path);
    if (isfinite(y)) chart_bar(bars, answer_text(c, "name"), factor * y);
  }
}

/* What does not fit, and what would. */
static void list_misfits(page *p, const json *cases) {
  for (const json *c = json_first(cases); c != NULL; c = json_next(c)) {
    if (isfinite(answer_num(c, "decode_tok_per_s.likely"))) continue;
    page_text(p, "%s does not fit: %s", answer_text(c, "name"), answer_text(c, "why_not"));
    if (first_of(c, "possible") == NULL) continue;
    page_raw(p, "<ul>\n");
    for (const json *x = first_of(c, "possible"); x != NULL; x = json_next(x)) {
      page_raw(p, "<li>");
      page_escaped(p, "possible: %s", json_string(x) != NULL ? json_string(x) : "");
      page_raw(p, "</li>\n");
    }
    page_raw(p, "</ul>\n");
  }
}

static void say_limits(page *p, const json *doc) {
  char ttft[FORMAT_MAX], tpot[FORMAT_MAX];
  const char *from = answer_text(doc, "question.slo.from");
  if (!*from) return;
  format_number(answer_num(doc, "question.slo.ttft_s"), FMT_SECONDS, ttft);
  format_number(answer_num(doc, "question.slo.tpot_s"), FMT_SECONDS, tpot);
  page_note(p, "Users in limits: the most users at once whose p95 stays within %s to the first token and %s per token%s.", ttft,
            tpot, strcmp(from, "base") == 0 ? ", which is what the base gives its own users" : "");
}

void section_changes(page *p, const json *doc) {
  json *cases = all_cases(doc);
  page_section(p, "changes-section", "Side by side");
  tiles(p, doc);
  chart_of(p, cases, "case-delivered", "Delivered tokens per second of all users", "tokens/s", "tok_per_s_wall", 1);
  draw_intervals(p, cases);
  table_changes(p, cases);
  note_load(p);
  note_engine(p, doc);
  say_limits(p, doc);
  list_misfits(p, cases);
  table_causes(p, doc);
  page_section(p, "cases-section", "The cases in full");
  page_charts(p);
  chart_of(p, cases, "case-tpot", "Time per output token, p95", "ms", "tpot_s.p95", 1e3);
  chart_of(p, cases, "case-cost", "Cost of a million tokens, input and output together", "money",
           "cost_per_million_tokens.likely", 1);
  page_charts_end(p);
  table_cases(p, "cases", cases, "Load, speed, latencies, price and cost of each case");
  json_free(cases);
}
