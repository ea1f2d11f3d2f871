/* Machine files: no input crashes or writes half a machine; what is accepted has ordered, finite figures and times, and
 * imports as the same machine again. */
#include "db/catalog.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
  if (!holds) abort();
}

static db *scratch;
static char folder[] = "/tmp/hf-fuzz-XXXXXX";

static void remove_scratch(void) {
  char path[64];
  db_close(scratch);
  snprintf(path, sizeof path, "%s/t.db", folder);
  unlink(path);
  rmdir(folder);
}

/* One database for the whole process; every input's rows are rolled back, so none costs a flush to the disk. */
static db *open_scratch(void) {
  char path[64];
  if (scratch != NULL) return scratch;
  require(mkdtemp(folder) != NULL);
  snprintf(path, sizeof path, "%s/t.db", folder);
  require(db_open(path, true, &scratch) == HF_OK);
  atexit(remove_scratch);
  return scratch;
}

static void check_rows(db *d, const rec_machine *m) {
  rec_figure *f;
  int n;
  require(db_figure_list(d, m->id, &f, &n) == HF_OK && n > 0);
  for (int i = 0; i < n; i++) require(f[i].low <= f[i].likely && f[i].likely <= f[i].high && isfinite(f[i].high));
  free(f);
  rec_link_point *l;
  require(db_link_list(d, m->id, &l, &n) == HF_OK);
  for (int i = 0; i < n; i++) require(l[i].ns_low <= l[i].ns && l[i].ns <= l[i].ns_high && isfinite(l[i].ns_high));
  free(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  db *d = open_scratch();
  char path[40];
  rec_machine m, again;
  int fd = memfd_create("machine", MFD_CLOEXEC);
  require(fd >= 0 && write(fd, data, size) == (ssize_t)size);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  require(db_begin(d) == HF_OK);
  if (catalog_machine_to_db(d, path, &m) == HF_OK) {
    check_rows(d, &m);
    require(catalog_machine_to_db(d, path, &again) == HF_OK && again.id == m.id);
  } else {
    rec_machine *list;
    int n;
    require(hf_error_line()[0] != '\0' && strchr(hf_error_line(), '\n') == NULL);
    require(db_machine_list(d, &list, &n) == HF_OK && n == 0);
    free(list);
  }
  db_rollback(d);
  close(fd);
  return 0;
}
