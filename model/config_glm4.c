/* config_glm4.c: GLM-4.5: grouped-query attention with partial rotary, DeepSeek-V3's routing. */
#include "model/config_limits.h"
#include "model/internal.h"

hf_status config_glm4(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_gqa(j, where, c));
  double partial = 0.5;
  HF_TRY(json_opt_num(json_get(j, "rope_parameters"), where, "partial_rotary_factor", 0.01, 1, &partial));
  HF_TRY(json_opt_num(j, where, "partial_rotary_factor", 0.01, 1, &partial));
  c->rope.dim = (int)(c->head_dim * partial);
  HF_TRY(json_opt_bool(j, where, "attention_bias", &c->qkv_bias));
  HF_TRY(json_opt_bool(j, where, "use_qk_norm", &c->qk_norm_head));
  int first_dense = 1;
  HF_TRY(cfg_deepseek_ffn(j, where, c, &first_dense));
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = i >= first_dense;
  c->route = ROUTE_SIGMOID;
  c->router_bias = true;
  c->group = c->n_group > 1 ? GROUP_TOP2SUM : GROUP_NONE;
  if (c->group == GROUP_NONE) c->n_group = c->topk_group = 1;
  c->norm_topk = true;
  HF_TRY(json_opt_bool(j, where, "norm_topk_prob", &c->norm_topk));
  rope_spec r;
  HF_TRY(cfg_rope(j, where, 10000, &r));
  return config_resolve_rope(c, &r);
}
