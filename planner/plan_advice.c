/* plan_advice.c: what one more of something is worth in tokens per second and in money: by solving again with the figure changed, the
 * memory of a device also by its multiplier. All at the depth and under the objective of the plan; what differs by less than the proven gaps is
 * noise, said so, and worth nothing. Prompts: the chunk of the plan's own placement under the changed times (bandwidth, PCIe). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/plan_worth.h"

static const double ADVICE_GAP = 2e-4, MORE_BYTES_PER_S = 10e9;

typedef struct {
  const plan_inputs *in;
  const planned *p;
  plan_sizes sizes;
  double rate, gap; /* of the plan's own problem, solved the same way */
  double chunk_ns;  /* of a chunk of prompts with the plan's placement; 0 = there are none */
  plan_worth *worth;
  json *list;
} advice;

static hf_status solve(const ilp_problem *prob, double *rate, double *gap) {
  const ilp_options o = {.quick = true, .gap_target = ADVICE_GAP};
  ilp_result *r = NULL;
  HF_TRY(ilp_solve(prob, &o, &r));
  *rate = r->tok_per_s;
  *gap = r->gap;
  ilp_result_free(r);
  return HF_OK;
}

/* Without service levels: their worth is told by their multipliers (slo). */
static ilp_problem problem_of(const advice *a) {
  ilp_problem p = plan_eval_problem(a->p->eval, 1u << (a->p->ilp->depth - 1));
  p.limit = (ilp_limits){0};
  return p;
}

/* A chunk of prompts with the plan's placement. */
static hf_status chunk_time(const advice *a, ilp_problem prob, double *ns) {
  ilp_evaluation e;
  prob.prefill.weight = 1;
  HF_TRY(ilp_evaluate(&prob, a->p->ilp->on_device, a->p->ilp->depth, NULL, &e));
  *ns = e.chunk_ns;
  return HF_OK;
}

static json *add(const advice *a, const char *what, const char *change, double delta, const char *method, double noise) {
  json *o = json_add_object(a->list, NULL);
  char text[160];
  snprintf(text, sizeof text, "%s, %s (%s)", what, change, method);
  json_add_str(o, "what", what);
  json_add_str(o, "change", change);
  json_add_str(o, "text", text);
  json_add_num(o, "tok_per_s_delta", delta);
  json_add_num(o, "gain_tok_per_s", delta);
  json_add_num(o, "decode_tok_per_s", a->rate + delta);
  json_add_num(o, "noise_tok_per_s", noise);
  json_add_str(o, "method", method);
  return o;
}

/* The line of a changed problem; chunk_ratio: what prompts then take of their time. *line NULL: cannot be solved (no room for one more user). */
static hf_status again(const advice *a, const ilp_problem *prob, const char *what, const char *change, double chunk_ratio,
                       json **line) {
  double rate = 0, gap = 0;
  hf_status st = solve(prob, &rate, &gap);
  *line = NULL;
  if (st == HF_NO) {
    hf_clear_error();
    json *o = json_add_object(a->list, NULL);
    json_add_str(o, "what", what);
    json_add_str(o, "change", change);
    json_add_str(o, "method", "does not fit");
    return HF_OK;
  }
  HF_TRY(st);
  /* with more of something the plan's own placement still fits and is no slower */
  if (prob->users == a->p->eval->users) rate = fmax(rate, a->rate);
  double delta = rate - a->rate, noise = (gap + a->gap) * a->rate;
  *line = add(a, what, change, delta, "solved again", noise);
  json_add_num(*line, "prompt_time_ratio", chunk_ratio);
  plan_worth_add(a->worth, fabs(delta) <= noise ? 1 : rate / a->rate, chunk_ratio, *line);
  return HF_OK;
}

static hf_status without_cost(const advice *a, const ilp_problem *prob, const char *what, const char *change,
                              double chunk_ratio) {
  json *line = NULL;
  HF_TRY(again(a, prob, what, change, chunk_ratio, &line));
  if (line != NULL) json_add_null(line, "cost");
  return HF_OK;
}

