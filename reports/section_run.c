/* section_run.c: what a run did, against what its plan said. */
#include "reports/sections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reports/draw.h"

/* Stages that both a plan and a run state, in the order of a layer. */
enum { N_STAGES = 5 };
static const struct {
  const char *stage, *name;
} stages[N_STAGES] = {{"attn", "attention"},
                      {"hand", "hand-over"},
                      {"shared", "shared expert, dense layers"},
                      {"dexp", "experts on the device"},
                      {"cexp", "experts on the CPU"}};

hf_status say_run(const data_run *r, hf_buf *b) {
  char measured[FORMAT_MAX], predicted[FORMAT_MAX], error[FORMAT_MAX];
  format_number(r->r.decode_tok_per_s, FMT_TOK_S, measured);
  format_number(r->r.predicted_decode_tok_per_s, FMT_TOK_S, predicted);
  HF_TRY(hf_buf_printf(b, "Run %lld decoded %s tokens/s", (long long)r->r.id, measured));
  double e = signed_error(r->r.predicted_decode_tok_per_s, r->r.decode_tok_per_s);
  if (!isfinite(e)) return hf_buf_printf(b, "; there was no prediction for it.");
  format_number(e, FMT_SIGNED, error);
  bool inside = r->r.decode_tok_per_s >= r->r.predicted_low && r->r.decode_tok_per_s <= r->r.predicted_high;
  return hf_buf_printf(b, "; predicted were %s, %s off, and the measured figure lies %s the predicted interval.", predicted,
                       error, inside ? "inside" : "outside");
}

static void tiles_of_run(page *p, const data_run *d) {
  const rec_run *r = &d->r;
  char v[FORMAT_MAX], w[FORMAT_MAX];
  page_tiles(p);
  format_number(r->decode_tok_per_s, FMT_TOK_S, v);
  page_tile(p, "Decode, all users", v, "tokens/s measured");
  format_number(signed_error(r->predicted_decode_tok_per_s, r->decode_tok_per_s), FMT_SIGNED, v);
  format_number(r->predicted_decode_tok_per_s, FMT_TOK_S, w);
  page_tile(p, "Error of the prediction", v, r->predicted_decode_tok_per_s > 0 ? "predicted %s tokens/s" : "no prediction%.0s",
            w);
  format_number(r->ttft_p50_s, FMT_SECONDS, v);
  format_number(r->ttft_p90_s, FMT_SECONDS, w);
  page_tile(p, "TTFT, p50", v, "p90 %s", w);
  format_number(r->tpot_p50_s, FMT_SECONDS, v);
  format_number(r->tpot_p90_s, FMT_SECONDS, w);
  page_tile(p, "TPOT, p50", v, "p90 %s", w);
  format_number((double)r->output_tokens, FMT_INT, v);
  format_number(r->wall_s, FMT_SECONDS, w);
  page_tile(p, "Tokens written", v, "%d requests in %s", d->n_request, w);
  double hit = d->p != NULL ? data_hit_share(d, d->p, -1) : NAN;
  if (isfinite(hit)) {
    int64_t on = 0, all = 0;
    data_placed(d->p, -1, &on, &all);
    format_number(hit, FMT_SHARE, v);
    format_number(all > 0 ? (double)on / (double)all : 0, FMT_SHARE, w);
    page_tile(p, "Choices served by the device", v, "with %s of the experts there", w);
  }
  page_tiles_end(p);
}

/* ---- predicted against measured ---- */

/* One metric: as the database's view run_error states it, else (percentiles that the view does not have, runs without prediction) from
 * the numbers given. */
static void add_metric(page *p, rep_table *t, const data_run *d, const char *metric, double predicted, double measured) {
  bool rate = strcmp(metric, "decode_tok_per_s") == 0;
  double error = signed_error(predicted, measured);
  for (int i = 0; i < d->n_error; i++) {
    const rec_signed_error *e = &d->error[i];
    if (strcmp(e->metric, metric) == 0) predicted = e->predicted, measured = e->measured, error = e->signed_error;
  }
  if (!(measured > 0)) return;
  table_text(p, t, metric), table_as(p, t, predicted > 0 ? predicted : NAN, rate ? FMT_TOK_S : FMT_SECONDS);
  table_as(p, t, measured, rate ? FMT_TOK_S : FMT_SECONDS), table_num(p, t, error), table_text(p, t, rate ? "tokens/s" : "s");
}

