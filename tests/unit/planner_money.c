/* Money: worked examples by hand, properties, doubt. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "planner/money/money.h"

static void set(money_fact *f, double v) {
  *f = (money_fact){.low = v, .likely = v, .high = v, .tag = TAG_ASSUMED};
}

static void between(money_fact *f, double low, double likely, double high) {
  *f = (money_fact){.low = low, .likely = likely, .high = high, .tag = TAG_ASSUMED};
}

/* 1.2 kW, 60 tokens/s, PUE 1.25, 0.06 a kWh, 30,000 over 5 years at 60 %: nothing else costs anything. */
static void worked(money_fact f[MONEY_N]) {
  memset(f, 0, MONEY_N * sizeof *f);
  set(&f[MONEY_TOK_PER_S], 60);
  set(&f[MONEY_USERS], 5);
  set(&f[MONEY_PRICE], 30000);
  set(&f[MONEY_ACTIVE_W], 1200);
  set(&f[MONEY_YEARS], 5);
  set(&f[MONEY_PUE], 1.25);
  set(&f[MONEY_PER_KWH], 0.06);
  set(&f[MONEY_UTILISATION], 0.6);
  set(&f[MONEY_CO2], 0.4);
  set(&f[MONEY_NAMED_USERS], 10);
  for (int i = MONEY_API_IN; i <= MONEY_RENT_UP; i++) set(&f[i], NAN);
}

#define NEAR(a, b) assert_true(fabs((a) - (b)) <= 1e-9 * fabs(b))

static void worked_example(void **state) {
  (void)state;
  money_fact f[MONEY_N];
  double v[MONEY_N];
  money_cost c;
  worked(f);
  assert_int_equal(money_check(f), HF_OK);
  money_likely(f, v);
  money_costs(v, &c);
  /* a million tokens: 1e6 / (60 * 3600) = 4.6296 h; 4.6296 * 1.2 * 1.25 = 6.9444 kWh; * 0.06 = 0.41667; 30,000 / (5 * 8760 * 0.6) =
   * 1.14155 an hour, * 4.6296 = 5.28495 */
  NEAR(c.kwh_per_million, 6.944444444444444);
  NEAR(c.part_per_million[1], 0.41666666666666667);
  NEAR(c.part_per_million[0], 5.284965330627431);
  NEAR(c.per_million, 5.701631997294098);
  NEAR(c.per_million_out, c.per_million);
  assert_true(c.per_million_in == 0);
  char text[32];
  snprintf(text, sizeof text, "%.2f %.2f", c.part_per_million[1], c.part_per_million[0]);
  assert_string_equal(text, "0.42 5.28");
  NEAR(c.co2_kg_per_million, 6.944444444444444 * 0.4);
  NEAR(c.tokens_per_month, 60 * 8760 * 3600.0 * 0.6 / 12);
  NEAR(c.per_month, c.per_million * c.tokens_per_month / 1e6);
  NEAR(c.per_user_month, c.per_month / 5);
  NEAR(c.per_named_user_month, c.per_month / 50);
}

/* 320,000 over 4 years + 3,000 + 4,500 = 87,500 a server and year; with 8 licences 119,000. Peak 100 requests/s at 9 an instance: 12 instances of
 * 2 GPUs, 24 GPUs, 3 servers, 262,500 a year. 30 requests/s on average are 946,080,000 a year: 0.277461 per 1,000. 1,000 in and 250 out at 1:3
 * weigh 1,750 input tokens: 0.158549 and 0.475647 a million. */
static void server_pattern(void **state) {
  (void)state;
  money_fleet f = {100, 30, 9, 2, 8, 320000, 4, 3000, 4500, false, 1000, 250, 3};
  money_fleet_cost c;
  assert_int_equal(money_fleet_costs(&f, &c), HF_OK);
  NEAR(c.server_per_year, 87500.0);
  assert_true(c.instances == 12 && c.servers == 3);
  NEAR(c.per_year, 262500.0);
  NEAR(c.per_thousand_requests, 0.2774606798579401);
  NEAR(c.per_million_in, 0.1585489599188229);
  NEAR(c.per_million_out, 0.4756468797564687);
  f.software_per_gpu = true;
  assert_int_equal(money_fleet_costs(&f, &c), HF_OK);
  NEAR(c.server_per_year, 119000.0);
  f.gpus_per_server = 0;
  assert_int_equal(money_fleet_costs(&f, &c), HF_INPUT);
  f = (money_fleet){100, 30, NAN, 2, 8, 320000, 4, 3000, 4500, false, 1000, 250, 3};
  assert_int_equal(money_fleet_costs(&f, &c), HF_INPUT);
}

