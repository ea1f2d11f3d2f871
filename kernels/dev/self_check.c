/* self_check.c: whether a device that was lost computes again (device.h): a product whose result is known, through its memory, a recording and a stream. */
#include <stdlib.h>

#include "base/mem.h"
#include "kernels/device.h"

enum { SIDE = 64, ROWS = 3 };

/* Small whole numbers: sums are exact in any order. */
static float weight_at(int row, int col) {
  return (float)((row * 7 + col * 3) % 5 - 2);
}

static float input_at(int row, int col) {
  return (float)((row * 5 + col) % 7 - 3);
}

typedef struct {
  dev_addr w, x, packed, y;
  float weights[SIDE * SIDE], rows[ROWS * SIDE];
} work;

static hf_status fill(dev *d, work *k, size_t packed_bytes) {
  for (int r = 0; r < SIDE; r++)
    for (int c = 0; c < SIDE; c++) k->weights[r * SIDE + c] = weight_at(r, c);
  for (int t = 0; t < ROWS; t++)
    for (int c = 0; c < SIDE; c++) k->rows[t * SIDE + c] = input_at(t, c);
  HF_TRY(dev_alloc(d, sizeof k->weights, "its self-check", &k->w));
  HF_TRY(dev_alloc(d, sizeof k->rows, "its self-check", &k->x));
  HF_TRY(dev_alloc(d, sizeof k->rows, "its self-check", &k->y));
  HF_TRY(dev_alloc(d, ROWS * packed_bytes, "its self-check", &k->packed));
  return dev_upload(d, k->w, k->weights, sizeof k->weights);
}

static hf_status judge(const work *k) {
  for (int t = 0; t < ROWS; t++)
    for (int r = 0; r < SIDE; r++) {
      float sum = 0;
      for (int c = 0; c < SIDE; c++) sum += weight_at(r, c) * input_at(t, c);
      if (k->rows[t * SIDE + r] != sum) return hf_fail(HF_LOST, "its self-check gave a wrong result");
    }
  return HF_OK;
}

static hf_status run(dev *d, work *k, kern_act act, size_t packed_bytes, int64_t deadline_ns) {
  const dev_context ctx = {.d_model = SIDE};
  dev_step s = {.host_x = k->rows, .n_tok = ROWS, .max_tok = ROWS, .max_logits = 1};
  const dev_mat w = {
      .format = KF_F32, .layout = KL_ROWS, .n_rows = SIDE, .n_cols = SIDE, .row_bytes = SIDE * sizeof(float), .data = k->w};
  const dev_op op[] = {
      {.kind = DOP_COPY_IN, .out = k->x, .out_stride = SIDE, .n = SIDE},
      {.kind = DOP_PACK, .act = act, .in = k->x, .in_stride = SIDE, .n = SIDE, .out = k->packed, .out_stride = (int)packed_bytes},
      {.kind = DOP_MATMUL, .act = act, .w = w, .in = k->packed, .in_stride = (int)packed_bytes, .out = k->y, .out_stride = SIDE},
      {.kind = DOP_COPY_OUT, .in = k->y, .in_stride = SIDE, .n = SIDE}};
  dev_recording *r = NULL;
  HF_TRY(dev_record(d, op, sizeof op / sizeof *op, &ctx, ROWS, 1, &r));
  hf_status st = dev_launch(d, r, &s);
  if (st == HF_OK) st = dev_sync(d, 0, deadline_ns);
  if (st != HF_OK) dev_quit(d); /* whatever it is at reads this */
  dev_recording_free(r);
  return st == HF_OK ? judge(k) : st;
}

hf_status dev_self_check(dev *d, int64_t deadline_ns) {
  const kern_act act = kern_act_of(KF_F32, true);
  const size_t packed_bytes = (kern_act_bytes(act, SIDE) + 63) & ~(size_t)63;
  work *k = NULL;
  HF_TRY(hf_alloc(&k, 1, sizeof *k, "a device's self-check"));
  hf_status st = fill(d, k, packed_bytes);
  if (st == HF_OK) st = run(d, k, act, packed_bytes, deadline_ns);
  dev_release(d, k->w, sizeof k->weights);
  dev_release(d, k->x, sizeof k->rows);
  dev_release(d, k->y, sizeof k->rows);
  dev_release(d, k->packed, ROWS * packed_bytes);
  free(k);
  return st;
}
