/* tokenizer_vocab.c: the vocabulary and the merge loop of BPE.
 *
 * A word starts as one symbol per byte (SentencePiece: per character); again and again the adjacent pair with the lowest rank is merged
 * (the leftmost of equals). The rank of a pair is that of its merge, or where there are no merges (v->by_text) that of the token which
 * the two spell together. Candidate pairs wait in a binary heap ordered by (rank, position); a pair whose symbols have changed
 * since is dropped when it comes up. Each merge adds at most two pairs, so a word of n bytes costs
 * O(n log n), long ones included. */
#include "base/text.h"
#include "model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

void tok_vocab_init(tok_vocab *v) {
  memset(v, 0, sizeof *v);
  hf_buf_init(&v->pool, (size_t)TOK_MAX_FILE);
  for (int b = 0; b < 256; b++) v->byte_id[b] = -1;
}

void tok_vocab_free(tok_vocab *v) {
  free(v->tok);
  free(v->hash);
  free(v->merge);
  free(v->rank);
  hf_buf_free(&v->pool);
}

/* The alphabet: printable Latin-1 bytes stand for themselves, the 68 others for U+0100 onwards in order. */
static int byte_of_char(uint32_t cp) {
  if ((cp >= 0x21 && cp <= 0x7e) || (cp >= 0xa1 && cp <= 0xac) || (cp >= 0xae && cp <= 0xff)) return (int)cp;
  if (cp >= 0x100 && cp <= 0x120) return (int)(cp - 0x100);        /* 00 .. 20 */
  if (cp >= 0x121 && cp <= 0x142) return (int)(cp - 0x121 + 0x7f); /* 7f .. a0 */
  if (cp == 0x143) return 0xad;
  return -1;
}

/* Text of the alphabet to bytes; false when a character lies outside it. bytes has room for n. */
static bool to_bytes(const char *text, size_t n, char *bytes, size_t *n_bytes) {
  size_t at = 0;
  *n_bytes = 0;
  while (at < n) {
    uint32_t cp = 0;
    int len = hf_utf8(text + at, n - at, &cp);
    int b = len > 0 ? byte_of_char(cp) : -1;
    if (b < 0) return false;
    bytes[(*n_bytes)++] = (char)b;
    at += (size_t)len;
  }
  return true;
}

/* SentencePiece writes a blank as U+2581. Never longer than the text. */
static void to_blanks(const char *text, size_t n, char *bytes, size_t *n_bytes) {
  *n_bytes = 0;
  for (size_t at = 0; at < n;) {
    bool blank = n - at >= 3 && !memcmp(text + at, TOK_SPM_BLANK, 3);
    bytes[(*n_bytes)++] = blank ? ' ' : text[at];
    at += blank ? 3 : 1;
  }
}

/* How the vocabulary writes text, back to plain bytes. */
static bool plain_bytes(const tok_vocab *v, const char *text, size_t n, char *bytes, size_t *n_bytes) {
  if (!v->chars) return to_bytes(text, n, bytes, n_bytes);
  to_blanks(text, n, bytes, n_bytes);
  return true;
}

static uint64_t mix(uint64_t h) {
  h ^= h >> 31;
  h *= 0x9e3779b97f4a7c15u;
  return h ^ (h >> 29);
}

static uint32_t hash_bytes(const char *s, size_t n) {
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
  return (uint32_t)mix(h);
}

static const char *bytes_of(const tok_vocab *v, int32_t id) {
  return v->pool.data + v->tok[id].offset;
}

static uint32_t hash_slot(const tok_vocab *v, const char *bytes, size_t n) {
  uint32_t mask = v->hash_cap - 1, i = hash_bytes(bytes, n) & mask;
  while (v->hash[i] >= 0) {
    const tok_entry *e = &v->tok[v->hash[i]];
    if (e->len == n && memcmp(v->pool.data + e->offset, bytes, n) == 0) break;
    i = (i + 1) & mask;
  }
  return i;
}

int32_t tok_vocab_find(const tok_vocab *v, const char *bytes, size_t n) {
  return v->hash_cap == 0 ? -1 : v->hash[hash_slot(v, bytes, n)];
}

