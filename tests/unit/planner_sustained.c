/* The sustained load by hand: one user on a machine whose steps last always the same. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "planner/plan_sustained.h"

static stage_table *table;
static popularity *pop;

static int set_up(void **state) {
  (void)state;
  assert_int_equal(stage_table_new(1, &table), HF_OK);
  table->step_fixed_ns = 1e6; /* every step lasts a millisecond, whatever is in it */
  assert_int_equal(popularity_new(1, 0, &pop), HF_OK);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  stage_table_free(table);
  popularity_free(pop);
  return 0;
}

static sim_options load(int users) {
  return (sim_options){.table = table,
                       .pop = pop,
                       .users = users,
                       .depth = 1,
                       .prompt_tokens = 1000,
                       .output_tokens = 50,
                       .seed = 1,
                       .chunk_tokens = 100,
                       .page_tokens = 16};
}

static void same_percentiles(const plan_percentiles *a, const plan_percentiles *b) {
  assert_true(a->p50 == b->p50 && a->p90 == b->p90 && a->p95 == b->p95 && a->p99 == b->p99);
}

static void same(const sustained_result *a, const sustained_result *b) {
  same_percentiles(&a->ttft_s, &b->ttft_s);
  same_percentiles(&a->tpot_s, &b->tpot_s);
  same_percentiles(&a->e2e_s, &b->e2e_s);
  assert_true(a->requests == b->requests && a->tok_per_s == b->tok_per_s && a->goodput == b->goodput);
  assert_true(a->device_busy == b->device_busy && a->cpu_busy == b->cpu_busy && a->given_up == b->given_up);
}

typedef struct {
  int64_t n;
  double e2e_s;
} heard;

static void hear(void *user, const sim_request *r) {
  heard *h = user;
  h->n++;
  h->e2e_s += 1e-9 * (double)(r->end_ns - r->arrival_ns);
}

/* With all that the simulator tells: the same requests count, and their means, rates and energy belong together. */
static void with_the_rest(void **state) {
  (void)state;
  sim_options o = load(8);
  sustained_result r, again;
  sim_result all;
  heard h = {0};
  assert_int_equal(sustained_run(&o, 0, 0, &r), HF_OK);
  o.slo_ttft_s = r.ttft_s.p50;
  o.on_request = hear;
  o.request_user = &h;
  o.power[SIM_CPU] = (sim_power){100, 100};
  assert_int_equal(sustained_simulate(&o, &again, &all), HF_OK);
  assert_true(again.tok_per_s == r.tok_per_s && all.tok_per_s_wall == r.tok_per_s && all.requests == r.requests);
  same_percentiles(&all.ttft_s, &r.ttft_s);
  same_percentiles(&all.tpot_s, &r.tpot_s);
  same_percentiles(&all.e2e_s, &r.e2e_s);
  assert_true(h.n >= r.requests + sustained_warm_up(8));
  assert_float_equal((double)all.output_tokens / all.wall_s, r.tok_per_s, 1e-9 * r.tok_per_s);
  assert_float_equal(all.energy_j, 100 * all.wall_s, 1e-6 * all.energy_j);
  assert_true(all.ttft_mean_s > 0.5 * r.ttft_s.p50 && all.ttft_mean_s < r.ttft_s.p99);
  assert_true(all.goodput == again.goodput && all.goodput > 0.4 && all.goodput < 0.6);
  assert_float_equal(all.goodput_req_per_s, all.goodput * (double)all.requests / all.wall_s, 1e-9);
  assert_true(all.goodput_tok_per_s > 0 && all.goodput_tok_per_s < all.tok_per_s_wall);
  assert_true(all.wait_s.p99 >= 0 && all.wait_mean_s < all.ttft_mean_s);
}

static void one_user(void **state) {
  (void)state;
  sim_options o = load(1);
  sustained_result r;
  assert_int_equal(sustained_run(&o, 0, 0, &r), HF_OK);
  assert_int_equal(r.requests, SUSTAINED_LEAST);
  assert_false(r.given_up);
  assert_float_equal(r.tpot_s.p50, 1e-3, 1e-9);
  assert_float_equal(r.tpot_s.p95, 1e-3, 1e-9);
  assert_true(r.ttft_s.p50 >= 8e-3 && r.ttft_s.p99 <= 13e-3 + 1e-9); /* 750 to 1250 tokens in chunks of 100 */
  assert_true(r.ttft_s.p95 > r.ttft_s.p50);                          /* lengths vary */
  assert_float_equal(r.tok_per_s, 50 / (10.5e-3 + 49e-3), 0.05 * 840);
}

/* Prompts of others wait for one another: the first token takes longer, and answers are delivered to all. */
static void many_users(void **state) {
  (void)state;
  sim_options o = load(8);
  sustained_result one, r, again;
  assert_int_equal(sustained_run(&o, 0, 0, &r), HF_OK);
  assert_int_equal(r.requests, 100);
  assert_int_equal(sustained_run(&o, 0, 0, &again), HF_OK);
  same(&r, &again);
  o = load(1);
  assert_int_equal(sustained_run(&o, 0, 0, &one), HF_OK);
  assert_true(r.ttft_s.p95 > 1.5 * one.ttft_s.p95);
  assert_true(r.tok_per_s > 2 * one.tok_per_s && r.tok_per_s < 8 * one.tok_per_s);
  assert_int_equal(sustained_requests(64), 128);
  /* Enough requests: other draws of lengths say much the same. */
  for (uint64_t seed = 2; seed < 6; seed++) {
    o = load(8);
    o.seed = seed;
    assert_int_equal(sustained_run(&o, 0, 0, &again), HF_OK);
    if (fabs(again.ttft_s.p95 / r.ttft_s.p95 - 1) > 0.1 || fabs(again.tok_per_s / r.tok_per_s - 1) > 0.08)
      fail_msg("seed %d: p95 %g s and %g tokens/s, not %g and %g", (int)seed, again.ttft_s.p95, again.tok_per_s, r.ttft_s.p95,
               r.tok_per_s);
  }
}

static void goodput_and_giving_up(void **state) {
  (void)state;
  sim_options o = load(8);
  sustained_result whole, r;
  assert_int_equal(sustained_run(&o, 0, 0, &whole), HF_OK);
  assert_true(whole.goodput == 1); /* no limit */
  o.slo_ttft_s = whole.ttft_s.p50;
  assert_int_equal(sustained_run(&o, 0, 0, &r), HF_OK);
  assert_float_equal(r.goodput, 0.5, 0.06);
  assert_int_equal(sustained_run(&o, whole.ttft_s.p95, 0, &r), HF_OK);
  assert_false(r.given_up);
  assert_true(r.ttft_s.p95 == whole.ttft_s.p95 && r.requests == whole.requests);
  assert_int_equal(sustained_run(&o, 0.8 * whole.ttft_s.p95, 0, &r), HF_OK);
  assert_true(r.given_up && r.requests < whole.requests);
  assert_true(r.ttft_s.p95 > 0.8 * whole.ttft_s.p95 && r.ttft_s.p95 <= whole.ttft_s.p95);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(one_user), cmocka_unit_test(many_users),
                                     cmocka_unit_test(goodput_and_giving_up), cmocka_unit_test(with_the_rest)};
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
