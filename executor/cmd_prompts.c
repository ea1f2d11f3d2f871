/* cmd_prompts.c: hf-run --prompts and --prompt: requests through a plan, text as it comes, the run into the database, predicted against
 * measured. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

#include "base/log.h"
#include "executor/ask.h"
#include "executor/beside.h"
#include "executor/commands.h"
#include "executor/prompts.h"
#include "executor/record.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig) {
  (void)sig;
  interrupted = 1;
}

typedef struct {
  const run_options *r;
  const tokenizer *tok;
  const serve_request *first;
  hf_buf *text; /* per request: what was not printed yet */
  bool single;
  hf_status st; /* first error of a callback; serving goes on */
  trace_log trace;
  hf_progress bar;
} stream_state;

static FILE *text_out(const run_options *r) {
  return r->common.json ? stderr : stdout;
}

/* Text of several users at once is readable only in whole lines: a line is printed when it is complete or long enough. */
static void flush_text(stream_state *s, const serve_request *q, hf_buf *b, bool end) {
  enum { LONG_LINE = 72 };
  FILE *f = text_out(s->r);
  size_t ready = utf8_complete_prefix(b->data ? b->data : "", b->len);
  if (s->single) {
    fwrite(b->data, 1, ready, f);
    if (end) fputc('\n', f);
    fflush(f);
  } else {
    size_t from = 0;
    for (size_t i = 0; i < ready; i++) {
      bool nl = b->data[i] == '\n', space = b->data[i] == ' ' && i - from > LONG_LINE;
      if (!nl && !space) continue;
      if (i > from) fprintf(f, "[%s] %.*s\n", q->ext_id, (int)(i - from), b->data + from);
      from = i + 1;
    }
    if (end && ready > from) fprintf(f, "[%s] %.*s\n", q->ext_id, (int)(ready - from), b->data + from);
    ready = end ? ready : from;
    fflush(f);
  }
  memmove(b->data, b->data + ready, b->len - ready);
  b->len -= ready;
}

static void on_token(void *user, serve_request *q, int32_t id) {
  stream_state *s = user;
  hf_progress_add(&s->bar, 1);
  if (!s->tok || !s->r->stream) return;
  hf_buf *b = &s->text[q - s->first];
  hf_status st = prompts_token_text(s->tok, id, b);
  if (st != HF_OK) s->st = st;
  else if (b->data) flush_text(s, q, b, false);
}

static void on_finish(void *user, serve_request *q) {
  stream_state *s = user;
  if (!s->tok || !s->r->stream) return;
  hf_buf *b = &s->text[q - s->first];
  if (b->data) flush_text(s, q, b, true);
}

static void on_step(void *user, const dev_step *step, const sched_step *what, int64_t index) {
  stream_state *s = user;
  (void)what;
  if (!s->r->trace || s->st != HF_OK) return;
  s->st = trace_add(&s->trace, step, index);
}

typedef struct {
  model *m;
  tokenizer *tok;
  db *d;
  char db_path[4096];
  plan *p;
  prompt_list list;
  engine *e;
  engine_options o;
  stage_table *pace;
  serve_stats stats;
  trace_log trace;
  rec_run run;
  int users;
  char unlike[160]; /* why this run is not what the plan predicted; "" = it is */
} job;

static hf_status read_prompts(const run_options *r, job *j) {
  char key[64] = "";
  prompt_options po = {.max_tokens = (int)(r->max_tokens ? r->max_tokens : 64),
                       .limit = (int)r->limit,
                       .repeat_to = (int)r->batch,
                       .ignore_eos = r->ignore_eos,
                       .vocab_size = model_get_config(j->m)->vocab_size};
  if (r->where) {
    const char *eq = strchr(r->where, '=');
    if (!eq || (size_t)(eq - r->where) >= sizeof key) return hf_fail(HF_INPUT, "--where: '%s' is not KEY=VALUE", r->where);
    memcpy(key, r->where, (size_t)(eq - r->where));
    po.where_key = key;
    po.where_value = eq + 1;
  }
  hf_status st = tokenizer_open(r->model, &j->tok);
  if (st != HF_OK && st != HF_NOT_FOUND && st != HF_UNSUPPORTED) return st;
  char why[512] = "";
  if (st != HF_OK) {
    snprintf(why, sizeof why, "%s", hf_error_line());
    po.no_tokenizer = why;
    hf_log(st == HF_NOT_FOUND ? HF_LOG_DEBUG : HF_LOG_INFO, "ids only, no text: %s", why);
  }
  if (r->prompt) return prompts_add_text(&j->list, j->tok, r->prompt, &po);
  return prompts_read(r->prompts, j->tok, &po, &j->list);
}

