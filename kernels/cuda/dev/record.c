/* record.c: operations of kernels/device.h as calls of ops.h on a stream that records. */
#include <string.h>

#include "base/clock.h"
#include "kernels/cuda/dev/cuda_dev.h"

#define CALL(name, type)                                \
  static int call_##name(const void *a, void *stream) { \
    return hfc_##name((const type *)a, stream);         \
  }
CALL(mm_f32, hfc_mm)
CALL(mm_q8_0, hfc_mm)
CALL(mm_q4_0, hfc_mm)
CALL(mm_q4_1, hfc_mm)
CALL(mm_q5_0, hfc_mm)
CALL(mm_q5_1, hfc_mm)
CALL(mm_q4_k, hfc_mm)
CALL(mm_q5_k, hfc_mm)
CALL(mm_q6_k, hfc_mm)
CALL(mm_iq4_nl, hfc_mm)
CALL(mm_mxfp4, hfc_mm)
CALL(mm_int4, hfc_mm)
CALL(mm_bf16, hfc_mm)
CALL(mm_f16, hfc_mm)
CALL(mm_fp8, hfc_mm)
CALL(group_q8_0, hfc_group)
CALL(group_q4_0, hfc_group)
CALL(group_q4_k, hfc_group)
CALL(group_q6_k, hfc_group)
CALL(group_bf16, hfc_group)
CALL(group_fp8, hfc_group)
CALL(group_mxfp4, hfc_group)
CALL(group_int4, hfc_group)
CALL(pack_rows, hfc_pack)
CALL(rmsnorm_rows, hfc_rmsnorm)
CALL(rope_rows, hfc_rope)
CALL(route_rows, hfc_route)
CALL(kv_write_rows, hfc_kv_write)
CALL(attn_gqa, hfc_attn)
CALL(experts_sort, hfc_experts_lists)
CALL(experts_sum, hfc_experts_sum_of)
CALL(embed_rows, hfc_embed)
CALL(copy_rows, hfc_copy)
CALL(combine_rows, hfc_combine)

static const struct {
  cuda_call *mm, *group; /* NULL: none */
} kernels[KF_N] = {
    [KF_F32] = {call_mm_f32, NULL},
    [KF_F16] = {call_mm_f16, NULL},
    [KF_BF16] = {call_mm_bf16, call_group_bf16},
    [KF_Q8_0] = {call_mm_q8_0, call_group_q8_0},
    [KF_Q4_0] = {call_mm_q4_0, call_group_q4_0},
    [KF_Q4_1] = {call_mm_q4_1, NULL},
    [KF_Q5_0] = {call_mm_q5_0, NULL},
    [KF_Q5_1] = {call_mm_q5_1, NULL},
    [KF_Q4_K] = {call_mm_q4_k, call_group_q4_k},
    [KF_Q5_K] = {call_mm_q5_k, NULL},
    [KF_Q6_K] = {call_mm_q6_k, call_group_q6_k},
    [KF_IQ4_NL] = {call_mm_iq4_nl, NULL},
    [KF_MXFP4] = {call_mm_mxfp4, call_group_mxfp4},
    [KF_INT4] = {call_mm_int4, call_group_int4},
    [KF_FP8] = {call_mm_fp8, call_group_fp8},
};

static hf_status lacks(int i, const char *what) {
  return hf_fail(HF_UNSUPPORTED, "CUDA device: operation %d: %s", i, what);
}

static hf_status check_one(const dev_recording *r, const dev_op *op, int i) {
  if (op->when == DEV_UPLOAD) return HF_OK; /* steps that upload are refused */
  switch (op->kind) {
    case DOP_HEADMM:
    case DOP_ATTN_MLA:
    case DOP_ATTN_PLAIN: return lacks(i, "latent attention is not there yet");
    case DOP_ADD_GUESTS: return lacks(i, "guests are not there yet");
    case DOP_UPLOAD:
    case DOP_UPLOADED: return lacks(i, "uploads are not there yet");
    case DOP_EMBED:
      if (op->w.format > KF_Q8_0) return lacks(i, "no embedding in this format yet");
      return HF_OK;
    case DOP_MATMUL:
      if (!kernels[op->w.format].mm) return lacks(i, "no product in this format yet");
      if (op->w.layout != (op->w.format == KF_F32 ? KL_ROWS : KL_TILE16)) return lacks(i, "no product in this layout yet");
      if (op->act != kern_act_of(op->w.format, false)) return lacks(i, "no exact product in this format yet");
      return HF_OK;
    case DOP_KV_WRITE:
    case DOP_ATTN_GQA: return r->ctx->kv_type > KV_BF16 ? lacks(i, "no KV cache of this type yet") : HF_OK;
    case DOP_EXPERTS:
      if (op->layer == DEV_LAYER_OF_STEP) return lacks(i, "experts of other devices' layers are not there yet");
      return r->ctx->exact ? lacks(i, "no exact experts yet") : HF_OK;
    default: return HF_OK;
  }
}

