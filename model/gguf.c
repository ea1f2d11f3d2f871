/* gguf.c: see gguf.h. */
#include "model/gguf.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_KV = 4096, MAX_TENSORS = 1 << 20, MAX_KEY = 65535, LEAST_KV_BYTES = 13, LEAST_TENSOR_BYTES = 24 };

typedef struct {
  const uint8_t *bytes;
  size_t n, at;
  const char *where;
} cursor;

static size_t scalar_bytes(gguf_type t) {
  switch (t) {
  case GGUF_U8: case GGUF_I8: case GGUF_BOOL: return 1;
  case GGUF_U16: case GGUF_I16: return 2;
  case GGUF_U32: case GGUF_I32: case GGUF_F32: return 4;
  case GGUF_U64: case GGUF_I64: case GGUF_F64: return 8;
  default: return 0;
  }
}

static uint64_t load(const uint8_t *p, size_t n) {
  uint64_t v = 0;
  for (size_t i = 0; i < n; i++) v |= (uint64_t)p[i] << (8 * i);
  return v;
}

static hf_status truncated(const cursor *c, const char *what) {
  return hf_fail(HF_INPUT, "%s: the file ends inside %s (byte %zu of %zu)", c->where, what, c->at, c->n);
}

static hf_status take(cursor *c, size_t bytes, const char *what, uint64_t *out) {
  if (c->n - c->at < bytes) return truncated(c, what);
  *out = load(c->bytes + c->at, bytes);
  c->at += bytes;
  return HF_OK;
}

static hf_status take_str(cursor *c, const char *what, gguf_str *out) {
  uint64_t n;
  HF_TRY(take(c, 8, what, &n));
  if (n > c->n - c->at) return truncated(c, what);
  *out = (gguf_str){(const char *)c->bytes + c->at, (size_t)n};
  c->at += (size_t)n;
  return HF_OK;
}

/* Moves over kv->n elements of type t. */
static hf_status take_values(cursor *c, gguf_kv *kv, gguf_type t) {
  kv->data = c->bytes + c->at;
  size_t begin = c->at;
  if (t == GGUF_STRING) {
    if (kv->n > (c->n - c->at) / 8) return truncated(c, "the metadata");
    gguf_str s;
    for (uint64_t i = 0; i < kv->n; i++) HF_TRY(take_str(c, "a string of the metadata", &s));
  } else {
    size_t each = scalar_bytes(t);
    if (kv->n > (c->n - c->at) / each) return truncated(c, "the metadata");
    c->at += (size_t)kv->n * each;
  }
  kv->bytes = c->at - begin;
  return HF_OK;
}

static hf_status take_kv(cursor *c, gguf_kv *kv) {
  HF_TRY(take_str(c, "a metadata key", &kv->key));
  if (kv->key.n == 0 || kv->key.n > MAX_KEY || memchr(kv->key.s, 0, kv->key.n)) {
    return hf_fail(HF_INPUT, "%s: a metadata key of %zu bytes is not valid", c->where, kv->key.n);
  }
  uint64_t type, elem;
  HF_TRY(take(c, 4, "the metadata", &type));
  kv->n = 1;
  elem = type;
  if (type == GGUF_ARRAY) {
    HF_TRY(take(c, 4, "the metadata", &elem));
    HF_TRY(take(c, 8, "the metadata", &kv->n));
  }
  if (elem >= GGUF_TYPE_N || elem == GGUF_ARRAY) {
    return hf_fail(HF_INPUT, "%s: metadata %.*s: value type %llu is not known", c->where, (int)(kv->key.n < 80 ? kv->key.n : 80),
                   kv->key.s, (unsigned long long)elem);
  }
  kv->type = (gguf_type)type;
  kv->elem = (gguf_type)elem;
  return take_values(c, kv, kv->elem);
}

static hf_status take_tensor(cursor *c, gguf_tensor *t) {
  HF_TRY(take_str(c, "a tensor name", &t->name));
  int shown = (int)(t->name.n < 80 ? t->name.n : 80);
  if (t->name.n == 0 || memchr(t->name.s, 0, t->name.n)) return hf_fail(HF_INPUT, "%s: a tensor name is not valid", c->where);
  uint64_t n_dims, type;
  HF_TRY(take(c, 4, "the tensor table", &n_dims));
  if (n_dims > GGUF_MAX_DIMS) {
    return hf_fail(HF_INPUT, "%s: tensor %.*s: %llu dimensions are more than %d", c->where, shown, t->name.s,
                   (unsigned long long)n_dims, GGUF_MAX_DIMS);
  }
  t->n_dims = (int)n_dims;
  int64_t product = 1;
  for (int i = 0; i < t->n_dims; i++) {
    uint64_t d;
    HF_TRY(take(c, 8, "the tensor table", &d));
    if (d == 0 || d > INT64_MAX || __builtin_mul_overflow(product, (int64_t)d, &product)) {
      return hf_fail(HF_INPUT, "%s: tensor %.*s: dimension %d is %llu", c->where, shown, t->name.s, i, (unsigned long long)d);
    }
    t->dims[i] = (int64_t)d;
  }
  HF_TRY(take(c, 4, "the tensor table", &type));
  t->type = (uint32_t)type;
  return take(c, 8, "the tensor table", &t->offset);
}

