/* The journal of a profile: rows come back as they went, a key that is not the same gives nothing, what was cut short ends it. */
#include "profiler/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/log.h"

static char db_path[64], file[96];

static int prepare(void **state) {
  (void)state;
  snprintf(db_path, sizeof db_path, "/tmp/hf-journal-%d.db", (int)getpid());
  snprintf(file, sizeof file, "%s.profile", db_path);
  hf_log_set_level(HF_LOG_ERROR);
  return unlink(file) == 0 || true ? 0 : -1;
}

static int clean_up(void **state) {
  (void)state;
  (void)unlink(file);
  return 0;
}

static const rec_figure figure = {.device = "cpu",
                                  .what = "dram_read_bytes_per_s",
                                  .params = "threads=2",
                                  .unit = "B/s",
                                  .low = 29.5e9,
                                  .likely = 30.123456789e9,
                                  .high = 31e9,
                                  .spread = 0.05,
                                  .n = 17,
                                  .tag = TAG_MEASURED,
                                  .source = "a test"};
static const rec_kernel_point point = {.device = "cpu",
                                       .kernel = "expert_ffn",
                                       .candidate = "q8_0.avx2",
                                       .format = "q8_0",
                                       .act = "q8b32",
                                       .n_out = 768,
                                       .n_in = 2048,
                                       .tokens = 4,
                                       .threads = 2,
                                       .load = "dma",
                                       .ns_low = 1,
                                       .ns = 1.5,
                                       .ns_high = 2,
                                       .bytes = 5013504,
                                       .n = 5};

static journal *open_it(const char *key, bool restart, int want) {
  journal *j = NULL;
  int units = -1;
  assert_int_equal(journal_open(db_path, key, restart, &j, &units), HF_OK);
  assert_int_equal(units, want);
  return j;
}

static void two_units(const char *key) {
  journal *j = open_it(key, true, 0);
  assert_non_null(j);
  journal_put(j, "dram", &figure, 1, NULL, 0);
  journal_put(j, "experts/768x2048/q8_0", NULL, 0, &point, 1);
  journal_close(j, false);
}

static void comes_back(void **state) {
  (void)state;
  two_units("this machine");
  journal *j = open_it("this machine", false, 2);
  assert_null(journal_find(j, "fixed"));
  const journal_unit *u = journal_find(j, "dram");
  assert_non_null(u);
  assert_int_equal(u->n_figure, 1);
  assert_int_equal(u->n_point, 0);
  assert_true(u->figure[0].likely == figure.likely && u->figure[0].n == 17);
  assert_string_equal(u->figure[0].params, "threads=2");
  u = journal_find(j, "experts/768x2048/q8_0");
  assert_true(u && u->n_point == 1 && u->point[0].ns == 1.5 && u->point[0].bytes == 5013504);
  assert_string_equal(u->point[0].load, "dma");
  journal_put(j, "fixed", &figure, 1, NULL, 0);
  journal_close(j, false);
  j = open_it("this machine", false, 3); /* went on behind what was there */
  journal_close(j, true);
  assert_int_not_equal(access(file, F_OK), 0); /* done: gone */
}

static void other_key(void **state) {
  (void)state;
  two_units("this machine");
  journal_close(open_it("another", false, 0), false);
  journal_close(open_it("this machine", false, 0), false); /* the other one began anew */
  two_units("this machine");
  journal_close(open_it("this machine", true, 0), false);
}

/* A second program at the same time measures without a journal, and leaves it to the first. */
static void locked(void **state) {
  (void)state;
  journal *first = open_it("k", true, 0), *second = NULL;
  int units = 0;
  hf_log_set_level(HF_LOG_ERROR);
  assert_int_equal(journal_open(db_path, "k", false, &second, &units), HF_OK);
  assert_null(second);
  assert_null(journal_find(second, "dram"));
  journal_put(second, "dram", &figure, 1, NULL, 0);
  journal_close(second, true);
  journal_put(first, "dram", &figure, 1, NULL, 0);
  journal_close(first, false);
  journal_close(open_it("k", false, 1), true);
}

