#include "profiler/rings.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

/* Twice the last-level cache is not enough: a cache that keeps some of a ring larger than itself made products look a fifth
 * faster than memory is. */
enum { STREAM_LEAST = 128 << 20, L3_TIMES = 4, RESIDENT_BYTES = 4 << 20 };

const kern_format ring_formats[KF_N] = {
    KF_Q8_0,  KF_BF16,  KF_Q4_K,  KF_Q6_K,  KF_Q4_0,    KF_F16,   KF_F32, /* the rest for models that have them */
    KF_MXFP4, KF_Q5_K,  KF_INT4,  KF_FP8,   KF_IQ4_XS,  KF_Q3_K,  KF_Q2_K,   KF_IQ4_NL,  KF_Q5_0,  KF_Q5_1, KF_Q4_1,
    KF_NVFP4, KF_TQ1_0, KF_TQ2_0, KF_IQ3_S, KF_IQ3_XXS, KF_IQ2_S, KF_IQ2_XS, KF_IQ2_XXS, KF_IQ1_M, KF_IQ1_S};
enum { USUAL_FORMATS = 7 };

bool ring_wanted(const profile *p, const prof_shape *s, int i) {
  if (s->large && p->o.quick) return false;
  return s->only_format >= 0 ? s->only_format == (int)ring_formats[i] : i < USUAL_FORMATS;
}

size_t ring_matrix_bytes(kern_format f, int rows, int cols) {
  size_t most = 0;
  for (int l = 0; l < KL_N; l++) {
    size_t bytes = kern_mat_bytes((kern_layout)l, f, rows, cols);
    most = bytes > most ? bytes : most;
  }
  return (most + 63) & ~(size_t)63;
}

/* Rows to tiles where they lie, a tile at a time. */
static hf_status tile_in_place(kern_mat *m) {
  enum { TILE = 16 };
  char *tile, *data = (char *)(uintptr_t)m->data;
  HF_TRY(hf_alloc(&tile, TILE, m->row_bytes, "a tile"));
  for (int r = 0; r < m->n_rows; r += TILE) {
    kern_mat some = *m;
    some.data = data + (size_t)r * m->row_bytes;
    some.n_rows = m->n_rows - r < TILE ? m->n_rows - r : TILE;
    kern_tile_pack(&some, 0, some.n_rows, tile);
    memcpy(data + (size_t)r * m->row_bytes, tile, TILE * m->row_bytes);
  }
  free(tile);
  m->layout = KL_TILE16;
  return HF_OK;
}

hf_status ring_fill(kern_layout l, kern_mat *m) {
  m->layout = KL_ROWS;
  prof_random_weights(m->format, m->n_cols, m->n_rows, (char *)(uintptr_t)m->data);
  return l == KL_TILE16 ? tile_in_place(m) : HF_OK;
}

int ring_items(const profile *p, const prof_shape *s, int64_t item_bytes, int most) {
  int64_t wanted = L3_TIMES * p->topo->l3_bytes, memory = 0;
  if (wanted < STREAM_LEAST) wanted = STREAM_LEAST;
  /* a model that fits the cache is a few megabytes */
  if (s->resident)
    wanted = p->topo->l3_bytes > 0 && p->topo->l3_bytes / 2 < RESIDENT_BYTES ? p->topo->l3_bytes / 2 : RESIDENT_BYTES;
  for (int i = 0; i < p->topo->n_nodes; i++) memory += p->topo->node[i].mem_bytes;
  int64_t n = (wanted + item_bytes - 1) / item_bytes;
  if (n > most) n = most;
  if (memory > 0 && n * item_bytes > memory / 4) n = memory / 4 / item_bytes;
  return n < 1 ? 1 : (int)n;
}
