/* beside.h: whether other programs had the CPU while something was measured: the CPU time of the whole machine (/proc/stat) between two marks,
 * less that of this process. What a hypervisor took (steal) counts as theirs. */
#ifndef HF_EXECUTOR_BESIDE_H
#define HF_EXECUTOR_BESIDE_H

#include "base/status.h"

typedef struct {
  double all_s, busy_s, own_s; /* CPU seconds since boot, of all CPUs; of this process */
  double at_s;                 /* clock */
  bool known;
} beside_mark;

beside_mark beside_now(void);
/* The first line of /proc/stat; not known when it is none. own_s and at_s are not set. */
beside_mark beside_read(const char *line, double ticks_per_s);
/* Share of all CPU time between the marks that others had, 0..1; -1: not known, or too short a time for the kernel's ticks to say. */
double beside_share(const beside_mark *from, const beside_mark *to);
#endif
