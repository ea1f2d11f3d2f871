/* moe.h: the routed experts of one MoE layer for all tokens of a micro-batch, on the CPU:
 *
 *     y[t] (+)= sum over the experts e that t chose and that are in the table:  w[t,e] * W2_e( silu(W1_e x_t) * (W3_e x_t) )
 *
 * summed in ascending expert order, so the result of a token depends on no other token. The same code serves the host's experts (all
 * workers of the pool) and a virtual device's resident experts (one thread).
 *
 * Inside one moe_run:
 *   sort   the (token, expert) pairs are sorted by expert and the activations packed, once per token, not per expert: by every thread for itself
 *          for a few tokens, else by thread 0 and by all, with a barrier after it
 *   claims one list with one counter: first (active expert, rows of d_ff): gate and up products, SwiGLU, rounding to what the down weights want;
 *          then rows of d_model, each of which adds all active experts in order
 *   barrier
 * Between the two kinds of claims there is no barrier: a claim of rows of d_model waits, expert by expert, until the finished claims of that expert are
 * all there (a counter for each). Experts are claimed in order, so that only the last ones, still at work elsewhere, can be waited for, and that
 * is after the products of all others. So a layer has one barrier with few tokens and two with many.
 * How many rows a claim takes depends on threads and tokens and changes no bit: rows are independent.
 * Memory: all scratch is allocated by moe_new for max_tok tokens; moe_run allocates nothing.
 * Threads: one moe object serves one moe_run at a time, by the n_threads of moe_new each time. */
#ifndef HF_KERNELS_MOE_H
#define HF_KERNELS_MOE_H

#include "kernels/kernels.h"
#include "kernels/mem/pool.h"

/* data NULL: this expert is not here. gate and up have the same format. Biases of the three products: [d_ff], [d_ff], [d_model], or all
 * NULL. */
typedef struct {
  kern_mat gate, up, down;
  const float *gate_bias, *up_bias, *down_bias;
} moe_expert;

typedef struct {
  int n_experts, top_k, d_model, d_ff, max_tok;
  bool exact;         /* activations are not rounded (kern_act_of) */
  float swiglu_limit; /* above 0: gpt-oss's clamped SwiGLU (kern_table.swiglu_clamped), else the plain one */
} moe_shape;

typedef struct {
  const moe_expert *experts; /* [n_experts] of this layer */
  int n_tok;
  const float *x; /* [n_tok][x_stride] */
  int x_stride;
  const int32_t *ids;   /* [n_tok][top_k] ascending */
  const float *weights; /* [n_tok][top_k] */
  float *y;             /* [n_tok][y_stride] */
  int y_stride;
  bool add; /* y += …, else y = … */
} moe_job;

typedef struct moe moe;
/* What moe_new will allocate, for budgets. */
int64_t moe_scratch_bytes(const moe_shape *s, int n_threads);
HF_MUST hf_status moe_new(const moe_shape *s, int n_threads, moe **out);
void moe_free(moe *m);
/* Called by every thread of the pool inside pool_run with the same job; p may be NULL when n_threads is 1. */
void moe_run(moe *m, const moe_job *job, pool *p, int thread, int n_threads);
/* After a run: distinct experts touched and (token, expert) pairs computed. */
int moe_last_distinct(const moe *m);
int moe_last_pairs(const moe *m);
/* Tokens of the i-th active expert of the last run. */
int moe_last_expert_tokens(const moe *m, int i);
#endif
