/* catalog_machine.c: a machine of the catalog, or a machine file, as rows of the database.
 *
 * Effective figures are datasheet value x efficiency prior, each with low, likely and high; the datasheet value stands beside
 * them under a name with "theoretical". Devices are cpu0, cpu1 (one per socket) and gpu0, gpu1; device "cpu" is all sockets
 * together, "" the machine.
 * Members of a machine file are explained in db/catalog/README.md. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "db/catalog.h"
#include "db/catalog_parts.h"
#include "db/catalog_rows.h"

enum { MAX_FILE_BYTES = 1 << 20, MAX_SOCKETS = 2, MAX_GPUS = 16, MAX_PRIORS = 4, MAX_CORES = 4096, MAX_CHANNELS = 64 };

typedef struct {
  char where[192];                                                 /* "machine NAME" or the file; starts error lines */
  const json *doc;                                                 /* the machine entry; none is owned */
  const json *cpu, *memory, *prior[MAX_PRIORS], *platform;         /* platform: the entry of that kind, or NULL */
  const char *cpu_name, *memory_kind, *prior_name, *platform_name; /* of the entries */
  char cpu_where[128];
  int n_priors, sockets, cores, channels, dimms_per_channel;
  double transfers_per_s; /* what the sockets really run the modules at */
  int64_t dimm_bytes;
  int n_gpus, lane_share; /* lane_share: 1 all lanes of a card's slot, 2 half, 4 a quarter */
  bool modules;           /* some GPU is a module of a baseboard, no card */
  rows r;
  json *notes; /* assumptions found on the way; owned */
} build;

static void build_free(build *b) {
  json_free(b->notes);
  rows_free(&b->r);
}

/* ---- entries a machine refers to ---- */

static hf_status get_entry(build *b, const char *kind, const char *name, const json **out) {
  uint64_t hash;
  HF_TRY(hf_note(catalog_entry(kind, name, out, &hash), "%s", b->where));
  rows_hash_entry(&b->r, hash);
  return HF_OK;
}

static void note(build *b, const char *fmt, ...) HF_PRINTF(2, 3);
static void note(build *b, const char *fmt, ...) {
  char text[300];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  json_add_str(b->notes, NULL, text);
}

static hf_status load_priors(build *b) {
  const char *name = b->prior_name;
  while (name != NULL) {
    if (b->n_priors == MAX_PRIORS)
      return hf_fail(HF_INPUT, "priors %s: more than %d files lean on each other", b->prior_name, MAX_PRIORS);
    const json **next = &b->prior[b->n_priors++];
    HF_TRY(get_entry(b, "priors", name, next));
    name = json_string(json_get(*next, "base"));
  }
  return HF_OK;
}

/* The first file of the chain that has the fact gives it. */
static hf_status prior_fact(const build *b, const char *key, const char *unit, fact *out) {
  char where[160];
  for (int i = 0; i < b->n_priors; i++) {
    const json *facts = json_get(b->prior[i], "facts");
    snprintf(where, sizeof where, "priors %.60s: facts", json_string(json_get(b->prior[i], "name")));
    if (json_get(facts, key) != NULL) return fact_get(facts, where, key, unit, out);
  }
  return hf_fail(HF_INPUT, "%s: priors %s: field %s: missing", b->where, b->prior_name ? b->prior_name : "(none named)", key);
}

static hf_status load_cpu(build *b) {
  int64_t sockets = 1;
  int most;
  HF_TRY(json_get_str(b->doc, b->where, "cpu", &b->cpu_name));
  HF_TRY(json_get_int(b->doc, b->where, "sockets", 1, MAX_SOCKETS, &sockets));
  HF_TRY(get_entry(b, "cpus", b->cpu_name, &b->cpu));
  HF_TRY(json_get_str(b->cpu, b->where, "name", &b->cpu_name));
  snprintf(b->cpu_where, sizeof b->cpu_where, "cpus %.90s", b->cpu_name);
  HF_TRY(fact_count(b->cpu, b->cpu_where, "max_sockets", 64, &most));
  if (sockets > most) {
    return hf_fail(HF_INPUT, "%s: field sockets: %d, but %s works in at most %d", b->where, (int)sockets, b->cpu_name, most);
  }
  b->sockets = (int)sockets;
  HF_TRY(fact_count(b->cpu, b->cpu_where, "cores", MAX_CORES, &b->cores));
  return fact_count(b->cpu, b->cpu_where, "memory_channels", MAX_CHANNELS, &b->channels);
}

/* Fastest rate at which the CPU runs this type with this many modules on a channel. */
static hf_status cpu_memory_speed(const build *b, const char *type, double *transfers_per_s) {
  char have[200] = "";
  size_t used = 0;
  for (const json *s = json_first(json_get(b->cpu, "memory_speeds")); s != NULL; s = json_next(s)) {
    const char *t;
    int64_t n;
    HF_TRY(json_get_str(s, b->cpu_where, "type", &t));
    HF_TRY(json_get_int(s, b->cpu_where, "dimms_per_channel", 1, 4, &n));
    if (strcmp(t, type) == 0 && n == b->dimms_per_channel) {
      fact f;
      HF_TRY(fact_get(s, b->cpu_where, "transfers_per_s", "1/s", &f));
      *transfers_per_s = f.likely;
      return HF_OK;
    }
    if (used < sizeof have) used += (size_t)snprintf(have + used, sizeof have - used, "%s%s at %d", used ? ", " : "", t, (int)n);
  }
  return hf_fail(HF_INPUT, "%s: field memory: %s does not take %s at %d per channel (it takes: %s)", b->where, b->cpu_name, type,
                 b->dimms_per_channel, have);
}

