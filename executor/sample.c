#include "executor/sample.h"

#include <math.h>
#include <stdlib.h>

int32_t sample_argmax(const float *logits, int n) {
  int best = 0;
  for (int i = 1; i < n; i++)
    if (logits[i] > logits[best]) best = i;
  return best;
}

/* SplitMix64 (Steele, Lea, Flood 2014): one draw per (seed, request, step), no state to carry. */
static double uniform(uint64_t seed, uint64_t request, int step) {
  uint64_t z = (seed + 1) * 0x9E3779B97F4A7C15ULL + request * 0xD1B54A32D192ED03ULL + (uint64_t)step * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  return (double)((z ^ (z >> 31)) >> 11) * 0x1.0p-53;
}

/* Below it all weight is on the most likely token anyway, and dividing by it leaves the range of floats. */
#define LEAST_TEMPERATURE 1e-6

typedef struct {
  float p;
  int32_t id;
} cand;

static int by_probability(const void *a, const void *b) {
  const cand *x = a, *y = b;
  if (x->p != y->p) return x->p < y->p ? 1 : -1;
  return x->id - y->id;
}

int32_t sample_token(const sample_options *o, uint64_t request, int step, const float *logits, int n, float *scratch) {
  if (!(o->temperature >= LEAST_TEMPERATURE) || o->top_k == 1) return sample_argmax(logits, n);
  cand *c = (cand *)scratch;
  float max = logits[sample_argmax(logits, n)];
  for (int i = 0; i < n; i++) c[i] = (cand){expf((logits[i] - max) / (float)o->temperature), i};
  qsort(c, (size_t)n, sizeof *c, by_probability);
  int keep = o->top_k > 0 && o->top_k < n ? o->top_k : n;
  double total = 0, kept = 0;
  for (int i = 0; i < keep; i++) total += c[i].p;
  int last = 0;
  for (; last < keep; last++) {
    kept += c[last].p;
    if (kept >= o->top_p * total) break;
  }
  if (last == keep) last = keep - 1;
  while (last > 0 && c[last].p < o->min_p * c[0].p) kept -= c[last--].p;
  double r = uniform(o->seed, request, step) * kept;
  for (int i = 0; i <= last; i++) {
    r -= c[i].p;
    if (r < 0) return c[i].id;
  }
  return c[last].id;
}

void sample_penalise(double penalty, const int32_t *ids, int n_ids, const float *logits, float *out) {
  float p = (float)penalty;
  for (int i = 0; i < n_ids; i++) {
    float l = logits[ids[i]];
    out[ids[i]] = l > 0 ? l / p : l * p;
  }
}

void sample_logprobs(const float *logits, int n, int32_t id, int n_top, float *of_id, int32_t *top_ids, float *top) {
  double max = logits[sample_argmax(logits, n)], sum = 0;
  for (int i = 0; i < n; i++) sum += exp((double)logits[i] - max);
  double log_sum = max + log(sum);
  int have = 0;
  for (int i = 0; i < n && n_top > 0; i++) { /* insertion: few are kept of many */
    if (have == n_top && !(logits[i] > logits[top_ids[have - 1]])) continue;
    int at = have < n_top ? have++ : have - 1;
    for (; at > 0 && logits[i] > logits[top_ids[at - 1]]; at--) top_ids[at] = top_ids[at - 1];
    top_ids[at] = i;
  }
  for (int i = 0; i < have; i++) top[i] = (float)((double)logits[top_ids[i]] - log_sum);
  *of_id = (float)((double)logits[id] - log_sum);
}
