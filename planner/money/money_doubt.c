/* money_doubt.c: how sure a cost is, and what would change the decision. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/stats.h"
#include "planner/money/money_int.h"

/* ---- draws ---- */

/* splitmix64: the usual generator for seeding others, good enough for 10,000 draws of 30 numbers. */
static double next_share(uint64_t *state) {
  uint64_t z = *state += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return (double)(z >> 11) * 0x1p-53;
}

/* Inverse of the triangular distribution's sum function. */
static double triangular(const money_fact *f, double p) {
  double width = f->high - f->low, left = f->likely - f->low;
  if (!(width > 0)) return f->likely;
  double v = p * width < left ? f->low + sqrt(p * width * left) : f->high - sqrt((1 - p) * width * (f->high - f->likely));
  return v < f->low ? f->low : v > f->high ? f->high : v;
}

/* One number is drawn for each input whether it is needed or not, so that adding an interval to one leaves the others' draws alone. */
static void draw(const money_fact f[MONEY_N], uint64_t *state, double v[MONEY_N]) {
  for (int i = 0; i < MONEY_N; i++) {
    double p = next_share(state);
    v[i] = isnan(f[i].likely) ? NAN : triangular(&f[i], p);
  }
}

enum { S_MILLION, S_IN, S_OUT, S_MONTH, S_USER, S_KWH, S_API_NPV, S_API_PAYBACK, S_API_BREAK, S_RENT_NPV, S_RENT_BREAK, S_N };

static money_spread spread_of(double *v, int n) {
  if (isnan(v[0])) return (money_spread){NAN, NAN, NAN}; /* absent in one draw is absent in all */
  hf_sort(v, (size_t)n);
  /* nearest rank */
  return (money_spread){v[(n + 9) / 10 - 1], v[(n + 1) / 2 - 1], v[n - n / 10 - 1]};
}

hf_status money_sample(const money_fact f[MONEY_N], int draws, uint64_t seed, money_sample_result *out) {
  double *all = NULL, v[MONEY_N];
  *out = (money_sample_result){.n = draws};
  HF_TRY(money_check(f));
  HF_TRY(hf_alloc(&all, (size_t)draws * S_N, sizeof *all, "draws"));
  for (int d = 0; d < draws; d++) {
    money_cost c;
    money_decision x;
    draw(f, &seed, v);
    money_costs(v, &c);
    money_decide(v, &x);
    const money_option *api = &x.way[MONEY_API], *rent = &x.way[MONEY_RENT];
    double row[S_N] = {c.per_million,
                       c.per_million_in,
                       c.per_million_out,
                       c.per_month,
                       c.per_user_month,
                       c.kwh_per_million,
                       api->npv,
                       api->payback_months,
                       api->break_even_tokens_per_month,
                       rent->npv,
                       rent->break_even_tokens_per_month};
    for (int s = 0; s < S_N; s++) all[(size_t)s * (size_t)draws + (size_t)d] = row[s];
    out->cheapest[x.cheapest]++;
  }
  money_spread *to[S_N] = {&out->per_million, &out->per_million_in,        &out->per_million_out,
                           &out->per_month,   &out->per_user_month,        &out->kwh_per_million,
                           &out->api_npv,     &out->api_payback_months,    &out->api_break_even_tokens,
                           &out->rent_npv,    &out->rent_break_even_tokens};
  for (int w = 0; w < MONEY_N_WAYS; w++) out->cheapest[w] /= draws;
  for (int s = 0; s < S_N; s++) *to[s] = spread_of(all + (size_t)s * (size_t)draws, draws);
  free(all);
  return HF_OK;
}

hf_status money_per_million(const money_fact f[MONEY_N], plan_range *out) {
  double each[MONEY_FEW_DRAWS], v[MONEY_N];
  uint64_t state = 1;
  money_cost c;
  HF_TRY(money_check(f));
  for (int d = 0; d < MONEY_FEW_DRAWS; d++) {
    draw(f, &state, v);
    money_costs(v, &c);
    each[d] = c.per_million;
  }
  money_spread s = spread_of(each, MONEY_FEW_DRAWS);
  money_likely(f, v);
  money_costs(v, &c);
  *out = (plan_range){fmin(s.p10, c.per_million), c.per_million, fmax(s.p90, c.per_million)};
  return HF_OK;
}

