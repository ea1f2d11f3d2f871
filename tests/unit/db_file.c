/* The file: created, migrated, shared, and left alone when it is not ours. */
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "db/sql.h"
#include "tests/unit/db_common.h"

static void raw_exec(sqlite3 *h, const char *sql) {
  char *message = NULL;
  if (sqlite3_exec(h, sql, NULL, NULL, &message) != SQLITE_OK) fail_msg("%s: %s", sql, message);
}

static sqlite3 *raw_open(const char *path) {
  sqlite3 *h;
  assert_int_equal(sqlite3_open(path, &h), SQLITE_OK);
  return h;
}

static int64_t raw_int(const char *path, const char *sql) {
  sqlite3 *h = raw_open(path);
  sqlite3_stmt *s;
  assert_int_equal(sqlite3_prepare_v2(h, sql, -1, &s, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(s), SQLITE_ROW);
  int64_t v = sqlite3_column_int64(s, 0);
  sqlite3_finalize(s);
  sqlite3_close(h);
  return v;
}

/* All of the schema as one text. */
static void schema_text(const char *path, char *out, size_t n) {
  sqlite3 *h = raw_open(path);
  sqlite3_stmt *s;
  size_t len = 0;
  assert_int_equal(sqlite3_prepare_v2(h, "SELECT type, name, sql FROM sqlite_schema ORDER BY type, name", -1, &s, NULL),
                   SQLITE_OK);
  while (sqlite3_step(s) == SQLITE_ROW) {
    const char *sql = (const char *)sqlite3_column_text(s, 2);
    len +=
        (size_t)snprintf(out + len, n - len, "%s %s %s\n", sqlite3_column_text(s, 0), sqlite3_column_text(s, 1), sql ? sql : "");
    assert_true(len < n);
  }
  sqlite3_finalize(s);
  sqlite3_close(h);
}

static bool exists(const char *path, const char *end) {
  char name[600];
  snprintf(name, sizeof name, "%s%s", path, end);
  return access(name, F_OK) == 0;
}

static void make_new(const char *path) {
  db *d;
  rec_machine m;
  sample_machine(&m);
  CHECK_OK(db_open(path, true, &d));
  CHECK_OK(db_machine_put(d, &m));
  db_close(d);
}

/* Opening must fail with `want`, say which file, and change no byte of it nor leave anything beside it. */
static void assert_refused(const char *path, hf_status want, const char *word) {
  char *before, *after;
  size_t n, m;
  read_bytes(path, &before, &n);
  for (int create = 0; create < 2; create++) {
    db *d = NULL;
    hf_status st = db_open(path, create, &d);
    if (st != want || !strstr(hf_error_line(), path) || !strstr(hf_error_line(), word)) {
      fail_msg("status %d, '%s' (wanted %d, '%s')", st, st ? hf_error_line() : "", want, word);
    }
    assert_null(d);
    read_bytes(path, &after, &m);
    assert_int_equal(n, m);
    assert_memory_equal(before, after, n);
    assert_false(exists(path, "-wal"));
    assert_false(exists(path, "-shm"));
    assert_false(exists(path, "-journal"));
    free(after);
  }
  free(before);
}

static void created(void **state) {
  db_place *p = *state;
  db *d = NULL;
  char *bytes;
  size_t n;
  assert_int_equal(db_open(p->path, false, &d), HF_NOT_FOUND);
  assert_false(exists(p->path, ""));
  make_new(p->path);
  read_bytes(p->path, &bytes, &n);
  assert_memory_equal(bytes, "SQLite format 3", 16);
  assert_memory_equal(bytes + 68, "HFLW", 4);
  assert_int_equal(bytes[18], 2); /* WAL */
  free(bytes);
  assert_false(exists(p->path, "-wal"));
  assert_int_equal(raw_int(p->path, "PRAGMA user_version"), db_schema_version());
  CHECK_OK(db_open(p->path, false, &d));
  rec_machine m;
  CHECK_OK(db_machine_find(d, "box", &m));
  db_close(d);
  assert_string_equal(sqlite3_libversion_number() >= 3037000 ? "STRICT" : "too old", "STRICT");
  assert_int_equal(raw_int(p->path,
                           "SELECT count(*) FROM pragma_table_list WHERE schema = 'main' AND type = 'table' AND strict = 0 "
                           "AND name NOT LIKE 'sqlite_%'"),
                   0);
}

static void empty_file(void **state) {
  db_place *p = *state;
  db *d = NULL;
  write_bytes(p->path, "", 0);
  assert_int_equal(db_open(p->path, false, &d), HF_NOT_FOUND);
  make_new(p->path);
  CHECK_OK(db_open(p->path, false, &d));
  db_close(d);
}

/* Created by the first write only: what reads, or never comes so far, leaves nothing. */
static void no_file_before_a_write(void **state) {
  db_place *p = *state;
  db *d, *other;
  rec_machine m, *list = NULL;
  int n = 1;
  CHECK_OK(db_open(p->path, true, &d));
  CHECK_OK(db_machine_list(d, &list, &n));
  assert_int_equal(n, 0);
  assert_int_equal(db_machine_find(d, "box", &m), HF_NOT_FOUND);
  db_close(d);
  assert_false(exists(p->path, ""));
  CHECK_OK(db_open(p->path, true, &d));
  CHECK_OK(db_open(p->path, true, &other));
  CHECK_OK(db_begin(d)); /* a transaction is a write */
  assert_true(exists(p->path, ""));
  sample_machine(&m);
  CHECK_OK(db_machine_put(d, &m));
  CHECK_OK(db_commit(d));
  strcpy(m.name, "second");
  m.id = 0;
  CHECK_OK(db_machine_put(other, &m)); /* finds the file that was made meanwhile */
  assert_int_equal(m.id, 2);
  db_close(other);
  CHECK_OK(db_machine_list(d, &list, &n));
  assert_int_equal(n, 2);
  free(list);
  db_close(d);
  assert_int_equal(unlink(p->path), 0);
  write_bytes(p->path, "", 0); /* an empty one stays empty */
  CHECK_OK(db_open(p->path, true, &d));
  db_close(d);
  char *bytes;
  size_t size;
  read_bytes(p->path, &bytes, &size);
  assert_int_equal(size, 0);
  free(bytes);
}

/* The place turns bad between opening and writing: an error, and the handle is as before. */
static void place_gone(void **state) {
  db_place *p = *state;
  db *d;
  rec_machine m;
  char path[700], folder[600];
  snprintf(folder, sizeof folder, "%s/sub", p->folder);
  snprintf(path, sizeof path, "%s/x.db", folder);
  assert_int_equal(mkdir(folder, 0700), 0);
  CHECK_OK(db_open(path, true, &d));
  assert_int_equal(rmdir(folder), 0);
  sample_machine(&m);
  assert_int_equal(db_machine_put(d, &m), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "x.db"));
  assert_int_equal(db_machine_find(d, "box", &m), HF_NOT_FOUND);
  assert_int_equal(mkdir(folder, 0700), 0);
  sample_machine(&m);
  CHECK_OK(db_machine_put(d, &m));
  db_close(d);
  assert_int_equal(unlink(path), 0);
  assert_int_equal(rmdir(folder), 0);
}

