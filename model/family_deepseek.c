/* family_deepseek.c: DeepSeek-V2, -V3, -R1 and Kimi-K2: MLA, shared experts, leading dense layers.
 *
 *            score     choice of groups         weights
 *   V2       softmax   maximum of a group       scaled, never normalised
 *   V3, K2   sigmoid   sum of a group's 2 best  normalised if norm_topk_prob, then scaled; bias for the choice only */
#include <string.h>

#include "model/config_limits.h"
#include "model/family.h"

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
  return cfg_resolve_rope(j, where, 10000, c);
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

static hf_status read(const json *j, const char *where, model_config *c) {
  HF_TRY(read_mla(j, where, c));
  int first_dense = 0, freq = 1;
  HF_TRY(cfg_deepseek_ffn(j, where, c, &first_dense));
  HF_TRY(cfg_opt_int(j, where, "moe_layer_freq", 1, LIM_LAYERS, &freq));
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = i >= first_dense && i % freq == 0;
  HF_TRY(c->family == FAM_DEEPSEEK_V2 ? read_route_v2(j, where, c) : read_route_v3(j, where, c));
  if (c->group == GROUP_NONE) c->n_group = c->topk_group = 1;
  return HF_OK;
}

static hf_status read_gguf(const gguf_source *in) {
  model_config *c = in->c;
  c->attn = ATTN_MLA;
  int key = 0, value = 0, dense = 0, shared = 0, gating = 1;
  HF_TRY(src_need_int(in, "attention.head_count", 1, LIM_HEADS, &c->n_heads));
  c->n_kv_heads = 1;
  HF_TRY(src_opt_int(in, "attention.q_lora_rank", 0, LIM_WIDTH, &c->q_lora_rank));
  HF_TRY(src_need_int(in, "attention.kv_lora_rank", 1, LIM_WIDTH, &c->kv_lora_rank));
  HF_TRY(src_need_int(in, "rope.dimension_count", 2, LIM_HEAD_DIM, &c->rope_dim));
  /* files from before the absorbed form keep the heads' own sizes in key_length and value_length */
  HF_TRY(src_opt_int(in, "attention.key_length", 1, LIM_WIDTH, &key));
  HF_TRY(src_opt_int(in, "attention.value_length", 1, LIM_WIDTH, &value));
  HF_TRY(src_opt_int(in, "attention.key_length_mla", 1, LIM_HEAD_DIM, &key));
  HF_TRY(src_opt_int(in, "attention.value_length_mla", 1, LIM_HEAD_DIM, &value));
  if (key <= c->rope_dim || value < 1 || key > LIM_HEAD_DIM || value > LIM_HEAD_DIM)
    return hf_fail(HF_INPUT,
                   "%s: deepseek2.attention.key_length_mla and value_length_mla: %d and %d do not fit rope.dimension_count %d",
                   in->g->path, key, value, c->rope_dim);
  c->nope_dim = key - c->rope_dim;
  c->v_dim = value;
  c->mla_norm_eps = 1e-6;
  c->rope.kind = ROPE_PAIRS;
  c->rope.dim = c->rope_dim;
  HF_TRY(src_need_int(in, "feed_forward_length", 1, LIM_WIDTH, &c->d_ff_dense));
  HF_TRY(src_need_int(in, "expert_feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert));
  HF_TRY(src_opt_int(in, "expert_shared_count", 0, LIM_SHARED, &shared));
  HF_TRY(src_opt_int(in, "leading_dense_block_count", 0, LIM_LAYERS, &dense));
  HF_TRY(src_opt_int(in, "expert_group_count", 0, LIM_EXPERTS, &c->n_group));
  HF_TRY(src_opt_int(in, "expert_group_used_count", 0, LIM_EXPERTS, &c->topk_group));
  HF_TRY(src_opt_num(in, "expert_weights_scale", 0, 1e6, &c->routed_scale));
  HF_TRY(src_opt_int(in, "expert_gating_func", 0, 2, &gating));
  if (c->routed_scale == 0) c->routed_scale = 1; /* llama.cpp's "not set" */
  c->d_ff_shared = shared * c->d_ff_expert;
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = i >= dense;
  bool groups = c->n_group > 1, norm = gating == 2;
  HF_TRY(src_opt_bool(in, "expert_weights_norm", &norm));
  c->route = gating == 2 ? ROUTE_SIGMOID : ROUTE_SOFTMAX;
  c->group = !groups ? GROUP_NONE : gating == 2 ? GROUP_TOP2SUM : GROUP_MAX;
  c->family = gating != 2 ? FAM_DEEPSEEK_V2 : groups ? FAM_DEEPSEEK_V3 : FAM_KIMI_K2;
  if (gating != 2 && norm)
    return hf_fail(HF_UNSUPPORTED, "%s: deepseek2.expert_weights_norm: true is not supported with softmax routing", in->g->path);
  c->norm_topk = norm;
  c->router_bias = gating == 2;
  return HF_OK;
}

/* V2: roles in words. */
static hf_status chat_v2(const chat_style *s, const chat_message *m, int n, hf_buf *out) {
  HF_TRY(chat_put(out, s->bos, "", ""));
  for (int i = 0; i < n; i++) {
    if (m[i].role == CHAT_ASSISTANT) HF_TRY(chat_put(out, "Assistant: ", m[i].text, s->eos));
    else HF_TRY(chat_put(out, m[i].role == CHAT_USER ? "User: " : "", m[i].text, "\n\n"));
  }
  return chat_put(out, "Assistant:", "", "");
}

#define USER "<\uff5cUser\uff5c>"
#define ASSISTANT "<\uff5cAssistant\uff5c>"

/* V3; R1, which is asked to think; V3.1, which is asked not to. */
static hf_status chat_v3(const chat_style *s, const chat_message *m, int n, hf_buf *out) {
  bool r1 = strstr(s->model_template, ASSISTANT "<think>") != NULL, v31 = strstr(s->model_template, "thinking") != NULL;
  HF_TRY(chat_put(out, s->bos, "", ""));
  for (int i = 0; i < n; i++) {
    if (m[i].role == CHAT_ASSISTANT) {
      HF_TRY(chat_put(out, ASSISTANT, v31 ? "</think>" : "", ""));
      HF_TRY(chat_put(out, chat_after_thought(m[i].text), s->eos, ""));
    } else {
      HF_TRY(chat_put(out, m[i].role == CHAT_USER ? USER : "", m[i].text, ""));
    }
  }
  return chat_put(out, ASSISTANT, r1 ? "<think>\n" : v31 ? "</think>" : "", "");
}

/* The older of the published templates has another default. */
static hf_status chat_kimi(const chat_style *s, const chat_message *m, int n, hf_buf *out) {
  static const char *const begin[] = {"<|im_system|>system<|im_middle|>", "<|im_user|>user<|im_middle|>",
                                      "<|im_assistant|>assistant<|im_middle|>"};
  bool old = strstr(s->model_template, "You are a helpful assistant") != NULL;
  if (m[0].role != CHAT_SYSTEM)
    HF_TRY(chat_put(out, begin[CHAT_SYSTEM],
                    old ? "You are a helpful assistant" : "You are Kimi, an AI assistant created by Moonshot AI.", "<|im_end|>"));
  for (int i = 0; i < n; i++) HF_TRY(chat_put(out, begin[m[i].role], chat_after_thought(m[i].text), "<|im_end|>"));
  return chat_put(out, begin[CHAT_ASSISTANT], "", "");
}

const family family_deepseek_v3 = {.id = FAM_DEEPSEEK_V3,
                                   .name = "deepseek_v3",
                                   .architecture = "DeepseekV3ForCausalLM",
                                   .read = read,
                                   .gguf_arch = "deepseek2",
                                   .read_gguf = read_gguf,
                                   .chat = chat_v3,
                                   .chat_answer = chat_after_thought};

const family family_deepseek_v2 = {.id = FAM_DEEPSEEK_V2,
                                   .name = "deepseek_v2",
                                   .architecture = "DeepseekV2ForCausalLM",
                                   .read = read,
                                   .gguf_arch = "deepseek2",
                                   .read_gguf = read_gguf,
                                   .chat = chat_v2};

const family family_kimi_k2 = {.id = FAM_KIMI_K2,
                               .name = "kimi_k2",
                               .read = read,
                               .gguf_arch = "deepseek2",
                               .read_gguf = read_gguf,
                               .chat = chat_kimi,
                               .chat_end = "<|im_end|>",
                               .chat_answer = chat_after_thought};
