/* export.c: see export.h. */
#include "model/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/family.h"
#include "model/gguf_write.h"
#include "model/tokenizer_int.h"

#define ARENA_LIMIT ((size_t)256 << 20)

typedef struct {
  export_tensor t;
  model_tensor_id id;    /* of a canonical tensor read through its slot; MT_N: read from `raw` */
  const raw_tensor *raw; /* of a GGUF source */
} item;

struct model_export {
  const model *m;
  hf_arena *arena;
  item *v;
  int n, cap;
  hf_buf header;
  uint64_t bytes;
  bool has_tokenizer;
};

void model_export_free(model_export *e) {
  if (!e) return;
  hf_arena_free(e->arena);
  free(e->v);
  hf_buf_free(&e->header);
  free(e);
}

int model_export_count(const model_export *e) {
  return e->n;
}
const export_tensor *model_export_at(const model_export *e, int i) {
  return &e->v[i].t;
}
bool model_export_has_tokenizer(const model_export *e) {
  return e->has_tokenizer;
}
const hf_buf *model_export_header(const model_export *e) {
  return &e->header;
}
uint64_t model_export_bytes(const model_export *e) {
  return e->bytes;
}

static hf_status push(model_export *e, const item *it) {
  if (e->n == e->cap) {
    int cap = e->cap ? 2 * e->cap : 256;
    HF_TRY(hf_realloc(&e->v, (size_t)cap, sizeof *e->v, "list of tensors"));
    e->cap = cap;
  }
  e->v[e->n] = *it;
  export_tensor *t = &e->v[e->n++].t;
  if (fmt_get(t->to)->ggml_type < 0)
    return hf_fail(HF_UNSUPPORTED, "%s: tensor %s: GGUF has no type for %s", e->m->path, t->name, fmt_get(t->to)->name);
  t->offset = e->bytes;
  t->bytes = (uint64_t)t->n_mats * (uint64_t)t->rows * fmt_row_bytes(t->to, t->cols);
  e->bytes = (t->offset + t->bytes + GGUF_ALIGN - 1) / GGUF_ALIGN * GGUF_ALIGN;
  return HF_OK;
}

/* ---- from a Hugging Face folder: canonical tensors ---- */

static hf_status add_slot(model_export *e, const model_recipe *r, model_tensor_id id, int layer, gguf_head *infos) {
  const model *m = e->m;
  const tensor_slot *s = model_slot(m, id, layer);
  char name[128], *own = NULL;
  if (s->how == READ_REFUSED)
    return hf_fail(HF_UNSUPPORTED, "%s: layer %d tensor %s: %s", m->path, layer, tensor_name(id), s->why);
  gguf_name_of(&m->c, id, layer, name);
  HF_TRY(hf_arena_str(e->arena, &own, name, strlen(name)));
  recipe_part part = recipe_part_of(id);
  fmt from = s->how == READ_FP8 ? FMT_F32 : s->format;
  bool permuted = family_get(m->c.family)->gguf_permuted && (id == MT_Q || id == MT_K);
  item it = {.t = {.name = own,
                   .layer = layer,
                   .part = part,
                   .n_mats = tensor_is_expert(id) ? m->c.n_experts : 1,
                   .rows = s->rows,
                   .cols = s->cols,
                   .stored = s->stored,
                   .from = from,
                   .to = part == PART_N ? FMT_F32 : recipe_tensor_format(r, id, layer, s->cols),
                   .whole = s->how != READ_DIRECT && (s->how != READ_FP8 || id == MT_K_B || id == MT_V_B),
                   .row_group = permuted ? m->c.head_dim : 1},
             .id = id};
  HF_TRY(push(e, &it));
  int64_t dims[3];
  int n = gguf_dims_of(&m->c, id, s->rows, s->cols, dims);
  gguf_put_tensor(infos, own, n, dims, it.t.to, e->v[e->n - 1].t.offset);
  return HF_OK;
}

static hf_status put_tokenizer(model_export *e, bool wanted, gguf_head *kv) {
  tokenizer *t = NULL;
  hf_status st = wanted ? tokenizer_open(e->m->path, &t) : HF_NOT_FOUND;
  if (st == HF_NOT_FOUND) { /* llama.cpp's name for a file without one */
    hf_clear_error();
    gguf_put_str(kv, "tokenizer.ggml.model", "none");
    return HF_OK;
  }
  if (st == HF_OK) st = tok_put_gguf(t, &e->m->c, kv);
  tokenizer_close(t);
  e->has_tokenizer = st == HF_OK;
  return hf_note(st, "tokenizer (--no-tokenizer leaves it out)");
}

