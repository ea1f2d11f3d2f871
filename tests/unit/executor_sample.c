/* From logits to tokens: what is drawn follows the probabilities, limits cut where they say, equal logits give the lower id; and latencies. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "executor/record.h"
#include "executor/sample.h"

enum { N = 6, DRAWS = 20000 };

static float scratch[2 * 64];

static void greedy_takes_the_lowest_of_equals(void **state) {
  (void)state;
  const float equal[] = {1, 3, 3, 3, 2}, all[] = {0, 0, 0}, minus[] = {-5, -4, -4};
  assert_int_equal(sample_argmax(equal, 5), 1);
  assert_int_equal(sample_argmax(all, 3), 0);
  assert_int_equal(sample_argmax(minus, 3), 1);
  sample_options o = {.temperature = 0, .top_p = 1};
  for (int step = 0; step < 50; step++) assert_int_equal(sample_token(&o, 3, step, equal, 5, scratch), 1);
  o = (sample_options){.temperature = 2, .top_k = 1, .top_p = 1};
  for (int step = 0; step < 50; step++) assert_int_equal(sample_token(&o, 3, step, equal, 5, scratch), 1);
}

static void counts_of(const sample_options *o, const float *logits, int n, int *count) {
  memset(count, 0, (size_t)n * sizeof *count);
  for (int i = 0; i < DRAWS; i++) count[sample_token(o, (uint64_t)(i % 97), i / 97, logits, n, scratch)]++;
}

/* Chi-square over N classes: far above any value that a right sampler gives, far below what a wrong one does. */
static void draws_follow_the_probabilities(void **state) {
  (void)state;
  const float logits[N] = {0.0f, 1.5f, -1.0f, 0.7f, 2.0f, -0.3f};
  for (int variant = 0; variant < 6; variant++) {
    double temperature = variant % 2 ? 0.7 : 1.6, p[N], sum = 0, chi = 0;
    sample_options o = {.temperature = temperature, .top_p = 1, .seed = (uint64_t)variant};
    int count[N];
    counts_of(&o, logits, N, count);
    for (int i = 0; i < N; i++) sum += p[i] = exp(logits[i] / temperature);
    for (int i = 0; i < N; i++) {
      double want = DRAWS * p[i] / sum;
      chi += (count[i] - want) * (count[i] - want) / want;
    }
    if (!(chi < 30)) fail_msg("temperature %g, seed %d: chi-square %g over %d classes", temperature, variant, chi, N);
  }
}

static void limits_cut_where_they_say(void **state) {
  (void)state;
  /* probabilities 0.4, 0.3, 0.2, 0.1 for ids 2, 0, 3, 1 */
  const float logits[4] = {logf(0.3f), logf(0.1f), logf(0.4f), logf(0.2f)};
  int count[4];
  sample_options o = {.temperature = 1, .top_k = 2, .top_p = 1, .seed = 1};
  counts_of(&o, logits, 4, count);
  assert_true(count[1] == 0 && count[3] == 0);
  assert_true(abs(count[2] - DRAWS * 4 / 7) < DRAWS / 50);
  o = (sample_options){.temperature = 1, .top_p = 0.75, .seed = 2}; /* 0.4 + 0.3 are not enough, the third is taken, too */
  counts_of(&o, logits, 4, count);
  assert_int_equal(count[1], 0);
  assert_true(count[3] > 0);
  assert_true(abs(count[3] - DRAWS * 2 / 9) < DRAWS / 50);
  o.top_p = 0.65;
  counts_of(&o, logits, 4, count);
  assert_true(count[1] == 0 && count[3] == 0 && count[0] > 0);
  o.top_p = 0; /* never nothing */
  counts_of(&o, logits, 4, count);
  assert_int_equal(count[2], DRAWS);
  o = (sample_options){.temperature = 1, .top_k = 3, .top_p = 0.5, .seed = 3}; /* of the three: 4/9, then 7/9 */
  counts_of(&o, logits, 4, count);
  assert_true(count[1] == 0 && count[3] == 0 && count[0] > 0);
  o = (sample_options){.temperature = 1, .top_k = 100, .top_p = 1};
  counts_of(&o, logits, 4, count);
  assert_true(count[0] && count[1] && count[2] && count[3]);
}

static void min_p_and_penalty(void **state) {
  (void)state;
  const float logits[4] = {logf(0.3f), logf(0.1f), logf(0.4f), logf(0.2f)};
  int count[4];
  sample_options o = {.temperature = 1, .top_p = 1, .min_p = 0.6, .seed = 4}; /* at least 0.24 */
  counts_of(&o, logits, 4, count);
  assert_true(count[1] == 0 && count[3] == 0);
  assert_true(abs(count[2] - DRAWS * 4 / 7) < DRAWS / 50);
  o.min_p = 1; /* the most likely always stays */
  counts_of(&o, logits, 4, count);
  assert_int_equal(count[2], DRAWS);
  const float some[4] = {2, -2, 0.5f, 0};
  float out[4];
  memcpy(out, some, sizeof out);
  sample_penalise(2, (int32_t[]){0, 1, 0, 3}, 4, some, out);
  sample_penalise(2, (int32_t[]){0}, 1, some, out); /* a second list counts no token twice */
  assert_true(out[0] == 1 && out[1] == -4 && out[2] == 0.5f && out[3] == 0);
}

