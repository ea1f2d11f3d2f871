/* The serving policy: first come first served, chunked prefill, micro-batches, pages, cancellation; and a random soak that checks
 * the invariants after every call against an independent account of every request. */
#include "sched/sched.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static sched *make(int depth, int max_seqs, int chunk, int page, int pages) {
  sched_options o = {.depth = depth, .max_seqs = max_seqs, .chunk_tokens = chunk, .page_tokens = page, .n_pages = pages};
  sched *s = NULL;
  assert_int_equal(sched_new(&o, &s), HF_OK);
  return s;
}

static void options_are_checked(void **state) {
  (void)state;
  const sched_options bad[] = {
      {0, 1, 1, 1, 1}, {9, 1, 1, 1, 1}, {1, 0, 1, 1, 1}, {1, 65, 1, 1, 1}, {1, 1, 0, 1, 1}, {1, 1, 1, 3, 1}, {1, 1, 1, 1, 0},
  };
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    sched *s = NULL;
    assert_int_equal(sched_new(&bad[i], &s), HF_INPUT);
    assert_null(s);
  }
  sched *s = make(1, 2, 8, 4, 4);
  assert_int_equal(sched_add(s, 1, 13, 4), HF_NO); /* 17 tokens, 16 fit */
  assert_non_null(strstr(hf_error_line(), "16"));
  assert_int_equal(sched_add(s, 1, 0, 4), HF_INPUT);
  assert_int_equal(sched_add(s, 1, 4, 0), HF_INPUT);
  assert_int_equal(sched_add(s, 1, 12, 4), HF_OK);
  sched_free(s);
}

static void prompt_is_chunked_then_decoded(void **state) {
  (void)state;
  sched *s = make(1, 4, 8, 4, 16);
  sched_step st;
  assert_false(sched_next(s, 0, &st));
  assert_int_equal(sched_add(s, 7, 19, 3), HF_OK);
  const int want[] = {8, 8, 3};
  for (int i = 0; i < 3; i++) {
    assert_true(sched_next(s, 0, &st));
    assert_int_equal(st.n_pieces, 1);
    assert_int_equal(st.piece[0].start_pos, 8 * i);
    assert_int_equal(st.piece[0].n_tokens, want[i]);
    assert_int_equal(st.piece[0].wants_logits, i == 2);
    assert_false(st.piece[0].decode);
    sched_done(s, 0, NULL, NULL, NULL);
  }
  int64_t ended[SCHED_MAX_SEQS];
  int n = -1;
  for (int i = 0; i < 2; i++) {
    assert_true(sched_next(s, 0, &st));
    assert_true(st.piece[0].decode && st.piece[0].wants_logits);
    assert_int_equal(st.piece[0].start_pos, 19 + i);
    sched_done(s, 0, NULL, ended, &n);
    assert_int_equal(n, i); /* the first of three tokens came out of the prompt */
  }
  assert_int_equal(ended[0], 7);
  assert_int_equal(sched_pages_free(s), 16);
  assert_false(sched_next(s, 0, &st));
  sched_free(s);
}

/* Decode tokens ride with prompt chunks; the chunk limit counts prompt tokens of all sequences together. */
static void decode_goes_first_and_chunks_share(void **state) {
  (void)state;
  sched *s = make(1, 4, 8, 16, 64);
  sched_step st;
  assert_int_equal(sched_add(s, 1, 4, 50), HF_OK);
  assert_true(sched_next(s, 0, &st));
  sched_done(s, 0, NULL, NULL, NULL);
  assert_int_equal(sched_add(s, 2, 5, 5), HF_OK);
  assert_int_equal(sched_add(s, 3, 20, 5), HF_OK);
  assert_true(sched_next(s, 0, &st));
  assert_int_equal(st.n_pieces, 3);
  assert_int_equal(st.n_decode, 1);
  assert_int_equal(st.n_tokens, 9);
  assert_true(st.piece[0].decode && st.piece[0].request == 1);
  assert_true(st.piece[1].request == 2 && st.piece[1].n_tokens == 5 && st.piece[1].wants_logits);
  assert_true(st.piece[2].request == 3 && st.piece[2].n_tokens == 3 && !st.piece[2].wants_logits);
  sched_free(s);
}

