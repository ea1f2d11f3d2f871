#include "profiler/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "profiler/exchange.h"

enum { VERSION = 1, MAX_UNITS = 4000 };

struct journal {
  int fd;
  bool broken;
  char path[4200];
  journal_unit *unit;
  int n_units;
};

/* ---- reading ---- */

void journal_units_free(journal_unit *u, int n) {
  for (int i = 0; i < n; i++) {
    free(u[i].figure);
    free(u[i].point);
  }
  free(u);
}

static hf_status read_head(const json *o, const char *key, int64_t now_s) {
  const char *own = NULL;
  int64_t version, created_s;
  HF_TRY(json_get_int(o, "journal", "heteroflow_journal", VERSION, VERSION, &version));
  HF_TRY(json_get_str(o, "journal", "key", &own));
  HF_TRY(json_get_int(o, "journal", "created_s", 0, INT64_C(9000000000), &created_s));
  if (strcmp(own, key) != 0) return hf_fail(HF_INPUT, "journal: of other options or another machine");
  if (created_s > now_s || now_s - created_s > JOURNAL_MAX_AGE_S) return hf_fail(HF_INPUT, "journal: older than a day");
  return HF_OK;
}

static hf_status read_unit(const json *o, journal_unit *u) {
  const char *name = NULL;
  HF_TRY(json_get_str(o, "journal", "unit", &name));
  if (strlen(name) >= sizeof u->name) return hf_fail(HF_INPUT, "journal: field unit is too long");
  snprintf(u->name, sizeof u->name, "%s", name);
  HF_TRY(exchange_get_figures(o, "journal", "figures", &u->figure, &u->n_figure));
  return exchange_get_kernels(o, "journal", "kernels", &u->point, &u->n_point);
}

/* One line; the first is the head. A unit that cannot be read is HF_INPUT and leaves *u as it was. */
static hf_status read_line(const char *line, size_t n, const char *key, int64_t now_s, bool head, journal_unit *u) {
  json *o = NULL;
  HF_TRY(json_parse(line, n, "journal", &o));
  hf_status st;
  if (head) {
    st = read_head(o, key, now_s);
  } else {
    journal_unit got = {.n_figure = 0};
    st = read_unit(o, &got);
    if (st == HF_OK) {
      *u = got;
    } else {
      free(got.figure);
      free(got.point);
    }
  }
  json_free(o);
  return st;
}

hf_status journal_parse(const char *text, size_t n, const char *key, int64_t now_s, journal_unit **out, int *n_units,
                        size_t *good) {
  journal_unit *list = NULL;
  int count = 0, cap = 0;
  hf_status st = HF_OK;
  size_t at = 0;
  for (bool head = true; at < n; head = false) {
    const char *end = memchr(text + at, '\n', n - at);
    if (!end || count == MAX_UNITS) break; /* cut short */
    if (!head && count == cap) {
      cap = cap ? 2 * cap : 64;
      HF_GO(fail, hf_realloc(&list, (size_t)cap, sizeof *list, "units of a journal"));
    }
    st = read_line(text + at, (size_t)(end - text) - at, key, now_s, head, head ? NULL : &list[count]);
    if (st == HF_MACHINE || (head && st != HF_OK)) goto fail;
    if (st != HF_OK) break;
    count += !head;
    at = (size_t)(end - text) + 1;
  }
  hf_clear_error();
  if (at == 0) {
    st = hf_fail(HF_INPUT, "journal: no first line");
    goto fail;
  }
  *out = list;
  *n_units = count;
  *good = at;
  return HF_OK;
fail:
  journal_units_free(list, count);
  return st;
}

/* ---- writing ---- */

static bool put_line(journal *j, json *o) {
  char *text = NULL;
  bool ok = json_print(o, false, &text) == HF_OK;
  json_free(o);
  if (!ok) hf_clear_error();
  size_t n = ok ? strlen(text) : 0;
  if (ok) text[n++] = '\n'; /* in place of the NUL: one write, so that a line is there or is not */
  for (size_t at = 0; ok && at < n;) {
    ssize_t put = write(j->fd, text + at, n - at);
    if (put < 0 && errno == EINTR) continue;
    ok = put > 0;
    at += ok ? (size_t)put : 0;
  }
  free(text);
  return ok;
}

static bool put_head(journal *j, const char *key) {
  json *o = json_new_object();
  json_add_int(o, "heteroflow_journal", VERSION);
  json_add_int(o, "created_s", hf_wall_ns() / 1000000000);
  json_add_str(o, "key", key);
  return put_line(j, o);
}

static void give_up(journal *j) {
  j->broken = true;
  hf_log(HF_LOG_WARN, "%s: cannot be written (%s): an interruption from here on costs what has been measured", j->path,
         strerror(errno));
}

void journal_put(journal *j, const char *unit, const rec_figure *f, int n_figure, const rec_kernel_point *k, int n_point) {
  if (!j || j->broken) return;
  json *o = json_new_object();
  json_add_str(o, "unit", unit);
  exchange_add_figures(o, "figures", f, n_figure);
  exchange_add_kernels(o, "kernels", k, n_point);
  if (!put_line(j, o)) give_up(j);
}

/* ---- opening ---- */

static hf_status read_old(journal *j, const char *key, bool restart, size_t *good) {
  char *text = NULL;
  size_t n = 0;
  *good = 0;
  hf_status st = hf_read_file(j->path, EXCHANGE_MAX_BYTES, &text, &n);
  if (st == HF_OK && n > 0 && !restart) st = journal_parse(text, n, key, hf_wall_ns() / 1000000000, &j->unit, &j->n_units, good);
  free(text);
  if (st == HF_OK || st == HF_MACHINE) return st; /* without memory nothing is thrown away */
  hf_log(HF_LOG_DEBUG, "%s: %s; begun anew", j->path, hf_error_line());
  hf_clear_error();
  return HF_OK;
}

hf_status journal_open(const char *db_path, const char *key, bool restart, journal **out, int *units) {
  journal *j = NULL;
  size_t good = 0;
  *out = NULL;
  *units = 0;
  HF_TRY(hf_alloc(&j, 1, sizeof *j, "journal"));
  int len = snprintf(j->path, sizeof j->path, "%s.profile", db_path);
  j->fd = len > 0 && (size_t)len < sizeof j->path ? open(j->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
  if (j->fd < 0 || flock(j->fd, LOCK_EX | LOCK_NB) != 0) {
    hf_log(HF_LOG_WARN, "%s: cannot be had (%s): an interrupted profile will begin anew", j->path, strerror(errno));
    journal_close(j, false);
    return HF_OK;
  }
  hf_status st = read_old(j, key, restart, &good);
  if (st == HF_OK && (ftruncate(j->fd, (off_t)good) != 0 || lseek(j->fd, 0, SEEK_END) < 0 || (good == 0 && !put_head(j, key))))
    give_up(j);
  if (st != HF_OK) {
    journal_close(j, false);
    return st;
  }
  *units = j->n_units;
  *out = j;
  return HF_OK;
}

const journal_unit *journal_find(const journal *j, const char *unit) {
  for (int i = 0; j && i < j->n_units; i++)
    if (strcmp(j->unit[i].name, unit) == 0) return &j->unit[i];
  return NULL;
}

void journal_close(journal *j, bool done) {
  if (!j) return;
  if (j->fd >= 0 && done) (void)unlink(j->path);
  if (j->fd >= 0) close(j->fd);
  journal_units_free(j->unit, j->n_units);
  free(j);
}
