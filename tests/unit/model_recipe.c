/* Mixtures of formats against the sizes of published files, names of recipes, and what a recipe does to a model. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/internal.h"
#include "model/recipe.h"

static model *from_catalog(const char *name) {
  char path[256];
  snprintf(path, sizeof path, "db/catalog/models/%s.json", name);
  json *j = NULL;
  model *m = NULL;
  if (json_read_file(path, 1 << 20, &j) != HF_OK) fail_msg("%s", hf_error_line());
  if (model_from_config(json_get(j, "config"), path, &m) != HF_OK) fail_msg("%s", hf_error_line());
  json_free(j);
  return m;
}

static int64_t expert_bytes(const model *m, const model_recipe *r) {
  const model_config *c = model_get_config(m);
  int64_t sum = 0;
  for (int l = 0; l < c->n_layers; l++) {
    model_layer_parts p;
    assert_int_equal(recipe_layer_parts_of(m, r, l, &p), HF_OK);
    if (c->layer_is_moe[l]) sum += p.expert.bytes * c->n_experts;
  }
  return sum;
}

#define GIB 1073741824.0
#define MIB 1048576.0

/* Whole files. ik N: discussion N of ikawrakow/ik_llama.cpp (March to July 2025; logs print sizes in GiB and bits per weight, over 672.05e9 weights
 * where k_b and v_b are stored beside kv_b). bart: model card of bartowski/deepseek-ai_DeepSeek-V3-0324-GGUF (2025-03). */
static void test_sizes_of_published_files(void **state) {
  (void)state;
  static const struct {
    const char *model, *format;
    double bytes, tolerance;
    const char *source;
  } files[] = {
      {"deepseek-v3", "q8_0", 713.29e9, 0.002, "bart; ik 258: 664.295 GiB"},
      {"deepseek-v3", "q6_k", 550.80e9, 0.002, "bart"},
      {"deepseek-v3", "q5_k_m", 475.40e9, 0.002, "bart"},
      {"deepseek-v3", "q5_k_s", 461.81e9, 0.002, "bart"},
      {"deepseek-v3", "q4_1", 419.94e9, 0.002, "bart"},
      {"deepseek-v3", "q4_k_m", 404.43e9, 0.002, "bart; ik pull 259: 376.65 GiB"},
      {"deepseek-v3", "q4_k_m-v2", 379.030 * GIB, 0.002, "ik 258; bart: 406.99 GB"},
      {"deepseek-r1", "ud-q2_k_xl", 211.03 * GIB, 0.002, "ik 258"},
      {"deepseek-v3", "ud-q4_k_xl", 357.623 * GIB, 0.003, "ik 258"},
      {"deepseek-r1", "q2_k_r4", 238.69 * GIB, 0.006, "ik 258"},
      {"deepseek-v3", "iq2_k_r4", 226.003 * GIB, 0.006, "ik 286"},
      {"deepseek-v3", "iq4_k_r4", 386.183 * GIB, 0.005, "ik 258"},
      {"deepseek-r1", "iq4_ks_r4", 4.701 * 672.05e9 / 8, 0.005, "ik 477"},
      {"deepseek-r1", "iq3_k_r4", 3.847 * 672.05e9 / 8, 0.01, "ik 477"},
      {"deepseek-r1", "iq3_ks", 3.598 * 672.05e9 / 8, 0.01, "ik 477"},
      {"deepseek-r1", "dq4_k_r4", 5.289 * 672.05e9 / 8, 0.005, "ik 477"},
      {"deepseek-r1", "iq4_xs", 4.2683 * 671.03e9 / 8, 0.01, "ik 477 (Unsloth's file)"},
      {"deepseek-r1", "q4_0:attn=q8_0,shared=q8_0", 359.636 * GIB, 0.005, "ik 477"},
      {"deepseek-r1", "q4_0:attn=q6_k,shared=q6_k", 356.251 * GIB, 0.005, "ik 477"},
      {"deepseek-v3", "q8_0:attn=iq4_k,dense=iq4_k,shared=iq4_k,experts=iq4_k,embed=iq4_k,output=iq4_k", 352.470 * GIB, 0.005,
       "ik issue 296"},
      {"qwen3-235b-a22b", "mix-iq3_k", 106.830 * GIB, 0.002, "ik 357"},
      {"qwen3-235b-a22b", "q8_0", 232.769 * GIB, 0.002, "ik 357"},
      {"kimi-k2", "q8_0", 8.504 * 1026.41e9 / 8, 0.01, "ik 477"},
      {"kimi-k2", "iq2_kl", 345.687 * GIB, 0.02, "ik pull 612"},
      {"gpt-oss-120b", "mxfp4", 60.8 * GIB, 0.005, "gpt-oss model card, arXiv:2508.10925, table 1"},
  };
  int failed = 0;
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    model *m = from_catalog(files[i].model);
    model_recipe r;
    if (recipe_parse(files[i].format, model_get_config(m), &r) != HF_OK) fail_msg("%s", hf_error_line());
    double got = (double)recipe_total_bytes(m, &r), error = got / files[i].bytes - 1;
    if (fabs(error) > files[i].tolerance) {
      print_error("%s %s: %.2f GiB, published %.2f GiB (%+.2f %%; %s)\n", files[i].model, files[i].format, got / GIB,
                  files[i].bytes / GIB, 100 * error, files[i].source);
      failed++;
    }
    model_close(m);
  }
  assert_int_equal(failed, 0);
}

