/* sessions.h: lines of prompts that are turns of one conversation (prompts.h). Private to prompts.c. */
#ifndef HF_EXECUTOR_SESSIONS_H
#define HF_EXECUTOR_SESSIONS_H
#include "base/json.h"
#include "executor/prompts.h"

/* The last request of this session, -1: none. */
int session_find(const prompt_list *l, const char *name);
/* The request added last, read from doc, is of it, and goes on from request `before` (-1: it is the first). HF_INPUT when it becomes too long. */
HF_MUST hf_status session_add(prompt_list *l, const char *name, int before, const json *doc);
/* Request i has an answer already, to a prompt of so many tokens. */
HF_MUST hf_status session_keep(const prompt_list *l, int i, int64_t n_prompt);
/* Request i is at[i] from now on. */
HF_MUST hf_status sessions_move(prompt_list *l, const int *at);
/* Prompts of answered turns, behind the n that are left, as they were; counts the sessions of those. HF_INPUT when one is another. */
HF_MUST hf_status sessions_resume(prompt_list *l, const tokenizer *tok, const chat_form *form, const char *system,
                                  const model_config *c);
#endif
