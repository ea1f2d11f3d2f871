/* db.h: the database. SQLite in WAL mode, STRICT tables, foreign keys; sqlite3.h and SQL appear in this room only.
 *
 * Durability: each call below is one transaction (or part of the one opened with db_begin); after it returns HF_OK a kill -9
 * loses nothing of it (WAL, synchronous=FULL; db_open.c says why). Write many rows between db_begin and db_commit: a commit is
 * a disk flush (milliseconds). Two programs may use one file: writers wait up to 10 s (busy_timeout), then HF_MACHINE
 * "database is locked by another program".
 * Opening migrates an older schema inside one transaction; a newer one is HF_INPUT with the version. A file that is no
 * HeteroFlow database, or whose schema somebody changed, is HF_INPUT and is not touched. create: a missing or empty file
 * becomes a database by the first write; until then it reads as one without rows, and nothing is left behind (folders included).
 * Without create that is HF_NOT_FOUND.
 * Errors: HF_MACHINE for disk full and I/O, HF_NOT_FOUND for a missing row, HF_INPUT for rows that break a constraint.
 * A put whose id is set updates that row (HF_NOT_FOUND when it is gone). After an error inside db_begin ... db_commit, roll back.
 * Thread rule: one db handle per thread. */
#ifndef HF_DB_DB_H
#define HF_DB_DB_H
#include "base/mem.h"
#include "db/plan.h"
#include "db/records.h"

/* What a person does who has no database yet: for error lines. */
#define DB_BEGIN                                                                                                          \
  "measure this machine with hf-profile, or plan for one you may buy: hf-plan plan --machine NAME (hf-plan catalog list " \
  "machines)"

typedef struct db db;

/* --db FILE, else $HETEROFLOW_DB, else $XDG_DATA_HOME/heteroflow/heteroflow.db, whose folders are made with the file. */
HF_MUST hf_status db_default_path(const char *option, char *out, size_t n);
HF_MUST hf_status db_open(const char *path, bool create, db **out);
void db_close(db *d);
HF_MUST hf_status db_begin(db *d);
HF_MUST hf_status db_commit(db *d);
void db_rollback(db *d);

/* Machines. put: inserts when id == 0 and sets it. find: by name or decimal id; the newest of that name,
 * one with kernel curves before one without (hf-profile --only). latest likewise, imported ones (facts member "imported") left out. */
HF_MUST hf_status db_machine_put(db *d, rec_machine *m);
HF_MUST hf_status db_machine_find(db *d, const char *name_or_id, rec_machine *out);
HF_MUST hf_status db_machine_get(db *d, int64_t id, rec_machine *out);
HF_MUST hf_status db_machine_latest(db *d, machine_kind kind, rec_machine *out); /* HF_NOT_FOUND: DB_BEGIN */
HF_MUST hf_status db_device_put(db *d, const rec_device *r);
HF_MUST hf_status db_figure_put(db *d, rec_figure *r);
HF_MUST hf_status db_kernel_put(db *d, const rec_kernel_point *r);
HF_MUST hf_status db_link_put(db *d, const rec_link_point *r);
/* Lists: *out is one allocation, free(). */
HF_MUST hf_status db_machine_list(db *d, rec_machine **out, int *n);
HF_MUST hf_status db_device_list(db *d, int64_t machine_id, rec_device **out, int *n);
HF_MUST hf_status db_figure_list(db *d, int64_t machine_id, rec_figure **out, int *n);
HF_MUST hf_status db_kernel_list(db *d, int64_t machine_id, rec_kernel_point **out, int *n);
HF_MUST hf_status db_link_list(db *d, int64_t machine_id, rec_link_point **out, int *n);

/* Plans: put stores rows and the JSON text, sets p->id. */
HF_MUST hf_status db_plan_put(db *d, plan *p); /* always a new row; p must pass plan_check */
HF_MUST hf_status db_plan_get(db *d, int64_t id, plan **out);
HF_MUST hf_status db_plan_heads(db *d, rec_plan_head **out, int *n); /* newest first; reads no JSON */

/* Runs. put inserts when id == 0, else updates the row. */
HF_MUST hf_status db_run_put(db *d, rec_run *r);
HF_MUST hf_status db_run_drop(db *d, int64_t id); /* and all rows of it; HF_OK also when there is none */
/* Those with status running that were written before: of programs that were killed. */
HF_MUST hf_status db_run_drop_running(db *d, int64_t before_ns);
HF_MUST hf_status db_run_get(db *d, int64_t id, rec_run *out);
HF_MUST hf_status db_run_list(db *d, rec_run **out, int *n); /* newest first */
HF_MUST hf_status db_request_put(db *d, const rec_request *r);
HF_MUST hf_status db_stage_put(db *d, const rec_stage *r);       /* upsert: adds steps, tokens, sums */
HF_MUST hf_status db_routing_put(db *d, const rec_routing *r);   /* upsert: adds count */
HF_MUST hf_status db_distinct_put(db *d, const rec_distinct *r); /* upsert: adds */
HF_MUST hf_status db_event_put(db *d, const rec_event *r);
HF_MUST hf_status db_request_list(db *d, int64_t run_id, rec_request **out, int *n);
HF_MUST hf_status db_stage_list(db *d, int64_t run_id, rec_stage **out, int *n);
HF_MUST hf_status db_routing_list(db *d, int64_t run_id, rec_routing **out, int *n);
HF_MUST hf_status db_distinct_list(db *d, int64_t run_id, rec_distinct **out, int *n);
HF_MUST hf_status db_event_list(db *d, int64_t run_id, rec_event **out, int *n);

/* Single trace events of a run (plan_id 0) or of the simulation of a plan (run_id 0); list: those of one of the two, by start. */
HF_MUST hf_status db_trace_put(db *d, int64_t run_id, int64_t plan_id, const rec_trace *r);
HF_MUST hf_status db_trace_list(db *d, int64_t run_id, int64_t plan_id, rec_trace **out, int *n);

/* Answers (docs/answers.md). put: always a new row, sets a->id; doc is JSON text of at most 64 MiB. get: *doc is the text, free(); HF_NOT_FOUND.
 * latest: the newest of a kind. list: newest first, kind NULL = all. */
HF_MUST hf_status db_answer_put(db *d, rec_answer *a, const char *doc);
HF_MUST hf_status db_answer_get(db *d, int64_t id, rec_answer *a, char **doc);
HF_MUST hf_status db_answer_latest(db *d, const char *kind, rec_answer *a, char **doc);
HF_MUST hf_status db_answer_list(db *d, const char *kind, rec_answer **out, int *n);

/* View run_error: signed_error = (predicted - measured) / measured, one row per run and metric (decode_tok_per_s, ttft_p50_s,
 * tpot_p50_s). Runs that are done or stopped, metrics where both numbers are above 0. */
typedef struct {
  int64_t run_id;
  char model[256], metric[32];
  double predicted, measured, signed_error;
} rec_signed_error;
HF_MUST hf_status db_signed_errors(db *d, int64_t run_id_or_0, rec_signed_error **out, int *n);
#endif
