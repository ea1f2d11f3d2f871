/* roi_verdict.c: the decision in words: which way is the cheapest, how sure that is, and what it turns on. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "planner/money/roi_int.h"

const char *const roi_way_words[MONEY_N_WAYS] = {"owning the machine", "the API", "rented GPUs"};

/* ---- numbers ---- */

void money_text(double v, char out[MONEY_TEXT]) {
  char plain[64];
  double a = fabs(v);
  if (isnan(v)) {
    snprintf(out, MONEY_TEXT, "-");
  } else if (isinf(v) || a >= 1e15) {
    snprintf(out, MONEY_TEXT, isinf(v) ? "never" : "%.3g", v);
  } else if (a < 100) {
    int digits = a >= 10 ? 1 : a >= 0.995 || a == 0 ? 2 : a >= 0.0995 ? 3 : a >= 0.00995 ? 4 : 6;
    snprintf(out, MONEY_TEXT, "%.*f", digits, v);
  } else {
    int n = snprintf(plain, sizeof plain, "%.0f", a), at = 0;
    if (v < 0) out[at++] = '-';
    for (int i = 0; i < n; i++) {
      if (i > 0 && (n - i) % 3 == 0) out[at++] = ',';
      out[at++] = plain[i];
    }
    out[at] = '\0';
  }
}

void roi_millions_text(double tokens, char out[MONEY_TEXT]) {
  char number[MONEY_TEXT];
  if (!isfinite(tokens)) {
    money_text(tokens, out);
    return;
  }
  bool many = tokens >= 1e9;
  money_text(tokens / (many ? 1e9 : 1e6), number);
  snprintf(out, MONEY_TEXT, "%.30s %s", number, many ? "billion" : "million");
}

void roi_months_text(double months, char out[MONEY_TEXT]) {
  if (isinf(months)) snprintf(out, MONEY_TEXT, "not within 10 years");
  else if (months >= 24) snprintf(out, MONEY_TEXT, "%.1f years", months / 12);
  else snprintf(out, MONEY_TEXT, "%.1f months", months);
}

void roi_levelised_words(const roi *r, char out[ROI_LEVELISED]) {
  double change = r->f[MONEY_API_CHANGE].likely, discount = r->f[MONEY_DISCOUNT].likely;
  int n = snprintf(out, ROI_LEVELISED, "the average over %.3g years", r->f[MONEY_YEARS].likely);
  if (change != 0 && !isnan(change))
    n += snprintf(out + n, ROI_LEVELISED - (size_t)n, " with prices %s %.3g %% a year", change < 0 ? "falling" : "rising",
                  100 * fabs(change));
  if (discount > 0)
    snprintf(out + n, ROI_LEVELISED - (size_t)n, ", what is paid later discounted by %.3g %% a year", 100 * discount);
}

/* ---- what it turns on ---- */

/* Share of a triangular distribution beyond a value, on the value's side of the likely one. */
static double share_beyond(const money_fact *f, double at) {
  double width = f->high - f->low, left = f->likely - f->low, right = f->high - f->likely;
  if (at > f->likely) return at < f->high ? (f->high - at) * (f->high - at) / (width * right) : 0;
  return at > f->low ? (at - f->low) * (at - f->low) / (width * left) : 0;
}

/* The lever that is nearest to flipping the decision: first those that do so within their own interval. */
static const money_lever *nearest_flip(const roi *r) {
  const money_lever *best = NULL;
  double least = INFINITY;
  for (int i = 0; i < r->n_levers; i++) {
    const money_lever *l = &r->lever[i];
    double from = r->f[l->input].likely, to = l->flips_at;
    if (isnan(to) || l->input == MONEY_API_CHANGE) continue;
    double away = from > 0 && to > 0 ? fabs(log(to / from)) : INFINITY;
    if (l->flips) away -= 100;
    if (away < least) {
      least = away;
      best = l;
    }
  }
  return best;
}

/* Of the levers that turn the decision to `to` (any way: MONEY_N_WAYS) within their own doubt, the one most likely to. */
static const money_lever *likeliest_flip(const roi *r, money_way to) {
  const money_lever *best = NULL;
  double most = 0;
  for (int i = 0; i < r->n_levers; i++) {
    const money_lever *l = &r->lever[i];
    if (isnan(l->flips_at) || (to != MONEY_N_WAYS && l->flips_to != to)) continue;
    double share = share_beyond(&r->f[l->input], l->flips_at);
    if (share <= most) continue;
    most = share;
    best = l;
  }
  return best;
}

static int count_ways(const roi *r) {
  int n = 0;
  for (int w = 0; w < MONEY_N_WAYS; w++) n += !isnan(r->decision.way[w].per_month);
  return n;
}

void roi_rule(const roi *r, roi_ruling *out) {
  const double *share = r->sample.cheapest;
  money_way likely = r->decision.cheapest, first = MONEY_OWN, second = MONEY_N_WAYS;
  for (int w = 1; w < MONEY_N_WAYS; w++)
    if (share[w] > share[first]) first = (money_way)w;
  for (int w = 0; w < MONEY_N_WAYS; w++) {
    if (w == (int)first || isnan(r->decision.way[w].per_month)) continue;
    if (second == MONEY_N_WAYS || share[w] > share[second]) second = (money_way)w;
  }
  *out = (roi_ruling){.alone = count_ways(r) < 2, .first = first, .second = second};
  if (out->alone) {
    *out = (roi_ruling){.alone = true, .decided = true, .first = MONEY_OWN, .second = MONEY_OWN};
    return;
  }
  out->share_first = share[first];
  out->share_second = share[second];
  out->decided = first == likely && share[first] >= ROI_SURE;
  if (out->decided) {
    out->lever = nearest_flip(r);
    return;
  }
  out->lever = likeliest_flip(r, likely == first ? second : first);
  if (out->lever == NULL) out->lever = likeliest_flip(r, MONEY_N_WAYS);
  if (out->lever == NULL) out->lever = nearest_flip(r);
}

