/* gguf_config.c: GGUF metadata -> model_config, for the architectures whose families this room knows. */
#include <stdio.h>
#include <string.h>

#include "model/config_limits.h"
#include "model/family.h"

static const char *key_of(const gguf_source *in, const char *name, char buf[160]) {
  snprintf(buf, 160, "%s.%s", in->arch, name);
  return buf;
}

hf_status src_opt_int(const gguf_source *in, const char *name, int lo, int hi, int *out) {
  char key[160];
  int64_t v = *out;
  HF_TRY(gguf_opt_int(in->g, key_of(in, name, key), lo, hi, &v));
  *out = (int)v;
  return HF_OK;
}

hf_status src_need_int(const gguf_source *in, const char *name, int lo, int hi, int *out) {
  char key[160];
  if (!gguf_find(in->g, key_of(in, name, key))) return hf_fail(HF_INPUT, "%s: %s is missing", in->g->path, key);
  return src_opt_int(in, name, lo, hi, out);
}

hf_status src_opt_num(const gguf_source *in, const char *name, double lo, double hi, double *out) {
  char key[160];
  return gguf_opt_num(in->g, key_of(in, name, key), lo, hi, out);
}

hf_status src_opt_bool(const gguf_source *in, const char *name, bool *out) {
  char key[160];
  return gguf_opt_bool(in->g, key_of(in, name, key), out);
}

bool src_has_tensor(const gguf_source *in, const char *pattern, int layer) {
  char name[128];
  snprintf(name, sizeof name, "blk.%d.%s", layer, pattern);
  return tset_find(in->s, name) != NULL;
}

static hf_status read_rope(const gguf_source *in, rope_spec *r) {
  char key[160], type[32] = "none";
  rope_spec_init(r);
  r->orig_context = in->c->max_context;
  HF_TRY(src_opt_num(in, "rope.freq_base", 1.001, 1e12, &r->theta));
  HF_TRY(gguf_opt_str(in->g, key_of(in, "rope.scaling.type", key), type, sizeof type));
  if (strcmp(type, "none") && strcmp(type, "linear") && strcmp(type, "yarn"))
    return hf_fail(HF_UNSUPPORTED, "%s: %s: '%s' is not supported; known: none, linear, yarn", in->g->path, key, type);
  if (!strcmp(type, "none")) return HF_OK;
  HF_TRY(src_opt_num(in, "rope.scaling.factor", 1, 1e6, &r->factor));
  if (!strcmp(type, "linear")) return HF_OK;
  r->yarn = true;
  HF_TRY(src_opt_num(in, "rope.scaling.original_context_length", 1, LIM_CONTEXT, &r->orig_context));
  HF_TRY(src_opt_num(in, "rope.scaling.yarn_beta_fast", 1e-3, 1e6, &r->beta_fast));
  HF_TRY(src_opt_num(in, "rope.scaling.yarn_beta_slow", 1e-3, 1e6, &r->beta_slow));
  double log_mul = 0;
  HF_TRY(src_opt_num(in, "rope.scaling.yarn_log_multiplier", 0, 10, &log_mul));
  if (in->c->attn == ATTN_MLA)
    r->mscale = r->mscale_all_dim = log_mul * 10; /* mscale itself is not stored: published files have both equal */
  r->truncate = in->c->family != FAM_GPT_OSS;     /* nor is truncate, false in gpt-oss's config */
  return HF_OK;
}

hf_status src_gqa(const gguf_source *in) {
  model_config *c = in->c;
  c->attn = ATTN_GQA;
  HF_TRY(src_need_int(in, "attention.head_count", 1, LIM_HEADS, &c->n_heads));
  c->n_kv_heads = c->n_heads;
  HF_TRY(src_opt_int(in, "attention.head_count_kv", 1, LIM_HEADS, &c->n_kv_heads));
  HF_TRY(src_opt_int(in, "attention.key_length", 2, LIM_HEAD_DIM, &c->head_dim));
  int value_length = 0;
  HF_TRY(src_opt_int(in, "attention.value_length", 2, LIM_HEAD_DIM, &value_length));
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
  return src_opt_int(in, "rope.dimension_count", 2, LIM_HEAD_DIM, &c->rope.dim);
}

