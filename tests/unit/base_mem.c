/* Allocation that reports, the arena, the growable buffer, and the hook that makes the n-th allocation fail. */
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void allocation_is_zeroed_and_checked(void **state) {
  (void)state;
  int64_t *v = NULL;
  assert_int_equal(hf_alloc(&v, 1000, sizeof *v, "numbers"), HF_OK);
  for (int i = 0; i < 1000; i++) assert_int_equal(v[i], 0);
  int64_t *same = v;
  assert_int_equal(hf_alloc(&v, SIZE_MAX / 2, 4, "numbers"), HF_MACHINE); /* the product overflows */
  assert_ptr_equal(v, same);
  assert_non_null(strstr(hf_error_line(), "out of memory"));
  assert_non_null(strstr(hf_error_line(), "numbers"));
  assert_int_equal(hf_realloc(&v, SIZE_MAX / 2, 4, "numbers"), HF_MACHINE);
  assert_ptr_equal(v, same);
  assert_int_equal(hf_realloc(&v, 2000, sizeof *v, "numbers"), HF_OK);
  for (int i = 0; i < 1000; i++) assert_int_equal(v[i], 0);
  free(v);
  v = NULL;
  assert_int_equal(hf_alloc(&v, 0, sizeof *v, "nothing"), HF_OK);
  assert_non_null(v);
  free(v);
}

static void the_nth_call_fails_once(void **state) {
  (void)state;
  void *p = NULL;
  long before = hf_alloc_count();
  hf_fail_alloc_at(3);
  for (int i = 1; i <= 5; i++) {
    hf_status st = hf_alloc(&p, 1, 8, "x");
    assert_int_equal(st, i == 3 ? HF_MACHINE : HF_OK);
    if (st == HF_OK) free(p);
  }
  assert_int_equal(hf_alloc_count() - before, 5);
  hf_fail_alloc_at(1);
  hf_fail_alloc_at(0);
  char *copy = NULL;
  assert_int_equal(hf_strdup(&copy, "text"), HF_OK);
  assert_string_equal(copy, "text");
  free(copy);
  hf_fail_alloc_at(1);
  assert_int_equal(hf_strdup(&copy, "text"), HF_MACHINE);
}

static void arena_gives_aligned_zeroed_pieces(void **state) {
  (void)state;
  hf_arena *a = NULL;
  assert_int_equal(hf_arena_new(&a, 10 << 20, "names"), HF_OK);
  char *pieces[3000];
  for (int i = 0; i < 3000; i++) {
    size_t n = (size_t)(i * 7 % 900);
    if (i % 500 == 499) n = 100000; /* a block of its own; the current one goes on being filled */
    assert_int_equal(hf_arena_get(a, &pieces[i], n, 1), HF_OK);
    assert_int_equal((uintptr_t)pieces[i] % 16, 0);
    for (size_t j = 0; j < n; j++) assert_int_equal(pieces[i][j], 0);
    if (n >= sizeof i) memcpy(pieces[i], &i, sizeof i);
    if (n) memset(pieces[i] + (n < 4 ? 0 : 4), 0xa5, n - (n < 4 ? 0 : 4));
  }
  for (int i = 0; i < 3000; i++) {
    if (i * 7 % 900 >= 4) assert_memory_equal(pieces[i], &i, sizeof i); /* nothing overlaps */
  }
  char *s = NULL;
  assert_int_equal(hf_arena_str(a, &s, "hello world", 5), HF_OK);
  assert_string_equal(s, "hello");
  hf_arena_free(a);
  hf_arena_free(NULL);
}

static void arena_keeps_its_limit(void **state) {
  (void)state;
  hf_arena *a = NULL;
  char *p = NULL;
  assert_int_equal(hf_arena_new(&a, 1024, "tensor table"), HF_OK);
  assert_int_equal(hf_arena_get(a, &p, 1000, 1), HF_OK);
  assert_int_equal(hf_arena_get(a, &p, 100, 1), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "tensor table"));
  assert_non_null(strstr(hf_error_line(), "limit"));
  assert_int_equal(hf_arena_get(a, &p, SIZE_MAX, 2), HF_INPUT);
  assert_int_equal(hf_arena_get(a, &p, SIZE_MAX - 3, 1), HF_INPUT);
  assert_int_equal(hf_arena_str(a, &p, "", SIZE_MAX), HF_INPUT);
  assert_int_equal(hf_arena_get(a, &p, 16, 1), HF_OK); /* what fits still fits */
  hf_arena_free(a);
  hf_fail_alloc_at(1);
  a = NULL;
  assert_int_equal(hf_arena_new(&a, 1024, "x"), HF_MACHINE);
  assert_int_equal(hf_arena_new(&a, 1024, "x"), HF_OK);
  hf_fail_alloc_at(1);
  assert_int_equal(hf_arena_get(a, &p, 10, 1), HF_MACHINE);
  assert_int_equal(hf_arena_get(a, &p, 10, 1), HF_OK);
  hf_arena_free(a);
}

static void buffer_grows_to_its_limit(void **state) {
  (void)state;
  hf_buf b;
  hf_buf_init(&b, 1000);
  assert_int_equal(hf_buf_add(&b, NULL, 0), HF_OK);
  assert_string_equal(b.data, "");
  for (int i = 0; i < 100; i++) assert_int_equal(hf_buf_printf(&b, "%010d", i), HF_OK);
  assert_int_equal(b.len, 1000);
  assert_int_equal(strlen(b.data), 1000);
  assert_memory_equal(b.data + 990, "0000000099", 11);
  assert_int_equal(hf_buf_add(&b, "x", 1), HF_INPUT);
  assert_int_equal(hf_buf_printf(&b, "y"), HF_INPUT);
  assert_int_equal(b.len, 1000);
  assert_int_equal(hf_buf_add(&b, "x", SIZE_MAX), HF_INPUT);
  hf_buf_free(&b);
  assert_int_equal(b.limit_bytes, 1000);
  hf_fail_alloc_at(1);
  assert_int_equal(hf_buf_add(&b, "x", 1), HF_MACHINE);
  assert_int_equal(hf_buf_add(&b, "x", 1), HF_OK);
  assert_string_equal(b.data, "x");
  hf_buf_free(&b);
  hf_buf_free(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(allocation_is_zeroed_and_checked),  cmocka_unit_test(the_nth_call_fails_once),
      cmocka_unit_test(arena_gives_aligned_zeroed_pieces), cmocka_unit_test(arena_keeps_its_limit),
      cmocka_unit_test(buffer_grows_to_its_limit),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
