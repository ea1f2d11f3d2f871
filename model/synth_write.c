/* synth_write.c: streams a synthetic model to disk. Memory: one chunk of rows, at most one head of kv_b, and the header. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/synth.h"
#include "model/synth_write.h"

enum { CHUNK = 4 << 20, SYNTH_MIN_VOCAB = 259 };

hf_status sw_open(synth_out *o, const char *path) {
  memset(o, 0, sizeof *o);
  HF_TRY(hf_alloc(&o->chunk, CHUNK, 1, "output chunk"));
  o->path = path;
  o->f = fopen(path, "wb");
  if (!o->f) {
    free(o->chunk);
    o->chunk = NULL;
    return hf_fail(HF_MACHINE, "%s: %s", path, strerror(errno));
  }
  setvbuf(o->f, NULL, _IOFBF, 1 << 16);
  return HF_OK;
}

hf_status sw_close(synth_out *o, hf_status st) {
  if (!o->f) return st;
  bool bad = fflush(o->f) != 0;
  bad = fclose(o->f) != 0 || bad;
  o->f = NULL;
  free(o->chunk);
  o->chunk = NULL;
  if (st == HF_OK && bad) st = hf_fail(HF_MACHINE, "%s: %s", o->path, strerror(errno));
  if (st != HF_OK) unlink(o->path); /* half a model is worse than none */
  return st;
}

hf_status sw_put(synth_out *o, const void *p, size_t n) {
  if (n && fwrite(p, 1, n, o->f) != n) return hf_fail(HF_MACHINE, "%s: %s", o->path, strerror(errno));
  o->at += n;
  return HF_OK;
}

hf_status sw_pad(synth_out *o, uint64_t align) {
  static const char zero[64];
  uint64_t n = (align - o->at % align) % align;
  return sw_put(o, zero, (size_t)n);
}

hf_status sw_rows(synth_out *o, const model *m, model_tensor_id id, int layer, int expert, int64_t row0, int64_t row1) {
  const tensor_slot *s = model_slot(m, id, layer);
  size_t row = fmt_row_bytes(s->format, s->cols);
  int64_t per = (int64_t)(CHUNK / row);
  if (per < 1) return hf_fail(HF_UNSUPPORTED, "%s: tensor %s: a row of %zu bytes", o->path, tensor_name(id), row);
  for (int64_t r = row0; r < row1; r += per) {
    int64_t end = r + per < row1 ? r + per : row1;
    HF_TRY(synth_read(m, s, id, layer, expert, r, end, o->chunk));
    HF_TRY(sw_put(o, o->chunk, (size_t)(end - r) * row));
  }
  return HF_OK;
}

void synth_token(int i, int vocab_size, char buf[32], int *kind) {
  *kind = 1;
  if (i < 256) {
    bool own = (i >= 33 && i <= 126) || (i >= 161 && i <= 172) || i >= 174;
    int code = i;
    if (!own) { /* the bytes without a printable form take U+0100 on, in order */
      code = i < 33 ? 256 + i : i < 161 ? 256 + 33 + i - 127 : 256 + 67;
    }
    if (code < 128) snprintf(buf, 32, "%c", code);
    else snprintf(buf, 32, "%c%c", 0xc0 | code >> 6, 0x80 | (code & 63));
  } else if (i == vocab_size - 2 || i == vocab_size - 1) {
    *kind = 3;
    snprintf(buf, 32, "%s", i == vocab_size - 2 ? "<|begin|>" : "<|end|>");
  } else if (i == 256) {
    snprintf(buf, 32, "\xc4\xa0t");
  } else {
    *kind = 5;
    snprintf(buf, 32, "<|unused%d|>", i);
  }
}

static hf_status check_options(const char *where, const model_synth_options *o) {
  const fmt_info *f = fmt_get(o->format);
  if (o->gguf ? fmt_is_mixture(o->format) || (synth_can(o->format) && f->ggml_type >= 0)
              : f->block == 1 && o->format != FMT_FP8_E4M3 && synth_can(o->format))
    return HF_OK;
  return hf_fail(HF_UNSUPPORTED, "%s: a synthetic %s cannot be written in %s; known: f32, f16, bf16%s", where,
                 o->gguf ? "GGUF" : "safetensors folder", f->name, o->gguf ? ", q8_0, q4_0, q4_k, q6_k and their like" : "");
}

hf_status model_synth_write(const json *config, const char *where, const model_synth_options *o, const char *path) {
  model_synth_options opt = *o;
  if (opt.format == FMT_DEFAULT) opt.format = opt.gguf ? FMT_Q8_0 : FMT_BF16;
  HF_TRY(check_options(where, &opt));
  model *m = NULL;
  HF_TRY(synth_model(config, where, opt.layers, opt.experts, opt.seed, opt.format, &m));
  hf_status st = HF_OK;
  if (m->c.vocab_size < SYNTH_MIN_VOCAB)
    st = hf_fail(HF_INPUT, "%s: field vocab_size: %d; a byte-level tokenizer needs at least %d", where, m->c.vocab_size,
                 SYNTH_MIN_VOCAB);
  if (st == HF_OK) st = opt.gguf ? synth_write_gguf(m, config, where, path) : synth_write_folder(m, config, where, &opt, path);
  model_close(m);
  return st;
}
