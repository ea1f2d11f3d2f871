/* graph.c: a model's step as a list of device operations. One function per part of a layer; families differ only by what their
 * config says, so a new family with the same parts needs no code here.
 *
 * Buffers, f32 [rows][width], one set per micro-batch:
 *   x residual   xn normed   q, qm queries   kva latent|rope key (MLA) or k|v (GQA)   ol attention output   oh heads' values
 *   g, u feed-forward   rl router logits   hx, lg rows that want logits   pk packed activations of the product at work */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "executor/engine_int.h"
#include "sched/footprint.h"

typedef struct {
  dev_addr x, xn, q, qm, kva, ol, oh, g, u, rl, hx, lg, pk;
  int q_w, qm_w, kva_w, ol_w, oh_w, ff_w, pk_bytes;
} buffers;

typedef struct {
  engine *e;
  buffers b;
  dev_op *op;
  int n, cap;
  dev_addr packed_of; /* source of what pk holds now */
  kern_act packed_act;
  dev_rows packed_rows;
  hf_status st;
} graph;

static footprint_shape shape_of(const model_config *c) {
  return (footprint_shape){.mla = c->attn == ATTN_MLA,
                           .d_model = c->d_model,
                           .vocab_size = c->vocab_size,
                           .n_heads = c->n_heads,
                           .n_kv_heads = c->n_kv_heads,
                           .head_dim = c->head_dim,
                           .q_lora_rank = c->q_lora_rank,
                           .kv_lora_rank = c->kv_lora_rank,
                           .nope_dim = c->nope_dim,
                           .rope_dim = c->rope_dim,
                           .v_dim = c->v_dim,
                           .d_ff_dense = c->d_ff_dense,
                           .d_ff_shared = c->d_ff_shared,
                           .n_experts = c->n_experts};
}

/* Lays the buffers out from `base`; returns the bytes needed. */
static size_t layout(const model_config *c, int max_tok, int max_logits, dev_addr base, buffers *b) {
  const footprint_shape s = shape_of(c);
  const footprint_widths w = footprint_of(&s);
  dev_addr *const at[FOOTPRINT_BUFFERS] = {&b->x, &b->xn, &b->q,  &b->qm, &b->kva, &b->ol, &b->oh,
                                           &b->g, &b->u,  &b->rl, &b->hx, &b->lg,  &b->pk};
  int64_t bytes[FOOTPRINT_BUFFERS];
  int64_t sum = footprint_bytes(&s, max_tok, max_logits, bytes);
  for (int i = 0; i < FOOTPRINT_BUFFERS; i++) {
    *at[i] = base;
    base += (dev_addr)bytes[i];
  }
  b->q_w = w.query, b->qm_w = w.latent_query, b->kva_w = w.kv, b->ol_w = w.latent_out, b->oh_w = w.heads_out;
  b->ff_w = w.ff, b->pk_bytes = w.packed;
  return (size_t)sum;
}

size_t graph_buffer_bytes(const model_config *c, const engine_options *o) {
  buffers b;
  return layout(c, o->max_tok, o->max_logits, 0, &b);
}

static void emit(graph *g, dev_op op) {
  if (g->st != HF_OK) return;
  if (g->n == g->cap) {
    g->cap = g->cap ? 2 * g->cap : 256;
    g->st = hf_realloc(&g->op, (size_t)g->cap, sizeof *g->op, "recording");
    if (g->st != HF_OK) return;
  }
  if (op.out && op.out == g->packed_of) g->packed_of = 0;
  g->op[g->n++] = op;
}

