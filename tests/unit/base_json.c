/* JSON: what is accepted, what is refused and how the refusal reads, numbers, building, files, failing allocations. */
#include "base/json.h"

#include <dirent.h>
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static json *parsed(const char *text) {
  json *v = NULL;
  if (json_parse(text, strlen(text), "t.json", &v) != HF_OK) fail_msg("%s: %s", text, hf_error_line());
  return v;
}

static void refuse_n(const char *text, size_t n, const char *message) {
  json *v = NULL;
  if (json_parse(text, n, "t.json", &v) == HF_OK) fail_msg("accepted: %s", text);
  assert_null(v);
  if (!strstr(hf_error_line(), message)) fail_msg("'%s' lacks '%s'", hf_error_line(), message);
  assert_int_equal(strncmp(hf_error_line(), "t.json: ", 8), 0);
}

static void refuse(const char *text, const char *message) {
  refuse_n(text, strlen(text), message);
}

static void accepts_every_kind(void **state) {
  (void)state;
  json *v = parsed(" {\"a\":[1,-2.5e3,true,false,null,\"\\u00e9\\ud83d\\ude00\\n\\/\"],\"b\":{},\"c\":[],\"d\":0}\r\n\t");
  assert_int_equal(json_type(v), JSON_OBJECT);
  assert_int_equal(json_len(v), 4);
  const json *a = json_get(v, "a");
  assert_int_equal(json_len(a), 6);
  assert_string_equal(json_string(json_at(a, 5)), "\xc3\xa9\xf0\x9f\x98\x80\n/");
  static const json_kind kinds[] = {JSON_NUMBER, JSON_NUMBER, JSON_BOOL, JSON_BOOL, JSON_NULL, JSON_STRING};
  int i = 0;
  for (const json *e = json_first(a); e; e = json_next(e)) {
    assert_string_equal(json_key(e), "");
    assert_int_equal(json_type(e), kinds[i++]);
  }
  assert_int_equal(i, 6);
  assert_true(json_number(json_at(a, 1), 0) == -2500);
  assert_true(json_number(json_at(a, 2), 7) == 7);
  assert_null(json_at(a, 6));
  assert_null(json_at(a, -1));
  assert_string_equal(json_key(json_next(json_first(v))), "b");
  assert_null(json_get(v, "A"));
  assert_null(json_get(a, "a"));
  assert_null(json_get(NULL, "a"));
  assert_null(json_string(a));
  assert_null(json_first(NULL));
  assert_int_equal(json_len(NULL), 0);
  assert_int_equal(json_type(NULL), JSON_NULL);
  json_free(v);
  json_free(NULL);
}

static void refuses_what_is_no_json(void **state) {
  (void)state;
  refuse("", "line 1: the text ends where a value is expected");
  refuse("{\"a\":1,\n\"b\" 2}", "line 2: ':' is expected here");
  refuse("{\"a\":1\n\n", "line 3: an object is not closed");
  refuse("[1,2", "an array is not closed");
  refuse("[1 2]", "',' or ']'");
  refuse("{\"a\":1]", "',' or '}'");
  refuse("[1,]", "a value is expected");
  refuse("{\"a\":1,}", "a member name");
  refuse("{a:1}", "a member name");
  refuse("{1:1}", "a member name");
  refuse("[1] x", "more text after");
  refuse("[1][2]", "more text after");
  refuse("nul", "a value is expected");
  refuse("True", "a value is expected");
  refuse("NaN", "a value is expected");
  refuse("// c\n1", "a value is expected");
  refuse("\"abc", "not closed");
  refuse("\"a\tb\"", "control character");
  refuse("\"\\x41\"", "unknown escape");
  refuse("\"\\", "not closed");
  refuse("\"\\u12g4\"", "hexadecimal");
  refuse("\"\\ud800\"", "first half");
  refuse("\"\\ud800\\u0041\"", "first half");
  refuse("\"\\udc00\"", "second half");
  refuse("\xef\xbb\xbf{}", "a value is expected"); /* a byte-order mark is no white space in JSON */
  refuse("{\"a\":1,\"b\":{\"c\":[0,{\"x\":1,\"y\":2,\"x\":3}]}}", "field x appears twice");
}

