#include "planner/validate/show.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- JSON ---- */

static void figure_json(const case_figure *f, json *o) {
  json_add_num(o, "published", f->published);
  json_add_num(o, "predicted", f->predicted.likely);
  json_add_num(o, "low", f->predicted.low);
  json_add_num(o, "high", f->predicted.high);
  json_add_num(o, "signed_error", f->signed_error);
  json_add_bool(o, "inside", f->inside);
  if (f->alone > 0) {
    json_add_num(o, "row_left_out", f->alone);
    json_add_num(o, "row_left_out_error", f->alone_error);
  }
  if (!(f->left_out > 0)) return;
  json_add_num(o, "machine_left_out", f->left_out);
  json_add_num(o, "machine_left_out_error", f->left_out_error);
}

static void cases_json(const comparison *c, json *doc) {
  json *list = json_add_array(doc, "cases"), *declined = json_add_array(doc, "declined_rows");
  for (int i = 0; i < c->n; i++) {
    const resolved_case *r = &c->row[i].r;
    if (!r->used) {
      json *o = json_add_object(declined, NULL);
      json_add_str(o, "id", r->c->id);
      json_add_str(o, "reason", r->why_not);
      continue;
    }
    json *o = json_add_object(list, NULL);
    const case_figure *f = c->figure[i];
    json_add_str(o, "id", r->c->id);
    figure_json(&f[f[METRIC_DECODE].used ? METRIC_DECODE : METRIC_PREFILL], o);
    json_add_str(o, "metric", case_metric_name[f[METRIC_DECODE].used ? METRIC_DECODE : METRIC_PREFILL]);
    json_add_bool(o, "experts_on_cpu", r->experts_on_cpu);
    json_add_str(o, "engine", r->engine);
    json_add_str(o, "machine", r->machine);
    json_add_str(o, "parts", r->parts);
    json_add_str(o, "model", r->model);
    json_add_str(o, "format", r->format_name);
    json_add_int(o, "users", r->users);
    json_add_num(o, "context", r->context);
    if (f[METRIC_DECODE].used && f[METRIC_PREFILL].used) figure_json(&f[METRIC_PREFILL], json_add_object(o, "prefill"));
    if (r->no_prefill[0] != '\0') json_add_str(o, "prefill_declined", r->no_prefill);
  }
}

static void groups_json(const comparison *c, json *doc) {
  json *list = json_add_array(doc, "groups");
  for (int i = 0; i < c->n_groups; i++) {
    const case_group *g = &c->group[i];
    json *o = json_add_object(list, NULL);
    json_add_str(o, "metric", case_metric_name[g->metric]);
    json_add_str(o, "by", g->by);
    json_add_str(o, "name", g->name);
    json_add_int(o, "n", g->n);
    double median, p90;
    case_group_errors(g, &median, &p90);
    json_add_num(o, "median_abs_error", median);
    json_add_num(o, "p90_abs_error", p90);
    json_add_num(o, "fit_median_abs_error", g->median);
    json_add_num(o, "fit_p90_abs_error", g->p90);
    json_add_num(o, "median_signed_error", g->signed_median);
    json_add_num(o, "inside", (double)g->inside / g->n);
    json_add_num(o, "median_high_over_low", g->width);
    if (!(g->left_out_p90 > 0)) continue;
    json_add_num(o, "machine_left_out_median_abs_error", g->left_out_median);
    json_add_num(o, "machine_left_out_p90_abs_error", g->left_out_p90);
  }
}

static void priors_json(const comparison *c, json *doc) {
  json *list = json_add_array(doc, "priors");
  for (int e = 0; e < c->engines.n; e++) {
    const engine *g = &c->engines.e[e];
    json *o = json_add_object(list, NULL), *facts = NULL;
    int used = 0;
    for (int i = 0; i < c->n; i++) used += c->row[i].r.used && strcmp(c->row[i].r.engine, g->name) == 0;
    json_add_str(o, "engine", g->name);
    json_add_int(o, "rows", used);
    json_add_int(o, "parameters", fit_plans[e].n);
    facts = json_add_object(o, "fitted");
    for (int i = 0; i < fit_plans[e].n; i++) {
      const catalog_value *f = &g->fact[fit_plans[e].fact[i]];
      json *v = json_add_object(facts, engine_fact_name[fit_plans[e].fact[i]]);
      json_add_num(v, "low", f->low);
      json_add_num(v, "likely", f->likely);
      json_add_num(v, "high", f->high);
    }
  }
  json_add_int(doc, "parameters", c->parameters);
  json_add_int(doc, "figures", c->n_fitted_figures);
}

