/* plan_notes.h: what a reader of a plan should know beside its speed: what the weight format loses, and which measured figures cannot be. */
#ifndef HF_PLANNER_PLAN_NOTES_H
#define HF_PLANNER_PLAN_NOTES_H
#include "base/mem.h"
#include "planner/plan_inputs.h"

/* Members of plan.extra: quality {perplexity_increase, tag, source}, only where published rows of this model or of its family say it;
 * doubts, an array of sentences, only where there are some. */
HF_MUST hf_status plan_notes(const plan_inputs *in, json *extra);

/* What published rows say that a weight format loses. */
typedef struct {
  bool known;      /* by rows of this model or of its family */
  double increase; /* of the perplexity: 0.032 is 3.2 % */
  db_tag tag;      /* measured: published for this model; scaled: composed from rows of its family */
  char source[200];
} plan_quality;
/* name: the model as asked for (NULL: nothing is known); format as --format takes it, NULL: as the model is stored. */
HF_MUST hf_status plan_quality_of(const model *m, const char *name, const char *format, plan_quality *out);
void plan_quality_json(const plan_quality *q, json *into); /* member quality, where it is known */
void plan_quality_read(const json *from, plan_quality *out);
/* ", +3.2 % perplexity, published"; "" where it is not known or nothing is lost. */
enum { PLAN_LOSS_TEXT = 64 };
void plan_quality_text(const plan_quality *q, char out[PLAN_LOSS_TEXT]);
/* One line for each doubt. */
HF_MUST hf_status plan_show_doubts(const plan *p, hf_buf *b);
#endif
