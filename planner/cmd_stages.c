/* cmd_stages.c: hf-plan stages: the times that everything else goes by. */
#include <stdio.h>
#include <string.h>

#include "planner/cmd.h"
#include "planner/plan_inputs.h"

static void print_curve(const char *name, const stage_curve *c) {
  printf("    %-7s", name);
  for (int i = 0; i < c->n; i++) printf(" %g:%.3g", c->tok[i], 1e-3 * c->ns[i]);
  printf("\n");
}

static void print_table(const stage_table *t) {
  printf("Stage times in us over tokens, tag %s; step %.3g us%s\n", t->tag, 1e-3 * t->step_fixed_ns,
         t->one_resource ? "; one resource, nothing overlaps" : "");
  for (int l = 0; l < t->n_layers; l++) {
    const stage_layer *y = &t->layer[l];
    if (l > 0 && y->moe == t->layer[l - 1].moe && l + 1 < t->n_layers) continue; /* first of each kind, and the last */
    printf("  layer %d (%s)\n", l, y->moe ? "MoE" : "dense");
    print_curve("attn", &y->attn);
    printf("    context %.4g ns per token of context and query, %.4g per sequence\n", y->attn_ctx_ns, y->attn_seq_ctx_ns);
    print_curve("shared", &y->shared);
    if (!y->moe) continue;
    print_curve("cexp", &y->cexp);
    if (!t->one_resource) print_curve("dexp", &y->dexp);
    printf("    fixed   cexp %.3g, hand %.3g + %.3g per token\n", 1e-3 * y->cexp_fixed_ns, 1e-3 * y->hand_ns,
           1e-3 * y->hand_tok_ns);
  }
  print_curve("head", &t->head);
}

static hf_status print_stages(const plan_inputs *in, const stage_table *t, bool as_json) {
  if (!as_json) {
    print_table(t);
    return HF_OK;
  }
  json *o = json_new_object();
  json_add_str(o, "model", in->req.model);
  json_add_str(o, "machine", in->host->machine.name);
  json_add_str(o, "gpu", in->gpu.text);
  json_add_str(o, "format", in->format_name);
  hf_status st = stage_table_to_json(t, o);
  if (st == HF_OK) st = cmd_print_json(o);
  json_free(o);
  return st;
}

hf_status cmd_stages(int argc, char **argv) {
  plan_request r = {0};
  cli_common common = {0};
  const char *side = "likely";
  const cli_option options[] = {
      {"model", 'm', CLI_STR, &r.model, "NAME_OR_PATH", "As in hf-plan plan.", 0, 0},
      {"machine", 'M', CLI_STR, &r.machine, "NAME_OR_ID_OR_FILE", "As in hf-plan plan.", 0, 0},
      {"gpu", 'g', CLI_STR, &r.gpu, "DEVICE", "As in hf-plan plan.", 0, 0},
      {"format", 'f', CLI_STR, &r.format, "F", "As in hf-plan plan.", 0, 0},
      {"threads", 't', CLI_INT, &r.threads, "N", "CPU threads; default all cores.", 1, 4096},
      {"case", 0, CLI_STR, &side, "low|likely|high", "Machine at the low, likely or high end of every figure.", 0, 0},
      {0}};
  const cli_spec spec = {
      .program = "hf-plan",
      .verb = "stages",
      .synopsis = "--model NAME_OR_PATH --machine NAME [options]",
      .description = "Prints how long each stage of a step takes, over tokens, as the planner has it from the database: what the "
                     "placement is chosen by and what a paced device keeps to.",
      .examples = "  hf-plan stages --model deepseek-r1 --machine xeon6-mrdimm-rtx4090\n      Times per layer on that machine.\n",
      .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(cmd_no_operands(n, rest, "stages"));
  cost_case c = {.groups = COST_ALL, .side = strcmp(side, "low") == 0 ? -1 : strcmp(side, "high") == 0 ? 1 : 0};
  if (c.side == 0 && strcmp(side, "likely") != 0)
    return hf_fail(HF_INPUT, "option --case: '%s' is none of low, likely, high", side);
  if (r.model == NULL) return hf_fail(HF_INPUT, "option --model: missing; see hf-plan stages --help");
  db *d = NULL;
  plan_inputs *in = NULL;
  stage_table *t = NULL;
  hf_status st = HF_OK;
  HF_TRY(cmd_open_db(&common, &d));
  HF_GO(done, plan_inputs_open(d, &r, &in));
  cost_input ci = plan_cost_input(in);
  HF_GO(done, cost_table(&ci, c, &t));
  st = print_stages(in, t, common.json);
done:
  stage_table_free(t);
  plan_inputs_close(in);
  db_close(d);
  return st;
}
