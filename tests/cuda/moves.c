/* Operations that move and combine rows: embedding of each format and layout bit for bit, gathering, adding, SwiGLU, gates, the hand-over's flags. */
#include "cuda_test.h"
#include "base/clock.h"

_Static_assert((int)HFC_EMBED_F32 == KF_F32 && (int)HFC_EMBED_F16 == KF_F16 && (int)HFC_EMBED_BF16 == KF_BF16 &&
                   (int)HFC_EMBED_Q8_0 == KF_Q8_0,
               "the kernels have the formats' numbers");

enum { TOK = 4 };

static void embed(kern_format f, kern_layout layout, int cols) {
  enum { ROWS = 37 };
  const size_t row_bytes = kern_row_bytes(f, cols), bytes = kern_mat_bytes(layout, f, ROWS, cols);
  char *rows = device(row_bytes * ROWS, "rows"), *tiles = device(bytes, "tiles");
  float *y = device((size_t)(TOK * cols) * 4, "y"), *want = calloc((size_t)cols, sizeof *want);
  int32_t *ids = device(TOK * sizeof *ids, "ids"), *count = device(4, "count");
  assert_non_null(want);
  for (int r = 0; r < ROWS; r++) kern_random_row(f, (uint64_t)r, 0.5f, cols, rows + (size_t)r * row_bytes);
  const kern_mat stored = {f, KL_ROWS, ROWS, cols, row_bytes, rows};
  if (layout == KL_TILE16) kern_tile_pack(&stored, 0, ROWS, tiles);
  ids[0] = 0, ids[1] = 36, ids[2] = 17, ids[3] = -1000000; /* the last is no token of this step */
  *count = TOK - 1;
  y[(TOK - 1) * cols] = 5;
  RUN(hfc_embed_rows(&(hfc_embed){.n_tok = TOK,
                                  .n_cols = cols,
                                  .format = (int)f,
                                  .tiles = layout == KL_TILE16,
                                  .w = layout == KL_TILE16 ? tiles : rows,
                                  .row_bytes = row_bytes,
                                  .ids = ids,
                                  .y = y,
                                  .y_stride = (size_t)cols,
                                  .count = count},
                     NULL));
  for (int t = 0; t < TOK - 1; t++) {
    kern_mat_row(&stored, ids[t], want);
    assert_memory_equal(y + t * cols, want, (size_t)cols * sizeof *want);
  }
  assert_true(y[(TOK - 1) * cols] == 5);
  free(want);
  hfc_host_free(rows);
  hfc_host_free(tiles);
  hfc_host_free(y);
  hfc_host_free(ids);
  hfc_host_free(count);
}

static void embeds(void **state) {
  (void)state;
  embed(KF_F32, KL_ROWS, 33);
  for (int layout = 0; layout < 2; layout++) {
    embed(KF_F16, layout ? KL_TILE16 : KL_ROWS, 300);
    embed(KF_BF16, layout ? KL_TILE16 : KL_ROWS, 34);
    embed(KF_Q8_0, layout ? KL_TILE16 : KL_ROWS, 288);
  }
  const hfc_embed q4 = {.n_tok = 1, .n_cols = 256, .format = KF_Q4_K},
                  odd = {.n_tok = 1, .n_cols = 33, .format = KF_F16, .tiles = 1};
  assert_int_equal(hfc_embed_rows(&q4, NULL), HFC_UNSUPPORTED);
  assert_int_equal(hfc_embed_rows(&odd, NULL), HFC_UNSUPPORTED);
}

