#include "db/plan.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/plan_json.h"

const plan_time_field plan_layer_time[PLAN_LAYER_TIMES] = {
    {"attn_ns", offsetof(plan_layer, attn_ns)}, {"shared_ns", offsetof(plan_layer, shared_ns)},
    {"dexp_ns", offsetof(plan_layer, dexp_ns)}, {"cexp_ns", offsetof(plan_layer, cexp_ns)},
    {"hand_ns", offsetof(plan_layer, hand_ns)}, {"layer_ns", offsetof(plan_layer, layer_ns)},
};

char plan_binding_letter(const char *binding) {
  static const struct {
    const char *word;
    char letter;
  } known[] = {{"DRAM", 'D'},    {"compute", 'C'}, {"fixed", 'F'},  {"way", 'W'}, {"path", 'W'}, {"link", 'L'},
               {"network", 'N'}, {"machine", 'N'}, {"device", 'G'}, {"GPU", 'G'}, {"CPU", 'P'}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strstr(binding, known[i].word) != NULL) return known[i].letter;
  return binding[0] != '\0' ? '?' : '-';
}

bool plan_is_member(const char *key) {
  static const char *const members[] = {
      "plan_id",     "schema_version", "cost_model_version",
      "inputs_hash", "model",          "family",
      "format",      "machine",        "gpu",
      "machine_id",  "from_run",       "users",
      "context",     "prompt_tokens",  "output_tokens",
      "depth",       "n_layers",       "n_experts",
      "devices",     "placement",      "layers",
      "kv",          "max_seqs",       "chunk_tokens",
      "threads",     "kernels",        "ilp",
      "predicted",   "binding",        "popularity",
      "budget",
  };
  for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
    if (strcmp(key, members[i]) == 0) return true;
  }
  return false;
}

hf_status plan_new(int n_layers, plan **out) {
  plan *p;
  if (n_layers < 1 || n_layers > PLAN_MAX_LAYERS) {
    return hf_fail(HF_INPUT, "a plan of %d layers; 1 to %d are possible", n_layers, PLAN_MAX_LAYERS);
  }
  HF_TRY(hf_alloc(&p, 1, sizeof *p, "plan"));
  hf_status st = hf_alloc(&p->layer, (size_t)n_layers, sizeof *p->layer, "layers of a plan");
  if (st != HF_OK) {
    free(p);
    return st;
  }
  p->schema_version = PLAN_SCHEMA_VERSION;
  p->n_layers = n_layers;
  for (int i = 0; i < n_layers; i++) p->layer[i].index = i;
  *out = p;
  return HF_OK;
}

void plan_free(plan *p) {
  if (!p) return;
  for (int i = 0; p->layer && i < p->n_layers; i++) {
    free(p->layer[i].device);
    free(p->layer[i].split);
  }
  free(p->layer);
  json_free(p->extra);
  free(p);
}

/* ---- plan_check ---- */

static hf_status check_amount(const char *where, const char *field, double v) {
  if (!isfinite(v)) return hf_fail(HF_INPUT, "%s: field %s: not a finite number", where, field);
  if (v < 0) return hf_fail(HF_INPUT, "%s: field %s: %.10g is negative", where, field, v);
  return HF_OK;
}

static hf_status check_count(const char *where, const char *field, int64_t v, int64_t lo, int64_t hi) {
  if (v >= lo && v <= hi) return HF_OK;
  return hf_fail(HF_INPUT, "%s: field %s: %lld is not between %lld and %lld", where, field, (long long)v, (long long)lo,
                 (long long)hi);
}

static hf_status check_rising(const char *where, const char *field, double a, double b, double c) {
  HF_TRY(check_amount(where, field, a));
  HF_TRY(check_amount(where, field, b));
  HF_TRY(check_amount(where, field, c));
  if (a <= b && b <= c) return HF_OK;
  return hf_fail(HF_INPUT, "%s: field %s: %.10g, %.10g, %.10g do not rise", where, field, a, b, c);
}

static bool one_of(const char *s, const char *const *list) {
  for (; *list; list++) {
    if (strcmp(s, *list) == 0) return true;
  }
  return false;
}

