/* Synthetic models: equal numbers whether made on demand or written and read back, in every form and order. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/synth.h"
#include "model/tokenizer.h"

static char dir[] = "/tmp/hf-synth-XXXXXX";

static int make_dir(void **state) {
  (void)state;
  return mkdtemp(dir) ? 0 : 1;
}

static int remove_dir(void **state) {
  (void)state;
  char cmd[64];
  snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
  return system(cmd);
}

/* A small model of each family, vocabulary 300, two or three layers. */
static const char *const family_config[] = {
    "{\"model_type\":\"deepseek_v3\",\"num_hidden_layers\":3,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":2,\"q_"
    "lora_rank\":32,"
    "\"kv_lora_rank\":32,\"qk_nope_head_dim\":32,\"qk_rope_head_dim\":16,\"v_head_dim\":24,\"intermediate_size\":96,\"moe_"
    "intermediate_size\":32,"
    "\"n_routed_experts\":8,\"num_experts_per_tok\":3,\"n_shared_experts\":1,\"n_group\":4,\"topk_group\":2,\"first_k_dense_"
    "replace\":1,"
    "\"routed_scaling_factor\":2.5,\"max_position_embeddings\":1024,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,"
    "\"original_max_position_embeddings\":256,\"mscale\":1.0,\"mscale_all_dim\":1.0,\"beta_fast\":32,\"beta_slow\":1}}",
    "{\"model_type\":\"deepseek_v2\",\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":2,\"q_"
    "lora_rank\":null,"
    "\"kv_lora_rank\":32,\"qk_nope_head_dim\":16,\"qk_rope_head_dim\":16,\"v_head_dim\":16,\"intermediate_size\":96,\"moe_"
    "intermediate_size\":32,"
    "\"n_routed_experts\":6,\"num_experts_per_tok\":2,\"n_shared_experts\":2,\"first_k_dense_replace\":1,\"max_position_"
    "embeddings\":1024}",
    "{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":4,\"num_"
    "key_value_heads\":2,"
    "\"head_dim\":32,\"moe_intermediate_size\":32,\"intermediate_size\":96,\"num_experts\":6,\"num_experts_per_tok\":2,\"norm_"
    "topk_prob\":true,"
    "\"mlp_only_layers\":[0],\"tie_word_embeddings\":true}",
    "{\"model_type\":\"qwen2_moe\",\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":4,\"moe_"
    "intermediate_size\":32,"
    "\"shared_expert_intermediate_size\":64,\"num_experts\":6,\"num_experts_per_tok\":2}",
    "{\"model_type\":\"mixtral\",\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":4,\"num_"
    "key_value_heads\":2,"
    "\"intermediate_size\":64,\"num_local_experts\":4}",
    "{\"model_type\":\"olmoe\",\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":4,"
    "\"intermediate_size\":32,"
    "\"num_experts\":4,\"num_experts_per_tok\":2,\"rms_norm_eps\":1e-5}",
    "{\"model_type\":\"gpt_oss\",\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":4,\"num_"
    "key_value_heads\":2,"
    "\"head_dim\":16,\"intermediate_size\":32,\"num_local_experts\":4,\"num_experts_per_tok\":2,\"sliding_window\":12,\"rms_norm_"
    "eps\":1e-5,"
    "\"max_position_embeddings\":131072,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32.0,\"original_max_position_"
    "embeddings\":4096,"
    "\"beta_fast\":32.0,\"beta_slow\":1.0,\"truncate\":false}}",
    "{\"model_type\":\"glm4_moe\",\"num_hidden_layers\":2,\"hidden_size\":64,\"vocab_size\":300,\"num_attention_heads\":4,\"num_"
    "key_value_heads\":2,"
    "\"head_dim\":32,\"intermediate_size\":96,\"moe_intermediate_size\":32,\"n_routed_experts\":4,\"num_experts_per_tok\":2,\"n_"
    "shared_experts\":1,"
    "\"first_k_dense_replace\":1,\"attention_bias\":true,\"use_qk_norm\":true,\"routed_scaling_factor\":2.5}",
    /* wide enough for blocks of 256 */
    "{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":1,\"hidden_size\":256,\"vocab_size\":300,\"num_attention_heads\":2,"
    "\"num_"
    "key_value_heads\":2,"
    "\"head_dim\":128,\"moe_intermediate_size\":256,\"intermediate_size\":256,\"num_experts\":3,\"num_experts_per_tok\":2,\"norm_"
    "topk_prob\":true}",
};
enum { N_CONFIGS = sizeof family_config / sizeof *family_config - 1, WIDE = N_CONFIGS };

static json *parse(const char *text) {
  json *j = NULL;
  if (json_parse(text, strlen(text), "config.json", &j) != HF_OK) fail_msg("%s", hf_error_line());
  return j;
}

