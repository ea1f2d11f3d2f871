#include "executor/nodes.h"

#include <stdlib.h>

#include "base/mem.h"
#include "executor/engine_int.h"
#include "sched/split.h"

_Static_assert((int)SPLIT_MAX_NODES >= (int)TOPO_MAX_NODES, "every node has a share");

/* Rates count where every node states one. */
static void find(const topology *t, nodes *out) {
  *out = (nodes){.by_rate = true};
  for (int i = 0; i < t->n_nodes; i++) {
    if (t->node[i].n_cores == 0) continue;
    out->by_rate = out->by_rate && t->node[i].dram_bytes_per_s > 0;
    out->parts.node[out->parts.n++] = i;
  }
  for (int i = 0; i < out->parts.n; i++) {
    const topo_node *at = &t->node[out->parts.node[i]];
    out->rate[i] = out->by_rate ? at->dram_bytes_per_s : at->n_cores;
  }
}

/* Slices end where blocks of down end, and rows of gate and up in whole tiles; FP8 has blocks of 128 columns. */
static hf_status unit_of(const model *m, const engine_options *o, int layer, int *unit) {
  model_tensor_info info;
  bool convert;
  kern_format f = KF_F32;
  HF_TRY(loaded_tensor(m, o, MT_EXP_DOWN, layer, 0, &info, &convert));
  (void)kern_format_parse(fmt_get(info.format)->name, &f);
  *unit = split_unit(f == KF_FP8 ? 128 : kern_block(f));
  return HF_OK;
}

/* What the plan says about the layer, if it is for as many nodes and says it in these units. */
static bool planned(const plan *p, int layer, const split_rule *r, int n_experts, int *begin) {
  const plan_layer *l = p && layer < p->n_layers ? &p->layer[layer] : NULL;
  if (!l || !l->split || l->n_nodes != r->n_nodes || l->n_experts != n_experts) return false;
  const int n = n_experts * (r->n_nodes + 1);
  for (int i = 0; i < n; i++) {
    const int at = l->split[i];
    if (at % r->unit && at != r->width) return false;
    if (i % (r->n_nodes + 1) == r->n_nodes && at != r->width) return false;
    begin[i] = at;
  }
  return true;
}

static hf_status cut_layer(const model *m, const engine_options *o, nodes *n, int layer, int *begin) {
  const model_config *c = model_get_config(m);
  split_rule r = {.n_nodes = n->parts.n, .width = c->d_ff_expert};
  HF_TRY(unit_of(m, o, layer, &r.unit));
  for (int i = 0; i < r.n_nodes; i++) r.rate[i] = n->rate[i];
  const bool as_planned = planned(o->placement, layer, &r, c->n_experts, begin);
  n->planned = n->planned && as_planned;
  unsigned char away[1024]; /* engine_can_run: no more experts than that */
  for (int e = 0; e < c->n_experts; e++) away[e] = placed_on_device(c, o, layer, e) || expert_away(o, c->n_experts, layer, e);
  if (!as_planned) split_layer(&r, c->n_experts, away, begin);
  for (int e = 0; e < c->n_experts; e++) {
    for (int i = 0; i < r.n_nodes; i++) {
      const int rows = begin[e * (r.n_nodes + 1) + i + 1] - begin[e * (r.n_nodes + 1) + i];
      if (rows > n->parts.d_ff[i]) n->parts.d_ff[i] = rows;
    }
  }
  return HF_OK;
}

hf_status nodes_find(const model *m, const engine_options *o, const topology *t, nodes *out, int **cut) {
  const model_config *c = model_get_config(m);
  hf_status st = HF_OK;
  int *begin = NULL;
  if (cut) *cut = NULL;
  find(t, out);
  if (out->parts.n < 2 || c->n_experts == 0) {
    *out = (nodes){.parts = {.n = 1, .node = {-1}, .d_ff = {c->d_ff_expert}}};
    return HF_OK;
  }
  for (int i = 0; i < out->parts.n; i++) out->parts.d_ff[i] = SPLIT_LEAST_ROWS; /* of a node that gets nothing, too */
  const size_t each = (size_t)c->n_experts * (size_t)(out->parts.n + 1);
  HF_TRY(hf_alloc(&begin, (size_t)c->n_layers * each, sizeof *begin, "slices of experts"));
  out->planned = true;
  for (int l = 0; l < c->n_layers && st == HF_OK; l++)
    if (c->layer_is_moe[l]) st = cut_layer(m, o, out, l, begin + (size_t)l * each);
  if (cut && st == HF_OK) *cut = begin;
  else free(begin);
  return st;
}
