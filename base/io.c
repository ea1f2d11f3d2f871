#include "base/io.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_long calls;
static atomic_long fail_at_call = 0; /* the value of `calls` at which to fail; 0 never */
static pthread_once_t environment_once = PTHREAD_ONCE_INIT;

static void read_environment(void) {
  const char *text = getenv("HF_FAIL_READ");
  long n = text ? strtol(text, NULL, 10) : 0;
  if (n > 0) atomic_store(&fail_at_call, n);
}

bool hf_read_fails(void) {
  pthread_once(&environment_once, read_environment);
  if (atomic_fetch_add(&calls, 1) + 1 != atomic_load(&fail_at_call)) return false;
  errno = EIO;
  return true;
}

ssize_t hf_read(int fd, void *to, size_t n) {
  return hf_read_fails() ? -1 : read(fd, to, n);
}

ssize_t hf_pread(int fd, void *to, size_t n, off_t offset) {
  return hf_read_fails() ? -1 : pread(fd, to, n, offset);
}

void hf_fail_read_at(long n) {
  pthread_once(&environment_once, read_environment);
  atomic_store(&fail_at_call, n > 0 ? atomic_load(&calls) + n : 0);
}

long hf_read_count(void) {
  return atomic_load(&calls);
}