/* The module is one that is sold; an entry that does not list sizes says their largest. */
static hf_status check_dimm_sold(const build *b, const char *where) {
  double sold[MOST_SIZES];
  char list[200] = "";
  size_t used = 0;
  int n = 0;
  HF_TRY(fact_numbers(b->memory, b->memory_kind, "dimm_bytes_sold", MOST_SIZES, sold, &n));
  for (int i = 0; i < n; i++) {
    if (fact_is_size((double)b->dimm_bytes, sold[i])) return HF_OK;
    if (used < sizeof list)
      used += (size_t)snprintf(list + used, sizeof list - used, "%s%.4g",
                               i == 0      ? ""
                               : i + 1 < n ? ", "
                                           : " or ",
                               sold[i] / 0x1p30);
  }
  if (n == 0) return HF_OK;
  return hf_fail(HF_INPUT, "%s: field dimm_bytes: %.4g GiB, but modules of %s come with %s GiB", where,
                 (double)b->dimm_bytes / 0x1p30, b->memory_kind, list);
}

static hf_status check_dimm_size(build *b, const char *where) {
  fact most;
  HF_TRY(check_dimm_sold(b, where));
  if (json_get(b->memory, "dimm_bytes_max") == NULL) return HF_OK;
  HF_TRY(fact_get(b->memory, b->memory_kind, "dimm_bytes_max", "B", &most));
  if ((double)b->dimm_bytes <= most.likely) return HF_OK;
  return hf_fail(HF_INPUT, "%s: field dimm_bytes: %.0f GiB, but modules of %s come with at most %.0f GiB", where,
                 (double)b->dimm_bytes / 1073741824.0, b->memory_kind, most.likely / 1073741824.0);
}

/* Somebody runs the modules faster or slower than CPU and module promise: believed up to twice the module's own rate. */
static hf_status stated_speed(build *b, const json *m, const char *where, double module) {
  fact f;
  HF_TRY(fact_get(m, where, "transfers_per_s", "1/s", &f));
  if (f.likely < module / 4 || f.likely > module * 2) {
    return hf_fail(HF_INPUT, "%s: field transfers_per_s: %g is no rate that modules of %g could run at", where, f.likely, module);
  }
  if (f.likely > b->transfers_per_s)
    note(b, "Memory at %.0f MT/s as stated, above the %.0f that %s and the modules promise.", f.likely / 1e6,
         b->transfers_per_s / 1e6, b->cpu_name);
  b->transfers_per_s = f.likely;
  return check_dimm_size(b, where);
}

static hf_status load_memory(build *b) {
  char where[224];
  const json *m = json_get(b->doc, "memory");
  const char *type;
  int64_t dimms = 1;
  fact bytes, speed;
  double supported;
  snprintf(where, sizeof where, "%s: memory", b->where);
  if (json_type(m) != JSON_OBJECT)
    return hf_fail(HF_INPUT, "%s: missing; {\"kind\", \"dimms_per_channel\", \"dimm_bytes\"}", where);
  HF_TRY(json_opt_int(m, where, "dimms_per_channel", 1, 4, &dimms));
  HF_TRY(fact_get(m, where, "dimm_bytes", "B", &bytes));
  HF_TRY(json_get_str(m, where, "kind", &b->memory_kind));
  if (bytes.likely > 4398046511104.0) return hf_fail(HF_INPUT, "%s: field dimm_bytes: %g is over 4 TiB", where, bytes.likely);
  b->dimms_per_channel = (int)dimms;
  b->dimm_bytes = (int64_t)bytes.likely;
  HF_TRY(get_entry(b, "memory", b->memory_kind, &b->memory));
  HF_TRY(json_get_str(b->memory, where, "name", &b->memory_kind));
  HF_TRY(json_get_str(b->memory, where, "type", &type));
  HF_TRY(fact_get(b->memory, b->memory_kind, "transfers_per_s", "1/s", &speed));
  HF_TRY(cpu_memory_speed(b, type, &supported));
  b->transfers_per_s = fmin(speed.likely, supported);
  if (json_get(m, "transfers_per_s") != NULL) return stated_speed(b, m, where, speed.likely);
  if (speed.likely > supported)
    note(b, "%s runs at %.0f MT/s, the most that %s drives at %d per channel.", b->memory_kind, supported / 1e6, b->cpu_name,
         b->dimms_per_channel);
  return check_dimm_size(b, where);
}

/* ---- CPU rows ---- */

static bool has_prior(const build *b, const char *key) {
  bool found = false;
  for (int i = 0; i < b->n_priors; i++) found = found || json_get(json_get(b->prior[i], "facts"), key) != NULL;
  return found;
}

/* A read bandwidth that somebody measured on this machine stands beside the theoretical one; where the prior says what the engine gets
 * of it, that replaces the share of the theoretical one. */
static hf_status stated_bandwidth(build *b, fact spec) {
  fact stated, fraction;
  if (json_get(b->doc, "read_bytes_per_s") == NULL) return HF_OK;
  HF_TRY(fact_get(b->doc, b->where, "read_bytes_per_s", "B/s", &stated));
  if (stated.likely < 1e8 || stated.high > 1.2 * spec.likely) {
    return hf_fail(HF_INPUT, "%s: field read_bytes_per_s: %g GB/s, but channels and dies give at most %g", b->where,
                   stated.likely / 1e9, spec.likely / 1e9);
  }
  HF_TRY(rows_figure(&b->r, "cpu", "dram_stated_read_bytes_per_s", "B/s", stated, "%s",
                     json_string(json_get(json_get(b->doc, "read_bytes_per_s"), "source"))));
  if (!has_prior(b, "dram_read_fraction")) return HF_OK;
  HF_TRY(prior_fact(b, "dram_read_fraction", "1", &fraction));
  fact all = fact_product(stated, fraction);
  for (int i = 0; i < b->sockets; i++) {
    char dev[16];
    snprintf(dev, sizeof dev, "cpu%d", i);
    HF_TRY(rows_figure(&b->r, dev, "dram_read_bytes_per_s", "B/s", fact_scale(all, 1.0 / b->sockets),
                       "share of the stated bandwidth x priors/%s dram_read_fraction", b->prior_name));
  }
  return rows_figure(&b->r, "cpu", "dram_read_bytes_per_s", "B/s", all, "stated bandwidth x priors/%s dram_read_fraction",
                     b->prior_name);
}

