#include "planner/plan_drift.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "planner/plan_eval.h"

const char *const drift_name[DRIFT_N] = {"attn", "shared", "dexp", "cexp", "hand", "head"};

/* Beyond this a factor says that something else was measured than modelled. */
static const double MOST_DRIFT = 1000;
/* Fewer steps than this say nothing. */
enum { LEAST_STEPS = 4 };

/* Beside the stages: what the slowest other place takes, with which the layer's home works at once. */
enum { AWAY = DRIFT_N };

static double slowest_place(const layer_times *t) {
  double most = 0;
  for (int q = 0; q < STAGE_MAX_PLACES; q++) most = fmax(most, t->place_ns[q]);
  return most;
}

static double part_of(const layer_times *t, int stage) {
  switch (stage) {
    case DRIFT_ATTN: return t->attn_ns;
    case DRIFT_SHARED: return t->shared_ns;
    case DRIFT_DEXP: return t->dexp_ns;
    case DRIFT_CEXP: return t->cexp_ns;
    case AWAY: return slowest_place(t);
    default: return t->hand_ns;
  }
}

/* Predicted time of one stage for a mean, hence not whole, number of tokens. */
static double predicted(const stage_table *t, const popularity *pop, const uint8_t *placement, int stage, int layer,
                        double tokens, double context) {
  if (stage == DRIFT_HEAD) return stage_curve_at(&t->head, tokens);
  const uint8_t *dev = placement != NULL ? placement + (size_t)layer * (size_t)t->n_experts : NULL;
  int lo = (int)floor(tokens);
  if (lo < 1) lo = 1;
  layer_times a = stage_layer_times(t, pop, layer, lo, context, dev);
  double w = tokens - lo;
  if (w <= 0) return part_of(&a, stage);
  layer_times b = stage_layer_times(t, pop, layer, lo + 1, context, dev);
  return (1 - w) * part_of(&a, stage) + w * part_of(&b, stage);
}

static int stage_index(const char *name) {
  for (int i = 0; i < DRIFT_N; i++)
    if (strcmp(drift_name[i], name) == 0) return i;
  return -1;
}

/* A decode step with every factor found so far, and f on hand-over and fixed cost. */
static double step_with(const stage_table *t, const popularity *pop, const uint8_t *placement, double tokens, double context,
                        double f, const plan_drift *d) {
  double sum = f * t->step_fixed_ns + d->factor[DRIFT_HEAD] * stage_curve_at(&t->head, tokens);
  for (int l = 0; l < t->n_layers; l++) {
    double p[DRIFT_N];
    for (int s = 0; s < DRIFT_HEAD; s++) p[s] = d->factor[s] * predicted(t, pop, placement, s, l, tokens, context);
    if (!d->used[DRIFT_HAND]) p[DRIFT_HAND] *= f;
    double device = p[DRIFT_SHARED] + p[DRIFT_DEXP], cpu = p[DRIFT_HAND] + p[DRIFT_CEXP];
    double here = t->one_resource ? device + cpu : stage_overlap_ns(t, device, cpu);
    sum += p[DRIFT_ATTN] + fmax(here, predicted(t, pop, placement, AWAY, l, tokens, context));
  }
  return sum;
}

/* The factor at which the whole step takes what it took; by bisection, the sum does not fall with f. */
static void explain_step(const stage_table *t, const popularity *pop, const uint8_t *placement, double tokens, double context,
                         double step, plan_drift *d) {
  double lo = 0, hi = MOST_DRIFT, most = step_with(t, pop, placement, tokens, context, hi, d);
  if (most < step) {
    lo = hi;
    d->step_extra_ns = step - most;
  }
  for (int i = 0; i < 60 && lo < hi; i++) {
    double mid = 0.5 * (lo + hi);
    if (step_with(t, pop, placement, tokens, context, mid, d) < step) lo = mid;
    else hi = mid;
  }
  d->fixed_factor = hi;
}

/* Work of a decode step with all factors; *unseen: of it hand-over and fixed cost, which no stage shows. */
static double work_of_step(const stage_table *t, const popularity *pop, const uint8_t *placement, double tokens, double context,
                           const plan_drift *d, double *unseen) {
  double all = d->factor[DRIFT_HEAD] * stage_curve_at(&t->head, tokens);
  *unseen = t->step_fixed_ns * d->fixed_factor + d->step_extra_ns;
  for (int l = 0; l < t->n_layers; l++)
    for (int s = 0; s < DRIFT_HEAD; s++) {
      double ns = d->factor[s] * predicted(t, pop, placement, s, l, tokens, context);
      if (s == DRIFT_HAND && !d->used[s]) *unseen += ns * d->fixed_factor;
      else all += ns;
    }
  return all + *unseen;
}

