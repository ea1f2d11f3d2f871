/* section_run.c: what a run did, against what its plan said. */
#include "reports/sections.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reports/draw.h"
#include "reports/words.h"

/* Stages that both a plan and a run state, in the order of a layer. */
enum { N_STAGES = 5 };
static const char *const stages[N_STAGES] = {"attn", "hand", "shared", "dexp", "cexp"};

/* ---- head ---- */

bool run_comparable(const data_run *r) {
  return strcmp(r->r.status, "done") == 0 && r->r.predicted_decode_tok_per_s > 0;
}

bool run_alike(const data_run *a, const data_run *b) {
  bool whole = strcmp(a->r.status, "done") == 0 && strcmp(b->r.status, "done") == 0;
  return whole && a->r.users == b->r.users && strcmp(a->r.gpu, b->r.gpu) == 0 && strcmp(a->r.model, b->r.model) == 0;
}

/* Why no error is stated. */
static hf_status say_unlike(const data_run *r, hf_buf *b) {
  const rec_run *n = &r->r;
  const plan *p = r->p;
  if (strcmp(n->status, "stopped") == 0) return hf_buf_printf(b, "it was stopped before its end");
  if (strcmp(n->status, "done") != 0) return hf_buf_printf(b, "it did not finish");
  if (n->plan_id == 0) return hf_buf_printf(b, "it had no stored plan");
  if (p == NULL) return hf_buf_printf(b, "its plan is no longer in the database");
  if (n->users != p->users) return hf_buf_printf(b, "it had %d user%s, the plan is for %d", n->users, plural(n->users), p->users);
  if (r->n_request < p->users) /* fewer at once than planned */
    return hf_buf_printf(b, "it had %d request%s, the plan is for %d users at once", r->n_request, plural(r->n_request),
                         p->users);
  if (strcmp(n->gpu, p->gpu) != 0) return hf_buf_printf(b, "its device was %s, the plan is for %s", n->gpu, p->gpu);
  if (n->depth != p->depth) return hf_buf_printf(b, "its depth was %d, the plan is for %d", n->depth, p->depth);
  return hf_buf_printf(b, "its load or its machine was not the planned one");
}

hf_status say_run(const data_run *r, hf_buf *b) {
  char measured[FORMAT_MAX], predicted[FORMAT_MAX], error[FORMAT_MAX];
  format_number(r->r.decode_tok_per_s, FMT_TOK_S, measured);
  format_number(r->r.predicted_decode_tok_per_s, FMT_TOK_S, predicted);
  HF_TRY(hf_buf_printf(b, "Run %lld decoded %s tokens/s", (long long)r->r.id, measured));
  double e = signed_error(r->r.predicted_decode_tok_per_s, r->r.decode_tok_per_s);
  if (!run_comparable(r) || !isfinite(e)) {
    HF_TRY(hf_buf_printf(b, "; no prediction is held against it: "));
    HF_TRY(say_unlike(r, b));
    return hf_buf_printf(b, ".");
  }
  format_number(e, FMT_SIGNED, error);
  if (!(r->r.predicted_high > 0)) return hf_buf_printf(b, "; predicted were %s, %s off.", predicted, error);
  bool inside = r->r.decode_tok_per_s >= r->r.predicted_low && r->r.decode_tok_per_s <= r->r.predicted_high;
  return hf_buf_printf(b, "; predicted were %s, %s off, and the measured figure lies %s the predicted interval.", predicted,
                       error, inside ? "inside" : "outside");
}

hf_status say_run_doubt(const data_run *r, hf_buf *b) {
  char share[FORMAT_MAX];
  if (r->r.other_cpu_share < REC_RUN_DISTURBED) return HF_OK;
  format_number(r->r.other_cpu_share, FMT_SHARE, share);
  return hf_buf_printf(
      b,
      "Doubtful: measured beside other programs, which had %s of the CPU time: the times are longer than those of "
      "a quiet machine.",
      share);
}

