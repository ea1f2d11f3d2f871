#include "sched/split.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>

/* Chosen from and chosen: enough for a mean that is good to a per cent. */
enum { SAMPLE = 256, CHOICES = 64 };

int split_unit(int block) {
  int unit = SPLIT_LEAST_ROWS;
  while (unit % block) unit += SPLIT_LEAST_ROWS;
  return unit;
}

/* Whole units go to whom most is owed (ties: the lower index). owed: in rows, from one expert to the next. */
static void split_next(const split_rule *r, double owed[SPLIT_MAX_NODES], int *begin) {
  const int n_units = (r->width + r->unit - 1) / r->unit;
  double all = 0, left[SPLIT_MAX_NODES];
  int units[SPLIT_MAX_NODES] = {0};
  for (int n = 0; n < r->n_nodes; n++) all += r->rate[n];
  for (int n = 0; n < r->n_nodes; n++) left[n] = owed[n] += r->width * r->rate[n] / all;
  for (int u = 0; u < n_units; u++) {
    int most = -1;
    for (int n = 0; n < r->n_nodes; n++)
      if (r->rate[n] > 0 && (most < 0 || left[n] > left[most] + 1e-6)) most = n;
    left[most] -= r->unit;
    units[most]++;
  }
  begin[0] = 0;
  for (int n = 0; n < r->n_nodes; n++) {
    const int end = begin[n] + units[n] * r->unit;
    begin[n + 1] = end < r->width ? end : r->width; /* the last unit may be short */
    owed[n] -= begin[n + 1] - begin[n];
  }
}

void split_layer(const split_rule *r, int n_experts, const unsigned char *away, int *begin) {
  double owed[SPLIT_MAX_NODES] = {0};
  for (int then = 0; then < 2; then++)
    for (int e = 0; e < n_experts; e++)
      if ((away && away[e]) == then) split_next(r, owed, begin + e * (r->n_nodes + 1));
}

/* Of these experts the time of the slowest node. */
static double slowest(const split_rule *r, const int *begin, const int *chosen, int n) {
  double most = 0;
  for (int k = 0; k < r->n_nodes; k++) {
    int64_t rows = 0;
    for (int i = 0; i < n; i++) rows += begin[chosen[i] * (r->n_nodes + 1) + k + 1] - begin[chosen[i] * (r->n_nodes + 1) + k];
    if (rows > 0) most = fmax(most, (double)rows / r->rate[k]);
  }
  return most;
}

double split_stretch(const split_rule *r, int n_experts, int active) {
  int begin[SAMPLE * (SPLIT_MAX_NODES + 1)], order[SAMPLE];
  uint64_t z = 88172645463325252u;
  double all = 0, sum = 0;
  if (n_experts > SAMPLE) n_experts = SAMPLE;
  if (active > n_experts) active = n_experts;
  split_layer(r, n_experts, NULL, begin);
  for (int e = 0; e < n_experts; e++) order[e] = e;
  for (int n = 0; n < r->n_nodes; n++) all += r->rate[n];
  for (int c = 0; c < CHOICES; c++) {
    for (int i = 0; i < active; i++) { /* any of those that are left */
      z ^= z << 13;
      z ^= z >> 7;
      z ^= z << 17;
      const int with = i + (int)(z % (uint64_t)(n_experts - i)), held = order[i];
      order[i] = order[with];
      order[with] = held;
    }
    sum += slowest(r, begin, order, active);
  }
  return sum / CHOICES * all / ((double)active * r->width);
}
