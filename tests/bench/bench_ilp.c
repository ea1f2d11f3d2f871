/* bench_ilp: time and proven gap of the placement solver over machines, users and skews, against the bars of the project.
 *
 *   bench_ilp                     58 layers x 256 experts (DeepSeek-R1's shape) on one device and on four unlike ones
 *   bench_ilp LAYERS EXPERTS      the same for another shape (60 384: Kimi-K2's)
 *   bench_ilp --write FOLDER      three models as LP files, for other solvers: form M, depth 2, four devices */
#include <stdio.h>
#include <sys/resource.h>

#include "tests/unit/ilp_cases.h"

typedef struct {
  double seconds, gap;
  int n;
} worst;

static void keep(worst *w, const ilp_result *r) {
  w->seconds = fmax(w->seconds, r->seconds);
  w->gap = fmax(w->gap, r->gap);
  w->n++;
}

static void show(const char *name, int users, double skew, const char *sizes, const ilp_case *c, const ilp_result *r) {
  int gpu = 0;
  for (int l = 0; l < r->n_layers; l++) gpu += c->t->layer[l].moe && r->layer[l].binding == ILP_BIND_GPU;
  printf(
      "%-11s C=%-4d skew %4.1f%s  D=%d %10.3f ms  gap %8.5f %%  %-8s %-10s %5.2f s  lp %6ld nodes %4ld refined %5ld priced %5ld "
      "moves %8ld  gpu-bound %2d  greedy %+6.2f %% whole %+6.1f %% uniform %+6.1f %%\n",
      name, users, skew, sizes, r->depth, r->objective_ns * 1e-6, r->gap * 100, r->status, r->certificate, r->seconds,
      (long)r->counters.lp_iterations, (long)r->counters.nodes, (long)r->counters.refined, (long)r->counters.priced,
      (long)r->counters.moves, gpu, 100 * (r->baseline[ILP_BASE_GREEDY].objective_ns / r->objective_ns - 1),
      100 * (r->baseline[ILP_BASE_WHOLE_LAYERS].objective_ns / r->objective_ns - 1),
      100 * (r->baseline[ILP_BASE_UNIFORM].objective_ns / r->objective_ns - 1));
  fflush(stdout);
}

static bool make_case(ilp_case *c, int layers, int experts, const case_machine *m, int users, double skew, bool sizes,
                      bool unlike) {
  if (!case_large(c, layers + layers / 20, layers / 20, experts, m, users, skew, sizes, 1) || (unlike && !case_unlike(c)))
    return false;
  double share = layers * (double)experts / (58 * 256.0);
  for (int i = 0; i < c->p.n_devices; i++)
    for (int d = 0; d < ILP_MAX_DEPTH; d++)
      c->p.device[i].expert_bytes_free[d] = (int64_t)((double)c->p.device[i].expert_bytes_free[d] * share);
  return true;
}

static void run(int layers, int experts, const case_machine *m, int users, double skew, bool sizes, bool unlike, worst *w) {
  ilp_case c;
  ilp_result *r;
  if (!make_case(&c, layers, experts, m, users, skew, sizes, unlike)) return;
  if (ilp_solve(&c.p, NULL, &r) != HF_OK) {
    printf("%s: %s\n", m->name, hf_error_line());
  } else {
    show(unlike ? "4 devices" : m->name, users, skew, sizes ? " sizes" : "      ", &c, r);
    keep(w, r);
    ilp_result_free(r);
  }
  case_free(&c);
}

static int write_models(const char *folder) {
  static const struct {
    const char *name;
    uint32_t depths;
    bool unlike;
  } model[] = {{"depth1", 1, false}, {"depth2", 2, false}, {"devices", 1, true}};
  for (size_t i = 0; i < sizeof model / sizeof model[0]; i++) {
    ilp_case c;
    ilp_result *r;
    char path[600];
    if (!make_case(&c, 58, 256, &case_machines[1], 16, SKEW_MIXED, false, model[i].unlike)) return 1;
    c.p.depths = model[i].depths;
    if (ilp_solve(&c.p, NULL, &r) != HF_OK) return 1;
    for (int bound = 0; bound < 2; bound++) {
      snprintf(path, sizeof path, "%.500s/%s%s.lp", folder, model[i].name, bound ? "_bound" : "");
      if ((bound ? ilp_write_bound_lp(r, path) : ilp_write_lp(r, path)) != HF_OK) return 1;
    }
    printf("%-8s objective %.6f bound %.6f ms  gap %.5f %%  %.2f s\n", model[i].name, r->objective_ns * 1e-6, r->bound_ns * 1e-6,
           100 * r->gap, r->seconds);
    ilp_result_free(r);
    case_free(&c);
  }
  return 0;
}

static void bar(const char *name, const worst *w, double seconds, double gap) {
  printf("%-24s worst of %d: %.2f s (bar %.1f), gap %.4f %% (bar %.1f %%)  %s\n", name, w->n, w->seconds, seconds, 100 * w->gap,
         100 * gap, w->seconds <= seconds && w->gap <= gap ? "met" : "MISSED");
}

int main(int argc, char **argv) {
  static const double skews[] = {0, 0.8, 1.2, SKEW_MIXED, SKEW_LOGNORMAL};
  static const int users[] = {1, 5, 16, 64, 256};
  if (argc == 3 && strcmp(argv[1], "--write") == 0) return write_models(argv[2]);
  int layers = argc > 2 ? atoi(argv[1]) : 58, experts = argc > 2 ? atoi(argv[2]) : 256;
  worst one = {0}, four = {0};
  for (size_t m = 0; m < sizeof case_machines / sizeof case_machines[0]; m++)
    for (size_t u = 0; u < sizeof users / sizeof users[0]; u++)
      for (size_t k = 0; k < sizeof skews / sizeof skews[0]; k++)
        run(layers, experts, &case_machines[m], users[u], skews[k], false, false, &one);
  for (size_t k = 0; k < sizeof skews / sizeof skews[0]; k++)
    run(layers, experts, &case_machines[2], 16, skews[k], true, false, &one);
  for (size_t u = 0; u < sizeof users / sizeof users[0]; u++)
    for (size_t k = 0; k < sizeof skews / sizeof skews[0]; k++)
      run(layers, experts, &case_machines[0], users[u], skews[k], false, true, &four);
  struct rusage use;
  getrusage(RUSAGE_SELF, &use);
  bar("one device, depths 1-4", &one, experts > 256 ? 1.5 : 1, 1e-3);
  bar("four unlike devices", &four, 10, 5e-3);
  printf("peak memory %ld MB\n", use.ru_maxrss / 1024);
  return 0;
}
