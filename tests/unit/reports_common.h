/* reports_common.h: what the tests of pages share: a text that ends every context, and a reader of HTML, CSV and JSON that knows what may occur. */
#ifndef HF_TESTS_REPORTS_COMMON_H
#define HF_TESTS_REPORTS_COMMON_H
#include <ctype.h>

#include "reports/page.h"
#include "tests/unit/db_common.h"

/* Ends every context that a careless writer could put it into. */
#define EVIL "\"'></td></script><script>alert(1)</script><img src=http://x/ onerror=alert(1)>{{body}}%s%n&<!--"

/* Just enough of HTML to see what a browser would see: tags in balance, attributes in quotes, what elements and attributes there are. */
typedef struct {
  const char *s;
  char open[64][24];
  int depth, scripts;
  char *ids[4096];
  int n_ids;
} reader;

static inline bool listed(const char *name, const char *list) {
  size_t n = strlen(name);
  for (const char *at = list; n > 0 && (at = strstr(at, name)) != NULL; at++)
    if ((at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == 0)) return true;
  return false;
}

static inline void check_attribute(reader *r, const char *name, const char *value, size_t n) {
  static const char known[] = "lang charset http-equiv content name id class href aria-label aria-labelledby aria-describedby "
                              "aria-hidden role tabindex scope "
                              "nonce type style data-map viewBox preserveAspectRatio d";
  if (!listed(name, known)) fail_msg("attribute %s", name);
  if (strcmp(name, "href") == 0) assert_int_equal(value[0], '#');
  if (strcmp(name, "id") != 0) return;
  for (int i = 0; i < r->n_ids; i++)
    if (strlen(r->ids[i]) == n && memcmp(r->ids[i], value, n) == 0) fail_msg("id %s twice", r->ids[i]);
  r->ids[r->n_ids++] = strndup(value, n);
}

static inline void read_tag(reader *r) {
  static const char known[] = "html head meta title style body a header p span h1 h2 h3 nav ol ul li main section footer script "
                              "div dl dt dd table caption "
                              "thead tbody tr th td details summary figure figcaption canvas svg path";
  static const char empty[] = "meta path";
  char name[24] = "";
  bool close = *r->s == '/', self = false;
  if (close) r->s++;
  for (size_t n = 0; isalnum((unsigned char)*r->s) && n < sizeof name - 1;) name[n++] = *r->s++;
  if (!listed(name, known)) fail_msg("element '%s' before: %.60s", name, r->s);
  while (*r->s && *r->s != '>') {
    char attr[32] = "";
    if (isspace((unsigned char)*r->s) || *r->s == '/') {
      self = *r->s++ == '/';
      continue;
    }
    for (size_t n = 0; (isalnum((unsigned char)*r->s) || *r->s == '-') && n < sizeof attr - 1;) attr[n++] = *r->s++;
    if (strncmp(r->s, "=\"", 2) != 0) fail_msg("attribute '%s' of %s without quotes: %.60s", attr, name, r->s);
    size_t n = strcspn(r->s += 2, "\"<>");
    assert_int_equal(r->s[n], '"');
    check_attribute(r, attr, r->s, n);
    r->s += n + 1;
  }
  assert_int_equal(*r->s++, '>');
  if (close) {
    assert_true(r->depth > 0);
    assert_string_equal(r->open[--r->depth], name);
  } else if (!self && !listed(name, empty)) {
    assert_true(r->depth < 64);
    snprintf(r->open[r->depth++], sizeof r->open[0], "%s", name);
  }
  if (close || (strcmp(name, "script") != 0 && strcmp(name, "style") != 0)) return;
  const char *end = strstr(r->s, strcmp(name, "script") == 0 ? "</script" : "</style");
  assert_non_null(end);
  r->scripts += strcmp(name, "script") == 0;
  r->s = end;
}

static inline void check_html(const char *html) {
  reader r = {.s = html};
  assert_int_equal(strncmp(html, "<!DOCTYPE html>", 15), 0);
  r.s += 15;
  while (*r.s) {
    if (*r.s++ == '<') read_tag(&r);
  }
  assert_int_equal(r.depth, 0);
  assert_int_equal(r.scripts, 3);
  for (int i = 0; i < r.n_ids; i++) free(r.ids[i]);
  assert_null(strstr(html, "{{date}}"));
  const char *data = strstr(html, "id=\"report-data\">"), *end = data != NULL ? strstr(data, "</script>") : NULL;
  json *doc;
  assert_non_null(end);
  data += strlen("id=\"report-data\">");
  CHECK_OK(json_parse(data, (size_t)(end - data), "data", &doc));
  json_free(doc);
}

/* Reads a CSV record; returns the number of fields. */
static inline int csv_record(const char **s, char first[64]) {
  int n = 1;
  size_t o = 0;
  for (bool quoted = false; **s && (quoted || **s != '\n'); ++*s) {
    if (**s == '"') quoted = !quoted;
    if (**s == ',' && !quoted) n++;
    if (n == 1 && o < 63) first[o++] = **s;
  }
  first[o] = 0;
  if (**s) ++*s;
  return o == 0 && n == 1 ? 0 : n;
}

static inline int check_csv(const char *s) {
  char first[64];
  int tables = 0;
  while (*s) {
    assert_int_equal(csv_record(&s, first), 3);
    assert_string_equal(first, "table");
    int columns = csv_record(&s, first), n;
    assert_true(columns >= 2);
    while (*s && (n = csv_record(&s, first)) > 0) assert_int_equal(n, columns);
    tables++;
  }
  return tables;
}

static inline void check_json(const page *p, int tables) {
  json *root = json_new_object(), *back;
  char *text;
  CHECK_OK(page_json(p, root));
  CHECK_OK(json_print(root, false, &text));
  json_free(root);
  CHECK_OK(json_parse(text, strlen(text), "json", &back)); /* refuses a table named twice */
  assert_int_equal(json_len(json_get(back, "tables")), tables);
  json_free(back);
  free(text);
}

static inline void check_page(const page *p) {
  hf_buf html, csv;
  hf_buf_init(&html, 1 << 28);
  hf_buf_init(&csv, 1 << 28);
  CHECK_OK(page_html(p, &html));
  check_html(html.data);
  assert_non_null(strstr(html.data, "alert(1)")); /* the texts did reach the page */
  CHECK_OK(page_csv(p, &csv));
  check_json(p, check_csv(csv.data));
  hf_buf_free(&html);
  hf_buf_free(&csv);
}
#endif
