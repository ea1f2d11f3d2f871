/* cmd_roi.c: hf-plan roi: what tokens cost on a machine, and whether owning it pays. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "db/catalog.h"
#include "planner/ask/command.h"
#include "planner/ask/title.h"
#include "planner/cmd.h"
#include "planner/money/roi.h"
#include "planner/plan_notes.h"

enum { TEXT_LIMIT = 16 << 20, MAX_CURVE = 12, RENTED_GPU_BYTES = 80 };
static const char RENTED_GPU[] = "h100-sxm"; /* of the catalog: what the scenario's price an hour is of */

typedef struct {
  ask_command c;
  const char *plan, *scenario;
} roi_command;

/* What was planned, from whichever side it came. */
typedef struct {
  ask_case at;           /* tokens/s and latencies at the users the money is for */
  money_machine machine; /* prices and power */
  double need_bytes;     /* weights and KV cache */
  int64_t plan_id;       /* 0: planned here */
  plan_quality quality;  /* of its weight format */
  char note[240];        /* what was decided for the asker, or "" */
  int n_curve;
  ask_case curve[MAX_CURVE];
} roi_case;

/* ---- a stored plan ---- */

static double extra_num(const plan *p, const char *group, const char *key) {
  return json_number(json_get(json_get(p->extra, group), key), 0);
}

static void case_of_plan(const plan *p, ask_case *c) {
  *c = (ask_case){.users = p->users,
                  .context = p->context,
                  .prompt_tokens = p->prompt_tokens,
                  .output_tokens = p->output_tokens,
                  .feasible = true,
                  .decode_tok_per_s = p->decode_tok_per_s,
                  .ttft_s = p->ttft_s,
                  .tpot_s = p->tpot_s,
                  .tok_per_s_wall = extra_num(p, "simulation", "tok_per_s_wall"),
                  .prefill_tok_per_s = extra_num(p, "simulation", "prefill_tok_per_s"),
                  .device_busy = extra_num(p, "simulation", "device_busy"),
                  .cpu_busy = extra_num(p, "simulation", "cpu_busy"),
                  .goodput = -1,
                  .users_at_slo = -1,
                  .depth = p->depth,
                  .gap = p->ilp.gap};
  snprintf(c->name, sizeof c->name, "plan %lld", (long long)p->id);
  snprintf(c->machine, sizeof c->machine, "%s", p->machine);
  snprintf(c->model, sizeof c->model, "%s", p->model);
  snprintf(c->format, sizeof c->format, "%s", p->format);
  snprintf(c->gpus, sizeof c->gpus, "%s", p->gpu);
  snprintf(c->binding, sizeof c->binding, "%s", p->binding);
  snprintf(c->tag, sizeof c->tag, "%s", p->tag);
  char *const texts[] = {c->machine, c->model, c->format, c->gpus, c->binding, c->tag}; /* the plan may be anybody's file */
  for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) hf_printable(texts[i]);
}

/* By its number in the database where the name agrees, else by name anywhere. */
static hf_status machine_of_plan(db *d, const plan *p, const ask_case *c, money_machine *out) {
  rec_machine row;
  cost_rows *rows = NULL;
  ask_machine *other = NULL;
  hf_status st = d != NULL && p->machine_id > 0 ? db_machine_get(d, p->machine_id, &row) : HF_NOT_FOUND;
  if (st == HF_OK && strcmp(row.name, p->machine) == 0) st = cost_rows_load(d, &row, false, &rows);
  else st = ask_machine_open(d, p->machine, &other);
  if (st == HF_OK) {
    const cost_rows *r = rows != NULL ? rows : ask_machine_rows(other);
    money_machine_of(r, out);
    money_machine_busy(r, c->cpu_busy, c->device_busy, out);
  }
  cost_rows_free(rows);
  ask_machine_free(other);
  return hf_note(st, "the machine of the plan");
}

