/* bench_ilp: time and proven gap of the placement solver over machines, users and skews. Usage: bench_ilp [layers experts] */
#include <stdio.h>
#include <sys/resource.h>

#include "tests/unit/ilp_cases.h"

static void run(int layers, int experts, const case_machine *m, int users, double skew, bool mixed_sizes) {
  ilp_case c;
  ilp_result *r;
  if (!case_large(&c, layers + layers / 20, layers / 20, experts, m, users, skew, mixed_sizes, 1)) return;
  double share = layers * (double)experts / (58 * 256.0);
  for (int d = 0; d < ILP_MAX_DEPTH; d++)
    c.p.device[0].expert_bytes_free[d] = (int64_t)((double)c.p.device[0].expert_bytes_free[d] * share);
  if (ilp_solve(&c.p, NULL, &r) != HF_OK) {
    printf("%s: %s\n", m->name, hf_error_line());
  } else {
    int gpu = 0;
    for (int l = 0; l < r->n_layers; l++) gpu += c.t->layer[l].moe && r->layer[l].binding == ILP_BIND_GPU;
    printf("%-11s C=%-4d skew %4.1f%s  D=%d %10.3f ms  gap %8.5f %%  %-8s %-10s %5.2f s  lp %6ld nodes %4ld refined %5ld evals "
           "%8ld  gpu-bound %2d"
           "  greedy %+6.2f %% whole %+6.1f %% random %+6.1f %%\n",
           m->name, users, skew, mixed_sizes ? " sizes" : "      ", r->depth, r->objective_ns * 1e-6, r->gap * 100, r->status,
           r->certificate, r->seconds, (long)r->counters.lp_iterations, (long)r->counters.nodes, (long)r->counters.refined,
           (long)r->counters.table_evaluations, gpu, 100 * (r->baseline[ILP_BASE_GREEDY].objective_ns / r->objective_ns - 1),
           100 * (r->baseline[ILP_BASE_WHOLE_LAYERS].objective_ns / r->objective_ns - 1),
           100 * (r->baseline[ILP_BASE_RANDOM].objective_ns / r->objective_ns - 1));
    fflush(stdout);
  }
  ilp_result_free(r);
  case_free(&c);
}

int main(int argc, char **argv) {
  static const double skews[] = {0, 0.8, 1.2, SKEW_MIXED, SKEW_LOGNORMAL};
  static const int users[] = {1, 5, 16, 64, 256};
  int layers = argc > 2 ? atoi(argv[1]) : 58, experts = argc > 2 ? atoi(argv[2]) : 256;
  for (size_t m = 0; m < sizeof case_machines / sizeof case_machines[0]; m++)
    for (size_t u = 0; u < sizeof users / sizeof users[0]; u++)
      for (size_t k = 0; k < sizeof skews / sizeof skews[0]; k++)
        run(layers, experts, &case_machines[m], users[u], skews[k], false);
  for (size_t k = 0; k < sizeof skews / sizeof skews[0]; k++) run(layers, experts, &case_machines[2], 16, skews[k], true);
  struct rusage use;
  getrusage(RUSAGE_SELF, &use);
  printf("peak memory %ld MB\n", use.ru_maxrss / 1024);
  return 0;
}
