/* page_int.h: the insides of a page, shared by page.c, table.c and output.c. */
#ifndef HF_REPORTS_PAGE_INT_H
#define HF_REPORTS_PAGE_INT_H

#include <stdarg.h>

#include "reports/page.h"

enum { PAGE_LIMIT = 256 << 20, PAGE_TEXT_LIMIT = 1 << 20, PAGE_FACTS = 8 };

typedef struct {
  char *text;  /* NULL: a number */
  char *shown; /* what people read instead of text; NULL: the text */
  double num;
  rep_format format;
} rep_cell;

struct rep_table {
  char id[64];
  char *caption;
  const rep_col *col;
  int n_cols;
  rep_cell *cell;
  int n_cells, cap;
  rep_table *next;
};

struct page {
  hf_status st;
  char kind[32];
  char *title, *fact[PAGE_FACTS];
  int n_facts;
  hf_buf verdict; /* the facts in one line */
  hf_buf toc, body;
  bool in_section;
  json *data, *charts;           /* charts belongs to data */
  rep_table *first, *last, none; /* none: what page_table returns after a failure */
  rep_table *sources;
  int n_charts;
};

/* Formats into a new string, at most PAGE_TEXT_LIMIT; NULL after a failure, which the page keeps. */
char *page_vprintf(page *p, const char *fmt, va_list args);
#endif
