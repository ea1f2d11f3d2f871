/* Experts that change their places while requests run: an engine that was moved to a placement gives the bits of one opened with it, and moved back those it
 * gave before; no token is wrong on the way, at any depth, with prompts by upload beside it; a device lost in the middle costs nothing, memory that
 * runs out neither; the budget of copies is kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "executor/probe.h"
#include "executor/residency.h"
#include "executor/serve.h"
#include "kernels/dev/cpu_ops.h"
#include "tests/unit/executor_common.h"

enum { REQUESTS = 6, MAX_OUT = 16, CHUNK = 12, CONTEXT = 64, PAGE = 8, USERS = 3 };
static const int prompt_len[REQUESTS] = {3, 40, 17, 30, 9, 20};
static const int out_len[REQUESTS] = {16, 8, 12, 10, 6, 12};
static model *m;
static standby *kv_mirror; /* beside the engine that serves; NULL: none */

typedef struct {
  serve_request req[REQUESTS];
  int32_t ids[REQUESTS][CONTEXT], out[REQUESTS][MAX_OUT];
  float margin[REQUESTS][MAX_OUT];
  uint64_t logits; /* of all, in any order of requests */
  engine *e;
  uint8_t *target; /* NULL: nothing moves */
  uint32_t seed;
  int orders, refused, stop_at, taken_back;
  bool retracts;
  int64_t steps;
} run;

static engine_options options(int depth, double percent, int upload_tokens) {
  engine_options o = {.depth = depth,
                      .max_seqs = USERS,
                      .context = CONTEXT,
                      .page_tokens = PAGE,
                      .n_pages = USERS * CONTEXT / PAGE,
                      .max_tok = CHUNK + USERS,
                      .max_logits = CHUNK + USERS,
                      .threads = 2,
                      .kv_type = KV_F16,
                      .device_bytes = 64 << 20,
                      .experts_on_gpu_percent = percent,
                      .upload_tokens = upload_tokens,
                      .upload_slots = upload_tokens ? 3 : 0,
                      .deadline_ns = INT64_C(20000000000),
                      .movable = true};
  snprintf(o.gpu, sizeof o.gpu, "virtual:64M");
  return o;
}

static size_t cells(const engine *e) {
  return (size_t)e->c.n_layers * (size_t)e->c.n_experts;
}

/* As many experts as now, of any layers that have some: partners of one layer and of two. */
static void shuffle(const engine *e, uint8_t *target, uint32_t *seed) {
  const size_t n = cells(e), ne = (size_t)e->c.n_experts;
  memcpy(target, e->resident, n);
  for (size_t i = 0; i < n; i++) {
    const size_t a = next(seed) % n, b = next(seed) % n;
    if (!e->c.layer_is_moe[a / ne] || !e->c.layer_is_moe[b / ne]) continue;
    const uint8_t t = target[a];
    target[a] = target[b];
    target[b] = t;
  }
}

static void on_logits(void *user, serve_request *q, int position, const float *logits) {
  run *r = user;
  const int i = (int)(q - r->req), vocab = model_get_config(m)->vocab_size;
  if (q->n_out < MAX_OUT) r->margin[i][q->n_out] = margin_of(logits, vocab);
  r->logits += hash_logits(i, position, logits, vocab);
}

static void on_step(void *user, const dev_step *s, const sched_step *what, int64_t index) {
  run *r = user;
  residency_order order;
  (void)s;
  (void)what;
  (void)index;
  if (++r->steps == r->stop_at) engine_stop_moving(r->e);
  if (!r->target || !r->e->o.movable || next(&r->seed) % 4) return;
  shuffle(r->e, r->target, &r->seed);
  if (engine_move_to(r->e, r->target, &order) == HF_OK) r->orders += order.pairs > 0;
  else r->refused++;
}

