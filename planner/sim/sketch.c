#include "planner/sim/sketch.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/stats.h"
#include "planner/sim/random.h"
#include "planner/sim/sim.h"

hf_status sim_sketch_new(sim_sketch **out) {
  sim_sketch *k = NULL;
  HF_TRY(hf_alloc(&k, 1, sizeof *k, "simulated latencies"));
  hf_status st = hf_alloc(&k->exact, SIM_EXACT, sizeof *k->exact, "simulated latencies");
  if (st != HF_OK) free(k);
  else *out = k;
  return st;
}

void sim_sketch_free(sim_sketch *k) {
  if (k == NULL) return;
  free(k->exact);
  free(k);
}

/* Below 128 each ns has its own cell; above, the seven bits after the leading one tell the cell within a power of two. */
static int cell_of(double seconds) {
  int64_t ns = sim_round(seconds * 1e9);
  if (ns < 0) ns = 0;
  if (ns < 128) return (int)ns;
  int top = 63 - __builtin_clzll((unsigned long long)ns);
  int cell = (top - 6) * 128 + (int)(ns >> (top - 7)) - 128;
  return cell < SIM_SKETCH_CELLS ? cell : SIM_SKETCH_CELLS - 1;
}

static double middle_of(int cell) {
  if (cell < 256) return 1e-9 * cell;
  int shift = cell / 128 - 1;
  int64_t low = (int64_t)(128 + cell % 128) << shift;
  return 1e-9 * ((double)low + 0.5 * (double)(((int64_t)1 << shift) - 1));
}

void sim_sketch_add(sim_sketch *k, double seconds) {
  if (k->n < SIM_EXACT) k->exact[k->n] = seconds;
  k->cell[cell_of(seconds)]++;
  k->sum_s += seconds;
  k->n++;
}

void sim_sketch_merge(sim_sketch *into, const sim_sketch *from) {
  if (into->n + from->n <= SIM_EXACT) memcpy(into->exact + into->n, from->exact, (size_t)from->n * sizeof *from->exact);
  for (int i = 0; i < SIM_SKETCH_CELLS; i++) into->cell[i] += from->cell[i];
  into->n += from->n;
  into->sum_s += from->sum_s;
}

static double ranked(const sim_sketch *k, int64_t percent) {
  int64_t rank = (k->n * percent + 99) / 100, seen = 0;
  for (int i = 0; i < SIM_SKETCH_CELLS; i++)
    if ((seen += k->cell[i]) >= rank) return middle_of(i);
  return 0;
}

plan_percentiles sim_sketch_percentiles(sim_sketch *k) {
  if (k->n == 0) return (plan_percentiles){0};
  if (k->n > SIM_EXACT) return (plan_percentiles){ranked(k, 50), ranked(k, 90), ranked(k, 99), ranked(k, 95)};
  hf_percentiles p = hf_percentiles_of(k->exact, (size_t)k->n);
  return (plan_percentiles){p.p50, p.p90, p.p99, p.p95};
}

double sim_sketch_mean(const sim_sketch *k) {
  return k->n > 0 ? k->sum_s / (double)k->n : 0;
}
