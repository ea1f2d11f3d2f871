/* Service levels as rows of the placement program, and classes of layers, against brute force and at full size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "planner/ilp/ilp.h"
#include "tests/unit/ilp_cases.h"

static void must(hf_status st) {
  if (st != HF_OK) fail_msg("%s", hf_error_line());
}

/* Over every placement of every depth asked for: the least objective within the limits, and the least of each row. */
typedef struct {
  double objective, step, ttft, worst_step, worst_ttft;
} brute;

static brute brute_limits(const ilp_case *c) {
  int cells = c->t->n_layers * c->t->n_experts, P = ilp_n_places(c->t);
  uint8_t place[32] = {0};
  brute b = {.objective = INFINITY, .step = INFINITY, .ttft = INFINITY};
  for (;;) {
    for (int d = 1; d <= 3 && d <= c->p.users; d++) {
      ilp_evaluation e;
      if (!(c->p.depths >> (d - 1) & 1)) continue;
      must(ilp_evaluate(&c->p, place, d, NULL, &e));
      if (!e.fits) continue;
      b.step = fmin(b.step, e.step_ns);
      b.ttft = fmin(b.ttft, c->p.limit.chunks * e.chunk_ns);
      b.worst_step = fmax(b.worst_step, e.step_ns);
      b.worst_ttft = fmax(b.worst_ttft, c->p.limit.chunks * e.chunk_ns);
      if (e.keeps_limits) b.objective = fmin(b.objective, e.objective_ns);
    }
    int i = 0;
    while (i < cells && (++place[i] == P || !c->t->layer[i / c->t->n_experts].moe)) place[i++] = 0;
    if (i == cells) return b;
  }
}

static bool limited_case(ilp_case *c, uint64_t seed) {
  uint64_t s = seed + 77;
  bool devices = seed % 3 == 2;
  if (!case_small(c, devices ? 2 : 3, 4, seed % 2, seed + 1700)) return false;
  if (devices && !case_more_places(c, 1 + (int)(seed % 2), 1, &s)) return false;
  c->p.depths = seed % 4 == 3 ? 3 : 1u << (seed % 2);
  if (c->p.users < 3) c->p.users = 3;
  for (int l = 0; l < c->t->n_layers; l++) c->t->layer[l].upload_ns = case_uniform(&s, 0, 4e4);
  c->p.prefill = (ilp_prefill){.weight = seed % 5 == 0 ? 0 : 0.1,
                               .load = {.tokens = 60, .query_context = 9000, .seq_context = 300},
                               .upload = seed % 2 == 0};
  c->p.limit.chunks = 4;
  return seed % 3 == 0 || case_prompts(c->pop);
}

static void check_least(const ilp_refusal *x, const brute *b, const ilp_limits *l, uint64_t seed) {
  assert_true(x->limits);
  if (l->step_ns > 0 && !(x->step_least_ns <= b->step * (1 + 1e-9)))
    fail_msg("seed %d: least step %.9g, brute force %.9g", (int)seed, x->step_least_ns, b->step);
  if (l->ttft_ns > 0 && !(x->ttft_least_ns <= b->ttft * (1 + 1e-9)))
    fail_msg("seed %d: least chunks %.9g, brute force %.9g", (int)seed, x->ttft_least_ns, b->ttft);
}

static void test_brute_force(void **state) {
  (void)state;
  int kept = 0, refused = 0, proven = 0, binding = 0, together = 0;
  for (uint64_t seed = 0; seed < 90; seed++) {
    ilp_case c;
    ilp_result *r = NULL;
    ilp_refusal x;
    uint64_t s = seed;
    assert_true(limited_case(&c, seed));
    c.p.limit.ttft_ns = 1e18; /* so that chunks are valued */
    brute all = brute_limits(&c);
    bool tight = seed >= 60; /* both limits near their least: each can be kept, both mostly not */
    double a = case_uniform(&s, tight ? 0.001 : -0.1, tight ? 0.04 : 0.5),
           b = case_uniform(&s, tight ? 0.001 : -0.1, tight ? 0.04 : 0.5);
    c.p.limit.step_ns = seed % 3 == 1 && !tight ? 0 : all.step * (1 - a) + a * all.worst_step;
    c.p.limit.ttft_ns = seed % 3 == 0 && !tight ? 0 : all.ttft * (1 - b) + b * all.worst_ttft;
    brute within = brute_limits(&c);
    hf_status st = ilp_solve(&c.p, &(ilp_options){.refusal = &x}, &r);
    if (isfinite(within.objective)) {
      if (st != HF_OK) fail_msg("seed %d: %s; brute force finds %.9g", (int)seed, hf_error_line(), within.objective);
      if (!(fabs(r->objective_ns / within.objective - 1) <= 1e-9))
        fail_msg("seed %d: %.12g, brute force %.12g", (int)seed, r->objective_ns, within.objective);
      assert_true(r->evaluation.keeps_limits && r->bound_ns <= r->objective_ns && !x.limits);
      kept++;
      binding += r->by_depth[r->depth - 1].step_price > 0 || r->by_depth[r->depth - 1].ttft_price > 0;
    } else {
      assert_int_equal(st, HF_NO);
      check_least(&x, &all, &c.p.limit, seed);
      bool alone = (c.p.limit.step_ns > 0 && x.step_least_ns > c.p.limit.step_ns) ||
                   (c.p.limit.ttft_ns > 0 && x.ttft_least_ns > c.p.limit.ttft_ns);
      if (x.proven && c.p.depths != 3) assert_true(alone || x.together);
      refused++;
      proven += x.proven;
      together += x.together;
    }
    ilp_result_free(r);
    case_free(&c);
  }
  printf("kept %d binding %d refused %d proven %d together %d\n", kept, binding, refused, proven, together);
  assert_true(kept >= 40 && refused >= 10 && proven >= refused / 2);
}

