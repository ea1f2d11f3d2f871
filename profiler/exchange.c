#include "profiler/exchange.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

enum { VERSION = 1, MAX_DEVICES = 64, MAX_DEPTH = 8 };
#define MOST_VALUE 1e30
#define MOST_COUNT INT32_MAX
#define MOST_BYTES ((int64_t)1 << 60)

typedef enum { TEXT, INT, I64, NUM, BOOLEAN, TAG } kind;
typedef struct {
  const char *name;
  kind kind;
  size_t offset, bytes;
  int least;     /* shortest text, smallest integer */
  bool may_lack; /* files of earlier versions have none: 0 */
} field;
#define FIELD(rec, member, kind, least) \
  { #member, kind, offsetof(rec, member), sizeof(((rec *)0)->member), least, false }
#define LATER_FIELD(rec, member, kind, least) \
  { #member, kind, offsetof(rec, member), sizeof(((rec *)0)->member), least, true }

static const field device_fields[] = {
    FIELD(rec_device, device, TEXT, 1), FIELD(rec_device, kind, TEXT, 1),     FIELD(rec_device, name, TEXT, 0),
    FIELD(rec_device, cores, INT, 0),   FIELD(rec_device, mem_bytes, I64, 0),
};
static const field figure_fields[] = {
    FIELD(rec_figure, device, TEXT, 0), FIELD(rec_figure, what, TEXT, 1),   FIELD(rec_figure, params, TEXT, 0),
    FIELD(rec_figure, unit, TEXT, 0),   FIELD(rec_figure, low, NUM, 0),     FIELD(rec_figure, likely, NUM, 0),
    FIELD(rec_figure, high, NUM, 0),    FIELD(rec_figure, spread, NUM, 0),  FIELD(rec_figure, n, INT, 0),
    FIELD(rec_figure, tag, TAG, 0),     FIELD(rec_figure, source, TEXT, 0),
};
static const field kernel_fields[] = {
    FIELD(rec_kernel_point, device, TEXT, 1),    FIELD(rec_kernel_point, kernel, TEXT, 1),
    FIELD(rec_kernel_point, candidate, TEXT, 0), FIELD(rec_kernel_point, format, TEXT, 0),
    FIELD(rec_kernel_point, act, TEXT, 0),       FIELD(rec_kernel_point, n_out, INT, 0),
    FIELD(rec_kernel_point, n_in, INT, 0),       FIELD(rec_kernel_point, tokens, INT, 0),
    FIELD(rec_kernel_point, context, INT, 0),    FIELD(rec_kernel_point, threads, INT, 0),
    FIELD(rec_kernel_point, load, TEXT, 0),      FIELD(rec_kernel_point, ns_low, NUM, 0),
    FIELD(rec_kernel_point, ns, NUM, 0),         FIELD(rec_kernel_point, ns_high, NUM, 0),
    FIELD(rec_kernel_point, spread, NUM, 0),     FIELD(rec_kernel_point, bytes, I64, 0),
    FIELD(rec_kernel_point, n, INT, 0),          FIELD(rec_kernel_point, tag, TAG, 0),
};
static const field link_fields[] = {
    FIELD(rec_link_point, src, TEXT, 1),
    FIELD(rec_link_point, dst, TEXT, 1),
    FIELD(rec_link_point, pinned, BOOLEAN, 0),
    FIELD(rec_link_point, load, TEXT, 0),
    FIELD(rec_link_point, bytes, I64, 0),
    FIELD(rec_link_point, ns_low, NUM, 0),
    FIELD(rec_link_point, ns, NUM, 0),
    FIELD(rec_link_point, ns_high, NUM, 0),
    FIELD(rec_link_point, n, INT, 0),
    FIELD(rec_link_point, tag, TAG, 0),
    LATER_FIELD(rec_link_point, measurement, I64, 0),
};
#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

typedef struct {
  const char *key;
  const field *f;
  int n_fields;
  size_t rec_bytes;
  int most;
  bool (*in_order)(const void *rec);
} rows;

static bool rises(double low, double likely, double high) {
  return low <= likely && likely <= high;
}

static bool figure_in_order(const void *rec) {
  const rec_figure *f = rec;
  return rises(f->low, f->likely, f->high);
}

static bool kernel_in_order(const void *rec) {
  const rec_kernel_point *k = rec;
  return rises(k->ns_low, k->ns, k->ns_high);
}

static bool link_in_order(const void *rec) {
  const rec_link_point *l = rec;
  return rises(l->ns_low, l->ns, l->ns_high);
}

static const rows devices = {"devices", device_fields, COUNT(device_fields), sizeof(rec_device), MAX_DEVICES, NULL};
static const rows figures = {"figures",          figure_fields,        COUNT(figure_fields),
                             sizeof(rec_figure), EXCHANGE_MAX_FIGURES, figure_in_order};
static const rows kernels = {"kernels",      kernel_fields, COUNT(kernel_fields), sizeof(rec_kernel_point), EXCHANGE_MAX_KERNELS,
                             kernel_in_order};
static const rows links = {"links", link_fields, COUNT(link_fields), sizeof(rec_link_point), EXCHANGE_MAX_LINKS, link_in_order};

/* ---- writing ---- */

static void add_row(json *list, const rows *r, const char *rec) {
  json *o = json_add_object(list, NULL);
  for (int i = 0; i < r->n_fields; i++) {
    const field *f = &r->f[i];
    const void *at = rec + f->offset;
    switch (f->kind) {
      case TEXT: json_add_str(o, f->name, at); break;
      case INT: json_add_int(o, f->name, *(const int *)at); break;
      case I64: json_add_int(o, f->name, *(const int64_t *)at); break;
      case NUM: json_add_num(o, f->name, *(const double *)at); break;
      case BOOLEAN: json_add_bool(o, f->name, *(const bool *)at); break;
      case TAG: json_add_str(o, f->name, db_tag_name(*(const db_tag *)at)); break;
    }
  }
}

static void add_rows(json *parent, const char *key, const rows *r, const void *list, int n) {
  json *a = json_add_array(parent, key);
  for (int i = 0; i < n; i++) add_row(a, r, (const char *)list + (size_t)i * r->rec_bytes);
}

void exchange_add_figures(json *parent, const char *key, const rec_figure *f, int n) {
  add_rows(parent, key, &figures, f, n);
}

void exchange_add_kernels(json *parent, const char *key, const rec_kernel_point *k, int n) {
  add_rows(parent, key, &kernels, k, n);
}

hf_status exchange_write(const prof_view *v, json **out) {
  json *facts = NULL, *root = json_new_object();
  json_add_int(root, "heteroflow_profile", VERSION);
  json_add_str(root, "name", v->machine.name);
  json_add_int(root, "created_s", v->machine.created_ns / 1000000000);
  hf_status st = json_parse(v->machine.facts_json, strlen(v->machine.facts_json), "facts of the machine", &facts);
  if (st != HF_OK) {
    json_free(root);
    return st;
  }
  json_add_copy(root, "facts", facts);
  json_free(facts);
  add_rows(root, devices.key, &devices, v->device, v->n_device);
  add_rows(root, figures.key, &figures, v->figure, v->n_figure);
  add_rows(root, kernels.key, &kernels, v->point, v->n_point);
  add_rows(root, links.key, &links, v->link, v->n_link);
  *out = root;
  return HF_OK;
}

/* ---- reading ---- */

/* Control characters, C1 ones too: what a terminal would obey. The text is UTF-8 (base/json.h). */
static bool obeyed(const char *s) {
  for (const unsigned char *p = (const unsigned char *)s; *p; p++)
    if (*p < 0x20 || *p == 0x7f || (*p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)) return true;
  return false;
}

static hf_status get_text(const json *o, const char *where, const field *f, char *at) {
  const char *s = NULL;
  HF_TRY(json_get_str(o, where, f->name, &s));
  size_t n = strlen(s);
  if (n < (size_t)f->least || n >= f->bytes)
    return hf_fail(HF_INPUT, "%s: field %s: %d to %zu bytes are needed", where, f->name, f->least, f->bytes - 1);
  if (obeyed(s)) return hf_fail(HF_INPUT, "%s: field %s: control characters are not taken", where, f->name);
  memcpy(at, s, n + 1);
  return HF_OK;
}

static hf_status get_tag(const json *o, const char *where, const char *name, db_tag *at) {
  const char *s = NULL;
  HF_TRY(json_get_str(o, where, name, &s));
  for (int t = 0; t < TAG_N; t++)
    if (strcmp(db_tag_name((db_tag)t), s) == 0) {
      *at = (db_tag)t;
      return HF_OK;
    }
  return hf_fail(HF_INPUT, "%s: field %s: '%.20s' is none of measured, scaled, spec, assumed", where, name, s);
}

static hf_status get_row(const json *o, const char *where, const rows *r, char *rec) {
  if (json_type(o) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: an object is needed", where);
  for (int i = 0; i < r->n_fields; i++) {
    const field *f = &r->f[i];
    void *at = rec + f->offset;
    int64_t v = 0;
    if (f->may_lack && !json_get(o, f->name)) continue;
    switch (f->kind) {
      case TEXT: HF_TRY(get_text(o, where, f, at)); break;
      case INT:
        HF_TRY(json_get_int(o, where, f->name, f->least, MOST_COUNT, &v));
        *(int *)at = (int)v;
        break;
      case I64: HF_TRY(json_get_int(o, where, f->name, f->least, MOST_BYTES, (int64_t *)at)); break;
      case NUM: HF_TRY(json_get_num(o, where, f->name, 0, MOST_VALUE, (double *)at)); break;
      case BOOLEAN: HF_TRY(json_get_bool(o, where, f->name, (bool *)at)); break;
      case TAG: HF_TRY(get_tag(o, where, f->name, (db_tag *)at)); break;
    }
  }
  if (r->in_order && !r->in_order(rec)) return hf_fail(HF_INPUT, "%s: low, likely and high must rise", where);
  return HF_OK;
}

/* Appended to the list; on failure *list stays the caller's to free. */
static hf_status get_rows(const json *parent, const char *where, const char *key, const rows *r, void *list_ptr, int *n) {
  const json *a = json_get(parent, key);
  char **list = list_ptr, at[512];
  if (!a || json_type(a) != JSON_ARRAY) return hf_fail(HF_INPUT, "%s: field %s: an array is needed", where, key);
  int more = json_len(a);
  if (more > r->most - *n) return hf_fail(HF_INPUT, "%s: field %s: more than %d rows", where, key, r->most);
  if (more == 0) return HF_OK;
  HF_TRY(hf_realloc(list, (size_t)(*n + more), r->rec_bytes, "rows of a profile"));
  memset(*list + (size_t)*n * r->rec_bytes, 0, (size_t)more * r->rec_bytes);
  int i = 0;
  for (const json *o = json_first(a); o; o = json_next(o), i++) {
    snprintf(at, sizeof at, "%s: %s[%d]", where, key, i);
    HF_TRY(get_row(o, at, r, *list + (size_t)(*n + i) * r->rec_bytes));
  }
  *n += more;
  return HF_OK;
}

hf_status exchange_get_figures(const json *parent, const char *where, const char *key, rec_figure **list, int *n) {
  return get_rows(parent, where, key, &figures, list, n);
}

hf_status exchange_get_kernels(const json *parent, const char *where, const char *key, rec_kernel_point **list, int *n) {
  return get_rows(parent, where, key, &kernels, list, n);
}

static hf_status check_devices(const prof_view *v, const char *where) {
  int cpus = 0;
  for (int i = 0; i < v->n_device; i++) {
    const rec_device *d = &v->device[i];
    bool cpu = strcmp(d->kind, "cpu") == 0;
    cpus += cpu;
    if (!cpu && strcmp(d->kind, "gpu") != 0)
      return hf_fail(HF_INPUT, "%s: devices[%d]: field kind: '%s' is neither cpu nor gpu", where, i, d->kind);
    for (int k = 0; k < i; k++)
      if (strcmp(v->device[k].device, d->device) == 0)
        return hf_fail(HF_INPUT, "%s: devices[%d]: '%s' is there twice", where, i, d->device);
  }
  return cpus > 0 ? HF_OK : hf_fail(HF_INPUT, "%s: field devices: a device of kind cpu is needed", where);
}

static hf_status check_texts(const json *v, const char *where, int depth) {
  if (depth > MAX_DEPTH) return hf_fail(HF_INPUT, "%s: field facts: nested deeper than %d", where, MAX_DEPTH);
  for (const json *m = json_first(v); m; m = json_next(m)) {
    const char *s = json_string(m);
    if ((s && obeyed(s)) || obeyed(json_key(m)))
      return hf_fail(HF_INPUT, "%s: field facts: control characters are not taken", where);
    HF_TRY(check_texts(m, where, depth + 1));
  }
  return HF_OK;
}

static hf_status put_facts(const json *facts, const char *where, rec_machine *m) {
  char *text = NULL;
  HF_TRY(json_print(facts, false, &text));
  size_t n = strlen(text);
  if (n < sizeof m->facts_json) memcpy(m->facts_json, text, n + 1);
  free(text);
  if (n < sizeof m->facts_json) return HF_OK;
  return hf_fail(HF_INPUT, "%s: field facts: %zu bytes are more than %zu", where, n, sizeof m->facts_json - 1);
}

static hf_status get_head(const json *doc, const char *where, prof_view *v) {
  static const field name = FIELD(rec_machine, name, TEXT, 1);
  int64_t version = 0, created_s = 0;
  if (json_type(doc) != JSON_OBJECT || !json_get(doc, "heteroflow_profile"))
    return hf_fail(HF_INPUT, "%s: no profile: field heteroflow_profile is missing; hf-profile export writes one", where);
  HF_TRY(json_get_int(doc, where, "heteroflow_profile", VERSION, VERSION, &version));
  HF_TRY(get_text(doc, where, &name, v->machine.name));
  HF_TRY(json_get_int(doc, where, "created_s", 0, INT64_C(9000000000), &created_s));
  v->machine.created_ns = created_s * 1000000000;
  const json *facts = json_get(doc, "facts");
  if (!facts || json_type(facts) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: field facts: an object is needed", where);
  HF_TRY(check_texts(facts, where, 0));
  return put_facts(facts, where, &v->machine);
}

hf_status exchange_read(const json *doc, const char *where, prof_view *out) {
  prof_view v = {.machine = {.kind = MACHINE_MEASURED}};
  hf_status st;
  HF_GO(fail, get_head(doc, where, &v));
  HF_GO(fail, get_rows(doc, where, devices.key, &devices, &v.device, &v.n_device));
  HF_GO(fail, get_rows(doc, where, figures.key, &figures, &v.figure, &v.n_figure));
  HF_GO(fail, get_rows(doc, where, kernels.key, &kernels, &v.point, &v.n_point));
  HF_GO(fail, get_rows(doc, where, links.key, &links, &v.link, &v.n_link));
  HF_GO(fail, check_devices(&v, where));
  *out = v;
  return HF_OK;
fail:
  prof_view_free(&v);
  return st;
}

/* ---- storing ---- */

static hf_status check_name(db *d, const char *name) {
  rec_machine other;
  if (name[0] == '\0' || strlen(name) >= sizeof other.name || obeyed(name))
    return hf_fail(HF_INPUT, "name of the machine: 1 to %zu bytes without control characters are needed; say one with --name",
                   sizeof other.name - 1);
  if (strspn(name, "0123456789") == strlen(name))
    return hf_fail(HF_INPUT, "name of the machine: '%s' reads as the number of one; say another with --name", name);
  hf_status st = db_machine_find(d, name, &other);
  if (st == HF_NOT_FOUND) {
    hf_clear_error();
    return HF_OK;
  }
  HF_TRY(st);
  return hf_fail(HF_INPUT, "the database has a machine '%s' (number %lld); say another name with --name", name,
                 (long long)other.id);
}

static hf_status mark_imported(rec_machine *m, const char *file) {
  json *facts = NULL, *marked = json_new_object();
  hf_status st = json_parse(m->facts_json, strlen(m->facts_json), "facts", &facts);
  if (st == HF_OK) {
    const char *base = strrchr(file, '/');
    char name[256];
    snprintf(name, sizeof name, "%s", base ? base + 1 : file);
    hf_printable(name);
    json_add_str(marked, "imported", name);
    for (const json *f = json_first(facts); f; f = json_next(f))
      if (strcmp(json_key(f), "imported") != 0) json_add_copy(marked, json_key(f), f);
    st = put_facts(marked, "the profile", m);
  }
  json_free(facts);
  json_free(marked);
  return st;
}

static hf_status put_all(db *d, prof_view *v) {
  v->machine.id = 0; /* new rows, wherever v comes from */
  HF_TRY(db_machine_put(d, &v->machine));
  int64_t id = v->machine.id;
  for (int i = 0; i < v->n_device; i++) {
    v->device[i].machine_id = id;
    HF_TRY(db_device_put(d, &v->device[i]));
  }
  for (int i = 0; i < v->n_figure; i++) {
    v->figure[i].id = 0;
    v->figure[i].machine_id = id;
    HF_TRY(db_figure_put(d, &v->figure[i]));
  }
  for (int i = 0; i < v->n_point; i++) {
    v->point[i].machine_id = id;
    HF_TRY(db_kernel_put(d, &v->point[i]));
  }
  for (int i = 0; i < v->n_link; i++) {
    v->link[i].machine_id = id;
    HF_TRY(db_link_put(d, &v->link[i]));
  }
  return HF_OK;
}

hf_status exchange_store(db *d, prof_view *v, const char *name, const char *file) {
  HF_TRY(check_name(d, name));
  snprintf(v->machine.name, sizeof v->machine.name, "%s", name);
  HF_TRY(mark_imported(&v->machine, file));
  HF_TRY(db_begin(d));
  hf_status st = put_all(d, v);
  if (st == HF_OK) st = db_commit(d);
  if (st != HF_OK) db_rollback(d);
  return st;
}