/* --- shared pages ---- */

typedef struct {
  sched *s;
  int32_t pages[8];
  int n, asked, dropped;
} sharer;

static int find(void *user, int64_t request, int32_t *pages) {
  sharer *h = user;
  h->asked++;
  if (request == 9) return -1;
  memcpy(pages, h->pages, (size_t)h->n * sizeof *pages);
  return h->n;
}

static void make_room(void *user, int n_pages) {
  sharer *h = user;
  while (n_pages-- > 0 && h->n > 0) {
    sched_drop(h->s, h->pages[--h->n]);
    h->dropped++;
  }
}

static void pages_are_shared_and_come_back(void **state) {
  (void)state;
  sharer h = {.s = make(1, 4, 64, 4, 8)};
  const sched_sharing with = {.user = &h, .find = find, .make_room = make_room};
  sched_step st;
  int n;
  sched_share(h.s, &with);
  assert_int_equal(sched_add(h.s, 1, 10, 6), HF_OK);
  assert_true(sched_next(h.s, 0, &st));
  assert_true(st.piece[0].start_pos == 0 && st.piece[0].n_tokens == 10);
  assert_int_equal(sched_pages_free(h.s), 4);
  memcpy(h.pages, sched_pages(h.s, 0, &n), 2 * sizeof *h.pages); /* 8 of the 10 tokens are whole pages */
  h.n = 2;
  for (int i = 0; i < 2; i++) sched_keep(h.s, h.pages[i]);
  sched_done(h.s, 0, NULL, NULL, NULL);
  assert_int_equal(sched_add(h.s, 2, 10, 6), HF_OK);
  assert_true(sched_next(h.s, 0, &st));
  assert_int_equal(st.n_pieces, 2);
  assert_true(st.piece[1].start_pos == 8 && st.piece[1].n_tokens == 2);
  assert_int_equal(sched_pages_free(h.s), 2);
  assert_int_equal(sched_holders(h.s, h.pages[0]), 3);
  const uint8_t both[SCHED_MAX_SEQS] = {1, 1};
  sched_done(h.s, 0, both, NULL, NULL);
  assert_int_equal(sched_pages_free(h.s), 6); /* two are kept */
  h.n = 0;                                    /* a prompt that begins differently wants all eight */
  assert_int_equal(sched_add(h.s, 3, 30, 2), HF_OK);
  assert_false(sched_next(h.s, 0, &st)); /* nothing is offered, so it waits */
  h.n = 2;
  const sched_sharing nothing_alike = {.user = &h, .find = NULL, .make_room = make_room};
  sched_share(h.s, &nothing_alike);
  assert_true(sched_next(h.s, 0, &st));
  assert_int_equal(h.dropped, 2);
  assert_int_equal(sched_pages_free(h.s), 0);
  sched_done(h.s, 0, both, NULL, NULL);
  assert_int_equal(sched_pages_free(h.s), 8);
  assert_true(sched_check(h.s));
  sched_free(h.s);
}

static void who_must_wait_for_a_prefix_waits(void **state) {
  (void)state;
  sharer h = {.s = make(1, 4, 64, 4, 16)};
  const sched_sharing with = {.user = &h, .find = find};
  sched_step st;
  sched_share(h.s, &with);
  assert_int_equal(sched_add(h.s, 1, 10, 6), HF_OK);
  assert_int_equal(sched_add(h.s, 9, 10, 6), HF_OK);
  assert_int_equal(sched_add(h.s, 2, 10, 6), HF_OK);
  assert_true(sched_next(h.s, 0, &st));
  assert_int_equal(st.n_pieces, 1);
  assert_int_equal(sched_waiting(h.s), 2); /* nobody overtakes it either */
  assert_int_equal(h.asked, 2);
  assert_int_equal(sched_pages_free(h.s), 12);
  sched_free(h.s);
}

