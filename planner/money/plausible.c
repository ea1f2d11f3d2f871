/* plausible.c: values of a scenario that can be read but are hardly meant: a price in cents, a share in percent. */
#include <math.h>
#include <stdio.h>

#include "planner/money/scenario.h"

/* What is usual, in US dollars where it is money; what a value outside mostly is. Ends: judgement, wide enough for every country and year. */
static const struct {
  money_input input;
  double lo, hi;
  const char *remedy;
} usual[] = {
    {MONEY_PER_KWH, 0.01, 1.5, "a price in cents? Write 0.25 for 25 cents"},
    {MONEY_PUE, 1, 2.5,
     "power of the building over power of the machine: 1 is a machine without cooling, 1.2 to 1.8 a server room"},
    {MONEY_YEARS, 1, 10, "years of use, for servers mostly 3 to 6"},
    {MONEY_DISCOUNT, 0, 0.3, "a share a year: write 0.08 for 8 %"},
    {MONEY_UTILISATION, 0.005, 0.95, "a share of all hours of the year: a team on working days is 0.1 to 0.3, a full queue 0.9"},
    {MONEY_RESIDUAL, 0, 0.6, "a share of the price: write 0.2 for 20 %"},
    {MONEY_PRICE, 200, 2e6, "the price of one whole machine"},
    {MONEY_API_IN, 0.005, 100, "the price of a million tokens, not of one or of a thousand"},
    {MONEY_API_OUT, 0.01, 300, "the price of a million tokens, not of one or of a thousand"},
    {MONEY_RENT_HOUR, 0.05, 30, "the price of one GPU for an hour, not for a month"},
    {MONEY_CO2, 0, 1.5, "kilograms, not grams: write 0.35 for 350 g"},
    {MONEY_NAMED_USERS, 1, 500, "people for each user served at once"},
    {MONEY_IDLE_W, 5, 20000, "watts, not kilowatts"},
    {MONEY_ACTIVE_W, 20, 30000, "watts, not kilowatts"},
};
enum { N_USUAL = sizeof usual / sizeof usual[0] };

const char *money_remedy(money_input i) {
  for (int k = 0; k < N_USUAL; k++)
    if (usual[k].input == i) return usual[k].remedy;
  return NULL;
}

int money_doubts(const money_scenario *s, const money_fact f[MONEY_N], char line[MONEY_MAX_DOUBTS][MONEY_NOTE]) {
  int n = 0;
  for (int k = 0; k < N_USUAL && n < MONEY_MAX_DOUBTS; k++) {
    const money_fact *x = &f[usual[k].input];
    bool money = money_input_unit(usual[k].input)[0] == 'm' && isfinite(s->per_usd.likely) && s->per_usd.likely > 0;
    double per = money ? s->per_usd.likely : 1, v = x->likely / per;
    if (!isfinite(v) || v == 0 || (v >= usual[k].lo && v <= usual[k].hi)) continue;
    snprintf(line[n++], MONEY_NOTE, "%s is %.4g; usual is %.4g to %.4g: %s", money_input_name(usual[k].input), x->likely,
             usual[k].lo * per, usual[k].hi * per, usual[k].remedy);
  }
  return n;
}
