/* chat.c: what all families' conversations share. */
#include "model/chat.h"

#include <string.h>

#include "model/family.h"

hf_status chat_put(hf_buf *out, const char *a, const char *b, const char *c) {
  const char *part[] = {a, b, c};
  for (int i = 0; i < 3; i++) HF_TRY(hf_buf_add(out, part[i], strlen(part[i])));
  return HF_OK;
}

const char *chat_after_thought(const char *text) {
  const char *last = NULL;
  for (const char *p = text; (p = strstr(p, "</think>")) != NULL; p += 8) last = p + 8;
  return last ? last : text;
}

const char *chat_skip(const char *text, const char *blanks) {
  return text + strspn(text, blanks);
}

hf_status chat_write(const chat_style *s, const chat_message *msg, int n, hf_buf *out) {
  const family *f = family_get(s->family);
  if (!f->chat)
    return hf_fail(HF_UNSUPPORTED, "%s: no form of conversation is known for this family; give the prompt as plain text",
                   f->name);
  int first = n > 0 && msg[0].role == CHAT_SYSTEM;
  for (int i = first; i < n; i++)
    if (msg[i].role != ((i - first) % 2 ? CHAT_ASSISTANT : CHAT_USER))
      return hf_fail(HF_INPUT, "message %d: expected one of the %s: perhaps a system message, then user and assistant in turn", i,
                     (i - first) % 2 ? "assistant" : "user");
  if (n == first || msg[n - 1].role != CHAT_USER) return hf_fail(HF_INPUT, "the last message must be the user's");
  return f->chat(s, msg, n, out);
}

const char *chat_end_token(model_family f) {
  return family_get(f)->chat_end;
}

const char *chat_answer(model_family f, const char *text) {
  const family *x = family_get(f);
  return x->chat_answer ? x->chat_answer(text) : text;
}
