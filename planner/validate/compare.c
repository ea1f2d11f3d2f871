#include "planner/validate/compare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/stats.h"

const char *const case_metric_name[METRIC_N] = {"decode", "prefill"};
/* Beyond this a group's error is worse than before: a thousandth is less than any printed digit shows. */
static const double ROUNDING = 1e-3;

hf_status comparison_new(const published_cases *c, comparison *out) {
  resolver rs;
  *out = (comparison){.n = c->n};
  HF_TRY(resolver_new(&rs));
  hf_status st = hf_alloc(&out->row, (size_t)c->n, sizeof *out->row, "published rows, prepared");
  if (st == HF_OK) st = hf_alloc(&out->figure, (size_t)c->n, sizeof *out->figure, "compared figures");
  for (int i = 0; st == HF_OK && i < c->n; i++) {
    resolved_case r;
    st = resolve_case(&rs, &c->row[i], &r);
    if (st == HF_OK) st = prepare_case(&r, &out->row[i]);
    if (st == HF_OK) out->used += out->row[i].r.used;
    if (st != HF_OK) st = hf_note(st, "row %s", c->row[i].id);
  }
  resolver_free(&rs);
  if (st != HF_OK) comparison_free(out);
  return st;
}

void comparison_free(comparison *c) {
  for (int i = 0; c->row != NULL && i < c->n; i++) prepared_case_free(&c->row[i]);
  free(c->row);
  free(c->figure);
  *c = (comparison){0};
}

/* ---- figures ---- */

static void set_figure(case_figure *f, double published, predicted_range p) {
  f->used = true;
  f->published = published;
  f->predicted = p;
  f->signed_error = p.likely / published - 1;
  f->inside = published >= p.low && published <= p.high;
  f->left_out = 0;
}

static hf_status predict_rows(comparison *c) {
  for (int i = 0; i < c->n; i++) {
    prepared_case *p = &c->row[i];
    predicted_range range[METRIC_N];
    if (!p->r.used) continue;
    HF_TRY(predict_interval(p, engine_set_find(&c->engines, p->r.engine), &range[METRIC_DECODE], &range[METRIC_PREFILL]));
    if (p->r.c->decode_tok_s > 0) set_figure(&c->figure[i][METRIC_DECODE], p->r.c->decode_tok_s, range[METRIC_DECODE]);
    if (p->r.no_prefill[0] == '\0') set_figure(&c->figure[i][METRIC_PREFILL], p->r.c->prefill_tok_s, range[METRIC_PREFILL]);
  }
  return HF_OK;
}

static hf_status leave_machine_out(comparison *c, const char *box) {
  engine_set s = c->engines;
  HF_TRY(fit_engines(c->row, c->n, box, &s));
  for (int i = 0; i < c->n; i++) {
    prepared_case *p = &c->row[i];
    predicted_rates r;
    if (!p->r.used || strcmp(p->r.box, box) != 0) continue;
    HF_TRY(predict_case(p, engine_set_find(&s, p->r.engine), (cost_case){0}, &r));
    const double rate[METRIC_N] = {r.decode, r.prefill};
    for (int m = 0; m < METRIC_N; m++) {
      case_figure *f = &c->figure[i][m];
      f->left_out = rate[m];
      f->left_out_error = f->used ? rate[m] / f->published - 1 : 0;
    }
  }
  return HF_OK;
}

static hf_status leave_rows_out(comparison *c, void (*step)(void *user), void *user) {
  for (int i = 0; i < c->n; i++) {
    engine e;
    predicted_rates r;
    if (step != NULL) step(user);
    if (!c->row[i].r.used) continue;
    HF_TRY(fit_without_row(c->row, c->n, i, &c->engines, &e));
    HF_TRY(predict_case(&c->row[i], &e, (cost_case){0}, &r));
    const double rate[METRIC_N] = {r.decode, r.prefill};
    for (int m = 0; m < METRIC_N; m++) {
      case_figure *f = &c->figure[i][m];
      f->alone = rate[m];
      f->alone_error = f->used ? rate[m] / f->published - 1 : 0;
    }
  }
  return HF_OK;
}

/* ---- groups ---- */

typedef struct {
  double *abs, *sign, *width, *out, *alone;
  int n, n_out, n_alone;
} samples;

static void add_sample(samples *s, case_group *g, const case_figure *f) {
  s->abs[s->n] = fabs(f->signed_error);
  s->sign[s->n] = f->signed_error;
  s->width[s->n++] = f->predicted.high / f->predicted.low;
  if (f->left_out > 0) s->out[s->n_out++] = fabs(f->left_out_error);
  if (f->alone > 0) s->alone[s->n_alone++] = fabs(f->alone_error);
  g->inside += f->inside;
}

