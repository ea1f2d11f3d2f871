/* hf-report: pages from the database. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cli.h"
#include "base/log.h"
#include "reports/report.h"

static const char description[] =
    "Reports from the database as one page of HTML, as CSV and as JSON. They show what a machine can do, what was planned and "
    "how well it is "
    "proven, what a run did against its prediction, and what a machine that nobody here owns would do.\n\n"
    "KIND is one of\n\n"
    "  machine [ID]    a machine: facts, bandwidth, kernel curves\n"
    "  plan [ID]       a plan: placement, bound and gap, budget, alternatives\n"
    "  run [ID]        a run: predicted against measured, with sign\n"
    "  whatif [ID]     an answer of hf-plan whatif; with an ID, or where there\n"
    "                  is none, a plan for a catalog machine\n"
    "  sweep [ID]      an answer of hf-plan sweep: heat map, knees, curves\n"
    "  recommend [ID]  an answer of hf-plan recommend: ranking, regret, why not\n"
    "  formats [ID]    an answer of hf-plan formats: speed against quality\n"
    "  validate [ID]   an answer of hf-plan validate: signed errors by group and row\n"
    "  roi [ID]        an answer of hf-plan roi: cost per token, payback, flips\n"
    "  loop            everything on one page: machine, plan, run, re-plan\n"
    "                  with what moved and what it gained, what-if\n\n"
    "Without ID the newest is taken. The page is one HTML file that needs no network and no other file: it can be mailed, "
    "printed on A4 and "
    "read on a phone. The CSV holds every table of the page, each after a line 'table,ID,CAPTION'. Numbers in CSV and JSON are "
    "SI base units.\n\n"
    "Text from the database is never trusted: it is escaped in HTML, quoted in CSV, and what a spreadsheet would take for a "
    "formula gets an "
    "apostrophe in front.";

static const char examples[] =
    "  hf-report run --html run.html\n"
    "      The newest run against its prediction.\n"
    "  hf-report plan 3 --html plan.html --csv plan.csv --json\n"
    "      Plan 3 as a page and as tables; the JSON names the files and repeats the tables.\n"
    "  hf-report whatif 4 --published 51 --published-source 'vendor article of 2025-12-29' --html whatif.html\n"
    "      A prediction for a machine of the catalog beside a published figure.\n"
    "  hf-report loop --run 1,2 --published 51 --html loop.html\n"
    "      Machine, plan, run 1, re-plan, run 2 and the newest what-if on one page.\n";

typedef struct {
  report_options report;
  const char *html, *csv;
  cli_int_list plans, runs;
  cli_common common;
} options;

static hf_status two_ids(const cli_int_list *list, const char *name, int64_t out[2]) {
  if (list->n > 2) return hf_fail(HF_INPUT, "option --%s: %d ids, at most two: the first and the second", name, list->n);
  for (int i = 0; i < list->n; i++) out[i] = list->v[i];
  return HF_OK;
}

static hf_status check(options *o, int n, char **operands) {
  if (n == 0) return hf_fail(HF_INPUT, "which report? One of %s; see hf-report --help", report_kinds());
  if (n > 2) return hf_fail(HF_INPUT, "unexpected argument '%.60s'; see hf-report --help", operands[2]);
  size_t kind;
  HF_TRY(report_kind(operands[0], &kind)); /* before a database is looked for */
  o->report.kind = operands[0];
  o->report.operand = n == 2 ? operands[1] : NULL;
  HF_TRY(two_ids(&o->plans, "plan", o->report.plan));
  HF_TRY(two_ids(&o->runs, "run", o->report.run));
  if (o->report.published_source != NULL && !(o->report.published > 0))
    return hf_fail(HF_INPUT, "option --published-source: says where a figure comes from that --published does not give");
  if (o->html != NULL && *o->html == 0) return hf_fail(HF_INPUT, "option --html: the file name is empty");
  if (o->csv != NULL && *o->csv == 0) return hf_fail(HF_INPUT, "option --csv: the file name is empty");
  if (o->html != NULL && o->csv != NULL && strcmp(o->html, o->csv) == 0)
    return hf_fail(HF_INPUT, "options --html and --csv name the same file");
  return HF_OK;
}

