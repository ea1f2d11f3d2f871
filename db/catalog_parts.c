/* catalog_parts.c: machines as parts: their text, changes to them, and the document a machine is built from. */
#include "db/catalog_parts.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/cli.h"
#include "base/text.h"
#include "db/catalog_data.h"

enum { MAX_SOCKETS = 2, MAX_DPC = 4, MAX_TEXT = 1000 };
static const char default_prior[] = "heteroflow";
static const int64_t gib = (int64_t)1 << 30, max_dimm_bytes = (int64_t)1 << 42;

static void add_note(catalog_parts *p, const char *fmt, ...) HF_PRINTF(2, 3);
static void add_note(catalog_parts *p, const char *fmt, ...) {
  size_t used = strlen(p->note);
  if (used > 0 && used + 3 < sizeof p->note) used += (size_t)snprintf(p->note + used, sizeof p->note - used, "; ");
  va_list args;
  va_start(args, fmt);
  vsnprintf(p->note + used, sizeof p->note - used, fmt, args);
  va_end(args);
}

/* ---- the catalog's own names ---- */

static hf_status own_name(const char *kind, const char *asked, char *out, size_t n, const json **doc) {
  const json *entry;
  HF_TRY(catalog_entry(kind, asked, &entry, NULL));
  const char *name = json_string(json_get(entry, "name"));
  if (strlen(name) >= n) return hf_fail(HF_INPUT, "%s '%.60s...': the name is longer than %zu bytes", kind, name, n - 1);
  if (name != out) memmove(out, name, strlen(name) + 1);
  if (doc != NULL) *doc = entry;
  return HF_OK;
}

/* Transfers per second a CPU drives modules of this type at; 0 = it does not take them. */
static double driven_at(const json *cpu, const char *type, int dpc) {
  for (const json *s = json_first(json_get(cpu, "memory_speeds")); s != NULL; s = json_next(s)) {
    const char *t = json_string(json_get(s, "type"));
    if (t != NULL && strcmp(t, type) == 0 && json_number(json_get(s, "dimms_per_channel"), 0) == dpc)
      return json_number(json_get(json_get(s, "transfers_per_s"), "value"), 0);
  }
  return 0;
}

typedef struct {
  catalog_memory_option o;
  double module; /* the module's own rate */
} option;

static int faster_first(const void *a, const void *b) {
  const option *x = a, *y = b;
  if (x->o.transfers_per_s != y->o.transfers_per_s) return x->o.transfers_per_s > y->o.transfers_per_s ? -1 : 1;
  if (x->module != y->module) return x->module < y->module ? -1 : 1;
  return strcmp(x->o.name, y->o.name);
}

static hf_status memory_options(const json *cpu, int dpc, char **names, int n_names, option *list, int *n) {
  *n = 0;
  for (int i = 0; i < n_names; i++) {
    const json *m;
    option o = {0};
    HF_TRY(own_name("memory", names[i], o.o.name, sizeof o.o.name, &m));
    const char *type = json_string(json_get(m, "type"));
    o.module = json_number(json_get(json_get(m, "transfers_per_s"), "value"), 0);
    o.o.on_sale = json_get(m, "sale") == NULL;
    o.o.transfers_per_s = type == NULL ? 0 : fmin(o.module, driven_at(cpu, type, dpc));
    if (o.o.transfers_per_s > 0) list[(*n)++] = o;
  }
  if (*n > 1) qsort(list, (size_t)*n, sizeof *list, faster_first);
  return HF_OK;
}

hf_status catalog_memory_options(const char *cpu, int dimms_per_channel, catalog_memory_option **out, int *n) {
  const json *entry;
  char **names = NULL;
  int n_names = 0, found = 0;
  option *list = NULL;
  catalog_memory_option *result = NULL;
  HF_TRY(catalog_entry("cpus", cpu, &entry, NULL));
  HF_TRY(catalog_names("memory", &names, &n_names));
  hf_status st = hf_alloc(&list, (size_t)n_names + 1, sizeof *list, "memory options");
  if (st == HF_OK) st = memory_options(entry, dimms_per_channel, names, n_names, list, &found);
  if (st == HF_OK) st = hf_alloc(&result, (size_t)found + 1, sizeof *result, "memory options");
  for (int i = 0; st == HF_OK && i < found; i++) result[i] = list[i].o;
  free(list);
  free(names);
  HF_TRY(st);
  *out = result;
  *n = found;
  return HF_OK;
}