/* "all" with the empty text: every row; else rows whose value of that dimension is `name`. */
static bool belongs(const resolved_case *r, const char *by, const char *name) {
  char users[16];
  if (strcmp(by, "all") == 0) return strcmp(name, "every row") == 0 || r->experts_on_cpu;
  if (strcmp(by, "engine") == 0) return strcmp(r->engine, name) == 0;
  if (strcmp(by, "machine") == 0) return strcmp(r->machine, name) == 0;
  snprintf(users, sizeof users, "%d", r->users);
  return strcmp(users, name) == 0;
}

static hf_status add_group(comparison *c, case_metric m, const char *by, const char *name) {
  if (comparison_group(c, m, by, name) != NULL) return HF_OK;
  if (c->n_groups == COMPARE_MAX_GROUPS)
    return hf_fail(HF_UNSUPPORTED, "published rows: more than %d groups", (int)COMPARE_MAX_GROUPS);
  case_group g = {.metric = m};
  snprintf(g.by, sizeof g.by, "%s", by);
  snprintf(g.name, sizeof g.name, "%s", name);
  double *room = NULL;
  HF_TRY(hf_alloc(&room, 5 * (size_t)c->n, sizeof *room, "errors of a group"));
  samples s = {.abs = room, .sign = room + c->n, .width = room + 2 * c->n, .out = room + 3 * c->n, .alone = room + 4 * c->n};
  for (int i = 0; i < c->n; i++)
    if (c->figure[i][m].used && belongs(&c->row[i].r, by, name)) add_sample(&s, &g, &c->figure[i][m]);
  g.n = s.n;
  hf_percentiles p = hf_percentiles_of(s.abs, (size_t)s.n), out = hf_percentiles_of(s.out, (size_t)s.n_out);
  g.median = p.p50;
  g.p90 = p.p90;
  hf_percentiles alone = hf_percentiles_of(s.alone, (size_t)s.n_alone);
  g.alone_median = alone.p50;
  g.alone_p90 = alone.p90;
  g.left_out_median = out.p50;
  g.left_out_p90 = out.p90;
  g.signed_median = hf_percentiles_of(s.sign, (size_t)s.n).p50;
  g.width = hf_percentiles_of(s.width, (size_t)s.n).p50;
  free(room);
  if (g.n > 0) c->group[c->n_groups++] = g;
  return HF_OK;
}

static hf_status make_groups(comparison *c) {
  c->n_groups = 0;
  for (int m = 0; m < METRIC_N; m++) {
    HF_TRY(add_group(c, m, "all", "experts on the CPU"));
    HF_TRY(add_group(c, m, "all", "every row"));
    static const char *const dims[] = {"engine", "machine", "users"};
    for (int d = 0; d < 3; d++)
      for (int i = 0; i < c->n; i++) {
        const resolved_case *r = &c->row[i].r;
        char users[16];
        if (!r->used) continue;
        snprintf(users, sizeof users, "%d", r->users);
        HF_TRY(add_group(c, m, dims[d], d == 0 ? r->engine : d == 1 ? r->machine : users));
      }
  }
  return HF_OK;
}

const case_group *comparison_group(const comparison *c, case_metric m, const char *by, const char *name) {
  for (int i = 0; i < c->n_groups; i++)
    if (c->group[i].metric == m && strcmp(c->group[i].by, by) == 0 && strcmp(c->group[i].name, name) == 0) return &c->group[i];
  return NULL;
}

void case_group_errors(const case_group *g, double *median, double *p90) {
  bool alone = g->alone_p90 > 0;
  *median = alone ? g->alone_median : g->median;
  *p90 = alone ? g->alone_p90 : g->p90;
}

hf_status comparison_run(comparison *c, const engine_set *engines, bool leave_machines, bool leave_rows, void (*step)(void *user),
                         void *user) {
  c->engines = *engines;
  memset(c->figure, 0, (size_t)c->n * sizeof *c->figure);
  HF_TRY(predict_rows(c));
  for (int i = 0; leave_machines && i < c->n; i++) {
    bool seen = !c->row[i].r.used;
    for (int k = 0; k < i && !seen; k++) seen = c->row[k].r.used && strcmp(c->row[k].r.box, c->row[i].r.box) == 0;
    if (!seen) HF_TRY(leave_machine_out(c, c->row[i].r.box));
  }
  if (leave_rows) HF_TRY(leave_rows_out(c, step, user));
  c->parameters = c->n_fitted_figures = 0;
  for (const fit_plan *p = fit_plans; p->engine != NULL; p++) c->parameters += p->n;
  for (int i = 0; i < c->n; i++) c->n_fitted_figures += c->figure[i][METRIC_DECODE].used + c->figure[i][METRIC_PREFILL].used;
  return make_groups(c);
}

/* ---- gates ---- */

