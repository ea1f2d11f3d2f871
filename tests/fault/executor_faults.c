/* The n-th allocation, or the n-th read of an input file, fails while hf-run works: one error line and the right exit status, no half run in the
 * database, the database sound, and the same job done right afterwards. (Under the sanitizers: no leak either.)
 *
 * The jobs run inside this process, hundreds of times each: small ones, and the places of failure spread over the whole job, dense
 * where rows are written. hf-plan is not beside this program, so no plan is made. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "base/log.h"
#include "executor/commands.h"

#define MODEL "tests/golden/deepseek_v3"
#define GGUF "tests/golden/deepseek_v3_gguf/model.gguf"

static char folder[] = "/tmp/hf-faults-XXXXXX";
static char db_path[300], prompts_path[300], reference_path[300], out_path[300];
static int real_stdout;

static void *must(void *p) {
  assert_non_null(p);
  return p;
}

/* The golden reference without what the check does not read, one prompt. */
static void write_reference(void) {
  json *doc, *small = json_new_object();
  assert_int_equal(json_read_file(MODEL "/reference.json", 64 << 20, &doc), HF_OK);
  const json *p = json_first(json_get(doc, "prompts"));
  json *q = json_add_object(json_add_array(small, "prompts"), NULL);
  const char *const keys[] = {"ids", "last_logits", "greedy", "greedy_margins", "top1", "top1_margins", "routing"};
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
    must(json_add_copy(q, keys[i], must((void *)(uintptr_t)json_get(p, keys[i]))));
  assert_int_equal(json_write_file(small, reference_path), HF_OK);
  json_free(doc);
  json_free(small);
}

static void set_up_files(void) {
  static const char prompts[] = "{\"ids\":[1,5,9,2],\"max_tokens\":3}\n{\"id\":\"b\",\"ids\":[7],\"max_tokens\":2}\n";
  assert_non_null(mkdtemp(folder));
  snprintf(db_path, sizeof db_path, "%s/run.db", folder);
  snprintf(prompts_path, sizeof prompts_path, "%s/prompts.jsonl", folder);
  snprintf(reference_path, sizeof reference_path, "%s/reference.json", folder);
  snprintf(out_path, sizeof out_path, "%s/answers.jsonl", folder);
  assert_int_equal(hf_write_file(prompts_path, prompts, strlen(prompts)), HF_OK);
  write_reference();
}

static run_options options(bool check) {
  run_options r = {
      .model = MODEL, .gpu = "virtual:64M", .experts_percent = 50, .threads = 1, .depth = 2, .top_p = 1, .ignore_eos = true};
  r.common.db_path = db_path;
  r.common.json = r.common.quiet = true;
  if (check) r.reference = reference_path, r.batch = 2;
  else r.prompts = prompts_path, r.out = out_path;
  return r;
}

/* Answers of a run that failed wait for --resume: not what is looked at here. */
static hf_status job(const run_options *r) {
  char part[sizeof out_path + 8];
  snprintf(part, sizeof part, "%s.part", out_path);
  (void)unlink(part);
  hf_status st = r->reference ? cmd_check(r) : cmd_prompts(r);
  fflush(stdout);
  return st;
}

static int runs_in_database(void) {
  db *d;
  rec_run *runs;
  int n;
  if (access(db_path, F_OK)) return 0;
  if (db_open(db_path, false, &d) != HF_OK) fail_msg("the database does not open: %s", hf_error_line());
  if (db_run_list(d, &runs, &n) != HF_OK) fail_msg("runs cannot be listed: %s", hf_error_line());
  for (int i = 0; i < n; i++) { /* all rows of a run, or no run */
    rec_request *q;
    rec_stage *s;
    rec_routing *t;
    int requests, stages, counts;
    assert_int_equal(db_request_list(d, runs[i].id, &q, &requests), HF_OK);
    assert_int_equal(db_stage_list(d, runs[i].id, &s, &stages), HF_OK);
    assert_int_equal(db_routing_list(d, runs[i].id, &t, &counts), HF_OK);
    assert_int_equal(requests, 2);
    assert_true(stages > 5 && counts > 5);
    assert_string_equal(runs[i].status, "done");
    free(q), free(s), free(t);
  }
  free(runs);
  db_close(d);
  return n;
}

/* hf_status of a job that met its fault, and what it left. */
static void check_failure(hf_status st, long n, int runs_before, const char *what) {
  const char *line = hf_error_line();
  if (hf_exit_status(st) != 3) fail_msg("%s %ld: exit status %d: %s", what, n, hf_exit_status(st), line);
  if (!*line || strchr(line, '\n')) fail_msg("%s %ld: no error line", what, n);
  int runs = runs_in_database();
  /* what fails after the commit (writing --out) leaves the whole run */
  if (runs != runs_before && runs != runs_before + 1) fail_msg("%s %ld: %d runs where %d were", what, n, runs, runs_before);
}

