/* Reference files from anybody. What is accepted is run against a small model, with and without imposed routing: no input may lead the
 * kernels out of their buffers. */
#include "tests/fuzz/fuzz_model.h"

#include <string.h>

#include "executor/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CONTEXT = 64, BATCH = 2, CHUNK = 16 };

static char path[64];
static model *m;
static engine *engines[2]; /* fast, exact */

static void close_all(void) {
  unlink(path);
  for (int i = 0; i < 2; i++) engine_close(engines[i]);
  model_close(m);
}

static void prepare(void) {
  fuzz_path(path, sizeof path, "hf-fuzz-reference-%d.json");
  if (kern_init(NULL) != HF_OK || model_open("tests/golden/deepseek_v3", &m) != HF_OK)
    abort(); /* run from the repository's root */
  for (int i = 0; i < 2; i++) {
    engine_options o = {.exact = i == 1,
                        .depth = 1,
                        .max_seqs = BATCH,
                        .context = CONTEXT,
                        .page_tokens = 16,
                        .n_pages = BATCH * CONTEXT / 16,
                        .max_tok = CHUNK + BATCH,
                        .max_logits = CHUNK + BATCH,
                        .threads = 1};
    snprintf(o.gpu, sizeof o.gpu, "none");
    if (engine_open(m, &o, &engines[i]) != HF_OK) abort();
  }
  atexit(close_all);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  check_ref *r = NULL;
  if (!m) prepare();
  if (size > 1 << 20 || !fuzz_write(path, data, size)) return 0;
  if (check_open(path, m, &r) != HF_OK) {
    if (!hf_error_line()[0] || strchr(hf_error_line(), '\n') || r) abort();
    return 0;
  }
  if (check_prompts(r) < 1 || check_context(r) < 2) abort();
  for (int i = 0; i < 2 && check_context(r) <= CONTEXT && check_prompts(r) <= 8; i++) {
    check_result res;
    if (check_run(r, engines[i], BATCH, CHUNK, &res) != HF_OK) abort();
    if (res.passed > res.prompts || res.prompts < check_prompts(r)) abort();
    if (res.greedy_match > res.greedy_total || res.routing_match > res.routing_total || res.top1_match > res.top1_total) abort();
  }
  check_close(r);
  return 0;
}
