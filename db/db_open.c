/* db_open.c: opening, creating and migrating the file, without ever changing one that is not ours.
 *
 *   probe      the first 100 bytes, before SQLite looks: magic, application_id, version. Refuses foreign and newer files.
 *   attach     SQLite opens it. If a log was left behind it is not folded in at close until the file has been accepted.
 *   admit      application_id and version as SQLite sees them (they may still be in the log), and the schema, word for word.
 *   migrate    missing steps, in one transaction; a new file is version 0 and goes the same way. Still in rollback-journal
 *   mode when
 *              new, so that the first page on disk always carries the application_id.
 *   settle     WAL, foreign keys, synchronous=FULL.
 *
 * Where the file is missing or empty and may be created, an empty database in memory stands in for it until something is written:
 * a question that turns out to be bad, or one that only reads, leaves nothing behind. The first write goes the way above.
 *
 * Why FULL: in WAL mode NORMAL survives kill -9 as well, but may lose the last commits on power loss. Measured on a virtual
 * disk: a commit of 1 row takes 6.4 ms with FULL and 0.1 ms with NORMAL, one of 1000 rows 19 and 13 ms. One thread that is not
 * on the hot path writes rows in batches a few times a second at most, so FULL costs nothing that anybody waits for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "db/sql.h"

enum { HEADER_BYTES = 100, OFFSET_VERSION = 60, OFFSET_APPLICATION = 68 };

/* ---- where ---- */

static hf_status make_folders(const char *path) {
  char part[1024];
  snprintf(part, sizeof part, "%s", path);
  for (char *p = part + 1; *p; p++) {
    if (*p != '/') continue;
    *p = 0;
    if (mkdir(part, 0700) != 0 && errno != EEXIST)
      return hf_fail(HF_INPUT, "%s: cannot create: %s; use --db", part, strerror(errno));
    *p = '/';
  }
  return HF_OK;
}

/* Where the database is when nobody says; length as of snprintf, 0 when no variable tells. */
static int data_path(char *out, size_t n) {
  const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
  if (data && data[0] == '/') return snprintf(out, n, "%s/heteroflow/heteroflow.db", data);
  if (home && home[0] == '/') return snprintf(out, n, "%s/.local/share/heteroflow/heteroflow.db", home);
  return 0;
}

hf_status db_default_path(const char *option, char *out, size_t n) {
  const char *given = option ? option : getenv("HETEROFLOW_DB");
  if (option && !*option) return hf_fail(HF_INPUT, "option --db: the file name is empty");
  int len = given && *given ? snprintf(out, n, "%s", given) : data_path(out, n);
  if (len == 0)
    return hf_fail(HF_INPUT,
                   "no place for the database: neither --db, HETEROFLOW_DB, XDG_DATA_HOME nor HOME is set; use --db FILE");
  if (len < 0 || (size_t)len >= n) return hf_fail(HF_INPUT, "the path of the database is longer than %zu bytes; use --db", n - 1);
  return HF_OK;
}

/* The user's data folder is ours to make; any other has to be there. */
static bool is_data_path(const char *path) {
  char own[1024];
  int len = data_path(own, sizeof own);
  return len > 0 && (size_t)len < sizeof own && strcmp(path, own) == 0;
}

/* ---- probe ---- */

