/* cmd_formats.c: hf-plan formats. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/cmd.h"
#include "planner/formats/formats.h"
#include "sched/sched.h"

enum { TEXT_LIMIT = 16 << 20 };

typedef struct {
  ask_command c;
  formats_options o;
  const char *floor, *program;
  bool list;
} formats_command;

static hf_status show(const formats_command *q, const formats *f) {
  char verdict[1000], title[256];
  hf_buf text, csv;
  hf_buf_init(&text, TEXT_LIMIT);
  hf_buf_init(&csv, TEXT_LIMIT);
  json *doc = ask_new_answer("formats");
  const ask_case *c = &f->v[0].c;
  formats_verdict(f, verdict, sizeof verdict);
  snprintf(title, sizeof title, "Weight formats: %.80s on %.90s, %lld users, context %lld", c->model, c->machine,
           (long long)c->users, (long long)c->context);
  hf_status st = formats_to_json(f, doc);
  if (st == HF_OK) st = formats_text(f, &text);
  if (st == HF_OK && q->c.csv != NULL) st = formats_csv(f, &csv);
  if (st == HF_OK && q->c.csv != NULL) st = ask_write_csv(q->c.csv, &csv);
  if (st == HF_OK) st = ask_finish(&q->c, doc, "formats", title, verdict);
  if (st == HF_OK && !q->c.common.json) fputs(text.data, stdout);
  json_free(doc);
  hf_buf_free(&text);
  hf_buf_free(&csv);
  if (st != HF_OK || f->chosen >= 0) return st;
  return hf_fail(HF_NO, "%s", verdict);
}

/* Every name with what it holds; with a model also its bytes there. */
static hf_status list_names(const formats_command *q, const model *m) {
  json *doc = json_new_object(), *a = json_add_array(doc, "formats");
  hf_status st = HF_OK;
  if (!q->c.common.json) printf("%-14s %6s  %-12s %s\n", "name", "bits", "runs in", m != NULL ? "bytes of the model" : "");
  for (int f = 0; f < FMT_N; f++) {
    const fmt_info *i = fmt_get((fmt)f);
    char bytes[24] = "";
    double bits = i->bits_per_weight;
    model_recipe r = {.n_rules = 0};
    for (int p = 0; p < PART_N; p++) r.part[p] = (fmt)f;
    if (m != NULL) {
      recipe_of((fmt)f, model_get_config(m), &r);
      int64_t total = recipe_total_bytes(m, &r);
      bits = 8.0 * (double)total / (double)model_total_params(model_get_config(m));
      plan_bytes_text(total, bytes);
    }
    bool mixture = m == NULL && fmt_is_mixture((fmt)f);
    const char *program = mixture ? "" : recipe_program_name(recipe_program_of(&r));
    json *e = json_add_object(a, NULL);
    json_add_str(e, "name", i->name);
    json_add_num(e, "bits_per_weight", bits);
    json_add_bool(e, "mixture", fmt_is_mixture((fmt)f));
    if (!mixture) json_add_str(e, "program", program);
    if (m != NULL) json_add_int(e, "bytes", recipe_total_bytes(m, &r));
    if (!q->c.common.json) printf("%-14s %6.3f  %-12s %s\n", i->name, bits, program, bytes);
  }
  if (q->c.common.json) st = cmd_print_json(doc);
  json_free(doc);
  return st;
}

static hf_status run_formats(formats_command *q) {
  ask_machine *machine = NULL;
  model *m = NULL;
  formats f = {.chosen = -1, .usual = -1};
  hf_status st = HF_OK;
  const char *name = q->c.req.model;
  HF_TRY(ask_check_csv(&q->c));
  if (!q->list || name != NULL) HF_TRY(ask_open_model(&q->c.req, &m));
  if (q->list) {
    st = list_names(q, m);
  } else {
    HF_GO(done, ask_command_machine(&q->c, &machine));
    HF_GO(done, formats_search(&q->c, machine, m, name, &q->o, &f));
    st = show(q, &f);
  }
done:
  formats_free(&f);
  ask_machine_free(machine);
  model_close(m);
  return st;
}

