/* catalog_check.c: problems of catalog entries and of a user's own files, one line each.
 *
 * First every member against the table of members (unknown, missing, type, unit, range, source), then what no table can say: figures
 * that contradict each other, names that lead nowhere, machines that cannot be put together. */
#include <libgen.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "db/catalog.h"
#include "db/catalog_data.h"

enum { MAX_FILE_BYTES = 1 << 20, MAX_REPORTED = 200, PATH_BYTES = 256 };

typedef struct {
  const char *kind;
  char where[256];  /* starts every line */
  const char *file; /* NULL: an entry of the catalog */
  const json *doc;
  catalog_problem_fn *problem;
  void *user;
  int n;
} check;

static void problem(check *c, const char *fmt, ...) HF_PRINTF(2, 3);
static void problem(check *c, const char *fmt, ...) {
  char line[1400];
  int used = snprintf(line, sizeof line, "%s: ", c->where);
  va_list args;
  va_start(args, fmt);
  vsnprintf(line + used, sizeof line - (size_t)used, fmt, args);
  va_end(args);
  hf_printable(line);
  if (c->n < MAX_REPORTED) c->problem(c->user, line);
  c->n++;
}

/* A failure of a reader is a problem of the entry; running out of memory is not. */
static hf_status as_problem(check *c, hf_status st) {
  if (st == HF_OK || hf_exit_status(st) == 3) return st;
  problem(c, "%s", hf_error_line());
  hf_clear_error();
  return HF_OK;
}

/* ---- members ---- */

static const catalog_member *member_at(const char *kind, const char *path) {
  for (const catalog_member *m = catalog_members; m->kind != NULL; m++) {
    if (strcmp(m->kind, kind) == 0 && strcmp(m->path, path) == 0) return m;
  }
  return NULL;
}

static void unknown_member(check *c, const char *path) {
  const char *best = NULL;
  int distance = 4;
  for (const catalog_member *m = catalog_members; m->kind != NULL; m++) {
    if (strcmp(m->kind, c->kind) != 0) continue;
    int d = hf_edit_distance(path, strlen(path), m->path);
    if (d >= distance) continue;
    distance = d;
    best = m->path;
  }
  if (best != NULL) problem(c, "field %s: unknown to %s; did you mean %s?", path, c->kind, best);
  else problem(c, "field %s: unknown to %s", path, c->kind);
}

static void check_tag(check *c, const json *node, const char *path) {
  const char *source = json_string(json_get(node, "source")), *tag = json_string(json_get(node, "tag"));
  bool assumed = source != NULL && strncmp(source, "assumed", 7) == 0;
  if (assumed && (tag == NULL || strcmp(tag, "assumed") != 0))
    problem(c, "field %s: the source says assumed, the tag does not", path);
}

static hf_status check_fact(check *c, const catalog_member *m, const json *node, const char *path) {
  static const char *const known[] = {"value", "low", "high", "unit", "source", "date", "tag"};
  char place[PATH_BYTES + 8];
  fact f;
  if (strcmp(m->type, "list") == 0) {
    const json *list = json_get(node, "value");
    if (json_type(list) != JSON_ARRAY || json_len(list) == 0) problem(c, "field %s: a list of at least one belongs here", path);
    return HF_OK;
  }
  for (const json *e = json_first(node); e != NULL; e = json_next(e)) {
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) found = found || strcmp(json_key(e), known[i]) == 0;
    if (!found) problem(c, "field %s: field %.40s: unknown to facts", path, json_key(e));
  }
  snprintf(place, sizeof place, "field %s", path);
  int before = c->n;
  HF_TRY(as_problem(c, fact_read(node, place, m->unit, &f)));
  if (c->n != before) return HF_OK;
  if (!(f.low > 0) && !m->required && strcmp(m->unit, "B/s") == 0)
    problem(c, "field %s: 0 is no bandwidth; leave it out where it is not known, else %g to %g B/s would be plausible", path,
            m->lo, m->hi);
  else if (f.low < m->lo * 0.5 || f.likely < m->lo || f.likely > m->hi || f.high > m->hi * 2)
    problem(c, "field %s: %g is not plausible; %g to %g%s%s would be", path, f.likely, m->lo, m->hi,
            strcmp(m->unit, "1") == 0 ? "" : " ", strcmp(m->unit, "1") == 0 ? "" : m->unit);
  check_tag(c, node, path);
  return HF_OK;
}

