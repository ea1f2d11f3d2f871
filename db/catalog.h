/* catalog.h: hardware and known models as JSON files in db/catalog/, each fact with its source and date. Embedded into the
 * programs at build time, so they need no data folder; $HF_CATALOG=DIR adds or overrides entries.
 *
 * models/NAME.json    {"name","aliases","config":{…Hugging Face config.json members…},"default_format","source","date"}
 * gpus/NAME.json, cpus/NAME.json, memory/NAME.json, machines/NAME.json: see db/catalog/README.md for each member. */
#ifndef HF_DB_CATALOG_H
#define HF_DB_CATALOG_H
#include "db/db.h"

/* kind: "models", "gpus", "cpus", "memory", "machines", "priors". HF_NOT_FOUND suggests the nearest name. *out: json_free. */
HF_MUST hf_status catalog_get(const char *kind, const char *name, json **out);
/* Names of a kind, sorted; *names is one allocation (array then strings), free(). */
HF_MUST hf_status catalog_names(const char *kind, char ***names, int *n);

/* The Hugging Face config of a model, for model_set_catalog_hook; user is not used. *config: json_free. */
HF_MUST hf_status catalog_model_config(void *user, const char *name, json **config);

/* Makes the machine's rows in the database from a catalog name or a machine JSON file: rec_machine (kind catalog or whatif),
 * devices, figures (spec values as low/likely/high after the efficiency priors, raw datasheet values beside them), links. Reuses
 * an existing identical one. Every figure says where it comes from; db/catalog/README.md lists them. One transaction, or part of
 * the caller's. HF_NOT_FOUND (name or file), HF_INPUT (file and field); then nothing was written. */
HF_MUST hf_status catalog_machine_to_db(db *d, const char *name_or_file, rec_machine *out);
#endif
