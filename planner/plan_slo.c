/* plan_slo.c: service levels: as rows of the placement program, then by the simulated percentiles. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "planner/plan_make.h"

enum { TIGHTENED = 3 };

bool plan_slo_within(const planned *p, double ttft_p95_s, double tpot_p95_s) {
  return (p->slo_ttft_s <= 0 || ttft_p95_s <= p->slo_ttft_s) && (p->slo_tpot_s <= 0 || tpot_p95_s <= p->slo_tpot_s);
}

ilp_limits plan_slo_limits(const plan_inputs *in, const planned_options *o, const ilp_prefill *f) {
  ilp_limits l = {0};
  if (o->slo_report || o->no_simulation) return l;
  if (o->slo_tpot_s > 0 && in->req.output_tokens > 1) l.step_ns = 1e9 * o->slo_tpot_s;
  if (!(o->slo_ttft_s > 0) || f->load.tokens < 1) return l;
  l.ttft_ns = 1e9 * o->slo_ttft_s;
  /* Of a chunk that holds the prompts of several users a prompt's share: no prompt's chunks, the last one shorter, take less. */
  l.chunks = (double)in->req.prompt_tokens / f->load.tokens;
  return l;
}

/* How many times over its limit a percentile is; at least 1. */
static double over(double p95_s, double limit_s) {
  return limit_s > 0 ? fmax(1, p95_s / limit_s) : 1;
}

/* The limits narrowed by what p->ilp is over them under sustained load; *within: it is not. */
static hf_status narrow(const plan_inputs *in, const planned *p, const ilp_limits *asked, ilp_limits *to, bool *within) {
  sustained_result load;
  const ilp_evaluation *e = &p->ilp->evaluation;
  HF_TRY(plan_sustain(in, p, p->ilp, 0, &load));
  *within = plan_slo_within(p, load.ttft_s.p95, load.tpot_s.p95);
  if (asked->step_ns > 0) to->step_ns = fmin(to->step_ns, e->step_ns / over(load.tpot_s.p95, p->slo_tpot_s));
  if (asked->ttft_ns > 0) to->ttft_ns = fmin(to->ttft_ns, e->ttft_ns / over(load.ttft_s.p95, p->slo_ttft_s));
  return HF_OK;
}

hf_status plan_slo_tighten(const plan_inputs *in, const ilp_options *o, planned *p, bool *changed) {
  const ilp_limits asked = p->eval->limit;
  ilp_result *first = p->ilp;
  *changed = false;
  if (!(asked.step_ns + asked.ttft_ns > 0)) return HF_OK;
  ilp_problem prob = plan_eval_problem(p->eval, 1u << (first->depth - 1));
  ilp_limits limit = asked;
  hf_status st = HF_OK;
  for (int i = 0; i <= TIGHTENED && st == HF_OK; i++) {
    bool within = false;
    ilp_limits tried = limit;
    st = narrow(in, p, &asked, &limit, &within);
    if (st != HF_OK || i == TIGHTENED || within) {
      if (st != HF_OK || !within || p->ilp == first) break;
      p->by_depth[first->depth - 1] = p->ilp->by_depth[first->depth - 1];
      p->eval->limit = tried;
      ilp_result_free(first);
      *changed = true;
      return HF_OK;
    }
    ilp_result *r = NULL;
    prob.limit = limit;
    st = ilp_solve(&prob, o, &r);
    if (st != HF_OK) break;
    p->seconds += r->seconds;
    if (p->ilp != first) ilp_result_free(p->ilp);
    p->ilp = r;
  }
  if (st == HF_NO) { /* not to be had: the plan stays as it was */
    hf_clear_error();
    st = HF_OK;
  }
  if (p->ilp != first) ilp_result_free(p->ilp);
  p->ilp = first;
  return st;
}

static bool meets(const planned *p) {
  return plan_slo_within(p, p->sustained.ttft_s.p95, p->sustained.tpot_s.p95);
}

/* The same request, changed in one thing; 0 = as it is. */
typedef struct {
  int64_t users, prompt_tokens;
  int chunk_tokens;
} change;