static bool right_type(const char *type, const json *v) {
  if (strcmp(type, "text") == 0) return json_string(v) != NULL;
  if (strcmp(type, "object") == 0) return json_type(v) == JSON_OBJECT;
  if (strcmp(type, "array") == 0) return json_type(v) == JSON_ARRAY;
  if (strcmp(type, "texts") != 0) return true;
  if (json_type(v) != JSON_ARRAY) return false;
  for (const json *e = json_first(v); e != NULL; e = json_next(e)) {
    if (json_string(e) == NULL) return false;
  }
  return true;
}

/* Is m a member right below path ("" = the entry)? */
static bool is_below(const catalog_member *m, const char *path) {
  size_t n = strlen(path);
  const char *rest = m->path;
  if (n > 0) {
    if (strncmp(rest, path, n) != 0 || rest[n] != '.') return false;
    rest += n + 1;
  }
  return strchr(rest, '.') == NULL;
}

static hf_status check_object(check *c, const json *o, const char *path);

static hf_status check_value(check *c, const json *v, const char *path) {
  const catalog_member *m = member_at(c->kind, path);
  if (m == NULL) {
    unknown_member(c, path);
    return HF_OK;
  }
  if (m->unit != NULL) return check_fact(c, m, v, path);
  if (!right_type(m->type, v)) {
    problem(c, "field %s: %s belongs here", path, strcmp(m->type, "texts") == 0 ? "a list of texts" : m->type);
    return HF_OK;
  }
  if (strcmp(m->type, "count") == 0) {
    double x = json_number(v, NAN);
    if (!(x >= m->lo && x <= m->hi) || x != floor(x))
      problem(c, "field %s: a whole number from %g to %g belongs here", path, m->lo, m->hi);
  }
  if (strcmp(m->type, "object") == 0) return check_object(c, v, path);
  if (strcmp(m->type, "array") == 0) {
    char below[PATH_BYTES];
    snprintf(below, sizeof below, "%.200s[]", path);
    for (const json *e = json_first(v); e != NULL; e = json_next(e)) HF_TRY(check_object(c, e, below));
  }
  return HF_OK;
}

static hf_status check_object(check *c, const json *o, const char *path) {
  if (json_type(o) != JSON_OBJECT) {
    problem(c, "field %s: an object belongs here", path);
    return HF_OK;
  }
  for (const json *v = json_first(o); v != NULL; v = json_next(v)) {
    char below[PATH_BYTES];
    snprintf(below, sizeof below, "%.120s%s%.100s", path, *path ? "." : "", json_key(v));
    HF_TRY(check_value(c, v, below));
  }
  for (const catalog_member *m = catalog_members; m->kind != NULL; m++) {
    if (strcmp(m->kind, c->kind) != 0 || !m->required || !is_below(m, path)) continue;
    const char *key = strrchr(m->path, '.') ? strrchr(m->path, '.') + 1 : m->path;
    if (json_get(o, key) == NULL) problem(c, "field %s: missing", m->path);
  }
  return HF_OK;
}

/* ---- what the table cannot say ---- */

static double value_of(const json *o, const char *key) {
  return json_number(json_get(json_get(o, key), "value"), NAN);
}

/* Complains unless a <= b; what is missing was complained of before. */
static void in_order(check *c, const char *a, const char *b) {
  double x = value_of(c->doc, a), y = value_of(c->doc, b);
  if (x > y) problem(c, "field %s: %g is more than %s %g", a, x, b, y);
}

