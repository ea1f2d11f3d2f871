/* tensor.c: look-up, mapping and reading of canonical tensors. Reading goes through pread, so that a file that shrank while
 * open gives an error, not a signal. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "model/internal.h"
#include "model/synth.h"

bool model_has_tensor(const model *m, model_tensor_id id, int layer) {
  return m->source != SRC_NONE && (unsigned)id < MT_N && layer >= -1 && layer < m->c.n_layers &&
         model_slot(m, id, layer)->present;
}

static hf_status look_up(const model *m, model_tensor_id id, int layer, int expert, const tensor_slot **out) {
  if (!model_has_tensor(m, id, layer)) {
    int64_t r, k;
    if (m->source == SRC_NONE && tensor_shape(&m->c, id, layer, &r, &k))
      return hf_fail(HF_NOT_FOUND, "%s: no weights here: %s", m->path, m->missing ? m->missing : "only a config was given");
    return hf_fail(HF_NOT_FOUND, "%s: no tensor %s in layer %d", m->path, tensor_name(id), layer);
  }
  if (tensor_is_expert(id) ? expert < 0 || expert >= m->c.n_experts : expert >= 0)
    return hf_fail(HF_NOT_FOUND, "%s: tensor %s of layer %d has no expert %d", m->path, tensor_name(id), layer, expert);
  *out = model_slot(m, id, layer);
  return HF_OK;
}

/* Where the stored bytes of (slot, expert) begin. */
void slot_place(const tensor_slot *s, int expert, int *file, uint64_t *offset) {
  *file = s->file;
  *offset = s->offset;
  if (expert >= 0 && s->experts) {
    *file = s->experts[expert].file;
    *offset = s->experts[expert].offset;
  } else if (expert >= 0) *offset += (uint64_t)expert * s->expert_stride;
}

static bool mappable(const model *m, const tensor_slot *s, int expert) {
  if (m->source != SRC_FILE || s->how != READ_DIRECT) return false;
  int file;
  uint64_t offset;
  slot_place(s, expert, &file, &offset);
  return offset % (s->stored == FMT_F32 ? 4 : 2) == 0; /* safetensors promises no alignment */
}

hf_status model_tensor(const model *m, model_tensor_id id, int layer, int expert, model_tensor_info *out) {
  const tensor_slot *s;
  HF_TRY(look_up(m, id, layer, expert, &s));
  *out = (model_tensor_info){
      .format = s->format, .rows = s->rows, .cols = s->cols, .bytes = (size_t)s->bytes, .derived = !mappable(m, s, expert)};
  return HF_OK;
}

hf_status model_tensor_map(const model *m, model_tensor_id id, int layer, int expert, const void **out) {
  const tensor_slot *s;
  *out = NULL;
  HF_TRY(look_up(m, id, layer, expert, &s));
  if (!mappable(m, s, expert)) return HF_OK;
  int file;
  uint64_t offset;
  slot_place(s, expert, &file, &offset);
  const mapped_file *f = &m->set.files[file];
  struct stat st;
  if (hf_read_fails()) return hf_fail(HF_MACHINE, "%s: %s", f->path, strerror(errno));
  if (fstat(f->fd, &st) != 0 || (uint64_t)st.st_size < f->size)
    return hf_fail(HF_MACHINE, "%s: the file has become shorter since it was opened", f->path);
  *out = f->data + offset;
  return HF_OK;
}

hf_status model_read_at(const model *m, int file, uint64_t offset, void *dst, size_t n) {
  const mapped_file *f = &m->set.files[file];
  char *p = dst;
  while (n > 0) {
    ssize_t k = hf_pread(f->fd, p, n, (off_t)offset);
    if (k < 0 && errno == EINTR) continue;
    if (k <= 0)
      return hf_fail(HF_MACHINE, "%s: read at %llu: %s", f->path, (unsigned long long)offset,
                     k < 0 ? strerror(errno) : "the file has become shorter");
    p += k;
    offset += (uint64_t)k;
    n -= (size_t)k;
  }
  return HF_OK;
}

/* dst[c][r] = src[r][c] for elements of `size` bytes (2 or 4); src row length `stride` elements, from column `first` in steps. */
static void transpose(const uint8_t *src, int64_t src_rows, int64_t stride, int64_t first, int64_t step, int64_t n_cols,
                      size_t size, uint8_t *dst) {
  for (int64_t c = 0; c < n_cols; c++)
    for (int64_t r = 0; r < src_rows; r++)
      memcpy(dst + (size_t)(c * src_rows + r) * size, src + (size_t)(r * stride + first + c * step) * size, size);
}

