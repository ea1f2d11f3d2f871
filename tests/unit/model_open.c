/* Opening models: folders and GGUF files of the golden data describe the same model and hold the same numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/internal.h"

static model *open_ok(const char *path) {
  model *m = NULL;
  if (model_open(path, &m) != HF_OK) fail_msg("%s", hf_error_line());
  return m;
}

/* A whole canonical tensor as f32. */
static float *values(const model *m, model_tensor_id id, int layer, int expert, int64_t *n) {
  model_tensor_info info;
  if (model_tensor(m, id, layer, expert, &info) != HF_OK) fail_msg("%s", hf_error_line());
  uint8_t *raw = malloc(info.bytes);
  float *v = malloc((size_t)(info.rows * info.cols) * sizeof *v);
  if (model_tensor_read(m, id, layer, expert, raw, info.bytes) != HF_OK) fail_msg("%s", hf_error_line());
  const void *map;
  assert_int_equal(model_tensor_map(m, id, layer, expert, &map), HF_OK);
  assert_int_equal(map == NULL, info.derived);
  if (map) assert_memory_equal(map, raw, info.bytes);
  *n = info.rows * info.cols;
  for (int64_t r = 0; r < info.rows; r++)
    if (dequant_row(info.format, raw + (size_t)r * (info.bytes / (size_t)info.rows), info.cols, v + r * info.cols) != HF_OK)
      fail_msg("%s", hf_error_line());
  free(raw);
  return v;
}

static void same_tensors(const model *a, const model *b) {
  const model_config *c = model_get_config(a);
  int compared = 0;
  for (int layer = -1; layer < c->n_layers; layer++)
    for (int id = 0; id < MT_N; id++) {
      assert_int_equal(model_has_tensor(a, (model_tensor_id)id, layer), model_has_tensor(b, (model_tensor_id)id, layer));
      if (!model_has_tensor(a, (model_tensor_id)id, layer)) continue;
      bool expert = tensor_is_expert((model_tensor_id)id);
      for (int e = expert ? 0 : -1; e < (expert ? c->n_experts : 0); e++, compared++) {
        int64_t n, k;
        float *x = values(a, (model_tensor_id)id, layer, e, &n), *y = values(b, (model_tensor_id)id, layer, e, &k);
        assert_int_equal(n, k);
        for (int64_t i = 0; i < n; i++)
          if (x[i] != y[i])
            fail_msg("%s layer %d expert %d value %lld: %g against %g", tensor_name((model_tensor_id)id), layer, e, (long long)i,
                     (double)x[i], (double)y[i]);
        free(x);
        free(y);
      }
    }
  assert_true(compared > 20);
}

static void pair(const char *folder, const char *gguf) {
  model *a = open_ok(folder), *b = open_ok(gguf);
  assert_true(model_has_weights(a));
  assert_true(model_has_weights(b));
  assert_int_equal(model_get_config(a)->family, model_get_config(b)->family);
  const char *what = config_differ(model_get_config(a), model_get_config(b));
  if (what) fail_msg("%s and %s differ in %s", folder, gguf, what);
  same_tensors(a, b);
  model_close(a);
  model_close(b);
}

static void test_deepseek_pair(void **state) {
  (void)state;
  pair("tests/golden/deepseek_v3", "tests/golden/deepseek_v3_gguf/model.gguf");
}

static void test_qwen3_pair(void **state) {
  (void)state;
  pair("tests/golden/qwen3_moe", "tests/golden/qwen3_moe_gguf/model.gguf");
}

