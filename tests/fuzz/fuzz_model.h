/* fuzz_model.h: shared by the model room's fuzz targets: files in memory-backed /dev/shm, and a model read through. */
#ifndef HF_TESTS_FUZZ_MODEL_H
#define HF_TESTS_FUZZ_MODEL_H
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "model/export.h"

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

static inline void fuzz_count(void *user, const char *line) {
  if (!line[0]) abort();
  (*(int *)user)++;
}

/* Opens with faults collected, and plans to write what is there anew: every row that the plan names can be read or is refused. */
static inline void fuzz_export(const char *path) {
  model *m = NULL;
  int faults = 0;
  if (model_open_tolerant(path, fuzz_count, &faults, &m) != HF_OK) return;
  for (int64_t i = 0; i < model_stored_count(m); i++) {
    model_stored_tensor t = model_stored(m, i);
    uint8_t first[16];
    if (t.in_file && t.bytes >= sizeof first && model_stored_read(m, i, t.bytes - sizeof first, first, sizeof first) != HF_OK)
      abort();
  }
  model_recipe r;
  model_export *e = NULL;
  recipe_of(FMT_Q8_0, model_get_config(m), &r);
  if (faults == 0 && model_export_plan(m, &r, true, &e) == HF_OK)
    for (int i = 0; i < model_export_count(e); i++) {
      const export_tensor *t = model_export_at(e, i);
      size_t bytes = (size_t)t->rows * fmt_row_bytes(t->from, t->cols);
      void *buf = bytes <= 1 << 20 ? malloc(bytes) : NULL;
      if (buf && model_export_read(e, i, t->n_mats - 1, 0, t->rows, buf) != HF_OK && !hf_error_line()[0]) abort();
      free(buf);
    }
  model_export_free(e);
  model_close(m);
}
#endif
