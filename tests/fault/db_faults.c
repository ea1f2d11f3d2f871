/* The n-th allocation, read, write, sync or truncation fails: an error, never a damaged database, and nothing lost that was
 * committed.
 *
 * One scenario (open, migrate, write every kind of row, read back, close) is repeated with a fault a little later each time,
 * until it ends without meeting one. Before it, the file holds a committed base; after it, the file must be sound, hold the
 * base, and hold all or nothing of each call that the scenario reported as done.
 *
 * Faults come from three places: hf_alloc's own hook, an allocator under SQLite, and a file layer between SQLite and the disk.
 * The file layer fails either once or, like a disk that died, for good. */
#include <sqlite3.h>

#include "db/sql.h"
#include "tests/unit/db_common.h"

/* ---- SQLite's allocator ---- */

static sqlite3_mem_methods real_memory;
static long memory_calls, memory_fails_at;

static bool memory_fails(void) {
  return ++memory_calls == memory_fails_at;
}
static void *mem_malloc(int n) {
  return memory_fails() ? NULL : real_memory.xMalloc(n);
}
static void *mem_realloc(void *p, int n) {
  return memory_fails() ? NULL : real_memory.xRealloc(p, n);
}

/* ---- the file layer ---- */

typedef struct {
  sqlite3_file base;
  sqlite3_file *real; /* lies right behind */
} shim_file;

static sqlite3_vfs shim_vfs, *real_vfs;
static sqlite3_io_methods shim_methods;
static long io_calls, io_fails_at;
static bool io_dead; /* for good, not once */

static bool io_fails(void) {
  long call = ++io_calls;
  return io_fails_at && (io_dead ? call >= io_fails_at : call == io_fails_at);
}

static sqlite3_file *real_of(sqlite3_file *f) {
  return ((shim_file *)f)->real;
}

static int io_close(sqlite3_file *f) {
  return real_of(f)->pMethods->xClose(real_of(f));
}
static int io_read(sqlite3_file *f, void *p, int n, sqlite3_int64 at) {
  return io_fails() ? SQLITE_IOERR_READ : real_of(f)->pMethods->xRead(real_of(f), p, n, at);
}
/* A failing write has written half, and then the disk was full. */
static int io_write(sqlite3_file *f, const void *p, int n, sqlite3_int64 at) {
  if (!io_fails()) return real_of(f)->pMethods->xWrite(real_of(f), p, n, at);
  int rc = real_of(f)->pMethods->xWrite(real_of(f), p, n / 2, at);
  return rc == SQLITE_OK ? SQLITE_FULL : rc;
}
static int io_truncate(sqlite3_file *f, sqlite3_int64 n) {
  return io_fails() ? SQLITE_IOERR_TRUNCATE : real_of(f)->pMethods->xTruncate(real_of(f), n);
}
static int io_sync(sqlite3_file *f, int flags) {
  return io_fails() ? SQLITE_IOERR_FSYNC : real_of(f)->pMethods->xSync(real_of(f), flags);
}
static int io_size(sqlite3_file *f, sqlite3_int64 *n) {
  return io_fails() ? SQLITE_IOERR_FSTAT : real_of(f)->pMethods->xFileSize(real_of(f), n);
}
static int io_lock(sqlite3_file *f, int l) {
  return real_of(f)->pMethods->xLock(real_of(f), l);
}
static int io_unlock(sqlite3_file *f, int l) {
  return real_of(f)->pMethods->xUnlock(real_of(f), l);
}
static int io_reserved(sqlite3_file *f, int *out) {
  return real_of(f)->pMethods->xCheckReservedLock(real_of(f), out);
}
static int io_control(sqlite3_file *f, int op, void *p) {
  return real_of(f)->pMethods->xFileControl(real_of(f), op, p);
}
static int io_sector(sqlite3_file *f) {
  return real_of(f)->pMethods->xSectorSize(real_of(f));
}
static int io_traits(sqlite3_file *f) {
  return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}
static int io_shm_map(sqlite3_file *f, int page, int bytes, int extend, void volatile **out) {
  return io_fails() ? SQLITE_IOERR_SHMMAP : real_of(f)->pMethods->xShmMap(real_of(f), page, bytes, extend, out);
}
static int io_shm_lock(sqlite3_file *f, int at, int n, int flags) {
  return real_of(f)->pMethods->xShmLock(real_of(f), at, n, flags);
}
static void io_shm_barrier(sqlite3_file *f) {
  real_of(f)->pMethods->xShmBarrier(real_of(f));
}
static int io_shm_unmap(sqlite3_file *f, int remove) {
  return real_of(f)->pMethods->xShmUnmap(real_of(f), remove);
}

static int shim_open(sqlite3_vfs *v, const char *name, sqlite3_file *f, int flags, int *out) {
  shim_file *s = (shim_file *)f;
  (void)v;
  f->pMethods = NULL;
  s->real = (sqlite3_file *)(s + 1);
  if (io_fails()) return SQLITE_CANTOPEN;
  int rc = real_vfs->xOpen(real_vfs, name, s->real, flags, out);
  if (s->real->pMethods) f->pMethods = &shim_methods;
  return rc;
}

