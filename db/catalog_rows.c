/* catalog_rows.c: rows of a catalog machine, collected in memory first: nothing is written when something in them is wrong. */
#include "db/catalog_rows.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "db/catalog.h"
#include "db/sql.h"

/* Part of the hash: raise it when the same entries give other rows, so that a database made before gets new ones. */
static const char rows_version[] = "rows 2";

static void mix(rows *r, const char *text) {
  for (const unsigned char *p = (const unsigned char *)text; *p; p++) r->hash = (r->hash ^ *p) * 1099511628211u; /* FNV-1a */
}

hf_status rows_init(rows *r) {
  *r = (rows){.hash = 14695981039346656037u};
  mix(r, rows_version);
  r->facts = json_new_object();
  if (r->facts == NULL) return hf_fail(HF_MACHINE, "out of memory: facts of a machine");
  return HF_OK;
}

void rows_free(rows *r) {
  free(r->dev);
  free(r->fig);
  free(r->link);
  json_free(r->facts);
  *r = (rows){0};
}

bool rows_text(char *out, size_t n, const char *s) {
  size_t length = strlen(s);
  if (length >= n) return false;
  memcpy(out, s, length + 1);
  return true;
}

const rec_device *rows_find_device(const rows *r, const char *device) {
  for (int i = 0; i < r->n_dev; i++) {
    if (strcmp(r->dev[i].device, device) == 0) return &r->dev[i];
  }
  return NULL;
}

const rec_figure *rows_find_figure(const rows *r, const char *device, const char *what) {
  for (int i = 0; i < r->n_fig; i++) {
    if (strcmp(r->fig[i].what, what) == 0 && strcmp(r->fig[i].device, device) == 0) return &r->fig[i];
  }
  return NULL;
}

bool rows_fact(const rows *r, const char *device, const char *what, fact *out) {
  const rec_figure *f = rows_find_figure(r, device, what);
  if (f != NULL) *out = (fact){f->low, f->likely, f->high, f->tag};
  return f != NULL;
}

hf_status rows_device(rows *r, const char *where, const char *device, const char *kind, const char *name, int cores,
                      int64_t mem_bytes) {
  rec_device d = {.cores = cores, .mem_bytes = mem_bytes};
  if (*device == 0 || !rows_text(d.device, sizeof d.device, device))
    return hf_fail(HF_INPUT, "%s: field device: '%.40s' is no device name", where, device);
  if ((strcmp(kind, "cpu") != 0 && strcmp(kind, "gpu") != 0) || !rows_text(d.kind, sizeof d.kind, kind)) {
    return hf_fail(HF_INPUT, "%s: field kind: '%.40s' is neither cpu nor gpu", where, kind);
  }
  if (!rows_text(d.name, sizeof d.name, name)) {
    return hf_fail(HF_INPUT, "%s: field name: longer than %zu bytes", where, sizeof d.name - 1);
  }
  for (int i = 0; i < r->n_dev; i++) {
    if (strcmp(r->dev[i].device, device) == 0) {
      r->dev[i] = d;
      return HF_OK;
    }
  }
  if (r->n_dev == ROWS_MAX_DEVICES) return hf_fail(HF_INPUT, "%s: more than %d devices", where, ROWS_MAX_DEVICES);
  HF_TRY(hf_realloc(&r->dev, (size_t)r->n_dev + 1, sizeof *r->dev, "devices"));
  r->dev[r->n_dev++] = d;
  return HF_OK;
}

