/* Devices: the same recording gives the same bits on the host and on a virtual device, alone and beside other streams; the hand-over of
 * flags; memory of a stated size; recordings that are not valid; a device that is lost. */
#include "tests/unit/kernels_device_common.h"

#include "base/mem.h"

enum { ROUNDS = 5 };

/* Logits and expert choices of all rounds of one stream, alone on the device. */
typedef struct {
  float logits[ROUNDS][TOKENS * VOCAB];
  int32_t ids[ROUNDS][LAYERS * TOKENS * TOP_K];
} outcome;

static void keep(outcome *o, int round, const dev_step *s) {
  memcpy(o->logits[round], s->logits, sizeof o->logits[round]);
  memcpy(o->ids[round], s->route_ids, sizeof o->ids[round]);
}

static outcome *alone(rig *r, int stream_content) {
  outcome *o = zeroed(1, sizeof *o);
  for (int round = 0; round < ROUNDS; round++) {
    fill_step(r, 0, round);
    for (int t = 0; t < r->step[0].n_tok; t++) r->step[0].ids[t] = (r->step[0].ids[t] + stream_content) % VOCAB;
    launch(r, 0);
    drive(r, 1);
    keep(o, round, &r->step[0]);
  }
  return o;
}

static void host_and_virtual_devices_agree_bit_for_bit(void **state) {
  (void)state;
  rig *v = open_virtual(1, NULL, NULL);
  outcome *want = alone(v, 0);
  close_rig(v);
  double size = 0;
  for (int i = 0; i < VOCAB; i++) size += want->logits[ROUNDS - 1][i] * want->logits[ROUNDS - 1][i];
  assert_true(size > 0);
  for (int threads = 1; threads <= 3; threads++) {
    rig *h = open_host(threads);
    outcome *got = alone(h, 0);
    assert_memory_equal(got, want, sizeof *want);
    free(got);
    close_rig(h);
  }
  free(want);
}

/* Three micro-batches in flight at once, each launched again as soon as the driver sees its end. */
static void streams_do_not_see_each_other(void **state) {
  (void)state;
  rig *one = open_virtual(1, NULL, NULL), *r = open_virtual(STREAMS, NULL, NULL);
  outcome *got = zeroed(STREAMS, sizeof *got);
  for (int round = 0; round < ROUNDS; round++) {
    for (int i = 0; i < STREAMS; i++) {
      fill_step(r, i, round);
      launch(r, i);
    }
    drive(r, STREAMS);
    for (int i = 0; i < STREAMS; i++) keep(&got[i], round, &r->step[i]);
  }
  for (int i = 0; i < STREAMS; i++) {
    outcome *want = alone(one, i);
    assert_memory_equal(&got[i], want, sizeof *want);
    free(want);
  }
  free(got);
  close_rig(r);
  close_rig(one);
}

static void each_stage_is_traced_once_in_order(void **state) {
  (void)state;
  for (int host = 0; host < 2; host++) {
    rig *r = host ? open_host(2) : open_virtual(1, NULL, NULL);
    fill_step(r, 0, 0);
    launch(r, 0);
    drive(r, 1);
    const dev_step *s = &r->step[0];
    assert_int_equal(s->n_trace, 2 * LAYERS + 1);
    for (int i = 0; i < s->n_trace; i++) {
      const dev_trace *t = &s->trace[i];
      assert_int_equal(t->stage, i == 2 * LAYERS ? DEV_STAGE_HEAD : i % 2 ? DEV_STAGE_DEXP : DEV_STAGE_ATTN);
      assert_int_equal(t->layer, i / 2);
      assert_int_equal(t->tokens, s->n_tok);
      assert_true(t->start_ns >= s->launched_ns && t->end_ns >= t->start_ns && t->end_ns <= s->finished_ns);
      assert_true(i == 0 || t->start_ns >= s->trace[i - 1].end_ns);
    }
    close_rig(r);
  }
}

static void a_full_trace_drops_events(void **state) {
  (void)state;
  rig *r = open_virtual(1, NULL, NULL);
  r->step[0].max_trace = 2;
  fill_step(r, 0, 0);
  launch(r, 0);
  drive(r, 1);
  assert_int_equal(r->step[0].n_trace, 2);
  close_rig(r);
}

