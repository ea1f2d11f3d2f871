/* The catalog: every file parses, every fact says where it comes from, references resolve, machines become the right rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "db/catalog.h"

static const char *const kinds[] = {"cpus", "gpus", "machines", "memory", "models", "priors", "platforms", "links"};
enum { N_KINDS = 8 };

static void ok(hf_status st) {
  if (st != HF_OK) fail_msg("%s", hf_error_line());
}

static void fails_with(hf_status st, hf_status want, const char *part) {
  assert_int_equal(st, want);
  if (strstr(hf_error_line(), part) == NULL) fail_msg("'%s' is not in '%s'", part, hf_error_line());
}

static json *get(const char *kind, const char *name) {
  json *j = NULL;
  ok(catalog_get(kind, name, &j));
  return j;
}

static double number(const char *kind, const char *name, const char *key) {
  json *j = get(kind, name);
  double v = json_number(json_get(json_get(j, key), "value"), -1);
  json_free(j);
  return v;
}

/* ---- the files ---- */

static bool is_date(const char *s) {
  int y, m, d, end = 0;
  return s && sscanf(s, "%4d-%2d-%2d%n", &y, &m, &d, &end) == 3 && end == 10 && s[10] == 0 && y >= 2015 && m >= 1 && m <= 12 &&
         d >= 1 && d <= 31;
}

static int facts_seen;

/* An object with "value" is a fact with unit, source and date. A bare number outside a config must be one of a few counts. */
static void check_node(const json *v, const char *file, const char *key) {
  if (json_type(v) == JSON_OBJECT && json_get(v, "value") != NULL) {
    const char *source = json_string(json_get(v, "source")), *unit = json_string(json_get(v, "unit"));
    if (source == NULL || strlen(source) < 8) fail_msg("%s: %s: no source", file, key);
    if (unit == NULL || *unit == 0) fail_msg("%s: %s: no unit", file, key);
    if (!is_date(json_string(json_get(v, "date")))) fail_msg("%s: %s: no date", file, key);
    double x = json_number(json_get(v, "value"), NAN);
    if (json_type(json_get(v, "value")) != JSON_ARRAY && !(isfinite(x) && x >= 0)) fail_msg("%s: %s: no value", file, key);
    if (json_number(json_get(v, "low"), x) > x || json_number(json_get(v, "high"), x) < x)
      fail_msg("%s: %s: low and high", file, key);
    facts_seen++;
    return;
  }
  if (json_type(v) == JSON_NUMBER && strcmp(key, "sockets") != 0 && strcmp(key, "count") != 0 &&
      strcmp(key, "dimms_per_channel") != 0 && strcmp(key, "cores") != 0) {
    fail_msg("%s: %s is a bare number without a source", file, key);
  }
  if (strcmp(key, "config") == 0) return;
  for (const json *m = json_first(v); m != NULL; m = json_next(m)) check_node(m, file, *json_key(m) ? json_key(m) : key);
}

static void every_file_parses_and_says_its_sources(void **state) {
  (void)state;
  static const int least[N_KINDS] = {40, 40, 9, 20, 40, 1, 6, 8};
  for (int k = 0; k < N_KINDS; k++) {
    char **names, file[200];
    int n;
    ok(catalog_names(kinds[k], &names, &n));
    assert_true(n >= least[k]);
    for (int i = 0; i < n; i++) {
      if (i > 0) assert_true(strcmp(names[i - 1], names[i]) < 0);
      json *j = get(kinds[k], names[i]);
      snprintf(file, sizeof file, "%s/%s", kinds[k], names[i]);
      assert_string_equal(json_string(json_get(j, "name")), names[i]);
      if (json_string(json_get(j, "title")) == NULL) fail_msg("%s: no title", file);
      check_node(j, file, "");
      if (strcmp(kinds[k], "models") == 0 || strcmp(kinds[k], "machines") == 0 || strcmp(kinds[k], "priors") == 0) {
        if (json_string(json_get(j, "source")) == NULL || !is_date(json_string(json_get(j, "date"))))
          fail_msg("%s: no source", file);
      }
      json_free(j);
    }
    free(names);
  }
  assert_true(facts_seen > 250);
}

static void references_resolve(void **state) {
  (void)state;
  char **names;
  int n;
  ok(catalog_names("machines", &names, &n));
  for (int i = 0; i < n; i++) {
    json *m = get("machines", names[i]);
    const char *cpu = json_string(json_get(m, "cpu"));
    if (cpu != NULL) {
      json_free(get("cpus", cpu));
      json_free(get("memory", json_string(json_get(json_get(m, "memory"), "kind"))));
      json_free(get("priors", json_string(json_get(m, "prior"))));
      for (const json *g = json_first(json_get(m, "gpus")); g; g = json_next(g))
        json_free(get("gpus", json_string(json_get(g, "gpu"))));
    } else {
      assert_true(json_len(json_get(m, "figures")) > 0);
    }
    json_free(m);
  }
  free(names);
  ok(catalog_names("priors", &names, &n));
  for (int i = 0; i < n; i++) {
    json *p = get("priors", names[i]);
    const char *base = json_string(json_get(p, "base"));
    if (base != NULL) json_free(get("priors", base));
    json_free(p);
  }
  free(names);
}

