#include "planner/plan_eval.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "sched/sched.h"

void plan_eval_free(plan_eval *v) {
  if (v == NULL) return;
  stage_table_free(v->table);
  popularity_free(v->pop);
  free(v->expert_bytes);
  free(v);
}

ilp_problem plan_eval_problem(const plan_eval *v, uint32_t depths) {
  ilp_problem p = {.table = v->table,
                   .pop = v->pop,
                   .users = v->users,
                   .context = v->mean_context,
                   .depths = depths,
                   .expert_bytes = v->expert_bytes,
                   .n_devices = v->n_devices};
  static const char *const name[STAGE_MAX_DEVICES] = {"gpu0", "gpu1", "gpu2", "gpu3", "gpu4", "gpu5", "gpu6", "gpu7"};
  for (int d = 0; d < v->n_devices; d++) {
    p.device[d].name = name[d];
    memcpy(p.device[d].expert_bytes_free, v->room[d], sizeof v->room[d]);
  }
  p.cpu_bytes = v->cpu_room;
  memcpy(p.remote_bytes, v->remote_room, sizeof v->remote_room);
  p.prefill = v->prefill;
  p.limit = v->limit;
  return p;
}

/* Runs [count, p] per layer: uniform popularity is one pair. */
static void rows_to_json(const popularity *pop, const double *all, json *layers) {
  for (int l = 0; l < pop->n_layers; l++) {
    const double *p = all + (size_t)l * (size_t)pop->n_experts;
    json *runs = json_add_array(layers, NULL);
    for (int e = 0, n; e < pop->n_experts; e += n) {
      for (n = 1; e + n < pop->n_experts && p[e + n] == p[e];) n++;
      json *run = json_add_array(runs, NULL);
      json_add_int(run, NULL, n);
      json_add_num(run, NULL, p[e]);
    }
  }
}

static void popularity_to_json(const popularity *pop, json *parent) {
  json *o = json_add_object(parent, "popularity");
  json_add_str(o, "source", pop->source);
  rows_to_json(pop, pop->p, json_add_array(o, "p"));
  if (pop->prefill != NULL) rows_to_json(pop, pop->prefill, json_add_array(o, "prefill"));
}

hf_status plan_eval_to_json(const plan_eval *v, json *extra) {
  json *o = json_add_object(extra, "inputs");
  json_add_num(o, "mean_context", v->mean_context);
  json_add_int(o, "n_devices", v->n_devices);
  json *bytes = json_add_array(o, "expert_bytes");
  for (int l = 0; l < v->table->n_layers; l++) json_add_int(bytes, NULL, v->expert_bytes[l]);
  json *room = json_add_array(o, "expert_room_bytes");
  for (int d = 0; d < (v->n_devices > 0 ? v->n_devices : 1); d++)
    for (int i = 0; i < ILP_MAX_DEPTH; i++) json_add_int(room, NULL, v->room[d][i]);
  json_add_int(o, "cpu_room_bytes", v->cpu_room);
  json *remote = json_add_array(o, "remote_room_bytes");
  for (int r = 0; r < v->table->n_remotes; r++) json_add_int(remote, NULL, v->remote_room[r]);
  if (v->prefill.weight > 0) {
    json *f = json_add_object(o, "prefill");
    json_add_num(f, "weight", v->prefill.weight);
    json_add_int(f, "tokens", v->prefill.load.tokens);
    json_add_num(f, "seqs", v->prefill.load.seqs);
    json_add_num(f, "query_context", v->prefill.load.query_context);
    json_add_num(f, "seq_context", v->prefill.load.seq_context);
    json_add_num(f, "query_window", v->prefill.load.query_window);
    json_add_num(f, "seq_window", v->prefill.load.seq_window);
    json_add_bool(f, "upload", v->prefill.upload);
  }
  popularity_to_json(v->pop, o);
  return stage_table_to_json(v->table, json_add_object(o, "stages"));
}

