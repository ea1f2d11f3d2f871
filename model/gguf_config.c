/* gguf_config.c: GGUF metadata -> model_config, for the architectures whose families this room knows. */
#include <stdio.h>
#include <string.h>

#include "model/config_limits.h"
#include "model/gguf.h"

typedef struct {
  const gguf_file *g;
  const tensor_set *s;
  const char *arch;
  model_config *c;
} source;

static const char *key_of(const source *in, const char *name, char buf[160]) {
  snprintf(buf, 160, "%s.%s", in->arch, name);
  return buf;
}

static hf_status opt_int(const source *in, const char *name, int lo, int hi, int *out) {
  char key[160];
  int64_t v = *out;
  HF_TRY(gguf_opt_int(in->g, key_of(in, name, key), lo, hi, &v));
  *out = (int)v;
  return HF_OK;
}

static hf_status need_int(const source *in, const char *name, int lo, int hi, int *out) {
  char key[160];
  if (!gguf_find(in->g, key_of(in, name, key))) return hf_fail(HF_INPUT, "%s: %s is missing", in->g->path, key);
  return opt_int(in, name, lo, hi, out);
}

static hf_status opt_num(const source *in, const char *name, double lo, double hi, double *out) {
  char key[160];
  return gguf_opt_num(in->g, key_of(in, name, key), lo, hi, out);
}

static hf_status opt_bool(const source *in, const char *name, bool *out) {
  char key[160];
  return gguf_opt_bool(in->g, key_of(in, name, key), out);
}

static bool has_tensor(const source *in, const char *pattern, int layer) {
  char name[128];
  snprintf(name, sizeof name, "blk.%d.%s", layer, pattern);
  return tset_find(in->s, name) != NULL;
}

static hf_status read_rope(const source *in, rope_spec *r) {
  char key[160], type[32] = "none";
  rope_spec_init(r);
  r->orig_context = in->c->max_context;
  HF_TRY(opt_num(in, "rope.freq_base", 1.001, 1e12, &r->theta));
  HF_TRY(gguf_opt_str(in->g, key_of(in, "rope.scaling.type", key), type, sizeof type));
  if (strcmp(type, "none") && strcmp(type, "linear") && strcmp(type, "yarn"))
    return hf_fail(HF_UNSUPPORTED, "%s: %s: '%s' is not supported; known: none, linear, yarn", in->g->path, key, type);
  if (!strcmp(type, "none")) return HF_OK;
  HF_TRY(opt_num(in, "rope.scaling.factor", 1, 1e6, &r->factor));
  if (!strcmp(type, "linear")) return HF_OK;
  r->yarn = true;
  HF_TRY(opt_num(in, "rope.scaling.original_context_length", 1, LIM_CONTEXT, &r->orig_context));
  HF_TRY(opt_num(in, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, &r->beta_fast));
  HF_TRY(opt_num(in, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, &r->beta_slow));
  double log_mul = 0;
  HF_TRY(opt_num(in, "rope.scaling.yarn_log_multiplier", 0, 10, &log_mul));
  if (in->c->attn == ATTN_MLA)
    r->mscale = r->mscale_all_dim = log_mul * 10; /* mscale itself is not stored: published files have both equal */
  r->truncate = in->c->family != FAM_GPT_OSS;     /* nor is truncate, false in gpt-oss's config */
  return HF_OK;
}

static hf_status read_gqa(const source *in) {
  model_config *c = in->c;
  c->attn = ATTN_GQA;
  HF_TRY(need_int(in, "attention.head_count", 1, LIM_HEADS, &c->n_heads));
  c->n_kv_heads = c->n_heads;
  HF_TRY(opt_int(in, "attention.head_count_kv", 1, LIM_HEADS, &c->n_kv_heads));
  HF_TRY(opt_int(in, "attention.key_length", 2, LIM_HEAD_DIM, &c->head_dim));
  int value_length = 0;
  HF_TRY(opt_int(in, "attention.value_length", 2, LIM_HEAD_DIM, &value_length));
  if (!c->head_dim) {
    if (c->d_model % c->n_heads)
      return hf_fail(HF_INPUT, "%s: %s.embedding_length: %d is no multiple of head_count %d, and key_length is not given",
                     in->g->path, in->arch, c->d_model, c->n_heads);
    c->head_dim = c->d_model / c->n_heads;
  }
  if (value_length && value_length != c->head_dim)
    return hf_fail(HF_UNSUPPORTED, "%s: %s.attention.value_length: %d differs from key_length %d", in->g->path, in->arch,
                   value_length, c->head_dim);
  c->rope.kind = ROPE_HALVES;
  c->rope.dim = c->head_dim;
  return opt_int(in, "rope.dimension_count", 2, LIM_HEAD_DIM, &c->rope.dim);
}

