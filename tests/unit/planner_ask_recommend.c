/* The pruned search against all combinations of small spaces; bounds hold; results do not depend on the number of threads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "planner/ask/recommend.h"
#include "planner/plan_inputs.h"

static recommend_question *q;
static recommend_result *pruned, *all;
static plan_request req;
static model *m;

static int set_up(void **state) {
  (void)state;
  plan_use_catalog();
  q = calloc(1, sizeof *q);
  pruned = calloc(1, sizeof *pruned);
  all = calloc(1, sizeof *all);
  req = (plan_request){.model = "qwen3-30b-a3b", .users = 3, .context = 1024, .prompt_tokens = 256, .output_tokens = 64};
  return q == NULL || pruned == NULL || all == NULL || ask_open_model(&req, &m) != HF_OK;
}

static int tear_down(void **state) {
  (void)state;
  model_close(m);
  free(q);
  free(pruned);
  free(all);
  return 0;
}

static void space(const char *gpus, const char *cpus) {
  *q = (recommend_question){.dearer_factor = 1.35, .prune = true};
  assert_int_equal(recommend_space_default(&q->space), HF_OK);
  assert_int_equal(recommend_space_list("--gpus", "gpus", gpus, &q->space), HF_OK);
  assert_int_equal(recommend_space_list("--cpus", "cpus", cpus, &q->space), HF_OK);
  assert_int_equal(recommend_space_list("--gpu-counts", "gpu_counts", "1", &q->space), HF_OK);
  assert_int_equal(recommend_space_list("--dimm-sizes", "dimm_bytes", "16G,32G", &q->space), HF_OK);
}

static void check_counts(const recommend_result *r) {
  int64_t sum = 0;
  for (int k = 0; k < RULE_N; k++) sum += r->counts[k];
  assert_int_equal(sum, r->considered);
}

static void search(bool prune, int threads, recommend_result *out) {
  q->prune = prune;
  q->dearer_factor = prune ? 1.35 : 1e9;
  if (recommend_search(q, &req, NULL, threads, NULL, NULL, out) != HF_OK) fail_msg("%s", hf_error_line());
  check_counts(out);
}

/* Whatever the demand, the winner of the pruned search is that of the whole one; nothing cheaper meets it. */
static void test_winner(void **state) {
  (void)state;
  const double demand[] = {10, 60, 90, 120, 200};
  for (int i = 0; i < 5; i++) {
    space("rtx4090,rtx3090,none", "epyc-9354,xeon-6787p,ryzen-9950x");
    q->slo.tok_per_s = demand[i];
    search(true, 0, pruned);
    search(false, 0, all);
    assert_int_equal(pruned->considered, all->considered);
    assert_true(pruned->planned <= all->planned);
    assert_int_equal(pruned->n > 0, all->n > 0);
    if (all->n == 0) continue;
    /* Of equally dear ones the pruned search keeps the one with the better figures, which need not be the same. */
    if (pruned->entry[0].c.price.likely != all->entry[0].c.price.likely)
      fail_msg("at %g tokens/s: %s, but of all it is %s", demand[i], pruned->entry[0].parts.name, all->entry[0].parts.name);
    for (int k = 0; k < pruned->n; k++) assert_true(pruned->entry[k].c.tok_per_s_wall >= demand[i] * (1 - 1e-9));
    for (int k = 1; k < pruned->n; k++) assert_true(pruned->entry[k].c.price.likely >= pruned->entry[k - 1].c.price.likely);
  }
}

static void test_slo_and_budget(void **state) {
  (void)state;
  space("rtx4090,none", "epyc-9354,ryzen-9950x");
  q->slo = (ask_slo){.tpot_s = 0.04, .ttft_s = 20};
  search(true, 0, pruned);
  search(false, 0, all);
  assert_true(all->n > 0);
  assert_true(pruned->n > 0 && pruned->entry[0].c.price.likely == all->entry[0].c.price.likely);
  double price = all->entry[0].c.price.likely;
  q->budget = price - 1;
  search(true, 0, pruned);
  assert_int_equal(pruned->n, 0);
  assert_true(pruned->has_over_budget);
  assert_true(pruned->over_budget.c.price.likely == price);
  assert_true(pruned->counts[RULE_BUDGET] > 0);
  q->budget = price;
  search(true, 0, pruned);
  assert_true(pruned->n > 0 && pruned->entry[0].c.price.likely == price);
}