static void refuses_numbers_that_are_none(void **state) {
  (void)state;
  static const char *const bad[] = {"01",  "-",   "+1",   ".5", "1.",    "1.e3",   "1e",
                                    "1e+", "--1", "0x10", "-a", "1e999", "-1e999", "1_0"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refuse(bad[i], "t.json: line 1: ");
  char digits[71];
  memset(digits, '1', 70);
  digits[70] = '\0';
  refuse(digits, "60 characters");
}

static void refuses_nul_and_broken_utf8(void **state) {
  (void)state;
  refuse_n("{\"a\":\"x\0y\"}", 11, "NUL");
  refuse_n("[1]\0", 4, "NUL");
  refuse_n("[\0]", 3, "NUL");
  refuse("\"\\u0000\"", "NUL");
  refuse("{\"\\u0000\":1}", "NUL");
  static const char *const bad[] = {"\xff",         "\x80",     "\xc0\xaf",         "\xc1\xbf",         "\xe0\x80\x80",
                                    "\xed\xa0\x80", "\xe2\x82", "\xf0\x80\x80\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char text[16];
    snprintf(text, sizeof text, "\"%s\"", bad[i]);
    refuse(text, "UTF-8");
  }
  json_free(parsed("\"\xf4\x8f\xbf\xbf\xee\x80\x80\xed\x9f\xbf\""));
}

static void depth_is_limited(void **state) {
  (void)state;
  char text[3 * 100000];
  for (int depth = 63; depth <= 66; depth++) {
    memset(text, '[', (size_t)depth);
    memset(text + depth, ']', (size_t)depth);
    text[2 * depth] = '\0';
    if (depth <= JSON_MAX_DEPTH) json_free(parsed(text));
    else refuse(text, "nested more than 64 deep");
  }
  memset(text, '[', sizeof text);
  refuse_n(text, sizeof text, "nested more than 64 deep");
  size_t n = 0;
  for (int i = 0; i < 50000; i++, n += 5) memcpy(text + n, "{\"a\":", 5);
  refuse_n(text, n, "nested more than 64 deep");
}

/* "[0,0,0,...]": two bytes of text would become a node of a hundred. */
static void values_are_counted_before_memory_is_asked_for(void **state) {
  (void)state;
  size_t n = 2 * (size_t)JSON_MAX_VALUES + 2;
  char *text = malloc(n);
  assert_non_null(text);
  memset(text, ',', n);
  for (size_t i = 1; i < n; i += 2) text[i] = '0';
  text[0] = '[';
  text[n - 1] = ']';
  long before = hf_alloc_count();
  json *doc = NULL;
  assert_int_equal(json_parse(text, n, "big.json", &doc), HF_INPUT);
  assert_string_equal(hf_error_line(), "big.json: line 1: more than 8388608 values");
  assert_int_equal(hf_alloc_count(), before);
  free(text);
}

static void getters_name_what_is_wrong(void **state) {
  (void)state;
  json *v = parsed("{\"i\":7,\"f\":1.5,\"s\":\"x\",\"b\":true,\"n\":null,\"big\":1e300,\"o\":{}}");
  int64_t i = -1;
  double d = -1;
  const char *s = NULL;
  bool b = false;
  assert_int_equal(json_get_int(v, "c", "i", 0, 10, &i), HF_OK);
  assert_int_equal(i, 7);
  assert_int_equal(json_get_num(v, "c", "f", 0, 10, &d), HF_OK);
  assert_true(d == 1.5);
  assert_int_equal(json_get_str(v, "c", "s", &s), HF_OK);
  assert_string_equal(s, "x");
  assert_int_equal(json_get_bool(v, "c", "b", &b), HF_OK);
  assert_true(b);
  assert_int_equal(json_get_int(v, "c.json", "i", 8, 10, &i), HF_INPUT);
  assert_string_equal(hf_error_line(), "c.json: field i: 7 is below the least allowed, 8");
  assert_int_equal(json_get_int(v, "c", "i", 0, 6, &i), HF_INPUT);
  assert_string_equal(hf_error_line(), "c: field i: 7 is above the most allowed, 6");
  assert_int_equal(json_get_int(v, "c", "f", 0, 10, &i), HF_INPUT);
  assert_string_equal(hf_error_line(), "c: field f: 1.5 where a whole number is expected");
  assert_int_equal(json_get_int(v, "c", "big", 0, INT64_MAX, &i), HF_INPUT);
  assert_int_equal(json_get_int(v, "c", "s", 0, 10, &i), HF_INPUT);
  assert_string_equal(hf_error_line(), "c: field s: a string where a whole number is expected");
  assert_int_equal(json_get_int(v, "c", "none", 0, 10, &i), HF_INPUT);
  assert_string_equal(hf_error_line(), "c: field none is missing (a whole number is expected)");
  assert_int_equal(json_get_num(v, "c", "f", 2, 10, &d), HF_INPUT);
  assert_int_equal(json_get_num(v, "c", "f", 0, 1, &d), HF_INPUT);
  assert_int_equal(json_get_str(v, "c", "o", &s), HF_INPUT);
  assert_int_equal(json_get_bool(v, "c", "i", &b), HF_INPUT);
  assert_int_equal(json_get_str(json_get(v, "i"), "c", "x", &s), HF_INPUT);
  assert_int_equal(json_get_str(NULL, "c", "x", &s), HF_INPUT);
  assert_int_equal(i, 7);
  i = 3;
  assert_int_equal(json_opt_int(v, "c", "none", 0, 10, &i), HF_OK);
  assert_int_equal(json_opt_int(v, "c", "n", 0, 10, &i), HF_OK);
  assert_int_equal(i, 3);
  assert_int_equal(json_opt_int(v, "c", "s", 0, 10, &i), HF_INPUT);
  assert_int_equal(json_opt_num(v, "c", "f", 0, 10, &d), HF_OK);
  assert_int_equal(json_opt_str(v, "c", "i", &s), HF_INPUT);
  assert_int_equal(json_opt_bool(v, "c", "n", &b), HF_OK);
  assert_int_equal(json_opt_bool(v, "c", "f", &b), HF_INPUT);
  assert_int_equal(json_opt_bool(json_get(v, "i"), "c", "f", &b), HF_INPUT);
  json_free(v);
}

static void numbers_survive_printing(void **state) {
  (void)state;
  static const double values[] = {0.1,
                                  1.0 / 3,
                                  5e-324,
                                  DBL_MAX,
                                  DBL_MIN,
                                  9007199254740991.0,
                                  9007199254740992.0,
                                  -9007199254740991.0,
                                  1e15,
                                  123456789012345680.0,
                                  1e22,
                                  0.30000000000000004,
                                  1.0000000000000002,
                                  -0.0,
                                  2.5};
  for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
    json *a = json_new_array();
    assert_non_null(json_add_num(a, NULL, values[i]));
    char *text = NULL;
    assert_int_equal(json_print(a, false, &text), HF_OK);
    json *back = parsed(text);
    double d = json_number(json_first(back), 0);
    if (memcmp(&d, &values[i], sizeof d) != 0) fail_msg("%a became %s", values[i], text);
    json_free(a);
    json_free(back);
    free(text);
  }
}

