/* money.c: names and limits of the inputs, costs, the decision. */
#include "planner/money/money.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/money/money_int.h"

enum { HOURS_PER_YEAR = 8760, MONTHS_PER_YEAR = 12, SECONDS_PER_HOUR = 3600 };

/* ---- inputs ---- */

static const struct {
  const char *name, *words, *unit;
  double lo, hi;
} inputs[MONEY_N] = {
    [MONEY_TOK_PER_S] = {"tok_per_s", "tokens/s, simulated", "1/s", 1e-6, 1e9},
    [MONEY_PREFILL_SHARE] = {"prefill_share", "share of the time that prefill takes, simulated", "share", 0, 0.999},
    [MONEY_SIM_MIX] = {"simulated_input_per_output", "input tokens per output token, simulated", "1", 0, 1e6},
    [MONEY_USERS] = {"users", "users served at once", "1", 0, 1e6},
    [MONEY_PRICE] = {"hardware_price", "price of the hardware", "money", 0, 1e12},
    [MONEY_IDLE_W] = {"power_idle_w", "power, idle", "W", 0, 1e7},
    [MONEY_ACTIVE_W] = {"power_active_w", "power, busy", "W", 0, 1e7},
    [MONEY_SETUP] = {"setup_price", "delivery and installation", "money", 0, 1e12},
    [MONEY_RESIDUAL] = {"residual_share", "share of the price left at the end", "share", 0, 1},
    [MONEY_YEARS] = {"depreciation_years", "years of use", "years", 0.25, 30},
    [MONEY_DISCOUNT] = {"discount_rate", "discount rate a year", "share", 0, 1},
    [MONEY_PUE] = {"pue", "power of the building per power of the machine (PUE)", "1", 1, 5},
    [MONEY_PER_KWH] = {"energy_price_per_kwh", "price of a kWh", "money/kWh", 0, 1e6},
    [MONEY_HOSTING] = {"hosting_per_year", "hosting a year", "money/year", 0, 1e12},
    [MONEY_SUPPORT] = {"support_per_year", "support contract a year", "money/year", 0, 1e12},
    [MONEY_SOFTWARE] = {"software_per_year", "software licences a year", "money/year", 0, 1e12},
    [MONEY_STAFF] = {"staff_per_year", "staff a year", "money/year", 0, 1e12},
    [MONEY_UTILISATION] = {"utilisation", "share of all hours at work", "share", 0.0001, 1},
    [MONEY_MIX] = {"input_per_output", "input tokens per output token", "1", 0, 1e6},
    [MONEY_API_IN] = {"api_price_in_per_million", "API, per million input tokens", "money/M", 0, 1e9},
    [MONEY_API_OUT] = {"api_price_out_per_million", "API, per million output tokens", "money/M", 0, 1e9},
    [MONEY_API_CACHED] = {"api_price_cached_per_million", "API, per million cached input tokens", "money/M", 0, 1e9},
    [MONEY_CACHED_SHARE] = {"api_cached_share", "share of the input that the API has cached", "share", 0, 1},
    [MONEY_API_CHANGE] = {"api_price_change_per_year", "change of the API's prices a year", "share", -0.99, 1},
    [MONEY_RENT_HOUR] = {"rented_gpu_price_per_hour", "a rented GPU, per hour", "money/h", 0, 1e6},
    [MONEY_RENT_GPUS] = {"rented_gpus", "rented GPUs instead of the machine", "1", 0, 1e5},
    [MONEY_RENT_UP] = {"rented_up_share", "share of the hours rented at least", "share", 0, 1},
    [MONEY_CO2] = {"co2_kg_per_kwh", "CO2 of a kWh", "kg/kWh", 0, 100},
    [MONEY_NAMED_USERS] = {"named_users_per_active", "people per user served at once", "1", 1, 1e6},
};

const char *money_input_name(money_input i) {
  return inputs[i].name;
}

const char *money_input_words(money_input i) {
  return inputs[i].words;
}

const char *money_input_unit(money_input i) {
  return inputs[i].unit;
}

void money_input_limits(money_input i, double *lo, double *hi) {
  *lo = inputs[i].lo;
  *hi = inputs[i].hi;
}

int money_input_find(const char *name) {
  for (int i = 0; i < MONEY_N; i++)
    if (strcmp(name, inputs[i].name) == 0) return i;
  return -1;
}