static void test_threads(void **state) {
  (void)state;
  space("rtx4090,rtx3090,none", "epyc-9354,ryzen-9950x");
  q->slo.tok_per_s = 60;
  search(true, 1, pruned);
  search(true, 5, all);
  assert_int_equal(pruned->n, all->n);
  assert_memory_equal(pruned->counts, all->counts, sizeof all->counts);
  for (int i = 0; i < all->n; i++) {
    assert_string_equal(pruned->entry[i].parts.name, all->entry[i].parts.name);
    assert_true(pruned->entry[i].c.decode_tok_per_s.likely == all->entry[i].c.decode_tok_per_s.likely);
    assert_true(pruned->entry[i].worst_regret == all->entry[i].worst_regret);
  }
}

/* No planned machine is faster than its bound would allow: prune by roofline with a demand just above what each one reaches. */
static void test_roofline(void **state) {
  (void)state;
  roofline r = {.dense_bytes = 10, .expert_bytes_touched = 100, .cpu_bytes_per_s = 50, .gpu_bytes_per_s = 0, .users = 4};
  assert_float_equal(roofline_tok_per_s(&r), 4 / (110.0 / 50), 1e-12);
  r.gpu_bytes_per_s = 450;
  r.gpu_mem_bytes = 40;
  assert_float_equal(roofline_tok_per_s(&r), 4 / (60.0 / 50), 1e-12); /* 60 stay with the CPU */
  r.gpu_mem_bytes = 1000;
  assert_float_equal(roofline_tok_per_s(&r), 4 / (110.0 / 500), 1e-12);
  space("rtx4090,rtx3090,none", "epyc-9354,ryzen-9950x");
  search(false, 0, all);
  assert_true(all->n > 0);
  for (int i = 0; i < all->n; i += 3) {
    q->slo.tok_per_s = all->entry[i].c.tok_per_s_wall * 0.999;
    double price = all->entry[i].c.price.likely;
    search(true, 0, pruned);
    assert_true(pruned->n > 0);
    assert_true(pruned->entry[0].c.price.likely <= price);
  }
}

static bool offered(const char *gpu) {
  for (int i = 0; i < q->space.n_gpus; i++)
    if (strcmp(q->space.gpu[i], gpu) == 0) return true;
  return false;
}

/* Nothing is proposed that runs none of our programs or cannot be bought new, unless it was asked for. */
static void test_by_name_only(void **state) {
  (void)state;
  assert_int_equal(recommend_space_default(&q->space), HF_OK);
  assert_true(offered("rtx5090") && offered("none"));
  assert_false(offered("rtx4090") || offered("v100-32g")); /* no longer sold */
  assert_false(offered("w7900") || offered("mi300x") || offered("arc-b580"));
  assert_int_equal(recommend_space_list("--gpus", "gpus", "w7900,rtx4090", &q->space), HF_OK);
  assert_true(offered("w7900") && offered("rtx4090"));
}

