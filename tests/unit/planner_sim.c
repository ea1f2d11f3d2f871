/* The simulator: equal to the evaluator's step where it must be, Little's law, determinism, the trace. */
#include "base/mem.h"
#include "planner/ilp/ilp.h"
#include "planner/sim/chrome.h"
#include "planner/sim/sim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { LAYERS = 4, EXPERTS = 8 };

static stage_table *table(bool one_resource) {
  stage_table *t = NULL;
  assert_int_equal(stage_table_new(LAYERS, &t), HF_OK);
  t->n_experts = EXPERTS;
  t->top_k = 2;
  t->step_fixed_ns = 1000;
  t->one_resource = one_resource;
  t->head = (stage_curve){.n = 2, .tok = {1, 64}, .ns = {500, 900}};
  for (int l = 0; l < LAYERS; l++) {
    stage_layer *y = &t->layer[l];
    y->moe = l > 0;
    y->attn = (stage_curve){.n = 2, .tok = {1, 64}, .ns = {300, 1000}};
    y->attn_ctx_ns = 0.25;
    y->shared = (stage_curve){.n = 2, .tok = {1, 64}, .ns = {100, 400}};
    if (!y->moe) continue;
    y->cexp = (stage_curve){.n = 2, .tok = {1, 64}, .ns = {400, 2000}};
    y->cexp_fixed_ns = 50;
    y->dexp = (stage_curve){.n = 2, .tok = {1, 64}, .ns = {100, 300}};
    y->hand_ns = one_resource ? 0 : 60;
    y->hand_tok_ns = one_resource ? 0 : 2;
  }
  return t;
}

static popularity *even(void) {
  popularity *p = NULL;
  assert_int_equal(popularity_new(LAYERS, EXPERTS, &p), HF_OK);
  for (int i = 0; i < LAYERS * EXPERTS; i++) p->p[i] = 2.0 / EXPERTS;
  return p;
}

static sim_options options(const stage_table *t, const popularity *p, const uint8_t *dev, int users, int depth) {
  sim_options o = {.table = t,
                   .pop = p,
                   .on_device = dev,
                   .users = users,
                   .depth = depth,
                   .prompt_tokens = 20,
                   .output_tokens = 30,
                   .requests_per_user = 2,
                   .seed = 1,
                   .chunk_tokens = 64,
                   .page_tokens = 16};
  return o;
}

/* Sum of the exact objective over the contexts that a group of users in step goes through. */
static double steps_ns(const stage_table *t, const popularity *p, const uint8_t *dev, int users, int from, int n) {
  int64_t bytes[LAYERS] = {1, 1, 1, 1};
  ilp_problem prob = {.table = t, .pop = p, .users = users, .depths = 1, .expert_bytes = bytes, .n_devices = dev != NULL};
  prob.device[0].expert_bytes_free[0] = 1000;
  double sum = 0;
  for (int i = 0; i < n; i++) {
    ilp_evaluation e;
    prob.context = from + i;
    assert_int_equal(ilp_evaluate(&prob, dev, 1, NULL, &e), HF_OK);
    sum += e.objective_ns;
  }
  return sum;
}

/* At depth 1 the simulated decode is the evaluator's, up to half a ns per stage. */
static void depth_one_is_the_evaluator(void **state) {
  (void)state;
  uint8_t dev[LAYERS * EXPERTS] = {0};
  for (int i = EXPERTS; i < LAYERS * EXPERTS; i += 3) dev[i] = 1;
  for (int one = 0; one < 2; one++) {
    stage_table *t = table(one == 1);
    popularity *p = even();
    const uint8_t *placed = one == 1 ? NULL : dev;
    for (int users = 1; users <= 3; users += 2) {
      sim_options o = options(t, p, placed, users, 1);
      sim_result r;
      assert_int_equal(sim_run(&o, &r), HF_OK);
      /* Both requests of a user: 29 decode steps over contexts 21..49 (the new token sees itself). */
      double expect = 2 * steps_ns(t, p, placed, users, 21, 29);
      double tolerance = 2 * 29 * (LAYERS * 5 + 2) * 0.5;
      assert_true(fabs(r.decode_s * 1e9 - expect) <= tolerance);
      assert_true(fabs(r.decode_tok_per_s * expect * 1e-9 - 2.0 * 29 * users) < 1e-3 * 58 * users);
      assert_int_equal(r.requests, 2 * users);
      assert_int_equal(r.output_tokens, 60 * users);
      assert_int_equal(r.steps, 2 * 30);
      assert_true(fabs(r.tpot_s.p50 * 29 * 1e9 - expect / 2) <= tolerance);
    }
    popularity_free(p);
    stage_table_free(t);
  }
}

