/* Pages of answers: from documents as hf-plan writes them, and from documents in which every text is hostile or any one member is missing or of
 * another kind: always a page, never a failure, and nothing of the document becomes markup. */
#include "reports/report.h"
#include "tests/unit/reports_common.h"

static const char *const kinds[] = {"roi", "whatif", "sweep", "validate", "recommend", "formats"};

typedef struct {
  db_place place;
  db *d;
} fixture;

static int setup(void **state) {
  fixture *f = calloc(1, sizeof *f);
  place_make(&f->place);
  CHECK_OK(db_open(f->place.path, true, &f->d));
  *state = f;
  return 0;
}

static int teardown(void **state) {
  fixture *f = *state;
  db_close(f->d);
  place_remove(&f->place);
  free(f);
  return 0;
}

static json *golden(const char *kind) {
  char path[200];
  json *doc;
  snprintf(path, sizeof path, HF_SOURCE_DIR "/tests/golden/answers/%s.json", kind);
  CHECK_OK(json_read_file(path, 1 << 24, &doc));
  return doc;
}

static page *page_of(fixture *f, const char *kind, const json *doc, const char *title) {
  rec_answer a = {.created_ns = 1};
  char *text;
  page *p = NULL;
  snprintf(a.kind, sizeof a.kind, "%s", kind);
  snprintf(a.title, sizeof a.title, "%.250s", title);
  CHECK_OK(json_print(doc, false, &text));
  CHECK_OK(db_answer_put(f->d, &a, text));
  free(text);
  CHECK_OK(report_build(f->d, &(report_options){.kind = kind, .answer = a.id}, &p));
  return p;
}

static char *html_of(const page *p) {
  hf_buf b;
  hf_buf_init(&b, 1 << 28);
  CHECK_OK(page_html(p, &b));
  return b.data;
}

/* What change_node does to the n-th node of a document. */
typedef enum { COPY, REMOVE, TEXT, NUMBER, LIST, OBJECT, N_CHANGES } change;

/* Copies v below into; *left counts down to the node that is changed; with EVIL texts if evil. */
static void copy_changed(json *into, const char *key, const json *v, change c, int *left, bool evil) {
  bool hit = c != COPY && (*left)-- == 0;
  if (hit && c == REMOVE) return;
  if (hit && c == TEXT) json_add_str(into, key, EVIL);
  else if (hit && c == NUMBER) json_add_num(into, key, -1e300);
  else if (hit && c == LIST) json_add_array(into, key);
  else if (hit && c == OBJECT) json_add_object(into, key);
  else if (json_type(v) == JSON_STRING && evil) json_add_str(into, key, EVIL);
  else if (json_type(v) == JSON_OBJECT || json_type(v) == JSON_ARRAY) {
    bool array = json_type(v) == JSON_ARRAY;
    json *o = array ? json_add_array(into, key) : json_add_object(into, key);
    for (const json *m = json_first(v); m != NULL; m = json_next(m))
      copy_changed(o, array ? NULL : json_key(m), m, c, left, evil);
  } else {
    json_add_copy(into, key, v);
  }
}

static json *changed(const json *doc, change c, int node, bool evil) {
  json *o = json_new_object();
  for (const json *m = json_first(doc); m != NULL; m = json_next(m)) copy_changed(o, json_key(m), m, c, &node, evil);
  return o;
}

static int nodes_of(const json *v) {
  int n = 0;
  for (const json *m = json_first(v); m != NULL; m = json_next(m)) n += 1 + nodes_of(m);
  return n;
}

static void as_written(void **state) {
  fixture *f = *state;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    json *doc = golden(kinds[i]);
    page *p = page_of(f, kinds[i], doc, "alert(1)");
    check_page(p);
    assert_true(page_verdict_count(p) >= 1);
    assert_true(page_chart_count(p) >= 1);
    page_free(p);
    json_free(doc);
  }
}

static void hostile_texts(void **state) {
  fixture *f = *state;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    json *doc = golden(kinds[i]), *evil = changed(doc, COPY, 0, true);
    page *p = page_of(f, kinds[i], evil, EVIL);
    check_page(p);
    page_free(p);
    json_free(evil);
    json_free(doc);
  }
}

/* Any node missing or of another kind; the reader looks at a part of the pages, for it is slower than the writer. */
static void broken_documents(void **state) {
  fixture *f = *state;
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    json *doc = golden(kinds[i]);
    int n = nodes_of(doc), step = 1 + n / 150;
    CHECK_OK(db_begin(f->d));
    for (int node = 0, k = 0; node < n; node += step, k++) {
      for (change c = REMOVE; c < N_CHANGES; c++) {
        json *broken = changed(doc, c, node, false);
        page *p = page_of(f, kinds[i], broken, "alert(1)");
        if (k % 40 == 0) check_page(p);
        page_free(p);
        json_free(broken);
      }
    }
    db_rollback(f->d);
    json_free(doc);
  }
}

