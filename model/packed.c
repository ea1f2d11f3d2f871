/* packed.c: checkpoints that keep the scales of their weights in tensors of their own: FP8 of DeepSeek, INT4 of compressed-tensors, MXFP4 of
 * gpt-oss. The two with blocks of 32 become blocks as GGUF has them, scale first, byte j holding elements j and j + 16. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/internal.h"

enum { FP8_BLOCK = 128, GROUP = 32, GROUP_BYTES = 16 };

/* Sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinities, all ones is no number. */
static float e4m3(uint8_t b) {
  int e = b >> 3 & 15, m = b & 7;
  float v = e == 15 && m == 7 ? NAN : e ? ldexpf((float)(8 + m), e - 10) : ldexpf((float)m, -9);
  return b & 0x80 ? -v : v;
}

/* Stored rows [row0, row1) of one FP8 matrix, each value times its block's scale. */
static hf_status fp8_rows(const model *m, int file, uint64_t offset, const raw_tensor *scale, int64_t row0, int64_t row1,
                          int64_t cols, float *dst) {
  uint8_t *row = NULL;
  float *s = NULL, value[256];
  size_t per = (size_t)scale->dims[1];
  for (int b = 0; b < 256; b++) value[b] = e4m3((uint8_t)b);
  hf_status st = hf_alloc(&row, (size_t)cols, 1, "fp8 row");
  if (st == HF_OK) st = hf_alloc(&s, (size_t)scale->dims[0] * per, sizeof *s, "fp8 scales");
  if (st == HF_OK) st = model_read_at(m, scale->file, scale->offset, s, (size_t)scale->dims[0] * per * sizeof *s);
  for (int64_t r = row0; r < row1 && st == HF_OK; r++) {
    st = model_read_at(m, file, offset + (uint64_t)r * (uint64_t)cols, row, (size_t)cols);
    for (int64_t c = 0; c < cols && st == HF_OK; c++)
      dst[(r - row0) * cols + c] = value[row[c]] * s[(size_t)(r / FP8_BLOCK) * per + (size_t)(c / FP8_BLOCK)];
  }
  free(row);
  free(s);
  return st;
}

/* kv_b_proj, rows of a head: nope, then v. K wants a head's nope rows transposed, V its last rows. */
static hf_status fp8_kv_b(const model *m, const tensor_slot *s, model_tensor_id id, const raw_tensor *scale, float *dst) {
  const model_config *c = &m->c;
  int64_t lora = c->kv_lora_rank, per = c->nope_dim + c->v_dim, rows = per * c->n_heads;
  float *all = NULL;
  HF_TRY(hf_alloc(&all, (size_t)(rows * lora), sizeof *all, "kv_b"));
  hf_status st = fp8_rows(m, s->file, s->offset, scale, 0, rows, lora, all);
  for (int64_t h = 0; h < c->n_heads && st == HF_OK; h++) {
    const float *head = all + h * per * lora;
    if (id == MT_V_B) {
      memcpy(dst + h * c->v_dim * lora, head + c->nope_dim * lora, (size_t)(c->v_dim * lora) * sizeof *dst);
      continue;
    }
    for (int64_t k = 0; k < lora; k++)
      for (int64_t r = 0; r < c->nope_dim; r++) dst[(h * lora + k) * c->nope_dim + r] = head[r * lora + k];
  }
  free(all);
  return st;
}

static hf_status companion(const model *m, model_tensor_id id, int layer, int expert, const char *suffix,
                           const raw_tensor **out) {
  char name[NAME_MAX_BYTES];
  hf_tensor_name(&m->c, id, layer, expert, suffix, name);
  *out = tset_find(&m->set, name);
  return *out ? HF_OK : bind_absent(m, name);
}

hf_status fp8_read(const model *m, const tensor_slot *s, model_tensor_id id, int layer, int expert, float *dst) {
  const raw_tensor *scale;
  int file;
  uint64_t offset;
  HF_TRY(companion(m, id, layer, expert, "_scale_inv", &scale));
  if (id == MT_K_B || id == MT_V_B) return fp8_kv_b(m, s, id, scale, dst);
  slot_place(s, expert, &file, &offset);
  return fp8_rows(m, file, offset, scale, 0, s->rows, s->cols, dst);
}