static hf_status write_file(const page *p, const char *path, hf_status (*print)(const page *, hf_buf *)) {
  hf_buf b;
  hf_buf_init(&b, (size_t)1 << 30);
  hf_status st = print(p, &b);
  if (st == HF_OK) st = hf_write_file(path, b.len > 0 ? b.data : "", b.len);
  hf_buf_free(&b);
  return st;
}

static hf_status print_json(const options *o, const page *p) {
  char *text = NULL;
  json *root = json_new_object(), *files = json_add_array(root, "files");
  if (o->html != NULL) json_add_str(files, NULL, o->html);
  if (o->csv != NULL) json_add_str(files, NULL, o->csv);
  hf_status st = page_json(p, root);
  if (st == HF_OK) st = json_print(root, true, &text);
  json_free(root);
  if (st == HF_OK && puts(text) < 0) st = hf_fail(HF_MACHINE, "standard output: cannot write");
  free(text);
  return st;
}

static hf_status make(const options *o) {
  char path[1024];
  db *d = NULL;
  page *p = NULL;
  HF_TRY(db_default_path(o->common.db_path, path, sizeof path));
  HF_TRY(db_open(path, false, &d));
  hf_status st = report_build(d, &o->report, &p);
  db_close(d);
  if (st == HF_OK && o->html != NULL) st = write_file(p, o->html, page_html);
  if (st == HF_OK && o->csv != NULL) st = write_file(p, o->csv, page_csv);
  if (st == HF_OK && o->common.json) st = print_json(o, p);
  if (st == HF_OK && !o->common.json) {
    for (int i = 0; i < page_verdict_count(p); i++) printf("%s\n", page_verdict_fact(p, i));
    if (o->html != NULL) printf("%s\n", o->html);
    if (o->csv != NULL) printf("%s\n", o->csv);
  }
  page_free(p);
  return st;
}

int main(int argc, char **argv) {
  options o = {0};
  const cli_option table[] = {
      {"html", 'o', CLI_STR, &o.html, "FILE", "Write the page there.", 0, 0},
      {"csv", 0, CLI_STR, &o.csv, "FILE", "Write every table of the page there.", 0, 0},
      {"machine", 0, CLI_STR, &o.report.machine, "NAME_OR_ID",
       "Machine of a loop; default the plan's, else the one measured last.", 0, 0},
      {"plan", 0, CLI_LIST, &o.plans, "ID[,ID]",
       "First plan and re-plan of a loop; default the newest re-plan that was run, and the plan of the run it was made from.", 1,
       1e12},
      {"run", 0, CLI_LIST, &o.runs, "ID[,ID]", "First and second run of a loop; default the runs of its plans.", 1, 1e12},
      {"whatif", 0, CLI_INT, &o.report.whatif, "PLAN_ID",
       "What-if of a loop; default the newest plan for a machine that was not measured here.", 1, 1e12},
      {"answer", 0, CLI_INT, &o.report.answer, "ID",
       "The answer of hf-plan to show (answer_id), for whatif, sweep, recommend and roi; default the newest of its kind.", 1,
       1e12},
      {"published", 0, CLI_NUM, &o.report.published, "TOK_PER_S",
       "A published figure to set beside the what-if, in tokens per second of all users.", 0, 1e12},
      {"published-source", 0, CLI_STR, &o.report.published_source, "TEXT", "Where that figure comes from.", 0, 0},
      {0}};
  const cli_spec spec = {.program = "hf-report",
                         .synopsis = "KIND [ID] --html FILE [--csv FILE] [options]",
                         .description = description,
                         .examples = examples,
                         .options = table};
  int n = 0;
  char **operands = NULL;
  bool stop = false;
  hf_status st = cli_parse(&spec, argc, argv, &o.common, &n, &operands, &stop);
  if (st == HF_OK && !stop) {
    hf_log_set_level(o.common.quiet ? HF_LOG_WARN : o.common.verbose ? HF_LOG_DEBUG : HF_LOG_INFO);
    st = check(&o, n, operands);
    if (st == HF_OK && o.html == NULL && o.csv == NULL && !o.common.json)
      st = hf_fail(HF_INPUT, "nothing to write: say --html FILE, --csv FILE or --json");
    if (st == HF_OK) st = make(&o);
  }
  return cli_finish("hf-report", st);
}
