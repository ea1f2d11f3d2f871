#include "db/records.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *db_tag_name(db_tag t) {
  static const char *const names[TAG_N] = {"measured", "scaled", "spec", "assumed"};
  return (unsigned)t < TAG_N ? names[t] : NULL;
}

static int threads_of(const rec_figure *f) {
  return strncmp(f->params, "threads=", 8) == 0 ? atoi(f->params + 8) : 0;
}

double rec_read_rate(const rec_figure *list, int n, int threads) {
  char params[32];
  snprintf(params, sizeof params, "threads=%d", threads);
  for (int i = 0; i < n; i++)
    if (!strcmp(list[i].what, "dram_read_bytes_per_s") && !strcmp(list[i].device, "cpu") && !strcmp(list[i].params, params))
      return list[i].likely;
  return 0;
}

double rec_figure_over_linear(const rec_figure *list, int n, int i, int *threads) {
  const rec_figure *f = &list[i], *one = NULL;
  int of = threads_of(f);
  size_t unit = strlen(f->unit);
  if (of < 2 || unit < 2 || strcmp(f->unit + unit - 2, "/s") != 0) return 0;
  for (int k = 0; k < n; k++)
    if (threads_of(&list[k]) == 1 && strcmp(list[k].what, f->what) == 0 && strcmp(list[k].device, f->device) == 0) one = &list[k];
  if (one == NULL || !(one->likely > 0)) return 0;
  if (threads != NULL) *threads = of;
  return f->likely / (of * one->likely);
}

bool rec_kernel_rounded(const rec_kernel_point *k) {
  return strstr(k->candidate, ".rounded.") != NULL;
}