static void building_and_printing(void **state) {
  (void)state;
  json *o = json_new_object();
  json_add_int(o, "n", 12);
  json_add_num(o, "x", 0.1);
  json_add_num(o, "inf", INFINITY);
  json_add_str(o, "s", "q\"\\\n\x01\xff\xc3\xa9");
  json_add_str(o, "none", NULL);
  json_add_bool(o, "yes", true);
  json *a = json_add_array(o, "a");
  json_add_int(a, NULL, 1);
  json_add_null(a, NULL);
  json *inner = json_add_object(json_add_array(o, "deep"), NULL);
  json_add_copy(inner, "copy", a);
  json_add_object(o, "e");
  char *text = NULL;
  assert_int_equal(json_print(o, false, &text), HF_OK);
  assert_string_equal(text, "{\"n\":12,\"x\":0.1,\"inf\":null,\"s\":\"q\\\"\\\\\\n\\u0001\xef\xbf\xbd\xc3\xa9\",\"none\":null,"
                            "\"yes\":true,\"a\":[1,null],\"deep\":[{\"copy\":[1,null]}],\"e\":{}}");
  free(text);
  assert_int_equal(json_print(json_get(o, "deep"), true, &text), HF_OK);
  assert_string_equal(text, "[\n  {\n    \"copy\": [1, null]\n  }\n]");
  free(text);
  json_free(o);
}

