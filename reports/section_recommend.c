/* section_recommend.c: which machine to buy, what else was looked at, and what would change the answer. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "reports/answers.h"

static void tiles(page *p, const json *best, const json *doc) {
  char v[FORMAT_MAX], lo[FORMAT_MAX], hi[FORMAT_MAX];
  page_tiles(p);
  format_number(answer_num(best, "price.likely"), FMT_INT, v);
  format_number(answer_num(best, "price.low"), FMT_INT, lo);
  format_number(answer_num(best, "price.high"), FMT_INT, hi);
  page_tile(p, "Price of the hardware", v, "USD, %s to %s", lo, hi);
  tiles_speed(p, best, "Delivered");
  format_number(answer_num(doc, "counts.considered"), FMT_INT, v);
  format_number(answer_num(doc, "counts.planned"), FMT_INT, lo);
  page_tile(p, "Machines considered", v, "%s planned in full", lo);
  page_tiles_end(p);
}

static void table_ranking(page *p, const json *ranking, bool three) {
  static const rep_col cols[] = {{"rank", "Rank", FMT_INT},
                                 {"name", "Machine", FMT_TEXT},
                                 {"tok_per_s_wall", "Delivered tokens/s", FMT_TOK_S},
                                 {"price", "Price, USD", FMT_INT},
                                 {"ttft_p95_s", "TTFT p95", FMT_SECONDS},
                                 {"tpot_p95_s", "TPOT p95", FMT_SECONDS},
                                 {"regret_worst", "Worst regret", FMT_INT},
                                 {"rank_by_regret", "Rank by regret", FMT_INT},
                                 {"cost_per_million_tokens", "USD per million, in + out", FMT_NUM},
                                 {"decode_tok_per_s", "Decode tokens/s", FMT_TOK_S},
                                 {"decode_tok_per_s_low", "low", FMT_TOK_S},
                                 {"decode_tok_per_s_high", "high", FMT_TOK_S},
                                 {"regret_when", NULL, FMT_TEXT},
                                 {"binding", NULL, FMT_TEXT},
                                 {"runs_today", NULL, FMT_TEXT},
                                 {"plan_command", NULL, FMT_TEXT}};
  rep_table *t =
      PAGE_TABLE(p, "ranking", cols, three ? "What more money brings, cheapest first" : "What meets the demand, cheapest first");
  for (const json *c = json_first(ranking); c != NULL; c = json_next(c)) {
    table_num(p, t, answer_num(c, "rank"));
    table_text(p, t, *answer_text(c, "full_name") ? answer_text(c, "full_name") : answer_text(c, "name"));
    table_num(p, t, answer_num(c, "tok_per_s_wall"));
    table_num(p, t, answer_num(c, "price.likely"));
    table_num(p, t, answer_num(c, "ttft_s.p95"));
    table_num(p, t, answer_num(c, "tpot_s.p95"));
    table_num(p, t, answer_num(c, "regret.worst"));
    table_num(p, t, answer_num(c, "rank_by_regret"));
    table_num(p, t, answer_num(c, "cost_per_million_tokens.likely"));
    table_num(p, t, answer_num(c, "decode_tok_per_s.likely"));
    table_num(p, t, answer_num(c, "decode_tok_per_s.low"));
    table_num(p, t, answer_num(c, "decode_tok_per_s.high"));
    table_text(p, t, answer_text(c, "regret.when"));
    table_text(p, t, answer_text(c, "binding"));
    table_text(p, t, answer_text(c, "runs_today"));
    table_text(p, t, answer_text(c, "plan_command"));
  }
  page_table_end(p, t, false);
  note_load(p);
  page_note(p, "USD per million tokens: input and output together, over the machine's life, by the scenario of the question.");
  page_note(p, "Regret: the most that this choice can cost above the best one, in USD, over all ends of the intervals of speed "
               "and price.");
  if (json_len(ranking) < 2) return;
  json *chart = page_chart(p, "ranking-price", "bar", "Price of what meets the demand", "rank", "price", 0,
                           "One bar for each of the %d machines of the table above.", json_len(ranking));
  json *bars = chart_series(chart, "price", "");
  for (const json *c = json_first(ranking); c != NULL; c = json_next(c))
    chart_point(bars, answer_num(c, "rank"), answer_num(c, "price.likely"));
}

/* Without limits: the three that a buyer chooses among. */
static void table_choices(page *p, const json *choices) {
  static const rep_col cols[] = {{"choice", "", FMT_TEXT},
                                 {"name", "Machine", FMT_TEXT},
                                 {"price", "Price, USD", FMT_INT},
                                 {"tok_per_s_wall", "Delivered tokens/s", FMT_TOK_S},
                                 {"tok_per_s_per_1000_usd", "for each USD 1,000", FMT_NUM}};
  static const struct {
    const char *key, *words;
  } rows[] = {{"cheapest", "Cheapest that runs it"}, {"knee", "Knee: most tokens/s for the money"}, {"fastest", "Fastest"}};
  if (json_type(choices) != JSON_OBJECT) return;
  rep_table *t = PAGE_TABLE(p, "choices", cols, "No limit was asked for: three answers, of which the knee is proposed");
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    const json *c = json_get(choices, rows[i].key);
    table_shown(p, t, rows[i].key, "%s", rows[i].words);
    table_text(p, t, answer_text(c, "name"));
    table_num(p, t, answer_num(c, "price"));
    table_num(p, t, answer_num(c, "tok_per_s_wall"));
    table_num(p, t, answer_num(c, "tok_per_s_per_1000_usd"));
  }
  page_table_end(p, t, false);
}

