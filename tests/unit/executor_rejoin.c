/* A device that was lost, and answers again, is taken back: nobody gets another token, and from then on all is as it was before the loss, bit by bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/mem.h"
#include "executor/devices.h"
#include "executor/rejoin.h"
#include "executor/serve.h"
#include "tests/unit/executor_common.h"

enum { REQUESTS = 24, MAX_OUT = 12, CHUNK = 12, CONTEXT = 64, USERS = 3 };

static model *m;

static engine_options options(int devices, int depth, double percent) {
  engine_options o = {.depth = depth,
                      .max_seqs = USERS,
                      .context = CONTEXT,
                      .page_tokens = 8,
                      .n_pages = USERS * CONTEXT / 8,
                      .max_tok = CHUNK + USERS,
                      .max_logits = CHUNK + USERS,
                      .threads = 2,
                      .exact = true,
                      .mla = ENGINE_MLA_ABSORBED, /* the plain form sees where prompts are cut, and so when they come */
                      .device_bytes = 64 << 20,
                      .more_devices = devices - 1,
                      .more_bytes = {40 << 20, 90 << 20},
                      .experts_on_gpu_percent = percent,
                      .deadline_ns = 500000000, /* a busy machine is no silent device */
                      .probe_every_ns = 1000000};
  snprintf(o.gpu, sizeof o.gpu, "virtual:64M");
  return o;
}

typedef struct {
  serve_request req[REQUESTS];
  int32_t ids[REQUESTS][40], out[REQUESTS][MAX_OUT];
  uint64_t logits;
  int losses, back;
} run;

static void on_logits(void *user, serve_request *q, int position, const float *logits) {
  run *r = user;
  r->logits += hash_logits(q - r->req, position, logits, model_get_config(m)->vocab_size);
}

static void on_loss(void *user, const serve_loss *l) {
  run *r = user;
  (void)l;
  r->losses++;
}

static void on_back(void *user, const serve_loss *l) {
  run *r = user;
  assert_true(l->back_s > l->at_s && l->stood_ns > 0 && l->probes >= REJOIN_GOOD && l->loaded_bytes > 0);
  r->back++;
}

static void serve(engine *e, prefix *known, bool logits, run *r, serve_stats *st) {
  memset(r, 0, sizeof *r);
  for (int i = 0; i < REQUESTS; i++) {
    const int n = 3 + i * 7 % 30;
    fill_ids(r->ids[i], n, i, model_get_config(m)->vocab_size);
    r->req[i] = (serve_request){.ids = r->ids[i],
                                .n_ids = n,
                                .max_tokens = 2 + i * 5 % 11,
                                .ignore_eos = true,
                                .all_logits = logits,
                                .out = r->out[i],
                                .arrival_s = 0.002 * i};
    snprintf(r->req[i].ext_id, sizeof r->req[i].ext_id, "%d", i);
  }
  const serve_options so = {.sample = {.top_p = 1},
                            .chunk_tokens = CHUNK,
                            .users = USERS,
                            .user = r,
                            .on_logits = logits ? on_logits : NULL,
                            .on_loss = on_loss,
                            .on_back = on_back,
                            .known = known};
  if (serve_run(e, r->req, REQUESTS, &so, st) != HF_OK) fail_msg("%s", hf_error_line());
  assert_int_equal(st->pages_lost, 0);
}

static void expect_same(const run *got, const run *want, const char *what) {
  for (int i = 0; i < REQUESTS; i++)
    if (got->req[i].n_out != got->req[i].max_tokens ||
        memcmp(got->out[i], want->out[i], (size_t)got->req[i].max_tokens * sizeof(int32_t)))
      fail_msg("%s: request %d: other tokens", what, i);
}

static void open_named(const char *name) {
  char path[64];
  snprintf(path, sizeof path, "tests/golden/%s", name);
  if (model_open(path, &m) != HF_OK) fail_msg("%s", hf_error_line());
}

/* Homes and experts over the devices but one (-1: over all). */
static plan *plan_over(int devices, int but) {
  const model_config *c = model_get_config(m);
  const int n = but < 0 ? devices : devices - 1;
  plan *p = NULL;
  assert_int_equal(plan_new(c->n_layers, &p), HF_OK);
  p->n_experts = c->n_experts;
  p->n_devices = devices;
  for (int l = 0; l < c->n_layers; l++) {
    plan_layer *y = &p->layer[l];
    y->home = l % n;
    y->home += but >= 0 && y->home >= but;
    y->moe = c->layer_is_moe[l];
    snprintf(y->prefill, sizeof y->prefill, "upload");
    if (!y->moe) continue;
    y->n_experts = c->n_experts;
    assert_int_equal(hf_alloc(&y->device, (size_t)c->n_experts, sizeof *y->device, "placement"), HF_OK);
    for (int x = 0; x < c->n_experts; x++) {
      const int k = (x + l) % (n + 1) - 1;
      y->device[x] = (int16_t)(k + (but >= 0 && k >= but));
    }
  }
  return p;
}

