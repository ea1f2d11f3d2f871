/* cmd_whatif.c: hf-plan whatif. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/ask/whatif.h"
#include "planner/cmd.h"
#include "sched/sched.h"

enum { TEXT_LIMIT = 16 << 20 };

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

static hf_status show(const whatif_command *q, const whatif *w) {
  char verdict[900], title[256];
  hf_buf text, csv;
  hf_buf_init(&text, TEXT_LIMIT);
  hf_buf_init(&csv, TEXT_LIMIT);
  json *doc = ask_new_answer("whatif");
  const ask_case *base = &w->column[0].c;
  whatif_verdict(w, verdict, sizeof verdict);
  snprintf(title, sizeof title, "What if: %.80s on %.90s, %lld users, context %lld", base->model, base->machine,
           (long long)base->users, (long long)base->context);
  hf_status st = whatif_to_json(w, doc);
  if (st == HF_OK) st = whatif_text(w, &text);
  if (st == HF_OK && q->c.csv != NULL) st = whatif_csv(w, &csv);
  if (st == HF_OK && q->c.csv != NULL) st = ask_write_csv(q->c.csv, &csv);
  if (st == HF_OK) st = ask_finish(&q->c, doc, "whatif", title, verdict);
  if (st == HF_OK && !q->c.common.json) fputs(text.data, stdout);
  json_free(doc);
  hf_buf_free(&text);
  hf_buf_free(&csv);
  if (st != HF_OK) return st;
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
    "none), pcie (generation), dram (bytes per second such as 614G, or xFACTOR), prior (engine), lost (gpuN or cpuN is out of "
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
  plan_request *r = &q.c.req;
  const cli_option options[] = {
      {"model", 'm', CLI_STR, &r->model, "NAME_OR_PATH", "Folder, GGUF file, synth:CONFIG,key=value,... or a catalog name.", 0,
       0},
      {"machine", 'M', CLI_STR, &r->machine, "BASE",
       "Catalog name, file, parts, or machine of the database; default the last one measured.", 0, 0},
      {"users", 'u', CLI_INT, &r->users, "N", "Users at once; default 1.", 1, SCHED_MAX_SEQS},
      {"context", 'c', CLI_SIZE, &r->context, "N", "Most tokens of a sequence, K binary; default 4096 or what the model can.", 2,
       16777216},
      {"set", 's', CLI_MANY, &q.set, "KEY=VALUE[,KEY=VALUE]", "A change, one column; may be repeated.", 0, 0},
      {"case", 0, CLI_MANY, &q.named, "NAME:KEY=VALUE[,...]", "A change with a name; may be repeated.", 0, 0},
      {"together", 0, CLI_FLAG, &q.together, NULL, "Only the base and all --set together.", 0, 0},
      {"alone", 0, CLI_FLAG, &q.alone, NULL, "No column of all together.", 0, 0},
      {"exact", 0, CLI_FLAG, &q.c.exact, NULL,
       "Placements proven as by hf-plan plan; else those of the Lagrangian search stand where their proven gap is at most 0.5 %.",
       0, 0},
      {"slo-ttft", 0, CLI_NUM, &q.c.slo.ttft_s, "S", "Limit on the 95th percentile of the time to the first token.", 0, 0},
      {"slo-tpot", 0, CLI_NUM, &q.c.slo.tpot_s, "S", "Limit on the 95th percentile of the time per further token.", 0, 0},
      {"prompt-tokens", 0, CLI_INT, &r->prompt_tokens, "N", "Length of prompts; default the context less the output.", 1,
       16777216},
      {"output-tokens", 0, CLI_INT, &r->output_tokens, "N", "Length of answers; default a quarter of the context, at most 512.",
       1, 16777216},
      {"format", 'f', CLI_STR, &r->format, "F", "Weight format; default as stored or as the catalog says.", 0, 0},
      {"gpu", 'g', CLI_STR, &r->gpu, "DEVICE", "Devices of the base as in hf-plan plan; default those of the machine.", 0, 0},
      {"skew", 0, CLI_STR, &r->skew, "uniform|zipf:S", "Assumed popularity of experts; default uniform.", 0, 0},
      {"threads", 't', CLI_INT, &r->threads, "N", "CPU threads of the machine; default all cores.", 1, 4096},
      {"scenario", 0, CLI_STR, &q.c.scenario_name, "NAME_OR_FILE", "Prices for the cost of a million tokens, as in hf-plan roi.",
       0, 0},
      {"jobs", 'j', CLI_INT, &q.c.jobs, "N", "Threads of this search; default all cores.", 1, 256},
      {"csv", 0, CLI_STR, &q.c.csv, "FILE", "Also write the table there.", 0, 0},
      {"no-store", 0, CLI_FLAG, &q.c.no_store, NULL, "Do not keep the answer in the database.", 0, 0},
      {0}};
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