static hf_status device_memory(const advice *a) {
  const planned *p = a->p;
  for (int d = 0; d < p->eval->n_devices; d++) {
    int64_t mem = a->in->device_mem[d], more = mem >= (int64_t)4 << 30 ? (int64_t)1 << 30 : mem / 16;
    char change[64], size[24];
    plan_bytes_text(more, size);
    snprintf(change, sizeof change, "%s more on gpu%d", size, d);
    double theta = p->ilp->by_depth[p->ilp->depth - 1].place_theta[1 + d];
    json *line =
        add(a, "device memory", change, p->ilp->tok_per_s * theta * (double)more / p->ilp->objective_ns, "multiplier", 0);
    ilp_problem prob = problem_of(a);
    prob.device[d].expert_bytes_free[p->ilp->depth - 1] += more;
    json_add_null(line, "worth"); /* that of the solution below */
    json_add_null(line, "cost");
    HF_TRY(again(a, &prob, "device memory", change, 1, &line));
    if (line != NULL) HF_TRY(plan_worth_next_card(a->worth, d, (double)more, line));
  }
  return HF_OK;
}

/* 1024 tokens of context less for everybody: KV pages become room for experts. */
static hf_status less_context(const advice *a) {
  const plan_request *r = &a->in->req;
  if (r->context <= 2048 || a->p->eval->n_devices == 0) return HF_OK;
  ilp_problem prob = problem_of(a);
  int64_t freed = 0;
  for (int d = 0; d < a->p->eval->n_devices; d++) {
    int64_t kv = (int64_t)((double)a->sizes.device[d].kv * 1024 / (double)r->context);
    prob.device[d].expert_bytes_free[a->p->ilp->depth - 1] += kv;
    freed += kv;
  }
  char change[80], size[24];
  plan_bytes_text(freed, size);
  snprintf(change, sizeof change, "1024 tokens less per user: %s for experts", size);
  return without_cost(a, &prob, "context", change, 1);
}

static hf_status one_more_user(const advice *a) {
  ilp_problem prob = problem_of(a);
  prob.users++;
  for (int d = 0; d < a->p->eval->n_devices; d++)
    for (int i = 0; i < ILP_MAX_DEPTH; i++) prob.device[d].expert_bytes_free[i] -= a->sizes.device[d].kv / a->p->eval->users;
  return without_cost(a, &prob, "users", "one more", 1);
}

/* ---- changed curves ---- */

static hf_status copy_table(const stage_table *t, stage_table **out) {
  stage_table *c = NULL;
  HF_TRY(stage_table_new(t->n_layers, &c));
  hf_status st = stage_table_places(c, t->n_devices, t->n_remotes);
  if (st != HF_OK) {
    stage_table_free(c);
    return st;
  }
  stage_layer *layer = c->layer;
  stage_place *place = c->place;
  *c = *t;
  c->layer = layer;
  c->place = place;
  memcpy(layer, t->layer, (size_t)t->n_layers * sizeof *layer);
  if (place != NULL) memcpy(place, t->place, (size_t)(t->n_devices + t->n_remotes) * (size_t)t->n_layers * sizeof *place);
  *out = c;
  return HF_OK;
}

/* Reading takes `f` times as long; what arithmetic asks for, the last slope, stays. */
static void faster_memory(stage_curve *c, double f) {
  double slope = c->n > 1 ? (c->ns[c->n - 1] - c->ns[c->n - 2]) / (c->tok[c->n - 1] - c->tok[c->n - 2]) : 0;
  for (int i = 0; i < c->n; i++) {
    c->ns[i] = fmin(c->ns[i], fmax(c->ns[i] * f, slope * c->tok[i]));
    if (i > 0) c->ns[i] = fmax(c->ns[i], c->ns[i - 1]);
  }
}

static hf_status chunk_ratio(const advice *a, const ilp_problem *prob, double *ratio) {
  double ns = 0;
  *ratio = 1;
  if (!(a->chunk_ns > 0)) return HF_OK;
  HF_TRY(chunk_time(a, *prob, &ns));
  if (ns > 0) *ratio = ns / a->chunk_ns;
  return HF_OK;
}

