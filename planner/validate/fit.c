#include "planner/validate/fit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stats.h"

const fit_plan fit_plans[FIT_MAX_ENGINES] = {
    {"ik-llama-cpp", 4, {ENGINE_UNPACK_WEIGHTS, ENGINE_GEMM, ENGINE_GPU_KV, ENGINE_UPLOAD}},
    {"ik-llama-cpp-no-rtr", 2, {ENGINE_UNPACK_WEIGHTS, ENGINE_GEMM_AVX2}},
    {"ktransformers", 2, {ENGINE_UNPACK_BYTES, ENGINE_GEMM}},
    {"ktransformers-no-graph", 1, {ENGINE_LAUNCH}},
    {"llama-cpp", 3, {ENGINE_UNPACK_WEIGHTS, ENGINE_GEMM, ENGINE_THREAD_LAYER}},
    {"sglang-cpu", 3, {ENGINE_UNPACK_BYTES, ENGINE_GEMM, ENGINE_THREAD_LAYER}},
    {NULL, 0, {0}}};

static const double FIRST_STEP = 0.4, LAST_STEP = 0.0125, PENALTY = 0.02, REACH = 6, FLOPS_PER_WEIGHT = 2, LEAST_SPREAD = 0.1,
                    LEAST_EFFECT = 0.05;

hf_status engine_set_load(engine_set *s) {
  s->n = 0;
  for (const fit_plan *p = fit_plans; p->engine != NULL; p++) HF_TRY(engine_load(p->engine, &s->e[s->n++]));
  return HF_OK;
}

const engine *engine_set_find(const engine_set *s, const char *name) {
  for (int i = 0; i < s->n; i++)
    if (strcmp(s->e[i].name, name) == 0) return &s->e[i];
  return NULL;
}

/* ---- objective ---- */

typedef struct {
  prepared_case **row;
  int n;
  engine e;
  double start[FIT_MAX_FACTS];
  const fit_plan *fp;
  bool resting[FIT_MAX_FACTS];
} problem;

/* A fact that none of the rows can speak of is not searched for. It rests at what the engine's class says: barriers of whole layers, where only
 * rows with a GPU are left, at those of its operations; the arithmetic of dot products, where no row has a prompt, at that of unpacking. */
static bool rests(const problem *p, engine_fact f) {
  bool prompts = false, whole = false;
  for (int i = 0; i < p->n; i++) {
    prompts = prompts || p->row[i]->r.no_prefill[0] == '\0';
    whole = whole || !p->row[i]->r.gpu;
  }
  if (f == ENGINE_THREAD_LAYER) return !whole;
  return f == ENGINE_GEMM && !prompts && p->e.fact[ENGINE_UNPACK_EVERY].likely > 0;
}

static double at_rest(const engine *e, engine_fact f) {
  if (f == ENGINE_THREAD_LAYER) return BARRIER_NS * e->fact[ENGINE_OPERATIONS].likely / 2;
  return FLOPS_PER_WEIGHT * e->fact[ENGINE_UNPACK_WEIGHTS].likely;
}

static void put(engine *e, engine_fact f, double v) {
  e->fact[f].low = e->fact[f].likely = e->fact[f].high = v;
}

/* Sums only grow: one that is over `enough` already is as good as any, for the search does not go there. */
static hf_status loss(problem *p, const double *x, double enough, double *out) {
  double sum = 0;
  for (int i = 0; i < p->fp->n; i++) {
    if (p->resting[i]) continue;
    put(&p->e, p->fp->fact[i], exp(x[i]));
    sum += PENALTY * fabs(x[i] - log(p->start[i]));
  }
  for (int i = 0; i < p->fp->n; i++)
    if (p->resting[i]) put(&p->e, p->fp->fact[i], at_rest(&p->e, p->fp->fact[i]));
  for (int i = 0; i < p->n && sum <= enough; i++) {
    const published_case *c = p->row[i]->r.c;
    predicted_rates r;
    HF_TRY(predict_case(p->row[i], &p->e, (cost_case){0}, &r));
    if (c->decode_tok_s > 0) sum += fabs(log(r.decode / c->decode_tok_s));
    if (p->row[i]->r.no_prefill[0] == '\0') sum += fabs(log(r.prefill / c->prefill_tok_s));
  }
  *out = sum;
  return HF_OK;
}