/* Without --plan hf-plan makes one for this load; when it cannot (no profile yet), the run goes on without a prediction and says so. */
static hf_status make_plan(const run_options *r, job *j, int users, int context) {
  plan_question q = {.db_path = j->db_path,
                     .model = r->model,
                     .gpu = r->gpu,
                     .machine = r->machine,
                     .users = users,
                     .context = context,
                     .store = true};
  prompts_mean(&j->list, &q.prompt_tokens, &q.output_tokens);
  json *doc = NULL;
  hf_status st = ask_plan(&q, &doc);
  if (st == HF_OK) st = plan_read_json(doc, "answer of hf-plan", &j->p);
  json_free(doc);
  if (st == HF_OK) {
    if (!r->common.json)
      hf_log(HF_LOG_INFO, "no --plan: made plan %lld for %d users, context %d (depth %d, predicted %.1f tokens/s)",
             (long long)j->p->id, users, context, j->p->depth, j->p->decode_tok_per_s.likely);
    return HF_OK;
  }
  if (st == HF_NO && r->common.json) {
    json *o = json_new_object();
    json_add_bool(o, "feasible", false);
    json_add_str(o, "reason", hf_error_line());
    HF_TRY(json_show(o));
  }
  if (st == HF_NO) return st;
  hf_log(HF_LOG_INFO, "no plan and none could be made (%s): running without a prediction", hf_error_line());
  return HF_OK;
}

/* Where what is given settles everything the database is not created before it has been found good. */
static hf_status open_plan_or_database(const run_options *r, job *j) {
  bool row = r->plan && strspn(r->plan, "0123456789") == strlen(r->plan);
  struct stat s;
  if (row || (stat(j->db_path, &s) == 0 && s.st_size > 0)) HF_TRY(db_open(j->db_path, false, &j->d));
  return plan_open(r, j->d, &j->p);
}

static hf_status prepare(const run_options *r, job *j) {
  HF_TRY(db_default_path(r->common.db_path, j->db_path, sizeof j->db_path));
  HF_TRY(open_model_to_run(r->model, &j->m));
  HF_TRY(read_prompts(r, j));
  HF_TRY(open_plan_or_database(r, j));
  int need = prompts_longest(&j->list);
  j->users = r->users.n ? (int)r->users.v[0] : r->batch ? (int)r->batch : j->p ? j->p->users : j->list.n;
  if (j->users > SCHED_MAX_SEQS) j->users = SCHED_MAX_SEQS;
  int context = r->context ? (int)r->context : j->p ? j->p->context : need;
  if (need > context)
    return hf_fail(HF_INPUT,
                   "request %s needs %d tokens (prompt and answer), %s has a context of %d; lower --max-tokens or make a plan "
                   "with --context %d",
                   prompts_longest_request(&j->list)->ext_id, need, j->p ? "the plan" : "--context", context, need);
  if (j->p) HF_TRY(plan_fits_model(j->p, model_get_config(j->m)));
  if (j->p && j->users > j->p->users)
    return hf_fail(HF_INPUT, "--users %d: the plan was made for %d; make one with --users %d", j->users, j->p->users, j->users);
  int most = model_get_config(j->m)->max_context;
  if (context > most) return hf_fail(HF_INPUT, "%d tokens of context: this model has at most %d", context, most);
  if (!j->p) HF_TRY(make_plan(r, j, j->users, context));
  int depth = r->depth ? (int)r->depth : j->p ? j->p->depth : 1;
  HF_TRY(engine_options_for(r, j->db_path, j->m, j->p, j->users, context, depth, &j->o, &j->pace));
  return j->d ? HF_OK : db_open(j->db_path, true, &j->d);
}

