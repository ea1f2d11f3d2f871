/* hf-plan: chooses by integer programming where each expert lives and how deep to pipeline; answers before download and purchase. */
#include <string.h>

#include "base/text.h"
#include "planner/cmd.h"
#include "planner/plan_inputs.h"

static const char verbs[] = "plan, whatif, sweep, recommend, formats, roi, evaluate, simulate, stages, catalog, validate";

static const struct {
  const char *name;
  hf_status (*run)(int, char **);
} table[] = {{"plan", cmd_plan},       {"whatif", cmd_whatif},   {"sweep", cmd_sweep},       {"recommend", cmd_recommend},
             {"formats", cmd_formats}, {"roi", cmd_roi},         {"evaluate", cmd_evaluate}, {"simulate", cmd_simulate},
             {"stages", cmd_stages},   {"catalog", cmd_catalog}, {"validate", cmd_validate}};
enum { N_VERBS = sizeof table / sizeof *table };

static hf_status unknown_verb(const char *word) {
  int best = 0, least = HF_EDIT_FAR;
  for (int i = 0; i < N_VERBS; i++) {
    int d = hf_edit_distance(word, strlen(word), table[i].name);
    if (d < least) best = i, least = d;
  }
  if (least <= 3 && least < (int)strlen(word))
    return hf_fail(HF_INPUT, "'%.60s' is no verb; is %s meant? (%s; see hf-plan --help)", word, table[best].name, verbs);
  return hf_fail(HF_INPUT, "'%.60s' is none of the verbs %s; see hf-plan --help", word, verbs);
}

static hf_status cmd_none(int argc, char **argv) {
  cli_common common = {0};
  const cli_option options[] = {{0}};
  const cli_spec spec = {.program = "hf-plan",
                         .synopsis = "VERB [options]",
                         .description = "Chooses where each expert of a Mixture-of-Experts model lives and how deep to pipeline, "
                                        "proven to a gap, and predicts what that "
                                        "gives; for machines that were measured and for machines nobody owns yet.\n\n"
                                        "   plan      choose placement and depth, check memory, simulate, store\n"
                                        "   whatif    a machine and changes of it side by side, each with its cause\n"
                                        "   sweep     a table over users and context, or any two things\n"
                                        "   recommend the cheapest machines of the catalog that meet a demand\n"
                                        "   formats   which weight format for which part, speed against quality\n"
                                        "   roi       what tokens cost, payback, break-even, what would flip it\n"
                                        "   evaluate  the exact objective of any placement\n"
                                        "   simulate  latencies, throughput, queues and energy of a plan under any load\n"
                                        "   stages    how long each stage takes on a machine\n"
                                        "   catalog   known models and hardware\n"
                                        "   validate  predictions against published measurements, with signed errors\n\n"
                                        "Each verb has its own page: hf-plan VERB --help.",
                         .examples =
                             "  hf-plan plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192\n"
                             "      DeepSeek-R1 for five users on one 24 GB GPU and two Xeon 6 with MRDIMM.\n",
                         .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  if (argc > 1 && argv[1][0] != '-') return unknown_verb(argv[1]); /* before its options, which no verb explains */
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  if (stop) return HF_OK;
  if (n > 0) return unknown_verb(rest[0]);
  return hf_fail(HF_INPUT, "say what to do: one of %s; see hf-plan --help", verbs);
}

int main(int argc, char **argv) {
  plan_use_catalog();
  for (size_t i = 0; argc > 1 && i < N_VERBS; i++)
    if (strcmp(argv[1], table[i].name) == 0) return cli_finish("hf-plan", table[i].run(argc - 1, argv + 1));
  return cli_finish("hf-plan", cmd_none(argc, argv));
}