void drift_compare(const stage_table *t, const popularity *pop, const uint8_t *placement, double context, const rec_stage *rows,
                   int n, plan_drift *d) {
  double measured[DRIFT_N] = {0}, expected[DRIFT_N] = {0}, step = 0, attn_tokens = 0, attn_steps = 0, seen = 0, most = 0;
  for (int s = 0; s < DRIFT_N; s++) d->factor[s] = 1;
  d->fixed_factor = 1;
  for (int i = 0; i < n; i++) {
    const rec_stage *r = &rows[i];
    if (strcmp(r->phase, "decode") != 0 || strcmp(r->source, "run") != 0 || r->steps < LEAST_STEPS) continue;
    double tokens = (double)r->tokens / (double)r->steps;
    if (strcmp(r->stage, "step") == 0) step = r->ns_sum / (double)r->steps;
    int s = stage_index(r->stage);
    if (s < 0 || (s != DRIFT_HEAD && (r->layer < 0 || r->layer >= t->n_layers))) continue;
    if (s == DRIFT_ATTN) {
      attn_tokens += (double)r->tokens;
      attn_steps += (double)r->steps;
    }
    seen += r->ns_sum / (double)r->steps;
    if (tokens > most) most = tokens;
    measured[s] += r->ns_sum;
    expected[s] += (double)r->steps * predicted(t, pop, placement, s, r->layer, tokens, context);
  }
  for (int s = 0; s < DRIFT_N; s++) {
    if (!(measured[s] > 0 && expected[s] > 0)) continue;
    double f = measured[s] / expected[s];
    d->used[s] = true;
    d->factor[s] = fmin(MOST_DRIFT, fmax(1 / MOST_DRIFT, f));
  }
  double tokens = attn_tokens > 0 ? attn_tokens / attn_steps : most, unseen = 0;
  bool explained = step > 0 && attn_tokens > 0;
  /* At depth 2 and more a step also waits for the others: it can only show that its own way is shorter than predicted. */
  explained = explained && (d->run.depth <= 1 || step_with(t, pop, placement, tokens, context, 1, d) > step);
  if (explained) explain_step(t, pop, placement, tokens, context, step, d);
  if (!(seen > 0)) return;
  double all = work_of_step(t, pop, placement, tokens, context, d, &unseen);
  d->measured_share = fmin(1, (seen + (explained ? unseen : 0)) / all);
}

/* One layer's measured curve against the closed form at the token counts its steps had, weighted by steps. */
static double layer_ratio(const popularity *pop, const rec_distinct *rows, int n, int layer, double sums[3]) {
  const double *p = pop->p + (size_t)layer * (size_t)pop->n_experts;
  double measured = 0, expected = 0, steps = 0;
  for (int i = 0; i < n; i++) {
    const rec_distinct *r = &rows[i];
    if (strcmp(r->phase, "decode") != 0 || r->layer != layer || r->tokens < 1) continue;
    measured += (double)r->sum;
    expected += (double)r->steps * cost_distinct_experts(p, pop->n_experts, r->tokens);
    steps += (double)r->steps;
  }
  sums[0] += measured;
  sums[1] += expected;
  sums[2] += steps;
  return steps >= LEAST_STEPS && measured > 0 && expected > 0 ? measured / expected : 1;
}

hf_status drift_distinct(const popularity *pop, const stage_table *t, const rec_distinct *rows, int n, plan_drift *d) {
  double sums[3] = {0, 0, 0};
  HF_TRY(hf_alloc(&d->distinct_ratio, (size_t)t->n_layers, sizeof *d->distinct_ratio, "distinct experts of a run"));
  for (int l = 0; l < t->n_layers; l++) d->distinct_ratio[l] = layer_ratio(pop, rows, n, l, sums);
  if (!(sums[2] > 0)) return HF_OK;
  d->distinct_measured = sums[0] / sums[2];
  d->distinct_predicted = sums[1] / sums[2];
  return HF_OK;
}

static void scale(stage_curve *c, double f) {
  for (int i = 0; i < c->n; i++) c->ns[i] *= f;
}

static void better_tag(stage_table *t, double share) {
  if (share < DRIFT_SCALED) return;
  db_tag tag = share >= DRIFT_MEASURED ? TAG_MEASURED : TAG_SCALED;
  for (int k = 0; k < (int)tag; k++)
    if (strcmp(t->tag, db_tag_name((db_tag)k)) == 0) return;
  snprintf(t->tag, sizeof t->tag, "%s", db_tag_name(tag));
}

