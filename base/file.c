/* file.c: whole small files in and out; declared in json.h, whose documents are most of them. */
#include "base/json.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static hf_status cannot(const char *path, const char *what) {
  int error = errno;
  bool missing = error == ENOENT || error == ENOTDIR;
  bool theirs = error == EACCES || error == EPERM || error == EISDIR || error == ENAMETOOLONG || error == ELOOP || error == EROFS;
  return hf_fail(missing ? HF_NOT_FOUND : theirs ? HF_INPUT : HF_MACHINE, "%s: %s: %s", path, what, strerror(error));
}

/* Reads to the end of fd. The size that fstat tells is only the first guess: it may be a pipe. */
static hf_status read_all(int fd, const char *path, size_t max_bytes, size_t guess, hf_buf *b) {
  size_t step = guess < max_bytes ? guess + 1 : 65536;
  if (step > ((size_t)1 << 30)) step = (size_t)1 << 30;
  char *chunk;
  HF_TRY(hf_alloc(&chunk, step, 1, path));
  hf_status st = hf_buf_add(b, "", 0);
  while (st == HF_OK) {
    ssize_t n = hf_read(fd, chunk, step);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) st = hf_fail(errno == EISDIR ? HF_INPUT : HF_MACHINE, "%s: cannot be read: %s", path, strerror(errno));
    if (n <= 0) break;
    if ((size_t)n > max_bytes - b->len) st = hf_fail(HF_INPUT, "%s: longer than the %zu bytes allowed here", path, max_bytes);
    else st = hf_buf_add(b, chunk, (size_t)n);
  }
  free(chunk);
  return st;
}

hf_status hf_read_file(const char *path, size_t max_bytes, char **out, size_t *n) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return cannot(path, "cannot be opened");
  hf_buf b;
  hf_buf_init(&b, max_bytes);
  struct stat s;
  hf_status st = HF_OK;
  if (fstat(fd, &s) != 0) st = cannot(path, "cannot be read");
  else if (S_ISDIR(s.st_mode)) st = hf_fail(HF_INPUT, "%s: is a folder where a file is expected", path);
  else if (S_ISREG(s.st_mode) && s.st_size > 0 && (uint64_t)s.st_size > max_bytes) {
    st = hf_fail(HF_INPUT, "%s: %lld bytes, longer than the %zu allowed here", path, (long long)s.st_size, max_bytes);
  }
  if (st == HF_OK) st = read_all(fd, path, max_bytes, S_ISREG(s.st_mode) && s.st_size > 0 ? (size_t)s.st_size : 65535, &b);
  close(fd);
  if (st != HF_OK) {
    hf_buf_free(&b);
    return st;
  }
  *out = b.data;
  *n = b.len;
  return HF_OK;
}

static hf_status write_fd(int fd, const char *path, const char *bytes, size_t n) {
  while (n > 0) {
    ssize_t done = write(fd, bytes, n);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return hf_fail(HF_MACHINE, "%s: cannot be written: %s", path, strerror(errno));
    bytes += done;
    n -= (size_t)done;
  }
  return HF_OK;
}

/* A terminal, pipe or device is written to as it is: renaming over it would replace it. */
static hf_status write_special(const char *path, hf_write_fn *fill, void *user) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) return cannot(path, "cannot be opened for writing");
  hf_status st = fill(fd, path, user);
  if (close(fd) != 0 && st == HF_OK) st = cannot(path, "cannot be written");
  return st;
}

static hf_status write_beside(const char *path, hf_write_fn *fill, void *user) {
  static atomic_uint serial;
  char *temporary;
  size_t length = strlen(path) + 48;
  HF_TRY(hf_alloc(&temporary, length, 1, path));
  snprintf(temporary, length, "%s.%ld-%u.tmp", path, (long)getpid(), atomic_fetch_add(&serial, 1));
  hf_status st = HF_OK;
  int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) {
    st = cannot(path, "cannot be created");
  } else {
    st = fill(fd, path, user);
    if (st == HF_OK && fsync(fd) != 0) st = cannot(path, "cannot be written");
    if (close(fd) != 0 && st == HF_OK) st = cannot(path, "cannot be written");
    if (st == HF_OK && rename(temporary, path) != 0) st = cannot(path, "cannot be replaced");
    if (st != HF_OK) unlink(temporary);
  }
  free(temporary);
  return st;
}

hf_status hf_write_file_by(const char *path, hf_write_fn *fill, void *user) {
  struct stat s;
  bool there = stat(path, &s) == 0;
  if (there && S_ISDIR(s.st_mode)) return hf_fail(HF_INPUT, "%s: is a folder where a file is expected", path);
  if (there && !S_ISREG(s.st_mode)) return write_special(path, fill, user);
  char *target = realpath(path, NULL); /* a symbolic link stays one: its target is replaced */
  hf_status st = write_beside(target ? target : path, fill, user);
  free(target);
  return st;
}

typedef struct {
  const void *bytes;
  size_t n;
} content;

static hf_status write_content(int fd, const char *path, void *user) {
  const content *c = user;
  return write_fd(fd, path, c->bytes, c->n);
}

hf_status hf_write_file(const char *path, const void *bytes, size_t n) {
  return hf_write_file_by(path, write_content, &(content){bytes, n});
}

/* As hf_write_file goes about it: a new file beside the old one replaces it. */
hf_status hf_can_write(const char *path) {
  struct stat s;
  const bool there = stat(path, &s) == 0;
  if (there && S_ISDIR(s.st_mode)) return hf_fail(HF_INPUT, "%s: is a folder where a file is expected", path);
  if (there && !S_ISREG(s.st_mode)) return access(path, W_OK) == 0 ? HF_OK : cannot(path, "cannot be written");
  char folder[PATH_MAX], *target = there ? realpath(path, NULL) : NULL;
  const char *at = target ? target : path, *slash = strrchr(at, '/');
  bool able = false;
  if (slash && !slash[1]) errno = EISDIR; /* "folder/" names no file */
  else if (snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - at) + 1 : 1, slash ? at : ".") >= (int)sizeof folder)
    errno = ENAMETOOLONG;
  else able = access(folder, W_OK | X_OK) == 0;
  const hf_status st = able ? HF_OK : cannot(path, "cannot be written");
  free(target);
  return st;
}