static hf_status from_plan(const roi_command *q, roi_case *out) {
  db *d = NULL;
  plan *p = NULL;
  char why[160];
  HF_TRY(ask_command_db(&q->c, &d));
  hf_status st = cmd_read_plan(&q->c.common, q->plan, &p);
  if (st == HF_OK) {
    case_of_plan(p, &out->at);
    out->plan_id = p->id;
    plan_quality_read(p->extra, &out->quality);
    out->need_bytes = (double)plan_budget_model_bytes(p->budget, p->n_budget);
    if (p->output_tokens < 1) st = hf_fail(HF_INPUT, "option --plan: %s: output_tokens: is below 1: no token to price", q->plan);
    else if (plan_ranks(p) > 0)
      st = hf_fail(
          HF_UNSUPPORTED,
          "option --plan: %s has experts on %d other machine%s, whose price and power roi does not count yet; what the machines "
          "cost is in the plan itself",
          q->plan, plan_ranks(p), plan_ranks(p) == 1 ? "" : "s");
    else if (!(out->at.tok_per_s_wall > 0))
      st = hf_fail(HF_INPUT, "option --plan: %s has no simulation (extra member simulation.tok_per_s_wall); plan again", q->plan);
  }
  if (st == HF_OK) st = machine_of_plan(d, p, &out->at, &out->machine);
  if (st == HF_OK && !ask_meets(&out->at, &q->c.slo, why))
    st = hf_fail(
        HF_NO,
        "the plan misses what was asked for: %s; roi --model %.80s --machine %.60s without --users finds how many users do", why,
        p->model, p->machine);
  plan_free(p);
  db_close(d);
  return st;
}

/* ---- planned here ---- */

static bool has_slo(const ask_slo *s) {
  return s->ttft_s > 0 || s->tpot_s > 0;
}

static hf_status refuse(const ask_case *c) {
  char possible[500] = "";
  for (int i = 0; i < c->n_possible && i < 3; i++) {
    size_t used = strlen(possible);
    snprintf(possible + used, sizeof possible - used, "%s%s", i > 0 ? "; " : ". Possible: ", c->possible[i]);
  }
  return hf_fail(HF_NO, "%s%s", c->why_not, possible);
}

/* The users the money is for: those asked for where they are served, else the most that are. */
static hf_status settle_users(const roi_command *q, ask_case_spec *s, roi_case *out) {
  char why[160];
  int64_t asked = q->c.req.users;
  s->count_users = has_slo(&q->c.slo);
  s->req.users = asked > 0 ? asked : 1;
  HF_TRY(ask_evaluate(s, &out->at));
  if (!out->at.feasible) return refuse(&out->at);
  if (!s->count_users) return HF_OK;
  bool meets = ask_meets(&out->at, &q->c.slo, why);
  int64_t most = out->at.users_at_slo;
  if (most == 0) return hf_fail(HF_NO, "not even one user is served as asked for: with %lld, %s", (long long)out->at.users, why);
  if (asked > 0 && meets) return HF_OK;
  if (asked > 0)
    snprintf(out->note, sizeof out->note,
             "%lld users are not served as asked for (%.120s): the figures are for %lld, the most that are", (long long)asked,
             why, (long long)most);
  else snprintf(out->note, sizeof out->note, "%lld users are the most that are served as asked for", (long long)most);
  s->req.users = most;
  s->count_users = false;
  HF_TRY(ask_evaluate(s, &out->at));
  out->at.users_at_slo = most;
  return out->at.feasible ? HF_OK : refuse(&out->at);
}

/* Weights and KV cache, for counting the GPUs that would hold them. */
static hf_status count_bytes(const ask_case_spec *s, roi_case *out) {
  plan_request r = s->req;
  plan_inputs *in = NULL;
  plan_sizes z;
  r.host_rows = ask_machine_rows(s->machine);
  r.machine = NULL;
  HF_TRY(plan_inputs_open(NULL, &r, &in));
  hf_status st = plan_sizes_of(in, &z);
  if (st == HF_OK) out->need_bytes = (double)(z.all_experts + z.dense + z.head + z.kv);
  plan_inputs_close(in);
  return st;
}

