/* section_validate.c: predictions against published measurements: by group, row by row, and what was not used. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "reports/answers.h"

static void tiles(page *p, const json *doc) {
  char v[FORMAT_MAX];
  page_tiles(p);
  format_number(answer_num(doc, "used"), FMT_INT, v);
  page_tile(p, "Rows used", v, "of %.0f; %.0f declined", answer_num(doc, "rows"), answer_num(doc, "declined"));
  format_number(answer_num(doc, "median_abs_error"), FMT_SHARE, v);
  const char *how = json_get(doc, "fit_median_abs_error") != NULL &&
                            answer_num(doc, "fit_median_abs_error") != answer_num(doc, "median_abs_error")
                        ? "each row left out of its fit"
                        : "experts on a CPU";
  page_tile(p, "Decode, median error", v, "%s", how);
  format_number(answer_num(doc, "p90_abs_error"), FMT_SHARE, v);
  page_tile(p, "Decode, nine of ten within", v, "%s", how);
  for (const json *g = json_first(json_get(doc, "groups")); g != NULL; g = json_next(g)) {
    if (strcmp(answer_text(g, "by"), "all") != 0 || strcmp(answer_text(g, "name"), "experts on the CPU") != 0) continue;
    bool decode = strcmp(answer_text(g, "metric"), "decode") == 0;
    format_number(answer_num(g, decode ? "inside" : "median_abs_error"), FMT_SHARE, v);
    page_tile(p, decode ? "Decode inside the interval" : "Prefill, median error", v, "%.0f rows", answer_num(g, "n"));
  }
  page_tiles_end(p);
}

static void table_groups(page *p, const json *groups) {
  static const rep_col cols[] = {{"metric", "Metric", FMT_TEXT},
                                 {"by", "By", FMT_TEXT},
                                 {"name", "Group", FMT_TEXT},
                                 {"n", "Rows", FMT_INT},
                                 {"median_abs_error", "Median error", FMT_SHARE},
                                 {"p90_abs_error", "9 of 10 within", FMT_SHARE},
                                 {"fit_median_abs_error", "In the fit: median", FMT_SHARE},
                                 {"fit_p90_abs_error", "9 of 10 within", FMT_SHARE},
                                 {"median_signed_error", "Signed median", FMT_SIGNED},
                                 {"inside", "Inside interval", FMT_SHARE},
                                 {"median_high_over_low", "High / low", FMT_NUM},
                                 {"machine_left_out_median_abs_error", "Machine left out: median", FMT_SHARE},
                                 {"machine_left_out_p90_abs_error", "9 of 10 within", FMT_SHARE}};
  enum { TEXTS = 3, N = sizeof cols / sizeof cols[0] };
  rep_table *t = PAGE_TABLE(p, "groups", cols, "Errors by group");
  for (const json *g = json_first(groups); g != NULL; g = json_next(g))
    for (int i = 0; i < N; i++) {
      if (i < TEXTS) table_text(p, t, answer_text(g, cols[i].key));
      else table_num(p, t, answer_num(g, cols[i].key));
    }
  page_table_end(p, t, false);
  page_note(p, "Errors are of rows left out (but with --quick): the priors were fitted again without that row, then had to "
               "predict it. Machine left out: without "
               "all rows of its "
               "machine; that is the error to expect on a machine nobody has measured. In the fit: with the row among those the "
               "priors were "
               "fitted to.");
}

/* Every row as a point, one colour per engine, and the line on which prediction and publication agree. */
static void chart_rows(page *p, const char *id, const char *metric, const json *cases) {
  bool decode = strcmp(metric, "decode") == 0;
  json *chart =
      page_chart(p, id, "scatter", decode ? "Decode" : "Prefill", "published tokens/s", "predicted tokens/s",
                 CHART_LOG_X | CHART_LOG_Y, "One point for each row; on the line prediction and published figure agree.");
  const char *seen[16];
  int n_seen = 0;
  double lo = INFINITY, hi = 0;
  for (const json *c = json_first(cases); c != NULL && n_seen < 16; c = json_next(c)) {
    const char *engine = answer_text(c, "engine");
    bool known = false;
    for (int i = 0; i < n_seen; i++) known = known || strcmp(seen[i], engine) == 0;
    if (known) continue;
    seen[n_seen++] = engine;
    json *points = NULL;
    for (const json *r = json_first(cases); r != NULL; r = json_next(r)) {
      double x = answer_num(r, decode ? "published" : "prefill.published"),
             y = answer_num(r, decode ? "predicted" : "prefill.predicted");
      if (strcmp(answer_text(r, "engine"), engine) != 0 || !(x > 0 && y > 0)) continue;
      if (points == NULL) points = chart_series(chart, engine, "");
      chart_point(points, x, y);
      lo = fmin(lo, x);
      hi = fmax(hi, x);
    }
  }
  if (!(hi > 0)) return;
  json *line = chart_series(chart, "equal", "equal");
  chart_point(line, lo, lo);
  chart_point(line, hi, hi);
}

