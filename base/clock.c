#include "base/clock.h"

#include <errno.h>
#include <time.h>

enum { SPIN_NS = 100 * 1000 };

static int64_t read_clock(clockid_t id) {
  struct timespec t;
  clock_gettime(id, &t); /* cannot fail for these two clocks and a valid address */
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t hf_now_ns(void) {
  return read_clock(CLOCK_MONOTONIC);
}

int64_t hf_wall_ns(void) {
  return read_clock(CLOCK_REALTIME);
}

void hf_sleep_until_ns(int64_t t) {
  int64_t wake = t - SPIN_NS;
  if (wake > hf_now_ns()) {
    struct timespec until = {.tv_sec = wake / 1000000000, .tv_nsec = wake % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {}
  }
  while (hf_now_ns() < t) __builtin_ia32_pause();
}
