/* job.c: a recording's memory on the device and its graph, made when a step is first launched, and again when residency has changed. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "kernels/cuda/dev/cuda_dev.h"

/* ---- memory ---- */

static hf_status room(cuda_job *k, size_t bytes, const char *what, void *out) {
  dev_addr a = 0;
  if (bytes == 0) bytes = 1;
  HF_TRY(dev_alloc(k->c->d, bytes, what, &a));
  k->room[k->n_room].a = a;
  k->room[k->n_room++].bytes = bytes;
  *(void **)out = (void *)(uintptr_t)a;
  return HF_OK;
}

static hf_status pinned(cuda_job *k, size_t bytes, void *out) {
  const cuda_runtime *rt = &k->c->rt;
  const int rc = rt->host_alloc(rt->self, bytes ? bytes : 1, out);
  if (rc == CUDA_RT_NO_MEMORY)
    return hf_fail(HF_MACHINE, "CUDA device: %zu bytes of page-locked memory are not to be had (ulimit -l, or less context)",
                   bytes);
  return rc ? cuda_lose(k->c, rc, "page-locked memory") : HF_OK;
}

static void free_graph(cuda_job *k) {
  if (k->graph && !k->c->abandoned) (void)k->c->rt.graph_free(k->c->rt.self, k->graph);
  k->graph = NULL;
}

static void free_in(cuda_job *k) {
  if (k->in && !k->c->abandoned) (void)k->c->rt.host_release(k->c->rt.self, k->in);
  k->in = NULL;
}

static void free_rooms(cuda_job *k) {
  while (k->n_room > 0) {
    k->n_room--;
    dev_release(k->c->d, k->room[k->n_room].a, k->room[k->n_room].bytes);
  }
}

static void job_free(dev_recording *r) {
  cuda_job *k = r->impl;
  const cuda_runtime *rt = &k->c->rt;
  void *const blocks[] = {k->x, k->y, k->logits, k->weights, k->ids};
  free_graph(k);
  free_in(k);
  free_rooms(k);
  for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
    if (blocks[i] && !k->c->abandoned) (void)rt->host_release(rt->self, blocks[i]);
  if (k->c->abandoned) { /* a host node may still come */
    k->next = k->c->jobs_left;
    k->c->jobs_left = k;
    return;
  }
  free(k->seen);
  free(k->node);
  free(k);
}

static size_t experts_of(const dev_recording *r) {
  for (int i = 0; i < r->n_ops; i++)
    if (r->ops[i].kind == DOP_EXPERTS) return (size_t)r->ctx->n_layers * (size_t)r->ctx->n_experts;
  return 0;
}

hf_status cuda_record(dev *d, dev_recording *r) {
  cuda_job *k = NULL;
  HF_TRY(cuda_check_ops(r));
  HF_TRY(hf_alloc(&k, 1, sizeof *k, "recording"));
  k->c = d->impl;
  k->r = r;
  r->impl = k;
  r->impl_free = job_free;
  size_t x_cols = 1, logit_cols = 1;
  for (int i = 0; i < r->n_ops; i++) {
    const dev_op *op = &r->ops[i];
    if (op->kind == DOP_COPY_IN) k->in_cols = op->n;
    if ((op->kind == DOP_COPY_OUT || op->kind == DOP_COPY_IN) && (size_t)op->n > x_cols) x_cols = (size_t)op->n;
    if (op->kind == DOP_COPY_LOGITS && (size_t)op->n > logit_cols) logit_cols = (size_t)op->n;
    if (op->kind == DOP_ADD_IN && op->n != r->ctx->d_model)
      return hf_fail(HF_INPUT, "CUDA device: results of the host have %d numbers a row, not %d", r->ctx->d_model, op->n);
  }
  const size_t tok = (size_t)r->max_tok, routed = (size_t)r->ctx->n_layers * tok * (size_t)r->ctx->top_k;
  HF_TRY(hf_alloc(&k->node, (size_t)r->n_ops + 1, sizeof *k->node, "recording"));
  HF_TRY(hf_alloc(&k->seen, experts_of(r) + 1, sizeof *k->seen, "recording"));
  HF_TRY(pinned(k, tok * x_cols * sizeof(float), &k->x));
  HF_TRY(pinned(k, tok * (size_t)r->ctx->d_model * sizeof(float), &k->y));
  HF_TRY(pinned(k, (size_t)r->max_logits * logit_cols * sizeof(float), &k->logits));
  HF_TRY(pinned(k, routed * sizeof(float), &k->weights));
  return pinned(k, routed * sizeof(int32_t), &k->ids);
}

