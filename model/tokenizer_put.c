/* tokenizer_put.c: a tokenizer as GGUF metadata, so that the file needs nothing beside it. The reader is tokenizer_gguf.c.
 *
 *   tokenizer here                     tokenizer.ggml.model   what orders merges there
 *   byte-level BPE with merges         gpt2                   the list of merges
 *   tiktoken                           gpt2                   the merges that spell each token from lower ones
 *   SentencePiece, by score or merges  llama                  scores: minus the rank
 *
 * Splitting rules have no regex in GGUF, only a name: it is found by splitting a text that tells all known rules apart. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/gguf_write.h"
#include "model/tokenizer_int.h"

/* Numbers of every length, contractions in both cases, letters with marks, Han, kana, Hangul, signs before letters, blanks and ends of lines. */
static const char probe[] =
    "I'm you'RE we'Ll it's 1 12 123 1234 12345 3x4y \xc3\xa9t\xc3\xa9 e\xcc\x81 HelloWorld fooBAR Don't \xe2\x80\x99s\n\n  "
    "\xe4\xb8\xad\xe6\x96\x87\xe5\xad\x97"
    "abc \xe3\x81\x8b\xe3\x83\x8a \xed\x95\x9c\xea\xb5\xad\xec\x96\xb4 (a) $b _c d/e//f\n/g http://x.y/z?q=1 \t\tif (x) {\r\n"
    "  y = \xd9\xa1\xd9\xa2\xd9\xa3;   \xf0\x9f\x99\x82\xf0\x9f\x99\x82!?  ...,\xe3\x80\x82 \xc5\xbdlu\xc5\xa5 "
    "\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82 \xe0\xa4\xb9\xe0\xa4\xbf  ";

static hf_status note_piece(void *user, const char *piece, size_t n) {
  HF_TRY(hf_buf_add(user, piece, n));
  return hf_buf_add(user, "\0", 1);
}

static hf_status pieces_of(const tok_splitter *s, hf_buf *out) {
  hf_buf_init(out, 1 << 16);
  return tok_split(s, probe, sizeof probe - 1, note_piece, out);
}

static hf_status same_split(const tok_splitter *a, const tok_splitter *b, bool *same) {
  hf_buf x, y;
  hf_buf_init(&y, 1 << 16);
  hf_status st = pieces_of(a, &x);
  if (st == HF_OK) st = pieces_of(b, &y);
  *same = st == HF_OK && x.len == y.len && !memcmp(x.data, y.data, x.len);
  hf_buf_free(&x);
  hf_buf_free(&y);
  return st;
}

/* The name under which GGUF knows the tokenizer's splitting rule. */
static hf_status pre_name(const tokenizer *t, const char **out) {
  static const char *const names[] = {"gpt-2",  "deepseek-v3", "qwen2",        "llama-bpe",      "glm4",
                                      "gpt-4o", "tekken",      "deepseek-llm", "deepseek-coder", "kimi-k2"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    tok_splitter s = {0};
    bool ignore = false, same = false;
    hf_status st = tok_pre_named(t->where, names[i], &s, &ignore);
    /* where merges follow from ids, a word that is a token is merged to it */
    if (st == HF_OK && (t->vocab.by_text || ignore == t->vocab.ignore_merges)) st = same_split(&t->splitter, &s, &same);
    tok_split_free(&s);
    if (st != HF_OK) return st;
    if (same) {
      *out = names[i];
      return HF_OK;
    }
  }
  return hf_fail(HF_UNSUPPORTED, "%s: pre_tokenizer: GGUF has no name for this splitting rule", t->where);
}

/* ---- texts of tokens ---- */

/* A byte as byte-level vocabularies write it. */
static hf_status put_byte(hf_buf *b, uint8_t c) {
  bool own = (c >= 0x21 && c <= 0x7e) || (c >= 0xa1 && c <= 0xac) || c >= 0xae;
  int cp = own ? c : c < 0x21 ? 0x100 + c : c == 0xad ? 0x143 : 0x121 + c - 0x7f;
  char utf8[2] = {(char)(0xc0 | cp >> 6), (char)(0x80 | (cp & 63))};
  return cp < 0x80 ? hf_buf_add(b, &c, 1) : hf_buf_add(b, utf8, 2);
}

static const char *bytes_of(const tok_vocab *v, int32_t id) {
  return v->pool.data + v->tok[id].offset;
}

