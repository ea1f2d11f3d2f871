#include "base/stats.h"

#include <math.h>

#include <stdlib.h>

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

void hf_sort(double *v, size_t n) {
  if (n > 1) qsort(v, n, sizeof *v, by_value);
}

/* In whole numbers: 0.9 times n may come out a little above a whole number, and the rank one too high. */
static double ranked(const double *sorted, size_t n, size_t percent) {
  return sorted[(n * percent + 99) / 100 - 1];
}

hf_percentiles hf_percentiles_of(double *v, size_t n) {
  if (n == 0) return (hf_percentiles){0};
  hf_sort(v, n);
  return (hf_percentiles){ranked(v, n, 50), ranked(v, n, 90), ranked(v, n, 99), ranked(v, n, 95)};
}

double hf_at_read_rate(double ns, double read_ns, double read_now_ns) {
  if (!(ns > 0) || !(read_ns > 0) || !(read_now_ns > 0)) return ns;
  if (read_ns >= ns) return ns * read_now_ns / read_ns; /* nothing but reading */
  const double rest = ns * ns * ns - read_ns * read_ns * read_ns;
  return cbrt(rest + read_now_ns * read_now_ns * read_now_ns);
}
