/* Memory modules from SMBIOS tables that the tests build byte by byte. */
#include "profiler/smbios.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct {
  uint8_t b[8192];
  size_t n;
} table;

static void put(uint8_t *at, uint32_t v, int bytes) {
  for (int i = 0; i < bytes; i++) at[i] = (uint8_t)(v >> (8 * i));
}

/* Header and formatted part of `len` bytes, then strings; returns the structure. */
static uint8_t *add(table *t, int type, int len, const char *strings, size_t n_strings) {
  uint8_t *s = t->b + t->n;
  memset(s, 0, (size_t)len);
  s[0] = (uint8_t)type;
  s[1] = (uint8_t)len;
  memcpy(s + len, strings, n_strings);
  t->n += (size_t)len + n_strings;
  return s;
}

static const char no_strings[2] = {0, 0};
static const char two_strings[] = "DIMM_A1\0BANK 0\0"; /* its own NUL makes the double zero */

typedef struct {
  int len;
  uint32_t size, ext_size, type, detail, speed, ext_speed, configured, ext_configured;
} module;

static void add_module(table *t, module m) {
  int len = m.len ? m.len : 0x5c;
  uint8_t s[0x100] = {0};
  put(s + 0x0c, m.size, 2);
  s[0x12] = (uint8_t)m.type;
  put(s + 0x13, m.detail, 2);
  put(s + 0x15, m.speed, 2);
  put(s + 0x1c, m.ext_size, 4);
  put(s + 0x20, m.configured, 2);
  put(s + 0x54, m.ext_speed, 4);
  put(s + 0x58, m.ext_configured, 4);
  uint8_t *at = add(t, 17, len, two_strings, sizeof two_strings);
  memcpy(at + 4, s + 4, (size_t)len - 4);
}

enum { REGISTERED = 1 << 13 };

static void a_server(void **state) {
  (void)state;
  table t = {.n = 0};
  dimm_list l;
  add(&t, 0, 24, "vendor\0", 8);
  add(&t, 1, 27, no_strings, 2);
  for (int i = 0; i < 4; i++) {
    add_module(
        &t, (module){.size = 0x7fff, .ext_size = 65536, .type = 0x22, .detail = REGISTERED, .speed = 6400, .configured = 5600});
  }
  add_module(&t, (module){.size = 0, .type = 0x02}); /* an empty slot */
  add(&t, 127, 4, no_strings, 2);
  add_module(&t, (module){.size = 1024, .type = 0x1a}); /* behind the end */
  smbios_dimms(t.b, t.n, &l);
  assert_int_equal(l.n_slots, 5);
  assert_int_equal(l.n, 4);
  assert_string_equal(l.v[0].type, "DDR5");
  assert_true(l.v[0].bytes == (int64_t)64 << 30);
  assert_int_equal(l.v[0].rated_mt_s, 6400);
  assert_int_equal(l.v[0].configured_mt_s, 5600);
  assert_true(l.v[0].registered);
  assert_int_equal(l.v[0].mr, DIMM_NOT_MR);
  json *a = json_new_array();
  smbios_to_json(&l, a);
  assert_int_equal(json_len(a), 1);
  assert_true(json_number(json_get(json_first(a), "count"), 0) == 4);
  assert_string_equal(json_string(json_get(json_first(a), "mrdimm")), "no");
  json_free(a);
}

static dimm only(module m) {
  table t = {.n = 0};
  dimm_list l;
  add_module(&t, m);
  smbios_dimms(t.b, t.n, &l);
  assert_int_equal(l.n, 1);
  return l.v[0];
}

