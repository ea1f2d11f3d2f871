/* catalog_parts.h (private to db): between parts and the documents of machines. */
#ifndef HF_DB_CATALOG_PARTS_H
#define HF_DB_CATALOG_PARTS_H
#include "db/catalog.h"

/* The machine document, every fact written out, that says the same as the parts. */
HF_MUST hf_status catalog_parts_document(const catalog_parts *p, json **out);
/* The document of a catalog machine or of a file, every fact written out. */
HF_MUST hf_status catalog_machine_document(const char *name_or_file, json **doc, bool *is_file);
#endif
