/* tokenizer_gguf.c: the tokenizer inside a GGUF file: tokens, their types, merges, and the name of the pre-tokenizer. */
#include "model/gguf.h"
#include "model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

/* tokenizer.ggml.token_type */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5, TYPE_BYTE = 6 };

typedef struct {
  const char *s;
  size_t n;
} str;

/* The string here; *at moves behind it. gguf_open has checked that it lies inside the file. */
static str next_str(const uint8_t **at) {
  size_t n = (size_t)gguf_le(*at, 8);
  str s = {(const char *)*at + 8, n};
  *at += 8 + n;
  return s;
}

static hf_status get_str(const gguf_file *g, const char *where, const char *key, bool required, str *out) {
  const gguf_kv *kv = gguf_find(g, key);
  if (!kv) return required ? hf_fail(HF_INPUT, "%s: metadata %s is missing", where, key) : HF_OK;
  if (kv->type != GGUF_STR) return hf_fail(HF_INPUT, "%s: metadata %s is no string", where, key);
  const uint8_t *at = kv->value;
  *out = next_str(&at);
  return HF_OK;
}

static hf_status string_array(const gguf_file *g, const char *where, const char *key, uint64_t most, const gguf_kv **out) {
  const gguf_kv *kv = gguf_find(g, key);
  if (!kv) return hf_fail(HF_INPUT, "%s: metadata %s is missing", where, key);
  if (kv->type != GGUF_ARRAY || kv->elem != GGUF_STR) {
    return hf_fail(HF_INPUT, "%s: metadata %s is no array of strings", where, key);
  }
  if (kv->count > most) {
    return hf_fail(HF_INPUT, "%s: metadata %s: %llu entries are more than %llu", where, key, (unsigned long long)kv->count,
                   (unsigned long long)most);
  }
  *out = kv;
  return HF_OK;
}

static hf_status add_token(tokenizer *t, str s, int64_t id, int64_t type) {
  switch (type) {
    case TYPE_CONTROL:
    case TYPE_USER_DEFINED: {
      tok_added a = {(int32_t)id, type == TYPE_CONTROL, false, false, s.s, s.n};
      return tok_add_added(t, t->where, &a);
    }
    case TYPE_UNKNOWN:
    case TYPE_UNUSED: return tok_vocab_add_plain(&t->vocab, t->where, s.s, s.n, id, TOK_SPECIAL);
    case TYPE_NORMAL: return tok_vocab_add(&t->vocab, t->where, s.s, s.n, id);
    default:
      return hf_fail(HF_INPUT, "%s: tokenizer.ggml.token_type[%lld]: %lld is not a type of byte-level BPE", t->where,
                     (long long)id, (long long)type);
  }
}

static hf_status load_tokens(tokenizer *t, const gguf_file *g) {
  const gguf_kv *tokens = NULL, *types = gguf_find(g, "tokenizer.ggml.token_type");
  HF_TRY(string_array(g, t->where, "tokenizer.ggml.tokens", TOK_MAX_ID, &tokens));
  if (tokens->count == 0) return hf_fail(HF_INPUT, "%s: metadata tokenizer.ggml.tokens is empty", t->where);
  if (types && (types->type != GGUF_ARRAY || types->count != tokens->count)) {
    return hf_fail(HF_INPUT, "%s: metadata tokenizer.ggml.token_type has not one entry per token (%llu)", t->where,
                   (unsigned long long)tokens->count);
  }
  const uint8_t *at = tokens->value;
  for (uint64_t i = 0; i < tokens->count; i++) {
    str s = next_str(&at);
    int64_t type = TYPE_NORMAL;
    if (types && !gguf_int_at(types, i, &type)) type = -1; /* refused by add_token */
    HF_TRY(add_token(t, s, (int64_t)i, type));
  }
  tok_sort_added(t);
  tok_vocab_finish(&t->vocab);
  return HF_OK;
}

static hf_status load_merges(tokenizer *t, const gguf_file *g) {
  const gguf_kv *merges = NULL;
  HF_TRY(string_array(g, t->where, "tokenizer.ggml.merges", TOK_MAX_ID, &merges));
  HF_TRY(tok_vocab_begin_merges(&t->vocab, (int)merges->count));
  const uint8_t *at = merges->value;
  for (uint64_t i = 0; i < merges->count; i++) {
    str s = next_str(&at);
    HF_TRY(tok_vocab_add_merge_line(&t->vocab, t->where, (int)i, s.s, s.n));
  }
  return HF_OK;
}

static hf_status load_pre(tokenizer *t, const gguf_file *g) {
  str s = {"", 0};
  char name[64];
  HF_TRY(get_str(g, t->where, "tokenizer.ggml.pre", true, &s));
  size_t n = s.n < sizeof name - 1 ? s.n : sizeof name - 1;
  memcpy(name, s.s, n);
  name[n] = 0;
  return tok_pre_named(t->where, name, &t->splitter, &t->vocab.ignore_merges);
}

static hf_status load_all(tokenizer *t, const gguf_file *g) {
  str kind = {"", 0}, template = {NULL, 0};
  if (!gguf_find(g, "tokenizer.ggml.model")) /* a file of weights alone: not wrong, but there is no tokenizer */
    return hf_fail(HF_NOT_FOUND, "%s: holds no tokenizer: metadata tokenizer.ggml.model is missing", t->where);
  HF_TRY(get_str(g, t->where, "tokenizer.ggml.model", true, &kind));
  if (kind.n != 4 || memcmp(kind.s, "gpt2", 4) != 0) {
    return hf_fail(HF_UNSUPPORTED, "%s: tokenizer.ggml.model: '%.*s' is not supported, only gpt2 (byte-level BPE)", t->where,
                   (int)(kind.n < 40 ? kind.n : 40), kind.s);
  }
  HF_TRY(load_pre(t, g));
  HF_TRY(load_tokens(t, g));
  HF_TRY(load_merges(t, g));
  int64_t bos = -1, eos = -1;
  HF_TRY(gguf_opt_int(g, "tokenizer.ggml.bos_token_id", 0, t->vocab.n - 1, &bos));
  HF_TRY(gguf_opt_int(g, "tokenizer.ggml.eos_token_id", 0, t->vocab.n - 1, &eos));
  HF_TRY(gguf_opt_bool(g, "tokenizer.ggml.add_bos_token", &t->adds_bos));
  t->bos = (int)bos;
  t->eos = (int)eos;
  if (bos < 0) t->adds_bos = false;
  HF_TRY(get_str(g, t->where, "tokenizer.chat_template", false, &template));
  if (!template.s) return HF_OK;
  HF_TRY(hf_alloc(&t->chat_template, template.n + 1, 1, "the chat template"));
  memcpy(t->chat_template, template.s, template.n);
  return HF_OK;
}

hf_status tok_load_gguf(tokenizer *t, const char *path) {
  tensor_set set;
  gguf_file g;
  HF_TRY(tset_init(&set));
  hf_status st = gguf_open(&set, path, &g);
  if (st == HF_OK) st = load_all(t, &g);
  tset_free(&set);
  return st;
}
