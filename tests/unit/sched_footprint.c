/* Bytes of activation buffers, worked by hand for a small MLA and a small GQA shape. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sched/footprint.h"

static const footprint_shape mla = {.mla = true,
                                    .d_model = 64,
                                    .vocab_size = 100,
                                    .n_heads = 4,
                                    .q_lora_rank = 32,
                                    .kv_lora_rank = 16,
                                    .nope_dim = 8,
                                    .rope_dim = 4,
                                    .v_dim = 6,
                                    .d_ff_dense = 96,
                                    .d_ff_shared = 20,
                                    .n_experts = 16};
static const footprint_shape gqa = {
    .d_model = 64, .vocab_size = 100, .n_heads = 4, .n_kv_heads = 2, .head_dim = 24, .d_ff_dense = 10, .n_experts = 8};

static void widths_follow_from_the_shape(void **state) {
  (void)state;
  footprint_widths w = footprint_of(&mla);
  assert_int_equal(w.query, 4 * 12);
  assert_int_equal(w.latent_query, 4 * 20);
  assert_int_equal(w.kv, 20);
  assert_int_equal(w.latent_out, 64);
  assert_int_equal(w.heads_out, 24);
  assert_int_equal(w.ff, 96);
  assert_int_equal(w.packed, 896); /* 96 floats and 512 bytes are 896, a multiple of 64 */
  w = footprint_of(&gqa);
  assert_int_equal(w.query, 96);
  assert_int_equal(w.latent_query, 0);
  assert_int_equal(w.kv, 96);
  assert_int_equal(w.heads_out, 96);
  assert_int_equal(w.router, 8);
}

static void bytes_add_up_and_are_aligned(void **state) {
  (void)state;
  int64_t b[FOOTPRINT_BUFFERS], sum = 0;
  int64_t total = footprint_bytes(&mla, 3, 2, b);
  for (int i = 0; i < FOOTPRINT_BUFFERS; i++) {
    assert_int_equal(b[i] % FOOTPRINT_ALIGN, 0);
    sum += b[i];
  }
  assert_int_equal(total, sum);
  assert_int_equal(b[0], 768);  /* residual: 3 x 64 floats */
  assert_int_equal(b[4], 256);  /* kv: 3 x 20 floats = 240, rounded up */
  assert_int_equal(b[11], 832); /* logits: 2 x 100 floats = 800, rounded up */
  assert_int_equal(b[12], 3 * 896);
  assert_true(footprint_bytes(&mla, 4, 2, b) > total);
  assert_int_equal(footprint_bytes(&mla, 0, 0, b), 0);
}

static void rows_for_another_machine(void **state) {
  (void)state;
  /* of 5 tokens that choose 2 experts each, 64 wide: ids and weights 16, activations and results 512, the token's number 4 */
  assert_int_equal(footprint_rank_bytes(5, 2, 64), 5 * 532);
  assert_int_equal(footprint_rank_bytes(0, 2, 64), 0);
}

static void a_mirror_has_whole_contexts_and_an_end_for_each_at_once(void **state) {
  (void)state;
  assert_int_equal(footprint_standby_pages(5, 45, 512), 50 * 512 + 5);
  assert_int_equal(footprint_standby_pages(1, 0, 1), 2);
  assert_int_equal(footprint_standby_file(4096), 8192);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(widths_follow_from_the_shape),
                                     cmocka_unit_test(bytes_add_up_and_are_aligned), cmocka_unit_test(rows_for_another_machine),
                                     cmocka_unit_test(a_mirror_has_whole_contexts_and_an_end_for_each_at_once)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