static void fill(run *r) {
  const int vocab = model_get_config(m)->vocab_size;
  memset(r, 0, sizeof *r);
  for (int i = 0; i < REQUESTS; i++) {
    fill_ids(r->ids[i], prompt_len[i], i, vocab);
    r->req[i] = (serve_request){.ids = r->ids[i],
                                .n_ids = prompt_len[i],
                                .max_tokens = out_len[i],
                                .ignore_eos = true,
                                .all_logits = !kv_mirror, /* such requests leave nothing in it */
                                .out = r->out[i]};
  }
}

/* What was taken back is written again. */
static void on_retract(void *user, serve_request *q, int n) {
  run *r = user;
  (void)q;
  r->taken_back += n;
}

static hf_status serve_with(engine *e, run *r, uint8_t *target, uint32_t seed, serve_stats *st) {
  fill(r);
  r->e = e;
  r->target = target;
  r->seed = seed;
  r->retracts = e->o.check_every_ns > 0;
  serve_options so = {.sample = {.top_p = 1},
                      .chunk_tokens = CHUNK,
                      .users = USERS,
                      .user = r,
                      .on_step = on_step,
                      .on_logits = on_logits,
                      .on_retract = r->retracts ? on_retract : NULL,
                      .standby = kv_mirror,
                      .known = kv_mirror ? standby_known(kv_mirror) : NULL};
  return serve_run(e, r->req, REQUESTS, &so, st);
}

static void serve(engine *e, run *r) {
  serve_stats st;
  if (serve_with(e, r, NULL, 0, &st) != HF_OK) fail_msg("%s", hf_error_line());
  serve_stats_free(&st);
}

static void expect_same(const run *got, const run *want, const char *what) {
  for (int i = 0; i < REQUESTS; i++) {
    int k = 0;
    assert_int_equal(got->req[i].n_out, out_len[i]);
    while (k < out_len[i] && got->out[i][k] == want->out[i][k]) k++;
    if (k < out_len[i] && want->margin[i][k] >= NEAR_TIE)
      fail_msg("%s: request %d: token %d is %d for %d, which leads by %g", what, i, k, got->out[i][k], want->out[i][k],
               (double)want->margin[i][k]);
  }
}

static void move_now(engine *e, const uint8_t *target, bool all) {
  residency_order order;
  int none;
  if (engine_move_to(e, target, &order) != HF_OK) fail_msg("%s", hf_error_line());
  while (engine_moving(e)) assert_int_equal(engine_poll(e, &none), HF_OK);
  if (all && memcmp(e->resident, target, cells(e)))
    fail_msg("not moved as ordered: %d pairs, %d left out", order.pairs, order.left_out);
}

/* Each expert is in one place, which is what the table says. */
static void check_tables(const engine *e) {
  const size_t n = cells(e), ne = (size_t)e->c.n_experts;
  for (size_t i = 0; i < n; i++) {
    if (!e->c.layer_is_moe[i / ne]) continue;
    assert_int_equal(e->device[0].ctx.experts[i].gate.data != 0, e->resident[i]);
    assert_int_equal(e->host_experts[i].gate.data == NULL, e->resident[i]);
    for (int k = 0; e->moves && k < e->o.depth; k++) {
      assert_memory_equal(&e->mb[k].device[i], &e->device[0].ctx.experts[i], sizeof e->device[0].ctx.experts[i]);
      assert_memory_equal(&e->mb[k].host[i], &e->host_experts[i], sizeof e->host_experts[i]);
    }
  }
}

/* A plan of nothing but a placement. */
static plan *plan_of(const engine *e, const uint8_t *target) {
  plan *p = NULL;
  assert_int_equal(plan_new(e->c.n_layers, &p), HF_OK);
  p->n_experts = e->c.n_experts;
  p->n_devices = 1;
  for (int l = 0; l < e->c.n_layers; l++) {
    plan_layer *y = &p->layer[l];
    if (!e->c.layer_is_moe[l]) continue;
    y->moe = true;
    y->n_experts = e->c.n_experts;
    snprintf(y->prefill, sizeof y->prefill, "upload");
    assert_int_equal(hf_alloc(&y->device, (size_t)e->c.n_experts, sizeof *y->device, "placement"), HF_OK);
    for (int x = 0; x < e->c.n_experts; x++) y->device[x] = target[l * e->c.n_experts + x] ? 0 : -1;
  }
  return p;
}

