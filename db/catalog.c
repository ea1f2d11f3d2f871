/* catalog.c: finding entries of the catalog, embedded ones and those of $HF_CATALOG.
 *
 * 1. An entry is KIND/NAME.json; its member "name" equals NAME. Names are lower case with dashes; look-up ignores case.
 * 2. A file in $HF_CATALOG/KIND replaces the embedded entry of that name; nothing else of the embedded catalog changes.
 * 3. A name is looked for among names first, among aliases second. No path is ever made from the name asked for.
 * 4. Every entry read is kept: a recommendation looks the same ones up thousands of times. One of $HF_CATALOG is read again when its
 *    file has changed; the document read before stays, for somebody may still hold it. */
#include "db/catalog.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "base/text.h"
#include "db/catalog_data.h"
#include "db/embed.h"

enum { NAME_MAX_BYTES = 96, MAX_ENTRIES = 4096, MAX_FILE_BYTES = 1 << 20 };

typedef struct {
  char name[NAME_MAX_BYTES];
  const hf_embedded *blob; /* NULL: a file of $HF_CATALOG */
} entry;

typedef struct {
  const char *kind, *folder; /* folder: $HF_CATALOG or NULL */
  entry *e;
  int n;
} entry_list;

const char *const catalog_kinds[] = {"cpus",      "gpus",   "links",   "machines",  "memory", "models",
                                     "platforms", "priors", "quality", "scenarios", NULL};

static hf_status check_kind(const char *kind) {
  char known[200] = "";
  size_t used = 0;
  for (const char *const *k = catalog_kinds; *k != NULL; k++) {
    if (strcmp(kind, *k) == 0) return HF_OK;
    used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", *k);
  }
  return hf_fail(HF_INPUT, "the catalog has no kind '%.40s'; kinds are %s", kind, known);
}

/* ---- which entries there are ---- */

/* "deepseek-r1.json" -> "deepseek-r1"; false when the file is not one of ours. */
static bool entry_name(const char *file, char *name) {
  size_t n = strlen(file);
  if (n <= 5 || n - 5 >= NAME_MAX_BYTES || strcmp(file + n - 5, ".json") != 0 || file[0] == '.') return false;
  memcpy(name, file, n - 5);
  name[n - 5] = 0;
  return true;
}

static hf_status add_entry(entry_list *l, const char *name, const hf_embedded *blob) {
  for (int i = 0; i < l->n; i++) {
    if (strcmp(l->e[i].name, name) == 0) {
      if (blob == NULL) l->e[i].blob = NULL;
      return HF_OK;
    }
  }
  if (l->n == MAX_ENTRIES) return hf_fail(HF_INPUT, "catalog %s: more than %d entries", l->kind, MAX_ENTRIES);
  HF_TRY(hf_realloc(&l->e, (size_t)l->n + 1, sizeof *l->e, "catalog entries"));
  entry *e = &l->e[l->n++];
  snprintf(e->name, sizeof e->name, "%s", name);
  e->blob = blob;
  return HF_OK;
}

static hf_status add_embedded(entry_list *l) {
  size_t n = strlen(l->kind);
  for (const hf_embedded *b = hf_embedded_catalog; b->name != NULL; b++) {
    char name[NAME_MAX_BYTES];
    if (strncmp(b->name, l->kind, n) != 0 || b->name[n] != '/' || !entry_name(b->name + n + 1, name)) continue;
    HF_TRY(add_entry(l, name, b));
  }
  return HF_OK;
}

