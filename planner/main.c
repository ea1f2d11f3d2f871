/* hf-plan: chooses by integer programming where each expert lives and how deep to pipeline; answers before download and purchase. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cli.h"
#include "base/log.h"
#include "db/catalog.h"
#include "planner/plan_make.h"
#include "planner/plan_show.h"

enum { TEXT_LIMIT = 64 << 20 };
static const char verbs[] = "plan, evaluate, stages, catalog, validate";

static hf_status print_json(const json *o) {
  char *text = NULL;
  HF_TRY(json_print(o, true, &text));
  puts(text);
  free(text);
  return HF_OK;
}

static hf_status no_operands(int n, char **rest, const char *verb) {
  return n > 0 ? hf_fail(HF_INPUT, "unexpected argument '%s'; see hf-plan %s --help", rest[0], verb) : HF_OK;
}

static hf_status open_db(const cli_common *common, db **d) {
  char path[4096];
  HF_TRY(db_default_path(common->db_path, path, sizeof path));
  return db_open(path, true, d);
}

/* ---- plan ---- */

typedef struct {
  plan_request req;
  const char *from_run, *out, *write_lp, *write_bound_lp;
  cli_common common;
  bool no_store;
} plan_command;

/* RUN: an id or "latest". */
static hf_status run_id(db *d, const char *text, int64_t *id) {
  if (text == NULL) return HF_OK;
  char *end = NULL;
  *id = strtoll(text, &end, 10);
  if (isdigit((unsigned char)text[0]) && *end == '\0' && *id > 0) return HF_OK;
  if (strcmp(text, "latest") != 0)
    return hf_fail(HF_INPUT, "option --from-run: '%s' is neither the number of a run nor latest", text);
  rec_run *runs = NULL;
  int n = 0;
  HF_TRY(db_run_list(d, &runs, &n));
  if (n > 0) *id = runs[0].id;
  free(runs);
  return n > 0 ? HF_OK : hf_fail(HF_NOT_FOUND, "option --from-run: the database has no run yet; run hf-run first");
}

/* What a re-plan does not say again is as in the run. */
static hf_status defaults_of_run(db *d, plan_request *r, rec_run *run, plan **old, char machine[32]) {
  if (r->from_run == 0) return HF_OK;
  HF_TRY(hf_note(db_run_get(d, r->from_run, run), "option --from-run"));
  if (run->plan_id > 0) HF_TRY(db_plan_get(d, run->plan_id, old));
  if (r->model == NULL) r->model = run->model;
  if (r->gpu == NULL && run->gpu[0] != '\0') r->gpu = run->gpu;
  if (r->machine == NULL && *old != NULL && (*old)->machine_id > 0) {
    snprintf(machine, 32, "%lld", (long long)(*old)->machine_id);
    r->machine = machine;
  }
  if (r->users == 0) r->users = *old != NULL ? (*old)->users : run->users;
  if (r->context != 0 || *old == NULL) return HF_OK;
  r->context = (*old)->context;
  if (r->prompt_tokens == 0 && r->output_tokens == 0) {
    r->prompt_tokens = (*old)->prompt_tokens;
    r->output_tokens = (*old)->output_tokens;
  }
  if (r->chunk_tokens == 0) r->chunk_tokens = (*old)->chunk_tokens;
  return HF_OK;
}

static hf_status show_refusal(const plan_command *c, const planned *p) {
  if (c->common.json) {
    json *o = json_new_object();
    json_add_bool(o, "feasible", false);
    json_add_str(o, "reason", hf_error_line());
    json *rows = json_add_array(o, "budget"), *remedy = json_add_array(o, "possible");
    for (int i = 0; i < p->n_budget; i++) {
      json *b = json_add_object(rows, NULL);
      json_add_str(b, "where", p->budget[i].where);
      json_add_str(b, "what", p->budget[i].what);
      json_add_int(b, "bytes", p->budget[i].bytes);
      json_add_int(b, "limit_bytes", p->budget[i].limit_bytes);
    }
    for (int i = 0; i < p->n_remedies; i++) json_add_str(remedy, NULL, p->remedy[i]);
    hf_status st = print_json(o);
    json_free(o);
    return st;
  }
  hf_buf b;
  hf_buf_init(&b, TEXT_LIMIT);
  hf_status st = plan_show_budget(p->budget, p->n_budget, &b);
  if (st == HF_OK) printf("Does not fit:\n%s", b.data);
  for (int i = 0; i < p->n_remedies; i++) printf("  possible: %s\n", p->remedy[i]);
  hf_buf_free(&b);
  return st;
}