static void tile_of_error(page *p, const data_run *d) {
  char v[FORMAT_MAX], w[FORMAT_MAX];
  if (!run_comparable(d)) {
    hf_buf why;
    hf_buf_init(&why, 1024);
    page_failed(p, say_unlike(d, &why));
    page_tile(p, "Error of the prediction", "not stated", "%s", why.len > 0 ? why.data : "");
    hf_buf_free(&why);
    return;
  }
  format_number(signed_error(d->r.predicted_decode_tok_per_s, d->r.decode_tok_per_s), FMT_SIGNED, v);
  format_number(d->r.predicted_decode_tok_per_s, FMT_TOK_S, w);
  page_tile(p, "Error of the prediction", v, "predicted %s tokens/s", w);
}

static void tiles_of_run(page *p, const data_run *d) {
  const rec_run *r = &d->r;
  char v[FORMAT_MAX], w[FORMAT_MAX];
  page_tiles(p);
  format_number(r->decode_tok_per_s, FMT_TOK_S, v);
  page_tile(p, "Decode, all users", v, "tokens/s measured");
  tile_of_error(p, d);
  format_number(r->ttft_p50_s, FMT_SECONDS, v);
  format_number(r->ttft_p90_s, FMT_SECONDS, w);
  page_tile(p, "Time to first token", v, "median; 90 %% within %s", w);
  format_number(r->tpot_p50_s, FMT_SECONDS, v);
  format_number(r->tpot_p90_s, FMT_SECONDS, w);
  page_tile(p, "Time per output token", v, "median; 90 %% within %s", w);
  format_number((double)r->output_tokens, FMT_INT, v);
  format_number(r->wall_s, FMT_SECONDS, w);
  page_tile(p, "Tokens written", v, "%d request%s in %s", d->n_request, plural(d->n_request), w);
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
  if (!run_comparable(d)) predicted = 0;
  double error = signed_error(predicted, measured);
  for (int i = 0; run_comparable(d) && i < d->n_error; i++) {
    const rec_signed_error *e = &d->error[i];
    if (strcmp(e->metric, metric) == 0) predicted = e->predicted, measured = e->measured, error = e->signed_error;
  }
  if (!(measured > 0)) return;
  if (rate) table_shown(p, t, metric, "%s, tokens/s", words_of(metric));
  else table_key(p, t, metric);
  table_as(p, t, predicted > 0 ? predicted : NAN, rate ? FMT_TOK_S : FMT_SECONDS);
  table_as(p, t, measured, rate ? FMT_TOK_S : FMT_SECONDS), table_num(p, t, error), table_text(p, t, rate ? "tokens/s" : "s");
}

static void table_errors(page *p, const char *id, const data_run *d) {
  static const rep_col cols[] = {{"metric", "Metric", FMT_TEXT},
                                 {"predicted", "Predicted", FMT_NUM},
                                 {"measured", "Measured", FMT_NUM},
                                 {"signed_error", "Error", FMT_SIGNED},
                                 {"unit", NULL, FMT_TEXT}};
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
  if (!(r->predicted_high > 0) || !(r->decode_tok_per_s > 0)) return;
  plan_range range = {r->predicted_low, r->predicted_decode_tok_per_s, r->predicted_high};
  draw_mark mark = {"measured", r->decode_tok_per_s, "measured"};
  draw_range(p, &range, &mark, 1);
}

/* ---- stages ---- */

/* What a layer takes of a step, from its mean stage times: attention, then the device beside hand-over and CPU. Deeper pipelines overlap
 * layers as well, and single stages do not tell by how much. */
