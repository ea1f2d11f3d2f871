/* load_nodes.c: routed experts in slices, each in the memory of the node whose workers compute it. Slices are always copied, also where a file's mapping
 * could be used as it is: pages of a file lie on any node. */
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "executor/engine_int.h"

static const int *cut_of(const engine *e, int layer, int expert) {
  const size_t each = (size_t)e->nodes.parts.n + 1;
  return e->cut + ((size_t)layer * (size_t)e->c.n_experts + (size_t)expert) * each;
}

static moe_expert *slot(const engine *e, int layer, int part, int expert) {
  return &e->host_experts[((size_t)layer * (size_t)e->nodes.parts.n + (size_t)part) * (size_t)e->c.n_experts + (size_t)expert];
}

static kern_mat *matrix(moe_expert *x, model_tensor_id id) {
  return id == MT_EXP_GATE ? &x->gate : id == MT_EXP_UP ? &x->up : &x->down;
}

/* Of a matrix in KL_ROWS: some rows, or some columns of all. */
static kern_mat slice_of(const kern_mat *rows, model_tensor_id id, int from, int to) {
  kern_mat s = *rows;
  const size_t at = id == MT_EXP_DOWN ? kern_row_bytes(rows->format, from) : (size_t)from * rows->row_bytes;
  if (id == MT_EXP_DOWN) s.n_cols = to - from;
  else s.n_rows = to - from;
  if (rows->data) s.data = (const char *)rows->data + at;
  return s;
}

/* The slice as it is computed with. */
static kern_mat wanted(const engine *e, const kern_mat *slice) {
  kern_mat w = *slice;
  w.row_bytes = kern_row_bytes(w.format, w.n_cols);
  w.layout = kern_best_layout(w.format, kern_act_of(w.format, e->o.exact), w.n_cols);
  w.data = NULL;
  return w;
}

static size_t bytes_of(const kern_mat *m) {
  return (kern_mat_bytes(m->layout, m->format, m->n_rows, m->n_cols) + 63) & ~(size_t)63;
}

static const model_tensor_id matrices[] = {MT_EXP_GATE, MT_EXP_UP, MT_EXP_DOWN};

static hf_status check_expert(engine *e, int l, int x) {
  load_source s[3];
  for (int i = 0; i < 3; i++) HF_TRY(load_describe(e, matrices[i], l, x, &s[i]));
  return load_check_expert(e, s[0].mat.format, s[1].mat.format, s[0].mat.n_cols, s[2].mat.n_cols, l);
}

/* Forms of the expert's slices, and what each part needs for them. */
static hf_status shape_expert(engine *e, int l, int x, size_t need[TOPO_MAX_NODES]) {
  const int *cut = cut_of(e, l, x);
  for (int i = 0; i < 3; i++) {
    load_source s;
    HF_TRY(load_describe(e, matrices[i], l, x, &s));
    for (int p = 0; p < e->nodes.parts.n; p++) {
      if (cut[p] == cut[p + 1]) continue;
      const kern_mat slice = slice_of(&s.mat, matrices[i], cut[p], cut[p + 1]);
      kern_mat *m = matrix(slot(e, l, p, x), matrices[i]);
      *m = wanted(e, &slice);
      need[p] += bytes_of(m);
    }
  }
  return HF_OK;
}

/* Places for the slices, in the order in which they were counted, and what fills them. */
static hf_status place_expert(engine *e, int l, int x, char *at[TOPO_MAX_NODES]) {
  const int *cut = cut_of(e, l, x);
  for (int i = 0; i < 3; i++) {
    load_source s;
    HF_TRY(load_describe(e, matrices[i], l, x, &s));
    kern_mat rows = s.mat;
    rows.layout = KL_ROWS;
    if (!s.convert) HF_TRY(model_tensor_map(e->m, matrices[i], l, x, &rows.data));
    for (int p = 0; p < e->nodes.parts.n; p++) {
      if (cut[p] == cut[p + 1]) continue;
      kern_mat *m = matrix(slot(e, l, p, x), matrices[i]);
      m->data = at[p];
      at[p] += bytes_of(m);
      if (!rows.data) continue;
      const kern_mat slice = slice_of(&rows, matrices[i], cut[p], cut[p + 1]);
      HF_TRY(repack_add(&e->repack, &slice, m->layout, e->nodes.parts.node[p], (void *)(uintptr_t)m->data));
    }
    if (!rows.data) HF_TRY(repack_add_read(&e->repack, &rows, (int)matrices[i], l, x, NULL));
  }
  return HF_OK;
}

