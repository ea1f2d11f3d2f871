/* synth_gguf.c: a synthetic model as one GGUF file: metadata, a minimal byte-level tokenizer, tensor infos, data. */
#include <stdlib.h>
#include <string.h>

#include "model/family.h"
#include "model/synth_write.h"

enum { ALIGN = 32 };
#define HEADER_LIMIT ((size_t)48 << 20)

/* Little-endian appends; the first failure is kept and ends the rest. */
typedef struct {
  hf_buf b;
  hf_status st;
  uint64_t n_kv;
  const char *arch;
} head;

static void raw(head *h, const void *p, size_t n) {
  if (h->st == HF_OK) h->st = hf_buf_add(&h->b, p, n);
}

static void u32(head *h, uint32_t v) {
  uint8_t p[4] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16), (uint8_t)(v >> 24)};
  raw(h, p, 4);
}

static void u64(head *h, uint64_t v) {
  u32(h, (uint32_t)v);
  u32(h, (uint32_t)(v >> 32));
}

static void str(head *h, const char *s) {
  u64(h, strlen(s));
  raw(h, s, strlen(s));
}

/* A key that begins with '.' belongs to the architecture. */
static void key(head *h, const char *k, gguf_type type) {
  char full[160];
  snprintf(full, sizeof full, "%s%s", k[0] == '.' ? h->arch : "", k);
  str(h, full);
  u32(h, type);
  h->n_kv++;
}

static void kv_int(head *h, const char *k, int v) {
  key(h, k, GGUF_U32);
  u32(h, (uint32_t)v);
}

static void kv_num(head *h, const char *k, double v) {
  float f = (float)v;
  uint32_t u;
  memcpy(&u, &f, sizeof u);
  key(h, k, GGUF_F32);
  u32(h, u);
}

static void kv_str(head *h, const char *k, const char *v) {
  key(h, k, GGUF_STR);
  str(h, v);
}

static void kv_bool(head *h, const char *k, bool v) {
  key(h, k, GGUF_BOOL);
  raw(h, v ? "\1" : "\0", 1);
}

static void put_mla(head *h, const model_config *c) {
  if (c->q_lora_rank) kv_int(h, ".attention.q_lora_rank", c->q_lora_rank);
  kv_int(h, ".attention.head_count_kv", 1);
  kv_int(h, ".attention.kv_lora_rank", c->kv_lora_rank);
  kv_int(h, ".attention.key_length", c->kv_lora_rank + c->rope_dim);
  kv_int(h, ".attention.value_length", c->kv_lora_rank);
  kv_int(h, ".attention.key_length_mla", c->nope_dim + c->rope_dim);
  kv_int(h, ".attention.value_length_mla", c->v_dim);
}

static void put_gqa(head *h, const model_config *c) {
  kv_int(h, ".attention.head_count_kv", c->n_kv_heads);
  kv_int(h, ".attention.key_length", c->head_dim);
  kv_int(h, ".attention.value_length", c->head_dim);
  if (c->sliding_window) kv_int(h, ".attention.sliding_window", c->sliding_window);
}

static void put_ffn(head *h, const model_config *c) {
  bool only_expert = family_get(c->family)->gguf_expert_ffn;
  kv_int(h, ".feed_forward_length", only_expert ? c->d_ff_expert : c->d_ff_dense);
  if (!only_expert) kv_int(h, ".expert_feed_forward_length", c->d_ff_expert);
  kv_int(h, ".expert_count", c->n_experts);
  kv_int(h, ".expert_used_count", c->top_k);
  if (c->shared_gate) kv_int(h, ".expert_shared_feed_forward_length", c->d_ff_shared);
  if (c->route != ROUTE_SIGMOID && c->attn != ATTN_MLA) return;
  kv_int(h, ".leading_dense_block_count", c->n_dense_layers);
  kv_int(h, ".expert_shared_count", c->d_ff_shared / c->d_ff_expert);
  kv_num(h, ".expert_weights_scale", c->routed_scale);
  kv_bool(h, ".expert_weights_norm", c->norm_topk);
  kv_int(h, ".expert_gating_func", c->route == ROUTE_SIGMOID ? 2 : 1);
  if (c->group == GROUP_NONE) return;
  kv_int(h, ".expert_group_count", c->n_group);
  kv_int(h, ".expert_group_used_count", c->topk_group);
}

