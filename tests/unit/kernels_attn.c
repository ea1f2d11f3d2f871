/* The attention of a step over threads: the same bits for any number of threads, with contexts cut or not, and for prompts in one
 * block or token by token; every token is computed, once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/layouts.h"
#include "kernels/attn.h"
#include "kernels/mem/topology.h"

enum { PAGE = 32, CONTEXT = 1600, PAGES = CONTEXT / PAGE, SEQS = 3, MOST_TOKENS = 90, MOST_THREADS = 9 };

typedef struct {
  const char *name;
  bool mla;
  int heads, kv_heads, dk, dv, window;
  kern_kv_type type;
} shape;

static const shape shapes[] = {{"MLA", true, 20, 1, 40, 32, 0, KV_F16},
                               {"GQA", false, 8, 4, 16, 16, 0, KV_F16},
                               {"GQA of many heads", false, 24, 2, 24, 24, 0, KV_F16},
                               {"one head to a KV head, window", false, 3, 3, 16, 16, 200, KV_F16},
                               {"MLA, Q8_0", true, 20, 1, 40, 32, 0, KV_Q8_0},
                               {"GQA, Q8_0", false, 12, 2, 40, 40, 0, KV_Q8_0},
                               {"one head to a KV head, window, Q8_0", false, 3, 3, 32, 32, 200, KV_Q8_0}};

typedef struct {
  attn_step step;
  int32_t pos[MOST_TOKENS], seq[MOST_TOKENS], table[SEQS * PAGES];
  float *q, *out;
  char *kv, *scratch;
  float *part;
} rig;

static void *must(size_t bytes) {
  void *p = NULL;
  assert_int_equal(mem_alloc(bytes, -1, "test", &p), HF_OK);
  return p;
}

static kern_kv_shape token_of(const shape *s) {
  return (kern_kv_shape){.n_heads = s->mla ? 0 : s->kv_heads, .k = s->mla ? s->dv : s->dk, .v = s->mla ? s->dk - s->dv : s->dv};
}
static size_t kv_bytes(const shape *s) {
  const kern_kv_shape token = token_of(s);
  return SEQS * CONTEXT * kern_kv_row_bytes(s->type, &token);
}
static size_t part_bytes(const shape *s) {
  return attn_part_floats(s->heads, s->kv_heads, s->dv, CONTEXT, MOST_THREADS) * sizeof(float);
}
static size_t scratch_bytes(const shape *s) {
  return (kern_attn_scratch_bytes(s->dk, s->dv) + 63) / 64 * 64;
}

static void open_rig(rig *r, const shape *s) {
  const size_t q = (size_t)(s->heads * s->dk), o = (size_t)(s->heads * s->dv), row = kv_bytes(s) / (SEQS * CONTEXT);
  unsigned x = 7;
  r->q = must(MOST_TOKENS * q * 4);
  r->out = must(MOST_TOKENS * o * 4);
  r->kv = must(kv_bytes(s));
  r->part = must(part_bytes(s));
  r->scratch = must(MOST_THREADS * scratch_bytes(s));
  for (size_t i = 0; i < MOST_TOKENS * q; i++)
    r->q[i] = (float)(int)((x = x * 1664525u + 1013904223u) >> 16 & 0x3ff) / 512.0f - 1;
  for (int i = 0; i < SEQS * PAGES; i++) r->table[i] = (i * 7) % (SEQS * PAGES); /* 7 and 150 have no common divisor */
  for (int i = 0; i < SEQS * CONTEXT; i++) {
    const kern_kv_shape token = token_of(s);
    const kern_kv kv = {r->kv, row * PAGE, row, r->table, PAGE, s->type};
    float v[256];
    for (int j = 0; j < 256; j++) v[j] = (float)(int)((x = x * 1664525u + 1013904223u) >> 16 & 0x3ff) / 512.0f - 1;
    kern_kv_write(&kv, &token, i, v, v + (s->mla ? s->dv : s->kv_heads * s->dk));
  }
  r->step =
      (attn_step){.a = {.kv = {.base = r->kv, .page_bytes = row * PAGE, .row_bytes = row, .page_tokens = PAGE, .type = s->type},
                        .mla = s->mla,
                        .n_heads = s->heads,
                        .n_kv_heads = s->kv_heads,
                        .dk = s->dk,
                        .dv = s->dv,
                        .scale = 0.3f,
                        .window = s->window},
                  .pos = r->pos,
                  .seq = r->seq,
                  .page_table = r->table,
                  .pages_per_seq = PAGES,
                  .q = r->q,
                  .out = r->out,
                  .q_stride = q,
                  .out_stride = o,
                  .scratch = r->scratch,
                  .scratch_bytes = scratch_bytes(s),
                  .part = r->part,
                  .part_floats = part_bytes(s) / 4};
}