hf_status rows_figure(rows *r, const char *device, const char *what, const char *unit, fact f, const char *source_fmt, ...) {
  rec_figure row = {.low = f.low, .likely = f.likely, .high = f.high, .tag = f.tag};
  if (*what == 0 || !rows_text(row.device, sizeof row.device, device) || !rows_text(row.what, sizeof row.what, what) ||
      !rows_text(row.unit, sizeof row.unit, unit)) {
    return hf_fail(HF_INPUT, "figure '%.60s' of device '%.20s' in '%.30s': a name is empty or too long", what, device, unit);
  }
  va_list args;
  va_start(args, source_fmt);
  vsnprintf(row.source, sizeof row.source, source_fmt, args); /* a longer source is cut; the catalog file has all of it */
  va_end(args);
  for (int i = 0; i < r->n_fig; i++) {
    if (strcmp(r->fig[i].what, what) == 0 && strcmp(r->fig[i].device, device) == 0) {
      r->fig[i] = row;
      return HF_OK;
    }
  }
  if (r->n_fig == ROWS_MAX_FIGURES) return hf_fail(HF_INPUT, "figure '%s': more than %d figures", what, ROWS_MAX_FIGURES);
  HF_TRY(hf_realloc(&r->fig, (size_t)r->n_fig + 1, sizeof *r->fig, "figures"));
  r->fig[r->n_fig++] = row;
  return HF_OK;
}

hf_status rows_link(rows *r, const rec_link_point *p) {
  if (r->n_link == ROWS_MAX_LINKS) return hf_fail(HF_INPUT, "more than %d link points", ROWS_MAX_LINKS);
  HF_TRY(hf_realloc(&r->link, (size_t)r->n_link + 1, sizeof *r->link, "link points"));
  r->link[r->n_link++] = *p;
  return HF_OK;
}

hf_status rows_hash(rows *r, const json *doc) {
  char *text;
  HF_TRY(json_print(doc, false, &text));
  mix(r, text);
  free(text);
  return HF_OK;
}

void rows_hash_entry(rows *r, uint64_t hash) {
  char text[20];
  snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
  mix(r, text);
}

hf_status rows_close(rows *r) {
  char hash[20], *text;
  snprintf(hash, sizeof hash, "%016llx", (unsigned long long)r->hash);
  json_add_str(r->facts, "inputs", hash);
  HF_TRY(json_print(r->facts, false, &text));
  bool ok = rows_text(r->m.facts_json, sizeof r->m.facts_json, text);
  free(text);
  if (ok) return HF_OK;
  return hf_fail(HF_INPUT, "machine %.100s: titles, names and assumptions together exceed %zu bytes; shorten them", r->m.name,
                 sizeof r->m.facts_json - 1);
}

static hf_status find_same(const catalog_machine *m, db *d, rec_machine *out, bool *found) {
  rec_machine *list;
  int n;
  *found = false;
  HF_TRY(db_machine_list(d, &list, &n));
  for (int i = 0; i < n && !*found; i++) {
    *found = list[i].kind == m->machine.kind && strcmp(list[i].name, m->machine.name) == 0 &&
             strcmp(list[i].facts_json, m->machine.facts_json) == 0;
    if (*found) *out = list[i];
  }
  free(list);
  return HF_OK;
}

static hf_status insert_all(const catalog_machine *m, db *d, rec_machine *out) {
  *out = m->machine;
  out->created_ns = hf_wall_ns();
  HF_TRY(db_machine_put(d, out));
  for (int i = 0; i < m->n_device; i++) {
    rec_device row = m->device[i];
    row.machine_id = out->id;
    HF_TRY(db_device_put(d, &row));
  }
  for (int i = 0; i < m->n_figure; i++) {
    rec_figure row = m->figure[i];
    row.machine_id = out->id;
    HF_TRY(db_figure_put(d, &row));
  }
  for (int i = 0; i < m->n_link; i++) {
    rec_link_point row = m->link[i];
    row.machine_id = out->id;
    HF_TRY(db_link_put(d, &row));
  }
  return HF_OK;
}

hf_status catalog_machine_store(db *d, const catalog_machine *m, rec_machine *out) {
  bool own, found;
  rec_machine stored;
  /* Looking and inserting in one transaction: two programs that import the same machine at once make it once. */
  HF_TRY(db_enter(d, &own));
  hf_status st = find_same(m, d, &stored, &found);
  if (st == HF_OK && !found) st = insert_all(m, d, &stored);
  HF_TRY(db_leave(d, own, st));
  *out = stored;
  return HF_OK;
}

void catalog_machine_free(catalog_machine *m) {
  free(m->device);
  free(m->figure);
  free(m->link);
  *m = (catalog_machine){0};
}
