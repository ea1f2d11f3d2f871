/* db_plan.c: plans. The JSON text is the plan; the rows beside it are for queries and are never read back into a plan. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "db/sql.h"

typedef struct {
  plan p;
  int64_t created_ns;
} plan_row;

static const db_col plan_cols[] = {
    DB_COL_AS(plan_row, p.machine_id, "machine_id", DB_REF),
    DB_COL_AS(plan_row, p.from_run, "from_run", DB_REF),
    DB_COL_AS(plan_row, created_ns, "created_ns", DB_I64),
    DB_COL_AS(plan_row, p.schema_version, "schema_version", DB_INT),
    DB_COL_AS(plan_row, p.cost_model_version, "cost_model_version", DB_INT),
    DB_COL_AS(plan_row, p.inputs_hash, "inputs_hash", DB_TEXT),
    DB_COL_AS(plan_row, p.model, "model", DB_TEXT),
    DB_COL_AS(plan_row, p.format, "format", DB_TEXT),
    DB_COL_AS(plan_row, p.machine, "machine", DB_TEXT),
    DB_COL_AS(plan_row, p.gpu, "gpu", DB_TEXT),
    DB_COL_AS(plan_row, p.users, "users", DB_INT),
    DB_COL_AS(plan_row, p.context, "context", DB_INT),
    DB_COL_AS(plan_row, p.prompt_tokens, "prompt_tokens", DB_INT),
    DB_COL_AS(plan_row, p.output_tokens, "output_tokens", DB_INT),
    DB_COL_AS(plan_row, p.depth, "depth", DB_INT),
    DB_COL_AS(plan_row, p.kv_bytes, "kv_bytes", DB_I64),
    DB_COL_AS(plan_row, p.ilp.objective_ns, "objective_ns", DB_NUM),
    DB_COL_AS(plan_row, p.ilp.bound_ns, "bound_ns", DB_NUM),
    DB_COL_AS(plan_row, p.ilp.gap, "gap", DB_NUM),
    DB_COL_AS(plan_row, p.decode_tok_per_s.low, "decode_tok_per_s_low", DB_NUM),
    DB_COL_AS(plan_row, p.decode_tok_per_s.likely, "decode_tok_per_s", DB_NUM),
    DB_COL_AS(plan_row, p.decode_tok_per_s.high, "decode_tok_per_s_high", DB_NUM),
    DB_COL_AS(plan_row, p.ttft_s.p50, "ttft_p50_s", DB_NUM),
    DB_COL_AS(plan_row, p.tpot_s.p50, "tpot_p50_s", DB_NUM),
    DB_COL_AS(plan_row, p.tag, "tag", DB_TEXT),
    DB_COL_AS(plan_row, p.binding, "binding", DB_TEXT),
    DB_COL_AS(plan_row, p.kv_type, "json", DB_TEXT), /* holds the place; the text follows when the id is known */
};
static const db_table plan_table = DB_TABLE("plan", plan_cols, plan_row);

typedef struct {
  int64_t plan_id;
  int number;
  plan_device d;
} device_row;

static const db_col device_cols[] = {
    DB_COL(device_row, plan_id, DB_I64),
    DB_COL(device_row, number, DB_INT),
    DB_COL_AS(device_row, d.name, "name", DB_TEXT),
    DB_COL_AS(device_row, d.spec, "spec", DB_TEXT),
    DB_COL_AS(device_row, d.mem_bytes, "mem_bytes", DB_I64),
};
static const db_table device_table = DB_TABLE("plan_device", device_cols, device_row);

typedef struct {
  int64_t plan_id;
  plan_layer l;
} layer_row;

static const db_col layer_cols[] = {
    DB_COL(layer_row, plan_id, DB_I64),
    DB_COL_AS(layer_row, l.index, "layer", DB_INT),
    DB_COL_AS(layer_row, l.moe, "moe", DB_BOOL),
    DB_COL_AS(layer_row, l.n_experts, "n_experts", DB_INT),
    DB_COL_AS(layer_row, l.attn_ns, "attn_ns", DB_NUM),
    DB_COL_AS(layer_row, l.shared_ns, "shared_ns", DB_NUM),
    DB_COL_AS(layer_row, l.dexp_ns, "dexp_ns", DB_NUM),
    DB_COL_AS(layer_row, l.cexp_ns, "cexp_ns", DB_NUM),
    DB_COL_AS(layer_row, l.hand_ns, "hand_ns", DB_NUM),
    DB_COL_AS(layer_row, l.layer_ns, "layer_ns", DB_NUM),
    DB_COL_AS(layer_row, l.binding, "binding", DB_TEXT),
    DB_COL_AS(layer_row, l.prefill, "prefill", DB_TEXT),
};
static const db_table layer_table = DB_TABLE("plan_layer", layer_cols, layer_row);