static hf_status check_keys(const gguf *g) {
  /* files carry a few dozen keys; the square stays small because MAX_KV bounds it and keys differ early */
  for (size_t i = 0; i < g->n_kv; i++) {
    for (size_t k = i + 1; k < g->n_kv; k++) {
      gguf_str a = g->kv[i].key, b = g->kv[k].key;
      if (a.n == b.n && memcmp(a.s, b.s, a.n) == 0) {
        return hf_fail(HF_INPUT, "%s: metadata %.*s is given twice", g->where, (int)(a.n < 80 ? a.n : 80), a.s);
      }
    }
  }
  return HF_OK;
}

static hf_status place_tensors(gguf *g, cursor *c) {
  int64_t alignment = 32;
  HF_TRY(gguf_opt_int(g, "general.alignment", 1, 1 << 20, &alignment));
  if (alignment & (alignment - 1)) {
    return hf_fail(HF_INPUT, "%s: metadata general.alignment: %lld is no power of two", g->where, (long long)alignment);
  }
  g->alignment = (uint64_t)alignment;
  g->data_begin = (c->at + g->alignment - 1) & ~(g->alignment - 1);
  /* a vocabulary-only file may end without the padding */
  if (g->data_begin > c->n) {
    if (g->n_tensors > 0) return truncated(c, "the padding before the tensors");
    g->data_begin = c->n;
  }
  for (size_t i = 0; i < g->n_tensors; i++) {
    gguf_tensor *t = &g->tensor[i];
    int shown = (int)(t->name.n < 80 ? t->name.n : 80);
    if (t->offset % g->alignment != 0) {
      return hf_fail(HF_INPUT, "%s: tensor %.*s: offset %llu is not aligned to %llu", g->where, shown, t->name.s,
                     (unsigned long long)t->offset, (unsigned long long)g->alignment);
    }
    if (t->offset > c->n - g->data_begin) {
      return hf_fail(HF_INPUT, "%s: tensor %.*s: offset %llu lies behind the end of the file", g->where, shown, t->name.s,
                     (unsigned long long)t->offset);
    }
    t->offset += g->data_begin;
  }
  return HF_OK;
}

bool gguf_is(const uint8_t *bytes, size_t n) {
  return n >= 4 && memcmp(bytes, "GGUF", 4) == 0;
}

static hf_status parse(cursor *c, gguf *g) {
  uint64_t version, n_tensors, n_kv;
  HF_TRY(take(c, 4, "the header", &version));
  if (version != 2 && version != 3) {
    return hf_fail(HF_UNSUPPORTED, "%s: GGUF version %llu is not supported (2 and 3 are)", g->where, (unsigned long long)version);
  }
  g->version = (uint32_t)version;
  HF_TRY(take(c, 8, "the header", &n_tensors));
  HF_TRY(take(c, 8, "the header", &n_kv));
  size_t left = c->n - c->at;
  if (n_kv > MAX_KV || n_kv > left / LEAST_KV_BYTES) {
    return hf_fail(HF_INPUT, "%s: %llu metadata entries do not fit the file", g->where, (unsigned long long)n_kv);
  }
  if (n_tensors > MAX_TENSORS || n_tensors > left / LEAST_TENSOR_BYTES) {
    return hf_fail(HF_INPUT, "%s: %llu tensors do not fit the file", g->where, (unsigned long long)n_tensors);
  }
  HF_TRY(hf_alloc(&g->kv, (size_t)n_kv + 1, sizeof *g->kv, "GGUF metadata"));
  HF_TRY(hf_alloc(&g->tensor, (size_t)n_tensors + 1, sizeof *g->tensor, "GGUF tensor table"));
  for (; g->n_kv < n_kv; g->n_kv++) HF_TRY(take_kv(c, &g->kv[g->n_kv]));
  HF_TRY(check_keys(g));
  for (; g->n_tensors < n_tensors; g->n_tensors++) HF_TRY(take_tensor(c, &g->tensor[g->n_tensors]));
  return place_tensors(g, c);
}

hf_status gguf_parse(const uint8_t *bytes, size_t n, const char *where, gguf *out) {
  if (!gguf_is(bytes, n)) return hf_fail(HF_INPUT, "%s: no GGUF file (the magic is missing)", where);
  cursor c = {bytes, n, 4, where};
  gguf g = {.where = where};
  hf_status st = parse(&c, &g);
  if (st != HF_OK) {
    gguf_free(&g);
    return st;
  }
  *out = g;
  return HF_OK;
}

void gguf_free(gguf *g) {
  free(g->kv);
  free(g->tensor);
  *g = (gguf){0};
}

/* --- look-ups ---------------------------------------------------------------------------------------------------- */

