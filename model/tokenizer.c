/* tokenizer.c: opening, encoding, decoding. */
#include "base/text.h"
#include "model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ARENA_LIMIT = 64 << 20, MAX_CONFIG = 16 << 20 };

/* --- UTF-8 ----------------------------------------------------------------------------------------------------- */

size_t utf8_complete_prefix(const char *bytes, size_t n) {
  /* Only a sequence that is right so far and merely too short is held back; anything invalid may go out. */
  for (size_t back = 1; back <= 3 && back <= n; back++) {
    unsigned char c = (unsigned char)bytes[n - back];
    if ((c & 0xc0) == 0x80) continue;
    size_t len = c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 1;
    return len > back ? n - back : n;
  }
  return n;
}

static size_t valid_run(const char *s, size_t n) {
  size_t at = 0;
  for (int len; at < n && (len = hf_utf8(s + at, n - at, NULL)) > 0;) at += (size_t)len;
  return at;
}

static size_t invalid_run(const char *s, size_t n) {
  size_t at = 0;
  while (at < n && hf_utf8(s + at, n - at, NULL) == 0) at++;
  return at;
}

/* --- added tokens ---------------------------------------------------------------------------------------------- */

static int compare_bytes(const char *a, size_t na, const char *b, size_t nb) {
  int c = memcmp(a, b, na < nb ? na : nb);
  return c != 0 ? c : (na > nb) - (na < nb);
}

static int compare_added(const void *a, const void *b) {
  const tok_added *x = a, *y = b;
  return compare_bytes(x->text, x->n, y->text, y->n);
}

void tok_sort_added(tokenizer *t) {
  if (t->n_added > 1) qsort(t->added, (size_t)t->n_added, sizeof *t->added, compare_added);
}

hf_status tok_add_added(tokenizer *t, const char *where, const tok_added *a) {
  if (a->n == 0) return hf_fail(HF_INPUT, "%s: added token %d has no text", where, a->id);
  if (t->n_added == t->cap_added) {
    int cap = t->cap_added ? 2 * t->cap_added : 64;
    HF_TRY(hf_realloc(&t->added, (size_t)cap, sizeof *t->added, "added tokens"));
    t->cap_added = cap;
  }
  tok_added *own = &t->added[t->n_added];
  *own = *a;
  char *copy = NULL;
  HF_TRY(hf_arena_str(t->arena, &copy, a->text, a->n));
  own->text = copy;
  t->n_added++;
  return tok_vocab_add_plain(&t->vocab, where, a->text, a->n, a->id, a->special ? TOK_SPECIAL : TOK_ADDED);
}

int32_t tok_find_added(const tokenizer *t, const char *text) {
  tok_added key = {.text = text, .n = strlen(text)};
  const tok_added *a = t->n_added ? bsearch(&key, t->added, (size_t)t->n_added, sizeof key, compare_added) : NULL;
  return a ? a->id : -1;
}

/* First index in [lo, hi) whose byte at `depth` is >= c (> c when after). All of them agree on the bytes before. */
static int narrow(const tokenizer *t, int lo, int hi, size_t depth, int c, bool after) {
  while (lo < hi) {
    int mid = lo + (hi - lo) / 2;
    const tok_added *a = &t->added[mid];
    int b = depth < a->n ? (unsigned char)a->text[depth] : -1;
    if (b < c || (after && b == c)) lo = mid + 1;
    else hi = mid;
  }
  return lo;
}

/* The longest added token that starts here, or NULL. */
static const tok_added *match_added(const tokenizer *t, const char *s, size_t n, bool special) {
  const tok_added *best = NULL;
  int lo = 0, hi = t->n_added;
  for (size_t depth = 0; depth < n && lo < hi; depth++) {
    int c = (unsigned char)s[depth];
    lo = narrow(t, lo, hi, depth, c, false);
    hi = narrow(t, lo, hi, depth, c, true);
    if (lo < hi && t->added[lo].n == depth + 1 && (special || !t->added[lo].special)) best = &t->added[lo];
  }
  return best;
}