static hf_status add_folder(entry_list *l) {
  char path[4096], name[NAME_MAX_BYTES];
  DIR *dir = opendir(l->folder);
  if (dir == NULL) return hf_fail(HF_INPUT, "HF_CATALOG=%.900s: %s", l->folder, strerror(errno));
  closedir(dir);
  if ((size_t)snprintf(path, sizeof path, "%s/%s", l->folder, l->kind) >= sizeof path) {
    return hf_fail(HF_INPUT, "HF_CATALOG: the path is too long");
  }
  dir = opendir(path);
  if (dir == NULL && errno == ENOENT) return HF_OK;
  if (dir == NULL) return hf_fail(HF_INPUT, "%.900s: %s", path, strerror(errno));
  hf_status st = HF_OK;
  for (struct dirent *f; st == HF_OK && (f = readdir(dir)) != NULL;) {
    if (entry_name(f->d_name, name)) st = add_entry(l, name, NULL);
  }
  closedir(dir);
  return st;
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const entry *)a)->name, ((const entry *)b)->name);
}

static hf_status list_entries(const char *kind, entry_list *l) {
  const char *folder = getenv("HF_CATALOG");
  *l = (entry_list){.kind = kind, .folder = folder && *folder ? folder : NULL};
  HF_TRY(check_kind(kind));
  hf_status st = add_embedded(l);
  if (st == HF_OK && l->folder) st = add_folder(l);
  if (st != HF_OK) {
    free(l->e);
    l->e = NULL;
    return st;
  }
  if (l->n > 0) qsort(l->e, (size_t)l->n, sizeof *l->e, by_name);
  return HF_OK;
}

/* ---- reading and keeping entries ---- */

/* The file of $HF_CATALOG that an entry came from, as it was then; all 0: the embedded entry, no such file. */
typedef struct {
  int64_t mtime_s, mtime_ns, bytes, inode;
} file_state;

typedef struct kept {
  struct kept *next;
  char folder[1024], name[NAME_MAX_BYTES];
  const char *kind;
  file_state state;
  json *doc;
  uint64_t hash;
} kept;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static kept *all_kept; /* newest first, so that a file read again hides what it was before */

static hf_status entry_path(const char *folder, const char *kind, const char *name, char *out, size_t n) {
  if ((size_t)snprintf(out, n, "%s/%s/%s.json", folder, kind, name) < n) return HF_OK;
  return hf_fail(HF_INPUT, "HF_CATALOG: the path is too long");
}

static file_state state_of(const char *folder, const char *kind, const char *name) {
  char path[4096 + NAME_MAX_BYTES];
  struct stat s;
  if (folder == NULL || snprintf(path, sizeof path, "%s/%s/%s.json", folder, kind, name) >= (int)sizeof path ||
      stat(path, &s) != 0) {
    return (file_state){0};
  }
  return (file_state){s.st_mtim.tv_sec, s.st_mtim.tv_nsec, s.st_size, (int64_t)s.st_ino};
}

static bool same_state(file_state a, file_state b) {
  return a.mtime_s == b.mtime_s && a.mtime_ns == b.mtime_ns && a.bytes == b.bytes && a.inode == b.inode;
}

/* The newest document kept of this name, if it is still what a reader would find. */
static const kept *find_kept(const char *folder, const char *kind, const char *name) {
  for (const kept *k = all_kept; k != NULL; k = k->next) {
    if (strcasecmp(k->name, name) != 0 || strcmp(k->kind, kind) != 0 || strcmp(k->folder, folder ? folder : "") != 0) continue;
    return folder == NULL || same_state(k->state, state_of(folder, kind, k->name)) ? k : NULL;
  }
  return NULL;
}

static hf_status read_entry(const entry_list *l, const entry *e, json **out) {
  char where[4096 + NAME_MAX_BYTES];
  json *doc = NULL;
  const char *name;
  if (e->blob != NULL) {
    snprintf(where, sizeof where, "catalog %s/%s.json", l->kind, e->name);
    HF_TRY(json_parse(e->blob->text, e->blob->n, where, &doc));
  } else {
    HF_TRY(entry_path(l->folder, l->kind, e->name, where, sizeof where));
    HF_TRY(json_read_file(where, MAX_FILE_BYTES, &doc));
  }
  hf_status st = json_get_str(doc, where, "name", &name);
  if (st == HF_OK && strcmp(name, e->name) != 0) {
    st = hf_fail(HF_INPUT, "%.900s: field name: '%.90s' does not match the file's name", where, name);
  }
  if (st == HF_OK) st = hf_note(catalog_expand(l->kind, doc, out), "%.900s", where);
  json_free(doc);
  return st;
}