static void pages_are_adopted(void **state) {
  (void)state;
  sched *s = make(1, 2, 64, 4, 4);
  assert_int_equal(sched_adopt(s, 2), HF_OK);
  assert_int_equal(sched_adopt(s, 2), HF_OK);
  assert_int_equal(sched_adopt(s, 4), HF_INPUT);
  assert_int_equal(sched_adopt(s, -1), HF_INPUT);
  assert_int_equal(sched_pages_free(s), 3);
  assert_true(sched_check(s));
  sched_drop(s, 2);
  assert_int_equal(sched_pages_free(s), 3);
  sched_drop(s, 2);
  assert_int_equal(sched_pages_free(s), 4);
  assert_true(sched_check(s));
  sched_free(s);
}

/* A short request behind a long one that does not fit yet waits: nobody starves. */
static void nobody_overtakes(void **state) {
  (void)state;
  sched *s = make(1, 4, 64, 4, 8); /* 32 tokens */
  sched_step st;
  assert_int_equal(sched_add(s, 1, 8, 8), HF_OK);
  assert_int_equal(sched_add(s, 2, 16, 8), HF_OK);
  assert_int_equal(sched_add(s, 3, 2, 2), HF_OK);
  assert_true(sched_next(s, 0, &st));
  assert_int_equal(st.n_pieces, 1);
  assert_int_equal(sched_waiting(s), 2);
  const uint8_t fin[SCHED_MAX_SEQS] = {1};
  sched_done(s, 0, fin, NULL, NULL);
  assert_true(sched_next(s, 0, &st));
  assert_int_equal(st.n_pieces, 2);
  assert_int_equal(st.piece[0].request, 2);
  assert_int_equal(sched_waiting(s), 0);
  sched_free(s);
}

static void sequences_spread_over_micro_batches(void **state) {
  (void)state;
  sched *s = make(3, 8, 64, 16, 64);
  sched_step a, b, c;
  for (int i = 0; i < 7; i++) assert_int_equal(sched_add(s, i, 4, 4), HF_OK);
  assert_true(sched_next(s, 0, &a));
  assert_true(sched_next(s, 1, &b)); /* while micro-batch 0 is still in flight */
  assert_true(sched_next(s, 2, &c));
  assert_int_equal(a.n_pieces, 3);
  assert_int_equal(b.n_pieces, 2);
  assert_int_equal(c.n_pieces, 2);
  assert_true(a.piece[0].request == 0 && b.piece[0].request == 1 && c.piece[0].request == 2);
  sched_done(s, 1, NULL, NULL, NULL);
  assert_true(sched_next(s, 1, &b));
  assert_int_equal(b.n_decode, 2);
  assert_true(sched_check(s));
  sched_free(s);
}

static void cancel_waits_for_the_step(void **state) {
  (void)state;
  sched *s = make(1, 2, 8, 4, 8);
  sched_step st;
  for (int i = 1; i <= 3; i++) assert_int_equal(sched_add(s, i, 8, 4), HF_OK);
  assert_true(sched_next(s, 0, &st)); /* 1 has a piece; 2 is admitted, its prompt waits behind it; 3 waits for a slot */
  assert_int_equal(st.n_pieces, 1);
  assert_int_equal(sched_pages_free(s), 2);
  sched_cancel(s, 3);
  assert_int_equal(sched_waiting(s), 0);
  sched_cancel(s, 2);
  assert_int_equal(sched_pages_free(s), 5);
  sched_cancel(s, 1);
  assert_int_equal(sched_pages_free(s), 5); /* its pages are being written */
  int64_t ended[SCHED_MAX_SEQS];
  int n = 0;
  sched_done(s, 0, NULL, ended, &n);
  assert_int_equal(n, 1);
  assert_int_equal(ended[0], 1);
  assert_int_equal(sched_pages_free(s), 8);
  sched_cancel(s, 99);
  sched_free(s);
}

/* ---- random soak ---- */

static uint32_t rng_state;
static uint32_t rng(uint32_t n) {
  rng_state = rng_state * 1664525u + 1013904223u;
  return (rng_state >> 8) % n;
}

enum { SOAK_MAX = 4000 };
typedef struct {
  int prompt, max, pos, out, micro_batch;
  bool added, ended, cancelled;
} account;

typedef struct {
  sched *s;
  account a[SOAK_MAX];
  sched_step flight[SCHED_MAX_DEPTH];
  bool busy[SCHED_MAX_DEPTH];
  int depth, chunk, page, n, first_seen, n_pages;
} soak;

