#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "executor/commands.h"

static double mib(int64_t bytes) {
  return (double)bytes / 1048576.0;
}

void print_budget(const plan_budget *rows, int n) {
  fprintf(stderr, "  %-6s %-40s %12s %12s\n", "where", "what", "MiB", "limit MiB");
  for (int i = 0; i < n; i++) {
    int64_t sum = 0;
    fprintf(stderr, "  %-6s %-40s %12.1f\n", rows[i].where, rows[i].what, mib(rows[i].bytes));
    if (i + 1 < n && !strcmp(rows[i + 1].where, rows[i].where)) continue;
    for (int k = 0; k <= i; k++) sum += strcmp(rows[k].where, rows[i].where) ? 0 : rows[k].bytes;
    fprintf(stderr, "  %-6s %-40s %12.1f %12.1f%s\n", rows[i].where, "together", mib(sum), mib(rows[i].limit_bytes),
            rows[i].limit_bytes && sum > rows[i].limit_bytes ? "   does not fit" : "");
  }
}

hf_status open_model_to_run(const char *path, model **out) {
  model *m = NULL;
  HF_TRY(model_open(path, &m));
  if (model_has_weights(m)) {
    *out = m;
    return HF_OK;
  }
  model_close(m);
  return hf_fail(HF_INPUT,
                 "%s: no weights; hf-run needs a folder with *.safetensors, a GGUF file or synth:..., hf-plan can do without",
                 path);
}

hf_status open_engine_or_explain(const run_options *r, const model *m, const engine_options *o, engine **out) {
  plan_budget rows[16];
  int n = 0;
  bool fits = true;
  HF_TRY(engine_budget(m, o, rows, 16, &n, &fits));
  if (!fits || r->common.verbose) print_budget(rows, n);
  return engine_open(m, o, out);
}
