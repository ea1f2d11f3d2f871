/* numa.c: experts computed by several NUMA nodes at once (sched/split.h): how many nodes pay, and what their unevenness costs. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "planner/cost/cost_int.h"

_Static_assert((int)COST_MAX_NODES <= (int)SPLIT_MAX_NODES, "nodes fit a rule");

void cost_numa_split(const double *bytes_per_s, int n_nodes, int width, int unit, int n_experts, int active, double bytes,
                     double split_ns, cost_numa *out) {
  int order[COST_MAX_NODES]; /* fastest first */
  double all = 0, sum = 0;
  if (n_nodes > COST_MAX_NODES) n_nodes = COST_MAX_NODES;
  split_rule r = {.n_nodes = n_nodes, .width = width, .unit = unit};
  for (int i = 0; i < n_nodes; i++) {
    int at = i;
    for (; at > 0 && bytes_per_s[order[at - 1]] < bytes_per_s[i]; at--) order[at] = order[at - 1];
    order[at] = i;
    all += bytes_per_s[i];
  }
  *out = (cost_numa){.n = n_nodes, .ns = INFINITY, .ideal_ns = 1e9 * bytes / all};
  for (int used = 1; used <= n_nodes; used++) {
    sum += r.rate[order[used - 1]] = bytes_per_s[order[used - 1]];
    const double ns = 1e9 * bytes / sum * split_stretch(&r, n_experts, active) + (used - 1) * split_ns;
    if (!(ns < out->ns)) continue;
    out->ns = ns;
    out->used = used;
    out->rule = r;
  }
}

double cost_numa_remote_rate(const cost_rows *r, double local_bytes_per_s, double remote_part, cost_case c, db_tag *tag) {
  if (!(remote_part > 0)) return local_bytes_per_s;
  double factor = cost_rate(r, "cpu", "dram_remote_fraction", COST_CPU_MEM, c, cost_prior_of("dram_remote_fraction")->value, tag);
  /* either memory is read for its part of the time */
  return local_bytes_per_s / (1 - remote_part + remote_part / factor);
}

int cost_numa_rates(const cost_rows *r, cost_case c, double rate[COST_MAX_NODES], db_tag *tag) {
  int n = 0;
  for (int i = 0; i < COST_MAX_NODES; i++) {
    static const double none[3] = {1, 1, 1};
    char device[16];
    cost_figure f;
    snprintf(device, sizeof device, "cpu%d", i);
    if (!cost_find(r, device, "dram_read_bytes_per_s", &f) || !(f.likely > 0)) break;
    rate[n++] = cost_rate(r, device, "dram_read_bytes_per_s", COST_CPU_MEM, c, none, tag);
  }
  return n > 1 ? n : 0;
}

double cost_numa_split_ns(const cost_rows *r, cost_case c, db_tag *tag) {
  static const double free_of_cost[3] = {0, 0, 0};
  cost_figure f;
  return cost_find(r, "cpu", "numa_split_ns", &f) ? cost_time(r, "cpu", "numa_split_ns", c, free_of_cost, tag) : 0;
}

bool cost_numa_of_expert(const cost_input *in, const model_layer_parts *p, cost_case c, cost_numa *out, db_tag *tag) {
  double rate[COST_MAX_NODES];
  int n = cost_numa_rates(in->rows, c, rate, tag);
  if (n == 0) return false;
  double split = cost_numa_split_ns(in->rows, c, tag);
  const model_config *m = model_get_config(in->m);
  const int block = p->down_fmt == FMT_FP8_E4M3 ? 128 : fmt_get(p->down_fmt)->block; /* FP8 scales are of 128 x 128 */
  cost_numa_split(rate, n, m->d_ff_expert, split_unit(block), m->n_experts, m->top_k, (double)p->expert.bytes, split, out);
  return true;
}