/* --- encode ---------------------------------------------------------------------------------------------------- */

typedef struct {
  const tokenizer *t;
  tok_ids ids;
  tok_scratch scratch;
  bool begun; /* something of the text is behind us */
} encoder;

static hf_status on_piece(void *user, const char *piece, size_t n) {
  encoder *e = user;
  return tok_vocab_word(&e->t->vocab, &e->scratch, piece, n, &e->ids);
}

static bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool wants_prefix(const encoder *e, char first) {
  bool missing = e->t->vocab.chars ? first != ' ' : !is_space(first);
  switch (e->t->prefix) {
    case PREFIX_NONE: return false;
    case PREFIX_ALWAYS: return true;
    case PREFIX_IF_MISSING: return missing;
    case PREFIX_FIRST_IF_MISSING: return missing && !e->begun;
  }
  return false;
}

/* To SentencePiece a U+2581 of the text is a blank. */
static hf_status add_with_blanks(hf_buf *out, const char *s, size_t n) {
  while (n > 0) {
    const char *mark = memmem(s, n, TOK_SPM_BLANK, 3);
    size_t k = mark ? (size_t)(mark - s) : n;
    HF_TRY(hf_buf_add(out, s, k));
    if (!mark) return HF_OK;
    HF_TRY(hf_buf_add(out, " ", 1));
    s += k + 3, n -= k + 3;
  }
  return HF_OK;
}

/* Valid UTF-8 without added tokens. */
static hf_status encode_valid(encoder *e, const char *s, size_t n, bool prefix) {
  const tokenizer *t = e->t;
  hf_buf own;
  hf_buf_init(&own, (size_t)4 * TOK_MAX_TEXT);
  hf_status st = HF_OK;
  bool same = true;
  if (prefix) HF_GO(out, hf_buf_add(&own, " ", 1));
  if (t->nfc) HF_GO(out, tok_nfc(s, n, &own, &same));
  if (same && t->vocab.chars) HF_GO(out, add_with_blanks(&own, s, n));
  else if (same && prefix) HF_GO(out, hf_buf_add(&own, s, n));
  bool use_own = prefix || !same || t->vocab.chars;
  st = tok_split(&t->splitter, use_own ? own.data : s, use_own ? own.len : n, on_piece, e);
out:
  hf_buf_free(&own);
  return st;
}

static hf_status encode_segment(encoder *e, const char *s, size_t n) {
  bool prefix = n > 0 && wants_prefix(e, s[0]);
  while (n > 0) {
    size_t good = valid_run(s, n);
    if (good > 0) HF_TRY(encode_valid(e, s, good, prefix));
    prefix = false;
    s += good, n -= good;
    size_t bad = invalid_run(s, n);
    for (size_t i = 0; i < bad; i++) HF_TRY(on_piece(e, s + i, 1));
    s += bad, n -= bad;
    e->begun = true;
  }
  return HF_OK;
}

static hf_status encode_text(encoder *e, const char *s, size_t n, bool special) {
  size_t begin = 0, at = 0;
  while (at < n) {
    const tok_added *a = match_added(e->t, s + at, n - at, special);
    if (!a) {
      at++;
      continue;
    }
    size_t end = at, next = at + a->n;
    while (a->lstrip && end > begin && is_space(s[end - 1])) end--;
    while (a->rstrip && next < n && is_space(s[next])) next++;
    HF_TRY(encode_segment(e, s + begin, end - begin));
    HF_TRY(tok_ids_push(&e->ids, a->id));
    e->begun = true;
    begin = at = next;
  }
  return encode_segment(e, s + begin, n - begin);
}