static void put_rope(head *h, const model_config *c, const rope_spec *r) {
  kv_num(h, ".rope.freq_base", c->rope.theta);
  kv_int(h, ".rope.dimension_count", c->rope.dim);
  if (!r->yarn && r->factor == 1) return;
  kv_str(h, ".rope.scaling.type", r->yarn ? "yarn" : "linear");
  kv_num(h, ".rope.scaling.factor", r->factor);
  if (!r->yarn) return;
  kv_int(h, ".rope.scaling.original_context_length", (int)r->orig_context);
  kv_num(h, ".rope.scaling.yarn_beta_fast", r->beta_fast);
  kv_num(h, ".rope.scaling.yarn_beta_slow", r->beta_slow);
  if (c->attn == ATTN_MLA) kv_num(h, ".rope.scaling.yarn_log_multiplier", 0.1 * r->mscale_all_dim);
}

static void put_tokenizer(head *h, int vocab) {
  char text[32];
  int kind;
  kv_str(h, "tokenizer.ggml.model", "gpt2");
  kv_str(h, "tokenizer.ggml.pre", "gpt-2");
  key(h, "tokenizer.ggml.tokens", GGUF_ARRAY);
  u32(h, GGUF_STR);
  u64(h, (uint64_t)vocab);
  for (int i = 0; i < vocab; i++) {
    synth_token(i, vocab, text, &kind);
    str(h, text);
  }
  key(h, "tokenizer.ggml.token_type", GGUF_ARRAY);
  u32(h, GGUF_I32);
  u64(h, (uint64_t)vocab);
  for (int i = 0; i < vocab; i++) {
    synth_token(i, vocab, text, &kind);
    u32(h, (uint32_t)kind);
  }
  key(h, "tokenizer.ggml.merges", GGUF_ARRAY);
  u32(h, GGUF_STR);
  u64(h, 1);
  str(h, "\xc4\xa0 t");
  kv_int(h, "tokenizer.ggml.bos_token_id", vocab - 2);
  kv_int(h, "tokenizer.ggml.eos_token_id", vocab - 1);
  kv_bool(h, "tokenizer.ggml.add_bos_token", false);
}

static int file_type(fmt f) {
  return f == FMT_F32 ? 0 : f == FMT_F16 ? 1 : f == FMT_BF16 ? 32 : 7; /* llama.cpp's numbers of whole-file formats */
}

static void put_metadata(head *h, const model *m, const rope_spec *r) {
  const model_config *c = &m->c;
  kv_str(h, "general.architecture", h->arch);
  kv_str(h, "general.type", "model");
  kv_str(h, "general.name", c->name);
  kv_int(h, "general.file_type", file_type(m->synth_format));
  kv_int(h, "general.quantization_version", 2);
  kv_int(h, ".block_count", c->n_layers);
  kv_int(h, ".context_length", c->max_context);
  kv_int(h, ".embedding_length", c->d_model);
  kv_int(h, ".vocab_size", c->vocab_size);
  kv_int(h, ".attention.head_count", c->n_heads);
  kv_num(h, ".attention.layer_norm_rms_epsilon", c->norm_eps);
  if (c->attn == ATTN_MLA) put_mla(h, c);
  else put_gqa(h, c);
  put_ffn(h, c);
  put_rope(h, c, r);
  put_tokenizer(h, c->vocab_size);
}

static int dims_of(const model *m, model_tensor_id id, const tensor_slot *s, int64_t dims[3]) {
  int n = 0;
  dims[n++] = s->cols;
  if (id == MT_K_B || id == MT_V_B) {
    dims[n++] = s->rows / m->c.n_heads;
    dims[n++] = m->c.n_heads;
    return n;
  }
  if (s->rows > 1 || tensor_is_matrix(id) || id == MT_ROUTER) dims[n++] = s->rows;
  if (tensor_is_expert(id)) dims[n++] = m->c.n_experts;
  return n;
}

static uint64_t tensor_bytes(const model *m, model_tensor_id id, const tensor_slot *s) {
  return s->bytes * (uint64_t)(tensor_is_expert(id) ? m->c.n_experts : 1);
}

static bool stored(const model *m, int id, int layer) {
  return model_slot(m, (model_tensor_id)id, layer)->present && !(id == MT_OUTPUT && m->c.tied_embeddings);
}

static void put_tensor_info(head *h, const model *m, model_tensor_id id, int layer, uint64_t offset) {
  const tensor_slot *s = model_slot(m, id, layer);
  bool post = id == MT_FFN_NORM && family_get(m->c.family)->gguf_post_norm;
  char name[128];
  int64_t dims[3];
  if (layer < 0) snprintf(name, sizeof name, "%s", gguf_tensor_name(id));
  else snprintf(name, sizeof name, "blk.%d.%s", layer, post ? "post_attention_norm.weight" : gguf_tensor_name(id));
  str(h, name);
  int n = dims_of(m, id, s, dims);
  u32(h, (uint32_t)n);
  for (int i = 0; i < n; i++) u64(h, (uint64_t)dims[i]);
  u32(h, (uint32_t)fmt_get(s->format)->ggml_type);
  u64(h, offset);
}

