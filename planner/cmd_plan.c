/* cmd_plan.c: hf-plan plan. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cmd.h"
#include "planner/formats/formats.h"
#include "planner/plan_make.h"
#include "planner/plan_notes.h"
#include "planner/plan_show.h"
#include "planner/plan_sim.h"
#include "planner/sim/chrome.h"

enum { TEXT_LIMIT = 64 << 20 };

typedef struct {
  plan_request req;
  const char *from_run, *out, *write_lp, *write_bound_lp, *trace;
  const char *formats, *floor, *program, *quality; /* --formats auto and its limits */
  const char *optimise;
  double weight_prefill, slo_ttft, slo_tpot;
  const char *scenario_name;
  money_scenario scenario;
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
  int k = 0;
  while (k < n && strcmp(runs[k].status, "running") == 0)
    k++; /* what a run that goes on has counted so far, or one that was killed */
  if (k < n) *id = runs[k].id;
  free(runs);
  return k < n ? HF_OK : hf_fail(HF_NOT_FOUND, "option --from-run: the database has no run yet; run hf-run first");
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
  if (r->kv_type == NULL && *old != NULL) r->kv_type = (*old)->kv_type;
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

/* What no placement goes below; a limit that was not asked for, or could be kept, is left out. */
static void refusal_json(const ilp_refusal *x, json *o) {
  if (!x->limits) return;
  json *s = json_add_object(o, "slo");
  json_add_bool(s, "proven", x->proven);
  json_add_bool(s, "together", x->together);
  if (x->step_least_ns > 0) json_add_num(s, "step_least_s", 1e-9 * x->step_least_ns);
  if (x->ttft_least_ns > 0) json_add_num(s, "ttft_least_s", 1e-9 * x->ttft_least_ns);
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
    refusal_json(&p->refusal, o);
    hf_status st = cmd_print_json(o);
    json_free(o);
    return st;
  }
  hf_buf b;
  hf_buf_init(&b, TEXT_LIMIT);
  hf_status st = plan_show_budget(p->budget, p->n_budget, &b);
  if (st == HF_OK && p->n_budget > 0) printf("Does not fit:\n%s", b.data);
  for (int i = 0; i < p->n_remedies; i++) printf("  possible: %s\n", p->remedy[i]);
  hf_buf_free(&b);
  return st;
}

static hf_status show_plan(const plan_command *c, const plan *p, const json *doc) {
  if (c->common.json) return cmd_print_json(doc);
  hf_buf b;
  hf_buf_init(&b, TEXT_LIMIT);
  hf_status st = plan_show(p, &b);
  if (st == HF_OK) fputs(b.data, stdout);
  if (st == HF_OK && c->out != NULL) printf("  written to   %s\n", c->out);
  hf_buf_free(&b);
  return st;
}

/* The plan's users together, one request each, in layers. */
static hf_status write_trace(const plan_command *c, const plan *p) {
  plan_sim s = {0};
  sim_result r;
  sim_chrome chrome = {0};
  HF_TRY(plan_sim_open(p, "plan", &s));
  s.o.trace = sim_chrome_add;
  s.o.trace_user = &chrome;
  hf_status st = sim_run(&s.o, &r);
  if (st == HF_OK) st = sim_chrome_write(&chrome, c->trace);
  sim_chrome_free(&chrome);
  plan_sim_close(&s);
  return st;
}

static hf_status finish_plan(db *d, const plan_command *c, plan_inputs *in, planned *p) {
  if (c->write_lp != NULL) HF_TRY(ilp_write_lp(p->ilp, c->write_lp));
  if (c->write_bound_lp != NULL) HF_TRY(ilp_write_bound_lp(p->ilp, c->write_bound_lp));
  if (c->trace != NULL) HF_TRY(write_trace(c, p->p));
  if (!c->no_store) {
    HF_TRY(plan_inputs_store(in));
    p->p->machine_id = in->host->machine.id;
    HF_TRY(db_plan_put(d, p->p));
  }
  json *doc = NULL;
  HF_TRY(plan_to_json(p->p, &doc));
  hf_status st = c->out != NULL ? json_write_file(doc, c->out) : HF_OK;
  if (st == HF_OK) st = show_plan(c, p->p, doc);
  json_free(doc);
  return st;
}

