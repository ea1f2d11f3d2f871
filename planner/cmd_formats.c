/* cmd_formats.c: hf-plan formats. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "planner/ask/title.h"
#include "planner/cmd.h"
#include "planner/formats/formats.h"

typedef struct {
  ask_command c;
  formats_options o;
  const char *floor, *program;
  bool list;
} formats_command;

static hf_status to_json(const void *f, json *doc) {
  return formats_to_json(f, doc);
}
static hf_status to_text(const void *f, hf_buf *b) {
  return formats_text(f, b);
}
static hf_status to_csv(const void *f, hf_buf *b) {
  return formats_csv(f, b);
}

static hf_status show(const formats_command *q, const formats *f) {
  char verdict[1000], title[256], machine[ASK_MACHINE_WORDS];
  const ask_case *c = &f->v[0].c;
  formats_verdict(f, verdict, sizeof verdict);
  ask_machine_words(c->machine, machine);
  snprintf(title, sizeof title, "Weight formats: %.60s on %.130s, %lld users, context %lld", c->model, machine,
           (long long)c->users, (long long)c->context);
  const ask_writer writer = {"formats", title, verdict, to_json, to_text, to_csv};
  HF_TRY(ask_show(&q->c, &writer, f));
  return f->chosen >= 0 ? HF_OK : hf_fail(HF_NO, "%s", verdict);
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

static const char description[] =
    "Searches the weight format of every part of a model (attention, shared experts, routed "
    "experts layer by layer) together with the placement "
    "it gives, under a limit on the loss of quality, and prints what speed costs in quality: "
    "recipes of which no faster one loses less.\n\n"
    "Quality is the increase of perplexity over the original model, from published tables (hf-plan "
    "catalog show quality deepseek) or your own "
    "(--quality). A published recipe counts as measured; others are composed of losses per part "
    "and type. Where a family has no table the "
    "relative losses of another are taken and tagged assumed.\n\n"
    "A recipe is FORMAT or FORMAT:PART=TYPE[@FIRST-LAST],... and is understood by --format of "
    "every verb; --format says what would be taken without a search, to compare. Parts are q, k, v, kv_a, kv_b, o, "
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
  const cli_option own[] = {
      {"quality-floor", 'q', CLI_STR, &q.floor, "PERCENT", "Most perplexity more than the original; default 2.", 0, 0},
      {"quality", 0, CLI_STR, &q.o.quality, "FILE", "Your own table; its rows and types count before the catalog's.", 0, 0},
      {"program", 0, CLI_STR, &q.program, "NAME", "Only types that it runs: hf-run, llama.cpp, ik_llama.cpp or any; default any.",
       0, 0},
      {"list", 'l', CLI_FLAG, &q.list, NULL, "List the names of formats instead.", 0, 0},
      {0}};
  cli_option options[ASK_MAX_OPTIONS];
  HF_TRY(ask_options(&q.c, ASK_HAS_MACHINE, own, options));
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
