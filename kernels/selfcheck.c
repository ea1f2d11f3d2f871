/* selfcheck.c: at start-up each function of the global table meets the reference once on random data, so that a miscompiled or
 * misdetected variant is refused before it computes anything that someone reads. Small shapes with odd tails: a few ms. */
#include <math.h>
#include <string.h>

#include "kernels/mem/topology.h"
#include "kernels/ref/ref.h"
#include "kernels/selfcheck.h"

enum {
  COLS = 352,
  BLOCK_COLS = 512,
  MOST_COLS = 512,
  ROWS = 11,
  TOKENS = 5,
  VEC = 333,
  LORA = 72,
  ROPE = 24,
  HEADS = 5,
  CTX = 85,
  PAGE = 32
};

typedef struct {
  uint64_t random;
  float x[TOKENS][MOST_COLS], w[ROWS][MOST_COLS];
  float got[TOKENS][ROWS], want[TOKENS][ROWS];
  _Alignas(64) char packed[TOKENS][2048];
  _Alignas(64) char expected[2048];
  char rows[ROWS][MOST_COLS * 4];
  char tiles[16 * MOST_COLS * 2];
  char kv[3 * PAGE * (LORA + ROPE) * 4];
  float out[HEADS * LORA], ref[HEADS * LORA];
  void *attn; /* scratch of the attention */
} scratch;

static float next_random(scratch *s) {
  s->random = s->random * 6364136223846793005u + 1442695040888963407u;
  return (float)(int32_t)(s->random >> 32) * 0x1p-31f;
}

static hf_status differs(const char *what) {
  return hf_fail(HF_MACHINE, "self-check: %s under %s differs from the reference; run with HF_ISA=scalar and report it", what,
                 kern_get()->isa_name);
}

static bool close_enough(const float *a, const float *b, int n, float tolerance) {
  for (int i = 0; i < n; i++) {
    if (!(fabsf(a[i] - b[i]) <= tolerance * (1.0f + fabsf(b[i])))) return false;
  }
  return true;
}

static hf_status check_pack(scratch *s, const kern_table *ref) {
  for (int a = 0; a < KA_N; a++) {
    kern_get()->pack[a](s->x[0], VEC, s->packed[0]);
    ref->pack[a](s->x[0], VEC, s->expected);
    if (memcmp(s->packed[0], s->expected, kern_act_bytes((kern_act)a, VEC)) != 0) return differs(kern_act_name((kern_act)a));
  }
  return HF_OK;
}

/* only: this candidate, else all that are taken by themselves. */
static hf_status check_mm(scratch *s, const kern_table *ref, kern_format f, kern_act a, const kern_mm_candidate *only) {
  const kern_mm_candidate *all[16];
  const void *x[TOKENS];
  float *got[TOKENS], *want[TOKENS];
  int n = kern_mm_candidates(kern_get()->isa, f, a, all, 16);
  n = n < 16 ? n : 16;
  const int cols = kern_block(f) > COLS / 2 ? BLOCK_COLS : COLS / kern_block(f) * kern_block(f);
  for (int t = 0; t < TOKENS; t++) {
    ref->pack[a](s->x[t], cols, s->packed[t]);
    x[t] = s->packed[t];
    got[t] = s->got[t];
    want[t] = s->want[t];
  }
  for (int r = 0; r < ROWS; r++) kern_random_row(f, (uint64_t)r, 1.0f, cols, s->rows[r]);
  kern_mat m = {f, KL_ROWS, ROWS, cols, sizeof s->rows[0], s->rows};
  kern_mm_candidate reference = *all[n - 1];
  reference.fn(&m, 0, ROWS, TOKENS, x, want);
  kern_mat tiled = {f, KL_TILE16, ROWS, cols, kern_row_bytes(f, cols), s->tiles};
  if (all[0]->layout == KL_TILE16) kern_tile_pack(&m, 0, ROWS, s->tiles);
  for (int i = 0; i < n - 1; i++) {
    if (cols % all[i]->col_multiple != 0 || (only ? all[i] != only : all[i]->library)) continue;
    all[i]->fn(all[i]->layout == KL_TILE16 ? &tiled : &m, 0, ROWS, TOKENS, x, got);
    if (!close_enough(s->got[0], s->want[0], TOKENS * ROWS, all[i]->rounded ? 0.08f : 1e-4f)) return differs(all[i]->name);
  }
  return HF_OK;
}

static hf_status check_vec(scratch *s, const kern_table *ref) {
  const kern_table *k = kern_get();
  k->rmsnorm(s->x[0], s->x[1], 1e-6f, VEC, s->out);
  ref->rmsnorm(s->x[0], s->x[1], 1e-6f, VEC, s->ref);
  if (!close_enough(s->out, s->ref, VEC, 1e-5f)) return differs("rmsnorm");
  k->swiglu(s->x[0], s->x[1], VEC, s->out);
  ref->swiglu(s->x[0], s->x[1], VEC, s->ref);
  if (!close_enough(s->out, s->ref, VEC, 1e-6f)) return differs("swiglu");
  k->swiglu_clamped(s->x[0], s->x[1], 0.5f, VEC, s->out);
  ref->swiglu_clamped(s->x[0], s->x[1], 0.5f, VEC, s->ref);
  if (!close_enough(s->out, s->ref, VEC, 1e-6f)) return differs("swiglu_clamped");
  k->axpy(0.75f, s->x[2], VEC, s->out);
  ref->axpy(0.75f, s->x[2], VEC, s->ref);
  if (!close_enough(s->out, s->ref, VEC, 1e-5f)) return differs("axpy");
  float a = k->dot(s->x[0], s->x[1], VEC), b = ref->dot(s->x[0], s->x[1], VEC);
  return close_enough(&a, &b, 1, 1e-4f) ? HF_OK : differs("dot");
}

