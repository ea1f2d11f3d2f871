/* idle.h: what a trace says of waiting: busy and idle time of each resource, and for each idle gap what it waits for.
 *
 * A gap lies before an event. It waits for the event that the other one continues: of the same step and micro-batch, on another resource, the last that had
 * ended by then (before experts on the CPU: the attention of that layer, which chooses them). Until that one ends the gap waits for it (IDLE_STAGE); what is
 * left of the gap is hand-over: signals, copies, wake-ups (IDLE_HAND). Until the first event of the step began, the gap waits for the step to be put
 * together: sampling, scheduling, requests (IDLE_STEP). The time before a resource's first event and after its last counts as IDLE_STEP, too.
 *
 * overlap as in docs/design.md: of two resources, (busy + busy - span) / the lesser busy, where span leaves out the time in which nothing had work (IDLE_STEP
 * of both): 1 when the one never waits while the other works. A step that uploads its experts asks nothing of the CPU in those layers, by plan, so the span is
 * the longest stretch without such a step in flight (all of the trace where nothing is uploaded). */
#ifndef HF_DB_IDLE_H
#define HF_DB_IDLE_H

#include "base/status.h"
#include "db/records.h"

enum { IDLE_RESOURCES = 20, IDLE_CAUSES = 10 };
typedef enum { IDLE_STAGE, IDLE_HAND, IDLE_STEP } idle_kind;

typedef struct {
  int resource;
  idle_kind kind;
  char stage[12];               /* IDLE_STAGE: of what it waits for; else "" */
  int step, layer, micro_batch; /* of what it waits for (IDLE_STAGE), of the event after it else; -1 at the end of the trace */
  int64_t start_ns, end_ns;
} idle_gap;

typedef struct {
  idle_kind kind;
  char stage[12];
  int64_t ns, gaps;
} idle_cause;

typedef struct {
  char name[8];
  int64_t busy_ns;
  int n_causes;
  idle_cause cause[IDLE_CAUSES]; /* the longest first */
} idle_resource;

typedef struct {
  int64_t start_ns, span_ns;   /* of the whole trace */
  int64_t steady_ns, until_ns; /* beginning and end of what overlap is told of */
  int n_resources;
  idle_resource resource[IDLE_RESOURCES];
  idle_gap *gap; /* by resource, then by time */
  int64_t n_gaps;
} idle_account;

/* ev in any order; events of one resource may overlap. HF_INPUT: more resources than IDLE_RESOURCES. The result owns its gaps. */
HF_MUST hf_status idle_account_of(const rec_trace *ev, int64_t n, idle_account *out);
void idle_account_free(idle_account *a);

/* Of the two busiest resources of that stretch, at least 0; NAN with fewer than two. */
double idle_overlap(const idle_account *a);
/* Their positions, -1: there is none. */
void idle_busiest(const idle_account *a, int *first, int *second);
/* A stage of a run, plan or trace by the name that people read; the name itself where none is known. */
const char *idle_stage_words(const char *stage);
/* "attention of layer 3, micro-batch 1", "the hand-over to micro-batch 1", "the next step of micro-batch 0". */
void idle_words(const idle_gap *g, char *out, size_t n);
void idle_cause_words(const idle_cause *c, char *out, size_t n);
#endif