/* Whether the changed request is within the limits, and what it then gives; false also when it cannot be planned. */
static bool meets_with(const plan_inputs *in, const planned_options *o, change c, sustained_result *load) {
  plan_inputs other = *in;
  planned p;
  planned_options quick = *o;
  quick.quick = quick.no_interval = quick.slo_report = true;
  quick.give_up = 1;
  other.pop = NULL;
  if (c.users > 0) other.req.users = c.users;
  if (c.prompt_tokens > 0) other.req.prompt_tokens = c.prompt_tokens;
  if (c.chunk_tokens > 0) other.req.chunk_tokens = c.chunk_tokens;
  other.mean_context = (double)other.req.prompt_tokens + 0.5 * (double)other.req.output_tokens;
  if (other.req.depth > other.req.users) other.req.depth = other.req.users;
  p = (planned){0};
  bool good = plan_inputs_limit_chunk(&other) == HF_OK && plan_make(&other, &quick, &p) == HF_OK && meets(&p);
  if (good) *load = p.sustained;
  hf_clear_error();
  planned_free(&p);
  popularity_free(other.pop);
  return good;
}

/* A remedy with what it gives, of each limit asked for. */
static void add_remedy(planned *out, const sustained_result *then, const char *text) {
  char ttft[40] = "", tpot[40] = "";
  if (out->slo_ttft_s > 0) snprintf(ttft, sizeof ttft, "TTFT p95 %.3g s", then->ttft_s.p95);
  if (out->slo_tpot_s > 0) snprintf(tpot, sizeof tpot, "TPOT p95 %.3g s", then->tpot_s.p95);
  snprintf(out->remedy[out->n_remedies++], 200, "%.100s (%s%s%s)", text, ttft, ttft[0] != '\0' && tpot[0] != '\0' ? ", " : "",
           tpot);
}

/* The most users below those asked for, or (users false) the longest prompts in sixteenths, that meet the limits; 0: none. */
static int64_t most_that_meets(const plan_inputs *in, const planned_options *o, bool users, sustained_result *load) {
  int64_t all = users ? in->req.users : in->req.prompt_tokens, grain = users || all < 32 ? 1 : all / 16;
  int64_t lo = 0, hi = all / grain;
  while (hi - lo > 1) {
    int64_t mid = lo + (hi - lo) / 2;
    if (meets_with(in, o, users ? (change){.users = mid} : (change){.prompt_tokens = mid * grain}, load)) lo = mid;
    else hi = mid;
  }
  return lo * grain;
}

/* Long chunks read experts once for more tokens of prompts; short ones hold up those who decode for less long. The nearest that meets. */
static int chunk_that_meets(const plan_inputs *in, const planned_options *o, bool longer, sustained_result *load) {
  for (int chunk = in->chunk_tokens; longer ? chunk < PLAN_CHUNK_MOST : chunk > PLAN_CHUNK_LEAST;) {
    chunk = longer ? 2 * chunk : chunk / 2;
    if (chunk > PLAN_CHUNK_MOST) chunk = PLAN_CHUNK_MOST;
    if (meets_with(in, o, (change){.chunk_tokens = chunk}, load)) return chunk;
  }
  return 0;
}

/* Found by solving again with one thing changed. */
static void solve_remedies(const plan_inputs *in, const planned_options *o, bool tpot, planned *out) {
  sustained_result load;
  char text[160];
  int64_t users = most_that_meets(in, o, true, &load);
  if (users > 0) {
    snprintf(text, sizeof text, "at most %lld user%s at once", (long long)users, users == 1 ? "" : "s");
    add_remedy(out, &load, text);
  }
  int64_t prompt = most_that_meets(in, o, false, &load);
  if (prompt > 0) {
    snprintf(text, sizeof text, "prompts of at most %lld tokens", (long long)prompt);
    add_remedy(out, &load, text);
  }
  int chunk = chunk_that_meets(in, o, !tpot, &load);
  if (chunk > 0) {
    snprintf(text, sizeof text, "prompt chunks of %d tokens instead of %d (--chunk-tokens)", chunk, in->chunk_tokens);
    add_remedy(out, &load, text);
  }
}

