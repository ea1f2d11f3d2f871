/* Products by a library (oneDNN): near the own ones for many shapes and numbers of tokens, the same bits however a call is cut, where its tokens lie
 * and how many threads call; chosen by name only; and whatever fails in it is computed by the own product. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/kernels.h"
#include "kernels/mem/topology.h"
#ifdef HF_HAVE_DNNL
#include "kernels/onednn/gemm.h"
#endif

enum { MOST_TOKENS = 512, MOST_ROWS = 112 };

static const kern_mm_candidate *named(kern_format f, const char *name) {
  const kern_mm_candidate *all[32];
  const int n = kern_mm_candidates(kern_get()->isa, f, kern_act_of(f, false), all, 32);
  for (int i = 0; i < n && i < 32; i++)
    if (strcmp(all[i]->name, name) == 0) return all[i];
  return NULL;
}

/* False: this build or machine has no library, and says why. */
static bool there(void) {
  if (named(KF_F32, "f32.onednn")) return true;
  assert_true(strlen(kern_library_state()) > 10);
  print_message("no library: %s\n", kern_library_state());
  return false;
}

typedef struct {
  kern_mat w;
  void *raw, *tiles, *packed;
  size_t raw_bytes, tile_bytes, packed_bytes, apart; /* apart: from token to token */
  const void *x[MOST_TOKENS];
  float *y[MOST_TOKENS];
} work;

static void *room(size_t bytes) {
  void *p = NULL;
  assert_int_equal(mem_alloc(bytes, -1, "test", &p), HF_OK);
  return p;
}

/* gap: lines between tokens; without, they lie one after another as the library reads them. */
static void work_make(work *k, const kern_mm_candidate *c, int rows, int cols, size_t gap) {
  const size_t row = kern_row_bytes(c->format, cols);
  float *values = calloc((size_t)cols, sizeof *values), *y = calloc((size_t)MOST_TOKENS * (size_t)rows, sizeof *y);
  assert_true(values && y);
  *k = (work){.raw_bytes = row * (size_t)rows, .apart = kern_act_bytes(c->act, cols) + 64 * gap};
  k->raw = room(k->raw_bytes);
  k->packed_bytes = MOST_TOKENS * k->apart;
  k->packed = room(k->packed_bytes);
  for (int r = 0; r < rows; r++) kern_random_row(c->format, (uint64_t)r + 5, 1.0f, cols, (char *)k->raw + (size_t)r * row);
  for (int t = 0; t < MOST_TOKENS; t++) {
    kern_random_row(KF_F32, (uint64_t)t + 900, 1.0f, cols, values);
    kern_get()->pack[c->act](values, cols, (char *)k->packed + (size_t)t * k->apart);
    k->x[t] = (char *)k->packed + (size_t)t * k->apart;
    k->y[t] = y + (size_t)t * (size_t)rows;
  }
  k->w = (kern_mat){c->format, KL_ROWS, rows, cols, row, k->raw};
  if (c->layout == KL_TILE16) {
    k->tile_bytes = kern_mat_bytes(KL_TILE16, c->format, rows, cols);
    k->tiles = room(k->tile_bytes);
    kern_tile_pack(&k->w, 0, rows, k->tiles);
    k->w.layout = KL_TILE16;
    k->w.data = k->tiles;
  }
  free(values);
}

static void work_drop(work *k) {
  mem_free(k->raw, k->raw_bytes, -1);
  if (k->tiles) mem_free(k->tiles, k->tile_bytes, -1);
  mem_free(k->packed, k->packed_bytes, -1);
  free(k->y[0]);
}

/* Root of the mean square of a - b over that of b. */
static double apart(const float *a, const float *b, size_t n) {
  double d = 0, all = 0;
  for (size_t i = 0; i < n; i++) d += pow((double)a[i] - (double)b[i], 2), all += pow((double)b[i], 2);
  return sqrt(d / all);
}

/* What rounding everything to 8 bits per block of 32 may change is 5 % (tests/golden/README.md); to BF16 besides, a tenth of that. */
static const double SUMS_ONLY = 2e-6, ROUNDED = 5e-3;