static bool may_be_absent(int i) {
  return (i >= MONEY_API_IN && i <= MONEY_API_CHANGE) || (i >= MONEY_RENT_HOUR && i <= MONEY_RENT_UP);
}

hf_status money_check(const money_fact f[MONEY_N]) {
  for (int i = 0; i < MONEY_N; i++) {
    const money_fact *x = &f[i];
    if (may_be_absent(i) && isnan(x->likely)) continue;
    if (!isfinite(x->low) || !isfinite(x->likely) || !isfinite(x->high))
      return hf_fail(HF_INPUT, "%s (%s) is not known: state it in a scenario", inputs[i].name, inputs[i].words);
    if (x->low > x->likely || x->likely > x->high)
      return hf_fail(HF_INPUT, "%s: low %g, likely %g, high %g do not rise", inputs[i].name, x->low, x->likely, x->high);
    if (x->low < inputs[i].lo || x->high > inputs[i].hi)
      return hf_fail(HF_INPUT, "%s: %g to %g is outside %g to %g", inputs[i].name, x->low, x->high, inputs[i].lo, inputs[i].hi);
  }
  return HF_OK;
}

void money_likely(const money_fact f[MONEY_N], double v[MONEY_N]) {
  for (int i = 0; i < MONEY_N; i++) v[i] = f[i].likely;
}

bool money_has_api(const double v[MONEY_N]) {
  return !isnan(v[MONEY_API_IN]) && !isnan(v[MONEY_API_OUT]);
}

bool money_has_rent(const double v[MONEY_N]) {
  return !isnan(v[MONEY_RENT_HOUR]) && !isnan(v[MONEY_RENT_GPUS]);
}

/* ---- time value ---- */

static double or_else(double v, double fallback) {
  return isnan(v) ? fallback : v;
}

static double power_of(double x, int n) {
  double r = 1;
  for (; n > 0; n >>= 1, x *= x)
    if (n & 1) r *= x;
  return r;
}

/* x^(1/12) by Newton's method, from above, where it falls until rounding stops it; x > 0. */
static double twelfth_root(double x) {
  double y = x > 1 ? x : 1;
  for (int i = 0; i < 200; i++) {
    double next = (11 * y + x / power_of(y, 11)) / 12;
    if (!(next < y)) break;
    y = next;
  }
  return y;
}

typedef struct {
  double g;       /* 1 + discount of a month */
  double annuity; /* present value of 1 a month over n months */
  double last;    /* present value of 1 after n months */
  int n;
} horizon;

static horizon horizon_of(const double v[MONEY_N]) {
  horizon h = {.n = (int)(v[MONEY_YEARS] * MONTHS_PER_YEAR + 0.5)};
  if (h.n < 1) h.n = 1;
  h.g = v[MONEY_DISCOUNT] > 0 ? twelfth_root(1 + v[MONEY_DISCOUNT]) : 1;
  h.last = 1;
  for (int m = 1; m <= h.n; m++) {
    h.last /= h.g;
    h.annuity += h.last;
  }
  return h;
}

/* ---- costs ---- */

const char *const money_part_name[MONEY_N_PARTS] = {"hardware", "energy", "hosting", "support", "software", "staff"};

/* Seconds of work for a million input tokens and for a million output tokens. */
static void work_seconds(const double v[MONEY_N], double *in, double *out) {
  double rate = v[MONEY_TOK_PER_S], mix = v[MONEY_SIM_MIX], share = mix > 0 ? v[MONEY_PREFILL_SHARE] : 0;
  *out = 1e6 * (1 - share) / rate;
  *in = mix > 0 ? 1e6 * share / (rate * mix) : 0;
}

static double kwh_of_year(const double v[MONEY_N], double u) {
  return HOURS_PER_YEAR / 1000.0 * (u * v[MONEY_ACTIVE_W] + (1 - u) * v[MONEY_IDLE_W]) * v[MONEY_PUE];
}

static double capital_per_month(const double v[MONEY_N], const horizon *h) {
  return (v[MONEY_PRICE] + v[MONEY_SETUP] - v[MONEY_RESIDUAL] * v[MONEY_PRICE] * h->last) / h->annuity;
}

