/* Resident experts of a step: lists, gate and up with SwiGLU, rounding, down, weighted sum, against the host's code for the same (kernels/moe.h)
 * with scalar kernels' rounding; experts that are not resident, tokens that meet at one expert, biases and the clamped SwiGLU. */
#include "cuda_test.h"
#include "kernels/moe.h"

typedef int group_fn(const hfc_group *a, void *stream);
static const struct {
  kern_format format, down;
  group_fn *fn, *down_fn;
  int d_model, d_ff;
} cases[] = {
    {KF_Q8_0, KF_Q8_0, hfc_group_q8_0, hfc_group_q8_0, 96, 64},   {KF_Q4_0, KF_Q8_0, hfc_group_q4_0, hfc_group_q8_0, 64, 96},
    {KF_Q4_K, KF_Q6_K, hfc_group_q4_k, hfc_group_q6_k, 256, 256}, {KF_BF16, KF_BF16, hfc_group_bf16, hfc_group_bf16, 100, 70},
    {KF_FP8, KF_FP8, hfc_group_fp8, hfc_group_fp8, 132, 140},     {KF_MXFP4, KF_MXFP4, hfc_group_mxfp4, hfc_group_mxfp4, 64, 96},
    {KF_INT4, KF_INT4, hfc_group_int4, hfc_group_int4, 64, 32},
};
enum { N_EXPERTS = 9, TOP_K = 3, N_TOK = 7, ABSENT = 4 };

typedef struct {
  kern_mat m;
  void *tiles;
} matrix;

static matrix make(kern_format f, int rows, int cols, int seed) {
  const size_t row_bytes = kern_row_bytes(f, cols), bytes = kern_mat_bytes(KL_TILE16, f, rows, cols);
  char *data = malloc(row_bytes * (size_t)rows);
  assert_non_null(data);
  for (int r = 0; r < rows; r++) kern_random_row(f, (uint64_t)(seed * 1000 + r), 0.5f, cols, data + (size_t)r * row_bytes);
  matrix x = {.tiles = device(bytes, "expert")};
  const kern_mat stored = {f, KL_ROWS, rows, cols, row_bytes, data};
  kern_tile_pack(&stored, 0, rows, x.tiles);
  free(data);
  hfc_host_constant(x.tiles);
  x.m = (kern_mat){f, KL_TILE16, rows, cols, row_bytes, x.tiles};
  return x;
}

typedef struct {
  matrix m[N_EXPERTS][3];
  float *bias[N_EXPERTS][3];
  moe_expert host[N_EXPERTS];
  hfc_expert *experts;
} layer;

static void layer_make(layer *l, int c, bool biases) {
  const int d = cases[c].d_model, ff = cases[c].d_ff;
  l->experts = device(N_EXPERTS * sizeof *l->experts, "experts");
  for (int e = 0; e < N_EXPERTS; e++) {
    l->m[e][0] = make(cases[c].format, ff, d, 3 * e + 1);
    l->m[e][1] = make(cases[c].format, ff, d, 3 * e + 2);
    l->m[e][2] = make(cases[c].down, d, ff, 3 * e + 3);
    for (int i = 0; i < 3; i++) l->bias[e][i] = biases ? random_floats(i < 2 ? ff : d, 0.3f, "bias") : NULL;
    l->host[e] = (moe_expert){l->m[e][0].m, l->m[e][1].m, l->m[e][2].m, l->bias[e][0], l->bias[e][1], l->bias[e][2]};
    l->experts[e] =
        (hfc_expert){l->m[e][0].tiles, l->m[e][1].tiles, l->m[e][2].tiles, l->bias[e][0], l->bias[e][1], l->bias[e][2]};
  }
  l->host[ABSENT].gate.data = NULL;
  l->experts[ABSENT].gate = NULL;
}

static void layer_drop(layer *l) {
  for (int e = 0; e < N_EXPERTS; e++) {
    for (int i = 0; i < 3; i++) {
      hfc_host_free(l->m[e][i].tiles);
      hfc_host_free(l->bias[e][i]);
    }
  }
  hfc_host_free(l->experts);
}

typedef struct {
  float *x, *weights, *hidden, *part, *out;
  char *packed, *hidden_packed;
  int32_t *ids, *lists, *count;
} step;

