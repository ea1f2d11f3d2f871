/* catalog_data.h (private to db): entries as documents, their facts as ranges, and how ranges combine. */
#ifndef HF_DB_CATALOG_DATA_H
#define HF_DB_CATALOG_DATA_H
#include "base/json.h"
#include "db/records.h"

/* The entry as a document that stays valid until the program ends, and a hash over its text. Parsed once; entries of $HF_CATALOG
 * again when the file has changed. */
HF_MUST hf_status catalog_entry(const char *kind, const char *name, const json **doc, uint64_t *hash);

/* What a member of an entry is. path: members joined by dots, [] for the elements of an array. unit NULL: no fact but text ("text"),
 * list of texts ("texts"), whole number ("count"), object or anything. */
typedef struct {
  const char *kind, *path, *type, *unit;
  double lo, hi;
  bool required;
} catalog_member;
extern const catalog_member catalog_members[]; /* ends with kind NULL */

/* A copy of the entry in which every fact is written out: a bare number or list becomes {"value", "unit", "source", "date"}, an object
 * gets what it lacks; unit from the table of members, source and date from the nearest object around that has them. */
HF_MUST hf_status catalog_expand(const char *kind, const json *doc, json **out);

/* low <= likely <= high, all finite and >= 0. Of a product or sum the tag is the weakest of its parts. */
typedef struct {
  double low, likely, high;
  db_tag tag;
} fact;

/* obj[key] = {"value", "low"?, "high"?, "unit", "source", "date", "tag"?}. Checks all of it: the unit must be the one named,
 * source not empty, date YYYY-MM-DD, low <= value <= high. HF_INPUT names where, key and member. */
HF_MUST hf_status fact_get(const json *obj, const char *where, const char *key, const char *unit, fact *out);
/* The same for a node already at hand; where names it. Units are not compared when unit is NULL. */
HF_MUST hf_status fact_read(const json *node, const char *where, const char *unit, fact *out);
/* A whole number 1..max in a fact without spread. */
HF_MUST hf_status fact_count(const json *obj, const char *where, const char *key, int max, int *out);

/* The numbers that a member lists, see catalog_numbers. */
HF_MUST hf_status fact_numbers(const json *obj, const char *where, const char *key, int most, double *out, int *n);
enum { MOST_SIZES = 16 }; /* of modules, of boards */
/* A size that is sold is meant by its decimal gigabytes, too. */
bool fact_is_size(double bytes, double sold);

fact fact_of(double value, db_tag tag);
fact fact_scale(fact a, double by);
fact fact_product(fact a, fact b);
fact fact_sum(fact a, fact b);
#endif
