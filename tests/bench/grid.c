#include "tests/bench/grid.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

const char *const grid_stage[GRID_STAGES] = {"attn", "shared", "dexp", "cexp", "head", "step"};

void grid_model_text(const grid_cell *c, char *out, size_t n) {
  snprintf(out, n, "synth:tests/bench/grid-%s.json,format=%s,seed=1", c->model, c->format);
}

bool grid_on_device(int percent, int expert, int n_experts) {
  int n = (int)(percent / 100.0 * n_experts + 0.5);
  return (int64_t)(expert + 1) * n / n_experts > (int64_t)expert * n / n_experts;
}

/* Stages of a decode step of one micro-batch. */
static void stages_of(const grid_cell *c, const stage_table *t, const popularity *pop, const uint8_t *placement, double context,
                      grid_figures *out) {
  const int tokens = (c->users + c->depth - 1) / c->depth;
  double *ns = out->stage_ns;
  memset(ns, 0, sizeof out->stage_ns);
  for (int l = 0; l < t->n_layers; l++) {
    layer_times y =
        stage_layer_times(t, pop, l, tokens, context, placement ? placement + (size_t)l * (size_t)t->n_experts : NULL);
    ns[0] += y.attn_ns;
    ns[1] += y.shared_ns;
    ns[2] += y.dexp_ns;
    ns[3] += y.cexp_ns;
  }
  ns[4] = stage_curve_at(&t->head, tokens);
  ns[5] = ns[0] + ns[1] + ns[2] + ns[3] + ns[4] + t->step_fixed_ns;
}

/* Weight bytes of a decode step of everybody together. */
static hf_status step_bytes(const plan_inputs *in, const grid_cell *c, double *out) {
  model_head_parts h;
  HF_TRY(model_head_parts_of(in->m, in->format, &h));
  *out = (double)h.output.bytes;
  for (int l = 0; l < in->c->n_layers; l++) {
    model_layer_parts p;
    HF_TRY(model_layer_parts_of(in->m, in->format, l, &p));
    *out += (double)(p.attn.bytes + p.norms.bytes + p.router.bytes + p.shared.bytes + p.dense_ffn.bytes);
    if (in->c->layer_is_moe[l])
      *out += cost_distinct_experts(in->pop->p + (size_t)l * (size_t)in->c->n_experts, in->c->n_experts, c->users) *
              (double)p.expert.bytes;
  }
  return HF_OK;
}

static hf_status predict(const grid_cell *c, const plan_inputs *in, const stage_table *t, const uint8_t *placement,
                         grid_figures *out) {
  sim_result sim;
  db_tag tag = TAG_MEASURED;
  const int output = GRID_OUTPUT_TOKENS, page = PLAN_PAGE_TOKENS;
  sim_options o = {.table = t,
                   .pop = in->pop,
                   .on_device = placement,
                   .users = c->users,
                   .depth = c->depth,
                   .prompt_tokens = c->prompt_tokens,
                   .output_tokens = output,
                   .requests_per_user = 1,
                   .seed = 1,
                   .chunk_tokens = GRID_CHUNK_TOKENS,
                   .page_tokens = page,
                   .n_pages = c->users * ((c->prompt_tokens + output + page - 1) / page)};
  HF_TRY(sim_run(&o, &sim));
  out->decode_tok_per_s = sim.decode_tok_per_s;
  out->prefill_tok_per_s = sim.prefill_tok_per_s;
  stages_of(c, t, in->pop, placement, c->prompt_tokens + 0.5 * output, out);
  double bytes = 0, rate = 0;
  cost_input ci = plan_cost_input(in);
  cost_unit pool = cost_pool_unit(&ci);
  HF_TRY(step_bytes(in, c, &bytes));
  rate = cost_unit_bytes_per_s(&pool, (cost_case){0}, &tag);
  out->read_share = c->percent >= 0 ? 0 : fmin(1, bytes / rate * out->decode_tok_per_s / c->users);
  return HF_OK;
}

hf_status grid_predict(const grid_cell *c, const cost_rows *rows, int threads, grid_figures *out) {
  char text[256];
  plan_inputs *in = NULL;
  stage_table *t = NULL;
  uint8_t *placement = NULL;
  grid_model_text(c, text, sizeof text);
  /* a paced device is priced as a real one of the machine that it is told */
  plan_request q = {.model = text,
                    .gpu = c->percent >= 0 ? "cuda:0" : "none",
                    .users = c->users,
                    .context = c->prompt_tokens + GRID_OUTPUT_TOKENS,
                    .prompt_tokens = c->prompt_tokens,
                    .output_tokens = GRID_OUTPUT_TOKENS,
                    .depth = c->depth,
                    .threads = c->percent >= 0 ? 0 : threads,
                    .host_rows = rows};
  hf_status st;
  memset(out, 0, sizeof *out);
  HF_TRY(plan_inputs_open(NULL, &q, &in));
  cost_input ci = plan_cost_input(in);
  const size_t n = (size_t)in->c->n_layers * (size_t)in->c->n_experts;
  HF_GO(done, cost_table(&ci, (cost_case){0}, &t));
  HF_GO(done, hf_alloc(&placement, n, 1, "placement"));
  for (size_t i = 0; i < n; i++)
    placement[i] = c->percent >= 0 && grid_on_device(c->percent, (int)(i % (size_t)in->c->n_experts), in->c->n_experts);
  st = predict(c, in, t, placement, out);
done:
  free(placement);
  stage_table_free(t);
  plan_inputs_close(in);
  return st;
}

/* ---- lines ---- */

const char grid_csv_head[] =
    "model,format,users,prompt_tokens,percent_on_device,depth,decode_tok_per_s,prefill_tok_per_s,bytes_per_s,profile_bytes_per_s,"
    "attn_ns,shared_ns,dexp_ns,cexp_ns,head_ns,step_ns";

void grid_csv_line(const grid_run *r, char *out, size_t n) {
  const grid_cell *c = &r->cell;
  const double *s = r->measured.stage_ns;
  snprintf(out, n, "%s,%s,%d,%d,%d,%d,%.6g,%.6g,%.5g,%.5g,%.5g,%.5g,%.5g,%.5g,%.5g,%.5g", c->model, c->format, c->users,
           c->prompt_tokens, c->percent, c->depth, r->measured.decode_tok_per_s, r->measured.prefill_tok_per_s, r->bytes_per_s,
           r->profile_bytes_per_s, s[0], s[1], s[2], s[3], s[4], s[5]);
}

bool grid_csv_read(const char *line, grid_run *r) {
  grid_cell *c = &r->cell;
  double *s = r->measured.stage_ns;
  memset(r, 0, sizeof *r);
  return sscanf(line, "%31[^,],%15[^,],%d,%d,%d,%d,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf,%lf", c->model, c->format, &c->users,
                &c->prompt_tokens, &c->percent, &c->depth, &r->measured.decode_tok_per_s, &r->measured.prefill_tok_per_s,
                &r->bytes_per_s, &r->profile_bytes_per_s, &s[0], &s[1], &s[2], &s[3], &s[4], &s[5]) == 16;
}

double grid_drift_corrected(const grid_run *r, const grid_figures *p) {
  if (r->cell.percent >= 0 || !(r->bytes_per_s > 0) || !(r->profile_bytes_per_s > 0)) return p->decode_tok_per_s;
  return p->decode_tok_per_s / (1 - p->read_share + p->read_share * r->profile_bytes_per_s / r->bytes_per_s);
}
