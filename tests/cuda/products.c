/* Products of every format on the CUDA kernels against the scalar reference, which rounds activations by the same contract: within 2e-6 of the sum
 * of magnitudes and its square root of columns, as only the order of sums differs. Odd rows, few and many blocks, 1 to 8 tokens, a bias, adding;
 * the same bits whatever the tokens beside and the order of threads. */
#include "cuda_test.h"

typedef int launch_fn(const hfc_mm *a, void *stream);
static const struct {
  kern_format format;
  launch_fn *fn;
  int cols[4]; /* 0 ends them */
} all[] = {
    {KF_Q8_0, hfc_mm_q8_0, {32, 160, 544}},   {KF_Q4_0, hfc_mm_q4_0, {32, 160, 544}},   {KF_Q4_1, hfc_mm_q4_1, {32, 352}},
    {KF_Q5_0, hfc_mm_q5_0, {32, 352}},        {KF_Q5_1, hfc_mm_q5_1, {32, 352}},        {KF_Q4_K, hfc_mm_q4_k, {256, 768}},
    {KF_Q5_K, hfc_mm_q5_k, {256, 768}},       {KF_Q6_K, hfc_mm_q6_k, {256, 768}},       {KF_IQ4_NL, hfc_mm_iq4_nl, {32, 352}},
    {KF_MXFP4, hfc_mm_mxfp4, {32, 160, 544}}, {KF_INT4, hfc_mm_int4, {32, 160, 544}},   {KF_BF16, hfc_mm_bf16, {2, 30, 100, 512}},
    {KF_F16, hfc_mm_f16, {2, 30, 100, 512}},  {KF_FP8, hfc_mm_fp8, {4, 100, 260, 512}}, {KF_F32, hfc_mm_f32, {1, 33, 300}},
};
enum { N_FORMATS = sizeof all / sizeof all[0], MAX_TOK = HFC_MM_TOKENS, MAX_ROWS = 37 };

typedef struct {
  kern_mat rows;
  char *tiles, *x; /* device */
  size_t x_bytes;
  float *y, *bias;
  float want[MAX_TOK][MAX_ROWS], most[MAX_TOK][MAX_ROWS];
} product;

static void make(product *p, kern_format f, int n_rows, int n_cols) {
  const kern_layout layout = f == KF_F32 ? KL_ROWS : KL_TILE16;
  const size_t row_bytes = kern_row_bytes(f, n_cols), tile_bytes = kern_mat_bytes(layout, f, n_rows, n_cols);
  const kern_act act = kern_act_of(f, false);
  char *rows = malloc(row_bytes * (size_t)n_rows);
  float *values = malloc((size_t)n_cols * sizeof *values), *w = malloc((size_t)n_cols * sizeof *w);
  p->rows = (kern_mat){f, KL_ROWS, n_rows, n_cols, row_bytes, rows};
  p->x_bytes = kern_act_bytes(act, n_cols);
  for (int r = 0; r < n_rows; r++) kern_random_row(f, (uint64_t)(r + 1), 1.0f, n_cols, rows + (size_t)r * row_bytes);
  p->tiles = hfc_host_alloc(tile_bytes, "weights");
  p->x = hfc_host_alloc(MAX_TOK * p->x_bytes, "activations");
  p->y = hfc_host_alloc(MAX_TOK * MAX_ROWS * sizeof(float), "results");
  p->bias = hfc_host_alloc((size_t)n_rows * sizeof(float), "bias");
  assert_true(rows && values && w && p->tiles && p->x && p->y && p->bias);
  if (layout == KL_ROWS) memcpy(p->tiles, rows, tile_bytes);
  else kern_tile_pack(&p->rows, 0, n_rows, p->tiles);
  const kern_mm_candidate *ref = NULL, *list[32];
  const int n = kern_mm_candidates(KERN_ISA_SCALAR, f, act, list, 32);
  for (int i = 0; i < n; i++)
    if (list[i]->layout == KL_ROWS && list[i]->isa == KERN_ISA_SCALAR) ref = list[i];
  assert_non_null(ref);
  for (int r = 0; r < n_rows; r++) p->bias[r] = number();
  for (int t = 0; t < MAX_TOK; t++) {
    for (int c = 0; c < n_cols; c++) values[c] = number() * (c % 7 == t ? 4.0f : 1.0f);
    void *x = p->x + (size_t)t * p->x_bytes;
    kern_get()->pack[act](values, n_cols, x);
    float *y = p->want[t];
    ref->fn(&p->rows, 0, n_rows, 1, (const void *const *)&x, &y);
    for (int r = 0; r < n_rows; r++) {
      kern_dequant_row(f, rows + (size_t)r * row_bytes, n_cols, w);
      float most = 0, widest = 0;
      for (int c = 0; c < n_cols; c++) widest = fmaxf(widest, fabsf(w[c]));
      for (int c = 0; c < n_cols; c++) most += widest * fabsf(values[c]);
      p->most[t][r] = most;
    }
  }
  hfc_host_constant(p->tiles);
  hfc_host_constant(p->x);
  hfc_host_constant(p->bias);
  free(values);
  free(w);
}