static void scenarios_json(const scenario *s, int n, json *doc) {
  json *list = json_add_array(doc, "scenarios");
  for (int i = 0; i < n; i++) {
    json *o = json_add_object(list, NULL);
    json_add_str(o, "id", s[i].c->id);
    json_add_str(o, "machine", s[i].machine);
    json_add_str(o, "format", s[i].format);
    json_add_int(o, "sockets", s[i].sockets);
    json_add_int(o, "depth", s[i].depth);
    json_add_num(o, "published", s[i].published);
    json_add_num(o, "low", s[i].decode.low);
    json_add_num(o, "predicted", s[i].decode.likely);
    json_add_num(o, "high", s[i].decode.high);
    json_add_bool(o, "inside", s[i].inside);
    json_add_str(o, "needs", s[i].needs);
  }
}

/* What the rows say of several users: nothing, as long as nobody publishes such. */
enum { USERS_WORDS = 240 };
static void users_words(const comparison *c, char out[USERS_WORDS]) {
  int several = 0, most = 1;
  for (int i = 0; i < c->n; i++) {
    const resolved_case *r = &c->row[i].r;
    if (!r->used) continue;
    several += r->users > 1;
    if (r->users > most) most = r->users;
  }
  if (several == 0)
    snprintf(out, USERS_WORDS,
             "All %d are of one user at a time: how far off predictions for 5 to 20 users are is not known from them; "
             "docs/measurements.md has own runs of several users.",
             c->used);
  else snprintf(out, USERS_WORDS, "%d of the %d are of several users, at most %d at a time.", several, c->used, most);
}

hf_status show_json(const comparison *c, const scenario *s, int n_scenarios, json *doc) {
  const case_group *d = comparison_group(c, METRIC_DECODE, "all", "experts on the CPU");
  char users[USERS_WORDS];
  json_add_int(doc, "rows", c->n);
  json_add_int(doc, "used", c->used);
  json_add_int(doc, "declined", c->n - c->used);
  users_words(c, users);
  json_add_str(doc, "users_text", users);
  double median = 0, p90 = 0;
  if (d != NULL) {
    case_group_errors(d, &median, &p90);
    json_add_num(doc, "median_abs_error", median);
    json_add_num(doc, "p90_abs_error", p90);
    json_add_num(doc, "fit_median_abs_error", d->median);
    json_add_num(doc, "fit_p90_abs_error", d->p90);
  } else {
    json_add_null(doc, "median_abs_error");
    json_add_null(doc, "p90_abs_error");
  }
  cases_json(c, doc);
  groups_json(c, doc);
  scenarios_json(s, n_scenarios, doc);
  priors_json(c, doc);
  return HF_OK;
}

/* ---- text ---- */

typedef struct {
  hf_buf *b;
  bool markdown;
} page;

static hf_status heading(const page *p, const char *title, const char *columns, int n_columns) {
  HF_TRY(hf_buf_printf(p->b, p->markdown ? "\n## %s\n\n%s\n|" : "\n%s\n%s\n", title, columns));
  for (int i = 0; p->markdown && i < n_columns; i++) HF_TRY(hf_buf_printf(p->b, "---|"));
  return p->markdown ? hf_buf_printf(p->b, "\n") : HF_OK;
}

/* " 12.3 %", or a dash where nothing was left out. */
static void percent(char out[16], bool there, double v) {
  if (there) snprintf(out, 16, "%.1f %%", 100 * v);
  else snprintf(out, 16, "-");
}

