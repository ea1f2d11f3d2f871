#include "db/sql.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VERB_TEXT, VERB_INSERT, VERB_UPDATE, VERB_SELECT };

/* A file beside the database (its -shm) that cannot grow is an I/O error to SQLite. */
static bool disk_full(const db *d, int rc, int full) {
  const int of_system = d->handle ? sqlite3_system_errno(d->handle) : 0;
  return (rc & 0xff) == SQLITE_FULL ||
         ((rc & 0xff) == SQLITE_IOERR && (full == SQLITE_IOERR_SHMSIZE || of_system == ENOSPC || of_system == EDQUOT));
}

hf_status db_fail(const db *d, int rc, const char *what) {
  int full = d->handle ? sqlite3_extended_errcode(d->handle) : rc;
  const char *detail = d->handle && (full & 0xff) == (rc & 0xff) ? sqlite3_errmsg(d->handle) : sqlite3_errstr(rc);
  if (disk_full(d, rc, full))
    return hf_fail(HF_MACHINE, "%s: %s: the disk is full; free some space and try again", d->path, what);
  switch (rc & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL: /* gave up in a race for the write-ahead log's locks */
      return hf_fail(HF_MACHINE, "%s: %s: database is locked by another program; wait for it to end and try again", d->path,
                     what);
    case SQLITE_NOMEM: return hf_fail(HF_MACHINE, "%s: %s: out of memory", d->path, what);
    case SQLITE_IOERR:
      if (full == SQLITE_IOERR_NOMEM) return hf_fail(HF_MACHINE, "%s: %s: out of memory", d->path, what);
      return hf_fail(HF_MACHINE, "%s: %s: %s (code %d); check the disk", d->path, what, detail, full);
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return hf_fail(HF_INPUT, "%s: %s: the file or its folder is read-only; give write permission or another --db", d->path,
                     what);
    case SQLITE_CANTOPEN:
      return hf_fail(HF_INPUT, "%s: %s: cannot open or create it (or a file beside it); check the folder and its permissions",
                     d->path, what);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return hf_fail(HF_INPUT, "%s: %s: the database is damaged (%s); restore a copy or name another file", d->path, what,
                     detail);
    case SQLITE_CONSTRAINT:
    case SQLITE_MISMATCH:
    case SQLITE_TOOBIG:
    case SQLITE_RANGE: return hf_fail(HF_INPUT, "%s: %s: row refused: %s", d->path, what, detail);
    default: return hf_fail(HF_INPUT, "%s: %s: %s (code %d)", d->path, what, detail, full);
  }
}

hf_status db_exec(db *d, const char *sql, const char *what) {
  int rc = sqlite3_exec(d->handle, sql, NULL, NULL, NULL);
  return rc == SQLITE_OK ? HF_OK : db_fail(d, rc, what);
}

/* ---- statements ---- */

static sqlite3_stmt *cache_find(db *d, const void *table, const char *clause, int verb) {
  for (int i = 0; i < d->n_cached; i++) {
    db_cached *c = &d->cache[i];
    if (c->table == table && c->clause == clause && c->verb == verb) {
      sqlite3_reset(c->stmt);
      sqlite3_clear_bindings(c->stmt);
      return c->stmt;
    }
  }
  return NULL;
}

static hf_status cache_add(db *d, const void *table, const char *clause, int verb, const char *sql, sqlite3_stmt **out) {
  if (d->n_cached == DB_STATEMENTS) return hf_fail(HF_MACHINE, "%s: more than %d kinds of statements", d->path, DB_STATEMENTS);
  sqlite3_stmt *s = NULL;
  int rc = sqlite3_prepare_v3(d->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &s, NULL);
  if (rc != SQLITE_OK) return db_fail(d, rc, "preparing a statement");
  if (d->stand_in && sqlite3_stmt_readonly(s) == 0) { /* the first write */
    sqlite3_finalize(s);
    HF_TRY(db_make_file(d));
    return cache_add(d, table, clause, verb, sql, out);
  }
  d->cache[d->n_cached++] = (db_cached){table, clause, verb, s};
  *out = s;
  return HF_OK;
}

hf_status db_statement(db *d, const char *sql, sqlite3_stmt **out) {
  *out = cache_find(d, NULL, sql, VERB_TEXT);
  return *out ? HF_OK : cache_add(d, NULL, sql, VERB_TEXT, sql, out);
}

void db_end_statements(db *d) {
  for (int i = 0; i < d->n_cached; i++) sqlite3_finalize(d->cache[i].stmt);
  d->n_cached = 0;
}

static bool has_row_id(const db_table *t) {
  return t->col[0].type == DB_REF && strcmp(t->col[0].name, "id") == 0;
}

