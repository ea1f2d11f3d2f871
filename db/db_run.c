/* db_run.c: runs and what was counted in them. */
#include "db/sql.h"

static const db_col run_cols[] = {
    DB_COL(rec_run, id, DB_REF),
    DB_COL(rec_run, plan_id, DB_REF),
    DB_COL(rec_run, machine_id, DB_REF),
    DB_COL(rec_run, model, DB_TEXT),
    DB_COL(rec_run, format, DB_TEXT),
    DB_COL(rec_run, gpu, DB_TEXT),
    DB_COL(rec_run, kind, DB_TEXT),
    DB_COL(rec_run, created_ns, DB_I64),
    DB_COL(rec_run, users, DB_INT),
    DB_COL(rec_run, depth, DB_INT),
    DB_COL(rec_run, threads, DB_INT),
    DB_COL(rec_run, prompt_tokens, DB_I64),
    DB_COL(rec_run, output_tokens, DB_I64),
    DB_COL(rec_run, steps, DB_I64),
    DB_COL(rec_run, wall_s, DB_NUM),
    DB_COL(rec_run, decode_s, DB_NUM),
    DB_COL(rec_run, decode_tok_per_s, DB_NUM),
    DB_COL(rec_run, tok_per_s_wall, DB_NUM),
    DB_COL(rec_run, prefill_tok_per_s, DB_NUM),
    DB_COL(rec_run, ttft_p50_s, DB_NUM),
    DB_COL(rec_run, ttft_p90_s, DB_NUM),
    DB_COL(rec_run, ttft_p99_s, DB_NUM),
    DB_COL(rec_run, tpot_p50_s, DB_NUM),
    DB_COL(rec_run, tpot_p90_s, DB_NUM),
    DB_COL(rec_run, tpot_p99_s, DB_NUM),
    DB_COL(rec_run, dram_bytes_per_s, DB_NUM),
    DB_COL(rec_run, other_cpu_share, DB_NUM),
    DB_COL(rec_run, predicted_decode_tok_per_s, DB_NUM),
    DB_COL(rec_run, predicted_low, DB_NUM),
    DB_COL(rec_run, predicted_high, DB_NUM),
    DB_COL(rec_run, predicted_ttft_p50_s, DB_NUM),
    DB_COL(rec_run, predicted_tpot_p50_s, DB_NUM),
    DB_COL(rec_run, status, DB_TEXT),
};
static const db_table run_table = DB_TABLE("run", run_cols, rec_run);

static const db_col request_cols[] = {
    DB_COL(rec_request, run_id, DB_I64),        DB_COL(rec_request, request, DB_I64),
    DB_COL(rec_request, ext_id, DB_TEXT),       DB_COL(rec_request, prompt_tokens, DB_INT),
    DB_COL(rec_request, output_tokens, DB_INT), DB_COL(rec_request, arrival_s, DB_NUM),
    DB_COL(rec_request, first_token_s, DB_NUM), DB_COL(rec_request, end_s, DB_NUM),
    DB_COL(rec_request, finish, DB_TEXT),
};
static const db_table request_table = DB_TABLE("request", request_cols, rec_request);

static const db_col stage_cols[] = {
    DB_COL(rec_stage, run_id, DB_I64),
    DB_COL(rec_stage, source, DB_TEXT),
    DB_COL(rec_stage, stage, DB_TEXT),
    DB_COL(rec_stage, phase, DB_TEXT),
    DB_COL(rec_stage, resource, DB_TEXT),
    DB_COL(rec_stage, layer, DB_INT),
    DB_COL(rec_stage, steps, DB_I64),
    DB_COL(rec_stage, tokens, DB_I64),
    DB_COL_AS(rec_stage, distinct, "distinct_experts", DB_I64),
    DB_COL(rec_stage, ns_sum, DB_NUM),
    DB_COL(rec_stage, ns_sq_sum, DB_NUM),
};
static const db_table stage_table = DB_TABLE("stage_time", stage_cols, rec_stage);

static const db_col routing_cols[] = {
    DB_COL(rec_routing, run_id, DB_I64), DB_COL(rec_routing, layer, DB_INT), DB_COL(rec_routing, expert, DB_INT),
    DB_COL(rec_routing, phase, DB_TEXT), DB_COL(rec_routing, count, DB_I64),
};
static const db_table routing_table = DB_TABLE("routing_count", routing_cols, rec_routing);

static const db_col distinct_cols[] = {
    DB_COL(rec_distinct, run_id, DB_I64), DB_COL(rec_distinct, layer, DB_INT), DB_COL(rec_distinct, phase, DB_TEXT),
    DB_COL(rec_distinct, tokens, DB_INT), DB_COL(rec_distinct, steps, DB_I64), DB_COL(rec_distinct, sum, DB_I64),
    DB_COL(rec_distinct, sum_sq, DB_I64),
};
static const db_table distinct_table = DB_TABLE("distinct_experts", distinct_cols, rec_distinct);

