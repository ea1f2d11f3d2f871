/* The copy queue of a virtual device: experts that are sent give the host's bits through any number of slots, as a paced link brings them; recordings that
 * cannot be run are refused. */
#include "kernels_device_common.h"

enum { ROUNDS = 4, LINK_NS = 2000000 };

static void put_op(dev_op *ops, int *n, dev_op op) {
  ops[(*n)++] = op;
}

/* The rig's step with uploads in it; returns the number of operations. */
static int with_uploads(rig *r, dev_op *ops) {
  const dev_addr sum = put(r, NULL, TOKENS * D * sizeof(float));
  int n = 0;
  dev_addr xn = 0, x = 0;
  for (int i = 0; i < r->n_ops; i++) {
    dev_op op = r->ops[i];
    if (op.kind == DOP_EXPERTS) xn = op.in, x = op.out;
    if (op.kind == DOP_WAIT)
      put_op(ops, &n,
             (dev_op){.kind = DOP_UPLOADED,
                      .when = DEV_UPLOAD,
                      .layer = op.layer,
                      .in = xn,
                      .in_stride = D,
                      .in2 = sum,
                      .out = x,
                      .out_stride = D,
                      .n = D});
    if (op.kind == DOP_COPY_OUT || op.kind == DOP_SIGNAL || op.kind == DOP_WAIT || op.kind == DOP_ADD_IN) op.when = DEV_NO_UPLOAD;
    put_op(ops, &n, op);
    if (op.kind == DOP_STAGE && op.n == DEV_STAGE_ATTN)
      put_op(ops, &n, (dev_op){.kind = DOP_UPLOAD, .when = DEV_UPLOAD, .layer = op.layer});
  }
  return n;
}

static void give_slots(rig *r, int n_slots, uint8_t *likely) {
  r->ctx.host_experts = r->host;
  r->ctx.likely = likely;
  r->ctx.n_slots = n_slots;
  r->ctx.slot_bytes = dev_slot_bytes(&r->host[1], D, FF);
  r->ctx.slots = put(r, NULL, r->ctx.slot_bytes * (size_t)n_slots);
}

static rig *open_uploading(int n_slots, dev_pace_fn *pace, void *user, uint8_t *likely) {
  rig *r = open_virtual(1, pace, user);
  dev_op ops[160];
  dev_recording_free(r->rec[0]);
  give_slots(r, n_slots, likely);
  const int n = with_uploads(r, ops);
  if (dev_record(r->d, ops, n, &r->ctx, TOKENS, TOKENS, &r->rec[0]) != HF_OK) fail_msg("%s", hf_error_line());
  return r;
}

static void run_round(rig *r, int round, bool upload, float *logits) {
  dev_step *s = &r->step[0];
  fill_step(r, 0, round);
  s->upload = upload;
  launch(r, 0);
  drive(r, 1);
  memcpy(logits, s->logits, (size_t)s->n_logits * VOCAB * sizeof(float));
}

static void sent_experts_give_the_hosts_bits(void **state) {
  (void)state;
  float want[ROUNDS][TOKENS * VOCAB] = {0}, got[ROUNDS][TOKENS * VOCAB];
  rig *plain = open_virtual(1, NULL, NULL);
  for (int i = 0; i < ROUNDS; i++) run_round(plain, i, false, want[i]);
  close_rig(plain);
  for (int slots = 2; slots <= 4; slots++)
    for (int which = 0; which < 1 << ROUNDS; which += 5) { /* any mixture of steps of both kinds */
      uint8_t likely[LAYERS * EXPERTS] = {0};
      rig *r = open_uploading(slots, NULL, NULL, likely);
      memset(got, 0, sizeof got);
      for (int i = 0; i < ROUNDS; i++) {
        const bool upload = which >> i & 1;
        run_round(r, i, upload, got[i]);
        assert_int_equal(atomic_load(&r->step[0].ready) == 0, upload); /* nobody is asked */
        assert_int_equal(r->step[0].sent_bytes > 0, upload);
        assert_true(r->step[0].unused_bytes <= r->step[0].sent_bytes);
      }
      assert_memory_equal(got, want, sizeof want);
      for (int x = 0; x < LAYERS * EXPERTS; x++) assert_true(which || !likely[x]);
      close_rig(r);
    }
}

/* On the device's threads: the link's and the computing one. */
static int64_t slow_link(void *user, dev_stage st, int layer, int expert, const dev_step *step, const dev_context *ctx) {
  (void)user;
  const bool host = expert >= 0 && ctx->host_experts[layer * ctx->n_experts + expert].gate.data;
  if (step->n_tok < 1 || (expert >= 0) != (st == DEV_STAGE_UPLOAD || (st == DEV_STAGE_DEXP && host))) return INT64_C(1) << 40;
  return st == DEV_STAGE_UPLOAD ? LINK_NS : 0;
}

