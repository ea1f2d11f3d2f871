/* kill -9 at any moment loses no committed row; several programs write at once. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "db/sql.h"
#include "tests/unit/db_common.h"

enum { KILLS = 24, CREATION_KILLS = 40, WRITERS = 3, ROWS = 60 };

static void assert_sound(db *d) {
  sqlite3_stmt *s;
  bool found;
  CHECK_OK(db_statement(d, "PRAGMA integrity_check", &s));
  CHECK_OK(db_row(d, s, "integrity check", &found));
  assert_string_equal((const char *)sqlite3_column_text(s, 0), "ok");
  sqlite3_reset(s);
  CHECK_OK(db_statement(d, "PRAGMA foreign_key_check", &s));
  CHECK_OK(db_row(d, s, "reference check", &found));
  sqlite3_reset(s);
  assert_false(found);
}

/* Every commit is a run, its routing counts and, now and then, a plan. The run's id goes into the pipe after the commit. */
static hf_status commit_rows(db *d, int out) {
  plan *p = sample_plan();
  for (int i = 0;; i++) {
    rec_run r;
    sample_run(&r);
    r.steps = i;
    HF_TRY(db_begin(d));
    HF_TRY(db_run_put(d, &r));
    for (int e = 0; e < 40; e++) {
      rec_routing c = {r.id, i % 60, e, "decode", r.id + e};
      HF_TRY(db_routing_put(d, &c));
    }
    if (i % 8 == 0) HF_TRY(db_plan_put(d, p));
    HF_TRY(db_commit(d));
    if (write(out, &r.id, sizeof r.id) != sizeof r.id) return hf_fail(HF_MACHINE, "pipe: %s", strerror(errno));
  }
}

static pid_t start_writer(const char *path, int fds[2]) {
  assert_int_equal(pipe(fds), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    db *d;
    close(fds[0]);
    hf_status st = db_open(path, true, &d);
    if (st == HF_OK) st = commit_rows(d, fds[1]);
    fprintf(stderr, "writer: %s\n", hf_error_line());
    _exit(1);
  }
  close(fds[1]);
  return child;
}

static void pause_us(long us) {
  struct timespec t = {us / 1000000, us % 1000000 * 1000};
  while (nanosleep(&t, &t) != 0 && errno == EINTR) continue;
}

/* The last id that the child reported; it was killed by us and by nothing else. */
static int64_t kill_and_drain(pid_t child, int in, int64_t last) {
  int status;
  kill(child, SIGKILL);
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  int64_t id;
  while (read(in, &id, sizeof id) == sizeof id) last = id;
  close(in);
  return last;
}

static void committed_rows_stay(void **state) {
  db_place *p = *state;
  unsigned seed = 12345;
  int64_t total = 0;
  for (int k = 0; k < KILLS; k++) {
    int fds[2];
    int64_t last = 0;
    pid_t child = start_writer(p->path, fds);
    assert_int_equal(read(fds[0], &last, sizeof last), sizeof last);
    seed = seed * 1103515245 + 12345;
    pause_us(seed / 65536 % 20000);
    last = kill_and_drain(child, fds[0], last);
    db *d;
    rec_routing *counts;
    int n;
    CHECK_OK(db_open(p->path, false, &d));
    for (int64_t id = total + 1; id <= last; id++) {
      rec_run r;
      CHECK_OK(db_run_get(d, id, &r));
      CHECK_OK(db_routing_list(d, id, &counts, &n));
      assert_int_equal(n, 40);
      for (int e = 0; e < 40; e++) assert_int_equal(counts[e].count, id + e);
      free(counts);
    }
    assert_true(last > total);
    assert_sound(d);
    rec_run *runs; /* one more may have been committed than was reported; nothing else */
    CHECK_OK(db_run_list(d, &runs, &n));
    assert_true(runs[0].id == last || runs[0].id == last + 1);
    total = runs[0].id;
    assert_int_equal(n, total);
    free(runs);
    db_close(d);
  }
  print_message("%d kills, %lld commits\n", KILLS, (long long)total);
}

/* Killed while the file is being made: the next program finishes or begins anew. */
static void killed_at_birth(void **state) {
  db_place *p = *state;
  for (int k = 0; k < CREATION_KILLS; k++) {
    int fds[2];
    pid_t child = start_writer(p->path, fds);
    pause_us(k * 400);
    int64_t last = kill_and_drain(child, fds[0], 0), n = 0;
    db *d;
    rec_run *runs;
    int count;
    CHECK_OK(db_open(p->path, true, &d));
    assert_sound(d);
    CHECK_OK(db_run_list(d, &runs, &count));
    n = count;
    assert_true(n == last || n == last + 1);
    free(runs);
    db_close(d);
    unlink(p->path);
  }
}

static hf_status write_some(const char *path, int writer) {
  db *d;
  HF_TRY(db_open(path, true, &d));
  for (int i = 0; i < ROWS; i++) {
    rec_machine m;
    sample_machine(&m);
    snprintf(m.name, sizeof m.name, "writer %d row %d", writer, i);
    HF_TRY(db_machine_put(d, &m));
    rec_figure f = {.machine_id = m.id, .what = "x", .low = 1, .likely = 1, .high = 1};
    HF_TRY(db_figure_put(d, &f));
  }
  db_close(d);
  return HF_OK;
}

/* All of them find no file and create it at once, then write at once. */
static void several_writers(void **state) {
  db_place *p = *state;
  pid_t child[WRITERS];
  for (int w = 0; w < WRITERS; w++) {
    child[w] = fork();
    assert_true(child[w] >= 0);
    if (child[w] == 0) {
      hf_status st = write_some(p->path, w);
      if (st != HF_OK) fprintf(stderr, "writer %d: %s\n", w, hf_error_line());
      _exit(st);
    }
  }
  for (int w = 0; w < WRITERS; w++) {
    int status;
    assert_int_equal(waitpid(child[w], &status, 0), child[w]);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
  }
  db *d;
  rec_machine *list, m;
  int n;
  CHECK_OK(db_open(p->path, false, &d));
  CHECK_OK(db_machine_list(d, &list, &n));
  assert_int_equal(n, WRITERS * ROWS);
  free(list);
  for (int w = 0; w < WRITERS; w++) {
    for (int i = 0; i < ROWS; i++) {
      char name[64];
      snprintf(name, sizeof name, "writer %d row %d", w, i);
      CHECK_OK(db_machine_find(d, name, &m));
    }
  }
  assert_sound(d);
  db_close(d);
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
  const struct CMUnitTest tests[] = {TEST(committed_rows_stay), TEST(killed_at_birth), TEST(several_writers)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
