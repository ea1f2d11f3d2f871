#include "planner/ask/command.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "db/catalog.h"
#include "planner/ilp/ilp.h"
#include "planner/cmd.h"
#include "sched/sched.h"

enum { TEXT_LIMIT = 64 << 20 };

/* ---- options ---- */

/* *n counts on past what there is room for. */
static void put(cli_option *to, int *n, const cli_option *one) {
  if (*n < ASK_MAX_OPTIONS) to[*n] = *one;
  (*n)++;
}

static void put_all(cli_option *to, int *n, unsigned has, const unsigned *needs, const cli_option *from, int count) {
  for (int i = 0; i < count; i++)
    if (needs[i] == 0 || (has & needs[i]) != 0) put(to, n, &from[i]);
}

hf_status ask_options(ask_command *c, unsigned has, const cli_option *own, cli_option out[ASK_MAX_OPTIONS]) {
  plan_request *r = &c->req;
  const cli_option first[] = {{"model", 'm', CLI_STR, &r->model, "NAME_OR_PATH",
                               "Folder, GGUF file, synth:CONFIG,key=value,... or a catalog name.", 0, 0},
                              {"machine", 'M', CLI_STR, &r->machine, "NAME",
                               "Catalog name, file, parts, or machine of the database; default the last one measured.", 0, 0},
                              {"users", 'u', CLI_INT, &r->users, "N", "Users at once; default 1.", 1, SCHED_MAX_SEQS},
                              {"context", 'c', CLI_TOKENS, &r->context, "N",
                               "Most tokens of a sequence, 8K = 8192; default 4096 or what the model can.", 2, 16777216}};
  static const unsigned first_needs[] = {0, ASK_HAS_MACHINE, 0, 0};
  const cli_option last[] = {
      {"slo-ttft", 0, CLI_SECONDS, &c->slo.ttft_s, "TIME",
       "Limit on the 95th percentile of the time to the first token, under sustained load: seconds, or 500ms, 2min.", 0,
       CLI_PLAIN_TTFT},
      {"slo-tpot", 0, CLI_SECONDS, &c->slo.tpot_s, "TIME",
       "Limit on the 95th percentile of the time per further token, under sustained load: 0.15 or 150ms.", 0, CLI_PLAIN_TPOT},
      {"prompt-tokens", 0, CLI_TOKENS, &r->prompt_tokens, "N", "Length of prompts; default the context less the output.", 1,
       16777216},
      {"output-tokens", 0, CLI_TOKENS, &r->output_tokens, "N",
       "Length of answers; default a quarter of the context, at most 512.", 1, 16777216},
      {"format", 'f', CLI_STR, &r->format, "F", "Weight format; default as stored or as the catalog says.", 0, 0},
      {"kv-type", 0, CLI_STR, &r->kv_type, "TYPE", "Type of the KV cache as in hf-plan plan: f16 or q8_0, ...; default f16.", 0,
       0},
      {"gpu", 'g', CLI_STR, &r->gpu, "DEVICE", "Devices as in hf-plan plan; default those of the machine.", 0, 0},
      {"depth", 'd', CLI_INT, &r->depth, "D", "Pipeline depth; default the best of 1 to 4.", 1, ILP_MAX_DEPTH},
      {"skew", 0, CLI_STR, &r->skew, "uniform|zipf:S", "Assumed popularity of experts; default uniform.", 0, 0},
      {"threads", 't', CLI_INT, &r->threads, "N", "CPU threads of the machine; default all cores.", 1, 4096},
      {"exact", 0, CLI_FLAG, &c->exact, NULL,
       "Placements proven as by hf-plan plan, several times slower; else those of the Lagrangian search stand where their proven "
       "gap is at most 0.5 %.",
       0, 0},
      {"scenario", 0, CLI_STR, &c->scenario_name, "NAME_OR_FILE", "Prices for the cost of a million tokens, as in hf-plan roi.",
       0, 0},
      {"jobs", 'j', CLI_INT, &c->jobs, "N", "Threads of this search; default all cores. The answer does not depend on it.", 1,
       256},
      {"csv", 0, CLI_STR, &c->csv, "FILE", "Also write the table there.", 0, 0},
      {"no-store", 0, CLI_FLAG, &c->no_store, NULL, "Do not keep the answer in the database.", 0, 0}};
  static const unsigned last_needs[] = {
      ASK_HAS_LIMITS, ASK_HAS_LIMITS,   0, 0, 0, 0, ASK_HAS_MACHINE, ASK_HAS_DEPTH, 0, ASK_HAS_MACHINE,
      ASK_HAS_EXACT,  ASK_HAS_SCENARIO, 0, 0, 0};
  _Static_assert(sizeof last / sizeof *last == sizeof last_needs / sizeof *last_needs, "one need for each option");
  int n = 0;
  put_all(out, &n, has, first_needs, first, 4);
  while (own->name != NULL) put(out, &n, own++);
  put_all(out, &n, has, last_needs, last, (int)(sizeof last / sizeof *last));
  if (n >= ASK_MAX_OPTIONS)
    return hf_fail(HF_MACHINE, "a command has %d options, and room for %d: ASK_MAX_OPTIONS", n, ASK_MAX_OPTIONS - 1);
  out[n] = (cli_option){0};
  return HF_OK;
}

