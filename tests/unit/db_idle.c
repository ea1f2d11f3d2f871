/* What idle gaps wait for, on traces small enough to see it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "db/idle.h"

static rec_trace ev(const char *resource, const char *stage, int step, int micro_batch, int layer, int64_t start, int64_t end) {
  rec_trace r = {.step = step, .micro_batch = micro_batch, .layer = layer, .start_ns = start, .end_ns = end};
  snprintf(r.resource, sizeof r.resource, "%s", resource);
  snprintf(r.stage, sizeof r.stage, "%s", stage);
  return r;
}

static int resource(const idle_account *a, const char *name) {
  for (int k = 0; k < a->n_resources; k++)
    if (!strcmp(a->resource[k].name, name)) return k;
  fail_msg("no resource %s", name);
  return -1;
}

static int64_t waited(const idle_account *a, const char *name, idle_kind kind, const char *stage) {
  const idle_resource *y = &a->resource[resource(a, name)];
  for (int i = 0; i < y->n_causes; i++)
    if (y->cause[i].kind == kind && !strcmp(y->cause[i].stage, stage)) return y->cause[i].ns;
  return 0;
}

/* One micro-batch: the device computes 0..100, the CPU 110..300, the device takes the answer at 320, adds it until 330, and goes on in
 * layer 1. The next step begins at 600. */
static void one_micro_batch(void **state) {
  (void)state;
  const rec_trace t[] = {ev("gpu0", "head", 0, 0, 2, 450, 500),   ev("gpu0", "attn", 0, 0, 0, 0, 100),
                         ev("cpu", "cexp", 0, 0, 0, 110, 300),    ev("gpu0", "hand", 0, 0, 0, 320, 330),
                         ev("gpu0", "shared", 0, 0, 0, 100, 150), ev("gpu0", "attn", 0, 0, 1, 330, 450),
                         ev("gpu0", "attn", 1, 0, 0, 600, 700)};
  idle_account a;
  char words[96];
  assert_int_equal(idle_account_of(t, sizeof t / sizeof *t, &a), HF_OK);
  assert_int_equal(a.n_resources, 2);
  assert_int_equal(a.span_ns, 700);
  assert_int_equal(a.resource[resource(&a, "gpu0")].busy_ns, 100 + 50 + 10 + 120 + 50 + 100);
  assert_int_equal(a.resource[resource(&a, "cpu")].busy_ns, 190);
  assert_int_equal(waited(&a, "gpu0", IDLE_STAGE, "cexp"), 150); /* 150 to 300 */
  assert_int_equal(waited(&a, "gpu0", IDLE_HAND, ""), 20);       /* 300 to 320 */
  assert_int_equal(waited(&a, "gpu0", IDLE_STEP, ""), 100);      /* 500 to 600 */
  assert_int_equal(waited(&a, "cpu", IDLE_STAGE, "attn"), 100);
  assert_int_equal(waited(&a, "cpu", IDLE_HAND, ""), 10);
  assert_int_equal(waited(&a, "cpu", IDLE_STEP, ""), 400); /* nothing more for it */
  for (int k = 0; k < 2; k++) {
    int64_t sum = a.resource[k].busy_ns;
    for (int i = 0; i < a.resource[k].n_causes; i++) sum += a.resource[k].cause[i].ns;
    assert_int_equal(sum, a.span_ns);
  }
  bool named = false;
  for (int64_t i = 0; i < a.n_gaps; i++) {
    idle_words(&a.gap[i], words, sizeof words);
    named = named || !strcmp(words, "experts on the CPU of layer 0, micro-batch 0");
  }
  assert_true(named);
  idle_account_free(&a);
}