static hf_status fastest_memory(const char *cpu, int dpc, char *out, size_t n) {
  catalog_memory_option *list = NULL;
  int count = 0;
  HF_TRY(catalog_memory_options(cpu, dpc, &list, &count));
  int at = 0;
  while (at < count && !list[at].on_sale) at++;
  if (at == count) at = 0; /* an old CPU: what it was sold with */
  bool fits = count > 0 && strlen(list[at].name) < n;
  if (fits) memcpy(out, list[at].name, strlen(list[at].name) + 1);
  free(list);
  return fits ? HF_OK : hf_fail(HF_INPUT, "dpc=%d: %s takes no memory of the catalog at %d modules per channel", dpc, cpu, dpc);
}

static bool takes(const json *cpu, const json *memory, int dpc) {
  const char *type = json_string(json_get(memory, "type"));
  return type != NULL && driven_at(cpu, type, dpc) > 0;
}

/* Names what the CPU does take, fastest first. */
static hf_status refuse_memory(const catalog_parts *p) {
  catalog_memory_option *list = NULL;
  int n = 0;
  char known[300] = "";
  size_t used = 0;
  HF_TRY(catalog_memory_options(p->cpu, p->dimms_per_channel, &list, &n));
  for (int i = 0; i < n && used < sizeof known; i++)
    used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", list[i].name);
  free(list);
  return hf_fail(HF_INPUT, "memory=%s: %s does not take it at %d per channel; it takes %s", p->memory, p->cpu,
                 p->dimms_per_channel, n > 0 ? known : "none of the catalog's");
}

/* A whole number of an entry, 0 to most whatever a file of somebody's own says. */
static int64_t whole_at(const json *entry, const char *key, int64_t other, int64_t most) {
  double v = json_number(json_get(json_get(entry, key), "value"), (double)other);
  return (int64_t)fmax(0, fmin(v, (double)most));
}

/* Bytes of a module that is sold in this kind: the least that holds as much, else the largest. */
static hf_status sold_size(const json *memory, const char *kind, int64_t bytes, int64_t *out) {
  double sold[MOST_SIZES];
  int n = 0;
  *out = whole_at(memory, "dimm_bytes_max", bytes, bytes);
  HF_TRY(fact_numbers(memory, kind, "dimm_bytes_sold", MOST_SIZES, sold, &n));
  for (int i = 0; i < n; i++)
    if (fact_is_size((double)bytes, sold[i])) return HF_OK; /* as it is */
  for (int i = 0; i < n; i++)
    if (sold[i] >= (double)bytes || i == n - 1) {
      *out = (int64_t)fmin(sold[i], (double)max_dimm_bytes);
      return HF_OK;
    }
  return HF_OK;
}

static int most_sockets(const json *cpu) {
  return (int)whole_at(cpu, "max_sockets", 1, MAX_SOCKETS);
}

/* Names become the catalog's, what is missing is filled in, what contradicts itself is refused. */
static hf_status resolve(catalog_parts *p) {
  const json *cpu, *memory;
  if (p->cpu[0] == 0) return hf_fail(HF_INPUT, "parts: cpu= is missing; for example cpu=xeon-6787p");
  HF_TRY(own_name("cpus", p->cpu, p->cpu, sizeof p->cpu, &cpu));
  int most = most_sockets(cpu);
  if (p->sockets == 0) p->sockets = 1;
  if (p->sockets > most) return hf_fail(HF_INPUT, "sockets=%d: %s works in at most %d", p->sockets, p->cpu, most);
  if (p->dimms_per_channel == 0) p->dimms_per_channel = 1;
  if (p->memory[0] == 0) HF_TRY(fastest_memory(p->cpu, p->dimms_per_channel, p->memory, sizeof p->memory));
  HF_TRY(own_name("memory", p->memory, p->memory, sizeof p->memory, &memory));
  if (!takes(cpu, memory, p->dimms_per_channel)) return refuse_memory(p);
  if (p->dimm_bytes == 0) HF_TRY(sold_size(memory, p->memory, 64 * gib, &p->dimm_bytes));
  for (int i = 0; i < p->n_gpu_kinds; i++) HF_TRY(own_name("gpus", p->gpu[i].gpu, p->gpu[i].gpu, sizeof p->gpu[i].gpu, NULL));
  if (p->prior[0] == 0) memcpy(p->prior, default_prior, sizeof default_prior);
  HF_TRY(own_name("priors", p->prior, p->prior, sizeof p->prior, NULL));
  if (p->platform[0] != 0) HF_TRY(own_name("platforms", p->platform, p->platform, sizeof p->platform, NULL));
  return HF_OK;
}

/* ---- values ---- */