static void wait_for_ready(const dev_step *s, int value_of_flag) {
  while (atomic_load_explicit(&s->ready, memory_order_acquire) < value_of_flag) hf_sleep_until_ns(hf_now_ns() + 200000);
}

static void the_device_waits_for_the_answer_of_each_layer(void **state) {
  (void)state;
  rig *r = open_virtual(2, NULL, NULL);
  fill_step(r, 0, 0);
  launch(r, 0);
  dev_step *s = &r->step[0];
  for (int l = 0; l < LAYERS; l++) {
    wait_for_ready(s, l + 1);
    /* Another stream comes and goes while this one waits. */
    fill_step(r, 1, 0);
    launch(r, 1);
    for (int k = 0; k < LAYERS; k++) {
      wait_for_ready(&r->step[1], k + 1);
      host_part(r, k, &r->step[1], 0, 1);
      dev_host_done(&r->step[1], k, 0);
    }
    assert_int_equal(dev_sync(r->d, 1, INT64_C(60000000000)), HF_OK);
    assert_int_equal(atomic_load(&s->ready), l + 1);
    assert_false(dev_finished(r->d, 0));
    host_part(r, l, s, 0, 1);
    dev_host_done(s, l, 0);
  }
  assert_int_equal(dev_sync(r->d, 0, INT64_C(60000000000)), HF_OK);
  assert_true(dev_finished(r->d, 0));
  close_rig(r);
}

static void a_deadline_passes_and_the_device_goes_on(void **state) {
  (void)state;
  rig *r = open_virtual(1, NULL, NULL);
  fill_step(r, 0, 0);
  launch(r, 0);
  assert_int_equal(dev_sync(r->d, 0, 1000000), HF_TIMEOUT);
  assert_int_equal(dev_launch(r->d, r->rec[0], &r->step[0]), HF_INPUT); /* still running */
  assert_non_null(strstr(hf_error_line(), "still running"));
  drive(r, 1);
  fill_step(r, 0, 1);
  launch(r, 0);
  drive(r, 1);
  assert_false(dev_lost(r->d));
  close_rig(r);
}

static void a_host_that_never_answers_loses_the_device(void **state) {
  (void)state;
  rig *r = open_virtual(2, NULL, NULL);
  dev_addr a = 0;
  dev_set_wait_limit(r->d, 1000000);
  fill_step(r, 0, 0);
  launch(r, 0);
  assert_int_equal(dev_sync(r->d, 0, INT64_C(60000000000)), HF_LOST);
  assert_true(dev_lost(r->d));
  assert_int_equal(dev_launch(r->d, r->rec[0], &r->step[0]), HF_LOST);
  assert_int_equal(dev_upload(r->d, r->norm, &a, sizeof a), HF_LOST);
  assert_int_equal(dev_alloc(r->d, 64, "x", &a), HF_LOST);
  assert_int_equal(dev_record(r->d, r->ops, r->n_ops, &r->ctx, TOKENS, TOKENS, &r->rec[1]), HF_LOST);
  assert_int_equal(hf_exit_status(HF_LOST), 3);
  close_rig(r); /* its memory may still be freed */
}

static void rehearsed_faults_lose_the_device_and_no_memory(void **state) {
  (void)state;
  static const dev_fault faults[] = {
      {.kind = DEV_FAULT_ERROR, .at = 5}, {.kind = DEV_FAULT_HANG, .at = 9}, {.kind = DEV_FAULT_SIGNAL, .at = 1}};
  static const char *const why[] = {"an operation failed", "given up", "given up"};
  for (int k = 0; k < 3; k++) {
    rig *r = open_virtual(2, NULL, NULL);
    assert_int_equal(dev_inject(r->d, &faults[k]), HF_OK);
    assert_string_equal(dev_lost_reason(r->d), "");
    for (int i = 0; i < 2; i++) {
      fill_step(r, i, 0);
      launch(r, i);
    }
    if (k > 0) {
      assert_int_equal(dev_sync(r->d, 0, 5000000), HF_TIMEOUT);
      dev_give_up(r->d, "given up");
      dev_give_up(r->d, "once more");
    }
    assert_int_equal(dev_sync(r->d, 0, INT64_C(60000000000)), HF_LOST);
    assert_int_equal(dev_sync(r->d, 1, INT64_C(60000000000)), HF_LOST);
    assert_string_equal(dev_lost_reason(r->d), why[k]);
    dev_quit(r->d); /* whatever the device was at: memory and recordings may go */
    close_rig(r);
  }
}