static void add_percentiles(json *to, const char *key, double p50, double p90, double p99) {
  json *o = json_add_object(to, key);
  json_add_num(o, "p50", p50);
  json_add_num(o, "p90", p90);
  json_add_num(o, "p99", p99);
}

static double signed_error(double predicted, double measured) {
  return measured > 0 ? (predicted - measured) / measured : 0;
}

static int unfinished(const prompt_list *l) {
  int n = 0;
  for (int i = 0; i < l->n; i++) n += !strcmp(l->req[i].finish, "cancelled") || !l->req[i].finish[0];
  return n;
}

static json *to_json(const job *j) {
  const rec_run *n = &j->run;
  json *o = json_new_object();
  json_add_int(o, "run_id", n->id);
  json_add_int(o, "plan_id", j->p ? j->p->id : 0);
  json_add_int(o, "requests", j->list.n);
  json_add_int(o, "users", j->users);
  json_add_int(o, "depth", j->o.depth);
  json_add_int(o, "threads", n->threads);
  json_add_int(o, "prompt_tokens", n->prompt_tokens);
  json_add_int(o, "output_tokens", n->output_tokens);
  json_add_num(o, "decode_tok_per_s", n->decode_tok_per_s);
  json_add_num(o, "tok_per_s_wall", n->tok_per_s_wall);
  json_add_num(o, "prefill_tok_per_s", n->prefill_tok_per_s);
  if (n->other_cpu_share >= 0) json_add_num(o, "other_cpu_share", n->other_cpu_share);
  add_percentiles(o, "ttft_s", n->ttft_p50_s, n->ttft_p90_s, n->ttft_p99_s);
  add_percentiles(o, "tpot_s", n->tpot_p50_s, n->tpot_p90_s, n->tpot_p99_s);
  if (!j->p) {
    json_add_int(o, "unfinished", unfinished(&j->list));
    json_add_null(o, "predicted");
    json_add_null(o, "signed_error");
    return o;
  }
  json *p = json_add_object(o, "predicted"), *d = json_add_object(p, "decode_tok_per_s");
  json_add_num(d, "low", j->p->decode_tok_per_s.low);
  json_add_num(d, "likely", j->p->decode_tok_per_s.likely);
  json_add_num(d, "high", j->p->decode_tok_per_s.high);
  add_percentiles(p, "ttft_s", j->p->ttft_s.p50, j->p->ttft_s.p90, j->p->ttft_s.p99);
  add_percentiles(p, "tpot_s", j->p->tpot_s.p50, j->p->tpot_s.p90, j->p->tpot_s.p99);
  json_add_int(o, "unfinished", unfinished(&j->list));
  if (j->unlike[0]) {
    json_add_str(o, "unlike_plan", j->unlike);
    json_add_null(o, "signed_error");
    return o;
  }
  json *e = json_add_object(o, "signed_error");
  json_add_num(e, "decode_tok_per_s", signed_error(j->p->decode_tok_per_s.likely, n->decode_tok_per_s));
  json_add_num(e, "ttft_s", signed_error(j->p->ttft_s.p50, n->ttft_p50_s));
  json_add_num(e, "tpot_s", signed_error(j->p->tpot_s.p50, n->tpot_p50_s));
  return o;
}

static void row(const char *what, const char *unit, double scale, double predicted, double measured, bool like) {
  if (predicted > 0 && like)
    printf("  %-22s %12.2f %12.2f %-9s %+7.1f %%\n", what, predicted * scale, measured * scale, unit,
           100 * signed_error(predicted, measured));
  else if (predicted > 0) printf("  %-22s %12.2f %12.2f %-9s\n", what, predicted * scale, measured * scale, unit);
  else printf("  %-22s %12s %12.2f %-9s\n", what, "-", measured * scale, unit);
}