/* Prefill takes a quarter of the time at 4 input tokens for each output token: a million output tokens take 12,500 s of the 16,667 s, the 4
 * million input tokens 4,167 s. */
static void input_and_output(void **state) {
  (void)state;
  money_fact f[MONEY_N];
  double v[MONEY_N];
  money_cost c, other;
  worked(f);
  set(&f[MONEY_PREFILL_SHARE], 0.25);
  set(&f[MONEY_SIM_MIX], 4);
  set(&f[MONEY_MIX], 4);
  money_likely(f, v);
  money_costs(v, &c);
  NEAR(c.per_million_out, 0.75 * 5.701631997294098);
  NEAR(c.per_million_in, 0.25 / 4 * 5.701631997294098);
  NEAR(c.per_million, 5.701631997294098 / 5); /* five times the tokens in the same time */
  NEAR(c.per_million, (c.per_million_out + 4 * c.per_million_in) / 5);
  NEAR(c.out_tokens_per_month, 60 * 8760 * 3600.0 * 0.6 / 12);
  v[MONEY_MIX] = 0;
  money_costs(v, &other); /* the same prices, another mix */
  NEAR(other.per_million_out, c.per_million_out);
  NEAR(other.per_million, c.per_million_out);
  NEAR(other.out_tokens_per_month, c.out_tokens_per_month / 0.75);
}

/* 30,000 against an API at 10 a million, no discount: 94.608 million tokens a month cost 946.08 there and 39.42 of energy here. */
static void against_api(void **state) {
  (void)state;
  money_fact f[MONEY_N];
  double v[MONEY_N];
  money_decision d;
  worked(f);
  set(&f[MONEY_API_IN], 1);
  set(&f[MONEY_API_OUT], 10);
  money_likely(f, v);
  money_decide(v, &d);
  const money_option *api = &d.way[MONEY_API];
  NEAR(api->per_month, 946.08);
  NEAR(api->payback_months, 30000 / (946.08 - 39.42));
  NEAR(api->npv, 60 * (946.08 - 39.42) - 30000);
  NEAR(api->break_even_tokens_per_month, 500 / (10e-6 - 0.4166666666666667e-6));
  NEAR(api->break_even_utilisation, api->break_even_tokens_per_month / 157.68e6);
  NEAR(api->tco_3, 36 * 946.08);
  NEAR(d.way[MONEY_OWN].tco_3, 30000 + 36 * 39.42 - 30000 * 0.4);
  NEAR(d.way[MONEY_OWN].tco_5, 30000 + 60 * 39.42);
  NEAR(d.way[MONEY_OWN].cash[12], 30000 + 12 * 39.42);
  assert_int_equal(d.cheapest, MONEY_OWN);
  assert_true(isnan(d.way[MONEY_RENT].npv));
  v[MONEY_API_OUT] = 0.4; /* less than the energy alone */
  money_decide(v, &d);
  assert_int_equal(d.cheapest, MONEY_API);
  assert_true(isinf(api->payback_months) && isinf(api->break_even_tokens_per_month) && api->npv < 0);
  v[MONEY_API_OUT] = 10;
  v[MONEY_API_CHANGE] = -0.5; /* halves every year: month 13 costs half of month 1 */
  money_decide(v, &d);
  NEAR(api->cash[13] - api->cash[12], 946.08 / 2);
  v[MONEY_MIX] = 1; /* one input token, half of them cached at a tenth */
  v[MONEY_API_CHANGE] = 0;
  v[MONEY_CACHED_SHARE] = 0.5;
  v[MONEY_API_CACHED] = 0.1;
  money_decide(v, &d);
  NEAR(api->per_million, (10 + 0.55) / 2);
}