static hf_status from_folder(model_export *e, const model_recipe *r, bool with_tokenizer, gguf_head *kv, gguf_head *infos) {
  const model *m = e->m;
  char where[4096];
  json *config = NULL;
  rope_spec rope;
  if ((size_t)snprintf(where, sizeof where, "%s/config.json", m->path) >= sizeof where)
    return hf_fail(HF_INPUT, "%.200s...: path too long", m->path);
  HF_TRY(json_read_file(where, (size_t)4 << 20, &config));
  hf_status st = cfg_rope(config, where, m->c.rope.theta, &rope);
  json_free(config);
  if (st != HF_OK) return st;
  gguf_put_config(kv, &m->c, &rope, r->base);
  HF_TRY(put_tokenizer(e, with_tokenizer, kv));
  for (int layer = -1; layer < m->c.n_layers; layer++)
    for (int id = 0; id < MT_N; id++) {
      const tensor_slot *s = model_slot(m, (model_tensor_id)id, layer);
      if (!s->present || (id == MT_OUTPUT && m->c.tied_embeddings)) continue;
      HF_TRY(add_slot(e, r, (model_tensor_id)id, layer, infos));
    }
  return HF_OK;
}

/* ---- from GGUF: tensors as they stand in the file ---- */

/* The canonical tensor that a name means; MT_N: none. */
static model_tensor_id id_of(const char *name, int *layer) {
  int used = 0;
  *layer = -1;
  if (sscanf(name, "blk.%d.%n", layer, &used) == 1 && used > 0) name += used;
  for (int id = 0; id < MT_N; id++)
    if (!strcmp(gguf_tensor_name((model_tensor_id)id), name)) return (model_tensor_id)id;
  return strcmp(name, "attn_kv_b.weight") ? MT_N : MT_K_B; /* before the absorbed form: k_b and v_b in one */
}

static hf_status add_raw(model_export *e, const model_recipe *r, const raw_tensor *raw, gguf_head *infos) {
  int layer;
  model_tensor_id id = id_of(raw->name, &layer);
  recipe_part part = layer < e->m->c.n_layers && raw->format != FMT_OTHER ? recipe_part_of(id) : PART_N;
  int64_t cols = raw->dims[raw->n_dims - 1], rows = 1;
  int n_mats = tensor_is_expert(id) && raw->n_dims == 3 ? (int)raw->dims[0] : 1;
  for (int i = 0; i + 1 < raw->n_dims; i++) rows *= raw->dims[i];
  item it = {.t = {.name = raw->name,
                   .layer = layer,
                   .part = part,
                   .n_mats = n_mats,
                   .rows = rows / n_mats,
                   .cols = cols,
                   .stored = raw->format,
                   .from = raw->format,
                   .to = part == PART_N ? raw->format : recipe_tensor_format(r, id, layer, cols),
                   .row_group = 1},
             .id = MT_N,
             .raw = raw};
  if (raw->format == FMT_OTHER)
    return hf_fail(HF_UNSUPPORTED, "%s: tensor %s: type %s holds no weights", e->m->path, raw->name, raw->dtype);
  HF_TRY(push(e, &it));
  int64_t dims[RAW_MAX_DIMS];
  for (int i = 0; i < raw->n_dims; i++) dims[i] = raw->dims[raw->n_dims - 1 - i];
  gguf_put_tensor(infos, raw->name, raw->n_dims, dims, it.t.to, e->v[e->n - 1].t.offset);
  return HF_OK;
}

/* Metadata stays, but for what says how the file is stored. */
static void copy_metadata(const gguf_file *g, fmt base, gguf_head *kv) {
  static const char *const dropped[] = {"general.file_type", "general.alignment", "general.quantization_version",
                                        "split.no",          "split.count",       "split.tensors.count"};
  gguf_put_int(kv, "general.file_type", gguf_file_type(base));
  gguf_put_int(kv, "general.quantization_version", 2);
  for (uint64_t i = 0; i < g->n_kv; i++) {
    const gguf_kv *k = &g->kv[i];
    bool drop = false;
    for (size_t j = 0; j < sizeof dropped / sizeof *dropped; j++) drop = drop || !strcmp(k->key, dropped[j]);
    if (drop) continue;
    gguf_put_key_as_it_is(kv, k->key, k->type);
    if (k->type == GGUF_ARRAY) {
      gguf_put_u32(kv, k->elem);
      gguf_put_u64(kv, k->count);
    }
    gguf_put_raw(kv, k->value, (size_t)k->bytes);
  }
}

