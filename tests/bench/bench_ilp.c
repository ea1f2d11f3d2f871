/* bench_ilp: time and proven gap of the placement solver over machines, users and skews, against the bars of the project.
 *
 *   bench_ilp                     58 layers x 256 experts (DeepSeek-R1's shape): all parts below
 *   bench_ilp LAYERS EXPERTS      the same for another shape (60 384: Kimi-K2's)
 *   bench_ilp PART                one | four | prompts | limits | machines: one device; four unlike ones; prompts weighed in;
 *                                 prompts limited; other machines for experts beside devices
 *   bench_ilp --write FOLDER      three models as LP files, for other solvers: form M, depth 2, four devices */
#include <stdio.h>
#include <sys/resource.h>

#include "tests/unit/ilp_cases.h"

enum { MOST_CASES = 200 };
typedef struct {
  double seconds, gap[MOST_CASES];
  int n;
} worst;

static void keep(worst *w, const ilp_result *r) {
  w->seconds = fmax(w->seconds, r->seconds);
  if (w->n < MOST_CASES) w->gap[w->n++] = r->gap;
}

static void show(const char *name, int users, double skew, const char *sizes, const ilp_case *c, const ilp_result *r) {
  int gpu = 0;
  for (int l = 0; l < r->n_layers; l++) gpu += c->t->layer[l].moe && r->layer[l].binding == ILP_BIND_GPU;
  printf(
      "%-14s C=%-4d skew %4.1f%s  D=%d %10.3f ms  gap %8.5f %%  %-8s %-10s %5.2f s  lp %6ld nodes %4ld refined %5ld priced %5ld "
      "moves %8ld  gpu-bound %2d  greedy %+6.2f %% whole %+6.1f %% uniform %+6.1f %%\n",
      name, users, skew, sizes, r->depth, r->objective_ns * 1e-6, r->gap * 100, r->status, r->certificate, r->seconds,
      (long)r->counters.lp_iterations, (long)r->counters.nodes, (long)r->counters.refined, (long)r->counters.priced,
      (long)r->counters.moves, gpu, 100 * (r->baseline[ILP_BASE_GREEDY].objective_ns / r->objective_ns - 1),
      100 * (r->baseline[ILP_BASE_WHOLE_LAYERS].objective_ns / r->objective_ns - 1),
      100 * (r->baseline[ILP_BASE_UNIFORM].objective_ns / r->objective_ns - 1));
  fflush(stdout);
}

static bool make_case(ilp_case *c, int layers, int experts, const case_machine *m, int users, double skew, bool sizes,
                      bool unlike, int remotes) {
  if (!case_large(c, layers + layers / 20, layers / 20, experts, m, users, skew, sizes, 1)) return false;
  if (unlike && !case_unlike(c, remotes)) return false;
  if (!unlike && remotes > 0) {
    if (stage_table_places(c->t, 1, remotes) != HF_OK) return false;
    case_machines_from(c, 2);
  }
  double share = layers * (double)experts / (58 * 256.0);
  for (int i = 0; i < c->p.n_devices; i++)
    for (int d = 0; d < ILP_MAX_DEPTH; d++)
      c->p.device[i].expert_bytes_free[d] = (int64_t)((double)c->p.device[i].expert_bytes_free[d] * share);
  return true;
}

static void solve_case(const char *name, int users, double skew, const char *sizes, ilp_case *c, worst *w) {
  ilp_result *r;
  if (ilp_solve(&c->p, NULL, &r) != HF_OK) {
    printf("%s: %s\n", name, hf_error_line());
    return;
  }
  show(name, users, skew, sizes, c, r);
  keep(w, r);
  ilp_result_free(r);
}

static void run(int layers, int experts, const case_machine *m, int users, double skew, bool sizes, bool unlike, worst *w) {
  ilp_case c;
  if (!make_case(&c, layers, experts, m, users, skew, sizes, unlike, 0)) return;
  solve_case(unlike ? "4 devices" : m->name, users, skew, sizes ? " sizes" : "      ", &c, w);
  case_free(&c);
}