static hf_status show_plan(const plan_command *c, const plan *p, const json *doc) {
  if (c->common.json) return print_json(doc);
  hf_buf b;
  hf_buf_init(&b, TEXT_LIMIT);
  hf_status st = plan_show(p, &b);
  if (st == HF_OK) fputs(b.data, stdout);
  if (st == HF_OK && c->out != NULL) printf("  written to   %s\n", c->out);
  hf_buf_free(&b);
  return st;
}

static hf_status finish_plan(db *d, const plan_command *c, planned *p) {
  if (c->write_lp != NULL) HF_TRY(ilp_write_lp(p->ilp, c->write_lp));
  if (c->write_bound_lp != NULL) HF_TRY(ilp_write_bound_lp(p->ilp, c->write_bound_lp));
  if (!c->no_store) HF_TRY(db_plan_put(d, p->p));
  json *doc = NULL;
  HF_TRY(plan_to_json(p->p, &doc));
  hf_status st = c->out != NULL ? json_write_file(doc, c->out) : HF_OK;
  if (st == HF_OK) st = show_plan(c, p->p, doc);
  json_free(doc);
  return st;
}

/* A file that cannot be written is told before anything is planned or stored. */
static hf_status check_folder(const char *option, const char *file) {
  if (file == NULL) return HF_OK;
  char folder[4096];
  const char *slash = strrchr(file, '/');
  snprintf(folder, sizeof folder, "%.*s", slash != NULL ? (int)(slash - file) + 1 : 1, slash != NULL ? file : ".");
  if (access(folder, W_OK) == 0) return HF_OK;
  return hf_fail(HF_INPUT, "option %s: %s: nothing can be written to %s: %s", option, file, folder, strerror(errno));
}

static hf_status run_plan(plan_command *c) {
  db *d = NULL;
  plan *old = NULL;
  plan_inputs *in = NULL;
  planned p = {0};
  rec_run run;
  char machine[32];
  hf_status st = HF_OK;
  HF_TRY(check_folder("--out", c->out));
  HF_TRY(check_folder("--write-lp", c->write_lp));
  HF_TRY(check_folder("--write-bound-lp", c->write_bound_lp));
  HF_TRY(open_db(&c->common, &d));
  HF_GO(done, run_id(d, c->from_run, &c->req.from_run));
  HF_GO(done, defaults_of_run(d, &c->req, &run, &old, machine));
  HF_GO(done, plan_inputs_open(d, &c->req, &in));
  st = plan_make(in, &p);
  if (st == HF_NO && p.n_budget > 0) {
    hf_status shown = show_refusal(c, &p);
    if (shown != HF_OK) st = shown;
  }
  if (st == HF_OK) st = finish_plan(d, c, &p);
done:
  planned_free(&p);
  plan_inputs_close(in);
  plan_free(old);
  db_close(d);
  return st;
}

static const char plan_description[] = "Chooses, by integer programming with a proven gap, which routed experts live on the "
                                       "device and how deep to pipeline, for N users "
                                       "and a context length; checks memory; simulates the result; stores the plan.\n\n"
                                       "The model may be a folder, a GGUF file (its header is enough), synth:CONFIG,… or a name "
                                       "of the catalog; the machine one of the "
                                       "database, of the catalog, or a JSON file. Nothing needs to be owned or downloaded.\n\n"
                                       "With --from-run the popularity of experts and the times of stages come from what a run "
                                       "measured; whatever is not said again is "
                                       "taken from that run.";
static const char plan_examples[] =
    "  hf-plan plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192\n"
    "      What this machine would do, before it is bought.\n"
    "  hf-plan plan --model examples/tiny-moe --gpu virtual:6M --users 5 --context 256 --out plan.json\n"
    "      For the machine that hf-profile measured last, with a virtual device of 6 MiB.\n"
    "  hf-plan plan --from-run latest --json\n"
    "      Plans again from the routing and times of the last run.\n";