static hf_status compose(const db_table *t, const char *clause, int verb, hf_buf *b) {
  int first = verb == VERB_UPDATE ? 1 : 0;
  HF_TRY(hf_buf_printf(b, "%s ", verb == VERB_INSERT ? "INSERT INTO" : verb == VERB_UPDATE ? "UPDATE" : "SELECT"));
  if (verb != VERB_SELECT) HF_TRY(hf_buf_printf(b, "%s %s", t->name, verb == VERB_INSERT ? "(" : "SET "));
  for (int i = first; i < t->n_col; i++) {
    HF_TRY(hf_buf_printf(b, "%s%s", i > first ? ", " : "", t->col[i].name));
    if (verb == VERB_UPDATE) HF_TRY(hf_buf_printf(b, " = ?%d", i + 1));
  }
  if (verb == VERB_UPDATE) return hf_buf_printf(b, " WHERE id = ?1");
  if (verb == VERB_SELECT) return hf_buf_printf(b, " FROM %s %s", t->name, clause);
  HF_TRY(hf_buf_printf(b, ") VALUES ("));
  for (int i = 0; i < t->n_col; i++) HF_TRY(hf_buf_printf(b, "%s?%d", i ? ", " : "", i + 1));
  return hf_buf_printf(b, ") %s", clause);
}

static hf_status table_statement(db *d, const db_table *t, const char *clause, int verb, sqlite3_stmt **out) {
  *out = cache_find(d, t, clause, verb);
  if (*out) return HF_OK;
  hf_buf b;
  hf_buf_init(&b, 8192);
  hf_status st = compose(t, clause, verb, &b);
  if (st == HF_OK) st = cache_add(d, t, clause, verb, b.data, out);
  hf_buf_free(&b);
  return st;
}

hf_status db_done(db *d, sqlite3_stmt *s, const char *what) {
  int rc = sqlite3_step(s);
  hf_status st = rc == SQLITE_DONE || rc == SQLITE_ROW ? HF_OK : db_fail(d, rc, what);
  sqlite3_reset(s);
  return st;
}

hf_status db_row(db *d, sqlite3_stmt *s, const char *what, bool *found) {
  int rc = sqlite3_step(s);
  *found = rc == SQLITE_ROW;
  if (rc == SQLITE_ROW) return HF_OK;
  hf_status st = rc == SQLITE_DONE ? HF_OK : db_fail(d, rc, what);
  sqlite3_reset(s);
  return st;
}

/* ---- records ---- */

static const char *const kind_names[] = {"measured", "catalog", "whatif"};
enum { KIND_N = sizeof(kind_names) / sizeof(kind_names[0]) };

static hf_status bind_text(const db *d, const db_table *t, const db_col *c, sqlite3_stmt *s, int i, const char *text) {
  size_t n = strnlen(text, c->bytes);
  if (n == c->bytes)
    return hf_fail(HF_INPUT, "%s: %s.%s: text without an end within %zu bytes", d->path, t->name, c->name, c->bytes);
  int rc = sqlite3_bind_text(s, i, text, (int)n, SQLITE_STATIC);
  return rc == SQLITE_OK ? HF_OK : db_fail(d, rc, t->name);
}

static hf_status bind_name(const db *d, const db_table *t, const db_col *c, sqlite3_stmt *s, int i, const char *name) {
  if (!name) return hf_fail(HF_INPUT, "%s: %s.%s: no such value", d->path, t->name, c->name);
  int rc = sqlite3_bind_text(s, i, name, -1, SQLITE_STATIC);
  return rc == SQLITE_OK ? HF_OK : db_fail(d, rc, t->name);
}

static hf_status bind_num(const db *d, const db_table *t, const db_col *c, sqlite3_stmt *s, int i, double v) {
  if (!isfinite(v)) return hf_fail(HF_INPUT, "%s: %s.%s: not a finite number", d->path, t->name, c->name);
  int rc = sqlite3_bind_double(s, i, v);
  return rc == SQLITE_OK ? HF_OK : db_fail(d, rc, t->name);
}

static hf_status bind_int(const db *d, const db_table *t, sqlite3_stmt *s, int i, int64_t v, bool null) {
  int rc = null ? sqlite3_bind_null(s, i) : sqlite3_bind_int64(s, i, v);
  return rc == SQLITE_OK ? HF_OK : db_fail(d, rc, t->name);
}

