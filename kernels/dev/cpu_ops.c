/* cpu_ops.c: each operation of device.h as a share of work per thread. Row-wise products split the rows of the matrix, per-token
 * operations split tokens, per-head operations split heads, so that no two threads write the same float. */
#include "kernels/dev/cpu_ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "kernels/attn.h"
#include "kernels/layouts.h"
#include "kernels/mla.h"

static float *fp(dev_addr a) {
  return (float *)(uintptr_t)a;
}
static char *cp(dev_addr a) {
  return (char *)(uintptr_t)a;
}

static int op_rows(const dev_op *op, const dev_step *s) {
  return op->rows == DEV_ROWS_LOGITS ? s->n_logits : s->n_tok;
}

static kern_mat host_mat(const dev_mat *w) {
  return (kern_mat){.format = w->format,
                    .layout = w->layout,
                    .n_rows = w->n_rows,
                    .n_cols = w->n_cols,
                    .row_bytes = w->row_bytes,
                    .data = cp(w->data)};
}

/* [lo, hi) of n items for this thread, in multiples of `unit`. */
static void share(int n, int unit, int thread, int n_threads, int *lo, int *hi) {
  int units = (n + unit - 1) / unit;
  *lo = (int)((int64_t)units * thread / n_threads) * unit;
  *hi = (int)((int64_t)units * (thread + 1) / n_threads) * unit;
  if (*lo > n) *lo = n;
  if (*hi > n) *hi = n;
}

static void op_embed(const dev_op *op, dev_step *s, int thread, int n_threads) {
  kern_mat w = host_mat(&op->w);
  for (int t = thread; t < s->n_tok; t += n_threads)
    kern_mat_row(&w, s->ids[t], fp(op->out) + (size_t)t * (size_t)op->out_stride);
}

static void op_rmsnorm(const dev_op *op, int rows, int thread, int n_threads) {
  for (int t = thread; t < rows; t += n_threads)
    for (int i = 0; i < op->count; i++)
      kern_get()->rmsnorm(fp(op->in) + (size_t)t * (size_t)op->in_stride + (size_t)i * (size_t)op->head_stride, fp(op->vec),
                          op->eps, op->n, fp(op->out) + (size_t)t * (size_t)op->out_stride + (size_t)i * (size_t)op->head_stride);
}

static void op_pack(const dev_op *op, int rows, int thread, int n_threads) {
  for (int t = thread; t < rows; t += n_threads)
    kern_get()->pack[op->act](fp(op->in) + (size_t)t * (size_t)op->in_stride, op->n,
                              cp(op->out) + (size_t)t * (size_t)op->out_stride);
}

static void op_matmul(dev_recording *r, const dev_op *op, int rows, int thread, int n_threads) {
  int lo, hi;
  share(op->w.n_rows, 16, thread, n_threads, &lo, &hi);
  if (lo >= hi || rows == 0) return;
  kern_mat w = host_mat(&op->w);
  const kern_mm_candidate *c =
      kern_mm_pick(w.format, op->act, w.layout, w.n_cols, rows, kern_preferred(KERN_USE_MATMUL, w.format, rows));
  const void **x = r->xptr + (size_t)thread * (size_t)r->max_rows;
  float **y = r->yptr + (size_t)thread * (size_t)r->max_rows;
  float *out = fp(op->out);
  for (int t = 0; t < rows; t++) x[t] = cp(op->in) + (size_t)t * (size_t)op->in_stride;
  if (!op->add) {
    for (int t = 0; t < rows; t++) y[t] = out + (size_t)t * (size_t)op->out_stride;
    c->fn(&w, lo, hi, rows, x, y);
  } else { /* a block of rows at a time through scratch, then added */
    float *tmp = r->tmp + (size_t)thread * (size_t)r->max_rows * CPU_OP_ROWS;
    for (int r0 = lo; r0 < hi; r0 += CPU_OP_ROWS) {
      int r1 = r0 + CPU_OP_ROWS < hi ? r0 + CPU_OP_ROWS : hi;
      for (int t = 0; t < rows; t++) y[t] = tmp + (ptrdiff_t)t * CPU_OP_ROWS - r0;
      c->fn(&w, r0, r1, rows, x, y);
      for (int t = 0; t < rows; t++)
        kern_get()->axpy(1.0f, tmp + (size_t)t * CPU_OP_ROWS, r1 - r0, out + (size_t)t * (size_t)op->out_stride + r0);
    }
  }
  if (op->vec)
    for (int t = 0; t < rows; t++)
      kern_get()->axpy(1.0f, fp(op->vec) + lo, hi - lo, out + (size_t)t * (size_t)op->out_stride + lo);
}

