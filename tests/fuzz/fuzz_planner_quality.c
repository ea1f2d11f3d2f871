/* A table of quality, and the recipe it names, of any bytes: the table is read for a small model and asked about a few recipes. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/formats/quality.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char config[] =
    "{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":4,\"hidden_size\":512,\"vocab_size\":1000,\"num_attention_heads\":8,"
    "\"num_key_value_heads\":2,\"head_dim\":64,\"intermediate_size\":512,\"moe_intermediate_size\":256,\"num_experts\":8,"
    "\"num_experts_per_tok\":2,\"decoder_sparse_step\":1,\"mlp_only_layers\":[],\"norm_topk_prob\":true}";
static const char reference[] = "{\"head_share\":0.3,\"types\":[{\"type\":\"q4_k\",\"experts\":0.006,\"rest\":0.006},"
                                "{\"type\":\"q6_k\",\"experts\":0.001,\"rest\":0.002}]}";

static void ask(const quality *q, const model *m, const char *text) {
  model_recipe r, again;
  quality_loss l;
  if (recipe_parse(text, model_get_config(m), &r) != HF_OK) return;
  if (recipe_total_bytes(m, &r) <= 0) abort();
  if (recipe_parse(r.name, model_get_config(m), &again) != HF_OK || recipe_total_bytes(m, &again) != recipe_total_bytes(m, &r))
    abort();
  if (q != NULL && quality_of(q, m, &r, &l) == HF_OK && !isfinite(l.loss)) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  json *c = NULL, *ref = NULL, *doc = NULL;
  model *m = NULL;
  quality *q = NULL;
  char text[RECIPE_NAME + 8] = "";
  if (size > 1 << 16) return 0;
  if (json_parse(config, strlen(config), "config", &c) != HF_OK || model_from_config(c, "config", &m) != HF_OK) abort();
  if (json_parse(reference, strlen(reference), "reference", &ref) != HF_OK) abort();
  if (json_parse((const char *)data, size, "quality", &doc) == HF_OK &&
      quality_from_json(m, ref, doc, doc, "quality", &q) == HF_OK) {
    ask(q, m, "q4_k_m");
    ask(q, m, "q6_k:experts=q4_k@1-2");
  }
  if (size > 0) memcpy(text, data, size < sizeof text - 1 ? size : sizeof text - 1);
  ask(q, m, text);
  free(q);
  json_free(doc);
  json_free(ref);
  json_free(c);
  model_close(m);
  hf_clear_error();
  return 0;
}
