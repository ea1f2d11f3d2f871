/* safetensors.c: header of *.safetensors (u64 length, JSON, data) and folders of shards with an index.
 * The format demands that the data area is covered entirely and without overlap; so do we. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "model/internal.h"

#define HEADER_LIMIT ((uint64_t)100 << 20) /* the limit of the format's own library */
#define INDEX_LIMIT ((size_t)256 << 20)

static const struct {
  const char *name;
  fmt format;
  int bytes;
} dtypes[] = {
    {"F32", FMT_F32, 4},   {"F16", FMT_F16, 2},    {"BF16", FMT_BF16, 2},     {"F8_E4M3", FMT_FP8_E4M3, 1},
    {"F64", FMT_OTHER, 8}, {"I64", FMT_OTHER, 8},  {"I32", FMT_OTHER, 4},     {"I16", FMT_OTHER, 2},
    {"I8", FMT_OTHER, 1},  {"U64", FMT_OTHER, 8},  {"U32", FMT_OTHER, 4},     {"U16", FMT_OTHER, 2},
    {"U8", FMT_OTHER, 1},  {"BOOL", FMT_OTHER, 1}, {"F8_E5M2", FMT_OTHER, 1}, {"F8_E8M0", FMT_OTHER, 1},
};

static hf_status parse_shape(const json *entry, const char *path, raw_tensor *t) {
  const json *shape = json_get(entry, "shape");
  if (!shape || json_type(shape) != JSON_ARRAY || json_len(shape) > RAW_MAX_DIMS)
    return hf_fail(HF_INPUT, "%s: tensor %s: shape is no list of at most %d numbers", path, t->name, RAW_MAX_DIMS);
  for (const json *d = json_first(shape); d; d = json_next(d)) {
    double v = json_number(d, -1);
    if (!(v >= 0 && v <= 9007199254740992.0) || v != (double)(int64_t)v)
      return hf_fail(HF_INPUT, "%s: tensor %s: shape[%d] is no whole number >= 0", path, t->name, t->n_dims);
    t->dims[t->n_dims++] = (int64_t)v;
  }
  return HF_OK;
}

static hf_status parse_offsets(const json *entry, const char *path, uint64_t data_size, const raw_tensor *t, uint64_t *begin,
                               uint64_t *end) {
  const json *offs = json_get(entry, "data_offsets");
  double v[2] = {-1, -1};
  if (offs && json_type(offs) == JSON_ARRAY && json_len(offs) == 2) {
    v[0] = json_number(json_first(offs), -1);
    v[1] = json_number(json_next(json_first(offs)), -1);
  }
  for (int i = 0; i < 2; i++)
    if (!(v[i] >= 0 && v[i] <= 9007199254740992.0) || v[i] != (double)(int64_t)v[i])
      return hf_fail(HF_INPUT, "%s: tensor %s: data_offsets are not two whole numbers >= 0", path, t->name);
  *begin = (uint64_t)v[0];
  *end = (uint64_t)v[1];
  if (*begin > *end || *end > data_size)
    return hf_fail(HF_INPUT, "%s: tensor %s: data_offsets [%llu, %llu] leave the %llu bytes of data; is the file truncated?",
                   path, t->name, (unsigned long long)*begin, (unsigned long long)*end, (unsigned long long)data_size);
  return HF_OK;
}

static hf_status parse_entry(tensor_set *s, int file, const json *entry, uint64_t data_start) {
  const mapped_file *f = &s->files[file];
  const char *path = f->path, *key = json_key(entry);
  raw_tensor t = {.file = file};
  char *name;
  HF_TRY(hf_arena_str(s->arena, &name, key, strlen(key)));
  t.name = name;
  const char *dtype = json_string(json_get(entry, "dtype"));
  if (!dtype) return hf_fail(HF_INPUT, "%s: tensor %s: dtype is missing or no text", path, key);
  int d = 0, n_types = (int)(sizeof dtypes / sizeof *dtypes);
  while (d < n_types && strcmp(dtypes[d].name, dtype)) d++;
  if (d == n_types) return hf_fail(HF_UNSUPPORTED, "%s: tensor %s: dtype %.20s is unknown", path, key, dtype);
  t.format = dtypes[d].format;
  t.dtype = dtypes[d].name;
  HF_TRY(parse_shape(entry, path, &t));
  uint64_t begin, end;
  HF_TRY(parse_offsets(entry, path, f->size - data_start, &t, &begin, &end));
  t.offset = data_start + begin;
  if (!raw_bytes(t.format, dtypes[d].bytes, t.n_dims, t.dims, &t.bytes) || t.bytes != end - begin)
    return hf_fail(HF_INPUT, "%s: tensor %s: shape times %s does not give the %llu bytes of data_offsets", path, key, t.dtype,
                   (unsigned long long)(end - begin));
  return tset_add(s, &t);
}

