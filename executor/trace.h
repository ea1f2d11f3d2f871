/* trace.h: --trace. */
#ifndef HF_EXECUTOR_TRACE_H
#define HF_EXECUTOR_TRACE_H

#include "db/db.h"
#include "executor/engine.h"

/* Trace events of steps, bounded; for --trace. Times of ev are the clock's; the file counts from origin_ns, the first launch. */
typedef struct {
  rec_trace *ev;
  int64_t n, cap;
  int64_t origin_ns;
  bool on_host; /* there is no device: every stage is the CPU's */
} trace_log;
/* What a stage occupies: gpu0, cpu, or link, the device's copy queue; gpu1 and link1 of a second device. */
const char *trace_resource(bool on_host, dev_stage s, int device);
HF_MUST hf_status trace_add(trace_log *t, const dev_step *s, int64_t step_index);
/* The first TRACE_STORED events as rows of the run, in one transaction, so that SQL can compare them with stage times and simulations. */
enum { TRACE_STORED = 20000 };
HF_MUST hf_status trace_store(db *d, int64_t run_id, const trace_log *t);
void trace_free(trace_log *t);
#endif