/* Of its rows each slice; what is added to the result once is the first slice's. */
static hf_status place_biases(engine *e, int l, int x) {
  const int *cut = cut_of(e, l, x);
  moe_expert b = {.gate_bias = NULL};
  HF_TRY(load_host_biases(e, l, x, &b));
  for (int p = 0; b.gate_bias && p < e->nodes.parts.n; p++) {
    moe_expert *h = slot(e, l, p, x);
    if (cut[p] == cut[p + 1]) continue;
    h->gate_bias = b.gate_bias + cut[p];
    h->up_bias = b.up_bias + cut[p];
    h->down_bias = cut[p] == 0 ? b.down_bias : NULL;
  }
  return HF_OK;
}

void load_cut_read(const engine *e, model_tensor_id id, int layer, int expert, const kern_mat *rows) {
  const int *cut = cut_of(e, layer, expert);
  for (int p = 0; p < e->nodes.parts.n; p++) {
    if (cut[p] == cut[p + 1]) continue;
    const kern_mat slice = slice_of(rows, id, cut[p], cut[p + 1]), *m = matrix(slot(e, layer, p, expert), id);
    repack_rows(&slice, m->layout, 0, slice.n_rows, (void *)(uintptr_t)m->data);
  }
}

static bool missing(const engine *e, int l, int x) {
  if (expert_away(&e->o, e->c.n_experts, l, x)) return false;
  for (int p = 0; p < e->nodes.parts.n; p++)
    if (slot(e, l, p, x)->gate.data) return false;
  return !e->resident[(size_t)l * (size_t)e->c.n_experts + (size_t)x];
}

hf_status load_cut_experts(engine *e, int l) {
  const int n = e->c.n_experts, n_parts = e->nodes.parts.n;
  size_t need[TOPO_MAX_NODES] = {0};
  char *at[TOPO_MAX_NODES] = {NULL};
  uint8_t *here = NULL;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&here, (size_t)n, 1, "experts of a layer"));
  for (int x = 0; x < n; x++) {
    here[x] = missing(e, l, x);
    if (!e->resident[(size_t)l * (size_t)n + (size_t)x] && !expert_away(&e->o, n, l, x)) HF_GO(end, check_expert(e, l, x));
    if (here[x]) HF_GO(end, shape_expert(e, l, x, need));
  }
  for (int p = 0; p < n_parts; p++) {
    void *piece;
    if (need[p] == 0) continue;
    HF_GO(end, mem_alloc(need[p], e->nodes.parts.node[p], "experts of a layer", &piece));
    HF_GO(end, own_add_on(e, piece, need[p], e->nodes.parts.node[p]));
    at[p] = piece;
  }
  for (int x = 0; x < n; x++) {
    if (!here[x]) continue;
    HF_GO(end, place_expert(e, l, x, at));
    HF_GO(end, place_biases(e, l, x));
  }
end:
  free(here);
  return st;
}

typedef struct {
  char text[256];
  size_t n;
} sum_text;

static void add_term(sum_text *t, double v, int digits) {
  if (t->n < sizeof t->text)
    t->n += (size_t)snprintf(t->text + t->n, sizeof t->text - t->n, "%s%.*f", t->n ? " + " : "", digits, v);
}

void load_tell_nodes(const engine *e) {
  sum_text rows = {""}, mib = {""}, workers = {""};
  int layer = 0;
  if (!e->cut) return;
  while (layer + 1 < e->c.n_layers && !e->c.layer_is_moe[layer]) layer++;
  const int *cut = cut_of(e, layer, 0);
  for (int p = 0; p < e->nodes.parts.n; p++) {
    const int node = e->nodes.parts.node[p];
    size_t bytes = 0;
    int threads = 0;
    for (int i = 0; i < e->n_own; i++) bytes += e->own[i].device < 0 && e->own[i].node == node ? e->own[i].bytes : 0;
    for (int i = 0; i < pool_threads(e->p); i++) threads += pool_node_of(e->p, i) == node;
    add_term(&rows, cut[p + 1] - cut[p], 0);
    add_term(&mib, (double)bytes / (1 << 20), 1);
    add_term(&workers, threads, 0);
  }
  hf_log(HF_LOG_DEBUG, "experts over %d NUMA nodes by their %s: %s of %d rows of layer %d's first, %s MiB in all, %s workers",
         e->nodes.parts.n,
         e->nodes.planned   ? "plan"
         : e->nodes.by_rate ? "rates"
                            : "cores",
         rows.text, e->c.d_ff_expert, layer, mib.text, workers.text);
}
