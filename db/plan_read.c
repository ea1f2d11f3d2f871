/* plan_read.c: plan.json into the struct. The file may come from a stranger: every count is limited before memory is asked
 * for, every string must fit, and plan_check has the last word on what the numbers mean. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/plan_json.h"

enum { WHERE_BYTES = 320 };
static const int64_t EXACT = INT64_C(1) << 53;

/* Counts checked by plan_check again, with its own words; here only what an int holds. */
static hf_status get_int(const json *o, const char *where, const char *key, int *out) {
  int64_t v;
  HF_TRY(json_get_int(o, where, key, 0, INT32_MAX, &v));
  *out = (int)v;
  return HF_OK;
}

static hf_status copy_text(const char *s, const char *where, const char *key, char *out, size_t n) {
  if (strlen(s) >= n) return hf_fail(HF_INPUT, "%s: field %s: longer than %zu bytes", where, key, n - 1);
  memcpy(out, s, strlen(s) + 1);
  return HF_OK;
}

static hf_status get_text(const json *o, const char *where, const char *key, char *out, size_t n) {
  const char *s;
  HF_TRY(json_get_str(o, where, key, &s));
  return copy_text(s, where, key, out, n);
}

static hf_status opt_text(const json *o, const char *where, const char *key, char *out, size_t n) {
  const char *s = "";
  HF_TRY(json_opt_str(o, where, key, &s));
  return copy_text(s, where, key, out, n);
}

static hf_status get_amount(const json *o, const char *where, const char *key, double *out) {
  return json_get_num(o, where, key, 0, DBL_MAX, out);
}

static hf_status get_list(const json *o, const char *where, const char *key, int most, const json **out) {
  const json *v = json_get(o, key);
  if (!v || json_type(v) != JSON_ARRAY) return hf_fail(HF_INPUT, "%s: field %s: an array is expected", where, key);
  if (json_len(v) > most)
    return hf_fail(HF_INPUT, "%s: field %s: %d entries, at most %d are possible", where, key, json_len(v), most);
  *out = v;
  return HF_OK;
}

static hf_status get_object(const json *o, const char *where, const char *key, const json **out) {
  *out = json_get(o, key);
  if (*out && json_type(*out) == JSON_OBJECT) return HF_OK;
  return hf_fail(HF_INPUT, "%s: field %s: an object is expected", where, key);
}

/* A whole number in an array; NaN never equals its floor. */
static hf_status element(const json *v, const char *where, double lo, double hi, int *out) {
  double x = json_number(v, NAN);
  if (!(x == floor(x) && x >= lo && x <= hi))
    return hf_fail(HF_INPUT, "%s: a whole number from %.0f to %.0f is expected", where, lo, hi);
  *out = (int)x;
  return HF_OK;
}

static hf_status read_identity(const json *o, const char *w, plan *p) {
  int64_t cost_model = 0;
  HF_TRY(get_int(o, w, "schema_version", &p->schema_version));
  if (p->schema_version > PLAN_SCHEMA_VERSION) {
    return hf_fail(HF_INPUT, "%s: field schema_version: %d is newer than this program's, %d; use a newer HeteroFlow", w,
                   p->schema_version, PLAN_SCHEMA_VERSION);
  }
  HF_TRY(json_opt_int(o, w, "cost_model_version", 0, INT32_MAX, &cost_model));
  p->cost_model_version = (int)cost_model;
  HF_TRY(json_opt_int(o, w, "plan_id", 0, EXACT, &p->id));
  HF_TRY(json_opt_int(o, w, "machine_id", 0, EXACT, &p->machine_id));
  HF_TRY(json_opt_int(o, w, "from_run", 0, EXACT, &p->from_run));
  HF_TRY(opt_text(o, w, "inputs_hash", p->inputs_hash, sizeof p->inputs_hash));
  HF_TRY(opt_text(o, w, "family", p->family, sizeof p->family));
  HF_TRY(opt_text(o, w, "popularity", p->popularity, sizeof p->popularity));
  HF_TRY(get_text(o, w, "model", p->model, sizeof p->model));
  HF_TRY(get_text(o, w, "format", p->format, sizeof p->format));
  HF_TRY(get_text(o, w, "machine", p->machine, sizeof p->machine));
  HF_TRY(get_text(o, w, "gpu", p->gpu, sizeof p->gpu));
  HF_TRY(get_text(o, w, "binding", p->binding, sizeof p->binding));
  HF_TRY(get_int(o, w, "users", &p->users));
  HF_TRY(get_int(o, w, "context", &p->context));
  HF_TRY(get_int(o, w, "prompt_tokens", &p->prompt_tokens));
  HF_TRY(get_int(o, w, "output_tokens", &p->output_tokens));
  return get_int(o, w, "depth", &p->depth);
}