/* Where an entry's text lies: the file of one's own that replaces it, else its name in the catalog. */
static void file_of(const char *kind, const char *name, char out[300]) {
  const char *folder = getenv("HF_CATALOG");
  int n = folder != NULL && *folder != '\0' ? snprintf(out, 300, "%s/%s/%s.json", folder, kind, name) : 300;
  if (n >= 300 || access(out, F_OK) != 0) snprintf(out, 300, "%.40s/%.90s.json", kind, name);
}

/* What a socket can read: the rate of its channels, or of the links of its dies where they are too few for that. */
static hf_status socket_bandwidth(build *b, fact *out, char text[160]) {
  fact width, dies;
  HF_TRY(fact_get(b->memory, b->memory_kind, "bytes_per_transfer", "B", &width));
  *out = fact_of(b->channels * b->transfers_per_s * width.likely, TAG_SPEC);
  snprintf(text, 160, "%d channels at %.0f MT/s: cpus/%.40s, memory/%.40s", b->channels, b->transfers_per_s / 1e6, b->cpu_name,
           b->memory_kind);
  if (json_get(b->cpu, "die_read_bytes_per_s") == NULL) return HF_OK;
  HF_TRY(fact_get(b->cpu, b->cpu_where, "die_read_bytes_per_s", "B/s", &dies));
  if (!(dies.low > 0)) {
    char file[300];
    file_of("cpus", b->cpu_name, file);
    return hf_fail(
        HF_INPUT,
        "%s: field die_read_bytes_per_s: %g B/s is no bandwidth; leave it out where the memory channels decide, else say "
        "what all dies of a socket read together, such as 150e9",
        file, dies.low);
  }
  if (dies.likely >= out->likely) return HF_OK;
  note(b, "The dies of %s read at most about %.0f GB/s, less than the %.0f GB/s of its memory channels.", b->cpu_name,
       dies.likely / 1e9, out->likely / 1e9);
  dies.high = fmin(dies.high, out->likely);
  *out = dies;
  snprintf(text, 160, "what the dies read, less than the channels give: cpus/%.40s die_read_bytes_per_s", b->cpu_name);
  return HF_OK;
}

static hf_status cpu_bandwidth(build *b) {
  fact spec, fraction, scaling;
  char text[160];
  HF_TRY(socket_bandwidth(b, &spec, text));
  HF_TRY(prior_fact(b, "dram_fraction", "1", &fraction));
  HF_TRY(prior_fact(b, "dual_socket_scaling", "1", &scaling));
  fact socket = fact_product(spec, fraction), all = b->sockets == 2 ? fact_product(socket, scaling) : socket;
  for (int i = 0; i < b->sockets; i++) {
    char dev[16];
    snprintf(dev, sizeof dev, "cpu%d", i);
    HF_TRY(rows_figure(&b->r, dev, "dram_theoretical_bytes_per_s", "B/s", spec, "%s", text));
    HF_TRY(
        rows_figure(&b->r, dev, "dram_read_bytes_per_s", "B/s", socket, "theoretical x priors/%s dram_fraction", b->prior_name));
  }
  HF_TRY(rows_figure(&b->r, "cpu", "dram_theoretical_bytes_per_s", "B/s", fact_scale(spec, b->sockets), "%d sockets added up",
                     b->sockets));
  HF_TRY(rows_figure(&b->r, "cpu", "dram_read_bytes_per_s", "B/s", all, "cpu0%s, priors/%s",
                     b->sockets == 2 ? " x dual_socket_scaling" : "", b->prior_name));
  return stated_bandwidth(b, fact_scale(spec, b->sockets));
}

static bool cpu_has(const build *b, const char *isa) {
  for (const json *v = json_first(json_get(json_get(b->cpu, "isa"), "value")); v != NULL; v = json_next(v)) {
    const char *s = json_string(v);
    if (s != NULL && strcmp(s, isa) == 0) return true;
  }
  return false;
}

static hf_status cpu_flops(build *b, const char *type, const char *unit, const char *amx_isa) {
  char what[48], spec_what[48], key[160];
  fact per_cycle, clock, fraction, scaling;
  const char *prior = amx_isa && cpu_has(b, amx_isa) ? "amx_fraction" : "avx512_fraction";
  snprintf(key, sizeof key, "%s: flops_per_cycle", b->cpu_where);
  HF_TRY(fact_get(json_get(b->cpu, "flops_per_cycle"), key, type, *unit == 'F' ? "FLOP" : "OP", &per_cycle));
  HF_TRY(fact_get(b->cpu, b->cpu_where, "base_clock_hz", "Hz", &clock));
  HF_TRY(prior_fact(b, prior, "1", &fraction));
  HF_TRY(prior_fact(b, "flops_dual_socket_scaling", "1", &scaling));
  fact spec = fact_scale(fact_product(per_cycle, clock), b->cores), socket = fact_product(spec, fraction);
  fact all = b->sockets == 2 ? fact_product(socket, scaling) : socket;
  snprintf(what, sizeof what, "cpu_flops_%s", type);
  snprintf(spec_what, sizeof spec_what, "cpu_theoretical_flops_%s", type);
  for (int i = 0; i < b->sockets; i++) {
    char dev[16];
    snprintf(dev, sizeof dev, "cpu%d", i);
    HF_TRY(rows_figure(&b->r, dev, spec_what, unit, spec, "%d cores at base clock %.2f GHz x %g per cycle: cpus/%s", b->cores,
                       clock.likely / 1e9, per_cycle.likely, b->cpu_name));
    HF_TRY(rows_figure(&b->r, dev, what, unit, socket, "theoretical x priors/%s %s", b->prior_name, prior));
  }
  return rows_figure(&b->r, "cpu", what, unit, all, "cpu0%s, priors/%s", b->sockets == 2 ? " x flops_dual_socket_scaling" : "",
                     b->prior_name);
}

