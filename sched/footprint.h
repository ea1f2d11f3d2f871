/* footprint.h: bytes of the activation buffers of a micro-batch. hf-plan budgets with it and hf-run lays its buffers out by it, so that a
 * plan that fits is never refused for a different count. Pure arithmetic. */
#ifndef HF_SCHED_FOOTPRINT_H
#define HF_SCHED_FOOTPRINT_H
#include <stdbool.h>
#include <stdint.h>

/* The model's dimensions that widths follow from; 0 where a family has none. */
typedef struct {
  bool mla;
  int d_model, vocab_size, n_heads, n_kv_heads, head_dim;
  int q_lora_rank, kv_lora_rank, nope_dim, rope_dim, v_dim;
  int d_ff_dense, d_ff_shared, n_experts;
} footprint_shape;

/* Floats a row of each buffer; `packed` is in bytes: room for the widest vector in any packing (at most 4 bytes an element and half a KiB). */
typedef struct {
  int residual, normed, query, latent_query, kv, latent_out, heads_out, ff, router, packed;
} footprint_widths;
footprint_widths footprint_of(const footprint_shape *s);

enum { FOOTPRINT_BUFFERS = 13, FOOTPRINT_ALIGN = 64 };
/* Buffers of a step of at most `tokens` tokens and `logits` rows that want logits, in the order residual, normed, query, latent query,
 * kv, latent out, heads out, gate, up, router, logit rows, logits, packed. Returns their sum, each rounded up to FOOTPRINT_ALIGN. */
int64_t footprint_bytes(const footprint_shape *s, int64_t tokens, int64_t logits, int64_t bytes[FOOTPRINT_BUFFERS]);

/* A slot for an expert whose matrices, each filled up to FOOTPRINT_ALIGN, have so many bytes: they and its biases. */
int64_t footprint_slot_bytes(int64_t expert_bytes, int d_ff_expert, int d_model);

/* Rows of a step of at most `tokens` tokens on their way to one other machine, and back: choices, weights, activations, results, and which token each is. */
int64_t footprint_rank_bytes(int64_t tokens, int top_k, int d_model);

/* Pages of a KV mirror (hf-run --standby): a whole context of each user at once and of each who is parked; and for each at once a page more, since the
 * end of a text keeps a slot of its own until the page that goes on from it is full. */
int64_t footprint_standby_pages(int64_t users, int64_t parked, int64_t pages_per_user);
/* Memory of one that is in a file: a page on its way there, and one back. */
int64_t footprint_standby_file(int64_t page_bytes);
#endif
