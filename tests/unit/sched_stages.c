/* Stage tables: curve arithmetic, expected expert times against brute force, layer sums, JSON both ways. */
#include "sched/stages.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <cmocka.h>

static const uint64_t GOLDEN_BITS = 0x9499155afda88670;

static void near(double a, double b, double rel) {
  if (!(fabs(a - b) <= rel * fmax(1e-300, fmax(fabs(a), fabs(b))))) fail_msg("%.17g differs from %.17g", a, b);
}

static void curve_is_piecewise_linear(void **state) {
  (void)state;
  stage_curve c = {.n = 3, .tok = {1, 2, 4}, .ns = {10, 12, 20}};
  near(stage_curve_at(&c, 0), 10, 0);
  near(stage_curve_at(&c, 1), 10, 0);
  near(stage_curve_at(&c, 1.5), 11, 1e-15);
  near(stage_curve_at(&c, 2), 12, 0);
  near(stage_curve_at(&c, 3), 16, 1e-15);
  near(stage_curve_at(&c, 10), 44, 1e-15);
  stage_curve one = {.n = 1, .tok = {8}, .ns = {5}};
  near(stage_curve_at(&one, 0), 5, 0);
  near(stage_curve_at(&one, 99), 5, 0);
}

/* By enumeration of all 2^T outcomes. */
static double brute_time(const stage_curve *c, double p, int tokens) {
  double sum = 0;
  for (unsigned mask = 1; mask < 1u << tokens; mask++) {
    double prob = 1;
    int m = 0;
    for (int t = 0; t < tokens; t++) {
      bool hit = mask >> t & 1;
      m += hit;
      prob *= hit ? p : 1 - p;
    }
    sum += prob * stage_curve_at(c, m);
  }
  return sum;
}

/* Products take four tokens at a time: one or two of a pass take as long as two and a half and three of a full one. */
static void passes_that_are_not_full(void **state) {
  (void)state;
  stage_curve c = {.n = 3, .tok = {1, 4, 16}, .ns = {10, 12, 36}, .pass = 4, .part = {0, 2.5, 3, 3.25}};
  near(stage_curve_at(&c, 2), 10 + 2.0 / 3, 1e-15); /* within the first pass as measured */
  near(stage_curve_at(&c, 4), 12, 0);
  near(stage_curve_at(&c, 5), 12 + 2 * 2.5, 1e-15);
  near(stage_curve_at(&c, 7), 12 + 2 * 3.25, 1e-15);
  near(stage_curve_at(&c, 8), 20, 1e-15);
  near(stage_curve_at(&c, 4.5), 12 + 2 * 1.25, 1e-15);
  near(stage_curve_at(&c, 7.5), 12 + (3.25 + 4), 1e-15);
  near(stage_curve_at(&c, 402), 36 + 2 * (400 + 3 - 16), 1e-15);
  for (double t = 0; t < 40; t += 0.125) assert_true(stage_curve_at(&c, t + 0.125) >= stage_curve_at(&c, t));
}

static void expected_time_equals_enumeration(void **state) {
  (void)state;
  stage_curve c = {.n = 3, .tok = {1, 4, 8}, .ns = {100, 130, 400}};
  const double p[] = {1e-12, 0.01, 0.125, 0.5, 0.51, 0.9, 0.999999};
  for (size_t i = 0; i < sizeof p / sizeof p[0]; i++)
    for (int t = 1; t <= 10; t++) near(expert_time_ns(&c, p[i], t), brute_time(&c, p[i], t), 1e-11);
  assert_true(expert_time_ns(&c, 0, 5) == 0 && expert_time_ns(&c, 0.3, 0) == 0);
  near(expert_time_ns(&c, 1, 8), 400, 0);
}

static void hit_is_one_minus_product(void **state) {
  (void)state;
  for (int t = 0; t < 40; t++) {
    double miss = 1;
    for (int i = 0; i < t; i++) miss *= 1 - 0.03125;
    near(expert_hit(0.03125, t), 1 - miss, 1e-13);
  }
  near(expert_hit(1e-17, 3), 3e-17, 1e-12); /* 1 - (1-p)^T computed naively would be 0 */
  near(expert_hit(1, 1), 1, 0);
  near(expert_hit(0.5, 2.5), 0.5 * (0.75 + 0.875), 0);
  near(expert_hit(1, 0.25), 0.25, 0);
}