static void open_named(const char *name) {
  char path[64];
  snprintf(path, sizeof path, "tests/golden/%s", name);
  if (model_open(path, &m) != HF_OK) fail_msg("%s", hf_error_line());
}

static engine *open_with(const engine_options *o) {
  engine *e = NULL;
  if (engine_open(m, o, &e) != HF_OK) fail_msg("%s", hf_error_line());
  return e;
}

static void moved_is_as_opened(const char *name, int depth, int upload) {
  run first, other, opened, back;
  char what[64];
  uint32_t seed = 11;
  engine_options o = options(depth, 50, upload);
  engine *e = open_with(&o);
  uint8_t *was = malloc(cells(e)), *target = malloc(cells(e));
  snprintf(what, sizeof what, "%s, depth %d, uploads from %d", name, depth, upload);
  memcpy(was, e->resident, cells(e));
  serve(e, &first);
  shuffle(e, target, &seed);
  move_now(e, target, true);
  check_tables(e);
  serve(e, &other);
  plan *p = plan_of(e, target);
  o.placement = p;
  o.movable = false;
  engine *fresh = open_with(&o);
  serve(fresh, &opened);
  engine_close(fresh);
  plan_free(p);
  if (other.logits != opened.logits) fail_msg("%s: moved there it gives other bits than opened with it", what);
  move_now(e, was, true);
  serve(e, &back);
  if (back.logits != first.logits) fail_msg("%s: moved back it gives other bits than before", what);
  expect_same(&other, &first, what);
  assert_true(engine_moved(e).pairs > 0 && engine_moved(e).bytes > 0);
  free(was);
  free(target);
  engine_close(e);
}

static void places_change_and_bits_do_not(void **state) {
  (void)state;
  static const char *const name[] = {"deepseek_v3", "gpt_oss_mxfp4", "kimi_k2_int4", "qwen3_moe_gguf/model.gguf"};
  for (size_t k = 0; k < sizeof name / sizeof *name; k++) {
    open_named(name[k]);
    for (int depth = 1; depth <= 3; depth++) moved_is_as_opened(name[k], depth, depth == 2 ? 8 : 0);
    model_close(m);
  }
}

/* Orders come at any step, replace each other, and end in the middle. */
static void nobody_is_told_another_token(void **state) {
  (void)state;
  static const char *const name[] = {"deepseek_v3", "gpt_oss_mxfp4"};
  for (size_t k = 0; k < 2; k++) {
    open_named(name[k]);
    for (int i = 0; i < 12; i++) {
      run want, got;
      serve_stats st;
      char what[64];
      engine_options o = options(1 + i % 4, i % 2 ? 50 : 25, i % 3 == 2 ? 6 : 0);
      if (i % 2) o.check_every_ns = 1;
      engine *e = open_with(&o);
      uint8_t *target = malloc(cells(e));
      snprintf(what, sizeof what, "%s, run %d", name[k], i);
      serve(e, &want);
      if (serve_with(e, &got, target, 77 + (uint32_t)i, &st) != HF_OK) fail_msg("%s: %s", what, hf_error_line());
      assert_int_equal(st.n_losses, 0);
      serve_stats_free(&st);
      expect_same(&got, &want, what);
      assert_true(got.orders > 0 && engine_moved(e).pairs > 0);
      engine_stop_moving(e);
      for (int none; engine_moving(e);) assert_int_equal(engine_poll(e, &none), HF_OK);
      check_tables(e);
      free(target);
      engine_close(e);
    }
    model_close(m);
  }
}

static size_t host_bytes(const engine *e) {
  size_t sum = 0;
  for (int i = 0; i < e->n_own; i++) sum += e->own[i].device < 0 ? e->own[i].bytes : 0;
  return sum;
}