static void r1_is_what_its_config_says(void **state) {
  (void)state;
  json *r1 = get("models", "deepseek-r1");
  const json *c = json_get(r1, "config");
  assert_string_equal(json_string(json_get(r1, "default_format")), "q4_k_m");
  assert_int_equal((int)json_number(json_get(c, "n_routed_experts"), 0), 256);
  assert_int_equal((int)json_number(json_get(c, "kv_lora_rank"), 0), 512);
  assert_int_equal((int)json_number(json_get(json_get(c, "rope_scaling"), "factor"), 0), 40);
  json_free(r1);
}

/* ---- looking up ---- */

static void aliases_case_and_suggestions(void **state) {
  (void)state;
  json *j = get("models", "qwen3-30b");
  assert_string_equal(json_string(json_get(j, "name")), "qwen3-30b-a3b");
  json_free(j);
  j = get("gpus", "RTX-4090");
  assert_string_equal(json_string(json_get(j, "name")), "rtx4090");
  json_free(j);
  json *none = NULL;
  fails_with(catalog_get("models", "deepsek-r1", &none), HF_NOT_FOUND, "did you mean 'deepseek-r1'");
  fails_with(catalog_get("machines", "xeon6-mrdim-rtx4090", &none), HF_NOT_FOUND, "did you mean 'xeon6-mrdimm-rtx4090'");
  fails_with(catalog_get("gpus", "zzzzzzzzzzzzzzzz", &none), HF_NOT_FOUND, "hf-plan catalog list gpus names all");
  assert_null(strstr(hf_error_line(), "did you mean"));
  fails_with(catalog_get("models", "../models/deepseek-r1", &none), HF_NOT_FOUND, "no '../models");
  fails_with(catalog_get("models", "", &none), HF_NOT_FOUND, "no ''");
  char longest[5000];
  memset(longest, 'a', sizeof longest - 1);
  longest[sizeof longest - 1] = 0;
  fails_with(catalog_get("models", longest, &none), HF_NOT_FOUND, "aaaa");
  fails_with(catalog_get("hats", "x", &none), HF_INPUT, "no kind 'hats'");
  assert_null(none);
}

static void write_text(const char *dir, const char *name, const char *text) {
  char path[600];
  snprintf(path, sizeof path, "%s/%s", dir, name);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  fputs(text, f);
  assert_int_equal(fclose(f), 0);
}

static char folder[64];

static int make_folder(void **state) {
  (void)state;
  strcpy(folder, "/tmp/hf-catalog-XXXXXX");
  return mkdtemp(folder) == NULL;
}

static int drop_folder(void **state) {
  (void)state;
  char command[100];
  snprintf(command, sizeof command, "rm -r %s", folder);
  unsetenv("HF_CATALOG");
  return system(command);
}

static void own_folder_adds_and_overrides(void **state) {
  (void)state;
  char sub[200];
  int before, after;
  char **names;
  snprintf(sub, sizeof sub, "%s/gpus", folder);
  assert_int_equal(mkdir(sub, 0700), 0);
  ok(catalog_names("gpus", &names, &before));
  free(names);
  write_text(sub, "mine.json", "{\"name\":\"mine\",\"aliases\":[\"my-card\"],\"title\":\"Mine\"}");
  write_text(sub, "rtx4090.json", "{\"name\":\"rtx4090\",\"title\":\"Another 4090\"}");
  write_text(sub, "wrong.json", "{\"name\":\"right\"}");
  write_text(sub, "broken.json", "{\"name\":");
  write_text(sub, ".hidden.json", "");
  write_text(sub, "readme.txt", "no entry");
  setenv("HF_CATALOG", folder, 1);
  ok(catalog_names("gpus", &names, &after));
  free(names);
  assert_int_equal(after, before + 3);
  json *j = get("gpus", "rtx4090"), *none = NULL;
  assert_string_equal(json_string(json_get(j, "title")), "Another 4090");
  json_free(j);
  fails_with(catalog_get("gpus", "wrong", &none), HF_INPUT, "does not match");
  fails_with(catalog_get("gpus", "broken", &none), HF_INPUT, "broken.json");
  char path[300];
  snprintf(path, sizeof path, "%s/broken.json", sub);
  unlink(path);
  snprintf(path, sizeof path, "%s/wrong.json", sub);
  unlink(path);
  j = get("gpus", "my-card");
  assert_string_equal(json_string(json_get(j, "title")), "Mine");
  json_free(j);
  json_free(get("models", "deepseek-r1")); /* kinds the folder lacks stay as they are */
  setenv("HF_CATALOG", "/no/such/folder", 1);
  fails_with(catalog_get("gpus", "rtx4090", &none), HF_INPUT, "HF_CATALOG=/no/such/folder");
}

/* ---- check ---- */

static char lines[8000];

static void keep_line(void *user, const char *line) {
  size_t used = strlen(lines);
  ++*(int *)user;
  snprintf(lines + used, sizeof lines - used, "%s\n", line);
}

