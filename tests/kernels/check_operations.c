/* check_operations.c: packing and KV conversion bit for bit, vector operations and attention against double. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static kern_table table, reference;
static const char *isa;

static void fill(float *x, int n, data_kind k) {
  for (int i = 0; i < n; i++) x[i] = rnd_value(k);
}

/* Values that conversions get wrong: halves of a last place, the borders of each format, not-a-numbers with payloads. */
static float special(int i) {
  static const uint32_t bits[] = {0x00000000, 0x80000000, 0x00000001, 0x807fffff, 0x00800000, 0x7f7fffff, 0xff7fffff, 0x7f800000,
                                  0xff800000, 0x7fc00000, 0x7f800001, 0xffc12345, 0x7fbfffff, 0x477fe000, 0x477fefff, 0x477ff000,
                                  0x47800000, 0x38800000, 0x387fffff, 0x387fe000, 0x33800000, 0x33000000, 0x33000001, 0x32ffffff,
                                  0x3f801000, 0x3f803000, 0x3f801001, 0x3f808000, 0x3f818000, 0x3f808001, 0x7f7f8000, 0x7f7f7fff,
                                  0x00007fff, 0x00008000, 0x00018000, 0x0000ffff};
  float f;
  memcpy(&f, &bits[(unsigned)i % (sizeof bits / sizeof bits[0])], 4);
  return f;
}

static void fill_any(float *x, int n, int kind) {
  for (int i = 0; i < n; i++) {
    uint32_t u = rnd();
    if (kind == DATA_N) x[i] = special((int)(rnd() % 1000));
    else if (kind > DATA_N) memcpy(&x[i], &u, 4);
    else x[i] = rnd_value((data_kind)kind);
  }
}

static void check_pack(int n, int kind) {
  float *x = guarded((size_t)n * 4);
  fill_any(x, n, kind);
  for (int a = 0; a < KA_N; a++) {
    size_t bytes = kern_act_bytes((kern_act)a, n);
    char *want = guarded(bytes), *got = guarded(bytes);
    memset(want, 0x55, bytes);
    memset(got, 0xaa, bytes);
    reference.pack[a](x, n, want);
    table.pack[a](x, n, got);
    expect(bytes % 64 == 0 && memcmp(want, got, bytes) == 0, "%s: pack %s, n %d, kind %d", isa, kern_act_name((kern_act)a), n,
           kind);
    int lo = rnd_between(0, (n - 1) / 32) * 32; /* in two pieces, with the global table: the same bytes */
    memset(got, 0x33, bytes);
    if (lo > 0) kern_pack_part((kern_act)a, x, 0, lo, n, got);
    kern_pack_part((kern_act)a, x + lo, lo, n, n, got);
    expect(memcmp(want, got, bytes) == 0, "pack %s in pieces, n %d of %d, kind %d", kern_act_name((kern_act)a), lo, n, kind);
    guarded_free(want, bytes);
    guarded_free(got, bytes);
  }
  guarded_free(x, (size_t)n * 4);
}

static void check_kv_copy(int n, int kind) {
  float *x = guarded((size_t)n * 4), *back = guarded((size_t)n * 4), *want_back = guarded((size_t)n * 4);
  fill_any(x, n, kind);
  for (int t = 0; t <= KV_BF16; t++) {
    size_t bytes = (size_t)n * (t == KV_F32 ? 4 : 2);
    char *want = guarded(bytes), *got = guarded(bytes);
    reference.kv_store((kern_kv_type)t, x, n, want);
    table.kv_store((kern_kv_type)t, x, n, got);
    expect(memcmp(want, got, bytes) == 0, "%s: kv_store type %d, n %d, kind %d", isa, t, n, kind);
    reference.kv_load((kern_kv_type)t, want, n, want_back);
    table.kv_load((kern_kv_type)t, want, n, back);
    expect(memcmp(want_back, back, (size_t)n * 4) == 0, "%s: kv_load type %d, n %d, kind %d", isa, t, n, kind);
    guarded_free(want, bytes);
    guarded_free(got, bytes);
  }
  guarded_free(x, (size_t)n * 4);
  guarded_free(back, (size_t)n * 4);
  guarded_free(want_back, (size_t)n * 4);
}