static void op_headmm(dev_recording *r, const dev_op *op, const dev_context *ctx, const dev_step *s, int thread, int n_threads) {
  int lo, hi;
  share(op->count, 1, thread, n_threads, &lo, &hi);
  kern_act act = kern_act_of(op->w.format, ctx->exact);
  kern_mat w = host_mat(&op->w);
  const void **x = r->xptr + (size_t)thread * (size_t)r->max_rows;
  float **y = r->yptr + (size_t)thread * (size_t)r->max_rows;
  char *pack = r->pack + (size_t)thread * (size_t)r->max_rows * r->pack_bytes;
  int rows = 0;
  for (int t = 0; t < s->n_tok; t++) rows += !(s->plain && s->plain[t]);
  if (rows == 0) return;
  const kern_mm_candidate *c =
      kern_mm_pick(w.format, act, w.layout, w.n_cols, rows, kern_preferred(KERN_USE_MATMUL, w.format, rows));
  for (int h = lo; h < hi; h++) {
    kern_mat head = w;
    int i = 0;
    head.n_rows = op->n;
    head.data = (const char *)w.data + (size_t)h * (size_t)op->n * w.row_bytes;
    for (int t = 0; t < s->n_tok; t++) {
      if (s->plain && s->plain[t]) continue;
      char *p = pack + (size_t)i * r->pack_bytes;
      kern_get()->pack[act](fp(op->in) + (size_t)t * (size_t)op->in_stride + (size_t)h * (size_t)op->head_stride, w.n_cols, p);
      x[i] = p;
      y[i++] = fp(op->out) + (size_t)t * (size_t)op->out_stride + (size_t)h * (size_t)op->out_head;
    }
    c->fn(&head, 0, op->n, rows, x, y);
  }
}

static void op_rope(const dev_op *op, const dev_context *ctx, dev_step *s, int thread, int n_threads) {
  int half = ctx->rope_dim / 2;
  for (int t = thread; t < s->n_tok; t += n_threads) {
    const float *in = fp(op->in) + (size_t)t * (size_t)op->in_stride;
    float *out = fp(op->out) + (size_t)t * (size_t)op->out_stride;
    const float *cos_row = fp(ctx->rope_cos) + (size_t)s->pos[t] * (size_t)half;
    const float *sin_row = fp(ctx->rope_sin) + (size_t)s->pos[t] * (size_t)half;
    if (op->in != op->out)
      for (int h = 0; h < op->count; h++)
        memcpy(out + (size_t)h * (size_t)op->out_head + op->out_offset, in + (size_t)h * (size_t)op->head_stride + op->offset,
               (size_t)op->n * sizeof(float));
    kern_rope(out, op->count, op->out_head, op->out_offset, ctx->rope_dim, cos_row, sin_row, ctx->rope_pairs);
  }
}

static void op_kv_write(const dev_op *op, const dev_context *ctx, dev_step *s, int thread, int n_threads) {
  const int heads = op->count > 0 ? op->count : 1;
  const kern_kv_shape shape = {.n_heads = op->count, .k = op->n / heads, .v = op->n2 / heads};
  kern_kv kv = {.base = cp(ctx->kv[op->layer]),
                .page_bytes = ctx->kv_page_bytes,
                .row_bytes = ctx->kv_row_bytes,
                .page_tokens = ctx->kv_page_tokens,
                .type = ctx->kv_type};
  for (int t = thread; t < s->n_tok; t += n_threads) {
    kv.pages = s->page_table + (size_t)s->seq[t] * (size_t)s->pages_per_seq;
    kern_kv_write(&kv, &shape, s->pos[t], fp(op->in) + (size_t)t * (size_t)op->in_stride,
                  fp(op->in2) + (size_t)t * (size_t)op->in2_stride);
  }
}

static attn_step attention_of(const dev_recording *r, const dev_op *op, const dev_step *s) {
  const dev_context *ctx = r->ctx;
  const bool mla = op->kind == DOP_ATTN_MLA;
  return (attn_step){.a = {.kv = {.base = cp(ctx->kv[op->layer]),
                                  .page_bytes = ctx->kv_page_bytes,
                                  .row_bytes = ctx->kv_row_bytes,
                                  .page_tokens = ctx->kv_page_tokens,
                                  .type = ctx->kv_type},
                           .mla = mla,
                           .n_heads = op->count,
                           .n_kv_heads = mla ? 1 : op->n2,
                           .dk = mla ? op->n + op->n2 : op->n,
                           .dv = op->n,
                           .scale = op->scale,
                           .window = op->window,
                           .sinks = op->vec ? fp(op->vec) : NULL},
                     .n_tok = s->n_tok,
                     .pos = s->pos,
                     .seq = s->seq,
                     .skip = mla ? s->plain : NULL,
                     .page_table = s->page_table,
                     .pages_per_seq = s->pages_per_seq,
                     .q = fp(op->in),
                     .out = fp(op->out),
                     .q_stride = (size_t)op->in_stride,
                     .out_stride = (size_t)op->out_stride,
                     .scratch = r->attn,
                     .scratch_bytes = r->attn_bytes,
                     .part = r->part,
                     .part_floats = r->part_floats};
}

