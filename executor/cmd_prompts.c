/* cmd_prompts.c: hf-run --prompts and --prompt: requests through a plan, text as it comes, the run into the database, predicted against
 * measured. */
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/mem.h"
#include "db/timeline.h"
#include "executor/adapt.h"
#include "executor/beside.h"
#include "executor/commands.h"
#include "executor/drift.h"
#include "executor/form.h"
#include "executor/prompts.h"
#include "executor/ranks.h"
#include "executor/record.h"
#include "executor/residency.h"
#include "executor/setup.h"
#include "executor/stream.h"
#include "executor/trace.h"

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig) {
  (void)sig;
  interrupted = 1;
}

typedef struct {
  const run_options *r;
  const tokenizer *tok;
  const chat_form *form; /* NULL: prompts are taken as they are */
  const serve_request *first;
  const prompt_list *list;
  const model_config *config;
  drift *drift;
  adapt *adapt;      /* NULL: the plan stays as it is */
  text_stream *text; /* per request */
  bool single;
  FILE *part;   /* answers as they come, or NULL */
  hf_status st; /* first error of a callback; serving goes on */
  trace_log trace;
  hf_progress bar;
} stream_state;

static FILE *text_out(const run_options *r) {
  return r->common.json ? stderr : stdout;
}

/* Text of several users at once is readable only in whole lines: a line is printed when it is complete or long enough. */
static void show_text(stream_state *s, const serve_request *q, text_stream *t, bool end) {
  enum { LONG_LINE = 72 };
  FILE *f = text_out(s->r);
  size_t ready = stream_ready(t, end, q->stop, q->n_stop);
  const char *text = t->text.data ? t->text.data + t->shown : "";
  if (s->single) {
    fwrite(text, 1, ready, f);
    if (end) fputc('\n', f);
  } else {
    size_t from = 0;
    for (size_t i = 0; i < ready; i++) {
      bool nl = text[i] == '\n', space = text[i] == ' ' && i - from > LONG_LINE;
      if (!nl && !space) continue;
      if (i > from) fprintf(f, "[%s] %.*s\n", q->ext_id, (int)(i - from), text + from);
      from = i + 1;
    }
    if (end && ready > from) fprintf(f, "[%s] %.*s\n", q->ext_id, (int)(ready - from), text + from);
    ready = end ? ready : from;
  }
  fflush(f);
  t->shown += ready;
}

static void on_token(void *user, serve_request *q, int32_t id) {
  stream_state *s = user;
  hf_progress_add(&s->bar, 1);
  if (!s->tok || (!s->r->stream && !q->n_stop)) return;
  text_stream *t = &s->text[q - s->first];
  hf_status st = stream_add(t, s->tok, id, false, q->stop, q->n_stop);
  if (st != HF_OK) s->st = st;
  else if (s->r->stream) show_text(s, q, t, false);
}

static bool ends(void *user, serve_request *q, int32_t id) {
  const stream_state *s = user;
  return (s->form && id == s->form->end_id) || s->text[q - s->first].stopped;
}

/* An answer that has come to its end is safe from then on, whatever becomes of this run. */
static void keep_answer(stream_state *s, const serve_request *q) {
  hf_buf line;
  hf_buf_init(&line, 256u << 20);
  hf_status st = prompts_answer_line(q, s->tok, &line);
  if (st == HF_OK && (fwrite(line.data, 1, line.len, s->part) != line.len || fflush(s->part)))
    st = hf_fail(HF_MACHINE, "%s.part: cannot be written", s->r->out);
  if (st != HF_OK) s->st = st;
  hf_buf_free(&line);
}

static void on_final(void *user, serve_request *q) {
  stream_state *s = user;
  if (s->part && strcmp(q->finish, "cancelled")) keep_answer(s, q);
}

static void on_finish(void *user, serve_request *q) {
  stream_state *s = user;
  if (s->tok && s->r->stream && q->n_out) show_text(s, q, &s->text[q - s->first], true);
}

static hf_status on_go_on(void *user, serve_request *q) {
  const stream_state *s = user;
  return prompts_go_on(s->list, s->tok, s->form, s->r->system, s->config, q);
}

