#include "base/mem.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_long calls;            /* allocations asked for so far */
static atomic_long fail_at_call = 0; /* the value of `calls` at which to fail; 0 never */
static pthread_once_t environment_once = PTHREAD_ONCE_INIT;

static void read_environment(void) {
  const char *text = getenv("HF_FAIL_ALLOC");
  long n = text ? strtol(text, NULL, 10) : 0;
  if (n > 0) atomic_store(&fail_at_call, n);
}

/* Counts one call; true when the test hook wants it to fail. */
static bool count_and_fail(void) {
  pthread_once(&environment_once, read_environment);
  long call = atomic_fetch_add(&calls, 1) + 1;
  return call == atomic_load(&fail_at_call);
}

void hf_fail_alloc_at(long n) {
  pthread_once(&environment_once, read_environment);
  atomic_store(&fail_at_call, n > 0 ? atomic_load(&calls) + n : 0);
}

long hf_alloc_count(void) {
  return atomic_load(&calls);
}

static hf_status out_of_memory(size_t n_items, size_t item_bytes, const char *what) {
  size_t bytes;
  if (__builtin_mul_overflow(n_items, item_bytes, &bytes)) {
    return hf_fail(HF_MACHINE, "out of memory: %zu items of %zu bytes for %s", n_items, item_bytes, what);
  }
  return hf_fail(HF_MACHINE, "out of memory: %zu bytes for %s", bytes, what);
}

hf_status hf_alloc(void *out_ptr, size_t n_items, size_t item_bytes, const char *what) {
  size_t bytes;
  bool refuse = count_and_fail() || __builtin_mul_overflow(n_items, item_bytes, &bytes);
  void *p = refuse ? NULL : calloc(bytes ? bytes : 1, 1); /* at least one byte, so that NULL always means failure */
  if (!p) return out_of_memory(n_items, item_bytes, what);
  memcpy(out_ptr, &p, sizeof p);
  return HF_OK;
}

hf_status hf_realloc(void *inout_ptr, size_t n_items, size_t item_bytes, const char *what) {
  size_t bytes;
  bool refuse = count_and_fail() || __builtin_mul_overflow(n_items, item_bytes, &bytes);
  void *p;
  memcpy(&p, inout_ptr, sizeof p);
  void *grown = refuse ? NULL : realloc(p, bytes ? bytes : 1);
  if (!grown) return out_of_memory(n_items, item_bytes, what);
  memcpy(inout_ptr, &grown, sizeof grown);
  return HF_OK;
}

hf_status hf_strdup(char **out, const char *s) {
  size_t n = strlen(s) + 1;
  char *copy;
  HF_TRY(hf_alloc(&copy, n, 1, "a string"));
  memcpy(copy, s, n);
  *out = copy;
  return HF_OK;
}

/* Arena: a list of blocks, the newest first; pieces larger than a quarter block get a block of their own behind it. */

enum { BLOCK_BYTES = 64 * 1024, ALIGN = 16 };

typedef struct block {
  struct block *next;
  size_t used, cap;
  _Alignas(ALIGN) char bytes[];
} block;

struct hf_arena {
  block *blocks;
  size_t given_bytes, limit_bytes;
  char what[64];
};

hf_status hf_arena_new(hf_arena **out, size_t limit_bytes, const char *what) {
  hf_arena *a;
  HF_TRY(hf_alloc(&a, 1, sizeof *a, what));
  a->limit_bytes = limit_bytes;
  snprintf(a->what, sizeof a->what, "%s", what);
  *out = a;
  return HF_OK;
}

static hf_status add_block(hf_arena *a, size_t cap, bool current, block **out) {
  block *b;
  HF_TRY(hf_alloc(&b, 1, sizeof *b + cap, a->what));
  b->cap = cap;
  if (current || !a->blocks) {
    b->next = a->blocks;
    a->blocks = b;
  } else {
    b->next = a->blocks->next;
    a->blocks->next = b;
  }
  *out = b;
  return HF_OK;
}

hf_status hf_arena_get(hf_arena *a, void *out_ptr, size_t n_items, size_t item_bytes) {
  size_t bytes, padded;
  bool overflow = __builtin_mul_overflow(n_items, item_bytes, &bytes) || __builtin_add_overflow(bytes, ALIGN, &padded);
  padded = bytes ? (bytes + ALIGN - 1) / ALIGN * ALIGN : ALIGN;
  if (overflow || padded > a->limit_bytes - a->given_bytes) {
    return hf_fail(HF_INPUT, "%s: %zu more items of %zu bytes go over its limit of %zu bytes", a->what, n_items, item_bytes,
                   a->limit_bytes);
  }
  block *b = a->blocks;
  if (!b || b->cap - b->used < padded) {
    bool own = padded > BLOCK_BYTES / 4;
    HF_TRY(add_block(a, own ? padded : BLOCK_BYTES, !own, &b));
  }
  void *p = b->bytes + b->used; /* zeroed when the block was made */
  b->used += padded;
  a->given_bytes += padded;
  memcpy(out_ptr, &p, sizeof p);
  return HF_OK;
}

hf_status hf_arena_str(hf_arena *a, char **out, const char *s, size_t n) {
  char *copy;
  if (n == SIZE_MAX) return hf_fail(HF_INPUT, "%s: a string goes over its limit of %zu bytes", a->what, a->limit_bytes);
  HF_TRY(hf_arena_get(a, &copy, n + 1, 1));
  if (n) memcpy(copy, s, n);
  *out = copy;
  return HF_OK;
}

void hf_arena_free(hf_arena *a) {
  if (!a) return;
  for (block *b = a->blocks, *next; b; b = next) {
    next = b->next;
    free(b);
  }
  free(a);
}

void hf_buf_init(hf_buf *b, size_t limit_bytes) {
  *b = (hf_buf){.limit_bytes = limit_bytes};
}

/* Room for n more bytes and the NUL behind them. */
static hf_status buf_reserve(hf_buf *b, size_t n) {
  if (n > b->limit_bytes - b->len) {
    return hf_fail(HF_INPUT, "text of %zu bytes and %zu more go over the limit of %zu bytes", b->len, n, b->limit_bytes);
  }
  if (b->data && b->cap - b->len > n) return HF_OK;
  size_t need, cap = b->cap < 256 ? 256 : b->cap;
  if (__builtin_add_overflow(b->len + n, (size_t)1, &need)) need = SIZE_MAX;
  while (cap < need) {
    if (__builtin_mul_overflow(cap, (size_t)2, &cap)) cap = need;
  }
  HF_TRY(hf_realloc(&b->data, cap, 1, "a growing text"));
  b->cap = cap;
  return HF_OK;
}

hf_status hf_buf_add(hf_buf *b, const void *bytes, size_t n) {
  HF_TRY(buf_reserve(b, n));
  if (n) memcpy(b->data + b->len, bytes, n);
  b->len += n;
  b->data[b->len] = '\0';
  return HF_OK;
}

hf_status hf_buf_printf(hf_buf *b, const char *fmt, ...) {
  va_list args, again;
  va_start(args, fmt);
  va_copy(again, args);
  int n = vsnprintf(NULL, 0, fmt, args);
  va_end(args);
  hf_status st = n < 0 ? hf_fail(HF_MACHINE, "text cannot be formatted") : buf_reserve(b, (size_t)n);
  if (st == HF_OK) {
    vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
    b->len += (size_t)n;
  }
  va_end(again);
  return st;
}

void hf_buf_free(hf_buf *b) {
  free(b->data);
  *b = (hf_buf){.limit_bytes = b->limit_bytes};
}
