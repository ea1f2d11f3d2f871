/* drift.h: whether this machine is as it was when it was measured: memory is read for a moment before a run and once a minute in it, by the loop
 * whose rate hf-profile has stored. A prediction that was made for the stored rate is told raw, and as hf-plan makes it for the rate that was found:
 * what is left between that and the measured speed is the prediction's own error. */
#ifndef HF_EXECUTOR_DRIFT_H
#define HF_EXECUTOR_DRIFT_H

#include "db/db.h"
#include "executor/ask.h"
#include "kernels/mem/probe.h"

enum { DRIFT_MOST_LOOKS = 1440 };

typedef struct {
  pool *p;
  mem_probe *probe; /* NULL: memory cannot be looked at */
  int threads, n;
  int64_t next_ns;
  double bytes_per_s[DRIFT_MOST_LOOKS]; /* the first look, then one a minute; later ones are not kept */
  double profile_bytes_per_s;           /* 0 = the machine was not measured */
} drift;

/* Takes memory for the probe (four last-level caches, at least 128 MiB) and looks for the first time. Without memory for it the run goes on unwatched. */
void drift_begin(const topology *t, int threads, drift *out);
/* Once a minute looks again; when nothing of the run is at work. Says so where the rate is a tenth away from the first one. */
void drift_look(drift *d);
void drift_end(drift *d);
/* The stored rate of that many threads of a measured machine; machine_id 0: the last one measured. */
void drift_profile(drift *d, db *from, int64_t machine_id);
double drift_bytes_per_s(const drift *d); /* median of the looks; 0: none */
/* Tokens/s of hf-plan's answer to q as it is (then: ask_decode_rate of it), over those of the answer for the rate that was found; 1 where it cannot
 * say. */
double drift_slows(const drift *d, const plan_question *q, double then);
/* {dram_bytes_per_s, first, least, most, looks, of_profile (null: not known)} */
void drift_json(const drift *d, json *into);
#endif
