/* sql.h: the room's own layer over SQLite, not for other rooms. One prepared statement per SQL text and handle, records
 * described by column tables, one place that turns an SQLite result into hf_status.
 *
 * A db_table maps a record to columns by offset, so that reading and writing a record are loops and not lists of calls.
 * Statements for insert, update and list are composed from it; the pointer of the db_table (with the clause) is the key of the
 * statement cache, so tables and clauses must be static. */
#ifndef HF_DB_SQL_H
#define HF_DB_SQL_H
#include <sqlite3.h>
#include <stddef.h>

#include "db/db.h"

enum { DB_STATEMENTS = 96, DB_BUSY_MS = 10000, DB_APPLICATION_ID = 0x48464c57 /* "HFLW" */ };

typedef struct {
  const void *table; /* db_table, or NULL for a plain text */
  const char *clause;
  int verb;
  sqlite3_stmt *stmt;
} db_cached;

struct db {
  sqlite3 *handle;
  char path[1024];
  bool stand_in; /* handle is an empty database in memory: the file is made by the first write (db_make_file) */
  db_cached cache[DB_STATEMENTS];
  int n_cached;
};

typedef enum {
  DB_INT,  /* int */
  DB_BOOL, /* bool */
  DB_I64,  /* int64_t */
  DB_REF,  /* int64_t, 0 <-> NULL */
  DB_NUM,  /* double, finite */
  DB_TEXT, /* char[n], NUL-terminated inside */
  DB_TAG,  /* db_tag <-> its name */
  DB_KIND, /* machine_kind <-> its name */
} db_type;

typedef struct {
  const char *name;
  db_type type;
  size_t offset, bytes;
} db_col;

typedef struct {
  const char *name;  /* table or view */
  const db_col *col; /* a row id that SQLite assigns comes first and is DB_REF "id" */
  int n_col;
  size_t rec_bytes;
} db_table;

#define DB_COL_AS(rec, member, column, type) \
  { column, type, offsetof(rec, member), sizeof(((rec *)0)->member) }
#define DB_COL(rec, member, type) DB_COL_AS(rec, member, #member, type)
#define DB_TABLE(name, cols, rec) \
  { name, cols, (int)(sizeof(cols) / sizeof((cols)[0])), sizeof(rec) }

/* Starts a new trail for an SQLite result code: "PATH: WHAT: reason; remedy". */
HF_MUST hf_status db_fail(const db *d, int rc, const char *what);
/* Any text without result, several statements allowed. */
HF_MUST hf_status db_exec(db *d, const char *sql, const char *what);
/* Prepared once and kept; sql must be static. The statement comes reset and unbound. */
HF_MUST hf_status db_statement(db *d, const char *sql, sqlite3_stmt **out);
/* Steps a statement that returns no row, and resets it. */
HF_MUST hf_status db_done(db *d, sqlite3_stmt *s, const char *what);
/* Steps; *found tells whether there is a row. The caller resets with sqlite3_reset after reading it. */
HF_MUST hf_status db_row(db *d, sqlite3_stmt *s, const char *what, bool *found);

/* Inserts a record; `clause` (static, may be "") follows VALUES (...), for upserts. */
HF_MUST hf_status db_insert(db *d, const db_table *t, const char *clause, const void *rec);
/* Like it for a table whose first column is the row id: inserts when that is 0 and sets it, else updates (HF_NOT_FOUND). */
HF_MUST hf_status db_put(db *d, const db_table *t, void *rec);
/* One record: clause is "WHERE ..." with ?1 bound to key (an integer). HF_NOT_FOUND says "no NAME KEY". */
HF_MUST hf_status db_get(db *d, const db_table *t, const char *clause, int64_t key, void *rec);
/* All records of a clause, ?1 bound to key, as one allocation; *out is NULL when *n is 0. */
HF_MUST hf_status db_list(db *d, const db_table *t, const char *clause, int64_t key, void *out_ptr, int *n);
/* The record of the statement's current row, columns in the table's order. */
HF_MUST hf_status db_read(const db *d, const db_table *t, sqlite3_stmt *s, void *rec);
/* SELECT of all columns with a clause. */
HF_MUST hf_status db_select(db *d, const db_table *t, const char *clause, sqlite3_stmt **out);

/* Turns a stand-in into the file it stands for; all statements prepared so far end. Does nothing for any other handle. */
HF_MUST hf_status db_make_file(db *d);
void db_end_statements(db *d);

/* A transaction inside a call: its own, or a savepoint of the caller's. End with db_leave(d, own, st), which commits on HF_OK,
 * takes everything back otherwise, and returns the status of all. */
HF_MUST hf_status db_enter(db *d, bool *own);
HF_MUST hf_status db_leave(db *d, bool own, hf_status st);

/* schema.c: the newest version; the steps that lead a file from version `from` to `to`; whether a file's schema is the one
 * that its version should have. */
int db_schema_version(void);
HF_MUST hf_status db_migrate(db *d, int from, int to);
HF_MUST hf_status db_check_schema(db *d, int version);
/* Adds the model's row when it is new. */
HF_MUST hf_status db_model_seen(db *d, const char *name, const char *family, int n_layers, int n_experts);
#endif