/* Figures of the document stand on the page as people write them. */
static void figures(void **state) {
  fixture *f = *state;
  json *doc = golden("roi");
  char number[FORMAT_MAX];
  page *p = page_of(f, "roi", doc, "money");
  char *html = html_of(p);
  format_number(json_number(json_get(json_get(doc, "cost"), "per_month"), 0), FMT_INT, number);
  assert_non_null(strstr(html, number));
  assert_non_null(strstr(html, "\xc2\xa0USD"));
  assert_non_null(strstr(html, "API (cheapest)"));
  /* today's price beside the levelised one, and whose price it is; of which tokens */
  assert_non_null(strstr(html, "API today, a million tokens in and out"));
  assert_non_null(strstr(html, "levelised; list price of this model"));
  assert_non_null(strstr(html, "A million in and out, levelised"));
  assert_non_null(strstr(html, "Levelised: the average over 4 years with prices falling 20"));
  assert_non_null(strstr(html, "No single assumption, within its own doubt, makes another way the cheapest."));
  assert_non_null(strstr(html, "never in 10 years"));
  free(html);
  page_free(p);
  json_free(doc);
  doc = golden("whatif");
  p = page_of(f, "whatif", doc, "what if");
  html = html_of(p);
  assert_non_null(strstr(html, "lost=gpu0"));
  assert_non_null(strstr(html, "does not fit")); /* 16 GiB modules on one socket */
  free(html);
  page_free(p);
  json_free(doc);
}

/* Rates that no plan has are shown, in a shade there is. */
static void odd_rates(void **state) {
  static const char text[] =
      "{\"question\":{\"axes\":[{\"key\":\"users\",\"values\":[\"1\",\"2\"]},{\"key\":\"context\",\"values\":[\"2K\"]}]},"
      "\"cells\":[{\"tok_per_s_wall\":1e-300},{\"tok_per_s_wall\":-1e300}]}";
  fixture *f = *state;
  json *doc = NULL;
  CHECK_OK(json_parse(text, strlen(text), "sweep", &doc));
  page *p = page_of(f, "sweep", doc, "odd");
  char *html = html_of(p);
  assert_non_null(strstr(html, "class=\"n h5\""));
  assert_non_null(strstr(html, "class=\"n h0\""));
  assert_null(strstr(html, "class=\"n h-"));
  free(html);
  page_free(p);
  json_free(doc);
}

static void refuses(fixture *f, report_options o, hf_status want, const char *says) {
  page *p = NULL;
  assert_int_equal(report_build(f->d, &o, &p), want);
  if (strstr(hf_error_line(), says) == NULL) fail_msg("'%s' does not say '%s'", hf_error_line(), says);
  assert_null(p);
}

static void choices(void **state) {
  (void)state;
  fixture e = {0};
  place_make(&e.place);
  CHECK_OK(db_open(e.place.path, true, &e.d));
  refuses(&e, (report_options){.kind = "roi"}, HF_NOT_FOUND, "roi");
  json *doc = golden("whatif");
  page *p = page_of(&e, "whatif", doc, "first"); /* answer 1 */
  page_free(p);
  p = page_of(&e, "whatif", doc, "second");
  page_free(p);
  CHECK_OK(report_build(e.d, &(report_options){.kind = "whatif"}, &p)); /* the newest */
  char *html = html_of(p);
  assert_non_null(strstr(html, "<h1>second</h1>"));
  free(html);
  page_free(p);
  refuses(&e, (report_options){.kind = "roi", .answer = 1}, HF_INPUT, "is of kind whatif");
  refuses(&e, (report_options){.kind = "roi", .operand = "1"}, HF_INPUT, "is of kind whatif");
  refuses(&e, (report_options){.kind = "whatif", .answer = 77}, HF_NOT_FOUND, "77");
  CHECK_OK(report_build(e.d, &(report_options){.kind = "whatif", .operand = "1"}, &p)); /* no plan has this number */
  html = html_of(p);
  assert_non_null(strstr(html, "<h1>first</h1>"));
  free(html);
  page_free(p);
  refuses(&e, (report_options){.kind = "whatif", .operand = "9999"}, HF_NOT_FOUND,
          "9999 is the number of neither an answer of hf-plan whatif nor a plan");
  refuses(&e, (report_options){.kind = "whatif", .operand = "1", .answer = 1}, HF_INPUT, "given already");
  refuses(&e, (report_options){.kind = "plan", .answer = 1}, HF_INPUT, "--answer");
  json_free(doc);
  db_close(e.d);
  place_remove(&e.place);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(as_written),       cmocka_unit_test(hostile_texts),
                                     cmocka_unit_test(broken_documents), cmocka_unit_test(figures),
                                     cmocka_unit_test(odd_rates),        cmocka_unit_test(choices)};
  return cmocka_run_group_tests(tests, setup, teardown);
}
