/* cmd_stages.c: hf-plan stages: the times that everything else goes by. */
#include <stdio.h>
#include <string.h>

#include "planner/cmd.h"
#include "planner/plan_inputs.h"

enum { MOST_CHUNK = 16384 };

static void print_curve(const char *name, const stage_curve *c) {
  printf("    %-7s", name);
  for (int i = 0; i < c->n; i++) printf(" %g:%.3g", c->tok[i], 1e-3 * c->ns[i]);
  printf("\n");
}

static void print_places(const stage_table *t, int l) {
  for (int p = 1; t->place != NULL && p <= t->n_devices + t->n_remotes; p++) {
    char name[24];
    if (t->n_devices > 0 && p == 1 + t->layer[l].home) continue;
    snprintf(name, sizeof name, p <= t->n_devices ? "gpu%d" : "remote%d", p <= t->n_devices ? p - 1 : p - 1 - t->n_devices);
    const stage_place *s = stage_place_of(t, l, p);
    print_curve(name, &s->exp);
    printf("    fixed   %s %.3g, hand %.3g + %.3g per token\n", name, 1e-3 * s->fixed_ns, 1e-3 * s->hand_ns,
           1e-3 * s->hand_tok_ns);
  }
}

static void print_figures(const json *list) {
  printf("  figures\n");
  for (const json *o = json_first(list); o != NULL; o = json_next(o))
    printf("    %-28s %-7s %10.4g (%.4g to %.4g) %-6s %s: %s\n", json_string(json_get(o, "name")),
           json_string(json_get(o, "device")), json_number(json_get(o, "likely"), 0), json_number(json_get(o, "low"), 0),
           json_number(json_get(o, "high"), 0), json_string(json_get(o, "unit")), json_string(json_get(o, "tag")),
           json_string(json_get(o, "source")));
}

/* Tokens of a chunk from which on sending a layer's experts to the device beats computing them on the CPU, all being there. */
static hf_status add_crossings(const plan_inputs *in, const stage_table *t, json *list) {
  popularity *pop = NULL;
  HF_TRY(popularity_uniform(in->c, &pop));
  for (int l = 0; l < t->n_layers; l++) {
    int at = cost_prefill_crossing(t, pop, l, MOST_CHUNK);
    json_add_int(list, NULL, at == INT32_MAX ? 0 : at);
  }
  popularity_free(pop);
  return HF_OK;
}

static void print_crossings(const stage_table *t, const json *list) {
  int l = 0, least = INT32_MAX, most = 0, never = 0;
  for (const json *x = json_first(list); x != NULL; x = json_next(x), l++) {
    int at = (int)json_number(x, 0);
    if (!t->layer[l].moe) continue;
    never += at == 0;
    if (at > 0 && at < least) least = at;
    if (at > most) most = at;
  }
  if (most > 0) printf("    upload  beats the CPU in prefill from %d to %d tokens of a chunk on\n", least, most);
  if (never > 0 && !t->one_resource)
    printf("    upload  never beats the CPU in %d layers up to %d tokens\n", never, (int)MOST_CHUNK);
}

static void print_table(const stage_table *t) {
  printf("Stage times in us over tokens, tag %s; step %.3g us%s\n", t->tag, 1e-3 * t->step_fixed_ns,
         t->one_resource ? "; one resource, nothing overlaps" : "");
  for (int l = 0; l < t->n_layers; l++) {
    const stage_layer *y = &t->layer[l];
    if (l > 0 && y->moe == t->layer[l - 1].moe && l + 1 < t->n_layers) continue; /* first of each kind, and the last */
    printf("  layer %d (%s)\n", l, y->moe ? "MoE" : "dense");
    print_curve("attn", &y->attn);
    printf("    context %.4g ns per token of context and query, %.4g per sequence; a sequence %.4g us\n", y->attn_ctx_ns,
           y->attn_seq_ctx_ns, y->attn_seq_ns / 1e3);
    print_curve("shared", &y->shared);
    if (!y->moe) continue;
    print_curve("cexp", &y->cexp);
    if (!t->one_resource) print_curve("dexp", &y->dexp);
    printf("    fixed   cexp %.3g, hand %.3g + %.3g per token\n", 1e-3 * y->cexp_fixed_ns, 1e-3 * y->hand_ns,
           1e-3 * y->hand_tok_ns);
    if (y->upload_ns > 0) printf("    upload  %.3g per expert\n", 1e-3 * y->upload_ns);
    print_places(t, l);
  }
  print_curve("head", &t->head);
  if (t->window > 0) printf("    window  %d tokens in sliding layers\n", t->window);
  if (t->contend > 1) printf("    contend %.3f: device and CPU disturb each other\n", t->contend);
  if (t->contend_dma > 1) printf("    contend %.3f: uploads and CPU disturb each other\n", t->contend_dma);
}

static hf_status print_stages(const plan_inputs *in, const stage_table *t, bool as_json) {
  cost_input ci = plan_cost_input(in);
  hf_status st = HF_OK;
  json *o = json_new_object();
  json_add_str(o, "model", in->req.model);
  json_add_str(o, "machine", in->host->machine.name);
  json_add_str(o, "gpu", in->gpu.text);
  json_add_str(o, "format", in->format_name);
  HF_GO(done, stage_table_to_json(t, o));
  HF_GO(done, add_crossings(in, t, json_add_array(o, "prefill_crossing_tokens"))); /* 0: never */
  HF_GO(done, cost_provenance(&ci, json_add_array(o, "figures")));
  if (as_json) {
    st = cmd_print_json(o);
    goto done;
  }
  print_table(t);
  print_crossings(t, json_get(o, "prefill_crossing_tokens"));
  print_figures(json_get(o, "figures"));
done:
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
      {"kv-type", 0, CLI_STR, &r.kv_type, "TYPE", "As in hf-plan plan.", 0, 0},
      {"users", 'u', CLI_INT, &r.users, "N", "With several devices: users, context and lengths decide which layers each has.", 1,
       64},
      {"context", 'c', CLI_INT, &r.context, "N", "As in hf-plan plan.", 2, 16777216},
      {"prompt-tokens", 0, CLI_INT, &r.prompt_tokens, "N", "As in hf-plan plan.", 1, 16777216},
      {"output-tokens", 0, CLI_INT, &r.output_tokens, "N", "As in hf-plan plan.", 1, 16777216},
      {"homes", 0, CLI_STR, &r.homes, "LIST", "Device that each layer lives on, 0,0,1,…; default the planner's choice.", 0, 0},
      {"remote", 0, CLI_STR, &r.remotes, "MACHINE:LINK[,…]", "As in hf-plan plan.", 0, 0},
      {"scale-from", 0, CLI_STR, &r.scale_from, "MACHINE", "As in hf-plan plan.", 0, 0},
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