/* out = w in, packing the input first unless pk already holds it. exact: activations are not rounded (router). */
static void product(graph *g, dev_mat w, dev_addr in, int in_w, dev_addr out, int out_w, dev_rows rows, bool exact, bool add,
                    dev_addr bias) {
  kern_act act = kern_act_of(w.format, exact || common_context(g->e)->exact);
  if (kern_act_bytes_any(w.n_cols) > (size_t)g->b.pk_bytes && g->st == HF_OK)
    g->st = hf_fail(HF_INPUT, "a product of %d columns is wider than any part the config describes", w.n_cols);
  if (g->packed_of != in || g->packed_act != act || g->packed_rows != rows) {
    emit(g, (dev_op){.kind = DOP_PACK,
                     .rows = rows,
                     .act = act,
                     .in = in,
                     .in_stride = in_w,
                     .n = w.n_cols,
                     .out = g->b.pk,
                     .out_stride = g->b.pk_bytes});
    g->packed_of = in;
    g->packed_act = act;
    g->packed_rows = rows;
  }
  emit(g, (dev_op){.kind = DOP_MATMUL,
                   .rows = rows,
                   .act = act,
                   .w = w,
                   .in = g->b.pk,
                   .in_stride = g->b.pk_bytes,
                   .out = out,
                   .out_stride = out_w,
                   .add = add,
                   .vec = bias});
}

static void norm(graph *g, dev_addr in, dev_addr out, int width, dev_addr vec, int n, int count, int head_stride, double eps,
                 dev_rows rows) {
  emit(g, (dev_op){.kind = DOP_RMSNORM,
                   .rows = rows,
                   .in = in,
                   .in_stride = width,
                   .out = out,
                   .out_stride = width,
                   .vec = vec,
                   .n = n,
                   .count = count,
                   .head_stride = head_stride,
                   .eps = (float)eps});
}

static void stage(graph *g, dev_stage s, int layer) {
  emit(g, (dev_op){.kind = DOP_STAGE, .layer = layer, .n = (int)s});
}

/* Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434, 2.1); the cache holds kv_lora + rope numbers a token. With absorbed weights scores and
 * values are taken on the latent; tokens of long pieces of a prompt are computed plain, with keys and values of each head (sched/mla.h). */
