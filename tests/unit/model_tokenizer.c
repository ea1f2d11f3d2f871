/* The tokenizer against recorded ids: the vectors of two public vocabularies, the reference texts of the example model, and
 * what a hostile tokenizer.json may contain. */
#include "model/tokenizer_int.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define VECTORS "tests/golden/tokenizers/ggml-vocab-"
#define TINY "examples/tiny-moe"

static tokenizer *open_ok(const char *path) {
  tokenizer *t = NULL;
  hf_status st = tokenizer_open(path, &t);
  if (st != HF_OK) fail_msg("%s", hf_error_line());
  return t;
}

static void decode_all(const tokenizer *t, const int32_t *ids, int n, hf_buf *out) {
  hf_buf_init(out, 1 << 24);
  for (int i = 0; i < n; i++) assert_int_equal(tokenizer_decode(t, ids[i], true, out), HF_OK);
}

static void check_ids(const tokenizer *t, const char *text, size_t n, const int32_t *expected, int n_expected, bool bos,
                      bool special) {
  int32_t *ids = NULL;
  int n_ids = 0;
  if (tokenizer_encode(t, text, n, bos, special, &ids, &n_ids) != HF_OK) fail_msg("%s", hf_error_line());
  bool same = n_ids == n_expected && memcmp(ids, expected, (size_t)n_ids * sizeof *ids) == 0;
  if (!same) {
    print_error("text: '%.*s'\nids: ", (int)n, text);
    for (int i = 0; i < n_ids; i++) print_error("%d ", ids[i]);
    print_error("\nexpected: ");
    for (int i = 0; i < n_expected; i++) print_error("%d ", expected[i]);
    fail_msg("ids differ");
  }
  hf_buf back;
  decode_all(t, ids + (bos ? 1 : 0), n_ids - (bos ? 1 : 0), &back);
  size_t blank = t->prefix != PREFIX_NONE && back.len == n + 1; /* what was put before the text */
  assert_int_equal(back.len, n + blank);
  if (blank) assert_int_equal(back.data[0], ' ');
  if (n > 0) assert_memory_equal(back.data + blank, text, n);
  hf_buf_free(&back);
  free(ids);
}

/* .inp: texts between separator lines; .out: a line of ids each. */
static void check_vectors_of(const char *path, const char *texts, const char *ids_of) {
  static const char separator[] = "\n__ggml_vocab_test__\n";
  char *inp = NULL, *out = NULL;
  size_t n_inp, n_out;
  tokenizer *t = open_ok(path);
  assert_int_equal(hf_read_file(texts, 1 << 20, &inp, &n_inp), HF_OK);
  assert_int_equal(hf_read_file(ids_of, 1 << 20, &out, &n_out), HF_OK);
  char *text = inp, *line = out;
  int n = 0;
  for (bool last = false; !last; n++) {
    char *end = strstr(text, separator);
    last = end == NULL;
    size_t len = last ? (size_t)(inp + n_inp - text) : (size_t)(end - text);
    int32_t ids[4096];
    int n_ids = 0;
    char *eol = line + strcspn(line, "\n"); /* the last line has no end */
    for (char *p = line, *q; n_ids < 4096; p = q, n_ids++) {
      long v = strtol(p, &q, 10);
      if (q == p || q > eol) break;
      ids[n_ids] = (int32_t)v;
    }
    check_ids(t, text, len, ids, n_ids, false, false);
    line = *eol ? eol + 1 : eol;
    if (!last) text = end + strlen(separator);
  }
  assert_int_equal(n, 47);
  free(inp);
  free(out);
  tokenizer_close(t);
}

static void check_vectors(const char *name) {
  char path[256], texts[256], ids[256];
  snprintf(path, sizeof path, VECTORS "%s.gguf", name);
  snprintf(texts, sizeof texts, VECTORS "%s.gguf.inp", name);
  snprintf(ids, sizeof ids, VECTORS "%s.gguf.out", name);
  check_vectors_of(path, texts, ids);
}

#define MADE "tests/golden/tokenizers/made/"

