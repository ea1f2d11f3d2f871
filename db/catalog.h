/* catalog.h: hardware and known models as JSON files in db/catalog/, each fact with its source and date. Embedded into the
 * programs at build time, so they need no data folder; $HF_CATALOG=DIR adds or overrides entries.
 *
 * models/NAME.json    {"name","aliases","config":{…Hugging Face config.json members…},"default_format","source","date"}
 * gpus, cpus, memory, platforms, links, machines: see db/catalog/README.md for each member.
 *
 * Thread rule: every function here may be called from any thread; entries are parsed once and kept. */
#ifndef HF_DB_CATALOG_H
#define HF_DB_CATALOG_H
#include "db/db.h"

/* "cpus", "gpus", "links", "machines", "memory", "models", "platforms", "priors", "quality", "scenarios"; NULL ends the list. */
extern const char *const catalog_kinds[];

/* kind: one of catalog_kinds. HF_NOT_FOUND suggests the nearest name. *out, with every fact written out in full: json_free. */
HF_MUST hf_status catalog_get(const char *kind, const char *name, json **out);
/* Names of a kind, sorted; *names is one allocation (array then strings), free(). */
HF_MUST hf_status catalog_names(const char *kind, char ***names, int *n);

/* The Hugging Face config of a model, for model_set_catalog_hook; user is not used. *config: json_free. */
HF_MUST hf_status catalog_model_config(void *user, const char *name, json **config);

/* One fact of an entry, e.g. ("gpus", "rtx4090", "price_usd"); microseconds once the entry was read. HF_NOT_FOUND when there is no
 * such entry or the entry does not have the fact. */
typedef struct {
  double low, likely, high;
  db_tag tag;
} catalog_value;
HF_MUST hf_status catalog_fact(const char *kind, const char *name, const char *key, catalog_value *out);

/* A member that lists numbers: ("memory", KIND, "dimm_bytes_sold"), ("gpus", NAME, "sold_in"). *n 0 where the entry has none: then any will do.
 * HF_INPUT when an element is no number, or there are more than `most`. */
HF_MUST hf_status catalog_numbers(const char *kind, const char *name, const char *key, int most, double *out, int *n);

/* Looks for problems: unknown or missing members, wrong types, units and ranges, facts without source or date, figures that cannot be
 * (bandwidth, prices, clocks), names that do not resolve. problem() gets one line each. kind and name: an entry of the catalog; or kind
 * NULL and name a file, whose kind is taken from the name of its folder or from its members. *n: problems found. */
typedef void catalog_problem_fn(void *user, const char *line);
HF_MUST hf_status catalog_check(const char *kind, const char *name, catalog_problem_fn *problem, void *user, int *n);

/* ---- machines ---- */

/* The rows of a machine in memory. machine.id is 0 until it is stored. */
typedef struct {
  rec_machine machine;
  rec_device *device;
  rec_figure *figure;
  rec_link_point *link;
  int n_device, n_figure, n_link;
} catalog_machine;
void catalog_machine_free(catalog_machine *m);

/* From a catalog name, a machine JSON file or a text of parts (below): kind catalog or whatif, devices, figures (spec values as
 * low/likely/high after the efficiency priors, raw datasheet values beside them), links. Every figure says where it comes from;
 * db/catalog/README.md lists them. HF_NOT_FOUND (name or file), HF_INPUT (file and field). */
HF_MUST hf_status catalog_machine_build(const char *name_or_file, catalog_machine *out);
/* Writes it into the database, or finds the identical one made before. One transaction, or part of the caller's. */
HF_MUST hf_status catalog_machine_store(db *d, const catalog_machine *m, rec_machine *out);
/* Both; when it fails, nothing was written. */
HF_MUST hf_status catalog_machine_to_db(db *d, const char *name_or_file, rec_machine *out);

