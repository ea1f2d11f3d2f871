/* clock.h: monotonic time. The one clock of the suite; wall-clock time appears only in "created" columns. */
#ifndef HF_BASE_CLOCK_H
#define HF_BASE_CLOCK_H
#include <stdint.h>
int64_t hf_now_ns(void);           /* CLOCK_MONOTONIC */
int64_t hf_wall_ns(void);          /* CLOCK_REALTIME since 1970, for "created" only */
void hf_sleep_until_ns(int64_t t); /* sleeps coarsely, then spins the last 100 us, so that it ends within a few us of t */
#endif
