#include <string.h>

#include "db/plan_json.h"

static void write_range(json *parent, const char *key, const char *const names[3], const double v[3]) {
  json *o = json_add_object(parent, key);
  for (int i = 0; i < 3; i++) json_add_num(o, names[i], v[i]);
}

static void write_identity(const plan *p, json *o) {
  json_add_int(o, "plan_id", p->id);
  json_add_int(o, "schema_version", p->schema_version);
  json_add_int(o, "cost_model_version", p->cost_model_version);
  json_add_str(o, "inputs_hash", p->inputs_hash);
  json_add_str(o, "model", p->model);
  json_add_str(o, "family", p->family);
  json_add_str(o, "format", p->format);
  json_add_str(o, "machine", p->machine);
  json_add_int(o, "machine_id", p->machine_id);
  json_add_str(o, "gpu", p->gpu);
  json_add_int(o, "from_run", p->from_run);
  json_add_int(o, "users", p->users);
  json_add_int(o, "context", p->context);
  json_add_int(o, "prompt_tokens", p->prompt_tokens);
  json_add_int(o, "output_tokens", p->output_tokens);
  json_add_int(o, "depth", p->depth);
  json_add_int(o, "n_layers", p->n_layers);
  json_add_int(o, "n_experts", p->n_experts);
}

static void write_devices(const plan *p, json *o) {
  json *list = json_add_array(o, "devices");
  for (int i = 0; i < p->n_devices; i++) {
    json *d = json_add_object(list, NULL);
    json_add_str(d, "name", p->device[i].name);
    json_add_str(d, "spec", p->device[i].spec);
    json_add_int(d, "mem_bytes", p->device[i].mem_bytes);
  }
}

static void write_placement(const plan *p, json *o) {
  json *list = json_add_array(o, "placement");
  for (int i = 0; i < p->n_layers; i++) {
    const plan_layer *l = &p->layer[i];
    json *runs = json_add_array(list, NULL);
    for (int e = 0, n; e < l->n_experts; e += n) {
      for (n = 1; e + n < l->n_experts && l->device[e + n] == l->device[e];) n++;
      json *run = json_add_array(runs, NULL);
      json_add_int(run, NULL, n);
      json_add_int(run, NULL, l->device[e]);
    }
  }
}

static void write_split(const plan_layer *l, json *v) {
  const int each = l->n_nodes + 1;
  if (!l->split) return;
  json *list = json_add_array(v, "split");
  for (int e = 0, n; e < l->n_experts; e += n) {
    const int32_t *at = l->split + (size_t)e * (size_t)each;
    for (n = 1; e + n < l->n_experts && !memcmp(at, at + n * each, (size_t)each * sizeof *at);) n++;
    json *run = json_add_array(list, NULL);
    json_add_int(run, NULL, n);
    json *rows = json_add_array(run, NULL);
    for (int i = 0; i < l->n_nodes; i++) json_add_int(rows, NULL, at[i + 1] - at[i]);
  }
}

static void write_layers(const plan *p, json *o) {
  json *list = json_add_array(o, "layers");
  for (int i = 0; i < p->n_layers; i++) {
    const plan_layer *l = &p->layer[i];
    json *v = json_add_object(list, NULL);
    json_add_int(v, "layer", l->index);
    json_add_bool(v, "moe", l->moe);
    json_add_int(v, "n_experts", l->n_experts);
    for (int k = 0; k < PLAN_LAYER_TIMES; k++) {
      double ns;
      memcpy(&ns, (const char *)l + plan_layer_time[k].offset, sizeof ns);
      json_add_num(v, plan_layer_time[k].name, ns);
    }
    json_add_str(v, "binding", l->binding);
    json_add_str(v, "prefill", l->prefill);
    if (l->home) json_add_int(v, "home", l->home);
    write_split(l, v);
  }
}

static void write_service(const plan *p, json *o) {
  json *kv = json_add_object(o, "kv");
  json_add_str(kv, "type", p->kv_type);
  json_add_int(kv, "page_tokens", p->kv_page_tokens);
  json_add_int(kv, "bytes", p->kv_bytes);
  json_add_int(o, "max_seqs", p->max_seqs);
  json_add_int(o, "chunk_tokens", p->chunk_tokens);
  json_add_int(o, "threads", p->threads);
  json *list = json_add_array(o, "kernels");
  for (int i = 0; i < p->n_kernels; i++) {
    json *k = json_add_object(list, NULL);
    json_add_str(k, "op", p->kernel[i].op);
    json_add_str(k, "format", p->kernel[i].format);
    json_add_str(k, "candidate", p->kernel[i].candidate);
    json_add_int(k, "tokens_lo", p->kernel[i].tokens_lo);
    json_add_int(k, "tokens_hi", p->kernel[i].tokens_hi);
  }
}

void plan_add_percentiles(json *into, const plan_percentiles *p) {
  json_add_num(into, "p50", p->p50);
  json_add_num(into, "p90", p->p90);
  json_add_num(into, "p95", p->p95);
  json_add_num(into, "p99", p->p99);
}

static void write_percentiles(json *parent, const char *key, const plan_percentiles *p) {
  json *o = json_add_object(parent, key);
  json_add_num(o, "p50", p->p50);
  json_add_num(o, "p90", p->p90);
  if (p->p95 > 0) json_add_num(o, "p95", p->p95);
  json_add_num(o, "p99", p->p99);
}

static void write_promises(const plan *p, json *o) {
  static const char *const range[3] = {"low", "likely", "high"};
  json *ilp = json_add_object(o, "ilp");
  json_add_num(ilp, "objective_ns", p->ilp.objective_ns);
  json_add_num(ilp, "bound_ns", p->ilp.bound_ns);
  json_add_num(ilp, "gap", p->ilp.gap);
  json_add_str(ilp, "status", p->ilp.status);
  json_add_num(ilp, "seconds", p->ilp.seconds);
  json *predicted = json_add_object(o, "predicted");
  write_range(predicted, "decode_tok_per_s", range,
              (double[]){p->decode_tok_per_s.low, p->decode_tok_per_s.likely, p->decode_tok_per_s.high});
  write_percentiles(predicted, "ttft_s", &p->ttft_s);
  write_percentiles(predicted, "tpot_s", &p->tpot_s);
  json_add_str(predicted, "tag", p->tag);
  json_add_str(o, "binding", p->binding);
  json_add_str(o, "popularity", p->popularity);
  json *list = json_add_array(o, "budget");
  for (int i = 0; i < p->n_budget; i++) {
    json *b = json_add_object(list, NULL);
    json_add_str(b, "where", p->budget[i].where);
    json_add_str(b, "what", p->budget[i].what);
    json_add_int(b, "bytes", p->budget[i].bytes);
    json_add_int(b, "limit_bytes", p->budget[i].limit_bytes);
  }
}

hf_status plan_to_json(const plan *p, json **out) {
  HF_TRY(plan_check_numbers(p, "plan"));
  json *o = json_new_object();
  if (!o) return hf_fail(HF_MACHINE, "out of memory while a plan was written");
  write_identity(p, o);
  write_devices(p, o);
  write_placement(p, o);
  write_layers(p, o);
  write_service(p, o);
  write_promises(p, o);
  for (const json *m = p->extra ? json_first(p->extra) : NULL; m; m = json_next(m)) json_add_copy(o, json_key(m), m);
  *out = o;
  return HF_OK;
}