static hf_status cmd_plan(int argc, char **argv) {
  plan_command c = {0};
  plan_request *r = &c.req;
  const cli_option options[] = {
      {"model", 'm', CLI_STR, &r->model, "NAME_OR_PATH", "Folder, GGUF file, synth:CONFIG,key=value,… or a catalog name.", 0, 0},
      {"machine", 'M', CLI_STR, &r->machine, "NAME_OR_ID_OR_FILE",
       "Machine of the database or catalog, or a JSON file; default the last one measured.", 0, 0},
      {"users", 'u', CLI_INT, &r->users, "N", "Users at once; default 1.", 1, SCHED_MAX_SEQS},
      {"context", 'c', CLI_INT, &r->context, "N",
       "Most tokens of a sequence, prompt and answer; default 4096 or what the model can.", 2, 16777216},
      {"prompt-tokens", 0, CLI_INT, &r->prompt_tokens, "N", "Length of prompts; default the context less the output.", 1,
       16777216},
      {"output-tokens", 0, CLI_INT, &r->output_tokens, "N", "Length of answers; default a quarter of the context, at most 512.",
       1, 16777216},
      {"format", 'f', CLI_STR, &r->format, "F",
       "Weight format of the experts, for example q4_k_m; default as stored or as the catalog says.", 0, 0},
      {"gpu", 'g', CLI_STR, &r->gpu, "DEVICE",
       "none, virtual:SIZE, paced:MACHINE[:SIZE] or cuda:N[:SIZE]; default the machine's GPU, else none.", 0, 0},
      {"depth", 'd', CLI_INT, &r->depth, "D", "Pipeline depth; default the best of 1 to 4.", 1, ILP_MAX_DEPTH},
      {"from-run", 0, CLI_STR, &c.from_run, "RUN", "Use routing counts and stage times of this run (a number or latest).", 0, 0},
      {"skew", 0, CLI_STR, &r->skew, "uniform|zipf:S", "Assumed popularity of experts; default uniform.", 0, 0},
      {"census", 0, CLI_STR, &r->census, "FILE", "Popularity from counted choices per kind of text.", 0, 0},
      {"census-kind", 0, CLI_STR, &r->census_kind, "KIND", "Only this kind of text of the census; default all.", 0, 0},
      {"threads", 't', CLI_INT, &r->threads, "N", "CPU threads; default all cores.", 1, 4096},
      {"chunk-tokens", 0, CLI_INT, &r->chunk_tokens, "N",
       "Most prompt tokens of a step; default at most 2048, less for short prompts and small devices.", 1, 4000},
      {"out", 'o', CLI_STR, &c.out, "PLAN.json", "Also write the plan there.", 0, 0},
      {"write-lp", 0, CLI_STR, &c.write_lp, "FILE", "Write the complete model as CPLEX LP; its optimum is objective_ns.", 0, 0},
      {"write-bound-lp", 0, CLI_STR, &c.write_bound_lp, "FILE", "Write the lower-bound problem; its optimum is bound_ns.", 0, 0},
      {"no-store", 0, CLI_FLAG, &c.no_store, NULL, "Do not store the plan in the database.", 0, 0},
      {0}};
  const cli_spec spec = {.program = "hf-plan",
                         .verb = "plan",
                         .synopsis = "--model NAME_OR_PATH --machine NAME --users N --context N [options]",
                         .description = plan_description,
                         .examples = plan_examples,
                         .environment = "HF_CATALOG\nA folder of catalog files that add to or replace the built-in ones.\n",
                         .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &c.common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(no_operands(n, rest, "plan"));
  if (r->model == NULL && c.from_run == NULL)
    return hf_fail(HF_INPUT,
                   "option --model: missing: a folder, a GGUF file, synth:… or a catalog name; see hf-plan plan --help");
  if (r->census_kind != NULL && r->census == NULL) return hf_fail(HF_INPUT, "option --census-kind: needs --census FILE");
  if (r->census != NULL && r->skew != NULL) return hf_fail(HF_INPUT, "option --skew: not together with --census");
  return run_plan(&c);
}

/* ---- evaluate ---- */

/* At most 18 digits: what does not fit 64 bits is no stored plan's number. */
static bool is_number(const char *s) {
  size_t n = strspn(s, "0123456789");
  return n > 0 && n <= 18 && s[n] == '\0';
}

static hf_status read_plan(const cli_common *common, const char *name, plan **out) {
  if (!is_number(name)) return plan_read_file(name, out);
  db *d = NULL;
  HF_TRY(open_db(common, &d));
  hf_status st = db_plan_get(d, atoll(name), out);
  db_close(d);
  return st;
}

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
  hf_status st = ilp_evaluate(&prob, v->n_devices > 0 ? placement : NULL, p->depth, NULL, &e);
  free(placement);
  HF_TRY(st);
  json_add_num(o, "objective_ns", e.objective_ns);
  json *list = json_new_array();
  char line[160];
  if (!e.fits) {
    snprintf(line, sizeof line, "gpu0: experts need %lld bytes and have %lld", (long long)e.bytes_used, (long long)e.bytes_limit);
    json_add_str(list, NULL, line);
  }
  ram_violation(p, v, e.bytes_used, list);
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
    HF_TRY(print_json(o));
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

static hf_status cmd_evaluate(int argc, char **argv) {
  const char *name = NULL;
  cli_common common = {0};
  const cli_option options[] = {{"plan", 'p', CLI_STR, &name, "PLAN.json", "A plan file, or the number of a stored plan.", 0, 0},
                                {0}};
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
  HF_TRY(no_operands(n, rest, "evaluate"));
  if (name == NULL) return hf_fail(HF_INPUT, "option --plan: missing; see hf-plan evaluate --help");
  plan *p = NULL;
  plan_eval *v = NULL;
  json *o = json_new_object();
  hf_status st = HF_OK;
  HF_GO(done, read_plan(&common, name, &p));
  HF_GO(done, plan_eval_from_plan(p, name, &v));
  HF_GO(done, evaluate_plan(p, v, o));
  st = show_evaluation(&common, o);
done:
  json_free(o);
  plan_eval_free(v);
  plan_free(p);
  return st;
}

/* ---- stages ---- */

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
  if (st == HF_OK) st = print_json(o);
  json_free(o);
  return st;
}