bool gguf_str_is(gguf_str a, const char *b) {
  return a.n == strlen(b) && memcmp(a.s, b, a.n) == 0;
}

const gguf_kv *gguf_find(const gguf *g, const char *key) {
  for (size_t i = 0; i < g->n_kv; i++) {
    if (gguf_str_is(g->kv[i].key, key)) return &g->kv[i];
  }
  return NULL;
}

static hf_status missing(const gguf *g, const char *key) {
  return hf_fail(HF_INPUT, "%s: metadata %s is missing", g->where, key);
}

static hf_status wrong(const gguf *g, const char *key, const char *expected) {
  return hf_fail(HF_INPUT, "%s: metadata %s is no %s", g->where, key, expected);
}

static bool int_of(gguf_type t, const uint8_t *p, int64_t *out) {
  uint64_t raw = load(p, scalar_bytes(t));
  switch (t) {
  case GGUF_U8: case GGUF_U16: case GGUF_U32: *out = (int64_t)raw; return true;
  case GGUF_U64:
    *out = raw > INT64_MAX ? INT64_MAX : (int64_t)raw;
    return true;
  case GGUF_I8: *out = (int8_t)raw; return true;
  case GGUF_I16: *out = (int16_t)raw; return true;
  case GGUF_I32: *out = (int32_t)raw; return true;
  case GGUF_I64: *out = (int64_t)raw; return true;
  default: return false;
  }
}

static bool num_of(gguf_type t, const uint8_t *p, double *out) {
  int64_t i;
  if (t == GGUF_F32) {
    uint32_t bits = (uint32_t)load(p, 4);
    float f;
    memcpy(&f, &bits, sizeof f);
    *out = f;
  } else if (t == GGUF_F64) {
    uint64_t bits = load(p, 8);
    memcpy(out, &bits, sizeof *out);
  } else if (int_of(t, p, &i)) {
    *out = (double)i;
  } else {
    return false;
  }
  return true;
}

hf_status gguf_opt_int(const gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out) {
  const gguf_kv *kv = gguf_find(g, key);
  if (!kv) return HF_OK;
  int64_t v;
  if (kv->type == GGUF_ARRAY || !int_of(kv->type, kv->data, &v)) return wrong(g, key, "integer");
  if (v < lo || v > hi) {
    return hf_fail(HF_INPUT, "%s: metadata %s: %lld lies outside %lld..%lld", g->where, key, (long long)v, (long long)lo, (long long)hi);
  }
  *out = v;
  return HF_OK;
}

hf_status gguf_opt_num(const gguf *g, const char *key, double lo, double hi, double *out) {
  const gguf_kv *kv = gguf_find(g, key);
  if (!kv) return HF_OK;
  double v;
  if (kv->type == GGUF_ARRAY || !num_of(kv->type, kv->data, &v)) return wrong(g, key, "number");
  if (!(v >= lo && v <= hi)) return hf_fail(HF_INPUT, "%s: metadata %s: %g lies outside %g..%g", g->where, key, v, lo, hi);
  *out = v;
  return HF_OK;
}

hf_status gguf_opt_str(const gguf *g, const char *key, gguf_str *out) {
  const gguf_kv *kv = gguf_find(g, key);
  if (!kv) return HF_OK;
  if (kv->type != GGUF_STRING) return wrong(g, key, "string");
  const uint8_t *at = kv->data;
  *out = gguf_next_str(&at);
  return HF_OK;
}

hf_status gguf_opt_bool(const gguf *g, const char *key, bool *out) {
  const gguf_kv *kv = gguf_find(g, key);
  if (!kv) return HF_OK;
  if (kv->type != GGUF_BOOL || kv->data[0] > 1) return wrong(g, key, "truth value");
  *out = kv->data[0] != 0;
  return HF_OK;
}

hf_status gguf_get_int(const gguf *g, const char *key, int64_t lo, int64_t hi, int64_t *out) {
  return gguf_find(g, key) ? gguf_opt_int(g, key, lo, hi, out) : missing(g, key);
}

hf_status gguf_get_num(const gguf *g, const char *key, double lo, double hi, double *out) {
  return gguf_find(g, key) ? gguf_opt_num(g, key, lo, hi, out) : missing(g, key);
}

hf_status gguf_get_str(const gguf *g, const char *key, gguf_str *out) {
  return gguf_find(g, key) ? gguf_opt_str(g, key, out) : missing(g, key);
}

hf_status gguf_int_at(const gguf *g, const gguf_kv *kv, uint64_t i, int64_t *out) {
  size_t each = scalar_bytes(kv->elem);
  if (i < kv->n && each > 0 && int_of(kv->elem, kv->data + i * each, out)) return HF_OK;
  return hf_fail(HF_INPUT, "%s: metadata %.*s holds no integers", g->where, (int)(kv->key.n < 80 ? kv->key.n : 80), kv->key.s);
}

gguf_str gguf_next_str(const uint8_t **at) {
  size_t n = (size_t)load(*at, 8);
  gguf_str s = {(const char *)*at + 8, n};
  *at += 8 + n;
  return s;
}