/* What was asked for: load, limits, budget. */
static void say_question(page *p, const json *q) {
  char v[FORMAT_MAX], limits[300] = "", budget[64] = "";
  static const struct {
    const char *path, *words;
    rep_format format;
  } rows[] = {{"slo.tok_per_s", "at least %s tokens/s delivered", FMT_TOK_S},
              {"slo.ttft_s", "p95 to the first token within %s", FMT_SECONDS},
              {"slo.tpot_s", "p95 per further token within %s", FMT_SECONDS}};
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    size_t used = strlen(limits);
    if (!isfinite(answer_num(q, rows[i].path))) continue;
    format_number(answer_num(q, rows[i].path), rows[i].format, v);
    used += (size_t)snprintf(limits + used, sizeof limits - used, "; ");
    const char *at = strstr(rows[i].words, "%s");
    snprintf(limits + used, sizeof limits - used, "%.*s%s%s", (int)(at - rows[i].words), rows[i].words, v, at + 2);
  }
  if (isfinite(answer_num(q, "budget"))) {
    format_number(answer_num(q, "budget"), FMT_INT, v);
    snprintf(budget, sizeof budget, "; at most USD %s", v);
  }
  page_text(p, "Asked for: %s, %.0f users at once, context %.0f tokens%s%s.", answer_text(q, "model"), answer_num(q, "users"),
            answer_num(q, "context"), *limits ? limits : "; no limit on speed or latency", budget);
}

/* A list of {FIRST, text}; cols name its two columns. */
static void table_texts(page *p, const char *id, const json *list, const rep_col cols[2], const char *caption) {
  if (json_len(list) == 0) return;
  rep_table *t = page_table(p, id, cols, 2, "%s", caption);
  for (const json *r = json_first(list); r != NULL; r = json_next(r)) {
    table_text(p, t, answer_text(r, cols[0].key));
    table_text(p, t, answer_text(r, "text"));
  }
  page_table_end(p, t, false);
}

static void table_counts(page *p, const json *counts) {
  static const rep_col cols[] = {{"what", "Combinations", FMT_TEXT}, {"count", "Count", FMT_INT}};
  static const struct {
    const char *key, *words;
  } rows[] = {{"considered", "considered"},
              {"contradictory", "parts that do not go together"},
              {"memory", "the model does not fit"},
              {"budget", "over the budget"},
              {"dominated", "no better in any part than one already judged"},
              {"roofline", "too slow even with all memory bandwidth used perfectly"},
              {"unpriced", "a part has no known price"},
              {"dearer", "dearer than needed"},
              {"planned", "planned and simulated"},
              {"slow", "planned, and too slow"},
              {"slo", "planned, and miss the latency asked for"},
              {"met", "planned, and meet the demand"},
              {"planned_over_budget", "of those over the budget: planned, to say what more money does"},
              {"imagined", "machines that are not sold, planned: as good as the best of a group in every part"}};
  rep_table *t = PAGE_TABLE(p, "counts", cols, "What became of the combinations");
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
    if (!isfinite(answer_num(counts, rows[i].key))) continue;
    table_shown(p, t, rows[i].key, "%s", rows[i].words);
    table_num(p, t, answer_num(counts, rows[i].key));
  }
  page_table_end(p, t, true);
}

void section_recommend(page *p, const json *doc) {
  const json *best = json_get(doc, "answer"), *ranking = json_get(doc, "ranking");
  page_section(p, "recommend", "What to buy");
  say_question(p, json_get(doc, "question"));
  if (json_type(best) == JSON_OBJECT) {
    if (*answer_text(best, "full_name")) page_text(p, "%s", answer_text(best, "full_name"));
    tiles(p, best, doc);
    if (*answer_text(best, "runs_today")) page_text(p, "Engines that run it today: %s.", answer_text(best, "runs_today"));
    note_engine(p, doc);
    for (const json *v = json_first(json_get(best, "variants")); v != NULL; v = json_next(v))
      page_text(p, "%s.", answer_text(v, "text"));
    if (*answer_text(best, "plan_command")) {
      page_text(p, "To plan it in full:");
      page_code(p, answer_text(best, "plan_command"));
    }
    table_choices(p, json_get(doc, "choices"));
    table_ranking(p, ranking, json_type(json_get(doc, "choices")) == JSON_OBJECT);
  } else {
    page_text(p, "Nothing in the catalog meets the demand. %s", answer_text(doc, "nearest.text"));
  }
  const char *measure = answer_text(doc, "measure_first.text");
  if (*measure) {
    page_heading(p, "The measurement worth making first");
    page_text(p, "%s", measure);
  }
  static const rep_col flips[2] = {{"then", "Then the choice is", FMT_TEXT}, {"text", "When", FMT_TEXT}};
  static const rep_col rejected[2] = {{"name", "Machine", FMT_TEXT}, {"text", "Why not", FMT_TEXT}};
  table_texts(p, "flips", json_get(doc, "flips"), flips, "What would flip the choice");
  table_texts(p, "rejected", json_get(doc, "rejected"), rejected, "Why others fail");
  table_counts(p, json_get(doc, "counts"));
}
