#include "executor/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "executor/trace.h"

hf_status record_latencies(const serve_request *reqs, int n, hf_percentiles *ttft_s, hf_percentiles *tpot_s) {
  double *v;
  int k = 0;
  HF_TRY(hf_alloc(&v, (size_t)n + 1, sizeof *v, "latencies"));
  for (int i = 0; i < n; i++)
    if (reqs[i].n_out > 0) v[k++] = reqs[i].first_token_s - reqs[i].arrival_s;
  *ttft_s = hf_percentiles_of(v, (size_t)k);
  k = 0;
  for (int i = 0; i < n; i++)
    if (reqs[i].n_out > 1) v[k++] = (reqs[i].end_s - reqs[i].first_token_s) / (reqs[i].n_out - 1);
  *tpot_s = hf_percentiles_of(v, (size_t)k);
  free(v);
  return HF_OK;
}

static const char *const phase_name[2] = {"prefill", "decode"};

static hf_status put_requests(db *d, int64_t run, const serve_request *reqs, int n) {
  for (int i = 0; i < n; i++) {
    rec_request r = {.run_id = run,
                     .request = i,
                     .prompt_tokens = reqs[i].n_ids,
                     .output_tokens = reqs[i].n_out,
                     .arrival_s = reqs[i].arrival_s,
                     .first_token_s = reqs[i].first_token_s,
                     .end_s = reqs[i].end_s};
    snprintf(r.ext_id, sizeof r.ext_id, "%s", reqs[i].ext_id);
    snprintf(r.finish, sizeof r.finish, "%s", reqs[i].finish[0] ? reqs[i].finish : "cancelled");
    HF_TRY(db_request_put(d, &r));
  }
  return HF_OK;
}

static hf_status put_stages(db *d, int64_t run, bool on_host, const serve_stats *st) {
  for (int ph = 0; ph < 2; ph++) {
    for (int l = 0; l <= st->n_layers; l++) {
      for (int g = 0; g < DEV_STAGE_N; g++) {
        const struct serve_stage *s = &st->stage[((size_t)ph * ((size_t)st->n_layers + 1) + (size_t)l) * DEV_STAGE_N + (size_t)g];
        if (!s->steps) continue;
        rec_stage r = {.run_id = run,
                       .layer = l,
                       .steps = s->steps,
                       .tokens = s->tokens,
                       .distinct = s->distinct,
                       .ns_sum = s->ns,
                       .ns_sq_sum = s->ns_sq};
        snprintf(r.source, sizeof r.source, "run");
        snprintf(r.stage, sizeof r.stage, "%s", dev_stage_name((dev_stage)g));
        snprintf(r.phase, sizeof r.phase, "%s", phase_name[ph]);
        snprintf(r.resource, sizeof r.resource, "%s", trace_resource(on_host, (dev_stage)g, s->device));
        HF_TRY(db_stage_put(d, &r));
      }
    }
    rec_stage step = {
        .run_id = run, .layer = -1, .steps = st->step_n[ph], .ns_sum = st->step_ns_sum[ph], .ns_sq_sum = st->step_ns_sq[ph]};
    if (!step.steps) continue;
    snprintf(step.source, sizeof step.source, "run");
    snprintf(step.stage, sizeof step.stage, "step");
    snprintf(step.phase, sizeof step.phase, "%s", phase_name[ph]);
    snprintf(step.resource, sizeof step.resource, "all");
    HF_TRY(db_stage_put(d, &step));
  }
  return HF_OK;
}

static hf_status put_routing(db *d, int64_t run, const serve_stats *st) {
  for (int ph = 0; ph < 2; ph++) {
    for (int l = 0; l < st->n_layers; l++) {
      size_t layer = (size_t)ph * (size_t)st->n_layers + (size_t)l;
      for (int e = 0; e < st->n_experts; e++) {
        rec_routing r = {.run_id = run, .layer = l, .expert = e, .count = st->routing[layer * (size_t)st->n_experts + (size_t)e]};
        if (!r.count) continue;
        snprintf(r.phase, sizeof r.phase, "%s", phase_name[ph]);
        HF_TRY(db_routing_put(d, &r));
      }
      for (int t = 0; t <= st->max_tok; t++) {
        size_t at = layer * ((size_t)st->max_tok + 1) + (size_t)t;
        rec_distinct r = {.run_id = run,
                          .layer = l,
                          .tokens = t,
                          .steps = st->distinct_steps[at],
                          .sum = st->distinct_sum[at],
                          .sum_sq = st->distinct_sq[at]};
        if (!r.steps) continue;
        snprintf(r.phase, sizeof r.phase, "%s", phase_name[ph]);
        HF_TRY(db_distinct_put(d, &r));
      }
    }
  }
  return HF_OK;
}

