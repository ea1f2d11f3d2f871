/* plan_advice.c: what one more of something is worth in tokens per second: by solving again with the figure changed, the
 * memory of a device also by
 * its multiplier. All at the depth and under the objective of the plan; what differs by less than the proven gaps is noise,
 * and said so. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/plan_make.h"

static const double ADVICE_GAP = 2e-4;

typedef struct {
  const plan_inputs *in;
  const planned *p;
  plan_sizes sizes;
  double rate, gap; /* of the plan's own problem, solved the same way */
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

static ilp_problem problem_of(const advice *a) {
  return plan_eval_problem(a->p->eval, 1u << (a->p->ilp->depth - 1));
}

static void add(const advice *a, const char *what, const char *change, double delta, const char *method, double noise) {
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
}

/* A problem that cannot be solved (no room for one more user) gives no line. */
static hf_status again(const advice *a, const ilp_problem *prob, const char *what, const char *change) {
  double rate = 0, gap = 0;
  hf_status st = solve(prob, &rate, &gap);
  if (st == HF_NO) {
    hf_clear_error();
    json *o = json_add_object(a->list, NULL);
    json_add_str(o, "what", what);
    json_add_str(o, "change", change);
    json_add_str(o, "method", "does not fit");
    return HF_OK;
  }
  HF_TRY(st);
  add(a, what, change, rate - a->rate, "solved again", (gap + a->gap) * a->rate);
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
    add(a, "device memory", change, p->ilp->tok_per_s * theta * (double)more / p->ilp->objective_ns, "multiplier", 0);
    ilp_problem prob = problem_of(a);
    prob.device[d].expert_bytes_free[p->ilp->depth - 1] += more;
    HF_TRY(again(a, &prob, "device memory", change));
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
  return again(a, &prob, "context", change);
}

static hf_status one_more_user(const advice *a) {
  ilp_problem prob = problem_of(a);
  prob.users++;
  for (int d = 0; d < a->p->eval->n_devices; d++)
    for (int i = 0; i < ILP_MAX_DEPTH; i++) prob.device[d].expert_bytes_free[i] -= a->sizes.device[d].kv / a->p->eval->users;
  return again(a, &prob, "users", "one more");
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

static hf_status more_bandwidth(const advice *a) {
  cost_input ci = plan_cost_input(a->in);
  cost_unit pool = cost_pool_unit(&ci);
  db_tag tag = TAG_MEASURED;
  double now = cost_unit_bytes_per_s(&pool, (cost_case){0}, &tag);
  stage_table *t = NULL;
  if (!(now > 0)) return HF_OK;
  HF_TRY(copy_table(a->p->eval->table, &t));
  for (int l = 0; l < t->n_layers; l++) {
    faster_memory(&t->layer[l].cexp, now / (now + 10e9));
    if (!t->one_resource) continue;
    faster_memory(&t->layer[l].attn, now / (now + 10e9));
    faster_memory(&t->layer[l].shared, now / (now + 10e9));
  }
  char change[64];
  snprintf(change, sizeof change, "10 GB/s more (now %.0f GB/s)", now * 1e-9);
  ilp_problem prob = problem_of(a);
  prob.table = t;
  hf_status st = again(a, &prob, "DRAM bandwidth", change);
  stage_table_free(t);
  return st;
}

static hf_status next_pcie(const advice *a) {
  stage_table *t = NULL;
  if (a->in->gpu.kind != GPU_CUDA) return HF_OK;
  HF_TRY(copy_table(a->p->eval->table, &t));
  for (int l = 0; l < t->n_layers; l++) {
    t->layer[l].hand_tok_ns /= 2;
    t->layer[l].upload_ns /= 2;
    for (int q = 1; t->place != NULL && q <= t->n_devices; q++) stage_place_of(t, l, q)->hand_tok_ns /= 2;
  }
  ilp_problem prob = problem_of(a);
  prob.table = t;
  hf_status st = again(a, &prob, "PCIe", "one generation more (twice the bytes per second)");
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
  HF_GO(done, device_memory(a));
  HF_GO(done, less_context(a));
  HF_GO(done, more_bandwidth(a));
  HF_GO(done, next_pcie(a));
  HF_GO(done, one_more_user(a));
  add_price(a);
done:
  free(a);
  return st;
}
