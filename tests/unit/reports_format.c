/* Numbers as people read them, and text made safe for HTML, CSV and scripts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "reports/page.h"

#define NBSP "\xc2\xa0"

static void is(double v, rep_format f, const char *want) {
  char got[FORMAT_MAX];
  format_number(v, f, got);
  assert_string_equal(got, want);
}

static void numbers(void **state) {
  (void)state;
  is(0, FMT_INT, "0");
  is(999, FMT_INT, "999");
  is(1000, FMT_INT, "1,000");
  is(-1234567, FMT_INT, "−1,234,567");
  is(NAN, FMT_INT, "–");
  is(INFINITY, FMT_BYTES, "–");
  is(0, FMT_SECONDS, "0" NBSP "s");
  is(0, FMT_NS, "0" NBSP "s");
  is(0.0123, FMT_SECONDS, "12.3" NBSP "ms");
  is(0.9999, FMT_SECONDS, "1.00" NBSP "s");
  is(12500, FMT_NS, "12.5" NBSP "µs");
  is(3.7, FMT_NS, "3.70" NBSP "ns");
  is(999.7, FMT_NS, "1.00" NBSP "µs");
  is(1536, FMT_BYTES, "1.50" NBSP "KiB");
  is(0, FMT_BYTES, "0" NBSP "B");
  is(25769803776.0, FMT_BYTES, "24.0" NBSP "GiB");
  is(21.3e9, FMT_RATE, "21.3" NBSP "GB/s");
  is(0.094, FMT_SIGNED, "+9.4" NBSP "%");
  is(-0.268, FMT_SIGNED, "−26.8" NBSP "%");
  is(-1e-15, FMT_SIGNED, "0.0" NBSP "%"); /* no minus before nothing */
  is(0, FMT_GAP, "0" NBSP "%");
  is(6e-14, FMT_GAP, "<" NBSP "0.0001" NBSP "%");
  is(352256e9, FMT_OPS, "352" NBSP "TOP/s");
  is(8e9, FMT_TRANSFERS, "8.00" NBSP "GT/s");
  is(315, FMT_WATTS, "315" NBSP "W");
  is(4608, FMT_USD, "4,608" NBSP "USD");
  is(0.00034, FMT_GAP, "0.0340" NBSP "%");
  is(0.25, FMT_SHARE, "25.0" NBSP "%");
  is(35.71, FMT_TOK_S, "35.7");
  is(10094.2, FMT_TOK_S, "10,094");
  is(3.14159, FMT_NUM, "3.142");
  is(42, FMT_NUM, "42");
  is(1e300, FMT_NUM, "1e+300");
  is(1e300, FMT_RATE, "1e+288" NBSP "TB/s");
  is(5e-324, FMT_SECONDS, "0.000000000000" NBSP "ns");
}

static void dates(void **state) {
  char out[FORMAT_MAX];
  (void)state;
  format_date(1700000000123456789, out);
  assert_string_equal(out, "2023-11-14 22:13 UTC");
  format_date(0, out);
  assert_string_equal(out, "–");
  format_date(-5, out);
  assert_string_equal(out, "–");
}

typedef hf_status escaper(hf_buf *out, const char *text);

static void escapes(escaper *f, const char *text, const char *want) {
  hf_buf b;
  hf_buf_init(&b, 4096);
  assert_int_equal(f(&b, text), HF_OK);
  assert_string_equal(b.len > 0 ? b.data : "", want);
  hf_buf_free(&b);
}

static void html(void **state) {
  (void)state;
  escapes(html_escape, "", "");
  escapes(html_escape, "plain é", "plain é");
  escapes(html_escape, "<script>alert('x')</script>", "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;");
  escapes(html_escape, "a\"&b", "a&quot;&amp;b");
  escapes(html_escape, "bell\a\x1b[31m\x7f", "bell\xef\xbf\xbd\xef\xbf\xbd[31m\xef\xbf\xbd");
  escapes(html_escape, "two\nlines\t", "two\nlines\t");
}

static void csv(void **state) {
  (void)state;
  escapes(csv_field, "", "");
  escapes(csv_field, "plain", "plain");
  escapes(csv_field, "a,b", "\"a,b\"");
  escapes(csv_field, "say \"no\"", "\"say \"\"no\"\"\"");
  escapes(csv_field, "two\nlines", "\"two\nlines\"");
  escapes(csv_field, "=HYPERLINK(\"x\")", "\"'=HYPERLINK(\"\"x\"\")\"");
  escapes(csv_field, "+1", "\"'+1\"");
  escapes(csv_field, "-1", "\"'-1\"");
  escapes(csv_field, "@x", "\"'@x\"");
  escapes(csv_field, "\tx", "\"'\tx\"");
}

static void script(void **state) {
  (void)state;
  escapes(script_json, "{\"a\":\"</script><!--&\"}", "{\"a\":\"\\u003c/script\\u003e\\u003c!--\\u0026\"}");
  escapes(script_json, "\"\xe2\x80\xa8\xe2\x80\xa9\xe2\x80\x93\"", "\"\\u2028\\u2029\xe2\x80\x93\"");
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(numbers), cmocka_unit_test(dates), cmocka_unit_test(html),
                                     cmocka_unit_test(csv), cmocka_unit_test(script)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
