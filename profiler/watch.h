/* watch.h: how fast the cores run while something is measured, and whether they were throttled. Private to profiler/.
 *
 * The clock is measured, not asked for: a chain of dependent 64-bit multiplications, three cycles each on every x86-64 server core since 2008
 * (Intel from Nehalem, AMD from Zen; additions will not do, newer cores do some of them while renaming). It works in virtual machines and
 * needs no permission. The best of a few short chains is taken, so that a lost time slice is no slow clock.
 *   cpu_clock_hz          cpu    after every point of the profile, on the thread that measures: median, 10th, 90th percentile
 *   cpu_throttle_events   cpu    what the kernel's counters of thermal throttling went up by; only where it has them
 * A point after which the clock is a tenth below the fastest that was seen is measured once more. */
#ifndef HF_PROFILER_WATCH_H
#define HF_PROFILER_WATCH_H
#include <stdbool.h>
#include "base/status.h"

enum { WATCH_MAX = 4096 };
typedef struct {
  double hz[WATCH_MAX];
  int n, slow;
  double fastest;
  long throttled; /* counters at the start, -1: there are none */
} watch;

void watch_begin(watch *w);
/* Looks at the clock once; true when it is slow. */
bool watch_look(watch *w);
/* Events since watch_begin, -1: the machine does not count them. folder: where the counters are, NULL: /sys/devices/system/cpu. */
long watch_throttled(const watch *w);
long watch_counters(const char *folder_or_null);
double watch_clock_hz(void);
#endif