static double three_digits(double v) {
  char text[32];
  double out = 0;
  snprintf(text, sizeof text, "%.3g", v);
  return sscanf(text, "%lf", &out) == 1 ? out : v;
}

static hf_status search(problem *p) {
  double x[FIT_MAX_FACTS], best = 0;
  for (int i = 0; i < p->fp->n; i++) x[i] = log(p->start[i]);
  HF_TRY(loss(p, x, INFINITY, &best));
  for (double step = FIRST_STEP; step >= LAST_STEP;) {
    bool moved = false;
    for (int i = 0; i < p->fp->n; i++)
      for (int side = -1; side <= 1; side += 2) {
        double old = x[i], now = 0;
        if (p->resting[i] || fabs(old + side * step - log(p->start[i])) > REACH) continue;
        x[i] = old + side * step;
        HF_TRY(loss(p, x, best, &now));
        if (now < best - 1e-9) {
          best = now;
          moved = true;
          break;
        }
        x[i] = old;
      }
    if (!moved) step /= 2;
  }
  for (int i = 0; i < p->fp->n; i++) {
    engine_fact f = p->fp->fact[i];
    if (!p->resting[i]) put(&p->e, f, three_digits(exp(x[i])));
    p->e.own[f] = true;
  }
  for (int i = 0; i < p->fp->n; i++)
    if (p->resting[i]) put(&p->e, p->fp->fact[i], three_digits(at_rest(&p->e, p->fp->fact[i])));
  return HF_OK;
}

/* The engine as it is without what the rows taught: facts of its own that are fitted fall back to those of the file below, or to the engine
 * of which it is a mode, as fitted just now. */
static hf_status unfitted(const fit_plan *fp, const engine_set *done, engine *e) {
  engine base;
  HF_TRY(engine_load(fp->engine, e));
  const engine *fitted = engine_set_find(done, e->base);
  if (fitted != NULL) {
    base = *fitted;
    for (int f = 0; f < ENGINE_N_FACTS; f++)
      if (!e->own[f]) e->fact[f] = base.fact[f];
  } else {
    HF_TRY(engine_load(e->base, &base));
  }
  for (int i = 0; i < fp->n; i++) {
    engine_fact f = fp->fact[i];
    e->fact[f] = base.fact[f];
    if (f == ENGINE_UNPACK_BYTES && !(base.fact[f].likely > 0)) { /* the start is stated in weights: of 4.5 bits */
      e->fact[f].likely = base.fact[ENGINE_UNPACK_WEIGHTS].likely * 4.5 / 8;
      e->fact[ENGINE_UNPACK_WEIGHTS] = (catalog_value){0};
    }
    if (f == ENGINE_LAUNCH) e->fact[f].likely = base.fact[ENGINE_EAGER].likely; /* a mode without a recorded graph */
    if (f == ENGINE_THREAD_LAYER && !(base.fact[f].likely > 0)) e->fact[f].likely = at_rest(&base, f);
  }
  return HF_OK;
}

static hf_status fit_one(const fit_plan *fp, prepared_case **row, int n, const engine_set *done, engine *out) {
  problem p = {.row = row, .n = n, .fp = fp};
  HF_TRY(unfitted(fp, done, &p.e));
  for (int i = 0; i < fp->n; i++) {
    p.start[i] = p.e.fact[fp->fact[i]].likely;
    p.resting[i] = rests(&p, fp->fact[i]);
  }
  HF_TRY(search(&p));
  *out = p.e;
  return HF_OK;
}

static bool on_box(const prepared_case *c, const char *box) {
  return box != NULL && strcmp(c->r.box, box) == 0;
}