static hf_status read_row(const json *runs, const char *where, const char *key, int l, int n_experts, double *p) {
  int e = 0;
  for (const json *r = json_first(runs); r != NULL; r = json_next(r)) {
    const json *count = json_first(r), *value = json_next(count);
    double n = json_number(count, -1), x = json_number(value, -1);
    if (json_type(r) != JSON_ARRAY || json_len(r) != 2 || !(n >= 1 && n <= n_experts - e) || n != (int)n || !(x >= 0 && x <= 1))
      return hf_fail(HF_INPUT, "%s: field popularity.%s[%d]: needs pairs [count, probability] of %d experts in all", where, key,
                     l, n_experts);
    for (int i = 0; i < (int)n; i++) p[e++] = x;
  }
  if (e != n_experts) return hf_fail(HF_INPUT, "%s: field popularity.%s[%d]: %d experts, not %d", where, key, l, e, n_experts);
  return HF_OK;
}

static hf_status read_rows(const json *pop, const char *where, const char *key, const stage_table *t, double *out) {
  const json *rows = json_get(pop, key);
  if (json_type(rows) != JSON_ARRAY || json_len(rows) != t->n_layers)
    return hf_fail(HF_INPUT, "%s: field popularity.%s: needs one entry per layer", where, key);
  int l = 0;
  for (const json *r = json_first(rows); r != NULL; r = json_next(r), l++)
    HF_TRY(read_row(r, where, key, l, t->n_experts, out + (size_t)l * (size_t)t->n_experts));
  return HF_OK;
}

static hf_status read_popularity(const json *o, const char *where, plan_eval *v) {
  const json *pop = json_get(o, "popularity");
  const char *source = json_string(json_get(pop, "source"));
  size_t cells = (size_t)v->table->n_layers * (size_t)v->table->n_experts;
  if (source == NULL) return hf_fail(HF_INPUT, "%s: field popularity: needs source and p with one entry per layer", where);
  HF_TRY(popularity_new(v->table->n_layers, v->table->n_experts, &v->pop));
  snprintf(v->pop->source, sizeof v->pop->source, "%s", source);
  HF_TRY(read_rows(pop, where, "p", v->table, v->pop->p));
  if (json_get(pop, "prefill") == NULL) return HF_OK;
  HF_TRY(hf_alloc(&v->pop->prefill, cells > 0 ? cells : 1, sizeof *v->pop->prefill, "popularity of experts"));
  return read_rows(pop, where, "prefill", v->table, v->pop->prefill);
}

/* Limits keep the sum over all experts of all layers below 2^63. */
static hf_status read_ints(const json *o, const char *where, const char *key, int n, double lo, double hi, int64_t *out) {
  const json *a = json_get(o, key);
  if (json_type(a) != JSON_ARRAY || json_len(a) != n)
    return hf_fail(HF_INPUT, "%s: field %s: needs an array of %d numbers", where, key, n);
  int i = 0;
  for (const json *x = json_first(a); x != NULL; x = json_next(x), i++) {
    double d = json_number(x, 1e300);
    if (!(d >= lo && d <= hi)) return hf_fail(HF_INPUT, "%s: field %s[%d]: needs a number of bytes", where, key, i);
    out[i] = (int64_t)d;
  }
  return HF_OK;
}

static hf_status read_rooms(const json *o, const char *where, plan_eval *v) {
  int64_t room[STAGE_MAX_DEVICES * ILP_MAX_DEPTH];
  int n = v->n_devices > 0 ? v->n_devices : 1;
  HF_TRY(read_ints(o, where, "expert_room_bytes", n * ILP_MAX_DEPTH, -0x1p53, 0x1p53, room));
  memcpy(v->room, room, (size_t)n * sizeof v->room[0]);
  HF_TRY(json_opt_int(o, where, "cpu_room_bytes", 0, (int64_t)1 << 53, &v->cpu_room));
  if (v->table->n_remotes == 0) return HF_OK;
  return read_ints(o, where, "remote_room_bytes", v->table->n_remotes, -0x1p53, 0x1p53, v->remote_room);
}

