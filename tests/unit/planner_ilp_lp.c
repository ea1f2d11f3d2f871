/* Both ends of the certificate, reproduced by another solver: CBC (Debian: coinor-cbc) reads the two LP files and finds
 * objective_ns and bound_ns. And the LP with one variable per expert, written here on its own, never has a better bound than
 * ours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/ilp_cases.h"

static char folder[64];

static void must(hf_status st) {
  if (st != HF_OK) fail_msg("%s", hf_error_line());
}

static void name_file(char *out, size_t n, const char *name) {
  snprintf(out, n, "%s/%s", folder, name);
}

/* Objective value CBC proves for an LP file. */
static double cbc(const char *path) {
  char cmd[512], sol[128], line[256], status[64];
  double value = NAN;
  name_file(sol, sizeof sol, "solution.txt");
  unlink(sol);
  snprintf(cmd, sizeof cmd, "timeout 120 cbc '%s' ratioGap 0 allowableGap 0 solve solution '%s' >'%s/cbc.log' 2>&1", path, sol,
           folder);
  if (system("command -v cbc >/dev/null 2>&1") != 0)
    fail_msg("cbc is not installed (Debian package coinor-cbc); the LP files cannot be checked");
  int rc = system(cmd);
  FILE *f = fopen(sol, "r");
  if (rc != 0 || f == NULL) fail_msg("cbc failed on %s (status %d)", path, rc);
  if (fgets(line, sizeof line, f) == NULL || sscanf(line, "%63[^-]- objective value %lf", status, &value) != 2 ||
      strncmp(status, "Optimal", 7) != 0)
    fail_msg("cbc on %s: not solved to optimality: %s", path, line);
  fclose(f);
  return value;
}

static void assert_reproduced(const ilp_case *c, const ilp_result *r, uint64_t seed) {
  char lp[128], bound[128];
  (void)c;
  name_file(lp, sizeof lp, "model.lp");
  name_file(bound, sizeof bound, "bound.lp");
  must(ilp_write_lp(r, lp));
  must(ilp_write_bound_lp(r, bound));
  double objective = cbc(lp), least = cbc(bound);
  if (r->lp_exact && !(fabs(objective / r->objective_ns - 1) <= 1e-6))
    fail_msg("seed %d: cbc finds %.10g, objective_ns is %.10g", (int)seed, objective, r->objective_ns);
  if (!(fabs(least / r->bound_ns - 1) <= 1e-6))
    fail_msg("seed %d: cbc's bound is %.10g, bound_ns is %.10g (%s)", (int)seed, least, r->bound_ns, r->certificate);
}

static void test_cbc_reproduces_small(void **state) {
  (void)state;
  for (uint64_t seed = 0; seed < 12; seed++) {
    ilp_case c;
    ilp_result *r;
    assert_true(case_small(&c, 4, 6, seed % 2, seed + 300));
    must(ilp_solve(&c.p, NULL, &r));
    assert_true(r->lp_exact);
    assert_reproduced(&c, r, seed);
    ilp_result_free(r);
    case_free(&c);
  }
}

