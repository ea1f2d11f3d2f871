/* What a run teaches, layer by layer, where it has no stage times: how many experts its steps touched. */
#include "planner/plan_drift.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void near(double a, double b, double rel) {
  if (!(fabs(a - b) <= rel * fmax(1e-300, fmax(fabs(a), fabs(b))))) fail_msg("%.17g differs from %.17g", a, b);
}

static void ok(hf_status st) {
  if (st != HF_OK) fail_msg("%s", hf_error_line());
}

/* Three layers of four experts, each chosen with 1/2: 2 tokens touch 3, 4 tokens 3.75. */
static void distinct_experts_by_layer(void **state) {
  (void)state;
  stage_table *t = NULL;
  popularity *p = NULL;
  ok(stage_table_new(3, &t));
  ok(stage_table_places(t, 2, 0));
  ok(popularity_new(3, 4, &p));
  for (int i = 0; i < 12; i++) p->p[i] = 0.5;
  t->n_experts = 4;
  t->top_k = 2;
  for (int l = 0; l < 3; l++) {
    t->layer[l].moe = true;
    t->layer[l].cexp = t->layer[l].dexp = (stage_curve){.n = 1, .tok = {1}, .ns = {100}};
    stage_place_of(t, l, 2)->exp = (stage_curve){.n = 1, .tok = {1}, .ns = {100}};
  }
  const rec_distinct rows[] = {
      {.layer = 0, .phase = "decode", .tokens = 2, .steps = 10, .sum = 24}, /* 2.4 of 3 */
      {.layer = 0, .phase = "decode", .tokens = 4, .steps = 10, .sum = 36}, /* 3.6 of 3.75 */
      {.layer = 0, .phase = "prefill", .tokens = 4, .steps = 10, .sum = 1},
      {.layer = 1, .phase = "decode", .tokens = 2, .steps = 3, .sum = 3}, /* too few steps to say anything */
      {.layer = 2, .phase = "decode", .tokens = 2, .steps = 8, .sum = 24},
      {.layer = 9, .phase = "decode", .tokens = 2, .steps = 8, .sum = 24},
  };
  plan_drift d = {0};
  for (int s = 0; s < DRIFT_N; s++) d.factor[s] = 1;
  d.fixed_factor = 1;
  ok(drift_distinct(p, t, rows, 6, &d));
  near(d.distinct_ratio[0], (24 + 36) / (30 + 37.5), 1e-12);
  near(d.distinct_ratio[1], 1, 0);
  near(d.distinct_ratio[2], 1, 1e-12);
  near(d.distinct_measured, (24 + 36 + 3 + 24) / 31.0, 1e-12);
  plan_drift_apply(&d, t);
  near(t->layer[0].cexp.ns[0], 100 * 60 / 67.5, 1e-12);
  near(t->layer[0].dexp.ns[0], 100 * 60 / 67.5, 1e-12);
  near(stage_place_of(t, 0, 2)->exp.ns[0], 100 * 60 / 67.5, 1e-12);
  near(t->layer[1].cexp.ns[0], 100, 0);
  d.used[DRIFT_CEXP] = true; /* measured times say more than counts */
  d.factor[DRIFT_CEXP] = 2;
  plan_drift_apply(&d, t);
  near(t->layer[1].cexp.ns[0], 200, 0);
  near(t->layer[0].cexp.ns[0], 200 * 60 / 67.5, 1e-12);
  free(d.distinct_ratio);
  popularity_free(p);
  stage_table_free(t);
}

static rec_stage stage_row(const char *stage, int layer, double ns_per_step) {
  rec_stage r = {.layer = layer, .steps = 10, .tokens = 20, .ns_sum = 10 * ns_per_step};
  snprintf(r.stage, sizeof r.stage, "%s", stage);
  snprintf(r.phase, sizeof r.phase, "decode");
  snprintf(r.source, sizeof r.source, "run");
  return r;
}

