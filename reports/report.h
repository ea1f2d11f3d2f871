/* report.h: the reports. Each kind reads rows of the database (db/db.h) and writes one page. */
#ifndef HF_REPORTS_REPORT_H
#define HF_REPORTS_REPORT_H

#include "db/db.h"
#include "reports/page.h"

typedef struct {
  const char *kind;        /* as in report_kinds() */
  const char *operand;     /* the ID behind it, or NULL */
  const char *machine;     /* name or id, or NULL */
  int64_t plan[2], run[2]; /* 0 = choose: see report_build */
  int64_t whatif;
  int64_t answer;               /* 0 = the newest of the kind; for kinds that show answers, instead of the operand */
  double published;             /* a published figure in tokens/s to set beside a what-if; 0 = none */
  const char *published_source; /* or NULL */
} report_options;

/* Makes the report. What is not named is chosen so: machine: the newest measured; plan, run: the newest; whatif: the newest plan for a
 * machine that is not measured. sweep, recommend: the newest answer of that kind (docs/answers.md). loop: the newest re-plan (a plan made from a run) that was run, else the newest re-plan, gives the second
 * plan; the run it was made from gives the first run, and that the first plan; without a re-plan the newest run gives the first run and
 * plan. Parts of a loop that do not exist are left out of the page with a remark.
 * HF_INPUT for an unknown kind (lists the known ones) or operand; HF_NOT_FOUND when the database lacks what was asked for. */
HF_MUST hf_status report_build(db *d, const report_options *o, page **out);

/* Which of them it is; HF_INPUT for an unknown one, with the nearest where there is one. */
HF_MUST hf_status report_kind(const char *name, size_t *out);
/* "machine, plan, run, ..." */
const char *report_kinds(void);
#endif
