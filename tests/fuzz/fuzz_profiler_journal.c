/* The journal of an interrupted profile, from anybody: what is accepted is whole lines with rows in order. */
#include <stdlib.h>
#include <string.h>

#include "profiler/journal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  journal_unit *u = NULL;
  int n = 0;
  size_t good = 0;
  if (journal_parse((const char *)data, size, "k", 1000, &u, &n, &good) != HF_OK) return 0;
  if (good == 0 || good > size || data[good - 1] != '\n' || n < 0) abort();
  for (int i = 0; i < n; i++) {
    if (!memchr(u[i].name, 0, sizeof u[i].name)) abort();
    for (int k = 0; k < u[i].n_figure; k++)
      if (!(u[i].figure[k].low <= u[i].figure[k].likely && u[i].figure[k].likely <= u[i].figure[k].high)) abort();
    for (int k = 0; k < u[i].n_point; k++)
      if (!(u[i].point[k].ns_low <= u[i].point[k].ns && u[i].point[k].ns <= u[i].point[k].ns_high)) abort();
  }
  journal_units_free(u, n);
  return 0;
}
