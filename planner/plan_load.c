/* plan_load.c: what a plan is simulated with: its users, its chunks, its uploads. */
#include <math.h>
#include <string.h>

#include "planner/plan_make.h"

enum { SIM_MOST_OUTPUT = 1024 };

int plan_uploads(const planned *p, const ilp_layer *layers, const uint8_t *placement, int depth,
                 uint8_t upload[PLAN_MAX_LAYERS]) {
  ilp_problem prob = plan_eval_problem(p->eval, 1);
  bool any = false;
  memset(upload, 0, PLAN_MAX_LAYERS);
  for (int l = 0; l < p->eval->table->n_layers; l++) any = (upload[l] = layers[l].upload) || any;
  if (!any) return 0;
  /* Where other micro-batches have the CPU decode meanwhile, its time is worth more than the link's: an upload pays from half as many tokens on.
   * Delivered tokens/s hardly change between a half and a fifth, and lose up to a seventh above (measurements.md, "Chunks and uploads"). */
  int from = ilp_upload_tokens(&prob, placement, upload);
  return depth > 1 && from > 1 ? from / 2 : from;
}

/* The load of a plan: a closed loop of its users, one request each. layers: which of them upload is the placement's own; upload must live as
 * long as the options. */
static sim_options load_options(const plan_inputs *in, const planned *p, const ilp_layer *layers, const uint8_t *placement,
                                int depth, uint8_t upload[PLAN_MAX_LAYERS]) {
  const plan_request *r = &in->req;
  int64_t pages = r->users * ((r->context + PLAN_PAGE_TOKENS - 1) / PLAN_PAGE_TOKENS);
  sim_options o = {.table = p->eval->table,
                   .pop = p->eval->pop,
                   .on_device = placement,
                   .users = (int)r->users,
                   .depth = depth,
                   .prompt_tokens = (int)r->prompt_tokens,
                   .output_tokens = (int)r->output_tokens,
                   .requests_per_user = 1,
                   .seed = 1,
                   .chunk_tokens = in->chunk_tokens,
                   .page_tokens = PLAN_PAGE_TOKENS,
                   .n_pages = (int)pages,
                   .slo_ttft_s = p->slo_ttft_s,
                   .slo_tpot_s = p->slo_tpot_s};
  o.upload_tokens = plan_uploads(p, layers, placement, depth, upload);
  if (o.upload_tokens > 0) o.prefill_upload = upload;
  o.upload_slots = in->upload_slots;
  return o;
}

/* No step under sustained load in which a token is written takes less. Users never pause, and the scheduler keeps micro-batches even, so each
 * step holds a token of every sequence of its micro-batch, prompts' tokens among them as far as the chunk goes; but how many are decoding, and with
 * how much context, is not known: one is, with the shortest prompt. That is a chunk of so many tokens to the cost model: its times, one output
 * row, CPU or upload, whichever is less. Waiting in turn comes on top. */
static hf_status least_step_s(const plan_inputs *in, const planned *p, const ilp_result *r, double *out) {
  const plan_request *q = &in->req;
  ilp_problem prob = plan_eval_problem(p->eval, 1u << (r->depth - 1));
  popularity pop = *p->eval->pop;
  int64_t tokens = q->users / r->depth, most = 1 + (int64_t)in->chunk_tokens;
  ilp_evaluation e;
  if (tokens > most) tokens = most;
  prob.limit = (ilp_limits){0};
  prob.prefill = (ilp_prefill){.weight = 1, .upload = true};
  stage_load_add(&prob.prefill.load, prob.table, (int64_t)((1 - SUSTAINED_SPREAD) * (double)q->prompt_tokens), 1);
  prob.prefill.load.tokens = (int)(tokens > 1 ? tokens : 1);
  HF_TRY(ilp_evaluate(&prob, r->on_device, r->depth, NULL, &e));
  *out = 1e-9 * e.chunk_ns;
  if (pop.prefill == NULL) return HF_OK;
  pop.prefill = NULL; /* steps without a prompt choose experts otherwise */
  prob.pop = &pop;
  HF_TRY(ilp_evaluate(&prob, r->on_device, r->depth, NULL, &e));
  *out = fmin(*out, 1e-9 * e.chunk_ns);
  return HF_OK;
}

hf_status plan_sustain(const plan_inputs *in, const planned *p, const ilp_result *r, double give_up, sustained_result *out) {
  uint8_t upload[PLAN_MAX_LAYERS];
  if (give_up > 0 && p->slo_tpot_s > 0 && in->req.output_tokens > 1) {
    double least = 0;
    HF_TRY(least_step_s(in, p, r, &least));
    if (least > give_up * p->slo_tpot_s) {
      *out = (sustained_result){.given_up = true, .tpot_s = {least, least, least, least}};
      return HF_OK;
    }
  }
  sim_options o = load_options(in, p, r->layer, r->on_device, r->depth, upload);
  return sustained_run(&o, give_up * p->slo_ttft_s, give_up * p->slo_tpot_s, out);
}

hf_status plan_simulate(const plan_inputs *in, const planned *p, const uint8_t *placement, int depth, sim_result *out,
                        double *stretch) {
  const plan_request *r = &in->req;
  int output = r->output_tokens < SIM_MOST_OUTPUT ? (int)r->output_tokens : SIM_MOST_OUTPUT;
  uint8_t upload[PLAN_MAX_LAYERS];
  sim_options o = load_options(in, p, p->ilp->layer, placement, depth, upload);
  o.output_tokens = output;
  HF_TRY(sim_run(&o, out));
  *stretch = 1;
  if (output == r->output_tokens) return HF_OK;
  /* Long answers are simulated in part; the rest has a longer context. */
  ilp_problem prob = plan_eval_problem(p->eval, 1);
  ilp_evaluation whole, part;
  HF_TRY(ilp_evaluate(&prob, o.on_device, depth, NULL, &whole));
  prob.context = (double)r->prompt_tokens + 0.5 * output;
  HF_TRY(ilp_evaluate(&prob, o.on_device, depth, NULL, &part));
  *stretch = whole.step_ns / part.step_ns;
  return HF_OK;
}
