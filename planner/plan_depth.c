/* plan_depth.c: how many micro-batches: each depth that could win is placed and simulated, the most tokens delivered win. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "planner/plan_make.h"

static const double QUICK_GAP = 0.005;
enum { TOLD_DEVICES = 2 };

/* What takes a request longer than the best by more than this, waiting left out, is not simulated: a depth, a chunk, a chunk in searches. */
static const double DEPTH_SLACK = 1.25, CHUNK_SLACK = 1.25, SEARCH_SLACK = 1.2;
/* A chunk that delivers less than this share of the best at the depth chosen is not tried at those beside it. */
static const double BESIDE = 0.9;
static const double FULL_GAP = 1e-5; /* proven so far, a plan is not searched on */

static uint32_t depths_to_try(const plan_inputs *in) {
  if (in->req.depth > 0) return 1u << (in->req.depth - 1);
  int64_t most = in->req.users < PLAN_DEPTHS ? in->req.users : PLAN_DEPTHS;
  return in->gpu.kind == GPU_NONE ? 1u : (1u << most) - 1;
}

/* One depth under sustained load; kept for the prediction when it is the one chosen. */
typedef struct {
  sustained_result load;
  double rate; /* delivered; 0: given up */
  bool within; /* the limits; true without */
  bool near;   /* as of planned */
  double near_gain;
} trial;

static hf_status try_depth(const plan_inputs *in, const planned *p, const ilp_result *r, bool search, trial *t) {
  *t = (trial){0};
  HF_TRY(plan_sustain(in, p, r, search ? PLAN_NEARLY : 0, &t->load));
  t->rate = t->load.given_up ? 0 : t->load.tok_per_s;
  t->within = plan_slo_within(p, t->load.ttft_s.p95, t->load.tpot_s.p95);
  return HF_OK;
}

static void keep_trial(planned *p, const trial *t) {
  p->sustained = t->load;
  p->near = t->near;
  p->near_gain = t->near_gain;
}

/* Limits first; of two depths on the same side of them the one that delivers clearly more. */
static bool better(const trial *t, const trial *than) {
  return t->within != than->within ? t->within : t->rate > PLAN_DEPTH_MARGIN * than->rate;
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
    if (st == HF_OK && better(&other, t)) {
      st = ilp_result_take(r, x);
      other.near = true;
      other.near_gain = t->rate > 0 ? other.rate / t->rate - 1 : 0; /* 0: the other was given up */
      *t = other;
      p->by_depth[r->depth - 1].objective_ns = r->objective_ns;
    }
  }
  ilp_result_free(x);
  return st;
}

/* Whether a request at this objective comes near one at the least. */
static bool could_win(const plan_inputs *in, const planned *p, double step_ns, double least_ns) {
  double prompts = p->prompt_ns * (double)in->req.users / (double)in->req.output_tokens; /* per step */
  if (p->eval->prefill.weight > 0) prompts = 0;                                          /* they are in the objective */
  return prompts + step_ns <= DEPTH_SLACK * (prompts + least_ns);
}

/* Where one depth must do: the objective's, unless micro-batches that wait in turn (one simulation tells) make it slower than depth 1 is, which
 * knows no waiting: its objective is its rate. */
static hf_status fall_back_to_1(const plan_inputs *in, const ilp_options *io, planned *p) {
  ilp_depth_state state = p->by_depth[0].state;
  sim_result sim;
  double stretch, alone;
  if (p->ilp->depth == 1 || (state != ILP_DEPTH_SOLVED && state != ILP_DEPTH_PRUNED)) return HF_OK;
  alone = (double)in->req.users * 1e9 / p->by_depth[0].objective_ns;
  if (!could_win(in, p, p->by_depth[0].objective_ns, p->ilp->objective_ns)) return HF_OK;
  HF_TRY(plan_simulate(in, p, p->ilp->on_device, p->ilp->depth, &sim, &stretch));
  if (alone <= PLAN_DEPTH_MARGIN * sim.decode_tok_per_s / stretch) return HF_OK;
  ilp_problem prob = plan_eval_problem(p->eval, 1);
  ilp_result *r = NULL;
  HF_TRY(ilp_solve(&prob, io, &r));
  p->seconds += r->seconds;
  p->by_depth[0] = r->by_depth[0];
  ilp_result_free(p->ilp);
  p->ilp = r;
  return HF_OK;
}

/* Room for experts is counted for one depth; what another one's buffers take may be over it. */
static bool over_budget(const plan_inputs *in, const plan_sizes *s, const ilp_result *r) {
  plan_budget rows[PLAN_MAX_BUDGET];
  plan_resident resident = plan_resident_of(in, &r->evaluation);
  return plan_budget_over(rows, plan_budget_rows(in, s, r->depth, &resident, rows)) != NULL;
}

