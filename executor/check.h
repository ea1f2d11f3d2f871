/* check.h: hf-run --check-reference: runs the prompts of a reference file and holds what comes out against it.
 *
 * Tolerances (tests/golden/README.md): activations exact: 5e-4 absolute on the last logits, expert choice and greedy tokens equal, top-1 of every
 * position equal where its margin exceeds 1e-3. Activations fast: the reference's routing is imposed on the prompt and the last logits are
 * compared by the tolerance of the weight format (Q8_0 5 % and BF16 8 % relative RMS, F16 5e-2 and F32 5e-4 absolute) or of the KV cache's
 * type, whichever rounds more.
 * Where a routing gap is below 1e-4 or a greedy margin below 1e-3 a difference is no failure; the comparison of that prompt
 * ends there. */
#ifndef HF_EXECUTOR_CHECK_H
#define HF_EXECUTOR_CHECK_H

#include "executor/serve.h"

typedef struct {
  int prompts, passed;
  double max_abs_logit_diff, max_rel_rms;
  int64_t greedy_match, greedy_total, routing_match, routing_total, top1_match, top1_total;
  int narrow; /* comparisons that ended early at a narrow margin */
  char first_failure[256];
} check_result;

typedef struct check_ref check_ref;
HF_MUST hf_status check_open(const char *path, const model *m, check_ref **out);
void check_close(check_ref *r);
/* Longest prompt + continuation, for the engine's context. */
int check_context(const check_ref *r);
int check_prompts(const check_ref *r);
/* batch sequences at once, prompts repeated as needed. The engine must have max_logits >= chunk_tokens + batch. */
HF_MUST hf_status check_run(const check_ref *r, engine *e, int batch, int chunk_tokens, check_result *out);
#endif
