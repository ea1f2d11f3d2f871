#include "planner/cost/remote.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "db/catalog.h"

static hf_status read_fact(const json *doc, const char *where, const char *key, const char *unit, cost_figure *out) {
  const json *o = json_get(doc, key);
  const char *tag = json_string(json_get(o, "tag")), *has = json_string(json_get(o, "unit"));
  double likely = json_number(json_get(o, "value"), -1);
  cost_figure f = {.likely = likely};
  f.low = json_number(json_get(o, "low"), likely);
  f.high = json_number(json_get(o, "high"), likely);
  if (json_type(o) != JSON_OBJECT || (has != NULL && strcmp(has, unit) != 0) || !(f.low > 0) || !(f.low <= f.likely) ||
      !(f.likely <= f.high) || !isfinite(f.high))
    return hf_fail(HF_INPUT, "catalog link %s: field %s: needs value, low and high in %s, above 0 and rising", where, key, unit);
  f.tag = TAG_SPEC;
  if (tag != NULL && strcmp(tag, "assumed") == 0) f.tag = TAG_ASSUMED;
  if (tag != NULL && strcmp(tag, "measured") == 0) f.tag = TAG_MEASURED;
  *out = f;
  return HF_OK;
}

hf_status cost_link_read(const char *name, cost_figure *bytes_per_s, cost_figure *latency_ns) {
  json *doc = NULL;
  HF_TRY(catalog_get("links", name, &doc));
  hf_status st = read_fact(doc, name, "bytes_per_s", "B/s", bytes_per_s);
  if (st == HF_OK) st = read_fact(doc, name, "latency_ns", "ns", latency_ns);
  json_free(doc);
  return st;
}

/* Messages of a step's rows: from a row to a prompt's chunk of them; longer ones where only these tell how a link's time grows. */
enum { LARGE_BYTES = 1 << 20 };

enum { ROWS_BYTES = 64 << 10 /* of a decode step: what its rows take counts, prompts compute for longer than theirs */ };

enum { MOST_SIZES = 64 };

static bool leads_to(const rec_link_point *p, const char *dst, const char *load) {
  return p->n > 0 && !strcmp(p->src, "host") && !strcmp(p->dst, dst) && !strcmp(p->load, load);
}

/* Messages to dst of one measurement under a load, by rising size; of points that were measured twice in it the last. */
static int sizes_of(const cost_rows *home, const char *dst, const char *load, int64_t measurement,
                    rec_link_point out[MOST_SIZES]) {
  int n = 0;
  for (int i = 0; i < home->n_link; i++) {
    const rec_link_point *p = &home->link[i];
    int k = 0;
    if (!leads_to(p, dst, load) || p->measurement != measurement) continue;
    while (k < n && out[k].bytes < p->bytes) k++;
    const bool again = k < n && out[k].bytes == p->bytes;
    if (!again && n == MOST_SIZES) continue;
    if (!again) memmove(&out[k + 1], &out[k], (size_t)(n++ - k) * sizeof *out);
    out[k] = *p;
  }
  return n;
}

/* Of the newest measurement that tells a rate, which takes two sizes; returns how many. */
static int newest_sizes(const cost_rows *home, const char *dst, rec_link_point out[MOST_SIZES]) {
  int64_t before = INT64_MAX; /* measurements from here on are no good */
  for (int n = 1; n > 0;) {
    int64_t newest = -1;
    for (int i = 0; i < home->n_link; i++) {
      const rec_link_point *p = &home->link[i];
      if (leads_to(p, dst, "") && p->measurement < before && p->measurement > newest) newest = p->measurement;
    }
    if (newest < 0) return 0;
    n = sizes_of(home, dst, "", newest, out);
    if (n > 1) return n;
    before = newest;
  }
  return 0;
}

static const rec_link_point *largest(const rec_link_point *p, int n, int64_t most) {
  const rec_link_point *l = NULL;
  for (int i = 0; i < n; i++)
    if (p[i].bytes <= most && (!l || p[i].bytes > l->bytes)) l = &p[i];
  return l;
}

/* The smallest message; a longer one takes no less time, so that none takes more than any other does (beside other programs some seem to). */
static rec_link_point smallest(const rec_link_point *p, int n) {
  rec_link_point s = p[0];
  for (int i = 1; i < n; i++)
    if (p[i].bytes < s.bytes) s = p[i];
  for (int i = 0; i < n; i++) {
    s.ns = fmin(s.ns, p[i].ns);
    s.ns_low = fmin(s.ns_low, p[i].ns_low);
    s.ns_high = fmin(s.ns_high, p[i].ns_high);
  }
  return s;
}

