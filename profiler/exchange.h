/* exchange.h: a profile as one JSON document, to hand to a colleague and to take from one.
 *
 *   {"heteroflow_profile": 1, "name": "box", "created_s": 1764500000, "facts": {...}, "devices": [...], "figures": [...],
 *    "kernels": [...], "links": [...]}
 *
 * The members of a row are the columns of its table (db/schema.sql) without ids, in the same units. A document is hostile: every
 * number has its range, low <= likely <= high, texts fit their column and hold no control characters, a device is there once, and
 * there are no more rows than any machine has. Members that are not known are left alone.
 *
 * The journal of a profile that was not finished (journal.h) is made of the same rows. */
#ifndef HF_PROFILER_EXCHANGE_H
#define HF_PROFILER_EXCHANGE_H
#include "base/json.h"
#include "profiler/profile.h"

enum { EXCHANGE_MAX_BYTES = 32 << 20, EXCHANGE_MAX_FIGURES = 5000, EXCHANGE_MAX_KERNELS = 20000, EXCHANGE_MAX_LINKS = 2000 };

/* *out is the document, to be freed with json_free. */
HF_MUST hf_status exchange_write(const prof_view *v, json **out);
/* where starts the error line. HF_INPUT: names row and field. *out only on success, prof_view_free; machine.id is 0. */
HF_MUST hf_status exchange_read(const json *doc, const char *where, prof_view *out);
/* Stores v as a measured machine of that name in one transaction, and sets v->machine. Its facts say that it was imported, and from
 * which file: such a machine is planned for by name only, never because it is the newest one. HF_INPUT: a machine of the name is
 * there, or the name looks like a number. */
HF_MUST hf_status exchange_store(db *d, prof_view *v, const char *name, const char *file);

/* Rows of a list alone: array members of `parent`, and back (appended to *list of *n). */
void exchange_add_figures(json *parent, const char *key, const rec_figure *f, int n);
void exchange_add_kernels(json *parent, const char *key, const rec_kernel_point *k, int n);
HF_MUST hf_status exchange_get_figures(const json *parent, const char *where, const char *key, rec_figure **list, int *n);
HF_MUST hf_status exchange_get_kernels(const json *parent, const char *where, const char *key, rec_kernel_point **list, int *n);
#endif