/* Placed with the rows of the limits; where none is found that keeps them, without: that tells how far off they are. *refusal: of these rows. The
 * depths of the mask that are over the budget are left out, but for the shallowest. */
static hf_status place(const plan_inputs *in, const plan_sizes *s, planned *p, uint32_t depths, ilp_options io,
                       ilp_refusal *refusal, ilp_result **out) {
  ilp_problem prob = plan_eval_problem(p->eval, depths);
  *refusal = (ilp_refusal){0};
  io.refusal = refusal;
  hf_status st = ilp_solve(&prob, &io, out);
  if (st == HF_NO && refusal->limits) {
    hf_clear_error();
    prob.limit = p->eval->limit = (ilp_limits){0};
    io.refusal = NULL;
    st = ilp_solve(&prob, &io, out);
  }
  HF_TRY(st);
  p->seconds += (*out)->seconds;
  uint32_t shallower = depths & ((1u << ((*out)->depth - 1)) - 1);
  if (shallower == 0 || !over_budget(in, s, *out)) return HF_OK;
  ilp_result_free(*out);
  *out = NULL;
  return place(in, s, p, shallower, io, refusal, out);
}

/* With the chunk that is set, placed at one depth; it takes the place of *out where it is better than *t. *rate: delivered so, 0 where it has no
 * room. */
static hf_status try_placed(const plan_inputs *in, const plan_sizes *s, planned *p, const ilp_options *io, bool search, int depth,
                            ilp_refusal *refusal, ilp_result **out, trial *t, double *rate) {
  ilp_limits limit = p->eval->limit;
  ilp_refusal refused;
  ilp_result *r = NULL;
  trial now = {0};
  hf_status st = place(in, s, p, 1u << (depth - 1), *io, &refused, &r);
  if (st == HF_OK && !over_budget(in, s, r)) st = try_depth(in, p, r, search, &now);
  if (st == HF_NO) hf_clear_error(); /* no room at this depth */
  *rate = now.rate;
  if (st == HF_OK && now.load.requests + now.load.given_up > 0 && better(&now, t)) {
    ilp_result *worse = *out;
    *out = r;
    r = worse;
    *refusal = refused;
    *t = now;
  } else {
    p->eval->limit = limit;
  }
  ilp_result_free(r);
  return st == HF_NO ? HF_OK : st;
}

/* Another chunk, at the plan's depth and, where that comes near and this is no search, at those beside it; it stays where it delivers clearly
 * more, or keeps limits that were missed. */
static hf_status try_chunk(plan_inputs *in, const planned_options *o, const ilp_options *io, bool search, int chunk_tokens,
                           plan_sizes *s, planned *p, trial *best) {
  int at = p->ilp->depth, before = in->chunk_tokens;
  ilp_limits limit = p->eval->limit;
  ilp_refusal refusal = {0};
  ilp_result *r = NULL;
  double rate = INFINITY;
  hf_status st = plan_set_chunk(in, o, chunk_tokens, s, p->eval);
  for (int i = 0; i < (search ? 1 : 3) && st == HF_OK; i++) {
    int depth = i == 0 ? at : i == 1 ? at - 1 : at + 1;
    if (i == 1 && r == NULL && rate < BESIDE * best->rate) break;
    if (depth < 1 || depth > ILP_MAX_DEPTH || (depths_to_try(in) >> (depth - 1) & 1) == 0) continue;
    st = try_placed(in, s, p, io, search, depth, &refusal, &r, best, &rate);
  }
  if (st == HF_OK && r != NULL) {
    ilp_result_free(p->ilp);
    p->ilp = r;
    p->refusal = refusal;
    p->by_depth[r->depth - 1] = r->by_depth[r->depth - 1];
    p->depth_tok_per_s[r->depth - 1] = best->rate;
    p->depth_chunk[r->depth - 1] = chunk_tokens;
    return HF_OK;
  }
  ilp_result_free(r);
  HF_TRY(st);
  HF_TRY(plan_set_chunk(in, o, before, s, p->eval));
  p->eval->limit = limit;
  return HF_OK;
}

/* The chunk was chosen by an estimate that knows no waiting: others that come near the best by it are simulated, too. */
static hf_status try_chunks(plan_inputs *in, const planned_options *o, const ilp_options *io, bool search, plan_sizes *s,
                            planned *p, trial *best) {
  double least = INFINITY, alone = INFINITY;
  int first = in->chunk_tokens;
  for (int i = 0; i < p->n_chunks; i++) {
    least = fmin(least, p->chunk_ns[i]);
    alone = fmin(alone, p->chunk_alone_ns[i]);
  }
  for (int i = 0; i < p->n_chunks; i++) {
    bool near = p->chunk_ns[i] <= (search ? SEARCH_SLACK : CHUNK_SLACK) * least ||
                (!search && p->chunk_alone_ns[i] <= CHUNK_SLACK * alone);
    bool halved = in->chunk_most % p->chunk[i] == 0; /* searches leave out what is between the halves of the longest */
    if (p->chunk[i] != first && near && (halved || !search)) HF_TRY(try_chunk(in, o, io, search, p->chunk[i], s, p, best));
  }
  return HF_OK;
}

