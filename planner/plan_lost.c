/* plan_lost.c: what is left when the first device is lost: the request planned again on the rest of the machine, and judged like the plan itself. */
#include <stdio.h>
#include <string.h>

#include "planner/plan_make.h"

/* hf-run keeps no other device after a loss; of GPUs, which it does not execute on yet, the others go on. */
static bool others_stay(const plan_inputs *in) {
  return in->gpus.n > 1 && in->gpu.kind == GPU_CUDA;
}

/* What is left, as --gpu takes it. */
static hf_status devices_left(const plan_inputs *in, char *out, size_t n) {
  size_t used = (size_t)snprintf(out, n, "%s", others_stay(in) ? "" : "none");
  for (int d = 1; others_stay(in) && d < in->gpus.n && used < n; d++)
    used += (size_t)snprintf(out + used, n - used, "%s%s", d > 1 ? "+" : "", in->gpus.g[d].text);
  return used < n ? HF_OK
                  : hf_fail(HF_UNSUPPORTED, "the devices left when %s is lost: longer than %zu bytes", in->gpus.g[0].text, n);
}

/* Popularity counted by the run of a re-plan stays; no stage of a run with the device says how the rest does without it. */
static hf_status open_rest(const plan_inputs *in, const char *devices, plan_inputs **out) {
  plan_request r = in->req;
  cost_input ci = plan_cost_input(in);
  r.host_rows = ci.rows;
  r.machine = r.scale_from = NULL; /* the rows are found, and scaled, already */
  r.opened = in->m;
  r.format = in->format != FMT_DEFAULT ? fmt_get(in->format)->name : NULL; /* a recipe is part of the model that is open */
  r.gpu = devices;
  r.from_run = 0;
  r.threads = ci.threads;
  r.depth = 0; /* what fits and pays there need not be this plan's */
  if (in->req.from_run != 0) r.skew = NULL;
  HF_TRY(plan_inputs_open(in->d, &r, out));
  if (in->req.from_run == 0) return HF_OK;
  popularity_free((*out)->pop);
  (*out)->pop = NULL;
  (*out)->assumed_popularity = in->assumed_popularity;
  return popularity_copy(in->pop, &(*out)->pop);
}

static void describe(const plan_inputs *in, json *o) {
  char text[200];
  if (!others_stay(in)) snprintf(text, sizeof text, "everything on the CPU");
  else snprintf(text, sizeof text, "what it held moves to the %s and the CPU", in->gpus.n > 2 ? "other devices" : "other device");
  json_add_str(o, "lost", in->gpus.g[0].device[0] != '\0' ? in->gpus.g[0].device : "gpu0");
  json_add_str(o, "placement", text);
}

hf_status plan_lost(const plan_inputs *in, const planned *p, json *extra) {
  char devices[sizeof in->gpus.text];
  plan_inputs *rest = NULL;
  planned left = {0};
  if (p->eval->n_devices == 0) return HF_OK;
  const planned_options o = {.quick = true,
                             .compare_depths = true,
                             .no_interval = true,
                             .slo_report = true,
                             .slo_ttft_s = p->slo_ttft_s,
                             .slo_tpot_s = p->slo_tpot_s};
  HF_TRY(devices_left(in, devices, sizeof devices));
  hf_status st = open_rest(in, devices, &rest);
  if (st == HF_OK) st = plan_make(rest, &o, &left);
  json *to = json_add_object(extra, "fallback");
  describe(in, to);
  json_add_bool(to, "feasible", st == HF_OK);
  if (st == HF_OK) {
    json_add_num(to, "decode_tok_per_s", left.p->decode_tok_per_s.likely);
    plan_sustained_json(&left, to);
    json_add_bool(to, "corrected_by_run", false);
  } else if (st == HF_NO) {
    json_add_str(to, "why_not", hf_error_line());
    hf_clear_error();
    st = HF_OK;
  }
  planned_free(&left);
  plan_inputs_close(rest);
  return st;
}