/* Appends the token as the vocabulary writes it. */
static hf_status token_text(const tok_vocab *v, int32_t id, hf_buf *b) {
  const tok_entry *e = &v->tok[id];
  const char *s = bytes_of(v, id);
  if (e->kind != TOK_NORMAL || (!v->chars && !e->in_hash)) return hf_buf_add(b, s, e->len);
  for (uint32_t i = 0; i < e->len; i++) {
    if (!v->chars) HF_TRY(put_byte(b, (uint8_t)s[i]));
    else HF_TRY(s[i] == ' ' ? hf_buf_add(b, TOK_SPM_BLANK, 3) : hf_buf_add(b, s + i, 1));
  }
  return HF_OK;
}

static int byte_of(const tok_vocab *v, int32_t id) {
  for (int b = 0; v->chars && b < 256; b++)
    if (v->byte_id[b] == id) return b;
  return -1;
}

static int type_of(const tok_vocab *v, int32_t id) {
  if (id >= v->n || v->tok[id].kind == TOK_HOLE) return TOK_TYPE_UNUSED;
  if (v->tok[id].kind == TOK_SPECIAL) return TOK_TYPE_CONTROL;
  if (v->tok[id].kind == TOK_ADDED) return TOK_TYPE_USER_DEFINED;
  return byte_of(v, id) >= 0 ? TOK_TYPE_BYTE : TOK_TYPE_NORMAL;
}

static hf_status put_tokens(gguf_head *h, const tok_vocab *v, int vocab_size) {
  hf_buf b;
  hf_buf_init(&b, (size_t)TOK_MAX_FILE);
  hf_status st = HF_OK;
  gguf_put_array(h, "tokenizer.ggml.tokens", GGUF_STR, (uint64_t)vocab_size);
  for (int i = 0; i < vocab_size && st == HF_OK; i++) {
    int type = type_of(v, i), byte = type == TOK_TYPE_BYTE ? byte_of(v, i) : -1;
    b.len = 0;
    if (type == TOK_TYPE_UNUSED) st = hf_buf_printf(&b, "[PAD%d]", i);
    else if (byte >= 0) st = hf_buf_printf(&b, "<0x%02X>", byte);
    else st = token_text(v, i, &b);
    gguf_put_text(h, b.data ? b.data : "", b.len);
  }
  hf_buf_free(&b);
  gguf_put_array(h, "tokenizer.ggml.token_type", GGUF_I32, (uint64_t)vocab_size);
  for (int i = 0; i < vocab_size; i++) gguf_put_u32(h, (uint32_t)type_of(v, i));
  return st;
}

/* ---- merges ---- */

typedef struct {
  int32_t left, right;
} pair;

static int by_rank(const void *a, const void *b) {
  const tok_merge *x = a, *y = b;
  return (x->rank > y->rank) - (x->rank < y->rank);
}

/* The listed merges in order. */
static hf_status listed(const tok_vocab *v, pair **out, int *n) {
  tok_merge *m = NULL;
  HF_TRY(hf_alloc(&m, (size_t)v->merge_used + 1, sizeof *m, "merges"));
  for (uint32_t i = 0; i < v->merge_cap; i++)
    if (v->merge[i].rank >= 0) m[(*n)++] = v->merge[i];
  qsort(m, (size_t)*n, sizeof *m, by_rank);
  hf_status st = hf_alloc(out, (size_t)*n + 1, sizeof **out, "merges");
  for (int i = 0; i < *n && st == HF_OK; i++) (*out)[i] = (pair){(int32_t)(m[i].key >> 32), (int32_t)(uint32_t)m[i].key};
  free(m);
  return st;
}

/* tiktoken: how a token is spelled from lower ones: its bytes are merged by tokens of lower ids until two are left. */
static bool spelled(const tok_vocab *v, int32_t id, pair *out) {
  enum { LONGEST = 1024 };
  uint16_t at[LONGEST + 1];
  int n = (int)v->tok[id].len;
  const char *s = bytes_of(v, id);
  if (n < 2 || n > LONGEST) return false;
  for (int i = 0; i <= n; i++) at[i] = (uint16_t)i;
  while (n > 2) {
    int best = -1;
    int32_t least = id;
    for (int i = 0; i + 2 <= n; i++) {
      int32_t x = tok_vocab_find(v, s + at[i], (size_t)(at[i + 2] - at[i]));
      if (x >= 0 && x < least) best = i, least = x;
    }
    if (best < 0) return false;
    memmove(&at[best + 1], &at[best + 2], (size_t)(n - best - 1) * sizeof *at);
    n--;
  }
  out->left = tok_vocab_find(v, s, at[1]);
  out->right = tok_vocab_find(v, s + at[1], (size_t)(at[2] - at[1]));
  return out->left >= 0 && out->right >= 0;
}