static mla_dims plain_dims(const dev_op *op) {
  return (mla_dims){.n_heads = op->count, .lora = op->n, .nope = op->w.n_cols, .rope = op->n2, .dv = op->w2.n_rows / op->count};
}

static void op_attn_plain(const dev_recording *r, const dev_op *op, const dev_step *s, int thread, int n_threads) {
  const dev_context *ctx = r->ctx;
  const mla_step m = {.d = plain_dims(op),
                      .kv = {.base = cp(ctx->kv[op->layer]),
                             .page_bytes = ctx->kv_page_bytes,
                             .row_bytes = ctx->kv_row_bytes,
                             .page_tokens = ctx->kv_page_tokens,
                             .type = ctx->kv_type},
                      .k_b = host_mat(&op->w),
                      .v_b = host_mat(&op->w2),
                      .scale = op->scale,
                      .exact = ctx->exact,
                      .n_tok = s->n_tok,
                      .pos = s->pos,
                      .seq = s->seq,
                      .plain = s->plain,
                      .page_table = s->page_table,
                      .pages_per_seq = s->pages_per_seq,
                      .q = fp(op->in),
                      .q_stride = (size_t)op->in_stride,
                      .q_head = (size_t)op->head_stride,
                      .q_rope = fp(op->in2),
                      .q_rope_stride = (size_t)op->in2_stride,
                      .q_rope_head = (size_t)(op->n + op->n2),
                      .out = fp(op->out),
                      .out_stride = (size_t)op->out_stride,
                      .scratch = r->plain,
                      .scratch_bytes = r->plain_bytes};
  mla_plain_run(&m, thread, n_threads);
}

/* Weights of imposed experts, by the router's own rule: scores of the chosen, normalised and scaled. */
static void route_forced(const kern_router *r, const float *logits, const int32_t *ids, float *weights) {
  float max = -INFINITY, sum = 0;
  for (int e = 0; e < r->n_experts; e++) max = fmaxf(max, logits[e]);
  if (r->score == 0)
    for (int e = 0; e < r->n_experts; e++) sum += expf(logits[e] - max);
  float chosen = 0;
  for (int k = 0; k < r->top_k; k++) {
    float z = logits[ids[k]];
    weights[k] = r->score == 1 ? 1.0f / (1.0f + expf(-z)) : r->score == 0 ? expf(z - max) / sum : expf(z - max);
    chosen += weights[k];
  }
  float f = r->scale;
  if (r->norm || r->score == 2) f /= chosen + (r->score == 1 ? 1e-20f : 0.0f);
  for (int k = 0; k < r->top_k; k++) weights[k] *= f;
}

static void op_route(const dev_op *op, const dev_context *ctx, dev_step *s, int thread, int n_threads) {
  kern_router router = ctx->router;
  router.bias = ctx->router_bias && ctx->router_bias[op->layer] ? fp(ctx->router_bias[op->layer]) : NULL;
  size_t base = (size_t)op->layer * (size_t)s->max_tok * (size_t)ctx->top_k;
  for (int t = thread; t < s->n_tok; t += n_threads) {
    size_t at = base + (size_t)t * (size_t)ctx->top_k;
    const float *logits = fp(op->in) + (size_t)t * (size_t)op->in_stride;
    const int32_t *forced = s->forced_ids ? s->forced_ids + at : NULL;
    if (forced && forced[0] >= 0) {
      memcpy(s->route_ids + at, forced, (size_t)ctx->top_k * sizeof *forced);
      route_forced(&router, logits, forced, s->route_weights + at);
    } else {
      kern_route(&router, logits, s->route_ids + at, s->route_weights + at);
    }
  }
}

static void op_gate(const dev_op *op, int rows, int thread, int n_threads) {
  for (int t = thread; t < rows; t += n_threads) {
    const float *in = fp(op->in) + (size_t)t * (size_t)op->in_stride;
    float *out = fp(op->out) + (size_t)t * (size_t)op->out_stride;
    float gate = 1.0f / (1.0f + expf(-fp(op->in2)[(size_t)t * (size_t)op->in2_stride]));
    for (int i = 0; i < op->n; i++) out[i] = in[i] * gate;
  }
}

