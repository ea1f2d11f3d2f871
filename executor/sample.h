/* sample.h: from logits to a token. Seeded per request, so that a request's text does not depend on its neighbours. */
#ifndef HF_EXECUTOR_SAMPLE_H
#define HF_EXECUTOR_SAMPLE_H
#include "base/status.h"
typedef struct {
  double temperature; /* 0 = greedy */
  int top_k;          /* 0 = all */
  double top_p;       /* 1 = all */
  uint64_t seed;
} sample_options;
/* Greedy: the lowest id among equal logits. step: index of the token in the request, enters the random number. scratch [2*n] floats. */
int32_t sample_token(const sample_options *o, uint64_t request, int step, const float *logits, int n, float *scratch);
int32_t sample_argmax(const float *logits, int n);
#endif