/* At any copy, and at any operation. */
static void a_device_lost_on_the_way(void **state) {
  (void)state;
  int losses = 0;
  open_named("deepseek_v3");
  engine_options o = options(1, 50, 0);
  run want, got;
  engine *e = open_with(&o);
  serve(e, &want);
  engine_close(e);
  o.movable = false;
  snprintf(o.gpu, sizeof o.gpu, "none");
  e = open_with(&o);
  const size_t all_bytes = host_bytes(e);
  engine_close(e);
  for (int i = 0; i < 40; i++) {
    serve_stats st;
    char what[64];
    o = options(1 + i % 3, 50, i % 5 == 4 ? 6 : 0);
    o.fault = (dev_fault){.kind = i % 2 ? DEV_FAULT_ERROR : DEV_FAULT_MEMORY, .at = i % 2 ? 60 + 37 * i : 1000000};
    e = open_with(&o);
    if (i % 2 == 0)
      e->device[0].d->fault.at = atomic_load(&e->device[0].d->n_memory_calls) + 1 + 3 * i; /* of the copies, not of loading */
    uint8_t *target = malloc(cells(e));
    snprintf(what, sizeof what, "fault %d", i);
    if (serve_with(e, &got, target, 5 + (uint32_t)i, &st) != HF_OK) fail_msg("%s: %s", what, hf_error_line());
    losses += st.n_losses;
    assert_int_equal(dev_is_host(e->device[0].d), st.n_losses);
    if (st.n_losses) assert_true(!e->moves && !engine_moving(e));
    if (st.n_losses) check_tables(e);
    if (st.n_losses) assert_int_equal(host_bytes(e), all_bytes); /* nothing is kept for moves */
    serve_stats_free(&st);
    expect_same(&got, &want, what);
    free(target);
    engine_close(e);
  }
  assert_true(losses > 25);
  model_close(m);
}

static engine *open_checked(void) {
  engine_options o = options(2, 50, 0);
  o.check_every_ns = 1;
  return open_with(&o);
}

static hf_status check_now(engine *e) {
  int finished = -1;
  HF_TRY(engine_launch_check(e, 0));
  while (finished < 0) HF_TRY(engine_poll(e, &finished));
  return engine_check_good(e, 0);
}

static hf_status move_some(engine *e, const uint8_t *target, int polls) {
  residency_order order;
  int none;
  HF_TRY(engine_move_to(e, target, &order));
  assert_true(order.pairs > 0);
  for (int i = 0; i < polls && engine_moving(e); i++) HF_TRY(engine_poll(e, &none));
  return HF_OK;
}

/* Bytes in the middle of a matrix on the device: some weights of one block or two. */
static void spoil_weights(engine *e, const dev_mat *w) {
  unsigned char b[8];
  const dev_addr at = w->data + kern_mat_bytes(w->layout, w->format, w->n_rows, w->n_cols) / 2;
  assert_int_equal(dev_read_back(e->device[0].d, b, at, sizeof b), HF_OK);
  for (size_t i = 0; i < sizeof b; i++) b[i] ^= 0x10;
  assert_int_equal(dev_upload(e->device[0].d, at, b, sizeof b), HF_OK);
}

static double apart(const float *a, const float *b, int n) {
  double d = 0, all = 0;
  for (int i = 0; i < n; i++) {
    d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    all += (double)b[i] * (double)b[i];
  }
  return d / all;
}

/* A check gives the same bits wherever experts are, so that a weight which changes while they move is found however little it changes. */
static void a_wrong_weight_is_found_after_moves(void **state) {
  (void)state;
  uint32_t seed = 5;
  open_named("deepseek_v3");
  for (int layer = 0; layer < 3; layer++) {
    engine *e = open_checked();
    uint8_t *target = malloc(cells(e));
    shuffle(e, target, &seed);
    assert_int_equal(check_now(e), HF_OK);
    assert_int_equal(move_some(e, target, 3), HF_OK);
    spoil_weights(e, &e->layer[layer].o);
    move_now(e, target, true);
    const hf_status st = check_now(e);
    const double d = apart(e->mb[0].step.logits, e->check_logits, e->c.vocab_size);
    if (st != HF_LOST || !engine_lost_wrong(e)) fail_msg("layer %d: logits %g of the norm apart are no finding", layer, d);
    assert_true(d < 0.25); /* of the squares: no great difference */
    hf_clear_error();
    free(target);
    engine_close(e);
  }
  model_close(m);
}

