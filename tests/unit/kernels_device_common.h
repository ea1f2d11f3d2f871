/* kernels_device_common.h: a small model as a list of device operations, and a driver that answers a device's signals; for the tests of
 * devices. Two MoE layers with grouped-query attention; even experts are resident, odd ones the host's. */
#ifndef HF_TESTS_KERNELS_DEVICE_COMMON_H
#define HF_TESTS_KERNELS_DEVICE_COMMON_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "kernels/device.h"
#include "kernels/moe.h"

enum {
  D = 64,
  FF = 96,
  HEADS = 4,
  KV_HEADS = 2,
  HEAD = 16,
  LAYERS = 2,
  EXPERTS = 6,
  TOP_K = 2,
  VOCAB = 50,
  CONTEXT = 64,
  PAGE = 8,
  SEQS = 3,
  TOKENS = 12,
  PAGES = SEQS * CONTEXT / PAGE,
  STREAMS = 3,
  MAX_OWN = 256
};

typedef struct {
  dev_addr a;
  size_t bytes;
} device_block;

/* One device with the model loaded. */
typedef struct {
  dev *d;
  pool *p;
  moe *host_moe;
  dev_context ctx;
  dev_expert experts[LAYERS * EXPERTS];
  moe_expert host[LAYERS * EXPERTS];
  dev_addr kv[LAYERS];
  dev_mat embed, q, kv_w, o, router, head;
  dev_addr norm;
  device_block own[MAX_OWN];
  int n_own;
  dev_step step[STREAMS];
  dev_recording *rec[STREAMS];
  int32_t page_table[STREAMS][SEQS * CONTEXT / PAGE];
  dev_op ops[128];
  int n_ops;
  bool tiles; /* on a device that wants weights in KL_TILE16 */
} rig;

static topology topo;

static inline float value(unsigned *seed) {
  *seed = *seed * 1664525u + 1013904223u;
  return (float)((double)(*seed >> 8) / 16777216.0 - 0.5);
}

static inline void *zeroed(size_t n, size_t bytes) {
  void *p = calloc(n, bytes);
  assert_non_null(p);
  return p;
}

static inline dev_addr put(rig *r, const void *bytes, size_t n) {
  dev_addr a = 0;
  assert_int_equal(dev_alloc(r->d, n, "test", &a), HF_OK);
  assert_int_equal(a % 64, 0);
  if (bytes) assert_int_equal(dev_upload(r->d, a, bytes, n), HF_OK);
  assert_true(r->n_own < MAX_OWN);
  r->own[r->n_own++] = (device_block){a, n};
  return a;
}

/* The same numbers on every device: they follow from the seed alone. */
static inline char *matrix_bytes(kern_format f, int rows, int cols, unsigned seed, size_t *row_bytes) {
  float row[FF > D ? FF : D];
  *row_bytes = kern_row_bytes(f, cols);
  char *data = zeroed((size_t)rows, *row_bytes);
  for (int i = 0; i < rows; i++) {
    for (int c = 0; c < cols; c++) row[c] = value(&seed);
    kern_quant_row(f, row, cols, data + (size_t)i * *row_bytes);
  }
  return data;
}

static inline dev_mat put_matrix(rig *r, kern_format f, int rows, int cols, unsigned seed) {
  size_t row_bytes;
  char *data = matrix_bytes(f, rows, cols, seed, &row_bytes);
  const kern_layout layout = r->tiles && f != KF_F32 ? KL_TILE16 : KL_ROWS;
  const size_t bytes = kern_mat_bytes(layout, f, rows, cols);
  if (layout == KL_TILE16) {
    const kern_mat stored = {f, KL_ROWS, rows, cols, row_bytes, data};
    char *tiles = zeroed(1, bytes);
    kern_tile_pack(&stored, 0, rows, tiles);
    free(data);
    data = tiles;
  }
  dev_mat w = {
      .format = f, .layout = layout, .n_rows = rows, .n_cols = cols, .row_bytes = row_bytes, .data = put(r, data, bytes)};
  free(data);
  return w;
}

static inline kern_mat host_matrix(kern_format f, int rows, int cols, unsigned seed) {
  kern_mat w = {.format = f, .layout = KL_ROWS, .n_rows = rows, .n_cols = cols};
  w.data = matrix_bytes(f, rows, cols, seed, &w.row_bytes);
  return w;
}