static void one_of(check *c, const char *key, const char *const *known) {
  char all[200] = "";
  size_t used = 0;
  const char *v = json_string(json_get(c->doc, key));
  if (v == NULL) return;
  for (; *known != NULL; known++) {
    if (strcmp(v, *known) == 0) return;
    used += (size_t)snprintf(all + used, sizeof all - used, "%s%s", used ? ", " : "", *known);
  }
  problem(c, "field %s: '%.40s' is none of %s", key, v, all);
}

static const char *const classes[] = {"desktop", "workstation", "server", NULL};
static const char *const memory_types[] = {"ddr4", "ddr4-udimm", "ddr5", "ddr5-udimm", "mrdimm", NULL};

/* More modules on a channel never run faster. */
static void check_speed_order(check *c, const json *one) {
  double at = value_of(one, "transfers_per_s");
  const char *type = json_string(json_get(one, "type"));
  if (type == NULL) return;
  for (const json *s = json_first(json_get(c->doc, "memory_speeds")); s != NULL; s = json_next(s)) {
    const char *t = json_string(json_get(s, "type"));
    if (t == NULL || strcmp(t, type) != 0) continue;
    if (json_number(json_get(s, "dimms_per_channel"), 0) > json_number(json_get(one, "dimms_per_channel"), 0) &&
        value_of(s, "transfers_per_s") > at)
      problem(c, "field memory_speeds: %s is faster with more modules per channel", type);
  }
}

/* Above what AVX-512 does in a cycle of a core at best, and below what tiles do. */
enum { MOST_WITHOUT_TILES = 512 };

static void check_tiles(check *c, const json *per_cycle) {
  static const char *const types[] = {"bf16", "int8"};
  for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
    char flag[16];
    bool has = false;
    snprintf(flag, sizeof flag, "amx_%s", types[i]);
    for (const json *e = json_first(json_get(json_get(c->doc, "isa"), "value")); e != NULL; e = json_next(e)) {
      const char *s = json_string(e);
      has = has || (s != NULL && strcmp(s, flag) == 0);
    }
    double x = value_of(per_cycle, types[i]);
    if (x > MOST_WITHOUT_TILES && !has)
      problem(c, "field flops_per_cycle.%s: %g a cycle take %s, which isa does not list", types[i], x, flag);
    if (x <= MOST_WITHOUT_TILES && has) problem(c, "field flops_per_cycle.%s: %g a cycle is little for %s", types[i], x, flag);
  }
}

static void check_sale(check *c) {
  const char *sale = json_string(json_get(c->doc, "sale"));
  if (sale != NULL && strncmp(sale, "ended: ", 7) != 0 && strncmp(sale, "announced: ", 11) != 0)
    problem(c, "field sale: '%.40s' does not start with 'ended: ' or 'announced: '; leave it out where new ones can be bought",
            sale);
}

static void check_cpu(check *c) {
  check_sale(c);
  one_of(c, "class", classes);
  in_order(c, "base_clock_hz", "all_core_turbo_hz");
  in_order(c, "power_idle_w", "power_active_w");
  const json *per_cycle = json_get(c->doc, "flops_per_cycle");
  if (value_of(per_cycle, "f32") > value_of(per_cycle, "bf16") || value_of(per_cycle, "bf16") > value_of(per_cycle, "int8"))
    problem(c, "field flops_per_cycle: smaller numbers are never slower: f32 <= bf16 <= int8");
  check_tiles(c, per_cycle);
  for (const json *s = json_first(json_get(c->doc, "memory_speeds")); s != NULL; s = json_next(s)) {
    const char *type = json_string(json_get(s, "type"));
    bool known = false;
    for (const char *const *t = memory_types; *t != NULL; t++) known = known || (type != NULL && strcmp(type, *t) == 0);
    if (!known) problem(c, "field memory_speeds[].type: '%.40s' is no type of memory/", type ? type : "");
    check_speed_order(c, s);
    for (const json *other = json_next(s); other != NULL; other = json_next(other)) {
      const char *t = json_string(json_get(other, "type"));
      if (t != NULL && type != NULL && strcmp(t, type) == 0 &&
          json_number(json_get(other, "dimms_per_channel"), 0) == json_number(json_get(s, "dimms_per_channel"), 0))
        problem(c, "field memory_speeds: %s at %g per channel is listed twice", type,
                json_number(json_get(s, "dimms_per_channel"), 0));
    }
  }
}

