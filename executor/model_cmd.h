/* model_cmd.h: hf-run model VERB: what a person does with model files. argv[0] is the verb; each parses its options, answers --help with examples,
 * prints one JSON object under --json, and returns the status that becomes the exit status. */
#ifndef HF_EXECUTOR_MODEL_CMD_H
#define HF_EXECUTOR_MODEL_CMD_H

#include "base/cli.h"
#include "executor/commands.h"
#include "model/recipe.h"

HF_MUST hf_status cmd_model(int argc, char **argv); /* argv[0] is "model" */
HF_MUST hf_status cmd_model_inspect(int argc, char **argv);
HF_MUST hf_status cmd_model_verify(int argc, char **argv);
HF_MUST hf_status cmd_model_quantise(int argc, char **argv);
HF_MUST hf_status cmd_model_generate(int argc, char **argv);

/* HF_INPUT unless there are exactly `want` operands; names are what they stand for. */
HF_MUST hf_status model_operands(const char *verb, int n, char **rest, int want, const char *names);
/* All cores of the machine, or n. */
HF_MUST hf_status model_pool(int64_t n, topology **topo, pool **out);
/* "1.5 GiB", "12.0 MiB", "512 B" */
const char *model_bytes_text(int64_t bytes, char buf[32]);
/* Peak resident memory of this process. */
int64_t model_peak_rss(void);
#endif