hf_status tokenizer_encode(const tokenizer *t, const char *text, size_t n_bytes, bool add_bos, bool parse_special, int32_t **ids,
                           int *n_ids) {
  if (n_bytes > TOK_MAX_TEXT) {
    return hf_fail(HF_INPUT, "a text of %zu bytes is over the limit of %d", n_bytes, TOK_MAX_TEXT);
  }
  encoder e = {.t = t};
  hf_status st = HF_OK;
  if (add_bos && t->adds_bos && t->bos >= 0) HF_GO(out, tok_ids_push(&e.ids, t->bos));
  HF_GO(out, encode_text(&e, text, n_bytes, parse_special));
  if (!e.ids.id) HF_GO(out, hf_alloc(&e.ids.id, 1, sizeof *e.ids.id, "token ids"));
out:
  tok_scratch_free(&e.scratch);
  if (st != HF_OK) {
    free(e.ids.id);
    return st;
  }
  *ids = e.ids.id;
  *n_ids = e.ids.n;
  return HF_OK;
}

hf_status tokenizer_decode(const tokenizer *t, int32_t id, bool with_special, hf_buf *buf) {
  if (id < 0 || id >= t->vocab.n) return hf_fail(HF_INPUT, "token id %d lies outside 0..%d", id, t->vocab.n - 1);
  const tok_entry *e = &t->vocab.tok[id];
  if (e->kind == TOK_HOLE || e->len == 0 || (e->kind == TOK_SPECIAL && !with_special)) return HF_OK;
  return hf_buf_add(buf, t->vocab.pool.data + e->offset, e->len);
}

/* --- open ------------------------------------------------------------------------------------------------------ */

static hf_status new_tokenizer(const char *where, tokenizer **out) {
  tokenizer *t = NULL;
  HF_TRY(hf_alloc(&t, 1, sizeof *t, "a tokenizer"));
  tok_vocab_init(&t->vocab);
  t->bos = t->eos = -1;
  hf_status st = hf_strdup(&t->where, where);
  if (st == HF_OK) st = hf_arena_new(&t->arena, ARENA_LIMIT, "added tokens");
  if (st != HF_OK) {
    tokenizer_close(t);
    return st;
  }
  *out = t;
  return HF_OK;
}

void tokenizer_close(tokenizer *t) {
  if (!t) return;
  tok_vocab_free(&t->vocab);
  tok_split_free(&t->splitter);
  free(t->added);
  hf_arena_free(t->arena);
  free(t->chat_template);
  free(t->where);
  free(t);
}

hf_status tokenizer_open_text(tok_file_kind kind, const char *text, size_t n, const char *where, tokenizer **out) {
  tokenizer *t = NULL;
  HF_TRY(new_tokenizer(where, &t));
  hf_status st = kind == TOK_FILE_JSON       ? tok_load_json(t, text, n)
                 : kind == TOK_FILE_TIKTOKEN ? tok_load_tiktoken(t, text, n)
                                             : tok_load_spm(t, text, n);
  if (st != HF_OK) {
    tokenizer_close(t);
    return st;
  }
  *out = t;
  return HF_OK;
}

hf_status tokenizer_open_json_text(const char *text, size_t n, const char *where, tokenizer **out) {
  return tokenizer_open_text(TOK_FILE_JSON, text, n, where, out);
}

static hf_status join_path(hf_buf *b, const char *dir, size_t n_dir, const char *name) {
  b->len = 0;
  if (n_dir > 0) HF_TRY(hf_buf_add(b, dir, n_dir));
  return hf_buf_printf(b, "%s%s", n_dir > 0 && dir[n_dir - 1] != '/' ? "/" : "", name);
}

