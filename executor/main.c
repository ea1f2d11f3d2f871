/* hf-run: executes a plan. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/end.h"
#include "base/log.h"
#include "db/catalog.h"
#include "executor/commands.h"
#include "executor/model_cmd.h"
#include "executor/ranks.h"
#include "executor/serve.h"
#include "kernels/net/net.h"

static const char description[] =
    "Runs a Mixture-of-Experts model exactly as a plan says: attention, dense parts, shared experts and the experts placed there "
    "on the "
    "device, all other routed experts on the CPU, both at work at the same time. What happened goes to the database: times per "
    "stage, "
    "expert choices, and how far the prediction was off, with sign.\n\n"
    "One of --prompts, --prompt, --chat, --check-reference, --bench or --write-model says what to do. Without --plan hf-plan is "
    "asked "
    "for one.\n\n"
    "The device is --gpu none (the whole model on the CPU), virtual:SIZE (a device with SIZE bytes of memory that computes on a "
    "CPU core), or "
    "paced:MACHINE[:SIZE] (the same, but every stage lasts as long as on MACHINE of the database or the catalog). Several, "
    "joined by "
    "'+', have layers each as the plan says, without one by their sizes.\n\n"
    "Under mpirun the ranks above 0 compute experts for rank 0 on the CPUs of their machines, where a plan made with hf-plan "
    "plan --remote or "
    "--experts-on-ranks places some; each opens --model for itself.\n\n"
    "hf-run model VERB looks at model files, checks them and writes them in other weight formats: hf-run model --help.";

static const char examples[] =
    "  hf-run --model examples/tiny-moe --prompt 'To be, or not'\n"
    "      Makes a plan for one user, runs it, prints the text and predicted against measured.\n"
    "  hf-run --plan plan.json --model examples/tiny-moe --prompts examples/tiny-moe/prompts.jsonl --where domain=italian "
    "--limit 5 --stream\n"
    "      Five users who write Italian, under a plan.\n"
    "  hf-run --model examples/tiny-moe --chat --temperature 0.7\n"
    "      A conversation: a message a line; /clear begins a new one, Ctrl-C ends an answer.\n"
    "  hf-run --model examples/tiny-moe --prompts examples/tiny-moe/prompts.jsonl --limit 5 --gpu virtual:64M --experts-on-gpu "
    "50 --fault "
    "hang@20000\n"
    "      Rehearses a device that hangs: the same answers, and how long nobody got a token.\n"
    "  hf-run --check-reference tests/golden/deepseek_v3/reference.json --model tests/golden/deepseek_v3 --experts-on-gpu 50 "
    "--depth 2\n"
    "      Holds logits, expert choices and greedy tokens against known answers.\n"
    "  hf-run --bench --model model.gguf --users 1,5,16 --json\n"
    "      Decode speed, bytes read per token, share of the memory bandwidth measured beside it.\n"
    "  hf-run --model synth:tests/bench/moe-700m.json,format=q8_0,seed=1 --write-model /tmp/moe-700m.gguf\n"
    "      A synthetic model of 700 MB for benchmarks.\n";

/* What can be said before anything is opened or asked. */
static hf_status check(const run_options *r) {
  bool talk = r->chat && !r->prompt && !r->prompts;
  int jobs = (r->prompts != NULL) + (r->prompt != NULL) + (r->reference != NULL) + (r->write_model != NULL) + r->bench + talk;
  if (jobs != 1)
    return hf_fail(HF_INPUT, "say one of --prompts FILE, --prompt TEXT, --chat, --check-reference FILE, --bench, --write-model "
                             "PATH; see hf-run --help");
  if (!r->model) return hf_fail(HF_INPUT, "--model is missing: a Hugging Face folder, a GGUF file or synth:...");
  if (r->mla && strcmp(r->mla, "auto") && strcmp(r->mla, "absorbed") && strcmp(r->mla, "plain"))
    return hf_fail(HF_INPUT, "--mla: '%s' is none of auto, absorbed and plain", r->mla);
  if (r->activations && strcmp(r->activations, "exact") && strcmp(r->activations, "fast"))
    return hf_fail(HF_INPUT, "--activations: '%s' is neither exact nor fast", r->activations);
  if (r->dequantise && strcmp(r->dequantise, "bf16") && strcmp(r->dequantise, "f32"))
    return hf_fail(HF_INPUT, "--dequantise: '%s' is neither bf16 nor f32", r->dequantise);
  if (r->prompt && !*r->prompt) return hf_fail(HF_INPUT, "--prompt: empty");
  if (r->where && !r->prompts) return hf_fail(HF_INPUT, "--where: chooses among --prompts; there are none");
  if (r->system && !r->chat) return hf_fail(HF_INPUT, "--system: goes with --chat");
  if (r->logprobs && !r->out) return hf_fail(HF_INPUT, "--logprobs: are written to --out FILE.jsonl; there is none");
  for (int i = 0; i < r->stop.n; i++)
    if (!*r->stop.v[i]) return hf_fail(HF_INPUT, "--stop: an empty text");
  if (!r->adapt && (r->adapt_every_s > 0 || r->adapt_rate > 0))
    return hf_fail(HF_INPUT, "%s: goes with --adapt", r->adapt_every_s > 0 ? "--adapt-every" : "--adapt-rate");
  if (r->adapt && !r->prompts) return hf_fail(HF_INPUT, "--adapt: goes with --prompts");
  gpu_set g;
  dev_fault fault;
  int device;
  if (r->gpu) HF_TRY(gpu_parse(r->gpu, &g));
  if (r->fault) HF_TRY(fault_parse(r->fault, &fault, &device));
  standby_spec beside;
  HF_TRY(standby_parse(r, &beside));
  if (beside.on && (r->bench || r->reference)) return hf_fail(HF_INPUT, "--standby: goes with --prompts, --prompt and --chat");
  HF_TRY(kern_init(r->isa));
  return kern_self_check();
}