static void check_kv_unpack(int n) {
  const size_t scale_bytes = (size_t)(n + 31) / 32 * 2;
  int8_t *q = guarded((size_t)n);
  uint16_t *d = guarded(scale_bytes);
  float *want = guarded((size_t)n * 4), *got = guarded((size_t)n * 4);
  for (int i = 0; i < n; i++) q[i] = (int8_t)rnd_between(-128, 127);
  for (size_t i = 0; i < scale_bytes / 2; i++) d[i] = (uint16_t)rnd_between(0, 0x7bff);
  reference.kv_unpack(q, d, n, want);
  table.kv_unpack(q, d, n, got);
  expect(memcmp(want, got, (size_t)n * 4) == 0, "%s: kv_unpack, n %d", isa, n);
  guarded_free(q, (size_t)n);
  guarded_free(d, scale_bytes);
  guarded_free(want, (size_t)n * 4);
  guarded_free(got, (size_t)n * 4);
}

/* What was written is read, within half a step of its block, wherever other tokens are. Blocks are those of a head, or of a latent row. */
static void check_kv_rows(kern_kv_shape s, int page_tokens) {
  enum { N = 40 };
  const int heads = s.n_heads ? s.n_heads : 1, n_k = heads * s.k, n_v = heads * s.v, pages = (N + page_tokens - 1) / page_tokens;
  kern_kv kv = {.type = KV_Q8_0, .page_tokens = page_tokens, .row_bytes = kern_kv_row_bytes(KV_Q8_0, &s)};
  kv.page_bytes = kv.row_bytes * (size_t)page_tokens;
  const size_t bytes = kv.page_bytes * (size_t)pages;
  char *cache = guarded(bytes);
  int32_t *table_of_pages = calloc((size_t)pages, sizeof *table_of_pages);
  float *x = calloc((size_t)(N * (n_k + n_v)), sizeof *x), *back = calloc((size_t)(n_k + n_v), sizeof *back);
  for (int i = 0; i < pages; i++) table_of_pages[i] = pages - 1 - i;
  kv.base = cache, kv.pages = table_of_pages;
  for (int i = 0; i < N; i++) {
    float *at = x + (i * 7 % N) * (n_k + n_v);
    fill(at, n_k + n_v, DATA_RANDOM);
    kern_kv_write(&kv, &s, i * 7 % N, at, at + n_k);
  }
  for (int i = 0; i < N; i++) {
    const float *was = x + i * (n_k + n_v);
    kern_kv_read(&kv, &s, i, back, back + n_k);
    for (int j = 0; j < n_k + n_v; j++) {
      const int part = s.n_heads ? (j < n_k ? s.k : s.v) : s.k + s.v, from = s.n_heads && j >= n_k ? n_k : 0;
      const int head = from + (j - from) / part * part, b0 = head + (j - head) / 32 * 32;
      float most = 0;
      for (int b = b0; b < b0 + 32 && b < head + part; b++) most = fabsf(was[b]) > most ? fabsf(was[b]) : most;
      if (!expect(fabsf(was[j] - back[j]) <= most * (0.5f / 127 + 1e-3f),
                  "q8_0 cache, %d heads of %d and %d, pages of %d: token %d, [%d] %g read as %g", s.n_heads, s.k, s.v,
                  page_tokens, i, j, (double)was[j], (double)back[j]))
        break;
    }
  }
  guarded_free(cache, bytes);
  free(table_of_pages);
  free(x);
  free(back);
}

/* Every half there is, widened. */
static void check_all_halves(void) {
  enum { N = 65536 };
  uint16_t *h = guarded(N * 2);
  float *a = guarded(N * 4), *b = guarded(N * 4);
  for (int i = 0; i < N; i++) h[i] = (uint16_t)i;
  for (int t = KV_F16; t <= KV_BF16; t++) {
    reference.kv_load((kern_kv_type)t, h, N, a);
    table.kv_load((kern_kv_type)t, h, N, b);
    expect(memcmp(a, b, N * 4) == 0, "%s: all 65536 halves of type %d", isa, t);
  }
  guarded_free(h, N * 2);
  guarded_free(a, N * 4);
  guarded_free(b, N * 4);
}

