/* repack.h: weights from the rows of a file to where they are computed from, by all threads of the pool: rows of a mapping into tiles (kernels.h), and
 * tensors that have no mapping through a reader that the caller gives. */
#ifndef HF_EXECUTOR_REPACK_H
#define HF_EXECUTOR_REPACK_H

#include <stdatomic.h>

#include "kernels/kernels.h"
#include "kernels/mem/pool.h"

typedef struct {
  kern_mat rows; /* data NULL: a tensor to be read, in the layout wanted */
  int row0, row1;
  int id, layer, expert;
  void *to;
} repack_task;

/* Zero before its first use. */
typedef struct {
  repack_task *task;
  int n, cap;
  atomic_int next;
} repack;

/* Fills t->to; called by any worker. */
typedef hf_status repack_read_fn(void *user, const repack_task *t);

/* Notes a matrix in KL_ROWS that lies in the mapping of a file; tiles: kern_mat_bytes(KL_TILE16, ...) bytes. */
HF_MUST hf_status repack_add(repack *r, const kern_mat *rows, void *tiles);
/* Notes a tensor to be read, mat as it is wanted at `to`. */
HF_MUST hf_status repack_add_read(repack *r, const kern_mat *mat, int id, int layer, int expert, void *to);
/* Does all that was noted and forgets it, also on failure; the first failure of the reader is returned. Pages of the mapping that were read are given
 * back, so that a model is in memory once. */
HF_MUST hf_status repack_run(repack *r, pool *p, repack_read_fn *read, void *user);
void repack_free(repack *r);
#endif
