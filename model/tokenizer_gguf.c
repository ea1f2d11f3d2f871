/* tokenizer_gguf.c: the tokenizer inside a GGUF file: tokens, their types, merges, and the name of the pre-tokenizer. */
#include "model/gguf.h"
#include "model/tokenizer_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* tokenizer.ggml.token_type */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN = 2, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5, TYPE_BYTE = 6 };

static hf_status string_array(const gguf *g, const char *key, uint64_t most, const gguf_kv **out) {
  const gguf_kv *kv = gguf_find(g, key);
  if (!kv) return hf_fail(HF_INPUT, "%s: metadata %s is missing", g->where, key);
  if (kv->type != GGUF_ARRAY || kv->elem != GGUF_STRING) {
    return hf_fail(HF_INPUT, "%s: metadata %s is no array of strings", g->where, key);
  }
  if (kv->n > most) {
    return hf_fail(HF_INPUT, "%s: metadata %s: %llu entries are more than %llu", g->where, key, (unsigned long long)kv->n,
                   (unsigned long long)most);
  }
  *out = kv;
  return HF_OK;
}

static hf_status add_token(tokenizer *t, gguf_str s, int64_t id, int64_t type) {
  switch (type) {
  case TYPE_CONTROL:
  case TYPE_USER_DEFINED: {
    tok_added a = {(int32_t)id, type == TYPE_CONTROL, false, false, s.s, s.n};
    return tok_add_added(t, t->where, &a);
  }
  case TYPE_UNKNOWN:
  case TYPE_UNUSED:
    return tok_vocab_add_plain(&t->vocab, t->where, s.s, s.n, id, TOK_SPECIAL);
  case TYPE_NORMAL:
    return tok_vocab_add(&t->vocab, t->where, s.s, s.n, id);
  default:
    return hf_fail(HF_INPUT, "%s: tokenizer.ggml.token_type[%lld]: %lld is not a type of byte-level BPE", t->where, (long long)id,
                   (long long)type);
  }
}

static hf_status load_tokens(tokenizer *t, const gguf *g) {
  const gguf_kv *tokens = NULL, *types = gguf_find(g, "tokenizer.ggml.token_type");
  HF_TRY(string_array(g, "tokenizer.ggml.tokens", TOK_MAX_ID, &tokens));
  if (tokens->n == 0) return hf_fail(HF_INPUT, "%s: metadata tokenizer.ggml.tokens is empty", t->where);
  if (types && (types->type != GGUF_ARRAY || types->n != tokens->n)) {
    return hf_fail(HF_INPUT, "%s: metadata tokenizer.ggml.token_type has not one entry per token (%llu)", t->where,
                   (unsigned long long)tokens->n);
  }
  const uint8_t *at = tokens->data;
  for (uint64_t i = 0; i < tokens->n; i++) {
    gguf_str s = gguf_next_str(&at);
    int64_t type = TYPE_NORMAL;
    if (types) HF_TRY(gguf_int_at(g, types, i, &type));
    HF_TRY(add_token(t, s, (int64_t)i, type));
  }
  tok_sort_added(t);
  tok_vocab_finish(&t->vocab);
  return HF_OK;
}

static hf_status load_merges(tokenizer *t, const gguf *g) {
  const gguf_kv *merges = NULL;
  HF_TRY(string_array(g, "tokenizer.ggml.merges", TOK_MAX_ID, &merges));
  HF_TRY(tok_vocab_begin_merges(&t->vocab, (int)merges->n));
  const uint8_t *at = merges->data;
  for (uint64_t i = 0; i < merges->n; i++) {
    gguf_str s = gguf_next_str(&at);
    HF_TRY(tok_vocab_add_merge_line(&t->vocab, t->where, (int)i, s.s, s.n));
  }
  return HF_OK;
}

static hf_status load_pre(tokenizer *t, const gguf *g) {
  gguf_str s = {"", 0};
  char name[64];
  HF_TRY(gguf_get_str(g, "tokenizer.ggml.pre", &s));
  size_t n = s.n < sizeof name - 1 ? s.n : sizeof name - 1;
  memcpy(name, s.s, n);
  name[n] = 0;
  return tok_pre_named(t->where, name, &t->splitter, &t->vocab.ignore_merges);
}

static hf_status load_all(tokenizer *t, const gguf *g) {
  gguf_str model = {"", 0}, template = {NULL, 0};
  HF_TRY(gguf_get_str(g, "tokenizer.ggml.model", &model));
  if (!gguf_str_is(model, "gpt2")) {
    return hf_fail(HF_UNSUPPORTED, "%s: tokenizer.ggml.model: '%.*s' is not supported, only gpt2 (byte-level BPE)", t->where,
                   (int)(model.n < 40 ? model.n : 40), model.s);
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
  HF_TRY(gguf_opt_str(g, "tokenizer.chat_template", &template));
  if (!template.s) return HF_OK;
  HF_TRY(hf_alloc(&t->chat_template, template.n + 1, 1, "the chat template"));
  memcpy(t->chat_template, template.s, template.n);
  return HF_OK;
}

hf_status tok_load_gguf(tokenizer *t, const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat sb;
  if (fd < 0 || fstat(fd, &sb) != 0 || sb.st_size == 0) {
    hf_status st = hf_fail(HF_INPUT, "%s: cannot be read: %s", path, fd < 0 ? strerror(errno) : "empty or no regular file");
    if (fd >= 0) close(fd);
    return st;
  }
  size_t size = (size_t)sb.st_size;
  void *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
  close(fd);
  if (map == MAP_FAILED) return hf_fail(HF_MACHINE, "%s: cannot be mapped: %s", path, strerror(errno));
  gguf g;
  hf_status st = gguf_parse(map, size, t->where, &g);
  if (st == HF_OK) {
    st = load_all(t, &g);
    gguf_free(&g);
  }
  munmap(map, size);
  return st;
}
