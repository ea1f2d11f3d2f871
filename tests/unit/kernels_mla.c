/* Latent attention in its plain form: what the definition says, for every type of cache and format of weights; the same bits for any number of threads and
 * whatever else is in the step; other tokens are left alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "kernels/mem/topology.h"
#include "kernels/mla.h"

enum {
  HEADS = 6,
  LORA = 64,
  NOPE = 32,
  ROPE = 16,
  DV = 160, /* wider than keys, and than the stride of rows of keys */
  PAGE = 32,
  CONTEXT = 1600,
  PAGES = CONTEXT / PAGE,
  SEQS = 2,
  MOST = 200
};
enum { QK = NOPE + ROPE, LATENT = LORA + ROPE, MOST_THREADS = 13 };

typedef struct {
  mla_step s;
  int32_t pos[MOST], seq[MOST], table[SEQS * PAGES];
  uint8_t plain[MOST];
  float q[MOST * HEADS * QK], q_rope[MOST * HEADS * LATENT], out[MOST * HEADS * DV], latent[SEQS * CONTEXT][LATENT];
  float wk[HEADS * LORA][NOPE], wv[HEADS * DV][LORA];
  char kv[SEQS * CONTEXT * LATENT * 4];
  void *k_b, *v_b;
} rig;
static rig r;
static unsigned seed;

static float value(float size) {
  seed = seed * 1664525u + 1013904223u;
  return size * ((float)(int)(seed >> 16 & 0x3ff) / 512.0f - 1);
}

/* A matrix in format f, in the layout that products like; w becomes what is stored. */
static kern_mat matrix(kern_format f, bool exact, int rows, int cols, float *w, void **room) {
  kern_mat m = {.format = f, .layout = KL_ROWS, .n_rows = rows, .n_cols = cols, .row_bytes = kern_row_bytes(f, cols)};
  const kern_layout layout = kern_best_layout(f, kern_act_of(f, exact), cols);
  void *stored = malloc((size_t)rows * m.row_bytes);
  assert_int_equal(mem_alloc(kern_mat_bytes(layout, f, rows, cols), -1, "test", room), HF_OK);
  for (int i = 0; i < rows; i++) {
    float *row = w + (size_t)i * (size_t)cols;
    for (int j = 0; j < cols; j++) row[j] = value(0.3f);
    kern_quant_row(f, row, cols, (char *)stored + (size_t)i * m.row_bytes);
    kern_dequant_row(f, (char *)stored + (size_t)i * m.row_bytes, cols, row);
  }
  m.data = stored;
  if (layout == KL_ROWS) memcpy(*room, stored, (size_t)rows * m.row_bytes);
  else kern_tile_pack(&m, 0, rows, *room);
  free(stored);
  m.layout = layout;
  m.data = *room;
  return m;
}

static void open_rig(kern_format f, kern_kv_type type, bool exact) {
  const kern_kv_shape shape = {.k = LORA, .v = ROPE};
  const size_t row = kern_kv_row_bytes(type, &shape);
  seed = 7;
  memset(&r, 0, sizeof r);
  for (int i = 0; i < SEQS * PAGES; i++) r.table[i] = (i * 7) % (SEQS * PAGES);
  for (int s = 0; s < SEQS; s++)
    for (int i = 0; i < CONTEXT; i++) {
      float *latent = r.latent[s * CONTEXT + i];
      const kern_kv kv = {r.kv, row * PAGE, row, r.table + s * PAGES, PAGE, type};
      for (int j = 0; j < LATENT; j++) latent[j] = value(1);
      kern_kv_write(&kv, &shape, i, latent, latent + LORA);
      kern_kv_read(&kv, &shape, i, latent, latent + LORA);
    }
  for (size_t i = 0; i < sizeof r.q / 4; i++) r.q[i] = value(1);
  for (size_t i = 0; i < sizeof r.q_rope / 4; i++) r.q_rope[i] = value(1);
  r.s = (mla_step){.d = {HEADS, LORA, NOPE, ROPE, DV},
                   .kv = {.base = r.kv, .page_bytes = row * PAGE, .row_bytes = row, .page_tokens = PAGE, .type = type},
                   .k_b = matrix(f, exact, HEADS * LORA, NOPE, r.wk[0], &r.k_b),
                   .v_b = matrix(f, exact, HEADS * DV, LORA, r.wv[0], &r.v_b),
                   .scale = 0.2f,
                   .exact = exact,
                   .pos = r.pos,
                   .seq = r.seq,
                   .plain = r.plain,
                   .page_table = r.table,
                   .pages_per_seq = PAGES,
                   .q = r.q,
                   .q_stride = HEADS * QK,
                   .q_head = QK,
                   .q_rope = r.q_rope + LORA,
                   .q_rope_stride = HEADS * LATENT,
                   .q_rope_head = LATENT,
                   .out = r.out,
                   .out_stride = HEADS * DV};
}

static void close_rig(void) {
  mem_free(r.k_b, kern_mat_bytes(r.s.k_b.layout, r.s.k_b.format, HEADS * LORA, NOPE), -1);
  mem_free(r.v_b, kern_mat_bytes(r.s.v_b.layout, r.s.v_b.format, HEADS * DV, LORA), -1);
}

static void add(int seq, int from, int n, bool plain) {
  for (int i = 0; i < n; i++) {
    const int t = r.s.n_tok++;
    r.seq[t] = seq, r.pos[t] = from + i, r.plain[t] = plain;
  }
}

