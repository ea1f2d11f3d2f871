/* family_gpt_oss.c: gpt-oss: sinks, a sliding window on every other layer, biases everywhere, clamped SwiGLU. */
#include <stdio.h>
#include <string.h>

#include "model/config_limits.h"
#include "model/family.h"

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

static hf_status read(const json *j, const char *where, model_config *c) {
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
  return cfg_resolve_rope(j, where, 150000, c);
}

static hf_status read_gguf(const gguf_source *in) {
  model_config *c = in->c;
  HF_TRY(src_gqa(in));
  HF_TRY(src_need_int(in, "expert_feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert));
  c->route = ROUTE_SOFTMAX_TOPK;
  c->norm_topk = c->qkv_bias = c->o_bias = c->sinks = c->router_lin_bias = c->expert_bias = c->swiglu_clamped = true;
  c->swiglu_limit = 7;
  HF_TRY(src_opt_int(in, "attention.sliding_window", 0, LIM_CONTEXT, &c->sliding_window));
  if (!c->sliding_window) return HF_OK;
  HF_TRY(hf_alloc(&c->layer_slides, (size_t)c->n_layers, sizeof *c->layer_slides, "layer list"));
  for (int i = 0; i < c->n_layers; i++) c->layer_slides[i] = i % 2 == 0;
  return HF_OK;
}

/* ---- Hugging Face checkpoints: all experts of a layer in one tensor, gate and up interleaved ---- */

static hf_status bind_mxfp4(model *m, tensor_slot *s, model_tensor_id id, int layer, int64_t rows, int64_t cols) {
  char name[NAME_MAX_BYTES];
  const char *base = id == MT_EXP_DOWN ? "down_proj" : "gate_up_proj";
  int64_t stored = id == MT_EXP_DOWN ? rows : 2 * rows;
  snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s_blocks", layer, base);
  const raw_tensor *b = tset_find(&m->set, name);
  if (!b) {
    snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s", layer, base);
    return bind_absent(m, name);
  }
  if (b->n_dims != 4 || b->dims[0] != m->c.n_experts || b->dims[1] != stored || b->dims[2] * 32 != cols || b->dims[3] != 16 ||
      strcmp(b->dtype, "U8"))
    return hf_fail(HF_INPUT, "%s: tensor %s: not U8 [experts, %lld, %lld / 32, 16]", m->set.files[b->file].path, name,
                   (long long)stored, (long long)cols);
  snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s_scales", layer, base);
  const raw_tensor *q = tset_find(&m->set, name);
  if (!q) return bind_absent(m, name);
  if (q->bytes * 16 != b->bytes)
    return hf_fail(HF_INPUT, "%s: tensor %s: not one scale per block", m->set.files[q->file].path, name);
  *s = (tensor_slot){.present = true,
                     .how = READ_MXFP4,
                     .format = FMT_MXFP4,
                     .stored = FMT_MXFP4,
                     .rows = rows,
                     .cols = cols,
                     .bytes = (uint64_t)rows * fmt_row_bytes(FMT_MXFP4, cols),
                     .file = b->file,
                     .offset = b->offset,
                     .expert_stride = b->bytes / (uint64_t)m->c.n_experts,
                     .step = id == MT_EXP_DOWN ? 1 : 2,
                     .first = id == MT_EXP_UP,
                     .scale_file = q->file,
                     .scale_offset = q->offset};
  return HF_OK;
}

static hf_status bind_expert(model *m, tensor_slot *s, model_tensor_id id, int layer, int64_t rows, int64_t cols) {
  bool bias = id == MT_EXP_GATE_BIAS || id == MT_EXP_UP_BIAS || id == MT_EXP_DOWN_BIAS;
  bool down = id == MT_EXP_DOWN || id == MT_EXP_DOWN_BIAS;
  char name[NAME_MAX_BYTES];
  snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s%s", layer, down ? "down_proj" : "gate_up_proj",
           bias ? "_bias" : "");
  const raw_tensor *t = tset_find(&m->set, name);
  if (!t) return bias ? bind_absent(m, name) : bind_mxfp4(m, s, id, layer, rows, cols);
  int64_t out = bias ? cols : rows, in = bias ? 1 : cols, width = down ? out : 2 * out;
  int elem = t->format >= 0 && t->format < FMT_N && fmt_get(t->format)->block == 1 ? fmt_get(t->format)->block_bytes : 0;
  bool fits = elem >= 2 && t->dims[0] == m->c.n_experts &&
              (bias ? t->n_dims == 2 && t->dims[1] == width : t->n_dims == 3 && t->dims[1] == in && t->dims[2] == width);
  if (!fits)
    return hf_fail(HF_INPUT, "%s: tensor %s: not F32, F16 or BF16 [experts, %s%lld]", m->set.files[t->file].path, name,
                   bias ? "" : "in, ", (long long)width);
  *s = (tensor_slot){.present = true,
                     .how = bias ? (down ? READ_DIRECT : READ_STRIDED) : READ_COLUMNS,
                     .format = t->format,
                     .stored = t->format,
                     .rows = rows,
                     .cols = cols,
                     .bytes = (uint64_t)rows * fmt_row_bytes(t->format, cols),
                     .file = t->file,
                     .offset = t->offset,
                     .expert_stride = (uint64_t)(in * width * elem),
                     .step = down ? 1 : 2,
                     .first = id == MT_EXP_UP || id == MT_EXP_UP_BIAS};
  return HF_OK;
}

static const char *tensor_name_of(model_tensor_id id) {
  return id == MT_ROUTER ? "mlp.router.weight" : NULL;
}

/* OpenAI's harmony format: the system message is the format's own, ours goes to the developer; of earlier answers the final channel. */
static hf_status chat(const chat_style *s, const chat_message *m, int n, hf_buf *out) {
  HF_TRY(hf_buf_printf(out,
                       "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
                       "Knowledge cutoff: 2024-06\nCurrent date: %s\n\nReasoning: medium\n\n"
                       "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>",
                       s->date));
  for (int i = 0; i < n; i++) {
    if (m[i].role == CHAT_SYSTEM)
      HF_TRY(chat_put(out, "<|start|>developer<|message|># Instructions\n\n", m[i].text, "\n\n<|end|>"));
    if (m[i].role == CHAT_USER) HF_TRY(chat_put(out, "<|start|>user<|message|>", m[i].text, "<|end|>"));
    if (m[i].role == CHAT_ASSISTANT) HF_TRY(chat_put(out, "<|start|>assistant<|channel|>final<|message|>", m[i].text, "<|end|>"));
  }
  return chat_put(out, "<|start|>assistant", "", "");
}

static const char *final_channel(const char *text) {
  static const char mark[] = "<|channel|>final<|message|>";
  const char *p = strstr(text, mark);
  return p ? p + sizeof mark - 1 : text;
}

const family family_gpt_oss = {.id = FAM_GPT_OSS,
                               .name = "gpt_oss",
                               .architecture = "GptOssForCausalLM",
                               .read = read,
                               .tensor_name = tensor_name_of,
                               .bind_expert = bind_expert,
                               .gguf_arch = "gpt-oss",
                               .read_gguf = read_gguf,
                               .gguf_post_norm = true,
                               .chat = chat,
                               .chat_end = "<|return|>",
                               .chat_answer = final_channel};
