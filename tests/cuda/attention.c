/* Attention over the paged cache against the scalar reference, 2e-5 of the values' magnitude: context 1, edges of pages, blocks and segments, windows,
 * sinks, unused segments, page tables in any order, small pages, every type of cache; the cache's bytes are those that the host would write. */
#include "cuda_test.h"

typedef struct {
  bool mla;
  int heads, kv_heads, dk, dv, page_tokens, window;
  bool sinks;
  kern_kv_type type;
  int context[3];
} shape;

static const shape shapes[] = {
    {false, 4, 4, 16, 16, 16, 0, false, KV_F16, {1, 17, 64}},   {false, 8, 2, 33, 33, 16, 0, false, KV_BF16, {2, 65, 513}},
    {false, 16, 1, 64, 64, 32, 0, true, KV_F32, {512, 1, 530}}, {false, 6, 2, 128, 128, 16, 20, true, KV_F16, {19, 21, 600}},
    {false, 4, 2, 12, 12, 4, 0, false, KV_F16, {1, 4, 70}},     {false, 18, 2, 256, 256, 16, 128, false, KV_BF16, {128, 129, 64}},
    {true, 3, 1, 72, 64, 16, 0, false, KV_F16, {1, 16, 70}},    {true, 16, 1, 576, 512, 16, 0, false, KV_BF16, {5, 64, 70}},
    {true, 9, 1, 40, 32, 8, 0, false, KV_F32, {513, 512, 1}},
};
enum { N_TOK = 3 };

typedef struct {
  hfc_kv kv;
  size_t bytes;
  char *pages;
  int32_t *table, *seq, *pos;
} cache;

static kern_kv_shape row_of(const shape *s) {
  return s->mla ? (kern_kv_shape){.k = s->dv, .v = s->dk - s->dv}
                : (kern_kv_shape){.n_heads = s->kv_heads, .k = s->dk, .v = s->dv};
}

static void cache_make(cache *c, const shape *s) {
  const kern_kv_shape row = row_of(s);
  const size_t row_bytes = kern_kv_row_bytes(s->type, &row);
  int longest = 1;
  for (int t = 0; t < N_TOK; t++) longest = s->context[t] > longest ? s->context[t] : longest;
  const int per_seq = (longest + s->page_tokens - 1) / s->page_tokens;
  c->table = device((size_t)(N_TOK * per_seq) * 4, "page table");
  c->seq = device(N_TOK * 4, "seq");
  c->pos = device(N_TOK * 4, "pos");
  c->bytes = (size_t)(N_TOK * per_seq * s->page_tokens) * row_bytes;
  c->pages = device(c->bytes, "pages");
  for (int i = 0; i < N_TOK * per_seq; i++) c->table[i] = N_TOK * per_seq - 1 - i; /* back to front */
  for (int t = 0; t < N_TOK; t++) c->seq[t] = (t + 1) % N_TOK, c->pos[t] = s->context[t] - 1;
  c->kv = (hfc_kv){.base = c->pages,
                   .page_bytes = row_bytes * (size_t)s->page_tokens,
                   .row_bytes = row_bytes,
                   .page_tokens = s->page_tokens,
                   .type = (int)s->type,
                   .page_table = c->table,
                   .pages_per_seq = per_seq,
                   .seq = c->seq,
                   .pos = c->pos};
}

static kern_kv host_kv(const cache *c, int t) {
  return (kern_kv){.base = c->pages,
                   .page_bytes = c->kv.page_bytes,
                   .row_bytes = c->kv.row_bytes,
                   .pages = c->table + c->seq[t] * c->kv.pages_per_seq,
                   .page_tokens = c->kv.page_tokens,
                   .type = (kern_kv_type)c->kv.type};
}

/* Numbers of every token but each sequence's last, by the host; what no token has stays NaN. */
static void cache_fill(cache *c, const shape *s) {
  const kern_kv_shape row = row_of(s);
  float k[2048], v[2048];
  for (int t = 0; t < N_TOK; t++) {
    const kern_kv kv = host_kv(c, t);
    for (int i = 0; i < c->pos[t]; i++) {
      for (int j = 0; j < 2048; j++) k[j] = number(), v[j] = number();
      kern_kv_write(&kv, &row, i, k, v);
    }
  }
}

static void write_last(cache *c, const shape *s) {
  const kern_kv_shape row = row_of(s);
  const int heads = row.n_heads ? row.n_heads : 1, nk = heads * row.k, nv = heads * row.v;
  float *k = random_floats(N_TOK * nk, 1, "keys"), *v = random_floats(N_TOK * nv, 1, "values");
  char *before = malloc(c->bytes), *after = malloc(c->bytes);
  assert_true(before && after);
  memcpy(before, c->pages, c->bytes);
  RUN(hfc_kv_write_rows(&(hfc_kv_write){.kv = c->kv,
                                        .n_tok = N_TOK,
                                        .heads = row.n_heads,
                                        .k = row.k,
                                        .v = row.v,
                                        .keys = k,
                                        .values = v,
                                        .keys_stride = (size_t)nk,
                                        .values_stride = (size_t)nv},
                        NULL));
  memcpy(after, c->pages, c->bytes);
  memcpy(c->pages, before, c->bytes);
  for (int t = 0; t < N_TOK; t++) {
    const kern_kv kv = host_kv(c, t);
    kern_kv_write(&kv, &row, c->pos[t], k + t * nk, v + t * nv);
  }
  assert_memory_equal(after, c->pages, c->bytes);
  free(before);
  free(after);
  hfc_host_free(k);
  hfc_host_free(v);
}