/* Cut at any byte: whole lines before the cut count, and what is written next stands on a line of its own. */
static void cut_anywhere(void **state) {
  (void)state;
  char *text = NULL;
  size_t n = 0;
  two_units("k");
  assert_int_equal(hf_read_file(file, 1 << 20, &text, &n), HF_OK);
  size_t head = (size_t)(strchr(text, '\n') - text) + 1, first = (size_t)(strchr(text + head, '\n') - text) + 1;
  for (size_t at = 0; at <= n; at++) {
    journal_unit *u = NULL;
    int units = 0;
    size_t good = 0;
    hf_status st = journal_parse(text, at, "k", hf_wall_ns() / 1000000000, &u, &units, &good);
    if (at < head) {
      assert_int_equal(st, HF_INPUT);
      continue;
    }
    assert_int_equal(st, HF_OK);
    assert_int_equal(units, at < first ? 0 : at < n ? 1 : 2);
    assert_true(good == (at < first ? head : at < n ? first : n));
    journal_units_free(u, units);
  }
  assert_int_equal(truncate(file, (off_t)(n - 5)), 0);
  journal *j = open_it("k", false, 1);
  journal_put(j, "fixed", &figure, 1, NULL, 0);
  journal_close(j, false);
  journal_close(open_it("k", false, 2), true);
  free(text);
}

static void not_ours(void **state) {
  (void)state;
  static const char *const texts[] = {"",
                                      "no journal\n",
                                      "{}\n",
                                      "{\"heteroflow_journal\":2,\"created_s\":1,\"key\":\"k\"}\n",
                                      "{\"heteroflow_journal\":1,\"created_s\":99,\"key\":\"k\"}\n", /* of the future */
                                      "[1,2]\n"};
  journal_unit *u = NULL;
  int units = 0;
  size_t good = 0;
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    assert_int_equal(journal_parse(texts[i], strlen(texts[i]), "k", 50, &u, &units, &good), HF_INPUT);
  static const char ok[] = "{\"heteroflow_journal\":1,\"created_s\":50,\"key\":\"k\"}\n";
  assert_int_equal(journal_parse(ok, strlen(ok), "k", 50 + JOURNAL_MAX_AGE_S, &u, &units, &good), HF_OK);
  journal_units_free(u, units);
  assert_int_equal(journal_parse(ok, strlen(ok), "k", 51 + JOURNAL_MAX_AGE_S, &u, &units, &good), HF_INPUT);
  /* a unit whose figure is out of order ends it */
  static const char bad[] =
      "{\"heteroflow_journal\":1,\"created_s\":50,\"key\":\"k\"}\n"
      "{\"unit\":\"a\",\"figures\":[{\"device\":\"\",\"what\":\"x\",\"params\":\"\",\"unit\":\"\",\"low\":2,\"likely\":1,"
      "\"high\":3,\"spread\":0,\"n\":1,\"tag\":\"measured\",\"source\":\"\"}],\"kernels\":[]}\n";
  assert_int_equal(journal_parse(bad, strlen(bad), "k", 50, &u, &units, &good), HF_OK);
  assert_int_equal(units, 0);
  assert_true(good == strlen(ok));
  journal_units_free(u, units);
}

/* Out of memory anywhere: said so, or no journal; nothing leaks (the sanitizer sees) and the file is whole. */
static void no_memory(void **state) {
  (void)state;
  two_units("k");
  bool failed = true;
  for (long n = 1; failed; n++) {
    journal *j = NULL;
    int units = 0;
    hf_fail_alloc_at(n);
    hf_status st = journal_open(db_path, "k", false, &j, &units);
    failed = st != HF_OK;
    hf_fail_alloc_at(0);
    assert_true(st == HF_OK ? units == 2 : st == HF_MACHINE && j == NULL);
    journal_close(j, false);
    assert_true(n < 2000);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(comes_back, prepare, clean_up),
      cmocka_unit_test_setup_teardown(other_key, prepare, clean_up),
      cmocka_unit_test_setup_teardown(locked, prepare, clean_up),
      cmocka_unit_test_setup_teardown(cut_anywhere, prepare, clean_up),
      cmocka_unit_test_setup_teardown(not_ours, prepare, clean_up),
      cmocka_unit_test_setup_teardown(no_memory, prepare, clean_up),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
