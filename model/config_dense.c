/* config_dense.c: Llama, Qwen2 and Qwen3 without experts: models that draft for larger ones. Planning only; the executor knows their
 * families by name and refuses. */
#include <string.h>

#include "model/config_limits.h"
#include "model/internal.h"

hf_status config_dense(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_gqa(j, where, c));
  HF_TRY(cfg_int(j, where, "intermediate_size", 1, LIM_WIDTH, &c->d_ff_dense));
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = false;
  c->qk_norm_head = c->family == FAM_QWEN3;
  c->qkv_bias = c->family == FAM_QWEN2; /* without a flag in the published configs */
  bool bias = false;
  HF_TRY(json_opt_bool(j, where, "attention_bias", &bias));
  if (bias) c->qkv_bias = c->o_bias = true;
  rope_spec r;
  HF_TRY(cfg_rope(j, where, 10000, &r));
  return config_resolve_rope(c, &r);
}
