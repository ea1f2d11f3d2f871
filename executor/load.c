/* load.c: from the model's tensors to where the plan wants them, and the table that says beforehand whether all of it fits. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "executor/engine_int.h"

void own_release(engine *e, const owned *o) {
  if (o->device >= 0) dev_release(e->device[o->device].d, o->addr, o->bytes);
  else mem_free((void *)(uintptr_t)o->addr, o->bytes, o->node);
}

static hf_status add_owned(engine *e, const owned *o) {
  if (e->n_own == e->cap_own) {
    int cap = e->cap_own ? 2 * e->cap_own : 256;
    hf_status st = hf_realloc(&e->own, (size_t)cap, sizeof *e->own, "list of allocations");
    if (st != HF_OK) {
      own_release(e, o);
      return st;
    }
    e->cap_own = cap;
  }
  e->own[e->n_own++] = *o;
  return HF_OK;
}

hf_status own_reserve(engine *e, int n) {
  if (e->n_own + n <= e->cap_own) return HF_OK;
  HF_TRY(hf_realloc(&e->own, (size_t)(e->n_own + n), sizeof *e->own, "list of allocations"));
  e->cap_own = e->n_own + n;
  return HF_OK;
}

hf_status own_add_at(engine *e, int device, dev_addr addr, size_t bytes) {
  return add_owned(e, &(owned){addr, bytes, device, -1});
}

hf_status own_add_on(engine *e, void *p, size_t bytes, int node) {
  return add_owned(e, &(owned){(dev_addr)(uintptr_t)p, bytes, -1, node});
}

static hf_status kernel_format(fmt f, kern_format *out) {
  const fmt_info *i = fmt_get(f);
  if (kern_format_parse(i->name, out)) return HF_OK;
  return hf_fail(HF_UNSUPPORTED, "weights in %s cannot be executed yet; take the model in a format that README.md names",
                 i->name);
}

hf_status loaded_tensor(const model *m, const engine_options *o, model_tensor_id id, int layer, int expert,
                        model_tensor_info *info, bool *convert) {
  kern_format f;
  HF_TRY(model_tensor(m, id, layer, expert, info));
  const bool fp8 = model_get_config(m)->default_format == FMT_FP8_E4M3;
  const bool rounded = fp8 && id == MT_K_B && info->derived; /* model.h: to BF16 */
  *convert = o->dequantise ? info->format == FMT_FP8_E4M3 || rounded || !kern_format_parse(fmt_get(info->format)->name, &f)
                           : rounded && o->exact;
  if (!*convert) return kernel_format(info->format, &f);
  info->format = o->dequantise ? o->dequantised_to : FMT_F32;
  info->bytes = (size_t)info->rows * fmt_row_bytes(info->format, info->cols);
  info->derived = true;
  return HF_OK;
}

hf_status loaded_bytes(const model *m, const engine_options *o, model_tensor_id id, int layer, int expert, int64_t *bytes,
                       int64_t *scratch) {
  model_tensor_info i;
  bool convert;
  kern_format f;
  HF_TRY(loaded_tensor(m, o, id, layer, expert, &i, &convert));
  HF_TRY(kernel_format(i.format, &f));
  kern_layout l =
      model_tensor_by_rows(model_get_config(m), id) ? KL_ROWS : kern_best_layout(f, kern_act_of(f, o->exact), (int)i.cols);
  *bytes = model_loaded_bytes(model_get_config(m), id, i.format, i.rows, i.cols, l == KL_TILE16);
  *scratch = (convert ? 8 * i.rows * i.cols : 0) + (i.derived && l != KL_ROWS ? (int64_t)i.bytes : 0);
  return HF_OK;
}