/* ---- sentences ---- */

typedef struct {
  char *text;
  size_t used, size;
} words;

static void say(words *w, const char *fmt, ...) HF_PRINTF(2, 3);
static void say(words *w, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  int n = vsnprintf(w->text + w->used, w->size - w->used, fmt, args);
  va_end(args);
  if (n > 0) w->used += (size_t)n < w->size - w->used ? (size_t)n : w->size - w->used - 1;
}

static void say_ruling(const roi *r, const roi_ruling *x, words *out) {
  if (x->alone) return;
  const char *likely = roi_way_words[r->decision.cheapest], *first = roi_way_words[x->first], *second = roi_way_words[x->second];
  double one = 100 * x->share_first, two = 100 * x->share_second;
  if (x->decided) say(out, "Cheapest is %s, in %.0f %% of the draws over all doubts.", first, one);
  else if (x->share_first < ROI_SURE)
    say(out, "Undecided: over all doubts %s is the cheapest way in %.0f %% of the draws, %s in %.0f %%.", first, one, second,
        two);
  else
    say(out, "Undecided: at the likely values %s is the cheapest way, over all doubts %s in %.0f %% of the draws.", likely, first,
        one);
}

static void say_lever(const roi *r, const roi_ruling *x, words *out) {
  const money_lever *l = x->lever;
  char from[MONEY_TEXT], to[MONEY_TEXT], low[MONEY_TEXT], high[MONEY_TEXT];
  if (l == NULL) return;
  const money_fact *f = &r->f[l->input];
  const char *what = money_input_words(l->input);
  money_text(f->likely, from);
  money_text(l->flips_at, to);
  money_text(f->low, low);
  money_text(f->high, high);
  if (x->decided)
    say(out, " The decision flips to %s when '%s' goes from %s to %s%s.", roi_way_words[l->flips_to], what, from, to,
        l->flips ? ", which is within its own doubt" : "");
  else
    say(out, " What decides is '%s': assumed %s (%s to %s), %s %s the cheapest way is %s.", what, from, low, high,
        l->flips_at > f->likely ? "from" : "below", to, roi_way_words[l->flips_to]);
}

static void say_way(const roi *r, money_way w, words *out) {
  const money_option *o = &r->decision.way[w];
  char today[MONEY_TEXT], later[MONEY_TEXT], b[MONEY_TEXT], c[MONEY_TEXT], average[ROI_LEVELISED];
  if (isnan(o->per_million)) return;
  money_text(o->per_million, today);
  money_text(o->levelised_per_million, later);
  roi_months_text(o->payback_months, b);
  roi_millions_text(o->break_even_tokens_per_month, c);
  roi_levelised_words(r, average);
  say(out, " Against %s at %s %s for a million tokens in and out", roi_way_words[w], today, r->scenario->currency);
  if (strcmp(today, later) != 0) say(out, " today, %s levelised (%s),", later, average);
  say(out, " the machine %s%s", isinf(o->payback_months) ? "does not pay back within 10 years" : "pays back after ",
      isinf(o->payback_months) ? "" : b);
  if (isinf(o->break_even_tokens_per_month) || o->break_even_utilisation > 1) say(out, ": at no volume that it can serve.");
  else if (o->break_even_tokens_per_month > 0)
    say(out, "; break-even at %s tokens a month, %.0f %% of what it can do.", c, 100 * o->break_even_utilisation);
  else say(out, "; at any volume.");
  if (w == MONEY_API && r->api_from == MONEY_API_ASSUMED)
    say(out, " That API price is an assumption: nobody's list price of %.60s is known here.", r->model);
}

void roi_verdict(const roi *r, char out[ROI_VERDICT]) {
  char a[MONEY_TEXT], low[MONEY_TEXT], high[MONEY_TEXT], half[MONEY_TEXT], month[MONEY_TEXT];
  words w = {out, 0, ROI_VERDICT};
  roi_ruling x;
  out[0] = '\0';
  roi_rule(r, &x);
  money_text(r->cost.per_million, a);
  money_text(r->sample.per_million.p10, low);
  money_text(r->sample.per_million.p90, high);
  money_text(r->sample.per_million.p50, half);
  money_text(r->cost.per_month, month);
  say_ruling(r, &x, &w);
  if (!x.decided) say_lever(r, &x, &w);
  say(&w,
      "%sA million tokens of %.60s on %.90s, input and output together, cost %s %s (8 of 10 draws: %s to %s, half below %s), "
      "that "
      "is %s %s a month at %.0f %% utilisation.",
      w.used > 0 ? " " : "", r->model, r->machine->name, a, r->scenario->currency, low, high, half, month, r->scenario->currency,
      100 * r->f[MONEY_UTILISATION].likely);
  say_way(r, MONEY_API, &w);
  say_way(r, MONEY_RENT, &w);
  if (x.decided) say_lever(r, &x, &w);
}