static uint32_t big_endian(const unsigned char *p) {
  return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static hf_status not_ours(const char *path) {
  return hf_fail(HF_INPUT, "%s: not a HeteroFlow database; it was left as it is, name another file with --db", path);
}

static hf_status check_version(const char *path, int64_t version) {
  int newest = db_schema_version();
  if (version < 0) return not_ours(path);
  if (version <= newest) return HF_OK;
  return hf_fail(HF_INPUT, "%s: schema version %lld is newer than this program's, %d; use a newer HeteroFlow or another file",
                 path, (long long)version, newest);
}

/* The first bytes, read through SQLite's own file layer: a plain open and close here would drop every POSIX lock that this
 * process has on the file through another handle. *n is less than HEADER_BYTES when the file is shorter. */
static hf_status read_header(const db *d, unsigned char *head, size_t *n) {
  sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
  sqlite3_file *file;
  sqlite3_int64 size = 0;
  char full[2048];
  int rc = vfs && vfs->mxPathname < (int)sizeof full ? vfs->xFullPathname(vfs, d->path, sizeof full, full) : SQLITE_CANTOPEN;
  if ((rc & 0xff) != SQLITE_OK) return db_fail(d, SQLITE_CANTOPEN, "opening");
  sqlite3_filename name = sqlite3_create_filename(full, "", "", 0, NULL);
  if (!name) return db_fail(d, SQLITE_NOMEM, "opening");
  hf_status st = hf_alloc(&file, 1, (size_t)vfs->szOsFile, "database file");
  if (st != HF_OK) goto out;
  rc = vfs->xOpen(vfs, name, file, SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_READONLY, NULL);
  if (rc == SQLITE_OK) rc = file->pMethods->xFileSize(file, &size);
  *n = size < HEADER_BYTES ? (size_t)size : HEADER_BYTES;
  if (rc == SQLITE_OK && *n > 0) rc = file->pMethods->xRead(file, head, (int)*n, 0);
  if (file->pMethods) file->pMethods->xClose(file);
  free(file);
  if (rc != SQLITE_OK) st = db_fail(d, rc, "reading the header");
out:
  sqlite3_free_filename(name);
  return st;
}

/* A missing or empty file is fine when it may be created. *log: a write-ahead log with content lies beside it. */
static hf_status probe(const db *d, bool create, bool *log) {
  char beside[1100];
  unsigned char head[HEADER_BYTES] = {0};
  struct stat info;
  size_t n = 0;
  snprintf(beside, sizeof beside, "%s-wal", d->path);
  *log = stat(beside, &info) == 0 && info.st_size > 0;
  if (stat(d->path, &info) != 0) {
    if (errno != ENOENT) return hf_fail(HF_INPUT, "%s: cannot open: %s", d->path, strerror(errno));
    if (create) return HF_OK;
    return hf_fail(HF_NOT_FOUND, "%s: no such database; " DB_BEGIN ", or name another file with --db", d->path);
  }
  if (!S_ISREG(info.st_mode)) return hf_fail(HF_INPUT, "%s: not a regular file; name another with --db", d->path);
  HF_TRY(read_header(d, head, &n));
  if (n == 0 && info.st_size == 0 && !*log) { /* SQLite takes a file of one byte for an empty one, too, and would write over it */
    return create ? HF_OK : hf_fail(HF_NOT_FOUND, "%s: an empty file, no database yet; " DB_BEGIN, d->path);
  }
  bool ours =
      n == HEADER_BYTES && memcmp(head, "SQLite format 3", 16) == 0 && big_endian(head + OFFSET_APPLICATION) == DB_APPLICATION_ID;
  return ours ? check_version(d->path, (int32_t)big_endian(head + OFFSET_VERSION)) : not_ours(d->path);
}

/* ---- attach and admit ---- */

static hf_status attach(db *d, bool create, bool log) {
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | (create ? SQLITE_OPEN_CREATE : 0);
  int rc = sqlite3_open_v2(d->path, &d->handle, flags, NULL);
  if (rc != SQLITE_OK) return db_fail(d, rc, "opening");
  sqlite3_extended_result_codes(d->handle, 1);
  sqlite3_busy_timeout(d->handle, DB_BUSY_MS);
  sqlite3_db_config(d->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, log ? 1 : 0, NULL);
  sqlite3_db_config(d->handle, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
  sqlite3_db_config(d->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
  sqlite3_limit(d->handle, SQLITE_LIMIT_LENGTH, 256 << 20);
  return db_exec(d, "PRAGMA cell_size_check = ON; PRAGMA foreign_keys = ON; PRAGMA synchronous = FULL", "opening");
}

static hf_status pragma_int(db *d, const char *sql, int64_t *out) {
  sqlite3_stmt *s;
  bool found;
  HF_TRY(db_statement(d, sql, &s));
  HF_TRY(db_row(d, s, "reading the header", &found));
  *out = found ? sqlite3_column_int64(s, 0) : 0;
  sqlite3_reset(s);
  return HF_OK;
}

/* Version of the file as SQLite sees it; 0 for an empty one. */
static hf_status admit(db *d, int *version) {
  int64_t pages, application, v;
  HF_TRY(pragma_int(d, "PRAGMA page_count", &pages));
  HF_TRY(pragma_int(d, "PRAGMA application_id", &application));
  HF_TRY(pragma_int(d, "PRAGMA user_version", &v));
  *version = 0;
  if (pages == 0) return HF_OK;
  if (application != DB_APPLICATION_ID) return not_ours(d->path);
  HF_TRY(check_version(d->path, v));
  *version = (int)v;
  return db_check_schema(d, *version);
}

/* ---- migrate and settle ---- */

static hf_status migrate_steps(db *d, int to) {
  int64_t have;
  char sql[96];
  HF_TRY(pragma_int(d, "PRAGMA user_version", &have)); /* again: another program may have been faster */
  if (have >= to) return HF_OK;
  HF_TRY(db_migrate(d, (int)have, to));
  sqlite3_stmt *s;
  bool broken;
  HF_TRY(db_statement(d, "PRAGMA foreign_key_check", &s));
  HF_TRY(db_row(d, s, "checking references", &broken));
  sqlite3_reset(s);
  if (broken) return hf_fail(HF_INPUT, "%s: rows refer to rows that do not exist; the database is damaged", d->path);
  snprintf(sql, sizeof sql, "PRAGMA application_id = %d; PRAGMA user_version = %d", DB_APPLICATION_ID, to);
  return db_exec(d, sql, "setting the schema version");
}

static hf_status migrate(db *d, int from, int to) {
  HF_TRY(db_begin(d));
  hf_status st = db_leave(d, true, migrate_steps(d, to));
  return from == 0 ? hf_note(st, "creating the database") : hf_note(st, "migrating from schema version %d", from);
}

/* SQLite does not wait when a journal mode is busy to change, so this does. */
static hf_status set_wal(db *d) {
  int64_t deadline = hf_now_ns() + DB_BUSY_MS * INT64_C(1000000);
  for (;;) {
    sqlite3_stmt *s = NULL;
    int rc = sqlite3_prepare_v2(d->handle, "PRAGMA journal_mode = WAL", -1, &s, NULL);
    if (rc == SQLITE_OK) rc = sqlite3_step(s);
    sqlite3_finalize(s);
    /* A file system without shared memory answers with the old mode: slower, but as safe. A read-only file can still be read. */
    if (rc == SQLITE_ROW || rc == SQLITE_DONE || (rc & 0xff) == SQLITE_READONLY) return HF_OK;
    if ((rc & 0xff) != SQLITE_BUSY || hf_now_ns() > deadline) return db_fail(d, rc, "switching to WAL");
    usleep(2000);
  }
}

static hf_status open_file(db *d, bool create, bool log) {
  int version, newest = db_schema_version();
  HF_TRY(attach(d, create, log));
  HF_TRY(admit(d, &version));
  if (version == 0 && !create) return hf_fail(HF_NOT_FOUND, "%s: an empty database; " DB_BEGIN, d->path);
  if (version < newest) HF_TRY(migrate(d, version, newest));
  HF_TRY(set_wal(d));
  sqlite3_db_config(d->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
  return HF_OK;
}

/* ---- stand-in ---- */

/* Could the file be made? Found out before anything is computed for it. */
static hf_status check_place(const db *d) {
  char folder[1024];
  if (is_data_path(d->path)) return HF_OK;
  snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(d->path, '/') - d->path) + 1, d->path);
  if (access(folder, F_OK) != 0) return db_fail(d, SQLITE_CANTOPEN, "opening");
  bool there = access(d->path, F_OK) == 0;
  return access(there ? d->path : folder, W_OK) == 0 ? HF_OK : db_fail(d, SQLITE_READONLY, "opening");
}

static hf_status stand_in(db *d) {
  int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_MEMORY | SQLITE_OPEN_NOMUTEX;
  HF_TRY(check_place(d));
  int rc = sqlite3_open_v2(":memory:", &d->handle, flags, NULL);
  if (rc != SQLITE_OK) return db_fail(d, rc, "opening");
  sqlite3_extended_result_codes(d->handle, 1);
  HF_TRY(migrate(d, 0, db_schema_version()));
  d->stand_in = true;
  return HF_OK;
}

hf_status db_make_file(db *d) {
  bool log;
  if (!d->stand_in) return HF_OK;
  if (is_data_path(d->path)) HF_TRY(make_folders(d->path));
  sqlite3 *memory = d->handle;
  db_end_statements(d);
  d->handle = NULL;
  d->stand_in = false;
  hf_status st = probe(d, true, &log); /* again: another program may have been faster */
  if (st == HF_OK) st = open_file(d, true, log);
  if (st == HF_OK) {
    sqlite3_close(memory);
    return HF_OK;
  }
  db_end_statements(d);
  sqlite3_close(d->handle);
  d->handle = memory;
  d->stand_in = true;
  return st;
}

static hf_status open_steps(db *d, bool create) {
  bool log;
  struct stat info;
  HF_TRY(probe(d, create, &log));
  bool nothing = stat(d->path, &info) != 0 || info.st_size == 0;
  return nothing && create && !log ? stand_in(d) : open_file(d, create, log);
}

hf_status db_open(const char *path, bool create, db **out) {
  if (!path || !*path) return hf_fail(HF_INPUT, "the name of the database file is empty; use --db FILE");
  if (strlen(path) > 1000) return hf_fail(HF_INPUT, "%.60s...: the path of the database is longer than 1000 bytes", path);
  db *d;
  HF_TRY(hf_alloc(&d, 1, sizeof *d, "database handle"));
  /* "./" so that no name means something special to SQLite (":memory:"). */
  snprintf(d->path, sizeof d->path, "%s%s", strchr(path, '/') ? "" : "./", path);
  hf_status st = open_steps(d, create);
  if (st != HF_OK) {
    db_close(d);
    return st;
  }
  *out = d;
  return HF_OK;
}

void db_close(db *d) {
  if (!d) return;
  db_end_statements(d);
  sqlite3_close(d->handle);
  free(d);
}