static void attention_mla(graph *g, int l) {
  const model_config *c = &g->e->c;
  const layer_weights *w = &g->e->layer[l];
  const buffers *b = &g->b;
  int qk = c->nope_dim + c->rope_dim, lat = c->kv_lora_rank + c->rope_dim;
  if (w->q_a.data) {
    product(g, w->q_a, b->xn, c->d_model, b->g, b->ff_w, DEV_ROWS_TOKENS, false, false, 0);
    product(g, w->kv_a, b->xn, c->d_model, b->kva, lat, DEV_ROWS_TOKENS, false, false, 0);
    norm(g, b->g, b->g, b->ff_w, w->q_a_norm, c->q_lora_rank, 1, 0, c->mla_norm_eps, DEV_ROWS_TOKENS);
    product(g, w->q_b, b->g, b->ff_w, b->q, b->q_w, DEV_ROWS_TOKENS, false, false, 0);
  } else {
    product(g, w->q, b->xn, c->d_model, b->q, b->q_w, DEV_ROWS_TOKENS, false, false, 0);
    product(g, w->kv_a, b->xn, c->d_model, b->kva, lat, DEV_ROWS_TOKENS, false, false, 0);
  }
  norm(g, b->kva, b->kva, lat, w->kv_a_norm, c->kv_lora_rank, 1, 0, c->mla_norm_eps, DEV_ROWS_TOKENS);
  emit(g, (dev_op){.kind = DOP_ROPE,
                   .in = b->kva,
                   .in_stride = lat,
                   .offset = c->kv_lora_rank,
                   .out = b->kva,
                   .out_stride = lat,
                   .out_offset = c->kv_lora_rank,
                   .n = c->rope_dim,
                   .count = 1,
                   .head_stride = lat,
                   .out_head = lat});
  emit(g, (dev_op){.kind = DOP_KV_WRITE,
                   .layer = l,
                   .in = b->kva,
                   .in_stride = lat,
                   .n = c->kv_lora_rank,
                   .in2 = b->kva + (dev_addr)c->kv_lora_rank * 4,
                   .in2_stride = lat,
                   .n2 = c->rope_dim});
  emit(g, (dev_op){.kind = DOP_HEADMM,
                   .w = w->k_b,
                   .in = b->q,
                   .in_stride = b->q_w,
                   .head_stride = qk,
                   .count = c->n_heads,
                   .n = c->kv_lora_rank,
                   .out = b->qm,
                   .out_stride = b->qm_w,
                   .out_head = lat});
  emit(g, (dev_op){.kind = DOP_ROPE,
                   .in = b->q,
                   .in_stride = b->q_w,
                   .head_stride = qk,
                   .offset = c->nope_dim,
                   .out = b->qm,
                   .out_stride = b->qm_w,
                   .out_head = lat,
                   .out_offset = c->kv_lora_rank,
                   .n = c->rope_dim,
                   .count = c->n_heads});
  emit(g, (dev_op){.kind = DOP_ATTN_MLA,
                   .layer = l,
                   .in = b->qm,
                   .in_stride = b->qm_w,
                   .out = b->ol,
                   .out_stride = b->ol_w,
                   .count = c->n_heads,
                   .n = c->kv_lora_rank,
                   .n2 = c->rope_dim,
                   .scale = (float)c->attn_scale});
  emit(g, (dev_op){.kind = DOP_ATTN_PLAIN,
                   .layer = l,
                   .w = w->k_b,
                   .w2 = w->v_b,
                   .in = b->q,
                   .in_stride = b->q_w,
                   .head_stride = qk,
                   .in2 = b->qm + (dev_addr)c->kv_lora_rank * 4,
                   .in2_stride = b->qm_w,
                   .out = b->oh,
                   .out_stride = b->oh_w,
                   .count = c->n_heads,
                   .n = c->kv_lora_rank,
                   .n2 = c->rope_dim,
                   .scale = (float)c->attn_scale});
  emit(g, (dev_op){.kind = DOP_HEADMM,
                   .w = w->v_b,
                   .in = b->ol,
                   .in_stride = b->ol_w,
                   .head_stride = c->kv_lora_rank,
                   .count = c->n_heads,
                   .n = c->v_dim,
                   .out = b->oh,
                   .out_stride = b->oh_w,
                   .out_head = c->v_dim});
}

static void attention_gqa(graph *g, int l) {
  const model_config *c = &g->e->c;
  const layer_weights *w = &g->e->layer[l];
  const buffers *b = &g->b;
  int kv_w = c->n_kv_heads * c->head_dim;
  dev_addr k = b->kva, v = b->kva + (dev_addr)kv_w * 4;
  product(g, w->q, b->xn, c->d_model, b->q, b->q_w, DEV_ROWS_TOKENS, false, false, w->q_bias);
  product(g, w->k, b->xn, c->d_model, k, b->kva_w, DEV_ROWS_TOKENS, false, false, w->k_bias);
  product(g, w->v, b->xn, c->d_model, v, b->kva_w, DEV_ROWS_TOKENS, false, false, w->v_bias);
  if (c->qk_norm_head) {
    norm(g, b->q, b->q, b->q_w, w->q_norm, c->head_dim, c->n_heads, c->head_dim, c->norm_eps, DEV_ROWS_TOKENS);
    norm(g, k, k, b->kva_w, w->k_norm, c->head_dim, c->n_kv_heads, c->head_dim, c->norm_eps, DEV_ROWS_TOKENS);
  } else if (c->qk_norm_full) {
    norm(g, b->q, b->q, b->q_w, w->q_norm, c->n_heads * c->head_dim, 1, 0, c->norm_eps, DEV_ROWS_TOKENS);
    norm(g, k, k, b->kva_w, w->k_norm, kv_w, 1, 0, c->norm_eps, DEV_ROWS_TOKENS);
  }
  emit(g, (dev_op){.kind = DOP_ROPE,
                   .in = b->q,
                   .in_stride = b->q_w,
                   .head_stride = c->head_dim,
                   .out = b->q,
                   .out_stride = b->q_w,
                   .out_head = c->head_dim,
                   .n = c->head_dim,
                   .count = c->n_heads});
  emit(g, (dev_op){.kind = DOP_ROPE,
                   .in = k,
                   .in_stride = b->kva_w,
                   .head_stride = c->head_dim,
                   .out = k,
                   .out_stride = b->kva_w,
                   .out_head = c->head_dim,
                   .n = c->head_dim,
                   .count = c->n_kv_heads});
  emit(g, (dev_op){.kind = DOP_KV_WRITE,
                   .layer = l,
                   .in = k,
                   .in_stride = b->kva_w,
                   .count = c->n_kv_heads,
                   .n = kv_w,
                   .in2 = v,
                   .in2_stride = b->kva_w,
                   .n2 = kv_w});
  bool slides = c->sliding_window > 0 && (!c->layer_slides || c->layer_slides[l]);
  emit(g, (dev_op){.kind = DOP_ATTN_GQA,
                   .layer = l,
                   .in = b->q,
                   .in_stride = b->q_w,
                   .out = b->oh,
                   .out_stride = b->oh_w,
                   .count = c->n_heads,
                   .n = c->head_dim,
                   .n2 = c->n_kv_heads,
                   .scale = (float)c->attn_scale,
                   .window = slides ? c->sliding_window : 0,
                   .vec = w->sinks});
}

