/* repack.c: see repack.h. */
#include "executor/repack.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/mem.h"

enum { TASK_ROWS = 512 }; /* a multiple of a tile */

static hf_status note(repack_queue *q, const repack_task *t) {
  if (q->n == q->cap) {
    int cap = q->cap ? 2 * q->cap : 256;
    HF_TRY(hf_realloc(&q->task, (size_t)cap, sizeof *q->task, "list of weights to repack"));
    q->cap = cap;
  }
  q->task[q->n++] = *t;
  return HF_OK;
}

static repack_queue *queue_of(repack *r, int node) {
  return &r->queue[node >= 0 && node < TOPO_MAX_NODES ? node : TOPO_MAX_NODES];
}

hf_status repack_add(repack *r, const kern_mat *rows, kern_layout layout, int node, void *to) {
  for (int row = 0; row < rows->n_rows; row += TASK_ROWS) {
    int end = row + TASK_ROWS < rows->n_rows ? row + TASK_ROWS : rows->n_rows;
    HF_TRY(note(queue_of(r, node), &(repack_task){.rows = *rows, .layout = layout, .row0 = row, .row1 = end, .to = to}));
  }
  return HF_OK;
}

hf_status repack_add_read(repack *r, const kern_mat *mat, int id, int layer, int expert, void *to) {
  repack_task t = {.rows = *mat, .id = id, .layer = layer, .expert = expert, .to = to};
  t.rows.data = NULL;
  return note(queue_of(r, -1), &t);
}

void repack_rows(const kern_mat *rows, kern_layout layout, int row0, int row1, void *to) {
  if (layout == KL_TILE16) {
    kern_tile_pack(rows, row0, row1, to);
    return;
  }
  const size_t bytes = kern_row_bytes(rows->format, rows->n_cols);
  for (int r = row0; r < row1; r++)
    memcpy((char *)to + (size_t)r * bytes, (const char *)rows->data + (size_t)r * rows->row_bytes, bytes);
}

/* Whole pages only: what they share with neighbours is read again from the page cache. */
static void give_back(const repack_task *t, size_t page) {
  uintptr_t from = (uintptr_t)t->rows.data + (size_t)t->row0 * t->rows.row_bytes;
  uintptr_t to =
      (uintptr_t)t->rows.data + (size_t)(t->row1 - 1) * t->rows.row_bytes + kern_row_bytes(t->rows.format, t->rows.n_cols);
  from = (from + page - 1) / page * page;
  to = to / page * page;
  if (from < to) (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

typedef struct {
  repack *r;
  pool *p;
  repack_read_fn *read;
  void *user;
  atomic_int failed; /* 1 + thread of the first failure: it alone writes st and line */
  hf_status st;
  char line[1024];
} job;

static void do_task(job *j, const repack_task *t, size_t page, int thread) {
  if (t->rows.data) {
    repack_rows(&t->rows, t->layout, t->row0, t->row1, t->to);
    give_back(t, page);
    return;
  }
  hf_status st = j->read(j->user, t);
  int none = 0;
  if (st == HF_OK || !atomic_compare_exchange_strong(&j->failed, &none, thread + 1)) return;
  j->st = st;
  snprintf(j->line, sizeof j->line, "%s", hf_error_line());
}

static void work(void *arg, int thread, int n_threads) {
  job *j = arg;
  const size_t page = (size_t)sysconf(_SC_PAGESIZE);
  const int own = pool_node_of(j->p, thread);
  (void)n_threads;
  for (int k = 0; k <= TOPO_MAX_NODES; k++) {
    repack_queue *q = &j->r->queue[(own + k) % (TOPO_MAX_NODES + 1)];
    for (int i; q->n && !atomic_load(&j->failed) && (i = pool_claim(&q->next, q->n, 1)) >= 0;)
      do_task(j, &q->task[i], page, thread);
  }
}

hf_status repack_run(repack *r, pool *p, repack_read_fn *read, void *user) {
  job j = {.r = r, .p = p, .read = read, .user = user};
  int n = 0;
  for (int i = 0; i <= TOPO_MAX_NODES; i++) {
    atomic_store(&r->queue[i].next, 0);
    n += r->queue[i].n;
  }
  if (n == 0) return HF_OK;
  pool_run(p, work, &j);
  for (int i = 0; i <= TOPO_MAX_NODES; i++) r->queue[i].n = 0;
  return j.st == HF_OK ? HF_OK : hf_fail(j.st, "%s", j.line);
}

void repack_free(repack *r) {
  for (int i = 0; i <= TOPO_MAX_NODES; i++) free(r->queue[i].task);
  *r = (repack){0};
}
