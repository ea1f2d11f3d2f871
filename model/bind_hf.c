/* bind_hf.c: names and layouts of Hugging Face checkpoints -> canonical tensors. */
#include <stdio.h>
#include <string.h>

#include "model/family.h"

/* %L is the layer, %E the expert. NULL: no such tensor under that id. */
static const char *const names[MT_N] = {
    [MT_EMBED] = "model.embed_tokens.weight",
    [MT_OUT_NORM] = "model.norm.weight",
    [MT_OUTPUT] = "lm_head.weight",
    [MT_ATTN_NORM] = "input_layernorm.weight",
    [MT_FFN_NORM] = "post_attention_layernorm.weight",
    [MT_Q] = "self_attn.q_proj.weight",
    [MT_K] = "self_attn.k_proj.weight",
    [MT_V] = "self_attn.v_proj.weight",
    [MT_O] = "self_attn.o_proj.weight",
    [MT_Q_BIAS] = "self_attn.q_proj.bias",
    [MT_K_BIAS] = "self_attn.k_proj.bias",
    [MT_V_BIAS] = "self_attn.v_proj.bias",
    [MT_O_BIAS] = "self_attn.o_proj.bias",
    [MT_Q_NORM] = "self_attn.q_norm.weight",
    [MT_K_NORM] = "self_attn.k_norm.weight",
    [MT_SINKS] = "self_attn.sinks",
    [MT_Q_A] = "self_attn.q_a_proj.weight",
    [MT_Q_A_NORM] = "self_attn.q_a_layernorm.weight",
    [MT_Q_B] = "self_attn.q_b_proj.weight",
    [MT_KV_A] = "self_attn.kv_a_proj_with_mqa.weight",
    [MT_KV_A_NORM] = "self_attn.kv_a_layernorm.weight",
    [MT_K_B] = "self_attn.kv_b_proj.weight",
    [MT_V_B] = "self_attn.kv_b_proj.weight",
    [MT_ROUTER] = "mlp.gate.weight",
    [MT_ROUTER_BIAS] = "mlp.gate.e_score_correction_bias",
    [MT_GATE] = "mlp.gate_proj.weight",
    [MT_UP] = "mlp.up_proj.weight",
    [MT_DOWN] = "mlp.down_proj.weight",
    [MT_SH_GATE] = "mlp.shared_experts.gate_proj.weight",
    [MT_SH_UP] = "mlp.shared_experts.up_proj.weight",
    [MT_SH_DOWN] = "mlp.shared_experts.down_proj.weight",
    [MT_SH_GATE_INP] = "mlp.shared_expert_gate.weight",
    [MT_EXP_GATE] = "mlp.experts.%d.gate_proj.weight",
    [MT_EXP_UP] = "mlp.experts.%d.up_proj.weight",
    [MT_EXP_DOWN] = "mlp.experts.%d.down_proj.weight",
    [MT_ROUTER_LIN_BIAS] = "mlp.router.bias",
};

static const char *pattern(const model_config *c, model_tensor_id id) {
  const family *f = family_get(c->family);
  const char *own = f->tensor_name ? f->tensor_name(id) : NULL;
  return own ? own : names[id];
}

void hf_tensor_name(const model_config *c, model_tensor_id id, int layer, int expert, const char *suffix,
                    char buf[NAME_MAX_BYTES]) {
  size_t k = 0;
  if (layer >= 0) k = (size_t)snprintf(buf, NAME_MAX_BYTES, "model.layers.%d.", layer);
  const char *p = pattern(c, id), *mark = strstr(p, "%d");
  if (mark) snprintf(buf + k, NAME_MAX_BYTES - k, "%.*s%d%s%s", (int)(mark - p), p, expert, mark + 2, suffix);
  else snprintf(buf + k, NAME_MAX_BYTES - k, "%s%s", p, suffix);
}

hf_status bind_absent(const model *m, const char *name) {
  return hf_fail(HF_INPUT, "%s: tensor %s is missing in the weight files", m->path, name);
}

/* kv_b_proj [heads*(nope+v)][lora], rows of a head: nope, then v. */
static hf_status bind_kv_b(model *m, tensor_slot *s, const raw_tensor *t, model_tensor_id id, int64_t rows, int64_t cols) {
  const model_config *c = &m->c;
  HF_TRY(slot_set(m, s, t, id, (int64_t)c->n_heads * (c->nope_dim + c->v_dim), c->kv_lora_rank));
  s->how = id == MT_K_B ? READ_KVB_K : READ_KVB_V;
  if (id == MT_K_B && fmt_get(t->format)->block > 1) s->format = FMT_F32; /* a transposed block is no block */
  s->rows = rows;
  s->cols = cols;
  s->bytes = (uint64_t)rows * fmt_row_bytes(s->format, cols);
  return HF_OK;
}