static hf_status set_text(char *out, size_t n, const char *key, const char *value) {
  if (*value == 0 || strlen(value) >= n)
    return hf_fail(HF_INPUT, "%s=%.40s: a name of 1 to %zu bytes belongs here", key, value, n - 1);
  memcpy(out, value, strlen(value) + 1);
  return HF_OK;
}

static hf_status set_count(int *out, const char *key, const char *value, int most) {
  char *end;
  long v = strtol(value, &end, 10);
  if (!isdigit((unsigned char)value[0]) || *end != 0 || v < 1 || v > most)
    return hf_fail(HF_INPUT, "%s=%.40s: a whole number from 1 to %d belongs here", key, value, most);
  *out = (int)v;
  return HF_OK;
}

/* Decimal prefixes: rates and money are no memory sizes. */
static hf_status set_number(double *out, const char *key, const char *value, double least, double most) {
  static const struct {
    char letter;
    double factor;
  } prefixes[] = {{'K', 1e3}, {'M', 1e6}, {'G', 1e9}, {'T', 1e12}};
  char *end = NULL;
  double v = isdigit((unsigned char)value[0]) ? strtod(value, &end) : NAN;
  for (size_t i = 0; end != NULL && *end != 0 && i < sizeof prefixes / sizeof *prefixes; i++) {
    if (toupper((unsigned char)*end) != prefixes[i].letter) continue;
    v *= prefixes[i].factor;
    end++;
    break;
  }
  if (end != NULL && strcmp(end, "B/s") == 0) end += 3;
  if (end == NULL || *end != 0 || !(v >= least && v <= most))
    return hf_fail(HF_INPUT, "%s=%.40s: a number from %g to %g belongs here", key, value, least, most);
  *out = v;
  return HF_OK;
}

static hf_status set_speed(double *out, const char *key, const char *value) {
  double v;
  HF_TRY(set_number(&v, key, value, 400, 4e10));
  if (v < 1e5) v *= 1e6; /* as modules are named: 6400 */
  if (v < 4e8 || v > 4e10)
    return hf_fail(HF_INPUT, "%s=%.40s: transfers per second, e.g. 6400e6, or MT/s, e.g. 6400", key, value);
  *out = v;
  return HF_OK;
}

/* A size, or a memory kind: people call both "the DIMM". */
static hf_status set_dimm(catalog_parts *p, const char *key, const char *value) {
  if (!isdigit((unsigned char)value[0])) return set_text(p->memory, sizeof p->memory, key, value);
  int64_t bytes;
  HF_TRY(cli_parse_size(value, key, &bytes));
  if (bytes < gib || bytes > max_dimm_bytes) return hf_fail(HF_INPUT, "%s=%.40s: a module has 1G to 4T", key, value);
  p->dimm_bytes = bytes;
  return HF_OK;
}

static hf_status add_gpu(catalog_parts *p, const char *name, int count) {
  char own[64] = "";
  int total = count, at = 0;
  HF_TRY(own_name("gpus", name, own, sizeof own, NULL));
  while (at < p->n_gpu_kinds && strcmp(p->gpu[at].gpu, own) != 0) at++;
  if (at == CATALOG_MAX_GPU_KINDS) return hf_fail(HF_INPUT, "gpu: more than %d kinds", CATALOG_MAX_GPU_KINDS);
  for (int i = 0; i < p->n_gpu_kinds; i++) total += p->gpu[i].count;
  if (total > CATALOG_MAX_GPUS) return hf_fail(HF_INPUT, "gpu: %d GPUs; a machine has at most %d", total, CATALOG_MAX_GPUS);
  if (at == p->n_gpu_kinds) {
    memcpy(p->gpu[at].gpu, own, sizeof own);
    p->gpu[at].count = 0;
    p->n_gpu_kinds++;
  }
  p->gpu[at].count += count;
  return HF_OK;
}

/* "A*2+B", "2*A", "none" */
static hf_status set_gpus(catalog_parts *p, const char *key, const char *value) {
  char text[MAX_TEXT], *next;
  HF_TRY(set_text(text, sizeof text, key, value));
  p->n_gpu_kinds = 0;
  if (strcasecmp(text, "none") == 0) return HF_OK;
  for (char *item = text; item != NULL; item = next) {
    next = strchr(item, '+');
    if (next != NULL) *next++ = 0;
    char *star = strchr(item, '*'), *name = item;
    int count = 1;
    if (star != NULL) {
      *star = 0;
      bool last = star[1] != 0 && strspn(star + 1, "0123456789") == strlen(star + 1);
      bool first = !last && item[0] != 0 && strspn(item, "0123456789") == strlen(item);
      name = first ? star + 1 : item;
      HF_TRY(set_count(&count, key, first ? item : star + 1, CATALOG_MAX_GPUS));
    }
    if (*name == 0) return hf_fail(HF_INPUT, "%s=%.60s: an empty name; NAME*COUNT+NAME belongs here, or none", key, value);
    HF_TRY(add_gpu(p, name, count));
  }
  return HF_OK;
}

