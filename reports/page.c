#include "reports/page_int.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* ---- the page ---- */

hf_status page_new(page **out) {
  page *p = NULL;
  HF_TRY(hf_alloc(&p, 1, sizeof *p, "report"));
  hf_buf_init(&p->toc, PAGE_LIMIT);
  hf_buf_init(&p->body, PAGE_LIMIT);
  hf_buf_init(&p->verdict, PAGE_LIMIT);
  p->data = json_new_object();
  p->charts = json_add_array(p->data, "charts");
  if (p->charts == NULL) {
    page_free(p);
    return hf_fail(HF_MACHINE, "out of memory: report");
  }
  *out = p;
  return HF_OK;
}

void page_free(page *p) {
  if (p == NULL) return;
  for (rep_table *t = p->first, *next; t != NULL; t = next) {
    next = t->next;
    for (int i = 0; i < t->n_cells; i++) {
      free(t->cell[i].text);
      free(t->cell[i].shown);
    }
    free(t->cell);
    free(t->caption);
    free(t);
  }
  json_free(p->data);
  hf_buf_free(&p->toc);
  hf_buf_free(&p->body);
  free(p->title);
  for (int i = 0; i < p->n_facts; i++) free(p->fact[i]);
  hf_buf_free(&p->verdict);
  free(p);
}

hf_status page_status(const page *p) {
  return p->st;
}

void page_failed(page *p, hf_status st) {
  if (p->st == HF_OK) p->st = st;
}

/* ---- text ---- */

char *page_vprintf(page *p, const char *fmt, va_list args) {
  char *text = NULL;
  va_list again;
  if (p->st != HF_OK) return NULL;
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, fmt, args);
  if (n < 0 || n > PAGE_TEXT_LIMIT)
    page_failed(p, hf_fail(HF_INPUT, "report: a text over its limit of %d bytes", PAGE_TEXT_LIMIT));
  else page_failed(p, hf_alloc(&text, (size_t)n + 1, 1, "text of a report"));
  if (p->st == HF_OK) vsnprintf(text, (size_t)n + 1, fmt, again);
  va_end(again);
  return text;
}

void page_put(page *p, const char *html, size_t n) {
  if (p->st == HF_OK) page_failed(p, hf_buf_add(&p->body, html, n));
}

void page_raw(page *p, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  char *text = page_vprintf(p, fmt, args);
  va_end(args);
  if (text != NULL) page_put(p, text, strlen(text));
  free(text);
}

static void put_escaped(page *p, const char *text) {
  if (p->st == HF_OK && text != NULL) page_failed(p, html_escape(&p->body, text));
}

void page_escaped(page *p, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  char *text = page_vprintf(p, fmt, args);
  va_end(args);
  put_escaped(p, text);
  free(text);
}

static void element(page *p, const char *open, const char *close, const char *fmt, va_list args) {
  char *text = page_vprintf(p, fmt, args);
  page_put(p, open, strlen(open));
  put_escaped(p, text);
  page_put(p, close, strlen(close));
  free(text);
}

void page_text(page *p, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  element(p, "<p>", "</p>\n", fmt, args);
  va_end(args);
}

void page_note(page *p, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  element(p, "<p class=\"note\">", "</p>\n", fmt, args);
  va_end(args);
}

void page_code(page *p, const char *text) {
  page_raw(p, "<pre class=\"line\" tabindex=\"0\"><code>");
  page_escaped(p, "%s", text);
  page_raw(p, "</code></pre>\n");
}

void page_heading(page *p, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  element(p, "<h3>", "</h3>\n", fmt, args);
  va_end(args);
}

/* ---- head and sections ---- */

void page_title(page *p, const char *kind, const char *fmt, ...) {
  va_list args;
  snprintf(p->kind, sizeof p->kind, "%s", kind);
  va_start(args, fmt);
  char *text = page_vprintf(p, fmt, args);
  va_end(args);
  free(p->title);
  p->title = text;
}

void page_verdict(page *p, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  char *text = page_vprintf(p, fmt, args);
  va_end(args);
  if (text == NULL) return;
  if (p->n_facts == PAGE_FACTS) {
    page_failed(p, hf_fail(HF_INPUT, "report: a verdict of more than %d facts", PAGE_FACTS));
    free(text);
    return;
  }
  p->fact[p->n_facts++] = text;
  page_failed(p, hf_buf_printf(&p->verdict, "%s%s", p->n_facts > 1 ? " " : "", text));
}