static void odd_names(void **state) {
  db_place *p = *state;
  db *d = NULL;
  char here[1000];
  assert_non_null(getcwd(here, sizeof here));
  assert_int_equal(chdir(p->folder), 0);
  make_new(":memory:"); /* is a file like any other */
  assert_true(exists(":memory:", ""));
  make_new("file:x?mode=memory");
  assert_true(exists("file:x?mode=memory", ""));
  assert_int_equal(chdir(here), 0);
  assert_int_equal(db_open("", true, &d), HF_INPUT);
  assert_int_equal(db_open(p->folder, true, &d), HF_INPUT);
  assert_int_equal(db_open("/dev/null", true, &d), HF_INPUT);
  assert_int_equal(db_open("/nowhere/at/all/x.db", true, &d), HF_INPUT);
  db_close(NULL);
}

static void not_ours(void **state) {
  db_place *p = *state;
  static char noise[5000];
  for (size_t i = 0; i < sizeof noise; i++) noise[i] = (char)(i * 2654435761u >> 13);
  write_bytes(p->path, "hello\n", 6);
  assert_refused(p->path, HF_INPUT, "not a HeteroFlow database");
  write_bytes(p->path, noise, sizeof noise);
  assert_refused(p->path, HF_INPUT, "not a HeteroFlow database");
  memcpy(noise, "SQLite format 3", 16);
  memcpy(noise + 68, "HFLW\0\0\0\2", 8);
  memset(noise + 60, 0, 8);
  write_bytes(p->path, noise, sizeof noise); /* claims to be ours */
  assert_refused(p->path, HF_INPUT, "damaged");
  unlink(p->path);
  sqlite3 *h = raw_open(p->path);
  raw_exec(h, "CREATE TABLE t (a); INSERT INTO t VALUES (1)");
  sqlite3_close(h);
  assert_refused(p->path, HF_INPUT, "not a HeteroFlow database");
}