/* Rates of tensor cores are powers of two of each other: a ratio that is none mixes dense with sparse rates, or 32-bit with
 * 16-bit accumulation. Cards whose 32-bit accumulation is halved do four times as many 8-bit integer operations. */
static void check_tensor_ratio(check *c, const char *key, double most, const char *usual) {
  double ratio = value_of(c->doc, key) / value_of(c->doc, "flops_bf16");
  if (isnan(ratio)) return; /* left out, or complained of before */
  for (double want = 2; want <= most; want *= 2) {
    if (fabs(ratio / want - 1) <= 0.05) return;
  }
  problem(c, "field %s: %.3g times flops_bf16; %s when both are dense and accumulate in 32 bits", key, ratio, usual);
}

/* Whole numbers within the bounds of the table, each more than the one before it. */
static int check_numbers(check *c, const char *key, double *last) {
  const catalog_member *m = member_at(c->kind, key);
  int n = 0;
  *last = 0;
  for (const json *e = json_first(json_get(json_get(c->doc, key), "value")); e != NULL; e = json_next(e), n++) {
    double v = json_number(e, NAN);
    if (!(v >= m->lo && v <= m->hi && v == floor(v)))
      problem(c, "field %s: whole numbers from %g to %g belong here", key, m->lo, m->hi);
    else if (!(v > *last)) problem(c, "field %s: %.15g does not come after %.15g", key, v, *last);
    *last = v;
  }
  if (n > MOST_SIZES) problem(c, "field %s: more than %d numbers", key, MOST_SIZES);
  return n;
}

static void check_gpu(check *c) {
  double most = 0;
  const char *form = json_string(json_get(c->doc, "form"));
  if (check_numbers(c, "sold_in", &most) == 0 && form != NULL && strstr(form, "module") != NULL)
    problem(c, "field sold_in: missing; modules come on boards: list how many are on one, [8] or [4, 8]");
  check_sale(c);
  static const char *const programs[] = {"ROCm", "oneAPI", NULL};
  one_of(c, "runs_on", programs);
  in_order(c, "power_idle_w", "power_active_w");
  check_tensor_ratio(c, "flops_fp8", 2, "twice");
  check_tensor_ratio(c, "flops_int8", 4, "twice, or four times,");
  double per_byte = value_of(c->doc, "flops_bf16") / value_of(c->doc, "mem_bytes_per_s");
  if (per_byte < 10 || per_byte > 2000)
    problem(c, "fields flops_bf16 and mem_bytes_per_s: %.3g FLOP per byte; cards have 10 to 2000", per_byte);
  double seconds = value_of(c->doc, "mem_bytes") / value_of(c->doc, "mem_bytes_per_s");
  if (seconds < 0.003 || seconds > 0.5)
    problem(c, "fields mem_bytes and mem_bytes_per_s: reading all of it takes %.3g s; cards take 0.003 to 0.5", seconds);
}