static hf_status build_header(const model *m, const rope_spec *r, hf_buf *out) {
  head kv = {.arch = family_get(m->c.family)->gguf_arch}, infos = {.arch = kv.arch}, all = {.arch = kv.arch};
  hf_buf_init(&kv.b, HEADER_LIMIT);
  hf_buf_init(&infos.b, HEADER_LIMIT);
  hf_buf_init(&all.b, HEADER_LIMIT);
  put_metadata(&kv, m, r);
  uint64_t n = 0, offset = 0;
  for (int layer = -1; layer < m->c.n_layers; layer++)
    for (int id = 0; id < MT_N; id++)
      if (stored(m, id, layer)) {
        put_tensor_info(&infos, m, (model_tensor_id)id, layer, offset);
        offset += tensor_bytes(m, (model_tensor_id)id, model_slot(m, (model_tensor_id)id, layer));
        offset = (offset + ALIGN - 1) / ALIGN * ALIGN;
        n++;
      }
  raw(&all, "GGUF", 4);
  u32(&all, 3);
  u64(&all, n);
  u64(&all, kv.n_kv);
  if (kv.st == HF_OK) raw(&all, kv.b.data, kv.b.len);
  if (infos.st == HF_OK) raw(&all, infos.b.data, infos.b.len);
  hf_status st = kv.st ? kv.st : infos.st ? infos.st : all.st;
  hf_buf_free(&kv.b);
  hf_buf_free(&infos.b);
  if (st != HF_OK) hf_buf_free(&all.b);
  else *out = all.b;
  return st;
}

/* GGUF cannot say everything that a config.json can: what the written header says must be this model. */
static hf_status check_header(synth_out *o, const model *m, const char *where) {
  if (fflush(o->f) != 0) return hf_fail(HF_MACHINE, "%s: cannot write", o->path);
  tensor_set s;
  gguf_file g;
  model_config c = {0};
  HF_TRY(tset_init(&s));
  hf_status st = gguf_open(&s, o->path, &g);
  if (st == HF_OK) st = tset_index(&s);
  if (st == HF_OK) st = config_from_gguf(&g, &s, &c);
  if (st == HF_OK) {
    const char *what = config_differ(&m->c, &c);
    if (what)
      st = hf_fail(HF_UNSUPPORTED, "%s: GGUF cannot express this config: %s would be lost; write a safetensors folder", where,
                   what);
    config_free(&c);
  }
  tset_free(&s);
  return st;
}

static hf_status put_data(synth_out *o, const model *m, model_tensor_id id, int layer) {
  const tensor_slot *s = model_slot(m, id, layer);
  HF_TRY(sw_pad(o, ALIGN));
  if (family_get(m->c.family)->gguf_permuted && (id == MT_Q || id == MT_K)) { /* arch llama: adjacent pairs */
    int hd = m->c.head_dim;
    for (int64_t r = 0; r < s->rows; r++) {
      int64_t canonical = r / hd * hd + r % hd % 2 * (hd / 2) + r % hd / 2;
      HF_TRY(sw_rows(o, m, id, layer, -1, canonical, canonical + 1));
    }
    return HF_OK;
  }
  if (!tensor_is_expert(id)) return sw_rows(o, m, id, layer, -1, 0, s->rows);
  for (int e = 0; e < m->c.n_experts; e++) HF_TRY(sw_rows(o, m, id, layer, e, 0, s->rows));
  return HF_OK;
}

static hf_status put_all(synth_out *o, const model *m) {
  for (int layer = -1; layer < m->c.n_layers; layer++)
    for (int id = 0; id < MT_N; id++)
      if (stored(m, id, layer)) HF_TRY(put_data(o, m, (model_tensor_id)id, layer));
  return sw_pad(o, ALIGN);
}

hf_status synth_write_gguf(const model *m, const json *config, const char *where, const char *path) {
  rope_spec r;
  HF_TRY(cfg_rope(config, where, m->c.rope.theta, &r));
  hf_buf header;
  HF_TRY(build_header(m, &r, &header));
  synth_out o;
  hf_status st = sw_open(&o, path);
  if (st == HF_OK) {
    st = sw_put(&o, header.data, header.len);
    if (st == HF_OK) st = check_header(&o, m, where);
    if (st == HF_OK) st = put_all(&o, m);
    st = sw_close(&o, st);
  }
  hf_buf_free(&header);
  return st;
}