typedef struct {
  int64_t plan_id;
  int layer, first_expert, count, device;
  char tier[8];
  double split_begin, split_end;
} expert_row;

static const db_col expert_cols[] = {
    DB_COL(expert_row, plan_id, DB_I64),     DB_COL(expert_row, layer, DB_INT),     DB_COL(expert_row, first_expert, DB_INT),
    DB_COL(expert_row, count, DB_INT),       DB_COL(expert_row, tier, DB_TEXT),     DB_COL(expert_row, device, DB_INT),
    DB_COL(expert_row, split_begin, DB_NUM), DB_COL(expert_row, split_end, DB_NUM),
};
static const db_table expert_table = DB_TABLE("plan_expert", expert_cols, expert_row);

typedef struct {
  int64_t plan_id;
  plan_budget b;
} budget_row;

static const db_col budget_cols[] = {
    DB_COL(budget_row, plan_id, DB_I64),
    DB_COL_AS(budget_row, b.where, "place", DB_TEXT),
    DB_COL_AS(budget_row, b.what, "what", DB_TEXT),
    DB_COL_AS(budget_row, b.bytes, "bytes", DB_I64),
    DB_COL_AS(budget_row, b.limit_bytes, "limit_bytes", DB_I64),
};
static const db_table budget_table = DB_TABLE("plan_budget", budget_cols, budget_row);

typedef struct {
  int64_t plan_id;
  plan_kernel k;
} kernel_row;

static const db_col kernel_cols[] = {
    DB_COL(kernel_row, plan_id, DB_I64),
    DB_COL_AS(kernel_row, k.op, "op", DB_TEXT),
    DB_COL_AS(kernel_row, k.format, "format", DB_TEXT),
    DB_COL_AS(kernel_row, k.tokens_lo, "tokens_lo", DB_INT),
    DB_COL_AS(kernel_row, k.tokens_hi, "tokens_hi", DB_INT),
    DB_COL_AS(kernel_row, k.candidate, "candidate", DB_TEXT),
};
static const db_table kernel_table = DB_TABLE("plan_kernel", kernel_cols, kernel_row);

static const char plain[] = "";

/* ---- put ---- */

/* Slices of an expert, or of none, when experts are not cut. */
static const int32_t *split_of(const plan_layer *l, int e) {
  return l->device[e] < 0 && l->split ? l->split + (size_t)e * ((size_t)l->n_nodes + 1) : NULL;
}

static bool same_place(const plan_layer *l, int a, int b) {
  const int32_t *of_a = split_of(l, a), *of_b = split_of(l, b);
  if (l->device[a] != l->device[b]) return false;
  return !of_a || memcmp(of_a, of_b, ((size_t)l->n_nodes + 1) * sizeof *of_a) == 0;
}

/* A run of experts: one row, or one for each node that has a slice of them. */
static hf_status put_run(db *d, const plan *p, const plan_layer *l, int e, int n) {
  const int32_t *at = split_of(l, e);
  expert_row run = {p->id, l->index, e, n, l->device[e], "cpu", 0, 1};
  if (l->device[e] >= 0) snprintf(run.tier, sizeof run.tier, "gpu");
  if (!at) return db_insert(d, &expert_table, plain, &run);
  snprintf(run.tier, sizeof run.tier, "node");
  for (int i = 0; i < l->n_nodes; i++) {
    if (at[i] == at[i + 1]) continue;
    run.device = i;
    run.split_begin = (double)at[i] / at[l->n_nodes];
    run.split_end = (double)at[i + 1] / at[l->n_nodes];
    HF_TRY(db_insert(d, &expert_table, plain, &run));
  }
  return HF_OK;
}

static hf_status put_layer(db *d, const plan *p, const plan_layer *l) {
  layer_row row = {p->id, *l};
  HF_TRY(db_insert(d, &layer_table, plain, &row));
  for (int e = 0, n; e < l->n_experts; e += n) {
    for (n = 1; e + n < l->n_experts && same_place(l, e, e + n);) n++;
    HF_TRY(put_run(d, p, l, e, n));
  }
  return HF_OK;
}

static hf_status put_parts(db *d, const plan *p) {
  for (int i = 0; i < p->n_devices; i++) {
    device_row row = {p->id, i, p->device[i]};
    HF_TRY(db_insert(d, &device_table, plain, &row));
  }
  for (int i = 0; i < p->n_layers; i++) HF_TRY(put_layer(d, p, &p->layer[i]));
  for (int i = 0; i < p->n_budget; i++) {
    budget_row row = {p->id, p->budget[i]};
    HF_TRY(db_insert(d, &budget_table, plain, &row));
  }
  for (int i = 0; i < p->n_kernels; i++) {
    kernel_row row = {p->id, p->kernel[i]};
    HF_TRY(db_insert(d, &kernel_table, plain, &row));
  }
  return HF_OK;
}

