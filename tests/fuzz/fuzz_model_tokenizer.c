/* Tokenizer. Input: a tokenizer.json, then perhaps a zero byte and a text. No input crashes; a refusal is one line; the text
 * is encoded by the file's own tokenizer where that opens, and always by a fixed one with a token for every byte, which gives
 * it back unchanged. */
#include "model/tokenizer_int.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_TEXT = 2048 };

static void require(bool holds) {
  if (!holds) abort();
}

/* 256 byte tokens in the printable alphabet, some merges, DeepSeek-V3's splitting rules in short, NFC off. */
static tokenizer *fixed_tokenizer(void) {
  static tokenizer *t;
  if (t) return t;
  hf_buf b;
  hf_buf_init(&b, 1 << 16);
  hf_status st =
      hf_buf_printf(&b, "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":["
                        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{N}{1,3}\"},\"behavior\":\"Isolated\"},"
                        "{\"type\":\"Split\",\"pattern\":{\"Regex\":\" ?[\\\\p{L}\\\\p{M}]+|\\\\s+(?!\\\\S)|\\\\s+\"}},"
                        "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]},\"model\":{\"type\":\"BPE\",\"vocab\":{");
  for (int i = 0; i < 256 && st == HF_OK; i++) {
    bool same = (i >= 0x21 && i <= 0x7e) || (i >= 0xa1 && i <= 0xac) || i >= 0xae;
    int c = same ? i : i <= 0x20 ? 0x100 + i : i == 0xad ? 0x143 : 0x121 + i - 0x7f;
    char utf8[3] = {(char)c, 0, 0};
    if (c >= 0x80) utf8[0] = (char)(0xc0 | c >> 6), utf8[1] = (char)(0x80 | (c & 0x3f));
    st = hf_buf_printf(&b, "\"%s%s\":%d,", c == '"' || c == '\\' ? "\\" : "", utf8, i);
  }
  if (st == HF_OK) {
    st = hf_buf_printf(&b,
                       "\"aa\":256,\"aaaa\":257,\"\u0120a\":258},\"merges\":[\"a a\",[\"aa\",\"aa\"],\"\u0120 a\"]},"
                       "\"added_tokens\":[{\"id\":259,\"content\":\"<|x|>\",\"special\":true},{\"id\":260,\"content\":\"<|\"}]}");
  }
  require(st == HF_OK);
  require(tokenizer_open_json_text(b.data, b.len, "fixed", &t) == HF_OK);
  hf_buf_free(&b);
  return t;
}

/* Returns false when the tokenizer refuses the text. */
static bool encode(const tokenizer *t, const char *text, size_t n, bool special, hf_buf *back) {
  int32_t *ids = NULL;
  int n_ids = 0;
  if (tokenizer_encode(t, text, n, true, special, &ids, &n_ids) != HF_OK) {
    require(ids == NULL && hf_error_line()[0] != '\0');
    return false;
  }
  require(n_ids >= 0 && (size_t)n_ids <= n + 1);
  for (int i = 0; i < n_ids; i++) {
    require(ids[i] >= 0 && ids[i] < tokenizer_vocab_size(t));
    require(tokenizer_decode(t, ids[i], true, back) == HF_OK);
  }
  free(ids);
  return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
  size_t n_json = zero ? (size_t)(zero - data) : size;
  const char *text = zero ? (const char *)zero + 1 : (const char *)data;
  size_t n = zero ? size - n_json - 1 : size;
  if (n > MAX_TEXT) n = MAX_TEXT;
  for (int special = 0; special < 2; special++) {
    hf_buf back;
    hf_buf_init(&back, 1 << 20);
    require(encode(fixed_tokenizer(), text, n, special, &back));
    require(back.len == n && (n == 0 || memcmp(back.data, text, n) == 0));
    require(n == 0 || utf8_complete_prefix(back.data, back.len) <= back.len);
    hf_buf_free(&back);
  }
  tokenizer *t = NULL;
  if (tokenizer_open_json_text((const char *)data, n_json, "input", &t) != HF_OK) {
    require(t == NULL && hf_error_line()[0] != '\0' && strchr(hf_error_line(), '\n') == NULL);
    return 0;
  }
  hf_buf back;
  hf_buf_init(&back, 1 << 24);
  (void)encode(t, text, n, true, &back);
  hf_buf_free(&back);
  tokenizer_close(t);
  return 0;
}