static hf_status read_ids(const gguf_source *in) {
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

static hf_status read_common(const gguf_source *in) {
  model_config *c = in->c;
  int nextn = 0;
  HF_TRY(src_need_int(in, "block_count", 1, LIM_LAYERS, &c->n_layers));
  HF_TRY(src_opt_int(in, "nextn_predict_layers", 0, LIM_LAYERS, &nextn)); /* stored after the last layer, counted, ignored here */
  if (nextn >= c->n_layers)
    return hf_fail(HF_INPUT, "%s: %s.nextn_predict_layers: %d of block_count %d", in->g->path, in->arch, nextn, c->n_layers);
  c->n_layers -= nextn;
  HF_TRY(src_need_int(in, "embedding_length", 1, LIM_WIDTH, &c->d_model));
  c->max_context = 4096;
  HF_TRY(src_opt_int(in, "context_length", 1, LIM_CONTEXT, &c->max_context));
  c->norm_eps = 1e-6;
  HF_TRY(src_opt_num(in, "attention.layer_norm_rms_epsilon", 0, 1, &c->norm_eps));
  const gguf_kv *tokens = gguf_find(in->g, "tokenizer.ggml.tokens");
  const raw_tensor *embed = tset_find(in->s, "token_embd.weight");
  if (embed && embed->n_dims == 2 && embed->dims[0] <= LIM_VOCAB) c->vocab_size = (int)embed->dims[0];
  else if (tokens && tokens->type == GGUF_ARRAY && tokens->count <= LIM_VOCAB) c->vocab_size = (int)tokens->count;
  HF_TRY(src_opt_int(in, "vocab_size", 1, LIM_VOCAB, &c->vocab_size));
  if (c->vocab_size < 1)
    return hf_fail(HF_INPUT, "%s: %s.vocab_size is missing, and so is token_embd.weight", in->g->path, in->arch);
  c->tied_embeddings = embed && !tset_find(in->s, "output.weight");
  c->default_format = FMT_BF16;
  if (!gguf_find(in->g, "tokenizer.ggml.bos_token_id")) c->bos_id = -1;
  HF_TRY(src_need_int(in, "expert_count", 1, LIM_EXPERTS, &c->n_experts));
  HF_TRY(src_need_int(in, "expert_used_count", 1, LIM_TOP_K, &c->top_k));
  HF_TRY(read_ids(in));
  return config_alloc_layers(c);
}

static hf_status read_all(const gguf_source *in, const family *f) {
  model_config *c = in->c;
  HF_TRY(read_common(in));
  HF_TRY(f->read_gguf(in));
  if (c->group == GROUP_NONE) c->n_group = c->topk_group = 1;
  rope_spec r;
  HF_TRY(read_rope(in, &r));
  if (c->rope.dim < 2) return hf_fail(HF_INPUT, "%s: %s.rope.dimension_count: %d", in->g->path, in->arch, c->rope.dim);
  HF_TRY(config_resolve_rope(c, &r));
  config_count_dense(c);
  return config_check(c, in->g->path);
}

static hf_status unknown_arch(const gguf_file *g, const char *arch) {
  char known[256] = "";
  for (int i = 0; i < FAM_N; i++) {
    const char *a = family_get((model_family)i)->gguf_arch;
    if (!a || strstr(known, a)) continue;
    strncat(known, *known ? ", " : "", sizeof known - strlen(known) - 1);
    strncat(known, a, sizeof known - strlen(known) - 1);
  }
  return hf_fail(arch[0] ? HF_UNSUPPORTED : HF_INPUT, "%s: general.architecture: '%s' is not known here; known: %s", g->path,
                 arch, known);
}

hf_status config_from_gguf(const gguf_file *g, const tensor_set *s, model_config *c) {
  memset(c, 0, sizeof *c);
  char arch[32] = "";
  HF_TRY(gguf_opt_str(g, "general.architecture", arch, sizeof arch));
  const family *f = NULL;
  for (int i = 0; i < FAM_N && !f; i++) {
    const family *x = family_get((model_family)i);
    if (x->gguf_arch && !strcmp(x->gguf_arch, arch)) f = x;
  }
  if (!f) return unknown_arch(g, arch);
  HF_TRY(gguf_opt_str(g, "general.name", c->name, sizeof c->name));
  c->routed_scale = 1;
  c->n_group = c->topk_group = 1;
  c->family = f->id;
  gguf_source in = {g, s, arch, c};
  hf_status st = read_all(&in, f);
  if (st != HF_OK) config_free(c);
  return st;
}
