/* Scenarios: the built-in ones hold, files override, hostile files are refused with file and member. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "db/catalog.h"
#include "planner/money/scenario.h"

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-9 * fabs(b))

static money_fact exact(double v) {
  return (money_fact){.low = v, .likely = v, .high = v, .tag = TAG_SPEC, .source = "test"};
}

static money_machine machine(void) {
  money_machine m = {.name = "box", .price = exact(20000), .idle_w = exact(200), .active_w = exact(900)};
  m.part[0] = exact(8000);
  m.part[1] = (money_fact){6000, 7000, 9000, TAG_ASSUMED, "test"};
  m.part[2] = exact(2000);
  m.part[3] = exact(3000);
  m.part[4] = exact(NAN);
  return m;
}

static const money_load load = {.tok_per_s = {30, 40, 50},
                                .prefill_share = 0.2,
                                .input_per_output = 4,
                                .users = 5,
                                .rented_gpus = 8,
                                .tag = TAG_SPEC,
                                .source = "simulation"};

static hf_status parse(const char *text, money_scenario *s) {
  return money_scenario_parse(text, strlen(text), "my.json", s);
}

static void built_in(void **state) {
  (void)state;
  char **names;
  int n;
  assert_int_equal(catalog_names("scenarios", &names, &n), HF_OK);
  assert_true(n >= 3);
  for (int i = 0; i < n; i++) {
    money_scenario s;
    money_fact f[MONEY_N];
    money_machine m = machine();
    assert_int_equal(money_scenario_read(names[i], &s), HF_OK);
    assert_string_equal(s.name, names[i]);
    assert_true(strlen(s.title) > 5 && strlen(s.currency) > 0);
    assert_int_equal(money_inputs(&s, &m, &load, f), HF_OK);
    for (int k = 0; k < MONEY_N; k++)
      if (!isnan(f[k].likely)) assert_true(strlen(f[k].source) > 3);
  }
  free(names);
}

static void joined(void **state) {
  (void)state;
  money_scenario s;
  money_fact f[MONEY_N];
  money_machine m = machine();
  assert_int_equal(money_scenario_read(NULL, &s), HF_OK);
  assert_string_equal(s.currency, "USD");
  assert_int_equal(money_inputs(&s, &m, &load, f), HF_OK);
  NEAR(f[MONEY_PRICE].likely, 20000.0);
  NEAR(f[MONEY_PRICE].low, 19000.0);
  assert_int_equal(f[MONEY_PRICE].tag, TAG_ASSUMED);
  NEAR(f[MONEY_MIX].likely, 4.0); /* as simulated */
  NEAR(f[MONEY_RENT_GPUS].likely, 8.0);
  NEAR(f[MONEY_UTILISATION].likely, 0.3);
  NEAR(f[MONEY_TOK_PER_S].high, 50.0);
}

static void overrides(void **state) {
  (void)state;
  money_scenario s;
  money_fact f[MONEY_N], part[MONEY_N_CLASSES];
  money_machine m = machine();
  assert_int_equal(
      parse("{\"energy_price_per_kwh\": 0.5, \"pue\": {\"low\": 1, \"likely\": 1.1, \"high\": 1.2, \"tag\": "
            "\"measured\", \"source\": \"meter\", \"date\": \"2026-01-01\"},"
            "\"api_price_in_per_million\": null, \"api_price_out_per_million\": null, \"rented_gpu_price_per_hour\": "
            "null, \"input_per_output\": 2, \"utilisation\": 0.9, \"power_active_w\": 700,"
            "\"part_prices\": {\"gpu\": 0, \"extra\": {\"low\": 1, \"likely\": 50, \"high\": 60}}}",
            &s),
      HF_OK);
  assert_string_equal(s.name, "my.json");
  assert_int_equal(money_inputs(&s, &m, &load, f), HF_OK);
  NEAR(f[MONEY_PER_KWH].high, 0.5);
  assert_int_equal(f[MONEY_PUE].tag, TAG_MEASURED);
  assert_string_equal(f[MONEY_PUE].source, "meter (2026-01-01)");
  assert_true(isnan(f[MONEY_API_OUT].likely) && isnan(f[MONEY_RENT_HOUR].likely));
  NEAR(f[MONEY_MIX].likely, 2.0);
  NEAR(f[MONEY_UTILISATION].low, 0.9);
  assert_true(isnan(s.by_hour[0])); /* one number replaces the profile */
  NEAR(f[MONEY_ACTIVE_W].likely, 700.0);
  NEAR(f[MONEY_IDLE_W].likely, 200.0);
  NEAR(f[MONEY_PRICE].likely, 18050.0); /* the GPU is there already */
  assert_true(money_parts(&s, &m, part));
  NEAR(part[4].likely, 50.0);
  assert_int_equal(parse("{\"hardware_price\": 12345}", &s), HF_OK);
  assert_int_equal(money_inputs(&s, &m, &load, f), HF_OK);
  NEAR(f[MONEY_PRICE].likely, 12345.0);
  assert_false(money_parts(&s, &m, part));
}

