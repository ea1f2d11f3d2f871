/* Operations on rows: packing bit for bit, norm with what it packs, rotation, routing of every family, the largest logit. */
#include "cuda_test.h"

static void packs_the_hosts_bits(void **state) {
  static const int sizes[] = {1, 31, 32, 100, 256, 1000};
  (void)state;
  for (int act = 0; act < KA_N; act++) {
    for (int s = 0; s < 6; s++) {
      const int n = sizes[s], n_tok = 3;
      const size_t bytes = kern_act_bytes((kern_act)act, n);
      float *x = random_floats(n_tok * n, 3, "x");
      char *packed = device((size_t)n_tok * bytes, "packed"), *want = malloc(bytes);
      x[0] = 0x1p-140f;
      if (n > 60) memset(x + 32, 0, 32 * sizeof *x);
      if (n > 70) x[65] = NAN;
      if (n > 99) x[97] = -INFINITY;
      RUN(hfc_pack_rows(
          &(hfc_pack){.n_tok = n_tok, .n = n, .act = act, .x = x, .x_stride = (size_t)n, .packed = packed, .packed_bytes = bytes},
          NULL));
      for (int t = 0; t < n_tok; t++) {
        kern_table ref;
        assert_int_equal(kern_table_for(KERN_ISA_SCALAR, &ref), HF_OK);
        ref.pack[act](x + t * n, n, want);
        assert_memory_equal(packed + (size_t)t * bytes, want, bytes);
      }
      free(want);
      hfc_host_free(x);
      hfc_host_free(packed);
    }
  }
}

static void norms_and_packs(void **state) {
  static const int sizes[] = {1, 100, 576, 1000};
  (void)state;
  for (int s = 0; s < 4; s++) {
    const int n = sizes[s], n_tok = 2;
    const size_t bytes = kern_act_bytes(KA_Q8B32, n);
    float *x = random_floats(n_tok * n, 5, "x"), *w = random_floats(n, 1, "w"), *y = device((size_t)(n_tok * n) * 4, "y"),
          *want = calloc((size_t)n, sizeof *want);
    char *packed = device((size_t)n_tok * bytes, "packed"), *again = malloc(bytes);
    hfc_rmsnorm a = {.n_tok = n_tok,
                     .n = n,
                     .heads = 1,
                     .act = HFC_Q8B32,
                     .x = x,
                     .w = w,
                     .eps = 1e-6f,
                     .x_stride = (size_t)n,
                     .y_stride = (size_t)n,
                     .y = y,
                     .packed = packed,
                     .packed_bytes = bytes};
    RUN(hfc_rmsnorm_rows(&a, NULL));
    for (int t = 0; t < n_tok; t++) {
      kern_table ref;
      assert_int_equal(kern_table_for(KERN_ISA_SCALAR, &ref), HF_OK);
      ref.rmsnorm(x + t * n, w, 1e-6f, n, want);
      for (int i = 0; i < n; i++) assert_near(y[t * n + i], want[i], 2e-6f * fabsf(want[i]), "norm", i);
      ref.pack[KA_Q8B32](y + t * n, n, again);
      assert_memory_equal(packed + (size_t)t * bytes, again, bytes);
    }
    a.y = x; /* in place */
    RUN(hfc_rmsnorm_rows(&a, NULL));
    assert_memory_equal(x, y, (size_t)(n_tok * n) * 4);
    free(want);
    free(again);
    hfc_host_free(x);
    hfc_host_free(w);
    hfc_host_free(y);
    hfc_host_free(packed);
  }
  enum { HEADS = 3, DIM = 20, APART = 24 }; /* norms of heads leave what is between them alone */
  float *x = random_floats(HEADS * APART, 1, "x"), *w = random_floats(DIM, 1, "w"), before[HEADS * APART], want[DIM];
  memcpy(before, x, sizeof before);
  RUN(hfc_rmsnorm_rows(
      &(hfc_rmsnorm){.n_tok = 1, .n = DIM, .heads = HEADS, .head_stride = APART, .x = x, .w = w, .eps = 1e-5f, .y = x}, NULL));
  for (int h = 0; h < HEADS; h++) {
    kern_get()->rmsnorm(before + h * APART, w, 1e-5f, DIM, want);
    for (int i = 0; i < APART; i++)
      assert_near(x[h * APART + i], i < DIM ? want[i] : before[h * APART + i], i < DIM ? 1e-5f : 0, "head", i);
  }
  hfc_host_free(x);
  hfc_host_free(w);
}

