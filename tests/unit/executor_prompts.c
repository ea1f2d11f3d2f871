/* Prompts in, answers out: what a line may say, what it must not, and that every answer is a line of valid JSON whatever bytes came out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/json.h"
#include "executor/prompts.h"

enum { VOCAB = 100 };

static char folder[] = "/tmp/hf-prompts-XXXXXX";
static char path[256];
static tokenizer *tok;

static void put(const char *text, size_t n) {
  assert_int_equal(hf_write_file(path, text, n), HF_OK);
}

static hf_status read_text(const char *text, const tokenizer *t, prompt_options o, prompt_list *out) {
  put(text, strlen(text));
  if (!o.vocab_size) o.vocab_size = VOCAB;
  if (!o.max_tokens) o.max_tokens = 7;
  *out = (prompt_list){0};
  return prompts_read(path, t, &o, out);
}

static void lines_become_requests(void **state) {
  (void)state;
  prompt_list l;
  const char text[] = "{\"ids\":[1,2,3]}\n"
                      "\n"
                      "  \t\r\n"
                      "{\"id\":\"x\",\"ids\":[0,99],\"max_tokens\":2,\"arrival_s\":0.5,\"kind\":\"a\"}\r\n"
                      "{\"id\":12,\"ids\":[5],\"other\":{\"deep\":[1,2]}}"; /* no line end */
  assert_int_equal(read_text(text, NULL, (prompt_options){.ignore_eos = true}, &l), HF_OK);
  assert_int_equal(l.n, 3);
  assert_string_equal(l.req[0].ext_id, "1");
  assert_int_equal(l.req[0].n_ids, 3);
  assert_int_equal(l.req[0].ids[2], 3);
  assert_int_equal(l.req[0].max_tokens, 7);
  assert_true(l.req[0].arrival_s == 0 && l.req[0].ignore_eos);
  assert_string_equal(l.req[1].ext_id, "x");
  assert_int_equal(l.req[1].max_tokens, 2);
  assert_true(l.req[1].arrival_s == 0.5);
  assert_string_equal(l.req[2].ext_id, "12");
  assert_int_equal(prompts_longest(&l), 10);
  int prompt_tokens, output_tokens;
  prompts_mean(&l, &prompt_tokens, &output_tokens);
  assert_int_equal(prompt_tokens, 2); /* 3, 2, 1 */
  assert_int_equal(output_tokens, 5); /* 7, 2, 7 */
  prompts_free(&l);
  prompts_free(&l);
}

static void limits_filters_and_repeats(void **state) {
  (void)state;
  prompt_list l;
  const char text[] =
      "{\"id\":\"a\",\"ids\":[1],\"lang\":\"fr\"}\n{\"id\":\"b\",\"ids\":[2],\"lang\":\"de\"}\n"
      "{\"id\":\"c\",\"ids\":[3]}\n{\"id\":\"d\",\"ids\":[4],\"lang\":\"fr\"}\n{\"id\":\"e\",\"ids\":[5],\"lang\":7}\n";
  assert_int_equal(read_text(text, NULL, (prompt_options){.limit = 2}, &l), HF_OK);
  assert_int_equal(l.n, 2);
  prompts_free(&l);
  assert_int_equal(read_text(text, NULL, (prompt_options){.where_key = "lang", .where_value = "fr"}, &l), HF_OK);
  assert_int_equal(l.n, 2);
  assert_string_equal(l.req[1].ext_id, "d");
  prompts_free(&l);
  assert_int_equal(read_text(text, NULL, (prompt_options){.where_key = "lang", .where_value = "fr", .repeat_to = 5}, &l), HF_OK);
  assert_int_equal(l.n, 5);
  const char *const ids[] = {"a", "d", "a#2", "d#2", "a#3"};
  for (int i = 0; i < 5; i++) {
    assert_string_equal(l.req[i].ext_id, ids[i]);
    assert_int_equal(l.req[i].ids[0], i % 2 ? 4 : 1);
  }
  assert_ptr_not_equal(l.req[0].out, l.req[2].out);
  prompts_free(&l);
  assert_int_equal(read_text(text, NULL, (prompt_options){.repeat_to = 3}, &l), HF_OK);
  assert_int_equal(l.n, 5); /* never fewer than there are */
  prompts_free(&l);
  assert_int_equal(read_text(text, NULL, (prompt_options){.where_key = "lang", .where_value = "it"}, &l), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "--where"));
  assert_null(l.a);
}