/* Two layers: attention 30 each, experts on the CPU 2 x 10 tokens' worth each, head 10, fixed 10. */
static void compare_and_apply(const rec_stage *rows, int n, const char *before, double share, const char *after) {
  stage_table *t = NULL;
  popularity *p = NULL;
  ok(stage_table_new(2, &t));
  ok(popularity_new(2, 4, &p));
  for (int i = 0; i < 8; i++) p->p[i] = 1; /* every token touches every expert: 4 x 15 ns a layer */
  t->n_experts = 4;
  t->top_k = 4;
  t->head = (stage_curve){.n = 1, .tok = {1}, .ns = {10}};
  t->step_fixed_ns = 10;
  snprintf(t->tag, sizeof t->tag, "%s", before);
  for (int l = 0; l < 2; l++) {
    t->layer[l].moe = true;
    t->layer[l].attn = (stage_curve){.n = 1, .tok = {1}, .ns = {30}};
    t->layer[l].shared = (stage_curve){.n = 1, .tok = {1}, .ns = {0}};
    t->layer[l].cexp = t->layer[l].dexp = (stage_curve){.n = 1, .tok = {1}, .ns = {15}};
  }
  plan_drift d = {.run = {.depth = 1}};
  drift_compare(t, p, NULL, 0, rows, n, &d);
  near(d.measured_share, share, 1e-9);
  plan_drift_apply(&d, t);
  assert_string_equal(t->tag, after);
  popularity_free(p);
  stage_table_free(t);
}

/* The work of that step is 2 * (30 + 60) + 10 + 10 = 200 ns. */
static void share_decides_the_tag(void **state) {
  (void)state;
  const rec_stage rows[] = {stage_row("head", 2, 10), stage_row("attn", 0, 30), stage_row("attn", 1, 30),
                            stage_row("cexp", 0, 60), stage_row("cexp", 1, 60), stage_row("step", -1, 200)};
  compare_and_apply(rows, 0, "assumed", 0, "assumed");
  compare_and_apply(rows, 1, "assumed", 0.05, "assumed"); /* one small stage says nothing about the rest */
  compare_and_apply(rows, 3, "assumed", 0.35, "assumed");
  compare_and_apply(rows, 4, "assumed", 0.65, "scaled");
  compare_and_apply(rows, 4, "measured", 0.65, "measured"); /* never worse */
  compare_and_apply(rows, 5, "assumed", 0.95, "measured");
  compare_and_apply(rows, 6, "assumed", 1, "measured"); /* the whole step: its fixed cost is known too */
  /* Twice as slow as predicted, in one layer only: what was seen is that layer's, the factor goes for both. */
  const rec_stage slow = stage_row("cexp", 0, 120);
  compare_and_apply(&slow, 1, "assumed", 120.0 / (200 + 2 * 60), "assumed");
}

/* A step that waits for experts on another device than the layers' own: predicted so, it leaves nothing to explain by hand-over and fixed cost. */
static void guests_are_no_fixed_cost(void **state) {
  (void)state;
  stage_table *t = NULL;
  popularity *p = NULL;
  ok(stage_table_new(1, &t));
  ok(stage_table_places(t, 2, 0));
  ok(popularity_new(1, 4, &p));
  for (int i = 0; i < 4; i++) p->p[i] = 1;
  t->n_experts = t->top_k = 4;
  t->head = (stage_curve){.n = 1, .tok = {1}, .ns = {10}};
  t->step_fixed_ns = 10;
  t->layer[0].moe = true;
  t->layer[0].attn = (stage_curve){.n = 1, .tok = {1}, .ns = {30}};
  t->layer[0].shared = (stage_curve){.n = 1, .tok = {1}, .ns = {0}};
  t->layer[0].cexp = t->layer[0].dexp = (stage_curve){.n = 1, .tok = {1}, .ns = {15}};
  stage_place_of(t, 0, 2)->exp = (stage_curve){.n = 1, .tok = {1}, .ns = {100}};
  const uint8_t placement[4] = {1, 1, 2, 2};
  const rec_stage rows[] = {stage_row("attn", 0, 30), stage_row("dexp", 0, 2 * 15),
                            stage_row("step", -1, 10 + 30 + 2 * 100 + 10)};
  plan_drift d = {.run = {.depth = 1}};
  drift_compare(t, p, placement, 0, rows, 3, &d);
  near(d.factor[DRIFT_DEXP], 1, 1e-9);
  near(d.fixed_factor, 1, 1e-6);
  near(d.step_extra_ns + 1, 1, 0);
  popularity_free(p);
  stage_table_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(distinct_experts_by_layer),
      cmocka_unit_test(share_decides_the_tag),
      cmocka_unit_test(guests_are_no_fixed_cost),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