/* The errors first that no row had a part in. */
static hf_status headline_text(const comparison *c, const page *p) {
  static const char *const of[METRIC_N] = {"experts on the CPU", "every row"};
  static const char *const name[METRIC_N] = {"Decode with experts on the CPU", "Prefill"};
  for (int m = 0; m < METRIC_N; m++) {
    const case_group *g = comparison_group(c, (case_metric)m, "all", of[m]);
    double median, p90;
    if (g == NULL) continue;
    case_group_errors(g, &median, &p90);
    HF_TRY(hf_buf_printf(p->b, "%s%s: |error| median %.1f %%, p90 %.1f %%, ", p->markdown ? "- " : "", name[m], 100 * median,
                         100 * p90));
    if (g->alone_p90 > 0)
      HF_TRY(hf_buf_printf(p->b, "each row left out of the fit that predicts it (in it: %.1f and %.1f)", 100 * g->median,
                           100 * g->p90));
    else HF_TRY(hf_buf_printf(p->b, "the rows themselves in the fit (without --quick they are left out, too)"));
    if (g->left_out_p90 > 0)
      HF_TRY(hf_buf_printf(p->b, "; on a machine whose rows were left out, as yours would be: %.1f and %.1f",
                           100 * g->left_out_median, 100 * g->left_out_p90));
    HF_TRY(hf_buf_printf(p->b, "\n"));
  }
  return HF_OK;
}

static hf_status groups_text(const comparison *c, const page *p) {
  bool md = p->markdown;
  HF_TRY(heading(
      p,
      "Errors by group: median and 90th percentile of |error|; with this row, and with this machine's rows, left out of the fit",
      md ? "| metric | group | rows | median | p90 | signed | inside | high/low | row out: median | p90 | machine out: median | "
           "p90 |"
         : "  metric   group                                        rows median    p90 signed inside high/low  row out: median, "
           "p90  "
           "machine out: median, p90",
      12));
  for (int i = 0; i < c->n_groups; i++) {
    const case_group *g = &c->group[i];
    char name[128], out[4][16];
    snprintf(name, sizeof name, "%s %s", g->by, g->name);
    percent(out[0], g->alone_p90 > 0, g->alone_median);
    percent(out[1], g->alone_p90 > 0, g->alone_p90);
    percent(out[2], g->left_out_p90 > 0, g->left_out_median);
    percent(out[3], g->left_out_p90 > 0, g->left_out_p90);
    HF_TRY(hf_buf_printf(p->b,
                         md ? "| %s | %s | %d | %.1f %% | %.1f %% | %+.1f %% | %.0f %% | %.2f | %s | %s | %s | %s |\n"
                            : "  %-8s %-44s %4d %5.1f%% %5.1f%% %+5.1f%%   %3.0f%%     %4.2f %9s %9s     %9s %9s\n",
                         case_metric_name[g->metric], name, g->n, 100 * g->median, 100 * g->p90, 100 * g->signed_median,
                         100.0 * g->inside / g->n, g->width, out[0], out[1], out[2], out[3]));
  }
  return HF_OK;
}

static hf_status rows_text(const comparison *c, const page *p) {
  bool md = p->markdown;
  HF_TRY(heading(p, "Rows (tokens/s); * = published outside low to high",
                 md ? "| row | metric | engine | machine | format | context | published | low | predicted | high | error | row "
                      "out | machine out |"
                    : "  row      metric  engine                 machine                      format       context published     "
                      "low predicted    "
                      "high   error  row out  machine out",
                 13));
  for (int i = 0; i < c->n; i++)
    for (int m = 0; m < METRIC_N; m++) {
      const case_figure *f = &c->figure[i][m];
      const resolved_case *r = &c->row[i].r;
      char out[2][16];
      if (!f->used) continue;
      percent(out[0], f->alone > 0, f->alone_error);
      percent(out[1], f->left_out > 0, f->left_out_error);
      HF_TRY(hf_buf_printf(p->b,
                           md ? "| %s | %s | %s | %s | %s | %.0f | %.4g | %.4g | %.4g | %.4g | %+.1f %%%s | %s | %s |\n"
                              : "  %-8s %-7s %-22s %-28s %-12s %7.0f   %7.2f %7.2f   %7.2f %7.2f %+6.1f%%%s %9s %9s\n",
                           r->c->id, case_metric_name[m], r->engine, r->machine, r->format_name,
                           m == METRIC_DECODE ? r->context : r->prefill_start, f->published, f->predicted.low,
                           f->predicted.likely, f->predicted.high, 100 * f->signed_error,
                           f->inside ? ""
                           : md      ? " \\*"
                                     : "*",
                           out[0], out[1]));
    }
  return HF_OK;
}

