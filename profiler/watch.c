#include "profiler/watch.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"

enum { CHAIN = 4000, CYCLES_A_STEP = 3, TRIES = 5, MAX_CPUS = 1024 };
static const double SLOW = 0.9;

static int64_t chain_ns(void) {
  uint64_t x = 3;
  int64_t t0 = hf_now_ns();
  for (int i = 0; i < CHAIN; i += 8) {
#if defined(__x86_64__)
    __asm__ volatile("imul %0, %0\n\timul %0, %0\n\timul %0, %0\n\timul %0, %0\n\t"
                     "imul %0, %0\n\timul %0, %0\n\timul %0, %0\n\timul %0, %0"
                     : "+r"(x)
                     :
                     : "cc");
#else
    for (int k = 0; k < 8; k++) x *= x;
#endif
  }
  int64_t ns = hf_now_ns() - t0;
  return ns > (int64_t)(x == 0) ? ns : 1; /* x is odd; asking keeps the chain */
}

double watch_clock_hz(void) {
  int64_t least = INT64_MAX;
  for (int i = 0; i < TRIES; i++) {
    int64_t ns = chain_ns();
    if (ns < least) least = ns;
  }
  return 1e9 * CHAIN * CYCLES_A_STEP / (double)least;
}

/* A package's counter is that of each of its cores: counted once per core all the same, since only a rise matters. */
long watch_counters(const char *folder_or_null) {
  static const char *const files[] = {"core_throttle_count", "package_throttle_count"};
  const char *folder = folder_or_null ? folder_or_null : "/sys/devices/system/cpu";
  long sum = -1;
  for (int cpu = 0; cpu < MAX_CPUS; cpu++) {
    bool any = false;
    for (int i = 0; i < 2; i++) {
      char path[512];
      long v;
      snprintf(path, sizeof path, "%s/cpu%d/thermal_throttle/%s", folder, cpu, files[i]);
      FILE *f = fopen(path, "r");
      if (!f) continue;
      if (fscanf(f, "%ld", &v) == 1 && v >= 0) {
        sum = (sum < 0 ? 0 : sum) + v;
        any = true;
      }
      fclose(f);
    }
    if (!any && cpu == 0) return sum; /* no counters at all: do not try a thousand names */
  }
  return sum;
}

void watch_begin(watch *w) {
  w->n = w->slow = 0;
  w->throttled = watch_counters(NULL);
  w->fastest = 0;
  for (int i = 0; i < TRIES; i++) w->fastest = fmax(w->fastest, watch_clock_hz());
}

bool watch_look(watch *w) {
  double hz = watch_clock_hz();
  if (w->n < WATCH_MAX) w->hz[w->n++] = hz;
  w->fastest = fmax(w->fastest, hz);
  bool slow = hz < SLOW * w->fastest;
  w->slow += slow;
  return slow;
}

long watch_throttled(const watch *w) {
  long now = watch_counters(NULL);
  return w->throttled < 0 || now < 0 ? -1 : now - w->throttled;
}
