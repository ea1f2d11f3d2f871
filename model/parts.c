/* parts.c: bytes and FLOPs per part, for planning. Where the model has files (or synthetic tensors) and no other format is asked
 * for, bytes are those of its tensors; else they follow from config and format by the rules of part_format(). */
#include "model/internal.h"

/* What the rest of a model is stored in when its routed experts are in `f`, as published files of each kind do it:
 *   fp8      every product but router, embedding and output, which are BF16
 *   int4, mxfp4   routed experts only, the rest BF16
 *   floats   everything (norms and biases of all these: as the rest)
 *   GGUF quantised   every matrix; router, norms and biases F32. Mixtures: their average for every matrix */
static fmt part_format(fmt f, model_tensor_id id, int64_t cols) {
  bool safetensors = f == FMT_FP8_E4M3 || f == FMT_INT4_G32 || f == FMT_MXFP4 || f == FMT_BF16 || f == FMT_F16 || f == FMT_F32;
  fmt rest = f == FMT_F16 || f == FMT_F32 ? f : FMT_BF16;
  if (!tensor_is_matrix(id)) return safetensors ? rest : FMT_F32;
  bool routed = id == MT_EXP_GATE || id == MT_EXP_UP || id == MT_EXP_DOWN;
  if ((f == FMT_INT4_G32 || f == FMT_MXFP4) && !routed) return FMT_BF16;
  if (f == FMT_FP8_E4M3 && tensor_is_global(id)) return FMT_BF16;
  return cols % fmt_get(f)->block ? FMT_F16 : f;
}

static int64_t matrix_bytes(fmt f, int64_t rows, int64_t cols) {
  int64_t bytes = rows * (int64_t)fmt_row_bytes(f, cols);
  if (f == FMT_FP8_E4M3) bytes += (rows + 127) / 128 * ((cols + 127) / 128) * 4;
  return bytes;
}

typedef struct {
  const model *m;
  fmt format; /* FMT_DEFAULT: as stored */
} view;

static fmt default_of(const model *m) {
  return m->slots ? slots_expert_format(m) : m->c.default_format;
}

/* Adds one tensor (one expert's share of it) to a part; *f gets its format. */
static void add(const view *v, model_tensor_id id, int layer, model_part *part, fmt *f) {
  int64_t rows, cols;
  if (!tensor_shape(&v->m->c, id, layer, &rows, &cols)) return;
  fmt use;
  if (v->format == FMT_DEFAULT && v->m->slots) {
    const tensor_slot *s = model_slot(v->m, id, layer);
    use = s->format;
    part->bytes += (int64_t)(s->bytes + s->extra_bytes);
  } else {
    use = part_format(v->format == FMT_DEFAULT ? v->m->c.default_format : v->format, id, cols);
    part->bytes += matrix_bytes(use, rows, cols);
  }
  bool product = tensor_is_matrix(id) || id == MT_ROUTER || id == MT_SH_GATE_INP;
  if (id != MT_EMBED) part->flops_per_token += product ? 2.0 * (double)rows * (double)cols : (double)cols;
  if (f && tensor_is_matrix(id)) *f = use;
}

static void add_all(const view *v, const model_tensor_id *ids, int n, int layer, model_part *part, fmt *f) {
  for (int i = 0; i < n; i++) add(v, ids[i], layer, part, f);
}
#define ADD(list, part, f) add_all(&v, list, (int)(sizeof list / sizeof *list), layer, part, f)

static view view_of(const model *m, fmt f) {
  return (view){m, f != FMT_DEFAULT && m->slots && f == default_of(m) ? FMT_DEFAULT : f};
}