static void op_experts(dev_recording *r, const dev_op *op, const dev_context *ctx, dev_step *s) {
  const int layer = cpu_op_layer(op, s);
  const dev_expert *e = ctx->experts + (size_t)layer * (size_t)ctx->n_experts;
  for (int i = 0; i < ctx->n_experts; i++) {
    r->table[i] = (moe_expert){.gate = host_mat(&e[i].gate),
                               .up = host_mat(&e[i].up),
                               .down = host_mat(&e[i].down),
                               .gate_bias = fp(e[i].gate_bias),
                               .up_bias = fp(e[i].up_bias),
                               .down_bias = fp(e[i].down_bias)};
    if (!e[i].gate.data) r->table[i].gate.data = NULL;
  }
  size_t at = (size_t)layer * (size_t)s->max_tok * (size_t)ctx->top_k;
  moe_job job = {.experts = r->table,
                 .n_tok = s->n_tok,
                 .x = fp(op->in),
                 .x_stride = op->in_stride,
                 .ids = s->route_ids + at,
                 .weights = s->route_weights + at,
                 .y = fp(op->out),
                 .y_stride = op->out_stride,
                 .add = op->layer != DEV_LAYER_OF_STEP};
  moe_run(r->experts, &job, NULL, 0, 1);
}

void cpu_sent_expert(dev_recording *r, const dev_op *op, dev_step *s, int e, const moe_expert *x, bool first) {
  const dev_context *ctx = r->ctx;
  const size_t at = (size_t)op->layer * (size_t)s->max_tok * (size_t)ctx->top_k, n = (size_t)op->n;
  for (int i = 0; first && i < ctx->n_experts; i++) r->table[i].gate.data = NULL;
  if (first) memset(fp(op->in2), 0, (size_t)s->n_tok * n * sizeof(float));
  r->table[e] = *x;
  const moe_job job = {.experts = r->table,
                       .n_tok = s->n_tok,
                       .x = fp(op->in),
                       .x_stride = op->in_stride,
                       .ids = s->route_ids + at,
                       .weights = s->route_weights + at,
                       .y = fp(op->in2),
                       .y_stride = op->n,
                       .add = true,
                       .same_x = !first};
  moe_run(r->experts, &job, NULL, 0, 1);
  r->table[e].gate.data = NULL;
}

void cpu_sent_end(dev_recording *r, const dev_op *op, dev_step *s, bool any) {
  (void)r;
  for (int t = 0; any && t < s->n_tok; t++)
    kern_get()->axpy(1.0f, fp(op->in2) + (size_t)t * (size_t)op->n, op->n, fp(op->out) + (size_t)t * (size_t)op->out_stride);
}

int cpu_last_resident(const dev_recording *r) {
  return r->experts ? moe_last_distinct(r->experts) : 0;
}

static void copy_rows(float *dst, size_t dst_stride, const float *src, size_t src_stride, int rows, int n, int thread,
                      int n_threads) {
  for (int t = thread; t < rows; t += n_threads)
    memcpy(dst + (size_t)t * dst_stride, src + (size_t)t * src_stride, (size_t)n * sizeof(float));
}

void cpu_op_finish(dev_recording *r, const dev_op *op, dev_step *s, int thread, int n_threads) {
  const attn_step a = attention_of(r, op, s);
  attn_step_merge(&a, thread, n_threads);
}

