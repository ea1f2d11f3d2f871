/* catalog.c: finding entries of the catalog, embedded ones and those of $HF_CATALOG.
 *
 * 1. An entry is KIND/NAME.json; its member "name" equals NAME. Names are lower case with dashes; look-up ignores case.
 * 2. A file in $HF_CATALOG/KIND replaces the embedded entry of that name; nothing else of the embedded catalog changes.
 * 3. A name is looked for among names first, among aliases second. No path is ever made from the name asked for. */
#include "db/catalog.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

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

static const char *const kinds[] = {"cpus", "gpus", "machines", "memory", "models", "priors"};

static hf_status check_kind(const char *kind) {
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    if (strcmp(kind, kinds[i]) == 0) return HF_OK;
  }
  return hf_fail(HF_INPUT, "the catalog has no kind '%.40s'; kinds are cpus, gpus, machines, memory, models, priors", kind);
}

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

static hf_status load(const entry_list *l, const entry *e, json **out) {
  char where[4096 + NAME_MAX_BYTES];
  json *doc = NULL;
  const char *name;
  if (e->blob != NULL) {
    snprintf(where, sizeof where, "catalog %s/%s.json", l->kind, e->name);
    HF_TRY(json_parse(e->blob->text, e->blob->n, where, &doc));
  } else {
    if ((size_t)snprintf(where, sizeof where, "%s/%s/%s.json", l->folder, l->kind, e->name) >= sizeof where) {
      return hf_fail(HF_INPUT, "HF_CATALOG: the path is too long");
    }
    HF_TRY(json_read_file(where, MAX_FILE_BYTES, &doc));
  }
  hf_status st = json_get_str(doc, where, "name", &name);
  if (st == HF_OK && strcmp(name, e->name) != 0) {
    st = hf_fail(HF_INPUT, "%.900s: field name: '%.90s' does not match the file's name", where, name);
  }
  if (st == HF_OK) *out = doc;
  else json_free(doc);
  return st;
}

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
static hf_status find_alias(const entry_list *l, const char *name, nearest *best, json **out) {
  for (int i = 0; i < l->n; i++) {
    json *doc;
    HF_TRY(load(l, &l->e[i], &doc));
    for (const json *a = json_first(json_get(doc, "aliases")); a != NULL; a = json_next(a)) {
      const char *alias = json_string(a);
      if (alias == NULL) continue;
      if (strcasecmp(alias, name) == 0) {
        *out = doc;
        return HF_OK;
      }
      consider(best, name, alias);
    }
    json_free(doc);
  }
  return HF_OK;
}

static hf_status not_found(const entry_list *l, const char *name, const nearest *best) {
  char known[600] = "";
  size_t used = 0;
  for (int i = 0; i < l->n && used < sizeof known; i++) {
    used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", l->e[i].name);
  }
  /* A suggestion further away than half of what was typed would not help. */
  if (best->name[0] && best->distance <= (int)(strlen(name) + 1) / 2) {
    return hf_fail(HF_NOT_FOUND, "the catalog has no '%.95s' among its %s; did you mean '%s'? (known: %s)", name, l->kind,
                   best->name, known);
  }
  return hf_fail(HF_NOT_FOUND, "the catalog has no '%.95s' among its %s (known: %s)", name, l->kind, known);
}

static hf_status find(const entry_list *l, const char *name, json **out) {
  nearest best = {.distance = NAME_MAX_BYTES};
  for (int i = 0; i < l->n; i++) {
    if (strcasecmp(l->e[i].name, name) == 0) return load(l, &l->e[i], out);
    consider(&best, name, l->e[i].name);
  }
  json *doc = NULL;
  HF_TRY(find_alias(l, name, &best, &doc));
  if (doc == NULL) return not_found(l, name, &best);
  *out = doc;
  return HF_OK;
}

hf_status catalog_get(const char *kind, const char *name, json **out) {
  entry_list l;
  HF_TRY(list_entries(kind, &l));
  hf_status st = strlen(name) < NAME_MAX_BYTES ? find(&l, name, out)
                                               : hf_fail(HF_NOT_FOUND, "the catalog has no name as long as '%.40s...'", name);
  free(l.e);
  return st;
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
  json *doc = NULL;
  HF_TRY(catalog_get("models", name, &doc));
  const json *c = json_get(doc, "config");
  if (c == NULL) {
    json_free(doc);
    return hf_fail(HF_INPUT, "catalog model %s: field config is missing", name);
  }
  /* a node of a document cannot leave it: through text */
  char *text = NULL;
  hf_status st = json_print(c, false, &text);
  json_free(doc);
  if (st == HF_OK) st = json_parse(text, strlen(text), name, config);
  free(text);
  return st;
}
