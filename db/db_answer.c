/* db_answer.c: answers to questions. The JSON text is the answer; the columns beside it are for finding it. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "db/sql.h"

static const db_col head_cols[] = {
    DB_COL(rec_answer, id, DB_REF),
    DB_COL(rec_answer, kind, DB_TEXT),
    DB_COL(rec_answer, created_ns, DB_I64),
    DB_COL(rec_answer, title, DB_TEXT),
};
static const db_table head_table = DB_TABLE("answer", head_cols, rec_answer);

static int bind_text(sqlite3_stmt *s, int i, const char *text) {
  return sqlite3_bind_text(s, i, text, -1, SQLITE_STATIC);
}

hf_status db_answer_put(db *d, rec_answer *a, const char *doc) {
  static const char sql[] = "INSERT INTO answer (kind, created_ns, title, doc) VALUES (?1, ?2, ?3, ?4)";
  sqlite3_stmt *s;
  if (strlen(doc) > PLAN_MAX_BYTES) return hf_fail(HF_INPUT, "%s: an answer of %zu bytes is too long", d->path, strlen(doc));
  a->kind[sizeof a->kind - 1] = a->title[sizeof a->title - 1] = '\0';
  if (a->created_ns == 0) a->created_ns = hf_wall_ns();
  HF_TRY(db_statement(d, sql, &s));
  int rc = bind_text(s, 1, a->kind);
  if (rc == SQLITE_OK) rc = sqlite3_bind_int64(s, 2, a->created_ns);
  if (rc == SQLITE_OK) rc = bind_text(s, 3, a->title);
  if (rc == SQLITE_OK) rc = bind_text(s, 4, doc);
  if (rc != SQLITE_OK) return db_fail(d, rc, "answer");
  HF_TRY(db_done(d, s, "answer"));
  a->id = sqlite3_last_insert_rowid(d->handle);
  return HF_OK;
}

hf_status db_answer_get(db *d, int64_t id, rec_answer *a, char **doc) {
  sqlite3_stmt *s;
  bool found;
  HF_TRY(db_get(d, &head_table, "WHERE id = ?1", id, a));
  HF_TRY(db_statement(d, "SELECT doc FROM answer WHERE id = ?1", &s));
  int rc = sqlite3_bind_int64(s, 1, id);
  if (rc != SQLITE_OK) return db_fail(d, rc, "answer");
  HF_TRY(db_row(d, s, "answer", &found));
  const char *text = found ? (const char *)sqlite3_column_text(s, 0) : NULL;
  *doc = text != NULL ? strdup(text) : NULL;
  sqlite3_reset(s);
  if (*doc != NULL) return HF_OK;
  return found ? hf_fail(HF_MACHINE, "out of memory: an answer")
               : hf_fail(HF_NOT_FOUND, "%s: no answer %lld", d->path, (long long)id);
}

static hf_status newest_id(db *d, const char *kind, int64_t *id) {
  sqlite3_stmt *s;
  bool found;
  HF_TRY(db_statement(d, "SELECT id FROM answer WHERE kind = ?1 ORDER BY id DESC LIMIT 1", &s));
  int rc = bind_text(s, 1, kind);
  if (rc != SQLITE_OK) return db_fail(d, rc, "answer");
  HF_TRY(db_row(d, s, "answer", &found));
  *id = found ? sqlite3_column_int64(s, 0) : 0;
  sqlite3_reset(s);
  return found ? HF_OK : hf_fail(HF_NOT_FOUND, "%s: no answer of kind %s yet; run hf-plan %s first", d->path, kind, kind);
}

hf_status db_answer_latest(db *d, const char *kind, rec_answer *a, char **doc) {
  int64_t id = 0;
  HF_TRY(newest_id(d, kind, &id));
  return db_answer_get(d, id, a, doc);
}

hf_status db_answer_list(db *d, const char *kind, rec_answer **out, int *n) {
  rec_answer *all = NULL;
  int count = 0, kept = 0;
  HF_TRY(db_list(d, &head_table, "ORDER BY id DESC", 0, &all, &count));
  for (int i = 0; i < count; i++)
    if (kind == NULL || strcmp(all[i].kind, kind) == 0) all[kept++] = all[i];
  *out = all;
  *n = kept;
  return HF_OK;
}