static hf_status read_devices(const json *o, const char *w, plan *p) {
  const json *list;
  HF_TRY(get_list(o, w, "devices", PLAN_MAX_DEVICES, &list));
  for (const json *v = json_first(list); v; v = json_next(v)) {
    char where[WHERE_BYTES];
    plan_device *d = &p->device[p->n_devices];
    snprintf(where, sizeof where, "%.255s: devices[%d]", w, p->n_devices);
    HF_TRY(get_text(v, where, "name", d->name, sizeof d->name));
    HF_TRY(get_text(v, where, "spec", d->spec, sizeof d->spec));
    HF_TRY(json_get_int(v, where, "mem_bytes", 0, EXACT, &d->mem_bytes));
    p->n_devices++;
  }
  return HF_OK;
}

/* [count, [rows of node 0, ...]] of the experts from e on. */
static hf_status read_split_run(const json *run, const char *w, plan_layer *l, int *e) {
  int count;
  if (json_type(run) != JSON_ARRAY || json_len(run) != 2 || json_type(json_next(json_first(run))) != JSON_ARRAY)
    return hf_fail(HF_INPUT, "%s: a run [count, [rows of each node]] is expected", w);
  const json *rows = json_next(json_first(run));
  HF_TRY(element(json_first(run), w, 1, PLAN_MAX_EXPERTS, &count));
  if (count > l->n_experts - *e) return hf_fail(HF_INPUT, "%s: more experts than the layer has, %d", w, l->n_experts);
  if (json_len(rows) != l->n_nodes) return hf_fail(HF_INPUT, "%s: %d nodes, those before have %d", w, json_len(rows), l->n_nodes);
  for (; count > 0; count--, ++*e) {
    int32_t *at = l->split + (size_t)*e * ((size_t)l->n_nodes + 1);
    for (const json *r = json_first(rows); r; r = json_next(r), at++) {
      int n;
      HF_TRY(element(r, w, 0, 1 << 24, &n));
      at[1] = at[0] + n;
    }
  }
  return HF_OK;
}

static hf_status read_split(const json *v, const char *w, plan_layer *l) {
  const json *list = json_get(v, "split");
  int e = 0;
  if (!list) return HF_OK;
  const json *first = json_type(list) == JSON_ARRAY ? json_first(list) : NULL;
  const json *rows = first && json_type(first) == JSON_ARRAY && json_len(first) == 2 ? json_next(json_first(first)) : NULL;
  l->n_nodes = rows && json_type(rows) == JSON_ARRAY ? json_len(rows) : 0;
  if (l->n_nodes < 1 || l->n_nodes > PLAN_MAX_NODES || l->n_experts == 0)
    return hf_fail(HF_INPUT, "%s: field split: runs [count, [rows of each of 1 to %d nodes]] of a MoE layer are expected", w,
                   PLAN_MAX_NODES);
  HF_TRY(hf_alloc(&l->split, (size_t)l->n_experts * ((size_t)l->n_nodes + 1), sizeof *l->split, "slices of experts"));
  int i = 0;
  for (const json *run = first; run; run = json_next(run)) {
    char where[WHERE_BYTES + 16];
    snprintf(where, sizeof where, "%.300s: split[%d]", w, i++);
    HF_TRY(read_split_run(run, where, l, &e));
  }
  if (e != l->n_experts) return hf_fail(HF_INPUT, "%s: field split: %d experts, the layer has %d", w, e, l->n_experts);
  return HF_OK;
}

static hf_status read_layer(const json *v, const char *w, plan_layer *l) {
  int64_t n, home = 0;
  HF_TRY(get_int(v, w, "layer", &l->index));
  HF_TRY(json_get_bool(v, w, "moe", &l->moe));
  HF_TRY(json_get_int(v, w, "n_experts", 0, PLAN_MAX_EXPERTS, &n));
  for (int k = 0; k < PLAN_LAYER_TIMES; k++) {
    double ns;
    HF_TRY(get_amount(v, w, plan_layer_time[k].name, &ns));
    memcpy((char *)l + plan_layer_time[k].offset, &ns, sizeof ns);
  }
  HF_TRY(get_text(v, w, "binding", l->binding, sizeof l->binding));
  HF_TRY(get_text(v, w, "prefill", l->prefill, sizeof l->prefill));
  if (n > 0) HF_TRY(hf_alloc(&l->device, (size_t)n, sizeof *l->device, "placement"));
  l->n_experts = (int)n;
  HF_TRY(json_opt_int(v, w, "home", 0, PLAN_MAX_DEVICES - 1, &home));
  l->home = (int)home;
  return read_split(v, w, l);
}

static hf_status read_layers(const json *list, const char *w, plan *p) {
  int i = 0;
  for (const json *v = json_first(list); v; v = json_next(v), i++) {
    char where[WHERE_BYTES];
    snprintf(where, sizeof where, "%.255s: layers[%d]", w, i);
    HF_TRY(read_layer(v, where, &p->layer[i]));
  }
  return HF_OK;
}

