/* config.json of every family: resolved rules, rotary constants, refusals; parts and totals of published models. */
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

static model *from_text(const char *text) {
  json *j = NULL;
  model *m = NULL;
  if (json_parse(text, strlen(text), "config.json", &j) != HF_OK) fail_msg("%s", hf_error_line());
  if (model_from_config(j, "config.json", &m) != HF_OK) fail_msg("%s", hf_error_line());
  json_free(j);
  return m;
}

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

static void refuse(const char *text, hf_status want, const char *field) {
  json *j = NULL;
  model *m = NULL;
  if (json_parse(text, strlen(text), "config.json", &j) != HF_OK) fail_msg("%s", hf_error_line());
  hf_status st = model_from_config(j, "config.json", &m);
  json_free(j);
  if (st != want || !strstr(hf_error_line(), "config.json") || !strstr(hf_error_line(), field))
    fail_msg("status %d where %d with '%s' was expected: %s", st, want, field, st ? hf_error_line() : "accepted");
}

#define QWEN3                                                                                                             \
  "\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":4,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":4," \
  "\"num_key_value_heads\":2,\"head_dim\":32,\"moe_intermediate_size\":32,\"num_experts\":8,\"num_experts_per_tok\":2"
#define MLA                                                                                                                      \
  "\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":2,\"kv_lora_rank\":32,\"qk_nope_head_dim\":128,\"v_head_dim\":" \
  "24,"                                                                                                                          \
  "\"intermediate_size\":96,\"moe_intermediate_size\":32,\"n_routed_experts\":16,\"num_experts_per_tok\":4,\"n_shared_"          \
  "experts\":2"
#define V3 "\"model_type\":\"deepseek_v3\",\"num_hidden_layers\":4,\"qk_rope_head_dim\":64,\"q_lora_rank\":32," MLA
#define V2 "\"model_type\":\"deepseek_v2\",\"num_hidden_layers\":4,\"qk_rope_head_dim\":64," MLA
#define YARN "\"type\":\"yarn\",\"factor\":40,\"original_max_position_embeddings\":4096,\"beta_fast\":32,\"beta_slow\":1"

static void test_deepseek_rules(void **state) {
  (void)state;
  model *m =
      from_text("{" V3 ",\"first_k_dense_replace\":1,\"moe_layer_freq\":2,\"n_group\":4,\"topk_group\":2,\"norm_topk_prob\":true,"
                "\"rope_scaling\":{" YARN ",\"mscale\":1.0,\"mscale_all_dim\":1.0}}");
  const model_config *c = model_get_config(m);
  assert_int_equal(c->family, FAM_DEEPSEEK_V3);
  assert_int_equal(c->route, ROUTE_SIGMOID);
  assert_int_equal(c->group, GROUP_TOP2SUM);
  assert_true(c->router_bias && c->norm_topk);
  assert_int_equal(c->d_ff_shared, 64);
  static const bool moe[] = {false, false, true, false};
  for (int i = 0; i < 4; i++) assert_int_equal(c->layer_is_moe[i], moe[i]);
  assert_int_equal(c->n_dense_layers, 2);
  assert_int_equal(c->rope.kind, ROPE_PAIRS);
  assert_float_equal(c->rope.mscale, 1, 1e-12);
  double mm = 0.1 * log(40) + 1;
  assert_float_equal(c->attn_scale, pow(192, -0.5) * mm * mm, 1e-9);
  /* dim 64, theta 1e4, 4096 tokens: the ramp runs from dimension floor(10.47) = 10 to ceil(22.51) = 23 */
  for (int i = 0; i < 32; i++) {
    double plain = pow(10000, -2.0 * i / 64), ramp = i < 10 ? 0 : i > 23 ? 1 : (i - 10) / 13.0;
    double want = plain / 40 * ramp + plain * (1 - ramp);
    if (fabs(c->rope.inv_freq[i] - want) > 1e-12 * want)
      fail_msg("inv_freq[%d] %.12g, %.12g expected", i, c->rope.inv_freq[i], want);
  }
  model_close(m);
  m = from_text(
      "{" V2
      ",\"q_lora_rank\":null,\"topk_method\":\"group_limited_greedy\",\"n_group\":4,\"topk_group\":2,\"norm_topk_prob\":false,"
      "\"routed_scaling_factor\":16.0,\"rope_scaling\":{" YARN ",\"mscale\":1.0,\"mscale_all_dim\":0.707}}");
  c = model_get_config(m);
  assert_int_equal(c->group, GROUP_MAX);
  assert_int_equal(c->route, ROUTE_SOFTMAX);
  assert_false(c->norm_topk || c->router_bias);
  assert_int_equal(c->q_lora_rank, 0);
  assert_float_equal(c->rope.mscale, mm / (0.0707 * log(40) + 1), 1e-9);
  model_close(m);
}

