/* What hf-plan roi says: the ruling and its words, prices of hosted models. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "db/catalog.h"
#include "planner/money/roi.h"

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-9 * fabs(b))

static void set(money_fact *f, double v) {
  *f = (money_fact){.low = v, .likely = v, .high = v, .tag = TAG_ASSUMED};
}

/* The worked example of planner_money.c: 5.7016 a million output tokens, no input; an API whose price is in doubt. */
static const double OWN = 5.701631997294098;

static void fill(roi *r, double low, double likely, double high) {
  static const money_scenario scenario = {.currency = "USD", .name = "test", .title = "test"};
  static const money_machine machine = {.name = "box"};
  double v[MONEY_N];
  *r = (roi){.scenario = &scenario, .machine = &machine, .model = "moe", .api_from = MONEY_API_STATED};
  set(&r->f[MONEY_TOK_PER_S], 60);
  set(&r->f[MONEY_USERS], 5);
  set(&r->f[MONEY_PRICE], 30000);
  set(&r->f[MONEY_ACTIVE_W], 1200);
  set(&r->f[MONEY_YEARS], 5);
  set(&r->f[MONEY_PUE], 1.25);
  set(&r->f[MONEY_PER_KWH], 0.06);
  set(&r->f[MONEY_UTILISATION], 0.6);
  set(&r->f[MONEY_NAMED_USERS], 10);
  for (int i = MONEY_API_IN; i <= MONEY_RENT_UP; i++) set(&r->f[i], NAN);
  set(&r->f[MONEY_API_IN], 0);
  r->f[MONEY_API_OUT] = (money_fact){.low = low * OWN, .likely = likely * OWN, .high = high * OWN, .tag = TAG_ASSUMED};
  money_likely(r->f, v);
  money_costs(v, &r->cost);
  money_decide(v, &r->decision);
  r->n_levers = money_tornado(r->f, r->lever);
  assert_int_equal(money_sample(r->f, MONEY_DRAWS, 1, &r->sample), HF_OK);
}

/* The API's price between 1, 2 and 3 times x, where owning costs 1.95 x: owning is cheaper in 1 - 0.95^2 / 2 = 54.9 % of the draws. */
static void undecided(void **state) {
  (void)state;
  roi r;
  roi_ruling x;
  char said[ROI_VERDICT];
  fill(&r, 1 / 1.95, 2 / 1.95, 3 / 1.95);
  roi_rule(&r, &x);
  assert_false(x.decided);
  assert_int_equal(x.first, MONEY_OWN);
  assert_int_equal(x.second, MONEY_API);
  assert_true(fabs(x.share_first - 0.54875) < 0.015);
  NEAR(x.share_first + x.share_second, 1.0);
  assert_int_equal(x.lever->input, MONEY_API_OUT);
  NEAR(x.lever->flips_at, OWN);
  roi_verdict(&r, said);
  /* 2 / 1.95 * 5.7016 = 5.848; / 1.95 = 2.924; * 3 / 1.95 = 8.772 */
  assert_non_null(
      strstr(said, "Undecided: over all doubts owning the machine is the cheapest way in 55 % of the draws, the API in 45 %."));
  assert_non_null(strstr(
      said,
      "What decides is 'API, per million output tokens': assumed 5.85 (2.92 to 8.77), below 5.70 the cheapest way is the API."));
  assert_null(strstr(said, "Cheapest is"));
}

/* Between 1, 2 and 3 times x against 1.3 x: 1 - 0.3^2 / 2 = 95.5 %. */
static void decided(void **state) {
  (void)state;
  roi r;
  roi_ruling x;
  char said[ROI_VERDICT];
  fill(&r, 1 / 1.3, 2 / 1.3, 3 / 1.3);
  roi_rule(&r, &x);
  assert_true(x.decided && x.first == MONEY_OWN && fabs(x.share_first - 0.955) < 0.01);
  roi_verdict(&r, said);
  assert_non_null(strstr(said, "Cheapest is owning the machine, in 9"));
  assert_non_null(strstr(said, "within its own doubt"));
  fill(&r, 2, 3, 4);
  r.f[MONEY_API_OUT] = (money_fact){NAN, NAN, NAN, TAG_ASSUMED, ""};
  double v[MONEY_N];
  money_likely(r.f, v);
  money_decide(v, &r.decision);
  roi_rule(&r, &x);
  assert_true(x.alone && x.decided);
  roi_verdict(&r, said);
  assert_memory_equal(said, "A million tokens of moe on box, input and output together, cost 5.70 USD", 70);
}

/* Likely 1.1 x, up to 3 x, against 1.3 x: as assumed the API wins, in 1.7^2 / (2 * 1.9) = 76 % of the draws owning does. */
static void draws_against_likely(void **state) {
  (void)state;
  roi r;
  roi_ruling x;
  char said[ROI_VERDICT];
  fill(&r, 1 / 1.3, 1.1 / 1.3, 3 / 1.3);
  roi_rule(&r, &x);
  assert_false(x.decided);
  assert_true(r.decision.cheapest == MONEY_API && x.first == MONEY_OWN && fabs(x.share_first - 0.7605) < 0.015);
  roi_verdict(&r, said);
  assert_non_null(
      strstr(said, "Undecided: at the likely values the API is the cheapest way, over all doubts owning the machine in 76 %"));
  assert_non_null(strstr(said, "from 5.70 the cheapest way is owning the machine."));
}