/* 900 W busy, 200 W idle. Busy at noon only (hour 12: u = 1, else 0): 900 W at 0.50, 23 * 200 W at 0.10: (450 + 460) / 5,500 = 0.165455. Without
 * a profile every hour weighs alike: (0.5 + 23 * 0.1) / 24 = 0.116667. */
static void tariffs(void **state) {
  (void)state;
  money_scenario s;
  money_fact f[MONEY_N];
  money_machine m = machine();
  char prices[400] = "[", use[400] = "[", text[1200];
  for (int h = 0; h < 24; h++) {
    strcat(prices, h == 12 ? "0.5" : "0.1");
    strcat(use, h == 12 ? "1" : "0");
    strcat(prices, h < 23 ? "," : "]");
    strcat(use, h < 23 ? "," : "]");
  }
  snprintf(text, sizeof text, "{\"energy_price_per_kwh\": %s, \"utilisation_by_hour\": %s}", prices, use);
  assert_int_equal(parse(text, &s), HF_OK);
  assert_int_equal(money_inputs(&s, &m, &load, f), HF_OK);
  NEAR(f[MONEY_PER_KWH].likely, 910.0 / 5500);
  assert_non_null(strstr(f[MONEY_PER_KWH].source, "tariff"));
  snprintf(text, sizeof text, "{\"energy_price_per_kwh\": %s, \"utilisation\": 0.3}", prices);
  assert_int_equal(parse(text, &s), HF_OK);
  assert_int_equal(money_inputs(&s, &m, &load, f), HF_OK);
  NEAR(f[MONEY_PER_KWH].likely, 2.8 / 24);
  assert_int_equal(parse("{\"energy_price_per_kwh\": [0.1, 0.2]}", &s), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "an array of 24 prices"));
  prices[1] = '-';
  snprintf(text, sizeof text, "{\"energy_price_per_kwh\": %s}", prices);
  assert_int_equal(parse(text, &s), HF_INPUT);
}

static void currencies(void **state) {
  (void)state;
  money_scenario usd, s;
  money_fact f[MONEY_N];
  money_machine m = machine();
  assert_int_equal(money_scenario_read(NULL, &usd), HF_OK);
  assert_int_equal(parse("{\"currency\": \"Taler\", \"currency_per_usd\": 3, \"hosting_per_year\": 10}", &s), HF_OK);
  assert_string_equal(s.currency, "Taler");
  NEAR(s.f[MONEY_PER_KWH].likely, 3 * usd.f[MONEY_PER_KWH].likely);
  NEAR(s.f[MONEY_API_OUT].low, 3 * usd.f[MONEY_API_OUT].low);
  NEAR(s.f[MONEY_PUE].likely, usd.f[MONEY_PUE].likely);
  NEAR(s.f[MONEY_HOSTING].likely, 10.0); /* said in the new currency */
  assert_int_equal(money_inputs(&s, &m, &load, f), HF_OK);
  NEAR(f[MONEY_PRICE].likely, 60000.0);
  assert_int_equal(
      parse("{\"base\": \"eu\", \"currency\": \"CHF\", \"currency_per_usd\": {\"low\": 0.8, \"likely\": 0.9, \"high\": "
            "1}}",
            &s),
      HF_OK);
  money_scenario eu;
  assert_int_equal(money_scenario_read("eu", &eu), HF_OK);
  NEAR(s.f[MONEY_PER_KWH].likely, eu.f[MONEY_PER_KWH].likely * 0.9 / eu.per_usd.likely);
  assert_int_equal(parse("{\"currency\": \"EUR\"}", &s), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "currency_per_usd"));
}

static void hours(void **state) {
  (void)state;
  money_scenario s;
  char text[600] = "{\"utilisation_by_hour\": [";
  for (int h = 0; h < 24; h++) strcat(text, h == 0 ? "1" : ",0.5");
  strcat(text, "]}");
  assert_int_equal(parse(text, &s), HF_OK);
  NEAR(s.f[MONEY_UTILISATION].likely, (1 + 23 * 0.5) / 24);
  strcpy(text + strlen(text) - 1, ", \"utilisation\": {\"low\": 0.1, \"likely\": 0.7, \"high\": 0.8}}");
  assert_int_equal(parse(text, &s), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "mean of utilisation_by_hour"));
}

