/* The n-th allocation, read or write fails while model files are looked at, checked and written: the right status, one error line, no file left
 * behind, nothing lost (under the sanitizers: no leak), and the same job done right afterwards. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/io.h"
#include "executor/model_cmd.h"

static char folder[] = "/tmp/hf-model-faults-XXXXXX";
static char target[300];

static char *const quantise_folder[] = {"quantise", "tests/golden/kimi_k2_int4", target, "--format", "q8_0", "--threads", "1",
                                        "--quiet"};
static char *const quantise_gguf[] = {
    "quantise", "tests/golden/deepseek_v3_gguf/model.gguf", target, "--format", "q4_0", "--threads", "1", "--quiet"};
static char *const verify[] = {"verify", "tests/golden/deepseek_v3", "--threads", "1", "--quiet"};
static char *const inspect[] = {"inspect", "tests/golden/deepseek_v3_gguf/model.gguf", "--json", "--tensors", "--quiet"};

static const struct {
  hf_status (*run)(int, char **);
  char *const *argv;
  int argc;
} jobs[] = {{cmd_model_quantise, quantise_folder, 8},
            {cmd_model_quantise, quantise_gguf, 8},
            {cmd_model_verify, verify, 5},
            {cmd_model_inspect, inspect, 5}};
enum { N_JOBS = sizeof jobs / sizeof *jobs, MOST_TRIES = 150 };

static hf_status run(int j) {
  char *argv[16] = {0};
  for (int i = 0; i < jobs[j].argc; i++) argv[i] = jobs[j].argv[i];
  hf_status st = jobs[j].run(jobs[j].argc, argv);
  fflush(stdout);
  return st;
}

static int files_left(void) {
  int n = 0;
  DIR *d = opendir(folder);
  assert_non_null(d);
  for (struct dirent *e; (e = readdir(d)) != NULL;) n += e->d_name[0] != '.';
  closedir(d);
  return n;
}

typedef struct {
  const char *what;
  void (*fail_at)(long);
  long (*count)(void);
} hook;

static void each(const hook *h, int j) {
  long before = h->count();
  assert_int_equal(run(j), HF_OK);
  long n = h->count() - before, step = n / MOST_TRIES + 1;
  (void)unlink(target);
  for (long k = 1; k <= n; k += step) {
    hf_clear_error();
    h->fail_at(k);
    hf_status st = run(j);
    h->fail_at(0);
    /* a verification tells what it could not read as a fault; what is not needed (a tokenizer, a chat form) may be gone without */
    bool fine = st == HF_MACHINE || (jobs[j].run == cmd_model_verify && st == HF_NO) || st == HF_OK;
    if (!fine) fail_msg("job %d, %s %ld: status %d: %s", j, h->what, k, st, hf_error_line());
    if (st != HF_OK) assert_true(hf_error_line()[0] != 0);
    assert_int_equal(files_left(), st == HF_OK && jobs[j].run == cmd_model_quantise ? 1 : 0);
    if (jobs[j].run == cmd_model_quantise && st == HF_OK && h->count == hf_write_count) fail_msg("a write failed unseen");
    (void)unlink(target);
  }
  assert_int_equal(run(j), HF_OK);
  (void)unlink(target);
}

static void allocations(void **state) {
  (void)state;
  for (int j = 0; j < N_JOBS; j++) each(&(hook){"allocation", hf_fail_alloc_at, hf_alloc_count}, j);
}

static void reads(void **state) {
  (void)state;
  for (int j = 0; j < N_JOBS; j++) each(&(hook){"read", hf_fail_read_at, hf_read_count}, j);
}

static void writes(void **state) {
  (void)state;
  for (int j = 0; j < 2; j++) each(&(hook){"write", hf_fail_write_at, hf_write_count}, j);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(allocations), cmocka_unit_test(reads), cmocka_unit_test(writes)};
  if (!mkdtemp(folder)) return 1;
  snprintf(target, sizeof target, "%s/m.gguf", folder);
  int out = dup(STDOUT_FILENO), null = open("/dev/null", O_WRONLY);
  if (out < 0 || null < 0 || dup2(null, STDOUT_FILENO) < 0) return 1;
  int bad = cmocka_run_group_tests(tests, NULL, NULL);
  rmdir(folder);
  return bad;
}