static hf_status bind_col(const db *d, const db_table *t, const db_col *c, sqlite3_stmt *s, int i, const void *p) {
  switch (c->type) {
    case DB_INT: return bind_int(d, t, s, i, *(const int *)p, false);
    case DB_BOOL: return bind_int(d, t, s, i, *(const bool *)p, false);
    case DB_I64: return bind_int(d, t, s, i, *(const int64_t *)p, false);
    case DB_REF: return bind_int(d, t, s, i, *(const int64_t *)p, *(const int64_t *)p == 0);
    case DB_NUM: return bind_num(d, t, c, s, i, *(const double *)p);
    case DB_TEXT: return bind_text(d, t, c, s, i, p);
    case DB_TAG: return bind_name(d, t, c, s, i, db_tag_name(*(const db_tag *)p));
    case DB_KIND: {
      unsigned k = *(const machine_kind *)p;
      return bind_name(d, t, c, s, i, k < KIND_N ? kind_names[k] : NULL);
    }
  }
  return hf_fail(HF_INPUT, "%s.%s: unknown column type", t->name, c->name);
}

static hf_status bind_rec(const db *d, const db_table *t, sqlite3_stmt *s, const void *rec) {
  for (int i = 0; i < t->n_col; i++) HF_TRY(bind_col(d, t, &t->col[i], s, i + 1, (const char *)rec + t->col[i].offset));
  return HF_OK;
}

static hf_status bad_value(const db *d, const db_table *t, const db_col *c) {
  return hf_fail(HF_INPUT, "%s: table %s, column %s: a value that no HeteroFlow program writes; the database is damaged", d->path,
                 t->name, c->name);
}

static hf_status read_text(const db *d, const db_table *t, const db_col *c, sqlite3_stmt *s, int i, char *out) {
  const unsigned char *text = sqlite3_column_text(s, i);
  size_t n = (size_t)sqlite3_column_bytes(s, i);
  if (!text && sqlite3_column_type(s, i) == SQLITE_TEXT) return db_fail(d, SQLITE_NOMEM, t->name);
  if (!text || n >= c->bytes || memchr(text, 0, n)) return bad_value(d, t, c);
  memcpy(out, text, n + 1);
  return HF_OK;
}

static int name_index(const unsigned char *text, const char *const *names, int n) {
  for (int i = 0; text && i < n; i++) {
    if (strcmp((const char *)text, names[i]) == 0) return i;
  }
  return -1;
}

static hf_status read_name(const db *d, const db_table *t, const db_col *c, sqlite3_stmt *s, int i, void *p) {
  const unsigned char *text = sqlite3_column_text(s, i);
  if (!text && sqlite3_column_type(s, i) == SQLITE_TEXT) return db_fail(d, SQLITE_NOMEM, t->name);
  const char *tags[TAG_N];
  for (int k = 0; k < TAG_N; k++) tags[k] = db_tag_name((db_tag)k);
  int k = c->type == DB_TAG ? name_index(text, tags, TAG_N) : name_index(text, kind_names, KIND_N);
  if (k < 0) return bad_value(d, t, c);
  if (c->type == DB_TAG) {
    *(db_tag *)p = (db_tag)k;
  } else {
    *(machine_kind *)p = (machine_kind)k;
  }
  return HF_OK;
}

static hf_status read_col(const db *d, const db_table *t, const db_col *c, sqlite3_stmt *s, int i, void *p) {
  int type = sqlite3_column_type(s, i);
  int64_t v = sqlite3_column_int64(s, i);
  if (c->type == DB_TEXT) return read_text(d, t, c, s, i, p);
  if (c->type == DB_TAG || c->type == DB_KIND) return read_name(d, t, c, s, i, p);
  if (c->type == DB_NUM) {
    double x = sqlite3_column_double(s, i);
    if (type != SQLITE_FLOAT || !isfinite(x)) return bad_value(d, t, c);
    *(double *)p = x;
    return HF_OK;
  }
  if (type != SQLITE_INTEGER && !(c->type == DB_REF && type == SQLITE_NULL)) return bad_value(d, t, c);
  if (c->type == DB_INT) {
    if (v < -1 || v > INT32_MAX) return bad_value(d, t, c); /* -1: "no layer", the only negative number in the schema */
    *(int *)p = (int)v;
  } else if (c->type == DB_BOOL) {
    if (v != 0 && v != 1) return bad_value(d, t, c);
    *(bool *)p = v == 1;
  } else {
    if (v < 0) return bad_value(d, t, c);
    *(int64_t *)p = v;
  }
  return HF_OK;
}

hf_status db_read(const db *d, const db_table *t, sqlite3_stmt *s, void *rec) {
  for (int i = 0; i < t->n_col; i++) HF_TRY(read_col(d, t, &t->col[i], s, i, (char *)rec + t->col[i].offset));
  return HF_OK;
}