static void check_memory(check *c) {
  double largest = 0;
  check_sale(c);
  if (check_numbers(c, "dimm_bytes_sold", &largest) > 0 && largest != value_of(c->doc, "dimm_bytes_max"))
    problem(c, "field dimm_bytes_sold: the largest is %.15g, but dimm_bytes_max %.15g", largest,
            value_of(c->doc, "dimm_bytes_max"));
  one_of(c, "type", memory_types);
  const char *name = json_string(json_get(c->doc, "name")), *type = json_string(json_get(c->doc, "type"));
  double rate = value_of(c->doc, "transfers_per_s") / 1e6, most = 0;
  const char *dash = name != NULL ? strchr(name, '-') : NULL;
  if (type == NULL || name == NULL) return;
  if (strncmp(type, "ddr4", 4) == 0) most = 5400;
  else if (strncmp(type, "ddr5", 4) == 0) most = 9600;
  else most = 13000;
  if (rate > most) problem(c, "field transfers_per_s: %.0f MT/s is beyond %s", rate, type);
  double stated = dash != NULL ? strtod(dash + 1, NULL) : 0;
  if (stated > 0 && fabs(stated - rate) > 1) problem(c, "field transfers_per_s: %.0f MT/s, but the name says %.0f", rate, stated);
}

static hf_status check_prior(check *c) {
  const json *facts = json_get(c->doc, "facts");
  const char *base = json_string(json_get(c->doc, "base"));
  const json *entry;
  for (const json *f = json_first(facts); f != NULL; f = json_next(f)) {
    char place[128];
    fact v;
    int before = c->n;
    snprintf(place, sizeof place, "facts: field %.60s", json_key(f));
    HF_TRY(as_problem(c, fact_read(f, place, NULL, &v)));
    if (c->n == before && strstr(json_key(f), "fraction") != NULL && v.high > 1)
      problem(c, "facts: field %.60s: %g is more than all of it", json_key(f), v.high);
  }
  return base == NULL ? HF_OK : as_problem(c, catalog_entry("priors", base, &entry, NULL));
}

static hf_status check_machine(check *c) {
  catalog_machine m;
  int before = c->n;
  HF_TRY(as_problem(c, catalog_machine_build(c->file ? c->file : json_string(json_get(c->doc, "name")), &m)));
  if (c->n != before) return HF_OK;
  for (int i = 0; i < m.n_figure; i++) {
    const rec_figure *f = &m.figure[i];
    if (strcmp(f->what, "dram_theoretical_bytes_per_s") != 0) continue;
    for (int k = 0; k < m.n_figure; k++) {
      const rec_figure *r = &m.figure[k];
      if (strcmp(r->what, "dram_read_bytes_per_s") == 0 && strcmp(r->device, f->device) == 0 && r->likely > 1.05 * f->likely)
        problem(c, "figure dram_read_bytes_per_s of %s: %.3g B/s, but its channels give %.3g", r->device, r->likely, f->likely);
    }
  }
  catalog_machine_free(&m);
  return HF_OK;
}

/* A name or alias that two entries of a kind claim finds whichever comes first. */
static hf_status check_names(check *c) {
  char **names = NULL;
  int n = 0;
  const char *own = json_string(json_get(c->doc, "name"));
  if (own == NULL) return HF_OK;
  for (const char *p = own; *p; p++) {
    if (strchr("abcdefghijklmnopqrstuvwxyz0123456789-.", *p) == NULL) {
      problem(c, "field name: lower case letters, digits, dashes and points only");
      break;
    }
  }
  HF_TRY(catalog_names(c->kind, &names, &n));
  hf_status st = HF_OK;
  for (const json *a = json_first(json_get(c->doc, "aliases")); a != NULL && st == HF_OK; a = json_next(a)) {
    const char *alias = json_string(a);
    for (int i = 0; alias != NULL && i < n && st == HF_OK; i++) {
      const json *other;
      if (strcmp(names[i], own) == 0) continue;
      if (strcasecmp(names[i], alias) == 0) problem(c, "field aliases: '%s' is the name of another entry", alias);
      if (catalog_entry(c->kind, names[i], &other, NULL) != HF_OK) continue; /* has its own lines */
      for (const json *b = json_first(json_get(other, "aliases")); b != NULL; b = json_next(b)) {
        const char *theirs = json_string(b);
        if (theirs != NULL && strcasecmp(theirs, alias) == 0)
          problem(c, "field aliases: '%s' is an alias of %s, too", alias, names[i]);
      }
    }
  }
  hf_clear_error();
  free(names);
  return st;
}

