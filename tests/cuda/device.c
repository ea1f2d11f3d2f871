/* The CUDA device over a runtime that stands in for CUDA's: whole steps of a small model against the CPU, streams side by side, residency that changes
 * between steps, and the ways in which it is lost: a host that does not answer, errors at any place, hangs, memory that is not there. */
#include <math.h>

#include "kernels/cuda/device.h"
#include "tests/cuda/stand_in/runtime.h"
#include "tests/unit/kernels_device_common.h"

enum { ROUNDS = 5, ANY_ERROR = 700 };
#define LONG_NS INT64_C(60000000000)

typedef struct {
  float logits[ROUNDS][TOKENS * VOCAB], weights[ROUNDS][LAYERS * TOKENS * TOP_K];
  int32_t ids[ROUNDS][LAYERS * TOKENS * TOP_K];
} outcome;

static stand_in *gpu; /* of the rig that is open */

static rig *open_cuda(int streams, unsigned seed) {
  rig *r = zeroed(1, sizeof *r);
  dev *d = NULL;
  cuda_runtime rt;
  gpu = stand_in_open(seed, &rt);
  assert_int_equal(dev_cuda_new(&rt, 16 << 20, streams, &d), HF_OK);
  r->tiles = true;
  open_rig_with(r, d, NULL, streams);
  return r;
}

static void close_cuda(rig *r) {
  close_rig(r);
  assert_int_equal(stand_in_close(gpu), 0);
}

static void keep(outcome *o, int round, const dev_step *s) {
  memcpy(o->logits[round], s->logits, sizeof o->logits[round]);
  memcpy(o->ids[round], s->route_ids, sizeof o->ids[round]);
  memcpy(o->weights[round], s->route_weights, sizeof o->weights[round]);
}

/* Stream 0 with the content of another. */
static outcome *alone(rig *r, int content, void (*between)(rig *r, int round)) {
  outcome *o = zeroed(1, sizeof *o);
  for (int round = 0; round < ROUNDS; round++) {
    if (between) between(r, round);
    fill_step(r, 0, round);
    for (int t = 0; t < r->step[0].n_tok; t++) r->step[0].ids[t] = (r->step[0].ids[t] + content) % VOCAB;
    launch(r, 0);
    drive(r, 1);
    keep(o, round, &r->step[0]);
  }
  return o;
}

/* Activations are rounded alike, but sums are in other orders, so that a number which lies at a rounding edge may go either way. On the CPU, too: weights
 * of the norms that are larger by a millionth move logits of steps 2 to 4 by up to 8e-3 of the largest, the others not at all. */
static void assert_alike(const outcome *got, const outcome *want) {
  int n_moved = 0;
  for (int round = 0; round < ROUNDS; round++) {
    float most = 0;
    for (int i = 0; i < TOKENS * VOCAB; i++) most = fmaxf(most, fabsf(want->logits[round][i]));
    assert_true(most > 0);
    assert_memory_equal(got->ids[round], want->ids[round], sizeof want->ids[round]);
    for (int i = 0; i < LAYERS * TOKENS * TOP_K; i++)
      assert_true(fabsf(got->weights[round][i] - want->weights[round][i]) <= 1e-3f);
    for (int row = 0; row < SEQS; row++) {
      float far = 0;
      for (int i = row * VOCAB; i < (row + 1) * VOCAB; i++)
        far = fmaxf(far, fabsf(got->logits[round][i] - want->logits[round][i]));
      if (!(far <= 2e-2f * most)) fail_msg("step %d, row %d: logits differ by %g of %g", round, row, (double)far, (double)most);
      n_moved += far > 1e-4f * most;
    }
  }
  assert_true(n_moved <= ROUNDS * SEQS / 4);
}

static void steps_give_what_the_cpu_gives(void **state) {
  (void)state;
  rig *v = open_virtual(1, NULL, NULL), *r = open_cuda(1, 1);
  outcome *want = alone(v, 0, NULL), *got = alone(r, 0, NULL);
  assert_alike(got, want);
  assert_int_equal(stand_in_graphs(gpu), 1); /* recorded once, replayed since */
  free(want);
  free(got);
  close_rig(v);
  close_cuda(r);
}

static void streams_do_not_see_each_other(void **state) {
  (void)state;
  outcome *want[STREAMS];
  for (int i = 0; i < STREAMS; i++) {
    rig *one = open_cuda(1, 2);
    want[i] = alone(one, i, NULL);
    close_cuda(one);
  }
  rig *r = open_cuda(STREAMS, 3);
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
    assert_memory_equal(&got[i], want[i], sizeof *want[i]);
    free(want[i]);
  }
  free(got);
  close_cuda(r);
}

