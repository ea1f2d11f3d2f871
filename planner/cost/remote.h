/* remote.h: CPUs of other machines, named on the command line. */
#ifndef HF_PLANNER_COST_REMOTE_H
#define HF_PLANNER_COST_REMOTE_H

#include "planner/cost/cost.h"

/* Reads entry `name` of the catalog's links: bytes_per_s and latency_ns of one direction. HF_INPUT when they are missing or contradict. */
HF_MUST hf_status cost_link_read(const char *name, cost_figure *bytes_per_s, cost_figure *latency_ns);
/* The same from what hf-profile --ranks measured on machine `home` of the way to the host `machine` (profiler/ranks.h): the time of the smallest message, with
 * what it takes longer to one that has waited (load "paused"), and the rate of a large one beyond that; the last measurement of a size counts. HF_NOT_FOUND when there is none. */
HF_MUST hf_status cost_link_measured(const cost_rows *home, const char *machine, cost_figure *bytes_per_s,
                                     cost_figure *latency_ns);
/* Splits "MACHINE:LINK,MACHINE:LINK" (a machine may hold colons); HF_INPUT for more than STAGE_MAX_REMOTES. Sets text, and the names. */
typedef struct {
  char machine[128], link[64];
} cost_remote_name;
HF_MUST hf_status cost_remote_parse(const char *text, cost_remote_name names[STAGE_MAX_REMOTES], int *n);
#endif