static void table_rows_of(page *p, const json *cases) {
  static const struct {
    const char *path;
    rep_col col;
  } num[] = {{"context", {"context", "Context", FMT_INT}},
             {"published", {"published", "Published", FMT_TOK_S}},
             {"low", {"low", "Low", FMT_TOK_S}},
             {"predicted", {"predicted", "Predicted", FMT_TOK_S}},
             {"high", {"high", "High", FMT_TOK_S}},
             {"signed_error", {"signed_error", "Error", FMT_SIGNED}},
             {"machine_left_out_error", {"machine_left_out_error", "Machine left out", FMT_SIGNED}},
             {"prefill.published", {"prefill_published", "Prefill published", FMT_TOK_S}},
             {"prefill.predicted", {"prefill_predicted", "Prefill predicted", FMT_TOK_S}},
             {"prefill.signed_error", {"prefill_signed_error", "Prefill error", FMT_SIGNED}}};
  enum { TEXTS = 4, N = sizeof num / sizeof num[0] };
  static rep_col cols[TEXTS + N] = {
      {"id", "Row", FMT_TEXT}, {"engine", "Engine", FMT_TEXT}, {"machine", "Machine", FMT_TEXT}, {"format", "Format", FMT_TEXT}};
  for (int i = 0; i < N; i++) cols[TEXTS + i] = num[i].col;
  rep_table *t = PAGE_TABLE(p, "rows", cols, "Row by row, tokens per second");
  for (const json *c = json_first(cases); c != NULL; c = json_next(c)) {
    for (int i = 0; i < TEXTS; i++) table_text(p, t, answer_text(c, cols[i].key));
    for (int i = 0; i < N; i++) table_num(p, t, answer_num(c, num[i].path));
  }
  page_table_end(p, t, true);
}

static void table_scenarios(page *p, const json *list) {
  static const rep_col cols[] = {
      {"machine", "Machine assumed", FMT_TEXT}, {"format", "Format", FMT_TEXT},
      {"published", "Published", FMT_TOK_S},    {"low", "Low", FMT_TOK_S},
      {"predicted", "Predicted", FMT_TOK_S},    {"high", "High", FMT_TOK_S},
      {"inside", "Inside", FMT_TEXT},           {"needs", "What the published figure would need", FMT_TEXT}};
  if (json_len(list) == 0) return;
  page_heading(p, "Published figures that name no machine");
  rep_table *t = PAGE_TABLE(p, "scenarios", cols, "What such a figure would mean on each machine it may speak of");
  for (const json *s = json_first(list); s != NULL; s = json_next(s)) {
    bool inside = false;
    if (json_opt_bool(s, "answer", "inside", &inside) != HF_OK) hf_clear_error();
    table_text(p, t, answer_text(s, "machine"));
    table_text(p, t, answer_text(s, "format"));
    for (int i = 2; i < 6; i++) table_num(p, t, answer_num(s, cols[i].key) > 0 ? answer_num(s, cols[i].key) : NAN);
    table_text(p, t, inside ? "yes" : "no");
    table_text(p, t, answer_text(s, "needs"));
  }
  page_table_end(p, t, false);
}

static void table_declined(page *p, const json *list) {
  static const rep_col cols[] = {{"id", "Row", FMT_TEXT}, {"reason", "Why it was not used", FMT_TEXT}};
  if (json_len(list) == 0) return;
  rep_table *t = PAGE_TABLE(p, "declined", cols, "Rows declined");
  for (const json *r = json_first(list); r != NULL; r = json_next(r)) {
    table_text(p, t, answer_text(r, "id"));
    table_text(p, t, answer_text(r, "reason"));
  }
  page_table_end(p, t, false);
}

static void table_priors(page *p, const json *list) {
  static const rep_col cols[] = {{"engine", "Engine", FMT_TEXT},      {"rows", "Rows", FMT_INT},
                                 {"name", "Fitted number", FMT_TEXT}, {"low", "Low", FMT_NUM},
                                 {"likely", "Likely", FMT_NUM},       {"high", "High", FMT_NUM}};
  rep_table *t = PAGE_TABLE(p, "priors", cols, "What was fitted, for all rows of an engine at once");
  for (const json *e = json_first(list); e != NULL; e = json_next(e))
    for (const json *f = json_first(json_get(e, "fitted")); f != NULL; f = json_next(f)) {
      table_text(p, t, answer_text(e, "engine"));
      table_num(p, t, answer_num(e, "rows"));
      table_text(p, t, json_key(f));
      table_num(p, t, answer_num(f, "low"));
      table_num(p, t, answer_num(f, "likely"));
      table_num(p, t, answer_num(f, "high"));
    }
  page_table_end(p, t, true);
}

void section_validate(page *p, const json *doc) {
  const json *cases = json_get(doc, "cases");
  page_section(p, "validate", "How far off it is");
  tiles(p, doc);
  if (*answer_text(doc, "users_text") != '\0') page_text(p, "%s", answer_text(doc, "users_text"));
  page_charts(p);
  chart_rows(p, "validate-decode", "decode", cases);
  chart_rows(p, "validate-prefill", "prefill", cases);
  page_charts_end(p);
  table_groups(p, json_get(doc, "groups"));
  table_rows_of(p, cases);
  table_scenarios(p, json_get(doc, "scenarios"));
  table_declined(p, json_get(doc, "declined_rows"));
  table_priors(p, json_get(doc, "priors"));
}