/* Per head: [nope + v][lora] stored; K wants [lora][nope], V the last v rows. */
static hf_status read_kv_b(const model *m, const tensor_slot *s, uint8_t *dst) {
  const model_config *c = &m->c;
  size_t row = fmt_row_bytes(s->stored, c->kv_lora_rank), head_bytes = (size_t)(c->nope_dim + c->v_dim) * row;
  bool k = s->how == READ_KVB_K, widen = s->format != s->stored;
  if (!k) {
    for (int h = 0; h < c->n_heads; h++)
      HF_TRY(model_read_at(m, s->file, s->offset + h * head_bytes + (size_t)c->nope_dim * row,
                           dst + (size_t)h * (size_t)c->v_dim * row, (size_t)c->v_dim * row));
    return HF_OK;
  }
  size_t elem = (size_t)fmt_get(s->format)->block_bytes, n = (size_t)c->nope_dim * (size_t)c->kv_lora_rank;
  uint8_t *raw = NULL, *wide = NULL;
  hf_status st = hf_alloc(&raw, (size_t)c->nope_dim, row, "kv_b head");
  if (st == HF_OK && widen) st = hf_alloc(&wide, n, sizeof(float), "kv_b head");
  for (int h = 0; h < c->n_heads && st == HF_OK; h++) {
    st = model_read_at(m, s->file, s->offset + h * head_bytes, raw, (size_t)c->nope_dim * row);
    if (st == HF_OK && widen) st = dequant_row(s->stored, raw, (int64_t)n, (float *)(void *)wide);
    if (st == HF_OK)
      transpose(widen ? wide : raw, c->nope_dim, c->kv_lora_rank, 0, 1, c->kv_lora_rank, elem, dst + (size_t)h * n * elem);
  }
  free(raw);
  free(wide);
  return st;
}

/* GGUF arch llama: stored row 2i + j of a head is canonical row j * half + i. */
static hf_status read_unpermuted(const model *m, const tensor_slot *s, uint8_t *dst) {
  int hd = m->c.head_dim, half = hd / 2;
  size_t row = fmt_row_bytes(s->format, s->cols);
  uint8_t *head = NULL;
  HF_TRY(hf_alloc(&head, (size_t)hd, row, "permuted head"));
  hf_status st = HF_OK;
  for (int64_t h = 0; h < s->rows / hd && st == HF_OK; h++) {
    st = model_read_at(m, s->file, s->offset + (uint64_t)h * (uint64_t)hd * row, head, (size_t)hd * row);
    for (int r = 0; r < hd; r++)
      memcpy(dst + ((size_t)h * (size_t)hd + (size_t)(r % 2 * half + r / 2)) * row, head + (size_t)r * row, row);
  }
  free(head);
  return st;
}

/* [in][width] stored, canonical [out][in], canonical row r is stored column r * step + first. Vectors: in = 1. */
static hf_status read_columns(const model *m, const tensor_slot *s, int expert, uint8_t *dst) {
  bool vector = s->how == READ_STRIDED;
  int64_t out = vector ? s->cols : s->rows, in = vector ? 1 : s->cols;
  size_t elem = (size_t)fmt_get(s->format)->block_bytes, n = (size_t)s->expert_stride;
  uint8_t *raw = NULL;
  int file;
  uint64_t offset;
  slot_place(s, expert, &file, &offset);
  HF_TRY(hf_alloc(&raw, n, 1, "stacked experts"));
  hf_status st = model_read_at(m, file, offset, raw, n);
  if (st == HF_OK) transpose(raw, in, out * s->step, s->first, s->step, out, elem, dst);
  free(raw);
  return st;
}

/* As BF16, rounded. */
static hf_status read_fp8_k_b(const model *m, const tensor_slot *s, int layer, uint8_t *dst) {
  float *wide = NULL;
  int64_t n = s->rows * s->cols;
  hf_status st = hf_alloc(&wide, (size_t)n, sizeof *wide, "kv_b");
  if (st == HF_OK) st = fp8_read_k_b(m, s, layer, wide);
  for (int64_t i = 0; i < n && st == HF_OK; i++) {
    uint16_t h = f32_to_bf16(wide[i]);
    memcpy(dst + 2 * i, &h, sizeof h);
  }
  free(wide);
  return st;
}

