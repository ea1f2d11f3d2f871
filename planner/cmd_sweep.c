/* cmd_sweep.c: hf-plan sweep. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "planner/ask/sweep.h"
#include "planner/cmd.h"
#include "sched/sched.h"

enum { TEXT_LIMIT = 64 << 20 };

static const char default_users[] = "users=1,2,4,8,16,32", default_context[] = "context=2K,4K,8K,16K,32K,64K";

typedef struct {
  ask_command c;
  cli_texts axis;
  double knee_percent;
} sweep_command;

static void one_done(void *user, int i) {
  (void)i;
  hf_progress_add(user, 1);
}

/* The default context stops at what the model can. */
static void cut_context(ask_axis *a, const model_config *c) {
  int kept = 0;
  for (int i = 0; i < a->n; i++)
    if (c->max_context <= 0 || a->point[i].number <= c->max_context) a->point[kept++] = a->point[i];
  if (kept > 0) a->n = kept;
}

/* Those not given are users and context; users come first where they can. */
static hf_status read_axes(const sweep_command *q, const model_config *m, sweep *w) {
  int n = 0;
  if (q->axis.n > 2) return hf_fail(HF_INPUT, "option --axis: given %d times; a table has two axes", q->axis.n);
  for (; n < q->axis.n; n++) HF_TRY(ask_parse_axis("--axis", q->axis.v[n], &w->axis[n]));
  if (n == 2) return HF_OK;
  bool users = n == 1 && w->axis[0].key == ASK_USERS;
  if (n == 1 && !users) w->axis[1] = w->axis[0];
  if (!users) HF_TRY(ask_parse_axis("--axis", default_users, &w->axis[0]));
  if (n == 1 && !users) return HF_OK;
  HF_TRY(ask_parse_axis("--axis", default_context, &w->axis[1]));
  cut_context(&w->axis[1], m);
  return HF_OK;
}

static hf_status show(const sweep_command *q, const sweep *w) {
  char verdict[900], title[256];
  hf_buf text, csv;
  hf_buf_init(&text, TEXT_LIMIT);
  hf_buf_init(&csv, TEXT_LIMIT);
  json *doc = ask_new_answer("sweep");
  sweep_verdict(w, verdict, sizeof verdict);
  snprintf(title, sizeof title, "%.80s on %.90s over %s and %s", w->c[0].model, w->c[0].machine, ask_key_name(w->axis[0].key),
           ask_key_name(w->axis[1].key));
  hf_status st = sweep_to_json(w, doc);
  if (st == HF_OK) st = sweep_text(w, &text, isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == NULL);
  if (st == HF_OK && q->c.csv != NULL) st = sweep_csv(w, &csv);
  if (st == HF_OK && q->c.csv != NULL) st = ask_write_csv(q->c.csv, &csv);
  if (st == HF_OK) st = ask_finish(&q->c, doc, "sweep", title, verdict);
  if (st == HF_OK && !q->c.common.json) fputs(text.data, stdout);
  json_free(doc);
  hf_buf_free(&text);
  hf_buf_free(&csv);
  if (st != HF_OK) return st;
  for (int k = 0; k < w->axis[0].n * w->axis[1].n; k++)
    if (w->c[k].feasible) return HF_OK;
  return hf_fail(HF_NO, "no cell fits: %s", w->c[0].why_not);
}

static hf_status run_sweep(sweep_command *q) {
  ask_machine *base = NULL;
  model *m = NULL;
  db *d = NULL;
  sweep w = {.command = &q->c, .knee_gain = q->knee_percent / 100};
  hf_progress bar = {0};
  hf_status st = HF_OK;
  HF_GO(done, ask_check_csv(&q->c));
  HF_GO(done, ask_read_scenario(&q->c));
  HF_GO(done, ask_open_model(&q->c.req, &m));
  HF_GO(done, read_axes(q, model_get_config(m), &w));
  HF_GO(done, ask_command_machine(&q->c, &base));
  HF_GO(done, ask_command_db(&q->c, &d));
  HF_GO(done, sweep_prepare(&w, d, base));
  db_close(d);
  d = NULL;
  hf_progress_begin(&bar, "sweep", "cells", (int64_t)w.axis[0].n * w.axis[1].n);
  st = sweep_run(&w, one_done, &bar);
  hf_progress_end(&bar);
  if (st == HF_OK) st = show(q, &w);
done:
  sweep_free(&w);
  db_close(d);
  model_close(m);
  ask_machine_free(base);
  return st;
}