static double measured_layers_ns(const data_run *d) {
  double sum = 0;
  if (d->r.depth != 1) return NAN;
  for (int l = 0; l < d->p->n_layers; l++) {
    double ns[N_STAGES];
    for (int s = 0; s < N_STAGES; s++) {
      ns[s] = data_stage_ns(d, stages[s], d->p->layer[l].index);
      if (!isfinite(ns[s])) ns[s] = 0;
    }
    double device = ns[2] + ns[3], cpu = ns[1] + ns[4];
    sum += ns[0] + (d->p->n_devices > 0 ? fmax(device, cpu) : device + cpu);
  }
  return sum;
}

static void stage_row(page *p, rep_table *t, const char *key, const char *words, const char *note, double planned,
                      double measured) {
  table_shown(p, t, key, "%s%s", words, note);
  table_num(p, t, planned), table_num(p, t, measured), table_num(p, t, signed_error(planned, measured));
}

/* The stages, then what adds up: layers with overlap taken off, and the rest of the step. */
static void table_stages(page *p, const char *id, const data_run *d) {
  static const rep_col cols[] = {{"stage", "Stage", FMT_TEXT},
                                 {"predicted_ns", "Predicted", FMT_NS},
                                 {"measured_ns", "Measured", FMT_NS},
                                 {"signed_error", "Error", FMT_SIGNED}};
  char name[SECTION_ID_MAX];
  bool compare = run_comparable(d);
  double layers = 0, step = data_planned_ns(d->p, "step", -1), measured_step = data_stage_ns(d, "step", -1),
         measured_layers = measured_layers_ns(d);
  rep_table *t = PAGE_TABLE(p, section_id(name, id, "stages"), cols, "Stages of a decode step, summed over layers");
  for (int l = 0; l < d->p->n_layers; l++) layers += d->p->layer[l].layer_ns;
  for (int s = 0; s < N_STAGES; s++) {
    double planned = data_planned_ns(d->p, stages[s], -1), measured = data_stage_ns(d, stages[s], -1);
    if (isfinite(measured) || (compare && planned > 0))
      stage_row(p, t, stages[s], words_of(stages[s]), isfinite(measured) ? "" : " (not timed by itself)", compare ? planned : NAN,
                measured);
  }
  if (isfinite(data_stage_ns(d, "head", -1)))
    stage_row(p, t, "head", words_of("head"), " (planned within the rest, below)", NAN, data_stage_ns(d, "head", -1));
  if (layers > 0 && layers <= step && (compare || isfinite(measured_layers))) {
    stage_row(p, t, "layers", "all layers, overlap taken off", "", compare ? layers : NAN, measured_layers);
    stage_row(p, t, "rest", "+ the rest: output head and fixed part of the step", "", compare ? step - layers : NAN,
              measured_layers <= measured_step ? measured_step - measured_layers : NAN);
  }
  if (isfinite(measured_step)) stage_row(p, t, "step", "= whole step", "", compare ? step : NAN, measured_step);
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
      double planned = data_planned_ns(d->p, stages[s], layer), measured = data_stage_ns(d, stages[s], layer);
      if (!isfinite(measured)) continue;
      if (!run_comparable(d)) planned = NAN;
      table_num(p, t, layer), table_key(p, t, stages[s]), table_num(p, t, planned), table_num(p, t, measured);
      table_num(p, t, signed_error(planned, measured));
    }
  }
  page_table_end(p, t, true);
}

static void chart_stage(page *p, const char *id, const data_run *d, int s) {
  char name[SECTION_ID_MAX], total[FORMAT_MAX], planned[FORMAT_MAX];
  double sum = data_stage_ns(d, stages[s], -1);
  if (!isfinite(sum) || !(sum > 0)) return;
  format_number(sum, FMT_NS, total);
  format_number(run_comparable(d) ? data_planned_ns(d->p, stages[s], -1) : NAN, FMT_NS, planned);
  json *c =
      page_chart(p, section_id(name, id, stages[s]), "bar", words_of(stages[s]), "layer", "µs", CHART_SMALL,
                 "Bar chart: time of this stage in each layer, predicted beside measured. All layers: predicted %s, measured %s.",
                 planned, total);
  bool compare = run_comparable(d);
  json *predicted = compare ? chart_series(c, "predicted", "predicted") : NULL,
       *measured = chart_series(c, "measured", "measured");
  for (int l = 0; l < d->p->n_layers; l++) {
    int layer = d->p->layer[l].index;
    double ns = data_stage_ns(d, stages[s], layer), expected = data_planned_ns(d->p, stages[s], layer);
    if (!isfinite(ns) && !(expected > 0)) continue;
    if (compare) chart_point(predicted, layer, 1e-3 * expected);
    chart_point(measured, layer, isfinite(ns) ? 1e-3 * ns : 0);
  }
}