typedef void set_fault(long n);
typedef long count_calls(void);

/* Places of failure: all up to `dense`, then every stride-th, then all of the last `dense`. */
static void fail_everywhere(bool check, set_fault *set, count_calls *count, long dense, long points, const char *what) {
  run_options r = options(check);
  long before = count();
  if (job(&r) != HF_OK) fail_msg("the job fails without a fault: %s", hf_error_line());
  long total = count() - before, stride = (total - 2 * dense) / points, met = 0;
  if (stride < 1) stride = 1;
  assert_true(total > 5);
  for (long n = 1; n <= total; n += n < dense || n > total - dense ? 1 : stride) {
    int runs = runs_in_database();
    set(n);
    hf_status st = job(&r);
    set(0);
    if (st == HF_OK) continue; /* a fault that was no obstacle: a cache, a progress bar, a plan that was not needed */
    check_failure(st, n, runs, what);
    met++;
  }
  assert_true(met * 10 >= (total < points ? total : points) * 5);
  assert_int_equal(job(&r), HF_OK);
}

static void allocations_of_a_run(void **state) {
  (void)state;
  fail_everywhere(false, hf_fail_alloc_at, hf_alloc_count, 50, 80, "allocation");
}

static void allocations_of_a_check(void **state) {
  (void)state;
  fail_everywhere(true, hf_fail_alloc_at, hf_alloc_count, 50, 80, "allocation");
}

static void reads_of_a_run(void **state) {
  (void)state;
  fail_everywhere(false, hf_fail_read_at, hf_read_count, 30, 60, "read");
}

static void reads_of_a_check(void **state) {
  (void)state;
  fail_everywhere(true, hf_fail_read_at, hf_read_count, 30, 60, "read");
}

static void reads_of_a_gguf_file(void **state) {
  (void)state;
  run_options r = options(false);
  r.model = GGUF;
  int failed = 0;
  for (long n = 1;; n += n < 20 ? 1 : 9) {
    int runs = runs_in_database();
    hf_fail_read_at(n);
    hf_status st = job(&r);
    hf_fail_read_at(0);
    if (st == HF_OK) break;
    check_failure(st, n, runs, "read");
    failed++;
  }
  assert_true(failed > 5);
}

/* Weights cut short after the file was opened, before they are used. */
static void a_weight_file_that_shrinks_is_an_error(void **state) {
  (void)state;
  char path[400];
  char *bytes;
  size_t n;
  model *m = NULL;
  engine *e = NULL;
  snprintf(path, sizeof path, "%s/shrinks.gguf", folder);
  assert_int_equal(hf_read_file(GGUF, 64 << 20, &bytes, &n), HF_OK);
  assert_int_equal(hf_write_file(path, bytes, n), HF_OK);
  free(bytes);
  assert_int_equal(model_open(path, &m), HF_OK);
  assert_int_equal(truncate(path, (off_t)n / 2), 0);
  engine_options o = {
      .depth = 1, .max_seqs = 1, .context = 16, .page_tokens = 16, .n_pages = 1, .max_tok = 8, .max_logits = 1, .threads = 1};
  snprintf(o.gpu, sizeof o.gpu, "none");
  assert_int_equal(engine_open(m, &o, &e), HF_MACHINE);
  assert_non_null(strstr(hf_error_line(), "shorter"));
  model_close(m);
  assert_int_not_equal(model_open(path, &m), HF_OK); /* and now it does not even open */
  unlink(path);
}

static int set_up(void **state) {
  (void)state;
  set_up_files();
  real_stdout = dup(1);
  return 0;
}

static int quiet(void **state) { /* what the jobs print is no part of this */
  (void)state;
  fflush(stdout);
  int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
  dup2(null, 1);
  close(null);
  return 0;
}

static int loud(void **state) {
  (void)state;
  fflush(stdout);
  dup2(real_stdout, 1);
  return 0;
}

static int tear_down(void **state) {
  (void)state;
  const char *const names[] = {db_path, prompts_path, reference_path, out_path};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) unlink(names[i]);
  close(real_stdout);
  return rmdir(folder); /* nothing else may lie there: no temporary file, no log of the database */
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(allocations_of_a_run, quiet, loud),
      cmocka_unit_test_setup_teardown(allocations_of_a_check, quiet, loud),
      cmocka_unit_test_setup_teardown(reads_of_a_run, quiet, loud),
      cmocka_unit_test_setup_teardown(reads_of_a_check, quiet, loud),
      cmocka_unit_test_setup_teardown(reads_of_a_gguf_file, quiet, loud),
      cmocka_unit_test(a_weight_file_that_shrinks_is_an_error),
  };
  hf_log_set_level(HF_LOG_ERROR);
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