/* Another program's file whose last rows are still in its log: neither may change. */
static void not_ours_with_log(void **state) {
  db_place *p = *state;
  char wal[300], *a, *b, *c, *e;
  size_t na, nb, nc, ne;
  db *d = NULL;
  sqlite3 *h = raw_open(p->path);
  sqlite3_db_config(h, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
  raw_exec(h, "PRAGMA journal_mode = WAL; CREATE TABLE t (a); INSERT INTO t VALUES (1)");
  sqlite3_close(h);
  snprintf(wal, sizeof wal, "%s-wal", p->path);
  read_bytes(p->path, &a, &na);
  read_bytes(wal, &b, &nb);
  assert_true(nb > 0);
  assert_int_equal(db_open(p->path, true, &d), HF_INPUT);
  read_bytes(p->path, &c, &nc);
  read_bytes(wal, &e, &ne);
  assert_int_equal(na, nc);
  assert_memory_equal(a, c, na);
  assert_int_equal(nb, ne);
  assert_memory_equal(b, e, nb);
  free(a), free(b), free(c), free(e);
}

static void changed_schema(void **state) {
  db_place *p = *state;
  static const char *const changes[] = {
      "CREATE TRIGGER t AFTER INSERT ON machine BEGIN DELETE FROM machine; END",
      "DROP TABLE request",
      "DROP VIEW run_error; CREATE VIEW run_error AS SELECT 1 AS run_id, '' AS model, '' AS metric, 1.0 AS predicted, 1.0 AS "
      "measured, "
      "1.0 AS signed_error",
      "DROP TABLE event; CREATE TABLE event (id INTEGER PRIMARY KEY, run_id, at_ns, recovery_ns, kind, detail)",
  };
  for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
    unlink(p->path);
    make_new(p->path);
    sqlite3 *h = raw_open(p->path);
    raw_exec(h, changes[i]);
    raw_exec(h, "PRAGMA journal_mode = DELETE");
    sqlite3_close(h);
    assert_refused(p->path, HF_INPUT, "schema");
  }
  unlink(p->path);
  make_new(p->path);
  sqlite3 *h = raw_open(p->path); /* what an operator may add */
  raw_exec(h, "CREATE INDEX mine ON run (model); CREATE VIEW my_runs AS SELECT * FROM run; ANALYZE; VACUUM");
  sqlite3_close(h);
  db *d;
  CHECK_OK(db_open(p->path, false, &d));
  db_close(d);
}

