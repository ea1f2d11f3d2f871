/* table.c: tables of a page, for people (HTML); their other forms are in output.c. */
#include "reports/page_int.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "reports/words.h"

static rep_table *new_table(page *p, const char *id, const rep_col *cols, int n_cols, const char *fmt, va_list args) {
  rep_table *t = NULL;
  char *caption = page_vprintf(p, fmt, args);
  if (caption != NULL) page_failed(p, hf_alloc(&t, 1, sizeof *t, "table of a report"));
  if (p->st != HF_OK) {
    free(caption);
    return &p->none;
  }
  snprintf(t->id, sizeof t->id, "%s", id);
  t->caption = caption;
  t->col = cols;
  t->n_cols = n_cols;
  if (p->last != NULL) p->last->next = t;
  else p->first = t;
  p->last = t;
  return t;
}

rep_table *page_table(page *p, const char *id, const rep_col *cols, int n_cols, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  rep_table *t = new_table(p, id, cols, n_cols, fmt, args);
  va_end(args);
  return t;
}

static rep_cell *new_cell(page *p, rep_table *t) {
  if (p->st != HF_OK || t == &p->none) return NULL;
  if (t->n_cells == t->cap) {
    int cap = t->cap > 0 ? 2 * t->cap : 64;
    page_failed(p, hf_realloc(&t->cell, (size_t)cap, sizeof *t->cell, "cells of a report"));
    if (p->st != HF_OK) return NULL;
    t->cap = cap;
  }
  rep_cell *c = &t->cell[t->n_cells];
  *c = (rep_cell){.num = NAN, .format = t->col[t->n_cells % t->n_cols].format};
  t->n_cells++;
  return c;
}

void table_text(page *p, rep_table *t, const char *text) {
  rep_cell *c = new_cell(p, t);
  if (c != NULL) page_failed(p, hf_strdup(&c->text, text != NULL ? text : ""));
}

void table_printf(page *p, rep_table *t, const char *fmt, ...) {
  rep_cell *c = new_cell(p, t);
  va_list args;
  if (c == NULL) return;
  va_start(args, fmt);
  c->text = page_vprintf(p, fmt, args);
  va_end(args);
}

void table_key(page *p, rep_table *t, const char *key) {
  const char *words = words_of(key);
  if (strcmp(words, key) == 0) table_text(p, t, key);
  else table_shown(p, t, key, "%s", words);
}

void table_shown(page *p, rep_table *t, const char *key, const char *fmt, ...) {
  rep_cell *c = new_cell(p, t);
  va_list args;
  if (c == NULL) return;
  page_failed(p, hf_strdup(&c->text, key));
  va_start(args, fmt);
  c->shown = page_vprintf(p, fmt, args);
  va_end(args);
}

void table_as(page *p, rep_table *t, double v, rep_format f) {
  rep_cell *c = new_cell(p, t);
  if (c == NULL) return;
  c->num = v;
  c->format = f;
}

void table_num(page *p, rep_table *t, double v) {
  rep_cell *c = new_cell(p, t);
  if (c != NULL) c->num = v;
}

int table_rows(const rep_table *t) {
  return t->n_cols > 0 ? t->n_cells / t->n_cols : 0;
}

/* ---- HTML ---- */

/* Numbers stand to the right, but for the column that names the rows and columns of mixed content. */
static const char *align(const rep_table *t, int column) {
  return column == 0 || t->col[column].format == FMT_TEXT ? "" : " class=\"n\"";
}

static void show_cell(page *p, const rep_table *t, int i) {
  const rep_cell *c = &t->cell[i];
  int column = i % t->n_cols;
  char number[FORMAT_MAX];
  const char *element = column == 0 ? "th scope=\"row\"" : "td";
  if (t->col[column].title == NULL) return;
  if (c->text != NULL) {
    const char *text = c->shown != NULL ? c->shown : c->text;
    size_t n = strlen(text);
    page_raw(p, "<%s%s>", element, n > 40 ? " class=\"long\"" : column == 0 && n > 18 ? " class=\"name\"" : "");
    page_escaped(p, "%s", text);
  } else {
    format_number(c->num, c->format, number);
    page_raw(p, "<%s%s>", element, align(t, column));
    page_escaped(p, "%s", number);
  }
  page_raw(p, column == 0 ? "</th>" : "</td>");
}

void page_table_end(page *p, rep_table *t, bool folded) {
  if (p->st != HF_OK || t == &p->none) return;
  int rows = table_rows(t);
  if (folded) {
    page_raw(p, "<details><summary>");
    page_escaped(p, "Table: %s", t->caption);
    page_raw(p, " <span class=\"count\">(%d row%s)</span></summary>\n", rows, rows == 1 ? "" : "s");
  }
  int shown = 0;
  for (int i = 0; i < t->n_cols; i++) shown += t->col[i].title != NULL;
  page_raw(p, "<div class=\"table%s%s\"><p class=\"caption\" id=\"%s-caption\">", t->n_cols == 2 ? " pairs" : "",
           shown > 9 ? " many" : "", t->id);
  page_escaped(p, "%s", t->caption);
  page_raw(p,
           "</p><p class=\"hint\" aria-hidden=\"true\">more columns: scroll →</p>\n"
           "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-labelledby=\"%s-caption\"><table id=\"%s\" "
           "aria-labelledby=\"%s-caption\">\n<thead><tr>",
           t->id, t->id, t->id);
  for (int i = 0; i < t->n_cols; i++) {
    if (t->col[i].title == NULL) continue;
    page_raw(p, "<th scope=\"col\"%s>", align(t, i));
    page_escaped(p, "%s", t->col[i].title);
    page_raw(p, "</th>");
  }
  page_raw(p, "</tr></thead>\n<tbody>\n");
  for (int i = 0; i < rows * t->n_cols; i++) {
    if (i % t->n_cols == 0) page_raw(p, "<tr>");
    show_cell(p, t, i);
    if (i % t->n_cols == t->n_cols - 1) page_raw(p, "</tr>\n");
  }
  page_raw(p, "</tbody></table></div></div>\n%s", folded ? "</details>\n" : "");
}

/* ---- sources ---- */

static const rep_col source_cols[] = {
    {"figure", "Figure", FMT_TEXT}, {"tag", "Tag", FMT_TEXT}, {"source", "Where it comes from", FMT_TEXT}};

void page_source(page *p, const char *tag, const char *source, const char *what_fmt, ...) {
  va_list args;
  va_start(args, what_fmt);
  char *what = page_vprintf(p, what_fmt, args);
  va_end(args);
  if (what == NULL) return;
  if (p->sources == NULL)
    p->sources = PAGE_TABLE(p, "sources", source_cols, "Every figure of this report, how far it can be trusted, and its source");
  table_text(p, p->sources, what);
  table_text(p, p->sources, tag);
  table_text(p, p->sources, source);
  free(what);
}

void page_sources(page *p) {
  if (p->sources == NULL) return;
  page_section(p, "sources-section", "Where the figures come from");
  page_text(
      p, "The tags measured, scaled, spec and assumed are explained under Definitions, strongest first; a figure made of several "
         "carries the weakest of theirs.");
  page_table_end(p, p->sources, false);
}