/* Small vocabularies in the other file formats; the README beside them says how they were made. */
static void vectors_of_other_files(void **state) {
  (void)state;
  static const char *const files[] = {"spm/tokenizer.model", "spm-prepend.json", "spm-metaspace.json", "spm-metaspace-split.json",
                                      "kimi/tiktoken.model"};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
    char path[128], ids[128];
    snprintf(path, sizeof path, MADE "%s", files[i]);
    snprintf(ids, sizeof ids, MADE "%s.out", files[i]);
    check_vectors_of(path, VECTORS "gpt-2.gguf.inp", ids);
  }
}

static void expect_ids(const char *path, const char *text, const int32_t *ids, int n_ids) {
  tokenizer *t = open_ok(path);
  int32_t *got = NULL;
  int n = 0;
  assert_int_equal(tokenizer_encode(t, text, strlen(text), false, true, &got, &n), HF_OK);
  assert_int_equal(n, n_ids);
  assert_memory_equal(got, ids, (size_t)n * sizeof *got);
  free(got);
  tokenizer_close(t);
}

/* Blanks before the pieces between added tokens, by the ids that the tokenizers library and tiktoken give. */
static void blanks_beside_added_tokens(void **state) {
  (void)state;
  static const char text[] = "a</s>b c</s> d";
  expect_ids(MADE "spm-prepend.json", text, (int32_t[]){264, 2, 287, 285, 2, 260, 639}, 7);
  expect_ids(MADE "spm-metaspace.json", text, (int32_t[]){264, 2, 651, 285, 2, 318}, 6);
  expect_ids(MADE "spm-metaspace-split.json", text, (int32_t[]){264, 2, 287, 285, 2, 318}, 6);
  expect_ids(MADE "kimi", "hi<|im_user|>x", (int32_t[]){71, 72, 902, 87}, 4);
  tokenizer *t = open_ok(MADE "kimi");
  assert_int_equal(tokenizer_bos(t), 900);
  assert_int_equal(tokenizer_eos(t), 901);
  assert_false(tokenizer_adds_bos(t));
  tokenizer_close(t);
  t = open_ok(MADE "spm");
  assert_int_equal(tokenizer_bos(t), 1);
  assert_int_equal(tokenizer_eos(t), 2);
  assert_true(tokenizer_adds_bos(t));
  assert_int_equal(tokenizer_vocab_size(t), 700);
  tokenizer_close(t);
}

static void vectors_deepseek_llm(void **state) {
  (void)state;
  check_vectors("deepseek-llm");
}

static void vectors_llama_spm(void **state) {
  (void)state;
  check_vectors("llama-spm");
}

static void vectors_gpt_2(void **state) {
  (void)state;
  check_vectors("gpt-2");
}

static void check_reference(const char *tokenizer_path, const char *reference) {
  tokenizer *t = open_ok(tokenizer_path);
  json *root = NULL;
  assert_int_equal(json_read_file(reference, 1 << 24, &root), HF_OK);
  int n = 0;
  for (const json *p = json_first(json_get(root, "prompts")); p; p = json_next(p), n++) {
    const json *list = json_get(p, "ids");
    int n_ids = json_len(list), i = 0;
    int32_t *ids = calloc((size_t)n_ids, sizeof *ids);
    for (const json *v = json_first(list); v; v = json_next(v)) ids[i++] = (int32_t)json_number(v, -1);
    const char *text = json_string(json_get(p, "text"));
    check_ids(t, text, strlen(text), ids, n_ids, true, true);
    free(ids);
    hf_buf greedy;
    hf_buf_init(&greedy, 1 << 16);
    for (const json *v = json_first(json_get(p, "greedy")); v; v = json_next(v)) {
      assert_int_equal(tokenizer_decode(t, (int32_t)json_number(v, -1), false, &greedy), HF_OK);
    }
    assert_string_equal(greedy.data, json_string(json_get(p, "greedy_text")));
    hf_buf_free(&greedy);
  }
  assert_int_equal(n, 12);
  assert_int_equal(tokenizer_bos(t), 0);
  assert_int_equal(tokenizer_eos(t), 1);
  assert_true(tokenizer_adds_bos(t));
  assert_int_equal(tokenizer_vocab_size(t), 4096);
  assert_non_null(strstr(tokenizer_chat_template(t), "<｜Assistant｜>"));
  json_free(root);
  tokenizer_close(t);
}

