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
 *
 * NUMA nodes (moe_parts). Of each expert a node holds a slice of the intermediate dimension: rows of gate and up, the same columns of down; or all of it,
 * or nothing where blocks are too wide to divide. What a node holds is a part, with a claim list of its own that its workers alone take from: they read
 * weights of their node only. A part's down products are sums over its slices, so that y = (((y) + part 0) + part 1) + ...: part 0 is summed in y itself, the
 * others in memory of their own, and whoever ends the last part of 32 rows of d_model adds them up, in the order of parts. So there is no barrier more than
 * on one node, and bits depend on how experts are cut but, as ever, on no thread and no neighbour.
 * Activations: for a few tokens every thread packs for itself, in its own memory. For many they are packed once and read across: packed they are a third
 * of the bytes that packing on each node would read across (half in BF16), and some KB a token beside megabytes of weights an expert. Hidden activations never
 * leave their node; of results a node's 4 bytes a value and token do.
 * Memory: all scratch is allocated by moe_new for max_tok tokens; moe_run allocates nothing.
 * Threads: one moe object serves one moe_run at a time, by the n_threads of moe_new (of the pool, with parts) each time. */
#ifndef HF_KERNELS_MOE_H
#define HF_KERNELS_MOE_H

#include "kernels/kernels.h"
#include "kernels/mem/pool.h"

/* data NULL: this expert is not here. gate and up have the same format. Biases of the three products: [d_ff], [d_ff], [d_model], or all
 * NULL. Of a slice: matrices and biases of its rows, or columns; down_bias is in one of an expert's slices only. */
typedef struct {
  kern_mat gate, up, down;
  const float *gate_bias, *up_bias, *down_bias;
} moe_expert;

typedef struct {
  int n_experts, top_k, d_model, d_ff, max_tok;
  bool exact;         /* activations are not rounded (kern_act_of) */
  float swiglu_limit; /* above 0: gpt-oss's clamped SwiGLU (kern_table.swiglu_clamped), else the plain one */
} moe_shape;

/* A part's memory is on its node, and its workers are those of the pool there; where there are none, those of another part's node. */
typedef struct {
  int n;
  int node[TOPO_MAX_NODES];
  int d_ff[TOPO_MAX_NODES]; /* of its widest slice in any layer; all but the last slice of an expert end on multiples of 32 */
} moe_parts;

typedef struct {
  const moe_expert *experts; /* [n_experts] of this layer; with parts [n][n_experts] */
  int n_tok;
  const float *x; /* [n_tok][x_stride] */
  int x_stride;
  const int32_t *ids;   /* [n_tok][top_k] ascending */
  const float *weights; /* [n_tok][top_k] */
  float *y;             /* [n_tok][y_stride] */
  int y_stride;
  bool add;    /* y += …, else y = … */
  bool same_x; /* tokens and format are those of the run before: what was packed of them is taken again */
  void (*breathe)(
      void *user); /* called by thread 0 after each of its claims, for what cannot wait until the run ends; NULL: nothing can */
  void *user;
} moe_job;

typedef struct moe moe;
/* What will be allocated, for budgets; parts NULL: whole experts. */
int64_t moe_scratch_bytes(const moe_shape *s, const moe_parts *parts, int n_threads);
HF_MUST hf_status moe_new(const moe_shape *s, int n_threads, moe **out);
HF_MUST hf_status moe_new_parts(const moe_shape *s, const moe_parts *parts, const pool *p, moe **out);
void moe_free(moe *m);
/* Called by every thread of the pool inside pool_run with the same job; p may be NULL when n_threads is 1 and there are no parts. */
void moe_run(moe *m, const moe_job *job, pool *p, int thread, int n_threads);
/* After a run: distinct experts touched and (token, expert) pairs computed, however many slices an expert has. */
int moe_last_distinct(const moe *m);
int moe_last_pairs(const moe *m);
/* Tokens of the i-th active expert of the last run. */
int moe_last_expert_tokens(const moe *m, int i);
#endif