static int check(const char *kind, const char *name) {
  int n = -1, given = 0;
  lines[0] = 0;
  ok(catalog_check(kind, name, keep_line, &given, &n));
  assert_int_equal(n, given);
  return n;
}

static void every_entry_passes_the_check(void **state) {
  (void)state;
  for (const char *const *k = catalog_kinds; *k != NULL; k++) {
    char **names;
    int n;
    ok(catalog_names(*k, &names, &n));
    for (int i = 0; i < n; i++) {
      if (check(*k, names[i]) > 0) fail_msg("%s", lines);
    }
    free(names);
  }
}

static const char good_gpu[] =
    "{\"name\":\"my-card\",\"title\":\"Mine\",\"form\":\"PCIe card\",\"source\":\"data sheet\",\"date\":\"2026-01-02\","
    "\"mem_bytes\":25769803776,\"mem_bytes_per_s\":{\"value\":1e12,\"low\":9e11},\"flops_bf16\":1.6e14,\"pcie_gen\":4,"
    "\"pcie_lanes\":16,\"power_idle_w\":{\"value\":20,\"source\":\"assumed: like others\",\"tag\":\"assumed\"},"
    "\"power_active_w\":300,\"price_usd\":900}";

static void files_of_ones_own_are_checked(void **state) {
  (void)state;
  static const struct {
    const char *from, *to, *line;
  } bad[] = {
      {"\"price_usd\":900", "\"prise_usd\":900", "field prise_usd: unknown to gpus; did you mean price_usd?"},
      {"\"price_usd\":900", "\"price_usd\":-900", "field price_usd"},
      {"\"price_usd\":900", "\"price_usd\":9e9", "is not plausible"},
      {"\"price_usd\":900", "\"price_usd\":\"cheap\"", "field price_usd"},
      {"\"price_usd\":900", "\"price_usd\":{\"value\":900,\"unit\":\"EUR\"}", "'EUR' where 'USD' belongs"},
      {"\"price_usd\":900", "\"price_usd\":{\"value\":900,\"units\":\"USD\"}", "field units: unknown to facts"},
      {"\"low\":9e11", "\"low\":9e12", "field low"},
      {"\"flops_bf16\":1.6e14", "\"flops_bf16\":1.6e14,\"flops_fp8\":6.4e14", "field flops_fp8: 4 times flops_bf16; twice"},
      {"\"flops_bf16\":1.6e14", "\"flops_bf16\":1.6e14,\"flops_fp8\":3.2e14,\"flops_int8\":6.4e14", NULL},
      {"\"flops_bf16\":1.6e14", "\"flops_bf16\":1.6e14,\"flops_int8\":12.8e14", "field flops_int8: 8 times"},
      {"\"flops_bf16\":1.6e14", "\"flops_bf16\":1.6e14,\"runs_on\":\"magic\"", "field runs_on: 'magic' is none of ROCm, oneAPI"},
      {"\"power_active_w\":300,", "", "field power_active_w: missing"},
      {"\"power_active_w\":300", "\"power_active_w\":19.5", "is not plausible"},
      {"\"value\":20", "\"value\":290.5,\"high\":400", NULL},
      {"\"source\":\"data sheet\",", "", "field source"},
      {"\"date\":\"2026-01-02\"", "\"date\":\"yesterday\"", "is no date"},
      {",\"tag\":\"assumed\"", "", "the source says assumed, the tag does not"},
      {"\"flops_bf16\":1.6e14", "\"flops_bf16\":1.6e12", "FLOP per byte"},
      {"\"mem_bytes\":25769803776", "\"mem_bytes\":2e12", "reading all of it takes"},
      {"\"mem_bytes\":25769803776", "\"mem_bytes\":25769803776,\"aliases\":[\"4090\"]", "is an alias of rtx4090, too"},
      {"\"mem_bytes\":25769803776", "\"mem_bytes\":25769803776,\"aliases\":[\"rtx5090\"]", "is the name of another entry"},
      {"my-card", "My Card", "lower case letters"},
      {"\"form\":\"PCIe card\"", "\"form\":7", "field form: text belongs here"},
  };
  char path[200], text[2000];
  snprintf(path, sizeof path, "%s/card.json", folder);
  write_text(folder, "card.json", good_gpu);
  if (check(NULL, path) != 0) fail_msg("%s", lines);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *at = strstr(good_gpu, bad[i].from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good_gpu), good_gpu, bad[i].to, at + strlen(bad[i].from));
    write_text(folder, "card.json", text);
    int n = check(NULL, path);
    if (bad[i].line == NULL) assert_int_equal(n, 0);
    else if (n == 0 || strstr(lines, bad[i].line) == NULL) fail_msg("case %zu lacks '%s': %s", i, bad[i].line, lines);
  }
  write_text(folder, "card.json", "[1]");
  assert_int_equal(check(NULL, path), 1);
  write_text(folder, "card.json", "{\"name\":");
  assert_int_equal(check(NULL, path), 1);
  write_text(folder, "card.json", "{\"name\":\"x\"}");
  assert_int_equal(check(NULL, path), 1);
  assert_non_null(strstr(lines, "cannot tell what this is"));
  int n;
  fails_with(catalog_check(NULL, "/no/such/file.json", keep_line, &n, &n), HF_NOT_FOUND, "/no/such/file.json");
  fails_with(catalog_check("gpus", "rtx409", keep_line, &n, &n), HF_NOT_FOUND, "rtx409");
}

