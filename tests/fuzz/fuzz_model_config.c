/* A config.json of any bytes: the model's parts are computed for a few formats, a synthetic one is made from it. */
#include "tests/fuzz/fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  json *j = NULL;
  model *m = NULL;
  if (size > 1 << 16 || json_parse((const char *)data, size, "config.json", &j) != HF_OK) return 0;
  if (model_from_config(j, "config.json", &m) == HF_OK) {
    static const fmt formats[] = {FMT_DEFAULT, FMT_Q8_0, FMT_Q4_K_M, FMT_FP8_E4M3, FMT_INT4_G32};
    for (int i = 0; i < 5; i++)
      if (model_total_bytes(m, formats[i]) <= 0) abort();
    if (model_total_params(model_get_config(m)) <= 0) abort();
    model_close(m);
  }
  json_free(j);
  return 0;
}