/* Buffers of routed experts, to the byte as far as the logs tell (MiB). */
static void test_expert_buffers(void **state) {
  (void)state;
  static const struct {
    const char *model, *format;
    double mib;
  } known[] = {{"deepseek-r1", "ud-q2_k_xl", 205716.00}, {"deepseek-r1", "q2_k_r4", 225736.00},
               {"deepseek-v3", "iq4_k_r4", 376768.00},   {"deepseek-v3", "ud-q4_k_xl", 355712.00},
               {"deepseek-v3", "q4_k_m-v2", 375732.00},  {"deepseek-v3", "q4_k_m", 375732.00}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    model *m = from_catalog(known[i].model);
    model_recipe r;
    fmt f;
    assert_int_equal(fmt_parse(known[i].format, &f), HF_OK);
    recipe_of(f, model_get_config(m), &r);
    double got = (double)expert_bytes(m, &r) / MIB;
    if (fabs(got - known[i].mib) > 0.01) fail_msg("%s: %.2f MiB, not %.2f", known[i].format, got, known[i].mib);
    model_close(m);
  }
}

static void test_layers_differ(void **state) {
  (void)state;
  model *m = from_catalog("deepseek-r1");
  model_layer_parts a, b, c;
  assert_int_equal(model_layer_parts_of(m, FMT_Q4_K_M, 3, &a), HF_OK); /* first eighth: down in Q6_K */
  assert_int_equal(model_layer_parts_of(m, FMT_Q4_K_M, 7, &b), HF_OK);
  assert_int_equal(model_layer_parts_of(m, FMT_Q4_K_M, 9, &c), HF_OK); /* every third */
  int64_t n = 2048LL * 7168;
  assert_int_equal(b.expert.bytes, 3 * n / 256 * 144);
  assert_int_equal(a.expert.bytes, n / 256 * (2 * 144 + 210));
  assert_int_equal(c.expert.bytes, a.expert.bytes);
  assert_int_equal(a.expert_fmt, FMT_Q4_K);
  assert_int_equal(a.attn_fmt, FMT_Q4_K);
  assert_int_equal(b.router.bytes, 256 * 7168 * 4 + 256 * 4);
  /* k_b has rows of 128: Q5_0 instead of Q4_K; one scale per channel of INT8; 128x128 blocks of FP8 */
  model_recipe r;
  recipe_of(FMT_Q4_K_M, model_get_config(m), &r);
  assert_int_equal(recipe_tensor_format(&r, MT_K_B, 9, 128), FMT_Q5_0);
  assert_int_equal(recipe_tensor_format(&r, MT_ROUTER, 9, 7168), FMT_F32);
  assert_int_equal(model_layer_parts_of(m, FMT_INT8, 9, &c), HF_OK);
  assert_int_equal(c.expert.bytes, 3 * n + 4 * (2 * 2048 + 7168));
  assert_int_equal(c.router.bytes, (256 * 7168 + 256) * 2);
  assert_int_equal(model_layer_parts_of(m, FMT_IQ4_KS, 9, &c), HF_OK);
  assert_int_equal(c.expert.bytes, 2 * (n / 256 * 136 + 4 * 2048) + n / 256 * 168 + 4 * 7168);
  model_close(m);
}