hf_status st_open(tensor_set *s, const char *path) {
  int file;
  HF_TRY(tset_add_file(s, path, &file));
  const mapped_file *f = &s->files[file];
  if (f->size < 8)
    return hf_fail(HF_INPUT, "%s: %llu bytes are too few for a safetensors file", path, (unsigned long long)f->size);
  uint64_t len = 0;
  for (int i = 7; i >= 0; i--) len = len << 8 | f->data[i];
  if (len > HEADER_LIMIT || len > f->size - 8)
    return hf_fail(HF_INPUT, "%s: header length %llu is over %s", path, (unsigned long long)len,
                   len > HEADER_LIMIT ? "the limit of 100 MiB" : "the file's size; is it truncated?");
  json *head = NULL;
  HF_TRY(json_parse((const char *)f->data + 8, (size_t)len, path, &head));
  hf_status st = HF_OK;
  size_t first = s->n;
  bool whole = true; /* no entry was left out as faulty */
  if (json_type(head) != JSON_OBJECT) st = hf_fail(HF_INPUT, "%s: the header is no JSON object", path);
  for (const json *e = json_first(head); e && st == HF_OK; e = json_next(e))
    if (strcmp(json_key(e), "__metadata__")) {
      size_t before = s->n;
      st = tset_fault(s, parse_entry(s, file, e, 8 + len));
      whole = whole && s->n > before;
    }
  json_free(head);
  if (st == HF_OK && whole) st = tset_check_layout(s, first, 8 + len, f->size, true);
  return st;
}

static bool exists(const char *path) {
  struct stat st;
  return stat(path, &st) == 0;
}

static int by_text(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Distinct file names of the index's weight_map, sorted; strings belong to the document. */
static hf_status shard_names(const json *map, const char *where, const char ***out, int *n_out) {
  int n = json_len(map);
  if (!map || json_type(map) != JSON_OBJECT || n == 0) return hf_fail(HF_INPUT, "%s: weight_map is missing or empty", where);
  const char **names = NULL;
  HF_TRY(hf_alloc(&names, (size_t)n, sizeof *names, "shard names"));
  int i = 0;
  for (const json *e = json_first(map); e; e = json_next(e)) {
    const char *v = json_string(e);
    if (!v || !*v || strchr(v, '/') || v[0] == '.') {
      hf_status st = hf_fail(HF_INPUT, "%s: weight_map: %.80s names no file of this folder", where, json_key(e));
      free(names);
      return st;
    }
    names[i++] = v;
  }
  qsort(names, (size_t)n, sizeof *names, by_text);
  int k = 0;
  for (i = 0; i < n; i++)
    if (k == 0 || strcmp(names[k - 1], names[i])) names[k++] = names[i];
  *out = names;
  *n_out = k;
  return HF_OK;
}

/* Every tensor of the index lies in the shard that the index names; when faults are collected, also the other way round. */
static hf_status check_index(const tensor_set *s, const json *map, const char *where) {
  bool *named = NULL;
  hf_status st = hf_alloc(&named, s->n + 1, sizeof *named, "tensors of the index");
  for (const json *e = json_first(map); e && st == HF_OK; e = json_next(e)) {
    const raw_tensor *t = tset_find(s, json_key(e));
    const char *file = t ? strrchr(s->files[t->file].path, '/') : NULL;
    if (t) named[t - s->v] = true;
    if (!t || !file || strcmp(file + 1, json_string(e)))
      st = tset_fault(s, hf_fail(HF_INPUT, "%s: weight_map: tensor %.120s is not in %.120s", where, json_key(e), json_string(e)));
  }
  for (size_t i = 0; s->fault && i < s->n && st == HF_OK; i++)
    if (!named[i])
      st = tset_fault(s, hf_fail(HF_INPUT, "%s: weight_map: tensor %.120s of %s is not named", where, s->v[i].name,
                                 s->files[s->v[i].file].path));
  free(named);
  return st;
}

static hf_status open_shards(tensor_set *s, const char *folder, const json *index, const char *where, const char **missing) {
  const json *map = json_get(index, "weight_map");
  const char **names = NULL;
  int n = 0;
  HF_TRY(shard_names(map, where, &names, &n));
  hf_status st = HF_OK;
  char path[4096];
  for (int i = 0; i < n && !*missing && st == HF_OK; i++) {
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, names[i]) >= sizeof path)
      st = hf_fail(HF_INPUT, "%s: path too long", folder);
    else if (!exists(path)) {
      char *text;
      st = hf_arena_str(s->arena, &text, path, strlen(path));
      if (st == HF_OK && !s->fault) *missing = text;
      if (st == HF_OK && s->fault) st = tset_fault(s, hf_fail(HF_NOT_FOUND, "%s: does not exist", path));
    }
  }
  for (int i = 0; i < n && !*missing && st == HF_OK; i++) {
    snprintf(path, sizeof path, "%s/%s", folder, names[i]);
    if (!s->fault || exists(path)) st = tset_fault(s, st_open(s, path));
  }
  free(names);
  if (st == HF_OK && !*missing) st = tset_index(s);
  if (st == HF_OK && !*missing) st = check_index(s, map, where);
  return st;
}

hf_status st_open_folder(tensor_set *s, const char *folder, const char **missing) {
  char path[4096];
  *missing = NULL;
  if ((size_t)snprintf(path, sizeof path, "%s/model.safetensors.index.json", folder) >= sizeof path)
    return hf_fail(HF_INPUT, "%s: path too long", folder);
  if (exists(path)) {
    json *index = NULL;
    HF_TRY(json_read_file(path, INDEX_LIMIT, &index));
    hf_status st = open_shards(s, folder, index, path, missing);
    json_free(index);
    return st;
  }
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  if (!exists(path)) {
    char *text;
    HF_TRY(hf_arena_str(s->arena, &text, path, strlen(path)));
    *missing = text;
    return HF_OK;
  }
  HF_TRY(st_open(s, path));
  return tset_index(s);
}
