#include "planner/plan_make.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static const double QUICK_GAP = 0.005;
enum { SIM_MOST_OUTPUT = 1024, DEPTHS_TRIED = 4 };

/* A depth whose objective is worse than the best by more than this is not simulated. */
static const double DEPTH_SLACK = 1.25;
static const double FULL_GAP = 1e-5; /* proven so far, a plan is not searched on */
/* The objective's own choice of depth stands unless the simulation, which lets micro-batches sit in different layers, finds
 * another one better
 * by more than this. Small, since the depth chosen shall be the fastest or within 3 % of it (project bar); not nothing, since
 * a tie
 * goes to the simpler schedule. */
static const double DEPTH_MARGIN = PLAN_DEPTH_MARGIN;

void planned_free(planned *p) {
  plan_free(p->p);
  ilp_result_free(p->ilp);
  plan_eval_free(p->eval);
  plan_drift_free(p->drift);
  memset(p, 0, sizeof *p);
}

/* ---- table and problem ---- */

static hf_status table_for(const plan_inputs *in, const planned *p, cost_case c, stage_table **out) {
  cost_input ci = plan_cost_input(in);
  HF_TRY(cost_table(&ci, c, out));
  if (p->drift != NULL) plan_drift_apply(p->drift, *out);
  return HF_OK;
}

/* What each place has for experts. This machine's memory limits them only where that could decide anything: all experts must
 * fit somewhere,
 * and what is on a virtual device is in the same memory. */
static void fill_rooms(const plan_inputs *in, const plan_sizes *s, plan_eval *v) {
  plan_budget rows[PLAN_MAX_BUDGET];
  v->n_devices = in->gpus.n;
  for (int d = 0; d < v->n_devices; d++)
    for (int i = 0; i < ILP_MAX_DEPTH; i++) v->room[d][i] = plan_expert_room(s, d, i + 1);
  int64_t elsewhere = 0, ram = s->ram_limit;
  for (int r = 0; r < in->n_remotes; r++) {
    v->remote_room[r] = plan_remote_room(s, r) > 0 ? plan_remote_room(s, r) : -1;
    elsewhere += plan_remote_room(s, r) > 0 ? plan_remote_room(s, r) : 0;
  }
  for (int d = 0; d < v->n_devices; d++) elsewhere += v->room[d][0] > 0 ? v->room[d][0] : 0;
  if (s->ram_limit <= 0 || in->gpu.kind == GPU_VIRTUAL || in->gpu.kind == GPU_PACED) return;
  int n = plan_budget_rows(in, s, ILP_MAX_DEPTH, &(plan_resident){0}, rows);
  for (int i = 0; i < n; i++)
    if (strcmp(rows[i].where, "ram") == 0) ram -= rows[i].bytes;
  ram += s->all_experts;
  if (ram > 0 && ram + elsewhere >= s->all_experts) v->cpu_room = ram;
}

ilp_prefill plan_prefill(const plan_inputs *in, const planned_options *o, const stage_table *t) {
  const plan_request *r = &in->req;
  ilp_prefill f = {0};
  double prompts = (double)r->users * (double)r->prompt_tokens, chunk = fmin((double)in->chunk_tokens, prompts);
  /* Without a weight prompts do not move an expert; how each layer's chunk is best computed is still told. */
  if (o->optimise == PLAN_FOR_REQUEST)
    f.weight = o->weight_prefill > 0 ? o->weight_prefill : ceil(prompts / chunk) / (double)r->output_tokens;
  int64_t tokens = (int64_t)chunk < r->prompt_tokens ? (int64_t)chunk : r->prompt_tokens; /* of one sequence; the others follow */
  for (int64_t left = (int64_t)chunk; left > 0; left -= tokens)
    stage_load_add(&f.load, t, (r->prompt_tokens - tokens) / 2, left < tokens ? left : tokens);
  f.upload = in->gpu.kind == GPU_CUDA; /* what virtual devices run cannot be uploaded to */
  return f;
}