static void newer_version(void **state) {
  db_place *p = *state;
  char sql[64], word[64];
  make_new(p->path);
  sqlite3 *h = raw_open(p->path);
  snprintf(sql, sizeof sql, "PRAGMA user_version = %d", db_schema_version() + 1);
  snprintf(word, sizeof word, "schema version %d is newer", db_schema_version() + 1);
  raw_exec(h, sql);
  sqlite3_close(h);
  assert_refused(p->path, HF_INPUT, word);
  h = raw_open(p->path);
  raw_exec(h, "PRAGMA user_version = -7");
  sqlite3_close(h);
  assert_refused(p->path, HF_INPUT, "not a HeteroFlow database");
}

/* The new version is only in the log yet, the header of the file still has the old one. */
static void newer_version_in_log(void **state) {
  db_place *p = *state;
  db *d = NULL;
  char *before, *after;
  size_t n, m;
  make_new(p->path);
  sqlite3 *h = raw_open(p->path);
  sqlite3_db_config(h, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
  raw_exec(h, "PRAGMA user_version = 99");
  sqlite3_close(h);
  read_bytes(p->path, &before, &n);
  assert_int_equal(db_open(p->path, true, &d), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "99"));
  read_bytes(p->path, &after, &m);
  assert_int_equal(n, m);
  assert_memory_equal(before, after, n);
  free(before), free(after);
}

static void damaged(void **state) {
  db_place *p = *state;
  char *bytes;
  size_t n;
  make_new(p->path);
  read_bytes(p->path, &bytes, &n);
  write_bytes(p->path, bytes, n / 2);
  assert_refused(p->path, HF_INPUT, "damaged");
  write_bytes(p->path, bytes, 100);
  assert_refused(p->path, HF_INPUT, "");
  write_bytes(p->path, bytes, 99);
  assert_refused(p->path, HF_INPUT, "not a HeteroFlow database");
  /* Every page in turn overwritten: either refused at once, or an error when its rows are asked for; never anything else. */
  for (size_t page = 0; page < n / 4096; page++) {
    db *d = NULL;
    rec_machine *list = NULL;
    int count = 0;
    char *hurt = malloc(n);
    memcpy(hurt, bytes, n);
    memset(hurt + page * 4096 + (page ? 0 : 100), 0xa5, 4096 - (page ? 0 : 100));
    write_bytes(p->path, hurt, n);
    hf_status st = db_open(p->path, false, &d);
    if (st == HF_OK) {
      st = db_machine_list(d, &list, &count);
      if (st == HF_OK) assert_int_equal(count, 1);
    }
    if (st != HF_OK) assert_int_equal(st, HF_INPUT);
    if (st != HF_OK) assert_non_null(strstr(hf_error_line(), p->path));
    free(list);
    db_close(d);
    free(hurt);
  }
  free(bytes);
}

/* Values of a run as version 1 had them, in the order of its columns. */
#define RUN_OF_VERSION_1 \
  "7, NULL, 7, 'm', 'q8_0', 'none', 'prompts', 1, 1, 1, 1, 8, 8, 8, 1, 1, 8, 8, 8, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 'done'"

static void make_version_1(const char *path, const char *more) {
  char *sql;
  size_t n;
  sqlite3 *h = raw_open(path);
  read_bytes("db/schema.sql", &sql, &n);
  raw_exec(h, sql);
  raw_exec(h, "PRAGMA application_id = 1212566615; PRAGMA user_version = 1;"
              "INSERT INTO machine VALUES (7, 'old', 'catalog', 5, '{}'); INSERT INTO model VALUES ('m', '', 0, 0);");
  if (more) raw_exec(h, more);
  sqlite3_close(h);
  free(sql);
}

