/* options.h: what was asked of hf-run, and the engine options that follow from it. */
#ifndef HF_EXECUTOR_OPTIONS_H
#define HF_EXECUTOR_OPTIONS_H

#include "base/cli.h"
#include "db/db.h"
#include "executor/engine.h"
#include "executor/sample.h"
#include "sched/gpus.h"

typedef struct {
  cli_common common;
  const char *model, *plan, *prompts, *prompt, *out, *reference, *gpu, *activations, *mla, *isa, *trace, *where, *machine,
      *write_model, *system, *dequantise, *fault, *kv_type, *standby, *standby_size;
  bool bench, ignore_eos, stream, no_log, resume, chat, no_shared_prefixes, adapt;
  int64_t depth, batch, threads, max_tokens, context, limit, output_tokens, chunk, top_k, logprobs, upload_tokens, adapt_rate;
  double experts_percent, ranks_percent, temperature, top_p, min_p, repetition_penalty, deadline_s, check_s, probe_s,
      adapt_every_s;
  int64_t seed;
  cli_int_list users, prompt_tokens;
  cli_texts stop;
  struct ranks *ranks; /* ranks.h; NULL: this process is alone */
} run_options;

/* --gpu: its devices. HF_INPUT for an unknown form, HF_UNSUPPORTED for cuda:N in a build or on a machine without it. */
HF_MUST hf_status gpu_parse(const char *text, gpu_set *out);

/* --fault: KIND@N or slow*FACTOR@N, then :gpuK for another device than the first. HF_INPUT for an unknown form. */
HF_MUST hf_status fault_parse(const char *text, dev_fault *out, int *device);

/* A KV mirror: --standby (none, ram or file:PATH; path NULL otherwise) and --standby-size, else what the plan says. */
typedef struct {
  bool on, planned; /* planned: nobody asked for it but the plan */
  const char *path; /* borrowed from where it was said */
  int64_t bytes;    /* asked for; 0 = as needed */
  int slots;        /* standby_size: pages of it */
} standby_spec;
/* What the command line says. HF_INPUT for an unknown form. */
HF_MUST hf_status standby_parse(const run_options *r, standby_spec *out);
/* Who may want KV beside the engine's pages: sessions by name, and how many of them wait while as many requests run as can. */
typedef struct {
  int sessions, parked;
} standby_users;
/* The mirror that there is to be, and what the budget has to count of it. Asked for, it is an error (HF_INPUT) where it would be for nothing: no device can be
 * lost and no session parks; one that the plan says is left out then, and tells so. p may be NULL. */
HF_MUST hf_status standby_size(const run_options *r, const plan *p, const model_config *c, standby_users u, engine_options *o,
                               standby_spec *out);

sample_options sample_options_of(const run_options *r);

/* Memory of this machine, or of the one that HF_TOPOLOGY pretends where that has less; 0 = not known. */
int64_t ram_bytes(void);

/* --plan: a row's id or a file. NULL when none was asked for. */
HF_MUST hf_status plan_open(const run_options *r, db *d, plan **out);

/* Makes p a plan of this database, so that a run can name it: a plan from a file may carry the id of another database's row. Kept
 * when the row of its id is the very same plan, else stored as a new row. */
HF_MUST hf_status plan_adopt(db *d, plan *p);

/* HF_INPUT when the plan was made for another model. */
HF_MUST hf_status plan_fits_model(const plan *p, const model_config *c);

/* Whether it sends the experts of any layer to the device for prompts; NULL: no. */
bool plan_uploads(const plan *p);

/* The kernels that a plan names, and no other earlier ones. One made on another machine may name what this one lacks: the default stands in then. */
void prefer_kernels(const plan_kernel *kernel, int n);

/* Fills engine options for `seqs` sequences of at most `context` tokens. p may be NULL. Asks hf-plan for the stage times of a paced
 * machine (*pace is the caller's, stage_table_free). */
HF_MUST hf_status engine_options_for(const run_options *r, const char *db_path, const model *m, const plan *p, int seqs,
                                     int context, int depth, engine_options *out, stage_table **pace);
#endif