/* ---- keys ---- */

typedef enum {
  K_CPU,
  K_SOCKETS,
  K_MEMORY,
  K_DIMM,
  K_DPC,
  K_GPU,
  K_PRIOR,
  K_PLATFORM,
  K_PRICE,
  K_IDLE,
  K_ACTIVE,
  K_SPEED,
  K_READ,
  K_MACHINE,
  K_NAME,
  K_N
} part_key;

static const struct {
  const char *name, *other;
} keys[K_N] = {{"cpu", NULL},
               {"sockets", NULL},
               {"memory", NULL},
               {"dimm", "dimm_bytes"},
               {"dpc", "dimms_per_channel"},
               {"gpu", "gpus"},
               {"prior", NULL},
               {"platform", NULL},
               {"platform_price", "platform_price_usd"},
               {"platform_idle", "platform_idle_w"},
               {"platform_active", "platform_active_w"},
               {"speed", "transfers_per_s"},
               {"read", "read_bytes_per_s"},
               {"machine", NULL},
               {"name", NULL}};

static part_key find_key(const char *key, size_t n) {
  for (int k = 0; k < K_N; k++) {
    if (strlen(keys[k].name) == n && strncasecmp(key, keys[k].name, n) == 0) return (part_key)k;
    if (keys[k].other != NULL && strlen(keys[k].other) == n && strncasecmp(key, keys[k].other, n) == 0) return (part_key)k;
  }
  return K_N;
}

bool catalog_parts_has_key(const char *key) {
  return find_key(key, strlen(key)) != K_N;
}

bool catalog_parts_is_text(const char *s) {
  const char *eq = strchr(s, '=');
  return eq != NULL && find_key(s, (size_t)(eq - s)) != K_N;
}

static hf_status unknown_key(const char *key) {
  const char *best = "cpu";
  char known[200] = "";
  size_t used = 0;
  int distance = HF_EDIT_FAR;
  for (int k = 0; k < K_N; k++) {
    int d = hf_edit_distance(key, strlen(key), keys[k].name);
    if (d < distance) {
      distance = d;
      best = keys[k].name;
    }
    used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", k ? ", " : "", keys[k].name);
  }
  return hf_fail(HF_INPUT, "parts: there is no '%.40s'; did you mean '%s'? (known: %s)", key, best, known);
}

static hf_status apply(catalog_parts *p, part_key k, const char *value) {
  const char *key = keys[k].name;
  switch (k) {
    case K_CPU: return set_text(p->cpu, sizeof p->cpu, key, value);
    case K_SOCKETS: return set_count(&p->sockets, key, value, MAX_SOCKETS);
    case K_MEMORY:
    case K_DIMM: return set_dimm(p, key, value);
    case K_DPC: return set_count(&p->dimms_per_channel, key, value, MAX_DPC);
    case K_GPU: return set_gpus(p, key, value);
    case K_PRIOR: return set_text(p->prior, sizeof p->prior, key, value);
    case K_PLATFORM: return set_text(p->platform, sizeof p->platform, key, value);
    case K_PRICE: return set_number(&p->platform_price_usd, key, value, 1, 1e6);
    case K_IDLE: return set_number(&p->platform_idle_w, key, value, 1, 5000);
    case K_ACTIVE: return set_number(&p->platform_active_w, key, value, 1, 10000);
    case K_SPEED: return set_speed(&p->transfers_per_s, key, value);
    case K_READ: return set_number(&p->read_bytes_per_s, key, value, 1e8, 1e13);
    case K_MACHINE: return catalog_parts_of(value, p);
    case K_NAME: return set_text(p->name, sizeof p->name, key, value);
    case K_N: break;
  }
  return unknown_key(value);
}

/* ---- changes ---- */