static void prompts_of(ilp_case *c, int users) {
  c->p.prefill.weight = 4.0 * users / 256;
  stage_load_add(&c->p.prefill.load, c->t, 768, 512);
  c->p.limit.chunks = 4;
}

/* 58 x 256: a limit between what the objective would choose and what can be is kept and costs something; one below cannot be, and
 * that is proven. Decode alone counts here, so that prompts matter to the limit only. */
static void test_full_size(void **state) {
  (void)state;
  for (int m = 2; m < 4; m++) {
    ilp_case c;
    ilp_result *free_one, *r = NULL;
    ilp_refusal x;
    assert_true(case_large(&c, 60, 2, 256, &case_machines[m], 5, SKEW_MIXED, false, 1));
    prompts_of(&c, 5);
    c.p.prefill.weight = 0;
    c.p.depths = 1;
    c.p.limit.ttft_ns = 1e18;
    must(ilp_solve(&c.p, NULL, &free_one));
    double fastest = free_one->objective_ns, ttft = free_one->evaluation.ttft_ns;
    assert_true(free_one->by_depth[0].ttft_price == 0);
    c.p.limit.ttft_ns = 0.2 * ttft; /* hopeless */
    assert_int_equal(ilp_solve(&c.p, &(ilp_options){.refusal = &x}, &r), HF_NO);
    assert_true(x.limits && x.proven && x.ttft_least_ns > c.p.limit.ttft_ns && x.ttft_least_ns <= ttft);
    assert_non_null(strstr(hf_error_line(), "in any placement"));
    double least = x.ttft_least_ns;
    assert_true(least < 0.999 * ttft);
    c.p.limit.ttft_ns = 0.5 * ttft + 0.5 * least;
    must(ilp_solve(&c.p, &(ilp_options){.refusal = &x}, &r));
    assert_true(r->evaluation.keeps_limits && r->evaluation.ttft_over_ns == 0 && !x.limits);
    assert_true(r->objective_ns >= fastest * (1 - free_one->gap - 1e-9));
    assert_true(r->by_depth[0].ttft_price > 0);
    /* On the first machine all chunks there can be lie within 0.2 %: so near to the least, each 0.01 % of it costs much. */
    if (!(r->gap <= (m == 2 ? 2.5e-2 : 5e-3))) fail_msg("%s: gap %g with a limit", case_machines[m].name, r->gap);
    c.p.limit.ttft_ns = 0.9 * r->evaluation.ttft_ns;
    ilp_evaluation e;
    must(ilp_evaluate(&c.p, r->on_device, r->depth, NULL, &e));
    assert_true(!e.keeps_limits && fabs(e.ttft_over_ns / (0.1 * e.ttft_ns) - 1) < 1e-6 && e.step_over_ns == 0);
    ilp_result_free(r);
    ilp_result_free(free_one);
    case_free(&c);
  }
}

/* Layers that use a place and layers that do not, in one program: what the benchmark shows in full. */
static void test_classes(void **state) {
  (void)state;
  static const ilp_counters recorded = {
      .lp_iterations = 23134, .nodes = 605, .moves = 9919131, .priced = 142308, .expert_times = 1544192, .glpk_solves = 389};
  ilp_counters spent = {0};
  for (int i = 0; i < 4; i++) {
    ilp_case c;
    ilp_result *r;
    bool four = i == 3, remote = i == 2;
    assert_true(case_large(&c, 60, 2, 256, &case_machines[i < 2 ? 2 + i : 0], four ? 256 : 5, SKEW_MIXED, false, 1));
    if (i < 2) prompts_of(&c, 5);
    if (four) assert_true(case_unlike(&c, 0));
    if (remote) {
      must(stage_table_places(c.t, 1, 1));
      case_machines_from(&c, 2);
    }
    if (four || remote) c.p.depths = 1;
    must(ilp_solve(&c.p, NULL, &r));
    if (!(r->gap <= (four ? 5e-3 : 2e-3))) fail_msg("case %d: gap %g", i, r->gap);
    assert_true(r->evaluation.fits && r->bound_ns <= r->objective_ns);
    case_add_work(&spent, &r->counters);
    ilp_result_free(r);
    case_free(&c);
  }
  if (case_more_work(&spent, &recorded) != NULL) fail_msg("more work than recorded: %s", case_more_work(&spent, &recorded));
}

static void test_bad_limits(void **state) {
  (void)state;
  static const struct {
    ilp_limits limit;
    const char *part;
  } bad[] = {{{.step_ns = -1}, "limit.step_ns"},
             {{.step_ns = NAN}, "limit.step_ns"},
             {{.ttft_ns = INFINITY, .chunks = 1}, "limit.ttft_ns"},
             {{.ttft_ns = 1e9}, "limit.chunks"},
             {{.ttft_ns = 1e9, .chunks = 1}, "prefill.load"}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    ilp_case c;
    ilp_result *r = NULL;
    assert_true(case_small(&c, 3, 4, false, 5));
    c.p.limit = bad[i].limit;
    assert_int_equal(ilp_solve(&c.p, NULL, &r), HF_INPUT);
    assert_non_null(strstr(hf_error_line(), bad[i].part));
    assert_null(r);
    case_free(&c);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_brute_force),
      cmocka_unit_test(test_full_size),
      cmocka_unit_test(test_classes),
      cmocka_unit_test(test_bad_limits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
