/* popularity.c: how often each expert is chosen: assumed, from a census, or from a run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cost/cost.h"

hf_status popularity_uniform(const model_config *c, popularity **out) {
  popularity *p = NULL;
  HF_TRY(popularity_new(c->n_layers, c->n_experts, &p));
  for (int l = 0; l < c->n_layers; l++)
    for (int e = 0; c->layer_is_moe[l] && e < c->n_experts; e++)
      p->p[(size_t)l * (size_t)c->n_experts + (size_t)e] = (double)c->top_k / c->n_experts;
  snprintf(p->source, sizeof p->source, "uniform");
  *out = p;
  return HF_OK;
}

/* p = min(1, f * w) with f chosen so that the sum is top_k: the heaviest are fixed at 1 until the rest fits below. */
static void scale_to_top_k(const double *w, int n, int top_k, double *p) {
  double factor = 0;
  for (int full = 0; full <= top_k; full++) {
    double rest = 0;
    int above = 0;
    for (int e = 0; e < n; e++) {
      bool is_full = factor > 0 && w[e] * factor >= 1;
      above += is_full;
      if (!is_full) rest += w[e];
    }
    double next = rest > 0 ? (top_k - above) / rest : factor;
    if (full > 0 && next <= factor) break;
    factor = next;
  }
  for (int e = 0; e < n; e++) p[e] = fmin(1, w[e] * factor);
}

static const double MOST_EXPONENT = 4;