/* The host's experts, called by all threads of a pool (host device), or by thread 0 alone. */
static void host_part(void *user, int layer, dev_step *s, int thread, int n_threads) {
  rig *r = user;
  size_t at = (size_t)layer * (size_t)s->max_tok * TOP_K;
  moe_job job = {.experts = r->host + layer * EXPERTS,
                 .n_tok = s->n_tok,
                 .x = s->host_x,
                 .x_stride = D,
                 .ids = s->route_ids + at,
                 .weights = s->route_weights + at,
                 .y = s->host_y,
                 .y_stride = D};
  moe_run(r->host_moe, &job, r->p, thread, n_threads);
}

static inline void put_weights(rig *r) {
  const kern_format f = KF_BF16, x = KF_Q8_0;
  float ones[D], cos_sin[CONTEXT * HEAD / 2];
  for (int i = 0; i < D; i++) ones[i] = 1.0f + (float)i / 100;
  r->norm = put(r, ones, sizeof ones);
  r->embed = put_matrix(r, KF_F32, VOCAB, D, 1);
  r->q = put_matrix(r, f, HEADS * HEAD, D, 2);
  r->kv_w = put_matrix(r, f, 2 * KV_HEADS * HEAD, D, 3);
  r->o = put_matrix(r, f, D, HEADS * HEAD, 4);
  r->router = put_matrix(r, KF_F32, EXPERTS, D, 5);
  r->head = put_matrix(r, f, VOCAB, D, 6);
  for (int i = 0; i < CONTEXT * HEAD / 2; i++) cos_sin[i] = __builtin_cosf((float)i);
  r->ctx.rope_cos = put(r, cos_sin, sizeof cos_sin);
  for (int i = 0; i < CONTEXT * HEAD / 2; i++) cos_sin[i] = __builtin_sinf((float)i);
  r->ctx.rope_sin = put(r, cos_sin, sizeof cos_sin);
  for (int i = 0; i < LAYERS * EXPERTS; i++) {
    unsigned seed = 100 + 3 * (unsigned)i;
    if (i % 2 == 0)
      r->experts[i] =
          (dev_expert){put_matrix(r, x, FF, D, seed), put_matrix(r, x, FF, D, seed + 1), put_matrix(r, x, D, FF, seed + 2)};
    else r->host[i] = (moe_expert){host_matrix(x, FF, D, seed), host_matrix(x, FF, D, seed + 1), host_matrix(x, D, FF, seed + 2)};
  }
}

static inline void add_op(rig *r, dev_op op) {
  r->ops[r->n_ops++] = op;
}

static inline void packed_product(rig *r, dev_mat w, dev_addr in, dev_addr pk, dev_addr out, int out_w, bool add, dev_rows rows) {
  kern_act act = kern_act_of(w.format, w.format == KF_F32);
  int pk_bytes = (int)kern_act_bytes_any(D);
  add_op(r, (dev_op){
                .kind = DOP_PACK, .rows = rows, .act = act, .in = in, .in_stride = D, .n = D, .out = pk, .out_stride = pk_bytes});
  add_op(r, (dev_op){.kind = DOP_MATMUL,
                     .rows = rows,
                     .act = act,
                     .w = w,
                     .in = pk,
                     .in_stride = pk_bytes,
                     .out = out,
                     .out_stride = out_w,
                     .add = add});
}

