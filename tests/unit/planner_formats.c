/* Quality of recipes from published perplexities, and the search of formats. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "db/catalog.h"
#include "planner/formats/quality.h"

static model *from_catalog(const char *name) {
  json *j = NULL;
  model *m = NULL;
  if (catalog_get("models", name, &j) != HF_OK) fail_msg("%s", hf_error_line());
  if (model_from_config(json_get(j, "config"), name, &m) != HF_OK) fail_msg("%s", hf_error_line());
  json_free(j);
  return m;
}

static double loss_of(const quality *q, const model *m, const char *recipe, db_tag *tag) {
  model_recipe r;
  quality_loss l;
  if (recipe_parse(recipe, model_get_config(m), &r) != HF_OK) fail_msg("%s", hf_error_line());
  if (quality_of(q, m, &r, &l) != HF_OK) fail_msg("%s", hf_error_line());
  if (tag != NULL) *tag = l.tag;
  return l.loss;
}

static json *parse(const char *text) {
  json *j = NULL;
  if (json_parse(text, strlen(text), "test", &j) != HF_OK) fail_msg("%s", hf_error_line());
  return j;
}

static void test_published_rows_count(void **state) {
  (void)state;
  model *m = from_catalog("deepseek-r1-0528");
  quality *q = NULL;
  db_tag tag;
  if (quality_load(m, "deepseek-r1-0528", NULL, &q) != HF_OK) fail_msg("%s", hf_error_line());
  assert_true(q->own);
  assert_float_equal(q->scale, 1, 0);
  assert_float_equal(loss_of(q, m, "iq4_ks", &tag), log(3.2286 / 3.2130), 0.001);
  assert_int_equal(tag, TAG_MEASURED);
  assert_float_equal(loss_of(q, m, "q4_k_m", &tag), 0.0115, 0.003); /* no row: by its types */
  assert_int_equal(tag, TAG_SCALED);
  assert_float_equal(loss_of(q, m, "fp8", NULL), 0, 0);  /* the original */
  assert_float_equal(loss_of(q, m, "bf16", NULL), 0, 0); /* wider */
  free(q);
  /* R1 of January under its alias: its own rows only, the sibling's types */
  if (quality_load(m, "r1", NULL, &q) != HF_OK) fail_msg("%s", hf_error_line());
  (void)loss_of(q, m, "iq4_ks", &tag);
  assert_int_equal(tag, TAG_SCALED);
  assert_float_equal(loss_of(q, m, "q2_k_r4", &tag), log(3.6975 / 3.3490), 0.001);
  assert_int_equal(tag, TAG_MEASURED);
  free(q);
  model_close(m);
}

/* The additive model reproduces the rows it was fitted to, large and small. */
static void test_types_explain_the_rows(void **state) {
  (void)state;
  model *m = from_catalog("deepseek-r1");
  json *doc = NULL;
  assert_int_equal(catalog_get("quality", "deepseek", &doc), HF_OK);
  quality *q = NULL;
  assert_int_equal(quality_from_json(m, doc, NULL, NULL, "test", &q), HF_OK); /* types alone, no rows */
  int n = 0, far = 0;
  for (const json *e = json_first(json_get(doc, "published")); e != NULL; e = json_next(e), n++) {
    double published = log(json_number(json_get(e, "value"), 0) / json_number(json_get(e, "baseline"), 1));
    double computed = loss_of(q, m, json_string(json_get(e, "recipe")), NULL);
    double error = fabs(computed - published) / fmax(published, 0.01);
    if (error > 0.3) {
      print_error("%s: %.4f computed, %.4f published\n", json_string(json_get(e, "recipe")), computed, published);
      far++;
    }
  }
  assert_true(n >= 15);
  assert_int_equal(far, 0);
  free(q);
  json_free(doc);
  model_close(m);
}