/* Depth 2, two devices and another machine: small ones by all their sets, larger ones by columns and prices. */
static void test_cbc_reproduces_places(void **state) {
  (void)state;
  int exact = 0, priced = 0, several = 0, limited = 0;
  for (uint64_t seed = 0; seed < 16; seed++) {
    ilp_case c;
    ilp_result *r;
    uint64_t s = seed;
    bool small = seed % 2 == 0, devices = seed % 4 > 1;
    assert_true(case_small(&c, small ? 3 : 4, small ? 4 : 12, seed % 3 == 0, seed + 900));
    if (devices) assert_true(case_more_places(&c, 2, seed % 8 > 5, &s));
    if (c.p.users < 4) c.p.users = 4;
    c.p.depths = seed % 3 == 0 && devices ? 1 : 2;
    if (seed % 5 == 2) c.t->contend = 1.25;
    if (seed % 5 == 4) {
      for (int l = 0; l < c.t->n_layers; l++) c.t->layer[l].upload_ns = case_uniform(&s, 0, 2e5);
      c.p.prefill =
          (ilp_prefill){.weight = 0.1, .load = {.tokens = 300, .query_context = 45000, .seq_context = 300}, .upload = true};
    }
    hf_status st = ilp_solve(&c.p, NULL, &r);
    if (st == HF_OK && seed % 5 == 4) { /* again, with limits a little below what came out */
      c.p.limit = (ilp_limits){.step_ns = 1.2 * r->evaluation.step_ns, .ttft_ns = 0.995 * r->evaluation.chunk_ns, .chunks = 1};
      ilp_result_free(r);
      st = ilp_solve(&c.p, NULL, &r);
      limited += st == HF_OK;
    }
    if (st != HF_NO) {
      must(st);
      exact += r->lp_exact;
      priced += strcmp(r->certificate, "lagrangian") == 0;
      several += devices;
      if (small) assert_true(r->lp_exact);
      assert_reproduced(&c, r, seed);
      ilp_result_free(r);
    }
    case_free(&c);
  }
  assert_true(exact >= 6 && priced >= 4 && several >= 5 && limited >= 1);
}

static void test_cbc_reproduces_medium(void **state) {
  (void)state;
  int exact = 0;
  for (uint64_t seed = 0; seed < 4; seed++) {
    ilp_case c;
    ilp_result *r;
    assert_true(case_large(&c, 8, 1, 40, &case_machines[2], 16, seed % 2 ? SKEW_MIXED : 0.8, seed > 1, seed));
    for (int d = 0; d < ILP_MAX_DEPTH; d++)
      c.p.device[0].expert_bytes_free[d] = (140 + 30 * (int64_t)seed) * c.bytes[1] - d * 1000000;
    must(ilp_solve(&c.p, NULL, &r));
    exact += r->lp_exact;
    assert_reproduced(&c, r, seed);
    ilp_result_free(r);
    case_free(&c);
  }
  assert_true(exact >= 2);
}

/* One variable x in [0,1] per expert, depth 1; fixed costs left out, so that it is a relaxation whatever k is. */
static void write_pooled(const ilp_case *c, const char *path) {
  const stage_table *t = c->t;
  int tokens = c->p.users;
  double base = t->step_fixed_ns + stage_curve_at(&t->head, c->p.users);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  for (int l = 0; l < t->n_layers; l++) {
    layer_times y = stage_layer_times(t, c->pop, l, tokens, c->p.context, NULL);
    if (!t->layer[l].moe) base += y.attn_ns + y.shared_ns;
  }
  fprintf(f, "Minimize\n obj: %.17g one", base);
  for (int l = 0; l < t->n_layers; l++)
    if (t->layer[l].moe) fprintf(f, " + t_%d", l);
  fprintf(f, "\nSubject To\n capacity: 0 one");
  for (int l = 0; l < t->n_layers; l++)
    for (int e = 0; t->layer[l].moe && e < t->n_experts; e++)
      fprintf(f, "%s+ %lld x_%d_%d", e % 6 ? " " : "\n ", (long long)c->bytes[l], l, e);
  fprintf(f, " <= %lld\n", (long long)c->p.device[0].expert_bytes_free[0]);
  for (int l = 0; l < t->n_layers; l++) {
    const stage_layer *s = &t->layer[l];
    const double *p = c->pop->p + (size_t)l * (size_t)t->n_experts;
    layer_times y = stage_layer_times(t, c->pop, l, tokens, c->p.context, NULL);
    if (!s->moe) continue;
    double all = 0;
    for (int e = 0; e < t->n_experts; e++) all += expert_time_ns(&s->cexp, p[e], tokens);
    fprintf(f, " gpu_%d: t_%d", l, l);
    for (int e = 0; e < t->n_experts; e++)
      fprintf(f, "%s- %.17g x_%d_%d", e % 6 ? " " : "\n ", expert_time_ns(&s->dexp, p[e], tokens), l, e);
    fprintf(f, " >= %.17g\n path_%d: t_%d", y.attn_ns + y.shared_ns, l, l);
    for (int e = 0; e < t->n_experts; e++)
      fprintf(f, "%s+ %.17g x_%d_%d", e % 6 ? " " : "\n ", expert_time_ns(&s->cexp, p[e], tokens), l, e);
    fprintf(f, " >= %.17g\n", y.attn_ns + all);
  }
  fprintf(f, "Bounds\n 1 <= one <= 1\n");
  for (int l = 0; l < t->n_layers; l++)
    for (int e = 0; t->layer[l].moe && e < t->n_experts; e++) fprintf(f, " 0 <= x_%d_%d <= 1\n", l, e);
  fprintf(f, "End\n");
  assert_int_equal(fclose(f), 0);
}