static void test_eight_experts(void **state) {
  (void)state;
  static const char text[] =
      "{\"model_type\":\"mixtral\",\"num_hidden_layers\":32,\"hidden_size\":4096,\"vocab_size\":32000,"
      "\"num_attention_heads\":32,\"num_key_value_heads\":8,\"intermediate_size\":14336,\"num_local_experts\":8}";
  json *j = NULL;
  model *m = NULL;
  assert_int_equal(json_parse(text, strlen(text), "config.json", &j), HF_OK);
  assert_int_equal(model_from_config(j, "config.json", &m), HF_OK);
  model_recipe r;
  recipe_of(FMT_Q4_K_M, model_get_config(m), &r);
  assert_int_equal(recipe_tensor_format(&r, MT_V, 0, 4096), FMT_Q8_0);
  assert_int_equal(recipe_tensor_format(&r, MT_K, 0, 4096), FMT_Q8_0);
  assert_int_equal(recipe_tensor_format(&r, MT_O, 20, 4096), FMT_Q5_K);
  model_close(m);
  json_free(j);
}

static void refuse(const model *m, const char *text, const char *says) {
  model_recipe r;
  assert_int_equal(recipe_parse(text, model_get_config(m), &r), HF_INPUT);
  if (strstr(hf_error_line(), says) == NULL) fail_msg("'%s' says: %s", text, hf_error_line());
  hf_clear_error();
}

static void test_names(void **state) {
  (void)state;
  static const struct {
    const char *name;
    fmt f;
  } names[] = {{"IQ4_K_R4", FMT_IQ4_K},  {"iq4-k", FMT_IQ4_K},         {"Q8_0_R8", FMT_Q8_0},        {"UD-Q2_K_XL", FMT_Q2_K_XL},
               {"q2_k_xl", FMT_Q2_K_XL}, {"w8a8", FMT_INT8},           {"iq1_s_r4", FMT_IQ1_S_R4},   {"q2_k_r4", FMT_Q2_K_R4},
               {"dq4_k_r4", FMT_DQ4_K},  {"q4_k_m_v2", FMT_Q4_K_M_V2}, {"mix_iq3_k", FMT_MIX_IQ3_K}, {"int4", FMT_INT4_G32}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    fmt f = FMT_F32;
    if (fmt_parse(names[i].name, &f) != HF_OK) fail_msg("%s", hf_error_line());
    if (f != names[i].f) fail_msg("%s is %s", names[i].name, fmt_get(f)->name);
  }
  for (int f = 0; f < FMT_N; f++) { /* every name reads as itself */
    fmt g;
    assert_int_equal(fmt_parse(fmt_get((fmt)f)->name, &g), HF_OK);
    assert_int_equal(f, g);
  }
  fmt f;
  assert_int_equal(fmt_parse("q4km", &f), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "q4_k"));
  hf_clear_error();
}

static void test_recipes_by_name(void **state) {
  (void)state;
  model *m = from_catalog("deepseek-r1");
  const model_config *c = model_get_config(m);
  model_recipe r, again;
  if (recipe_parse("q4_k_m:attn=q8_0,down=q6_k@3-20,down=q5_k@10-12", c, &r) != HF_OK) fail_msg("%s", hf_error_line());
  assert_int_equal(recipe_tensor_format(&r, MT_Q_B, 30, 1536), FMT_Q8_0);
  assert_int_equal(recipe_tensor_format(&r, MT_EXP_DOWN, 8, 2048), FMT_Q6_K);
  assert_int_equal(recipe_tensor_format(&r, MT_EXP_DOWN, 11, 2048), FMT_Q5_K);
  assert_int_equal(recipe_tensor_format(&r, MT_EXP_DOWN, 23, 2048), FMT_Q4_K);
  assert_int_equal(recipe_tensor_format(&r, MT_EXP_GATE, 11, 7168), FMT_Q4_K);
  assert_int_equal(recipe_parse(r.name, c, &again), HF_OK);
  assert_int_equal(recipe_total_bytes(m, &r), recipe_total_bytes(m, &again));
  refuse(m, "q4_k_m:", "no PART=FORMAT");
  refuse(m, "q4_k_m:atn=q8_0", "parts are");
  refuse(m, "q4_k_m:attn=q4_k_m", "mixture");
  refuse(m, "q4_k_m:attn=q9_9", "unknown");
  refuse(m, "q4_k_m:down=q6_k@5-61", "between 0 and 60");
  refuse(m, "q4_k_m:down=q6_k@5-", "FIRST-LAST");
  refuse(m, "q4_k_m:embed=q6_k@5", "no layer");
  refuse(m, "nonsense:down=q6_k", "unknown");
  /* a model by this recipe: it is what FMT_DEFAULT means */
  model *by = NULL;
  assert_int_equal(model_with_recipe(m, &r, &by), HF_OK);
  assert_int_equal(model_total_bytes(by, FMT_DEFAULT), recipe_total_bytes(m, &r));
  assert_int_equal(model_total_params(model_get_config(by)), model_total_params(c));
  assert_null(config_differ(model_get_config(by), c));
  assert_int_equal(model_get_config(by)->default_format, FMT_Q4_K);
  assert_string_equal(model_get_recipe(by)->name, r.name);
  assert_null(model_get_recipe(m));
  assert_false(model_has_weights(by));
  model_close(by);
  model_close(m);
}