static hf_status check_split(const plan_layer *l, const char *where) {
  const int each = l->n_nodes + 1;
  HF_TRY(check_count(where, "split (nodes)", l->n_nodes, 0, PLAN_MAX_NODES));
  if ((l->n_nodes > 0) != (l->split != NULL) || (l->n_nodes > 0 && l->n_experts == 0))
    return hf_fail(HF_INPUT, "%s: field split: nodes without slices, or slices of no experts", where);
  for (int i = 0; l->split && i < l->n_experts * each; i++) {
    const int node = i % each, end = l->split[l->n_nodes];
    const bool good = node == 0 ? l->split[i] == 0 : l->split[i] >= l->split[i - 1] && (node < l->n_nodes || l->split[i] == end);
    if (!good || end < 1)
      return hf_fail(HF_INPUT, "%s: field split: the slices of expert %d do not follow each other from 0 to %d", where, i / each,
                     end);
  }
  return HF_OK;
}

static hf_status check_layer(const plan *p, int i, const char *file) {
  static const char *const bindings[] = {"", "cpu", "gpu", "path", NULL}, *const prefills[] = {"", "cpu", "upload", NULL};
  const plan_layer *l = &p->layer[i];
  char where[320];
  snprintf(where, sizeof where, "%.255s: layers[%d]", file, i);
  HF_TRY(check_count(where, "layer", l->index, i ? p->layer[i - 1].index + 1 : 0, INT32_MAX - 1));
  for (int k = 0; k < PLAN_LAYER_TIMES; k++) {
    double ns;
    memcpy(&ns, (const char *)l + plan_layer_time[k].offset, sizeof ns);
    HF_TRY(check_amount(where, plan_layer_time[k].name, ns));
  }
  if (!one_of(l->binding, bindings))
    return hf_fail(HF_INPUT, "%s: field binding: '%s' is none of cpu, gpu, path", where, l->binding);
  if (!one_of(l->prefill, prefills))
    return hf_fail(HF_INPUT, "%s: field prefill: '%s' is none of cpu, upload", where, l->prefill);
  int want = l->moe ? p->n_experts : 0;
  if (l->n_experts != want || (l->moe && want == 0)) {
    return hf_fail(HF_INPUT, "%s: field n_experts: %d, but the plan says %d for a %s layer", where, l->n_experts, want,
                   l->moe ? "MoE" : "dense");
  }
  if (l->home != 0 && (l->home < 0 || l->home >= p->n_devices))
    return hf_fail(HF_INPUT, "%s: field home: %d, but the plan has %d devices", where, l->home, p->n_devices);
  if (l->home != 0 && plan_rank(p, l->home) > 0)
    return hf_fail(HF_INPUT, "%s: field home: %d is another machine's CPU, no device of this one", where, l->home);
  HF_TRY(check_split(l, where));
  for (int e = 0; e < l->n_experts; e++) {
    int device = l->device ? l->device[e] : -2;
    if (device < -1 || device >= p->n_devices) {
      return hf_fail(HF_INPUT, "%.255s: placement[%d]: expert %d is on device %d, the plan has %d devices (-1 is the CPU)", file,
                     i, e, device, p->n_devices);
    }
  }
  return HF_OK;
}

/* "cuda:0:20G" and "cuda:0" are the same card; virtual and paced devices may come in any number. */
static size_t physical_name(const char *spec) {
  return strncmp(spec, "cuda:", 5) == 0 ? 5 + strcspn(spec + 5, ":") : 0;
}

static hf_status check_devices(const plan *p, const char *where) {
  HF_TRY(check_count(where, "devices", p->n_devices, 0, PLAN_MAX_DEVICES));
  for (int i = 0; i < p->n_devices; i++) {
    const char *spec = p->device[i].spec;
    size_t n = physical_name(spec);
    HF_TRY(check_count(where, "devices.mem_bytes", p->device[i].mem_bytes, 0, INT64_C(1) << 53));
    for (int k = 0; n && k < i; k++) {
      if (physical_name(p->device[k].spec) == n && strncmp(p->device[k].spec, spec, n) == 0) {
        return hf_fail(HF_INPUT, "%s: field devices: %.*s appears twice", where, (int)n, spec);
      }
    }
  }
  return HF_OK;
}

