/* kv.c: tokens into the KV cache and back. */
#include <string.h>

#include "kernels/half.h"
#include "kernels/layouts.h"

static const char *const names[KV_N] = {"f32", "f16", "bf16", "q8_0"};

const char *kern_kv_name(kern_kv_type t) {
  return (unsigned)t < KV_N ? names[t] : "?";
}

bool kern_kv_parse(const char *name, kern_kv_type *out) {
  for (int t = 0; t < KV_N; t++) {
    if (strcmp(name, names[t]) != 0) continue;
    *out = (kern_kv_type)t;
    return true;
  }
  return false;
}

static int blocks_of(const kern_kv_shape *s) {
  return s->n_heads ? s->n_heads * (q8b32_blocks(s->k) + q8b32_blocks(s->v)) : q8b32_blocks(s->k + s->v);
}

static size_t numbers_of(const kern_kv_shape *s) {
  return (size_t)(s->n_heads ? s->n_heads : 1) * (size_t)(s->k + s->v);
}

size_t kern_kv_row_bytes(kern_kv_type t, const kern_kv_shape *s) {
  if (t == KV_Q8_0) return (size_t)blocks_of(s) * Q8_BLOCK_BYTES;
  return numbers_of(s) * (t == KV_F32 ? 4 : 2);
}

enum { AT_ONCE = 256 };

/* Numbers of a head, or of a row of MLA, which lie in up to two places. */
typedef struct {
  const float *part[2];
  int n[2];
} numbers;

/* Numbers [at, at + AT_ONCE) as Q8B32; returns how many there are, a multiple of a block, zeros behind the last. */
static int quantise(const numbers *x, int at, char *packed) {
  _Alignas(64) float all[AT_ONCE] = {0};
  const int end = x->n[0] + x->n[1] - at, n = end < AT_ONCE ? end : AT_ONCE;
  const float *from = x->part[0] + at;
  if (at + n > x->n[0]) { /* not in one place */
    for (int i = 0; i < n; i++) all[i] = at + i < x->n[0] ? x->part[0][at + i] : x->part[1][at + i - x->n[0]];
    from = all;
  }
  kern_get()->pack[KA_Q8B32](from, n, packed);
  return q8b32_blocks(n) * Q8_BLOCK;
}

static void put_scale(char *at, float d) {
  const uint16_t h = half_to_f16(d);
  memcpy(at, &h, sizeof h);
}

/* A head's keys or values of token t of a group. keys: four dimensions together, those of 16 tokens side by side. */
static void write_part(const numbers *x, int t, bool keys, char *q, char *scales) {
  _Alignas(64) char packed[Q8B32_BYTES_OF_256];
  const int all = q8b32_blocks(x->n[0]) * Q8_BLOCK;
  for (int at = 0, n; at < all; at += n) {
    n = quantise(x, at, packed);
    const float *d = (const float *)(const void *)(packed + q8b32_scales_offset(n));
    for (int b = 0; b < n / Q8_BLOCK; b++) put_scale(scales + (size_t)(at / Q8_BLOCK + b) * KV_Q8_SCALES_BYTES + 2 * t, d[b]);
    if (keys)
      for (int j = 0; j < n; j += 4) memcpy(q + (at + j) * KERN_KV_GROUP + 4 * t, packed + j, 4);
    else memcpy(q + t * all + at, packed, (size_t)n);
  }
}

static void write_row(const numbers *x, char *row) {
  _Alignas(64) char packed[Q8B32_BYTES_OF_256];
  const int all = q8b32_blocks(x->n[0] + x->n[1]) * Q8_BLOCK;
  for (int at = 0, n; at < all; at += n) {
    n = quantise(x, at, packed);
    const float *d = (const float *)(const void *)(packed + q8b32_scales_offset(n));
    memcpy(row + at, packed, (size_t)n);
    for (int b = 0; b < n / Q8_BLOCK; b++) put_scale(row + all + 2 * (at / Q8_BLOCK + b), d[b]);
  }
}

static size_t bytes_of(const kern_kv *kv) {
  return kv->type == KV_F32 ? 4 : 2;
}

/* Keys of token t of a group, of one head. */
static void write_keys(const kern_kv *kv, const float *k, int n, int t, char *keys) {
  const size_t bytes = bytes_of(kv), dim_bytes = bytes * KERN_KV_GROUP;
  char row[AT_ONCE * 4];
  for (int at = 0, some; at < n; at += some) {
    some = n - at < AT_ONCE ? n - at : AT_ONCE;
    kern_get()->kv_store(kv->type, k + at, some, row);
    char *to = keys + (size_t)at * dim_bytes + (size_t)t * bytes;
    if (bytes == 2)
      for (int j = 0; j < some; j++, to += dim_bytes) memcpy(to, row + 2 * j, 2);
    else
      for (int j = 0; j < some; j++, to += dim_bytes) memcpy(to, row + 4 * j, 4);
  }
}