/* Half the price each year over 2 years, no discount: the months' mean is a * (1 - g^24) / (24 (1 - g)), g = 0.5^(1/12). */
static void today_and_levelised(void **state) {
  (void)state;
  roi r;
  double v[MONEY_N];
  char said[ROI_VERDICT];
  fill(&r, 1, 1, 1);
  set(&r.f[MONEY_API_OUT], 8);
  set(&r.f[MONEY_YEARS], 2);
  set(&r.f[MONEY_API_CHANGE], -0.5);
  money_likely(r.f, v);
  money_decide(v, &r.decision);
  double g = pow(0.5, 1.0 / 12), later = 8 * 0.75 / (24 * (1 - g)); /* 4.455 */
  NEAR(r.decision.way[MONEY_API].per_million, 8.0);
  NEAR(r.decision.way[MONEY_API].levelised_per_million, later);
  roi_verdict(&r, said);
  assert_non_null(strstr(
      said,
      "Against the API at 8.00 USD for a million tokens in and out today, 4.45 levelised (the average over 2 years with prices "
      "falling 50 % a year), the machine"));
  r.api_from = MONEY_API_ASSUMED;
  roi_verdict(&r, said);
  assert_non_null(strstr(said, "That API price is an assumption"));
}

static hf_status parse(const char *text, money_scenario *s) {
  return money_scenario_parse(text, strlen(text), "my.json", s);
}

/* Which price of the API counts: the scenario's own, then the model's list price, then the default's as an assumption. */
static void api_prices(void **state) {
  (void)state;
  money_scenario s;
  money_fact f[MONEY_N];
  money_api_origin from;
  assert_int_equal(money_scenario_read(NULL, &s), HF_OK);
  memcpy(f, s.f, sizeof f);
  assert_int_equal(money_api_prices(&s, "kimi-k2", f, &from), HF_OK);
  assert_int_equal(from, MONEY_API_LISTED);
  NEAR(f[MONEY_API_IN].likely, 0.6); /* Moonshot's list */
  NEAR(f[MONEY_API_OUT].likely, 2.5);
  NEAR(f[MONEY_API_OUT].high, 3.0);
  NEAR(f[MONEY_API_CACHED].likely, 0.15);
  assert_int_equal(f[MONEY_API_OUT].tag, TAG_SPEC);
  assert_non_null(strstr(f[MONEY_API_OUT].source, "Moonshot"));
  assert_non_null(strstr(f[MONEY_API_OUT].source, "(2026-07-02)"));

  memcpy(f, s.f, sizeof f); /* a list without a price for cached input: the full price counts */
  assert_int_equal(money_api_prices(&s, "mixtral-8x7b", f, &from), HF_OK);
  assert_true(from == MONEY_API_LISTED && isnan(f[MONEY_API_CACHED].likely));

  static const char *const unlisted[] = {"olmoe-1b-7b", "/no/such/folder", "synth:x.json"};
  for (int i = 0; i < 3; i++) {
    memcpy(f, s.f, sizeof f);
    assert_int_equal(money_api_prices(&s, unlisted[i], f, &from), HF_OK);
    assert_int_equal(from, MONEY_API_ASSUMED);
    assert_int_equal(f[MONEY_API_IN].tag, TAG_ASSUMED);
    assert_non_null(strstr(f[MONEY_API_IN].source, "no list price of this model is known"));
    NEAR(f[MONEY_API_IN].likely, s.f[MONEY_API_IN].likely);
  }

  assert_int_equal(parse("{\"api_price_out_per_million\": 4, \"currency\": \"EUR\", \"currency_per_usd\": 0.5}", &s), HF_OK);
  memcpy(f, s.f, sizeof f);
  assert_int_equal(money_api_prices(&s, "kimi-k2", f, &from), HF_OK);
  NEAR(f[MONEY_API_OUT].likely, 4.0);
  NEAR(f[MONEY_API_IN].likely, 0.3); /* listed, in EUR */
  assert_int_equal(parse("{\"api_price_in_per_million\": 1, \"api_price_out_per_million\": 4}", &s), HF_OK);
  memcpy(f, s.f, sizeof f);
  assert_int_equal(money_api_prices(&s, "kimi-k2", f, &from), HF_OK);
  assert_true(from == MONEY_API_STATED && f[MONEY_API_IN].likely == 1);
  assert_int_equal(parse("{\"api_price_in_per_million\": null}", &s), HF_OK);
  memcpy(f, s.f, sizeof f);
  assert_int_equal(money_api_prices(&s, "kimi-k2", f, &from), HF_OK);
  assert_true(from == MONEY_API_NONE && isnan(f[MONEY_API_IN].likely));
}

/* Every list price of the catalog can be read, rises from low to high, and input never costs more than output. */
static void listed(void **state) {
  (void)state;
  char **names;
  int n, priced = 0;
  money_scenario s;
  assert_int_equal(money_scenario_read(NULL, &s), HF_OK);
  assert_int_equal(catalog_names("models", &names, &n), HF_OK);
  for (int i = 0; i < n; i++) {
    money_fact f[MONEY_N];
    money_api_origin from;
    memcpy(f, s.f, sizeof f);
    assert_int_equal(money_api_prices(&s, names[i], f, &from), HF_OK);
    if (from != MONEY_API_LISTED) continue;
    priced++;
    assert_true(f[MONEY_API_IN].likely <= f[MONEY_API_OUT].likely);
    assert_true(isnan(f[MONEY_API_CACHED].likely) || f[MONEY_API_CACHED].likely <= f[MONEY_API_IN].likely);
    assert_true(strlen(f[MONEY_API_IN].source) > 40);
  }
  free(names);
  assert_true(priced >= 30);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(undecided),           cmocka_unit_test(decided),    cmocka_unit_test(draws_against_likely),
      cmocka_unit_test(today_and_levelised), cmocka_unit_test(api_prices), cmocka_unit_test(listed)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
