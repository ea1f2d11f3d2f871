/* stream.c: see stream.h. */
#include "executor/stream.h"

#include <string.h>

enum { MOST_TEXT = 64 << 20 };

void stream_init(text_stream *s) {
  *s = (text_stream){0};
  hf_buf_init(&s->text, MOST_TEXT);
}

void stream_free(text_stream *s) {
  hf_buf_free(&s->text);
}

/* Cuts at the first stop text that ends in the bytes from `from` on. */
static void cut_at_stop(text_stream *s, size_t from, const char *const *stop, int n_stop) {
  size_t first = s->text.len;
  for (int i = 0; i < n_stop; i++) {
    size_t n = strlen(stop[i]), begin = from + 1 > n ? from + 1 - n : 0;
    if (n == 0 || s->text.len < n) continue;
    const char *at = memmem(s->text.data + begin, s->text.len - begin, stop[i], n);
    if (at && (size_t)(at - s->text.data) < first) first = (size_t)(at - s->text.data);
  }
  if (first == s->text.len) return;
  s->text.len = first;
  s->text.data[first] = 0;
  s->stopped = true;
}

hf_status stream_add(text_stream *s, const tokenizer *tok, int32_t id, bool special, const char *const *stop, int n_stop) {
  size_t from = s->text.len;
  if (s->stopped || id >= tokenizer_vocab_size(tok)) return HF_OK;
  HF_TRY(tokenizer_decode(tok, id, special, &s->text));
  if (s->text.len > from) cut_at_stop(s, from, stop, n_stop);
  return HF_OK;
}

size_t stream_ready(const text_stream *s, bool end, const char *const *stop, int n_stop) {
  size_t len = s->text.len, hold = 0;
  if (len <= s->shown) return 0;
  for (int i = 0; i < n_stop && !end && !s->stopped; i++) {
    size_t n = strlen(stop[i]);
    for (size_t k = n > 0 ? n - 1 : 0; k > hold; k--)
      if (k <= len && !memcmp(s->text.data + len - k, stop[i], k)) hold = k;
  }
  size_t upto = len - hold < s->shown ? s->shown : len - hold;
  return utf8_complete_prefix(s->text.data + s->shown, upto - s->shown);
}