hf_status cuda_check_ops(const dev_recording *r) {
  for (int i = 0; i < r->n_ops; i++) HF_TRY(check_one(r, &r->ops[i], i));
  return HF_OK;
}

bool cuda_expert_formats(const dev_context *ctx, int layer, kern_format *gate, kern_format *down) {
  const dev_expert *x = ctx->experts + (size_t)layer * (size_t)ctx->n_experts;
  *gate = *down = KF_N;
  for (int e = 0; e < ctx->n_experts; e++, x++) {
    if (!x->gate.data) continue;
    if (*gate == KF_N) *gate = x->gate.format, *down = x->down.format;
    if (x->gate.format != *gate || x->up.format != *gate || x->down.format != *down) return false;
    if (x->gate.layout != KL_TILE16 || x->up.layout != KL_TILE16 || x->down.layout != KL_TILE16) return false;
  }
  return *gate == KF_N || (kernels[*gate].group && kernels[*down].group);
}

/* ---- host nodes ---- */

static void carry(const cuda_node *n, const cuda_job *k, dev_step *s) {
  const size_t per = (size_t)k->r->ctx->top_k, rows = (size_t)s->n_tok;
  for (int l = n->first_layer; l < n->first_layer + n->n_layers; l++) {
    const size_t from = (size_t)l * (size_t)k->r->max_tok * per, to = (size_t)l * (size_t)s->max_tok * per;
    memcpy(s->route_ids + to, k->ids + from, rows * per * sizeof *k->ids);
    memcpy(s->route_weights + to, k->weights + from, rows * per * sizeof *k->weights);
  }
  if (n->x_cols) memcpy(s->host_x, k->x, rows * (size_t)n->x_cols * sizeof *k->x);
  if (n->logit_cols) memcpy(s->logits, k->logits, (size_t)s->n_logits * (size_t)n->logit_cols * sizeof *k->logits);
  if (!n->ready) return;
  atomic_store_explicit(&s->ready_at_ns, hf_now_ns(), memory_order_relaxed);
  atomic_store_explicit(&s->ready, n->ready, memory_order_release);
}

/* dev_quit sets over, then waits until nobody is busy: the step may go then. */
void cuda_run_node(void *arg) {
  const cuda_node *n = arg;
  const cuda_job *k = n->k;
  atomic_fetch_add(&k->c->busy, 1);
  if (!atomic_load(&k->c->over)) carry(n, k, k->lane->s);
  atomic_fetch_sub(&k->c->busy, 1);
}

static int add_node(cuda_job *k, int ready) {
  cuda_node *n = &k->node[k->n_node];
  *n = k->pending;
  n->k = k;
  n->ready = ready;
  k->pending = (cuda_node){0};
  if (!n->n_layers && !n->x_cols && !n->logit_cols && !ready) return 0;
  k->n_node++;
  return k->c->rt.host_call(k->c->rt.self, k->lane->stream, cuda_run_node, n);
}

/* ---- operations ---- */

#define ADD(k, name, ...) add(k, call_##name, &(__VA_ARGS__), sizeof(__VA_ARGS__))
static int add(cuda_job *k, cuda_call *fn, const void *args, size_t bytes) {
  return k->c->rt.call(k->c->rt.self, k->lane->stream, fn, args, bytes);
}

static float *fp(dev_addr a) {
  return (float *)(uintptr_t)a;
}

/* How many rows there are of the eight from 8 * chunk on; of the first, together with those behind it. */
static const int32_t *count_of(const cuda_job *k, dev_rows rows, int chunk) {
  return k->in_dev + k->at_counts[rows] + chunk;
}

static int rows_of(const cuda_job *k, dev_rows rows) {
  return rows == DEV_ROWS_LOGITS ? k->r->max_logits : k->r->max_tok;
}

