/* sections.h: the parts that reports are made of. Each writes one section of the page and its rows of the closing table of sources.
 * id: program text that makes the section's and its tables' names unique ("plan", "plan-2", "whatif"). Private to reports. */
#ifndef HF_REPORTS_SECTIONS_H
#define HF_REPORTS_SECTIONS_H

#include "reports/data.h"

enum { SECTION_ID_MAX = 64 };
/* "ID-SUFFIX", in a buffer of the caller's. */
const char *section_id(char out[SECTION_ID_MAX], const char *id, const char *suffix);

void section_machine(page *p, const char *id, const char *title, const data_machine *m);
void table_devices(page *p, const char *id, const data_machine *m);
void table_facts(page *p, const char *id, const data_machine *m, bool folded);
/* Figures of a machine with interval, tag and source; all of it folded unless it decides (what-if). */
void table_figures(page *p, const char *id, const data_machine *m, bool folded);

void section_plan(page *p, const char *id, const char *title, const data_plan *pl);
/* The parts of it: placement map with layers, what other placements give, budget. old: mark what moved, or NULL. */
void part_placement(page *p, const char *id, const plan *pl, const plan *old);
void part_alternatives(page *p, const char *id, const plan *pl);
void part_budget(page *p, const char *id, const plan *pl);
void source_of_plan(page *p, const data_plan *pl, const char *name);

void section_run(page *p, const char *id, const char *title, const data_run *r);
/* Of a run with --trace; else nothing. */
void part_timeline(page *p, const char *id, const data_run *r);
/* A re-plan against the plan before; the runs may be NULL. */
void section_replan(page *p, const char *id, const data_plan *now, const data_plan *old, const data_run *before,
                    const data_run *after);
/* published 0: none. */
void section_whatif(page *p, const char *id, const data_plan *pl, double published, const char *published_source);
void section_definitions(page *p);

/* Facts for verdicts, a sentence each: appended to b. */
HF_MUST hf_status say_machine(const data_machine *m, hf_buf *b);
HF_MUST hf_status say_plan(const plan *pl, hf_buf *b);
HF_MUST hf_status say_run(const data_run *r, hf_buf *b);
/* Nothing where there is no doubt. */
HF_MUST hf_status say_plan_doubts(const plan *pl, hf_buf *b);
HF_MUST hf_status say_run_doubt(const data_run *r, hf_buf *b);
HF_MUST hf_status say_gain(const data_plan *now, const data_run *before, const data_run *after, hf_buf *b);
HF_MUST hf_status say_whatif(const data_plan *pl, double published, hf_buf *b);
/* Expected gain of a re-plan (extra.changes.gain_expected) and the measured one; NAN when not known. */
double replan_gain_expected(const plan *now);
double replan_gain_measured(const data_run *before, const data_run *after);
/* Was the run the whole planned load, so that a prediction can be held against it? run_alike: can two runs be compared? */
bool run_comparable(const data_run *r);
bool run_alike(const data_run *a, const data_run *b);
/* The machine's title as the catalog states it, else its name. */
const char *machine_title(const data_machine *m);
/* (predicted - measured) / measured, NAN without both. */
double signed_error(double predicted, double measured);
#endif