/* x += s * down(silu(gate xn) * (up xn)); s = sigmoid(scale xn) where there is a scale, else 1. It goes onto the hidden activations, so
 * that the product can add to x. Its logit takes the first place of the router's buffer, which nobody reads any more. */
static void feed_forward(graph *g, dev_mat gate, dev_mat up, dev_mat down, dev_mat scale) {
  const buffers *b = &g->b;
  int d = g->e->c.d_model, rl_w = g->e->c.n_experts;
  if (scale.data) product(g, scale, b->xn, d, b->rl, rl_w, DEV_ROWS_TOKENS, true, false, 0);
  product(g, gate, b->xn, d, b->g, b->ff_w, DEV_ROWS_TOKENS, false, false, 0);
  product(g, up, b->xn, d, b->u, b->ff_w, DEV_ROWS_TOKENS, false, false, 0);
  emit(g, (dev_op){.kind = DOP_SWIGLU,
                   .in = b->g,
                   .in_stride = b->ff_w,
                   .in2 = b->u,
                   .in2_stride = b->ff_w,
                   .out = b->g,
                   .out_stride = b->ff_w,
                   .n = gate.n_rows});
  if (scale.data)
    emit(g, (dev_op){.kind = DOP_GATE,
                     .in = b->g,
                     .in_stride = b->ff_w,
                     .in2 = b->rl,
                     .in2_stride = rl_w,
                     .out = b->g,
                     .out_stride = b->ff_w,
                     .n = gate.n_rows});
  product(g, down, b->g, b->ff_w, b->x, d, DEV_ROWS_TOKENS, false, true, 0);
}

/* The buffers from the queries to the second of the feed-forward lie one behind the other, and nobody reads them between the shared experts and the
 * next layer's attention: room for a row of the residual's width for each token. */
static dev_addr sum_of_sent(graph *g) {
  const size_t need = (size_t)g->e->o.max_tok * (size_t)g->e->c.d_model * sizeof(float);
  if (g->b.rl - g->b.q < need && g->st == HF_OK)
    g->st = hf_fail(HF_UNSUPPORTED, "a model whose attention is narrower than its residual cannot upload experts");
  return g->b.q;
}