const char *page_verdict_text(const page *p) {
  return p->verdict.len > 0 ? p->verdict.data : "";
}

int page_verdict_count(const page *p) {
  return p->n_facts;
}

const char *page_verdict_fact(const page *p, int i) {
  return p->fact[i];
}

void page_section(page *p, const char *id, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  char *text = page_vprintf(p, fmt, args);
  va_end(args);
  if (text == NULL) return;
  page_raw(p, "%s<section id=\"%s\" aria-labelledby=\"%s-title\">\n<h2 id=\"%s-title\">", p->in_section ? "</section>\n" : "", id,
           id, id);
  put_escaped(p, text);
  page_raw(p, "</h2>\n");
  p->in_section = true;
  page_failed(p, hf_buf_printf(&p->toc, "<li><a href=\"#%s\">", id));
  if (p->st == HF_OK) page_failed(p, html_escape(&p->toc, text));
  if (p->st == HF_OK) page_failed(p, hf_buf_printf(&p->toc, "</a></li>\n"));
  free(text);
}

/* ---- key figures ---- */

void page_tiles(page *p) {
  page_raw(p, "<dl class=\"tiles\">\n");
}
void page_tiles_end(page *p) {
  page_raw(p, "</dl>\n");
}

void page_tile(page *p, const char *label, const char *value, const char *note_fmt, ...) {
  va_list args;
  page_raw(p, "<div class=\"tile\"><dt>");
  put_escaped(p, label);
  page_raw(p, "</dt><dd>");
  put_escaped(p, value);
  page_raw(p, "</dd>");
  va_start(args, note_fmt);
  if (*note_fmt) element(p, "<dd class=\"note\">", "</dd>", note_fmt, args);
  va_end(args);
  page_raw(p, "</div>\n");
}

/* ---- charts ---- */

void page_charts(page *p) {
  page_raw(p, "<div class=\"charts\">\n");
}
void page_charts_end(page *p) {
  page_raw(p, "</div>\n");
}
int page_chart_count(const page *p) {
  return p->n_charts;
}

json *page_chart(page *p, const char *id, const char *type, const char *title, const char *x_title, const char *y_title,
                 int flags, const char *alt_fmt, ...) {
  va_list args;
  va_start(args, alt_fmt);
  char *alt = page_vprintf(p, alt_fmt, args);
  va_end(args);
  if (alt == NULL) return NULL;
  p->n_charts++;
  page_raw(p, "<figure class=\"chart%s\"><figcaption id=\"%s-caption\">", flags & CHART_SMALL ? " small" : "", id);
  put_escaped(p, title);
  page_raw(p,
           "</figcaption>\n<div class=\"canvas\"><canvas id=\"%s\" role=\"img\" aria-labelledby=\"%s-caption\" "
           "aria-describedby=\"%s-alt\"></canvas></div>\n<p class=\"alt\" id=\"%s-alt\">",
           id, id, id, id);
  put_escaped(p, alt);
  page_raw(p, "</p></figure>\n");
  free(alt);
  json *c = json_add_object(p->charts, NULL);
  json_add_str(c, "id", id);
  json_add_str(c, "type", type);
  json_add_str(c, "x", x_title);
  json_add_str(c, "y", y_title);
  json_add_bool(c, "log_x", flags & CHART_LOG_X);
  json_add_bool(c, "log_y", flags & CHART_LOG_Y);
  json_add_int(c, "x_step", flags & CHART_MONTHS ? 12 : 1);
  return json_add_array(c, "series");
}

json *chart_series(json *chart, const char *name, const char *role) {
  json *s = json_add_object(chart, NULL);
  json_add_str(s, "name", name);
  json_add_str(s, "role", role);
  return json_add_array(s, "points");
}

void chart_point(json *series, double x, double y) {
  json *o = json_add_object(series, NULL);
  json_add_num(o, "x", x);
  json_add_num(o, "y", y);
}

void chart_bar(json *series, const char *label, double y) {
  json *o = json_add_object(series, NULL);
  json_add_str(o, "x", label);
  json_add_num(o, "y", y);
}

json *page_data(page *p, const char *key) {
  return json_add_object(p->data, key);
}
