#include "kernels/mem/patience.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#include "base/clock.h"
#include "base/end.h"

/* A thread that merely waits wakes up once a second for its look: microseconds. */
enum { LOOK_NS = 1000000000, IDLE_NS = 200000 };

/* Of all threads of the process: a thread outside the pool that works, such as a device's, is what the pool may be waiting for. */
static int64_t process_cpu_ns(void) {
  struct timespec t;
  if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t)) return 0;
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void look(const patience *p, patience_wait *w) {
  char why[128];
  const int died = atomic_load(&p->died);
  if (died) {
    snprintf(why, sizeof why, "thread %d of %d has died, and its work cannot be finished; start again", died, p->n_threads);
    hf_end(p->what, why);
  }
  const int64_t cpu = process_cpu_ns();
  w->looks = cpu - w->cpu_ns > (int64_t)IDLE_NS * p->n_threads ? 0 : w->looks + 1;
  w->cpu_ns = cpu;
  if (w->looks < p->max_looks) return;
  snprintf(why, sizeof why, "nothing has moved for %d s (does the disk of the weights still answer?); start again", w->looks);
  hf_end(p->what, why);
}

void patience_cond_wait(const patience *p, patience_wait *w, pthread_cond_t *c, pthread_mutex_t *m) {
  struct timespec until;
  clock_gettime(CLOCK_MONOTONIC, &until);
  until.tv_sec++;
  if (pthread_cond_clockwait(c, m, CLOCK_MONOTONIC, &until) == ETIMEDOUT) look(p, w);
}

void patience_poll(const patience *p, patience_wait *w) {
  const int64_t now = hf_now_ns();
  if (w->look_ns == 0) w->look_ns = now;
  if (now - w->look_ns < LOOK_NS) return;
  w->look_ns = now;
  look(p, w);
}
