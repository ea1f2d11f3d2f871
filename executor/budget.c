#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "executor/commands.h"

hf_status json_show(json *doc) {
  char *text = NULL;
  hf_status st = json_print(doc, false, &text);
  json_free(doc);
  if (st != HF_OK) return st;
  puts(text);
  free(text);
  return HF_OK;
}

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

void tell_loss(void *user, const serve_loss *l) {
  (void)user;
  char where[64] = "the CPU";
  if (l->rank) snprintf(where, sizeof where, "this machine's CPU");
  else if (l->devices_left > 0) snprintf(where, sizeof where, "the other device%s and the CPU", l->devices_left == 1 ? "" : "s");
  hf_log(HF_LOG_WARN, "%s was lost (%s): its %s were read again, %d request%s on on %s after %.2g s",
         l->rank ? "another machine" : "the device", l->why, l->rank ? "experts" : "weights", l->requests,
         l->requests == 1 ? " goes" : "s go", where, (double)l->recovery_ns * 1e-9);
  if (l->suspect)
    hf_log(HF_LOG_WARN, "it may have computed wrongly before that was found: %d answer%s marked suspect", l->suspect,
           l->suspect == 1 ? " is" : "s are");
}

void tell_back(void *user, const serve_loss *l) {
  (void)user;
  hf_log(HF_LOG_INFO,
         "gpu%d answers again (asked %d times): it was filled (%.1f MB) and taken back, steps stood still for %.2g s", l->device,
         l->probes, (double)l->loaded_bytes * 1e-6, (double)l->stood_ns * 1e-9);
}

hf_status device_stayed(const engine_options *asked, const engine *e) {
  if (!strcmp(asked->gpu, engine_opts(e)->gpu) && (!engine_lost_reason(e)[0] || engine_lost_rank(e))) return HF_OK;
  return hf_fail(HF_LOST, "device %s: it was lost or could not be used; nothing is said of a run without it", asked->gpu);
}

static hf_status print_budget_json(const plan_budget *rows, int n) {
  json *o = json_new_object();
  json_add_bool(o, "feasible", false);
  json *list = json_add_array(o, "budget");
  for (int i = 0; i < n; i++) {
    json *b = json_add_object(list, NULL);
    json_add_str(b, "where", rows[i].where);
    json_add_str(b, "what", rows[i].what);
    json_add_int(b, "bytes", rows[i].bytes);
    json_add_int(b, "limit_bytes", rows[i].limit_bytes);
  }
  return json_show(o);
}

hf_status open_engine_or_explain(const run_options *r, const model *m, const engine_options *o, engine **out) {
  plan_budget rows[PLAN_MAX_BUDGET];
  int n = 0;
  bool fits = true;
  HF_TRY(engine_budget(m, o, rows, PLAN_MAX_BUDGET, &n, &fits));
  if (!fits || r->common.verbose) print_budget(rows, n);
  if (!fits && r->common.json) HF_TRY(print_budget_json(rows, n));
  return engine_open(m, o, out);
}