static void probabilities_of_tokens(void **state) {
  (void)state;
  const float logits[5] = {logf(0.3f) + 50, logf(0.1f) + 50, logf(0.4f) + 50, logf(0.1f) + 50, logf(0.1f) + 50};
  float of_id, top[3];
  int32_t ids[3];
  sample_logprobs(logits, 5, 3, 3, &of_id, ids, top);
  assert_true(fabsf(of_id - logf(0.1f)) < 1e-5f);
  assert_true(ids[0] == 2 && ids[1] == 0 && ids[2] == 1); /* of equals the lower id */
  assert_true(fabsf(top[0] - logf(0.4f)) < 1e-5f && fabsf(top[2] - logf(0.1f)) < 1e-5f);
  sample_logprobs(logits, 5, 0, 0, &of_id, NULL, NULL);
  assert_true(fabsf(of_id - logf(0.3f)) < 1e-5f);
}

static void a_draw_depends_on_seed_request_and_step_alone(void **state) {
  (void)state;
  float logits[64];
  for (int i = 0; i < 64; i++) logits[i] = (float)(i % 7) / 7;
  sample_options o = {.temperature = 1, .top_p = 1, .seed = 9};
  int other_seed = 0, other_request = 0, other_step = 0;
  for (int i = 0; i < 200; i++) {
    int32_t id = sample_token(&o, 5, i, logits, 64, scratch);
    assert_int_equal(sample_token(&o, 5, i, logits, 64, scratch), id);
    sample_options p = o;
    p.seed = 10;
    other_seed += sample_token(&p, 5, i, logits, 64, scratch) != id;
    other_request += sample_token(&o, 6, i, logits, 64, scratch) != id;
    other_step += sample_token(&o, 5, i + 1, logits, 64, scratch) != id;
  }
  assert_true(other_seed > 150 && other_request > 150 && other_step > 150);
}

/* Nothing about the first token of the first request under the default seed makes it the most likely one. */
static void the_first_draw_is_a_draw(void **state) {
  (void)state;
  float logits[64] = {0};
  sample_options o = {.temperature = 1, .top_p = 1};
  assert_int_not_equal(sample_token(&o, 0, 0, logits, 64, scratch), 0);
}

static void odd_logits_give_a_valid_id(void **state) {
  (void)state;
  const float odd[][3] = {
      {NAN, NAN, NAN}, {NAN, 1, 2}, {INFINITY, 1, INFINITY}, {-INFINITY, -INFINITY, -INFINITY}, {1e38f, -1e38f, 0}};
  const double temperatures[] = {1e-320, 1e-50, 1e-6, 1, 100, 1e300};
  for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
    for (size_t t = 0; t < sizeof temperatures / sizeof temperatures[0]; t++) {
      sample_options o = {.temperature = temperatures[t], .top_p = 0.9, .seed = i};
      for (int s = 0; s < 20; s++) {
        int32_t id = sample_token(&o, 0, s, odd[i], 3, scratch);
        assert_in_range(id, 0, 2);
      }
    }
  }
  const float clear[] = {0, 5, 1};
  sample_options o = {.temperature = 1e-50, .top_p = 1};
  for (int s = 0; s < 20; s++) assert_int_equal(sample_token(&o, 0, s, clear, 3, scratch), 1);
}

static void latencies_of_requests(void **state) {
  (void)state;
  hf_percentiles ttft, tpot;
  serve_request r[4] = {
      {.arrival_s = 1, .first_token_s = 1.5, .end_s = 3.5, .n_out = 5},
      {.arrival_s = 0, .first_token_s = 0.25, .end_s = 0.25, .n_out = 1}, /* one token: no time between tokens */
      {.arrival_s = 2, .n_out = 0},                                       /* none: no time at all */
      {.arrival_s = 0, .first_token_s = 4, .end_s = 5, .n_out = 2}};
  assert_int_equal(record_latencies(r, 4, &ttft, &tpot), HF_OK);
  assert_true(ttft.p50 == 0.5 && ttft.p99 == 4);
  assert_true(tpot.p50 == 0.5 && tpot.p99 == 1);
  assert_int_equal(record_latencies(r, 0, &ttft, &tpot), HF_OK);
  assert_true(ttft.p99 == 0 && tpot.p99 == 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(greedy_takes_the_lowest_of_equals),
      cmocka_unit_test(draws_follow_the_probabilities),
      cmocka_unit_test(limits_cut_where_they_say),
      cmocka_unit_test(min_p_and_penalty),
      cmocka_unit_test(probabilities_of_tokens),
      cmocka_unit_test(a_draw_depends_on_seed_request_and_step_alone),
      cmocka_unit_test(the_first_draw_is_a_draw),
      cmocka_unit_test(odd_logits_give_a_valid_id),
      cmocka_unit_test(latencies_of_requests),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