static void close_rig(rig *r, const shape *s) {
  mem_free(r->q, (size_t)(MOST_TOKENS * s->heads * s->dk) * 4, -1);
  mem_free(r->out, (size_t)(MOST_TOKENS * s->heads * s->dv) * 4, -1);
  mem_free(r->kv, kv_bytes(s), -1);
  mem_free(r->part, part_bytes(s), -1);
  mem_free(r->scratch, MOST_THREADS * scratch_bytes(s), -1);
}

static void add(rig *r, int seq, int from, int n) {
  for (int i = 0; i < n; i++, r->step.n_tok++) r->seq[r->step.n_tok] = seq, r->pos[r->step.n_tok] = from + i;
}

/* One thread after another, the last first: nobody may need what another wrote before the barrier. Returns whether contexts were cut. */
static bool run(rig *r, int threads) {
  bool cut = false;
  for (int t = threads; t-- > 0;) {
    bool c = attn_step_run(&r->step, t, threads);
    assert_true(t == threads - 1 || c == cut);
    cut = c;
  }
  for (int t = 0; cut && t < threads; t++) attn_step_merge(&r->step, t, threads);
  return cut;
}

/* Decoding tokens of three sequences and a piece of a prompt. */
static void fill(rig *r, bool alone) {
  r->step.n_tok = 0;
  add(r, 0, 1500, 1);
  if (alone) return;
  add(r, 2, 3, 1);
  add(r, 1, 500, 60); /* over the end of a segment */
}

static void threads_do_not_change_bits(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    for (int alone = 0; alone < 2; alone++) {
      rig r = {0};
      bool any_cut = false;
      open_rig(&r, &shapes[i]);
      fill(&r, alone);
      const size_t bytes = (size_t)r.step.n_tok * r.step.out_stride * 4;
      float *want = must(bytes);
      memset(r.out, 0xff, bytes);
      assert_false(run(&r, 1));
      memcpy(want, r.out, bytes);
      for (size_t k = 0; k < bytes / 4; k++) assert_true(want[k] == want[k]);
      for (int threads = 2; threads <= MOST_THREADS; threads++) {
        memset(r.out, 0xff, bytes);
        any_cut = run(&r, threads) || any_cut;
        assert_memory_equal(r.out, want, bytes);
      }
      assert_true(any_cut || !alone || shapes[i].window);
      r.step.part_floats = 0; /* no room: heads and rows alone */
      memset(r.out, 0xff, bytes);
      assert_false(run(&r, 4));
      assert_memory_equal(r.out, want, bytes);
      mem_free(want, bytes, -1);
      close_rig(&r, &shapes[i]);
    }
  }
}

static void pieces_of_a_prompt_do_not_change_bits(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    rig r = {0};
    open_rig(&r, &shapes[i]);
    add(&r, 1, 470, MOST_TOKENS);
    const size_t bytes = MOST_TOKENS * r.step.out_stride * 4;
    float *want = must(bytes), *q = r.q, *out = r.out;
    run(&r, 2);
    memcpy(want, out, bytes);
    memset(out, 0xff, bytes);
    for (int at = 0, n; at < MOST_TOKENS; at += n) {
      n = 1 + at % 7 * 4;
      n = at + n > MOST_TOKENS ? MOST_TOKENS - at : n;
      r.step.n_tok = 0;
      add(&r, 1, 470 + at, n);
      r.step.q = q + (size_t)at * r.step.q_stride;
      r.step.out = out + (size_t)at * r.step.out_stride;
      run(&r, 3);
    }
    assert_memory_equal(out, want, bytes);
    mem_free(want, bytes, -1);
    close_rig(&r, &shapes[i]);
  }
}

static void room_for_parts(void **state) {
  (void)state;
  assert_int_equal(attn_part_floats(32, 4, 128, 16384, 1), 0);
  assert_true(attn_part_floats(32, 4, 128, 16384, 2) > 0);
  assert_true(attn_part_floats(32, 4, 128, 16384, 4) > attn_part_floats(32, 4, 128, 16384, 2));
  assert_true(attn_part_floats(128, 1, 512, 1 << 24, 256) * sizeof(float) <= 64 << 20);
}

/* Buffers on the stack of the cache in Q8_0 are made for just that. */
static void a_piece_fits_its_buffer(void **state) {
  (void)state;
  assert_int_equal(kern_act_bytes(KA_Q8B32, 256), Q8B32_BYTES_OF_256);
}

int main(void) {
  if (kern_init(NULL) != HF_OK) return 3;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(a_piece_fits_its_buffer),
      cmocka_unit_test(threads_do_not_change_bits),
      cmocka_unit_test(pieces_of_a_prompt_do_not_change_bits),
      cmocka_unit_test(room_for_parts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