/* The step of one stream, with buffers of its own. */
static inline void list_step(rig *r) {
  enum { KVW = 2 * KV_HEADS * HEAD };
  size_t row = TOKENS * sizeof(float);
  dev_addr x = put(r, NULL, row * D), xn = put(r, NULL, row * D), q = put(r, NULL, row * HEADS * HEAD),
           kv = put(r, NULL, row * KVW), oh = put(r, NULL, row * HEADS * HEAD), rl = put(r, NULL, row * EXPERTS),
           lg = put(r, NULL, row * VOCAB), pk = put(r, NULL, TOKENS * kern_act_bytes_any(D));
  r->n_ops = 0;
  add_op(r, (dev_op){.kind = DOP_EMBED, .w = r->embed, .out = x, .out_stride = D});
  for (int l = 0; l < LAYERS; l++) {
    add_op(r, (dev_op){.kind = DOP_RMSNORM,
                       .in = x,
                       .in_stride = D,
                       .out = xn,
                       .out_stride = D,
                       .vec = r->norm,
                       .n = D,
                       .count = 1,
                       .eps = 1e-6f});
    packed_product(r, r->q, xn, pk, q, HEADS * HEAD, false, DEV_ROWS_TOKENS);
    packed_product(r, r->kv_w, xn, pk, kv, KVW, false, DEV_ROWS_TOKENS);
    add_op(r, (dev_op){.kind = DOP_ROPE,
                       .in = q,
                       .in_stride = HEADS * HEAD,
                       .head_stride = HEAD,
                       .out = q,
                       .out_stride = HEADS * HEAD,
                       .out_head = HEAD,
                       .n = HEAD,
                       .count = HEADS});
    add_op(r, (dev_op){.kind = DOP_KV_WRITE,
                       .layer = l,
                       .in = kv,
                       .in_stride = KVW,
                       .n = KVW / 2,
                       .in2 = kv + KVW / 2 * 4,
                       .in2_stride = KVW,
                       .n2 = KVW / 2});
    add_op(r, (dev_op){.kind = DOP_ATTN_GQA,
                       .layer = l,
                       .in = q,
                       .in_stride = HEADS * HEAD,
                       .out = oh,
                       .out_stride = HEADS * HEAD,
                       .count = HEADS,
                       .n = HEAD,
                       .n2 = KV_HEADS,
                       .scale = 0.25f});
    packed_product(r, r->o, oh, pk, x, D, true, DEV_ROWS_TOKENS);
    add_op(r, (dev_op){.kind = DOP_RMSNORM,
                       .in = x,
                       .in_stride = D,
                       .out = xn,
                       .out_stride = D,
                       .vec = r->norm,
                       .n = D,
                       .count = 1,
                       .eps = 1e-6f});
    packed_product(r, r->router, xn, pk, rl, EXPERTS, false, DEV_ROWS_TOKENS);
    add_op(r, (dev_op){.kind = DOP_ROUTE, .layer = l, .in = rl, .in_stride = EXPERTS});
    add_op(r, (dev_op){.kind = DOP_COPY_OUT, .in = xn, .in_stride = D, .n = D});
    add_op(r, (dev_op){.kind = DOP_STAGE, .layer = l, .n = DEV_STAGE_ATTN});
    add_op(r, (dev_op){.kind = DOP_SIGNAL, .layer = l});
    add_op(r, (dev_op){.kind = DOP_EXPERTS, .layer = l, .in = xn, .in_stride = D, .out = x, .out_stride = D, .n = D});
    add_op(r, (dev_op){.kind = DOP_STAGE, .layer = l, .n = DEV_STAGE_DEXP});
    add_op(r, (dev_op){.kind = DOP_WAIT, .layer = l});
    add_op(r, (dev_op){.kind = DOP_ADD_IN, .out = x, .out_stride = D, .n = D});
  }
  add_op(r, (dev_op){.kind = DOP_GATHER, .rows = DEV_ROWS_LOGITS, .in = x, .in_stride = D, .out = xn, .out_stride = D, .n = D});
  packed_product(r, r->head, xn, pk, lg, VOCAB, false, DEV_ROWS_LOGITS);
  add_op(r, (dev_op){.kind = DOP_COPY_LOGITS, .rows = DEV_ROWS_LOGITS, .in = lg, .in_stride = VOCAB, .n = VOCAB});
  add_op(r, (dev_op){.kind = DOP_STAGE, .layer = LAYERS, .n = DEV_STAGE_HEAD});
}

static inline void open_step(rig *r, int stream) {
  dev_step *s = &r->step[stream];
  *s = (dev_step){.stream = stream,
                  .max_tok = TOKENS,
                  .max_logits = TOKENS,
                  .page_table = r->page_table[stream],
                  .pages_per_seq = CONTEXT / PAGE,
                  .max_trace = 64};
  s->ids = zeroed(TOKENS, sizeof *s->ids);
  s->pos = zeroed(TOKENS, sizeof *s->pos);
  s->seq = zeroed(TOKENS, sizeof *s->seq);
  s->logit_rows = zeroed(TOKENS, sizeof *s->logit_rows);
  s->route_ids = zeroed(LAYERS * TOKENS * TOP_K, sizeof *s->route_ids);
  s->route_weights = zeroed(LAYERS * TOKENS * TOP_K, sizeof *s->route_weights);
  s->host_x = zeroed(TOKENS * D, sizeof(float));
  s->host_y = zeroed(TOKENS * D, sizeof(float));
  s->logits = zeroed(TOKENS * VOCAB, sizeof(float));
  s->trace = zeroed(64, sizeof *s->trace);
}

