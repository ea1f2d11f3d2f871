/* sketch.h: percentiles of times without keeping them all. Up to SIM_EXACT values exactly; always a histogram of 128 cells per power of two,
 * so that a percentile is off by at most 1/256 of itself, and histograms of parts add up to that of the whole. */
#ifndef HF_PLANNER_SIM_SKETCH_H
#define HF_PLANNER_SIM_SKETCH_H

#include "db/plan.h"

enum { SIM_SKETCH_CELLS = 58 * 128 };

typedef struct {
  int64_t n, cell[SIM_SKETCH_CELLS]; /* of whole ns */
  double sum_s;
  double *exact; /* [SIM_EXACT], owned; the first values */
} sim_sketch;

HF_MUST hf_status sim_sketch_new(sim_sketch **out);
void sim_sketch_free(sim_sketch *k);
void sim_sketch_add(sim_sketch *k, double seconds);
/* Adds what another has seen. Exact while both together hold at most SIM_EXACT values. */
void sim_sketch_merge(sim_sketch *into, const sim_sketch *from);
/* Sorts what is kept. */
plan_percentiles sim_sketch_percentiles(sim_sketch *k);
double sim_sketch_mean(const sim_sketch *k);
#endif