/* No page in two live sequences at once. */
static void pages_are_disjoint(const soak *k) {
  static uint8_t seen[4096];
  memset(seen, 0, sizeof seen);
  int held = 0;
  for (int q = 0; q < SCHED_MAX_SEQS; q++) {
    int n = 0;
    const int32_t *p = sched_pages(k->s, q, &n);
    for (int i = 0; i < n; i++) {
      assert_in_range(p[i], 0, k->n_pages - 1);
      assert_false(seen[p[i]]);
      seen[p[i]] = 1;
    }
    held += n;
  }
  assert_int_equal(held + sched_pages_free(k->s), k->n_pages);
}

static void soak_next(soak *k, int m) {
  sched_step *st = &k->flight[m];
  k->busy[m] = sched_next(k->s, m, st);
  int prompt = 0;
  bool seen[SCHED_MAX_SEQS] = {0};
  for (int i = 0; k->busy[m] && i < st->n_pieces; i++) {
    const sched_piece *p = &st->piece[i];
    account *a = &k->a[p->request];
    assert_true(a->added && !a->ended);
    assert_false(seen[p->seq]);
    seen[p->seq] = true;
    assert_int_equal(p->start_pos, a->pos);
    assert_true(p->n_tokens >= 1 && (!p->decode || p->n_tokens == 1));
    assert_int_equal(p->decode, a->pos >= a->prompt);
    assert_int_equal(p->wants_logits, a->pos + p->n_tokens >= a->prompt);
    if (a->micro_batch >= 0) assert_int_equal(a->micro_batch, m); /* never changes */
    a->micro_batch = m;
    if (!p->decode) prompt += p->n_tokens;
    int n = 0;
    assert_non_null(sched_pages(k->s, p->seq, &n));
    assert_true(n * k->page >= a->prompt + a->max);
  }
  assert_true(prompt <= k->chunk);
}

static void soak_done(soak *k, int m) {
  uint8_t fin[SCHED_MAX_SEQS] = {0};
  int64_t ended[SCHED_MAX_SEQS];
  int n = 0, expect = 0;
  sched_step *st = &k->flight[m];
  for (int i = 0; i < st->n_pieces; i++) {
    account *a = &k->a[st->piece[i].request];
    a->pos += st->piece[i].n_tokens;
    a->out += st->piece[i].wants_logits;
    fin[i] = st->piece[i].wants_logits && rng(20) == 0;
    bool end = fin[i] || a->out == a->max || a->cancelled;
    expect += end;
    a->ended |= end;
  }
  sched_done(k->s, m, fin, ended, &n);
  k->busy[m] = false;
  assert_int_equal(n, expect);
  for (int i = 0; i < n; i++) assert_true(k->a[ended[i]].ended);
}

static void soak_cancel(soak *k) {
  if (k->n == 0) return;
  int r = (int)rng((uint32_t)k->n);
  account *a = &k->a[r];
  bool flying = false;
  for (int m = 0; m < k->depth; m++)
    for (int i = 0; k->busy[m] && i < k->flight[m].n_pieces; i++) flying |= k->flight[m].piece[i].request == r;
  sched_cancel(k->s, r);
  if (flying) a->cancelled = true;
  else a->ended = true;
}