/* ---- where things come from and go ---- */

hf_status ask_check_csv(const ask_command *c) {
  return cmd_check_folder("--csv", c->csv);
}

hf_status ask_command_db(const ask_command *c, db **d) {
  char path[4096];
  *d = NULL;
  HF_TRY(db_default_path(c->common.db_path, path, sizeof path));
  if (access(path, F_OK) != 0) return HF_OK;
  return db_open(path, false, d);
}

hf_status ask_command_machine(const ask_command *c, ask_machine **out) {
  db *d = NULL;
  hf_status st = c->req.machine != NULL ? ask_machine_open(NULL, c->req.machine, out) : HF_NOT_FOUND;
  if (st == HF_OK) ask_machine_plays(*out, c->req.gpu);
  if (st != HF_NOT_FOUND) return st;
  HF_TRY(ask_command_db(c, &d));
  if (d == NULL && c->req.machine == NULL)
    st = hf_fail(HF_INPUT,
                 "option --machine: missing, and no machine was measured here yet: name one of hf-plan catalog list machines, or "
                 "run hf-profile to measure this one");
  else st = ask_machine_open(d, c->req.machine, out);
  db_close(d);
  if (st == HF_OK) ask_machine_plays(*out, c->req.gpu);
  return st;
}

hf_status ask_read_scenario(ask_command *c) {
  return hf_note(money_scenario_read(c->scenario_name, &c->scenario), "option --scenario");
}

hf_status ask_open_model(plan_request *req, model **out) {
  json *doc = NULL;
  const char *format = NULL;
  if (req->model == NULL)
    return hf_fail(HF_INPUT, "option --model: missing; give a folder, a GGUF file, synth:... or a name of hf-plan catalog list");
  if (strncmp(req->model, "synth:", 6) == 0 || access(req->model, F_OK) == 0) {
    HF_TRY(hf_note(model_open(req->model, out), "option --model"));
  } else {
    hf_status st = catalog_get("models", req->model, &doc);
    HF_TRY(hf_note(st, "option --model: '%s' is neither a file or folder here nor a known name", req->model));
    st = model_from_config(json_get(doc, "config"), req->model, out);
    if (st == HF_OK && req->format == NULL && json_opt_str(doc, req->model, "default_format", &format) != HF_OK) hf_clear_error();
    fmt f;
    if (format != NULL && fmt_parse(format, &f) == HF_OK) req->format = fmt_get(f)->name;
    json_free(doc);
    HF_TRY(st);
  }
  req->opened = *out;
  return HF_OK;
}

json *ask_new_answer(const char *kind) {
  json *doc = json_new_object();
  json_add_str(doc, "kind", kind);
  json_add_str(doc, "version", HF_VERSION);
  json_add_int(doc, "cost_model_version", COST_MODEL_VERSION);
  return doc;
}

static hf_status store(const ask_command *c, json *doc, const char *kind, const char *title) {
  db *d = NULL;
  char *text = NULL;
  rec_answer a = {.created_ns = hf_wall_ns()};
  snprintf(a.kind, sizeof a.kind, "%s", kind);
  snprintf(a.title, sizeof a.title, "%s", title);
  HF_TRY(json_print(doc, false, &text));
  hf_status st = cmd_open_db(&c->common, &d);
  if (st == HF_OK) st = db_answer_put(d, &a, text);
  db_close(d);
  free(text);
  if (st == HF_OK) json_add_int(doc, "answer_id", a.id);
  return st;
}

hf_status ask_finish(const ask_command *c, json *doc, const char *kind, const char *title, const char *verdict) {
  json_add_str(doc, "title", title);
  json_add_str(doc, "verdict", verdict);
  if (!c->no_store) HF_TRY(store(c, doc, kind, title));
  return c->common.json ? cmd_print_json(doc) : HF_OK;
}