static hf_status write_model(const run_options *r) {
  HF_TRY(model_synth_export(r->model, r->write_model));
  if (!r->common.json) return HF_OK;
  json *o = json_new_object();
  json_add_str(json_add_array(o, "files"), NULL, r->write_model);
  return json_show(o);
}

static hf_status dispatch(const run_options *r) {
  const bool talk = r->chat && !r->prompt && !r->prompts;
  if (r->write_model) return write_model(r);
  if (r->reference) return cmd_check(r);
  if (r->bench) return cmd_bench(r);
  return talk ? cmd_chat(r) : cmd_prompts(r);
}

static const char standby_help[] =
    "A second home of the KV cache, written beside the steps: after the loss of the device requests go on with what it has "
    "instead of "
    "computing it again, and sessions of --prompts park there between their turns. A file must not exist; it is gone when the "
    "run "
    "ends. Default none.";

static const char standby_size_help[] = "Of it, e.g. 8G. Default the KV cache's, and a whole context for each session.";

static const char environment[] =
    "HF_ISA\nUse no instruction set above: scalar, avx2, avx512, avx512vnni, avx512bf16, amx.\n"
    "HF_TOPOLOGY\nA JSON file of NUMA nodes to pretend: {\"nodes\":[{\"cpus\":2,\"mem_bytes\":8589934592}]}.\n"
    "HF_CATALOG\nA folder of catalog files that add to or replace the built-in ones.\n";

static const char adapt_help[] =
    "With --prompts and a device: follow what is asked. hf-plan is asked again and again with what was counted, and experts "
    "change places while requests run.";
static const char adapt_every_help[] =
    "With --adapt: how often hf-plan is asked, and how long a change is watched before it is kept or taken back; default 60.";
static const char adapt_rate_help[] =
    "With --adapt: most bytes a second that are copied from and to the device for it, for example 500M; default a tenth of a "
    "modelled link, else 256M.";