static hf_status make_eval(const plan_inputs *in, const planned_options *o, const plan_sizes *s, planned *out) {
  plan_eval *v = NULL;
  int n = in->c->n_layers;
  HF_TRY(hf_alloc(&v, 1, sizeof *v, "inputs of a plan"));
  out->eval = v;
  v->users = (int)in->req.users;
  v->mean_context = in->mean_context;
  fill_rooms(in, s, v);
  HF_TRY(hf_alloc(&v->expert_bytes, (size_t)n, sizeof *v->expert_bytes, "sizes of experts"));
  memcpy(v->expert_bytes, s->expert, (size_t)n * sizeof *v->expert_bytes);
  HF_TRY(popularity_copy(in->pop, &v->pop));
  cost_input ci = plan_cost_input(in);
  HF_TRY(cost_table(&ci, (cost_case){0}, &v->table));
  v->prefill = plan_prefill(in, o, v->table);
  v->limit = plan_slo_limits(in, o, &v->prefill);
  if (in->req.from_run == 0) return HF_OK;
  HF_TRY(plan_drift_of_run(in, v->table, &out->drift));
  plan_drift_apply(out->drift, v->table);
  return HF_OK;
}

static uint32_t depths_to_try(const plan_inputs *in) {
  if (in->req.depth > 0) return 1u << (in->req.depth - 1);
  int64_t most = in->req.users < DEPTHS_TRIED ? in->req.users : DEPTHS_TRIED;
  return in->gpu.kind == GPU_NONE ? 1u : (1u << most) - 1;
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
  bool any = false;
  memset(upload, 0, PLAN_MAX_LAYERS);
  for (int l = 0; l < p->eval->table->n_layers; l++) any = (upload[l] = layers[l].upload) || any;
  if (any) {
    o.prefill_upload = upload;
    o.upload_tokens = p->eval->prefill.load.tokens / 2;
  }
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

static hf_status simulate(const plan_inputs *in, const planned *p, const ilp_layer *layers, const uint8_t *placement, int depth,
                          sim_result *out, double *stretch) {
  const plan_request *r = &in->req;
  int output = r->output_tokens < SIM_MOST_OUTPUT ? (int)r->output_tokens : SIM_MOST_OUTPUT;
  uint8_t upload[PLAN_MAX_LAYERS];
  sim_options o = load_options(in, p, layers, placement, depth, upload);
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

hf_status plan_simulate(const plan_inputs *in, const planned *p, const uint8_t *placement, int depth, sim_result *out,
                        double *stretch) {
  return simulate(in, p, p->ilp->layer, placement, depth, out, stretch);
}

/* One depth, simulated; kept for the prediction when it is the one chosen. */
typedef struct {
  sim_result sim;
  sustained_result load;
  double stretch, rate;
  bool within; /* the limits, under sustained load; true without */
  bool near;   /* as of planned */
  double near_gain;
} trial;

static hf_status try_depth(const plan_inputs *in, const planned *p, const ilp_result *r, bool search, trial *t) {
  bool limits = p->slo_ttft_s > 0 || p->slo_tpot_s > 0;
  *t = (trial){.stretch = 1, .within = true};
  if (!search || !limits) HF_TRY(simulate(in, p, r->layer, r->on_device, r->depth, &t->sim, &t->stretch));
  t->rate = t->sim.decode_tok_per_s / t->stretch;
  if (!limits) return HF_OK;
  HF_TRY(plan_sustain(in, p, r, 1, &t->load));
  if (search) t->rate = t->load.given_up ? 0 : t->load.tok_per_s;
  t->within = plan_slo_within(p, t->load.ttft_s.p95, t->load.tpot_s.p95);
  return HF_OK;
}

static void keep_trial(planned *p, const trial *t) {
  p->sim = t->sim;
  p->stretch = t->stretch;
  p->sustained = t->load;
  p->near = t->near;
  p->near_gain = t->near_gain;
}

/* At depth 2 and more micro-batches wait for one another in turn, which no sum sees: of two placements the one with the longer step may
 * be the faster. The search that stops at a wider gap ends at another one; it is taken where it simulates clearly faster. */
static hf_status try_near(const plan_inputs *in, planned *p, const ilp_options *o, bool search, ilp_result *r, trial *t) {
  ilp_problem prob = plan_eval_problem(p->eval, 1u << (r->depth - 1));
  ilp_options wide = *o;
  ilp_result *x = NULL;
  trial other;
  if (o->quick || r->depth < 2) return HF_OK;
  wide.quick = true;
  wide.gap_target = QUICK_GAP;
  wide.refusal = NULL;
  hf_status st = ilp_solve(&prob, &wide, &x);
  if (st == HF_NO) hf_clear_error();
  if (st != HF_OK) return st == HF_NO ? HF_OK : st;
  p->seconds += x->seconds;
  if (memcmp(x->on_device, r->on_device, (size_t)r->n_layers * (size_t)r->n_experts) != 0) {
    st = try_depth(in, p, x, search, &other);
    if (st == HF_OK && (other.within != t->within ? other.within : other.rate > DEPTH_MARGIN * t->rate)) {
      st = ilp_result_take(r, x);
      other.near = true;
      other.near_gain = other.rate / t->rate - 1;
      *t = other;
      p->by_depth[r->depth - 1].objective_ns = r->objective_ns;
    }
  }
  ilp_result_free(x);
  return st;
}

/* Where one depth must do: the objective's, unless micro-batches that wait in turn (one simulation tells) make it slower than depth 1 is, which
 * knows no waiting: its objective is its rate. */
static hf_status fall_back_to_1(const plan_inputs *in, const ilp_options *io, planned *p) {
  ilp_depth_state state = p->by_depth[0].state;
  sim_result sim;
  double stretch, alone;
  if (p->ilp->depth == 1 || (state != ILP_DEPTH_SOLVED && state != ILP_DEPTH_PRUNED)) return HF_OK;
  alone = (double)in->req.users * 1e9 / p->by_depth[0].objective_ns;
  if (p->by_depth[0].objective_ns > DEPTH_SLACK * p->ilp->objective_ns) return HF_OK;
  HF_TRY(simulate(in, p, p->ilp->layer, p->ilp->on_device, p->ilp->depth, &sim, &stretch));
  if (alone <= DEPTH_MARGIN * sim.decode_tok_per_s / stretch) return HF_OK;
  ilp_problem prob = plan_eval_problem(p->eval, 1);
  ilp_result *r = NULL;
  HF_TRY(ilp_solve(&prob, io, &r));
  p->seconds += r->seconds;
  p->by_depth[0] = r->by_depth[0];
  ilp_result_free(p->ilp);
  p->ilp = r;
  return HF_OK;
}

/* The objective is what limits a step in the long run; the simulation knows the order of things too. So every depth whose
 * objective comes
 * near the best is simulated as well, and the simulation decides; gap and bound are those of the depth chosen. */
static hf_status choose_depth(const plan_inputs *in, const planned_options *o, planned *p) {
  ilp_problem prob = plan_eval_problem(p->eval, depths_to_try(in));
  ilp_options io = {.quick = o->quick,
                    .gap_target = o->quick ? (o->quick_gap > 0 ? o->quick_gap : QUICK_GAP) : FULL_GAP,
                    .refusal = &p->refusal};
  hf_status st = ilp_solve(&prob, &io, &p->ilp);
  io.refusal = NULL;
  if (st == HF_NO && p->refusal.limits) { /* the plan without them tells how far off it is */
    hf_clear_error();
    prob.limit = p->eval->limit = (ilp_limits){0};
    st = ilp_solve(&prob, &io, &p->ilp);
  }
  HF_TRY(st);
  memcpy(p->by_depth, p->ilp->by_depth, sizeof p->by_depth);
  p->seconds = p->ilp->seconds;
  if (o->no_simulation) return HF_OK;
  if (o->quick && !o->compare_depths) return fall_back_to_1(in, &io, p);
  double least = p->ilp->objective_ns;
  int first = p->ilp->depth;
  trial best, other;
  bool search = o->slo_report && o->give_up > 0;
  HF_TRY(try_depth(in, p, p->ilp, search, &best));
  HF_TRY(try_near(in, p, &io, search, p->ilp, &best));
  p->depth_tok_per_s[first - 1] = best.rate;
  for (int d = 1; d <= ILP_MAX_DEPTH; d++) {
    ilp_depth_state state = p->by_depth[d - 1].state;
    if (d == first || (state != ILP_DEPTH_SOLVED && state != ILP_DEPTH_PRUNED)) continue;
    if (p->by_depth[d - 1].objective_ns > DEPTH_SLACK * least) continue;
    ilp_result *r = NULL;
    prob = plan_eval_problem(p->eval, 1u << (d - 1));
    st = ilp_solve(&prob, &io, &r);
    if (st == HF_NO && prob.limit.step_ns + prob.limit.ttft_ns > 0) {
      hf_clear_error();
      continue;
    }
    HF_TRY(st);
    p->seconds += r->seconds;
    p->by_depth[d - 1] = r->by_depth[d - 1]; /* the search over all depths may have stopped before it was proven */
    st = try_depth(in, p, r, search, &other);
    if (st == HF_OK) st = try_near(in, p, &io, search, r, &other);
    p->depth_tok_per_s[d - 1] = other.rate;
    bool faster = other.rate > DEPTH_MARGIN * best.rate;
    if (st == HF_OK && (other.within != best.within ? other.within : faster)) {
      best = other;
      ilp_result *worse = p->ilp;
      p->ilp = r;
      r = worse;
    }
    ilp_result_free(r);
    HF_TRY(st);
  }
  keep_trial(p, &best);
  if (best.within || o->slo_report) return HF_OK;
  bool changed = false;
  HF_TRY(plan_slo_tighten(in, &io, p, &changed));
  if (!changed) return HF_OK;
  HF_TRY(try_depth(in, p, p->ilp, search, &best));
  p->depth_tok_per_s[p->ilp->depth - 1] = best.rate;
  keep_trial(p, &best);
  return HF_OK;
}

static hf_status refuse(const plan_inputs *in, const plan_sizes *s, int depth, const plan_resident *resident, planned *out,
                        const char *where) {
  out->n_budget = plan_budget_rows(in, s, depth, resident, out->budget);
  out->n_remedies = plan_remedies(in, s, depth, out->remedy);
  int64_t need = 0, limit = 0;
  for (int i = 0; i < out->n_budget; i++)
    if (strcmp(out->budget[i].where, where) == 0) {
      need += out->budget[i].bytes;
      limit = out->budget[i].limit_bytes;
    }
  char t[2][24];
  plan_bytes_text(need, t[0]);
  plan_bytes_text(limit, t[1]);
  return hf_fail(HF_NO, "no plan fits: %s needs %s and has %s; possible: %s", where, t[0], t[1],
                 out->n_remedies > 0 ? out->remedy[0] : "more memory there");
}

/* ---- prediction ---- */

hf_status plan_step_ns(const plan_inputs *in, const planned *p, cost_case c, double *ns) {
  stage_table *t = NULL;
  ilp_evaluation e;
  HF_TRY(table_for(in, p, c, &t));
  ilp_problem prob = plan_eval_problem(p->eval, 1);
  prob.table = t;
  hf_status st = ilp_evaluate(&prob, p->ilp->on_device, p->ilp->depth, NULL, &e);
  if (st == HF_OK) *ns = e.step_ns;
  stage_table_free(t);
  return st;
}

/* What a model of a serving engine misses even when every operation was measured, as a logarithm: published errors of peers
 * that predict
 * from measured operation times (research of this project: Vidur "< 9 %" of latency; aiconfigurator 6 to 12 % of TPOT). None
 * of them
 * models this engine: that their error is ours is judgement. The rest of the interval is the rows' own low and high. */
static const double MODEL_DOUBT = 0.09;

void plan_combine(const double effect[][2], int n, double *slower, double *faster) {
  double sum[2] = {MODEL_DOUBT * MODEL_DOUBT, MODEL_DOUBT * MODEL_DOUBT};
  for (int i = 0; i < n; i++)
    for (int side = 0; side < 2; side++) sum[effect[i][side] < 0] += effect[i][side] * effect[i][side];
  *slower = exp(sqrt(sum[0]));
  *faster = exp(sqrt(sum[1]));
}

/* Moves each group of figures alone to both ends. */
static hf_status interval(const plan_inputs *in, planned *p, double *slower, double *faster) {
  double likely = 0;
  HF_TRY(plan_step_ns(in, p, (cost_case){0}, &likely));
  for (int g = 0; g < COST_N_GROUPS; g++)
    for (int side = 0; side < 2; side++) {
      double ns = 0;
      HF_TRY(plan_step_ns(in, p, (cost_case){side == 0 ? -1 : 1, 1u << g}, &ns));
      p->effect[g][side] = log(ns / likely);
    }
  plan_combine(p->effect, COST_N_GROUPS, slower, faster);
  return HF_OK;
}

static hf_status predict(const plan_inputs *in, const planned_options *o, planned *out) {
  plan *p = out->p;
  double slower = 1, faster = 1, give_up = o->slo_report ? o->give_up : 0;
  if (!o->no_simulation && give_up == 0 && out->sim.requests == 0)
    HF_TRY(plan_simulate(in, out, out->ilp->on_device, out->ilp->depth, &out->sim, &out->stretch));
  /* the choice of a depth gives up at the limits themselves */
  const sustained_result *load = &out->sustained;
  if (!o->no_simulation && ((load->requests == 0 && !load->given_up) || (load->given_up && give_up != 1)))
    HF_TRY(plan_sustain(in, out, out->ilp, give_up, &out->sustained));
  if (!o->no_interval) HF_TRY(interval(in, out, &slower, &faster));
  double rate = out->sim.decode_tok_per_s > 0 ? out->sim.decode_tok_per_s / out->stretch : out->ilp->tok_per_s;
  p->decode_tok_per_s = (plan_range){rate / slower, rate, rate * faster};
  p->ttft_s = out->sim.ttft_s;
  p->tpot_s = out->sim.tpot_s;
  p->tpot_s.p50 *= out->stretch;
  p->tpot_s.p90 *= out->stretch;
  p->tpot_s.p95 *= out->stretch;
  p->tpot_s.p99 *= out->stretch;
  return HF_OK;
}

/* ---- binding resource ---- */

/* What the CPU waits for in a layer it binds: its memory while a second token of an expert costs little more than the first. */
static const char *cpu_binding(const stage_table *t, int layer, const ilp_layer *l) {
  const stage_layer *y = &t->layer[layer];
  if (y->cexp_fixed_ns > 0.5 * l->times.cexp_ns) return "CPU fixed cost";
  return stage_curve_at(&y->cexp, 2) > 1.4 * stage_curve_at(&y->cexp, 1) ? "CPU compute" : "DRAM bandwidth";
}

static const char *binding_text(const planned *out, ilp_binding b, int example) {
  if (b == ILP_BIND_REMOTE) return "other machine";
  if (b == ILP_BIND_PATH) return "way through device and CPU";
  if (b == ILP_BIND_GPU) return "device";
  return example >= 0 ? cpu_binding(out->eval->table, example, &out->ilp->layer[example]) : "CPU";
}

const char *plan_layer_waits_for(const planned *p, int layer) {
  const stage_table *t = p->eval->table;
  const ilp_layer *l = &p->ilp->layer[layer];
  if (!(l->ns > 0)) return "behind the rest";
  return binding_text(p, l->binding, t->layer[layer].moe ? layer : -1);
}

/* What most of the time of the layers bound by `b` waits for; of the MoE layers where all share one CPU: they name what it waits for. */
static const char *most_waited_for(const planned *out, ilp_binding b) {
  const stage_table *t = out->eval->table;
  const char *name[8], *best = binding_text(out, b, -1);
  double ns[8], most = 0;
  int n = 0;
  for (int l = 0; l < t->n_layers; l++) {
    const ilp_layer *y = &out->ilp->layer[l];
    if (t->one_resource ? !t->layer[l].moe : y->binding != b) continue;
    const char *text = binding_text(out, b, t->layer[l].moe ? l : -1);
    int k = 0;
    while (k < n && strcmp(name[k], text) != 0) k++;
    if (k == n) {
      name[n] = text;
      ns[n++] = 0;
    }
    ns[k] += y->ns;
    if (ns[k] <= most) continue;
    most = ns[k];
    best = text;
  }
  return best;
}

static void name_binding(const planned *out, char *to, size_t n) {
  const stage_table *t = out->eval->table;
  double ns[4] = {0};
  int best = ILP_BIND_CPU;
  for (int l = 0; l < t->n_layers; l++) ns[out->ilp->layer[l].binding] += out->ilp->layer[l].ns;
  for (int b = 0; b < 4; b++)
    if (ns[b] > ns[best]) best = b;
  if (t->one_resource) best = ILP_BIND_CPU;
  snprintf(to, n, "%s", most_waited_for(out, (ilp_binding)best));
}

/* ---- kernels measured fastest here ---- */

/* Candidates are compared on one shape and one number of threads: those measured that are nearest to the model's and the
 * plan's. */
typedef struct {
  const cost_rows *r;
  const char *kernel, *format;
  int n_out, n_in, threads;
} contest;

static bool takes_part(const contest *c, const rec_kernel_point *k) {
  return strcmp(k->kernel, c->kernel) == 0 && strcmp(k->format, c->format) == 0 && strncmp(k->device, "cpu", 3) == 0 &&
         k->tokens >= 1 && k->ns > 0 && k->candidate[0] != '\0' && k->load[0] == '\0' && k->tag == TAG_MEASURED;
}

static bool same_conditions(const contest *c, const rec_kernel_point *k) {
  return takes_part(c, k) && k->n_out == c->n_out && k->n_in == c->n_in && k->threads == c->threads;
}

static bool find_contest(contest *c, int threads, double weights) {
  double best = INFINITY;
  for (int i = 0; i < c->r->n_kernel; i++) {
    const rec_kernel_point *k = &c->r->kernel[i];
    if (!takes_part(c, k)) continue;
    /* the number of threads first: a shape is never so far off */
    double far = fabs(log((double)k->n_out * k->n_in / weights)) + 1e3 * abs(k->threads - threads);
    if (far >= best) continue;
    best = far;
    c->n_out = k->n_out;
    c->n_in = k->n_in;
    c->threads = k->threads;
  }
  return best < INFINITY;
}

static const char *best_candidate(const contest *c, int tokens) {
  const rec_kernel_point *best = NULL;
  for (int i = 0; i < c->r->n_kernel; i++) {
    const rec_kernel_point *k = &c->r->kernel[i];
    if (k->tokens == tokens && same_conditions(c, k) && (best == NULL || k->ns < best->ns)) best = k;
  }
  return best->candidate;
}

static void add_kernels(const cost_rows *r, const char *kernel, const char *format, double weights, plan *p) {
  contest c = {.r = r, .kernel = kernel, .format = format};
  int tokens[64], n = 0;
  if (!find_contest(&c, p->threads, weights)) return;
  for (int i = 0; i < r->n_kernel; i++) {
    const rec_kernel_point *k = &r->kernel[i];
    if (!same_conditions(&c, k)) continue;
    int at = 0;
    while (at < n && tokens[at] < k->tokens) at++;
    if ((at < n && tokens[at] == k->tokens) || n == 64) continue;
    memmove(&tokens[at + 1], &tokens[at], (size_t)(n - at) * sizeof tokens[0]);
    tokens[at] = k->tokens;
    n++;
  }
  plan_kernel *last = NULL;
  for (int i = 0; i < n && p->n_kernels < PLAN_MAX_KERNELS; i++) {
    const char *name = best_candidate(&c, tokens[i]);
    int lo = last == NULL ? 1 : tokens[i];
    if (last != NULL) last->tokens_hi = tokens[i] - 1;
    if (last != NULL && strcmp(last->candidate, name) == 0) {
      last->tokens_hi = INT32_MAX;
      continue;
    }
    last = &p->kernel[p->n_kernels++];
    *last = (plan_kernel){.tokens_lo = lo, .tokens_hi = INT32_MAX};
    snprintf(last->op, sizeof last->op, "%s", kernel);
    snprintf(last->format, sizeof last->format, "%s", format);
    snprintf(last->candidate, sizeof last->candidate, "%s", name);
  }
}

static hf_status choose_kernels(const plan_inputs *in, plan *p) {
  bool seen[FMT_N] = {false};
  for (int l = 0; l < in->c->n_layers; l++) {
    model_layer_parts parts;
    HF_TRY(model_layer_parts_of(in->m, in->format, l, &parts));
    const fmt used[4] = {parts.attn_fmt, parts.ffn_fmt, parts.shared_fmt, parts.expert_fmt};
    for (int i = 0; i < 4; i++)
      if (used[i] >= 0 && used[i] < FMT_N) seen[used[i]] = true;
  }
  for (int f = 0; f < FMT_N; f++) {
    if (!seen[f]) continue;
    double d = in->c->d_model;
    add_kernels(in->host, "matmul", fmt_get((fmt)f)->name, d * d, p);
    if (in->c->n_experts > 0) add_kernels(in->host, "expert_ffn", fmt_get((fmt)f)->name, d * in->c->d_ff_expert, p);
  }
  return HF_OK;
}

/* ---- putting it together ---- */

static void fnv(uint64_t *h, const void *data, size_t n) {
  const unsigned char *p = data;
  for (size_t i = 0; i < n; i++) *h = (*h ^ p[i]) * 0x100000001b3u;
}

/* FNV-1a over everything that went in, from two starting points. */
static hf_status hash_inputs(const plan_inputs *in, const planned *out, char *to, size_t n) {
  json *o = json_new_object();
  char *text = NULL;
  hf_status st = plan_eval_to_json(out->eval, o);
  if (st == HF_OK) st = json_print(o, false, &text);
  json_free(o);
  HF_TRY(st);
  const plan_request *r = &in->req;
  const int64_t numbers[] = {r->users, r->context,       r->prompt_tokens,  r->output_tokens,
                             r->depth, in->chunk_tokens, COST_MODEL_VERSION};
  uint64_t h[2] = {0xcbf29ce484222325u, 0x84222325cbf29ce4u};
  for (int i = 0; i < 2; i++) {
    fnv(&h[i], text, strlen(text));
    fnv(&h[i], numbers, sizeof numbers);
    fnv(&h[i], r->model, strlen(r->model));
    fnv(&h[i], in->format_name, strlen(in->format_name));
    fnv(&h[i], in->gpu.text, strlen(in->gpu.text));
  }
  free(text);
  snprintf(to, n, "fnv1a64x2:%016llx%016llx", (unsigned long long)h[0], (unsigned long long)h[1]);
  return HF_OK;
}

static hf_status fill_layers(const plan_inputs *in, const planned *out) {
  plan *p = out->p;
  for (int l = 0; l < p->n_layers; l++) {
    plan_layer *y = &p->layer[l];
    const ilp_layer *i = &out->ilp->layer[l];
    *y = (plan_layer){.index = l,
                      .moe = in->c->layer_is_moe[l],
                      .attn_ns = i->times.attn_ns,
                      .shared_ns = i->times.shared_ns,
                      .dexp_ns = i->times.dexp_ns,
                      .cexp_ns = i->times.cexp_ns,
                      .hand_ns = i->times.hand_ns,
                      .layer_ns = i->ns};
    /* a plan knows three names; waiting for another machine is the way of a micro-batch, too */
    snprintf(y->binding, sizeof y->binding, "%s", ilp_binding_name(i->binding == ILP_BIND_REMOTE ? ILP_BIND_PATH : i->binding));
    snprintf(y->prefill, sizeof y->prefill, "%s", i->upload ? "upload" : "cpu");
    if (!y->moe) continue;
    y->n_experts = p->n_experts;
    HF_TRY(hf_alloc(&y->device, (size_t)p->n_experts, sizeof *y->device, "placement"));
    for (int e = 0; e < p->n_experts; e++)
      y->device[e] = (int16_t)(out->ilp->on_device[(size_t)l * (size_t)p->n_experts + (size_t)e] - 1);
  }
  return HF_OK;
}

static void fill_devices(const plan_inputs *in, plan *p) {
  for (int i = 0; i < in->gpus.n; i++) {
    plan_device *d = &p->device[p->n_devices++];
    const rec_device *row = cost_device(in->paced != NULL ? in->paced : in->host, in->gpus.g[i].device);
    snprintf(d->name, sizeof d->name, "%.95s", row != NULL ? row->name : "virtual device");
    snprintf(d->spec, sizeof d->spec, "%.95s", in->gpus.g[i].text);
    d->mem_bytes = in->device_mem[i];
  }
  for (int r = 0; r < in->n_remotes; r++) { /* places of experts after the devices */
    plan_device *d = &p->device[p->n_devices++];
    snprintf(d->name, sizeof d->name, "CPU of %.88s", in->remote[r].rows->machine.name);
    snprintf(d->spec, sizeof d->spec, "remote:%.88s", in->remote[r].text);
    d->mem_bytes = cost_mem_bytes(in->remote[r].rows, "cpu", -1);
  }
}

static hf_status fill_plan(const plan_inputs *in, const planned_options *o, planned *out) {
  plan *p = out->p;
  const plan_request *r = &in->req;
  p->cost_model_version = COST_MODEL_VERSION;
  if (!o->quick) HF_TRY(hash_inputs(in, out, p->inputs_hash, sizeof p->inputs_hash));
  snprintf(p->model, sizeof p->model, "%s", r->model);
  snprintf(p->family, sizeof p->family, "%s", model_family_name(in->c->family));
  snprintf(p->format, sizeof p->format, "%s", in->format_name);
  snprintf(p->machine, sizeof p->machine, "%s", in->host->machine.name);
  snprintf(p->gpu, sizeof p->gpu, "%s", in->gpu.text);
  p->machine_id = in->host->machine.id;
  p->from_run = r->from_run;
  p->users = (int)r->users;
  p->context = (int)r->context;
  p->prompt_tokens = (int)r->prompt_tokens;
  p->output_tokens = (int)r->output_tokens;
  p->depth = out->ilp->depth;
  p->n_experts = in->c->n_experts;
  fill_devices(in, p);
  HF_TRY(fill_layers(in, out));
  snprintf(p->kv_type, sizeof p->kv_type, "f16");
  p->kv_page_tokens = PLAN_PAGE_TOKENS;
  p->max_seqs = (int)r->users;
  p->chunk_tokens = in->chunk_tokens;
  cost_input host = plan_cost_input(in);
  host.rows = in->host;
  host.threads = (int)r->threads;
  if (in->gpu.kind == GPU_PACED) host.gpus.g[0].kind = GPU_VIRTUAL; /* it keeps one thread of the machine that runs it, too */
  p->threads = cost_pool_threads(&host);
  HF_TRY(choose_kernels(in, p));
  p->ilp.objective_ns = out->ilp->objective_ns;
  p->ilp.bound_ns = out->ilp->bound_ns;
  p->ilp.gap = out->ilp->gap;
  p->ilp.seconds = out->seconds;
  snprintf(p->ilp.status, sizeof p->ilp.status, "%s", out->ilp->status);
  snprintf(p->tag, sizeof p->tag, "%s", out->eval->table->tag);
  if (in->assumed_popularity && in->c->n_experts > 0) snprintf(p->tag, sizeof p->tag, "%s", db_tag_name(TAG_ASSUMED));
  snprintf(p->popularity, sizeof p->popularity, "%s", in->pop->source);
  name_binding(out, p->binding, sizeof p->binding);
  return HF_OK;
}

static hf_status add_extra(const plan_inputs *in, const planned_options *o, planned *out) {
  out->p->extra = json_new_object();
  if (o->quick) return HF_OK;
  json_add_int(out->p->extra, "upload_tokens",
               out->eval->prefill.load.tokens / 2); /* steps from here on upload where layers say so */
  HF_TRY(plan_extras(in, out, out->p->extra));
  if (out->drift != NULL) HF_TRY(plan_changes(in, out, out->p->extra));
  return plan_eval_to_json(out->eval, out->p->extra);
}

void plan_summarise(const planned *p, planned_summary *out) {
  const stage_table *t = p->eval->table;
  *out = (planned_summary){.decode_tok_per_s = p->p->decode_tok_per_s,
                           .ttft_s = p->sustained.ttft_s,
                           .tpot_s = p->sustained.tpot_s,
                           .e2e_s = p->sustained.e2e_s,
                           .tok_per_s_wall = p->sustained.tok_per_s,
                           .prefill_tok_per_s = p->sim.prefill_tok_per_s,
                           .goodput = p->sustained.goodput,
                           .device_busy = p->sustained.device_busy,
                           .cpu_busy = p->sustained.cpu_busy,
                           .depth = p->ilp->depth,
                           .objective_ns = p->ilp->objective_ns,
                           .bound_ns = p->ilp->bound_ns,
                           .gap = p->ilp->gap,
                           .seconds = p->seconds,
                           .device_expert_bytes = p->ilp->bytes_used};
  snprintf(out->status, sizeof out->status, "%s", p->ilp->status);
  snprintf(out->binding, sizeof out->binding, "%s", p->p->binding);
  snprintf(out->tag, sizeof out->tag, "%s", p->p->tag);
  memcpy(out->effect, p->effect, sizeof out->effect);
  const ilp_evaluation *e = &p->ilp->evaluation;
  for (int l = 0; l < t->n_layers; l++) out->experts_on_devices += p->ilp->layer[l].resident;
  for (int q = 1; q <= p->eval->n_devices; q++) out->device_ns = fmax(out->device_ns, e->place_ns[q]);
  out->cpu_ns = e->place_ns[0];
  out->path_ns = e->path_ns;
}

hf_status plan_make(plan_inputs *in, const planned_options *options, planned *out) {
  static const planned_options full = {0};
  const planned_options *o = options != NULL ? options : &full;
  plan_sizes s;
  memset(out, 0, sizeof *out);
  out->scenario = o->scenario;
  out->scenario_named = o->scenario_named;
  out->slo_ttft_s = o->slo_ttft_s;
  out->slo_tpot_s = o->slo_tpot_s;
  out->stretch = 1;
  HF_TRY(plan_inputs_popularity(in));
  HF_TRY(plan_sizes_of(in, &s));
  HF_TRY(make_eval(in, o, &s, out));
  for (int d = 0; d < out->eval->n_devices; d++) {
    int depth = in->req.depth > 0 ? (int)in->req.depth : 1;
    char where[16];
    snprintf(where, sizeof where, "gpu%d", d);
    if (plan_expert_room(&s, d, depth) < 0) return refuse(in, &s, depth, &(plan_resident){0}, out, where);
  }
  HF_TRY(choose_depth(in, o, out));
  HF_TRY(plan_new(in->c->n_layers, &out->p));
  plan_resident resident = {0};
  for (int d = 0; d < in->gpus.n; d++) resident.device[d] = out->ilp->evaluation.place_bytes[1 + d];
  for (int r = 0; r < in->n_remotes; r++) resident.remote[r] = out->ilp->evaluation.place_bytes[1 + in->gpus.n + r];
  out->p->n_budget = plan_budget_rows(in, &s, out->ilp->depth, &resident, out->p->budget);
  const char *over = plan_budget_over(out->p->budget, out->p->n_budget);
  if (over != NULL) return refuse(in, &s, out->ilp->depth, &resident, out, over);
  out->p->kv_bytes = s.kv;
  HF_TRY(fill_plan(in, o, out));
  HF_TRY(predict(in, o, out));
  HF_TRY(plan_slo_check(in, o, out));
  return add_extra(in, o, out);
}