static void rotates(void **state) {
  enum { TOK = 3, HEADS = 5, N = 24, DIM = 16, POSITIONS = 40, APART = 30 };
  (void)state;
  float *cos_t = random_floats(POSITIONS * DIM / 2, 1, "cos"), *sin_t = random_floats(POSITIONS * DIM / 2, 1, "sin"),
        *x = random_floats(TOK * HEADS * APART, 1, "x"), *y = device(TOK * HEADS * N * 4, "y");
  int32_t *pos = device(TOK * sizeof *pos, "pos");
  const int at[TOK] = {0, 39, 7};
  for (int pairs = 0; pairs < 2; pairs++) {
    for (int t = 0; t < TOK; t++) pos[t] = at[t];
    hfc_rope a = {.n_tok = TOK,
                  .heads = HEADS,
                  .n = N,
                  .dim = DIM,
                  .pairs = pairs,
                  .x = x,
                  .y = y,
                  .x_stride = HEADS * APART,
                  .y_stride = HEADS * N,
                  .x_head = APART,
                  .y_head = N,
                  .offset = 4,
                  .cos = cos_t,
                  .sin = sin_t,
                  .pos = pos};
    RUN(hfc_rope_rows(&a, NULL));
    for (int t = 0; t < TOK; t++) {
      float want[HEADS * N];
      for (int h = 0; h < HEADS; h++) memcpy(want + h * N, x + (t * HEADS + h) * APART + 4, N * sizeof *x);
      kern_rope(want, HEADS, N, 0, DIM, cos_t + at[t] * DIM / 2, sin_t + at[t] * DIM / 2, pairs);
      for (int i = 0; i < HEADS * N; i++) assert_near(y[t * HEADS * N + i], want[i], 1e-6f, "rope", i);
    }
    hfc_rope same = a; /* in place */
    same.x = y, same.x_stride = HEADS * N, same.x_head = N, same.offset = 0;
    float before[HEADS * N];
    memcpy(before, y, sizeof before);
    RUN(hfc_rope_rows(&same, NULL));
    kern_rope(before, HEADS, N, 0, DIM, cos_t, sin_t, pairs);
    for (int i = 0; i < HEADS * N; i++) assert_near(y[i], before[i], 1e-6f, "rope in place", i);
  }
  hfc_host_free(cos_t);
  hfc_host_free(sin_t);
  hfc_host_free(x);
  hfc_host_free(y);
  hfc_host_free(pos);
}