static hf_status cpu_power_and_price(build *b) {
  fact idle, active, dimm, price, gib;
  int dimms = b->channels * b->dimms_per_channel;
  double socket_gib = (double)dimms * (double)b->dimm_bytes / 1073741824.0;
  HF_TRY(fact_get(b->cpu, b->cpu_where, "power_idle_w", "W", &idle));
  HF_TRY(fact_get(b->cpu, b->cpu_where, "power_active_w", "W", &active));
  HF_TRY(fact_get(b->memory, b->memory_kind, "power_active_w_per_dimm", "W", &dimm));
  active = fact_sum(active, fact_scale(dimm, dimms));
  bool has_price = json_get(b->cpu, "price_usd") != NULL, has_gib = json_get(b->memory, "price_usd_per_gib") != NULL;
  if (has_price) HF_TRY(fact_get(b->cpu, b->cpu_where, "price_usd", "USD", &price));
  if (has_gib) HF_TRY(fact_get(b->memory, b->memory_kind, "price_usd_per_gib", "USD/GiB", &gib));
  for (int i = 0; i < b->sockets; i++) {
    char dev[16];
    snprintf(dev, sizeof dev, "cpu%d", i);
    HF_TRY(rows_figure(&b->r, dev, "power_idle_w", "W", idle, "cpus/%s power_idle_w", b->cpu_name));
    HF_TRY(rows_figure(&b->r, dev, "power_active_w", "W", active, "cpus/%s TDP and %d modules of memory/%s", b->cpu_name, dimms,
                       b->memory_kind));
    if (has_price) HF_TRY(rows_figure(&b->r, dev, "price_usd", "USD", price, "cpus/%s price_usd, without memory", b->cpu_name));
    if (has_gib) {
      HF_TRY(rows_figure(&b->r, dev, "price_memory_usd", "USD", fact_scale(gib, socket_gib), "%.0f GiB of memory/%s", socket_gib,
                         b->memory_kind));
    }
  }
  return HF_OK;
}

static hf_status add_cpus(build *b) {
  const char *title;
  HF_TRY(load_cpu(b));
  HF_TRY(load_memory(b));
  HF_TRY(json_get_str(b->cpu, b->cpu_where, "title", &title));
  for (int i = 0; i < b->sockets; i++) {
    char dev[16];
    snprintf(dev, sizeof dev, "cpu%d", i);
    HF_TRY(rows_device(&b->r, b->where, dev, "cpu", title, b->cores, b->dimm_bytes * b->channels * b->dimms_per_channel));
  }
  HF_TRY(cpu_bandwidth(b));
  HF_TRY(cpu_flops(b, "f32", "FLOP/s", NULL));
  HF_TRY(cpu_flops(b, "bf16", "FLOP/s", "amx_bf16"));
  HF_TRY(cpu_flops(b, "int8", "OP/s", "amx_int8"));
  return cpu_power_and_price(b);
}

/* ---- GPU rows ---- */

/* Bytes per second of one lane and direction after line coding: 8 GT/s with 128b/130b in generation 3, doubling each generation;
 * 6 uses FLITs of which 242 of 256 bytes carry packets. */
static hf_status pcie_lane_rate(const char *where, int gen, double *out) {
  if (gen < 3 || gen > 6) return hf_fail(HF_INPUT, "%s: field pcie_gen: %d is none of 3 to 6", where, gen);
  *out = ldexp(8e9 / 8, gen - 3) * (gen == 6 ? 242.0 / 256 : 128.0 / 130);
  return HF_OK;
}

static hf_status gpu_pcie(build *b, const json *g, const char *where, const char *dev) {
  int gen, lanes, host_gen;
  double lane;
  fact fraction;
  HF_TRY(fact_count(g, where, "pcie_gen", 16, &gen));
  HF_TRY(fact_count(g, where, "pcie_lanes", 64, &lanes));
  HF_TRY(fact_count(b->cpu, b->cpu_where, "pcie_gen", 16, &host_gen));
  lanes = lanes / b->lane_share > 0 ? lanes / b->lane_share : 1;
  if (host_gen < gen) gen = host_gen;
  HF_TRY(pcie_lane_rate(where, gen, &lane));
  HF_TRY(prior_fact(b, "pcie_fraction", "1", &fraction));
  fact spec = fact_of(lane * lanes, TAG_SPEC), rate = fact_product(spec, fraction);
  HF_TRY(rows_figure(&b->r, dev, "pcie_theoretical_bytes_per_s", "B/s", spec, "PCIe %d.0 x%d after line coding, one direction",
                     gen, lanes));
  HF_TRY(rows_figure(&b->r, dev, "pcie_h2d_bytes_per_s", "B/s", rate, "theoretical x priors/%s pcie_fraction", b->prior_name));
  return rows_figure(&b->r, dev, "pcie_d2h_bytes_per_s", "B/s", rate, "theoretical x priors/%s pcie_fraction", b->prior_name);
}