/* Small popularities keep their digits, many tokens theirs. */
static void hit_keeps_its_digits(void **state) {
  (void)state;
  static const double p[] = {1e-300, 1e-17, 1e-9, 3e-7, 1e-4, 0.0078125, 0.031, 0.2, 0.5, 0.77, 0.999999};
  static const int n[] = {1, 2, 3, 5, 7, 8, 31, 64, 65, 100, 512, 1000, 4095, 4096, 65537, 1000000, INT32_MAX};
  for (size_t i = 0; i < sizeof p / sizeof p[0]; i++)
    for (size_t k = 0; k < sizeof n / sizeof n[0]; k++) {
      long double want = -expm1l(n[k] * log1pl(-(long double)p[i]));
      near(expert_hit(p[i], n[k]), (double)want, 1e-14);
    }
  near(expert_hit(1e-9, 1e300), 1, 1e-15);
}

static long double reference_time(const stage_curve *c, long double p, int tokens) {
  long double sum = 0;
  for (int m = 1; m <= tokens; m++) {
    long double log_pmf =
        lgammal(tokens + 1.0L) - lgammal(m + 1.0L) - lgammal(tokens - m + 1.0L) + m * logl(p) + (tokens - m) * log1pl(-p);
    sum += expl(log_pmf) * stage_curve_at(c, m);
  }
  return sum;
}

/* Against the sum in extended precision; and the very bits, which arithmetic in order gives anywhere. */
static void expected_time_is_exact(void **state) {
  (void)state;
  stage_curve c = {.n = 4, .tok = {1, 4, 16, 64}, .ns = {100, 110, 150, 500}};
  static const double p[] = {1e-9, 1e-4, 0.0078125, 0.031, 0.2, 0.5, 0.77, 0.999};
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < sizeof p / sizeof p[0]; i++)
    for (int n = 1; n <= 200; n++) {
      double ns = expert_time_ns(&c, p[i], n), hit = expert_hit(p[i], n);
      near(ns, (double)reference_time(&c, p[i], n), n <= 64 ? 1e-13 : 1e-7);
      uint64_t bits[2];
      memcpy(&bits[0], &ns, sizeof ns);
      memcpy(&bits[1], &hit, sizeof hit);
      for (int b = 0; b < 2; b++) hash = (hash ^ bits[b]) * 0x100000001b3;
    }
  if (hash != GOLDEN_BITS) print_error("0x%016llx\n", (unsigned long long)hash);
  assert_true(hash == GOLDEN_BITS);
}

/* The mean of costs, not the cost of the mean, for however many tokens, and time does not fall with them. */
static void long_batches_continue_the_sum(void **state) {
  (void)state;
  stage_curve c = {.n = 4, .tok = {1, 4, 16, 64}, .ns = {100, 110, 150, 500}};
  for (double p = 0.002; p < 0.9; p *= 1.7) {
    double before = 0;
    for (int t = 1; t <= 600; t++) {
      double now = expert_time_ns(&c, p, t);
      assert_true(now >= before * (1 - 1e-7));
      before = now;
    }
  }
  static const stage_curve passes = {
      .n = 3, .tok = {1, 8, 64}, .ns = {100, 110, 950}, .pass = 8, .part = {0, 3, 4, 5, 5.5, 6, 7, 7.5}};
  for (int t = 100; t < 5000; t *= 3)
    for (double p = 0.0004; p < 1; p *= 2.1) near(expert_time_ns(&passes, p, t), (double)reference_time(&passes, p, t), 1e-7);
}

