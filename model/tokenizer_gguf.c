/* tokenizer_gguf.c: the tokenizer inside a GGUF file: tokens, their types, merges, and the name of the pre-tokenizer. */
#include "model/gguf.h"
#include "model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

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
    int64_t type = TOK_TYPE_NORMAL;
    if (types && !gguf_int_at(types, i, &type)) type = -1; /* refused by tok_add_typed */
    HF_TRY(tok_add_typed(t, s.s, s.n, (int64_t)i, type));
  }
  tok_sort_added(t);
  return tok_vocab_finish(&t->vocab, t->where);
}

static hf_status load_scores(tokenizer *t, const gguf_file *g) {
  const gguf_kv *kv = gguf_find(g, "tokenizer.ggml.scores");
  if (!kv || kv->type != GGUF_ARRAY || kv->elem != GGUF_F32 || kv->count != (uint64_t)t->vocab.n)
    return hf_fail(HF_INPUT, "%s: metadata tokenizer.ggml.scores is not one F32 per token", t->where);
  float *score = NULL;
  HF_TRY(hf_alloc(&score, (size_t)t->vocab.n, sizeof *score, "scores of tokens"));
  for (int i = 0; i < t->vocab.n; i++) {
    uint32_t u = (uint32_t)gguf_le(kv->value + 4 * (size_t)i, 4);
    memcpy(&score[i], &u, sizeof u);
  }
  hf_status st = tok_vocab_rank_by_score(&t->vocab, t->where, score);
  free(score);
  return st;
}

/* tokenizer.ggml.model "llama": SentencePiece's BPE. */
static hf_status load_spm(tokenizer *t, const gguf_file *g) {
  bool prefix = true;
  t->vocab.chars = t->vocab.by_text = true;
  t->adds_bos = true; /* as llama.cpp has it where the file does not say */
  HF_TRY(gguf_opt_bool(g, "tokenizer.ggml.add_space_prefix", &prefix));
  t->prefix = prefix ? PREFIX_ALWAYS : PREFIX_NONE;
  HF_TRY(load_tokens(t, g));
  return load_scores(t, g);
}

static bool equals(str s, const char *text) {
  return s.n == strlen(text) && memcmp(s.s, text, s.n) == 0;
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
  if (equals(kind, "none") || equals(kind, "no_vocab")) return hf_fail(HF_NOT_FOUND, "%s: holds no tokenizer", t->where);
  if (equals(kind, "llama")) {
    HF_TRY(load_spm(t, g));
  } else if (equals(kind, "gpt2")) {
    HF_TRY(load_pre(t, g));
    HF_TRY(load_tokens(t, g));
    HF_TRY(load_merges(t, g));
  } else {
    return hf_fail(HF_UNSUPPORTED,
                   "%s: tokenizer.ggml.model: '%.*s' is not supported; known: gpt2 (byte-level BPE), llama (SentencePiece's BPE)",
                   t->where, (int)(kind.n < 40 ? kind.n : 40), kind.s);
  }
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