static hf_status gpu_rate(build *b, const json *g, const char *where, const char *dev, const char *key, const char *unit,
                          const char *what, const char *spec_what, const char *prior) {
  fact spec, fraction;
  bool own = json_get(g, key) != NULL || strncmp(key, "flops_", 6) != 0;
  /* No units for such small numbers: they are widened and take the 16-bit ones. */
  HF_TRY(own ? fact_get(g, where, key, unit, &spec) : fact_get(g, where, "flops_bf16", "FLOP/s", &spec));
  HF_TRY(prior_fact(b, prior, "1", &fraction));
  HF_TRY(rows_figure(&b->r, dev, spec_what, unit, spec, "%s %s", where, own ? key : "flops_bf16; no units of its own"));
  return rows_figure(&b->r, dev, what, unit, fact_product(spec, fraction), "theoretical x priors/%s %s", b->prior_name, prior);
}

static hf_status add_gpu(build *b, const json *g, const char *where, int index) {
  static const struct {
    const char *key, *unit, *what, *spec, *prior;
  } rates[] = {
      {"mem_bytes_per_s", "B/s", "gpu_mem_bytes_per_s", "gpu_theoretical_mem_bytes_per_s", "gpu_mem_fraction"},
      {"flops_bf16", "FLOP/s", "gpu_flops_bf16", "gpu_theoretical_flops_bf16", "gpu_flops_fraction"},
      {"flops_fp8", "FLOP/s", "gpu_flops_fp8", "gpu_theoretical_flops_fp8", "gpu_flops_fraction"},
      {"flops_int8", "OP/s", "gpu_flops_int8", "gpu_theoretical_flops_int8", "gpu_flops_fraction"},
  };
  static const char *const fixed[] = {"handover_ns", "launch_ns"}, *const power[] = {"power_idle_w", "power_active_w"};
  char dev[16];
  const char *title;
  fact f;
  snprintf(dev, sizeof dev, "gpu%d", index);
  HF_TRY(json_get_str(g, where, "title", &title));
  HF_TRY(fact_get(g, where, "mem_bytes", "B", &f));
  if (f.likely > 1e15) return hf_fail(HF_INPUT, "%s: field mem_bytes: %g is over 1e15", where, f.likely);
  HF_TRY(rows_device(&b->r, where, dev, "gpu", title, 0, (int64_t)f.likely));
  for (size_t i = 0; i < sizeof rates / sizeof *rates; i++) {
    HF_TRY(gpu_rate(b, g, where, dev, rates[i].key, rates[i].unit, rates[i].what, rates[i].spec, rates[i].prior));
  }
  HF_TRY(gpu_pcie(b, g, where, dev));
  for (int i = 0; i < 2; i++) {
    HF_TRY(prior_fact(b, fixed[i], "ns", &f));
    HF_TRY(rows_figure(&b->r, dev, fixed[i], "ns", f, "priors/%s %s", b->prior_name, fixed[i]));
    HF_TRY(fact_get(g, where, power[i], "W", &f));
    HF_TRY(rows_figure(&b->r, dev, power[i], "W", f, "%s %s", where, power[i]));
  }
  if (json_get(g, "price_usd") == NULL) return HF_OK;
  HF_TRY(fact_get(g, where, "price_usd", "USD", &f));
  return rows_figure(&b->r, dev, "price_usd", "USD", f, "%s price_usd", where);
}

/* Counts GPUs and shares out the lanes: when they are short, every card gets half of its lanes, or a quarter, as boards do. */
static hf_status count_gpus(build *b) {
  int needed = 0, host;
  char place[224];
  snprintf(place, sizeof place, "%s: gpus", b->where);
  for (const json *e = json_first(json_get(b->doc, "gpus")); e != NULL; e = json_next(e)) {
    const char *name, *form = "";
    int64_t count = 1;
    const json *g;
    int lanes;
    HF_TRY(json_get_str(e, place, "gpu", &name));
    HF_TRY(json_opt_int(e, place, "count", 1, MAX_GPUS, &count));
    if (b->n_gpus + count > MAX_GPUS) return hf_fail(HF_INPUT, "%s: more than %d GPUs", place, MAX_GPUS);
    HF_TRY(get_entry(b, "gpus", name, &g));
    HF_TRY(fact_count(g, name, "pcie_lanes", 64, &lanes));
    HF_TRY(json_opt_str(g, name, "form", &form));
    b->modules = b->modules || strstr(form, "module") != NULL;
    b->n_gpus += (int)count;
    needed += lanes * (int)count;
  }
  HF_TRY(fact_count(b->cpu, b->cpu_where, "pcie_lanes", 1024, &host));
  host *= b->sockets;
  b->lane_share = 1;
  while (needed > host * b->lane_share && b->lane_share < 4) b->lane_share *= 2;
  if (needed > host * b->lane_share) {
    return hf_fail(HF_INPUT, "%s: %d GPUs need %d PCIe lanes even at a quarter each, %d x %s have %d", place, b->n_gpus,
                   needed / b->lane_share, b->sockets, b->cpu_name, host);
  }
  if (b->lane_share > 1) {
    note(b, "%d x %s have %d PCIe lanes for GPUs that would take %d: each gets 1/%d of its lanes.", b->sockets, b->cpu_name, host,
         needed, b->lane_share);
  }
  return HF_OK;
}