static hf_status declined_text(const comparison *c, const page *p) {
  bool md = p->markdown;
  HF_TRY(heading(p, "Declined", md ? "| row | why |" : "  row      why", 2));
  for (int i = 0; i < c->n; i++) {
    const resolved_case *r = &c->row[i].r;
    if (!r->used) HF_TRY(hf_buf_printf(p->b, md ? "| %s | %s |\n" : "  %-8s %s\n", r->c->id, r->why_not));
    else if (r->no_prefill[0] != '\0' && r->c->prefill_tok_s > 0)
      HF_TRY(hf_buf_printf(p->b, md ? "| %s | its prefill: %s |\n" : "  %-8s its prefill: %s\n", r->c->id, r->no_prefill));
  }
  return HF_OK;
}

static hf_status scenarios_text(const scenario *s, int n, const page *p) {
  bool md = p->markdown;
  if (n == 0) return HF_OK;
  HF_TRY(heading(p, "What rows without a machine may mean (our own engine, tokens/s of all users)",
                 md ? "| row | machine | format | depth | low | likely | high | high/low | published | inside |"
                    : "  row      machine                                           format  depth    low likely   high high/low "
                      "published inside",
                 10));
  for (int i = 0; i < n; i++) {
    const predicted_range *d = &s[i].decode;
    HF_TRY(hf_buf_printf(p->b,
                         md ? "| %s | %s | %s | %d | %.1f | %.1f | %.1f | %.2f | %.1f | %s%s%s |\n"
                            : "  %-8s %-49s %-7s %5d %6.1f %6.1f %6.1f %8.2f %9.1f %s%s%s\n",
                         s[i].c->id, s[i].machine, s[i].format, s[i].depth, d->low, d->likely, d->high,
                         d->low > 0 ? d->high / d->low : 0, s[i].published, s[i].inside ? "yes" : "no",
                         s[i].needs[0] != '\0' ? "; it needs " : "", s[i].needs));
  }
  return HF_OK;
}

static hf_status priors_text(const comparison *c, const page *p) {
  bool md = p->markdown;
  HF_TRY(heading(p, "Fitted priors",
                 md ? "| engine | fact | low | likely | high |"
                    : "  engine                 fact                             low  likely    high",
                 5));
  for (int e = 0; e < c->engines.n; e++)
    for (int i = 0; i < fit_plans[e].n; i++) {
      const catalog_value *f = &c->engines.e[e].fact[fit_plans[e].fact[i]];
      HF_TRY(hf_buf_printf(p->b, md ? "| %s | %s | %.3g | %.3g | %.3g |\n" : "  %-22s %-28s %7.3g %7.3g %7.3g\n",
                           c->engines.e[e].name, engine_fact_name[fit_plans[e].fact[i]], f->low, f->likely, f->high));
    }
  return hf_buf_printf(p->b, "%s%d parameters fitted to %d figures of %d rows; %d rows declined.\n", md ? "\n" : "  ",
                       c->parameters, c->n_fitted_figures, c->used, c->n - c->used);
}

hf_status show_text(const comparison *c, const scenario *s, int n_scenarios, bool markdown, hf_buf *out) {
  page p = {out, markdown};
  char users[USERS_WORDS];
  users_words(c, users);
  HF_TRY(hf_buf_printf(out,
                       "%s%d of %d published rows predicted, %d declined. Errors are (predicted - published) / published.\n%s\n",
                       markdown ? "# Predictions against published measurements\n\n" : "", c->used, c->n, c->n - c->used, users));
  if (markdown) HF_TRY(hf_buf_printf(out, "\n"));
  HF_TRY(headline_text(c, &p));
  HF_TRY(groups_text(c, &p));
  HF_TRY(rows_text(c, &p));
  HF_TRY(declined_text(c, &p));
  HF_TRY(scenarios_text(s, n_scenarios, &p));
  return priors_text(c, &p);
}

hf_status show_fit(const engine_set *s, hf_buf *out) {
  for (int e = 0; e < s->n; e++)
    for (int i = 0; i < fit_plans[e].n; i++) {
      const catalog_value *f = &s->e[e].fact[fit_plans[e].fact[i]];
      HF_TRY(hf_buf_printf(out, "priors/%s.json: \"%s\": {\"value\": %.3g, \"low\": %.3g, \"high\": %.3g}\n", s->e[e].name,
                           engine_fact_name[fit_plans[e].fact[i]], f->likely, f->low, f->high));
    }
  return HF_OK;
}
