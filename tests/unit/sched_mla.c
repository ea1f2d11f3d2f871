/* Which form latent attention takes: one token absorbed, long pieces plain, once plain always plain; the work is what the header's formula says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sched/mla.h"

static const mla_shape deepseek = {.lora = 512, .nope = 128, .rope = 64, .v = 128};

static void long_pieces_are_plain(void **state) {
  (void)state;
  static const mla_shape few = {.lora = 16, .nope = 64, .rope = 8, .v = 64}; /* latents smaller than a head */
  for (double start = 0; start < 40000; start = 2 * start + 100) {
    for (int n = 1; n < MLA_BLOCK; n++) assert_false(mla_plain_pays(&deepseek, start, n));
    for (int n = MLA_BLOCK; n < 3000; n += 7) assert_true(mla_plain_pays(&deepseek, start, n));
    assert_false(mla_plain_pays(&few, start, 1000));
  }
}

/* A place in a prompt: whole blocks plain, the rest absorbed, whatever chunks it is cut into as long as they hold a block. */
static void places_in_a_prompt(void **state) {
  (void)state;
  static const int chunk_of[] = {128, 200, 512, 4096};
  for (int c = 0; c < 4; c++) {
    for (int pos = 0; pos < 1024; pos++) assert_true(mla_plain_token(&deepseek, pos, 1054, chunk_of[c]));
    for (int pos = 1024; pos < 1054; pos++) assert_false(mla_plain_token(&deepseek, pos, 1054, chunk_of[c]));
    for (int pos = 0; pos < 127; pos++) assert_false(mla_plain_token(&deepseek, pos, 127, chunk_of[c]));
  }
  for (int pos = 0; pos < 1054; pos++) assert_false(mla_plain_token(&deepseek, pos, 1054, 127));
}

static void work_is_the_formula(void **state) {
  (void)state;
  const mla_work w = mla_plain_work(&deepseek, 1000, 200);
  assert_float_equal(w.expand, 1200.0 * 512 * 256 / 2.2, 1);
  assert_float_equal(w.turn, 512.0 * 128 * 140, 1);
  assert_float_equal(w.attend, (200.0 * 1000 + 100.0 * 201 + 80.0 * 200) * 320, 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(long_pieces_are_plain),
      cmocka_unit_test(places_in_a_prompt),
      cmocka_unit_test(work_is_the_formula),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
