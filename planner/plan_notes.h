/* plan_notes.h: what a reader of a plan should know beside its speed: what the weight format loses, and which measured figures cannot be. */
#ifndef HF_PLANNER_PLAN_NOTES_H
#define HF_PLANNER_PLAN_NOTES_H
#include "base/mem.h"
#include "planner/plan_inputs.h"

/* Members of plan.extra: quality {perplexity_increase, tag, source}, only where published rows of this model or of its family say it;
 * doubts, an array of sentences, only where there are some. */
HF_MUST hf_status plan_notes(const plan_inputs *in, json *extra);
/* ", +3.2 % perplexity, published"; "" where it is not known or nothing is lost. */
enum { PLAN_LOSS_TEXT = 64 };
void plan_loss_text(const plan *p, char out[PLAN_LOSS_TEXT]);
/* One line for each doubt. */
HF_MUST hf_status plan_show_doubts(const plan *p, hf_buf *b);
#endif
