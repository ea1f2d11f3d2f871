/* A paced device: no stage ends before the modelled time, nor is an answer seen before its moment. Only lower bounds: a busy machine may
 * take longer. */
#include "tests/unit/kernels_device_common.h"

typedef struct {
  int64_t ns[DEV_STAGE_N];
  int calls[DEV_STAGE_N];
  int wrong;
} pacing;

/* On the device's thread; the test reads it after dev_sync. */
static int64_t pace(void *user, dev_stage st, int layer, int expert, const dev_step *step, const dev_context *ctx) {
  pacing *p = user;
  p->wrong += expert != -1 || step->n_tok < 1 || ctx->n_layers != LAYERS || layer < 0 || layer > LAYERS;
  p->calls[st]++;
  return p->ns[st];
}

static void a_stage_lasts_at_least_its_modelled_time(void **state) {
  (void)state;
  pacing p = {.ns = {[DEV_STAGE_ATTN] = 3000000, [DEV_STAGE_DEXP] = 1000000, [DEV_STAGE_HEAD] = 2000000}};
  rig *r = open_virtual(1, pace, &p);
  fill_step(r, 0, 0);
  launch(r, 0);
  drive(r, 1);
  const dev_step *s = &r->step[0];
  assert_int_equal(s->n_trace, 2 * LAYERS + 1);
  for (int i = 0; i < s->n_trace; i++) assert_true(s->trace[i].end_ns - s->trace[i].start_ns >= p.ns[s->trace[i].stage]);
  assert_true(s->finished_ns - s->launched_ns >= LAYERS * (p.ns[DEV_STAGE_ATTN] + p.ns[DEV_STAGE_DEXP]) + p.ns[DEV_STAGE_HEAD]);
  assert_int_equal(p.calls[DEV_STAGE_ATTN], LAYERS);
  assert_int_equal(p.calls[DEV_STAGE_DEXP], LAYERS);
  assert_int_equal(p.calls[DEV_STAGE_HEAD], 1);
  assert_int_equal(p.wrong, 0);
  close_rig(r);
}

/* One device: paced stages of different streams never overlap. */
static void streams_share_the_device(void **state) {
  (void)state;
  pacing p = {.ns = {[DEV_STAGE_ATTN] = 1000000, [DEV_STAGE_DEXP] = 500000, [DEV_STAGE_HEAD] = 500000}};
  rig *r = open_virtual(STREAMS, pace, &p);
  for (int i = 0; i < STREAMS; i++) {
    fill_step(r, i, 0);
    launch(r, i);
  }
  drive(r, STREAMS);
  for (int a = 0; a < STREAMS; a++)
    for (int b = a + 1; b < STREAMS; b++)
      for (int i = 0; i < r->step[a].n_trace; i++)
        for (int k = 0; k < r->step[b].n_trace; k++) {
          const dev_trace *x = &r->step[a].trace[i], *y = &r->step[b].trace[k];
          assert_true(x->end_ns <= y->start_ns || y->end_ns <= x->start_ns);
        }
  close_rig(r);
}

static void an_answer_counts_from_its_moment_on(void **state) {
  (void)state;
  rig *r = open_virtual(1, NULL, NULL);
  fill_step(r, 0, 0);
  launch(r, 0);
  dev_step *s = &r->step[0];
  int64_t at = 0;
  for (int l = 0; l < LAYERS; l++) {
    while (atomic_load_explicit(&s->ready, memory_order_acquire) < l + 1) hf_sleep_until_ns(hf_now_ns() + 200000);
    assert_true(atomic_load(&s->ready_at_ns) >= at);
    host_part(r, l, s, 0, 1);
    at = hf_now_ns() + 15000000;
    dev_host_done(s, l, at);
  }
  assert_int_equal(dev_sync(r->d, 0, INT64_C(60000000000)), HF_OK);
  assert_true(s->finished_ns >= at);
  close_rig(r);
}

/* A step may begin later than it is launched; the device works for others until then. */
static void a_later_start_leaves_the_device_free(void **state) {
  (void)state;
  pacing p = {.ns = {[DEV_STAGE_HEAD] = 1000000}};
  rig *r = open_virtual(2, pace, &p);
  for (int i = 0; i < 2; i++) fill_step(r, i, 0);
  atomic_store(&r->step[0].start_at_ns, INT64_MAX);
  launch(r, 0);
  launch(r, 1);
  while (!dev_finished(r->d, 1))
    for (int l = 0; l < LAYERS; l++)
      if (atomic_load(&r->step[1].ready) == l + 1 && atomic_load(&r->step[1].done) == l) {
        host_part(r, l, &r->step[1], 0, 1);
        dev_host_done(&r->step[1], l, 0);
      }
  assert_false(dev_finished(r->d, 0));
  assert_int_equal(atomic_load(&r->step[0].ready), 0);
  int64_t at = hf_now_ns() + 2000000;
  atomic_store(&r->step[0].start_at_ns, at);
  drive(r, 1);
  assert_int_equal(r->step[0].n_trace, r->step[1].n_trace);
  for (int i = 0; i < r->step[0].n_trace; i++) assert_true(r->step[0].trace[i].start_ns >= at);
  close_rig(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_stage_lasts_at_least_its_modelled_time),
      cmocka_unit_test(streams_share_the_device),
      cmocka_unit_test(an_answer_counts_from_its_moment_on),
      cmocka_unit_test(a_later_start_leaves_the_device_free),
  };
  if (kern_init(NULL) != HF_OK || topo_get(&topo) != HF_OK) {
    fprintf(stderr, "%s\n", hf_error_line());
    return 1;
  }
  return cmocka_run_group_tests(tests, NULL, NULL);
}
