/* executor_common.h: what tests of serving share: prompts made of numbers, logits as one number, how near a choice was. */
#ifndef HF_TESTS_EXECUTOR_COMMON_H
#define HF_TESTS_EXECUTOR_COMMON_H

#include "executor/serve.h"
#include "sched/stages.h"

/* Latent attention is computed plain for what was written before a loss, absorbed for what is decoded: with a KV cache in F16 that moves logits by less than
 * this (tests/golden/README.md), and a choice that is closer is no wrong one. */
#define NEAR_TIE 5e-2f

static inline uint32_t next(uint32_t *seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return *seed >> 8;
}

/* How far the best of n logits leads. */
static inline float margin_of(const float *logits, int n) {
  float best = logits[0], second = -1e30f;
  for (int k = 1; k < n; k++) {
    if (logits[k] > best) second = best, best = logits[k];
    else if (logits[k] > second) second = logits[k];
  }
  return best - second;
}

static inline uint64_t hash_bytes(uint64_t h, const void *data, size_t n) {
  const unsigned char *p = data;
  for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * UINT64_C(1099511628211);
  return h;
}

/* Of the n logits at a position of a request; sums of these do not depend on the order of steps. */
static inline uint64_t hash_logits(int64_t request, int64_t position, const float *logits, int n) {
  const int64_t at[2] = {request, position};
  return hash_bytes(hash_bytes(UINT64_C(14695981039346656037), at, sizeof at), logits, sizeof *logits * (size_t)n);
}

/* n tokens of the prompt of a request with this number. */
static inline void fill_ids(int32_t *ids, int n, int number, int vocab) {
  for (int k = 0; k < n; k++) ids[k] = (number * 31 + k * 17 + 5) % vocab;
}

/* A modelled machine on which nothing takes time yet; NULL where there is no memory. */
static inline stage_table *pace_of(const model_config *c) {
  stage_table *t = NULL;
  if (stage_table_new(c->n_layers, &t) != HF_OK) return NULL;
  t->n_experts = c->n_experts;
  t->top_k = c->top_k;
  for (int l = 0; l < c->n_layers; l++) t->layer[l].moe = c->layer_is_moe[l];
  return t;
}
#endif
