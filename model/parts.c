/* parts.c: bytes and FLOPs per part, for planning. Where the model has files (or synthetic tensors) and no other format is asked
 * for, bytes are those of its tensors; else they follow from config and recipe (recipe.h). */
#include <stdlib.h>
#include <strings.h>

#include "model/internal.h"
#include "model/recipe.h"

static int64_t matrix_bytes(fmt f, int64_t rows, int64_t cols) {
  int64_t bytes = rows * (int64_t)fmt_row_bytes(f, cols);
  if (f == FMT_FP8_E4M3) bytes += (rows + 127) / 128 * ((cols + 127) / 128) * 4;
  if (f == FMT_INT8) bytes += 4 * rows; /* a scale per channel */
  return bytes;
}

bool model_tensor_by_rows(const model_config *c, model_tensor_id id) {
  if (id == MT_EMBED) return !c->tied_embeddings;                           /* looked up by rows; tied, it is multiplied, too */
  int head = id == MT_K_B ? c->kv_lora_rank : id == MT_V_B ? c->v_dim : 16; /* heads are cut out of these two */
  return head % FMT_TILE_ROWS != 0;
}

int64_t model_loaded_bytes(const model_config *c, model_tensor_id id, fmt f, int64_t rows, int64_t cols, bool tiles) {
  if (rows == 1 || cols == 1) return rows * cols * (int64_t)sizeof(float);
  bool whole = tiles && fmt_has_tiles(f, cols) && !model_tensor_by_rows(c, id);
  if (whole) rows = (rows + FMT_TILE_ROWS - 1) / FMT_TILE_ROWS * FMT_TILE_ROWS;
  return rows * (int64_t)fmt_loaded_row_bytes(f, cols);
}

typedef struct {
  const model *m;
  bool stored; /* as in the file */
  model_recipe recipe;
  int64_t largest; /* weights of the largest matrix of the part seen so far: its format is the part's */
} view;

/* Adds one tensor (one expert's share of it) to a part; *f gets the format of the part's first largest matrix. */
static void add(view *v, model_tensor_id id, int layer, model_part *part, fmt *f) {
  int64_t rows, cols;
  if (!tensor_shape(&v->m->c, id, layer, &rows, &cols)) return;
  fmt use;
  if (v->stored) {
    const tensor_slot *s = model_slot(v->m, id, layer);
    use = s->format;
    part->bytes += (int64_t)s->bytes;
  } else {
    use = recipe_tensor_format(&v->recipe, id, layer, cols);
    part->bytes += matrix_bytes(use, rows, cols);
  }
  fmt loaded = use == FMT_FP8_E4M3 && id == MT_K_B ? FMT_BF16 /* transposed when it is read */ : use;
  part->loaded_bytes += (model_loaded_bytes(&v->m->c, id, loaded, rows, cols, true) + 63) / 64 * 64;
  bool product = tensor_is_matrix(id) || id == MT_ROUTER || id == MT_SH_GATE_INP;
  if (id != MT_EMBED) part->flops_per_token += product ? 2.0 * (double)rows * (double)cols : (double)cols;
  if (f == NULL || !tensor_is_matrix(id) || rows * cols <= v->largest) return;
  v->largest = rows * cols;
  *f = use;
}

static void add_all(view *v, const model_tensor_id *ids, int n, int layer, model_part *part, fmt *f) {
  v->largest = 0;
  for (int i = 0; i < n; i++) add(v, ids[i], layer, part, f);
}
#define ADD(list, part, f) add_all(v, list, (int)(sizeof list / sizeof *list), layer, part, f)

/* A model with files asked for in the format of its experts is meant as it is. */
static void view_of(const model *m, fmt f, view *v) {
  *v = (view){.m = m, .stored = m->slots != NULL && (f == FMT_DEFAULT || f == slots_expert_format(m))};
  if (v->stored) recipe_of(slots_expert_format(m), &m->c, &v->recipe);
  else if (f == FMT_DEFAULT && m->recipe != NULL) v->recipe = *m->recipe;
  else recipe_of(f == FMT_DEFAULT ? m->c.default_format : f, &m->c, &v->recipe);
}