static void tiny_references(void **state) {
  (void)state;
  check_reference(TINY, TINY "/reference-bf16.json");
  check_reference(TINY "/tokenizer.json", TINY "/reference-q8_0.json");
  check_reference(TINY "/tiny-moe-q8_0.gguf", TINY "/reference-bf16.json");
  check_reference(TINY "/tiny-moe-q8_0.gguf", TINY "/reference-q8_0.json");
}

/* Any bytes come back, whatever they are. */
static void any_bytes_round_trip(void **state) {
  (void)state;
  tokenizer *t = open_ok(TINY);
  unsigned seed = 1;
  char text[700];
  for (int round = 0; round < 400; round++) {
    size_t n = (size_t)(seed = seed * 1103515245u + 12345u) / 65536u % sizeof text;
    for (size_t i = 0; i < n; i++) {
      seed = seed * 1103515245u + 12345u;
      text[i] = round % 2 ? (char)(seed >> 16) : "a \n\t1,.\xe4\xb8\xad\xc3\xa9<|\xff"[(seed >> 16) % 16];
    }
    int32_t *ids = NULL;
    int n_ids = 0;
    assert_int_equal(tokenizer_encode(t, text, n, false, round % 3 == 0, &ids, &n_ids), HF_OK);
    hf_buf back;
    decode_all(t, ids, n_ids, &back);
    assert_int_equal(back.len, n);
    if (n) assert_memory_equal(back.data, text, n);
    hf_buf_free(&back);
    free(ids);
  }
  tokenizer_close(t);
}

static void special_tokens(void **state) {
  (void)state;
  tokenizer *t = open_ok(TINY);
  int32_t *ids = NULL;
  int n = 0;
  static const char text[] = "<｜User｜>hi<｜end▁of▁sentence｜>";
  assert_int_equal(tokenizer_encode(t, text, strlen(text), true, true, &ids, &n), HF_OK);
  assert_int_equal(ids[0], 0);
  assert_int_equal(ids[1], 3);
  assert_int_equal(ids[n - 1], 1);
  hf_buf b;
  hf_buf_init(&b, 1000);
  for (int i = 0; i < n; i++) assert_int_equal(tokenizer_decode(t, ids[i], false, &b), HF_OK);
  assert_string_equal(b.data, "hi");
  hf_buf_free(&b);
  free(ids);
  assert_int_equal(tokenizer_encode(t, text, strlen(text), false, false, &ids, &n), HF_OK);
  for (int i = 0; i < n; i++) assert_true(ids[i] > 4);
  free(ids);
  hf_buf_init(&b, 1000);
  assert_int_equal(tokenizer_decode(t, 4096, false, &b), HF_INPUT);
  assert_int_equal(tokenizer_decode(t, -1, false, &b), HF_INPUT);
  assert_int_equal(tokenizer_encode(t, "", 0, false, false, &ids, &n), HF_OK);
  assert_int_equal(n, 0);
  free(ids);
  tokenizer_close(t);
}

/* A word of half a megabyte: quadratic merging would take minutes. */
static void long_word(void **state) {
  (void)state;
  tokenizer *t = open_ok(TINY);
  size_t n = 512 << 10;
  char *text = malloc(n);
  for (size_t i = 0; i < n; i++) text[i] = "abcdefghij"[i * i % 10];
  int32_t *ids = NULL;
  int n_ids = 0;
  assert_int_equal(tokenizer_encode(t, text, n, false, false, &ids, &n_ids), HF_OK);
  hf_buf back;
  decode_all(t, ids, n_ids, &back);
  assert_int_equal(back.len, n);
  assert_memory_equal(back.data, text, n);
  hf_buf_free(&back);
  free(ids);
  free(text);
  tokenizer_close(t);
}

static void utf8_prefix(void **state) {
  (void)state;
  assert_int_equal(utf8_complete_prefix("", 0), 0);
  assert_int_equal(utf8_complete_prefix("ab", 2), 2);
  assert_int_equal(utf8_complete_prefix("a\xe4\xb8\xad", 4), 4);
  assert_int_equal(utf8_complete_prefix("a\xe4\xb8", 3), 1);
  assert_int_equal(utf8_complete_prefix("a\xe4", 2), 1);
  assert_int_equal(utf8_complete_prefix("\xf0\x9f\x98", 3), 0);
  assert_int_equal(utf8_complete_prefix("\xf0\x9f\x98\x80", 4), 4);
  assert_int_equal(utf8_complete_prefix("a\xff", 2), 2);
  assert_int_equal(utf8_complete_prefix("\x80\x80\x80\x80", 4), 4);
}

