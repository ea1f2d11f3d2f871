/* record.h: a run into the database: the run's row, its requests, stage times, routing counts, distinct experts. The hot path only counts in
 * memory; everything is written by one transaction after it. Also the Chrome trace file. */
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

/* Fills the measured part of run from stats, writes everything in one transaction, sets run->id. */
/* What was measured, into *run. */
HF_MUST hf_status record_figures(rec_run *run, const serve_request *reqs, int n_reqs, const serve_stats *st);
HF_MUST hf_status record_run(db *d, rec_run *run, const serve_request *reqs, int n_reqs, const serve_stats *st);

/* Trace events of steps, bounded; for --trace. Times of ev are the clock's; the file counts from origin_ns, the first launch. */
typedef struct {
  rec_trace *ev;
  int64_t n, cap;
  int64_t origin_ns;
} trace_log;
HF_MUST hf_status trace_add(trace_log *t, const dev_step *s, int64_t step_index);
/* Chrome trace format (JSON array of "X" events; chrome://tracing, Perfetto). */
HF_MUST hf_status trace_write(const trace_log *t, const char *path);
/* The first TRACE_STORED events as rows of the run, in one transaction, so that SQL can compare them with stage times and simulations. */
enum { TRACE_STORED = 20000 };
HF_MUST hf_status trace_store(db *d, int64_t run_id, const trace_log *t);
void trace_free(trace_log *t);
#endif