static void test_gpt_oss_rules(void **state) {
  (void)state;
  model *m = from_catalog("gpt-oss-120b");
  const model_config *c = model_get_config(m);
  assert_true(c->sinks && c->qkv_bias && c->o_bias && c->router_lin_bias && c->expert_bias && c->swiglu_clamped);
  assert_int_equal(c->sliding_window, 128);
  for (int i = 0; i < c->n_layers; i++) assert_int_equal(c->layer_slides[i], i % 2 == 0);
  assert_float_equal(c->rope.mscale, 1.3465735902799727, 1e-9); /* 0.1 ln 32 + 1 */
  assert_float_equal(c->attn_scale, 0.125, 1e-12);
  /* truncate false: the ramp's ends stay fractional */
  double low = 64 * log(4096 / (32 * 2 * M_PI)) / (2 * log(150000)), high = 64 * log(4096 / (2 * M_PI)) / (2 * log(150000));
  for (int i = 0; i < 32; i++) {
    double plain = pow(150000, -2.0 * i / 64), ramp = (i - low) / (high - low);
    ramp = ramp < 0 ? 0 : ramp > 1 ? 1 : ramp;
    assert_float_equal(c->rope.inv_freq[i] / (plain / 32 * ramp + plain * (1 - ramp)), 1, 1e-6);
  }
  assert_int_equal(c->default_format, FMT_MXFP4);
  model_close(m);
}

static void test_other_families(void **state) {
  (void)state;
  model *m =
      from_text("{" QWEN3 ",\"decoder_sparse_step\":2,\"mlp_only_layers\":[3],\"intermediate_size\":64,\"norm_topk_prob\":true}");
  const model_config *c = model_get_config(m);
  static const bool moe[] = {false, true, false, false};
  for (int i = 0; i < 4; i++) assert_int_equal(c->layer_is_moe[i], moe[i]);
  assert_true(c->qk_norm_head && c->norm_topk && !c->qkv_bias);
  assert_int_equal(c->rope.kind, ROPE_HALVES);
  model_close(m);
  m = from_catalog("glm-4.5");
  c = model_get_config(m);
  assert_int_equal(c->rope.dim, 64);
  assert_int_equal(c->head_dim, 128);
  assert_int_equal(c->n_eos, 3);
  assert_true(c->qk_norm_head && c->qkv_bias && !c->o_bias && c->router_bias && c->norm_topk);
  model_close(m);
  m = from_text(
      "{\"model_type\":\"olmoe\",\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":4,"
      "\"intermediate_size\":32,\"num_experts\":4,\"num_experts_per_tok\":2,\"norm_topk_prob\":false}");
  assert_true(model_get_config(m)->qk_norm_full && !model_get_config(m)->norm_topk);
  model_close(m);
  m = from_text(
      "{\"model_type\":\"qwen2_moe\",\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":4,"
      "\"moe_intermediate_size\":32,\"shared_expert_intermediate_size\":64,\"num_experts\":6,\"num_experts_per_tok\":2,"
      "\"sliding_window\":32768,\"use_sliding_window\":false}");
  c = model_get_config(m);
  assert_true(c->qkv_bias && c->shared_gate && !c->norm_topk && !c->o_bias);
  assert_int_equal(c->sliding_window, 0);
  model_close(m);
}