static const char *plural(int64_t n) {
  return n == 1 ? "" : "s";
}

static void print_people(const job *j) {
  const rec_run *n = &j->run;
  const plan *p = j->p;
  bool like = p && !j->unlike[0];
  int left = unfinished(&j->list);
  printf(
      "run %lld: %d request%s, %d at once, depth %d, %d CPU thread%s, device %s: %lld prompt and %lld output tokens in %.3g s\n",
      (long long)n->id, j->list.n, plural(j->list.n), j->list.n < j->users ? j->list.n : j->users, j->o.depth, n->threads,
      plural(n->threads), j->o.gpu, (long long)n->prompt_tokens, (long long)n->output_tokens, n->wall_s);
  if (left) printf("  interrupted: %d of %d requests are not finished\n", left, j->list.n);
  printf("  %-22s %12s %12s\n", "", p ? "predicted" : "", "measured");
  row("decode", "tokens/s", 1, p ? p->decode_tok_per_s.likely : 0, n->decode_tok_per_s, like);
  row("time to first token", "ms (p50)", 1e3, p ? p->ttft_s.p50 : 0, n->ttft_p50_s, like);
  row("time per output token", "ms (p50)", 1e3, p ? p->tpot_s.p50 : 0, n->tpot_p50_s, like);
  row("prefill", "tokens/s", 1, 0, n->prefill_tok_per_s, like);
  if (n->other_cpu_share >= REC_RUN_DISTURBED)
    printf("  measured beside other programs: they had %.0f %% of the CPU time; run it again on a quiet machine\n",
           100 * n->other_cpu_share);
  if (p && !like) printf("  no error is stated: this run is not the planned one (%s)\n", j->unlike);
}

/* An error is stated only where like is compared with like: the planned load on the planned device of this machine. */
static void compare_load(job *j) {
  const plan *p = j->p;
  rec_machine m;
  size_t n = sizeof j->unlike;
  if (!p) return;
  if (interrupted) snprintf(j->unlike, n, "it was stopped before its end");
  else if (j->users != p->users || j->list.n < p->users)
    snprintf(j->unlike, n, "%d at once, the plan is for %d", j->list.n < j->users ? j->list.n : j->users, p->users);
  else if (strcmp(j->o.gpu, p->gpu)) snprintf(j->unlike, n, "device %.40s, the plan is for %.40s", j->o.gpu, p->gpu);
  else if (j->o.depth != p->depth) snprintf(j->unlike, n, "depth %d, the plan is for %d", j->o.depth, p->depth);
  else if (!j->o.pace && p->machine_id && db_machine_get(j->d, p->machine_id, &m) == HF_OK && m.kind != MACHINE_MEASURED)
    snprintf(j->unlike, n, "the plan is for machine %.80s, this is another", p->machine);
}

static void fill_run(const run_options *r, job *j) {
  rec_run *n = &j->run;
  n->plan_id = j->p ? j->p->id : 0;
  n->machine_id = j->p ? j->p->machine_id : 0;
  snprintf(n->model, sizeof n->model, "%s", r->model);
  snprintf(n->format, sizeof n->format, "%s", fmt_get(model_get_config(j->m)->default_format)->name);
  snprintf(n->gpu, sizeof n->gpu, "%.95s", j->o.gpu);
  snprintf(n->kind, sizeof n->kind, "prompts");
  snprintf(n->status, sizeof n->status, "%s", interrupted ? "stopped" : "done");
  n->users = j->users;
  n->depth = j->o.depth;
  n->threads = engine_threads(j->e);
  compare_load(j);
  if (!j->p || j->unlike[0]) return; /* no prediction of this run */
  n->predicted_decode_tok_per_s = j->p->decode_tok_per_s.likely;
  n->predicted_low = j->p->decode_tok_per_s.low;
  n->predicted_high = j->p->decode_tok_per_s.high;
  n->predicted_ttft_p50_s = j->p->ttft_s.p50;
  n->predicted_tpot_p50_s = j->p->tpot_s.p50;
}