/* Limits of the sustained load: what a combination just keeps to is found again or beaten in price, however the bounds prune. */
static void test_sustained_limits(void **state) {
  (void)state;
  plan_request saved = req;
  req.prompt_tokens = 900; /* prompts interleave with most of the decoding */
  req.output_tokens = 48;
  space("rtx4090,rtx3090,none", "epyc-9354,xeon-6787p");
  search(false, 0, all);
  assert_true(all->n >= 2); /* all of the few, or three of many */
  int step = all->n > 6 ? all->n / 3 : 1;
  for (int i = 0; i < all->n; i += step) {
    const ask_case *c = &all->entry[i].c;
    q->slo = (ask_slo){.tpot_s = c->tpot_s.p95 * 1.0001, .ttft_s = c->ttft_s.p95 * 1.0001};
    search(true, 0, pruned);
    if (pruned->n == 0 || pruned->entry[0].c.price.likely > c->price.likely)
      fail_msg("%s keeps to %g s a token and was passed over", all->entry[i].parts.name, c->tpot_s.p95);
    for (int k = 0; k < pruned->n; k++) assert_true(pruned->entry[k].c.tpot_s.p95 <= q->slo.tpot_s * (1 + 1e-9));
  }
  req = saved;
}

/* Imagined machines settle groups of CPUs; what is just kept by one of the group is not lost. */
static void test_groups(void **state) {
  (void)state;
  int64_t imagined = 0;
  space("rtx4090", "epyc-9124,epyc-9335,epyc-9354,epyc-9355,xeon-6730p,xeon-6747p,xeon-6787p,xeon-6430,epyc-9374f");
  assert_int_equal(recommend_space_list("--dimm-sizes", "dimm_bytes", "16G", &q->space), HF_OK);
  search(false, 0, all);
  assert_true(all->n > 2);
  assert_int_equal(all->imagined, 0);
  for (int i = 0; i < all->n; i++) {
    const ask_case *c = &all->entry[i].c;
    q->slo = (ask_slo){.tpot_s = c->tpot_s.p95 * 1.0001};
    search(true, 0, pruned);
    imagined += pruned->imagined;
    if (pruned->n == 0 || pruned->entry[0].c.price.likely > c->price.likely)
      fail_msg("%s keeps to %g s a token and was passed over", all->entry[i].parts.name, c->tpot_s.p95);
  }
  q->slo = (ask_slo){.tpot_s = 0.9 * all->entry[0].c.tpot_s.p95};
  for (int i = 1; i < all->n; i++) q->slo.tpot_s = fmin(q->slo.tpot_s, 0.9 * all->entry[i].c.tpot_s.p95);
  search(true, 0, pruned); /* nothing keeps it: the nearest is named though groups were settled together */
  imagined += pruned->imagined;
  assert_int_equal(pruned->n, 0);
  assert_true(pruned->has_fastest);
  assert_true(pruned->fastest.shortfall <= 1.05 / 0.9);
  assert_true(imagined > 0);
}

/* Giving up changes no verdict: met is the same to the bit, missed is missed by at least so much. */
static double value(const recommend_entry *e) {
  return e->c.tok_per_s_wall / e->c.price.likely;
}

/* Without limits: the cheapest, the best value and the fastest of the pruned search are those of the whole one, within what is called no better. */
static void test_choices(void **state) {
  (void)state;
  static const double budget[] = {0, 9000, 4000};
  space("rtx5060ti-16g,rtx5070ti,rtx5090,none", "epyc-9115,ryzen-9950x,xeon-6338");
  q->slo = (ask_slo){0};
  for (size_t i = 0; i < sizeof budget / sizeof budget[0]; i++) {
    q->budget = budget[i];
    search(true, 2, pruned);
    search(false, 2, all);
    assert_true(pruned->choices && all->choices && pruned->n > 0 && all->n > 0);
    assert_true(pruned->planned < all->planned);
    assert_float_equal(pruned->entry[0].c.price.likely, all->entry[0].c.price.likely, 1);
    assert_true(value(recommend_lead(pruned)) >= 0.98 * value(recommend_lead(all)));
    assert_true(pruned->entry[pruned->quickest].c.tok_per_s_wall >= 0.98 * all->entry[all->quickest].c.tok_per_s_wall);
    for (int k = 0; k < pruned->n; k++) {
      assert_true(value(&pruned->entry[k]) <= value(recommend_lead(pruned)));
      assert_true(budget[i] == 0 || pruned->entry[k].c.price.likely <= budget[i]);
      assert_true(k == 0 || pruned->entry[k].c.price.likely >= pruned->entry[k - 1].c.price.likely);
    }
    assert_int_equal(pruned->regret.best, pruned->knee);
  }
  q->budget = 0;
}

