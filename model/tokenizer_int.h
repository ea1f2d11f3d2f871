/* tokenizer_int.h: what the files of the tokenizer share; nobody else includes it.
 *
 * tokenizer.c        open, close, encode (added tokens, segments), decode
 * tokenizer_vocab.c  ids, bytes, merges: two hash tables, and the merge loop
 * tokenizer_split.c  the chain of pre-tokenizer steps (the only file with pcre2.h)
 * tokenizer_json.c   tokenizer.json and tokenizer_config.json
 * tokenizer_gguf.c   GGUF metadata
 * tokenizer_tiktoken.c, tokenizer_spm.c   tiktoken.model (Kimi-K2) and tokenizer.model (SentencePiece)
 * tokenizer_pre.c    regexes of the pre-tokenizers that GGUF names
 * tokenizer_nfc.c    Unicode normalisation form C, which Qwen's tokenizers ask for
 *
 * Bytes. A byte-level vocabulary writes the 256 byte values as 256 printable characters (GPT-2's alphabet), SentencePiece a blank as
 * U+2581. Tokens are turned back into plain bytes at load, so that encode and decode never see either.
 *
 *   kind                             symbols a word starts from   rank of a pair
 *   byte-level BPE                   bytes                        its merge
 *   tiktoken                         bytes                        the id of the token they spell
 *   SentencePiece, GGUF or .model    characters                   the score of the token they spell
 *   SentencePiece, tokenizer.json    characters                   its merge */
#ifndef HF_MODEL_TOKENIZER_INT_H
#define HF_MODEL_TOKENIZER_INT_H
#include "base/json.h"
#include "model/tokenizer.h"

enum {
  TOK_MAX_ID = 1 << 22, /* ids at or above this are refused: no vocabulary comes near */
  TOK_MAX_STEPS = 16,
  TOK_MAX_TEXT = 1 << 24, /* bytes of text one encode accepts: over ten of the longest contexts; scratch is 100 times a word */
  TOK_MAX_FILE = 256 << 20,
};

#define TOK_SPM_BLANK "\xe2\x96\x81" /* U+2581 */

typedef enum { TOK_HOLE, TOK_NORMAL, TOK_ADDED, TOK_SPECIAL } tok_kind;

typedef struct {
  uint32_t offset, len; /* in vocab.pool */
  uint8_t kind;         /* tok_kind */
  bool in_hash;         /* reachable by its bytes */
} tok_entry;

typedef struct {
  uint64_t key;     /* left id << 32 | right id */
  int32_t rank, id; /* rank -1 = empty slot */
} tok_merge;

typedef struct {
  tok_entry *tok; /* [n], index = id */
  int n, cap;
  hf_buf pool;   /* bytes of all tokens */
  int32_t *hash; /* id or -1, hash_cap slots, a power of two, open addressing */
  uint32_t hash_cap, hash_used;
  tok_merge *merge;
  uint32_t merge_cap, merge_used;
  int32_t byte_id[256]; /* -1 = the vocabulary has no token for this byte */
  bool ignore_merges;   /* a word that is a token as a whole is that token */
  bool chars;           /* SentencePiece: a word starts as characters; byte tokens are for those that no token spells */
  bool by_text;         /* any two symbols that spell a token may merge; no merges are listed */
  int32_t *rank;        /* by_text: [n] or NULL = the id */
} tok_vocab;

void tok_vocab_init(tok_vocab *v);
void tok_vocab_free(tok_vocab *v);
/* text in the GPT-2 alphabet; text with any other character is kept as it is and is reachable by id only. `where`
 * starts error lines. HF_INPUT: id out of range, used twice, or text used twice. */
HF_MUST hf_status tok_vocab_add(tok_vocab *v, const char *where, const char *text, size_t n, int64_t id);
/* The same from plain bytes, never empty. */
HF_MUST hf_status tok_vocab_add_bytes(tok_vocab *v, const char *where, const char *bytes, size_t n, int64_t id);
/* SentencePiece's byte token "<0x0A>"; adds nothing when the text is another. */
HF_MUST hf_status tok_vocab_add_byte(tok_vocab *v, const char *where, const char *text, size_t n, int64_t id, bool *is_byte);
/* Added or special token: plain text. Takes the place of a vocabulary entry of the same id and text. */
HF_MUST hf_status tok_vocab_add_plain(tok_vocab *v, const char *where, const char *text, size_t n, int64_t id, tok_kind kind);
/* Sizes the merge table; then one call per merge in order of rank; left and right in the GPT-2 alphabet. */
HF_MUST hf_status tok_vocab_begin_merges(tok_vocab *v, int n_merges);
HF_MUST hf_status tok_vocab_add_merge(tok_vocab *v, const char *where, int rank, const char *left, size_t n_left,
                                      const char *right, size_t n_right);
/* "a b": splits at the blank. */
HF_MUST hf_status tok_vocab_add_merge_line(tok_vocab *v, const char *where, int rank, const char *line, size_t n);
/* After the last token: fills byte_id. HF_UNSUPPORTED for SentencePiece without byte tokens. */
HF_MUST hf_status tok_vocab_finish(tok_vocab *v, const char *where);
/* score [n]: higher merges first. */
HF_MUST hf_status tok_vocab_rank_by_score(tok_vocab *v, const char *where, const float *score);
int32_t tok_vocab_find(const tok_vocab *v, const char *bytes, size_t n); /* -1 = none */