static void slips_in_a_cpu_are_found(void **state) {
  (void)state;
  static const struct {
    const char *from, *to, *line;
  } bad[] = {
      {"\"transfers_per_s\": 5200000000", "\"transfers_per_s\": 6600000000", "ddr5 is faster with more modules per channel"},
      {"\"bf16\": 1024", "\"bf16\": 128", "field flops_per_cycle.bf16: 128 a cycle is little for amx_bf16"},
      {", \"amx_int8\"", "", "field flops_per_cycle.int8: 2048 a cycle take amx_int8, which isa does not list"},
  };
  char good[6000], text[6000], path[200];
  FILE *f = fopen(HF_SOURCE_DIR "/db/catalog/cpus/xeon-6787p.json", "r");
  assert_non_null(f);
  good[fread(good, 1, sizeof good - 1, f)] = '\0';
  fclose(f);
  snprintf(path, sizeof path, "%s/xeon-6787p.json", folder);
  write_text(folder, "xeon-6787p.json", good);
  if (check(NULL, path) != 0) fail_msg("%s", lines);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    const char *at = strstr(good, bad[i].from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, bad[i].to, at + strlen(bad[i].from));
    write_text(folder, "xeon-6787p.json", text);
    if (check(NULL, path) != 1 || strstr(lines, bad[i].line) == NULL) fail_msg("case %zu lacks '%s': %s", i, bad[i].line, lines);
  }
}

static void contradictions_between_figures_are_found(void **state) {
  (void)state;
  static const struct {
    const char *name, *text, *line;
  } bad[] = {
      {"fast-9999.json",
       "{\"name\":\"fast-9999\",\"title\":\"x\",\"type\":\"ddr4\",\"source\":\"data sheet\",\"date\":\"2026-01-02\","
       "\"transfers_per_s\":9e9,\"bytes_per_transfer\":8,\"power_active_w_per_dimm\":5,\"dimm_bytes_max\":64e9}",
       "9000 MT/s, but the name says 9999"},
      {"fast.json",
       "{\"name\":\"fast\",\"title\":\"x\",\"type\":\"ddr4\",\"source\":\"data sheet\",\"date\":\"2026-01-02\","
       "\"transfers_per_s\":9e9,\"bytes_per_transfer\":8,\"power_active_w_per_dimm\":5,\"dimm_bytes_max\":64e9}",
       "9000 MT/s is beyond ddr4"},
      {"sizes.json",
       "{\"name\":\"sizes\",\"title\":\"x\",\"type\":\"ddr4\",\"source\":\"data sheet\",\"date\":\"2026-01-02\","
       "\"transfers_per_s\":3e9,\"bytes_per_transfer\":8,\"power_active_w_per_dimm\":5,\"dimm_bytes_max\":64e9,"
       "\"dimm_bytes_sold\":[16e9,32e9]}",
       "field dimm_bytes_sold: the largest is 32000000000, but dimm_bytes_max 64000000000"},
      {"sizes.json",
       "{\"name\":\"sizes\",\"title\":\"x\",\"type\":\"ddr4\",\"source\":\"data sheet\",\"date\":\"2026-01-02\","
       "\"transfers_per_s\":3e9,\"bytes_per_transfer\":8,\"power_active_w_per_dimm\":5,\"dimm_bytes_max\":32e9,"
       "\"dimm_bytes_sold\":[64e9,32e9]}",
       "field dimm_bytes_sold: 32000000000 does not come after 64000000000"},
      {"box.json",
       "{\"name\":\"box\",\"title\":\"x\",\"cpu\":\"epyc-9654\",\"memory\":{\"kind\":\"mrdimm-8800\",\"dimm_bytes\":64e9},"
       "\"sockets\":1,\"prior\":\"heteroflow\",\"source\":\"data sheet\",\"date\":\"2026-01-02\"}",
       "does not take mrdimm"},
      {"box.json",
       "{\"name\":\"box\",\"title\":\"x\",\"cpu\":\"epyc-9654\",\"memory\":{\"kind\":\"ddr5-4800\",\"dimm_bytes\":64e9},"
       "\"sockets\":1,\"prior\":\"heteroflow\",\"source\":\"data sheet\",\"date\":\"2026-01-02\",\"figures\":[{\"device\":"
       "\"cpu0\",\"what\":\"dram_read_bytes_per_s\",\"value\":9e11,\"unit\":\"B/s\",\"source\":\"a slip\","
       "\"date\":\"2026-01-02\"}]}",
       "but its channels give 4.61e+11"},
      {"engine.json",
       "{\"name\":\"engine\",\"title\":\"x\",\"facts\":{\"dram_fraction\":{\"value\":1.2,\"unit\":\"1\","
       "\"source\":\"a slip\",\"date\":\"2026-01-02\"}},\"base\":\"heteroflo\",\"source\":\"data "
       "sheet\",\"date\":\"2026-01-02\"}",
       "1.2 is more than all of it"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, bad[i].name);
    write_text(folder, bad[i].name, bad[i].text);
    if (check(NULL, path) == 0 || strstr(lines, bad[i].line) == NULL) fail_msg("case %zu lacks '%s': %s", i, bad[i].line, lines);
  }
}

