/* data.h: what a report is about, read from the database. Private to reports. */
#ifndef HF_REPORTS_DATA_H
#define HF_REPORTS_DATA_H

#include "reports/report.h"

typedef struct {
  rec_machine m;
  json *facts; /* facts_json parsed; NULL when it is none */
  rec_device *device;
  rec_figure *figure;
  rec_kernel_point *point;
  rec_link_point *link;
  int n_device, n_figure, n_point, n_link;
} data_machine;

typedef struct {
  plan *p;
  rec_plan_head head;
  data_machine *machine; /* NULL when it was deleted */
} data_plan;

typedef struct {
  rec_run r;
  rec_request *request;
  rec_stage *stage;
  rec_routing *routing;
  rec_distinct *distinct;
  rec_event *event;
  rec_signed_error *error;
  rec_trace *trace; /* of hf-run --trace; by start */
  int n_request, n_stage, n_routing, n_distinct, n_event, n_error, n_trace;
  plan *p; /* what it executed; NULL when it was deleted */
} data_run;

HF_MUST hf_status data_machine_get(db *d, int64_t id, data_machine **out);
HF_MUST hf_status data_plan_get(db *d, int64_t id, data_plan **out);
HF_MUST hf_status data_run_get(db *d, int64_t id, data_run **out);
void data_machine_free(data_machine *m); /* NULL ok, as below */
void data_plan_free(data_plan *p);
void data_run_free(data_run *r);

/* All that a loop shows; parts may be NULL. */
typedef struct {
  data_machine *machine;
  data_plan *plan[2], *whatif;
  data_run *run[2];
} data_loop;
/* Reads what the options name and chooses the rest; see report.h. */
HF_MUST hf_status data_loop_get(db *d, const report_options *o, data_loop *out);
void data_loop_free(data_loop *l);

/* Ids of what is chosen when nothing is named. HF_NOT_FOUND when there is none. */
HF_MUST hf_status data_latest_run(db *d, int64_t *id);
HF_MUST hf_status data_latest_plan(db *d, int64_t *id);
HF_MUST hf_status data_latest_whatif(db *d, int64_t *id);

/* Measured mean of a stage in decode, per micro-batch step: ns of layer `layer`, or, with layer -1, the sum over layers. NAN when it was not
 * recorded. */
double data_stage_ns(const data_run *r, const char *stage, int layer);
/* What the plan expects for the same; layer -1: sum. NAN for stages that a plan does not state. */
double data_planned_ns(const plan *p, const char *stage, int layer);
/* Experts of a layer (-1: all layers) on a device, and all. */
void data_placed(const plan *p, int layer, int64_t *on_device, int64_t *all);
/* Share of the run's decode choices that fell on experts which the plan keeps on a device; NAN when none were logged. */
double data_hit_share(const data_run *r, const plan *p, int layer);
#endif