static void table_errors(page *p, const char *id, const data_run *d) {
  static const rep_col cols[] = {{"metric", "Metric", FMT_TEXT},
                                 {"predicted", "Predicted", FMT_NUM},
                                 {"measured", "Measured", FMT_NUM},
                                 {"signed_error", "Error", FMT_SIGNED},
                                 {"unit", "Unit", FMT_TEXT}};
  const rec_run *r = &d->r;
  const plan *pl = d->p;
  char name[SECTION_ID_MAX];
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "errors"), cols,
                            "Predicted against measured, run %lld: error = (predicted − measured) / measured", (long long)r->id);
  add_metric(p, t, d, "decode_tok_per_s", r->predicted_decode_tok_per_s, r->decode_tok_per_s);
  add_metric(p, t, d, "ttft_p50_s", r->predicted_ttft_p50_s, r->ttft_p50_s);
  add_metric(p, t, d, "ttft_p90_s", pl != NULL ? pl->ttft_s.p90 : 0, r->ttft_p90_s);
  add_metric(p, t, d, "ttft_p99_s", pl != NULL ? pl->ttft_s.p99 : 0, r->ttft_p99_s);
  add_metric(p, t, d, "tpot_p50_s", r->predicted_tpot_p50_s, r->tpot_p50_s);
  add_metric(p, t, d, "tpot_p90_s", pl != NULL ? pl->tpot_s.p90 : 0, r->tpot_p90_s);
  add_metric(p, t, d, "tpot_p99_s", pl != NULL ? pl->tpot_s.p99 : 0, r->tpot_p99_s);
  page_table_end(p, t, false);
}

static void range_of_run(page *p, const rec_run *r) {
  if (!(r->predicted_decode_tok_per_s > 0) || !(r->decode_tok_per_s > 0)) return;
  plan_range range = {r->predicted_low, r->predicted_decode_tok_per_s, r->predicted_high};
  draw_mark mark = {"measured", r->decode_tok_per_s, "measured"};
  draw_range(p, &range, &mark, 1);
}

/* ---- stages ---- */

static void table_stages(page *p, const char *id, const data_run *d) {
  static const rep_col cols[] = {{"stage", "Stage", FMT_TEXT},
                                 {"predicted_ns", "Predicted", FMT_NS},
                                 {"measured_ns", "Measured", FMT_NS},
                                 {"signed_error", "Error", FMT_SIGNED}};
  char name[SECTION_ID_MAX];
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "stages"), cols, "Stages of a decode step, summed over layers");
  for (int s = 0; s <= N_STAGES + 1; s++) {
    const char *stage = s < N_STAGES ? stages[s].stage : s == N_STAGES ? "head" : "step";
    double planned = data_planned_ns(d->p, stage, -1), measured = data_stage_ns(d, stage, -1);
    if (!isfinite(measured)) continue;
    table_text(p, t, s < N_STAGES ? stages[s].name : s == N_STAGES ? "output head" : "whole step");
    table_num(p, t, planned), table_num(p, t, measured), table_num(p, t, signed_error(planned, measured));
  }
  page_table_end(p, t, false);
}

static void table_layer_stages(page *p, const char *id, const data_run *d) {
  static const rep_col cols[] = {{"layer", "Layer", FMT_INT},
                                 {"stage", "Stage", FMT_TEXT},
                                 {"predicted_ns", "Predicted", FMT_NS},
                                 {"measured_ns", "Measured", FMT_NS},
                                 {"signed_error", "Error", FMT_SIGNED}};
  char name[SECTION_ID_MAX];
  rep_table *t =
      PAGE_TABLE(p, section_id(name, id, "layer-stages"), cols, "Stages of each layer in decode, mean of a micro-batch");
  for (int l = 0; l < d->p->n_layers; l++) {
    for (int s = 0; s < N_STAGES; s++) {
      int layer = d->p->layer[l].index;
      double planned = data_planned_ns(d->p, stages[s].stage, layer), measured = data_stage_ns(d, stages[s].stage, layer);
      if (!isfinite(measured)) continue;
      table_num(p, t, layer), table_text(p, t, stages[s].stage), table_num(p, t, planned), table_num(p, t, measured);
      table_num(p, t, signed_error(planned, measured));
    }
  }
  page_table_end(p, t, true);
}

