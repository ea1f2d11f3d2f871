/* db_machine.c: machines, their devices, figures and curves. */
#include <stdlib.h>
#include <string.h>

#include "db/sql.h"

static const db_col machine_cols[] = {
    DB_COL(rec_machine, id, DB_REF),         DB_COL(rec_machine, name, DB_TEXT),       DB_COL(rec_machine, kind, DB_KIND),
    DB_COL(rec_machine, created_ns, DB_I64), DB_COL(rec_machine, facts_json, DB_TEXT),
};
static const db_table machine_table = DB_TABLE("machine", machine_cols, rec_machine);

static const db_col device_cols[] = {
    DB_COL(rec_device, machine_id, DB_I64), DB_COL(rec_device, device, DB_TEXT), DB_COL(rec_device, kind, DB_TEXT),
    DB_COL(rec_device, name, DB_TEXT),      DB_COL(rec_device, cores, DB_INT),   DB_COL(rec_device, mem_bytes, DB_I64),
};
static const db_table device_table = DB_TABLE("device", device_cols, rec_device);

static const db_col figure_cols[] = {
    DB_COL(rec_figure, id, DB_REF),      DB_COL(rec_figure, machine_id, DB_I64), DB_COL(rec_figure, device, DB_TEXT),
    DB_COL(rec_figure, what, DB_TEXT),   DB_COL(rec_figure, params, DB_TEXT),    DB_COL(rec_figure, unit, DB_TEXT),
    DB_COL(rec_figure, low, DB_NUM),     DB_COL(rec_figure, likely, DB_NUM),     DB_COL(rec_figure, high, DB_NUM),
    DB_COL(rec_figure, spread, DB_NUM),  DB_COL(rec_figure, n, DB_INT),          DB_COL(rec_figure, tag, DB_TAG),
    DB_COL(rec_figure, source, DB_TEXT),
};
static const db_table figure_table = DB_TABLE("figure", figure_cols, rec_figure);

static const db_col kernel_cols[] = {
    DB_COL(rec_kernel_point, machine_id, DB_I64), DB_COL(rec_kernel_point, device, DB_TEXT),
    DB_COL(rec_kernel_point, kernel, DB_TEXT),    DB_COL(rec_kernel_point, candidate, DB_TEXT),
    DB_COL(rec_kernel_point, format, DB_TEXT),    DB_COL(rec_kernel_point, act, DB_TEXT),
    DB_COL(rec_kernel_point, n_out, DB_INT),      DB_COL(rec_kernel_point, n_in, DB_INT),
    DB_COL(rec_kernel_point, tokens, DB_INT),     DB_COL(rec_kernel_point, context, DB_INT),
    DB_COL(rec_kernel_point, threads, DB_INT),    DB_COL(rec_kernel_point, load, DB_TEXT),
    DB_COL(rec_kernel_point, ns_low, DB_NUM),     DB_COL(rec_kernel_point, ns, DB_NUM),
    DB_COL(rec_kernel_point, ns_high, DB_NUM),    DB_COL(rec_kernel_point, spread, DB_NUM),
    DB_COL(rec_kernel_point, bytes, DB_I64),      DB_COL(rec_kernel_point, n, DB_INT),
    DB_COL(rec_kernel_point, tag, DB_TAG),
};
static const db_table kernel_table = DB_TABLE("kernel_curve", kernel_cols, rec_kernel_point);

static const db_col link_cols[] = {
    DB_COL(rec_link_point, machine_id, DB_I64), DB_COL(rec_link_point, src, DB_TEXT),
    DB_COL(rec_link_point, dst, DB_TEXT),       DB_COL(rec_link_point, pinned, DB_BOOL),
    DB_COL(rec_link_point, load, DB_TEXT),      DB_COL(rec_link_point, bytes, DB_I64),
    DB_COL(rec_link_point, ns_low, DB_NUM),     DB_COL(rec_link_point, ns, DB_NUM),
    DB_COL(rec_link_point, ns_high, DB_NUM),    DB_COL(rec_link_point, n, DB_INT),
    DB_COL(rec_link_point, tag, DB_TAG),        DB_COL(rec_link_point, measurement, DB_I64),
};
static const db_table link_table = DB_TABLE("link_curve", link_cols, rec_link_point);

static const char plain[] = "";
static const char by_id[] = "WHERE id = ?1";
static const char newest_first[] = "ORDER BY id DESC";
static const char of_machine_by_device[] = "WHERE machine_id = ?1 ORDER BY device";
static const char of_machine_by_id[] = "WHERE machine_id = ?1 ORDER BY id";
static const char of_machine_by_row[] = "WHERE machine_id = ?1 ORDER BY rowid";

hf_status db_machine_put(db *d, rec_machine *m) {
  return hf_note(db_put(d, &machine_table, m), "machine %.127s", m->name);
}