/* Prompts choose other experts than what is decoded: each kind of step has its own times, drawn ones too. */
static void prompts_choose_their_own_experts(void **state) {
  (void)state;
  stage_table *t = table(false);
  popularity *p = even();
  uint8_t dev[LAYERS * EXPERTS] = {0};
  for (int i = 0; i < LAYERS * EXPERTS; i++) dev[i] = i % EXPERTS < 2; /* the device has experts 0 and 1 */
  for (int sampled = 0; sampled < 2; sampled++) {
    sim_result same, apart;
    sim_options o = options(t, p, dev, 1, 1);
    o.sample_routing = sampled;
    assert_int_equal(sim_run(&o, &same), HF_OK);
    assert_int_equal(hf_alloc(&p->prefill, LAYERS * EXPERTS, sizeof *p->prefill, "test"), HF_OK);
    for (int i = 0; i < LAYERS * EXPERTS; i++) p->prefill[i] = i % EXPERTS < 2; /* prompts never ask the CPU */
    assert_int_equal(sim_run(&o, &apart), HF_OK);
    assert_true(apart.ttft_s.p50 < 0.95 * same.ttft_s.p50);
    assert_true(fabs(apart.tpot_s.p50 - same.tpot_s.p50) < 1e-12);
    free(p->prefill);
    p->prefill = NULL;
  }
  popularity_free(p);
  stage_table_free(t);
}

/* Mean number in the system = arrival rate * mean time in it, with two independent accounts. */
static void littles_law(void **state) {
  (void)state;
  stage_table *t = table(false);
  popularity *p = even();
  for (int depth = 1; depth <= 4; depth++) {
    sim_options o = options(t, p, NULL, 7, depth);
    o.length_spread = 0.6;
    o.requests_per_user = 5;
    o.n_pages = 9; /* not enough for all: some wait */
    sim_result r;
    assert_int_equal(sim_run(&o, &r), HF_OK);
    assert_int_equal(r.requests, 35);
    assert_true(fabs(r.in_system - r.e2e_sum_s / r.wall_s) < 1e-9);
    assert_true(r.in_system > 1 && r.in_system <= 7);
    assert_true(r.device_busy > 0 && r.device_busy <= 1 && r.cpu_busy > 0 && r.cpu_busy <= 1);
  }
  popularity_free(p);
  stage_table_free(t);
}

static void equal_seeds_give_equal_results(void **state) {
  (void)state;
  stage_table *t = table(false);
  popularity *p = even();
  sim_options o = options(t, p, NULL, 5, 3);
  o.length_spread = 0.5;
  o.requests_per_user = 4;
  sim_result a, b, c;
  memset(&a, 0, sizeof a);
  memset(&b, 0, sizeof b);
  assert_int_equal(sim_run(&o, &a), HF_OK);
  assert_int_equal(sim_run(&o, &b), HF_OK);
  assert_memory_equal(&a, &b, sizeof a);
  o.seed = 2;
  assert_int_equal(sim_run(&o, &c), HF_OK);
  assert_true(c.wall_s != a.wall_s);
  popularity_free(p);
  stage_table_free(t);
}

/* Two micro-batches overlap device and CPU, but never one resource with itself, and never more than both can give. */
typedef struct {
  int64_t device_end, cpu_end, device_ns, cpu_ns, events;
} watch;

static void on_trace(void *user, const rec_trace *r) {
  watch *w = user;
  assert_true(r->end_ns > r->start_ns);
  w->events++;
  if (strcmp(r->resource, "gpu0") == 0) {
    assert_true(r->start_ns >= w->device_end);
    w->device_end = r->end_ns;
    w->device_ns += r->end_ns - r->start_ns;
  }
  if (strcmp(r->resource, "cpu") == 0) {
    assert_true(r->start_ns >= w->cpu_end);
    w->cpu_end = r->end_ns;
    w->cpu_ns += r->end_ns - r->start_ns;
  }
}

static void depth_two_overlaps_without_sharing(void **state) {
  (void)state;
  stage_table *t = table(false);
  popularity *p = even();
  for (int l = 1; l < LAYERS; l++) { /* device and CPU equally busy, and nothing gets cheaper in company */
    t->layer[l].cexp = (stage_curve){.n = 2, .tok = {1, 64}, .ns = {500, 32000}};
    t->layer[l].attn = (stage_curve){.n = 2, .tok = {1, 64}, .ns = {1000, 64000}};
  }
  double rate[3];
  for (int depth = 1; depth <= 2; depth++) {
    watch w = {0};
    sim_options o = options(t, p, NULL, 4, depth);
    o.trace = on_trace;
    o.trace_user = &w;
    sim_result r;
    assert_int_equal(sim_run(&o, &r), HF_OK);
    rate[depth] = r.decode_tok_per_s;
    assert_true(w.events > 100);
    assert_true(fabs((double)w.device_ns * 1e-9 - r.device_busy * r.wall_s) < 1e-9);
    assert_true(fabs((double)w.cpu_ns * 1e-9 - r.cpu_busy * r.wall_s) < 1e-9);
    assert_true(w.device_ns <= (int64_t)(r.wall_s * 1e9 + 1) && w.cpu_ns <= (int64_t)(r.wall_s * 1e9 + 1));
  }
  assert_true(rate[2] > 1.1 * rate[1]);
  popularity_free(p);
  stage_table_free(t);
}