static const char description[] = "Searches the weight format of every part of a model (attention, shared experts, routed "
                                  "experts layer by layer) together with the placement "
                                  "it gives, under a limit on the loss of quality, and prints what speed costs in quality: "
                                  "recipes of which no faster one loses less.\n\n"
                                  "Quality is the increase of perplexity over the original model, from published tables (hf-plan "
                                  "catalog show quality deepseek) or your own "
                                  "(--quality). A published recipe counts as measured; others are composed of losses per part "
                                  "and type. Where a family has no table the "
                                  "relative losses of another are taken and tagged assumed.\n\n"
                                  "A recipe is FORMAT or FORMAT:PART=TYPE[@FIRST-LAST],... and is understood by --format of "
                                  "every verb. Parts are q, k, v, kv_a, kv_b, o, "
                                  "dense_in, dense_down, shared_in, shared_down, gate_up, down, embed, output, and the groups "
                                  "attn, dense, shared, experts, rest. --list names all "
                                  "formats.";
static const char examples[] =
    "  hf-plan formats --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8K\n"
    "      What a few percent of perplexity buy.\n"
    "  hf-plan formats --model kimi-k2 --machine xeon6-mrdimm-rtx4090 --quality-floor 5 --program llama.cpp\n"
    "      Only types that llama.cpp can run, at most 5 % more perplexity.\n"
    "  hf-plan plan --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192 --formats auto\n"
    "      Plans with the best recipe.\n"
    "  hf-plan formats --list --model deepseek-r1\n"
    "      All names, with the bytes of that model.\n";

hf_status cmd_formats(int argc, char **argv) {
  formats_command q = {.floor = "2", .program = "any"};
  plan_request *r = &q.c.req;
  const cli_option options[] = {
      {"model", 'm', CLI_STR, &r->model, "NAME_OR_PATH", "Folder, GGUF file or a catalog name.", 0, 0},
      {"machine", 'M', CLI_STR, &r->machine, "BASE",
       "Catalog name, file, parts, or machine of the database; default the last one measured.", 0, 0},
      {"users", 'u', CLI_INT, &r->users, "N", "Users at once; default 1.", 1, SCHED_MAX_SEQS},
      {"context", 'c', CLI_SIZE, &r->context, "N", "Most tokens of a sequence, K binary; default 4096 or what the model can.", 2,
       16777216},
      {"quality-floor", 'q', CLI_STR, &q.floor, "PERCENT", "Most perplexity more than the original; default 2.", 0, 0},
      {"quality", 0, CLI_STR, &q.o.quality, "FILE", "Your own table; its rows and types count before the catalog's.", 0, 0},
      {"program", 0, CLI_STR, &q.program, "NAME", "Only types that it runs: hf-run, llama.cpp, ik_llama.cpp or any; default any.",
       0, 0},
      {"format", 'f', CLI_STR, &r->format, "F",
       "What would be taken without a search, to compare; default as stored or as the catalog says.", 0, 0},
      {"prompt-tokens", 0, CLI_INT, &r->prompt_tokens, "N", "Length of prompts; default the context less the output.", 1,
       16777216},
      {"output-tokens", 0, CLI_INT, &r->output_tokens, "N", "Length of answers; default a quarter of the context, at most 512.",
       1, 16777216},
      {"gpu", 'g', CLI_STR, &r->gpu, "DEVICE", "Devices as in hf-plan plan; default those of the machine.", 0, 0},
      {"skew", 0, CLI_STR, &r->skew, "uniform|zipf:S", "Assumed popularity of experts; default uniform.", 0, 0},
      {"threads", 't', CLI_INT, &r->threads, "N", "CPU threads of the machine; default all cores.", 1, 4096},
      {"jobs", 'j', CLI_INT, &q.c.jobs, "N", "Threads of this search; default all cores.", 1, 256},
      {"csv", 0, CLI_STR, &q.c.csv, "FILE", "Also write all planned recipes there.", 0, 0},
      {"list", 'l', CLI_FLAG, &q.list, NULL, "List the names of formats instead.", 0, 0},
      {"no-store", 0, CLI_FLAG, &q.c.no_store, NULL, "Do not keep the answer in the database.", 0, 0},
      {0}};
  const cli_spec spec = {.program = "hf-plan",
                         .verb = "formats",
                         .synopsis = "--model M --machine BASE [--quality-floor PERCENT] [options]\n--list [--model M]",
                         .description = description,
                         .examples = examples,
                         .environment = "HF_CATALOG\nA folder of catalog files that add to or replace the built-in ones.\n",
                         .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &q.c.common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(cmd_no_operands(n, rest, "formats"));
  HF_TRY(formats_parse_floor(q.floor, &q.o.floor));
  HF_TRY(formats_parse_program(q.program, &q.o.program));
  return run_formats(&q);
}
