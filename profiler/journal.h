/* journal.h: what a profile has measured so far, in a file beside the database (its name and ".profile"), so that one that was killed goes on
 * where it was. One line of JSON per finished unit, after a first line with the key: everything that must be the same for rows to be of one
 * profile (machine, options, model). A line that was cut short ends the file. It is as hostile as any file: rows are checked as those of a
 * colleague's profile are (exchange.h).
 * One program at a time has it (a lock on the file); a second one measures without. */
#ifndef HF_PROFILER_JOURNAL_H
#define HF_PROFILER_JOURNAL_H
#include "db/records.h"
#include "base/status.h"

typedef struct journal journal;

enum { JOURNAL_MAX_AGE_S = 24 * 3600 };

/* *out NULL where no journal can be had. Rows of another key, of another day, or that nobody can read are dropped; restart drops all.
 * *units: how many are there. HF_MACHINE: out of memory. */
HF_MUST hf_status journal_open(const char *db_path, const char *key, bool restart, journal **out, int *units);
/* The rows of a unit, NULL where it is not there; they belong to the journal. */
typedef struct {
  char name[96];
  rec_figure *figure;
  rec_kernel_point *point;
  int n_figure, n_point;
} journal_unit;
const journal_unit *journal_find(const journal *j, const char *unit);
/* Adds a line. A full disk costs the journal, not the profile: it is told once, then nothing more is written. */
void journal_put(journal *j, const char *unit, const rec_figure *f, int n_figure, const rec_kernel_point *k, int n_point);
/* done: the profile is stored, the file goes. NULL ok. */
void journal_close(journal *j, bool done);

/* Units from the text of a journal; *good: bytes up to the end of the last line that could be read. For journal_open and for tests.
 * HF_INPUT: the first line is not this key's. */
HF_MUST hf_status journal_parse(const char *text, size_t n, const char *key, int64_t now_s, journal_unit **out, int *n_units,
                                size_t *good);
void journal_units_free(journal_unit *u, int n);
#endif
