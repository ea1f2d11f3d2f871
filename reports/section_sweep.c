/* section_sweep.c: two axes of a load or a machine, cell by cell: where it is fast, what binds, and where it tips over. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "reports/answers.h"

enum { AXIS_MAX = 256, SHADES = 6 };

/* cells[j * n[0] + i] stands at axes[0].values[i], axes[1].values[j]. */
typedef struct {
  const json *doc, *axis[2];
  int n[2];
  const json **cell; /* [n[0] * n[1]]; NULL where the document has none */
  double most;       /* tokens/s of the fastest cell */
} grid;

static bool grid_of(page *p, const json *doc, grid *g) {
  const json *axes = answer_at(doc, "question.axes"), *cells = json_get(doc, "cells");
  *g = (grid){.doc = doc};
  for (int a = 0; a < 2; a++) {
    g->axis[a] = json_at(axes, a);
    g->n[a] = json_len(json_get(g->axis[a], "values"));
    if (g->n[a] < 1 || g->n[a] > AXIS_MAX) return false;
  }
  page_failed(p, hf_alloc(&g->cell, (size_t)g->n[0] * (size_t)g->n[1], sizeof *g->cell, "cells of a sweep"));
  if (page_status(p) != HF_OK) return false;
  int at = 0;
  for (const json *c = json_first(cells); c != NULL && at < g->n[0] * g->n[1]; c = json_next(c), at++) {
    double rate = answer_num(c, "tok_per_s_wall");
    g->cell[at] = c;
    if (rate > g->most) g->most = rate;
  }
  return true;
}

static const char *value_text(const grid *g, int axis, int i) {
  const char *text = json_string(json_at(json_get(g->axis[axis], "values"), i));
  return text != NULL ? text : "?";
}

static void heat_cell(page *p, const grid *g, const json *c) {
  char text[FORMAT_MAX];
  double rate = answer_num(c, "tok_per_s_wall");
  if (!isfinite(rate)) {
    page_raw(p, "<td class=\"none\">");
    page_escaped(p, "%s", c == NULL ? "" : "does not fit");
    page_raw(p, "</td>");
    return;
  }
  int shade = rate > 0 ? (int)(rate / g->most * (SHADES - 1) + 0.5) : 0; /* most >= rate */
  format_number(rate, FMT_TOK_S, text);
  page_raw(p, "<td class=\"n h%d\">", shade);
  page_escaped(p, "%s", text);
  page_raw(p, " <span class=\"bind\">%c</span></td>", plan_binding_letter(answer_text(c, "binding")));
}

static void heat_map(page *p, const grid *g) {
  page_raw(p, "<div class=\"table\"><p class=\"caption\" id=\"heat-caption\">");
  page_escaped(p, "Delivered tokens per second of all users, prompts and waiting included, over %s (across) and %s (down)",
               answer_text(g->axis[0], "key"), answer_text(g->axis[1], "key"));
  page_raw(p, "</p><p class=\"hint\">The table goes on to the right.</p><div class=\"scroll\" tabindex=\"0\" role=\"region\" "
              "aria-labelledby=\"heat-caption\"><table class=\"heat\"><thead><tr><th scope=\"col\"></th>");
  for (int i = 0; i < g->n[0]; i++) {
    page_raw(p, "<th scope=\"col\" class=\"n\">");
    page_escaped(p, "%s", value_text(g, 0, i));
    page_raw(p, "</th>");
  }
  page_raw(p, "</tr></thead><tbody>\n");
  for (int j = 0; j < g->n[1]; j++) {
    page_raw(p, "<tr><th scope=\"row\">");
    page_escaped(p, "%s", value_text(g, 1, j));
    page_raw(p, "</th>");
    for (int i = 0; i < g->n[0]; i++) heat_cell(p, g, g->cell[j * g->n[0] + i]);
    page_raw(p, "</tr>\n");
  }
  page_raw(p, "</tbody></table></div></div>\n");
  page_note(p, "What binds: " PLAN_BINDING_LEGEND ". The stronger the colour, the faster.");
  const json *notes = json_get(g->doc, "notes");
  for (const json *t = json_type(notes) == JSON_ARRAY ? json_first(notes) : NULL; t != NULL; t = json_next(t))
    if (json_string(t) != NULL) page_note(p, "%s", json_string(t));
}