static void an_expert_comes_when_the_link_has_brought_it(void **state) {
  (void)state;
  uint8_t likely[LAYERS * EXPERTS] = {0};
  float logits[TOKENS * VOCAB];
  rig *r = open_uploading(2, slow_link, NULL, likely);
  const dev_step *s = &r->step[0];
  for (int round = 0; round < ROUNDS; round++) {
    run_round(r, round, true, logits);
    int sent = 0;
    int64_t before_ns = 0;
    for (int i = 0; i < s->n_trace; i++) {
      const dev_trace *t = &s->trace[i];
      if (t->stage != DEV_STAGE_UPLOAD) continue;
      assert_true(t->end_ns - t->start_ns >= t->distinct * LINK_NS && t->bytes == t->distinct * (int64_t)r->ctx.slot_bytes);
      assert_true(t->start_ns >= before_ns);
      before_ns = t->end_ns;
      sent += t->distinct;
    }
    assert_true(s->sent_bytes >= sent * (int64_t)r->ctx.slot_bytes);
    assert_true(sent > 0 && s->finished_ns - s->launched_ns >= (int64_t)sent / LAYERS * LINK_NS);
  }
  close_rig(r);
}

static void recordings_without_slots_are_refused(void **state) {
  (void)state;
  uint8_t likely[LAYERS * EXPERTS] = {0};
  rig *r = open_uploading(2, NULL, NULL, likely), *h = open_host(1);
  dev_op ops[160], good;
  dev_recording *rec = NULL;
  const int n = with_uploads(r, ops);
  int up = 0, upped = 0;
  for (int i = n - 1; i >= 0; i--) up = ops[i].kind == DOP_UPLOAD ? i : up, upped = ops[i].kind == DOP_UPLOADED ? i : upped;
  const int slots[] = {1, 0, -1, DEV_MAX_SLOTS + 1};
  for (int i = 0; i < 4; i++) {
    r->ctx.n_slots = slots[i];
    assert_int_equal(dev_record(r->d, ops, n, &r->ctx, TOKENS, TOKENS, &rec), HF_INPUT);
  }
  r->ctx.n_slots = 2;
  const dev_addr where = r->ctx.slots;
  r->ctx.slots = 0;
  assert_int_equal(dev_record(r->d, ops, n, &r->ctx, TOKENS, TOKENS, &rec), HF_INPUT);
  r->ctx.slots = where;
  good = ops[up], ops[up].when = DEV_ALWAYS;
  assert_int_equal(dev_record(r->d, ops, n, &r->ctx, TOKENS, TOKENS, &rec), HF_INPUT);
  ops[up] = good, ops[up].kind = DOP_STAGE;
  assert_int_equal(dev_record(r->d, ops, n, &r->ctx, TOKENS, TOKENS, &rec), HF_INPUT); /* computed and never sent */
  assert_non_null(strstr(hf_error_line(), "uploaded"));
  ops[up] = good, good = ops[upped], ops[upped].in2 = 0;
  assert_int_equal(dev_record(r->d, ops, n, &r->ctx, TOKENS, TOKENS, &rec), HF_INPUT);
  ops[upped] = good, ops[upped].kind = DOP_STAGE, ops[upped].n = DEV_STAGE_DEXP;
  assert_int_equal(dev_record(r->d, ops, n, &r->ctx, TOKENS, TOKENS, &rec), HF_INPUT); /* sent, and the next layer's too soon */
  assert_null(rec);
  give_slots(h, 2, likely);
  assert_int_equal(dev_record(h->d, ops, n, &h->ctx, TOKENS, TOKENS, &rec), HF_INPUT);
  fill_step(h, 0, 0);
  h->step[0].upload = true;
  assert_int_equal(dev_launch(h->d, h->rec[0], &h->step[0]), HF_INPUT);
  close_rig(h);
  close_rig(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sent_experts_give_the_hosts_bits),
      cmocka_unit_test(an_expert_comes_when_the_link_has_brought_it),
      cmocka_unit_test(recordings_without_slots_are_refused),
  };
  if (kern_init(NULL) != HF_OK || topo_get(&topo) != HF_OK) {
    fprintf(stderr, "%s\n", hf_error_line());
    return 1;
  }
  return cmocka_run_group_tests(tests, NULL, NULL);
}
