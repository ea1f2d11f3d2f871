/* command.h: what the verbs whatif, sweep and recommend share: their options, where answers go, tables and CSV. */
#ifndef HF_PLANNER_ASK_COMMAND_H
#define HF_PLANNER_ASK_COMMAND_H

#include "base/cli.h"
#include "base/json.h"
#include "planner/ask/ask.h"

typedef struct {
  plan_request req; /* as on the command line; machine as typed */
  ask_slo slo;
  int64_t jobs; /* threads of the search; 0 = all cores */
  const char *csv, *scenario_name;
  money_scenario scenario; /* read by ask_read_scenario */
  bool no_store, exact;    /* exact: every case is a whole plan as of hf-plan plan */
  cli_common common;
} ask_command;

/* ---- options ---- */

/* Options that questions have in common; a verb names those it has. --context, --prompt-tokens, --output-tokens, --format, --skew, --jobs, --csv
 * and --no-store are those of every verb. */
enum {
  ASK_HAS_MACHINE = 1, /* --machine, --gpu, --threads */
  ASK_HAS_SCENARIO = 2,
  ASK_HAS_LIMITS = 4, /* --slo-ttft, --slo-tpot */
  ASK_HAS_EXACT = 8,
  ASK_HAS_DEPTH = 16,
  ASK_MAX_OPTIONS = 48
};
/* The table of a verb: model, machine, users, context; its own (`own`, ended by a name NULL); the other common ones. HF_MACHINE when they
 * are more than ASK_MAX_OPTIONS - 1: a fault of the program, told at its first start. */
HF_MUST hf_status ask_options(ask_command *c, unsigned has, const cli_option *own, cli_option out[ASK_MAX_OPTIONS]);

/* ---- where things come from and go ---- */

/* Checks that --csv can be written before anything is computed. HF_INPUT otherwise. */
HF_MUST hf_status ask_check_csv(const ask_command *c);
/* The machine of --machine: catalog or file without touching the database, else from it. */
HF_MUST hf_status ask_command_machine(const ask_command *c, ask_machine **out);
/* Opens the database of the command for reading machines: only if there is one; *d NULL otherwise. */
HF_MUST hf_status ask_command_db(const ask_command *c, db **d);
/* Reads --scenario, by default the catalog's. */
HF_MUST hf_status ask_read_scenario(ask_command *c);
/* Opens the model once for all cases and sets req->opened and req->model; close with model_close. */
HF_MUST hf_status ask_open_model(plan_request *req, model **out);

/* Members every answer has; question is then filled by the caller. */
json *ask_new_answer(const char *kind);
/* Adds title and verdict; stores the document (answer_id) unless --no-store; prints it under --json. Stores first: what is printed is stored. */
HF_MUST hf_status ask_finish(const ask_command *c, json *doc, const char *kind, const char *title, const char *verdict);
/* How an answer is written; `answer` is the verb's own. */
typedef struct {
  const char *kind, *title, *verdict;
  hf_status (*to_json)(const void *answer, json *doc);
  hf_status (*text)(const void *answer, hf_buf *b);
  hf_status (*csv)(const void *answer, hf_buf *b);
} ask_writer;
/* Writes document and text, the CSV where one is asked for, stores, prints: what a verb ends with. The first failure prints and stores nothing. */
HF_MUST hf_status ask_show(const ask_command *c, const ask_writer *w, const void *answer);
void ask_add_assumption(json *doc, const char *text, const char *tag, const char *source);
/* What load percentiles and delivered tokens/s are of: an assumption; lines of text. */
void ask_add_load(json *doc);
HF_MUST hf_status ask_load_text(const ask_case *c, hf_buf *b);
/* The same below a table whose rows may be of different users or lengths. */
HF_MUST hf_status ask_load_text_rows(const ask_case *c, bool same_users, bool same_lengths, hf_buf *b);
/* Whose figures those of a machine with a GPU are, as long as hf-run has no CUDA device: one sentence for texts, and the member engine_note (null without
 * a GPU). */
#define ASK_ENGINE_NOTE                                                                                                       \
  "The figures are of this project's own engine, whose GPU (CUDA) part is not written yet; the engines of today place whole " \
  "layers: see "                                                                                                              \
  "whole-layers in hf-plan plan, and hf-plan validate for what they reached."
void ask_add_engine_note(json *doc, bool gpu);
void ask_add_slo(json *question, const ask_slo *slo, const char *from);

/* ---- text ---- */

/* "1.23 s", "151 ms" */
void ask_seconds(double s, char out[24]);
/* "36,615" */
void ask_money(double usd, char out[24]);
/* "8K" where it is a whole number of Ki, else "8000" */
void ask_tokens(int64_t n, char out[24]);
/* "+9 %", "-0.3 %", "2.4 x" from a ratio */
void ask_change_text(double ratio, char out[24]);

/* ---- CSV (RFC 4180, one header line) ---- */

HF_MUST hf_status ask_csv_text(hf_buf *b, const char *text, bool last);
HF_MUST hf_status ask_csv_number(hf_buf *b, double v, bool last); /* empty when not finite */
HF_MUST hf_status ask_csv_case_header(hf_buf *b);                 /* ends the line */
HF_MUST hf_status ask_csv_case(hf_buf *b, const ask_case *c);
HF_MUST hf_status ask_write_csv(const char *path, const hf_buf *b);
#endif
