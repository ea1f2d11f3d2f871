/* mla.h: latent attention of prompts in its plain form: keys and values of every head are expanded from the latents of the cache, then attention is
 * that of ordinary heads. A pair of query and context costs nope + rope + v multiply-adds a head instead of the 2 lora + rope of the absorbed
 * form, but each token of context (nope + v) * lora a head once for all queries of the step; which form pays is sched/mla.h's to say, and
 * a step says it token by token (`plain`).
 *
 * Expanded are KERN_ATTN_SEGMENT tokens of one head at a time, in f32, per thread; never more of the context. The products keep to the rounding of
 * their format (kernels.h) for values. Keys need the transposed matrix, and a transposed block is no block: its weights are rounded to
 * BF16 (F16 and F32 stay as they are, exact mode takes F32).
 *
 * The result of a token depends on its query and its context alone: the same bits for any number of threads and tokens beside it. It differs from the
 * absorbed form in rounding, as activations are rounded at other places: 2e-3 relative of BF16, 5e-3 of Q8B32, 1e-6 exact.
 *
 * Thread rule: all threads of a step call with the same arguments but `thread`. */
#ifndef HF_KERNELS_MLA_H
#define HF_KERNELS_MLA_H

#include "kernels/kernels.h"

typedef struct {
  int n_heads, lora, nope, rope, dv;
} mla_dims;

typedef struct {
  mla_dims d;
  kern_kv kv;   /* pages: set per sequence */
  kern_mat k_b; /* [n_heads * lora][nope] */
  kern_mat v_b; /* [n_heads * dv][lora] */
  float scale;
  bool exact;
  int n_tok;
  const int32_t *pos, *seq;  /* [n_tok] */
  const uint8_t *plain;      /* [n_tok]: these tokens; the others are left alone */
  const int32_t *page_table; /* [sequences][pages_per_seq] */
  int pages_per_seq;
  const float *q,
      *q_rope; /* [n_tok]: the nope part of a head's query, and its rotated part; heads are q_head and q_rope_head floats apart */
  float *out;  /* [n_tok][out_stride]: heads side by side */
  size_t q_stride, q_head, q_rope_stride, q_rope_head, out_stride;
  char *scratch; /* [n_threads][scratch_bytes] */
  size_t scratch_bytes;
} mla_step;

/* Of one thread, for steps of up to max_tok tokens; a multiple of 64. */
size_t mla_scratch_bytes(const mla_dims *d, kern_format k_b, int max_tok, bool exact);
void mla_plain_run(const mla_step *s, int thread, int n_threads);
#endif
