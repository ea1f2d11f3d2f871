/* Memory modules from SMBIOS tables. All tables here are built by these tests, byte by byte after DSP0134: none was read from a machine. */
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
  uint32_t technology, width;
  const char *device, *bank; /* locators; NULL: none */
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
  put(s + 0x0a, m.width, 2);
  s[0x28] = (uint8_t)m.technology;
  char strings[128];
  size_t n = 0;
  if (m.device) {
    s[0x10] = 1;
    s[0x11] = m.bank ? 2 : 0;
    n += (size_t)snprintf(strings + n, 60, "%s", m.device) + 1;
    if (m.bank) n += (size_t)snprintf(strings + n, 60, "%s", m.bank) + 1;
    strings[n++] = 0;
  }
  uint8_t *at = n ? add(t, 17, len, strings, n) : add(t, 17, len, two_strings, sizeof two_strings);
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
  smbios_dimms(t.b, t.n, false, &l);
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

static dimm only_on(module m, bool xeon6_p) {
  table t = {.n = 0};
  dimm_list l;
  add_module(&t, m);
  smbios_dimms(t.b, t.n, xeon6_p, &l);
  assert_int_equal(l.n, 1);
  return l.v[0];
}

static dimm only(module m) {
  return only_on(m, false);
}

static void multiplexed_ranks(void **state) {
  (void)state;
  /* named: as a type (3.9) or as a technology (3.8), on any CPU and at any speed */
  assert_int_equal(only((module){.size = 0x7fff, .ext_size = 65536, .type = 0x25, .speed = 8800, .configured = 8000}).mr,
                   DIMM_MR);
  assert_string_equal(only((module){.size = 64, .type = 0x25}).type, "DDR5");
  assert_int_equal(only((module){.size = 64, .type = 0x22, .technology = 8, .configured = 6400}).mr, DIMM_MR);
  assert_int_equal(only((module){.size = 64, .type = 0x22, .technology = 3, .configured = 6400}).mr, DIMM_NOT_MR); /* DRAM */
  /* a table of SMBIOS 3.1 ends before the technology: what stands there belongs to the strings */
  assert_int_equal(only((module){.len = 0x28, .size = 64, .type = 0x22, .configured = 5600}).mr, DIMM_NOT_MR);
  /* not named: assumed of registered DDR5 that runs at 8000 MT/s in a Xeon 6 with P-cores, and of nothing else */
  module fast = {.size = 64, .type = 0x22, .detail = REGISTERED, .speed = 8800, .configured = 8800};
  assert_int_equal(only_on(fast, true).mr, DIMM_MR_ASSUMED);
  assert_int_equal(only_on(fast, false).mr, DIMM_NOT_MR);
  fast.configured = 8000;
  assert_int_equal(only_on(fast, true).mr, DIMM_MR_ASSUMED);
  fast.configured = 7200; /* rated 8800, but that is not what it runs at */
  assert_int_equal(only_on(fast, true).mr, DIMM_NOT_MR);
  fast.configured = 0;
  assert_int_equal(only_on(fast, true).mr, DIMM_MR_UNKNOWN);
  /* a fast desktop module is unbuffered */
  assert_int_equal(only_on((module){.size = 64, .type = 0x22, .speed = 8800, .configured = 8800}, true).mr, DIMM_NOT_MR);
  assert_int_equal(only((module){.size = 64, .type = 0x77}).mr, DIMM_MR_UNKNOWN);
}

static void which_cpu(void **state) {
  (void)state;
  assert_true(smbios_is_xeon6_p(
      "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 173\nmodel name\t: Intel(R) Xeon(R) 6787P\n"));
  assert_true(smbios_is_xeon6_p("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 174\n"));
  assert_false(smbios_is_xeon6_p("vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 175\n")); /* E-cores */
  assert_false(smbios_is_xeon6_p("vendor_id\t: AuthenticAMD\ncpu family\t: 6\nmodel\t\t: 173\n"));
  assert_false(smbios_is_xeon6_p("vendor_id\t: GenuineIntel\ncpu family\t: 15\nmodel\t\t: 173\n"));
  assert_false(smbios_is_xeon6_p("model name\t: 173\n"));
  assert_false(smbios_is_xeon6_p(""));
}

static void channels_by_name(void **state) {
  (void)state;
  static const struct {
    const char *device, *bank, *channel;
  } known[] = {{"CPU0_DIMM_A1", "NODE 1", "CPU0_DIMM_A"},
               {"P1-DIMMB2", "P0_Node0_Channel1_Dimm1", "P0_Node0_Channel1"},
               {"P1-DIMMB2", "", "P1-DIMMB"},
               {"DIMM 0", "P0 CHANNEL A", "P0 CHANNEL A"},
               {"ChannelB-DIMM1", "BANK 3", "ChannelB"},
               {"A1", "", "A"}},
    unknown[] = {{"DIMM 0", "BANK 0", NULL},   {"DIMM1", "", NULL},      {"", "", NULL}, {"7", "", NULL},
                 {"PROC 1 DIMM 12", "", NULL}, {"SLOT", "CHANNEL", NULL}};
  char out[48];
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
    assert_true(smbios_channel_of(known[i].device, known[i].bank, out, sizeof out));
    assert_string_equal(out, known[i].channel);
  }
  for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
    assert_false(smbios_channel_of(unknown[i].device, unknown[i].bank, out, sizeof out));
  assert_false(smbios_channel_of("", "CHANNEL A", out, 9)); /* no room: no channel rather than half of its name */
}