/* One entry of a layer's placement: a device, or a run [count, device]. */
static hf_status read_run(const json *v, const char *w, int room, int n_devices, int *count, int *device) {
  *count = 1;
  if (json_type(v) != JSON_ARRAY) return element(v, w, -1, n_devices - 1, device);
  if (json_len(v) != 2) return hf_fail(HF_INPUT, "%s: a run is [count, device]", w);
  const json *first = json_first(v);
  HF_TRY(element(first, w, 1, PLAN_MAX_EXPERTS, count));
  if (*count > room) return hf_fail(HF_INPUT, "%s: the runs hold more experts than the layer, %d too many", w, *count - room);
  return element(json_next(first), w, -1, n_devices - 1, device);
}

static hf_status read_placement_layer(const json *list, const char *w, int n_devices, plan_layer *l) {
  int e = 0, entry = 0;
  if (json_type(list) != JSON_ARRAY)
    return hf_fail(HF_INPUT, "%s: an array of devices or of runs [count, device] is expected", w);
  for (const json *v = json_first(list); v; v = json_next(v), entry++) {
    char where[WHERE_BYTES + 16];
    int count, device;
    snprintf(where, sizeof where, "%s[%d]", w, entry);
    if (e == l->n_experts) return hf_fail(HF_INPUT, "%s: the layer has only %d experts", where, l->n_experts);
    HF_TRY(read_run(v, where, l->n_experts - e, n_devices, &count, &device));
    for (; count > 0; count--) l->device[e++] = (int16_t)device;
  }
  if (e != l->n_experts) return hf_fail(HF_INPUT, "%s: places %d experts, the layer has %d", w, e, l->n_experts);
  return HF_OK;
}

static hf_status read_placement(const json *o, const char *w, plan *p) {
  const json *list;
  HF_TRY(get_list(o, w, "placement", PLAN_MAX_LAYERS, &list));
  if (json_len(list) != p->n_layers) {
    return hf_fail(HF_INPUT, "%s: field placement: %d layers, but n_layers is %d", w, json_len(list), p->n_layers);
  }
  int i = 0;
  for (const json *v = json_first(list); v; v = json_next(v), i++) {
    char where[WHERE_BYTES];
    snprintf(where, sizeof where, "%.255s: placement[%d]", w, i);
    HF_TRY(read_placement_layer(v, where, p->n_devices, &p->layer[i]));
  }
  return HF_OK;
}

static hf_status read_service(const json *o, const char *w, plan *p) {
  const json *kv;
  HF_TRY(get_object(o, w, "kv", &kv));
  HF_TRY(get_text(kv, w, "type", p->kv_type, sizeof p->kv_type));
  HF_TRY(get_int(kv, w, "page_tokens", &p->kv_page_tokens));
  HF_TRY(json_get_int(kv, w, "bytes", 0, EXACT, &p->kv_bytes));
  HF_TRY(get_int(o, w, "max_seqs", &p->max_seqs));
  HF_TRY(get_int(o, w, "chunk_tokens", &p->chunk_tokens));
  HF_TRY(get_int(o, w, "threads", &p->threads));
  if (!json_get(o, "kernels")) return HF_OK;
  const json *list;
  HF_TRY(get_list(o, w, "kernels", PLAN_MAX_KERNELS, &list));
  for (const json *v = json_first(list); v; v = json_next(v)) {
    char where[WHERE_BYTES];
    plan_kernel *k = &p->kernel[p->n_kernels];
    snprintf(where, sizeof where, "%.255s: kernels[%d]", w, p->n_kernels);
    HF_TRY(get_text(v, where, "op", k->op, sizeof k->op));
    HF_TRY(get_text(v, where, "format", k->format, sizeof k->format));
    HF_TRY(get_text(v, where, "candidate", k->candidate, sizeof k->candidate));
    HF_TRY(get_int(v, where, "tokens_lo", &k->tokens_lo));
    HF_TRY(get_int(v, where, "tokens_hi", &k->tokens_hi));
    p->n_kernels++;
  }
  return HF_OK;
}

static hf_status read_three(const json *o, const char *w, const char *key, const char *const names[3], double *const out[3]) {
  const json *v;
  char where[WHERE_BYTES];
  HF_TRY(get_object(o, w, key, &v));
  snprintf(where, sizeof where, "%.255s: %s", w, key);
  for (int i = 0; i < 3; i++) HF_TRY(get_amount(v, where, names[i], out[i]));
  return HF_OK;
}

