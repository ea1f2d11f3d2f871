/* Text of --set, --case and --axis: whatever is accepted is finite, in range, unlike itself nowhere, and applied without harm. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/status.h"
#include "planner/ask/change.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const ask_change *c) {
  if (c->key < 0 || c->key >= ASK_N_KEYS || memchr(c->value, 0, sizeof c->value) == NULL || c->value[0] == 0 ||
      !isfinite(c->number))
    abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  char text[4096];
  ask_changes c;
  ask_axis a;
  if (size >= sizeof text) return 0;
  memcpy(text, data, size);
  text[size] = 0;
  for (int named = 0; named < 2; named++) {
    if (ask_parse_changes("--set", text, named == 1, &c) != HF_OK) {
      if (hf_error_line()[0] == 0) abort();
      continue;
    }
    plan_request r = {.users = 1};
    for (int i = 0; i < c.n; i++) {
      check(&c.c[i]);
      for (int k = 0; k < i; k++)
        if (c.c[k].key == c.c[i].key) abort();
    }
    ask_apply_load(&c, &r);
    if (r.users < 1 || r.context < 0 || r.prompt_tokens < 0 || r.output_tokens < 0 || r.depth < 0) abort();
  }
  if (ask_parse_axis("--axis", text, &a) != HF_OK) return 0;
  if (a.n < 1 || a.n > ASK_MAX_POINTS) abort();
  for (int i = 0; i < a.n; i++) check(&a.point[i]);
  return 0;
}
