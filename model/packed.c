/* packed.c: checkpoints that keep the scales of their weights in tensors of their own: FP8 of DeepSeek, INT4 of compressed-tensors, MXFP4 of
 * gpt-oss. The two with blocks of 32 become blocks as GGUF has them, scale first, byte j holding elements j and j + 16; rows of FP8 become blocks of
 * 128 with the f32 scale first, the last of a row shorter. */
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

static hf_status companion(const model *m, model_tensor_id id, int layer, int expert, const char *suffix,
                           const raw_tensor **out) {
  char name[NAME_MAX_BYTES];
  hf_tensor_name(&m->c, id, layer, expert, suffix, name);
  *out = tset_find(&m->set, name);
  return *out ? HF_OK : bind_absent(m, name);
}

/* Stored row r, which is at `row`, as blocks: each with its scale before it. scales: one per 128 x 128 block, `per` of them in a row. */
static uint8_t *fp8_join(const uint8_t *row, const float *scales, size_t per, int64_t r, int64_t cols, uint8_t *dst) {
  for (int64_t c = 0; c < cols; c += FP8_BLOCK) {
    size_t some = (size_t)(cols - c < FP8_BLOCK ? cols - c : FP8_BLOCK);
    memcpy(dst, scales + (size_t)(r / FP8_BLOCK) * per + (size_t)(c / FP8_BLOCK), sizeof *scales);
    memcpy(dst + sizeof *scales, row + c, some);
    dst += sizeof *scales + some;
  }
  return dst;
}

/* Stored rows [row0, row0 + n) of an FP8 matrix as blocks, read in pieces. */
static hf_status fp8_blocks(const model *m, int file, uint64_t offset, const float *scales, size_t per, int64_t row0, int64_t n,
                            int64_t cols, uint8_t *dst) {
  enum { PIECE = 1 << 18 };
  int64_t at_once = PIECE / cols < 1 ? 1 : PIECE / cols < n ? PIECE / cols : n;
  uint8_t *raw = NULL;
  hf_status st = hf_alloc(&raw, (size_t)at_once, (size_t)cols, "fp8 rows");
  for (int64_t r = row0, some; r < row0 + n && st == HF_OK; r += some) {
    some = row0 + n - r < at_once ? row0 + n - r : at_once;
    st = model_read_at(m, file, offset + (uint64_t)(r * cols), raw, (size_t)(some * cols));
    for (int64_t i = 0; i < some && st == HF_OK; i++) dst = fp8_join(raw + i * cols, scales, per, r + i, cols, dst);
  }
  free(raw);
  return st;
}

static hf_status fp8_scales(const model *m, const raw_tensor *t, float **out) {
  size_t n = (size_t)t->dims[0] * (size_t)t->dims[1];
  HF_TRY(hf_alloc(out, n, sizeof **out, "fp8 scales"));
  return model_read_at(m, t->file, t->offset, *out, n * sizeof **out);
}

void fp8_row(const uint8_t *row, int64_t n, float *out) {
  for (int64_t c = 0; c < n; c += FP8_BLOCK) {
    float scale;
    memcpy(&scale, row, sizeof scale);
    row += sizeof scale;
    for (int64_t i = 0; i < FP8_BLOCK && c + i < n; i++) out[c + i] = e4m3(*row++) * scale;
  }
}

/* The first rows of each head of kv_b_proj, which K wants transposed. */
static hf_status fp8_k_b(const model *m, const tensor_slot *s, const float *scales, size_t per, float *dst) {
  const model_config *c = &m->c;
  int64_t lora = c->kv_lora_rank, head = c->nope_dim + c->v_dim;
  size_t bytes = fmt_loaded_row_bytes(FMT_FP8_E4M3, lora);
  uint8_t *raw = NULL;
  float *row = NULL;
  hf_status st = hf_alloc(&raw, (size_t)c->nope_dim, bytes, "kv_b head");
  if (st == HF_OK) st = hf_alloc(&row, (size_t)lora, sizeof *row, "kv_b row");
  for (int64_t h = 0; h < c->n_heads && st == HF_OK; h++) {
    st = fp8_blocks(m, s->file, s->offset, scales, per, h * head, c->nope_dim, lora, raw);
    for (int64_t r = 0; r < c->nope_dim && st == HF_OK; r++) {
      fp8_row(raw + (size_t)r * bytes, lora, row);
      for (int64_t k = 0; k < lora; k++) dst[(h * lora + k) * c->nope_dim + r] = row[k];
    }
  }
  free(raw);
  free(row);
  return st;
}

/* The last rows of each head of kv_b_proj. */
static hf_status fp8_v_b(const model *m, const tensor_slot *s, const float *scales, size_t per, uint8_t *dst) {
  const model_config *c = &m->c;
  int64_t head = c->nope_dim + c->v_dim;
  size_t bytes = (size_t)c->v_dim * fmt_loaded_row_bytes(FMT_FP8_E4M3, c->kv_lora_rank);
  for (int64_t h = 0; h < c->n_heads; h++)
    HF_TRY(fp8_blocks(m, s->file, s->offset, scales, per, h * head + c->nope_dim, c->v_dim, c->kv_lora_rank,
                      dst + (size_t)h * bytes));
  return HF_OK;
}

hf_status fp8_read(const model *m, const tensor_slot *s, model_tensor_id id, int layer, int expert, uint8_t *dst) {
  const raw_tensor *t;
  float *scales = NULL;
  int file;
  uint64_t offset;
  HF_TRY(companion(m, id, layer, expert, "_scale_inv", &t));
  slot_place(s, expert, &file, &offset);
  hf_status st = fp8_scales(m, t, &scales);
  if (st == HF_OK && id == MT_V_B) st = fp8_v_b(m, s, scales, (size_t)t->dims[1], dst);
  else if (st == HF_OK) st = fp8_blocks(m, file, offset, scales, (size_t)t->dims[1], 0, s->rows, s->cols, dst);
  free(scales);
  return st;
}

hf_status fp8_read_k_b(const model *m, const tensor_slot *s, int layer, float *dst) {
  const raw_tensor *t;
  float *scales = NULL;
  HF_TRY(companion(m, MT_K_B, layer, -1, "_scale_inv", &t));
  hf_status st = fp8_scales(m, t, &scales);
  if (st == HF_OK) st = fp8_k_b(m, s, scales, (size_t)t->dims[1], dst);
  free(scales);
  return st;
}

hf_status fp8_read_rows(const model *m, const tensor_slot *s, model_tensor_id id, int layer, int expert, int64_t row0,
                        int64_t row1, float *dst) {
  const raw_tensor *t;
  float *scales = NULL;
  uint8_t *raw = NULL;
  int file;
  uint64_t offset;
  size_t bytes = fmt_loaded_row_bytes(FMT_FP8_E4M3, s->cols);
  HF_TRY(companion(m, id, layer, expert, "_scale_inv", &t));
  slot_place(s, expert, &file, &offset);
  hf_status st = fp8_scales(m, t, &scales);
  if (st == HF_OK) st = hf_alloc(&raw, (size_t)(row1 - row0), bytes, "fp8 rows");
  if (st == HF_OK) st = fp8_blocks(m, file, offset, scales, (size_t)t->dims[1], row0, row1 - row0, s->cols, raw);
  for (int64_t r = 0; r < row1 - row0 && st == HF_OK; r++) fp8_row(raw + (size_t)r * bytes, s->cols, dst + r * s->cols);
  free(raw);
  free(scales);
  return st;
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