static void migrated(void **state) {
  db_place *p = *state;
  db *d;
  rec_machine m;
  rec_run r;
  rec_link_point *links;
  rec_trace t = {.source = "run", .stage = "attn", .resource = "gpu0", .end_ns = 1}, *list;
  int n;
  char fresh[300], *a = malloc(1 << 18), *b = malloc(1 << 18);
  make_version_1(p->path, "INSERT INTO run VALUES (" RUN_OF_VERSION_1 ");"
                          "INSERT INTO link_curve VALUES (7, 'host', '@there', 0, '', 64, 1, 2, 3, 9, 'measured'),"
                          " (7, 'host', '@there', 0, 'paused', 4096, 4, 5, 6, 9, 'measured')");
  CHECK_OK(db_open(p->path, false, &d));
  CHECK_OK(db_link_list(d, 7, &links, &n)); /* nobody noted which belong together */
  assert_int_equal(n, 2);
  assert_true(links[0].bytes == 64 && links[0].ns == 2 && links[0].measurement == 0);
  assert_true(links[1].bytes == 4096 && links[1].ns_high == 6 && links[1].measurement == 0);
  assert_string_equal(links[1].load, "paused");
  links[0].measurement = 1764500000123456789;
  CHECK_OK(db_link_put(d, &links[0]));
  free(links);
  CHECK_OK(db_link_list(d, 7, &links, &n));
  assert_true(n == 3 && links[2].measurement == 1764500000123456789 && links[0].measurement == 0);
  free(links);
  CHECK_OK(db_machine_find(d, "old", &m));
  assert_int_equal(m.id, 7);
  CHECK_OK(db_run_get(d, 7, &r));
  assert_true(r.other_cpu_share == -1 && r.wall_s == 1); /* nobody looked */
  sample_run(&r);
  r.machine_id = 7;
  CHECK_OK(db_run_put(d, &r));
  CHECK_OK(db_trace_put(d, r.id, 0, &t)); /* a table that version 1 had not */
  CHECK_OK(db_trace_list(d, r.id, 0, &list, &n));
  assert_int_equal(n, 1);
  free(list);
  db_close(d);
  assert_int_equal(raw_int(p->path, "PRAGMA user_version"), db_schema_version());
  snprintf(fresh, sizeof fresh, "%s/fresh.db", p->folder);
  make_new(fresh);
  schema_text(p->path, a, 1 << 18);
  schema_text(fresh, b, 1 << 18);
  assert_string_equal(a, b);
  free(a), free(b);
}

/* A step that cannot be done leaves the file at its old version, byte for byte. */
static void migration_fails(void **state) {
  db_place *p = *state;
  make_version_1(p->path, "CREATE TABLE trace (mine)");
  assert_refused(p->path, HF_INPUT, "version 2");
  assert_int_equal(raw_int(p->path, "PRAGMA user_version"), 1);
  unlink(p->path);
  make_version_1(p->path, "PRAGMA foreign_keys = OFF; INSERT INTO device VALUES (99, 'gpu0', 'gpu', 'x', 1, 1)");
  assert_refused(p->path, HF_INPUT, "rows");
}

static void two_handles(void **state) {
  db_place *p = *state;
  db *a, *b;
  rec_machine m, got;
  make_new(p->path);
  CHECK_OK(db_open(p->path, true, &a));
  CHECK_OK(db_open(p->path, true, &b));
  sample_machine(&m);
  strcpy(m.name, "second");
  CHECK_OK(db_begin(a));
  CHECK_OK(db_machine_put(a, &m));
  assert_int_equal(db_machine_find(b, "second", &got), HF_NOT_FOUND); /* not committed yet; readers do not wait */
  sqlite3_busy_timeout(b->handle, 20);
  assert_int_equal(db_begin(b), HF_MACHINE);
  assert_non_null(strstr(hf_error_line(), "locked by another program"));
  CHECK_OK(db_commit(a));
  CHECK_OK(db_machine_find(b, "second", &got));
  CHECK_OK(db_begin(b));
  CHECK_OK(db_commit(b));
  db_close(a);
  db_close(b);
}