static void test_families(void **state) {
  (void)state;
  db_tag tag;
  quality *q = NULL;
  model *m = from_catalog("kimi-k2");
  assert_int_equal(quality_load(m, "kimi-k2", NULL, &q), HF_OK);
  assert_true(q->scale > 1.5 && q->scale < 5); /* Kimi-K2 loses more than R1 in the same types */
  double kimi = loss_of(q, m, "q4_k_m", &tag);
  assert_int_equal(tag, TAG_SCALED);
  free(q);
  model_close(m);
  m = from_catalog("glm-4.5"); /* no table of its own */
  assert_int_equal(quality_load(m, "glm-4.5", NULL, &q), HF_OK);
  assert_false(q->own);
  assert_float_equal(q->scale, 1, 0);
  assert_true(loss_of(q, m, "q4_k_m", &tag) < kimi);
  assert_int_equal(tag, TAG_ASSUMED);
  free(q);
  model_close(m);
  m = from_catalog("gpt-oss-120b"); /* published in MXFP4 */
  assert_int_equal(quality_load(m, "gpt-oss-120b", NULL, &q), HF_OK);
  assert_float_equal(loss_of(q, m, "mxfp4", NULL), 0, 0);
  assert_true(loss_of(q, m, "q4_k_m", NULL) > 0.005);
  free(q);
  model_close(m);
}

static void test_more_bits_lose_less(void **state) {
  (void)state;
  static const char *const order[] = {"q8_0",   "q6_k",   "q5_k_m", "q5_k_s",  "q4_k_m", "q4_k_s",
                                      "iq4_xs", "q3_k_m", "q2_k",   "iq2_xxs", "iq1_s"};
  model *m = from_catalog("deepseek-r1");
  quality *q = NULL;
  assert_int_equal(quality_load(m, "deepseek-r1", NULL, &q), HF_OK);
  q->n_rows = 0; /* types alone */
  for (size_t i = 1; i < sizeof order / sizeof *order; i++)
    if (loss_of(q, m, order[i], NULL) < loss_of(q, m, order[i - 1], NULL))
      fail_msg("%s loses less than %s", order[i], order[i - 1]);
  free(q);
  model_close(m);
}

static void test_user_table(void **state) {
  (void)state;
  model *m = from_catalog("deepseek-r1");
  json *ref = NULL, *user = parse("{\"title\":\"mine\",\"types\":[{\"type\":\"q4_k\",\"experts\":0.5,\"rest\":0.25}],"
                                  "\"published\":[{\"recipe\":\"q6_k\",\"baseline\":2,\"value\":3},"
                                  "{\"model\":\"kimi-k2\",\"recipe\":\"q5_k\",\"baseline\":2,\"value\":9}]}");
  quality *q = NULL;
  db_tag tag;
  assert_int_equal(catalog_get("quality", "deepseek", &ref), HF_OK);
  assert_int_equal(quality_from_json(m, ref, NULL, user, "test", &q), HF_OK);
  assert_float_equal(loss_of(q, m, "q6_k", &tag), log(1.5), 1e-12);
  assert_int_equal(tag, TAG_MEASURED);
  (void)loss_of(q, m, "q5_k", &tag); /* another model's row says nothing about this one */
  assert_int_equal(tag, TAG_SCALED);
  assert_float_equal(loss_of(q, m, "q8_0:experts=q4_k", NULL), 0.5, 0.001);
  free(q);
  json_free(user);
  static const struct {
    const char *text, *says;
  } bad[] = {{"[]", "no JSON object"},
             {"{\"types\":{}}", "no array"},
             {"{\"types\":[{\"type\":\"q4_k\"}]}", "experts"},
             {"{\"types\":[{\"type\":\"q4_k_m\",\"experts\":1,\"rest\":1}]}", "mixture"},
             {"{\"types\":[{\"type\":\"q4_k\",\"experts\":-1,\"rest\":1}]}", "experts"},
             {"{\"published\":[{\"recipe\":\"q4_k_m\",\"value\":0,\"baseline\":1}]}", "value"},
             {"{\"published\":[{\"recipe\":\"what\",\"value\":1,\"baseline\":1}]}", "unknown"},
             {"{\"published\":7}", "no array"},
             {"{\"baseline_format\":\"nope\"}", "baseline_format"}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    user = parse(bad[i].text);
    assert_int_equal(quality_from_json(m, ref, NULL, user, "test", &q), HF_INPUT);
    if (strstr(hf_error_line(), bad[i].says) == NULL) fail_msg("%s: %s", bad[i].text, hf_error_line());
    hf_clear_error();
    json_free(user);
  }
  json_free(ref);
  model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_published_rows_count), cmocka_unit_test(test_types_explain_the_rows),
                                     cmocka_unit_test(test_families), cmocka_unit_test(test_more_bits_lose_less),
                                     cmocka_unit_test(test_user_table)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