static void facts_are_written_out_in_full(void **state) {
  (void)state;
  json *j = get("cpus", "epyc-9355");
  const json *cores = json_get(j, "cores"), *speed = json_get(json_first(json_get(j, "memory_speeds")), "transfers_per_s");
  assert_string_equal(json_string(json_get(cores, "unit")), "1");
  assert_non_null(strstr(json_string(json_get(cores, "source")), "32 cores"));
  assert_string_equal(json_string(json_get(speed, "unit")), "1/s");
  assert_string_equal(json_string(json_get(json_get(json_get(j, "flops_per_cycle"), "int8"), "unit")), "OP");
  assert_non_null(strstr(json_string(json_get(json_get(json_get(j, "flops_per_cycle"), "int8"), "source")), "VPDPBUSD"));
  assert_non_null(strstr(json_string(json_get(json_get(j, "power_idle_w"), "source")), "assumed"));
  json_free(j);
  catalog_value v;
  ok(catalog_fact("gpus", "4090", "price_usd", &v));
  assert_true(v.likely == 1599 && v.tag == TAG_SPEC);
  fails_with(catalog_fact("gpus", "rtx3090", "flops_fp8", &v), HF_NOT_FOUND, "does not have it");
}

/* ---- machines ---- */

static db *d;

static int open_db(void **state) {
  char path[200];
  if (make_folder(state)) return 1;
  snprintf(path, sizeof path, "%s/t.db", folder);
  return db_open(path, true, &d) != HF_OK;
}

static int close_db(void **state) {
  db_close(d);
  return drop_folder(state);
}

typedef struct {
  rec_machine m;
  rec_device *dev;
  rec_figure *fig;
  rec_link_point *link;
  int n_dev, n_fig, n_link;
} imported;

static imported import(const char *name) {
  imported x;
  ok(catalog_machine_to_db(d, name, &x.m));
  ok(db_device_list(d, x.m.id, &x.dev, &x.n_dev));
  ok(db_figure_list(d, x.m.id, &x.fig, &x.n_fig));
  ok(db_link_list(d, x.m.id, &x.link, &x.n_link));
  return x;
}

static void imported_free(imported *x) {
  free(x->dev);
  free(x->fig);
  free(x->link);
}

static const rec_figure *figure(const imported *x, const char *device, const char *what) {
  for (int i = 0; i < x->n_fig; i++) {
    if (strcmp(x->fig[i].device, device) == 0 && strcmp(x->fig[i].what, what) == 0) return &x->fig[i];
  }
  fail_msg("%s: no figure %s of '%s'", x->m.name, what, device);
  return NULL;
}

static void close_to(double have, double want) {
  if (fabs(have - want) > 1e-9 * fabs(want)) fail_msg("%.17g is not %.17g", have, want);
}

static void two_socket_machine_has_the_right_rows(void **state) {
  (void)state;
  imported x = import("xeon6-mrdimm-rtx4090");
  assert_int_equal(x.m.kind, MACHINE_CATALOG);
  assert_non_null(strstr(x.m.facts_json, "names neither SKU"));
  assert_int_equal(x.n_dev, 3);
  assert_string_equal(x.dev[0].device, "cpu0");
  assert_string_equal(x.dev[0].name, "Intel Xeon 6787P");
  assert_int_equal(x.dev[1].cores, 86);
  assert_true(x.dev[1].mem_bytes == (int64_t)8 * 64 << 30);
  assert_string_equal(x.dev[2].name, "NVIDIA GeForce RTX 4090");
  assert_true(x.dev[2].mem_bytes == (int64_t)24564 << 20); /* what the driver reports of 24 GiB */

  json *p = get("priors", "heteroflow");
  const json *facts = json_get(p, "facts"), *dram = json_get(facts, "dram_fraction"),
             *dual = json_get(facts, "dual_socket_scaling");
  close_to(figure(&x, "cpu0", "dram_theoretical_bytes_per_s")->likely, 512e9);
  close_to(figure(&x, "cpu", "dram_theoretical_bytes_per_s")->likely, 1024e9);
  const rec_figure *one = figure(&x, "cpu1", "dram_read_bytes_per_s"), *all = figure(&x, "cpu", "dram_read_bytes_per_s");
  assert_int_equal(one->tag, TAG_SPEC);
  close_to(one->likely, 512e9 * json_number(json_get(dram, "value"), 0));
  close_to(all->low, one->low * json_number(json_get(dual, "low"), 0));
  close_to(all->high, one->high * json_number(json_get(dual, "high"), 0));
  assert_true(all->likely < 2 * one->likely);
  assert_non_null(strstr(all->source, "dual_socket_scaling"));
  json_free(p);

  close_to(figure(&x, "cpu0", "cpu_theoretical_flops_bf16")->likely, 86 * 2.0e9 * 1024);
  close_to(figure(&x, "gpu0", "pcie_theoretical_bytes_per_s")->likely, 16 * 16e9 / 8 * 128 / 130);
  assert_true(figure(&x, "gpu0", "gpu_mem_bytes_per_s")->high < 1008e9);
  close_to(figure(&x, "gpu0", "gpu_theoretical_flops_int8")->likely, 660.6e12);
  close_to(figure(&x, "", "price_usd")->likely, 2 * (10400 + 512 * 30.1) + 1599 + 5000);
  close_to(figure(&x, "", "power_idle_w")->likely, 2 * 105 + 25 + 80);
  imported_free(&x);
}

