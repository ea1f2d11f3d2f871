/* show.h: a comparison as JSON (design §11 and docs/answers.md), as text and as Markdown. */
#ifndef HF_PLANNER_VALIDATE_SHOW_H
#define HF_PLANNER_VALIDATE_SHOW_H
#include "planner/validate/compare.h"
#include "planner/validate/scenario.h"

/* Members into doc: rows, used, declined, median_abs_error, p90_abs_error, cases, groups, declined_rows, scenarios, priors, parameters. */
HF_MUST hf_status show_json(const comparison *c, const scenario *s, int n_scenarios, json *doc);
/* Groups first, then rows, what was declined, the scenarios, the priors. Markdown: tables of it. */
HF_MUST hf_status show_text(const comparison *c, const scenario *s, int n_scenarios, bool markdown, hf_buf *out);
/* The fitted facts as members of "facts" of their files. */
HF_MUST hf_status show_fit(const engine_set *s, hf_buf *out);
#endif