static void check_vectors(int n, data_kind k) {
  float *x = guarded((size_t)n * 4), *w = guarded((size_t)n * 4), *y = canary_new(n);
  double sum = 0, mag = 0, squares = 0;
  float a = rnd_value(DATA_RANDOM);
  fill(x, n, k);
  fill(w, n, k);
  for (int i = 0; i < n; i++) {
    sum += (double)x[i] * w[i];
    mag += fabs((double)x[i] * w[i]);
    squares += (double)x[i] * x[i];
  }
  double eps = (n / 8.0 + 8) * FLT_EPSILON;
  expect(fabs(table.dot(x, w, n) - sum) <= eps * mag + n * 0x1p-149, "%s: dot, n %d, %s", isa, n, data_name(k));
  table.rmsnorm(x, w, 1e-6f, n, y);
  for (int i = 0; i < n; i++) {
    double want = x[i] / sqrt(squares / n + 1e-6f) * w[i];
    if (!expect(fabs(y[i] - want) <= eps * fabs(want) + 1e-37, "%s: rmsnorm, n %d, %s: %g, exact %g", isa, n, data_name(k),
                (double)y[i], want))
      break;
  }
  memcpy(y, x, (size_t)n * 4);
  table.rmsnorm(y, w, 1e-6f, n, y);
  float *z = canary_new(n);
  table.rmsnorm(x, w, 1e-6f, n, z);
  expect(memcmp(y, z, (size_t)n * 4) == 0, "%s: rmsnorm in place, n %d", isa, n);
  for (int i = 0; i < n; i++) y[i] = z[i] = w[i];
  table.axpy(a, x, n, y);
  for (int i = 0; i < n; i++) {
    double want = (double)a * x[i] + w[i];
    if (!expect(fabs(y[i] - want) <= 2 * FLT_EPSILON * (fabs((double)a * x[i]) + fabs((double)w[i])) + 0x1p-148,
                "%s: axpy, n %d, %s", isa, n, data_name(k)))
      break;
  }
  expect(!canary_broken(y, n) && !canary_broken(z, n), "%s: vector operations write outside, n %d", isa, n);
  canary_free(z);
  canary_free(y);
  guarded_free(x, (size_t)n * 4);
  guarded_free(w, (size_t)n * 4);
}

/* Beyond the limit nothing changes any more, on the gate's side from above only; NaN stays NaN. */
static void check_swiglu_clamped(void) {
  enum { N = 1031 };
  const float limit = 7.0f;
  float *g = guarded(N * 4), *up = guarded(N * 4), *out = canary_new(N), *again = canary_new(N);
  for (int i = 0; i < N; i++) {
    g[i] = i < 64 ? special(i) : (float)(i % 201 - 100) * 0.1f;
    up[i] = i < 64 ? 0.5f : i < 128 ? special(i - 64) : (float)(i % 37 - 18) * 0.5f;
  }
  table.swiglu_clamped(g, up, limit, N, out);
  for (int i = 0; i < N; i++) {
    double x = g[i] > limit ? limit : g[i], u = up[i] > limit ? limit : up[i] < -limit ? -limit : up[i];
    double want = (u + 1) * x / (1 + exp(-(double)(1.702f * (float)x)));
    if (isnan(want)) expect(isnan(out[i]), "%s: swiglu_clamped(%g, %g) = %g", isa, (double)g[i], (double)up[i], (double)out[i]);
    else
      expect(fabs(out[i] - want) <= 1e-6 * fabs(want) + 1e-35, "%s: swiglu_clamped(%.9g, %.9g) = %.9g, exact %.9g", isa,
             (double)g[i], (double)up[i], (double)out[i], want);
  }
  memcpy(again, g, N * 4);
  table.swiglu_clamped(again, up, limit, N, again);
  expect(memcmp(again, out, N * 4) == 0, "%s: swiglu_clamped in place", isa);
  for (int n = 0; n < 40; n++) {
    float *small = canary_new(n);
    table.swiglu_clamped(g + 200, up + 200, limit, n, small);
    expect(!canary_broken(small, n) && memcmp(small, out + 200, (size_t)n * 4) == 0, "%s: swiglu_clamped, n %d", isa, n);
    canary_free(small);
  }
  expect(!canary_broken(out, N) && !canary_broken(again, N), "%s: swiglu_clamped writes outside", isa);
  canary_free(again);
  canary_free(out);
  guarded_free(g, N * 4);
  guarded_free(up, N * 4);
}

