/* Conversations in a simulation: what is shared, read back and computed again, by hand and by accounting for every page and slot. */
#include "planner/sim/sim.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/text.h"
#include "planner/plan_standby.h"
#include "planner/sim/random.h"

enum { LAYERS = 3, EXPERTS = 4, PAGE = 8 };

/* A token costs 1000 ns of attention in each layer, context nothing: computing is counted by the clock. */
static void machine(stage_table **t, popularity **pop, bool device) {
  assert_int_equal(stage_table_new(LAYERS, t), HF_OK);
  (*t)->n_experts = EXPERTS;
  (*t)->top_k = 2;
  (*t)->one_resource = !device;
  (*t)->step_fixed_ns = 500;
  for (int l = 0; l < LAYERS; l++)
    (*t)->layer[l] =
        (stage_layer){.attn = {2, {1, 2}, {1000, 2000}}, .shared = {1, {1}, {0}}, .dexp = {1, {1}, {0}}, .cexp = {1, {1}, {0}}};
  (*t)->head = (stage_curve){1, {1}, {700}};
  assert_int_equal(popularity_new(LAYERS, EXPERTS, pop), HF_OK);
}

static sim_options talk(const stage_table *t, const popularity *pop, int users, int slots, int context) {
  return (sim_options){.table = t,
                       .pop = pop,
                       .users = users,
                       .depth = 1,
                       .prompt_tokens = 20,
                       .output_tokens = 5,
                       .requests_per_user = 4,
                       .seed = 1,
                       .chunk_tokens = 4096,
                       .page_tokens = PAGE,
                       .n_pages = slots * ((context + PAGE - 1) / PAGE),
                       .max_context = context,
                       .max_seqs = slots,
                       .sessions = true,
                       .kv_token_ns = 100};
}

static sim_result run(const sim_options *o) {
  sim_result r;
  if (sim_run(o, &r) != HF_OK) fail_msg("%s", hf_error_line());
  assert_int_equal(r.parking.pages_lost, 0);
  assert_int_equal(r.parking.slots_lost, 0);
  assert_true(r.parking.shared_tokens + r.parking.restored_tokens < r.prompt_tokens);
  return r;
}

/* Turn k has 20 + 25 k tokens of prompt and leaves 24 + 25 k in pages. Two users take turns in a place for one. */
static void by_hand(void **state) {
  (void)state;
  stage_table *t;
  popularity *pop;
  for (int device = 0; device < 2; device++) {
    machine(&t, &pop, device);
    sim_options o = talk(t, pop, 2, 1, 128);
    const int all = 2 * (20 + 45 + 70 + 95), before = 2 * (24 + 49 + 74);
    sim_result none = run(&o);
    assert_int_equal(none.requests, 8);
    assert_int_equal(none.prompt_tokens, all);
    assert_int_equal(none.parking.restored_tokens, 0);
    o.standby_pages = 2 * 16 + 1;
    sim_result ram = run(&o);
    assert_int_equal(ram.prompt_tokens, all);
    assert_int_equal(ram.parking.restored_tokens + ram.parking.shared_tokens, before); /* nothing is computed twice */
    assert_true(ram.parking.restored_tokens > before / 4);
    assert_int_equal(ram.parking.left_out_pages, 0);
    assert_true(ram.parking.resumed >= 4); /* of six, the pages of two short first turns are there still */
    assert_true(fabs(ram.parking.resume_s - 100e-9 * (double)ram.parking.restored_tokens) < 1e-12);
    /* the steps are the same, but for tokens that they compute and those they wait for */
    assert_int_equal(ram.steps, none.steps);
    const double more = (double)(before - none.parking.shared_tokens) * LAYERS * 1000e-9;
    assert_true(fabs(none.wall_s - ram.wall_s - more + ram.parking.resume_s) < 1e-9);
    o.resolution = SIM_STEPS;
    sim_result steps = run(&o);
    assert_true(fabs(steps.wall_s - ram.wall_s) < 1e-12);
    assert_int_equal(steps.parking.restored_tokens, ram.parking.restored_tokens);
    /* whoever is alone keeps the pages */
    o = talk(t, pop, 1, 1, 128);
    sim_result one = run(&o);
    assert_int_equal(one.parking.shared_tokens, 24 / PAGE * PAGE + 49 / PAGE * PAGE + 74 / PAGE * PAGE);
    stage_table_free(t);
    popularity_free(pop);
  }
}

/* Those who come at once wait for the one who computes what all begin with. */
static void beginnings_are_computed_once(void **state) {
  (void)state;
  stage_table *t;
  popularity *pop;
  machine(&t, &pop, false);
  sim_options o = talk(t, pop, 6, 6, 256);
  o.shared_tokens = 40;
  o.requests_per_user = 1;
  sim_result r = run(&o);
  assert_int_equal(r.prompt_tokens, 6 * 60);
  assert_int_equal(r.parking.shared_tokens, 5 * 40);
  stage_table_free(t);
  popularity_free(pop);
}