/* tokenizer_config.json and chat_template.jinja lie beside the tokenizer; both may be missing. */
static hf_status load_neighbours(tokenizer *t, tok_file_kind kind, const char *dir, size_t n_dir) {
  hf_buf path;
  hf_buf_init(&path, 8192);
  json *config = NULL;
  hf_status st;
  HF_GO(out, join_path(&path, dir, n_dir, "tokenizer_config.json"));
  if (access(path.data, F_OK) == 0) {
    HF_GO(out, json_read_file(path.data, MAX_CONFIG, &config));
    if (kind != TOK_FILE_JSON) HF_GO(out, tok_load_config_tokens(t, path.data, config));
    HF_GO(out, tok_load_config(t, path.data, config));
  }
  HF_GO(out, join_path(&path, dir, n_dir, "chat_template.jinja"));
  if (!t->chat_template && access(path.data, F_OK) == 0) {
    size_t n;
    HF_GO(out, hf_read_file(path.data, MAX_CONFIG, &t->chat_template, &n));
  }
out:
  json_free(config);
  hf_buf_free(&path);
  return st;
}

static hf_status open_file(tok_file_kind kind, const char *path, const char *dir, size_t n_dir, tokenizer **out) {
  char *text = NULL;
  size_t n;
  HF_TRY(hf_read_file(path, TOK_MAX_FILE, &text, &n));
  tokenizer *t = NULL;
  hf_status st = tokenizer_open_text(kind, text, n, path, &t);
  free(text);
  if (st == HF_OK) st = load_neighbours(t, kind, dir, n_dir);
  if (st != HF_OK) {
    tokenizer_close(t);
    return st;
  }
  *out = t;
  return HF_OK;
}

/* In the order of what is preferred. */
static const struct {
  const char *name;
  tok_file_kind kind;
} file_names[] = {{"tokenizer.json", TOK_FILE_JSON}, {"tiktoken.model", TOK_FILE_TIKTOKEN}, {"tokenizer.model", TOK_FILE_SPM}};
enum { N_FILE_NAMES = sizeof file_names / sizeof *file_names };

static hf_status open_folder(const char *dir, tokenizer **out) {
  hf_buf path;
  hf_buf_init(&path, 8192);
  hf_status st = HF_OK;
  int i = 0;
  for (; i < N_FILE_NAMES; i++) {
    st = join_path(&path, dir, strlen(dir), file_names[i].name);
    if (st != HF_OK || access(path.data, F_OK) == 0) break;
  }
  if (i == N_FILE_NAMES)
    st = hf_fail(HF_NOT_FOUND, "%s: no tokenizer.json, tiktoken.model or tokenizer.model in this folder", dir);
  if (st == HF_OK) st = open_file(file_names[i].kind, path.data, dir, strlen(dir), out);
  hf_buf_free(&path);
  return st;
}

static hf_status open_gguf(const char *path, tokenizer **out) {
  tokenizer *t = NULL;
  HF_TRY(new_tokenizer(path, &t));
  hf_status st = tok_load_gguf(t, path);
  if (st != HF_OK) {
    tokenizer_close(t);
    return st;
  }
  *out = t;
  return HF_OK;
}

hf_status tokenizer_open(const char *path, tokenizer **out) {
  struct stat sb;
  if (stat(path, &sb) != 0) return hf_fail(HF_NOT_FOUND, "%s: no such file or folder", path);
  if (S_ISDIR(sb.st_mode)) return open_folder(path, out);
  size_t n = strlen(path);
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  bool is_json = n > 5 && strcmp(path + n - 5, ".json") == 0;
  for (int i = 0; i < N_FILE_NAMES; i++)
    if (strcmp(name, file_names[i].name) == 0 || (is_json && file_names[i].kind == TOK_FILE_JSON))
      return open_file(file_names[i].kind, path, path, slash ? (size_t)(slash - path) + 1 : 0, out);
  return open_gguf(path, out);
}

int tokenizer_vocab_size(const tokenizer *t) {
  return t->vocab.n;
}

int tokenizer_bos(const tokenizer *t) {
  return t->bos;
}

int tokenizer_eos(const tokenizer *t) {
  return t->eos;
}

bool tokenizer_adds_bos(const tokenizer *t) {
  return t->adds_bos;
}

const char *tokenizer_chat_template(const tokenizer *t) {
  return t->chat_template;
}
