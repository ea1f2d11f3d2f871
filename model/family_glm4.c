/* family_glm4.c: GLM-4.5: grouped-query attention with partial rotary, DeepSeek-V3's routing. */
#include <string.h>

#include "model/config_limits.h"
#include "model/family.h"

static hf_status read(const json *j, const char *where, model_config *c) {
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
  return cfg_resolve_rope(j, where, 10000, c);
}

static hf_status read_gguf(const gguf_source *in) {
  model_config *c = in->c;
  HF_TRY(src_gqa(in));
  int dense = 0, shared = 0;
  HF_TRY(src_need_int(in, "feed_forward_length", 1, LIM_WIDTH, &c->d_ff_dense));
  HF_TRY(src_need_int(in, "expert_feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert));
  HF_TRY(src_opt_int(in, "leading_dense_block_count", 0, LIM_LAYERS, &dense));
  HF_TRY(src_opt_int(in, "expert_shared_count", 0, LIM_SHARED, &shared));
  HF_TRY(src_opt_num(in, "expert_weights_scale", 1e-6, 1e6, &c->routed_scale));
  HF_TRY(src_opt_int(in, "expert_group_count", 0, LIM_EXPERTS, &c->n_group));
  HF_TRY(src_opt_int(in, "expert_group_used_count", 0, LIM_EXPERTS, &c->topk_group));
  c->d_ff_shared = shared * c->d_ff_expert;
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = i >= dense;
  c->route = ROUTE_SIGMOID;
  c->router_bias = c->norm_topk = true;
  c->group = c->n_group > 1 ? GROUP_TOP2SUM : GROUP_NONE;
  c->qkv_bias = src_has_tensor(in, "attn_q.bias", 0);
  c->qk_norm_head = src_has_tensor(in, "attn_q_norm.weight", 0);
  return src_opt_bool(in, "expert_weights_norm", &c->norm_topk);
}

/* Of earlier answers what was thought is left out, its empty mark stays. */
static hf_status chat(const chat_style *s, const chat_message *m, int n, hf_buf *out) {
  (void)s;
  HF_TRY(chat_put(out, "[gMASK]<sop>", "", ""));
  for (int i = 0; i < n; i++) {
    if (m[i].role != CHAT_ASSISTANT) {
      HF_TRY(chat_put(out, m[i].role == CHAT_USER ? "<|user|>\n" : "<|system|>\n", m[i].text, ""));
      continue;
    }
    const char *text = chat_skip(chat_after_thought(m[i].text), " \t\r\n");
    size_t len = strlen(text);
    while (len > 0 && strchr(" \t\r\n", text[len - 1])) len--;
    HF_TRY(chat_put(out, "<|assistant|>\n<think></think>", len ? "\n" : "", ""));
    HF_TRY(hf_buf_add(out, text, len));
  }
  return chat_put(out, "<|assistant|>", "", "");
}

const family family_glm4_moe = {.id = FAM_GLM4_MOE,
                                .name = "glm4_moe",
                                .architecture = "Glm4MoeForCausalLM",
                                .read = read,
                                .gguf_arch = "glm4moe",
                                .read_gguf = read_gguf,
                                .gguf_post_norm = true,
                                .chat = chat,
                                .chat_end = "<|user|>",
                                .chat_answer = chat_after_thought};