/* ---- the graph ---- */

static hf_status lay_in(cuda_job *k, int pages_per_seq) {
  const size_t tok = (size_t)k->r->max_tok, logits = (size_t)k->r->max_logits;
  size_t at = 0;
  for (int i = 0; i < 2; i++) {
    k->chunks[i] = ((i == DEV_ROWS_LOGITS ? k->r->max_logits : k->r->max_tok) + HFC_MM_TOKENS - 1) / HFC_MM_TOKENS;
    k->at_counts[i] = at;
    at += (size_t)k->chunks[i] + 1;
  }
  k->at_ids = at, at += tok;
  k->at_pos = at, at += tok;
  k->at_seq = at, at += tok;
  k->at_rows = at, at += logits;
  k->at_pages = at, at += tok * (size_t)pages_per_seq;
  k->pages_per_seq = pages_per_seq;
  k->in_bytes = at * sizeof *k->in;
  HF_TRY(pinned(k, k->in_bytes, &k->in));
  return room(k, k->in_bytes, "a step's inputs", &k->in_dev);
}

static hf_status lay_scratch(cuda_job *k) {
  const dev_recording *r = k->r;
  const dev_context *ctx = r->ctx;
  const size_t tok = (size_t)r->max_tok, pairs = tok * (size_t)ctx->top_k, routed = (size_t)ctx->n_layers * pairs;
  size_t part = 0, n_experts = experts_of(r);
  int cols = 0;
  for (int i = 0; i < r->n_ops; i++) {
    const dev_op *op = &r->ops[i];
    if (op->kind == DOP_ATTN_GQA) {
      const size_t n = hfc_attn_part_floats(r->max_tok, op->count, op->n, k->pages_per_seq * ctx->kv_page_tokens);
      if (n > part) part = n;
    }
    if (op->kind == DOP_EXPERTS && op->n > cols) cols = op->n;
  }
  HF_TRY(room(k, routed * sizeof(int32_t), "routing", &k->ids_dev));
  HF_TRY(room(k, routed * sizeof(float), "routing", &k->weights_dev));
  HF_TRY(room(k, part * sizeof(float), "scratch of the attention", &k->part));
  if (n_experts == 0) return HF_OK;
  HF_TRY(room(k, n_experts * sizeof *k->table, "the table of experts", &k->table));
  HF_TRY(
      room(k, hfc_experts_lists_ints(ctx->n_experts, ctx->top_k, r->max_tok) * sizeof(int32_t), "lists of experts", &k->lists));
  HF_TRY(room(k, pairs * (size_t)ctx->d_ff_expert * sizeof(float), "scratch of experts", &k->hidden));
  HF_TRY(room(k, pairs * (size_t)cols * sizeof(float), "scratch of experts", &k->expert_out));
  HF_TRY(room(k, tok * kern_act_bytes_any(cols), "scratch of experts", &k->packed));
  return room(k, pairs * kern_act_bytes_any(ctx->d_ff_expert), "scratch of experts", &k->hidden_packed);
}

/* All or nothing. */
static hf_status lay_out(cuda_job *k, int pages_per_seq) {
  free_in(k);
  free_rooms(k);
  hf_status st = lay_in(k, pages_per_seq);
  if (st == HF_OK) st = lay_scratch(k);
  if (st == HF_OK) return HF_OK;
  free_in(k);
  free_rooms(k);
  return st;
}