/* Has the engine, or the one it is a mode of, rows there? */
static bool concerned(prepared_case *cases, int n, const engine *e, const char *box) {
  for (int i = 0; i < n; i++)
    if (cases[i].r.used && on_box(&cases[i], box) &&
        (strcmp(cases[i].r.engine, e->name) == 0 || strcmp(cases[i].r.engine, e->base) == 0))
      return true;
  return box == NULL;
}

hf_status fit_engines(prepared_case *cases, int n, const char *without, engine_set *s) {
  prepared_case **row = NULL;
  hf_status st = HF_OK;
  if (without == NULL) HF_TRY(engine_set_load(s));
  HF_TRY(hf_alloc(&row, (size_t)n + 1, sizeof *row, "rows of an engine"));
  for (int e = 0; e < s->n; e++) {
    const fit_plan *fp = &fit_plans[e];
    int k = 0;
    if (!concerned(cases, n, &s->e[e], without)) continue;
    for (int i = 0; i < n; i++)
      if (cases[i].r.used && strcmp(cases[i].r.engine, fp->engine) == 0 && !on_box(&cases[i], without)) row[k++] = &cases[i];
    HF_GO(done, fit_one(fp, row, k, s, &s->e[e]));
  }
done:
  free(row);
  return st;
}

hf_status fit_without_row(prepared_case *cases, int n, int out_row, const engine_set *s, engine *out) {
  prepared_case **row = NULL;
  int k = 0, e = 0;
  HF_TRY(hf_alloc(&row, (size_t)n + 1, sizeof *row, "rows of an engine"));
  for (int i = 0; i < n; i++)
    if (i != out_row && cases[i].r.used && strcmp(cases[i].r.engine, cases[out_row].r.engine) == 0) row[k++] = &cases[i];
  while (strcmp(fit_plans[e].engine, cases[out_row].r.engine) != 0) e++;
  hf_status st = fit_one(&fit_plans[e], row, k, s, out);
  free(row);
  return st;
}

/* ---- spreads ---- */

static hf_status rate_with(prepared_case *c, const engine *e, engine_fact f, bool prefill, double factor, double *rate) {
  engine moved = *e;
  predicted_rates r;
  moved.fact[f].low = moved.fact[f].likely = moved.fact[f].high = e->fact[f].likely * factor;
  HF_TRY(predict_case(c, &moved, (cost_case){0}, &r));
  *rate = prefill ? r.prefill : r.decode;
  return HF_OK;
}

/* The factor on a fact, within 1/8 to 8, that makes a row exact; 0 when none does, or where the fact hardly moves the row. */
static hf_status implied(prepared_case *c, const engine *e, engine_fact f, bool prefill, double *factor) {
  double published = prefill ? c->r.c->prefill_tok_s : c->r.c->decode_tok_s, lo = log(0.125), hi = log(8), at_lo, at_hi, near[2];
  *factor = 0;
  if (!(published > 0) || (prefill && c->r.no_prefill[0] != '\0')) return HF_OK;
  HF_TRY(rate_with(c, e, f, prefill, 0.9, &near[0]));
  HF_TRY(rate_with(c, e, f, prefill, 1.1, &near[1]));
  if (fabs(log(near[1] / near[0])) < LEAST_EFFECT) return HF_OK;
  HF_TRY(rate_with(c, e, f, prefill, exp(lo), &at_lo));
  HF_TRY(rate_with(c, e, f, prefill, exp(hi), &at_hi));
  if ((published - at_lo) * (published - at_hi) > 0) return HF_OK;
  for (int k = 0; k < 16; k++) {
    double mid = 0.5 * (lo + hi), v;
    HF_TRY(rate_with(c, e, f, prefill, exp(mid), &v));
    if ((v < published) == (at_hi > at_lo)) lo = mid;
    else hi = mid;
  }
  *factor = exp(0.5 * (lo + hi));
  return HF_OK;
}

static bool decides_prefill(engine_fact f) {
  return f == ENGINE_GEMM || f == ENGINE_GEMM_AVX2;
}