/* The memory and the sockets stay where the new CPU takes them; else the nearest it does take, and a note says so. */
static hf_status change_cpu(catalog_parts *p, const char *value) {
  const json *cpu, *memory;
  HF_TRY(set_text(p->cpu, sizeof p->cpu, "cpu", value));
  HF_TRY(own_name("cpus", p->cpu, p->cpu, sizeof p->cpu, &cpu));
  HF_TRY(own_name("memory", p->memory, p->memory, sizeof p->memory, &memory));
  int most = most_sockets(cpu);
  if (p->sockets > most) {
    add_note(p, "%d socket%s instead of %d, the most that %s works in", most, most == 1 ? "" : "s", p->sockets, p->cpu);
    p->sockets = most;
  }
  if (p->read_bytes_per_s > 0) add_note(p, "the measured read bandwidth belonged to another CPU and is left out");
  p->read_bytes_per_s = 0;
  p->transfers_per_s = 0;
  p->platform[0] = 0;
  if (takes(cpu, memory, p->dimms_per_channel)) return HF_OK;
  char before[64];
  memcpy(before, p->memory, sizeof before);
  if (driven_at(cpu, "mrdimm", p->dimms_per_channel) == 0 && p->dimms_per_channel > 1) p->dimms_per_channel = 1;
  HF_TRY(fastest_memory(p->cpu, p->dimms_per_channel, p->memory, sizeof p->memory));
  HF_TRY(own_name("memory", p->memory, p->memory, sizeof p->memory, &memory));
  int64_t had = p->dimm_bytes;
  HF_TRY(sold_size(memory, p->memory, had, &p->dimm_bytes));
  add_note(p, "memory %s instead of %s, which %s does not take", p->memory, before, p->cpu);
  if (p->dimm_bytes != had)
    add_note(p, "modules of %.4g GiB instead of %.4g, which are not sold in %s", (double)p->dimm_bytes / 0x1p30,
             (double)had / 0x1p30, p->memory);
  return HF_OK;
}

/* The platform was that of the machine as it was: another number of sockets, or more GPUs than it takes, is another computer. */
static hf_status change_platform(catalog_parts *p, part_key k) {
  const json *platform;
  int gpus = 0;
  if (p->platform[0] == 0 || (k != K_SOCKETS && k != K_GPU)) return HF_OK;
  HF_TRY(own_name("platforms", p->platform, p->platform, sizeof p->platform, &platform));
  for (int i = 0; i < p->n_gpu_kinds; i++) gpus += p->gpu[i].count;
  if (k == K_GPU && gpus <= json_number(json_get(json_get(platform, "max_gpus"), "value"), 0)) return HF_OK;
  p->platform[0] = 0;
  return HF_OK;
}

hf_status catalog_parts_set(catalog_parts *p, const char *key, const char *value) {
  catalog_parts next = *p;
  part_key k = find_key(key, strlen(key));
  if (k == K_N) return unknown_key(key);
  next.name[0] = 0;
  if (k == K_MEMORY || k == K_DIMM || k == K_DPC || k == K_SOCKETS) next.read_bytes_per_s = 0; /* measured on another machine */
  if (k == K_MEMORY || k == K_DIMM) next.transfers_per_s = 0;
  HF_TRY(k == K_CPU ? change_cpu(&next, value) : apply(&next, k, value));
  HF_TRY(change_platform(&next, k));
  HF_TRY(resolve(&next));
  *p = next;
  return HF_OK;
}

/* ---- text ---- */

static hf_status parse_item(catalog_parts *p, char *item, unsigned *seen) {
  char *eq = strchr(item, '=');
  if (eq == NULL) return hf_fail(HF_INPUT, "parts: '%.60s' is no KEY=VALUE", item);
  *eq = 0;
  part_key k = find_key(item, strlen(item));
  if (k == K_N) return unknown_key(item);
  if (k == K_MACHINE && *seen != 0) return hf_fail(HF_INPUT, "parts: machine= comes first; what follows changes it");
  if (*seen & 1u << k) return hf_fail(HF_INPUT, "parts: %s= is said twice", keys[k].name);
  bool changes = (*seen & 1u << K_MACHINE) != 0;
  *seen |= 1u << k;
  return changes && k != K_NAME ? catalog_parts_set(p, item, eq + 1) : apply(p, k, eq + 1);
}

hf_status catalog_parts_parse(const char *text, catalog_parts *out) {
  char copy[MAX_TEXT], *next;
  catalog_parts p = {0};
  unsigned seen = 0;
  if (strlen(text) >= sizeof copy) return hf_fail(HF_INPUT, "parts: the text is longer than %d bytes", MAX_TEXT - 1);
  memcpy(copy, text, strlen(text) + 1);
  for (char *item = copy; item != NULL; item = next) {
    next = strchr(item, ',');
    if (next != NULL) *next++ = 0;
    HF_TRY(parse_item(&p, item, &seen));
  }
  HF_TRY(resolve(&p));
  *out = p;
  return HF_OK;
}