static stage_table *example(void) {
  stage_table *t = NULL;
  assert_int_equal(stage_table_new(3, &t), HF_OK);
  t->n_experts = 4;
  t->top_k = 2;
  t->step_fixed_ns = 7.25;
  snprintf(t->tag, sizeof t->tag, "scaled");
  t->head = (stage_curve){.n = 2, .tok = {1, 2}, .ns = {50, 60}};
  t->layer[0].attn = (stage_curve){.n = 2, .tok = {1, 8}, .ns = {10, 17}};
  t->layer[0].shared = (stage_curve){.n = 1, .tok = {1}, .ns = {3}};
  t->layer[0].attn_ctx_ns = 0.5;
  t->layer[0].attn_seq_ctx_ns = 0.25;
  t->layer[1] = t->layer[0];
  t->layer[1].moe = true;
  t->layer[1].dexp = (stage_curve){.n = 1, .tok = {1}, .ns = {2}};
  t->layer[1].cexp = (stage_curve){.n = 1, .tok = {1}, .ns = {8}};
  t->layer[1].cexp_fixed_ns = 100;
  t->layer[1].dexp_fixed_ns = 20;
  t->layer[1].hand_ns = 30;
  t->layer[1].hand_tok_ns = 4;
  t->layer[1].upload_ns = 99;
  t->layer[2] = t->layer[1];
  return t;
}

static void layer_sums(void **state) {
  (void)state;
  stage_table *t = example();
  popularity *p = NULL;
  assert_int_equal(popularity_new(3, 4, &p), HF_OK);
  const double q[4] = {1, 0.5, 0.25, 0.25};
  memcpy(p->p + 4, q, sizeof q);
  const uint8_t dev[4] = {1, 0, 0, 1}, all[4] = {1, 1, 1, 1};

  layer_times r = stage_layer_times(t, p, 0, 2, 10, NULL);
  near(r.attn_ns, 11 + 0.75 * 2 * 10, 1e-15);
  near(r.shared_ns, 3, 0);
  assert_true(r.hand_ns == 0 && r.cexp_ns == 0 && r.dexp_ns == 0);

  r = stage_layer_times(t, p, 1, 2, 10, dev);
  near(r.dexp_ns, 20 + 2 * 1 + 2 * (1 - 0.75 * 0.75), 1e-14);
  near(r.cexp_ns, 100 + 8 * (1 - 0.25) + 8 * (1 - 0.75 * 0.75), 1e-14);
  near(r.hand_ns, 38, 0);

  r = stage_layer_times(t, p, 1, 2, 10, all);
  assert_true(r.cexp_ns == 0 && r.hand_ns == 0);
  r = stage_layer_times(t, p, 1, 2, 10, NULL);
  assert_true(r.dexp_ns == 0 && r.cexp_ns > 100);

  stage_load load = {.tokens = 8, .query_context = 100, .seq_context = 12};
  r = stage_layer_times_load(t, p, 1, &load, NULL);
  near(r.attn_ns, 17 + 50 + 3, 1e-15);
  popularity_free(p);
  stage_table_free(t);
}

static json *round_trip_doc(const stage_table *t) {
  json *o = json_new_object();
  assert_int_equal(stage_table_to_json(t, o), HF_OK);
  return o;
}

static void json_round_trip_keeps_every_bit(void **state) {
  (void)state;
  stage_table *t = example(), *u = NULL;
  t->layer[1].hand_ns = 1.0 / 3;
  t->layer[2].hand_ns = 1.0 / 3;
  t->contend = 4.0 / 3;
  t->contend_dma = 5.0 / 3;
  t->near_tokens = 1024;
  t->near_more = -1.0 / 3;
  t->layer[1].cexp.pass = t->layer[2].cexp.pass = 4;
  for (int r = 1; r < 4; r++) t->layer[1].cexp.part[r] = t->layer[2].cexp.part[r] = 3 + r / 7.0;
  json *o = round_trip_doc(t);
  assert_int_equal(json_len(json_get(o, "layers")), 2); /* 1 + 2 equal ones */
  char *text = NULL;
  json *back = NULL;
  assert_int_equal(json_print(o, false, &text), HF_OK);
  assert_int_equal(json_parse(text, strlen(text), "table", &back), HF_OK);
  assert_int_equal(stage_table_from_json(back, "table", &u), HF_OK);
  assert_int_equal(u->n_layers, 3);
  assert_int_equal(u->n_experts, 4);
  assert_int_equal(u->top_k, 2);
  assert_string_equal(u->tag, "scaled");
  assert_false(u->one_resource);
  assert_true(u->near_tokens == t->near_tokens && u->near_more == t->near_more);
  assert_true(u->contend == t->contend && u->contend_dma == t->contend_dma);
  for (int l = 0; l < 3; l++) {
    assert_int_equal(u->layer[l].moe, t->layer[l].moe);
    assert_memory_equal(&u->layer[l].attn, &t->layer[l].attn, sizeof t->layer[l].attn);
    assert_memory_equal(&u->layer[l].cexp, &t->layer[l].cexp, sizeof t->layer[l].cexp);
    assert_true(u->layer[l].hand_ns == t->layer[l].hand_ns && u->layer[l].upload_ns == t->layer[l].upload_ns);
    assert_true(u->layer[l].attn_ctx_ns == t->layer[l].attn_ctx_ns);
  }
  free(text);
  json_free(back);
  json_free(o);
  stage_table_free(u);
  stage_table_free(t);
}