bool cpu_op_run(dev_recording *r, const dev_op *op, dev_step *s, int thread, int n_threads) {
  const dev_context *ctx = r->ctx;
  int rows = op_rows(op, s);
  size_t in_stride = (size_t)op->in_stride, out_stride = (size_t)op->out_stride;
  switch (op->kind) {
    case DOP_EMBED: op_embed(op, s, thread, n_threads); break;
    case DOP_RMSNORM: op_rmsnorm(op, rows, thread, n_threads); break;
    case DOP_PACK: op_pack(op, rows, thread, n_threads); break;
    case DOP_MATMUL: op_matmul(r, op, rows, thread, n_threads); break;
    case DOP_HEADMM: op_headmm(r, op, ctx, s, thread, n_threads); break;
    case DOP_ROPE: op_rope(op, ctx, s, thread, n_threads); break;
    case DOP_KV_WRITE: op_kv_write(op, ctx, s, thread, n_threads); break;
    case DOP_ATTN_MLA:
    case DOP_ATTN_GQA: {
      const attn_step a = attention_of(r, op, s);
      return attn_step_run(&a, thread, n_threads);
    }
    case DOP_ATTN_PLAIN: op_attn_plain(r, op, s, thread, n_threads); break;
    case DOP_ROUTE: op_route(op, ctx, s, thread, n_threads); break;
    case DOP_SWIGLU:
      for (int t = thread; t < rows; t += n_threads)
        kern_get()->swiglu(fp(op->in) + (size_t)t * in_stride, fp(op->in2) + (size_t)t * (size_t)op->in2_stride, op->n,
                           fp(op->out) + (size_t)t * out_stride);
      break;
    case DOP_GATE: op_gate(op, rows, thread, n_threads); break;
    case DOP_EXPERTS:
      if (thread == 0) op_experts(r, op, ctx, s);
      break;
    case DOP_GATHER:
      for (int i = thread; i < s->n_logits; i += n_threads)
        memcpy(fp(op->out) + (size_t)i * out_stride, fp(op->in) + (size_t)s->logit_rows[i] * in_stride,
               (size_t)op->n * sizeof(float));
      break;
    case DOP_COPY_OUT: copy_rows(s->host_x, (size_t)op->n, fp(op->in), in_stride, s->n_tok, op->n, thread, n_threads); break;
    case DOP_COPY_LOGITS:
      copy_rows(s->logits, (size_t)op->n, fp(op->in), in_stride, s->n_logits, op->n, thread, n_threads);
      break;
    case DOP_ADD_IN:
      for (int t = thread; t < s->n_tok; t += n_threads)
        kern_get()->axpy(1.0f, s->host_y + (size_t)t * (size_t)op->n, op->n, fp(op->out) + (size_t)t * out_stride);
      break;
    case DOP_ADD_GUESTS:
      for (int t = thread; t < s->n_tok; t += n_threads)
        kern_get()->axpy(1.0f, s->host_guests + (size_t)t * (size_t)op->n, op->n, fp(op->out) + (size_t)t * out_stride);
      break;
    case DOP_COPY_IN:
      for (int t = thread; t < s->n_tok; t += n_threads)
        memcpy(fp(op->out) + (size_t)t * out_stride, s->host_x + (size_t)t * (size_t)op->n, (size_t)op->n * sizeof(float));
      break;
    case DOP_SIGNAL:
    case DOP_WAIT:
    case DOP_UPLOAD:
    case DOP_UPLOADED:
    case DOP_STAGE: break;
  }
  return false;
}

void cpu_step_begin(dev_step *s) {
  s->answer = NULL;
  atomic_store_explicit(&s->ready, 0, memory_order_relaxed);
  atomic_store_explicit(&s->done, 0, memory_order_relaxed);
  atomic_store_explicit(&s->done_at_ns, 0, memory_order_relaxed);
  atomic_store_explicit(&s->beats, 0, memory_order_relaxed);
  if (s->goes_on) return;
  s->sent_bytes = s->unused_bytes = 0;
  s->n_trace = 0;
  s->launched_ns = hf_now_ns();
}

void cpu_trace(dev_step *s, dev_stage stage, int layer, int64_t start_ns, int64_t end_ns, int tokens, int distinct) {
  if (!s->trace || s->n_trace >= s->max_trace) return;
  s->trace[s->n_trace++] = (dev_trace){start_ns, end_ns, layer, stage, tokens, distinct, false, 0, 0};
}

static const char *op_name(dev_op_kind k) {
  static const char *const names[] = {"embed",    "rmsnorm",    "pack",        "matmul", "headmm", "rope",   "kv_write",
                                      "attn_mla", "attn_plain", "attn_gqa",    "route",  "swiglu", "gate",   "experts",
                                      "gather",   "copy_out",   "copy_logits", "signal", "wait",   "add_in", "add_guests",
                                      "copy_in",  "upload",     "uploaded",    "stage"};
  return names[k];
}

static hf_status bad_op(int i, const dev_op *op, const char *what) {
  return hf_fail(HF_INPUT, "recording: operation %d (%s): %s", i, op_name(op->kind), what);
}

static bool is_one_of(dev_op_kind k, unsigned kinds) {
  return kinds >> k & 1;
}
#define OP(kind) (1u << (kind))

