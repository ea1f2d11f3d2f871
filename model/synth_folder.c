/* synth_folder.c: a synthetic model as a Hugging Face folder: config.json, tokenizer.json, model.safetensors. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/family.h"
#include "model/synth_write.h"

#define HEADER_LIMIT ((size_t)48 << 20)
enum { STACK_BYTES = 16 << 20 };

/* One tensor of the file; the walk calls back once to list and once to write, in the same order. */
typedef struct {
  model_tensor_id id;
  int layer, expert; /* expert -1: none, or all of them stacked (gpt-oss) */
  int n_dims;
  int64_t dims[3];
  fmt format;
} entry;
typedef hf_status (*visit)(void *user, const model *m, const entry *e);

static bool stacked(const model *m, model_tensor_id id) {
  return family_get(m->c.family)->bind_expert && tensor_is_expert(id);
}

static hf_status walk_one(const model *m, model_tensor_id id, int layer, visit fn, void *user) {
  const tensor_slot *s = model_slot(m, id, layer);
  const model_config *c = &m->c;
  entry e = {id, layer, -1, 2, {s->rows, s->cols, 0}, s->format};
  if (!s->present || (id == MT_OUTPUT && c->tied_embeddings) || id == MT_V_B) return HF_OK; /* V_B: inside kv_b_proj */
  if (id == MT_K_B) {
    e.dims[0] = (int64_t)c->n_heads * (c->nope_dim + c->v_dim);
    e.dims[1] = c->kv_lora_rank;
  } else if (stacked(m, id)) {
    if (id == MT_EXP_UP || id == MT_EXP_UP_BIAS) return HF_OK; /* inside gate_up_proj */
    bool down = id == MT_EXP_DOWN || id == MT_EXP_DOWN_BIAS, bias = !tensor_is_matrix(id);
    int64_t width = (bias ? s->cols : s->rows) * (down ? 1 : 2);
    e.n_dims = bias ? 2 : 3;
    e.dims[0] = c->n_experts;
    e.dims[1] = bias ? width : s->cols;
    e.dims[2] = width;
  } else if (s->rows == 1 && id != MT_SH_GATE_INP && !tensor_is_matrix(id) && id != MT_ROUTER) {
    e.n_dims = 1;
    e.dims[0] = s->cols;
  }
  if (!tensor_is_expert(id) || stacked(m, id)) return fn(user, m, &e);
  for (e.expert = 0; e.expert < c->n_experts; e.expert++) HF_TRY(fn(user, m, &e));
  return HF_OK;
}

static hf_status walk(const model *m, visit fn, void *user) {
  for (int layer = -1; layer < m->c.n_layers; layer++)
    for (int id = 0; id < MT_N; id++) HF_TRY(walk_one(m, (model_tensor_id)id, layer, fn, user));
  return HF_OK;
}

static const char *stacked_name(model_tensor_id id) {
  switch (id) {
    case MT_EXP_DOWN: return "down_proj";
    case MT_EXP_DOWN_BIAS: return "down_proj_bias";
    case MT_EXP_GATE_BIAS: return "gate_up_proj_bias";
    default: return "gate_up_proj";
  }
}

typedef struct {
  hf_buf b;
  uint64_t offset;
} listing;