static model *open_ok(const char *name) {
  model *m = NULL;
  if (model_open(name, &m) != HF_OK) fail_msg("%s", hf_error_line());
  return m;
}

static uint8_t *read_tensor(const model *m, int id, int layer, int e, model_tensor_info *t) {
  if (model_tensor(m, (model_tensor_id)id, layer, e, t) != HF_OK) fail_msg("%s", hf_error_line());
  uint8_t *p = malloc(t->bytes);
  if (model_tensor_read(m, (model_tensor_id)id, layer, e, p, t->bytes) != HF_OK) fail_msg("%s", hf_error_line());
  return p;
}

static void same_weights(const model *a, const model *b) {
  const model_config *c = model_get_config(a);
  const char *what = config_differ(c, model_get_config(b));
  if (what) fail_msg("configs differ in %s", what);
  int n = 0;
  for (int layer = -1; layer < c->n_layers; layer++)
    for (int id = 0; id < MT_N; id++) {
      assert_int_equal(model_has_tensor(a, (model_tensor_id)id, layer), model_has_tensor(b, (model_tensor_id)id, layer));
      if (!model_has_tensor(a, (model_tensor_id)id, layer)) continue;
      bool expert = tensor_is_expert((model_tensor_id)id);
      for (int e = expert ? 0 : -1; e < (expert ? c->n_experts : 0); e++, n++) {
        model_tensor_info t, u;
        uint8_t *p = read_tensor(a, id, layer, e, &t), *q = read_tensor(b, id, layer, e, &u);
        assert_int_equal(t.format, u.format);
        assert_int_equal(t.bytes, u.bytes);
        if (memcmp(p, q, t.bytes)) fail_msg("%s of layer %d, expert %d differs", tensor_name((model_tensor_id)id), layer, e);
        free(p);
        free(q);
      }
    }
  assert_true(n > 20);
  assert_int_equal(model_total_bytes(a, FMT_DEFAULT), model_total_bytes(b, FMT_DEFAULT));
}

static void round_trip(int i, fmt format, bool gguf) {
  char path[128], config[128], name[256];
  json *j = parse(family_config[i]);
  snprintf(config, sizeof config, "%s/config-%d.json", dir, i);
  assert_int_equal(json_write_file(j, config), HF_OK);
  snprintf(path, sizeof path, "%s/m-%d-%s%s", dir, i, fmt_get(format)->name, gguf ? ".gguf" : "");
  model_synth_options o = {.seed = 7, .format = format, .gguf = gguf};
  if (model_synth_write(j, config, &o, path) != HF_OK) fail_msg("%s", hf_error_line());
  json_free(j);
  snprintf(name, sizeof name, "synth:%s,seed=7,format=%s", config, fmt_get(format)->name);
  model *a = open_ok(name), *b = open_ok(path);
  const void *map = &map;
  assert_int_equal(model_tensor_map(a, MT_EMBED, -1, -1, &map), HF_OK);
  assert_null(map);
  same_weights(a, b);
  model_close(a);
  model_close(b);
}

static void test_gguf_round_trip(void **state) {
  (void)state;
  static const fmt formats[] = {FMT_Q8_0, FMT_F16, FMT_BF16, FMT_F32};
  for (int i = 0; i < N_CONFIGS; i++)
    for (int f = 0; f < 4; f++) round_trip(i, formats[f], true);
}

/* Every format of GGUF that has synthetic weights, each written and read back; all rows of the wide model are in blocks of it. */
static void test_gguf_formats_round_trip(void **state) {
  (void)state;
  int n = 0;
  for (int f = 0; f < FMT_N; f++) {
    if (fmt_get((fmt)f)->ggml_type < 0 || !synth_can((fmt)f)) continue;
    n++;
    round_trip(WIDE, (fmt)f, true);
    char name[256];
    snprintf(name, sizeof name, "synth:%s/config-%d.json,format=%s", dir, WIDE, fmt_get((fmt)f)->name);
    model *m = open_ok(name);
    model_tensor_info t;
    if (model_tensor(m, MT_EXP_UP, 0, 2, &t) != HF_OK) fail_msg("%s", hf_error_line());
    assert_int_equal(t.format, f);
    model_close(m);
  }
  assert_int_equal(n, 26);
  round_trip(WIDE, FMT_Q4_K_M, true);
}

static void test_folder_round_trip(void **state) {
  (void)state;
  static const fmt formats[] = {FMT_F16, FMT_BF16, FMT_F32};
  for (int i = 0; i < N_CONFIGS; i++)
    for (int f = 0; f < 3; f++) round_trip(i, formats[f], false);
}

