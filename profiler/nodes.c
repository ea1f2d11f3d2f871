#include "profiler/nodes.h"

#include "sched/split.h"

void prof_nodes_of(const topology *t, kern_format f, int width, int n_experts, prof_nodes *out) {
  split_rule r = {.width = width, .unit = split_unit(f == KF_FP8 ? 128 : kern_block(f))};
  moe_parts *parts = &out->parts;
  *parts = (moe_parts){0};
  for (int i = 0; i < t->n_nodes; i++) {
    if (t->node[i].n_cores == 0) continue;
    r.rate[parts->n] = t->node[i].n_cores;
    parts->node[parts->n++] = i;
  }
  if (parts->n < 2) {
    *parts = (moe_parts){.n = 1, .node = {-1}, .d_ff = {width}};
    r.n_nodes = 1;
    r.rate[0] = 1;
  }
  r.n_nodes = parts->n;
  split_layer(&r, n_experts, NULL, out->begin);
  for (int p = 0; p < parts->n; p++) {
    if (parts->n > 1) parts->d_ff[p] = SPLIT_LEAST_ROWS;
    for (int e = 0; e < n_experts; e++) {
      const int *at = out->begin + e * (parts->n + 1) + p;
      if (at[1] - at[0] > parts->d_ff[p]) parts->d_ff[p] = at[1] - at[0];
    }
  }
}

hf_status prof_moe_new(const moe_shape *s, const moe_parts *parts, const pool *p, moe **out) {
  return parts->n > 1 ? moe_new_parts(s, parts, p, out) : moe_new(s, pool_threads(p), out);
}