static void test_refusals(void **state) {
  (void)state;
  refuse("[]", HF_INPUT, "object");
  refuse("{}", HF_INPUT, "model_type");
  refuse("{\"model_type\":\"gemma2\"}", HF_UNSUPPORTED, "deepseek_v3");
  refuse("{\"model_type\":\"qwen3_moe\"}", HF_INPUT, "num_hidden_layers");
  refuse("{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":0}", HF_INPUT, "num_hidden_layers");
  refuse("{" V3 ",\"n_group\":5,\"topk_group\":2}", HF_INPUT, "n_group");
  refuse("{" V3 ",\"n_group\":4,\"topk_group\":5}", HF_INPUT, "topk_group");
  refuse("{" V3 ",\"n_group\":8,\"topk_group\":1}", HF_INPUT, "num_experts_per_tok");
  refuse("{" V3 ",\"n_group\":16,\"topk_group\":8}", HF_INPUT, "n_group");
  refuse("{" V3 ",\"first_k_dense_replace\":4}", HF_INPUT, "first_k_dense_replace");
  refuse("{" V3 ",\"scoring_func\":\"softmax\"}", HF_UNSUPPORTED, "scoring_func");
  refuse("{" V3 ",\"attention_bias\":true}", HF_UNSUPPORTED, "attention_bias");
  refuse("{" V3 ",\"hidden_act\":\"gelu\"}", HF_UNSUPPORTED, "hidden_act");
  refuse("{" V3 ",\"eos_token_id\":300}", HF_INPUT, "eos_token_id");
  refuse("{" V3 ",\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", HF_INPUT, "eos_token_id");
  refuse("{" V3 ",\"rope_scaling\":{\"type\":\"longrope\",\"factor\":2}}", HF_UNSUPPORTED, "rope_scaling");
  refuse("{" V3 ",\"rope_scaling\":{\"type\":\"yarn\"}}", HF_INPUT, "factor");
  refuse("{" V3 ",\"rope_scaling\":7}", HF_INPUT, "rope_scaling");
  refuse("{" V3 ",\"quantization_config\":{\"quant_method\":\"awq\"}}", HF_UNSUPPORTED, "quant_method");
  refuse("{" V2 ",\"norm_topk_prob\":true}", HF_UNSUPPORTED, "norm_topk_prob");
  refuse("{" V2 ",\"topk_method\":\"noaux_tc\"}", HF_UNSUPPORTED, "topk_method");
  refuse("{" QWEN3 ",\"mlp_only_layers\":[4]}", HF_INPUT, "mlp_only_layers");
  refuse("{" QWEN3 ",\"mlp_only_layers\":[0]}", HF_INPUT, "intermediate_size");
  refuse("{\"model_type\":\"olmoe\",\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":1e300}", HF_INPUT, "vocab_size");
  refuse("{\"model_type\":\"mixtral\",\"num_hidden_layers\":2,\"hidden_size\":65,\"vocab_size\":300,\"num_attention_heads\":4,"
         "\"intermediate_size\":64,\"num_local_experts\":4}",
         HF_INPUT, "hidden_size");
  refuse("{\"model_type\":\"mixtral\",\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":4,"
         "\"num_key_value_heads\":3,\"intermediate_size\":64,\"num_local_experts\":4}",
         HF_INPUT, "num_key_value_heads");
}

static void test_published_sizes(void **state) {
  (void)state;
  static const struct {
    const char *name;
    double params, tolerance;
  } known[] = {{"deepseek-r1", 671.0e9, 5e-4},  {"deepseek-v3", 671.0e9, 5e-4},  {"qwen3-235b-a22b", 235.1e9, 5e-4},
               {"qwen3-30b-a3b", 30.5e9, 2e-3}, {"gpt-oss-120b", 116.8e9, 5e-4}, {"glm-4.5", 355e9, 1e-2},
               {"kimi-k2", 1.03e12, 5e-3}};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    model *m = from_catalog(known[i].name);
    double n = (double)model_total_params(model_get_config(m));
    if (fabs(n / known[i].params - 1) > known[i].tolerance)
      fail_msg("%s: %.4g parameters, %.4g expected", known[i].name, n, known[i].params);
    assert_false(model_has_weights(m));
    model_close(m);
  }
}