static void test_give_up(void **state) {
  (void)state;
  ask_machine *machine = NULL;
  assert_int_equal(ask_machine_open(NULL, "cpu=epyc-9354,gpu=rtx4090", &machine), HF_OK);
  ask_case_spec s = {.machine = machine, .req = req, .quick = true, .one_depth = true, .no_interval = true};
  ask_case whole, brief;
  assert_int_equal(ask_evaluate(&s, &whole), HF_OK);
  assert_true(whole.feasible && !whole.given_up && whole.tok_per_s_wall < whole.decode_tok_per_s.likely);
  assert_true(whole.tpot_s.p50 <= whole.tpot_s.p95 && whole.ttft_s.p95 > 0);
  s.slo.tpot_s = whole.tpot_s.p95 * 1.0001;
  s.give_up = 1;
  assert_int_equal(ask_evaluate(&s, &brief), HF_OK);
  assert_true(!brief.given_up && brief.tpot_s.p95 == whole.tpot_s.p95 && brief.ttft_s.p95 == whole.ttft_s.p95);
  for (double share = 0.5; share < 1; share += 0.1) {
    s.slo.tpot_s = whole.tpot_s.p95 * share;
    assert_int_equal(ask_evaluate(&s, &brief), HF_OK);
    assert_true(brief.given_up && brief.tpot_s.p95 > s.slo.tpot_s && brief.tpot_s.p95 <= whole.tpot_s.p95 * (1 + 1e-12));
  }
  ask_machine_free(machine);
}

/* Boards of GPU modules are proposed whole, by name, in servers of their generation; modules of memory as they are sold. */
static void test_sold(void **state) {
  (void)state;
  assert_int_equal(recommend_space_default(&q->space), HF_OK);
  assert_false(offered("b200") || offered("h200") || offered("h100-sxm"));
  assert_true(offered("h200-nvl"));
  *q = (recommend_question){.dearer_factor = 1.35, .prune = true};
  assert_int_equal(recommend_space_default(&q->space), HF_OK);
  assert_int_equal(recommend_space_list("--gpus", "gpus", "h200", &q->space), HF_OK);
  assert_int_equal(recommend_space_list("--cpus", "cpus", "xeon-6338,xeon-6787p", &q->space), HF_OK);
  assert_int_equal(recommend_space_list("--dimm-sizes", "dimm_bytes", "32G", &q->space), HF_OK);
  assert_int_equal(recommend_space_list("--formats", "formats", "q4_k_m", &q->space), HF_OK);
  search(true, 0, pruned);
  assert_true(pruned->n > 0);
  for (int i = 0; i < pruned->n; i++) {
    const catalog_parts *p = &pruned->entry[i].parts;
    assert_true(p->gpu[0].count == 4 || p->gpu[0].count == 8);
    assert_string_equal(p->cpu, "xeon-6787p");
  }
  assert_int_equal(recommend_space_list("--gpu-counts", "gpu_counts", "1,2", &q->space), HF_OK);
  assert_int_equal(recommend_search(q, &req, NULL, 0, NULL, NULL, pruned), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "boards of 4 or 8"));
  hf_clear_error();
  space("none", "xeon-6338");
  assert_int_equal(recommend_space_list("--dimm-sizes", "dimm_bytes", "48G", &q->space), HF_OK);
  search(true, 0, pruned);
  assert_int_equal(pruned->counts[RULE_CONTRADICTORY], pruned->considered);
}

