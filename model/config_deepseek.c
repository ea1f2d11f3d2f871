/* config_deepseek.c: DeepSeek-V2, -V3, -R1 and Kimi-K2: MLA, shared experts, leading dense layers.
 *
 *            score     choice of groups         weights
 *   V2       softmax   maximum of a group       scaled, never normalised
 *   V3, K2   sigmoid   sum of a group's 2 best  normalised if norm_topk_prob, then scaled; bias for the choice only */
#include <string.h>

#include "model/config_limits.h"
#include "model/internal.h"

static hf_status read_mla(const json *j, const char *where, model_config *c) {
  c->attn = ATTN_MLA;
  HF_TRY(cfg_int(j, where, "num_attention_heads", 1, LIM_HEADS, &c->n_heads));
  c->n_kv_heads = 1; /* the latent is shared by all heads */
  HF_TRY(cfg_opt_int(j, where, "q_lora_rank", 1, LIM_WIDTH, &c->q_lora_rank));
  HF_TRY(cfg_int(j, where, "kv_lora_rank", 1, LIM_WIDTH, &c->kv_lora_rank));
  HF_TRY(cfg_int(j, where, "qk_nope_head_dim", 1, LIM_HEAD_DIM, &c->nope_dim));
  HF_TRY(cfg_int(j, where, "qk_rope_head_dim", 2, LIM_HEAD_DIM, &c->rope_dim));
  HF_TRY(cfg_int(j, where, "v_head_dim", 1, LIM_HEAD_DIM, &c->v_dim));
  c->mla_norm_eps = 1e-6; /* the class default of the published code, whatever rms_norm_eps says */
  bool bias = false, interleave = true;
  HF_TRY(json_opt_bool(j, where, "attention_bias", &bias));
  if (bias)
    return hf_fail(HF_UNSUPPORTED, "%s: field attention_bias: true is not supported for %s", where, model_family_name(c->family));
  HF_TRY(json_opt_bool(j, where, "rope_interleave", &interleave));
  c->rope.kind = interleave ? ROPE_PAIRS : ROPE_HALVES;
  c->rope.dim = c->rope_dim;
  rope_spec r;
  HF_TRY(cfg_rope(j, where, 10000, &r));
  return config_resolve_rope(c, &r);
}

static hf_status read_route_v2(const json *j, const char *where, model_config *c) {
  const char *method = "greedy", *score = "softmax";
  HF_TRY(json_opt_str(j, where, "topk_method", &method));
  HF_TRY(json_opt_str(j, where, "scoring_func", &score));
  if (strcmp(score, "softmax"))
    return hf_fail(HF_UNSUPPORTED, "%s: field scoring_func: '%.40s' is not supported for deepseek_v2; known: softmax", where,
                   score);
  c->route = ROUTE_SOFTMAX;
  if (!strcmp(method, "greedy")) c->n_group = c->topk_group = 1;
  else if (strcmp(method, "group_limited_greedy"))
    return hf_fail(HF_UNSUPPORTED,
                   "%s: field topk_method: '%.40s' is not supported for deepseek_v2; known: greedy, group_limited_greedy", where,
                   method);
  c->group = c->n_group > 1 ? GROUP_MAX : GROUP_NONE;
  bool norm = false;
  HF_TRY(json_opt_bool(j, where, "norm_topk_prob", &norm));
  if (norm)
    return hf_fail(HF_UNSUPPORTED, "%s: field norm_topk_prob: true is not supported for deepseek_v2, whose code never normalises",
                   where);
  return HF_OK;
}

static hf_status read_route_v3(const json *j, const char *where, model_config *c) {
  const char *method = "noaux_tc", *score = "sigmoid";
  HF_TRY(json_opt_str(j, where, "topk_method", &method));
  HF_TRY(json_opt_str(j, where, "scoring_func", &score));
  if (strcmp(score, "sigmoid") || strcmp(method, "noaux_tc"))
    return hf_fail(
        HF_UNSUPPORTED,
        "%s: fields scoring_func and topk_method: '%.40s' with '%.40s' is not supported for %s; known: sigmoid with noaux_tc",
        where, score, method, model_family_name(c->family));
  c->route = ROUTE_SIGMOID;
  c->router_bias = true;
  c->group = c->n_group > 1 ? GROUP_TOP2SUM : GROUP_NONE;
  c->norm_topk = true;
  return json_opt_bool(j, where, "norm_topk_prob", &c->norm_topk);
}

hf_status config_deepseek(const json *j, const char *where, model_config *c) {
  HF_TRY(read_mla(j, where, c));
  int first_dense = 0, freq = 1;
  HF_TRY(cfg_deepseek_ffn(j, where, c, &first_dense));
  HF_TRY(cfg_opt_int(j, where, "moe_layer_freq", 1, LIM_LAYERS, &freq));
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = i >= first_dense && i % freq == 0;
  HF_TRY(c->family == FAM_DEEPSEEK_V2 ? read_route_v2(j, where, c) : read_route_v3(j, where, c));
  if (c->group == GROUP_NONE) c->n_group = c->topk_group = 1;
  return HF_OK;
}