static hf_status derived(const tok_vocab *v, pair **out, int *n) {
  HF_TRY(hf_alloc(out, (size_t)v->n + 1, sizeof **out, "merges"));
  for (int id = 0; id < v->n; id++)
    if (v->tok[id].kind == TOK_NORMAL && spelled(v, id, &(*out)[*n])) (*n)++;
  return HF_OK;
}

static hf_status put_merges(gguf_head *h, const tok_vocab *v) {
  pair *p = NULL;
  int n = 0;
  hf_status st = v->by_text ? derived(v, &p, &n) : listed(v, &p, &n);
  hf_buf b;
  hf_buf_init(&b, (size_t)TOK_MAX_FILE);
  if (st == HF_OK) gguf_put_array(h, "tokenizer.ggml.merges", GGUF_STR, (uint64_t)n);
  for (int i = 0; i < n && st == HF_OK; i++) {
    b.len = 0;
    st = token_text(v, p[i].left, &b);
    if (st == HF_OK) st = hf_buf_add(&b, " ", 1);
    if (st == HF_OK) st = token_text(v, p[i].right, &b);
    gguf_put_text(h, b.data ? b.data : "", b.len);
  }
  hf_buf_free(&b);
  free(p);
  return st;
}

/* SentencePiece: the higher score merges first. A token that several merges make has the first one's. */
static hf_status put_scores(gguf_head *h, const tok_vocab *v, int vocab_size) {
  float *score = NULL;
  HF_TRY(hf_alloc(&score, (size_t)vocab_size, sizeof *score, "scores"));
  for (int i = 0; i < vocab_size && i < v->n; i++)
    if (v->tok[i].kind == TOK_NORMAL) score[i] = v->by_text ? -(float)(v->rank ? v->rank[i] : i) : -1e6f;
  for (uint32_t i = 0; i < v->merge_cap; i++)
    if (v->merge[i].rank >= 0 && v->merge[i].id < vocab_size && score[v->merge[i].id] < -(float)v->merge[i].rank)
      score[v->merge[i].id] = -(float)v->merge[i].rank;
  gguf_put_array(h, "tokenizer.ggml.scores", GGUF_F32, (uint64_t)vocab_size);
  for (int i = 0; i < vocab_size; i++) {
    uint32_t u;
    memcpy(&u, &score[i], sizeof u);
    gguf_put_u32(h, u);
  }
  free(score);
  return HF_OK;
}

static void put_ends(gguf_head *h, const tokenizer *t, const model_config *c) {
  int eos = t->eos >= 0 ? t->eos : c->n_eos ? c->eos_ids[0] : -1;
  if (t->bos >= 0) gguf_put_int(h, "tokenizer.ggml.bos_token_id", t->bos);
  if (eos >= 0) gguf_put_int(h, "tokenizer.ggml.eos_token_id", eos);
  for (int i = 0; i < c->n_eos; i++)
    if (c->eos_ids[i] != eos) {
      gguf_put_int(h, "tokenizer.ggml.eot_token_id", c->eos_ids[i]);
      break;
    }
  gguf_put_bool(h, "tokenizer.ggml.add_bos_token", t->adds_bos);
  if (t->chat_template) gguf_put_str(h, "tokenizer.chat_template", t->chat_template);
}

hf_status tok_put_gguf(const tokenizer *t, const model_config *c, gguf_head *h) {
  const tok_vocab *v = &t->vocab;
  if (v->n > c->vocab_size)
    return hf_fail(HF_INPUT, "%s: %d tokens, but the model has rows for %d", t->where, v->n, c->vocab_size);
  if (v->chars) {
    gguf_put_str(h, "tokenizer.ggml.model", "llama");
    gguf_put_str(h, "tokenizer.ggml.pre", "default");
    HF_TRY(put_tokens(h, v, c->vocab_size));
    HF_TRY(put_scores(h, v, c->vocab_size));
    gguf_put_bool(h, "tokenizer.ggml.add_space_prefix", t->prefix != PREFIX_NONE);
  } else {
    const char *pre = NULL;
    if (t->prefix != PREFIX_NONE)
      return hf_fail(HF_UNSUPPORTED, "%s: pre_tokenizer: GGUF cannot say ByteLevel.add_prefix_space", t->where);
    HF_TRY(pre_name(t, &pre));
    gguf_put_str(h, "tokenizer.ggml.model", "gpt2");
    gguf_put_str(h, "tokenizer.ggml.pre", pre);
    HF_TRY(put_tokens(h, v, c->vocab_size));
    HF_TRY(put_merges(h, v));
  }
  put_ends(h, t, c);
  return HF_OK;
}
