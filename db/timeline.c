#include "db/timeline.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { STEPS_LANE = 100, MICRO_BATCHES = 64 };

typedef struct {
  FILE *f;
  int64_t n, origin_ns;
} writer;

/* Up to its args, which the caller writes and closes. */
static void begin_event(writer *w, const char *name, const char *category, int lane, int64_t start_ns, int64_t end_ns) {
  const int64_t from = start_ns - w->origin_ns, length = end_ns - start_ns;
  fprintf(w->f,
          "%s{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":1,\"tid\":%d,\"ts\":%" PRId64 ".%03d,\"dur\":%" PRId64
          ".%03d,\"args\":{",
          w->n++ > 0 ? ",\n" : "", name, category, lane, from / 1000, (int)(from % 1000), length / 1000, (int)(length % 1000));
}

static void name_lane(writer *w, int lane, const char *name) {
  fprintf(w->f, "%s{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":1,\"tid\":%d,\"args\":{\"name\":\"%s\"}}",
          w->n++ > 0 ? ",\n" : "", lane, name);
}

static int lane_of(const idle_account *a, const rec_trace *r) {
  for (int k = 0; k < a->n_resources; k++)
    if (strcmp(a->resource[k].name, r->resource) == 0) return k;
  return STEPS_LANE + r->micro_batch;
}

static void write_lanes(writer *w, const rec_trace *ev, int64_t n, const idle_account *idle) {
  bool named[MICRO_BATCHES] = {false};
  char name[32];
  for (int k = 0; k < idle->n_resources; k++) name_lane(w, k, idle->resource[k].name);
  for (int64_t i = 0; i < n; i++) {
    const int m = ev[i].micro_batch;
    if (m < 0 || m >= MICRO_BATCHES || named[m] || strcmp(ev[i].resource, TIMELINE_STEPS) != 0) continue;
    snprintf(name, sizeof name, "micro-batch %d", m);
    name_lane(w, STEPS_LANE + m, name);
    named[m] = true;
  }
}

static void write_events(writer *w, const rec_trace *ev, int64_t n, const idle_account *idle) {
  char name[96];
  write_lanes(w, ev, n, idle);
  for (int64_t i = 0; i < n; i++) {
    const rec_trace *r = &ev[i];
    snprintf(name, sizeof name, "%s L%d m%d", r->stage, r->layer, r->micro_batch);
    begin_event(w, name, r->stage, lane_of(idle, r), r->start_ns, r->end_ns);
    fprintf(w->f, "\"step\":%d,\"micro_batch\":%d,\"layer\":%d,\"tokens\":%d", r->step, r->micro_batch, r->layer, r->tokens);
    if (r->distinct > 0) fprintf(w->f, ",\"distinct_experts\":%d", r->distinct);
    if (r->bytes > 0) fprintf(w->f, ",\"bytes\":%" PRId64, r->bytes);
    fputs("}}", w->f);
  }
  for (int64_t i = 0; i < idle->n_gaps; i++) {
    const idle_gap *g = &idle->gap[i];
    idle_words(g, name, sizeof name);
    begin_event(w, "idle", "idle", g->resource, g->start_ns, g->end_ns);
    fprintf(w->f, "\"waits_for\":\"%s\"}}", name);
  }
}

typedef struct {
  const rec_trace *ev;
  int64_t n, origin_ns;
  const idle_account *idle;
} content;

static hf_status write_content(int fd, const char *path, void *user) {
  const content *c = user;
  const int own = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* the stream closes it */
  writer w = {.f = own < 0 ? NULL : fdopen(own, "w"), .origin_ns = c->origin_ns};
  if (w.f == NULL) {
    if (own >= 0) close(own);
    return hf_fail(HF_MACHINE, "%s: cannot be written: %s", path, strerror(errno));
  }
  fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n", w.f);
  write_events(&w, c->ev, c->n, c->idle);
  fputs("\n]}\n", w.f);
  const bool whole = ferror(w.f) == 0;
  return fclose(w.f) == 0 && whole ? HF_OK : hf_fail(HF_MACHINE, "%s: could not be written: %s", path, strerror(errno));
}

hf_status timeline_write(const rec_trace *ev, int64_t n, int64_t origin_ns, const idle_account *idle, const char *path) {
  return hf_write_file_by(path, write_content, &(content){ev, n, origin_ns, idle});
}

void timeline_json(const idle_account *a, json *parent) {
  json *o = json_add_object(parent, "trace"), *list = json_add_array(o, "resources");
  const double overlap = idle_overlap(a);
  json_add_num(o, "span_s", 1e-9 * (double)a->span_ns);
  for (int k = 0; k < a->n_resources; k++) {
    const idle_resource *y = &a->resource[k];
    json *r = json_add_object(list, NULL);
    json_add_str(r, "resource", y->name);
    json_add_num(r, "busy_s", 1e-9 * (double)y->busy_ns);
    json *waits = json_add_array(r, "waits_for");
    for (int i = 0; i < y->n_causes; i++) {
      char words[64];
      json *c = json_add_object(waits, NULL);
      idle_cause_words(&y->cause[i], words, sizeof words);
      json_add_str(c, "what", words);
      json_add_num(c, "idle_s", 1e-9 * (double)y->cause[i].ns);
      json_add_int(c, "gaps", y->cause[i].gaps);
    }
  }
  if (isfinite(overlap)) json_add_num(o, "overlap", overlap);
}

void timeline_print(const idle_account *a) {
  const double overlap = idle_overlap(a);
  for (int k = 0; k < a->n_resources; k++) {
    const idle_resource *y = &a->resource[k];
    printf("  %s was busy for %.0f %% of %.3g s", y->name, 100.0 * (double)y->busy_ns / (double)a->span_ns,
           1e-9 * (double)a->span_ns);
    for (int i = 0; i < y->n_causes && i < 3; i++) {
      char words[64];
      idle_cause_words(&y->cause[i], words, sizeof words);
      printf("%s %s %.0f %%", i ? "," : " and waited for", words, 100.0 * (double)y->cause[i].ns / (double)a->span_ns);
    }
    putchar('\n');
  }
  int x, y;
  idle_busiest(a, &x, &y);
  if (isfinite(overlap))
    printf("  overlap of %s and %s: %.2f of what is possible\n", a->resource[x].name, a->resource[y].name, overlap);
}
