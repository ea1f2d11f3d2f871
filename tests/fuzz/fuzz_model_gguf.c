/* A GGUF file of any bytes: opened as a model; every tensor of one that is accepted can be read. */
#include "tests/fuzz/fuzz_model.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char path[64];
  if (size > 1 << 20) return 0;
  fuzz_path(path, sizeof path, "fuzz-%d.gguf");
  if (!fuzz_write(path, data, size)) return 0;
  fuzz_open(path);
  fuzz_export(path);
  unlink(path);
  return 0;
}