static void every_machine_has_what_a_planner_reads(void **state) {
  (void)state;
  static const struct {
    const char *device, *what;
  } need[] = {{"cpu0", "dram_read_bytes_per_s"},
              {"cpu0", "dram_theoretical_bytes_per_s"},
              {"cpu0", "cpu_flops_bf16"},
              {"cpu0", "cpu_flops_int8"},
              {"cpu0", "cpu_flops_f32"},
              {"cpu", "dram_read_bytes_per_s"},
              {"cpu", "cpu_flops_bf16"},
              {"cpu", "cpu_flops_int8"},
              {"cpu", "cpu_flops_f32"},
              {"cpu", "layer_fixed_ns"},
              {"gpu0", "gpu_mem_bytes_per_s"},
              {"gpu0", "gpu_flops_bf16"},
              {"gpu0", "gpu_flops_int8"},
              {"gpu0", "pcie_h2d_bytes_per_s"},
              {"gpu0", "pcie_d2h_bytes_per_s"},
              {"gpu0", "handover_ns"},
              {"gpu0", "launch_ns"},
              {"", "step_fixed_ns"},
              {"", "power_idle_w"},
              {"", "power_active_w"},
              {"", "price_usd"}};
  char **names;
  int n;
  ok(catalog_names("machines", &names, &n));
  for (int i = 0; i < n; i++) {
    imported x = import(names[i]);
    assert_string_equal(x.m.name, names[i]);
    for (size_t k = 0; k < sizeof need / sizeof *need; k++) assert_true(figure(&x, need[k].device, need[k].what)->likely > 0);
    for (int k = 0; k < x.n_fig; k++) {
      assert_true(x.fig[k].low <= x.fig[k].likely && x.fig[k].likely <= x.fig[k].high);
      assert_true(x.fig[k].source[0] != 0 && x.fig[k].unit[0] != 0);
      assert_true(x.fig[k].tag == TAG_SPEC || x.fig[k].tag == TAG_ASSUMED);
      if (strstr(x.fig[k].what, "_ns")) assert_true(x.fig[k].likely < 1e7);
    }
    int gpus = 0;
    for (int k = 0; k < x.n_dev; k++) gpus += !strncmp(x.dev[k].device, "gpu", 3);
    assert_int_equal(x.n_link, 10 * gpus);
    for (int k = 1; k < x.n_link; k++) {
      if (strcmp(x.link[k].src, x.link[k - 1].src) == 0) assert_true(x.link[k].ns > x.link[k - 1].ns);
    }
    imported_free(&x);
  }
  free(names);
}

static void paced_desk_is_slow_and_says_it_is_made_up(void **state) {
  (void)state;
  imported x = import("paced-desk");
  assert_int_equal(x.m.kind, MACHINE_WHATIF);
  assert_non_null(strstr(x.m.facts_json, "does not exist"));
  assert_int_equal(x.n_dev, 2);
  assert_int_equal(x.dev[0].cores, 4);
  close_to(figure(&x, "gpu0", "gpu_mem_bytes_per_s")->likely, 3 * figure(&x, "cpu", "dram_read_bytes_per_s")->likely);
  double expert_s = 2 * 3 * 128 * 64 / figure(&x, "cpu", "cpu_flops_bf16")->likely;
  assert_true(expert_s > 50e-6 && expert_s < 300e-6);
  for (int k = 0; k < x.n_fig; k++) assert_int_equal(x.fig[k].tag, TAG_ASSUMED);
  imported_free(&x);
}

static int machines(void) {
  rec_machine *m;
  int n;
  ok(db_machine_list(d, &m, &n));
  free(m);
  return n;
}

static void importing_again_reuses_the_machine(void **state) {
  (void)state;
  rec_machine a, b;
  ok(catalog_machine_to_db(d, "epyc9654-1s-rtx4090", &a));
  int n = machines();
  ok(catalog_machine_to_db(d, "epyc9654-1s-rtx4090", &b));
  assert_true(a.id == b.id && a.created_ns == b.created_ns);
  assert_int_equal(machines(), n);
  /* Inside a transaction of the caller, which may take it back. */
  ok(db_begin(d));
  ok(catalog_machine_to_db(d, "xeon8592-2s-h100", &b));
  db_rollback(d);
  assert_int_equal(machines(), n);
}