/* One more depth; it stays where it is better than *best. */
static hf_status try_other_depth(const plan_inputs *in, const plan_sizes *s, planned *p, const ilp_options *io, bool search,
                                 int depth, trial *best) {
  ilp_problem prob = plan_eval_problem(p->eval, 1u << (depth - 1));
  ilp_result *r = NULL;
  trial t = {0};
  hf_status st = ilp_solve(&prob, io, &r);
  if (st == HF_NO) { /* the limits cannot be kept, or this depth has no room with the chunk that is set now */
    hf_clear_error();
    return HF_OK;
  }
  HF_TRY(st);
  p->seconds += r->seconds;
  p->depth_chunk[depth - 1] = in->chunk_tokens;
  p->by_depth[depth - 1] = r->by_depth[depth - 1]; /* the search over all depths may have stopped before it was proven */
  if (!over_budget(in, s, r)) {
    st = try_depth(in, p, r, search, &t);
    if (st == HF_OK) st = try_near(in, p, io, search, r, &t);
    if (st == HF_OK) p->depth_tok_per_s[depth - 1] = t.rate;
    if (st == HF_OK && better(&t, best)) {
      ilp_result *worse = p->ilp;
      *best = t;
      p->ilp = r;
      r = worse;
    }
  }
  ilp_result_free(r);
  return st;
}

/* All depths that come near the best so far, but for the one that is placed. */
static hf_status try_depths(const plan_inputs *in, const plan_sizes *s, planned *p, const ilp_options *io, bool search,
                            trial *best) {
  double least = p->ilp->objective_ns;
  int first = p->ilp->depth;
  for (int d = 1; d <= ILP_MAX_DEPTH; d++) {
    ilp_depth_state state = p->by_depth[d - 1].state;
    if (d == first || (state != ILP_DEPTH_SOLVED && state != ILP_DEPTH_PRUNED)) continue;
    if (could_win(in, p, p->by_depth[d - 1].objective_ns, least)) HF_TRY(try_other_depth(in, s, p, io, search, d, best));
  }
  return HF_OK;
}

static hf_status compare_depths(plan_inputs *in, const planned_options *o, const ilp_options *io, plan_sizes *s, planned *p) {
  bool search = o->slo_report && o->give_up > 0, changed = false;
  int chunk = in->chunk_tokens;
  trial best;
  HF_TRY(try_depth(in, p, p->ilp, search, &best));
  HF_TRY(try_near(in, p, io, search, p->ilp, &best));
  p->depth_tok_per_s[p->ilp->depth - 1] = best.rate;
  HF_TRY(try_depths(in, s, p, io, search, &best));
  if (!o->no_chunks) HF_TRY(try_chunks(in, o, io, search, s, p, &best));
  if (in->chunk_tokens != chunk && !search)
    HF_TRY(try_depths(in, s, p, io, search, &best)); /* another depth may suit the other chunk */
  keep_trial(p, &best);
  if (best.within || o->slo_report) return HF_OK;
  HF_TRY(plan_slo_tighten(in, io, p, &changed));
  if (!changed) return HF_OK;
  HF_TRY(try_depth(in, p, p->ilp, search, &best));
  p->depth_tok_per_s[p->ilp->depth - 1] = best.rate;
  keep_trial(p, &best);
  return HF_OK;
}

/* The objective is what limits a decode step in the long run; the simulation knows prompts and the order of things too. So every depth at which a
 * request comes near the best is simulated as well, and what is delivered decides; gap and bound are those of the depth chosen. */
hf_status plan_choose_depth(plan_inputs *in, const planned_options *o, plan_sizes *s, planned *p) {
  /* What is told to people is searched as plan searches, so that one question has one answer; on many devices that takes seconds. */
  bool told = o->compare_depths && o->give_up == 0 && o->quick_gap == 0 && (o->search_fully || in->gpus.n <= TOLD_DEVICES);
  bool quick = o->quick && !told;
  const ilp_options io = {.quick = quick, .gap_target = quick ? (o->quick_gap > 0 ? o->quick_gap : QUICK_GAP) : FULL_GAP};
  HF_TRY(place(in, s, p, depths_to_try(in), io, &p->refusal, &p->ilp));
  memcpy(p->by_depth, p->ilp->by_depth, sizeof p->by_depth);
  for (int d = 0; d < ILP_MAX_DEPTH; d++) p->depth_chunk[d] = in->chunk_tokens;
  if (o->no_simulation) return HF_OK;
  if (o->quick && !o->compare_depths) return fall_back_to_1(in, &io, p);
  return compare_depths(in, o, &io, s, p);
}
