/* mem.h: allocation that reports instead of aborting, an arena, and a growable byte buffer with a mandatory limit.
 *
 * Every allocation of the suite that can be large or that depends on input goes through hf_alloc/hf_realloc, so that
 * tests can fail the n-th one: HF_FAIL_ALLOC=n in the environment (or hf_fail_alloc_at) makes the n-th call return NULL.
 * Thread rule: hf_alloc is thread-safe; one arena or buffer belongs to one thread at a time. */
#ifndef HF_BASE_MEM_H
#define HF_BASE_MEM_H

#include "base/status.h"

/* Zeroed memory of n_items * item_bytes (overflow checked). HF_MACHINE "out of memory: N bytes for WHAT". *out is
 * untouched on failure. Free with free(). */
HF_MUST hf_status hf_alloc(void *out_ptr, size_t n_items, size_t item_bytes, const char *what);
/* Grows *ptr (may point to NULL); on failure *ptr stays valid and unchanged. New bytes are NOT zeroed. */
HF_MUST hf_status hf_realloc(void *inout_ptr, size_t n_items, size_t item_bytes, const char *what);
HF_MUST hf_status hf_strdup(char **out, const char *s);

/* Test hook: the n-th allocation from now fails (1 = the next); 0 switches it off. */
void hf_fail_alloc_at(long n);
/* How many hf_alloc/hf_realloc calls this process has made so far. */
long hf_alloc_count(void);

/* Arena: many small pieces freed at once. limit_bytes is mandatory; going over it is HF_INPUT "… over its limit". */
typedef struct hf_arena hf_arena;
HF_MUST hf_status hf_arena_new(hf_arena **out, size_t limit_bytes, const char *what);
HF_MUST hf_status hf_arena_get(hf_arena *a, void *out_ptr, size_t n_items, size_t item_bytes); /* zeroed, 16-aligned */
HF_MUST hf_status hf_arena_str(hf_arena *a, char **out, const char *s, size_t n);              /* copy + NUL */
void hf_arena_free(hf_arena *a);                                                               /* NULL ok */

/* Growable byte buffer. data is always NUL-terminated once something was appended. */
typedef struct {
  char *data;
  size_t len, cap, limit_bytes;
} hf_buf;
void hf_buf_init(hf_buf *b, size_t limit_bytes);
HF_MUST hf_status hf_buf_add(hf_buf *b, const void *bytes, size_t n);
HF_MUST hf_status hf_buf_printf(hf_buf *b, const char *fmt, ...) HF_PRINTF(2, 3);
void hf_buf_free(hf_buf *b);

#endif
