/* adapt.h: a plan that follows what is asked of it: while requests run, routing is counted, hf-plan is asked now and then whether another placement would be
 * faster, and experts change places (residency.h) without stopping anybody.
 *
 *   look    every every_s: counts of routing and stage times, in a window that halves with each look
 *   ask     a thread of low priority writes them as rows of a run that goes on, asks the hf-plan beside this program (as `hf-plan plan --from-run` does; same
 *           depth, chunk, users, context, device) and takes the rows away again; the driver never waits for it
 *   move    when the promised gain is ADAPT_LEAST_GAIN at least, and comes to more within ADAPT_PAYBACK_S than the time that moving takes
 *   watch   for every_s: tokens/s of steady decode (all users decode, nothing prefills) after the last move against those before the first
 *   back    slower than before by more than ADAPT_NOISE: experts go back, and nothing is tried for ADAPT_HOLD looks, twice as many after each further time
 * What is too small to be told from the counts' own scatter is below the least gain, so that a load that stays the same moves nothing once it has settled.
 *
 * It ends with the device: after a loss nothing is asked any more, and none waits for a question that is at work. Thread rule: the driver's thread, between steps or as one ends. */
#ifndef HF_EXECUTOR_ADAPT_H
#define HF_EXECUTOR_ADAPT_H

#include <sched.h>

#include "base/json.h"
#include "db/db.h"
#include "executor/serve.h"

static const double ADAPT_LEAST_GAIN = 0.05, ADAPT_NOISE = 0.05, ADAPT_PAYBACK_S = 600;
enum {
  ADAPT_HOLD = 8,
  ADAPT_LEAST_CHOICES = 16, /* of decoded tokens, per expert of a layer, before anything is asked */
  ADAPT_MOST_CHANGES = 256  /* that are remembered one by one */
};

typedef struct {
  const char *db_path;
  engine *e;               /* movable */
  const plan *p;           /* that it executes, in the database */
  const serve_stats *live; /* of the serving at work */
  rec_run run;             /* what it is a run of (record_describe) */
  int users, context, chunk_tokens;
  double every_s;
  cpu_set_t cpus; /* where hf-plan may run: the driver is pinned */
} adapt_options;

typedef enum { ADAPT_MOVING, ADAPT_WATCHED /* now */, ADAPT_KEPT, ADAPT_NOT_JUDGED, ADAPT_BACK, ADAPT_CUT_SHORT } adapt_outcome;
const char *adapt_outcome_name(adapt_outcome o);
typedef struct {
  double at_s, moved_s; /* since serving began; until the last had its place */
  int pairs, left_out;
  int64_t bytes;
  double gain, measured;                    /* in tokens/s: promised; found, valid when after is not 0 */
  double before_tok_per_s, after_tok_per_s; /* steady decode; 0: there was none */
  adapt_outcome outcome;
} adapt_change;

typedef struct adapt adapt;
/* Nothing but the options' engine, plan and live is borrowed. */
HF_MUST hf_status adapt_new(const adapt_options *o, adapt **out);
/* After a step: takes it on by what there is to do. Never waits; what goes wrong is told and costs no request anything. */
void adapt_step(adapt *a);
/* Serving is over: a question at work is given up. */
void adapt_end(adapt *a);
void adapt_free(adapt *a); /* ends first; NULL ok */

int adapt_changes(const adapt *a);
const adapt_change *adapt_get(const adapt *a, int i);
/* {looks, asked, failed, declined, changes: [{at_s, moved_s, pairs, left_out, bytes, gain_expected, gain_measured, before_tok_per_s, after_tok_per_s,
 * outcome}]} */
void adapt_json(const adapt *a, json *into);
void adapt_print(const adapt *a); /* lines for people, on standard output */
/* An event of kind replan for each change; within the caller's transaction or each for itself. */
HF_MUST hf_status adapt_record(const adapt *a, db *d, int64_t run_id);
#endif
