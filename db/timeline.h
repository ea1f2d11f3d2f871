/* timeline.h: a trace as a Chrome trace (chrome://tracing, Perfetto), and what it says of waiting (idle.h) for people and programs: one form for
 * what was executed and what was simulated. */
#ifndef HF_DB_TIMELINE_H
#define HF_DB_TIMELINE_H

#include "base/json.h"
#include "db/idle.h"

/* "X" events, a lane for each resource of the account: its stages and, named by what they wait for, its idle gaps; whole steps (resource TIMELINE_STEPS) have a
 * lane for each micro-batch. Times count from origin_ns. Written beside path, which appears when all is there. HF_NOT_FOUND, HF_INPUT: it cannot be
 * written there; HF_MACHINE: not all could be written. */
#define TIMELINE_STEPS "all"
HF_MUST hf_status timeline_write(const rec_trace *ev, int64_t n, int64_t origin_ns, const idle_account *idle, const char *path);
/* Member "trace": busy and idle seconds of each resource by what it waits for, overlap. */
void timeline_json(const idle_account *a, json *parent);
/* Of each resource how busy it was, and the three things it waited for longest. */
void timeline_print(const idle_account *a);
#endif