static void refuse(const char *text, const char *says) {
  json *o = NULL;
  stage_table *t = NULL;
  assert_int_equal(json_parse(text, strlen(text), "table", &o), HF_OK);
  assert_int_equal(stage_table_from_json(o, "table", &t), HF_INPUT);
  assert_null(t);
  if (strncmp(hf_error_line(), "table: ", 7) != 0 || !strstr(hf_error_line(), says)) {
    fail_msg("'%s' was expected in: %s", says, hf_error_line());
  }
  json_free(o);
}

#define HEAD(n_layers, top_k, step, head)                                                                       \
  "{\"n_layers\":" n_layers ",\"n_experts\":2,\"top_k\":" top_k ",\"tag\":\"spec\",\"step_fixed_ns\":" step "," \
  "\"one_resource\":false,\"head\":{\"tokens\":[" head "]},\"layers\":["
#define CURVE(name) "\"" name "\":{\"tokens\":[1],\"ns\":[1]},"
#define LAYER(moe)                                                             \
  "{" CURVE("attn") CURVE("shared") CURVE("dexp")                              \
      CURVE("cexp") "\"moe\":" moe ",\"attn_ctx_ns\":0,\"attn_seq_ctx_ns\":0," \
                    "\"cexp_fixed_ns\":0,\"dexp_fixed_ns\":0,\"hand_ns\":0,\"hand_tok_ns\":0,\"upload_ns\":0}"

static void bad_json_is_refused(void **state) {
  (void)state;
  refuse("{}", "field n_layers");
  refuse("{\"n_layers\":1,\"n_experts\":2,\"top_k\":3}", "field top_k");
  refuse(HEAD("1", "1", "-1", "1],\"ns\":[1") LAYER("true") "]}", "field step_fixed_ns");
  refuse(HEAD("1", "1", "0", "2,1],\"ns\":[1,1") LAYER("true") "]}", "field head: point 1");
  refuse(HEAD("1", "1", "0", "1,2],\"ns\":[2,1") LAYER("true") "]}", "field head: point 1");
  refuse(HEAD("1", "1", "0", "1],\"ns\":[2e18") LAYER("true") "]}", "field head: point 0");
  refuse(HEAD("1", "1", "0", "0,5e-324],\"ns\":[0,1e18") LAYER("true") "]}", "field head: point 1");
  refuse(HEAD("1", "1", "0", "1,2],\"ns\":[1") LAYER("true") "]}", "field head");
  refuse(HEAD("1", "1", "0", "1],\"ns\":[1],\"pass\":[0.5,2") LAYER("true") "]}", "field head: pass");
  refuse(HEAD("1", "1", "0", "1],\"ns\":[1],\"pass\":[1.5,1.75") LAYER("true") "]}", "field head: pass");
  refuse(HEAD("1", "1", "0", "1],\"ns\":[1],\"pass\":[3,2,3") LAYER("true") "]}", "field head: pass");
  refuse(HEAD("1", "1", "0", "1],\"ns\":[1],\"pass\":[1,3") LAYER("true") "]}", "field head: pass");
  refuse(HEAD("1", "1", "0", "1],\"ns\":[1],\"pass\":[") LAYER("true") "]}", "field head: pass");
  refuse(HEAD("1", "1", "0", "1],\"ns\":[1") "{}]}", "layers[0]: field moe");
  refuse(HEAD("2", "1", "0", "1],\"ns\":[1") LAYER("true") "]}", "describes 1 layers");
  refuse(HEAD("1", "1", "0", "1],\"ns\":[1") LAYER("true") "," LAYER("true") "]}", "layers[1]: more layers");
  refuse(HEAD("1", "0", "0", "1],\"ns\":[1") LAYER("true") "]}", "layers[0]: field moe");
  json *o = NULL; /* and what is right is taken, so that each case above is wrong in one thing only */
  stage_table *t = NULL;
  const char *good = HEAD("2", "1", "0", "1,2],\"ns\":[1,1],\"pass\":[1.5,2") LAYER("true") "," LAYER("false") "]}";
  assert_int_equal(json_parse(good, strlen(good), "table", &o), HF_OK);
  if (stage_table_from_json(o, "table", &t) != HF_OK) fail_msg("%s", hf_error_line());
  stage_table_free(t);
  json_free(o);
}

