#include "profiler/smbios.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char smbios_path[] = "/sys/firmware/dmi/tables/DMI";

enum { MAX_TABLE = 1 << 20, TYPE_MEMORY_DEVICE = 17, TYPE_END = 127, HEADER = 4, MR_ABOVE_MT_S = 7200 };
/* Offsets inside a memory device structure, DSP0134 section 7.18. */
enum {
  AT_SIZE = 0x0c,
  AT_TYPE = 0x12,
  AT_DETAIL = 0x13,
  AT_SPEED = 0x15,
  AT_EXT_SIZE = 0x1c,
  AT_CONFIGURED = 0x20,
  AT_EXT_SPEED = 0x54,
  AT_EXT_CONFIGURED = 0x58
};
enum { DETAIL_REGISTERED = 1 << 13, TYPE_DDR5 = 0x22, TYPE_MRDIMM = 0x25 };

typedef struct {
  const uint8_t *p;
  size_t len; /* of the formatted part */
} record;

/* Little-endian field, 0 when the structure is too short to have it. */
static uint32_t field(record r, size_t at, size_t bytes) {
  uint32_t v = 0;
  if (at + bytes > r.len) return 0;
  for (size_t i = 0; i < bytes; i++) v |= (uint32_t)r.p[at + i] << (8 * i);
  return v;
}

static const char *type_name(uint32_t t) {
  static const struct {
    uint32_t t;
    const char *name;
  } names[] = {{0x12, "DDR"},       {0x13, "DDR2"},   {0x18, "DDR3"},   {0x1a, "DDR4"},       {0x1b, "LPDDR"},
               {0x1c, "LPDDR2"},    {0x1d, "LPDDR3"}, {0x1e, "LPDDR4"}, {0x20, "HBM"},        {0x21, "HBM2"},
               {TYPE_DDR5, "DDR5"}, {0x23, "LPDDR5"}, {0x24, "HBM3"},   {TYPE_MRDIMM, "DDR5"}};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    if (names[i].t == t) return names[i].name;
  }
  return "unknown";
}

/* Speeds in MT/s: 0 unknown, 0xffff "see the 32-bit field". */
static int speed(record r, size_t at, size_t ext) {
  uint32_t v = field(r, at, 2);
  if (v == 0xffff) v = field(r, ext, 4) & 0x7fffffffu;
  return v < 1000000 ? (int)v : 0;
}

/* -1: the slot is empty; 0: unknown. */
static int64_t size_bytes(record r) {
  uint32_t v = field(r, AT_SIZE, 2);
  if (v == 0) return -1;
  if (v == 0xffff) return 0;
  if (v == 0x7fff) return (int64_t)(field(r, AT_EXT_SIZE, 4) & 0x7fffffffu) << 20;
  return v & 0x8000 ? (int64_t)(v & 0x7fff) << 10 : (int64_t)v << 20;
}

static void add_device(record r, dimm_list *out) {
  int64_t bytes = size_bytes(r);
  out->n_slots++;
  if (bytes < 0 || out->n == SMBIOS_MAX_DIMMS) return;
  uint32_t type = field(r, AT_TYPE, 1);
  dimm *d = &out->v[out->n++];
  *d = (dimm){.bytes = bytes,
              .rated_mt_s = speed(r, AT_SPEED, AT_EXT_SPEED),
              .configured_mt_s = speed(r, AT_CONFIGURED, AT_EXT_CONFIGURED),
              .registered = (field(r, AT_DETAIL, 2) & DETAIL_REGISTERED) != 0};
  snprintf(d->type, sizeof d->type, "%s", type_name(type));
  int fastest = d->configured_mt_s > d->rated_mt_s ? d->configured_mt_s : d->rated_mt_s;
  if (type == TYPE_MRDIMM) d->mr = DIMM_MR;
  else if (type == TYPE_DDR5 && d->registered && fastest > MR_ABOVE_MT_S) d->mr = DIMM_MR_BY_SPEED;
  else if (strcmp(d->type, "unknown") == 0 || (type == TYPE_DDR5 && fastest == 0)) d->mr = DIMM_MR_UNKNOWN;
}

/* First byte behind the strings of a structure (they end with two zero bytes), or n. */
static size_t skip_strings(const uint8_t *bytes, size_t n, size_t at) {
  while (at + 1 < n && (bytes[at] || bytes[at + 1])) at++;
  return at + 2 < n ? at + 2 : n;
}

void smbios_dimms(const uint8_t *bytes, size_t n, dimm_list *out) {
  memset(out, 0, sizeof *out);
  for (size_t at = 0; at + HEADER <= n;) {
    record r = {bytes + at, bytes[at + 1]};
    if (r.len < HEADER || r.len > n - at || bytes[at] == TYPE_END) return;
    if (bytes[at] == TYPE_MEMORY_DEVICE) add_device(r, out);
    at = skip_strings(bytes, n, at + r.len);
  }
}

void smbios_read(const char *path, dimm_list *out, const char **why) {
  memset(out, 0, sizeof *out);
  *why = NULL;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    *why = errno == EACCES || errno == EPERM ? "SMBIOS tables are readable by root only" : "this machine shows no SMBIOS tables";
    return;
  }
  uint8_t *bytes = malloc(MAX_TABLE);
  size_t n = 0;
  for (ssize_t got; bytes && n < MAX_TABLE && (got = read(fd, bytes + n, MAX_TABLE - n)) > 0;) n += (size_t)got;
  close(fd);
  if (bytes) smbios_dimms(bytes, n, out);
  free(bytes);
  if (out->n == 0) *why = "the SMBIOS tables list no memory module";
}

static bool same(const dimm *a, const dimm *b) {
  return strcmp(a->type, b->type) == 0 && a->bytes == b->bytes && a->rated_mt_s == b->rated_mt_s &&
         a->configured_mt_s == b->configured_mt_s && a->registered == b->registered && a->mr == b->mr;
}

static void add_known(json *o, const char *key, int64_t v) {
  if (v > 0) json_add_int(o, key, v);
  else json_add_str(o, key, "unknown");
}

void smbios_to_json(const dimm_list *l, json *array) {
  static const char *const mr[] = {"no", "yes", "by its speed", "unknown"};
  for (int i = 0; i < l->n; i++) {
    int first = 0, count = 0;
    while (!same(&l->v[first], &l->v[i])) first++;
    if (first != i) continue;
    for (int k = i; k < l->n; k++) count += same(&l->v[k], &l->v[i]);
    json *o = json_add_object(array, NULL);
    json_add_int(o, "count", count);
    json_add_str(o, "type", l->v[i].type);
    add_known(o, "bytes", l->v[i].bytes);
    add_known(o, "configured_mt_s", l->v[i].configured_mt_s);
    add_known(o, "rated_mt_s", l->v[i].rated_mt_s);
    json_add_str(o, "mrdimm", mr[l->v[i].mr]);
  }
}