static void read_keys(const kern_kv *kv, const char *keys, int n, int t, float *k) {
  const size_t bytes = bytes_of(kv);
  char row[AT_ONCE * 4];
  for (int at = 0, some; at < n; at += some) {
    some = n - at < AT_ONCE ? n - at : AT_ONCE;
    for (int j = 0; j < some; j++)
      memcpy(row + (size_t)j * bytes, keys + ((size_t)(at + j) * KERN_KV_GROUP + (size_t)t) * bytes, bytes);
    kern_get()->kv_load(kv->type, row, some, k + at);
  }
}

void kern_kv_write(const kern_kv *kv, const kern_kv_shape *s, int i, const float *k, const float *v) {
  const int heads = s->n_heads ? s->n_heads : 1;
  char *row = (char *)(uintptr_t)kern_kv_row(kv, i);
  if (kv->type != KV_Q8_0 && s->n_heads && kv_in_groups(kv)) {
    const kv_head h = kv_head_of(kv->type, s->k, s->v);
    char *head = (char *)(uintptr_t)kv_group(kv, i);
    for (int g = 0; g < heads; g++, head += h.bytes, k += s->k, v += s->v) {
      write_keys(kv, k, s->k, i % KERN_KV_GROUP, head);
      kern_get()->kv_store(kv->type, v, s->v, head + h.values + (size_t)(i % KERN_KV_GROUP * s->v) * bytes_of(kv));
    }
  } else if (kv->type != KV_Q8_0) {
    kern_get()->kv_store(kv->type, k, heads * s->k, row);
    kern_get()->kv_store(kv->type, v, heads * s->v, row + (size_t)(heads * s->k) * bytes_of(kv));
  } else if (!s->n_heads) {
    write_row(&(numbers){{k, v}, {s->k, s->v}}, row);
  } else {
    const kv_q8_head h = kv_q8_head_of(s->k, s->v);
    char *head = (char *)(uintptr_t)kv_group(kv, i);
    for (int g = 0; g < heads; g++, head += h.bytes, k += s->k, v += s->v) {
      write_part(&(numbers){{k}, {s->k}}, i % KERN_KV_GROUP, true, head, head + h.k_scales);
      write_part(&(numbers){{v}, {s->v}}, i % KERN_KV_GROUP, false, head + h.values, head + h.v_scales);
    }
  }
}

/* Numbers of token t of a group, stored as write_part() does. */
static void read_part(const char *q, const char *scales, int t, bool keys, int n, float *x) {
  const int all = q8b32_blocks(n) * Q8_BLOCK;
  for (int j = 0; j < n; j++) {
    const float d = half_from_f16(half_load_u16(scales + (size_t)(j / Q8_BLOCK) * KV_Q8_SCALES_BYTES + 2 * t));
    x[j] = d * (float)*(const int8_t *)(keys ? q + j / 4 * 4 * KERN_KV_GROUP + 4 * t + j % 4 : q + t * all + j);
  }
}

void kern_kv_read(const kern_kv *kv, const kern_kv_shape *s, int i, float *k, float *v) {
  const int heads = s->n_heads ? s->n_heads : 1;
  const char *row = kern_kv_row(kv, i);
  if (kv->type != KV_Q8_0 && s->n_heads && kv_in_groups(kv)) {
    const kv_head h = kv_head_of(kv->type, s->k, s->v);
    const char *head = kv_group(kv, i);
    for (int g = 0; g < heads; g++, head += h.bytes, k += s->k, v += s->v) {
      read_keys(kv, head, s->k, i % KERN_KV_GROUP, k);
      kern_get()->kv_load(kv->type, head + h.values + (size_t)(i % KERN_KV_GROUP * s->v) * bytes_of(kv), s->v, v);
    }
  } else if (kv->type != KV_Q8_0) {
    kern_get()->kv_load(kv->type, row, heads * s->k, k);
    kern_get()->kv_load(kv->type, row + (size_t)(heads * s->k) * bytes_of(kv), heads * s->v, v);
  } else if (!s->n_heads) {
    _Alignas(64) float block[Q8_BLOCK];
    const char *scales = row + (size_t)q8b32_blocks(s->k + s->v) * Q8_BLOCK;
    const int whole = s->k / Q8_BLOCK * Q8_BLOCK;
    kern_get()->kv_unpack((const int8_t *)row, scales, whole, k);
    for (int j = whole; j < s->k + s->v; j += Q8_BLOCK) { /* blocks that hold rotated numbers */
      kern_get()->kv_unpack((const int8_t *)row + j, scales + j / Q8_BLOCK * 2, Q8_BLOCK, block);
      for (int e = j; e < j + Q8_BLOCK && e < s->k + s->v; e++) *(e < s->k ? k + e : v + e - s->k) = block[e - j];
    }
  } else {
    const kv_q8_head h = kv_q8_head_of(s->k, s->v);
    const char *head = kv_group(kv, i);
    for (int g = 0; g < heads; g++, head += h.bytes, k += s->k, v += s->v) {
      read_part(head, head + h.k_scales, i % KERN_KV_GROUP, true, s->k, k);
      read_part(head + h.values, head + h.v_scales, i % KERN_KV_GROUP, false, s->v, v);
    }
  }
}
