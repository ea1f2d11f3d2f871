/* catalog_schema.c: the members of each kind of entry, and entries with their facts written out in full. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/catalog_data.h"

#define TEXT(k, p, must) \
  { k, p, "text", NULL, 0, 0, must }
#define TEXTS(k, p) \
  { k, p, "texts", NULL, 0, 0, false }
#define FACT(k, p, u, lo, hi) \
  { k, p, "fact", u, lo, hi, true }
#define MAYBE(k, p, u, lo, hi) \
  { k, p, "fact", u, lo, hi, false }
#define HEAD(k) \
  TEXT(k, "name", true), TEXT(k, "title", true), TEXTS(k, "aliases"), TEXT(k, "source", false), TEXT(k, "date", false)

const catalog_member catalog_members[] = {
    HEAD("cpus"),
    TEXT("cpus", "class", true),
    TEXT("cpus", "sale", false),
    FACT("cpus", "cores", "1", 1, 512),
    FACT("cpus", "base_clock_hz", "Hz", 5e8, 7e9),
    MAYBE("cpus", "all_core_turbo_hz", "Hz", 5e8, 7e9),
    {"cpus", "isa", "list", "list", 0, 0, true},
    FACT("cpus", "memory_channels", "1", 1, 24),
    {"cpus", "memory_speeds", "array", NULL, 0, 0, true},
    TEXT("cpus", "memory_speeds[].type", true),
    {"cpus", "memory_speeds[].dimms_per_channel", "count", NULL, 1, 4, true},
    FACT("cpus", "memory_speeds[].transfers_per_s", "1/s", 8e8, 2e10),
    TEXT("cpus", "memory_speeds[].source", false),
    TEXT("cpus", "memory_speeds[].date", false),
    FACT("cpus", "max_sockets", "1", 1, 8),
    FACT("cpus", "pcie_gen", "1", 3, 6),
    FACT("cpus", "pcie_lanes", "1", 8, 256),
    MAYBE("cpus", "l3_bytes", "B", 1e6, 4e9),
    MAYBE("cpus", "die_read_bytes_per_s", "B/s", 1e10, 4e12),
    FACT("cpus", "power_idle_w", "W", 1, 400),
    FACT("cpus", "power_active_w", "W", 10, 1000),
    {"cpus", "flops_per_cycle", "object", NULL, 0, 0, true},
    FACT("cpus", "flops_per_cycle.f32", "FLOP", 8, 256),
    FACT("cpus", "flops_per_cycle.bf16", "FLOP", 8, 4096),
    FACT("cpus", "flops_per_cycle.int8", "OP", 8, 8192),
    TEXT("cpus", "flops_per_cycle.source", false),
    TEXT("cpus", "flops_per_cycle.date", false),
    MAYBE("cpus", "price_usd", "USD", 10, 50000),

    HEAD("gpus"),
    TEXT("gpus", "form", true),
    {"gpus", "sold_in", "list", "list", 1, 16, false},
    TEXT("gpus", "sale", false),
    TEXT("gpus", "class", false),
    TEXT("gpus", "runs_on", false),
    FACT("gpus", "mem_bytes", "B", 2e9, 2e12),
    FACT("gpus", "mem_bytes_per_s", "B/s", 5e10, 5e13),
    FACT("gpus", "flops_bf16", "FLOP/s", 1e12, 1e17),
    MAYBE("gpus", "flops_fp8", "FLOP/s", 1e12, 1e17),
    MAYBE("gpus", "flops_int8", "OP/s", 1e12, 1e17),
    FACT("gpus", "pcie_gen", "1", 3, 6),
    FACT("gpus", "pcie_lanes", "1", 1, 16),
    FACT("gpus", "power_idle_w", "W", 1, 300),
    FACT("gpus", "power_active_w", "W", 20, 3000),
    MAYBE("gpus", "price_usd", "USD", 50, 200000),

    HEAD("memory"),
    TEXT("memory", "type", true),
    TEXT("memory", "sale", false),
    FACT("memory", "transfers_per_s", "1/s", 8e8, 2e10),
    FACT("memory", "bytes_per_transfer", "B", 1, 64),
    MAYBE("memory", "price_usd_per_gib", "USD/GiB", 0.1, 500),
    FACT("memory", "power_active_w_per_dimm", "W", 0.5, 60),
    FACT("memory", "dimm_bytes_max", "B", 1e9, 5e12),
    {"memory", "dimm_bytes_sold", "list", "list", 1e9, 5e12, false},

    HEAD("platforms"),
    TEXT("platforms", "class", true),
    FACT("platforms", "max_sockets", "1", 1, 8),
    FACT("platforms", "max_gpus", "1", 1, 16),
    FACT("platforms", "power_idle_w", "W", 1, 5000),
    FACT("platforms", "power_active_w", "W", 1, 10000),
    FACT("platforms", "price_usd", "USD", 1, 1e6),

    HEAD("links"),
    FACT("links", "bytes_per_s", "B/s", 1e6, 1e13),
    FACT("links", "latency_ns", "ns", 100, 1e8),
    FACT("links", "power_active_w", "W", 0, 500),
    FACT("links", "price_usd", "USD", 1, 1e5),

    HEAD("models"),
    TEXT("models", "default_format", true),
    {"models", "config", "any", NULL, 0, 0, true},
    FACT("models", "params_total", "1", 1e7, 1e14),
    FACT("models", "params_active", "1", 1e7, 1e14),
    {"models", "api_prices", "object", NULL, 0, 0, false},
    FACT("models", "api_prices.input_per_million", "USD/M", 1e-3, 1e3),
    FACT("models", "api_prices.output_per_million", "USD/M", 1e-3, 1e3),
    MAYBE("models", "api_prices.cached_per_million", "USD/M", 0, 1e3),
    TEXT("models", "api_prices.source", false),
    TEXT("models", "api_prices.date", false),

    HEAD("priors"),
    TEXT("priors", "base", false),
    {"priors", "facts", "any", NULL, 0, 0, true},

    HEAD("machines"),
    TEXT("machines", "kind", false),
    TEXTS("machines", "assumptions"),
    TEXT("machines", "cpu", false),
    {"machines", "sockets", "count", NULL, 1, 2, false},
    {"machines", "memory", "object", NULL, 0, 0, false},
    TEXT("machines", "memory.kind", true),
    {"machines", "memory.dimms_per_channel", "count", NULL, 1, 4, false},
    FACT("machines", "memory.dimm_bytes", "B", 1e8, 5e12),
    MAYBE("machines", "memory.transfers_per_s", "1/s", 8e8, 2e10),
    {"machines", "gpus", "array", NULL, 0, 0, false},
    TEXT("machines", "gpus[].gpu", true),
    {"machines", "gpus[].count", "count", NULL, 1, 16, false},
    TEXT("machines", "prior", false),
    MAYBE("machines", "read_bytes_per_s", "B/s", 1e9, 1e13),
    {"machines", "platform", "any", NULL, 0, 0, false},
    TEXT("machines", "platform.name", false),
    MAYBE("machines", "platform.price_usd", "USD", 0, 1e6),
    MAYBE("machines", "platform.power_idle_w", "W", 0, 5000),
    MAYBE("machines", "platform.power_active_w", "W", 0, 10000),
    {"machines", "devices", "array", NULL, 0, 0, false},
    TEXT("machines", "devices[].device", true),
    TEXT("machines", "devices[].kind", true),
    TEXT("machines", "devices[].name", true),
    {"machines", "devices[].cores", "count", NULL, 0, 4096, false},
    FACT("machines", "devices[].mem_bytes", "B", 1e6, 1e15),
    {"machines", "figures", "any", NULL, 0, 0, false},
    {0},
};

/* ---- writing facts out ---- */

