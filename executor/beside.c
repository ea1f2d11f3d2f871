#include "executor/beside.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"

/* Each CPU's time is in ticks of 10 ms: one too many or too few is then 2 %. */
static const double LEAST_S = 0.5;

beside_mark beside_read(const char *line, double ticks_per_s) {
  enum { IDLE = 3, IOWAIT = 4, COLUMNS = 8 }; /* user nice system idle iowait irq softirq steal; guests are in user and nice */
  unsigned long long v[COLUMNS];
  beside_mark m = {0};
  if (!(ticks_per_s > 0) || sscanf(line, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5],
                                   &v[6], &v[7]) != COLUMNS)
    return m;
  for (int i = 0; i < COLUMNS; i++) {
    m.all_s += (double)v[i] / ticks_per_s;
    if (i != IDLE && i != IOWAIT) m.busy_s += (double)v[i] / ticks_per_s;
  }
  m.known = true;
  return m;
}

beside_mark beside_now(void) {
  char line[512];
  struct rusage u;
  FILE *f = fopen("/proc/stat", "re");
  beside_mark m = {0};
  if (f == NULL) return m;
  if (fgets(line, sizeof line, f) != NULL) m = beside_read(line, (double)sysconf(_SC_CLK_TCK));
  fclose(f);
  m.at_s = 1e-9 * (double)hf_now_ns();
  if (getrusage(RUSAGE_SELF, &u) != 0) m.known = false;
  else
    m.own_s =
        (double)u.ru_utime.tv_sec + (double)u.ru_stime.tv_sec + 1e-6 * ((double)u.ru_utime.tv_usec + (double)u.ru_stime.tv_usec);
  return m;
}

double beside_share(const beside_mark *from, const beside_mark *to) {
  double all = to->all_s - from->all_s, others = to->busy_s - from->busy_s - (to->own_s - from->own_s);
  if (!from->known || !to->known || !(all > 0) || to->at_s - from->at_s < LEAST_S) return -1;
  double share = others / all;
  return share < 0 ? 0 : share > 1 ? 1 : share;
}