/* One that leaves the device: what the CPU would have of it is not what was loaded. One that stays: some check of the next ones looks at it. */
static void a_wrong_expert_is_found(void **state) {
  (void)state;
  uint32_t seed = 21;
  open_named("deepseek_v3");
  for (int stays = 0; stays < 2; stays++) {
    engine *e = open_checked();
    uint8_t *target = malloc(cells(e));
    hf_status st = HF_OK;
    size_t at = 0;
    shuffle(e, target, &seed);
    while (!e->resident[at] || target[at] != stays) at++;
    spoil_weights(e, &e->device[0].ctx.experts[at].down);
    if (!stays) st = move_some(e, target, 1 << 24);
    for (size_t i = 0; stays && st == HF_OK && i <= cells(e) / 8 + 1; i++) st = check_now(e);
    assert_int_equal(st, HF_LOST);
    assert_true(engine_lost_wrong(e));
    hf_clear_error();
    assert_int_equal(engine_fail_over(e), HF_OK);
    assert_false(engine_lost_wrong(e));
    free(target);
    engine_close(e);
  }
  model_close(m);
}

/* Every product a hundredth of the norm beside, from the middle of a copy on: before an expert that arrives is used. */
static void a_device_turns_slightly_wrong_on_the_way(void **state) {
  (void)state;
  int found_by_moves = 0;
  open_named("deepseek_v3");
  run want, got;
  engine *e = open_checked();
  serve(e, &want);
  engine_close(e);
  for (int i = 0; i < 24; i++) {
    uint32_t seed = 40 + (uint32_t)i;
    serve_stats s;
    char what[64];
    e = open_checked();
    uint8_t *target = malloc(cells(e));
    shuffle(e, target, &seed);
    snprintf(what, sizeof what, "slightly wrong, run %d", i);
    if (i % 2) { /* while nothing else runs */
      int none;
      hf_status st = move_some(e, target, 1 + i % 4);
      while (st == HF_OK && e->probe->user != PROBE_NOBODY) st = engine_poll(e, &none);
      assert_int_equal(st, HF_OK);
      e->device[0].d->fault = (dev_fault){.kind = DEV_FAULT_SLIGHT, .at = 1};
      while (st == HF_OK && engine_moving(e)) st = engine_poll(e, &none);
      assert_int_equal(st, HF_LOST);
      assert_true(engine_lost_wrong(e));
      hf_clear_error();
      found_by_moves++;
      assert_int_equal(engine_fail_over(e), HF_OK);
      serve(e, &got);
    } else {
      e->device[0].d->fault = (dev_fault){.kind = DEV_FAULT_SLIGHT, .at = 200 + 170 * i};
      if (serve_with(e, &got, target, seed, &s) != HF_OK) fail_msg("%s: %s", what, hf_error_line());
      assert_int_equal(s.n_losses, 1);
      assert_int_equal(s.pages_lost, 0);
      serve_stats_free(&s);
    }
    expect_same(&got, &want, what);
    free(target);
    engine_close(e);
  }
  assert_int_equal(found_by_moves, 12);
  model_close(m);
}