/* Which members an operation needs, as sets of kinds. */
enum {
  WITH_LAYER = OP(DOP_KV_WRITE) | OP(DOP_ROUTE) | OP(DOP_EXPERTS) | OP(DOP_SIGNAL) | OP(DOP_WAIT) | OP(DOP_ATTN_MLA) |
               OP(DOP_ATTN_PLAIN) | OP(DOP_ATTN_GQA) | OP(DOP_UPLOAD) | OP(DOP_UPLOADED),
  WITH_WEIGHTS = OP(DOP_EMBED) | OP(DOP_MATMUL) | OP(DOP_HEADMM) | OP(DOP_ATTN_PLAIN),
  NO_IN = OP(DOP_EMBED) | OP(DOP_SIGNAL) | OP(DOP_WAIT) | OP(DOP_ADD_IN) | OP(DOP_ADD_GUESTS) | OP(DOP_COPY_IN) | OP(DOP_UPLOAD) |
          OP(DOP_STAGE),
  NO_OUT = OP(DOP_KV_WRITE) | OP(DOP_ROUTE) | OP(DOP_COPY_OUT) | OP(DOP_COPY_LOGITS) | OP(DOP_SIGNAL) | OP(DOP_WAIT) |
           OP(DOP_UPLOAD) | OP(DOP_STAGE),
  WITH_IN2 = OP(DOP_UPLOADED) | OP(DOP_KV_WRITE) | OP(DOP_ATTN_PLAIN) | OP(DOP_SWIGLU) | OP(DOP_GATE),
  WITH_N = OP(DOP_RMSNORM) | OP(DOP_PACK) | OP(DOP_HEADMM) | OP(DOP_ROPE) | OP(DOP_KV_WRITE) | OP(DOP_ATTN_MLA) |
           OP(DOP_ATTN_PLAIN) | OP(DOP_ATTN_GQA) | OP(DOP_SWIGLU) | OP(DOP_GATE) | OP(DOP_EXPERTS) | OP(DOP_GATHER) |
           OP(DOP_COPY_OUT) | OP(DOP_COPY_LOGITS) | OP(DOP_ADD_IN) | OP(DOP_ADD_GUESTS) | OP(DOP_COPY_IN) | OP(DOP_UPLOADED),
  WITH_COUNT = OP(DOP_RMSNORM) | OP(DOP_HEADMM) | OP(DOP_ROPE) | OP(DOP_ATTN_MLA) | OP(DOP_ATTN_PLAIN) | OP(DOP_ATTN_GQA),
};

static hf_status check_weights(const dev_op *op, int i) {
  if (!op->w.data || op->w.n_rows <= 0 || op->w.n_cols <= 0) return bad_op(i, op, "has no weights");
  if ((unsigned)op->w.format >= KF_N) return bad_op(i, op, "weights in no known format");
  if (op->w.n_cols % kern_block(op->w.format))
    return hf_fail(HF_UNSUPPORTED, "recording: operation %d: %d columns are no multiple of the %s block", i, op->w.n_cols,
                   kern_format_name(op->w.format));
  if (op->w.row_bytes < kern_row_bytes(op->w.format, op->w.n_cols)) return bad_op(i, op, "rows overlap");
  if ((unsigned)op->w.layout >= KL_N || !kern_mm_pick(op->w.format, KA_F32, op->w.layout, op->w.n_cols, 1, NULL))
    return bad_op(i, op, "weights in a layout that the format has not");
  if (op->kind == DOP_HEADMM && op->w.layout == KL_TILE16 && op->n % 16) return bad_op(i, op, "heads that are no whole tiles");
  if (op->kind == DOP_MATMUL &&
      ((unsigned)op->act >= KA_N || !kern_mm_pick(op->w.format, op->act, op->w.layout, op->w.n_cols, 1, NULL)))
    return bad_op(i, op, "no kernel for activations of this type");
  if (op->kind == DOP_HEADMM && (int64_t)op->count * op->n > op->w.n_rows)
    return bad_op(i, op, "more heads than the weights have rows");
  return HF_OK;
}

static hf_status check_uploads(const dev_op *op, const dev_context *ctx, int i) {
  if (!ctx->host_experts || !ctx->likely || !ctx->slots || ctx->slot_bytes == 0) return bad_op(i, op, "the context has no slots");
  if (ctx->n_slots < 2 || ctx->n_slots > DEV_MAX_SLOTS)
    return hf_fail(HF_INPUT, "recording: operation %d (%s): %d slots, 2 to %d are possible", i, op_name(op->kind), ctx->n_slots,
                   (int)DEV_MAX_SLOTS);
  if (ctx->n_experts > DEV_MAX_SENT) return bad_op(i, op, "so many experts cannot be sent");
  return op->when == DEV_UPLOAD ? HF_OK : bad_op(i, op, "runs in steps that upload only");
}

