/* Text of --gpu: whatever is accepted has devices of one kind, each once, with sizes and names that can be used. */
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "sched/gpus.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char text[4096];
  gpu_set s;
  if (size >= sizeof text) return 0;
  memcpy(text, data, size);
  text[size] = 0;
  if (gpu_set_parse(text, &s) != HF_OK) {
    if (hf_error_line()[0] == 0) abort();
    return 0;
  }
  if (s.n < 0 || s.n > STAGE_MAX_DEVICES || strcmp(s.text, text) != 0) abort();
  for (int i = 0; i < s.n; i++) {
    const gpu_spec *g = &s.g[i];
    if (g->kind == GPU_NONE || g->kind != gpu_set_kind(&s) || g->size_bytes < 0) abort();
    if (g->kind == GPU_VIRTUAL ? g->size_bytes == 0 : g->device[0] == 0) abort();
    if (g->kind == GPU_PACED && g->machine[0] == 0) abort();
    for (int k = 0; k < i && g->device[0] != 0; k++)
      if (strcmp(s.g[k].device, g->device) == 0) abort();
  }
  return 0;
}
