#include "planner/sim/chrome.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "planner/sim/machine.h"

enum { STEPS_LANE = 100 };

struct sim_chrome {
  FILE *f;
  char *path, *beside;
  int64_t n, left_out;
};

static hf_status open_beside(sim_chrome *c, const char *path) {
  size_t n = strlen(path) + 32;
  HF_TRY(hf_strdup(&c->path, path));
  HF_TRY(hf_alloc(&c->beside, n, 1, "name of a trace file"));
  snprintf(c->beside, n, "%s.%d.part", path, (int)getpid());
  c->f = fopen(c->beside, "we");
  if (c->f != NULL) return HF_OK;
  return hf_fail(errno == ENOENT ? HF_NOT_FOUND : HF_INPUT, "%s: cannot be written: %s", path, strerror(errno));
}

static void name_lane(sim_chrome *c, int tid, const char *name) {
  fprintf(c->f, "%s{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"name\":\"%s\"}}",
          c->n++ > 0 ? ",\n" : "", tid, name);
}

hf_status sim_chrome_open(const char *path, sim_chrome **out) {
  sim_chrome *c = NULL;
  HF_TRY(hf_alloc(&c, 1, sizeof *c, "trace file"));
  hf_status st = open_beside(c, path);
  if (st != HF_OK) {
    hf_status ignored = sim_chrome_close(c, false, NULL);
    (void)ignored;
    return st;
  }
  fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n", c->f);
  for (int i = 0; i < SIM_N_RESOURCES; i++) name_lane(c, i, sim_resource_name(i));
  for (int m = 0; m < SCHED_MAX_DEPTH; m++) {
    char name[32];
    snprintf(name, sizeof name, "micro-batch %d", m);
    name_lane(c, STEPS_LANE + m, name);
  }
  *out = c;
  return HF_OK;
}

static int lane_of(const rec_trace *r) {
  for (int i = 0; i < SIM_N_RESOURCES; i++)
    if (strcmp(sim_resource_name(i), r->resource) == 0) return i;
  return STEPS_LANE + r->micro_batch;
}

void sim_chrome_add(void *user, const rec_trace *r) {
  sim_chrome *c = user;
  if (c->n >= SIM_CHROME_EVENTS) {
    c->left_out++;
    return;
  }
  int64_t length = r->end_ns - r->start_ns;
  fprintf(c->f,
          ",\n{\"name\":\"%s L%d m%d\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%" PRId64 ".%03d,\"dur\":%" PRId64
          ".%03d,\"args\":{\"step\":%d,\"micro_batch\":%d,\"layer\":%d,\"tokens\":%d}}",
          r->stage, r->layer, r->micro_batch, r->stage, lane_of(r), r->start_ns / 1000, (int)(r->start_ns % 1000), length / 1000,
          (int)(length % 1000), r->step, r->micro_batch, r->layer, r->tokens);
  c->n++;
}

hf_status sim_chrome_close(sim_chrome *c, bool keep, int64_t *left_out) {
  if (c == NULL) return HF_OK;
  hf_status st = HF_OK;
  if (left_out != NULL) *left_out = c->left_out;
  if (c->f != NULL) {
    fputs("\n]}\n", c->f);
    bool whole = ferror(c->f) == 0;
    whole = fclose(c->f) == 0 && whole;
    if (keep && !whole) st = hf_fail(HF_MACHINE, "%s: could not be written: %s", c->path, strerror(errno));
    if (keep && whole && rename(c->beside, c->path) != 0) st = hf_fail(HF_MACHINE, "%s: %s", c->path, strerror(errno));
    if (!keep || st != HF_OK) unlink(c->beside);
  }
  free(c->path);
  free(c->beside);
  free(c);
  return st;
}
