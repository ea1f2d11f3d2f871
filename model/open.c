/* open.c: a model from a folder, a GGUF file, a config or a synth: name. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "model/gguf.h"
#include "model/internal.h"
#include "model/recipe.h"
#include "model/synth.h"

#define CONFIG_LIMIT ((size_t)4 << 20)
#define ARENA_LIMIT ((size_t)256 << 20)

static model_catalog_hook catalog_hook;
static void *catalog_user;

void model_set_catalog_hook(model_catalog_hook hook, void *user) {
  catalog_hook = hook;
  catalog_user = user;
}

const model_config *model_get_config(const model *m) {
  return &m->c;
}

const char *model_path(const model *m) {
  return m->path;
}

int64_t model_stored_count(const model *m) {
  return (int64_t)m->set.n;
}

model_stored_tensor model_stored(const model *m, int64_t i) {
  const raw_tensor *t = &m->set.v[i];
  model_stored_tensor out = {.name = t->name,
                             .dtype = t->dtype,
                             .file = m->set.files[t->file].path,
                             .format = t->format == FMT_OTHER ? FMT_DEFAULT : t->format,
                             .n_dims = t->n_dims,
                             .offset = t->offset,
                             .bytes = t->bytes,
                             .in_file =
                                 t->offset <= m->set.files[t->file].size && t->bytes <= m->set.files[t->file].size - t->offset};
  memcpy(out.dims, t->dims, sizeof out.dims);
  return out;
}

hf_status model_stored_read(const model *m, int64_t i, uint64_t at, void *dst, size_t n) {
  const raw_tensor *t = &m->set.v[i];
  if (at > t->bytes || n > t->bytes - at)
    return hf_fail(HF_INPUT, "tensor %s: has %llu bytes", t->name, (unsigned long long)t->bytes);
  return model_read_at(m, t->file, t->offset + at, dst, n);
}

int model_file_count(const model *m) {
  return m->set.n_files;
}

const char *model_file_path(const model *m, int i) {
  return m->set.files[i].path;
}

const char *model_tensor_name(model_tensor_id id) {
  return tensor_name(id);
}

const char *model_missing(const model *m) {
  return m->missing;
}

bool model_has_weights(const model *m) {
  return m->source != SRC_NONE;
}

void model_close(model *m) {
  if (!m) return;
  config_free(&m->c);
  tset_free(&m->set);
  hf_arena_free(m->arena);
  free(m->slots);
  free(m->recipe);
  free(m->path);
  free(m->missing);
  free(m);
}

/* Of the model that model_open_tolerant opens; each thread has its own. */
static _Thread_local model_fault_fn *fault_now;
static _Thread_local void *fault_user_now;

static hf_status new_model(const char *path, model **out) {
  model *m = NULL;
  HF_TRY(hf_alloc(&m, 1, sizeof *m, "model"));
  hf_status st = hf_strdup(&m->path, path);
  if (st == HF_OK) st = hf_arena_new(&m->arena, ARENA_LIMIT, "tensor index");
  if (st == HF_OK) st = tset_init(&m->set);
  m->set.fault = fault_now;
  m->set.fault_user = fault_user_now;
  if (st != HF_OK) {
    model_close(m);
    return st;
  }
  *out = m;
  return HF_OK;
}

/* Last component of a path, without trailing slashes, for models that name themselves nowhere. */
static void default_name(model_config *c, const char *path) {
  if (c->name[0]) return;
  size_t n = strlen(path);
  while (n > 1 && path[n - 1] == '/') n--;
  size_t b = n;
  while (b > 0 && path[b - 1] != '/') b--;
  snprintf(c->name, sizeof c->name, "%.*s", (int)(n - b < 120 ? n - b : 120), path + b);
}

hf_status model_from_config(const json *config, const char *where, model **out) {
  model *m = NULL;
  HF_TRY(new_model(where, &m));
  hf_status st = config_from_json(config, where, &m->c);
  if (st != HF_OK) {
    model_close(m);
    return st;
  }
  default_name(&m->c, where);
  *out = m;
  return HF_OK;
}