static void check_nfc(const char *text, const char *expected) {
  hf_buf b;
  bool same;
  hf_buf_init(&b, 1 << 16);
  assert_int_equal(tok_nfc(text, strlen(text), &b, &same), HF_OK);
  assert_string_equal(same ? text : b.data, expected);
  assert_int_equal(same, strcmp(text, expected) == 0);
  hf_buf_free(&b);
}

static void nfc(void **state) {
  (void)state;
  check_nfc("plain", "plain");
  check_nfc("e\u0301", "\u00e9"); /* composes */
  check_nfc("\u00e9", "\u00e9");
  check_nfc("\u212b", "\u00c5");               /* a singleton: the Angstrom sign */
  check_nfc("q\u0307\u0323", "q\u0323\u0307"); /* marks are put in order */
  check_nfc("d\u0323\u0307", "\u1e0d\u0307");
  check_nfc("\u1e0b\u0323", "\u1e0d\u0307"); /* decomposed, ordered, composed again */
  check_nfc("\u1100\u1161\u11a8", "\uac01"); /* Hangul */
  check_nfc("\uac00\u11a8", "\uac01");
  check_nfc("\u0958", "\u0915\u093c"); /* excluded from composition */
  check_nfc("a\u0315\u0300\u05aeb", "\u00e0\u05ae\u0315b");
  check_nfc("\u0344", "\u0308\u0301");
  check_nfc("\U0001D15E", "\U0001D157\U0001D165");
}

/* Names of GGUF pre-tokenizers: each chain compiles and cuts as its model does. */
static hf_status collect(void *user, const char *piece, size_t n) {
  hf_buf *b = user;
  HF_TRY(hf_buf_add(b, piece, n));
  return hf_buf_add(b, "|", 1);
}

static void check_cut(const char *pre, const char *text, const char *expected) {
  tok_splitter s = {.n = 0};
  bool ignore;
  if (tok_pre_named("test", pre, &s, &ignore) != HF_OK) fail_msg("%s", hf_error_line());
  hf_buf b;
  hf_buf_init(&b, 1 << 16);
  assert_int_equal(tok_split(&s, text, strlen(text), collect, &b), HF_OK);
  assert_string_equal(b.data, expected);
  hf_buf_free(&b);
  tok_split_free(&s);
}

static void named_chains(void **state) {
  (void)state;
  check_cut("gpt-2", "I'll go  123x", "I|'ll| go| | 123|x|");
  check_cut("deepseek-llm", "ab 12345 中文x", "ab| |12345| |中文|x|");
  check_cut("deepseek-coder", "ab 123", "ab| |1|2|3|");
  check_cut("deepseek-v3", "a 12345 中文x.\n", "a| |123|45| |中文|x|.\n|");
  check_cut("qwen2", "I'LL 123 x", "I|'LL| |1|2|3| x|");
  check_cut("llama-bpe", "I'll 12345", "I|'ll| |123|45|");
  check_cut("glm4", "a,b 1234", "a|,b| |123|4|");
  check_cut("gpt-4o", "HelloWorld's 1234/\n", "Hello|World's| |123|4|/\n|");
  check_cut("tekken", "HelloWorld 12", "Hello|World| |1|2|");
  check_cut("kimi-k2", "Hello中文World 1234", "Hello|中文|World| |123|4|");
  tok_splitter s = {.n = 0};
  bool ignore;
  assert_int_equal(tok_pre_named("f.gguf", "gpt", &s, &ignore), HF_UNSUPPORTED);
  assert_non_null(strstr(hf_error_line(), "deepseek-v3"));
}

/* Lengths of pieces, line by line, of texts between separators, as the tokenizers library cuts by the published rules. */
typedef struct {
  char *want;
  int text;
} cut_check;