/* The same question for other numbers of users: what the load does to speed and price. */
static hf_status curve(const roi_command *q, const ask_case_spec *s, roi_case *out) {
  ask_case_spec each[MAX_CURVE];
  int64_t users = s->req.users;
  int n = 0;
  for (int64_t u = 1; u <= 4 * users && u <= SCHED_MAX_SEQS && n < MAX_CURVE - 1; u *= 2) {
    if (u > users && (n == 0 || each[n - 1].req.users < users)) { /* the number asked about is one of them */
      each[n] = *s;
      each[n++].req.users = users;
    }
    each[n] = *s;
    each[n++].req.users = u;
  }
  if (n > MAX_CURVE) n = MAX_CURVE;
  for (int i = 0; i < n; i++) {
    each[i].quick = each[i].no_interval = true;
    each[i].count_users = false;
    if (each[i].req.depth > each[i].req.users) each[i].req.depth = each[i].req.users; /* no more micro-batches than users */
    snprintf(each[i].name, sizeof each[i].name, "%lld users", (long long)each[i].req.users);
  }
  out->n_curve = n;
  HF_TRY(ask_evaluate_all(each, n, (int)q->c.jobs, NULL, NULL, out->curve));
  for (int i = 0; i < n; i++) /* the load that is priced was evaluated in full already */
    if (out->curve[i].users == out->at.users) out->curve[i] = out->at;
  return HF_OK;
}

static hf_status from_request(const roi_command *q, roi_case *out) {
  ask_case_spec s = {.name = "roi", .req = q->c.req, .slo = q->c.slo};
  model *m = NULL;
  ask_machine *machine = NULL;
  hf_status st = HF_OK;
  HF_GO(done, ask_open_model(&s.req, &m));
  HF_GO(done, ask_command_machine(&q->c, &machine));
  s.machine = machine;
  HF_GO(done, settle_users(q, &s, out));
  HF_GO(done, plan_quality_of(m, s.req.model, s.req.format, &out->quality));
  HF_GO(done, count_bytes(&s, out));
  HF_GO(done, curve(q, &s, out));
  money_machine_of(ask_machine_rows(machine), &out->machine);
  money_machine_busy(ask_machine_rows(machine), out->at.cpu_busy, out->at.device_busy, &out->machine);
done:
  ask_machine_free(machine);
  model_close(m);
  return st;
}

/* ---- money ---- */

/* What rented GPUs are taken as; a catalog of the user's own may not have it. */
static void name_rented(money_load *l) {
  json *doc = NULL;
  if (l->need_bytes > 0 && catalog_get("gpus", RENTED_GPU, &doc) == HF_OK) {
    const json *rate = json_get(doc, "mem_bytes_per_s");
    const char *title = json_string(json_get(doc, "title"));
    if (json_type(rate) == JSON_OBJECT) rate = json_get(rate, "value");
    l->rented_bytes_per_s = json_number(rate, 0);
    snprintf(l->rented_gpu, sizeof l->rented_gpu, "%.40s of %d GB", title != NULL ? title : RENTED_GPU, (int)RENTED_GPU_BYTES);
  }
  json_free(doc);
  hf_clear_error();
}

static money_load load_of(const ask_case *c, double need_bytes) {
  double likely = c->decode_tok_per_s.likely, wall = c->tok_per_s_wall, mix = (double)c->prompt_tokens / (double)c->output_tokens;
  money_load l = {.input_per_output = mix, .users = (double)c->users, .tag = TAG_ASSUMED};
  bool range = likely > 0 && c->decode_tok_per_s.low > 0;
  l.tok_per_s = (plan_range){range ? wall * c->decode_tok_per_s.low / likely : wall, wall,
                             range ? wall * c->decode_tok_per_s.high / likely : wall};
  l.prefill_share = c->prefill_tok_per_s > 0 ? fmin(0.99, wall * mix / c->prefill_tok_per_s) : 0;
  l.rented_gpus = need_bytes > 0 ? ceil(1.1 * need_bytes / (RENTED_GPU_BYTES * 1e9)) : 0;
  l.need_bytes = need_bytes;
  name_rented(&l);
  for (int t = 0; t < TAG_N; t++)
    if (strcmp(c->tag, db_tag_name((db_tag)t)) == 0) l.tag = (db_tag)t;
  snprintf(l.source, sizeof l.source, "simulation: %lld users, %lld tokens in, %lld out, prefill and waiting included",
           (long long)c->users, (long long)c->prompt_tokens, (long long)c->output_tokens);
  return l;
}