static void copies_and_adds(void **state) {
  enum { N = 300, APART = 310 };
  (void)state;
  float *x = random_floats(TOK * APART, 1, "x"), *y = random_floats(TOK * N, 1, "y"), before[TOK * N];
  int32_t *from = device(TOK * sizeof *from, "from"), *count = device(4, "count");
  *count = 3;
  for (int t = 0; t < TOK; t++) from[t] = TOK - 1 - t;
  for (int variant = 0; variant < 4; variant++) { /* 1: gathered; 2: added */
    const bool gathers = variant & 1, adds = variant & 2;
    memcpy(before, y, sizeof before);
    RUN(hfc_copy_rows(&(hfc_copy){.n_tok = TOK,
                                  .n = N,
                                  .add = adds,
                                  .x = x,
                                  .x_stride = APART,
                                  .y = y,
                                  .y_stride = N,
                                  .from = gathers ? from : NULL,
                                  .count = count},
                      NULL));
    for (int t = 0; t < TOK; t++)
      for (int i = 0; i < N; i++) {
        const float v = x[(gathers ? from[t] : t) * APART + i], old = before[t * N + i];
        assert_true(y[t * N + i] == (t >= *count ? old : adds ? old + v : v));
      }
  }
  hfc_host_free(x);
  hfc_host_free(y);
  hfc_host_free(from);
  hfc_host_free(count);
}

static void combines(void **state) {
  enum { N = 270 };
  (void)state;
  float *x = random_floats(TOK * N, 6, "x"), *x2 = random_floats(TOK * N, 2, "x2"), *y = device(TOK * N * 4, "y"), want[N];
  kern_table ref;
  assert_int_equal(kern_table_for(KERN_ISA_SCALAR, &ref), HF_OK);
  hfc_combine a = {.n_tok = TOK, .n = N, .x = x, .x2 = x2, .x_stride = N, .x2_stride = N, .y = y, .y_stride = N};
  RUN(hfc_combine_rows(&a, NULL));
  for (int t = 0; t < TOK; t++) {
    ref.swiglu(x + t * N, x2 + t * N, N, want);
    for (int i = 0; i < N; i++) assert_near(y[t * N + i], want[i], 2e-6f * fabsf(want[i]), "swiglu", i);
  }
  a.gate = 1;
  RUN(hfc_combine_rows(&a, NULL));
  for (int t = 0; t < TOK; t++)
    for (int i = 0; i < N; i++)
      assert_near(y[t * N + i], x[t * N + i] / (1 + expf(-x2[t * N])), 1e-6f * fabsf(x[t * N + i]), "gate", i);
  memcpy(want, y, sizeof want);
  a.y = x; /* in place */
  RUN(hfc_combine_rows(&a, NULL));
  assert_memory_equal(want, x, sizeof want);
  hfc_host_free(x);
  hfc_host_free(x2);
  hfc_host_free(y);
}

static void hands_over(void **state) {
  (void)state;
  static struct {
    int64_t limit_ns;
    int32_t flag, error;
  } host;
  host.limit_ns = 3000000;
  hfc_host_lend(&host, sizeof host, "flags");
  const hfc_wait w = {.flag = &host.flag, .error = &host.error, .value = 7, .limit_ns = &host.limit_ns};
  RUN(hfc_signal_host(&(hfc_signal){.flag = &host.flag, .value = 7}, NULL));
  assert_int_equal(host.flag, 7);
  RUN(hfc_wait_host(&w, NULL));
  assert_int_equal(host.error, 0);
  host.flag = 6; /* the answer to the layer before: no answer */
  int64_t since = hf_now_ns();
  RUN(hfc_wait_host(&w, NULL));
  assert_int_equal(host.error, 7);
  assert_true(hf_now_ns() - since >= host.limit_ns);
  host.limit_ns = INT64_MAX; /* a failed step waits for nothing more */
  RUN(hfc_wait_host(&(hfc_wait){.flag = &host.flag, .error = &host.error, .value = 8, .limit_ns = &host.limit_ns}, NULL));
  assert_int_equal(host.error, 7);
  hfc_host_take_back(&host);
  if (hfc_host_checked()) assert_int_equal(hfc_wait_host(&w, NULL), HFC_FAULT); /* memory that is not the device's any more */
  hfc_host_clear();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(embeds),
      cmocka_unit_test(copies_and_adds),
      cmocka_unit_test(combines),
      cmocka_unit_test(hands_over),
  };
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
