/* Machines from parts: text and back, what is filled in, what is refused, changes, and the rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "db/catalog.h"

static void ok(hf_status st) {
  if (st != HF_OK) fail_msg("%s", hf_error_line());
}

static void fails_with(hf_status st, hf_status want, const char *part) {
  assert_int_equal(st, want);
  if (strstr(hf_error_line(), part) == NULL) fail_msg("'%s' is not in '%s'", part, hf_error_line());
}

static catalog_parts parse(const char *text) {
  catalog_parts p;
  ok(catalog_parts_parse(text, &p));
  return p;
}

static catalog_machine compose(const catalog_parts *p) {
  catalog_machine m;
  ok(catalog_compose(p, &m));
  return m;
}

static const rec_figure *maybe(const catalog_machine *m, const char *device, const char *what) {
  for (int i = 0; i < m->n_figure; i++) {
    if (strcmp(m->figure[i].device, device) == 0 && strcmp(m->figure[i].what, what) == 0) return &m->figure[i];
  }
  return NULL;
}

static double likely(const catalog_machine *m, const char *device, const char *what) {
  const rec_figure *f = maybe(m, device, what);
  if (f == NULL) fail_msg("%s: no figure %s of '%s'", m->machine.name, what, device);
  return f->likely;
}

static void close_to(double have, double want) {
  if (fabs(have - want) > 1e-9 * fabs(want)) fail_msg("%.17g is not %.17g", have, want);
}

static double price(const char *kind, const char *name, const char *key) {
  catalog_value v;
  ok(catalog_fact(kind, name, key, &v));
  assert_true(v.low <= v.likely && v.likely <= v.high);
  return v.likely;
}

static void text_is_canonical(void **state) {
  (void)state;
  static const struct {
    const char *text, *canonical;
  } cases[] = {
      {"cpu=6787p", "cpu=xeon-6787p,memory=mrdimm-8000,dimm=64G"},
      {"CPU=XEON-6787P,sockets=2,memory=mrdimm-8000,dimm=65536M,dpc=1,gpu=none,prior=heteroflow",
       "cpu=xeon-6787p,sockets=2,memory=mrdimm-8000,dimm=64G"},
      {"gpu=4090*2+l40s+rtx4090,cpu=epyc-9654,dimm=ddr5-4800,dimm_bytes=96G,prior=ik-llama-cpp", NULL}, /* dimm is said twice */
      {"gpu=4090*2+l40s+1*rtx4090,cpu=epyc-9654,memory=ddr5-4800,dimm=96G,prior=ik-llama-cpp",
       "cpu=epyc-9654,memory=ddr5-4800,dimm=96G,gpu=rtx4090*3+l40s,prior=ik-llama-cpp"},
      {"cpu=9755,platform=server-2s,platform_price=4000,read=450G,speed=5600",
       "cpu=epyc-9755,memory=ddr5-6400,dimm=64G,platform=server-2s,platform_price=4000,speed=5600000000,read=450000000000"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    catalog_parts p;
    char text[1000], again[1000];
    if (cases[i].canonical == NULL) {
      fails_with(catalog_parts_parse(cases[i].text, &p), HF_INPUT, "said twice");
      continue;
    }
    p = parse(cases[i].text);
    ok(catalog_parts_text(&p, text, sizeof text));
    assert_string_equal(text, cases[i].canonical);
    catalog_parts q = parse(text);
    ok(catalog_parts_text(&q, again, sizeof again));
    assert_string_equal(again, text);
    assert_memory_equal(&p, &q, sizeof p);
    fails_with(catalog_parts_text(&p, again, strlen(text)), HF_INPUT, "room for");
  }
}