static void near_and_the_same(const kern_mm_candidate *c, int rows, int cols) {
  static const int tokens[] = {1, 15, 16, 17, 31, 33, 64, 100, 128, 129, 200, 512};
  work k, scattered;
  work_make(&k, c, rows, cols, 0);
  work_make(&scattered, c, rows, cols, 3);
  const kern_mm_candidate *own = kern_mm_pick(c->format, c->act, c->layout, cols, MOST_TOKENS, NULL);
  const size_t all = (size_t)MOST_TOKENS * (size_t)rows;
  float *want = calloc(all, sizeof *want);
  own->fn(&k.w, 0, rows, MOST_TOKENS, k.x, k.y);
  memcpy(want, k.y[0], all * sizeof *want);
  memset(k.y[0], 0, all * sizeof *want);
  c->fn(&k.w, 0, rows, MOST_TOKENS, k.x, k.y);
  assert_true(apart(k.y[0], want, all) < (c->rounded ? ROUNDED : SUMS_ONLY));
  /* The library computed, not the own product for it: it has not declined, and another order of sums (or rounding) leaves other last bits. BF16 under
   * AMX may have the same ones: its instruction sets the order. */
  assert_true(kern_mm_pick(c->format, c->act, c->layout, cols, MOST_TOKENS, c->name) == c);
  if (c->format != KF_BF16 || !(kern_get()->isa & KERN_ISA_AMX_BF16)) assert_true(memcmp(k.y[0], want, all * sizeof *want) != 0);
  memcpy(want, k.y[0], all * sizeof *want); /* the library's from here on */
  for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
    const int first = (int)i * 3 % (MOST_TOKENS - tokens[i] + 1), row0 = (int)i * 7 % rows, n = tokens[i];
    memset(scattered.y[0], 0, all * sizeof *want);
    c->fn(&scattered.w, row0, rows, n, scattered.x + first, scattered.y + first);
    for (int t = first; t < first + n; t++)
      assert_memory_equal(scattered.y[t] + row0, want + (size_t)t * (size_t)rows + row0, (size_t)(rows - row0) * sizeof *want);
    if (row0 > 0) assert_true(scattered.y[first][row0 - 1] == 0);
    memset(k.y[0], 0, all * sizeof *want);
    c->fn(&k.w, 0, rows, n, k.x + first, k.y + first);
    assert_memory_equal(k.y[first], want + (size_t)first * (size_t)rows, (size_t)n * (size_t)rows * sizeof *want);
  }
  free(want);
  work_drop(&k);
  work_drop(&scattered);
}

static void real_shapes(void **state) {
  (void)state;
  static const struct {
    kern_format f;
    const char *name;
    int rows, cols;
  } cases[] = {{KF_F32, "f32.onednn", 96, 768},
               {KF_F32, "f32.onednn", 53, 2880},
               {KF_BF16, "bf16.onednn", 112, 2048},
               {KF_BF16, "bf16.onednn", 40, 7168},
               {KF_Q8_0, "q8_0.onednn", 70, 1408},
               {KF_Q8_0, "q8_0.rounded.onednn", 70, 2048},
               {KF_Q4_K, "q4_k.rounded.onednn", 64, 1536},
               {KF_FP8, "fp8.rounded.onednn", 48, 576},
               {KF_IQ3_S, "iq3_s.onednn", 33, 768}};
  if (!there()) return;
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    const kern_mm_candidate *c = named(cases[i].f, cases[i].name);
    const bool needs_bf16 = cases[i].f == KF_BF16 || strstr(cases[i].name, ".rounded.");
    if (!c && needs_bf16 && !(kern_get()->isa & KERN_ISA_AVX512_BF16)) continue;
    assert_non_null(c);
    assert_true(c->library && c->min_tok == 16 && c->rounded == (strstr(c->name, ".rounded.") != NULL));
    near_and_the_same(c, cases[i].rows, cases[i].cols);
  }
}

/* Whatever is asked for first, the smallest products decide what the bits are: until one is usable there are no others. */
static void smallest_first(void **state) {
  (void)state;
#ifdef HF_HAVE_DNNL
  enum { K = 440 }; /* that no other test has */
  const gemm_shape large = {GEMM_F32, 64, 64, K}, smallest = {GEMM_F32, GEMM_LEAST_M, 32, K};
  if (!there()) return;
  gemm_thread *t = gemm_this_thread(kern_get()->isa);
  assert_non_null(t);
  assert_null(gemm_find(&large, t));
  assert_non_null(gemm_find(&smallest, t));
  assert_non_null(gemm_find(&large, t));
#endif
}

/* ---- threads ---- */

typedef struct {
  const kern_mm_candidate *c;
  work *k;
  float *y[MOST_TOKENS];
  int rows;
} caller;

static void *call_often(void *arg) {
  caller *a = arg;
  for (int i = 0; i < 20; i++) a->c->fn(&a->k->w, 0, a->rows, 100 + i, a->k->x, a->y);
  return NULL;
}