hf_status load_describe(const engine *e, model_tensor_id id, int layer, int expert, load_source *s) {
  HF_TRY(loaded_tensor(e->m, &e->o, id, layer, expert, &s->info, &s->convert));
  s->mat = (kern_mat){.layout = KL_ROWS,
                      .n_rows = (int)s->info.rows,
                      .n_cols = (int)s->info.cols,
                      .row_bytes = fmt_loaded_row_bytes(s->info.format, s->info.cols)};
  HF_TRY(kernel_format(s->info.format, &s->mat.format));
  if (!model_tensor_by_rows(&e->c, id))
    s->mat.layout = kern_best_layout(s->mat.format, kern_act_of(s->mat.format, e->o.exact), s->mat.n_cols);
  if (s->mat.layout != KL_ROWS || s->convert) return HF_OK;
  return model_tensor_map(e->m, id, layer, expert, &s->mat.data);
}

static size_t mat_bytes(const kern_mat *m) {
  return kern_mat_bytes(m->layout, m->format, m->n_rows, m->n_cols);
}

/* The tensor's bytes as they are loaded. */
static hf_status read_tensor(const engine *e, model_tensor_id id, int layer, int expert, const model_tensor_info *info,
                             bool convert, void *dst) {
  if (!convert) return model_tensor_read(e->m, id, layer, expert, dst, info->bytes);
  int64_t n = info->rows * info->cols;
  if (info->format == FMT_F32) return model_tensor_read_f32(e->m, id, layer, expert, dst, n);
  float *wide;
  kern_format f;
  HF_TRY(kernel_format(info->format, &f));
  HF_TRY(hf_alloc(&wide, (size_t)n, sizeof *wide, "a tensor"));
  hf_status st = model_tensor_read_f32(e->m, id, layer, expert, wide, n);
  size_t row = fmt_row_bytes(info->format, info->cols);
  for (int64_t r = 0; r < info->rows && st == HF_OK; r++)
    kern_quant_row(f, wide + r * info->cols, (int)info->cols, (char *)dst + (size_t)r * row);
  free(wide);
  return st;
}

/* Fills memory of mat_bytes() with the tensor in the layout of s->mat: noted only, until repack_run. */
static hf_status fill(engine *e, model_tensor_id id, int layer, int expert, const load_source *s, void *to) {
  kern_mat rows = s->mat;
  rows.layout = KL_ROWS;
  if (s->mat.layout != KL_ROWS) HF_TRY(model_tensor_map(e->m, id, layer, expert, &rows.data));
  if (rows.data) return repack_add(&e->repack, &rows, KL_TILE16, -1, to);
  return repack_add_read(&e->repack, &s->mat, id, layer, expert, to);
}

/* What has no mapping: a worker's part of fill. */
static hf_status read_one(void *user, const repack_task *t) {
  const engine *e = user;
  model_tensor_info info;
  bool convert;
  model_tensor_id id = (model_tensor_id)t->id;
  HF_TRY(loaded_tensor(e->m, &e->o, id, t->layer, t->expert, &info, &convert));
  if (t->rows.layout == KL_ROWS && t->to) return read_tensor(e, id, t->layer, t->expert, &info, convert, t->to);
  void *tmp;
  HF_TRY(hf_alloc(&tmp, 1, info.bytes, "a tensor"));
  hf_status st = read_tensor(e, id, t->layer, t->expert, &info, convert, tmp);
  kern_mat rows = t->rows;
  rows.layout = KL_ROWS;
  rows.data = tmp;
  if (st == HF_OK && !t->to) load_cut_read(e, id, t->layer, t->expert, &rows);
  else if (st == HF_OK) kern_tile_pack(&rows, 0, rows.n_rows, t->to);
  free(tmp);
  return st;
}

