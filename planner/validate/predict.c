#include "planner/validate/predict.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cost/cost.h"
#include "planner/plan_make.h"

hf_status prepare_case(const resolved_case *r, prepared_case *out) {
  json *config = NULL;
  catalog_parts parts;
  catalog_machine machine = {0};
  *out = (prepared_case){.r = *r};
  if (!r->used) return HF_OK;
  hf_status st = catalog_parts_parse(r->parts, &parts);
  if (st == HF_OK) st = catalog_compose(&parts, &machine);
  if (st == HF_INPUT || st == HF_NOT_FOUND || st == HF_UNSUPPORTED) {
    out->r.used = false;
    snprintf(out->r.why_not, sizeof out->r.why_not, "machine %.60s: %.120s", r->parts, hf_error_line());
    hf_clear_error();
    return HF_OK;
  }
  HF_GO(done, st);
  HF_GO(done, engine_rows_new(&machine, &out->rows));
  HF_GO(done, catalog_model_config(NULL, r->model, &config));
  HF_GO(done, model_from_config(config, r->model, &out->m));
  HF_GO(done, popularity_uniform(model_get_config(out->m), &out->pop));
done:
  json_free(config);
  catalog_machine_free(&machine);
  if (st != HF_OK) prepared_case_free(out);
  return st;
}

void prepared_case_free(prepared_case *p) {
  model_close(p->m);
  popularity_free(p->pop);
  cost_rows_free(p->rows);
  *p = (prepared_case){0};
}

/* One layer at depth 1. Weights that a prompt's step sends to the device come before they are used: that the two overlap no engine of
 * the rows claims. */
static double layer_ns(const stage_table *t, const layer_times *y, bool moe) {
  double side = y->shared_ns + y->dexp_ns, cpu = y->hand_ns + y->cexp_ns;
  if (t->one_resource) return y->attn_ns + y->shared_ns + y->cexp_ns;
  if (!moe) return y->attn_ns + y->shared_ns;
  return y->attn_ns + y->upload_ns + stage_overlap_ns(t, side, cpu);
}

typedef struct {
  const prepared_case *p;
  const stage_table *t;
  uint8_t on_device[1024]; /* a layer whose experts are all on the GPU */
} walk;

static bool resident(const resolved_case *r, int l) {
  return l >= r->gpu_first && l < r->gpu_first + r->gpu_layers;
}

/* Equal layers take equal times: each is computed once. */
static double step_ns(const walk *w, const stage_load *load, double logits) {
  const stage_table *t = w->t;
  const resolved_case *r = &w->p->r;
  double sum = t->step_fixed_ns + stage_curve_at(&t->head, logits), seen_ns[3] = {0};
  int seen[3] = {-1, -1, -1};
  for (int l = 0; l < t->n_layers; l++) {
    const stage_layer *y = &t->layer[l];
    int kind = !y->moe ? 0 : resident(r, l) ? 1 : 2;
    if (seen[kind] < 0 || memcmp(y, &t->layer[seen[kind]], sizeof *y) != 0) {
      layer_times lt = stage_layer_times_load(t, w->p->pop, l, load, kind == 1 ? w->on_device : NULL);
      seen_ns[kind] = layer_ns(t, &lt, y->moe);
      seen[kind] = l;
    }
    sum += seen_ns[kind];
  }
  return sum;
}

static bool uploads(const prepared_case *p, const engine *e, double tokens) {
  const model_config *m = model_get_config(p->m);
  double least = e->fact[ENGINE_UPLOAD_TOKENS].likely;
  return least > 0 && p->r.can_upload && tokens * m->top_k >= least * m->n_experts;
}

static double chunk_ns(const walk *w, const engine *e, double start, double tokens) {
  stage_load load = {.upload = uploads(w->p, e, tokens)};
  stage_load_add(&load, w->t, (int64_t)start, (int64_t)tokens);
  return step_ns(w, &load, 1);
}

/* A prompt in chunks. Time grows in a straight line with what came before, so the first and the last of the full chunks are enough. */
static double prompt_ns(const walk *w, const engine *e) {
  const resolved_case *r = &w->p->r;
  double chunk = fmin(r->chunk, r->prompt), full = floor(r->prompt / chunk), rest = r->prompt - full * chunk;
  double first = chunk_ns(w, e, r->prefill_start, chunk), last = first;
  if (full > 1) last = chunk_ns(w, e, r->prefill_start + (full - 1) * chunk, chunk);
  double sum = full * 0.5 * (first + last);
  if (rest >= 1) sum += chunk_ns(w, e, r->prefill_start + full * chunk, rest);
  return sum;
}

hf_status predict_case(prepared_case *p, const engine *e, cost_case c, predicted_rates *out) {
  const resolved_case *r = &p->r;
  cost_input in = {.m = p->m, .format = r->format, .rows = p->rows, .kv = r->kv, .expert_bytes = r->expert_bytes};
  walk w = {.p = p};
  stage_table *t = NULL;
  HF_TRY(gpu_set_parse(r->gpu ? "cuda:0" : "none", &in.gpus));
  HF_TRY(engine_apply(e, &r->em, p->rows));
  HF_TRY(cost_table(&in, c, &t));
  if (!(e->fact[ENGINE_OVERLAP].likely > 0)) t->contend = 2;
  w.t = t;
  memset(w.on_device, 1, sizeof w.on_device);
  stage_load load = {0};
  for (int u = 0; u < r->users; u++) stage_load_add(&load, t, (int64_t)r->context, 1);
  out->decode = r->users * 1e9 / step_ns(&w, &load, r->users);
  out->prefill = r->prompt > 0 ? r->prompt * 1e9 / prompt_ns(&w, e) : 0;
  stage_table_free(t);
  return HF_OK;
}

static predicted_range range_of(double likely, const double effect[][2]) {
  double slower = 1, faster = 1;
  plan_combine(effect, COST_N_GROUPS, &slower, &faster);
  return (predicted_range){likely / slower, likely, likely * faster};
}

hf_status predict_interval(prepared_case *p, const engine *e, predicted_range *decode, predicted_range *prefill) {
  predicted_rates likely, moved;
  double d[COST_N_GROUPS][2], f[COST_N_GROUPS][2];
  HF_TRY(predict_case(p, e, (cost_case){0}, &likely));
  for (int g = 0; g < COST_N_GROUPS; g++)
    for (int side = 0; side < 2; side++) {
      HF_TRY(predict_case(p, e, (cost_case){side == 0 ? -1 : 1, 1u << g}, &moved));
      d[g][side] = log(likely.decode / moved.decode);
      f[g][side] = likely.prefill > 0 ? log(likely.prefill / moved.prefill) : 0;
    }
  *decode = range_of(likely.decode, d);
  *prefill = range_of(likely.prefill, f);
  return HF_OK;
}