static hf_status read_deepseek2(const source *in) {
  model_config *c = in->c;
  c->attn = ATTN_MLA;
  int key = 0, value = 0, dense = 0, shared = 0, gating = 1;
  HF_TRY(need_int(in, "attention.head_count", 1, LIM_HEADS, &c->n_heads));
  c->n_kv_heads = 1;
  HF_TRY(opt_int(in, "attention.q_lora_rank", 0, LIM_WIDTH, &c->q_lora_rank));
  HF_TRY(need_int(in, "attention.kv_lora_rank", 1, LIM_WIDTH, &c->kv_lora_rank));
  HF_TRY(need_int(in, "rope.dimension_count", 2, LIM_HEAD_DIM, &c->rope_dim));
  /* files from before the absorbed form keep the heads' own sizes in key_length and value_length */
  HF_TRY(opt_int(in, "attention.key_length", 1, LIM_WIDTH, &key));
  HF_TRY(opt_int(in, "attention.value_length", 1, LIM_WIDTH, &value));
  HF_TRY(opt_int(in, "attention.key_length_mla", 1, LIM_HEAD_DIM, &key));
  HF_TRY(opt_int(in, "attention.value_length_mla", 1, LIM_HEAD_DIM, &value));
  if (key <= c->rope_dim || value < 1 || key > LIM_HEAD_DIM || value > LIM_HEAD_DIM)
    return hf_fail(HF_INPUT,
                   "%s: deepseek2.attention.key_length_mla and value_length_mla: %d and %d do not fit rope.dimension_count %d",
                   in->g->path, key, value, c->rope_dim);
  c->nope_dim = key - c->rope_dim;
  c->v_dim = value;
  c->mla_norm_eps = 1e-6;
  c->rope.kind = ROPE_PAIRS;
  c->rope.dim = c->rope_dim;
  HF_TRY(need_int(in, "feed_forward_length", 1, LIM_WIDTH, &c->d_ff_dense));
  HF_TRY(need_int(in, "expert_feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert));
  HF_TRY(opt_int(in, "expert_shared_count", 0, LIM_SHARED, &shared));
  HF_TRY(opt_int(in, "leading_dense_block_count", 0, LIM_LAYERS, &dense));
  HF_TRY(opt_int(in, "expert_group_count", 0, LIM_EXPERTS, &c->n_group));
  HF_TRY(opt_int(in, "expert_group_used_count", 0, LIM_EXPERTS, &c->topk_group));
  HF_TRY(opt_num(in, "expert_weights_scale", 0, 1e6, &c->routed_scale));
  HF_TRY(opt_int(in, "expert_gating_func", 0, 2, &gating));
  if (c->routed_scale == 0) c->routed_scale = 1; /* llama.cpp's "not set" */
  c->d_ff_shared = shared * c->d_ff_expert;
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = i >= dense;
  bool groups = c->n_group > 1, norm = gating == 2;
  HF_TRY(opt_bool(in, "expert_weights_norm", &norm));
  c->route = gating == 2 ? ROUTE_SIGMOID : ROUTE_SOFTMAX;
  c->group = !groups ? GROUP_NONE : gating == 2 ? GROUP_TOP2SUM : GROUP_MAX;
  c->family = gating != 2 ? FAM_DEEPSEEK_V2 : groups ? FAM_DEEPSEEK_V3 : FAM_KIMI_K2;
  if (gating != 2 && norm)
    return hf_fail(HF_UNSUPPORTED, "%s: deepseek2.expert_weights_norm: true is not supported with softmax routing", in->g->path);
  c->norm_topk = norm;
  c->router_bias = gating == 2;
  return HF_OK;
}

static hf_status read_qwen(const source *in) {
  model_config *c = in->c;
  c->family = !strcmp(in->arch, "qwen2moe") ? FAM_QWEN2_MOE : FAM_QWEN3_MOE;
  HF_TRY(read_gqa(in));
  HF_TRY(opt_int(in, "feed_forward_length", 0, LIM_WIDTH, &c->d_ff_dense));
  HF_TRY(need_int(in, "expert_feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert));
  c->route = ROUTE_SOFTMAX;
  if (c->family == FAM_QWEN3_MOE) {
    c->qk_norm_head = c->norm_topk = true;
  } else {
    HF_TRY(opt_int(in, "expert_shared_feed_forward_length", 0, LIM_WIDTH, &c->d_ff_shared));
    c->qkv_bias = has_tensor(in, "attn_q.bias", 0);
    c->shared_gate = c->d_ff_shared > 0;
  }
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = in->s->n == 0 || !has_tensor(in, "ffn_gate.weight", i);
  return HF_OK;
}

static hf_status read_mixtral(const source *in) {
  model_config *c = in->c;
  c->family = FAM_MIXTRAL;
  HF_TRY(read_gqa(in));
  c->route = ROUTE_SOFTMAX;
  c->norm_topk = true;
  return need_int(in, "feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert);
}

static hf_status read_olmoe(const source *in) {
  model_config *c = in->c;
  c->family = FAM_OLMOE;
  HF_TRY(read_gqa(in));
  c->route = ROUTE_SOFTMAX;
  c->qk_norm_full = true;
  return need_int(in, "feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert);
}

static hf_status read_gpt_oss(const source *in) {
  model_config *c = in->c;
  c->family = FAM_GPT_OSS;
  HF_TRY(read_gqa(in));
  HF_TRY(need_int(in, "expert_feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert));
  c->route = ROUTE_SOFTMAX_TOPK;
  c->norm_topk = c->qkv_bias = c->o_bias = c->sinks = c->router_lin_bias = c->expert_bias = c->swiglu_clamped = true;
  c->swiglu_limit = 7;
  HF_TRY(opt_int(in, "attention.sliding_window", 0, LIM_CONTEXT, &c->sliding_window));
  if (!c->sliding_window) return HF_OK;
  HF_TRY(hf_alloc(&c->layer_slides, (size_t)c->n_layers, sizeof *c->layer_slides, "layer list"));
  for (int i = 0; i < c->n_layers; i++) c->layer_slides[i] = i % 2 == 0;
  return HF_OK;
}

static hf_status read_glm4(const source *in) {
  model_config *c = in->c;
  c->family = FAM_GLM4_MOE;
  HF_TRY(read_gqa(in));
  int dense = 0, shared = 0;
  HF_TRY(need_int(in, "feed_forward_length", 1, LIM_WIDTH, &c->d_ff_dense));
  HF_TRY(need_int(in, "expert_feed_forward_length", 1, LIM_WIDTH, &c->d_ff_expert));
  HF_TRY(opt_int(in, "leading_dense_block_count", 0, LIM_LAYERS, &dense));
  HF_TRY(opt_int(in, "expert_shared_count", 0, LIM_SHARED, &shared));
  HF_TRY(opt_num(in, "expert_weights_scale", 1e-6, 1e6, &c->routed_scale));
  HF_TRY(opt_int(in, "expert_group_count", 0, LIM_EXPERTS, &c->n_group));
  HF_TRY(opt_int(in, "expert_group_used_count", 0, LIM_EXPERTS, &c->topk_group));
  c->d_ff_shared = shared * c->d_ff_expert;
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = i >= dense;
  c->route = ROUTE_SIGMOID;
  c->router_bias = c->norm_topk = true;
  c->group = c->n_group > 1 ? GROUP_TOP2SUM : GROUP_NONE;
  c->qkv_bias = has_tensor(in, "attn_q.bias", 0);
  c->qk_norm_head = has_tensor(in, "attn_q_norm.weight", 0);
  return opt_bool(in, "expert_weights_norm", &c->norm_topk);
}

static const struct {
  const char *arch;
  hf_status (*read)(const source *);
} archs[] = {{"deepseek2", read_deepseek2}, {"qwen2moe", read_qwen},   {"qwen3moe", read_qwen}, {"llama", read_mixtral},
             {"olmoe", read_olmoe},         {"gpt-oss", read_gpt_oss}, {"glm4moe", read_glm4}};
enum { N_ARCHS = sizeof archs / sizeof *archs };

static hf_status read_ids(const source *in) {
  model_config *c = in->c;
  int64_t bos = -1, eos = -1;
  HF_TRY(gguf_opt_int(in->g, "tokenizer.ggml.bos_token_id", 0, c->vocab_size - 1, &bos));
  c->bos_id = (int)bos;
  static const char *const keys[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"};
  for (int i = 0; i < 2; i++) {
    eos = -1;
    HF_TRY(gguf_opt_int(in->g, keys[i], 0, c->vocab_size - 1, &eos));
    if (eos >= 0 && (c->n_eos == 0 || c->eos_ids[0] != eos)) c->eos_ids[c->n_eos++] = (int)eos;
  }
  return HF_OK;
}

static hf_status read_common(const source *in) {
  model_config *c = in->c;
  int nextn = 0;
  HF_TRY(need_int(in, "block_count", 1, LIM_LAYERS, &c->n_layers));
  HF_TRY(opt_int(in, "nextn_predict_layers", 0, LIM_LAYERS, &nextn)); /* stored after the last layer, counted, ignored here */
  if (nextn >= c->n_layers)
    return hf_fail(HF_INPUT, "%s: %s.nextn_predict_layers: %d of block_count %d", in->g->path, in->arch, nextn, c->n_layers);
  c->n_layers -= nextn;
  HF_TRY(need_int(in, "embedding_length", 1, LIM_WIDTH, &c->d_model));
  c->max_context = 4096;
  HF_TRY(opt_int(in, "context_length", 1, LIM_CONTEXT, &c->max_context));
  c->norm_eps = 1e-6;
  HF_TRY(opt_num(in, "attention.layer_norm_rms_epsilon", 0, 1, &c->norm_eps));
  const gguf_kv *tokens = gguf_find(in->g, "tokenizer.ggml.tokens");
  const raw_tensor *embed = tset_find(in->s, "token_embd.weight");
  if (embed && embed->n_dims == 2 && embed->dims[0] <= LIM_VOCAB) c->vocab_size = (int)embed->dims[0];
  else if (tokens && tokens->type == GGUF_ARRAY && tokens->count <= LIM_VOCAB) c->vocab_size = (int)tokens->count;
  HF_TRY(opt_int(in, "vocab_size", 1, LIM_VOCAB, &c->vocab_size));
  if (c->vocab_size < 1)
    return hf_fail(HF_INPUT, "%s: %s.vocab_size is missing, and so is token_embd.weight", in->g->path, in->arch);
  c->tied_embeddings = embed && !tset_find(in->s, "output.weight");
  c->default_format = FMT_BF16;
  if (!gguf_find(in->g, "tokenizer.ggml.bos_token_id")) c->bos_id = -1;
  HF_TRY(need_int(in, "expert_count", 1, LIM_EXPERTS, &c->n_experts));
  HF_TRY(need_int(in, "expert_used_count", 1, LIM_TOP_K, &c->top_k));
  HF_TRY(read_ids(in));
  return config_alloc_layers(c);
}

static hf_status read_all(const source *in, int a) {
  model_config *c = in->c;
  HF_TRY(read_common(in));
  HF_TRY(archs[a].read(in));
  if (c->group == GROUP_NONE) c->n_group = c->topk_group = 1;
  rope_spec r;
  HF_TRY(read_rope(in, &r));
  if (c->rope.dim < 2) return hf_fail(HF_INPUT, "%s: %s.rope.dimension_count: %d", in->g->path, in->arch, c->rope.dim);
  HF_TRY(config_resolve_rope(c, &r));
  config_count_dense(c);
  return config_check(c, in->g->path);
}

hf_status config_from_gguf(const gguf_file *g, const tensor_set *s, model_config *c) {
  memset(c, 0, sizeof *c);
  char arch[32] = "";
  HF_TRY(gguf_opt_str(g, "general.architecture", arch, sizeof arch));
  int a = 0;
  while (a < N_ARCHS && strcmp(archs[a].arch, arch)) a++;
  if (a == N_ARCHS)
    return hf_fail(arch[0] ? HF_UNSUPPORTED : HF_INPUT,
                   "%s: general.architecture: '%s' is not known here; known: deepseek2, qwen2moe, qwen3moe, llama (Mixtral), "
                   "olmoe, gpt-oss, glm4moe",
                   g->path, arch);
  HF_TRY(gguf_opt_str(g, "general.name", c->name, sizeof c->name));
  c->routed_scale = 1;
  c->n_group = c->topk_group = 1;
  source in = {g, s, arch, c};
  hf_status st = read_all(&in, a);
  if (st != HF_OK) config_free(c);
  return st;
}