static void chart_stage(page *p, const char *id, const data_run *d, int s) {
  char name[SECTION_ID_MAX], total[FORMAT_MAX], planned[FORMAT_MAX];
  double sum = data_stage_ns(d, stages[s].stage, -1);
  if (!isfinite(sum) || !(sum > 0)) return;
  format_number(sum, FMT_NS, total);
  format_number(data_planned_ns(d->p, stages[s].stage, -1), FMT_NS, planned);
  json *c =
      page_chart(p, section_id(name, id, stages[s].stage), "bar", stages[s].name, "layer", "µs", CHART_SMALL,
                 "Bar chart: time of this stage in each layer, predicted beside measured. All layers: predicted %s, measured %s.",
                 planned, total);
  json *predicted = chart_series(c, "predicted", "predicted"), *measured = chart_series(c, "measured", "measured");
  for (int l = 0; l < d->p->n_layers; l++) {
    int layer = d->p->layer[l].index;
    double ns = data_stage_ns(d, stages[s].stage, layer), expected = data_planned_ns(d->p, stages[s].stage, layer);
    if (!isfinite(ns) && !(expected > 0)) continue;
    chart_point(predicted, layer, 1e-3 * expected);
    chart_point(measured, layer, isfinite(ns) ? 1e-3 * ns : 0);
  }
}

static void part_stages(page *p, const char *id, const data_run *d) {
  if (d->p == NULL || d->n_stage == 0) return;
  page_heading(p, "Where the time went");
  page_text(p, "Device stages and CPU experts of a layer run at the same time, so the stages add up to more than the step.");
  page_charts(p);
  for (int s = 0; s < N_STAGES; s++) chart_stage(p, id, d, s);
  page_charts_end(p);
  table_stages(p, id, d);
  table_layer_stages(p, id, d);
}

/* ---- routing ---- */

static void part_routing(page *p, const char *id, const data_run *d) {
  static const rep_col hit_cols[] = {{"layer", "Layer", FMT_INT},
                                     {"experts_on_device", "Experts on device", FMT_INT},
                                     {"experts", "of", FMT_INT},
                                     {"choices_on_device", "Choices served by it", FMT_SHARE}};
  static const rep_col distinct_cols[] = {{"tokens", "Tokens in a step", FMT_INT},
                                          {"steps", "Steps and layers", FMT_INT},
                                          {"distinct_mean", "Distinct experts, mean", FMT_NUM}};
  char name[SECTION_ID_MAX];
  if (d->p != NULL && isfinite(data_hit_share(d, d->p, -1))) {
    rep_table *t =
        PAGE_TABLE(p, section_id(name, id, "hits"), hit_cols, "Choices of the router in decode that the device served, by layer");
    for (int i = 0; i < d->p->n_layers; i++) {
      int64_t on = 0, all = 0;
      if (!d->p->layer[i].moe) continue;
      data_placed(d->p, d->p->layer[i].index, &on, &all);
      table_num(p, t, d->p->layer[i].index), table_num(p, t, (double)on), table_num(p, t, (double)all);
      table_num(p, t, data_hit_share(d, d->p, d->p->layer[i].index));
    }
    page_table_end(p, t, true);
  }
  if (d->n_distinct == 0) return;
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "distinct"), distinct_cols,
                            "Distinct experts that a decode step of that many tokens touched in a layer");
  for (int tokens = 1; tokens <= 4096; tokens++) {
    int64_t steps = 0, sum = 0;
    for (int i = 0; i < d->n_distinct; i++) {
      if (d->distinct[i].tokens != tokens || strcmp(d->distinct[i].phase, "decode") != 0) continue;
      steps += d->distinct[i].steps;
      sum += d->distinct[i].sum;
    }
    if (steps == 0) continue;
    table_num(p, t, tokens), table_num(p, t, (double)steps), table_num(p, t, (double)sum / (double)steps);
  }
  page_table_end(p, t, true);
}

/* ---- requests, events, head ---- */

