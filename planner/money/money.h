/* money.h: what tokens cost and when a machine pays back. Pure arithmetic: no database, no files, no model of any machine.
 *
 * Every quantity that goes in is one of money_input; a scenario gives each a low, a likely and a high value. Tokens per second come from the
 * simulation at the SLO (MONEY_TOK_PER_S and its companions are set by the caller from a plan), everything else from the scenario and the
 * rows of the machine. Money is in one currency, whose name is free text.
 *
 * Formulas. hours = 8760 a year, u = utilisation (share of all hours in which the machine works at the simulated rate).
 *
 *   seconds of work     a request mix of i input tokens for each output token takes s_out + i * s_in seconds per output token, where
 *                       s_out = (1 - prefill share) / rate and s_in = prefill share / (rate * i0): rate, prefill share and the mix i0 are
 *                       those of the simulation, i is the scenario's
 *   capital, a month    (price + setup - residual * price / g^n) / a, with n = 12 * years, g = (1 + discount)^(1/12) and the annuity
 *                       a = sum over m = 1..n of 1 / g^m. Without discount this is (price + setup - residual) / n
 *   energy, a year      8.76 * (u * active W + (1 - u) * idle W) * PUE kWh
 *   cost, a year        capital + energy * price per kWh + hosting + support + software + staff
 *   per million         of output: cost * s_out * 1e6 / (u * 31,536,000); of input: with s_in; blended: of all tokens together, at mix i
 *   API, a month        tokens of the month at its prices; in month m: times (1 + change a year)^((m - 1) / 12); levelised: the constant sum a
 *                       month with the same present value
 *   rented, a month     730 h * max(up share, u) * GPUs * price per hour
 *   payback             months until the sum of (what the alternative would have cost - own cash costs) has returned price + setup, not
 *                       discounted, linear within a month; not within 10 years is infinity. With a constant price: capital / monthly saving
 *   NPV                 -(price + setup) + sum over m of (alternative - own cash costs) / g^m + residual / g^n. It is positive exactly when
 *                       the levelised cost of owning is below the levelised cost of the alternative
 *   break-even          tokens a month at which owning costs what the alternative costs: own fixed costs of a month / (alternative per token -
 *                       own energy per token above idle). Infinite when one more token costs more than the alternative asks
 *   TCO over Y years    price + setup + Y * cash costs - book value after Y years (linear to the residual, then constant); bought once
 *
 * Sources: levelised cost with capital recovery, split into prefill and decode: www.inferecon.com/assumptions (2026-04-18). Break-even against an
 * API: kickllm.com (2026). Server pattern: developer.nvidia.com/blog/benchmarking-llm-inference-costs-for-smarter-scaling-and-deployment
 * (2025-06-18). First worked example of the tests: sa-energy-cost-of-intelligence.pages.dev. Annuities: any textbook of finance.
 *
 * Arithmetic uses + - * / and square roots only, so equal inputs give equal bits on any machine. Thread rule: pure functions. */
#ifndef HF_PLANNER_MONEY_MONEY_H
#define HF_PLANNER_MONEY_MONEY_H

#include "db/plan.h"
#include "db/records.h"

typedef enum {
  /* of the simulation */
  MONEY_TOK_PER_S,     /* output tokens per second of work, all users, prefill and waiting included */
  MONEY_PREFILL_SHARE, /* of the work's time, at the simulated mix; 0..0.999 */
  MONEY_SIM_MIX,       /* input tokens per output token in the simulation */
  MONEY_USERS,         /* served at once at the SLO */
  /* of the machine */
  MONEY_PRICE, /* of the hardware */
  MONEY_IDLE_W,
  MONEY_ACTIVE_W,
  /* of the scenario */
  MONEY_SETUP,    /* once: delivery, installation */
  MONEY_RESIDUAL, /* share of the price that is left at the end */
  MONEY_YEARS,    /* of depreciation */
  MONEY_DISCOUNT, /* rate a year */
  MONEY_PUE,
  MONEY_PER_KWH,
  MONEY_HOSTING, /* a year and machine, as the three below */
  MONEY_SUPPORT,
  MONEY_SOFTWARE,
  MONEY_STAFF,
  MONEY_UTILISATION, /* 0..1 */
  MONEY_MIX,         /* input tokens per output token */
  MONEY_API_IN,      /* per million tokens */
  MONEY_API_OUT,
  MONEY_API_CACHED,   /* per million input tokens that hit the API's cache */
  MONEY_CACHED_SHARE, /* of the input tokens */
  MONEY_API_CHANGE,   /* of the API's prices, a year: -0.2 = a fifth less */
  MONEY_RENT_HOUR,    /* per GPU */
  MONEY_RENT_GPUS,    /* that take the place of the machine */
  MONEY_RENT_UP,      /* share of the hours for which they are rented at least */
  MONEY_CO2,          /* kg per kWh */
  MONEY_NAMED_USERS,  /* people per user served at once */
  MONEY_N
} money_input;

/* "tok_per_s", "energy_price_per_kwh", ...: member names of scenario files and documents. words: for people. unit: "1/s", "W", "share",
 * "money", "money/kWh", ... lo, hi: what is accepted. */
const char *money_input_name(money_input i);
const char *money_input_words(money_input i);
const char *money_input_unit(money_input i);
void money_input_limits(money_input i, double *lo, double *hi);
/* -1: no such name. */
int money_input_find(const char *name);

/* One input with its doubt. MONEY_API_* and MONEY_RENT_* may be NAN: nothing to compare with; every other has to be there. */
typedef struct {
  double low, likely, high;
  db_tag tag;
  char source[280];
} money_fact;