/* A matrix on a device: wrapped where the device can use the mapping, else copied into its memory. */
static hf_status device_mat(engine *e, int k, model_tensor_id id, int layer, int expert, dev_mat *out) {
  load_source s;
  dev *d = e->device[k].d;
  HF_TRY(load_describe(e, id, layer, expert, &s));
  const kern_mat *m = &s.mat;
  const void *map = m->data;
  size_t bytes = mat_bytes(m);
  *out = (dev_mat){.format = m->format, .layout = m->layout, .n_rows = m->n_rows, .n_cols = m->n_cols, .row_bytes = m->row_bytes};
  if (map && (out->data = dev_wrap(d, map))) return HF_OK;
  HF_TRY(dev_alloc(d, bytes, "weights", &out->data));
  HF_TRY(own_add_at(e, k, out->data, bytes));
  if (dev_is_host(d)) pool_spread_rows(e->p, (void *)(uintptr_t)out->data, bytes, 0, m->n_rows, m->row_bytes);
  if (map) {
    HF_TRY(dev_upload(d, out->data, map, bytes));
    return e->pause ? e->pause(e, bytes) : HF_OK;
  }
  void *tmp;
  HF_TRY(mem_alloc(bytes, -1, "a tensor", &tmp));
  hf_status st = fill(e, id, layer, expert, &s, tmp);
  if (st == HF_OK) st = repack_run(&e->repack, e->p, read_one, e);
  if (st == HF_OK) st = dev_upload(d, out->data, tmp, bytes);
  mem_free(tmp, bytes, -1);
  return st == HF_OK && e->pause ? e->pause(e, bytes) : st;
}

/* A vector (norm, bias) as f32 on a device. */
static hf_status device_vec(engine *e, int k, model_tensor_id id, int layer, dev_addr *out) {
  model_tensor_info info;
  dev *d = e->device[k].d;
  HF_TRY(model_tensor(e->m, id, layer, -1, &info));
  int64_t n = info.rows * info.cols;
  float *tmp;
  HF_TRY(hf_alloc(&tmp, (size_t)n, sizeof *tmp, "a vector"));
  hf_status st = HF_OK;
  for (int64_t r = 0; r < info.rows && st == HF_OK; r++) st = model_row_f32(e->m, id, layer, r, tmp + r * info.cols, info.cols);
  if (st == HF_OK) st = dev_alloc(d, (size_t)n * 4, "norms and biases", out);
  if (st == HF_OK) st = own_add_at(e, k, *out, (size_t)n * 4);
  if (st == HF_OK) st = dev_upload(d, *out, tmp, (size_t)n * 4);
  free(tmp);
  return st;
}

static hf_status opt_vec(engine *e, model_tensor_id id, int layer, dev_addr *out) {
  return model_has_tensor(e->m, id, layer) ? device_vec(e, e->home[layer], id, layer, out) : HF_OK;
}

static hf_status opt_mat(engine *e, model_tensor_id id, int layer, dev_mat *out) {
  if (!model_has_tensor(e->m, id, layer)) return HF_OK;
  return device_mat(e, e->home[layer], id, layer, -1, out);
}

typedef struct {
  model_tensor_id id;
  dev_addr *vec; /* one of both */
  dev_mat *mat;
} layer_tensor;

