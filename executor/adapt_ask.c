/* adapt_ask.c: see adapt_ask.h. */
#include "executor/adapt_ask.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "executor/ask.h"
#include "executor/options.h"
#include "executor/record.h"

enum { NICE = 10 };
#define LONGEST_NS INT64_C(3600000000000) /* no question to hf-plan takes as long */

/* hf-plan inherits all of it. The driver may be pinned to a core, and may have been started with a priority that nothing beside it should have. */
static void step_back(const adapt_question *q) {
  const struct sched_param none = {0};
  (void)pthread_setaffinity_np(pthread_self(), sizeof q->cpus, &q->cpus);
  (void)pthread_setschedparam(pthread_self(), SCHED_OTHER, &none);
  (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
}

static hf_status ask(adapt_question *q, int64_t run, json **doc) {
  enum { NUMBERS = 7 };
  const plan *p = q->now;
  const bool lengths = p->prompt_tokens + p->output_tokens <= q->context;
  const char *const name[NUMBERS] = {"--from-run",     "--depth",         "--users",        "--context",
                                     "--chunk-tokens", "--prompt-tokens", "--output-tokens"};
  const int64_t value[NUMBERS] = {
      run, p->depth, q->users, q->context, q->chunk_tokens, lengths ? p->prompt_tokens : 0, lengths ? p->output_tokens : 0};
  char text[NUMBERS][24];
  const char *argv[40] = {"plan",    "--json",     "--quiet", "--no-store", "--db",      q->db_path,
                          "--model", q->run.model, "--gpu",   q->run.gpu,   "--kv-type", p->kv_type[0] ? p->kv_type : "f16"};
  int n = 12;
  for (int i = 0; i < NUMBERS; i++) {
    if (value[i] == 0) continue;
    snprintf(text[i], sizeof text[i], "%lld", (long long)value[i]);
    argv[n++] = name[i], argv[n++] = text[i];
  }
  if (p->machine_id == 0 && p->machine[0]) argv[n++] = "--machine", argv[n++] = p->machine; /* else that of the plan's row */
  return ask_hf_plan_until(argv, &q->stop, doc);
}

static hf_status read_answer(adapt_question *q, const json *doc) {
  HF_TRY(plan_read_json(doc, "answer of hf-plan", &q->answer));
  const json *gain = json_get(json_get(q->answer->extra, "changes"), "gain_expected");
  if (q->answer->n_layers != q->now->n_layers || q->answer->n_experts != q->now->n_experts)
    return hf_fail(HF_INPUT, "answer of hf-plan: for another model");
  if (!gain) return hf_fail(HF_INPUT, "answer of hf-plan: changes.gain_expected: missing");
  q->gain = json_number(gain, 0);
  return HF_OK;
}

/* The rows are there for as long as hf-plan reads them. */
static hf_status ask_with_rows(adapt_question *q, db *d) {
  json *doc = NULL;
  const int64_t now_ns = hf_wall_ns();
  HF_TRY(db_run_drop_running(d, now_ns - LONGEST_NS)); /* of a run that was killed while it asked */
  HF_TRY(plan_adopt(d, q->now));
  rec_run run = q->run;
  run.id = 0;
  run.created_ns = now_ns;
  run.plan_id = q->now->id;
  HF_TRY(record_counts(d, &run, &q->counts));
  hf_status st = ask(q, run.id, &doc);
  char why[256];
  snprintf(why, sizeof why, "%.255s", st == HF_OK ? "" : hf_error_line());
  const hf_status dropped = db_run_drop(d, run.id);
  if (st == HF_OK) st = dropped;
  else st = hf_fail(st, "%s", why);
  if (st == HF_OK) st = read_answer(q, doc);
  json_free(doc);
  return st;
}

static void *asking(void *arg) {
  adapt_question *q = arg;
  db *d = NULL;
  step_back(q);
  hf_status st = db_open(q->db_path, false, &d);
  if (st == HF_OK) st = ask_with_rows(q, d);
  if (d) db_close(d);
  q->st = st;
  snprintf(q->why, sizeof q->why, "%.255s", st == HF_OK ? "" : hf_error_line());
  atomic_store(&q->ended, true);
  return NULL;
}

hf_status ask_begin(adapt_question *q) {
  plan_free(q->answer);
  q->answer = NULL;
  q->gain = 0;
  atomic_store(&q->stop, false);
  atomic_store(&q->ended, false);
  const int err = pthread_create(&q->thread, NULL, asking, q);
  if (err) return hf_fail(HF_MACHINE, "no thread to ask hf-plan (error %d)", err);
  q->asked = true;
  return HF_OK;
}

bool ask_ended(adapt_question *q) {
  if (!q->asked || !atomic_load(&q->ended)) return false;
  pthread_join(q->thread, NULL); /* ends: it has said that it has nothing left to do */
  q->asked = false;
  return true;
}

void ask_stop(adapt_question *q) {
  atomic_store(&q->stop, true);
}

void ask_give_up(adapt_question *q) {
  if (!q->asked) return;
  ask_stop(q);
  pthread_join(q->thread, NULL); /* ends: it looks at stop while it waits for hf-plan; the database has a deadline */
  q->asked = false;
}