static void miss(char *to, size_t n, bool missed, const char *what, double is, const char *than, double bar) {
  size_t used = strlen(to);
  if (missed && used < n) snprintf(to + used, n - used, "%s%s %.3g (bar: %s %.3g)", used > 0 ? "; " : "", what, is, than, bar);
}

hf_status comparison_gate(const comparison *c, const comparison_bars *b) {
  static const case_group none;
  char text[600] = "";
  const case_group *d = comparison_group(c, METRIC_DECODE, "all", "experts on the CPU"),
                   *f = comparison_group(c, METRIC_PREFILL, "all", "every row");
  if (2 * (c->n - c->used) > c->n)
    return hf_fail(HF_NO, "%d of %d rows were declined, more than half: nothing is shown by the rest", c->n - c->used, c->n);
  bool no_prefill = f == NULL;
  if (d == NULL) return hf_fail(HF_NO, "no used row has experts on a CPU and a decode rate");
  if (f == NULL) f = &none;
  double inside = (double)d->inside / d->n, median, p90, prefill, unused;
  case_group_errors(d, &median, &p90);
  case_group_errors(f, &prefill, &unused);
  miss(text, sizeof text, median > b->max_median, "decode: median |error|", median, "at most", b->max_median);
  miss(text, sizeof text, p90 > b->max_p90, "decode: p90 |error|", p90, "at most", b->max_p90);
  miss(text, sizeof text, inside < b->min_inside, "decode: share inside the interval", inside, "at least", b->min_inside);
  miss(text, sizeof text, inside > b->max_inside, "decode: share inside the interval", inside, "at most", b->max_inside);
  miss(text, sizeof text, d->width > b->max_width, "decode: median high/low", d->width, "at most", b->max_width);
  miss(text, sizeof text, !no_prefill && prefill > b->max_prefill_median, "prefill: median |error|", prefill, "at most",
       b->max_prefill_median);
  return text[0] == '\0' ? HF_OK : hf_fail(HF_NO, "missed: %s", text);
}

hf_status comparison_not_worse(const comparison *c, const json *earlier, const char *where) {
  const json *groups = json_get(earlier, "groups");
  int64_t used = 0;
  HF_TRY(json_get_int(earlier, where, "used", 0, CASES_MAX_ROWS, &used));
  if (json_type(groups) != JSON_ARRAY)
    return hf_fail(HF_INPUT, "%s: field groups: needs an array, as hf-plan validate --json prints", where);
  if (c->used < used) return hf_fail(HF_NO, "%d rows are used, %lld were in %s", c->used, (long long)used, where);
  for (const json *o = json_first(groups); o != NULL; o = json_next(o)) {
    const char *metric = NULL, *by = NULL, *name = NULL;
    double median = 0, p90 = 0, inside = 0, alone_median = 0, alone_p90 = 0;
    HF_TRY(json_get_str(o, where, "metric", &metric));
    HF_TRY(json_get_str(o, where, "by", &by));
    HF_TRY(json_get_str(o, where, "name", &name));
    HF_TRY(json_get_num(o, where, "median_abs_error", 0, 1e9, &alone_median));
    HF_TRY(json_get_num(o, where, "p90_abs_error", 0, 1e9, &alone_p90));
    HF_TRY(json_get_num(o, where, "fit_median_abs_error", 0, 1e9, &median));
    HF_TRY(json_get_num(o, where, "fit_p90_abs_error", 0, 1e9, &p90));
    HF_TRY(json_get_num(o, where, "inside", 0, 1, &inside));
    const case_group *g = comparison_group(c, strcmp(metric, "prefill") == 0 ? METRIC_PREFILL : METRIC_DECODE, by, name);
    if (g == NULL) return hf_fail(HF_NO, "%s of %s %s: there is no such row any more; there was in %s", metric, by, name, where);
    if (g->median > median + ROUNDING || g->p90 > p90 + ROUNDING)
      return hf_fail(HF_NO, "%s of %s %s: |error| median %.3f, p90 %.3f, worse than %.3f and %.3f in %s", metric, by, name,
                     g->median, g->p90, median, p90, where);
    if (g->alone_median > alone_median + ROUNDING || g->alone_p90 > alone_p90 + ROUNDING) /* 0 where rows were not left out */
      return hf_fail(HF_NO, "%s of %s %s: rows left out: |error| median %.3f, p90 %.3f, worse than %.3f and %.3f in %s", metric,
                     by, name, g->alone_median, g->alone_p90, alone_median, alone_p90, where);
    if ((double)g->inside / g->n < inside - ROUNDING)
      return hf_fail(HF_NO, "%s of %s %s: %d of %d inside their interval; a share of %.3f was in %s", metric, by, name, g->inside,
                     g->n, inside, where);
  }
  return HF_OK;
}
