/* cmd_chat.c: hf-run --chat: a conversation, a line of standard input at a time. The engine stays; every turn gives the model the whole
 * conversation again and is a run in the database. Ctrl-C ends an answer, between answers it ends the conversation. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "executor/beside.h"
#include "executor/commands.h"
#include "executor/form.h"
#include "executor/record.h"
#include "executor/setup.h"
#include "executor/stream.h"

enum { DEFAULT_CONTEXT = 4096, DEFAULT_ANSWER = 512, MOST_CONVERSATION = 64 << 20 };

static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig) {
  (void)sig;
  interrupted = 1;
}

typedef struct {
  const run_options *r;
  model *m;
  tokenizer *tok;
  chat_form form;
  char db_path[4096];
  db *d;
  plan *p;
  engine *e;
  engine_options o;
  stage_table *pace;
  prefix *known; /* pages of the conversation so far */
  standby *sb;   /* NULL: there is no KV mirror */
  chat_message *msg;
  int n_msg, cap_msg, n_turns;
  record_failure unrecorded;
  /* the answer at work */
  text_stream text;
  hf_status st;
} chat;

static hf_status push(chat *c, chat_role role, const char *text) {
  if (c->n_msg == c->cap_msg) {
    int cap = c->cap_msg ? 2 * c->cap_msg : 16;
    HF_TRY(hf_realloc(&c->msg, (size_t)cap, sizeof *c->msg, "conversation"));
    c->cap_msg = cap;
  }
  char *own = NULL;
  HF_TRY(hf_strdup(&own, text));
  c->msg[c->n_msg++] = (chat_message){role, own};
  return HF_OK;
}

static void drop_to(chat *c, int n) {
  while (c->n_msg > n) free((char *)(uintptr_t)c->msg[--c->n_msg].text);
}

static bool is_end(const chat *c, int32_t id) {
  const model_config *mc = model_get_config(c->m);
  for (int i = 0; i < mc->n_eos; i++)
    if (mc->eos_ids[i] == id) return true;
  return id == c->form.end_id;
}

static void show(chat *c, const serve_request *q, bool end) {
  size_t n = stream_ready(&c->text, end, q->stop, q->n_stop);
  if (!c->r->common.json && n > 0) fwrite(c->text.text.data + c->text.shown, 1, n, stdout);
  if (!c->r->common.json) fflush(stdout);
  c->text.shown += n;
}

/* Special tokens are shown: they tell thoughts from the answer where a family's model marks them so. */
static void on_token(void *user, serve_request *q, int32_t id) {
  chat *c = user;
  if (is_end(c, id)) return;
  hf_status st = stream_add(&c->text, c->tok, id, true, q->stop, q->n_stop);
  if (st != HF_OK) c->st = st;
  else show(c, q, false);
}

static bool ends(void *user, serve_request *q, int32_t id) {
  const chat *c = user;
  (void)q;
  return id == c->form.end_id || c->text.stopped;
}

/* A database that fails (a full disk) ends no conversation. */
static hf_status record(chat *c, const serve_request *q, const serve_stats *st, double others, int64_t *run_id) {
  rec_run n = {0};
  record_describe(&n, c->r->model, c->m, c->e, &c->o, c->p, 1, interrupted != 0);
  n.other_cpu_share = others;
  HF_TRY(record_figures(&n, q, 1, st));
  if (c->unrecorded.st != HF_OK) return HF_OK;
  if (!record_failed(&c->unrecorded, record_run(c->d, &n, q, 1, st))) *run_id = n.id;
  else hf_log(HF_LOG_WARN, "%s; turns are not recorded from now on", c->unrecorded.why);
  return HF_OK;
}

static hf_status show_json(const chat *c, const serve_request *q, int64_t shared, int64_t run_id) {
  json *o = json_new_object();
  json_add_str(o, "role", "assistant");
  json_add_str(o, "text", c->text.text.data ? c->text.text.data : "");
  json_add_str(o, "finish", q->finish);
  if (q->suspect) json_add_bool(o, "suspect", true);
  json_add_int(o, "prompt_tokens", q->n_ids);
  json_add_int(o, "output_tokens", q->n_out);
  json_add_int(o, "shared_tokens", shared);
  if (c->sb) standby_json(c->sb, o);
  json_add_int(o, "run_id", run_id);
  HF_TRY(json_show(o));
  fflush(stdout);
  return HF_OK;
}

/* The request of this turn is filled in; serves it and keeps the answer. */
static hf_status answer(chat *c, serve_request *q) {
  serve_stats stats = {0};
  int64_t run_id = 0;
  serve_options so = {.sample = sample_options_of(c->r),
                      .chunk_tokens = c->o.max_tok - c->o.max_seqs,
                      .users = 1,
                      .user = c,
                      .on_token = on_token,
                      .ends = ends,
                      .on_loss = tell_loss,
                      .on_back = tell_back,
                      .stop = &interrupted};
  interrupted = 0;
  c->st = HF_OK;
  stream_init(&c->text);
  beside_mark from = beside_now();
  so.known = c->sb ? standby_known(c->sb) : c->known;
  so.standby = c->sb;
  hf_status st = serve_run(c->e, q, 1, &so, &stats);
  beside_mark to = beside_now();
  if (st == HF_OK) st = c->st;
  if (st == HF_OK) {
    show(c, q, true);
    if (!c->r->common.json) putchar('\n');
    st = record(c, q, &stats, beside_share(&from, &to), &run_id);
  }
  if (st == HF_OK && c->r->common.json) st = show_json(c, q, stats.shared_tokens, run_id);
  if (st == HF_OK) st = push(c, CHAT_ASSISTANT, chat_answer(c->form.style.family, c->text.text.data ? c->text.text.data : ""));
  if (st == HF_OK && interrupted && run_id) hf_log(HF_LOG_INFO, "interrupted; run %lld holds this turn", (long long)run_id);
  interrupted = 0;
  stream_free(&c->text);
  serve_stats_free(&stats);
  return st;
}

