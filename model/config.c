/* config.c: config.json to model_config: what all families share, and the relations that every config must satisfy. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "model/config_limits.h"
#include "model/family.h"

hf_status cfg_int(const json *j, const char *where, const char *key, int lo, int hi, int *out) {
  int64_t v = 0;
  HF_TRY(json_get_int(j, where, key, lo, hi, &v));
  *out = (int)v;
  return HF_OK;
}

hf_status cfg_opt_int(const json *j, const char *where, const char *key, int lo, int hi, int *out) {
  int64_t v = *out;
  HF_TRY(json_opt_int(j, where, key, lo, hi, &v));
  *out = (int)v;
  return HF_OK;
}

#define FAMILY_ROW(id, name) [FAM_##id] = &family_##name,
static const family *const families[FAM_N] = {MODEL_FAMILIES(FAMILY_ROW)};

const family *family_get(model_family f) {
  return (unsigned)f < FAM_N ? families[f] : NULL;
}

const char *model_family_name(model_family f) {
  return (unsigned)f < FAM_N ? families[f]->name : "unknown";
}

static hf_status find_family(const json *j, const char *where, const family **out) {
  const char *type = json_string(json_get(j, "model_type"));
  const char *arch = json_string(json_first(json_get(j, "architectures")));
  for (int i = 0; i < FAM_N; i++) {
    const family *f = families[i];
    if (type ? !strcmp(type, f->name) : arch && f->architecture && !strcmp(arch, f->architecture)) {
      *out = f;
      return HF_OK;
    }
  }
  char known[256] = "";
  for (int i = 0; i < FAM_N; i++) {
    strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
    strncat(known, families[i]->name, sizeof known - strlen(known) - 1);
  }
  if (!type && !arch) return hf_fail(HF_INPUT, "%s: field model_type is missing; is this a model's config.json?", where);
  return hf_fail(HF_UNSUPPORTED, "%s: field model_type: '%.60s' is no family known here: %s", where, type ? type : arch, known);
}

hf_status config_alloc_layers(model_config *c) {
  HF_TRY(hf_alloc(&c->layer_is_moe, (size_t)c->n_layers, sizeof *c->layer_is_moe, "layer list"));
  for (int i = 0; i < c->n_layers; i++) c->layer_is_moe[i] = true;
  return HF_OK;
}

void config_count_dense(model_config *c) {
  c->n_dense_layers = 0;
  while (c->n_dense_layers < c->n_layers && !c->layer_is_moe[c->n_dense_layers]) c->n_dense_layers++;
}

void config_free(model_config *c) {
  free(c->layer_is_moe);
  free(c->layer_slides);
  free(c->rope.inv_freq);
  c->layer_is_moe = c->layer_slides = NULL;
  c->rope.inv_freq = NULL;
}

hf_status cfg_gqa(const json *j, const char *where, model_config *c) {
  c->attn = ATTN_GQA;
  HF_TRY(cfg_int(j, where, "num_attention_heads", 1, LIM_HEADS, &c->n_heads));
  c->n_kv_heads = c->n_heads;
  HF_TRY(cfg_opt_int(j, where, "num_key_value_heads", 1, LIM_HEADS, &c->n_kv_heads));
  HF_TRY(cfg_opt_int(j, where, "head_dim", 2, LIM_HEAD_DIM, &c->head_dim));
  if (c->head_dim == 0) {
    if (c->d_model % c->n_heads)
      return hf_fail(HF_INPUT, "%s: field hidden_size: %d is no multiple of num_attention_heads %d, and head_dim is not given",
                     where, c->d_model, c->n_heads);
    c->head_dim = c->d_model / c->n_heads;
  }
  c->rope.kind = ROPE_HALVES;
  c->rope.dim = c->head_dim;
  return HF_OK;
}

hf_status cfg_softmax_moe(const json *j, const char *where, model_config *c) {
  bool bias = false;
  HF_TRY(cfg_gqa(j, where, c));
  HF_TRY(cfg_int(j, where, "num_experts", 1, LIM_EXPERTS, &c->n_experts));
  HF_TRY(cfg_int(j, where, "num_experts_per_tok", 1, LIM_TOP_K, &c->top_k));
  HF_TRY(json_opt_bool(j, where, "norm_topk_prob", &c->norm_topk));
  HF_TRY(json_opt_bool(j, where, "attention_bias", &bias));
  c->qkv_bias = c->o_bias = bias;
  c->route = ROUTE_SOFTMAX;
  return HF_OK;
}

hf_status cfg_deepseek_ffn(const json *j, const char *where, model_config *c, int *first_dense) {
  int shared = 0;
  HF_TRY(cfg_int(j, where, "intermediate_size", 1, LIM_WIDTH, &c->d_ff_dense));
  HF_TRY(cfg_int(j, where, "moe_intermediate_size", 1, LIM_WIDTH, &c->d_ff_expert));
  HF_TRY(cfg_int(j, where, "n_routed_experts", 1, LIM_EXPERTS, &c->n_experts));
  HF_TRY(cfg_int(j, where, "num_experts_per_tok", 1, LIM_TOP_K, &c->top_k));
  HF_TRY(cfg_opt_int(j, where, "n_shared_experts", 0, LIM_SHARED, &shared));
  HF_TRY(cfg_opt_int(j, where, "first_k_dense_replace", 0, LIM_LAYERS, first_dense));
  HF_TRY(cfg_opt_int(j, where, "n_group", 1, LIM_EXPERTS, &c->n_group));
  HF_TRY(cfg_opt_int(j, where, "topk_group", 1, LIM_EXPERTS, &c->topk_group));
  HF_TRY(json_opt_num(j, where, "routed_scaling_factor", 1e-6, 1e6, &c->routed_scale));
  c->d_ff_shared = shared * c->d_ff_expert;
  return HF_OK;
}

static hf_status rope_scaling(const json *s, const char *where, bool planned_only, rope_spec *r) {
  const char *type = json_string(json_get(s, "rope_type"));
  if (!type) type = json_string(json_get(s, "type"));
  if (!type) return hf_fail(HF_INPUT, "%s: field rope_scaling: rope_type is missing", where);
  if (!strcmp(type, "default")) return HF_OK;
  if (!strcmp(type, "llama3") && planned_only) return HF_OK; /* changes frequencies, no size */
  if (strcmp(type, "yarn") && strcmp(type, "linear"))
    return hf_fail(HF_UNSUPPORTED, "%s: field rope_scaling: type '%.40s' is not supported; known: default, linear, yarn", where,
                   type);
  HF_TRY(json_get_num(s, where, "factor", 1, 1e6, &r->factor));
  if (!strcmp(type, "linear")) return HF_OK;
  r->yarn = true;
  HF_TRY(json_opt_num(s, where, "original_max_position_embeddings", 1, LIM_CONTEXT, &r->orig_context));
  HF_TRY(json_opt_num(s, where, "beta_fast", 1e-3, 1e6, &r->beta_fast));
  HF_TRY(json_opt_num(s, where, "beta_slow", 1e-3, 1e6, &r->beta_slow));
  HF_TRY(json_opt_bool(s, where, "truncate", &r->truncate));
  HF_TRY(json_opt_num(s, where, "mscale", 0, 100, &r->mscale));
  HF_TRY(json_opt_num(s, where, "mscale_all_dim", 0, 100, &r->mscale_all_dim));
  HF_TRY(json_opt_num(s, where, "attention_factor", 1e-3, 1e3, &r->attention_factor));
  if (r->beta_fast < r->beta_slow)
    return hf_fail(HF_INPUT, "%s: field rope_scaling: beta_fast %g is below beta_slow %g", where, r->beta_fast, r->beta_slow);
  return HF_OK;
}