static hf_status hash_grow(tok_vocab *v) {
  if (v->hash_cap >= 2 * (v->hash_used + 1)) return HF_OK;
  uint32_t cap = v->hash_cap ? 2 * v->hash_cap : 1024;
  int32_t *fresh = NULL;
  HF_TRY(hf_alloc(&fresh, cap, sizeof *fresh, "the vocabulary's hash table"));
  free(v->hash);
  v->hash = fresh;
  v->hash_cap = cap;
  memset(fresh, 0xff, cap * sizeof *fresh);
  for (int id = 0; id < v->n; id++) {
    if (v->tok[id].in_hash) fresh[hash_slot(v, bytes_of(v, id), v->tok[id].len)] = id;
  }
  return HF_OK;
}

/* Makes entry `id` exist (as a hole) and checks the id. */
static hf_status reserve(tok_vocab *v, const char *where, int64_t id) {
  if (id < 0 || id >= TOK_MAX_ID) {
    return hf_fail(HF_INPUT, "%s: token id %lld lies outside 0..%d", where, (long long)id, TOK_MAX_ID - 1);
  }
  if (id >= v->cap) {
    int cap = v->cap ? v->cap : 4096;
    while (cap <= id) cap *= 2;
    HF_TRY(hf_realloc(&v->tok, (size_t)cap, sizeof *v->tok, "the vocabulary"));
    memset(v->tok + v->cap, 0, (size_t)(cap - v->cap) * sizeof *v->tok);
    v->cap = cap;
  }
  if (id >= v->n) v->n = (int)id + 1;
  return HF_OK;
}

static hf_status put_bytes(tok_vocab *v, tok_entry *e, const char *bytes, size_t n) {
  e->offset = (uint32_t)v->pool.len;
  e->len = (uint32_t)n;
  return hf_buf_add(&v->pool, bytes, n);
}

/* Makes an entry reachable by its bytes. */
static hf_status put_in_hash(tok_vocab *v, const char *where, int64_t id) {
  HF_TRY(hash_grow(v));
  uint32_t slot = hash_slot(v, bytes_of(v, (int32_t)id), v->tok[id].len);
  if (v->hash[slot] >= 0)
    return hf_fail(HF_INPUT, "%s: tokens %d and %lld have the same text", where, v->hash[slot], (long long)id);
  v->hash[slot] = (int32_t)id;
  v->hash_used++;
  v->tok[id].in_hash = true;
  return HF_OK;
}

static hf_status put_new(tok_vocab *v, const char *where, const char *bytes, size_t n, int64_t id) {
  HF_TRY(reserve(v, where, id));
  tok_entry *e = &v->tok[id];
  if (e->kind != TOK_HOLE) return hf_fail(HF_INPUT, "%s: token id %lld is given twice", where, (long long)id);
  HF_TRY(put_bytes(v, e, bytes, n));
  e->kind = TOK_NORMAL;
  return HF_OK;
}

hf_status tok_vocab_add(tok_vocab *v, const char *where, const char *text, size_t n, int64_t id) {
  HF_TRY(put_new(v, where, text, n, id));
  tok_entry *e = &v->tok[id];
  size_t n_bytes = 0;
  char *own = v->pool.data + e->offset;
  char *decoded = NULL;
  HF_TRY(hf_alloc(&decoded, n + 1, 1, "a token"));
  bool plain = n > 0 && plain_bytes(v, own, n, decoded, &n_bytes);
  if (plain) {
    memcpy(own, decoded, n_bytes);
    e->len = (uint32_t)n_bytes;
    v->pool.len = e->offset + n_bytes;
  }
  free(decoded);
  return plain ? put_in_hash(v, where, id) : HF_OK;
}

hf_status tok_vocab_add_bytes(tok_vocab *v, const char *where, const char *bytes, size_t n, int64_t id) {
  if (n == 0) return hf_fail(HF_INPUT, "%s: token %lld has no bytes", where, (long long)id);
  HF_TRY(put_new(v, where, bytes, n, id));
  return put_in_hash(v, where, id);
}