/* Nothing meets it: what is named is the nearest of the whole space within the budget, though the search gives up on most of it early. */
static void test_nearest(void **state) {
  (void)state;
  static const double budget[] = {0, 9000};
  space("rtx5060ti-16g,rtx5070ti,none", "epyc-9115,ryzen-9950x,xeon-6338");
  q->slo.tpot_s = 0.004;
  for (size_t i = 0; i < sizeof budget / sizeof budget[0]; i++) {
    q->budget = budget[i];
    search(true, 2, pruned);
    search(false, 2, all);
    assert_true(pruned->n == 0 && all->n == 0 && all->has_fastest && pruned->has_fastest);
    if (pruned->fastest.shortfall > 1.06 * all->fastest.shortfall)
      fail_msg("%s misses by %g, %s by %g", pruned->fastest.parts.name, pruned->fastest.shortfall, all->fastest.parts.name,
               all->fastest.shortfall);
    assert_true(q->budget == 0 || pruned->fastest.c.price.likely <= q->budget);
    for (int k = 0; k < pruned->n_rejected; k++)
      assert_true(!pruned->rejected[k].c.feasible || pruned->rejected[k].shortfall >= pruned->fastest.shortfall);
  }
  q->budget = 0;
}

/* Formats of one machine are one choice, of which the fastest leads. */
static void test_variants(void **state) {
  (void)state;
  space("rtx4090", "epyc-9354,ryzen-9950x");
  assert_int_equal(recommend_space_list("--formats", "formats", "q4_k_m,q5_k,q8_0", &q->space), HF_OK);
  q->slo.tok_per_s = 10;
  search(true, 0, pruned);
  int variants = 0;
  for (int i = 0; i < pruned->n; i++) {
    const recommend_entry *e = &pruned->entry[i];
    variants += e->n_variants;
    for (int v = 0; v < e->n_variants; v++) {
      assert_true(e->variant[v].tok_per_s_wall <= e->c.tok_per_s_wall);
      assert_string_not_equal(e->variant[v].format, e->c.format);
    }
    for (int k = 0; k < i; k++) {
      const catalog_parts *x = &e->parts, *y = &pruned->entry[k].parts;
      assert_false(strcmp(x->cpu, y->cpu) == 0 && x->sockets == y->sockets && strcmp(x->memory, y->memory) == 0 &&
                   x->dimm_bytes == y->dimm_bytes);
    }
  }
  assert_true(pruned->n > 0 && variants > 0);
}

static void test_bad_spaces(void **state) {
  (void)state;
  static const char *const docs[] = {"[]",
                                     "{\"gpu\": [\"rtx4090\"]}",
                                     "{\"gpus\": []}",
                                     "{\"gpus\": [\"rtx4009\"]}",
                                     "{\"gpus\": [\"rtx4090\", \"4090\"]}",
                                     "{\"gpus\": [4090]}",
                                     "{\"sockets\": [3]}",
                                     "{\"sockets\": [1.5]}",
                                     "{\"gpu_counts\": [0]}",
                                     "{\"dimm_bytes\": [-1]}",
                                     "{\"dimm_bytes\": [1e300]}",
                                     "{\"formats\": [\"q4_kk\"]}",
                                     "{\"cpus\": \"epyc-9354\"}"};
  for (size_t i = 0; i < sizeof docs / sizeof docs[0]; i++) {
    json *doc = NULL;
    space("none", "epyc-9354");
    assert_int_equal(json_parse(docs[i], strlen(docs[i]), "space.json", &doc), HF_OK);
    if (recommend_space_read(doc, "space.json", &q->space) == HF_OK) fail_msg("accepted: %s", docs[i]);
    assert_non_null(strstr(hf_error_line(), "space.json"));
    json_free(doc);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_winner),       cmocka_unit_test(test_slo_and_budget), cmocka_unit_test(test_threads),
      cmocka_unit_test(test_roofline),     cmocka_unit_test(test_groups),         cmocka_unit_test(test_sustained_limits),
      cmocka_unit_test(test_give_up),      cmocka_unit_test(test_choices),        cmocka_unit_test(test_bad_spaces),
      cmocka_unit_test(test_by_name_only), cmocka_unit_test(test_sold),           cmocka_unit_test(test_nearest),
      cmocka_unit_test(test_variants)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