static hf_status hash_of(const json *doc, uint64_t *out) {
  char *text;
  uint64_t h = 14695981039346656037u; /* FNV-1a */
  HF_TRY(json_print(doc, false, &text));
  for (const unsigned char *p = (const unsigned char *)text; *p; p++) h = (h ^ *p) * 1099511628211u;
  free(text);
  *out = h;
  return HF_OK;
}

/* Of an entry of the list; the caller holds the lock. */
static hf_status load(const entry_list *l, const entry *e, const kept **out) {
  *out = find_kept(l->folder, l->kind, e->name);
  if (*out != NULL) return HF_OK;
  kept *k = NULL;
  HF_TRY(hf_alloc(&k, 1, sizeof *k, "a catalog entry"));
  k->kind = l->kind;
  snprintf(k->name, sizeof k->name, "%s", e->name);
  hf_status st = HF_OK;
  if (l->folder != NULL && (size_t)snprintf(k->folder, sizeof k->folder, "%s", l->folder) >= sizeof k->folder)
    st = hf_fail(HF_INPUT, "HF_CATALOG: the path is too long");
  k->state = state_of(l->folder, l->kind, e->name);
  if (st == HF_OK) st = read_entry(l, e, &k->doc);
  if (st == HF_OK) st = hash_of(k->doc, &k->hash);
  if (st != HF_OK) {
    json_free(k->doc);
    free(k);
    return st;
  }
  k->next = all_kept;
  all_kept = k;
  *out = k;
  return HF_OK;
}

/* ---- names ---- */

typedef struct {
  char name[NAME_MAX_BYTES];
  int distance;
} nearest;

static void consider(nearest *best, const char *asked, const char *candidate) {
  int d = hf_edit_distance(asked, strlen(asked), candidate);
  if (d >= best->distance) return;
  best->distance = d;
  snprintf(best->name, sizeof best->name, "%s", candidate);
}

/* Looks through the aliases of every entry; *out stays NULL when none fits. best learns the nearest alias on the way. */
static hf_status find_alias(const entry_list *l, const char *name, nearest *best, const kept **out) {
  for (int i = 0; i < l->n; i++) {
    const kept *k;
    HF_TRY(load(l, &l->e[i], &k));
    for (const json *a = json_first(json_get(k->doc, "aliases")); a != NULL; a = json_next(a)) {
      const char *alias = json_string(a);
      if (alias == NULL) continue;
      if (strcasecmp(alias, name) == 0) {
        *out = k;
        return HF_OK;
      }
      consider(best, name, alias);
    }
  }
  return HF_OK;
}

static hf_status not_found(const entry_list *l, const char *name, const nearest *best) {
  enum { SHORT_LIST = 12 };
  char known[600] = "", suggestion[NAME_MAX_BYTES + 24] = "";
  size_t used = 0;
  for (int i = 0; i < l->n && l->n <= SHORT_LIST && used < sizeof known; i++) {
    used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "known: ", l->e[i].name);
  }
  if (l->n > SHORT_LIST) snprintf(known, sizeof known, "hf-plan catalog list %s names all %d", l->kind, l->n);
  /* A suggestion further away than half of what was typed would not help. */
  if (best->name[0] && best->distance <= (int)(strlen(name) + 1) / 2)
    snprintf(suggestion, sizeof suggestion, "; did you mean '%s'?", best->name);
  return hf_fail(HF_NOT_FOUND, "the catalog has no '%.95s' among its %s%s (%s)", name, l->kind, suggestion, known);
}

static hf_status find(const entry_list *l, const char *name, const kept **out) {
  nearest best = {.distance = NAME_MAX_BYTES};
  for (int i = 0; i < l->n; i++) {
    if (strcasecmp(l->e[i].name, name) == 0) return load(l, &l->e[i], out);
    consider(&best, name, l->e[i].name);
  }
  *out = NULL;
  HF_TRY(find_alias(l, name, &best, out));
  return *out != NULL ? HF_OK : not_found(l, name, &best);
}