static void misuse_shows_when_printing(void **state) {
  (void)state;
  char *text = NULL;
  json *o = json_new_object();
  json *a = json_add_array(o, "a");
  assert_null(json_add_int(a, "key", 1)); /* a member of an array */
  assert_int_equal(json_print(o, false, &text), HF_MACHINE);
  json_free(o);
  o = json_new_object();
  assert_null(json_add_int(o, NULL, 1));
  assert_null(json_add_copy(o, "x", NULL));
  assert_null(json_add_object(json_add_array(NULL, "x"), NULL));
  assert_int_equal(json_print(o, false, &text), HF_MACHINE);
  assert_int_equal(json_print(NULL, false, &text), HF_MACHINE);
  assert_null(text);
  json_free(o);
  json *deep = json_new_array(), *at = deep;
  for (int i = 0; i < JSON_MAX_DEPTH; i++) at = json_add_array(at, NULL);
  assert_int_equal(json_print(deep, false, &text), HF_INPUT); /* json_parse would not read it */
  json_free(deep);
}

static hf_status round_trip(char **text) {
  json *v = NULL, *o = NULL;
  hf_status st;
  static const char input[] = "{\"a\":[1,\"two\",{\"b\":null}],\"c\":\"d\"}";
  HF_GO(out, json_parse(input, sizeof input - 1, "t.json", &v));
  o = json_new_object();
  json *list = json_add_array(o, "list");
  for (int i = 0; i < 3; i++) json_add_str(json_add_object(list, NULL), "name", "value");
  json_add_copy(o, "v", v);
  json_add_int(o, "n", 5);
  st = json_print(o, true, text);
out:
  json_free(v);
  json_free(o);
  return st;
}

/* Whichever allocation fails: HF_MACHINE, nothing leaked (the sanitizer build sees to that), and never a document with a hole. */
static void any_allocation_may_fail(void **state) {
  (void)state;
  char *whole = NULL, *text = NULL;
  long before = hf_alloc_count();
  assert_int_equal(round_trip(&whole), HF_OK);
  long calls = hf_alloc_count() - before;
  assert_true(calls > 20);
  for (long n = 1; n <= calls; n++) {
    hf_fail_alloc_at(n);
    hf_status st = round_trip(&text);
    if (st != HF_MACHINE) fail_msg("allocation %ld of %ld: status %d", n, calls, st);
    assert_non_null(strstr(hf_error_line(), "out of memory"));
    assert_null(text);
  }
  hf_fail_alloc_at(0);
  assert_int_equal(round_trip(&text), HF_OK);
  assert_string_equal(text, whole);
  free(text);
  free(whole);
}

static int entries(const char *folder) {
  DIR *d = opendir(folder);
  assert_non_null(d);
  int n = 0;
  while (readdir(d)) n++;
  closedir(d);
  return n - 2;
}