/* Eight channels of two slots: A and B with two modules, C to G with one, H empty. */
static void board(table *t, dimm_list *l) {
  for (int c = 0; c < 8; c++)
    for (int slot = 1; slot <= 2; slot++) {
      char name[32];
      bool filled = slot == 1 ? c < 7 : c < 2;
      snprintf(name, sizeof name, "CPU0_DIMM_%c%d", 'A' + c, slot);
      add_module(t, (module){.size = filled ? 0x7fff : 0,
                             .ext_size = filled ? 65536 : 0,
                             .type = filled ? 0x22 : 2,
                             .detail = REGISTERED,
                             .speed = filled ? 6400 : 0,
                             .configured = filled ? 5200 : 0,
                             .width = 64,
                             .device = name,
                             .bank = "NODE 0"});
    }
  smbios_dimms(t->b, t->n, false, l);
}

static void channels_of_a_board(void **state) {
  (void)state;
  static table t;
  static dimm_list l;
  t.n = 0;
  board(&t, &l);
  assert_int_equal(l.n_slots, 16);
  assert_int_equal(l.n, 9);
  assert_int_equal(l.n_channels, 8);
  assert_int_equal(l.empty_channels, 1);
  assert_int_equal(l.crowded_channels, 2);
  assert_true(smbios_bytes_per_s(&l) == 7 * 5200e6 * 8); /* what it runs at, not what is printed on it */
  json *a = json_new_array();
  smbios_remarks(&l, a);
  assert_int_equal(json_len(a), 3);
  assert_non_null(strstr(json_string(json_at(a, 0)), "1 of 8 memory channels are empty"));
  assert_non_null(strstr(json_string(json_at(a, 1)), "2 of 8 memory channels hold two modules"));
  assert_non_null(strstr(json_string(json_at(a, 2)), "9 of 9 modules run below their rated speed"));
  json_free(a);
  l.v[3].configured_mt_s = 4800;
  assert_true(smbios_bytes_per_s(&l) == 0);
  a = json_new_array();
  smbios_remarks(&l, a);
  assert_non_null(strstr(json_string(json_at(a, 3)), "unequal speeds, 4800 to 5200 MT/s"));
  json_free(a);
}

/* Sixteen slots "A1" to "A16" are a socket's, not a channel's; a slot without a name leaves all of them open. */
static void names_that_do_not_tell(void **state) {
  (void)state;
  static table t;
  static dimm_list l;
  t.n = 0;
  for (int i = 0; i < 4; i++) {
    char name[16];
    snprintf(name, sizeof name, "A%d", i + 1);
    add_module(&t, (module){.size = 1024, .type = 0x22, .device = name});
  }
  smbios_dimms(t.b, t.n, false, &l);
  assert_int_equal(l.n_channels, 0);
  t.n = 0;
  add_module(&t, (module){.size = 1024, .type = 0x22, .device = "DIMM_A1"});
  add_module(&t, (module){.size = 1024, .type = 0x22, .device = "DIMM 7"});
  smbios_dimms(t.b, t.n, false, &l);
  assert_int_equal(l.n_channels, 0);
  assert_true(smbios_bytes_per_s(&l) == 0);
  json *a = json_new_array();
  smbios_remarks(&l, a);
  assert_int_equal(json_len(a), 0);
  json_free(a);
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
    smbios_dimms(copy, n, true, &l);
    assert_true(l.n <= 3 && l.n >= (int)(n / (t.n / 3 + 1)));
    free(copy);
  }
  for (int len = 0; len < 256; len++) {
    dimm_list l;
    t.b[1] = (uint8_t)len;
    smbios_dimms(t.b, t.n, false, &l);
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
  smbios_dimms(b, n, false, &l);
  assert_int_equal(l.n_slots, 300);
  assert_int_equal(l.n, SMBIOS_MAX_DIMMS);
  free(b);
}

static void no_table(void **state) {
  (void)state;
  dimm_list l;
  const char *why = NULL;
  smbios_read("no/such/table", false, &l, &why);
  assert_int_equal(l.n, 0);
  assert_non_null(why);
  smbios_read("/dev/null", false, &l, &why);
  assert_non_null(why);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_server),
      cmocka_unit_test(multiplexed_ranks),
      cmocka_unit_test(which_cpu),
      cmocka_unit_test(channels_by_name),
      cmocka_unit_test(channels_of_a_board),
      cmocka_unit_test(names_that_do_not_tell),
      cmocka_unit_test(sizes_and_speeds),
      cmocka_unit_test(damaged),
      cmocka_unit_test(more_slots_than_room),
      cmocka_unit_test(no_table),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