static hf_status from_gguf(model_export *e, const model_recipe *r, gguf_head *kv, gguf_head *infos) {
  const tensor_set *s = &e->m->set;
  tensor_set again;
  gguf_file g;
  HF_TRY(tset_init(&again));
  hf_status st = gguf_open(&again, s->files[0].path, &g);
  if (st == HF_OK) {
    const gguf_kv *kind = gguf_find(&g, "tokenizer.ggml.model");
    e->has_tokenizer = kind != NULL && gguf_find(&g, "tokenizer.ggml.tokens") != NULL;
    copy_metadata(&g, r->base, kv);
    st = kv->st;
  }
  tset_free(&again);
  for (size_t i = 0; i < s->n && st == HF_OK; i++) st = add_raw(e, r, &s->v[i], infos);
  return st;
}

/* ---- the plan ---- */

hf_status model_export_plan(const model *m, const model_recipe *r, bool with_tokenizer, model_export **out) {
  if (m->source != SRC_FILE)
    return hf_fail(HF_INPUT, "%s: %s", m->path,
                   m->source == SRC_SYNTH ? "is made from a seed; write it with generate" : "no weights");
  const char *arch = family_get(m->c.family)->gguf_arch;
  if (!arch) return hf_fail(HF_UNSUPPORTED, "%s: no GGUF of family %s is known", m->path, model_family_name(m->c.family));
  bool gguf = !m->hf;
  model_export *e = NULL;
  HF_TRY(hf_alloc(&e, 1, sizeof *e, "export"));
  e->m = m;
  gguf_head kv, infos;
  gguf_head_init(&kv, arch);
  gguf_head_init(&infos, arch);
  hf_status st = hf_arena_new(&e->arena, ARENA_LIMIT, "names of tensors");
  if (st == HF_OK) st = gguf ? from_gguf(e, r, &kv, &infos) : from_folder(e, r, with_tokenizer, &kv, &infos);
  if (st != HF_OK) kv.st = st;
  st = gguf_header(&kv, &infos, &e->header);
  static const char zeros[GGUF_ALIGN];
  size_t pad = (GGUF_ALIGN - e->header.len % GGUF_ALIGN) % GGUF_ALIGN;
  if (st == HF_OK) st = hf_buf_add(&e->header, zeros, pad);
  for (int i = 0; i < e->n; i++) e->v[i].t.offset += e->header.len;
  e->bytes += e->header.len;
  if (st != HF_OK) {
    model_export_free(e);
    return st;
  }
  *out = e;
  return HF_OK;
}

hf_status model_export_read(const model_export *e, int i, int mat, int64_t row0, int64_t row1, void *dst) {
  const item *it = &e->v[i];
  const export_tensor *t = &it->t;
  const model *m = e->m;
  size_t row = fmt_row_bytes(t->from, t->cols), n = (size_t)(row1 - row0) * row;
  if (it->raw) return model_read_at(m, it->raw->file, it->raw->offset + (uint64_t)(mat * t->rows + row0) * row, dst, n);
  int expert = tensor_is_expert(it->id) ? mat : -1;
  const tensor_slot *s = model_slot(m, it->id, t->layer);
  if (t->whole && s->how == READ_FP8) return model_tensor_read_f32(m, it->id, t->layer, expert, dst, t->rows * t->cols);
  if (t->whole) return model_tensor_read(m, it->id, t->layer, expert, dst, n);
  if (s->how == READ_FP8) return fp8_read_rows(m, s, it->id, t->layer, expert, row0, row1, dst);
  int file;
  uint64_t offset;
  slot_place(s, expert, &file, &offset);
  return model_read_at(m, file, offset + (uint64_t)row0 * row, dst, n);
}

/* llama.cpp rotates adjacent pairs: row j * half + i of a head becomes row 2i + j. */
int64_t model_export_place(const model_export *e, int i, int64_t r) {
  int64_t g = e->v[i].t.row_group, in = r % g;
  return g == 1 ? r : r - in + in % (g / 2) * 2 + in / (g / 2);
}

hf_status model_export_check(const model_export *e, const char *path) {
  return gguf_says(path, &e->m->c, e->m->path);
}
