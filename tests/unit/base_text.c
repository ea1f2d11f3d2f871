/* UTF-8, printable text and edit distance against what the standards and plain counting say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdbool.h>
#include <string.h>

#include "base/text.h"

/* Every code point encoded by the rule book (RFC 3629), read back. */
static void every_code_point_is_read_back(void **state) {
  (void)state;
  for (uint32_t cp = 1; cp <= 0x110010; cp++) {
    char s[4];
    size_t n;
    if (cp < 0x80) n = 1, s[0] = (char)cp;
    else if (cp < 0x800) n = 2, s[0] = (char)(0xc0 | cp >> 6);
    else if (cp < 0x10000) n = 3, s[0] = (char)(0xe0 | cp >> 12);
    else n = 4, s[0] = (char)(0xf0 | cp >> 18);
    for (size_t i = 1; i < n; i++) s[i] = (char)(0x80 | (cp >> 6 * (n - 1 - i) & 0x3f));
    bool valid = cp <= 0x10ffff && !(cp >= 0xd800 && cp <= 0xdfff);
    uint32_t got = 0;
    assert_int_equal(hf_utf8(s, n, &got), valid ? (int)n : 0);
    if (valid) assert_int_equal(got, cp);
    if (n > 1) assert_int_equal(hf_utf8(s, n - 1, NULL), 0); /* cut short */
  }
}

static void overlong_and_stray_bytes_are_refused(void **state) {
  (void)state;
  static const char *const bad[] = {
      "\x80", "\xbf",  "\xc0\x80",  "\xc1\xbf",     "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf5\x80\x80\x80",
      "\xff", "\xc3(", "\xe2\x82(", "\xf0\x9f\x98("};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) assert_int_equal(hf_utf8(bad[i], strlen(bad[i]), NULL), 0);
  assert_int_equal(hf_utf8("", 0, NULL), 0);
  assert_int_equal(hf_utf8("\0", 1, NULL), 1);
}

static void printable_text_has_no_control_characters(void **state) {
  (void)state;
  char text[] = "a\033[2Jb\nc\td\x7f\xc2\x9b!\xc2\xa0\xc3\xa9\xc2";
  hf_printable(text);
  assert_string_equal(text, "a?[2Jb c d??"
                            "?!\xc2\xa0\xc3\xa9\xc2");
}

static void distances_count_single_changes(void **state) {
  (void)state;
  assert_int_equal(hf_edit_distance("", 0, ""), 0);
  assert_int_equal(hf_edit_distance("kitten", 6, "sitting"), 3);
  assert_int_equal(hf_edit_distance("Users", 5, "users"), 0);
  assert_int_equal(hf_edit_distance("rtx5900", 7, "rtx5090"), 1); /* two neighbours changed places */
  assert_int_equal(hf_edit_distance("ba", 2, "ab"), 1);
  assert_int_equal(hf_edit_distance("abc", 3, "ca"), 3); /* not across an insertion */
  assert_int_equal(hf_edit_distance("abc", 0, "abc"), 3);
  assert_int_equal(hf_edit_distance("users=5", 5, "user"), 1); /* only the first n_a bytes count */
  char longest[HF_EDIT_MAX + 2];
  memset(longest, 'x', sizeof longest);
  longest[HF_EDIT_MAX] = '\0';
  assert_int_equal(hf_edit_distance("", 0, longest), HF_EDIT_MAX);
  assert_int_equal(hf_edit_distance(longest, HF_EDIT_MAX, longest), 0);
  longest[HF_EDIT_MAX] = 'x';
  longest[HF_EDIT_MAX + 1] = '\0';
  assert_int_equal(hf_edit_distance("", 0, longest), HF_EDIT_FAR);
  assert_int_equal(hf_edit_distance(longest, HF_EDIT_MAX + 1, "x"), HF_EDIT_FAR);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_code_point_is_read_back),
      cmocka_unit_test(overlong_and_stray_bytes_are_refused),
      cmocka_unit_test(printable_text_has_no_control_characters),
      cmocka_unit_test(distances_count_single_changes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
