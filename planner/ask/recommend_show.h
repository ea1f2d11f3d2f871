/* recommend_show.h: a recommendation in words, as a document, as CSV. */
#ifndef HF_PLANNER_ASK_RECOMMEND_SHOW_H
#define HF_PLANNER_ASK_RECOMMEND_SHOW_H

#include "planner/ask/recommend.h"

typedef struct {
  const recommend_question *q;
  const recommend_result *r;
  const char *model, *format; /* as asked; format NULL: the model's */
  int64_t users, context;
} recommendation;

void recommend_verdict(const recommendation *y, char *out, size_t n);
HF_MUST hf_status recommend_to_json(const recommendation *y, json *doc);
HF_MUST hf_status recommend_text(const recommendation *y, hf_buf *b);
HF_MUST hf_status recommend_csv(const recommendation *y, hf_buf *b);
#endif
