/* watch.h: when a device that gives no sign of life counts as hung.
 *
 * A sign of life is a step's end, the next signal to the host, or an expert that was sent. How long one may take is learned from those that came: the longest silence in
 * steps of so many tokens, more tokens in proportion; a device is hung after WATCH_PATIENCE times that and WATCH_LEAST_NS more, times the steps
 * that share it. Before any step has ended WATCH_FIRST_NS stand. Silence counts while the driver looks, at most WATCH_BLINK_NS a look: a process
 * that was stopped, or a driver busy elsewhere, is no silence of the device.
 *
 * No clock of its own, no threads: the driver says what time it is. */
#ifndef HF_EXECUTOR_WATCH_H
#define HF_EXECUTOR_WATCH_H

#include <stdbool.h>
#include <stdint.h>

#define WATCH_LEAST_NS INT64_C(1000000000)
#define WATCH_FIRST_NS INT64_C(120000000000)
#define WATCH_BLINK_NS INT64_C(10000000)
enum { WATCH_PATIENCE = 20, WATCH_SIZES = 24, WATCH_STEPS = 8 };

/* Zero before its first use. */
typedef struct {
  int64_t limit_ns;                /* of silence; 0: learned */
  int64_t looked_ns;               /* last look, 0: none */
  int64_t longest_ns[WATCH_SIZES]; /* silence that ended, by the binary logarithm of the step's tokens; 0: none */
  struct {
    bool on;
    int tokens;
    int64_t silent_ns, most_ns;
  } step[WATCH_STEPS];
} watch;

void watch_begin(watch *w, int step, int tokens);
void watch_alive(watch *w, int step); /* a signal came */
void watch_end(watch *w, int step);   /* it ended as it should */
/* How long a step of so many tokens may be silent while n_steps share the device. */
int64_t watch_limit_ns(const watch *w, int tokens, int n_steps);
/* To be called again and again while steps run. The step that has been silent for too long, or -1. */
int watch_look(watch *w, int64_t now_ns);
/* Steps in flight are forgotten; what was learned stays. */
void watch_reset(watch *w);
#endif
