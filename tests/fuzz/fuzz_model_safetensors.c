/* A safetensors file of any bytes beside the config of a small Qwen3-MoE. */
#include <sys/stat.h>

#include "tests/fuzz/fuzz_model.h"

static const char config[] =
    "{\"model_type\":\"qwen3_moe\",\"num_hidden_layers\":1,\"hidden_size\":4,\"vocab_size\":4,\"num_attention_heads\":2,"
    "\"num_key_value_heads\":1,\"head_dim\":2,\"moe_intermediate_size\":2,\"num_experts\":2,\"num_experts_per_tok\":1}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char dir[64], path[96];
  if (size > 1 << 20) return 0;
  fuzz_path(dir, sizeof dir, "fuzz-%d.model");
  mkdir(dir, 0700);
  snprintf(path, sizeof path, "%s/config.json", dir);
  bool ok = fuzz_write(path, (const uint8_t *)config, sizeof config - 1);
  snprintf(path, sizeof path, "%s/model.safetensors", dir);
  if (ok && fuzz_write(path, data, size)) {
    fuzz_open(dir);
    fuzz_export(dir);
  }
  unlink(path);
  snprintf(path, sizeof path, "%s/config.json", dir);
  unlink(path);
  rmdir(dir);
  return 0;
}