/* The kind as the table spells it, which outlives the caller's text. */
static const char *kept_kind(const char *kind) {
  const char *const *k = catalog_kinds;
  while (*k != NULL && strcmp(*k, kind) != 0) k++;
  return *k;
}

static hf_status entry_locked(const char *kind, const char *name, const kept **out) {
  const char *folder = getenv("HF_CATALOG");
  entry_list l;
  *out = find_kept(folder && *folder ? folder : NULL, kind, name);
  if (*out != NULL) return HF_OK;
  HF_TRY(list_entries(kind, &l));
  l.kind = kept_kind(kind);
  hf_status st = strlen(name) < NAME_MAX_BYTES ? find(&l, name, out)
                                               : hf_fail(HF_NOT_FOUND, "the catalog has no name as long as '%.40s...'", name);
  free(l.e);
  return st;
}

hf_status catalog_entry(const char *kind, const char *name, const json **doc, uint64_t *hash) {
  const kept *k;
  pthread_mutex_lock(&lock);
  hf_status st = entry_locked(kind, name, &k);
  pthread_mutex_unlock(&lock);
  HF_TRY(st);
  *doc = k->doc;
  if (hash != NULL) *hash = k->hash;
  return HF_OK;
}

/* A node of a document cannot leave it: through text. */
static hf_status copy_of(const json *node, const char *where, json **out) {
  char *text = NULL;
  HF_TRY(json_print(node, false, &text));
  hf_status st = json_parse(text, strlen(text), where, out);
  free(text);
  return st;
}

hf_status catalog_get(const char *kind, const char *name, json **out) {
  const json *doc;
  HF_TRY(catalog_entry(kind, name, &doc, NULL));
  return copy_of(doc, name, out);
}

hf_status catalog_fact(const char *kind, const char *name, const char *key, catalog_value *out) {
  const json *doc;
  char where[160];
  fact f;
  HF_TRY(catalog_entry(kind, name, &doc, NULL));
  snprintf(where, sizeof where, "%s/%.100s", kind, name);
  if (json_get(doc, key) == NULL) return hf_fail(HF_NOT_FOUND, "%s: field %.60s: the entry does not have it", where, key);
  HF_TRY(fact_get(doc, where, key, NULL, &f));
  *out = (catalog_value){f.low, f.likely, f.high, f.tag};
  return HF_OK;
}

hf_status catalog_numbers(const char *kind, const char *name, const char *key, int most, double *out, int *n) {
  const json *doc;
  char where[160];
  HF_TRY(catalog_entry(kind, name, &doc, NULL));
  snprintf(where, sizeof where, "%s/%.100s", kind, name);
  return fact_numbers(doc, where, key, most, out, n);
}

hf_status catalog_names(const char *kind, char ***names, int *n) {
  entry_list l;
  HF_TRY(list_entries(kind, &l));
  size_t bytes = (size_t)(l.n + 1) * sizeof(char *);
  for (int i = 0; i < l.n; i++) bytes += strlen(l.e[i].name) + 1;
  char **list = NULL;
  hf_status st = hf_alloc(&list, bytes, 1, "catalog names");
  if (st == HF_OK) {
    char *text = (char *)(list + l.n + 1);
    for (int i = 0; i < l.n; i++) {
      list[i] = text;
      text = stpcpy(text, l.e[i].name) + 1;
    }
    *names = list;
    *n = l.n;
  }
  free(l.e);
  return st;
}

hf_status catalog_model_config(void *user, const char *name, json **config) {
  (void)user;
  const json *doc;
  HF_TRY(catalog_entry("models", name, &doc, NULL));
  const json *c = json_get(doc, "config");
  if (c == NULL) return hf_fail(HF_INPUT, "catalog model %s: field config is missing", name);
  return copy_of(c, name, config);
}
