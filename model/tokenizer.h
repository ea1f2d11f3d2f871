/* tokenizer.h: text to ids and back: byte-level BPE and SentencePiece's BPE with byte fallback, of tokenizer.json, tokenizer.model and GGUF
 * metadata, and tiktoken.model of Kimi-K2.
 *
 * The pre-tokenizer regexes are those in tokenizer.json (Split with a Regex, Digits, ByteLevel; Sequence of them); GGUF names them by
 * tokenizer.ggml.pre, and the regexes of the known names are built in, each with its source. Unicode classes by PCRE2 (pcre2.h
 * appears in this room only). Thread rule: a tokenizer is read-only after opening; encode/decode are thread-safe. */
#ifndef HF_MODEL_TOKENIZER_H
#define HF_MODEL_TOKENIZER_H
#include "base/mem.h"

typedef struct tokenizer tokenizer;

/* path: a folder with tokenizer.json, tiktoken.model or tokenizer.model, taken in this order (+ tokenizer_config.json), one of these files,
 * or a GGUF file. */
HF_MUST hf_status tokenizer_open(const char *path, tokenizer **out);
void tokenizer_close(tokenizer *t);

int tokenizer_vocab_size(const tokenizer *t);
int tokenizer_bos(const tokenizer *t); /* -1 = none */
int tokenizer_eos(const tokenizer *t); /* -1 = none */
bool tokenizer_adds_bos(const tokenizer *t);

/* Text (any bytes; invalid UTF-8 becomes byte tokens) to ids. parse_special: added tokens such as <|user|> in the text
 * become their ids; otherwise they are ordinary text. add_bos: put the begin token first if the tokenizer has one.
 * *ids is allocated, free(). */
HF_MUST hf_status tokenizer_encode(const tokenizer *t, const char *text, size_t n_bytes, bool add_bos, bool parse_special,
                                   int32_t **ids, int *n_ids);
/* Appends the bytes of one id to buf (special tokens give nothing unless with_special). SentencePiece puts a blank before
 * a text: it is part of the first token's bytes. HF_INPUT when id is out of range. */
HF_MUST hf_status tokenizer_decode(const tokenizer *t, int32_t id, bool with_special, hf_buf *buf);

/* Streaming: holds back an incomplete UTF-8 sequence at the end of buf; returns how many bytes may be printed now. */
size_t utf8_complete_prefix(const char *bytes, size_t n);

/* The chat template's text, or NULL. Only shown and stored now. */
const char *tokenizer_chat_template(const tokenizer *t);
#endif
