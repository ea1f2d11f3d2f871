/* space.c: which combinations a recommendation looks at. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cli.h"
#include "planner/ask/recommend.h"

static const struct {
  const char *member, *kind; /* kind of the catalog, NULL for numbers and formats */
} lists[] = {{"gpus", "gpus"},     {"gpu_counts", NULL}, {"cpus", "cpus"}, {"sockets", NULL},
             {"memory", "memory"}, {"dimm_bytes", NULL}, {"formats", NULL}};
enum { L_GPUS, L_COUNTS, L_CPUS, L_SOCKETS, L_MEMORY, L_DIMMS, L_FORMATS, L_N };

/* Must it not be proposed unasked? A card for which this project has no programs, a part that cannot be bought new, or modules on boards, which
 * come in servers of several hundred thousand USD. */
static hf_status by_name_only(const char *kind, const char *name, bool *only) {
  json *entry = NULL;
  HF_TRY(catalog_get(kind, name, &entry));
  *only = json_get(entry, "runs_on") != NULL || json_get(entry, "sale") != NULL || json_get(entry, "sold_in") != NULL;
  json_free(entry);
  return HF_OK;
}

static hf_status all_names(const char *kind, char list[SPACE_MAX][SPACE_NAME], int *n) {
  char **names = NULL;
  int count = 0;
  HF_TRY(catalog_names(kind, &names, &count));
  *n = 0;
  hf_status st = HF_OK;
  for (int i = 0; i < count && *n < SPACE_MAX - 1 && st == HF_OK; i++) {
    bool only;
    if (strlen(names[i]) >= SPACE_NAME) continue;
    st = by_name_only(kind, names[i], &only);
    if (st == HF_OK && !only) snprintf(list[(*n)++], SPACE_NAME, "%s", names[i]);
  }
  free(names);
  return st;
}

hf_status recommend_space_default(recommend_space *s) {
  static const int counts[] = {1, 2, 4}, gib[] = {16, 32, 48, 64, 96, 128};
  memset(s, 0, sizeof *s);
  HF_TRY(all_names("gpus", s->gpu, &s->n_gpus));
  snprintf(s->gpu[s->n_gpus++], SPACE_NAME, "none");
  HF_TRY(all_names("cpus", s->cpu, &s->n_cpus));
  for (int i = 0; i < 3; i++) s->count[s->n_counts++] = counts[i];
  for (int i = 0; i < 2; i++) s->sockets[s->n_sockets++] = i + 1;
  for (int i = 0; i < 6; i++) s->dimm_bytes[s->n_dimms++] = (int64_t)gib[i] << 30;
  return HF_OK;
}

/* ---- one element ---- */

static hf_status add_name(const char *where, const char *kind, const char *text, size_t n, char list[SPACE_MAX][SPACE_NAME],
                          int *count) {
  char name[SPACE_NAME];
  json *doc = NULL;
  if (n == 0 || n >= sizeof name) return hf_fail(HF_INPUT, "%s: a name is empty or longer than %d bytes", where, SPACE_NAME - 1);
  memcpy(name, text, n);
  name[n] = '\0';
  if (!(strcmp(kind, "gpus") == 0 && strcasecmp(name, "none") == 0)) {
    HF_TRY(hf_note(catalog_get(kind, name, &doc), "%s", where));
    const char *own = json_string(json_get(doc, "name"));
    if (own != NULL && strlen(own) < sizeof name) snprintf(name, sizeof name, "%s", own);
    json_free(doc);
  } else {
    snprintf(name, sizeof name, "none");
  }
  for (int i = 0; i < *count; i++)
    if (strcmp(list[i], name) == 0) return hf_fail(HF_INPUT, "%s: %s is given twice", where, name);
  if (*count == SPACE_MAX) return hf_fail(HF_INPUT, "%s: more than %d names", where, SPACE_MAX);
  snprintf(list[(*count)++], SPACE_NAME, "%s", name);
  return HF_OK;
}

static hf_status add_format(const char *where, const char *text, size_t n, recommend_space *s) {
  char name[SPACE_NAME];
  fmt f;
  if (n == 0 || n >= sizeof name) return hf_fail(HF_INPUT, "%s: a format's name is empty or too long", where);
  memcpy(name, text, n);
  name[n] = '\0';
  HF_TRY(hf_note(fmt_parse(name, &f), "%s", where));
  for (int i = 0; i < s->n_formats; i++)
    if (strcmp(s->format[i], fmt_get(f)->name) == 0) return hf_fail(HF_INPUT, "%s: %s is given twice", where, name);
  if (s->n_formats == 16) return hf_fail(HF_INPUT, "%s: more than 16 formats", where);
  snprintf(s->format[s->n_formats++], SPACE_NAME, "%.63s", fmt_get(f)->name);
  return HF_OK;
}