static int tensors_of(layer_weights *w, layer_tensor list[LAYER_TENSORS]) {
  const layer_tensor all[] = {{MT_ATTN_NORM, &w->attn_norm, NULL},
                              {MT_FFN_NORM, &w->ffn_norm, NULL},
                              {MT_Q_A_NORM, &w->q_a_norm, NULL},
                              {MT_KV_A_NORM, &w->kv_a_norm, NULL},
                              {MT_Q_NORM, &w->q_norm, NULL},
                              {MT_K_NORM, &w->k_norm, NULL},
                              {MT_Q_BIAS, &w->q_bias, NULL},
                              {MT_K_BIAS, &w->k_bias, NULL},
                              {MT_V_BIAS, &w->v_bias, NULL},
                              {MT_O_BIAS, &w->o_bias, NULL},
                              {MT_SINKS, &w->sinks, NULL},
                              {MT_ROUTER_BIAS, &w->router_bias, NULL},
                              {MT_ROUTER_LIN_BIAS, &w->router_lin_bias, NULL},
                              {MT_SH_GATE_INP, &w->sh_gate_inp.data, NULL},
                              {MT_Q, NULL, &w->q},
                              {MT_K, NULL, &w->k},
                              {MT_V, NULL, &w->v},
                              {MT_O, NULL, &w->o},
                              {MT_Q_A, NULL, &w->q_a},
                              {MT_Q_B, NULL, &w->q_b},
                              {MT_KV_A, NULL, &w->kv_a},
                              {MT_K_B, NULL, &w->k_b},
                              {MT_V_B, NULL, &w->v_b},
                              {MT_ROUTER, NULL, &w->router},
                              {MT_GATE, NULL, &w->gate},
                              {MT_UP, NULL, &w->up},
                              {MT_DOWN, NULL, &w->down},
                              {MT_SH_GATE, NULL, &w->sh_gate},
                              {MT_SH_UP, NULL, &w->sh_up},
                              {MT_SH_DOWN, NULL, &w->sh_down}};
  _Static_assert(sizeof all / sizeof *all <= LAYER_TENSORS, "room for them");
  memcpy(list, all, sizeof all);
  return (int)(sizeof all / sizeof *all);
}

int layer_tensors(layer_weights *w, dev_addr *at[LAYER_TENSORS]) {
  layer_tensor list[LAYER_TENSORS];
  const int n = tensors_of(w, list);
  for (int i = 0; i < n; i++) at[i] = list[i].vec ? list[i].vec : &list[i].mat->data;
  return n;
}

/* One that is there already, as after the loss of another device than its home, stays. */
static hf_status load_dense_part(engine *e, int l) {
  layer_weights *w = &e->layer[l];
  layer_tensor list[LAYER_TENSORS];
  const int n = tensors_of(w, list);
  if (w->attn_norm) return HF_OK;
  for (int i = 0; i < n; i++)
    HF_TRY(list[i].vec ? opt_vec(e, list[i].id, l, list[i].vec) : opt_mat(e, list[i].id, l, list[i].mat));
  w->sh_gate_inp = (dev_mat){.format = KF_F32,
                             .layout = KL_ROWS,
                             .n_rows = 1,
                             .n_cols = e->c.d_model,
                             .row_bytes = (size_t)e->c.d_model * sizeof(float),
                             .data = w->sh_gate_inp.data};
  return HF_OK;
}

/* One matrix of an expert in host memory: the mapping itself where it can be used as it is, else *at on, which moves. at NULL: only counts the
 * bytes that it will need there. */
static hf_status host_mat(engine *e, model_tensor_id id, int layer, int expert, char **at, size_t *need, kern_mat *out) {
  load_source s;
  HF_TRY(load_describe(e, id, layer, expert, &s));
  *out = s.mat;
  if (out->data) return HF_OK;
  size_t bytes = (mat_bytes(out) + 63) & ~(size_t)63;
  *need += bytes;
  if (!at) return HF_OK;
  out->data = *at;
  HF_TRY(fill(e, id, layer, expert, &s, *at));
  *at += bytes;
  return HF_OK;
}

static hf_status host_expert(engine *e, int l, int x, char **at, size_t *need, moe_expert *h) {
  HF_TRY(host_mat(e, MT_EXP_GATE, l, x, at, need, &h->gate));
  HF_TRY(host_mat(e, MT_EXP_UP, l, x, at, need, &h->up));
  return host_mat(e, MT_EXP_DOWN, l, x, at, need, &h->down);
}

/* moe.h packs a token once for all experts of a layer, so gate and up must agree on the format. */
hf_status load_check_expert(engine *e, kern_format gate, kern_format up, int gate_cols, int down_cols, int l) {
  int *format = &e->layer[l].expert_format;
  if (!*format) *format = (int)gate + 1;
  if (gate != up || (int)gate + 1 != *format)
    return hf_fail(HF_UNSUPPORTED, "layer %d: gate and up of its experts in different formats (%s and %s) cannot be executed", l,
                   kern_format_name(gate == up ? (kern_format)(*format - 1) : up), kern_format_name(gate));
  if (gate_cols != e->c.d_model || down_cols != e->c.d_ff_expert)
    return hf_fail(HF_INPUT, "layer %d: an expert of %d x %d, the config says %d x %d", l, down_cols, gate_cols, e->c.d_ff_expert,
                   e->c.d_model);
  return HF_OK;
}