static void run(int threads) {
  char *scratch;
  void *p = NULL;
  r.s.scratch_bytes = mla_scratch_bytes(&r.s.d, r.s.k_b.format, MOST, r.s.exact);
  assert_int_equal(mem_alloc((size_t)threads * r.s.scratch_bytes, -1, "test", &p), HF_OK);
  r.s.scratch = scratch = p;
  memset(scratch, 0xff, (size_t)threads * r.s.scratch_bytes); /* NaN, if anybody reads it */
  memset(r.out, 0xff, sizeof r.out);
  for (int t = threads; t-- > 0;) mla_plain_run(&r.s, t, threads);
  mem_free(p, (size_t)threads * r.s.scratch_bytes, -1);
}

/* The definition, in double, in the absorbed order of operations. */
static void define(int t, int h, double out[DV]) {
  static double score[CONTEXT];
  double turned[LORA] = {0}, sum[LORA] = {0}, most = -INFINITY, weight = 0;
  const float *q = r.q + (t * HEADS + h) * QK, *q_rope = r.q_rope + (t * HEADS + h) * LATENT + LORA;
  for (int l = 0; l < LORA; l++)
    for (int j = 0; j < NOPE; j++) turned[l] += (double)q[j] * (double)r.wk[h * LORA + l][j];
  for (int i = 0; i <= r.pos[t]; i++) {
    const float *latent = r.latent[r.seq[t] * CONTEXT + i];
    double s = 0;
    for (int l = 0; l < LORA; l++) s += turned[l] * (double)latent[l];
    for (int j = 0; j < ROPE; j++) s += (double)q_rope[j] * (double)latent[LORA + j];
    score[i] = s * (double)r.s.scale;
    most = fmax(most, score[i]);
  }
  for (int i = 0; i <= r.pos[t]; i++) {
    const double w = exp(score[i] - most);
    weight += w;
    for (int l = 0; l < LORA; l++) sum[l] += w * (double)r.latent[r.seq[t] * CONTEXT + i][l];
  }
  for (int j = 0; j < DV; j++) {
    out[j] = 0;
    for (int l = 0; l < LORA; l++) out[j] += sum[l] / weight * (double)r.wv[h * DV + j][l];
  }
}

/* Relative RMS of the results of plain tokens. */
static double difference(void) {
  double off = 0, all = 0, want[DV];
  for (int t = 0; t < r.s.n_tok; t++)
    for (int h = 0; r.plain[t] && h < HEADS; h++) {
      define(t, h, want);
      for (int j = 0; j < DV; j++) {
        const double got = (double)r.out[(t * HEADS + h) * DV + j];
        off += (got - want[j]) * (got - want[j]), all += want[j] * want[j];
      }
    }
  return sqrt(off / all);
}

static void step(void) {
  r.s.n_tok = 0;
  add(0, 900, 1, false);
  add(1, 0, 70, true);    /* more than a unit of rows */
  add(0, 470, 100, true); /* over the end of a segment, in the third part of the table */
  add(1, 1100, 3, true);
}

static void is_the_definition(void **state) {
  (void)state;
  static const struct {
    kern_format f;
    kern_kv_type type;
    bool exact;
    double most;
  } cases[] = {{KF_F32, KV_F32, true, 2e-6},   {KF_Q8_0, KV_F32, true, 2e-6},     {KF_BF16, KV_F16, true, 2e-6},
               {KF_F16, KV_Q8_0, true, 2e-6},  {KF_Q8_0, KV_Q8_0, false, 1.5e-2}, {KF_F16, KV_BF16, true, 2e-6},
               {KF_BF16, KV_F16, false, 6e-3}, {KF_F16, KV_F16, false, 1e-3},     {KF_Q8_0, KV_F16, false, 1.5e-2}};
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    open_rig(cases[i].f, cases[i].type, cases[i].exact);
    step();
    run(2);
    const double off = difference();
    if (!(off < cases[i].most)) fail_msg("%s: %g relative RMS", kern_format_name(cases[i].f), off);
    for (int t = 0; t < r.s.n_tok; t++) {
      uint32_t bits;
      memcpy(&bits, &r.out[t * HEADS * DV], 4);
      assert_true((bits == 0xffffffffu) == !r.plain[t]);
    }
    close_rig();
  }
}

static void threads_do_not_change_bits(void **state) {
  (void)state;
  static float want[MOST * HEADS * DV];
  open_rig(KF_Q8_0, KV_F16, false);
  step();
  run(1);
  memcpy(want, r.out, sizeof want);
  for (int threads = 2; threads <= MOST_THREADS; threads++) {
    run(threads);
    assert_memory_equal(r.out, want, sizeof want);
  }
  close_rig();
}

/* A prompt alone, in pieces, and beside others. */
static void company_does_not_change_bits(void **state) {
  (void)state;
  static float want[100 * HEADS * DV], q[100 * HEADS * QK], q_rope[100 * HEADS * LATENT];
  open_rig(KF_BF16, KV_F16, false);
  step();
  run(3);
  memcpy(want, r.out + 71 * HEADS * DV, sizeof want);
  memcpy(q, r.q + 71 * HEADS * QK, sizeof q);
  memcpy(q_rope, r.q_rope + 71 * HEADS * LATENT, sizeof q_rope);
  for (int at = 0, n; at < 100; at += n) {
    n = at == 0 ? 37 : 63;
    r.s.n_tok = 0;
    add(0, 470 + at, n, true);
    memcpy(r.q, q + at * HEADS * QK, (size_t)(n * HEADS * QK) * 4);
    memcpy(r.q_rope, q_rope + at * HEADS * LATENT, (size_t)(n * HEADS * LATENT) * 4);
    run(2);
    assert_memory_equal(r.out, want + at * HEADS * DV, (size_t)(n * HEADS * DV) * 4);
  }
  close_rig();
}

int main(void) {
  if (kern_init(NULL) != HF_OK) return 3;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(is_the_definition),
      cmocka_unit_test(threads_do_not_change_bits),
      cmocka_unit_test(company_does_not_change_bits),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
