/* gguf_write.c: the header of a GGUF file: metadata of a config, tensor infos. */
#include "model/gguf_write.h"

#include <stdio.h>
#include <string.h>

#include "model/family.h"

#define HEADER_LIMIT ((size_t)512 << 20)

void gguf_head_init(gguf_head *h, const char *arch) {
  *h = (gguf_head){.arch = arch};
  hf_buf_init(&h->b, HEADER_LIMIT);
}

void gguf_put_raw(gguf_head *h, const void *p, size_t n) {
  if (h->st == HF_OK) h->st = hf_buf_add(&h->b, p, n);
}

void gguf_put_u32(gguf_head *h, uint32_t v) {
  uint8_t p[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
  gguf_put_raw(h, p, 4);
}

void gguf_put_u64(gguf_head *h, uint64_t v) {
  gguf_put_u32(h, (uint32_t)v);
  gguf_put_u32(h, (uint32_t)(v >> 32));
}

void gguf_put_text(gguf_head *h, const char *s, size_t n) {
  gguf_put_u64(h, n);
  gguf_put_raw(h, s, n);
}

void gguf_put_key_as_it_is(gguf_head *h, const char *k, gguf_type type) {
  gguf_put_text(h, k, strlen(k));
  gguf_put_u32(h, type);
  h->n++;
}

void gguf_put_key(gguf_head *h, const char *k, gguf_type type) {
  char full[160];
  snprintf(full, sizeof full, "%s%s", k[0] == '.' ? h->arch : "", k);
  gguf_put_text(h, full, strlen(full));
  gguf_put_u32(h, type);
  h->n++;
}

void gguf_put_array(gguf_head *h, const char *k, gguf_type elem, uint64_t n) {
  gguf_put_key(h, k, GGUF_ARRAY);
  gguf_put_u32(h, elem);
  gguf_put_u64(h, n);
}

void gguf_put_int(gguf_head *h, const char *k, int v) {
  gguf_put_key(h, k, GGUF_U32);
  gguf_put_u32(h, (uint32_t)v);
}

void gguf_put_num(gguf_head *h, const char *k, double v) {
  float f = (float)v;
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  gguf_put_key(h, k, GGUF_F32);
  gguf_put_u32(h, u);
}

void gguf_put_str(gguf_head *h, const char *k, const char *v) {
  gguf_put_key(h, k, GGUF_STR);
  gguf_put_text(h, v, strlen(v));
}

void gguf_put_bool(gguf_head *h, const char *k, bool v) {
  gguf_put_key(h, k, GGUF_BOOL);
  gguf_put_raw(h, v ? "\1" : "\0", 1);
}

static void put_mla(gguf_head *h, const model_config *c) {
  if (c->q_lora_rank) gguf_put_int(h, ".attention.q_lora_rank", c->q_lora_rank);
  gguf_put_int(h, ".attention.head_count_kv", 1);
  gguf_put_int(h, ".attention.kv_lora_rank", c->kv_lora_rank);
  gguf_put_int(h, ".attention.key_length", c->kv_lora_rank + c->rope_dim);
  gguf_put_int(h, ".attention.value_length", c->kv_lora_rank);
  gguf_put_int(h, ".attention.key_length_mla", c->nope_dim + c->rope_dim);
  gguf_put_int(h, ".attention.value_length_mla", c->v_dim);
}

static void put_gqa(gguf_head *h, const model_config *c) {
  gguf_put_int(h, ".attention.head_count_kv", c->n_kv_heads);
  gguf_put_int(h, ".attention.key_length", c->head_dim);
  gguf_put_int(h, ".attention.value_length", c->head_dim);
  if (c->sliding_window) gguf_put_int(h, ".attention.sliding_window", c->sliding_window);
}

static void put_ffn(gguf_head *h, const model_config *c) {
  bool only_expert = family_get(c->family)->gguf_expert_ffn;
  int ff = only_expert ? c->d_ff_expert : c->d_ff_dense;
  gguf_put_int(h, ".feed_forward_length", ff);
  if (!only_expert) gguf_put_int(h, ".expert_feed_forward_length", c->d_ff_expert);
  gguf_put_int(h, ".expert_count", c->n_experts);
  gguf_put_int(h, ".expert_used_count", c->top_k);
  if (c->shared_gate) gguf_put_int(h, ".expert_shared_feed_forward_length", c->d_ff_shared);
  if (c->route != ROUTE_SIGMOID && c->attn != ATTN_MLA) return;
  gguf_put_int(h, ".leading_dense_block_count", c->n_dense_layers);
  gguf_put_int(h, ".expert_shared_count", c->d_ff_shared / c->d_ff_expert);
  gguf_put_num(h, ".expert_weights_scale", c->routed_scale);
  gguf_put_bool(h, ".expert_weights_norm", c->norm_topk);
  gguf_put_int(h, ".expert_gating_func", c->route == ROUTE_SIGMOID ? 2 : 1);
  if (c->group == GROUP_NONE) return;
  gguf_put_int(h, ".expert_group_count", c->n_group);
  gguf_put_int(h, ".expert_group_used_count", c->topk_group);
}

static void put_rope(gguf_head *h, const model_config *c, const rope_spec *r) {
  gguf_put_num(h, ".rope.freq_base", c->rope.theta);
  gguf_put_int(h, ".rope.dimension_count", c->rope.dim);
  if (!r->yarn && r->factor == 1) return;
  gguf_put_str(h, ".rope.scaling.type", r->yarn ? "yarn" : "linear");
  gguf_put_num(h, ".rope.scaling.factor", r->factor);
  if (!r->yarn) return;
  gguf_put_int(h, ".rope.scaling.original_context_length", (int)r->orig_context);
  gguf_put_num(h, ".rope.scaling.yarn_beta_fast", r->beta_fast);
  gguf_put_num(h, ".rope.scaling.yarn_beta_slow", r->beta_slow);
  if (c->attn == ATTN_MLA) gguf_put_num(h, ".rope.scaling.yarn_log_multiplier", 0.1 * r->mscale_all_dim);
}

int gguf_file_type(fmt f) {
  static const struct {
    fmt f;
    int number;
  } known[] = {{FMT_F32, 0},     {FMT_F16, 1},     {FMT_Q4_0, 2},  {FMT_Q4_1, 3},    {FMT_Q8_0, 7},    {FMT_Q5_0, 8},
               {FMT_Q5_1, 9},    {FMT_Q2_K, 10},   {FMT_Q4_K, 14}, {FMT_Q4_K_S, 14}, {FMT_Q4_K_M, 15}, {FMT_Q5_K, 16},
               {FMT_Q5_K_S, 16}, {FMT_Q5_K_M, 17}, {FMT_Q6_K, 18}, {FMT_BF16, 32},   {FMT_MXFP4, 38}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (known[i].f == f) return known[i].number;
  return 7;
}

void gguf_put_config(gguf_head *h, const model_config *c, const rope_spec *r, fmt file_format) {
  gguf_put_str(h, "general.architecture", h->arch);
  gguf_put_str(h, "general.type", "model");
  gguf_put_str(h, "general.name", c->name);
  gguf_put_int(h, "general.file_type", gguf_file_type(file_format));
  gguf_put_int(h, "general.quantization_version", 2);
  gguf_put_int(h, ".block_count", c->n_layers);
  gguf_put_int(h, ".context_length", c->max_context);
  gguf_put_int(h, ".embedding_length", c->d_model);
  gguf_put_int(h, ".vocab_size", c->vocab_size);
  gguf_put_int(h, ".attention.head_count", c->n_heads);
  gguf_put_num(h, ".attention.layer_norm_rms_epsilon", c->norm_eps);
  if (c->attn == ATTN_MLA) put_mla(h, c);
  else put_gqa(h, c);
  put_ffn(h, c);
  put_rope(h, c, r);
}

void gguf_name_of(const model_config *c, model_tensor_id id, int layer, char out[128]) {
  bool post = id == MT_FFN_NORM && family_get(c->family)->gguf_post_norm;
  if (layer < 0) snprintf(out, 128, "%s", gguf_tensor_name(id));
  else snprintf(out, 128, "blk.%d.%s", layer, post ? "post_attention_norm.weight" : gguf_tensor_name(id));
}

int gguf_dims_of(const model_config *c, model_tensor_id id, int64_t rows, int64_t cols, int64_t dims[3]) {
  int n = 0;
  dims[n++] = cols;
  if (id == MT_K_B || id == MT_V_B) {
    dims[n++] = rows / c->n_heads;
    dims[n++] = c->n_heads;
    return n;
  }
  if (rows > 1 || tensor_is_matrix(id) || id == MT_ROUTER) dims[n++] = rows;
  if (tensor_is_expert(id)) dims[n++] = c->n_experts;
  return n;
}

void gguf_put_tensor(gguf_head *infos, const char *name, int n_dims, const int64_t *dims, fmt f, uint64_t offset) {
  gguf_put_text(infos, name, strlen(name));
  gguf_put_u32(infos, (uint32_t)n_dims);
  for (int i = 0; i < n_dims; i++) gguf_put_u64(infos, (uint64_t)dims[i]);
  gguf_put_u32(infos, (uint32_t)fmt_get(f)->ggml_type);
  gguf_put_u64(infos, offset);
  infos->n++;
}

hf_status gguf_header(gguf_head *kv, gguf_head *infos, hf_buf *out) {
  gguf_head all;
  gguf_head_init(&all, "");
  gguf_put_raw(&all, "GGUF", 4);
  gguf_put_u32(&all, 3);
  gguf_put_u64(&all, infos->n);
  gguf_put_u64(&all, kv->n);
  if (kv->st == HF_OK) gguf_put_raw(&all, kv->b.data, kv->b.len);
  if (infos->st == HF_OK) gguf_put_raw(&all, infos->b.data, infos->b.len);
  hf_status st = kv->st ? kv->st : infos->st ? infos->st : all.st;
  hf_buf_free(&kv->b);
  hf_buf_free(&infos->b);
  if (st != HF_OK) hf_buf_free(&all.b);
  else *out = all.b;
  return st;
}

hf_status gguf_says(const char *path, const model_config *want, const char *where) {
  tensor_set s;
  gguf_file g;
  model_config c = {0};
  HF_TRY(tset_init(&s));
  hf_status st = gguf_open(&s, path, &g);
  if (st == HF_OK) st = tset_index(&s);
  if (st == HF_OK) st = config_from_gguf(&g, &s, &c);
  if (st == HF_OK) {
    const char *what = config_differ(want, &c);
    if (what)
      st = hf_fail(HF_UNSUPPORTED, "%s: GGUF cannot express this config: %s would be lost; write a safetensors folder", where,
                   what);
    config_free(&c);
  }
  tset_free(&s);
  return st;
}
