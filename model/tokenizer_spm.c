/* tokenizer_spm.c: tokenizer.model of SentencePiece: its ModelProto, read field by field, as far as BPE with byte fallback goes.
 *
 *   ModelProto       1 pieces (repeated)   2 trainer_spec   3 normalizer_spec
 *   SentencePiece    1 piece   2 score (float)   3 type
 *   TrainerSpec      3 model_type (2 = BPE)   41 bos_id   42 eos_id
 *   NormalizerSpec   2 precompiled_charsmap   3 add_dummy_prefix   4 remove_extra_whitespaces
 *
 * Protocol buffers: a field is a varint key (number << 3 | wire type) and a value: 0 varint, 1 eight bytes, 2 length and bytes, 5 four
 * bytes. Unknown fields are skipped. */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_int.h"

typedef struct {
  const uint8_t *at, *end;
  const char *where;
} reader;

typedef struct {
  int number, wire;
  uint64_t value;      /* wire 0, 1, 5 */
  const uint8_t *data; /* wire 2 */
  size_t n;
} field;

static hf_status cut_short(const reader *r) {
  return hf_fail(HF_INPUT, "%s: not a tokenizer.model of SentencePiece, or cut short", r->where);
}

static bool varint(reader *r, uint64_t *out) {
  *out = 0;
  for (int shift = 0; shift < 64 && r->at < r->end; shift += 7) {
    uint8_t b = *r->at++;
    *out |= (uint64_t)(b & 0x7f) << shift;
    if (b < 0x80) return true;
  }
  return false;
}

static bool fixed(reader *r, int bytes, uint64_t *out) {
  *out = 0;
  if (r->end - r->at < bytes) return false;
  for (int i = 0; i < bytes; i++) *out |= (uint64_t)*r->at++ << 8 * i;
  return true;
}

static hf_status next_field(reader *r, field *f) {
  uint64_t key;
  *f = (field){0};
  if (!varint(r, &key) || key >> 3 == 0 || key >> 3 > 1 << 29) return cut_short(r);
  f->number = (int)(key >> 3);
  f->wire = (int)(key & 7);
  bool ok = f->wire == 0   ? varint(r, &f->value)
            : f->wire == 1 ? fixed(r, 8, &f->value)
            : f->wire == 5 ? fixed(r, 4, &f->value)
                           : f->wire == 2 && varint(r, &f->value) && f->value <= (uint64_t)(r->end - r->at);
  if (!ok) return cut_short(r);
  if (f->wire != 2) return HF_OK;
  f->data = r->at;
  f->n = (size_t)f->value;
  r->at += f->n;
  return HF_OK;
}

static reader inside(const reader *r, const field *f) {
  return (reader){f->data, f->data + f->n, r->where};
}

hf_status tok_add_typed(tokenizer *t, const char *text, size_t n, int64_t id, int64_t type) {
  bool is_byte = false;
  switch (type) {
    case TOK_TYPE_CONTROL:
    case TOK_TYPE_USER_DEFINED: {
      tok_added a = {(int32_t)id, type == TOK_TYPE_CONTROL, false, false, text, n};
      return tok_add_added(t, t->where, &a);
    }
    case TOK_TYPE_UNKNOWN:
    case TOK_TYPE_UNUSED: return tok_vocab_add_plain(&t->vocab, t->where, text, n, id, TOK_SPECIAL);
    case TOK_TYPE_NORMAL: return tok_vocab_add(&t->vocab, t->where, text, n, id);
    case TOK_TYPE_BYTE:
      if (t->vocab.chars) HF_TRY(tok_vocab_add_byte(&t->vocab, t->where, text, n, id, &is_byte));
      if (is_byte) return HF_OK;
      break;
    default: break;
  }
  return hf_fail(HF_INPUT, "%s: token %lld: type %lld does not fit its text or this kind of tokenizer", t->where, (long long)id,
                 (long long)type);
}