/* Opening and closing a second handle must not drop the locks of the first (POSIX locks go with any close of the file). */
static void locks_stay(void **state) {
  db_place *p = *state;
  db *a, *b;
  rec_machine m;
  int status;
  make_new(p->path);
  CHECK_OK(db_open(p->path, true, &a));
  CHECK_OK(db_machine_find(a, "box", &m));
  CHECK_OK(db_open(p->path, true, &b));
  db_close(b);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0x40000000, .l_len = 512};
    int fd = open(p->path, O_RDWR);
    _exit(fd >= 0 && fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? 0 : 1);
  }
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  db_close(a);
}

static void full_disk(void **state) {
  db_place *p = *state;
  db *d;
  rec_machine m, *list;
  int n;
  make_new(p->path);
  CHECK_OK(db_open(p->path, true, &d));
  raw_exec(d->handle, "PRAGMA max_page_count = 1"); /* as many as there are: SQLITE_FULL from now on */
  sample_machine(&m);
  memset(m.facts_json, 'x', sizeof m.facts_json - 1);
  hf_status st = HF_OK;
  int stored = 0;
  for (; st == HF_OK && stored < 100; stored++) {
    m.id = 0;
    st = db_machine_put(d, &m);
  }
  assert_int_equal(st, HF_MACHINE);
  assert_non_null(strstr(hf_error_line(), "full"));
  assert_int_equal(m.id, 0);
  CHECK_OK(db_machine_list(d, &list, &n));
  assert_int_equal(n, stored);
  free(list);
  db_close(d);
}

static void default_path(void **state) {
  db_place *p = *state;
  char out[600], want[600], small[10];
  setenv("HETEROFLOW_DB", "/x/y.db", 1);
  CHECK_OK(db_default_path("given.db", out, sizeof out));
  assert_string_equal(out, "given.db");
  CHECK_OK(db_default_path(NULL, out, sizeof out));
  assert_string_equal(out, "/x/y.db");
  unsetenv("HETEROFLOW_DB");
  setenv("XDG_DATA_HOME", p->folder, 1);
  CHECK_OK(db_default_path(NULL, out, sizeof out));
  snprintf(want, sizeof want, "%s/heteroflow/heteroflow.db", p->folder);
  assert_string_equal(out, want);
  make_new(out);
  assert_int_equal(unlink(out), 0);
  *strrchr(want, '/') = 0;
  assert_int_equal(rmdir(want), 0);
  assert_int_equal(db_default_path(NULL, small, sizeof small), HF_INPUT);
  assert_int_equal(db_default_path("", out, sizeof out), HF_INPUT);
  setenv("XDG_DATA_HOME", "relative", 1); /* to be ignored by its specification */
  setenv("HOME", p->folder, 1);
  CHECK_OK(db_default_path(NULL, out, sizeof out));
  snprintf(want, sizeof want, "%s/.local/share/heteroflow/heteroflow.db", p->folder);
  assert_string_equal(out, want);
  assert_false(exists(p->folder, "/.local")); /* naming a place makes nothing */
  make_new(out);
  assert_int_equal(unlink(out), 0);
  for (int i = 0; i < 3; i++) {
    *strrchr(want, '/') = 0;
    assert_int_equal(rmdir(want), 0);
  }
  unsetenv("HOME");
  assert_int_equal(db_default_path(NULL, out, sizeof out), HF_INPUT);
}

static int setup(void **state) {
  db_place *p = calloc(1, sizeof *p);
  place_make(p);
  *state = p;
  return 0;
}

static int teardown(void **state) {
  place_remove(*state);
  free(*state);
  return 0;
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      TEST(created),   TEST(empty_file),        TEST(no_file_before_a_write), TEST(place_gone),    TEST(odd_names),
      TEST(not_ours),  TEST(not_ours_with_log), TEST(changed_schema),         TEST(newer_version), TEST(newer_version_in_log),
      TEST(damaged),   TEST(migrated),          TEST(migration_fails),        TEST(two_handles),   TEST(locks_stay),
      TEST(full_disk), TEST(default_path),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
