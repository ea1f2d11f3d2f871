/* A weight file that shrinks while it is mapped: one line and the exit status of a failing machine; other bus errors are left as they are. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/end.h"
#include "base/json.h"
#include "model/model.h"
#include "tests/unit/in_process.h"

static char path[64];

static void copy_of_a_model(void) {
  char *bytes;
  size_t n;
  snprintf(path, sizeof path, "/tmp/guard-%d.gguf", (int)getpid());
  assert_int_equal(hf_read_file("tests/golden/qwen3_moe_gguf/model.gguf", 64 << 20, &bytes, &n), HF_OK);
  assert_int_equal(hf_write_file(path, bytes, n), HF_OK);
  free(bytes);
}

static const volatile uint8_t *last_tensor(model **m) {
  const void *p = NULL;
  model_tensor_info info;
  if (model_open(path, m) != HF_OK || model_tensor(*m, MT_EXP_DOWN, 0, 0, &info) != HF_OK ||
      model_tensor_map(*m, MT_EXP_DOWN, 0, 0, &p) != HF_OK || p == NULL)
    _exit(78);
  return p;
}

static void read_what_is_gone(void) {
  model *m = NULL;
  hf_end_program("hf-test");
  model_guard_mappings();
  const volatile uint8_t *p = last_tensor(&m);
  (void)p[0];
  if (truncate(path, 4096) != 0) _exit(79);
  (void)p[0];
}

/* The same mapping once its model is closed is nobody's; a mapping of this test stands for it. */
static void read_another_mapping(void) {
  model *m = NULL;
  hf_end_program("hf-test");
  model_guard_mappings();
  (void)last_tensor(&m);
  model_close(m);
  signal(SIGALRM, SIG_DFL);
  alarm(20); /* a handler that returned for ever would hang */
  int fd = open(path, O_RDWR);
  const volatile uint8_t *p = mmap(NULL, 16384, PROT_READ, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED || ftruncate(fd, 4096) != 0) _exit(79);
  (void)p[8192];
}

static void a_shrunken_file_is_named(void **state) {
  (void)state;
  char text[512];
  copy_of_a_model();
  int status = in_process(read_what_is_gone, text, sizeof text);
  unlink(path);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != hf_exit_status(HF_MACHINE))
    fail_msg("wait status %x: %s", (unsigned)status, text);
  assert_ptr_equal(strstr(text, "hf-test: /tmp/guard-"), text);
  assert_non_null(strstr(text, "shorter while it was in use"));
  assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
}

static void other_bus_errors_are_as_before(void **state) {
  (void)state;
  char text[512];
  copy_of_a_model();
  int status = in_process(read_another_mapping, text, sizeof text);
  unlink(path);
  if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGBUS) fail_msg("wait status %x: %s", (unsigned)status, text);
  assert_string_equal(text, "");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_shrunken_file_is_named),
      cmocka_unit_test(other_bus_errors_are_as_before),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
