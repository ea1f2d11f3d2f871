/* mla.c: see mla.h. Each thread takes heads, a group of them at a time: a segment's latents are packed once for the group. Where there are more threads
 * than heads, queries are cut into parts of about equal work, too, and each part expands what it sees by itself. */
#include "kernels/mla.h"

#include <string.h>

#include "kernels/attn.h"
#include "kernels/layouts.h"

enum { SEGMENT = KERN_ATTN_SEGMENT, ROWS = KERN_ATTN_ROWS, GROUP = 4 };

/* What weights of keys are kept as once they are transposed. */
static kern_format key_format(kern_format k_b, bool exact) {
  return exact || k_b == KF_F32 ? KF_F32 : k_b == KF_F16 ? KF_F16 : KF_BF16;
}

static int row_floats(const mla_dims *d) {
  return (int)lay_round_up((size_t)(d->nope + d->rope + d->dv), 16);
}

/* A thread's memory, and what it is at. */
typedef struct {
  const mla_step *s;
  kern_format key_fmt;
  kern_act key_act, value_act, key_format_act; /* the last: as weights of keys are stored */
  kern_mat keys[GROUP];                        /* [nope][lora] of the group's heads */
  const kern_mm_candidate *key_mm, *value_mm;
  char *key_data[GROUP], *narrow[2], *key_x, *value_x, *attn;
  float *latent, *wide, *block, *query, *part, *state; /* state: [GROUP][units] partial results */
  const void **kx, **vx;
  float **y;
  size_t key_x_bytes, value_x_bytes, state_floats;
  int t, n;    /* the run of tokens */
  int r0, r1;  /* its queries at work */
  int h0, n_h; /* heads */
} worker;

static void *take(uintptr_t *at, size_t bytes) {
  const uintptr_t p = *at;
  *at += lay_round_up(bytes, 64);
  return (void *)p;
}

static size_t key_bytes(const mla_dims *d, kern_format f, bool exact) {
  return kern_mat_bytes(kern_best_layout(f, kern_act_of(f, exact), d->lora), f, d->nope, d->lora);
}

/* Lays a thread's memory out from address `base` and returns where it ends: from 0, how many bytes it takes. */
static uintptr_t lay_out(worker *w, const mla_dims *d, kern_format k_b, kern_format v_b, int max_tok, bool exact,
                         uintptr_t base) {
  const size_t units = (size_t)(max_tok + ROWS - 1) / ROWS;
  uintptr_t at = base;
  w->key_fmt = key_format(k_b, exact);
  w->key_act = kern_act_of(w->key_fmt, exact), w->value_act = kern_act_of(v_b, exact);
  w->key_format_act = w->key_fmt == KF_F32 ? KA_F32 : w->key_fmt == KF_F16 ? KA_F16 : KA_BF16;
  w->key_x_bytes = kern_act_bytes(w->key_act, d->lora), w->value_x_bytes = kern_act_bytes_any(d->lora);
  w->state_floats = kern_attn_part_floats(ROWS, d->dv);
  for (int i = 0; i < GROUP; i++) w->key_data[i] = take(&at, key_bytes(d, w->key_fmt, exact));
  w->key_x = take(&at, SEGMENT * w->key_x_bytes);
  w->value_x = take(&at, SEGMENT * w->value_x_bytes);
  w->attn = take(&at, kern_attn_scratch_bytes(d->nope + d->rope, d->dv));
  w->latent = take(&at, sizeof(float) * (size_t)(d->lora + d->rope));
  w->wide = take(&at, sizeof(float) * (size_t)d->nope);
  for (int i = 0; i < 2; i++) w->narrow[i] = take(&at, kern_act_bytes(w->key_format_act, d->nope));
  w->block = take(&at, sizeof(float) * SEGMENT * (size_t)row_floats(d));
  w->query = take(&at, sizeof(float) * ROWS * (size_t)(d->nope + d->rope));
  w->part = take(&at, sizeof(float) * w->state_floats);
  w->state = take(&at, sizeof(float) * GROUP * units * w->state_floats);
  w->kx = take(&at, SEGMENT * sizeof *w->kx);
  w->vx = take(&at, SEGMENT * sizeof *w->vx);
  w->y = take(&at, SEGMENT * sizeof *w->y);
  return at;
}

size_t mla_scratch_bytes(const mla_dims *d, kern_format k_b, int max_tok, bool exact) {
  worker w;
  return (size_t)lay_out(&w, d, k_b, KF_F32, max_tok, exact, 0);
}

