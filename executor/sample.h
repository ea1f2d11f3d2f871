/* sample.h: from logits to a token. Seeded per request, so that a request's text does not depend on its neighbours.
 *
 * In this order: repetition penalty, temperature, then the limits top_k, top_p (of what top_k left) and min_p, all of which cut the tail of the
 * tokens in the order of their probability; the most likely token always stays. */
#ifndef HF_EXECUTOR_SAMPLE_H
#define HF_EXECUTOR_SAMPLE_H
#include "base/status.h"
typedef struct {
  double temperature;        /* 0 = greedy */
  int top_k;                 /* 0 = all */
  double top_p;              /* 1 = all */
  double min_p;              /* leaves out what is less likely than this times the most likely; 0 = all */
  double repetition_penalty; /* 0 and 1 = none */
  uint64_t seed;
} sample_options;
/* Greedy: the lowest id among equal logits. request, step (index of the token in the request) enter the random number. scratch [2*n] floats. The
 * penalty is not looked at: sample_penalise makes the logits for it. */
int32_t sample_token(const sample_options *o, uint64_t request, int step, const float *logits, int n, float *scratch);
int32_t sample_argmax(const float *logits, int n);
/* Logits of tokens that are there already become smaller: divided by the penalty where above 0, multiplied below (Keskar and others 2019,
 * arXiv:1909.05858), once however often a token occurs. out must hold a copy of logits when the first list is given. */
void sample_penalise(double penalty, const int32_t *ids, int n_ids, const float *logits, float *out);
/* Natural logarithms of the probabilities that the bare logits give: of `id`, and of the n_top most likely, in falling order. */
void sample_logprobs(const float *logits, int n, int32_t id, int n_top, float *of_id, int32_t *top_ids, float *top);
#endif