static hf_status copy_array(const void *from, size_t n, size_t size, void **out) {
  if (from == NULL) return HF_OK;
  HF_TRY(hf_alloc(out, n, size, "model's layers"));
  memcpy(*out, from, n * size);
  return HF_OK;
}

static hf_status copy_config(const model_config *from, model_config *to) {
  *to = *from;
  to->layer_is_moe = to->layer_slides = NULL;
  to->rope.inv_freq = NULL;
  void *moe = NULL, *slides = NULL, *freq = NULL;
  hf_status st = copy_array(from->layer_is_moe, (size_t)from->n_layers, sizeof *from->layer_is_moe, &moe);
  if (st == HF_OK) st = copy_array(from->layer_slides, (size_t)from->n_layers, sizeof *from->layer_slides, &slides);
  if (st == HF_OK) st = copy_array(from->rope.inv_freq, (size_t)from->rope.dim / 2, sizeof *from->rope.inv_freq, &freq);
  to->layer_is_moe = moe;
  to->layer_slides = slides;
  to->rope.inv_freq = freq;
  return st;
}

hf_status model_with_recipe(const model *m, const model_recipe *r, model **out) {
  model *by = NULL;
  HF_TRY(new_model(m->path, &by));
  hf_status st = copy_config(&m->c, &by->c);
  if (st == HF_OK) st = hf_alloc(&by->recipe, 1, sizeof *by->recipe, "recipe");
  if (st != HF_OK) {
    model_close(by);
    return st;
  }
  *by->recipe = *r;
  by->c.default_format = r->part[PART_EXPERT_IN];
  *out = by;
  return HF_OK;
}

hf_status synth_model(const json *config, const char *where, int layers, int experts, uint64_t seed, fmt format, model **out) {
  json *changed = NULL;
  HF_TRY(synth_override_config(config, where, layers, experts, format, &changed));
  model *m = NULL;
  hf_status st = model_from_config(changed, where, &m);
  json_free(changed);
  if (st == HF_OK) st = synth_bind(m, seed, format == FMT_DEFAULT ? FMT_BF16 : format);
  if (st != HF_OK) {
    model_close(m);
    return st;
  }
  *out = m;
  return HF_OK;
}

