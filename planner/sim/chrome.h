/* chrome.h: stages of a simulation as a Chrome trace (chrome://tracing, Perfetto), written as they come, so that memory does not depend on
 * their number. Same members as the trace of hf-run. */
#ifndef HF_PLANNER_SIM_CHROME_H
#define HF_PLANNER_SIM_CHROME_H

#include "base/status.h"
#include "db/records.h"

enum { SIM_CHROME_EVENTS = 2000000 }; /* what comes after is counted and left out: viewers take no more */

typedef struct sim_chrome sim_chrome;
/* Writes beside path; the file appears when it is closed. HF_NOT_FOUND, HF_INPUT: it cannot be written there. */
HF_MUST hf_status sim_chrome_open(const char *path, sim_chrome **out);
/* For sim_options.trace; user is the sim_chrome. */
void sim_chrome_add(void *user, const rec_trace *r);
/* keep: the file is put in place, else nothing is left. Frees in any case; NULL ok. HF_MACHINE: not all could be written. */
HF_MUST hf_status sim_chrome_close(sim_chrome *c, bool keep, int64_t *left_out);
#endif
