/* trace_read.h: requests from a file, one line at a time, so that memory does not depend on its length.
 *
 * CSV with a line of names, or JSON Lines; told apart by the first character that is no blank. Names, in any case and order:
 *   arrival   arrival_s (seconds), timestamp (CSV: seconds, or a date as in Azure's LLM inference traces, "2023-11-16 18:15:46.6805900";
 *             JSON: milliseconds, as in Mooncake's traces)
 *   prompt    prompt_tokens, ContextTokens, input_length
 *   output    output_tokens, GeneratedTokens, output_length, max_tokens
 *   cached    cached_tokens (of the prompt; optional)
 *   session   session (optional): the conversation that it is a turn of; its prompt is all of it, earlier turns and answers as well
 * Other columns and members are left alone (hash_ids, too), so that what hf-run --out writes is a trace. Dates and timestamps count from the
 * first request, arrival_s from the start. Arrivals may not go back. A request without a token to read or write is left out and counted. */
#ifndef HF_PLANNER_SIM_TRACE_READ_H
#define HF_PLANNER_SIM_TRACE_READ_H

#include "base/status.h"

enum { SIM_TRACE_LINE = 1 << 20, SIM_MOST_TOKENS = 1 << 24 };

typedef struct {
  int64_t arrival_ns;
  int prompt, output, cached;
  uint64_t session; /* what stands for its name; 0 = none */
} sim_trace_line;

typedef struct sim_trace sim_trace;
/* HF_NOT_FOUND, HF_INPUT naming file, line and field. */
HF_MUST hf_status sim_trace_open(const char *path, sim_trace **out);
/* *any false at the end of the file. A file without a single request is HF_INPUT that says what is missing. */
HF_MUST hf_status sim_trace_next(sim_trace *t, sim_trace_line *out, bool *any);
int64_t sim_trace_left_out(const sim_trace *t);
void sim_trace_close(sim_trace *t);
#endif