void money_costs(const double v[MONEY_N], money_cost *c) {
  horizon h = horizon_of(v);
  double s_in, s_out, u = v[MONEY_UTILISATION], mix = v[MONEY_MIX];
  *c = (money_cost){0};
  work_seconds(v, &s_in, &s_out);
  c->kwh_per_year = kwh_of_year(v, u);
  double parts[MONEY_N_PARTS] = {MONTHS_PER_YEAR * capital_per_month(v, &h),
                                 c->kwh_per_year * v[MONEY_PER_KWH],
                                 v[MONEY_HOSTING],
                                 v[MONEY_SUPPORT],
                                 v[MONEY_SOFTWARE],
                                 v[MONEY_STAFF]};
  memcpy(c->part_per_year, parts, sizeof parts);
  for (int i = 0; i < MONEY_N_PARTS; i++) c->per_year += parts[i];
  c->cash_per_year = c->per_year - parts[0];
  c->per_month = c->per_year / MONTHS_PER_YEAR;

  double seconds = (double)HOURS_PER_YEAR * SECONDS_PER_HOUR * u, per_second = c->per_year / seconds;
  double blended = (s_out + mix * s_in) / (1 + mix); /* seconds for a million tokens, input and output together */
  c->per_million_in = per_second * s_in;
  c->per_million_out = per_second * s_out;
  c->per_million = per_second * blended;
  for (int i = 0; i < MONEY_N_PARTS; i++) c->part_per_million[i] = parts[i] / seconds * blended;
  c->out_tokens_per_month = seconds / MONTHS_PER_YEAR / (s_out + mix * s_in) * 1e6;
  c->in_tokens_per_month = c->out_tokens_per_month * mix;
  c->tokens_per_month = c->out_tokens_per_month + c->in_tokens_per_month;
  c->capacity_tokens_per_month = c->tokens_per_month / u;
  c->tokens_per_money = c->per_million > 0 ? 1e6 / c->per_million : INFINITY;
  c->kwh_per_million = c->kwh_per_year / seconds * blended;
  c->co2_kg_per_year = c->kwh_per_year * v[MONEY_CO2];
  c->co2_kg_per_million = c->kwh_per_million * v[MONEY_CO2];
  c->users = v[MONEY_USERS];
  c->named_users = v[MONEY_USERS] * v[MONEY_NAMED_USERS];
  c->per_user_month = c->users > 0 ? c->per_month / c->users : INFINITY;
  c->per_named_user_month = c->named_users > 0 ? c->per_month / c->named_users : INFINITY;
}

/* ---- the decision ---- */

const char *const money_way_name[MONEY_N_WAYS] = {"own", "api", "rent"};

/* Price of a million tokens at the scenario's mix. */
static double api_blended(const double v[MONEY_N]) {
  double mix = v[MONEY_MIX], hit = or_else(v[MONEY_CACHED_SHARE], 0);
  double in = hit * or_else(v[MONEY_API_CACHED], v[MONEY_API_IN]) + (1 - hit) * v[MONEY_API_IN];
  return (v[MONEY_API_OUT] + mix * in) / (1 + mix);
}

/* What m months cost from now on, for m = 0..n; fall: factor of a month on what each costs. */
typedef struct {
  double first, fall;
} bill;

static double levelised(const bill *b, const horizon *h) {
  double sum = 0, at = b->first, worth = 1;
  if (b->fall == 1) return b->first;
  for (int m = 1; m <= h->n; m++, at *= b->fall) {
    worth /= h->g;
    sum += at * worth;
  }
  return sum / h->annuity;
}

static double paid(const bill *b, int months) {
  double sum = 0, at = b->first;
  for (int m = 1; m <= months; m++, at *= b->fall) sum += at;
  return sum;
}

static double payback(const bill *b, double cash_per_month, double capital) {
  double left = capital, at = b->first;
  if (capital <= 0) return 0;
  for (int m = 1; m <= MONEY_PAYBACK_MONTHS; m++, at *= b->fall) {
    double saved = at - cash_per_month;
    if (saved >= left) return m - 1 + left / saved;
    left -= saved;
  }
  return INFINITY;
}

static void fill_option(money_option *o, const bill *b, const horizon *h, const money_cost *c) {
  o->per_month = b->first;
  o->levelised_per_month = levelised(b, h);
  o->per_million = 1e6 * o->per_month / c->tokens_per_month;
  o->levelised_per_million = 1e6 * o->levelised_per_month / c->tokens_per_month;
  o->tco_3 = paid(b, 36);
  o->tco_5 = paid(b, 60);
  for (int m = 0; m <= MONEY_CASH_MONTHS; m++) o->cash[m] = paid(b, m);
}