static hf_status size_text(hf_buf *b, const char *key, int64_t bytes) {
  static const char letters[] = "TGMK";
  for (int i = 0; letters[i]; i++) {
    int shift = 40 - 10 * i;
    if (bytes % ((int64_t)1 << shift) == 0) return hf_buf_printf(b, ",%s=%lld%c", key, (long long)(bytes >> shift), letters[i]);
  }
  return hf_buf_printf(b, ",%s=%lld", key, (long long)bytes);
}

static hf_status number_text(hf_buf *b, const char *key, double v) {
  return v > 0 ? hf_buf_printf(b, ",%s=%.17g", key, v) : HF_OK;
}

static hf_status print_parts(const catalog_parts *p, hf_buf *b) {
  HF_TRY(hf_buf_printf(b, "cpu=%s", p->cpu));
  if (p->sockets != 1) HF_TRY(hf_buf_printf(b, ",sockets=%d", p->sockets));
  HF_TRY(hf_buf_printf(b, ",memory=%s", p->memory));
  HF_TRY(size_text(b, "dimm", p->dimm_bytes));
  if (p->dimms_per_channel != 1) HF_TRY(hf_buf_printf(b, ",dpc=%d", p->dimms_per_channel));
  for (int i = 0; i < p->n_gpu_kinds; i++) {
    HF_TRY(hf_buf_printf(b, "%s%s", i ? "+" : ",gpu=", p->gpu[i].gpu));
    if (p->gpu[i].count != 1) HF_TRY(hf_buf_printf(b, "*%d", p->gpu[i].count));
  }
  if (strcmp(p->prior, default_prior) != 0) HF_TRY(hf_buf_printf(b, ",prior=%s", p->prior));
  if (p->platform[0] != 0) HF_TRY(hf_buf_printf(b, ",platform=%s", p->platform));
  HF_TRY(number_text(b, "platform_price", p->platform_price_usd));
  HF_TRY(number_text(b, "platform_idle", p->platform_idle_w));
  HF_TRY(number_text(b, "platform_active", p->platform_active_w));
  HF_TRY(number_text(b, "speed", p->transfers_per_s));
  return number_text(b, "read", p->read_bytes_per_s);
}

hf_status catalog_parts_text(const catalog_parts *p, char *out, size_t n) {
  hf_buf b;
  hf_buf_init(&b, 8192);
  hf_status st = print_parts(p, &b);
  if (st == HF_OK && b.len >= n) st = hf_fail(HF_INPUT, "parts: their text needs %zu bytes, there is room for %zu", b.len + 1, n);
  if (st == HF_OK) memcpy(out, b.data, b.len + 1);
  hf_buf_free(&b);
  return st;
}

/* ---- from and to documents ---- */

static hf_status text_of(const json *doc, const char *where, const char *key, char *out, size_t n) {
  const char *s = "";
  HF_TRY(json_opt_str(doc, where, key, &s));
  if (strlen(s) >= n) return hf_fail(HF_INPUT, "%s: field %s: longer than %zu bytes", where, key, n - 1);
  memcpy(out, s, strlen(s) + 1);
  return HF_OK;
}

static hf_status number_of(const json *doc, const char *where, const char *key, const char *unit, double *out) {
  fact f;
  if (json_get(doc, key) == NULL) return HF_OK;
  HF_TRY(fact_get(doc, where, key, unit, &f));
  *out = f.likely;
  return HF_OK;
}

static hf_status memory_of(const json *doc, const char *where, catalog_parts *p) {
  const json *m = json_get(doc, "memory");
  int64_t dpc = 1;
  double bytes = 0;
  HF_TRY(text_of(m, where, "kind", p->memory, sizeof p->memory));
  HF_TRY(json_opt_int(m, where, "dimms_per_channel", 1, MAX_DPC, &dpc));
  HF_TRY(number_of(m, where, "dimm_bytes", "B", &bytes));
  HF_TRY(number_of(m, where, "transfers_per_s", "1/s", &p->transfers_per_s));
  if (bytes > (double)max_dimm_bytes) return hf_fail(HF_INPUT, "%s: field dimm_bytes: %g is over 4 TiB", where, bytes);
  p->dimms_per_channel = (int)dpc;
  p->dimm_bytes = (int64_t)bytes;
  return HF_OK;
}

static hf_status platform_of(const json *doc, const char *where, catalog_parts *p) {
  const json *o = json_get(doc, "platform");
  if (json_type(o) != JSON_OBJECT) return text_of(doc, where, "platform", p->platform, sizeof p->platform);
  HF_TRY(text_of(o, where, "name", p->platform, sizeof p->platform));
  HF_TRY(number_of(o, where, "price_usd", "USD", &p->platform_price_usd));
  HF_TRY(number_of(o, where, "power_idle_w", "W", &p->platform_idle_w));
  return number_of(o, where, "power_active_w", "W", &p->platform_active_w);
}

