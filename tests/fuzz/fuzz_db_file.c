/* A database file from anybody: opened, everything in it listed, one row written. Errors are fine, anything else is not. The
 * file lies in memory (/dev/shm) or in $TMPDIR. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "db/db.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char path[300];

static void remove_all(void) {
  static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
  for (int i = 0; i < 4; i++) {
    char name[320];
    snprintf(name, sizeof name, "%s%s", path, ends[i]);
    unlink(name);
  }
}

static void choose_path(void) {
  const char *folder = getenv("TMPDIR");
  if (!folder || strlen(folder) > 200) folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
  snprintf(path, sizeof path, "%s/hf-fuzz-%ld.db", folder, (long)getpid());
  atexit(remove_all);
}

/* Frees the list of a call whatever it said. */
#define LIST(type, call)            \
  do {                              \
    type *out = NULL;               \
    int n = 0;                      \
    if ((call) == HF_OK) free(out); \
  } while (0)

static void list_of(db *d, int64_t id) {
  LIST(rec_device, db_device_list(d, id, &out, &n));
  LIST(rec_figure, db_figure_list(d, id, &out, &n));
  LIST(rec_kernel_point, db_kernel_list(d, id, &out, &n));
  LIST(rec_link_point, db_link_list(d, id, &out, &n));
  LIST(rec_request, db_request_list(d, id, &out, &n));
  LIST(rec_stage, db_stage_list(d, id, &out, &n));
  LIST(rec_routing, db_routing_list(d, id, &out, &n));
  LIST(rec_distinct, db_distinct_list(d, id, &out, &n));
  LIST(rec_event, db_event_list(d, id, &out, &n));
  LIST(rec_trace, db_trace_list(d, id, 0, &out, &n));
  LIST(rec_trace, db_trace_list(d, 0, id, &out, &n));
}

static void use(db *d) {
  rec_machine m = {.name = "fuzz", .facts_json = "{}"};
  LIST(rec_machine, db_machine_list(d, &out, &n));
  LIST(rec_run, db_run_list(d, &out, &n));
  LIST(rec_signed_error, db_signed_errors(d, 0, &out, &n));
  LIST(rec_plan_head, db_plan_heads(d, &out, &n));
  for (int64_t id = 1; id < 4; id++) {
    plan *p;
    list_of(d, id);
    if (db_plan_get(d, id, &p) == HF_OK) plan_free(p);
  }
  if (db_machine_put(d, &m) != HF_OK) hf_clear_error();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!path[0]) choose_path();
  remove_all();
  FILE *f = fopen(path, "wb");
  if (!f) return 0;
  size_t written = fwrite(data, 1, size, f);
  if (fclose(f) != 0 || written != size) return 0;
  db *d;
  if (db_open(path, true, &d) != HF_OK) return 0;
  use(d);
  db_close(d);
  return 0;
}