static int add_matmul(cuda_job *k, const dev_op *op) {
  const int rows = rows_of(k, op->rows);
  int rc = 0;
  for (int t = 0; t < rows && !rc; t += HFC_MM_TOKENS) {
    const hfc_mm a = {.w = fp(op->w.data),
                      .n_rows = op->w.n_rows,
                      .n_cols = op->w.n_cols,
                      .n_tok = rows - t < HFC_MM_TOKENS ? rows - t : HFC_MM_TOKENS,
                      .x = (const char *)fp(op->in) + (size_t)t * (size_t)op->in_stride,
                      .x_bytes = (size_t)op->in_stride,
                      .y = fp(op->out) + (size_t)t * (size_t)op->out_stride,
                      .y_stride = (size_t)op->out_stride,
                      .bias = fp(op->vec),
                      .add = op->add,
                      .count = count_of(k, op->rows, t / HFC_MM_TOKENS)};
    rc = add(k, kernels[op->w.format].mm, &a, sizeof a);
  }
  return rc;
}

static int add_copy(cuda_job *k, const dev_op *op, const float *x, int x_stride, float *y, int y_stride, bool adds,
                    bool gathers) {
  return ADD(k, copy_rows,
             (hfc_copy){.n_tok = rows_of(k, op->rows),
                        .n = op->n,
                        .add = adds,
                        .x = x,
                        .x_stride = (size_t)x_stride,
                        .y = y,
                        .y_stride = (size_t)y_stride,
                        .from = gathers ? k->in_dev + k->at_rows : NULL,
                        .count = count_of(k, op->rows, 0)});
}

static int add_rmsnorm(cuda_job *k, const dev_op *op) {
  return ADD(k, rmsnorm_rows,
             (hfc_rmsnorm){.n_tok = rows_of(k, op->rows),
                           .n = op->n,
                           .heads = op->count,
                           .head_stride = (size_t)op->head_stride,
                           .x = fp(op->in),
                           .w = fp(op->vec),
                           .eps = op->eps,
                           .x_stride = (size_t)op->in_stride,
                           .y_stride = (size_t)op->out_stride,
                           .y = fp(op->out),
                           .count = count_of(k, op->rows, 0)});
}

static int add_rope(cuda_job *k, const dev_op *op) {
  const dev_context *ctx = k->r->ctx;
  const bool same = op->in == op->out; /* what is rotated lies where it goes to */
  return ADD(k, rope_rows,
             (hfc_rope){.n_tok = k->r->max_tok,
                        .heads = op->count,
                        .n = same ? ctx->rope_dim : op->n,
                        .dim = ctx->rope_dim,
                        .pairs = ctx->rope_pairs,
                        .x = fp(op->in),
                        .y = fp(op->out),
                        .x_stride = (size_t)(same ? op->out_stride : op->in_stride),
                        .y_stride = (size_t)op->out_stride,
                        .x_head = (size_t)(same ? op->out_head : op->head_stride),
                        .y_head = (size_t)op->out_head,
                        .offset = (size_t)(same ? op->out_offset : op->offset),
                        .y_offset = (size_t)op->out_offset,
                        .cos = fp(ctx->rope_cos),
                        .sin = fp(ctx->rope_sin),
                        .pos = k->in_dev + k->at_pos,
                        .count = count_of(k, DEV_ROWS_TOKENS, 0)});
}

static hfc_kv kv_of(const cuda_job *k, int layer) {
  const dev_context *ctx = k->r->ctx;
  return (hfc_kv){.base = (char *)fp(ctx->kv[layer]),
                  .page_bytes = ctx->kv_page_bytes,
                  .row_bytes = ctx->kv_row_bytes,
                  .page_tokens = ctx->kv_page_tokens,
                  .type = (int)ctx->kv_type,
                  .page_table = k->in_dev + k->at_pages,
                  .pages_per_seq = k->pages_per_seq,
                  .seq = k->in_dev + k->at_seq,
                  .pos = k->in_dev + k->at_pos};
}

static int add_kv_write(cuda_job *k, const dev_op *op) {
  const int heads = op->count > 0 ? op->count : 1;
  return ADD(k, kv_write_rows,
             (hfc_kv_write){.kv = kv_of(k, op->layer),
                            .n_tok = k->r->max_tok,
                            .heads = op->count,
                            .k = op->n / heads,
                            .v = op->n2 / heads,
                            .keys = fp(op->in),
                            .values = fp(op->in2),
                            .keys_stride = (size_t)op->in_stride,
                            .values_stride = (size_t)op->in2_stride,
                            .count = count_of(k, DEV_ROWS_TOKENS, 0)});
}