static hf_status add_curve(const roi_command *q, const roi_case *c, const roi *r, json *doc) {
  json *list = json_add_array(doc, "by_users");
  for (int i = 0; i < c->n_curve; i++) {
    const ask_case *x = &c->curve[i];
    json *o = json_add_object(list, NULL);
    json_add_int(o, "users", x->users);
    json_add_bool(o, "feasible", x->feasible);
    if (!x->feasible) continue;
    money_load l = load_of(x, 0);
    double v[MONEY_N];
    money_cost cost;
    money_likely(r->f, v);
    v[MONEY_TOK_PER_S] = l.tok_per_s.likely;
    v[MONEY_PREFILL_SHARE] = l.prefill_share;
    v[MONEY_USERS] = l.users;
    money_costs(v, &cost);
    json_add_num(o, "decode_tok_per_s", x->decode_tok_per_s.likely);
    json_add_num(o, "tok_per_s_wall", x->tok_per_s_wall);
    json_add_num(o, "ttft_p95_s", x->ttft_s.p95);
    json_add_num(o, "tpot_p95_s", x->tpot_s.p95);
    json_add_num(o, "per_million_tokens", cost.per_million);
    if (has_slo(&q->c.slo)) json_add_bool(o, "meets", ask_meets(x, &q->c.slo, NULL));
  }
  return json_type(list) == JSON_ARRAY ? HF_OK : hf_fail(HF_MACHINE, "out of memory: answer");
}

static void add_question(const roi_command *q, const roi_case *c, json *doc) {
  json *o = json_add_object(doc, "question");
  json_add_str(o, "model", c->at.model);
  json_add_str(o, "machine", c->at.machine);
  if (c->plan_id > 0) json_add_int(o, "plan_id", c->plan_id);
  json_add_int(o, "users", c->plan_id > 0 || q->c.req.users == 0 ? c->at.users : q->c.req.users);
  json_add_int(o, "context", c->at.context);
  plan_quality_json(&c->quality, o);
  ask_add_slo(o, &q->c.slo, "asked");
  json_add_str(o, "scenario", q->scenario != NULL ? q->scenario : "default");
}

static void add_assumptions(const roi *r, const roi_case *c, json *doc) {
  if (c->note[0] != '\0') ask_add_assumption(doc, c->note, c->at.tag[0] != '\0' ? c->at.tag : "assumed", "simulation");
  for (int i = 0; i < MONEY_N; i++) {
    const money_fact *f = &r->f[i];
    char text[300], low[MONEY_TEXT], likely[MONEY_TEXT], high[MONEY_TEXT];
    if (isnan(f->likely)) continue;
    money_text(f->low, low);
    money_text(f->likely, likely);
    money_text(f->high, high);
    if (f->low < f->high) snprintf(text, sizeof text, "%s: %s (%s to %s)", money_input_words((money_input)i), likely, low, high);
    else snprintf(text, sizeof text, "%s: %s", money_input_words((money_input)i), likely);
    ask_add_assumption(doc, text, db_tag_name(f->tag), f->source);
  }
  ask_add_assumption(doc,
                     "The load is the same every day of all years of use, and tokens not served here would be bought elsewhere.",
                     "assumed", "definition of the comparison");
  if (!isnan(r->f[MONEY_RENT_GPUS].likely))
    ask_add_assumption(doc, "Rented GPUs are up while the machine would work; that they are faster saves no rented hour.",
                       "assumed", "definition of the comparison");
}

static bool has_gpu(const roi_case *c) {
  return c->at.gpus[0] != '\0' && strcmp(c->at.gpus, "none") != 0;
}

static hf_status build(const roi_command *q, const roi_case *c, const roi *r, json *doc) {
  add_question(q, c, doc);
  ask_case_to_json(&c->at, json_add_object(doc, "case"));
  roi_to_json(r, doc);
  HF_TRY(add_curve(q, c, r, doc));
  add_assumptions(r, c, doc);
  ask_add_engine_note(doc, has_gpu(c));
  return HF_OK;
}

