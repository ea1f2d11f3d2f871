/* bind_gguf.c: split files, and names and layouts of GGUF -> canonical tensors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/family.h"

static const char *const names[MT_N] = {
    [MT_EMBED] = "token_embd.weight",
    [MT_OUT_NORM] = "output_norm.weight",
    [MT_OUTPUT] = "output.weight",
    [MT_ATTN_NORM] = "attn_norm.weight",
    [MT_FFN_NORM] = "ffn_norm.weight",
    [MT_Q] = "attn_q.weight",
    [MT_K] = "attn_k.weight",
    [MT_V] = "attn_v.weight",
    [MT_O] = "attn_output.weight",
    [MT_Q_BIAS] = "attn_q.bias",
    [MT_K_BIAS] = "attn_k.bias",
    [MT_V_BIAS] = "attn_v.bias",
    [MT_O_BIAS] = "attn_output.bias",
    [MT_Q_NORM] = "attn_q_norm.weight",
    [MT_K_NORM] = "attn_k_norm.weight",
    [MT_SINKS] = "attn_sinks.weight",
    [MT_Q_A] = "attn_q_a.weight",
    [MT_Q_A_NORM] = "attn_q_a_norm.weight",
    [MT_Q_B] = "attn_q_b.weight",
    [MT_KV_A] = "attn_kv_a_mqa.weight",
    [MT_KV_A_NORM] = "attn_kv_a_norm.weight",
    [MT_K_B] = "attn_k_b.weight",
    [MT_V_B] = "attn_v_b.weight",
    [MT_ROUTER] = "ffn_gate_inp.weight",
    [MT_ROUTER_BIAS] = "exp_probs_b.bias",
    [MT_ROUTER_LIN_BIAS] = "ffn_gate_inp.bias",
    [MT_GATE] = "ffn_gate.weight",
    [MT_UP] = "ffn_up.weight",
    [MT_DOWN] = "ffn_down.weight",
    [MT_SH_GATE] = "ffn_gate_shexp.weight",
    [MT_SH_UP] = "ffn_up_shexp.weight",
    [MT_SH_DOWN] = "ffn_down_shexp.weight",
    [MT_SH_GATE_INP] = "ffn_gate_inp_shexp.weight",
    [MT_EXP_GATE] = "ffn_gate_exps.weight",
    [MT_EXP_UP] = "ffn_up_exps.weight",
    [MT_EXP_DOWN] = "ffn_down_exps.weight",
    [MT_EXP_GATE_BIAS] = "ffn_gate_exps.bias",
    [MT_EXP_UP_BIAS] = "ffn_up_exps.bias",
    [MT_EXP_DOWN_BIAS] = "ffn_down_exps.bias",
};

const char *gguf_tensor_name(model_tensor_id id) {
  return names[id];
}

static const raw_tensor *find(const model *m, int layer, const char *name) {
  char buf[160];
  if (layer < 0) return tset_find(&m->set, name);
  snprintf(buf, sizeof buf, "blk.%d.%s", layer, name);
  return tset_find(&m->set, buf);
}

static hf_status absent(const model *m, int layer, const char *name) {
  char where[32] = "";
  if (layer >= 0) snprintf(where, sizeof where, "blk.%d.", layer);
  return hf_fail(HF_INPUT, "%s: tensor %s%s is missing", m->path, where, name);
}

/* MT_K_B and MT_V_B of files from before the absorbed form: attn_kv_b [heads*(nope+v)][lora]. */
static hf_status bind_old_kv_b(model *m, tensor_slot *s, model_tensor_id id, int layer, int64_t rows, int64_t cols) {
  const model_config *c = &m->c;
  const raw_tensor *t = find(m, layer, "attn_kv_b.weight");
  if (!t) return absent(m, layer, names[id]);
  HF_TRY(slot_set(m, s, t, id, (int64_t)c->n_heads * (c->nope_dim + c->v_dim), c->kv_lora_rank));
  s->how = id == MT_K_B ? READ_KVB_K : READ_KVB_V;
  if (id == MT_K_B && fmt_get(t->format)->block > 1) {
    s->format = FMT_F32;
    if (t->format != FMT_Q8_0) {
      s->how = READ_REFUSED;
      s->why = "attn_kv_b in this format cannot be split; use a file with attn_k_b and attn_v_b";
    }
  }
  s->rows = rows;
  s->cols = cols;
  s->bytes = (uint64_t)rows * fmt_row_bytes(s->format, cols);
  return HF_OK;
}

/* Mixtral files from before stacked experts: ffn_gate.E.weight. */
static hf_status bind_single_experts(model *m, tensor_slot *s, model_tensor_id id, int layer, int64_t rows, int64_t cols) {
  static const char *const part[] = {"gate", "up", "down"};
  struct expert_place *places;
  HF_TRY(hf_arena_get(m->arena, &places, (size_t)m->c.n_experts, sizeof *places));
  tensor_slot first = {0};
  for (int e = 0; e < m->c.n_experts; e++) {
    char name[64];
    snprintf(name, sizeof name, "ffn_%s.%d.weight", part[id - MT_EXP_GATE], e);
    const raw_tensor *t = find(m, layer, name);
    if (!t) return absent(m, layer, e ? name : names[id]);
    tensor_slot one = {0};
    HF_TRY(slot_set(m, &one, t, id, rows, cols));
    if (e == 0) first = one;
    if (one.format != first.format)
      return hf_fail(HF_INPUT, "%s: tensor %s: format %s differs from expert 0's", m->path, t->name, t->dtype);
    places[e].file = one.file;
    places[e].offset = one.offset;
  }
  *s = first;
  s->experts = places;
  return HF_OK;
}