hf_status ask_show(const ask_command *c, const ask_writer *w, const void *answer) {
  hf_buf text, csv;
  hf_buf_init(&text, TEXT_LIMIT);
  hf_buf_init(&csv, TEXT_LIMIT);
  json *doc = ask_new_answer(w->kind);
  hf_status st = w->to_json(answer, doc);
  if (st == HF_OK) st = w->text(answer, &text);
  if (st == HF_OK && c->csv != NULL) st = w->csv(answer, &csv);
  if (st == HF_OK && c->csv != NULL) st = ask_write_csv(c->csv, &csv);
  if (st == HF_OK) st = ask_finish(c, doc, w->kind, w->title, w->verdict);
  if (st == HF_OK && !c->common.json) fputs(text.data, stdout);
  json_free(doc);
  hf_buf_free(&text);
  hf_buf_free(&csv);
  return st;
}

hf_status ask_load_text_rows(const ask_case *c, bool same_users, bool same_lengths, hf_buf *b) {
  char users[48] = "each row's own users", lengths[80] = "prompts and answers of each row's own lengths",
       requests[32] = "the requests";
  if (same_users) {
    snprintf(users, sizeof users, "%lld user%s", (long long)c->users, c->users == 1 ? "" : "s");
    snprintf(requests, sizeof requests, "the %d requests", sustained_requests((int)c->users));
  }
  if (same_lengths)
    snprintf(lengths, sizeof lengths, "prompts of %lld and answers of %lld tokens", (long long)c->prompt_tokens,
             (long long)c->output_tokens);
  return hf_buf_printf(
      b,
      "\nDelivered tokens/s, TTFT and TPOT are of %s under sustained load: each sends the next request at once; %s,\n"
      "both within a quarter of that; p95 of %s after a warm-up. Decode tokens/s: all users together while every one decodes.\n"
      "TTFT: arrival to first token; TPOT: seconds per further token. Figures: %s.\n",
      users, lengths, requests, c->tag[0] != '\0' ? c->tag : "assumed");
}

hf_status ask_load_text(const ask_case *c, hf_buf *b) {
  return ask_load_text_rows(c, true, true, b);
}

void ask_add_load(json *doc) {
  ask_add_assumption(doc, "Delivered tokens per second and percentiles are of a " SUSTAINED_WORDS ".", "assumed", "hf-plan");
}

void ask_add_engine_note(json *doc, bool gpu) {
  if (gpu) json_add_str(doc, "engine_note", ASK_ENGINE_NOTE);
  else json_add_null(doc, "engine_note");
}

void ask_add_assumption(json *doc, const char *text, const char *tag, const char *source) {
  json *list = NULL;
  for (const json *m = json_first(doc); m != NULL; m = json_next(m))
    if (strcmp(json_key(m), "assumptions") == 0) list = (json *)m;
  if (list == NULL) list = json_add_array(doc, "assumptions");
  json *o = json_add_object(list, NULL);
  json_add_str(o, "text", text);
  json_add_str(o, "tag", tag);
  json_add_str(o, "source", source);
}

static void add_limit(json *o, const char *key, double v) {
  if (v > 0) json_add_num(o, key, v);
  else json_add_null(o, key);
}

void ask_add_slo(json *question, const ask_slo *slo, const char *from) {
  if (!(slo->ttft_s > 0) && !(slo->tpot_s > 0) && !(slo->tok_per_s > 0)) {
    json_add_null(question, "slo");
    return;
  }
  json *o = json_add_object(question, "slo");
  add_limit(o, "ttft_s", slo->ttft_s);
  add_limit(o, "tpot_s", slo->tpot_s);
  add_limit(o, "tok_per_s", slo->tok_per_s);
  json_add_str(o, "from", from);
}

/* ---- text ---- */

void ask_seconds(double s, char out[24]) {
  if (s >= 100) snprintf(out, 24, "%.0f s", s);
  else if (s >= 1) snprintf(out, 24, "%.3g s", s);
  else snprintf(out, 24, "%.3g ms", 1e3 * s);
}

void ask_money(double usd, char out[24]) {
  char digits[24];
  double v = fabs(round(usd));
  if (v > 999999999999.0) {
    snprintf(out, 24, "%.3g", usd);
    return;
  }
  int n = snprintf(digits, sizeof digits, "%.0f", v), at = 0;
  if (round(usd) < 0) out[at++] = '-';
  for (int i = 0; i < n; i++) {
    if (i > 0 && (n - i) % 3 == 0) out[at++] = ',';
    out[at++] = digits[i];
  }
  out[at] = '\0';
}

void ask_tokens(int64_t n, char out[24]) {
  if (n >= 1024 && n % 1024 == 0) snprintf(out, 24, "%lldK", (long long)(n / 1024));
  else snprintf(out, 24, "%lld", (long long)n);
}