static hf_status put_text(db *d, const plan *p) {
  json *doc;
  char *text = NULL;
  sqlite3_stmt *s;
  HF_TRY(plan_to_json(p, &doc));
  hf_status st = json_print(doc, false, &text);
  json_free(doc);
  if (st == HF_OK && strlen(text) > PLAN_MAX_BYTES) {
    st = hf_fail(HF_INPUT, "field extra: the plan's text is longer than %d bytes and could not be read again", PLAN_MAX_BYTES);
  }
  if (st == HF_OK) st = db_statement(d, "UPDATE plan SET json = ?2 WHERE id = ?1", &s);
  if (st == HF_OK) {
    int rc = sqlite3_bind_int64(s, 1, p->id);
    if (rc == SQLITE_OK) rc = sqlite3_bind_text(s, 2, text, -1, SQLITE_STATIC);
    st = rc == SQLITE_OK ? db_done(d, s, "plan") : db_fail(d, rc, "plan");
    sqlite3_clear_bindings(s);
  }
  free(text);
  return st;
}

static hf_status put_all(db *d, plan *p) {
  plan_row *row;
  HF_TRY(db_model_seen(d, p->model, p->family, p->n_layers, p->n_experts));
  HF_TRY(hf_alloc(&row, 1, sizeof *row, "plan row"));
  row->p = *p; /* the pointers in it are not columns */
  row->created_ns = hf_wall_ns();
  hf_status st = db_insert(d, &plan_table, plain, row);
  free(row);
  HF_TRY(st);
  p->id = sqlite3_last_insert_rowid(d->handle);
  HF_TRY(put_parts(d, p));
  return put_text(d, p);
}

hf_status db_plan_put(db *d, plan *p) {
  int64_t id = p->id;
  bool own;
  HF_TRY(plan_check(p, "plan"));
  HF_TRY(db_enter(d, &own));
  hf_status st = db_leave(d, own, put_all(d, p));
  if (st != HF_OK) p->id = id;
  return hf_note(st, "storing the plan");
}

/* ---- get ---- */

static hf_status parse_row(const db *d, sqlite3_stmt *s, plan **out) {
  char where[1100];
  json *doc;
  int64_t id = sqlite3_column_int64(s, 0);
  const char *text = (const char *)sqlite3_column_text(s, 1);
  if (!text) return db_fail(d, SQLITE_NOMEM, "plan");
  size_t n = (size_t)sqlite3_column_bytes(s, 1);
  snprintf(where, sizeof where, "%s: plan %lld", d->path, (long long)id);
  if (n > PLAN_MAX_BYTES) return hf_fail(HF_INPUT, "%s: a text of %zu bytes, more than %d", where, n, PLAN_MAX_BYTES);
  HF_TRY(json_parse(text, n, where, &doc));
  hf_status st = plan_read_json(doc, where, out);
  json_free(doc);
  if (st == HF_OK) (*out)->id = id;
  return st;
}

hf_status db_plan_get(db *d, int64_t id, plan **out) {
  sqlite3_stmt *s;
  bool found;
  HF_TRY(db_statement(d, "SELECT id, json FROM plan WHERE id = ?1", &s));
  int rc = sqlite3_bind_int64(s, 1, id);
  if (rc != SQLITE_OK) return db_fail(d, rc, "plan");
  HF_TRY(db_row(d, s, "plan", &found));
  if (!found) return hf_fail(HF_NOT_FOUND, "%s: no plan %lld", d->path, (long long)id);
  hf_status st = parse_row(d, s, out);
  sqlite3_reset(s);
  return st;
}

hf_status db_plan_heads(db *d, rec_plan_head **out, int *n) {
  static const db_col cols[] = {
      DB_COL(rec_plan_head, id, DB_REF),
      DB_COL(rec_plan_head, machine_id, DB_REF),
      DB_COL(rec_plan_head, from_run, DB_REF),
      DB_COL(rec_plan_head, created_ns, DB_I64),
      DB_COL(rec_plan_head, model, DB_TEXT),
      DB_COL(rec_plan_head, format, DB_TEXT),
      DB_COL(rec_plan_head, machine, DB_TEXT),
      DB_COL(rec_plan_head, gpu, DB_TEXT),
      DB_COL(rec_plan_head, users, DB_INT),
      DB_COL(rec_plan_head, context, DB_INT),
      DB_COL(rec_plan_head, depth, DB_INT),
      DB_COL(rec_plan_head, decode_tok_per_s_low, DB_NUM),
      DB_COL(rec_plan_head, decode_tok_per_s, DB_NUM),
      DB_COL(rec_plan_head, decode_tok_per_s_high, DB_NUM),
  };
  static const db_table table = DB_TABLE("plan", cols, rec_plan_head);
  static const char heads_newest_first[] = "ORDER BY id DESC";
  return db_list(d, &table, heads_newest_first, 0, out, n);
}
