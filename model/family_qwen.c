/* family_qwen.c: Qwen2-MoE and Qwen3-MoE: grouped-query attention, softmax routing, experts in most layers. */
#include <string.h>

#include "model/config_limits.h"
#include "model/family.h"

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

static hf_status read_layers(const json *j, const char *where, model_config *c) {
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

static hf_status read(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_softmax_moe(j, where, c));
  HF_TRY(read_layers(j, where, c));
  return cfg_resolve_rope(j, where, 10000, c);
}

static hf_status read_gguf(const gguf_source *in) {
  model_config *c = in->c;
  HF_TRY(src_gqa(in));
  HF_TRY(src_opt_int(in, "feed_forward_length", 0, LIM_WIDTH, &c->d_ff_dense));
  HF_TRY(src_need_int(in, "expert_feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert));
  c->route = ROUTE_SOFTMAX;
  if (c->family == FAM_QWEN3_MOE) {
    c->qk_norm_head = c->norm_topk = true;
  } else {
    HF_TRY(src_opt_int(in, "expert_shared_feed_forward_length", 0, LIM_WIDTH, &c->d_ff_shared));
    c->qkv_bias = src_has_tensor(in, "attn_q.bias", 0);
    c->shared_gate = c->d_ff_shared > 0;
  }
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = in->s->n == 0 || !src_has_tensor(in, "ffn_gate.weight", i);
  return HF_OK;
}

static const char *qwen2_tensor_name(model_tensor_id id) {
  switch (id) {
    case MT_SH_GATE: return "mlp.shared_expert.gate_proj.weight";
    case MT_SH_UP: return "mlp.shared_expert.up_proj.weight";
    case MT_SH_DOWN: return "mlp.shared_expert.down_proj.weight";
    default: return NULL;
  }
}

/* ChatML. Qwen2's models are told what they are; what Qwen3's thought in earlier turns is left out. */
static hf_status chat(const chat_style *s, const chat_message *m, int n, hf_buf *out) {
  static const char *const begin[] = {"<|im_start|>system\n", "<|im_start|>user\n", "<|im_start|>assistant\n"};
  static const char end[] = "<|im_end|>\n";
  if (s->family == FAM_QWEN2_MOE && m[0].role != CHAT_SYSTEM)
    HF_TRY(chat_put(out, begin[CHAT_SYSTEM], "You are a helpful assistant.", end));
  for (int i = 0; i < n; i++) {
    const char *text = m[i].text;
    if (s->family == FAM_QWEN3_MOE && m[i].role == CHAT_ASSISTANT && strstr(text, "</think>"))
      text = chat_skip(chat_after_thought(text), "\n");
    HF_TRY(chat_put(out, begin[m[i].role], text, end));
  }
  return chat_put(out, begin[CHAT_ASSISTANT], "", "");
}

const family family_qwen2_moe = {.id = FAM_QWEN2_MOE,
                                 .name = "qwen2_moe",
                                 .architecture = "Qwen2MoeForCausalLM",
                                 .read = read,
                                 .tensor_name = qwen2_tensor_name,
                                 .gguf_arch = "qwen2moe",
                                 .read_gguf = read_gguf,
                                 .chat = chat,
                                 .chat_end = "<|im_end|>"};

const family family_qwen3_moe = {.id = FAM_QWEN3_MOE,
                                 .name = "qwen3_moe",
                                 .architecture = "Qwen3MoeForCausalLM",
                                 .read = read,
                                 .gguf_arch = "qwen3moe",
                                 .read_gguf = read_gguf,
                                 .chat = chat,
                                 .chat_end = "<|im_end|>",
                                 .chat_answer = chat_after_thought};