static void on_step(void *user, const dev_step *step, const sched_step *what, int64_t index) {
  stream_state *s = user;
  (void)what;
  if (s->adapt) adapt_step(s->adapt);
  if (!s->r->trace || s->st != HF_OK) return;
  s->st = trace_add(&s->trace, step, index);
}

typedef struct {
  model *m;
  tokenizer *tok;
  chat_form form;  /* with --chat */
  char part[4096]; /* OUT.part; "" = none is kept */
  db *d;
  char db_path[4096];
  plan *p, *without;                 /* without: should the device, all of them, or the other ranks be lost; NULL = none */
  plan *without_one[ENGINE_DEVICES]; /* should this one of several be lost, the same */
  prompt_list list;
  engine *e;
  engine_options o;
  stage_table *pace;
  prefix *known;
  standby *sb; /* NULL: there is no KV mirror */
  standby_spec beside;
  serve_stats stats;
  trace_log trace;
  idle_account idle;
  rec_run run;
  int users;
  drift drift;
  adapt *adapt;
  cpu_set_t cpus;   /* of this process, before workers are pinned */
  double corrected; /* predicted tokens/s, for memory as it was in the run; 0 = not known */
  char unlike[160]; /* why this run is not what the plan predicted; "" = it is */
} job;

static hf_status read_prompts(const run_options *r, job *j) {
  char key[64] = "";
  prompt_options po = {.max_tokens = (int)(r->max_tokens ? r->max_tokens : 64),
                       .limit = (int)r->limit,
                       .repeat_to = (int)r->batch,
                       .ignore_eos = r->ignore_eos,
                       .stop = r->stop.v,
                       .n_stop = r->stop.n,
                       .logprobs = (int)r->logprobs,
                       .system = r->system,
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
  if (r->stop.n && !j->tok) return hf_fail(HF_INPUT, "--stop: needs a tokenizer (%s)", why);
  if (r->chat) {
    HF_TRY(form_of(j->m, j->tok, why[0] ? why : NULL, &j->form));
    po.chat = &j->form.style;
  }
  if (r->prompt) return prompts_add_text(&j->list, j->tok, r->prompt, &po);
  return prompts_read(r->prompts, j->tok, &po, &j->list);
}

/* --out: where answers are kept as they come, and those of an interrupted run. A file that is none (a pipe, /dev/stdout) keeps nothing. */
static hf_status resume(const run_options *r, job *j) {
  struct stat s;
  if (!r->out) return r->resume ? hf_fail(HF_INPUT, "--resume: goes on with --out FILE; there is none") : HF_OK;
  if (stat(r->out, &s) == 0 && !S_ISREG(s.st_mode)) return HF_OK;
  if (snprintf(j->part, sizeof j->part, "%s.part", r->out) >= (int)sizeof j->part)
    return hf_fail(HF_INPUT, "--out: the path is too long");
  if (!r->resume) {
    if (access(j->part, F_OK) != 0) return HF_OK;
    return hf_fail(HF_INPUT, "%s is left of an interrupted run: go on with --resume, or delete it", j->part);
  }
  HF_TRY(prompts_keep(&j->list, r->out));
  HF_TRY(prompts_keep(&j->list, j->part));
  HF_TRY(hf_note(prompts_drop_kept(&j->list, j->tok, r->chat ? &j->form : NULL, r->system, model_get_config(j->m)), "--resume"));
  if (j->list.n < j->list.n_all && !r->common.json)
    hf_log(HF_LOG_INFO, "resuming: %d of %d answers are there", j->list.n_all - j->list.n, j->list.n_all);
  return HF_OK;
}

/* Bytes a second that copies may take: a tenth of what the modelled link has, unless it was said. */
static int64_t moving_rate(const run_options *r, const job *j) {
  static const int64_t NO_MODEL = INT64_C(256) << 20;
  double most = 0;
  for (int l = 0; j->pace && l < j->pace->n_layers; l++) {
    model_tensor_info up, down;
    const double ns = j->pace->layer[l].upload_ns;
    if (!(ns > 0) || model_tensor(j->m, MT_EXP_UP, l, 0, &up) != HF_OK || model_tensor(j->m, MT_EXP_DOWN, l, 0, &down) != HF_OK)
      continue;
    const double rate = 1e9 * (2.0 * (double)up.bytes + (double)down.bytes) / ns;
    if (rate > most) most = rate;
  }
  return r->adapt_rate > 0 ? r->adapt_rate : most > 0 ? (int64_t)(0.1 * most) + 1 : NO_MODEL;
}

static hf_status prepare_adapting(const run_options *r, job *j) {
  if (!engine_has_device(&j->o))
    return hf_fail(HF_INPUT, "--adapt: experts change places between the CPU and a device, and there is none (--gpu)");
  if (j->o.ranks) return hf_fail(HF_UNSUPPORTED, "--adapt: not yet where other machines have experts");
  if (!j->p) return hf_fail(HF_INPUT, "--adapt: there is no plan that could change; run hf-profile first");
  if (j->o.exact) return hf_fail(HF_UNSUPPORTED, "--adapt: hf-plan knows no times of exact activations");
  j->o.movable = true;
  j->o.move_bytes_per_s = moving_rate(r, j);
  return HF_OK;
}

static hf_status prepare(const run_options *r, job *j) {
  HF_TRY(db_default_path(r->common.db_path, j->db_path, sizeof j->db_path));
  HF_TRY(open_model_to_run(r->model, &j->m));
  HF_TRY(read_prompts(r, j));
  HF_TRY(resume(r, j));
  if (j->list.n == 0) return HF_OK; /* nothing is left to do */
  HF_TRY(open_plan_or_database(r, j->db_path, &j->d, &j->p));
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
  if (!j->p) {
    int prompt_tokens, output_tokens;
    prompts_mean(&j->list, &prompt_tokens, &output_tokens);
    HF_TRY(make_plan(r, j->db_path, j->users, context, prompt_tokens, output_tokens, &j->p));
  }
  int depth = r->depth ? (int)r->depth : j->p ? j->p->depth : 1;
  HF_TRY(engine_options_for(r, j->db_path, j->m, j->p, j->users, context, depth, &j->o, &j->pace));
  if (r->adapt) HF_TRY(prepare_adapting(r, j));
  const standby_users parked = {j->list.n_sessions, prompts_parked(&j->list, j->users)};
  HF_TRY(standby_size(r, j->p, model_get_config(j->m), parked, &j->o, &j->beside));
  const bool device = engine_has_device(&j->o);
  if (j->p && !j->pace && device != (j->o.ranks != NULL)) /* with both one may be lost and the other stay */
    make_plan_without(r, j->db_path, j->p, &j->without);
  if (j->p && !j->pace && j->o.more_devices > 0 && !j->o.ranks) {
    make_plans_without_each(r, j->db_path, j->p, &j->o, j->without_one);
    for (int k = 0; k <= j->o.more_devices; k++) j->o.without[k] = j->without_one[k];
  }
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

static void losses_json(const serve_stats *st, json *o) {
  json *list = json_add_array(o, "losses");
  for (int i = 0; i < st->n_losses; i++) {
    const serve_loss *l = &st->loss[i];
    json *e = json_add_object(list, NULL);
    json_add_str(e, "why", l->why);
    json_add_num(e, "at_s", l->at_s);
    json_add_num(e, "recovery_s", (double)l->recovery_ns * 1e-9);
    json_add_int(e, "requests", l->requests);
    json_add_int(e, "tokens_again", l->tokens);
    json_add_int(e, "tokens_restored", l->restored);
    json_add_int(e, "retracted_tokens", l->retracted);
    json_add_int(e, "suspect_requests", l->suspect);
    json_add_int(e, "devices_left", l->devices_left);
    if (!(l->back_s > 0)) continue;
    json *b = json_add_object(e, "back");
    json_add_int(b, "device", l->device);
    json_add_num(b, "at_s", l->back_s);
    json_add_num(b, "standstill_s", (double)l->stood_ns * 1e-9);
    json_add_int(b, "probes", l->probes);
    json_add_int(b, "loaded_bytes", l->loaded_bytes);
  }
}

/* By which requests went on after the last loss. NULL: none. */
static const plan *plan_after(const job *j) {
  if (j->stats.n_losses == 0) return NULL;
  const serve_loss *l = &j->stats.loss[j->stats.n_losses - 1];
  if (j->o.ranks) return ranks_left(j->o.ranks) > 0 ? NULL : j->without;
  if (l->devices_left == 0) return j->without;
  return l->planned ? j->without_one[l->device] : NULL;
}

/* The load of the plan, on what is left. */
static double predicted_after(const job *j) {
  const plan *p = plan_after(j);
  return p && j->list.n >= p->users && j->users == p->users ? p->decode_tok_per_s.likely : 0;
}

static void after_json(const job *j, json *o) {
  const double measured = serve_rate_after(&j->stats), predicted = predicted_after(j);
  json *a = json_add_object(o, "after_loss");
  json_add_int(a, "plan_id", plan_after(j) ? plan_after(j)->id : 0);
  json_add_num(a, "decode_tok_per_s", measured);
  if (!(predicted > 0)) return;
  json_add_num(a, "predicted_decode_tok_per_s", predicted);
  if (measured > 0) json_add_num(a, "signed_error", signed_error(predicted, measured));
}

/* Since all devices are back, the plan holds again. */
static double predicted_back(const job *j) {
  return j->p && j->list.n >= j->p->users && j->users == j->p->users ? j->p->decode_tok_per_s.likely : 0;
}

static void back_json(const job *j, json *o) {
  const double measured = serve_rate_back(&j->stats), predicted = predicted_back(j);
  if (!(measured > 0)) return;
  json *a = json_add_object(o, "after_return");
  json_add_num(a, "decode_tok_per_s", measured);
  if (!(predicted > 0)) return;
  json_add_num(a, "predicted_decode_tok_per_s", predicted);
  json_add_num(a, "signed_error", signed_error(predicted, measured));
}

static const char *kv_name(const engine_options *o) {
  return kern_kv_name(o->exact ? KV_F32 : o->kv_type);
}

static json *to_json(const job *j) {
  const rec_run *n = &j->run;
  json *o = json_new_object();
  json_add_int(o, "run_id", n->id);
  json_add_int(o, "plan_id", j->p ? j->p->id : 0);
  json_add_int(o, "requests", j->list.n);
  if (j->list.kept) json_add_int(o, "resumed", j->list.n_all - j->list.n);
  json_add_int(o, "users", j->users);
  json_add_int(o, "depth", j->o.depth);
  json_add_str(o, "kv_type", kv_name(&j->o));
  json_add_int(o, "threads", n->threads);
  json_add_int(o, "prompt_tokens", n->prompt_tokens);
  json_add_int(o, "output_tokens", n->output_tokens);
  json_add_int(o, "shared_tokens", j->stats.shared_tokens);
  if (j->sb) standby_json(j->sb, o);
  json_add_num(o, "decode_tok_per_s", n->decode_tok_per_s);
  json_add_num(o, "tok_per_s_wall", n->tok_per_s_wall);
  json_add_num(o, "prefill_tok_per_s", n->prefill_tok_per_s);
  if (n->other_cpu_share >= 0) json_add_num(o, "other_cpu_share", n->other_cpu_share);
  drift_json(&j->drift, o);
  if (j->o.ranks) ranks_json(j->o.ranks, o);
  if (j->stats.n_losses > 0) {
    losses_json(&j->stats, o);
    after_json(j, o);
    back_json(j, o);
  }
  if (j->adapt) adapt_json(j->adapt, o);
  add_percentiles(o, "ttft_s", n->ttft_p50_s, n->ttft_p90_s, n->ttft_p99_s);
  add_percentiles(o, "tpot_s", n->tpot_p50_s, n->tpot_p90_s, n->tpot_p99_s);
  if (j->idle.n_resources) timeline_json(&j->idle, o);
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
  if (j->corrected > 0) {
    json_add_num(p, "drift_corrected_decode_tok_per_s", j->corrected);
    json_add_num(e, "drift_corrected_decode_tok_per_s", signed_error(j->corrected, n->decode_tok_per_s));
  }
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
  if (n->id) printf("run %lld: ", (long long)n->id);
  else printf("run not recorded: ");
  printf("%d request%s, %d at once, depth %d, %d CPU thread%s, device %s: %lld prompt and %lld output tokens in %.3g s\n",
         j->list.n, plural(j->list.n), j->list.n < j->users ? j->list.n : j->users, j->o.depth, n->threads, plural(n->threads),
         j->o.gpu, (long long)n->prompt_tokens, (long long)n->output_tokens, n->wall_s);
  if (j->stats.shared_tokens > 0)
    printf("  %lld more prompt tokens were not computed: their beginnings were those of other prompts\n",
           (long long)j->stats.shared_tokens);
  if (j->sb) standby_print(j->sb);
  if (j->o.fault.kind != DEV_FAULT_NONE && j->stats.n_losses == 0)
    printf("  no device was lost by the rehearsed fault (--fault): it may count more operations than this run had\n");
  for (int i = 0; i < j->stats.n_losses; i++) {
    const serve_loss *l = &j->stats.loss[i];
    printf("  %s was lost after %.3g s (%s); the next token came %.2g s later, KV of %lld tokens computed again",
           l->rank ? "another machine" : "the device", l->at_s, l->why, (double)l->recovery_ns * 1e-9, (long long)l->tokens);
    if (j->sb) printf(", that of %lld came from the mirror", (long long)l->restored);
    putchar('\n');
    if (l->back_s > 0)
      printf("  gpu%d was taken back after %.3g s (asked %d times, %.1f MB loaded beside the requests); steps stood still for "
             "%.2g s\n",
             l->device, l->back_s, l->probes, (double)l->loaded_bytes * 1e-6, (double)l->stood_ns * 1e-9);
  }
  if (j->o.ranks) ranks_print(j->o.ranks);
  if (j->adapt) adapt_print(j->adapt);
  if (left) printf("  interrupted: %d of %d requests are not finished\n", left, j->list.n);
  printf("  %-22s %12s %12s\n", "", p ? "predicted" : "", "measured");
  row("decode", "tokens/s", 1, p ? p->decode_tok_per_s.likely : 0, n->decode_tok_per_s, like);
  if (j->corrected > 0) row("decode, but for drift", "tokens/s", 1, j->corrected, n->decode_tok_per_s, like);
  row("time to first token", "ms (p50)", 1e3, p ? p->ttft_s.p50 : 0, n->ttft_p50_s, like);
  row("time per output token", "ms (p50)", 1e3, p ? p->tpot_s.p50 : 0, n->tpot_p50_s, like);
  if (serve_rate_after(&j->stats) > 0)
    row("decode after the loss", "tokens/s", 1, predicted_after(j), serve_rate_after(&j->stats), true);
  if (serve_rate_back(&j->stats) > 0)
    row("decode after its return", "tokens/s", 1, predicted_back(j), serve_rate_back(&j->stats), true);
  row("prefill", "tokens/s", 1, 0, n->prefill_tok_per_s, like);
  if (n->other_cpu_share >= REC_RUN_DISTURBED)
    printf("  measured beside other programs: they had %.0f %% of the CPU time; run it again on a quiet machine\n",
           100 * n->other_cpu_share);
  if (p && !like) printf("  no error is stated: this run is not the planned one (%s)\n", j->unlike);
}

/* An error is stated only where like is compared with like: the planned load on the planned device of this machine. */
static void compare_load(const run_options *r, job *j) {
  const plan *p = j->p;
  rec_machine m;
  size_t n = sizeof j->unlike;
  if (!p) return;
  if (interrupted) snprintf(j->unlike, n, "it was stopped before its end");
  else if (j->users != p->users || j->list.n < p->users)
    snprintf(j->unlike, n, "%d at once, the plan is for %d", j->list.n < j->users ? j->list.n : j->users, p->users);
  else if (strcmp(j->o.gpu, p->gpu)) snprintf(j->unlike, n, "device %.40s, the plan is for %.40s", j->o.gpu, p->gpu);
  else if (j->stats.shared_tokens > 0)
    snprintf(j->unlike, n, "%lld prompt tokens were shared, the plan computes all", (long long)j->stats.shared_tokens);
  else if (j->stats.n_losses > 0)
    snprintf(j->unlike, n, "%s was lost on the way", j->stats.loss[0].rank ? "another machine" : "the device");
  else if (j->stats.restored_tokens > 0)
    snprintf(j->unlike, n, "KV of %lld prompt tokens came from the mirror, the plan computes all",
             (long long)j->stats.restored_tokens);
  else if (r->ranks_percent > 0) snprintf(j->unlike, n, "other machines have experts, the plan has none there");
  else if (engine_not_uploaded(j->e) > 0)
    snprintf(j->unlike, n, "prompts of %d layers are not uploaded, the plan has them so", engine_not_uploaded(j->e));
  else if (j->stats.moved) snprintf(j->unlike, n, "experts changed places on the way");
  else if (j->o.dequantise) snprintf(j->unlike, n, "weights may be dequantised, the plan is for them as they are");
  else if (strcmp(kv_name(&j->o), p->kv_type[0] ? p->kv_type : "f16"))
    snprintf(j->unlike, n, "KV cache in %s, the plan is for %.7s", kv_name(&j->o), p->kv_type[0] ? p->kv_type : "f16");
  else if (plan_uploads(p) && j->o.upload_tokens == 0)
    snprintf(j->unlike, n, "the plan sends experts of prompts to the device, this run did not");
  else if (j->o.depth != p->depth) snprintf(j->unlike, n, "depth %d, the plan is for %d", j->o.depth, p->depth);
  else if (!j->o.pace && p->machine_id && db_machine_get(j->d, p->machine_id, &m) == HF_OK && m.kind != MACHINE_MEASURED)
    snprintf(j->unlike, n, "the plan is for machine %.80s, this is another", p->machine);
}

static void fill_run(const run_options *r, job *j) {
  rec_run *n = &j->run;
  record_describe(n, r->model, j->m, j->e, &j->o, j->p, j->users, interrupted != 0);
  compare_load(r, j);
  if (!j->p || j->unlike[0]) return; /* no prediction of this run */
  n->predicted_decode_tok_per_s = j->p->decode_tok_per_s.likely;
  n->predicted_low = j->p->decode_tok_per_s.low;
  n->predicted_high = j->p->decode_tok_per_s.high;
  n->predicted_ttft_p50_s = j->p->ttft_s.p50;
  n->predicted_tpot_p50_s = j->p->tpot_s.p50;
}

/* Between steps of a run at depth 1 nothing is at work. */
static void look_at_memory(void *user, const sched *s) {
  const stream_state *state = user;
  (void)s;
  drift_look(state->drift);
}

static void begin_drift(job *j) {
  topology *t = NULL;
  hf_status st = hf_alloc(&t, 1, sizeof *t, "topology");
  if (st == HF_OK) st = topo_get(t);
  if (st == HF_OK) {
    drift_begin(t, engine_threads(j->e), &j->drift);
    if (j->d) drift_profile(&j->drift, j->d, j->p ? j->p->machine_id : 0);
  }
  if (st != HF_OK) hf_clear_error();
  free(t);
}

/* The plan's own prediction, as much slower or faster as hf-plan is for the planned load when memory is read as it was now. A paced device keeps
 * the times of another machine. */
static double corrected_for_drift(const run_options *r, const job *j) {
  const plan *p = j->p;
  if (!p || j->unlike[0] || j->o.pace || !(j->drift.profile_bytes_per_s > 0)) return 0;
  plan_question q = {.db_path = j->db_path,
                     .model = r->model,
                     .gpu = p->gpu,
                     .machine = p->machine,
                     .kv_type = p->kv_type[0] ? p->kv_type : NULL,
                     .users = p->users,
                     .context = p->context,
                     .prompt_tokens = p->prompt_tokens,
                     .output_tokens = p->output_tokens,
                     .depth = p->depth};
  return p->decode_tok_per_s.likely / drift_slows(&j->drift, &q, ask_decode_rate(&q));
}

/* What is read for texts that end an answer is read again. */
static void on_retract(void *user, serve_request *q, int n) {
  stream_state *s = user;
  hf_progress_add(&s->bar, -n);
  if (!s->tok || !q->n_stop) return;
  text_stream *t = &s->text[q - s->first];
  stream_free(t);
  stream_init(t);
  for (int i = 0; i < q->n_out && s->st == HF_OK; i++) s->st = stream_add(t, s->tok, q->out[i], false, q->stop, q->n_stop);
}

/* Rows of the run that goes on name its plan. */
static hf_status begin_adapting(const run_options *r, job *j) {
  if (!j->o.movable) return HF_OK;
  HF_TRY(plan_adopt(j->d, j->p));
  adapt_options ao = {.db_path = j->db_path,
                      .e = j->e,
                      .p = j->p,
                      .live = &j->stats,
                      .users = j->users,
                      .context = j->o.context,
                      .chunk_tokens = j->o.max_tok - j->o.max_seqs,
                      .every_s = r->adapt_every_s > 0 ? r->adapt_every_s : 60,
                      .cpus = j->cpus};
  record_describe(&ao.run, r->model, j->m, j->e, &j->o, j->p, j->users, false);
  return adapt_new(&ao, &j->adapt);
}

static hf_status serve(const run_options *r, job *j) {
  stream_state s = {.r = r,
                    .drift = &j->drift,
                    .adapt = j->adapt,
                    .tok = j->tok,
                    .form = r->chat ? &j->form : NULL,
                    .first = j->list.req,
                    .list = &j->list,
                    .config = model_get_config(j->m),
                    .single = j->list.n == 1 && !j->list.kept,
                    .trace.on_host = !engine_has_device(&j->o)};
  hf_status st;
  int64_t tokens = 0;
  HF_GO(end, hf_alloc(&s.text, (size_t)j->list.n, sizeof *s.text, "text of answers"));
  for (int i = 0; i < j->list.n; i++) {
    stream_init(&s.text[i]);
    tokens += j->list.req[i].max_tokens;
  }
  if (j->part[0] && !(s.part = fopen(j->part, "a"))) {
    st = hf_fail(HF_INPUT, "--out: %s cannot be written", j->part);
    goto end;
  }
  serve_options so = {.sample = sample_options_of(r),
                      .chunk_tokens = j->o.max_tok - j->o.max_seqs,
                      .users = j->users,
                      .user = &s,
                      .on_token = on_token,
                      .ends = ends,
                      .on_finish = on_finish,
                      .on_final = on_final,
                      .on_step = on_step,
                      .on_loss = tell_loss,
                      .on_back = tell_back,
                      .on_retract = r->stream ? NULL : on_retract,
                      .on_sched = j->o.depth == 1 ? look_at_memory : NULL,
                      .stop = &interrupted};
  struct sigaction sa = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND}, old, old_term;
  sigaction(SIGINT, &sa, &old);
  sigaction(SIGTERM, &sa, &old_term);
  if (!r->stream) hf_progress_begin(&s.bar, "running", "tokens", tokens);
  so.known = j->sb ? standby_known(j->sb) : j->known;
  so.standby = j->sb;
  if (j->list.n_sessions > 0) so.go_on = on_go_on;
  beside_mark from = beside_now();
  st = serve_run(j->e, j->list.req, j->list.n, &so, &j->stats);
  beside_mark to = beside_now();
  if (j->adapt) adapt_end(j->adapt);
  j->stats.planned_tok_per_s = predicted_back(j);
  j->stats.moved = engine_moved(j->e).changed;
  j->run.other_cpu_share = beside_share(&from, &to);
  if (!r->stream) hf_progress_end(&s.bar);
  sigaction(SIGINT, &old, NULL);
  sigaction(SIGTERM, &old_term, NULL);
  if (st == HF_OK) st = s.st;
  j->trace = s.trace; /* written after the run is safe in the database */
end:
  if (s.part) {
    bool empty = ftell(s.part) == 0;
    fclose(s.part);
    if (empty) (void)unlink(j->part);
  }
  for (int i = 0; s.text && i < j->list.n; i++) stream_free(&s.text[i]);
  free(s.text);
  return st;
}

/* From here on the answers are in OUT. */
static hf_status write_answers(const run_options *r, const job *j) {
  HF_TRY(prompts_write(r->out, &j->list, j->tok));
  if (j->part[0]) (void)unlink(j->part);
  return HF_OK;
}

static hf_status nothing_left(const run_options *r, const job *j) {
  HF_TRY(write_answers(r, j));
  if (!r->common.json) {
    printf("all %d answers are in %s\n", j->list.n_all, r->out);
    return HF_OK;
  }
  json *o = json_new_object();
  json_add_int(o, "requests", 0);
  json_add_int(o, "resumed", j->list.n_all);
  return json_show(o);
}

/* What fails is told at the end, after the answers; returns what of the run is not recorded then. */
static const char *keep_run(const run_options *r, job *j, record_failure *f) {
  hf_status st = j->p ? plan_adopt(j->d, j->p) : HF_OK;
  fill_run(r, j); /* after the plan got its number */
  j->run.dram_bytes_per_s = drift_bytes_per_s(&j->drift);
  const hf_status counted = record_figures(&j->run, j->list.req, j->list.n, &j->stats);
  if (st == HF_OK) st = counted;
  if (st == HF_OK) st = record_run(j->d, &j->run, j->list.req, j->list.n, &j->stats);
  const bool recorded = !record_failed(f, st);
  const hf_status told = recorded && j->adapt ? adapt_record(j->adapt, j->d, j->run.id) : HF_OK;
  if (!recorded) j->run.id = 0;
  else if (record_failed(f, told)) return "log of changes";
  else if (r->trace) record_failed(f, trace_store(j->d, j->run.id, &j->trace));
  return recorded ? "trace" : "run";
}

static hf_status run_job(const run_options *r, job *j) {
  record_failure failed = {0};
  if (r->out) HF_TRY(hf_note(hf_can_write(r->out), "option --out"));
  if (r->trace) HF_TRY(hf_note(hf_can_write(r->trace), "option --trace"));
  HF_TRY(prepare(r, j));
  if (j->list.n == 0) return nothing_left(r, j);
  HF_TRY(open_engine_or_explain(r, j->m, &j->o, &j->e));
  j->o = *engine_opts(j->e); /* without the device, if that could not be used */
  HF_TRY(standby_as_asked(&j->beside, j->e, &j->sb));
  if (!r->no_shared_prefixes && !j->sb) HF_TRY(prefix_new(j->o.page_tokens, j->o.n_pages, &j->known));
  begin_drift(j);
  HF_TRY(begin_adapting(r, j));
  HF_TRY(serve(r, j));
  drift_end(&j->drift);
  const char *lost = keep_run(r, j, &failed);
  j->corrected = corrected_for_drift(r, j);
  if (r->trace) HF_TRY(idle_account_of(j->trace.ev, j->trace.n, &j->idle));
  if (r->trace) HF_TRY(timeline_write(j->trace.ev, j->trace.n, j->trace.origin_ns, &j->idle, r->trace));
  if (r->out) HF_TRY(write_answers(r, j));
  if (r->common.json) {
    HF_TRY(json_show(to_json(j)));
  } else {
    print_people(j);
    if (j->idle.n_resources) timeline_print(&j->idle);
  }
  if (failed.st != HF_OK)
    return hf_fail(failed.st, "%s; the %s is not recorded, the run's answers and figures are whole", failed.why, lost);
  int left = unfinished(&j->list);
  return left ? hf_fail(HF_NO, "interrupted: %d of %d requests are not finished; run %lld holds the others", left, j->list.n,
                        (long long)j->run.id)
              : HF_OK;
}

hf_status cmd_prompts(const run_options *r) {
  job j = {0};
  if (sched_getaffinity(0, sizeof j.cpus, &j.cpus) != 0) return hf_fail(HF_MACHINE, "the CPUs of this process are not known");
  hf_status st = run_job(r, &j);
  drift_end(&j.drift);
  adapt_free(j.adapt);
  standby_close(j.sb);
  engine_close(j.e);
  prefix_free(j.known);
  stage_table_free(j.pace);
  serve_stats_free(&j.stats);
  trace_free(&j.trace);
  idle_account_free(&j.idle);
  prompts_free(&j.list);
  plan_free(j.p);
  plan_free(j.without);
  for (int k = 0; k < ENGINE_DEVICES; k++) plan_free(j.without_one[k]);
  if (j.d) db_close(j.d);
  tokenizer_close(j.tok);
  model_close(j.m);
  return st;
}
