/* trace.c: the stages of a run, one by one: a Chrome trace, rows of the run, and what each resource waited for. */
#include "executor/trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

const char *trace_resource(bool on_host, dev_stage s) {
  return on_host || s == DEV_STAGE_CEXP ? "cpu" : s == DEV_STAGE_UPLOAD ? "link" : "gpu0";
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
    snprintf(r->resource, sizeof r->resource, "%s", trace_resource(t->on_host, d->stage));
  }
  return HF_OK;
}

static json *add_event(json *list, const char *name, const char *category, int lane, int64_t origin_ns, int64_t start_ns,
                       int64_t end_ns) {
  json *e = json_add_object(list, NULL);
  json_add_str(e, "name", name);
  json_add_str(e, "cat", category);
  json_add_str(e, "ph", "X");
  json_add_int(e, "pid", 1);
  json_add_int(e, "tid", lane);
  json_add_num(e, "ts", (double)(start_ns - origin_ns) / 1000.0);
  json_add_num(e, "dur", (double)(end_ns - start_ns) / 1000.0);
  return json_add_object(e, "args");
}

static int lane_of(const idle_account *a, const char *resource) {
  int k = 0;
  while (k < a->n_resources && strcmp(a->resource[k].name, resource) != 0) k++;
  return k;
}

hf_status trace_write(const trace_log *t, const idle_account *idle, const char *path) {
  json *doc = json_new_object(), *list = json_add_array(doc, "traceEvents");
  char name[96];
  for (int k = 0; k < idle->n_resources; k++) {
    json *m = json_add_object(list, NULL);
    json_add_str(m, "name", "thread_name");
    json_add_str(m, "ph", "M");
    json_add_int(m, "pid", 1);
    json_add_int(m, "tid", k);
    json_add_str(json_add_object(m, "args"), "name", idle->resource[k].name);
  }
  for (int64_t i = 0; i < t->n; i++) {
    const rec_trace *r = &t->ev[i];
    snprintf(name, sizeof name, "%s L%d m%d", r->stage, r->layer, r->micro_batch);
    json *a = add_event(list, name, r->stage, lane_of(idle, r->resource), t->origin_ns, r->start_ns, r->end_ns);
    json_add_int(a, "step", r->step);
    json_add_int(a, "micro_batch", r->micro_batch);
    json_add_int(a, "layer", r->layer);
    json_add_int(a, "tokens", r->tokens);
    json_add_int(a, "distinct_experts", r->distinct);
    if (r->bytes > 0) json_add_int(a, "bytes", r->bytes);
  }
  for (int64_t i = 0; i < idle->n_gaps; i++) {
    const idle_gap *g = &idle->gap[i];
    idle_words(g, name, sizeof name);
    json *a = add_event(list, "idle", "idle", g->resource, t->origin_ns, g->start_ns, g->end_ns);
    json_add_str(a, "waits_for", name);
  }
  json_add_str(doc, "displayTimeUnit", "ns");
  hf_status st = json_write_file(doc, path);
  json_free(doc);
  return st;
}

void trace_idle_json(const idle_account *a, json *parent) {
  json *o = json_add_object(parent, "trace"), *list = json_add_array(o, "resources");
  const double overlap = idle_overlap(a);
  json_add_num(o, "span_s", 1e-9 * (double)a->span_ns);
  for (int k = 0; k < a->n_resources; k++) {
    const idle_resource *y = &a->resource[k];
    json *r = json_add_object(list, NULL);
    json_add_str(r, "resource", y->name);
    json_add_num(r, "busy_s", 1e-9 * (double)y->busy_ns);
    json *waits = json_add_array(r, "waits_for");
    for (int i = 0; i < y->n_causes; i++) {
      char words[64];
      json *c = json_add_object(waits, NULL);
      idle_cause_words(&y->cause[i], words, sizeof words);
      json_add_str(c, "what", words);
      json_add_num(c, "idle_s", 1e-9 * (double)y->cause[i].ns);
      json_add_int(c, "gaps", y->cause[i].gaps);
    }
  }
  if (isfinite(overlap)) json_add_num(o, "overlap", overlap);
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
