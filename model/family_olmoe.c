/* family_olmoe.c: OLMoE: q and k normalised over their whole width, every layer routed, weights as the softmax over all experts gives them. */
#include <string.h>

#include "model/config_limits.h"
#include "model/family.h"

static hf_status read(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_softmax_moe(j, where, c));
  HF_TRY(cfg_int(j, where, "intermediate_size", 1, LIM_WIDTH, &c->d_ff_expert));
  const json *clip = json_get(j, "clip_qkv");
  if (clip && json_type(clip) != JSON_NULL) return hf_fail(HF_UNSUPPORTED, "%s: field clip_qkv: only null is supported", where);
  c->qk_norm_full = true;
  return cfg_resolve_rope(j, where, 10000, c);
}

static hf_status read_gguf(const gguf_source *in) {
  model_config *c = in->c;
  HF_TRY(src_gqa(in));
  c->route = ROUTE_SOFTMAX;
  c->qk_norm_full = true;
  return src_need_int(in, "feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert);
}

static hf_status chat(const chat_style *s, const chat_message *m, int n, hf_buf *out) {
  static const char *const begin[] = {"<|system|>\n", "<|user|>\n", "<|assistant|>\n"};
  HF_TRY(chat_put(out, s->bos, "", ""));
  for (int i = 0; i < n; i++) {
    HF_TRY(chat_put(out, begin[m[i].role], m[i].text, m[i].role == CHAT_ASSISTANT ? s->eos : ""));
    HF_TRY(chat_put(out, "\n", "", ""));
  }
  return chat_put(out, begin[CHAT_ASSISTANT], "", "");
}

const family family_olmoe = {.id = FAM_OLMOE,
                             .name = "olmoe",
                             .architecture = "OlmoeForCausalLM",
                             .read = read,
                             .gguf_arch = "olmoe",
                             .read_gguf = read_gguf,
                             .gguf_expert_ffn = true,
                             .chat = chat};