/* A copy that cannot be looked at fails its move, not serving. */
static void a_move_that_fails_is_given_up(void **state) {
  (void)state;
  run want, got;
  uint32_t seed = 8;
  residency_order order;
  open_named("deepseek_v3");
  for (int late = 0; late < 2; late++) {
    engine *e = open_checked();
    uint8_t *target = malloc(cells(e)), *was = malloc(cells(e));
    serve(e, &want);
    memcpy(was, e->resident, cells(e));
    shuffle(e, target, &seed);
    assert_int_equal(engine_move_to(e, target, &order), HF_OK);
    for (int none; late && !engine_moved(e).changed;) assert_int_equal(engine_poll(e, &none), HF_OK);
    e->probe->step.n_tok = PROBE_ROWS + 1; /* which no device takes */
    for (int none; engine_moving(e);) assert_int_equal(engine_poll(e, &none), HF_OK);
    e->probe->step.n_tok = PROBE_ROWS;
    if (!late) assert_memory_equal(e->resident, was, cells(e));
    check_tables(e);
    assert_int_equal(engine_move_to(e, target, &order), late ? HF_INPUT : HF_OK);
    hf_clear_error();
    serve(e, &got);
    expect_same(&got, &want, "a move that fails");
    if (!late) assert_true(engine_moved(e).pairs > 0);
    free(target);
    free(was);
    engine_close(e);
  }
  model_close(m);
}

/* Moves, a mirror, checks and a loss: what is restored was written by a device that was good, and nothing of pages and slots is lost. */
static void moves_beside_a_mirror(void **state) {
  (void)state;
  int64_t restored = 0;
  int losses = 0, pairs = 0;
  run want, got;
  open_named("deepseek_v3");
  engine_options o = options(1, 50, 0);
  engine *e = open_with(&o);
  serve(e, &want);
  engine_close(e);
  for (int i = 0; i < 30; i++) {
    serve_stats st;
    char what[64];
    o = options(1 + i % 3, 50, i % 5 == 4 ? 6 : 0);
    o.check_every_ns = i % 3 ? 1 : 0;
    o.fault = (dev_fault){.kind = i % 3 == 2 ? DEV_FAULT_SLIGHT : DEV_FAULT_ERROR, .at = i % 10 ? 1400 + 131 * i : 1 << 30};
    e = open_with(&o);
    uint8_t *target = malloc(cells(e));
    if (standby_open(e, NULL, o.n_pages + 4, &kv_mirror) != HF_OK) fail_msg("%s", hf_error_line());
    snprintf(what, sizeof what, "with a mirror, run %d", i);
    if (serve_with(e, &got, target, 900 + (uint32_t)i, &st) != HF_OK) fail_msg("%s: %s", what, hf_error_line());
    assert_int_equal(st.pages_lost, 0);
    assert_int_equal(st.slots_lost, 0);
    losses += st.n_losses;
    pairs += got.orders;
    for (int l = 0; l < st.n_losses; l++) restored += st.loss[l].restored;
    serve_stats_free(&st);
    expect_same(&got, &want, what);
    free(target);
    standby_close(kv_mirror);
    kv_mirror = NULL;
    engine_close(e);
  }
  printf("%d losses, %d orders, %lld tokens restored\n", losses, pairs, (long long)restored);
  assert_true(losses > 15 && pairs > 100 && restored > 50);
  model_close(m);
}

/* While it is opened, at any allocation; an order needs none. */
static void lack_of_memory(void **state) {
  (void)state;
  open_named("deepseek_v3");
  int failed = 0;
  engine_options o = options(2, 50, 0);
  for (int n = 1;; n += 1 + n / 8) { /* while it is opened */
    engine *e = NULL;
    hf_fail_alloc_at(n);
    const hf_status st = engine_open(m, &o, &e);
    hf_fail_alloc_at(0);
    engine_close(e);
    if (st == HF_OK) break;
    failed++;
  }
  engine *e = open_with(&o);
  uint8_t *target = malloc(cells(e));
  uint32_t seed = 3;
  shuffle(e, target, &seed);
  hf_fail_alloc_at(1);
  move_now(e, target, true);
  hf_fail_alloc_at(0);
  free(target);
  engine_close(e);
  assert_true(failed > 20);
  model_close(m);
}

