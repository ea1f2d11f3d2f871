/* The error trail, exit statuses, clock and log. */
#include "base/clock.h"
#include "base/log.h"
#include "base/status.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static hf_status inner(int v) {
  if (v == 0) return hf_fail(HF_INPUT, "field %s: %d is below the least allowed, %d", "layers", v, 1);
  return HF_OK;
}

static hf_status outer(int v) {
  HF_TRY(inner(v));
  return HF_OK;
}

static hf_status with_cleanup(int v, bool *cleaned) {
  hf_status st;
  HF_GO(out, inner(v));
  HF_GO(out, inner(v + 1));
out:
  *cleaned = true;
  return st;
}

static void trail_reads_from_outside_in(void **state) {
  (void)state;
  hf_status st = outer(0);
  assert_int_equal(st, HF_INPUT);
  assert_int_equal(hf_note(st, "%s", "config.json"), HF_INPUT);
  assert_string_equal(hf_error_line(), "config.json: field layers: 0 is below the least allowed, 1");
  assert_int_equal(hf_note(HF_OK, "nothing happened"), HF_OK);
  assert_string_equal(hf_error_line(), "config.json: field layers: 0 is below the least allowed, 1");
  hf_clear_error();
  assert_string_equal(hf_error_line(), "");
  assert_int_equal(hf_note(HF_LOST, "device 0"), HF_LOST);
  assert_string_equal(hf_error_line(), "device 0");
  assert_int_equal(outer(1), HF_OK);
}

static void cleanup_label_runs(void **state) {
  (void)state;
  bool cleaned = false;
  assert_int_equal(with_cleanup(0, &cleaned), HF_INPUT);
  assert_true(cleaned);
  assert_int_equal(with_cleanup(5, &cleaned), HF_OK);
}

static void a_new_failure_may_quote_the_last(void **state) {
  (void)state;
  assert_int_equal(inner(0), HF_INPUT);
  assert_int_equal(hf_fail(HF_NO, "gave up: %s", hf_error_line()), HF_NO);
  assert_string_equal(hf_error_line(), "gave up: field layers: 0 is below the least allowed, 1");
}

static void hostile_text_is_one_printable_line(void **state) {
  (void)state;
  assert_int_equal(hf_fail(HF_INPUT, "name '%s'", "a\033[2Jb\nc\td\x7f\xc2\x9b!"), HF_INPUT);
  assert_string_equal(hf_error_line(), "name 'a?[2Jb c d??"
                                       "?!'");
}

static void long_lines_are_cut_between_characters(void **state) {
  (void)state;
  char text[3001] = "";
  for (int i = 0; i < 1000; i++) memcpy(text + 3 * i, "\xe2\x82\xac", 3);
  for (int shift = 0; shift < 3; shift++) {
    assert_int_equal(hf_fail(HF_INPUT, "%.*s%s", shift, "abc", text), HF_INPUT);
    size_t n = strlen(hf_error_line());
    assert_in_range(n, 1019, 1023);
    assert_int_equal((n - (size_t)shift) % 3, 0);
    assert_int_equal(hf_note(HF_INPUT, "%s", text), HF_INPUT);
    assert_in_range(strlen(hf_error_line()), 1019, 1023);
  }
}

static void *other_thread(void *line) {
  snprintf(line, 64, "[%s]", hf_error_line());
  return inner(0) == HF_INPUT ? line : NULL;
}

static void trails_belong_to_threads(void **state) {
  (void)state;
  char line[64];
  pthread_t t;
  assert_int_equal(hf_fail(HF_NO, "mine"), HF_NO);
  assert_int_equal(pthread_create(&t, NULL, other_thread, line), 0);
  assert_int_equal(pthread_join(t, NULL), 0);
  assert_string_equal(line, "[]");
  assert_string_equal(hf_error_line(), "mine");
}

static void exit_statuses(void **state) {
  (void)state;
  static const int want[] = {[HF_OK] = 0,          [HF_NO] = 1,      [HF_INPUT] = 2, [HF_NOT_FOUND] = 2,
                             [HF_UNSUPPORTED] = 2, [HF_MACHINE] = 3, [HF_LOST] = 3,  [HF_TIMEOUT] = 3};
  for (int i = 0; i < 8; i++) assert_int_equal(hf_exit_status((hf_status)i), want[i]);
}

static void clock_goes_forward(void **state) {
  (void)state;
  int64_t before = hf_now_ns();
  hf_sleep_until_ns(before - 1000000); /* in the past: returns at once */
  hf_sleep_until_ns(before + 2000000);
  assert_true(hf_now_ns() >= before + 2000000);
  assert_true(hf_wall_ns() > 1600000000000000000); /* after 2020 */
}

