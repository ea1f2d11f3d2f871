/* A plan.json as `hf-plan evaluate` reads it: the plan, then the table, popularity and sizes it carries, then its objective. */
#include <math.h>
#include <stdlib.h>

#include "planner/plan_eval.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  json *doc = NULL;
  plan *p = NULL;
  plan_eval *v = NULL;
  uint8_t *placement = NULL;
  ilp_evaluation e;
  if (json_parse((const char *)data, size, "fuzz", &doc) == HF_OK && plan_read_json(doc, "fuzz", &p) == HF_OK &&
      plan_eval_from_plan(p, "fuzz", &v) == HF_OK && plan_placement(p, p->n_layers, p->n_experts, &placement) == HF_OK) {
    ilp_problem prob = plan_eval_problem(v, 1u << (p->depth - 1));
    if (ilp_evaluate(&prob, v->n_devices > 0 ? placement : NULL, p->depth, NULL, &e) == HF_OK && !(e.objective_ns >= 0)) abort();
  }
  free(placement);
  plan_eval_free(v);
  plan_free(p);
  json_free(doc);
  return 0;
}