/* A copy in a folder of its own under /tmp; the caller removes it. */
static void write_file(const char *path, const void *p, size_t n) {
  FILE *f = fopen(path, "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(p, 1, n, f), n);
  assert_int_equal(fclose(f), 0);
}

/* Files from before the absorbed form store attn_kv_b, here Q8_0 with random quants: K is widened, transposed per head; V gathered. */
static void test_old_kv_b(void **state) {
  (void)state;
  static const char from[] = "tests/fuzz/corpus/model_gguf/deepseek2_kv_b_q8_0";
  char path[] = "/tmp/hf-old-kvb-XXXXXX.gguf", *bytes;
  size_t n;
  assert_int_equal(hf_read_file(from, 1 << 20, &bytes, &n), HF_OK);
  model *m = open_ok(from);
  const raw_tensor *t = tset_find(&m->set, "blk.1.attn_kv_b.weight");
  assert_non_null(t);
  uint32_t x = 1;
  for (uint64_t i = 0; i < t->bytes; i++)
    if (i % 34 >= 2) bytes[t->offset + i] = (char)((x = x * 1664525 + 1013904223) >> 24);
  uint64_t at = t->offset;
  model_close(m);
  int fd = mkstemps(path, 5);
  assert_true(fd >= 0);
  close(fd);
  write_file(path, bytes, n);
  m = open_ok(path);
  int64_t nk, nv;
  float *k = values(m, MT_K_B, 1, -1, &nk), *v = values(m, MT_V_B, 1, -1, &nv), row[32];
  enum { HEADS = 2, NOPE = 32, V = 32, LORA = 32 };
  assert_int_equal(nk, HEADS * LORA * NOPE);
  assert_int_equal(nv, HEADS * V * LORA);
  for (int h = 0; h < HEADS; h++)
    for (int r = 0; r < NOPE + V; r++) {
      assert_int_equal(dequant_row(FMT_Q8_0, bytes + at + (size_t)(h * (NOPE + V) + r) * 34, LORA, row), HF_OK);
      for (int l = 0; l < LORA; l++)
        assert_true(row[l] == (r < NOPE ? k[(h * LORA + l) * NOPE + r] : v[(h * V + r - NOPE) * LORA + l]));
    }
  model_tensor_info info;
  assert_int_equal(model_tensor(m, MT_K_B, 1, -1, &info), HF_OK);
  assert_int_equal(info.format, FMT_F32);
  assert_int_equal(model_tensor(m, MT_V_B, 1, -1, &info), HF_OK);
  assert_int_equal(info.format, FMT_Q8_0);
  free(k);
  free(v);
  free(bytes);
  model_close(m);
  unlink(path);
}

/* safetensors promises no alignment: at an odd place a tensor is not mapped, but read. */
static void test_misaligned(void **state) {
  (void)state;
  static const char config[] =
      "{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":1,\"hidden_size\":4,\"vocab_size\":4,\"num_attention_heads\":2,"
      "\"num_key_value_heads\":1,\"head_dim\":2,\"moe_intermediate_size\":2,\"num_experts\":2,\"num_experts_per_tok\":1}";
  char dir[] = "/tmp/hf-odd-XXXXXX", path[64], *bytes;
  size_t n;
  assert_non_null(mkdtemp(dir));
  assert_int_equal(hf_read_file("tests/fuzz/corpus/model_safetensors/valid", 1 << 20, &bytes, &n), HF_OK);
  size_t head = (uint8_t)bytes[0] + 256u * (uint8_t)bytes[1];
  char *odd = malloc(n + 1);
  memcpy(odd, bytes, 8 + head);
  odd[8 + head] = ' ';
  memcpy(odd + 9 + head, bytes + 8 + head, n - 8 - head);
  odd[0] = (char)(head + 1);
  snprintf(path, sizeof path, "%s/config.json", dir);
  write_file(path, config, sizeof config - 1);
  snprintf(path, sizeof path, "%s/model.safetensors", dir);
  for (int i = 0; i < 2; i++) {
    write_file(path, i ? odd : bytes, n + (size_t)i);
    model *m = open_ok(dir);
    model_tensor_info info;
    assert_int_equal(model_tensor(m, MT_EXP_UP, 0, 1, &info), HF_OK);
    assert_int_equal(info.derived, i);
    int64_t k;
    float *v = values(m, MT_EXP_UP, 0, 1, &k);
    for (int64_t j = 0; j < k; j++) assert_true(v[j] == bf16_to_f32(0x3f01));
    free(v);
    model_close(m);
  }
  unlink(path);
  snprintf(path, sizeof path, "%s/config.json", dir);
  unlink(path);
  rmdir(dir);
  free(bytes);
  free(odd);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_deepseek_pair),
      cmocka_unit_test(test_qwen3_pair),
      cmocka_unit_test(test_old_kv_b),
      cmocka_unit_test(test_misaligned),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