static bool free_form(const char *kind) {
  return strcmp(kind, "quality") == 0 || strcmp(kind, "scenarios") == 0;
}

static hf_status check_document(check *c) {
  if (free_form(c->kind)) {
    if (json_string(json_get(c->doc, "name")) == NULL) problem(c, "field name: missing");
    return HF_OK;
  }
  HF_TRY(check_object(c, c->doc, ""));
  HF_TRY(check_names(c));
  if (strcmp(c->kind, "cpus") == 0) check_cpu(c);
  if (strcmp(c->kind, "gpus") == 0) check_gpu(c);
  if (strcmp(c->kind, "memory") == 0) check_memory(c);
  if (strcmp(c->kind, "platforms") == 0) in_order(c, "power_idle_w", "power_active_w");
  if (strcmp(c->kind, "models") == 0) in_order(c, "params_active", "params_total");
  if (strcmp(c->kind, "priors") == 0) HF_TRY(check_prior(c));
  return strcmp(c->kind, "machines") == 0 ? check_machine(c) : HF_OK;
}

/* ---- files ---- */

static const char *kind_by_folder(const char *file) {
  char copy[4096];
  if ((size_t)snprintf(copy, sizeof copy, "%s", file) >= sizeof copy) return NULL;
  const char *folder = basename(dirname(copy));
  for (const char *const *k = catalog_kinds; *k != NULL; k++) {
    if (strcmp(*k, folder) == 0) return *k;
  }
  return NULL;
}

static const char *kind_by_members(const json *doc) {
  static const struct {
    const char *member, *kind;
  } signs[] = {
      {"config", "models"},      {"memory_channels", "cpus"}, {"mem_bytes_per_s", "gpus"}, {"bytes_per_transfer", "memory"},
      {"max_gpus", "platforms"}, {"latency_ns", "links"},     {"facts", "priors"},         {"cpu", "machines"},
      {"devices", "machines"},   {"figures", "machines"}};
  for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
    if (json_get(doc, signs[i].member) != NULL) return signs[i].kind;
  }
  return NULL;
}

static hf_status check_file(check *c, const char *file) {
  json *raw = NULL, *doc = NULL;
  snprintf(c->where, sizeof c->where, "%.250s", file);
  c->file = file;
  hf_status st = json_read_file(file, MAX_FILE_BYTES, &raw);
  if (st == HF_NOT_FOUND) return st;
  int before = c->n;
  HF_TRY(as_problem(c, st));
  if (c->n != before) return HF_OK;
  c->kind = kind_by_folder(file);
  if (c->kind == NULL) c->kind = kind_by_members(raw);
  if (c->kind == NULL) problem(c, "cannot tell what this is: put it into a folder named after its kind, such as gpus/");
  st = c->kind == NULL ? HF_OK : as_problem(c, catalog_expand(c->kind, raw, &doc));
  if (st == HF_OK && doc != NULL) {
    c->doc = doc;
    st = check_document(c);
  }
  json_free(doc);
  json_free(raw);
  return st;
}

hf_status catalog_check(const char *kind, const char *name, catalog_problem_fn *report, void *user, int *n) {
  check c = {.kind = kind, .problem = report, .user = user};
  hf_status st;
  if (kind == NULL) {
    st = check_file(&c, name);
  } else {
    snprintf(c.where, sizeof c.where, "%.40s/%.120s", kind, name);
    st = catalog_entry(kind, name, &c.doc, NULL);
    if (st != HF_NOT_FOUND) {
      int before = c.n;
      st = as_problem(&c, st);
      if (st == HF_OK && c.n == before) st = check_document(&c);
    }
  }
  *n = c.n;
  return st;
}
