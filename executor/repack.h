/* repack.h: weights from the rows of a file into tiles (kernels.h), by all threads of the pool. */
#ifndef HF_EXECUTOR_REPACK_H
#define HF_EXECUTOR_REPACK_H

#include <stdatomic.h>

#include "kernels/kernels.h"
#include "kernels/mem/pool.h"

typedef struct {
  kern_mat rows;
  int row0, row1;
  void *tiles;
} repack_task;

/* Zero before its first use. */
typedef struct {
  repack_task *task;
  int n, cap;
  atomic_int next;
} repack;

/* Notes a matrix in KL_ROWS that lies in the mapping of a file; tiles: kern_mat_bytes(KL_TILE16, ...) bytes. */
HF_MUST hf_status repack_add(repack *r, const kern_mat *rows, void *tiles);
/* Repacks all that was noted and forgets it. Pages of the mapping that were read are given back, so that a model is in memory once. */
void repack_run(repack *r, pool *p);
void repack_free(repack *r);
#endif