static void faults_that_cannot_be_are_refused(void **state) {
  (void)state;
  rig *r = open_virtual(1, NULL, NULL), *h = open_host(1);
  dev_fault f = {.kind = DEV_FAULT_ERROR, .at = 1};
  assert_int_equal(dev_inject(h->d, &f), HF_UNSUPPORTED);
  dev_give_up(h->d, "the host cannot be lost");
  assert_false(dev_lost(h->d));
  f.at = 0;
  assert_int_equal(dev_inject(r->d, &f), HF_INPUT);
  f = (dev_fault){.kind = DEV_FAULT_SLOW, .at = 1, .factor = 0.5};
  assert_int_equal(dev_inject(r->d, &f), HF_INPUT);
  f.factor = 4;
  assert_int_equal(dev_inject(r->d, &f), HF_OK);
  outcome *slow = alone(r, 0);
  rig *v = open_virtual(1, NULL, NULL);
  outcome *want = alone(v, 0);
  assert_memory_equal(slow, want, sizeof *want);
  free(slow);
  free(want);
  close_rig(v);
  close_rig(h);
  close_rig(r);
}

static void a_device_may_go_while_it_waits(void **state) {
  (void)state;
  dev *d = NULL;
  dev_recording *rec = NULL;
  dev_context ctx = {.n_layers = 1};
  dev_step s = {.max_tok = 1, .n_tok = 1};
  const dev_op ops[] = {{.kind = DOP_SIGNAL}, {.kind = DOP_WAIT}};
  assert_int_equal(dev_virtual_new(1 << 20, 1, NULL, NULL, &d), HF_OK);
  assert_int_equal(dev_record(d, ops, 2, &ctx, 1, 0, &rec), HF_OK);
  assert_int_equal(dev_launch(d, rec, &s), HF_OK);
  wait_for_ready(&s, 1);
  dev_free(d);
  dev_recording_free(rec);
  dev_free(NULL);
}

static void memory_is_what_was_stated(void **state) {
  (void)state;
  dev *d = NULL;
  dev_addr a[3] = {0}, b = 0;
  assert_int_equal(dev_virtual_new(1 << 20, 1, NULL, NULL, &d), HF_OK);
  assert_int_equal(dev_mem_bytes(d), 1 << 20);
  assert_int_equal(dev_alloc(d, (1 << 20) - 64, "weights", &a[0]), HF_OK);
  assert_int_equal(dev_alloc(d, 1, "weights", &a[1]), HF_OK);
  assert_int_equal(dev_mem_used(d), 1 << 20);
  assert_int_equal(dev_alloc(d, 1, "one byte more", &a[2]), HF_MACHINE);
  assert_non_null(strstr(hf_error_line(), "1 bytes for one byte more do not fit"));
  assert_non_null(strstr(hf_error_line(), "1048576 of 1048576 are in use"));
  assert_int_equal(a[2], 0);
  const size_t absurd[] = {SIZE_MAX, SIZE_MAX - 63, (size_t)INT64_MAX, (size_t)INT64_MAX + 1, SIZE_MAX / 2 - 100};
  for (size_t i = 0; i < sizeof absurd / sizeof absurd[0]; i++) {
    assert_int_equal(dev_alloc(d, absurd[i], "absurd", &b), HF_MACHINE);
    assert_int_equal(b, 0);
  }
  assert_int_equal(dev_wrap(d, &d), 0);
  dev_release(d, a[1], 1);
  assert_int_equal(dev_alloc(d, 64, "again", &a[1]), HF_OK);
  dev_release(d, a[0], (1 << 20) - 64);
  dev_release(d, a[1], 64);
  dev_release(d, 0, 64);
  assert_int_equal(dev_mem_used(d), 0);
  dev_free(d);
  assert_int_equal(dev_virtual_new(0, 1, NULL, NULL, &d), HF_INPUT);
  assert_int_equal(dev_virtual_new(1 << 20, 0, NULL, NULL, &d), HF_INPUT);
  assert_int_equal(dev_virtual_new(1 << 20, 1000, NULL, NULL, &d), HF_INPUT);
}