static hf_status put_return(db *d, const rec_run *run, const serve_loss *l, const serve_stats *st) {
  rec_event r = {.run_id = run->id,
                 .at_ns = (int64_t)(l->back_s * 1e9),
                 .recovery_ns = (int64_t)((l->back_s - l->at_s) * 1e9),
                 .kind = "recovery"};
  char planned[48] = "";
  if (st->planned_tok_per_s > 0) snprintf(planned, sizeof planned, " (%.4g predicted)", st->planned_tok_per_s);
  snprintf(r.detail, sizeof r.detail,
           "gpu%d taken back: asked %d times, %.1f MB loaded, steps stood still for %.2g s; decode %.4g tokens/s while it was "
           "lost, %.4g "
           "since%s",
           l->device, l->probes, (double)l->loaded_bytes * 1e-6, (double)l->stood_ns * 1e-9, serve_rate_after(st),
           serve_rate_back(st), planned);
  return db_event_put(d, &r);
}

static hf_status put_losses(db *d, const rec_run *run, const serve_stats *st) {
  for (int i = 0; i < st->n_losses; i++) {
    const serve_loss *l = &st->loss[i];
    rec_event r = {.run_id = run->id, .at_ns = (int64_t)(l->at_s * 1e9), .recovery_ns = l->recovery_ns};
    snprintf(r.kind, sizeof r.kind, "fault");
    snprintf(r.detail, sizeof r.detail, "%s lost: %s; %d requests went on on %s, KV of %lld tokens computed again",
             l->rank ? "rank" : "device", l->why, l->requests, l->devices_left > 0 && !l->rank ? "what is left" : "the CPU",
             (long long)l->tokens);
    HF_TRY(db_event_put(d, &r));
    if (l->back_s > 0) HF_TRY(put_return(d, run, l, st));
  }
  return HF_OK;
}

static hf_status put_all(db *d, rec_run *run, const serve_request *reqs, int n, const serve_stats *st) {
  HF_TRY(db_run_put(d, run));
  HF_TRY(put_requests(d, run->id, reqs, n));
  if (st->n_losses == 0 && !st->moved) /* else they are of two machines, or placements */
    HF_TRY(put_stages(d, run->id, !strcmp(run->gpu, "none"), st));
  HF_TRY(put_routing(d, run->id, st));
  HF_TRY(put_losses(d, run, st));
  return db_commit(d);
}

static hf_status put_counts(db *d, rec_run *run, const serve_stats *st) {
  HF_TRY(db_run_put(d, run));
  HF_TRY(put_stages(d, run->id, !strcmp(run->gpu, "none"), st));
  HF_TRY(put_routing(d, run->id, st));
  return db_commit(d);
}

hf_status record_counts(db *d, rec_run *run, const serve_stats *st) {
  HF_TRY(db_begin(d));
  hf_status s = put_counts(d, run, st);
  if (s != HF_OK) db_rollback(d);
  return s;
}

void record_describe(rec_run *run, const char *model_path, const model *m, const engine *e, const engine_options *o,
                     const plan *p, int users, bool stopped) {
  run->plan_id = p ? p->id : 0;
  run->machine_id = p ? p->machine_id : 0;
  snprintf(run->model, sizeof run->model, "%s", model_path);
  snprintf(run->format, sizeof run->format, "%s", fmt_get(model_get_config(m)->default_format)->name);
  snprintf(run->gpu, sizeof run->gpu, "%.95s", o->gpu);
  snprintf(run->kind, sizeof run->kind, "prompts");
  snprintf(run->status, sizeof run->status, "%s", stopped ? "stopped" : "done");
  run->users = users;
  run->depth = o->depth;
  run->threads = engine_threads(e);
}

hf_status record_figures(rec_run *run, const serve_request *reqs, int n, const serve_stats *st) {
  hf_percentiles ttft, tpot;
  HF_TRY(record_latencies(reqs, n, &ttft, &tpot));
  run->created_ns = hf_wall_ns();
  run->prompt_tokens = st->prompt_tokens;
  run->output_tokens = st->output_tokens;
  run->steps = st->steps;
  run->wall_s = st->wall_s;
  run->decode_s = st->decode_s;
  run->decode_tok_per_s = serve_decode_rate(st);
  run->tok_per_s_wall = st->wall_s > 0 ? (double)st->output_tokens / st->wall_s : 0;
  run->prefill_tok_per_s = st->prefill_s > 0 ? st->prefill_tokens / st->prefill_s : 0;
  run->ttft_p50_s = ttft.p50, run->ttft_p90_s = ttft.p90, run->ttft_p99_s = ttft.p99;
  run->tpot_p50_s = tpot.p50, run->tpot_p90_s = tpot.p90, run->tpot_p99_s = tpot.p99;
  return HF_OK;
}

hf_status record_run(db *d, rec_run *run, const serve_request *reqs, int n, const serve_stats *st) {
  HF_TRY(db_begin(d));
  hf_status s = put_all(d, run, reqs, n, st);
  if (s != HF_OK) db_rollback(d);
  return s;
}

bool record_failed(record_failure *f, hf_status st) {
  if (st == HF_OK) return false;
  if (f->st == HF_OK) {
    f->st = st;
    snprintf(f->why, sizeof f->why, "%.500s", hf_error_line());
  }
  hf_clear_error();
  return true;
}