hf_status db_insert(db *d, const db_table *t, const char *clause, const void *rec) {
  sqlite3_stmt *s;
  HF_TRY(table_statement(d, t, clause, VERB_INSERT, &s));
  HF_TRY(bind_rec(d, t, s, rec));
  return db_done(d, s, t->name);
}

static const char no_clause[] = "";

hf_status db_put(db *d, const db_table *t, void *rec) {
  int64_t *id = (int64_t *)((char *)rec + t->col[0].offset);
  if (!has_row_id(t)) return hf_fail(HF_INPUT, "%s: table %s has no row id", d->path, t->name);
  if (*id == 0) {
    HF_TRY(db_insert(d, t, no_clause, rec));
    *id = sqlite3_last_insert_rowid(d->handle);
    return HF_OK;
  }
  sqlite3_stmt *s;
  HF_TRY(table_statement(d, t, no_clause, VERB_UPDATE, &s));
  HF_TRY(bind_rec(d, t, s, rec));
  HF_TRY(db_done(d, s, t->name));
  if (sqlite3_changes(d->handle) == 0) return hf_fail(HF_NOT_FOUND, "%s: no %s %lld", d->path, t->name, (long long)*id);
  return HF_OK;
}

hf_status db_select(db *d, const db_table *t, const char *clause, sqlite3_stmt **out) {
  return table_statement(d, t, clause, VERB_SELECT, out);
}

hf_status db_get(db *d, const db_table *t, const char *clause, int64_t key, void *rec) {
  sqlite3_stmt *s;
  bool found;
  HF_TRY(db_select(d, t, clause, &s));
  HF_TRY(bind_int(d, t, s, 1, key, false));
  HF_TRY(db_row(d, s, t->name, &found));
  if (!found) return hf_fail(HF_NOT_FOUND, "%s: no %s %lld", d->path, t->name, (long long)key);
  hf_status st = db_read(d, t, s, rec);
  sqlite3_reset(s);
  return st;
}

static hf_status list_rows(db *d, const db_table *t, sqlite3_stmt *s, char **rows, size_t *n) {
  size_t cap = 0;
  for (;;) {
    bool found;
    HF_TRY(db_row(d, s, t->name, &found));
    if (!found) return HF_OK;
    if (*n == INT32_MAX) return hf_fail(HF_INPUT, "%s: table %s has too many rows", d->path, t->name);
    if (*n == cap) {
      cap = cap ? cap * 2 : 16;
      HF_TRY(hf_realloc(rows, cap, t->rec_bytes, t->name));
    }
    char *rec = *rows + *n * t->rec_bytes;
    memset(rec, 0, t->rec_bytes);
    HF_TRY(db_read(d, t, s, rec));
    (*n)++;
  }
}

hf_status db_list(db *d, const db_table *t, const char *clause, int64_t key, void *out_ptr, int *n) {
  sqlite3_stmt *s;
  char *rows = NULL;
  size_t count = 0;
  HF_TRY(db_select(d, t, clause, &s));
  if (sqlite3_bind_parameter_count(s) > 0) HF_TRY(bind_int(d, t, s, 1, key, false));
  hf_status st = list_rows(d, t, s, &rows, &count);
  sqlite3_reset(s);
  if (st != HF_OK) {
    free(rows);
    return st;
  }
  *(char **)out_ptr = rows;
  *n = (int)count;
  return HF_OK;
}

/* ---- transactions ---- */

hf_status db_begin(db *d) {
  HF_TRY(db_make_file(d));
  return db_exec(d, "BEGIN IMMEDIATE", "begin");
}

hf_status db_commit(db *d) {
  hf_status st = db_exec(d, "COMMIT", "commit");
  /* A commit that failed for want of space or by an I/O error leaves the transaction open: end it, so that the handle stays
   * usable. */
  if (st != HF_OK) db_rollback(d);
  return st;
}

void db_rollback(db *d) {
  if (!sqlite3_get_autocommit(d->handle)) sqlite3_exec(d->handle, "ROLLBACK", NULL, NULL, NULL);
}

hf_status db_enter(db *d, bool *own) {
  *own = sqlite3_get_autocommit(d->handle) != 0;
  return *own ? db_begin(d) : db_exec(d, "SAVEPOINT part", "savepoint");
}

hf_status db_leave(db *d, bool own, hf_status st) {
  if (own && st == HF_OK) return db_commit(d);
  if (own) {
    db_rollback(d);
    return st;
  }
  if (st == HF_OK) return db_exec(d, "RELEASE part", "release");
  /* After a full disk SQLite may have ended the whole transaction by itself; then there is no savepoint to go back to. */
  if (!sqlite3_get_autocommit(d->handle)) sqlite3_exec(d->handle, "ROLLBACK TO part; RELEASE part", NULL, NULL, NULL);
  return st;
}