/* What no placement at any depth tried goes below with this chunk; 0 where that is not known. */
static double least_step_s(const planned *p, int chunk) {
  double least = p->ilp->bound_ns;
  if (p->refusal.step_least_ns > 0) return 1e-9 * p->refusal.step_least_ns;
  for (int d = 0; d < ILP_MAX_DEPTH; d++)
    if (p->depth_chunk[d] == chunk && (p->by_depth[d].state == ILP_DEPTH_SOLVED || p->by_depth[d].state == ILP_DEPTH_PRUNED))
      least = fmin(least, p->by_depth[d].bound_ns);
  return p->eval->prefill.weight > 0 ? 0 : 1e-9 * least;
}

/* Why a limit is missed: proven out of reach, or by waiting, which no row knows: then what the request takes when it waits for nobody. */
static void reason(const plan_inputs *in, const planned *out, bool tpot, char *to, size_t n) {
  char proven[64] = "(proven)";
  double step = least_step_s(out, in->chunk_tokens), chunks = 1e-9 * out->ilp->evaluation.ttft_ns,
         own = 1e-9 * out->ilp->evaluation.step_ns;
  to[0] = '\0';
  if (in->req.chunk_tokens == 0) snprintf(proven, sizeof proven, "(proven, for prompts in chunks of %d)", in->chunk_tokens);
  if (tpot && step > out->slo_tpot_s)
    snprintf(to, n, ", which no placement reaches here: a step takes at least %.4g s %s", step, proven);
  else if (!tpot && 1e-9 * out->refusal.ttft_least_ns > out->slo_ttft_s)
    snprintf(to, n, ", which no placement reaches here: the chunks of a prompt take at least %.4g s %s",
             1e-9 * out->refusal.ttft_least_ns, proven);
  else if (out->refusal.together && out->refusal.proven) snprintf(to, n, "; no placement keeps both limits at once %s", proven);
  else if (!tpot && chunks > 0 && chunks <= out->slo_ttft_s)
    snprintf(to, n, ": the chunks of a prompt alone take %.3g s, the rest is waiting for the prompts and steps of others",
             chunks);
  else if (tpot && own <= out->slo_tpot_s)
    snprintf(to, n, ": a step in which all decode takes %.3g s, the rest is waiting for prompts of others", own);
}

void plan_beside_limit_text(double v, double limit, char out[24]) {
  for (int digits = 3; digits <= 17; digits++) {
    snprintf(out, 24, "%.*g", digits, v);
    double shown = strtod(out, NULL);
    if ((shown > limit) == (v > limit) && (shown < limit) == (v < limit)) return;
  }
}

static void missed(const plan_inputs *in, const planned *out, bool tpot, char *to, size_t n) {
  double p95 = tpot ? out->sustained.tpot_s.p95 : out->sustained.ttft_s.p95, limit = tpot ? out->slo_tpot_s : out->slo_ttft_s;
  char why[200], value[24];
  reason(in, out, tpot, why, sizeof why);
  plan_beside_limit_text(p95, limit, value);
  snprintf(to, n, "%s p95 %s s under sustained load, asked for %.6g s%s", tpot ? "TPOT" : "TTFT", value, limit, why);
}

/* Three digits, rounded up: whoever asks for what is printed gets it. */
static void enough_text(double v, char out[24]) {
  snprintf(out, 24, "%.3g", v);
  if (strtod(out, NULL) < v) snprintf(out, 24, "%.3g", v + pow(10, floor(log10(v)) - 2));
}