static void install_shim(void) {
  sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory);
  sqlite3_mem_methods counted = real_memory;
  counted.xMalloc = mem_malloc;
  counted.xRealloc = mem_realloc;
  assert_int_equal(sqlite3_config(SQLITE_CONFIG_MALLOC, &counted), SQLITE_OK);
  real_vfs = sqlite3_vfs_find(NULL);
  shim_vfs = *real_vfs;
  shim_vfs.zName = "faults";
  shim_vfs.szOsFile = (int)sizeof(shim_file) + real_vfs->szOsFile;
  shim_vfs.xOpen = shim_open;
  shim_vfs.pNext = NULL;
  shim_methods = (sqlite3_io_methods){.iVersion = 2,
                                      .xClose = io_close,
                                      .xRead = io_read,
                                      .xWrite = io_write,
                                      .xTruncate = io_truncate,
                                      .xSync = io_sync,
                                      .xFileSize = io_size,
                                      .xLock = io_lock,
                                      .xUnlock = io_unlock,
                                      .xCheckReservedLock = io_reserved,
                                      .xFileControl = io_control,
                                      .xSectorSize = io_sector,
                                      .xDeviceCharacteristics = io_traits,
                                      .xShmMap = io_shm_map,
                                      .xShmLock = io_shm_lock,
                                      .xShmBarrier = io_shm_barrier,
                                      .xShmUnmap = io_shm_unmap};
  assert_int_equal(sqlite3_vfs_register(&shim_vfs, 1), SQLITE_OK);
}

static void calm(void) {
  hf_fail_alloc_at(0);
  memory_fails_at = io_fails_at = 0;
}

/* ---- the scenario ---- */

enum { CALLS = 5 };

typedef struct {
  bool done[CALLS]; /* which calls said HF_OK: machine, run, group of counts, plan, update of the run */
} outcome;

static hf_status put_group(db *d, int64_t run) {
  HF_TRY(db_begin(d));
  hf_status st = HF_OK;
  for (int e = 0; e < 30 && st == HF_OK; e++) {
    rec_routing r = {run, 1, e, "decode", 7};
    st = db_routing_put(d, &r);
  }
  if (st == HF_OK) return db_commit(d);
  db_rollback(d);
  return st;
}

static hf_status read_back(db *d, int64_t run, const plan *p) {
  rec_routing *list;
  rec_run got;
  plan *q;
  int n;
  HF_TRY(db_routing_list(d, run, &list, &n));
  free(list);
  HF_TRY(db_run_get(d, run, &got));
  HF_TRY(db_plan_get(d, p->id, &q));
  plan_free(q);
  return HF_OK;
}

static hf_status act(db *d, const plan *base, outcome *o) {
  rec_machine m;
  rec_run r;
  plan p = *base;
  sample_machine(&m);
  sample_run(&r);
  strcpy(m.name, "scenario");
  r.steps = 4711;
  p.threads = 3;
  HF_TRY(db_machine_put(d, &m));
  o->done[0] = true;
  HF_TRY(db_run_put(d, &r));
  o->done[1] = true;
  HF_TRY(put_group(d, r.id));
  o->done[2] = true;
  HF_TRY(db_plan_put(d, &p));
  o->done[3] = true;
  strcpy(r.status, "done");
  HF_TRY(db_run_put(d, &r));
  o->done[4] = true;
  return read_back(d, r.id, &p);
}

static hf_status scenario(const char *path, const plan *base, outcome *o) {
  db *d;
  HF_TRY(db_open(path, true, &d));
  hf_status st = act(d, base, o);
  db_close(d);
  return st;
}

static int64_t ask(db *d, const char *sql) {
  sqlite3_stmt *s;
  assert_int_equal(sqlite3_prepare_v2(d->handle, sql, -1, &s, NULL), SQLITE_OK);
  assert_int_equal(sqlite3_step(s), SQLITE_ROW);
  int64_t v = sqlite3_column_int64(s, 0);
  sqlite3_finalize(s);
  return v;
}

