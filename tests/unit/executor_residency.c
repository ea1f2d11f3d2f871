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
#include "executor/engine_int.h"
#include "executor/residency.h"
#include "executor/serve.h"
#include "kernels/dev/cpu_ops.h"
#include "tests/unit/executor_common.h"

enum { REQUESTS = 6, MAX_OUT = 16, CHUNK = 12, CONTEXT = 64, PAGE = 8, USERS = 3 };
static const int prompt_len[REQUESTS] = {3, 40, 17, 30, 9, 20};
static const int out_len[REQUESTS] = {16, 8, 12, 10, 6, 12};
static model *m;

typedef struct {
  serve_request req[REQUESTS];
  int32_t ids[REQUESTS][CONTEXT], out[REQUESTS][MAX_OUT];
  float margin[REQUESTS][MAX_OUT];
  uint64_t logits; /* of all, in any order of requests */
  engine *e;
  uint8_t *target; /* NULL: nothing moves */
  uint32_t seed;
  int orders, refused, stop_at;
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
                                .all_logits = true,
                                .out = r->out[i]};
  }
}

static hf_status serve_with(engine *e, run *r, uint8_t *target, uint32_t seed, serve_stats *st) {
  fill(r);
  r->e = e;
  r->target = target;
  r->seed = seed;
  serve_options so = {
      .sample = {.top_p = 1}, .chunk_tokens = CHUNK, .users = USERS, .user = r, .on_step = on_step, .on_logits = on_logits};
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
    serve_stats_free(&st);
    expect_same(&got, &want, what);
    free(target);
    engine_close(e);
  }
  assert_true(losses > 25);
  model_close(m);
}

/* An order for which there is no memory is no order; the rest goes on. */
static void lack_of_memory(void **state) {
  (void)state;
  open_named("deepseek_v3");
  int failed = 0, refused = 0;
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
  for (int n = 1; n < 4; n++) {
    residency_order order;
    uint32_t seed = 3;
    engine *e = open_with(&o);
    uint8_t *target = malloc(cells(e));
    shuffle(e, target, &seed);
    hf_fail_alloc_at(n);
    const hf_status st = engine_move_to(e, target, &order);
    hf_fail_alloc_at(0);
    if (st != HF_OK) {
      assert_int_equal(st, HF_MACHINE);
      assert_false(engine_moving(e));
      refused++;
      move_now(e, target, true);
    }
    free(target);
    engine_close(e);
  }
  assert_true(failed > 20 && refused >= 2);
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

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(places_change_and_bits_do_not),
      cmocka_unit_test(nobody_is_told_another_token),
      cmocka_unit_test(a_device_lost_on_the_way),
      cmocka_unit_test(lack_of_memory),
      cmocka_unit_test(the_budget_is_kept),
      cmocka_unit_test(what_has_no_partner_stays),
  };
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