/* Serving may be over before it is back; then this is where it is taken. */
static void until_all_are_back(engine *e, int n) {
  const int64_t until = hf_now_ns() + INT64_C(20000000000);
  engine_return back;
  while (engine_devices_left(e) < n) {
    if (engine_returning(e) && engine_take_back(e, &back) != HF_OK) fail_msg("%s", hf_error_line());
    if (hf_now_ns() > until) fail_msg("nobody came back");
    hf_sleep_until_ns(hf_now_ns() + 1000000);
  }
}

static void it_is_as_it_was(void **state) {
  (void)state;
  static const dev_fault_kind kind[] = {DEV_FAULT_ERROR, DEV_FAULT_ERROR, DEV_FAULT_HANG};
  uint32_t seed = 9;
  int in_time = 0, lost = 0;
  for (int i = 0; i < 24; i++) {
    run want, got, bits, same;
    serve_stats st;
    char what[64];
    engine *e = NULL;
    prefix *known = NULL;
    bool again;
    open_named(i % 2 ? "deepseek_v3" : "qwen2_moe");
    const int n = 1 + i / 2 % 3;
    plan *p = i % 4 == 3 ? NULL : plan_over(n, -1), *without[3] = {NULL};
    engine_options o = options(n, 1 + (int)(next(&seed) % 3), 50);
    o.placement = p;
    o.rejoin_bytes_per_s = i % 3 == 0 ? 100 << 20 : 0;
    if (next(&seed) % 2) o.check_every_ns = 1000000;
    if (next(&seed) % 3 == 0) o.upload_tokens = 8, o.upload_slots = 3;
    for (int k = 0; k < n && n > 1 && i % 3 < 2; k++) o.without[k] = without[k] = plan_over(n, k);
    snprintf(what, sizeof what, "run %d, %d devices, depth %d", i, n, o.depth);
    if (engine_open(m, &o, &e) != HF_OK) fail_msg("%s", hf_error_line());
    uint8_t *resident = malloc((size_t)e->c.n_layers * (size_t)e->c.n_experts);
    memcpy(resident, e->resident, (size_t)e->c.n_layers * (size_t)e->c.n_experts);
    serve(e, NULL, true, &bits, &st);
    serve_stats_free(&st);
    serve(e, NULL, false, &want, &st);
    serve_stats_free(&st);
    engine_close(e);
    e = NULL;
    if (engine_open(m, &o, &e) != HF_OK) fail_msg("%s", hf_error_line());
    for (int k = 0; k < n; k++)
      if (k == (int)(next(&seed) % (uint32_t)n) || i % 5 == 4) {
        const dev_fault f = {.kind = kind[next(&seed) % 3], .at = 100 + next(&seed) % 1500, .factor = 1};
        assert_int_equal(dev_inject(e->device[k].d, &f), HF_OK);
      }
    if (i % 2) assert_int_equal(prefix_new(o.page_tokens, o.n_pages, &known), HF_OK);
    serve(e, known, false, &got, &st);
    prefix_free(known);
    expect_same(&got, &want, what);
    lost += st.n_losses;
    in_time += got.back;
    serve_stats_free(&st);
    until_all_are_back(e, n);
    assert_int_equal(engine_opts(e)->depth, o.depth);
    assert_ptr_equal(engine_opts(e)->placement, p);
    assert_memory_equal(resident, e->resident, (size_t)e->c.n_layers * (size_t)e->c.n_experts);
    for (int k = 0; k < n; k++) assert_true(dev_mem_used(e->device[k].d) <= device_size(&o, k));
    do { /* a busy machine may be taken for a silent device */
      until_all_are_back(e, n);
      serve(e, NULL, true, &same, &st);
      again = st.n_losses > 0;
      serve_stats_free(&st);
    } while (again && e->times_lost[0] + e->times_lost[1] + e->times_lost[2] < REJOIN_MOST);
    if (again) fail_msg("%s: lost again and again", what);
    expect_same(&same, &bits, what);
    if (same.logits != bits.logits) fail_msg("%s: other bits than before the loss", what);
    free(resident);
    engine_close(e);
    plan_free(p);
    for (int k = 0; k < 3; k++) plan_free(without[k]);
    model_close(m);
  }
  printf("%d losses, %d taken back while requests ran\n", lost, in_time);
  assert_true(lost >= 12 && in_time >= 4);
}