static hf_status expect_length(void *user, const char *piece, size_t n) {
  cut_check *c = user;
  char *end;
  long want = strtol(c->want, &end, 10);
  if (want != (long)n) fail_msg("text %d: a piece '%.*s' of %zu bytes, %ld expected", c->text, (int)n, piece, n, want);
  c->want = end;
  return HF_OK;
}

static void published_rules_cut_alike(void **state) {
  (void)state;
  static const char *const names[] = {"deepseek-v3", "glm4", "gpt-4o", "kimi-k2", "olmo", "qwen2"};
  static const char separator[] = "\n__ggml_vocab_test__\n";
  char *inp = NULL;
  size_t n_inp;
  assert_int_equal(hf_read_file(MADE "split.inp", 1 << 20, &inp, &n_inp), HF_OK);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char path[128], *out = NULL;
    size_t n_out;
    bool ignore;
    tok_splitter s = {.n = 0};
    snprintf(path, sizeof path, MADE "split-%s.out", names[i]);
    assert_int_equal(hf_read_file(path, 1 << 20, &out, &n_out), HF_OK);
    assert_int_equal(tok_pre_named("test", names[i], &s, &ignore), HF_OK);
    cut_check c = {out, 0};
    for (char *text = inp, *end; text; text = end ? end + strlen(separator) : NULL, c.text++) {
      end = strstr(text, separator);
      assert_int_equal(tok_split(&s, text, end ? (size_t)(end - text) : strlen(text), expect_length, &c), HF_OK);
      if (*c.want != '\n') fail_msg("%s, text %d: fewer pieces than expected", names[i], c.text);
      c.want++;
    }
    assert_int_equal(c.text, 55);
    assert_int_equal(*c.want, 0);
    free(out);
    tok_split_free(&s);
  }
  free(inp);
}

static void cut_by(const char *regex, const char *text, size_t n, hf_buf *out) {
  tok_splitter s = {.n = 0};
  hf_buf_init(out, 1 << 16);
  if (tok_split_add(&s, "test", regex, strlen(regex), CUT_ISOLATED, false) != HF_OK) fail_msg("%s", hf_error_line());
  assert_int_equal(tok_split(&s, text, n, collect, out), HF_OK);
  tok_split_free(&s);
}

/* \s+$ is searched for in a form of the same meaning that does not cost the square of a run of blanks. */
static void blanks_at_the_end(void **state) {
  (void)state;
  static const char letters[] = "   \n\t\rx1";
  uint32_t r = 1;
  for (int i = 0; i < 3000; i++) {
    char text[40];
    size_t n = 1 + (size_t)(i % 39);
    for (size_t k = 0; k < n; k++) text[k] = letters[(r = r * 1664525 + 1013904223) >> 29];
    hf_buf plain, ours;
    cut_by("(?:\\s+)$", text, n, &plain);
    cut_by("\\s+$", text, n, &ours);
    assert_string_equal(ours.data, plain.data);
    hf_buf_free(&plain);
    hf_buf_free(&ours);
  }
  tokenizer *t = open_ok(VECTORS "deepseek-llm.gguf");
  size_t n = 400000; /* by squares: twenty minutes */
  char *text = malloc(n + 1);
  memset(text, ' ', n);
  text[n] = '1';
  int32_t *ids = NULL;
  int n_ids = 0;
  assert_int_equal(tokenizer_encode(t, text, n + 1, false, false, &ids, &n_ids), HF_OK);
  hf_buf back;
  decode_all(t, ids, n_ids, &back);
  assert_int_equal(back.len, n + 1);
  assert_memory_equal(back.data, text, n + 1);
  hf_buf_free(&back);
  free(ids);
  free(text);
  tokenizer_close(t);
}

