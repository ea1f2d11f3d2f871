/* cmd_recommend.c: hf-plan recommend. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "planner/ask/recommend_show.h"
#include "planner/cmd.h"
#include "planner/formats/formats.h"
#include "planner/formats/quality.h"

enum { SPACE_BYTES = 1 << 20, LIGHTEST = 3 };

typedef struct {
  ask_command c;
  const char *space, *gpus, *counts, *cpus, *sockets, *memory, *dimms, *formats, *floor, *quality;
  const char *budget_text;
  double budget;
  bool named_format; /* --format: as typed, for the catalog fills it in, too */
} recommend_command;

static const char DEFAULT_FLOOR[] = "2"; /* percent, as of hf-plan formats */

static hf_status read_space(const recommend_command *q, recommend_space *s) {
  const struct {
    const char *option, *member, *text;
  } lists[] = {{"--gpus", "gpus", q->gpus},         {"--gpu-counts", "gpu_counts", q->counts},
               {"--cpus", "cpus", q->cpus},         {"--sockets", "sockets", q->sockets},
               {"--memory", "memory", q->memory},   {"--dimm-sizes", "dimm_bytes", q->dimms},
               {"--formats", "formats", q->formats}};
  HF_TRY(recommend_space_default(s));
  if (q->space != NULL) {
    json *doc = NULL;
    HF_TRY(hf_note(json_read_file(q->space, SPACE_BYTES, &doc), "option --space"));
    hf_status st = recommend_space_read(doc, q->space, s);
    json_free(doc);
    HF_TRY(st);
  }
  for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
    if (lists[i].text != NULL) HF_TRY(recommend_space_list(lists[i].option, lists[i].member, lists[i].text, s));
  return HF_OK;
}

/* ---- quality floor ---- */

static int lighter(const void *a, const void *b) {
  const recommend_format *x = a, *y = b;
  if (x->searched != y->searched) return x->searched ? -1 : 1;
  if (x->bits != y->bits) return x->bits < y->bits ? -1 : 1;
  return strcmp(x->name, y->name);
}

static hf_status grade(const quality *z, const model *m, const char *name, recommend_format *out) {
  model_recipe r;
  quality_loss loss;
  fmt f;
  HF_TRY(fmt_parse(name, &f));
  HF_TRY(recipe_parse(name, model_get_config(m), &r));
  *out = (recommend_format){.bits = fmt_get(f)->bits_per_weight};
  snprintf(out->name, sizeof out->name, "%.63s", fmt_get(f)->name);
  hf_status st = quality_of(z, m, &r, &loss);
  if (st == HF_INPUT) { /* no figure for this type: it cannot be held against the floor */
    hf_clear_error();
    return HF_OK;
  }
  HF_TRY(st);
  out->known = true;
  out->loss = loss.loss;
  snprintf(out->tag, sizeof out->tag, "%s", db_tag_name(loss.tag));
  return HF_OK;
}

/* Of the formats of the space, or of all common ones and the model's own, those that lose no more than the floor; of the common ones only the
 * lightest, for more bits are slower and dearer. HF_NO when none is left. */
