#include <sched.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "kernels/net/net.h"

/* Of Open MPI, of MPICH and its kin, of Slurm's srun with PMIx. */
static const char *const names[][2] = {
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"}, {"PMI_RANK", "PMI_SIZE"}, {"PMIX_RANK", "SLURM_NTASKS"}};

static int number(const char *name) {
  const char *s = getenv(name);
  return s && *s ? atoi(s) : -1;
}

int net_started_rank(void) {
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (number(names[i][0]) >= 0 && number(names[i][1]) > 1) return number(names[i][0]);
  return -1;
}

bool net_started(void) {
  return net_started_rank() >= 0;
}

enum { YIELD_NS = 200000, SHORT_NS = 20000, LONG_NS = 500000, LONG_AFTER_S = 2, SLACK_NS = 1000 };

void net_breathe(int64_t waited_ns) {
  static _Thread_local bool exact;
  if (waited_ns < YIELD_NS) {
    sched_yield();
    return;
  }
  if (!exact) (void)prctl(PR_SET_TIMERSLACK, SLACK_NS); /* else a nap of 20 us takes 70 */
  exact = true;
  const struct timespec nap = {.tv_nsec = waited_ns < (int64_t)LONG_AFTER_S * 1000000000 ? SHORT_NS : LONG_NS};
  nanosleep(&nap, NULL);
}
