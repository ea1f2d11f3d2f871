/* stream.h: the text of an answer while it comes: bytes of tokens in, what may be shown out. Held back are a character that is not complete and
 * what may turn out to be the beginning of a stop text; a stop text itself and all behind it never belong to the answer. */
#ifndef HF_EXECUTOR_STREAM_H
#define HF_EXECUTOR_STREAM_H
#include "executor/serve.h"
#include "model/tokenizer.h"

typedef struct {
  hf_buf text;  /* of the answer so far; zero-terminated once something is in it */
  size_t shown; /* bytes of it that were given out */
  bool stopped; /* a stop text came */
} text_stream;

void stream_init(text_stream *s);
void stream_free(text_stream *s);
/* special: special tokens are written out, too. Ids that the vocabulary does not have (models round its size up) give nothing. */
HF_MUST hf_status stream_add(text_stream *s, const tokenizer *tok, int32_t id, bool special, const char *const *stop, int n_stop);
/* Bytes from s->shown on that may be shown now; at the end of the answer all of it but a character cut in two. */
size_t stream_ready(const text_stream *s, bool end, const char *const *stop, int n_stop);
#endif