/* Dense models: for planning; nothing routed, no shared experts. Parameters: model cards. */
static void test_dense_families(void **state) {
  (void)state;
  static const struct {
    const char *text;
    double params;
    bool norm, bias;
  } dense[] = {{"{\"model_type\":\"llama\",\"num_hidden_layers\":32,\"hidden_size\":4096,\"intermediate_size\":14336,\"num_"
                "attention_heads\":32,"
                "\"num_key_value_heads\":8,\"vocab_size\":128256,\"rope_theta\":500000,\"rope_scaling\":{\"rope_type\":"
                "\"llama3\",\"factor\":8}}",
                8.03e9, false, false},
               {"{\"model_type\":\"qwen3\",\"num_hidden_layers\":36,\"hidden_size\":4096,\"intermediate_size\":12288,\"num_"
                "attention_heads\":32,"
                "\"num_key_value_heads\":8,\"head_dim\":128,\"vocab_size\":151936,\"rope_theta\":1000000}",
                8.19e9, true, false},
               {"{\"model_type\":\"qwen2\",\"num_hidden_layers\":24,\"hidden_size\":896,\"intermediate_size\":4864,\"num_"
                "attention_heads\":14,"
                "\"num_key_value_heads\":2,\"vocab_size\":151936,\"tie_word_embeddings\":true}",
                0.494e9, false, true}};
  for (size_t i = 0; i < sizeof dense / sizeof *dense; i++) {
    model *m = from_text(dense[i].text);
    const model_config *c = model_get_config(m);
    model_layer_parts p;
    assert_float_equal((double)model_total_params(c) / dense[i].params, 1, 0.005);
    assert_int_equal(c->n_experts, 0);
    assert_int_equal(c->n_dense_layers, c->n_layers);
    assert_int_equal(c->qk_norm_head, dense[i].norm);
    assert_int_equal(c->qkv_bias, dense[i].bias);
    assert_int_equal(model_layer_parts_of(m, FMT_Q4_K_M, 5, &p), HF_OK);
    assert_int_equal(p.expert.bytes + p.router.bytes + p.shared.bytes, 0);
    assert_true(p.dense_ffn.bytes > 0);
    model_close(m);
  }
}

static void test_parts_of_r1(void **state) {
  (void)state;
  model *m = from_catalog("deepseek-r1");
  const model_config *c = model_get_config(m);
  model_layer_parts p;
  assert_int_equal(model_layer_parts_of(m, FMT_Q8_0, 10, &p), HF_OK);
  assert_int_equal(p.expert.bytes, 3LL * 2048 * 7168 / 32 * 34);
  assert_float_equal(p.expert.flops_per_token, 2.0 * 3 * 2048 * 7168, 1);
  assert_int_equal(p.dense_ffn.bytes, 0);
  assert_int_equal(p.router.bytes, 256 * 7168 * 4 + 256 * 4);
  assert_float_equal(p.flops_per_token_context, 2.0 * 128 * (512 + 64 + 512), 1);
  assert_int_equal(p.expert_fmt, FMT_Q8_0);
  assert_int_equal(model_layer_parts_of(m, FMT_DEFAULT, 0, &p), HF_OK);
  assert_int_equal(p.expert.bytes, 0);
  assert_int_equal(p.ffn_fmt, FMT_FP8_E4M3);
  assert_int_equal(p.dense_ffn.bytes, 3LL * 18432 * 7168 + 3LL * 144 * 56 * 4);
  assert_int_equal(model_layer_parts_of(m, FMT_INT4_G32, 10, &p), HF_OK);
  assert_int_equal(p.attn_fmt, FMT_BF16);
  assert_int_equal(p.shared_fmt, FMT_BF16);
  assert_int_equal(p.expert.bytes, 3LL * 2048 * 7168 / 32 * 18);
  assert_int_equal(model_layer_parts_of(m, FMT_Q8_0, 61, &p), HF_NOT_FOUND);
  assert_int_equal(model_kv_bytes_per_token(c, 0, FMT_F16), (512 + 64) * 2);
  assert_int_equal(model_kv_bytes_per_token(c, 0, FMT_Q8_0), (512 + 64) / 32 * 34);
  assert_float_equal((double)model_total_bytes(m, FMT_Q4_K_M) / 404e9, 1, 0.01);
  assert_float_equal((double)model_total_bytes(m, FMT_Q2_K_XL) / 226.6e9, 1, 0.01);
  /* 37 billion weights a token */
  double flops = 0;
  for (int i = 0; i < c->n_layers; i++) {
    assert_int_equal(model_layer_parts_of(m, FMT_DEFAULT, i, &p), HF_OK);
    flops += p.attn.flops_per_token + p.dense_ffn.flops_per_token + p.router.flops_per_token + p.shared.flops_per_token +
             (c->layer_is_moe[i] ? 8 * p.expert.flops_per_token : 0);
  }
  model_head_parts h;
  assert_int_equal(model_head_parts_of(m, FMT_DEFAULT, &h), HF_OK);
  assert_float_equal((flops + h.output.flops_per_token) / 2 / 36.7e9, 1, 0.02);
  assert_int_equal(h.embed.bytes, 129280LL * 7168 * 2);
  model_close(m);
}

