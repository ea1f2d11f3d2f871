/* repack.c: see repack.h. */
#include "executor/repack.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

enum { TASK_ROWS = 512 }; /* a multiple of a tile */

hf_status repack_add(repack *r, const kern_mat *rows, void *tiles) {
  for (int row = 0; row < rows->n_rows; row += TASK_ROWS) {
    if (r->n == r->cap) {
      int cap = r->cap ? 2 * r->cap : 256;
      HF_TRY(hf_realloc(&r->task, (size_t)cap, sizeof *r->task, "list of weights to repack"));
      r->cap = cap;
    }
    int end = row + TASK_ROWS < rows->n_rows ? row + TASK_ROWS : rows->n_rows;
    r->task[r->n++] = (repack_task){*rows, row, end, tiles};
  }
  return HF_OK;
}

/* Whole pages only: what they share with neighbours is read again from the page cache. */
static void give_back(const repack_task *t, size_t page) {
  uintptr_t from = (uintptr_t)t->rows.data + (size_t)t->row0 * t->rows.row_bytes;
  uintptr_t to = (uintptr_t)t->rows.data + (size_t)t->row1 * t->rows.row_bytes;
  from = (from + page - 1) / page * page;
  to = to / page * page;
  if (from < to) (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

static void work(void *arg, int thread, int n_threads) {
  repack *r = arg;
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  (void)thread, (void)n_threads;
  for (int i; (i = pool_claim(&r->next, r->n, 1)) >= 0;) {
    const repack_task *t = &r->task[i];
    kern_tile_pack(&t->rows, t->row0, t->row1, t->tiles);
    give_back(t, page);
  }
}

void repack_run(repack *r, pool *p) {
  if (r->n == 0) return;
  atomic_store(&r->next, 0);
  pool_run(p, work, r);
  r->n = 0;
}

void repack_free(repack *r) {
  free(r->task);
  r->task = NULL;
  r->n = r->cap = 0;
}