static void table_requests(page *p, const char *id, const data_run *d) {
  static const rep_col cols[] = {{"request", "Request", FMT_TEXT},
                                 {"prompt_tokens", "Prompt", FMT_INT},
                                 {"output_tokens", "Output", FMT_INT},
                                 {"arrival_s", "Arrival", FMT_SECONDS},
                                 {"ttft_s", "TTFT", FMT_SECONDS},
                                 {"tpot_s", "TPOT", FMT_SECONDS},
                                 {"end_to_end_s", "End to end", FMT_SECONDS},
                                 {"finish", "Ended by", FMT_TEXT}};
  char name[SECTION_ID_MAX];
  if (d->n_request == 0) return;
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "requests"), cols, "Requests of run %lld", (long long)d->r.id);
  for (int i = 0; i < d->n_request; i++) {
    const rec_request *q = &d->request[i];
    bool any = q->output_tokens > 0;
    if (q->ext_id[0]) table_text(p, t, q->ext_id);
    else table_printf(p, t, "%lld", (long long)q->request);
    table_num(p, t, q->prompt_tokens), table_num(p, t, q->output_tokens), table_num(p, t, q->arrival_s);
    table_num(p, t, any ? q->first_token_s - q->arrival_s : NAN);
    table_num(p, t, q->output_tokens > 1 ? (q->end_s - q->first_token_s) / (q->output_tokens - 1) : NAN);
    table_num(p, t, q->end_s > 0 ? q->end_s - q->arrival_s : NAN), table_text(p, t, q->finish);
  }
  page_table_end(p, t, d->n_request > 12);
}

static void table_events(page *p, const char *id, const data_run *d) {
  static const rep_col cols[] = {
      {"at_ns", "At", FMT_NS}, {"kind", "Event", FMT_TEXT}, {"recovery_ns", "Recovery", FMT_NS}, {"detail", "Detail", FMT_TEXT}};
  char name[SECTION_ID_MAX];
  if (d->n_event == 0) return;
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "events"), cols, "Events of run %lld", (long long)d->r.id);
  for (int i = 0; i < d->n_event; i++) {
    const rec_event *e = &d->event[i];
    table_num(p, t, (double)e->at_ns), table_text(p, t, e->kind),
        table_num(p, t, e->recovery_ns > 0 ? (double)e->recovery_ns : NAN);
    table_text(p, t, e->detail);
  }
  page_table_end(p, t, false);
}

static void table_run(page *p, const char *id, const rec_run *r) {
  static const rep_col cols[] = {{"item", "Item", FMT_TEXT}, {"value", "Value", FMT_TEXT}};
  char name[SECTION_ID_MAX], v[FORMAT_MAX], w[FORMAT_MAX];
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "head"), cols, "Run %lld", (long long)r->id);
  table_text(p, t, "model"), table_printf(p, t, "%s, weights %s", r->model, r->format);
  table_text(p, t, "plan");
  if (r->plan_id > 0) table_printf(p, t, "%lld", (long long)r->plan_id);
  else table_text(p, t, "none stored");
  table_text(p, t, "device"), table_text(p, t, r->gpu);
  table_text(p, t, "kind"), table_printf(p, t, "%s, %s", r->kind, r->status);
  table_text(p, t, "users, depth, threads"), table_printf(p, t, "%d, %d, %d", r->users, r->depth, r->threads);
  table_text(p, t, "tokens"), table_printf(p, t, "%lld read, %lld written, %lld steps", (long long)r->prompt_tokens,
                                           (long long)r->output_tokens, (long long)r->steps);
  format_number(r->prefill_tok_per_s, FMT_TOK_S, v);
  format_number(r->tok_per_s_wall, FMT_TOK_S, w);
  table_text(p, t, "speed"), table_printf(p, t, "prefill %s tokens/s; all in all %s tokens/s", v, w);
  format_number(r->dram_bytes_per_s, FMT_RATE, v);
  table_text(p, t, "memory bandwidth at the start"), table_text(p, t, r->dram_bytes_per_s > 0 ? v : "not probed");
  format_date(r->created_ns, v);
  table_text(p, t, "made"), table_text(p, t, v);
  page_table_end(p, t, false);
}

void section_run(page *p, const char *id, const char *title, const data_run *d) {
  char source[160], date[FORMAT_MAX];
  page_section(p, id, "%s: predicted against measured", title);
  if (strcmp(d->r.status, "done") != 0) page_text(p, "This run is marked '%s': its figures may be incomplete.", d->r.status);
  tiles_of_run(p, d);
  range_of_run(p, &d->r);
  table_errors(p, id, d);
  part_stages(p, id, d);
  page_heading(p, "Details of the run");
  table_run(p, id, &d->r);
  table_requests(p, id, d);
  part_routing(p, id, d);
  table_events(p, id, d);
  format_date(d->r.created_ns, date);
  snprintf(source, sizeof source, "hf-run, run %lld of %s", (long long)d->r.id, date);
  page_source(p, "measured", source, "Run %lld: tokens/s, TTFT, TPOT, stage times, routing counts", (long long)d->r.id);
}