static const char own_machine[] = "{\"name\":\"bench-box\",\"title\":\"Bench box\",\"cpu\":\"9654\",\"sockets\":1,"
                                  "\"memory\":{\"kind\":\"ddr5-6400\",\"dimm_bytes\":{\"value\":34359738368,\"unit\":\"B\","
                                  "\"source\":\"invoice\",\"date\":\"2026-01-02\"}},"
                                  "\"gpus\":[{\"gpu\":\"5090\",\"count\":2}],\"prior\":\"ik-llama-cpp\",%s"
                                  "\"figures\":[{\"device\":\"gpu1\",\"what\":\"pcie_h2d_bytes_per_s\",\"value\":%s,\"unit\":\"B/"
                                  "s\",\"source\":\"measured by hand\","
                                  "\"date\":\"2026-01-02\",\"tag\":\"measured\"}],\"source\":\"me\",\"date\":\"2026-01-02\"}";

static void own_machine_file(void **state) {
  (void)state;
  char text[1200], path[200];
  snprintf(path, sizeof path, "%s/box.json", folder);
  snprintf(text, sizeof text, own_machine, "", "3e9");
  write_text(folder, "box.json", text);
  imported x = import(path);
  assert_int_equal(x.m.kind, MACHINE_WHATIF);
  assert_string_equal(x.m.name, "bench-box");
  assert_int_equal(x.n_dev, 3);
  close_to(figure(&x, "cpu0", "dram_theoretical_bytes_per_s")->likely, 12 * 8 * 4800e6); /* the CPU's limit, not the module's */
  close_to(figure(&x, "cpu", "dram_read_bytes_per_s")->likely, figure(&x, "cpu0", "dram_read_bytes_per_s")->likely);
  const rec_figure *stated = figure(&x, "gpu1", "pcie_h2d_bytes_per_s");
  assert_true(stated->likely == 3e9 && stated->tag == TAG_MEASURED);
  assert_string_equal(stated->source, "measured by hand");
  close_to(figure(&x, "gpu0", "pcie_theoretical_bytes_per_s")->likely, 16 * 32e9 / 8 * 128 / 130);
  json *ik = get("priors", "ik-llama-cpp");
  close_to(figure(&x, "cpu0", "dram_read_bytes_per_s")->high,
           12 * 8 * 4800e6 * json_number(json_get(json_get(json_get(ik, "facts"), "dram_fraction"), "high"), 0));
  json_free(ik);
  /* no platform named: the usual one */
  close_to(figure(&x, "", "price_platform_usd")->likely, number("platforms", "server-1s", "price_usd"));
  assert_true(figure(&x, "", "price_usd")->likely > figure(&x, "cpu0", "price_usd")->likely);
  imported_free(&x);
}

static void bad_machine_files_are_refused_and_nothing_is_written(void **state) {
  (void)state;
  static const struct {
    const char *from, *to, *error;
  } bad[] = {
      {"\"sockets\":1", "\"sockets\":3", "sockets"},
      {"\"sockets\":1", "\"socket\":1", "socket: unknown"},
      {"ddr5-6400", "mrdimm-8800", "does not take mrdimm at 1 per channel"},
      {"\"cpu\":\"9654\"", "\"cpu\":\"965-4\"", "did you mean '9654'"},
      {"\"gpu\":\"5090\",\"count\":2", "\"gpu\":\"5090\",\"count\":9", "at most 8"},
      {"\"unit\":\"B\"", "\"unit\":\"GB\"", "'GB' where 'B' belongs"},
      {"\"source\":\"invoice\"", "\"source\":\"\"", "source"},
      {"2026-01-02", "02.01.2026", "is no date"},
      {"\"value\":34359738368", "\"value\":-1", "value"},
      {"gpu1", "gpu2", "no such device"},
      {"\"prior\":\"ik-llama-cpp\"", "\"prior\":\"magic\"", "magic"},
      {"\"tag\":\"measured\"", "\"tag\":\"sure\"", "'sure' is none of"},
      {"\"name\":\"bench-box\"", "\"name\":\"\"", "field name"},
      {"\"title\":\"Bench box\",", "", "title"},
  };
  char good[1200], path[200];
  snprintf(path, sizeof path, "%s/bad.json", folder);
  snprintf(good, sizeof good, own_machine, "", "3e9");
  int before = machines();
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    char text[1400];
    const char *at = strstr(good, bad[i].from);
    assert_non_null(at);
    snprintf(text, sizeof text, "%.*s%s%s", (int)(at - good), good, bad[i].to, at + strlen(bad[i].from));
    write_text(folder, "bad.json", text);
    rec_machine m;
    hf_status st = catalog_machine_to_db(d, path, &m);
    assert_true(st == HF_INPUT || st == HF_NOT_FOUND);
    if (strstr(hf_error_line(), bad[i].error) == NULL) fail_msg("case %zu: '%s' lacks '%s'", i, hf_error_line(), bad[i].error);
  }
  assert_int_equal(machines(), before);
  rec_machine m;
  fails_with(catalog_machine_to_db(d, "xeon6-mrdimm-rtx409", &m), HF_NOT_FOUND, "did you mean 'xeon6-mrdimm-rtx4090'");
  fails_with(catalog_machine_to_db(d, "./absent.json", &m), HF_NOT_FOUND, "absent.json");
}