void plan_drift_apply(const plan_drift *d, stage_table *t) {
  /* without stage times the count of experts touched is the best correction there is */
  bool by_rows = !d->used[DRIFT_CEXP] && !d->used[DRIFT_DEXP] && d->distinct_ratio != NULL;
  double hand = d->used[DRIFT_HAND] ? d->factor[DRIFT_HAND] : d->fixed_factor;
  for (int l = 0; l < t->n_layers; l++) {
    stage_layer *y = &t->layer[l];
    double expert_rows = by_rows ? d->distinct_ratio[l] : 1;
    scale(&y->attn, d->factor[DRIFT_ATTN]);
    y->attn_seq_ns *= d->factor[DRIFT_ATTN];
    y->attn_ctx_ns *= d->factor[DRIFT_ATTN];
    y->attn_seq_ctx_ns *= d->factor[DRIFT_ATTN];
    scale(&y->shared, d->factor[DRIFT_SHARED]);
    scale(&y->dexp, d->factor[DRIFT_DEXP] * expert_rows);
    y->dexp_fixed_ns *= d->factor[DRIFT_DEXP];
    scale(&y->cexp, d->factor[DRIFT_CEXP] * expert_rows);
    y->cexp_fixed_ns *= d->factor[DRIFT_CEXP];
    y->hand_ns *= hand;
    y->hand_tok_ns *= hand;
    for (int q = 1; t->place != NULL && q <= t->n_devices + t->n_remotes; q++)
      scale(&stage_place_of(t, l, q)->exp, (q <= t->n_devices ? d->factor[DRIFT_DEXP] : 1) * expert_rows);
  }
  scale(&t->head, d->factor[DRIFT_HEAD]);
  t->step_fixed_ns = t->step_fixed_ns * d->fixed_factor + d->step_extra_ns;
  better_tag(t, d->measured_share);
}

void plan_drift_free(plan_drift *d) {
  if (d == NULL) return;
  plan_free(d->old);
  free(d->old_placement);
  free(d->distinct_ratio);
  free(d);
}

/* Mean context of the run's decode steps: prompt and half the output of its requests. */
static hf_status run_context(const plan_inputs *in, double *out) {
  rec_request *q = NULL;
  int n = 0;
  HF_TRY(db_request_list(in->d, in->req.from_run, &q, &n));
  double sum = 0, weight = 0;
  for (int i = 0; i < n; i++) {
    sum += q[i].output_tokens * (q[i].prompt_tokens + 0.5 * q[i].output_tokens);
    weight += q[i].output_tokens;
  }
  *out = weight > 0 ? sum / weight : in->mean_context;
  free(q);
  return HF_OK;
}

static hf_status read_run(const plan_inputs *in, const stage_table *t, plan_drift *d) {
  rec_stage *stages = NULL;
  rec_distinct *distinct = NULL;
  int n = 0, n_distinct = 0;
  double context = 0;
  hf_status st = HF_OK;
  HF_GO(done, db_run_get(in->d, in->req.from_run, &d->run));
  if (d->run.plan_id > 0) {
    HF_GO(done, db_plan_get(in->d, d->run.plan_id, &d->old));
    st = plan_placement(d->old, t->n_layers, t->n_experts, &d->old_placement);
    for (int i = 0; st == HF_OK && i < t->n_layers * t->n_experts; i++) /* places that are gone */
      if (d->old_placement[i] >= ilp_n_places(t)) d->old_placement[i] = 0;
    if (st != HF_OK) {
      hf_note(st, "option --from-run: run %lld", (long long)in->req.from_run);
      goto done;
    }
  }
  HF_GO(done, run_context(in, &context));
  HF_GO(done, db_distinct_list(in->d, in->req.from_run, &distinct, &n_distinct));
  HF_GO(done, drift_distinct(in->pop, t, distinct, n_distinct, d));
  HF_GO(done, db_stage_list(in->d, in->req.from_run, &stages, &n));
  bool same_device = strcmp(d->run.gpu, in->gpu.text) == 0;
  drift_compare(t, in->pop, d->old_placement, context, stages, same_device ? n : 0, d);
done:
  free(stages);
  free(distinct);
  return st;
}

hf_status plan_drift_of_run(const plan_inputs *in, const stage_table *t, plan_drift **out) {
  plan_drift *d = NULL;
  HF_TRY(hf_alloc(&d, 1, sizeof *d, "drift of a run"));
  hf_status st = read_run(in, t, d);
  if (st != HF_OK) plan_drift_free(d);
  else *out = d;
  return st;
}