/* The three biases of an expert as f32, one behind the other: [d_ff], [d_ff], [d_model]. */
static hf_status read_biases(engine *e, int l, int x, float *out) {
  for (int id = MT_EXP_GATE_BIAS; id <= MT_EXP_DOWN_BIAS; id++) {
    model_tensor_info info;
    kern_format f;
    void *raw;
    HF_TRY(model_tensor(e->m, (model_tensor_id)id, l, x, &info));
    HF_TRY(kernel_format(info.format, &f));
    HF_TRY(hf_alloc(&raw, 1, info.bytes, "a bias"));
    hf_status st = model_tensor_read(e->m, (model_tensor_id)id, l, x, raw, info.bytes);
    if (st == HF_OK) kern_dequant_row(f, raw, (int)info.cols, out);
    free(raw);
    if (st != HF_OK) return st;
    out += info.cols;
  }
  return HF_OK;
}

/* In one block, on device k or (-1) in host memory; *gate NULL or 0 on return when this family has none. */
static hf_status expert_biases(engine *e, int l, int x, int k, dev_addr *gate, dev_addr *up, dev_addr *down) {
  size_t d_ff = (size_t)e->c.d_ff_expert, n = 2 * d_ff + (size_t)e->c.d_model, bytes = n * sizeof(float);
  if (!model_has_tensor(e->m, MT_EXP_GATE_BIAS, l)) return HF_OK;
  const bool on_device = k >= 0;
  void *p;
  HF_TRY(mem_alloc(bytes, -1, "biases of an expert", &p));
  hf_status st = read_biases(e, l, x, p);
  dev_addr at = (dev_addr)(uintptr_t)p;
  if (st == HF_OK && on_device) st = dev_alloc(e->device[k].d, bytes, "biases of an expert", &at);
  if (st == HF_OK) st = own_add_at(e, k, at, bytes);
  else if (!on_device) mem_free(p, bytes, -1);
  if (on_device) {
    if (st == HF_OK) st = dev_upload(e->device[k].d, at, p, bytes);
    mem_free(p, bytes, -1);
  }
  *gate = at;
  *up = at + d_ff * sizeof(float);
  *down = *up + d_ff * sizeof(float);
  return st;
}

static hf_status device_expert(engine *e, int k, int l, int x, dev_expert *d) {
  HF_TRY(device_mat(e, k, MT_EXP_GATE, l, x, &d->gate));
  HF_TRY(device_mat(e, k, MT_EXP_UP, l, x, &d->up));
  HF_TRY(device_mat(e, k, MT_EXP_DOWN, l, x, &d->down));
  HF_TRY(expert_biases(e, l, x, k, &d->gate_bias, &d->up_bias, &d->down_bias));
  return load_check_expert(e, d->gate.format, d->up.format, d->gate.n_cols, d->down.n_cols, l);
}

hf_status load_host_biases(engine *e, int l, int x, moe_expert *h) {
  dev_addr gate = 0, up = 0, down = 0;
  HF_TRY(expert_biases(e, l, x, -1, &gate, &up, &down));
  h->gate_bias = (const float *)(uintptr_t)gate;
  h->up_bias = (const float *)(uintptr_t)up;
  h->down_bias = (const float *)(uintptr_t)down;
  return HF_OK;
}

