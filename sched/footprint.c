#include "sched/footprint.h"

static int most(int a, int b) {
  return a > b ? a : b;
}

footprint_widths footprint_of(const footprint_shape *s) {
  footprint_widths w = {.residual = s->d_model, .normed = s->d_model, .router = most(s->n_experts, 1)};
  w.query = s->n_heads * (s->mla ? s->nope_dim + s->rope_dim : s->head_dim);
  w.latent_query = s->mla ? s->n_heads * (s->kv_lora_rank + s->rope_dim) : 0;
  w.kv = s->mla ? s->kv_lora_rank + s->rope_dim : 2 * s->n_kv_heads * s->head_dim;
  w.latent_out = s->mla ? s->n_heads * s->kv_lora_rank : 0;
  w.heads_out = s->n_heads * (s->mla ? s->v_dim : s->head_dim);
  w.ff = most(most(s->d_ff_dense, s->d_ff_shared), s->q_lora_rank);
  int widest = most(most(s->d_model, w.heads_out), w.ff);
  w.packed = (4 * widest + 512 + FOOTPRINT_ALIGN - 1) / FOOTPRINT_ALIGN * FOOTPRINT_ALIGN;
  return w;
}

int64_t footprint_slot_bytes(int64_t expert_bytes, int d_ff_expert, int d_model) {
  enum { BIASES = 3 };
  return expert_bytes + 4 * (2LL * d_ff_expert + d_model) + BIASES * FOOTPRINT_ALIGN;
}

int64_t footprint_rank_bytes(int64_t tokens, int top_k, int d_model) {
  return tokens * (8LL * top_k + 8LL * d_model + 4);
}

int64_t footprint_standby_pages(int64_t users, int64_t parked, int64_t pages_per_user) {
  return (users + parked) * pages_per_user + users;
}

int64_t footprint_standby_file(int64_t page_bytes) {
  return 2 * page_bytes;
}

int64_t footprint_bytes(const footprint_shape *s, int64_t tokens, int64_t logits, int64_t bytes[FOOTPRINT_BUFFERS]) {
  const footprint_widths w = footprint_of(s);
  const int per_token[] = {w.residual, w.normed, w.query, w.latent_query, w.kv, w.latent_out, w.heads_out, w.ff, w.ff, w.router};
  const int n = sizeof per_token / sizeof *per_token;
  int64_t sum = 0;
  for (int i = 0; i < n; i++) bytes[i] = 4 * tokens * per_token[i];
  bytes[n] = 4 * logits * s->d_model;
  bytes[n + 1] = 4 * logits * s->vocab_size;
  bytes[n + 2] = (tokens > logits ? tokens : logits) * w.packed;
  for (int i = 0; i < FOOTPRINT_BUFFERS; i++) {
    bytes[i] = (bytes[i] + FOOTPRINT_ALIGN - 1) / FOOTPRINT_ALIGN * FOOTPRINT_ALIGN;
    sum += bytes[i];
  }
  return sum;
}
