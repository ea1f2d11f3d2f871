/* Vocabularies in files of their own. Input: 'k' and a tiktoken.model, or 's' and a tokenizer.model of SentencePiece. No input crashes; a
 * refusal is one line; what opens encodes any bytes, and what was encoded comes back, apart from SentencePiece's blanks. */
#include "model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
  if (!holds) abort();
}

static void check_text(const tokenizer *t, const char *text, size_t n, bool must_come_back) {
  int32_t *ids = NULL;
  int n_ids = 0;
  hf_buf back;
  hf_buf_init(&back, 1 << 24);
  if (tokenizer_encode(t, text, n, false, false, &ids, &n_ids) == HF_OK) {
    for (int i = 0; i < n_ids; i++) {
      require(ids[i] >= 0 && ids[i] < tokenizer_vocab_size(t));
      require(tokenizer_decode(t, ids[i], true, &back) == HF_OK);
    }
    if (must_come_back) require(back.len == n && (n == 0 || memcmp(back.data, text, n) == 0));
  } else {
    require(ids == NULL && hf_error_line()[0] != '\0');
  }
  free(ids);
  hf_buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size == 0) return 0;
  tok_file_kind kind = data[0] == 's' ? TOK_FILE_SPM : TOK_FILE_TIKTOKEN;
  tokenizer *t = NULL;
  if (tokenizer_open_text(kind, (const char *)data + 1, size - 1, "input", &t) != HF_OK) {
    require(t == NULL && hf_error_line()[0] != '\0' && strchr(hf_error_line(), '\n') == NULL);
    return 0;
  }
  static const char text[] = "Hello  World's 123 \xe4\xb8\xad\xe6\x96\x87\n\n\tx\xff\xe2\x96\x81 \xf0\x9f\x98\x80";
  check_text(t, text, sizeof text - 1, kind == TOK_FILE_TIKTOKEN);
  check_text(t, (const char *)data, size < 512 ? size : 512, kind == TOK_FILE_TIKTOKEN);
  tokenizer_close(t);
  return 0;
}
