/* nodes.h: which NUMA nodes hold routed experts, and which rows of each: what the plan says, where it was made for a machine with as many nodes, else by
 * the nodes' rates (HF_TOPOLOGY) or cores. Nodes without cores hold none. */
#ifndef HF_EXECUTOR_NODES_H
#define HF_EXECUTOR_NODES_H

#include "executor/engine.h"
#include "kernels/moe.h"

typedef struct {
  moe_parts parts; /* n = 1: experts are not cut */
  double rate[TOPO_MAX_NODES];
  bool by_rate; /* else by cores */
  bool planned; /* as the plan says, in every layer */
} nodes;

/* The nodes of this machine and the widest slices on each. *cut (cut NULL: not asked), to be freed: [n_layers][n_experts][parts.n + 1], filled for MoE
 * layers, where slices begin (sched/split.h); NULL where experts are not cut. */
HF_MUST hf_status nodes_find(const model *m, const engine_options *o, const topology *t, nodes *out, int **cut);
#endif