static hf_status answer(const roi_command *q, const roi_case *c, const roi *r) {
  char verdict[ROI_VERDICT + 300], title[256], loss[PLAN_LOSS_TEXT];
  hf_buf text, csv;
  hf_buf_init(&text, TEXT_LIMIT);
  hf_buf_init(&csv, TEXT_LIMIT);
  json *doc = ask_new_answer("roi");
  roi_verdict(r, verdict);
  if (c->note[0] != '\0') snprintf(verdict + strlen(verdict), sizeof verdict - strlen(verdict), " Note: %s.", c->note);
  snprintf(title, sizeof title, "What it costs: %.60s on %.130s, %lld users", c->at.model, c->machine.name,
           (long long)c->at.users);
  hf_status st = HF_OK;
  HF_GO(done, build(q, c, r, doc));
  HF_GO(done, hf_buf_printf(&text, "%s\n\n", verdict));
  HF_GO(done,
        hf_buf_printf(
            &text, "  simulated      %.1f tokens/s with prompts and waiting, %.1f while all decode (%.1f to %.1f), %lld users\n",
            c->at.tok_per_s_wall, c->at.decode_tok_per_s.likely, c->at.decode_tok_per_s.low, c->at.decode_tok_per_s.high,
            (long long)c->at.users));
  plan_quality_text(&c->quality, loss);
  HF_GO(done, hf_buf_printf(&text, "  weights        %s%s\n", c->at.format, loss));
  HF_GO(done, roi_show(r, &text));
  if (has_gpu(c)) HF_GO(done, hf_buf_printf(&text, "\n%s\n", ASK_ENGINE_NOTE));
  if (q->c.csv != NULL) {
    HF_GO(done, roi_csv(r, &csv));
    HF_GO(done, ask_write_csv(q->c.csv, &csv));
  }
  HF_GO(done, ask_finish(&q->c, doc, "roi", title, verdict));
  if (!q->c.common.json) fputs(text.data, stdout);
done:
  json_free(doc);
  hf_buf_free(&text);
  hf_buf_free(&csv);
  return st;
}

typedef struct {
  roi_case at;
  roi r;
  money_scenario scenario;
} roi_work;

static hf_status run_roi(const roi_command *q) {
  roi_work *w = NULL;
  HF_TRY(ask_check_csv(&q->c));
  HF_TRY(hf_alloc(&w, 1, sizeof *w, "answer"));
  hf_status st = money_scenario_read(q->scenario, &w->scenario);
  if (st == HF_OK) st = q->plan != NULL ? from_plan(q, &w->at) : from_request(q, &w->at);
  if (st == HF_OK) {
    money_load l = load_of(&w->at.at, w->at.need_bytes);
    char words[ASK_MACHINE_WORDS];
    ask_machine_words(w->at.at.machine, words);
    snprintf(w->at.machine.name, sizeof w->at.machine.name, "%.*s", (int)sizeof w->at.machine.name - 1, words);
    st = roi_compute(&w->scenario, &w->at.machine, &l, w->at.at.model, &w->r);
    if (st == HF_OK) st = answer(q, &w->at, &w->r);
  }
  free(w);
  return st;
}

/* ---- command line ---- */

static const char description[] =
    "Says what a million tokens cost on a machine, what that is a month and per user, when the "
    "machine pays back against an API or rented GPUs, "
    "and which assumption would turn the decision round.\n\n"
    "Tokens per second come from the simulation of a plan, never from the command line: of a "
    "stored plan (--plan), or planned here for a model "
    "and a machine. With --slo-ttft or --slo-tpot they are those at which the 95th percentile "
    "stays within the limits; without --users the most "
    "users who are served so are found.\n\n"
    "Everything else comes from a scenario: a JSON file, each member a number or {low, likely, "
    "high, tag, source, date}. What a file leaves out "
    "is taken from its \"base\", else from the scenario default. Prices and power of parts come "
    "from the catalog unless the scenario states them; a "
    "measured machine needs hardware_price, power_idle_w and power_active_w. Members:\n\n"
    "   currency, currency_per_usd, title, base, notes\n"
    "   hardware_price, part_prices {cpu, memory, gpu, platform, extra}\n"
    "   setup_price, residual_share, depreciation_years, discount_rate\n"
    "   power_idle_w, power_active_w, pue,\n"
    "   energy_price_per_kwh (or [24], by hour of the day),\n"
    "   co2_kg_per_kwh\n"
    "   hosting_per_year, support_per_year, software_per_year,\n"
    "   staff_per_year\n"
    "   utilisation, utilisation_by_hour [24], input_per_output,\n"
    "   named_users_per_active\n"
    "   api_price_in_per_million, api_price_out_per_million,\n"
    "   api_price_cached_per_million, api_cached_share,\n"
    "   api_price_change_per_year (null: no API)\n"
    "   rented_gpu_price_per_hour, rented_gpus, rented_up_share\n"
    "   (null: no rented GPUs)\n\n"
    "The API is this model at its hosts' list prices (hf-plan catalog show NAME, api_prices), as far as "
    "no scenario but default states them; where nobody lists the model, the answer says that the "
    "API's price is an assumption. Prices of today stand beside levelised ones, and a way that is "
    "the cheapest in less than 60 % of the draws is called undecided.\n\n"
    "Ranges are the 10th and 90th percentile of 10,000 draws over all doubts at once; what each "
    "doubt does alone is listed beside them.";