/* Each valid operation of the list, spoilt in one member, is refused by its number. */
static void refused(rig *r, int at, dev_op op, const char *what) {
  dev_op good = r->ops[at];
  dev_recording *rec = NULL;
  char number[32];
  r->ops[at] = op;
  hf_status st = dev_record(r->d, r->ops, r->n_ops, &r->ctx, TOKENS, TOKENS, &rec);
  if (st != HF_INPUT && st != HF_UNSUPPORTED) fail_msg("operation %d was accepted although %s", at, what);
  snprintf(number, sizeof number, "operation %d", at);
  if (!strstr(hf_error_line(), number)) fail_msg("'%s' does not name %s", hf_error_line(), number);
  assert_null(rec);
  r->ops[at] = good;
}

static void invalid_operations_are_refused(void **state) {
  (void)state;
  rig *r = open_virtual(1, NULL, NULL);
  for (int i = 0; i < r->n_ops; i++) {
    dev_op good = r->ops[i], op = good;
    dev_op_kind k = op.kind;
    op.kind = (dev_op_kind)99, refused(r, i, op, "it is of no kind"), op = good;
    op.kind = (dev_op_kind)-1, refused(r, i, op, "it is of no kind"), op = good;
    if (good.in) op.in = 0, refused(r, i, op, "it has no input"), op = good;
    if (good.out) op.out = 0, refused(r, i, op, "it has no output"), op = good;
    if (good.in2) op.in2 = 0, refused(r, i, op, "it has no second input"), op = good;
    if (good.n && k != DOP_STAGE) op.n = 0, refused(r, i, op, "its n is 0"), op = good;
    if (good.count) op.count = 0, refused(r, i, op, "its count is 0"), op = good;
    if (good.w.data) {
      op.w.data = 0, refused(r, i, op, "it has no weights"), op = good;
      op.w.n_cols = 0, refused(r, i, op, "its weights have no columns"), op = good;
      op.w.row_bytes = 1, refused(r, i, op, "its rows overlap"), op = good;
      op.w.format = KF_N, refused(r, i, op, "its format is unknown"), op = good;
    }
    if (k == DOP_MATMUL) op.act = KA_N, refused(r, i, op, "its activations are unknown"), op = good;
    if (k == DOP_MATMUL) op.act = KA_Q8B32, refused(r, i, op, "no kernel has these activations"), op = good;
    if (k == DOP_PACK) op.act = KA_N, refused(r, i, op, "it packs as nothing"), op = good;
    if (k == DOP_RMSNORM) op.vec = 0, refused(r, i, op, "the norm has no weights"), op = good;
    if (k == DOP_ATTN_GQA) op.n2 = 3, refused(r, i, op, "heads are no multiple of KV heads"), op = good;
    if (k == DOP_STAGE) op.n = DEV_STAGE_N, refused(r, i, op, "there is no such stage"), op = good;
    if (k == DOP_STAGE) op.layer = LAYERS + 1, refused(r, i, op, "there is no such layer"), op = good;
    if (k == DOP_SIGNAL || k == DOP_WAIT || k == DOP_EXPERTS || k == DOP_ROUTE || k == DOP_KV_WRITE || k == DOP_ATTN_GQA) {
      op.layer = LAYERS, refused(r, i, op, "there is no such layer"), op = good;
      op.layer = -1, refused(r, i, op, "there is no such layer"), op = good;
    }
  }
  dev_recording *rec = NULL;
  assert_int_equal(dev_record(r->d, r->ops, 0, &r->ctx, TOKENS, TOKENS, &rec), HF_INPUT);
  assert_int_equal(dev_record(r->d, r->ops, r->n_ops, &r->ctx, 0, TOKENS, &rec), HF_INPUT);
  close_rig(r);
}

