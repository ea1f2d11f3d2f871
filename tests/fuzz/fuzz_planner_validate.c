/* A CSV of published cases from anybody: refused with line and column, or read so that every row keeps what cases.h promises, and resolved. */
#include <stdlib.h>
#include <string.h>

#include "planner/plan_inputs.h"
#include "planner/validate/predict.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static resolver names;

static void check_row(const published_case *c) {
  resolved_case r;
  if (c->id[0] == '\0' || !(c->decode_tok_s > 0 || c->prefill_tok_s > 0) || c->context_to < c->context_from) abort();
  if (!(c->decode_tok_s >= 0 && c->decode_tok_s <= 1e7) || c->concurrency < 0 || c->concurrency > 4096) abort();
  if (resolve_case(&names, c, &r) != HF_OK) abort(); /* what a row says never fails: it declines */
  if (!r.used && r.why_not[0] == '\0') abort();
  if (!r.used) return;
  prepared_case p;
  engine e;
  predicted_rates rates;
  if (prepare_case(&r, &p) != HF_OK) abort();
  if (p.r.used && (engine_load(r.engine, &e) != HF_OK || predict_case(&p, &e, (cost_case){0}, &rates) != HF_OK)) abort();
  if (p.r.used && !(rates.decode > 0 && rates.decode < 1e9)) abort();
  prepared_case_free(&p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  published_cases c;
  if (names.models == NULL) {
    plan_use_catalog();
    if (resolver_new(&names) != HF_OK) abort();
  }
  if (published_cases_parse((const char *)data, size, "fuzz", &c) != HF_OK) {
    if (strstr(hf_error_line(), "fuzz: line ") == NULL || strstr(hf_error_line(), "column") == NULL) abort();
    hf_clear_error();
    return 0;
  }
  for (int i = 0; i < c.n && i < 8; i++) check_row(&c.row[i]);
  published_cases_free(&c);
  return 0;
}