static hf_status bind_slot(model *m, model_tensor_id id, int layer) {
  int64_t rows, cols;
  if (!tensor_shape(&m->c, id, layer, &rows, &cols)) return HF_OK;
  tensor_slot *s = model_slot(m, id, layer);
  if (id == MT_OUTPUT && m->c.tied_embeddings) {
    *s = *model_slot(m, MT_EMBED, -1);
    return HF_OK;
  }
  const raw_tensor *t = find(m, layer, names[id]);
  if (!t && id == MT_FFN_NORM) t = find(m, layer, "post_attention_norm.weight"); /* gpt-oss, glm4moe */
  if (!t && (id == MT_K_B || id == MT_V_B)) return bind_old_kv_b(m, s, id, layer, rows, cols);
  bool weight = id == MT_EXP_GATE || id == MT_EXP_UP || id == MT_EXP_DOWN;
  if (!t && weight) return bind_single_experts(m, s, id, layer, rows, cols);
  if (!t) return absent(m, layer, names[id]);
  s->expert_stride = tensor_is_expert(id) ? 1 : 0; /* slot_set puts the true one */
  HF_TRY(slot_set(m, s, t, id, rows, cols));
  if (family_get(m->c.family)->gguf_permuted && (id == MT_Q || id == MT_K)) s->how = READ_UNPERMUTE;
  return HF_OK;
}

/* ---- split files ---- */

/* PREFIX-00001-of-0000N.gguf of the given part; false when the path has another form. */
static bool part_path(const char *first, int part, int count, char *buf, size_t n) {
  char tail[32];
  snprintf(tail, sizeof tail, "-00001-of-%05d.gguf", count);
  size_t len = strlen(first), k = strlen(tail);
  if (len <= k || strcmp(first + len - k, tail)) return false;
  return (size_t)snprintf(buf, n, "%.*s-%05d-of-%05d.gguf", (int)(len - k), first, part, count) < n;
}

static hf_status open_parts(model *m, const char *path, const gguf_file *first, bool *header_only) {
  int64_t no = 0, count = 1, total = -1;
  HF_TRY(gguf_opt_int(first, "split.no", 0, 4095, &no));
  HF_TRY(gguf_opt_int(first, "split.count", 0, 4096, &count));
  HF_TRY(gguf_opt_int(first, "split.tensors.count", 0, INT32_MAX, &total));
  if (count <= 1) return HF_OK;
  if (no != 0) return hf_fail(HF_INPUT, "%s: split.no: %lld; name the first file of the split", path, (long long)no);
  char part[4096];
  for (int i = 2; i <= count; i++) {
    if (!part_path(path, i, (int)count, part, sizeof part))
      return hf_fail(HF_INPUT, "%s: split.count: %lld, but the name does not end in -00001-of-%05lld.gguf", path,
                     (long long)count, (long long)count);
    if (access(part, F_OK) != 0) {
      char text[4200];
      snprintf(text, sizeof text, "%s does not exist", part);
      return hf_strdup(&m->missing, text);
    }
  }
  for (int i = 2; i <= count; i++) {
    gguf_file g;
    int64_t part_no = -1, part_count = -1;
    if (!part_path(path, i, (int)count, part, sizeof part)) return hf_fail(HF_INPUT, "%s: path too long", path);
    HF_TRY(gguf_open(&m->set, part, &g));
    HF_TRY(gguf_opt_int(&g, "split.no", 0, 4095, &part_no));
    HF_TRY(gguf_opt_int(&g, "split.count", 0, 4096, &part_count));
    if (part_no != i - 1 || part_count != count)
      return hf_fail(HF_INPUT, "%s: split.no %lld of split.count %lld; %d of %lld was expected", part, (long long)part_no,
                     (long long)part_count, i - 1, (long long)count);
    *header_only = *header_only || g.header_only;
  }
  if (total >= 0 && (uint64_t)total != m->set.n)
    return hf_fail(HF_INPUT, "%s: split.tensors.count: %lld, but the files hold %zu", path, (long long)total, m->set.n);
  return HF_OK;
}

hf_status bind_gguf(model *m) {
  HF_TRY(slots_alloc(m));
  for (int layer = -1; layer < m->c.n_layers; layer++)
    for (int id = 0; id < MT_N; id++) HF_TRY(tset_fault(&m->set, bind_slot(m, (model_tensor_id)id, layer)));
  m->c.default_format = slots_expert_format(m);
  return HF_OK;
}

hf_status gguf_open_model(model *m, const char *path) {
  gguf_file g;
  HF_TRY(gguf_open(&m->set, path, &g));
  bool header_only = g.header_only;
  HF_TRY(open_parts(m, path, &g, &header_only));
  HF_TRY(tset_index(&m->set));
  HF_TRY(config_from_gguf(&g, &m->set, &m->c));
  if (m->missing) {
    m->c.tied_embeddings = false; /* output.weight may lie in a part that is not there */
    return HF_OK;
  }
  HF_TRY(bind_gguf(m));
  if (header_only || m->set.n == 0) {
    /* the slots stay: sizes are known, bytes are not there */
    return hf_strdup(&m->missing, "the file holds a header only");
  }
  m->source = SRC_FILE;
  return HF_OK;
}