static void steps_that_do_not_fit_are_refused(void **state) {
  (void)state;
  rig *r = open_virtual(2, NULL, NULL), *other = open_virtual(1, NULL, NULL);
  dev_step *s = &r->step[0];
  fill_step(r, 0, 0);
  int n = s->n_tok;
  const int bad[] = {0, -1, TOKENS + 1};
  for (int i = 0; i < 3; i++) {
    s->n_tok = bad[i];
    assert_int_equal(dev_launch(r->d, r->rec[0], s), HF_INPUT);
  }
  s->n_tok = n;
  s->n_logits = TOKENS + 1;
  assert_int_equal(dev_launch(r->d, r->rec[0], s), HF_INPUT);
  s->n_logits = -1;
  assert_int_equal(dev_launch(r->d, r->rec[0], s), HF_INPUT);
  s->n_logits = 1;
  s->stream = 2;
  assert_int_equal(dev_launch(r->d, r->rec[0], s), HF_INPUT);
  s->stream = 0;
  assert_int_equal(dev_launch(other->d, r->rec[0], s), HF_INPUT);
  assert_true(dev_finished(r->d, 77));
  dev_recording *rec = NULL;
  const dev_addr x = put(r, NULL, TOKENS * D * sizeof(float));
  const dev_op of_step[] = {
      {.kind = DOP_EXPERTS, .layer = DEV_LAYER_OF_STEP, .in = x, .in_stride = D, .out = x, .out_stride = D, .n = D}};
  assert_int_equal(dev_record(r->d, of_step, 1, &r->ctx, TOKENS, TOKENS, &rec), HF_OK);
  const int layers[] = {-1, LAYERS, DEV_LAYER_OF_STEP};
  for (int i = 0; i < 3; i++) {
    s->layer = layers[i];
    assert_int_equal(dev_launch(r->d, rec, s), HF_INPUT);
    assert_non_null(strstr(hf_error_line(), "layer"));
  }
  s->layer = LAYERS - 1;
  for (int i = 0; i < LAYERS * TOKENS * TOP_K; i++) s->route_ids[i] = i % TOP_K;
  assert_int_equal(dev_launch(r->d, rec, s), HF_OK);
  assert_int_equal(dev_sync(r->d, 0, INT64_C(10000000000)), HF_OK);
  dev_recording_free(rec);
  const dev_op adds[] = {{.kind = DOP_ADD_GUESTS, .out = x, .out_stride = D, .n = D}};
  assert_int_equal(dev_record(r->d, adds, 1, &r->ctx, TOKENS, TOKENS, &rec), HF_OK);
  assert_int_equal(dev_launch(r->d, rec, s), HF_INPUT); /* nothing to add */
  dev_recording_free(rec);
  close_rig(r);
  close_rig(other);
}

static void lack_of_memory_is_an_error(void **state) {
  (void)state;
  rig *r = open_virtual(1, NULL, NULL);
  int failed = 0;
  for (int n = 1;; n++, failed++) {
    dev_recording *rec = NULL;
    hf_fail_alloc_at(n);
    hf_status st = dev_record(r->d, r->ops, r->n_ops, &r->ctx, TOKENS, TOKENS, &rec);
    hf_fail_alloc_at(0);
    dev_recording_free(rec);
    if (st == HF_OK) break;
    assert_int_equal(st, HF_MACHINE);
    assert_null(rec);
  }
  assert_true(failed > 5);
  for (int n = 1;; n++) {
    dev *d = NULL;
    hf_fail_alloc_at(n);
    hf_status st = dev_virtual_new(1 << 20, 1, NULL, NULL, &d);
    hf_fail_alloc_at(0);
    if (st == HF_OK) {
      dev_free(d);
      break;
    }
    assert_int_equal(st, HF_MACHINE);
  }
  close_rig(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(host_and_virtual_devices_agree_bit_for_bit),
      cmocka_unit_test(streams_do_not_see_each_other),
      cmocka_unit_test(each_stage_is_traced_once_in_order),
      cmocka_unit_test(a_full_trace_drops_events),
      cmocka_unit_test(the_device_waits_for_the_answer_of_each_layer),
      cmocka_unit_test(a_deadline_passes_and_the_device_goes_on),
      cmocka_unit_test(a_host_that_never_answers_loses_the_device),
      cmocka_unit_test(rehearsed_faults_lose_the_device_and_no_memory),
      cmocka_unit_test(faults_that_cannot_be_are_refused),
      cmocka_unit_test(a_device_may_go_while_it_waits),
      cmocka_unit_test(memory_is_what_was_stated),
      cmocka_unit_test(invalid_operations_are_refused),
      cmocka_unit_test(steps_that_do_not_fit_are_refused),
      cmocka_unit_test(lack_of_memory_is_an_error),
  };
  if (kern_init(NULL) != HF_OK || topo_get(&topo) != HF_OK) {
    fprintf(stderr, "%s\n", hf_error_line());
    return 1;
  }
  return cmocka_run_group_tests(tests, NULL, NULL);
}