static hf_status read_prefill(const json *o, const char *where, ilp_prefill *out) {
  const json *f = json_get(o, "prefill");
  int64_t tokens = 0;
  if (f == NULL) return HF_OK;
  HF_TRY(json_get_num(f, where, "weight", 0, 1e9, &out->weight));
  HF_TRY(json_get_int(f, where, "tokens", 1, 1 << 20, &tokens));
  out->load.tokens = (int)tokens;
  if (json_get(f, "seqs") != NULL) HF_TRY(json_get_num(f, where, "seqs", 0, 1e15, &out->load.seqs));
  HF_TRY(json_get_num(f, where, "query_context", 0, 1e15, &out->load.query_context));
  HF_TRY(json_get_num(f, where, "seq_context", 0, 1e15, &out->load.seq_context));
  HF_TRY(json_get_num(f, where, "query_window", 0, 1e15, &out->load.query_window));
  HF_TRY(json_get_num(f, where, "seq_window", 0, 1e15, &out->load.seq_window));
  return json_get_bool(f, where, "upload", &out->upload);
}

static hf_status read_inputs(const plan *p, const json *o, const char *where, plan_eval *v) {
  int64_t n_devices = 0;
  HF_TRY(stage_table_from_json(json_get(o, "stages"), where, &v->table));
  if (v->table->n_layers != p->n_layers || v->table->n_experts != p->n_experts)
    return hf_fail(HF_INPUT, "%s: field stages: %d layers of %d experts, the plan has %d of %d", where, v->table->n_layers,
                   v->table->n_experts, p->n_layers, p->n_experts);
  for (int l = 0; l < p->n_layers; l++)
    if (v->table->layer[l].moe != p->layer[l].moe)
      return hf_fail(HF_INPUT, "%s: field stages: layer %d is %s there, but not in the plan", where, l,
                     v->table->layer[l].moe ? "MoE" : "dense");
  HF_TRY(read_popularity(o, where, v));
  HF_TRY(json_get_num(o, where, "mean_context", 0, 1e12, &v->mean_context));
  HF_TRY(json_get_int(o, where, "n_devices", 0, ILP_MAX_DEVICES, &n_devices));
  v->n_devices = (int)n_devices;
  if (p->users > SCHED_MAX_SEQS)
    return hf_fail(HF_INPUT, "%s: field users: %d in the plan; at most %d run at once", where, p->users, (int)SCHED_MAX_SEQS);
  v->users = p->users;
  HF_TRY(hf_alloc(&v->expert_bytes, (size_t)p->n_layers, sizeof *v->expert_bytes, "sizes of experts"));
  HF_TRY(read_ints(o, where, "expert_bytes", p->n_layers, 0, 0x1p40, v->expert_bytes));
  HF_TRY(read_rooms(o, where, v));
  return read_prefill(o, where, &v->prefill);
}

hf_status plan_eval_from_plan(const plan *p, const char *where, plan_eval **out) {
  const json *o = json_get(p->extra, "inputs");
  if (json_type(o) != JSON_OBJECT)
    return hf_fail(HF_INPUT, "%s: field inputs: missing; it was not written by hf-plan: plan again", where);
  char inner[320];
  snprintf(inner, sizeof inner, "%.280s: inputs", where);
  plan_eval *v = NULL;
  HF_TRY(hf_alloc(&v, 1, sizeof *v, "inputs of a plan"));
  hf_status st = read_inputs(p, o, inner, v);
  if (st != HF_OK) plan_eval_free(v);
  else *out = v;
  return st;
}

hf_status plan_placement(const plan *p, int n_layers, int n_experts, uint8_t **out) {
  if (p->n_layers != n_layers || p->n_experts != n_experts)
    return hf_fail(HF_INPUT, "the plan is for %d layers of %d experts, not %d of %d", p->n_layers, p->n_experts, n_layers,
                   n_experts);
  uint8_t *d = NULL;
  HF_TRY(hf_alloc(&d, (size_t)n_layers * (size_t)n_experts + 1, 1, "placement"));
  for (int l = 0; l < n_layers; l++)
    for (int e = 0; p->layer[l].device != NULL && e < p->layer[l].n_experts; e++)
      d[(size_t)l * (size_t)n_experts + (size_t)e] = (uint8_t)(1 + p->layer[l].device[e]);
  *out = d;
  return HF_OK;
}