static hf_status add_gpus(build *b) {
  int total = 0;
  HF_TRY(count_gpus(b));
  for (const json *e = json_first(json_get(b->doc, "gpus")); e != NULL; e = json_next(e)) {
    char where[128];
    int64_t count = 1;
    const char *name = json_string(json_get(e, "gpu"));
    const json *g;
    HF_TRY(json_opt_int(e, b->where, "count", 1, MAX_GPUS, &count));
    HF_TRY(hf_note(catalog_entry("gpus", name, &g, NULL), "%s", b->where));
    snprintf(where, sizeof where, "gpus/%.90s", json_string(json_get(g, "name")));
    const char *runs_on = json_string(json_get(g, "runs_on"));
    if (runs_on != NULL)
      note(b,
           "%.90s runs %.20s programs; this project has none: its figures are for comparison, at the efficiencies of CUDA cards",
           json_string(json_get(g, "title")), runs_on);
    for (int64_t i = 0; i < count; i++) HF_TRY(add_gpu(b, g, where, total++));
  }
  return HF_OK;
}

/* ---- the machine as a whole ---- */

static hf_status add_fixed(build *b) {
  static const struct {
    const char *key, *unit, *device;
  } list[] = {{"layer_fixed_ns", "ns", "cpu"}, {"step_fixed_ns", "ns", ""}, {"distinct_factor", "1", ""}};
  for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
    fact f;
    HF_TRY(prior_fact(b, list[i].key, list[i].unit, &f));
    HF_TRY(rows_figure(&b->r, list[i].device, list[i].key, list[i].unit, f, "priors/%s %s", b->prior_name, list[i].key));
  }
  return HF_OK;
}

/* The kind of computer such parts are built into, unless the machine names one: by class of the CPU, sockets, and GPUs. */
static const char *usual_platform(const build *b, const char *class) {
  if (b->modules) return "server-sxm";
  if (strcmp(class, "desktop") == 0) return "desktop";
  if (strcmp(class, "workstation") == 0) return "workstation";
  if (b->n_gpus > 4) return "server-gpu";
  return b->sockets == 2 ? "server-2s" : "server-1s";
}

static hf_status check_platform(const build *b, bool chosen, const char *class) {
  int sockets, gpus;
  const char *theirs = class;
  HF_TRY(json_opt_str(b->platform, b->platform_name, "class", &theirs));
  if (strcmp(theirs, class) != 0) {
    return hf_fail(HF_INPUT, "%s: platform %s is for CPUs of class %s; %s is one of class %s%s", b->where, b->platform_name,
                   theirs, b->cpu_name, class, chosen ? ", and GPU modules sit on baseboards of servers" : "");
  }
  HF_TRY(fact_count(b->platform, b->platform_name, "max_sockets", 64, &sockets));
  HF_TRY(fact_count(b->platform, b->platform_name, "max_gpus", 64, &gpus));
  if (b->sockets > sockets) {
    return hf_fail(HF_INPUT, "%s: platform %s takes %d socket%s, not %d", b->where, b->platform_name, sockets,
                   sockets == 1 ? "" : "s", b->sockets);
  }
  if (b->n_gpus > gpus) {
    return hf_fail(HF_INPUT, "%s: %d GPUs, but platform %s%s takes at most %d", b->where, b->n_gpus, b->platform_name,
                   chosen ? ", the usual one of such a CPU," : "", gpus);
  }
  return HF_OK;
}

/* "platform": a name; or an object of facts, whose "name" gives those it lacks; or nothing: the usual one. */
static hf_status load_platform(build *b) {
  const json *p = json_get(b->doc, "platform");
  const char *name = json_type(p) == JSON_OBJECT ? json_string(json_get(p, "name")) : json_string(p), *class = "server";
  bool usual = name == NULL && (p == NULL || json_get(p, "usual") != NULL);
  HF_TRY(json_opt_str(b->cpu, b->cpu_where, "class", &class));
  if (p != NULL && json_type(p) != JSON_OBJECT && name == NULL)
    return hf_fail(HF_INPUT, "%s: field platform: is neither a name nor an object", b->where);
  if (usual) name = usual_platform(b, class);
  if (name == NULL) return HF_OK;
  HF_TRY(get_entry(b, "platforms", name, &b->platform));
  HF_TRY(json_get_str(b->platform, name, "name", &b->platform_name));
  return check_platform(b, usual, class);
}

/* What the platform adds; false when nobody says so. */
static hf_status platform_fact(build *b, const char *what, const char *unit, fact *out, bool *known) {
  char where[224];
  const json *p = json_get(b->doc, "platform");
  *known = true;
  snprintf(where, sizeof where, "%s: platform", b->where);
  if (json_type(p) == JSON_OBJECT && json_get(p, what) != NULL) return fact_get(p, where, what, unit, out);
  if (b->platform != NULL) return fact_get(b->platform, b->platform_name, what, unit, out);
  *known = false;
  return HF_OK;
}

/* Sum over all devices; the whole price appears only when every part of it is known, for half a price misleads. */
static hf_status add_total(build *b, const char *what, const char *unit, const char *platform_what) {
  bool price = strcmp(what, "price_usd") == 0, complete;
  fact total = fact_of(0, TAG_SPEC), part;
  HF_TRY(platform_fact(b, what, unit, &part, &complete));
  if (complete) {
    total = part;
    HF_TRY(rows_figure(&b->r, "", platform_what, unit, part, "all that is neither CPU, memory nor GPU: %s%s",
                       b->platform ? "platforms/" : "the machine's platform", b->platform ? b->platform_name : ""));
  }
  for (int i = 0; i < b->r.n_dev; i++) {
    const rec_device *d = &b->r.dev[i];
    if (rows_fact(&b->r, d->device, what, &part)) total = fact_sum(total, part);
    else complete = false;
    if (!price || strcmp(d->kind, "cpu") != 0) continue;
    if (rows_fact(&b->r, d->device, "price_memory_usd", &part)) total = fact_sum(total, part);
    else complete = false;
  }
  if (!complete) return HF_OK;
  return rows_figure(&b->r, "", what, unit, total, "sum of devices%s and %s", price ? ", memory" : "", platform_what);
}

