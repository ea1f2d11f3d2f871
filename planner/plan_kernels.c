/* plan_kernels.c: the candidates measured fastest here, by number of tokens (plan.kernel). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/plan_make.h"

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

static const rec_kernel_point *point_at(const contest *c, int tokens, const char *candidate) {
  const rec_kernel_point *best = NULL;
  for (int i = 0; i < c->r->n_kernel; i++) {
    const rec_kernel_point *k = &c->r->kernel[i];
    if (k->tokens != tokens || !same_conditions(c, k) || (candidate && strcmp(k->candidate, candidate) != 0)) continue;
    if (best == NULL || k->ns < best->ns) best = k;
  }
  return best;
}

/* The one that is least behind over all numbers of tokens; it must have been measured at the fewest. */
static const char *all_round(const contest *c, const int *tokens, int n) {
  const char *best = NULL;
  double least = INFINITY;
  for (int i = 0; i < c->r->n_kernel; i++) {
    const rec_kernel_point *k = &c->r->kernel[i];
    if (k->tokens != tokens[0] || !same_conditions(c, k)) continue;
    double behind = 0;
    int counted = 0;
    for (int t = 0; t < n; t++) {
      const rec_kernel_point *own = point_at(c, tokens[t], k->candidate);
      if (own == NULL) continue;
      behind += log(own->ns / point_at(c, tokens[t], NULL)->ns);
      counted++;
    }
    if (behind / counted >= least) continue;
    least = behind / counted;
    best = k->candidate;
  }
  return best;
}

/* Another candidate sums in another order, so that last bits change with the number of tokens that share a step: it has to be worth it, by more than
 * what the samples of either scatter. */
static const char *best_candidate(const contest *c, int tokens, const char *usual) {
  static const double WORTH = 0.95;
  const rec_kernel_point *best = point_at(c, tokens, NULL), *own = point_at(c, tokens, usual);
  return own != NULL && (best->ns > WORTH * own->ns || best->ns_high > own->ns_low) ? usual : best->candidate;
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
  const char *usual = all_round(&c, tokens, n);
  plan_kernel *last = NULL;
  for (int i = 0; i < n && p->n_kernels < PLAN_MAX_KERNELS; i++) {
    const char *name = best_candidate(&c, tokens[i], usual);
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

hf_status plan_choose_kernels(const plan_inputs *in, plan *p) {
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
