/* cmd_evaluate.c: hf-plan evaluate: the judge of any placement. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cmd.h"
#include "planner/plan_eval.h"

/* Bytes in RAM with the experts that this placement leaves there. */
static void ram_violation(const plan *p, const plan_eval *v, int64_t resident, json *list) {
  int64_t sum = 0, limit = 0, all = 0;
  for (int l = 0; l < p->n_layers; l++)
    if (p->layer[l].moe) all += v->expert_bytes[l] * p->n_experts;
  for (int i = 0; i < p->n_budget; i++) {
    if (strcmp(p->budget[i].where, "ram") != 0) continue;
    limit = p->budget[i].limit_bytes;
    sum += strcmp(p->budget[i].what, "experts on the CPU") == 0 ? 0 : p->budget[i].bytes;
  }
  sum += all - resident;
  if (limit <= 0 || sum <= limit) return;
  char line[160];
  snprintf(line, sizeof line, "ram: needs %lld bytes and has %lld", (long long)sum, (long long)limit);
  json_add_str(list, NULL, line);
}

static hf_status evaluate_plan(const plan *p, const plan_eval *v, json *o) {
  uint8_t *placement = NULL;
  ilp_evaluation e;
  HF_TRY(plan_placement(p, p->n_layers, p->n_experts, &placement));
  ilp_problem prob = plan_eval_problem(v, 1u << (p->depth - 1));
  hf_status st = ilp_evaluate(&prob, placement, p->depth, NULL, &e);
  free(placement);
  HF_TRY(st);
  json_add_num(o, "objective_ns", e.objective_ns);
  json *list = json_new_array();
  char line[160];
  int64_t away = 0;
  for (int q = 1; q < STAGE_MAX_PLACES; q++) away += e.place_bytes[q];
  if (!e.fits && e.over_place > 0) {
    int devices = v->table->one_resource ? 0 : v->table->n_devices;
    snprintf(line, sizeof line, "%s%d: experts need %lld bytes and have %lld", e.over_place <= devices ? "gpu" : "machine",
             e.over_place <= devices ? e.over_place - 1 : e.over_place - devices, (long long)e.place_bytes[e.over_place],
             (long long)ilp_place_room(&prob, e.over_place, p->depth));
    json_add_str(list, NULL, line);
  }
  ram_violation(p, v, away, list);
  bool feasible = json_len(list) == 0;
  json_add_bool(o, "feasible", feasible);
  json_add_copy(o, "violations", list);
  json_free(list);
  json_add_int(o, "depth", p->depth);
  json_add_num(o, "decode_tok_per_s", e.tok_per_s);
  json_add_int(o, "expert_bytes_on_device", e.bytes_used);
  json_add_int(o, "plan_id", p->id);
  json_add_num(o, "planned_objective_ns", p->ilp.objective_ns);
  json_add_num(o, "bound_ns", p->ilp.bound_ns);
  return HF_OK;
}

static hf_status show_evaluation(const cli_common *common, const json *o) {
  const json *violations = json_get(o, "violations");
  if (common->json) {
    HF_TRY(cmd_print_json(o));
  } else {
    printf("objective    %.1f ns per decode step: %.2f tokens/s\n", json_number(json_get(o, "objective_ns"), 0),
           json_number(json_get(o, "decode_tok_per_s"), 0));
    printf("planned      %.1f ns, no placement below %.1f ns\n", json_number(json_get(o, "planned_objective_ns"), 0),
           json_number(json_get(o, "bound_ns"), 0));
    printf("feasible     %s\n", json_len(violations) == 0 ? "yes" : "no");
  }
  if (json_len(violations) == 0) return HF_OK;
  return hf_fail(HF_NO, "the placement is not feasible: %s", json_string(json_first(violations)));
}

hf_status cmd_evaluate(int argc, char **argv) {
  const char *name = NULL;
  cli_common common = {0};
  const cli_option options[] = {
      {"plan", 'p', CLI_STR, &name, "PLAN.json", "A plan file, the number of a stored plan, or latest.", 0, 0}, {0}};
  const cli_spec spec = {
      .program = "hf-plan",
      .verb = "evaluate",
      .synopsis = "--plan PLAN.json [options]",
      .description = "Computes the exact objective of a plan's placement and depth from the times, popularity and sizes the plan "
                     "carries, and tells whether it fits. The placement may have been edited by hand or by another program: "
                     "this is the judge of any solver.",
      .examples = "  hf-plan evaluate --plan plan.json --json\n      Prints objective_ns, feasible and violations.\n",
      .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(cmd_no_operands(n, rest, "evaluate"));
  if (name == NULL) return hf_fail(HF_INPUT, "option --plan: missing; see hf-plan evaluate --help");
  plan *p = NULL;
  plan_eval *v = NULL;
  json *o = json_new_object();
  hf_status st = HF_OK;
  HF_GO(done, cmd_read_plan(&common, name, &p));
  HF_GO(done, plan_eval_from_plan(p, name, &v));
  HF_GO(done, evaluate_plan(p, v, o));
  st = show_evaluation(&common, o);
done:
  json_free(o);
  plan_eval_free(v);
  plan_free(p);
  return st;
}