static hf_status check_kv(scratch *s, const kern_table *ref, kern_kv_type type) {
  const kern_table *k = kern_get();
  const size_t row = (LORA + ROPE) * (type == KV_F32 ? 4 : 2);
  if (type == KV_Q8_0) {
    k->kv_unpack((const int8_t *)s->x[1], s->x[2], LORA + ROPE, s->out);
    ref->kv_unpack((const int8_t *)s->x[1], s->x[2], LORA + ROPE, s->ref);
    return memcmp(s->out, s->ref, (LORA + ROPE) * sizeof(float)) == 0 ? HF_OK : differs("kv_unpack");
  }
  k->kv_store(type, s->x[1], LORA + ROPE, s->packed[0]);
  ref->kv_store(type, s->x[1], LORA + ROPE, s->expected);
  if (memcmp(s->packed[0], s->expected, row) != 0) return differs("kv_store");
  k->kv_load(type, s->expected, LORA + ROPE, s->out);
  ref->kv_load(type, s->expected, LORA + ROPE, s->ref);
  return memcmp(s->out, s->ref, (LORA + ROPE) * sizeof(float)) == 0 ? HF_OK : differs("kv_load");
}

static hf_status check_attn(scratch *s, const kern_table *ref, kern_kv_type type) {
  enum { HD = (LORA + ROPE) / 2, Q = 2, PER = 2 };
  const kern_table *k = kern_get();
  static const int32_t pages[] = {2, 0, 1};
  const kern_kv_shape latent = {.k = LORA, .v = ROPE}, head = {.n_heads = 1, .k = HD, .v = HD};
  kern_kv kv = {.base = s->kv, .pages = pages, .page_tokens = PAGE, .type = type};
  const float *q = &s->w[0][0];
  HF_TRY(check_kv(s, ref, type));
  kv.row_bytes = kern_kv_row_bytes(type, &latent), kv.page_bytes = kv.row_bytes * PAGE;
  for (int i = 0; i < 3 * PAGE; i++) kern_kv_write(&kv, &latent, i, s->x[i % TOKENS] + i, s->x[i % TOKENS] + i + LORA);
  kern_attn a = {.kv = kv,
                 .mla = true,
                 .n_heads = HEADS,
                 .n_kv_heads = 1,
                 .dk = LORA + ROPE,
                 .dv = LORA,
                 .scale = 0.3f,
                 .n_q = 1,
                 .pos0 = CTX - 1,
                 .q = q,
                 .out = s->out};
  k->attn(&a, 0, 1, 0, HEADS, 0, 1, NULL, s->attn);
  a.out = s->ref;
  ref->attn(&a, 0, 1, 0, HEADS, 0, 1, NULL, s->attn);
  if (!close_enough(s->out, s->ref, HEADS * LORA, 1e-4f)) return differs("attn, MLA");
  kv.row_bytes = kern_kv_row_bytes(type, &head), kv.page_bytes = kv.row_bytes * PAGE;
  for (int i = 0; i < 3 * PAGE; i++) kern_kv_write(&kv, &head, i, s->x[i % TOKENS] + i, s->x[i % TOKENS] + i + HD);
  a.mla = false, a.n_heads = PER, a.n_q = Q, a.pos0 = CTX - Q, a.window = 20, a.sinks = s->x[3], a.dk = a.dv = HD;
  a.kv = kv, a.q_stride = a.out_stride = PER * HD;
  ref->attn(&a, 0, 1, 0, Q * PER, 0, 1, NULL, s->attn);
  a.out = s->out;
  k->attn(&a, 0, 1, 0, Q * PER, 0, 1, NULL, s->attn);
  return close_enough(s->out, s->ref, Q * PER * HD, 1e-4f) ? HF_OK : differs("attn, GQA");
}

static hf_status check_all(scratch *s, const kern_mm_candidate *only) {
  kern_table ref;
  HF_TRY(kern_table_for(KERN_ISA_SCALAR, &ref));
  float *x = &s->x[0][0], *w = &s->w[0][0];
  for (int i = 0; i < TOKENS * MOST_COLS; i++) x[i] = next_random(s);
  for (int i = 0; i < ROWS * MOST_COLS; i++) w[i] = next_random(s);
  if (only) return check_mm(s, &ref, only->format, only->act, only);
  HF_TRY(check_pack(s, &ref));
  for (int f = 0; f < KF_N; f++) {
    HF_TRY(check_mm(s, &ref, (kern_format)f, kern_act_of((kern_format)f, false), NULL));
    if (f != KF_F32) HF_TRY(check_mm(s, &ref, (kern_format)f, KA_F32, NULL));
  }
  HF_TRY(check_vec(s, &ref));
  for (int t = 0; t < KV_N; t++) HF_TRY(check_attn(s, &ref, (kern_kv_type)t));
  return HF_OK;
}

static hf_status check(const kern_mm_candidate *only) {
  void *p = NULL, *attn = NULL;
  const size_t attn_bytes = kern_attn_scratch_bytes(LORA + ROPE, LORA);
  HF_TRY(mem_alloc(sizeof(scratch), -1, "self-check", &p));
  scratch *s = p;
  hf_status st = mem_alloc(attn_bytes, -1, "self-check", &attn);
  s->random = 1;
  s->attn = attn;
  if (st == HF_OK) st = check_all(s, only);
  mem_free(attn, attn_bytes, -1);
  mem_free(p, sizeof(scratch), -1);
  return st;
}

hf_status kern_self_check(void) {
  return check(NULL);
}

hf_status selfcheck_candidate(const kern_mm_candidate *c) {
  return check(c);
}