hf_status tok_vocab_add_byte(tok_vocab *v, const char *where, const char *text, size_t n, int64_t id, bool *is_byte) {
  static const char hex[] = "0123456789ABCDEF";
  const char *hi = n == 6 && text[3] ? strchr(hex, text[3]) : NULL, *lo = n == 6 && text[4] ? strchr(hex, text[4]) : NULL;
  *is_byte = hi && lo && !memcmp(text, "<0x", 3) && text[5] == '>';
  if (!*is_byte) return HF_OK;
  char byte = (char)((hi - hex) * 16 + (lo - hex));
  if (v->byte_id[(unsigned char)byte] >= 0) return hf_fail(HF_INPUT, "%s: byte token %.6s is given twice", where, text);
  HF_TRY(put_new(v, where, &byte, 1, id));
  v->byte_id[(unsigned char)byte] = (int32_t)id;
  return HF_OK;
}

hf_status tok_vocab_add_plain(tok_vocab *v, const char *where, const char *text, size_t n, int64_t id, tok_kind kind) {
  HF_TRY(reserve(v, where, id));
  tok_entry *e = &v->tok[id];
  if (e->kind == TOK_ADDED || e->kind == TOK_SPECIAL) {
    return hf_fail(HF_INPUT, "%s: added token id %lld is given twice", where, (long long)id);
  }
  /* An entry reachable by its bytes keeps them: hash table and merges refer to them. */
  if (e->in_hash && (e->len != n || memcmp(bytes_of(v, (int32_t)id), text, n) != 0)) {
    return hf_fail(HF_INPUT, "%s: added token id %lld has another text in the vocabulary", where, (long long)id);
  }
  e->kind = (uint8_t)kind;
  return e->in_hash ? HF_OK : put_bytes(v, e, text, n);
}

hf_status tok_vocab_finish(tok_vocab *v, const char *where) {
  for (int b = 0; b < 256; b++) {
    char c = (char)b;
    if (v->chars && v->byte_id[b] < 0)
      return hf_fail(HF_UNSUPPORTED, "%s: no byte token <0x%02X>: SentencePiece without byte fallback is not supported", where,
                     (unsigned)b);
    if (!v->chars) v->byte_id[b] = tok_vocab_find(v, &c, 1);
  }
  return HF_OK;
}

typedef struct {
  float score;
  int32_t id;
} scored;

static int by_score(const void *a, const void *b) {
  const scored *x = a, *y = b;
  return x->score != y->score ? (x->score < y->score ? 1 : -1) : x->id - y->id;
}

hf_status tok_vocab_rank_by_score(tok_vocab *v, const char *where, const float *score) {
  scored *order = NULL;
  HF_TRY(hf_alloc(&v->rank, (size_t)v->n, sizeof *v->rank, "ranks of tokens"));
  HF_TRY(hf_alloc(&order, (size_t)v->n, sizeof *order, "ranks of tokens"));
  hf_status st = HF_OK;
  for (int i = 0; i < v->n && st == HF_OK; i++) {
    order[i] = (scored){score[i], i};
    if (score[i] != score[i]) st = hf_fail(HF_INPUT, "%s: the score of token %d is not a number", where, i);
  }
  if (st == HF_OK) {
    qsort(order, (size_t)v->n, sizeof *order, by_score);
    for (int i = 0, rank = 0; i < v->n; i++) {
      if (i > 0 && order[i].score != order[i - 1].score) rank++;
      v->rank[order[i].id] = rank;
    }
  }
  free(order);
  return st;
}

/* --- merges ---------------------------------------------------------------------------------------------------- */

hf_status tok_vocab_begin_merges(tok_vocab *v, int n_merges) {
  uint32_t cap = 64;
  while (cap < 2 * (uint64_t)n_merges + 2) cap *= 2;
  HF_TRY(hf_alloc(&v->merge, cap, sizeof *v->merge, "the merge table"));
  v->merge_cap = cap;
  for (uint32_t i = 0; i < cap; i++) v->merge[i].rank = -1;
  return HF_OK;
}