/* The claim: silu within 4 units in the last place wherever exp(-g) is finite. Past that the definition itself gives -0. */
static void check_swiglu(void) {
  enum { N = 4099 };
  float *g = guarded(N * 4), *up = guarded(N * 4), *out = canary_new(N);
  for (int i = 0; i < N; i++) {
    g[i] = i < 64 ? special(i) : i < 2048 ? (float)(i - 1024) * 0.1f : rnd_value(DATA_EXTREME);
    up[i] = 1.0f;
  }
  table.swiglu(g, up, N, out);
  double worst = 0;
  for (int i = 0; i < N; i++) {
    double want = g[i] / (1.0 + exp(-(double)g[i]));
    if (isnan(g[i]) || g[i] == -INFINITY) {
      expect(isnan(out[i]), "%s: swiglu(%g) = %g", isa, (double)g[i], (double)out[i]);
    } else if (g[i] == INFINITY) {
      expect(out[i] == INFINITY, "%s: swiglu(inf) = %g", isa, (double)out[i]);
    } else if (g[i] > -88.0f && fabs(want) > FLT_MIN) {
      double ulps = fabs(out[i] - want) / ldexp(1.0, ilogb(want) - 23);
      worst = ulps > worst ? ulps : worst;
      expect(ulps <= 4.0, "%s: swiglu(%.9g) = %.9g, exact %.9g: %.1f ulp", isa, (double)g[i], (double)out[i], want, ulps);
    } else {
      expect(fabs(out[i] - want) <= 1e-35, "%s: swiglu(%.9g) = %.9g", isa, (double)g[i], (double)out[i]);
    }
  }
  printf("  swiglu: largest error %.2f ulp\n", worst);
  memcpy(up, g, N * 4);
  for (int i = 0; i < N; i++) g[i] = (float)(i % 40) - 20.0f;
  table.swiglu(g, up, N, out);
  float *again = canary_new(N);
  memcpy(again, g, N * 4);
  table.swiglu(again, up, N, again);
  expect(memcmp(again, out, N * 4) == 0, "%s: swiglu in place", isa);
  for (int n = 0; n < 40; n++) {
    float *small = canary_new(n);
    table.swiglu(g, up, n, small);
    expect(!canary_broken(small, n) && memcmp(small, out, (size_t)n * 4) == 0, "%s: swiglu, n %d", isa, n);
    canary_free(small);
  }
  expect(!canary_broken(out, N) && !canary_broken(again, N), "%s: swiglu writes outside", isa);
  canary_free(again);
  canary_free(out);
  guarded_free(g, N * 4);
  guarded_free(up, N * 4);
}

/* n_q queries, the last of which sees n_ctx tokens. */
typedef struct {
  int n_heads, n_kv_heads, dk, dv, page_tokens, n_ctx, window;
  bool mla, sinks;
  kern_kv_type type;
  float sharp; /* scale of the scores: large makes the softmax one-hot */
  int n_q;
} attn_case;

typedef struct {
  kern_attn a;
  char *cache, *scratch;
  size_t cache_bytes, scratch_bytes;
  int32_t *pages;
  float *rows, *q, *sinks, *part; /* rows: as they are read back */
  float *meant;                   /* queries as the cache's type rounds them */
} attn_data;

/* The most for one segment: what some rows of as many heads as are computed together take. */
static size_t part_floats(const attn_case *c) {
  size_t most = 0;
  for (int rows = 1; rows <= KERN_ATTN_ROWS; rows++) {
    const int heads = KERN_ATTN_ROWS / rows < c->n_kv_heads ? KERN_ATTN_ROWS / rows : c->n_kv_heads;
    const size_t floats = (size_t)heads * kern_attn_part_floats(rows, c->dv);
    most = floats > most ? floats : most;
  }
  return most;
}