static void multiplexed_ranks(void **state) {
  (void)state;
  assert_int_equal(only((module){.size = 0x7fff, .ext_size = 65536, .type = 0x25, .speed = 8800, .configured = 8000}).mr,
                   DIMM_MR);
  assert_string_equal(only((module){.size = 64, .type = 0x25}).type, "DDR5");
  assert_int_equal(only((module){.size = 64, .type = 0x22, .detail = REGISTERED, .speed = 8800, .configured = 8800}).mr,
                   DIMM_MR_BY_SPEED);
  /* a fast desktop module is unbuffered */
  assert_int_equal(only((module){.size = 64, .type = 0x22, .speed = 8800, .configured = 8800}).mr, DIMM_NOT_MR);
  assert_int_equal(only((module){.size = 64, .type = 0x22, .detail = REGISTERED}).mr, DIMM_MR_UNKNOWN);
  assert_int_equal(only((module){.size = 64, .type = 0x77}).mr, DIMM_MR_UNKNOWN);
}

static void sizes_and_speeds(void **state) {
  (void)state;
  assert_true(only((module){.size = 0x8000 | 512, .type = 0x12}).bytes == 512 << 10); /* kilobytes */
  assert_true(only((module){.size = 0xffff, .type = 0x1a}).bytes == 0);               /* unknown */
  assert_true(only((module){.size = 16384, .type = 0x1a}).bytes == (int64_t)16 << 30);
  dimm d = only(
      (module){.size = 64, .type = 0x22, .speed = 0xffff, .ext_speed = 70000, .configured = 0xffff, .ext_configured = 68000});
  assert_int_equal(d.rated_mt_s, 70000);
  assert_int_equal(d.configured_mt_s, 68000);
  /* a table of SMBIOS 2.1 ends before the speeds */
  d = only((module){.len = 0x15, .size = 256, .type = 0x12, .speed = 400, .configured = 333});
  assert_int_equal(d.rated_mt_s, 0);
  assert_int_equal(d.configured_mt_s, 0);
  assert_string_equal(d.type, "DDR");
  json *a = json_new_array();
  dimm_list l = {.n_slots = 1, .n = 1, .v = {d}};
  smbios_to_json(&l, a);
  assert_string_equal(json_string(json_get(json_first(a), "configured_mt_s")), "unknown");
  json_free(a);
}

/* Cut anywhere, or with a length that lies: what was complete before is kept, nothing behind the end is read (the sanitizer
 * sees). */
static void damaged(void **state) {
  (void)state;
  table t = {.n = 0};
  for (int i = 0; i < 3; i++) add_module(&t, (module){.size = 64, .type = 0x22});
  for (size_t n = 0; n <= t.n; n++) {
    uint8_t *copy = malloc(n ? n : 1);
    dimm_list l;
    memcpy(copy, t.b, n);
    smbios_dimms(copy, n, &l);
    assert_true(l.n <= 3 && l.n >= (int)(n / (t.n / 3 + 1)));
    free(copy);
  }
  for (int len = 0; len < 256; len++) {
    dimm_list l;
    t.b[1] = (uint8_t)len;
    smbios_dimms(t.b, t.n, &l);
    assert_true(l.n <= 3);
    if (len < 4) assert_int_equal(l.n, 0);
  }
}

static void more_slots_than_room(void **state) {
  (void)state;
  size_t each = 0x15 + 2, n = 300 * each;
  uint8_t *b = calloc(n, 1);
  for (int i = 0; i < 300; i++) {
    uint8_t *s = b + (size_t)i * each;
    s[0] = 17;
    s[1] = 0x15;
    s[0x0c] = 64;
  }
  dimm_list l;
  smbios_dimms(b, n, &l);
  assert_int_equal(l.n_slots, 300);
  assert_int_equal(l.n, SMBIOS_MAX_DIMMS);
  free(b);
}

static void no_table(void **state) {
  (void)state;
  dimm_list l;
  const char *why = NULL;
  smbios_read("no/such/table", &l, &why);
  assert_int_equal(l.n, 0);
  assert_non_null(why);
  smbios_read("/dev/null", &l, &why);
  assert_non_null(why);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_server), cmocka_unit_test(multiplexed_ranks),    cmocka_unit_test(sizes_and_speeds),
      cmocka_unit_test(damaged),  cmocka_unit_test(more_slots_than_room), cmocka_unit_test(no_table),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