static hf_status read_percentiles(const json *o, const char *w, const char *key, plan_percentiles *p) {
  static const char *const names[3] = {"p50", "p90", "p99"};
  HF_TRY(read_three(o, w, key, names, (double *[]){&p->p50, &p->p90, &p->p99}));
  char where[WHERE_BYTES];
  snprintf(where, sizeof where, "%.255s: %s", w, key);
  return json_get(json_get(o, key), "p95") != NULL ? get_amount(json_get(o, key), where, "p95", &p->p95) : HF_OK;
}

static hf_status read_promises(const json *o, const char *w, plan *p) {
  static const char *const range[3] = {"low", "likely", "high"};
  const json *ilp, *predicted;
  char where[WHERE_BYTES];
  snprintf(where, sizeof where, "%.255s: ilp", w);
  HF_TRY(get_object(o, w, "ilp", &ilp));
  HF_TRY(get_amount(ilp, where, "objective_ns", &p->ilp.objective_ns));
  HF_TRY(get_amount(ilp, where, "bound_ns", &p->ilp.bound_ns));
  HF_TRY(get_amount(ilp, where, "gap", &p->ilp.gap));
  HF_TRY(get_amount(ilp, where, "seconds", &p->ilp.seconds));
  HF_TRY(get_text(ilp, where, "status", p->ilp.status, sizeof p->ilp.status));
  snprintf(where, sizeof where, "%.240s: predicted", w);
  HF_TRY(get_object(o, w, "predicted", &predicted));
  plan_range *r = &p->decode_tok_per_s;
  HF_TRY(read_three(predicted, where, "decode_tok_per_s", range, (double *[]){&r->low, &r->likely, &r->high}));
  HF_TRY(read_percentiles(predicted, where, "ttft_s", &p->ttft_s));
  HF_TRY(read_percentiles(predicted, where, "tpot_s", &p->tpot_s));
  return get_text(predicted, where, "tag", p->tag, sizeof p->tag);
}

static hf_status read_budget(const json *o, const char *w, plan *p) {
  const json *list;
  HF_TRY(get_list(o, w, "budget", PLAN_MAX_BUDGET, &list));
  for (const json *v = json_first(list); v; v = json_next(v)) {
    char where[WHERE_BYTES];
    plan_budget *b = &p->budget[p->n_budget];
    snprintf(where, sizeof where, "%.255s: budget[%d]", w, p->n_budget);
    HF_TRY(get_text(v, where, "where", b->where, sizeof b->where));
    HF_TRY(get_text(v, where, "what", b->what, sizeof b->what));
    HF_TRY(json_get_int(v, where, "bytes", 0, EXACT, &b->bytes));
    HF_TRY(json_get_int(v, where, "limit_bytes", 0, EXACT, &b->limit_bytes));
    p->n_budget++;
  }
  return HF_OK;
}

static hf_status read_extra(const json *o, const char *w, plan *p) {
  for (const json *m = json_first(o); m; m = json_next(m)) {
    if (plan_is_member(json_key(m))) continue;
    if (!p->extra) p->extra = json_new_object();
    if (!json_add_copy(p->extra, json_key(m), m)) return hf_fail(HF_MACHINE, "%s: out of memory", w);
  }
  return HF_OK;
}

static hf_status read_all(const json *doc, const char *w, const json *layers, plan *p) {
  int n_layers;
  HF_TRY(get_int(doc, w, "n_layers", &n_layers));
  if (n_layers != p->n_layers) {
    return hf_fail(HF_INPUT, "%s: field n_layers: %d, but layers has %d entries", w, n_layers, p->n_layers);
  }
  HF_TRY(get_int(doc, w, "n_experts", &p->n_experts));
  HF_TRY(read_identity(doc, w, p));
  HF_TRY(read_devices(doc, w, p));
  HF_TRY(read_layers(layers, w, p));
  HF_TRY(read_placement(doc, w, p));
  HF_TRY(read_service(doc, w, p));
  HF_TRY(read_promises(doc, w, p));
  HF_TRY(read_budget(doc, w, p));
  HF_TRY(read_extra(doc, w, p));
  return plan_check(p, w);
}

hf_status plan_read_json(const json *doc, const char *where, plan **out) {
  const json *layers;
  plan *p;
  if (json_type(doc) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: a plan is an object", where);
  HF_TRY(get_list(doc, where, "layers", PLAN_MAX_LAYERS, &layers));
  if (json_len(layers) == 0) return hf_fail(HF_INPUT, "%s: field layers: empty", where);
  HF_TRY(plan_new(json_len(layers), &p));
  hf_status st = read_all(doc, where, layers, p);
  if (st != HF_OK) {
    plan_free(p);
    return st;
  }
  *out = p;
  return HF_OK;
}

hf_status plan_read_file(const char *path, plan **out) {
  json *doc;
  HF_TRY(json_read_file(path, PLAN_MAX_BYTES, &doc));
  hf_status st = plan_read_json(doc, path, out);
  json_free(doc);
  return st;
}