/* What rows of a step meet is a rank that has waited, as between layers, and is to wake up: latency and rate of such messages (load "paused"), where they
 * were measured. Of one size alone, what it takes longer than the others would have it. */
static void after_waiting(const cost_rows *home, const char *dst, int64_t measurement, cost_figure *bytes_per_s,
                          cost_figure *latency_ns) {
  rec_link_point p[MOST_SIZES];
  const int n = sizes_of(home, dst, "paused", measurement, p);
  if (n == 0) return;
  const rec_link_point *small = &p[0], *large = largest(p, n, ROWS_BYTES);
  if (large && large->ns > small->ns) {
    const double rate = 1e9 * (double)(large->bytes - small->bytes) / (large->ns - small->ns), part = rate / bytes_per_s->likely;
    *bytes_per_s = (cost_figure){bytes_per_s->low * part, rate, bytes_per_s->high * part, bytes_per_s->tag};
  }
  const double wake = fmax(0, small->ns - latency_ns->likely - 1e9 * (double)small->bytes / bytes_per_s->likely);
  latency_ns->low += wake;
  latency_ns->likely += wake;
  latency_ns->high += wake;
}

hf_status cost_link_measured(const cost_rows *home, const char *machine, cost_figure *bytes_per_s, cost_figure *latency_ns) {
  rec_link_point all[MOST_SIZES];
  rec_link_point small = {.n = 0}, far = {.n = 0};
  char dst[sizeof all->dst];
  snprintf(dst, sizeof dst, "@%.63s", machine);
  const int n = newest_sizes(home, dst, all);
  if (n > 0) small = smallest(all, n);
  const rec_link_point *large = largest(all, n, LARGE_BYTES);
  if (large && !(large->ns > small.ns)) large = largest(all, n, INT64_MAX);
  if (large) far = *large;
  const double bytes = (double)(far.bytes - small.bytes);
  if (n == 0 || !(bytes > 0) || !(small.ns_low > 0))
    return hf_fail(HF_NOT_FOUND,
                   "machine %s: the way to %s was not measured: mpirun -n 2 hf-profile --ranks there does it, or name a link of "
                   "hf-plan catalog "
                   "list links",
                   home->machine.name, machine);
  if (!(far.ns > small.ns))
    return hf_fail(
        HF_INPUT,
        "machine %s: %lld bytes to %s took no longer than %lld, so no rate follows: measure again, with nothing else at "
        "work (mpirun -n 2 hf-profile --ranks)",
        home->machine.name, (long long)far.bytes, machine, (long long)small.bytes);
  const double likely = 1e9 * bytes / (far.ns - small.ns);
  const double low = 1e9 * bytes / (fmax(far.ns_high, far.ns) - small.ns_low);
  const double high = far.ns_low > small.ns_high ? 1e9 * bytes / (far.ns_low - small.ns_high) : likely;
  *bytes_per_s = (cost_figure){.low = low, .likely = likely, .high = fmax(high, likely), .tag = far.tag};
  *latency_ns = (cost_figure){.low = small.ns_low, .likely = small.ns, .high = small.ns_high, .tag = small.tag};
  after_waiting(home, dst, all[0].measurement, bytes_per_s, latency_ns);
  return HF_OK;
}

hf_status cost_remote_parse(const char *text, cost_remote_name names[STAGE_MAX_REMOTES], int *n) {
  *n = 0;
  for (const char *from = text;; from++) {
    size_t len = strcspn(from, ",");
    char part[200];
    int used = snprintf(part, sizeof part, "%.*s", (int)len, from);
    char *colon = strrchr(part, ':');
    if (used < 0 || (size_t)used >= sizeof part || colon == NULL || colon == part || colon[1] == '\0' ||
        (size_t)(colon - part) >= sizeof names[0].machine || strlen(colon + 1) >= sizeof names[0].link)
      return hf_fail(HF_INPUT, "option --remote: '%s': needs MACHINE:LINK, several separated by commas", text);
    if (*n == STAGE_MAX_REMOTES)
      return hf_fail(HF_INPUT, "option --remote: '%s': at most %d other machines can be planned for", text,
                     (int)STAGE_MAX_REMOTES);
    *colon = '\0';
    memcpy(names[*n].machine, part, strlen(part) + 1);
    memcpy(names[*n].link, colon + 1, strlen(colon + 1) + 1);
    ++*n;
    from += len;
    if (*from == '\0') return HF_OK;
  }
}