static hf_status cmd_stages(int argc, char **argv) {
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
  HF_TRY(no_operands(n, rest, "stages"));
  cost_case c = {.groups = COST_ALL, .side = strcmp(side, "low") == 0 ? -1 : strcmp(side, "high") == 0 ? 1 : 0};
  if (c.side == 0 && strcmp(side, "likely") != 0)
    return hf_fail(HF_INPUT, "option --case: '%s' is none of low, likely, high", side);
  if (r.model == NULL) return hf_fail(HF_INPUT, "option --model: missing; see hf-plan stages --help");
  db *d = NULL;
  plan_inputs *in = NULL;
  stage_table *t = NULL;
  hf_status st = HF_OK;
  HF_TRY(open_db(&common, &d));
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

/* ---- catalog ---- */

static const char *const kinds[] = {"models", "gpus", "cpus", "memory", "machines", "priors"};
enum { N_KINDS = sizeof kinds / sizeof kinds[0] };

static hf_status list_kind(const char *kind, json *o) {
  char **names = NULL;
  int n = 0;
  HF_TRY(catalog_names(kind, &names, &n));
  json *a = json_add_array(o, kind);
  for (int i = 0; i < n; i++) json_add_str(a, NULL, names[i]);
  free(names);
  return HF_OK;
}

static hf_status catalog_list(int n, char **rest, bool as_json) {
  json *o = json_new_object();
  hf_status st = HF_OK;
  for (int i = 0; i < N_KINDS && st == HF_OK; i++)
    if (n == 0 || strcmp(rest[0], kinds[i]) == 0) st = list_kind(kinds[i], o);
  if (st == HF_OK && json_len(o) == 0)
    st = hf_fail(HF_INPUT, "catalog list: '%s' is none of models, gpus, cpus, memory, machines, priors", rest[0]);
  if (st == HF_OK && as_json) st = print_json(o);
  for (const json *k = st == HF_OK && !as_json ? json_first(o) : NULL; k != NULL; k = json_next(k)) {
    printf("%s\n", json_key(k));
    for (const json *v = json_first(k); v != NULL; v = json_next(v)) printf("  %s\n", json_string(v));
  }
  json_free(o);
  return st;
}

/* "show NAME" looks in every kind, "show KIND NAME" in one. */
static hf_status catalog_show(int n, char **rest) {
  json *doc = NULL;
  hf_status st = HF_NOT_FOUND;
  if (n == 2) {
    st = catalog_get(rest[0], rest[1], &doc);
  } else {
    for (int i = 0; i < N_KINDS && st == HF_NOT_FOUND; i++) st = catalog_get(kinds[i], rest[0], &doc);
    if (st == HF_NOT_FOUND)
      return hf_fail(HF_NOT_FOUND, "catalog show: nothing is named '%s'; see hf-plan catalog list", rest[0]);
  }
  HF_TRY(st);
  hf_clear_error();
  st = print_json(doc);
  json_free(doc);
  return st;
}

static hf_status cmd_catalog(int argc, char **argv) {
  cli_common common = {0};
  const cli_option options[] = {{0}};
  const cli_spec spec = {
      .program = "hf-plan",
      .verb = "catalog",
      .synopsis = "list [KIND] | show [KIND] NAME",
      .description = "Lists known models and hardware, or prints an entry with the source and date of each fact. KIND is models, "
                     "gpus, cpus, memory, machines or priors. $HF_CATALOG names a folder that adds or overrides entries.",
      .examples = "  hf-plan catalog list machines\n      Complete machines by name.\n"
                  "  hf-plan catalog show rtx4090\n      One entry.\n",
      .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  if (stop) return HF_OK;
  if (n >= 1 && n <= 2 && strcmp(rest[0], "list") == 0) return catalog_list(n - 1, rest + 1, common.json);
  if (n >= 2 && n <= 3 && strcmp(rest[0], "show") == 0) return catalog_show(n - 1, rest + 1);
  return hf_fail(HF_INPUT, "catalog: say list [KIND] or show [KIND] NAME; see hf-plan catalog --help");
}

/* ---- validate ---- */

/* The form is settled (docs/design.md), the comparison comes with the priors per engine; until then it refuses instead of guessing. */
static hf_status cmd_validate(int argc, char **argv) {
  cli_common common = {0};
  const cli_option options[] = {{0}};
  const cli_spec spec = {
      .program = "hf-plan",
      .verb = "validate",
      .synopsis = "CASES.csv [options]",
      .description =
          "Will compare predictions with published measurements, row by row, with signed errors. This version refuses: "
          "it has no priors per engine to predict other people's programs with. Own runs are compared by hf-run "
          "and hf-report.",
      .examples = "  hf-plan validate tests/validation/published-cases.csv --json\n      Exit status 2 in this version.\n",
      .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  if (stop) return HF_OK;
  return hf_fail(HF_UNSUPPORTED,
                 "validate: this version cannot predict other engines yet; own runs are compared by hf-run and hf-report");
}

/* ---- top ---- */

static hf_status cmd_none(int argc, char **argv) {
  cli_common common = {0};
  const cli_option options[] = {{0}};
  const cli_spec spec = {.program = "hf-plan",
                         .synopsis = "VERB [options]",
                         .description = "Chooses where each expert of a Mixture-of-Experts model lives and how deep to pipeline, "
                                        "proven to a gap, and predicts what that "
                                        "gives; for machines that were measured and for machines nobody owns yet.\n\n"
                                        "   plan      choose placement and depth, check memory, simulate, store\n"
                                        "   evaluate  the exact objective of any placement\n"
                                        "   stages    how long each stage takes on a machine\n"
                                        "   catalog   known models and hardware\n"
                                        "   validate  predictions against published measurements (refuses in this version)\n\n"
                                        "Each verb has its own page: hf-plan VERB --help.",
                         .examples =
                             "  hf-plan plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192\n"
                             "      DeepSeek-R1 for five users on one 24 GB GPU and two Xeon 6 with MRDIMM.\n",
                         .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &common, &n, &rest, &stop));
  if (stop) return HF_OK;
  if (n > 0) return hf_fail(HF_INPUT, "'%s' is none of the verbs %s; see hf-plan --help", rest[0], verbs);
  return hf_fail(HF_INPUT, "say what to do: one of %s; see hf-plan --help", verbs);
}

int main(int argc, char **argv) {
  static const struct {
    const char *name;
    hf_status (*run)(int, char **);
  } table[] = {{"plan", cmd_plan},
               {"evaluate", cmd_evaluate},
               {"stages", cmd_stages},
               {"catalog", cmd_catalog},
               {"validate", cmd_validate}};
  plan_use_catalog();
  for (size_t i = 0; argc > 1 && i < sizeof table / sizeof table[0]; i++)
    if (strcmp(argv[1], table[i].name) == 0) return cli_finish("hf-plan", table[i].run(argc - 1, argv + 1));
  return cli_finish("hf-plan", cmd_none(argc, argv));
}