/* ---- tornado ---- */

/* The value between `from`, where the decision is `was`, and `to`, where it is not, at which it changes. */
static double edge(double v[MONEY_N], money_input i, double from, double to, money_way was) {
  double cost;
  for (int k = 0; k < 60; k++) {
    double mid = from + (to - from) / 2;
    v[i] = mid;
    if (money_cheapest(v, &cost) == was) from = mid;
    else to = mid;
  }
  return to;
}

/* Steps away from the likely value, each a quarter further (for rates that may be 0 or negative: in steps of the width of the limits). */
static double find_flip(const double likely[MONEY_N], money_input i, int direction, money_way was, money_way *becomes) {
  enum { STEPS = 31 };
  double v[MONEY_N], lo, hi, cost, start = likely[i], at = start;
  bool share = start == 0 || i == MONEY_API_CHANGE || i == MONEY_DISCOUNT;
  memcpy(v, likely, sizeof v);
  money_input_limits(i, &lo, &hi);
  if (share && hi > 1) return NAN; /* nothing to measure steps by */
  for (int k = 1; k <= STEPS; k++) {
    double next = share ? start + direction * k * 0.05 : direction > 0 ? at * 1.25 : at / 1.25;
    next = next < lo ? lo : next > hi ? hi : next;
    if (next == at) break;
    v[i] = next;
    money_way now = money_cheapest(v, &cost);
    if (now != was) {
      double found = edge(v, i, at, next, was);
      *becomes = now;
      return found;
    }
    at = next;
  }
  return NAN;
}

/* Distance on the scale that the steps of find_flip have. */
static double far(double from, double to) {
  return from > 0 && to > 0 ? (to > from ? to / from : from / to) : fabs(to - from) + 1;
}

static void pull(const money_fact *f, const double likely[MONEY_N], money_input i, money_way was, money_lever *l) {
  double v[MONEY_N];
  memcpy(v, likely, sizeof v);
  *l = (money_lever){.input = i, .low = f->low, .high = f->high, .flips_at = NAN, .flips_to = was};
  v[i] = f->low;
  l->cheapest_low = money_cheapest(v, &l->per_million_low);
  v[i] = f->high;
  l->cheapest_high = money_cheapest(v, &l->per_million_high);
  l->flips = l->cheapest_low != was || l->cheapest_high != was;
  money_way down = was, up = was;
  double below = find_flip(likely, i, -1, was, &down), above = find_flip(likely, i, 1, was, &up);
  if (!isnan(below) && (isnan(above) || far(likely[i], below) <= far(likely[i], above))) {
    l->flips_at = below;
    l->flips_to = down;
  } else if (!isnan(above)) {
    l->flips_at = above;
    l->flips_to = up;
  }
}

static int wider(const void *a, const void *b) {
  const money_lever *x = a, *y = b;
  double dx = fabs(x->per_million_high - x->per_million_low), dy = fabs(y->per_million_high - y->per_million_low);
  if (dx != dy) return dx > dy ? -1 : 1;
  return (int)x->input - (int)y->input;
}

int money_tornado(const money_fact f[MONEY_N], money_lever out[MONEY_N]) {
  double likely[MONEY_N], cost;
  int n = 0;
  money_likely(f, likely);
  money_way was = money_cheapest(likely, &cost);
  for (int i = 0; i < MONEY_N; i++) {
    if (isnan(f[i].likely) || i == MONEY_SIM_MIX || i == MONEY_PREFILL_SHARE) continue;
    pull(&f[i], likely, (money_input)i, was, &out[n]);
    if (f[i].low < f[i].high || !isnan(out[n].flips_at)) n++;
  }
  qsort(out, (size_t)n, sizeof *out, wider);
  return n;
}