hf_status model_layer_parts_of(const model *m, fmt f, int layer, model_layer_parts *out) {
  static const model_tensor_id attn[] = {MT_Q,     MT_K,   MT_V,   MT_Q_BIAS, MT_K_BIAS, MT_V_BIAS, MT_O_BIAS,
                                         MT_SINKS, MT_Q_A, MT_Q_B, MT_KV_A,   MT_K_B,    MT_V_B,    MT_O};
  static const model_tensor_id norms[] = {MT_ATTN_NORM, MT_FFN_NORM, MT_Q_NORM, MT_K_NORM, MT_Q_A_NORM, MT_KV_A_NORM};
  static const model_tensor_id dense[] = {MT_GATE, MT_UP, MT_DOWN};
  static const model_tensor_id router[] = {MT_ROUTER, MT_ROUTER_BIAS, MT_ROUTER_LIN_BIAS};
  static const model_tensor_id shared[] = {MT_SH_GATE, MT_SH_UP, MT_SH_DOWN, MT_SH_GATE_INP};
  static const model_tensor_id expert[] = {MT_EXP_GATE,      MT_EXP_UP,      MT_EXP_DOWN,
                                           MT_EXP_GATE_BIAS, MT_EXP_UP_BIAS, MT_EXP_DOWN_BIAS};
  const model_config *c = &m->c;
  if (layer < 0 || layer >= c->n_layers) return hf_fail(HF_NOT_FOUND, "%s: no layer %d of %d", m->path, layer, c->n_layers);
  *out = (model_layer_parts){0};
  view v = view_of(m, f);
  out->attn_fmt = out->ffn_fmt = out->shared_fmt = out->expert_fmt = v.format == FMT_DEFAULT ? default_of(m) : v.format;
  ADD(attn, &out->attn, &out->attn_fmt);
  ADD(norms, &out->norms, NULL);
  ADD(dense, &out->dense_ffn, &out->ffn_fmt);
  ADD(router, &out->router, NULL);
  ADD(shared, &out->shared, &out->shared_fmt);
  ADD(expert, &out->expert, &out->expert_fmt);
  double h = c->n_heads;
  out->flops_per_token_context = c->attn == ATTN_MLA ? 2 * h * (2.0 * c->kv_lora_rank + c->rope_dim) : 4 * h * c->head_dim;
  return HF_OK;
}

hf_status model_head_parts_of(const model *m, fmt f, model_head_parts *out) {
  *out = (model_head_parts){0};
  view v = view_of(m, f);
  add(&v, MT_EMBED, -1, &out->embed, NULL);
  add(&v, MT_OUT_NORM, -1, &out->output, NULL);
  int64_t norm_bytes = out->output.bytes;
  add(&v, MT_OUTPUT, -1, &out->output, NULL);
  if (m->c.tied_embeddings) out->output.bytes = norm_bytes; /* stored once, counted with the embedding */
  return HF_OK;
}

int64_t model_kv_bytes_per_token(const model_config *c, int layer, int elem_bytes) {
  (void)layer; /* sliding layers keep fewer tokens, not smaller ones */
  int64_t n = c->attn == ATTN_MLA ? c->kv_lora_rank + c->rope_dim : 2 * (int64_t)c->n_kv_heads * c->head_dim;
  return n * elem_bytes;
}

int64_t model_total_bytes(const model *m, fmt f) {
  model_head_parts head;
  if (model_head_parts_of(m, f, &head) != HF_OK) return 0;
  int64_t total = head.embed.bytes + head.output.bytes;
  for (int i = 0; i < m->c.n_layers; i++) {
    model_layer_parts p;
    if (model_layer_parts_of(m, f, i, &p) != HF_OK) return 0;
    total += p.attn.bytes + p.norms.bytes + p.dense_ffn.bytes + p.router.bytes + p.shared.bytes;
    if (m->c.layer_is_moe[i]) total += p.expert.bytes * m->c.n_experts;
  }
  return total;
}

int64_t model_total_params(const model_config *c) {
  int64_t total = 0, rows, cols;
  for (int layer = -1; layer < c->n_layers; layer++)
    for (int id = 0; id < MT_N; id++) {
      if (id == MT_OUTPUT && c->tied_embeddings) continue;
      if (tensor_shape(c, (model_tensor_id)id, layer, &rows, &cols))
        total += rows * cols * (tensor_is_expert((model_tensor_id)id) ? c->n_experts : 1);
    }
  return total;
}
