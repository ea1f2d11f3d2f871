/* Formats: the model readers and the kernels speak of the same ones by the same names and sizes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "model/model.h"

static void what_is_called_executable_has_a_kernel(void **state) {
  (void)state;
  int n = 0;
  for (int f = 0; f < FMT_N; f++) {
    const fmt_info *i = fmt_get((fmt)f);
    kern_format k;
    bool has = kern_format_parse(i->name, &k);
    if (has != i->executable) fail_msg("%s: executable %d, kernel %d", i->name, i->executable, has);
    if (!has) continue;
    n++;
    const kern_mm_candidate *all[32];
    const int n_all = kern_mm_candidates(~0u, k, kern_act_of(k, false), all, 32);
    int own = 0;
    while (own < n_all && all[own]->library) own++;
    assert_true(own < n_all && n_all <= 32);
    assert_int_equal(i->slow, all[own]->isa == KERN_ISA_SCALAR);
    assert_int_equal(kern_block(k), i->block);
    assert_int_equal(kern_row_bytes(k, 512), fmt_loaded_row_bytes((fmt)f, 512));
    if (i->block == 1) assert_int_equal(kern_row_bytes(k, 515), fmt_loaded_row_bytes((fmt)f, 515));
  }
  assert_int_equal(n, KF_N);
}

/* What hf-plan budgets (model_loaded_bytes) is what hf-run's kernels take, whatever number of rows. */
static void matrices_take_what_is_budgeted(void **state) {
  (void)state;
  static const int columns[] = {66, 68, 130, 512, 768};
  const model_config c = {.kv_lora_rank = 32, .v_dim = 24};
  int padded = 0;
  assert_int_equal(kern_init(NULL), HF_OK);
  if (!(kern_get()->isa & KERN_ISA_AVX2)) skip(); /* no tiles in use */
  for (int f = 0; f < FMT_N; f++) {
    kern_format k;
    if (!kern_format_parse(fmt_get((fmt)f)->name, &k)) continue;
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
      if (columns[i] % kern_block(k) != 0) continue;
      kern_layout l = kern_best_layout(k, kern_act_of(k, false), columns[i]);
      if ((l == KL_TILE16) != fmt_has_tiles((fmt)f, columns[i])) fail_msg("%s, %d columns", fmt_get((fmt)f)->name, columns[i]);
      for (int rows = 2; rows < 40; rows++) {
        int64_t want = (int64_t)kern_mat_bytes(l, k, rows, columns[i]),
                plain = (int64_t)kern_mat_bytes(KL_ROWS, k, rows, columns[i]);
        assert_int_equal(model_loaded_bytes(&c, MT_Q, (fmt)f, rows, columns[i], true), want);
        assert_int_equal(model_loaded_bytes(&c, MT_K_B, (fmt)f, rows, columns[i], true), want);
        assert_int_equal(model_loaded_bytes(&c, MT_V_B, (fmt)f, rows, columns[i], true), plain); /* heads of 24 rows */
        assert_int_equal(model_loaded_bytes(&c, MT_EMBED, (fmt)f, rows, columns[i], true), plain);
        assert_int_equal(model_loaded_bytes(&c, MT_Q, (fmt)f, rows, columns[i], false), plain);
        padded += want > plain;
      }
      assert_int_equal(model_loaded_bytes(&c, MT_Q, (fmt)f, 1, columns[i], true), columns[i] * 4);
    }
  }
  assert_true(padded > 1000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_called_executable_has_a_kernel),
      cmocka_unit_test(matrices_take_what_is_budgeted),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
