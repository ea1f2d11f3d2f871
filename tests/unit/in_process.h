/* in_process.h: for tests of what ends a process. */
#ifndef HF_TESTS_IN_PROCESS_H
#define HF_TESTS_IN_PROCESS_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Runs `job` in a process whose standard error goes to text; its wait status. */
static inline int in_process(void (*job)(void), char *text, size_t size) {
  int ends[2], status = 0;
  size_t n = 0;
  ssize_t got;
  assert_int_equal(pipe(ends), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    dup2(ends[1], STDERR_FILENO);
    job();
    _exit(77);
  }
  close(ends[1]);
  while (n + 1 < size && (got = read(ends[0], text + n, size - 1 - n)) > 0) n += (size_t)got;
  text[n] = '\0';
  close(ends[0]);
  assert_int_equal(waitpid(child, &status, 0), child);
  return status;
}

#endif
