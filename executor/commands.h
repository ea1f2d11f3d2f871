/* commands.h: what hf-run does, one function per job. Results for people and for --json go to standard output. */
#ifndef HF_EXECUTOR_COMMANDS_H
#define HF_EXECUTOR_COMMANDS_H
#include "executor/options.h"
#include "executor/serve.h"

HF_MUST hf_status cmd_check(const run_options *r);   /* --check-reference; HF_NO when the verdict is "failed" */
HF_MUST hf_status cmd_prompts(const run_options *r); /* --prompts, --prompt */
HF_MUST hf_status cmd_chat(const run_options *r);    /* --chat without prompts */
HF_MUST hf_status cmd_bench(const run_options *r);   /* --bench */

/* model_open, and HF_INPUT when there is nothing to run: a config alone can be planned only. */
HF_MUST hf_status open_model_to_run(const char *path, model **out);
/* Prints a document on one line of standard output and frees it, also on failure. */
HF_MUST hf_status json_show(json *doc);
/* The budget as a table on standard error; called before a refusal and with --verbose. */
void print_budget(const plan_budget *rows, int n);
/* The KV mirror of standby_size; *out stays NULL where there is to be none. */
HF_MUST hf_status standby_as_asked(const standby_spec *s, engine *e, standby **out);
void standby_json(standby *s, json *to); /* member "standby" */
void standby_print(standby *s);
/* serve_options.on_loss: a warning on standard error. */
void tell_loss(void *user, const serve_loss *l);
void tell_back(void *user, const serve_loss *l);
/* For what measures or compares on a device: HF_LOST when it was lost, or could not be used at all. */
HF_MUST hf_status device_stayed(const engine_options *asked, const engine *e);
/* engine_open, with the budget table printed first when it refuses. */
HF_MUST hf_status open_engine_or_explain(const run_options *r, const model *m, const engine_options *o, engine **out);
#endif
