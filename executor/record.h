/* record.h: a run into the database: the run's row, its requests, stage times, routing counts, distinct experts. The hot path only counts in
 * memory; everything is written by one transaction after it. */
#ifndef HF_EXECUTOR_RECORD_H
#define HF_EXECUTOR_RECORD_H

#include "base/stats.h"
#include "db/db.h"
#include "executor/serve.h"

/* TTFT and TPOT of all finished requests (design §7: TPOT = (E2E - TTFT) / (n - 1)). */
HF_MUST hf_status record_latencies(const serve_request *reqs, int n, hf_percentiles *ttft_s, hf_percentiles *tpot_s);

/* What a run of texts was of: model, format, device, depth, threads, plan (NULL: none) and its machine; stopped: before its end. */
void record_describe(rec_run *run, const char *model_path, const model *m, const engine *e, const engine_options *o,
                     const plan *p, int users, bool stopped);

/* What was measured, into *run. */
HF_MUST hf_status record_figures(rec_run *run, const serve_request *reqs, int n_reqs, const serve_stats *st);
/* Of a run that goes on: its row and what was counted of routing (and of distinct experts, up to max_tok) and stages, in one transaction. */
HF_MUST hf_status record_counts(db *d, rec_run *run, const serve_stats *st);
/* Writes *run, figures filled in, and all that belongs to it in one transaction; sets run->id. */
HF_MUST hf_status record_run(db *d, rec_run *run, const serve_request *reqs, int n_reqs, const serve_stats *st);

/* Work is worth more than its row: where the database fails (a full disk) the work goes on, and this keeps what there is to tell. */
typedef struct {
  hf_status st; /* what failed first; HF_OK: nothing did */
  char why[512];
} record_failure;
/* Keeps st and the error line unless something failed before, and clears the error trail. False when st is HF_OK. */
bool record_failed(record_failure *f, hf_status st);

#endif