static hf_status put_table(cuda_job *k) {
  const dev_context *ctx = k->r->ctx;
  const size_t n = experts_of(k->r);
  hfc_expert *table = NULL;
  if (n == 0) return HF_OK;
  for (int i = 0; i < k->r->n_ops; i++) {
    kern_format gate, down;
    if (k->r->ops[i].kind == DOP_EXPERTS && !cuda_expert_formats(ctx, k->r->ops[i].layer, &gate, &down))
      return hf_fail(HF_UNSUPPORTED, "CUDA device: resident experts of layer %d in formats or layouts that have no kernel yet",
                     k->r->ops[i].layer);
  }
  HF_TRY(hf_alloc(&table, n, sizeof *table, "table of experts"));
  for (size_t i = 0; i < n; i++) {
    const dev_expert *x = &ctx->experts[i];
    const dev_addr from[] = {x->gate.data, x->up.data, x->down.data, x->gate_bias, x->up_bias, x->down_bias};
    table[i] = (hfc_expert){(void *)(uintptr_t)from[0], (void *)(uintptr_t)from[1], (void *)(uintptr_t)from[2],
                            (void *)(uintptr_t)from[3], (void *)(uintptr_t)from[4], (void *)(uintptr_t)from[5]};
  }
  const hf_status st = dev_upload(k->c->d, (dev_addr)(uintptr_t)k->table, table, n * sizeof *table);
  free(table);
  if (st == HF_OK) memcpy(k->seen, ctx->experts, n * sizeof *k->seen);
  return st;
}

static hf_status make_graph(cuda_job *k) {
  const cuda_runtime *rt = &k->c->rt;
  void *const stream = k->lane->stream;
  int rc = rt->record_begin(rt->self, stream);
  if (rc) return cuda_lose(k->c, rc, "recording");
  const int bad = cuda_add_ops(k);
  rc = rt->record_end(rt->self, stream, &k->graph);
  if (bad) free_graph(k);
  if (bad == HFC_UNSUPPORTED || bad == HFC_INVALID) return hf_fail(HF_UNSUPPORTED, "CUDA device: a shape that a kernel declines");
  if (bad || rc) return cuda_lose(k->c, bad ? bad : rc, "recording");
  return HF_OK;
}

static void fill_in(cuda_job *k, const dev_step *s) {
  const int n[2] = {[DEV_ROWS_TOKENS] = s->n_tok, [DEV_ROWS_LOGITS] = s->n_logits};
  for (int i = 0; i < 2; i++)
    for (int c = 0; c < k->chunks[i]; c++)
      k->in[k->at_counts[i] + (size_t)c] = n[i] > c * HFC_MM_TOKENS ? n[i] - c * HFC_MM_TOKENS : 0;
  for (int t = 0; t < s->n_tok; t++) {
    if (s->ids) k->in[k->at_ids + (size_t)t] = s->ids[t];
    if (s->pos) k->in[k->at_pos + (size_t)t] = s->pos[t];
    k->in[k->at_seq + (size_t)t] = t; /* pages are those of the token's sequence, found here */
    if (s->page_table && s->seq && k->pages_per_seq > 0)
      memcpy(k->in + k->at_pages + (size_t)t * (size_t)k->pages_per_seq,
             s->page_table + (size_t)s->seq[t] * (size_t)s->pages_per_seq, (size_t)k->pages_per_seq * sizeof *k->in);
  }
  for (int i = 0; i < s->n_logits; i++) k->in[k->at_rows + (size_t)i] = s->logit_rows[i];
  if (k->in_cols) memcpy(k->x, s->host_x, (size_t)s->n_tok * (size_t)k->in_cols * sizeof *k->x);
}

hf_status cuda_job_ready(cuda_job *k, cuda_lane *lane, const dev_step *s) {
  const size_t experts = experts_of(k->r) * sizeof *k->seen;
  const bool moved = k->graph && memcmp(k->seen, k->r->ctx->experts, experts) != 0;
  if (k->graph && (k->lane != lane || k->pages_per_seq != s->pages_per_seq || moved)) free_graph(k);
  k->lane = lane;
  if (!k->graph) {
    if (!k->in || k->pages_per_seq != s->pages_per_seq) HF_TRY(lay_out(k, s->pages_per_seq));
    HF_TRY(put_table(k));
    HF_TRY(make_graph(k));
  }
  fill_in(k, s);
  return HF_OK;
}

void cuda_answer(dev_step *s, int layer) {
  cuda_lane *lane = s->answer_to;
  cuda_job *k = lane->r->impl;
  memcpy(k->y, s->host_y, (size_t)s->n_tok * (size_t)k->r->ctx->d_model * sizeof *k->y);
  __atomic_store_n(&lane->flags->done, layer + 1, __ATOMIC_RELEASE);
}
