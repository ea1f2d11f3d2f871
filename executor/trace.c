/* trace.c: the stages of a run, one by one: a Chrome trace, rows of the run, and what each resource waited for. */
#include "executor/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

const char *trace_resource(bool on_host, dev_stage s, int device) {
  static const char *const gpu[ENGINE_DEVICES] = {"gpu0", "gpu1", "gpu2", "gpu3", "gpu4", "gpu5", "gpu6", "gpu7"};
  static const char *const link[ENGINE_DEVICES] = {"link", "link1", "link2", "link3", "link4", "link5", "link6", "link7"};
  return on_host || s == DEV_STAGE_CEXP ? "cpu" : s == DEV_STAGE_UPLOAD ? link[device] : gpu[device];
}

hf_status trace_add(trace_log *t, const dev_step *s, int64_t step_index) {
  enum { MAX_EVENTS = 4000000 };
  if (t->n + s->n_trace > t->cap) {
    int64_t cap = t->cap ? 2 * t->cap : 65536;
    if (cap < t->n + s->n_trace) cap = t->n + s->n_trace;
    if (cap > MAX_EVENTS) return hf_fail(HF_INPUT, "--trace: more than %d events; run fewer tokens", MAX_EVENTS);
    HF_TRY(hf_realloc(&t->ev, (size_t)cap, sizeof *t->ev, "trace events"));
    t->cap = cap;
  }
  /* Steps come as they end; an earlier one may have started later. */
  if (!t->origin_ns || s->launched_ns < t->origin_ns) t->origin_ns = s->launched_ns;
  for (int i = 0; i < s->n_trace; i++) {
    const dev_trace *d = &s->trace[i];
    rec_trace *r = &t->ev[t->n++];
    *r = (rec_trace){.step = (int)step_index,
                     .micro_batch = s->stream,
                     .layer = d->layer,
                     .start_ns = d->start_ns,
                     .end_ns = d->end_ns,
                     .tokens = d->tokens,
                     .distinct = d->distinct,
                     .bytes = d->bytes};
    snprintf(r->source, sizeof r->source, "run");
    snprintf(r->stage, sizeof r->stage, "%s", dev_stage_name(d->stage));
    snprintf(r->resource, sizeof r->resource, "%s", trace_resource(t->on_host, d->stage, d->device));
  }
  return HF_OK;
}

hf_status trace_store(db *d, int64_t run_id, const trace_log *t) {
  hf_status st = db_begin(d);
  for (int64_t i = 0; i < t->n && i < TRACE_STORED && st == HF_OK; i++) st = db_trace_put(d, run_id, 0, &t->ev[i]);
  if (st == HF_OK) return db_commit(d);
  db_rollback(d);
  return st;
}

void trace_free(trace_log *t) {
  free(t->ev);
  *t = (trace_log){0};
}