/* What is on the device goes there, if it is not there since before a rank was lost; of the others, here and on other ranks, says whether there are any. */
static hf_status place_experts(engine *e, int l) {
  const size_t n = (size_t)e->c.n_experts;
  const uint8_t *resident = &e->resident[(size_t)l * n];
  for (size_t x = 0; x < n; x++) {
    if (!resident[x]) {
      e->layer[l].has_host_experts = e->layer[l].has_cpu_experts = true;
      continue;
    }
    const int k = resident[x] - 1;
    dev_expert *there = &e->device[k].ctx.experts[(size_t)l * n + x];
    if (!there->gate.data) HF_TRY(device_expert(e, k, l, (int)x, there));
    if (k == e->home[l]) e->layer[l].has_device_experts = true;
    else e->layer[l].has_host_experts = e->layer[l].has_guests = true;
  }
  return HF_OK;
}

/* The host's experts of a layer lie in one piece of memory, which is large enough for huge pages; those that are there since before a device was lost stay. */
static hf_status host_experts(engine *e, int l) {
  const int n = e->c.n_experts;
  moe_expert *h = &e->host_experts[(size_t)l * (size_t)n];
  const uint8_t *resident = &e->resident[(size_t)l * (size_t)n];
  size_t need = 0, again = 0;
  char *at = NULL;
  for (int x = 0; x < n; x++) {
    moe_expert probe;
    if (!resident[x] && !h[x].gate.data && !expert_away(&e->o, n, l, x)) HF_TRY(host_expert(e, l, x, NULL, &need, &probe));
  }
  if (need > 0) {
    void *p;
    HF_TRY(mem_alloc(need, -1, "experts of a layer", &p));
    HF_TRY(own_add_on(e, p, need, -1));
    at = p;
  }
  for (int x = 0; x < n; x++) {
    if (resident[x] || expert_away(&e->o, n, l, x)) continue;
    if (h[x].gate.data) {
      HF_TRY(load_check_expert(e, h[x].gate.format, h[x].up.format, h[x].gate.n_cols, h[x].down.n_cols, l));
      continue;
    }
    HF_TRY(host_expert(e, l, x, need > 0 ? &at : NULL, &again, &h[x]));
    HF_TRY(load_host_biases(e, l, x, &h[x]));
    HF_TRY(load_check_expert(e, h[x].gate.format, h[x].up.format, h[x].gate.n_cols, h[x].down.n_cols, l));
  }
  return HF_OK;
}

static hf_status load_experts(engine *e, int l) {
  HF_TRY(place_experts(e, l));
  HF_TRY(e->cut ? load_cut_experts(e, l) : host_experts(e, l));
  return repack_run(&e->repack, e->p, read_one, e);
}

/* cos and sin of every position, [context][rope_dim/2], with the config's factor. Angles in double: at 128 K tokens f32 angles lose
 * three digits. */
static hf_status load_rope(engine *e, engine_device *v) {
  const model_rope *r = &e->c.rope;
  dev_context *x = &v->ctx;
  size_t half = (size_t)r->dim / 2, n = (size_t)e->o.context * half;
  float *t;
  HF_TRY(hf_alloc(&t, 2 * n, sizeof *t, "rotary table"));
  for (size_t p = 0; p < (size_t)e->o.context; p++) {
    for (size_t i = 0; i < half; i++) {
      double a = (double)p * r->inv_freq[i];
      t[p * half + i] = (float)(__builtin_cos(a) * r->mscale);
      t[n + p * half + i] = (float)(__builtin_sin(a) * r->mscale);
    }
  }
  hf_status st = dev_alloc(v->d, 2 * n * 4, "rotary table", &x->rope_cos);
  if (st == HF_OK) st = own_add_at(e, (int)(v - e->device), x->rope_cos, 2 * n * 4);
  if (st == HF_OK) st = dev_upload(v->d, x->rope_cos, t, 2 * n * 4);
  x->rope_sin = x->rope_cos + n * 4;
  free(t);
  return st;
}

enum { CLEAR_BYTES = 64 << 10 };

