/* chrome.h: the stages of a simulation, kept, and written as a Chrome trace with its idle gaps named (db/timeline.h), as hf-run --trace writes those of a run. */
#ifndef HF_PLANNER_SIM_CHROME_H
#define HF_PLANNER_SIM_CHROME_H

#include "db/timeline.h"

enum { SIM_CHROME_EVENTS = 1000000 }; /* what comes after is counted and left out: viewers take no more */

typedef struct {
  rec_trace *ev;
  int64_t n, cap, left_out;
  hf_status failed; /* memory for events was refused, */
  char why[160];    /* as the error line then said: much may be tried, and fail, until the file would be written */
  idle_account idle;
} sim_chrome;

/* For sim_options.trace; user is the sim_chrome, which begins as {0}. */
void sim_chrome_add(void *user, const rec_trace *r);
/* Fills in idle, which has no resources where whole steps were simulated, and writes the file. The errors of timeline_write, HF_MACHINE for memory. */
HF_MUST hf_status sim_chrome_write(sim_chrome *c, const char *path);
void sim_chrome_free(sim_chrome *c);
#endif