/* What all limits that are missed ask of speed, or of whoever set them. */
static void demand_remedies(planned *out, bool tpot, bool ttft) {
  const sustained_result *p = &out->sustained;
  char faster[2][24], limit[2][24], both[60] = "";
  enough_text(tpot ? p->tpot_s.p95 / out->slo_tpot_s : 1, faster[0]);
  enough_text(ttft ? p->ttft_s.p95 / out->slo_ttft_s : 1, faster[1]);
  enough_text(tpot ? p->tpot_s.p95 : 1, limit[0]);
  enough_text(ttft ? p->ttft_s.p95 : 1, limit[1]);
  if (tpot && ttft) snprintf(both, sizeof both, " and prompts %s times", faster[1]);
  snprintf(out->remedy[out->n_remedies++], 200, "%s %s times%s as fast (binding: %s)", tpot ? "decode steps" : "prompts",
           faster[tpot ? 0 : 1], both, out->p->binding);
  if (tpot && ttft)
    snprintf(out->remedy[out->n_remedies++], 200, "limits of %s s for TPOT and %s s for TTFT", limit[0], limit[1]);
  else snprintf(out->remedy[out->n_remedies++], 200, "a limit of %s s for %s", limit[tpot ? 0 : 1], tpot ? "TPOT" : "TTFT");
}

/* HF_NO with what would make it feasible, and by how much. */
hf_status plan_slo_check(const plan_inputs *in, const planned_options *o, planned *out) {
  if (o->slo_report || o->no_simulation || meets(out)) return HF_OK;
  const sustained_result *p = &out->sustained;
  char what[2][360];
  bool tpot = o->slo_tpot_s > 0 && p->tpot_s.p95 > o->slo_tpot_s, ttft = o->slo_ttft_s > 0 && p->ttft_s.p95 > o->slo_ttft_s;
  missed(in, out, tpot, what[0], sizeof what[0]);
  missed(in, out, false, what[1], sizeof what[1]);
  out->n_remedies = 0;
  solve_remedies(in, o, tpot, out);
  demand_remedies(out, tpot, ttft);
  return hf_fail(HF_NO, "the service level is not met: %s%s%s; possible: %s", what[0], tpot && ttft ? "; and " : "",
                 tpot && ttft ? what[1] : "", out->remedy[0]);
}

/* One row: what the program allows, what the placement takes, whether that is its edge, and what a wider limit would be worth. */
static void add_row(const planned *p, json *rows, const char *name, double asked_s, double row_ns, double value_ns, double price,
                    double least_ns, double p95_s) {
  const ilp_result *r = p->ilp;
  if (!(asked_s > 0)) return;
  json *o = json_add_object(rows, NULL);
  json_add_str(o, "row", name);
  json_add_num(o, "limit_s", asked_s);
  json_add_num(o, "p95_s", p95_s);
  json_add_bool(o, "met", p95_s <= asked_s);
  if (value_ns > 0) json_add_num(o, "value_s", 1e-9 * value_ns);
  if (row_ns > 0) json_add_num(o, "row_limit_s", 1e-9 * row_ns);
  if (least_ns > 0) json_add_num(o, "least_s", 1e-9 * least_ns);
  json_add_bool(o, "binds", price > 0);
  json_add_num(o, "multiplier", price);
  /* one percent more of the limit; the objective is what a wider limit lowers */
  json_add_num(o, "tok_per_s_per_percent", r->tok_per_s * price * 0.01 * row_ns / r->objective_ns);
}

void plan_slo_json(const planned *p, json *extra) {
  if (!(p->slo_ttft_s > 0) && !(p->slo_tpot_s > 0)) return;
  const ilp_depth_result *by = &p->ilp->by_depth[p->ilp->depth - 1];
  const ilp_evaluation *e = &p->ilp->evaluation;
  const ilp_limits *l = &p->eval->limit;
  json *o = json_add_object(extra, "slo"), *rows = json_add_array(o, "rows");
  json_add_bool(o, "met", meets(p));
  add_row(p, rows, "ttft", p->slo_ttft_s, l->ttft_ns, e->ttft_ns, by->ttft_price, p->refusal.ttft_least_ns,
          p->sustained.ttft_s.p95);
  add_row(p, rows, "tpot", p->slo_tpot_s, l->step_ns, e->step_ns, by->step_price, p->refusal.step_least_ns,
          p->sustained.tpot_s.p95);
  json_add_str(o, "definitions",
               "value_s: chunks of a prompt one after another, or one decode step; p95_s: under sustained load, waiting "
               "included; multiplier: "
               "seconds of the objective per second that the row's limit is wider");
}