static hf_status list_entry(void *user, const model *m, const entry *e) {
  listing *l = user;
  char name[NAME_MAX_BYTES];
  if (stacked(m, e->id)) snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s", e->layer, stacked_name(e->id));
  else hf_tensor_name(&m->c, e->id, e->layer, e->expert, "", name);
  int64_t n = 1;
  const char *dtype = e->format == FMT_F32 ? "F32" : e->format == FMT_F16 ? "F16" : "BF16";
  HF_TRY(hf_buf_printf(&l->b, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", name, dtype));
  for (int i = 0; i < e->n_dims; n *= e->dims[i++]) HF_TRY(hf_buf_printf(&l->b, "%s%lld", i ? "," : "", (long long)e->dims[i]));
  uint64_t end = l->offset + (uint64_t)n * (uint64_t)fmt_get(e->format)->block_bytes;
  HF_TRY(hf_buf_printf(&l->b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)l->offset, (unsigned long long)end));
  l->offset = end;
  return HF_OK;
}

/* kv_b_proj: per head the nope rows (MT_K_B transposed), then the v rows. */
static hf_status write_kv_b(synth_out *o, const model *m, int layer, fmt format) {
  const model_config *c = &m->c;
  const tensor_slot *k = model_slot(m, MT_K_B, layer);
  size_t elem = (size_t)fmt_get(format)->block_bytes;
  int64_t lora = c->kv_lora_rank, nope = c->nope_dim;
  uint8_t *head = NULL, *turned = NULL;
  hf_status st = hf_alloc(&head, (size_t)(lora * nope), elem, "kv_b head");
  if (st == HF_OK) st = hf_alloc(&turned, (size_t)(lora * nope), elem, "kv_b head");
  for (int h = 0; h < c->n_heads && st == HF_OK; h++) {
    st = synth_read(m, k, MT_K_B, layer, -1, h * lora, (h + 1) * lora, head);
    for (int64_t i = 0; i < lora; i++)
      for (int64_t n = 0; n < nope; n++)
        memcpy(turned + (size_t)(n * lora + i) * elem, head + (size_t)(i * nope + n) * elem, elem);
    if (st == HF_OK) st = sw_put(o, turned, (size_t)(lora * nope) * elem);
    if (st == HF_OK) st = sw_rows(o, m, MT_V_B, layer, -1, h * c->v_dim, (h + 1) * c->v_dim);
  }
  free(head);
  free(turned);
  return st;
}

/* gpt-oss: one expert as [in][width], gate and up interleaved; rows are made again for every block of columns. */
static hf_status write_stacked_expert(synth_out *o, const model *m, const entry *e, int expert, uint8_t *block, uint8_t *row) {
  const tensor_slot *s = model_slot(m, e->id, e->layer);
  bool bias = !tensor_is_matrix(e->id), down = e->id == MT_EXP_DOWN || e->id == MT_EXP_DOWN_BIAS;
  model_tensor_id up = bias ? MT_EXP_UP_BIAS : MT_EXP_UP;
  int step = down ? 1 : 2;
  int64_t in = bias ? 1 : s->cols, out = bias ? s->cols : s->rows, width = out * step;
  size_t elem = (size_t)fmt_get(e->format)->block_bytes;
  int64_t per = STACK_BYTES / (int64_t)((size_t)width * elem);
  if (per < 1) return hf_fail(HF_UNSUPPORTED, "%s: experts of width %lld", o->path, (long long)width);
  for (int64_t i0 = 0; i0 < in; i0 += per) {
    int64_t n = in - i0 < per ? in - i0 : per;
    for (int64_t r = 0; r < (bias ? 1 : out); r++)
      for (int k = 0; k < step; k++) {
        HF_TRY(synth_read(m, s, k ? up : e->id, e->layer, expert, r, r + 1, row));
        if (bias)
          for (int64_t j = 0; j < out; j++) memcpy(block + (size_t)(j * step + k) * elem, row + (size_t)j * elem, elem);
        else
          for (int64_t i = 0; i < n; i++)
            memcpy(block + (size_t)(i * width + r * step + k) * elem, row + (size_t)(i0 + i) * elem, elem);
      }
    HF_TRY(sw_put(o, block, (size_t)(n * width) * elem));
  }
  return HF_OK;
}

static hf_status write_stacked(synth_out *o, const model *m, const entry *e) {
  const tensor_slot *s = model_slot(m, e->id, e->layer);
  uint8_t *block = NULL, *row = NULL;
  hf_status st = hf_alloc(&block, STACK_BYTES, 1, "stacked experts");
  if (st == HF_OK) st = hf_alloc(&row, fmt_row_bytes(s->format, s->cols), 1, "stacked experts");
  for (int x = 0; x < m->c.n_experts && st == HF_OK; x++) st = write_stacked_expert(o, m, e, x, block, row);
  free(block);
  free(row);
  return st;
}

static hf_status write_entry(void *user, const model *m, const entry *e) {
  synth_out *o = user;
  if (e->id == MT_K_B) return write_kv_b(o, m, e->layer, e->format);
  if (stacked(m, e->id)) return write_stacked(o, m, e);
  return sw_rows(o, m, e->id, e->layer, e->expert, 0, model_slot(m, e->id, e->layer)->rows);
}

static hf_status write_weights(const model *m, const char *path) {
  listing l = {0};
  hf_buf_init(&l.b, HEADER_LIMIT);
  hf_status st = hf_buf_printf(&l.b, "{\"__metadata__\":{\"format\":\"pt\"}");
  if (st == HF_OK) st = walk(m, list_entry, &l);
  if (st == HF_OK) st = hf_buf_printf(&l.b, "}");
  while (st == HF_OK && l.b.len % 8) st = hf_buf_add(&l.b, " ", 1);
  synth_out o;
  if (st == HF_OK) st = sw_open(&o, path);
  if (st == HF_OK) {
    uint8_t len[8];
    for (int i = 0; i < 8; i++) len[i] = (uint8_t)((uint64_t)l.b.len >> 8 * i);
    st = sw_put(&o, len, 8);
    if (st == HF_OK) st = sw_put(&o, l.b.data, l.b.len);
    if (st == HF_OK) st = walk(m, write_entry, &o);
    st = sw_close(&o, st);
  }
  hf_buf_free(&l.b);
  return st;
}

static json *token_entry(json *list, int id, const char *text) {
  json *t = json_add_object(list, NULL);
  json_add_int(t, "id", id);
  json_add_str(t, "content", text);
  json_add_bool(t, "special", true);
  return t;
}

/* Byte-level BPE with the one merge; fillers are left out: ids without a token are allowed. */
static hf_status write_tokenizer(const model *m, const char *path) {
  int vocab = m->c.vocab_size, kind;
  char text[32];
  json *doc = json_new_object(), *added = json_add_array(doc, "added_tokens");
  for (int i = vocab - 2; i < vocab; i++) {
    synth_token(i, vocab, text, &kind);
    token_entry(added, i, text);
  }
  json *pre = json_add_object(doc, "pre_tokenizer");
  json_add_str(pre, "type", "ByteLevel");
  json_add_bool(pre, "add_prefix_space", false);
  json_add_bool(pre, "use_regex", true);
  json *bpe = json_add_object(doc, "model"), *words;
  json_add_str(bpe, "type", "BPE");
  words = json_add_object(bpe, "vocab");
  for (int i = 0; i < 257; i++) {
    synth_token(i, vocab, text, &kind);
    json_add_int(words, text, i);
  }
  json_add_str(json_add_array(bpe, "merges"), NULL, "\xc4\xa0 t");
  json_add_str(json_add_object(doc, "decoder"), "type", "ByteLevel");
  hf_status st = json_write_file(doc, path);
  json_free(doc);
  return st;
}

hf_status synth_write_folder(const model *m, const json *config, const char *where, const model_synth_options *o,
                             const char *folder) {
  char path[4096];
  if (strlen(folder) > sizeof path - 64) return hf_fail(HF_INPUT, "%.200s...: path too long", folder);
  if (mkdir(folder, 0777) != 0 && errno != EEXIST) return hf_fail(HF_MACHINE, "%s: %s", folder, strerror(errno));
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  HF_TRY(write_weights(m, path));
  snprintf(path, sizeof path, "%s/tokenizer.json", folder);
  HF_TRY(write_tokenizer(m, path));
  json *c = NULL;
  HF_TRY(synth_override_config(config, where, o->layers, o->experts, o->format, &c));
  snprintf(path, sizeof path, "%s/config.json", folder);
  hf_status st = json_write_file(c, path); /* last: a folder without it is no model */
  json_free(c);
  return st;
}
