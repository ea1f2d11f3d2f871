/* Text of answers as it comes: nothing is shown that a stop text may still take back, no character is cut, and however the text is cut into
 * tokens the same comes out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "executor/stream.h"

static tokenizer *tok; /* a token for every byte is in it */

/* Feeds text byte by byte; shown gets what was given out on the way, and at the end. */
static void feed(const char *text, size_t n, const char *const *stop, int n_stop, char *shown, size_t *n_shown, bool *stopped) {
  text_stream s;
  stream_init(&s);
  *n_shown = 0;
  for (size_t i = 0; i <= n; i++) {
    bool end = i == n || s.stopped;
    int32_t *ids;
    int k = 0;
    if (!end) assert_int_equal(tokenizer_encode(tok, text + i, 1, false, false, &ids, &k), HF_OK);
    for (int j = 0; j < k; j++) assert_int_equal(stream_add(&s, tok, ids[j], false, stop, n_stop), HF_OK);
    if (!end) free(ids);
    size_t ready = stream_ready(&s, end, stop, n_stop);
    if (ready) memcpy(shown + *n_shown, s.text.data + s.shown, ready);
    *n_shown += ready;
    s.shown += ready;
    if (utf8_complete_prefix(shown, *n_shown) != *n_shown) fail_msg("a character is cut");
  }
  *stopped = s.stopped;
  stream_free(&s);
}

static void check(const char *text, const char *const *stop, int n_stop, const char *want, bool want_stopped) {
  char shown[256];
  size_t n;
  bool stopped;
  feed(text, strlen(text), stop, n_stop, shown, &n, &stopped);
  shown[n] = 0;
  assert_string_equal(shown, want);
  assert_int_equal(stopped, want_stopped);
}

static void stop_texts(void **state) {
  (void)state;
  static const char *const ab[] = {"ab"}, *const two[] = {"###", "aba"}, *const inner[] = {"bc", "abcd"};
  check("xaby", ab, 1, "x", true);
  check("xaay", ab, 1, "xaay", false);
  check("xa", ab, 1, "xa", false); /* held back, given out at the end */
  check("aab", ab, 1, "a", true);
  check("abab#", two, 2, "", true);
  check("ab##ab###", two, 2, "ab##ab", true);
  check("abcd", inner, 2, "a", true); /* the one that is complete first */
  check("", ab, 1, "", false);
  check("\xe4\xb8\xad\xf0\x9f\x98\x80!", NULL, 0, "\xe4\xb8\xad\xf0\x9f\x98\x80!", false);
  check("x\xe4\xb8", NULL, 0, "x", false); /* a character that never came whole */
}

static uint32_t seed = 7;
static uint32_t bit(void) {
  return (seed = seed * 1664525u + 1013904223u) >> 31;
}

/* For random texts and stops of two letters what is shown is what a search over the whole text gives. */
static void random_texts(void **state) {
  (void)state;
  for (int round = 0; round < 2000; round++) {
    char text[40], stop[2][6], shown[64];
    const char *const stops[] = {stop[0], stop[1]};
    size_t n = (size_t)round % 33, n_shown, over = n + 1, want = n;
    for (size_t i = 0; i < n; i++) text[i] = "ab"[bit()];
    text[n] = 0;
    for (int k = 0; k < 2; k++) {
      size_t m = 2 + bit() + bit() + bit();
      for (size_t i = 0; i < m; i++) stop[k][i] = "ab"[bit()];
      stop[k][m] = 0;
      const char *at = strstr(text, stop[k]);
      size_t begin = at ? (size_t)(at - text) : n, end = at ? begin + m : n + 1;
      if (end < over || (end == over && begin < want)) over = end, want = begin; /* complete first; of those, begun first */
    }
    bool stopped;
    feed(text, n, stops, 2, shown, &n_shown, &stopped);
    if (n_shown != want || memcmp(shown, text, want))
      fail_msg("'%s', stops '%s' and '%s': %zu, not %zu", text, stop[0], stop[1], n_shown, want);
    assert_int_equal(stopped, over <= n);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(stop_texts), cmocka_unit_test(random_texts)};
  if (tokenizer_open("examples/tiny-moe", &tok) != HF_OK) return 1;
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  tokenizer_close(tok);
  return failed;
}
