/* config_gpt_oss.c: gpt-oss: sinks, a sliding window on every other layer, biases everywhere, clamped SwiGLU. */
#include <string.h>

#include "model/config_limits.h"
#include "model/internal.h"

static hf_status windows(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_opt_int(j, where, "sliding_window", 1, LIM_CONTEXT, &c->sliding_window));
  if (!c->sliding_window) return HF_OK;
  HF_TRY(hf_alloc(&c->layer_slides, (size_t)c->n_layers, sizeof *c->layer_slides, "layer list"));
  for (int i = 0; i < c->n_layers; i++) c->layer_slides[i] = i % 2 == 0;
  const json *types = json_get(j, "layer_types");
  if (!types || json_type(types) == JSON_NULL) return HF_OK;
  if (json_len(types) != c->n_layers)
    return hf_fail(HF_INPUT, "%s: field layer_types: %d entries for num_hidden_layers %d", where, json_len(types), c->n_layers);
  int i = 0;
  for (const json *e = json_first(types); e; e = json_next(e), i++) {
    const char *s = json_string(e);
    if (!s || (strcmp(s, "sliding_attention") && strcmp(s, "full_attention")))
      return hf_fail(HF_INPUT, "%s: field layer_types[%d]: neither sliding_attention nor full_attention", where, i);
    c->layer_slides[i] = s[0] == 's';
  }
  return HF_OK;
}

hf_status config_gpt_oss(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_gqa(j, where, c));
  HF_TRY(cfg_int(j, where, "intermediate_size", 1, LIM_WIDTH, &c->d_ff_expert));
  HF_TRY(cfg_int(j, where, "num_local_experts", 1, LIM_EXPERTS, &c->n_experts));
  int second = 0;
  HF_TRY(cfg_opt_int(j, where, "num_experts_per_tok", 1, LIM_TOP_K, &c->top_k));
  HF_TRY(cfg_opt_int(j, where, "experts_per_token", 1, LIM_TOP_K, &second));
  if (c->top_k && second && c->top_k != second)
    return hf_fail(HF_INPUT, "%s: fields num_experts_per_tok %d and experts_per_token %d contradict each other", where, c->top_k,
                   second);
  if (!c->top_k) c->top_k = second ? second : 4;
  c->route = ROUTE_SOFTMAX_TOPK;
  c->norm_topk = true; /* by construction: the softmax runs over the chosen logits */
  c->qkv_bias = true;
  HF_TRY(json_opt_bool(j, where, "attention_bias", &c->qkv_bias));
  c->o_bias = c->qkv_bias;
  c->sinks = c->router_lin_bias = c->expert_bias = true;
  c->swiglu_clamped = true;
  c->swiglu_limit = 7;
  HF_TRY(json_opt_num(j, where, "swiglu_limit", 1e-3, 1e6, &c->swiglu_limit));
  HF_TRY(windows(j, where, c));
  rope_spec r;
  HF_TRY(cfg_rope(j, where, 150000, &r));
  return config_resolve_rope(c, &r);
}