/* The row id of the newest machine a query with one text parameter finds; 0 when there is none. */
static hf_status find_id(db *d, const char *sql, const char *text, int64_t *id) {
  sqlite3_stmt *s;
  bool found;
  HF_TRY(db_statement(d, sql, &s));
  int rc = sqlite3_bind_text(s, 1, text, -1, SQLITE_STATIC);
  if (rc != SQLITE_OK) return db_fail(d, rc, "machine");
  HF_TRY(db_row(d, s, "machine", &found));
  *id = found ? sqlite3_column_int64(s, 0) : 0;
  sqlite3_reset(s);
  return HF_OK;
}

/* A profile of one group of figures (hf-profile --only) must not hide the complete one before it. */
#define COMPLETE_FIRST "kind = 'measured' AND NOT EXISTS (SELECT 1 FROM kernel_curve AS k WHERE k.machine_id = m.id), "

/* A colleague's machine (hf-profile import): nobody means it who names none. Facts may be any text. */
#define IMPORTED "CASE WHEN json_valid(facts_json) THEN json_extract(facts_json, '$.imported') IS NOT NULL ELSE 0 END"

hf_status db_machine_find(db *d, const char *name_or_id, rec_machine *out) {
  static const char by_name[] = "SELECT id FROM machine AS m WHERE name = ?1 ORDER BY " COMPLETE_FIRST "id DESC LIMIT 1";
  int64_t id = 0;
  HF_TRY(find_id(d, by_name, name_or_id, &id));
  if (id == 0 && strlen(name_or_id) < 19 && *name_or_id && strspn(name_or_id, "0123456789") == strlen(name_or_id)) {
    id = strtoll(name_or_id, NULL, 10);
  }
  if (id != 0) {
    hf_status st = db_get(d, &machine_table, by_id, id, out);
    if (st != HF_NOT_FOUND) return st;
  }
  return hf_fail(HF_NOT_FOUND, "%s: no machine '%.100s'; hf-profile measures this one, the catalog knows others", d->path,
                 name_or_id);
}

hf_status db_machine_get(db *d, int64_t id, rec_machine *out) {
  return db_get(d, &machine_table, by_id, id, out);
}

hf_status db_machine_latest(db *d, machine_kind kind, rec_machine *out) {
  static const char *const latest[] = {
      "SELECT id FROM machine AS m WHERE kind = 'measured' AND ?1 = '' AND NOT " IMPORTED " ORDER BY " COMPLETE_FIRST
      "id DESC LIMIT 1",
      "SELECT id FROM machine WHERE kind = 'catalog' AND ?1 = '' ORDER BY id DESC LIMIT 1",
      "SELECT id FROM machine WHERE kind = 'whatif' AND ?1 = '' ORDER BY id DESC LIMIT 1",
  };
  int64_t id = 0;
  if ((unsigned)kind > MACHINE_WHATIF) return hf_fail(HF_INPUT, "%s: no such kind of machine: %d", d->path, (int)kind);
  HF_TRY(find_id(d, latest[kind], "", &id));
  if (id != 0) return db_get(d, &machine_table, by_id, id, out);
  if (kind != MACHINE_MEASURED) return hf_fail(HF_NOT_FOUND, "%s: no machine of that kind; name one from the catalog", d->path);
  return hf_fail(HF_NOT_FOUND, "%s: no measured machine; " DB_BEGIN, d->path);
}

hf_status db_device_put(db *d, const rec_device *r) {
  return db_insert(d, &device_table, plain, r);
}

hf_status db_figure_put(db *d, rec_figure *r) {
  return hf_note(db_put(d, &figure_table, r), "figure %.47s", r->what);
}

hf_status db_kernel_put(db *d, const rec_kernel_point *r) {
  return db_insert(d, &kernel_table, plain, r);
}

hf_status db_link_put(db *d, const rec_link_point *r) {
  return db_insert(d, &link_table, plain, r);
}

hf_status db_machine_list(db *d, rec_machine **out, int *n) {
  return db_list(d, &machine_table, newest_first, 0, out, n);
}

hf_status db_device_list(db *d, int64_t machine_id, rec_device **out, int *n) {
  return db_list(d, &device_table, of_machine_by_device, machine_id, out, n);
}

hf_status db_figure_list(db *d, int64_t machine_id, rec_figure **out, int *n) {
  return db_list(d, &figure_table, of_machine_by_id, machine_id, out, n);
}

hf_status db_kernel_list(db *d, int64_t machine_id, rec_kernel_point **out, int *n) {
  return db_list(d, &kernel_table, of_machine_by_row, machine_id, out, n);
}

hf_status db_link_list(db *d, int64_t machine_id, rec_link_point **out, int *n) {
  return db_list(d, &link_table, of_machine_by_row, machine_id, out, n);
}