static void refused(void **state) {
  (void)state;
  static const struct {
    const char *text, *says;
  } cases[] = {
      {"[]", "not a JSON object"},
      {"{", "line 1"},
      {"{\"pu\": 1.2}", "did you mean 'pue'"},
      {"{\"energy_price_kwh\": 0.2}", "did you mean 'energy_price_per_kwh'"},
      {"{\"something_else_altogether\": 0.2}", "unknown member 'something_else_altogether'"},
      {"{\"tok_per_s\": 500}", "comes from the simulation"},
      {"{\"users\": 500}", "comes from the simulation"},
      {"{\"pue\": 0.5}", "pue: 0.5 is outside 1 to 5"},
      {"{\"pue\": \"1.2\"}", "neither a number"},
      {"{\"pue\": null}", "cannot be left open"},
      {"{\"pue\": {\"low\": 2, \"likely\": 1.5}}", "do not rise"},
      {"{\"pue\": {\"likely\": 1.5, \"most\": 3}}", "unknown member 'most'"},
      {"{\"pue\": {\"low\": 1.5}}", "value"},
      {"{\"pue\": {\"likely\": 1.5, \"tag\": \"sure\"}}", "tag is none of"},
      {"{\"utilisation\": 0}", "utilisation: 0 is outside"},
      {"{\"utilisation\": 1.5}", "utilisation"},
      {"{\"utilisation_by_hour\": [1]}", "24 shares"},
      {"{\"utilisation_by_hour\": [0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0]}", "all hours are 0"},
      {"{\"part_prices\": {\"mouse\": 3}}", "unknown part 'mouse'"},
      {"{\"part_prices\": {\"gpu\": -3}}", "part_prices.gpu"},
      {"{\"hardware_price\": 1e400}", "line 1"},
      {"{\"base\": \"defaul\"}", "did you mean 'default'"},
      {"{\"currency\": \"\"}", "currency"},
      {"{\"currency\": \"a very long name of a currency\"}", "currency"},
      {"{\"currency_per_usd\": 0}", "currency_per_usd"},
      {"{\"pue\": 1.2, \"pue\": 1.3}", "pue"},
      {"{\"notes\": [1]}", "notes"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    money_scenario s;
    hf_status st = parse(cases[i].text, &s);
    if (st != HF_INPUT && st != HF_NOT_FOUND) fail_msg("%s was taken", cases[i].text);
    if (strstr(hf_error_line(), cases[i].says) == NULL) fail_msg("%s: %s", cases[i].text, hf_error_line());
  }
  money_scenario s;
  assert_int_equal(money_scenario_read("nowhere/at/all.json", &s), HF_NOT_FOUND);
  assert_int_equal(money_scenario_read("euu", &s), HF_NOT_FOUND);
  assert_non_null(strstr(hf_error_line(), "'eu'"));
}

static void machines_without(void **state) {
  (void)state;
  money_scenario s;
  money_fact f[MONEY_N];
  money_machine m = {.name = "mine", .price = exact(NAN), .idle_w = exact(NAN), .active_w = exact(NAN)};
  for (int k = 0; k < MONEY_N_CLASSES; k++) m.part[k] = exact(NAN);
  assert_int_equal(money_scenario_read(NULL, &s), HF_OK);
  assert_int_equal(money_inputs(&s, &m, &load, f), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "hardware_price"));
  assert_int_equal(parse("{\"hardware_price\": 3000}", &s), HF_OK);
  assert_int_equal(money_inputs(&s, &m, &load, f), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "power_active_w"));
  assert_int_equal(parse("{\"hardware_price\": 3000, \"power_idle_w\": 50, \"power_active_w\": 300}", &s), HF_OK);
  assert_int_equal(money_inputs(&s, &m, &load, f), HF_OK);
  assert_int_equal(parse("{\"part_prices\": {\"gpu\": 5}}", &s), HF_OK);
  m.idle_w = m.active_w = exact(100);
  assert_int_equal(money_inputs(&s, &m, &load, f), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "part_prices.cpu"));
  m.price = exact(1000); /* a machine file that states one price */
  assert_int_equal(money_inputs(&s, &m, &load, f), HF_OK);
  NEAR(f[MONEY_PRICE].likely, 1005.0);
}

static void rows_of_a_machine(void **state) {
  (void)state;
  catalog_machine c;
  money_machine m;
  assert_int_equal(catalog_machine_build("xeon6-mrdimm-rtx4090", &c), HF_OK);
  cost_rows rows = {.machine = c.machine, .device = c.device, .figure = c.figure, .n_device = c.n_device, .n_figure = c.n_figure};
  money_machine_of(&rows, &m);
  double sum = 0;
  for (int k = 0; k < 4; k++) {
    assert_true(m.part[k].likely > 0 && m.part[k].low <= m.part[k].likely && m.part[k].likely <= m.part[k].high);
    sum += m.part[k].likely;
  }
  NEAR(sum, m.price.likely);
  assert_true(m.active_w.likely > m.idle_w.likely);
  catalog_machine_free(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(built_in), cmocka_unit_test(joined),           cmocka_unit_test(overrides),
      cmocka_unit_test(tariffs),  cmocka_unit_test(currencies),       cmocka_unit_test(hours),
      cmocka_unit_test(refused),  cmocka_unit_test(machines_without), cmocka_unit_test(rows_of_a_machine)};
  unsetenv("HF_CATALOG");
  return cmocka_run_group_tests(tests, NULL, NULL);
}