/* Two micro-batches in perfect alternation: neither resource waits once the pipeline is full. The device works 0..400, the CPU 100..500. */
static void overlap(void **state) {
  (void)state;
  rec_trace t[8];
  for (int i = 0; i < 4; i++) {
    t[2 * i] = ev("gpu0", "attn", i / 2, i % 2, 0, 100 * i, 100 * i + 100);
    t[2 * i + 1] = ev("cpu", "cexp", i / 2, i % 2, 0, 100 * i + 100, 100 * i + 200);
  }
  idle_account a;
  assert_int_equal(idle_account_of(t, 8, &a), HF_OK);
  assert_int_equal(a.span_ns, 500);
  assert_true(fabs(idle_overlap(&a) - (400 + 400 - 500) / 400.0) < 1e-12);
  idle_account_free(&a);
  /* a pause in which nobody has a step counts for neither */
  for (int i = 4; i < 8; i++) t[i].start_ns += 1000, t[i].end_ns += 1000;
  assert_int_equal(idle_account_of(t, 8, &a), HF_OK);
  assert_int_equal(a.span_ns, 1500);
  assert_true(fabs(idle_overlap(&a) - (400 + 400 - 600) / 400.0) < 1e-12);
  idle_account_free(&a);
}

/* While a step sends its experts the CPU has nothing to do, by plan: only what comes after it is looked at. */
static void overlap_without_uploads(void **state) {
  (void)state;
  rec_trace t[9] = {ev("gpu0", "attn", 9, 0, 0, 0, 400), ev("link", "upload", 9, 0, 0, 0, 900),
                    ev("gpu0", "dexp", 9, 0, 0, 500, 1000)};
  for (int i = 0; i < 3; i++) {
    t[3 + 2 * i] = ev("gpu0", "attn", 10 + i / 2, i % 2, 0, 1000 + 100 * i, 1100 + 100 * i);
    t[4 + 2 * i] = ev("cpu", "cexp", 10 + i / 2, i % 2, 0, 1100 + 100 * i, 1200 + 100 * i);
  }
  idle_account a;
  int x, y;
  assert_int_equal(idle_account_of(t, 9, &a), HF_OK);
  assert_int_equal(a.steady_ns, 1000);
  assert_int_equal(a.until_ns, 1400);
  idle_busiest(&a, &x, &y);
  assert_int_equal(x + y, resource(&a, "gpu0") + resource(&a, "cpu"));
  assert_true(fabs(idle_overlap(&a) - (300 + 300 - 400) / 300.0) < 1e-12);
  idle_account_free(&a);
  /* what comes before can be the longer stretch */
  for (int i = 3; i < 9; i++) t[i].start_ns -= 2000, t[i].end_ns -= 2000;
  assert_int_equal(idle_account_of(t, 9, &a), HF_OK);
  assert_int_equal(a.steady_ns, -1000);
  assert_int_equal(a.until_ns, 0);
  idle_account_free(&a);
}

static void odd_traces(void **state) {
  (void)state;
  rec_trace t[IDLE_RESOURCES + 1];
  idle_account a;
  assert_int_equal(idle_account_of(NULL, 0, &a), HF_OK);
  assert_int_equal(a.n_resources, 0);
  assert_true(isnan(idle_overlap(&a)));
  for (int i = 0; i <= IDLE_RESOURCES; i++) {
    char name[8];
    snprintf(name, sizeof name, "r%d", i);
    t[i] = ev(name, "attn", 0, i, 0, i, 10);
  }
  assert_int_equal(idle_account_of(t, IDLE_RESOURCES + 1, &a), HF_INPUT);
  assert_int_equal(idle_account_of(t, 1, &a), HF_OK);
  assert_true(isnan(idle_overlap(&a)));
  idle_account_free(&a);
  /* events that lie over each other are busy once */
  t[0] = ev("cpu", "cexp", 0, 0, 0, 0, 100), t[1] = ev("cpu", "cexp", 0, 1, 0, 50, 80),
  t[2] = ev("cpu", "cexp", 0, 1, 1, 90, 120);
  assert_int_equal(idle_account_of(t, 3, &a), HF_OK);
  assert_int_equal(a.resource[0].busy_ns, 120);
  idle_account_free(&a);
  for (long n = 1; n <= 4; n++) {
    hf_fail_alloc_at(n);
    hf_status st = idle_account_of(t, 3, &a);
    hf_fail_alloc_at(0);
    assert_int_equal(st, n <= 3 ? HF_MACHINE : HF_OK);
    idle_account_free(&a);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(one_micro_batch),
      cmocka_unit_test(overlap),
      cmocka_unit_test(overlap_without_uploads),
      cmocka_unit_test(odd_traces),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