static void random_soak(void **state) {
  (void)state;
  for (uint32_t seed = 1; seed <= 12; seed++) {
    rng_state = seed * 2654435761u;
    soak *k = calloc(1, sizeof *k);
    assert_non_null(k);
    k->depth = 1 + (int)rng(4);
    k->chunk = 1 + (int)rng(40);
    k->page = 1 << rng(5);
    k->n_pages = 20 + (int)rng(300);
    k->s = make(k->depth, 1 + (int)rng(SCHED_MAX_SEQS), k->chunk, k->page, k->n_pages);
    for (int i = 0; i < SOAK_MAX; i++) k->a[i].micro_batch = -1;
    for (int step = 0; step < 8000; step++) {
      int m = (int)rng((uint32_t)k->depth);
      uint32_t what = rng(10);
      if (what < 2 && k->n < SOAK_MAX) {
        account *a = &k->a[k->n];
        a->prompt = 1 + (int)rng(60);
        a->max = 1 + (int)rng(30);
        a->added = sched_add(k->s, k->n, a->prompt, a->max) == HF_OK;
        a->ended = !a->added;
        k->n++;
      } else if (what == 9 && rng(4) == 0) {
        soak_cancel(k);
      } else if (k->busy[m]) {
        soak_done(k, m);
      } else {
        soak_next(k, m);
      }
      assert_true(sched_check(k->s));
      if (step % 16 == 0) pages_are_disjoint(k);
    }
    /* Drain: everything that was accepted ends. */
    for (int idle = 0; idle < k->depth;) {
      idle = 0;
      for (int m = 0; m < k->depth; m++) {
        if (!k->busy[m]) soak_next(k, m);
        if (k->busy[m]) soak_done(k, m);
        else idle++;
      }
    }
    for (int i = 0; i < k->n; i++) assert_true(k->a[i].ended);
    assert_int_equal(sched_pages_free(k->s), k->n_pages);
    assert_int_equal(sched_running(k->s) + sched_waiting(k->s), 0);
    sched_free(k->s);
    free(k);
  }
}

/* A cached prefix is not computed, its pages are held all the same. */
static void cached_prefix(void **state) {
  (void)state;
  sched *s = make(1, 2, 8, 4, 16);
  sched_step st;
  assert_int_equal(sched_add_cached(s, 1, 20, 3, 20), HF_INPUT);
  assert_int_equal(sched_add_cached(s, 1, 20, 3, -1), HF_INPUT);
  assert_int_equal(sched_add_cached(s, 1, 20, 3, 15), HF_OK);
  assert_true(sched_next(s, 0, &st));
  assert_int_equal(st.piece[0].start_pos, 15);
  assert_int_equal(st.piece[0].n_tokens, 5);
  assert_true(st.piece[0].wants_logits && sched_check(s));
  assert_int_equal(sched_pages_free(s), 16 - 6);
  sched_free(s);
}

/* Steps taken together leave the scheduler where it would be after as many single ones. */
static void repeated_steps(void **state) {
  (void)state;
  int64_t ended[SCHED_MAX_SEQS];
  int n = 0;
  sched *s = make(1, 2, 8, 4, 64);
  sched_step st;
  assert_int_equal(sched_add(s, 1, 4, 10), HF_OK);
  assert_int_equal(sched_add(s, 2, 4, 6), HF_OK);
  assert_true(sched_next(s, 0, &st));
  assert_int_equal(sched_repeats(s, 0), 0); /* a prompt */
  sched_done(s, 0, NULL, ended, &n);
  assert_true(sched_next(s, 0, &st));
  assert_int_equal(sched_repeats(s, 0), 4); /* the second request's third to sixth token; with the last it ends */
  sched_repeat(s, 0, 4);
  assert_true(sched_check(s));
  sched_done(s, 0, NULL, ended, &n);
  assert_true(n == 1 && ended[0] == 2);
  assert_true(sched_next(s, 0, &st));
  assert_int_equal(st.piece[0].start_pos, 4 + 5);
  assert_int_equal(sched_repeats(s, 0), 3);
  sched_free(s);
}

static void free_accepts_live_requests(void **state) {
  (void)state;
  sched *s = make(2, 2, 8, 4, 64);
  sched_step st;
  for (int i = 0; i < 100; i++) assert_int_equal(sched_add(s, i, 3, 3), HF_OK);
  assert_true(sched_next(s, 1, &st));
  sched_free(s);
  sched_free(NULL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(options_are_checked),
      cmocka_unit_test(prompt_is_chunked_then_decoded),
      cmocka_unit_test(decode_goes_first_and_chunks_share),
      cmocka_unit_test(pages_are_shared_and_come_back),
      cmocka_unit_test(who_must_wait_for_a_prefix_waits),
      cmocka_unit_test(pages_are_adopted),
      cmocka_unit_test(nobody_overtakes),
      cmocka_unit_test(sequences_spread_over_micro_batches),
      cmocka_unit_test(cancel_waits_for_the_step),
      cmocka_unit_test(random_soak),
      cmocka_unit_test(cached_prefix),
      cmocka_unit_test(repeated_steps),
      cmocka_unit_test(free_accepts_live_requests),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
