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

int grid_output_tokens(const grid_cell *c) {
  return 32 + c->users * c->prompt_tokens / GRID_CHUNK_TOKENS;
}

bool grid_on_device(int percent, int expert, int n_experts) {
  int n = (int)(percent / 100.0 * n_experts + 0.5);
  return (int64_t)(expert + 1) * n / n_experts > (int64_t)expert * n / n_experts;
}

/* Stages of a decode step of one micro-batch, and of a chunk of prompts. */
static void stages_of(const grid_cell *c, const stage_table *t, const popularity *pop, const uint8_t *placement,
                      grid_figures *out) {
  for (int phase = 0; phase < 2; phase++) {
    const int tokens = phase ? GRID_CHUNK_TOKENS : (c->users + c->depth - 1) / c->depth;
    const double context = phase ? 0.5 * c->prompt_tokens : c->prompt_tokens + 0.5 * grid_output_tokens(c);
    double *ns = out->stage_ns[phase];
    memset(ns, 0, sizeof out->stage_ns[phase]);
    for (int l = 0; l < t->n_layers; l++) {
      layer_times y =
          stage_layer_times(t, pop, l, tokens, context, placement ? placement + (size_t)l * (size_t)t->n_experts : NULL);
      ns[0] += y.attn_ns;
      ns[1] += y.shared_ns;
      ns[2] += y.dexp_ns;
      ns[3] += y.cexp_ns;
    }
    ns[4] = stage_curve_at(&t->head, phase ? 1 : tokens);
    ns[5] = ns[0] + ns[1] + ns[2] + ns[3] + ns[4] + t->step_fixed_ns;
  }
}

static hf_status predict(const grid_cell *c, const plan_inputs *in, const stage_table *t, const uint8_t *placement,
                         grid_figures *out) {
  sim_result sim;
  const int output = grid_output_tokens(c), page = PLAN_PAGE_TOKENS;
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
  stages_of(c, t, in->pop, placement, out);
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
                    .context = c->prompt_tokens + grid_output_tokens(c),
                    .prompt_tokens = c->prompt_tokens,
                    .output_tokens = grid_output_tokens(c),
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
    "attn_ns,shared_ns,dexp_ns,cexp_ns,head_ns,step_ns,prompt_attn_ns,prompt_shared_ns,prompt_dexp_ns,prompt_cexp_ns,prompt_head_"
    "ns,"
    "prompt_step_ns";

void grid_csv_line(const grid_run *r, char *out, size_t n) {
  const grid_cell *c = &r->cell;
  int at =
      snprintf(out, n, "%s,%s,%d,%d,%d,%d,%.6g,%.6g,%.5g,%.5g", c->model, c->format, c->users, c->prompt_tokens, c->percent,
               c->depth, r->measured.decode_tok_per_s, r->measured.prefill_tok_per_s, r->bytes_per_s, r->profile_bytes_per_s);
  for (int i = 0; i < 2 * GRID_STAGES && at > 0 && (size_t)at < n; i++)
    at += snprintf(out + at, n - (size_t)at, ",%.5g", r->measured.stage_ns[i / GRID_STAGES][i % GRID_STAGES]);
}

bool grid_csv_read(const char *line, grid_run *r) {
  grid_cell *c = &r->cell;
  int at = 0;
  memset(r, 0, sizeof *r);
  if (sscanf(line, "%31[^,],%15[^,],%d,%d,%d,%d,%lf,%lf,%lf,%lf%n", c->model, c->format, &c->users, &c->prompt_tokens,
             &c->percent, &c->depth, &r->measured.decode_tok_per_s, &r->measured.prefill_tok_per_s, &r->bytes_per_s,
             &r->profile_bytes_per_s, &at) != 10)
    return false;
  for (int i = 0; i < 2 * GRID_STAGES; i++) {
    char *end;
    if (line[at] != ',') return false;
    r->measured.stage_ns[i / GRID_STAGES][i % GRID_STAGES] = strtod(line + at + 1, &end);
    at = (int)(end - line);
  }
  return true;
}

hf_status grid_predict_at(const grid_run *r, const cost_rows *rows, grid_figures *out) {
  cost_rows *then = NULL;
  if (r->cell.percent >= 0) return grid_predict(&r->cell, rows, 0, out);
  HF_TRY(cost_rows_at_rate(rows, r->bytes_per_s, &then));
  hf_status st = grid_predict(&r->cell, then, 0, out);
  cost_rows_free(then);
  return st;
}