/* ---- machines from parts ----
 *
 * As text: KEY=VALUE,KEY=VALUE,… in any order:
 *   cpu=NAME            a CPU of the catalog; needed unless machine= is given
 *   sockets=N           1
 *   memory=KIND         memory kind; the fastest one the CPU takes, and of equally fast ones the slowest module
 *   dimm=SIZE           bytes of a module, K, M, G, T binary; 64G (16G to 64G where desktop CPUs take less). A kind is accepted, too.
 *                   A size that is not sold in this kind is refused when the machine is put together
 *   dpc=N               modules per channel; 1
 *   gpu=A*2+B           GPUs with counts; none
 *   prior=NAME          efficiency prior; heteroflow
 *   platform=NAME       all that is neither CPU, memory nor GPU; chosen by the CPU's class, sockets and GPUs
 *   platform_price=USD, platform_idle=W, platform_active=W    instead of the platform's own
 *   speed=TRANSFERS     what the modules really run at (overclocked or slowed down), e.g. 6000e6 or 6000 (MT/s)
 *   read=RATE           read bandwidth of all sockets that somebody measured, in bytes per second: 225e9 or 225G (decimal)
 *   machine=NAME        parts of a catalog machine or file to start from; first
 *   name=TEXT           what the machine is called; the text itself */
enum { CATALOG_MAX_GPU_KINDS = 8, CATALOG_MAX_GPUS = 8 };
typedef struct {
  char cpu[64];
  int sockets;
  char memory[64];
  int dimms_per_channel;
  int64_t dimm_bytes;
  int n_gpu_kinds;
  struct {
    char gpu[64];
    int count;
  } gpu[CATALOG_MAX_GPU_KINDS];
  char prior[64];
  char platform[64];                                             /* "" = chosen */
  double platform_price_usd, platform_idle_w, platform_active_w; /* 0 = the platform's */
  double transfers_per_s;                                        /* 0 = the slower of CPU and module */
  double read_bytes_per_s;                                       /* 0 = nobody measured it */
  char name[128];                                                /* "" = the canonical text */
  char note[512]; /* what was decided for the asker: "a; b"; becomes assumptions of the machine */
} catalog_parts;

/* HF_UNSUPPORTED where the machine has stated rows, which no parts can say. name keeps the machine's name. */
HF_MUST hf_status catalog_parts_of(const char *name_or_file, catalog_parts *out);
/* Names become the catalog's own ones; what was not said is filled in. HF_INPUT, HF_NOT_FOUND with the nearest name. */
HF_MUST hf_status catalog_parts_parse(const char *text, catalog_parts *out);
/* Is this such a text (KEY= with one of the keys in front) rather than a name or a path? */
bool catalog_parts_is_text(const char *s);
/* Canonical text: equal parts give equal texts, and parsing gives the parts again (but for name and note). */
HF_MUST hf_status catalog_parts_text(const catalog_parts *p, char *out, size_t n);
/* Changes one part; keys as above, "gpus" and "dimms_per_channel" too. Clears the name. A change of CPU keeps the memory where the new one
 * takes it, else takes its fastest in modules of a size that is sold, and at most its sockets; note says so. A change of CPU, of sockets, or to more GPUs than the platform
 * takes chooses the platform anew. On failure nothing changed. */
HF_MUST hf_status catalog_parts_set(catalog_parts *p, const char *key, const char *value);
bool catalog_parts_has_key(const char *key);

/* Machine, devices, figures and links of these parts, in memory: well under a millisecond once the entries were read. HF_INPUT names
 * the contradiction: memory the CPU cannot drive, more sockets or GPUs than it or the platform takes. */
HF_MUST hf_status catalog_compose(const catalog_parts *p, catalog_machine *out);

/* Memory kinds that a CPU takes with so many modules per channel, with what they reach, fastest first; free(*out). */
typedef struct {
  char name[64];
  double transfers_per_s; /* the slower of CPU and module */
  bool on_sale;           /* new ones can be bought: nothing else is proposed unasked */
} catalog_memory_option;
HF_MUST hf_status catalog_memory_options(const char *cpu, int dimms_per_channel, catalog_memory_option **out, int *n);
#endif
