/* cmd_whatif.c: hf-plan whatif. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/ask/title.h"
#include "planner/ask/whatif.h"
#include "planner/cmd.h"

typedef struct {
  ask_command c;
  cli_texts set, named;
  bool together, alone;
} whatif_command;

static hf_status parse_all(const char *option, const cli_texts *texts, bool named, ask_changes **out) {
  HF_TRY(hf_alloc(out, (size_t)texts->n + 1, sizeof **out, "changes"));
  for (int i = 0; i < texts->n; i++) HF_TRY(ask_parse_changes(option, texts->v[i], named, &(*out)[i]));
  return HF_OK;
}

static hf_status to_json(const void *w, json *doc) {
  return whatif_to_json(w, doc);
}
static hf_status to_text(const void *w, hf_buf *b) {
  return whatif_text(w, b);
}
static hf_status to_csv(const void *w, hf_buf *b) {
  return whatif_csv(w, b);
}

static hf_status show(const whatif_command *q, const whatif *w) {
  char verdict[900], title[256], machine[ASK_MACHINE_WORDS];
  const ask_case *base = &w->column[0].c;
  whatif_verdict(w, verdict, sizeof verdict);
  ask_machine_words(base->machine, machine);
  snprintf(title, sizeof title, "What if: %.60s on %.130s, %lld users, context %lld", base->model, machine,
           (long long)base->users, (long long)base->context);
  const ask_writer writer = {"whatif", title, verdict, to_json, to_text, to_csv};
  HF_TRY(ask_show(&q->c, &writer, w));
  for (int i = 0; i < w->n; i++)
    if (w->column[i].c.feasible) return HF_OK;
  return hf_fail(HF_NO, "neither the base nor any change fits: %s", base->why_not);
}

static hf_status run_whatif(whatif_command *q) {
  ask_changes *sets = NULL, *named = NULL;
  ask_machine *base = NULL;
  model *m = NULL;
  db *d = NULL;
  whatif w = {.command = &q->c};
  hf_status st = HF_OK;
  HF_GO(done, parse_all("--set", &q->set, false, &sets));
  HF_GO(done, parse_all("--case", &q->named, true, &named));
  HF_GO(done, ask_check_csv(&q->c));
  HF_GO(done, ask_read_scenario(&q->c));
  HF_GO(done, ask_open_model(&q->c.req, &m));
  HF_GO(done, plan_quality_of(m, q->c.req.model, q->c.req.format, &w.quality));
  HF_GO(done, ask_command_machine(&q->c, &base));
  HF_GO(done, ask_command_db(&q->c, &d));
  HF_GO(done, whatif_columns(sets, q->set.n, named, q->named.n, q->together, q->alone, &w));
  HF_GO(done, whatif_evaluate(&w, d, base));
  db_close(d);
  d = NULL;
  HF_GO(done, show(q, &w));
done:
  whatif_free(&w);
  db_close(d);
  model_close(m);
  ask_machine_free(base);
  free(sets);
  free(named);
  return st;
}

static const char description[] =
    "Answers what changes of a machine or of its load would do: the base and every change side by side, each with its cause.\n\n"
    "Each --set is one column on top of the base; KEY=VALUE,KEY=VALUE in one --set are made together. --case does the same under "
    "a name of "
    "your own. After several --set follows a column with all of them together; where several give one key different values, that "
    "key is left "
    "out of it. A loss (lost=) is left out, too, and asked of the improved machine in a further column. --alone leaves these "
    "columns out, "
    "--together shows only them.\n\n"
    "Keys of the machine: machine (another one), cpu, sockets, dimm (kind of memory), dimm-size, dimms-per-channel, gpu (NAME, "
    "2xNAME, A+B, "
    "none), pcie (generation), dram (bandwidth such as 614GB/s, or xFACTOR), prior (engine), lost (gpuN or cpuN is out of "
    "order).\n"
    "Keys of the load: model, format, users, context, prompt, output, depth, threads, skew, kv.\n\n"
    "The base may be a catalog machine, a file, parts (cpu=NAME,gpu=NAME,...) or a measured machine. Changes of a measured "
    "machine scale its "
    "rows by rules that are printed and tagged scaled; where there is no rule they are refused.\n\n"
    "lost= also says how many users are still served within --slo-tpot and --slo-ttft, or, without those, as well as the base "
    "serves its own.";
static const char examples[] = "  hf-plan whatif --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8K --set "
                               "gpu=rtx5090 --set dimm=ddr5-6400 --set "
                               "users=20 --set lost=gpu0\n"
                               "      Base, four changes, the compatible ones together, and those without the GPU.\n"
                               "  hf-plan whatif --model kimi-k2 --machine xeon6-mrdimm-rtx4090 --case 'two cards:gpu=2xrtx4090' "
                               "--case one-socket:sockets=1\n"
                               "      Names of your own.\n"
                               "  hf-plan whatif --model examples/tiny-moe --set dram=x1.5\n"
                               "      The machine measured last with half more memory bandwidth.\n";

hf_status cmd_whatif(int argc, char **argv) {
  whatif_command q = {0};
  const cli_option own[] = {
      {"set", 's', CLI_MANY, &q.set, "KEY=VALUE[,KEY=VALUE]", "A change, one column; may be repeated.", 0, 0},
      {"case", 0, CLI_MANY, &q.named, "NAME:KEY=VALUE[,...]", "A change with a name; may be repeated.", 0, 0},
      {"together", 0, CLI_FLAG, &q.together, NULL, "Only the base and all --set together.", 0, 0},
      {"alone", 0, CLI_FLAG, &q.alone, NULL, "No column of all together.", 0, 0},
      {0}};
  cli_option options[ASK_MAX_OPTIONS];
  HF_TRY(ask_options(&q.c, ASK_HAS_MACHINE | ASK_HAS_SCENARIO | ASK_HAS_LIMITS | ASK_HAS_EXACT | ASK_HAS_DEPTH, own, options));
  const cli_spec spec = {.program = "hf-plan",
                         .verb = "whatif",
                         .synopsis = "--model M --machine BASE [--users N] [--context C] --set KEY=VALUE...",
                         .description = description,
                         .examples = examples,
                         .environment = "HF_CATALOG\nA folder of catalog files that add to or replace the built-in ones.\n",
                         .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &q.c.common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(cmd_no_operands(n, rest, "whatif"));
  if (q.set.n + q.named.n == 0)
    return hf_fail(HF_INPUT,
                   "option --set: missing: what is to change? For example --set gpu=rtx5090; see hf-plan whatif --help");
  if (q.together && q.alone) return hf_fail(HF_INPUT, "options --together and --alone exclude each other");
  return run_whatif(&q);
}