/* What is rehearsed says from when on; one that computes wrongly, or fails again and again, stays away. */
static void it_has_to_answer(void **state) {
  (void)state;
  run got;
  serve_stats st;
  engine *e = NULL;
  engine_return back;
  open_named("qwen2_moe");
  for (int i = 0; i < 3; i++) {
    engine_options o = options(1, 1, 50);
    o.fault = (dev_fault){.kind = i == 2 ? DEV_FAULT_WRONG : DEV_FAULT_ERROR, .at = 300, .back = i == 0 ? 5 : 0};
    if (i == 2) o.check_every_ns = 1;
    assert_int_equal(engine_open(m, &o, &e), HF_OK);
    serve(e, NULL, false, &got, &st);
    assert_int_equal(st.n_losses, 1);
    serve_stats_free(&st);
    if (i == 0) {
      const int64_t until = hf_now_ns() + INT64_C(20000000000);
      while (engine_devices_left(e) == 0 && !engine_returning(e) && hf_now_ns() < until) hf_sleep_until_ns(hf_now_ns() + 1000000);
      if (engine_returning(e)) {
        assert_int_equal(engine_take_back(e, &back), HF_OK);
        assert_int_equal(back.probes, 5 + REJOIN_GOOD - 1);
      }
      assert_int_equal(engine_devices_left(e), 1);
    } else {
      hf_sleep_until_ns(hf_now_ns() + 40000000);
      assert_false(engine_returning(e));
      assert_int_equal(engine_devices_left(e), 0);
    }
    engine_close(e);
  }
  engine_options o = options(1, 2, 50);
  assert_int_equal(engine_open(m, &o, &e), HF_OK);
  for (int i = 0; i < REJOIN_MOST; i++) {
    const dev_fault f = {.kind = DEV_FAULT_ERROR, .at = 1};
    assert_int_equal(dev_inject(e->device[0].d, &f), HF_OK);
    serve(e, NULL, false, &got, &st);
    serve_stats_free(&st);
    if (i + 1 < REJOIN_MOST) until_all_are_back(e, 1);
  }
  assert_null(e->rejoin);
  engine_close(e);
  model_close(m);
}

static void lose_now(engine *e) {
  const dev_fault f = {.kind = DEV_FAULT_ERROR, .at = 3000}; /* behind what checks at its opening took */
  run got;
  serve_stats st;
  assert_int_equal(dev_inject(e->device[0].d, &f), HF_OK);
  serve(e, NULL, false, &got, &st);
  assert_true(st.n_losses > 0);
  serve_stats_free(&st);
}

static void until_ready(const engine *e) {
  const int64_t until = hf_now_ns() + INT64_C(20000000000);
  while (!engine_returning(e)) {
    if (hf_now_ns() > until) fail_msg("nobody came back");
    hf_sleep_until_ns(hf_now_ns() + 1000000);
  }
}

/* One that comes back is held to the bits that it gave with everything where it is: also where experts may change places, whose checks leave these out. */
static void one_that_is_slightly_wrong_stays_away(void **state) {
  (void)state;
  open_named("deepseek_v3");
  for (int i = 0; i < 4; i++) {
    const bool good = i < 2;
    unsigned char b[8];
    engine *e = NULL;
    engine_return back;
    engine_options o = options(1, 1, 50);
    o.check_every_ns = INT64_C(3600000000000);
    o.probe_every_ns = 20000000; /* not before requests are through */
    o.movable = i % 2;
    assert_int_equal(engine_open(m, &o, &e), HF_OK);
    lose_now(e);
    if (engine_devices_left(e) == 0) {
      until_ready(e);
      engine *made = &e->rejoin->made;
      const dev_mat *w = &made->layer[1].o;
      const dev_addr at = w->data + kern_mat_bytes(w->layout, w->format, w->n_rows, w->n_cols) / 2;
      assert_int_equal(dev_read_back(made->device[0].d, b, at, sizeof b), HF_OK);
      for (size_t k = 0; k < sizeof b; k++) b[k] ^= good ? 0 : 0x10;
      assert_int_equal(dev_upload(made->device[0].d, at, b, sizeof b), HF_OK);
      const hf_status st = engine_take_back(e, &back);
      if (st != (good ? HF_OK : HF_LOST))
        fail_msg("%s, %s: %s", good ? "good" : "wrong", i % 2 ? "movable" : "not", hf_error_line());
      hf_clear_error();
      if (!good) assert_int_equal(engine_fail_over(e), HF_OK);
    }
    assert_int_equal(engine_devices_left(e), good);
    engine_close(e);
  }
  model_close(m);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(it_is_as_it_was), cmocka_unit_test(it_has_to_answer),
                                     cmocka_unit_test(one_that_is_slightly_wrong_stays_away)};
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
