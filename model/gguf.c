/* gguf.c: reading GGUF files. Every length is checked against the bytes that remain before it is used. */
#include "model/gguf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KV = 1 << 16, MAX_NAME = 256, MAX_KEY = 512 };

static const struct {
  const char *name;
  int bytes; /* 0: variable */
} types[GGUF_TYPES] = {{"u8", 1},   {"i8", 1},     {"u16", 2},   {"i16", 2}, {"u32", 4}, {"i32", 4}, {"f32", 4},
                       {"bool", 1}, {"string", 0}, {"array", 0}, {"u64", 8}, {"i64", 8}, {"f64", 8}};

typedef struct {
  const char *path;
  const uint8_t *p, *end;
  uint64_t size;
} reader;

uint64_t gguf_le(const uint8_t *p, int n) {
  uint64_t v = 0;
  for (int i = n - 1; i >= 0; i--) v = v << 8 | p[i];
  return v;
}

static hf_status take(reader *r, uint64_t n, const char *what, const uint8_t **out) {
  if (n > (uint64_t)(r->end - r->p))
    return hf_fail(HF_INPUT, "%s: %s: %llu bytes wanted where the file has %llu left; is it truncated?", r->path, what,
                   (unsigned long long)n, (unsigned long long)(r->end - r->p));
  *out = r->p;
  r->p += n;
  return HF_OK;
}

static hf_status take_uint(reader *r, int bytes, const char *what, uint64_t *out) {
  const uint8_t *p;
  HF_TRY(take(r, (uint64_t)bytes, what, &p));
  *out = gguf_le(p, bytes);
  return HF_OK;
}

static hf_status take_str(reader *r, const char *what, uint64_t max, const uint8_t **s, uint64_t *n) {
  HF_TRY(take_uint(r, 8, what, n));
  if (*n > max)
    return hf_fail(HF_INPUT, "%s: %s: a text of %llu bytes is over the limit of %llu", r->path, what, (unsigned long long)*n,
                   (unsigned long long)max);
  return take(r, *n, what, s);
}

/* Names go into error lines and C strings: no NUL inside. */
static hf_status take_name(reader *r, hf_arena *a, const char *what, uint64_t max, const char **out) {
  const uint8_t *s;
  uint64_t n;
  HF_TRY(take_str(r, what, max, &s, &n));
  if (n == 0 || memchr(s, 0, (size_t)n)) return hf_fail(HF_INPUT, "%s: %s: empty or with a zero byte inside", r->path, what);
  char *copy;
  HF_TRY(hf_arena_str(a, &copy, (const char *)s, (size_t)n));
  *out = copy;
  return HF_OK;
}

static hf_status skip_array(reader *r, gguf_kv *kv) {
  uint64_t elem;
  HF_TRY(take_uint(r, 4, kv->key, &elem));
  HF_TRY(take_uint(r, 8, kv->key, &kv->count));
  if (elem >= GGUF_TYPES || elem == GGUF_ARRAY)
    return hf_fail(HF_INPUT, "%s: %s: array of type %llu", r->path, kv->key, (unsigned long long)elem);
  kv->elem = (gguf_type)elem;
  kv->value = r->p;
  const uint8_t *s;
  uint64_t n;
  if (elem == GGUF_STR) {
    if (kv->count > (uint64_t)(r->end - r->p) / 8)
      return hf_fail(HF_INPUT, "%s: %s: array of %llu texts is longer than the rest of the file; is it truncated?", r->path,
                     kv->key, (unsigned long long)kv->count);
    for (uint64_t i = 0; i < kv->count; i++) HF_TRY(take_str(r, kv->key, r->size, &s, &n));
    return HF_OK;
  }
  if (__builtin_mul_overflow(kv->count, (uint64_t)types[elem].bytes, &n)) n = UINT64_MAX;
  return take(r, n, kv->key, &s);
}

