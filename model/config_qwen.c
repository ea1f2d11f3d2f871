/* config_qwen.c: Qwen2-MoE, Qwen3-MoE and OLMoE: grouped-query attention, softmax routing, experts in most layers. */
#include "model/config_limits.h"
#include "model/internal.h"

static hf_status sparse_layers(const json *j, const char *where, model_config *c) {
  int step = 1;
  HF_TRY(cfg_opt_int(j, where, "decoder_sparse_step", 1, LIM_LAYERS, &step));
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = (i + 1) % step == 0;
  const json *only = json_get(j, "mlp_only_layers");
  if (!only || json_type(only) == JSON_NULL) return HF_OK;
  if (json_type(only) != JSON_ARRAY) return hf_fail(HF_INPUT, "%s: field mlp_only_layers is no list", where);
  for (const json *e = json_first(only); e; e = json_next(e)) {
    double v = json_number(e, -1);
    if (!(v >= 0 && v < c->n_layers) || v != (double)(int)v)
      return hf_fail(HF_INPUT, "%s: field mlp_only_layers: not a layer below num_hidden_layers %d", where, c->n_layers);
    c->layer_is_moe[(int)v] = false;
  }
  return HF_OK;
}

/* Qwen2-MoE slides from layer max_window_layers on, Qwen3-MoE everywhere, both only when use_sliding_window says so. */
static hf_status sliding(const json *j, const char *where, model_config *c) {
  bool use = false;
  HF_TRY(json_opt_bool(j, where, "use_sliding_window", &use));
  if (!use) return HF_OK;
  HF_TRY(cfg_opt_int(j, where, "sliding_window", 1, LIM_CONTEXT, &c->sliding_window));
  if (!c->sliding_window) return HF_OK;
  int full = 0;
  if (c->family == FAM_QWEN2_MOE) HF_TRY(cfg_opt_int(j, where, "max_window_layers", 0, LIM_CONTEXT, &full));
  HF_TRY(hf_alloc(&c->layer_slides, (size_t)c->n_layers, sizeof *c->layer_slides, "layer list"));
  for (int i = 0; i < c->n_layers; i++) c->layer_slides[i] = i >= full;
  return HF_OK;
}

static hf_status read_olmoe(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_int(j, where, "intermediate_size", 1, LIM_WIDTH, &c->d_ff_expert));
  const json *clip = json_get(j, "clip_qkv");
  if (clip && json_type(clip) != JSON_NULL) return hf_fail(HF_UNSUPPORTED, "%s: field clip_qkv: only null is supported", where);
  c->qk_norm_full = true;
  return HF_OK;
}

static hf_status read_qwen(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_int(j, where, "moe_intermediate_size", 1, LIM_WIDTH, &c->d_ff_expert));
  HF_TRY(cfg_opt_int(j, where, "intermediate_size", 1, LIM_WIDTH, &c->d_ff_dense));
  HF_TRY(sparse_layers(j, where, c));
  HF_TRY(sliding(j, where, c));
  if (c->family == FAM_QWEN3_MOE) {
    c->qk_norm_head = true;
    return HF_OK;
  }
  c->qkv_bias = true; /* without a flag in the published configs */
  HF_TRY(json_opt_bool(j, where, "qkv_bias", &c->qkv_bias));
  HF_TRY(cfg_opt_int(j, where, "shared_expert_intermediate_size", 0, LIM_WIDTH, &c->d_ff_shared));
  c->shared_gate = c->d_ff_shared > 0;
  return HF_OK;
}

hf_status config_qwen(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_gqa(j, where, c));
  HF_TRY(cfg_int(j, where, "num_experts", 1, LIM_EXPERTS, &c->n_experts));
  HF_TRY(cfg_int(j, where, "num_experts_per_tok", 1, LIM_TOP_K, &c->top_k));
  HF_TRY(json_opt_bool(j, where, "norm_topk_prob", &c->norm_topk));
  c->route = ROUTE_SOFTMAX;
  if (c->family != FAM_QWEN2_MOE) {
    bool bias = false;
    HF_TRY(json_opt_bool(j, where, "attention_bias", &bias));
    c->qkv_bias = c->o_bias = bias;
  }
  HF_TRY(c->family == FAM_OLMOE ? read_olmoe(j, where, c) : read_qwen(j, where, c));
  rope_spec r;
  HF_TRY(cfg_rope(j, where, 10000, &r));
  return config_resolve_rope(c, &r);
}