/* Cutting behaviours, as the tokenizers library documents them for "the-final--countdown" cut at '-'. */
static void behaviours(void **state) {
  (void)state;
  static const struct {
    tok_cut cut;
    const char *expected;
  } cases[] = {
      {CUT_REMOVED, "the|final|countdown|"},
      {CUT_ISOLATED, "the|-|final|-|-|countdown|"},
      {CUT_MERGED_WITH_PREVIOUS, "the-|final-|-|countdown|"},
      {CUT_MERGED_WITH_NEXT, "the|-final|-|-countdown|"},
      {CUT_CONTIGUOUS, "the|-|final|--|countdown|"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    tok_splitter s = {.n = 0};
    hf_buf b;
    hf_buf_init(&b, 1000);
    assert_int_equal(tok_split_add(&s, "test", "-", 1, cases[i].cut, false), HF_OK);
    assert_int_equal(tok_split(&s, "the-final--countdown", 20, collect, &b), HF_OK);
    assert_string_equal(b.data, cases[i].expected);
    hf_buf_free(&b);
    tok_split_free(&s);
  }
}

/* --- hostile and odd files ---------------------------------------------------------------------------------------- */

#define PRE(regex)                                                                                                         \
  "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"}," \
  "\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"
#define BYTES "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define BPE(vocab, merges) "\"model\":{\"type\":\"BPE\",\"vocab\":" vocab ",\"merges\":" merges "}"

static void check_refused(const char *text, hf_status code, const char *says) {
  tokenizer *t = NULL;
  hf_status st = tokenizer_open_json_text(text, strlen(text), "t.json", &t);
  if (st == HF_OK) {
    tokenizer_close(t);
    fail_msg("accepted: %s", text);
  }
  const char *line = hf_error_line();
  if (st != code || strncmp(line, "t.json", 6) != 0 || !strstr(line, says)) fail_msg("status %d, '%s', not '%s'", st, line, says);
}

static void refused(void **state) {
  (void)state;
  check_refused("[]", HF_INPUT, "object");
  check_refused("{" BYTES, HF_INPUT, "line 1");
  check_refused("{}", HF_UNSUPPORTED, "ByteLevel");
  check_refused("{" BYTES "}", HF_UNSUPPORTED, "model.type");
  check_refused("{" BYTES ",\"model\":{\"type\":\"Unigram\"}}", HF_UNSUPPORTED, "Unigram");
  check_refused("{" BYTES "," BPE("{}", "[]") "}", HF_INPUT, "model.vocab");
  check_refused("{" BYTES "," BPE("{\"a\":0,\"b\":0}", "[]") "}", HF_INPUT, "token id 0 is given twice");
  check_refused("{" BYTES "," BPE("{\"a\":0,\"a\":1}", "[]") "}", HF_INPUT, "");
  check_refused("{" BYTES "," BPE("{\"a\":4000000000}", "[]") "}", HF_INPUT, "'a'");
  check_refused("{" BYTES "," BPE("{\"a\":-1}", "[]") "}", HF_INPUT, "'a'");
  check_refused("{" BYTES "," BPE("{\"a\":0.5}", "[]") "}", HF_INPUT, "'a'");
  check_refused("{" BYTES "," BPE("{\"a\":\"x\"}", "[]") "}", HF_INPUT, "'a'");
  check_refused("{" BYTES "," BPE("{\"a\":0}", "7") "}", HF_INPUT, "model.merges");
  check_refused("{" BYTES "," BPE("{\"a\":0}", "[\"ab\"]") "}", HF_INPUT, "no blank");
  check_refused("{" BYTES "," BPE("{\"a\":0}", "[[\"a\"]]") "}", HF_INPUT, "merges[0]");
  check_refused("{" BYTES "," BPE("{\"a\":0}", "[\"a b\"]") "}", HF_INPUT, "right part");
  check_refused("{" BYTES "," BPE("{\"a\":0,\"b\":1}", "[\"a b\"]") "}", HF_INPUT, "result");
  check_refused("{" BYTES "," BPE("{\"a\":0,\"b\":1,\"ab\":2}", "[\"a b\",[\"a\",\"b\"]]") "}", HF_INPUT, "merges 0 and 1");
  check_refused("{" BYTES "," BPE("{\"a\":0}", "[]") ",\"added_tokens\":[{\"id\":1}]}", HF_INPUT, "content");
  check_refused("{" BYTES "," BPE("{\"a\":0}", "[]") ",\"added_tokens\":[{\"id\":1,\"content\":\"\"}]}", HF_INPUT, "no text");
  check_refused("{" BYTES "," BPE("{\"a\":0}", "[]") ",\"added_tokens\":[{\"id\":1,\"content\":\"x\"},"
                                                     "{\"id\":1,\"content\":\"y\"}]}",
                HF_INPUT, "given twice");
  check_refused("{" BYTES "," BPE("{\"a\":0}", "[]") ",\"added_tokens\":[{\"id\":0,\"content\":\"x\"}]}", HF_INPUT,
                "another text");
  check_refused("{" BYTES "," BPE("{\"a\":0}", "[]") ",\"added_tokens\":[{\"id\":1e9,\"content\":\"x\"}]}", HF_INPUT, "id");
  check_refused("{" BYTES ",\"normalizer\":{\"type\":\"Lowercase\"}," BPE("{\"a\":0}", "[]") "}", HF_UNSUPPORTED, "Lowercase");
  check_refused("{\"pre_tokenizer\":{\"type\":\"Metaspace\"}," BPE("{\"a\":0}", "[]") "}", HF_UNSUPPORTED, "Metaspace");
  check_refused("{" PRE("(") "," BPE("{\"a\":0}", "[]") "}", HF_INPUT, "regex");
  check_refused("{" PRE("") "," BPE("{\"a\":0}", "[]") "}", HF_INPUT, "empty");
  check_refused("{" PRE("[a-z&&[^b]]") "," BPE("{\"a\":0}", "[]") "}", HF_UNSUPPORTED, "&&");
}