static hf_status serve(const run_options *r, job *j) {
  stream_state s = {.r = r, .tok = j->tok, .first = j->list.req, .single = j->list.n == 1};
  hf_status st;
  int64_t tokens = 0;
  HF_GO(end, hf_alloc(&s.text, (size_t)j->list.n, sizeof *s.text, "text of answers"));
  for (int i = 0; i < j->list.n; i++) {
    hf_buf_init(&s.text[i], 1 << 20);
    tokens += j->list.req[i].max_tokens;
  }
  serve_options so = {
      .sample = {.temperature = r->temperature, .top_k = (int)r->top_k, .top_p = r->top_p, .seed = (uint64_t)r->seed},
      .chunk_tokens = j->o.max_tok - j->o.max_seqs,
      .users = j->users,
      .user = &s,
      .on_token = on_token,
      .on_finish = on_finish,
      .on_step = on_step,
      .stop = &interrupted};
  struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND}, old;
  sigaction(SIGINT, &sa, &old);
  if (!r->stream) hf_progress_begin(&s.bar, "running", "tokens", tokens);
  beside_mark from = beside_now();
  st = serve_run(j->e, j->list.req, j->list.n, &so, &j->stats);
  beside_mark to = beside_now();
  j->run.other_cpu_share = beside_share(&from, &to);
  if (!r->stream) hf_progress_end(&s.bar);
  sigaction(SIGINT, &old, NULL);
  if (st == HF_OK) st = s.st;
  j->trace = s.trace; /* written after the run is safe in the database */
end:
  for (int i = 0; s.text && i < j->list.n; i++) hf_buf_free(&s.text[i]);
  free(s.text);
  return st;
}

/* Said before the run, not after it. */
static hf_status can_write(const char *option, const char *path) {
  char folder[4096];
  if (!path || !access(path, W_OK)) return HF_OK;
  if (!access(path, F_OK)) return hf_fail(HF_INPUT, "%s: %s cannot be written", option, path);
  const char *slash = strrchr(path, '/');
  if (snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".") >= (int)sizeof folder ||
      access(folder, W_OK))
    return hf_fail(HF_INPUT, "%s: %s: its folder does not exist or cannot be written", option, path);
  return HF_OK;
}

static hf_status run_job(const run_options *r, job *j) {
  HF_TRY(can_write("--out", r->out));
  HF_TRY(can_write("--trace", r->trace));
  HF_TRY(prepare(r, j));
  HF_TRY(open_engine_or_explain(r, j->m, &j->o, &j->e));
  HF_TRY(serve(r, j));
  if (j->p) HF_TRY(plan_adopt(j->d, j->p));
  fill_run(r, j);
  HF_TRY(record_run(j->d, &j->run, j->list.req, j->list.n, &j->stats));
  if (r->trace) HF_TRY(trace_store(j->d, j->run.id, &j->trace));
  if (r->trace) HF_TRY(trace_write(&j->trace, r->trace));
  if (r->out) HF_TRY(prompts_write(r->out, &j->list, j->tok));
  if (r->common.json) {
    HF_TRY(json_show(to_json(j)));
  } else {
    print_people(j);
  }
  int left = unfinished(&j->list);
  return left ? hf_fail(HF_NO, "interrupted: %d of %d requests are not finished; run %lld holds the others", left, j->list.n,
                        (long long)j->run.id)
              : HF_OK;
}

hf_status cmd_prompts(const run_options *r) {
  job j = {0};
  hf_status st = run_job(r, &j);
  engine_close(j.e);
  stage_table_free(j.pace);
  serve_stats_free(&j.stats);
  trace_free(&j.trace);
  prompts_free(&j.list);
  plan_free(j.p);
  if (j.d) db_close(j.d);
  tokenizer_close(j.tok);
  model_close(j.m);
  return st;
}