static void step_run(const layer *l, int c, const step *s, int n_tok, float limit) {
  const int d = cases[c].d_model, ff = cases[c].d_ff;
  const kern_act act = kern_act_of(cases[c].format, false), down_act = kern_act_of(cases[c].down, false);
  const size_t x_bytes = kern_act_bytes(act, d), h_bytes = kern_act_bytes(down_act, ff);
  RUN(hfc_pack_rows(&(hfc_pack){.n_tok = n_tok,
                                .n = d,
                                .act = (int)act,
                                .x = s->x,
                                .x_stride = (size_t)d,
                                .packed = s->packed,
                                .packed_bytes = x_bytes},
                    NULL));
  RUN(hfc_experts_sort(&(hfc_experts_lists){.experts = l->experts,
                                            .n_experts = N_EXPERTS,
                                            .top_k = TOP_K,
                                            .n_tok = n_tok,
                                            .ids = s->ids,
                                            .lists = s->lists,
                                            .count = s->count},
                       NULL));
  hfc_group g = {.experts = l->experts,
                 .lists = s->lists,
                 .n_experts = N_EXPERTS,
                 .top_k = TOP_K,
                 .n_tok = n_tok,
                 .n_rows = ff,
                 .n_cols = d,
                 .gated = 1,
                 .x = s->packed,
                 .x_bytes = x_bytes,
                 .y = s->hidden,
                 .y_stride = (size_t)ff,
                 .limit = limit};
  RUN(cases[c].fn(&g, NULL));
  RUN(hfc_pack_rows(&(hfc_pack){.n_tok = n_tok * TOP_K,
                                .n = ff,
                                .act = (int)down_act,
                                .x = s->hidden,
                                .x_stride = (size_t)ff,
                                .packed = s->hidden_packed,
                                .packed_bytes = h_bytes,
                                .count = s->lists + 1},
                    NULL));
  g.n_rows = d, g.n_cols = ff, g.gated = 0, g.x = s->hidden_packed, g.x_bytes = h_bytes, g.y = s->part, g.y_stride = (size_t)d;
  RUN(cases[c].down_fn(&g, NULL));
  RUN(hfc_experts_sum(&(hfc_experts_sum_of){.lists = s->lists,
                                            .n_experts = N_EXPERTS,
                                            .top_k = TOP_K,
                                            .n_tok = n_tok,
                                            .n = d,
                                            .add = 1,
                                            .weights = s->weights,
                                            .part = s->part,
                                            .part_stride = (size_t)d,
                                            .out = s->out,
                                            .out_stride = (size_t)d,
                                            .count = s->count},
                      NULL));
}

/* Hidden activations are rounded: one that lies at a rounding edge may go either way, which a whole step of a weight's scale shows. */
static void check(int c, int n_tok, int real, bool biases, float limit) {
  const int d = cases[c].d_model, ff = cases[c].d_ff, pairs = n_tok * TOP_K;
  layer l;
  layer_make(&l, c, biases);
  step s = {.x = random_floats(n_tok * d, 1, "x"),
            .weights = random_floats(pairs, 1, "weights"),
            .hidden = device((size_t)(pairs * ff) * 4, "hidden"),
            .part = device((size_t)(pairs * d) * 4, "part"),
            .out = random_floats(n_tok * d, 1, "out"),
            .packed = device((size_t)n_tok * kern_act_bytes_any(d), "packed"),
            .hidden_packed = device((size_t)pairs * kern_act_bytes_any(ff), "hidden, packed"),
            .ids = device((size_t)pairs * 4, "ids"),
            .lists = device(hfc_experts_lists_ints(N_EXPERTS, TOP_K, n_tok) * 4, "lists"),
            .count = device(4, "count")};
  for (int t = 0; t < n_tok; t++) /* expert 4, which is absent, among them; 8 for all */
    s.ids[t * TOP_K] = t % 4, s.ids[t * TOP_K + 1] = 4 + t % 4, s.ids[t * TOP_K + 2] = 8;
  *s.count = real;
  float *want = malloc((size_t)(n_tok * d) * sizeof *want);
  assert_non_null(want);
  memcpy(want, s.out, (size_t)(n_tok * d) * sizeof *want);
  moe *m = NULL;
  const moe_shape shape = {
      .n_experts = N_EXPERTS, .top_k = TOP_K, .d_model = d, .d_ff = ff, .max_tok = n_tok, .swiglu_limit = limit};
  assert_int_equal(moe_new(&shape, 1, &m), HF_OK);
  const moe_job job = {.experts = l.host,
                       .n_tok = real,
                       .x = s.x,
                       .x_stride = d,
                       .ids = s.ids,
                       .weights = s.weights,
                       .y = want,
                       .y_stride = d,
                       .add = true};
  moe_run(m, &job, NULL, 0, 1);
  step_run(&l, c, &s, n_tok, limit);
  assert_int_equal(s.lists[0], moe_last_distinct(m));
  assert_int_equal(s.lists[1], moe_last_pairs(m));
  double most = 0;
  for (int i = 0; i < n_tok * d; i++) most = fmax(most, fabs((double)want[i]));
  for (int i = 0; i < n_tok * d; i++)
    assert_near(s.out[i], want[i], i < real * d ? 1e-3f * (float)most : 0, kern_format_name(cases[c].format), i);
  moe_free(m);
  free(want);
  layer_drop(&l);
  void *all[] = {s.x, s.weights, s.hidden, s.part, s.out, s.packed, s.hidden_packed, s.ids, s.lists, s.count};
  for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) hfc_host_free(all[i]);
}

static void experts(void **state) {
  (void)state;
  for (int c = 0; c < (int)(sizeof cases / sizeof cases[0]); c++) {
    check(c, 1, 1, false, 0);
    check(c, N_TOK, N_TOK - c % 3, c % 2, c % 2 ? 7.0f : 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(experts)};
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
