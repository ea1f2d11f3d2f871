/* stats.h: order statistics of a handful of doubles. Pure; values must be numbers (no NaN). */
#ifndef HF_BASE_STATS_H
#define HF_BASE_STATS_H
#include <stddef.h>

/* Ascending, in place. */
void hf_sort(double *v, size_t n);

/* By nearest rank: p90 is the least value that at least 90 % of the n values do not exceed. Sorts v in place; n 0 gives zeros. */
typedef struct {
  double p50, p90, p99, p95;
} hf_percentiles;
hf_percentiles hf_percentiles_of(double *v, size_t n);

/* What work of ns, of which reading memory alone takes read_ns, lasts when memory is read at another rate and that part takes read_now_ns.
 * Reading hides behind arithmetic and arithmetic behind reading, but not wholly: the two combine to the third root of the sum of their third
 * powers, between their sum and the larger one (products of three formats at 33 and 61 GB/s, docs/measurements.md). */
double hf_at_read_rate(double ns, double read_ns, double read_now_ns);
#endif