static void test_pooled_lp_is_never_tighter(void **state) {
  (void)state;
  char path[128];
  name_file(path, sizeof path, "pooled.lp");
  double worst = 0, best = 1;
  for (uint64_t seed = 0; seed < 12; seed++) {
    ilp_case c;
    ilp_result *r;
    assert_true(case_small(&c, 5, seed % 3 == 0 ? 10 : 30, seed % 2, seed + 700));
    c.p.users = 6;
    c.p.depths = 1;
    for (int l = 0; l < c.t->n_layers; l++) { /* without fixed costs, where the two are closest */
      stage_layer *s = &c.t->layer[l];
      if (seed >= 6) s->hand_ns = s->hand_tok_ns = s->cexp_fixed_ns = s->dexp_fixed_ns = 0;
    }
    must(ilp_solve(&c.p, NULL, &r));
    write_pooled(&c, path);
    double pooled = cbc(path);
    if (!(pooled <= r->bound_ns * (1 + 1e-7)))
      fail_msg("seed %d: the pooled LP gives %.10g, bound_ns is only %.10g", (int)seed, pooled, r->bound_ns);
    worst = fmax(worst, 1 - pooled / r->bound_ns);
    best = fmin(best, 1 - pooled / r->bound_ns);
    ilp_result_free(r);
    case_free(&c);
  }
  /* Both are bounds on the same thing: without fixed costs they come close. */
  assert_true(best < 0.01 && worst > 1e-6);
}

static void test_unwritable(void **state) {
  (void)state;
  ilp_case c;
  ilp_result *r;
  assert_true(case_small(&c, 4, 6, false, 1));
  must(ilp_solve(&c.p, NULL, &r));
  assert_int_equal(ilp_write_lp(r, "/nonexistent-folder/model.lp"), HF_MACHINE);
  assert_non_null(strstr(hf_error_line(), "/nonexistent-folder/model.lp"));
  assert_int_equal(ilp_write_bound_lp(r, folder), HF_MACHINE); /* a folder cannot be replaced */
  ilp_result_free(r);
  case_free(&c);
}

static int make_folder(void **state) {
  (void)state;
  const char *tmp = getenv("TMPDIR");
  snprintf(folder, sizeof folder, "%.40s/ilp_lp_XXXXXX", tmp != NULL && strlen(tmp) < 40 ? tmp : "/tmp");
  return mkdtemp(folder) == NULL;
}

static int remove_folder(void **state) {
  static const char *const files[] = {"model.lp", "bound.lp", "pooled.lp", "solution.txt", "cbc.log"};
  char path[128];
  (void)state;
  for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
    name_file(path, sizeof path, files[i]);
    unlink(path);
  }
  return rmdir(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_cbc_reproduces_small),
      cmocka_unit_test(test_cbc_reproduces_places),
      cmocka_unit_test(test_cbc_reproduces_medium),
      cmocka_unit_test(test_pooled_lp_is_never_tighter),
      cmocka_unit_test(test_unwritable),
  };
  return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