/* --formats auto: the search's choice becomes the format of the plan. found is freed by the caller, after the plan. */
static hf_status choose_formats(plan_command *c, formats *found) {
  if (c->formats == NULL) return HF_OK;
  if (strcmp(c->formats, "auto") != 0)
    return hf_fail(HF_INPUT, "option --formats: '%.40s': only auto is known; one format is --format", c->formats);
  ask_command a = {.req = c->req, .common = c->common};
  formats_options o = {.quality = c->quality};
  ask_machine *machine = NULL;
  model *m = NULL;
  hf_status st = HF_OK;
  HF_TRY(formats_parse_floor(c->floor, &o.floor));
  HF_TRY(formats_parse_program(c->program, &o.program));
  HF_TRY(ask_open_model(&a.req, &m));
  HF_GO(done, ask_command_machine(&a, &machine));
  HF_GO(done, formats_search(&a, machine, m, c->req.model, &o, found));
  if (found->chosen < 0) {
    char why[900];
    formats_refusal(found, why, sizeof why);
    st = hf_fail(HF_NO, "%s", why);
    goto done;
  }
  c->req.format = found->v[found->chosen].recipe.name;
  if (!c->common.json) {
    hf_buf b;
    hf_buf_init(&b, TEXT_LIMIT);
    st = formats_text(found, &b);
    if (st == HF_OK) printf("%s\n", b.data);
    hf_buf_free(&b);
  }
done:
  ask_machine_free(machine);
  model_close(m);
  return st;
}

/* Below this no machine answers, and how many times over a limit something is stops being a number. */
static const double LEAST_LIMIT_S = 1e-6;

static hf_status check_limit(const char *option, double s) {
  if (s == 0 || s >= LEAST_LIMIT_S) return HF_OK;
  return hf_fail(HF_INPUT, "option %s: %g seconds is less than a microsecond", option, s);
}

/* The error line of a refusal has the first remedy: the others after it, all in one line. */
static hf_status name_all(hf_status st, const planned *p) {
  char line[900];
  size_t used = (size_t)snprintf(line, sizeof line, "%s", hf_error_line());
  if (strstr(line, p->n_remedies > 0 ? p->remedy[0] : "\n") == NULL) return st;
  for (int i = 1; i < p->n_remedies && used < sizeof line; i++)
    used += (size_t)snprintf(line + used, sizeof line - used, "; or %s", p->remedy[i]);
  return hf_fail(st, "%s", line);
}

static hf_status read_options(plan_command *c, planned_options *o) {
  *o = (planned_options){.weight_prefill = c->weight_prefill,
                         .slo_ttft_s = c->slo_ttft,
                         .slo_tpot_s = c->slo_tpot,
                         .scenario = &c->scenario,
                         .scenario_named = c->scenario_name != NULL};
  HF_TRY(check_limit("--slo-ttft", c->slo_ttft));
  HF_TRY(check_limit("--slo-tpot", c->slo_tpot));
  HF_TRY(hf_note(money_scenario_read(c->scenario_name, &c->scenario), "option --scenario"));
  if (c->optimise != NULL && strcmp(c->optimise, "request") == 0) o->optimise = PLAN_FOR_REQUEST;
  else if (c->optimise != NULL && strcmp(c->optimise, "decode") != 0)
    return hf_fail(HF_INPUT, "option --optimise: '%.40s': decode or request", c->optimise);
  if (c->weight_prefill > 0 && o->optimise != PLAN_FOR_REQUEST)
    return hf_fail(HF_INPUT, "option --weight-prefill: only with --optimise request");
  return HF_OK;
}