static void against_rent(void **state) {
  (void)state;
  money_fact f[MONEY_N];
  double v[MONEY_N];
  money_decision d;
  worked(f);
  set(&f[MONEY_RENT_HOUR], 2);
  set(&f[MONEY_RENT_GPUS], 2);
  set(&f[MONEY_RENT_UP], 1);
  money_likely(f, v);
  money_decide(v, &d);
  const money_option *rent = &d.way[MONEY_RENT];
  NEAR(rent->per_month, 2920.0);
  NEAR(rent->payback_months, 30000 / (2920 - 39.42));
  assert_true(rent->break_even_tokens_per_month == 0); /* own fixed costs of 500 are below the flat 2,920 */
  v[MONEY_RENT_UP] = 0;                                /* by the hour of work */
  money_decide(v, &d);
  NEAR(rent->per_month, 0.6 * 2920);
  NEAR(rent->break_even_tokens_per_month, 500 / ((2920 - 65.7) / 157.68e6));
  v[MONEY_RENT_HOUR] = 0.2; /* 292 a month at most */
  money_decide(v, &d);
  assert_true(isinf(rent->break_even_tokens_per_month));
  assert_int_equal(d.cheapest, MONEY_RENT);
}

static uint64_t lcg = 1;
static double some(double lo, double hi) {
  lcg = lcg * 6364136223846793005u + 1442695040888963407u;
  return lo + (hi - lo) * (double)(lcg >> 40) / (double)(1 << 24);
}

/* NPV is positive exactly when owning is cheaper by levelised cost; at the break-even volume both cost the same. */
static void levelised_and_npv_agree(void **state) {
  (void)state;
  int own = 0;
  for (int k = 0; k < 2000; k++) {
    money_fact f[MONEY_N];
    double v[MONEY_N];
    money_decision d;
    money_cost c;
    worked(f);
    money_likely(f, v);
    v[MONEY_YEARS] = some(0.5, 8);
    v[MONEY_DISCOUNT] = some(0, 0.3);
    v[MONEY_RESIDUAL] = some(0, 0.5);
    v[MONEY_SETUP] = some(0, 3000);
    v[MONEY_IDLE_W] = some(0, 300);
    v[MONEY_STAFF] = some(0, 5000);
    v[MONEY_UTILISATION] = some(0.05, 1);
    v[MONEY_API_IN] = 0;
    v[MONEY_API_OUT] = some(0, 40);
    v[MONEY_API_CHANGE] = some(-0.8, 0.2);
    money_decide(v, &d);
    money_costs(v, &c);
    const money_option *api = &d.way[MONEY_API];
    assert_int_equal(d.cheapest == MONEY_OWN, api->npv >= 0);
    own += d.cheapest == MONEY_OWN;
    double sum = 0;
    for (int i = 0; i < MONEY_N_PARTS; i++) sum += c.part_per_million[i];
    NEAR(sum, c.per_million);
    if (!isfinite(api->break_even_tokens_per_month)) continue;
    double u = api->break_even_utilisation;
    if (u < 0.001 || u > 1) continue;
    v[MONEY_UTILISATION] = u;
    money_decide(v, &d);
    NEAR(d.way[MONEY_OWN].per_month, d.way[MONEY_API].levelised_per_month);
  }
  assert_in_range(own, 200, 1800);
}

/* The annuity against its closed form: 12 % a year for 4 years, by hand 1 / CRF. */
static void discounting(void **state) {
  (void)state;
  money_fact f[MONEY_N];
  double v[MONEY_N];
  money_cost c;
  worked(f);
  set(&f[MONEY_YEARS], 4);
  set(&f[MONEY_DISCOUNT], 0.12);
  set(&f[MONEY_RESIDUAL], 0.1);
  set(&f[MONEY_SETUP], 1000);
  money_likely(f, v);
  money_costs(v, &c);
  double g = pow(1.12, 1.0 / 12), last = pow(1.12, -4), annuity = (1 - last) / (g - 1);
  NEAR(c.part_per_year[0], 12 * (31000 - 3000 * last) / annuity);
}