static const db_col event_cols[] = {
    DB_COL(rec_event, id, DB_REF),          DB_COL(rec_event, run_id, DB_I64), DB_COL(rec_event, at_ns, DB_I64),
    DB_COL(rec_event, recovery_ns, DB_I64), DB_COL(rec_event, kind, DB_TEXT),  DB_COL(rec_event, detail, DB_TEXT),
};
static const db_table event_table = DB_TABLE("event", event_cols, rec_event);

typedef struct {
  int64_t run_id, plan_id;
  rec_trace t;
} trace_row;

static const db_col trace_cols[] = {
    DB_COL(trace_row, run_id, DB_REF),
    DB_COL(trace_row, plan_id, DB_REF),
    DB_COL_AS(trace_row, t.source, "source", DB_TEXT),
    DB_COL_AS(trace_row, t.step, "step", DB_INT),
    DB_COL_AS(trace_row, t.micro_batch, "micro_batch", DB_INT),
    DB_COL_AS(trace_row, t.layer, "layer", DB_INT),
    DB_COL_AS(trace_row, t.stage, "stage", DB_TEXT),
    DB_COL_AS(trace_row, t.resource, "resource", DB_TEXT),
    DB_COL_AS(trace_row, t.start_ns, "start_ns", DB_I64),
    DB_COL_AS(trace_row, t.end_ns, "end_ns", DB_I64),
    DB_COL_AS(trace_row, t.bytes, "bytes", DB_I64),
    DB_COL_AS(trace_row, t.flops, "flops", DB_NUM),
    DB_COL_AS(trace_row, t.tokens, "tokens", DB_INT),
    DB_COL_AS(trace_row, t.distinct, "distinct_experts", DB_INT),
};
static const db_table trace_insert = DB_TABLE("trace", trace_cols, trace_row);
/* The same columns without the two references, read into rec_trace. */
static const db_col trace_event_cols[] = {
    DB_COL(rec_trace, source, DB_TEXT),     DB_COL(rec_trace, step, DB_INT),
    DB_COL(rec_trace, micro_batch, DB_INT), DB_COL(rec_trace, layer, DB_INT),
    DB_COL(rec_trace, stage, DB_TEXT),      DB_COL(rec_trace, resource, DB_TEXT),
    DB_COL(rec_trace, start_ns, DB_I64),    DB_COL(rec_trace, end_ns, DB_I64),
    DB_COL(rec_trace, bytes, DB_I64),       DB_COL(rec_trace, flops, DB_NUM),
    DB_COL(rec_trace, tokens, DB_INT),      DB_COL_AS(rec_trace, distinct, "distinct_experts", DB_INT),
};
static const db_table trace_select = DB_TABLE("trace", trace_event_cols, rec_trace);

static const db_col error_cols[] = {
    DB_COL(rec_signed_error, run_id, DB_I64),   DB_COL(rec_signed_error, model, DB_TEXT),
    DB_COL(rec_signed_error, metric, DB_TEXT),  DB_COL(rec_signed_error, predicted, DB_NUM),
    DB_COL(rec_signed_error, measured, DB_NUM), DB_COL(rec_signed_error, signed_error, DB_NUM),
};
static const db_table error_view = DB_TABLE("run_error", error_cols, rec_signed_error);

static const char plain[] = "";
static const char by_id[] = "WHERE id = ?1";
static const char newest_first[] = "ORDER BY id DESC";

hf_status db_model_seen(db *d, const char *name, const char *family, int n_layers, int n_experts) {
  static const char sql[] =
      "INSERT INTO model (name, family, n_layers, n_experts) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (name) DO UPDATE SET "
      "family = excluded.family, n_layers = excluded.n_layers, n_experts = excluded.n_experts WHERE excluded.n_layers > 0";
  sqlite3_stmt *s;
  HF_TRY(db_statement(d, sql, &s));
  int rc = sqlite3_bind_text(s, 1, name, -1, SQLITE_STATIC);
  if (rc == SQLITE_OK) rc = sqlite3_bind_text(s, 2, family, -1, SQLITE_STATIC);
  if (rc == SQLITE_OK) rc = sqlite3_bind_int(s, 3, n_layers);
  if (rc == SQLITE_OK) rc = sqlite3_bind_int(s, 4, n_experts);
  return rc == SQLITE_OK ? db_done(d, s, "model") : db_fail(d, rc, "model");
}