/* Before step 2 the first expert of each layer leaves the device for the host, before step 4 it is back. */
static void move_experts(rig *r, int round) {
  static dev_expert away[LAYERS];
  for (int l = 0; l < LAYERS; l++) {
    const int i = l * EXPERTS;
    const unsigned seed = 100 + 3 * (unsigned)i;
    if (round == 2) {
      away[l] = r->experts[i];
      r->experts[i] = (dev_expert){0};
      r->host[i] = (moe_expert){host_matrix(KF_Q8_0, FF, D, seed), host_matrix(KF_Q8_0, FF, D, seed + 1),
                                host_matrix(KF_Q8_0, D, FF, seed + 2)};
    } else if (round == 4) {
      r->experts[i] = away[l];
      free((void *)(uintptr_t)r->host[i].gate.data);
      free((void *)(uintptr_t)r->host[i].up.data);
      free((void *)(uintptr_t)r->host[i].down.data);
      r->host[i] = (moe_expert){0};
    }
  }
}

static void experts_may_move_between_steps(void **state) {
  (void)state;
  rig *v = open_virtual(1, NULL, NULL), *r = open_cuda(1, 4);
  outcome *want = alone(v, 0, NULL), *got = alone(r, 0, move_experts);
  assert_alike(got, want);
  assert_int_equal(stand_in_graphs(gpu), 3);
  free(want);
  free(got);
  close_rig(v);
  close_cuda(r);
}

static void it_computes(void **state) {
  (void)state;
  cuda_runtime rt;
  dev *d = NULL;
  stand_in *x = stand_in_open(5, &rt);
  assert_int_equal(dev_cuda_new(&rt, 1 << 20, 1, &d), HF_OK);
  assert_int_equal(dev_self_check(d, LONG_NS), HF_OK);
  assert_int_equal(dev_mem_used(d), 0);
  stand_in_fail(x, 3, ANY_ERROR);
  assert_int_equal(dev_self_check(d, LONG_NS), HF_LOST);
  dev_free(d);
  assert_int_equal(stand_in_close(x), 0);
}

static void memory_goes_there_and_back(void **state) {
  enum { N = 3 << 20, MORE = 17 }; /* several blocks */
  (void)state;
  cuda_runtime rt;
  dev *d = NULL;
  dev_addr a = 0, b = 0;
  stand_in *x = stand_in_open(6, &rt);
  assert_int_equal(dev_cuda_new(&rt, 8 << 20, 1, &d), HF_OK);
  unsigned char *p = zeroed(N + MORE, 1), *q = zeroed(N + MORE, 1);
  for (int i = 0; i < N + MORE; i++) p[i] = (unsigned char)(i * 7 + i / 1000);
  assert_int_equal(dev_alloc(d, N + MORE, "bytes", &a), HF_OK);
  assert_int_equal(dev_upload(d, a, p, N + MORE), HF_OK);
  assert_int_equal(dev_read_back(d, q, a, N + MORE), HF_OK);
  assert_memory_equal(p, q, N + MORE);
  memset(q, 0, N + MORE);
  assert_int_equal(dev_download(d, q, a + 64, N - 64, LONG_NS), HF_OK);
  assert_memory_equal(p + 64, q, N - 64);
  assert_int_equal(dev_alloc(d, 8 << 20, "too much", &b), HF_MACHINE);
  stand_in_refuse(x, 1); /* another process has it */
  assert_int_equal(dev_alloc(d, 64, "a little", &b), HF_MACHINE);
  assert_non_null(strstr(hf_error_line(), "others use the GPU's memory"));
  assert_false(dev_lost(d));
  assert_int_equal(dev_alloc(d, 64, "a little", &b), HF_OK);
  stand_in_hang(x, 2); /* the second block never comes */
  assert_int_equal(dev_download(d, q, a, N, 5000000), HF_LOST);
  assert_true(dev_finished(d, 0));
  assert_true(dev_lost(d));
  assert_int_equal(dev_upload(d, a, p, 1), HF_LOST);
  dev_release(d, a, N + MORE);
  dev_release(d, b, 64);
  free(p);
  free(q);
  dev_quit(d);
  dev_free(d);
  (void)stand_in_close(x);
}

static void a_host_that_never_answers_loses_the_device(void **state) {
  (void)state;
  rig *r = open_cuda(2, 7);
  dev_addr a = 0;
  dev_set_wait_limit(r->d, 1000000);
  fill_step(r, 0, 0);
  launch(r, 0);
  assert_int_equal(dev_launch(r->d, r->rec[0], &r->step[0]), HF_INPUT); /* still running */
  assert_int_equal(dev_sync(r->d, 0, LONG_NS), HF_LOST);
  assert_string_equal(dev_lost_reason(r->d), "it waited too long for the host");
  assert_int_equal(dev_launch(r->d, r->rec[1], &r->step[1]), HF_LOST);
  assert_int_equal(dev_alloc(r->d, 64, "x", &a), HF_LOST);
  close_cuda(r);
}

