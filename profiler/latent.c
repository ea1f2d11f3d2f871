/* latent.c: latent attention of prompts in its plain form (kernels/mla.h): pieces at the beginning of a sequence, all heads, on the workers as the
 * executor has them. Two lengths, so that what grows with the context (keys and values are expanded) and what grows with pairs can be told
 * apart; and a piece further on, as chunks of a prompt are, whose context was written long ago. A point's ns is for the whole piece; act says how many
 * heads. */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "kernels/mla.h"
#include "profiler/profile.h"
#include "profiler/rings.h"

enum { PAGE = 64, MOST = 512 };
static const struct { int start, tokens; } pieces[] = {{0, 128}, {0, MOST}, {MOST - 128, 128}};

typedef struct {
  pool *p;
  mla_step s;
  int32_t pos[MOST], seq[MOST], pages[MOST / PAGE];
  uint8_t plain[MOST];
} bench;

static void attend(void *arg, int thread, int n_threads) {
  const bench *b = arg;
  mla_plain_run(&b->s, thread, n_threads);
}

static double sample(void *user) {
  bench *b = user;
  int64_t t0 = hf_now_ns();
  pool_run(b->p, attend, b);
  return (double)(hf_now_ns() - t0);
}

static kern_mat matrix(kern_format f, int rows, int cols, void *data) {
  if (cols % kern_block(f)) f = KF_F16; /* what blocks do not fit into */
  return (kern_mat){f, KL_ROWS, rows, cols, kern_row_bytes(f, cols), data};
}

static hf_status points(profile *p, bench *b, const prof_attn *a) {
  for (int i = 0; i < p->n_pools; i++) {
    b->p = p->pools[i];
    for (size_t k = 0; k < sizeof pieces / sizeof *pieces; k++) {
      const int n = pieces[k].tokens, end = pieces[k].start + n;
      b->s.n_tok = n;
      for (int t = 0; t < n; t++) b->pos[t] = pieces[k].start + t;
      stats ns = prof_time(p, sample, b);
      rec_kernel_point at = {.n_out = a->n_out,
                             .n_in = a->n_in,
                             .tokens = n,
                             .context = end,
                             .threads = pool_threads(b->p),
                             .bytes = end * (int64_t)b->s.kv.row_bytes};
      snprintf(at.kernel, sizeof at.kernel, "prompt_plain");
      snprintf(at.candidate, sizeof at.candidate, "%s", kern_get()->isa_name);
      snprintf(at.format, sizeof at.format, "f16");
      snprintf(at.act, sizeof at.act, "h%d", a->heads);
      HF_TRY(prof_add_point(p, &at, &ns));
    }
  }
  return HF_OK;
}

hf_status prof_latent(profile *p, const prof_attn *a) {
  const mla_dims d = {.n_heads = a->heads, .lora = a->n_out, .nope = a->nope, .rope = a->n_in, .dv = a->v};
  const size_t q = (size_t)a->heads * (size_t)(d.nope + d.rope), out = (size_t)a->heads * (size_t)d.dv;
  const size_t row = (size_t)(d.lora + d.rope) * 2;
  const size_t keys = ring_matrix_bytes(KF_F32, a->heads * d.lora, d.nope),
               values = ring_matrix_bytes(KF_F32, a->heads * d.dv, d.lora);
  const int threads = pool_threads(p->pools[0]);
  const kern_format f = (kern_format)a->format;
  bench *b = NULL;
  float *floats = NULL;
  void *weights = NULL, *kv = NULL, *scratch = NULL;
  size_t scratch_bytes = 0;
  hf_status st;
  HF_TRY(hf_alloc(&b, 1, sizeof *b, "latent attention"));
  HF_GO(out, hf_alloc(&floats, MOST * (q + out) + (size_t)(d.lora + d.rope), sizeof *floats, "queries"));
  HF_GO(out, mem_alloc(keys + values, -1, "weights", &weights));
  HF_GO(out, mem_alloc(MOST * row, -1, "KV cache", &kv));
  b->s = (mla_step){.d = d,
                    .kv = {.base = kv, .page_bytes = row * PAGE, .row_bytes = row, .page_tokens = PAGE, .type = KV_F16},
                    .k_b = matrix(f, a->heads * d.lora, d.nope, weights),
                    .v_b = matrix(f, a->heads * d.dv, d.lora, (char *)weights + keys),
                    .scale = 0.05f,
                    .pos = b->pos,
                    .seq = b->seq,
                    .plain = b->plain,
                    .page_table = b->pages,
                    .pages_per_seq = MOST / PAGE,
                    .q = floats,
                    .q_stride = q,
                    .q_head = (size_t)(d.nope + d.rope),
                    .q_rope = floats + d.nope,
                    .q_rope_stride = q,
                    .q_rope_head = (size_t)(d.nope + d.rope),
                    .out = floats + MOST * q,
                    .out_stride = out};
  b->s.scratch_bytes = mla_scratch_bytes(&d, b->s.k_b.format, MOST, false);
  scratch_bytes = (size_t)threads * b->s.scratch_bytes;
  HF_GO(out, mem_alloc(scratch_bytes, -1, "scratch of the attention", &scratch));
  b->s.scratch = scratch;
  HF_GO(out, ring_fill(kern_best_layout(b->s.k_b.format, kern_act_of(b->s.k_b.format, false), d.nope), &b->s.k_b));
  HF_GO(out, ring_fill(kern_best_layout(b->s.v_b.format, kern_act_of(b->s.v_b.format, false), d.lora), &b->s.v_b));
  prof_random(floats, (int)(MOST * q), 51);
  for (int i = 0; i < MOST; i++) {
    float *latent = floats + MOST * (q + out);
    prof_random(latent, d.lora + d.rope, (uint64_t)i + 61);
    kern_get()->kv_store(KV_F16, latent, d.lora + d.rope, (char *)kv + (size_t)i * row);
    b->plain[i] = 1, b->pages[i / PAGE] = i / PAGE;
  }
  st = points(p, b, a);
out:
  mem_free(weights, keys + values, -1);
  mem_free(kv, MOST * row, -1);
  mem_free(scratch, scratch_bytes, -1);
  free(floats);
  free(b);
  return st;
}
