/* The router, against cases worked by hand. ln(1/3), 0, ln 3 ... are used so that sigmoids and softmaxes are simple fractions. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"

#define LN2 0.69314718f
#define LN3 1.09861229f

static void assert_route(const kern_router *r, const float *logits, const int *ids, const float *weights) {
  int32_t got[64];
  float w[64];
  kern_route(r, logits, got, w);
  for (int i = 0; i < r->top_k; i++) {
    assert_int_equal(got[i], ids[i]);
    assert_float_equal(w[i], weights[i], 2e-6);
  }
}

/* exp: 1 2 4 1, sum 8. The best two are 1 and 2; ids come ascending whatever the order of the weights. */
static void softmax_over_all(void **state) {
  (void)state;
  const float logits[] = {0, LN2, 2 * LN2, 0};
  kern_router r = {.n_experts = 4, .top_k = 2, .n_group = 1, .topk_group = 1, .scale = 1};
  assert_route(&r, logits, (int[]){1, 2}, (float[]){0.25f, 0.5f});
  r.norm = true;
  assert_route(&r, logits, (int[]){1, 2}, (float[]){1 / 3.0f, 2 / 3.0f});
  r.norm = false;
  r.scale = 16;
  assert_route(&r, logits, (int[]){1, 2}, (float[]){4, 8});
}

/* Softmax over the chosen: 2 and 4 of the exps above make 1/3 and 2/3, whatever the others are. */
static void softmax_over_the_chosen(void **state) {
  (void)state;
  kern_router r = {.n_experts = 4, .top_k = 2, .score = 2, .scale = 1};
  assert_route(&r, (const float[]){-5, LN2, 2 * LN2, 0}, (int[]){1, 2}, (float[]){1 / 3.0f, 2 / 3.0f});
}

/* Sigmoids 1/4 1/2 3/4 1/2. The bias moves the choice from 2 to 0, and the weight stays the sigmoid. */
static void bias_chooses_and_does_not_weigh(void **state) {
  (void)state;
  const float logits[] = {-LN3, 0, LN3, 0}, bias[] = {1, 0, -1, 0.1f};
  kern_router r = {.n_experts = 4, .top_k = 2, .n_group = 1, .topk_group = 1, .score = 1, .scale = 1};
  assert_route(&r, logits, (int[]){1, 2}, (float[]){0.5f, 0.75f}); /* 1 and 3 tie: the lower index */
  r.bias = bias;
  assert_route(&r, logits, (int[]){0, 3}, (float[]){0.25f, 0.5f});
  r.norm = true;
  r.scale = 3;
  assert_route(&r, logits, (int[]){0, 3}, (float[]){1, 2});
}

/* Sigmoids 3/4 1/4 | 1/2 2/3 | 1/4 1/4. Sums of two: 1, 7/6, 1/2 -> group 1; maxima: 3/4, 2/3, 1/4 -> group 0. */
static void groups_by_sum_or_by_maximum(void **state) {
  (void)state;
  const float logits[] = {LN3, -LN3, 0, LN2, -LN3, -LN3};
  kern_router r = {.n_experts = 6, .top_k = 2, .n_group = 3, .topk_group = 1, .score = 1, .group = 1, .scale = 1};
  assert_route(&r, logits, (int[]){2, 3}, (float[]){0.5f, 2 / 3.0f});
  r.group = 2;
  assert_route(&r, logits, (int[]){0, 1}, (float[]){0.75f, 0.25f});
  r.group = 0;
  assert_route(&r, logits, (int[]){0, 3}, (float[]){0.75f, 2 / 3.0f});
}

/* All choice scores of the kept group are negative: a mask of 0 instead of -infinity would pick the other group. */
static void masked_groups_stay_out_under_negative_bias(void **state) {
  (void)state;
  const float logits[] = {0, 0, LN3, LN3}, bias[] = {-2, -2, -9, -9};
  kern_router r = {.n_experts = 4, .top_k = 2, .n_group = 2, .topk_group = 1, .score = 1, .group = 1, .scale = 1, .bias = bias};
  assert_route(&r, logits, (int[]){0, 1}, (float[]){0.5f, 0.5f});
}

static void ties_take_the_lower_index(void **state) {
  (void)state;
  const float logits[8] = {0};
  kern_router r = {.n_experts = 8, .top_k = 3, .n_group = 4, .topk_group = 2, .score = 1, .group = 1, .norm = true, .scale = 1};
  assert_route(&r, logits, (int[]){0, 1, 2}, (float[]){1 / 3.0f, 1 / 3.0f, 1 / 3.0f});
}

/* Sigmoids underflow to about 1e-44 or 0: the 1e-20 in the denominator keeps the weights finite, and small. */
static void norm_of_nothing_is_finite(void **state) {
  (void)state;
  const float logits[] = {-200, -300, -400, -500};
  kern_router r = {.n_experts = 4, .top_k = 2, .score = 1, .norm = true, .scale = 2.5f};
  assert_route(&r, logits, (int[]){0, 1}, (float[]){0, 0});
}

static void largest_size_and_odd_values(void **state) {
  (void)state;
  static float logits[1024];
  int32_t ids[64];
  float w[64];
  kern_router r = {
      .n_experts = 1024, .top_k = 64, .n_group = 32, .topk_group = 8, .score = 1, .group = 1, .norm = true, .scale = 1};
  for (int i = 0; i < 1024; i++) logits[i] = (float)((i * 611) % 1024) * 0.01f;
  logits[5] = NAN;
  logits[6] = INFINITY;
  logits[7] = -INFINITY;
  kern_route(&r, logits, ids, w);
  for (int i = 0; i < 64; i++) {
    assert_in_range(ids[i], 0, 1023);
    if (i > 0) assert_true(ids[i] > ids[i - 1]);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(softmax_over_all),
      cmocka_unit_test(softmax_over_the_chosen),
      cmocka_unit_test(bias_chooses_and_does_not_weigh),
      cmocka_unit_test(groups_by_sum_or_by_maximum),
      cmocka_unit_test(masked_groups_stay_out_under_negative_bias),
      cmocka_unit_test(ties_take_the_lower_index),
      cmocka_unit_test(norm_of_nothing_is_finite),
      cmocka_unit_test(largest_size_and_odd_values),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
