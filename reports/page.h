/* page.h: a report while it is made, and its three forms. Private to reports.
 *
 * A report is a sequence of sections with text, key figures, tables, charts and drawings. It is written once, from top to bottom; the
 * HTML of the body, the tables and the charts' data gather in the page. page_html, page_csv and page_json print them.
 *
 * Invariants
 *   1. Text from outside (model names, facts, sources, error details) reaches HTML through escaping only: every function below that
 *      takes text escapes it. page_raw takes program text alone.
 *   2. Nothing in the page refers to another place: the content policy in the head forbids any request, and scripts without the page's
 *      nonce.
 *   3. Every chart and drawing has a text alternative and a table with the same numbers.
 *
 * Errors are sticky: after the first failure all calls do nothing, and page_status tells it, so that a section is written without a
 * check at each line. One thread at a time. */
#ifndef HF_REPORTS_PAGE_H
#define HF_REPORTS_PAGE_H

#include "base/json.h"
#include "reports/format.h"

typedef struct {
  const char *key;   /* name in CSV and JSON, with the unit: "attn_ns" */
  const char *title; /* heading for people; NULL: a column of CSV and JSON alone */
  rep_format format;
} rep_col;

typedef struct rep_table rep_table;
typedef struct page page;

HF_MUST hf_status page_new(page **out);
void page_free(page *p); /* NULL ok */
HF_MUST hf_status page_status(const page *p);
void page_failed(page *p, hf_status st); /* takes over a failure of something else; HF_OK is ignored */

/* Head of the report. The verdict is made of facts: a sentence each, at most eight. page_verdict_text: all in one line. */
void page_title(page *p, const char *kind, const char *fmt, ...) HF_PRINTF(3, 4);
void page_verdict(page *p, const char *fmt, ...) HF_PRINTF(2, 3);
const char *page_verdict_text(const page *p);
int page_verdict_count(const page *p);
const char *page_verdict_fact(const page *p, int i);

/* Sections appear in the table of contents. id: program text, unique. */
void page_section(page *p, const char *id, const char *fmt, ...) HF_PRINTF(3, 4);
void page_heading(page *p, const char *fmt, ...) HF_PRINTF(2, 3);
void page_text(page *p, const char *fmt, ...) HF_PRINTF(2, 3);
void page_note(page *p, const char *fmt, ...) HF_PRINTF(2, 3); /* a remark in smaller type */

void page_code(page *p, const char *text); /* a line to paste */

/* Key figures: a row of tiles. note may be NULL. */
void page_tiles(page *p);
void page_tile(page *p, const char *label, const char *value, const char *note_fmt, ...) HF_PRINTF(4, 5);
void page_tiles_end(page *p);

/* Tables. page_table starts one (cols must live as long as the page), cells come row by row, page_table_end shows it. An absent
 * number is NAN. page_table never returns NULL. folded: behind a summary line, for long ones. */
rep_table *page_table(page *p, const char *id, const rep_col *cols, int n_cols, const char *fmt, ...) HF_PRINTF(5, 6);
#define PAGE_TABLE(p, id, cols, ...) page_table(p, id, cols, (int)(sizeof(cols) / sizeof(cols)[0]), __VA_ARGS__)
void table_text(page *p, rep_table *t, const char *text);
void table_printf(page *p, rep_table *t, const char *fmt, ...) HF_PRINTF(3, 4);
/* What the database calls key, in words on the page; the key in CSV and JSON. table_shown: words of the caller's. */
void table_key(page *p, rep_table *t, const char *key);
void table_shown(page *p, rep_table *t, const char *key, const char *fmt, ...) HF_PRINTF(4, 5);
void table_num(page *p, rep_table *t, double v);
void table_as(page *p, rep_table *t, double v, rep_format f); /* where one column holds several quantities */
void page_table_end(page *p, rep_table *t, bool folded);
int table_rows(const rep_table *t);

/* Charts, drawn by web/report.js with Chart.js from this description. alt says in words what there is to see.
 *   page_chart(p, id, "line" | "bar", title, alt, x title, y title); flags CHART_LOG_X, CHART_LOG_Y,
 *     CHART_MONTHS (x counts months, labels once a year)
 *   chart_series(p, c, name, role): role picks the colour: "cpu", "device", "predicted", "measured" or "" (the next of the palette)
 *   chart_point(series, x, y), or chart_bar(series, label, y)
 * Charts between page_charts and page_charts_end stand side by side where there is room. */
enum { CHART_LOG_X = 1, CHART_LOG_Y = 2, CHART_SMALL = 4, CHART_MONTHS = 8 };
void page_charts(page *p);
void page_charts_end(page *p);
json *page_chart(page *p, const char *id, const char *type, const char *title, const char *x_title, const char *y_title,
                 int flags, const char *alt_fmt, ...) HF_PRINTF(8, 9);
json *chart_series(json *chart, const char *name, const char *role);
void chart_point(json *series, double x, double y);
void chart_bar(json *series, const char *label, double y); /* bar charts over things that have names */
int page_chart_count(const page *p);

/* Program text as HTML, and escaped text between it: for drawings (draw.c). */
void page_raw(page *p, const char *fmt, ...) HF_PRINTF(2, 3);
void page_escaped(page *p, const char *fmt, ...) HF_PRINTF(2, 3);
void page_put(page *p, const char *html, size_t n); /* program text without formatting */
json *page_data(page *p, const char *key);          /* an object in the page's data, for scripts */

/* Where a figure comes from: one row of the closing table. tag: measured, scaled, spec or assumed. */
void page_source(page *p, const char *tag, const char *source, const char *what_fmt, ...) HF_PRINTF(4, 5);
void page_sources(page *p); /* shows that table as a section */

/* The three forms. */
HF_MUST hf_status page_html(const page *p, hf_buf *out);
HF_MUST hf_status page_csv(const page *p, hf_buf *out);
HF_MUST hf_status page_json(const page *p, json *into); /* members kind, title, verdict, tables */

/* For tests: text as HTML (also safe inside quoted attributes), as a CSV field, and JSON text made safe inside <script>. */
HF_MUST hf_status html_escape(hf_buf *out, const char *text);
HF_MUST hf_status csv_field(hf_buf *out, const char *text);
HF_MUST hf_status script_json(hf_buf *out, const char *json_text);
#endif