/* Types of GGUF files and of safetensors do not lie in one file; what hf-run computes in plain C only is others' to run. */
static void test_programs(void **state) {
  (void)state;
  static const struct {
    const char *recipe, *first;
    bool llama, ik, safetensors;
  } cases[] = {
      {"q4_k_m", "hf-run", true, true, false},
      {"bf16", "hf-run", true, true, true},
      {"fp8", "hf-run", false, false, true},
      {"int4", "hf-run", false, false, true},
      {"mxfp4", "hf-run", true, true, true},
      {"int8", "sglang", false, false, true},
      {"iq4_k", "ik_llama.cpp", false, true, false},
      {"q8_0:experts=iq3_s", "llama.cpp", true, true, false},
      {"tq1_0", "llama.cpp", true, true, false},
      {"q8_0:experts=fp8", "none", false, false, false},
      {"q8_0:down=iq4_k@3-20", "ik_llama.cpp", false, true, false},
  };
  model *m = from_catalog("deepseek-r1");
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    model_recipe r;
    if (recipe_parse(cases[i].recipe, model_get_config(m), &r) != HF_OK) fail_msg("%s", hf_error_line());
    const char *first = recipe_program_name(recipe_program_of(&r));
    if (strcmp(first, cases[i].first) != 0) fail_msg("%s: %s runs it first", cases[i].recipe, first);
    assert_int_equal(recipe_runs_on(&r, RUNS_HF_RUN), !strcmp(first, "hf-run"));
    assert_int_equal(recipe_runs_on(&r, RUNS_LLAMA_CPP), cases[i].llama);
    assert_int_equal(recipe_runs_on(&r, RUNS_IK_LLAMA_CPP), cases[i].ik);
    assert_int_equal(recipe_runs_on(&r, RUNS_SAFETENSORS), cases[i].safetensors);
  }
  model_close(m);
}

static void test_weights_stay_apart(void **state) {
  (void)state;
  model *m = NULL, *by = NULL;
  if (model_open("synth:examples/tiny-moe,layers=2,seed=1,format=q8_0", &m) != HF_OK) fail_msg("%s", hf_error_line());
  int64_t stored = model_total_bytes(m, FMT_DEFAULT);
  assert_int_equal(model_total_bytes(m, FMT_Q8_0), stored);
  model_recipe r;
  recipe_of(FMT_Q4_K_M, model_get_config(m), &r);
  assert_int_equal(model_with_recipe(m, &r, &by), HF_OK);
  assert_false(model_has_weights(by));
  assert_int_equal(model_total_bytes(by, FMT_DEFAULT), model_total_bytes(m, FMT_Q4_K_M));
  assert_true(model_total_bytes(by, FMT_DEFAULT) < stored);
  model_close(by);
  model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_sizes_of_published_files),
                                     cmocka_unit_test(test_expert_buffers),
                                     cmocka_unit_test(test_layers_differ),
                                     cmocka_unit_test(test_eight_experts),
                                     cmocka_unit_test(test_names),
                                     cmocka_unit_test(test_recipes_by_name),
                                     cmocka_unit_test(test_programs),
                                     cmocka_unit_test(test_weights_stay_apart)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