hf_status cfg_rope(const json *j, const char *where, double default_theta, rope_spec *r) {
  rope_spec_init(r);
  r->theta = default_theta;
  HF_TRY(json_opt_num(j, where, "rope_theta", 1.001, 1e12, &r->theta));
  HF_TRY(json_opt_num(j, where, "max_position_embeddings", 1, LIM_CONTEXT, &r->orig_context));
  const json *s = json_get(j, "rope_parameters");
  if (s && json_type(s) == JSON_OBJECT) HF_TRY(json_opt_num(s, where, "rope_theta", 1.001, 1e12, &r->theta));
  else s = json_get(j, "rope_scaling");
  if (!s || json_type(s) == JSON_NULL) return HF_OK;
  if (json_type(s) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: field rope_scaling is no object", where);
  const char *model_type = json_string(json_get(j, "model_type"));
  return rope_scaling(s, where, model_type != NULL && !strcmp(model_type, "llama"), r);
}

hf_status cfg_resolve_rope(const json *j, const char *where, double default_theta, model_config *c) {
  rope_spec r;
  HF_TRY(cfg_rope(j, where, default_theta, &r));
  return config_resolve_rope(c, &r);
}

/* A number or a list of numbers. */
static hf_status eos_ids(const json *j, const char *where, model_config *c) {
  const json *e = json_get(j, "eos_token_id");
  if (!e || json_type(e) == JSON_NULL) return HF_OK;
  bool list = json_type(e) == JSON_ARRAY;
  int max = (int)(sizeof c->eos_ids / sizeof *c->eos_ids);
  if (list && json_len(e) > max) return hf_fail(HF_INPUT, "%s: field eos_token_id: more than %d ids", where, max);
  for (const json *v = list ? json_first(e) : e; v; v = list ? json_next(v) : NULL) {
    double id = json_number(v, -1);
    if (!(id >= 0 && id < c->vocab_size) || id != (double)(int)id)
      return hf_fail(HF_INPUT, "%s: field eos_token_id: not an id below vocab_size %d", where, c->vocab_size);
    c->eos_ids[c->n_eos++] = (int)id;
  }
  return HF_OK;
}

/* The stored format of the routed experts as the config states it. */
static hf_status stored_format(const json *j, const char *where, model_config *c) {
  c->default_format = FMT_BF16;
  const json *q = json_get(j, "quantization_config");
  const char *method = json_string(json_get(q, "quant_method"));
  if (method) {
    if (!strcmp(method, "fp8")) c->default_format = FMT_FP8_E4M3;
    else if (!strcmp(method, "mxfp4")) c->default_format = FMT_MXFP4;
    else if (!strcmp(method, "compressed-tensors")) {
      const json *w = json_get(json_get(json_get(q, "config_groups"), "group_0"), "weights");
      double bits = json_number(json_get(w, "num_bits"), 0), group = json_number(json_get(w, "group_size"), 0);
      if (bits != 4 || group != 32)
        return hf_fail(
            HF_UNSUPPORTED,
            "%s: field quantization_config: compressed-tensors with %g bits in groups of %g; known: 4 bits, groups of 32", where,
            bits, group);
      c->default_format = FMT_INT4_G32;
    } else
      return hf_fail(
          HF_UNSUPPORTED,
          "%s: field quantization_config: quant_method '%.40s' is not supported; known: fp8, mxfp4, compressed-tensors", where,
          method);
    return HF_OK;
  }
  const char *dtype = json_string(json_get(j, "torch_dtype"));
  if (!dtype) dtype = json_string(json_get(j, "dtype"));
  if (dtype && !strcmp(dtype, "float32")) c->default_format = FMT_F32;
  if (dtype && !strcmp(dtype, "float16")) c->default_format = FMT_F16;
  return HF_OK;
}

static hf_status check_act(const json *j, const char *where) {
  const char *act = json_string(json_get(j, "hidden_act"));
  if (act && strcmp(act, "silu"))
    return hf_fail(HF_UNSUPPORTED, "%s: field hidden_act: '%.40s' is not supported; known: silu", where, act);
  return HF_OK;
}

static hf_status read_common(const json *j, const char *where, model_config *c) {
  HF_TRY(cfg_int(j, where, "num_hidden_layers", 1, LIM_LAYERS, &c->n_layers));
  HF_TRY(cfg_int(j, where, "hidden_size", 1, LIM_WIDTH, &c->d_model));
  HF_TRY(cfg_int(j, where, "vocab_size", 1, LIM_VOCAB, &c->vocab_size));
  c->max_context = 4096;
  HF_TRY(cfg_opt_int(j, where, "max_position_embeddings", 1, LIM_CONTEXT, &c->max_context));
  c->norm_eps = 1e-6;
  HF_TRY(json_opt_num(j, where, "rms_norm_eps", 0, 1, &c->norm_eps));
  HF_TRY(json_opt_bool(j, where, "tie_word_embeddings", &c->tied_embeddings));
  c->bos_id = -1;
  HF_TRY(cfg_opt_int(j, where, "bos_token_id", 0, c->vocab_size - 1, &c->bos_id));
  HF_TRY(eos_ids(j, where, c));
  HF_TRY(check_act(j, where));
  HF_TRY(stored_format(j, where, c));
  return config_alloc_layers(c);
}

hf_status config_from_json(const json *j, const char *where, model_config *c) {
  memset(c, 0, sizeof *c);
  if (json_type(j) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: no JSON object", where);
  const family *f = NULL;
  HF_TRY(find_family(j, where, &f));
  c->family = f->id;
  c->routed_scale = 1;
  c->n_group = c->topk_group = 1;
  const char *name = json_string(json_get(j, "_name_or_path"));
  if (name) snprintf(c->name, sizeof c->name, "%s", name);
  hf_status st = read_common(j, where, c);
  if (st == HF_OK) st = f->read(j, where, c);
  if (st == HF_OK) config_count_dense(c);
  if (st == HF_OK) st = config_check(c, where);
  if (st != HF_OK) config_free(c);
  return st;
}

static bool near(double a, double b) {
  return fabs(a - b) <= 1e-9 * fabs(a) + 1e-15;
}

const char *config_differ(const model_config *a, const model_config *b) {
#define SAME(field) \
  if (a->field != b->field) return #field
#define NEAR(field) \
  if (!near(a->field, b->field)) return #field
  SAME(n_layers);
  SAME(n_dense_layers);
  SAME(d_model);
  SAME(vocab_size);
  SAME(max_context);
  SAME(tied_embeddings);
  SAME(attn);
  SAME(n_heads);
  SAME(n_kv_heads);
  SAME(head_dim);
  SAME(q_lora_rank);
  SAME(kv_lora_rank);
  SAME(nope_dim);
  SAME(rope_dim);
  SAME(v_dim);
  SAME(qk_norm_head);
  SAME(qk_norm_full);
  SAME(qkv_bias);
  SAME(o_bias);
  SAME(sinks);
  SAME(sliding_window);
  SAME(rope.kind);
  SAME(rope.dim);
  SAME(d_ff_dense);
  SAME(d_ff_expert);
  SAME(d_ff_shared);
  SAME(shared_gate);
  SAME(n_experts);
  SAME(top_k);
  SAME(n_group);
  SAME(topk_group);
  SAME(route);
  SAME(group);
  SAME(norm_topk);
  SAME(router_bias);
  SAME(router_lin_bias);
  SAME(expert_bias);
  SAME(swiglu_clamped);
  NEAR(norm_eps);
  NEAR(mla_norm_eps);
  NEAR(attn_scale);
  NEAR(routed_scale);
  NEAR(swiglu_limit);
  NEAR(rope.theta);
  NEAR(rope.mscale);
#undef SAME
#undef NEAR
  for (int i = 0; i < a->rope.dim / 2; i++)
    if (!near(a->rope.inv_freq[i], b->rope.inv_freq[i])) return "rope.inv_freq";
  for (int i = 0; i < a->n_layers; i++) {
    if (a->layer_is_moe[i] != b->layer_is_moe[i]) return "layer_is_moe";
    if ((a->layer_slides && a->layer_slides[i]) != (b->layer_slides && b->layer_slides[i])) return "layer_slides";
  }
  return NULL;
}

/* ---- relations ---- */

static hf_status check_attention(const model_config *c, const char *where) {
  if (c->attn == ATTN_GQA) {
    if (c->n_heads % c->n_kv_heads)
      return hf_fail(HF_INPUT, "%s: %d attention heads are no multiple of %d key-value heads (num_key_value_heads)", where,
                     c->n_heads, c->n_kv_heads);
    if (c->rope.dim > c->head_dim)
      return hf_fail(HF_INPUT, "%s: %d rotary dimensions are more than head_dim %d", where, c->rope.dim, c->head_dim);
  }
  if (c->rope.dim < 2 || c->rope.dim % 2)
    return hf_fail(HF_INPUT, "%s: %d rotary dimensions (qk_rope_head_dim, head_dim): must be even and at least 2", where,
                   c->rope.dim);
  if (!isfinite(c->attn_scale) || c->attn_scale <= 0 || !isfinite(c->rope.mscale) || c->rope.mscale <= 0)
    return hf_fail(HF_INPUT, "%s: field rope_scaling gives no finite attention scale", where);
  for (int i = 0; i < c->rope.dim / 2; i++)
    if (!isfinite(c->rope.inv_freq[i]) || c->rope.inv_freq[i] < 0)
      return hf_fail(HF_INPUT, "%s: field rope_scaling gives no finite rotary frequency %d", where, i);
  return HF_OK;
}

static hf_status check_routing(const model_config *c, const char *where) {
  bool any = false, dense = false;
  for (int i = 0; i < c->n_layers; i++) {
    any = any || c->layer_is_moe[i];
    dense = dense || !c->layer_is_moe[i];
  }
  if (c->n_experts == 0) return HF_OK; /* a dense family */
  if (!any)
    return hf_fail(HF_INPUT, "%s: no layer of %d has routed experts (first_k_dense_replace, decoder_sparse_step)", where,
                   c->n_layers);
  if (dense && c->d_ff_dense < 1) return hf_fail(HF_INPUT, "%s: dense layers but no intermediate_size", where);
  if (c->top_k > c->n_experts)
    return hf_fail(HF_INPUT, "%s: field num_experts_per_tok: %d of only %d experts", where, c->top_k, c->n_experts);
  if (c->group == GROUP_NONE) return HF_OK;
  if (c->n_experts % c->n_group)
    return hf_fail(HF_INPUT, "%s: field n_group: %d experts are no multiple of %d groups", where, c->n_experts, c->n_group);
  int per = c->n_experts / c->n_group;
  if (c->topk_group > c->n_group)
    return hf_fail(HF_INPUT, "%s: field topk_group: %d of only %d groups", where, c->topk_group, c->n_group);
  if (c->top_k > c->topk_group * per)
    return hf_fail(HF_INPUT, "%s: field num_experts_per_tok: %d of the %d experts in %d groups of %d", where, c->top_k,
                   c->topk_group * per, c->topk_group, per);
  if (c->group == GROUP_TOP2SUM && per < 2)
    return hf_fail(HF_INPUT, "%s: field n_group: groups of one expert have no two best (%d experts, %d groups)", where,
                   c->n_experts, c->n_group);
  return HF_OK;
}

hf_status config_check(const model_config *c, const char *where) {
  HF_TRY(check_attention(c, where));
  return check_routing(c, where);
}