static void part_stages(page *p, const char *id, const data_run *d) {
  if (d->p == NULL || d->n_stage == 0) return;
  page_heading(p, "Where the time went");
  page_text(p, "On the device and on the CPU a layer's experts run at the same time, so the stages do not add up to the step.");
  if (run_comparable(d) || d->r.depth == 1)
    page_text(p, "The last three rows of the table do: all layers with that overlap taken off, then the rest of the step (output "
                 "head, building the batch, "
                 "choosing the tokens, waiting).");
  if (d->r.depth > 1)
    page_text(p, "With several micro-batches in flight the measured layers overlap too: of the sum only the step was measured.");
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
                                 {"ttft_s", "To first token", FMT_SECONDS},
                                 {"tpot_s", "Per output token", FMT_SECONDS},
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
    table_num(p, t, q->end_s > 0 ? q->end_s - q->arrival_s : NAN), table_key(p, t, q->finish);
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
  table_text(p, t, "kind"), table_printf(p, t, "%s, %s", words_of(r->kind), words_of(r->status));
  table_text(p, t, "users, depth, threads"), table_printf(p, t, "%d, %d, %d", r->users, r->depth, r->threads);
  table_text(p, t, "tokens"), table_printf(p, t, "%lld read, %lld written, %lld steps", (long long)r->prompt_tokens,
                                           (long long)r->output_tokens, (long long)r->steps);
  format_number(r->prefill_tok_per_s, FMT_TOK_S, v);
  format_number(r->tok_per_s_wall, FMT_TOK_S, w);
  table_text(p, t, "speed"), table_printf(p, t, "prefill %s tokens/s; all in all %s tokens/s", v, w);
  format_number(r->dram_bytes_per_s, FMT_RATE, v);
  table_text(p, t, "memory bandwidth at the start"), table_text(p, t, r->dram_bytes_per_s > 0 ? v : "not probed");
  format_number(r->other_cpu_share, FMT_SHARE, v);
  table_text(p, t, "CPU time of other programs meanwhile"), table_text(p, t, r->other_cpu_share >= 0 ? v : "not known");
  format_date(r->created_ns, v);
  table_text(p, t, "made"), table_text(p, t, v);
  page_table_end(p, t, false);
}

void section_run(page *p, const char *id, const char *title, const data_run *d) {
  char source[160], date[FORMAT_MAX];
  page_section(p, id, "%s: predicted against measured", title);
  if (strcmp(d->r.status, "done") != 0)
    page_text(p, "This run is not whole: it is marked as %s. Its figures cover what was done until then.", words_of(d->r.status));
  tiles_of_run(p, d);
  if (run_comparable(d)) range_of_run(p, &d->r);
  table_errors(p, id, d);
  part_stages(p, id, d);
  part_timeline(p, id, d);
  page_heading(p, "Details of the run");
  table_run(p, id, &d->r);
  table_requests(p, id, d);
  part_routing(p, id, d);
  table_events(p, id, d);
  format_date(d->r.created_ns, date);
  snprintf(source, sizeof source, "hf-run, run %lld of %s", (long long)d->r.id, date);
  page_source(p, "measured", source, "Run %lld: tokens/s, times of tokens and stages, routing counts", (long long)d->r.id);
}
