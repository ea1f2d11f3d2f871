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
  int shared = 0, first_dense = 1;
  HF_TRY(cfg_int(j, where, "intermediate_size", 1, LIM_WIDTH, &c->d_ff_dense));
  HF_TRY(cfg_int(j, where, "moe_intermediate_size", 1, LIM_WIDTH, &c->d_ff_expert));
  HF_TRY(cfg_int(j, where, "n_routed_experts", 1, LIM_EXPERTS, &c->n_experts));
  HF_TRY(cfg_int(j, where, "num_experts_per_tok", 1, LIM_TOP_K, &c->top_k));
  HF_TRY(cfg_opt_int(j, where, "n_shared_experts", 0, LIM_SHARED, &shared));
  HF_TRY(cfg_opt_int(j, where, "first_k_dense_replace", 0, LIM_LAYERS, &first_dense));
  HF_TRY(cfg_opt_int(j, where, "n_group", 1, LIM_EXPERTS, &c->n_group));
  HF_TRY(cfg_opt_int(j, where, "topk_group", 1, LIM_EXPERTS, &c->topk_group));
  HF_TRY(json_opt_num(j, where, "routed_scaling_factor", 1e-6, 1e6, &c->routed_scale));
  c->d_ff_shared = shared * c->d_ff_expert;
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
