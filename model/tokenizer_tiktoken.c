/* tokenizer_tiktoken.c: tiktoken.model, as Kimi-K2 publishes it: a token a line, its bytes in base64, a blank, its rank, which is its id.
 * Two symbols merge where they spell a token; the lowest rank goes first. A word that is a token is not merged at all. */
#include <stdlib.h>
#include <string.h>

#include "model/tokenizer_int.h"

static int base64_value(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648 with padding. out has room for n. */
static bool base64_decode(const char *s, size_t n, char *out, size_t *n_out) {
  *n_out = 0;
  if (n == 0 || n % 4) return false;
  size_t pad = s[n - 1] != '=' ? 0 : s[n - 2] != '=' ? 1 : 2;
  uint32_t bits = 0;
  for (size_t i = 0; i < n; i++) {
    int v = i < n - pad ? base64_value(s[i]) : 0;
    if (v < 0) return false;
    bits = bits << 6 | (uint32_t)v;
    if (i % 4 != 3) continue;
    size_t keep = i == n - 1 ? 3 - pad : 3;
    for (size_t k = 0; k < keep; k++) out[(*n_out)++] = (char)(bits >> (16 - 8 * k));
    bits = 0;
  }
  return true;
}

static hf_status load_line(tokenizer *t, const char *line, size_t n, int number, hf_buf *bytes) {
  const char *blank = memchr(line, ' ', n);
  size_t n_text = blank ? (size_t)(blank - line) : 0, n_rank = blank ? n - n_text - 1 : 0;
  int64_t rank = n_rank > 0 && n_rank < 10 ? 0 : -1;
  for (size_t i = 0; i < n_rank && rank >= 0; i++)
    rank = blank[1 + i] >= '0' && blank[1 + i] <= '9' ? rank * 10 + (blank[1 + i] - '0') : -1;
  if (rank < 0) return hf_fail(HF_INPUT, "%s: line %d: not a token in base64, a blank and its rank", t->where, number);
  bytes->len = 0;
  HF_TRY(hf_buf_add(bytes, line, n_text));
  size_t n_bytes = 0;
  if (!base64_decode(line, n_text, bytes->data, &n_bytes))
    return hf_fail(HF_INPUT, "%s: line %d: '%.*s' is no base64", t->where, number, (int)(n_text < 40 ? n_text : 40), line);
  return tok_vocab_add_bytes(&t->vocab, t->where, bytes->data, n_bytes, rank);
}

hf_status tok_load_tiktoken(tokenizer *t, const char *text, size_t n) {
  hf_buf bytes;
  hf_buf_init(&bytes, 1 << 20);
  hf_status st = HF_OK;
  int number = 0;
  for (const char *p = text, *end = text + n; st == HF_OK && p < end;) {
    const char *eol = memchr(p, '\n', (size_t)(end - p));
    if (!eol) eol = end;
    size_t len = (size_t)(eol - p);
    if (len > 0 && p[len - 1] == '\r') len--;
    number++;
    if (len > 0) st = load_line(t, p, len, number, &bytes);
    p = eol + 1;
  }
  hf_buf_free(&bytes);
  if (st != HF_OK) return st;
  if (t->vocab.n == 0) return hf_fail(HF_INPUT, "%s: no tokens", t->where);
  t->vocab.by_text = true;
  HF_TRY(tok_vocab_finish(&t->vocab, t->where));
  HF_TRY(tok_pre_named(t->where, "kimi-k2", &t->splitter, &t->vocab.ignore_merges)); /* its file does not name the rule */
  t->vocab.ignore_merges = true;
  return HF_OK;
}
