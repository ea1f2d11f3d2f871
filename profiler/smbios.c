#include "profiler/smbios.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

const char smbios_path[] = "/sys/firmware/dmi/tables/DMI";

enum { MAX_TABLE = 1 << 20, TYPE_MEMORY_DEVICE = 17, TYPE_END = 127, HEADER = 4, MR_FROM_MT_S = 8000 };
/* Offsets inside a memory device structure, DSP0134 section 7.18. */
enum {
  AT_DATA_WIDTH = 0x0a,
  AT_SIZE = 0x0c,
  AT_DEVICE_LOCATOR = 0x10,
  AT_BANK_LOCATOR = 0x11,
  AT_TYPE = 0x12,
  AT_DETAIL = 0x13,
  AT_SPEED = 0x15,
  AT_EXT_SIZE = 0x1c,
  AT_CONFIGURED = 0x20,
  AT_TECHNOLOGY = 0x28,
  AT_EXT_SPEED = 0x54,
  AT_EXT_CONFIGURED = 0x58
};
enum { DETAIL_REGISTERED = 1 << 13, TYPE_DDR5 = 0x22, TYPE_MRDIMM = 0x25, TECHNOLOGY_MRDIMM = 0x08 };

typedef struct {
  const uint8_t *p;
  size_t len; /* of the formatted part */
  size_t all; /* to the end of the table */
} record;

/* Slots on the way through the table: what their channels are told from. */
typedef struct {
  int n;
  bool all_known;
  struct {
    char channel[48];
    bool filled;
  } slot[SMBIOS_MAX_DIMMS];
} slots;

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

/* The string whose number stands at `at`, printable characters only; "" when there is none. */
static void string_at(record r, size_t at, char *out, size_t n) {
  uint32_t number = field(r, at, 1);
  size_t i = r.len, k = 0;
  out[0] = '\0';
  for (uint32_t s = 1; number > 0 && s < number && i < r.all; s++) {
    if (r.p[i] == 0) return; /* fewer strings than that */
    while (i < r.all && r.p[i]) i++;
    i++;
  }
  for (; number > 0 && i < r.all && r.p[i] && k + 1 < n; i++)
    if (r.p[i] >= 0x20 && r.p[i] < 0x7f) out[k++] = (char)r.p[i];
  out[k] = '\0';
}

/* ---- channels ---- */

/* "P0 CHANNEL A", "ChannelB-DIMM0", "P0_Node0_Channel3_Dimm1": up to the end of the channel's own name. */
static bool by_word(const char *s, char *out, size_t n) {
  const char *at = strcasestr(s, "channel");
  if (!at) return false;
  at += strlen("channel");
  at += strspn(at, " _-");
  const char *end = at;
  while (isalnum((unsigned char)*end)) end++;
  if (end == at || (size_t)(end - s) >= n) return false;
  memcpy(out, s, (size_t)(end - s));
  out[end - s] = '\0';
  return true;
}

/* "CPU0_DIMM_A1", "P1-DIMMB2", "A1": a single letter, and the number of the slot behind it. */
static bool by_letter(const char *s, char *out, size_t n) {
  size_t len = strlen(s);
  if (len < 2 || len > n || s[len - 1] < '0' || s[len - 1] > '9' || !isalpha((unsigned char)s[len - 2])) return false;
  size_t letters = 0;
  while (letters < len - 1 && isalpha((unsigned char)s[len - 2 - letters])) letters++;
  if (letters != 1 && !(letters == 5 && strncasecmp(s + len - 6, "DIMM", 4) == 0)) return false;
  memcpy(out, s, len - 1);
  out[len - 1] = '\0';
  return true;
}

bool smbios_channel_of(const char *device_locator, const char *bank_locator, char *out, size_t n) {
  return by_word(bank_locator, out, n) || by_word(device_locator, out, n) || by_letter(device_locator, out, n);
}

static void add_slot(record r, bool filled, slots *s) {
  char device[64], bank[64];
  if (s->n == SMBIOS_MAX_DIMMS) {
    s->all_known = false;
    return;
  }
  string_at(r, AT_DEVICE_LOCATOR, device, sizeof device);
  string_at(r, AT_BANK_LOCATOR, bank, sizeof bank);
  s->slot[s->n].filled = filled;
  if (!smbios_channel_of(device, bank, s->slot[s->n].channel, sizeof s->slot[s->n].channel)) s->all_known = false;
  s->n++;
}

/* A channel has one to three slots: names by which one has more mean something else ("A1" to "A16": a socket's slots). */
static void count_channels(const slots *s, dimm_list *out) {
  enum { MOST_SLOTS = 3 };
  int channels = 0, empty = 0, crowded = 0;
  for (int i = 0; s->all_known && i < s->n; i++) {
    int before = 0, all = 0, filled = 0;
    for (int k = 0; k < s->n; k++) {
      if (strcasecmp(s->slot[k].channel, s->slot[i].channel) != 0) continue;
      before += k < i;
      all++;
      filled += s->slot[k].filled;
    }
    if (all > MOST_SLOTS) return;
    if (before) continue;
    channels++;
    empty += filled == 0;
    crowded += filled > 1;
  }
  out->n_channels = channels;
  out->empty_channels = empty;
  out->crowded_channels = crowded;
}

/* ---- modules ---- */

