/* adapt_ask.h: a question to hf-plan about a run that goes on, by a thread of its own. Private to executor/adapt*.c. */
#ifndef HF_EXECUTOR_ADAPT_ASK_H
#define HF_EXECUTOR_ADAPT_ASK_H

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "db/db.h"
#include "executor/serve.h"

typedef struct {
  /* asked; the thread's until ask_ended */
  const char *db_path;
  rec_run run;
  serve_stats counts; /* arrays are its own */
  plan *now; /* the placement at work, of which the answer tells the gain; becomes a row of the database when it is none */
  int users, context, chunk_tokens;
  cpu_set_t cpus; /* where it, and hf-plan, may run */
  /* answered */
  hf_status st;
  char why[256];
  plan *answer;
  double gain; /* tokens/s, answer over now */
  /* between the threads */
  pthread_t thread;
  bool asked;
  atomic_bool stop, ended;
} adapt_question;

HF_MUST hf_status ask_begin(adapt_question *q);
/* Whether the answer, or the failure, is there; the thread is gone then. */
bool ask_ended(adapt_question *q);
void ask_stop(adapt_question *q);    /* the same without waiting for it; ask_give_up is still to come */
void ask_give_up(adapt_question *q); /* returns when the thread is gone: hf-plan is killed */
#endif