void ask_change_text(double ratio, char out[24]) {
  double p = 100 * (ratio - 1);
  if (ratio >= 3) snprintf(out, 24, "%.1f x", ratio);
  else if (fabs(p) < 0.05) snprintf(out, 24, "same");
  else snprintf(out, 24, fabs(p) < 1 ? "%+.1f %%" : "%+.0f %%", p);
}

/* ---- CSV ---- */

hf_status ask_csv_text(hf_buf *b, const char *text, bool last) {
  bool quote = strpbrk(text, ",\"\r\n") != NULL;
  if (quote) HF_TRY(hf_buf_add(b, "\"", 1));
  for (const char *s = text; *s != '\0'; s++) {
    if (*s == '"') HF_TRY(hf_buf_add(b, "\"", 1));
    HF_TRY(hf_buf_add(b, s, 1));
  }
  if (quote) HF_TRY(hf_buf_add(b, "\"", 1));
  return hf_buf_add(b, last ? "\n" : ",", 1);
}

hf_status ask_csv_number(hf_buf *b, double v, bool last) {
  if (isfinite(v)) HF_TRY(hf_buf_printf(b, "%.10g", v));
  return hf_buf_add(b, last ? "\n" : ",", 1);
}

hf_status ask_csv_case_header(hf_buf *b) {
  return hf_buf_printf(
      b, "name,machine,cpu,sockets,memory,memory_bytes,gpus,model,format,users,context,prompt_tokens,output_tokens,feasible,"
         "tok_per_s_wall,decode_tok_per_s_low,decode_tok_per_s,decode_tok_per_s_high,ttft_p50_s,ttft_p95_s,tpot_p50_s,tpot_p95_s,"
         "e2e_p95_s,"
         "users_at_slo,depth,binding,gap,price_low,price,price_high,joule_per_token,cost_per_million_in_out_low,"
         "cost_per_million_in_out,cost_per_million_in_out_high,tag,why_not\n");
}

hf_status ask_csv_case(hf_buf *b, const ask_case *c) {
  const char *texts[] = {c->name, c->machine, c->cpu};
  double none = NAN;
  bool f = c->feasible;
  for (size_t i = 0; i < 3; i++) HF_TRY(ask_csv_text(b, texts[i], false));
  HF_TRY(ask_csv_number(b, c->sockets, false));
  HF_TRY(ask_csv_text(b, c->memory, false));
  HF_TRY(ask_csv_number(b, (double)c->memory_bytes, false));
  const char *more[] = {c->gpus, c->model, c->format};
  for (size_t i = 0; i < 3; i++) HF_TRY(ask_csv_text(b, more[i], false));
  const double load[] = {(double)c->users, (double)c->context, (double)c->prompt_tokens, (double)c->output_tokens};
  for (size_t i = 0; i < 4; i++) HF_TRY(ask_csv_number(b, load[i], false));
  HF_TRY(ask_csv_text(b, f ? "yes" : "no", false));
  const double rates[] = {c->tok_per_s_wall,
                          c->decode_tok_per_s.low,
                          c->decode_tok_per_s.likely,
                          c->decode_tok_per_s.high,
                          c->ttft_s.p50,
                          c->ttft_s.p95,
                          c->tpot_s.p50,
                          c->tpot_s.p95,
                          c->e2e_s.p95};
  for (size_t i = 0; i < 9; i++) HF_TRY(ask_csv_number(b, f ? rates[i] : none, false));
  HF_TRY(ask_csv_number(b, c->users_at_slo >= 0 ? (double)c->users_at_slo : none, false));
  HF_TRY(ask_csv_number(b, f ? c->depth : none, false));
  HF_TRY(ask_csv_text(b, c->binding, false));
  const double rest[] = {f ? c->gap : none,
                         c->has_price ? c->price.low : none,
                         c->has_price ? c->price.likely : none,
                         c->has_price ? c->price.high : none,
                         c->joule_per_token > 0 ? c->joule_per_token : none,
                         c->has_cost ? c->cost.low : none,
                         c->has_cost ? c->cost.likely : none,
                         c->has_cost ? c->cost.high : none};
  for (size_t i = 0; i < 8; i++) HF_TRY(ask_csv_number(b, rest[i], false));
  HF_TRY(ask_csv_text(b, c->tag, false));
  return ask_csv_text(b, c->why_not, true);
}

hf_status ask_write_csv(const char *path, const hf_buf *b) {
  return hf_note(hf_write_file(path, b->data != NULL ? b->data : "", b->len), "option --csv");
}