static dimm_mr multiplexed(record r, const dimm *d, bool xeon6_p) {
  uint32_t type = field(r, AT_TYPE, 1);
  if (type == TYPE_MRDIMM || field(r, AT_TECHNOLOGY, 1) == TECHNOLOGY_MRDIMM) return DIMM_MR;
  if (type != TYPE_DDR5) return strcmp(d->type, "unknown") == 0 ? DIMM_MR_UNKNOWN : DIMM_NOT_MR;
  if (d->configured_mt_s == 0) return d->registered && xeon6_p ? DIMM_MR_UNKNOWN : DIMM_NOT_MR;
  return d->registered && xeon6_p && d->configured_mt_s >= MR_FROM_MT_S ? DIMM_MR_ASSUMED : DIMM_NOT_MR;
}

static void add_device(record r, bool xeon6_p, slots *s, dimm_list *out) {
  int64_t bytes = size_bytes(r);
  out->n_slots++;
  add_slot(r, bytes >= 0, s);
  if (bytes < 0 || out->n == SMBIOS_MAX_DIMMS) return;
  uint32_t width = field(r, AT_DATA_WIDTH, 2);
  dimm *d = &out->v[out->n++];
  *d = (dimm){.bytes = bytes,
              .rated_mt_s = speed(r, AT_SPEED, AT_EXT_SPEED),
              .configured_mt_s = speed(r, AT_CONFIGURED, AT_EXT_CONFIGURED),
              .width_bits = width <= 1024 ? (int)width : 0,
              .registered = (field(r, AT_DETAIL, 2) & DETAIL_REGISTERED) != 0};
  snprintf(d->type, sizeof d->type, "%s", type_name(field(r, AT_TYPE, 1)));
  d->mr = multiplexed(r, d, xeon6_p);
}

/* First byte behind the strings of a structure (they end with two zero bytes), or n. */
static size_t skip_strings(const uint8_t *bytes, size_t n, size_t at) {
  while (at + 1 < n && (bytes[at] || bytes[at + 1])) at++;
  return at + 2 < n ? at + 2 : n;
}

void smbios_dimms(const uint8_t *bytes, size_t n, bool xeon6_p, dimm_list *out) {
  slots s = {.all_known = true};
  memset(out, 0, sizeof *out);
  for (size_t at = 0; at + HEADER <= n;) {
    record r = {bytes + at, bytes[at + 1], n - at};
    if (r.len < HEADER || r.len > n - at || bytes[at] == TYPE_END) break;
    if (bytes[at] == TYPE_MEMORY_DEVICE) add_device(r, xeon6_p, &s, out);
    at = skip_strings(bytes, n, at + r.len);
  }
  count_channels(&s, out);
}

/* The number behind "key : " of the first CPU. */
static int cpuinfo_number(const char *text, const char *key) {
  size_t n = strlen(key);
  for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
    if (strncmp(line, key, n) != 0) continue;
    const char *p = line + n + strspn(line + n, " \t");
    if (*p == ':') return atoi(p + 1);
  }
  return -1;
}

bool smbios_is_xeon6_p(const char *cpuinfo) {
  int model = cpuinfo_number(cpuinfo, "model");
  return strstr(cpuinfo, "GenuineIntel") && cpuinfo_number(cpuinfo, "cpu family") == 6 && (model == 173 || model == 174);
}

void smbios_read(const char *path, bool xeon6_p, dimm_list *out, const char **why) {
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
  if (bytes) smbios_dimms(bytes, n, xeon6_p, out);
  free(bytes);
  if (out->n == 0) *why = "the SMBIOS tables list no memory module";
}

static bool same(const dimm *a, const dimm *b) {
  return strcmp(a->type, b->type) == 0 && a->bytes == b->bytes && a->rated_mt_s == b->rated_mt_s &&
         a->configured_mt_s == b->configured_mt_s && a->width_bits == b->width_bits && a->registered == b->registered &&
         a->mr == b->mr;
}

static void add_known(json *o, const char *key, int64_t v) {
  if (v > 0) json_add_int(o, key, v);
  else json_add_str(o, key, "unknown");
}

void smbios_to_json(const dimm_list *l, json *array) {
  static const char *const mr[] = {"no", "yes", "assumed", "unknown"};
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

void smbios_remarks(const dimm_list *l, json *array) {
  char text[160];
  int slowest = 0, fastest = 0, below = 0;
  for (int i = 0; i < l->n; i++) {
    int now = l->v[i].configured_mt_s;
    if (now > 0 && (slowest == 0 || now < slowest)) slowest = now;
    if (now > fastest) fastest = now;
    below += now > 0 && now < l->v[i].rated_mt_s;
  }
  if (l->empty_channels > 0) {
    snprintf(text, sizeof text, "%d of %d memory channels are empty: each would add its share of the bandwidth",
             l->empty_channels, l->n_channels);
    json_add_str(array, NULL, text);
  }
  if (l->crowded_channels > 0) {
    snprintf(text, sizeof text, "%d of %d memory channels hold two modules or more, which often run slower than one",
             l->crowded_channels, l->n_channels);
    json_add_str(array, NULL, text);
  }
  if (below > 0) {
    snprintf(text, sizeof text, "%d of %d modules run below their rated speed", below, l->n);
    json_add_str(array, NULL, text);
  }
  if (slowest != fastest) {
    snprintf(text, sizeof text, "modules run at unequal speeds, %d to %d MT/s", slowest, fastest);
    json_add_str(array, NULL, text);
  }
}

double smbios_bytes_per_s(const dimm_list *l) {
  if (l->n == 0 || l->n_channels == 0) return 0;
  const dimm *d = &l->v[0];
  for (int i = 0; i < l->n; i++)
    if (l->v[i].configured_mt_s != d->configured_mt_s || l->v[i].width_bits != d->width_bits) return 0;
  return 1e6 * d->configured_mt_s * (d->width_bits / 8) * (l->n_channels - l->empty_channels);
}
