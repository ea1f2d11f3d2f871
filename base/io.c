#include "base/io.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static atomic_long calls;
static atomic_long fail_at_call = 0; /* the value of `calls` at which to fail; 0 never */
static atomic_long writes;
static atomic_long fail_at_write = 0;
static pthread_once_t environment_once = PTHREAD_ONCE_INIT;

static void read_environment(void) {
  const char *text = getenv("HF_FAIL_READ");
  long n = text ? strtol(text, NULL, 10) : 0;
  if (n > 0) atomic_store(&fail_at_call, n);
  text = getenv("HF_FAIL_WRITE");
  n = text ? strtol(text, NULL, 10) : 0;
  if (n > 0) atomic_store(&fail_at_write, n);
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

bool hf_pwrite_all(int fd, const void *from, size_t n, off_t offset) {
  const char *p = from;
  pthread_once(&environment_once, read_environment);
  if (atomic_fetch_add(&writes, 1) + 1 == atomic_load(&fail_at_write)) {
    errno = ENOSPC;
    return false;
  }
  while (n > 0) {
    ssize_t k = pwrite(fd, p, n, offset);
    if (k < 0 && errno == EINTR) continue;
    if (k <= 0) {
      if (k == 0) errno = ENOSPC;
      return false;
    }
    p += k;
    offset += k;
    n -= (size_t)k;
  }
  return true;
}

void hf_fail_write_at(long n) {
  pthread_once(&environment_once, read_environment);
  atomic_store(&fail_at_write, n > 0 ? atomic_load(&writes) + n : 0);
}

long hf_write_count(void) {
  return atomic_load(&writes);
}
