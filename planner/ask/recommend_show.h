/* recommend_show.h: a recommendation in words, as a document, as CSV. */
#ifndef HF_PLANNER_ASK_RECOMMEND_SHOW_H
#define HF_PLANNER_ASK_RECOMMEND_SHOW_H

#include "planner/ask/recommend.h"

/* A weight format that was held against the floor on quality. */
typedef struct {
  char name[SPACE_NAME], tag[16];
  bool known, searched, own; /* known: a table has a figure for its types; own: what the model was published in */
  double loss, bits;         /* of ln(perplexity); per weight */
} recommend_format;

typedef struct {
  const recommend_question *q;
  const recommend_result *r;
  const char *model, *format; /* as asked; format NULL: the model's */
  int64_t users, context;
  const char *floor_text; /* percent of perplexity above the original's; NULL: formats were named and no floor asked for */
  double floor;           /* the same as a loss */
  int n_formats;
  recommend_format formats[16]; /* by bits, those searched first; none without a floor */
} recommendation;

/* "p95 TPOT within 150 ms"; "anything that runs it" without limits. */
void recommend_limits(const ask_slo *slo, char out[160]);
void recommend_verdict(const recommendation *y, char *out, size_t n);
HF_MUST hf_status recommend_to_json(const recommendation *y, json *doc);
HF_MUST hf_status recommend_text(const recommendation *y, hf_buf *b);
HF_MUST hf_status recommend_csv(const recommendation *y, hf_buf *b);
#endif