static void doubt(void **state) {
  (void)state;
  money_fact f[MONEY_N];
  money_sample_result a, b;
  plan_range r;
  worked(f);
  set(&f[MONEY_API_IN], 1);
  between(&f[MONEY_API_OUT], 2, 6, 12);
  between(&f[MONEY_TOK_PER_S], 40, 60, 80);
  between(&f[MONEY_UTILISATION], 0.3, 0.6, 0.8);
  assert_int_equal(money_sample(f, MONEY_DRAWS, 7, &a), HF_OK);
  assert_int_equal(money_sample(f, MONEY_DRAWS, 7, &b), HF_OK);
  assert_memory_equal(&a, &b, sizeof a);
  assert_true(a.per_million.p10 < a.per_million.p50 && a.per_million.p50 < a.per_million.p90);
  assert_true(a.per_million.p10 > 3 && a.per_million.p90 < 18);
  assert_true(a.cheapest[MONEY_OWN] > 0.1 && a.cheapest[MONEY_API] > 0.1 && a.cheapest[MONEY_RENT] == 0);
  assert_true(isnan(a.rent_npv.p50));
  assert_int_equal(money_sample(f, MONEY_DRAWS, 8, &b), HF_OK);
  assert_true(a.per_million.p50 != b.per_million.p50);
  assert_true(fabs(a.per_million.p50 / b.per_million.p50 - 1) < 0.02);
  assert_int_equal(money_per_million(f, &r), HF_OK);
  NEAR(r.likely, 5.701631997294098);
  assert_true(fabs(r.low / a.per_million.p10 - 1) < 0.05 && fabs(r.high / a.per_million.p90 - 1) < 0.05);
  /* the triangle's quantiles, by hand: 10 % of (40, 60, 80) lies below 40 + sqrt(0.1 * 40 * 20) */
  worked(f);
  between(&f[MONEY_TOK_PER_S], 40, 60, 80);
  set(&f[MONEY_PER_KWH], 0);
  assert_int_equal(money_sample(f, MONEY_DRAWS, 3, &a), HF_OK);
  assert_true(fabs(a.per_million.p90 / (5.284965330627431 * 60 / 48.94427190999916) - 1) < 0.01);
}

static void tornado(void **state) {
  (void)state;
  money_fact f[MONEY_N];
  money_lever l[MONEY_N];
  worked(f);
  set(&f[MONEY_API_IN], 1);
  between(&f[MONEY_API_OUT], 2, 6, 12);
  between(&f[MONEY_TOK_PER_S], 40, 60, 80);
  between(&f[MONEY_PUE], 1.1, 1.25, 1.5);
  int n = money_tornado(f, l), api = -1;
  assert_true(n >= 3);
  assert_int_equal(l[0].input, MONEY_TOK_PER_S);
  assert_true(l[0].flips && l[0].cheapest_low == MONEY_API && l[0].cheapest_high == MONEY_OWN);
  NEAR(l[0].per_million_low, 1.5 * 5.701631997294098);
  NEAR(l[0].flips_at, 60 * 5.701631997294098 / 6);
  for (int i = 0; i < n; i++) {
    assert_true(i == 0 ||
                fabs(l[i].per_million_high - l[i].per_million_low) <= fabs(l[i - 1].per_million_high - l[i - 1].per_million_low));
    if (l[i].input == MONEY_API_OUT) api = i;
    if (l[i].input == MONEY_PUE) assert_false(l[i].flips);
  }
  assert_true(api >= 0 && l[api].flips && l[api].flips_to == MONEY_API);
  NEAR(l[api].flips_at, 5.701631997294098);
  assert_true(l[api].per_million_low == l[api].per_million_high); /* the own cost does not know the API's price */
}

static void refusals(void **state) {
  (void)state;
  money_fact f[MONEY_N];
  for (int i = 0; i < MONEY_N; i++) {
    double lo, hi;
    money_input_limits((money_input)i, &lo, &hi);
    assert_int_equal(money_input_find(money_input_name((money_input)i)), i);
    assert_true(strlen(money_input_words((money_input)i)) > 2 && strlen(money_input_unit((money_input)i)) > 0);
    for (int k = 0; k < 4; k++) {
      worked(f);
      if (k == 0) set(&f[i], hi * 2);
      if (k == 1) set(&f[i], lo - 1);
      if (k == 2) between(&f[i], hi, lo, hi);
      if (k == 3) set(&f[i], INFINITY);
      assert_int_equal(money_check(f), HF_INPUT);
      assert_non_null(strstr(hf_error_line(), money_input_name((money_input)i)));
    }
  }
  assert_int_equal(money_input_find("price"), -1);
  worked(f);
  set(&f[MONEY_PRICE], NAN);
  assert_int_equal(money_check(f), HF_INPUT);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(worked_example),   cmocka_unit_test(server_pattern),
                                     cmocka_unit_test(input_and_output), cmocka_unit_test(against_api),
                                     cmocka_unit_test(against_rent),     cmocka_unit_test(levelised_and_npv_agree),
                                     cmocka_unit_test(discounting),      cmocka_unit_test(doubt),
                                     cmocka_unit_test(tornado),          cmocka_unit_test(refusals)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