static hf_status choose_by_floor(const recommend_command *q, const quality *z, const model *m, double floor, recommend_space *s,
                                 recommendation *y) {
  static const char *const common[] = {"q2_k", "q3_k", "iq4_xs", "q4_0", "q4_k_m", "q5_k", "q6_k", "q8_0", "fp8", "bf16"};
  const int n_common = (int)(sizeof common / sizeof common[0]);
  const recommend_format *best = NULL;
  const char *own = fmt_get(quality_original(model_get_config(m)))->name;
  int given = s->n_formats, n = 0, light = 0;
  bool listed = given > 0;
  y->n_formats = given > 0 ? given : n_common;
  for (int i = 0; i < n_common; i++) listed = listed || strcmp(common[i], own) == 0;
  y->n_formats += !listed;
  for (int i = 0; i < y->n_formats; i++) {
    recommend_format *x = &y->formats[i];
    HF_TRY(grade(z, m, given > 0 ? s->format[i] : i < n_common ? common[i] : own, x));
    x->searched = x->known && x->loss <= floor;
    x->own = strcmp(x->name, own) == 0;
  }
  qsort(y->formats, (size_t)y->n_formats, sizeof y->formats[0], lighter);
  for (int i = 0; i < y->n_formats; i++) {
    recommend_format *x = &y->formats[i];
    if (x->known && (best == NULL || x->loss < best->loss)) best = x;
    bool counts = x->searched && !(x->own && strcmp(own, "bf16") != 0); /* what it was published in stands beside the lightest */
    if (given == 0 && counts && light++ >= LIGHTEST) x->searched = false;
    if (x->searched) snprintf(s->format[n++], SPACE_NAME, "%.63s", x->name);
  }
  s->n_formats = n;
  if (n > 0 || q->floor == NULL) return HF_OK;
  return hf_fail(HF_NO, "option --quality-floor: no format stays within %s %%; the best is %s with %.2g %%", q->floor,
                 best != NULL ? best->name : "unknown", 100 * expm1(best != NULL ? best->loss : 0));
}

/* Without --format or --formats the search chooses among the usual ones within the default floor; what --format or --formats name is only held
 * against a floor that is asked for. Where no table knows any format, the model's own is taken. */
static hf_status apply_floor(const recommend_command *q, const model *m, recommend_space *s, recommendation *y) {
  quality *z = NULL;
  if (q->floor == NULL && (s->n_formats > 0 || q->named_format)) return HF_OK;
  y->floor_text = q->floor != NULL ? q->floor : DEFAULT_FLOOR;
  HF_TRY(hf_note(formats_parse_floor(y->floor_text, &y->floor), "option --quality-floor"));
  HF_TRY(quality_load(m, q->c.req.model, q->quality, &z));
  hf_status st = choose_by_floor(q, z, m, y->floor, s, y);
  free(z);
  return st;
}

/* "15000", "15,000", "15k", "1.5m". */
static hf_status read_budget(recommend_command *q) {
  char plain[40];
  const char *text = q->budget_text, *comma = text == NULL ? NULL : strchr(text, ',');
  char *end = plain;
  size_t n = 0;
  if (text == NULL) return HF_OK;
  size_t first = comma != NULL ? (size_t)(comma - text) : 0; /* 1 to 3 digits, then groups of three */
  bool good = isdigit((unsigned char)text[0]) && strlen(text) < sizeof plain && first <= 3;
  for (size_t i = 0; good && text[i] != '\0'; i++) {
    if (text[i] != ',') plain[n++] = text[i];
    else good = (i - first) % 4 == 0 && strspn(text + i + 1, "0123456789") == 3;
  }
  plain[n] = '\0';
  double v = good ? strtod(plain, &end) : 0;
  if (good && (*end == 'k' || *end == 'K')) v *= 1e3, end++;
  else if (good && (*end == 'm' || *end == 'M')) v *= 1e6, end++;
  good = good && *end == '\0' && strpbrk(plain, "xX") == NULL && v > 0 && v <= 1e9;
  if (!good) return hf_fail(HF_INPUT, "option --budget: '%.30s' is no amount of USD above 0; say 15000, 15,000 or 15k", text);
  q->budget = v;
  return HF_OK;
}

static void planned_so_far(void *user, int64_t so_far) {
  hf_progress *bar = user;
  hf_progress_add(bar, so_far - bar->done);
}

static hf_status to_json(const void *y, json *doc) {
  return recommend_to_json(y, doc);
}
static hf_status to_text(const void *y, hf_buf *b) {
  return recommend_text(y, b);
}
static hf_status to_csv(const void *y, hf_buf *b) {
  return recommend_csv(y, b);
}

