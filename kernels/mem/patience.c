#include "kernels/mem/patience.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

#include "base/clock.h"
#include "base/end.h"

/* A thread that merely waits wakes up for its looks, or twenty times a second for a nap's end: well under this much time of a second. */
enum { LOOK_NS = 1000000000, IDLE_NS = 2000000 };

/* Of all threads of the process: a thread outside the pool that works, such as a device's, is what the pool may be waiting for. */
static int64_t process_cpu_ns(void) {
  struct timespec t;
  if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t)) return 0;
  return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Pages that came from a disk, however slowly, and with whatever little work. */
static int64_t pages_read(void) {
  struct rusage u;
  return getrusage(RUSAGE_SELF, &u) == 0 ? (int64_t)u.ru_majflt + u.ru_inblock : 0;
}

static void look(const patience *p, patience_wait *w) {
  char why[128];
  const int died = atomic_load(&p->died);
  if (died) {
    snprintf(why, sizeof why, "thread %d of %d has died, and its work cannot be finished; start again", died, p->n_threads);
    hf_end(p->what, why);
  }
  const int64_t cpu = process_cpu_ns(), pages = pages_read();
  const bool moved = cpu - w->cpu_ns > (int64_t)IDLE_NS * p->n_threads || pages != w->pages || atomic_load(&p->outside);
  w->looks = moved ? 0 : w->looks + 1;
  w->cpu_ns = cpu;
  w->pages = pages;
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
