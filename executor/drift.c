#include "executor/drift.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/stats.h"

enum { L3_TIMES = 4, LEAST_BYTES = 128 << 20, PASSES = 5 };
static const int64_t EVERY_NS = 60000000000;
/* So far from the first rate is worth a line. */
static const double TOLD = 0.1;

static double read_now(const drift *d) {
  double v[PASSES];
  for (int i = 0; i < PASSES; i++) v[i] = mem_probe_pass(d->probe, d->threads);
  return hf_percentiles_of(v, PASSES).p50;
}

static void keep(drift *d) {
  if (d->n < DRIFT_MOST_LOOKS) d->bytes_per_s[d->n++] = read_now(d);
  d->next_ns = hf_now_ns() + EVERY_NS;
}

void drift_begin(const topology *t, int threads, drift *out) {
  int64_t bytes = L3_TIMES * t->l3_bytes;
  memset(out, 0, sizeof *out);
  out->threads = threads;
  if (bytes < LEAST_BYTES) bytes = LEAST_BYTES;
  hf_status st = pool_new(t, threads, &out->p);
  if (st == HF_OK) st = mem_probe_new(out->p, (size_t)bytes, &out->probe);
  if (st == HF_OK) {
    keep(out);
    return;
  }
  hf_log(HF_LOG_DEBUG, "drift is not watched: %s", hf_error_line());
  hf_clear_error();
  drift_end(out);
}

void drift_look(drift *d) {
  if (d->probe == NULL || hf_now_ns() < d->next_ns) return;
  keep(d);
  const double now = d->bytes_per_s[d->n - 1], first = d->bytes_per_s[0];
  if (fabs(now / first - 1) > TOLD)
    hf_log(HF_LOG_INFO, "memory is read at %.1f GB/s now, at the start of the run it was %.1f", now / 1e9, first / 1e9);
}

void drift_end(drift *d) {
  mem_probe_free(d->probe);
  if (d->p) pool_free(d->p);
  d->probe = NULL;
  d->p = NULL;
}

void drift_profile(drift *d, db *from, int64_t machine_id) {
  rec_machine m = {.id = machine_id};
  rec_figure *f = NULL;
  int n = 0;
  hf_status st = machine_id ? HF_OK : db_machine_latest(from, MACHINE_MEASURED, &m);
  if (st == HF_OK) st = db_figure_list(from, m.id, &f, &n);
  if (st != HF_OK) hf_clear_error();
  if (st == HF_OK) d->profile_bytes_per_s = rec_read_rate(f, n, d->threads);
  free(f);
}

double drift_bytes_per_s(const drift *d) {
  double v[DRIFT_MOST_LOOKS];
  memcpy(v, d->bytes_per_s, (size_t)d->n * sizeof *v);
  return hf_percentiles_of(v, (size_t)d->n).p50;
}

double drift_slows(const drift *d, const plan_question *q, double then) {
  plan_question now = *q;
  now.dram_bytes_per_s = drift_bytes_per_s(d);
  if (!(now.dram_bytes_per_s > 0) || !(d->profile_bytes_per_s > 0)) return 1;
  const double with = then > 0 ? ask_decode_rate(&now) : 0;
  return with > 0 ? then / with : 1;
}

void drift_json(const drift *d, json *into) {
  if (d->n == 0) return;
  json *o = json_add_object(into, "drift");
  double least = INFINITY, most = 0;
  for (int i = 0; i < d->n; i++) least = fmin(least, d->bytes_per_s[i]), most = fmax(most, d->bytes_per_s[i]);
  json_add_num(o, "dram_bytes_per_s", drift_bytes_per_s(d));
  json_add_num(o, "first", d->bytes_per_s[0]);
  json_add_num(o, "least", least);
  json_add_num(o, "most", most);
  json_add_int(o, "looks", d->n);
  if (d->profile_bytes_per_s > 0) json_add_num(o, "of_profile", drift_bytes_per_s(d) / d->profile_bytes_per_s);
  else json_add_null(o, "of_profile");
}