static void routes(void **state) {
  static const kern_router families[] = {
      {.n_experts = 256,
       .top_k = 8,
       .n_group = 8,
       .topk_group = 4,
       .score = 1,
       .group = 1,
       .norm = true,
       .scale = 2.5f},                                                                                          /* V3, R1 */
      {.n_experts = 160, .top_k = 6, .n_group = 8, .topk_group = 3, .score = 0, .group = 2, .scale = 16},       /* V2 */
      {.n_experts = 384, .top_k = 8, .n_group = 1, .topk_group = 1, .score = 1, .norm = true, .scale = 2.827f}, /* K2 */
      {.n_experts = 128, .top_k = 8, .score = 0, .norm = true, .scale = 1},                                     /* Qwen3 */
      {.n_experts = 60, .top_k = 4, .score = 0, .scale = 1},                                                    /* Qwen2, OLMoE */
      {.n_experts = 8, .top_k = 2, .score = 2, .scale = 1}, /* Mixtral, gpt-oss */
      {.n_experts = 1024, .top_k = 64, .score = 2, .scale = 1},
      {.n_experts = 3, .top_k = 3, .score = 0, .norm = true, .scale = 1},
  };
  (void)state;
  for (size_t f = 0; f < sizeof families / sizeof families[0]; f++) {
    for (int variant = 0; variant < 4; variant++) { /* 1: biases; 2: ties; 3: imposed */
      kern_router r = families[f];
      const int n = r.n_experts, k = r.top_k, n_tok = 4;
      float *logits = random_floats(n_tok * n, 3, "logits"), *bias = random_floats(n, 0.5f, "bias"),
            *weights = device((size_t)(n_tok * k) * 4, "weights"), want_weights[64];
      int32_t *ids = device((size_t)(n_tok * k) * 4, "ids"), *forced = device((size_t)(n_tok * k) * 4, "forced"), want_ids[64];
      if (variant == 2)
        for (int i = 0; i < n_tok * n; i++) logits[i] = (float)((i * 7) % 3);
      for (int i = 0; i < n_tok * k; i++) forced[i] = i < k ? -1 : i % k;
      if (variant == 1) r.bias = bias;
      hfc_route a = {.n_tok = n_tok,
                     .n_experts = n,
                     .top_k = k,
                     .n_group = r.n_group,
                     .topk_group = r.topk_group,
                     .score = r.score,
                     .group = r.group,
                     .norm = r.norm,
                     .scale = r.scale,
                     .bias = r.bias,
                     .logits = logits,
                     .stride = (size_t)n,
                     .ids = ids,
                     .weights = weights,
                     .forced = variant == 3 ? forced : NULL};
      RUN(hfc_route_rows(&a, NULL));
      for (int t = 0; t < n_tok; t++) {
        kern_route(&r, logits + t * n, want_ids, want_weights);
        if (variant == 3 && t > 0) { /* the same choice imposed gives the same weights */
          for (int i = 0; i < k; i++) assert_int_equal(ids[t * k + i], i);
          continue;
        }
        for (int i = 0; i < k; i++) {
          if (ids[t * k + i] != want_ids[i])
            fail_msg("router %zu, variant %d, token %d: expert %d, reference %d", f, variant, t, ids[t * k + i], want_ids[i]);
          assert_near(weights[t * k + i], want_weights[i], 1e-5f * fabsf(want_weights[i]) + 1e-9f, "weight", i);
        }
      }
      if (variant != 3) {
        float again[4 * 64];
        memcpy(again, weights, (size_t)(n_tok * k) * 4);
        memcpy(forced, ids, (size_t)(n_tok * k) * 4);
        a.forced = forced;
        RUN(hfc_route_rows(&a, NULL));
        assert_memory_equal(again, weights, (size_t)(n_tok * k) * 4);
      }
      hfc_host_free(logits);
      hfc_host_free(bias);
      hfc_host_free(weights);
      hfc_host_free(ids);
      hfc_host_free(forced);
    }
  }
}

static void finds_the_largest(void **state) {
  static const int sizes[] = {1, 31, 512, 1500};
  (void)state;
  for (int s = 0; s < 4; s++) {
    const int n = sizes[s];
    float *x = random_floats(3 * n, 1, "logits");
    int32_t *ids = device(3 * sizeof *ids, "ids");
    for (int i = 0; i < n; i++) x[n + i] = i >= n / 3 ? 2 : 1;
    for (int i = 0; i < n; i++) x[2 * n + i] = i == n / 2 ? -INFINITY : NAN;
    RUN(hfc_argmax_rows(&(hfc_argmax){.n_tok = 3, .n = n, .logits = x, .stride = (size_t)n, .ids = ids}, NULL));
    int best = 0;
    for (int i = 1; i < n; i++) best = x[i] > x[best] ? i : best;
    assert_int_equal(ids[0], best);
    assert_int_equal(ids[1], n / 3);
    assert_int_equal(ids[2], n / 2);
    hfc_host_free(x);
    hfc_host_free(ids);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(packs_the_hosts_bits),
      cmocka_unit_test(norms_and_packs),
      cmocka_unit_test(rotates),
      cmocka_unit_test(routes),
      cmocka_unit_test(finds_the_largest),
  };
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