static hf_status add_stated_devices(build *b) {
  char where[224];
  snprintf(where, sizeof where, "%s: devices", b->where);
  for (const json *e = json_first(json_get(b->doc, "devices")); e != NULL; e = json_next(e)) {
    const char *device, *kind, *name;
    int64_t cores = 0;
    fact mem;
    HF_TRY(json_get_str(e, where, "device", &device));
    HF_TRY(json_get_str(e, where, "kind", &kind));
    HF_TRY(json_get_str(e, where, "name", &name));
    HF_TRY(json_opt_int(e, where, "cores", 0, MAX_CORES, &cores));
    HF_TRY(fact_get(e, where, "mem_bytes", "B", &mem));
    if (mem.likely > 1e15) return hf_fail(HF_INPUT, "%s: field mem_bytes: %g is over 1e15", where, mem.likely);
    HF_TRY(rows_device(&b->r, where, device, kind, name, (int)cores, (int64_t)mem.likely));
  }
  return HF_OK;
}

static hf_status add_stated_figures(build *b) {
  for (const json *e = json_first(json_get(b->doc, "figures")); e != NULL; e = json_next(e)) {
    char where[320];
    const char *device = "", *what, *unit;
    fact f;
    snprintf(where, sizeof where, "%s: figures", b->where);
    HF_TRY(json_opt_str(e, where, "device", &device));
    HF_TRY(json_get_str(e, where, "what", &what));
    snprintf(where, sizeof where, "%s: figures: %.60s of '%.20s'", b->where, what, device);
    if (*device && strcmp(device, "cpu") != 0 && rows_find_device(&b->r, device) == NULL) {
      return hf_fail(HF_INPUT, "%s: the machine has no such device", where);
    }
    HF_TRY(fact_read(e, where, NULL, &f));
    HF_TRY(json_get_str(e, where, "unit", &unit));
    HF_TRY(rows_figure(&b->r, device, what, unit, f, "%s", json_string(json_get(e, "source"))));
  }
  return HF_OK;
}

/* Transfer times over size from latency and rate, so that a reader of link curves finds catalog machines like measured ones. */
static hf_status add_links(build *b) {
  fact latency = fact_of(0, TAG_SPEC);
  if (b->n_priors > 0) HF_TRY(prior_fact(b, "pcie_latency_ns", "ns", &latency));
  for (int i = 0; i < b->r.n_dev; i++) {
    const char *dev = b->r.dev[i].device;
    for (int up = 0; up < 2; up++) {
      fact rate;
      if (!rows_fact(&b->r, dev, up ? "pcie_h2d_bytes_per_s" : "pcie_d2h_bytes_per_s", &rate)) continue;
      if (rate.low < 1) return hf_fail(HF_INPUT, "%s: PCIe rate of %s: %g is below 1 B/s", b->where, dev, rate.low);
      for (int64_t bytes = 4096; bytes <= (int64_t)1 << 28; bytes *= 16) {
        rec_link_point p = {.pinned = true, .bytes = bytes, .tag = rate.tag > latency.tag ? rate.tag : latency.tag};
        if (!rows_text(p.src, sizeof p.src, up ? "host" : dev) || !rows_text(p.dst, sizeof p.dst, up ? dev : "host"))
          return hf_fail(HF_INPUT, "%s: device name '%.40s' is too long", b->where, dev);
        p.ns_low = latency.low + 1e9 * (double)bytes / rate.high;
        p.ns = latency.likely + 1e9 * (double)bytes / rate.likely;
        p.ns_high = latency.high + 1e9 * (double)bytes / rate.low;
        HF_TRY(rows_link(&b->r, &p));
      }
    }
  }
  return HF_OK;
}

static hf_status add_facts(build *b) {
  json *f = b->r.facts;
  const char *title, *source, *date;
  HF_TRY(json_get_str(b->doc, b->where, "title", &title));
  HF_TRY(json_get_str(b->doc, b->where, "source", &source));
  HF_TRY(json_get_str(b->doc, b->where, "date", &date));
  json_add_str(f, "title", title);
  json_add_str(f, "source", source);
  json_add_str(f, "date", date);
  if (b->cpu != NULL) {
    json_add_str(f, "cpu", json_string(json_get(b->cpu, "title")));
    json_add_int(f, "sockets", b->sockets);
    json_add_int(f, "cores_per_socket", b->cores);
    json_add_copy(f, "isa", json_get(json_get(b->cpu, "isa"), "value"));
    json *m = json_add_object(f, "memory");
    json_add_str(m, "kind", b->memory_kind);
    json_add_int(m, "dimms", (int64_t)b->sockets * b->channels * b->dimms_per_channel);
    json_add_int(m, "dimm_bytes", b->dimm_bytes);
    json_add_num(m, "transfers_per_s", b->transfers_per_s);
    json_add_str(f, "prior", b->prior_name);
    if (b->platform != NULL) json_add_str(f, "platform", b->platform_name);
  }
  if (json_len(json_get(b->doc, "assumptions")) + json_len(b->notes) == 0) return HF_OK;
  json *a = json_add_array(f, "assumptions");
  for (const json *e = json_first(json_get(b->doc, "assumptions")); e != NULL; e = json_next(e)) json_add_copy(a, NULL, e);
  for (const json *e = json_first(b->notes); e != NULL; e = json_next(e)) json_add_copy(a, NULL, e);
  return HF_OK;
}

