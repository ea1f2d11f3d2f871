/* chat.h: conversations, written as the text that a model's family was trained on.
 *
 * Every family has its own small writer, chosen by model type; within DeepSeek-V3 and Qwen3 the model's own template (tokenizer_chat_template)
 * tells the generations apart. Templates are never interpreted. Tools and images have no form here.
 * The text names special tokens; encode it with parse_special and without add_bos: where a begin token belongs it is written. */
#ifndef HF_MODEL_CHAT_H
#define HF_MODEL_CHAT_H
#include "base/mem.h"
#include "model/model.h"

typedef enum { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT } chat_role;
typedef struct {
  chat_role role;
  const char *text;
} chat_message;

/* What a writer gets: the messages (a system message only first, then user and assistant in turn), and what it may ask. */
typedef struct {
  const chat_message *msg;
  int n;
  const char *model_template; /* the model's own, "" when it has none: to tell generations apart */
  const char *date;           /* YYYY-MM-DD of today, for families that tell the model (gpt-oss) */
} chat_job;

/* Appends the conversation and the beginning of the next answer. HF_UNSUPPORTED when the family has no form of conversation, HF_INPUT when the
 * messages are out of order. model_template NULL: none. date NULL: today's. */
HF_MUST hf_status chat_write(model_family f, const chat_message *msg, int n, const char *model_template, const char *date,
                             hf_buf *out);

/* The part of an answer that is shown to the user and kept for the next turn: without what the model thought, where the family marks that.
 * Points into text; *n_answer bytes. */
const char *chat_answer(model_family f, const char *text, size_t n, size_t *n_answer);
#endif