/* HF_INPUT names the input: missing, not finite, outside its limits, low <= likely <= high violated. */
HF_MUST hf_status money_check(const money_fact f[MONEY_N]);
/* v[i] = likely. */
void money_likely(const money_fact f[MONEY_N], double v[MONEY_N]);
bool money_has_api(const double v[MONEY_N]);
bool money_has_rent(const double v[MONEY_N]);

/* ---- costs ---- */

enum { MONEY_N_PARTS = 6 };
extern const char *const money_part_name[MONEY_N_PARTS]; /* "hardware", "energy", "hosting", "support", "software", "staff" */

typedef struct {
  double part_per_year[MONEY_N_PARTS]; /* hardware is the levelised capital */
  double per_year, per_month;
  double cash_per_year;                                               /* without capital */
  double per_million_in, per_million_out, per_million;                /* per_million: blended */
  double part_per_million[MONEY_N_PARTS];                             /* of the blended one */
  double out_tokens_per_month, in_tokens_per_month, tokens_per_month; /* at this utilisation */
  double capacity_tokens_per_month;                                   /* at utilisation 1 */
  double tokens_per_money;                                            /* all tokens per unit of currency */
  double kwh_per_year, kwh_per_million, co2_kg_per_year, co2_kg_per_million;
  double users, per_user_month, named_users, per_named_user_month;
} money_cost;
/* v must have passed money_check (limits hold). */
void money_costs(const double v[MONEY_N], money_cost *out);

/* The part of a year's cost that one interval of a plan needs: blended cost per million at all likely values, and the 10th and 90th percentile of
 * money_sample with few draws. For tables of many cases. */
HF_MUST hf_status money_per_million(const money_fact f[MONEY_N], plan_range *out);

/* ---- the decision ---- */

typedef enum { MONEY_OWN, MONEY_API, MONEY_RENT, MONEY_N_WAYS } money_way;
extern const char *const money_way_name[MONEY_N_WAYS]; /* "own", "api", "rent" */
enum { MONEY_PAYBACK_MONTHS = 120, MONEY_CASH_MONTHS = 60 };

/* One way of getting the same tokens; NAN throughout when there is nothing to compare with. */
typedef struct {
  double per_month;           /* today */
  double levelised_per_month; /* over the years of depreciation */
  double per_million;         /* blended, today */
  double levelised_per_million;
  double tco_3, tco_5;
  double cash[MONEY_CASH_MONTHS + 1]; /* paid in all after month 0, 1, ...; own: without book value */
  /* Owning against this way; NAN for own itself. */
  double payback_months, npv, break_even_tokens_per_month, break_even_utilisation;
} money_option;
typedef struct {
  money_option way[MONEY_N_WAYS];
  money_way cheapest; /* by levelised cost */
} money_decision;
void money_decide(const double v[MONEY_N], money_decision *out);

/* ---- doubt ---- */

typedef struct {
  double p10, p50, p90;
} money_spread;
typedef struct {
  int n; /* draws */
  money_spread per_million, per_million_in, per_million_out, per_month, per_user_month, kwh_per_million;
  money_spread api_npv, api_payback_months, api_break_even_tokens, rent_npv, rent_break_even_tokens; /* NAN without */
  double cheapest[MONEY_N_WAYS]; /* share of the draws in which this way is the cheapest */
} money_sample_result;
/* Monte Carlo: each input triangular on (low, likely, high), independent, from a splitmix64 stream: equal seeds, equal results. */
enum { MONEY_DRAWS = 10000, MONEY_FEW_DRAWS = 500 };
HF_MUST hf_status money_sample(const money_fact f[MONEY_N], int draws, uint64_t seed, money_sample_result *out);

typedef struct {
  money_input input;
  double low, high;                         /* of the input */
  double per_million_low, per_million_high; /* blended, with the input there and all others likely */
  money_way cheapest_low, cheapest_high;
  bool flips;      /* either end makes another way the cheapest */
  double flips_at; /* value nearest to the likely one at which the cheapest way changes, looked for up to 1000 times away and
                       within the input's limits; NAN when none */
  money_way flips_to;
} money_lever;
/* Those inputs whose low and high differ or which could flip the decision; widest effect on the blended cost first, equal ones in order of
 * input. Returns how many. */
int money_tornado(const money_fact f[MONEY_N], money_lever out[MONEY_N]);

/* ---- servers, as sellers count them ---- */

/* The pattern of the NVIDIA article: instances = ceil(peak requests per s / requests per s of an instance at the SLO), servers =
 * ceil(instances * GPUs per instance / GPUs per server), a server costs price / years + hosting + software a year, the software licence being
 * per server, or per GPU (the article can be read both ways; the result says which was used). Cost of 1,000 requests = servers * cost / requests
 * a year, split into prices of input and output by price_ratio = price of an output token / price of an input token. */
typedef struct {
  double peak_requests_per_s, mean_requests_per_s, instance_requests_per_s;
  int gpus_per_instance, gpus_per_server;
  double server_price, years, hosting_per_year, software_per_year;
  bool software_per_gpu;
  double in_tokens, out_tokens, price_ratio; /* of a request */
} money_fleet;
typedef struct {
  double instances, servers, server_per_year, per_year;
  double per_thousand_requests, per_million_in, per_million_out;
} money_fleet_cost;
HF_MUST hf_status money_fleet_costs(const money_fleet *f, money_fleet_cost *out);
#endif