static void moe_layer(graph *g, int l) {
  const model_config *c = &g->e->c;
  const layer_weights *w = &g->e->layer[l];
  const buffers *b = &g->b;
  product(g, w->router, b->xn, c->d_model, b->rl, c->n_experts, DEV_ROWS_TOKENS, true, false, w->router_lin_bias);
  emit(g, (dev_op){.kind = DOP_ROUTE, .layer = l, .in = b->rl, .in_stride = c->n_experts});
  const dev_when cpu = w->uploads && !w->has_guests ? DEV_NO_UPLOAD : DEV_ALWAYS;
  if (w->has_host_experts)
    emit(g, (dev_op){.kind = DOP_COPY_OUT, .when = cpu, .in = b->xn, .in_stride = c->d_model, .n = c->d_model});
  stage(g, DEV_STAGE_ATTN, l);
  if (w->uploads) emit(g, (dev_op){.kind = DOP_UPLOAD, .when = DEV_UPLOAD, .layer = l});
  if (w->has_host_experts) emit(g, (dev_op){.kind = DOP_SIGNAL, .when = cpu, .layer = l});
  if (w->sh_gate.data) {
    feed_forward(g, w->sh_gate, w->sh_up, w->sh_down, w->sh_gate_inp);
    stage(g, DEV_STAGE_SHARED, l);
  }
  if (w->has_device_experts) {
    emit(g, (dev_op){.kind = DOP_EXPERTS,
                     .layer = l,
                     .in = b->xn,
                     .in_stride = c->d_model,
                     .out = b->x,
                     .out_stride = c->d_model,
                     .n = c->d_model});
    stage(g, DEV_STAGE_DEXP, l);
  }
  /* what the CPU would have given is summed as it would, then added: the same bits */
  if (w->uploads)
    emit(g, (dev_op){.kind = DOP_UPLOADED,
                     .when = DEV_UPLOAD,
                     .layer = l,
                     .in = b->xn,
                     .in_stride = c->d_model,
                     .in2 = sum_of_sent(g),
                     .in2_stride = c->d_model,
                     .out = b->x,
                     .out_stride = c->d_model,
                     .n = c->d_model});
  if (w->has_host_experts) {
    const dev_when computed = w->uploads ? DEV_NO_UPLOAD : DEV_ALWAYS;
    emit(g, (dev_op){.kind = DOP_WAIT, .when = cpu, .layer = l});
    if (w->has_cpu_experts)
      emit(g, (dev_op){.kind = DOP_ADD_IN, .when = computed, .out = b->x, .out_stride = c->d_model, .n = c->d_model});
    if (w->has_guests) emit(g, (dev_op){.kind = DOP_ADD_GUESTS, .out = b->x, .out_stride = c->d_model, .n = c->d_model});
  }
}

static void layer(graph *g, int l) {
  const model_config *c = &g->e->c;
  const layer_weights *w = &g->e->layer[l];
  const buffers *b = &g->b;
  norm(g, b->x, b->xn, c->d_model, w->attn_norm, c->d_model, 1, 0, c->norm_eps, DEV_ROWS_TOKENS);
  if (c->attn == ATTN_MLA) attention_mla(g, l);
  else attention_gqa(g, l);
  product(g, w->o, b->oh, b->oh_w, b->x, c->d_model, DEV_ROWS_TOKENS, false, true, w->o_bias);
  norm(g, b->x, b->xn, c->d_model, w->ffn_norm, c->d_model, 1, 0, c->norm_eps, DEV_ROWS_TOKENS);
  if (c->layer_is_moe[l]) {
    moe_layer(g, l);
  } else {
    stage(g, DEV_STAGE_ATTN, l);
    feed_forward(g, w->gate, w->up, w->down, (dev_mat){0});
    stage(g, DEV_STAGE_SHARED, l);
  }
}

static void head(graph *g) {
  const engine *e = g->e;
  const buffers *b = &g->b;
  int d = e->c.d_model;
  emit(g,
       (dev_op){.kind = DOP_GATHER, .rows = DEV_ROWS_LOGITS, .in = b->x, .in_stride = d, .out = b->hx, .out_stride = d, .n = d});
  norm(g, b->hx, b->hx, d, e->out_norm, d, 1, 0, e->c.norm_eps, DEV_ROWS_LOGITS);
  product(g, e->output, b->hx, d, b->lg, e->c.vocab_size, DEV_ROWS_LOGITS, false, false, 0);
  emit(g, (dev_op){
              .kind = DOP_COPY_LOGITS, .rows = DEV_ROWS_LOGITS, .in = b->lg, .in_stride = e->c.vocab_size, .n = e->c.vocab_size});
  stage(g, DEV_STAGE_HEAD, e->c.n_layers);
}