static tok_merge *merge_slot(const tok_vocab *v, uint64_t key) {
  uint32_t mask = v->merge_cap - 1, i = (uint32_t)mix(key * 0x9e3779b97f4a7c15u) & mask;
  while (v->merge[i].rank >= 0 && v->merge[i].key != key) i = (i + 1) & mask;
  return &v->merge[i];
}

static uint64_t pair_key(int32_t left, int32_t right) {
  return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

hf_status tok_vocab_add_merge(tok_vocab *v, const char *where, int rank, const char *left, size_t n_left, const char *right,
                              size_t n_right) {
  if (n_left == 0 || n_right == 0) return hf_fail(HF_INPUT, "%s: merge %d has an empty part", where, rank);
  char *bytes = NULL;
  size_t a = 0, b = 0;
  HF_TRY(hf_alloc(&bytes, n_left + n_right, 1, "a merge"));
  bool plain = plain_bytes(v, left, n_left, bytes, &a) && plain_bytes(v, right, n_right, bytes + a, &b);
  int32_t l = plain ? tok_vocab_find(v, bytes, a) : -1;
  int32_t r = plain ? tok_vocab_find(v, bytes + a, b) : -1;
  int32_t both = plain ? tok_vocab_find(v, bytes, a + b) : -1;
  free(bytes);
  if (l < 0 || r < 0 || both < 0) {
    return hf_fail(HF_INPUT, "%s: merge %d ('%.*s' + '%.*s'): %s is not in the vocabulary", where, rank,
                   (int)(n_left < 40 ? n_left : 40), left, (int)(n_right < 40 ? n_right : 40), right,
                   l < 0   ? "the left part"
                   : r < 0 ? "the right part"
                           : "the result");
  }
  tok_merge *m = merge_slot(v, pair_key(l, r));
  if (m->rank >= 0) return hf_fail(HF_INPUT, "%s: merges %d and %d are the same", where, m->rank, rank);
  *m = (tok_merge){pair_key(l, r), rank, both};
  v->merge_used++;
  return HF_OK;
}

hf_status tok_vocab_add_merge_line(tok_vocab *v, const char *where, int rank, const char *line, size_t n) {
  const char *blank = memchr(line, ' ', n);
  if (!blank) return hf_fail(HF_INPUT, "%s: merge %d has no blank between its two parts", where, rank);
  size_t a = (size_t)(blank - line);
  return tok_vocab_add_merge(v, where, rank, line, a, blank + 1, n - a - 1);
}

/* --- the merge loop -------------------------------------------------------------------------------------------- */

enum { GONE = -1, NO_TOKEN = -2 };

typedef struct {
  int32_t id, prev, next; /* id GONE: merged into another; NO_TOKEN: a character that no token spells; prev, next -1: end */
  uint32_t at, len;       /* bytes of the word */
} symbol;

typedef struct {
  int32_t rank, left, id;       /* left: index of the symbol; id: what the pair becomes */
  uint32_t left_len, right_len; /* a symbol that has another length by now is another one */
} candidate;

typedef struct {
  const tok_vocab *v;
  const char *word;
  symbol *sym;
  candidate *heap;
  size_t n_heap;
} merger;

static bool before(const candidate *a, const candidate *b) {
  return a->rank != b->rank ? a->rank < b->rank : a->left < b->left;
}

static void heap_push(merger *m, candidate c) {
  size_t i = m->n_heap++;
  while (i > 0 && before(&c, &m->heap[(i - 1) / 2])) {
    m->heap[i] = m->heap[(i - 1) / 2];
    i = (i - 1) / 2;
  }
  m->heap[i] = c;
}

static candidate heap_pop(merger *m) {
  candidate top = m->heap[0], last = m->heap[--m->n_heap];
  size_t i = 0;
  for (;;) {
    size_t child = 2 * i + 1;
    if (child >= m->n_heap) break;
    if (child + 1 < m->n_heap && before(&m->heap[child + 1], &m->heap[child])) child++;
    if (!before(&m->heap[child], &last)) break;
    m->heap[i] = m->heap[child];
    i = child;
  }
  m->heap[i] = last;
  return top;
}

static void push_pair(merger *m, int32_t left) {
  if (left < 0 || m->sym[left].next < 0) return;
  const symbol *l = &m->sym[left], *r = &m->sym[l->next];
  candidate c = {-1, left, -1, l->len, r->len};
  if (m->v->by_text) {
    c.id = tok_vocab_find(m->v, m->word + l->at, (size_t)l->len + r->len);
    if (c.id >= 0) c.rank = m->v->rank ? m->v->rank[c.id] : c.id;
  } else {
    const tok_merge *e = merge_slot(m->v, pair_key(l->id, r->id));
    c.rank = e->rank;
    c.id = e->id;
  }
  if (c.rank >= 0) heap_push(m, c);
}

static void merge_all(merger *m) {
  while (m->n_heap > 0) {
    candidate c = heap_pop(m);
    symbol *l = &m->sym[c.left];
    if (l->id == GONE || l->len != c.left_len || l->next < 0 || m->sym[l->next].len != c.right_len) continue;
    symbol *r = &m->sym[l->next];
    l->id = c.id;
    l->len += r->len;
    l->next = r->next;
    if (r->next >= 0) m->sym[r->next].prev = c.left;
    r->id = GONE;
    push_pair(m, l->prev);
    push_pair(m, c.left);
  }
}

hf_status tok_ids_push(tok_ids *o, int32_t id) {
  if (o->n == o->cap) {
    int cap = o->cap ? 2 * o->cap : 64;
    HF_TRY(hf_realloc(&o->id, (size_t)cap, sizeof *o->id, "token ids"));
    o->cap = cap;
  }
  o->id[o->n++] = id;
  return HF_OK;
}

void tok_scratch_free(tok_scratch *s) {
  free(s->sym);
  free(s->heap);
}

static hf_status scratch_room(tok_scratch *s, size_t n) {
  if (n > s->sym_cap) {
    HF_TRY(hf_realloc(&s->sym, n + n / 2, sizeof(symbol), "a word"));
    s->sym_cap = n + n / 2;
  }
  /* n-1 pairs at first, two more for each of at most n-1 merges */
  if (3 * n > s->heap_cap) {
    HF_TRY(hf_realloc(&s->heap, 4 * n, sizeof(candidate), "a word"));
    s->heap_cap = 4 * n;
  }
  return HF_OK;
}

/* A character without a token is written as its bytes. */
static hf_status push_symbol(const tok_vocab *v, const char *word, const symbol *s, tok_ids *out) {
  if (s->id >= 0) return tok_ids_push(out, s->id);
  for (uint32_t i = 0; i < s->len; i++) HF_TRY(tok_ids_push(out, v->byte_id[(unsigned char)word[s->at + i]]));
  return HF_OK;
}

hf_status tok_vocab_word(const tok_vocab *v, tok_scratch *s, const char *word, size_t n, tok_ids *out) {
  if (n == 0) return HF_OK;
  if (v->ignore_merges || n == 1) {
    int32_t id = tok_vocab_find(v, word, n);
    if (id >= 0) return tok_ids_push(out, id);
  }
  HF_TRY(scratch_room(s, n));
  merger m = {v, word, s->sym, s->heap, 0};
  int32_t n_sym = 0;
  for (size_t at = 0, len; at < n; at += len, n_sym++) {
    int chars = v->chars ? hf_utf8(word + at, n - at, NULL) : 1;
    len = chars > 0 ? (size_t)chars : 1;
    int32_t id = v->chars ? tok_vocab_find(v, word + at, len) : v->byte_id[(unsigned char)word[at]];
    if (id < 0 && !v->chars)
      return hf_fail(HF_INPUT, "the vocabulary has no token for byte 0x%02x of the text", (unsigned char)word[at]);
    m.sym[n_sym] = (symbol){id < 0 ? NO_TOKEN : id, n_sym - 1, at + len < n ? n_sym + 1 : -1, (uint32_t)at, (uint32_t)len};
  }
  if (v->merge_used > 0 || v->by_text) {
    for (int32_t i = 0; i + 1 < n_sym; i++) push_pair(&m, i);
    merge_all(&m);
  }
  for (int32_t i = 0; i >= 0; i = m.sym[i].next) HF_TRY(push_symbol(v, word, &m.sym[i], out));
  return HF_OK;
}