static hf_status parts_of_document(const json *doc, const char *where, catalog_parts *p) {
  int64_t sockets = 1;
  if (json_get(doc, "cpu") == NULL || json_len(json_get(doc, "figures")) + json_len(json_get(doc, "devices")) > 0) {
    return hf_fail(HF_UNSUPPORTED, "%s: has stated rows, which no parts can say; describe it as cpu=...,gpu=...", where);
  }
  HF_TRY(text_of(doc, where, "name", p->name, sizeof p->name));
  HF_TRY(text_of(doc, where, "cpu", p->cpu, sizeof p->cpu));
  HF_TRY(text_of(doc, where, "prior", p->prior, sizeof p->prior));
  HF_TRY(json_opt_int(doc, where, "sockets", 1, MAX_SOCKETS, &sockets));
  p->sockets = (int)sockets;
  HF_TRY(memory_of(doc, where, p));
  HF_TRY(platform_of(doc, where, p));
  HF_TRY(number_of(doc, where, "read_bytes_per_s", "B/s", &p->read_bytes_per_s));
  for (const json *e = json_first(json_get(doc, "gpus")); e != NULL; e = json_next(e)) {
    const char *name;
    int64_t count = 1;
    HF_TRY(json_get_str(e, where, "gpu", &name));
    HF_TRY(json_opt_int(e, where, "count", 1, CATALOG_MAX_GPUS, &count));
    HF_TRY(add_gpu(p, name, (int)count));
  }
  return hf_note(resolve(p), "%s", where);
}

hf_status catalog_parts_of(const char *name_or_file, catalog_parts *out) {
  catalog_parts p = {0};
  char where[192];
  json *doc = NULL;
  bool is_file;
  if (catalog_parts_is_text(name_or_file)) return catalog_parts_parse(name_or_file, out);
  HF_TRY(catalog_machine_document(name_or_file, &doc, &is_file));
  snprintf(where, sizeof where, is_file ? "%.180s" : "catalog machine %.160s", name_or_file);
  hf_status st = parts_of_document(doc, where, &p);
  json_free(doc);
  HF_TRY(st);
  *out = p;
  return HF_OK;
}

static void add_fact(json *o, const char *key, double v, const char *unit, const char *date) {
  json *f = json_add_object(o, key);
  json_add_num(f, "value", v);
  json_add_str(f, "unit", unit);
  json_add_str(f, "source", "stated by whoever asked");
  json_add_str(f, "date", date);
  json_add_str(f, "tag", "assumed");
}

static void add_platform(json *o, const catalog_parts *p, const char *date) {
  bool stated = p->platform_price_usd > 0 || p->platform_idle_w > 0 || p->platform_active_w > 0;
  if (!stated && p->platform[0] != 0) json_add_str(o, "platform", p->platform);
  if (!stated) return;
  json *f = json_add_object(o, "platform");
  if (p->platform[0] != 0) json_add_str(f, "name", p->platform);
  else json_add_bool(f, "usual", true);
  if (p->platform_price_usd > 0) add_fact(f, "price_usd", p->platform_price_usd, "USD", date);
  if (p->platform_idle_w > 0) add_fact(f, "power_idle_w", p->platform_idle_w, "W", date);
  if (p->platform_active_w > 0) add_fact(f, "power_active_w", p->platform_active_w, "W", date);
}

static const char *title_of(const char *kind, const char *name) {
  const json *doc;
  const char *t = NULL;
  if (catalog_entry(kind, name, &doc, NULL) == HF_OK) t = json_string(json_get(doc, "title"));
  return t != NULL ? t : name;
}

static hf_status add_title(json *o, const catalog_parts *p, const json *cpu) {
  hf_buf b;
  int channels = (int)whole_at(cpu, "memory_channels", 0, 64);
  hf_buf_init(&b, 4096);
  hf_status st = p->sockets > 1 ? hf_buf_printf(&b, "%d x ", p->sockets) : HF_OK;
  if (st == HF_OK) {
    st = hf_buf_printf(&b, "%s, %d x %.0f GiB %s", title_of("cpus", p->cpu), p->sockets * channels * p->dimms_per_channel,
                       (double)p->dimm_bytes / (double)gib, title_of("memory", p->memory));
  }
  for (int i = 0; st == HF_OK && i < p->n_gpu_kinds; i++) {
    st = hf_buf_printf(&b, ", ");
    if (st == HF_OK && p->gpu[i].count > 1) st = hf_buf_printf(&b, "%d x ", p->gpu[i].count);
    if (st == HF_OK) st = hf_buf_printf(&b, "%s", title_of("gpus", p->gpu[i].gpu));
  }
  if (st == HF_OK) json_add_str(o, "title", b.data);
  hf_buf_free(&b);
  return st;
}

