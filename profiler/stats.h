/* stats.h: what a handful of timings says. */
#ifndef HF_PROFILER_STATS_H
#define HF_PROFILER_STATS_H
#include "base/status.h"

enum { STATS_MAX = 256 };

typedef struct {
  double median, low, high; /* low = 10th, high = 90th percentile */
  double least;             /* of all samples; 0 after a conversion */
  double spread;            /* (high - low) / median; 0 when the median is 0 */
  int n;
} stats;

/* Sorts v in place. n = 0 gives all zeros. Percentiles are interpolated between neighbours, so that three samples have some
 * too. */
stats stats_of(double *v, int n);

/* The samples are too far apart to be trusted: measure again. */
bool stats_noisy(const stats *s);
/* Of two measurements of the same thing the one with the smaller spread; its n is that of both together. */
stats stats_better(const stats *a, const stats *b);
/* Each sample x becomes amount / x: times to rates. Low and high change places. */
stats stats_rate(const stats *s, double amount);
/* x becomes (x - minus) / by, where minus may not push anything below `floor` times the sample. */
stats stats_share(const stats *s, double minus, double by, double floor);
#endif