/* The first calls of a shape meet in making its products. */
static void threads_share(void **state) {
  (void)state;
  enum { THREADS = 4, ROWS = 100, COLS = 672 };
  if (!there()) return;
  const kern_mm_candidate *c = named(KF_F32, "f32.onednn");
  work k;
  caller a[THREADS];
  pthread_t id[THREADS];
  work_make(&k, c, ROWS, COLS, 0);
  for (int i = 0; i < THREADS; i++) {
    a[i] = (caller){.c = c, .k = &k, .rows = ROWS};
    float *y = calloc((size_t)MOST_TOKENS * ROWS, sizeof *y);
    for (int t = 0; t < MOST_TOKENS; t++) a[i].y[t] = y + (size_t)t * ROWS;
    assert_int_equal(pthread_create(&id[i], NULL, call_often, &a[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) assert_int_equal(pthread_join(id[i], NULL), 0);
  c->fn(&k.w, 0, ROWS, 119, k.x, k.y);
  for (int i = 0; i < THREADS; i++) {
    assert_memory_equal(a[i].y[0], k.y[0], 119 * ROWS * sizeof(float));
    free(a[i].y[0]);
  }
  work_drop(&k);
}

/* ---- memory ---- */

static void every_allocation_may_fail(void **state) {
  (void)state;
  enum { ROWS = 64, TOKENS = 48, FIRST_COLS = 128 };
  if (!there()) return;
  const kern_mm_candidate *c = named(KF_F32, "f32.onednn");
  bool whole = false;
  for (int n = 1; n < 40 && !whole; n++) {
    const int cols = FIRST_COLS + 16 * n; /* a shape that nobody has asked for yet */
    work k;
    work_make(&k, c, ROWS, cols, 0);
    float *want = calloc(TOKENS * ROWS, sizeof *want);
    kern_mm_pick(KF_F32, KA_F32, KL_ROWS, cols, TOKENS, NULL)->fn(&k.w, 0, ROWS, TOKENS, k.x, k.y);
    memcpy(want, k.y[0], TOKENS * ROWS * sizeof *want);
    memset(k.y[0], 0, TOKENS * ROWS * sizeof *want);
    const long before = hf_alloc_count();
    hf_fail_alloc_at(n);
    c->fn(&k.w, 0, ROWS, TOKENS, k.x, k.y);
    whole = hf_alloc_count() - before < n; /* none was left to fail */
    hf_fail_alloc_at(0);
    assert_true(apart(k.y[0], want, TOKENS * ROWS) < SUMS_ONLY);
    c->fn(&k.w, 0, ROWS, TOKENS, k.x, k.y); /* no memory once is no reason for never */
    const long made = hf_alloc_count();
    c->fn(&k.w, 0, ROWS, TOKENS, k.x, k.y);
    assert_true(hf_alloc_count() == made); /* the work itself allocates nothing */
    assert_true(n > 1 || made > before);   /* and the library was asked at all */
    assert_true(kern_mm_pick(KF_F32, KA_F32, KL_ROWS, cols, TOKENS, c->name) == c);
    free(want);
    work_drop(&k);
  }
  assert_true(whole);
}

/* ---- choice ---- */

static void taken_by_name_only(void **state) {
  (void)state;
  if (!there()) return;
  const kern_mm_candidate *c = named(KF_F32, "f32.onednn");
  assert_false(kern_mm_pick(KF_F32, KA_F32, KL_ROWS, 768, 64, NULL)->library);
  assert_false(kern_mm_pick(KF_F32, KA_F32, KL_ROWS, 768, 64, "f32.other")->library);
  assert_true(kern_mm_pick(KF_F32, KA_F32, KL_ROWS, 768, 64, "f32.onednn") == c);
  assert_false(kern_mm_pick(KF_F32, KA_F32, KL_ROWS, 768, 15, "f32.onednn")->library); /* too few */
  kern_forget();
  assert_int_equal(kern_prefer(KERN_USE_EXPERTS, KF_F32, 32, 512, "f32.onednn"), HF_OK);
  assert_string_equal(kern_preferred(KERN_USE_EXPERTS, KF_F32, 32), "f32.onednn");
  assert_null(kern_preferred(KERN_USE_EXPERTS, KF_F32, 31));
  assert_null(kern_preferred(KERN_USE_MATMUL, KF_F32, 64));
  kern_forget();
  assert_int_equal(kern_prefer(KERN_USE_MATMUL, KF_F32, 1, 512, "f32.nodnn"), HF_NOT_FOUND);
}

/* In a process of its own: the library is there, and must not be used. */
static void scalar_declines(void **state) {
  (void)state;
  const pid_t child = fork();
  if (child == 0) {
    bool good = kern_init("scalar") == HF_OK && !named(KF_F32, "f32.onednn");
    good = good && kern_prefer(KERN_USE_MATMUL, KF_F32, 1, 512, "f32.onednn") == HF_NOT_FOUND;
    good = good && strcmp(kern_mm_pick(KF_F32, KA_F32, KL_ROWS, 768, 64, "f32.onednn")->name, "f32.ref") == 0;
    good = good && (strstr(kern_library_state(), "not used") || strstr(kern_library_state(), "not found"));
    _exit(good ? 0 : 1);
  }
  int status = 0;
  assert_true(child > 0 && waitpid(child, &status, 0) == child);
  assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  assert_int_equal(kern_init(NULL), HF_OK);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(scalar_declines), /* first: later the library has begun */
      cmocka_unit_test(every_allocation_may_fail),
      cmocka_unit_test(taken_by_name_only),
      cmocka_unit_test(real_shapes),
      cmocka_unit_test(smallest_first),
      cmocka_unit_test(threads_share),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