/* Rank 0 meets the others also when it has nothing for them to do, or they would wait for it. */
static int run_as_asked(const cli_spec *spec, int argc, char **argv, run_options *r) {
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  hf_status st = cli_parse(spec, argc, argv, &r->common, &n, &rest, &stop);
  if (stop) return cli_finish("hf-run", st);
  if (r->prompt) r->stream = true;
  model_set_catalog_hook(catalog_model_config, NULL);
  if (st == HF_OK) st = n ? hf_fail(HF_INPUT, "unexpected argument '%s'; see hf-run --help", rest[0]) : check(r);
  const bool together = net_started() && !r->write_model;
  if (net_started_rank() > 0) return together ? hf_exit_status(ranks_work(r, st)) : 0; /* rank 0 tells the errors of all */
  if (st == HF_OK && together) st = ranks_open(&r->ranks);
  if (st == HF_OK) st = dispatch(r);
  const int status = cli_finish("hf-run", st);
  if (together && !r->ranks && ranks_open(&r->ranks) != HF_OK) hf_clear_error();
  ranks_close(r->ranks, status);
  return status;
}

static const char probe_help[] =
    "How often a lost device is asked whether it computes again; after three good answers it is filled beside the requests and "
    "taken back. Default 30, 0 = never.";
static const char fault_help[] =
    "Rehearse: at operation N the virtual device fails (error), stops (hang), loses a signal (signal), slows down "
    "(slow*FACTOR) or begins to compute wrongly, grossly (wrong) or by a hundredth (slight); at allocation or upload N it has no "
    "memory (memory). Behind it, in this order: ,back@M: it answers again from the M-th time on that it is asked "
    "(--probe-every); "
    ":gpuK: another device than the first, e.g. error@900,back@2:gpu1.";