static void against(const double v[MONEY_N], const bill *b, const horizon *h, const money_cost *c, money_option *o) {
  double cash = c->cash_per_year / MONTHS_PER_YEAR;
  o->payback_months = payback(b, cash, v[MONEY_PRICE] + v[MONEY_SETUP]);
  o->npv = (o->levelised_per_month - cash - capital_per_month(v, h)) * h->annuity;
}

/* Own cost of a month is fixed + marginal * tokens. */
static void own_line(const double v[MONEY_N], const money_cost *c, double *fixed, double *marginal) {
  double idle = kwh_of_year(v, 0), busy = kwh_of_year(v, 1);
  *fixed = (c->per_year - c->part_per_year[1] + idle * v[MONEY_PER_KWH]) / MONTHS_PER_YEAR;
  *marginal = (busy - idle) * v[MONEY_PER_KWH] / MONTHS_PER_YEAR / c->capacity_tokens_per_month;
}

static void break_even_api(const double v[MONEY_N], const money_cost *c, money_option *o) {
  double fixed, marginal, price = o->levelised_per_million / 1e6;
  own_line(v, c, &fixed, &marginal);
  o->break_even_tokens_per_month = price > marginal ? fixed / (price - marginal) : INFINITY;
  o->break_even_utilisation = o->break_even_tokens_per_month / c->capacity_tokens_per_month;
}

/* The rented bill is flat up to the share of hours rented anyway, then grows with the hours of work. */
static void break_even_rent(const double v[MONEY_N], const money_cost *c, money_option *o) {
  double fixed, marginal, month = HOURS_PER_YEAR / (double)MONTHS_PER_YEAR * v[MONEY_RENT_GPUS] * v[MONEY_RENT_HOUR];
  double up = or_else(v[MONEY_RENT_UP], 1), flat = month * up, per_token = month / c->capacity_tokens_per_month,
         tokens = INFINITY;
  own_line(v, c, &fixed, &marginal);
  if (fixed <= flat) tokens = 0;
  else if (per_token > marginal) tokens = fixed / (per_token - marginal);
  if (tokens > c->capacity_tokens_per_month) tokens = INFINITY;
  o->break_even_tokens_per_month = tokens;
  o->break_even_utilisation = tokens / c->capacity_tokens_per_month;
}

static double book_value(const double v[MONEY_N], double years) {
  double share = years < v[MONEY_YEARS] ? years / v[MONEY_YEARS] : 1;
  return v[MONEY_PRICE] * (1 - (1 - v[MONEY_RESIDUAL]) * share);
}

static void own_option(const double v[MONEY_N], const money_cost *c, money_option *o) {
  double capital = v[MONEY_PRICE] + v[MONEY_SETUP];
  *o = (money_option){.per_month = c->per_month,
                      .levelised_per_month = c->per_month,
                      .per_million = c->per_million,
                      .levelised_per_million = c->per_million,
                      .tco_3 = capital + 3 * c->cash_per_year - book_value(v, 3),
                      .tco_5 = capital + 5 * c->cash_per_year - book_value(v, 5),
                      .payback_months = NAN,
                      .npv = NAN,
                      .break_even_tokens_per_month = NAN,
                      .break_even_utilisation = NAN};
  for (int m = 0; m <= MONEY_CASH_MONTHS; m++) o->cash[m] = capital + c->cash_per_year / MONTHS_PER_YEAR * m;
}

static money_option no_option(void) {
  money_option o = {NAN, NAN, NAN, NAN, NAN, NAN, {0}, NAN, NAN, NAN, NAN};
  for (int m = 0; m <= MONEY_CASH_MONTHS; m++) o.cash[m] = NAN;
  return o;
}

static bill api_bill(const double v[MONEY_N], const money_cost *c) {
  double change = or_else(v[MONEY_API_CHANGE], 0);
  return (bill){api_blended(v) * c->tokens_per_month / 1e6, change != 0 ? twelfth_root(1 + change) : 1};
}

