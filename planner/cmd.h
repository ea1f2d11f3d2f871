/* cmd.h: the verbs of hf-plan, one file each (cmd_VERB.c), and what they share. argv[0] is the verb. Every verb parses its options, answers
 * --help with examples, prints one JSON object under --json and returns the status that becomes the exit status. */
#ifndef HF_PLANNER_CMD_H
#define HF_PLANNER_CMD_H
#include "base/cli.h"
#include "db/db.h"

hf_status cmd_plan(int argc, char **argv);
hf_status cmd_evaluate(int argc, char **argv);
hf_status cmd_simulate(int argc, char **argv);
hf_status cmd_stages(int argc, char **argv);
hf_status cmd_catalog(int argc, char **argv);
hf_status cmd_validate(int argc, char **argv);
hf_status cmd_whatif(int argc, char **argv);
hf_status cmd_sweep(int argc, char **argv);
hf_status cmd_recommend(int argc, char **argv);
hf_status cmd_formats(int argc, char **argv);
hf_status cmd_roi(int argc, char **argv);

HF_MUST hf_status cmd_print_json(const json *o);
/* HF_INPUT when operands are left over. */
HF_MUST hf_status cmd_no_operands(int n, char **rest, const char *verb);
/* HF_INPUT when nothing can be written where an option's file is to stand: before anything is computed. file NULL: not asked for. */
HF_MUST hf_status cmd_check_folder(const char *option, const char *file);
/* The database of --db, made when it is not there. */
HF_MUST hf_status cmd_open_db(const cli_common *common, db **d);
/* What --plan names: the number of a stored plan, "latest", or a file. The errors name the option. */
HF_MUST hf_status cmd_read_plan(const cli_common *common, const char *name, plan **out);
#endif