static hf_status take_kv(reader *r, hf_arena *a, gguf_kv *kv) {
  uint64_t type, n;
  const uint8_t *s;
  HF_TRY(take_name(r, a, "metadata key", MAX_KEY, &kv->key));
  HF_TRY(take_uint(r, 4, kv->key, &type));
  if (type >= GGUF_TYPES)
    return hf_fail(HF_INPUT, "%s: %s: metadata type %llu is unknown", r->path, kv->key, (unsigned long long)type);
  kv->type = (gguf_type)type;
  if (type == GGUF_ARRAY) return skip_array(r, kv);
  kv->value = r->p;
  if (type == GGUF_STR) return take_str(r, kv->key, r->size, &s, &n);
  return take(r, (uint64_t)types[type].bytes, kv->key, &s);
}

/* Types of GGUF that hold no weights for us, by ggml number. */
static bool plain_type(uint64_t t, const char **name, int *bytes) {
  static const struct {
    uint64_t id;
    const char *name;
    int bytes;
  } plain[] = {{24, "I8", 1}, {25, "I16", 2}, {26, "I32", 4}, {27, "I64", 8}, {28, "F64", 8}};
  for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
    if (plain[i].id == t) {
      *name = plain[i].name;
      *bytes = plain[i].bytes;
      return true;
    }
  return false;
}

static hf_status take_tensor(reader *r, tensor_set *s, int file) {
  raw_tensor t = {.file = file};
  uint64_t nd, type;
  HF_TRY(take_name(r, s->arena, "tensor name", MAX_NAME, &t.name));
  HF_TRY(take_uint(r, 4, t.name, &nd));
  if (nd < 1 || nd > RAW_MAX_DIMS)
    return hf_fail(HF_INPUT, "%s: tensor %s: %llu dimensions; 1 to %d are possible", r->path, t.name, (unsigned long long)nd,
                   RAW_MAX_DIMS);
  t.n_dims = (int)nd;
  for (int i = t.n_dims - 1; i >= 0; i--) { /* the file has the innermost first */
    uint64_t d;
    HF_TRY(take_uint(r, 8, t.name, &d));
    if (d < 1 || d > (uint64_t)1 << 40)
      return hf_fail(HF_INPUT, "%s: tensor %s: dimension %llu", r->path, t.name, (unsigned long long)d);
    t.dims[i] = (int64_t)d;
  }
  HF_TRY(take_uint(r, 4, t.name, &type));
  HF_TRY(take_uint(r, 8, t.name, &t.offset));
  int elem = 0;
  if (type < 1000 && fmt_from_ggml((int)type, &t.format)) t.dtype = fmt_get(t.format)->name;
  else if (plain_type(type, &t.dtype, &elem)) t.format = FMT_OTHER;
  else return hf_fail(HF_UNSUPPORTED, "%s: tensor %s: ggml type %llu is unknown", r->path, t.name, (unsigned long long)type);
  if (!raw_bytes(t.format, elem, t.n_dims, t.dims, &t.bytes))
    return hf_fail(HF_INPUT, "%s: tensor %s: a row of %lld values is no multiple of %s's block, or its size overflows", r->path,
                   t.name, (long long)t.dims[t.n_dims - 1], t.dtype);
  return tset_add(s, &t);
}

/* Offsets become absolute; all must lie inside the file. */
static hf_status place_tensors(reader *r, tensor_set *s, size_t first, uint64_t align, gguf_file *g) {
  uint64_t header = r->size - (uint64_t)(r->end - r->p), start = (header + align - 1) / align * align, total = 0;
  for (size_t i = first; i < s->n; i++) {
    raw_tensor *t = &s->v[i];
    if (t->offset % align)
      return hf_fail(HF_INPUT, "%s: tensor %s: offset %llu is no multiple of the alignment %llu", r->path, t->name,
                     (unsigned long long)t->offset, (unsigned long long)align);
    uint64_t end;
    if (__builtin_add_overflow(t->offset, t->bytes, &end) || end > UINT64_MAX / 4)
      return hf_fail(HF_INPUT, "%s: tensor %s: offset %llu is out of range", r->path, t->name, (unsigned long long)t->offset);
    if (end > total) total = end;
    t->offset += start;
  }
  g->header_only = total > 0 && r->size <= start;
  if (!g->header_only && total > 0)
    for (size_t i = first; i < s->n; i++)
      if (s->v[i].offset + s->v[i].bytes > r->size)
        HF_TRY(tset_fault(s, hf_fail(HF_INPUT, "%s: tensor %s: ends at byte %llu of a file of %llu; is it truncated?", r->path,
                                     s->v[i].name, (unsigned long long)(s->v[i].offset + s->v[i].bytes),
                                     (unsigned long long)r->size)));
  return tset_fault(s, tset_check_layout(s, first, start, 0, false));
}