static void everything_is_accounted_for(void **state) {
  (void)state;
  stage_table *t;
  popularity *pop;
  sim_rng r = sim_rng_of(7, 0);
  int64_t restored = 0, left_out = 0, resumed = 0;
  for (int i = 0; i < 300; i++) {
    machine(&t, &pop, sim_rng_next(&r) % 2);
    const int slots = 1 + (int)(sim_rng_next(&r) % 6), users = 1 + (int)(sim_rng_next(&r) % 20);
    sim_options o = talk(t, pop, users, slots, 120 + (int)(sim_rng_next(&r) % 200));
    o.seed = (uint64_t)i;
    o.depth = t->one_resource ? 1 : 1 + (int)(sim_rng_next(&r) % 3);
    o.length_spread = sim_uniform(&r) * 0.9;
    o.turns = (int)(sim_rng_next(&r) % 6);
    o.shared_tokens = sim_rng_next(&r) % 2 ? (int)(sim_rng_next(&r) % 60) : 0;
    o.standby_pages = sim_rng_next(&r) % 3 ? (int)(sim_rng_next(&r) % 300) : 0;
    o.chunk_tokens = 1 + (int)(sim_rng_next(&r) % 100);
    o.think_s = sim_rng_next(&r) % 2 ? 1e-4 * sim_uniform(&r) : 0;
    o.resolution = sim_rng_next(&r) % 2 ? SIM_STEPS : SIM_LAYERS;
    const sim_result s = run(&o);
    assert_int_equal(s.requests + s.refused, users * o.requests_per_user);
    assert_true(o.standby_pages > 0 || s.parking.restored_tokens + s.parking.mirrored_tokens == 0);
    restored += s.parking.restored_tokens;
    left_out += s.parking.left_out_pages;
    resumed += s.parking.resumed;
    stage_table_free(t);
    popularity_free(pop);
  }
  assert_true(restored > 1000 && left_out > 100 && resumed > 100);
}

/* The second turn of "a" comes while the first runs: it begins when that has ended, and shares its pages. */
static void turns_of_a_trace_wait_for_each_other(void **state) {
  (void)state;
  static const char path[] = "test_planner_sim_sessions.jsonl",
                    lines[] = "{\"arrival_s\": 0, \"prompt_tokens\": 40, \"output_tokens\": 9, \"session\": \"a\"}\n"
                              "{\"arrival_s\": 0.00001, \"prompt_tokens\": 60, \"output_tokens\": 9, \"session\": \"a\"}\n"
                              "{\"arrival_s\": 0.00002, \"prompt_tokens\": 30, \"output_tokens\": 9, \"session\": \"b\"}\n"
                              "{\"arrival_s\": 0.00003, \"prompt_tokens\": 30, \"output_tokens\": 9}\n"
                              "{\"arrival_s\": 1, \"prompt_tokens\": 20, \"output_tokens\": 9, \"session\": \"a\"}\n";
  stage_table *t;
  popularity *pop;
  machine(&t, &pop, false);
  assert_int_equal(hf_write_file(path, lines, sizeof lines - 1), HF_OK);
  sim_options o = talk(t, pop, 1, 4, 128);
  o.sessions = false;
  o.arrivals = SIM_TRACE;
  o.trace_path = path;
  const sim_result r = run(&o);
  assert_int_equal(r.requests, 5);
  assert_int_equal(r.parking.shared_tokens, 48); /* of the second turn; the last is no turn of that text */
  unlink(path);
  stage_table_free(t);
  popularity_free(pop);
}

static void what_makes_no_sense_is_refused(void **state) {
  (void)state;
  stage_table *t;
  popularity *pop;
  sim_result r;
  machine(&t, &pop, false);
  const sim_options good = talk(t, pop, 2, 1, 128);
  for (int i = 0; i < 6; i++) {
    sim_options o = good;
    if (i == 0) o.arrivals = SIM_POISSON, o.rate_per_s = 1, o.requests = 2;
    if (i == 1) o.prefix_share = 0.5;
    if (i == 2) o.max_context = o.n_pages = 0;
    if (i == 3) o.standby_pages = -1;
    if (i == 4) o.kv_token_ns = NAN;
    if (i == 5) o.turns = -1;
    assert_int_equal(sim_run(&o, &r), HF_INPUT);
    hf_clear_error();
  }
  stage_table_free(t);
  popularity_free(pop);
}

/* A token of 3 layers of 512 bytes. Over a link of 1 byte a ns; without a device memory of 4 is read and written, however cheap reading beside attention
 * is; without experts attention says how long its rows take. */
static void reading_back(void **state) {
  (void)state;
  stage_table *t;
  popularity *pop;
  const int64_t expert[LAYERS] = {4096, 4096, 4096};
  const plan p = {.users = 2, .context = 60, .kv_page_tokens = 16, .kv_bytes = INT64_C(2) * 64 * LAYERS * 512};
  machine(&t, &pop, true);
  const plan_eval v = {.table = t, .expert_bytes = (int64_t *)expert};
  for (int l = 0; l < LAYERS; l++) {
    t->layer[l].moe = l > 0;
    t->layer[l].upload_ns = 4096;
    t->layer[l].cexp = (stage_curve){2, {1, 2}, {1024, 2048}};
    t->layer[l].attn_ctx_ns = 100;
  }
  assert_true(fabs(plan_kv_token_ns(&p, &v) - 3 * 512) < 1e-9);
  for (int l = 0; l < LAYERS; l++) t->layer[l].upload_ns = 0;
  assert_true(fabs(plan_kv_token_ns(&p, &v) - 2 * 3 * 512 / 4.0) < 1e-9);
  for (int l = 0; l < LAYERS; l++) t->layer[l].moe = false;
  assert_true(fabs(plan_kv_token_ns(&p, &v) - 2 * 3 * 100) < 1e-9);
  stage_table_free(t);
  popularity_free(pop);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(by_hand),
      cmocka_unit_test(reading_back),
      cmocka_unit_test(beginnings_are_computed_once),
      cmocka_unit_test(everything_is_accounted_for),
      cmocka_unit_test(turns_of_a_trace_wait_for_each_other),
      cmocka_unit_test(what_makes_no_sense_is_refused),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