static void assert_state(const char *path, const outcome *o) {
  db *d;
  CHECK_OK(db_open(path, true, &d));
  assert_int_equal(ask(d, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
  assert_int_equal(ask(d, "SELECT count(*) FROM pragma_foreign_key_check"), 0);
  if (ask(d, "SELECT count(*) FROM machine WHERE name = 'base'") != 1) fail_msg("the base is gone");
  int64_t have[CALLS] = {
      ask(d, "SELECT count(*) FROM machine WHERE name = 'scenario'"),
      ask(d, "SELECT count(*) FROM run WHERE steps = 4711"),
      ask(d, "SELECT count(*) FROM routing_count WHERE count = 7"),
      ask(d, "SELECT count(*) FROM plan WHERE id > 1"),
      ask(d, "SELECT count(*) FROM run WHERE steps = 4711 AND status = 'done'"),
  };
  static const int64_t whole[CALLS] = {1, 1, 30, 1, 1};
  for (int i = 0; i < CALLS; i++) {
    if (o->done[i]) assert_int_equal(have[i], whole[i]);
    assert_true(have[i] == 0 || have[i] == whole[i]); /* all or nothing */
  }
  /* A plan is whole: text and rows. */
  assert_int_equal(ask(d, "SELECT count(*) FROM plan WHERE json = ''"), 0);
  assert_int_equal(ask(d, "SELECT count(*) FROM plan_layer"), 3 * ask(d, "SELECT count(*) FROM plan"));
  db_close(d);
}

typedef struct {
  db_place place;
  plan *p;
  char *bytes;
  size_t n;
} fixture;

static int setup(void **state) {
  fixture *f = calloc(1, sizeof *f);
  db *d;
  rec_machine m;
  place_make(&f->place);
  f->p = sample_plan();
  CHECK_OK(db_open(f->place.path, true, &d));
  sample_machine(&m);
  strcpy(m.name, "base");
  CHECK_OK(db_machine_put(d, &m));
  CHECK_OK(db_plan_put(d, f->p));
  db_close(d);
  read_bytes(f->place.path, &f->bytes, &f->n);
  *state = f;
  return 0;
}

static int teardown(void **state) {
  fixture *f = *state;
  calm();
  place_remove(&f->place);
  plan_free(f->p);
  free(f->bytes);
  free(f);
  return 0;
}

/* The base anew, and no log of the last round. */
static void reset(fixture *f) {
  char name[300];
  static const char *const ends[] = {"-wal", "-shm", "-journal"};
  for (int i = 0; i < 3; i++) {
    snprintf(name, sizeof name, "%s%s", f->place.path, ends[i]);
    unlink(name);
  }
  write_bytes(f->place.path, f->bytes, f->n);
}

typedef struct {
  void (*arm)(long n);
  long (*calls)(void);
} fault;

/* Repeats the scenario with the fault at call 1, 1 + stride, ... of as many as it makes. */
static void repeat(fixture *f, fault what, long most_rounds) {
  outcome o = {{false}};
  long before = what.calls(), failed = 0, rounds = 0;
  CHECK_OK(scenario(f->place.path, f->p, &o));
  long calls = what.calls() - before, stride = calls / most_rounds + 1;
  for (long n = 1; n <= calls; n += stride, rounds++) {
    o = (outcome){{false}};
    reset(f);
    what.arm(n);
    hf_status st = scenario(f->place.path, f->p, &o);
    calm();
    if (st != HF_OK && st != HF_MACHINE && st != HF_INPUT) fail_msg("fault %ld: status %d: %s", n, st, hf_error_line());
    failed += st != HF_OK;
    assert_state(f->place.path, &o);
  }
  print_message("%ld calls, %ld faults, %ld of them reported\n", calls, rounds, failed);
  assert_true(failed > rounds / 4); /* the others SQLite got over by itself */
}

static void arm_alloc(long n) {
  hf_fail_alloc_at(n);
}
static void arm_memory(long n) {
  memory_fails_at = memory_calls + n;
}
static void arm_io_once(long n) {
  io_dead = false, io_fails_at = io_calls + n;
}
static void arm_io_dead(long n) {
  io_dead = true, io_fails_at = io_calls + n;
}
static long count_memory(void) {
  return memory_calls;
}
static long count_io(void) {
  return io_calls;
}

static void allocations(void **state) {
  repeat(*state, (fault){arm_alloc, hf_alloc_count}, 1000000);
}
static void allocations_of_sqlite(void **state) {
  repeat(*state, (fault){arm_memory, count_memory}, 250);
}
static void io_fails_once(void **state) {
  repeat(*state, (fault){arm_io_once, count_io}, 400);
}
static void io_fails_for_good(void **state) {
  repeat(*state, (fault){arm_io_dead, count_io}, 400);
}

/* A new file: whatever fails, the next try makes it. */
static void creation(void **state) {
  fixture *f = *state;
  for (int kind = 0; kind < 3; kind++) {
    long n = 1, stride = kind == 0 ? 13 : 1;
    for (hf_status st = HF_MACHINE; st != HF_OK || n < 60; n += stride) {
      db *d = NULL;
      f->n = 0;
      reset(f);
      unlink(f->place.path);
      (kind == 0 ? arm_memory : kind == 1 ? arm_io_once : arm_io_dead)(n);
      st = db_open(f->place.path, true, &d);
      db_close(st == HF_OK ? d : NULL);
      calm();
      CHECK_OK(db_open(f->place.path, true, &d));
      assert_int_equal(ask(d, "SELECT integrity_check = 'ok' FROM pragma_integrity_check"), 1);
      db_close(d);
      assert_true(n < 20000);
    }
  }
}

int main(void) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
  const struct CMUnitTest tests[] = {
      TEST(allocations), TEST(allocations_of_sqlite), TEST(io_fails_once), TEST(io_fails_for_good), TEST(creation),
  };
  install_shim();
  return cmocka_run_group_tests(tests, NULL, NULL);
}
