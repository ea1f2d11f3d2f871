#include "profiler/stats.h"

#include "base/stats.h"

static const double NOISY_SPREAD = 0.2;

/* Between neighbours: the few samples of a point would make nearest ranks jump. */
static double percentile(const double *sorted, int n, double p) {
  double at = p * (n - 1);
  int i = (int)at;
  return i + 1 < n ? sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]) : sorted[n - 1];
}

stats stats_of(double *v, int n) {
  if (n <= 0) return (stats){0};
  hf_sort(v, (size_t)n);
  stats s = {.median = percentile(v, n, 0.5), .low = percentile(v, n, 0.1), .high = percentile(v, n, 0.9), .least = v[0], .n = n};
  if (s.median > 0) s.spread = (s.high - s.low) / s.median;
  return s;
}

bool stats_noisy(const stats *s) {
  return s->spread > NOISY_SPREAD;
}

stats stats_better(const stats *a, const stats *b) {
  stats s = b->spread < a->spread ? *b : *a;
  s.n = a->n + b->n;
  s.least = a->least < b->least ? a->least : b->least;
  return s;
}

stats stats_rate(const stats *s, double amount) {
  if (!(s->low > 0)) return (stats){.n = s->n};
  stats r = {.median = amount / s->median, .low = amount / s->high, .high = amount / s->low, .n = s->n};
  r.spread = (r.high - r.low) / r.median;
  return r;
}

static double share(double x, double minus, double by, double floor) {
  double left = x - minus;
  return (left > floor * x ? left : floor * x) / by;
}

stats stats_share(const stats *s, double minus, double by, double floor) {
  stats r = {.median = share(s->median, minus, by, floor),
             .low = share(s->low, minus, by, floor),
             .high = share(s->high, minus, by, floor),
             .n = s->n};
  if (r.median > 0) r.spread = (r.high - r.low) / r.median;
  return r;
}