static int by_text(const void *a, const void *b) {
  return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static hf_status check_keys(const gguf_file *g) {
  const char **keys;
  hf_status st = HF_OK;
  HF_TRY(hf_alloc(&keys, (size_t)g->n_kv, sizeof *keys, "metadata keys"));
  for (uint64_t i = 0; i < g->n_kv; i++) keys[i] = g->kv[i].key;
  if (g->n_kv > 1) qsort(keys, (size_t)g->n_kv, sizeof *keys, by_text);
  for (uint64_t i = 1; i < g->n_kv && st == HF_OK; i++)
    if (!strcmp(keys[i - 1], keys[i])) st = hf_fail(HF_INPUT, "%s: metadata key %s appears twice", g->path, keys[i]);
  free(keys);
  return st;
}

hf_status gguf_open(tensor_set *s, const char *path, gguf_file *g) {
  memset(g, 0, sizeof *g);
  int file;
  HF_TRY(tset_add_file(s, path, &file));
  const mapped_file *f = &s->files[file];
  static const uint8_t nothing[1];
  const uint8_t *data = f->data ? f->data : nothing, *p;
  reader r = {f->path, data, data + f->size, f->size};
  g->path = f->path;
  uint64_t version;
  HF_TRY(take(&r, 4, "magic", &p));
  if (memcmp(p, "GGUF", 4)) return hf_fail(HF_INPUT, "%s: not a GGUF file (magic is missing)", path);
  HF_TRY(take_uint(&r, 4, "version", &version));
  if (version != 2 && version != 3)
    return hf_fail(HF_UNSUPPORTED, "%s: GGUF version %llu; known: 2 and 3%s", path, (unsigned long long)version,
                   version > 0xffff ? " in little-endian order" : "");
  HF_TRY(take_uint(&r, 8, "tensor_count", &g->n_tensors));
  HF_TRY(take_uint(&r, 8, "metadata_kv_count", &g->n_kv));
  if (g->n_kv > MAX_KV || g->n_tensors > f->size / 24)
    return hf_fail(HF_INPUT, "%s: %llu metadata entries and %llu tensors cannot be in a file of %llu bytes; is it truncated?",
                   path, (unsigned long long)g->n_kv, (unsigned long long)g->n_tensors, (unsigned long long)f->size);
  HF_TRY(hf_arena_get(s->arena, &g->kv, (size_t)g->n_kv + 1, sizeof *g->kv));
  for (uint64_t i = 0; i < g->n_kv; i++) {
    HF_TRY(take_kv(&r, s->arena, &g->kv[i]));
    g->kv[i].bytes = (uint64_t)(r.p - g->kv[i].value);
  }
  HF_TRY(check_keys(g));
  int64_t align = 32;
  HF_TRY(gguf_opt_int(g, "general.alignment", 8, 1 << 20, &align));
  if (align & (align - 1)) return hf_fail(HF_INPUT, "%s: general.alignment: %lld is no power of two", path, (long long)align);
  size_t first = s->n;
  for (uint64_t i = 0; i < g->n_tensors; i++) HF_TRY(take_tensor(&r, s, file));
  return place_tensors(&r, s, first, (uint64_t)align, g);
}

/* ---- getters ---- */

const gguf_kv *gguf_find(const gguf_file *g, const char *key) {
  for (uint64_t i = 0; i < g->n_kv; i++)
    if (!strcmp(g->kv[i].key, key)) return &g->kv[i];
  return NULL;
}

static hf_status wrong_type(const gguf_file *g, const gguf_kv *kv, const char *wanted) {
  return hf_fail(HF_INPUT, "%s: %s: is of type %s, %s was expected", g->path, kv->key, types[kv->type].name, wanted);
}

static bool read_int(gguf_type type, const uint8_t *p, int64_t *out) {
  uint64_t u;
  switch (type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
      u = gguf_le(p, types[type].bytes);
      *out = u > INT64_MAX ? INT64_MAX : (int64_t)u;
      return true;
    case GGUF_I8: *out = (int8_t)p[0]; return true;
    case GGUF_I16: *out = (int16_t)gguf_le(p, 2); return true;
    case GGUF_I32: *out = (int32_t)gguf_le(p, 4); return true;
    case GGUF_I64: *out = (int64_t)gguf_le(p, 8); return true;
    default: return false;
  }
}

bool gguf_int_at(const gguf_kv *kv, uint64_t i, int64_t *out) {
  return read_int(kv->elem, kv->value + i * (uint64_t)types[kv->elem].bytes, out);
}

/* head_count_kv and the like may be arrays with one value a layer: all must be equal. */
static hf_status array_int(const gguf_file *g, const gguf_kv *kv, int64_t *out) {
  int64_t v = 0;
  if (types[kv->elem].bytes == 0 || kv->count == 0) return wrong_type(g, kv, "a whole number");
  for (uint64_t i = 0; i < kv->count; i++) {
    if (!gguf_int_at(kv, i, &v)) return wrong_type(g, kv, "a whole number");
    if (i && v != *out) return hf_fail(HF_UNSUPPORTED, "%s: %s: differs from layer to layer", g->path, kv->key);
    *out = v;
  }
  return HF_OK;
}

hf_status gguf_opt_int(const gguf_file *g, const char *key, int64_t lo, int64_t hi, int64_t *out) {
  const gguf_kv *kv = gguf_find(g, key);
  if (!kv) return HF_OK;
  int64_t v = 0;
  if (kv->type == GGUF_ARRAY) HF_TRY(array_int(g, kv, &v));
  else if (!read_int(kv->type, kv->value, &v)) return wrong_type(g, kv, "a whole number");
  if (v < lo || v > hi)
    return hf_fail(HF_INPUT, "%s: %s: %lld is not between %lld and %lld", g->path, key, (long long)v, (long long)lo,
                   (long long)hi);
  *out = v;
  return HF_OK;
}

/* 0.1f means 0.1: the shortest decimal that gives the same float, so that a GGUF and its config.json agree. */
static double meant_by(float f) {
  char buf[40];
  for (int digits = 6; digits < 9; digits++) {
    snprintf(buf, sizeof buf, "%.*g", digits, (double)f);
    double d = strtod(buf, NULL);
    if ((float)d == f) return d;
  }
  return f;
}

hf_status gguf_opt_num(const gguf_file *g, const char *key, double lo, double hi, double *out) {
  const gguf_kv *kv = gguf_find(g, key);
  if (!kv) return HF_OK;
  double v;
  int64_t i;
  if (kv->type == GGUF_F32) {
    uint32_t u = (uint32_t)gguf_le(kv->value, 4);
    float f;
    memcpy(&f, &u, sizeof f);
    v = isfinite(f) ? meant_by(f) : f;
  } else if (kv->type == GGUF_F64) {
    uint64_t u = gguf_le(kv->value, 8);
    memcpy(&v, &u, sizeof v);
  } else if (read_int(kv->type, kv->value, &i)) v = (double)i;
  else return wrong_type(g, kv, "a number");
  if (!(v >= lo && v <= hi)) return hf_fail(HF_INPUT, "%s: %s: %g is not between %g and %g", g->path, key, v, lo, hi);
  *out = v;
  return HF_OK;
}

hf_status gguf_opt_bool(const gguf_file *g, const char *key, bool *out) {
  const gguf_kv *kv = gguf_find(g, key);
  if (!kv) return HF_OK;
  if (kv->type != GGUF_BOOL) return wrong_type(g, kv, "bool");
  if (kv->value[0] > 1) return hf_fail(HF_INPUT, "%s: %s: %d is neither 0 nor 1", g->path, key, kv->value[0]);
  *out = kv->value[0] == 1;
  return HF_OK;
}

hf_status gguf_opt_str(const gguf_file *g, const char *key, char *buf, size_t n) {
  const gguf_kv *kv = gguf_find(g, key);
  if (!kv) return HF_OK;
  if (kv->type != GGUF_STR) return wrong_type(g, kv, "string");
  uint64_t len = gguf_le(kv->value, 8);
  size_t k = len < n - 1 ? (size_t)len : n - 1;
  memcpy(buf, kv->value + 8, k);
  buf[k] = 0;
  return HF_OK;
}
