/* Conversations of every family against the texts that the published templates give (tests/golden/chat.json; tests/golden/README.md says how
 * they were made), and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "model/chat.h"

enum { MOST = 16 };

static model_family family_named(const char *name) {
  for (int f = 0; f < FAM_N; f++)
    if (!strcmp(model_family_name((model_family)f), name)) return (model_family)f;
  fail_msg("no family %s", name);
  return FAM_N;
}

static const char *text_of(const json *o, const char *key) {
  const char *s = json_string(json_get(o, key));
  if (!s) fail_msg("field %s", key);
  return s;
}

static void texts_of_the_published_templates(void **state) {
  (void)state;
  json *all = NULL;
  bool seen[FAM_N] = {false};
  int n = 0;
  assert_int_equal(json_read_file("tests/golden/chat.json", 1 << 20, &all), HF_OK);
  for (const json *c = json_first(all); c; c = json_next(c), n++) {
    chat_message msg[MOST];
    int k = 0;
    for (const json *m = json_first(json_get(c, "messages")); m && k < MOST; m = json_next(m), k++) {
      const char *role = text_of(m, "role");
      msg[k] = (chat_message){role[0] == 's' ? CHAT_SYSTEM : role[0] == 'u' ? CHAT_USER : CHAT_ASSISTANT, text_of(m, "content")};
    }
    chat_style s = {family_named(text_of(c, "family")), text_of(c, "bos"), text_of(c, "eos"), text_of(c, "template"),
                    text_of(c, "date")};
    hf_buf out;
    hf_buf_init(&out, 1 << 16);
    if (chat_write(&s, msg, k, &out) != HF_OK) fail_msg("%s: %s", text_of(c, "family"), hf_error_line());
    assert_string_equal(out.data, text_of(c, "text"));
    hf_buf_free(&out);
    seen[s.family] = true;
  }
  assert_true(n > 50);
  for (int f = 0; f < FAM_LLAMA; f++)
    if (!seen[f]) fail_msg("%s: no conversation", model_family_name((model_family)f));
  json_free(all);
}

static void refused(const chat_message *msg, int n, hf_status code, model_family f, const char *says) {
  chat_style s = {f, "", "", "", ""};
  hf_buf out;
  hf_buf_init(&out, 1000);
  assert_int_equal(chat_write(&s, msg, n, &out), code);
  if (!strstr(hf_error_line(), says)) fail_msg("'%s', not '%s'", hf_error_line(), says);
  hf_buf_free(&out);
}

static void messages_out_of_order(void **state) {
  (void)state;
  const chat_message u = {CHAT_USER, "u"}, a = {CHAT_ASSISTANT, "a"}, s = {CHAT_SYSTEM, "s"};
  refused(NULL, 0, HF_INPUT, FAM_MIXTRAL, "last message");
  refused((chat_message[]){s}, 1, HF_INPUT, FAM_MIXTRAL, "last message");
  refused((chat_message[]){u, u}, 2, HF_INPUT, FAM_MIXTRAL, "message 1: expected one of the assistant");
  refused((chat_message[]){u, a}, 2, HF_INPUT, FAM_MIXTRAL, "last message");
  refused((chat_message[]){u, s}, 2, HF_INPUT, FAM_MIXTRAL, "message 1");
  refused((chat_message[]){u}, 1, HF_UNSUPPORTED, FAM_LLAMA, "no form of conversation");
}

static void answers_without_thoughts(void **state) {
  (void)state;
  assert_string_equal(chat_answer(FAM_QWEN3_MOE, "<think>\nno\n</think>\n\nyes"), "\n\nyes");
  assert_string_equal(chat_answer(FAM_DEEPSEEK_V3, "plain"), "plain");
  assert_string_equal(
      chat_answer(FAM_GPT_OSS, "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>b"), "b");
  assert_string_equal(chat_answer(FAM_MIXTRAL, "a</think>b"), "a</think>b");
  assert_string_equal(chat_end_token(FAM_KIMI_K2), "<|im_end|>");
  assert_null(chat_end_token(FAM_MIXTRAL));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(texts_of_the_published_templates),
      cmocka_unit_test(messages_out_of_order),
      cmocka_unit_test(answers_without_thoughts),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