static tokenizer *from_text(const char *text) {
  tokenizer *t = NULL;
  if (tokenizer_open_json_text(text, strlen(text), "t.json", &t) != HF_OK) fail_msg("%s", hf_error_line());
  return t;
}

static void catastrophic_regex(void **state) {
  (void)state;
  tokenizer *t = from_text("{" PRE("(a+)+$x|(a|aa)+z") "," BPE("{\"a\":0,\"b\":1}", "[]") "}");
  int32_t *ids = NULL;
  int n = 0;
  char text[200];
  memset(text, 'a', sizeof text);
  text[sizeof text - 1] = 'b';
  assert_int_equal(tokenizer_encode(t, text, sizeof text, false, false, &ids, &n), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "backtracks"));
  assert_null(ids);
  tokenizer_close(t);
}

static void merges_by_rank(void **state) {
  (void)state;
  /* rank, not position, decides: b+c first, so a stays alone; of equal pairs the leftmost goes first */
  tokenizer *t =
      from_text("{" BYTES "," BPE("{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":4,\"aa\":5}", "[\"b c\",\"a b\",\"a a\"]") "}");
  check_ids(t, "abc", 3, (int32_t[]){0, 4}, 2, false, false);
  check_ids(t, "aaa", 3, (int32_t[]){5, 0}, 2, false, false);
  check_ids(t, "aab", 3, (int32_t[]){0, 3}, 2, false, false);
  int32_t *ids = NULL;
  int n = 0;
  assert_int_equal(tokenizer_encode(t, "ax", 2, false, false, &ids, &n), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "0x78"));
  tokenizer_close(t);
}

static void ignore_merges(void **state) {
  (void)state;
  tokenizer *t = from_text("{" BYTES ",\"model\":{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{\"a\":0,\"b\":1,\"ba\":2},"
                           "\"merges\":[]}}");
  check_ids(t, "ba", 2, (int32_t[]){2}, 1, false, false);
  check_ids(t, "bab", 3, (int32_t[]){1, 0, 1}, 3, false, false);
  tokenizer_close(t);
}

static void stripping_and_prefix(void **state) {
  (void)state;
  tokenizer *t = from_text("{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":true},"
                           "\"added_tokens\":[{\"id\":7,\"content\":\"<m>\",\"lstrip\":true,\"rstrip\":true},"
                           "{\"id\":8,\"content\":\"<mm>\"}]," BPE("{\"a\":0,\"Ġ\":1,\"Ġa\":2}", "[\"Ġ a\"]") "}");
  int32_t *ids = NULL;
  int n = 0;
  assert_int_equal(tokenizer_encode(t, "a <m> a<mm>", 11, false, false, &ids, &n), HF_OK);
  assert_int_equal(n, 4);
  assert_memory_equal(ids, ((int32_t[]){2, 7, 2, 8}), 16);
  free(ids);
  tokenizer_close(t);
}