static void files_are_replaced_whole(void **state) {
  (void)state;
  char folder[] = "/tmp/hf-json-XXXXXX", path[64], link_path[64], other[80], *text = NULL;
  size_t n = 0;
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/a.json", folder);
  snprintf(link_path, sizeof link_path, "%s/link.json", folder);
  snprintf(other, sizeof other, "%s/none/a.json", folder);
  json *v = parsed("{\"a\":1}"), *back = NULL;
  assert_int_equal(json_read_file(path, 1000, &back), HF_NOT_FOUND);
  assert_int_equal(json_write_file(v, path), HF_OK);
  assert_int_equal(hf_read_file(path, 1000, &text, &n), HF_OK);
  assert_string_equal(text, "{\n  \"a\": 1\n}\n");
  assert_int_equal(n, strlen(text));
  free(text);
  assert_int_equal(hf_read_file(path, 5, &text, &n), HF_INPUT);
  assert_int_equal(json_read_file(folder, 1000, &back), HF_INPUT);
  assert_int_equal(json_write_file(v, folder), HF_INPUT);
  assert_int_equal(json_write_file(v, other), HF_NOT_FOUND);
  assert_int_equal(symlink(path, link_path), 0);
  assert_int_equal(hf_write_file(link_path, "[2]", 3), HF_OK); /* through the link */
  struct stat s;
  assert_int_equal(lstat(link_path, &s), 0);
  assert_true(S_ISLNK(s.st_mode));
  assert_int_equal(json_read_file(path, 3, &back), HF_OK); /* exactly at the limit */
  assert_true(json_number(json_first(back), 0) == 2);
  json_free(back);
  assert_int_equal(hf_write_file("/dev/null", "x", 1), HF_OK);
  assert_int_equal(stat("/dev/null", &s), 0);
  assert_true(S_ISCHR(s.st_mode));
  hf_fail_alloc_at(1);
  assert_int_equal(hf_write_file(path, "lost", 4), HF_MACHINE);
  assert_int_equal(hf_read_file(path, 100, &text, &n), HF_OK);
  assert_string_equal(text, "[2]"); /* the old contents */
  free(text);
  assert_int_equal(entries(folder), 2); /* no temporary file is left */
  assert_int_equal(hf_can_write(path), HF_OK);
  assert_int_equal(hf_can_write(link_path), HF_OK);
  assert_int_equal(hf_can_write("/dev/null"), HF_OK);
  assert_int_equal(hf_can_write("name-without-folder"), HF_OK);
  assert_int_equal(hf_can_write(folder), HF_INPUT);
  assert_int_equal(hf_can_write(other), HF_NOT_FOUND);
  snprintf(other, sizeof other, "%s/a.json/b.json", folder); /* no folder, a file */
  assert_int_equal(hf_can_write(other), HF_NOT_FOUND);
  snprintf(other, sizeof other, "%s/new/", folder);
  assert_int_equal(hf_can_write(other), HF_INPUT);
  assert_int_equal(chmod(folder, 0555), 0); /* a file that may be written in a folder where none can be put beside it */
  if (geteuid() != 0) assert_int_equal(hf_can_write(path), HF_INPUT);
  assert_int_equal(chmod(folder, 0755), 0);
  assert_int_equal(hf_write_file("/dev/full", "x", 1), HF_MACHINE);
  assert_int_equal(hf_read_file("/dev/zero", 100000, &text, &n), HF_INPUT); /* endless, stopped by the limit */
  json_free(v);
  unlink(link_path);
  unlink(path);
  rmdir(folder);
}

static void empty_file(void **state) {
  (void)state;
  char *text = NULL;
  size_t n = 1;
  assert_int_equal(hf_read_file("/dev/null", 10, &text, &n), HF_OK);
  assert_int_equal(n, 0);
  assert_string_equal(text, "");
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(accepts_every_kind),
      cmocka_unit_test(refuses_what_is_no_json),
      cmocka_unit_test(refuses_numbers_that_are_none),
      cmocka_unit_test(refuses_nul_and_broken_utf8),
      cmocka_unit_test(depth_is_limited),
      cmocka_unit_test(values_are_counted_before_memory_is_asked_for),
      cmocka_unit_test(getters_name_what_is_wrong),
      cmocka_unit_test(numbers_survive_printing),
      cmocka_unit_test(building_and_printing),
      cmocka_unit_test(misuse_shows_when_printing),
      cmocka_unit_test(any_allocation_may_fail),
      cmocka_unit_test(files_are_replaced_whole),
      cmocka_unit_test(empty_file),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
