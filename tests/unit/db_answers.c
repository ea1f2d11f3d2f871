/* Answers: stored as documents, found by number and by kind. */
#include "tests/unit/db_common.h"

static int setup(void **state) {
  db_place *p = calloc(1, sizeof *p);
  place_make(p);
  *state = p;
  return 0;
}

static int teardown(void **state) {
  place_remove(*state);
  free(*state);
  return 0;
}

static void round_trip(void **state) {
  db_place *p = *state;
  db *d = NULL;
  CHECK_OK(db_open(p->path, true, &d));
  rec_answer first = {.kind = "whatif", .title = "one"}, second = {.kind = "sweep", .title = "two"}, third = {.kind = "whatif"},
             got;
  CHECK_OK(db_answer_put(d, &first, "{\"a\":1}"));
  CHECK_OK(db_answer_put(d, &second, "{\"a\":2}"));
  CHECK_OK(db_answer_put(d, &third, "{\"a\":3}"));
  char *doc = NULL;
  CHECK_OK(db_answer_get(d, first.id, &got, &doc));
  assert_string_equal(doc, "{\"a\":1}");
  assert_string_equal(got.title, "one");
  assert_true(got.created_ns > 0);
  free(doc);
  CHECK_OK(db_answer_latest(d, "whatif", &got, &doc));
  assert_int_equal(got.id, third.id);
  assert_string_equal(doc, "{\"a\":3}");
  free(doc);
  rec_answer *list = NULL;
  int n = 0;
  CHECK_OK(db_answer_list(d, "whatif", &list, &n));
  assert_int_equal(n, 2);
  assert_int_equal(list[0].id, third.id);
  free(list);
  CHECK_OK(db_answer_list(d, NULL, &list, &n));
  assert_int_equal(n, 3);
  free(list);
  db_close(d);
}

static void refusals(void **state) {
  db_place *p = *state;
  db *d = NULL;
  char *doc = NULL;
  rec_answer a = {.kind = "poem"}, empty = {.kind = "roi"}, got;
  CHECK_OK(db_open(p->path, true, &d));
  assert_int_equal(db_answer_put(d, &a, "{}"), HF_INPUT);
  assert_int_equal(db_answer_put(d, &empty, ""), HF_INPUT);
  assert_int_equal(db_answer_get(d, 7, &got, &doc), HF_NOT_FOUND);
  assert_int_equal(db_answer_latest(d, "roi", &got, &doc), HF_NOT_FOUND);
  assert_non_null(strstr(hf_error_line(), "hf-plan roi"));
  db_close(d);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(round_trip, setup, teardown),
                                     cmocka_unit_test_setup_teardown(refusals, setup, teardown)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
