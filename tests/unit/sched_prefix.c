/* Which pages hold which beginnings of texts: found, grown, forgotten in the order of use, and the same as looking through a plain list. */
#include "sched/prefix.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"

enum { PT = 4, PAGES = 24 };

static prefix *make(void) {
  prefix *p = NULL;
  assert_int_equal(prefix_new(PT, PAGES, &p), HF_OK);
  return p;
}

static void beginnings_are_found(void **state) {
  (void)state;
  prefix *p = make();
  const int32_t a[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, b[12] = {1, 2, 3, 4, 5, 6, 7, 99, 9, 10, 11, 12};
  int32_t pages[3];
  assert_int_equal(prefix_find(p, a, 12, 3, pages), 0);
  assert_false(prefix_add(p, a, 1, 7)); /* what comes before is not known */
  assert_true(prefix_add(p, a, 0, 5));
  assert_true(prefix_add(p, a, 1, 3));
  assert_false(prefix_add(p, b, 0, 9)); /* the same tokens are in page 5 */
  assert_false(prefix_add(p, b, 1, 3)); /* page 3 holds others */
  assert_true(prefix_add(p, b, 1, 9));
  assert_true(prefix_add(p, b, 2, 0));
  assert_int_equal(prefix_pages(p), 4);
  assert_int_equal(prefix_find(p, a, 12, 3, pages), 2);
  assert_true(pages[0] == 5 && pages[1] == 3);
  assert_int_equal(prefix_find(p, b, 12, 3, pages), 3);
  assert_true(pages[0] == 5 && pages[1] == 9 && pages[2] == 0);
  assert_int_equal(prefix_find(p, b, 12, 2, NULL), 2); /* no more than wanted */
  assert_int_equal(prefix_find(p, b, 11, 3, NULL), 2); /* whole pages only */
  assert_true(prefix_has(p, 9) && !prefix_has(p, 1));
  prefix_free(p);
}

static bool is_busy(void *user, int32_t page) {
  return page == *(const int32_t *)user;
}

static void the_longest_unused_is_forgotten_first(void **state) {
  (void)state;
  prefix *p = make();
  const int32_t a[8] = {1, 2, 3, 4, 5, 6, 7, 8}, b[8] = {1, 2, 3, 4, 0, 0, 0, 0}, c[4] = {9, 9, 9, 9};
  int32_t busy = 11;
  assert_true(prefix_add(p, a, 0, 10) && prefix_add(p, a, 1, 11) && prefix_add(p, b, 1, 12) && prefix_add(p, c, 0, 13));
  assert_int_equal(prefix_find(p, a, 8, 2, NULL), 2); /* used again: 12 is the oldest end now */
  assert_int_equal(prefix_forget(p, NULL, NULL), 12);
  assert_int_equal(prefix_forget(p, is_busy, &busy), 13);
  assert_int_equal(prefix_forget(p, is_busy, &busy), -1); /* 10 has 11 behind it, 11 is at work */
  assert_int_equal(prefix_forget(p, NULL, NULL), 11);
  assert_int_equal(prefix_forget(p, NULL, NULL), 10);
  assert_int_equal(prefix_forget(p, NULL, NULL), -1);
  assert_int_equal(prefix_pages(p), 0);
  prefix_free(p);
}

/* Against a list of (text, pages) that is gone through. */
static void random_texts_agree_with_a_list(void **state) {
  (void)state;
  enum { ROUNDS = 4000, LENGTH = 5 * PT };
  prefix *p = make();
  int32_t text[PAGES][LENGTH];
  int level[PAGES];
  unsigned x = 1;
  for (int i = 0; i < PAGES; i++) level[i] = -1;
  for (int round = 0; round < ROUNDS; round++) {
    int32_t ids[LENGTH], pages[5];
    for (int i = 0; i < LENGTH; i++) ids[i] = (int32_t)((x = x * 1103515245u + 12345u) >> 16) % (i % PT == 0 ? 3 : 1);
    int want = 0;
    for (bool more = true; more && want < 5; want += more) {
      more = false;
      for (int i = 0; i < PAGES; i++)
        more = more || (level[i] == want && !memcmp(text[i], ids, (size_t)(want + 1) * PT * sizeof *ids));
    }
    assert_int_equal(prefix_find(p, ids, LENGTH, 5, pages), want);
    for (int k = 0; k < want; k++)
      assert_true(level[pages[k]] == k && !memcmp(text[pages[k]], ids, (size_t)(k + 1) * PT * sizeof *ids));
    int free_page = -1;
    for (int i = 0; i < PAGES; i++) free_page = level[i] < 0 ? i : free_page;
    if (free_page < 0) {
      int32_t gone = prefix_forget(p, NULL, NULL);
      assert_true(gone >= 0);
      level[gone] = -1;
    } else if (want < 5) {
      assert_true(prefix_add(p, ids, want, free_page));
      level[free_page] = want;
      memcpy(text[free_page], ids, sizeof ids);
    }
  }
  prefix_free(p);
}

static void lack_of_memory_is_an_error(void **state) {
  (void)state;
  for (int n = 1; n <= 3; n++) {
    prefix *p = NULL;
    hf_fail_alloc_at(n);
    assert_int_equal(prefix_new(PT, PAGES, &p), HF_MACHINE);
    hf_fail_alloc_at(0);
    assert_null(p);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(beginnings_are_found),
      cmocka_unit_test(the_longest_unused_is_forgotten_first),
      cmocka_unit_test(random_texts_agree_with_a_list),
      cmocka_unit_test(lack_of_memory_is_an_error),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
