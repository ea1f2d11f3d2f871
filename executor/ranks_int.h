/* ranks_int.h: what rank 0 (ranks.c) and the others (ranks_work.c) say to each other. All of it is from processes of the same program: fields in the order
 * of memory, checked by version, not by field. */
#ifndef HF_EXECUTOR_RANKS_INT_H
#define HF_EXECUTOR_RANKS_INT_H

#include <stdint.h>

#include "db/plan.h"

enum { RANKS_MAGIC = 0x6866724b };
enum { TAG_ORDER = 1 /* rank 0 to others */, TAG_STATE, TAG_RESULT };
typedef enum { ORDER_LOAD, ORDER_JOB, ORDER_UNLOAD, ORDER_END, ORDER_BEAT } order_kind;
typedef enum { STATE_HERE, STATE_LOADING, STATE_READY, STATE_FAILED, STATE_BYE } state_kind;

/* Followed by: LOAD load_order, owner[n_layers * n_experts], plan_kernel[n_kernels]; JOB ids[n_rows][top_k], weights[n_rows][top_k], x[n_rows][d_model]. */
typedef struct {
  uint32_t magic;
  int32_t kind;
  int32_t number; /* of the load that it belongs to */
  int32_t unused; /* the size is a multiple of 8 */
  int32_t layer, n_rows;
} order;

typedef struct {
  int32_t n_layers, n_experts, top_k, d_model, d_ff, max_tok;
  int32_t exact, dequantise, dequantised_to, n_kernels;
  int64_t model_bytes; /* of all weights in their format: the same model? */
} load_order;

typedef struct {
  uint32_t magic;
  int32_t kind;
  int32_t number;
  int32_t status, threads;
  char version[24], host[64];
  char text[512]; /* FAILED: why */
} rank_state;

/* Followed by y[n_rows][d_model]. */
typedef struct {
  uint32_t magic;
  int32_t number, layer, n_rows;
  int64_t busy_ns;
} result;
#endif
