/* output.c: a finished page as HTML, CSV and JSON. */
#include "reports/page_int.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/clock.h"
#include "reports/web.h"

/* ---- escaping ---- */

hf_status html_escape(hf_buf *out, const char *text) {
  for (const char *s = text; *s;) {
    size_t n = strcspn(s, "&<>\"'");
    for (size_t i = 0; i < n; i++) {
      unsigned char c = (unsigned char)s[i];
      bool control = (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f;
      HF_TRY(control ? hf_buf_add(out, "\xef\xbf\xbd", 3) : hf_buf_add(out, s + i, 1));
    }
    s += n;
    if (*s == 0) break;
    const char *entity = *s == '&' ? "&amp;" : *s == '<' ? "&lt;" : *s == '>' ? "&gt;" : *s == '"' ? "&quot;" : "&#39;";
    HF_TRY(hf_buf_add(out, entity, strlen(entity)));
    s++;
  }
  return HF_OK;
}

/* Quoted where RFC 4180 asks for it. A text that a spreadsheet would take for a formula gets an apostrophe in front. */
hf_status csv_field(hf_buf *out, const char *text) {
  bool formula = *text && strchr("=+-@\t\r", *text) != NULL;
  if (!formula && text[strcspn(text, ",\"\r\n")] == 0) return hf_buf_add(out, text, strlen(text));
  HF_TRY(hf_buf_add(out, formula ? "\"'" : "\"", formula ? 2 : 1));
  for (const char *s = text; *s; s++) HF_TRY(hf_buf_add(out, *s == '"' ? "\"\"" : s, *s == '"' ? 2 : 1));
  return hf_buf_add(out, "\"", 1);
}

/* "<", ">", "&" and the two line separators that old JavaScript does not know occur in JSON inside strings only, where \u is the same. */
hf_status script_json(hf_buf *out, const char *json_text) {
  for (const char *s = json_text; *s;) {
    size_t n = strcspn(s, "<>&\xe2");
    HF_TRY(hf_buf_add(out, s, n));
    s += n;
    if (*s == 0) break;
    if (strncmp(s, "\xe2\x80\xa8", 3) == 0 || strncmp(s, "\xe2\x80\xa9", 3) == 0) {
      HF_TRY(hf_buf_printf(out, "\\u202%c", (unsigned char)s[2] == 0xa8 ? '8' : '9'));
      s += 3;
    } else if (*s == '\xe2') {
      HF_TRY(hf_buf_add(out, s++, 1));
    } else {
      HF_TRY(hf_buf_printf(out, "\\u%04x", (unsigned)*s++));
    }
  }
  return HF_OK;
}

/* ---- HTML ---- */

static const hf_embedded *web_file(const char *name) {
  for (const hf_embedded *f = hf_embedded_web; f->name != NULL; f++)
    if (strcmp(f->name, name) == 0) return f;
  return NULL;
}

/* Invalid bytes must not reach a reader as something else; the JSON writer replaces them by U+FFFD. */
static hf_status add_clean(const hf_buf *dirty, hf_buf *out) {
  if (dirty->len == 0) return HF_OK;
  json *holder = json_new_object();
  const char *text = json_string(json_add_str(holder, "t", dirty->data));
  hf_status st = text != NULL ? hf_buf_add(out, text, strlen(text)) : hf_fail(HF_MACHINE, "out of memory: report");
  json_free(holder);
  return st;
}

typedef struct {
  const page *p;
  char nonce[33], date[FORMAT_MAX];
} html_context;

static hf_status put_nonce(char out[33]) {
  unsigned char bytes[16];
  if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
    return hf_fail(HF_MACHINE, "no random numbers: %s", strerror(errno));
  for (int i = 0; i < 16; i++) snprintf(out + 2 * i, 3, "%02x", bytes[i]);
  return HF_OK;
}

static hf_status put_data(const page *p, hf_buf *out) {
  char *text = NULL;
  HF_TRY(json_print(p->data, false, &text));
  hf_status st = script_json(out, text);
  free(text);
  return st;
}

/* One fact is a paragraph, several are a list. */
static hf_status put_verdict(const page *p, hf_buf *out) {
  bool list = p->n_facts > 1;
  HF_TRY(hf_buf_printf(out, list ? "<ul class=\"verdict\">\n" : "<p class=\"verdict\">"));
  for (int i = 0; i < p->n_facts; i++) {
    if (list) HF_TRY(hf_buf_printf(out, "<li>"));
    HF_TRY(html_escape(out, p->fact[i]));
    if (list) HF_TRY(hf_buf_printf(out, "</li>\n"));
  }
  return hf_buf_printf(out, list ? "</ul>" : "</p>");
}

static hf_status put_slot(const html_context *c, const char *name, size_t n, hf_buf *out) {
  const page *p = c->p;
#define IS(s) (n == sizeof(s) - 1 && memcmp(name, s, n) == 0)
  if (IS("title")) return html_escape(out, p->title != NULL ? p->title : "");
  if (IS("verdict")) return put_verdict(p, out);
  if (IS("nonce")) return hf_buf_printf(out, "%s", c->nonce);
  if (IS("date")) return hf_buf_printf(out, "%s", c->date);
  if (IS("version")) return hf_buf_printf(out, "%s", HF_VERSION);
  if (IS("toc")) return p->toc.len > 0 ? hf_buf_add(out, p->toc.data, p->toc.len) : HF_OK;
  if (IS("data")) return put_data(p, out);
  if (IS("body")) {
    HF_TRY(p->body.len > 0 ? hf_buf_add(out, p->body.data, p->body.len) : HF_OK);
    return p->in_section ? hf_buf_printf(out, "</section>\n") : HF_OK;
  }
  if (IS("chart.js")) {
    if (p->n_charts == 0) return HF_OK;
    return hf_buf_add(out, hf_embedded_chart[0].text, hf_embedded_chart[0].n);
  }
#undef IS
  for (const hf_embedded *f = hf_embedded_web; f->name != NULL; f++)
    if (strlen(f->name) == n && memcmp(f->name, name, n) == 0) return hf_buf_add(out, f->text, f->n);
  return hf_fail(HF_UNSUPPORTED, "report template: unknown slot '%.*s'", (int)n, name);
}

static hf_status fill_template(const html_context *c, const char *text, hf_buf *out) {
  for (;;) {
    const char *open = strstr(text, "{{"), *close = open != NULL ? strstr(open, "}}") : NULL;
    if (close == NULL) return hf_buf_add(out, text, strlen(text));
    HF_TRY(hf_buf_add(out, text, (size_t)(open - text)));
    HF_TRY(put_slot(c, open + 2, (size_t)(close - open - 2), out));
    text = close + 2;
  }
}

hf_status page_html(const page *p, hf_buf *out) {
  HF_TRY(p->st);
  html_context c = {.p = p};
  hf_buf dirty;
  HF_TRY(put_nonce(c.nonce));
  format_date(hf_wall_ns(), c.date);
  hf_buf_init(&dirty, PAGE_LIMIT);
  hf_status st = fill_template(&c, web_file("page.html")->text, &dirty);
  if (st == HF_OK) st = add_clean(&dirty, out);
  hf_buf_free(&dirty);
  return st;
}

/* ---- CSV ---- */

static hf_status csv_cell(const rep_cell *c, hf_buf *out) {
  if (c->text != NULL) return csv_field(out, c->text);
  if (!isfinite(c->num)) return HF_OK;
  return hf_buf_printf(out, c->num == floor(c->num) && fabs(c->num) < 1e15 ? "%.0f" : "%.10g", c->num);
}

static hf_status csv_table(const rep_table *t, hf_buf *out) {
  HF_TRY(hf_buf_printf(out, "table,%s,", t->id));
  HF_TRY(csv_field(out, t->caption));
  for (int i = 0; i < t->n_cols; i++) HF_TRY(hf_buf_printf(out, "%s%s", i == 0 ? "\n" : ",", t->col[i].key));
  int n = table_rows(t) * t->n_cols;
  for (int i = 0; i < n; i++) {
    HF_TRY(hf_buf_add(out, i % t->n_cols == 0 ? "\n" : ",", 1));
    HF_TRY(csv_cell(&t->cell[i], out));
  }
  return hf_buf_add(out, "\n", 1);
}

hf_status page_csv(const page *p, hf_buf *out) {
  HF_TRY(p->st);
  hf_buf dirty;
  hf_buf_init(&dirty, PAGE_LIMIT);
  hf_status st = HF_OK;
  for (const rep_table *t = p->first; t != NULL && st == HF_OK; t = t->next) {
    if (t != p->first) st = hf_buf_add(&dirty, "\n", 1);
    if (st == HF_OK) st = csv_table(t, &dirty);
  }
  if (st == HF_OK) st = add_clean(&dirty, out);
  hf_buf_free(&dirty);
  return st;
}

/* ---- JSON ---- */

static void json_table(const rep_table *t, json *tables) {
  json *o = json_add_object(tables, t->id);
  json_add_str(o, "caption", t->caption);
  json *cols = json_add_array(o, "columns"), *rows = json_add_array(o, "rows"), *row = NULL;
  for (int i = 0; i < t->n_cols; i++) json_add_str(cols, NULL, t->col[i].key);
  int n = table_rows(t) * t->n_cols;
  for (int i = 0; i < n; i++) {
    if (i % t->n_cols == 0) row = json_add_array(rows, NULL);
    if (t->cell[i].text != NULL) json_add_str(row, NULL, t->cell[i].text);
    else json_add_num(row, NULL, t->cell[i].num);
  }
}

hf_status page_json(const page *p, json *into) {
  HF_TRY(p->st);
  json_add_str(into, "kind", p->kind);
  json_add_str(into, "title", p->title);
  json_add_str(into, "verdict", page_verdict_text(p));
  json *tables = json_add_object(into, "tables");
  for (const rep_table *t = p->first; t != NULL; t = t->next) json_table(t, tables);
  return tables != NULL ? HF_OK : hf_fail(HF_MACHINE, "out of memory: report");
}