static bool decides(const fit_plan *fp, engine_fact f) {
  return decides_prefill(f) || f == ENGINE_UNPACK_WEIGHTS || f == ENGINE_UNPACK_BYTES || fp->n == 1;
}

static void widen(catalog_value *f, double low, double high) {
  f->low = three_digits(fmin(f->likely * (1 - LEAST_SPREAD), low));
  f->high = three_digits(fmax(f->likely * (1 + LEAST_SPREAD), high));
}

/* Where the fact would be if nobody had measured the engine. */
static hf_status of_its_class(const fit_plan *fp, engine_fact f, const engine_set *s, double *v) {
  engine e;
  HF_TRY(unfitted(fp, s, &e));
  bool dots = f == ENGINE_GEMM && e.fact[ENGINE_UNPACK_EVERY].likely > 0;
  *v = dots ? at_rest(engine_set_find(s, fp->engine), f) : e.fact[f].likely;
  return HF_OK;
}

static hf_status spread_by_rows(prepared_case *cases, int n, const fit_plan *fp, engine_fact f, const engine_set *s, engine *e) {
  double *v = NULL, class_says = 0;
  const char *box = NULL;
  bool one_box = true;
  int k = 0;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&v, (size_t)n + 1, sizeof *v, "spread of a fact"));
  for (int i = 0; i < n; i++) {
    if (!cases[i].r.used || strcmp(cases[i].r.engine, fp->engine) != 0) continue;
    HF_GO(done, implied(&cases[i], e, f, decides_prefill(f), &v[k]));
    if (!(v[k] > 0)) continue;
    one_box = one_box && (box == NULL || strcmp(box, cases[i].r.box) == 0);
    box = cases[i].r.box;
    k++;
  }
  if (k == 0) goto done;
  hf_sort(v, (size_t)k);
  double low = e->fact[f].likely * v[k / 6], high = e->fact[f].likely * v[k - 1 - k / 6];
  HF_GO(done, of_its_class(fp, f, s, &class_says));
  double half_way = sqrt(e->fact[f].likely * class_says);
  widen(&e->fact[f], one_box ? fmin(low, half_way) : low, one_box ? fmax(high, half_way) : high);
done:
  free(v);
  return st;
}

static hf_status spread_by_machines(prepared_case *cases, int n, engine_set *s) {
  const char *seen[64];
  int m = 0;
  engine_set low = *s, high = *s;
  for (int i = 0; i < n && m < 64; i++) {
    bool old = !cases[i].r.used;
    for (int k = 0; k < m && !old; k++) old = strcmp(seen[k], cases[i].r.box) == 0;
    if (old) continue;
    seen[m++] = cases[i].r.box;
    engine_set other = *s;
    HF_TRY(fit_engines(cases, n, cases[i].r.box, &other));
    for (int e = 0; e < s->n; e++)
      for (int f = 0; f < ENGINE_N_FACTS; f++) {
        low.e[e].fact[f].likely = fmin(low.e[e].fact[f].likely, other.e[e].fact[f].likely);
        high.e[e].fact[f].likely = fmax(high.e[e].fact[f].likely, other.e[e].fact[f].likely);
      }
  }
  for (int e = 0; e < s->n; e++)
    for (int i = 0; i < fit_plans[e].n; i++) {
      engine_fact f = fit_plans[e].fact[i];
      if (!decides(&fit_plans[e], f)) widen(&s->e[e].fact[f], low.e[e].fact[f].likely, high.e[e].fact[f].likely);
    }
  return HF_OK;
}

hf_status fit_spreads(prepared_case *cases, int n, engine_set *s) {
  for (int e = 0; e < s->n; e++)
    for (int i = 0; i < fit_plans[e].n; i++)
      if (decides(&fit_plans[e], fit_plans[e].fact[i]))
        HF_TRY(spread_by_rows(cases, n, &fit_plans[e], fit_plans[e].fact[i], s, &s->e[e]));
  return spread_by_machines(cases, n, s);
}