static hf_status show(const recommend_command *q, const recommendation *y) {
  char verdict[2000], title[400], limits[160], money[24];
  recommend_verdict(y, verdict, sizeof verdict);
  recommend_limits(&y->q->slo, limits);
  int used = snprintf(title, sizeof title, "A machine for %.90s, %lld user%s, context %lld: %s", y->model, (long long)y->users,
                      y->users == 1 ? "" : "s", (long long)y->context, limits);
  if (y->q->budget > 0 && used > 0 && (size_t)used < sizeof title) {
    ask_money(y->q->budget, money);
    snprintf(title + used, sizeof title - (size_t)used, ", for at most USD %s", money);
  }
  const ask_writer writer = {"recommend", title, verdict, to_json, to_text, to_csv};
  ask_command c = q->c;
  c.no_store = c.no_store || y->r->n == 0; /* a refusal leaves nothing behind */
  HF_TRY(ask_show(&c, &writer, y));
  return y->r->n > 0 ? HF_OK : hf_fail(HF_NO, "%s", verdict);
}

/* Number of users, context and their defaults as a plan would fill them in: checked before the search. */
static hf_status check_load(const plan_request *req, recommendation *y) {
  const model_config *c = model_get_config(req->opened);
  int64_t most = c->max_context > 0 ? c->max_context : 1 << 20;
  y->users = req->users > 0 ? req->users : 1;
  y->context = req->context > 0 ? req->context : most < 4096 ? most : 4096;
  if (y->context > most)
    return hf_fail(HF_INPUT, "option --context: %lld is over the model's %lld", (long long)y->context, (long long)most);
  return HF_OK;
}

static hf_status run_recommend(recommend_command *q) {
  recommend_question *question = NULL;
  recommend_result *result = NULL;
  model *m = NULL;
  hf_progress bar = {0};
  recommendation y = {0};
  hf_status st = HF_OK;
  HF_GO(done, hf_alloc(&question, 1, sizeof *question, "question"));
  HF_GO(done, hf_alloc(&result, 1, sizeof *result, "result"));
  *question = (recommend_question){.slo = q->c.slo, .dearer_factor = 1.35, .prune = true};
  HF_GO(done, read_budget(q));
  question->budget = q->budget;
  HF_GO(done, ask_check_csv(&q->c));
  HF_GO(done, read_space(q, &question->space));
  HF_GO(done, ask_read_scenario(&q->c));
  q->named_format = q->c.req.format != NULL;
  HF_GO(done, ask_open_model(&q->c.req, &m));
  HF_GO(done, check_load(&q->c.req, &y));
  HF_GO(done, apply_floor(q, m, &question->space, &y));
  snprintf(question->own_format, sizeof question->own_format, "%s", fmt_get(quality_original(model_get_config(m)))->name);
  hf_progress_begin(&bar, "recommend", "plans", 0);
  st = recommend_search(question, &q->c.req, &q->c.scenario, (int)q->c.jobs, planned_so_far, &bar, result);
  hf_progress_end(&bar);
  y.q = question;
  y.r = result;
  y.model = q->c.req.model;
  y.format = q->c.req.format != NULL ? q->c.req.format : fmt_get(model_get_config(m)->default_format)->name;
  if (st == HF_OK) st = show(q, &y);
done:
  model_close(m);
  free(question);
  free(result);
  return st;
}

static const char description[] = "Finds the cheapest machines of the catalog that serve a model to so many users within limits: "
                                  "GPU and count, CPU and sockets, kind and size "
                                  "of memory, and weight format among those that lose little quality.\n\n"
                                  "Limits are on the likely figures under sustained load, in which every user sends the next "
                                  "request at once: the 95th percentiles of "
                                  "the time to the first token and per further token, and tokens per second delivered to all "
                                  "users together. Every combination is counted and either settled by a bound (memory, budget, "
                                  "the most its bandwidth could give) or "
                                  "planned and simulated, cheapest first.\n\n"
                                  "Without a limit (only --budget, or not even that) there are three answers of the same search: "
                                  "the cheapest that runs the model at all, the knee, which delivers most tokens/s for the "
                                  "money, and the fastest within the budget; the knee is proposed.\n\n"
                                  "The answer names the cheapest, the runner-up, why others fail, which assumption within its "
                                  "interval would flip the choice, the choice that "
                                  "can be regretted least, and the measurement to make first. When nothing meets the demand it "
                                  "says what would, and ends with status 1.\n\n"
                                  "The whole catalog takes ten seconds to a minute and a half on two cores; a terminal shows "
                                  "how many plans were made.\n\n"
                                  "A space file is a JSON object with any of gpus, gpu_counts, cpus, sockets, memory, "
                                  "dimm_bytes, formats; options replace its lists.";
