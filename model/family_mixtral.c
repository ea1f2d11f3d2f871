/* family_mixtral.c: Mixtral: grouped-query attention, every layer routed, weights of the chosen experts normalised. */
#include <string.h>

#include "model/config_limits.h"
#include "model/family.h"

static hf_status read(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_gqa(j, where, c));
  HF_TRY(cfg_int(j, where, "intermediate_size", 1, LIM_WIDTH, &c->d_ff_expert));
  HF_TRY(cfg_int(j, where, "num_local_experts", 1, LIM_EXPERTS, &c->n_experts));
  c->top_k = 2;
  HF_TRY(cfg_opt_int(j, where, "num_experts_per_tok", 1, LIM_TOP_K, &c->top_k));
  c->route = ROUTE_SOFTMAX;
  c->norm_topk = true;
  HF_TRY(cfg_opt_int(j, where, "sliding_window", 1, LIM_CONTEXT, &c->sliding_window));
  if (c->sliding_window) {
    HF_TRY(hf_alloc(&c->layer_slides, (size_t)c->n_layers, sizeof *c->layer_slides, "layer list"));
    for (int i = 0; i < c->n_layers; i++) c->layer_slides[i] = true;
  }
  return cfg_resolve_rope(j, where, 1e6, c);
}

/* Files of architecture llama without experts are refused before: expert_count is missing. */
static hf_status read_gguf(const gguf_source *in) {
  model_config *c = in->c;
  HF_TRY(src_gqa(in));
  c->route = ROUTE_SOFTMAX;
  c->norm_topk = true;
  return src_need_int(in, "feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert);
}

static const char *tensor_name_of(model_tensor_id id) {
  switch (id) {
    case MT_ROUTER: return "block_sparse_moe.gate.weight";
    case MT_EXP_GATE: return "block_sparse_moe.experts.%d.w1.weight";
    case MT_EXP_UP: return "block_sparse_moe.experts.%d.w3.weight";
    case MT_EXP_DOWN: return "block_sparse_moe.experts.%d.w2.weight";
    default: return NULL;
  }
}

/* The published template was changed once: blanks went from the tokenizer into the text. */
static hf_status chat(const chat_style *s, const chat_message *m, int n, hf_buf *out) {
  bool spaced = strstr(s->model_template, "\" [INST] \"") || strstr(s->model_template, "' [INST] '");
  const char *blank = spaced ? " " : "";
  HF_TRY(chat_put(out, s->bos, "", ""));
  for (int i = m[0].role == CHAT_SYSTEM; i < n; i++) {
    if (m[i].role == CHAT_ASSISTANT) {
      HF_TRY(chat_put(out, blank, m[i].text, s->eos));
      continue;
    }
    HF_TRY(chat_put(out, blank, "[INST] ", ""));
    if (i == 1 && m[0].role == CHAT_SYSTEM) HF_TRY(chat_put(out, m[0].text, "\n\n", ""));
    HF_TRY(chat_put(out, m[i].text, " [/INST]", ""));
  }
  return HF_OK;
}

const family family_mixtral = {.id = FAM_MIXTRAL,
                               .name = "mixtral",
                               .architecture = "MixtralForCausalLM",
                               .read = read,
                               .tensor_name = tensor_name_of,
                               .gguf_arch = "llama",
                               .read_gguf = read_gguf,
                               .gguf_permuted = true,
                               .gguf_expert_ffn = true,
                               .chat = chat};