static hf_status check_kernels(const plan *p, const char *where) {
  HF_TRY(check_count(where, "kernels", p->n_kernels, 0, PLAN_MAX_KERNELS));
  for (int i = 0; i < p->n_kernels; i++) {
    const plan_kernel *k = &p->kernel[i];
    HF_TRY(check_count(where, "kernels.tokens_lo", k->tokens_lo, 0, INT32_MAX));
    HF_TRY(check_count(where, "kernels.tokens_hi", k->tokens_hi, k->tokens_lo, INT32_MAX));
    for (int j = 0; j < i; j++) {
      const plan_kernel *o = &p->kernel[j];
      bool same = strcmp(o->op, k->op) == 0 && strcmp(o->format, k->format) == 0;
      if (same && o->tokens_lo <= k->tokens_hi && k->tokens_lo <= o->tokens_hi) {
        return hf_fail(HF_INPUT, "%s: field kernels: %s %s has two kernels for the same number of tokens", where, k->op,
                       k->format);
      }
    }
  }
  return HF_OK;
}

static hf_status check_sizes(const plan *p, const char *where) {
  const int most = INT32_MAX;
  HF_TRY(check_count(where, "schema_version", p->schema_version, PLAN_SCHEMA_VERSION, PLAN_SCHEMA_VERSION));
  HF_TRY(check_count(where, "cost_model_version", p->cost_model_version, 0, most));
  HF_TRY(check_count(where, "plan_id", p->id, 0, INT64_C(1) << 53));
  HF_TRY(check_count(where, "machine_id", p->machine_id, 0, INT64_C(1) << 53));
  HF_TRY(check_count(where, "from_run", p->from_run, 0, INT64_C(1) << 53));
  if (!*p->model) return hf_fail(HF_INPUT, "%s: field model: empty", where);
  HF_TRY(check_count(where, "users", p->users, 1, most));
  HF_TRY(check_count(where, "context", p->context, 1, most));
  HF_TRY(check_count(where, "prompt_tokens", p->prompt_tokens, 0, most));
  HF_TRY(check_count(where, "output_tokens", p->output_tokens, 0, most));
  HF_TRY(check_count(where, "depth", p->depth, 1, PLAN_MAX_DEPTH));
  HF_TRY(check_count(where, "n_layers", p->n_layers, 1, PLAN_MAX_LAYERS));
  HF_TRY(check_count(where, "n_experts", p->n_experts, 0, PLAN_MAX_EXPERTS));
  HF_TRY(check_count(where, "kv.page_tokens", p->kv_page_tokens, 0, most));
  HF_TRY(check_count(where, "kv.bytes", p->kv_bytes, 0, INT64_C(1) << 53));
  HF_TRY(check_count(where, "max_seqs", p->max_seqs, 0, most));
  HF_TRY(check_count(where, "chunk_tokens", p->chunk_tokens, 0, most));
  return check_count(where, "threads", p->threads, 0, 65536);
}

static hf_status check_percentiles(const char *where, const char *field, const plan_percentiles *p) {
  HF_TRY(check_rising(where, field, p->p50, p->p90, p->p99));
  return p->p95 == 0 ? HF_OK : check_rising(where, field, p->p90, p->p95, p->p99);
}