static void test_seeds_and_overrides(void **state) {
  (void)state;
  model *a = open_ok("synth:tests/golden/qwen3_moe,seed=1,layers=1,experts=5,format=f32");
  model *b = open_ok("synth:tests/golden/qwen3_moe,seed=2,layers=1,experts=5,format=f32");
  assert_int_equal(model_get_config(a)->n_layers, 1);
  assert_int_equal(model_get_config(a)->n_experts, 5);
  model_tensor_info t;
  float *x = (float *)(void *)read_tensor(a, MT_EXP_UP, 0, 3, &t), *y = (float *)(void *)read_tensor(b, MT_EXP_UP, 0, 3, &t);
  float *z = (float *)(void *)read_tensor(a, MT_EXP_UP, 0, 4, &t);
  int64_t n = t.rows * t.cols, same_seed = 0, same_expert = 0;
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; i++) {
    same_seed += x[i] == y[i];
    same_expert += x[i] == z[i];
    sum += (double)x[i];
    squares += (double)x[i] * (double)x[i];
  }
  assert_true(same_seed < n / 100 && same_expert < n / 100);
  assert_true(fabs(sum / (double)n) < 0.02);
  assert_true(fabs(squares / (double)n * (double)t.cols - 1) < 0.15); /* variance 1 / columns */
  float row[64];
  assert_int_equal(model_row_f32(a, MT_EMBED, -1, 17, row, 64), HF_OK);
  free(x);
  free(y);
  free(z);
  model_close(a);
  model_close(b);
}

static void test_written_tokenizers(void **state) {
  (void)state;
  static const char text[] = "a\ttrip to \xc3\xa9t\xc3\xa9\n";
  for (int gguf = 0; gguf < 2; gguf++) {
    char path[128];
    snprintf(path, sizeof path, "%s/tok%s", dir, gguf ? ".gguf" : "");
    json *j = parse(family_config[2]);
    model_synth_options o = {.seed = 1, .format = FMT_F16, .gguf = gguf};
    if (model_synth_write(j, "config.json", &o, path) != HF_OK) fail_msg("%s", hf_error_line());
    json_free(j);
    tokenizer *t = NULL;
    if (tokenizer_open(path, &t) != HF_OK) fail_msg("%s", hf_error_line());
    int32_t *ids = NULL;
    int n = 0;
    assert_int_equal(tokenizer_encode(t, text, sizeof text - 1, false, false, &ids, &n), HF_OK);
    hf_buf b;
    hf_buf_init(&b, 1000);
    for (int i = 0; i < n; i++) {
      assert_in_range(ids[i], 0, 299);
      assert_int_equal(tokenizer_decode(t, ids[i], false, &b), HF_OK);
    }
    assert_string_equal(b.data, text);
    assert_int_equal(tokenizer_eos(t), gguf ? 299 : -1); /* the folder has no tokenizer_config.json to say which */
    hf_buf_free(&b);
    free(ids);
    tokenizer_close(t);
  }
}

static void refuse(const char *name, hf_status want, const char *text) {
  model *m = NULL;
  hf_status st = model_open(name, &m);
  if (st != want || !strstr(hf_error_line(), text)) fail_msg("%s: status %d: %s", name, st, hf_error_line());
}

static void test_refusals(void **state) {
  (void)state;
  refuse("synth:", HF_INPUT, "config name");
  refuse("synth:tests/golden/qwen3_moe,layers", HF_INPUT, "'='");
  refuse("synth:tests/golden/qwen3_moe,layers=0", HF_INPUT, "layers=1..1024");
  refuse("synth:tests/golden/qwen3_moe,layers=1025", HF_INPUT, "layers=1..1024");
  refuse("synth:tests/golden/qwen3_moe,experts=3", HF_INPUT, "num_experts_per_tok");
  refuse("synth:tests/golden/qwen3_moe,format=q9", HF_INPUT, "q9");
  refuse("synth:no-such-model", HF_NOT_FOUND, "no-such-model");
  model *m = open_ok("synth:tests/golden/deepseek_v3,format=q4_k"); /* rows too short for blocks of 256: F16 */
  model_close(m);
  json *j = parse(family_config[0]);
  model_synth_options o = {.format = FMT_IQ2_K, .gguf = true};
  assert_int_equal(model_synth_write(j, "c", &o, "/tmp/none"), HF_UNSUPPORTED);
  o.format = FMT_Q8_0;
  o.gguf = false;
  assert_int_equal(model_synth_write(j, "c", &o, "/tmp/none"), HF_UNSUPPORTED);
  o.gguf = true;
  assert_int_equal(model_synth_write(j, "c", &o, "/nonexistent/x.gguf"), HF_MACHINE);
  json_free(j);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_gguf_round_trip),    cmocka_unit_test(test_gguf_formats_round_trip),
      cmocka_unit_test(test_folder_round_trip),  cmocka_unit_test(test_seeds_and_overrides),
      cmocka_unit_test(test_written_tokenizers), cmocka_unit_test(test_refusals),
  };
  return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
