/* shapes.c: which shapes are worth measuring. The planner scales to others by bytes, so a small, a middle and a large one are
 * kept. */
#include <string.h>

#include "model/model.h"
#include "profiler/profile.h"

static const prof_shapes common = {
    .matmul = {{128, 128, true, false, -1},
               {4096, 128, true, false, -1},
               {2048, 2048, false, false, -1},
               {7168, 2048, false, true, -1}},
    .n_matmul = 4,
    .expert = {{64, 128, true, false, -1},
               {256, 128, true, false, -1},
               {768, 2048, false, false, -1},
               {2048, 7168, false, true, KF_Q8_0},
               {2048, 7168, false, true, KF_BF16}},
    .n_expert = 5,
    .attn = {{16, 512, 64, true, 128, 128, KF_Q8_0}, {4, 64, 16, true, 32, 32, KF_Q8_0}, {32, 128, 4, false, 0, 0, 0}},
    .n_attn = 3,
    .norm = {128, 2048, 7168},
    .n_norm = 3,
};

static bool kern_of(fmt f, int *out) {
  kern_format k;
  if (f < 0 || f >= FMT_N || !kern_format_parse(fmt_get(f)->name, &k)) return false;
  *out = (int)k;
  return true;
}

static int add_shape(prof_shape list[PROF_MAX_SHAPES], int n, prof_shape s) {
  for (int i = 0; i < n; i++) {
    if (list[i].rows == s.rows && list[i].cols == s.cols && list[i].only_format == s.only_format) return n;
  }
  if (n >= PROF_MAX_SHAPES || s.rows <= 0 || s.cols <= 0) return n;
  list[n] = s;
  return n + 1;
}

/* A model whose weights stay in the last-level cache is measured from there. */
static bool stays_in_cache(const model *m) {
  enum { SMALL_MODEL = 24 << 20 };
  return model_total_bytes(m, FMT_DEFAULT) < SMALL_MODEL;
}

static void add_matmul(prof_shapes *out, int rows, int cols, bool small, int format) {
  out->n_matmul = add_shape(out->matmul, out->n_matmul, (prof_shape){rows, cols, small, false, format});
}

/* The projections of an attention layer; what a model does not have is 0 and left out by add_shape. */
static void add_attention(prof_shapes *out, const model_config *c, bool small, int format) {
  add_matmul(out, c->d_model, c->d_model, small, format); /* as rates of other machines are held */
  if (c->attn == ATTN_MLA) {
    int head = c->nope_dim + c->rope_dim;
    add_matmul(out, c->q_lora_rank, c->d_model, small, format);
    add_matmul(out, c->n_heads * head, c->q_lora_rank > 0 ? c->q_lora_rank : c->d_model, small, format);
    add_matmul(out, c->kv_lora_rank + c->rope_dim, c->d_model, small, format);
    add_matmul(out, c->d_model, c->n_heads * c->v_dim, small, format);
    out->attn[out->n_attn++] = (prof_attn){c->n_heads, c->kv_lora_rank, c->rope_dim, true, c->nope_dim, c->v_dim, format};
    return;
  }
  add_matmul(out, c->n_heads * c->head_dim, c->d_model, small, format);
  add_matmul(out, c->n_kv_heads * c->head_dim, c->d_model, small, format);
  add_matmul(out, c->d_model, c->n_heads * c->head_dim, small, format);
  out->attn[out->n_attn++] = (prof_attn){c->n_heads, c->head_dim, c->n_kv_heads, false, 0, 0, 0};
}

static hf_status from_model(const model *m, const char *path, prof_shapes *out) {
  const model_config *c = model_get_config(m);
  int dense = 0, moe = 0;
  while (moe < c->n_layers - 1 && !c->layer_is_moe[moe]) moe++;
  model_layer_parts first, parts;
  HF_TRY(model_layer_parts_of(m, FMT_DEFAULT, dense, &first));
  HF_TRY(model_layer_parts_of(m, FMT_DEFAULT, moe, &parts));
  int expert_fmt, attn_fmt;
  if (!kern_of(parts.expert_fmt, &expert_fmt)) {
    return hf_fail(HF_UNSUPPORTED, "%s: weights in %s cannot be computed with yet", path, fmt_get(parts.expert_fmt)->name);
  }
  if (!kern_of(parts.attn_fmt, &attn_fmt)) attn_fmt = expert_fmt;
  bool small = stays_in_cache(m);
  *out = (prof_shapes){0};
  out->n_expert = add_shape(out->expert, out->n_expert, (prof_shape){c->d_ff_expert, c->d_model, small, false, expert_fmt});
  out->n_expert = add_shape(out->expert, out->n_expert, (prof_shape){c->d_ff_shared, c->d_model, small, false, expert_fmt});
  out->n_expert = add_shape(out->expert, out->n_expert, (prof_shape){c->d_ff_dense, c->d_model, small, false, expert_fmt});
  add_attention(out, c, small, attn_fmt);
  add_matmul(out, c->vocab_size, c->d_model, small, attn_fmt);
  out->norm[out->n_norm++] = c->d_model;
  return HF_OK;
}

hf_status prof_shapes_for(const char *model_or_null, prof_shapes *out) {
  *out = common;
  if (!model_or_null) return HF_OK;
  model *m = NULL;
  HF_TRY(model_open(model_or_null, &m));
  hf_status st = from_model(m, model_or_null, out);
  model_close(m);
  return st;
}
