/* whatif.h: a base and its changes, side by side. */
#ifndef HF_PLANNER_ASK_WHATIF_H
#define HF_PLANNER_ASK_WHATIF_H

#include "planner/ask/cause.h"
#include "planner/ask/command.h"
#include "planner/plan_notes.h"

enum { WHATIF_MAX_COLUMNS = 48 };

typedef struct {
  ask_changes set; /* n 0: the base */
  bool together;
  bool lost; /* among the changes */
  ask_machine *machine;
  ask_case_spec spec;
  ask_case c;
  int n_causes;
  ask_cause cause[ASK_MAX_CAUSES];
} whatif_column;

typedef struct {
  const ask_command *command;
  const char *slo_from; /* "asked", "base" or NULL */
  ask_slo slo;
  int n;
  whatif_column *column; /* [n], the base first; owned */
  plan_quality quality;  /* of the base's weight format */
  char dropped[200];     /* why there is no column of all together, or "" */
} whatif;

/* The columns: base, one per change given, then all together (see whatif_together). Nothing is evaluated yet. */
HF_MUST hf_status whatif_columns(const ask_changes *sets, int n_sets, const ask_changes *cases, int n_cases, bool together,
                                 bool alone, whatif *w);
/* All changes of the sets at once, but for keys that several sets give unlike values (they contradict each other) and for losses. False when
 * fewer than two sets contribute. with_lost: the losses too; then false where there is no loss or nothing beside. */
bool whatif_together(const ask_changes *sets, int n, bool with_lost, ask_changes *out);
HF_MUST hf_status whatif_evaluate(whatif *w, db *d, const ask_machine *base);
HF_MUST hf_status whatif_to_json(const whatif *w, json *doc);
HF_MUST hf_status whatif_csv(const whatif *w, hf_buf *b);
/* One or two sentences. */
void whatif_verdict(const whatif *w, char *out, size_t n);
HF_MUST hf_status whatif_text(const whatif *w, hf_buf *b);
void whatif_free(whatif *w);
#endif