typedef struct {
  engine *e;
  uint8_t fresh[PLAN_MAX_LAYERS]; /* layers whose KV was allocated just now */
} clearing;

/* Memory is given when it is first written to, which takes milliseconds a huge page: better now than in somebody's first prompt. */
static void clear_kv(void *arg, int thread, int n_threads) {
  static const char zeros[CLEAR_BYTES];
  const clearing *c = arg;
  const engine *e = c->e;
  for (int l = 0; l < e->c.n_layers; l++) {
    if (!c->fresh[l]) continue;
    const engine_device *v = &e->device[e->home[l]];
    for (size_t at = (size_t)thread * CLEAR_BYTES; at < e->kv_layer_bytes; at += (size_t)n_threads * CLEAR_BYTES) {
      const size_t left = e->kv_layer_bytes - at;
      if (dev_upload(v->d, v->ctx.kv[l] + at, zeros, left < CLEAR_BYTES ? left : CLEAR_BYTES) != HF_OK) hf_clear_error();
    }
  }
}

static hf_status load_kv(engine *e) {
  clearing c = {.e = e};
  if (e->c.n_layers > PLAN_MAX_LAYERS) return hf_fail(HF_UNSUPPORTED, "a model of more than %d layers", (int)PLAN_MAX_LAYERS);
  for (int l = 0; l < e->c.n_layers; l++) {
    engine_device *v = &e->device[e->home[l]];
    if (v->ctx.kv[l]) continue;
    c.fresh[l] = 1;
    HF_TRY(dev_alloc(v->d, e->kv_layer_bytes, "KV cache", &v->ctx.kv[l]));
    HF_TRY(own_add_at(e, e->home[l], v->ctx.kv[l], e->kv_layer_bytes));
  }
  if (e->o.fault.kind == DEV_FAULT_MEMORY) clear_kv(&c, 0, 1); /* which only the driver may meet */
  else pool_run(e->p, clear_kv, &c);
  for (int k = 0; k < e->n_devices; k++)
    if (dev_lost(e->device[k].d)) return hf_fail(HF_LOST, "device memory: %s", dev_lost_reason(e->device[k].d));
  return HF_OK;
}

/* Not: it was lost, and all that it had is on others. */
static bool used(const engine *e, int k) {
  bool any = !dev_is_host(e->device[k].d);
  for (int i = 0; i < e->n_parts; i++) any = any || e->part[i].device == k;
  return any;
}