hf_status model_tensor_read(const model *m, model_tensor_id id, int layer, int expert, void *dst, size_t dst_bytes) {
  const tensor_slot *s;
  HF_TRY(look_up(m, id, layer, expert, &s));
  if (dst_bytes != s->bytes)
    return hf_fail(HF_INPUT, "%s: tensor %s has %llu bytes, the buffer %zu", m->path, tensor_name(id),
                   (unsigned long long)s->bytes, dst_bytes);
  if (m->source == SRC_SYNTH) return synth_read(m, s, id, layer, expert, 0, s->rows, dst);
  int file;
  uint64_t offset;
  switch (s->how) {
    case READ_DIRECT: slot_place(s, expert, &file, &offset); return model_read_at(m, file, offset, dst, s->bytes);
    case READ_KVB_K:
    case READ_KVB_V: return read_kv_b(m, s, dst);
    case READ_UNPERMUTE: return read_unpermuted(m, s, dst);
    case READ_COLUMNS:
    case READ_STRIDED: return read_columns(m, s, expert, dst);
    case READ_INT4:
    case READ_MXFP4: return packed_read(m, s, id, layer, expert, dst);
    case READ_FP8: return id == MT_K_B ? read_fp8_k_b(m, s, layer, dst) : fp8_read(m, s, id, layer, expert, dst);
    case READ_REFUSED: break;
  }
  return hf_fail(HF_UNSUPPORTED, "%s: layer %d tensor %s: %s", m->path, layer, tensor_name(id), s->why);
}

hf_status model_tensor_read_f32(const model *m, model_tensor_id id, int layer, int expert, float *dst, int64_t n) {
  const tensor_slot *s;
  HF_TRY(look_up(m, id, layer, expert, &s));
  if (n != s->rows * s->cols)
    return hf_fail(HF_INPUT, "%s: tensor %s has %lld values, the buffer %lld", m->path, tensor_name(id),
                   (long long)(s->rows * s->cols), (long long)n);
  if (s->how == READ_FP8 && id == MT_K_B) return fp8_read_k_b(m, s, layer, dst);
  uint8_t *raw = NULL;
  size_t row = fmt_loaded_row_bytes(s->format, s->cols);
  HF_TRY(hf_alloc(&raw, 1, (size_t)s->bytes, "a tensor"));
  hf_status st = model_tensor_read(m, id, layer, expert, raw, (size_t)s->bytes);
  for (int64_t r = 0; r < s->rows && st == HF_OK; r++) {
    const uint8_t *from = raw + (size_t)r * row;
    float *to = dst + r * s->cols;
    if (s->format == FMT_INT4_G32) int4_row(from, s->cols, to);
    else if (s->format == FMT_MXFP4) mxfp4_row(from, s->cols, to);
    else if (s->format == FMT_FP8_E4M3) fp8_row(from, s->cols, to);
    else st = dequant_row(s->format, from, s->cols, to);
  }
  free(raw);
  return st;
}

hf_status model_row_f32(const model *m, model_tensor_id id, int layer, int64_t row, float *dst, int64_t n) {
  const tensor_slot *s;
  HF_TRY(look_up(m, id, layer, -1, &s));
  if (row < 0 || row >= s->rows || n != s->cols)
    return hf_fail(HF_INPUT, "%s: tensor %s is [%lld, %lld], asked for row %lld with %lld values", m->path, tensor_name(id),
                   (long long)s->rows, (long long)s->cols, (long long)row, (long long)n);
  size_t bytes = fmt_row_bytes(s->format, n);
  uint8_t *buf = NULL;
  bool whole = m->source == SRC_FILE && s->how != READ_DIRECT; /* derived: no row of its own in the file */
  HF_TRY(hf_alloc(&buf, whole ? (size_t)s->bytes : bytes, 1, "tensor row"));
  hf_status st;
  if (m->source == SRC_SYNTH) st = synth_read(m, s, id, layer, -1, row, row + 1, buf);
  else if (whole) st = model_tensor_read(m, id, layer, -1, buf, (size_t)s->bytes);
  else st = model_read_at(m, s->file, s->offset + (uint64_t)row * bytes, buf, bytes);
  if (st == HF_OK) st = dequant_row(s->format, whole ? buf + (uint64_t)row * bytes : buf, n, dst);
  free(buf);
  return st;
}
