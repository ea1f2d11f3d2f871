/* attn.h: the attention of a step over threads: which thread computes which rows over which context.
 *
 * Consecutive tokens of one sequence are computed together, so that rows of the cache are converted once for all of them. Work is cut into units of
 * at most KERN_ATTN_ROWS query rows of one KV head. Where there are few units for the threads, they are cut smaller, and their context is cut
 * into segments, too: then every thread first computes partial results (attn_step_run) and, after all threads have, some of them
 * fold these (attn_step_merge). Results have the same bits in every case (kern_attn).
 *
 * Thread rule: all threads of a step call both functions with the same arguments but `thread`; between the two there is a barrier. */
#ifndef HF_KERNELS_ATTN_H
#define HF_KERNELS_ATTN_H

#include "kernels/kernels.h"

typedef struct {
  kern_attn a; /* kv.pages, n_q, pos0, q, out, strides: set per sequence by the functions below */
  int n_tok;
  const int32_t *pos, *seq;  /* [n_tok] */
  const uint8_t *skip;       /* [n_tok]: tokens that are somebody else's, or NULL */
  const int32_t *page_table; /* [sequences][pages_per_seq] */
  int pages_per_seq;
  const float *q; /* [n_tok][q_stride] */
  float *out;     /* [n_tok][out_stride] */
  size_t q_stride, out_stride;
  char *scratch; /* [n_threads][scratch_bytes], scratch_bytes >= kern_attn_scratch_bytes(dk, dv), a multiple of 64 */
  size_t scratch_bytes;
  float *part; /* partial results; too few of them (or NULL): contexts are not cut */
  size_t part_floats;
} attn_step;

/* How many tokens from t on follow each other in one sequence and are marked alike; mark: attn_step's skip, mla_step's plain, or NULL. */
int attn_run_of(const int32_t *pos, const int32_t *seq, const uint8_t *mark, int n_tok, int t);

/* Room for the partial results that `threads` threads can use for sequences of up to `context` tokens; 0 for one thread. */
size_t attn_part_floats(int n_heads, int n_kv_heads, int dv, int64_t context, int threads);
/* Returns true when contexts are cut: attn_step_merge must follow. The same answer for every thread. */
bool attn_step_run(const attn_step *s, int thread, int n_threads);
void attn_step_merge(const attn_step *s, int thread, int n_threads);
#endif