static double cpu_seconds(void) {
  struct rusage u;
  if (getrusage(RUSAGE_SELF, &u) != 0) return 0;
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* For tests/bench/load.sh: how fast weights became ready, and how much memory was resident at most (the file's pages in use included). */
static void tell_load(const engine *e, int64_t start_ns, double cpu_s) {
  struct rusage u;
  int64_t bytes = model_total_bytes(e->m, FMT_DEFAULT);
  double s = (double)(hf_now_ns() - start_ns) * 1e-9, cpu = cpu_seconds() - cpu_s;
  if (getrusage(RUSAGE_SELF, &u) != 0) return;
  hf_log(HF_LOG_DEBUG, "loaded: bytes=%lld seconds=%.3f cpu_seconds=%.3f threads=%d peak_rss_bytes=%lld", (long long)bytes, s,
         cpu, pool_threads(e->p), (long long)u.ru_maxrss * 1024);
}

/* Tensors that are read are taken through buffers of about their size. By default the C library returns such a buffer to the kernel each time, which
 * clears its pages again: two thirds of the time of loading INT4 (measured). Beginning with this it keeps them, until keep_buffers(false). */
static void keep_buffers(bool keep) {
  (void)mallopt(M_MMAP_THRESHOLD, keep ? 32 << 20 : 128 << 10);
  (void)mallopt(M_TRIM_THRESHOLD, keep ? 64 << 20 : 128 << 10);
  if (!keep) (void)malloc_trim(0);
}

hf_status load_experts_alone(engine *e, void (*tell)(void *user), void *user) {
  hf_status st = HF_OK;
  keep_buffers(true);
  for (int l = 0; l < e->c.n_layers && st == HF_OK; l++) {
    if (e->c.layer_is_moe[l]) st = load_experts(e, l);
    if (tell && st == HF_OK) tell(user);
  }
  keep_buffers(false);
  repack_free(&e->repack);
  return st == HF_OK ? HF_OK : hf_note(st, "%s", model_path(e->m));
}

hf_status load_weights(engine *e) {
  const model_config *c = &e->c;
  int64_t start_ns = hf_now_ns();
  double cpu_s = cpu_seconds();
  keep_buffers(true);
  hf_progress bar;
  hf_progress_begin(&bar, "loading", "layers", c->n_layers);
  hf_status st = HF_OK;
  const int first = e->part[0].device, last = e->part[e->n_parts - 1].device;
  if (!e->embed.data) HF_GO(end, device_mat(e, first, MT_EMBED, -1, -1, &e->embed));
  if (!e->out_norm) HF_GO(end, device_vec(e, last, MT_OUT_NORM, -1, &e->out_norm));
  if (c->tied_embeddings && first == last) e->output = e->embed;
  else if (!e->output.data) HF_GO(end, device_mat(e, last, c->tied_embeddings ? MT_EMBED : MT_OUTPUT, -1, -1, &e->output));
  for (int l = 0; l < c->n_layers; l++) {
    HF_GO(end, load_dense_part(e, l));
    e->device[e->home[l]].ctx.router_bias[l] = e->layer[l].router_bias;
    if (c->layer_is_moe[l]) HF_GO(end, load_experts(e, l));
    hf_progress_add(&bar, 1);
  }
  for (int k = 0; k < e->n_devices; k++)
    if (!e->device[k].ctx.rope_cos && used(e, k)) HF_GO(end, load_rope(e, &e->device[k]));
  HF_GO(end, load_kv(e));
  tell_load(e, start_ns, cpu_s);
  load_tell_nodes(e);
end:
  keep_buffers(false);
  hf_progress_end(&bar);
  repack_free(&e->repack);
  return st == HF_OK ? HF_OK : hf_note(st, "%s", model_path(e->m));
}

/* Its dense part and KV cache, if it is at home there, and those of its experts that are. */
static hf_status load_layer_on(engine *e, int k, int l) {
  const size_t n = (size_t)e->c.n_experts;
  dev_context *x = &e->device[k].ctx;
  if (e->home[l] == k) {
    HF_TRY(load_dense_part(e, l));
    x->router_bias[l] = e->layer[l].router_bias;
    HF_TRY(dev_alloc(e->device[k].d, e->kv_layer_bytes, "KV cache", &x->kv[l]));
    HF_TRY(own_add_at(e, k, x->kv[l], e->kv_layer_bytes));
  }
  for (size_t i = (size_t)l * n; e->c.layer_is_moe[l] && i < ((size_t)l + 1) * n; i++)
    if (e->resident[i] == 1 + k) HF_TRY(device_expert(e, k, l, (int)(i % n), &x->experts[i]));
  return HF_OK;
}

hf_status load_one_device(engine *e, int k) {
  const int first = e->part[0].device, last = e->part[e->n_parts - 1].device;
  const bool tied = e->c.tied_embeddings;
  if (first == k) HF_TRY(device_mat(e, k, MT_EMBED, -1, -1, &e->embed));
  if (last == k) {
    HF_TRY(device_vec(e, k, MT_OUT_NORM, -1, &e->out_norm));
    if (tied && first == k) e->output = e->embed;
    else HF_TRY(device_mat(e, k, tied ? MT_EMBED : MT_OUTPUT, -1, -1, &e->output));
  }
  for (int l = 0; l < e->c.n_layers; l++) HF_TRY(load_layer_on(e, k, l));
  return load_rope(e, &e->device[k]);
}
