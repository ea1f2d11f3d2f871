/* Changes as typed, the together column, knees, regret, scaled rows: the parts of the planner's questions that need no plan. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "db/catalog.h"
#include "planner/ask/machine_int.h"
#include "planner/ask/regret.h"
#include "planner/ask/sweep.h"
#include "planner/ask/whatif.h"

/* ---- text ---- */

static void refused(const char *text, const char *part) {
  ask_changes c;
  assert_int_not_equal(ask_parse_changes("--set", text, false, &c), HF_OK);
  if (strstr(hf_error_line(), part) == NULL) fail_msg("'%s' is not in: %s", part, hf_error_line());
}

static void test_changes(void **state) {
  (void)state;
  ask_changes c;
  assert_int_equal(ask_parse_changes("--set", "gpu=2xrtx5090,Memory=mrdimm-8800,context=32K", false, &c), HF_OK);
  assert_int_equal(c.n, 3);
  assert_int_equal(c.c[0].key, ASK_GPU);
  assert_string_equal(c.c[0].value, "2xrtx5090");
  assert_int_equal(c.c[1].key, ASK_DIMM);
  assert_true(c.c[2].number == 32768);
  assert_true(ask_changes_machine(&c));
  assert_int_equal(ask_parse_changes("--case", "big one:users=20", true, &c), HF_OK);
  assert_string_equal(c.name, "big one");
  assert_false(ask_changes_machine(&c));
  assert_int_equal(ask_parse_changes("--set", "dram=x1.5", false, &c), HF_OK);
  assert_true(c.c[0].number == -1.5);
  static const struct {
    const char *text;
    double bytes_per_s;
  } rates[] = {{"dram=614GB/s", 614e9},       {"dram=614e9", 614e9}, {"bandwidth=0.6TB/s", 6e11}, {"dram=614000000000", 614e9},
               {"dram=64GiB/s", 64 * 0x1p30}, {"dram=400 GB/s", -1}, {"dram=400gb/s", 400e9}};
  for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
    bool good = ask_parse_changes("--set", rates[i].text, false, &c) == HF_OK;
    if (good != (rates[i].bytes_per_s > 0)) fail_msg("%s: %s", rates[i].text, hf_error_line());
    if (good && fabs(c.c[0].number / rates[i].bytes_per_s - 1) > 1e-12) fail_msg("%s: %g", rates[i].text, c.c[0].number);
  }
  /* a size is no bandwidth, and who speaks of RAM means modules */
  refused("dram=64G", "64G is a size, not a bandwidth: dram=64GB/s, or dimm-size=64G for the size of a module");
  refused("bandwidth=64GiB", "dimm-size=64GiB");
  refused("ram=64G", "is dimm meant?");
  refused("memory-size=64G", "dimm-size");
  refused("mem=64G", "is dimm meant?");
  refused("dimm=64G", "dimm-size=64G");
  refused("", "KEY=VALUE");
  refused("gpu", "KEY=VALUE");
  refused("=3", "KEY=VALUE");
  refused("gpu=", "needs a value");
  refused("gup=rtx4090", "is gpu meant?");
  refused("zzzzzzz=1", "keys are");
  refused("users=0", "between 1 and");
  refused("users=-3", "no whole number");
  refused("users=1e3", "no whole number");
  refused("users=nan", "no whole number");
  refused("users=4,users=5", "twice");
  refused("context=inf", "no whole number");
  refused("dram=x0", "bandwidth");
  refused("dram=-1", "bandwidth");
  refused("gpu=a b", "blank");
  assert_int_not_equal(ask_parse_changes("--case", "users=3", true, &c), HF_OK);
}

