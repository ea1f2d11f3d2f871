/* Opening models: folders and GGUF files of the golden data describe the same model and hold the same numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

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
  assert_false(model_is_gguf(a));
  assert_true(model_is_gguf(b));
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_deepseek_pair),
      cmocka_unit_test(test_qwen3_pair),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