/* FP8: 128x128 block scales beside the weight. */
static hf_status bind_fp8(model *m, tensor_slot *s, const char *name, int64_t rows, int64_t cols) {
  char buf[NAME_MAX_BYTES];
  snprintf(buf, sizeof buf, "%s_scale_inv", name);
  const raw_tensor *t = tset_find(&m->set, buf);
  if (!t) return bind_absent(m, buf);
  if (t->n_dims != 2 || t->dims[0] != (rows + 127) / 128 || t->dims[1] != (cols + 127) / 128)
    return hf_fail(HF_INPUT, "%s: tensor %s: not one scale per 128 x 128 block of [%lld, %lld]", m->set.files[t->file].path, buf,
                   (long long)rows, (long long)cols);
  if (t->format != FMT_F32)
    return hf_fail(HF_INPUT, "%s: tensor %s: %s, scales must be F32", m->set.files[t->file].path, buf, t->dtype);
  s->how = READ_FP8;
  s->bytes = (uint64_t)s->rows * fmt_loaded_row_bytes(s->format, s->cols);
  return HF_OK;
}

/* INT4 of compressed-tensors: weight_packed [rows][cols/8] I32 and weight_scale [rows][cols/32]. */
static hf_status bind_int4(model *m, tensor_slot *s, model_tensor_id id, int layer, int expert, int64_t rows, int64_t cols) {
  char buf[NAME_MAX_BYTES];
  hf_tensor_name(&m->c, id, layer, expert, "_packed", buf);
  const raw_tensor *p = tset_find(&m->set, buf);
  if (!p) {
    hf_tensor_name(&m->c, id, layer, expert, "", buf);
    return bind_absent(m, buf);
  }
  if (p->n_dims != 2 || p->dims[0] != rows || p->dims[1] * 8 != cols || strcmp(p->dtype, "I32"))
    return hf_fail(HF_INPUT, "%s: tensor %s: not I32 [%lld, %lld / 8]", m->set.files[p->file].path, buf, (long long)rows,
                   (long long)cols);
  hf_tensor_name(&m->c, id, layer, expert, "_scale", buf);
  const raw_tensor *q = tset_find(&m->set, buf);
  if (!q) return bind_absent(m, buf);
  if (q->n_dims != 2 || q->dims[0] != rows || q->dims[1] * 32 != cols || q->format != FMT_BF16)
    return hf_fail(HF_INPUT, "%s: tensor %s: not BF16 [%lld, %lld / 32]", m->set.files[q->file].path, buf, (long long)rows,
                   (long long)cols);
  *s = (tensor_slot){.present = true,
                     .how = READ_INT4,
                     .format = FMT_INT4_G32,
                     .stored = FMT_INT4_G32,
                     .rows = rows,
                     .cols = cols,
                     .bytes = (uint64_t)rows * fmt_row_bytes(FMT_INT4_G32, cols),
                     .file = p->file,
                     .offset = p->offset,
                     .experts = s->experts};
  return HF_OK;
}

/* One stored tensor into *s; used for plain tensors and for one expert at a time. */
static hf_status bind_one(model *m, tensor_slot *s, model_tensor_id id, int layer, int expert, int64_t rows, int64_t cols) {
  char name[NAME_MAX_BYTES];
  hf_tensor_name(&m->c, id, layer, expert, "", name);
  const raw_tensor *t = tset_find(&m->set, name);
  if (!t) return tensor_is_matrix(id) ? bind_int4(m, s, id, layer, expert, rows, cols) : bind_absent(m, name);
  if (id == MT_K_B || id == MT_V_B) HF_TRY(bind_kv_b(m, s, t, id, rows, cols));
  else HF_TRY(slot_set(m, s, t, id, rows, cols));
  if (t->format != FMT_FP8_E4M3) return HF_OK;
  if (id != MT_K_B && id != MT_V_B) return bind_fp8(m, s, name, rows, cols);
  if (id == MT_K_B) s->format = FMT_BF16; /* a transposed block is no block */
  return bind_fp8(m, s, name, (int64_t)m->c.n_heads * (m->c.nope_dim + m->c.v_dim), m->c.kv_lora_rank);
}

/* Experts as tensors of their own: all must have the format of the first. */
static hf_status bind_experts(model *m, tensor_slot *s, model_tensor_id id, int layer, int64_t rows, int64_t cols) {
  struct expert_place *places;
  HF_TRY(hf_arena_get(m->arena, &places, (size_t)m->c.n_experts, sizeof *places));
  tensor_slot first = {0};
  for (int e = 0; e < m->c.n_experts; e++) {
    tensor_slot one = {0};
    HF_TRY(tset_fault(&m->set, bind_one(m, &one, id, layer, e, rows, cols)));
    if (e == 0) first = one;
    if (!one.present || !first.present) { /* told already; this tensor cannot be used */
      first.present = false;
      continue;
    }
    if (one.format != first.format)
      return hf_fail(HF_INPUT, "%s: layer %d %s: expert %d is %s, expert 0 is %s", m->path, layer, tensor_name(id), e,
                     fmt_get(one.format)->name, fmt_get(first.format)->name);
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
  if (!tensor_is_expert(id)) return bind_one(m, s, id, layer, -1, rows, cols);
  const family *f = family_get(m->c.family);
  if (f->bind_expert) return f->bind_expert(m, s, id, layer, rows, cols);
  return bind_experts(m, s, id, layer, rows, cols);
}

hf_status bind_hf(model *m) {
  for (int layer = -1; layer < m->c.n_layers; layer++)
    for (int id = 0; id < MT_N; id++) HF_TRY(tset_fault(&m->set, bind_slot(m, (model_tensor_id)id, layer)));
  return HF_OK;
}
