/* verbs.h: what hf-profile does with profiles that are there. argv[0] is the verb. */
#ifndef HF_PROFILER_VERBS_H
#define HF_PROFILER_VERBS_H
#include "base/cli.h"
#include "db/db.h"

HF_MUST hf_status verb_show(int argc, char **argv);
HF_MUST hf_status verb_compare(int argc, char **argv);
HF_MUST hf_status verb_export(int argc, char **argv);
HF_MUST hf_status verb_import(int argc, char **argv);

/* The database of the options. */
HF_MUST hf_status verb_open_db(const cli_common *common, bool create, db **out);
/* A machine as JSON or tables. */
HF_MUST hf_status verb_print(db *d, const rec_machine *m, bool as_json);
#endif
