/* tensorset.c: the stored tensors of a model's files: mapping, names, layout checks. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "model/internal.h"

enum { MAX_FILES = 4096, MAX_TENSORS = 1 << 22 };
#define NAMES_LIMIT ((size_t)512 << 20)

hf_status tset_init(tensor_set *s) {
  memset(s, 0, sizeof *s);
  return hf_arena_new(&s->arena, NAMES_LIMIT, "tensor names");
}

hf_status tset_fault(const tensor_set *s, hf_status st) {
  if (st == HF_OK || s->fault == NULL || st == HF_MACHINE) return st;
  s->fault(s->fault_user, hf_error_line());
  hf_clear_error();
  return HF_OK;
}

void tset_free(tensor_set *s) {
  for (int i = 0; i < s->n_files; i++) {
    if (s->files[i].data) {
      guard_remove(s->files[i].data);
      munmap((void *)(uintptr_t)s->files[i].data, s->files[i].size);
    }
    if (s->files[i].fd >= 0) close(s->files[i].fd);
  }
  free(s->files);
  free(s->v);
  free(s->table);
  hf_arena_free(s->arena);
  memset(s, 0, sizeof *s);
}

hf_status tset_add_file(tensor_set *s, const char *path, int *index) {
  if (s->n_files >= MAX_FILES) return hf_fail(HF_INPUT, "%s: more than %d weight files in one model", path, MAX_FILES);
  HF_TRY(hf_realloc(&s->files, (size_t)s->n_files + 1, sizeof *s->files, "weight files"));
  mapped_file *f = &s->files[s->n_files];
  memset(f, 0, sizeof *f);
  HF_TRY(hf_arena_str(s->arena, &f->path, path, strlen(path)));
  f->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe in its place is refused below, not waited for */
  if (f->fd < 0) return hf_fail(errno == ENOENT ? HF_NOT_FOUND : HF_INPUT, "%s: %s", path, strerror(errno));
  s->n_files++; /* from here on tset_free closes it */
  struct stat st;
  if (hf_read_fails() || fstat(f->fd, &st) != 0) return hf_fail(HF_MACHINE, "%s: %s", path, strerror(errno));
  if (!S_ISREG(st.st_mode)) return hf_fail(HF_INPUT, "%s: not a regular file", path);
  f->size = (uint64_t)st.st_size;
  if (f->size > 0) {
    void *p = mmap(NULL, f->size, PROT_READ, MAP_SHARED, f->fd, 0);
    if (p == MAP_FAILED)
      return hf_fail(HF_MACHINE, "%s: cannot map %llu bytes: %s", path, (unsigned long long)f->size, strerror(errno));
    f->data = p;
    guard_add(p, f->size, f->path);
  }
  *index = s->n_files - 1;
  return HF_OK;
}

hf_status tset_add(tensor_set *s, const raw_tensor *t) {
  if (s->n == s->cap) {
    if (s->n >= MAX_TENSORS) return hf_fail(HF_INPUT, "%s: more than %d tensors", s->files[t->file].path, MAX_TENSORS);
    size_t cap = s->cap ? s->cap * 2 : 256;
    HF_TRY(hf_realloc(&s->v, cap, sizeof *s->v, "tensor list"));
    s->cap = cap;
  }
  s->v[s->n++] = *t;
  return HF_OK;
}

static uint64_t name_hash(const char *s) {
  uint64_t h = 1469598103934665603u; /* FNV-1a */
  for (; *s; s++) h = (h ^ (uint8_t)*s) * 1099511628211u;
  return h ^ h >> 29;
}

hf_status tset_index(tensor_set *s) {
  size_t size = 64;
  while (size < s->n * 2) size *= 2;
  free(s->table);
  s->table = NULL;
  HF_TRY(hf_alloc(&s->table, size, sizeof *s->table, "tensor names"));
  s->table_mask = size - 1;
  for (size_t i = 0; i < s->n; i++) {
    size_t k = name_hash(s->v[i].name) & s->table_mask;
    while (s->table[k]) {
      const raw_tensor *o = &s->v[s->table[k] - 1];
      if (!strcmp(o->name, s->v[i].name))
        return hf_fail(HF_INPUT, "%s: tensor %s appears twice (also in %s)", s->files[s->v[i].file].path, o->name,
                       s->files[o->file].path);
      k = (k + 1) & s->table_mask;
    }
    s->table[k] = (uint32_t)i + 1;
  }
  return HF_OK;
}

const raw_tensor *tset_find(const tensor_set *s, const char *name) {
  if (!s->table) return NULL;
  for (size_t k = name_hash(name) & s->table_mask; s->table[k]; k = (k + 1) & s->table_mask)
    if (!strcmp(s->v[s->table[k] - 1].name, name)) return &s->v[s->table[k] - 1];
  return NULL;
}

bool raw_bytes(fmt f, int elem_bytes, int n_dims, const int64_t *dims, uint64_t *bytes) {
  uint64_t n = 1;
  for (int i = 0; i < n_dims; i++)
    if (dims[i] < 0 || __builtin_mul_overflow(n, (uint64_t)dims[i], &n) || n > INT64_MAX) return false;
  if (f == FMT_OTHER) return !__builtin_mul_overflow(n, (uint64_t)elem_bytes, bytes);
  const fmt_info *i = fmt_get(f);
  int64_t inner = n_dims > 0 ? dims[n_dims - 1] : 1;
  if (inner % i->block != 0) return false;
  uint64_t rows = i->row_bytes > 0 && inner > 0 ? n / (uint64_t)inner * (uint64_t)i->row_bytes : 0;
  if (__builtin_mul_overflow(n / (uint64_t)i->block, (uint64_t)i->block_bytes, bytes)) return false;
  return !__builtin_add_overflow(*bytes, rows, bytes);
}

static int by_offset(const void *a, const void *b) {
  const raw_tensor *x = *(const raw_tensor *const *)a, *y = *(const raw_tensor *const *)b;
  if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
  return (x->bytes > y->bytes) - (x->bytes < y->bytes); /* empty tensors before the one that starts there */
}

hf_status tset_check_layout(const tensor_set *s, size_t first, uint64_t begin, uint64_t end, bool no_holes) {
  size_t n = s->n - first;
  if (n == 0) return HF_OK;
  const raw_tensor **order = NULL;
  HF_TRY(hf_alloc(&order, n, sizeof *order, "tensor order"));
  for (size_t i = 0; i < n; i++) order[i] = &s->v[first + i];
  qsort(order, n, sizeof *order, by_offset);
  hf_status st = HF_OK;
  uint64_t at = begin;
  for (size_t i = 0; i < n && st == HF_OK; i++) {
    const raw_tensor *t = order[i];
    const char *path = s->files[t->file].path;
    if (t->offset < at && t->bytes > 0)
      st = hf_fail(HF_INPUT, "%s: tensor %s: its bytes overlap %s", path, t->name, i ? order[i - 1]->name : "the header");
    else if (no_holes && t->offset > at)
      st = hf_fail(HF_INPUT, "%s: tensor %s: %llu bytes before it belong to no tensor", path, t->name,
                   (unsigned long long)(t->offset - at));
    else if (t->bytes > 0) at = t->offset + t->bytes;
  }
  if (st == HF_OK && no_holes && at != end)
    st = hf_fail(HF_INPUT, "%s: %llu bytes after the last tensor; the file is longer than its header says",
                 s->files[s->v[first].file].path, (unsigned long long)(end - at));
  free(order);
  return st;
}