static hf_status check_op(const dev_op *op, const dev_context *ctx, int i) {
  dev_op_kind k = op->kind;
  if ((unsigned)k > DOP_STAGE) return hf_fail(HF_INPUT, "recording: operation %d: no such kind, %d", i, (int)k);
  const bool of_step = op->layer == DEV_LAYER_OF_STEP && k == DOP_EXPERTS;
  if (is_one_of(k, WITH_LAYER) && !of_step && (op->layer < 0 || op->layer >= ctx->n_layers))
    return hf_fail(HF_INPUT, "recording: operation %d (%s) names layer %d of %d", i, op_name(k), op->layer, ctx->n_layers);
  if (is_one_of(k, WITH_N) && op->n <= 0) return bad_op(i, op, "n is not above 0");
  if (is_one_of(k, WITH_COUNT) && op->count <= 0) return bad_op(i, op, "count is not above 0");
  if (is_one_of(k, WITH_WEIGHTS)) HF_TRY(check_weights(op, i));
  if (!is_one_of(k, NO_IN) && !op->in) return bad_op(i, op, "has no input");
  if (is_one_of(k, WITH_IN2) && !op->in2) return bad_op(i, op, "has no second input");
  if (!is_one_of(k, NO_OUT) && !op->out) return bad_op(i, op, "has no output");
  if (k == DOP_RMSNORM && !op->vec) return bad_op(i, op, "has no weights");
  if (k == DOP_PACK && (unsigned)op->act >= KA_N) return bad_op(i, op, "packs as no known type");
  if (k == DOP_ATTN_GQA && (op->n2 <= 0 || op->count % op->n2))
    return hf_fail(HF_INPUT, "recording: operation %d: %d heads over %d KV heads", i, op->count, op->n2);
  if (k == DOP_ATTN_PLAIN && (!op->w2.data || op->n2 < 0 || op->w.n_rows != op->count * op->n || op->w2.n_cols != op->n ||
                              op->w2.n_rows % op->count || (op->w2.layout == KL_TILE16 && op->w2.n_rows / op->count % 16)))
    return bad_op(i, op, "weights of heads that do not fit");
  if (k == DOP_ROUTE && (ctx->top_k < 1 || ctx->top_k > ctx->n_experts)) return bad_op(i, op, "the context routes to no experts");
  if (k == DOP_UPLOAD || k == DOP_UPLOADED) HF_TRY(check_uploads(op, ctx, i));
  /* layer n_layers is that of the head */
  if (k == DOP_STAGE &&
      (op->n < 0 || op->n >= DEV_STAGE_N || op->layer > ctx->n_layers || (op->layer < 0 && op->layer != DEV_LAYER_OF_STEP)))
    return bad_op(i, op, "no such stage or layer");
  return HF_OK;
}

static void want_attention(dev_recording *r, const dev_op *op) {
  if (op->kind == DOP_ATTN_PLAIN) {
    const mla_dims d = plain_dims(op);
    const size_t bytes = mla_scratch_bytes(&d, op->w.format, r->max_tok, r->ctx->exact);
    if (bytes > r->plain_bytes) r->plain_bytes = bytes;
  }
  if (op->kind != DOP_ATTN_MLA && op->kind != DOP_ATTN_GQA) return;
  const bool mla = op->kind == DOP_ATTN_MLA;
  size_t bytes = lay_round_up(kern_attn_scratch_bytes(mla ? op->n + op->n2 : op->n, op->n), 64);
  size_t floats = attn_part_floats(op->count, mla ? 1 : op->n2, op->n, r->ctx->max_context, r->n_threads);
  if (bytes > r->attn_bytes) r->attn_bytes = bytes;
  if (floats > r->part_floats) r->part_floats = floats;
}

static hf_status alloc_scratch(dev_recording *r) {
  size_t slots = (size_t)r->n_threads * (size_t)r->max_rows;
  bool resident = false;
  int pack_cols = 1;
  for (int i = 0; i < r->n_ops; i++) {
    if (r->ops[i].kind == DOP_HEADMM && r->ops[i].w.n_cols > pack_cols) pack_cols = r->ops[i].w.n_cols;
    resident = resident || r->ops[i].kind == DOP_EXPERTS || r->ops[i].kind == DOP_UPLOADED;
    want_attention(r, &r->ops[i]);
  }
  r->pack_bytes = kern_act_bytes_any(pack_cols);
  void *p;
  HF_TRY(hf_alloc(&r->xptr, slots, sizeof *r->xptr, "recording scratch"));
  HF_TRY(hf_alloc(&r->yptr, slots, sizeof *r->yptr, "recording scratch"));
  HF_TRY(mem_alloc(slots * CPU_OP_ROWS * sizeof(float), -1, "recording scratch", &p));
  r->tmp = p;
  HF_TRY(mem_alloc(slots * r->pack_bytes, -1, "recording scratch", &p));
  r->pack = p;
  if (r->attn_bytes > 0) {
    HF_TRY(mem_alloc((size_t)r->n_threads * r->attn_bytes, -1, "scratch of the attention", &p));
    r->attn = p;
  }
  if (r->plain_bytes > 0) {
    HF_TRY(mem_alloc((size_t)r->n_threads * r->plain_bytes, -1, "scratch of the attention", &p));
    r->plain = p;
  }
  if (r->part_floats > 0) {
    HF_TRY(mem_alloc(r->part_floats * sizeof(float), -1, "scratch of the attention", &p));
    r->part = p;
  }
  if (!resident) return HF_OK;
  const dev_context *c = r->ctx;
  HF_TRY(hf_alloc(&r->table, (size_t)c->n_experts, sizeof *r->table, "recording scratch"));
  moe_shape shape = {.n_experts = c->n_experts,
                     .top_k = c->top_k,
                     .d_model = c->d_model,
                     .d_ff = c->d_ff_expert,
                     .max_tok = r->max_tok,
                     .exact = c->exact,
                     .swiglu_limit = c->swiglu_limit};
  return moe_new(&shape, 1, &r->experts);
}

