/* schema.c: the steps that make a schema, and the check that a file has the one it claims.
 *
 * The check matters because a schema is program text: a file from a stranger could carry triggers or views that SQLite would
 * run for us. A fresh schema of the same version is built in memory (about 2 ms) and every object of it must be in the file,
 * word for word; triggers are refused. Indexes, tables and views that somebody added are left alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/embed.h"
#include "db/sql.h"

static const hf_embedded *find_step(int version) {
  char name[40];
  snprintf(name, sizeof name, "migrations/%04d.sql", version);
  const char *want = version == 1 ? "schema.sql" : name;
  for (const hf_embedded *e = hf_embedded_sql; e->name; e++) {
    if (strcmp(e->name, want) == 0) return e;
  }
  return NULL;
}

int db_schema_version(void) {
  int v = 1;
  while (find_step(v + 1)) v++;
  return v;
}

hf_status db_migrate(db *d, int from, int to) {
  for (int v = from + 1; v <= to; v++) {
    char what[64];
    snprintf(what, sizeof what, "making schema version %d", v);
    HF_TRY(db_exec(d, find_step(v)->text, what));
  }
  return HF_OK;
}

static hf_status check_object(db *d, sqlite3_stmt *want, sqlite3_stmt *have) {
  const char *name = (const char *)sqlite3_column_text(want, 1), *sql = (const char *)sqlite3_column_text(want, 2);
  bool found;
  sqlite3_reset(have);
  int rc = sqlite3_bind_value(have, 1, sqlite3_column_value(want, 0));
  if (rc == SQLITE_OK) rc = sqlite3_bind_value(have, 2, sqlite3_column_value(want, 1));
  if (rc != SQLITE_OK || !name || !sql) return db_fail(d, SQLITE_NOMEM, "checking the schema");
  HF_TRY(db_row(d, have, "checking the schema", &found));
  const char *there = found ? (const char *)sqlite3_column_text(have, 0) : NULL;
  if (!there || strcmp(there, sql) != 0) {
    return hf_fail(HF_INPUT, "%s: schema: %s is %s; this is no HeteroFlow database, or somebody changed it", d->path, name,
                   there ? "not as its version has it" : "missing");
  }
  return HF_OK;
}

static hf_status check_objects(db *d, db *fresh) {
  sqlite3_stmt *want, *have, *triggers;
  bool found;
  HF_TRY(db_statement(d, "SELECT name FROM sqlite_schema WHERE type = 'trigger'", &triggers));
  HF_TRY(db_row(d, triggers, "checking the schema", &found));
  sqlite3_reset(triggers);
  if (found) return hf_fail(HF_INPUT, "%s: schema: it has triggers, a HeteroFlow database has none", d->path);
  HF_TRY(db_statement(d, "SELECT sql FROM sqlite_schema WHERE type = ?1 AND name = ?2", &have));
  HF_TRY(
      db_statement(fresh, "SELECT type, name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'", &want));
  hf_status st = HF_OK;
  while (st == HF_OK) {
    HF_GO(out, db_row(fresh, want, "checking the schema", &found));
    if (!found) break;
    st = check_object(d, want, have);
  }
out:
  sqlite3_reset(have);
  sqlite3_reset(want);
  return st;
}

hf_status db_check_schema(db *d, int version) {
  db *fresh;
  HF_TRY(hf_alloc(&fresh, 1, sizeof *fresh, "schema check"));
  snprintf(fresh->path, sizeof fresh->path, "%s", d->path);
  int rc = sqlite3_open_v2(":memory:", &fresh->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, NULL);
  hf_status st = rc == SQLITE_OK ? HF_OK : db_fail(fresh, rc, "checking the schema");
  if (st == HF_OK) st = db_migrate(fresh, 0, version);
  if (st == HF_OK) st = check_objects(d, fresh);
  db_close(fresh);
  return st;
}
