/* chat.h: conversations, written as the text that a model's family was trained on.
 *
 * Every family has its own small writer, chosen by model type; where generations of a family differ, the model's own template
 * (tokenizer_chat_template) tells them apart. Templates are never interpreted. Tools and images have no form here.
 * The text names special tokens, the begin token among them: encode it with parse_special and without add_bos. */
#ifndef HF_MODEL_CHAT_H
#define HF_MODEL_CHAT_H
#include "base/mem.h"
#include "model/model.h"

typedef enum { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT } chat_role;
typedef struct {
  chat_role role;
  const char *text;
} chat_message;

/* Whom it is written for. */
typedef struct {
  model_family family;
  const char *bos, *eos;      /* the tokenizer's, "" where it has none */
  const char *model_template; /* the model's own, "" where it has none */
  const char *date;           /* YYYY-MM-DD of today, for families whose models are told (gpt-oss) */
} chat_style;

/* Appends the conversation and the beginning of the next answer. The messages: perhaps a system message, then user and assistant in turn, a
 * user last; HF_INPUT otherwise. HF_UNSUPPORTED when the family has no form of conversation. */
HF_MUST hf_status chat_write(const chat_style *s, const chat_message *msg, int n, hf_buf *out);

/* The token that ends an answer, or NULL where the model's own end token does. */
const char *chat_end_token(model_family f);

/* The part of an answer that counts as its text for the next turn: without what the model thought, where the family marks that. `text` is
 * as it came, special tokens written out. Points into it. */
const char *chat_answer(model_family f, const char *text);
#endif
