/* synth_gguf.c: a synthetic model as one GGUF file: metadata, a minimal byte-level tokenizer, tensor infos, data. */
#include <stdlib.h>
#include <string.h>

#include "model/family.h"
#include "model/gguf_write.h"
#include "model/synth_write.h"

static void put_tokenizer(gguf_head *h, int vocab) {
  char text[32];
  int kind;
  gguf_put_str(h, "tokenizer.ggml.model", "gpt2");
  gguf_put_str(h, "tokenizer.ggml.pre", "gpt-2");
  gguf_put_array(h, "tokenizer.ggml.tokens", GGUF_STR, (uint64_t)vocab);
  for (int i = 0; i < vocab; i++) {
    synth_token(i, vocab, text, &kind);
    gguf_put_text(h, text, strlen(text));
  }
  gguf_put_array(h, "tokenizer.ggml.token_type", GGUF_I32, (uint64_t)vocab);
  for (int i = 0; i < vocab; i++) {
    synth_token(i, vocab, text, &kind);
    gguf_put_u32(h, (uint32_t)kind);
  }
  gguf_put_array(h, "tokenizer.ggml.merges", GGUF_STR, 1);
  gguf_put_text(h, "\xc4\xa0 t", 4);
  gguf_put_int(h, "tokenizer.ggml.bos_token_id", vocab - 2);
  gguf_put_int(h, "tokenizer.ggml.eos_token_id", vocab - 1);
  gguf_put_bool(h, "tokenizer.ggml.add_bos_token", false);
}

static uint64_t tensor_bytes(const model *m, model_tensor_id id, const tensor_slot *s) {
  return s->bytes * (uint64_t)(tensor_is_expert(id) ? m->c.n_experts : 1);
}

static bool stored(const model *m, int id, int layer) {
  return model_slot(m, (model_tensor_id)id, layer)->present && !(id == MT_OUTPUT && m->c.tied_embeddings);
}

static hf_status build_header(const model *m, const rope_spec *r, hf_buf *out) {
  gguf_head kv, infos;
  gguf_head_init(&kv, family_get(m->c.family)->gguf_arch);
  gguf_head_init(&infos, kv.arch);
  gguf_put_config(&kv, &m->c, r, m->synth_format);
  put_tokenizer(&kv, m->c.vocab_size);
  uint64_t offset = 0;
  for (int layer = -1; layer < m->c.n_layers; layer++)
    for (int id = 0; id < MT_N; id++) {
      if (!stored(m, id, layer)) continue;
      const tensor_slot *s = model_slot(m, (model_tensor_id)id, layer);
      char name[128];
      int64_t dims[3];
      gguf_name_of(&m->c, (model_tensor_id)id, layer, name);
      int n = gguf_dims_of(&m->c, (model_tensor_id)id, s->rows, s->cols, dims);
      gguf_put_tensor(&infos, name, n, dims, s->format, offset);
      offset += tensor_bytes(m, (model_tensor_id)id, s);
      offset = (offset + GGUF_ALIGN - 1) / GGUF_ALIGN * GGUF_ALIGN;
    }
  return gguf_header(&kv, &infos, out);
}

static hf_status check_header(synth_out *o, const model *m, const char *where) {
  if (fflush(o->f) != 0) return hf_fail(HF_MACHINE, "%s: cannot write", o->path);
  return gguf_says(o->path, &m->c, where);
}

static hf_status put_data(synth_out *o, const model *m, model_tensor_id id, int layer) {
  const tensor_slot *s = model_slot(m, id, layer);
  HF_TRY(sw_pad(o, GGUF_ALIGN));
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
  return sw_pad(o, GGUF_ALIGN);
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