static const char examples[] =
    "  hf-plan roi --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --users 5 --context 8192\n"
    "      With the prices of a server room in the United States.\n"
    "  hf-plan roi --model deepseek-r1 --machine xeon6-mrdimm-rtx4090 --context 8192 --slo-tpot 0.15 --scenario eu\n"
    "      As many users as get a token every 150 ms, in euros.\n"
    "  hf-plan roi --plan 3 --scenario mine.json --csv roi.csv --json\n"
    "      A stored plan with prices of your own.\n";

static hf_status check_request(const roi_command *q) {
  const plan_request *r = &q->c.req;
  if (q->plan == NULL && r->model == NULL)
    return hf_fail(HF_INPUT, "say what is to be priced: --plan ID, or --model and --machine; see hf-plan roi --help");
  if (q->plan == NULL) return HF_OK;
  const struct {
    const char *name;
    bool given;
  } other[] = {{"model", r->model != NULL},
               {"machine", r->machine != NULL},
               {"users", r->users > 0},
               {"context", r->context > 0},
               {"prompt-tokens", r->prompt_tokens > 0},
               {"output-tokens", r->output_tokens > 0},
               {"format", r->format != NULL},
               {"kv-type", r->kv_type != NULL},
               {"gpu", r->gpu != NULL},
               {"skew", r->skew != NULL},
               {"threads", r->threads > 0},
               {"depth", r->depth > 0}};
  for (size_t i = 0; i < sizeof other / sizeof *other; i++)
    if (other[i].given) return hf_fail(HF_INPUT, "option --%s: not together with --plan, which says it already", other[i].name);
  return HF_OK;
}

hf_status cmd_roi(int argc, char **argv) {
  roi_command q = {0};
  const cli_option own[] = {
      {"plan", 'p', CLI_STR, &q.plan, "PLAN.json", "A plan file, the number of a stored plan, or latest.", 0, 0},
      {"scenario", 's', CLI_STR, &q.scenario, "NAME|FILE", "Prices and habits: default, eu, own-office, or a JSON file.", 0, 0},
      {0}};
  cli_option options[ASK_MAX_OPTIONS];
  HF_TRY(ask_options(&q.c, ASK_HAS_MACHINE | ASK_HAS_LIMITS | ASK_HAS_DEPTH, own, options));
  const cli_spec spec = {.program = "hf-plan",
                         .verb = "roi",
                         .synopsis =
                             "--plan ID [--scenario FILE]\n--model M --machine NAME [--users N] [--context C] [--scenario FILE]",
                         .description = description,
                         .examples = examples,
                         .environment = "HF_CATALOG\nA folder of catalog files that add to or replace the built-in ones.\n",
                         .options = options};
  int n = 0;
  char **rest = NULL;
  bool stop = false;
  HF_TRY(cli_parse(&spec, argc, argv, &q.c.common, &n, &rest, &stop));
  if (stop) return HF_OK;
  HF_TRY(cmd_no_operands(n, rest, "roi"));
  HF_TRY(check_request(&q));
  return run_roi(&q);
}