static hf_status turn(chat *c, const char *line) {
  hf_buf text;
  int32_t *ids = NULL;
  serve_request q = {.draw = (uint64_t)c->n_turns,
                     .session = "chat",
                     .ignore_eos = c->r->ignore_eos,
                     .stop = c->r->stop.v,
                     .n_stop = c->r->stop.n};
  int before = c->n_msg;
  hf_status st;
  hf_buf_init(&text, MOST_CONVERSATION);
  HF_GO(end, push(c, CHAT_USER, line));
  HF_GO(end, chat_write(&c->form.style, c->msg, c->n_msg, &text));
  HF_GO(end, tokenizer_encode(c->tok, text.data, text.len, false, true, &ids, &q.n_ids));
  q.ids = ids;
  int room = c->o.context - q.n_ids, most = c->r->max_tokens ? (int)c->r->max_tokens : DEFAULT_ANSWER;
  if (room < 1) {
    hf_log(HF_LOG_INFO, "the conversation has %d tokens, the context %d: /clear begins a new one", q.n_ids, c->o.context);
    drop_to(c, before);
    goto end;
  }
  q.max_tokens = most < room ? most : room;
  snprintf(q.ext_id, sizeof q.ext_id, "turn %d", ++c->n_turns);
  HF_GO(end, hf_alloc(&q.out, (size_t)q.max_tokens, sizeof *q.out, "an answer"));
  st = answer(c, &q);
end:
  hf_buf_free(&text);
  free(ids);
  free(q.out);
  return st;
}

static hf_status open_chat(chat *c) {
  const run_options *r = c->r;
  char why[512] = "";
  HF_TRY(db_default_path(r->common.db_path, c->db_path, sizeof c->db_path));
  HF_TRY(open_model_to_run(r->model, &c->m));
  hf_status st = tokenizer_open(r->model, &c->tok);
  if (st != HF_OK && st != HF_NOT_FOUND && st != HF_UNSUPPORTED) return st;
  if (st != HF_OK) snprintf(why, sizeof why, "%s", hf_error_line());
  HF_TRY(form_of(c->m, c->tok, why[0] ? why : NULL, &c->form));
  HF_TRY(open_plan_or_database(r, c->db_path, &c->d, &c->p));
  int most = model_get_config(c->m)->max_context;
  int context = r->context ? (int)r->context : c->p ? c->p->context : most < DEFAULT_CONTEXT ? most : DEFAULT_CONTEXT;
  if (!c->p)
    HF_TRY(make_plan(r, c->db_path, 1, context, context / 2, DEFAULT_ANSWER < context / 2 ? DEFAULT_ANSWER : context / 2, &c->p));
  HF_TRY(engine_options_for(r, c->db_path, c->m, c->p, 1, context, r->depth ? (int)r->depth : 1, &c->o, &c->pace));
  standby_spec beside;
  HF_TRY(standby_size(r, c->p, model_get_config(c->m), (standby_users){.sessions = 1}, &c->o, &beside));
  if (!c->d) HF_TRY(db_open(c->db_path, true, &c->d));
  if (c->p) HF_TRY(plan_adopt(c->d, c->p));
  if (r->system) HF_TRY(push(c, CHAT_SYSTEM, r->system));
  HF_TRY(open_engine_or_explain(r, c->m, &c->o, &c->e));
  c->o = *engine_opts(c->e);
  HF_TRY(standby_as_asked(&beside, c->e, &c->sb));
  return r->no_shared_prefixes || c->sb ? HF_OK : prefix_new(c->o.page_tokens, c->o.n_pages, &c->known);
}

static hf_status talk(chat *c) {
  bool people = isatty(STDIN_FILENO) && !c->r->common.json;
  char *line = NULL;
  size_t cap = 0;
  hf_status st = HF_OK;
  if (people) puts("Type a message; /clear begins a new conversation, /quit or Ctrl-D ends.");
  while (st == HF_OK) {
    if (people) fputs("> ", stdout);
    fflush(stdout);
    ssize_t n = getline(&line, &cap, stdin);
    if (n < 0) break; /* the end, or Ctrl-C */
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
    if (n == 0) continue;
    if (!strcmp(line, "/quit")) break;
    if (!strcmp(line, "/clear")) drop_to(c, c->r->system != NULL);
    else st = turn(c, line);
  }
  if (people && st == HF_OK) putchar('\n');
  free(line);
  return st;
}

hf_status cmd_chat(const run_options *r) {
  chat c = {.r = r};
  struct sigaction sa = {.sa_handler = on_interrupt}, old; /* no SA_RESTART: reading a line ends, too */
  sigaction(SIGINT, &sa, &old);
  hf_status st = open_chat(&c);
  if (st == HF_OK) st = talk(&c);
  if (st == HF_OK && c.unrecorded.st != HF_OK) st = hf_fail(c.unrecorded.st, "turns were not recorded, see the warning above");
  sigaction(SIGINT, &old, NULL);
  standby_close(c.sb);
  engine_close(c.e);
  prefix_free(c.known);
  stage_table_free(c.pace);
  drop_to(&c, 0);
  free(c.msg);
  plan_free(c.p);
  if (c.d) db_close(c.d);
  tokenizer_close(c.tok);
  model_close(c.m);
  return st;
}