static hf_status check_promises(const plan *p, const char *where) {
  static const char *const tags[] = {"measured", "scaled", "spec", "assumed", NULL};
  HF_TRY(check_amount(where, "ilp.objective_ns", p->ilp.objective_ns));
  HF_TRY(check_amount(where, "ilp.bound_ns", p->ilp.bound_ns));
  HF_TRY(check_amount(where, "ilp.gap", p->ilp.gap));
  HF_TRY(check_amount(where, "ilp.seconds", p->ilp.seconds));
  if (p->ilp.bound_ns > p->ilp.objective_ns * (1 + 1e-6)) {
    return hf_fail(HF_INPUT, "%s: field ilp.bound_ns: %.10g is above the objective, %.10g", where, p->ilp.bound_ns,
                   p->ilp.objective_ns);
  }
  const plan_range *r = &p->decode_tok_per_s;
  HF_TRY(check_rising(where, "predicted.decode_tok_per_s", r->low, r->likely, r->high));
  HF_TRY(check_percentiles(where, "predicted.ttft_s", &p->ttft_s));
  HF_TRY(check_percentiles(where, "predicted.tpot_s", &p->tpot_s));
  if (one_of(p->tag, tags)) return HF_OK;
  return hf_fail(HF_INPUT, "%s: field predicted.tag: '%s' is none of measured, scaled, spec, assumed", where, p->tag);
}

static hf_status check_extra(const plan *p, const char *where) {
  if (p->extra && json_type(p->extra) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: the extra members are no object", where);
  for (const json *m = p->extra ? json_first(p->extra) : NULL; m; m = json_next(m)) {
    if (plan_is_member(json_key(m))) {
      return hf_fail(HF_INPUT, "%s: field %s: among the extra members, but the plan has it itself", where, json_key(m));
    }
  }
  return HF_OK;
}

hf_status plan_check_numbers(const plan *p, const char *where) {
  HF_TRY(check_sizes(p, where));
  HF_TRY(check_devices(p, where));
  for (int i = 0; i < p->n_layers; i++) HF_TRY(check_layer(p, i, where));
  HF_TRY(check_kernels(p, where));
  HF_TRY(check_promises(p, where));
  HF_TRY(check_count(where, "budget", p->n_budget, 0, PLAN_MAX_BUDGET));
  for (int i = 0; i < p->n_budget; i++) {
    HF_TRY(check_count(where, "budget.bytes", p->budget[i].bytes, 0, INT64_C(1) << 53));
    HF_TRY(check_count(where, "budget.limit_bytes", p->budget[i].limit_bytes, 0, INT64_C(1) << 53));
  }
  return check_extra(p, where);
}

/* Sums stay far from overflow: at most PLAN_MAX_BUDGET rows of at most 2^53 bytes. */
static hf_status check_budget(const plan *p, const char *where) {
  for (int i = 0; i < p->n_budget; i++) {
    const plan_budget *b = &p->budget[i];
    int64_t sum = b->bytes;
    for (int k = 0; k < i; k++) {
      const plan_budget *o = &p->budget[k];
      if (strcmp(o->where, b->where) != 0) continue;
      sum += o->bytes;
      if (strcmp(o->what, b->what) == 0)
        return hf_fail(HF_INPUT, "%s: budget[%d]: %s, %s appears twice", where, i, b->where, b->what);
      if (o->limit_bytes != b->limit_bytes) {
        return hf_fail(HF_INPUT, "%s: budget[%d]: field limit_bytes: two limits for %s, %lld and %lld", where, i, b->where,
                       (long long)o->limit_bytes, (long long)b->limit_bytes);
      }
    }
    if (b->limit_bytes && sum > b->limit_bytes) {
      return hf_fail(HF_INPUT, "%s: budget[%d]: %s needs %lld bytes and has %lld; plan again with a smaller context or placement",
                     where, i, b->where, (long long)sum, (long long)b->limit_bytes);
    }
  }
  return HF_OK;
}

hf_status plan_check(const plan *p, const char *where) {
  HF_TRY(plan_check_numbers(p, where));
  return check_budget(p, where);
}

int plan_rank(const plan *p, int device) {
  int rank = 0;
  if (device < 0 || device >= p->n_devices || strncmp(p->device[device].spec, "remote:", 7) != 0) return 0;
  for (int i = 0; i <= device; i++) rank += strncmp(p->device[i].spec, "remote:", 7) == 0;
  return rank;
}

int plan_ranks(const plan *p) {
  int n = 0;
  for (int i = 0; p && i < p->n_devices; i++) n += plan_rank(p, i) > 0;
  return n;
}
