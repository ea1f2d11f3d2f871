/* section_formats.c: weight formats of every part: what speed costs in quality. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "reports/answers.h"

static bool flag(const json *o, const char *key) {
  bool v = false;
  if (json_opt_bool(o, "answer", key, &v) != HF_OK) hf_clear_error();
  return v;
}

static const json *candidate(const json *doc, const char *key) {
  for (const json *c = json_first(json_get(doc, "candidates")); c != NULL; c = json_next(c))
    if (flag(c, key)) return c;
  return NULL;
}

static void tile_of(page *p, const char *label, const json *c) {
  char v[FORMAT_MAX], q[FORMAT_MAX];
  if (c == NULL) return;
  format_number(answer_num(c, "case.tok_per_s_wall"), FMT_TOK_S, v);
  format_number(answer_num(c, "perplexity_increase"), FMT_SIGNED, q);
  page_tile(p, label, v, "perplexity %s, %.2f bits per weight", q, answer_num(c, "bits_per_weight"));
}

/* path: of which tokens/s in a case. */
static void chart_frontier(page *p, const json *doc, const char *id, const char *title, const char *path) {
  json *chart = page_chart(p, id, "scatter", title, "perplexity above the original, %", "tokens/s", CHART_LOG_X,
                           "One point for each recipe that fits; up and left is better. The numbers are in the table.");
  static const struct {
    const char *name, *role;
    bool frontier;
  } lines[] = {{"nothing faster loses less", "device", true}, {"other recipes", "cpu", false}};
  for (int i = 0; i < 2; i++) {
    json *points = chart_series(chart, lines[i].name, lines[i].role);
    for (const json *c = json_first(json_get(doc, "candidates")); c != NULL; c = json_next(c)) {
      double loss = answer_num(c, "perplexity_increase"), rate = answer_num(c, path);
      if (flag(c, "frontier") == lines[i].frontier && loss > 0 && isfinite(rate)) chart_point(points, 100 * loss, rate);
    }
  }
}

static const char *mark_of(const json *c) {
  if (flag(c, "chosen")) return flag(c, "own") ? "chosen, the model's own" : "chosen";
  if (!flag(c, "feasible")) return flag(c, "own") ? "the model's own, does not fit" : "does not fit";
  return flag(c, "usual") ? "as usual" : flag(c, "own") ? "the model's own" : "";
}

static void table_candidates(page *p, const char *id, const json *list, bool frontier) {
  static const rep_col cols[] = {{"recipe", "Recipe", FMT_TEXT},
                                 {"mark", "", FMT_TEXT},
                                 {"tok_per_s_wall", "Delivered tokens/s", FMT_TOK_S},
                                 {"perplexity_increase", "Perplexity", FMT_SIGNED},
                                 {"decode_tok_per_s_low", "Decode tokens/s, low", FMT_TOK_S},
                                 {"decode_tok_per_s", "likely", FMT_TOK_S},
                                 {"decode_tok_per_s_high", "high", FMT_TOK_S},
                                 {"quality_tag", "Known how", FMT_TEXT},
                                 {"bits_per_weight", "Bits per weight", FMT_NUM},
                                 {"bytes", "Weights", FMT_BYTES},
                                 {"program", "Runs in", FMT_TEXT},
                                 {"quality_source", NULL, FMT_TEXT}};
  rep_table *t = PAGE_TABLE(p, id, cols, frontier ? "The frontier: nothing faster loses less" : "All recipes planned");
  for (const json *c = json_first(list); c != NULL; c = json_next(c)) {
    if (frontier && !flag(c, "frontier")) continue;
    table_text(p, t, answer_text(c, "recipe"));
    table_text(p, t, mark_of(c));
    table_num(p, t, answer_num(c, "case.tok_per_s_wall"));
    table_num(p, t, answer_num(c, "perplexity_increase"));
    table_num(p, t, answer_num(c, "case.decode_tok_per_s.low"));
    table_num(p, t, answer_num(c, "case.decode_tok_per_s.likely"));
    table_num(p, t, answer_num(c, "case.decode_tok_per_s.high"));
    table_text(p, t, answer_text(c, "quality_tag"));
    table_num(p, t, answer_num(c, "bits_per_weight"));
    table_num(p, t, answer_num(c, "bytes"));
    table_text(p, t, answer_text(c, "program"));
    table_text(p, t, answer_text(c, "quality_source"));
  }
  page_table_end(p, t, !frontier);
}

void section_formats(page *p, const json *doc) {
  const json *list = json_get(doc, "candidates"), *chosen = candidate(doc, "chosen");
  char v[FORMAT_MAX];
  page_section(p, "formats", "What speed costs in quality");
  page_tiles(p);
  tile_of(p, "Chosen, delivered tokens/s", chosen);
  tile_of(p, "Without a search, delivered tokens/s", candidate(doc, "usual"));
  format_number(answer_num(doc, "question.perplexity_increase_limit"), FMT_SIGNED, v);
  page_tile(p, "Perplexity may rise by", v, "above the original's");
  format_number(answer_num(doc, "considered"), FMT_INT, v);
  page_tile(p, "Recipes considered", v, "%.0f planned", answer_num(doc, "planned"));
  page_tiles_end(p);
  if (chosen == NULL) page_text(p, "No recipe that fits keeps to the limit.");
  page_charts(p);
  chart_frontier(p, doc, "formats-delivered", "Delivered tokens/s against quality", "case.tok_per_s_wall");
  chart_frontier(p, doc, "formats-frontier", "Decode tokens/s against quality", "case.decode_tok_per_s.likely");
  page_charts_end(p);
  table_candidates(p, "frontier", list, true);
  table_candidates(p, "recipes", list, false);
}