static void test_format_table(void **state) {
  (void)state;
  json *j = NULL;
  assert_int_equal(json_read_file("tests/golden/dequant/index.json", 1 << 20, &j), HF_OK);
  int n = 0;
  for (const json *e = json_first(json_get(j, "types")); e; e = json_next(e), n++) {
    fmt f, g;
    assert_true(fmt_from_ggml((int)json_number(json_get(e, "id"), -1), &f));
    assert_int_equal(fmt_parse(json_string(json_get(e, "type")), &g), HF_OK);
    assert_int_equal(f, g);
    assert_int_equal(fmt_get(f)->block, (int)json_number(json_get(e, "block_size"), -1));
    assert_int_equal(fmt_get(f)->block_bytes, (int)json_number(json_get(e, "block_bytes"), -1));
    assert_float_equal(fmt_get(f)->bits_per_weight, 8.0 * fmt_get(f)->block_bytes / fmt_get(f)->block, 1e-9);
    assert_int_equal(fmt_row_bytes(f, 2048), json_number(json_get(e, "blocks"), 0) * fmt_get(f)->block_bytes);
  }
  assert_int_equal(n, 26);
  json_free(j);
  fmt f;
  assert_int_equal(fmt_parse("q5", &f), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "q5_k"));
  assert_false(fmt_from_ggml(9, &f));
}

static void test_dequant(void **state) {
  (void)state;
  static const struct {
    const char *name;
    fmt f;
  } known[] = {{"F32", FMT_F32}, {"F16", FMT_F16}, {"BF16", FMT_BF16}, {"Q8_0", FMT_Q8_0}};
  for (int i = 0; i < 4; i++) {
    char path[128], *raw, *want;
    size_t n, k;
    float out[2048];
    snprintf(path, sizeof path, "tests/golden/dequant/%s.bin", known[i].name);
    assert_int_equal(hf_read_file(path, 1 << 20, &raw, &n), HF_OK);
    snprintf(path, sizeof path, "tests/golden/dequant/%s.f32", known[i].name);
    assert_int_equal(hf_read_file(path, 1 << 20, &want, &k), HF_OK);
    assert_int_equal(dequant_row(known[i].f, raw, 2048, out), HF_OK);
    assert_memory_equal(out, want, sizeof out);
    free(raw);
    free(want);
  }
  for (uint32_t h = 0; h < 0x10000; h++) /* every f16 survives the way there and back */
    if ((h & 0x7c00) != 0x7c00) assert_int_equal(f32_to_f16(f16_to_f32((uint16_t)h)), h);
  assert_int_equal(f32_to_f16(65519.0f), 0x7bff);
  assert_int_equal(f32_to_f16(65520.0f), 0x7c00);
  assert_int_equal(f32_to_f16(1.00048828125f), 0x3c00); /* a tie goes to even */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_deepseek_rules), cmocka_unit_test(test_gpt_oss_rules),   cmocka_unit_test(test_other_families),
      cmocka_unit_test(test_refusals),       cmocka_unit_test(test_published_sizes), cmocka_unit_test(test_dense_families),
      cmocka_unit_test(test_parts_of_r1),    cmocka_unit_test(test_format_table),    cmocka_unit_test(test_dequant),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
