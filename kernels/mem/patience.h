/* patience.h: waiting for other threads, with an end.
 *
 * Work of a pool can take hours (a model read from a slow disk), so there is no deadline for work; there is one for its standing still. Whoever waits longer
 * than a second looks at the others once a second: one that has died, or all of them without processor time or a page from disk for a while (a disk or network file system that no
 * longer answers, a deadlock), ends the process (base/end.h), since what those threads hold cannot be taken from them. Looks are counted, not seconds: a
 * process that was stopped and goes on has not stood still. */
#ifndef HF_KERNELS_PATIENCE_H
#define HF_KERNELS_PATIENCE_H
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { PATIENCE_LOOKS = 300 };

typedef struct {
  const char *what; /* who waits, for the line: "CPU workers" */
  int n_threads;
  int max_looks;       /* without processor time until the end; PATIENCE_LOOKS */
  atomic_bool outside; /* thread 0 is at something that has an end of its own, or needs none: no standing still */
  atomic_int
      died; /* number of a thread that ended in the middle of its work; 0: none, as thread 0 is the one that waits for all */
} patience;

/* A single wait; begins as {0}. */
typedef struct {
  int looks;
  int64_t cpu_ns, pages, look_ns;
} patience_wait;

/* Waits, with the mutex held, until the condition is signalled or a second is over; then looks. Waking up for nothing is possible. */
void patience_cond_wait(const patience *p, patience_wait *w, pthread_cond_t *c, pthread_mutex_t *m);
/* For one who polls: looks once a second. */
void patience_poll(const patience *p, patience_wait *w);
#endif