/* streams steps on d (the rig's from now on); p is the host device's pool or NULL. */
static inline void open_rig_with(rig *r, dev *d, pool *p, int streams) {
  r->d = d;
  r->p = p;
  moe_shape shape = {.n_experts = EXPERTS, .top_k = TOP_K, .d_model = D, .d_ff = FF, .max_tok = TOKENS};
  assert_int_equal(moe_new(&shape, p ? pool_threads(p) : 1, &r->host_moe), HF_OK);
  r->ctx = (dev_context){.n_layers = LAYERS,
                         .n_experts = EXPERTS,
                         .top_k = TOP_K,
                         .d_model = D,
                         .d_ff_expert = FF,
                         .router = {.n_experts = EXPERTS, .top_k = TOP_K, .norm = true, .scale = 1},
                         .rope_dim = HEAD,
                         .kv_type = KV_F16,
                         .kv = r->kv,
                         .kv_row_bytes = (size_t)4 * KV_HEADS * HEAD,
                         .kv_page_tokens = PAGE,
                         .experts = r->experts};
  r->ctx.kv_page_bytes = r->ctx.kv_row_bytes * PAGE;
  put_weights(r);
  for (int l = 0; l < LAYERS; l++) r->kv[l] = put(r, NULL, (size_t)streams * PAGES * r->ctx.kv_page_bytes);
  for (int i = 0; i < streams; i++) {
    for (int k = 0; k < PAGES; k++) r->page_table[i][k] = (PAGES - 1 - k) + i * PAGES;
    open_step(r, i);
    list_step(r);
    assert_int_equal(dev_record(r->d, r->ops, r->n_ops, &r->ctx, TOKENS, TOKENS, &r->rec[i]), HF_OK);
  }
}

static inline void close_rig(rig *r) {
  dev_quit(r->d);
  for (int i = 0; i < STREAMS; i++) {
    dev_step *s = &r->step[i];
    dev_recording_free(r->rec[i]);
    free(s->ids), free(s->pos), free(s->seq), free(s->logit_rows), free(s->route_ids), free(s->route_weights);
    free(s->host_x), free(s->host_y), free(s->logits), free(s->trace);
  }
  for (int i = 0; i < r->n_own; i++) dev_release(r->d, r->own[i].a, r->own[i].bytes);
  assert_int_equal(dev_mem_used(r->d), 0);
  dev_free(r->d);
  moe_free(r->host_moe);
  for (int i = 0; i < LAYERS * EXPERTS; i++) {
    free((void *)(uintptr_t)r->host[i].gate.data);
    free((void *)(uintptr_t)r->host[i].up.data);
    free((void *)(uintptr_t)r->host[i].down.data);
  }
  if (r->p) pool_free(r->p);
  free(r);
}

static inline rig *open_virtual(int streams, dev_pace_fn *pace, void *user) {
  rig *r = zeroed(1, sizeof *r);
  dev *d = NULL;
  assert_int_equal(dev_virtual_new(16 << 20, streams, pace, user, &d), HF_OK);
  open_rig_with(r, d, NULL, streams);
  return r;
}

static inline rig *open_host(int threads) {
  rig *r = zeroed(1, sizeof *r);
  pool *p = NULL;
  dev *d = NULL;
  assert_int_equal(pool_new(&topo, threads, &p), HF_OK);
  assert_int_equal(dev_host_new(p, host_part, r, &d), HF_OK);
  open_rig_with(r, d, p, STREAMS);
  return r;
}

/* Step number `round` of three sequences: 9 prompt tokens in all, then one token each. */
static inline void fill_step(rig *r, int stream, int round) {
  dev_step *s = &r->step[stream];
  s->n_tok = s->n_logits = 0;
  s->n_seq = SEQS;
  for (int q = 0; q < SEQS; q++) {
    int n = round == 0 ? q + 2 : 1, from = round == 0 ? 0 : q + 1 + round;
    for (int i = 0; i < n; i++) {
      int t = s->n_tok++;
      s->ids[t] = (7 * q + 3 * (from + i) + stream) % VOCAB;
      s->pos[t] = from + i;
      s->seq[t] = q;
    }
    s->logit_rows[s->n_logits++] = s->n_tok - 1;
  }
}

static inline void launch(rig *r, int stream) {
  assert_int_equal(dev_launch(r->d, r->rec[stream], &r->step[stream]), HF_OK);
}

/* Answers until the first `streams` streams are finished. */
static inline void drive(rig *r, int streams) {
  int answered[STREAMS] = {0};
  for (int left = streams; left > 0;) {
    left = 0;
    for (int i = 0; i < streams; i++) {
      dev_step *s = &r->step[i];
      int ready = atomic_load_explicit(&s->ready, memory_order_acquire);
      if (!dev_is_host(r->d) && ready > answered[i]) {
        assert_int_equal(ready, answered[i] + 1);
        host_part(r, ready - 1, s, 0, 1);
        dev_host_done(s, ready - 1, 0);
        answered[i] = ready;
      }
      left += !dev_finished(r->d, i);
    }
  }
  for (int i = 0; i < streams; i++) assert_int_equal(dev_sync(r->d, i, INT64_C(60000000000)), HF_OK);
}
#endif