static const char description[] =
    "Plans and simulates every cell of a table over two axes, by default users and context: tokens per second, 95th percentiles "
    "of the time "
    "to the first token and per further token, the cost of a million tokens where prices are known, the binding resource, and "
    "the proven gap.\n\n"
    "An axis is KEY=VALUE,VALUE,... or KEY=FIRST:LAST:xFACTOR or KEY=FIRST:LAST:+STEP; any key of hf-plan whatif can be one.\n\n"
    "The knee of a row of users is the last number of users at which a further one still adds at least --knee percent of what a "
    "user adds "
    "at the start of the row and, with --slo-tpot or --slo-ttft, all still meet the SLO.\n\n"
    "Cells take the placement of the Lagrangian search where its proven gap is at most 0.5 %, unless --exact is given; the gap "
    "of every cell is in "
    "the answer.";
static const char examples[] = "  hf-plan sweep --model deepseek-r1 --machine xeon6-mrdimm-rtx4090\n"
                               "      Users by context.\n"
                               "  hf-plan sweep --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --axis users=1:64:x2 --axis "
                               "gpu=none,rtx4090,rtx5090 --context 16K --slo-tpot 0.2\n"
                               "      How many users which card serves at five tokens a second each.\n"
                               "  hf-plan sweep --model kimi-k2 --machine epyc9755-2s-rtx5090 --axis users=1,4,16 --axis "
                               "format=q4_k_m,q8_0 --csv table.csv\n"
                               "      Weight formats, also as CSV.\n";

hf_status cmd_sweep(int argc, char **argv) {
  sweep_command q = {.knee_percent = 25};
  plan_request *r = &q.c.req;
  const cli_option options[] = {
      {"model", 'm', CLI_STR, &r->model, "NAME_OR_PATH", "Folder, GGUF file, synth:CONFIG,key=value,... or a catalog name.", 0,
       0},
      {"machine", 'M', CLI_STR, &r->machine, "NAME",
       "Catalog name, file, parts, or machine of the database; default the last one measured.", 0, 0},
      {"axis", 'a', CLI_MANY, &q.axis, "KEY=VALUES",
       "An axis; at most twice. Default users=1,2,4,8,16,32 and context=2K,...,64K.", 0, 0},
      {"users", 'u', CLI_INT, &r->users, "N", "Users where they are no axis; default 1.", 1, SCHED_MAX_SEQS},
      {"context", 'c', CLI_SIZE, &r->context, "N", "Context where it is no axis, K binary; default 4096.", 2, 16777216},
      {"slo-ttft", 0, CLI_NUM, &q.c.slo.ttft_s, "S", "Limit on the 95th percentile of the time to the first token.", 0, 0},
      {"slo-tpot", 0, CLI_NUM, &q.c.slo.tpot_s, "S", "Limit on the 95th percentile of the time per further token.", 0, 0},
      {"knee", 0, CLI_NUM, &q.knee_percent, "PERCENT", "Gain at which a row bends; default 25.", 1, 100},
      {"exact", 0, CLI_FLAG, &q.c.exact, NULL, "Every cell is the full plan of hf-plan plan; several times slower.", 0, 0},
      {"prompt-tokens", 0, CLI_INT, &r->prompt_tokens, "N", "Length of prompts; default the context less the output.", 1,
       16777216},
      {"output-tokens", 0, CLI_INT, &r->output_tokens, "N", "Length of answers; default a quarter of the context, at most 512.",
       1, 16777216},
      {"format", 'f', CLI_STR, &r->format, "F", "Weight format; default as stored or as the catalog says.", 0, 0},
      {"gpu", 'g', CLI_STR, &r->gpu, "DEVICE", "Devices as in hf-plan plan; default those of the machine.", 0, 0},
      {"skew", 0, CLI_STR, &r->skew, "uniform|zipf:S", "Assumed popularity of experts; default uniform.", 0, 0},
      {"threads", 't', CLI_INT, &r->threads, "N", "CPU threads of the machine; default all cores.", 1, 4096},
      {"scenario", 0, CLI_STR, &q.c.scenario_name, "NAME_OR_FILE", "Prices for the cost of a million tokens, as in hf-plan roi.",
       0, 0},
      {"jobs", 'j', CLI_INT, &q.c.jobs, "N", "Threads of this search; default all cores. The answer does not depend on it.", 1,
       256},
      {"csv", 0, CLI_STR, &q.c.csv, "FILE", "Also write the table there.", 0, 0},
      {"no-store", 0, CLI_FLAG, &q.c.no_store, NULL, "Do not keep the answer in the database.", 0, 0},
      {0}};
  const cli_spec spec = {.program = "hf-plan",
                         .verb = "sweep",
                         .synopsis = "--model M --machine NAME [--axis KEY=VALUES]... [options]",
                         .description = description,
                         .examples = examples,
                         .environment = "HF_CATALOG\nA folder of catalog files that add to or replace the built-in ones.\n"
                                        "NO_COLOR\nSet: no colours on a terminal.\n",
                         .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &q.c.common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(cmd_no_operands(n, rest, "sweep"));
  return run_sweep(&q);
}
