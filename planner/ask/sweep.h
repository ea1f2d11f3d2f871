/* sweep.h: a table of cases over two axes, and where it bends. */
#ifndef HF_PLANNER_ASK_SWEEP_H
#define HF_PLANNER_ASK_SWEEP_H

#include "planner/ask/command.h"

/* Why a row's knee is where it is. */
typedef enum { KNEE_NONE, KNEE_GAIN, KNEE_SLO } knee_rule;
typedef struct {
  int at; /* index into the first axis; -1 when no cell of the row fits (or, KNEE_SLO, meets the SLO) */
  knee_rule rule;
} sweep_knee;

/* The last of n points up to which one more user still adds at least `gain` of what a user adds at the start of the row: (rate[i] - rate[i-1]) /
 * (users[i] - users[i-1]) >= gain * rate[0] / users[0]. ok[i] false: does not fit, and ends the row. With meets (NULL: no SLO) a point that
 * misses the SLO ends the row too, rule KNEE_SLO. KNEE_NONE: the row never bends; at is its last point. */
sweep_knee sweep_find_knee(const double *users, const double *rate, const bool *ok, const bool *meets, int n, double gain);

typedef struct {
  const ask_command *command;
  ask_axis axis[2];
  double knee_gain;
  /* axis[0].n * axis[1].n, the first axis fastest; owned */
  ask_machine **machine;
  ask_changes *set;
  ask_case_spec *spec;
  ask_case *c;
  sweep_knee knee[ASK_MAX_POINTS]; /* per value of the second axis, when the first is users */
  bool has_knees;
  double seconds;
  int threads;
} sweep;

/* HF_INPUT: the same axis twice, an axis whose changes contradict the machine. d NULL: catalog only. */
HF_MUST hf_status sweep_prepare(sweep *w, db *d, const ask_machine *base);
HF_MUST hf_status sweep_run(sweep *w, void (*done)(void *user, int i), void *user);
HF_MUST hf_status sweep_to_json(const sweep *w, json *doc);
HF_MUST hf_status sweep_csv(const sweep *w, hf_buf *b);
void sweep_verdict(const sweep *w, char *out, size_t n);
HF_MUST hf_status sweep_text(const sweep *w, hf_buf *b, bool colour);
void sweep_free(sweep *w);
#endif
