#include "planner/cost/remote.h"

#include <math.h>
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

/* Messages of a step's rows: from a row to a prompt's chunk of them. */
enum { LARGE_BYTES = 1 << 20 };

static void take_later(const rec_link_point *p, rec_link_point *small, rec_link_point *large) {
  if (small->n == 0 || p->bytes <= small->bytes) *small = *p;
  if (p->bytes <= LARGE_BYTES && (large->n == 0 || p->bytes >= large->bytes)) *large = *p;
}

hf_status cost_link_measured(const cost_rows *home, const char *machine, cost_figure *bytes_per_s, cost_figure *latency_ns) {
  rec_link_point small = {.n = 0}, large = {.n = 0};
  char dst[sizeof small.dst];
  snprintf(dst, sizeof dst, "@%.*s", (int)sizeof dst - 2, machine);
  for (int i = 0; i < home->n_link; i++)
    if (!strcmp(home->link[i].src, "host") && !strcmp(home->link[i].dst, dst) && home->link[i].n > 0)
      take_later(&home->link[i], &small, &large);
  const double bytes = (double)(large.bytes - small.bytes);
  if (!(bytes > 0) || !(small.ns_low > 0) || !(large.ns > small.ns))
    return hf_fail(HF_NOT_FOUND,
                   "machine %s: the way to %s was not measured: mpirun -n 2 hf-profile --ranks there does it, or name a link of "
                   "hf-plan catalog "
                   "list links",
                   home->machine.name, machine);
  *latency_ns = (cost_figure){.low = small.ns_low, .likely = small.ns, .high = small.ns_high, .tag = small.tag};
  const double likely = 1e9 * bytes / (large.ns - small.ns);
  const double low = 1e9 * bytes / (large.ns_high - small.ns_low);
  const double high = large.ns_low > small.ns_high ? 1e9 * bytes / (large.ns_low - small.ns_high) : likely;
  *bytes_per_s = (cost_figure){.low = low, .likely = likely, .high = fmax(high, likely), .tag = large.tag};
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
