/* ask.h: asking hf-plan. The programs never link each other: hf-run starts the hf-plan that lies beside it with --json and reads what
 * it prints on standard output. */
#ifndef HF_EXECUTOR_ASK_H
#define HF_EXECUTOR_ASK_H
#include <stdatomic.h>

#include "base/json.h"
#include "db/plan.h"
#include "sched/stages.h"

/* argv after the program name, NULL-terminated. The child's standard error passes through when verbose, else its last line becomes the
 * error's text. HF_NO when it exits 1, HF_INPUT for 2, HF_MACHINE otherwise or when it cannot be started. *out: json_free. */
HF_MUST hf_status ask_hf_plan(const char *const *argv, json **out);
/* The same, but once *stop is set hf-plan is killed and HF_TIMEOUT returned, within a moment. Any thread. */
HF_MUST hf_status ask_hf_plan_until(const char *const *argv, atomic_bool *stop, json **out);
/* A plan for one load. machine NULL: the last one measured; depth, chunk_tokens and threads 0: hf-plan's choice; store: keep it in the database. The answer is the
 * JSON of `hf-plan plan`; errors as ask_hf_plan. */
typedef struct {
  const char *db_path, *model, *gpu, *machine, *kv_type; /* kv_type NULL: f16 */
  int users, context, prompt_tokens, output_tokens, depth, chunk_tokens;
  int64_t threads;
  const plan *plan;        /* of ask_stages: its layers live where it says; NULL: hf-plan chooses */
  double dram_bytes_per_s; /* at which memory is read now; 0 = as when the machine was measured */
  bool store;
} plan_question;
HF_MUST hf_status ask_plan(const plan_question *q, json **out);
/* Its likely decode tokens/s alone; 0 when hf-plan cannot say (no profile yet), which is logged for debugging and is no error. */
double ask_decode_rate(const plan_question *q);
/* Stage times of q->model on `machine` with the device part as q->gpu says ("paced:…" gives the modelled machine's) and a KV cache of q->kv_type; which
 * layers several devices are home of is q->plan's, else the load decides. */
HF_MUST hf_status ask_stages(const plan_question *q, const char *machine, stage_table **out);
#endif