/* As kernels.h says: per block of 32 int8 and the largest magnitude / 127. */
static void round_q8(const float *x, int n, float *y) {
  for (int b = 0; b < n; b += 32) {
    float most = 0;
    for (int i = b; i < b + 32 && i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    const float d = most / 127;
    for (int i = b; i < b + 32 && i < n; i++) y[i] = d == 0 ? 0 : d * roundevenf(x[i] / d);
  }
}

static void attn_make(const attn_case *c, attn_data *d) {
  const int width = c->mla ? c->dk : 2 * c->n_kv_heads * c->dk, n_pages = (c->n_ctx + c->page_tokens - 1) / c->page_tokens;
  const kern_kv_shape shape = {
      .n_heads = c->mla ? 0 : c->n_kv_heads, .k = c->mla ? c->dv : c->dk, .v = c->mla ? c->dk - c->dv : c->dv};
  const int n_k = c->mla ? c->dv : c->n_kv_heads * c->dk;
  const size_t row = kern_kv_row_bytes(c->type, &shape), q_floats = (size_t)(c->n_q * c->n_heads * c->dk);
  const size_t segments = (size_t)c->n_ctx / KERN_ATTN_SEGMENT + 1;
  d->cache_bytes = row * (size_t)(n_pages * c->page_tokens);
  d->cache = guarded(d->cache_bytes);
  d->pages = calloc((size_t)n_pages, sizeof *d->pages);
  d->rows = calloc((size_t)(c->n_ctx * width), sizeof(float));
  d->q = guarded(q_floats * 4);
  d->sinks = c->sinks ? guarded((size_t)c->n_heads * 4) : NULL;
  d->part = canary_new((int)(segments * part_floats(c)));
  d->scratch_bytes = kern_attn_scratch_bytes(c->dk, c->dv);
  d->scratch = guarded((d->scratch_bytes + 63) / 64 * 64);
  memset(d->scratch, 0xff, d->scratch_bytes); /* not a number anywhere */
  for (int i = 0; i < n_pages; i++) d->pages[i] = n_pages - 1 - i;
  for (int i = 0; i < c->n_ctx; i++) {
    const kern_kv kv = {d->cache, row * (size_t)c->page_tokens, row, d->pages, c->page_tokens, c->type};
    float *x = d->rows + (size_t)i * (size_t)width;
    fill(x, width, DATA_RANDOM);
    kern_kv_write(&kv, &shape, i, x, x + n_k);
    kern_kv_read(&kv, &shape, i, x, x + n_k);
  }
  fill(d->q, (int)q_floats, DATA_RANDOM);
  d->meant = calloc(q_floats, sizeof(float));
  for (size_t i = 0; i < q_floats; i += (size_t)c->dk)
    c->type == KV_Q8_0 ? round_q8(d->q + i, c->dk, d->meant + i) : (void)memcpy(d->meant + i, d->q + i, (size_t)c->dk * 4);
  if (d->sinks) fill(d->sinks, c->n_heads, DATA_RANDOM);
  d->a = (kern_attn){.kv = {d->cache, row * (size_t)c->page_tokens, row, d->pages, c->page_tokens, c->type},
                     .mla = c->mla,
                     .n_heads = c->n_heads,
                     .n_kv_heads = c->n_kv_heads,
                     .dk = c->dk,
                     .dv = c->dv,
                     .scale = c->sharp,
                     .window = c->window,
                     .sinks = d->sinks,
                     .n_q = c->n_q,
                     .pos0 = c->n_ctx - c->n_q,
                     .q = d->q,
                     .q_stride = (size_t)(c->n_heads * c->dk),
                     .out_stride = (size_t)(c->n_heads * c->dv)};
}

static void attn_drop(const attn_case *c, attn_data *d) {
  guarded_free(d->cache, d->cache_bytes);
  guarded_free(d->scratch, (d->scratch_bytes + 63) / 64 * 64);
  guarded_free(d->q, (size_t)(c->n_q * c->n_heads * c->dk) * 4);
  if (d->sinks) guarded_free(d->sinks, (size_t)c->n_heads * 4);
  canary_free(d->part);
  free(d->pages);
  free(d->rows);
  free(d->meant);
}

/* Two passes in double: the textbook. */
static void attn_exact(const attn_case *c, const attn_data *d, int t, int h, double *out) {
  const int width = c->mla ? c->dk : 2 * c->n_kv_heads * c->dk, g = h / (c->n_heads / c->n_kv_heads);
  const int k0 = c->mla ? 0 : g * c->dk, v0 = c->mla ? 0 : (c->n_kv_heads + g) * c->dk, n_ctx = c->n_ctx - c->n_q + t + 1;
  const int first = c->window > 0 && n_ctx > c->window ? n_ctx - c->window : 0;
  const float *q = d->meant + (size_t)(t * c->n_heads + h) * (size_t)c->dk;
  double *s = calloc((size_t)n_ctx, sizeof *s), max = d->sinks ? d->sinks[h] : -INFINITY, sum = 0;
  for (int i = first; i < n_ctx; i++) {
    for (int j = 0; j < c->dk; j++) s[i] += (double)q[j] * d->rows[i * width + k0 + j];
    s[i] *= c->sharp;
    max = s[i] > max ? s[i] : max;
  }
  for (int i = first; i < n_ctx; i++) sum += s[i] = exp(s[i] - max);
  if (d->sinks) sum += exp(d->sinks[h] - max);
  for (int j = 0; j < c->dv; j++) {
    out[j] = 0;
    for (int i = first; i < n_ctx; i++) out[j] += s[i] / sum * d->rows[i * width + v0 + j];
  }
  free(s);
}

/* Rows [r0, r1) of every KV head, some heads together, in one go or from partial results of segments, which are computed in pieces in any
 * order. */
static void attn_call(attn_data *d, int r0, int r1, bool cut, float *out) {
  kern_attn *a = &d->a;
  a->out = out;
  const int seg0 = kern_attn_first(a, r0) / KERN_ATTN_SEGMENT, seg1 = (kern_attn_end(a, r1 - 1) - 1) / KERN_ATTN_SEGMENT + 1;
  for (int g = 0, end; g < a->n_kv_heads; g = end) {
    int most = KERN_ATTN_ROWS / (r1 - r0) < a->n_kv_heads - g ? KERN_ATTN_ROWS / (r1 - r0) : a->n_kv_heads - g;
    end = rnd_between(g + 1, g + most);
    if (!cut) {
      table.attn(a, g, end, r0, r1, seg0, seg1, NULL, d->scratch);
      continue;
    }
    for (int s = seg1; s > seg0;) {
      int from = rnd_between(seg0, s - 1);
      size_t at = (size_t)((from - seg0) * (end - g)) * kern_attn_part_floats(r1 - r0, a->dv);
      table.attn(a, g, end, r0, r1, from, s, d->part + at, d->scratch);
      s = from;
    }
    table.attn_merge(a, g, end, r0, r1, seg1 - seg0, d->part, d->scratch);
  }
}

static void attn_right(const attn_case *c, const attn_data *d, const float *out) {
  /* scores carry rounding of about dk/8 last places of sharp * sum |q k|, which exp turns into relative error */
  double tolerance = 2e-6 + 4e-7 * c->sharp * sqrt(c->dk), *want = calloc((size_t)c->dv, sizeof *want);
  for (int r = 0; r < c->n_q * c->n_heads; r++) {
    attn_exact(c, d, r / c->n_heads, r % c->n_heads, want);
    for (int j = 0; j < c->dv; j++) {
      if (!expect(fabs(out[r * c->dv + j] - want[j]) <= tolerance,
                  "%s: attention %s heads %d/%d dk %d ctx %d page %d type %d query %d: [%d][%d] %g, exact %g", isa,
                  c->mla ? "mla" : "gqa", c->n_heads, c->n_kv_heads, c->dk, c->n_ctx, c->page_tokens, c->type, r / c->n_heads,
                  r % c->n_heads, j, (double)out[r * c->dv + j], want[j]))
        break;
    }
  }
  free(want);
}

/* Bits do not depend on how rows and contexts are cut. */
static void check_attn(const attn_case *c) {
  attn_data d;
  const int n = c->n_q * c->n_heads * c->dv, rows = c->n_q * c->n_heads / c->n_kv_heads;
  float *out = canary_new(n), *other = canary_new(n);
  attn_make(c, &d);
  for (int r = 0; r < rows; r += KERN_ATTN_ROWS)
    attn_call(&d, r, r + KERN_ATTN_ROWS < rows ? r + KERN_ATTN_ROWS : rows, false, out);
  attn_right(c, &d, out);
  for (int cut = 0; cut < 2; cut++) {
    memset(other, 0, (size_t)n * 4);
    for (int r = 0; r < rows;) {
      int end = rnd_between(r + 1, rows);
      end = end > r + KERN_ATTN_ROWS ? r + KERN_ATTN_ROWS : end;
      attn_call(&d, r, end, cut, other);
      r = end;
    }
    expect(memcmp(other, out, (size_t)n * 4) == 0, "%s: attention %s heads %d/%d ctx %d queries %d: other bits when %s are cut",
           isa, c->mla ? "mla" : "gqa", c->n_heads, c->n_kv_heads, c->n_ctx, c->n_q, cut ? "rows and context" : "rows");
  }
  expect(!canary_broken(out, n) && !canary_broken(other, n), "%s: attention writes outside", isa);
  expect(!canary_broken(d.part, (int)(((size_t)c->n_ctx / KERN_ATTN_SEGMENT + 1) * part_floats(c))),
         "%s: partial results of attention are written outside their place: heads %d/%d dk %d ctx %d type %d queries %d", isa,
         c->n_heads, c->n_kv_heads, c->dk, c->n_ctx, c->type, c->n_q);
  attn_drop(c, &d);
  canary_free(out);
  canary_free(other);
}

static void check_attention(void) {
  static const int contexts[] = {1, 2, 15, 16, 17, 33, 64, 70, 257};
  for (size_t i = 0; i < sizeof contexts / sizeof contexts[0]; i++) {
    for (int type = 0; type < KV_N; type++) {
      int page = 1 << rnd_between(type == KV_Q8_0 ? 4 : 0, 6), ctx = contexts[i], n_q = rnd_between(1, ctx < 20 ? ctx : 20);
      kern_kv_type t = (kern_kv_type)type;
      check_attn(&(attn_case){6, 1, 40, 24, page, ctx, 0, true, false, t, 0.3f, 1});
      check_attn(&(attn_case){9, 1, 19, 13, page, ctx, 0, true, false, t, 20.0f, n_q});
      check_attn(&(attn_case){4, 2, 64, 64, page, ctx, 0, false, false, t, 0.125f, n_q});
      check_attn(&(attn_case){12, 2, 21, 21, page, ctx, 12, false, true, t, 1.0f, n_q});
      check_attn(&(attn_case){3, 3, 7, 7, page, ctx, 1, false, true, t, 300.0f, n_q});
    }
  }
  for (int type = 0; type < KV_N; type++) { /* several segments; the strides that are known when compiled, and another */
    kern_kv_type t = (kern_kv_type)type;
    check_attn(&(attn_case){16, 2, 64, 64, 32, 1100, 128, false, true, t, 0.2f, 3});
    check_attn(&(attn_case){5, 1, 160, 160, 64, 700, 0, false, false, t, 0.08f, 30});
    check_attn(&(attn_case){2, 2, 20, 20, 16, 1537, 600, false, true, t, 0.4f, 100});
  }
  for (int per = 1; per <= 16; per += per < 8 ? 1 : 8) { /* all tiles of rows over the tiled cache */
    check_attn(&(attn_case){2 * per, 2, 128, 128, 16, 200, 0, false, false, KV_Q8_0, 0.08f, 2});
    check_attn(&(attn_case){2 * per, 2, 72, 72, 32, 530, 100, false, true, KV_Q8_0, 0.1f, 1});
  }
  check_attn(&(attn_case){8, 1, 300, 300, 16, 90, 0, false, false, KV_Q8_0, 0.05f, 1});
  check_attn(&(attn_case){20, 1, 576, 512, 64, 1030, 0, true, false, KV_Q8_0, 0.07f, 1});
  check_attn(&(attn_case){3, 1, 624, 600, 64, 70, 0, true, false, KV_Q8_0, 0.07f, 2});
  check_attn(&(attn_case){20, 1, 576, 512, 64, 1030, 0, true, false, KV_F16, 0.07f, 1});
  check_attn(&(attn_case){5, 1, 576, 512, 64, 130, 0, true, false, KV_BF16, 0.07f, 7});
  check_attn(&(attn_case){3, 1, 624, 600, 64, 70, 0, true, false, KV_F16, 0.07f, 2});
}

void check_operations(unsigned mask, const char *mask_name) {
  static const int sizes[] = {1, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 255, 1000, 7168};
  isa = mask_name;
  if (kern_table_for(mask, &table) != HF_OK || kern_table_for(KERN_ISA_SCALAR, &reference) != HF_OK) {
    expect(false, "%s: %s", mask_name, hf_error_line());
    return;
  }
  check_all_halves();
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    for (int kind = 0; kind <= DATA_N + 1; kind++) {
      check_pack(sizes[i], kind);
      check_kv_copy(sizes[i], kind);
    }
    for (int k = 0; k < DATA_N; k++) check_vectors(sizes[i], (data_kind)k);
    check_kv_unpack(sizes[i]);
  }
  for (int page = 16; page <= 64; page *= 2) {
    check_kv_rows((kern_kv_shape){3, 128, 128}, page);
    check_kv_rows((kern_kv_shape){2, 40, 24}, page);
    check_kv_rows((kern_kv_shape){0, 512, 64}, page);
    check_kv_rows((kern_kv_shape){0, 33, 9}, page / 16);
    check_kv_rows((kern_kv_shape){1, 320, 7}, page);
  }
  check_swiglu();
  check_swiglu_clamped();
  check_attention();
}