static int add_attention(cuda_job *k, const dev_op *op) {
  return ADD(k, attn_gqa,
             (hfc_attn){.kv = kv_of(k, op->layer),
                        .n_tok = k->r->max_tok,
                        .n_heads = op->count,
                        .n_kv_heads = op->n2,
                        .dk = op->n,
                        .dv = op->n,
                        .window = op->window,
                        .max_context = k->pages_per_seq * k->r->ctx->kv_page_tokens,
                        .scale = op->scale,
                        .sinks = fp(op->vec),
                        .q = fp(op->in),
                        .out = fp(op->out),
                        .part = k->part,
                        .q_stride = (size_t)op->in_stride,
                        .out_stride = (size_t)op->out_stride,
                        .count = count_of(k, DEV_ROWS_TOKENS, 0)});
}

static int add_route(cuda_job *k, const dev_op *op) {
  const dev_context *ctx = k->r->ctx;
  const kern_router *r = &ctx->router;
  const size_t n = (size_t)k->r->max_tok * (size_t)ctx->top_k, at = (size_t)op->layer * n;
  const hfc_route a = {.n_tok = k->r->max_tok,
                       .n_experts = r->n_experts,
                       .top_k = r->top_k,
                       .n_group = r->n_group,
                       .topk_group = r->topk_group,
                       .score = r->score,
                       .group = r->group,
                       .norm = r->norm,
                       .scale = r->scale,
                       .bias = ctx->router_bias ? fp(ctx->router_bias[op->layer]) : NULL,
                       .logits = fp(op->in),
                       .stride = (size_t)op->in_stride,
                       .ids = k->ids_dev + at,
                       .weights = k->weights_dev + at,
                       .count = count_of(k, DEV_ROWS_TOKENS, 0)};
  const cuda_runtime *rt = &k->c->rt;
  int rc = ADD(k, route_rows, a);
  if (!rc) rc = rt->copy(rt->self, k->lane->stream, k->ids + at, k->ids_dev + at, n * sizeof *k->ids);
  if (!rc) rc = rt->copy(rt->self, k->lane->stream, k->weights + at, k->weights_dev + at, n * sizeof *k->weights);
  cuda_node *p = &k->pending;
  if (p->n_layers == 0) p->first_layer = op->layer;
  p->n_layers = op->layer + 1 - p->first_layer;
  return rc;
}

static int add_pack(cuda_job *k, int rows, int n, kern_act act, const float *x, size_t x_stride, void *packed, size_t bytes,
                    const int32_t *count) {
  return ADD(k, pack_rows,
             (hfc_pack){.n_tok = rows,
                        .n = n,
                        .act = (int)act,
                        .x = x,
                        .x_stride = x_stride,
                        .packed = packed,
                        .packed_bytes = bytes,
                        .count = count});
}

/* ops.h has the sequence. */
static int add_experts(cuda_job *k, const dev_op *op) {
  const dev_context *ctx = k->r->ctx;
  kern_format gate, down;
  cuda_expert_formats(ctx, op->layer, &gate, &down);
  if (gate == KF_N) return 0;
  const int tok = k->r->max_tok, d = op->n, ff = ctx->d_ff_expert;
  const size_t at = (size_t)op->layer * (size_t)tok * (size_t)ctx->top_k;
  const kern_act act = kern_act_of(gate, false), down_act = kern_act_of(down, false);
  const int32_t *count = count_of(k, DEV_ROWS_TOKENS, 0);
  hfc_group g = {.experts = k->table + (size_t)op->layer * (size_t)ctx->n_experts,
                 .lists = k->lists,
                 .n_experts = ctx->n_experts,
                 .top_k = ctx->top_k,
                 .n_tok = tok,
                 .n_rows = ff,
                 .n_cols = d,
                 .gated = 1,
                 .x = k->packed,
                 .x_bytes = kern_act_bytes(act, d),
                 .y = k->hidden,
                 .y_stride = (size_t)ff,
                 .limit = ctx->swiglu_limit};
  const hfc_experts_lists sort = {.experts = g.experts,
                                  .n_experts = ctx->n_experts,
                                  .top_k = ctx->top_k,
                                  .n_tok = tok,
                                  .ids = k->ids_dev + at,
                                  .lists = k->lists,
                                  .count = count};
  const hfc_experts_sum_of sum = {.lists = k->lists,
                                  .n_experts = ctx->n_experts,
                                  .top_k = ctx->top_k,
                                  .n_tok = tok,
                                  .n = d,
                                  .add = 1,
                                  .weights = k->weights_dev + at,
                                  .part = k->expert_out,
                                  .part_stride = (size_t)d,
                                  .out = fp(op->out),
                                  .out_stride = (size_t)op->out_stride,
                                  .count = count};
  int rc = add_pack(k, tok, d, act, fp(op->in), (size_t)op->in_stride, k->packed, g.x_bytes, count);
  if (!rc) rc = ADD(k, experts_sort, sort);
  if (!rc) rc = add(k, kernels[gate].group, &g, sizeof g);
  if (!rc)
    rc = add_pack(k, tok * ctx->top_k, ff, down_act, k->hidden, (size_t)ff, k->hidden_packed, kern_act_bytes(down_act, ff),
                  k->lists + 1);
  g.n_rows = d, g.n_cols = ff, g.gated = 0, g.x = k->hidden_packed, g.x_bytes = kern_act_bytes(down_act, ff);
  g.y = k->expert_out, g.y_stride = (size_t)d;
  if (!rc) rc = add(k, kernels[down].group, &g, sizeof g);
  return rc ? rc : ADD(k, experts_sum, sum);
}

