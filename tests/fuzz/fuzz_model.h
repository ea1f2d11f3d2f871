/* fuzz_model.h: shared by the model room's fuzz targets: files in memory-backed /dev/shm, and a model read through. */
#ifndef HF_TESTS_FUZZ_MODEL_H
#define HF_TESTS_FUZZ_MODEL_H
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "model/model.h"

static inline void fuzz_path(char *buf, size_t n, const char *pattern) {
  int k = snprintf(buf, n, "%s/", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
  if (k > 0 && (size_t)k < n) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    snprintf(buf + k, n - (size_t)k, pattern, (int)getpid());
#pragma GCC diagnostic pop
  }
}

static inline bool fuzz_write(const char *path, const uint8_t *data, size_t size) {
  FILE *f = fopen(path, "wb");
  if (!f) return false;
  bool ok = size == 0 || fwrite(data, 1, size, f) == size;
  return fclose(f) == 0 && ok;
}

/* Opens; reads what is there, tensors over a megabyte left out. A tensor that a model has must be readable or refused. */
static inline void fuzz_open(const char *path) {
  model *m = NULL;
  if (model_open(path, &m) != HF_OK) {
    if (!hf_error_line()[0]) abort();
    return;
  }
  const model_config *c = model_get_config(m);
  if (model_total_bytes(m, FMT_DEFAULT) <= 0) abort();
  for (int layer = -1; layer < c->n_layers && layer < 4; layer++)
    for (int id = 0; id < MT_N; id++) {
      if (!model_has_tensor(m, (model_tensor_id)id, layer)) continue;
      model_tensor_info t;
      int expert = c->n_experts - 1;
      if (model_tensor(m, (model_tensor_id)id, layer, -1, &t) == HF_OK) expert = -1;
      else if (model_tensor(m, (model_tensor_id)id, layer, expert, &t) != HF_OK) abort();
      if (t.bytes > 1 << 20) continue;
      void *buf = malloc(t.bytes);
      if (buf && model_tensor_read(m, (model_tensor_id)id, layer, expert, buf, t.bytes) != HF_OK && !hf_error_line()[0]) abort();
      free(buf);
    }
  model_close(m);
}
#endif