typedef struct {
  const char *kind;
  char path[256];
  const json *source, *date; /* of the nearest object around */
} place;

static const char *unit_at(const place *at) {
  for (const catalog_member *m = catalog_members; m->kind != NULL; m++) {
    if (m->unit != NULL && strcmp(m->kind, at->kind) == 0 && strcmp(m->path, at->path) == 0) return m->unit;
  }
  return NULL;
}

static void add_missing(json *fact_node, const json *have, const place *at, const char *unit) {
  if (json_get(have, "unit") == NULL && unit != NULL) json_add_str(fact_node, "unit", unit);
  if (json_get(have, "source") == NULL && at->source != NULL) json_add_copy(fact_node, "source", at->source);
  if (json_get(have, "date") == NULL && at->date != NULL) json_add_copy(fact_node, "date", at->date);
}

/* Free-form members stay as they are: a model's config, and whole kinds that other parts of the suite read. */
static bool is_free(const place *at) {
  return strcmp(at->kind, "quality") == 0 || strcmp(at->kind, "scenarios") == 0 ||
         (strcmp(at->kind, "models") == 0 && strcmp(at->path, "config") == 0);
}

static void copy_node(json *parent, const char *key, const json *v, place at) {
  const char *unit = unit_at(&at);
  if (unit != NULL && json_type(v) != JSON_OBJECT) {
    json *f = json_add_object(parent, key);
    json_add_copy(f, "value", v);
    add_missing(f, NULL, &at, unit);
    return;
  }
  bool array = json_type(v) == JSON_ARRAY;
  if ((!array && json_type(v) != JSON_OBJECT) || is_free(&at)) {
    json_add_copy(parent, key, v);
    return;
  }
  json *o = array ? json_add_array(parent, key) : json_add_object(parent, key);
  bool fact_node = json_get(v, "value") != NULL;
  size_t used = strlen(at.path);
  if (!fact_node && json_get(v, "source") != NULL) at.source = json_get(v, "source");
  if (!fact_node && json_get(v, "date") != NULL) at.date = json_get(v, "date");
  for (const json *m = json_first(v); m != NULL; m = json_next(m)) {
    snprintf(at.path + used, sizeof at.path - used, "%s%s", array ? "[]" : used > 0 ? "." : "", json_key(m));
    if (fact_node) json_add_copy(o, json_key(m), m);
    else copy_node(o, array ? NULL : json_key(m), m, at);
  }
  at.path[used] = 0;
  if (fact_node) add_missing(o, v, &at, unit);
}

hf_status catalog_expand(const char *kind, const json *doc, json **out) {
  if (json_type(doc) != JSON_OBJECT) return hf_fail(HF_INPUT, "is no JSON object");
  json *o = json_new_object();
  place at = {.kind = kind, .source = json_get(doc, "source"), .date = json_get(doc, "date")};
  for (const json *m = json_first(doc); m != NULL; m = json_next(m)) {
    snprintf(at.path, sizeof at.path, "%s", json_key(m));
    copy_node(o, json_key(m), m, at);
  }
  /* An allocation that failed on the way shows when the document is printed. */
  char *text = NULL;
  hf_status st = json_print(o, false, &text);
  free(text);
  if (st == HF_OK) *out = o;
  else json_free(o);
  return st;
}