static hf_status add_number(const char *where, int list, double v, recommend_space *s) {
  double lo = list == L_DIMMS ? 1 << 30 : 1, hi = list == L_DIMMS ? 4398046511104.0 : list == L_SOCKETS ? 2 : CATALOG_MAX_GPUS;
  if (!(v >= lo && v <= hi) || v != (double)(int64_t)v)
    return hf_fail(HF_INPUT, "%s: %g is no whole number between %.15g and %.15g", where, v, lo, hi);
  bool twice = false;
  if (list == L_COUNTS) {
    for (int i = 0; i < s->n_counts; i++) twice = twice || s->count[i] == (int)v;
    if (!twice) s->count[s->n_counts++] = (int)v; /* at most CATALOG_MAX_GPUS unlike ones */
  } else if (list == L_SOCKETS) {
    for (int i = 0; i < s->n_sockets; i++) twice = twice || s->sockets[i] == (int)v;
    if (!twice) s->sockets[s->n_sockets++] = (int)v;
  } else {
    for (int i = 0; i < s->n_dimms; i++) twice = twice || s->dimm_bytes[i] == (int64_t)v;
    if (!twice && s->n_dimms == 16) return hf_fail(HF_INPUT, "%s: more than 16 sizes", where);
    if (!twice) s->dimm_bytes[s->n_dimms++] = (int64_t)v;
  }
  return twice ? hf_fail(HF_INPUT, "%s: %.15g is given twice", where, v) : HF_OK;
}

static void clear(int list, recommend_space *s) {
  int *const n[L_N] = {&s->n_gpus, &s->n_counts, &s->n_cpus, &s->n_sockets, &s->n_memory, &s->n_dimms, &s->n_formats};
  *n[list] = 0;
  if (list == L_COUNTS) s->named_counts = true;
}

static hf_status add_text(const char *where, int list, const char *text, size_t n, recommend_space *s) {
  switch (list) {
    case L_GPUS: return add_name(where, "gpus", text, n, s->gpu, &s->n_gpus);
    case L_CPUS: return add_name(where, "cpus", text, n, s->cpu, &s->n_cpus);
    case L_MEMORY: return add_name(where, "memory", text, n, s->memory, &s->n_memory);
    case L_FORMATS: return add_format(where, text, n, s);
    default: break;
  }
  char number[32];
  int64_t v = 0;
  if (n == 0 || n >= sizeof number) return hf_fail(HF_INPUT, "%s: a number is empty or too long", where);
  memcpy(number, text, n);
  number[n] = '\0';
  HF_TRY(cli_parse_size(number, where, &v));
  return add_number(where, list, (double)v, s);
}

/* ---- lists ---- */

hf_status recommend_space_list(const char *option, const char *which, const char *text, recommend_space *s) {
  char where[96];
  int list = 0;
  while (list < L_N && strcmp(lists[list].member, which) != 0) list++;
  if (list == L_N) return hf_fail(HF_INPUT, "option %s: %s is no list of the space", option, which);
  snprintf(where, sizeof where, "option %.80s", option);
  clear(list, s);
  for (const char *at = text;; at++) {
    size_t n = strcspn(at, ",");
    HF_TRY(add_text(where, list, at, n, s));
    at += n;
    if (*at == '\0') return HF_OK;
  }
}

hf_status recommend_space_read(const json *doc, const char *where, recommend_space *s) {
  char place[400];
  if (json_type(doc) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: is no JSON object", where);
  for (const json *m = json_first(doc); m != NULL; m = json_next(m)) {
    int list = 0;
    while (list < L_N && strcmp(lists[list].member, json_key(m)) != 0) list++;
    if (list == L_N)
      return hf_fail(HF_INPUT,
                     "%.200s: field %.60s: unknown; a space has gpus, gpu_counts, cpus, sockets, memory, dimm_bytes, formats",
                     where, json_key(m));
    snprintf(place, sizeof place, "%.200s: field %s", where, lists[list].member);
    if (json_type(m) != JSON_ARRAY || json_len(m) == 0) return hf_fail(HF_INPUT, "%s: needs an array of at least one", place);
    clear(list, s);
    for (const json *e = json_first(m); e != NULL; e = json_next(e)) {
      const char *text = json_string(e);
      if (text != NULL) HF_TRY(add_text(place, list, text, strlen(text), s));
      else if (json_type(e) == JSON_NUMBER && lists[list].kind == NULL && list != L_FORMATS)
        HF_TRY(add_number(place, list, json_number(e, 0), s));
      else return hf_fail(HF_INPUT, "%s: an element is neither a name nor a number as needed", place);
    }
  }
  return HF_OK;
}
