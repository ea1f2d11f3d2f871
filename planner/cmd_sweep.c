/* cmd_sweep.c: hf-plan sweep. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "planner/ask/sweep.h"
#include "planner/ask/title.h"
#include "planner/cmd.h"

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

static hf_status to_json(const void *w, json *doc) {
  return sweep_to_json(w, doc);
}
static hf_status to_text(const void *w, hf_buf *b) {
  return sweep_text(w, b, isatty(STDOUT_FILENO) == 1 && getenv("NO_COLOR") == NULL);
}
static hf_status to_csv(const void *w, hf_buf *b) {
  return sweep_csv(w, b);
}

static hf_status show(const sweep_command *q, const sweep *w) {
  char verdict[900], title[256], machine[ASK_MACHINE_WORDS];
  sweep_verdict(w, verdict, sizeof verdict);
  ask_machine_words(w->c[0].machine, machine);
  snprintf(title, sizeof title, "%.60s on %.130s over %s and %s", w->c[0].model, machine, ask_key_name(w->axis[0].key),
           ask_key_name(w->axis[1].key));
  const ask_writer writer = {"sweep", title, verdict, to_json, to_text, to_csv};
  HF_TRY(ask_show(&q->c, &writer, w));
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
    "to the first token and per further token, the cost of a million tokens (input and output together) where prices are known, "
    "the binding resource, and "
    "the proven gap.\n\n"
    "--users and --context hold where they are no axis. An axis is KEY=VALUE,VALUE,... or KEY=FIRST:LAST:xFACTOR or "
    "KEY=FIRST:LAST:+STEP; any key of hf-plan whatif can be one.\n\n"
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
  const cli_option own[] = {{"axis", 'a', CLI_MANY, &q.axis, "KEY=VALUES",
                             "An axis; at most twice. Default users=1,2,4,8,16,32 and context=2K,...,64K.", 0, 0},
                            {"knee", 0, CLI_NUM, &q.knee_percent, "PERCENT", "Gain at which a row bends; default 25.", 1, 100},
                            {0}};
  cli_option options[ASK_MAX_OPTIONS];
  HF_TRY(ask_options(&q.c, ASK_HAS_MACHINE | ASK_HAS_SCENARIO | ASK_HAS_LIMITS | ASK_HAS_EXACT, own, options));
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