static hf_status check_members(const build *b) {
  static const char *const known[] = {
      "name", "aliases", "title",    "kind",    "assumptions", "cpu",    "sockets", "memory",
      "gpus", "prior",   "platform", "devices", "figures",     "source", "date",    "read_bytes_per_s"};
  if (json_type(b->doc) != JSON_OBJECT) return hf_fail(HF_INPUT, "%s: is no JSON object", b->where);
  for (const json *m = json_first(b->doc); m != NULL; m = json_next(m)) {
    bool found = false;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) found = found || strcmp(json_key(m), known[i]) == 0;
    if (!found) return hf_fail(HF_INPUT, "%s: field %.60s: unknown to machine files", b->where, json_key(m));
  }
  return HF_OK;
}

static hf_status read_head(build *b, bool is_file) {
  const char *name, *kind = is_file ? "whatif" : "catalog";
  HF_TRY(check_members(b));
  HF_TRY(json_get_str(b->doc, b->where, "name", &name));
  if (*name == 0 || !rows_text(b->r.m.name, sizeof b->r.m.name, name)) {
    return hf_fail(HF_INPUT, "%s: field name: 1 to %zu bytes", b->where, sizeof b->r.m.name - 1);
  }
  HF_TRY(json_opt_str(b->doc, b->where, "kind", &kind));
  if (strcmp(kind, "catalog") != 0 && strcmp(kind, "whatif") != 0) {
    return hf_fail(HF_INPUT, "%s: field kind: '%.40s' is neither catalog nor whatif", b->where, kind);
  }
  b->r.m.kind = strcmp(kind, "catalog") == 0 && !is_file ? MACHINE_CATALOG : MACHINE_WHATIF;
  return rows_hash(&b->r, b->doc);
}

static hf_status build_rows(build *b, bool is_file) {
  HF_TRY(read_head(b, is_file));
  if (json_get(b->doc, "cpu") != NULL) {
    HF_TRY(json_get_str(b->doc, b->where, "prior", &b->prior_name));
    HF_TRY(load_priors(b));
    HF_TRY(add_cpus(b));
    HF_TRY(add_gpus(b));
    HF_TRY(add_fixed(b));
    HF_TRY(load_platform(b));
    HF_TRY(add_total(b, "power_idle_w", "W", "power_platform_idle_w"));
    HF_TRY(add_total(b, "power_active_w", "W", "power_platform_active_w"));
    HF_TRY(add_total(b, "price_usd", "USD", "price_platform_usd"));
  } else if (json_get(b->doc, "gpus") != NULL || json_get(b->doc, "memory") != NULL) {
    return hf_fail(HF_INPUT, "%s: field cpu: missing; gpus and memory by catalog name need it", b->where);
  }
  HF_TRY(add_stated_devices(b));
  HF_TRY(add_stated_figures(b));
  if (rows_find_device(&b->r, "cpu0") == NULL)
    return hf_fail(HF_INPUT, "%s: has no device cpu0; name a cpu or state devices", b->where);
  if (rows_find_figure(&b->r, "cpu", "dram_read_bytes_per_s") == NULL) {
    return hf_fail(HF_INPUT, "%s: field figures: dram_read_bytes_per_s of device cpu is missing", b->where);
  }
  HF_TRY(add_links(b));
  return add_facts(b);
}

/* The rows are handed over. */
static hf_status build_machine(const json *doc, const char *where, bool is_file, catalog_machine *out) {
  build b = {.doc = doc, .notes = json_new_array()};
  snprintf(b.where, sizeof b.where, "%s", where);
  hf_status st = rows_init(&b.r);
  if (st == HF_OK) st = build_rows(&b, is_file);
  if (st == HF_OK) st = rows_close(&b.r);
  if (st == HF_OK) {
    rows *r = &b.r;
    *out = (catalog_machine){r->m, r->dev, r->fig, r->link, r->n_dev, r->n_fig, r->n_link};
    r->dev = NULL;
    r->fig = NULL;
    r->link = NULL;
  }
  build_free(&b);
  return st;
}

hf_status catalog_compose(const catalog_parts *p, catalog_machine *out) {
  json *doc = NULL;
  HF_TRY(catalog_parts_document(p, &doc));
  hf_status st = build_machine(doc, "machine of parts", true, out);
  json_free(doc);
  return st;
}

/* A path has a slash or ends in .json; a plain word is a catalog name first, a file in the current folder second. */
hf_status catalog_machine_document(const char *name_or_file, json **doc, bool *is_file) {
  size_t n = strlen(name_or_file);
  *is_file = strchr(name_or_file, '/') != NULL || (n > 5 && strcmp(name_or_file + n - 5, ".json") == 0);
  if (!*is_file) {
    hf_status st = catalog_get("machines", name_or_file, doc);
    if (st != HF_NOT_FOUND || access(name_or_file, R_OK) != 0) return st;
    *is_file = true;
  }
  json *raw = NULL;
  HF_TRY(json_read_file(name_or_file, MAX_FILE_BYTES, &raw));
  hf_status st = catalog_expand("machines", raw, doc);
  json_free(raw);
  return st;
}

hf_status catalog_machine_build(const char *name_or_file, catalog_machine *out) {
  char where[192];
  json *doc = NULL;
  bool is_file;
  if (catalog_parts_is_text(name_or_file)) {
    catalog_parts p;
    HF_TRY(catalog_parts_parse(name_or_file, &p));
    return catalog_compose(&p, out);
  }
  HF_TRY(catalog_machine_document(name_or_file, &doc, &is_file));
  snprintf(where, sizeof where, is_file ? "%.180s" : "catalog machine %.160s", name_or_file);
  hf_status st = build_machine(doc, where, is_file, out);
  json_free(doc);
  return st;
}

hf_status catalog_machine_to_db(db *d, const char *name_or_file, rec_machine *out) {
  catalog_machine m;
  HF_TRY(catalog_machine_build(name_or_file, &m));
  hf_status st = catalog_machine_store(d, &m, out);
  catalog_machine_free(&m);
  return st;
}
