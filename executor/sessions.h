/* sessions.h: lines of prompts that are turns of one conversation (prompts.h). Private to prompts.c. */
#ifndef HF_EXECUTOR_SESSIONS_H
#define HF_EXECUTOR_SESSIONS_H
#include "base/json.h"
#include "executor/prompts.h"

/* The last request of this session, -1: none. */
int session_find(const prompt_list *l, const char *name);
/* The request added last, read from doc, is of it, and goes on from request `before` (-1: it is the first). HF_INPUT when it becomes too long. */
HF_MUST hf_status session_add(prompt_list *l, const char *name, int before, const json *doc);
#endif