/* The residual between two parts goes through host_x, which nobody else uses then: the layer's experts on the CPU have been added. */
static void record_part(graph *g, int part) {
  const engine *e = g->e;
  const step_part *p = &e->part[part];
  const int d = e->c.d_model;
  if (part == 0) emit(g, (dev_op){.kind = DOP_EMBED, .w = e->embed, .out = g->b.x, .out_stride = d});
  else emit(g, (dev_op){.kind = DOP_COPY_IN, .out = g->b.x, .out_stride = d, .n = d});
  for (int l = p->first; l < p->end; l++) layer(g, l);
  if (part + 1 == e->n_parts) head(g);
  else emit(g, (dev_op){.kind = DOP_COPY_OUT, .in = g->b.x, .in_stride = d, .n = d});
}

static hf_status buffers_on(engine *e, micro_batch *mb, int k) {
  const size_t bytes = graph_buffer_bytes(&e->c, &e->o);
  if (mb->buffers[k]) return HF_OK;
  HF_TRY(dev_alloc(e->device[k].d, bytes, "activation buffers", &mb->buffers[k]));
  return own_add_at(e, k, mb->buffers[k], bytes);
}

static bool has_guests(const engine *e, int k) {
  for (size_t i = 0; i < (size_t)e->c.n_layers * (size_t)e->c.n_experts; i++)
    if (e->resident[i] == 1 + k && e->home[i / (size_t)e->c.n_experts] != k) return true;
  return false;
}

/* Rows of a layer that is at home on another device through the experts that are on this one. The micro-batch's buffers here are free then: its step is
 * at that other device. */
static hf_status record_guest(engine *e, micro_batch *mb, int k) {
  engine_device *v = &e->device[k];
  graph g = {.e = e};
  const int d = e->c.d_model;
  if (!has_guests(e, k)) return HF_OK;
  HF_TRY(buffers_on(e, mb, k));
  layout(&e->c, e->o.max_tok, e->o.max_logits, mb->buffers[k], &g.b);
  emit(&g, (dev_op){.kind = DOP_COPY_IN, .out = g.b.xn, .out_stride = d, .n = d});
  emit(&g,
       (dev_op){
           .kind = DOP_EXPERTS, .layer = DEV_LAYER_OF_STEP, .in = g.b.xn, .in_stride = d, .out = g.b.x, .out_stride = d, .n = d});
  emit(&g, (dev_op){.kind = DOP_COPY_OUT, .in = g.b.x, .in_stride = d, .n = d});
  stage(&g, DEV_STAGE_DEXP, DEV_LAYER_OF_STEP);
  hf_status st = g.st;
  if (st == HF_OK) st = dev_record(v->d, g.op, g.n, &v->ctx, e->o.max_tok, e->o.max_logits, &mb->guest[k].rec);
  free(g.op);
  return st;
}

hf_status graph_record(engine *e, micro_batch *mb) {
  for (int k = 0; k < e->n_devices; k++) HF_TRY(record_guest(e, mb, k));
  for (int i = 0; i < e->n_parts; i++) {
    const int k = e->part[i].device;
    engine_device *v = &e->device[k];
    graph g = {.e = e};
    HF_TRY(buffers_on(e, mb, k));
    layout(&e->c, e->o.max_tok, e->o.max_logits, mb->buffers[k], &g.b);
    record_part(&g, i);
    hf_status st = g.st;
    if (st == HF_OK) st = dev_record(v->d, g.op, g.n, mb->host ? &mb->ctx : &v->ctx, e->o.max_tok, e->o.max_logits, &mb->rec[i]);
    free(g.op);
    HF_TRY(st);
  }
  return HF_OK;
}