static bool is_folder(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool is_file(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

/* A path of a folder or config.json, else a catalog name. */
static hf_status find_config(const char *name, json **out, char *where, size_t where_size) {
  bool folder = is_folder(name);
  if (folder || is_file(name)) {
    if ((size_t)snprintf(where, where_size, "%s%s", name, folder ? "/config.json" : "") >= where_size)
      return hf_fail(HF_INPUT, "%.200s...: path too long", name);
    if (folder && !is_file(where)) return hf_fail(HF_NOT_FOUND, "%s: no model folder, config.json is missing", name);
    return json_read_file(where, CONFIG_LIMIT, out);
  }
  snprintf(where, where_size, "%s", name);
  if (catalog_hook) return catalog_hook(catalog_user, name, out);
  return hf_fail(HF_NOT_FOUND, "%s: no such file or folder", name);
}

static hf_status open_synth(const char *name, model **out) {
  synth_name n;
  HF_TRY(synth_parse_name(name, &n));
  json *config = NULL;
  char where[4096];
  HF_TRY(find_config(n.config, &config, where, sizeof where));
  model *m = NULL;
  hf_status st = synth_model(config, where, n.layers, n.experts, n.seed, n.format, &m);
  json_free(config);
  if (st != HF_OK) return st;
  free(m->path);
  m->path = NULL;
  st = hf_strdup(&m->path, name);
  if (st != HF_OK) {
    model_close(m);
    return st;
  }
  *out = m;
  return HF_OK;
}

hf_status model_synth_export(const char *name, const char *path) {
  synth_name n;
  if (strncmp(name, "synth:", 6)) return hf_fail(HF_INPUT, "%s: only synth:CONFIG,... names can be written as a file", name);
  HF_TRY(synth_parse_name(name + 6, &n));
  json *config = NULL;
  char where[4096];
  HF_TRY(find_config(n.config, &config, where, sizeof where));
  size_t len = strlen(path);
  model_synth_options o = {.seed = n.seed,
                           .format = n.format,
                           .layers = n.layers,
                           .experts = n.experts,
                           .gguf = len > 5 && !strcmp(path + len - 5, ".gguf")};
  hf_status st = model_synth_write(config, where, &o, path);
  json_free(config);
  return st;
}

static hf_status bind_folder(model *m, const char *folder) {
  const char *missing = NULL;
  HF_TRY(st_open_folder(&m->set, folder, &missing));
  if (missing) {
    char text[4200];
    snprintf(text, sizeof text, "%s does not exist", missing);
    return hf_strdup(&m->missing, text);
  }
  HF_TRY(slots_alloc(m));
  HF_TRY(bind_hf(m));
  m->source = SRC_FILE;
  m->hf = true;
  m->c.default_format = slots_expert_format(m);
  return HF_OK;
}

static hf_status open_folder(const char *folder, model **out) {
  char where[4096];
  json *config = NULL;
  HF_TRY(find_config(folder, &config, where, sizeof where));
  model *m = NULL;
  hf_status st = model_from_config(config, where, &m);
  json_free(config);
  if (st != HF_OK) return st;
  free(m->path);
  m->path = NULL;
  if (!strcmp(m->c.name, "config.json")) m->c.name[0] = 0;
  default_name(&m->c, folder);
  st = hf_strdup(&m->path, folder);
  if (st == HF_OK) st = bind_folder(m, folder);
  if (st != HF_OK) {
    model_close(m);
    return st;
  }
  *out = m;
  return HF_OK;
}

static hf_status open_gguf(const char *path, model **out) {
  model *m = NULL;
  HF_TRY(new_model(path, &m));
  hf_status st = gguf_open_model(m, path);
  if (st != HF_OK) {
    model_close(m);
    return st;
  }
  default_name(&m->c, path);
  *out = m;
  return HF_OK;
}

static hf_status open_config_file(const char *path, model **out) {
  json *config = NULL;
  HF_TRY(json_read_file(path, CONFIG_LIMIT, &config));
  hf_status st = model_from_config(config, path, out);
  json_free(config);
  return st;
}

hf_status model_open(const char *name_or_path, model **out) {
  if (!strncmp(name_or_path, "synth:", 6)) return open_synth(name_or_path, out);
  if (is_folder(name_or_path)) return open_folder(name_or_path, out);
  if (!is_file(name_or_path)) {
    if (catalog_hook && !strchr(name_or_path, '/')) {
      json *config = NULL;
      HF_TRY(catalog_hook(catalog_user, name_or_path, &config));
      hf_status st = model_from_config(config, name_or_path, out);
      json_free(config);
      return st;
    }
    return hf_fail(HF_NOT_FOUND, "%s: no such file or folder", name_or_path);
  }
  char magic[4] = "";
  int fd = open(name_or_path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return hf_fail(HF_INPUT, "%s: %s", name_or_path, strerror(errno));
  ssize_t n = hf_read(fd, magic, 4);
  int error = errno;
  close(fd);
  if (n < 0) return hf_fail(HF_MACHINE, "%s: cannot be read: %s", name_or_path, strerror(error));
  size_t len = strlen(name_or_path);
  bool named = len > 5 && !strcmp(name_or_path + len - 5, ".gguf");
  if (named || (n == 4 && !memcmp(magic, "GGUF", 4))) return open_gguf(name_or_path, out);
  if (len > 5 && !strcmp(name_or_path + len - 5, ".json")) return open_config_file(name_or_path, out);
  return hf_fail(HF_INPUT, "%s: neither a folder, a GGUF file nor a config.json", name_or_path);
}

hf_status model_open_tolerant(const char *path, model_fault_fn *fault, void *user, model **out) {
  fault_now = fault;
  fault_user_now = user;
  hf_status st = model_open(path, out);
  fault_now = NULL;
  fault_user_now = NULL;
  return st;
}