hf_status fp8_read_rows(const model *m, const tensor_slot *s, model_tensor_id id, int layer, int expert, int64_t row0,
                        int64_t row1, float *dst) {
  const raw_tensor *scale;
  int file;
  uint64_t offset;
  HF_TRY(companion(m, id, layer, expert, "_scale_inv", &scale));
  slot_place(s, expert, &file, &offset);
  return fp8_rows(m, file, offset, scale, row0, row1, s->cols, dst);
}

/* Nibble i of the four bytes at p to byte i. */
static uint64_t spread(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  uint64_t x = v;
  x = (x | x << 16) & 0x0000ffff0000ffffu;
  x = (x | x << 8) & 0x00ff00ff00ff00ffu;
  return (x | x << 4) & 0x0f0f0f0f0f0f0f0fu;
}

/* Consecutive nibbles, low first, to byte j = elements j and j + 16. */
static void pair_nibbles(const uint8_t *in, uint8_t *out) {
  for (int k = 0; k < GROUP_BYTES / 8; k++) {
    uint64_t both = spread(in + 4 * k) | spread(in + GROUP_BYTES / 2 + 4 * k) << 4;
    memcpy(out + 8 * k, &both, sizeof both);
  }
}

/* Rows of `groups` blocks: 16 bytes of nibbles at nibbles + row * step.., scales of `scale_bytes` in order. */
static void join(const uint8_t *nibbles, const uint8_t *scales, size_t scale_bytes, int64_t rows, int64_t groups, int64_t first,
                 int64_t step, uint8_t *dst) {
  for (int64_t r = 0; r < rows; r++) {
    int64_t at = (r * step + first) * groups;
    for (int64_t g = 0; g < groups; g++) {
      memcpy(dst, scales + (size_t)(at + g) * scale_bytes, scale_bytes);
      pair_nibbles(nibbles + (size_t)(at + g) * GROUP_BYTES, dst + scale_bytes);
      dst += scale_bytes + GROUP_BYTES;
    }
  }
}

hf_status packed_read(const model *m, const tensor_slot *s, model_tensor_id id, int layer, int expert, uint8_t *dst) {
  bool int4 = s->how == READ_INT4;
  int64_t groups = s->cols / GROUP, step = int4 ? 1 : s->step, stored = s->rows * step * groups;
  size_t scale_bytes = int4 ? 2 : 1, n_scales = (size_t)stored * scale_bytes, n = (size_t)stored * GROUP_BYTES;
  uint8_t *raw = NULL;
  int file, scale_file = s->scale_file;
  uint64_t offset, scale_offset = s->scale_offset + (expert > 0 ? (uint64_t)expert * n_scales : 0);
  slot_place(s, expert, &file, &offset);
  if (int4) {
    const raw_tensor *scale;
    HF_TRY(companion(m, id, layer, expert, "_scale", &scale));
    scale_file = scale->file, scale_offset = scale->offset;
  }
  HF_TRY(hf_alloc(&raw, 1, n + n_scales, "packed weights"));
  hf_status st = model_read_at(m, file, offset, raw, n);
  if (st == HF_OK) st = model_read_at(m, scale_file, scale_offset, raw + n, n_scales);
  if (st == HF_OK) join(raw, raw + n, scale_bytes, s->rows, groups, int4 ? 0 : s->first, step, dst);
  free(raw);
  return st;
}

void int4_row(const uint8_t *row, int64_t n, float *out) {
  for (int64_t g = 0; g < n / GROUP; g++, row += 2 + GROUP_BYTES, out += GROUP) {
    uint16_t h;
    memcpy(&h, row, sizeof h);
    float d = bf16_to_f32(h);
    for (int j = 0; j < GROUP_BYTES; j++) {
      out[j] = d * (float)((row[2 + j] & 15) - 8);
      out[j + GROUP_BYTES] = d * (float)((row[2 + j] >> 4) - 8);
    }
  }
}

/* E2M1: sign, two bits of exponent, one of mantissa; the scale is a power of two with bias 127. */
void mxfp4_row(const uint8_t *row, int64_t n, float *out) {
  static const float value[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};
  for (int64_t g = 0; g < n / GROUP; g++, row += 1 + GROUP_BYTES, out += GROUP) {
    float d = row[0] == 255 ? NAN : ldexpf(1, row[0] - 127);
    for (int j = 0; j < GROUP_BYTES; j++) {
      out[j] = d * value[row[1 + j] & 15];
      out[j + GROUP_BYTES] = d * value[row[1 + j] >> 4];
    }
  }
}