/* A chunk of 512 tokens of prompts of 2,048, each answered by 256 tokens; with and without upload of the CPU's experts. */
static void run_prompts(int layers, int experts, const case_machine *m, int users, double skew, bool upload, bool unlike,
                        worst *w) {
  ilp_case c;
  char name[40];
  if (!make_case(&c, layers, experts, m, users, skew, false, unlike, 0)) return;
  c.p.prefill.weight = 4.0 * users / 256;
  c.p.prefill.upload = upload;
  stage_load_add(&c.p.prefill.load, c.t, 768, 512);
  for (int l = 0; upload && l < c.t->n_layers; l++) c.t->layer[l].upload_ns = (double)c.bytes[l] / 25;
  snprintf(name, sizeof name, "%s%s", unlike ? "4 devices" : m->name, upload ? " up" : "");
  solve_case(name, users, skew, "      ", &c, w);
  case_free(&c);
}

static void run_machines(int layers, int experts, const case_machine *m, int remotes, int users, double skew, bool unlike,
                         worst *w) {
  ilp_case c;
  char name[40];
  if (!make_case(&c, layers, experts, m, users, skew, false, unlike, remotes)) return;
  snprintf(name, sizeof name, "%s +%d", unlike ? "4 devices" : m->name, remotes);
  solve_case(name, users, skew, "      ", &c, w);
  case_free(&c);
}

/* Limits on the chunks of a prompt halfway between what the objective would choose and what no placement goes below; and one below that,
 * which must be proven out of reach. */