int main(int argc, char **argv) {
  run_options r = {.top_p = 1.0, .repetition_penalty = 1.0, .check_s = 30, .probe_s = 30, .upload_tokens = -1};
  const cli_option options[] = {
      {"model", 'm', CLI_STR, &r.model, "PATH",
       "Hugging Face folder, GGUF file, or synth:CONFIG,key=value,... (weights from a seed).", 0, 0},
      {"plan", 'p', CLI_STR, &r.plan, "ID_OR_FILE", "Plan to execute: a row's id in the database or a plan.json.", 0, 0},
      {"prompts", 0, CLI_STR, &r.prompts, "FILE.jsonl",
       "Requests, one JSON object a line: prompt or ids (with --chat also messages), optional id, arrival_s, max_tokens, stop, "
       "session.",
       0, 0},
      {"prompt", 0, CLI_STR, &r.prompt, "TEXT", "One request; its text is printed as it comes.", 0, 0},
      {"chat", 0, CLI_FLAG, &r.chat, NULL,
       "Talk to the model; with --prompt one message and its answer, with --prompts each line a message or messages.", 0, 0},
      {"system", 0, CLI_STR, &r.system, "TEXT", "With --chat: the system message.", 0, 0},
      {"check-reference", 0, CLI_STR, &r.reference, "FILE",
       "Compare with a reference.json of known answers; exit status 1 when it differs.", 0, 0},
      {"bench", 0, CLI_FLAG, &r.bench, NULL, "Measure decode and prefill speed over --users and --prompt-tokens.", 0, 0},
      {"out", 'o', CLI_STR, &r.out, "FILE.jsonl", "Write the answers there.", 0, 0},
      {"resume", 0, CLI_FLAG, &r.resume, NULL,
       "Keep the answers that an interrupted run with the same prompts has written to --out, and run the others.", 0, 0},
      {"logprobs", 0, CLI_INT, &r.logprobs, "N",
       "Write to --out how likely each token was, and the N most likely ones beside it.", 1, SERVE_LOGPROBS},
      {"where", 0, CLI_STR, &r.where, "KEY=VALUE", "Only prompts whose member KEY is VALUE, e.g. domain=italian.", 0, 0},
      {"limit", 0, CLI_INT, &r.limit, "N", "At most N prompts.", 1, 1048576},
      {"max-tokens", 'n', CLI_INT, &r.max_tokens, "N", "Tokens to write where a prompt does not say; default 64.", 1, 1048576},
      {"stop", 0, CLI_MANY, &r.stop, "TEXT", "End an answer where TEXT comes, without it; may be given again.", 0, 0},
      {"ignore-eos", 0, CLI_FLAG, &r.ignore_eos, NULL, "Go on after the end token, up to the most tokens.", 0, 0},
      {"stream", 0, CLI_FLAG, &r.stream, NULL, "Print text while it is written.", 0, 0},
      {"users", 'u', CLI_LIST, &r.users, "N[,N...]", "Sequences at once, at most 64; with --bench a list.", 1, 64},
      {"batch", 0, CLI_INT, &r.batch, "N", "Run N sequences at once, prompts repeated as needed.", 1, 64},
      {"context", 'c', CLI_INT, &r.context, "N", "Most tokens of a sequence; default what plan or prompts need.", 1, 16777216},
      {"depth", 'd', CLI_INT, &r.depth, "N", "Pipeline depth; default the plan's, else 1.", 1, 8},
      {"chunk", 0, CLI_INT, &r.chunk, "N", "Most prompt tokens of a step; default the plan's, else 512.", 1, 4096},
      {"gpu", 'g', CLI_STR, &r.gpu, "DEVICE",
       "none, virtual:SIZE or paced:MACHINE[:SIZE], several joined by '+'; default the plan's. (cuda:N is not there yet.)", 0, 0},
      {"experts-on-gpu", 0, CLI_NUM, &r.experts_percent, "PERCENT",
       "Without a plan: this share of every layer's experts on the device.", 0, 100},
      {"upload-tokens", 0, CLI_INT, &r.upload_tokens, "N",
       "A step of at least N tokens, some of them of prompts, has the CPU's experts sent to the device, in the layers that the "
       "plan "
       "says (without one: "
       "all); 0 = never. Default the plan's.",
       0, 1048576},
      {"experts-on-ranks", 0, CLI_NUM, &r.ranks_percent, "PERCENT",
       "Under mpirun, where the plan names no other machines: this share of every layer's experts that are not on the device, in "
       "turn over "
       "the other ranks.",
       0, 100},
      {"machine", 0, CLI_STR, &r.machine, "NAME",
       "Machine that hf-plan plans for when there is no --plan; default the last one profiled.", 0, 0},
      {"device-deadline", 0, CLI_NUM, &r.deadline_s, "SECONDS",
       "A device that gives no sign of life for so long is lost: its work goes on on the CPU. Default 20 times what was usual so "
       "far and a "
       "second.",
       0.001, 86400},
      {"check-every", 0, CLI_NUM, &r.check_s, "SECONDS",
       "How often the device computes a small step whose result is known; another result is a loss, and what was written since "
       "the last good "
       "one is written again, or marked where somebody has read it. At least 100 times what the step takes; default 30, 0 = "
       "never.",
       0, 86400},
      {"probe-every", 0, CLI_NUM, &r.probe_s, "SECONDS", probe_help, 0, 86400},
      {"adapt", 0, CLI_FLAG, &r.adapt, NULL, adapt_help, 0, 0},
      {"adapt-every", 0, CLI_SECONDS, &r.adapt_every_s, "TIME", adapt_every_help, 0, 0},
      {"adapt-rate", 0, CLI_SIZE, &r.adapt_rate, "SIZE", adapt_rate_help, 0, 0},
      {"standby", 0, CLI_STR, &r.standby, "none|ram|file:PATH", standby_help, 0, 0},
      {"standby-size", 0, CLI_STR, &r.standby_size, "SIZE", standby_size_help, 0, 0},
      {"fault", 0, CLI_STR, &r.fault, "KIND@N", fault_help, 0, 0},
      {"threads", 't', CLI_INT, &r.threads, "N", "CPU workers; default all cores, one less per virtual device.", 1, 1024},
      {"kv-type", 0, CLI_STR, &r.kv_type, "f16|q8_0|bf16|f32",
       "Type of the KV cache. q8_0 takes 34 bytes for 32 numbers, f16 64: nearly twice the context or users, and faster to read. "
       "Default the plan's, else f16; with exact activations always f32.",
       0, 0},
      {"mla", 0, CLI_STR, &r.mla, "auto|absorbed|plain",
       "Form of latent attention: of each piece of a prompt the cheaper one, or always the same, for comparisons. Default auto.",
       0, 0},
      {"activations", 0, CLI_STR, &r.activations, "exact|fast",
       "exact: activations are never rounded; fast: rounded as the weight format says. Default fast, for --check-reference "
       "exact.",
       0, 0},
      {"dequantise", 0, CLI_STR, &r.dequantise, "bf16|f32",
       "Weights in fp8 become bf16 or f32 when they are loaded, instead of being used as they are; they need the room of that.",
       0, 0},
      {"isa", 0, CLI_STR, &r.isa, "NAME", "Use no more than this instruction set: scalar, avx2, avx512, ...; also $HF_ISA.", 0,
       0},
      {"temperature", 0, CLI_NUM, &r.temperature, "T", "0 = always the most likely token (default).", 0, 100},
      {"top-k", 0, CLI_INT, &r.top_k, "K", "Sample among the K most likely tokens; 0 = all.", 0, 1000000},
      {"top-p", 0, CLI_NUM, &r.top_p, "P", "Sample among the most likely tokens that make up P; default 1.", 0, 1},
      {"min-p", 0, CLI_NUM, &r.min_p, "P", "Leave out tokens less likely than P times the most likely one; default 0.", 0, 1},
      {"repetition-penalty", 0, CLI_NUM, &r.repetition_penalty, "P",
       "Above 1: tokens of the prompt and the answer so far become less likely; default 1.", 0.01, 100},
      {"seed", 0, CLI_INT, &r.seed, "N", "Seed of sampling and of random prompts; default 0.", 0, 9007199254740992.0},
      {"prompt-tokens", 0, CLI_LIST, &r.prompt_tokens, "N[,N...]", "With --bench: lengths of the random prompts; default 16.", 1,
       1048576},
      {"output-tokens", 0, CLI_INT, &r.output_tokens, "N", "With --bench: tokens written by each user; default 32.", 2, 1048576},
      {"no-shared-prefixes", 0, CLI_FLAG, &r.no_shared_prefixes, NULL,
       "Compute every prompt whole, also where its beginning (whole KV pages) is that of an earlier prompt or turn.", 0, 0},
      {"no-log", 0, CLI_FLAG, &r.no_log, NULL, "With --bench: do not write runs to the database.", 0, 0},
      {"write-model", 0, CLI_STR, &r.write_model, "PATH",
       "Write the weights of --model synth:... as a GGUF file (PATH ends in .gguf) or a safetensors folder.", 0, 0},
      {"trace", 0, CLI_STR, &r.trace, "FILE",
       "Write a Chrome trace of every stage (chrome://tracing, Perfetto), and the first 20,000 stages as rows of the run.", 0, 0},
      {0}};
  const cli_spec spec = {
      .program = "hf-run",
      .environment = environment,
      .synopsis = "--model PATH (--prompts FILE | --prompt TEXT | --chat | --check-reference FILE | --bench) [options]\n"
                  "model (inspect | verify | quantise | generate) ...",
      .description = description,
      .examples = examples,
      .options = options};
  hf_end_program("hf-run");
  model_guard_mappings();
  if (argc > 1 && !strcmp(argv[1], "model")) /* one of several ranks writes a file */
    return net_started_rank() > 0 ? 0 : cli_finish("hf-run", cmd_model(argc - 1, argv + 1));
  return run_as_asked(&spec, argc, argv, &r);
}