static hf_status run_plan(plan_command *c) {
  db *d = NULL;
  plan *old = NULL;
  plan_inputs *in = NULL;
  planned p = {0};
  formats found = {.chosen = -1, .usual = -1};
  rec_run run;
  char machine[32];
  hf_status st = HF_OK;
  planned_options options;
  HF_TRY(read_options(c, &options));
  HF_TRY(cmd_check_folder("--out", c->out));
  HF_TRY(cmd_check_folder("--write-lp", c->write_lp));
  HF_TRY(cmd_check_folder("--write-bound-lp", c->write_bound_lp));
  if (c->trace != NULL) HF_TRY(hf_note(hf_can_write(c->trace), "option --trace"));
  HF_TRY(cmd_open_db(&c->common, &d));
  HF_GO(done, run_id(d, c->from_run, &c->req.from_run));
  HF_GO(done, defaults_of_run(d, &c->req, &run, &old, machine));
  HF_GO(done, choose_formats(c, &found));
  HF_GO(done, plan_inputs_open(d, &c->req, &in));
  st = plan_make(in, &options, &p);
  if (st == HF_NO && (p.n_budget > 0 || p.n_remedies > 0)) {
    st = name_all(st, &p);
    hf_status shown = show_refusal(c, &p);
    if (shown != HF_OK) st = shown;
  }
  if (st == HF_OK && found.chosen >= 0) formats_summary_json(&found, json_add_object(p.p->extra, "formats"));
  if (st == HF_OK) st = plan_notes(in, p.p->extra);
  if (st == HF_OK) st = finish_plan(d, c, in, &p);
done:
  planned_free(&p);
  plan_inputs_close(in);
  formats_free(&found);
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

hf_status cmd_plan(int argc, char **argv) {
  plan_command c = {.floor = "2", .program = "any"};
  plan_request *r = &c.req;
  const cli_option options[] = {
      {"model", 'm', CLI_STR, &r->model, "NAME_OR_PATH", "Folder, GGUF file, synth:CONFIG,key=value,… or a catalog name.", 0, 0},
      {"machine", 'M', CLI_STR, &r->machine, "NAME_OR_ID_OR_FILE",
       "Machine of the database or catalog, or a JSON file; default the last one measured.", 0, 0},
      {"users", 'u', CLI_INT, &r->users, "N", "Users at once; default 1.", 1, SCHED_MAX_SEQS},
      {"context", 'c', CLI_TOKENS, &r->context, "N",
       "Most tokens of a sequence, prompt and answer, 8K = 8192; default 4096 or what the model can.", 2, 16777216},
      {"prompt-tokens", 0, CLI_TOKENS, &r->prompt_tokens, "N", "Length of prompts; default the context less the output.", 1,
       16777216},
      {"output-tokens", 0, CLI_TOKENS, &r->output_tokens, "N",
       "Length of answers; default a quarter of the context, at most 512.", 1, 16777216},
      {"format", 'f', CLI_STR, &r->format, "F",
       "Weight format, for example q4_k_m, or a recipe (hf-plan formats --help); default as stored or as the catalog says.", 0,
       0},
      {"formats", 0, CLI_STR, &c.formats, "auto", "Search the format of every part; the fastest within --quality-floor.", 0, 0},
      {"quality-floor", 0, CLI_STR, &c.floor, "PERCENT", "With --formats: most perplexity more than the original; default 2.", 0,
       0},
      {"quality", 0, CLI_STR, &c.quality, "FILE", "With --formats: your own table of quality.", 0, 0},
      {"program", 0, CLI_STR, &c.program, "NAME", "With --formats: hf-run, llama.cpp, ik_llama.cpp or any (default).", 0, 0},
      {"gpu", 'g', CLI_STR, &r->gpu, "DEVICE",
       "none, virtual:SIZE, paced:MACHINE[:SIZE] or cuda:N[:SIZE], several joined by '+'; default the machine's GPUs, else none.",
       0, 0},
      {"depth", 'd', CLI_INT, &r->depth, "D", "Pipeline depth; default the best of 1 to 4.", 1, ILP_MAX_DEPTH},
      {"optimise", 0, CLI_STR, &c.optimise, "decode|request",
       "What placement and depth minimise: the decode step (default), or a request's time: a step and its share of prompt "
       "chunks.",
       0, 0},
      {"weight-prefill", 0, CLI_NUM, &c.weight_prefill, "W",
       "With --optimise request: prompt chunks per decode step; default the load's own.", 0, 1000000},
      {"slo-ttft", 0, CLI_SECONDS, &c.slo_ttft, "TIME",
       "The 95th percentile of the time to the first token must not exceed this: seconds, or 500ms, 2min. A row of the program "
       "first (chunks of a "
       "prompt), "
       "then judged by the simulation; exit 1 says what no placement goes below.",
       0, CLI_PLAIN_TTFT},
      {"slo-tpot", 0, CLI_SECONDS, &c.slo_tpot, "TIME",
       "The same of the time per further token, for example 0.15 or 150ms; the row is the decode step.", 0, CLI_PLAIN_TPOT},
      {"scenario", 0, CLI_STR, &c.scenario_name, "NAME_OR_FILE",
       "Prices and hours of use for the advice, as in hf-plan roi; without it the API's prices of the scenario default, for "
       "models of the "
       "catalog only.",
       0, 0},
      {"kv-type", 0, CLI_STR, &r->kv_type, "f16|q8_0|bf16|f32",
       "Type of the KV cache. q8_0 takes 34 bytes for 32 numbers, f16 64: nearly twice the context or users. Default f16.", 0, 0},
      {"standby", 0, CLI_STR, &r->standby, "none|ram|file:PATH",
       "A second home of the KV cache (hf-run --standby): its room and its load on the link. hf-run keeps it so unless it is "
       "told "
       "otherwise. Default none.",
       0, 0},
      {"parked", 0, CLI_INT, &r->parked_users, "N",
       "With --standby: users beside those at once whose conversations wait there, at full context; default 0.", 0, 1000000},
      {"from-run", 0, CLI_STR, &c.from_run, "RUN", "Use routing counts and stage times of this run (a number or latest).", 0, 0},
      {"remote", 0, CLI_STR, &r->remotes, "MACHINE:LINK[,…]",
       "CPUs of other machines for experts, each over a link of hf-plan catalog list links, or measured: what hf-profile --ranks "
       "found.",
       0, 0},
      {"scale-from", 0, CLI_STR, &r->scale_from, "MACHINE",
       "Use the kernel curves of this measured machine, scaled by bandwidth and arithmetic.", 0, 0},
      {"dram-rate", 0, CLI_NUM, &r->dram_bytes_per_s, "BYTES_PER_S",
       "Rate at which all threads read memory now, where it is not the measured one any more: the plan is for the machine as it "
       "is.",
       0, 0},
      {"rounded", 0, CLI_FLAG, &r->rounded, NULL,
       "Let products that round weights and activations to BF16 compute where they were measured fastest (kernels named "
       "FORMAT.rounded.onednn): answers change within what 8-bit activations change them, and with the number of tokens that "
       "share a step.",
       0, 0},
      {"skew", 0, CLI_STR, &r->skew, "uniform|zipf:S|zipf-fit",
       "Popularity of experts: assumed, or the power law per layer that fits the census or run; default uniform.", 0, 0},
      {"census", 0, CLI_STR, &r->census, "FILE", "Popularity from counted choices per kind of text.", 0, 0},
      {"census-kind", 0, CLI_STR, &r->census_kind, "KIND", "Only this kind of text of the census; default all.", 0, 0},
      {"threads", 't', CLI_INT, &r->threads, "N", "CPU threads; default all cores.", 1, 4096},
      {"chunk-tokens", 0, CLI_INT, &r->chunk_tokens, "N",
       "Most prompt tokens of a step; default: what makes a request shortest, within a fourth of a device's memory.", 1,
       PLAN_CHUNK_MOST},
      {"out", 'o', CLI_STR, &c.out, "PLAN.json", "Also write the plan there.", 0, 0},
      {"write-lp", 0, CLI_STR, &c.write_lp, "FILE", "Write the complete model as CPLEX LP; its optimum is objective_ns.", 0, 0},
      {"write-bound-lp", 0, CLI_STR, &c.write_bound_lp, "FILE", "Write the lower-bound problem; its optimum is bound_ns.", 0, 0},
      {"trace", 0, CLI_STR, &c.trace, "FILE", "Write the simulated stages as a Chrome trace.", 0, 0},
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
  HF_TRY(cmd_no_operands(n, rest, "plan"));
  if (r->model == NULL && c.from_run == NULL)
    return hf_fail(HF_INPUT,
                   "option --model: missing: a folder, a GGUF file, synth:… or a catalog name; see hf-plan plan --help");
  if (r->census_kind != NULL && r->census == NULL) return hf_fail(HF_INPUT, "option --census-kind: needs --census FILE");
  if (r->census != NULL && r->skew != NULL && strcmp(r->skew, "zipf-fit") != 0)
    return hf_fail(HF_INPUT, "option --skew: not together with --census");
  return run_plan(&c);
}