static void reference(const cache *c, const shape *s, const float *q, const float *sinks, int t, float *out) {
  kern_table ref;
  assert_int_equal(kern_table_for(KERN_ISA_SCALAR, &ref), HF_OK);
  void *scratch = aligned_alloc(64, (kern_attn_scratch_bytes(s->dk, s->dv) + 63) / 64 * 64);
  const kern_attn a = {.kv = host_kv(c, t),
                       .mla = s->mla,
                       .n_heads = s->heads,
                       .n_kv_heads = s->kv_heads,
                       .dk = s->dk,
                       .dv = s->dv,
                       .scale = 0.3f,
                       .window = s->window,
                       .sinks = sinks,
                       .n_q = 1,
                       .pos0 = c->pos[t],
                       .q = q,
                       .out = out};
  ref.attn(&a, 0, s->kv_heads, 0, s->heads / s->kv_heads, 0, c->pos[t] / KERN_ATTN_SEGMENT + 1, NULL, scratch);
  free(scratch);
}

static void check(const shape *s, int number_of) {
  cache c;
  cache_make(&c, s);
  cache_fill(&c, s);
  write_last(&c, s);
  const int longest = c.kv.pages_per_seq * s->page_tokens + 700; /* one or two segments that no token reaches */
  const size_t n_part = hfc_attn_part_floats(N_TOK, s->heads, s->dv, longest);
  float *q = random_floats(N_TOK * s->heads * s->dk, 1, "queries"), *sinks = random_floats(s->heads, 2, "sinks"),
        *out = device((size_t)(N_TOK * s->heads * s->dv) * 4, "out"), *part = device(n_part * 4, "part");
  float *want = calloc((size_t)(s->heads * s->dv), sizeof *want),
        *first = calloc((size_t)(N_TOK * s->heads * s->dv), sizeof *first);
  assert_true(want && first);
  hfc_host_constant(c.pages);
  hfc_attn a = {.kv = c.kv,
                .n_tok = N_TOK,
                .mla = s->mla,
                .n_heads = s->heads,
                .n_kv_heads = s->kv_heads,
                .dk = s->dk,
                .dv = s->dv,
                .window = s->window,
                .max_context = longest,
                .scale = 0.3f,
                .sinks = s->sinks ? sinks : NULL,
                .q = q,
                .out = out,
                .part = part,
                .q_stride = (size_t)(s->heads * s->dk),
                .out_stride = (size_t)(s->heads * s->dv)};
  RUN(s->mla ? hfc_attn_mla(&a, NULL) : hfc_attn_gqa(&a, NULL));
  for (int t = 0; t < N_TOK; t++) {
    reference(&c, s, q + t * s->heads * s->dk, a.sinks, t, want);
    for (int i = 0; i < s->heads * s->dv; i++)
      if (!(fabsf(out[t * s->heads * s->dv + i] - want[i]) <= 2e-5f))
        fail_msg("shape %d, token %d, head %d: %.9g, reference %.9g", number_of, t, i / s->dv,
                 (double)out[t * s->heads * s->dv + i], (double)want[i]);
  }
  memcpy(first, out, (size_t)(N_TOK * s->heads * s->dv) * 4); /* a token's bits are its own, in either order of threads */
  a.n_tok = 1;
  hfc_host_backwards(true);
  RUN(s->mla ? hfc_attn_mla(&a, NULL) : hfc_attn_gqa(&a, NULL));
  hfc_host_backwards(false);
  assert_memory_equal(first, out, (size_t)(s->heads * s->dv) * 4);
  free(want);
  free(first);
  hfc_host_free(q);
  hfc_host_free(sinks);
  hfc_host_free(out);
  hfc_host_free(part);
  hfc_host_free(c.pages);
  hfc_host_free(c.table);
  hfc_host_free(c.seq);
  hfc_host_free(c.pos);
}

static void attention(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) check(&shapes[i], (int)i);
}

static void declines(void **state) {
  (void)state;
  const hfc_attn q8 = {.kv = {.type = KV_Q8_0}, .n_tok = 1, .n_heads = 1, .n_kv_heads = 1, .dk = 64, .dv = 64, .max_context = 1},
                 uneven = {.n_tok = 1, .n_heads = 5, .n_kv_heads = 2, .dk = 64, .dv = 64, .max_context = 1};
  assert_int_equal(hfc_attn_gqa(&q8, NULL), HFC_UNSUPPORTED);
  assert_int_equal(hfc_attn_gqa(&uneven, NULL), HFC_INVALID);
  assert_int_equal(hfc_attn_mla(&uneven, NULL), HFC_INVALID);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(attention), cmocka_unit_test(declines)};
  if (kern_init(NULL) != HF_OK) return 1;
  return cmocka_run_group_tests(tests, NULL, NULL);
}