static bill rent_bill(const double v[MONEY_N]) {
  double up = or_else(v[MONEY_RENT_UP], 1), share = up > v[MONEY_UTILISATION] ? up : v[MONEY_UTILISATION];
  return (bill){HOURS_PER_YEAR / (double)MONTHS_PER_YEAR * share * v[MONEY_RENT_GPUS] * v[MONEY_RENT_HOUR], 1};
}

static money_way cheapest_of(const double levelised_per_month[MONEY_N_WAYS]) {
  money_way best = MONEY_OWN;
  for (int w = 1; w < MONEY_N_WAYS; w++)
    if (levelised_per_month[w] < levelised_per_month[best]) best = (money_way)w; /* false for NAN */
  return best;
}

void money_decide(const double v[MONEY_N], money_decision *out) {
  horizon h = horizon_of(v);
  money_cost c;
  money_costs(v, &c);
  own_option(v, &c, &out->way[MONEY_OWN]);
  out->way[MONEY_API] = out->way[MONEY_RENT] = no_option();
  if (money_has_api(v)) {
    bill b = api_bill(v, &c);
    fill_option(&out->way[MONEY_API], &b, &h, &c);
    against(v, &b, &h, &c, &out->way[MONEY_API]);
    break_even_api(v, &c, &out->way[MONEY_API]);
  }
  if (money_has_rent(v)) {
    bill b = rent_bill(v);
    fill_option(&out->way[MONEY_RENT], &b, &h, &c);
    against(v, &b, &h, &c, &out->way[MONEY_RENT]);
    break_even_rent(v, &c, &out->way[MONEY_RENT]);
  }
  double each[MONEY_N_WAYS];
  for (int w = 0; w < MONEY_N_WAYS; w++) each[w] = out->way[w].levelised_per_month;
  out->cheapest = cheapest_of(each);
}

money_way money_cheapest(const double v[MONEY_N], double *per_million) {
  horizon h = horizon_of(v);
  money_cost c;
  double each[MONEY_N_WAYS] = {0, NAN, NAN};
  money_costs(v, &c);
  each[MONEY_OWN] = c.per_month;
  if (money_has_api(v)) {
    bill b = api_bill(v, &c);
    each[MONEY_API] = levelised(&b, &h);
  }
  if (money_has_rent(v)) each[MONEY_RENT] = rent_bill(v).first;
  *per_million = c.per_million;
  return cheapest_of(each);
}

/* ---- servers ---- */

/* Least whole number not below x, for quantities of servers. */
static double whole(double x) {
  double n = floor(x);
  return n < x ? n + 1 : n;
}

hf_status money_fleet_costs(const money_fleet *f, money_fleet_cost *out) {
  const double positive[] = {f->peak_requests_per_s, f->mean_requests_per_s, f->instance_requests_per_s, f->years,
                             f->price_ratio};
  const double any[] = {f->server_price, f->hosting_per_year, f->software_per_year, f->in_tokens, f->out_tokens};
  for (size_t i = 0; i < sizeof positive / sizeof *positive; i++)
    if (!isfinite(positive[i]) || positive[i] <= 0) return hf_fail(HF_INPUT, "servers: a rate, a time or a ratio is not above 0");
  for (size_t i = 0; i < sizeof any / sizeof *any; i++)
    if (!isfinite(any[i]) || any[i] < 0) return hf_fail(HF_INPUT, "servers: a price or a number of tokens is below 0");
  if (f->gpus_per_instance < 1 || f->gpus_per_server < 1 || !(f->in_tokens + f->out_tokens > 0))
    return hf_fail(HF_INPUT, "servers: GPUs per instance and server, and tokens of a request, start at 1");
  double licences = f->software_per_gpu ? f->gpus_per_server : 1;
  out->instances = whole(f->peak_requests_per_s / f->instance_requests_per_s);
  out->servers = whole(out->instances * f->gpus_per_instance / f->gpus_per_server);
  out->server_per_year = f->server_price / f->years + f->hosting_per_year + licences * f->software_per_year;
  out->per_year = out->servers * out->server_per_year;
  double request = out->per_year / (f->mean_requests_per_s * HOURS_PER_YEAR * SECONDS_PER_HOUR);
  out->per_thousand_requests = 1000 * request;
  out->per_million_in = 1e6 * request / (f->in_tokens + f->price_ratio * f->out_tokens);
  out->per_million_out = f->price_ratio * out->per_million_in;
  return HF_OK;
}