static uint64_t mix(uint64_t *s) { /* splitmix64: a small well-known generator */
  uint64_t z = *s += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

hf_status popularity_zipf(const model_config *c, double s, popularity **out) {
  if (!(s >= 0) || s > MOST_EXPONENT) return hf_fail(HF_INPUT, "option --skew: zipf exponent %g is not between 0 and 4", s);
  popularity *p = NULL;
  double *w = NULL;
  int n = c->n_experts;
  HF_TRY(popularity_new(c->n_layers, n, &p));
  hf_status st = hf_alloc(&w, (size_t)(n > 0 ? n : 1), sizeof *w, "weights of a skew");
  if (st != HF_OK) {
    popularity_free(p);
    return st;
  }
  uint64_t seed = 1;
  for (int l = 0; l < c->n_layers; l++) {
    if (!c->layer_is_moe[l]) continue;
    for (int e = 0; e < n; e++) w[e] = pow(e + 1, -s);
    for (int e = n - 1; e > 0; e--) {
      int k = (int)(mix(&seed) % (uint64_t)(e + 1));
      double t = w[e];
      w[e] = w[k];
      w[k] = t;
    }
    scale_to_top_k(w, n, c->top_k, p->p + (size_t)l * (size_t)n);
  }
  free(w);
  snprintf(p->source, sizeof p->source, "zipf:%g", s);
  *out = p;
  return HF_OK;
}

/* Heaviest first; ties by index, so that the same counts always give the same order. */
static void rank_experts(const double *p, int n, int *order) {
  for (int i = 0; i < n; i++) {
    int at = i;
    for (; at > 0 && p[order[at - 1]] < p[i]; at--) order[at] = order[at - 1];
    order[at] = i;
  }
}

/* Mean of ln(rank) under the power law of exponent s: falls with s. */
static double mean_log_rank(double s, int n) {
  double sum = 0, weight = 0;
  for (int r = 1; r <= n; r++) {
    double w = pow(r, -s);
    sum += w * log(r);
    weight += w;
  }
  return sum / weight;
}

double popularity_fit_exponent(const double *p, int n) {
  int order[4096];
  double seen = 0, all = 0, lo = 0, hi = MOST_EXPONENT;
  rank_experts(p, n, order);
  for (int r = 1; r <= n; r++) {
    seen += p[order[r - 1]] * log(r);
    all += p[order[r - 1]];
  }
  /* most likely where the law's mean of ln(rank) is that of the counts */
  for (int i = 0; i < 60; i++) {
    double mid = 0.5 * (lo + hi);
    if (mean_log_rank(mid, n) > seen / all) lo = mid;
    else hi = mid;
  }
  return 0.5 * (lo + hi);
}

/* One layer's row; returns its exponent. w: n values of scratch. */
static double fit_row(double *row, int n, int top_k, double *w) {
  int order[4096];
  double s = popularity_fit_exponent(row, n);
  rank_experts(row, n, order);
  for (int r = 0; r < n; r++) w[order[r]] = pow(r + 1, -s);
  scale_to_top_k(w, n, top_k, row);
  return s;
}

hf_status popularity_zipf_fit(const model_config *c, popularity *p) {
  int n = c->n_experts;
  double *w = NULL, least = MOST_EXPONENT, most = 0;
  if (n < 1 || n > 4096) return hf_fail(HF_INPUT, "option --skew: zipf-fit: model has %d experts", n);
  HF_TRY(hf_alloc(&w, (size_t)n, sizeof *w, "weights of a skew"));
  for (int l = 0; l < c->n_layers; l++) {
    if (!c->layer_is_moe[l]) continue;
    double s = fit_row(p->p + (size_t)l * (size_t)n, n, c->top_k, w);
    if (p->prefill != NULL) fit_row(p->prefill + (size_t)l * (size_t)n, n, c->top_k, w);
    least = fmin(least, s);
    most = fmax(most, s);
  }
  free(w);
  char from[sizeof p->source];
  snprintf(from, sizeof from, "%s", p->source);
  snprintf(p->source, sizeof p->source, "zipf %.2f-%.2f fit to %.36s", least, most, from);
  return HF_OK;
}

void popularity_from_counts(const double *counts, int n, int top_k, double *p) {
  double sum = 0;
  for (int e = 0; e < n; e++) sum += counts[e];
  double tokens = sum / top_k + 1, pseudo = (double)top_k / n;
  for (int e = 0; e < n; e++) p[e] = fmin(1, (counts[e] + pseudo) / tokens);
}

/* What a kind of text says besides its counts must agree with them: no expert chosen more often than there were tokens, no layer with other
 * than top_k choices a token (a count taken over less than everything is fine where "tokens" is left out). */
static hf_status check_tokens(const model_config *c, const char *path, const json *kind, int l, const double *row) {
  const json *said = json_get(kind, "tokens");
  double tokens = json_number(said, -1), sum = 0, most = 0;
  if (said == NULL) return HF_OK;
  for (int e = 0; e < c->n_experts; e++) {
    sum += row[e];
    most = fmax(most, row[e]);
  }
  if (!(tokens >= 0 && tokens <= 1e15)) return hf_fail(HF_INPUT, "%s: %s: field tokens: needs a count", path, json_key(kind));
  if (most > tokens || fabs(sum - tokens * c->top_k) > 0.01 * tokens * c->top_k)
    return hf_fail(HF_INPUT, "%s: %s: counts.%d: %.0f choices, at most %.0f of one expert, are not %d of each of %.0f tokens",
                   path, json_key(kind), l, sum, most, c->top_k, tokens);
  return HF_OK;
}

/* Adds the counts of one kind of text; every MoE layer must be there with one number per expert. */
static hf_status add_kind(const model_config *c, const char *path, const json *kind, double *counts) {
  const json *by_layer = json_get(kind, "counts");
  double one[4096];
  if (json_type(by_layer) != JSON_OBJECT)
    return hf_fail(HF_INPUT, "%s: %s: field counts: missing; see docs/popularity.md", path, json_key(kind));
  if (c->n_experts > (int)(sizeof one / sizeof one[0]))
    return hf_fail(HF_UNSUPPORTED, "%s: %d experts are too many", path, c->n_experts);
  for (int l = 0; l < c->n_layers; l++) {
    if (!c->layer_is_moe[l]) continue;
    char key[16];
    snprintf(key, sizeof key, "%d", l);
    const json *row = json_get(by_layer, key);
    if (json_type(row) != JSON_ARRAY || json_len(row) != c->n_experts)
      return hf_fail(HF_INPUT, "%s: %s: counts.%s: needs an array of %d counts, one per expert", path, json_key(kind), key,
                     c->n_experts);
    int e = 0;
    for (const json *v = json_first(row); v != NULL; v = json_next(v), e++) {
      double x = json_number(v, -1);
      if (!(x >= 0 && x <= 1e15)) return hf_fail(HF_INPUT, "%s: %s: counts.%s[%d]: needs a count", path, json_key(kind), key, e);
      one[e] = x;
    }
    HF_TRY(check_tokens(c, path, kind, l, one));
    for (e = 0; e < c->n_experts; e++) counts[(size_t)l * (size_t)c->n_experts + (size_t)e] += one[e];
  }
  return HF_OK;
}

static void from_all_counts(const model_config *c, const double *counts, popularity *p) {
  for (int l = 0; l < c->n_layers; l++) {
    size_t at = (size_t)l * (size_t)c->n_experts;
    if (c->layer_is_moe[l]) popularity_from_counts(counts + at, c->n_experts, c->top_k, p->p + at);
  }
}

hf_status popularity_census_json(const model_config *c, const json *doc, const char *where, const char *kind, popularity **out) {
  popularity *p = NULL;
  double *counts = NULL;
  hf_status st = HF_OK;
  int used = 0;
  if (json_type(doc) != JSON_OBJECT)
    return hf_fail(HF_INPUT, "%s: needs an object of kinds of text; see docs/popularity.md", where);
  HF_TRY(popularity_new(c->n_layers, c->n_experts, &p));
  HF_GO(done, hf_alloc(&counts, (size_t)c->n_layers * (size_t)c->n_experts + 1, sizeof *counts, "counts of a census"));
  for (const json *k = json_first(doc); k != NULL; k = json_next(k)) {
    if (kind != NULL && strcmp(json_key(k), kind) != 0) continue;
    HF_GO(done, add_kind(c, where, k, counts));
    used++;
  }
  if (used == 0) {
    st = hf_fail(HF_INPUT, "%s: has no kind of text '%s'", where, kind != NULL ? kind : "(any)");
    goto done;
  }
  from_all_counts(c, counts, p);
  snprintf(p->source, sizeof p->source, "census%s%.48s", kind != NULL ? ":" : "", kind != NULL ? kind : "");
done:
  free(counts);
  if (st != HF_OK) popularity_free(p);
  else *out = p;
  return st;
}

hf_status popularity_census(const model_config *c, const char *path, const char *kind, popularity **out) {
  json *doc = NULL;
  HF_TRY(json_read_file(path, 64u << 20, &doc));
  hf_status st = popularity_census_json(c, doc, path, kind, out);
  json_free(doc);
  return st;
}

/* phase NULL: both. */
static hf_status add_counts(const model_config *c, const rec_routing *rows, int n, int64_t run_id, const char *phase,
                            double *counts) {
  memset(counts, 0, (size_t)c->n_layers * (size_t)c->n_experts * sizeof *counts);
  for (int i = 0; i < n; i++) {
    const rec_routing *r = &rows[i];
    if (r->layer < 0 || r->layer >= c->n_layers || r->expert < 0 || r->expert >= c->n_experts || !c->layer_is_moe[r->layer])
      return hf_fail(HF_INPUT,
                     "run %lld: routing counts name layer %d expert %d, which this model has not: give the model of that run",
                     (long long)run_id, r->layer, r->expert);
    if (phase == NULL || strcmp(r->phase, phase) == 0)
      counts[(size_t)r->layer * (size_t)c->n_experts + (size_t)r->expert] += (double)r->count;
  }
  return HF_OK;
}

/* Counts of one phase, with one token of the whole run (`all`) on top, so that a phase without tokens is as the whole. */
static void one_phase(const model_config *c, const double *counts, const double *all, double *p) {
  for (int l = 0; l < c->n_layers; l++) {
    size_t at = (size_t)l * (size_t)c->n_experts;
    double sum = 0;
    for (int e = 0; c->layer_is_moe[l] && e < c->n_experts; e++) sum += counts[at + (size_t)e];
    for (int e = 0; c->layer_is_moe[l] && e < c->n_experts; e++)
      p[at + (size_t)e] = fmin(1, (counts[at + (size_t)e] + all[at + (size_t)e]) / (sum / c->top_k + 1));
  }
}

hf_status popularity_run(const model_config *c, const rec_routing *rows, int n, int64_t run_id, popularity **out) {
  popularity *p = NULL, *all = NULL;
  double *counts = NULL;
  size_t cells = (size_t)c->n_layers * (size_t)c->n_experts + 1;
  hf_status st = HF_OK;
  if (n == 0)
    return hf_fail(HF_INPUT, "run %lld: has no routing counts: it did not get far enough, or ran without experts",
                   (long long)run_id);
  HF_TRY(popularity_new(c->n_layers, c->n_experts, &p));
  HF_GO(done, popularity_new(c->n_layers, c->n_experts, &all));
  HF_GO(done, hf_alloc(&p->prefill, cells, sizeof *p->prefill, "popularity of experts"));
  HF_GO(done, hf_alloc(&counts, cells, sizeof *counts, "routing counts"));
  HF_GO(done, add_counts(c, rows, n, run_id, NULL, counts));
  from_all_counts(c, counts, all);
  HF_GO(done, add_counts(c, rows, n, run_id, "decode", counts));
  one_phase(c, counts, all->p, p->p);
  HF_GO(done, add_counts(c, rows, n, run_id, "prefill", counts));
  one_phase(c, counts, all->p, p->prefill);
  snprintf(p->source, sizeof p->source, "run %lld", (long long)run_id);
done:
  free(counts);
  popularity_free(all);
  if (st != HF_OK) popularity_free(p);
  else *out = p;
  return st;
}