/* Two rows of the stored matrix become a pair of columns of the tiles (layouts.h). */
static void turn_pair(const mla_dims *d, const uint16_t *even, const uint16_t *odd, int l, char *tiles, size_t row_bytes) {
  for (int j0 = 0; j0 < d->nope; j0 += TILE_ROWS) {
    uint32_t *to = (uint32_t *)(void *)(tiles + (size_t)j0 * row_bytes + (size_t)(l / 2) * 4 * TILE_ROWS);
    const int n = d->nope - j0 < TILE_ROWS ? d->nope - j0 : TILE_ROWS;
    for (int j = 0; j < n; j++) to[j] = (uint32_t)even[j0 + j] | (uint32_t)odd[j0 + j] << 16;
  }
}

/* Transposes the weights of a head's keys: scores want them by dimension of the head, the absorbed form has them by latent. */
static void turn_keys(worker *w, int i) {
  const mla_step *s = w->s;
  const mla_dims *d = &s->d;
  kern_mat *m = &w->keys[i];
  *m = (kern_mat){.format = w->key_fmt,
                  .layout = kern_best_layout(w->key_fmt, w->key_act, d->lora),
                  .n_rows = d->nope,
                  .n_cols = d->lora,
                  .row_bytes = kern_row_bytes(w->key_fmt, d->lora),
                  .data = w->key_data[i]};
  memset(w->key_data[i], 0, kern_mat_bytes(m->layout, m->format, d->nope, d->lora));
  for (int l = 0; l < d->lora; l++) {
    char *row = w->narrow[l % 2];
    kern_mat_row(&s->k_b, (w->h0 + i) * d->lora + l, w->wide);
    kern_get()->pack[w->key_format_act](w->wide, d->nope, row);
    if (m->layout == KL_TILE16) {
      if (l % 2) turn_pair(d, (const void *)w->narrow[0], (const void *)row, l, w->key_data[i], m->row_bytes);
      continue;
    }
    const size_t elem = m->row_bytes / (size_t)d->lora;
    for (int j = 0; j < d->nope; j++)
      memcpy(w->key_data[i] + (size_t)j * m->row_bytes + (size_t)l * elem, row + (size_t)j * elem, elem);
  }
}

/* Latents of the context rows [c, c + n) as both products want them; their rotated part is every head's. */
static void pack_latents(worker *w, const kern_kv *kv, int c, int n) {
  const mla_dims *d = &w->s->d;
  for (int i = 0; i < n; i++) {
    char *kx = w->key_x + (size_t)i * w->key_x_bytes, *vx = w->value_x + (size_t)i * w->value_x_bytes;
    float *row = w->block + (size_t)i * (size_t)row_floats(d);
    kern_kv_read(kv, &(kern_kv_shape){.k = d->lora, .v = d->rope}, c + i, w->latent, w->latent + d->lora);
    kern_get()->pack[w->key_act](w->latent, d->lora, kx);
    if (w->value_act != w->key_act) kern_get()->pack[w->value_act](w->latent, d->lora, vx);
    memcpy(row + d->nope, w->latent + d->lora, (size_t)d->rope * sizeof *row);
    w->kx[i] = kx;
    w->vx[i] = w->value_act != w->key_act ? vx : kx;
  }
}

/* Keys and values of a head for the n rows of the segment. */
static void expand(worker *w, int i, int n) {
  const mla_step *s = w->s;
  const mla_dims *d = &s->d;
  const int floats = row_floats(d);
  kern_mat values = s->v_b;
  values.n_rows = d->dv;
  values.data = (const char *)s->v_b.data + (size_t)(w->h0 + i) * (size_t)d->dv * s->v_b.row_bytes;
  for (int r = 0; r < n; r++) w->y[r] = w->block + (size_t)r * (size_t)floats;
  w->key_mm->fn(&w->keys[i], 0, d->nope, n, w->kx, w->y);
  for (int r = 0; r < n; r++) w->y[r] += d->nope + d->rope;
  w->value_mm->fn(&values, 0, d->dv, n, w->vx, w->y);
}

