/* When silence of a device is a hang: what was usual counts, larger steps may take longer, a driver that was away is no silence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "executor/watch.h"

static const int64_t ms = 1000000;

/* Looks every millisecond until the step ends (silent_ms) or the watch complains; the ms at which it did, -1: not. */
static int64_t wait(watch *w, int64_t *now, int64_t silent_ms) {
  for (int64_t i = 0; i < silent_ms; i++, *now += ms)
    if (watch_look(w, *now) >= 0) return i;
  return -1;
}

static void the_first_step_has_time(void **state) {
  (void)state;
  watch w = {0};
  int64_t now = 5;
  watch_begin(&w, 0, 4);
  assert_int_equal(wait(&w, &now, WATCH_FIRST_NS / ms - 1000), -1);
  int64_t at = wait(&w, &now, 3000);
  assert_true(at > 900 && at < 1100);
}

static void what_was_usual_is_learned(void **state) {
  (void)state;
  watch w = {0};
  int64_t now = 5;
  watch_begin(&w, 0, 8);
  assert_int_equal(wait(&w, &now, 100), -1); /* a stage */
  watch_alive(&w, 0);
  assert_int_equal(wait(&w, &now, 40), -1); /* a shorter one */
  watch_end(&w, 0);
  assert_in_range(watch_limit_ns(&w, 8, 1), 2900 * ms, 3100 * ms);  /* 20 times 100 ms and a second */
  assert_in_range(watch_limit_ns(&w, 2, 1), 2900 * ms, 3100 * ms);  /* fewer tokens: no less */
  assert_in_range(watch_limit_ns(&w, 32, 1), 8700 * ms, 9300 * ms); /* more tokens: in proportion */
  assert_in_range(watch_limit_ns(&w, 8, 3), 6700 * ms, 7200 * ms);  /* three steps on one device */
  watch_begin(&w, 0, 8);
  int64_t at = wait(&w, &now, 10000);
  assert_in_range(at, 2900, 3100);
}

static void a_step_that_ended_at_once_teaches_the_least(void **state) {
  (void)state;
  watch w = {0};
  int64_t now = 5;
  watch_begin(&w, 2, 1);
  watch_end(&w, 2);
  assert_in_range(watch_limit_ns(&w, 1, 1), WATCH_LEAST_NS, WATCH_LEAST_NS + ms);
  watch_begin(&w, 1, 1);
  watch_begin(&w, 2, 1);
  watch_end(&w, 2);
  assert_int_equal(wait(&w, &now, 990), -1);
  for (int i = 0; i < 100; i++, now += ms)
    if (watch_look(&w, now) >= 0) break;
  assert_int_equal(watch_look(&w, now), 1); /* the one that is silent, not the one that ended */
}

static void a_driver_that_was_away_is_no_silence(void **state) {
  (void)state;
  watch w = {0};
  int64_t now = 5;
  watch_begin(&w, 0, 1);
  watch_end(&w, 0);
  watch_begin(&w, 0, 1);
  for (int i = 0; i < 50; i++, now += 100 * WATCH_FIRST_NS) assert_int_equal(watch_look(&w, now), -1);
}

static void a_limit_that_is_given_stands(void **state) {
  (void)state;
  watch w = {.limit_ns = 30 * ms};
  int64_t now = 5;
  watch_begin(&w, 0, 4096);
  int64_t at = wait(&w, &now, 1000);
  assert_in_range(at, 29, 33);
  watch_reset(&w);
  assert_int_equal(wait(&w, &now, 1000), -1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(the_first_step_has_time),
      cmocka_unit_test(what_was_usual_is_learned),
      cmocka_unit_test(a_step_that_ended_at_once_teaches_the_least),
      cmocka_unit_test(a_driver_that_was_away_is_no_silence),
      cmocka_unit_test(a_limit_that_is_given_stands),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
