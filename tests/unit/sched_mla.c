/* Which form latent attention takes: one token absorbed, long pieces plain, once plain always plain; the work is what the header's formula says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sched/mla.h"

static const mla_shape deepseek = {.lora = 512, .nope = 128, .rope = 64, .v = 128};

static int first_plain(double start) {
  int n = 1;
  while (!mla_plain_pays(&deepseek, start, n)) n++;
  return n;
}

static void long_pieces_are_plain(void **state) {
  (void)state;
  assert_in_range(first_plain(0), 90, 128);
  assert_in_range(first_plain(16384), 60, 90);
  for (double start = 0; start < 40000; start = 2 * start + 100) {
    assert_false(mla_plain_pays(&deepseek, start, 1));
    for (int n = first_plain(start); n < 3000; n += 7) assert_true(mla_plain_pays(&deepseek, start, n));
  }
}

/* A place in a prompt: full chunks plain, a short rest absorbed, whatever a token's neighbours. */
static void places_in_a_prompt(void **state) {
  (void)state;
  for (int pos = 0; pos < 1024; pos++) assert_true(mla_plain_token(&deepseek, pos, 1054, 512));
  for (int pos = 1024; pos < 1054; pos++) assert_false(mla_plain_token(&deepseek, pos, 1054, 512));
  for (int pos = 0; pos < 60; pos++) assert_false(mla_plain_token(&deepseek, pos, 60, 512));
  for (int pos = 0; pos < 1054; pos++) assert_false(mla_plain_token(&deepseek, pos, 1054, 32));
}

static void work_is_the_formula(void **state) {
  (void)state;
  const mla_work w = mla_plain_work(&deepseek, 1000, 200);
  assert_float_equal(w.expand, 1200.0 * 512 * 256 / 2.2 + 512.0 * 128 * 140, 1);
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
