/* repack.c: see repack.h. */
#include "executor/repack.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

enum { TASK_ROWS = 512 }; /* a multiple of a tile */

static hf_status note(repack *r, const repack_task *t) {
  if (r->n == r->cap) {
    int cap = r->cap ? 2 * r->cap : 256;
    HF_TRY(hf_realloc(&r->task, (size_t)cap, sizeof *r->task, "list of weights to repack"));
    r->cap = cap;
  }
  r->task[r->n++] = *t;
  return HF_OK;
}

hf_status repack_add(repack *r, const kern_mat *rows, void *tiles) {
  for (int row = 0; row < rows->n_rows; row += TASK_ROWS) {
    int end = row + TASK_ROWS < rows->n_rows ? row + TASK_ROWS : rows->n_rows;
    HF_TRY(note(r, &(repack_task){.rows = *rows, .row0 = row, .row1 = end, .to = tiles}));
  }
  return HF_OK;
}

hf_status repack_add_read(repack *r, const kern_mat *mat, int id, int layer, int expert, void *to) {
  repack_task t = {.rows = *mat, .id = id, .layer = layer, .expert = expert, .to = to};
  t.rows.data = NULL;
  return note(r, &t);
}

/* Whole pages only: what they share with neighbours is read again from the page cache. */
static void give_back(const repack_task *t, size_t page) {
  uintptr_t from = (uintptr_t)t->rows.data + (size_t)t->row0 * t->rows.row_bytes;
  uintptr_t to = (uintptr_t)t->rows.data + (size_t)t->row1 * t->rows.row_bytes;
  from = (from + page - 1) / page * page;
  to = to / page * page;
  if (from < to) (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

typedef struct {
  repack *r;
  repack_read_fn *read;
  void *user;
  atomic_int failed; /* 1 + thread of the first failure: it alone writes st and line */
  hf_status st;
  char line[1024];
} job;

static void work(void *arg, int thread, int n_threads) {
  job *j = arg;
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  (void)n_threads;
  for (int i; !atomic_load(&j->failed) && (i = pool_claim(&j->r->next, j->r->n, 1)) >= 0;) {
    const repack_task *t = &j->r->task[i];
    if (t->rows.data) {
      kern_tile_pack(&t->rows, t->row0, t->row1, t->to);
      give_back(t, page);
      continue;
    }
    hf_status st = j->read(j->user, t);
    int none = 0;
    if (st == HF_OK || !atomic_compare_exchange_strong(&j->failed, &none, thread + 1)) continue;
    j->st = st;
    snprintf(j->line, sizeof j->line, "%s", hf_error_line());
  }
}

hf_status repack_run(repack *r, pool *p, repack_read_fn *read, void *user) {
  if (r->n == 0) return HF_OK;
  job j = {.r = r, .read = read, .user = user};
  atomic_store(&r->next, 0);
  pool_run(p, work, &j);
  r->n = 0;
  return j.st == HF_OK ? HF_OK : hf_fail(j.st, "%s", j.line);
}

void repack_free(repack *r) {
  free(r->task);
  r->task = NULL;
  r->n = r->cap = 0;
}
