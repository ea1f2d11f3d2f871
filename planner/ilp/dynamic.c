/* dynamic.c: exact dynamic program for the problem of glpk.c, over units used. Takes over where branch and bound drowns in ties
 * (layers that are all alike), as long as the table stays small.
 *
 * value[i][u] = least reduced cost of the first i groups using u units. Only u are kept from which a better total than the
 * start
 * can still come: slack costs theta a unit, so a better solution leaves at most (start - base) / theta of it unused. */
#include "planner/ilp/ilp_int.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_CELLS = 6000000 };
static const double MAX_WORK = 3e8; /* cell updates */

typedef struct {
  const ilp_mckp *m;
  double *cost;        /* [columns] reduced costs, >= 0 */
  int64_t *low, *high; /* [groups + 1] units kept after i groups */
  size_t *at;          /* [groups + 2] where row i starts in value */
  double *value;
} table;

static void table_free(table *t) {
  free(t->cost);
  free(t->low);
  free(t->high);
  free(t->at);
  free(t->value);
}

static hf_status reduce(table *t, double *base, double *start) {
  const ilp_mckp *m = t->m;
  HF_TRY(hf_alloc(&t->cost, (size_t)m->first[m->n_groups] + 1, sizeof *t->cost, "placement program"));
  *base = -m->theta * (double)m->cap;
  *start = 0;
  int64_t used = 0;
  for (int i = 0; i < m->n_groups; i++) {
    double least = INFINITY;
    for (int j = m->first[i]; j < m->first[i + 1]; j++) {
      t->cost[j] = m->cost[j] + m->theta * (double)m->units[j];
      least = fmin(least, t->cost[j]);
    }
    for (int j = m->first[i]; j < m->first[i + 1]; j++) t->cost[j] -= least;
    *base += least;
    *start += t->cost[m->start[i]];
    used += m->units[m->start[i]];
  }
  *start += m->theta * (double)(m->cap - used);
  return HF_OK;
}

/* The range of units after each group; HF_UNSUPPORTED when table or work would be too large. */
static hf_status windows(table *t, double start) {
  const ilp_mckp *m = t->m;
  size_t n = (size_t)m->n_groups + 2;
  HF_TRY(hf_alloc(&t->low, n, sizeof *t->low, "placement program"));
  HF_TRY(hf_alloc(&t->high, n, sizeof *t->high, "placement program"));
  HF_TRY(hf_alloc(&t->at, n, sizeof *t->at, "placement program"));
  int64_t rest_min = 0, rest_max = 0, slack = m->cap;
  if (m->theta > 0 && start / m->theta < (double)m->cap) slack = (int64_t)(start / m->theta * (1 + 1e-9)) + 1;
  for (int i = m->n_groups; i >= 0; i--) {
    t->high[i] = m->cap - rest_min;
    t->low[i] = m->cap - slack - rest_max;
    if (i == 0) break;
    int64_t lo = m->units[m->first[i - 1]], hi = lo;
    for (int j = m->first[i - 1]; j < m->first[i]; j++) {
      if (m->units[j] < lo) lo = m->units[j];
      if (m->units[j] > hi) hi = m->units[j];
    }
    rest_min += lo;
    rest_max += hi;
  }
  int64_t sum_min = 0, sum_max = 0;
  double cells = 0, work = 0;
  for (int i = 0; i <= m->n_groups; i++) {
    if (t->low[i] < sum_min) t->low[i] = sum_min;
    if (t->high[i] > sum_max) t->high[i] = sum_max;
    if (t->high[i] < t->low[i]) t->high[i] = t->low[i];
    double width = (double)(t->high[i] - t->low[i] + 1);
    if (i > 0) work += width * (m->first[i] - m->first[i - 1]);
    if (cells + width > MAX_CELLS || work > MAX_WORK) return hf_fail(HF_UNSUPPORTED, "placement program: too large for a table");
    t->at[i] = (size_t)cells;
    cells += width;
    t->at[i + 1] = (size_t)cells;
    if (i == m->n_groups) break;
    int64_t lo = m->units[m->first[i]], hi = lo;
    for (int j = m->first[i]; j < m->first[i + 1]; j++) {
      if (m->units[j] < lo) lo = m->units[j];
      if (m->units[j] > hi) hi = m->units[j];
    }
    sum_min += lo;
    sum_max += hi;
  }
  return hf_alloc(&t->value, (size_t)cells, sizeof *t->value, "placement program");
}

/* How many cells of row i column j reaches from row i-1, from *first on. */
static int64_t reach(const table *t, int i, int j, int64_t *first) {
  int64_t lo = t->low[i - 1] + t->m->units[j], hi = t->high[i - 1] + t->m->units[j];
  if (lo < t->low[i]) lo = t->low[i];
  if (hi > t->high[i]) hi = t->high[i];
  *first = lo;
  return hi - lo + 1;
}

static void fill(table *t) {
  const ilp_mckp *m = t->m;
  for (size_t x = 0; x < t->at[m->n_groups + 1]; x++) t->value[x] = INFINITY;
  if (t->low[0] == 0) t->value[0] = 0;
  for (int i = 1; i <= m->n_groups; i++)
    for (int j = m->first[i - 1]; j < m->first[i]; j++) {
      int64_t u, n = reach(t, i, j, &u);
      if (n <= 0) continue;
      double *restrict to = t->value + t->at[i] + (u - t->low[i]), c = t->cost[j];
      const double *restrict from = t->value + t->at[i - 1] + (u - m->units[j] - t->low[i - 1]);
      for (int64_t x = 0; x < n; x++) {
        double v = from[x] + c;
        to[x] = v < to[x] ? v : to[x];
      }
    }
}

/* Walks back along equal sums: the same arithmetic gives the same bits. */
static bool trace(const table *t, int64_t u, int *choice) {
  const ilp_mckp *m = t->m;
  for (int i = m->n_groups; i >= 1; i--) {
    double v = t->value[t->at[i] + (size_t)(u - t->low[i])];
    int at = -1;
    for (int j = m->first[i - 1]; j < m->first[i] && at < 0; j++) {
      int64_t before = u - m->units[j];
      if (before < t->low[i - 1] || before > t->high[i - 1]) continue;
      if (t->value[t->at[i - 1] + (size_t)(before - t->low[i - 1])] + t->cost[j] == v) at = j;
    }
    if (at < 0) return false;
    choice[i - 1] = at;
    u -= m->units[at];
  }
  return true;
}

hf_status ilp_mckp_dynamic(const ilp_mckp *m, ilp_mckp_result *out) {
  table t = {.m = m};
  double base, start;
  hf_status st = reduce(&t, &base, &start);
  if (st == HF_OK) st = windows(&t, start);
  if (st == HF_OK) {
    int n = m->n_groups;
    int64_t at = -1;
    double best = start * (1 - 1e-12);
    fill(&t);
    for (int64_t u = t.low[n]; u <= t.high[n]; u++) {
      double v = t.value[t.at[n] + (size_t)(u - t.low[n])] + m->theta * (double)(m->cap - u);
      if (v < best) {
        best = v;
        at = u;
      }
    }
    out->finished = true;
    if (at < 0 || !trace(&t, at, out->choice)) {
      memcpy(out->choice, m->start, (size_t)n * sizeof *out->choice);
      best = start;
    }
    out->bound = base + best;
    out->value = 0;
    for (int i = 0; i < n; i++) out->value += m->cost[out->choice[i]];
  }
  table_free(&t);
  return st;
}