static hf_status layer_parts(view *v, int layer, model_layer_parts *out) {
  static const model_tensor_id attn[] = {MT_Q,     MT_K,   MT_V,   MT_Q_BIAS, MT_K_BIAS, MT_V_BIAS, MT_O_BIAS,
                                         MT_SINKS, MT_Q_A, MT_Q_B, MT_KV_A,   MT_K_B,    MT_V_B,    MT_O};
  static const model_tensor_id norms[] = {MT_ATTN_NORM, MT_FFN_NORM, MT_Q_NORM, MT_K_NORM, MT_Q_A_NORM, MT_KV_A_NORM};
  static const model_tensor_id dense[] = {MT_GATE, MT_UP, MT_DOWN};
  static const model_tensor_id router[] = {MT_ROUTER, MT_ROUTER_BIAS, MT_ROUTER_LIN_BIAS};
  static const model_tensor_id shared[] = {MT_SH_GATE, MT_SH_UP, MT_SH_DOWN, MT_SH_GATE_INP};
  static const model_tensor_id expert[] = {MT_EXP_GATE,      MT_EXP_UP,      MT_EXP_DOWN,
                                           MT_EXP_GATE_BIAS, MT_EXP_UP_BIAS, MT_EXP_DOWN_BIAS};
  const model_config *c = &v->m->c;
  if (layer < 0 || layer >= c->n_layers) return hf_fail(HF_NOT_FOUND, "%s: no layer %d of %d", v->m->path, layer, c->n_layers);
  *out = (model_layer_parts){0};
  out->attn_fmt = out->ffn_fmt = out->shared_fmt = out->expert_fmt = v->recipe.part[PART_EXPERT_IN];
  ADD(attn, &out->attn, &out->attn_fmt);
  ADD(norms, &out->norms, NULL);
  ADD(dense, &out->dense_ffn, &out->ffn_fmt);
  ADD(router, &out->router, NULL);
  ADD(shared, &out->shared, &out->shared_fmt);
  ADD(expert, &out->expert, &out->expert_fmt);
  model_part down = {0};
  out->down_fmt = out->expert_fmt;
  v->largest = 0;
  add(v, MT_EXP_DOWN, layer, &down, &out->down_fmt);
  double h = c->n_heads;
  out->flops_per_token_context = c->attn == ATTN_MLA ? 2 * h * (2.0 * c->kv_lora_rank + c->rope_dim) : 4 * h * c->head_dim;
  return HF_OK;
}

static hf_status head_parts(view *v, model_head_parts *out) {
  *out = (model_head_parts){0};
  add(v, MT_EMBED, -1, &out->embed, NULL);
  add(v, MT_OUT_NORM, -1, &out->output, NULL);
  const model_part norm = out->output;
  add(v, MT_OUTPUT, -1, &out->output, NULL);
  if (v->m->c.tied_embeddings)
    out->output.bytes = norm.bytes, out->output.loaded_bytes = norm.loaded_bytes; /* counted with the embedding */
  return HF_OK;
}

hf_status model_layer_parts_of(const model *m, fmt f, int layer, model_layer_parts *out) {
  view v;
  view_of(m, f, &v);
  return layer_parts(&v, layer, out);
}

hf_status recipe_layer_parts_of(const model *m, const model_recipe *r, int layer, model_layer_parts *out) {
  view v = {.m = m, .recipe = *r};
  return layer_parts(&v, layer, out);
}

hf_status model_head_parts_of(const model *m, fmt f, model_head_parts *out) {
  view v;
  view_of(m, f, &v);
  return head_parts(&v, out);
}

hf_status recipe_head_parts_of(const model *m, const model_recipe *r, model_head_parts *out) {
  view v = {.m = m, .recipe = *r};
  return head_parts(&v, out);
}

const model_recipe *model_get_recipe(const model *m) {
  return m->recipe;
}

bool model_kv_type(const char *name, fmt *out) {
  static const fmt types[] = {FMT_F32, FMT_F16, FMT_BF16, FMT_Q8_0};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    if (strcasecmp(name, fmt_get(types[i])->name) != 0) continue;
    *out = types[i];
    return true;
  }
  return false;
}

int64_t model_kv_bytes_per_token(const model_config *c, int layer, fmt kv) {
  const fmt_info *f = fmt_get(kv);
  const int64_t each = c->attn == ATTN_MLA ? c->kv_lora_rank + c->rope_dim : c->head_dim;
  const int64_t blocks = (each + f->block - 1) / f->block * f->block_bytes;
  (void)layer; /* sliding layers keep fewer tokens, not smaller ones */
  return c->attn == ATTN_MLA ? blocks : 2 * c->n_kv_heads * blocks;
}

static int64_t total_bytes(view *v) {
  const model_config *c = &v->m->c;
  model_head_parts head;
  if (head_parts(v, &head) != HF_OK) return 0;
  int64_t total = head.embed.bytes + head.output.bytes;
  for (int i = 0; i < c->n_layers; i++) {
    model_layer_parts p;
    if (layer_parts(v, i, &p) != HF_OK) return 0;
    total += p.attn.bytes + p.norms.bytes + p.dense_ffn.bytes + p.router.bytes + p.shared.bytes;
    if (c->layer_is_moe[i]) total += p.expert.bytes * c->n_experts;
  }
  return total;
}

int64_t model_total_bytes(const model *m, fmt f) {
  view v;
  view_of(m, f, &v);
  return total_bytes(&v);
}

int64_t recipe_total_bytes(const model *m, const model_recipe *r) {
  view v = {.m = m, .recipe = *r};
  return total_bytes(&v);
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