static void bad_texts_say_what_is_wrong(void **state) {
  (void)state;
  static const struct {
    const char *text;
    hf_status want;
    const char *error;
  } bad[] = {
      {"", HF_INPUT, "KEY=VALUE"},
      {"gpu=rtx4090", HF_INPUT, "cpu= is missing"},
      {"cpu=xeon-6787q", HF_NOT_FOUND, "did you mean 'xeon-6787p'"},
      {"cpu=xeon-6787p,gpu=rtx4091", HF_NOT_FOUND, "did you mean"},
      {"cpu=xeon-6787p,prior=magic", HF_NOT_FOUND, "no 'magic'"},
      {"cpu=xeon-6787p,platform=tower", HF_NOT_FOUND, "platforms"},
      {"cpu=xeon-6787p,memory=ddr9", HF_NOT_FOUND, "no 'ddr9'"},
      {"cpu=xeon-6787p,memry=mrdimm-8000", HF_INPUT, "did you mean 'memory'"},
      {"cpu=xeon-6787p,sockets=3", HF_INPUT, "from 1 to 2"},
      {"cpu=xeon-6787p,sockets=-1", HF_INPUT, "from 1 to 2"},
      {"cpu=xeon-6787p,sockets=2x", HF_INPUT, "from 1 to 2"},
      {"cpu=xeon-6787p,sockets", HF_INPUT, "no KEY=VALUE"},
      {"cpu=xeon-6787p,,sockets=2", HF_INPUT, "no KEY=VALUE"},
      {"cpu=xeon-6787p,dpc=2,memory=mrdimm-8000", HF_INPUT, "does not take it at 2 per channel; it takes ddr5"},
      {"cpu=epyc-9755,memory=mrdimm-8800", HF_INPUT, "does not take it"},
      {"cpu=xeon-6787p,dimm=9T", HF_INPUT, "1G to 4T"},
      {"cpu=xeon-6787p,dimm=0", HF_INPUT, "1G to 4T"},
      {"cpu=xeon-6787p,dimm=nan", HF_NOT_FOUND, "no 'nan'"},
      {"cpu=xeon-6787p,gpu=rtx4090*9", HF_INPUT, "from 1 to 8"},
      {"cpu=xeon-6787p,gpu=rtx4090*5+l40s*4", HF_INPUT, "at most 8"},
      {"cpu=xeon-6787p,gpu=rtx4090+", HF_INPUT, "empty name"},
      {"cpu=xeon-6787p,gpu=", HF_INPUT, "gpu="},
      {"cpu=xeon-6787p,read=inf", HF_INPUT, "read=inf"},
      {"cpu=xeon-6787p,read=-5G", HF_INPUT, "read=-5G"},
      {"cpu=xeon-6787p,read=1e99", HF_INPUT, "read=1e99"},
      {"cpu=xeon-6787p,platform_price=nan", HF_INPUT, "platform_price=nan"},
      {"cpu=xeon-6787p,machine=paced-desk", HF_INPUT, "machine= comes first"},
      {"machine=paced-desk", HF_UNSUPPORTED, "stated rows"},
      {"machine=nowhere", HF_NOT_FOUND, "no 'nowhere'"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    catalog_parts p = {.sockets = 77};
    hf_status st = catalog_parts_parse(bad[i].text, &p);
    if (st != bad[i].want) fail_msg("'%s': status %d: %s", bad[i].text, st, st == HF_OK ? "" : hf_error_line());
    fails_with(st, bad[i].want, bad[i].error);
    assert_int_equal(p.sockets, 77); /* untouched */
  }
  char longest[2000];
  memset(longest, 'a', sizeof longest - 1);
  longest[sizeof longest - 1] = 0;
  catalog_parts p;
  fails_with(catalog_parts_parse(longest, &p), HF_INPUT, "longer than");
}

static void contradictions_are_refused_when_composed(void **state) {
  (void)state;
  static const struct {
    const char *text, *error;
  } bad[] = {
      {"cpu=xeon-6787p,dimm=2T", "come with 32, 48, 64, 96, 128 or 256 GiB"},
      {"cpu=xeon-6338,dimm=48G", "modules of ddr4-3200 come with 8, 16, 32, 64, 128 or 256 GiB"},
      {"cpu=epyc-7763,memory=ddr4-3200,dimm=96G", "come with 8, 16"},
      {"cpu=epyc-9654,sockets=2,platform=server-1s", "takes 1 socket, not 2"},
      {"cpu=epyc-9654,gpu=rtx4090*5,platform=server-1s", "takes at most 4"},
      {"cpu=xeon-6787p,platform=desktop", "platform desktop is for CPUs of class desktop; xeon-6787p is one of class server"},
      {"cpu=ryzen-9950x,gpu=h100-sxm", "GPU modules sit on baseboards of servers"},
      {"cpu=ryzen-9950x,gpu=rtx4090*3", "takes at most 2"},
      {"cpu=xeon-6787p,read=900G", "channels and dies give at most"},
      {"cpu=xeon-6787p,speed=30000", "no rate that modules"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    catalog_parts p = parse(bad[i].text);
    catalog_machine m = {.n_figure = 77};
    fails_with(catalog_compose(&p, &m), HF_INPUT, bad[i].error);
    assert_int_equal(m.n_figure, 77);
  }
  catalog_parts p = parse("cpu=xeon-6787p,gpu=rtx4090");
  catalog_machine m;
  p.gpu[0].count = -3;
  fails_with(catalog_compose(&p, &m), HF_INPUT, "gpu=rtx4090*-3");
}

static void rows_are_those_of_the_catalog_machine(void **state) {
  (void)state;
  catalog_machine a, b;
  catalog_parts p;
  ok(catalog_parts_of("xeon6-mrdimm-rtx4090", &p));
  assert_string_equal(p.name, "xeon6-mrdimm-rtx4090");
  b = compose(&p);
  ok(catalog_machine_build("xeon6-mrdimm-rtx4090", &a));
  assert_string_equal(b.machine.name, a.machine.name);
  assert_int_equal(a.n_figure, b.n_figure);
  for (int i = 0; i < a.n_figure; i++) {
    assert_string_equal(a.figure[i].what, b.figure[i].what);
    close_to(b.figure[i].likely, a.figure[i].likely);
  }
  assert_int_equal(a.n_link, b.n_link);
  assert_memory_equal(a.link, b.link, (size_t)a.n_link * sizeof *a.link);
  assert_int_equal(a.n_device, 3);
  catalog_machine_free(&a);
  catalog_machine_free(&b);
}

static void every_machine_of_the_catalog_has_parts_or_rows(void **state) {
  (void)state;
  char **names;
  int n, with_parts = 0;
  ok(catalog_names("machines", &names, &n));
  for (int i = 0; i < n; i++) {
    catalog_parts p;
    hf_status st = catalog_parts_of(names[i], &p);
    if (st == HF_UNSUPPORTED) continue;
    ok(st);
    catalog_machine m = compose(&p);
    assert_true(likely(&m, "", "price_usd") > 0);
    catalog_machine_free(&m);
    with_parts++;
  }
  assert_true(with_parts >= 8);
  free(names);
}

static void prices_and_power_add_up(void **state) {
  (void)state;
  catalog_parts p = parse("cpu=epyc-9654,sockets=2,memory=ddr5-4800,dimm=32G,gpu=rtx4090*2+l40s");
  catalog_machine m = compose(&p);
  double want = 2 * price("cpus", "epyc-9654", "price_usd") + 2 * 12 * 32 * price("memory", "ddr5-4800", "price_usd_per_gib") +
                2 * price("gpus", "rtx4090", "price_usd") + price("gpus", "l40s", "price_usd") +
                price("platforms", "server-2s", "price_usd");
  close_to(likely(&m, "", "price_usd"), want);
  want = 2 * (price("cpus", "epyc-9654", "power_active_w") + 12 * price("memory", "ddr5-4800", "power_active_w_per_dimm")) +
         2 * price("gpus", "rtx4090", "power_active_w") + price("gpus", "l40s", "power_active_w") +
         price("platforms", "server-2s", "power_active_w");
  close_to(likely(&m, "", "power_active_w"), want);
  assert_int_equal(m.n_device, 5);
  assert_string_equal(m.device[2].device, "gpu0");
  assert_string_equal(m.device[4].device, "gpu2");
  assert_non_null(strstr(m.device[4].name, "L40S"));
  assert_true(m.device[0].mem_bytes == (int64_t)12 * 32 << 30);
  assert_int_equal(m.machine.kind, MACHINE_WHATIF);
  assert_non_null(strstr(m.machine.facts_json, "2 x AMD EPYC 9654, 24 x 32 GiB"));
  catalog_machine_free(&m);
  ok(catalog_parts_set(&p, "platform_price", "4321"));
  m = compose(&p);
  close_to(likely(&m, "", "price_platform_usd"), 4321);
  assert_non_null(maybe(&m, "", "power_platform_idle_w"));
  catalog_machine_free(&m);
}

static void lanes_are_shared_when_they_are_short(void **state) {
  (void)state;
  catalog_parts p = parse("cpu=xeon-6787p,gpu=rtx4090*4,memory=ddr5-6400");
  catalog_machine four = compose(&p);
  ok(catalog_parts_set(&p, "gpu", "rtx4090*8"));
  ok(catalog_parts_set(&p, "platform", "server-gpu"));
  catalog_machine eight = compose(&p); /* 128 lanes wanted, 88 there */
  close_to(likely(&eight, "gpu7", "pcie_theoretical_bytes_per_s"), likely(&four, "gpu0", "pcie_theoretical_bytes_per_s") / 2);
  assert_non_null(strstr(eight.machine.facts_json, "1/2 of its lanes"));
  assert_null(strstr(four.machine.facts_json, "of its lanes"));
  catalog_machine_free(&four);
  catalog_machine_free(&eight);
}

static void cards_without_our_programs_say_so(void **state) {
  (void)state;
  catalog_parts p = parse("cpu=epyc-9655,gpu=w7900");
  catalog_machine m = compose(&p);
  assert_non_null(strstr(m.machine.facts_json, "AMD Radeon PRO W7900 runs ROCm programs; this project has none"));
  catalog_machine_free(&m);
}

static void stated_bandwidth_and_speed(void **state) {
  (void)state;
  catalog_parts p = parse("cpu=epyc-9654,memory=ddr5-6400,read=400G");
  catalog_machine m = compose(&p);
  close_to(likely(&m, "cpu", "dram_stated_read_bytes_per_s"), 400e9);
  close_to(likely(&m, "cpu0", "dram_theoretical_bytes_per_s"), 12 * 8 * 4800e6);
  assert_non_null(strstr(m.machine.facts_json, "runs at 4800 MT/s"));
  catalog_machine_free(&m);
  ok(catalog_parts_set(&p, "speed", "6400"));
  m = compose(&p);
  close_to(likely(&m, "cpu0", "dram_theoretical_bytes_per_s"), 12 * 8 * 6400e6);
  assert_non_null(strstr(m.machine.facts_json, "as stated, above the 4800"));
  catalog_machine_free(&m);
}

/* Two dies cannot read what twelve channels deliver; sixteen can. */
static void few_dies_read_less(void **state) {
  (void)state;
  catalog_parts p = parse("cpu=epyc-9115,sockets=2");
  catalog_machine m = compose(&p);
  close_to(likely(&m, "cpu0", "dram_theoretical_bytes_per_s"), 256e9);
  close_to(likely(&m, "cpu", "dram_theoretical_bytes_per_s"), 512e9);
  const rec_figure *f = maybe(&m, "cpu0", "dram_theoretical_bytes_per_s");
  if (f == NULL) fail_msg("no figure of cpu0");
  else assert_true(f->low < f->likely && f->likely < f->high && f->tag == TAG_ASSUMED && strstr(f->source, "dies") != NULL);
  assert_non_null(strstr(m.machine.facts_json, "dies"));
  catalog_machine_free(&m);
  p = parse("cpu=epyc-9115,memory=ddr5-4800,dpc=2,dimm=64G"); /* slow memory, still more than the dies */
  m = compose(&p);
  assert_true(likely(&m, "cpu0", "dram_theoretical_bytes_per_s") <= 256e9);
  catalog_machine_free(&m);
  p = parse("cpu=epyc-9755");
  m = compose(&p);
  close_to(likely(&m, "cpu0", "dram_theoretical_bytes_per_s"), 12 * 8 * 6400e6);
  catalog_machine_free(&m);
}

static void changes(void **state) {
  (void)state;
  catalog_parts p;
  char text[1000];
  ok(catalog_parts_of("xeon6-mrdimm-rtx4090", &p));
  ok(catalog_parts_set(&p, "gpus", "rtx5090"));
  assert_string_equal(p.name, "");
  assert_string_equal(p.gpu[0].gpu, "rtx5090");
  assert_int_equal(p.n_gpu_kinds, 1);
  ok(catalog_parts_set(&p, "sockets", "1"));
  ok(catalog_parts_set(&p, "dimm", "ddr5-6400"));
  ok(catalog_parts_set(&p, "dimm", "96G"));
  ok(catalog_parts_set(&p, "memory", "mrdimm-8000"));
  ok(catalog_parts_text(&p, text, sizeof text));
  assert_string_equal(text, "cpu=xeon-6787p,memory=mrdimm-8000,dimm=96G,gpu=rtx5090");
  assert_string_equal(p.note, "");
  ok(catalog_parts_set(&p, "platform", "server-2s"));
  ok(catalog_parts_set(&p, "gpu", "l40s*4"));
  assert_string_equal(p.platform, "server-2s");
  ok(catalog_parts_set(&p, "gpu", "l40s*5"));
  assert_string_equal(p.platform, ""); /* takes four */
  /* a CPU that does not take MRDIMM: its fastest memory, and a note */
  ok(catalog_parts_set(&p, "cpu", "epyc-9654"));
  assert_string_equal(p.memory, "ddr5-4800");
  assert_non_null(strstr(p.note, "memory ddr5-4800 instead of mrdimm-8000"));
  catalog_machine m = compose(&p);
  assert_non_null(strstr(m.machine.facts_json, "instead of mrdimm-8000"));
  catalog_machine_free(&m);
  catalog_parts before = p;
  fails_with(catalog_parts_set(&p, "gpu", "rtx4090*99"), HF_INPUT, "1 to 8");
  fails_with(catalog_parts_set(&p, "cpu", "epyc-9999"), HF_NOT_FOUND, "did you mean");
  fails_with(catalog_parts_set(&p, "dimm", "mrdimm-8800"), HF_INPUT, "does not take");
  fails_with(catalog_parts_set(&p, "colour", "red"), HF_INPUT, "no 'colour'");
  assert_memory_equal(&p, &before, sizeof p);
  assert_true(catalog_parts_has_key("dimms_per_channel") && !catalog_parts_has_key("users"));
  assert_true(catalog_parts_is_text("cpu=x") && !catalog_parts_is_text("xeon=6") && !catalog_parts_is_text("a.json"));
}

static void memory_options_are_sorted(void **state) {
  (void)state;
  catalog_memory_option *o;
  int n;
  ok(catalog_memory_options("xeon-6787p", 1, &o, &n));
  assert_true(n >= 4);
  assert_string_equal(o[0].name, "mrdimm-8000");
  for (int i = 1; i < n; i++) assert_true(o[i].transfers_per_s <= o[i - 1].transfers_per_s);
  free(o);
  ok(catalog_memory_options("xeon-6787p", 4, &o, &n));
  assert_int_equal(n, 0);
  free(o);
}

static void text_is_a_machine_everywhere(void **state) {
  (void)state;
  char folder[] = "/tmp/hf-parts-XXXXXX", path[64];
  db *d;
  rec_machine a, b, c;
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/t.db", folder);
  ok(db_open(path, true, &d));
  ok(catalog_machine_to_db(d, "cpu=xeon-6787p,gpu=rtx4090", &a));
  ok(catalog_machine_to_db(d, "gpu=4090,cpu=6787p,sockets=1", &b));
  ok(catalog_machine_to_db(d, "machine=xeon6-mrdimm-rtx4090,gpu=rtx4090*2,name=two cards", &c));
  assert_true(a.id == b.id && c.id != a.id);
  assert_string_equal(a.name, "cpu=xeon-6787p,memory=mrdimm-8000,dimm=64G,gpu=rtx4090");
  assert_string_equal(c.name, "two cards");
  db_close(d);
  unlink(path);
  rmdir(folder);
}

static void *compose_many(void *arg) {
  catalog_parts p = *(const catalog_parts *)arg;
  for (int i = 0; i < 50; i++) {
    catalog_machine m;
    if (catalog_parts_set(&p, "gpu", i % 2 ? "rtx5090" : "l40s*2") != HF_OK || catalog_compose(&p, &m) != HF_OK) return arg;
    catalog_machine_free(&m);
  }
  return NULL;
}

static void two_threads_compose(void **state) {
  (void)state;
  catalog_parts p = parse("cpu=xeon-6787p");
  pthread_t t[2];
  for (int i = 0; i < 2; i++) assert_int_equal(pthread_create(&t[i], NULL, compose_many, &p), 0);
  for (int i = 0; i < 2; i++) {
    void *failed;
    assert_int_equal(pthread_join(t[i], &failed), 0);
    assert_null(failed);
  }
}

static void no_allocation_failure_crashes(void **state) {
  (void)state;
  catalog_parts p = parse("cpu=xeon-6787p,gpu=rtx4090");
  for (long n = 1;; n++) {
    catalog_machine m;
    hf_fail_alloc_at(n);
    hf_status st = catalog_compose(&p, &m);
    hf_fail_alloc_at(0);
    if (st == HF_OK) {
      catalog_machine_free(&m);
      break;
    }
    assert_int_equal(st, HF_MACHINE);
    assert_true(n < 20000);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(text_is_canonical),
      cmocka_unit_test(bad_texts_say_what_is_wrong),
      cmocka_unit_test(contradictions_are_refused_when_composed),
      cmocka_unit_test(rows_are_those_of_the_catalog_machine),
      cmocka_unit_test(every_machine_of_the_catalog_has_parts_or_rows),
      cmocka_unit_test(cards_without_our_programs_say_so),
      cmocka_unit_test(prices_and_power_add_up),
      cmocka_unit_test(lanes_are_shared_when_they_are_short),
      cmocka_unit_test(stated_bandwidth_and_speed),
      cmocka_unit_test(few_dies_read_less),
      cmocka_unit_test(changes),
      cmocka_unit_test(memory_options_are_sorted),
      cmocka_unit_test(text_is_a_machine_everywhere),
      cmocka_unit_test(two_threads_compose),
      cmocka_unit_test(no_allocation_failure_crashes),
  };
  unsetenv("HF_CATALOG");
  return cmocka_run_group_tests_name("machines from parts", tests, NULL, NULL);
}