hf_status db_run_put(db *d, rec_run *r) {
  int64_t id = r->id;
  bool own;
  HF_TRY(db_enter(d, &own));
  r->model[sizeof r->model - 1] = 0;
  hf_status st = db_model_seen(d, r->model, "", 0, 0);
  if (st == HF_OK) st = db_put(d, &run_table, r);
  st = db_leave(d, own, st);
  if (st != HF_OK) r->id = id;
  return st;
}

hf_status db_run_drop(db *d, int64_t id) {
  sqlite3_stmt *s = NULL;
  HF_TRY(db_statement(d, "DELETE FROM run WHERE id = ?1", &s));
  sqlite3_bind_int64(s, 1, id);
  return db_done(d, s, "run");
}

hf_status db_run_drop_running(db *d, int64_t before_ns) {
  sqlite3_stmt *s = NULL;
  HF_TRY(db_statement(d, "DELETE FROM run WHERE status = 'running' AND created_ns < ?1", &s));
  sqlite3_bind_int64(s, 1, before_ns);
  return db_done(d, s, "run");
}

hf_status db_run_get(db *d, int64_t id, rec_run *out) {
  return db_get(d, &run_table, by_id, id, out);
}

hf_status db_run_list(db *d, rec_run **out, int *n) {
  return db_list(d, &run_table, newest_first, 0, out, n);
}

hf_status db_request_put(db *d, const rec_request *r) {
  return db_insert(d, &request_table, plain, r);
}

hf_status db_stage_put(db *d, const rec_stage *r) {
  static const char add[] = "ON CONFLICT DO UPDATE SET steps = steps + excluded.steps, tokens = tokens + excluded.tokens, "
                            "distinct_experts = distinct_experts + excluded.distinct_experts, ns_sum = ns_sum + excluded.ns_sum, "
                            "ns_sq_sum = ns_sq_sum + excluded.ns_sq_sum";
  return db_insert(d, &stage_table, add, r);
}

hf_status db_routing_put(db *d, const rec_routing *r) {
  static const char add[] = "ON CONFLICT DO UPDATE SET count = count + excluded.count";
  return db_insert(d, &routing_table, add, r);
}

hf_status db_distinct_put(db *d, const rec_distinct *r) {
  static const char add[] =
      "ON CONFLICT DO UPDATE SET steps = steps + excluded.steps, sum = sum + excluded.sum, sum_sq = sum_sq + excluded.sum_sq";
  return db_insert(d, &distinct_table, add, r);
}

hf_status db_event_put(db *d, const rec_event *r) {
  return db_insert(d, &event_table, plain, r);
}

hf_status db_trace_put(db *d, int64_t run_id, int64_t plan_id, const rec_trace *r) {
  trace_row row = {run_id, plan_id, *r};
  return db_insert(d, &trace_insert, plain, &row);
}

hf_status db_request_list(db *d, int64_t run_id, rec_request **out, int *n) {
  static const char clause[] = "WHERE run_id = ?1 ORDER BY request";
  return db_list(d, &request_table, clause, run_id, out, n);
}

hf_status db_stage_list(db *d, int64_t run_id, rec_stage **out, int *n) {
  static const char clause[] = "WHERE run_id = ?1 ORDER BY source, layer, stage, phase, resource";
  return db_list(d, &stage_table, clause, run_id, out, n);
}

hf_status db_routing_list(db *d, int64_t run_id, rec_routing **out, int *n) {
  static const char clause[] = "WHERE run_id = ?1 ORDER BY phase, layer, expert";
  return db_list(d, &routing_table, clause, run_id, out, n);
}

hf_status db_distinct_list(db *d, int64_t run_id, rec_distinct **out, int *n) {
  static const char clause[] = "WHERE run_id = ?1 ORDER BY phase, layer, tokens";
  return db_list(d, &distinct_table, clause, run_id, out, n);
}

hf_status db_event_list(db *d, int64_t run_id, rec_event **out, int *n) {
  static const char clause[] = "WHERE run_id = ?1 ORDER BY id";
  return db_list(d, &event_table, clause, run_id, out, n);
}

hf_status db_trace_list(db *d, int64_t run_id, int64_t plan_id, rec_trace **out, int *n) {
  static const char of_run[] = "WHERE run_id = ?1 ORDER BY start_ns, id";
  static const char of_plan[] = "WHERE plan_id = ?1 ORDER BY start_ns, id";
  return db_list(d, &trace_select, run_id ? of_run : of_plan, run_id ? run_id : plan_id, out, n);
}

hf_status db_signed_errors(db *d, int64_t run_id_or_0, rec_signed_error **out, int *n) {
  static const char one[] = "WHERE run_id = ?1 ORDER BY metric";
  static const char all[] = "ORDER BY run_id DESC, metric";
  return db_list(d, &error_view, run_id_or_0 ? one : all, run_id_or_0, out, n);
}