static const char examples[] =
    "  hf-plan recommend --model deepseek-r1 --users 5 --context 8K --budget 15000\n"
    "      What USD 15,000 buy: the cheapest machine that runs it, the best for the money, the fastest.\n"
    "  hf-plan recommend --model deepseek-r1 --users 5 --context 8K --min-tok-per-s 30\n"
    "      The cheapest machine that gives five users 30 tokens a second together.\n"
    "  hf-plan recommend --model kimi-k2 --users 8 --context 16K --slo-tpot 250ms --slo-ttft 60 --budget 40000 --csv "
    "ranking.csv\n"
    "      Within limits and a budget.\n"
    "  hf-plan recommend --model qwen3-235b-a22b --users 2 --gpus rtx4090,rtx5090,none --gpu-counts 1,2 --formats q4_k_m,q8_0 "
    "--min-tok-per-s 20\n"
    "      A space of your own.\n";

hf_status cmd_recommend(int argc, char **argv) {
  recommend_command q = {0};
  const cli_option own[] = {
      {"min-tok-per-s", 0, CLI_NUM, &q.c.slo.tok_per_s, "X",
       "At least so many tokens per second delivered to all users together, prompts and waiting included.", 0, 0},
      {"budget", 0, CLI_STR, &q.budget_text, "USD", "Most the hardware may cost: 15000, 15,000 or 15k.", 0, 0},
      {"space", 0, CLI_STR, &q.space, "FILE", "Lists of parts to choose from, as JSON.", 0, 0},
      {"gpus", 0, CLI_STR, &q.gpus, "A,B,none",
       "GPUs to choose from; default all CUDA cards of the catalog, and none; modules on boards (b200) only by name.", 0, 0},
      {"gpu-counts", 0, CLI_STR, &q.counts, "N,N", "How many of one kind; default 1,2,4.", 0, 0},
      {"cpus", 0, CLI_STR, &q.cpus, "A,B", "CPUs to choose from; default all.", 0, 0},
      {"sockets", 0, CLI_STR, &q.sockets, "N,N", "Default 1,2.", 0, 0},
      {"memory", 0, CLI_STR, &q.memory, "A,B", "Memory kinds; default what each CPU takes, of equally fast ones the cheapest.", 0,
       0},
      {"dimm-sizes", 0, CLI_STR, &q.dimms, "S,S", "Bytes of a module; default 16G,32G,48G,64G,96G,128G.", 0, 0},
      {"formats", 0, CLI_STR, &q.formats, "F,F",
       "Weight formats to choose from; default the three lightest usual ones within --quality-floor, and what the model was "
       "published "
       "in (fp8, mxfp4, int4).",
       0, 0},
      {"quality-floor", 0, CLI_STR, &q.floor, "PERCENT",
       "Most perplexity more than the original; default 2 for the usual formats, none for those that --formats or --format "
       "names.",
       0, 0},
      {"quality", 0, CLI_STR, &q.quality, "FILE", "Your own table of losses, as in hf-plan formats.", 0, 0},
      {0}};
  cli_option options[ASK_MAX_OPTIONS];
  HF_TRY(ask_options(&q.c, ASK_HAS_SCENARIO | ASK_HAS_LIMITS, own, options));
  const cli_spec spec = {
      .program = "hf-plan",
      .verb = "recommend",
      .synopsis = "--model M --users N --context C [--min-tok-per-s X] [--slo-tpot S] [--slo-ttft S] [--budget USD] [options]",
      .description = description,
      .examples = examples,
      .environment = "HF_CATALOG\nA folder of catalog files that add to or replace the built-in ones.\n",
      .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &q.c.common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(cmd_no_operands(n, rest, "recommend"));
  return run_recommend(&q);
}