/* One line per value of the second axis, at most as many as colours. */
static void chart_lines(page *p, const grid *g, const char *id, const char *title, const char *y_title, const char *path,
                        double scale) {
  enum { LINES = 6 };
  bool numbers = true;
  for (int i = 0; i < g->n[0]; i++) {
    char *end;
    strtod(value_text(g, 0, i), &end);
    numbers = numbers && end != value_text(g, 0, i) && (*end == '\0' || strchr("KMG", *end) != NULL);
  }
  json *chart = page_chart(p, id, numbers ? "line" : "bar", title, answer_text(g->axis[0], "key"), y_title,
                           numbers ? CHART_LOG_X : 0, "One line for each %s over %s; the numbers are in the table of cells.",
                           answer_text(g->axis[1], "key"), answer_text(g->axis[0], "key"));
  int step = (g->n[1] + LINES - 1) / LINES;
  for (int j = 0; j < g->n[1]; j += step) {
    char name[128];
    snprintf(name, sizeof name, "%.60s %.60s", answer_text(g->axis[1], "key"), value_text(g, 1, j));
    json *line = chart_series(chart, name, "");
    for (int i = 0; i < g->n[0]; i++) {
      const json *c = g->cell[j * g->n[0] + i];
      double y = answer_num(c, path), x = numbers ? answer_num(c, answer_text(g->axis[0], "key")) : NAN;
      if (!numbers) chart_bar(line, value_text(g, 0, i), isfinite(y) ? y * scale : 0);
      else if (isfinite(x) && isfinite(y)) chart_point(line, x, y * scale);
    }
  }
}

/* One value across is a dot, not a line: the table has it. */
static void charts(page *p, const grid *g) {
  page_charts(p);
  chart_lines(p, g, "sweep-rate", "Delivered tokens per second of all users", "tokens/s", "tok_per_s_wall", 1);
  chart_lines(p, g, "sweep-ttft", "Time to the first token, p95", "s", "ttft_s.p95", 1);
  chart_lines(p, g, "sweep-tpot", "Time per output token, p95", "ms", "tpot_s.p95", 1e3);
  page_charts_end(p);
}

static void table_knees(page *p, const json *doc) {
  static const rep_col cols[] = {
      {"at", "Row", FMT_TEXT}, {"users", "Users at the knee", FMT_INT}, {"rule", NULL, FMT_TEXT}, {"text", "Why", FMT_TEXT}};
  const json *knees = json_get(doc, "knees");
  if (json_len(knees) == 0) return;
  rep_table *t = PAGE_TABLE(p, "knees", cols, "Where another user stops paying");
  for (const json *k = json_first(knees); k != NULL; k = json_next(k)) {
    const char *at = json_string(json_get(k, "at"));
    if (at != NULL) table_text(p, t, at);
    else table_printf(p, t, "%g", answer_num(k, "at"));
    table_num(p, t, answer_num(k, "users"));
    table_text(p, t, answer_text(k, "rule"));
    table_text(p, t, answer_text(k, "text"));
  }
  page_table_end(p, t, false);
}

void section_sweep(page *p, const json *doc) {
  grid g;
  page_section(p, "sweep", "How it scales");
  if (!grid_of(p, doc, &g)) {
    page_text(p, "The document of this sweep has no axes.");
    free(g.cell);
    return;
  }
  heat_map(p, &g);
  note_load(p);
  table_knees(p, doc);
  if (g.n[0] > 1) charts(p, &g);
  table_cases(p, "cells", json_get(doc, "cells"), "Cells");
  free(g.cell);
}