static void drop(product *p) {
  free((void *)(uintptr_t)p->rows.data);
  hfc_host_free(p->tiles);
  hfc_host_free(p->x);
  hfc_host_free(p->y);
  hfc_host_free(p->bias);
}

static hfc_mm job(const product *p, int n_tok) {
  return (hfc_mm){.w = p->tiles,
                  .n_rows = p->rows.n_rows,
                  .n_cols = p->rows.n_cols,
                  .n_tok = n_tok,
                  .x = p->x,
                  .x_bytes = p->x_bytes,
                  .y = p->y,
                  .y_stride = MAX_ROWS};
}

static void run(launch_fn *fn, const hfc_mm *a, const char *name) {
  const int rc = fn(a, NULL);
  if (rc) fail_msg("%s: %d: %s", name, rc, hfc_host_fault());
}

static void near_the_reference(void **state) {
  static const int rows[] = {1, 16, 37};
  (void)state;
  for (int f = 0; f < N_FORMATS; f++) {
    const char *name = kern_format_name(all[f].format);
    for (int c = 0; c < 4 && all[f].cols[c]; c++) {
      product p;
      make(&p, all[f].format, rows[c % 3], all[f].cols[c]);
      for (int n_tok = 1; n_tok <= MAX_TOK; n_tok += c ? 3 : 1) {
        hfc_mm a = job(&p, n_tok);
        for (int i = 0; i < MAX_TOK * MAX_ROWS; i++) p.y[i] = -1;
        run(all[f].fn, &a, name);
        for (int t = 0; t < MAX_TOK; t++) {
          for (int r = 0; r < MAX_ROWS; r++) {
            const float got = p.y[t * MAX_ROWS + r];
            if (t >= n_tok || r >= a.n_rows) assert_true(got == -1);
            else if (!(fabsf(got - p.want[t][r]) <= 2e-6f * p.most[t][r]))
              fail_msg("%s %dx%d, %d tokens: y[%d][%d] = %.9g, reference %.9g", name, a.n_rows, a.n_cols, n_tok, t, r,
                       (double)got, (double)p.want[t][r]);
          }
        }
      }
      drop(&p);
    }
  }
}

/* Alone, among others, fewer than the launch is for, in the other order of threads; with bias and sum. */
static void bits_are_a_tokens_own(void **state) {
  (void)state;
  for (int f = 0; f < N_FORMATS; f++) {
    const char *name = kern_format_name(all[f].format);
    product p;
    int cols = 0;
    for (int c = 0; c < 4 && all[f].cols[c]; c++) cols = all[f].cols[c];
    make(&p, all[f].format, 19, cols);
    float alone[MAX_TOK][MAX_ROWS];
    for (int t = 0; t < MAX_TOK; t++) {
      hfc_mm a = job(&p, 1);
      a.x = p.x + (size_t)t * p.x_bytes;
      run(all[f].fn, &a, name);
      memcpy(alone[t], p.y, sizeof alone[t]);
    }
    int32_t *count = hfc_host_alloc(sizeof *count, "count");
    *count = 5;
    hfc_mm a = job(&p, MAX_TOK);
    a.count = count;
    for (int i = 0; i < MAX_TOK * MAX_ROWS; i++) p.y[i] = -1;
    hfc_host_backwards(true);
    run(all[f].fn, &a, name);
    hfc_host_backwards(false);
    for (int t = 0; t < MAX_TOK; t++)
      for (int r = 0; r < 19; r++) assert_true(p.y[t * MAX_ROWS + r] == (t < 5 ? alone[t][r] : -1));
    a.bias = p.bias;
    a.add = 1;
    run(all[f].fn, &a, name);
    for (int t = 0; t < 5; t++)
      for (int r = 0; r < 19; r++) assert_true(p.y[t * MAX_ROWS + r] == alone[t][r] + (alone[t][r] + p.bias[r]));
    hfc_host_free(count);
    drop(&p);
  }
}

static void declines(void **state) {
  (void)state;
  const hfc_mm none = {.n_rows = 0, .n_cols = 512, .n_tok = 1}, odd = {.n_rows = 16, .n_cols = 33, .n_tok = 1},
               many = {.n_rows = 16, .n_cols = 256, .n_tok = 9};
  for (int f = 0; f < N_FORMATS; f++) {
    assert_int_equal(all[f].fn(&none, NULL), HFC_UNSUPPORTED);
    if (all[f].format != KF_F32) assert_int_equal(all[f].fn(&odd, NULL), HFC_UNSUPPORTED);
    assert_int_equal(all[f].fn(&many, NULL), HFC_UNSUPPORTED);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(near_the_reference),
      cmocka_unit_test(bits_are_a_tokens_own),
      cmocka_unit_test(declines),
  };
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
