/* family_dense.c: Llama, Qwen2 and Qwen3 without experts: models that draft for larger ones. Planning only; the executor knows their
 * families by name and refuses. */
#include <string.h>

#include "model/config_limits.h"
#include "model/family.h"

static hf_status read(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_gqa(j, where, c));
  HF_TRY(cfg_int(j, where, "intermediate_size", 1, LIM_WIDTH, &c->d_ff_dense));
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = false;
  c->qk_norm_head = c->family == FAM_QWEN3;
  c->qkv_bias = c->family == FAM_QWEN2; /* without a flag in the published configs */
  bool bias = false;
  HF_TRY(json_opt_bool(j, where, "attention_bias", &bias));
  if (bias) c->qkv_bias = c->o_bias = true;
  return cfg_resolve_rope(j, where, 10000, c);
}

const family family_llama = {.id = FAM_LLAMA, .name = "llama", .architecture = "LlamaForCausalLM", .read = read};

const family family_qwen2 = {.id = FAM_QWEN2, .name = "qwen2", .architecture = "Qwen2ForCausalLM", .read = read};

const family family_qwen3 = {.id = FAM_QWEN3, .name = "qwen3", .architecture = "Qwen3ForCausalLM", .read = read};