static void add_notes(json *o, const char *note) {
  if (*note == 0) return;
  json *a = json_add_array(o, "assumptions");
  char text[sizeof((catalog_parts *)0)->note], *next;
  snprintf(text, sizeof text, "%s", note);
  for (char *item = text; item != NULL; item = next) {
    next = strstr(item, "; ");
    if (next != NULL) {
      *next = 0;
      next += 2;
    }
    json_add_str(a, NULL, item);
  }
}

static hf_status check_parts(const catalog_parts *p) {
  int total = 0;
  if (p->sockets < 1 || p->sockets > MAX_SOCKETS)
    return hf_fail(HF_INPUT, "sockets=%d: 1 to %d belongs here", p->sockets, MAX_SOCKETS);
  if (p->dimms_per_channel < 1 || p->dimms_per_channel > MAX_DPC)
    return hf_fail(HF_INPUT, "dpc=%d: 1 to %d belongs here", p->dimms_per_channel, MAX_DPC);
  if (p->dimm_bytes < gib || p->dimm_bytes > max_dimm_bytes)
    return hf_fail(HF_INPUT, "dimm=%lld: a module has 1G to 4T", (long long)p->dimm_bytes);
  if (p->n_gpu_kinds < 0 || p->n_gpu_kinds > CATALOG_MAX_GPU_KINDS)
    return hf_fail(HF_INPUT, "gpu: %d kinds; at most %d", p->n_gpu_kinds, CATALOG_MAX_GPU_KINDS);
  for (int i = 0; i < p->n_gpu_kinds; i++) {
    if (p->gpu[i].count < 1 || p->gpu[i].count > CATALOG_MAX_GPUS)
      return hf_fail(HF_INPUT, "gpu=%s*%d: 1 to %d belongs here", p->gpu[i].gpu, p->gpu[i].count, CATALOG_MAX_GPUS);
    total += p->gpu[i].count;
  }
  if (total > CATALOG_MAX_GPUS) return hf_fail(HF_INPUT, "gpu: %d GPUs; a machine has at most %d", total, CATALOG_MAX_GPUS);
  return HF_OK;
}

static hf_status fill_document(json *o, const catalog_parts *p, const json *cpu) {
  char name[128], text[MAX_TEXT];
  const char *date = json_string(json_get(json_get(cpu, "cores"), "date"));
  HF_TRY(catalog_parts_text(p, text, sizeof text));
  snprintf(name, sizeof name, "%.127s",
           p->name[0] ? p->name : text); /* a longer text is cut: what tells machines apart is their hash */
  json_add_str(o, "name", name);
  HF_TRY(add_title(o, p, cpu));
  json_add_str(o, "source", "parts of the catalog put together as asked");
  json_add_str(o, "date", date);
  json_add_str(o, "cpu", p->cpu);
  json_add_int(o, "sockets", p->sockets);
  json *m = json_add_object(o, "memory");
  json_add_str(m, "kind", p->memory);
  json_add_int(m, "dimms_per_channel", p->dimms_per_channel);
  add_fact(m, "dimm_bytes", (double)p->dimm_bytes, "B", date);
  if (p->transfers_per_s > 0) add_fact(m, "transfers_per_s", p->transfers_per_s, "1/s", date);
  json *gpus = json_add_array(o, "gpus");
  for (int i = 0; i < p->n_gpu_kinds; i++) {
    json *g = json_add_object(gpus, NULL);
    json_add_str(g, "gpu", p->gpu[i].gpu);
    json_add_int(g, "count", p->gpu[i].count);
  }
  json_add_str(o, "prior", p->prior[0] ? p->prior : default_prior);
  add_platform(o, p, date);
  if (p->read_bytes_per_s > 0) add_fact(o, "read_bytes_per_s", p->read_bytes_per_s, "B/s", date);
  add_notes(o, p->note);
  return HF_OK;
}

hf_status catalog_parts_document(const catalog_parts *p, json **out) {
  const json *cpu;
  HF_TRY(check_parts(p));
  HF_TRY(catalog_entry("cpus", p->cpu, &cpu, NULL));
  json *o = json_new_object();
  char *text = NULL;
  hf_status st = fill_document(o, p, cpu);
  if (st == HF_OK) st = json_print(o, false, &text); /* tells whether an allocation failed on the way */
  free(text);
  if (st == HF_OK) *out = o;
  else json_free(o);
  return st;
}