/* What `say` writes to standard error. */
static void captured(void (*say)(void), char *out, size_t out_bytes) {
  char path[] = "/tmp/hf-log-XXXXXX";
  int file = mkstemp(path), old = dup(STDERR_FILENO);
  assert_true(file >= 0 && old >= 0);
  unlink(path);
  dup2(file, STDERR_FILENO);
  say();
  dup2(old, STDERR_FILENO);
  close(old);
  ssize_t n = pread(file, out, out_bytes - 1, 0);
  close(file);
  assert_true(n >= 0);
  out[n] = '\0';
}

static void say_everything(void) {
  hf_log(HF_LOG_ERROR, "disk %s", "full");
  hf_log(HF_LOG_WARN, "two\nlines \033[1m");
  hf_log(HF_LOG_INFO, "plain");
  hf_log(HF_LOG_DEBUG, "detail");
}

static void say_too_much(void) {
  char text[5000];
  memset(text, 'x', sizeof text - 1);
  text[sizeof text - 1] = '\0';
  hf_log(HF_LOG_ERROR, "%s", text);
}

static void say_progress(void) {
  hf_progress p;
  hf_progress_begin(&p, "loading", "B", 100);
  hf_progress_add(&p, 50);
  hf_progress_end(&p);
}

static void log_levels(void **state) {
  (void)state;
  char text[8192];
  setenv("HF_LOG", "debug", 1);
  captured(say_everything, text, sizeof text);
  assert_string_equal(text, "error: disk full\nwarning: two lines ?[1m\nplain\ndebug: detail\n");
  hf_log_set_level(HF_LOG_WARN);
  assert_int_equal(hf_log_get_level(), HF_LOG_WARN);
  captured(say_everything, text, sizeof text);
  assert_string_equal(text, "error: disk full\nwarning: two lines ?[1m\n");
  captured(say_too_much, text, sizeof text);
  assert_in_range(strlen(text), 1000, 2048);
  assert_int_equal(text[strlen(text) - 1], '\n');
  captured(say_progress, text, sizeof text); /* no terminal: no bar */
  assert_string_equal(text, "");
}

/* On a terminal the bar appears after half a second of work, steps aside for a message, and is cleared at the end. */
static void progress_on_a_terminal(void **state) {
  (void)state;
  int terminal = posix_openpt(O_RDWR | O_NOCTTY), old = dup(STDERR_FILENO);
  assert_true(terminal >= 0 && old >= 0 && grantpt(terminal) == 0 && unlockpt(terminal) == 0);
  int side = open(ptsname(terminal), O_RDWR | O_NOCTTY);
  assert_true(side >= 0);
  hf_log_set_level(HF_LOG_INFO);
  dup2(side, STDERR_FILENO);
  hf_progress p, second;
  hf_progress_begin(&p, "loading", "B", 4096);
  hf_progress_add(&p, 1024); /* too early to be drawn */
  p.started_ns -= 1000000000;
  hf_progress_add(&p, 1024);
  hf_progress_add(&p, 1); /* too soon to be drawn again */
  hf_progress_begin(&second, "other", "", 10);
  second.started_ns -= 1000000000;
  hf_progress_add(&second, 5); /* one bar at a time */
  hf_progress_end(&second);
  hf_log(HF_LOG_INFO, "message");
  hf_progress_end(&p);
  dup2(old, STDERR_FILENO);
  close(old);
  static const char want[] = "\r\033[Kloading [###############...............] 2.0K/4.0K B"
                             "\r\033[Kmessage\r\n"
                             "\r\033[Kloading [###############...............] 2.0K/4.0K B"
                             "\r\033[K";
  char text[1024];
  size_t n = 0;
  struct pollfd ready = {.fd = terminal, .events = POLLIN};
  while (n < sizeof want - 1 && poll(&ready, 1, 10000) == 1) { /* the kernel hands it over in pieces */
    ssize_t more = read(terminal, text + n, sizeof text - 1 - n);
    assert_true(more > 0);
    n += (size_t)more;
  }
  text[n] = '\0';
  close(side);
  close(terminal);
  assert_string_equal(text, want);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(trail_reads_from_outside_in),
      cmocka_unit_test(cleanup_label_runs),
      cmocka_unit_test(a_new_failure_may_quote_the_last),
      cmocka_unit_test(hostile_text_is_one_printable_line),
      cmocka_unit_test(long_lines_are_cut_between_characters),
      cmocka_unit_test(trails_belong_to_threads),
      cmocka_unit_test(exit_statuses),
      cmocka_unit_test(clock_goes_forward),
      cmocka_unit_test(log_levels),
      cmocka_unit_test(progress_on_a_terminal),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