static void no_allocation_failure_leaves_half_a_machine(void **state) {
  (void)state;
  int before = machines();
  for (long n = 1;; n++) {
    rec_machine m;
    hf_fail_alloc_at(n);
    hf_status st = catalog_machine_to_db(d, "xeon6776p-2s-h100", &m);
    hf_fail_alloc_at(0);
    if (st == HF_OK) break;
    assert_int_equal(st, HF_MACHINE);
    assert_int_equal(machines(), before);
    assert_true(n < 20000);
  }
}

/* ---- a check by hand ---- */

/* Decode of DeepSeek-R1 at Q4_K_M with 5 users: distinct routed experts x bytes over the CPU's rate, then the GPU's part and the
 * fixed costs, one after the other. which: 0 slow end, 1 likely, 2 fast end of every figure. */
static double r1_tokens_per_s(const imported *x, int which, double users) {
#define F(dev, what, fast) \
  (which == 1 ? figure(x, dev, what)->likely : (which == 2) == (fast) ? figure(x, dev, what)->high : figure(x, dev, what)->low)
  const double bits = 4.85, expert = 3 * 7168.0 * 2048, on_gpu = 37.0e9 - 58 * 8 * expert;
  double distinct = 256 * (1 - pow(1 - 8.0 / 256, users)) * F("", "distinct_factor", false);
  double cpu_s = 58 * distinct * expert * bits / 8 / F("cpu", "dram_read_bytes_per_s", true);
  double gpu_s = on_gpu * bits / 8 / F("gpu0", "gpu_mem_bytes_per_s", true);
  double fixed_s = 58e-9 * (F("cpu", "layer_fixed_ns", false) + F("gpu0", "handover_ns", false) + F("gpu0", "launch_ns", false)) +
                   1e-9 * F("", "step_fixed_ns", false);
  return users / (cpu_s + gpu_s + fixed_s);
#undef F
}

static void r1_for_five_users_by_hand(void **state) {
  (void)state;
  static const char *const names[] = {"xeon6-mrdimm-rtx4090", "xeon6-1s-mrdimm-rtx4090", "xeon6980p-2s-mrdimm8800-rtx4090"};
  double likely[3];
  for (int i = 0; i < 3; i++) {
    imported x = import(names[i]);
    double low = r1_tokens_per_s(&x, 0, 5), high = r1_tokens_per_s(&x, 2, 5);
    likely[i] = r1_tokens_per_s(&x, 1, 5);
    print_message("  deepseek-r1, 5 users, %-32s %5.1f / %5.1f / %5.1f tokens/s (published 51: %s)\n", names[i], low, likely[i],
                  high, low <= 51 && 51 <= high ? "inside" : "outside");
    assert_true(low < likely[i] && likely[i] < high);
    assert_true(high / low < 2.5);
    imported_free(&x);
  }
  assert_true(likely[0] > 25 && likely[0] < 60);
  assert_true(likely[1] < likely[0] && likely[0] < likely[2]);
  assert_true(number("models", "deepseek-r1", "params_active") == 37e9);
}

int main(void) {
  const struct CMUnitTest files[] = {
      cmocka_unit_test(every_file_parses_and_says_its_sources),
      cmocka_unit_test(references_resolve),
      cmocka_unit_test(r1_is_what_its_config_says),
      cmocka_unit_test(aliases_case_and_suggestions),
      cmocka_unit_test(slips_in_a_cpu_are_found),
      cmocka_unit_test(facts_are_written_out_in_full),
      cmocka_unit_test(every_entry_passes_the_check),
      cmocka_unit_test_setup_teardown(files_of_ones_own_are_checked, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(contradictions_between_figures_are_found, make_folder, drop_folder),
      cmocka_unit_test_setup_teardown(own_folder_adds_and_overrides, make_folder, drop_folder),
  };
  const struct CMUnitTest rows[] = {
      cmocka_unit_test(two_socket_machine_has_the_right_rows),
      cmocka_unit_test(every_machine_has_what_a_planner_reads),
      cmocka_unit_test(paced_desk_is_slow_and_says_it_is_made_up),
      cmocka_unit_test(importing_again_reuses_the_machine),
      cmocka_unit_test(own_machine_file),
      cmocka_unit_test(bad_machine_files_are_refused_and_nothing_is_written),
      cmocka_unit_test(r1_for_five_users_by_hand),
  };
  const struct CMUnitTest faults[] = {
      cmocka_unit_test(no_allocation_failure_leaves_half_a_machine),
  };
  unsetenv("HF_CATALOG");
  int failed = cmocka_run_group_tests_name("catalog files", files, NULL, NULL);
  failed += cmocka_run_group_tests_name("catalog machines", rows, open_db, close_db);
  failed += cmocka_run_group_tests_name("catalog faults", faults, open_db, close_db);
  return failed;
}