/* Pieces of prompts: pairs and queries; long ones of latent attention plain; one token is one of decode; tables in files keep all of it. */
static void pieces_of_prompts(void **state) {
  (void)state;
  stage_table *t = NULL, *back = NULL;
  assert_int_equal(stage_table_new(1, &t), HF_OK);
  stage_load load = {0};
  stage_load_add(&load, t, 10, 4); /* nothing known: 11 + 12 + 13 + 14 */
  assert_float_equal(load.query_context, 50, 0);
  t->prompt =
      (stage_prompt){.pair = 0.5, .query = 3, .plain_attend = 0.25, .plain_expand = 0.125, .plain_turn = 0.5, .plain_query = -7};
  load = (stage_load){0};
  stage_load_add(&load, t, 10, 4);
  assert_float_equal(load.query_context, 0.5 * 50 + 3 * 4, 1e-12);
  t->prompt.mla = (mla_shape){.lora = 512, .nope = 128, .rope = 64, .v = 128};
  load = (stage_load){0};
  stage_load_add(&load, t, 10, 4); /* too short for the plain form */
  stage_load_add(&load, t, 99, 1);
  assert_float_equal(load.query_context, 0.5 * 50 + 3 * 4 + 100, 1e-12);
  t->near_tokens = 60, t->near_more = 0.5; /* of decode alone */
  load = (stage_load){0};
  stage_load_add(&load, t, 10, 4);
  stage_load_add(&load, t, 99, 1);
  stage_load_add(&load, t, 9, 1);
  assert_float_equal(load.query_context, 0.5 * 50 + 3 * 4 + 100 + 30 + 10 + 5, 1e-12);
  assert_float_equal(stage_context(t, 60), 90, 1e-12);
  load = (stage_load){0};
  stage_load_add(&load, t, 1000, 300);
  const mla_work w = mla_plain_work(&t->prompt.mla, 1000, 300);
  assert_float_equal(load.query_context, 0.25 * w.attend + 0.125 * w.expand + 0.5 * w.turn - 7 * 300, 1e-3);
  assert_float_equal(load.seq_context, 1300, 0);
  json *o = json_new_object();
  assert_int_equal(stage_table_to_json(t, o), HF_OK);
  assert_int_equal(stage_table_from_json(o, "test", &back), HF_OK);
  assert_memory_equal(&back->prompt, &t->prompt, sizeof t->prompt);
  json_free(o);
  stage_table_free(back);
  stage_table_free(t);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(curve_is_piecewise_linear),
      cmocka_unit_test(passes_that_are_not_full),
      cmocka_unit_test(expected_time_equals_enumeration),
      cmocka_unit_test(hit_is_one_minus_product),
      cmocka_unit_test(hit_keeps_its_digits),
      cmocka_unit_test(expected_time_is_exact),
      cmocka_unit_test(long_batches_continue_the_sum),
      cmocka_unit_test(layer_sums),
      cmocka_unit_test(json_round_trip_keeps_every_bit),
      cmocka_unit_test(bad_json_is_refused),
      cmocka_unit_test(pieces_of_prompts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