/* Layers whose UPLOADED follows their UPLOAD, one after the other: the copy queue goes by this list. */
static hf_status list_uploads(dev_recording *r) {
  int open = -1;
  for (int i = 0; i < r->n_ops; i++) r->n_uploads += r->ops[i].kind == DOP_UPLOADED;
  if (r->n_uploads > 0 && r->owner->host) return hf_fail(HF_INPUT, "recording: the host device uploads nothing");
  HF_TRY(hf_alloc(&r->uploads, (size_t)r->n_uploads + 1, sizeof *r->uploads, "recording"));
  r->n_uploads = 0;
  for (int i = 0; i < r->n_ops; i++) {
    const dev_op *op = &r->ops[i];
    if (op->kind == DOP_UPLOAD && open >= 0) return bad_op(i, op, "the layer before it is not computed yet");
    if (op->kind == DOP_UPLOAD) open = op->layer;
    if (op->kind != DOP_UPLOADED) continue;
    if (open != op->layer) return bad_op(i, op, "follows no upload of its layer");
    r->uploads[r->n_uploads++] = op->layer;
    open = -1;
  }
  return HF_OK;
}

hf_status cpu_record(dev *owner, const dev_op *ops, int n_ops, const dev_context *ctx, int max_tok, int max_logits, int n_threads,
                     dev_recording **out) {
  hf_status st = HF_OK;
  dev_recording *r = NULL;
  if (n_ops < 1 || max_tok < 1 || max_logits < 0)
    return hf_fail(HF_INPUT, "recording: %d operations for steps of %d tokens and %d logit rows", n_ops, max_tok, max_logits);
  HF_TRY(hf_alloc(&r, 1, sizeof *r, "recording"));
  r->owner = owner;
  r->ctx = ctx;
  r->n_ops = n_ops;
  r->max_tok = max_tok;
  r->max_logits = max_logits;
  r->max_rows = max_tok > max_logits ? max_tok : max_logits;
  r->n_threads = n_threads;
  HF_GO(fail, hf_alloc(&r->ops, (size_t)n_ops, sizeof *ops, "recording"));
  memcpy(r->ops, ops, (size_t)n_ops * sizeof *ops);
  for (int i = 0; i < n_ops; i++) {
    HF_GO(fail, check_op(&ops[i], ctx, i));
    r->of_step = r->of_step || ops[i].layer == DEV_LAYER_OF_STEP;
    r->adds_guests = r->adds_guests || ops[i].kind == DOP_ADD_GUESTS;
  }
  HF_GO(fail, list_uploads(r));
  if (n_threads > 0) HF_GO(fail, alloc_scratch(r));
  *out = r;
  return HF_OK;
fail:
  cpu_recording_free(r);
  return st;
}

void cpu_recording_free(dev_recording *r) {
  if (!r) return;
  if (r->impl) r->impl_free(r);
  size_t slots = (size_t)r->n_threads * (size_t)r->max_rows;
  moe_free(r->experts);
  free(r->table);
  free(r->uploads);
  mem_free(r->tmp, slots * CPU_OP_ROWS * sizeof(float), -1);
  mem_free(r->pack, slots * r->pack_bytes, -1);
  mem_free(r->attn, (size_t)r->n_threads * r->attn_bytes, -1);
  mem_free(r->plain, (size_t)r->n_threads * r->plain_bytes, -1);
  mem_free(r->part, r->part_floats * sizeof(float), -1);
  free(r->xptr);
  free(r->yptr);
  free(r->ops);
  free(r);
}