static hf_status more_bandwidth(const advice *a) {
  cost_input ci = plan_cost_input(a->in);
  cost_unit pool = cost_pool_unit(&ci);
  db_tag tag = TAG_MEASURED;
  double now = cost_unit_bytes_per_s(&pool, (cost_case){0}, &tag);
  stage_table *t = NULL;
  if (!(now > 0)) return HF_OK;
  HF_TRY(copy_table(a->p->eval->table, &t));
  for (int l = 0; l < t->n_layers; l++) {
    faster_memory(&t->layer[l].cexp, now / (now + MORE_BYTES_PER_S));
    if (!t->one_resource) continue;
    faster_memory(&t->layer[l].attn, now / (now + MORE_BYTES_PER_S));
    faster_memory(&t->layer[l].shared, now / (now + MORE_BYTES_PER_S));
  }
  char change[64];
  snprintf(change, sizeof change, "10 GB/s more (now %.0f GB/s)", now * 1e-9);
  ilp_problem prob = problem_of(a);
  prob.table = t;
  double ratio = 1;
  json *line = NULL;
  hf_status st = chunk_ratio(a, &prob, &ratio);
  if (st == HF_OK) st = again(a, &prob, "DRAM bandwidth", change, ratio, &line);
  if (st == HF_OK && line != NULL) st = plan_worth_next_memory(a->worth, MORE_BYTES_PER_S, line);
  stage_table_free(t);
  return st;
}

/* Real devices, and those paced like one; a virtual device is in the CPU's own memory. */
static bool over_pcie(const plan_inputs *in) {
  return in->gpu.kind == GPU_CUDA || in->gpu.kind == GPU_PACED;
}

static hf_status next_pcie(const advice *a) {
  stage_table *t = NULL;
  if (!over_pcie(a->in)) return HF_OK;
  HF_TRY(copy_table(a->p->eval->table, &t));
  for (int l = 0; l < t->n_layers; l++) {
    t->layer[l].hand_tok_ns /= 2;
    t->layer[l].upload_ns /= 2;
    for (int q = 1; t->place != NULL && q <= t->n_devices; q++) stage_place_of(t, l, q)->hand_tok_ns /= 2;
  }
  ilp_problem prob = problem_of(a);
  prob.table = t;
  double ratio = 1;
  hf_status st = chunk_ratio(a, &prob, &ratio);
  if (st == HF_OK) st = without_cost(a, &prob, "PCIe", "one generation more (twice the bytes per second)", ratio);
  stage_table_free(t);
  return st;
}

static void add_price(const advice *a) {
  cost_figure f;
  if (!cost_find(a->in->host, "", "price_usd", &f) || !(a->p->p->decode_tok_per_s.likely > 0)) return;
  json *o = json_add_object(a->list, NULL);
  json_add_str(o, "what", "hardware");
  json_add_str(o, "change", "as planned");
  json_add_num(o, "price", f.likely);
  json_add_num(o, "price_per_tok_per_s", f.likely / a->p->p->decode_tok_per_s.likely);
  if (a->p->sustained.tok_per_s > 0) json_add_num(o, "price_per_delivered_tok_per_s", f.likely / a->p->sustained.tok_per_s);
  json_add_str(o, "method", "price of the machine over predicted tokens per second");
}

hf_status plan_advice(const plan_inputs *in, const planned *p, json *into) {
  advice *a = NULL;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&a, 1, sizeof *a, "advice"));
  a->in = in;
  a->p = p;
  a->list = json_add_array(into, "values");
  HF_GO(done, plan_sizes_of(in, &a->sizes));
  ilp_problem prob = problem_of(a);
  HF_GO(done, solve(&prob, &a->rate, &a->gap));
  HF_GO(done, chunk_time(a, prob, &a->chunk_ns));
  HF_GO(done, plan_worth_new(in, p, &a->worth));
  HF_GO(done, device_memory(a));
  HF_GO(done, less_context(a));
  HF_GO(done, more_bandwidth(a));
  HF_GO(done, next_pcie(a));
  HF_GO(done, one_more_user(a));
  add_price(a);
  plan_worth_assumptions(a->worth, into);
done:
  plan_worth_free(a->worth);
  free(a);
  return st;
}
