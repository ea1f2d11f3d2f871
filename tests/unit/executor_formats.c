/* Formats: the model readers and the kernels speak of the same ones by the same names and sizes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "model/format.h"

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
    const kern_mm_candidate *best = NULL;
    assert_true(kern_mm_candidates(~0u, k, kern_act_of(k, false), &best, 1) > 0);
    assert_int_equal(i->slow, best->isa == KERN_ISA_SCALAR);
    assert_int_equal(kern_block(k), i->block);
    assert_int_equal(kern_row_bytes(k, 512), fmt_loaded_row_bytes((fmt)f, 512));
    if (i->block == 1) assert_int_equal(kern_row_bytes(k, 515), fmt_loaded_row_bytes((fmt)f, 515));
  }
  assert_int_equal(n, KF_N);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(what_is_called_executable_has_a_kernel),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
