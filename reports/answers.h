/* answers.h: answers of hf-plan (docs/answers.md) as parts of pages. A document comes from the database and counts as text from outside:
 * a member that is missing or of another kind shows as "nothing known", never as a failure. Private to reports. */
#ifndef HF_REPORTS_ANSWERS_H
#define HF_REPORTS_ANSWERS_H

#include "reports/data.h"

typedef struct {
  rec_answer row;
  json *doc;
} data_answer;

/* id 0: the newest of the kind. HF_NOT_FOUND when there is none; HF_INPUT when that id is of another kind or its document is no object. */
HF_MUST hf_status data_answer_get(db *d, const char *kind, int64_t id, data_answer **out);
void data_answer_free(data_answer *a); /* NULL ok */

/* A member of a member: "question.slo.ttft_s". NULL, NAN and "" when there is none. */
const json *answer_at(const json *o, const char *path);
double answer_num(const json *o, const char *path);
const char *answer_text(const json *o, const char *path);

/* The document's verdict as the page's, a fact for each sentence, and its assumptions as rows of the closing table of sources. */
void answer_verdict(page *p, const json *doc);
void answer_sources(page *p, const json *doc);

/* Tiles of what a case delivers, its latencies and its decode rate; delivers: the first one's name. */
void tiles_speed(page *p, const json *one, const char *delivers);
/* One row per case: load, machine, tokens/s, latencies, binding, price and cost. cases: an array. */
void table_cases(page *p, const char *id, const json *cases, const char *caption);

void section_sweep(page *p, const json *doc);
void section_recommend(page *p, const json *doc);
/* Whose figures they are: the sentence of the answer, where there is one. */
void note_engine(page *p, const json *doc);
void section_roi(page *p, const json *doc);
void section_validate(page *p, const json *doc);
void section_formats(page *p, const json *doc);
void section_changes(page *p, const json *doc);
/* What load delivered tokens per second and percentiles are of: a note under the first table. */
void note_load(page *p);
#endif