static void test_axes(void **state) {
  (void)state;
  ask_axis a;
  assert_int_equal(ask_parse_axis("--axis", "users=1:64:x2", &a), HF_OK);
  assert_int_equal(a.n, 7);
  assert_true(a.point[6].number == 64);
  assert_int_equal(ask_parse_axis("--axis", "users=1:7:+3", &a), HF_OK);
  assert_int_equal(a.n, 3);
  assert_int_equal(ask_parse_axis("--axis", "users=1:4", &a), HF_OK);
  assert_int_equal(a.n, 4);
  assert_int_equal(ask_parse_axis("--axis", "context=2K,4K", &a), HF_OK);
  assert_true(a.point[1].number == 4096);
  assert_int_equal(ask_parse_axis("--axis", "gpu=none,rtx4090", &a), HF_OK);
  const char *bad[] = {"users",        "users=",        "users=1,1", "users=8:1:x2", "users=1:8:x1",
                       "users=1:8:y2", "users=1:60:+0", "gpu=a,A",   "users=1,,2",   "context=2K,2048"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    if (ask_parse_axis("--axis", bad[i], &a) == HF_OK) fail_msg("accepted: %s", bad[i]);
}

static void parse(const char *text, ask_changes *c) {
  assert_int_equal(ask_parse_changes("--set", text, false, c), HF_OK);
}

static void test_together(void **state) {
  (void)state;
  ask_changes s[4], all;
  parse("gpu=rtx5090", &s[0]);
  parse("dimm=mrdimm-8800", &s[1]);
  parse("users=20", &s[2]);
  parse("lost=gpu0", &s[3]);
  assert_true(whatif_together(s, 4, false, &all));
  assert_int_equal(all.n, 3);
  assert_null(ask_find_change(&all, ASK_LOST));
  assert_true(whatif_together(s, 4, true, &all));
  assert_int_equal(all.n, 4);
  parse("gpu=rtx4090", &s[1]); /* contradicts the first: the key is left out, and one contributor is not enough */
  assert_false(whatif_together(s, 2, false, &all));
  assert_true(whatif_together(s, 3, false, &all) == false);
  assert_false(whatif_together(&s[3], 1, true, &all)); /* a loss alone is its own column */
}

static void test_load(void **state) {
  (void)state;
  ask_changes c;
  plan_request r = {.prompt_tokens = 7000, .output_tokens = 512};
  parse("context=2K", &c);
  ask_apply_load(&c, &r);
  assert_int_equal(r.context, 2048);
  assert_int_equal(r.prompt_tokens, 0);
  assert_int_equal(r.output_tokens, 512);
  parse("context=256", &c);
  ask_apply_load(&c, &r);
  assert_int_equal(r.output_tokens, 0);
}

/* ---- knees ---- */

static void test_knee(void **state) {
  (void)state;
  const double users[] = {1, 2, 4, 8, 16}, rate[] = {10, 19, 34, 44, 50};
  bool ok[] = {true, true, true, true, true}, slo[] = {true, true, false, true, true};
  /* gains per user: 9, 7.5, 2.5, 0.75 against 10 at the start */
  sweep_knee k = sweep_find_knee(users, rate, ok, NULL, 5, 0.5);
  assert_int_equal(k.at, 2);
  assert_int_equal(k.rule, KNEE_GAIN);
  assert_int_equal(sweep_find_knee(users, rate, ok, NULL, 5, 0.2).at, 3);
  k = sweep_find_knee(users, rate, ok, NULL, 5, 0.05);
  assert_int_equal(k.at, 4);
  assert_int_equal(k.rule, KNEE_NONE);
  k = sweep_find_knee(users, rate, ok, slo, 5, 0.2);
  assert_int_equal(k.at, 1);
  assert_int_equal(k.rule, KNEE_SLO);
  ok[1] = false;
  assert_int_equal(sweep_find_knee(users, rate, ok, NULL, 5, 0.2).at, 0);
  ok[0] = false;
  assert_int_equal(sweep_find_knee(users, rate, ok, NULL, 5, 0.2).at, -1);
  slo[0] = false;
  ok[0] = true;
  k = sweep_find_knee(users, rate, ok, slo, 5, 0.2);
  assert_int_equal(k.at, -1);
  assert_int_equal(k.rule, KNEE_SLO);
}

/* ---- regret ---- */

static regret_choice choice(double price, double need) {
  regret_choice c = {.need = need};
  for (int e = 0; e < 3; e++) c.price[REGRET_CPU_PRICE][e] = price;
  return c;
}

static void test_regret(void **state) {
  (void)state;
  static const int likely[REGRET_N_FACTORS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
  regret_choice c[2] = {choice(100, 1), choice(130, 0.5)};
  regret_result *r = calloc(1, sizeof *r);
  assert_non_null(r);
  assert_true(regret_loss(&c[0], likely) == 100);
  /* Memory bandwidth may halve: the first then takes two machines for the demand, the second is just enough. */
  c[0].log_effect[0][0] = c[1].log_effect[0][0] = log(2);
  regret_of(c, 2, r);
  assert_int_equal(r->best, 0);
  assert_float_equal(r->worst[0], 70, 1e-9);
  assert_float_equal(r->worst[1], 30, 1e-9);
  assert_int_equal(r->least_regret, 1);
  assert_int_equal(r->flip[0][0], 1);
  assert_int_equal(r->flip[0][1], 0);
  /* 100 * 2^x = 130 */
  assert_float_equal(r->flip_at[0][0], log(1.3) / log(2), 2e-3);
  assert_true(r->flip_at[0][1] > 1);
  /* Corners (three levels of one factor): losses 200, 100, 100 and 130: means 133.3 and 130; knowing it: (130 + 100 + 100) / 3. */
  assert_float_equal(r->expected[0], 400.0 / 3, 1e-9);
  assert_float_equal(r->value[0], 20, 1e-9);
  assert_float_equal(r->value_all, 20, 1e-9);
  assert_true(r->value[1] == 0);
  free(r);
}

/* What takes the first one's place on the way need not be the best at the end. */
/* The faster of two alike feels a group more, so that in the corner where all is slow its product of effects is the worse one; what is known to be
 * no worse is not regretted more. */
static void test_regret_of_alike(void **state) {
  (void)state;
  regret_choice c[2] = {choice(100, 0.7), choice(100, 0.8)};
  regret_result r;
  c[0].log_effect[0][0] = log(1.8);
  c[1].log_effect[0][0] = log(1.3);
  regret_of(c, 2, &r);
  assert_true(r.worst[0] > r.worst[1]);
  assert_int_equal(r.least_regret, 1);
  assert_int_equal(r.flip[0][0], 1);
  c[0].no_worse_than = 1u << 1;
  regret_of(c, 2, &r);
  assert_true(r.worst[0] == 0 && r.worst[1] >= 0);
  assert_int_equal(r.least_regret, 0);
  assert_int_equal(r.flip[0][0], 0);
}

static void test_flip_on_the_way(void **state) {
  (void)state;
  regret_choice c[3] = {choice(100, 1), choice(120, 0.8), choice(160, 0.4)};
  regret_result *r = calloc(1, sizeof *r);
  assert_non_null(r);
  for (int a = 0; a < 3; a++) c[a].log_effect[0][0] = log(2);
  regret_of(c, 3, r);
  assert_int_equal(r->best, 0);
  /* 100 * 2^x = 120; at the end 200, 192 and 160 */
  assert_float_equal(r->flip_at[0][0], log(1.2) / log(2), 2e-3);
  assert_int_equal(r->flip[0][0], 1);
  free(r);
}

/* Against enumeration written otherwise: every regret is at least 0, some choice has none in each corner, and the worst is reached. */
static void test_regret_random(void **state) {
  (void)state;
  regret_choice c[5];
  regret_result *r = calloc(1, sizeof *r);
  assert_non_null(r);
  uint64_t s = 7;
  for (int round = 0; round < 5; round++) {
    memset(c, 0, sizeof c);
    for (int a = 0; a < 5; a++) {
      s = s * 6364136223846793005u + 1442695040888963407u;
      c[a] = choice(100 + (double)(s >> 40) / 1e5, 0.5 + (double)(s >> 33 & 255) / 256);
      for (int f = 0; f < 3; f++) {
        c[a].log_effect[f][0] = (double)(s >> (8 * f) & 255) / 500;
        c[a].log_effect[f][1] = -(double)(s >> (8 * f + 20) & 255) / 600;
      }
      c[a].price[REGRET_GPU_PRICE][0] = 10;
      c[a].price[REGRET_GPU_PRICE][1] = 20;
      c[a].price[REGRET_GPU_PRICE][2] = 20 + 10 * a;
    }
    regret_of(c, 5, r);
    double worst[5] = {0};
    for (int code = 0; code < 81; code++) {
      int level[REGRET_N_FACTORS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
      level[0] = code % 3;
      level[1] = code / 3 % 3;
      level[2] = code / 9 % 3;
      level[COST_N_GROUPS + REGRET_GPU_PRICE] = code / 27;
      double least = 1e300;
      for (int a = 0; a < 5; a++) least = fmin(least, regret_loss(&c[a], level));
      for (int a = 0; a < 5; a++) worst[a] = fmax(worst[a], regret_loss(&c[a], level) - least);
    }
    for (int a = 0; a < 5; a++) assert_float_equal(r->worst[a], worst[a], 1e-9);
    for (int f = 0; f < REGRET_N_FACTORS; f++) assert_true(r->value[f] <= r->value_all + 1e-9);
  }
  free(r);
}

/* ---- machines ---- */

static double rate_of(const ask_machine *m, const char *device, const char *what) {
  cost_figure f;
  return cost_find(ask_machine_rows(m), device, what, &f) ? f.likely : 0;
}

static ask_machine *changed(const ask_machine *base, const char *text) {
  ask_changes c;
  ask_machine *m = NULL;
  parse(text, &c);
  if (ask_machine_change(NULL, base, &c, &m) != HF_OK) fail_msg("%s: %s", text, hf_error_line());
  return m;
}

static void test_machine(void **state) {
  (void)state;
  ask_machine *base = NULL, *m;
  assert_int_equal(ask_machine_open(NULL, "xeon6-mrdimm-rtx4090", &base), HF_OK);
  double dram = rate_of(base, "cpu", "dram_read_bytes_per_s"), link = rate_of(base, "gpu0", "pcie_h2d_bytes_per_s");
  assert_int_equal(ask_machine_facts_of(base)->n_gpus, 1);
  m = changed(base, "gpu=2xrtx5090");
  assert_int_equal(ask_machine_facts_of(m)->n_gpus, 2);
  assert_true(rate_of(m, "cpu", "dram_read_bytes_per_s") == dram);
  assert_true(ask_machine_facts_of(m)->price[1] > ask_machine_facts_of(base)->price[1]);
  ask_machine *lost = changed(m, "lost=gpu0");
  assert_int_equal(ask_machine_facts_of(lost)->n_gpus, 1);
  assert_non_null(cost_device(ask_machine_rows(lost), "gpu0"));
  assert_null(cost_device(ask_machine_rows(lost), "gpu1"));
  assert_true(ask_machine_facts_of(lost)->active_w < ask_machine_facts_of(m)->active_w);
  assert_true(ask_machine_facts_of(lost)->price[1] == ask_machine_facts_of(m)->price[1]);
  ask_machine_free(lost);
  ask_machine_free(m);
  m = changed(base, "dram=x1.5,pcie=5");
  assert_float_equal(rate_of(m, "cpu", "dram_read_bytes_per_s") / dram, 1.5, 1e-9);
  assert_float_equal(rate_of(m, "gpu0", "pcie_h2d_bytes_per_s") / link, 2, 1e-9);
  assert_int_equal(ask_machine_facts_of(m)->n_notes, 2);
  ask_machine_free(m);
  m = changed(base, "lost=cpu0");
  assert_true(rate_of(m, "cpu", "dram_read_bytes_per_s") < dram);
  assert_int_equal(ask_machine_facts_of(m)->memory_bytes * 2, ask_machine_facts_of(base)->memory_bytes);
  ask_machine_free(m);
  static const char *const bad[] = {"lost=gpu1",        "lost=cpu7", "lost=nic0", "gpu=rtx4009",    "sockets=1,lost=cpu0",
                                    "dimm=mrdimm-9999", "gpu=+",     "gpu=3x",    "gpu=none,pcie=5"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    ask_changes c;
    parse(bad[i], &c);
    if (ask_machine_change(NULL, base, &c, &m) == HF_OK) fail_msg("accepted: %s", bad[i]);
  }
  ask_machine_free(base);
}

/* A kernel time is memory to the share of bytes / bandwidth, and only that share is scaled. */
static void test_scaled_kernels(void **state) {
  (void)state;
  rec_machine head = {.name = "measured here", .kind = MACHINE_MEASURED, .facts_json = "{}"};
  rec_device cpu = {.device = "cpu0", .kind = "cpu", .cores = 4, .mem_bytes = 1 << 30};
  rec_figure bw = {
      .device = "cpu", .what = "dram_read_bytes_per_s", .low = 9e9, .likely = 1e10, .high = 1.1e10, .tag = TAG_MEASURED};
  rec_kernel_point k[2] = {
      {.device = "cpu", .kernel = "expert_ffn", .tokens = 1, .ns_low = 100, .ns = 100, .ns_high = 100, .bytes = 1000},
      {.device = "cpu", .kernel = "expert_ffn", .tokens = 64, .ns_low = 400, .ns = 400, .ns_high = 400, .bytes = 1000}};
  ask_machine *m = calloc(1, sizeof *m);
  assert_non_null(m);
  assert_int_equal(cost_rows_from_arrays(&head, &cpu, 1, &bw, 1, k, 2, NULL, 0, &m->rows), HF_OK);
  m->f.measured = true;
  snprintf(m->f.name, sizeof m->f.name, "measured here");
  ask_machine *y = changed(m, "dram=x2");
  const cost_rows *r = ask_machine_rows(y);
  assert_float_equal(r->kernel[0].ns, 50, 1e-9);  /* all of it was memory: 1000 B at 10 B/ns */
  assert_float_equal(r->kernel[1].ns, 350, 1e-9); /* a quarter was */
  assert_int_equal(r->kernel[0].tag, TAG_SCALED);
  assert_true(rate_of(y, "cpu", "dram_read_bytes_per_s") == 2e10);
  ask_machine_free(y);
  y = changed(m, "gpu=rtx4090");
  assert_int_equal(ask_machine_facts_of(y)->n_gpus, 1);
  assert_true(rate_of(y, "gpu0", "gpu_mem_bytes_per_s") > 5e11);
  ask_machine_free(y);
  static const char *const bad[] = {"cpu=xeon-6787p", "sockets=2", "dimm=ddr5-6400", "prior=ktransformers", "dimm-size=64G"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    ask_changes c;
    parse(bad[i], &c);
    if (ask_machine_change(NULL, m, &c, &y) == HF_OK) fail_msg("accepted: %s", bad[i]);
  }
  ask_machine_free(m);
}

/* A limit is never missed by 0 %. */
static void test_just_over(void **state) {
  (void)state;
  char why[160];
  ask_case c = {.feasible = true, .tpot_s = {.p95 = 0.2505}, .ttft_s = {.p95 = 10.0001}, .tok_per_s_wall = 29.99};
  assert_false(ask_meets(&c, &(ask_slo){.tpot_s = 0.25}, why));
  assert_string_equal(why, "p95 TPOT 250.5 ms is 0.2 % over 250 ms");
  assert_false(ask_meets(&c, &(ask_slo){.ttft_s = 10}, why));
  assert_string_equal(why, "p95 TTFT 10.0001 s is under 0.1 % over 10 s");
  assert_false(ask_meets(&c, &(ask_slo){.tok_per_s = 30}, why));
  assert_string_equal(why, "29.99 tokens/s delivered is under 0.1 % under 30");
  c.tpot_s.p95 = 0.5;
  assert_false(ask_meets(&c, &(ask_slo){.tpot_s = 0.25}, why));
  assert_string_equal(why, "p95 TPOT 500 ms is 100 % over 250 ms");
}

/* More options than there is room for are an error, not fewer options. */
static void test_options(void **state) {
  (void)state;
  static cli_option own[ASK_MAX_OPTIONS + 1], all[ASK_MAX_OPTIONS];
  ask_command c = {0};
  int room = 0;
  unsigned has = ASK_HAS_MACHINE | ASK_HAS_SCENARIO | ASK_HAS_LIMITS | ASK_HAS_EXACT | ASK_HAS_DEPTH;
  assert_int_equal(ask_options(&c, has, own, all), HF_OK);
  while (all[room].name != NULL) room++;
  room = ASK_MAX_OPTIONS - 1 - room;
  for (int i = 0; i < room; i++) own[i].name = "own";
  assert_int_equal(ask_options(&c, has, own, all), HF_OK);
  assert_null(all[ASK_MAX_OPTIONS - 1].name);
  own[room].name = "one more";
  assert_int_equal(ask_options(&c, has, own, all), HF_MACHINE);
  assert_non_null(strstr(hf_error_line(), "ASK_MAX_OPTIONS"));
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_changes),
                                     cmocka_unit_test(test_axes),
                                     cmocka_unit_test(test_together),
                                     cmocka_unit_test(test_load),
                                     cmocka_unit_test(test_knee),
                                     cmocka_unit_test(test_regret),
                                     cmocka_unit_test(test_regret_of_alike),
                                     cmocka_unit_test(test_flip_on_the_way),
                                     cmocka_unit_test(test_regret_random),
                                     cmocka_unit_test(test_just_over),
                                     cmocka_unit_test(test_options),
                                     cmocka_unit_test(test_machine),
                                     cmocka_unit_test(test_scaled_kernels)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