static void text_goes_through_the_tokenizer(void **state) {
  (void)state;
  prompt_list l;
  prompt_options o = {.max_tokens = 3, .vocab_size = tokenizer_vocab_size(tok)};
  assert_int_equal(read_text("{\"prompt\":\"To be, or not\"}\n", tok, o, &l), HF_OK);
  assert_true(l.req[0].n_ids > 2);
  prompt_list one = {0};
  assert_int_equal(prompts_add_text(&one, tok, "To be, or not", &o), HF_OK);
  assert_int_equal(one.req[0].n_ids, l.req[0].n_ids);
  assert_memory_equal(one.req[0].ids, l.req[0].ids, (size_t)l.req[0].n_ids * sizeof(int32_t));
  prompts_free(&one);
  prompts_free(&l);
  assert_int_equal(read_text("{\"prompt\":\"x\"}\n", NULL, o, &l), HF_INPUT);
  assert_non_null(strstr(hf_error_line(), "no tokenizer"));
}

static void stop_texts_and_probabilities_have_room(void **state) {
  (void)state;
  prompt_list l;
  const char *const every[] = {"END"};
  prompt_options o = {.stop = every, .n_stop = 1, .logprobs = 3, .repeat_to = 4};
  const char text[] = "{\"ids\":[1]}\n{\"ids\":[2],\"stop\":\"a\",\"max_tokens\":5}\n{\"ids\":[3],\"stop\":[\"b\",\"c\"]}\n";
  assert_int_equal(read_text(text, NULL, o, &l), HF_OK);
  assert_int_equal(l.n, 4);
  const int n_stop[] = {1, 2, 3, 1};
  for (int i = 0; i < 4; i++) {
    assert_int_equal(l.req[i].n_stop, n_stop[i]);
    assert_string_equal(l.req[i].stop[0], "END");
    assert_int_equal(l.req[i].n_logprobs, 3);
    assert_non_null(l.req[i].logprob);
    assert_int_equal(l.req[i].draw, i);
  }
  assert_string_equal(l.req[2].stop[2], "c");
  l.req[1].top_ids[5 * 3 - 1] = 1; /* the last place of max_tokens x 3 */
  l.req[1].top_logprob[5 * 3 - 1] = 1;
  prompts_free(&l);
}

static void conversations_are_written_for_the_family(void **state) {
  (void)state;
  prompt_list plain, l;
  chat_style s = {FAM_QWEN3_MOE, "", "", "", ""};
  prompt_options o = {.max_tokens = 3, .vocab_size = tokenizer_vocab_size(tok), .chat = &s, .system = "S"};
  prompt_options as_is = o;
  as_is.chat = NULL;
  const char text[] =
      "{\"prompt\":\"u\"}\n{\"messages\":[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"u\"}]}\n";
  assert_int_equal(read_text(text, tok, o, &l), HF_OK);
  int32_t *ids;
  int n;
  const char want[] = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n";
  assert_int_equal(tokenizer_encode(tok, want, strlen(want), false, true, &ids, &n), HF_OK);
  for (int i = 0; i < 2; i++) {
    assert_int_equal(l.req[i].n_ids, n);
    assert_memory_equal(l.req[i].ids, ids, (size_t)n * sizeof *ids);
  }
  free(ids);
  prompts_free(&l);
  assert_int_equal(read_text("{\"prompt\":\"u\"}\n", tok, as_is, &plain), HF_OK);
  assert_true(plain.req[0].n_ids < n);
  prompts_free(&plain);
  static const char *const bad[] = {
      "{\"messages\":[]}", "{\"messages\":5}", "{\"messages\":[{\"role\":\"tool\",\"content\":\"x\"}]}",
      "{\"messages\":[{\"role\":\"user\"}]}", "{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\"}]}"};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    assert_int_equal(read_text(bad[i], tok, o, &l), HF_INPUT);
    assert_non_null(strstr(hf_error_line(), "line 1: field messages"));
  }
}

