/* lagrange.c: the dual of the capacity row, and the placement made from it.
 *
 * L(theta) = sum over layers of min_k (T(k) + theta * units * k) - theta * cap is concave and piecewise linear; each
 * minimiser is
 * one line. The maximum is found by intersecting the line of a minimiser that fits with that of one that does not, until
 * nothing
 * lies between. */
#include "planner/ilp/ilp_int.h"

#include <math.h>
#include <string.h>

typedef struct {
  double time;  /* sum of T(k) */
  int64_t used; /* units */
} line;

/* Minimisers at theta, smallest k on ties. */
static line minimise(const ilp_depth *d, bool lower, double theta, int *k_out) {
  line r = {0};
  for (int i = 0; i < d->n; i++) {
    const ilp_lay *y = &d->lay[i];
    const double *t = lower ? y->lower : y->upper;
    double price = theta * (double)y->units, best = INFINITY;
    int at = y->k_lo;
    for (int k = y->k_lo; k <= y->k_hi; k++) {
      double v = t[k] + price * k;
      if (v < best) {
        best = v;
        at = k;
      }
    }
    r.time += t[at];
    r.used += y->units * at;
    k_out[i] = at;
  }
  return r;
}

static double dual_value(const ilp_depth *d, const line *s, double theta) {
  return d->base_ns + s->time + theta * (double)(s->used - d->cap_units);
}

/* The multiplier at which every layer prefers its least k. */
static double steepest(const ilp_depth *d, bool lower) {
  double theta = 0;
  for (int i = 0; i < d->n; i++) {
    const ilp_lay *y = &d->lay[i];
    const double *t = lower ? y->lower : y->upper;
    for (int k = y->k_lo + 1; k <= y->k_hi; k++) theta = fmax(theta, (t[y->k_lo] - t[k]) / ((double)y->units * (k - y->k_lo)));
  }
  return theta * (1 + 1e-9);
}

ilp_dual ilp_dual_solve(ilp_depth *d, bool lower) {
  size_t bytes = (size_t)d->n * sizeof *d->k_fit;
  line over = minimise(d, lower, 0, d->k_over);
  ilp_dual r = {.theta = 0, .value = dual_value(d, &over, 0)};
  if (over.used <= d->cap_units) {
    memcpy(d->k_fit, d->k_over, bytes);
    return r;
  }
  line fit = minimise(d, lower, steepest(d, lower), d->k_fit);
  for (int step = 0; step < 500; step++) {
    double theta = (fit.time - over.time) / (double)(over.used - fit.used);
    line mid = minimise(d, lower, theta, d->order_k);
    double value = dual_value(d, &mid, theta);
    if (value > r.value) r = (ilp_dual){.theta = theta, .value = value};
    if (mid.used >= over.used || mid.used <= fit.used) break; /* nothing strictly between the two lines: the kink itself */
    if (mid.used > d->cap_units) {
      over = mid;
      memcpy(d->k_over, d->order_k, bytes);
    } else {
      fit = mid;
      memcpy(d->k_fit, d->order_k, bytes);
    }
  }
  return r;
}

/* ---- from the dual to a placement ---- */

double ilp_upper_value(const ilp_depth *d, const int *k) {
  double sum = d->base_ns;
  for (int i = 0; i < d->n; i++) sum += d->lay[i].upper[k[i]];
  return sum;
}

int64_t ilp_units_used(const ilp_depth *d, const int *k) {
  int64_t used = 0;
  for (int i = 0; i < d->n; i++) used += d->lay[i].units * k[i];
  return used;
}

/* A layer's step up that gains most per unit of what is left. */
static void look_for_rise(const ilp_depth *d, int i, int k, int64_t slack) {
  const ilp_lay *y = &d->lay[i];
  double least = 1e-13 * y->upper[k], best = 0;
  int to = k;
  for (int j = k + 1; j <= y->k_hi && (j - k) * y->units <= slack; j++) {
    double gain = y->upper[k] - y->upper[j], rate = gain / (double)((j - k) * y->units);
    if (gain > least && rate > best) {
      best = rate;
      to = j;
    }
  }
  d->rise_to[i] = to;
  d->rise_rate[i] = best;
}

static void forget_rises(const ilp_depth *d) {
  for (int i = 0; i < d->n; i++) d->rise_to[i] = -1;
}

/* One step up for the layer that gains most per unit; false when none gains. What is left only shrinks from step to step: a layer's best rise stays
 * its best while it fits and the layer has not risen. */
static bool fill_one(const ilp_depth *d, int *k, int64_t *slack) {
  double best = 0;
  int at = -1;
  for (int i = 0; i < d->n; i++) {
    if (d->rise_to[i] < 0 || (d->rise_to[i] - k[i]) * d->lay[i].units > *slack) look_for_rise(d, i, k[i], *slack);
    if (d->rise_rate[i] <= best) continue;
    best = d->rise_rate[i];
    at = i;
  }
  if (at < 0) return false;
  *slack -= (d->rise_to[at] - k[at]) * d->lay[at].units;
  k[at] = d->rise_to[at];
  d->rise_to[at] = -1;
  return true;
}

/* Fewer residents and faster: where the device binds, `upper` can rise with k. */
static void settle(const ilp_depth *d, int *k, int64_t *slack) {
  for (int i = 0; i < d->n; i++) {
    const ilp_lay *y = &d->lay[i];
    int to = k[i];
    for (int j = y->k_lo; j < k[i]; j++)
      if (y->upper[j] < y->upper[to] * (1 - 1e-13)) to = j;
    *slack += (k[i] - to) * y->units;
    k[i] = to;
  }
}

enum { STEP_DOWN = 4, STEP_UP = 8 };

/* Best exchange: one layer gives up to STEP_DOWN experts, another takes up to STEP_UP. */
static bool exchange_one(const ilp_depth *d, int *k, int64_t *slack, double total) {
  double best = 1e-12 * total;
  int from = -1, to = -1, down = 0, up = 0;
  for (int a = 0; a < d->n; a++) {
    const ilp_lay *ya = &d->lay[a];
    for (int x = 1; x <= STEP_DOWN && k[a] - x >= ya->k_lo; x++) {
      double loss = ya->upper[k[a] - x] - ya->upper[k[a]];
      int64_t room = *slack + x * ya->units;
      for (int b = 0; b < d->n; b++) {
        const ilp_lay *yb = &d->lay[b];
        if (b == a) continue;
        for (int z = 1; z <= STEP_UP && k[b] + z <= yb->k_hi && z * yb->units <= room; z++) {
          double gain = yb->upper[k[b]] - yb->upper[k[b] + z] - loss;
          if (gain > best) {
            best = gain;
            from = a;
            to = b;
            down = x;
            up = z;
          }
        }
      }
    }
  }
  if (from < 0) return false;
  k[from] -= down;
  k[to] += up;
  *slack += down * d->lay[from].units - up * d->lay[to].units;
  return true;
}

double ilp_fill(const ilp_depth *d, int *k) {
  int64_t slack = d->cap_units - ilp_units_used(d, k);
  settle(d, k, &slack);
  forget_rises(d);
  while (fill_one(d, k, &slack)) {}
  double total = ilp_upper_value(d, k);
  for (int step = 0; step < 64 && exchange_one(d, k, &slack, total); step++) {
    forget_rises(d);
    while (fill_one(d, k, &slack)) {}
  }
  return ilp_upper_value(d, k);
}
