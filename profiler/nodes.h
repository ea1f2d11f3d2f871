/* nodes.h: weights on the memory of the nodes that compute with them, as hf-run lays them out on a machine with several. */
#ifndef HF_PROFILER_NODES_H
#define HF_PROFILER_NODES_H
#include "kernels/moe.h"
#include "profiler/profile.h"

enum { PROF_MOST_EXPERTS = 256 };

/* Experts of this width in this format of down: parts.n = 1 on one node. */
typedef struct {
  moe_parts parts;
  int begin[PROF_MOST_EXPERTS * (TOPO_MAX_NODES + 1)]; /* [n_experts][parts.n + 1] */
} prof_nodes;
void prof_nodes_of(const topology *t, kern_format f, int width, int n_experts, prof_nodes *out);
HF_MUST hf_status prof_moe_new(const moe_shape *s, const moe_parts *parts, const pool *p, moe **out);
#endif