static void run_limits(int layers, int experts, const case_machine *m, int users, double skew, bool upload, worst *w) {
  ilp_case c;
  ilp_result *r = NULL;
  ilp_refusal x;
  if (!make_case(&c, layers, experts, m, users, skew, false, false, 0)) return;
  c.p.prefill.upload = upload;
  stage_load_add(&c.p.prefill.load, c.t, 768, 512);
  for (int l = 0; upload && l < c.t->n_layers; l++) c.t->layer[l].upload_ns = (double)c.bytes[l] / 25;
  c.p.limit = (ilp_limits){.ttft_ns = 1e18, .chunks = 4};
  if (ilp_solve(&c.p, NULL, &r) != HF_OK) return;
  double ttft = r->evaluation.ttft_ns, objective = r->objective_ns;
  ilp_result_free(r);
  r = NULL;
  c.p.limit.ttft_ns = 1e-3 * ttft;
  if (ilp_solve(&c.p, &(ilp_options){.refusal = &x}, &r) != HF_NO || !x.proven) printf("  not proven out of reach\n");
  c.p.limit.ttft_ns = 0.5 * (ttft + x.ttft_least_ns);
  if (ilp_solve(&c.p, NULL, &r) != HF_OK) {
    printf("%s: %s\n", m->name, hf_error_line());
  } else {
    printf(
        "  chunks of a prompt: %.1f ms at the objective's choice, none below %.1f; limit in the middle costs %.3f %% of a step\n",
        1e-6 * ttft, 1e-6 * x.ttft_least_ns, 100 * (r->objective_ns / objective - 1));
    show(m->name, users, skew, upload ? " up   " : "      ", &c, r);
    keep(w, r);
  }
  ilp_result_free(r);
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
    if (!make_case(&c, 58, 256, &case_machines[1], 16, SKEW_MIXED, false, model[i].unlike, 0)) return 1;
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

static int gap_cmp(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

static void bar(const char *name, worst *w, double seconds, double gap) {
  if (w->n == 0) return;
  qsort(w->gap, (size_t)w->n, sizeof w->gap[0], gap_cmp);
  double most = w->gap[w->n - 1];
  printf("%-24s worst of %d: %.2f s (bar %.1f), gap %.4f %% (bar %.1f %%), median %.4f %%  %s\n", name, w->n, w->seconds, seconds,
         100 * most, 100 * gap, 100 * w->gap[w->n / 2], w->seconds <= seconds && most <= gap ? "met" : "MISSED");
}

static const double skews[] = {0, 0.8, 1.2, SKEW_MIXED, SKEW_LOGNORMAL};
static const int users[] = {1, 5, 16, 64, 256};
enum { MACHINES = sizeof case_machines / sizeof case_machines[0], SKEWS = 5, USERS = 5 };

static void part_one(int layers, int experts) {
  worst w = {0};
  for (int m = 0; m < MACHINES; m++)
    for (int u = 0; u < USERS; u++)
      for (int k = 0; k < SKEWS; k++) run(layers, experts, &case_machines[m], users[u], skews[k], false, false, &w);
  for (int k = 0; k < SKEWS; k++) run(layers, experts, &case_machines[2], 16, skews[k], true, false, &w);
  bar("one device, depths 1-4", &w, experts > 256 ? 1.5 : 1, 1e-3);
}

static void part_four(int layers, int experts) {
  worst w = {0};
  for (int u = 0; u < USERS; u++)
    for (int k = 0; k < SKEWS; k++) run(layers, experts, &case_machines[0], users[u], skews[k], false, true, &w);
  bar("four unlike devices", &w, 10, 5e-3);
}

static void part_prompts(int layers, int experts) {
  worst one = {0}, four = {0};
  for (int m = 0; m < MACHINES; m++)
    for (int u = 1; u < USERS; u += 2)
      for (int k = 1; k < SKEWS; k += 2)
        for (int up = 0; up < 2; up++) run_prompts(layers, experts, &case_machines[m], users[u], skews[k], up, false, &one);
  for (int u = 1; u < USERS; u += 2)
    for (int k = 1; k < SKEWS; k += 2) run_prompts(layers, experts, &case_machines[0], users[u], skews[k], true, true, &four);
  bar("prompts, one device", &one, 10, 2e-3);
  bar("prompts, four devices", &four, 20, 5e-3);
}

static void part_limits(int layers, int experts) {
  worst w = {0};
  for (int m = 0; m < MACHINES; m++)
    for (int u = 1; u < USERS; u += 2)
      for (int up = 0; up < 2; up++) run_limits(layers, experts, &case_machines[m], users[u], SKEW_MIXED, up, &w);
  bar("limits, one device", &w, 20, 1e-2);
}

static void part_machines(int layers, int experts) {
  worst one = {0}, four = {0};
  for (int m = 0; m < MACHINES; m += 3)
    for (int u = 0; u < USERS; u += 2)
      for (int k = 1; k < SKEWS; k += 2)
        for (int r = 1; r <= 2; r++) run_machines(layers, experts, &case_machines[m], r, users[u], skews[k], false, &one);
  for (int u = 0; u < USERS; u += 2)
    for (int k = 1; k < SKEWS; k += 2) run_machines(layers, experts, &case_machines[0], 1, users[u], skews[k], true, &four);
  bar("machines, one device", &one, 10, 5e-3);
  bar("machines, four devices", &four, 20, 1e-2);
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "--write") == 0) return write_models(argv[2]);
  const char *only = argc == 2 ? argv[1] : "";
  int layers = argc > 2 ? atoi(argv[1]) : 58, experts = argc > 2 ? atoi(argv[2]) : 256;
  if (*only == 0 || strcmp(only, "one") == 0) part_one(layers, experts);
  if (*only == 0 || strcmp(only, "four") == 0) part_four(layers, experts);
  if (*only == 0 || strcmp(only, "prompts") == 0) part_prompts(layers, experts);
  if (*only == 0 || strcmp(only, "limits") == 0) part_limits(layers, experts);
  if (*only == 0 || strcmp(only, "machines") == 0) part_machines(layers, experts);
  struct rusage use;
  getrusage(RUSAGE_SELF, &use);
  printf("peak memory %ld MB\n", use.ru_maxrss / 1024);
  return 0;
}