static void the_budget_is_kept(void **state) {
  (void)state;
  open_named("deepseek_v3");
  engine_options o = options(2, 50, 0);
  o.move_bytes_per_s = 8 << 20;
  engine *e = open_with(&o);
  uint8_t *target = malloc(cells(e));
  uint32_t seed = 9;
  const int64_t start = hf_now_ns();
  while (engine_moved(e).bytes < 8 * RESIDENCY_PIECE) {
    shuffle(e, target, &seed);
    move_now(e, target, true);
  }
  const double s = 1e-9 * (double)(hf_now_ns() - start), bytes = (double)engine_moved(e).bytes;
  if (bytes - 2 * RESIDENCY_PIECE > s * (double)o.move_bytes_per_s)
    fail_msg("%g bytes in %g s where %lld a second are allowed", bytes, s, (long long)o.move_bytes_per_s);
  free(target);
  engine_close(e);
  model_close(m);
}

/* What does not change in pairs stays: more or fewer on the device, or a layer of which the CPU has none. */
static void what_has_no_partner_stays(void **state) {
  (void)state;
  residency_order order;
  open_named("deepseek_v3");
  engine_options o = options(1, 50, 0);
  engine *e = open_with(&o);
  uint8_t *target = malloc(cells(e));
  memset(target, 1, cells(e));
  assert_int_equal(engine_move_to(e, target, &order), HF_OK);
  assert_true(order.pairs == 0 && order.left_out > 0 && order.bytes == 0 && !engine_moving(e));
  engine_close(e);
  o = options(1, 100, 0);
  e = open_with(&o);
  memset(target, 0, cells(e));
  assert_int_equal(engine_move_to(e, target, &order), HF_OK);
  assert_true(order.pairs == 0 && order.left_out > 0);
  engine_close(e);
  o.movable = false;
  e = open_with(&o);
  assert_int_equal(engine_move_to(e, target, &order), HF_INPUT);
  assert_false(engine_moving(e));
  engine_close(e);
  o.movable = true;
  snprintf(o.gpu, sizeof o.gpu, "none");
  assert_int_equal(engine_open(m, &o, &e), HF_INPUT);
  free(target);
  model_close(m);
}

/* On a modelled machine an expert on the device takes its time there, also by a micro-batch's own tables. */
static void a_paced_device_takes_its_time(void **state) {
  (void)state;
  enum { FIXED_NS = 2000000 };
  run got;
  serve_stats st;
  open_named("deepseek_v3");
  const model_config *c = model_get_config(m);
  stage_table *t = pace_of(c);
  assert_non_null(t);
  for (int l = 0; l < c->n_layers; l++) t->layer[l].dexp_fixed_ns = FIXED_NS;
  engine_options o = options(1, 50, 0);
  o.pace = t;
  engine *e = open_with(&o);
  if (serve_with(e, &got, NULL, 0, &st) != HF_OK) fail_msg("%s", hf_error_line());
  for (int l = 0; l < c->n_layers; l++)
    if (c->layer_is_moe[l]) assert_true(st.stage[(size_t)l * DEV_STAGE_N + DEV_STAGE_DEXP].ns >= FIXED_NS);
  serve_stats_free(&st);
  engine_close(e);
  stage_table_free(t);
  model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(places_change_and_bits_do_not),
      cmocka_unit_test(nobody_is_told_another_token),
      cmocka_unit_test(a_device_lost_on_the_way),
      cmocka_unit_test(a_wrong_weight_is_found_after_moves),
      cmocka_unit_test(a_wrong_expert_is_found),
      cmocka_unit_test(a_device_turns_slightly_wrong_on_the_way),
      cmocka_unit_test(a_move_that_fails_is_given_up),
      cmocka_unit_test(moves_beside_a_mirror),
      cmocka_unit_test(lack_of_memory),
      cmocka_unit_test(the_budget_is_kept),
      cmocka_unit_test(what_has_no_partner_stays),
      cmocka_unit_test(a_paced_device_takes_its_time),
  };
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