/* What an interrupted run wrote: finished answers are kept as they stand, the others are served again. */
static void answers_are_kept(void **state) {
  (void)state;
  prompt_list l;
  char old[300];
  const char text[] =
      "{\"id\":\"a\",\"ids\":[1,2]}\n{\"id\":\"b\",\"ids\":[3]}\n{\"id\":\"c\",\"ids\":[4]}\n{\"id\":\"b\",\"ids\":[5]}\n";
  const char done[] = "{\"id\":\"c\",\"prompt_tokens\":1,\"finish\":\"length\",\"x\":1}\n{\"id\":\"a\",\"prompt_tokens\":2,"
                      "\"finish\":\"cancelled\"}\n"
                      "{\"id\":\"b\",\"prompt_tokens\":1,\"finish\":\"stop\"}\n{\"id\":\"a\",\"pro";
  const char strange[] = "{\"id\":\"zz\",\"prompt_tokens\":1,\"finish\":\"stop\"}\n";
  snprintf(old, sizeof old, "%s/old.jsonl", folder);
  assert_int_equal(read_text(text, NULL, (prompt_options){0}, &l), HF_OK);
  assert_int_equal(hf_write_file(old, done, strlen(done)), HF_OK);
  assert_int_equal(prompts_keep(&l, old), HF_OK);
  assert_int_equal(prompts_keep(&l, "/nowhere/at/all"), HF_OK);
  assert_int_equal(hf_write_file(old, strange, strlen(strange)), HF_OK);
  assert_int_equal(prompts_keep(&l, old), HF_INPUT); /* it would be lost */
  assert_non_null(strstr(hf_error_line(), "old.jsonl: line 1: answers request zz, which is none of these prompts"));
  assert_int_equal(prompts_drop_kept(&l, NULL, NULL, NULL, NULL), HF_OK);
  assert_int_equal(l.n_all, 4);
  assert_int_equal(l.n, 2);
  assert_string_equal(l.req[0].ext_id, "a");
  assert_int_equal(l.req[0].draw, 0);
  assert_string_equal(l.req[1].ext_id, "b");
  assert_int_equal(l.req[1].ids[0], 5);
  assert_int_equal(l.req[1].draw, 3);
  assert_int_equal(prompts_write(old, &l, NULL), HF_OK);
  char *out = NULL;
  size_t n;
  assert_int_equal(hf_read_file(old, 1 << 20, &out, &n), HF_OK);
  static const char *const want[] = {
      "{\"id\":\"a\",\"prompt_tokens\":2,", "{\"id\":\"b\",\"prompt_tokens\":1,\"finish\":\"stop\"}\n",
      "{\"id\":\"c\",\"prompt_tokens\":1,\"finish\":\"length\",\"x\":1}\n", "{\"id\":\"b\",\"prompt_tokens\":1,"};
  char *at = out;
  for (int i = 0; i < 4; i++, at = strchr(at, '\n') + 1)
    if (strncmp(at, want[i], strlen(want[i]))) fail_msg("line %d: %s", i, at);
  assert_int_equal(*at, 0);
  free(out);
  prompts_free(&l);
  static const struct {
    const char *text, *says;
  } wrong[] = {{"{\"id\":\"a\",\"prompt_tokens\":9,\"finish\":\"stop\"}\n", "another prompt"},
               {"{\"ids\":[1]}\n", "not an answer"},
               {"{\n", "line 1"}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    assert_int_equal(read_text(text, NULL, (prompt_options){0}, &l), HF_OK);
    assert_int_equal(hf_write_file(old, wrong[i].text, strlen(wrong[i].text)), HF_OK);
    assert_int_equal(prompts_keep(&l, old), HF_INPUT);
    assert_non_null(strstr(hf_error_line(), wrong[i].says));
    prompts_free(&l);
  }
  assert_int_equal(unlink(old), 0);
}

