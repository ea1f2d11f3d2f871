/* catalog_rows.h (private to db): the rows of a catalog machine while they are made, and (catalog_machine_store) their way into the database. */
#ifndef HF_DB_CATALOG_ROWS_H
#define HF_DB_CATALOG_ROWS_H
#include "db/catalog_data.h"
#include "db/db.h"

enum { ROWS_MAX_DEVICES = 64, ROWS_MAX_FIGURES = 1024, ROWS_MAX_LINKS = 1024 };

typedef struct {
  rec_machine m;
  rec_device *dev;
  rec_figure *fig;
  rec_link_point *link;
  int n_dev, n_fig, n_link;
  uint64_t hash; /* over every catalog entry that went in */
  json *facts;   /* becomes rec_machine.facts_json; owned */
} rows;

/* Copies s with its NUL into n bytes; false, and nothing is written, when it does not fit. */
HF_MUST bool rows_text(char *out, size_t n, const char *s);

HF_MUST hf_status rows_init(rows *r);
void rows_free(rows *r);

/* Adds, or replaces the one of the same device (and what). where starts error lines. */
HF_MUST hf_status rows_device(rows *r, const char *where, const char *device, const char *kind, const char *name, int cores,
                              int64_t mem_bytes);
HF_MUST hf_status rows_figure(rows *r, const char *device, const char *what, const char *unit, fact f, const char *source_fmt,
                              ...) HF_PRINTF(6, 7);
HF_MUST hf_status rows_link(rows *r, const rec_link_point *p);
const rec_device *rows_find_device(const rows *r, const char *device);
const rec_figure *rows_find_figure(const rows *r, const char *device, const char *what);
/* Sets *out from a figure; false when there is none. */
bool rows_fact(const rows *r, const char *device, const char *what, fact *out);

/* Mixes the text of a document, or the hash of an entry, into the hash. */
HF_MUST hf_status rows_hash(rows *r, const json *doc);
void rows_hash_entry(rows *r, uint64_t hash);

/* The facts become text in m; afterwards the rows can be handed out. */
HF_MUST hf_status rows_close(rows *r);
#endif
