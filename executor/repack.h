/* repack.h: weights from the rows of a file to where they are computed from, by all threads of the pool: rows of a mapping into tiles (kernels.h), and
 * tensors that have no mapping through a reader that the caller gives. What goes to a NUMA node is done by that node's threads, by others once these have
 * nothing of their own left. */
#ifndef HF_EXECUTOR_REPACK_H
#define HF_EXECUTOR_REPACK_H

#include <stdatomic.h>

#include "kernels/kernels.h"
#include "kernels/mem/pool.h"

typedef struct {
  kern_mat rows;      /* data NULL: a tensor to be read, in the layout wanted */
  kern_layout layout; /* of what has rows */
  int row0, row1;
  int id, layer, expert;
  void *to;
} repack_task;

typedef struct {
  repack_task *task;
  int n, cap;
  atomic_int next;
} repack_queue;

/* Zero before its first use. */
typedef struct {
  repack_queue queue[TOPO_MAX_NODES + 1]; /* of each node, the last of none */
} repack;

/* Fills t->to; called by any worker. */
typedef hf_status repack_read_fn(void *user, const repack_task *t);

/* Rows [row0, row1) of a matrix in KL_ROWS, which may be a slice of the columns of a wider one, to their place in the same matrix in this layout. */
void repack_rows(const kern_mat *rows, kern_layout layout, int row0, int row1, void *to);
/* Notes all rows of a matrix in KL_ROWS that lies in the mapping of a file; to: kern_mat_bytes(layout, ...) bytes on this node, -1 = anywhere. */
HF_MUST hf_status repack_add(repack *r, const kern_mat *rows, kern_layout layout, int node, void *to);
/* Notes a tensor to be read, mat as it is wanted at `to`, or in whatever form the reader knows. */
HF_MUST hf_status repack_add_read(repack *r, const kern_mat *mat, int id, int layer, int expert, void *to);
/* Does all that was noted and forgets it, also on failure; the first failure of the reader is returned. Pages of the mapping that were read are given
 * back, so that a model is in memory once. */
HF_MUST hf_status repack_run(repack *r, pool *p, repack_read_fn *read, void *user);
void repack_free(repack *r);
#endif