static void bad_lines_are_named(void **state) {
  (void)state;
  static const struct {
    const char *text, *says;
  } bad[] = {
      {"", "no prompts"},
      {"\n\n", "no prompts"},
      {"{\"ids\":[1]}\n{\"ids\":[1]\n", "line 2"},
      {"[1]\n", "line 1: expected an object"},
      {"5", "line 1: expected an object"},
      {"{}\n", "neither \"prompt\" nor \"ids\""},
      {"{\"ids\":[]}", "field ids"},
      {"{\"ids\":5}", "field ids"},
      {"{\"ids\":{\"a\":1}}", "field ids"},
      {"{\"ids\":[1,-1]}", "field ids[1]"},
      {"{\"ids\":[1,100]}", "field ids[1]"},
      {"{\"ids\":[1.5]}", "field ids[0]"},
      {"{\"ids\":[1e300]}", "field ids[0]"},
      {"{\"ids\":[\"1\"]}", "field ids[0]"},
      {"{\"ids\":[null]}", "field ids[0]"},
      {"{\"ids\":[1],\"max_tokens\":0}", "max_tokens"},
      {"{\"ids\":[1],\"max_tokens\":-5}", "max_tokens"},
      {"{\"ids\":[1],\"max_tokens\":1048577}", "max_tokens"},
      {"{\"ids\":[1],\"max_tokens\":2.5}", "max_tokens"},
      {"{\"ids\":[1],\"max_tokens\":\"7\"}", "max_tokens"},
      {"{\"ids\":[1],\"arrival_s\":-0.1}", "arrival_s"},
      {"{\"ids\":[1],\"arrival_s\":1e10}", "arrival_s"},
      {"{\"ids\":[1],\"arrival_s\":true}", "arrival_s"},
      {"{\"ids\":[1],\"stop\":5}", "field stop"},
      {"{\"ids\":[1],\"stop\":[\"a\",\"\"]}", "field stop"},
      {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "needs --chat"},
      {"{\"prompt\":5}", "prompt"},
      {"{\"prompt\":\"x\",\"prompt\":\"y\"}", "twice"},
      {"{\"prompt\":\"\\u0000\"}", "line 1"},
      {"{\"prompt\":\"\xff\"}", "line 1"},
      {"{\"ids\":[1]}garbage", "line 1"},
  };
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    prompt_list l;
    hf_status st = read_text(bad[i].text, tok, (prompt_options){0}, &l);
    if (st != HF_INPUT || !strstr(hf_error_line(), bad[i].says) || !strstr(hf_error_line(), path))
      fail_msg("%s: status %d, '%s' does not say '%s'", bad[i].text, st, hf_error_line(), bad[i].says);
    assert_null(l.a);
  }
  prompt_list l;
  assert_int_equal(prompts_read("/nowhere/prompts.jsonl", tok, &(prompt_options){.max_tokens = 1}, &l), HF_NOT_FOUND);
  assert_int_equal(prompts_read(folder, tok, &(prompt_options){.max_tokens = 1}, &l), HF_INPUT);
}

static void a_nul_byte_in_the_file_is_an_error(void **state) {
  (void)state;
  prompt_list l = {0};
  put("{\"ids\":[1]}\n\0{\"ids\":[1]}\n", 25);
  assert_int_equal(prompts_read(path, NULL, &(prompt_options){.max_tokens = 1, .vocab_size = 9}, &l), HF_INPUT);
}