/* The queries [r, r + n) of a head over segment g, whose rows are in the block. */
static void attend(worker *w, int i, int r, int n, int g) {
  const mla_step *s = w->s;
  const mla_dims *d = &s->d;
  const int qk = d->nope + d->rope, first = s->pos[w->t] + r, h = w->h0 + i;
  const int32_t page = 0;
  for (int k = 0; k < n; k++) {
    const size_t t = (size_t)(w->t + r + k);
    float *q = w->query + (size_t)k * (size_t)qk;
    memcpy(q, s->q + t * s->q_stride + (size_t)h * s->q_head, (size_t)d->nope * sizeof *q);
    memcpy(q + d->nope, s->q_rope + t * s->q_rope_stride + (size_t)h * s->q_rope_head, (size_t)d->rope * sizeof *q);
  }
  /* positions count from the segment's first token */
  const kern_attn a = {.kv = {.base = (const char *)w->block,
                              .page_bytes = sizeof(float) * SEGMENT * (size_t)row_floats(d),
                              .row_bytes = sizeof(float) * (size_t)row_floats(d),
                              .pages = &page,
                              .page_tokens = SEGMENT,
                              .type = KV_F32},
                       .many = true,
                       .n_heads = 1,
                       .n_kv_heads = 1,
                       .dk = qk,
                       .dv = d->dv,
                       .scale = s->scale,
                       .n_q = n,
                       .pos0 = first - g * SEGMENT,
                       .q = w->query,
                       .q_stride = (size_t)qk,
                       .out = s->out + (size_t)(w->t + r) * s->out_stride + (size_t)h * (size_t)d->dv,
                       .out_stride = s->out_stride};
  const size_t unit = (size_t)(i * ((w->r1 - w->r0 + ROWS - 1) / ROWS) + (r - w->r0) / ROWS);
  float *state = w->state + unit * w->state_floats;
  kern_get()->attn(&a, 0, 1, 0, n, 0, 1, g == 0 ? state : w->part, w->attn);
  if (g > 0) kern_get()->attn_fold(&a, 0, n, state, w->part, w->attn);
  if (first + n <= (g + 1) * SEGMENT) kern_get()->attn_merge(&a, 0, 1, 0, n, 1, state, w->attn);
}

/* The group's heads, all segments that the queries at work see. */
static void run_group(worker *w) {
  const mla_step *s = w->s;
  const int pos = s->pos[w->t], end = pos + w->r1;
  kern_kv kv = s->kv;
  kv.pages = s->page_table + (size_t)s->seq[w->t] * (size_t)s->pages_per_seq;
  for (int i = 0; i < w->n_h; i++) turn_keys(w, i);
  for (int g = 0; g * SEGMENT < end; g++) {
    const int c = g * SEGMENT, n = end - c < SEGMENT ? end - c : SEGMENT;
    pack_latents(w, &kv, c, n);
    for (int i = 0; i < w->n_h; i++) {
      expand(w, i, n);
      for (int r = w->r0; r < w->r1; r += ROWS) {
        const int rows = w->r1 - r < ROWS ? w->r1 - r : ROWS;
        if (pos + r + rows > c) attend(w, i, r, rows, g);
      }
    }
  }
}

/* Where part p of `parts` of n queries begins, in whole units: what precedes it is p / parts of all pairs, about. */
static int part_begin(int pos, int n, int p, int parts) {
  if (p >= parts) return n;
  const double all = (double)n * pos + 0.5 * n * (n + 1.0);
  int r = 0;
  while (r < n && (double)r * pos + 0.5 * r * (r + 1.0) < all * p / parts) r += ROWS;
  return r < n ? r : n;
}

static void run_tokens(worker *w, int thread, int n_threads) {
  const mla_step *s = w->s;
  const int heads = s->d.n_heads, parts = n_threads <= heads ? 1 : (n_threads + heads - 1) / heads;
  const int lo = (int)((int64_t)heads * parts * thread / n_threads),
            hi = (int)((int64_t)heads * parts * (thread + 1) / n_threads);
  for (int at = lo; at < hi; at += w->n_h) { /* item: part, then head */
    const int p = at / heads;
    w->h0 = at % heads;
    w->n_h = hi - at < GROUP ? hi - at : GROUP;
    w->n_h = heads - w->h0 < w->n_h ? heads - w->h0 : w->n_h;
    w->r0 = part_begin(s->pos[w->t], w->n, p, parts);
    w->r1 = part_begin(s->pos[w->t], w->n, p + 1, parts);
    if (w->r0 < w->r1) run_group(w);
  }
}

void mla_plain_run(const mla_step *s, int thread, int n_threads) {
  worker w = {.s = s};
  if (!s->plain) return;
  for (w.t = 0; w.t < s->n_tok; w.t += w.n) {
    w.n = attn_run_of(s->pos, s->seq, s->plain, s->n_tok, w.t);
    if (!s->plain[w.t]) continue;
    if (!w.key_mm) {
      lay_out(&w, &s->d, s->k_b.format, s->v_b.format, s->n_tok, s->exact,
              (uintptr_t)(s->scratch + (size_t)thread * s->scratch_bytes));
      const kern_layout layout = kern_best_layout(w.key_fmt, w.key_act, s->d.lora);
      w.key_mm =
          kern_mm_pick(w.key_fmt, w.key_act, layout, s->d.lora, SEGMENT, kern_preferred(KERN_USE_MATMUL, w.key_fmt, SEGMENT));
      w.value_mm = kern_mm_pick(s->v_b.format, w.value_act, s->v_b.layout, s->d.lora, SEGMENT,
                                kern_preferred(KERN_USE_MATMUL, s->v_b.format, SEGMENT));
    }
    run_tokens(&w, thread, n_threads);
  }
}
