/* Counts of a census as `hf-plan plan --census` reads them: refused, or a distribution that sums to top_k or less in every layer. */
#include <math.h>
#include <stdlib.h>

#include "planner/cost/cost.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const popularity *p, int top_k) {
  for (int l = 0; l < p->n_layers; l++) {
    double sum = 0;
    for (int e = 0; e < p->n_experts; e++) {
      double x = p->p[l * p->n_experts + e];
      if (!(x >= 0 && x <= 1)) abort();
      sum += x;
    }
    if (!(sum <= top_k * (1 + 1e-9))) abort();
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  bool moe[3] = {false, true, true};
  model_config c = {.n_layers = 3, .n_experts = 4, .top_k = 2, .layer_is_moe = moe};
  json *doc = NULL;
  popularity *p = NULL;
  if (json_parse((const char *)data, size, "fuzz", &doc) == HF_OK && popularity_census_json(&c, doc, "fuzz", NULL, &p) == HF_OK) {
    check(p, c.top_k);
    if (popularity_zipf_fit(&c, p) != HF_OK) abort();
    check(p, c.top_k);
  }
  popularity_free(p);
  json_free(doc);
  return 0;
}