static void a_device_may_go_while_it_waits(void **state) {
  (void)state;
  rig *r = open_cuda(2, 8);
  for (int i = 0; i < 2; i++) {
    fill_step(r, i, 0);
    launch(r, i);
  }
  assert_int_equal(dev_sync(r->d, 1, 3000000), HF_TIMEOUT);
  close_cuda(r);
}

static void lose_at(int64_t n, unsigned seed) {
  rig *r = open_cuda(2, seed);
  stand_in_fail(gpu, n, ANY_ERROR);
  int answered[2] = {0};
  for (int i = 0; i < 2; i++) {
    fill_step(r, i, 0);
    const hf_status st = dev_launch(r->d, r->rec[i], &r->step[i]);
    assert_true(st == HF_OK || st == HF_LOST);
  }
  while (!dev_lost(r->d))
    for (int i = 0; i < 2; i++) {
      dev_step *s = &r->step[i];
      const int ready = atomic_load_explicit(&s->ready, memory_order_acquire);
      if (ready > answered[i]) {
        host_part(r, ready - 1, s, 0, 1);
        dev_host_done(s, ready - 1, 0);
        answered[i] = ready;
      }
      (void)dev_finished(r->d, i);
    }
  assert_non_null(strstr(dev_lost_reason(r->d), "(CUDA error 700)"));
  assert_int_equal(dev_sync(r->d, 0, LONG_NS), HF_LOST);
  close_cuda(r);
}

static void an_error_anywhere_loses_the_device_and_no_memory(void **state) {
  (void)state;
  for (int64_t n = 1; n < 100; n += 7) lose_at(n, (unsigned)n);
}

static void a_hang_is_left_behind(void **state) {
  (void)state;
  rig *r = open_cuda(2, 9);
  stand_in_hang(gpu, 12);
  fill_step(r, 0, 0);
  launch(r, 0);
  assert_int_equal(dev_sync(r->d, 0, 5000000), HF_TIMEOUT);
  dev_give_up(r->d, "given up");
  assert_int_equal(dev_sync(r->d, 0, LONG_NS), HF_LOST);
  assert_string_equal(dev_lost_reason(r->d), "given up");
  close_rig(r); /* ends, though nothing that the device could still write to is freed */
  assert_true(stand_in_close(gpu) > 0);
}

static void what_is_not_there_is_refused(void **state) {
  (void)state;
  rig *r = open_cuda(1, 10);
  dev_recording *rec = NULL;
  dev_op op = {.kind = DOP_ADD_GUESTS, .out = r->norm, .n = D};
  assert_int_equal(dev_record(r->d, &op, 1, &r->ctx, 1, 0, &rec), HF_UNSUPPORTED);
  assert_null(rec);
  op = (dev_op){.kind = DOP_MATMUL, .act = KA_BF16, .w = r->q, .in = r->norm, .out = r->norm};
  op.w.layout = KL_ROWS;
  assert_int_equal(dev_record(r->d, &op, 1, &r->ctx, 1, 0, &rec), HF_UNSUPPORTED);
  fill_step(r, 0, 0);
  r->step[0].upload = true;
  assert_int_equal(dev_launch(r->d, r->rec[0], &r->step[0]), HF_UNSUPPORTED);
  r->step[0].upload = false;
  const dev_fault f = {.kind = DEV_FAULT_ERROR, .at = 1};
  assert_int_equal(dev_inject(r->d, &f), HF_UNSUPPORTED);
  stand_in_refuse(gpu, 3); /* memory of the first launch */
  assert_int_equal(dev_launch(r->d, r->rec[0], &r->step[0]), HF_MACHINE);
  assert_false(dev_lost(r->d));
  launch(r, 0); /* memory is there again */
  drive(r, 1);
  close_cuda(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(steps_give_what_the_cpu_gives),  cmocka_unit_test(streams_do_not_see_each_other),
      cmocka_unit_test(experts_may_move_between_steps), cmocka_unit_test(it_computes),
      cmocka_unit_test(memory_goes_there_and_back),     cmocka_unit_test(a_host_that_never_answers_loses_the_device),
      cmocka_unit_test(a_device_may_go_while_it_waits), cmocka_unit_test(an_error_anywhere_loses_the_device_and_no_memory),
      cmocka_unit_test(a_hang_is_left_behind),          cmocka_unit_test(what_is_not_there_is_refused),
  };
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