static hf_status load_piece(tokenizer *t, reader r, int id, float *score) {
  field f, piece = {0};
  uint64_t type = TOK_TYPE_NORMAL;
  *score = 0;
  while (r.at < r.end) {
    HF_TRY(next_field(&r, &f));
    if (f.number == 1 && f.wire == 2) piece = f;
    if (f.number == 3 && f.wire == 0) type = f.value;
    uint32_t bits = (uint32_t)f.value;
    if (f.number == 2 && f.wire == 5) memcpy(score, &bits, sizeof bits);
  }
  if (!piece.data) return hf_fail(HF_INPUT, "%s: piece %d has no text", t->where, id);
  return tok_add_typed(t, (const char *)piece.data, piece.n, id, type > TOK_TYPE_BYTE ? -1 : (int64_t)type);
}

static hf_status load_trainer(tokenizer *t, reader r) {
  field f;
  uint64_t kind = 1; /* unigram, the format's default */
  t->bos = 1, t->eos = 2;
  while (r.at < r.end) {
    HF_TRY(next_field(&r, &f));
    if (f.wire != 0) continue;
    if (f.number == 3) kind = f.value;
    if (f.number == 41) t->bos = (int)(uint32_t)f.value; /* -1 = none is stored as ten bytes */
    if (f.number == 42) t->eos = (int)(uint32_t)f.value;
  }
  if (kind == 2) return HF_OK;
  return hf_fail(HF_UNSUPPORTED, "%s: SentencePiece model_type %llu is not supported, only BPE (2)", t->where,
                 (unsigned long long)kind);
}

static hf_status load_normalizer(tokenizer *t, reader r) {
  field f;
  bool squeeze = true;
  t->prefix = PREFIX_ALWAYS;
  while (r.at < r.end) {
    HF_TRY(next_field(&r, &f));
    if (f.number == 2 && f.wire == 2 && f.n > 0)
      return hf_fail(HF_UNSUPPORTED, "%s: SentencePiece normalisation by a character map is not supported, only identity",
                     t->where);
    if (f.number == 3 && f.wire == 0) t->prefix = f.value ? PREFIX_ALWAYS : PREFIX_NONE;
    if (f.number == 4 && f.wire == 0) squeeze = f.value != 0;
  }
  if (!squeeze) return HF_OK;
  return hf_fail(HF_UNSUPPORTED, "%s: SentencePiece's remove_extra_whitespaces is not supported", t->where);
}

static hf_status load_pieces(tokenizer *t, reader r, float **scores, int *cap) {
  field f;
  bool trainer = false, normalizer = false;
  while (r.at < r.end) {
    HF_TRY(next_field(&r, &f));
    if (f.wire != 2) continue;
    if (f.number == 2) HF_TRY(load_trainer(t, inside(&r, &f)));
    if (f.number == 3) HF_TRY(load_normalizer(t, inside(&r, &f)));
    trainer = trainer || f.number == 2;
    normalizer = normalizer || f.number == 3;
    if (f.number != 1) continue;
    int id = t->vocab.n;
    if (id == *cap) {
      *cap = *cap ? 2 * *cap : 4096;
      HF_TRY(hf_realloc(scores, (size_t)*cap, sizeof **scores, "scores of tokens"));
    }
    HF_TRY(load_piece(t, inside(&r, &f), id, &(*scores)[id]));
  }
  if (trainer && normalizer) return HF_OK;
  return hf_fail(HF_INPUT, "%s: no tokenizer.model of SentencePiece: %s is missing", t->where,
                 trainer ? "normalizer_spec" : "trainer_spec");
}

hf_status tok_load_spm(tokenizer *t, const char *data, size_t n) {
  float *scores = NULL;
  int cap = 0;
  t->vocab.chars = t->vocab.by_text = t->adds_bos = true;
  reader r = {(const uint8_t *)data, (const uint8_t *)data + n, t->where};
  hf_status st = load_pieces(t, r, &scores, &cap);
  if (st == HF_OK) tok_sort_added(t);
  if (st == HF_OK) st = tok_vocab_finish(&t->vocab, t->where);
  if (st == HF_OK) st = tok_vocab_rank_by_score(&t->vocab, t->where, scores);
  free(scores);
  if (t->bos < 0 || t->bos >= t->vocab.n) t->bos = -1, t->adds_bos = false;
  if (t->eos < 0 || t->eos >= t->vocab.n) t->eos = -1;
  return st;
}