static void check_model_refused(tok_file_kind kind, const char *text, size_t n, hf_status code, const char *says) {
  tokenizer *t = NULL;
  hf_status st = tokenizer_open_text(kind, text, n, "t.model", &t);
  if (st != code || strncmp(hf_error_line(), "t.model", 7) != 0 || !strstr(hf_error_line(), says))
    fail_msg("status %d, '%s', not '%s'", st, hf_error_line(), says);
}
#define TIKTOKEN(text, says) check_model_refused(TOK_FILE_TIKTOKEN, text, strlen(text), HF_INPUT, says)
#define SPM(bytes, code, says) check_model_refused(TOK_FILE_SPM, bytes, sizeof bytes - 1, code, says)

static void refused_models(void **state) {
  (void)state;
  TIKTOKEN("", "no tokens");
  TIKTOKEN("YQ==\n", "line 1");
  TIKTOKEN("YQ== 0\nYg== x\n", "line 2");
  TIKTOKEN("YQ== 0\nYg== 1234567890\n", "line 2");
  TIKTOKEN("YQ= 0\n", "base64");
  TIKTOKEN("Y!== 0\n", "base64");
  TIKTOKEN("YQ== 0\nYQ== 1\n", "same text");
  TIKTOKEN("YQ== 0\nYg== 0\n", "given twice");
  SPM("\x0a\x05\x0a\x01"
      "a",
      HF_INPUT, "cut short");
  SPM("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", HF_INPUT, "cut short");
  SPM("\x0a\x03\x0a\x01"
      "a",
      HF_INPUT, "trainer_spec");
  SPM("\x0a\x02\x18\x01", HF_INPUT, "piece 0 has no text");
  SPM("\x0a\x05\x0a\x01"
      "a\x18\x09",
      HF_INPUT, "type -1");
  SPM("\x12\x02\x18\x01", HF_UNSUPPORTED, "model_type 1");
  SPM("\x12\x02\x18\x02\x1a\x02\x18\x01", HF_UNSUPPORTED, "remove_extra_whitespaces");
  SPM("\x12\x02\x18\x02\x1a\x03\x12\x01x", HF_UNSUPPORTED, "character map");
  SPM("\x12\x02\x18\x02\x1a\x02\x20\x00\x0a\x03\x0a\x01"
      "a",
      HF_UNSUPPORTED, "byte fallback");
  check_refused("{" BYTES ",\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0},\"merges\":[]}}",
                HF_UNSUPPORTED, "ByteLevel");
  check_refused("{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{\"a\":0},\"merges\":[]}}", HF_UNSUPPORTED,
                "byte fallback");
  check_refused("{\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"_\"},\"model\":{\"byte_fallback\":true}}", HF_UNSUPPORTED,
                "U+2581");
}

static void refused_files(void **state) {
  (void)state;
  tokenizer *t = NULL;
  assert_int_equal(tokenizer_open("tests/golden/qwen3_moe", &t), HF_NOT_FOUND);
  assert_int_equal(tokenizer_open("no/such/file", &t), HF_NOT_FOUND);
  assert_int_equal(tokenizer_open("CMakeLists.txt", &t), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "GGUF"));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(vectors_llama_spm),
      cmocka_unit_test(vectors_of_other_files),
      cmocka_unit_test(blanks_beside_added_tokens),
      cmocka_unit_test(published_rules_cut_alike),
      cmocka_unit_test(refused_models),
      cmocka_unit_test(vectors_gpt_2),
      cmocka_unit_test(vectors_deepseek_llm),
      cmocka_unit_test(tiny_references),
      cmocka_unit_test(any_bytes_round_trip),
      cmocka_unit_test(special_tokens),
      cmocka_unit_test(long_word),
      cmocka_unit_test(utf8_prefix),
      cmocka_unit_test(nfc),
      cmocka_unit_test(named_chains),
      cmocka_unit_test(blanks_at_the_end),
      cmocka_unit_test(behaviours),
      cmocka_unit_test(refused),
      cmocka_unit_test(catastrophic_regex),
      cmocka_unit_test(merges_by_rank),
      cmocka_unit_test(ignore_merges),
      cmocka_unit_test(stripping_and_prefix),
      cmocka_unit_test(refused_files),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