/* An id of any length is kept as valid UTF-8 that fits. */
static void long_ids_are_cut_between_characters(void **state) {
  (void)state;
  for (int shift = 0; shift < 4; shift++) {
    char text[400] = "{\"ids\":[1],\"id\":\"";
    prompt_list l;
    memset(text + strlen(text), 'a', (size_t)shift);
    for (int i = 0; i < 40; i++) strcat(text, "\xe4\xb8\xad");
    strcat(text, "\"}");
    assert_int_equal(read_text(text, NULL, (prompt_options){.repeat_to = 2}, &l), HF_OK);
    for (int i = 0; i < 2; i++) {
      const char *id = l.req[i].ext_id;
      size_t n = strlen(id);
      json *v = json_new_object();
      char *printed = NULL;
      assert_true(n >= 48 && n < sizeof l.req[i].ext_id);
      json_add_str(v, "id", id);
      assert_int_equal(json_print(v, false, &printed), HF_OK);
      assert_null(strstr(printed, "\xef\xbf\xbd")); /* nothing had to be replaced */
      free(printed);
      json_free(v);
    }
    assert_string_not_equal(l.req[0].ext_id, l.req[1].ext_id);
    prompts_free(&l);
  }
}

static void random_prompts_repeat_by_seed(void **state) {
  (void)state;
  prompt_list a, b, c;
  prompt_options o = {.max_tokens = 4};
  assert_int_equal(prompts_random(5, 40, 1000, 3, &o, &a), HF_OK);
  assert_int_equal(prompts_random(5, 40, 1000, 3, &o, &b), HF_OK);
  assert_int_equal(prompts_random(5, 40, 1000, 4, &o, &c), HF_OK);
  assert_int_equal(a.n, 5);
  for (int r = 0; r < 5; r++) {
    assert_memory_equal(a.req[r].ids, b.req[r].ids, 40 * sizeof(int32_t));
    assert_memory_not_equal(a.req[r].ids, c.req[r].ids, 40 * sizeof(int32_t));
    for (int i = 0; i < 40; i++) assert_in_range(a.req[r].ids[i], 0, 999);
  }
  assert_memory_not_equal(a.req[0].ids, a.req[1].ids, 40 * sizeof(int32_t));
  prompts_free(&a);
  prompts_free(&b);
  prompts_free(&c);
}

/* The token whose bytes are just this one. */
static int32_t token_of_byte(unsigned char byte) {
  for (int32_t id = 0; id < tokenizer_vocab_size(tok); id++) {
    hf_buf b;
    hf_buf_init(&b, 4096);
    assert_int_equal(tokenizer_decode(tok, id, false, &b), HF_OK);
    bool found = b.len == 1 && (unsigned char)b.data[0] == byte;
    hf_buf_free(&b);
    if (found) return id;
  }
  fail_msg("no token is byte 0x%02x", byte);
  return -1;
}

static json *answer_to(const int32_t *ids, int n) {
  serve_request r = {.ext_id = "q", .n_ids = 3, .max_tokens = 64, .arrival_s = 1, .first_token_s = 1.5, .end_s = 2.5, .n_out = n};
  prompt_list l = {.req = &r, .n = 1};
  int32_t out[64];
  char *text;
  size_t size;
  json *v = NULL;
  memcpy(out, ids, (size_t)n * sizeof *ids);
  r.out = out;
  snprintf(r.finish, sizeof r.finish, "length");
  assert_int_equal(prompts_write(path, &l, tok), HF_OK);
  assert_int_equal(hf_read_file(path, 1 << 20, &text, &size), HF_OK);
  assert_true(size > 1 && text[size - 1] == '\n' && memchr(text, '\n', size) == text + size - 1);
  if (json_parse(text, size - 1, "answer", &v) != HF_OK) fail_msg("%s: %s", hf_error_line(), text);
  free(text);
  assert_int_equal(json_len(json_get(v, "ids")), n);
  return v;
}

