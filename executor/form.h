/* form.h: how a model wants to be talked to: its family's way of writing conversations, filled in from its tokenizer. */
#ifndef HF_EXECUTOR_FORM_H
#define HF_EXECUTOR_FORM_H
#include "model/chat.h"
#include "model/tokenizer.h"

typedef struct {
  chat_style style; /* points into the members below and into the tokenizer */
  char bos[64], eos[64], date[16];
  int32_t end_id; /* token that ends an answer, beside the model's end tokens; -1 = none */
} chat_form;

/* HF_INPUT when there is no tokenizer (why: of that, may be NULL). Do not copy *out: style points into it. */
HF_MUST hf_status form_of(const model *m, const tokenizer *tok, const char *why, chat_form *out);
#endif