static int add_op(cuda_job *k, const dev_op *op) {
  switch (op->kind) {
    case DOP_EMBED:
      return ADD(k, embed_rows,
                 (hfc_embed){.n_tok = k->r->max_tok,
                             .n_cols = op->w.n_cols,
                             .format = (int)op->w.format,
                             .tiles = op->w.layout == KL_TILE16,
                             .w = fp(op->w.data),
                             .row_bytes = op->w.row_bytes,
                             .ids = k->in_dev + k->at_ids,
                             .y = fp(op->out),
                             .y_stride = (size_t)op->out_stride,
                             .count = count_of(k, DEV_ROWS_TOKENS, 0)});
    case DOP_RMSNORM: return add_rmsnorm(k, op);
    case DOP_PACK:
      return add_pack(k, rows_of(k, op->rows), op->n, op->act, fp(op->in), (size_t)op->in_stride, fp(op->out),
                      (size_t)op->out_stride, count_of(k, op->rows, 0));
    case DOP_MATMUL: return add_matmul(k, op);
    case DOP_ROPE: return add_rope(k, op);
    case DOP_KV_WRITE: return add_kv_write(k, op);
    case DOP_ATTN_GQA: return add_attention(k, op);
    case DOP_ROUTE: return add_route(k, op);
    case DOP_SWIGLU:
    case DOP_GATE:
      return ADD(k, combine_rows,
                 (hfc_combine){.n_tok = rows_of(k, op->rows),
                               .n = op->n,
                               .gate = op->kind == DOP_GATE,
                               .x = fp(op->in),
                               .x2 = fp(op->in2),
                               .x_stride = (size_t)op->in_stride,
                               .x2_stride = (size_t)op->in2_stride,
                               .y = fp(op->out),
                               .y_stride = (size_t)op->out_stride,
                               .count = count_of(k, op->rows, 0)});
    case DOP_EXPERTS: return add_experts(k, op);
    case DOP_GATHER: {
      dev_op of_rows = *op;
      of_rows.rows = DEV_ROWS_LOGITS;
      return add_copy(k, &of_rows, fp(op->in), op->in_stride, fp(op->out), op->out_stride, false, true);
    }
    case DOP_COPY_OUT: k->pending.x_cols = op->n; return add_copy(k, op, fp(op->in), op->in_stride, k->x, op->n, false, false);
    case DOP_COPY_LOGITS: {
      dev_op of_rows = *op;
      of_rows.rows = DEV_ROWS_LOGITS;
      k->pending.logit_cols = op->n;
      return add_copy(k, &of_rows, fp(op->in), op->in_stride, k->logits, op->n, false, false);
    }
    case DOP_SIGNAL: return add_node(k, op->layer + 1);
    case DOP_WAIT:
      return k->c->rt.wait(k->c->rt.self, k->lane->stream,
                           &(hfc_wait){.flag = &k->lane->flags->done,
                                       .error = &k->lane->flags->error,
                                       .value = op->layer + 1,
                                       .limit_ns = &k->lane->flags->limit_ns});
    case DOP_COPY_IN: return add_copy(k, op, k->x, op->n, fp(op->out), op->out_stride, false, false);
    case DOP_ADD_IN: return add_copy(k, op, k->y, op->n, fp(op->out), op->out_stride, true, false);
    case DOP_STAGE: return 0;
    default: return HFC_UNSUPPORTED; /* cuda_check_ops lets none through */
  }
}

int cuda_add_ops(cuda_job *k) {
  const cuda_runtime *rt = &k->c->rt;
  k->n_node = 0;
  k->pending = (cuda_node){0};
  int rc = rt->copy(rt->self, k->lane->stream, k->in_dev, k->in, k->in_bytes);
  for (int i = 0; i < k->r->n_ops && !rc; i++)
    if (k->r->ops[i].when != DEV_UPLOAD) rc = add_op(k, &k->r->ops[i]);
  return rc ? rc : add_node(k, 0);
}