typedef struct {
  int32_t *id;
  int n, cap;
} tok_ids;
HF_MUST hf_status tok_ids_push(tok_ids *o, int32_t id);

/* Scratch of one encode, reused from word to word. */
typedef struct {
  void *sym, *heap;
  size_t sym_cap, heap_cap;
} tok_scratch;
void tok_scratch_free(tok_scratch *s);
/* One word to ids. O(n log n) in its bytes. HF_INPUT when a byte has no token. */
HF_MUST hf_status tok_vocab_word(const tok_vocab *v, tok_scratch *s, const char *word, size_t n, tok_ids *out);

/* Pre-tokenizer: each step cuts every piece of the step before. Names as in tokenizer.json. */
typedef enum { CUT_ISOLATED, CUT_REMOVED, CUT_MERGED_WITH_PREVIOUS, CUT_MERGED_WITH_NEXT, CUT_CONTIGUOUS } tok_cut;
typedef struct {
  void *code; /* pcre2_code */
  tok_cut cut;
  bool invert;
} tok_step;
typedef struct {
  tok_step step[TOK_MAX_STEPS];
  int n;
} tok_splitter;
HF_MUST hf_status tok_split_add(tok_splitter *s, const char *where, const char *regex, size_t n, tok_cut cut, bool invert);
void tok_split_free(tok_splitter *s);
typedef hf_status tok_piece_fn(void *user, const char *piece, size_t n);
/* text must be valid UTF-8. Pieces arrive in order and are never empty. */
HF_MUST hf_status tok_split(const tok_splitter *s, const char *text, size_t n, tok_piece_fn *fn, void *user);

typedef struct {
  int32_t id;
  bool special, lstrip, rstrip;
  const char *text; /* in the arena */
  size_t n;
} tok_added;

/* The blank that is put before a text: before every piece between added tokens (SentencePiece), the same where none is there yet
 * (ByteLevel, Metaspace), or that before the first piece alone. */
typedef enum { PREFIX_NONE, PREFIX_ALWAYS, PREFIX_IF_MISSING, PREFIX_FIRST_IF_MISSING } tok_prefix;

struct tokenizer {
  char *where; /* file name, starts error lines */
  tok_vocab vocab;
  tok_splitter splitter;
  tok_added *added; /* sorted by bytes */
  int n_added, cap_added;
  hf_arena *arena;
  tok_prefix prefix;
  bool nfc, adds_bos;
  int bos, eos;
  char *chat_template;
};

/* Remembers an added token (and its vocabulary entry). */
HF_MUST hf_status tok_add_added(tokenizer *t, const char *where, const tok_added *a);
int32_t tok_find_added(const tokenizer *t, const char *text); /* after the table is sorted; -1 = none */
void tok_sort_added(tokenizer *t);

HF_MUST hf_status tok_load_json(tokenizer *t, const char *text, size_t n);
HF_MUST hf_status tok_load_config(tokenizer *t, const char *where, const json *config);
HF_MUST hf_status tok_load_gguf(tokenizer *t, const char *path);
HF_MUST hf_status tok_load_tiktoken(tokenizer *t, const char *text, size_t n);
HF_MUST hf_status tok_load_spm(tokenizer *t, const char *data, size_t n);
/* Steps of tokenizer.ggml.pre; HF_UNSUPPORTED lists the names known. */
HF_MUST hf_status tok_pre_named(const char *where, const char *name, tok_splitter *s, bool *ignore_merges);
extern const char tok_gpt2_regex[];

/* Normalisation form C of valid UTF-8, appended to out. *same: the text is already in that form, nothing was appended. */
HF_MUST hf_status tok_nfc(const char *text, size_t n, hf_buf *out, bool *same);

/* A token of SentencePiece or GGUF by its type: TOK_TYPE_*; both number them alike. */
enum { TOK_TYPE_NORMAL = 1, TOK_TYPE_UNKNOWN, TOK_TYPE_CONTROL, TOK_TYPE_USER_DEFINED, TOK_TYPE_UNUSED, TOK_TYPE_BYTE };
HF_MUST hf_status tok_add_typed(tokenizer *t, const char *text, size_t n, int64_t id, int64_t type);
/* added_tokens_decoder of tokenizer_config.json, for files that hold no added tokens themselves. */
HF_MUST hf_status tok_load_config_tokens(tokenizer *t, const char *where, const json *config);

/* Opens from memory: the fuzz target's way in. `where` names it in error lines. */
typedef enum { TOK_FILE_JSON, TOK_FILE_TIKTOKEN, TOK_FILE_SPM } tok_file_kind;
HF_MUST hf_status tokenizer_open_text(tok_file_kind kind, const char *text, size_t n, const char *where, tokenizer **out);
HF_MUST hf_status tokenizer_open_json_text(const char *text, size_t n, const char *where, tokenizer **out);
#endif
