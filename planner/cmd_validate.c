/* cmd_validate.c: hf-plan validate. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "planner/ask/command.h"
#include "planner/cmd.h"
#include "planner/validate/show.h"

enum { TEXT_LIMIT = 8 << 20, BASELINE_LIMIT = 32 << 20, MAX_SCENARIOS = 64 };

typedef struct {
  ask_command c;
  comparison_bars bars;
  const char *baseline, *markdown;
  bool fit, quick;
} validate_command;

static hf_status find_scenarios(const published_cases *rows, scenario *s, int *n) {
  for (int i = 0; i < rows->n && *n + SCENARIOS_PER_ROW <= MAX_SCENARIOS; i++) {
    if (!scenario_applies(&rows->row[i])) continue;
    HF_TRY(scenarios_of(&rows->row[i], s + *n));
    *n += SCENARIOS_PER_ROW;
  }
  return HF_OK;
}

static hf_status write_answer(const validate_command *v, const char *path, const comparison *c, const scenario *s, int n) {
  char verdict[600], title[256];
  const case_group *d = comparison_group(c, METRIC_DECODE, "all", "experts on the CPU"),
                   *f = comparison_group(c, METRIC_PREFILL, "all", "every row");
  double median = 0, p90 = 0, prefill = 0, unused;
  if (d != NULL) case_group_errors(d, &median, &p90);
  if (f != NULL) case_group_errors(f, &prefill, &unused);
  int used = snprintf(verdict, sizeof verdict, "%d of %d rows used.", c->used, c->n);
  if (d != NULL)
    used += snprintf(verdict + used, sizeof verdict - (size_t)used,
                     " Decode with experts on the CPU: |error| median %.1f %%, p90 %.1f %%, %s; %d of %d inside their interval.",
                     100 * median, 100 * p90, d->alone_p90 > 0 ? "each row left out of its fit" : "the rows in the fit",
                     d->inside, d->n);
  if (d != NULL && d->left_out_median > 0)
    used += snprintf(verdict + used, sizeof verdict - (size_t)used,
                     " On a machine whose rows were left out of the fit, as yours would be: median %.1f %%, p90 %.1f %%.",
                     100 * d->left_out_median, 100 * d->left_out_p90);
  if (f != NULL) snprintf(verdict + used, sizeof verdict - (size_t)used, " Prefill: median %.1f %%.", 100 * prefill);
  snprintf(title, sizeof title, "Predictions against the published rows of %.180s", path);
  json *doc = ask_new_answer("validate");
  json *q = json_add_object(doc, "question");
  json_add_str(q, "cases", path);
  json_add_str(q, "priors", v->fit ? "fitted from these rows" : "as in the catalog");
  ask_add_assumption(
      doc,
      v->quick
          ? "One set of priors for all rows of an engine; no row's own figure is used but through these few fitted numbers."
          : "One set of priors for all rows of an engine; errors that count are of priors fitted without the row's own figure.",
      "assumed", "db/catalog/priors");
  int most = 0;
  for (int r = 0; r < c->n; r++)
    if (c->row[r].r.used && c->row[r].r.users > most) most = c->row[r].r.users;
  if (most == 1)
    ask_add_assumption(doc, "Every row used is of one user: nothing published here says how the error grows with users.",
                       "assumed", path);
  hf_status st = show_json(c, s, n, doc);
  if (st == HF_OK) st = ask_finish(&v->c, doc, "validate", title, verdict);
  json_free(doc);
  return st;
}

static hf_status write_page(const validate_command *v, const comparison *c, const scenario *s, int n, bool markdown,
                            const engine_set *fitted) {
  hf_buf b;
  hf_buf_init(&b, TEXT_LIMIT);
  hf_status st = show_text(c, s, n, markdown, &b);
  if (st == HF_OK && v->fit && !markdown) st = show_fit(fitted, &b);
  if (st == HF_OK && markdown) st = hf_write_file(v->markdown, b.data, b.len);
  else if (st == HF_OK) fputs(b.data, stdout);
  hf_buf_free(&b);
  return st;
}

static hf_status gates(const validate_command *v, const comparison *c) {
  json *earlier = NULL;
  hf_status st = HF_OK;
  HF_TRY(comparison_gate(c, &v->bars));
  if (v->baseline == NULL) return HF_OK;
  HF_TRY(json_read_file(v->baseline, BASELINE_LIMIT, &earlier));
  st = comparison_not_worse(c, earlier, v->baseline);
  json_free(earlier);
  return st;
}

static void refitted(void *bar) {
  hf_progress_add(bar, 1);
}

static hf_status validate(const validate_command *v, const char *path) {
  hf_progress bar = {0};
  published_cases rows;
  comparison *c = NULL;
  engine_set *engines = NULL;
  scenario *s = NULL;
  int n_scenarios = 0;
  HF_TRY(published_cases_read(path, &rows));
  hf_status st = hf_alloc(&c, 1, sizeof *c, "comparison");
  if (st == HF_OK) st = hf_alloc(&engines, 1, sizeof *engines, "engines");
  if (st == HF_OK) st = hf_alloc(&s, MAX_SCENARIOS, sizeof *s, "scenarios");
  if (st == HF_OK) st = comparison_new(&rows, c);
  HF_GO(done, st);
  if (v->fit) HF_GO(done, fit_engines(c->row, c->n, NULL, engines));
  if (v->fit) HF_GO(done, fit_spreads(c->row, c->n, engines));
  if (!v->fit) HF_GO(done, engine_set_load(engines));
  if (!v->quick) hf_progress_begin(&bar, "validate", "rows left out", c->n);
  st = comparison_run(c, engines, !v->quick, !v->quick, refitted, &bar);
  if (!v->quick) hf_progress_end(&bar);
  HF_GO(done, st);
  if (!v->quick) HF_GO(done, find_scenarios(&rows, s, &n_scenarios));
  HF_GO(done, write_answer(v, path, c, s, n_scenarios));
  if (v->markdown != NULL) HF_GO(done, write_page(v, c, s, n_scenarios, true, engines));
  if (!v->c.common.json) HF_GO(done, write_page(v, c, s, n_scenarios, false, engines));
  st = gates(v, c);
done:
  if (c != NULL) comparison_free(c);
  free(c);
  free(engines);
  free(s);
  published_cases_free(&rows);
  return st;
}

static const char description[] =
    "Predicts published measurements of other engines from the text of their rows and compares: "
    "signed errors per row and per group.\n\n"
    "Each row's machine is composed of catalog parts, its model and weight format come from the "
    "catalog, its placement and lengths from its "
    "text; the prediction is that of the planner's cost model with the priors of the row's engine "
    "(hf-plan catalog list priors): one set for "
    "all its rows, no tuning per row. Rows that do not say enough are declined with the reason. "
    "The errors that count, and that bars are held against, are those of a row that the priors had not "
    "seen; beside them those of a whole machine left out, and of the fit with all rows in it.\n\n"
    "Rows of our own engine that name no machine are answered by scenarios. Exit status 1 when a "
    "bar is missed, when more than half of the rows "
    "are declined, or when a group is worse than in --baseline.";

hf_status cmd_validate(int argc, char **argv) {
  validate_command v = {.bars = {0.15, 0.35, 0.25, 0.75, 0.95, 1.8}};
  const cli_option options[] = {
      {"fit", 0, CLI_FLAG, &v.fit, NULL,
       "Fit the priors from these rows first, print them, and use them instead of the catalog's.", 0, 0},
      {"quick", 0, CLI_FLAG, &v.quick, NULL,
       "Errors of the fit as it is: no refit without each row and each machine, no plans for rows of our own engine.", 0, 0},
      {"baseline", 0, CLI_STR, &v.baseline, "FILE", "An earlier answer (JSON): exit status 1 when a group has become worse.", 0,
       0},
      {"markdown", 0, CLI_STR, &v.markdown, "FILE", "Write the tables as Markdown, too.", 0, 0},
      {"max-median", 0, CLI_NUM, &v.bars.max_median, "X", "Bar for the median |error| of decode with experts on a CPU; 0.15.", 0,
       10},
      {"max-p90", 0, CLI_NUM, &v.bars.max_p90, "X", "Bar for its 90th percentile; 0.35.", 0, 10},
      {"max-prefill-median", 0, CLI_NUM, &v.bars.max_prefill_median, "X", "Bar for the median |error| of prefill; 0.25.", 0, 10},
      {"min-inside", 0, CLI_NUM, &v.bars.min_inside, "X", "Least share of decode figures inside their interval; 0.75.", 0, 1},
      {"max-inside", 0, CLI_NUM, &v.bars.max_inside, "X", "Most of it (wider intervals say nothing); 0.95.", 0, 1},
      {"max-width", 0, CLI_NUM, &v.bars.max_width, "X", "Bar for the median of high / low; 1.8.", 1, 100},
      {"no-store", 0, CLI_FLAG, &v.c.no_store, NULL, "Do not keep the answer in the database.", 0, 0},
      {0}};
  const cli_spec spec = {
      .program = "hf-plan",
      .verb = "validate",
      .synopsis = "CASES.csv [options]",
      .description = description,
      .examples = "  hf-plan validate tests/validation/published-cases.csv\n      Tables by group and by row.\n"
                  "  hf-plan validate tests/validation/published-cases.csv --fit --quick --no-store\n      The priors that these "
                  "rows support.\n",
      .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &v.c.common, &n, &rest, &stop));
  if (stop) return HF_OK;
  if (n < 1) return hf_fail(HF_INPUT, "name the CSV file of published cases; see hf-plan validate --help");
  HF_TRY(cmd_no_operands(n - 1, rest + 1, "validate"));
  return validate(&v, rest[0]);
}