static void answers_are_valid_json_whatever_the_bytes(void **state) {
  (void)state;
  static const struct {
    const char *bytes;
    int n;
    const char *want;
  } c[] = {
      {"ok", 2, "ok"},
      {"a\xff"
       "b",
       3,
       "a\xef\xbf\xbd"
       "b"},
      {"\xc3\xa9", 2, "\xc3\xa9"}, /* a character of two tokens */
      {"x\xe4\xb8", 3, "x"},       /* cut in the middle of a character */
      {"\xe4\xb8"
       "x",
       3,
       "\xef\xbf\xbd\xef\xbf\xbd"
       "x"}, /* never completed */
      {"a\0b", 3,
       "a\xef\xbf\xbd"
       "b"},
      {"\"\\\n\t\x01", 5, "\"\\\n\t\x01"},
      {"\x80\x80", 2, "\xef\xbf\xbd\xef\xbf\xbd"},
  };
  for (size_t i = 0; i < sizeof c / sizeof c[0]; i++) {
    int32_t ids[16];
    for (int k = 0; k < c[i].n; k++) ids[k] = token_of_byte((unsigned char)c[i].bytes[k]);
    json *v = answer_to(ids, c[i].n);
    const char *text = json_string(json_get(v, "text"));
    assert_non_null(text);
    assert_string_equal(text, c[i].want);
    json_free(v);
  }
}

static void ids_without_text_give_none(void **state) {
  (void)state;
  const int32_t ids[] = {token_of_byte('a'), tokenizer_vocab_size(tok), 2000000000, token_of_byte('b')};
  json *v = answer_to(ids, 4);
  assert_string_equal(json_string(json_get(v, "text")), "ab");
  assert_true(json_number(json_get(v, "ttft_s"), -1) == 0.5);
  assert_true(json_number(json_get(v, "tpot_s"), -1) > 0.33);
  json_free(v);
  v = answer_to(ids, 0); /* cancelled before a token came: no time to it */
  assert_null(json_get(v, "ttft_s"));
  assert_null(json_get(v, "tpot_s"));
  json_free(v);
}

static void writing_leaves_devices_and_links_alone(void **state) {
  (void)state;
  serve_request r = {.ext_id = "q"};
  prompt_list l = {.req = &r, .n = 1};
  struct stat before, after;
  char link[300];
  snprintf(link, sizeof link, "%s.link", path);
  assert_int_equal(stat("/dev/null", &before), 0);
  assert_int_equal(prompts_write("/dev/null", &l, NULL), HF_OK);
  assert_int_equal(stat("/dev/null", &after), 0);
  assert_true(S_ISCHR(after.st_mode) && before.st_ino == after.st_ino);
  put("old", 3);
  assert_int_equal(symlink(path, link), 0);
  assert_int_equal(prompts_write(link, &l, NULL), HF_OK);
  assert_int_equal(lstat(link, &after), 0);
  assert_true(S_ISLNK(after.st_mode));
  assert_int_equal(unlink(link), 0);
  assert_int_equal(prompts_write("/nowhere/at/all.jsonl", &l, NULL), HF_NOT_FOUND);
}

static int set_up(void **state) {
  (void)state;
  if (!mkdtemp(folder)) return 1;
  snprintf(path, sizeof path, "%s/prompts.jsonl", folder);
  return tokenizer_open("examples/tiny-moe", &tok) != HF_OK;
}

static int tear_down(void **state) {
  (void)state;
  tokenizer_close(tok);
  unlink(path);
  return rmdir(folder);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(lines_become_requests),
      cmocka_unit_test(limits_filters_and_repeats),
      cmocka_unit_test(text_goes_through_the_tokenizer),
      cmocka_unit_test(bad_lines_are_named),
      cmocka_unit_test(stop_texts_and_probabilities_have_room),
      cmocka_unit_test(conversations_are_written_for_the_family),
      cmocka_unit_test(answers_are_kept),
      cmocka_unit_test(a_nul_byte_in_the_file_is_an_error),
      cmocka_unit_test(long_ids_are_cut_between_characters),
      cmocka_unit_test(random_prompts_repeat_by_seed),
      cmocka_unit_test(answers_are_valid_json_whatever_the_bytes),
      cmocka_unit_test(ids_without_text_give_none),
      cmocka_unit_test(writing_leaves_devices_and_links_alone),
  };
  return cmocka_run_group_tests(tests, set_up, tear_down);
}