/* TTFT of the n-th user of a full house: chunks of prompts are served in order. */
static void prompts_queue_in_order(void **state) {
  (void)state;
  stage_table *t = table(false);
  popularity *p = even();
  sim_options o = options(t, p, NULL, 6, 1);
  o.chunk_tokens = 20;
  o.requests_per_user = 1;
  sim_result r;
  assert_int_equal(sim_run(&o, &r), HF_OK);
  assert_true(r.ttft_s.p99 > 5 * r.ttft_s.p50 / 3.5);
  assert_true(r.ttft_s.p50 < r.ttft_s.p90 && r.ttft_s.p90 <= r.ttft_s.p99);
  assert_true(r.prefill_tok_per_s > 0 && fabs(r.prefill_tok_per_s * r.ttft_s.p99 - 120) < 1e-6);
  popularity_free(p);
  stage_table_free(t);
}

static void bad_options_are_refused(void **state) {
  (void)state;
  stage_table *t = table(false);
  popularity *p = even();
  sim_result r;
  sim_options o = options(t, p, NULL, 0, 1);
  assert_int_equal(sim_run(&o, &r), HF_INPUT);
  o = options(t, p, NULL, 2, 9);
  assert_int_equal(sim_run(&o, &r), HF_INPUT);
  o = options(t, p, NULL, 2, 1);
  o.output_tokens = 0;
  assert_int_equal(sim_run(&o, &r), HF_INPUT);
  o = options(t, p, NULL, 2, 1);
  o.n_pages = 1; /* 50 tokens do not fit into 16 */
  assert_int_equal(sim_run(&o, &r), HF_NO);
  popularity_free(p);
  stage_table_free(t);
}

/* Every allocation in turn fails: an error, no leak, no crash. */
/* Times near the most that a table may state: no sum overflows, neither layer by layer nor step by step. */
static void absurd_times_are_refused(void **state) {
  (void)state;
  popularity *p = even();
  for (int i = 0; i < 10; i++) {
    stage_table *t = table(false);
    sim_options o = options(t, p, NULL, 3, 2);
    sim_result r;
    o.resolution = i % 2 == 0 ? SIM_LAYERS : SIM_STEPS;
    if (i / 2 == 0) t->step_fixed_ns = 1e18;
    else if (i / 2 == 1) t->layer[1].cexp.ns[0] = t->layer[1].cexp.ns[1] = 1e18;
    else if (i / 2 == 2) t->layer[1].attn_ctx_ns = 1e18;
    else if (i / 2 == 3) t->head.ns[0] = t->head.ns[1] = 1e18;
    else { /* each step could be, all of them together take too long */ t->step_fixed_ns = 4e15;
      o.output_tokens = 4000;
    }
    if (sim_run(&o, &r) != HF_INPUT) fail_msg("case %d was simulated", i);
    assert_non_null(strstr(hf_error_line(), i / 2 < 4 ? "stage table" : "73 years"));
    hf_clear_error();
    stage_table_free(t);
  }
  popularity_free(p);
}

static void failing_allocations(void **state) {
  (void)state;
  stage_table *t = table(false);
  popularity *p = even();
  sim_options o = options(t, p, NULL, 3, 2);
  int failed = 0;
  for (long n = 1; n < 200; n++) {
    sim_result r;
    hf_fail_alloc_at(n);
    hf_status st = sim_run(&o, &r);
    hf_fail_alloc_at(0);
    if (st == HF_OK) break;
    assert_int_equal(st, HF_MACHINE);
    failed++;
  }
  assert_in_range(failed, 4, 150);
  popularity_free(p);
  stage_table_free(t);
}

/* Events that found no memory: said when the trace would be written, whatever failed and was given up in between. */
static void a_trace_without_memory(void **state) {
  (void)state;
  sim_chrome c = {0};
  const rec_trace r = {.stage = "attn", .resource = "gpu0", .end_ns = 1};
  hf_fail_alloc_at(1);
  sim_chrome_add(&c, &r);
  hf_fail_alloc_at(0);
  sim_chrome_add(&c, &r);
  assert_int_equal(c.n, 0);
  hf_clear_error();
  assert_int_equal(sim_chrome_write(&c, "/dev/null"), HF_MACHINE);
  assert_non_null(strstr(hf_error_line(), "trace events"));
  sim_chrome_free(&c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(depth_one_is_the_evaluator),
      cmocka_unit_test(prompts_choose_their_own_experts),
      cmocka_unit_test(littles_law),
      cmocka_unit_test(equal_seeds_give_equal_results),
      cmocka_unit_test(depth_two_overlaps_without_sharing),
      cmocka_unit_test(prompts_queue_in_order),
      cmocka_unit_test(bad_options_are_refused),
      cmocka_unit_test(absurd_times_are_refused),
      cmocka_unit_test(failing_allocations),
      cmocka_unit_test(a_trace_without_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
